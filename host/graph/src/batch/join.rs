//! From fragments to one graph.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::emit::Emit;
use super::fragment::{Fragment, Kind, Place, kinds};
use super::slot::Bank;
use super::{Unbatchable, fuse};
use crate::builder::Builder;
use crate::cse::join_equal;
use crate::dim::Dim;
use crate::ir::{Graph, ValueId};
use crate::tensor::DType;

/// A graph that answers for many adapters.
#[derive(Debug, Clone)]
pub struct Joined {
    /// The graph. Inputs are those of the base, banks and their indices; outputs are the heads'.
    pub graph: Graph,
    /// What became of each fragment, in order.
    pub fragments: Vec<Placed>,
}

/// A fragment in a joined graph.
#[derive(Debug, Clone)]
pub struct Placed {
    /// Its banks.
    pub banks: Vec<Bank>,
    /// Name of an input, bool `[batch]`, that says which rows have this fragment, where the graph needs to know.
    pub active: Option<String>,
    /// Outputs of the head: the name in the graph, for each of [`Fragment::outputs`].
    pub outputs: Vec<String>,
}

/// Writes fragments into one copy of the base.
///
/// # Errors
/// The operator that has no rule, with its place.
pub fn join(base: &Graph, fragments: &[&Fragment]) -> Result<Joined, Unbatchable> {
    let mut graph = base.clone();
    graph.outputs.clear();
    let base_nodes = graph.nodes.len();
    let of_base = kinds(base, &|_| Kind::Rows);
    let rows_dim = base.inputs.first().and_then(|v| base.shape(*v)?.first().cloned());
    let rows_dim = rows_dim.unwrap_or_else(|| Dim::symbol("batch"));
    // What stands for a value of the base: decided last, when it is known what there is.
    let mut stand_in: BTreeMap<ValueId, ValueId> = BTreeMap::new();
    for v in fragments.iter().flat_map(|f| &f.places).filter_map(|(p, _)| match p {
        Place::All(v) => Some(*v),
        Place::Input(..) => None,
    }) {
        stand_in.entry(v).or_insert_with(|| {
            let fact = graph.fact(v).clone();
            graph.add_value("joined", fact)
        });
    }
    for n in &mut graph.nodes {
        for v in n.inputs.iter_mut().flatten() {
            *v = stand_in.get(v).copied().unwrap_or(*v);
        }
    }
    let mut placed = Vec::new();
    let mut claims: BTreeMap<Place, Vec<Claim>> = BTreeMap::new();
    for (k, f) in fragments.iter().enumerate() {
        for (domain, version) in &f.graph.opsets {
            graph.opsets.entry(domain.clone()).or_insert(*version);
        }
        let mut e = Emit::new(&mut graph, f, k, &rows_dim, &|v| of_base[v.index()]);
        for r in &f.reads {
            let here = if r.raw { r.from } else { stand_in.get(&r.from).copied().unwrap_or(r.from) };
            e.map.insert(r.value, here);
        }
        e.write()?;
        for (place, v) in &f.places {
            let Some(value) = e.map.get(v).copied() else { return Err(lost()) };
            claims.entry(*place).or_default().push(Claim { fragment: k, value, exact: e.exact(*v, place) });
        }
        let mut outputs = Vec::new();
        for o in &f.outputs {
            let v = e.map.get(&o.value).copied().ok_or_else(lost)?;
            let name = format!("f{k}/{}", o.name);
            let own = Builder::new(e.graph, format!("f{k}/output.")).op("Identity", &[v]);
            e.graph.rename(own, &name);
            e.graph.outputs.push(own);
            outputs.push(name);
        }
        let banks = std::mem::take(&mut e.banks);
        placed.push(Placed { banks, active: None, outputs });
    }
    let mut active: HashMap<usize, ValueId> = HashMap::new();
    let mut stands: HashMap<ValueId, ValueId> = HashMap::new();
    for (place, claims) in &claims {
        let old = match place {
            Place::All(v) => *v,
            Place::Input(_, _, v) => stands.get(v).copied().unwrap_or(*v),
        };
        let mut now = old;
        for c in claims {
            now = put(&mut graph, &mut placed, &mut active, &rows_dim, c, old, now)?;
        }
        match place {
            Place::All(v) => {
                if let Some(s) = stand_in.remove(v) {
                    graph.replace_uses(s, now);
                    stands.insert(*v, now);
                }
            }
            Place::Input(node, k, _) => {
                let reader = graph.nodes[..base_nodes].iter_mut().find(|n| n.outputs.contains(&Some(*node)));
                if let Some(input) = reader.and_then(|n| n.inputs.get_mut(*k)) {
                    *input = Some(now);
                }
            }
        }
    }
    graph.sort().map_err(|v| Unbatchable {
        op: "value".into(),
        place: v,
        why: "depends on itself".into(),
    })?;
    join_equal(&mut graph);
    fuse::low_rank(&mut graph);
    fuse::bias(&mut graph);
    fuse::residual(&mut graph);
    fuse::heads(&mut graph);
    graph.remove_dead();
    let read: HashSet<ValueId> =
        graph.nodes.iter().flat_map(|n| n.inputs.iter().flatten().copied()).collect();
    graph.inputs.retain(|v| read.contains(v) || graph.outputs.contains(v));
    Ok(Joined { graph, fragments: placed })
}

pub(super) fn lost() -> Unbatchable {
    Unbatchable { op: "output".into(), place: String::new(), why: "nothing makes it".into() }
}

/// A value that a fragment puts in a place.
struct Claim {
    fragment: usize,
    value: ValueId,
    /// Rows of others keep the old value: the node that reads it, by what it makes, and at which input.
    exact: Option<(ValueId, usize)>,
}

/// What stands in a place when a claim is put over what stood there.
fn put(
    graph: &mut Graph,
    placed: &mut [Placed],
    active: &mut HashMap<usize, ValueId>,
    rows: &Dim,
    c: &Claim,
    old: ValueId,
    now: ValueId,
) -> Result<ValueId, Unbatchable> {
    let reader = c.exact.and_then(|(made, k)| {
        let node = graph.nodes.iter_mut().find(|n| n.outputs.first() == Some(&Some(made)))?;
        Some((node, k))
    });
    if let Some((node, k)) = reader
        && node.input(k) == Some(old)
    {
        node.inputs[k] = Some(now);
        return Ok(c.value);
    }
    let rank = graph.shape(now).or(graph.shape(old)).map(Vec::len).filter(|r| *r > 0);
    let rank = rank.ok_or_else(|| Unbatchable {
        op: "value".into(),
        place: graph.name_of(old).to_owned(),
        why: "has a shape that is not known".into(),
    })?;
    let flag = *active.entry(c.fragment).or_insert_with(|| {
        let name = format!("f{}.active", c.fragment);
        placed[c.fragment].active = Some(name.clone());
        graph.add_input(&name, DType::Bool, vec![rows.clone()])
    });
    let mut b = Builder::new(graph, format!("f{}/", c.fragment));
    let axes: Vec<i64> = (1..rank as i64).collect();
    let wide = if axes.is_empty() {
        flag
    } else {
        let axes = b.ints(&axes);
        b.op("Unsqueeze", &[flag, axes])
    };
    Ok(b.op("Where", &[wide, c.value, now]))
}
