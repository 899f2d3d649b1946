//! One rule an operator: slope and offset of what it gives, from those of what it takes.

use std::collections::HashMap;

use crate::builder::Builder;
use crate::ir::{Graph, Node, ValueId};
use crate::sites::{ConvShape, Site, SiteKind};

/// What a value is as a function of the module's input, row by row: `x·slope + offset`.
#[derive(Clone, Debug)]
pub(super) struct Affine {
    pub slope: Slope,
    /// `[out]`; none for zero.
    pub offset: Option<ValueId>,
}

/// The linear part.
#[derive(Clone, Copy, Debug)]
pub(super) enum Slope {
    /// The input itself: values, channels or, of an embedding, the numbers of rows.
    Input,
    /// The input times a number for each of its values, `[in]` or `[1]`.
    Scaled(ValueId),
    /// `[in, out]`; of an embedding `[rows, out]`; of a convolution the kernel, `[out, in, …]`.
    Full(ValueId),
}

/// The images of values of one module.
pub(super) struct Rules<'g> {
    graph: &'g mut Graph,
    kind: SiteKind,
    window: Option<ConvShape>,
    scope: String,
    /// Of each value that depends on the module's input.
    pub images: HashMap<ValueId, Affine>,
}

type Rule = fn(&mut Rules<'_>, &Node) -> Result<Affine, String>;

/// The operators that are affine in one argument when the others are constant.
const TABLE: [(&str, Rule); 12] = [
    ("Add", |r, n| r.sum(n, "Add")),
    ("Sub", |r, n| r.sum(n, "Sub")),
    ("Mul", |r, n| r.scale(n, "Mul")),
    ("Div", |r, n| r.scale(n, "Div")),
    ("MatMul", |r, n| r.product(n)),
    ("Gemm", |r, n| r.product(n)),
    ("Conv", |r, n| r.convolution(n)),
    ("Gather", |r, n| r.rows(n)),
    ("Cast", |r, n| r.cast(n)),
    ("Identity", |r, n| r.first(n)),
    ("Reshape", |r, n| r.regroup(n)),
    ("Flatten", |r, n| r.regroup(n)),
];

fn refuse<T>(what: impl Into<String>) -> Result<T, String> {
    Err(what.into())
}

impl<'g> Rules<'g> {
    pub(super) fn new(graph: &'g mut Graph, site: &Site, input: ValueId) -> Rules<'g> {
        let start = Affine { slope: Slope::Input, offset: None };
        Rules {
            graph,
            kind: site.kind,
            window: site.conv.clone(),
            scope: format!("{}.merged.", site.path),
            images: HashMap::from([(input, start)]),
        }
    }

    /// Takes node `i` in, whose inputs have been.
    pub(super) fn follow(&mut self, i: usize) -> Result<(), String> {
        let node = self.graph.nodes[i].clone();
        if !node.inputs.iter().flatten().any(|v| self.images.contains_key(v)) {
            return Ok(());
        }
        let rule = TABLE.iter().find(|(op, _)| node.is(op)).map(|(_, rule)| rule);
        let name = || format!("{} '{}'", node.full_op(), node.name);
        let rule = rule.ok_or_else(|| format!("{} is not linear in its input", name()))?;
        let image = rule(self, &node).map_err(|why| format!("{}: {why}", name()))?;
        let output = node.output(0).ok_or("a node has no output")?;
        self.images.insert(output, image);
        Ok(())
    }

    fn op(&mut self, op: &str, inputs: &[ValueId]) -> ValueId {
        Builder::new(self.graph, self.scope.as_str()).op(op, inputs)
    }

    fn reshape(&mut self, v: ValueId, shape: &[i64]) -> ValueId {
        let mut b = Builder::new(self.graph, self.scope.as_str());
        let shape = b.ints(shape);
        b.op("Reshape", &[v, shape])
    }

    fn image(&self, v: Option<ValueId>) -> Option<Affine> {
        self.images.get(&v?).cloned()
    }

    fn first(&mut self, n: &Node) -> Result<Affine, String> {
        self.image(n.input(0)).ok_or_else(|| "its shape depends on the input".into())
    }

    fn spatial(&self) -> usize {
        self.window.as_ref().map_or(0, |w| w.kernel.len())
    }

    fn channels(&self, v: ValueId) -> Option<i64> {
        let shape = self.graph.shape(v)?;
        shape.get(shape.len().checked_sub(self.spatial() + 1)?)?.known()
    }

    /// A constant that holds one number for each channel, or one for all, as a vector.
    fn per_channel(&mut self, v: ValueId) -> Result<ValueId, String> {
        let axis = self.spatial() + 1;
        let shape = self.graph.shape(v).cloned().ok_or("a constant has no known shape")?;
        let from_end = |i: usize| shape.len() - i;
        if shape.iter().enumerate().any(|(i, d)| !d.is(1) && from_end(i) != axis) {
            return refuse("it differs from row to row");
        }
        Ok(if shape.len() == 1 { v } else { self.reshape(v, &[-1]) })
    }

    fn sum(&mut self, n: &Node, op: &str) -> Result<Affine, String> {
        match (self.image(n.input(0)), self.image(n.input(1)), n.input(0), n.input(1)) {
            (Some(a), Some(b), ..) => {
                let (Slope::Full(p), Slope::Full(q)) = (a.slope, b.slope) else {
                    return refuse("the input itself is added");
                };
                let slope = Slope::Full(self.op(op, &[p, q]));
                let offset = match (a.offset, b.offset) {
                    (Some(p), Some(q)) => Some(self.op(op, &[p, q])),
                    (None, Some(q)) if op == "Sub" => Some(self.op("Neg", &[q])),
                    (p, q) => p.or(q),
                };
                Ok(Affine { slope, offset })
            }
            (Some(a), None, Some(x), Some(c)) => self.shifted(a, x, c, op),
            (None, Some(a), Some(c), Some(x)) if op == "Add" => self.shifted(a, x, c, op),
            _ => refuse("a constant minus the input"),
        }
    }

    fn shifted(&mut self, a: Affine, x: ValueId, c: ValueId, op: &str) -> Result<Affine, String> {
        let vector = self.per_channel(c)?;
        if self.channels(x).is_none()
            || self.channels(x) != self.graph.shape(vector).and_then(|s| s[0].known())
        {
            return refuse("what is added is not one number for each value");
        }
        let offset = match a.offset {
            Some(o) => self.op(op, &[o, vector]),
            None if op == "Sub" => self.op("Neg", &[vector]),
            None => vector,
        };
        Ok(Affine { offset: Some(offset), ..a })
    }

    fn scale(&mut self, n: &Node, op: &str) -> Result<Affine, String> {
        let (a, c) = match (self.image(n.input(0)), self.image(n.input(1))) {
            (Some(a), None) => (a, n.input(1)),
            (None, Some(a)) if op == "Mul" => (a, n.input(0)),
            _ => return refuse("the input is multiplied by itself or divides"),
        };
        let c = self.per_channel(c.ok_or("an input is missing")?)?;
        let slope = match a.slope {
            Slope::Full(k) if self.kind == SiteKind::Conv => {
                let mut shape = vec![-1];
                shape.extend(std::iter::repeat_n(1, self.spatial() + 1));
                let c = self.reshape(c, &shape);
                Slope::Full(self.op(op, &[k, c]))
            }
            Slope::Full(w) => Slope::Full(self.op(op, &[w, c])),
            Slope::Input if op == "Mul" && self.kind == SiteKind::Linear => Slope::Scaled(c),
            Slope::Scaled(d) => Slope::Scaled(self.op(op, &[d, c])),
            Slope::Input => return refuse("the input is scaled in front of the module"),
        };
        let offset = a.offset.map(|o| self.op(op, &[o, c]));
        Ok(Affine { slope, offset })
    }

    fn product(&mut self, n: &Node) -> Result<Affine, String> {
        let plain = n.int("transA", 0) == 0 && n.float("alpha", 1.0) == 1.0 && n.float("beta", 1.0) == 1.0;
        let (Some(a), Some(mut w)) = (self.image(n.input(0)), n.input(1)) else {
            return refuse("the input is not its first factor");
        };
        let matrix = self.graph.shape(w).is_some_and(|s| s.len() == 2) && !self.images.contains_key(&w);
        if !plain || !matrix || self.kind == SiteKind::Conv {
            return refuse("it is not a product with a constant matrix");
        }
        if n.int("transB", 0) != 0 {
            w = Builder::new(self.graph, self.scope.as_str()).op_with(
                "Transpose",
                &[w],
                &[("perm", vec![1i64, 0].into())],
            );
        }
        let slope = match a.slope {
            Slope::Input if self.kind == SiteKind::Embedding => return refuse("row numbers are multiplied"),
            Slope::Input => w,
            Slope::Scaled(d) => {
                let column = self.reshape(d, &[-1, 1]);
                self.op("Mul", &[column, w])
            }
            Slope::Full(s) => self.op("MatMul", &[s, w]),
        };
        let offset = a.offset.map(|o| self.op("MatMul", &[o, w]));
        let made = Affine { slope: Slope::Full(slope), offset };
        match (n.input(2), n.output(0)) {
            (Some(c), Some(y)) if !self.images.contains_key(&c) => self.shifted(made, y, c, "Add"),
            (None, _) => Ok(made),
            _ => refuse("its bias depends on the input"),
        }
    }

    fn convolution(&mut self, n: &Node) -> Result<Affine, String> {
        let (Some(a), Some(k), Some(site)) = (self.image(n.input(0)), n.input(1), self.window.clone()) else {
            return refuse("the input is not what it moves over");
        };
        let shape = self.graph.shape(k).cloned().ok_or("its kernel has no known shape")?;
        let ints = |name: &str, default: Vec<i64>| n.ints(name).map_or(default, <[i64]>::to_vec);
        let spatial = site.kernel.len();
        let window = ConvShape {
            kernel: shape.iter().skip(2).map(|d| d.known().unwrap_or(-1)).collect(),
            strides: ints("strides", vec![1; spatial]),
            pads: ints("pads", vec![0; 2 * spatial]),
            dilations: ints("dilations", vec![1; spatial]),
            group: n.int("group", 1),
            auto_pad: n.text("auto_pad").unwrap_or("NOTSET").to_string(),
        };
        if window.group != 1 || self.images.contains_key(&k) {
            return refuse("its channels are in groups, or its kernel depends on the input");
        }
        let slope = match a.slope {
            Slope::Input if window == site => k,
            Slope::Full(inner) if pointwise(&window) && a.offset.is_none() => {
                let extents: Option<Vec<i64>> = self
                    .graph
                    .shape(inner)
                    .map(|s| s.iter().skip(1).map(|d| d.known().unwrap_or(-1)).collect());
                let outer = self.reshape(k, &[0, -1]);
                let flat = self.reshape(inner, &[0, -1]);
                let product = self.op("MatMul", &[outer, flat]);
                let mut to = vec![0];
                to.extend(extents.filter(|e| !e.contains(&-1)).ok_or("a kernel has no known shape")?);
                // Only the first extent is taken over from the product.
                self.reshape(product, &to)
            }
            _ => return refuse("it moves otherwise than the module's own convolution"),
        };
        let made = Affine { slope: Slope::Full(slope), offset: None };
        match n.input(2) {
            Some(bias) => Ok(Affine { offset: Some(bias), ..made }),
            None => Ok(made),
        }
    }

    fn rows(&mut self, n: &Node) -> Result<Affine, String> {
        let image = self.image(n.input(1)).filter(|a| matches!(a.slope, Slope::Input));
        let table = n.input(0).filter(|t| !self.images.contains_key(t));
        match (image, table) {
            (Some(_), Some(t)) if n.int("axis", 0) == 0 && self.kind == SiteKind::Embedding => {
                Ok(Affine { slope: Slope::Full(t), offset: None })
            }
            _ => refuse("it does not take rows of a constant table by the input"),
        }
    }

    fn cast(&mut self, n: &Node) -> Result<Affine, String> {
        let a = self.first(n)?;
        let dtype =
            n.output(0).and_then(|y| self.graph.dtype(y)).filter(|d| d.is_float() || !self.is_linear());
        let dtype = dtype.ok_or("it makes integers of the input")?;
        let mut b = Builder::new(self.graph, self.scope.as_str());
        let slope = match a.slope {
            Slope::Input => Slope::Input,
            Slope::Scaled(v) => Slope::Scaled(b.cast(v, dtype)),
            Slope::Full(v) => Slope::Full(b.cast(v, dtype)),
        };
        Ok(Affine { slope, offset: a.offset.map(|o| b.cast(o, dtype)) })
    }

    fn is_linear(&self) -> bool {
        self.kind == SiteKind::Linear
    }

    /// Rows stay rows where the last extent stays.
    fn regroup(&mut self, n: &Node) -> Result<Affine, String> {
        let width = |v: Option<ValueId>| self.graph.shape(v?).and_then(|s| s.last()?.known());
        if self.kind != SiteKind::Linear
            || width(n.input(0)).is_none()
            || width(n.input(0)) != width(n.output(0))
        {
            return refuse("it takes rows apart");
        }
        self.first(n)
    }
}

fn pointwise(w: &ConvShape) -> bool {
    let all = |v: &[i64], n: i64| v.iter().all(|e| *e == n);
    all(&w.kernel, 1) && all(&w.strides, 1) && (all(&w.pads, 0) || w.auto_pad.starts_with("SAME"))
}
