//! Rows with any number of labels: their tensors, metrics and answers.

use graft_plugin_api::*;

use crate::thresholds::tuned;
use crate::{Classification, NamedWeights, Thresholds, Weights, answers, labels, loss};

/// Refuses settings that do not go with several labels.
pub fn check(c: &Classification) -> Result<()> {
    if !c.multi_label {
        return Ok(());
    }
    if c.separator.trim().is_empty() {
        return fail!(CONFIG, "option `separator`: it must be more than blanks");
    }
    if c.label_smoothing != 0.0 {
        return fail!(
            CONFIG,
            "option `label_smoothing`: it is for rows with one label, not for `multi_label`"
        );
    }
    if c.class_weights != Weights::Named(NamedWeights::None) {
        return fail!(
            CONFIG,
            "option `class_weights`: they are for rows with one label, not for `multi_label`"
        );
    }
    let given = match &c.thresholds {
        Thresholds::Named(_) => return Ok(()),
        Thresholds::One(t) => std::slice::from_ref(t),
        Thresholds::Each(all) => all,
    };
    if given.iter().any(|t| !(0.0..=1.0).contains(t)) {
        return fail!(CONFIG, "option `thresholds`: each must be a probability, from 0 to 1");
    }
    match (&c.thresholds, &c.labels) {
        (Thresholds::Each(t), Some(l)) if t.len() != l.len() => {
            fail!(CONFIG, "option `thresholds`: {} numbers for {} labels", t.len(), l.len())
        }
        _ => Ok(()),
    }
}

/// A threshold for each of so many labels; 0.5 where none was tuned yet.
fn thresholds(c: &Classification, count: usize) -> Vec<f64> {
    match &c.thresholds {
        Thresholds::Named(_) => vec![0.5; count],
        Thresholds::One(t) => vec![*t; count],
        Thresholds::Each(all) => all.clone(),
    }
}

/// `labels` `[batch, labels]` f32, 1 where a row has the label; nothing for rows without the field.
pub fn collate(c: &Classification, rows: &[Row]) -> Result<Vec<Tensor>> {
    let known = c.labels()?;
    let field = Field::new("label", FieldKind::LABEL, "").several(&c.separator);
    let cells: Vec<Option<String>> = rows.iter().map(|r| r.text("label")).collect();
    if cells.iter().all(Option::is_none) {
        return Ok(Vec::new());
    }
    let mut values = vec![0f32; rows.len() * known.len()];
    for (cell, row) in cells.iter().zip(values.chunks_exact_mut(known.len())) {
        let Some(cell) = cell else {
            return fail!(DATA, "some rows have labels and some have no such field");
        };
        for label in field.values(cell) {
            match known.iter().position(|k| k == label) {
                Some(i) => row[i] = 1.0,
                None => return Err(labels::unknown_label(label, known)),
            }
        }
    }
    Ok(vec![Tensor::f32s("labels", &[rows.len(), known.len()], &values)])
}

/// Logits and truth, both `[rows · labels]`, and the number of labels.
fn judged(c: &Classification, tensors: &[Tensor]) -> Result<(Vec<f32>, Vec<bool>, usize)> {
    let count = c.labels()?.len();
    let logits = answers::logits(tensors, count)?;
    let truth: Vec<bool> = tensor(tensors, "labels")?.to_f32s()?.into_iter().map(|t| t > 0.5).collect();
    if truth.len() != logits.len() || truth.is_empty() {
        return fail!(DATA, "{} labels for {} logits", truth.len(), logits.len());
    }
    Ok((logits, truth, count))
}

fn probability(logit: f32) -> f64 {
    1.0 / (1.0 + (-f64::from(logit)).exp())
}

/// Micro- and macro-F1 as scikit-learn's `f1_score` has them (a label that neither occurs nor is given has 0), the share of
/// rows with exactly the right labels, and the loss.
pub fn metrics(c: &Classification, tensors: &[Tensor]) -> Result<Vec<Metric>> {
    let (logits, truth, count) = judged(c, tensors)?;
    let thresholds = thresholds(c, count);
    let said: Vec<bool> =
        logits.iter().enumerate().map(|(i, x)| probability(*x) >= thresholds[i % count]).collect();
    let (mut hits, mut total) = (vec![0u64; count], vec![0u64; count]);
    for (i, (s, t)) in said.iter().zip(&truth).enumerate() {
        hits[i % count] += u64::from(*s && *t);
        total[i % count] += u64::from(*s) + u64::from(*t);
    }
    let f1 = |hits: u64, total: u64| if total == 0 { 0.0 } else { 2.0 * hits as f64 / total as f64 };
    let each = hits.iter().zip(&total).map(|(h, t)| f1(*h, *t)).sum::<f64>();
    let rows = said.chunks_exact(count).zip(truth.chunks_exact(count));
    let right = rows.clone().filter(|(s, t)| s == t).count();
    Ok(vec![
        Metric::higher("micro_f1", f1(hits.iter().sum(), total.iter().sum())),
        Metric::higher("macro_f1", each / count as f64),
        Metric::higher("exact_match", right as f64 / rows.len() as f64),
        Metric::lower("loss", loss::binary_over(&logits, &truth)),
    ])
}

/// Thresholds with the best F1 of each label.
pub fn calibrate(c: Classification, tensors: &[Tensor]) -> Result<Classification> {
    let (logits, truth, count) = judged(&c, tensors)?;
    let of = |k: usize| {
        let p: Vec<f64> = logits.iter().skip(k).step_by(count).map(|x| probability(*x)).collect();
        let t: Vec<bool> = truth.iter().skip(k).step_by(count).copied().collect();
        tuned(&p, &t)
    };
    Ok(Classification { thresholds: Thresholds::Each((0..count).map(of).collect()), ..c })
}

/// `{labels, probabilities}` for each row: the labels whose probability reaches their threshold.
pub fn decode(c: &Classification, tensors: &[Tensor]) -> Result<Vec<Json>> {
    let labels = c.labels()?;
    let logits = answers::logits(tensors, labels.len())?;
    let thresholds = thresholds(c, labels.len());
    let answer = |row: &[f32]| {
        let p: Vec<f64> = row.iter().map(|x| probability(*x)).collect();
        let given = labels.iter().zip(p.iter().zip(&thresholds)).filter(|(_, (p, t))| p >= t);
        let given: Vec<&String> = given.map(|(l, _)| l).collect();
        let all: serde_json::Map<String, Json> =
            labels.iter().zip(&p).map(|(l, p)| (l.clone(), json!(p))).collect();
        json!({ "labels": given, "probabilities": all })
    };
    Ok(logits.chunks_exact(labels.len()).map(answer).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Classification {
        let labels = ["a", "b", "c"].map(str::to_owned).to_vec();
        Classification { labels: Some(labels), multi_label: true, ..Classification::default() }
    }

    const LOGITS: [f32; 12] = [2.0, -1.0, 0.5, 0.1, 0.2, -0.3, -3.0, 4.0, 1.0, 0.0, -1.5, -0.5];
    const TRUTH: [f32; 12] = [1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0];

    fn tensors() -> [Tensor; 2] {
        [Tensor::f32s("logits", &[4, 3], &LOGITS), Tensor::f32s("labels", &[4, 3], &TRUTH)]
    }

    fn value(c: &Classification, name: &str) -> f64 {
        metrics(c, &tensors()).unwrap().into_iter().find(|m| m.name == name).unwrap().value
    }

    fn row(cell: &str) -> Row {
        Row { cells: vec![("label".to_owned(), Cell::Text(cell.to_owned()))] }
    }

    #[test]
    fn the_loss_is_that_of_torch() {
        // torch.nn.functional.binary_cross_entropy_with_logits on the same numbers, in f64.
        assert!((value(&three(), "loss") - 0.48831615553313085).abs() < 1e-7);
        assert!(loss::binary_over(&[1e4, -1e4], &[false, true]).is_finite());
    }

    #[test]
    fn f1_is_that_of_scikit_learn() {
        let at = |t: f64| Classification { thresholds: Thresholds::One(t), ..three() };
        for (c, micro, macro_f1, exact) in [
            (three(), (0.6153846153846154, 0.6333333333333333, 0.25)),
            (at(0.7), (0.6666666666666666, 0.7222222222222222, 0.5)),
        ]
        .map(|(c, (a, b, e))| (c, a, b, e))
        {
            let found = ["micro_f1", "macro_f1", "exact_match"].map(|n| value(&c, n));
            let wanted = [micro, macro_f1, exact];
            assert!(found.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-12), "{found:?} {wanted:?}");
        }
    }

    #[test]
    fn calibrated_thresholds_are_kept_and_used() {
        let c = calibrate(three(), &tensors()).unwrap();
        let Thresholds::Each(t) = &c.thresholds else { panic!("{:?}", c.thresholds) };
        assert_eq!(t.len(), 3);
        assert!(value(&c, "macro_f1") > value(&three(), "macro_f1"));
        assert!(!c.calibrates() && three().calibrates());
        // The third label has its lowest true logit at −0.5, and none below it.
        let answers = decode(&c, &tensors()).unwrap();
        assert!(answers[3]["labels"].as_array().unwrap().contains(&json!("c")), "{}", answers[3]);
        let text = serde_json::to_string(&c).unwrap();
        assert_eq!(serde_json::from_str::<Classification>(&text).unwrap(), c);
    }

    #[test]
    fn a_cell_holds_any_number_of_labels() {
        let t = collate(&three(), &[row("c; a"), row(""), row("b;;")]).unwrap();
        assert_eq!(t[0].to_f32s().unwrap(), [1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0]);
        let e = collate(&three(), &[row("a;d")]).unwrap_err();
        assert!(e.message.contains("`d`"), "{e}");
        assert!(collate(&three(), &[Row::default()]).unwrap().is_empty());
        assert!(collate(&three(), &[row("a"), Row::default()]).is_err());
    }

    #[test]
    fn answers_may_have_no_label() {
        let t = [Tensor::f32s("logits", &[1, 3], &[-1.0, -2.0, -3.0])];
        assert_eq!(decode(&three(), &t).unwrap()[0]["labels"], json!([]));
    }

    #[test]
    fn settings_for_one_label_are_refused() {
        let refused = |c: Classification| assert_eq!(labels::check(&c).unwrap_err().code, Code::CONFIG);
        refused(Classification { label_smoothing: 0.1, ..three() });
        refused(Classification { class_weights: Weights::Named(NamedWeights::Balanced), ..three() });
        refused(Classification { separator: " ".to_owned(), ..three() });
        refused(Classification { thresholds: Thresholds::One(1.5), ..three() });
        refused(Classification { thresholds: Thresholds::Each(vec![0.5]), ..three() });
        assert!(labels::check(&three()).is_ok());
    }
}
