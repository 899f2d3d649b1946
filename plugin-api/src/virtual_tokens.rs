//! Virtual tokens: rows that a method puts in front of a text, where no text could put them.

use crate::graph::one;
use crate::wire::{self, host_op};
use crate::{Graph, Result, Site, Value};

/// What becomes of virtual tokens in the base's outputs. Objectives never see them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VirtualTokens {
    /// They are tokens like others: the outputs have them in front, and what reads the first token reads the first of
    /// them (a soft prompt). Where a base has an encoder and a decoder, they are in the encoder's text.
    Kept,
    /// Only keys and values know of them: the outputs are those of the text, and the first token is the text's (a
    /// prefix). Where a base has an encoder and a decoder, they are in the decoder's text.
    Dropped,
}

impl Graph<'_> {
    /// From now on every row of the base begins with `count` virtual tokens: the host lays as many dummy tokens in
    /// front of each text, counts them in masks and positions, and leaves room for them where it cuts texts. Once for
    /// a method, before [`Graph::put_virtual`].
    ///
    /// # Errors
    /// `REFUSED` for a base that takes no token ids, for no or far too many tokens, and when asked a second time.
    #[track_caller]
    pub fn virtual_tokens(&self, count: u64, outputs: VirtualTokens) -> Result<()> {
        let request = wire::VirtualTokens { count, kept: outputs == VirtualTokens::Kept };
        self.call(host_op::VIRTUAL_TOKENS, &request)
    }

    /// The site where the base looks its words up, the table that its token ids enter, if it has one. Beside a decoder
    /// it is the encoder's.
    ///
    /// # Errors
    /// Only if the host is of another version.
    #[track_caller]
    pub fn words(&self) -> Result<Option<Site>> {
        let sites: wire::Sites = self.call(host_op::WORDS, &())?;
        Ok(sites.sites.into_iter().next().map(Site::from))
    }

    /// `value` (`[batch, …]`), which at the virtual tokens along `axis` has `rows` instead, the same in each row of the
    /// batch. `rows` has the value's shape without the batch, with `count` entries for the tokens: for hidden states
    /// `[batch, sequence, width]` and `axis` 1 it is `[count, width]`, for keys `[batch, heads, sequence, width]` and
    /// `axis` 2 it is `[heads, count, width]`.
    ///
    /// # Errors
    /// `REFUSED` before [`Graph::virtual_tokens`] and for shapes that do not fit.
    #[track_caller]
    pub fn put_virtual(&self, value: Value, rows: Value, axis: u32) -> Result<Value> {
        let request = wire::PutVirtual { value: value.id(), rows: rows.id(), axis };
        one("put_virtual", self.values(host_op::PUT_VIRTUAL, &request)?)
    }
}
