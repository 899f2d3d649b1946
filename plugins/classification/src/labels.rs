//! Labels: from the training data into the config, from rows into a tensor.

use graft_plugin_api::*;

use crate::{Classification, NamedWeights, Weights, several};

/// Refuses configs that cannot work.
pub fn check(c: &Classification) -> Result<()> {
    for (name, value) in [("dropout", c.dropout), ("label_smoothing", c.label_smoothing)] {
        if !(0.0..1.0).contains(&value) {
            return fail!(CONFIG, "option `{name}`: {value} is not in [0, 1)");
        }
    }
    if c.pooling == Pooling::Logits && c.dropout > 0.0 {
        return fail!(
            CONFIG,
            "option `dropout`: with `pooling = logits` there is no head that it could work on"
        );
    }
    several::check(c)?;
    let least = least(c);
    if let Some(labels) = &c.labels {
        if labels.len() < least {
            return fail!(CONFIG, "option `labels`: there must be at least {least}");
        }
        if let Some(l) = labels.iter().enumerate().find(|(i, l)| labels[..*i].contains(l)) {
            return fail!(CONFIG, "option `labels`: `{}` is there twice", l.1);
        }
        if let Some(w) = c.weights()
            && w.len() != labels.len()
        {
            return fail!(CONFIG, "option `class_weights`: {} numbers for {} labels", w.len(), labels.len());
        }
    }
    match c.weights() {
        Some(w) if w.iter().any(|v| !v.is_finite() || *v < 0.0) || w.iter().all(|v| *v == 0.0) => {
            fail!(CONFIG, "option `class_weights`: each must be a number from 0 up, and not all 0")
        }
        _ => Ok(()),
    }
}

/// The fewest labels that make sense: a row may have the only one or not, but not one out of one.
fn least(c: &Classification) -> usize {
    if c.multi_label { 1 } else { 2 }
}

/// Fills in labels and weights from the training data.
pub fn prepare(mut c: Classification, data: &Summary) -> Result<Classification> {
    let counts = data.counts("label")?;
    let labels = match c.labels.take() {
        Some(labels) => labels,
        None => sorted(counts.iter().map(|(l, _)| l.clone()).collect()),
    };
    if let Some((unknown, _)) = counts.iter().find(|(l, _)| !labels.contains(l)) {
        return Err(unknown_label(unknown, &labels));
    }
    let least = least(&c);
    if labels.len() < least {
        let what = format!("the training data has {} label(s); at least {least} are needed", labels.len());
        return Err(Error::new(Code::DATA, what).help("check the column that `label` is mapped to"));
    }
    if c.class_weights == Weights::Named(NamedWeights::Balanced) {
        c.class_weights = Weights::Given(balanced(&labels, counts));
    }
    let c = Classification { labels: Some(labels), ..c };
    check(&c)?;
    Ok(c)
}

/// By number if all of them are whole numbers, by text otherwise.
fn sorted(mut labels: Vec<String>) -> Vec<String> {
    if labels.iter().all(|l| l.parse::<i64>().is_ok()) {
        labels.sort_by_key(|l| l.parse::<i64>().unwrap_or_default());
    } else {
        labels.sort();
    }
    labels
}

/// `rows / (labels · count)`; 0 for a label that does not occur.
fn balanced(labels: &[String], counts: &[(String, u64)]) -> Vec<f32> {
    let rows: u64 = counts.iter().map(|(_, n)| n).sum();
    let count = |l: &String| counts.iter().find(|(c, _)| c == l).map_or(0, |(_, n)| *n);
    let weight = |n: u64| if n == 0 { 0.0 } else { rows as f64 / (labels.len() as f64 * n as f64) };
    labels.iter().map(|l| weight(count(l)) as f32).collect()
}

pub(crate) fn unknown_label(label: &str, labels: &[String]) -> Error {
    let near = config::nearest(label, labels.iter().map(String::as_str), 1);
    let hint = near.first().map(|n| format!("did you mean `{n}`? ")).unwrap_or_default();
    Error::new(Code::DATA, format!("the label `{label}` is not among those that were trained"))
        .help(format!("{hint}The labels are {}", labels.join(", ")))
}

/// `labels` `[batch]` i64; nothing for rows without labels.
pub fn collate(labels: &[String], rows: &[Row]) -> Result<Vec<Tensor>> {
    let given: Vec<Option<String>> = rows.iter().map(|r| r.text("label")).collect();
    if given.iter().all(Option::is_none) {
        return Ok(Vec::new());
    }
    let index = |l: &Option<String>| match l {
        Some(l) => match labels.iter().position(|k| k == l) {
            Some(i) => Ok(i as i64),
            None => Err(unknown_label(l, labels)),
        },
        None => fail!(DATA, "some rows have a label and some have none"),
    };
    let numbers = given.iter().map(index).collect::<Result<Vec<i64>>>()?;
    Ok(vec![Tensor::i64s("labels", &[numbers.len()], &numbers)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(counts: &[(&str, u64)]) -> Summary {
        let counts: Vec<_> = counts.iter().map(|(l, n)| ((*l).to_owned(), *n)).collect();
        Summary {
            rows: counts.iter().map(|(_, n)| n).sum(),
            labels: vec![("label".to_owned(), counts)],
            ..Summary::default()
        }
    }

    fn row(label: Option<&str>) -> Row {
        let cells = label.map(|l| ("label".to_owned(), Cell::Text(l.to_owned())));
        Row { cells: cells.into_iter().collect() }
    }

    #[test]
    fn labels_are_sorted_as_text_or_as_numbers() {
        let c = prepare(Classification::default(), &summary(&[("b", 1), ("a", 3)])).unwrap();
        assert_eq!(c.labels().unwrap(), ["a", "b"]);
        let c = prepare(Classification::default(), &summary(&[("10", 1), ("2", 3)])).unwrap();
        assert_eq!(c.labels().unwrap(), ["2", "10"]);
    }

    #[test]
    fn balanced_weights_are_inverse_to_the_counts() {
        let c = Classification {
            class_weights: Weights::Named(NamedWeights::Balanced),
            ..Classification::default()
        };
        let c = prepare(c, &summary(&[("a", 3), ("b", 1)])).unwrap();
        assert_eq!(c.weights().unwrap(), [4.0 / 6.0, 2.0]);
    }

    #[test]
    fn one_label_is_not_enough() {
        let e = prepare(Classification::default(), &summary(&[("a", 3)])).unwrap_err();
        assert_eq!(e.code, Code::DATA);
    }

    #[test]
    fn an_unknown_label_is_named_with_the_nearest() {
        let labels = ["billing".to_owned(), "outage".to_owned()];
        let e = collate(&labels, &[row(Some("biling"))]).unwrap_err();
        assert!(e.message.contains("`biling`") && e.help.contains("did you mean `billing`"), "{e}");
    }

    #[test]
    fn rows_are_labelled_all_or_none() {
        let labels = ["a".to_owned(), "b".to_owned()];
        let t = collate(&labels, &[row(Some("b")), row(Some("a"))]).unwrap();
        assert_eq!(t[0].to_i64s().unwrap(), [1, 0]);
        assert!(collate(&labels, &[row(None), row(None)]).unwrap().is_empty());
        assert!(collate(&labels, &[row(Some("a")), row(None)]).is_err());
    }

    #[test]
    fn configs_that_cannot_work_are_refused() {
        let text = |t: &str| config::parse::<Classification>(t).and_then(|c| check(&c));
        assert!(text(r#"{"label_smoothing": 1.0}"#).is_err());
        assert!(text(r#"{"labels": ["a", "a"]}"#).is_err());
        assert!(text(r#"{"labels": ["a", "b"], "class_weights": [1]}"#).is_err());
        assert!(text(r#"{"class_weights": [-1, 2]}"#).is_err());
        assert!(text(r#"{"labels": ["a", "b"], "class_weights": [1, 2], "pooling": "last"}"#).is_ok());
    }
}
