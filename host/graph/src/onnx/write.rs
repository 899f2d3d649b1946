//! [`Graph`] → protobuf.

use std::io::Write;
use std::path::{Path, PathBuf};

use prost::Message;

use super::OnnxError;
use super::proto::{
    AttributeProto, Dimension, Entry, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetId,
    ShapeProto, TensorType, TypeProto, ValueInfo, attribute_type, dimension,
};
use super::tensors::{external_proto, inline_proto};
use super::windows;
use crate::fused;
use crate::ir::{Attr, Fact, Function, Graph, Node, ValueId};
use crate::tensor::Tensor;

/// IR version of what is written: the one of operator set 20 to 25 that ONNX Runtime 1.31 and TensorRT 10 read.
const IR_VERSION: i64 = 10;
/// Alignment of tensors in an external data file, in bytes: a cache line, and enough for any vector load.
const ALIGNMENT: u64 = 64;
/// Constants of at least this many bytes are handed to a session beside the protobuf.
const SESSION_THRESHOLD: usize = 1024;
/// Inline data past this many bytes would come near protobuf's own limit of 2 GiB.
const MAX_INLINE: usize = 1_500_000_000;

/// Where the data of large constants go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Placement {
    /// Into the model file itself; into a file beside it only where protobuf's limit of 2 GiB asks for it.
    Inline,
    /// Into `<name>_data` beside the model, aligned, so that it can be mapped.
    Beside,
}

/// The model as bytes, all data inside.
pub fn to_bytes(graph: &Graph) -> Vec<u8> {
    model_proto(graph, &mut inline_proto).encode_to_vec()
}

/// The model for a session: constants of 1 KiB and more for whose name `is_shared` holds are left out of it, if they
/// are mapped from a file of the base. The protobuf says where they lie in it: ONNX Runtime takes the tensors that are
/// supplied to run with, but its optimiser reads the file, when it folds constants or changes the layout of a
/// convolution's weights. Constants that lie in no file are written into the protobuf.
pub fn for_session(graph: &Graph, is_shared: &dyn Fn(&str) -> bool) -> Vec<u8> {
    let put = &mut |name: &str, t: &Tensor| match graph.files.place(t.bytes()) {
        Some((location, offset)) if is_large(t) && is_shared(name) => {
            external_proto(name, t, location, offset)
        }
        _ => inline_proto(name, t),
    };
    model_proto(graph, put).encode_to_vec()
}

/// The constants that sessions over this graph can share: those of 1 KiB and more, by name.
pub fn shared_constants(graph: &Graph) -> Vec<(String, Tensor)> {
    let large = graph.constants().filter(|(_, t)| is_large(t));
    large.map(|(v, t)| (graph.name_of(v).to_string(), t.clone())).collect()
}

fn is_large(t: &Tensor) -> bool {
    t.bytes().len() >= SESSION_THRESHOLD
}

/// Writes the model to `path`, atomically: a temporary file, synced, then renamed.
///
/// # Errors
/// [`OnnxError::Io`].
pub fn write(graph: &Graph, path: &Path, placement: Placement) -> Result<(), OnnxError> {
    let size: usize = graph.constants().map(|(_, t)| t.bytes().len()).sum();
    if placement == Placement::Inline && size <= MAX_INLINE {
        return write_atomically(path, &to_bytes(graph));
    }
    let name =
        path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_else(|| "model.onnx".into());
    let location = format!("{name}_data");
    let mut offset = 0u64;
    let mut data: Vec<(u64, Tensor)> = Vec::new();
    let proto = model_proto(graph, &mut |name, t| {
        if !is_large(t) {
            return inline_proto(name, t);
        }
        let at = offset.next_multiple_of(ALIGNMENT);
        offset = at + t.bytes().len() as u64;
        data.push((at, t.clone()));
        external_proto(name, t, &location, at)
    });
    let beside = path.with_file_name(&location);
    let io = |source| OnnxError::Io { path: beside.clone(), source };
    let temporary = temporary_beside(&beside);
    let result = (|| {
        let mut file = std::io::BufWriter::new(std::fs::File::create(&temporary)?);
        let mut written = 0u64;
        for (at, t) in &data {
            file.write_all(&vec![0u8; (at - written) as usize])?;
            file.write_all(t.bytes())?;
            written = at + t.bytes().len() as u64;
        }
        file.flush()?;
        file.get_ref().sync_all()?;
        std::fs::rename(&temporary, &beside)
    })();
    if let Err(e) = result {
        let _ = std::fs::remove_file(&temporary);
        return Err(io(e));
    }
    write_atomically(path, &proto.encode_to_vec())
}

fn temporary_beside(path: &Path) -> PathBuf {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    path.with_file_name(format!(".{name}.{}.part", std::process::id()))
}

fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), OnnxError> {
    let temporary = temporary_beside(path);
    let result = (|| {
        let mut file = std::fs::File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    })();
    result.map_err(|source| {
        let _ = std::fs::remove_file(&temporary);
        OnnxError::Io { path: path.to_path_buf(), source }
    })
}

type PutTensor<'a> = dyn FnMut(&str, &Tensor) -> super::proto::TensorProto + 'a;

fn model_proto(graph: &Graph, put: &mut PutTensor<'_>) -> ModelProto {
    let expanded = expanded(graph);
    let graph = expanded.as_ref().unwrap_or(graph);
    ModelProto {
        ir_version: IR_VERSION,
        producer_name: "graft".into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        graph: Some(graph_proto(graph, put)),
        opset_import: opset_protos(graph),
        metadata_props: entries(&graph.metadata),
        functions: graph.functions.iter().map(function_proto).collect(),
    }
}

/// The graph as ONNX Runtime takes it, where it differs: with its attentions written out, since a function is checked
/// against all of its outputs, of which a forward pass reads one, and the optimiser knows the plain operators; and with
/// the true sizes of poolings.
fn expanded(graph: &Graph) -> Option<Graph> {
    let attends = graph.nodes.iter().any(fused::is_attention);
    (attends || windows::any_misjudged(graph)).then(|| {
        let mut plain = graph.clone();
        if attends {
            fused::expand_attention(&mut plain);
        }
        windows::correct(&mut plain);
        plain
    })
}

fn opset_protos(graph: &Graph) -> Vec<OperatorSetId> {
    graph.opsets.iter().map(|(d, v)| OperatorSetId { domain: d.clone(), version: *v }).collect()
}

fn entries(pairs: &[(String, String)]) -> Vec<Entry> {
    pairs.iter().map(|(k, v)| Entry { key: k.clone(), value: v.clone() }).collect()
}

fn graph_proto(graph: &Graph, put: &mut PutTensor<'_>) -> GraphProto {
    GraphProto {
        name: if graph.name.is_empty() { "graph".into() } else { graph.name.clone() },
        node: graph.nodes.iter().map(|n| node_proto(graph, n)).collect(),
        initializer: graph.constants().map(|(v, t)| put(graph.name_of(v), t)).collect(),
        input: graph.inputs.iter().map(|v| value_info(graph, *v)).collect(),
        output: graph.outputs.iter().map(|v| value_info(graph, *v)).collect(),
        ..GraphProto::default()
    }
}

fn node_proto(graph: &Graph, n: &Node) -> NodeProto {
    let name = |v: &Option<ValueId>| v.map_or_else(String::new, |v| graph.name_of(v).to_string());
    NodeProto {
        input: n.inputs.iter().map(name).collect(),
        output: n.outputs.iter().map(name).collect(),
        name: n.name.clone(),
        op_type: n.op.clone(),
        domain: n.domain.clone(),
        attribute: n.attrs.iter().map(|(k, a)| attribute_proto(k, a)).collect(),
        metadata_props: entries(&n.metadata),
    }
}

fn attribute_proto(name: &str, a: &Attr) -> AttributeProto {
    use attribute_type as t;
    let mut p = AttributeProto { name: name.into(), ..AttributeProto::default() };
    match a {
        Attr::Int(v) => (p.r#type, p.i) = (t::INT, *v),
        Attr::Float(v) => (p.r#type, p.f) = (t::FLOAT, *v),
        Attr::String(v) => (p.r#type, p.s) = (t::STRING, v.clone()),
        Attr::Tensor(v) => (p.r#type, p.t) = (t::TENSOR, Some(inline_proto("", v))),
        Attr::Graph(v) => (p.r#type, p.g) = (t::GRAPH, Some(graph_proto(v, &mut inline_proto))),
        Attr::Ints(v) => (p.r#type, p.ints) = (t::INTS, v.clone()),
        Attr::Floats(v) => (p.r#type, p.floats) = (t::FLOATS, v.clone()),
        Attr::Strings(v) => (p.r#type, p.strings) = (t::STRINGS, v.clone()),
        Attr::Reference(v, kind) => (p.r#type, p.ref_attr_name) = (*kind, v.clone()),
    }
    p
}

fn function_proto(f: &Function) -> FunctionProto {
    let names = |ids: &[ValueId]| ids.iter().map(|v| f.body.name_of(*v).to_string()).collect();
    // A function has no initializers: its constants are Constant nodes.
    let constants = f.body.constants().map(|(v, t)| NodeProto {
        op_type: "Constant".into(),
        output: vec![f.body.name_of(v).to_string()],
        attribute: vec![attribute_proto("value", &Attr::Tensor(t.clone()))],
        ..NodeProto::default()
    });
    FunctionProto {
        name: f.name.clone(),
        domain: f.domain.clone(),
        input: names(&f.body.inputs),
        output: names(&f.body.outputs),
        attribute: f.attributes.clone(),
        node: constants.chain(f.body.nodes.iter().map(|n| node_proto(&f.body, n))).collect(),
        opset_import: opset_protos(&f.body),
        ..FunctionProto::default()
    }
}

fn value_info(graph: &Graph, v: ValueId) -> ValueInfo {
    let Fact { dtype, shape, .. } = graph.fact(v);
    let shape = shape.as_ref().map(|s| ShapeProto { dim: s.iter().map(dimension_proto).collect() });
    let tensor_type = dtype.map(|d| TensorType { elem_type: d.onnx(), shape });
    ValueInfo {
        name: graph.name_of(v).into(),
        r#type: tensor_type.map(|t| TypeProto { tensor_type: Some(t) }),
    }
}

fn dimension_proto(d: &crate::dim::Dim) -> Dimension {
    let value = match d.known() {
        Some(n) => dimension::Value::DimValue(n),
        None => dimension::Value::DimParam(d.to_string()),
    };
    Dimension { value: Some(value) }
}
