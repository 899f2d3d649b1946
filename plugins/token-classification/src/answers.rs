//! Metrics and answers from logits.

use graft_plugin_api::*;

use crate::entities::{Counts, entities};
use crate::labels::{OUTSIDE, spans};
use crate::loss::log_softmax;
use crate::targets;

/// Logits of each token: rows, tokens of a row, and a number for each label.
struct Logits<'a> {
    rows: usize,
    length: usize,
    labels: &'a [String],
    values: Vec<f32>,
}

impl<'a> Logits<'a> {
    fn read(tensors: &[Tensor], labels: &'a [String]) -> Result<Logits<'a>> {
        let t = tensor(tensors, "logits")?;
        let &[rows, length, classes] = t.shape.as_slice() else {
            return fail!(DATA, "logits of shape {:?}, not [rows, tokens, labels]", t.shape);
        };
        if classes != labels.len() {
            return fail!(DATA, "logits of shape {:?} for {} labels", t.shape, labels.len());
        }
        Ok(Logits { rows, length, labels, values: t.to_f32s()? })
    }

    /// The logits of a token.
    fn at(&self, row: usize, place: usize) -> &[f32] {
        let classes = self.labels.len();
        &self.values[(row * self.length + place) * classes..][..classes]
    }

    /// The label of a token, the first one of several that are equally likely.
    fn best(&self, row: usize, place: usize) -> usize {
        let logits = self.at(row, place);
        logits.iter().enumerate().fold(0, |b, (i, v)| if *v > logits[b] { i } else { b })
    }
}

/// F1, precision and recall of the spans, where the labels form some, accuracy over words, and the loss over the
/// labelled pieces. Words that truncation cut off are not counted.
pub fn metrics(names: &[String], tensors: &[Tensor]) -> Result<Vec<Metric>> {
    let logits = Logits::read(tensors, names)?;
    let (labels, firsts) = (tensor(tensors, "labels")?, tensor(tensors, "firsts")?);
    let shape = [logits.rows, logits.length];
    if labels.shape != shape || firsts.shape != shape {
        return fail!(DATA, "labels of shape {:?} for logits of {shape:?} tokens", labels.shape);
    }
    let (labels, firsts) = (labels.to_i64s()?, firsts.to_i64s()?);
    let (mut counts, mut right, mut words) = (Counts::default(), 0u64, 0u64);
    let (mut loss, mut pieces) = (0.0, 0u64);
    for row in 0..logits.rows {
        let (mut answered, mut truth) = (Vec::new(), Vec::new());
        for place in 0..logits.length {
            let at = row * logits.length + place;
            let Ok(label) = usize::try_from(labels[at]) else { continue };
            let Some(name) = names.get(label) else {
                return fail!(DATA, "the label number {label} is not one of {}", names.len());
            };
            loss -= log_softmax(logits.at(row, place))[label];
            pieces += 1;
            if firsts[at] == 1 {
                let best = logits.best(row, place);
                right += u64::from(best == label);
                words += 1;
                answered.push(names[best].as_str());
                truth.push(name.as_str());
            }
        }
        counts.add(&answered, &truth);
    }
    let mut metrics = Vec::new();
    if spans(names) {
        metrics.push(Metric::higher("f1", counts.f1()));
        metrics.push(Metric::higher("precision", counts.precision()));
        metrics.push(Metric::higher("recall", counts.recall()));
    }
    metrics.push(Metric::higher("accuracy", right as f64 / words.max(1) as f64));
    metrics.push(Metric::lower("loss", loss / pieces.max(1) as f64));
    Ok(metrics)
}

/// For each row a list of `{label, text, start, end, score}`: the spans that the labels of its words form, or each word
/// whose label is not `O` where labels have no prefixes. Positions are characters of the text, the end not included;
/// the score is the mean of the words' probabilities of their labels.
pub fn decode(names: &[String], rows: &[Row], tensors: &[Tensor]) -> Result<Vec<Json>> {
    let logits = Logits::read(tensors, names)?;
    if logits.rows != rows.len() {
        return fail!(DATA, "logits of {} rows for {}", logits.rows, rows.len());
    }
    let forms_spans = spans(names);
    rows.iter().enumerate().map(|(r, row)| one(&logits, forms_spans, r, targets::tokens(row)?)).collect()
}

fn one(logits: &Logits<'_>, forms_spans: bool, row: usize, tokens: &Tokens) -> Result<Json> {
    if tokens.pieces.len() > logits.length {
        return fail!(DATA, "logits of {} tokens for {}", logits.length, tokens.pieces.len());
    }
    let words = tokens.first_pieces();
    let best: Vec<usize> = words.iter().map(|(place, _)| logits.best(row, *place)).collect();
    let labels: Vec<&str> = best.iter().map(|b| logits.labels[*b].as_str()).collect();
    let found: Vec<(usize, usize, &str)> = match forms_spans {
        true => entities(&labels).into_iter().map(|e| (e.first, e.last, e.kind)).collect(),
        false => labels.iter().enumerate().filter(|l| *l.1 != OUTSIDE).map(|(w, l)| (w, w, *l)).collect(),
    };
    let answer = |(first, last, label): (usize, usize, &str)| {
        let probability = |w: usize| log_softmax(logits.at(row, words[w].0))[best[w]].exp();
        let score = (first..=last).map(probability).sum::<f64>() / (last - first + 1) as f64;
        let (start, end) = extent(tokens, words[first].1, words[last].1);
        let text = tokens.text.get(start..end).unwrap_or_default();
        let (start, end) = (tokens.characters(start), tokens.characters(end));
        json!({ "label": label, "text": text, "start": start, "end": end, "score": score })
    };
    Ok(found.into_iter().map(answer).collect())
}

/// The bytes from the first to the last of some words, without blanks at either end: tokenizers differ in whether a
/// blank belongs to the word behind it.
fn extent(tokens: &Tokens, first: usize, last: usize) -> (usize, usize) {
    let inside = tokens.pieces.iter().filter(|p| p.word.is_some_and(|w| (first..=last).contains(&w)));
    let (start, end) = inside.fold((usize::MAX, 0), |(a, b), p| (a.min(p.start), b.max(p.end)));
    // Tokens of single bytes may begin and end within a character.
    let text = &tokens.text;
    let end = (end..=text.len()).find(|e| text.is_char_boundary(*e)).unwrap_or(text.len());
    let start = (0..=start.min(end)).rev().find(|s| text.is_char_boundary(*s)).unwrap_or(0);
    let slice = &text[start..end];
    let start = start + slice.len() - slice.trim_start().len();
    (start, start.max(end - (slice.len() - slice.trim_end().len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Vec<String> {
        ["O", "B-per", "I-per"].map(str::to_owned).to_vec()
    }

    /// Logits under which each token has the label of this number, the likelier the larger `by` is.
    fn logits(labels: &[usize], by: f32) -> Tensor {
        let one = |l: &usize| (0..3).map(|k| if k == *l { by } else { 0.0 }).collect::<Vec<_>>();
        Tensor::f32s("logits", &[1, labels.len(), 3], &labels.iter().flat_map(one).collect::<Vec<_>>())
    }

    fn value(metrics: &[Metric], name: &str) -> f64 {
        metrics.iter().find(|m| m.name == name).unwrap().value
    }

    #[test]
    fn words_are_judged_by_their_first_piece_and_the_loss_counts_every_label() {
        let tensors = [
            logits(&[0, 1, 0, 2, 0, 1], 3.0),
            Tensor::i64s("labels", &[1, 6], &[-100, 1, 1, 2, 0, -100]),
            Tensor::i64s("firsts", &[1, 6], &[0, 1, 0, 1, 1, 0]),
        ];
        let m = metrics(&names(), &tensors).unwrap();
        for name in ["f1", "precision", "recall", "accuracy"] {
            assert_eq!(value(&m, name), 1.0, "{name}");
        }
        assert_eq!(m[0].name, "f1", "the first metric selects the best epoch");
        // torch.nn.functional.cross_entropy(logits[0], labels[0]) in f64, with its default ignore_index.
        assert!((value(&m, "loss") - 0.8449229564).abs() < 1e-7, "{}", value(&m, "loss"));
    }

    #[test]
    fn a_span_with_wrong_words_is_not_right() {
        let tensors = [
            logits(&[1, 0, 0], 3.0),
            Tensor::i64s("labels", &[1, 3], &[1, 2, 0]),
            Tensor::i64s("firsts", &[1, 3], &[1, 1, 1]),
        ];
        let m = metrics(&names(), &tensors).unwrap();
        assert_eq!((value(&m, "f1"), value(&m, "precision"), value(&m, "recall")), (0.0, 0.0, 0.0));
        assert!((value(&m, "accuracy") - 2.0 / 3.0).abs() < 1e-12);
    }

    fn row() -> Row {
        let piece = |start, end, word| Piece { start, end, word };
        // " Ann" with the blank in front, as byte-level tokenizers have it.
        let pieces = vec![
            piece(0, 0, None),
            piece(0, 2, Some(0)),
            piece(2, 4, Some(0)),
            piece(4, 8, Some(1)),
            piece(8, 9, Some(2)),
        ];
        let tokens = Tokens { text: "Zoë Ann!".into(), pieces, words: 3 };
        Row { cells: vec![("tokens".to_owned(), Cell::Tokens(tokens))] }
    }

    #[test]
    fn spans_have_their_text_and_their_place_in_characters() {
        let a = decode(&names(), &[row()], &[logits(&[0, 1, 0, 2, 0], 2.0)]).unwrap();
        let score = 2f64.exp() / (2f64.exp() + 2.0);
        let found = &a[0][0];
        assert_eq!(a[0].as_array().unwrap().len(), 1);
        let place = (&found["label"], &found["text"], &found["start"], &found["end"]);
        assert_eq!(place, (&json!("per"), &json!("Zoë Ann"), &json!(0), &json!(7)));
        assert!((found["score"].as_f64().unwrap() - score).abs() < 1e-12);
    }

    #[test]
    fn labels_without_prefixes_are_answered_word_by_word() {
        let names = ["NOUN", "O", "VERB"].map(str::to_owned).to_vec();
        let a = decode(&names, &[row()], &[logits(&[0, 0, 2, 2, 1], 2.0)]).unwrap();
        let shown: Vec<_> = a[0].as_array().unwrap().iter().map(|e| (&e["label"], &e["text"])).collect();
        assert_eq!(shown, [(&json!("NOUN"), &json!("Zoë")), (&json!("VERB"), &json!("Ann"))]);
    }

    #[test]
    fn tensors_that_do_not_fit_are_refused() {
        assert!(decode(&names(), &[row()], &[logits(&[0], 1.0)]).is_err(), "fewer tokens");
        assert!(decode(&names(), &[], &[logits(&[0], 1.0)]).is_err(), "other rows");
        assert!(decode(&names()[..2], &[row()], &[logits(&[0; 5], 1.0)]).is_err(), "other labels");
        assert!(decode(&names(), &[Row::default()], &[logits(&[0; 5], 1.0)]).is_err(), "no tokens");
    }
}
