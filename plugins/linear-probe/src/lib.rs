//! Linear probe: the base stays as it is, and only the objective's head is trained on its features (Alain and Bengio
//! 2016, "Understanding intermediate layers using linear classifier probes").

use graft_plugin_api::*;

config! {
    /// Trains the objective's head alone; the base stays as it is. A head that is convex is solved to its optimum.
    pub struct LinearProbe {
        /// Whether a convex head is solved to its optimum; otherwise it is trained step by step, as others are.
        solve: bool = true,
        /// Strength of the L2 penalty beside the mean loss, `l2 / 2 · ‖weight‖²`. Without it, cross-validation on the
        /// training data chooses it.
        l2: Option<f64> = None,
        /// Folds of that cross-validation.
        folds: u32 = 5,
    }
}

impl Method for LinearProbe {
    const ID: &'static str = "linear-probe";
    const SUMMARY: &'static str = "trains the head alone, on the base's features as they are";

    fn check(&self) -> Result<()> {
        if self.l2.is_some_and(|l| !(l.is_finite() && l >= 0.0)) {
            return fail!(CONFIG, "option `l2`: it must be a number from 0 up");
        }
        if !(2..=100).contains(&self.folds) {
            return fail!(CONFIG, "option `folds`: {} is not from 2 to 100", self.folds);
        }
        Ok(())
    }

    fn apply(&self, g: &Graph<'_>) -> Result<()> {
        if self.solve { g.solve_head(HeadSolver { l2: self.l2, folds: self.folds }) } else { Ok(()) }
    }
}

export_plugin! { id: "linear-probe", methods: [LinearProbe], objectives: [] }
