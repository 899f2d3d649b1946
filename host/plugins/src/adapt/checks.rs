//! What a new node must fulfil.

use std::collections::BTreeSet;

use graft_graph::{DType, Graph, ValueId, dim, fused, shape};
use graft_plugin_api::{Code, Error, Result, config, wire};

use super::writer::Writer;

/// Most nodes that a method and an objective may add.
const MAX_NODES: usize = 50_000;

/// Most outputs of a node.
const MAX_OUTPUTS: u32 = 64;

/// Operators whose tensor inputs (from, to) have one element type.
const SAME_TYPE: [(&str, usize, usize); 15] = [
    ("Add", 0, 2),
    ("Sub", 0, 2),
    ("Mul", 0, 2),
    ("Div", 0, 2),
    ("MatMul", 0, 2),
    ("Gemm", 0, 3),
    ("Max", 0, 64),
    ("Min", 0, 64),
    ("Sum", 0, 64),
    ("Mean", 0, 64),
    ("Concat", 0, 64),
    ("Equal", 0, 2),
    ("Greater", 0, 2),
    ("Less", 0, 2),
    ("Where", 1, 3),
];

impl Writer {
    pub(super) fn check_operator(&self, node: &wire::Emit) -> Result<()> {
        if node.outputs == 0 || node.outputs > MAX_OUTPUTS {
            return Err(Error::new(Code::LIMIT, format!("`{}` with {} outputs", node.op, node.outputs)));
        }
        if self.graph.nodes.len() - self.base_nodes >= MAX_NODES {
            return Err(Error::new(Code::LIMIT, format!("more than {MAX_NODES} nodes were added")));
        }
        let known = match node.domain.as_str() {
            "" => shape::supported().any(|o| o == node.op),
            domain => fused::find(domain, &node.op).is_some(),
        };
        // Bases may have random operators, plugins may not: a run is repeatable.
        let random = node.op.starts_with("Random") || matches!(node.op.as_str(), "Bernoulli" | "Multinomial");
        if random {
            let e = Error::new(Code::UNSUPPORTED, format!("operator `{}` draws numbers of its own", node.op));
            return Err(e.help("random numbers come in through `noise`"));
        }
        if known {
            return Ok(());
        }
        let full =
            if node.domain.is_empty() { node.op.clone() } else { format!("{}::{}", node.domain, node.op) };
        let e =
            Error::new(Code::UNSUPPORTED, format!("operator `{full}` is not one that this host can infer"));
        let near = config::nearest(&node.op, shape::supported(), 3).join(", ");
        Err(if near.is_empty() { e } else { e.help(format!("the nearest are {near}")) })
    }

    pub(super) fn check_types(&self, op: &str, inputs: &[Option<ValueId>]) -> Result<()> {
        let Some((_, from, to)) = SAME_TYPE.iter().find(|(o, _, _)| *o == op) else { return Ok(()) };
        let ids = inputs.iter().take(*to).skip(*from).flatten();
        let types: BTreeSet<DType> = ids.filter_map(|v| self.graph.dtype(*v)).collect();
        if types.len() < 2 {
            return Ok(());
        }
        let types: Vec<_> = types.iter().map(|t| t.name()).collect();
        Err(Error::new(Code::REFUSED, format!("`{op}` was given {}", types.join(" and ")))
            .help("insert a Cast"))
    }

    /// The last node's result must be known, unless it depends on data.
    pub(super) fn check_result(
        &mut self,
        op: &str,
        inputs: &[Option<ValueId>],
        output: ValueId,
    ) -> Result<()> {
        let g = &self.graph;
        let whole = |v: &ValueId| g.dtype(*v).is_some() && g.shape(*v).is_some();
        let by_data = |v: &ValueId| {
            let integer = g.dtype(*v).is_some_and(|d| !d.is_float());
            integer && g.fact(*v).elements.is_none() && g.constant(*v).is_none()
        };
        let given: Vec<ValueId> = inputs.iter().flatten().copied().collect();
        let excused = !given.iter().all(whole) || given.iter().skip(1).any(by_data);
        if inner_fits(g, op, &given) && (g.shape(output).is_some() || excused) {
            return Ok(());
        }
        let shapes: Vec<String> = given.iter().filter_map(|v| g.shape(*v)).map(|s| dim::show(s)).collect();
        self.graph.nodes.pop();
        Err(Error::new(Code::REFUSED, format!("`{op}` has no result for {}", shapes.join(" and "))))
    }
}

/// False for a matrix product over extents that are never equal; shape inference takes the outer ones on trust.
fn inner_fits(g: &Graph, op: &str, inputs: &[ValueId]) -> bool {
    let (Some(a), Some(b)) =
        (inputs.first().and_then(|v| g.shape(*v)), inputs.get(1).and_then(|v| g.shape(*v)))
    else {
        return true;
    };
    let inner = (a.last(), b.len().checked_sub(2).map_or(b.first(), |i| b.get(i)));
    match inner {
        (Some(x), Some(y)) if op == "MatMul" => x.equals(y) != Some(false),
        _ => true,
    }
}
