//! From fragments to one graph.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::rules::{self, Operand};
use super::slot::{Bank, Layout, Null};
use super::take_apart::{Fragment, Kind, Place, kinds};
use super::{Unbatchable, fuse};
use crate::builder::Builder;
use crate::cse::join_equal;
use crate::dim::Dim;
use crate::fused::{self, BANK_DOWN, BANK_UP};
use crate::ir::{Attr, Fact, Graph, Node, ValueId};
use crate::sites::module_path;
use crate::tensor::{DType, Tensor};

/// A graph that answers for many adapters.
#[derive(Debug, Clone)]
pub struct Joined {
    /// The graph. Inputs are those of the base, banks and their indices; outputs are the heads'.
    pub graph: Graph,
    /// What became of each fragment, in order.
    pub fragments: Vec<Placed>,
}

/// A fragment in a joined graph.
#[derive(Debug, Clone)]
pub struct Placed {
    /// Its banks.
    pub banks: Vec<Bank>,
    /// Name of an input, bool `[batch]`, that says which rows have this fragment, where the graph needs to know.
    pub active: Option<String>,
    /// Outputs of the head: the name in the graph, for each of [`Fragment::outputs`].
    pub outputs: Vec<String>,
}

/// Writes fragments into one copy of the base.
///
/// # Errors
/// The operator that has no rule, with its place.
pub fn join(base: &Graph, fragments: &[&Fragment]) -> Result<Joined, Unbatchable> {
    let mut graph = base.clone();
    graph.outputs.clear();
    let base_nodes = graph.nodes.len();
    let of_base = kinds(base, &|_| Kind::Rows);
    let rows_dim = base.inputs.first().and_then(|v| base.shape(*v)?.first().cloned());
    let rows_dim = rows_dim.unwrap_or_else(|| Dim::symbol("batch"));
    // What stands for a value of the base: decided last, when it is known what there is.
    let mut stand_in: BTreeMap<ValueId, ValueId> = BTreeMap::new();
    for v in fragments.iter().flat_map(|f| &f.places).filter_map(|(p, _)| match p {
        Place::All(v) => Some(*v),
        Place::Input(..) => None,
    }) {
        stand_in.entry(v).or_insert_with(|| {
            let fact = graph.fact(v).clone();
            graph.add_value("joined", fact)
        });
    }
    for n in &mut graph.nodes {
        for v in n.inputs.iter_mut().flatten() {
            *v = stand_in.get(v).copied().unwrap_or(*v);
        }
    }
    let mut placed = Vec::new();
    let mut claims: BTreeMap<Place, Vec<Claim>> = BTreeMap::new();
    for (k, f) in fragments.iter().enumerate() {
        for (domain, version) in &f.graph.opsets {
            graph.opsets.entry(domain.clone()).or_insert(*version);
        }
        let mut e = Emit::new(&mut graph, f, k, &rows_dim, &|v| of_base[v.index()]);
        for r in &f.reads {
            let here = if r.raw { r.from } else { stand_in.get(&r.from).copied().unwrap_or(r.from) };
            e.map.insert(r.value, here);
        }
        e.write()?;
        for (place, v) in &f.places {
            let Some(value) = e.map.get(v).copied() else { return Err(lost()) };
            claims.entry(*place).or_default().push(Claim { fragment: k, value, exact: e.exact(*v, place) });
        }
        let mut outputs = Vec::new();
        for o in &f.outputs {
            let v = e.map.get(&o.value).copied().ok_or_else(lost)?;
            let name = format!("f{k}/{}", o.name);
            let own = Builder::new(e.graph, format!("f{k}/output.")).op("Identity", &[v]);
            e.graph.rename(own, &name);
            e.graph.outputs.push(own);
            outputs.push(name);
        }
        let banks = std::mem::take(&mut e.banks);
        placed.push(Placed { banks, active: None, outputs });
    }
    let mut active: HashMap<usize, ValueId> = HashMap::new();
    let mut stands: HashMap<ValueId, ValueId> = HashMap::new();
    for (place, claims) in &claims {
        let old = match place {
            Place::All(v) => *v,
            Place::Input(_, _, v) => stands.get(v).copied().unwrap_or(*v),
        };
        let mut now = old;
        for c in claims {
            now = put(&mut graph, &mut placed, &mut active, &rows_dim, c, old, now)?;
        }
        match place {
            Place::All(v) => {
                if let Some(s) = stand_in.remove(v) {
                    graph.replace_uses(s, now);
                    stands.insert(*v, now);
                }
            }
            Place::Input(node, k, _) => {
                let reader = graph.nodes[..base_nodes].iter_mut().find(|n| n.outputs.contains(&Some(*node)));
                if let Some(input) = reader.and_then(|n| n.inputs.get_mut(*k)) {
                    *input = Some(now);
                }
            }
        }
    }
    graph.sort().map_err(|v| Unbatchable {
        op: "value".into(),
        place: v,
        why: "depends on itself".into(),
    })?;
    join_equal(&mut graph);
    fuse::low_rank(&mut graph);
    fuse::bias(&mut graph);
    graph.remove_dead();
    let read: HashSet<ValueId> =
        graph.nodes.iter().flat_map(|n| n.inputs.iter().flatten().copied()).collect();
    graph.inputs.retain(|v| read.contains(v) || graph.outputs.contains(v));
    Ok(Joined { graph, fragments: placed })
}

fn lost() -> Unbatchable {
    Unbatchable { op: "output".into(), place: String::new(), why: "nothing makes it".into() }
}

/// A value that a fragment puts in a place.
struct Claim {
    fragment: usize,
    value: ValueId,
    /// The node makes nothing of the old value for rows of others, and which of its inputs that is.
    exact: Option<usize>,
}

/// What stands in a place when a claim is put over what stood there.
fn put(
    graph: &mut Graph,
    placed: &mut [Placed],
    active: &mut HashMap<usize, ValueId>,
    rows: &Dim,
    c: &Claim,
    old: ValueId,
    now: ValueId,
) -> Result<ValueId, Unbatchable> {
    let node = graph.nodes.iter_mut().find(|n| n.outputs.first() == Some(&Some(c.value)));
    if let (Some(k), Some(node)) = (c.exact, node)
        && node.input(k) == Some(old)
    {
        node.inputs[k] = Some(now);
        return Ok(c.value);
    }
    let rank = graph.shape(now).or(graph.shape(old)).map(Vec::len).filter(|r| *r > 0);
    let rank = rank.ok_or_else(|| Unbatchable {
        op: "value".into(),
        place: graph.name_of(old).to_owned(),
        why: "has a shape that is not known".into(),
    })?;
    let flag = *active.entry(c.fragment).or_insert_with(|| {
        let name = format!("f{}.active", c.fragment);
        placed[c.fragment].active = Some(name.clone());
        graph.add_input(&name, DType::Bool, vec![rows.clone()])
    });
    let mut b = Builder::new(graph, format!("f{}/", c.fragment));
    let axes: Vec<i64> = (1..rank as i64).collect();
    let wide = if axes.is_empty() {
        flag
    } else {
        let axes = b.ints(&axes);
        b.op("Unsqueeze", &[flag, axes])
    };
    Ok(b.op("Where", &[wide, c.value, now]))
}

/// Writes one fragment.
pub(super) struct Emit<'a> {
    pub(super) graph: &'a mut Graph,
    f: &'a Fragment,
    number: usize,
    rows_dim: &'a Dim,
    kinds: Vec<Kind>,
    /// Values of the fragment in the joined graph.
    pub(super) map: HashMap<ValueId, ValueId>,
    null: HashMap<ValueId, Null>,
    pub(super) banks: Vec<Bank>,
    inputs: HashMap<String, ValueId>,
    place: Vec<(String, String)>,
}

impl<'a> Emit<'a> {
    fn new(
        graph: &'a mut Graph,
        f: &'a Fragment,
        number: usize,
        rows_dim: &'a Dim,
        of_base: &dyn Fn(ValueId) -> Kind,
    ) -> Emit<'a> {
        let kinds = f.kinds(of_base);
        let (map, null, inputs) = (HashMap::new(), HashMap::new(), HashMap::new());
        Emit { graph, f, number, rows_dim, kinds, map, null, banks: Vec::new(), inputs, place: Vec::new() }
    }

    fn write(&mut self) -> Result<(), Unbatchable> {
        let f = self.f;
        for (v, t) in f.graph.constants() {
            let own = self.graph.add_constant(&format!("f{}/c", self.number), t.clone());
            self.map.insert(v, own);
        }
        for node in &f.graph.nodes {
            let Some(out) = node.output(0) else { continue };
            if self.kinds[out.index()] == Kind::Param {
                continue;
            }
            let operands: Vec<Operand> = node.inputs.iter().map(|v| self.operand(*v)).collect();
            if operands.iter().any(|o| matches!(o, Operand::Slot(_))) {
                let op = node.full_op();
                let told = |why: &str| Unbatchable {
                    op: op.clone(),
                    place: module_path(node).unwrap_or_default(),
                    why: why.into(),
                };
                let rule = rules::find(&op)
                    .ok_or_else(|| told("has no rule for parameters that differ from row to row"))?;
                let made = rule(self, node, &operands).map_err(&told)?;
                self.map.insert(out, made);
                if node.outputs.iter().skip(1).any(Option::is_some) {
                    return Err(told("has several outputs"));
                }
            } else {
                self.copy(node)?;
            }
            let of: Vec<Null> = node.inputs.iter().flatten().map(|v| self.null(*v)).collect();
            self.null.insert(out, rules::null(&node.op, &of));
        }
        Ok(())
    }

    fn operand(&self, v: Option<ValueId>) -> Operand {
        let Some(v) = v else { return Operand::None };
        match self.map.get(&v) {
            Some(here) => Operand::Same(*here),
            None if self.kinds[v.index()] == Kind::Param => Operand::Slot(v),
            None => Operand::None,
        }
    }

    fn null(&self, v: ValueId) -> Null {
        if self.kinds[v.index()] == Kind::Param {
            // Rows that may be padded are filled up with zeros, whatever they are made of.
            return if self.f.padded_axis(v).is_some() { Null::Zeros } else { self.f.null_of(v) };
        }
        self.null.get(&v).copied().unwrap_or(Null::Any)
    }

    /// Whether rows of others keep what stood in the place, and which input of the last node that is.
    fn exact(&self, v: ValueId, place: &Place) -> Option<usize> {
        let node = self.f.graph.nodes.iter().find(|n| n.output(0) == Some(v))?;
        let [Some(a), Some(b)] = node.inputs[..] else { return None };
        let stood = |v: ValueId| {
            self.f.reads.iter().any(|r| {
                r.value == v
                    && match place {
                        Place::All(from) => r.from == *from && r.raw,
                        Place::Input(_, _, from) => r.from == *from,
                    }
            })
        };
        let used = |v: ValueId| self.f.graph.nodes.iter().filter(|n| n.inputs.contains(&Some(v))).count();
        // Nothing else may see what others add in this place.
        let places = self.f.places.iter().filter(|(_, w)| *w == v).count();
        let alone = used(v) == 0 && places == 1 && self.f.outputs.iter().all(|o| o.value != v);
        let keeps = |other: ValueId| {
            matches!((node.op.as_str(), self.null(other)), ("Add", Null::Zeros) | ("Mul", Null::Ones))
        };
        match (stood(a), stood(b)) {
            (true, false) if alone && keeps(b) => Some(0),
            (false, true) if alone && keeps(a) => Some(1),
            _ => None,
        }
    }

    fn copy(&mut self, node: &Node) -> Result<(), Unbatchable> {
        let mut own = node.clone();
        own.name = format!("f{}/{}", self.number, node.name);
        own.metadata.clone_from(&self.place);
        for v in own.inputs.iter_mut().flatten() {
            *v = self.map.get(v).copied().ok_or_else(lost)?;
        }
        for v in own.outputs.iter_mut().flatten() {
            let fact = self.f.graph.fact(*v).clone();
            let made = self.graph.add_value(&format!("f{}/v", self.number), Fact { elements: None, ..fact });
            self.map.insert(*v, made);
            *v = made;
        }
        self.graph.nodes.push(own);
        Ok(())
    }

    fn builder(&mut self) -> Builder<'_> {
        Builder::new(self.graph, format!("f{}/", self.number))
    }

    /// Axes of a value of the fragment.
    pub(super) fn rank(&self, v: ValueId) -> Option<usize> {
        self.f.graph.shape(v).map(Vec::len)
    }

    pub(super) fn fragment_dim(&self, v: ValueId, axis: usize) -> Option<&Dim> {
        self.f.graph.shape(v)?.get(axis)
    }

    pub(super) fn op(&mut self, op: &str, inputs: &[ValueId]) -> ValueId {
        self.builder().op(op, inputs)
    }

    pub(super) fn op_with(&mut self, op: &str, inputs: &[ValueId], attrs: &[(&str, Attr)]) -> ValueId {
        self.builder().op_with(op, inputs, attrs)
    }

    /// The node with other inputs.
    pub(super) fn again(&mut self, node: &Node, inputs: &[ValueId]) -> ValueId {
        let inputs: Vec<Option<ValueId>> = inputs.iter().copied().map(Some).collect();
        let (op, domain, attrs) = (node.op.clone(), node.domain.clone(), node.attrs.clone());
        self.builder().emit(&op, &domain, &inputs, attrs, 1)[0]
    }

    pub(super) fn unsqueeze(&mut self, v: ValueId, axes: &[i64]) -> ValueId {
        let mut b = self.builder();
        let axes = b.ints(axes);
        b.op("Unsqueeze", &[v, axes])
    }

    pub(super) fn squeeze(&mut self, v: ValueId, axes: &[i64]) -> ValueId {
        let mut b = self.builder();
        let axes = b.ints(axes);
        b.op("Squeeze", &[v, axes])
    }

    /// Ones of the size of a vector of the fragment.
    pub(super) fn ones_like(&mut self, v: Option<ValueId>) -> Option<ValueId> {
        let [n] = self.f.graph.shape(v?)?.as_slice() else { return None };
        let n = usize::try_from(n.known()?).ok()?;
        Some(self.builder().constant(Tensor::vector(&vec![1f32; n])))
    }

    fn input(&mut self, name: &str, dtype: DType, shape: Vec<Dim>) -> ValueId {
        if let Some(known) = self.inputs.get(name) {
            return *known;
        }
        let made = self.graph.add_input(name, dtype, shape);
        self.inputs.insert(name.to_owned(), made);
        made
    }

    /// The bank that keeps a value, and its index where it has one.
    fn bank(&mut self, v: ValueId, layout: Layout) -> Result<(ValueId, Option<ValueId>), &'static str> {
        let k = self.number;
        let tag = match layout {
            Layout::Rows(axis) => format!("f{k}.v{}.{axis}", v.index()),
            _ => format!("f{k}.v{}", v.index()),
        };
        let shape = self.f.graph.shape(v).cloned().ok_or("has a parameter of unknown shape")?;
        let (index, rest) = match layout {
            Layout::Number => (String::new(), Vec::new()),
            Layout::Row => (format!("f{k}.slot"), shape),
            // Values along whose rows there are as many places are filled in step.
            Layout::Rows(axis) => {
                let size = shape.get(axis).ok_or("has a parameter of too few axes")?.to_string();
                let mut rest = shape;
                rest.remove(axis);
                (format!("f{k}.rows.{size}"), rest)
            }
        };
        let row: Option<Vec<usize>> = rest.iter().map(|d| usize::try_from(d.known()?).ok()).collect();
        let row = row.ok_or("has a parameter with several axes that may be padded")?;
        let batch = self.rows_dim.clone();
        if layout == Layout::Number {
            let input = self.input(&tag, DType::F32, vec![batch]);
            let null = if self.f.null_of(v) == Null::Ones { 1.0 } else { 0.0 };
            self.keep(Bank { input: tag, layout, row, index, null, value: v });
            return Ok((input, None));
        }
        let count = Dim::symbol(format!("{index}.count"));
        let dims = std::iter::once(count).chain(row.iter().map(|d| Dim::from(*d))).collect();
        let input = self.input(&tag, DType::F32, dims);
        let most = Dim::symbol(format!("{index}.most"));
        let dims = if layout == Layout::Row { vec![batch] } else { vec![batch, most] };
        let at = self.input(&index.clone(), DType::I64, dims);
        let ones = layout == Layout::Row && self.f.null_of(v) != Null::Zeros;
        let null = if ones { 1.0 } else { 0.0 };
        self.keep(Bank { input: tag, layout, row, index, null, value: v });
        Ok((input, Some(at)))
    }

    fn keep(&mut self, bank: Bank) {
        if !self.banks.iter().any(|b| b.input == bank.input) {
            self.banks.push(bank);
        }
    }

    /// A value of parameters for each row of the batch: `[batch, …]`.
    pub(super) fn rows(&mut self, v: ValueId, axis: Option<usize>) -> Result<ValueId, &'static str> {
        let rank = self.rank(v).ok_or("has a parameter of unknown shape")?;
        let layout = rules::layout(rank, self.f.padded_axis(v), axis);
        let (bank, index) = self.bank(v, layout)?;
        let Some(index) = index else { return Ok(bank) };
        let taken = self.op_with("Gather", &[bank, index], &[("axis", 0i64.into())]);
        match layout {
            Layout::Rows(axis) if axis > 0 => {
                // [batch, rows, others …] → the rows to their place.
                let mut perm: Vec<i64> = (2..=rank as i64).collect();
                perm.insert(axis, 1);
                perm.insert(0, 0);
                Ok(self.op_with("Transpose", &[taken], &[("perm", Attr::Ints(perm))]))
            }
            _ => Ok(taken),
        }
    }

    /// `x · p` with a matrix `p` of parameters; `was` is what `x` is in the fragment.
    pub(super) fn product(
        &mut self,
        x: ValueId,
        was: Option<ValueId>,
        p: ValueId,
    ) -> Result<ValueId, &'static str> {
        let rank = was.and_then(|v| self.rank(v)).ok_or("has an operand of unknown rank")?;
        let size = |axis| self.fragment_dim(p, axis).and_then(Dim::known).unwrap_or(i64::MAX);
        let shorter = usize::from(size(1) <= size(0));
        match rank {
            2 => {
                let x = self.unsqueeze(x, &[1]);
                let y = self.bank_product(x, p, shorter)?;
                Ok(self.squeeze(y, &[1]))
            }
            3 => self.bank_product(x, p, shorter),
            4.. => {
                let rows = self.rows(p, Some(shorter))?;
                let axes: Vec<i64> = (1..=rank as i64 - 3).collect();
                let rows = self.unsqueeze(rows, &axes);
                Ok(self.op("MatMul", &[x, rows]))
            }
            _ => Err("has rows that are no vectors"),
        }
    }

    /// `x [batch, positions, …] · p` by rows of its bank, which are not gathered.
    fn bank_product(&mut self, x: ValueId, p: ValueId, shorter: usize) -> Result<ValueId, &'static str> {
        let layout = rules::layout(2, self.f.padded_axis(p), Some(shorter));
        let (bank, index) = self.bank(p, layout)?;
        let index = index.ok_or("has a parameter that is a number")?;
        let op = if layout == Layout::Rows(1) { BANK_DOWN } else { BANK_UP };
        Ok(fused::emit(&mut self.builder(), op, &[x, bank, index], &[]))
    }
}
