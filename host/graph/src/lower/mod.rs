//! `lower`: operators outside ONNX's plain set, which optimisers and newer exporters write, become the plain operators
//! that they stand for, so that patterns, sites and gradient rules see few, known ones. One table a family, one row an
//! operator. A use that a row does not cover stays as it is: it runs, and [`refusal`] says why it has no gradient.

mod activation;
mod attention;
mod branch;
mod heads;
mod norm;
mod quant;
mod recurrent;
mod rotary;
mod sequence;

use std::collections::BTreeMap;

use crate::builder::Builder;
use crate::dim::Shape;
use crate::ir::{Attr, Graph, Node, ValueId};
use crate::shape;
use crate::tensor::DType;

/// Domain of ONNX Runtime's own operators.
pub(crate) const MICROSOFT: &str = "com.microsoft";

/// What stands for each output of the node, in order; `None` for those that are not derived. A missing tail counts as
/// `None`. The error is a sentence that says which use is not covered.
type Outputs = Result<Vec<Option<ValueId>>, String>;
/// Emits the plain operators.
type RuleFn = fn(&mut Lower<'_, '_>) -> Outputs;
/// One row: domain, operator, rule.
type Row = (&'static str, &'static str, RuleFn);

const FAMILIES: &[&[Row]] = &[
    activation::RULES,
    norm::RULES,
    rotary::RULES,
    attention::RULES,
    quant::RULES,
    recurrent::RULES,
    sequence::RULES,
];

fn find(node: &Node) -> Option<&'static Row> {
    FAMILIES.iter().copied().flatten().find(|(domain, op, _)| node.domain == *domain && node.op == *op)
}

/// Operators that are replaced, with their domains, in the order of the tables.
pub fn lowered() -> impl Iterator<Item = (&'static str, &'static str)> {
    FAMILIES.iter().copied().flatten().map(|(domain, op, _)| (*domain, *op))
}

/// Replaces every operator of the table that a row covers, and tells how often each was. Values that other nodes or
/// the caller read keep their ids and names.
pub fn lower(graph: &mut Graph) -> Vec<(&'static str, usize)> {
    lower_around(graph, &[])
}

/// As [`lower`], but what is joined to one operator does not reach across one of the values `seen`.
pub(crate) fn lower_around(graph: &mut Graph, seen: &[ValueId]) -> Vec<(&'static str, usize)> {
    let mut counts: BTreeMap<&'static str, usize> = BTreeMap::new();
    let branches = branch::take_branches(graph);
    if branches > 0 {
        counts.insert("If", branches);
    }
    counts.extend(quant::integer_products(graph, seen));
    if counts.is_empty() && !graph.nodes.iter().any(|n| find(n).is_some()) {
        return Vec::new();
    }
    for node in std::mem::take(&mut graph.nodes) {
        match find(&node).filter(|row| replace(graph, &node, row.2).is_ok()) {
            Some((_, op, _)) => *counts.entry(op).or_default() += 1,
            None => {
                graph.nodes.push(node);
                shape::infer_at(graph, graph.nodes.len() - 1);
            }
        }
    }
    if !graph.nodes.iter().any(|n| n.domain == MICROSOFT) {
        graph.opsets.remove(MICROSOFT);
    }
    graph.remove_dead();
    counts.into_iter().collect()
}

/// Why a node that a row stands for was not replaced; `None` where there is no row, or the row covers it.
pub(crate) fn refusal(graph: &Graph, node: &Node) -> Option<String> {
    let (_, _, rule) = find(node)?;
    replace(&mut graph.clone(), node, *rule).err()
}

/// Appends what stands for `node`, or nothing where the rule does not cover it.
fn replace(graph: &mut Graph, node: &Node, rule: RuleFn) -> Result<(), String> {
    let start = graph.nodes.len();
    let mut b = Builder::new(graph, scope(&node.name));
    b.set_metadata(node.metadata.clone());
    let made = rule(&mut Lower { b: &mut b, node }).and_then(|made| {
        let stand_in = |k: usize| made.get(k).copied().flatten();
        let read = node.outputs.iter().enumerate().filter_map(|(k, o)| o.map(|o| (k, o)));
        read.map(|(k, o)| {
            Ok((o, stand_in(k).ok_or(format!("its output {k} is read, which is not derived"))?))
        })
        .collect::<Result<Vec<_>, String>>()
    });
    let pairs = made.inspect_err(|_| graph.nodes.truncate(start))?;
    for (old, new) in pairs {
        let fact = graph.fact(new).clone();
        *graph.fact_mut(old) = fact;
        if graph.nodes[start..].iter().any(|n| n.outputs.contains(&Some(new))) {
            for n in &mut graph.nodes[start..] {
                let slots = n.inputs.iter_mut().chain(&mut n.outputs);
                slots.filter(|v| **v == Some(new)).for_each(|v| *v = Some(old));
            }
        } else {
            let copy = Node { op: "Identity".into(), inputs: vec![Some(new)], ..Node::default() };
            graph.nodes.push(Node { name: node.name.clone(), outputs: vec![Some(old)], ..copy });
        }
    }
    Ok(())
}

/// Names of what is emitted lie in the module that the node's name tells, if it tells one.
fn scope(name: &str) -> String {
    match name.rsplit_once('/') {
        Some((module, _)) => format!("{module}/"),
        None => format!("{name}."),
    }
}

/// What a rule works with: the node and a builder.
struct Lower<'a, 'g> {
    b: &'a mut Builder<'g>,
    node: &'a Node,
}

impl Lower<'_, '_> {
    /// Input `i`.
    fn x(&self, i: usize) -> Result<ValueId, String> {
        self.node.input(i).ok_or_else(|| format!("input {i} is missing"))
    }
    /// Refuses the node where one of these inputs is there.
    fn without(&self, inputs: &[(usize, &str)]) -> Result<(), String> {
        match inputs.iter().find(|(i, _)| self.node.input(*i).is_some()) {
            Some((_, what)) => Err(format!("gradients with {what} are not derived")),
            None => Ok(()),
        }
    }
    fn op(&mut self, op: &str, inputs: &[ValueId]) -> ValueId {
        self.b.op(op, inputs)
    }
    fn op_with(&mut self, op: &str, inputs: &[ValueId], attrs: &[(&str, Attr)]) -> ValueId {
        self.b.op_with(op, inputs, attrs)
    }
    /// A float constant of the type of `like`.
    fn c(&mut self, value: f64, like: ValueId) -> ValueId {
        let dtype = self.b.graph.dtype(like).unwrap_or(DType::F32);
        self.b.float(dtype, value)
    }
    fn shape(&self, v: ValueId) -> Result<Shape, String> {
        let unknown = || format!("the shape of '{}' is not known", self.b.graph.name_of(v));
        self.b.graph.shape(v).cloned().ok_or_else(unknown)
    }
    fn rank(&self, v: ValueId) -> Result<usize, String> {
        self.shape(v).map(|s| s.len())
    }
    /// The size of an axis, counted from the back with negative numbers, which must be a positive number.
    fn width(&self, v: ValueId, axis: i64) -> Result<i64, String> {
        let shape = self.shape(v)?;
        let at = if axis < 0 { axis + shape.len() as i64 } else { axis };
        let known = usize::try_from(at).ok().and_then(|a| shape.get(a)).and_then(|d| d.known());
        known
            .filter(|n| *n > 0)
            .ok_or_else(|| format!("size {axis} of '{}' must be a number", self.b.graph.name_of(v)))
    }
    /// The size of an axis as a scalar: a constant where it is known.
    fn size(&mut self, v: ValueId, axis: usize) -> ValueId {
        match self.b.graph.shape(v).and_then(|s| s.get(axis)?.known()) {
            Some(n) => self.b.scalar(n),
            None => {
                let (shape, at) = (self.op("Shape", &[v]), self.b.scalar(axis as i64));
                self.op("Gather", &[shape, at])
            }
        }
    }
    /// `0, 1 … n − 1`, where `n` is the size of an axis.
    fn count(&mut self, v: ValueId, axis: usize) -> ValueId {
        let (zero, n, one) = (self.b.scalar(0i64), self.size(v, axis), self.b.scalar(1i64));
        self.op("Range", &[zero, n, one])
    }
    fn unsqueeze(&mut self, v: ValueId, axes: &[i64]) -> ValueId {
        let axes = self.b.ints(axes);
        self.op("Unsqueeze", &[v, axes])
    }
    fn reshape(&mut self, v: ValueId, to: &[i64]) -> ValueId {
        let to = self.b.ints(to);
        self.op("Reshape", &[v, to])
    }
    fn transpose(&mut self, v: ValueId, perm: &[i64]) -> ValueId {
        self.op_with("Transpose", &[v], &[("perm", Attr::Ints(perm.to_vec()))])
    }
    /// Cuts an axis into parts of the given sizes.
    fn split(&mut self, v: ValueId, axis: i64, sizes: &[i64]) -> Vec<ValueId> {
        let parts = self.b.ints(sizes);
        let attrs = [("axis".to_string(), Attr::Int(axis))].into();
        self.b.emit("Split", "", &[Some(v), Some(parts)], attrs, sizes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dim::Dim;
    use crate::ir::Fact;

    fn skip_norm(name: &str, outputs: usize) -> Graph {
        let mut g = Graph::new("g", 20);
        g.opsets.insert(MICROSOFT.into(), 1);
        let shape = || vec![Dim::from("n"), Dim::from("s"), Dim::from(4)];
        let (x, skip) = (g.add_input("x", DType::F32, shape()), g.add_input("skip", DType::F32, shape()));
        let scale = g.add_constant("a.LayerNorm.weight", crate::Tensor::vector(&[1f32; 4]));
        let made: Vec<ValueId> =
            (0..outputs).map(|k| g.add_value(&format!("y{k}"), Fact::default())).collect();
        g.nodes.push(Node {
            op: "SkipLayerNormalization".into(),
            domain: MICROSOFT.into(),
            name: name.into(),
            inputs: vec![Some(x), Some(skip), Some(scale)],
            outputs: made.iter().copied().map(Some).collect(),
            ..Node::default()
        });
        g.outputs = made;
        g
    }

    #[test]
    fn values_keep_their_names_and_modules_stay_known() {
        let mut g = skip_norm("/a/LayerNorm/SkipLayerNorm", 1);
        let y = g.outputs[0];
        assert_eq!(lower(&mut g), vec![("SkipLayerNormalization", 1)]);
        assert_eq!((g.outputs[0], g.name_of(y)), (y, "y0"));
        assert_eq!(g.shape(y).map(Vec::len), Some(3));
        assert!(!g.opsets.contains_key(MICROSOFT));
        let site = &crate::sites::sites(&g)[0];
        assert_eq!((site.path.as_str(), site.output), ("a.LayerNorm", y));
        // Where the node's name tells nothing, the parameter's does.
        let mut g = skip_norm("SkipLayerNorm_3", 1);
        lower(&mut g);
        assert_eq!(crate::sites::sites(&g)[0].path, "a.LayerNorm");
    }

    #[test]
    fn a_use_that_is_not_covered_stays_and_says_why() {
        let mut g = skip_norm("n", 3);
        assert_eq!(lower(&mut g), vec![]);
        assert_eq!((g.nodes.len(), g.nodes[0].op.as_str()), (1, "SkipLayerNormalization"));
        let why = refusal(&g, &g.nodes[0]).unwrap();
        assert!(why.contains("output 1 is read"), "{why}");
    }
}
