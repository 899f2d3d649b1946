//! A product down, a scale and a product up, added to what was there, as one operator: no update is written out.

use crate::builder::Builder;
use crate::fused::{self, BANK_DOWN, BANK_LOW_RANK, BANK_UP};
use crate::ir::{GRAFT_DOMAIN, Graph, Node, ValueId};

/// Puts [`BANK_LOW_RANK`] wherever its decomposition stands. Nodes that are left over are dead.
pub(super) fn low_rank(graph: &mut Graph) {
    let mut at = 0;
    while at < graph.nodes.len() {
        if let Some(inputs) = matched(graph, at) {
            let out = graph.nodes[at].output(0);
            let before = graph.nodes.len();
            let made = fused::emit(&mut Builder::new(graph, ""), BANK_LOW_RANK, &inputs, &[]);
            // The new node takes the place and the value of the addition.
            let mut node = graph.nodes.remove(before);
            node.name = format!("{}.low_rank", graph.nodes[at].name);
            node.outputs = vec![out];
            graph.nodes[at] = node;
            debug_assert!(Some(made) != out);
        }
        at += 1;
    }
}

/// The inputs of the operator that could stand for the addition at `at`.
fn matched(graph: &Graph, at: usize) -> Option<[ValueId; 7]> {
    let add = graph.nodes.get(at).filter(|n| n.is("Add"))?;
    let (y, change) = (add.input(0)?, add.input(1)?);
    let up = maker(graph, change, GRAFT_DOMAIN, BANK_UP)?;
    let scaled = maker(graph, up.input(0)?, "", "Mul")?;
    let down = maker(graph, scaled.input(0)?, GRAFT_DOMAIN, BANK_DOWN)?;
    let wide = graph.nodes.iter().find(|n| n.is("Unsqueeze") && n.output(0) == scaled.input(1))?;
    let axes = graph.constant(wide.input(1)?)?.to_i64s()?;
    let scale = wide.input(0).filter(|v| graph.inputs.contains(v) && axes == [1, 2])?;
    let alike = graph.shape(y).is_some() && graph.shape(y).map(Vec::len) == Some(3);
    alike.then_some(())?;
    Some([y, down.input(0)?, down.input(1)?, down.input(2)?, up.input(1)?, up.input(2)?, scale])
}

/// The node of that operator that makes `v`, where nothing else reads it.
fn maker<'g>(graph: &'g Graph, v: ValueId, domain: &str, op: &str) -> Option<&'g Node> {
    let made = graph.nodes.iter().find(|n| n.output(0) == Some(v) && n.op == op && n.domain == domain)?;
    let readers = graph.nodes.iter().flat_map(|n| &n.inputs).filter(|i| **i == Some(v)).count();
    (readers == 1 && !graph.outputs.contains(&v)).then_some(made)
}
