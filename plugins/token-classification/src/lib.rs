//! Token classification: each word of a text has a label, such as the entity that it is part of. A linear head on every
//! hidden state, and the cross-entropy over the pieces that have a label, as `transformers` trains its token
//! classifiers.

mod answers;
mod entities;
mod labels;
mod loss;
mod targets;

use graft_plugin_api::*;
use serde_json::Value as JsonValue;

config! {
    /// A label for each word of a text: named entities, parts of speech.
    pub struct TokenClassification {
        /// What a row of the data is: `words`, a list of words in the field `tokens` and a list of their labels in
        /// `tags` (CoNLL files are read as such), or `spans`, a text in the field `text` and a list of
        /// `{"start", "end", "label"}` in `spans`, in characters.
        format: Format = Format::Words,
        /// Whether every piece of a word is trained with the word's label, and not the first one alone. Answers and
        /// metrics always read the first piece.
        label_all_pieces: bool = false,
        /// Dropout on the input of the head, while training.
        dropout: f32 = 0.0,
        /// The labels in the order of the logits: `O` and those with `B-`, `I-`, `E-`, `S-` in front of a type, which are
        /// read as spans, or labels without such prefixes. Without them those of the training data.
        labels: Option<Vec<String>> = None,
    }
}

/// What a row of the data is.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(crate = "graft_plugin_api::serde", rename_all = "snake_case")]
#[schemars(crate = "graft_plugin_api::schemars")]
pub enum Format {
    /// Words with a label each.
    Words,
    /// A text with labelled spans.
    Spans,
}

impl TokenClassification {
    /// The labels, once `prepare` has filled them in.
    fn labels(&self) -> Result<&[String]> {
        match self.labels.as_deref() {
            Some(l) if !l.is_empty() => Ok(l),
            _ => fail!(CONFIG, "option `labels`: there are none yet; they come from the training data"),
        }
    }
}

impl Objective for TokenClassification {
    const ID: &'static str = "token-classification";
    const SUMMARY: &'static str =
        "a label for each word, and the spans that labels form: linear head, cross-entropy";

    fn check(&self) -> Result<()> {
        labels::check(self)
    }

    fn examples() -> Vec<(&'static str, Self)> {
        vec![
            ("words with BIO tags, from CoNLL files or lists in JSON lines", Self::default()),
            ("texts with labelled spans", Self { format: Format::Spans, ..Self::default() }),
            ("every piece of a word has its label", Self { label_all_pieces: true, ..Self::default() }),
        ]
    }

    fn fields(&self) -> Vec<Field> {
        match self.format {
            Format::Words => vec![
                Field::new("tokens", FieldKind::WORDS, "the words"),
                Field::new("tags", FieldKind::WORD_LABELS, "a label for each word; not needed for answers"),
            ],
            Format::Spans => vec![
                Field::new("text", FieldKind::TEXT, "the text"),
                Field::new("spans", FieldKind::SPANS, "the labelled spans; not needed for answers"),
            ],
        }
    }

    fn prepare(self, data: &Summary) -> Result<Self> {
        labels::prepare(self, data)
    }

    fn collate(&self, _: &Host<'_>, rows: &[Row], _seed: u64) -> Result<Vec<Tensor>> {
        targets::collate(self, rows)
    }

    fn build(&self, g: &Graph<'_>) -> Result<Built> {
        let labels = self.labels()?.len();
        let hidden = g.dropout(g.hidden()?, self.dropout, "head_dropout")?;
        let logits = head(g, hidden, labels as u64)?;
        let loss = if g.training()? { Some(loss::build(g, logits, labels)?) } else { None };
        Ok(Built { loss, outputs: vec![("logits".to_owned(), logits)] })
    }

    fn metrics(&self, tensors: &[Tensor]) -> Result<Vec<Metric>> {
        answers::metrics(self.labels()?, tensors)
    }

    fn decode(&self, _: &Host<'_>, _: &[Tensor]) -> Result<Vec<JsonValue>> {
        fail!(UNSUPPORTED, "spans are found in a text, and this host gives outputs without their rows")
    }

    fn decode_rows(&self, _: &Host<'_>, rows: &[Row], tensors: &[Tensor]) -> Result<Vec<JsonValue>> {
        answers::decode(self.labels()?, rows, tensors)
    }
}

/// `[batch, seq, hidden]` → `[batch, seq, labels]`.
fn head(g: &Graph<'_>, hidden: Value, labels: u64) -> Result<Value> {
    let shape = g.fact(hidden)?.shape;
    if shape.as_ref().filter(|s| s.len() == 3).and_then(|s| s[2].known()).is_none() {
        return fail!(REFUSED, "the base's hidden states are not [batch, sequence, a known width]");
    }
    Ok(g.linear_head(hidden, labels, true)?.logits)
}

export_plugin! { id: "token-classification", methods: [], objectives: [TokenClassification] }
