//! Bottleneck adapters: a small feed-forward net `x + s · up(f(down(x)))` of its own inside each layer of the base, where
//! what the layer computed meets its residual connection. Where exactly, and what goes around what, differs: after
//! attention and after feed-forward layers (Houlsby et al. 2019, "Parameter-Efficient Transfer Learning for NLP"), after
//! feed-forward layers alone (Pfeiffer et al. 2021, "AdapterFusion"), or beside them (He et al. 2022, "Towards a Unified
//! View of Parameter-Efficient Transfer Learning"). Names, shapes, defaults and starting values are those of AdapterHub's
//! library `adapters`.

mod block;
mod options;

use graft_plugin_api::*;
pub use options::{BottleneckAdapter, InitWeights, NonLinearity, ResidualBeforeLn, Scaling, Variant};

impl Method for BottleneckAdapter {
    const ID: &'static str = "bottleneck-adapter";
    const SUMMARY: &'static str = "small nets inside the layers (Pfeiffer, Houlsby, parallel adapters)";

    fn check(&self) -> Result<()> {
        let s = self.resolved();
        if !(s.reduction_factor.is_finite() && s.reduction_factor > 0.0) {
            return fail!(
                CONFIG,
                "option `reduction_factor`: {} does not divide a width",
                s.reduction_factor
            );
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return fail!(CONFIG, "option `dropout`: {} is not in [0, 1)", self.dropout);
        }
        if matches!(s.scaling, Scaling::Number(n) if !n.is_finite()) {
            return fail!(CONFIG, "option `scaling`: {} is not a number to scale by", s.scaling);
        }
        if !s.mh_adapter && !s.cross_adapter && !s.output_adapter {
            return fail!(
                CONFIG,
                "options `mh_adapter`, `cross_adapter` and `output_adapter`: without all three there is no adapter"
            );
        }
        if s.residual_before_ln == ResidualBeforeLn::PostAdd && !s.original_ln_before {
            return fail!(CONFIG, "option `residual_before_ln`: `post_add` needs `original_ln_before`");
        }
        Ok(())
    }

    fn examples() -> Vec<(&'static str, Self)> {
        vec![
            ("after the feed-forward layers (Pfeiffer)", Self::default()),
            (
                "after attention and feed-forward layers (Houlsby)",
                Self { variant: Variant::DoubleSeqBn, ..Self::default() },
            ),
            ("beside the feed-forward layers", Self { variant: Variant::ParBn, ..Self::default() }),
            (
                "a learned scale and a norm of its own",
                Self { scaling: Some(Scaling::learned()), ln_before: true, ..Self::default() },
            ),
        ]
    }

    fn apply(&self, g: &Graph<'_>) -> Result<()> {
        let settings = self.resolved();
        let all = g.sites()?;
        let sites: Vec<Site> = all.iter().filter(|s| settings.takes(s)).cloned().collect();
        if sites.is_empty() {
            let what = "no residual connection of the base is where these adapters go";
            let help = "`graft inspect` lists the base's modules; layers need a linear layer whose output is added to \
                        what went around";
            return Err(Error::new(Code::NO_SITE, what).help(help));
        }
        g.report(&sites, "the layers' residual connections")?;
        g.each(&sites, |site| {
            let norm = site.residual()?.norm.and_then(|n| all.iter().find(|s| s.number == n));
            block::apply(g, &settings, site, norm)
        })
    }
}

export_plugin! { id: "bottleneck-adapter", methods: [BottleneckAdapter], objectives: [] }
