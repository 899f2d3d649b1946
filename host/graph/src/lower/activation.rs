//! Activation functions and products of ONNX Runtime's own domain.

use super::{Lower, MICROSOFT, Outputs, Row};
use crate::ir::{Attr, ValueId};

pub(super) const RULES: &[Row] = &[
    (MICROSOFT, "Gelu", |l| {
        let x = l.x(0)?;
        Ok(vec![Some(l.op("Gelu", &[x]))])
    }),
    (MICROSOFT, "BiasGelu", |l| gelu(l, "none")),
    (MICROSOFT, "FastGelu", |l| gelu(l, "tanh")),
    (MICROSOFT, "QuickGelu", |l| {
        let x = l.x(0)?;
        let alpha = l.c(f64::from(l.node.float("alpha", 1.702)), x);
        let scaled = l.op("Mul", &[x, alpha]);
        let gate = l.op("Sigmoid", &[scaled]);
        Ok(vec![Some(l.op("Mul", &[x, gate]))])
    }),
    (MICROSOFT, "FusedMatMul", fused_matmul),
    (MICROSOFT, "FusedGemm", |l| {
        let mut attrs = l.node.attrs.clone();
        attrs.retain(|name, _| !name.starts_with("activation"));
        let y = l.b.emit("Gemm", "", &l.node.inputs, attrs, 1)[0];
        let alpha = l.node.attrs.get("activation_alpha").cloned();
        Ok(vec![Some(activated(l, y, alpha)?)])
    }),
    (MICROSOFT, "FusedConv", |l| {
        let mut attrs = l.node.attrs.clone();
        attrs.retain(|name, _| !name.starts_with("activation"));
        let inputs: Vec<Option<ValueId>> = (0..3).map(|k| l.node.input(k)).collect();
        let mut y = l.b.emit("Conv", "", &inputs, attrs, 1)[0];
        if let Some(sum) = l.node.input(3) {
            y = l.op("Add", &[y, sum]);
        }
        let alpha = match l.node.attrs.get("activation_params") {
            Some(Attr::Floats(p)) => p.first().map(|a| Attr::Float(*a)),
            _ => None,
        };
        Ok(vec![Some(activated(l, y, alpha)?)])
    }),
];

/// The activation function that an operator is joined to.
fn activated(l: &mut Lower<'_, '_>, y: ValueId, alpha: Option<Attr>) -> Result<ValueId, String> {
    Ok(match l.node.text("activation").unwrap_or_default() {
        op @ ("Relu" | "Tanh" | "Sigmoid" | "Softplus" | "Softsign") => l.op(op, &[y]),
        op @ ("LeakyRelu" | "Elu") => {
            let attrs: Vec<_> = alpha.into_iter().map(|a| ("alpha", a)).collect();
            l.op_with(op, &[y], &attrs)
        }
        op => return Err(format!("an operator joined to '{op}' is not derived")),
    })
}

/// Gelu of the sum with a bias, where there is one.
fn gelu(l: &mut Lower<'_, '_>, approximate: &str) -> Outputs {
    let mut x = l.x(0)?;
    if let Some(bias) = l.node.input(1) {
        x = l.op("Add", &[x, bias]);
    }
    let attrs = [("approximate", Attr::from(approximate))];
    Ok(vec![Some(if approximate == "none" { l.op("Gelu", &[x]) } else { l.op_with("Gelu", &[x], &attrs) })])
}

fn fused_matmul(l: &mut Lower<'_, '_>) -> Outputs {
    let (a, b) = (l.x(0)?, l.x(1)?);
    let a = arranged(l, a, "transBatchA", "transA")?;
    let b = arranged(l, b, "transBatchB", "transB")?;
    let mut y = l.op("MatMul", &[a, b]);
    let alpha = l.node.float("alpha", 1.0);
    if alpha != 1.0 {
        let alpha = l.c(f64::from(alpha), y);
        y = l.op("Mul", &[y, alpha]);
    }
    Ok(vec![Some(y)])
}

/// A factor as the attributes ask for it: `batch` moves the first axis behind the other stacked ones, `flip` swaps the
/// last two.
fn arranged(l: &mut Lower<'_, '_>, x: ValueId, batch: &str, flip: &str) -> Result<ValueId, String> {
    let (batch, flip) = (l.node.int(batch, 0) != 0, l.node.int(flip, 0) != 0);
    if !batch && !flip {
        return Ok(x);
    }
    let rank = l.rank(x)? as i64;
    if rank < 2 {
        // A vector has nothing to transpose.
        return Ok(x);
    }
    let mut perm: Vec<i64> =
        if batch { (1..rank - 1).chain([0, rank - 1]).collect() } else { (0..rank).collect() };
    if flip {
        perm.swap(rank as usize - 1, rank as usize - 2);
    }
    Ok(l.transpose(x, &perm))
}
