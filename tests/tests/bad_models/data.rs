//! Tensors whose data are not what they are said to be, inside the file and beside it.

use graft_graph::TensorError;
use graft_graph::onnx::proto::{Entry, ModelProto, TensorProto};
use graft_graph::onnx::{self, OnnxError};

use crate::{changed, invalid, refused};

fn weight(m: &mut ModelProto) -> &mut TensorProto {
    let graph = m.graph.as_mut().expect("it has a graph");
    graph.initializer.iter_mut().find(|t| t.dims == [4, 4]).expect("it has a weight")
}

fn tensor_error(change: impl FnOnce(&mut TensorProto)) -> TensorError {
    match refused(changed(|m| change(weight(m)))) {
        OnnxError::Tensor { source, name, .. } => {
            assert!(!name.is_empty());
            source
        }
        e => panic!("{e}"),
    }
}

#[test]
fn dimensions_must_be_sizes_that_can_be_computed_with() {
    let detail = invalid(|m| weight(m).dims = vec![-4, 4]);
    assert!(detail.contains("negative dimension"), "{detail}");
    let e = tensor_error(|t| t.dims = vec![i64::MAX, i64::MAX]);
    assert!(matches!(e, TensorError::Size { .. }), "{e}");
    let e = tensor_error(|t| t.dims = vec![i64::MAX / 2, 4]);
    assert!(matches!(e, TensorError::Size { .. }), "{e}");
}

#[test]
fn data_must_fill_the_shape() {
    let e = tensor_error(|t| t.raw_data = t.raw_data.slice(..63));
    assert!(matches!(e, TensorError::Length { expected: 64, found: 63, .. }), "{e}");
    // A terabyte of zeros that is not there: nothing is reserved for it.
    let e = tensor_error(|t| t.dims = vec![1 << 20, 1 << 18]);
    assert!(matches!(e, TensorError::Length { found: 64, .. }), "{e}");
    let e = tensor_error(|t| {
        t.raw_data.clear();
        t.float_data = vec![0.0; 15];
    });
    assert!(matches!(e, TensorError::Length { expected: 64, found: 60, .. }), "{e}");
    let e = tensor_error(|t| t.raw_data.clear());
    assert!(matches!(e, TensorError::Length { found: 0, .. }), "{e}");
}

#[test]
fn element_types_that_are_not_supported_are_refused() {
    for data_type in [-1, 0, 8, 14, 15, 17, 999] {
        let detail = invalid(|m| weight(m).data_type = data_type);
        assert!(detail.contains(&format!("element type {data_type}")), "{detail}");
    }
}

/// The model whose weight lies in a file beside it; that file has 100 bytes.
fn beside(entries: &[(&str, &str)], dims: &[i64]) -> OnnxError {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("bad.onnx");
    let bytes = changed(|m| {
        let t = weight(m);
        t.raw_data.clear();
        t.dims = dims.to_vec();
        t.data_location = 1;
        let entry = |(k, v): &(&str, &str)| Entry { key: k.to_string(), value: v.to_string() };
        t.external_data = entries.iter().map(entry).collect();
    });
    std::fs::write(&path, bytes).expect("room for a small file");
    std::fs::write(dir.path().join("data"), [0u8; 100]).expect("room for a small file");
    std::fs::create_dir(dir.path().join("folder")).expect("a folder");
    onnx::read(&path).expect_err("its data can't be had")
}

#[test]
fn external_data_must_lie_below_the_models_folder_in_a_file() {
    for location in ["absent", "../data", "/etc/hostname", "", "folder", "folder/../../data", "folder/absent"]
    {
        match beside(&[("location", location)], &[4, 4]) {
            OnnxError::External { location: named, name, .. } => {
                assert_eq!(named, location);
                assert!(!name.is_empty());
            }
            e => panic!("{location}: {e}"),
        }
    }
    let e = beside(&[], &[4, 4]);
    assert!(matches!(e, OnnxError::External { .. }), "{e}");
}

#[test]
fn external_data_must_be_as_long_as_the_tensor_says() {
    let max = u64::MAX.to_string();
    let wrong: [&[(&str, &str)]; 8] = [
        &[("offset", "37")],
        &[("offset", "37"), ("length", "64")],
        &[("offset", "101"), ("length", "64")],
        &[("offset", &max)],
        &[("offset", &max), ("length", &max)],
        &[("offset", "-1")],
        &[("offset", "ten")],
        &[("length", "1e3")],
    ];
    for entries in wrong {
        let all: Vec<_> = [("location", "data")].into_iter().chain(entries.iter().copied()).collect();
        let e = beside(&all, &[4, 4]);
        assert!(matches!(e, OnnxError::External { .. }), "{entries:?}: {e}");
    }
    let e = beside(&[("location", "data"), ("length", "60")], &[4, 4]);
    assert!(matches!(e, OnnxError::Tensor { source: TensorError::Length { .. }, .. }), "{e}");
    let e = beside(&[("location", "data")], &[i64::MAX, 4]);
    assert!(matches!(e, OnnxError::External { .. }), "{e}");
}

#[cfg(unix)]
#[test]
fn a_pipe_is_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pipe.onnx");
    let made = std::process::Command::new("mkfifo").arg(&path).status();
    assert!(made.is_ok_and(|s| s.success()), "mkfifo");
    let e = onnx::read(&path).unwrap_err();
    assert!(matches!(e, OnnxError::Io { .. }), "{e}");
}
