//! Virtual tokens in batches of rows that have different numbers of them.
//!
//! Whoever feeds a row lays out as many tokens in front of it as its adapter has, so that to the base it is a longer row.
//! A graph that counts on that has two operators of Graft's domain, which no session runs: [`crate::batch`] puts others
//! in their place.
//!
//! | operator | inputs | what |
//! |---|---|---|
//! | `PutVirtual` | value `[batch, …, tokens, …]`, rows (those axes without the batch, `count` tokens), count f32 `[]` | the value with the rows at the first tokens along `axis` |
//! | `DropVirtual` | value `[batch, tokens, …]`, count f32 `[]` | each row moved to the front by `count` tokens, zeros behind it |

use super::emit::Emit;
use super::rules::Operand;
use crate::builder::Builder;
use crate::ir::{Attr, Attrs, GRAFT_DOMAIN, Node, ValueId};
use crate::tensor::{DType, Tensor};

const PUT: &str = "PutVirtual";
const DROP: &str = "DropVirtual";
/// The axis of tokens of what tokens are dropped from.
const TOKENS: i64 = 1;

/// A `PutVirtual` node.
pub fn put(b: &mut Builder<'_>, value: ValueId, rows: ValueId, count: ValueId, axis: usize) -> ValueId {
    let attrs: Attrs = [("axis".to_owned(), Attr::Int(axis as i64))].into_iter().collect();
    b.emit(PUT, GRAFT_DOMAIN, &[Some(value), Some(rows), Some(count)], attrs, 1)[0]
}

/// A `DropVirtual` node.
pub fn drop(b: &mut Builder<'_>, value: ValueId, count: ValueId) -> ValueId {
    b.emit(DROP, GRAFT_DOMAIN, &[Some(value), Some(count)], Attrs::default(), 1)[0]
}

/// Whether it is one of the two: what they give has the type and shape of the value, and rows without virtual tokens stay
/// as they are.
pub(crate) fn is_virtual(node: &Node) -> bool {
    node.domain == GRAFT_DOMAIN && [PUT, DROP].contains(&node.op.as_str())
}

/// Places along `axis` that lie before each row's own number, as `[batch, places]` spread to `rank` axes.
fn before(e: &mut Emit<'_>, places: ValueId, count: ValueId, axis: i64, rank: usize) -> ValueId {
    let column = e.unsqueeze(count, &[1]);
    let inside = e.op("Less", &[places, column]);
    let axes: Vec<i64> = (1..rank as i64).filter(|a| *a != axis).collect();
    if axes.is_empty() { inside } else { e.unsqueeze(inside, &axes) }
}

/// 0, 1, … below a size.
fn places(e: &mut Emit<'_>, size: ValueId) -> ValueId {
    let (zero, one) = (e.constant(Tensor::scalar(0i64)), e.constant(Tensor::scalar(1i64)));
    e.op("Range", &[zero, size, one])
}

/// The size of an axis, a number.
fn size(e: &mut Emit<'_>, v: ValueId, axis: i64) -> ValueId {
    let size = e.op_with("Shape", &[v], &[("start", axis.into()), ("end", (axis + 1).into())]);
    e.squeeze(size, &[0])
}

pub(super) fn put_rule(e: &mut Emit<'_>, node: &Node, operands: &[Operand]) -> Result<ValueId, &'static str> {
    let [Operand::Same(x), Operand::Slot(rows), Operand::Slot(count)] = *operands else {
        return Err("puts something else than parameters at virtual tokens");
    };
    let rank = node.input(0).and_then(|v| e.rank(v)).ok_or("has a value of unknown rank")?;
    let axis = node.int("axis", TOKENS);
    let along = usize::try_from(axis - 1).map_err(|_| "has an axis that is none")?;
    let (own, count) = (e.rows(rows, Some(along))?, e.rows(count, None)?);
    let x = e.entrance(node, x);
    let most = size(e, own, axis);
    let places = places(e, most);
    let places = e.cast(places, DType::F32);
    let mine = before(e, places, count, axis, rank);
    let (zero, end) = (e.ints(&[0]), e.ints(&[i64::MAX]));
    let (most, along) = (e.unsqueeze(most, &[0]), e.ints(&[axis]));
    let front = e.op("Slice", &[x, zero, most, along]);
    let front = e.op("Where", &[mine, own, front]);
    let rest = e.op("Slice", &[x, most, end, along]);
    Ok(e.op_with("Concat", &[front, rest], &[("axis", axis.into())]))
}

/// The number 0 of a type that values of tokens have.
fn zero_of(dtype: DType) -> Option<Tensor> {
    Some(match dtype {
        DType::F32 => Tensor::scalar(0f32),
        DType::F64 => Tensor::scalar(0f64),
        DType::I64 => Tensor::scalar(0i64),
        DType::I32 => Tensor::scalar(0i32),
        DType::Bool => Tensor::scalar(false),
        _ => return None,
    })
}

pub(super) fn drop_rule(
    e: &mut Emit<'_>,
    node: &Node,
    operands: &[Operand],
) -> Result<ValueId, &'static str> {
    let [Operand::Same(x), Operand::Slot(count)] = *operands else {
        return Err("drops something else than virtual tokens");
    };
    let value = node.input(0).ok_or("lacks an operand")?;
    let rank = e.rank(value).ok_or("has a value of unknown rank")?;
    let zero = e.dtype(value).and_then(zero_of);
    let zero = zero.ok_or("has a value of unknown type")?;
    let count = e.rows(count, None)?;
    let x = e.entrance(node, x);
    let length = size(e, x, TOKENS);
    let places = places(e, length);
    let column = e.cast(count, DType::I64);
    let column = e.unsqueeze(column, &[1]);
    let from = e.op("Add", &[places, column]);
    let inside = e.op("Less", &[from, length]);
    let one = e.constant(Tensor::scalar(1i64));
    let last = e.op("Sub", &[length, one]);
    let from = e.op("Min", &[from, last]);
    let from = e.unsqueeze(from, &[2]);
    let moved = e.op_with("GatherND", &[x, from], &[("batch_dims", 1i64.into())]);
    let axes: Vec<i64> = (2..rank as i64).collect();
    let inside = if axes.is_empty() { inside } else { e.unsqueeze(inside, &axes) };
    let zero = e.constant(zero);
    Ok(e.op("Where", &[inside, moved, zero]))
}
