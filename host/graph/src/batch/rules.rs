//! What an operator becomes when some of its operands differ from row to row of the batch: one row an operator.
//!
//! A value of parameters `[a, b]` becomes `[batch, a, b]`, the rows of its bank; values of rows are `[batch, …]` already.

use super::emit::Emit;
use super::slot::{Layout, Null};
use super::virtual_tokens;
use crate::ir::{Attr, Node, ValueId};

/// An operand.
#[derive(Debug, Clone, Copy)]
pub(super) enum Operand {
    /// A value of the joined graph, which is what it was before.
    Same(ValueId),
    /// A value of the fragment's parameters.
    Slot(ValueId),
    /// Left out.
    None,
}

/// From a node and its operands to its first output in the joined graph.
pub(super) type Rule = fn(&mut Emit<'_>, &Node, &[Operand]) -> Result<ValueId, &'static str>;

const RULES: &[(&str, Rule)] = &[
    ("Add", each),
    ("Sub", each),
    ("Mul", each),
    ("Div", each),
    ("Pow", each),
    ("Max", each),
    ("Min", each),
    ("Where", each),
    ("PRelu", each),
    ("Equal", each),
    ("Less", each),
    ("Greater", each),
    ("MatMul", matmul),
    ("Gemm", gemm),
    ("LayerNormalization", layer_norm),
    ("graft::RMSNorm", rms_norm),
    ("Expand", expand),
    ("Gather", gather),
    ("graft::PutVirtual", virtual_tokens::put_rule),
    ("graft::DropVirtual", virtual_tokens::drop_rule),
];

pub(super) fn find(op: &str) -> Option<Rule> {
    RULES.iter().find(|(name, _)| *name == op).map(|(_, rule)| *rule)
}

/// Operators that have a rule.
pub fn supported() -> impl Iterator<Item = &'static str> {
    RULES.iter().map(|(name, _)| *name)
}

/// The operand with an axis for the batch in front, and of the rank that makes it broadcast to `rank` axes.
fn spread(e: &mut Emit<'_>, operand: Operand, rank: usize) -> Result<ValueId, &'static str> {
    let v = match operand {
        Operand::Same(v) => return Ok(v),
        Operand::None => return Err("lacks an operand"),
        Operand::Slot(v) => v,
    };
    let own = e.rank(v).ok_or("has an operand of unknown rank")?;
    let rows = e.rows(v, None)?;
    if own == rank {
        // An axis that would have met the batch.
        let meets = e.fragment_dim(v, 0).is_some_and(|d| d.is(1));
        return if meets {
            Ok(e.squeeze(rows, &[1]))
        } else {
            Err("has a parameter along the axis of the batch")
        };
    }
    let missing = rank.checked_sub(1 + own).ok_or("has a parameter of more axes than its result")?;
    let axes: Vec<i64> = (1..=missing as i64).collect();
    Ok(if axes.is_empty() { rows } else { e.unsqueeze(rows, &axes) })
}

fn each(e: &mut Emit<'_>, node: &Node, operands: &[Operand]) -> Result<ValueId, &'static str> {
    let rank = node.output(0).and_then(|v| e.rank(v)).ok_or("has a result of unknown rank")?;
    let mut inputs = Vec::with_capacity(operands.len());
    for o in operands {
        inputs.push(spread(e, *o, rank)?);
    }
    Ok(e.again(node, &inputs))
}

fn matmul(e: &mut Emit<'_>, node: &Node, operands: &[Operand]) -> Result<ValueId, &'static str> {
    match operands {
        [Operand::Same(x), Operand::Slot(p)] if e.rank(*p) == Some(2) => e.product(*x, node.input(0), *p),
        [Operand::Slot(p), Operand::Same(x)] if e.rank(*p) == Some(2) => {
            let rank = node.input(1).and_then(|v| e.rank(v)).ok_or("has an operand of unknown rank")?;
            let missing = rank.checked_sub(3).ok_or("has a parameter on the left of a matrix of rows")?;
            let mut rows = e.rows(*p, None)?;
            if missing > 0 {
                let axes: Vec<i64> = (1..=missing as i64).collect();
                rows = e.unsqueeze(rows, &axes);
            }
            Ok(e.op("MatMul", &[rows, *x]))
        }
        _ => Err("has parameters that are no matrix"),
    }
}

fn gemm(e: &mut Emit<'_>, node: &Node, operands: &[Operand]) -> Result<ValueId, &'static str> {
    let [Operand::Same(x), b, c @ ..] = operands else { return Err("has a parameter on the left") };
    let plain =
        node.int("transA", 0) == 0 && node.float("alpha", 1.0) == 1.0 && node.float("beta", 1.0) == 1.0;
    if !plain {
        return Err("is turned or scaled");
    }
    let turned = node.int("transB", 0) == 1;
    let product = match *b {
        Operand::Slot(p) if turned => {
            let rows = e.rows(p, None)?;
            let turned = e.op_with("Transpose", &[rows], &[("perm", Attr::Ints(vec![0, 2, 1]))]);
            let x = e.unsqueeze(*x, &[1]);
            let y = e.op("MatMul", &[x, turned]);
            e.squeeze(y, &[1])
        }
        Operand::Slot(p) => e.product(*x, node.input(0), p)?,
        Operand::Same(b) if turned => {
            let b = e.op_with("Transpose", &[b], &[("perm", Attr::Ints(vec![1, 0]))]);
            e.op("MatMul", &[*x, b])
        }
        Operand::Same(b) => e.op("MatMul", &[*x, b]),
        Operand::None => return Err("lacks an operand"),
    };
    match c.first() {
        None | Some(Operand::None) => Ok(product),
        Some(c) => {
            let c = spread(e, *c, 2)?;
            Ok(e.op("Add", &[product, c]))
        }
    }
}

/// Norms have no operand for each row: what is scaled and shifted afterwards has.
fn layer_norm(e: &mut Emit<'_>, node: &Node, operands: &[Operand]) -> Result<ValueId, &'static str> {
    let axis = node.int("axis", -1);
    let [Operand::Same(x), scale, bias @ ..] = operands else { return Err("has no rows to norm") };
    let rank = node.input(0).and_then(|v| e.rank(v)).ok_or("has an operand of unknown rank")?;
    if axis != -1 && axis != rank as i64 - 1 {
        return Err("norms several axes at once");
    }
    let ones = e.ones_like(node.input(1)).ok_or("has a scale of unknown size")?;
    let plain = e.again(node, &[*x, ones]);
    let scale = spread(e, *scale, rank)?;
    let scaled = e.op("Mul", &[plain, scale]);
    match bias.first() {
        None | Some(Operand::None) => Ok(scaled),
        Some(bias) => {
            let bias = spread(e, *bias, rank)?;
            Ok(e.op("Add", &[scaled, bias]))
        }
    }
}

fn rms_norm(e: &mut Emit<'_>, node: &Node, operands: &[Operand]) -> Result<ValueId, &'static str> {
    let [Operand::Same(x), scale] = operands else { return Err("has no rows to norm") };
    let rank = node.input(0).and_then(|v| e.rank(v)).ok_or("has an operand of unknown rank")?;
    let ones = e.ones_like(node.input(1)).ok_or("has a scale of unknown size")?;
    let plain = e.again(node, &[*x, ones]);
    let scale = spread(e, *scale, rank)?;
    Ok(e.op("Mul", &[plain, scale]))
}

fn expand(e: &mut Emit<'_>, node: &Node, operands: &[Operand]) -> Result<ValueId, &'static str> {
    let [slot @ Operand::Slot(_), Operand::Same(shape)] = operands else {
        return Err("expands by a parameter");
    };
    let rank = node.output(0).and_then(|v| e.rank(v)).ok_or("has a result of unknown rank")?;
    let rows = spread(e, *slot, rank)?;
    Ok(e.op("Expand", &[rows, *shape]))
}

fn gather(e: &mut Emit<'_>, node: &Node, operands: &[Operand]) -> Result<ValueId, &'static str> {
    match *operands {
        [Operand::Slot(p), Operand::Same(ids)] if node.int("axis", 0) == 0 => {
            e.looked_up(p, ids, node.input(1))
        }
        _ => Err("looks up along another axis, or by a parameter"),
    }
}

/// What `node` gives for rows without an adapter, given what its operands are then.
pub(super) fn null(op: &str, of: &[Null]) -> Null {
    use Null::{Any, Ones, Zeros};
    match (op, of) {
        ("MatMul" | "Mul", _) if of.contains(&Zeros) => Zeros,
        ("Gather", [Zeros, ..]) => Zeros,
        ("Mul", [Ones, Ones]) => Ones,
        ("Add" | "Sub" | "Max" | "Min", _) if of.iter().all(|n| *n == Zeros) => Zeros,
        (
            "Identity" | "Cast" | "Relu" | "Gelu" | "Tanh" | "Neg" | "Abs" | "Erf" | "LeakyRelu" | "Elu"
            | "Selu" | "HardSwish" | "Mish" | "Transpose" | "Reshape" | "Squeeze" | "Unsqueeze" | "Sin"
            | "Sqrt" | "Celu",
            [first, ..],
        ) => match (op, first) {
            (_, Zeros) => Zeros,
            ("Identity" | "Cast" | "Transpose" | "Reshape" | "Squeeze" | "Unsqueeze", Ones) => Ones,
            _ => Any,
        },
        _ => Any,
    }
}

/// How a value of parameters is kept for whoever reads it: by rows along the axis that may be padded; a matrix for a
/// product by rows along its shorter axis; anything else whole.
pub(super) fn layout(rank: usize, padded: Option<usize>, for_product: Option<usize>) -> Layout {
    match (rank, padded, for_product) {
        (0, ..) => Layout::Number,
        (_, Some(axis), _) | (_, None, Some(axis)) => Layout::Rows(axis),
        _ => Layout::Row,
    }
}
