//! Base weights shared by sessions.

mod common;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use common::*;
use graft_graph::{DType, Tensor};
use graft_runtime::{Runtime, RuntimeError, Session, SessionOptions, SessionSource, SharedWeights};
use prost::Message;

const N: i64 = 64;

/// `y = x · w`, the bytes of `w` elsewhere.
fn product() -> Model {
    model(&[("x", &["n", "64"])], &[("y", &["n", "64"])], vec![node("MatMul", &["x", "w"], &["y"])])
        .with(external("w", &[N, N], "weights.bin"))
}

fn weights(runtime: &Runtime, tensors: &[(&str, Tensor)]) -> Arc<SharedWeights> {
    SharedWeights::new(runtime, tensors.iter().map(|(n, t)| (n.to_string(), t.clone()))).expect("floats")
}

fn source(weights: &Arc<SharedWeights>, dir: &Path) -> SessionSource {
    SessionSource {
        proto: product().encode_to_vec(),
        weights: Some(Arc::clone(weights)),
        external_dir: Some(dir.to_path_buf()),
    }
}

fn matrix() -> Tensor {
    Tensor::new([64, 64], &numbers(1, 64 * 64)).expect("64 × 64 numbers")
}

/// The product by hand.
fn expected(x: &[f32], w: &[f32]) -> Vec<f32> {
    let n = N as usize;
    let at = |row: usize, col: usize| (0..n).map(|k| x[row * n + k] * w[k * n + col]).sum();
    (0..x.len() / n).flat_map(|r| (0..n).map(move |c| (r, c))).map(|(r, c)| at(r, c)).collect()
}

fn run(session: &mut Session) -> Vec<f32> {
    let x = Tensor::new([2, 64], &numbers(2, 128)).expect("2 × 64 numbers");
    let out = session.run(&[("x", &x)], &["y"]).expect("the product runs");
    out.f32s("y").expect("floats").to_vec()
}

fn close(a: &[f32], b: &[f32]) {
    assert!(a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-4), "{a:?} {b:?}");
}

#[test]
fn weights_come_from_memory_although_the_file_is_empty() {
    let Some(runtime) = runtime() else { return };
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("weights.bin"), b"").unwrap();
    let unused = Tensor::vector(&[1f32; 8]);
    let w = weights(runtime, &[("w", matrix()), ("not in the graph", unused)]);
    assert_eq!(w.copied_bytes(), 0);
    let mut first = Session::new(runtime, &source(&w, dir.path()), &SessionOptions::default()).unwrap();
    let mut second = Session::new(runtime, &source(&w, dir.path()), &SessionOptions::default()).unwrap();
    drop(w);
    let want = expected(&numbers(2, 128), &numbers(1, 64 * 64));
    close(&run(&mut first), &want);
    drop(first);
    close(&run(&mut second), &want);
}

#[test]
fn misaligned_weights_are_copied() {
    let Some(runtime) = runtime() else { return };
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("weights.bin"), b"").unwrap();
    let mut bytes = vec![0u8; 4];
    let shift = 1 + (4 - bytes.as_ptr() as usize % 4) % 4;
    bytes.resize(shift, 0);
    bytes.extend_from_slice(matrix().bytes());
    let moved = Tensor::from_bytes(DType::F32, [64, 64], Bytes::from(bytes).slice(shift..)).unwrap();
    let w = weights(runtime, &[("w", moved)]);
    let mut s = Session::new(runtime, &source(&w, dir.path()), &SessionOptions::default()).unwrap();
    close(&run(&mut s), &expected(&numbers(2, 128), &numbers(1, 64 * 64)));
}

#[test]
fn a_weight_of_another_shape_or_type_is_refused() {
    let Some(runtime) = runtime() else { return };
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("weights.bin"), b"").unwrap();
    let short = Tensor::new([32, 64], &numbers(1, 32 * 64)).unwrap();
    let integers = Tensor::new([64, 64], &[0i32; 64 * 64]).unwrap();
    for (weight, shown) in [(short, "f32 [32, 64]"), (integers, "i32 [64, 64]")] {
        let w = weights(runtime, &[("w", weight)]);
        let e = Session::new(runtime, &source(&w, dir.path()), &SessionOptions::default()).unwrap_err();
        assert!(matches!(e, RuntimeError::WeightMismatch { .. }), "{e}");
        assert!(e.to_string().contains(&format!("`w` as f32 [64, 64], but it is {shown}")), "{e}");
    }
}

#[test]
fn a_missing_file_of_external_data_is_an_error() {
    let Some(runtime) = runtime() else { return };
    let dir = tempfile::tempdir().unwrap();
    let w = weights(runtime, &[("w", matrix())]);
    let e = Session::new(runtime, &source(&w, dir.path()), &SessionOptions::default()).unwrap_err();
    assert!(matches!(&e, RuntimeError::Ort { message, .. } if message.contains("weights.bin")), "{e}");
}

#[test]
fn strings_are_no_weights() {
    let Some(runtime) = runtime() else { return };
    let e = Tensor::from_bytes(DType::String, [1], Bytes::new());
    assert!(e.is_err(), "a tensor of strings can't be made, so none reaches the weights");
    let none = SharedWeights::new(runtime, []).unwrap();
    assert_eq!((none.names().count(), none.total_bytes()), (0, 0));
}
