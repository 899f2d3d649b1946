//! Gradients of quantised operators, straight-through (Bengio et al. 2013): rounding has the slope 1. A quantised
//! integer carries the gradient of the real number that it is before rounding, so what flows back is a float; scales
//! and zero points are fixed numbers. Weights stay quantised: a rule that reads one is given a copy that is dequantised
//! for it alone ([`dequantised_again`]).

use super::{Grads, Row, Rule};
use crate::builder::Builder;
use crate::ir::{Attr, Node, ValueId};
use crate::tensor::{DType, Tensor};

pub(super) const RULES: &[Row] = &[
    (
        "QuantizeLinear",
        "straight-through: slope 1 where the rounded number is representable, 0 where it is cut off, as PyTorch's \
         fake quantisation has it; no gradient of scale and zero point",
        quantize,
    ),
    ("DequantizeLinear", "no gradient of scale and zero point", dequantize),
    ("DynamicQuantizeLinear", "straight-through: slope 1; the range that is found is a fixed number", |r| {
        let (dq, scale) = (r.dy()?, r.y(1)?);
        Ok(vec![Some(r.op("Div", &[dq, scale]))])
    }),
    ("com.microsoft::MatMulNBits", "of the input alone; the weight is dequantised at run time", matmul_nbits),
];

/// Operators that a quantised integer may go through with its gradient.
const CARRIERS: &[&str] =
    &["DequantizeLinear", "Cast", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Identity"];

/// Whether something may flow back through input `k`: scales and zero points are fixed numbers.
pub(super) fn flows(node: &Node, k: usize) -> bool {
    k == 0 || !node.domain.is_empty() || !matches!(node.op.as_str(), "QuantizeLinear" | "DequantizeLinear")
}

/// Whether output `k`, an integer, carries the gradient of a real number. `held` tells that an input does.
pub(super) fn carried(node: &Node, k: usize, dtype: DType, held: bool) -> bool {
    use DType::{I4, I8, I16, I32, U4, U8, U16};
    let makes = node.is("QuantizeLinear") || (node.is("DynamicQuantizeLinear") && k == 0);
    matches!(dtype, I4 | I8 | I16 | I32 | U4 | U8 | U16) && (makes || held)
}

/// Refuses operators that compute with quantised integers.
pub(super) fn check(b: &Builder<'_>, node: &Node, wanted: &[bool]) -> Result<(), String> {
    let held = |(v, w): (&Option<ValueId>, &bool)| {
        *w && v.and_then(|v| b.graph.dtype(v)).is_some_and(|d| !d.is_float())
    };
    let computes = node.inputs.iter().zip(wanted).any(held);
    if !computes || node.domain.is_empty() && CARRIERS.contains(&node.op.as_str()) {
        return Ok(());
    }
    Err("gradients through arithmetic of quantised integers are not derived; quantise in the QDQ form \
         (QuantFormat.QDQ), dynamically, or weights alone"
        .into())
}

/// The smallest and largest number of a quantised type.
fn range(dtype: DType) -> Option<(f64, f64)> {
    Some(match dtype {
        DType::I4 => (-8.0, 7.0),
        DType::U4 => (0.0, 15.0),
        DType::I8 => (-128.0, 127.0),
        DType::U8 => (0.0, 255.0),
        DType::I16 => (-32_768.0, 32_767.0),
        DType::U16 => (0.0, 65_535.0),
        _ => return None,
    })
}

/// A scale or zero point in the shape that broadcasts to `x`: one number, or one for each place on an axis.
fn spread(r: &mut Rule<'_, '_>, v: ValueId, x: ValueId) -> Result<ValueId, String> {
    let shape = r.shape(v)?;
    match shape.as_slice() {
        [] => Ok(v),
        [n] if n.is(1) => Ok(v),
        [_] => {
            let rank = r.rank(x)?;
            let axis = r.axis(r.node.int("axis", 1), rank)?;
            let to: Vec<i64> = (axis..rank).map(|k| if k == axis { -1 } else { 1 }).collect();
            let to = r.b.ints(&to);
            Ok(r.op("Reshape", &[v, to]))
        }
        _ => Err("gradients through quantisation of activations in blocks are not derived".into()),
    }
}

fn quantize(r: &mut Rule<'_, '_>) -> Grads {
    let (dq, x, scale, q) = (r.dy()?, r.x(0)?, r.x(1)?, r.y(0)?);
    let dtype = r.dtype(x);
    let (low, high) =
        range(r.dtype(q)).ok_or_else(|| format!("quantisation to {} is not derived", r.dtype(q)))?;
    let scale = spread(r, scale, x)?;
    let scale = r.b.cast(scale, dtype);
    let scaled = r.op("Div", &[x, scale]);
    let mut whole = r.op("Round", &[scaled]);
    if let Some(zero) = r.node.input(2) {
        let zero = r.b.cast(zero, dtype);
        let zero = spread(r, zero, x)?;
        whole = r.op("Add", &[whole, zero]);
    }
    let (low, high) = (r.c(low, x), r.c(high, x));
    let (above, below) = (r.op("GreaterOrEqual", &[whole, low]), r.op("LessOrEqual", &[whole, high]));
    let inside = r.op("And", &[above, below]);
    let dx = r.op("Div", &[dq, scale]);
    let none = r.c(0.0, x);
    Ok(vec![Some(r.op("Where", &[inside, dx, none]))])
}

fn dequantize(r: &mut Rule<'_, '_>) -> Grads {
    let (dy, q, scale) = (r.dy()?, r.x(0)?, r.x(1)?);
    let scale = spread(r, scale, q)?;
    Ok(vec![Some(r.op("Mul", &[dy, scale]))])
}

/// `dy · W` for a weight `[N, K]` of 4 or 8 bits in blocks along K. The matrix is unpacked at run time: a zero that
/// is computed from `dy` goes into it, for ONNX Runtime would otherwise unpack every weight while loading.
fn matmul_nbits(r: &mut Rule<'_, '_>) -> Grads {
    let (dy, x) = (r.dy()?, r.x(0)?);
    if (1..5).any(|k| r.wants(k)) {
        return Err("the parts of a packed weight have no gradients".into());
    }
    if r.node.input(4).is_some() {
        return Err("gradients with reordered groups (g_idx) are not derived".into());
    }
    if r.node.int("weight_prepacked", 0) != 0 {
        return Err("gradients with a prepacked weight are not derived".into());
    }
    let (n, k, block) = (r.node.int("N", 0), r.node.int("K", 0), r.node.int("block_size", 0));
    let bits = r.node.int("bits", 4);
    if n < 1 || k < 1 || block < 1 || !matches!(bits, 4 | 8) {
        return Err(format!("a weight of {n} × {k} of {bits} bits in blocks of {block} is not derived"));
    }
    let dx = if r.wants(0) {
        let (packed, scales) = (r.x(1)?, r.x(2)?);
        let blocks = (k - 1) / block + 1;
        let none = runtime_zero(r.b, dy, DType::U8);
        let dtype = r.dtype(dy);
        let numbers = unpacked(r, packed, none, bits, &[n, -1, block])?;
        let numbers = r.b.cast(numbers, dtype);
        let to = r.b.ints(&[n, blocks, 1]);
        let zeros = match r.node.input(3) {
            None => r.c(f64::from(1 << (bits - 1)), dy),
            Some(z) if r.dtype(z).is_float() => r.op("Reshape", &[z, to]),
            Some(z) => {
                // Each row's points are packed on their own: an odd number of them leaves half a byte.
                let z = unpacked(r, z, none, bits, &[n, -1])?;
                let (from, end, axis) = (r.b.ints(&[0]), r.b.ints(&[blocks]), r.b.ints(&[1]));
                let z = r.op("Slice", &[z, from, end, axis]);
                let z = r.b.cast(z, dtype);
                r.op("Reshape", &[z, to])
            }
        };
        let scales = r.op("Reshape", &[scales, to]);
        let centred = r.op("Sub", &[numbers, zeros]);
        let weight = r.op("Mul", &[centred, scales]);
        let to = r.b.ints(&[n, -1]);
        let weight = r.op("Reshape", &[weight, to]);
        let (from, end, axis) = (r.b.ints(&[0]), r.b.ints(&[k]), r.b.ints(&[1]));
        let weight = r.op("Slice", &[weight, from, end, axis]);
        let rows = r.b.as_matrix(dy);
        let d = r.op("Gemm", &[rows, weight]);
        Some(r.b.reshape_like(d, x))
    } else {
        None
    };
    let bias = if r.wants(5) { Some(dy) } else { None };
    Ok(vec![dx, None, None, None, None, bias])
}

/// A scalar of value 0 that is not known before `dy` is.
fn runtime_zero(b: &mut Builder<'_>, dy: ValueId, dtype: DType) -> ValueId {
    let lowest = b.float(b.graph.dtype(dy).unwrap_or(DType::F32), f64::NEG_INFINITY);
    let never = b.op("Less", &[dy, lowest]);
    let never = b.cast(never, DType::F32);
    let none = b.op_with("ReduceSum", &[never], &[("keepdims", Attr::Int(0))]);
    b.cast(none, dtype)
}

/// Operators that a weight may go through between `DequantizeLinear` and its use.
const MOVES: &[&str] = &["Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Cast", "Identity"];

/// Most of these on the way.
const MAX_MOVES: usize = 8;

/// The inputs of a forward node for its rule: in the place of a weight that is dequantised there is one that is
/// dequantised again, which can't be done before `dy` is known. Otherwise all weights would lie in memory as floats
/// between the forward and the backward pass.
pub(super) fn dequantised_again(
    b: &mut Builder<'_>,
    made: &[Option<usize>],
    node: &Node,
    dy: ValueId,
) -> Vec<Option<ValueId>> {
    let mut again = |v: ValueId| {
        let matrix = b.graph.shape(v).is_some_and(|s| s.len() > 1);
        if matrix { weight_again(b, made, v, dy, MAX_MOVES) } else { None }.unwrap_or(v)
    };
    node.inputs.iter().map(|v| v.map(&mut again)).collect()
}

fn weight_again(
    b: &mut Builder<'_>,
    made: &[Option<usize>],
    v: ValueId,
    dy: ValueId,
    moves: usize,
) -> Option<ValueId> {
    let maker = b.graph.nodes.get(made.get(v.index()).copied().flatten()?)?.clone();
    let x = maker.input(0)?;
    let mut inputs = maker.inputs.clone();
    if maker.is("DequantizeLinear") {
        b.graph.constant(x)?;
        let scale = maker.input(1)?;
        let dtype = b.graph.dtype(scale)?;
        let none = runtime_zero(b, dy, dtype);
        inputs[1] = Some(b.op("Add", &[scale, none]));
    } else if maker.domain.is_empty() && MOVES.contains(&maker.op.as_str()) {
        inputs[0] = Some(weight_again(b, made, x, dy, moves.checked_sub(1)?)?);
    } else {
        return None;
    }
    b.emit(&maker.op, "", &inputs, maker.attrs, 1).first().copied()
}

/// Bytes as numbers of `bits` bits, the low half of a byte first, in another shape.
fn unpacked(
    r: &mut Rule<'_, '_>,
    packed: ValueId,
    none: ValueId,
    bits: i64,
    shape: &[i64],
) -> Result<ValueId, String> {
    if r.dtype(packed) != DType::U8 {
        return Err(format!("a weight packed in {} is not derived", r.dtype(packed)));
    }
    let to = r.b.ints(shape);
    if bits == 8 {
        let bytes = r.op("BitwiseOr", &[packed, none]);
        return Ok(r.op("Reshape", &[bytes, to]));
    }
    let (mask, four) = (r.b.constant(Tensor::scalar(15u8)), r.b.constant(Tensor::scalar(4u8)));
    let (mask, four) = (r.op("BitwiseOr", &[mask, none]), r.op("BitwiseOr", &[four, none]));
    let low = r.op("BitwiseAnd", &[packed, mask]);
    let high = r.op_with("BitShift", &[packed, four], &[("direction", Attr::from("RIGHT"))]);
    let last = r.b.ints(&[-1]);
    let (low, high) = (r.op("Unsqueeze", &[low, last]), r.op("Unsqueeze", &[high, last]));
    let pairs = r.op_with("Concat", &[low, high], &[("axis", Attr::Int(-1))]);
    Ok(r.op("Reshape", &[pairs, to]))
}
