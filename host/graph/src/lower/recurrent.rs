//! Recurrent operators whose rows come before their steps, which most runtimes have no kernel of, become those whose
//! steps come first.

use super::{Lower, Outputs, Row};
use crate::ir::ValueId;

pub(super) const RULES: &[Row] = &[("", "GRU", steps_first), ("", "LSTM", steps_first)];

/// Inputs whose first two axes change places: the sequence and the states before it.
const TURNED: [usize; 3] = [0, 5, 6];

fn steps_first(l: &mut Lower<'_, '_>) -> Outputs {
    if l.node.int("layout", 0) == 0 {
        return Err("steps come first already".into());
    }
    let mut inputs = l.node.inputs.clone();
    for k in TURNED {
        if let Some(Some(v)) = inputs.get_mut(k) {
            *v = l.transpose(*v, &[1, 0, 2]);
        }
    }
    let mut attrs = l.node.attrs.clone();
    attrs.remove("layout");
    let made = l.b.emit(&l.node.op, "", &inputs, attrs, l.node.outputs.len());
    let back = |l: &mut Lower<'_, '_>, (k, v): (usize, ValueId)| match k {
        0 => l.transpose(v, &[2, 0, 1, 3]),
        _ => l.transpose(v, &[1, 0, 2]),
    };
    Ok(made.into_iter().enumerate().map(|made| Some(back(l, made))).collect())
}
