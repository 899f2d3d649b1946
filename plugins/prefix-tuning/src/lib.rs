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
        /// Width of a projection that keys and values come out of while training: a learned token each, a linear layer,
        /// tanh and another. What comes out of it is stored. Without it they are trained as they are.
        #[serde(alias = "encoder_hidden_size")]
        projection: Option<u64> = None,
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
        if self.projection == Some(0) {
            return fail!(CONFIG, "option `projection`: a projection of width 0 lets nothing through");
        }
        if !(self.init_std.is_finite() && self.init_std >= 0.0) {
            return fail!(CONFIG, "option `init_std`: {} is no standard deviation", self.init_std);
        }
        Ok(())
    }

    fn examples() -> Vec<(&'static str, Self)> {
        vec![
            ("twenty keys and values at every attention", Self::default()),
            ("out of a projection", Self { projection: Some(128), ..Self::default() }),
            ("five of them", Self { virtual_tokens: 5, ..Self::default() }),
        ]
    }

    fn apply(&self, g: &Graph<'_>) -> Result<()> {
        let count = self.virtual_tokens;
        g.virtual_tokens(count, VirtualTokens::Dropped)?;
        let (sites, beside_encoder) = attentions(g)?;
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
        let wide = slots * heads * width;
        let all = match self.projection {
            None => {
                let spec = ParamSpec::new(KEY, &[count, wide]).init(Init::Normal(self.init_std.into()));
                g.param(spec.paddable(0))?
            }
            Some(hidden) => {
                let made = projected(g, [count, heads * width, hidden, wide])?;
                g.store_as(KEY, made)?;
                made
            }
        };
        let sizes = [count, slots, heads, width].map(|n| n as i64);
        let all = g.transpose(g.reshape(all, &sizes)?, &[1, 2, 0, 3])?;
        let each = g.ints(&vec![1; slots as usize])?;
        let parts = g.emit_many("", "Split", &[Some(all), Some(each)], &[attr("axis", 0)], slots as u32)?;
        let parts = parts.into_iter().map(|p| g.squeeze(p, &[0])).collect::<Result<Vec<_>>>()?;
        // Beside an encoder PEFT hands out twice as many, the second half for what the decoder sees of the encoder, and
        // then does without that half: every other attention has keys of its own, which the next one shares.
        let step = if beside_encoder { 4 } else { 2 };
        for (i, site) in sites.iter().enumerate() {
            g.each(std::slice::from_ref(site), |site| {
                let at = i * step % parts.len();
                let (Some(a), Some(&keys), Some(&values)) =
                    (&site.attention, parts.get(at), parts.get(at + 1))
                else {
                    return fail!(REFUSED, "there are no keys and values for it");
                };
                let (key, value) = (g.put_virtual(a.key, keys, 2)?, g.put_virtual(a.value, values, 2)?);
                g.replace_attention(site, key, value, None)
            })?;
        }
        Ok(())
    }
}

/// Where PEFT keeps keys and values.
const KEY: &str = "prompt_embeddings";

/// Keys and values `[tokens, wide]` out of a learned token of `width` each, as PEFT's `transform`.
fn projected(g: &Graph<'_>, [count, width, hidden, wide]: [u64; 4]) -> Result<Value> {
    let tokens = g.param(ParamSpec::new("embedding.weight", &[count, width]).init(Init::Normal(1.0)))?;
    let x = g.tanh(g.torch_linear("transform.0", tokens, [width, hidden])?)?;
    g.torch_linear("transform.2", x, [hidden, wide])
}

/// The attentions that a prefix enters: all, or those of a decoder to itself where there is an encoder beside it; and
/// which of the two.
fn attentions(g: &Graph<'_>) -> Result<(Vec<Site>, bool)> {
    let all: Vec<Site> = g.sites()?.into_iter().filter(|s| s.attention.is_some()).collect();
    let side = |s: &Site, name: &str| s.path.split('.').any(|part| part == name);
    let two = all.iter().any(|s| side(s, "encoder")) && all.iter().any(|s| side(s, "decoder"));
    if !two {
        return Ok((all, false));
    }
    let mut own = Vec::new();
    for site in all.into_iter().filter(|s| side(s, "decoder")) {
        if let Some(a) = &site.attention
            && length(g, a.query)? == length(g, a.key)?
        {
            own.push(site);
        }
    }
    Ok((own, true))
}

/// The extent of the axis of tokens of queries or keys.
fn length(g: &Graph<'_>, v: Value) -> Result<Option<Dim>> {
    Ok(g.fact(v)?.shape.and_then(|s| s.into_iter().nth(2)))
}

export_plugin! { id: "prefix-tuning", methods: [PrefixTuning], objectives: [] }
