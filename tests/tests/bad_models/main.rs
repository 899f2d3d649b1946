//! Files that are no usable model: each is refused with an error of its own kind, and none panics, hangs or takes
//! memory that it does not have.

mod crafted;
mod data;
mod mutated;

use std::path::Path;

use bytes::Bytes;
use graft_graph::onnx::proto::ModelProto;
use graft_graph::onnx::{self, OnnxError};
use graft_graph::{Attr, Builder, DType, Dim, Graph, Tensor};
use prost::Message;

/// A small model that is read: x [n, 4] through two layers with a weight of each kind.
fn small() -> Graph {
    let mut g = Graph::new("small", 20);
    let x = g.add_input("x", DType::F32, vec![Dim::from("n"), Dim::from(4)]);
    let mut b = Builder::new(&mut g, "");
    b.set_metadata(vec![("pkg.torch.onnx.name_scopes".into(), "['', 'encoder', 'linear']".into())]);
    let weight = b.constant(Tensor::new([4, 4], &[0.5f32; 16]).expect("16 numbers"));
    let bias = b.constant(Tensor::vector(&[0.1f32, 0.2, 0.3, 0.4]));
    let y = b.op("MatMul", &[x, weight]);
    let y = b.op("Add", &[y, bias]);
    let y = b.op("Gelu", &[y]);
    let y = b.op_with("Softmax", &[y], &[("axis", Attr::Int(-1))]);
    let (starts, ends, axes) = (b.ints(&[1]), b.ints(&[3]), b.ints(&[1]));
    let y = b.op("Slice", &[y, starts, ends, axes]);
    let y = b.op_with("ReduceMean", &[y, axes], &[("keepdims", Attr::Int(0))]);
    g.outputs = vec![y];
    g
}

/// The small model, changed.
fn changed(change: impl FnOnce(&mut ModelProto)) -> Vec<u8> {
    let mut model = ModelProto::decode(onnx::to_bytes(&small()).as_slice()).expect("what was encoded");
    change(&mut model);
    model.encode_to_vec()
}

fn read(bytes: Vec<u8>) -> Result<Graph, OnnxError> {
    onnx::read_bytes(Bytes::from(bytes), Path::new("models/bad.onnx"))
}

/// The error of a model, which names the file.
fn refused(bytes: Vec<u8>) -> OnnxError {
    let e = read(bytes).expect_err("this is no model");
    assert!(e.to_string().contains("bad.onnx"), "{e}");
    e
}

/// The error's sentence about a model that breaks a rule of ONNX.
fn invalid(change: impl FnOnce(&mut ModelProto)) -> String {
    match refused(changed(change)) {
        OnnxError::Invalid { detail, .. } => detail,
        e => panic!("{e}"),
    }
}

#[test]
fn the_small_model_itself_is_fine() {
    assert_eq!(read(changed(|_| {})).unwrap().nodes.len(), 6);
}

#[test]
fn a_file_that_is_no_onnx_is_called_so() {
    let pointer =
        "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22e\nsize 12\n";
    let page = "<!DOCTYPE html><html><body>Not found</body></html>";
    for text in ["", "This is not a model.\n", "{\"a\": 1}", page, pointer, "\0\0\0\0", "PK\x03\x04"] {
        let e = refused(text.as_bytes().to_vec());
        assert!(matches!(e, OnnxError::NotOnnx { .. }), "{text:?}: {e}");
    }
    assert!(refused(pointer.into()).to_string().contains("LFS"));
}

#[test]
fn random_bytes_are_refused() {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    for length in 1..400 {
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        };
        refused((0..length).map(|_| next()).collect());
    }
}

#[test]
fn a_model_that_is_cut_short_is_refused_wherever_the_cut_is() {
    let whole = changed(|_| {});
    for sixteenth in 0..16 {
        refused(whole[..whole.len() * sixteenth / 16].to_vec());
    }
}

#[test]
fn operator_sets_that_are_too_old_too_new_or_missing_are_named() {
    for version in [-1, 0, 6, 27, i64::MAX] {
        match refused(changed(|m| m.opset_import[0].version = version)) {
            OnnxError::Opset { version: found, .. } => assert_eq!(found, version),
            e => panic!("{e}"),
        }
    }
    let e = refused(changed(|m| m.opset_import.clear()));
    assert!(matches!(e, OnnxError::Opset { version: 0, .. }), "{e}");
    let e = refused(changed(|m| m.graph = None));
    assert!(matches!(e, OnnxError::NotOnnx { .. }), "{e}");
}

#[test]
fn what_is_no_file_is_an_error_of_its_path() {
    let dir = tempfile::tempdir().unwrap();
    for path in [dir.path().to_path_buf(), dir.path().join("absent.onnx")] {
        let e = onnx::read(&path).unwrap_err();
        assert!(matches!(&e, OnnxError::Io { path: p, .. } if *p == path), "{e}");
    }
}
