//! Inputs for a base, made up from what is known of them: to try whether two graphs give the same.

use graft_graph::model::Role;
use graft_graph::sites::SiteKind;
use graft_graph::{DType, Dim, Tensor, ValueId};
use indexmap::IndexMap;

use crate::base::Base;
use crate::error::{Result, TaskError};

/// Examples in a made-up batch.
const ROWS: i64 = 2;
/// Extent of a free axis of texts: enough for attention to have something to attend to.
const LENGTH: i64 = 8;
/// Extent of a free axis of images, a multiple of every customary patch.
const SIDE: i64 = 224;

/// A tensor for each input of the base, always the same: random ids below the vocabulary's size and random numbers,
/// full masks, positions in order.
///
/// # Errors
/// [`TaskError::Input`] for an input whose type or shape can't be made up.
pub fn made_up(base: &Base) -> Result<IndexMap<String, Tensor>> {
    let mut state = 1u64;
    let mut inputs = IndexMap::new();
    for (value, role) in &base.model.inputs {
        let name = base.graph.name_of(*value).to_string();
        let tensor = tensor(base, *value, *role, &mut state).ok_or_else(|| TaskError::Input {
            what: format!("input '{name}'"),
            detail:
                "no values can be made up for its type and shape; give --tensors FILE with in:INPUT for each \
                     input"
                    .into(),
        })?;
        inputs.insert(name, tensor);
    }
    Ok(inputs)
}

fn tensor(base: &Base, value: ValueId, role: Role, state: &mut u64) -> Option<Tensor> {
    let dims = base.graph.shape(value)?;
    // Equal symbols are equal extents, whichever input has them; the first axis is the batch.
    let batch: Vec<&str> =
        base.graph.inputs.iter().filter_map(|v| base.graph.shape(*v)?.first()?.as_symbol()).collect();
    let free = if role == Role::Pixels { SIDE } else { LENGTH };
    let extent = |s: &str| Some(if batch.contains(&s) { ROWS } else { free });
    let shape: Vec<usize> =
        dims.iter().map(|d: &Dim| usize::try_from(d.evaluate(&extent)?).ok()).collect::<Option<_>>()?;
    let count = shape.iter().try_fold(1usize, |a, d| a.checked_mul(*d)).filter(|n| *n <= 1 << 28)?;
    let last = shape.last().copied().unwrap_or(1).max(1);
    let ids = vocabulary(base, value);
    let mut integer = |k: usize| match role {
        Role::Mask => 1,
        Role::Types => 0,
        Role::Positions => (k % last) as i64,
        _ => (next(state) % ids) as i64,
    };
    match base.graph.dtype(value)? {
        DType::I64 => Tensor::new(shape, &(0..count).map(integer).collect::<Vec<i64>>()).ok(),
        DType::I32 => {
            let narrow: Option<Vec<i32>> = (0..count).map(|k| i32::try_from(integer(k)).ok()).collect();
            Tensor::new(shape, &narrow?).ok()
        }
        DType::Bool => Tensor::new(shape, &vec![true; count]).ok(),
        DType::F32 if role == Role::Mask => Tensor::new(shape, &vec![1f32; count]).ok(),
        DType::F32 => {
            let numbers: Vec<f32> =
                (0..count).map(|_| (next(state) >> 40) as f32 / (1u64 << 23) as f32 - 1.0).collect();
            Tensor::new(shape, &numbers).ok()
        }
        _ => None,
    }
}

/// Rows of the table that the ids choose from; of the smallest one where that can't be told.
fn vocabulary(base: &Base, ids: ValueId) -> u64 {
    let tables: Vec<_> = base.sites().iter().filter(|s| s.kind == SiteKind::Embedding).collect();
    let own = tables.iter().find(|s| s.input == ids).map(|s| s.in_features);
    own.or_else(|| tables.iter().map(|s| s.in_features).min()).unwrap_or(2).max(1) as u64
}

/// SplitMix64 (Steele et al. 2014, "Fast splittable pseudorandom number generators").
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
