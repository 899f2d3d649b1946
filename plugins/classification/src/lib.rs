//! Classification: each row has one label out of a fixed list, or several. A pooling of the base's hidden states and a
//! linear head, or the base's own logits; the cross-entropy as `torch.nn.CrossEntropyLoss` defines it, or for several
//! labels the binary one of `torch.nn.BCEWithLogitsLoss`.

mod answers;
mod labels;
mod loss;
mod several;
mod thresholds;

use graft_plugin_api::*;
use serde_json::Value as JsonValue;

config! {
    /// Labels out of a fixed list for each row: one, or any number of them.
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
        /// Whether a row has any number of labels instead of one.
        multi_label: bool = false,
        /// What stands between the labels of a cell, with `multi_label`. A blank cell has none.
        separator: String = ";".to_owned(),
        /// The probability from which on a label is given, with `multi_label`: `tuned` (for the best F1 of each label on the
        /// evaluation data once training is done; 0.5 without such data), a number, or one for each label in the order of
        /// `labels`.
        thresholds: Thresholds = Thresholds::Named(NamedThresholds::Tuned),
    }
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

/// The probability from which on a label is given.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(crate = "graft_plugin_api::serde", untagged)]
#[schemars(crate = "graft_plugin_api::schemars")]
pub enum Thresholds {
    /// By name.
    Named(NamedThresholds),
    /// The same for all labels.
    One(f64),
    /// One for each label.
    Each(Vec<f64>),
}

/// Thresholds that have a name.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(crate = "graft_plugin_api::serde", rename_all = "snake_case")]
#[schemars(crate = "graft_plugin_api::schemars")]
pub enum NamedThresholds {
    /// For the best F1 of each label on the evaluation data.
    Tuned,
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
    const SUMMARY: &'static str = "one label or several for each row: pooling, linear head, cross-entropy";

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
            ("any number of labels for each row", Self { multi_label: true, ..Self::default() }),
            ("softer targets", Self { label_smoothing: 0.1, ..Self::default() }),
        ]
    }

    fn fields(&self) -> Vec<Field> {
        let label = Field::new("label", FieldKind::LABEL, "the right label; not needed for answers");
        vec![
            Field::new("text", FieldKind::TEXT, "what is classified"),
            Field::new("text_pair", FieldKind::TEXT, "a second text, encoded with the first one").optional(),
            Field::new("image", FieldKind::IMAGE, "what is classified, for a base of images"),
            if self.multi_label { label.several(&self.separator) } else { label },
        ]
    }

    fn prepare(self, data: &Summary) -> Result<Self> {
        labels::prepare(self, data)
    }

    fn collate(&self, _: &Host<'_>, rows: &[Row], _seed: u64) -> Result<Vec<Tensor>> {
        if self.multi_label { several::collate(self, rows) } else { labels::collate(self.labels()?, rows) }
    }

    fn build(&self, g: &Graph<'_>) -> Result<Built> {
        let labels = self.labels()?.len() as u64;
        let (logits, head) = if self.pooling == Pooling::Logits {
            (g.own_logits(labels, "labels")?, None)
        } else {
            let pooled = g.dropout(g.pool(self.pooling)?, self.dropout, "head_dropout")?;
            let head = g.linear_head(pooled, labels, true)?;
            (head.logits, Some(head))
        };
        if !g.training()? {
            return Ok(Built { loss: None, outputs: vec![("logits".to_owned(), logits)] });
        }
        let loss::Loss { loss, softmax } = loss::build(self, g, logits)?;
        // With dropout the loss is another one in each step, and has no optimum to be found.
        if let (Some(h), Some((targets, counts))) = (head.filter(|_| self.dropout == 0.0), softmax) {
            let (input, weight, bias) = (h.input, h.weight, h.bias);
            g.declare_softmax_head(SoftmaxHead { input, weight, bias, targets, counts })?;
        }
        Ok(Built { loss: Some(loss), outputs: vec![("logits".to_owned(), logits)] })
    }

    fn metrics(&self, tensors: &[Tensor]) -> Result<Vec<Metric>> {
        if self.multi_label { several::metrics(self, tensors) } else { answers::metrics(self, tensors) }
    }

    fn decode(&self, _: &Host<'_>, tensors: &[Tensor]) -> Result<Vec<JsonValue>> {
        if self.multi_label {
            several::decode(self, tensors)
        } else {
            answers::decode(self.labels()?, tensors)
        }
    }

    fn calibrates(&self) -> bool {
        self.multi_label && self.thresholds == Thresholds::Named(NamedThresholds::Tuned)
    }

    fn calibrate(self, tensors: &[Tensor]) -> Result<Self> {
        if self.calibrates() { several::calibrate(self, tensors) } else { Ok(self) }
    }
}

export_plugin! { id: "classification", methods: [], objectives: [Classification] }
