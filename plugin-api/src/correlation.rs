//! Correlations, which several objectives have as metrics.

/// Pearson's correlation of two lists of equal length; NaN where either is constant or they have fewer than two items.
pub fn pearson(a: &[f64], b: &[f64]) -> f64 {
    let n = a.len().min(b.len());
    let mean = |x: &[f64]| x.iter().take(n).sum::<f64>() / n as f64;
    let (ma, mb) = (mean(a), mean(b));
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (x, y) in a.iter().zip(b) {
        ab += (x - ma) * (y - mb);
        aa += (x - ma) * (x - ma);
        bb += (y - mb) * (y - mb);
    }
    if aa == 0.0 || bb == 0.0 { f64::NAN } else { ab / (aa.sqrt() * bb.sqrt()) }
}

/// Spearman's rank correlation: Pearson's of the ranks, where equal numbers share the mean of theirs.
pub fn spearman(a: &[f64], b: &[f64]) -> f64 {
    pearson(&ranks(a), &ranks(b))
}

/// The rank of each number, from 1; equal ones share the mean of their ranks.
fn ranks(x: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..x.len()).collect();
    order.sort_by(|i, j| x[*i].total_cmp(&x[*j]));
    let mut ranks = vec![0.0; x.len()];
    let mut start = 0;
    while start < order.len() {
        let tied = order[start..].iter().take_while(|i| x[**i] == x[order[start]]).count().max(1);
        let shared = start as f64 + (tied as f64 + 1.0) / 2.0;
        order[start..start + tied].iter().for_each(|i| ranks[*i] = shared);
        start += tied;
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: [f64; 7] = [1.0, 2.0, 2.0, 3.5, -4.0, 0.5, 9.0];
    const B: [f64; 7] = [0.3, 0.1, 0.8, 0.8, 0.2, 0.8, 2.5];

    #[test]
    fn correlations_are_those_of_scipy() {
        // scipy.stats.pearsonr and spearmanr on the same numbers.
        assert!((pearson(&A, &B) - 0.8421452551761771).abs() < 1e-12);
        assert!((spearman(&A, &B) - 0.5609681940050744).abs() < 1e-12);
    }

    #[test]
    fn ties_share_the_mean_of_their_ranks() {
        assert_eq!(ranks(&[3.0, 1.0, 3.0, 2.0, 3.0]), [4.0, 1.0, 4.0, 2.0, 4.0]);
        assert_eq!(ranks(&[f64::NAN, 1.0]), [2.0, 1.0]);
    }

    #[test]
    fn a_constant_has_no_correlation() {
        assert!(pearson(&[1.0, 1.0], &[1.0, 2.0]).is_nan() && spearman(&[1.0, 1.0], &[1.0, 2.0]).is_nan());
        assert!(pearson(&[], &[]).is_nan() && pearson(&[1.0], &[2.0]).is_nan());
    }
}
