//! The update beside an embedding: `A` `[r, rows]` is a second table, of narrow rows, which `B` `[width, r]` widens.

use graft_plugin_api::*;

use crate::{Lora, Update};

impl Lora {
    /// As in PEFT, `A` starts as zeros and `B` as a new table does, and nothing is dropped out.
    pub(crate) fn embedding(&self, g: &Graph<'_>, site: &Site, r: u64, scaling: Value) -> Result<Update> {
        let a = ParamSpec::new("lora_embedding_A", &[r, site.in_features]).paddable(0);
        let b =
            ParamSpec::new("lora_embedding_B", &[site.out_features, r]).init(Init::Normal(1.0)).paddable(1);
        let (a, b) = (g.param(a.site(&site.path))?, g.param(b.site(&site.path))?);
        let narrow = g.gather(g.transpose(a, &[1, 0])?, site.input()?, 0)?;
        let added = g.linear(g.mul(narrow, scaling)?, b, None)?;
        Ok(Update { added, dropped: None, a, b })
    }
}
