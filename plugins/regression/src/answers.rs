//! Metrics and answers from values in the data's units.

use graft_plugin_api::correlation::{pearson, spearman};
use graft_plugin_api::*;

use crate::{Loss, Regression};

/// Values `[rows, targets]`, checked against the targets that there are.
fn values(c: &Regression, tensors: &[Tensor]) -> Result<Vec<f64>> {
    let (t, targets) = (tensor(tensors, "values")?, c.targets.len());
    if t.shape.len() != 2 || t.shape[1] != targets {
        return fail!(DATA, "values of shape {:?} for {targets} targets", t.shape);
    }
    Ok(t.to_f32s()?.into_iter().map(f64::from).collect())
}

/// For one target RMSE, MAE, both correlations and the loss. For several the loss, the mean correlations, and all of it
/// for each as `rmse/NAME`.
pub fn metrics(c: &Regression, tensors: &[Tensor]) -> Result<Vec<Metric>> {
    let values = values(c, tensors)?;
    let scales = c.scales()?;
    let standard: Vec<f64> = tensor(tensors, "targets")?.to_f32s()?.into_iter().map(f64::from).collect();
    let rows = values.len() / scales.len();
    if standard.len() != values.len() || rows == 0 {
        return fail!(DATA, "{} targets for {rows} rows of {} values", standard.len(), scales.len());
    }
    let (mut each, mut loss) = (Vec::new(), 0.0);
    for (k, (mean, deviation)) in scales.iter().enumerate() {
        let column = |all: &[f64]| all.iter().skip(k).step_by(scales.len()).copied().collect::<Vec<f64>>();
        let (answers, standard) = (column(&values), column(&standard));
        let error = |(a, t): (&f64, &f64)| (a - mean) / deviation - t;
        loss += answers.iter().zip(&standard).map(|p| of_error(c, error(p))).sum::<f64>();
        let targets: Vec<f64> = standard.iter().map(|t| t * deviation + mean).collect();
        each.push(of_target(&answers, &targets));
    }
    let loss = Metric::lower("loss", loss / values.len() as f64);
    if let [only] = each.as_slice() {
        return Ok(only.iter().cloned().chain([loss]).collect());
    }
    let mean = |name: &str| {
        let found = each.iter().flatten().filter(|m| m.name == name).map(|m| m.value);
        Metric::higher(name, found.sum::<f64>() / each.len() as f64)
    };
    let mut all = vec![loss, mean("pearson"), mean("spearman")];
    for (metrics, name) in each.iter().zip(&c.targets) {
        all.extend(metrics.iter().map(|m| Metric { name: format!("{}/{name}", m.name), ..m.clone() }));
    }
    Ok(all)
}

fn of_target(answers: &[f64], targets: &[f64]) -> Vec<Metric> {
    let mean = |f: fn(f64) -> f64| {
        answers.iter().zip(targets).map(|(a, t)| f(a - t)).sum::<f64>() / answers.len() as f64
    };
    vec![
        Metric::lower("rmse", mean(|e| e * e).sqrt()),
        Metric::lower("mae", mean(f64::abs)),
        Metric::higher("pearson", pearson(answers, targets)),
        Metric::higher("spearman", spearman(answers, targets)),
    ]
}

/// The loss of one error, in standardised units.
fn of_error(c: &Regression, error: f64) -> f64 {
    let capped = error.abs().min(f64::from(c.huber_delta));
    match c.loss {
        Loss::Mse => error * error,
        Loss::Huber => capped * (error.abs() - capped / 2.0),
    }
}

/// `{value}` for one target, `{values: {NAME: number}}` for several.
pub fn decode(c: &Regression, tensors: &[Tensor]) -> Result<Vec<Json>> {
    let values = values(c, tensors)?;
    let answer = |row: &[f64]| match row {
        [value] => json!({ "value": value }),
        _ => {
            let all: serde_json::Map<String, Json> =
                c.targets.iter().zip(row).map(|(t, v)| (t.clone(), json!(v))).collect();
            json!({ "values": all })
        }
    };
    Ok(values.chunks_exact(c.targets.len()).map(answer).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUES: [f32; 5] = [2.5, -1.0, 4.0, 0.25, 9.0];
    const STANDARD: [f32; 5] = [0.5, -0.5, 1.0, -1.5, 0.75];

    fn one() -> Regression {
        Regression { mean: Some(vec![1.0]), deviation: Some(vec![2.0]), ..Regression::default() }
    }

    fn value(c: &Regression, name: &str) -> f64 {
        let tensors = [Tensor::f32s("values", &[5, 1], &VALUES), Tensor::f32s("targets", &[5, 1], &STANDARD)];
        metrics(c, &tensors).unwrap().into_iter().find(|m| m.name == name).unwrap().value
    }

    #[test]
    fn losses_are_those_of_torch() {
        // torch.nn.functional.mse_loss and huber_loss on (VALUES − 1) / 2 and STANDARD, in f64.
        assert!((value(&one(), "loss") - 2.478125).abs() < 1e-9);
        let huber = Regression { loss: Loss::Huber, huber_delta: 0.4, ..one() };
        assert!((value(&huber, "loss") - 0.37225).abs() < 1e-7);
    }

    #[test]
    fn metrics_are_those_of_scikit_learn_and_scipy() {
        // On VALUES and STANDARD · 2 + 1.
        for (name, expected) in [
            ("rmse", 3.148412298286233),
            ("mae", 2.25),
            ("pearson", 0.7042751625808004),
            ("spearman", 0.7999999999999999),
        ] {
            assert!((value(&one(), name) - expected).abs() < 1e-12, "{name}: {}", value(&one(), name));
        }
    }

    #[test]
    fn several_targets_have_metrics_of_their_own() {
        let c = Regression {
            targets: ["a", "b"].map(str::to_owned).to_vec(),
            mean: Some(vec![1.0, 0.0]),
            deviation: Some(vec![2.0, 1.0]),
            ..Regression::default()
        };
        let beside = |v: &[f32]| v.iter().flat_map(|x| [*x, -3.0 * x]).collect::<Vec<f32>>();
        let tensors = [
            Tensor::f32s("values", &[5, 2], &beside(&VALUES)),
            Tensor::f32s("targets", &[5, 2], &beside(&STANDARD)),
        ];
        let all = metrics(&c, &tensors).unwrap();
        assert_eq!(all[0].name, "loss");
        let of = |name: &str| all.iter().find(|m| m.name == name).unwrap().value;
        assert!((of("rmse/a") - value(&one(), "rmse")).abs() < 1e-12);
        assert!((of("spearman/b") - value(&one(), "spearman")).abs() < 1e-12);
        assert!((of("pearson") - (of("pearson/a") + of("pearson/b")) / 2.0).abs() < 1e-12);
        let answers = decode(&c, &tensors).unwrap();
        assert_eq!(answers[0], json!({ "values": { "a": 2.5, "b": -7.5 } }));
    }

    #[test]
    fn one_target_is_answered_with_its_value() {
        let t = [Tensor::f32s("values", &[2, 1], &[0.5, -2.0])];
        assert_eq!(decode(&one(), &t).unwrap(), [json!({ "value": 0.5 }), json!({ "value": -2.0 })]);
    }

    #[test]
    fn tensors_that_do_not_fit_are_refused() {
        assert!(decode(&one(), &[Tensor::f32s("values", &[2, 2], &[0.0; 4])]).is_err());
        let values = Tensor::f32s("values", &[2, 1], &[0.0; 2]);
        assert!(metrics(&one(), std::slice::from_ref(&values)).is_err());
        assert!(metrics(&one(), &[values, Tensor::f32s("targets", &[1, 1], &[0.0])]).is_err());
    }
}
