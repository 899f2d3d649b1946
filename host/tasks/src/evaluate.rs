//! Running examples through a forward graph, and what an objective makes of the outputs.

use graft_data::{Batches, Order};
use graft_graph::Tensor;
use graft_plugins::Objective;
use graft_plugins::api::{self, Metric};
use graft_runtime::View;

use crate::base::Base;
use crate::error::{Result, TaskError};
use crate::examples::Examples;
use crate::program::Program;

/// Rows of a batch when nothing is trained.
pub const FORWARD_BATCH: usize = 32;

/// Where the inputs of a forward pass come from.
pub trait Feed {
    /// The inputs that these rows have in common with nothing else: tensors of the batch by name.
    ///
    /// # Errors
    /// When the batch can't be made.
    fn batch(&self, rows: &[usize]) -> Result<std::collections::HashMap<String, Tensor>>;
    /// Lengths that batches are grouped by.
    fn lengths(&self) -> Vec<usize>;
    /// Rows that an example has in a batch; a batch holds the first of every example, then the second of every one.
    fn stack(&self) -> usize {
        1
    }
}

/// Examples as a base takes them.
pub struct TextFeed<'a> {
    /// The base.
    pub base: &'a Base,
    /// The rows.
    pub examples: &'a Examples,
    /// The id to pad with.
    pub pad: i64,
}

impl Feed for TextFeed<'_> {
    fn batch(&self, rows: &[usize]) -> Result<std::collections::HashMap<String, Tensor>> {
        Ok(self.examples.base_batch(self.base, rows, self.pad, None)?.tensors)
    }
    fn lengths(&self) -> Vec<usize> {
        self.examples.lengths()
    }
    fn stack(&self) -> usize {
        self.examples.stack()
    }
}

/// The outputs `names` of all rows, each `[rows, …]`, in the order of the rows; `[stack · rows, …]`, the first of every
/// example before the second, where examples have several. An output whose rows differ in their first axis alone has a
/// number for each token: rows are filled up with zeros to the longest.
///
/// # Errors
/// What a batch or ONNX Runtime says; outputs whose rows differ in shape otherwise, or are too many to keep.
pub fn run_all<'p>(
    program: &mut Program,
    feed: &dyn Feed,
    fixed: &dyn Fn(&str) -> Option<View<'p>>,
    names: &[String],
) -> Result<Vec<api::Tensor>> {
    let lengths = feed.lengths();
    let batches = Batches::new(&lengths, FORWARD_BATCH, Order::Grouped, 0, 1)?;
    let mut joined: Vec<Option<Joined>> = names.iter().map(|_| None).collect();
    for rows in batches.iter() {
        let batch = feed.batch(rows)?;
        let outputs = {
            let get = |name: &str| batch.get(name).map(View::from).or_else(|| fixed(name));
            program.run(&get)?
        };
        for (slot, name) in joined.iter_mut().zip(names) {
            let shape = outputs.shape(name)?;
            let j = match slot {
                Some(j) => j,
                None => slot.insert(Joined::new(name, &shape[1..], lengths.len(), feed.stack())?),
            };
            j.put(name, shape, outputs.f32s(name)?, rows)?;
        }
    }
    let finish = |(j, name): (Option<Joined>, &String)| {
        let j = j.unwrap_or_default();
        let shape: Vec<usize> = std::iter::once(lengths.len() * feed.stack()).chain(j.row).collect();
        api::Tensor::f32s(name, &shape, &j.values)
    };
    Ok(joined.into_iter().zip(names).map(finish).collect())
}

/// Most numbers of an output that are kept for all rows together, 16 GiB.
const MAX_KEPT: usize = 4 << 30;

/// Rows of one output, put where they belong.
#[derive(Default)]
struct Joined {
    row: Vec<usize>,
    rows: usize,
    stack: usize,
    values: Vec<f32>,
}

impl Joined {
    fn new(name: &str, row: &[usize], rows: usize, stack: usize) -> Result<Joined> {
        let all = rows.checked_mul(stack);
        let size = all.and_then(|all| row.iter().try_fold(all, |n, d| n.checked_mul(*d)));
        let size = size.filter(|n| *n <= MAX_KEPT).ok_or_else(|| TaskError::Input {
            what: format!("output '{name}'"),
            detail: format!("{rows} rows of the shape {row:?} are too many to keep; give fewer rows"),
        })?;
        Ok(Joined { row: row.to_vec(), values: vec![0.0; size], rows, stack })
    }

    /// Makes room for rows whose first axis is longer.
    fn lengthen(&mut self, name: &str, row: &[usize]) -> Result<()> {
        let mut longer = Joined::new(name, row, self.rows, self.stack)?;
        let all = (self.rows * self.stack).max(1);
        let (old, new) = (self.values.len() / all, longer.values.len() / all);
        for (from, to) in self.values.chunks_exact(old.max(1)).zip(longer.values.chunks_exact_mut(new.max(1)))
        {
            to[..from.len()].copy_from_slice(from);
        }
        *self = longer;
        Ok(())
    }

    fn put(&mut self, name: &str, shape: &[usize], values: &[f32], rows: &[usize]) -> Result<()> {
        // A head of tokens has one more axis than its rows' length.
        let of_tokens = shape.len() > 2 && self.row.len() + 1 == shape.len() && shape[2..] == self.row[1..];
        if of_tokens && shape[1] > self.row[0] {
            self.lengthen(name, &shape[1..])?;
        }
        if (shape[1..] != self.row && !of_tokens) || shape[0] != rows.len() * self.stack {
            return Err(TaskError::Input {
                what: format!("output '{name}'"),
                detail: format!(
                    "its rows have the shapes {:?} and {:?}; they can't be joined",
                    self.row,
                    &shape[1..]
                ),
            });
        }
        let (width, given) = (self.row.iter().product::<usize>(), shape[1..].iter().product::<usize>());
        let count = self.rows;
        let places = (0..self.stack).flat_map(|s| rows.iter().map(move |r| s * count + r));
        for (from, to) in values.chunks_exact(given.max(1)).zip(places) {
            self.values[to * width..][..given].copy_from_slice(from);
        }
        Ok(())
    }
}

/// The objective's metrics over labelled examples, given its outputs for all of them.
///
/// # Errors
/// Whatever the objective finds wrong.
pub fn judge(objective: &Objective, examples: &Examples, outputs: Vec<api::Tensor>) -> Result<Vec<Metric>> {
    let mut tensors = outputs;
    tensors.extend(objective.collate(&examples.rows, 0)?);
    Ok(objective.metrics(tensors)?)
}
