//! Brings operators of older operator sets to the form of the working one, so that every rule sees one form.
//!
//! One row a change: operator, the operator set that changed it, and what to do with a node of an older one.

use crate::dim::Dim;
use crate::ir::{Attr, Attrs, Graph, Node, ValueId};
use crate::tensor::Tensor;

/// A change that an operator set made to an operator.
struct Change {
    op: &'static str,
    since: i64,
    /// Rewrites the node; nodes that must stand before it are pushed to the graph first.
    apply: fn(&mut Graph, &mut Node) -> Result<(), String>,
}

const CHANGES: &[Change] = &[
    Change { op: "BatchNormalization", since: 9, apply: statistics_by_channel },
    Change { op: "Slice", since: 10, apply: |g, n| attrs_to_inputs(g, n, &["starts", "ends", "axes"]) },
    Change { op: "Clip", since: 11, apply: |g, n| floats_to_inputs(g, n, &["min", "max"]) },
    Change {
        op: "Pad",
        since: 11,
        apply: |g, n| {
            attrs_to_inputs(g, n, &["pads"])?;
            floats_to_inputs(g, n, &["value"])
        },
    },
    Change { op: "Dropout", since: 12, apply: dropout_is_identity },
    Change { op: "Squeeze", since: 13, apply: |g, n| attrs_to_inputs(g, n, &["axes"]) },
    Change { op: "Unsqueeze", since: 13, apply: |g, n| attrs_to_inputs(g, n, &["axes"]) },
    Change { op: "ReduceSum", since: 13, apply: |g, n| attrs_to_inputs(g, n, &["axes"]) },
    Change { op: "Split", since: 13, apply: |g, n| attrs_to_inputs(g, n, &["split"]) },
    Change { op: "Softmax", since: 13, apply: flattened_softmax },
    Change { op: "LogSoftmax", since: 13, apply: flattened_softmax },
    Change { op: "Split", since: 18, apply: count_split_outputs },
    Change { op: "DFT", since: 20, apply: axis_of_transform },
    Change { op: "ReduceMean", since: 18, apply: |g, n| attrs_to_inputs(g, n, &["axes"]) },
    Change { op: "ReduceMax", since: 18, apply: |g, n| attrs_to_inputs(g, n, &["axes"]) },
    Change { op: "ReduceMin", since: 18, apply: |g, n| attrs_to_inputs(g, n, &["axes"]) },
    Change { op: "ReduceProd", since: 18, apply: |g, n| attrs_to_inputs(g, n, &["axes"]) },
    Change { op: "ReduceL1", since: 18, apply: |g, n| attrs_to_inputs(g, n, &["axes"]) },
    Change { op: "ReduceL2", since: 18, apply: |g, n| attrs_to_inputs(g, n, &["axes"]) },
    Change { op: "ReduceLogSum", since: 18, apply: |g, n| attrs_to_inputs(g, n, &["axes"]) },
    Change { op: "ReduceLogSumExp", since: 18, apply: |g, n| attrs_to_inputs(g, n, &["axes"]) },
    Change { op: "ReduceSumSquare", since: 18, apply: |g, n| attrs_to_inputs(g, n, &["axes"]) },
];

/// Upgrades every node of ONNX's own domain to operator set `to`; a newer graph is left as it is.
///
/// # Errors
/// A sentence that names the node which cannot be expressed in the newer form.
pub fn upgrade(graph: &mut Graph, to: i64) -> Result<(), String> {
    let from = graph.opset();
    upgrade_nodes(graph, from)?;
    if from < to {
        graph.opsets.insert(String::new(), to);
    }
    Ok(())
}

fn upgrade_nodes(graph: &mut Graph, from: i64) -> Result<(), String> {
    let nodes = std::mem::take(&mut graph.nodes);
    for mut node in nodes {
        for attr in node.attrs.values_mut() {
            if let Attr::Graph(g) = attr {
                upgrade_nodes(g, from)?;
            }
        }
        if node.domain.is_empty() {
            for c in CHANGES.iter().filter(|c| from < c.since) {
                if c.op == node.op {
                    (c.apply)(graph, &mut node)?;
                }
            }
        }
        graph.nodes.push(node);
    }
    Ok(())
}

/// Integer attributes that became inputs, in order from the first input on that is free.
fn attrs_to_inputs(g: &mut Graph, n: &mut Node, names: &[&str]) -> Result<(), String> {
    for name in names {
        let value = match n.attrs.remove(*name) {
            Some(Attr::Ints(v)) => Some(g.add_constant(&format!("{}_{name}", n.name), Tensor::vector(&v))),
            _ => None,
        };
        n.inputs.push(value);
    }
    while n.inputs.last() == Some(&None) {
        n.inputs.pop();
    }
    Ok(())
}

fn floats_to_inputs(g: &mut Graph, n: &mut Node, names: &[&str]) -> Result<(), String> {
    for name in names {
        let value = match n.attrs.remove(*name) {
            Some(Attr::Float(v)) => Some(g.add_constant(&format!("{}_{name}", n.name), Tensor::scalar(v))),
            _ => None,
        };
        n.inputs.push(value);
    }
    while n.inputs.last() == Some(&None) {
        n.inputs.pop();
    }
    Ok(())
}

/// Before operator set 12 dropout of an exported model does nothing: there was no training mode.
fn dropout_is_identity(_: &mut Graph, n: &mut Node) -> Result<(), String> {
    n.op = "Identity".into();
    n.attrs.clear();
    n.outputs.truncate(1);
    Ok(())
}

/// Before operator set 20 the axis was an attribute, and 1 where it was not given.
fn axis_of_transform(g: &mut Graph, n: &mut Node) -> Result<(), String> {
    let axis = n.attrs.remove("axis").and_then(|a| if let Attr::Int(k) = a { Some(k) } else { None });
    let axis = g.add_constant(&format!("{}_axis", n.name), Tensor::scalar(axis.unwrap_or(1)));
    n.inputs.resize(2, None);
    n.inputs.push(Some(axis));
    Ok(())
}

/// Before operator set 9 `spatial` said whether statistics are by channel, which they have been since.
fn statistics_by_channel(_: &mut Graph, n: &mut Node) -> Result<(), String> {
    match n.attrs.remove("spatial") {
        None | Some(Attr::Int(1)) => Ok(()),
        _ => Err(format!(
            "BatchNormalization '{}' has statistics by element, which newer operator sets lack",
            n.name
        )),
    }
}

fn count_split_outputs(_: &mut Graph, n: &mut Node) -> Result<(), String> {
    if n.input(1).is_none() {
        n.attrs.insert("num_outputs".into(), Attr::Int(n.outputs.len() as i64));
    }
    Ok(())
}

/// Before operator set 13 softmax ran over all axes from `axis` on, flattened; the default was 1.
fn flattened_softmax(g: &mut Graph, n: &mut Node) -> Result<(), String> {
    let axis = n.int("axis", 1);
    let rank = n.input(0).and_then(|x| g.shape(x)).map(|s| s.len() as i64);
    n.attrs.insert("axis".into(), Attr::Int(-1));
    if axis == -1 || rank.is_some_and(|r| axis == r - 1) {
        return Ok(());
    }
    let (Some(x), Some(y)) = (n.input(0), n.output(0)) else { return Ok(()) };
    let value = |g: &mut Graph, what: &str| g.add_value(&format!("{}_{what}", n.name), Default::default());
    let (flat, shape, soft) = (value(g, "flat"), value(g, "shape"), value(g, "soft"));
    let node = |op: &str, inputs: &[ValueId], output: ValueId, attrs: Attrs| Node {
        op: op.into(),
        name: n.name.clone(),
        inputs: inputs.iter().copied().map(Some).collect(),
        outputs: vec![Some(output)],
        attrs,
        metadata: n.metadata.clone(),
        ..Node::default()
    };
    g.nodes.push(node("Flatten", &[x], flat, Attrs::from([("axis".into(), Attr::Int(axis))])));
    g.nodes.push(node("Shape", &[x], shape, Attrs::new()));
    g.nodes.push(node(&n.op, &[flat], soft, n.attrs.clone()));
    *n = node("Reshape", &[soft, shape], y, Attrs::new());
    g.fact_mut(shape).elements = None::<Vec<Dim>>;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batch_norm_by_element_is_refused_and_by_channel_loses_the_attribute() {
        let with = |spatial: i64| {
            let mut g = Graph::new("old", 7);
            g.nodes.push(Node {
                op: "BatchNormalization".into(),
                name: "/norm".into(),
                attrs: Attrs::from([("spatial".into(), Attr::Int(spatial))]),
                ..Node::default()
            });
            upgrade(&mut g, 20).map(|()| g.nodes.remove(0).attrs)
        };
        assert_eq!(with(1), Ok(Attrs::new()));
        assert!(with(0).unwrap_err().contains("/norm"));
    }
}
