//! A graph in a session, with its inputs looked up by name.

use graft_graph::Graph;
use graft_runtime::{Outputs, Plan, Session, SessionOptions, Target, View};

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
        let views = self.views(feed)?;
        self.run_views(&views)
    }

    /// Runs the graph on its inputs in the order of [`inputs`](Self::inputs).
    ///
    /// # Errors
    /// What ONNX Runtime says.
    pub fn run_views(&mut self, views: &[View<'_>]) -> Result<Outputs> {
        Ok(self.session.run_planned(&self.plan, views)?)
    }

    /// Runs the graph and writes its outputs, all of f32 and in the graph's order, into the caller's buffers.
    ///
    /// # Errors
    /// As [`run`](Self::run), and for a buffer that an output does not fit.
    pub fn run_into<'a>(
        &mut self,
        feed: &dyn Fn(&str) -> Option<View<'a>>,
        targets: &mut [Target<'_>],
    ) -> Result<()> {
        let views = self.views(feed)?;
        Ok(self.session.run_into(&self.plan, &views, targets)?)
    }

    /// What `feed` gives for the inputs, in their order.
    fn views<'a>(&self, feed: &dyn Fn(&str) -> Option<View<'a>>) -> Result<Vec<View<'a>>> {
        let one = |name: &String| feed(name).ok_or_else(|| lacking(name, self.session.name()));
        self.inputs.iter().map(one).collect()
    }

    /// The session.
    pub fn session(&mut self) -> &mut Session {
        &mut self.session
    }
}

/// What is said of an input of a session that nothing provides.
pub(crate) fn lacking(input: &str, session: &str) -> TaskError {
    TaskError::Input {
        what: format!("input '{input}' of {session}"),
        detail: "nothing provides it; models with inputs of other kinds than ids, mask, types and positions are not \
                 supported yet"
            .into(),
    }
}
