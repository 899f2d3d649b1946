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

/// Turns the scales of norms in an adapter of PEFT's into those of the graph. Whether the architecture adds 1 shows in the
/// numbers, since training moves them little from the base's; where it does not, the base's `config.json` decides.
///
/// # Errors
/// [`TaskError::Input`] where neither tells.
pub(crate) fn as_in_graph(
    base: &Base,
    adapter: &StoredAdapter,
    params: &[Param],
    is_scale: &dyn Fn(&Param) -> bool,
    tensors: &mut [Tensor],
) -> Result<()> {
    if !matches!(adapter.peft, Some(PeftConfig::LnTuning(_))) {
        return Ok(());
    }
    let (mut plain, mut one_more) = (0f64, 0f64);
    let mut scales = Vec::new();
    for (i, (p, trained)) in params.iter().zip(tensors.iter()).enumerate().filter(|(_, (p, _))| is_scale(p)) {
        let Start::Base(own) = &p.init else { continue };
        let (own, trained) = (own.to_f64s().unwrap_or_default(), trained.to_f64s().unwrap_or_default());
        plain += own.iter().zip(&trained).map(|(a, b)| (b - a).abs()).sum::<f64>();
        one_more += own.iter().zip(&trained).map(|(a, b)| (b + 1.0 - a).abs()).sum::<f64>();
        scales.push(i);
    }
    let added = if plain * CLEARLY <= one_more {
        false
    } else if one_more * CLEARLY <= plain {
        true
    } else if base.model_type.is_some() {
        adds_one(base.model_type.as_deref())
    } else {
        return Err(TaskError::Input {
            what: adapter.dir.display().to_string(),
            detail: "its norms are so far from the base's that it does not show whether the architecture multiplies by \
                     the weight of a norm or by 1 more, as Gemma does. Put the checkpoint's config.json beside the base"
                .into(),
        });
    };
    if added {
        scales.into_iter().try_for_each(|i| plus(&mut tensors[i], 1.0))?;
    }
    Ok(())
}

/// Turns the scale of a norm of the graph into the weight that checkpoints and PEFT have.
///
/// # Errors
/// A tensor of another type than f32.
pub fn as_in_checkpoint(base: &Base, key: &ParamKey, tensor: &mut Tensor) -> Result<()> {
    if key.name == "weight" && adds_one(base.model_type.as_deref()) { plus(tensor, -1.0) } else { Ok(()) }
}

fn plus(tensor: &mut Tensor, number: f32) -> Result<()> {
    let sum: Vec<f32> = tensor.values::<f32>()?.iter().map(|v| v + number).collect();
    *tensor = Tensor::new(tensor.shape(), &sum)?;
    Ok(())
}
