//! Everything that `graft inspect` tells of a base.

use std::path::PathBuf;

use anyhow::{Context, Result};
use graft_graph::axes::{self, Batch as Rows};
use graft_graph::grad::{gradient_model, trainable_constants};
use graft_graph::model::{Role, hidden_candidates};
use graft_graph::sites::{AttentionSite, attentions, sites};
use graft_graph::{Graph, ValueId, onnx};
use graft_tasks::Base;
use indexmap::IndexMap;
use serde::Serialize;

use super::methods::{self, Training};
use super::operators::{self, Operator};
use super::training::Batch;

/// A base as it is shown. Sizes are in elements unless they say bytes.
#[derive(Serialize)]
pub struct Report {
    pub path: PathBuf,
    pub digest: String,
    pub files: Vec<FileSize>,
    pub architecture: Option<String>,
    pub tokenizer: Option<PathBuf>,
    pub opset: i64,
    pub nodes: usize,
    pub parameters: u64,
    pub parameter_bytes: u64,
    pub inputs: Vec<Port>,
    pub outputs: Vec<Port>,
    pub hidden: Option<Port>,
    pub hidden_candidates: Vec<String>,
    pub pooled: Option<Port>,
    pub sites: Vec<Site>,
    pub tied: Vec<Tied>,
    pub operators: Vec<Operator>,
    pub gradients: Gradients,
    /// Of the hidden states, or of the first output.
    pub axes: Option<Axes>,
    pub methods: Vec<Training>,
}

/// What is proven of the axes of a value: what caching features and mixing adapters in one batch rest on.
#[derive(Serialize)]
pub struct Axes {
    /// The axis that counts rows; none where that is not proven.
    pub batch_axis: Option<usize>,
    pub rows_independent: bool,
    /// The first operator that mixes rows, as far as can be told.
    pub mixed_by: Option<String>,
    pub padding_invisible: bool,
    /// The first operator that lets padding in, as far as can be told.
    pub padding_by: Option<String>,
}

impl Axes {
    fn of(base: &Base) -> Option<Axes> {
        let s = axes::of_model(&base.graph, &base.model)?;
        Some(Axes {
            batch_axis: match s.batch {
                Rows::Axis(axis) => Some(axis),
                _ => None,
            },
            rows_independent: s.rows_independent,
            mixed_by: s.mixed_by.map(|r| r.to_string()),
            padding_invisible: s.padding_invisible,
            padding_by: s.padding_by.map(|r| r.to_string()),
        })
    }

    /// What is proven, and what keeps the rest from it.
    pub fn lines(&self) -> [String; 2] {
        let told = |proven: bool, yes: &str, no: &str, by: &Option<String>| match (proven, by) {
            (true, _) => yes.to_string(),
            (false, Some(by)) => format!("{no}: {by}"),
            (false, None) => no.to_string(),
        };
        [
            told(
                self.rows_independent,
                "Rows are proven to be independent of each other.",
                "It is not proven that rows are independent of each other",
                &self.mixed_by,
            ),
            told(
                self.padding_invisible,
                "Padding is proven to be invisible.",
                "It is not proven that padding is invisible; before features are kept it is tried",
                &self.padding_by,
            ),
        ]
    }
}

/// A file of the base.
#[derive(Serialize)]
pub struct FileSize {
    pub path: PathBuf,
    pub bytes: u64,
}

/// An input, an output or another named value.
#[derive(Serialize)]
pub struct Port {
    pub name: String,
    pub role: Option<&'static str>,
    pub dtype: &'static str,
    /// Symbols and numbers; none where the shape is unknown.
    pub shape: Option<Vec<String>>,
}

impl Port {
    fn of(graph: &Graph, v: ValueId, role: Option<&'static str>) -> Port {
        Port {
            name: graph.name_of(v).into(),
            role,
            dtype: graph.dtype(v).map_or("unknown", |d| d.name()),
            shape: graph.shape(v).map(|s| s.iter().map(ToString::to_string).collect()),
        }
    }

    /// The shape in brackets.
    pub fn shape_text(&self) -> String {
        self.shape.as_ref().map_or_else(|| "unknown".into(), |s| format!("[{}]", s.join(", ")))
    }
}

/// A module that a method can hook.
#[derive(Serialize, Clone)]
pub struct Site {
    pub path: String,
    pub kind: &'static str,
    pub in_features: usize,
    pub out_features: usize,
    /// Weight and bias together.
    pub parameters: u64,
    /// Empty for an attention, which has none.
    pub weight: String,
    pub bias: Option<String>,
    /// For an attention.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attention: Option<Heads>,
}

/// The heads of an attention.
#[derive(Serialize, Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Heads {
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub value_dim: usize,
    /// Whether something is added to the scores: a mask, a bias of positions.
    pub biased: bool,
}

/// A weight that several sites use, or that the file holds more than once.
#[derive(Serialize)]
pub struct Tied {
    pub weight: String,
    pub sites: Vec<String>,
    /// Other initializers with the same content.
    pub copies: Vec<Twin>,
}

/// An initializer with the content of another one.
#[derive(Serialize)]
pub struct Twin {
    pub weight: String,
    pub transposed: bool,
}

/// Whether the whole base can be differentiated.
#[derive(Serialize)]
pub struct Gradients {
    /// Float weights on a path to an output.
    pub weights: usize,
    pub parameters: u64,
    /// Why their gradients can't be derived.
    pub error: Option<String>,
}

impl Report {
    /// Looks at everything. Runs the code of installed methods.
    pub fn of(base: &Base, plugin_dirs: &[PathBuf], batch: Option<Batch>) -> Result<Report> {
        let (graph, model) = (&base.graph, &base.model);
        let role_of_output = |v: ValueId| match Some(v) {
            v if v == model.hidden => Some("hidden states"),
            v if v == model.pooled => Some("pooled"),
            _ => None,
        };
        let weights: Vec<_> =
            graph.constants().filter(|(_, t)| t.dtype().is_float() && t.len() > 1).collect();
        let candidates = if model.hidden.is_some() { Vec::new() } else { hidden_candidates(graph) };
        let sites = sites_of(graph);
        Ok(Report {
            path: base.path.clone(),
            digest: base.digest()?.to_string(),
            files: files(base)?,
            architecture: base.model_type.clone(),
            tokenizer: base.tokenizer.clone(),
            opset: graph.opset(),
            nodes: graph.nodes.len(),
            parameters: weights.iter().map(|(_, t)| t.len() as u64).sum(),
            parameter_bytes: weights.iter().map(|(_, t)| t.bytes().len() as u64).sum(),
            inputs: model.inputs.iter().map(|(v, role)| Port::of(graph, *v, shown(*role))).collect(),
            outputs: graph.outputs.iter().map(|v| Port::of(graph, *v, role_of_output(*v))).collect(),
            hidden: model.hidden.map(|v| Port::of(graph, v, None)),
            hidden_candidates: candidates.into_iter().map(|v| graph.name_of(v).to_string()).collect(),
            pooled: model.pooled.map(|v| Port::of(graph, v, None)),
            tied: tied(&sites, &copies(graph)),
            sites,
            operators: operators::of(graph, model.hidden),
            gradients: gradients(graph),
            axes: Axes::of(base),
            methods: methods::of(base, plugin_dirs, batch)?,
        })
    }
}

fn shown(role: Role) -> Option<&'static str> {
    (role != Role::Other).then(|| role.name())
}

fn files(base: &Base) -> Result<Vec<FileSize>> {
    let (_, paths) = onnx::read_with_files(&base.path)?;
    let size = |path: PathBuf| {
        let meta = std::fs::metadata(&path).with_context(|| format!("{} can't be read", path.display()))?;
        Ok(FileSize { path, bytes: meta.len() })
    };
    paths.into_iter().map(size).collect()
}

fn sites_of(graph: &Graph) -> Vec<Site> {
    let len = |v: ValueId| graph.constant(v).map_or(0, |t| t.len() as u64);
    let modules = sites(graph).into_iter().map(|s| Site {
        path: s.path,
        kind: s.kind.name(),
        in_features: s.in_features,
        out_features: s.out_features,
        parameters: len(s.weight) + s.bias.map_or(0, len),
        weight: graph.name_of(s.weight).into(),
        bias: s.bias.map(|b| graph.name_of(b).into()),
        attention: None,
    });
    modules.chain(attentions(graph).into_iter().map(attention)).collect()
}

fn attention(s: AttentionSite) -> Site {
    let AttentionSite { heads, kv_heads, head_dim, value_dim, .. } = s;
    Site {
        path: s.path,
        kind: "attention",
        in_features: heads.saturating_mul(head_dim),
        out_features: heads.saturating_mul(value_dim),
        parameters: 0,
        weight: String::new(),
        bias: None,
        attention: Some(Heads { heads, kv_heads, head_dim, value_dim, biased: s.bias.is_some() }),
    }
}

/// Each weight that is in the file more than once, with its copies.
fn copies(graph: &Graph) -> Vec<(String, Vec<Twin>)> {
    let name = |v: ValueId| graph.name_of(v).to_string();
    let twin = |c: &graft_graph::tied::Copy| Twin { weight: name(c.value), transposed: c.transposed };
    let group = |(v, c): (ValueId, Vec<graft_graph::tied::Copy>)| (name(v), c.iter().map(twin).collect());
    graft_graph::tied::groups(graph).into_iter().map(group).collect()
}

/// Weights with more than one site or more than one copy; a layer that is called twice is one site.
fn tied(sites: &[Site], copies: &[(String, Vec<Twin>)]) -> Vec<Tied> {
    let mut users: IndexMap<&str, Vec<String>> = IndexMap::new();
    for s in sites.iter().filter(|s| !s.weight.is_empty()) {
        let of = users.entry(&s.weight).or_default();
        if !of.contains(&s.path) {
            of.push(s.path.clone());
        }
    }
    let mut all: Vec<Tied> = Vec::new();
    for (weight, twins) in copies {
        let names = std::iter::once(weight).chain(twins.iter().map(|t| &t.weight));
        let sites = names.filter_map(|n| users.shift_remove(n.as_str())).flatten().collect();
        let copies = twins.iter().map(|t| Twin { weight: t.weight.clone(), ..*t }).collect();
        all.push(Tied { weight: weight.clone(), sites, copies });
    }
    let several = users.into_iter().filter(|(_, paths)| paths.len() > 1);
    all.extend(several.map(|(weight, sites)| Tied { weight: weight.into(), sites, copies: Vec::new() }));
    all
}

/// Derives the gradients of everything: the only way to know that they can be derived.
fn gradients(graph: &Graph) -> Gradients {
    let floats: Vec<ValueId> =
        graph.outputs.iter().copied().filter(|o| graph.dtype(*o).is_none_or(|d| d.is_float())).collect();
    // Numbers such as the eps of a norm are on a path, too, but nobody's weights.
    let tensors = trainable_constants(graph, &floats).into_iter().filter_map(|v| graph.constant(v));
    let sizes: Vec<u64> = tensors.map(|t| t.len() as u64).filter(|n| *n > 1).collect();
    let error = gradient_model(graph, None).err().map(|e| e.to_string());
    Gradients { weights: sizes.len(), parameters: sizes.iter().sum(), error }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(path: &str, weight: &str) -> Site {
        Site {
            path: path.into(),
            kind: "linear",
            in_features: 2,
            out_features: 2,
            parameters: 4,
            weight: weight.into(),
            bias: None,
            attention: None,
        }
    }

    #[test]
    fn a_weight_of_two_modules_is_tied_and_a_module_called_twice_is_not() {
        let sites = [site("embed", "w"), site("head", "w"), site("again", "v"), site("again", "v")];
        let tied = tied(&sites, &[]);
        assert_eq!(tied.len(), 1);
        assert_eq!((tied[0].weight.as_str(), tied[0].sites.join(" ")), ("w", "embed head".into()));
    }

    #[test]
    fn copies_of_a_weight_are_one_group_with_the_sites_of_each() {
        let sites = [site("embed", "w"), site("head", "w.transposed")];
        let twin = Twin { weight: "w.transposed".into(), transposed: true };
        let tied = tied(&sites, &[("w".into(), vec![twin])]);
        assert_eq!((tied.len(), tied[0].sites.join(" "), tied[0].copies.len()), (1, "embed head".into(), 1));
    }
}
