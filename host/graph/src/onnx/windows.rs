//! Sizes of poolings that a reader of the file would get wrong by itself.

use crate::dim::Dim;
use crate::ir::{Attrs, Graph, Node, ValueId};
use crate::shape::conv::{Span, is_same};
use crate::tensor::Tensor;

/// The operator set whose shape inference leaves out, as kernels always did, a window that begins behind the image
/// where `ceil_mode` rounds up (ONNX's list of changes, AveragePool and MaxPool 22).
const CORRECTED: i64 = 22;

/// Whether [`correct`] has something to do.
pub(super) fn any_misjudged(graph: &Graph) -> bool {
    graph.nodes.iter().any(|n| is_misjudged(graph, n))
}

/// Puts a Reshape to the true sizes behind each pooling whose sizes ONNX's shape inference would get wrong: ONNX Runtime
/// refuses a graph whose other sizes, which are right, disagree with it. What the file says of a value would be merged
/// with what is inferred, and wrong again once the optimiser has changed the graph.
pub(super) fn correct(graph: &mut Graph) {
    for mut node in std::mem::take(&mut graph.nodes) {
        if !is_misjudged(graph, &node) {
            graph.nodes.push(node);
            continue;
        }
        let mut behind = Vec::new();
        for output in node.outputs.iter_mut() {
            let Some(y) = *output else { continue };
            let Some(sizes) = sizes(graph, y) else { continue };
            let raw = graph.add_value(&format!("{}/windows", graph.name_of(y)), graph.fact(y).clone());
            let sizes = graph.add_constant(&format!("{}/sizes", graph.name_of(y)), sizes);
            *output = Some(raw);
            behind.push(Node {
                op: "Reshape".into(),
                name: format!("{}/Reshape", graph.name_of(y)),
                inputs: vec![Some(raw), Some(sizes)],
                outputs: vec![Some(y)],
                attrs: Attrs::new(),
                ..Node::default()
            });
        }
        graph.nodes.push(node);
        graph.nodes.extend(behind);
    }
}

/// The shape of `y` as a Reshape is told it: where a size is not known, it is that of the input.
fn sizes(graph: &Graph, y: ValueId) -> Option<Tensor> {
    let sizes: Vec<i64> = graph.shape(y)?.iter().map(|d| d.known().unwrap_or(0)).collect();
    Some(Tensor::vector(&sizes))
}

/// Whether windows are left out along an axis of known size.
fn is_misjudged(graph: &Graph, node: &Node) -> bool {
    let pools = node.domain.is_empty() && matches!(node.op.as_str(), "MaxPool" | "AveragePool");
    // Windows of auto_pad SAME are one for each stride, rounded up, by every definition.
    if graph.opset() >= CORRECTED || !pools || is_same(node) || node.int("ceil_mode", 0) == 0 {
        return false;
    }
    let shape = |v: Option<&Option<ValueId>>| v.copied().flatten().and_then(|v| graph.shape(v));
    let (Some(x), Some(y)) = (shape(node.inputs.first()), shape(node.outputs.first())) else { return false };
    let rank = x.len().saturating_sub(2);
    (0..rank).any(|k| misses_one(node, k, rank, x.get(k + 2), y.get(k + 2)).unwrap_or(false))
}

/// Whether along spatial axis `k` of `rank` there is a window less than rounding up gives.
fn misses_one(node: &Node, k: usize, rank: usize, x: Option<&Dim>, y: Option<&Dim>) -> Option<bool> {
    let (size, windows) = (x?.known()?, y?.known()?);
    let Span { stride, reach, pads } = Span::of(node, *node.ints("kernel_shape")?.get(k)?, k, rank)?;
    let end = windows.checked_sub(1)?.checked_mul(stride)?.checked_add(reach)?;
    // Elements behind the last window, of the image or its padding, would be rounded up to one more.
    Some(end < size.checked_add(pads.0)?.checked_add(pads.1)?)
}
