//! What the model classes of `transformers` call their parts: one row an architecture.

/// The head of a stock sequence classifier that is one linear layer.
#[derive(Debug, PartialEq, Eq)]
pub struct StockHead {
    /// Its module, which PEFT keeps under `modules_to_save`.
    pub module: &'static str,
    /// The pooling that the stock model does before it, as the classification objective names it.
    pub pooling: &'static str,
    /// Whether it has a bias.
    pub bias: bool,
}

/// How the modules of an architecture are named.
#[derive(Debug)]
pub struct Architecture {
    /// `model_type` of `config.json`.
    pub model_type: &'static str,
    /// Where task models keep the bare model (`base_model_prefix`); empty if they do not nest it.
    pub prefix: &'static str,
    /// The children of the bare model.
    pub roots: &'static [&'static str],
    /// Linear modules of the bare model that an exported graph may lack, because its outputs do not need them.
    pub optional: &'static [&'static str],
    /// The head of the sequence classifier, where stock `transformers` can rebuild one from a linear layer.
    pub head: Option<StockHead>,
}

const POOLED: Option<StockHead> = Some(StockHead { module: "classifier", pooling: "pooled", bias: true });
const FIRST: Option<StockHead> = Some(StockHead { module: "classifier", pooling: "cls", bias: true });
const LAST: Option<StockHead> = Some(StockHead { module: "score", pooling: "last", bias: false });
/// The head of the stock token classifiers of encoders: on every hidden state, after no pooling.
static TOKENS: StockHead = StockHead { module: "classifier", pooling: "none", bias: true };
/// Architectures whose stock token classifier is that one.
const TOKEN_CLASSIFIERS: [&str; 9] =
    ["bert", "albert", "roberta", "xlm-roberta", "camembert", "mpnet", "electra", "deberta-v2", "distilbert"];
const ENCODER: &[&str] = &["embeddings", "encoder", "pooler"];
const DECODER: &[&str] = &["embed_tokens", "layers", "norm"];
const POOLER: &[&str] = &["pooler.dense"];

const fn row(
    model_type: &'static str,
    prefix: &'static str,
    roots: &'static [&'static str],
    optional: &'static [&'static str],
    head: Option<StockHead>,
) -> Architecture {
    Architecture { model_type, prefix, roots, optional, head }
}

static TABLE: [Architecture; 15] = [
    row("bert", "bert", ENCODER, POOLER, POOLED),
    row("albert", "albert", ENCODER, &["pooler"], POOLED),
    row("roberta", "roberta", ENCODER, POOLER, None),
    row("xlm-roberta", "roberta", ENCODER, POOLER, None),
    row("camembert", "roberta", ENCODER, POOLER, None),
    row("mpnet", "mpnet", ENCODER, POOLER, None),
    row("electra", "electra", &["embeddings", "embeddings_project", "encoder"], &[], None),
    row("deberta-v2", "deberta", &["embeddings", "encoder"], &[], None),
    row("distilbert", "distilbert", &["embeddings", "transformer"], &[], None),
    row("llama", "model", DECODER, &[], LAST),
    row("mistral", "model", DECODER, &[], LAST),
    row("qwen2", "model", DECODER, &[], LAST),
    row("gpt2", "transformer", &["wte", "wpe", "h", "ln_f"], &[], LAST),
    row("vit", "vit", &["embeddings", "encoder", "layers", "layernorm", "pooler"], POOLER, FIRST),
    row("t5", "", &["shared", "encoder", "decoder"], &[], None),
];

impl Architecture {
    /// The row of a `model_type`.
    pub fn of(model_type: &str) -> Option<&'static Architecture> {
        TABLE.iter().find(|a| a.model_type == model_type)
    }

    /// The head of the stock token classifier, where it is one linear layer on the hidden states.
    pub fn token_head(&self) -> Option<&'static StockHead> {
        TOKEN_CLASSIFIERS.contains(&self.model_type).then_some(&TOKENS)
    }

    /// A base's module path without the wrapper that it was exported through (`m.encoder.layer.0` → `encoder.layer.0`);
    /// `None` if the path has no part that this architecture has.
    pub fn bare<'a>(&self, path: &'a str) -> Option<&'a str> {
        let mut rest = path;
        loop {
            let (segment, after) = rest.split_once('.').unwrap_or((rest, ""));
            if self.roots.contains(&segment) {
                return Some(rest);
            }
            if after.is_empty() {
                return None;
            }
            rest = after;
        }
    }

    /// A path of the bare model as the task models have it (`encoder.layer.0` → `bert.encoder.layer.0`).
    pub fn prefixed(&self, bare: &str) -> String {
        if self.prefix.is_empty() { bare.to_string() } else { format!("{}.{bare}", self.prefix) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrappers_are_stripped_and_the_prefix_is_put_in_front() {
        let bert = Architecture::of("bert").unwrap();
        for path in [
            "encoder.layer.0.q",
            "m.encoder.layer.0.q",
            "bert.encoder.layer.0.q",
            "0.auto_model.encoder.layer.0.q",
        ] {
            assert_eq!(bert.bare(path), Some("encoder.layer.0.q"));
        }
        assert_eq!(bert.bare("classifier"), None);
        assert_eq!(bert.prefixed("pooler.dense"), "bert.pooler.dense");
        let llama = Architecture::of("llama").unwrap();
        assert_eq!(llama.bare("model.layers.0.mlp"), Some("layers.0.mlp"));
        assert!(Architecture::of("no-such-model").is_none());
    }
}
