//! An adapter in fragments.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use graft_graph::Tensor;
use graft_graph::batch::{Bank, Fragment, Member, Unbatchable, join, take_apart};

use crate::base::Base;
use crate::task::Fitted;

/// A fragment of an adapter, and the tensors of its leaves.
pub(super) struct Own {
    pub(super) fragment: Arc<Fragment>,
    pub(super) leaves: Vec<Tensor>,
}

/// An adapter that can share a batch with others.
pub struct Parts {
    /// The adapter, for messages.
    pub name: String,
    pub(super) own: Vec<Own>,
    signatures: HashSet<Arc<str>>,
    /// Sizes of the outputs behind the batch.
    sizes: HashMap<String, Vec<Option<usize>>>,
}

impl Fitted {
    /// The adapter in fragments.
    ///
    /// # Errors
    /// What keeps it from sharing a batch; it then has a pass of its own.
    pub fn parts(&self, base: &Base) -> std::result::Result<Parts, Unbatchable> {
        if self.virtual_tokens > 0 {
            return Err(Unbatchable {
                op: "virtual tokens".into(),
                place: String::new(),
                why: "lengthen every row of the batch".into(),
            });
        }
        let member = Member {
            graph: &self.graph,
            forward: &self.forward,
            leaves: &self.leaves,
            roles: &base.model.inputs,
        };
        let mut own = Vec::new();
        for fragment in take_apart(&base.graph, &member)? {
            let name = |n: &usize| self.graph.name_of(self.leaves[*n].value);
            let tensors = fragment.leaf_numbers.iter().map(|n| self.values.get(name(n)).cloned());
            let leaves: Option<Vec<Tensor>> = tensors.collect();
            let leaves = leaves.ok_or_else(|| Unbatchable {
                op: "parameter".into(),
                place: String::new(),
                why: "has no value".into(),
            })?;
            own.push(Own { fragment: Arc::new(fragment), leaves });
        }
        let sizes = self.graph.outputs.iter().map(|v| {
            let dims = self.graph.shape(*v).map_or(&[][..], Vec::as_slice);
            let sizes = dims.iter().skip(1).map(|d| d.known().and_then(|n| usize::try_from(n).ok()));
            (self.graph.name_of(*v).to_owned(), sizes.collect())
        });
        Ok(Parts {
            name: self.name.clone(),
            sizes: sizes.collect(),
            signatures: own.iter().map(|o| Arc::clone(&o.fragment.signature)).collect(),
            own,
        })
    }
}

impl Parts {
    /// Whether every operator has a rule for rows that differ. Where fragments of the same structures are in a session
    /// already, it is known.
    ///
    /// # Errors
    /// The operator that has none.
    pub fn check(&self, base: &Base) -> std::result::Result<(), Unbatchable> {
        let all: Vec<&Fragment> = self.own.iter().map(|o| &*o.fragment).collect();
        let joined = join(&base.graph, &all)?;
        for (own, placed) in self.own.iter().zip(&joined.fragments) {
            let leaves: Vec<&Tensor> = own.leaves.iter().collect();
            let made = |b: &&Bank| {
                own.fragment.moved(b, &leaves).is_some() || own.fragment.recipe(&base.graph, &[*b]).is_some()
            };
            if let Some(bank) = placed.banks.iter().find(|b| !made(b)) {
                let why = "is made of more than parameters and weights of the base";
                return Err(Unbatchable {
                    op: "parameter".into(),
                    place: bank.input.clone(),
                    why: why.into(),
                });
            }
        }
        Ok(())
    }

    /// The structures of the fragments.
    pub fn signatures(&self) -> impl Iterator<Item = &Arc<str>> {
        self.signatures.iter()
    }

    /// Takes each fragment from `known` where an equal one is there, and adds the others.
    pub fn share(&mut self, known: &mut HashMap<Arc<str>, Arc<Fragment>>) {
        for own in &mut self.own {
            let kept =
                known.entry(Arc::clone(&own.fragment.signature)).or_insert_with(|| Arc::clone(&own.fragment));
            own.fragment = Arc::clone(kept);
        }
        self.signatures = self.own.iter().map(|o| Arc::clone(&o.fragment.signature)).collect();
    }

    /// The fragments.
    pub fn fragments(&self) -> impl Iterator<Item = &Arc<Fragment>> {
        self.own.iter().map(|o| &o.fragment)
    }

    pub(super) fn has(&self, signature: &str) -> bool {
        self.signatures.contains(signature)
    }

    pub(super) fn sizes(&self, output: &str) -> Vec<Option<usize>> {
        self.sizes.get(output).cloned().unwrap_or_default()
    }
}
