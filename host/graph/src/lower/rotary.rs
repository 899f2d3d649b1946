//! Rotary positions (Su et al. 2021).

use super::{Lower, MICROSOFT, Outputs, Row};
use crate::ir::{Attr, ValueId};

pub(super) const RULES: &[Row] = &[
    ("", "RotaryEmbedding", |l| {
        let (cos, sin) = (l.x(1)?, l.x(2)?);
        let (cos, sin) = match l.node.input(3) {
            Some(positions) => (l.op("Gather", &[cos, positions]), l.op("Gather", &[sin, positions])),
            None => (cos, sin),
        };
        rotary(l, cos, sin)
    }),
    (MICROSOFT, "RotaryEmbedding", |l| {
        if l.node.int("is_packed_batching", 0) != 0 || l.node.float("scale", 1.0) != 1.0 {
            return Err("packed batches and scaled positions are not derived".into());
        }
        let (x, positions, cos, sin) = (l.x(0)?, l.x(1)?, l.x(2)?, l.x(3)?);
        let positions = match l.rank(positions)? {
            1 => {
                // One number is the position of the first token of every row.
                let axis = l.rank(x)?.checked_sub(2).ok_or("the input has no sequence axis")?;
                let axis = if l.rank(x)? == 3 { 1 } else { axis };
                let row = l.count(x, axis);
                let row = l.op("Add", &[row, positions]);
                l.unsqueeze(row, &[0])
            }
            _ => positions,
        };
        let (cos, sin) = (l.op("Gather", &[cos, positions]), l.op("Gather", &[sin, positions]));
        rotary(l, cos, sin)
    }),
];

/// The whole operator, for the cosines and sines of each position, `[batch or 1, sequence, half]`.
fn rotary(l: &mut Lower<'_, '_>, cos: ValueId, sin: ValueId) -> Outputs {
    let x = l.x(0)?;
    let interleaved = l.node.int("interleaved", 0) != 0;
    if l.rank(x)? == 4 {
        let (cos, sin) = (l.unsqueeze(cos, &[1]), l.unsqueeze(sin, &[1]));
        return Ok(vec![Some(rotate(l, x, cos, sin, interleaved)?)]);
    }
    if l.rank(x)? != 3 {
        return Err("the input must have three or four axes".into());
    }
    let width = l.width(x, -1)?;
    let heads = match l.node.int("num_heads", 0) {
        n if n > 0 => n,
        _ => width / (2 * l.width(cos, -1)?).max(1),
    };
    if heads < 1 || width % heads != 0 {
        return Err(format!("a width of {width} can't be cut into {heads} heads"));
    }
    let by_head = l.reshape(x, &[0, 0, heads, width / heads]);
    let (cos, sin) = (l.unsqueeze(cos, &[2]), l.unsqueeze(sin, &[2]));
    let y = rotate(l, by_head, cos, sin, interleaved)?;
    Ok(vec![Some(l.reshape(y, &[0, 0, width]))])
}

/// Turns pairs of the first elements of each head by their angle; the other elements stay. Of four axes, the last is
/// the head's; `cos` and `sin` broadcast to it with half as many elements.
pub(super) fn rotate(
    l: &mut Lower<'_, '_>,
    x: ValueId,
    cos: ValueId,
    sin: ValueId,
    interleaved: bool,
) -> Result<ValueId, String> {
    let (head, half) = (l.width(x, -1)?, l.width(cos, -1)?);
    let turned = half.checked_mul(2).filter(|t| *t <= head);
    let turned = turned.ok_or_else(|| format!("{half} angles for heads of width {head}"))?;
    let (part, rest) = match turned == head {
        true => (x, None),
        false => {
            let parts = l.split(x, 3, &[turned, head - turned]);
            (parts[0], Some(parts[1]))
        }
    };
    let parts = match interleaved {
        true => {
            let pairs = l.reshape(part, &[0, 0, 0, half, 2]);
            let last = l.b.ints(&[4]);
            let parts = l.split(pairs, 4, &[1, 1]);
            parts.into_iter().map(|p| l.op("Squeeze", &[p, last])).collect()
        }
        false => l.split(part, 3, &[half, half]),
    };
    let (a, b) = (parts[0], parts[1]);
    let (ac, bs) = (l.op("Mul", &[a, cos]), l.op("Mul", &[b, sin]));
    let (bc, as_) = (l.op("Mul", &[b, cos]), l.op("Mul", &[a, sin]));
    let (first, second) = (l.op("Sub", &[ac, bs]), l.op("Add", &[bc, as_]));
    let axis = |n: i64| [("axis", Attr::Int(n))];
    let mut y = match interleaved {
        true => {
            let (first, second) = (l.unsqueeze(first, &[4]), l.unsqueeze(second, &[4]));
            let pairs = l.op_with("Concat", &[first, second], &axis(4));
            l.reshape(pairs, &[0, 0, 0, turned])
        }
        false => l.op_with("Concat", &[first, second], &axis(3)),
    };
    if let Some(rest) = rest {
        y = l.op_with("Concat", &[y, rest], &axis(3));
    }
    Ok(y)
}
