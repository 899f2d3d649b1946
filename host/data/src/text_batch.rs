//! Rows of token ids, padded into tensors.

use graft_graph::Tensor;

use crate::error::DataError;
use crate::tokenizer::Encoding;

/// The side on which short rows are padded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Side {
    /// Padding behind the text.
    #[default]
    Right,
    /// Padding before the text.
    Left,
}

/// How rows are padded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PadOptions {
    /// The id that fills up.
    pub id: i64,
    /// The side.
    pub side: Side,
    /// The length to pad to; the longest row of the batch if not given.
    pub length: Option<usize>,
}

/// A batch of texts, each tensor i64 of shape `[batch, seq]`.
#[derive(Debug, Clone, PartialEq)]
pub struct TextBatch {
    /// Token ids; the padding id where there is no token.
    pub ids: Tensor,
    /// 1 for a token, 0 for padding.
    pub mask: Tensor,
    /// The text of a pair that a token belongs to; 0 for padding.
    pub type_ids: Tensor,
}

impl TextBatch {
    /// Pads rows to a common length.
    ///
    /// # Errors
    /// [`DataError::EmptyBatch`] without rows, [`DataError::LongerThanPadding`] for a row longer than a given
    /// length, [`DataError::BatchTooLarge`] when the size overflows.
    pub fn new(rows: &[&Encoding], pad: &PadOptions) -> Result<TextBatch, DataError> {
        let longest = rows.iter().map(|r| r.ids.len()).max().ok_or(DataError::EmptyBatch)?;
        let length = pad.length.unwrap_or(longest);
        let too_large = || DataError::BatchTooLarge { rows: rows.len(), length };
        let size =
            rows.len().checked_mul(length).filter(|n| *n < isize::MAX as usize / 8).ok_or_else(too_large)?;
        let (mut ids, mut mask, mut types) = (vec![pad.id; size], vec![0i64; size], vec![0i64; size]);
        for (row, encoding) in rows.iter().enumerate() {
            let count = encoding.ids.len();
            if count > length {
                return Err(DataError::LongerThanPadding { row, length: count, limit: length });
            }
            let start = row * length + if pad.side == Side::Left { length - count } else { 0 };
            ids[start..start + count].copy_from_slice(&encoding.ids);
            mask[start..start + count].fill(1);
            for (to, from) in types[start..start + count].iter_mut().zip(&encoding.type_ids) {
                *to = *from;
            }
        }
        let tensor = |v: &[i64]| Tensor::new([rows.len(), length], v).map_err(|_| too_large());
        Ok(TextBatch { ids: tensor(&ids)?, mask: tensor(&mask)?, type_ids: tensor(&types)? })
    }
}
