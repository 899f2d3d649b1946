//! Optima against scikit-learn's, and what solving must hold to.

use super::*;

/// Largest difference of a coefficient from scikit-learn's in float64. The L2 strength of either is exact; scikit-learn
/// stopped at a gradient of 1e-12, this solver at 1e-8.
const SAME_OPTIMUM: f64 = 1e-6;

const LABELS: [usize; 40] = [
    1, 2, 0, 2, 0, 2, 1, 0, 1, 0, 1, 0, 2, 0, 0, 0, 2, 1, 2, 1, 0, 2, 0, 2, 0, 2, 0, 2, 2, 2, 0, 0, 1, 0, 2,
    1, 2, 0, 2, 1,
];

/// 40 rows of 3 features, the second and third on larger scales.
fn features() -> Vec<f32> {
    let number = |i: usize| ((i * 7919 + 104_729) % 1009) as f64 / 1009.0 - 0.5;
    (0..120).map(|i| (number(i) * (1 + i % 3) as f64) as f32).collect()
}

/// Targets and counts for these weights of the labels and this smoothing, as the cross-entropy of torch has them.
fn targets(weights: [f32; 3], smoothing: f32) -> (Vec<f32>, Vec<f32>) {
    let share = |l: usize, k: usize| f32::from(l == k) * (1.0 - smoothing) + smoothing / 3.0;
    let row = |l: &usize| (0..3).map(|k| weights[k] * share(*l, k)).collect::<Vec<f32>>();
    (LABELS.iter().flat_map(row).collect(), LABELS.iter().map(|l| weights[*l]).collect())
}

fn how(l2: Option<f64>) -> How {
    How { l2, folds: 5, seed: 7, threads: 2 }
}

fn optimum(data: &Data<'_>, how: &How) -> Optimum {
    solve(data, how, &mut |_| Ok(()), &Interrupt::new()).unwrap()
}

fn assert_same(found: &[f64], wanted: &[f64]) {
    for (a, b) in found.iter().zip(wanted) {
        assert!((a - b).abs() < SAME_OPTIMUM, "{found:?}\n{wanted:?}");
    }
}

#[test]
fn the_optimum_is_scikit_learns() {
    // sklearn.linear_model.LogisticRegression(C=2, tol=1e-12, max_iter=100000) of scikit-learn 1.9.1.
    let features = features();
    let (targets, counts) = targets([1.0; 3], 0.0);
    let data = Data { features: &features, targets: &targets, counts: &counts };
    let o = optimum(&data, &how(Some(1.0 / (2.0 * 40.0))));
    #[rustfmt::skip]
    let weight = [
        1.8442637084190001, 0.971756709789595, -0.14442751342354498,
        -0.5507624704035131, -0.1386326743355712, 1.213166764383933,
        -1.2935012380154864, -0.8331240354540242, -1.0687392509603875,
    ];
    assert_same(&o.weight, &weight);
    assert_same(&o.bias, &[0.28339276250978573, -0.4025683347860255, 0.11917557227624001]);
    assert!(o.converged && o.gradient < 1e-7, "{o:?}");
}

#[test]
fn class_weights_are_scikit_learns() {
    // The same with C=0.5, class_weight={0: 0.5, 1: 2.0, 2: 1.0}.
    let features = features();
    let (targets, counts) = targets([0.5, 2.0, 1.0], 0.0);
    let data = Data { features: &features, targets: &targets, counts: &counts };
    let total: f32 = counts.iter().sum();
    let o = optimum(&data, &how(Some(1.0 / (0.5 * f64::from(total)))));
    #[rustfmt::skip]
    let weight = [
        0.7493053043926641, 0.542770425167967, -0.056710548975070246,
        -0.3303782151396761, -0.002349312268478089, 1.015724294258402,
        -0.4189270892529879, -0.5404211128994889, -0.9590137452833318,
    ];
    assert_same(&o.weight, &weight);
    assert_same(&o.bias, &[-0.26677509505351105, 0.1713557525124519, 0.09541934254105826]);
}

#[test]
fn the_gradient_is_that_of_finite_differences_and_ends_at_zero() {
    let features = features();
    let (targets, counts) = targets([0.5, 2.0, 1.0], 0.1);
    let data = Data { features: &features, targets: &targets, counts: &counts };
    let order: Vec<usize> = (0..40).rev().collect();
    let rows = Rows::new(&features, &targets, &counts, &order);
    let (ranges, l2) = ([0..9, 15..40], 0.03);
    let mut head: Vec<f64> = (0..12).map(|i| ((i * 37) % 11) as f64 / 11.0 - 0.4).collect();
    let (mut gradient, mut unused) = (vec![0.0; 12], vec![0.0; 12]);
    rows.loss(&ranges, l2, &head, &mut gradient);
    for i in 0..12 {
        let at = head[i];
        let mut side = |d: f64| {
            head[i] = at + d;
            rows.loss(&ranges, l2, &head, &mut unused)
        };
        let slope = (side(1e-5) - side(-1e-5)) / 2e-5;
        head[i] = at;
        assert!((slope - gradient[i]).abs() < 1e-8, "{i}: {slope} {}", gradient[i]);
    }
    let o = optimum(&data, &how(Some(l2)));
    assert!(o.converged && o.gradient < 1e-7 && o.iterations > 0, "{o:?}");
    let single = |v: &[f64]| v.iter().map(|v| *v as f32).collect::<Vec<f32>>();
    assert!((data.loss(&single(&o.weight), &single(&o.bias)) - o.loss).abs() < 1e-6);
}

#[test]
fn cross_validation_does_not_depend_on_threads_and_chooses_the_least_loss() {
    let features = features();
    let (targets, counts) = targets([1.0; 3], 0.0);
    let data = Data { features: &features, targets: &targets, counts: &counts };
    let mut told = Vec::new();
    let one = solve(
        &data,
        &How { threads: 1, ..how(None) },
        &mut |p| {
            told.push(*p);
            Ok(())
        },
        &Interrupt::new(),
    )
    .unwrap();
    let two = optimum(&data, &how(None));
    assert_eq!((&one.weight, &one.grid), (&two.weight, &two.grid));
    assert_eq!((&told, one.folds), (&one.grid, 5));
    let least = one.grid.iter().min_by(|a, b| a.loss.total_cmp(&b.loss)).unwrap();
    assert_eq!(one.l2, least.l2);
    assert!((told[0].l2 - 1.0 / (1e-4 * 40.0)).abs() < 1e-9);
    let other = optimum(&data, &How { seed: 8, ..how(None) });
    assert_ne!(other.grid[2].loss, one.grid[2].loss, "another seed deals other folds");
}

#[test]
fn folds_hold_every_row_once_and_every_label_alike() {
    let (targets, _) = targets([1.0; 3], 0.0);
    let (mut order, folds) = cross::deal(&targets, 40, 3, 5, 0);
    for f in &folds {
        assert_eq!(f.len(), 8);
        let of = |k: usize| order[f.clone()].iter().filter(|r| LABELS[**r] == k).count();
        assert!(
            (3..=4).contains(&of(0)) && (1..=2).contains(&of(1)) && of(2) == 3,
            "{:?}",
            [of(0), of(1), of(2)]
        );
    }
    order.sort_unstable();
    assert_eq!(order, (0..40).collect::<Vec<_>>());
}

#[test]
fn what_has_no_optimum_is_refused_or_said() {
    let (targets, counts) = targets([1.0; 3], 0.0);
    let mut features = features();
    let fails = |features: &[f32], targets: &[f32], counts: &[f32], how: How| {
        solve(&Data { features, targets, counts }, &how, &mut |_| Ok(()), &Interrupt::new())
            .unwrap_err()
            .to_string()
    };
    assert!(fails(&features, &targets, &[0.0; 40], how(None)).contains("not all 0"));
    assert!(fails(&features[..7], &targets, &counts, how(None)).contains("7 features"));
    assert!(fails(&features[..3], &targets[..3], &counts[..1], how(None)).contains("two rows"));
    features[4] = f32::NAN;
    assert!(fails(&features, &targets, &counts, how(None)).contains("a feature of row 2 is NaN"));
    // Two rows that a line parts: without a penalty the weight grows without end.
    let data = Data { features: &[-1.0, 1.0], targets: &[1.0, 0.0, 0.0, 1.0], counts: &[1.0, 1.0] };
    let o = optimum(&data, &how(Some(0.0)));
    assert!(o.weight.iter().all(|w| w.is_finite()), "{o:?}");
}
