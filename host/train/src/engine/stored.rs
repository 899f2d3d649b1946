//! What is stored instead of parameters that only help training.

use std::collections::HashSet;

use graft_graph::{Graph, Tensor};
use graft_plugins::Adapted;
use graft_runtime::{SessionOptions, View};
use graft_tasks::{Base, Program, Result};

/// The part of an adapted graph that makes what is stored from parameters.
pub(super) struct Stored {
    graph: Graph,
    /// Keys of what is stored, in the order of the graph's outputs.
    keys: Vec<String>,
    /// Names of the parameters that it is made from: they are not stored themselves.
    pub(super) from: HashSet<String>,
    options: SessionOptions,
}

impl Stored {
    /// `None` where every parameter is stored as it is.
    pub(super) fn of(adapted: &Adapted, options: &SessionOptions) -> Option<Stored> {
        if adapted.stored.is_empty() {
            return None;
        }
        let made: Vec<_> = adapted.stored.iter().map(|(_, v)| *v).collect();
        let graph = adapted.graph.cut_to(&made);
        let from = graph.inputs.iter().map(|v| graph.name_of(*v).to_string()).collect();
        let keys = adapted.stored.iter().map(|(k, _)| k.clone()).collect();
        Some(Stored {
            graph,
            keys,
            from,
            options: SessionOptions { name: "stored".into(), ..options.clone() },
        })
    }

    /// What is stored for these parameters, by key.
    ///
    /// # Errors
    /// A parameter that `get` does not have; what ONNX Runtime says.
    pub(super) fn values(
        &self,
        base: &Base,
        get: &dyn Fn(&str) -> Option<Tensor>,
    ) -> Result<Vec<(String, Tensor)>> {
        let given: Vec<(String, Tensor)> =
            self.from.iter().filter_map(|name| Some((name.clone(), get(name)?))).collect();
        let find = |name: &str| given.iter().find(|(n, _)| n == name).map(|(_, t)| View::from(t));
        let made = Program::new(base, &self.graph, &self.options)?.run(&find)?.tensors()?;
        Ok(self.keys.iter().cloned().zip(made.into_iter().map(|(_, t)| t)).collect())
    }
}
