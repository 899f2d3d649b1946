//! First values that are rows of a table of the base: words that virtual tokens start as.

use graft_data::{EncodeOptions, Tokenizer};
use graft_graph::Tensor;
use graft_plugins::adapt::Param;
use graft_tasks::{Base, TaskError};

use super::job::JobError;
use crate::random::Init;

/// The rows of the initializer `table` for the parameter `p` `[count, width]`: those of the tokens of `text`, again and
/// again, or else drawn at random.
///
/// # Errors
/// A base without such a table or, for a text, without a tokenizer; a text without tokens; a table of another width.
pub(super) fn first_values(
    base: &Base,
    p: &Param,
    table: &str,
    text: Option<&str>,
    seed: u64,
) -> Result<Vec<f32>, JobError> {
    let unfit = |m: String| JobError::Setup(format!("the first values of `{}`: {m}", p.name));
    let found = base.graph.find(table).and_then(|v| base.graph.constant(v));
    let found = found.ok_or_else(|| unfit(format!("the base has no initializer `{table}`")))?;
    let (&[rows, width], &[count, wanted]) = (found.shape(), p.shape.as_slice()) else {
        return Err(unfit(format!("`{table}` of shape {:?} has no rows for {:?}", found.shape(), p.shape)));
    };
    if width != wanted || rows == 0 {
        return Err(unfit(format!("`{table}` has {rows} rows of {width} numbers, {wanted} are needed")));
    }
    let chosen = match text {
        Some(text) => tokens(base, text).map_err(|e| unfit(e.to_string()))?,
        None => {
            let drawn = Init::Uniform { bound: 0.5 }.values(seed, &p.name, &[count])?;
            drawn.into_iter().map(|u| ((f64::from(u) + 0.5) * rows as f64) as usize).collect()
        }
    };
    let size = found.bytes().len() / rows;
    let row = |i: usize| {
        let i = chosen[i % chosen.len()].min(rows - 1);
        &found.bytes()[i * size..(i + 1) * size]
    };
    let bytes: Vec<u8> = (0..count).flat_map(row).copied().collect();
    let taken =
        Tensor::from_bytes(found.dtype(), vec![count, width], bytes.into()).map_err(TaskError::from)?;
    let numbers = taken.to_f64s().ok_or_else(|| unfit(format!("`{table}` holds no numbers")))?;
    Ok(numbers.into_iter().map(|v| v as f32).collect())
}

/// The ids of a text, without special tokens.
fn tokens(base: &Base, text: &str) -> Result<Vec<usize>, TaskError> {
    let lacking =
        |detail: &str| TaskError::Input { what: "the text of virtual tokens".into(), detail: detail.into() };
    let file = base.tokenizer.as_ref().ok_or_else(|| lacking("no tokenizer.json lies beside the model"))?;
    let options = EncodeOptions { plain: true, ..EncodeOptions::default() };
    let encoded = Tokenizer::load(file)?.encode_batch(&[text], None, &options)?;
    let ids = encoded.rows.first().map(|r| r.ids.iter().filter_map(|id| usize::try_from(*id).ok()).collect());
    ids.filter(|ids: &Vec<usize>| !ids.is_empty()).ok_or_else(|| lacking("it has no tokens"))
}
