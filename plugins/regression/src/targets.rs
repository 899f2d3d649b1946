//! Targets: what standardises them, from the training data into the config; from rows into a tensor.

use graft_plugin_api::*;

use crate::{Loss, Regression};

/// Names that are fields already.
const TAKEN: [&str; 3] = ["text", "text_pair", "image"];

impl Regression {
    /// Mean and deviation of each target, once `prepare` has filled them in.
    pub(crate) fn scales(&self) -> Result<Vec<(f64, f64)>> {
        match (&self.mean, &self.deviation) {
            (Some(m), Some(d)) => Ok(m.iter().copied().zip(d.iter().copied()).collect()),
            _ => fail!(
                CONFIG,
                "options `mean` and `deviation`: there are none yet; the training data gives them"
            ),
        }
    }
}

/// Refuses configs that cannot work.
pub fn check(c: &Regression) -> Result<()> {
    if !(0.0..1.0).contains(&c.dropout) {
        return fail!(CONFIG, "option `dropout`: {} is not in [0, 1)", c.dropout);
    }
    if c.pooling == Pooling::Logits && c.dropout > 0.0 {
        return fail!(
            CONFIG,
            "option `dropout`: with `pooling = logits` there is no head that it could work on"
        );
    }
    if c.loss == Loss::Huber && !(c.huber_delta.is_finite() && c.huber_delta > 0.0) {
        return fail!(CONFIG, "option `huber_delta`: {} is not a number above 0", c.huber_delta);
    }
    if c.targets.is_empty() {
        return fail!(CONFIG, "option `targets`: there must be at least one");
    }
    for (i, t) in c.targets.iter().enumerate() {
        if t.trim().is_empty() || TAKEN.contains(&t.as_str()) {
            return fail!(CONFIG, "option `targets`: a target cannot be called `{t}`");
        }
        if c.targets[..i].contains(t) {
            return fail!(CONFIG, "option `targets`: `{t}` is there twice");
        }
    }
    for (name, given) in [("mean", &c.mean), ("deviation", &c.deviation)] {
        let Some(values) = given else { continue };
        if values.len() != c.targets.len() {
            return fail!(
                CONFIG,
                "option `{name}`: {} numbers for {} targets",
                values.len(),
                c.targets.len()
            );
        }
        if values.iter().any(|v| !v.is_finite() || (name == "deviation" && *v <= 0.0)) {
            return fail!(CONFIG, "option `{name}`: each must be a finite number, and a deviation above 0");
        }
    }
    Ok(())
}

/// Fills in what standardises the targets. Numbers that are all alike keep their scale.
pub fn prepare(mut c: Regression, data: &Summary) -> Result<Regression> {
    let known: Vec<Numbers> = if c.standardise {
        c.targets.iter().map(|t| data.numbers(t)).collect::<Result<_>>()?
    } else {
        vec![Numbers { deviation: 1.0, ..Numbers::default() }; c.targets.len()]
    };
    let deviation = |n: &Numbers| if n.deviation > 0.0 { n.deviation } else { 1.0 };
    c.mean.get_or_insert_with(|| known.iter().map(|n| n.mean).collect());
    c.deviation.get_or_insert_with(|| known.iter().map(deviation).collect());
    check(&c)?;
    Ok(c)
}

/// `targets` `[batch, targets]` f32, standardised; nothing for rows without them.
pub fn collate(c: &Regression, rows: &[Row]) -> Result<Vec<Tensor>> {
    let scales = c.scales()?;
    if rows.iter().all(|r| c.targets.iter().all(|t| r.get(t).is_none())) {
        return Ok(Vec::new());
    }
    let mut values = Vec::with_capacity(rows.len() * scales.len());
    for row in rows {
        for (target, (mean, deviation)) in c.targets.iter().zip(&scales) {
            let Some(number) = row.number(target) else {
                return fail!(DATA, "some rows have the number `{target}` and some have none");
            };
            values.push(((number - mean) / deviation) as f32);
        }
    }
    Ok(vec![Tensor::f32s("targets", &[rows.len(), scales.len()], &values)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> Regression {
        Regression { targets: ["a", "b"].map(str::to_owned).to_vec(), ..Regression::default() }
    }

    fn summary() -> Summary {
        let known = |t: &str, n: &[f64]| (t.to_owned(), Numbers::of(n));
        Summary {
            rows: 2,
            numbers: vec![known("a", &[1.0, 3.0]), known("b", &[7.0, 7.0])],
            ..Summary::default()
        }
    }

    fn row(a: f64, b: f64) -> Row {
        Row { cells: vec![("a".to_owned(), Cell::Number(a)), ("b".to_owned(), Cell::Number(b))] }
    }

    #[test]
    fn the_training_data_standardise() {
        let c = prepare(two(), &summary()).unwrap();
        assert_eq!(c.scales().unwrap(), [(2.0, 1.0), (7.0, 1.0)], "a constant keeps its scale");
        let t = collate(&c, &[row(1.0, 7.0), row(4.0, 9.5)]).unwrap();
        assert_eq!(
            (t[0].shape.as_slice(), t[0].to_f32s().unwrap()),
            (&[2, 2][..], vec![-1.0, 0.0, 2.0, 2.5])
        );
        let plain = prepare(Regression { standardise: false, ..two() }, &summary()).unwrap();
        assert_eq!(plain.scales().unwrap(), [(0.0, 1.0), (0.0, 1.0)]);
    }

    #[test]
    fn scales_that_are_given_stay() {
        let given = Regression { mean: Some(vec![5.0, 5.0]), ..two() };
        assert_eq!(prepare(given, &summary()).unwrap().mean, Some(vec![5.0, 5.0]));
    }

    #[test]
    fn targets_are_there_or_not() {
        let c = prepare(two(), &summary()).unwrap();
        assert!(collate(&c, &[Row::default(), Row::default()]).unwrap().is_empty());
        assert_eq!(collate(&c, &[row(1.0, 2.0), Row::default()]).unwrap_err().code, Code::DATA);
        let text = Row { cells: vec![("a".to_owned(), Cell::Text("1".to_owned()))] };
        assert!(collate(&c, &[text]).is_err());
    }

    #[test]
    fn configs_that_cannot_work_are_refused() {
        let refused = |c: Regression| assert_eq!(check(&c).unwrap_err().code, Code::CONFIG);
        refused(Regression { targets: Vec::new(), ..two() });
        refused(Regression { targets: ["a", "a"].map(str::to_owned).to_vec(), ..two() });
        refused(Regression { targets: vec!["text".to_owned()], ..two() });
        refused(Regression { loss: Loss::Huber, huber_delta: 0.0, ..two() });
        refused(Regression { mean: Some(vec![1.0]), ..two() });
        refused(Regression { deviation: Some(vec![1.0, 0.0]), ..two() });
        refused(Regression { dropout: 1.0, ..two() });
        assert!(check(&two()).is_ok());
    }
}
