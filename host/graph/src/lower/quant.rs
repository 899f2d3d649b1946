//! Products of quantised matrices and convolutions of quantised images, dynamic and static, in the QDQ form: the plain
//! operator on what is dequantised. ONNX Runtime joins the three operators to its integer kernel again where it has
//! one; a reader of the graph sees a product with a weight.

use std::collections::BTreeMap;

use super::{Lower, MICROSOFT, Outputs, Row, scope};
use crate::builder::Builder;
use crate::ir::{Attr, Attrs, Graph, Node, ValueId};
use crate::raise::makers;
use crate::tensor::DType;

pub(super) const RULES: &[Row] = &[
    (MICROSOFT, "DynamicQuantizeMatMul", |l| {
        let x = l.x(0)?;
        let parts = l.b.emit("DynamicQuantizeLinear", "", &[Some(x)], Attrs::new(), 3);
        let product = Product {
            joins: Joins::Matrices,
            q: parts[0],
            q_scale: parts[1],
            q_zero: Some(parts[2]),
            w: l.x(1)?,
            w_scale: l.x(2)?,
            w_zero: l.node.input(3),
        };
        with_bias(l, &product, 4)
    }),
    (MICROSOFT, "MatMulIntegerToFloat", |l| {
        let product = Product {
            joins: Joins::Matrices,
            q: l.x(0)?,
            q_scale: l.x(2)?,
            q_zero: l.node.input(4),
            w: l.x(1)?,
            w_scale: l.x(3)?,
            w_zero: l.node.input(5),
        };
        with_bias(l, &product, 6)
    }),
    (MICROSOFT, "QuantizeLinear", |l| plain(l, "QuantizeLinear")),
    (MICROSOFT, "DequantizeLinear", |l| plain(l, "DequantizeLinear")),
];

/// The operator of ONNX's own domain, whose types of 8 bits the working operator set has.
fn plain(l: &mut Lower<'_, '_>, op: &str) -> Outputs {
    let integers = if op == "QuantizeLinear" { l.node.input(2) } else { l.node.input(0) };
    let dtype = integers.and_then(|v| l.b.graph.dtype(v));
    if !matches!(dtype, Some(DType::I8 | DType::U8 | DType::I32)) {
        return Err("gradients with quantised numbers of other than 8 bits are not derived".into());
    }
    Ok(vec![Some(l.b.emit(op, "", &l.node.inputs, l.node.attrs.clone(), 1)[0])])
}

fn with_bias(l: &mut Lower<'_, '_>, product: &Product, bias: usize) -> Outputs {
    if !product.fits(l.b.graph) {
        return Err("scales and zero points must be one number, or one for each column of a matrix".into());
    }
    let y = product.emit(l.b);
    Ok(vec![Some(match l.node.input(bias) {
        Some(bias) => l.op("Add", &[y, bias]),
        None => y,
    })])
}

/// What two dequantised values are joined by.
enum Joins {
    Matrices,
    /// With the attributes of the convolution. Its padding is the zero point, which stands for 0.
    Images(Attrs),
}

impl Joins {
    /// ONNX's operator that does the same with integers.
    fn integer(&self) -> &'static str {
        match self {
            Joins::Matrices => "MatMulInteger",
            Joins::Images(_) => "ConvInteger",
        }
    }
}

/// `((q − q_zero)·q_scale) · ((w − w_zero)·w_scale)`, where `·` is a product of matrices or a convolution.
struct Product {
    joins: Joins,
    q: ValueId,
    q_scale: ValueId,
    q_zero: Option<ValueId>,
    w: ValueId,
    w_scale: ValueId,
    w_zero: Option<ValueId>,
}

impl Product {
    /// One scale for all of `q`; one for all of `w` or for each of its columns; zero points like their scales.
    fn fits(&self, g: &Graph) -> bool {
        let rank = |v: ValueId| g.shape(v).map(Vec::len);
        let one = |v: ValueId| g.shape(v).is_some_and(|s| s.iter().all(|d| d.is(1)));
        let matrices = matches!(self.joins, Joins::Matrices);
        let columns = matrices && rank(self.w_scale) == Some(1) && rank(self.w) == Some(2);
        let like = |zero: Option<ValueId>| zero.is_none_or(|z| g.shape(z) == g.shape(self.w_scale));
        one(self.q_scale)
            && self.q_zero.is_none_or(one)
            && (one(self.w_scale) && self.w_zero.is_none_or(one) || columns && like(self.w_zero))
    }

    fn emit(&self, b: &mut Builder<'_>) -> ValueId {
        let mut real = |q: ValueId, scale: ValueId, zero: Option<ValueId>| {
            let per_axis = b.graph.shape(scale).is_some_and(|s| s.iter().any(|d| !d.is(1)));
            let attrs: Attrs = per_axis.then(|| ("axis".to_string(), Attr::Int(1))).into_iter().collect();
            let inputs: Vec<Option<ValueId>> =
                [Some(q), Some(scale)].into_iter().chain(zero.map(Some)).collect();
            b.emit("DequantizeLinear", "", &inputs, attrs, 1)[0]
        };
        let x = real(self.q, self.q_scale, self.q_zero);
        let w = real(self.w, self.w_scale, self.w_zero);
        match &self.joins {
            Joins::Matrices => b.op("MatMul", &[x, w]),
            Joins::Images(attrs) => b.emit("Conv", "", &[Some(x), Some(w)], attrs.clone(), 1)[0],
        }
    }
}

/// What `quantize_dynamic` writes for a product or a convolution, `MatMulInteger` or `ConvInteger → Cast → Mul` with
/// the product of both scales, becomes the plain one of what is dequantised. Gives the operators and how often each was.
pub(super) fn integer_products(graph: &mut Graph, seen: &[ValueId]) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    if !graph.nodes.iter().any(|n| n.is("MatMulInteger") || n.is("ConvInteger")) {
        return counts;
    }
    let made = makers(graph, seen);
    let found: Vec<Option<Product>> = graph.nodes.iter().map(|n| integer_product(graph, &made, n)).collect();
    for (node, product) in std::mem::take(&mut graph.nodes).into_iter().zip(found) {
        let (Some(product), Some(y)) = (product, node.output(0)) else {
            graph.nodes.push(node);
            continue;
        };
        *counts.entry(product.joins.integer()).or_default() += 1;
        let mut b = Builder::new(graph, scope(&node.name));
        b.set_metadata(node.metadata.clone());
        let made = product.emit(&mut b);
        *graph.fact_mut(y) = graph.fact(made).clone();
        if let Some(last) = graph.nodes.last_mut() {
            last.outputs = vec![Some(y)];
        }
    }
    counts
}

fn integer_product(g: &Graph, made: &[Option<usize>], n: &Node) -> Option<Product> {
    if !n.is("Mul") {
        return None;
    }
    let maker = |v: ValueId, op: &str| made[v.index()].map(|i| &g.nodes[i]).filter(|n| n.is(op));
    let (a, b) = (n.input(0)?, n.input(1)?);
    let (cast, scales) = maker(a, "Cast").map(|c| (c, b)).or_else(|| maker(b, "Cast").map(|c| (c, a)))?;
    if cast.int("to", 0) != i64::from(DType::F32.onnx()) {
        return None;
    }
    let integers = cast.input(0)?;
    let (product, joins) = match maker(integers, "MatMulInteger") {
        Some(product) => (product, Joins::Matrices),
        None => maker(integers, "ConvInteger").map(|c| (c, Joins::Images(c.attrs.clone())))?,
    };
    let (q, w) = (product.input(0)?, product.input(1)?);
    let scales = maker(scales, "Mul")?;
    let (s, t) = (scales.input(0)?, scales.input(1)?);
    // Either assignment of the scales is right; the weight's is the constant one, and may be a vector.
    let (q_scale, w_scale) = if g.constant(s).is_some() { (t, s) } else { (s, t) };
    let (q_zero, w_zero) = (product.input(2), product.input(3));
    let found = Product { joins, q, q_scale, q_zero, w, w_scale, w_zero };
    (found.fits(g) && g.dtype(q_scale) == Some(DType::F32) && g.dtype(w_scale) == Some(DType::F32))
        .then_some(found)
}
