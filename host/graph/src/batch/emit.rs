//! Writes one fragment into the joined graph: parameters become banks, and each row of the batch names its own.

use std::collections::HashMap;

use super::Unbatchable;
use super::fragment::{Fragment, Kind, Place};
use super::join::lost;
use super::rules::{self, Operand};
use super::slot::{Bank, Layout, Null};
use super::virtual_tokens::is_virtual;
use crate::builder::Builder;
use crate::dim::Dim;
use crate::fused::{self, BANK_DOWN, BANK_UP};
use crate::ir::{Attr, Fact, Graph, Node, ValueId};
use crate::sites::module_path;
use crate::tensor::{DType, Tensor};

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
    /// For results of rules what passes the first operand on, in the joined graph.
    entrances: HashMap<ValueId, ValueId>,
    place: Vec<(String, String)>,
}

impl<'a> Emit<'a> {
    pub(super) fn new(
        graph: &'a mut Graph,
        f: &'a Fragment,
        number: usize,
        rows_dim: &'a Dim,
        of_base: &dyn Fn(ValueId) -> Kind,
    ) -> Emit<'a> {
        let kinds = f.kinds(of_base);
        let (map, null, inputs) = (HashMap::new(), HashMap::new(), HashMap::new());
        let (entrances, banks, place) = (HashMap::new(), Vec::new(), Vec::new());
        Emit { graph, f, number, rows_dim, kinds, map, null, banks, inputs, entrances, place }
    }

    pub(super) fn write(&mut self) -> Result<(), Unbatchable> {
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

    /// Where rows of others keep what stood in the place: the node that reads it, by what it makes, and at which input.
    pub(super) fn exact(&self, v: ValueId, place: &Place) -> Option<(ValueId, usize)> {
        let node = self.f.graph.nodes.iter().find(|n| n.output(0) == Some(v))?;
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
        if is_virtual(node) {
            let entrance = *self.entrances.get(&v)?;
            return (alone && stood(node.input(0)?)).then_some((entrance, 0));
        }
        let [Some(a), Some(b)] = node.inputs[..] else { return None };
        let here = *self.map.get(&v)?;
        match (stood(a), stood(b)) {
            (true, false) if alone && keeps(b) => Some((here, 0)),
            (false, true) if alone && keeps(a) => Some((here, 1)),
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

    /// The element type of a value of the fragment.
    pub(super) fn dtype(&self, v: ValueId) -> Option<DType> {
        self.f.graph.dtype(v)
    }

    /// The first operand of `node`, passed on by a node of its own: what reads it reads there whatever is put there later.
    pub(super) fn entrance(&mut self, node: &Node, x: ValueId) -> ValueId {
        let own = self.op("Identity", &[x]);
        if let Some(out) = node.output(0) {
            self.entrances.insert(out, own);
        }
        own
    }

    pub(super) fn constant(&mut self, tensor: Tensor) -> ValueId {
        self.builder().constant(tensor)
    }

    pub(super) fn ints(&mut self, values: &[i64]) -> ValueId {
        self.builder().ints(values)
    }

    pub(super) fn cast(&mut self, v: ValueId, dtype: DType) -> ValueId {
        self.builder().cast(v, dtype)
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

    /// Rows of a matrix `p [numbers, width]` of parameters by their numbers, `ids [batch, …]`: `[batch, …, width]`. The bank is
    /// read where it lies.
    pub(super) fn looked_up(
        &mut self,
        p: ValueId,
        ids: ValueId,
        was: Option<ValueId>,
    ) -> Result<ValueId, &'static str> {
        let axes = was.and_then(|v| self.rank(v)).ok_or("has numbers of unknown rank")? as i64;
        if self.rank(p) != Some(2) || axes == 0 {
            return Err("looks up something else than rows of a matrix for each row of the batch");
        }
        let numbers = self.fragment_dim(p, 0).and_then(Dim::known);
        let numbers = numbers.ok_or("looks up in a table of unknown size")?;
        let layout = rules::layout(2, self.f.padded_axis(p), None);
        let (bank, index) = self.bank(p, layout)?;
        let index = index.ok_or("looks up in a number")?;
        let by_columns = match layout {
            Layout::Rows(1) => true,
            Layout::Row => false,
            _ => return Err("has a table that may be padded"),
        };
        let ids = self.cast(ids, DType::I64);
        // Places of the bank as one long list: of single numbers, or of rows.
        let size = self.constant(Tensor::scalar(numbers));
        let first = self.op("Mul", &[index, size]);
        let (first, ids, all) = if by_columns {
            let wide: Vec<i64> = (1..axes).collect();
            let first = if wide.is_empty() { first } else { self.unsqueeze(first, &wide) };
            (first, self.unsqueeze(ids, &[axes]), self.ints(&[-1]))
        } else {
            let width = self.fragment_dim(p, 1).and_then(Dim::known);
            let width = width.ok_or("looks up in a table of unknown width")?;
            let wide: Vec<i64> = (1..axes).collect();
            let first = if wide.is_empty() { first } else { self.unsqueeze(first, &wide) };
            (first, ids, self.ints(&[-1, width]))
        };
        let list = self.op("Reshape", &[bank, all]);
        let places = self.op("Add", &[first, ids]);
        Ok(self.op_with("Gather", &[list, places], &[("axis", 0i64.into())]))
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
