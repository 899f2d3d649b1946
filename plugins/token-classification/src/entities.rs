//! Spans from the labels of words, and how they are counted.
//!
//! Labels are read as the evaluation script of CoNLL-2000 reads them, and after it the package `seqeval` in its default
//! mode: leniently, so that IOB1, BIO (IOB2) and IOBES all mean what they should, and a span that begins with `I-` is
//! one.

use std::collections::HashSet;

/// A span of words: first and last word, and its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Entity<'a> {
    /// The first word.
    pub first: usize,
    /// The last word.
    pub last: usize,
    /// The type, such as `person`.
    pub kind: &'a str,
}

/// A label's prefix and type; `O` and labels without a prefix are outside of every span.
pub fn parts(label: &str) -> (char, &str) {
    for prefix in ['B', 'I', 'E', 'S'] {
        if let Some(kind) = label.strip_prefix(prefix).and_then(|r| r.strip_prefix('-')) {
            return (prefix, kind);
        }
    }
    ('O', "")
}

/// The spans of a sentence.
pub fn entities<'a>(labels: &[&'a str]) -> Vec<Entity<'a>> {
    let mut found = Vec::new();
    let mut open: Option<usize> = None;
    let mut before = ('O', "");
    for (word, here) in labels.iter().map(|l| parts(l)).chain([('O', "")]).enumerate() {
        let other = before.1 != here.1;
        let ends = matches!((before.0, here.0), ('E' | 'S', _) | ('B' | 'I', 'B' | 'S' | 'O'))
            || (before.0 != 'O' && other);
        if ends && let Some(first) = open.take() {
            found.push(Entity { first, last: word - 1, kind: before.1 });
        }
        let begins = matches!((before.0, here.0), (_, 'B' | 'S') | ('E' | 'O', 'E' | 'I') | ('S', 'E' | 'I'))
            || (here.0 != 'O' && other);
        if begins {
            open = Some(word);
        }
        before = here;
    }
    found
}

/// Spans that are right, were answered and are true, over all sentences.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Answered with the right type and the right words.
    pub right: u64,
    /// Answered.
    pub answered: u64,
    /// True.
    pub truth: u64,
}

impl Counts {
    /// Adds a sentence.
    pub fn add(&mut self, answered: &[&str], truth: &[&str]) {
        let (answered, truth) = (entities(answered), entities(truth));
        let known: HashSet<_> = truth.iter().collect();
        self.right += answered.iter().filter(|e| known.contains(e)).count() as u64;
        self.answered += answered.len() as u64;
        self.truth += truth.len() as u64;
    }

    /// The part of the answered spans that is right; 0 where none was answered.
    pub fn precision(&self) -> f64 {
        ratio(self.right, self.answered)
    }

    /// The part of the true spans that was found; 0 where there is none.
    pub fn recall(&self) -> f64 {
        ratio(self.right, self.truth)
    }

    /// Their harmonic mean, over all types together ("micro").
    pub fn f1(&self) -> f64 {
        ratio(2 * self.right, self.answered + self.truth)
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use graft_plugin_api::serde_json;

    use super::*;

    fn spans(labels: &str) -> Vec<(usize, usize, String)> {
        let labels: Vec<&str> = labels.split(' ').collect();
        entities(&labels).into_iter().map(|e| (e.first, e.last, e.kind.to_owned())).collect()
    }

    /// Spans and scores that `get_entities`, `precision_score`, `recall_score` and `f1_score` of seqeval 1.2.2 give, in
    /// their default mode, for label sequences drawn at random; written by `tests/peers/make_spans.py`.
    const GOLDENS: &str = include_str!("../tests/seqeval.json");

    #[test]
    fn spans_and_scores_are_those_of_seqeval() {
        let goldens: serde_json::Value = serde_json::from_str(GOLDENS).unwrap();
        let list = |v: &serde_json::Value| -> Vec<Vec<String>> { serde_json::from_value(v.clone()).unwrap() };
        let cases = goldens["cases"].as_array().unwrap();
        assert!(cases.len() >= 20);
        for case in cases {
            let (truth, answered) = (list(&case["true"]), list(&case["pred"]));
            let mut counts = Counts::default();
            for (sentence, (t, p)) in truth.iter().zip(&answered).enumerate() {
                let (t, p): (Vec<&str>, Vec<&str>) =
                    (t.iter().map(String::as_str).collect(), p.iter().map(String::as_str).collect());
                let expected: Vec<(String, usize, usize)> =
                    serde_json::from_value(case["entities"][sentence].clone()).unwrap();
                let expected: Vec<_> = expected.into_iter().map(|(k, a, b)| (a, b, k)).collect();
                assert_eq!(spans(&t.join(" ")), expected, "{t:?}");
                counts.add(&p, &t);
            }
            for (name, value) in
                [("precision", counts.precision()), ("recall", counts.recall()), ("f1", counts.f1())]
            {
                let expected = case[name].as_f64().unwrap();
                assert!((value - expected).abs() < 1e-12, "{name}: {value}, seqeval {expected}");
            }
        }
    }

    #[test]
    fn three_schemes_say_the_same() {
        let two_people = [(0, 1, "per".to_owned()), (2, 2, "per".to_owned())];
        for scheme in ["I-per I-per B-per O", "B-per I-per B-per O", "B-per E-per S-per O"] {
            assert_eq!(spans(scheme), two_people, "{scheme}");
        }
    }

    #[test]
    fn a_type_may_have_a_dash() {
        assert_eq!(spans("B-creative-work I-creative-work"), [(0, 1, "creative-work".to_owned())]);
    }
}
