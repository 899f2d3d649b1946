//! Linear probe: the base stays as it is, and only the objective's head is trained on its features (Alain and Bengio
//! 2016, "Understanding intermediate layers using linear classifier probes").

use graft_plugin_api::*;

config! {
    /// Trains the objective's head alone; the base stays as it is.
    pub struct LinearProbe {}
}

impl Method for LinearProbe {
    const ID: &'static str = "linear-probe";
    const SUMMARY: &'static str = "trains the head alone, on the base's features as they are";

    fn apply(&self, _: &Graph<'_>) -> Result<()> {
        Ok(())
    }
}

export_plugin! { id: "linear-probe", methods: [LinearProbe], objectives: [] }
