//! Sessions on the real library.

mod common;

use common::*;
use graft_graph::Tensor;
use graft_runtime::{Session, SessionOptions};

#[test]
fn a_model_given_as_bytes_runs() {
    let Some(runtime) = runtime() else { return };
    let model = model(&[("x", &["n", "3"])], &[("y", &["n", "3"])], vec![node("Add", &["x", "x"], &["y"])]);
    let mut s = Session::new(runtime, &model.source(), &SessionOptions::default()).unwrap();
    let x = Tensor::new([2, 3], &[1f32, 2., 3., 4., 5., 6.]).unwrap();
    let out = s.run(&[("x", &x)], &["y"]).unwrap();
    assert_eq!(out.f32s("y").unwrap(), [2., 4., 6., 8., 10., 12.]);
    assert_eq!(out.shape("y").unwrap(), [2, 3]);
}
