//! Metrics and answers from vectors of length 1.

use graft_plugin_api::correlation::{pearson, spearman};
use graft_plugin_api::*;

use crate::{Embedding, Loss};

/// Pairs among which each text's own is looked for.
const CANDIDATES: usize = 1000;

/// Vectors `[rows, width]` and their width.
fn vectors(tensors: &[Tensor]) -> Result<(Vec<f32>, usize)> {
    let t = tensor(tensors, "vectors")?;
    match *t.shape.as_slice() {
        [_, width] if width > 0 => Ok((t.to_f32s()?, width)),
        _ => fail!(DATA, "vectors of shape {:?}; [rows, width] is what is read", t.shape),
    }
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
}

/// For pairs with scores the correlations of cosine and score, and the loss where that is one of scores. For pairs without:
/// how often a text's own pair is the nearest of (up to) 1000 pairs, and the mean of 1 / its rank.
pub fn metrics(c: &Embedding, tensors: &[Tensor]) -> Result<Vec<Metric>> {
    let (all, width) = vectors(tensors)?;
    let rows = tensor(tensors, "example")?.shape.first().copied().unwrap_or(0);
    if rows == 0 || all.len() < 2 * rows * width {
        return fail!(DATA, "{} vectors for {rows} pairs", all.len() / width);
    }
    let (first, rest) = all.split_at(rows * width);
    let (first, pairs): (Vec<&[f32]>, Vec<&[f32]>) =
        (first.chunks_exact(width).collect(), rest.chunks_exact(width).take(rows).collect());
    if !tensors.iter().any(|t| t.name == "scores") {
        return Ok(nearest(&first, &pairs));
    }
    let scores: Vec<f64> = tensor(tensors, "scores")?.to_f32s()?.into_iter().map(f64::from).collect();
    if scores.len() != rows {
        return fail!(DATA, "{} scores for {rows} pairs", scores.len());
    }
    let cosines: Vec<f64> = first.iter().zip(&pairs).map(|(a, b)| dot(a, b)).collect();
    let mut metrics = vec![
        Metric::higher("spearman", spearman(&cosines, &scores)),
        Metric::higher("pearson", pearson(&cosines, &scores)),
    ];
    if c.loss == Loss::Cosine {
        let squares = cosines.iter().zip(&scores).map(|(x, s)| (x - s) * (x - s));
        metrics.push(Metric::lower("loss", squares.sum::<f64>() / rows as f64));
    }
    Ok(metrics)
}

/// Every text looks among the pairs of its own block of rows. One as near as its own counts as nearer, so that vectors that
/// are all alike find nothing.
fn nearest(first: &[&[f32]], pairs: &[&[f32]]) -> Vec<Metric> {
    let (mut found, mut reciprocal) = (0u64, 0.0);
    for (texts, candidates) in first.chunks(CANDIDATES).zip(pairs.chunks(CANDIDATES)) {
        for (i, text) in texts.iter().enumerate() {
            let own = dot(text, candidates[i]);
            let nearer =
                candidates.iter().enumerate().filter(|(j, p)| *j != i && dot(text, p) >= own).count();
            found += u64::from(nearer == 0);
            reciprocal += 1.0 / (1 + nearer) as f64;
        }
    }
    let rows = first.len() as f64;
    vec![Metric::higher("mrr", reciprocal / rows), Metric::higher("accuracy", found as f64 / rows)]
}

/// `{vector}` for each row.
pub fn decode(tensors: &[Tensor]) -> Result<Vec<Json>> {
    let (all, width) = vectors(tensors)?;
    Ok(all.chunks_exact(width).map(|v| json!({ "vector": v })).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three pairs of vectors of length 1: cosines 0.8, 0 and 1.
    const VECTORS: [f32; 12] = [1.0, 0.0, 0.0, 1.0, 0.6, 0.8, 0.8, 0.6, 1.0, 0.0, 0.6, 0.8];

    fn tensors(scores: Option<&[f32]>) -> Vec<Tensor> {
        let mut all =
            vec![Tensor::f32s("vectors", &[6, 2], &VECTORS), Tensor::i64s("example", &[3], &[0, 1, 2])];
        all.extend(scores.map(|s| Tensor::f32s("scores", &[3], s)));
        all
    }

    fn of(metrics: &[Metric], name: &str) -> f64 {
        metrics.iter().find(|m| m.name == name).unwrap().value
    }

    #[test]
    fn scored_pairs_have_correlations() {
        let c = Embedding { loss: Loss::Cosine, ..Embedding::default() };
        let m = metrics(&c, &tensors(Some(&[0.5, 0.1, 0.7]))).unwrap();
        assert!(m[0].name == "spearman" && (m[0].value - 1.0).abs() < 1e-12, "{m:?}");
        assert!((of(&m, "pearson") - pearson(&[0.8, 0.0, 1.0], &[0.5, 0.1, 0.7])).abs() < 1e-6);
        assert!((of(&m, "loss") - (0.09 + 0.01 + 0.09) / 3.0).abs() < 1e-6);
    }

    #[test]
    fn pairs_without_scores_look_for_their_own() {
        // Cosines with the pairs: the first text 0.8 1 0.6, the second 0.6 0 0.8, the third 0.96 0.6 1.
        let m = metrics(&Embedding::default(), &tensors(None)).unwrap();
        assert!((of(&m, "accuracy") - 1.0 / 3.0).abs() < 1e-12);
        assert!((of(&m, "mrr") - (1.0 / 2.0 + 1.0 / 3.0 + 1.0) / 3.0).abs() < 1e-12);
    }

    #[test]
    fn vectors_that_are_all_alike_find_nothing() {
        let alike = [Tensor::f32s("vectors", &[6, 1], &[1.0; 6]), Tensor::i64s("example", &[3], &[0, 1, 2])];
        assert_eq!(of(&metrics(&Embedding::default(), &alike).unwrap(), "accuracy"), 0.0);
    }

    #[test]
    fn an_answer_is_the_vector() {
        let t = [Tensor::f32s("vectors", &[1, 2], &[0.5, -0.25])];
        assert_eq!(decode(&t).unwrap(), [json!({ "vector": [0.5, -0.25] })]);
    }

    #[test]
    fn tensors_that_do_not_fit_are_refused() {
        let short = [Tensor::f32s("vectors", &[3, 2], &[0.0; 6]), Tensor::i64s("example", &[3], &[0, 1, 2])];
        assert!(metrics(&Embedding::default(), &short).is_err());
        assert!(metrics(&Embedding::default(), &tensors(Some(&[0.5, 0.1]))).is_err());
        assert!(decode(&[Tensor::f32s("vectors", &[2], &[0.0; 2])]).is_err());
    }
}
