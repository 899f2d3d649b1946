//! Norms that multiply by `1 + weight`: exporters write the sum into the graph, while checkpoints and PEFT keep the weight
//! alone.

use graft_adapters::{ParamKey, PeftConfig, StoredAdapter};
use graft_graph::Tensor;
use graft_plugins::adapt::{Param, Start};

use crate::base::Base;
use crate::error::{Result, TaskError};

/// `model_type` of the architectures of `transformers` 5.23 whose norms do so and which graphs are exported of.
const ONE_MORE: [&str; 10] = [
    "gemma",
    "gemma2",
    "gemma3",
    "gemma3_text",
    "nemotron",
    "qwen3_next",
    "recurrent_gemma",
    "t5gemma",
    "t5gemma2",
    "vaultgemma",
];
/// How much nearer the trained scales must be to what one reading makes of the base's than to what the other does.
const CLEARLY: f64 = 4.0;

/// Whether `transformers` adds 1 to the weights of the norms of this architecture.
pub fn adds_one(model_type: Option<&str>) -> bool {
    model_type.is_some_and(|m| ONE_MORE.contains(&m))
}

/// Turns the scales of norms in an adapter of PEFT's into those of the graph; `scale_of` gives the path of the norm whose scale
/// a parameter is. Whether a norm adds 1 shows in its numbers,
/// since training moves them little from the base's; where it does not, the base's `config.json` decides.
///
/// # Errors
/// [`TaskError::Input`] where neither tells.
pub(crate) fn as_in_graph(
    base: &Base,
    adapter: &StoredAdapter,
    params: &[Param],
    scale_of: &dyn Fn(&Param) -> Option<String>,
    tensors: &mut [Tensor],
) -> Result<()> {
    if !matches!(adapter.peft, Some(PeftConfig::LnTuning(_))) {
        return Ok(());
    }
    for (p, trained) in params.iter().zip(tensors) {
        let (Start::Base(own), Some(path)) = (&p.init, scale_of(p)) else { continue };
        let added = match moved(own, trained) {
            (plain, one_more) if plain * CLEARLY <= one_more => false,
            (plain, one_more) if one_more * CLEARLY <= plain => true,
            _ if base.model_type.is_some() => adds_one(base.model_type.as_deref()),
            _ => {
                let detail = format!(
                    "the norm `{path}` is so far from the base's that it does not show whether the architecture multiplies by \
                     the weight of a norm or by 1 more, as Gemma does. Put the checkpoint's config.json beside the base"
                );
                return Err(TaskError::Input { what: adapter.dir.display().to_string(), detail });
            }
        };
        if added {
            plus(trained, 1.0)?;
        }
    }
    Ok(())
}

/// How far the trained scale is from the base's, as it is and with 1 added to it.
fn moved(own: &Tensor, trained: &Tensor) -> (f64, f64) {
    let (own, trained) = (own.to_f64s().unwrap_or_default(), trained.to_f64s().unwrap_or_default());
    let far = |more: f64| own.iter().zip(&trained).map(|(a, b)| (b + more - a).abs()).sum();
    (far(0.0), far(1.0))
}

/// Turns the scale of a norm of the graph into the weight that checkpoints and PEFT have. Norms with a bias (but Nemotron's),
/// those of gated linear attentions and of vision towers are plain ones in these architectures too.
///
/// # Errors
/// A tensor of another type than f32.
pub fn as_in_checkpoint(base: &Base, key: &ParamKey, has_bias: bool, tensor: &mut Tensor) -> Result<()> {
    let model_type = base.model_type.as_deref();
    let plain = ["linear_attn.norm", "vision_tower."].iter().any(|part| key.path.contains(part))
        || (has_bias && model_type != Some("nemotron"));
    if key.name == "weight" && adds_one(model_type) && !plain { plus(tensor, -1.0) } else { Ok(()) }
}

fn plus(tensor: &mut Tensor, number: f32) -> Result<()> {
    let sum: Vec<f32> = tensor.values::<f32>()?.iter().map(|v| v + number).collect();
    *tensor = Tensor::new(tensor.shape(), &sum)?;
    Ok(())
}
