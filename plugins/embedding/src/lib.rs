//! Embedding: a vector of length 1 for each text, so that the cosine of two says how alike they are. A pooling of the
//! base's hidden states, trained on pairs of texts, or on triples of a text, one like it and one unlike it.

mod answers;
mod loss;
mod pairs;

use graft_plugin_api::*;
use serde_json::Value as JsonValue;

config! {
    /// A vector of length 1 for each text.
    pub struct Embedding {
        /// How a text's hidden states become one vector: `mean` over the tokens, `cls` (the first), `last` (the last token
        /// that is not padding) or `pooled` (the base's own pooled output).
        pooling: Pooling = Pooling::Mean,
        /// `info_nce`: each text is to be nearer to its pair than to the pairs of all others in the batch. `cosine`: the
        /// cosine of a pair is to be its score, brought to 0 … 1.
        loss: Loss = Loss::InfoNce,
        /// What cosines are divided by, with `info_nce`: the smaller, the more the nearest of the others count.
        temperature: f64 = 0.05,
        /// Whether, with `info_nce`, each pair is to be nearer to its text than to the other texts, too.
        symmetric: bool = false,
        /// The score that means a cosine of 0, with `cosine`. Without it the lowest of the training data.
        score_low: Option<f64> = None,
        /// The score that means a cosine of 1, with `cosine`. Without it the highest of the training data.
        score_high: Option<f64> = None,
        /// Whether each example of the training data has a text unlike the first; filled in from the data.
        negatives: Option<bool> = None,
    }
}

/// What is minimised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(crate = "graft_plugin_api::serde", rename_all = "snake_case")]
#[schemars(crate = "graft_plugin_api::schemars")]
pub enum Loss {
    /// InfoNCE with in-batch negatives (van den Oord et al. 2018, "Representation Learning with Contrastive Predictive
    /// Coding"; Henderson et al. 2017, "Efficient Natural Language Response Suggestion for Smart Reply").
    InfoNce,
    /// The squared difference of cosine and score (Reimers and Gurevych 2019, "Sentence-BERT").
    Cosine,
}

impl Objective for Embedding {
    const ID: &'static str = "embedding";
    const SUMMARY: &'static str = "a vector for each text: pooling, trained on pairs by InfoNCE or scores";

    fn check(&self) -> Result<()> {
        pairs::check(self)
    }

    fn examples() -> Vec<(&'static str, Self)> {
        vec![
            ("pairs of like texts, or triples with an unlike one", Self::default()),
            ("pairs with scores", Self { loss: Loss::Cosine, ..Self::default() }),
            (
                "scores from 0 to 5",
                Self { loss: Loss::Cosine, score_low: Some(0.0), score_high: Some(5.0), ..Self::default() },
            ),
        ]
    }

    fn fields(&self) -> Vec<Field> {
        let score = Field::new("score", FieldKind::NUMBER, "how alike the two are; not needed for answers");
        vec![
            Field::new("text", FieldKind::TEXT, "the text"),
            Field::new("text_pair", FieldKind::TEXT_APART, "a text like it; not needed for answers"),
            Field::new("negative", FieldKind::TEXT_APART, "a text unlike it").optional(),
            if self.loss == Loss::Cosine { score } else { score.optional() },
        ]
    }

    fn prepare(self, data: &Summary) -> Result<Self> {
        pairs::prepare(self, data)
    }

    fn collate(&self, _: &Host<'_>, rows: &[Row], _seed: u64) -> Result<Vec<Tensor>> {
        pairs::collate(self, rows)
    }

    fn build(&self, g: &Graph<'_>) -> Result<Built> {
        let vectors = loss::normalised(g, g.pool(self.pooling)?)?;
        let loss = if g.training()? { Some(loss::build(self, g, vectors)?) } else { None };
        Ok(Built { loss, outputs: vec![("vectors".to_owned(), vectors)] })
    }

    fn metrics(&self, tensors: &[Tensor]) -> Result<Vec<Metric>> {
        answers::metrics(self, tensors)
    }

    fn decode(&self, _: &Host<'_>, tensors: &[Tensor]) -> Result<Vec<JsonValue>> {
        answers::decode(tensors)
    }
}

export_plugin! { id: "embedding", methods: [], objectives: [Embedding] }
