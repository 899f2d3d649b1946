//! Cases of activation functions.

use graft_graph::{Attr, DType};
use graft_tests::differences::Tolerance::{Approximate, Close};
use graft_tests::differences::{Arg, Case, Derived, Sizes};
use graft_tests::{Array, Draw, runtime};

use crate::{Row, case};

const RANGE: (f64, f64) = (-2.0, 2.0);
const WIDE: (f64, f64) = (-5.0, 5.0);

pub const CASES: &[Row] = &[
    ("LeakyRelu", Approximate, |op, d| with(op, d, RANGE, &[0.0], &[("alpha", &[0.2, -0.5])])),
    ("Elu", Approximate, |op, d| with(op, d, RANGE, &[0.0], &[("alpha", &[0.5, 2.0])])),
    ("Selu", Approximate, |op, d| with(op, d, RANGE, &[0.0], &[("alpha", &[1.5]), ("gamma", &[0.5, 1.25])])),
    ("Celu", Approximate, |op, d| with(op, d, RANGE, &[0.0], &[("alpha", &[0.5, 2.0])])),
    ("PRelu", Approximate, prelu),
    ("ThresholdedRelu", Approximate, thresholded),
    ("Softplus", Approximate, |op, d| with(op, d, WIDE, &[], &[])),
    ("Softsign", Approximate, |op, d| with(op, d, RANGE, &[0.0], &[])),
    ("HardSigmoid", Approximate, hard_sigmoid),
    ("HardSwish", Approximate, |op, d| with(op, d, WIDE, &[-3.0, 3.0], &[])),
    ("Mish", Approximate, |op, d| with(op, d, WIDE, &[], &[])),
    ("Swish", Close, |op, d| with(op, d, WIDE, &[], &[("alpha", &[0.5, -1.5])])),
];

/// One input, and attributes that are left out or one of the given numbers.
fn with(
    op: &'static str,
    d: &mut Draw<'_>,
    range: (f64, f64),
    kinks: &[f64],
    attrs: &[(&str, &[f32])],
) -> Case {
    let shape = d.shape(0..=3);
    let mut c = case(op, vec![Arg::Float(d.reals(&shape, range, kinks))], &[]);
    for (name, of) in attrs {
        if d.flag() {
            c.attrs.insert(name.to_string(), Attr::Float(d.pick(of)));
        }
    }
    c
}

/// The slope broadcasts to the input, never the other way.
fn prelu(op: &'static str, d: &mut Draw<'_>) -> Case {
    let shape = d.shape(0..=3);
    let slope = d.narrowed(&shape);
    case(op, vec![Arg::Float(d.reals(&shape, RANGE, &[0.0])), Arg::Float(d.reals(&slope, RANGE, &[]))], &[])
}

fn thresholded(op: &'static str, d: &mut Draw<'_>) -> Case {
    with(op, d, RANGE, &[1.0, -0.5], &[("alpha", &[-0.5])])
}

/// The ends of the slope are at −2.5 and 2.5, or at −1 and 3.
fn hard_sigmoid(op: &'static str, d: &mut Draw<'_>) -> Case {
    let mut c = with(op, d, WIDE, &[-2.5, 2.5, -1.0, 3.0], &[]);
    if d.flag() {
        c.attrs.insert("alpha".into(), Attr::Float(0.25));
        c.attrs.insert("beta".into(), Attr::Float(0.25));
    }
    c
}

/// The gradient at each of `points`, for cotangents of one.
fn at(op: &'static str, points: &[f64]) -> Option<Vec<f64>> {
    let runtime = runtime()?;
    let x = Array { shape: vec![points.len()], values: points.to_vec() };
    let (graph, floats, fed) = case(op, vec![Arg::Float(x)], &[]).graph(Sizes::Known, DType::F32);
    let mut derived = Derived::new(runtime, &graph, &floats, true).expect("a derivable graph");
    derived.gradients(&fed, &mut || 1.0).expect("it runs").0.pop()
}

#[test]
fn where_a_slope_jumps_it_is_that_of_pytorch() {
    let Some(leaky) = at("LeakyRelu", &[0.0]) else { return };
    let near = |op: &'static str, points: &[f64], want: &[f64]| {
        let got = at(op, points).expect("there is a runtime");
        let close = got.iter().zip(want).all(|(g, w)| (g - w).abs() < 1e-6);
        assert!(close && got.len() == want.len(), "{op}: {got:?}, PyTorch has {want:?}");
    };
    assert!((leaky[0] - 0.01).abs() < 1e-8, "{leaky:?}");
    near("Elu", &[0.0], &[1.0]);
    near("Selu", &[0.0], &[1.758_099_3]);
    near("Celu", &[0.0], &[1.0]);
    near("Softsign", &[0.0], &[1.0]);
    near("HardSigmoid", &[-2.5, 2.5], &[0.0, 0.0]);
    near("HardSwish", &[-3.0, 3.0], &[0.0, 1.0]);
    near("ThresholdedRelu", &[1.0], &[0.0]);
}

#[test]
fn far_from_zero_no_slope_is_lost_to_overflow() {
    let Some(elu) = at("Elu", &[-200.0, 200.0]) else { return };
    assert_eq!(elu, [0.0, 1.0]);
    for op in ["Celu", "Softplus", "Mish"] {
        assert_eq!(at(op, &[-200.0, 200.0]).unwrap(), [0.0, 1.0], "{op}");
    }
    let selu = at("Selu", &[-200.0, 200.0]).unwrap();
    assert!(selu[0] == 0.0 && (selu[1] - 1.050_701).abs() < 1e-6, "{selu:?}");
}
