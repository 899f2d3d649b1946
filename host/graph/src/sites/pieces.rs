//! The pieces of a projection: what of a linear site's output is cut apart at once, as fused queries, keys and values are.

use std::collections::{HashMap, HashSet, VecDeque};

use super::{AttentionSite, Site, SiteKind};
use crate::ir::{Graph, Node, ValueId};

/// Values that are looked at on the way from an attention back to the piece that feeds it.
const MAX_SEARCH: usize = 256;

/// What a piece is to an attention.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Part {
    /// Its queries.
    Query,
    /// Its keys.
    Key,
    /// Its values.
    Value,
}

/// Neighbouring features of a site's output that are taken together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Piece {
    /// How many features.
    pub width: usize,
    /// What it is to the attention that reads it; `None` where none does.
    pub part: Option<Part>,
}

/// The pieces that the graph cuts each linear site's output into, by path and in the order of the features. A site is left
/// out where its output is not cut, is also read whole, or is cut in another way than into neighbouring features that are
/// all of it (heads that hold queries, keys and values in turn).
pub fn pieces(graph: &Graph, sites: &[Site], attentions: &[AttentionSite]) -> HashMap<String, Vec<Piece>> {
    let consumers = graph.consumers();
    let mut found: HashMap<String, Vec<(usize, ValueId)>> = HashMap::new();
    for site in sites.iter().filter(|s| s.kind == SiteKind::Linear) {
        if let Some(cut) = cut(graph, &consumers, site) {
            found.entry(site.path.clone()).or_insert(cut);
        }
    }
    let starts: HashSet<ValueId> = found.values().flatten().map(|(_, v)| *v).collect();
    let producers = graph.producers();
    let mut parts: HashMap<ValueId, Part> = HashMap::new();
    for a in attentions {
        for (value, part) in [(a.query, Part::Query), (a.key, Part::Key), (a.value, Part::Value)] {
            if let Some(piece) = source(graph, &producers, &starts, value) {
                parts.entry(piece).or_insert(part);
            }
        }
    }
    let named = |(width, v): (usize, ValueId)| Piece { width, part: parts.get(&v).copied() };
    found.into_iter().map(|(path, cut)| (path, cut.into_iter().map(named).collect())).collect()
}

/// The widths and values that the output of a site is cut into.
fn cut(graph: &Graph, consumers: &[Vec<usize>], site: &Site) -> Option<Vec<(usize, ValueId)>> {
    let mut made: Vec<(usize, usize, ValueId)> = Vec::new();
    let mut waiting = vec![site.output];
    while let Some(v) = waiting.pop() {
        if graph.outputs.contains(&v) || last(graph, v) != Some(site.out_features) {
            return None;
        }
        for i in &consumers[v.index()] {
            let n = &graph.nodes[*i];
            match n.full_op().as_str() {
                // A shape does not look at the numbers.
                "Shape" => {}
                // What has the same width behind them has the same features in the same order.
                "Reshape" | "Identity" | "Cast" => waiting.push(n.output(0)?),
                "Split" if along_last(graph, n.int("axis", 0), v) => {
                    let mut from = 0;
                    for part in n.outputs.iter().flatten() {
                        let width = last(graph, *part)?;
                        made.push((from, width, *part));
                        from += width;
                    }
                }
                "Slice" => made.push(slice(graph, n, v, site.out_features)?),
                _ => return None,
            }
        }
    }
    made.sort_by_key(|(from, ..)| *from);
    let mut end = 0;
    for (from, width, _) in &made {
        if *from != end {
            return None;
        }
        end += width;
    }
    let whole = end == site.out_features && made.len() > 1;
    whole.then(|| made.into_iter().map(|(_, width, v)| (width, v)).collect())
}

/// What a slice of the last axis of `v` takes: where it begins, how much, and its value.
fn slice(graph: &Graph, n: &Node, v: ValueId, width: usize) -> Option<(usize, usize, ValueId)> {
    // Exporters compute bounds from shapes; what is known of their elements is in the facts.
    let one = |i: usize| match graph.fact(n.input(i)?).vector()? {
        [number] => number.known(),
        _ => None,
    };
    let step = if n.input(4).is_some() { one(4)? } else { 1 };
    if step != 1 || !along_last(graph, one(3)?, v) {
        return None;
    }
    let total = i64::try_from(width).ok()?;
    let place = |at: i64| usize::try_from(if at < 0 { at + total } else { at.min(total) }).ok();
    let (from, to) = (place(one(1)?)?, place(one(2)?)?);
    Some((from, to.checked_sub(from)?, n.output(0)?))
}

fn last(graph: &Graph, v: ValueId) -> Option<usize> {
    usize::try_from(graph.shape(v)?.last()?.known()?).ok()
}

/// Whether an axis is the last one of `v`.
fn along_last(graph: &Graph, axis: i64, v: ValueId) -> bool {
    let rank = graph.shape(v).and_then(|s| i64::try_from(s.len()).ok());
    axis == -1 || rank.is_some_and(|rank| axis == rank - 1)
}

/// The one of `starts` that is nearest on the way back from `v`.
fn source(
    graph: &Graph,
    producers: &[Option<usize>],
    starts: &HashSet<ValueId>,
    v: ValueId,
) -> Option<ValueId> {
    let (mut waiting, mut seen) = (VecDeque::from([v]), HashSet::from([v]));
    while let Some(v) = waiting.pop_front() {
        if starts.contains(&v) {
            return Some(v);
        }
        let node = producers.get(v.index()).copied().flatten().and_then(|i| graph.nodes.get(i));
        let new = node.into_iter().flat_map(|n| n.inputs.iter().flatten()).filter(|i| seen.insert(**i));
        waiting.extend(new.copied());
        if seen.len() > MAX_SEARCH {
            return None;
        }
    }
    None
}
