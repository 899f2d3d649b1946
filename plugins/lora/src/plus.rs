//! LoRA+ (Hayou et al. 2024, "LoRA+: Efficient Low Rank Adaptation of Large Models"): `B` learns faster than `A`. What
//! learns with which rate is as in PEFT's `create_loraplus_optimizer`.

use graft_plugin_api::*;

use crate::{Lora, Update};

/// What the update of an embedding learns with, as in PEFT.
const EMBEDDING: f64 = 1e-6;

impl Lora {
    pub(crate) fn check_plus(&self) -> Result<()> {
        for (name, value) in [
            ("loraplus_lr_ratio", self.loraplus_lr_ratio),
            ("loraplus_lr_embedding", self.loraplus_lr_embedding),
        ] {
            if let Some(v) = value.filter(|v| !(v.is_finite() && *v > 0.0)) {
                return fail!(CONFIG, "option `{name}`: {v} is not a finite number above 0");
            }
        }
        if self.loraplus_lr_embedding.is_some() && self.loraplus_lr_ratio.is_none() {
            return fail!(CONFIG, "option `loraplus_lr_embedding`: it needs `loraplus_lr_ratio`");
        }
        Ok(())
    }

    /// The ratio, where it has a meaning: a host that answers only needs to know nothing of it.
    fn ratio(&self, g: &Graph<'_>) -> Result<Option<f64>> {
        match self.loraplus_lr_ratio {
            Some(ratio) if g.training()? => Ok(Some(ratio)),
            _ => Ok(None),
        }
    }

    /// Gives the update's parameters their rates.
    pub(crate) fn rate(&self, g: &Graph<'_>, site: &Site, update: &Update) -> Result<()> {
        let Some(ratio) = self.ratio(g)? else { return Ok(()) };
        if site.kind == SiteKind::EMBEDDING {
            let rate = LearningRate::Of(self.loraplus_lr_embedding.unwrap_or(EMBEDDING));
            return [update.a, update.b].into_iter().try_for_each(|p| g.learning_rate(p, rate));
        }
        g.learning_rate(update.b, LearningRate::Times(ratio))
    }

    /// Biases, magnitudes and the head's vectors learn as `B` does.
    pub(crate) fn rate_vectors(&self, g: &Graph<'_>) -> Result<()> {
        self.ratio(g)?.map_or(Ok(()), |ratio| g.learning_rate_of_vectors(LearningRate::Times(ratio)))
    }
}
