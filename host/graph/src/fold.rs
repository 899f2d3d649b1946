//! `fold`: what a method adds to a module moves from its activations into its weight.
//!
//! A method wraps a module in nodes of its own. Where all that lies between the module's input `x` and what stands for
//! its output is affine in `x`, so is the whole: `y = x·S + t`. Slope and offset are written down as nodes over
//! constants, rule by rule, and the module computes with them instead. No method is known by name here: LoRA's
//! `x·W + s·(x·A)·B` becomes `x·(W + A·s·B)` by the rules of products and sums.

mod rules;

use std::collections::{HashMap, HashSet};

use crate::ir::{Graph, Node, ValueId};
use crate::sites::{Site, SiteKind};
use crate::tensor::Tensor;
use crate::tied;
use rules::{Affine, Rules, Slope};

/// A module whose input or output was replaced.
#[derive(Clone, Debug)]
pub struct Change {
    /// The module, with its values in the base.
    pub site: Site,
    /// What goes in, before anything is done to it.
    pub input: ValueId,
    /// What stands for its output.
    pub output: ValueId,
}

/// Why a change has no place in the weights.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("module '{site}': {detail}")]
pub struct FoldError {
    /// Path of the module.
    pub site: String,
    /// What stands in the way.
    pub detail: String,
}

/// A graph whose changed modules compute with new weights, which are still to be computed.
pub struct Folded {
    /// The graph. Nothing that methods added is left but what `computed` is made of, from constants alone.
    pub graph: Graph,
    /// New weights and biases.
    pub computed: Vec<Computed>,
    /// Paths of the modules whose weight has other uses or copies, which keep the old one.
    pub untied: Vec<String>,
}

/// A new weight or bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Computed {
    /// What it is computed as.
    pub value: ValueId,
    /// What it stands for.
    pub replaces: ValueId,
}

/// Moves `changes` into the weights. The methods' parameters must be constants of `graph`.
///
/// # Errors
/// [`FoldError`] names the module and the operator that is not affine, or what else is in the way.
pub fn fold(graph: &Graph, changes: &[Change]) -> Result<Folded, FoldError> {
    let mut g = graph.clone();
    let mut moved = HashMap::new();
    let mut computed = Vec::new();
    for change in changes {
        let now = |v: ValueId| moved.get(&v).copied().unwrap_or(v);
        let change =
            Change { input: now(change.input), output: now(change.output), site: change.site.clone() };
        let new = fold_one(&mut g, &change)
            .map_err(|detail| FoldError { site: change.site.path.clone(), detail })?;
        computed.extend(new);
        moved.insert(change.output, change.site.output);
    }
    let fail = |detail: String| FoldError { site: String::new(), detail };
    g.sort().map_err(|v| fail(format!("'{v}' depends on itself")))?;
    g.remove_dead();
    let weights: Vec<ValueId> = graph.constants().map(|(v, _)| v).collect();
    let tied = |c: &&Change| {
        let weight = c.site.weight;
        computed.iter().any(|k| k.replaces == weight)
            && (still_used(&g, &computed, weight) || !tied::copies(graph, weight, &weights).is_empty())
    };
    let mut untied: Vec<String> = changes.iter().filter(tied).map(|c| c.site.path.clone()).collect();
    untied.dedup();
    Ok(Folded { graph: g, computed, untied })
}

/// Whether anything but the new weights reads `v`.
fn still_used(g: &Graph, computed: &[Computed], v: ValueId) -> bool {
    let mut without = g.clone();
    without.nodes.retain(|n| !makes(n, computed));
    without.remove_dead();
    without.constant(v).is_some()
}

fn makes(n: &Node, computed: &[Computed]) -> bool {
    n.outputs.iter().flatten().any(|o| computed.iter().any(|c| c.value == *o))
}

impl Folded {
    /// The graph from which the new tensors are computed: no inputs, one output for each of `computed`.
    pub fn sums(&self) -> Graph {
        let mut sums = self.graph.clone();
        sums.outputs = self.computed.iter().map(|c| c.value).collect();
        sums.inputs.clear();
        sums.remove_dead();
        sums
    }

    /// The graph with the new tensors, in the order of `computed`, as constants. They take the names of those that
    /// they replace where these are gone; equal ones of several uses are one.
    pub fn finish(self, tensors: Vec<Tensor>) -> Graph {
        let Folded { mut graph, computed, .. } = self;
        graph.nodes.retain(|n| !makes(n, &computed));
        let mut first: Vec<(Computed, Tensor)> = Vec::new();
        for (c, tensor) in computed.into_iter().zip(tensors) {
            match first.iter().find(|(k, t)| k.replaces == c.replaces && *t == tensor) {
                Some((k, _)) => graph.replace_uses(c.value, k.value),
                None => {
                    graph.set_constant(c.value, tensor.clone());
                    first.push((c, tensor));
                }
            }
        }
        graph.remove_dead();
        for (c, _) in first {
            if graph.constant(c.replaces).is_none() {
                let name = graph.name_of(c.replaces).to_string();
                graph.rename(c.value, &name);
            }
        }
        graph
    }
}

/// The places of a module's node in a graph.
struct Places {
    node: usize,
    weight: usize,
    data: usize,
    /// Node and input of the bias.
    bias: Option<(usize, usize)>,
}

fn fold_one(g: &mut Graph, change: &Change) -> Result<Vec<Computed>, String> {
    let site = &change.site;
    let cone = cone(g, change)?;
    let mut rules = Rules::new(g, site, change.input);
    for i in &cone {
        rules.follow(*i)?;
    }
    let wanted = rules.images.get(&change.output).cloned();
    let depends: HashSet<ValueId> = rules.images.keys().copied().collect();
    let image = wanted.ok_or("its new output does not depend on its input")?;
    nothing_else_reads(g, change, &cone, &depends)?;
    let places = places(g, site, &depends)?;
    let (weight, offset) = finished(g, site, image)?;
    let mut computed = Vec::new();
    let mut put = |g: &mut Graph, (node, slot): (usize, usize), value: ValueId| {
        let old = g.nodes[node].inputs[slot].replace(value);
        computed.extend(old.filter(|o| *o != value).map(|replaces| Computed { value, replaces }));
    };
    let bias_now = places.bias.and_then(|(n, s)| g.nodes[n].input(s));
    match (offset, places.bias) {
        (Some(o), Some(at)) if Some(o) != bias_now => put(g, at, o),
        (Some(_), None) => return Err("it would need a bias, which the base does not have".into()),
        _ => {}
    }
    put(g, (places.node, places.weight), weight);
    g.nodes[places.node].inputs[places.data] = Some(change.input);
    if change.output != site.output {
        let name = g.name_of(change.output).to_string();
        let is_output = g.outputs.contains(&change.output);
        g.replace_uses(change.output, site.output);
        if is_output {
            g.rename(site.output, &name);
        }
    }
    Ok(computed)
}

/// The nodes that the new output is made of from the input and constants, in the graph's order.
fn cone(g: &Graph, change: &Change) -> Result<Vec<usize>, String> {
    let producers = g.producers();
    let mut seen = HashSet::new();
    let mut waiting = vec![change.output];
    while let Some(v) = waiting.pop() {
        if v == change.input || g.constant(v).is_some() {
            continue;
        }
        let made = producers[v.index()];
        let i = made.ok_or_else(|| format!("its new output depends on '{}'", g.name_of(v)))?;
        if seen.insert(i) {
            waiting.extend(g.nodes[i].inputs.iter().flatten());
        }
    }
    let mut nodes: Vec<usize> = seen.into_iter().collect();
    nodes.sort_unstable();
    Ok(nodes)
}

/// What lies between input and output is read by nothing else: it would get values that the module has no more.
fn nothing_else_reads(
    g: &Graph,
    change: &Change,
    cone: &[usize],
    depends: &HashSet<ValueId>,
) -> Result<(), String> {
    let inner = |v: &ValueId| *v != change.input && *v != change.output && depends.contains(v);
    let outside = (0..g.nodes.len()).filter(|i| cone.binary_search(i).is_err());
    let read = outside.flat_map(|i| g.nodes[i].inputs.iter().flatten()).chain(&g.outputs).find(|v| inner(v));
    read.map_or(Ok(()), |v| Err(format!("'{}', which is inside of it, has other uses", g.name_of(*v))))
}

fn places(g: &Graph, site: &Site, depends: &HashSet<ValueId>) -> Result<Places, String> {
    let producers = g.producers();
    let maker = |v: ValueId| producers[v.index()];
    let none = || "its operator is not found in the graph".to_string();
    let mut node = maker(site.output).ok_or_else(none)?;
    let mut bias = None;
    if g.nodes[node].is("Add") {
        let inputs = &g.nodes[node].inputs;
        let of = |dependent: bool| {
            inputs.iter().position(|v| v.is_some_and(|v| depends.contains(&v)) == dependent)
        };
        let (product, constant) = (of(true).ok_or_else(none)?, of(false).ok_or_else(none)?);
        bias = Some((node, constant));
        node = inputs[product].and_then(maker).ok_or_else(none)?;
    } else if g.nodes[node].input(2).is_some() {
        bias = Some((node, 2));
    }
    let (op, inputs) = (&g.nodes[node].op, g.nodes[node].inputs.len());
    let (weight, data) = if site.kind == SiteKind::Embedding { (0, 1) } else { (1, 0) };
    let known = matches!(op.as_str(), "MatMul" | "Gemm" | "Conv" | "Gather");
    if known && inputs >= 2 { Ok(Places { node, weight, data, bias }) } else { Err(none()) }
}

/// The slope as the module keeps its weight, and the offset.
fn finished(g: &mut Graph, site: &Site, image: Affine) -> Result<(ValueId, Option<ValueId>), String> {
    let Slope::Full(mut weight) = image.slope else {
        return Err("its new output does not depend on its weight".into());
    };
    let mut offset = image.offset;
    let dtype = g.dtype(site.weight);
    let mut b = crate::Builder::new(g, format!("{}.merged.", site.path));
    if site.kind == SiteKind::Embedding {
        weight = offset.take().map_or(weight, |o| b.op("Add", &[weight, o]));
    }
    if site.kind == SiteKind::Linear && site.weight_is_out_in {
        weight = b.op_with("Transpose", &[weight], &[("perm", vec![1i64, 0].into())]);
    }
    if let Some(dtype) = dtype.filter(|d| d.is_float()) {
        weight = b.cast(weight, dtype);
    }
    Ok((weight, offset))
}

#[cfg(test)]
mod tests;
