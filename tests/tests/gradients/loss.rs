//! Cases of losses.

use graft_graph::{Attr, DType, Tensor};
use graft_tests::differences::Tolerance::Close;
use graft_tests::differences::{Arg, Case, Derived, Sizes};
use graft_tests::{Array, Draw, runtime};

use crate::{Row, case};

pub const CASES: &[Row] =
    &[("NegativeLogLikelihoodLoss", Close, likelihood), ("SoftmaxCrossEntropyLoss", Close, cross_entropy)];

/// Scores `[N, C, d…]`, targets of either integer type, perhaps weights of the classes (fixed or with gradients) and
/// an index that is ignored, which may be a class or not.
fn loss(op: &'static str, d: &mut Draw<'_>) -> Case {
    let (rows, classes) = (d.size(1..=3), d.size(2..=3));
    let rest = d.shape(0..=2);
    let scores: Vec<usize> = [rows, classes].into_iter().chain(rest.iter().copied()).collect();
    let places: Vec<usize> = std::iter::once(rows).chain(rest).collect();
    let ignored = d.pick(&[None, Some(-100i64), Some(0)]);
    let count: usize = places.iter().product();
    let mut targets: Vec<i64> = (0..count).map(|_| d.below(classes) as i64).collect();
    if let (Some(-100), true) = (ignored, count > 1) {
        targets[count / 2] = -100;
    }
    // Of nothing there is no mean.
    targets[0] = 1;
    let targets = match d.flag() {
        true => Tensor::new(places, &targets.iter().map(|t| *t as i32).collect::<Vec<_>>()),
        false => Tensor::new(places, &targets),
    };
    let targets = targets.expect("as many as the shape asks for");
    let targets = if d.flag() { Arg::Constant(targets) } else { Arg::Held(targets) };
    let mut args = vec![Arg::Float(d.reals(&scores, (-2.0, 2.0), &[])), targets];
    let weights = d.reals(&[classes], (0.5, 1.5), &[]);
    match d.below(3) {
        1 => args.push(Arg::Fixed(weights)),
        2 => args.push(Arg::Float(weights)),
        _ => {}
    }
    let mut c = case(op, args, &[]);
    if let Some(index) = ignored {
        c.attrs.insert("ignore_index".into(), Attr::Int(index));
    }
    if let Some(reduction) = d.pick(&[None, Some("mean"), Some("sum"), Some("none")]) {
        c.attrs.insert("reduction".into(), Attr::from(reduction));
    }
    c
}

fn likelihood(op: &'static str, d: &mut Draw<'_>) -> Case {
    loss(op, d)
}

/// With the log-probabilities as a second output or without.
fn cross_entropy(op: &'static str, d: &mut Draw<'_>) -> Case {
    let mut c = loss(op, d);
    c.outputs = d.size(1..=2);
    c
}

/// PyTorch's mean over no target at all is no number, but its gradient is zero.
#[test]
fn where_every_target_is_ignored_the_gradient_is_zero() {
    let Some(runtime) = runtime() else { return };
    let scores = Arg::Float(Array { shape: vec![2, 3], values: vec![0.5; 6] });
    let targets = Arg::Held(Tensor::vector(&[-100i64, -100]));
    for op in ["NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"] {
        let c = case(op, vec![scores.clone(), targets.clone()], &[("ignore_index", Attr::Int(-100))]);
        let (graph, floats, fed) = c.graph(Sizes::Known, DType::F64);
        let mut derived = Derived::new(runtime, &graph, &floats, true).unwrap();
        assert_eq!(derived.gradients(&fed, &mut || 1.0).unwrap().0, [[0.0; 6]], "{op}");
    }
}
