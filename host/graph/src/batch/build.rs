//! A fragment that grows, node by node.

use std::collections::HashMap;

use super::Unbatchable;
use super::fragment::Read;
use super::take_apart::{Apart, told};
use crate::dim::Dim;
use crate::ir::{Fact, Graph, Node, ValueId};
use crate::shape;
use crate::tensor::DType;

/// A fragment that grows. The numbers of its values follow from its structure alone.
pub(super) struct Build<'b, 'a> {
    pub(super) apart: &'b Apart<'a>,
    pub(super) out: Graph,
    pub(super) map: HashMap<(ValueId, bool), ValueId>,
    pub(super) reads: Vec<Read>,
    pub(super) leaves: Vec<(ValueId, usize)>,
}

impl Build<'_, '_> {
    pub(super) fn known(&self, v: ValueId) -> Option<ValueId> {
        self.map.get(&(v, false)).copied()
    }

    pub(super) fn take(&mut self, node: &Node) -> Result<(), Unbatchable> {
        if node.attrs.values().any(|a| matches!(a, crate::Attr::Graph(_))) {
            return Err(told(node, "has a graph inside"));
        }
        let mut own = node.clone();
        own.name = format!("n{}", self.out.nodes.len());
        own.metadata.clear();
        for v in own.inputs.iter_mut().flatten() {
            *v = self.input(*v);
        }
        for v in own.outputs.iter_mut().flatten() {
            let made = self.out.add_value(&format!("v{}", self.out.value_count()), Fact::default());
            self.map.insert((*v, false), made);
            *v = made;
        }
        self.out.nodes.push(own);
        let last = self.out.nodes.len() - 1;
        shape::infer_at(&mut self.out, last);
        Ok(())
    }

    fn input(&mut self, v: ValueId) -> ValueId {
        let a = self.apart;
        let g = a.m.graph;
        let through = a.alias.get(&v).copied();
        if through.is_none_or(|from| from == v)
            && let Some(known) = self.known(v)
        {
            return known;
        }
        if let Some(leaf) = a.leaf_of.get(&v) {
            return self.leaf(v, *leaf);
        }
        if v.index() >= a.base.value_count()
            && through.is_none()
            && let Some(t) = g.constant(v)
        {
            let own = self.out.add_constant(&format!("c{}", self.out.value_count()), t.clone());
            self.map.insert((v, false), own);
            return own;
        }
        let (from, raw) = match through {
            Some(from) => (from, false),
            // What something stands for everywhere is read by what makes that.
            None => (v, a.alias.values().any(|b| *b == v)),
        };
        if let Some(known) = self.map.get(&(from, true)).copied()
            && self.reads.iter().any(|r| r.value == known && r.raw == raw)
        {
            return known;
        }
        let fact = g.fact(v).clone();
        let name = format!("r{}", self.out.value_count());
        let own = self.out.add_input(
            &name,
            fact.dtype.unwrap_or(DType::F32),
            fact.shape.clone().unwrap_or_default(),
        );
        *self.out.fact_mut(own) = fact;
        self.map.insert((from, true), own);
        self.reads.push(Read { from, value: own, raw });
        own
    }

    fn leaf(&mut self, v: ValueId, number: usize) -> ValueId {
        if let Some(known) = self.known(v) {
            return known;
        }
        let leaf = &self.apart.m.leaves[number];
        let mut shape = self.apart.m.graph.shape(v).cloned().unwrap_or_default();
        // Axes of one size within a fragment are padded alike: each may be for itself, so they may together.
        for axis in &leaf.paddable {
            if let Some(d) = shape.get_mut(*axis) {
                *d = Dim::symbol(format!("pad{d}"));
            }
        }
        let own = self.out.add_input(&format!("p{}", self.leaves.len()), DType::F32, shape);
        self.map.insert((v, false), own);
        self.leaves.push((own, number));
        own
    }
}
