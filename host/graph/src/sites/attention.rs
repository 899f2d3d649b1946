//! Attention sites: the cores of attention modules, around the operator that `raise` leaves for one.

use std::collections::{HashMap, HashSet};

use super::{is_use_of, module_path, sites};
use crate::dim::Dim;
use crate::fused;
use crate::ir::{Graph, Node, ValueId};
use crate::raise::attention::own_heads;

/// Values that are looked at on the way from an attention back to the products that feed it.
const MAX_SEARCH: usize = 256;

/// Where queries meet keys and values. All have four axes.
#[derive(Clone, Debug)]
pub struct AttentionSite {
    /// Path of the module, such as `encoder.layer.0.attention.self`.
    pub path: String,
    /// Queries `[batch, heads, queries, head_dim]` as they enter the scores: behind rotary positions.
    pub query: ValueId,
    /// Keys `[batch, kv_heads, keys, head_dim]` as they enter the scores, before they are repeated for query heads.
    pub key: ValueId,
    /// Values `[batch, kv_heads, keys, value_dim]`, before they are repeated for query heads.
    pub value: ValueId,
    /// What is added to the scores, which are already scaled; it broadcasts to `[batch, heads, queries, keys]`. Masks,
    /// causal ones too, and biases of positions are in it.
    pub bias: Option<ValueId>,
    /// The mix of values `[batch, heads, queries, value_dim]`, before heads are joined and projected.
    pub output: ValueId,
    /// Heads of queries.
    pub heads: usize,
    /// Heads of keys and values; a divisor of `heads`.
    pub kv_heads: usize,
    /// Width of a head of queries and keys.
    pub head_dim: usize,
    /// Width of a head of values.
    pub value_dim: usize,
}

/// The attention sites of a graph that was raised, in the order of its nodes. Those whose path can't be recovered or
/// whose heads are folded into the batch are left out. A module that is called several times is listed once for each.
pub fn attentions(graph: &Graph) -> Vec<AttentionSite> {
    let made = graph.producers();
    let linear: HashMap<ValueId, String> = sites(graph).into_iter().map(|s| (s.output, s.path)).collect();
    let nodes = graph.nodes.iter().filter(|n| fused::is_attention(n));
    nodes.filter_map(|n| site(graph, &made, &linear, n)).collect()
}

fn site(
    graph: &Graph,
    made: &[Option<usize>],
    linear: &HashMap<ValueId, String>,
    n: &Node,
) -> Option<AttentionSite> {
    let maker = |v: ValueId| made.get(v.index()).copied().flatten().and_then(|i| graph.nodes.get(i));
    let (query, flipped, repeated, output) = (n.input(0)?, n.input(1)?, n.input(2)?, n.output(0)?);
    let size = |v: ValueId, axis: usize| match graph.shape(v)?.as_slice() {
        all @ [_, _, _, _] => usize::try_from(all[axis].known()?).ok().filter(|n| *n > 0),
        _ => None,
    };
    let heads = size(query, 1)?;
    let whole = maker(flipped).filter(|n| n.is("Transpose") && n.ints("perm") == Some(&[0, 1, 3, 2][..]))?;
    let own = |v: ValueId| own_heads(graph, &maker, v, i64::try_from(heads).ok()?);
    let key = whole.input(0)?;
    let (key, value) = (own(key).unwrap_or(key), own(repeated).unwrap_or(repeated));
    let kv_heads = size(key, 1).filter(|n| Some(*n) == size(value, 1))?;
    let bias = n.input(3).filter(|v| !is_nothing(graph, *v));
    let near = |v: ValueId| nearest(graph, made, linear, v);
    let feeding: Vec<String> = [query, key, value].into_iter().filter_map(near).collect();
    let path = match (module_path(n), common_module(&feeding)) {
        (Some(own), Some(module)) if is_use_of(&own, &module) => module,
        (own, module) => own.or(module)?,
    };
    let (head_dim, value_dim) = (size(query, 3)?, size(value, 3)?);
    Some(AttentionSite { path, query, key, value, bias, output, heads, kv_heads, head_dim, value_dim })
}

/// Whether `v` is the constant zero.
fn is_nothing(graph: &Graph, v: ValueId) -> bool {
    let zero = |t: &crate::Tensor| t.len() == 1 && t.to_f64s().is_some_and(|n| n == [0.0]);
    graph.constant(v).is_some_and(zero)
}

/// The path of a linear site that `v` is made of, the nearest on the way back.
fn nearest(
    graph: &Graph,
    made: &[Option<usize>],
    linear: &HashMap<ValueId, String>,
    v: ValueId,
) -> Option<String> {
    let (mut waiting, mut seen) = (std::collections::VecDeque::from([v]), HashSet::from([v]));
    while let Some(v) = waiting.pop_front() {
        if let Some(path) = linear.get(&v) {
            return Some(path.clone());
        }
        let node = made.get(v.index()).copied().flatten().and_then(|i| graph.nodes.get(i));
        let new = node.into_iter().flat_map(|n| n.inputs.iter().flatten()).filter(|i| seen.insert(**i));
        waiting.extend(new.copied());
        if seen.len() > MAX_SEARCH {
            return None;
        }
    }
    None
}

/// The module that holds all of these: the names that their paths begin with, at least one less than each has.
fn common_module(paths: &[String]) -> Option<String> {
    let mut parts: Vec<&str> = paths.first()?.rsplit_once('.')?.0.split('.').collect();
    for path in paths {
        let (module, _) = path.rsplit_once('.')?;
        let same = parts.iter().zip(module.split('.')).take_while(|(a, b)| **a == *b).count();
        parts.truncate(same);
    }
    (!parts.is_empty()).then(|| parts.join("."))
}

/// Whether keys of `now` and a bias of `bias` fit each other, as far as is known: the last axis of the bias is one, or
/// as long as the keys are.
pub fn bias_fits(bias: &[Dim], keys: &Dim) -> bool {
    bias.last().is_none_or(|last| last.is(1) || last.equals(keys) != Some(false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_module_is_what_the_paths_of_its_products_have_in_common() {
        let module = |paths: &[&str]| common_module(&paths.iter().map(|p| p.to_string()).collect::<Vec<_>>());
        assert_eq!(module(&["a.self.query", "a.self.key", "a.self.value"]).as_deref(), Some("a.self"));
        assert_eq!(module(&["h.0.attn.c_attn"]).as_deref(), Some("h.0.attn"));
        assert_eq!(module(&["a.b.q", "c.b.k"]), None);
        assert_eq!(module(&["q", "k"]), None);
        assert_eq!(module(&[]), None);
    }
}
