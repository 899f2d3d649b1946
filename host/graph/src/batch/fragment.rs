//! Fragments: what they are made of, and the digest of their structure.

use std::fmt::Write;

use crate::dim::Dim;
use crate::ir::{Attr, Graph, ValueId};
use crate::tensor::Tensor;

/// A parameter or a number of an adapter: an input of its graph that the base has not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// The input.
    pub value: ValueId,
    /// Axes that may be padded with zeros.
    pub paddable: Vec<usize>,
    /// Whether it is a parameter; a number of the configuration otherwise.
    pub is_param: bool,
    /// What makes it do nothing.
    pub neutral: Neutral,
}

/// The value of a parameter that makes an adapter do nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Neutral {
    /// All zeros.
    Zeros,
    /// All ones.
    Ones,
    /// Something else, or it is not known.
    Other,
}

/// What stands in the place of a value of the base.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Place {
    /// Wherever it is read.
    All(ValueId),
    /// At one input of the node of the base that makes a value.
    Input(ValueId, usize, ValueId),
}

/// A value of the base that a fragment reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Read {
    /// In the base.
    pub(super) from: ValueId,
    /// In the fragment.
    pub(super) value: ValueId,
    /// As the base made it, whatever stands in its place.
    pub(super) raw: bool,
}

/// An output of a head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Its name.
    pub name: String,
    /// In the fragment.
    pub(super) value: ValueId,
}

/// A piece of what an adapter does. Two with equal [`Fragment::signature`]s differ in nothing but their parameters.
#[derive(Debug, Clone)]
pub struct Fragment {
    /// The nodes; inputs are what is read of the base and the leaves.
    pub(super) graph: Graph,
    pub(super) reads: Vec<Read>,
    /// For each leaf its input here; axes that may be padded have a symbol for a size.
    pub(super) leaves: Vec<ValueId>,
    /// For each leaf what makes it do nothing.
    pub(super) neutral: Vec<Neutral>,
    /// For each leaf its place in the list of the member's.
    pub leaf_numbers: Vec<usize>,
    pub(super) places: Vec<(Place, ValueId)>,
    /// Outputs of the head.
    pub outputs: Vec<Output>,
    /// Its structure.
    pub signature: Signature,
}

/// The digest of a structure: equal for fragments that do the same, whatever their parameters are. Sizes of axes that may
/// be padded do not enter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Signature([u8; 32]);

/// Which part of the work a value of a derived graph belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// The same for every adapter and every batch.
    Fixed,
    /// Made of the sizes of a batch alone.
    Sizes,
    /// Made of parameters, and not of rows.
    Param,
    /// Made of rows of the batch.
    Rows,
}

/// The kinds of all values of a graph, given those of its inputs; constants are fixed.
pub(super) fn kinds(graph: &Graph, of_input: &dyn Fn(ValueId) -> Kind) -> Vec<Kind> {
    let mut kinds = vec![Kind::Fixed; graph.value_count()];
    graph.inputs.iter().for_each(|v| kinds[v.index()] = of_input(*v));
    for n in &graph.nodes {
        let has = |k: Kind| n.inputs.iter().flatten().any(|v| kinds[v.index()] == k);
        let kind = match n.op.as_str() {
            "Shape" | "Size" if has(Kind::Rows) => Kind::Sizes,
            _ if has(Kind::Rows) || (has(Kind::Param) && has(Kind::Sizes)) => Kind::Rows,
            _ if has(Kind::Param) => Kind::Param,
            _ if has(Kind::Sizes) => Kind::Sizes,
            _ => Kind::Fixed,
        };
        n.outputs.iter().flatten().for_each(|v| kinds[v.index()] = kind);
    }
    kinds
}

/// Takes a structure in, as text and bytes; what differs anywhere gives another digest.
#[derive(Default)]
struct Digest(blake3::Hasher);

impl Write for Digest {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.update(text.as_bytes());
        Ok(())
    }
}

impl Digest {
    fn tensor(&mut self, t: &Tensor) {
        let _ = write!(self, "{:?}{:?}{};", t.dtype(), t.shape(), t.bytes().len());
        self.0.update(t.bytes());
    }

    fn attribute(&mut self, a: &Attr) {
        let _ = match a {
            Attr::Int(v) => write!(self, "i{v}"),
            Attr::Float(v) => write!(self, "f{:x}", v.to_bits()),
            Attr::Ints(v) => write!(self, "is{v:?}"),
            Attr::Floats(v) => write!(self, "fs{:?}", v.iter().map(|f| f.to_bits()).collect::<Vec<_>>()),
            Attr::String(v) => write!(self, "s{v:?}"),
            Attr::Strings(v) => write!(self, "ss{v:?}"),
            Attr::Tensor(t) => {
                self.tensor(t);
                Ok(())
            }
            Attr::Reference(name, kind) => write!(self, "@{name}:{kind}"),
            // A node with a graph inside is no part of a fragment.
            Attr::Graph(_) => write!(self, "g"),
        };
    }
}

impl Fragment {
    pub(super) fn sign(&self) -> Signature {
        let g = &self.graph;
        let mut pads: Vec<String> = Vec::new();
        let mut dim = |d: &Dim| match d.as_symbol().filter(|s| s.starts_with("pad")) {
            Some(s) => {
                let known = pads.iter().position(|p| p == s);
                format!(
                    "pad#{}",
                    known.unwrap_or_else(|| {
                        pads.push(s.to_owned());
                        pads.len() - 1
                    })
                )
            }
            None => d.to_string(),
        };
        let mut text = Digest::default();
        for (v, neutral) in self.leaves.iter().zip(&self.neutral) {
            let shape: Vec<String> = g.shape(*v).into_iter().flatten().map(&mut dim).collect();
            let _ = write!(text, "leaf {} [{}] {neutral:?};", v.0, shape.join(","));
        }
        for r in &self.reads {
            let _ = write!(text, "read {} {} {};", r.from.0, r.value.0, r.raw);
        }
        for (v, t) in g.constants() {
            let _ = write!(text, "const {} ", v.0);
            text.tensor(t);
        }
        for n in &g.nodes {
            let ids = |all: &[Option<ValueId>]| {
                all.iter()
                    .map(|v| v.map_or("-".to_owned(), |v| v.0.to_string()))
                    .collect::<Vec<_>>()
                    .join(",")
            };
            let _ = write!(text, "{}({})", n.full_op(), ids(&n.inputs));
            for (name, a) in &n.attrs {
                let _ = write!(text, "{name}=");
                text.attribute(a);
                let _ = write!(text, ",");
            }
            let _ = write!(text, "->{};", ids(&n.outputs));
        }
        for (p, v) in &self.places {
            let _ = write!(text, "{p:?}={};", v.0);
        }
        for o in &self.outputs {
            let _ = write!(text, "{}={};", o.name, o.value.0);
        }
        Signature(*text.0.finalize().as_bytes())
    }
}
