//! Regression: each row has one or several numbers. A pooling of the base's hidden states and a linear head, or the base's
//! own logits; the squared error or Huber's loss, over targets that are standardised by the training data. Answers are in
//! the data's own units.

mod answers;
mod head;
mod targets;

use graft_plugin_api::*;
use serde_json::Value as JsonValue;

config! {
    /// One or several numbers for each row.
    pub struct Regression {
        /// How a row's hidden states become one vector: `mean` over the tokens, `cls` (the first), `last` (the last
        /// token that is not padding), `pooled` (the base's own pooled output, or what the last layer of an image
        /// classifier reads) or `logits` (none: the base's own logits, one for each of `targets`).
        pooling: Pooling = Pooling::Mean,
        /// Dropout on the input of the head, while training.
        dropout: f32 = 0.0,
        /// `mse`, the mean squared error, or `huber`, which grows linearly where the error is above `huber_delta`.
        loss: Loss = Loss::Mse,
        /// Where Huber's loss begins to grow linearly, in standard deviations of the target (in its units, where it is not
        /// standardised).
        huber_delta: f32 = 1.0,
        /// Names of the numbers; each is a field of its own, read from the column of that name unless another one is given.
        targets: Vec<String> = vec!["target".to_owned()],
        /// Whether the head is trained on numbers of mean 0 and deviation 1 instead of the data's own.
        standardise: bool = true,
        /// What is subtracted from each target: the mean of the training data, which fills it in.
        mean: Option<Vec<f64>> = None,
        /// What each target is then divided by: the standard deviation of the training data, which fills it in.
        deviation: Option<Vec<f64>> = None,
    }
}

/// What is minimised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(crate = "graft_plugin_api::serde", rename_all = "snake_case")]
#[schemars(crate = "graft_plugin_api::schemars")]
pub enum Loss {
    /// The mean squared error, as `torch.nn.MSELoss`.
    Mse,
    /// As `torch.nn.HuberLoss` (Huber 1964): half the square up to `huber_delta`, linear beyond it.
    Huber,
}

impl Objective for Regression {
    const ID: &'static str = "regression";
    const SUMMARY: &'static str = "numbers for each row: pooling, linear head, squared error or Huber's loss";

    fn check(&self) -> Result<()> {
        targets::check(self)
    }

    fn examples() -> Vec<(&'static str, Self)> {
        let targets = ["height", "weight"].map(str::to_owned).to_vec();
        vec![
            ("one number, standardised", Self::default()),
            ("far outliers count less", Self { loss: Loss::Huber, ..Self::default() }),
            ("several numbers, from the columns of these names", Self { targets, ..Self::default() }),
            ("numbers as the data have them", Self { standardise: false, ..Self::default() }),
        ]
    }

    fn fields(&self) -> Vec<Field> {
        let mut fields = vec![
            Field::new("text", FieldKind::TEXT, "what the numbers are about"),
            Field::new("text_pair", FieldKind::TEXT, "a second text, encoded with the first one").optional(),
            Field::new("image", FieldKind::IMAGE, "what the numbers are about, for a base of images"),
        ];
        let what = "the right number; not needed for answers";
        fields.extend(self.targets.iter().map(|t| Field::new(t, FieldKind::NUMBER, what)));
        fields
    }

    fn prepare(self, data: &Summary) -> Result<Self> {
        targets::prepare(self, data)
    }

    fn collate(&self, _: &Host<'_>, rows: &[Row], _seed: u64) -> Result<Vec<Tensor>> {
        targets::collate(self, rows)
    }

    fn build(&self, g: &Graph<'_>) -> Result<Built> {
        head::build(self, g)
    }

    fn metrics(&self, tensors: &[Tensor]) -> Result<Vec<Metric>> {
        answers::metrics(self, tensors)
    }

    fn decode(&self, _: &Host<'_>, tensors: &[Tensor]) -> Result<Vec<JsonValue>> {
        answers::decode(self, tensors)
    }
}

export_plugin! { id: "regression", methods: [], objectives: [Regression] }
