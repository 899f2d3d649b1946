//! Instances of methods and objectives.

use std::path::PathBuf;

use graft_plugin_api::abi::{METHOD_EXTENSION, OBJECTIVE_EXTENSION};
use graft_plugin_api::wire::{self, plugin_op};
use graft_plugin_api::{Code, Error, Field, Metric, Row, Summary, Tensor};
use serde_json::Value as Json;

use crate::find::{Kind, find};
use crate::host::{GraphHost, NoGraph};
use crate::{Plugin, PluginError, Result};

/// What both kinds have: a plugin, an id and an instance with a config.
struct Instance {
    plugin: Plugin,
    id: String,
    number: u64,
    config: Json,
}

impl Instance {
    fn new(plugin: &Plugin, kind: Kind, id: &str, config: &Json) -> Result<Instance> {
        let extension = match kind {
            Kind::Method => METHOD_EXTENSION,
            Kind::Objective => OBJECTIVE_EXTENSION,
        };
        let fail = |e: Error| PluginError::from_error(e, &plugin.manifest().id, id, "configure");
        if !plugin.has(extension) {
            return Err(fail(Error::new(Code::UNSUPPORTED, format!("it does not speak `{extension}`"))));
        }
        let request = wire::Create {
            extension: extension.to_owned(),
            id: id.to_owned(),
            config: if config.is_null() { String::new() } else { config.to_string() },
        };
        let created: wire::Created = plugin.ask(id, plugin_op::CREATE, 0, &request, &mut NoGraph)?;
        let config = serde_json::from_str(&created.config).map_err(|e| fail(e.into()))?;
        Ok(Instance { plugin: plugin.clone(), id: id.to_owned(), number: created.instance, config })
    }

    fn ask<A: wire::Message + Default>(
        &self,
        op: u32,
        request: &impl wire::Message,
        host: &mut dyn GraphHost,
    ) -> Result<A> {
        self.plugin.ask(&self.id, op, self.number, request, host)
    }

    fn fail(&self, op: u32, e: Error) -> Box<PluginError> {
        PluginError::from_error(e, &self.plugin.manifest().id, &self.id, plugin_op::name(op))
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let gone: Result<()> = self.plugin.ask(&self.id, plugin_op::DROP, self.number, &(), &mut NoGraph);
        if let Err(e) = gone {
            tracing::warn!("{e}");
        }
    }
}

macro_rules! shared {
    ($kind:expr) => {
        /// An instance with this config (a JSON object; null for all defaults).
        ///
        /// # Errors
        /// `NOT_FOUND` when the plugin has none of that id; `CONFIG` when it refuses the config.
        pub fn new(plugin: &Plugin, id: &str, config: &Json) -> Result<Self> {
            Ok(Self(Instance::new(plugin, $kind, id, config)?))
        }

        /// Finds the plugin that has `id`, loads it and makes an instance.
        ///
        /// # Errors
        /// As [`find`](crate::find::find), [`Plugin::load`] and `new`.
        pub fn find(explicit: &[PathBuf], id: &str, config: &Json) -> Result<Self> {
            Self::new(&Plugin::load(&find(explicit, $kind, id)?.0)?, id, config)
        }

        /// Id.
        pub fn id(&self) -> &str {
            &self.0.id
        }

        /// The plugin that it is of.
        pub fn plugin(&self) -> &Plugin {
            &self.0.plugin
        }

        /// The config, with every default filled in.
        pub fn config(&self) -> &Json {
            &self.0.config
        }
    };
}

/// A configured method.
pub struct Method(Instance);

impl Method {
    shared!(Kind::Method);

    /// Lets the method write into `host`'s graph.
    ///
    /// # Errors
    /// Whatever the method or the host finds wrong. The graph must not be used after it.
    pub fn apply(&self, host: &mut dyn GraphHost) -> Result<()> {
        self.0.ask(plugin_op::APPLY, &(), host)
    }
}

/// What an objective built: numbers of the host's values.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct BuiltValues {
    /// The loss, if one was built.
    pub loss: Option<u64>,
    /// Named outputs.
    pub outputs: Vec<(String, u64)>,
}

/// A configured objective.
pub struct Objective(Instance);

impl Objective {
    shared!(Kind::Objective);

    /// The fields of the data that it reads.
    ///
    /// # Errors
    /// Only when the plugin fails.
    pub fn fields(&self) -> Result<Vec<Field>> {
        let fields: wire::Fields = self.0.ask(plugin_op::FIELDS, &(), &mut NoGraph)?;
        Ok(fields.fields.into_iter().map(Field::from).collect())
    }

    /// Whether [`Objective::calibrate`] decides anything.
    ///
    /// # Errors
    /// Only when the plugin fails.
    pub fn calibrates(&self) -> Result<bool> {
        let fields: wire::Fields = self.0.ask(plugin_op::FIELDS, &(), &mut NoGraph)?;
        Ok(fields.calibrates)
    }

    /// The objective with everything filled in that the outputs on evaluation data decide; `tensors` as for
    /// [`Objective::metrics`].
    ///
    /// # Errors
    /// `DATA` for a missing tensor.
    pub fn calibrate(&self, tensors: Vec<Tensor>) -> Result<Objective> {
        self.with_config(plugin_op::CALIBRATE, &to_wire(tensors))
    }

    fn with_config(&self, op: u32, request: &impl wire::Message) -> Result<Objective> {
        let json: wire::Json = self.0.ask(op, request, &mut NoGraph)?;
        let config = serde_json::from_str(&json.text).map_err(|e| self.0.fail(op, e.into()))?;
        Objective::new(&self.0.plugin, &self.0.id, &config)
    }

    /// The objective with everything filled in that the training data decides. Its config is what an adapter keeps.
    ///
    /// # Errors
    /// `DATA` when the data cannot be trained on.
    pub fn prepare(&self, summary: &Summary) -> Result<Objective> {
        self.with_config(plugin_op::PREPARE, &wire::Summary::from(summary))
    }

    /// The tensors of a batch of rows.
    ///
    /// # Errors
    /// `DATA` naming what is unknown or missing.
    pub fn collate(&self, rows: &[Row], seed: u64) -> Result<Vec<Tensor>> {
        let request = wire::Collate { rows: rows.iter().map(Into::into).collect(), seed };
        let op = plugin_op::COLLATE;
        let answer: wire::Tensors = self.0.ask(op, &request, &mut NoGraph)?;
        let tensors: Vec<Tensor> = answer.tensors.into_iter().map(Tensor::from).collect();
        tensors.iter().try_for_each(crate::adapt::check_tensor).map_err(|e| self.0.fail(op, e))?;
        Ok(tensors)
    }

    /// Lets the objective write its head, and in a training graph its loss, into `host`'s graph.
    ///
    /// # Errors
    /// Whatever the objective or the host finds wrong. The graph must not be used after it.
    pub fn build(&self, host: &mut dyn GraphHost) -> Result<BuiltValues> {
        let built: wire::Built = self.0.ask(plugin_op::BUILD, &(), host)?;
        let outputs = built.outputs.into_iter().map(|o| (o.name, o.value)).collect();
        Ok(BuiltValues { loss: (built.loss != 0).then_some(built.loss), outputs })
    }

    /// Judges a whole evaluation set: outputs and collated tensors of all its rows, joined along axis 0.
    ///
    /// # Errors
    /// `DATA` for a missing tensor.
    pub fn metrics(&self, tensors: Vec<Tensor>) -> Result<Vec<Metric>> {
        let metrics: wire::Metrics = self.0.ask(plugin_op::METRICS, &to_wire(tensors), &mut NoGraph)?;
        let metric =
            |m: wire::Metric| Metric { name: m.name, value: m.value, higher_is_better: m.higher_is_better };
        Ok(metrics.metrics.into_iter().map(metric).collect())
    }

    /// One answer for each row of the outputs.
    ///
    /// # Errors
    /// `DATA` for a missing tensor; `MALFORMED` when an answer is not JSON, or when there is not one for each row.
    pub fn decode(&self, rows: &[Row], tensors: Vec<Tensor>) -> Result<Vec<Json>> {
        let op = plugin_op::DECODE;
        let rows_on_wire = rows.iter().map(Into::into).collect();
        let request = wire::Decode { tensors: to_wire(tensors).tensors, rows: rows_on_wire };
        let answers: wire::Answers = self.0.ask(op, &request, &mut NoGraph)?;
        if answers.answers.len() != rows.len() {
            let what = format!("{} answers for {} rows", answers.answers.len(), rows.len());
            return Err(self.0.fail(op, Error::new(Code::MALFORMED, what)));
        }
        let read = |a: &String| serde_json::from_str(a).map_err(|e| self.0.fail(op, e.into()));
        answers.answers.iter().map(read).collect()
    }
}

fn to_wire(tensors: Vec<Tensor>) -> wire::Tensors {
    wire::Tensors { tensors: tensors.into_iter().map(Into::into).collect() }
}
