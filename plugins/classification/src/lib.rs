//! Classification: each row has one label out of a fixed list. A pooling of the base's hidden states and a linear head,
//! or the base's own logits, and the cross-entropy as `torch.nn.CrossEntropyLoss` defines it.

mod answers;
mod head;
mod labels;
mod loss;

use graft_plugin_api::*;
use serde_json::Value as JsonValue;

config! {
    /// One label out of a fixed list for each row.
    pub struct Classification {
        /// How a row's hidden states become one vector: `mean` over the tokens, `cls` (the first), `last` (the last
        /// token that is not padding), `pooled` (the base's own pooled output, or what the last layer of an image
        /// classifier reads) or `logits` (none: the base's own logits, with `labels` in their order).
        pooling: Pooling = Pooling::Mean,
        /// Dropout on the input of the head, while training.
        dropout: f32 = 0.0,
        /// Part of the target that is spread evenly over all labels.
        label_smoothing: f32 = 0.0,
        /// Weight of each label in the loss: `none`, `balanced` (inverse to its frequency in the training data), or one
        /// number for each label in the order of `labels`.
        class_weights: Weights = Weights::Named(NamedWeights::None),
        /// The labels in the order of the logits. Without them those of the training data, sorted.
        labels: Option<Vec<String>> = None,
    }
}

/// How a row's hidden states become one vector.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(crate = "graft_plugin_api::serde", rename_all = "snake_case")]
#[schemars(crate = "graft_plugin_api::schemars")]
pub enum Pooling {
    /// Mean over the tokens that are not padding.
    Mean,
    /// The first token.
    Cls,
    /// The last token that is not padding.
    Last,
    /// The base's own pooled output.
    Pooled,
    /// None, and no head: the base's own logits.
    Logits,
}

/// Weight of each label in the loss.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(crate = "graft_plugin_api::serde", untagged)]
#[schemars(crate = "graft_plugin_api::schemars")]
pub enum Weights {
    /// By name.
    Named(NamedWeights),
    /// One number for each label.
    Given(Vec<f32>),
}

/// Weights that have a name.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(crate = "graft_plugin_api::serde", rename_all = "snake_case")]
#[schemars(crate = "graft_plugin_api::schemars")]
pub enum NamedWeights {
    /// All alike.
    None,
    /// `rows / (labels · count)`.
    Balanced,
}

impl Classification {
    /// The labels, once `prepare` has filled them in.
    fn labels(&self) -> Result<&[String]> {
        match self.labels.as_deref() {
            Some(l) if !l.is_empty() => Ok(l),
            _ => fail!(CONFIG, "option `labels`: there are none yet; they come from the training data"),
        }
    }

    /// The weights as numbers, if there are any.
    fn weights(&self) -> Option<&[f32]> {
        if let Weights::Given(w) = &self.class_weights { Some(w) } else { None }
    }
}

impl Objective for Classification {
    const ID: &'static str = "classification";
    const SUMMARY: &'static str = "one label for each row: pooling, linear head, cross-entropy";

    fn check(&self) -> Result<()> {
        labels::check(self)
    }

    fn examples() -> Vec<(&'static str, Self)> {
        let balanced = Weights::Named(NamedWeights::Balanced);
        vec![
            ("mean pooling", Self::default()),
            (
                "the base's own pooler, a head that PEFT can rebuild",
                Self { pooling: Pooling::Pooled, ..Self::default() },
            ),
            (
                "rare labels count as much as frequent ones",
                Self { class_weights: balanced, ..Self::default() },
            ),
            ("the head that the base has already", Self { pooling: Pooling::Logits, ..Self::default() }),
            ("softer targets", Self { label_smoothing: 0.1, ..Self::default() }),
        ]
    }

    fn fields(&self) -> Vec<Field> {
        vec![
            Field::new("text", FieldKind::TEXT, "what is classified"),
            Field::new("image", FieldKind::IMAGE, "what is classified, for a base of images"),
            Field::new("label", FieldKind::LABEL, "the right label; not needed for answers"),
        ]
    }

    fn prepare(self, data: &Summary) -> Result<Self> {
        labels::prepare(self, data)
    }

    fn collate(&self, _: &Host<'_>, rows: &[Row], _seed: u64) -> Result<Vec<Tensor>> {
        labels::collate(self.labels()?, rows)
    }

    fn build(&self, g: &Graph<'_>) -> Result<Built> {
        let labels = self.labels()?.len() as u64;
        let (logits, head) = if self.pooling == Pooling::Logits {
            (head::own(g, labels)?, None)
        } else {
            let pooled = g.dropout(head::pool(g, self.pooling)?, self.dropout, "head_dropout")?;
            let head = head::linear(g, pooled, labels)?;
            (head.logits, Some(head))
        };
        if !g.training()? {
            return Ok(Built { loss: None, outputs: vec![("logits".to_owned(), logits)] });
        }
        let loss::Loss { loss, targets, counts } = loss::build(self, g, logits)?;
        // With dropout the loss is another one in each step, and has no optimum to be found.
        if let Some(h) = head.filter(|_| self.dropout == 0.0) {
            let (input, weight, bias) = (h.input, h.weight, h.bias);
            g.declare_softmax_head(SoftmaxHead { input, weight, bias, targets, counts })?;
        }
        Ok(Built { loss: Some(loss), outputs: vec![("logits".to_owned(), logits)] })
    }

    fn metrics(&self, tensors: &[Tensor]) -> Result<Vec<Metric>> {
        answers::metrics(self, tensors)
    }

    fn decode(&self, _: &Host<'_>, tensors: &[Tensor]) -> Result<Vec<JsonValue>> {
        answers::decode(self.labels()?, tensors)
    }
}

export_plugin! { id: "classification", methods: [], objectives: [Classification] }
