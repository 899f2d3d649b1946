//! What every gradient graph must be, whatever model it was derived from.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use std::collections::{HashMap, HashSet};

use graft_graph::grad::gradient_model;
use graft_graph::{Attr, GRAFT_DOMAIN, Graph, onnx};
use graft_tests::shared;

/// The models of the conformance suite and the trained ones, with the names of their files.
fn models() -> Option<Vec<(String, Graph)>> {
    let shared = shared()?;
    let mut found = Vec::new();
    for group in ["conformance/autodiff", "models"] {
        for folder in std::fs::read_dir(shared.join(group)).unwrap().map(|e| e.unwrap().path()) {
            for file in std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path()) {
                if file.extension().is_some_and(|e| e == "onnx") {
                    found.push((file.display().to_string(), onnx::read(&file).unwrap()));
                }
            }
        }
    }
    assert!(found.len() >= 15, "{} models", found.len());
    Some(found)
}

#[test]
fn no_node_is_dead_no_value_is_computed_twice_and_every_operator_can_be_had_anywhere() {
    let Some(models) = models() else { return };
    for (file, graph) in models {
        let g = gradient_model(&graph, None).unwrap_or_else(|e| panic!("{file}: {e}")).graph;
        let captured = |n: &graft_graph::Node| n.attrs.values().any(|a| matches!(a, Attr::Graph(_)));
        let mut read: HashSet<_> = g.outputs.iter().copied().collect();
        read.extend(g.nodes.iter().flat_map(|n| n.inputs.iter().flatten().copied()));
        let mut seen: HashMap<_, Vec<_>> = HashMap::new();
        for n in &g.nodes {
            let at = format!("{file}: {} '{}'", n.full_op(), n.name);
            let used = n.outputs.iter().flatten().any(|o| read.contains(o));
            assert!(used || g.nodes.iter().any(captured), "{at} is read by nobody");
            // Outputs of the graph may be the same value under two names.
            let named = n.outputs.iter().flatten().any(|o| g.outputs.contains(o));
            let alike = seen.entry((n.full_op(), n.inputs.clone(), n.outputs.len())).or_default();
            assert!(!alike.contains(&&n.attrs) || named || captured(n), "{at} is computed twice");
            alike.push(&n.attrs);
            let has_body = g.functions.iter().any(|f| f.domain == n.domain && f.name == n.op);
            assert!(n.domain.is_empty() || n.domain == GRAFT_DOMAIN && has_body, "{at} has no standard form");
        }
    }
}
