//! From a derived graph to fragments.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::Unbatchable;
use super::build::Build;
use super::fragment::{Fragment, Kind, Leaf, Output, Place, Signature, kinds};
use crate::axes::{self, Axes, Batch};
use crate::ir::{Graph, Node, ValueId};
use crate::model::Role;
use crate::sites::module_path;

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

/// Takes a derived graph apart.
///
/// # Errors
/// What stands in the way of sharing a batch.
pub fn take_apart(base: &Graph, member: &Member<'_>) -> Result<Vec<Fragment>, Unbatchable> {
    let apart = Apart::new(base, *member)?;
    let axes = axes::analyse(member.graph, member.roles);
    apart.fragments(&axes)
}

pub(super) struct Apart<'a> {
    pub(super) base: &'a Graph,
    pub(super) m: Member<'a>,
    kinds: Vec<Kind>,
    /// Whether a value depends on a leaf.
    leafy: Vec<bool>,
    /// Whether a node of the derived graph is one of the base that does what it does there.
    kept: Vec<bool>,
    /// Value that stands for one of the base → that.
    pub(super) alias: HashMap<ValueId, ValueId>,
    producers: Vec<Option<usize>>,
    pub(super) leaf_of: HashMap<ValueId, usize>,
}

fn current(forward: &HashMap<ValueId, ValueId>, mut v: ValueId) -> ValueId {
    while let Some(next) = forward.get(&v) {
        v = *next;
    }
    v
}

pub(super) fn told(node: &Node, why: &str) -> Unbatchable {
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
        // What stands for a value that nothing reads any more is gone.
        let gone = |w: &ValueId| {
            let added = w.index() >= self.base.value_count();
            added && self.producers[w.index()].is_none() && !g.inputs.contains(w) && g.constant(*w).is_none()
        };
        for (w, v) in self.alias.iter().filter(|(w, _)| !gone(w)) {
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
            signature: Signature::default(),
        };
        made.signature = made.sign();
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
