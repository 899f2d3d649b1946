//! Learning rates of single parameters.

use graft_plugin_api::{Code, Error, LearningRate, Result, wire};

use super::writer::Writer;

impl Writer {
    pub(super) fn take_rate(&mut self, asked: wire::LearningRate) -> Result<()> {
        let rate = LearningRate::from_wire(asked.kind, asked.value)?;
        if asked.parameter == 0 {
            self.vectors = Some(rate);
            return Ok(());
        }
        let value = self.value(asked.parameter)?;
        match self.params.iter_mut().find(|p| p.value == value) {
            Some(p) => p.rate = Some(rate),
            None => {
                let what =
                    format!("`{}` is no parameter and has no learning rate", self.graph.name_of(value));
                return Err(Error::new(Code::REFUSED, what));
            }
        }
        Ok(())
    }

    /// Gives vectors without a rate of their own that of vectors.
    pub(super) fn rate_vectors(&mut self) {
        for p in self.params.iter_mut().filter(|p| p.shape.len() == 1) {
            p.rate = p.rate.or(self.vectors);
        }
    }
}
