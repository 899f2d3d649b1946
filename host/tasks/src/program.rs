//! A graph in a session, with its inputs looked up by name.

use graft_graph::Graph;
use graft_runtime::{Outputs, Plan, Session, SessionOptions, View};

use crate::base::Base;
use crate::error::{Result, TaskError};

/// A loaded graph whose inputs are asked for by name at each run.
pub struct Program {
    session: Session,
    plan: Plan,
    inputs: Vec<String>,
}

impl Program {
    /// Loads `graph`, which was derived from `base`. Inputs that nothing reads are dropped.
    ///
    /// # Errors
    /// What ONNX Runtime says of the graph.
    pub fn new(base: &Base, graph: &Graph, options: &SessionOptions) -> Result<Program> {
        let graph = graph.cut_to(&graph.outputs);
        // Batches differ in length, so a plan of memory made for one shape only holds on to memory for the others
        // (MiniLM, LoRA on all linear sites, TREC: 742 MB at the peak with plans, 586 MB without, at the same speed).
        let options = SessionOptions { memory_pattern: false, ..options.clone() };
        let session = base.session(&graph, &options)?;
        let inputs: Vec<String> = graph.inputs.iter().map(|v| graph.name_of(*v).to_string()).collect();
        let wanted: Vec<&str> = graph.outputs.iter().map(|v| graph.name_of(*v)).collect();
        let plan = session.plan(&inputs.iter().map(String::as_str).collect::<Vec<_>>(), &wanted)?;
        Ok(Program { session, plan, inputs })
    }

    /// Names of the inputs that are asked for.
    pub fn inputs(&self) -> &[String] {
        &self.inputs
    }

    /// Runs the graph on what `feed` gives for each input.
    ///
    /// # Errors
    /// [`TaskError::Input`] for an input that `feed` does not have, and what ONNX Runtime says.
    pub fn run<'a>(&mut self, feed: &dyn Fn(&str) -> Option<View<'a>>) -> Result<Outputs> {
        let mut views = Vec::with_capacity(self.inputs.len());
        for name in &self.inputs {
            views.push(feed(name).ok_or_else(|| TaskError::Input {
                what: format!("input '{name}' of {}", self.session.name()),
                detail: "nothing provides it; models with inputs of other kinds than ids, mask, types and positions \
                         are not supported yet"
                    .into(),
            })?);
        }
        Ok(self.session.run_planned(&self.plan, &views)?)
    }

    /// The session.
    pub fn session(&mut self) -> &mut Session {
        &mut self.session
    }
}
