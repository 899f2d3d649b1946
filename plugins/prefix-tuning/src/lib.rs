//! Prefix tuning: every attention of the base sees learned keys and values in front of those of the text (Li and Liang
//! 2021, "Prefix-Tuning: Optimizing Continuous Prompts for Generation"). They enter behind rotary positions and for
//! each head of keys, as in Hugging Face PEFT.

use graft_plugin_api::*;

config! {
    /// Prefixes: learned keys and values at every attention.
    pub struct PrefixTuning {
        /// How many of them, for each attention.
        #[serde(alias = "num_virtual_tokens")]
        virtual_tokens: u64 = 20,
        /// The standard deviation that keys and values start with.
        init_std: f32 = 0.5,
    }
}

impl Method for PrefixTuning {
    const ID: &'static str = "prefix-tuning";
    const SUMMARY: &'static str = "learned keys and values at every attention (prefixes)";

    fn check(&self) -> Result<()> {
        if self.virtual_tokens == 0 {
            return fail!(CONFIG, "option `virtual_tokens`: without any there is nothing to train");
        }
        if !(self.init_std.is_finite() && self.init_std >= 0.0) {
            return fail!(CONFIG, "option `init_std`: {} is no standard deviation", self.init_std);
        }
        Ok(())
    }

    fn examples() -> Vec<(&'static str, Self)> {
        vec![
            ("twenty keys and values at every attention", Self::default()),
            ("five of them", Self { virtual_tokens: 5, ..Self::default() }),
        ]
    }

    fn apply(&self, g: &Graph<'_>) -> Result<()> {
        let count = self.virtual_tokens;
        g.virtual_tokens(count, VirtualTokens::Dropped)?;
        let sites: Vec<Site> = g.sites()?.into_iter().filter(|s| s.attention.is_some()).collect();
        let Some(first) = sites.iter().find_map(|s| s.attention.as_ref()) else {
            return fail!(NO_SITE, "no attention was found in this base");
        };
        let (heads, width) = (first.kv_heads, first.head_dim);
        let alike = |s: &Site| {
            s.attention
                .as_ref()
                .is_some_and(|a| (a.kv_heads, a.head_dim, a.value_dim) == (heads, width, width))
        };
        if let Some(other) = sites.iter().find(|s| !alike(s)) {
            let e = Error::new(
                Code::REFUSED,
                "its keys or values have other sizes than those of the first attention",
            );
            return Err(e.at(&other.path));
        }
        // As PEFT keeps them: for each virtual token the keys of the first attention, its values, the next one's keys …
        let slots = 2 * sites.len() as u64;
        let spec = ParamSpec::new("prompt_embeddings", &[count, slots * heads * width]);
        let spec = spec.init(Init::Normal(self.init_std.into())).paddable(0);
        let sizes = [count, slots, heads, width].map(|n| n as i64);
        let all = g.transpose(g.reshape(g.param(spec)?, &sizes)?, &[1, 2, 0, 3])?;
        let each = g.ints(&vec![1; slots as usize])?;
        let parts = g.emit_many("", "Split", &[Some(all), Some(each)], &[attr("axis", 0)], slots as u32)?;
        let mut parts = parts.into_iter().map(|p| g.squeeze(p, &[0]));
        g.each(&sites, |site| {
            let (Some(a), Some(keys), Some(values)) = (&site.attention, parts.next(), parts.next()) else {
                return fail!(REFUSED, "there are no keys and values for it");
            };
            let key = g.put_virtual(a.key, keys?, 2)?;
            let value = g.put_virtual(a.value, values?, 2)?;
            g.replace_attention(site, key, value, None)
        })
    }
}

export_plugin! { id: "prefix-tuning", methods: [PrefixTuning], objectives: [] }
