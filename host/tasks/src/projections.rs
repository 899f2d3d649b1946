//! Adapters of split projections on bases that have them fused, and the other way round.

use std::borrow::Cow;

use graft_adapters::{Layer, Projected, StoredAdapter, project};
use graft_graph::Tensor;
use graft_graph::sites::{Site, SiteKind, attentions, pieces};

use crate::base::Base;
use crate::error::{Result, TaskError};

/// `model_type` of architectures whose `qkv_proj` or `c_attn` has the rows in blocks, or for each head together.
const OTHERWISE: [&str; 4] = ["codegen", "gptj", "moss", "gpt_bigcode"];

/// The adapter as it is, or with the projections that the base has; the latter is said in the log.
///
/// # Errors
/// As [`projected`].
pub fn fit_projections<'a>(base: &Base, adapter: &'a StoredAdapter) -> Result<Cow<'a, StoredAdapter>> {
    let Some(Projected { adapter: made, done }) = projected(base, adapter)? else {
        return Ok(Cow::Borrowed(adapter));
    };
    done.iter().for_each(|line| tracing::warn!("{}: on this base, {line}", adapter.dir.display()));
    Ok(Cow::Owned(made))
}

/// The adapter with the projections that the base has, and what became of its own; `None` where it stays as it is.
///
/// # Errors
/// Projections that have no equal on the base, with the reason.
pub fn projected(base: &Base, adapter: &StoredAdapter) -> Result<Option<Projected>> {
    if adapter.peft.is_none() {
        return Ok(None);
    }
    let paths = base.site_paths();
    if adapter.sites_in(paths).is_ok() {
        return Ok(None);
    }
    if let Some(kind) = base.model_type.as_deref().filter(|m| OTHERWISE.contains(m)) {
        let detail = format!(
            "fused projections of {kind} models do not have all queries first, then all keys, then all values, so that the \
             adapter's cannot be turned into the base's"
        );
        return Err(TaskError::Input { what: adapter.dir.display().to_string(), detail });
    }
    let all = base.sites();
    let mut cuts = pieces(&base.graph, all, &attentions(&base.graph));
    let linear: Vec<&Site> = all.iter().filter(|s| s.kind == SiteKind::Linear).collect();
    let layer = |s: &&Site| Layer {
        path: s.path.clone(),
        out_features: s.out_features,
        pieces: cuts.remove(&s.path),
    };
    let layers: Vec<Layer> = linear.iter().map(layer).collect();
    let own = |path: &str, name: &str| {
        let site = linear.iter().find(|s| s.path == path)?;
        match name {
            "bias" => base.graph.constant(site.bias?)?.to_f64s(),
            "lora_magnitude_vector" => norms(site, base.graph.constant(site.weight)?),
            _ => None,
        }
    };
    Ok(project(adapter, paths, &layers, &own)?)
}

/// The norms of what makes each output.
fn norms(site: &Site, weight: &Tensor) -> Option<Vec<f64>> {
    let mut sums = vec![0f64; site.out_features];
    for (i, w) in weight.to_f64s()?.into_iter().enumerate() {
        let row =
            if site.weight_is_out_in { i / site.in_features.max(1) } else { i % site.out_features.max(1) };
        *sums.get_mut(row)? += w * w;
    }
    Some(sums.into_iter().map(f64::sqrt).collect())
}
