//! safetensors files made to harm: none of them may panic, hang, or take memory beyond their own size.
#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use std::fs;

use graft_adapters::{
    Error, MAX_HEADER, digest_bytes, digest_files, load, read_tensors, read_tensors_owned, write_tensors,
};
use graft_graph::{DType, Tensor};
use proptest::prelude::*;

/// A file with this header and so many bytes of tensors.
fn file(header: &str, body: usize) -> Vec<u8> {
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend_from_slice(header.as_bytes());
    out.resize(out.len() + body, 0);
    out
}

fn read(bytes: &[u8]) -> graft_adapters::Result<graft_adapters::Tensors> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("attack.safetensors");
    fs::write(&path, bytes).unwrap();
    let mapped = read_tensors(&path);
    let owned = read_tensors_owned(&path);
    match (&mapped, &owned) {
        (Ok(a), Ok(b)) => assert_eq!(a, b),
        (Err(a), Err(b)) => assert_eq!(std::mem::discriminant(a), std::mem::discriminant(b)),
        _ => panic!("mapped and owned reading disagree: {mapped:?} {owned:?}"),
    }
    if let Err(e) = &owned {
        assert!(e.to_string().contains("attack.safetensors"), "{e}");
    }
    owned
}

fn refused(header: &str, body: usize) {
    let e = read(&file(header, body)).unwrap_err();
    assert!(matches!(e, Error::Safetensors { .. }), "{header}: {e}");
}

#[test]
fn a_header_longer_than_the_limit_is_refused_before_it_is_read() {
    for length in [MAX_HEADER + 1, u64::MAX, 1 << 63] {
        let mut bytes = length.to_le_bytes().to_vec();
        bytes.extend_from_slice(b"{}");
        assert!(matches!(read(&bytes).unwrap_err(), Error::TooLarge { what: "the header", .. }));
    }
}

#[test]
fn a_header_longer_than_the_file() {
    let mut bytes = file("{}", 0);
    bytes[0] = 200;
    assert!(matches!(read(&bytes).unwrap_err(), Error::Safetensors { .. }));
}

#[test]
fn truncated_files_of_every_length() {
    let header = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
    let whole = file(header, 8);
    assert_eq!(read(&whole).unwrap()["a"].shape(), [2]);
    (0..whole.len()).for_each(|n| assert!(read(&whole[..n]).is_err(), "{n}"));
}

#[test]
fn overlapping_and_scattered_offsets() {
    let two = |a: &str, b: &str| {
        format!(
            r#"{{"a":{{"dtype":"U8","shape":[4],"data_offsets":{a}}},"b":{{"dtype":"U8","shape":[4],"data_offsets":{b}}}}}"#
        )
    };
    assert!(read(&file(&two("[0,4]", "[4,8]"), 8)).is_ok());
    refused(&two("[0,4]", "[2,6]"), 6);
    refused(&two("[0,4]", "[0,4]"), 4);
    refused(&two("[0,4]", "[5,9]"), 9);
    refused(&two("[4,0]", "[4,8]"), 8);
    refused(&two("[0,4]", "[4,8]"), 9);
    refused(&two("[0,4]", "[18446744073709551612,18446744073709551615]"), 8);
    refused(&two("[0,4]", "[-4,8]"), 8);
}

#[test]
fn shapes_whose_product_overflows_or_lies() {
    let one = |shape: &str, end: usize| {
        format!(r#"{{"a":{{"dtype":"F32","shape":{shape},"data_offsets":[0,{end}]}}}}"#)
    };
    refused(&one("[4294967296,4294967296]", 0), 0);
    refused(&one("[18446744073709551615,2]", 8), 8);
    refused(&one("[4611686018427387904]", 0), 0);
    refused(&one("[3]", 8), 8);
    refused(&one("[]", 0), 0);
    assert!(read(&file(&one("[0,7]", 0), 0)).unwrap()["a"].is_empty());
}

#[test]
fn headers_that_are_no_or_too_deep_json() {
    refused(&"[".repeat(1 << 20), 0);
    refused(&format!(r#"{{"a":{}"#, r#"{"a":"#.repeat(200_000)), 0);
    refused("null", 0);
    refused("{\"a\":\"\u{0}\"}", 0);
    let mut bytes = file(r#"{"aa":1}"#, 0);
    bytes[10] = 0xff;
    assert!(read(&bytes).is_err());
}

#[test]
fn element_types_that_no_tensor_has_are_named() {
    let e = read(&file(r#"{"w":{"dtype":"F8_E4M3","shape":[4],"data_offsets":[0,4]}}"#, 4)).unwrap_err();
    assert!(matches!(&e, Error::TensorType { tensor, .. } if tensor == "w"), "{e}");
    let packed = Tensor::from_bytes(DType::I4, [2], vec![0u8].into()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let e = write_tensors(&dir.path().join("f"), [("packed", &packed)]).unwrap_err();
    assert!(e.to_string().contains("`packed`") && e.to_string().contains("i4"), "{e}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// Names are names: nothing is ever opened by the name of a tensor.
#[test]
fn tensor_names_that_look_like_paths_stay_names() {
    let names = ["../../etc/passwd", "/etc/passwd", "a\\..\\b", "..", "", "\u{202e}evil"];
    let t = Tensor::vector(&[1f32]);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    write_tensors(&path, names.iter().map(|n| (*n, &t))).unwrap();
    let found = read_tensors(&path).unwrap();
    assert_eq!(found.len(), names.len());
    names.iter().for_each(|n| assert_eq!(found[*n], t));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

/// A pipe in the place of a file would keep whoever opens it waiting for ever.
#[cfg(unix)]
#[test]
fn directories_and_pipes_are_no_files() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("adapter_config.json");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for path in [dir.path(), &pipe] {
        for e in [read_tensors(path).unwrap_err(), read_tensors_owned(path).unwrap_err()] {
            assert!(e.to_string().contains("not a regular file"), "{e}");
        }
        assert!(matches!(digest_files([path]).unwrap_err(), Error::Io { .. }));
    }
    assert!(matches!(load(dir.path()).unwrap_err(), Error::Io { .. }));
}

fn tensor() -> impl Strategy<Value = Tensor> {
    let types =
        [DType::F32, DType::F16, DType::BF16, DType::F64, DType::I64, DType::I32, DType::U8, DType::Bool];
    (proptest::sample::select(types.to_vec()), proptest::collection::vec(0usize..5, 0..4)).prop_flat_map(
        |(dtype, shape)| {
            let bytes = dtype.bytes_of(shape.iter().product()).unwrap();
            proptest::collection::vec(any::<u8>(), bytes)
                .prop_map(move |b| Tensor::from_bytes(dtype, shape.clone(), b.into()).unwrap())
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_written_is_read_and_always_the_same_bytes(
        tensors in proptest::collection::btree_map("[a-z.:0-9]{1,12}", tensor(), 0..6)
    ) {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("1"), dir.path().join("2"));
        write_tensors(&one, tensors.iter().map(|(k, t)| (k.as_str(), t))).unwrap();
        write_tensors(&two, tensors.iter().rev().map(|(k, t)| (k.as_str(), t))).unwrap();
        let digest = |p| digest_bytes(&fs::read(p).unwrap());
        prop_assert_eq!(digest(&one), digest(&two));
        let found = read_tensors(&one).unwrap();
        prop_assert!(found.iter().eq(tensors.iter()));
    }

    #[test]
    fn a_damaged_file_is_an_error_or_a_file_but_never_a_panic(
        at in 0usize..140, byte in any::<u8>(), cut in 0usize..140
    ) {
        let header = r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}"#;
        let mut bytes = file(header, 16);
        let at = at % bytes.len();
        bytes[at] = byte;
        bytes.truncate(bytes.len().saturating_sub(cut % 3));
        let _ = read(&bytes);
    }
}
