//! What adapters of one method, one objective and one configuration have in common.
//!
//! Writing a method into a base and taking that apart depends on no tensor: it is done once for each configuration. An
//! adapter of a known one is its tensors in known places.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use graft_adapters::StoredAdapter;
use graft_graph::Tensor;
use graft_graph::batch::Fragment;
use graft_plugins::Objective;
use graft_plugins::adapt::Param;
use graft_plugins::api::Role;
use indexmap::IndexMap;

use super::Parts;
use super::parts::{Outline, Own};
use crate::base::Base;
use crate::binding::{Choice, bind, method_of};
use crate::error::{Result, TaskError};
use crate::projections::fit_projections;
use crate::task::{Fitted, name_of};

/// Structures that are kept; the oldest goes first.
const KEPT: usize = 256;

struct Structure {
    params: Vec<Param>,
    /// Settings by the names of their inputs.
    numbers: HashMap<String, Tensor>,
    /// Fragments, and the names of their leaves.
    own: Vec<(Arc<Fragment>, Arc<[String]>)>,
    outline: Arc<Outline>,
    objective: Arc<Objective>,
    virtual_tokens: usize,
}

impl Structure {
    /// An adapter of it, with these fragments.
    fn filled(&self, key: StructureKey, name: String, own: Vec<Arc<Own>>) -> Known {
        let parts = Parts::new(name, own, Arc::clone(&self.outline));
        Known { key, parts, objective: Arc::clone(&self.objective), virtual_tokens: self.virtual_tokens }
    }
}

/// An adapter of a known structure.
pub struct Known {
    /// What the structure is known by.
    pub key: StructureKey,
    /// Its fragments.
    pub parts: Parts,
    /// What decodes its outputs.
    pub objective: Arc<Objective>,
    /// Places that its virtual tokens take from texts.
    pub virtual_tokens: usize,
}

/// What a structure is known by: method, objective, and how both are configured.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StructureKey {
    method: Arc<str>,
    objective: Arc<str>,
}

impl StructureKey {
    fn with(&self, objective: &Choice) -> StructureKey {
        StructureKey { method: Arc::clone(&self.method), objective: said(objective) }
    }
}

fn said(choice: &Choice) -> Arc<str> {
    format!("{}{}", choice.id, choice.config).into()
}

/// The structures of adapters that were taken apart.
#[derive(Default)]
pub struct Structures(Mutex<IndexMap<StructureKey, Arc<Structure>>>);

impl Structures {
    fn all(&self) -> MutexGuard<'_, IndexMap<StructureKey, Arc<Structure>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The adapter, or the base as it is for none, with that objective, if its structure is known; else what to keep it
    /// by.
    ///
    /// # Errors
    /// Another base; modules and tensors that do not fit.
    pub fn find(
        &self,
        base: &Base,
        adapter: Option<&StoredAdapter>,
        objective: &Choice,
    ) -> Result<std::result::Result<Known, StructureKey>> {
        let adapter = match adapter {
            Some(a) => {
                if a.graft.is_some() {
                    a.check_base(base.digest()?)?;
                }
                Some(fit_projections(base, a)?)
            }
            None => None,
        };
        let method = adapter.as_deref().map(|a| method_of(base, a)).transpose()?.flatten();
        let method = method.as_ref().map(said).unwrap_or_default();
        let key = StructureKey { method, objective: said(objective) };
        let Some(structure) = self.all().get(&key).cloned() else { return Ok(Err(key)) };
        let tensors = adapter.as_deref().map(|a| bind(base, a, &structure.params)).transpose()?;
        let names = structure.params.iter().map(|p| p.name.as_str());
        let values: HashMap<&str, Tensor> = names.zip(tensors.unwrap_or_default()).collect();
        let mut own = Vec::with_capacity(structure.own.len());
        for (fragment, names) in &structure.own {
            let value = |n: &String| values.get(n.as_str()).or_else(|| structure.numbers.get(n)).cloned();
            let leaves: Option<Vec<Tensor>> = names.iter().map(value).collect();
            let leaves = leaves.ok_or_else(|| TaskError::Input {
                what: "parameters".into(),
                detail: "one has no value".into(),
            })?;
            own.push(Arc::new(Own::new(Arc::clone(fragment), Arc::clone(names), leaves)));
        }
        let name = adapter.as_deref().map_or_else(|| "base".to_owned(), name_of);
        Ok(Ok(structure.filled(key, name, own)))
    }

    /// An adapter of which `parts` have the structure of this key, with an objective in the place of its own, over the same
    /// numbers: they are neither read nor kept twice. `None` where that structure is not known, and where it takes numbers
    /// that the adapter has not in the same fragments.
    pub fn with(&self, key: &StructureKey, parts: &Parts, objective: &Choice) -> Option<Known> {
        let other = key.with(objective);
        let (of_own, structure) = {
            let all = self.all();
            (Arc::clone(all.get(key)?), Arc::clone(all.get(&other)?))
        };
        if structure.params.iter().any(|p| p.role == Role::Head) {
            return None;
        }
        let shared = |(fragment, names): &(Arc<Fragment>, Arc<[String]>)| {
            let numbers: Option<Vec<Tensor>> =
                names.iter().map(|n| structure.numbers.get(n).cloned()).collect();
            if let Some(numbers) = numbers {
                return Some(Arc::new(Own::new(Arc::clone(fragment), Arc::clone(names), numbers)));
            }
            let same = |n: &String| structure.numbers.get(n) == of_own.numbers.get(n);
            let is = |o: &&Arc<Own>| o.fragment.signature == fragment.signature && o.names == *names;
            parts.own.iter().find(is).filter(|_| names.iter().all(same)).cloned()
        };
        let own = structure.own.iter().map(shared).collect::<Option<Vec<_>>>()?;
        Some(structure.filled(other, parts.name.clone(), own))
    }

    /// Keeps the structure of an adapter that was taken apart.
    pub fn keep(&self, key: StructureKey, fitted: &Fitted, parts: &Parts, objective: &Arc<Objective>) {
        let is_param = |name: &str| fitted.params.iter().any(|p| p.name == name);
        let leaves = parts.own.iter().flat_map(|o| o.names.iter().cloned().zip(o.leaves()));
        let numbers = leaves.filter(|(name, _)| !is_param(name));
        let structure = Structure {
            params: fitted.params.clone(),
            numbers: numbers.collect(),
            own: parts.own.iter().map(|o| (Arc::clone(&o.fragment), Arc::clone(&o.names))).collect(),
            outline: Arc::clone(&parts.outline),
            objective: Arc::clone(objective),
            virtual_tokens: fitted.virtual_tokens,
        };
        let mut all = self.all();
        all.insert(key, Arc::new(structure));
        if all.len() > KEPT {
            all.shift_remove_index(0);
        }
    }
}
