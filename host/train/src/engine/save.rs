//! From parameters to an adapter directory.

use std::path::PathBuf;

use graft_adapters::{
    BaseRef, Component, Composition, GraftFile, HubConfig, ObjectiveInfo, ParamKey, PeftConfig, PluginRef,
    StoredAdapter, Training,
};
use graft_graph::Tensor;
use graft_plugins::adapt::Param;
use graft_plugins::api::{Course, Role};
use graft_plugins::{Adapted, Method, Objective};
use graft_tasks::binding::{head_name, param_key};
use graft_tasks::{Base, as_in_checkpoint};
use indexmap::IndexMap;
use serde_json::{Map, Value};

use super::job::JobError;
use super::peft::{hub_config, peft_config};
use super::stored::Stored;
use crate::error::TrainError;
use crate::observe::{Event, Observer};
use crate::params::Parameters;

/// Writes the adapter of a run, as often as it is told to.
pub(super) struct Saver<'a> {
    pub(super) out: PathBuf,
    pub(super) base: &'a Base,
    pub(super) method: &'a Method,
    pub(super) objective: &'a Objective,
    pub(super) params: Vec<Param>,
    /// Values of parameters that are not trained or that nothing depends on: they stay what they began as.
    pub(super) idle: IndexMap<String, Tensor>,
    pub(super) matched: Vec<String>,
    /// What is stored instead of parameters that only help training.
    pub(super) stored: Option<Stored>,
    pub(super) training: Training,
    /// Steps that were done.
    pub(super) steps: u64,
}

fn object(v: &Value) -> Map<String, Value> {
    v.as_object().cloned().unwrap_or_default()
}

impl<'a> Saver<'a> {
    pub(super) fn matched(adapted: &Adapted) -> Vec<String> {
        adapted.matched.iter().flat_map(|m| m.matched.clone()).collect()
    }

    /// The adapter of these parameters.
    pub(super) fn compose(&self, params: &Parameters) -> Result<StoredAdapter, JobError> {
        let all = self.base.sites();
        let (mut parameters, mut head) = (Vec::<(ParamKey, Tensor)>::new(), IndexMap::new());
        let peft = self.peft();
        let norms = matches!(peft, Some(PeftConfig::LnTuning(_)));
        if norms && self.base.model_type.is_none() {
            tracing::warn!(
                "the base has no config.json: scales of norms are written for PEFT as the graph has them, which is 1 too \
                 much for architectures such as Gemma"
            );
        }
        let helps = |p: &&Param| !self.stored.as_ref().is_some_and(|s| s.from.contains(&p.name));
        let held = |p: &&Param| p.course != Course::Implied;
        for p in self.params.iter().filter(helps).filter(held) {
            let mut value = match (params.get(&p.name), self.idle.get(&p.name)) {
                (Some(v), _) => {
                    Tensor::new(v.shape.clone(), &v.values).map_err(graft_tasks::TaskError::from)?
                }
                (None, Some(t)) => t.clone(),
                (None, None) => continue,
            };
            match p.role {
                Role::Head => drop(head.insert(head_name(&p.key).to_string(), value)),
                Role::Adapter => {
                    let key = param_key(&self.base.graph, all, p);
                    if norms {
                        let biased = all.iter().any(|s| s.path == key.path && s.bias.is_some());
                        as_in_checkpoint(self.base, &key, biased, &mut value)?;
                    }
                    parameters.push((key, value));
                }
            }
        }
        if let Some(stored) = &self.stored {
            let get = |name: &str| {
                let trained = params.get(name).and_then(|v| Tensor::new(v.shape.clone(), &v.values).ok());
                trained.or_else(|| self.idle.get(name).cloned())
            };
            let made = stored.values(self.base, &get)?;
            parameters.extend(made.into_iter().map(|(key, t)| (ParamKey::new("", key), t)));
        }
        let config = self.objective.config();
        let labels: Vec<String> = config
            .get("labels")
            .and_then(Value::as_array)
            .map(|l| l.iter().filter_map(|v| v.as_str().map(str::to_string)).collect())
            .unwrap_or_default();
        let objective = ObjectiveInfo { id: self.objective.id().into(), config: object(config), labels };
        let method = Component { id: self.method.id().into(), config: object(self.method.config()) };
        let base = BaseRef {
            digest: self.base.digest()?.to_string(),
            name: self.base.name(),
            model_type: self.base.model_type.clone(),
        };
        let mut graft = GraftFile::new(method, objective, base);
        graft.plugins = [self.method.plugin(), self.objective.plugin()]
            .map(|p| PluginRef { id: p.manifest().id.clone(), version: p.manifest().version.clone() })
            .to_vec();
        graft.training = Some(self.training.clone());
        let modules = all.iter().map(|s| s.path.clone()).collect();
        let composition = Composition {
            graft,
            peft,
            hub: self.hub(),
            parameters,
            head,
            pooling: config.get("pooling").and_then(Value::as_str).map(str::to_string),
            base_modules: modules,
        };
        Ok(StoredAdapter::compose(composition)?)
    }

    /// The method in PEFT's terms.
    fn peft(&self) -> Option<PeftConfig> {
        let trains = self.params.iter().any(|p| p.role == Role::Adapter);
        let mut config = peft_config(self.method, &self.matched).filter(|_| trains)?;
        config.common_mut().base_model_name_or_path = Some(self.base.dir.display().to_string());
        Some(config)
    }

    /// The method in the terms of AdapterHub's library, where that has it.
    fn hub(&self) -> Option<HubConfig> {
        let mut config = hub_config(self.method, self.base.model_type.as_deref())?;
        // What comes out of the layers is as wide as what the last layer of each adapter gives.
        let up = self.params.iter().find(|p| p.key == "adapter_up.weight");
        config.hidden_size = up.and_then(|p| p.shape.first()).map(|n| *n as u64);
        config.model_name = Some(self.base.dir.display().to_string());
        Some(config)
    }

    pub(super) fn save(&self, params: &Parameters) -> Result<(), JobError> {
        Ok(graft_adapters::save(&self.out, &self.compose(params)?)?)
    }
}

impl Observer for Saver<'_> {
    /// Each epoch that is the best so far is on disk before the next one begins.
    fn observe(&mut self, event: &Event<'_>) -> Result<(), TrainError> {
        if let Event::Step(s) = event {
            self.steps = s.step;
        }
        if let Event::Epoch { record, params } = event
            && record.improved != Some(false)
        {
            self.training.steps = record.step;
            self.save(params).map_err(|e| TrainError::Save(e.to_string()))?;
        }
        Ok(())
    }
}
