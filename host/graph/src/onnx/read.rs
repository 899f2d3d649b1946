//! Protobuf → [`Graph`].

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use prost::Message;

use super::proto::{self, AttributeProto, GraphProto, ModelProto, NodeProto, ValueInfo, attribute_type};
use super::tensors::{MappedFiles, TensorReader, map_file};
use super::{NEWEST_OPSET, OLDEST_OPSET, OnnxError, WORKING_OPSET};
use crate::dim::Dim;
use crate::ir::{Attr, Attrs, Fact, Function, Graph, Node, ValueId};
use crate::tensor::{DType, Tensor};
use crate::{functions, shape, upgrade};

/// Subgraphs inside subgraphs that are followed.
const MAX_DEPTH: usize = 16;

/// Reads a model. The file (and its external data) is mapped; weights are not copied. Operators are brought up to
/// [`WORKING_OPSET`], `Constant` nodes become constants, and shapes are inferred.
///
/// # Errors
/// [`OnnxError`] for whatever keeps the file from being a model that Graft can use.
pub fn read(path: &Path) -> Result<Graph, OnnxError> {
    read_with_files(path).map(|(graph, _)| graph)
}

/// Reads a model as [`read`] does, and tells which files it consists of: the model's own, then its external data.
///
/// # Errors
/// As [`read`].
pub fn read_with_files(path: &Path) -> Result<(Graph, Vec<PathBuf>), OnnxError> {
    let bytes = map_file(path).map_err(|source| OnnxError::Io { path: path.to_path_buf(), source })?;
    let own = path.file_name().map(|n| (n.to_string_lossy().into_owned(), bytes.clone()));
    decode(bytes, path, own)
}

/// Reads a model from memory; `path` names it in errors and is where external data are looked for.
///
/// # Errors
/// As [`read`].
pub fn read_bytes(bytes: Bytes, path: &Path) -> Result<Graph, OnnxError> {
    decode(bytes, path, None).map(|(graph, _)| graph)
}

/// `own` is the model's file itself, where the bytes are mapped from one.
fn decode(
    bytes: Bytes,
    path: &Path,
    own: Option<(String, Bytes)>,
) -> Result<(Graph, Vec<PathBuf>), OnnxError> {
    let not_onnx = |detail: String| OnnxError::NotOnnx { path: path.to_path_buf(), detail };
    if bytes.is_empty() {
        return Err(not_onnx("the file is empty".into()));
    }
    let model = ModelProto::decode(bytes).map_err(|e| not_onnx(e.to_string()))?;
    let proto = model.graph.as_ref().ok_or_else(|| not_onnx("it holds no graph".into()))?;
    let opsets = opsets(&model, path)?;
    let mut reader = Reader { path, tensors: TensorReader::new(path) };
    let mut graph = reader.graph(proto, None, 0)?;
    graph.opsets = opsets;
    graph.metadata = model.metadata_props.iter().map(|e| (e.key.clone(), e.value.clone())).collect();
    for f in &model.functions {
        graph.functions.push(reader.function(f)?);
    }
    let invalid = |detail: String| OnnxError::Invalid { path: path.to_path_buf(), detail };
    graph.sort().map_err(|v| invalid(format!("the graph has a cycle through value '{v}'")))?;
    // Bodies use the model's own operator set, so they are pasted before it is brought up.
    functions::inline(&mut graph, &|_| true).map_err(invalid)?;
    upgrade::upgrade(&mut graph, WORKING_OPSET).map_err(invalid)?;
    shape::infer_with_own_names(&mut graph);
    graph.files = MappedFiles::new(own.into_iter().chain(reader.tensors.mapped()).collect());
    let files = std::iter::once(path.to_path_buf()).chain(reader.tensors.files()).collect();
    Ok((graph, files))
}

fn opsets(model: &ModelProto, path: &Path) -> Result<BTreeMap<String, i64>, OnnxError> {
    let mut opsets = BTreeMap::new();
    for o in &model.opset_import {
        let domain = if o.domain == "ai.onnx" { "" } else { &o.domain };
        if domain.is_empty() && !(OLDEST_OPSET..=NEWEST_OPSET).contains(&o.version) {
            return Err(OnnxError::Opset { path: path.into(), domain: "ai.onnx".into(), version: o.version });
        }
        opsets.insert(domain.to_string(), o.version);
    }
    if !opsets.contains_key("") {
        return Err(OnnxError::Opset { path: path.into(), domain: "ai.onnx".into(), version: 0 });
    }
    Ok(opsets)
}

struct Reader<'a> {
    path: &'a Path,
    tensors: TensorReader<'a>,
}

impl Reader<'_> {
    fn invalid(&self, detail: impl Into<String>) -> OnnxError {
        OnnxError::Invalid { path: self.path.to_path_buf(), detail: detail.into() }
    }

    /// `outer` is the set of names that a subgraph may read; `None` for the main graph, which may read none.
    fn graph(&mut self, p: &GraphProto, outer: Option<&()>, depth: usize) -> Result<Graph, OnnxError> {
        if depth > MAX_DEPTH {
            return Err(self.invalid("subgraphs are nested too deeply"));
        }
        if !p.sparse_initializer.is_empty() {
            return Err(self.invalid("sparse initializers are not supported"));
        }
        let mut g = Graph::default();
        g.name.clone_from(&p.name);
        let mut ids: HashMap<&str, ValueId> = HashMap::with_capacity(p.node.len() * 2);
        for t in &p.initializer {
            let tensor = self.tensors.read(t)?;
            if ids.contains_key(t.name.as_str()) {
                return Err(self.invalid(format!("initializer '{}' is there twice", t.name)));
            }
            ids.insert(&t.name, g.add_constant(&t.name, tensor));
        }
        for i in &p.input {
            match ids.get(i.name.as_str()) {
                // Files of IR version 3 list initializers among the inputs, too; they are constants all the same.
                Some(v) if g.constant(*v).is_some() => continue,
                Some(_) => return Err(self.invalid(format!("input '{}' is there twice", i.name))),
                None => {}
            }
            let fact = self.input_fact(i)?;
            let id = g.add_value(&i.name, fact);
            g.inputs.push(id);
            ids.insert(&i.name, id);
        }
        let infos: HashMap<&str, &ValueInfo> =
            p.value_info.iter().chain(&p.output).map(|v| (v.name.as_str(), v)).collect();
        for n in &p.node {
            for o in n.output.iter().filter(|o| !o.is_empty()) {
                if ids.contains_key(o.as_str()) {
                    return Err(
                        self.invalid(format!("value '{o}' is made twice (second time by node '{}')", n.name))
                    );
                }
                let fact = infos.get(o.as_str()).map(|v| output_fact(v)).unwrap_or_default();
                ids.insert(o, g.add_value(o, fact));
            }
        }
        for n in &p.node {
            self.node(n, &mut g, &mut ids, outer, depth)?;
        }
        for o in &p.output {
            let id = match ids.get(o.name.as_str()) {
                Some(id) => *id,
                None if outer.is_some() => {
                    *ids.entry(&o.name).or_insert(g.add_value(&o.name, Fact::default()))
                }
                None => return Err(self.invalid(format!("nothing makes the output '{}'", o.name))),
            };
            g.outputs.push(id);
        }
        Ok(g)
    }

    fn node<'p>(
        &mut self,
        n: &'p NodeProto,
        g: &mut Graph,
        ids: &mut HashMap<&'p str, ValueId>,
        outer: Option<&()>,
        depth: usize,
    ) -> Result<(), OnnxError> {
        let mut inputs = Vec::with_capacity(n.input.len());
        for i in &n.input {
            inputs.push(match (i.as_str(), ids.get(i.as_str())) {
                ("", _) => None,
                (_, Some(id)) => Some(*id),
                (name, None) if outer.is_some() => {
                    let id = g.add_value(name, Fact::default());
                    ids.insert(name, id);
                    Some(id)
                }
                (name, None) => {
                    return Err(self.invalid(format!(
                        "node '{}' ({}) reads '{name}', which nothing makes",
                        n.name, n.op_type
                    )));
                }
            });
        }
        // ONNX Runtime crashes on a Split that leaves the name of an output out.
        let named = n.op_type == "Split";
        let mut output = |o: &String| match o.is_empty() {
            true => named.then(|| g.add_value("", Fact::default())),
            false => ids.get(o.as_str()).copied(),
        };
        let outputs: Vec<Option<ValueId>> = n.output.iter().map(&mut output).collect();
        let domain = if n.domain == "ai.onnx" { String::new() } else { n.domain.clone() };
        if n.op_type == "Constant"
            && domain.is_empty()
            && !n.attribute.iter().any(|a| !a.ref_attr_name.is_empty())
        {
            let tensor = self.constant(n)?;
            if let Some(Some(v)) = outputs.first() {
                g.set_constant(*v, tensor);
            }
            return Ok(());
        }
        let mut attrs = Attrs::new();
        for a in &n.attribute {
            attrs.insert(a.name.clone(), self.attribute(a, &n.name, depth)?);
        }
        let metadata = n.metadata_props.iter().map(|e| (e.key.clone(), e.value.clone())).collect();
        g.nodes.push(Node {
            op: n.op_type.clone(),
            domain,
            name: n.name.clone(),
            inputs,
            outputs,
            attrs,
            metadata,
        });
        Ok(())
    }

    fn constant(&mut self, n: &NodeProto) -> Result<Tensor, OnnxError> {
        let a =
            n.attribute.first().ok_or_else(|| self.invalid(format!("Constant '{}' has no value", n.name)))?;
        match a.name.as_str() {
            "value" => match &a.t {
                Some(t) => self.tensors.read(t),
                None => Err(self.invalid(format!("Constant '{}' has no value", n.name))),
            },
            "value_int" => Ok(Tensor::scalar(a.i)),
            "value_float" => Ok(Tensor::scalar(a.f)),
            "value_ints" => Ok(Tensor::vector(&a.ints)),
            "value_floats" => Ok(Tensor::vector(&a.floats)),
            other => Err(self.invalid(format!("Constant '{}': {other} is not supported", n.name))),
        }
    }

    fn attribute(&mut self, a: &AttributeProto, node: &str, depth: usize) -> Result<Attr, OnnxError> {
        if !a.ref_attr_name.is_empty() {
            return Ok(Attr::Reference(a.ref_attr_name.clone(), a.r#type));
        }
        Ok(match a.r#type {
            attribute_type::FLOAT => Attr::Float(a.f),
            attribute_type::INT => Attr::Int(a.i),
            attribute_type::STRING => Attr::String(a.s.clone()),
            attribute_type::FLOATS => Attr::Floats(a.floats.clone()),
            attribute_type::INTS => Attr::Ints(a.ints.clone()),
            attribute_type::STRINGS => Attr::Strings(a.strings.clone()),
            attribute_type::TENSOR if a.t.is_some() => {
                Attr::Tensor(self.tensors.read(a.t.as_ref().unwrap_or(&proto::TensorProto::default()))?)
            }
            attribute_type::GRAPH => {
                let default = GraphProto::default();
                Attr::Graph(Box::new(self.graph(a.g.as_ref().unwrap_or(&default), Some(&()), depth + 1)?))
            }
            t => {
                return Err(self.invalid(format!(
                    "node '{node}': attribute '{}' is of type {t}, which is not supported",
                    a.name
                )));
            }
        })
    }

    fn function(&mut self, f: &proto::FunctionProto) -> Result<Function, OnnxError> {
        let info = |name: &String| ValueInfo { name: name.clone(), r#type: None };
        let body = GraphProto {
            node: f.node.clone(),
            name: f.name.clone(),
            input: f.input.iter().map(info).collect(),
            output: f.output.iter().map(info).collect(),
            ..GraphProto::default()
        };
        let mut body = self.graph(&body, None, 0)?;
        for o in &f.opset_import {
            body.opsets
                .insert(if o.domain == "ai.onnx" { String::new() } else { o.domain.clone() }, o.version);
        }
        let attributes =
            f.attribute.iter().cloned().chain(f.attribute_proto.iter().map(|a| a.name.clone())).collect();
        Ok(Function { domain: f.domain.clone(), name: f.name.clone(), body, attributes })
    }

    fn input_fact(&self, v: &ValueInfo) -> Result<Fact, OnnxError> {
        let Some(t) = &v.r#type else { return Ok(Fact::default()) };
        let t = t.tensor_type.as_ref().ok_or_else(|| {
            self.invalid(format!("input '{}' is no tensor; sequences and maps are not supported", v.name))
        })?;
        Ok(fact_of(t, &v.name))
    }
}

/// What the file says of a value that a node makes. Names of dimensions that exporters invent for outputs say
/// nothing, so only types are taken; shapes are inferred.
fn output_fact(v: &ValueInfo) -> Fact {
    let t = v.r#type.as_ref().and_then(|t| t.tensor_type.as_ref());
    Fact { dtype: t.and_then(|t| DType::from_onnx(t.elem_type)), ..Fact::default() }
}

fn fact_of(t: &proto::TensorType, name: &str) -> Fact {
    let dim = |(i, d): (usize, &proto::Dimension)| match &d.value {
        Some(proto::dimension::Value::DimValue(n)) if *n >= 0 => Dim::from(*n),
        Some(proto::dimension::Value::DimParam(s)) if !s.is_empty() => Dim::symbol(s),
        _ => Dim::symbol(format!("{name}_{i}")),
    };
    Fact {
        dtype: DType::from_onnx(t.elem_type),
        shape: t.shape.as_ref().map(|s| s.dim.iter().enumerate().map(dim).collect()),
        elements: None,
    }
}
