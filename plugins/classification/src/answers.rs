//! Metrics and answers from logits.

use graft_plugin_api::*;

use crate::{Classification, loss};

/// Logits `[rows, labels]`, checked against the labels that there are.
pub(crate) fn logits(tensors: &[Tensor], classes: usize) -> Result<Vec<f32>> {
    let t = tensor(tensors, "logits")?;
    if t.shape.len() != 2 || t.shape[1] != classes {
        return fail!(DATA, "logits of shape {:?} for {classes} labels", t.shape);
    }
    t.to_f32s()
}

/// The place of the largest number; the first one of several.
fn best(row: &[f32]) -> usize {
    row.iter().enumerate().fold(0, |b, (i, v)| if *v > row[b] { i } else { b })
}

/// Accuracy, macro-F1 and loss.
pub fn metrics(c: &Classification, tensors: &[Tensor]) -> Result<Vec<Metric>> {
    let classes = c.labels()?.len();
    let logits = logits(tensors, classes)?;
    let labels: Vec<usize> = tensor(tensors, "labels")?
        .to_i64s()?
        .into_iter()
        .map(|l| usize::try_from(l).unwrap_or(usize::MAX))
        .collect();
    let rows = logits.len() / classes;
    if labels.len() != rows || rows == 0 || labels.iter().any(|l| *l >= classes) {
        return fail!(DATA, "{} labels for {rows} rows of {classes} logits", labels.len());
    }
    let answers: Vec<usize> = logits.chunks_exact(classes).map(best).collect();
    let right = answers.iter().zip(&labels).filter(|(a, l)| a == l).count();
    Ok(vec![
        Metric::higher("accuracy", right as f64 / rows as f64),
        Metric::higher("macro_f1", macro_f1(&answers, &labels, classes)),
        Metric::lower("loss", loss::over(c, &logits, &labels, classes)),
    ])
}

/// Mean F1 over the labels that occur in the data or the answers, as scikit-learn's `f1_score(average="macro")`.
fn macro_f1(answers: &[usize], labels: &[usize], classes: usize) -> f64 {
    let (mut hits, mut said, mut were) = (vec![0u32; classes], vec![0u32; classes], vec![0u32; classes]);
    for (a, l) in answers.iter().zip(labels) {
        said[*a] += 1;
        were[*l] += 1;
        hits[*a] += u32::from(a == l);
    }
    let occurring: Vec<usize> = (0..classes).filter(|k| said[*k] + were[*k] > 0).collect();
    let f1 = |k: &usize| 2.0 * f64::from(hits[*k]) / f64::from(said[*k] + were[*k]);
    occurring.iter().map(f1).sum::<f64>() / occurring.len() as f64
}

/// `{label, score, probabilities}` for each row.
pub fn decode(labels: &[String], tensors: &[Tensor]) -> Result<Vec<Json>> {
    let logits = logits(tensors, labels.len())?;
    let answer = |row: &[f32]| {
        let probabilities: Vec<f64> = loss::log_softmax(row).into_iter().map(f64::exp).collect();
        let top = best(row);
        let all: serde_json::Map<String, Json> =
            labels.iter().zip(&probabilities).map(|(l, p)| (l.clone(), json!(p))).collect();
        json!({ "label": labels[top], "score": probabilities[top], "probabilities": all })
    };
    Ok(logits.chunks_exact(labels.len()).map(answer).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Weights;

    fn three() -> Classification {
        let labels = ["a", "b", "c"].map(str::to_owned).to_vec();
        Classification { labels: Some(labels), ..Classification::default() }
    }

    const LOGITS: [f32; 12] = [2.0, -1.0, 0.5, 0.1, 0.2, 0.3, -3.0, 4.0, 1.0, 0.0, 1.5, -0.5];
    const LABELS: [i64; 4] = [0, 2, 1, 0];

    fn value(c: &Classification, name: &str) -> f64 {
        let tensors = [Tensor::f32s("logits", &[4, 3], &LOGITS), Tensor::i64s("labels", &[4], &LABELS)];
        metrics(c, &tensors).unwrap().into_iter().find(|m| m.name == name).unwrap().value
    }

    #[test]
    fn losses_are_those_of_torch() {
        // torch.nn.functional.cross_entropy on the same numbers, in f64.
        assert!((value(&three(), "loss") - 0.774766367).abs() < 1e-6);
        let smooth = Classification { label_smoothing: 0.1, ..three() };
        assert!((value(&smooth, "loss") - 0.889766367).abs() < 1e-6);
        let weighted = Classification { class_weights: Weights::Given(vec![0.5, 2.0, 1.0]), ..three() };
        assert!((value(&weighted, "loss") - 0.531171893).abs() < 1e-6);
        let both = Classification { label_smoothing: 0.1, ..weighted };
        assert!((value(&both, "loss") - 0.666777446).abs() < 1e-6);
    }

    #[test]
    fn accuracy_and_macro_f1_are_those_of_scikit_learn() {
        assert_eq!(value(&three(), "accuracy"), 0.75);
        assert!((value(&three(), "macro_f1") - 7.0 / 9.0).abs() < 1e-12);
    }

    #[test]
    fn answers_are_labels_with_probabilities() {
        let t = [Tensor::f32s("logits", &[1, 3], &[1.0, 3.0, 1.0])];
        let a = &decode(three().labels().unwrap(), &t).unwrap()[0];
        assert_eq!(a["label"], "b");
        let sum: f64 = a["probabilities"].as_object().unwrap().values().filter_map(Json::as_f64).sum();
        assert!((sum - 1.0).abs() < 1e-12 && a["score"] == a["probabilities"]["b"]);
    }

    #[test]
    fn tensors_that_do_not_fit_are_refused() {
        let t = [Tensor::f32s("logits", &[2, 2], &[0.0; 4])];
        assert!(decode(three().labels().unwrap(), &t).is_err());
        assert!(metrics(&three(), &[Tensor::f32s("logits", &[1, 3], &[0.0; 3])]).is_err());
        let t = [Tensor::f32s("logits", &[1, 3], &[0.0; 3]), Tensor::i64s("labels", &[1], &[3])];
        assert!(metrics(&three(), &t).is_err());
    }
}
