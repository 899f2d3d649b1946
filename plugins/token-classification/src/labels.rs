//! Labels: from the training data into the config.

use std::collections::BTreeSet;

use graft_plugin_api::*;

use crate::entities::parts;
use crate::{Format, TokenClassification};

/// The label of words outside of every span.
pub const OUTSIDE: &str = "O";

/// Refuses configs that cannot work.
pub fn check(c: &TokenClassification) -> Result<()> {
    if !(0.0..1.0).contains(&c.dropout) {
        return fail!(CONFIG, "option `dropout`: {} is not in [0, 1)", c.dropout);
    }
    let Some(labels) = &c.labels else { return Ok(()) };
    if labels.len() < 2 {
        return fail!(CONFIG, "option `labels`: there must be at least two");
    }
    if let Some((_, l)) = labels.iter().enumerate().find(|(i, l)| labels[..*i].contains(l)) {
        return fail!(CONFIG, "option `labels`: `{l}` is there twice");
    }
    one_scheme(labels).map_err(|l| {
        Error::new(Code::CONFIG, format!("option `labels`: `{l}` has no prefix, and others have one"))
            .help("write `O`, or B-, I-, E- or S- in front of the type, for each label; or no prefix at all")
    })
}

/// Whether labels form spans: one of them has a prefix.
pub fn spans(labels: &[String]) -> bool {
    labels.iter().any(|l| parts(l).0 != 'O')
}

/// Labels are `O` and labels with a prefix, or labels without; gives the one that is the exception.
fn one_scheme(labels: &[String]) -> Result<(), &String> {
    let odd = |l: &&String| l.as_str() != OUTSIDE && parts(l).0 == 'O';
    match labels.iter().find(odd) {
        Some(l) if spans(labels) => Err(l),
        _ => Ok(()),
    }
}

/// Fills in the labels from the training data.
pub fn prepare(c: TokenClassification, data: &Summary) -> Result<TokenClassification> {
    let field = if c.format == Format::Words { "tags" } else { "spans" };
    let counts = data.counts(field)?;
    let found: BTreeSet<String> = match c.format {
        Format::Words => counts.iter().map(|(l, _)| l.clone()).collect(),
        Format::Spans => counts.iter().map(|(kind, _)| format!("B-{kind}")).collect(),
    };
    let labels = match c.labels.clone() {
        Some(labels) => labels,
        None => complete(&found),
    };
    if let Some(label) = found.iter().find(|l| !labels.contains(l)) {
        return Err(unknown(label, &labels));
    }
    if labels.len() < 2 {
        let what =
            format!("the training data has {} label(s) for its words; at least two are needed", labels.len());
        return Err(
            Error::new(Code::DATA, what).help(format!("check the column that `{field}` is mapped to"))
        );
    }
    let c = TokenClassification { labels: Some(labels), ..c };
    check(&c)?;
    Ok(c)
}

/// The labels with a prefix get those that their types lack, so that evaluation data which has a longer or shorter span
/// than all of the training data can be read: `O`, then B and I of each type, and E and S where these occur at all.
fn complete(found: &BTreeSet<String>) -> Vec<String> {
    let prefixes: BTreeSet<char> = found.iter().map(|l| parts(l).0).collect();
    if !prefixes.iter().any(|p| *p != 'O') {
        return found.iter().cloned().collect();
    }
    let used: &[char] =
        if prefixes.contains(&'E') || prefixes.contains(&'S') { &['B', 'I', 'E', 'S'] } else { &['B', 'I'] };
    let kinds: BTreeSet<&str> = found.iter().map(|l| parts(l)).filter(|p| p.0 != 'O').map(|p| p.1).collect();
    let odd = found.iter().filter(|l| l.as_str() != OUTSIDE && parts(l).0 == 'O').cloned();
    let pairs = kinds.iter().flat_map(|k| used.iter().map(move |p| format!("{p}-{k}")));
    std::iter::once(OUTSIDE.to_owned()).chain(pairs).chain(odd).collect()
}

/// The error for a label that was not trained.
pub fn unknown(label: &str, labels: &[String]) -> Error {
    let near = config::nearest(label, labels.iter().map(String::as_str), 1);
    let hint = near.first().map(|n| format!("did you mean `{n}`? ")).unwrap_or_default();
    Error::new(Code::DATA, format!("the label `{label}` is not among those that were trained"))
        .help(format!("{hint}The labels are {}", labels.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(field: &str, counts: &[&str]) -> Summary {
        let counts: Vec<_> = counts.iter().map(|l| ((*l).to_owned(), 1)).collect();
        Summary { rows: 1, labels: vec![(field.to_owned(), counts)], ..Summary::default() }
    }

    fn prepared(found: &[&str]) -> Result<Vec<String>> {
        let c = prepare(TokenClassification::default(), &summary("tags", found))?;
        Ok(c.labels.unwrap())
    }

    #[test]
    fn labels_of_a_type_are_complete_and_outside_comes_first() {
        assert_eq!(prepared(&["B-per", "I-loc", "O"]).unwrap(), ["O", "B-loc", "I-loc", "B-per", "I-per"]);
        assert_eq!(prepared(&["S-per", "O"]).unwrap(), ["O", "B-per", "I-per", "E-per", "S-per"]);
    }

    #[test]
    fn labels_without_prefixes_stay_what_they_are() {
        assert_eq!(prepared(&["VERB", "NOUN"]).unwrap(), ["NOUN", "VERB"]);
    }

    #[test]
    fn types_of_spans_become_labels_of_words() {
        let c = TokenClassification { format: Format::Spans, ..TokenClassification::default() };
        let c = prepare(c, &summary("spans", &["drug"])).unwrap();
        assert_eq!(c.labels.unwrap(), ["O", "B-drug", "I-drug"]);
    }

    #[test]
    fn a_label_that_breaks_the_scheme_is_named() {
        let e = prepared(&["B-per", "O", "person"]).unwrap_err();
        assert!(e.message.contains("`person`") && e.help.contains("prefix"), "{e}");
        assert!(prepared(&["O"]).is_err(), "one label is not enough");
    }

    #[test]
    fn a_label_that_was_not_given_is_named_with_the_nearest() {
        let labels = Some(vec!["O".to_owned(), "B-person".to_owned()]);
        let c = TokenClassification { labels, ..TokenClassification::default() };
        let e = prepare(c, &summary("tags", &["O", "B-persom"])).unwrap_err();
        assert!(e.message.contains("`B-persom`") && e.help.contains("did you mean `B-person`"), "{e}");
    }
}
