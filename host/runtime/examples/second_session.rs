//! Memory that a second session over the same weights adds: `second_session MODEL.onnx [sessions]`, once with weights
//! shared as Graft does and once with the model's own bytes. The model is one file with its initializers inside.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use graft_graph::{DType, Tensor};
use graft_runtime::{Runtime, RuntimeOptions, Session, SessionOptions, SessionSource, SharedWeights, rss_mb};
use prost::Message;

/// The parts of a model that are moved out of it; everything else passes through untouched.
#[derive(Clone, PartialEq, Message)]
struct Init {
    #[prost(int64, repeated, packed = "false", tag = "1")]
    dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    data_type: i32,
    #[prost(string, tag = "8")]
    name: String,
    #[prost(bytes = "bytes", optional, tag = "9")]
    raw_data: Option<Bytes>,
    #[prost(message, repeated, tag = "13")]
    external_data: Vec<Entry>,
    #[prost(int32, tag = "14")]
    data_location: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Entry {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or("usage: second_session MODEL.onnx [sessions]")?;
    let count: usize = args.next().map_or(Ok(2), |n| n.parse())?;
    let runtime = Runtime::start(&RuntimeOptions::default())?;
    let (light, tensors) = split(Bytes::from(std::fs::read(&path)?), &path)?;
    let total: usize = tensors.iter().map(|(_, t)| t.bytes().len()).sum();
    println!(
        "{} tensors, {:.1} MB, in a model of {:.1} MB without them",
        tensors.len(),
        total as f64 / 1e6,
        light.len() as f64 / 1e6
    );
    let weights = SharedWeights::new(runtime, tensors)?;
    let shared = SessionSource {
        proto: light,
        weights: Some(Arc::clone(&weights)),
        external_dir: Path::new(&path).canonicalize()?.parent().map(Path::to_path_buf),
    };
    println!("copied for alignment: {} bytes", weights.copied_bytes());
    add_sessions("shared", runtime, &shared, count)?;
    drop(shared);
    let own = SessionSource::plain(std::fs::read(&path)?);
    add_sessions("own bytes", runtime, &own, count)
}

fn add_sessions(
    what: &str,
    runtime: &'static Runtime,
    source: &SessionSource,
    count: usize,
) -> Result<(), Box<dyn std::error::Error>> {
    let ids = Tensor::new([32, 32], &[1i64; 1024])?;
    let mut all = Vec::new();
    for i in 0..count {
        let before = rss_mb().unwrap_or(0.0);
        let started = std::time::Instant::now();
        let mut s = Session::new(
            runtime,
            source,
            &SessionOptions { name: format!("{what} {i}"), ..SessionOptions::default() },
        )?;
        let loaded = rss_mb().unwrap_or(0.0);
        let took = started.elapsed().as_secs_f64();
        let names: Vec<String> = s.inputs().iter().map(|p| p.name.clone()).collect();
        let inputs: Vec<(&str, &Tensor)> = names.iter().map(|n| (n.as_str(), &ids)).collect();
        let out = s.outputs()[0].name.clone();
        drop(s.run(&inputs, &[&out])?);
        let ran = rss_mb().unwrap_or(0.0);
        println!(
            "{what}: session {} adds {:.1} MB ({took:.2} s), its first run {:.1} MB",
            i + 1,
            loaded - before,
            ran - loaded
        );
        all.push(s);
    }
    Ok(())
}

type Named = Vec<(String, Tensor)>;

/// Takes the bytes of large initializers out of a serialised model; what stays points at `path` as external data.
fn split(model: Bytes, path: &str) -> Result<(Vec<u8>, Named), Box<dyn std::error::Error>> {
    let location = Path::new(path).file_name().and_then(|n| n.to_str()).ok_or("no file name")?;
    let mut tensors = Vec::new();
    let out = each_field(&model, &mut |tag, field| {
        if tag != 7 {
            return None;
        }
        Some(each_field(&field, &mut |tag, field| {
            let mut init = Init::decode(field.clone()).ok().filter(|_| tag == 5)?;
            let raw = init.raw_data.take().filter(|r| r.len() >= 1024)?;
            let shape: Vec<usize> = init.dims.iter().map(|d| *d as usize).collect();
            let tensor = Tensor::from_bytes(DType::from_onnx(init.data_type)?, shape, raw).ok()?;
            let entry = |k: &str, v: String| Entry { key: k.into(), value: v };
            init.external_data = vec![
                entry("location", location.into()),
                entry("offset", "0".into()),
                entry("length", tensor.bytes().len().to_string()),
            ];
            init.data_location = 1;
            tensors.push((init.name.clone(), tensor));
            Some(init.encode_to_vec())
        }))
    });
    Ok((out, tensors))
}

/// Copies a message, with some of its length-delimited fields replaced.
fn each_field(message: &Bytes, replace: &mut dyn FnMut(u32, Bytes) -> Option<Vec<u8>>) -> Vec<u8> {
    use prost::encoding::{
        DecodeContext, WireType, decode_key, decode_varint, encode_key, encode_varint, skip_field,
    };
    let mut rest = message.clone();
    let mut out = Vec::new();
    while !rest.is_empty() {
        let whole = rest.clone();
        let (tag, wire) = decode_key(&mut rest).expect("a model that ONNX Runtime loads");
        if wire == WireType::LengthDelimited {
            let len = decode_varint(&mut rest).expect("length") as usize;
            let field = rest.split_to(len);
            if let Some(new) = replace(tag, field) {
                encode_key(tag, wire, &mut out);
                encode_varint(new.len() as u64, &mut out);
                out.extend_from_slice(&new);
                continue;
            }
        } else {
            skip_field(wire, tag, &mut rest, DecodeContext::default()).expect("field");
        }
        out.extend_from_slice(&whole[..whole.len() - rest.len()]);
    }
    out
}
