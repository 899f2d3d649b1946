//! Model-local functions: inlining.

use std::collections::HashMap;

use crate::ir::{Attr, Fact, Function, Graph, Node, ValueId};

/// Functions inside functions that are followed.
const MAX_DEPTH: usize = 32;
/// Nodes that inlining may grow a graph to; a crafted file could otherwise double it at every level.
const MAX_NODES: usize = 250_000;

/// Replaces every use of a model-local function for which `wanted` holds by its body, and drops those functions.
/// The module path of a use is handed to the nodes of the body.
///
/// # Errors
/// A sentence that names a function that calls itself, or one that makes the graph too large.
pub fn inline(graph: &mut Graph, wanted: &dyn Fn(&Function) -> bool) -> Result<(), String> {
    let (inlined, kept): (Vec<Function>, Vec<Function>) =
        std::mem::take(&mut graph.functions).into_iter().partition(|f| wanted(f));
    graph.functions = kept;
    if inlined.is_empty() {
        return Ok(());
    }
    let table: HashMap<(&str, &str), &Function> =
        inlined.iter().map(|f| ((f.domain.as_str(), f.name.as_str()), f)).collect();
    for _ in 0..MAX_DEPTH {
        let is_call = |n: &Node| table.contains_key(&(n.domain.as_str(), n.op.as_str()));
        if !graph.nodes.iter().any(is_call) {
            for f in &inlined {
                if !graph.nodes.iter().any(|n| n.domain == f.domain) && !f.domain.is_empty() {
                    graph.opsets.remove(&f.domain);
                }
            }
            return Ok(());
        }
        for node in std::mem::take(&mut graph.nodes) {
            match table.get(&(node.domain.as_str(), node.op.as_str())) {
                Some(f) => paste(graph, &node, f),
                None => graph.nodes.push(node),
            }
            if graph.nodes.len() > MAX_NODES {
                return Err(format!("inlining functions gives more than {MAX_NODES} nodes"));
            }
        }
    }
    let name = inlined.first().map_or("", |f| f.name.as_str());
    Err(format!("functions call each other without end ('{name}' among them)"))
}

fn paste(graph: &mut Graph, call: &Node, f: &Function) {
    let mut map: HashMap<ValueId, Option<ValueId>> = HashMap::new();
    for (k, v) in f.body.inputs.iter().enumerate() {
        map.insert(*v, call.input(k));
    }
    for (k, v) in f.body.outputs.iter().enumerate() {
        if let Some(o) = call.output(k) {
            map.insert(*v, Some(o));
        }
    }
    let prefix = if call.name.is_empty() { call.op.clone() } else { call.name.clone() };
    for (v, t) in f.body.constants() {
        let id = graph.add_constant(&format!("{prefix}/{}", f.body.name_of(v)), t.clone());
        map.insert(v, Some(id));
    }
    for n in &f.body.nodes {
        let mut node = n.clone();
        for slot in node.inputs.iter_mut().chain(&mut node.outputs) {
            let Some(v) = *slot else { continue };
            let name = || format!("{prefix}/{}", f.body.name_of(v));
            *slot = *map.entry(v).or_insert_with(|| Some(graph.add_value(&name(), Fact::default())));
        }
        let resolve = |(k, a): (String, Attr)| match a {
            Attr::Reference(name, _) => call.attrs.get(&name).map(|a| (k, a.clone())),
            other => Some((k, other)),
        };
        node.attrs = std::mem::take(&mut node.attrs).into_iter().filter_map(resolve).collect();
        node.name = format!("{prefix}/{}", n.name);
        if node.metadata.is_empty() {
            node.metadata = call.metadata.clone();
        }
        if let (true, Some(o), Some(Attr::Float(v))) =
            (node.is("Constant"), node.output(0), node.attrs.get("value_float"))
        {
            graph.set_constant(o, crate::tensor::Tensor::scalar(*v));
            continue;
        }
        graph.nodes.push(node);
    }
}
