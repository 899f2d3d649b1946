//! Sequences of tensors, which exporters write for lists: what is taken out of one whose making is known becomes the
//! value that was put in.

use super::{Lower, Row};
use crate::ir::{Attr, Node, ValueId};

pub(super) const RULES: &[Row] = &[
    ("", "SequenceAt", |l| {
        let values = values(l)?;
        let at = place(l, l.node.input(1), values.len())?;
        Ok(vec![values.get(at).copied()])
    }),
    ("", "SequenceLength", |l| {
        let count = values(l)?.len() as i64;
        Ok(vec![Some(l.b.scalar(count))])
    }),
    ("", "ConcatFromSequence", |l| {
        let mut values = values(l)?;
        let axis = l.node.int("axis", 0);
        if l.node.int("new_axis", 0) != 0 {
            values = values.into_iter().map(|v| l.unsqueeze(v, &[axis])).collect();
        }
        if values.is_empty() {
            return Err("an empty sequence can't be joined".into());
        }
        Ok(vec![Some(l.op_with("Concat", &values, &[("axis", Attr::Int(axis))]))])
    }),
];

/// What a change does to the values of a sequence.
enum Change {
    Insert(ValueId, Option<ValueId>),
    Erase(Option<ValueId>),
}

/// The values in the sequence that is input 0.
fn values(l: &mut Lower<'_, '_>) -> Result<Vec<ValueId>, String> {
    let mut at = l.x(0)?;
    let mut changes = Vec::new();
    let mut made = loop {
        let node = maker(l, at)?;
        let first = || node.input(0).ok_or_else(|| format!("{} has no input", node.op));
        match node.op.as_str() {
            "Identity" => at = first()?,
            "SequenceInsert" => {
                let value = node.input(1).ok_or("SequenceInsert inserts nothing")?;
                changes.push(Change::Insert(value, node.input(2)));
                at = first()?;
            }
            "SequenceErase" => {
                changes.push(Change::Erase(node.input(1)));
                at = first()?;
            }
            "SequenceEmpty" => break Vec::new(),
            "SequenceConstruct" => break node.inputs.iter().copied().flatten().collect(),
            "SplitToSequence" => break split(l, &node)?,
            other => return Err(format!("a sequence that {other} makes is not known; export without lists")),
        }
    };
    for change in changes.into_iter().rev() {
        match change {
            Change::Insert(value, None) => made.push(value),
            Change::Insert(value, at) => {
                // One past the last is a place to insert at.
                let at = place(l, at, made.len() + 1)?;
                made.insert(at, value);
            }
            Change::Erase(None) => drop(made.pop().ok_or("nothing is left to erase")?),
            Change::Erase(at) => drop(made.remove(place(l, at, made.len())?)),
        }
    }
    Ok(made)
}

fn maker(l: &Lower<'_, '_>, v: ValueId) -> Result<Node, String> {
    let found = l.b.graph.nodes.iter().rev().find(|n| n.domain.is_empty() && n.outputs.contains(&Some(v)));
    found.cloned().ok_or_else(|| format!("what is in the sequence '{}' is not known", l.b.graph.name_of(v)))
}

/// The constant place that `v` holds, counted from the front, in a sequence of `count` places.
fn place(l: &Lower<'_, '_>, v: Option<ValueId>, count: usize) -> Result<usize, String> {
    let numbers = v.and_then(|v| numbers(l, v));
    let [at] = numbers.as_deref().unwrap_or_default() else {
        return Err(
            "a place in a sequence that is chosen at run time is not derived; export without lists".into()
        );
    };
    let front = if *at < 0 { at.checked_add(count as i64) } else { Some(*at) };
    let there = front.and_then(|at| usize::try_from(at).ok()).filter(|at| *at < count);
    there.ok_or_else(|| format!("place {at} of a sequence of {count}"))
}

fn numbers(l: &Lower<'_, '_>, v: ValueId) -> Option<Vec<i64>> {
    l.b.graph.fact(v).elements.as_ref()?.iter().map(|d| d.known()).collect()
}

/// Most parts that a sequence is cut into.
const MOST_PARTS: i64 = 4096;

fn split(l: &mut Lower<'_, '_>, node: &Node) -> Result<Vec<ValueId>, String> {
    let (x, axis) = (node.input(0).ok_or("SplitToSequence has no input")?, node.int("axis", 0));
    let too_many = || format!("a split into more than {MOST_PARTS} parts is not derived");
    let chunks = |l: &Lower<'_, '_>, part: i64| -> Result<Vec<i64>, String> {
        let size = l.width(x, axis)?;
        if part < 1 || (size - 1) / part >= MOST_PARTS {
            return Err(too_many());
        }
        Ok((0..size).step_by(part as usize).map(|start| part.min(size - start)).collect())
    };
    let (sizes, single) = match node.input(1) {
        None => (chunks(l, 1)?, true),
        Some(v) => {
            let given =
                numbers(l, v).ok_or("a split whose sizes are known at run time only is not derived")?;
            match (l.rank(v)?, given.as_slice()) {
                (0, [part]) => (chunks(l, *part)?, false),
                _ => (given, false),
            }
        }
    };
    if sizes.len() as i64 > MOST_PARTS {
        return Err(too_many());
    }
    let parts = l.split(x, axis, &sizes);
    if single && node.int("keepdims", 1) == 0 {
        let axes = l.b.ints(&[axis]);
        return Ok(parts.into_iter().map(|v| l.op("Squeeze", &[v, axes])).collect());
    }
    Ok(parts)
}
