//! Names of dimensions that a file gives to several inputs.
//!
//! Exporters write down the names that a user chose, and a user may call the length of a question and of its answer
//! `sequence` both. Believing it is wrong here and in ONNX Runtime, which reuses memory between values whose dimensions
//! have the same names. So each input's dimensions start with names of their own, and two are one again where the
//! graph brings them together: where they are broadcast, multiplied or concatenated with each other.

use std::collections::{HashMap, HashSet};

use super::infer;
use crate::dim::Dim;
use crate::ir::{Fact, Graph, Node, ValueId};

/// Passes over the graph at most; each joins what the one before made comparable.
const MAX_PASSES: usize = 8;

/// Between a dimension's name in the file and the number of the input, while inference runs.
const MARK: char = '\u{1}';

/// Infers shapes, after dimensions of different inputs that share a name without need were given names of their own:
/// the first input keeps the name, the others add theirs to it.
pub fn infer_with_own_names(graph: &mut Graph) {
    let shared = shared_names(graph);
    if shared.is_empty() {
        return infer(graph);
    }
    let facts: Vec<Fact> = graph.values().map(|v| graph.fact(v).clone()).collect();
    let mut joined = Joined::default();
    for _ in 0..MAX_PASSES {
        start(graph, &facts, &shared, &|name, input| joined.first(&marked(name, input)));
        infer(graph);
        let mut news = false;
        for node in &graph.nodes {
            for (a, b) in meetings(graph, node) {
                news |= joined.join(&a, &b);
            }
        }
        for (a, b) in siblings(graph, &facts, &joined) {
            news |= joined.join(&a, &b);
        }
        if !news {
            break;
        }
    }
    let inputs = graph.inputs.clone();
    let names: Vec<String> = graph.inputs.iter().map(|v| graph.name_of(*v).to_string()).collect();
    let first_input = |name: &str| (0..names.len()).find(|k| uses(&facts, inputs[*k], name));
    start(graph, &facts, &shared, &|name, input| {
        let first = joined.first(&marked(name, input));
        let owner = of_input(&first).map_or(input, |(_, k)| k);
        match names.get(owner) {
            Some(_) if first_input(name) == Some(owner) => name.to_string(),
            Some(own) => format!("{name}_{own}"),
            None => name.to_string(),
        }
    });
    infer(graph);
}

fn uses(facts: &[Fact], v: ValueId, name: &str) -> bool {
    let shape = facts.get(v.index()).and_then(|f| f.shape.as_ref());
    shape.is_some_and(|s| s.iter().any(|d| d.symbols().any(|s| s == name)))
}

/// Names that occur in the shapes of more than one input.
fn shared_names(graph: &Graph) -> HashSet<String> {
    let mut count: HashMap<String, usize> = HashMap::new();
    for v in &graph.inputs {
        let own: HashSet<&str> = graph.shape(*v).into_iter().flatten().flat_map(|d| d.symbols()).collect();
        own.into_iter().for_each(|s| *count.entry(s.to_string()).or_default() += 1);
    }
    count.into_iter().filter(|(_, n)| *n > 1).map(|(s, _)| s).collect()
}

fn marked(name: &str, input: usize) -> String {
    format!("{name}{MARK}{input}")
}

/// Name and number of input of a marked name; nothing for what inference made of several.
fn of_input(name: &str) -> Option<(&str, usize)> {
    let (name, input) = name.split_once(MARK)?;
    Some((name, input.parse().ok()?))
}

/// Puts the graph's facts back to what the file says, with shared names of inputs replaced.
fn start(graph: &mut Graph, facts: &[Fact], shared: &HashSet<String>, name: &dyn Fn(&str, usize) -> String) {
    let values: Vec<ValueId> = graph.values().collect();
    for (v, fact) in values.into_iter().zip(facts) {
        *graph.fact_mut(v) = fact.clone();
    }
    for (k, v) in graph.inputs.clone().into_iter().enumerate() {
        let fact = graph.fact_mut(v);
        for d in fact.shape.iter_mut().flatten() {
            *d = d.renamed(&|s| shared.contains(s).then(|| name(s, k)));
        }
    }
}

/// Which marked names stand for one size: each points to one that was joined before it, the first to none.
#[derive(Default)]
struct Joined(HashMap<String, String>);

impl Joined {
    fn first(&self, name: &str) -> String {
        let mut at = name;
        while let Some(before) = self.0.get(at) {
            at = before;
        }
        at.to_string()
    }

    /// Joins the marked names of two dimensions that are equal if the file's names are believed. True where that is
    /// news.
    fn join(&mut self, a: &Dim, b: &Dim) -> bool {
        let plain = |d: &Dim| d.renamed(&|s| of_input(s).map(|(n, _)| n.to_string()));
        if a == b || plain(a) != plain(b) {
            return false;
        }
        let mut news = false;
        let mut leads: HashMap<String, String> = HashMap::new();
        for s in a.symbols().chain(b.symbols()) {
            let Some((name, input)) = of_input(s) else { continue };
            let this = self.first(&marked(name, input));
            let Some(other) = leads.insert(name.to_string(), this.clone()) else { continue };
            if this == other {
                continue;
            }
            // The name of the earlier input leads.
            let number = |s: &str| of_input(s).map(|(_, k)| k);
            let (lead, follower) = if number(&this) < number(&other) { (this, other) } else { (other, this) };
            leads.insert(name.to_string(), lead.clone());
            self.0.insert(follower, lead);
            news = true;
        }
        news
    }
}

/// First dimensions of inputs for which the file declares one shape, and of which the graph has joined all other
/// symbols: tokens and their mask have one batch, also where the mask is only looked up by row.
fn siblings(graph: &Graph, facts: &[Fact], joined: &Joined) -> Vec<(Dim, Dim)> {
    let declared = |v: ValueId| facts.get(v.index()).and_then(|f| f.shape.as_deref());
    let first = |d: &Dim| d.renamed(&|s| Some(joined.first(s)));
    let mut found = Vec::new();
    for (k, a) in graph.inputs.iter().enumerate() {
        for b in &graph.inputs[k + 1..] {
            let (Some([batch, rest @ ..]), true) = (declared(*a), declared(*a) == declared(*b)) else {
                continue;
            };
            let (Some([a, all_a @ ..]), Some([b, all_b @ ..])) =
                (graph.shape(*a).map(Vec::as_slice), graph.shape(*b).map(Vec::as_slice))
            else {
                continue;
            };
            let same = all_a.iter().zip(all_b).all(|(a, b)| first(a) == first(b));
            if batch.known().is_none() && rest.iter().any(|d| d.known().is_none()) && same {
                found.push((a.clone(), b.clone()));
            }
        }
    }
    found
}

/// Pairs of dimensions that `node` only takes if they are equal, or if one of them is 1.
fn meetings(graph: &Graph, node: &Node) -> Vec<(Dim, Dim)> {
    if !node.domain.is_empty() {
        return Vec::new();
    }
    let shape = |k: usize| node.input(k).and_then(|v| graph.shape(v)).map(Vec::as_slice);
    let elements = |k: usize| node.input(k).and_then(|v| graph.fact(v).vector());
    let all = || (0..node.inputs.len()).filter_map(shape);
    match node.op.as_str() {
        "Add" | "Sub" | "Mul" | "Div" | "Mod" | "Max" | "Min" | "Pow" | "Sum" | "Mean" | "PRelu" | "And"
        | "Or" | "Xor" | "Equal" | "Greater" | "GreaterOrEqual" | "Less" | "LessOrEqual" | "Where" => {
            pairs(all().collect(), aligned)
        }
        "Expand" => pairs(shape(0).into_iter().chain(elements(1)).collect(), aligned),
        "MatMul" => match (shape(0), shape(1)) {
            (Some(a), Some(b)) if a.len() > 1 && b.len() > 1 => {
                let (n, m) = (a.len(), b.len());
                let mut met = aligned(&a[..n - 2], &b[..m - 2]);
                met.push((a[n - 1].clone(), b[m - 2].clone()));
                met
            }
            _ => Vec::new(),
        },
        "Concat" => {
            let axis = node.int("axis", 0);
            let met = |a: &[Dim], b: &[Dim]| {
                let at = if axis < 0 { axis + a.len() as i64 } else { axis };
                let others = |(k, _): &(usize, (&Dim, &Dim))| *k as i64 != at;
                a.iter().zip(b).enumerate().filter(others).map(|(_, (a, b))| (a.clone(), b.clone())).collect()
            };
            pairs(all().collect(), met)
        }
        // The same leading dimensions; from the first that is folded or split on, nothing is told.
        "Reshape" => match (shape(0), elements(1)) {
            (Some(a), Some(b)) => a.iter().cloned().zip(b.iter().cloned()).collect(),
            _ => Vec::new(),
        },
        // Cutting an axis at the end that another value has leaves it whole where both are as long.
        "Slice" => match (shape(0), elements(2), elements(3)) {
            (Some(x), Some(ends), Some(axes)) => {
                let at = |d: &Dim| {
                    let a = d.known()?;
                    x.get(usize::try_from(if a < 0 { a.checked_add(x.len() as i64)? } else { a }).ok()?)
                };
                axes.iter().zip(ends).filter_map(|(a, e)| Some((at(a)?.clone(), e.clone()))).collect()
            }
            _ => Vec::new(),
        },
        // Query, key and value are of one batch; key and value of one length.
        "Attention" => {
            let mut met: Vec<_> = (1..3)
                .filter_map(|k| Some((shape(0)?.first()?.clone(), shape(k)?.first()?.clone())))
                .collect();
            let length = |s: &[Dim]| s.len().checked_sub(2).and_then(|k| s.get(k)).cloned();
            met.extend(shape(1).and_then(length).zip(shape(2).and_then(length)));
            met.extend(shape(3).and_then(|m| m.last().cloned()).zip(shape(1).and_then(length)));
            met
        }
        _ => Vec::new(),
    }
}

fn pairs(shapes: Vec<&[Dim]>, met: impl Fn(&[Dim], &[Dim]) -> Vec<(Dim, Dim)>) -> Vec<(Dim, Dim)> {
    let Some((first, rest)) = shapes.split_first() else { return Vec::new() };
    // Each with each: a shape of lower rank or of ones in front must not hide the others.
    let mut all: Vec<(Dim, Dim)> = rest.iter().flat_map(|s| met(first, s)).collect();
    all.extend(rest.windows(2).flat_map(|w| met(w[0], w[1])));
    all
}

/// Dimensions of two shapes counted from the last.
fn aligned(a: &[Dim], b: &[Dim]) -> Vec<(Dim, Dim)> {
    a.iter().rev().cloned().zip(b.iter().rev().cloned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builder::Builder;
    use crate::dim::show;
    use crate::tensor::DType;

    fn shape_of(g: &Graph, name: &str) -> String {
        show(g.shape(g.find(name).unwrap()).unwrap())
    }

    /// Three inputs of one declared shape; the graph adds the first two and multiplies the third over the batch.
    #[test]
    fn names_are_joined_where_the_graph_does() {
        let mut g = Graph::new("t", 20);
        let declared = || vec![Dim::from("batch"), Dim::from("seq"), Dim::from(4)];
        let [a, b, c] = ["a", "b", "c"].map(|n| g.add_input(n, DType::F32, declared()));
        let mut build = Builder::new(&mut g, "");
        let sum = build.op("Add", &[a, b]);
        let turned = build.op_with("Transpose", &[c], &[("perm", crate::ir::Attr::Ints(vec![0, 2, 1]))]);
        let y = build.op("MatMul", &[sum, turned]);
        g.rename(y, "y");
        g.outputs.push(y);
        infer_with_own_names(&mut g);
        assert_eq!(shape_of(&g, "a"), "[batch, seq, 4]");
        assert_eq!(shape_of(&g, "b"), "[batch, seq, 4]");
        assert_eq!(shape_of(&g, "c"), "[batch, seq_c, 4]");
        assert_eq!(shape_of(&g, "y"), "[batch, seq, seq_c]");
    }

    /// What inference can only compare after an earlier joining is joined by a later pass.
    #[test]
    fn joining_goes_on_until_nothing_is_new() {
        let mut g = Graph::new("t", 20);
        let [a, b, c] =
            ["a", "b", "c"].map(|n| g.add_input(n, DType::F32, vec![Dim::from("n"), Dim::from("m")]));
        let mut build = Builder::new(&mut g, "");
        let sum = build.op("Add", &[a, b]);
        let flat = build.op_with("Flatten", &[sum], &[("axis", crate::ir::Attr::Int(0))]);
        let other = build.op_with("Flatten", &[c], &[("axis", crate::ir::Attr::Int(0))]);
        let y = build.op("Mul", &[flat, other]);
        g.outputs.push(y);
        infer_with_own_names(&mut g);
        assert_eq!(shape_of(&g, "c"), "[n, m]");
    }

    /// A mask that is looked up by row and position: only its length meets that of the tokens.
    #[test]
    fn inputs_of_one_declared_shape_have_one_batch_once_their_lengths_are_joined() {
        let mut g = Graph::new("t", 20);
        let declared = || vec![Dim::from("batch"), Dim::from("seq")];
        let [a, b, c] = ["a", "b", "c"].map(|n| g.add_input(n, DType::F32, declared()));
        let mut build = Builder::new(&mut g, "");
        let first = build.ints(&[0]);
        let row = build.op_with("Gather", &[b, first], &[("axis", crate::ir::Attr::Int(0))]);
        let y = build.op("Add", &[a, row]);
        let z = build.op("Relu", &[c]);
        g.outputs = vec![y, z];
        infer_with_own_names(&mut g);
        assert_eq!(shape_of(&g, "b"), "[batch, seq]");
        assert_eq!(shape_of(&g, "c"), "[batch_c, seq_c]");
    }

    #[test]
    fn one_input_keeps_its_names() {
        let mut g = Graph::new("t", 20);
        g.add_input("a", DType::F32, vec![Dim::from("n"), Dim::from("n")]);
        g.add_input("b", DType::F32, vec![Dim::from("m")]);
        infer_with_own_names(&mut g);
        assert_eq!((shape_of(&g, "a"), shape_of(&g, "b")), ("[n, n]".into(), "[m]".into()));
    }
}
