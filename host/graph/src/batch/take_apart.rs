//! From a derived graph to fragments.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::Unbatchable;
use crate::axes::{self, Axes, Batch};
use crate::dim::Dim;
use crate::ir::{Attr, Fact, Graph, Node, ValueId};
use crate::model::Role;
use crate::shape;
use crate::sites::module_path;
use crate::tensor::DType;

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

/// A graph that began as a copy of a base.
#[derive(Clone, Copy)]
pub struct Member<'a> {
    /// The graph, sorted; its outputs are those of the head.
    pub graph: &'a Graph,
    /// Values of the base → what the method put in their place.
    pub forward: &'a HashMap<ValueId, ValueId>,
    /// Parameters and numbers.
    pub leaves: &'a [Leaf],
    /// What inputs of the base are for.
    pub roles: &'a [(ValueId, Role)],
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
    /// The structure, as text.
    pub signature: Arc<str>,
}

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

/// Takes a derived graph apart.
///
/// # Errors
/// What stands in the way of sharing a batch.
pub fn take_apart(base: &Graph, member: &Member<'_>) -> Result<Vec<Fragment>, Unbatchable> {
    let apart = Apart::new(base, *member)?;
    let axes = axes::analyse(member.graph, member.roles);
    apart.fragments(&axes)
}

struct Apart<'a> {
    base: &'a Graph,
    m: Member<'a>,
    kinds: Vec<Kind>,
    /// Whether a value depends on a leaf.
    leafy: Vec<bool>,
    /// Whether a node of the derived graph is one of the base that does what it does there.
    kept: Vec<bool>,
    /// Value that stands for one of the base → that.
    alias: HashMap<ValueId, ValueId>,
    producers: Vec<Option<usize>>,
    leaf_of: HashMap<ValueId, usize>,
}

fn current(forward: &HashMap<ValueId, ValueId>, mut v: ValueId) -> ValueId {
    while let Some(next) = forward.get(&v) {
        v = *next;
    }
    v
}

fn told(node: &Node, why: &str) -> Unbatchable {
    let place = module_path(node).unwrap_or_else(|| node.name.clone());
    Unbatchable { op: node.full_op(), place, why: why.into() }
}

impl<'a> Apart<'a> {
    fn new(base: &'a Graph, m: Member<'a>) -> Result<Apart<'a>, Unbatchable> {
        let g = m.graph;
        let leaf_of: HashMap<ValueId, usize> =
            m.leaves.iter().enumerate().map(|(i, l)| (l.value, i)).collect();
        let mut kinds = kinds(g, &|v| if leaf_of.contains_key(&v) { Kind::Param } else { Kind::Rows });
        let made = base.producers();
        let mut leafy = vec![false; g.value_count()];
        m.leaves.iter().for_each(|l| leafy[l.value.index()] = true);
        let mut kept = Vec::with_capacity(g.nodes.len());
        let mut alias = HashMap::new();
        for (v, _) in m.forward.iter().filter(|(v, _)| v.index() < base.value_count()) {
            alias.insert(current(m.forward, *v), *v);
        }
        for n in &g.nodes {
            let first = n.outputs.iter().flatten().next().filter(|v| v.index() < base.value_count());
            let theirs = first.and_then(|v| made[v.index()]).map(|i| &base.nodes[i]);
            let same = theirs.is_some_and(|b| {
                b.op == n.op && b.domain == n.domain && b.attrs == n.attrs && b.inputs.len() == n.inputs.len()
            });
            if theirs.is_some() && !same {
                return Err(told(n, "the method changed a node of the base"));
            }
            // A node of the base that reads what is made of parameters alone does other work for each row.
            let reads_leaf =
                n.inputs.iter().flatten().any(|v| kinds[v.index()] == Kind::Param && leafy[v.index()]);
            let is_kept = same && !reads_leaf;
            kept.push(is_kept);
            if is_kept {
                continue;
            }
            let is_leafy = n.inputs.iter().flatten().any(|v| leafy[v.index()] && !alias.contains_key(v));
            for v in n.outputs.iter().flatten() {
                leafy[v.index()] = is_leafy && n.op != "Shape";
                if same && kinds[v.index()] == Kind::Rows && !alias.values().any(|b| b == v) {
                    alias.insert(*v, *v);
                }
            }
        }
        // What is read through an alias is the base's own, whatever made it here.
        for v in base.inputs.iter() {
            kinds[v.index()] = Kind::Rows;
        }
        Ok(Apart { base, m, kinds, leafy, kept, alias, producers: g.producers(), leaf_of })
    }

    /// What is put where.
    fn places(&self) -> Result<Vec<(Place, ValueId)>, Unbatchable> {
        let g = self.m.graph;
        let made = self.base.producers();
        let mut places: BTreeMap<Place, ValueId> = BTreeMap::new();
        for (w, v) in &self.alias {
            if self.base.constant(*v).is_none() {
                places.insert(Place::All(*v), *w);
            }
        }
        for (n, _) in g.nodes.iter().zip(&self.kept).filter(|(_, kept)| **kept) {
            let Some(out) = n.outputs.iter().flatten().next() else { continue };
            let Some(b) = made[out.index()].map(|i| &self.base.nodes[i]) else { continue };
            for (k, (now, was)) in n.inputs.iter().zip(&b.inputs).enumerate() {
                match (now, was) {
                    (Some(w), Some(v)) if w != v => {
                        if places.get(&Place::All(*v)) != Some(w) {
                            places.insert(Place::Input(*out, k, *v), *w);
                        }
                    }
                    (Some(w), Some(v)) if w == v => {
                        let all = places.get(&Place::All(*v)).filter(|w| *w != v);
                        if all.is_some() && self.alias.get(v) != Some(v) {
                            return Err(told(n, "reads a value both as it was and as the method left it"));
                        }
                    }
                    (a, b) if a == b => {}
                    _ => return Err(told(n, "the method changed which inputs a node of the base has")),
                }
            }
        }
        Ok(places.into_iter().collect())
    }

    /// Nodes of the derived graph that are not the base's own, each with its group: those that share parameters or
    /// what is made of them are in one. Nodes without parameters have none.
    fn groups(&self) -> Vec<Option<usize>> {
        let g = self.m.graph;
        let mut parent: Vec<usize> = (0..g.nodes.len() + self.m.leaves.len()).collect();
        fn root(parent: &mut [usize], mut i: usize) -> usize {
            while parent[i] != i {
                parent[i] = parent[parent[i]];
                i = parent[i];
            }
            i
        }
        let own =
            |i: usize| !self.kept[i] && g.nodes[i].outputs.iter().flatten().any(|v| self.leafy[v.index()]);
        for (i, n) in g.nodes.iter().enumerate().filter(|(i, _)| own(*i)) {
            for v in n.inputs.iter().flatten() {
                let other = match (self.leaf_of.get(v), self.producers[v.index()]) {
                    (Some(l), _) if self.m.leaves[*l].is_param => Some(g.nodes.len() + l),
                    (None, Some(p)) if own(p) && !self.is_read(*v) => Some(p),
                    _ => None,
                };
                if let Some(other) = other {
                    let (a, b) = (root(&mut parent, i), root(&mut parent, other));
                    parent[b] = a;
                }
            }
        }
        (0..g.nodes.len()).map(|i| own(i).then(|| root(&mut parent, i))).collect()
    }

    /// Whether `v` is read as a value of the base, for which it stands.
    fn is_read(&self, v: ValueId) -> bool {
        self.alias.contains_key(&v)
    }

    fn fragments(&self, axes: &Axes) -> Result<Vec<Fragment>, Unbatchable> {
        let g = self.m.graph;
        let groups = self.groups();
        let places = self.places()?;
        // Sinks of one group make one fragment; a sink without parameters is one of its own.
        let mut sinks: BTreeMap<(usize, usize), Sinks> = BTreeMap::new();
        let key = |v: ValueId, alone: usize| {
            let made = self.producers[v.index()];
            match made.and_then(|p| groups[p]) {
                Some(group) => (0, group),
                None => (1, alone),
            }
        };
        for (k, (place, w)) in places.iter().enumerate() {
            sinks.entry(key(*w, k)).or_default().places.push((*place, *w));
        }
        for (k, v) in g.outputs.iter().enumerate() {
            let base_output = v.index() < self.base.value_count() || self.alias.contains_key(v);
            if !base_output {
                sinks.entry(key(*v, places.len() + k)).or_default().outputs.push(*v);
            }
        }
        sinks.into_values().map(|s| self.fragment(&s, axes)).collect()
    }

    /// The nodes that `sinks` are made by, down to values of the base, parameters and constants.
    fn closure(&self, sinks: &Sinks) -> Vec<usize> {
        let g = self.m.graph;
        let mut taken: HashSet<usize> = HashSet::new();
        let mut waiting: Vec<usize> =
            sinks.values().filter_map(|v| self.producers[v.index()]).filter(|p| !self.kept[*p]).collect();
        while let Some(i) = waiting.pop() {
            if !taken.insert(i) {
                continue;
            }
            for v in g.nodes[i].inputs.iter().flatten().filter(|v| !self.is_read(**v)) {
                waiting.extend(self.producers[v.index()].filter(|p| !self.kept[*p]));
            }
        }
        let mut all: Vec<usize> = taken.into_iter().collect();
        all.sort_unstable();
        all
    }

    fn fragment(&self, sinks: &Sinks, axes: &Axes) -> Result<Fragment, Unbatchable> {
        let g = self.m.graph;
        let nodes = self.closure(sinks);
        // What has a part in making what stands everywhere for a value reads that value as the base made it.
        let mut f = Build {
            apart: self,
            out: Graph::new("fragment", g.opset()),
            map: HashMap::new(),
            reads: Vec::new(),
            leaves: Vec::new(),
        };
        f.out.opsets = g.opsets.clone();
        f.out.functions = g.functions.clone();
        for i in nodes {
            let node = &g.nodes[i];
            for v in node.outputs.iter().flatten() {
                let rows = self.kinds[v.index()] == Kind::Rows;
                if rows && self.leafy[v.index()] && !matches!(axes.batch(*v), Batch::Axis(0)) {
                    let known = axes.summary(*v);
                    let reason =
                        known.mixed_by.map_or_else(|| format!("{:?}", known.batch), |r| r.to_string());
                    let why = format!(
                        "its rows are not proven to be those of the batch, each for itself: {reason}"
                    );
                    return Err(told(node, &why));
                }
            }
            f.take(node)?;
        }
        // What is given or put somewhere must be each row's own even where no parameter has a part in it: a base may mix rows,
        // such as one whose activations are quantised by a scale of the whole tensor.
        for v in sinks.values() {
            if self.kinds[v.index()] == Kind::Rows && !matches!(axes.batch(v), Batch::Axis(0)) {
                let reason = axes.summary(v).mixed_by.map_or_else(String::new, |r| format!(": {r}"));
                let place = g.name_of(v).to_owned();
                let why =
                    format!("its rows are not proven to be those of the batch, each for itself{reason}");
                return Err(Unbatchable { op: "output".into(), place, why });
            }
        }
        let places = sinks.places.iter().map(|(p, w)| Some((*p, f.known(*w)?))).collect::<Option<Vec<_>>>();
        let outputs = sinks
            .outputs
            .iter()
            .map(|v| Some(Output { name: g.name_of(*v).to_owned(), value: f.known(*v)? }));
        let outputs = outputs.collect::<Option<Vec<_>>>();
        let lost =
            || Unbatchable { op: "output".into(), place: String::new(), why: "nothing makes it".into() };
        let (places, outputs) = (places.ok_or_else(lost)?, outputs.ok_or_else(lost)?);
        let (leaves, leaf_numbers): (Vec<_>, Vec<usize>) = f.leaves.iter().copied().unzip();
        let neutral = leaf_numbers.iter().map(|l| self.m.leaves[*l].neutral).collect();
        let Build { out: graph, reads, .. } = f;
        let mut made = Fragment {
            graph,
            reads,
            leaves,
            neutral,
            leaf_numbers,
            places,
            outputs,
            signature: Arc::from(""),
        };
        made.signature = made.sign().into();
        Ok(made)
    }
}

#[derive(Default)]
struct Sinks {
    places: Vec<(Place, ValueId)>,
    outputs: Vec<ValueId>,
}

impl Sinks {
    fn values(&self) -> impl Iterator<Item = ValueId> {
        self.places.iter().map(|(_, w)| *w).chain(self.outputs.iter().copied())
    }
}

/// A fragment that grows. The numbers of its values follow from its structure alone.
struct Build<'b, 'a> {
    apart: &'b Apart<'a>,
    out: Graph,
    map: HashMap<(ValueId, bool), ValueId>,
    reads: Vec<Read>,
    leaves: Vec<(ValueId, usize)>,
}

impl Build<'_, '_> {
    fn known(&self, v: ValueId) -> Option<ValueId> {
        self.map.get(&(v, false)).copied()
    }

    fn take(&mut self, node: &Node) -> Result<(), Unbatchable> {
        if node.attrs.values().any(|a| matches!(a, crate::Attr::Graph(_))) {
            return Err(told(node, "has a graph inside"));
        }
        let mut own = node.clone();
        own.name = format!("n{}", self.out.nodes.len());
        own.metadata.clear();
        for v in own.inputs.iter_mut().flatten() {
            *v = self.input(*v);
        }
        for v in own.outputs.iter_mut().flatten() {
            let made = self.out.add_value(&format!("v{}", self.out.value_count()), Fact::default());
            self.map.insert((*v, false), made);
            *v = made;
        }
        self.out.nodes.push(own);
        let last = self.out.nodes.len() - 1;
        shape::infer_at(&mut self.out, last);
        Ok(())
    }

    fn input(&mut self, v: ValueId) -> ValueId {
        let a = self.apart;
        let g = a.m.graph;
        let through = a.alias.get(&v).copied();
        if through.is_none_or(|from| from == v)
            && let Some(known) = self.known(v)
        {
            return known;
        }
        if let Some(leaf) = a.leaf_of.get(&v) {
            return self.leaf(v, *leaf);
        }
        if v.index() >= a.base.value_count()
            && through.is_none()
            && let Some(t) = g.constant(v)
        {
            let own = self.out.add_constant(&format!("c{}", self.out.value_count()), t.clone());
            self.map.insert((v, false), own);
            return own;
        }
        let (from, raw) = match through {
            Some(from) => (from, false),
            // What something stands for everywhere is read by what makes that.
            None => (v, a.alias.values().any(|b| *b == v)),
        };
        if let Some(known) = self.map.get(&(from, true)).copied()
            && self.reads.iter().any(|r| r.value == known && r.raw == raw)
        {
            return known;
        }
        let fact = g.fact(v).clone();
        let name = format!("r{}", self.out.value_count());
        let own = self.out.add_input(
            &name,
            fact.dtype.unwrap_or(DType::F32),
            fact.shape.clone().unwrap_or_default(),
        );
        *self.out.fact_mut(own) = fact;
        self.map.insert((from, true), own);
        self.reads.push(Read { from, value: own, raw });
        own
    }

    fn leaf(&mut self, v: ValueId, number: usize) -> ValueId {
        if let Some(known) = self.known(v) {
            return known;
        }
        let leaf = &self.apart.m.leaves[number];
        let mut shape = self.apart.m.graph.shape(v).cloned().unwrap_or_default();
        // Axes of one size within a fragment are padded alike: each may be for itself, so they may together.
        for axis in &leaf.paddable {
            if let Some(d) = shape.get_mut(*axis) {
                *d = Dim::symbol(format!("pad{d}"));
            }
        }
        let own = self.out.add_input(&format!("p{}", self.leaves.len()), DType::F32, shape);
        self.map.insert((v, false), own);
        self.leaves.push((own, number));
        own
    }
}

/// An attribute in full: what differs anywhere is another text.
fn attribute(a: &Attr) -> String {
    match a {
        Attr::Int(v) => format!("i{v}"),
        Attr::Float(v) => format!("f{:x}", v.to_bits()),
        Attr::Ints(v) => format!("is{v:?}"),
        Attr::Floats(v) => format!("fs{:?}", v.iter().map(|f| f.to_bits()).collect::<Vec<_>>()),
        Attr::String(v) => format!("s{v:?}"),
        Attr::Strings(v) => format!("ss{v:?}"),
        Attr::Tensor(t) => format!("t{:?}{:?}{:?}", t.dtype(), t.shape(), &t.bytes()[..]),
        Attr::Reference(name, kind) => format!("@{name}:{kind}"),
        // A node with a graph inside is no part of a fragment.
        Attr::Graph(_) => "g".to_owned(),
    }
}

impl Fragment {
    /// The structure as text: equal for fragments that do the same. Sizes of axes that may be padded do not enter.
    fn sign(&self) -> String {
        use std::fmt::Write;
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
        let mut text = String::new();
        for (v, neutral) in self.leaves.iter().zip(&self.neutral) {
            let shape: Vec<String> = g.shape(*v).into_iter().flatten().map(&mut dim).collect();
            let _ = write!(text, "leaf {} [{}] {neutral:?};", v.0, shape.join(","));
        }
        for r in &self.reads {
            let _ = write!(text, "read {} {} {};", r.from.0, r.value.0, r.raw);
        }
        for (v, t) in g.constants() {
            let _ = write!(text, "const {} {:?} {:?} {:?};", v.0, t.dtype(), t.shape(), &t.bytes()[..]);
        }
        for n in &g.nodes {
            let ids = |all: &[Option<ValueId>]| {
                all.iter()
                    .map(|v| v.map_or("-".to_owned(), |v| v.0.to_string()))
                    .collect::<Vec<_>>()
                    .join(",")
            };
            let _ = write!(text, "{}({})", n.full_op(), ids(&n.inputs));
            n.attrs.iter().for_each(|(name, a)| text.push_str(&format!("{name}={},", attribute(a))));
            let _ = write!(text, "->{};", ids(&n.outputs));
        }
        for (p, v) in &self.places {
            let _ = write!(text, "{p:?}={};", v.0);
        }
        for o in &self.outputs {
            let _ = write!(text, "{}={};", o.name, o.value.0);
        }
        text
    }

    /// Whether it reads this leaf of the member.
    pub fn reads_leaf(&self, number: usize) -> bool {
        self.leaf_numbers.contains(&number)
    }
}
