//! Frozen features: what depends on no trainable parameter, computed once per example.

use std::collections::HashMap;

use graft_graph::axes::analyse;
use graft_graph::memory::bytes_of;
use graft_graph::split::{Split, Whole, split};
use graft_graph::{Graph, Tensor, ValueId};
use graft_plugins::{Adapted, api};
use graft_runtime::SessionOptions;
use graft_tasks::{Base, Examples, Feed, Program, Result, TextFeed, run_all};

/// Largest difference, relative to the largest feature, between an example alone and in a padded batch. Padding that
/// reaches a feature changes it by much more.
const TOLERANCE: f32 = 1e-4;

/// Most bytes of features that are kept for the training data; where they would take more, the whole graph is run.
const MAX_FEATURES: u64 = 2 << 30;

/// Features of examples: one tensor `[stack · rows, …]` for each cut value, the first text of every example before the
/// second.
pub(super) struct Features {
    tensors: Vec<api::Tensor>,
    rows: usize,
    stack: usize,
}

impl Feed for Features {
    fn batch(&self, rows: &[usize]) -> Result<HashMap<String, Tensor>> {
        let mut batch = HashMap::new();
        for t in &self.tensors {
            let width = t.data.len() / (self.rows * self.stack).max(1);
            let places = (0..self.stack).flat_map(|s| rows.iter().map(move |r| s * self.rows + r));
            let bytes: Vec<u8> = places.flat_map(|p| &t.data[p * width..(p + 1) * width]).copied().collect();
            let count = rows.len() * self.stack;
            let shape: Vec<usize> = std::iter::once(count).chain(t.shape[1..].iter().copied()).collect();
            batch.insert(t.name.clone(), Tensor::from_bytes(graft_graph::DType::F32, shape, bytes.into())?);
        }
        Ok(batch)
    }

    fn lengths(&self) -> Vec<usize> {
        vec![1; self.rows]
    }

    fn stack(&self) -> usize {
        self.stack
    }
}

/// The cut of an adapted graph, where one can be made: nothing trainable lies in front of it.
pub(super) fn cut(base: &Base, adapted: &Adapted) -> std::result::Result<Split, Whole> {
    let mut changing: Vec<ValueId> = adapted.params.iter().map(|p| p.value).collect();
    changing.extend(adapted.settings.iter().map(|s| s.value));
    changing.extend(adapted.noises.iter().map(|n| n.value));
    changing.extend(adapted.states.iter().map(|s| s.value));
    changing.extend(adapted.inputs.iter().map(|(_, v)| *v));
    let axes = analyse(&adapted.graph, &base.model.inputs);
    let made = split(&adapted.graph, &changing, &axes)?;
    let f32s = |name: &String| {
        adapted.graph.find(name).is_some_and(|v| adapted.graph.dtype(v) == Some(graft_graph::DType::F32))
    };
    if made.cut.iter().all(f32s) { Ok(made) } else { Err(Whole::NothingFixed) }
}

/// Computes features with the frozen half of a graph.
pub(super) struct Extractor {
    program: Program,
    names: Vec<String>,
    graph: Graph,
}

impl Extractor {
    pub(super) fn new(base: &Base, split: &Split, options: &SessionOptions) -> Result<Extractor> {
        let options = SessionOptions { name: "features".into(), ..options.clone() };
        Ok(Extractor {
            program: Program::new(base, &split.frozen, &options)?,
            names: split.cut.clone(),
            graph: split.frozen.clone(),
        })
    }

    /// True where the frozen half of `split` computes the same.
    pub(super) fn fits(&self, split: &Split) -> bool {
        self.graph == split.frozen && self.names == split.cut
    }

    pub(super) fn features(&mut self, base: &Base, examples: &Examples, pad: i64) -> Result<Features> {
        let tensors = run_all(&mut self.program, &TextFeed { base, examples, pad }, &|_| None, &self.names)?;
        Ok(Features { tensors, rows: examples.len(), stack: examples.stack() })
    }

    /// Whether there is room to keep the features of `rows` rows of the base's batch. The batch is the only size of a cut that is not a
    /// number.
    pub(super) fn has_room(&self, rows: usize) -> bool {
        let rows = i64::try_from(rows).ok();
        let sizes: Option<Vec<u64>> =
            self.graph.outputs.iter().map(|v| bytes_of(&self.graph, *v, &|_| rows)).collect();
        sizes.is_some_and(|s| s.iter().fold(0u64, |n, b| n.saturating_add(*b)) <= MAX_FEATURES)
    }

    /// Whether padding is invisible, where that is not proven: the shortest and the longest example must give alone what
    /// they give together.
    pub(super) fn hides_padding(&mut self, base: &Base, examples: &Examples, pad: i64) -> Result<bool> {
        let lengths = examples.lengths();
        let order = |r: &usize| lengths[*r];
        let (Some(short), Some(long)) =
            ((0..lengths.len()).min_by_key(order), (0..lengths.len()).max_by_key(order))
        else {
            return Ok(false);
        };
        let together = self.features(base, &examples.first_texts(&[short, long]), pad)?;
        for (row, example) in [(0, short), (1, long)] {
            let alone = self.features(base, &examples.first_texts(&[example]), pad)?;
            for (a, t) in alone.tensors.iter().zip(&together.tensors) {
                let (Ok(a), Ok(t)) = (a.to_f32s(), t.to_f32s()) else { return Ok(false) };
                let t = &t[row * a.len()..(row + 1) * a.len()];
                let scale = a.iter().fold(0f32, |m, v| m.max(v.abs())).max(f32::MIN_POSITIVE);
                if a.iter().zip(t).any(|(x, y)| (x - y).abs() > TOLERANCE * scale) {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }
}
