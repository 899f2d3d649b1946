//! Points where a derivative jumps: the rules decide as PyTorch does.

use graft_graph::Attrs;
use graft_tests::differences::{Arg, Case, Derived, Sizes};
use graft_tests::{Array, runtime};

use graft_graph::DType;

/// Gradients of each input at a point, for cotangents of one.
fn at(op: &'static str, inputs: &[&[f64]]) -> Option<Vec<Vec<f64>>> {
    let runtime = runtime()?;
    let array = |v: &&[f64]| Arg::Float(Array { shape: vec![v.len()], values: v.to_vec() });
    let args = inputs.iter().map(array).collect();
    let case = Case { op, attrs: Attrs::new(), args, outputs: 1, needs_sizes: false };
    let (graph, floats, fed) = case.graph(Sizes::Known, DType::F64);
    let mut derived = Derived::new(runtime, &graph, &floats, true).expect("a derivable graph");
    Some(derived.gradients(&fed, &mut || 1.0).expect("it runs").0)
}

#[test]
fn relu_and_abs_have_no_slope_at_zero() {
    let Some(relu) = at("Relu", &[&[-1.0, 0.0, 1.0]]) else { return };
    assert_eq!(relu, [[0.0, 0.0, 1.0]]);
    assert_eq!(at("Abs", &[&[-1.0, 0.0, 1.0]]).unwrap(), [[-1.0, 0.0, 1.0]]);
}

#[test]
fn those_that_tie_for_an_extremum_share_the_gradient() {
    let Some(max) = at("Max", &[&[1.0, 2.0], &[1.0, 0.0]]) else { return };
    assert_eq!(max, [[0.5, 1.0], [0.5, 0.0]]);
    let third = 1.0 / 3.0;
    assert_eq!(at("Min", &[&[1.0], &[1.0], &[1.0]]).unwrap(), [[third], [third], [third]]);
}

#[test]
fn on_its_bounds_a_clipped_value_has_a_slope_and_the_bounds_have_none() {
    let runtime = runtime();
    let Some(runtime) = runtime else { return };
    let scalar = |v: f64| Arg::Float(Array { shape: vec![], values: vec![v] });
    let x = Arg::Float(Array { shape: vec![3], values: vec![-1.0, 0.0, 1.0] });
    let args = vec![x, scalar(-1.0), scalar(1.0)];
    let case = Case { op: "Clip", attrs: Attrs::new(), args, outputs: 1, needs_sizes: false };
    let (graph, floats, fed) = case.graph(Sizes::Own, DType::F64);
    let mut derived = Derived::new(runtime, &graph, &floats, true).unwrap();
    let grads = derived.gradients(&fed, &mut || 1.0).unwrap().0;
    assert_eq!(grads, [vec![1.0; 3], vec![0.0], vec![0.0]]);
}

#[test]
fn powers_of_zero() {
    // x^0 is 1 also for x = 0, so it has no slope; 0^p is 0 for p ≥ 0, and falls without bound for p < 0.
    let Some(pow) = at("Pow", &[&[0.0, 0.0, 0.0, 2.0], &[0.0, 1.0, 2.0, 0.0]]) else { return };
    assert_eq!(pow[0], [0.0, 1.0, 0.0, 0.0]);
    assert_eq!(pow[1], [0.0, 0.0, 0.0, 2f64.ln()]);
    assert_eq!(at("Pow", &[&[0.0], &[-1.0]]).unwrap(), [[f64::NEG_INFINITY]; 2]);
}

#[test]
fn a_root_of_zero_is_infinitely_steep() {
    let Some(sqrt) = at("Sqrt", &[&[0.0, 4.0]]) else { return };
    assert_eq!(sqrt, [[f64::INFINITY, 0.25]]);
}
