//! Attention operators: ONNX Runtime's own, and that of operator set 23.

use super::heads::{Attend, Seen};
use super::rotary::rotate;
use super::{Lower, MICROSOFT, Outputs, Row};
use crate::ir::ValueId;
use crate::tensor::{DType, Tensor};

const CACHE: &str = "a cache of past keys and values; export the model without past (use_cache off)";

pub(super) const RULES: &[Row] = &[
    (MICROSOFT, "Attention", packed),
    (MICROSOFT, "MultiHeadAttention", multi_head),
    (MICROSOFT, "GroupQueryAttention", group_query),
    ("", "Attention", standard),
];

/// One product makes queries, keys and values of one input.
fn packed(l: &mut Lower<'_, '_>) -> Outputs {
    l.without(&[(4, CACHE), (6, CACHE)])?;
    if l.node.int("do_rotary", 0) != 0 {
        return Err("gradients with rotary positions inside the operator are not derived".into());
    }
    let (x, weights) = (l.x(0)?, l.x(1)?);
    let (n, width) = (l.head_count("num_heads")?, l.width(weights, 1)?);
    let sizes = match l.node.ints("qkv_hidden_sizes") {
        Some(s) => s.to_vec(),
        None => vec![width / 3; 3],
    };
    if sizes.len() != 3 || sizes.iter().any(|s| *s < 1) || sizes.iter().sum::<i64>() != width {
        return Err(format!("a product of width {width} can't be cut into {sizes:?}"));
    }
    let mut all = l.op("MatMul", &[x, weights]);
    if let Some(bias) = l.node.input(2) {
        all = l.op("Add", &[all, bias]);
    }
    let parts = l.split(all, 2, &sizes);
    let (q, k, v) = (l.heads(parts[0], n)?, l.heads(parts[1], n)?, l.heads(parts[2], n)?);
    let mut biases = Vec::new();
    if let Some(mask) = l.node.input(3) {
        biases.push(l.padding(mask, k, x)?);
    }
    biases.extend(l.node.input(5));
    // Beside padding that is as good as minus infinity a query may see nothing but that.
    let hidden = l.node.input(3).is_some() && l.node.float("mask_filter_value", -10_000.0) <= -1e30;
    let back = (l.node.int("unidirectional", 0) != 0).then(|| l.looking_back(q, k));
    let seen = back.map(if hidden { Seen::OrMean } else { Seen::Some });
    let scale = l.node.float("scale", 0.0);
    let y = l.attend(Attend { q, k, v, scale, softcap: 0.0, biases, seen })?;
    Ok(vec![Some(l.merged(y)?)])
}

fn multi_head(l: &mut Lower<'_, '_>) -> Outputs {
    l.without(&[(6, CACHE), (7, CACHE), (8, CACHE), (9, CACHE)])?;
    let packed = "gradients with keys and values packed into one input are not derived";
    let (Some(k), Some(v)) = (l.node.input(1), l.node.input(2)) else { return Err(packed.into()) };
    let (n, q) = (l.head_count("num_heads")?, l.x(0)?);
    if l.rank(q)? != 3 || l.rank(k)? == 5 {
        return Err(packed.into());
    }
    // Keys and values of a cross attention may come in heads already.
    let in_heads = l.rank(k)? == 4;
    let mut parts = [q, k, v];
    if let Some(bias) = l.node.input(3) {
        let of_value = if in_heads { n.saturating_mul(l.width(v, -1)?) } else { l.width(v, -1)? };
        let sizes = [l.width(q, -1)?, l.width(q, -1)?, of_value];
        let pieces = pieces(l, bias, &sizes)?;
        for (part, piece) in parts.iter_mut().zip(pieces).take(if in_heads { 1 } else { 3 }) {
            *part = l.op("Add", &[*part, piece]);
        }
    }
    let q = l.heads(parts[0], n)?;
    let (k, v) = match in_heads {
        true => (k, v),
        false => (l.heads(parts[1], n)?, l.heads(parts[2], n)?),
    };
    let mut biases = Vec::new();
    if let Some(mask) = l.node.input(4) {
        biases.push(l.padding(mask, k, q)?);
    }
    biases.extend(l.node.input(5));
    let seen = (l.node.int("unidirectional", 0) != 0).then(|| Seen::Some(back_but_last(l, q, k)));
    let scale = l.node.float("scale", 0.0);
    let y = l.attend(Attend { q, k, v, scale, softcap: 0.0, biases, seen })?;
    Ok(vec![Some(l.merged(y)?), Some(k), Some(v)])
}

/// Which keys a query sees in a `MultiHeadAttention` that looks back only. ONNX Runtime hides nothing from the last
/// query, which matters where there are more keys than queries.
fn back_but_last(l: &mut Lower<'_, '_>, q: ValueId, k: ValueId) -> ValueId {
    let (back, rows) = (l.looking_back(q, k), l.count(q, 2));
    let one = l.b.ints(&[1]);
    let (from, size) = (l.unsqueeze(rows, &[1]), l.op("Shape", &[rows]));
    let end = l.op("Sub", &[size, one]);
    let last = l.op("Equal", &[from, end]);
    l.op("Or", &[back, last])
}

/// A bias of queries, keys and values in three: constants, where it is one, so that each is seen to be the bias of
/// its product.
fn pieces(l: &mut Lower<'_, '_>, bias: ValueId, sizes: &[i64; 3]) -> Result<Vec<ValueId>, String> {
    let name = l.b.graph.name_of(bias).to_string();
    if l.width(bias, 0)? != sizes.iter().try_fold(0i64, |sum, n| sum.checked_add(*n)).unwrap_or(0) {
        return Err(format!("the bias '{name}' can't be cut into {sizes:?}"));
    }
    let Some(t) = l.b.graph.constant(bias).cloned() else { return Ok(l.split(bias, 0, sizes)) };
    let (size, mut from, mut made) = (t.dtype().bits() / 8, 0, Vec::new());
    for (n, what) in sizes.iter().zip(["query", "key", "value"]) {
        let n = *n as usize;
        let bytes = t.bytes().slice(from * size..(from + n) * size);
        let piece = Tensor::from_bytes(t.dtype(), [n], bytes).map_err(|e| e.to_string())?;
        made.push(l.b.graph.add_constant(&format!("{name}.{what}"), piece));
        from += n;
    }
    Ok(made)
}

fn group_query(l: &mut Lower<'_, '_>) -> Outputs {
    l.without(&[
        (3, CACHE),
        (4, CACHE),
        (11, "attention sinks"),
        (12, "a quantised cache"),
        (13, "a quantised cache"),
        (14, "normalised queries"),
        (15, "normalised keys"),
    ])?;
    if l.node.int("smooth_softmax", 0) > 0 {
        return Err("gradients with a smooth softmax are not derived".into());
    }
    let (n, own) = (l.head_count("num_heads")?, l.head_count("kv_num_heads")?);
    let q = l.x(0)?;
    let (q, k, v) = match (l.node.input(1), l.node.input(2)) {
        (Some(k), Some(v)) => (q, k, v),
        _ => {
            let heads = own.checked_mul(2).and_then(|o| o.checked_add(n)).ok_or("too many heads")?;
            let width = l.width(q, -1)? / heads;
            let parts = l.split(q, 2, &[n * width, own * width, own * width]);
            (parts[0], parts[1], parts[2])
        }
    };
    let (mut q, mut k, v) = (l.heads(q, n)?, l.heads(k, own)?, l.heads(v, own)?);
    if l.node.int("do_rotary", 0) != 0 {
        let mut row = l.count(q, 2);
        if let Some(p) = l.node.input(9) {
            // Without a cache the operator takes the very first position alone and counts on from there.
            let p = l.reshape(p, &[-1]);
            let zero = l.b.ints(&[0]);
            let first = l.op("Gather", &[p, zero]);
            row = l.op("Add", &[row, first]);
        }
        let positions = l.unsqueeze(row, &[0]);
        let (cos, sin) = (l.x(7)?, l.x(8)?);
        let (cos, sin) = (l.op("Gather", &[cos, positions]), l.op("Gather", &[sin, positions]));
        let (cos, sin) = (l.unsqueeze(cos, &[1]), l.unsqueeze(sin, &[1]));
        let interleaved = l.node.int("rotary_interleaved", 0) != 0;
        q = rotate(l, q, cos, sin, interleaved)?;
        k = rotate(l, k, cos, sin, interleaved)?;
    }
    let seen = match l.node.int("causal", 1) {
        0 => None,
        _ => Some(l.looking_back(q, k)),
    };
    let window = l.node.int("local_window_size", -1);
    let seen = match seen {
        Some(back) if window > 0 => {
            let near = near(l, q, k, window);
            Some(l.op("And", &[back, near]))
        }
        seen => seen,
    };
    // The last token of each row; what comes behind it is padding.
    let last = l.x(5)?;
    let last = l.reshape(last, &[-1]);
    let (last, keys) = (l.b.cast(last, DType::I64), l.count(k, 2));
    let last = l.unsqueeze(last, &[1, 2, 3]);
    let real = l.op("LessOrEqual", &[keys, last]);
    let seen = match seen {
        Some(back) => l.op("And", &[back, real]),
        None => real,
    };
    // Behind the last token there may be nothing but padding in a window.
    let seen = Some(if window > 0 { Seen::OrZeros(seen) } else { Seen::Some(seen) });
    let biases = l.node.input(10).into_iter().collect();
    let (scale, softcap) = (l.node.float("scale", 0.0), l.node.float("softcap", 0.0));
    let y = l.attend(Attend { q, k, v, scale, softcap, biases, seen })?;
    Ok(vec![Some(l.merged(y)?), Some(k), Some(v)])
}

/// Whether a key is one of the `window` last ones of a query, its own place included.
fn near(l: &mut Lower<'_, '_>, q: ValueId, k: ValueId, window: i64) -> ValueId {
    let (rows, columns) = (l.count(q, 2), l.count(k, 2));
    let (rows, columns) = (l.unsqueeze(rows, &[1]), l.unsqueeze(columns, &[0]));
    let window = l.b.ints(&[window]);
    let end = l.op("Add", &[columns, window]);
    l.op("Greater", &[end, rows])
}

/// Attention of operator set 23, with three or four axes.
fn standard(l: &mut Lower<'_, '_>) -> Outputs {
    l.without(&[(4, CACHE), (5, CACHE), (6, "lengths of padded keys")])?;
    let (q, k, v) = (l.x(0)?, l.x(1)?, l.x(2)?);
    let flat = l.rank(q)? == 3;
    let (q, k, v) = match flat {
        true => {
            let (n, own) = (l.head_count("q_num_heads")?, l.head_count("kv_num_heads")?);
            (l.heads(q, n)?, l.heads(k, own)?, l.heads(v, own)?)
        }
        false => (q, k, v),
    };
    let (mut biases, mut seen) = (Vec::new(), None);
    if let Some(mask) = l.node.input(3) {
        match l.b.graph.dtype(mask) {
            Some(DType::Bool) => seen = Some(mask),
            _ => biases.push(mask),
        }
    }
    let seen = match (l.node.int("is_causal", 0) != 0, seen) {
        (true, Some(mask)) => {
            let back = l.looking_back(q, k);
            Some(Seen::OrMean(l.op("And", &[mask, back])))
        }
        (true, None) => Some(Seen::Some(l.looking_back(q, k))),
        (false, mask) => mask.map(Seen::OrMean),
    };
    let (scale, softcap) = (l.node.float("scale", 0.0), l.node.float("softcap", 0.0));
    let y = l.attend(Attend { q, k, v, scale, softcap, biases, seen })?;
    let y = if flat { l.merged(y)? } else { y };
    Ok(vec![Some(y), Some(k), Some(v)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dim::Dim;
    use crate::ir::{Attr, Attrs, Fact, Graph, Node};

    #[test]
    fn a_cache_is_refused_with_a_way_out() {
        let mut g = Graph::new("g", 23);
        let shape = || vec![Dim::from("b"), Dim::from(2), Dim::from("s"), Dim::from(4)];
        let inputs: Vec<ValueId> =
            ["q", "k", "v", "pk", "pv"].iter().map(|n| g.add_input(n, DType::F32, shape())).collect();
        let y = g.add_value("y", Fact::default());
        let inputs =
            [Some(inputs[0]), Some(inputs[1]), Some(inputs[2]), None, Some(inputs[3]), Some(inputs[4])];
        g.nodes.push(Node {
            op: "Attention".into(),
            inputs: inputs.to_vec(),
            outputs: vec![Some(y)],
            attrs: Attrs::from([("is_causal".into(), Attr::Int(1))]),
            ..Node::default()
        });
        g.outputs = vec![y];
        assert_eq!(super::super::lower(&mut g), vec![]);
        let why = super::super::refusal(&g, &g.nodes[0]).unwrap();
        assert!(why.contains("without past"), "{why}");
    }
}
