//! The help-desk data set is what its README says.

#![expect(clippy::unwrap_used, reason = "this whole crate is a test")]

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

const INTENTS: [&str; 8] =
    ["billing", "bug", "cancel", "feature_request", "how_to", "login", "praise", "shipping"];
const URGENCIES: [&str; 3] = ["high", "low", "normal"];
const SENTIMENTS: [&str; 3] = ["negative", "neutral", "positive"];

type Row = (String, String, String, String);

fn rows(file: &str) -> Vec<Row> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/helpdesk").join(file);
    let mut reader = csv::Reader::from_path(&path).unwrap();
    assert_eq!(reader.headers().unwrap(), vec!["text", "intent", "urgency", "sentiment"]);
    let rows = reader.records().map(|r| r.unwrap());
    rows.map(|r| (r[0].to_owned(), r[1].to_owned(), r[2].to_owned(), r[3].to_owned())).collect()
}

fn all() -> Vec<Row> {
    [rows("train.csv"), rows("test.csv")].concat()
}

/// The words of a message in lower case, without punctuation and digits, so that "order 12" and "Order 34!" are alike.
fn words(text: &str) -> String {
    let letters = text.to_lowercase().replace(|c: char| !c.is_alphabetic(), " ");
    letters.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn every_label_is_a_defined_one() {
    for (text, intent, urgency, sentiment) in all() {
        assert!(INTENTS.contains(&intent.as_str()), "{intent}: {text}");
        assert!(URGENCIES.contains(&urgency.as_str()), "{urgency}: {text}");
        assert!(SENTIMENTS.contains(&sentiment.as_str()), "{sentiment}: {text}");
        assert_eq!(text.trim(), text);
    }
}

#[test]
fn no_two_messages_are_alike_within_or_across_the_files() {
    let mut seen = HashSet::new();
    for (text, ..) in all() {
        assert!(!words(&text).is_empty(), "no words: {text}");
        assert!(seen.insert(words(&text)), "twice: {text}");
    }
}

#[test]
fn messages_are_no_filled_in_templates() {
    // Five words at the start are a sentence's frame; a template would repeat them over and over.
    let mut starts: BTreeMap<String, usize> = BTreeMap::new();
    for (text, ..) in all() {
        let start = words(&text).split(' ').take(5).collect::<Vec<_>>().join(" ");
        *starts.entry(start).or_default() += 1;
    }
    let (start, times) = starts.iter().max_by_key(|(_, n)| **n).unwrap();
    assert!(*times <= 3, "{times} messages begin with \"{start}\"");
}

#[test]
fn there_are_enough_messages_of_every_label_in_both_files() {
    let (train, test) = (rows("train.csv"), rows("test.csv"));
    assert!(train.len() + test.len() >= 640);
    for (name, file, least) in [("train.csv", &train, 70), ("test.csv", &test, 12)] {
        let labels = file.iter().flat_map(|(_, i, u, s)| [i, u, s]);
        let counts = labels.fold(BTreeMap::<&str, usize>::new(), |mut counts, label| {
            *counts.entry(label).or_default() += 1;
            counts
        });
        assert_eq!(counts.len(), INTENTS.len() + URGENCIES.len() + SENTIMENTS.len());
        for (label, count) in counts {
            assert!(count >= least, "{name} has only {count} of {label}");
        }
    }
}

#[test]
fn the_readme_counts_them() {
    let readme =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/helpdesk/README.md"))
            .unwrap();
    let (train, test) = (rows("train.csv").len(), rows("test.csv").len());
    for words in [
        format!("{} short messages", train + test),
        format!("`train.csv` has {train}"),
        format!("`test.csv` {test}"),
    ] {
        assert!(readme.contains(&words), "the README does not say: {words}");
    }
}
