//! An adapter in fragments.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use graft_graph::Tensor;
use graft_graph::batch::{Bank, Fragment, Member, Signature, Unbatchable, join, take_apart};
use graft_plugins::adapt::Setting;
use graft_plugins::adapt_laid_out;

use crate::base::Base;
use crate::task::{Fitted, leaves};

/// A fragment of an adapter, and its numbers.
pub(super) struct Own {
    pub(super) fragment: Arc<Fragment>,
    /// For each leaf the name of the input that it is in the adapter's own graph.
    pub(super) names: Arc<[String]>,
    pub(super) held: Mutex<Held>,
}

/// Where an adapter's numbers are.
pub(super) enum Held {
    /// Here, as the tensors of the leaves.
    Leaves(Vec<Tensor>),
    /// Here, as banks keep them.
    Rows(Rows),
    /// In a bank and nowhere else.
    Away,
}

/// What each of the banks of a fragment keeps of an adapter: `[rows · width]`, or one number. In one piece, as thousands of
/// adapters have many banks each.
#[derive(Default)]
pub(super) struct Rows {
    values: Vec<f32>,
    ends: Vec<usize>,
}

impl Rows {
    /// Room for as many numbers.
    fn with_capacity(values: usize) -> Rows {
        Rows { values: Vec::with_capacity(values), ends: Vec::new() }
    }

    /// Those of the next bank.
    pub(super) fn push(&mut self, rows: &[f32]) {
        self.values.extend_from_slice(rows);
        self.ends.push(self.values.len());
    }

    /// Those of each bank, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &[f32]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| &self.values[start..*end])
    }

    /// Those of the next bank, as `fill` appends them; `None` where it can't.
    pub(super) fn fill(&mut self, fill: impl FnOnce(&mut Vec<f32>) -> Option<()>) -> Option<()> {
        fill(&mut self.values)?;
        self.ends.push(self.values.len());
        Some(())
    }
}

impl Own {
    pub(super) fn new(fragment: Arc<Fragment>, names: Arc<[String]>, leaves: Vec<Tensor>) -> Own {
        Own { fragment, names, held: Mutex::new(Held::Leaves(leaves)) }
    }

    pub(super) fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The tensors of the leaves, where they are here.
    pub(super) fn leaves(&self) -> Vec<Tensor> {
        match &*self.held() {
            Held::Leaves(leaves) => leaves.clone(),
            Held::Rows(_) | Held::Away => Vec::new(),
        }
    }
}

/// Sizes of outputs behind the batch, where they are fixed, by name.
type Sizes = HashMap<String, Vec<Option<usize>>>;

/// What adapters of one structure have in common.
pub(super) struct Outline {
    signatures: HashSet<Signature>,
    sizes: Sizes,
}

impl Outline {
    /// Whether they have a fragment of this structure.
    pub(super) fn has(&self, signature: &Signature) -> bool {
        self.signatures.contains(signature)
    }
}

/// An adapter that can share a batch with others.
pub struct Parts {
    /// The adapter, for messages.
    pub name: String,
    /// Shared with the same adapter under another objective.
    pub(super) own: Vec<Arc<Own>>,
    pub(super) outline: Arc<Outline>,
    /// Nobody else's.
    pub(super) number: u64,
}

impl Fitted {
    /// The adapter in fragments.
    ///
    /// # Errors
    /// What keeps it from sharing a batch; it then has a pass of its own.
    pub fn parts(&self, base: &Base) -> std::result::Result<Parts, Unbatchable> {
        if self.virtual_tokens == 0 {
            let member = Member {
                graph: &self.graph,
                forward: &self.forward,
                leaves: &self.leaves,
                roles: &base.model.inputs,
            };
            return self.parts_of(base, &member, &HashMap::new());
        }
        // Rows of a batch come with their virtual tokens in front.
        let made = adapt_laid_out(&base.graph, &base.model, self.method.as_ref(), self.objective.as_ref());
        let made = made.map_err(|e| Unbatchable {
            op: "virtual tokens".into(),
            place: String::new(),
            why: e.to_string(),
        })?;
        let member = Member {
            graph: &made.graph,
            forward: &made.forward,
            leaves: &leaves(&made),
            roles: &base.model.inputs,
        };
        let number = |s: &Setting| (s.input.clone(), Tensor::scalar(s.number));
        self.parts_of(base, &member, &made.settings.iter().map(number).collect())
    }

    /// The fragments of a graph; `numbers` are values of leaves that the adapter itself has not.
    fn parts_of(
        &self,
        base: &Base,
        member: &Member<'_>,
        numbers: &HashMap<String, Tensor>,
    ) -> std::result::Result<Parts, Unbatchable> {
        let graph = member.graph;
        let mut own = Vec::new();
        for fragment in take_apart(&base.graph, member)? {
            let name = |n: &usize| graph.name_of(member.leaves[*n].value).to_owned();
            let names: Arc<[String]> = fragment.leaf_numbers.iter().map(name).collect();
            let value = |n: &String| self.values.get(n).or_else(|| numbers.get(n)).cloned();
            let leaves: Option<Vec<Tensor>> = names.iter().map(value).collect();
            let leaves = leaves.ok_or_else(|| Unbatchable {
                op: "parameter".into(),
                place: String::new(),
                why: "has no value".into(),
            })?;
            own.push(Arc::new(Own::new(Arc::new(fragment), names, leaves)));
        }
        let sizes = graph.outputs.iter().map(|v| {
            let dims = graph.shape(*v).map_or(&[][..], Vec::as_slice);
            let sizes = dims.iter().skip(1).map(|d| d.known().and_then(|n| usize::try_from(n).ok()));
            (graph.name_of(*v).to_owned(), sizes.collect())
        });
        let signatures = own.iter().map(|o: &Arc<Own>| o.fragment.signature).collect();
        let outline = Outline { signatures, sizes: sizes.collect() };
        Ok(Parts::new(self.name.clone(), own, Arc::new(outline)))
    }
}

impl Parts {
    pub(super) fn new(name: String, own: Vec<Arc<Own>>, outline: Arc<Outline>) -> Parts {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Parts { name, own, outline, number: NEXT.fetch_add(1, Ordering::Relaxed) }
    }

    /// Whether every operator has a rule for rows that differ. Where fragments of the same structures are in a session
    /// already, it is known.
    ///
    /// # Errors
    /// The operator that has none.
    pub fn check(&self, base: &Base) -> std::result::Result<(), Unbatchable> {
        let all: Vec<&Fragment> = self.own.iter().map(|o| &*o.fragment).collect();
        let joined = join(&base.graph, &all)?;
        for (own, placed) in self.own.iter().zip(&joined.fragments) {
            let leaves = own.leaves();
            let leaves: Vec<&Tensor> = leaves.iter().collect();
            let made = |b: &&Bank| {
                own.fragment.rows_of(b, &leaves, &mut Vec::new()).is_some()
                    || own.fragment.recipe(&base.graph, &[*b]).is_some()
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

    /// Brings the numbers into the order of banks, as far as that takes no session, so that whoever runs batches need only
    /// copy them.
    pub fn lay_out(&self, layouts: &HashMap<Signature, Arc<[Bank]>>) {
        for own in &self.own {
            let Some(banks) = layouts.get(&own.fragment.signature) else { continue };
            let mut held = own.held();
            let Held::Leaves(leaves) = &*held else { continue };
            let leaves: Vec<&Tensor> = leaves.iter().collect();
            let mut rows = Rows::with_capacity(leaves.iter().map(|t| t.len()).sum());
            let fill = |b: &Bank| rows.fill(|into| own.fragment.rows_of(b, &leaves, into));
            if banks.iter().try_for_each(fill).is_some() {
                *held = Held::Rows(rows);
            }
        }
    }

    /// The structures of the fragments.
    pub fn signatures(&self) -> impl Iterator<Item = &Signature> {
        self.outline.signatures.iter()
    }

    /// Takes each fragment from `known` where an equal one is there, and adds the others.
    pub fn share(&mut self, known: &mut HashMap<Signature, Arc<Fragment>>) {
        // What is shared with other objectives was shared here before.
        for own in self.own.iter_mut().filter_map(Arc::get_mut) {
            let kept = known.entry(own.fragment.signature).or_insert_with(|| Arc::clone(&own.fragment));
            own.fragment = Arc::clone(kept);
        }
    }

    /// The fragments.
    pub fn fragments(&self) -> impl Iterator<Item = &Arc<Fragment>> {
        self.own.iter().map(|o| &o.fragment)
    }

    pub(super) fn sizes(&self, output: &str) -> Vec<Option<usize>> {
        self.outline.sizes.get(output).cloned().unwrap_or_default()
    }
}
