//! Which rows of a batch are run together, and running them.

use std::collections::HashMap;

use graft_graph::Tensor;
use graft_plugins::api;
use graft_runtime::{SessionOptions, View};
use graft_tasks::{Examples, Fitted, Program, TaskError};
use serde_json::Value;

use super::queue::Item;
use super::scores::scores;
use crate::ask::{Refusal, Want};
use crate::store::Store;

/// Sessions of single adapters that are kept for their next rows.
const KEPT: usize = 4;

/// The sessions.
pub(super) struct Passes {
    pad: i64,
    options: SessionOptions,
    /// Sessions of single adapters, least recently used first.
    alone: Vec<((u64, Want), Program)>,
}

impl Passes {
    pub(super) fn new(pad: i64, options: SessionOptions) -> Passes {
        Passes { pad, options, alone: Vec::new() }
    }

    /// The rows that are run together.
    pub(super) fn groups(&self, items: Vec<Item>) -> Vec<Vec<Item>> {
        let mut groups: Vec<Vec<Item>> = Vec::new();
        for item in items {
            let same = |g: &&mut Vec<Item>| g[0].resident.id == item.resident.id && g[0].want == item.want;
            match groups.iter_mut().find(same) {
                Some(group) => group.push(item),
                None => groups.push(vec![item]),
            }
        }
        groups
    }

    /// The answers to the rows of one adapter.
    pub(super) fn run(&mut self, store: &Store, items: &[Item]) -> Result<Vec<Value>, Refusal> {
        let internal = |e: TaskError| Refusal::Internal(e.to_string());
        let Some(first) = items.first() else { return Ok(Vec::new()) };
        let resident = &first.resident;
        let fitted = resident.fitted(store, first.want).map_err(Refusal::Invalid)?;
        let fitted = fitted.ok_or_else(|| Refusal::Invalid("the adapter has no head".into()))?;
        let key = (resident.id, first.want);
        let mut program = match self.alone.iter().position(|(k, _)| *k == key) {
            Some(i) => self.alone.remove(i).1,
            None => fitted.program(&store.base, &self.options).map_err(internal)?,
        };
        let answers = answers(store, fitted, &mut program, items, self.pad);
        if self.alone.len() >= KEPT {
            self.alone.remove(0);
        }
        self.alone.push((key, program));
        answers
    }
}

fn answers(
    store: &Store,
    fitted: &Fitted,
    program: &mut Program,
    items: &[Item],
    pad: i64,
) -> Result<Vec<Value>, Refusal> {
    let internal = |e: TaskError| Refusal::Internal(e.to_string());
    let examples = Examples {
        rows: items.iter().map(|i| i.row.clone()).collect(),
        encodings: items.iter().map(|i| i.encoding.clone()).collect(),
        ..Examples::default()
    };
    let all: Vec<usize> = (0..items.len()).collect();
    let batch = examples.base_batch(&store.base, &all, pad, None).map_err(internal)?;
    let batch: HashMap<String, Tensor> = batch.tensors;
    let get = |name: &str| batch.get(name).or_else(|| fitted.value(name)).map(View::from);
    let mut tensors = || {
        let outputs = program.run(&get)?;
        let one = |n: String| Ok(api::Tensor::f32s(&n, outputs.shape(&n)?, outputs.f32s(&n)?));
        fitted.outputs().into_iter().map(one).collect::<Result<Vec<_>, TaskError>>()
    };
    let tensors = tensors().map_err(internal)?;
    match items.first().map(|i| i.want) {
        Some(Want::Scores) => scores(&tensors, items.len()),
        _ => fitted.answers(&examples, tensors).map_err(internal),
    }
}
