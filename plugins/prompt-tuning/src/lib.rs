//! Prompt tuning: learned tokens in front of every text, while the base stays as it is (Lester et al. 2021, "The Power
//! of Scale for Parameter-Efficient Prompt Tuning"). The tokens enter where the base looks its words up.

use graft_plugin_api::*;

config! {
    /// Soft prompts: learned tokens in front of every text.
    pub struct PromptTuning {
        /// How many.
        #[serde(alias = "num_virtual_tokens")]
        virtual_tokens: u64 = 20,
        /// What they start as.
        init: Start = Start::Vocabulary,
        /// The text whose words they start as, again and again until there are enough; for `init = "text"`.
        #[serde(alias = "prompt_tuning_init_text")]
        text: Option<String> = None,
        /// Width of an encoder that the tokens pass while training (P-tuning, Liu et al. 2021, "GPT Understands, Too":
        /// three linear layers with ReLU between). What comes out of it is stored. Without it they pass none.
        #[serde(alias = "encoder_hidden_size")]
        encoder: Option<u64> = None,
    }
}

/// What virtual tokens start as.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(crate = "graft_plugin_api::serde", rename_all = "snake_case")]
#[schemars(crate = "graft_plugin_api::schemars")]
pub enum Start {
    /// Words of the base's vocabulary, drawn at random.
    Vocabulary,
    /// The words of a text.
    Text,
    /// Numbers that are normally distributed, of standard deviation 0.02.
    Random,
}

impl Method for PromptTuning {
    const ID: &'static str = "prompt-tuning";
    const SUMMARY: &'static str = "learned tokens in front of every text (soft prompts)";

    fn check(&self) -> Result<()> {
        if self.virtual_tokens == 0 {
            return fail!(CONFIG, "option `virtual_tokens`: without any there is nothing to train");
        }
        if self.encoder == Some(0) {
            return fail!(CONFIG, "option `encoder`: an encoder of width 0 lets nothing through");
        }
        match (self.init, &self.text) {
            (Start::Text, None) => fail!(CONFIG, "option `init`: `text` needs the option `text`"),
            (Start::Vocabulary | Start::Random, Some(_)) => {
                fail!(CONFIG, "option `text`: it counts with `init = \"text\"` only")
            }
            _ => Ok(()),
        }
    }

    fn examples() -> Vec<(&'static str, Self)> {
        let text = Some("Which kind of answer does this question ask for?".to_owned());
        vec![
            ("twenty tokens that start as words of the vocabulary", Self::default()),
            (
                "ten tokens from an encoder",
                Self { virtual_tokens: 10, encoder: Some(128), ..Self::default() },
            ),
            ("tokens that start as a text", Self { init: Start::Text, text, ..Self::default() }),
        ]
    }

    fn apply(&self, g: &Graph<'_>) -> Result<()> {
        let Some(words) = g.words()? else {
            return fail!(NO_SITE, "the base has no table of words, where virtual tokens could enter");
        };
        g.virtual_tokens(self.virtual_tokens, VirtualTokens::Kept)?;
        let init = match (self.init, words.weight.clone()) {
            (Start::Random, _) => Init::Normal(0.02),
            // What is kept quantised has no rows to take.
            (Start::Vocabulary, None) => Init::Normal(0.02),
            (Start::Vocabulary, Some(table)) => Init::Rows { table, text: None },
            (Start::Text, Some(table)) => Init::Rows { table, text: self.text.clone() },
            (Start::Text, None) => return fail!(REFUSED, "the base's words are not there as numbers"),
        };
        let (count, width) = (self.virtual_tokens, words.out_features);
        let prompt = match self.encoder {
            None => g.param(ParamSpec::new(KEY, &[count, width]).init(init).paddable(0))?,
            Some(hidden) => {
                let tokens = g.param(ParamSpec::new("embedding.weight", &[count, width]).init(init))?;
                let made = encoded(g, tokens, [width, hidden])?;
                g.store_as(KEY, made)?;
                made
            }
        };
        g.replace_output(&words, g.put_virtual(words.output()?, prompt, 1)?)
    }
}

/// Where PEFT keeps the tokens.
const KEY: &str = "prompt_embeddings";

/// Three linear layers with ReLU between, as PEFT's `mlp_head`: `[tokens, width]` → `[tokens, width]`.
fn encoded(g: &Graph<'_>, tokens: Value, [width, hidden]: [u64; 2]) -> Result<Value> {
    let x = g.relu(g.torch_linear("mlp_head.0", tokens, [width, hidden])?)?;
    let x = g.relu(g.torch_linear("mlp_head.2", x, [hidden, hidden])?)?;
    g.torch_linear("mlp_head.4", x, [hidden, width])
}

export_plugin! { id: "prompt-tuning", methods: [PromptTuning], objectives: [] }
