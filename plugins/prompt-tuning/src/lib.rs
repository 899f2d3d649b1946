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
            ("tokens that start as a text", Self { init: Start::Text, text, ..Self::default() }),
        ]
    }

    fn apply(&self, g: &Graph<'_>) -> Result<()> {
        let words = words(g)?;
        g.virtual_tokens(self.virtual_tokens, VirtualTokens::Kept)?;
        let init = match (self.init, words.weight.clone()) {
            (Start::Random, _) => Init::Normal(0.02),
            // What is kept quantised has no rows to take.
            (Start::Vocabulary, None) => Init::Normal(0.02),
            (Start::Vocabulary, Some(table)) => Init::Rows { table, text: None },
            (Start::Text, Some(table)) => Init::Rows { table, text: self.text.clone() },
            (Start::Text, None) => return fail!(REFUSED, "the base's words are not there as numbers"),
        };
        let spec = ParamSpec::new("prompt_embeddings", &[self.virtual_tokens, words.out_features]);
        let prompt = g.param(spec.init(init).paddable(0))?;
        g.replace_output(&words, g.put_virtual(words.output()?, prompt, 1)?)
    }
}

/// The site where the base looks its words up: the table that its token ids enter.
fn words(g: &Graph<'_>) -> Result<Site> {
    let ids = g.model_input("ids")?;
    let mut tables: Vec<Site> = g.sites()?.into_iter().filter(|s| s.kind == SiteKind::EMBEDDING).collect();
    let reads = |s: &Site| ids.is_some() && s.input().ok() == ids;
    // Where ids are cast or reshaped on their way, the widest table is the vocabulary's.
    let found = tables.iter().position(reads);
    let found = found.or_else(|| (0..tables.len()).max_by_key(|i| tables[*i].in_features));
    match found {
        Some(i) => Ok(tables.swap_remove(i)),
        None => fail!(NO_SITE, "the base has no table of words, where virtual tokens could enter"),
    }
}

export_plugin! { id: "prompt-tuning", methods: [PromptTuning], objectives: [] }
