//! Pairs and their scores: from the training data into the config, from rows into tensors.

use graft_plugin_api::*;

use crate::{Embedding, Loss};

/// Refuses configs that cannot work.
pub fn check(c: &Embedding) -> Result<()> {
    if c.pooling == Pooling::Logits {
        return fail!(CONFIG, "option `pooling`: logits are no vector of a text; choose another pooling");
    }
    let single = c.temperature as f32;
    if !(single.is_finite() && single >= f32::MIN_POSITIVE) {
        return fail!(CONFIG, "option `temperature`: {} is not a number above 0", c.temperature);
    }
    if c.symmetric && c.loss == Loss::Cosine {
        return fail!(
            CONFIG,
            "option `symmetric`: it is for `loss = info_nce`; a cosine is symmetric already"
        );
    }
    for (name, score) in [("score_low", c.score_low), ("score_high", c.score_high)] {
        if score.is_some_and(|s| !s.is_finite()) {
            return fail!(CONFIG, "option `{name}`: it must be a finite number");
        }
    }
    match (c.score_low, c.score_high) {
        (Some(low), Some(high)) if low >= high => {
            fail!(CONFIG, "option `score_high`: {high} is not above `score_low`, which is {low}")
        }
        _ => Ok(()),
    }
}

/// Fills in the range of the scores and whether there are negatives.
pub fn prepare(mut c: Embedding, data: &Summary) -> Result<Embedding> {
    c.negatives = Some(data.has("negative"));
    if c.loss == Loss::Cosine {
        if c.negatives == Some(true) {
            return fail!(
                CONFIG,
                "option `loss`: `cosine` has no use for the field `negative`; leave it out"
            );
        }
        let known = data.numbers("score")?;
        let (low, high) = (c.score_low.unwrap_or(known.low), c.score_high.unwrap_or(known.high));
        if low >= high {
            let e =
                Error::new(Code::DATA, format!("the scores are all {low}, and say nothing of what is alike"));
            return Err(
                e.help("check the column that `score` is mapped to, or set `score_low` and `score_high`")
            );
        }
        (c.score_low, c.score_high) = (Some(low), Some(high));
    }
    check(&c)?;
    Ok(c)
}

/// `example` `[batch]` i64, which counts the examples, and `scores` `[batch]` f32 where the rows have them: brought to
/// 0 … 1 for the loss `cosine`, else as they are.
pub fn collate(c: &Embedding, rows: &[Row]) -> Result<Vec<Tensor>> {
    let numbers: Vec<i64> = (0..rows.len() as i64).collect();
    let mut tensors = vec![Tensor::i64s("example", &[rows.len()], &numbers)];
    let scores: Vec<Option<f64>> = rows.iter().map(|r| r.number("score")).collect();
    if scores.iter().all(Option::is_none) {
        return Ok(tensors);
    }
    let (low, high) = match (c.loss, c.score_low, c.score_high) {
        (Loss::Cosine, Some(low), Some(high)) => (low, high),
        _ => (0.0, 1.0),
    };
    let Some(scores) = scores.into_iter().collect::<Option<Vec<f64>>>() else {
        return fail!(DATA, "some rows have a score and some have none");
    };
    let scaled: Vec<f32> = scores.iter().map(|s| ((s - low) / (high - low)) as f32).collect();
    tensors.push(Tensor::f32s("scores", &[rows.len()], &scaled));
    Ok(tensors)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scored() -> Embedding {
        Embedding { loss: Loss::Cosine, ..Embedding::default() }
    }

    fn summary(scores: &[f64]) -> Summary {
        Summary {
            rows: scores.len() as u64,
            numbers: vec![("score".to_owned(), Numbers::of(scores))],
            fields: vec!["score".to_owned(), "text_pair".to_owned()],
            ..Summary::default()
        }
    }

    fn row(score: f64) -> Row {
        Row { cells: vec![("score".to_owned(), Cell::Number(score))] }
    }

    #[test]
    fn scores_are_brought_to_0_and_1() {
        let c = prepare(scored(), &summary(&[1.0, 5.0, 2.0])).unwrap();
        assert_eq!((c.score_low, c.score_high, c.negatives), (Some(1.0), Some(5.0), Some(false)));
        let t = collate(&c, &[row(1.0), row(3.0), row(5.0)]).unwrap();
        assert_eq!(t[0].to_i64s().unwrap(), [0, 1, 2]);
        assert_eq!(t[1].to_f32s().unwrap(), [0.0, 0.5, 1.0]);
        let given = prepare(Embedding { score_low: Some(0.0), ..scored() }, &summary(&[1.0, 5.0])).unwrap();
        assert_eq!((given.score_low, given.score_high), (Some(0.0), Some(5.0)));
    }

    #[test]
    fn scores_that_say_nothing_are_refused() {
        assert_eq!(prepare(scored(), &summary(&[2.0, 2.0])).unwrap_err().code, Code::DATA);
        assert_eq!(prepare(scored(), &Summary::default()).unwrap_err().code, Code::DATA);
        assert!(collate(&scored(), &[row(1.0), Row::default()]).is_err());
    }

    #[test]
    fn negatives_are_known_from_the_data() {
        let with = Summary { fields: vec!["negative".to_owned()], ..Summary::default() };
        assert_eq!(prepare(Embedding::default(), &with).unwrap().negatives, Some(true));
        assert_eq!(prepare(Embedding::default(), &Summary::default()).unwrap().negatives, Some(false));
        assert_eq!(prepare(scored(), &with).unwrap_err().code, Code::CONFIG);
    }

    #[test]
    fn configs_that_cannot_work_are_refused() {
        let refused = |c: Embedding| assert_eq!(check(&c).unwrap_err().code, Code::CONFIG);
        refused(Embedding { pooling: Pooling::Logits, ..Embedding::default() });
        refused(Embedding { temperature: 0.0, ..Embedding::default() });
        refused(Embedding { symmetric: true, ..scored() });
        refused(Embedding { score_low: Some(1.0), score_high: Some(1.0), ..scored() });
        refused(Embedding { score_low: Some(f64::NAN), ..scored() });
    }
}
