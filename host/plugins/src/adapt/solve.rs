//! Heads that are solved to their optimum: a method's wish, and an objective's word.

use graft_graph::{DType, Graph, ValueId};
use graft_plugin_api::{Code, Error, HeadSolver, Result, wire};

use super::writer::Writer;

/// Most folds of a cross-validation.
const MAX_FOLDS: u32 = 100;

/// A linear head that the loss is convex in, see [`graft_plugin_api::SoftmaxHead`].
#[derive(Debug, Clone)]
pub struct ConvexHead {
    /// `[batch, width]`, what the head reads.
    pub input: ValueId,
    /// The parameter `[labels, width]`.
    pub weight: ValueId,
    /// The parameter `[labels]`.
    pub bias: ValueId,
    /// From the objective's inputs to the targets `[batch, labels]` and the counts `[batch]`, its two outputs in this
    /// order.
    pub targets: Graph,
}

impl Writer {
    pub(super) fn ask_to_solve(&mut self, how: wire::SolveHead) -> Result<()> {
        if how.l2.is_some_and(|l| !(l.is_finite() && l >= 0.0)) || !(2..=MAX_FOLDS).contains(&how.folds) {
            let what = format!("a head can't be solved with l2 = {:?} and {} folds", how.l2, how.folds);
            return Err(Error::new(Code::REFUSED, what)
                .help(format!("l2 is a number from 0 up, and there are 2 to {MAX_FOLDS} folds")));
        }
        self.solver = Some(HeadSolver { l2: how.l2, folds: how.folds });
        Ok(())
    }

    pub(super) fn take_softmax_head(&mut self, head: &wire::SoftmaxHead) -> Result<()> {
        let refuse = |what: String| Err(Error::new(Code::REFUSED, format!("a convex head: {what}")));
        if !self.training {
            return Ok(());
        }
        let [input, weight, bias] =
            [self.value(head.input)?, self.value(head.weight)?, self.value(head.bias)?];
        let shape = |v: ValueId| self.params.iter().find(|p| p.value == v).map(|p| p.shape.as_slice());
        let (Some(&[labels, width]), Some(of_bias)) = (shape(weight), shape(bias)) else {
            return refuse("weight and bias must be parameters, the weight [labels, width]".to_owned());
        };
        if of_bias != [labels] {
            return refuse(format!("its bias has the shape {of_bias:?}, and there are {labels} labels"));
        }
        let last = |v: ValueId| self.graph.shape(v).and_then(|s| s.last()?.known());
        let targets = [self.value(head.targets)?, self.value(head.counts)?];
        let ranks = [input, targets[0], targets[1]].map(|v| self.graph.shape(v).map(Vec::len));
        let floats = targets.iter().all(|v| self.graph.dtype(*v) == Some(DType::F32));
        if ranks != [Some(2), Some(2), Some(1)]
            || !floats
            || last(input) != i64::try_from(width).ok()
            || last(targets[0]) != i64::try_from(labels).ok()
        {
            let what = "input, targets and counts must be [batch, width], [batch, labels] and [batch]";
            return refuse(what.to_owned());
        }
        let graph = self.graph.cut_to(&targets);
        if graph.inputs.iter().any(|v| !self.inputs.iter().any(|(_, own)| own == v)) {
            return refuse("its targets depend on more than the objective's inputs".to_owned());
        }
        self.convex = Some(ConvexHead { input, weight, bias, targets: graph });
        Ok(())
    }
}
