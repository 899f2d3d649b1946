//! Graft's kernels against their decompositions, run by ONNX Runtime's own operators.

mod bank;
#[path = "../common/mod.rs"]
mod common;
mod models;

use common::*;
use graft_graph::Tensor;
use graft_runtime::{Optimization, Runtime, Session, SessionOptions, profile};
use models::*;

fn session(runtime: &'static Runtime, m: &Model, kernels: bool, threads: usize) -> Session {
    let options = SessionOptions {
        kernels,
        threads: Some(threads),
        optimization: if kernels { Optimization::All } else { Optimization::Off },
        ..SessionOptions::default()
    };
    Session::new(runtime, &m.source(), &options).expect("the model loads")
}

fn run(s: &mut Session, inputs: &[(&str, &Tensor)]) -> Vec<Vec<f32>> {
    let names: Vec<String> = s.outputs().iter().map(|p| p.name.clone()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let out = s.run(inputs, &names).expect("the model runs");
    names.iter().map(|n| out.f32s(n).expect("floats").to_vec()).collect()
}

/// What is said of inputs that do not fit.
fn refused(s: &mut Session, inputs: &[(&str, &Tensor)]) -> String {
    let names: Vec<String> = s.outputs().iter().map(|p| p.name.clone()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    s.run(inputs, &names).expect_err("they do not fit").to_string()
}

/// The largest difference, relative to the largest value.
fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let size = b.iter().fold(1e-20f32, |m, v| m.max(v.abs()));
    a.iter().zip(b).fold(0f32, |m, (a, b)| m.max((a - b).abs())) / size
}

fn tensor(shape: [usize; 4], seed: u64, factor: f32) -> Tensor {
    let values: Vec<f32> = numbers(seed, shape.iter().product()).iter().map(|v| v * factor).collect();
    Tensor::new(shape, &values).expect("as many numbers as the shape asks for")
}

/// Kernel against decomposition, and one thread against two bit for bit, over shapes from one element up.
fn compare(m: &Model, inputs: impl Fn([usize; 4], u64) -> Vec<(&'static str, Tensor)>) {
    let Some(runtime) = runtime() else { return };
    let mut one = session(runtime, m, true, 1);
    let mut two = session(runtime, m, true, 2);
    let mut body = session(runtime, m, false, 2);
    let shapes = [
        [1, 1, 1, 1],
        [2, 3, 5, 7],
        [1, 1, 3, 33],
        [3, 2, 16, 64],
        [2, 4, 100, 31],
        [4, 8, 32, 384],
        [1, 0, 2, 3],
        [2, 300, 1, 130],
    ];
    for (seed, shape) in shapes.into_iter().enumerate() {
        let owned = inputs(shape, seed as u64 + 1);
        let inputs: Vec<(&str, &Tensor)> = owned.iter().map(|(n, t)| (*n, t)).collect();
        let (a, b, want) = (run(&mut one, &inputs), run(&mut two, &inputs), run(&mut body, &inputs));
        for ((a, b), want) in a.iter().zip(&b).zip(&want) {
            let bits = |v: &[f32]| v.iter().map(|f| f.to_bits()).collect::<Vec<u32>>();
            assert!(bits(a) == bits(b), "{shape:?}: one thread and two differ");
            let d = distance(a, want);
            assert!(d < 1e-5, "{shape:?}: relative error {d}");
        }
    }
}

#[test]
fn gelu_grad_equals_its_decomposition() {
    compare(&gelu_grad(), |s, seed| vec![("dy", tensor(s, seed, 1.0)), ("x", tensor(s, seed + 50, 6.0))]);
}

#[test]
fn softmax_grad_equals_its_decomposition_on_every_axis() {
    for axis in [-1, 3, 1, 0, -2] {
        compare(&softmax_grad(axis), |s, seed| {
            vec![("dy", tensor(s, seed, 1.0)), ("y", tensor(s, seed + 50, 1.0))]
        });
    }
}

#[test]
fn layer_norm_grad_equals_its_decomposition() {
    compare(&layer_norm_grad(), |s, seed| {
        // A row of one element has no deviation: its gradient is noise around zero, in both.
        let s = [s[0], s[1], s[2], s[3].max(2)];
        let scale = Tensor::new([s[3]], &numbers(seed + 90, s[3])).unwrap();
        vec![("dy", tensor(s, seed, 1.0)), ("x", tensor(s, seed + 50, 3.0)), ("scale", scale)]
    });
}

#[test]
fn layer_norm_grad_runs_without_its_optional_outputs() {
    let Some(runtime) = runtime() else { return };
    let call = node("LayerNormGrad", &["dy", "x", "scale"], &["dx"]).domain("graft").int("axis", 1);
    let m = model(
        &[("dy", &["a", "6"]), ("x", &["a", "6"]), ("scale", &["6"])],
        &[("dx", &["a", "6"])],
        vec![call],
    );
    let mut s = session(runtime, &m, true, 2);
    let t = |seed| Tensor::new([3, 6], &numbers(seed, 18)).unwrap();
    let scale = Tensor::vector(&[1f32; 6]);
    let got = run(&mut s, &[("dy", &t(1)), ("x", &t(2)), ("scale", &scale)]);
    for row in got[0].chunks(6) {
        assert!(row.iter().sum::<f32>().abs() < 1e-5, "a row of dx adds up to zero: {row:?}");
    }
}

#[test]
fn the_kernel_runs_where_registered_and_the_function_body_elsewhere() {
    let Some(runtime) = runtime() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut ran = Vec::new();
    for kernels in [true, false] {
        let path = folder.path().join(format!("{kernels}.json"));
        let options = SessionOptions {
            kernels,
            profile: Some(path.clone()),
            optimization: Optimization::Off,
            ..SessionOptions::default()
        };
        let mut s = Session::new(runtime, &gelu_grad().source(), &options).unwrap();
        run(&mut s, &[("dy", &tensor([2, 2, 2, 2], 1, 1.0)), ("x", &tensor([2, 2, 2, 2], 2, 1.0))]);
        assert_eq!(s.finish_profile().unwrap(), path);
        let table = profile::summary(&path).unwrap();
        ran.push(table.rows.into_iter().map(|r| r.op).collect::<Vec<_>>());
        assert!(s.finish_profile().is_err());
    }
    assert_eq!(ran[0], ["GeluGrad"]);
    assert!(ran[1].contains(&"Erf".to_owned()) && !ran[1].contains(&"GeluGrad".to_owned()), "{:?}", ran[1]);
}

#[test]
fn shapes_that_do_not_belong_together_are_an_error_of_the_kernel() {
    let Some(runtime) = runtime() else { return };
    let call = node("LayerNormGrad", &["dy", "x", "scale"], &["dx"]).domain("graft");
    let any = ["n", "m"];
    let m = model(&[("dy", &any), ("x", &["k", "l"]), ("scale", &["s"])], &[("dx", &["o", "p"])], vec![call]);
    let mut s = session(runtime, &m, true, 2);
    let (a, b) = (Tensor::new([2, 3], &[0f32; 6]).unwrap(), Tensor::new([3, 2], &[0f32; 6]).unwrap());
    let e = s.run(&[("dy", &a), ("x", &b), ("scale", &Tensor::vector(&[1f32; 3]))], &["dx"]).unwrap_err();
    let text = e.to_string();
    assert!(text.contains("dy is [2, 3], x is [3, 2]") && text.contains("node_LayerNormGrad_dx"), "{text}");
    let e = s.run(&[("dy", &a), ("x", &a), ("scale", &Tensor::vector(&[1f32; 2]))], &["dx"]).unwrap_err();
    assert!(e.to_string().contains("scale has 2 elements"), "{e}");
    let call = node("SoftmaxGrad", &["dy", "y"], &["dx"]).domain("graft").int("axis", 5);
    let m = model(&[("dy", &any), ("y", &any)], &[("dx", &any)], vec![call]);
    let mut s = session(runtime, &m, true, 2);
    let e = s.run(&[("dy", &a), ("y", &a)], &["dx"]).unwrap_err();
    assert!(e.to_string().contains("axis 5 does not exist in 2 dimensions"), "{e}");
}

#[test]
fn other_float_types_run_the_function_body() {
    let Some(runtime) = runtime() else { return };
    let mut m = softmax_grad(-1);
    const F64: i32 = 11;
    let g = m.graph.as_mut().unwrap();
    g.input = ["dy", "y"].iter().map(|n| typed(n, &["4"], F64)).collect();
    g.output = vec![typed("dx", &["4"], F64)];
    let mut s = Session::new(runtime, &m.source(), &SessionOptions::default()).unwrap();
    let (dy, y) = (Tensor::vector(&[1f64, 2.0, 3.0, 4.0]), Tensor::vector(&[0.25f64; 4]));
    let out = s.run(&[("dy", &dy), ("y", &y)], &["dx"]).unwrap().tensor("dx").unwrap();
    assert_eq!(*out.values::<f64>().unwrap(), [-0.375, -0.125, 0.125, 0.375]);
}
