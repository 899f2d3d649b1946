//! Undoing broadcasting: a gradient of the broadcast shape is summed back to the shape of the input.

use crate::builder::Builder;
use crate::dim::Shape;
use crate::ir::{Attr, ValueId};
use crate::tensor::{DType, Tensor};

/// Sums `g` over the axes that broadcasting added or stretched, so that it has the shape of `x`.
///
/// Where the two shapes are known the axes are constants. Where a symbol hides whether an axis was stretched, they
/// are found at run time.
pub(super) fn undo(b: &mut Builder<'_>, g: ValueId, x: ValueId) -> Result<ValueId, String> {
    let known = |b: &Builder<'_>, v: ValueId| {
        let why = || {
            let since = crate::shape::unknown_since(b.graph, v);
            format!("the shape of '{}' is not known{since}", b.graph.name_of(v))
        };
        b.graph.shape(v).cloned().ok_or_else(why)
    };
    let want = known(b, x)?;
    let Some(have) = b.graph.shape(g).cloned() else {
        return Err(format!("the shape of the gradient of '{}' is not known", b.graph.name_of(x)));
    };
    if have == want {
        return Ok(g);
    }
    let extra = have.len().checked_sub(want.len()).ok_or("a gradient has fewer axes than its value")?;
    let mut axes: Vec<i64> = (0..extra as i64).collect();
    let mut unsure = false;
    for (k, d) in want.iter().enumerate() {
        let h = &have[k + extra];
        match (d.is(1), h == d, h.is(1)) {
            (_, true, _) => {}
            (true, false, _) => axes.push((k + extra) as i64),
            _ => unsure = true,
        }
    }
    if unsure { Ok(sum_at_run_time(b, g, x, &have, &want)) } else { Ok(sum_over(b, g, x, &axes, extra)) }
}

fn sum_over(b: &mut Builder<'_>, g: ValueId, x: ValueId, axes: &[i64], extra: usize) -> ValueId {
    // Keeping the axes and dropping the leading ones by a reshape would cost a node more than two cases here.
    let keep = extra == 0;
    if keep || axes.len() == extra {
        let list = b.ints(axes);
        return b.reduce_sum(g, list, &[("keepdims", Attr::Int(i64::from(keep)))]);
    }
    let list = b.ints(axes);
    let sum = b.reduce_sum(g, list, &[("keepdims", Attr::Int(1))]);
    b.reshape_like(sum, x)
}

fn sum_at_run_time(b: &mut Builder<'_>, g: ValueId, x: ValueId, have: &Shape, want: &Shape) -> ValueId {
    let extra = have.len() - want.len();
    let have = b.op("Shape", &[g]);
    let target = b.op("Shape", &[x]);
    let want = match extra {
        0 => target,
        n => {
            let ones = b.constant(Tensor::vector(&vec![1i64; n]));
            b.op_with("Concat", &[ones, target], &[("axis", Attr::Int(0))])
        }
    };
    let equal = b.op("Equal", &[have, want]);
    let differs = b.op("Not", &[equal]);
    let at = b.op("NonZero", &[differs]);
    let zero = b.ints(&[0]);
    let axes = b.op("Squeeze", &[at, zero]);
    let attrs = [("keepdims", Attr::Int(1)), ("noop_with_empty_axes", Attr::Int(1))];
    let sum = b.reduce_sum(g, axes, &attrs);
    let y = b.op("Reshape", &[sum, target]);
    let dtype = b.graph.dtype(g).or(b.graph.dtype(x)).or(Some(DType::F32));
    *b.graph.fact_mut(y) = crate::ir::Fact { dtype, shape: b.graph.shape(x).cloned(), elements: None };
    y
}
