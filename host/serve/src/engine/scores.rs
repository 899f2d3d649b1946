//! The numbers of a head as they are.

use graft_plugins::api::Tensor;
use serde_json::{Value, json};

use crate::ask::Refusal;

/// `{"scores": […]}` for each row of the first output, which is `[rows, n]`.
///
/// # Errors
/// [`Refusal::Unfit`] where the head gives something else: a number for each token, say.
pub(super) fn scores(tensors: &[Tensor], rows: usize) -> Result<Vec<Value>, Refusal> {
    let unfit = || Refusal::Unfit("the adapter's head gives no scores of a text".into());
    let first = tensors.first().filter(|t| t.shape.len() == 2 && t.shape[0] == rows).ok_or_else(unfit)?;
    let values = first.to_f32s().map_err(|_| unfit())?;
    let width = first.shape[1].max(1);
    Ok(values.chunks_exact(width).map(|row| json!({ "scores": row })).collect())
}
