//! Frozen features: what depends on no trainable parameter, computed once per example.

use std::collections::HashMap;
use std::io::{self, Write};

use graft_graph::axes::analyse;
use graft_graph::split::{Split, Whole, split};
use graft_graph::{DType, Tensor, ValueId};
use graft_plugins::{Adapted, api};
use graft_runtime::SessionOptions;
use graft_tasks::{Base, Examples, Feed, Program, Result, TaskError, TextFeed, run_all};
use half::f16;

use super::cache::{Cache, Column, Layout, MEMORY, Precision, Rows};
use super::key::key;

/// Largest difference, relative to the largest feature, between an example alone and in a padded batch. Padding that
/// reaches a feature changes it by much more.
const TOLERANCE: f32 = 1e-4;
/// Bytes of features in float32 that are computed before they are written out, where not all are kept in memory.
const CHUNK: usize = 256 << 20;

/// Features of examples. An example that has several texts has a row of features for each of them, beside each other.
pub(super) struct Features {
    layout: Layout,
    rows: Rows,
    /// Rows of features for each example.
    stack: usize,
}

impl Feed for Features {
    fn batch(&self, rows: &[usize]) -> Result<HashMap<String, Tensor>> {
        let (row, size) = (self.layout.row(), self.layout.precision.bytes());
        let all = self.rows.bytes();
        let mut batch = HashMap::new();
        let mut start = 0;
        // The base's batch has the first text of every example before the second.
        let places: Vec<usize> =
            (0..self.stack).flat_map(|s| rows.iter().map(move |r| r * self.stack + s)).collect();
        for c in &self.layout.columns {
            let width = c.shape.iter().product::<usize>() * size;
            let mut bytes = Vec::with_capacity(places.len() * width / size * 4);
            for place in &places {
                let cell = &all[place * row + start..place * row + start + width];
                match self.layout.precision {
                    Precision::F32 => bytes.extend_from_slice(cell),
                    Precision::F16 => cell.chunks_exact(2).for_each(|b| {
                        bytes.extend_from_slice(&f16::from_le_bytes([b[0], b[1]]).to_f32().to_le_bytes());
                    }),
                }
            }
            start += width;
            let shape: Vec<usize> = std::iter::once(places.len()).chain(c.shape.iter().copied()).collect();
            batch.insert(c.name.clone(), Tensor::from_bytes(DType::F32, shape, bytes.into())?);
        }
        Ok(batch)
    }

    fn lengths(&self) -> Vec<usize> {
        vec![1; self.layout.rows / self.stack.max(1)]
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
    let f32s =
        |name: &String| adapted.graph.find(name).is_some_and(|v| adapted.graph.dtype(v) == Some(DType::F32));
    match made.cut.iter().find(|name| !f32s(name)) {
        None => Ok(made),
        Some(other) => {
            Err(Whole::NothingFixed(format!("'{other}', which the trained part reads, is not of f32")))
        }
    }
}

/// Where features come from, counted in sets of examples.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FeatureCache {
    /// Read from the cache folder.
    pub read: usize,
    /// Written there.
    pub written: usize,
    /// Why something was not kept.
    pub note: Option<String>,
}

/// Computes features with the frozen half of a graph, or reads those of an earlier run.
pub(super) struct Frozen<'a> {
    base: &'a Base,
    /// The cut.
    pub(super) split: Split,
    options: SessionOptions,
    pad: i64,
    precision: Precision,
    cache: std::result::Result<Cache, String>,
    program: Option<Program>,
    /// What was read and kept.
    pub(super) report: FeatureCache,
}

impl<'a> Frozen<'a> {
    pub(super) fn new(
        base: &'a Base,
        split: Split,
        options: &SessionOptions,
        pad: i64,
        (keep, precision): (bool, Precision),
    ) -> Frozen<'a> {
        let options = SessionOptions { name: "features".into(), ..options.clone() };
        let off = || Err("feature_cache is off".to_string());
        let cache = if keep { Cache::of_user() } else { off() };
        let report = FeatureCache { note: cache.as_ref().err().cloned(), ..FeatureCache::default() };
        Frozen { base, split, options, pad, precision, cache, program: None, report }
    }

    /// True where the frozen half of `split` computes the same.
    pub(super) fn fits(&self, split: &Split) -> bool {
        self.split.frozen == split.frozen && self.split.cut == split.cut
    }

    /// The features of the training data, or why there are none: padding that is seen, or no room.
    ///
    /// # Errors
    /// What computing them says.
    pub(super) fn training(&mut self, examples: &Examples) -> Result<std::result::Result<Features, String>> {
        let layout = self.layout(examples)?;
        if let Some(found) = self.found(&layout, examples.stack()) {
            return Ok(Ok(found));
        }
        if let Some(doubt) = self.split.doubt.clone()
            && !self.hides_padding(examples)?
        {
            return Ok(Err(format!("{doubt}; tried on two examples, it does")));
        }
        self.computed(layout, examples)
    }

    /// The features of other data.
    ///
    /// # Errors
    /// As [`Frozen::training`]; and where they have no room.
    pub(super) fn features(&mut self, examples: &Examples) -> Result<Features> {
        let layout = self.layout(examples)?;
        match self.found(&layout, examples.stack()) {
            Some(found) => Ok(found),
            None => self.computed(layout, examples)?.map_err(|detail| TaskError::Input {
                what: format!("the features of {}", examples.origin),
                detail,
            }),
        }
    }

    /// How the features of these examples lie in memory and on disk. The batch is the only size of a cut that is not a
    /// number.
    fn layout(&self, examples: &Examples) -> Result<Layout> {
        let graph = &self.split.frozen;
        let column = |name: &String| {
            let shape = graph.find(name).and_then(|v| graph.shape(v));
            let known = |d: &graft_graph::Dim| usize::try_from(d.known()?).ok();
            let shape = shape.into_iter().flatten().skip(1).filter_map(known).collect();
            Column { name: name.clone(), shape }
        };
        let columns = self.split.cut.iter().map(column).collect();
        let key = if self.cache.is_ok() {
            key(self.base, &self.split, &self.options, self.pad, self.precision, examples)?
        } else {
            String::new()
        };
        Ok(Layout { key, rows: examples.len() * examples.stack(), precision: self.precision, columns })
    }

    fn found(&mut self, layout: &Layout, stack: usize) -> Option<Features> {
        let rows = self.cache.as_ref().ok()?.read(layout)?;
        self.report.read += 1;
        Some(Features { layout: layout.clone(), rows, stack })
    }

    fn computed(
        &mut self,
        layout: Layout,
        examples: &Examples,
    ) -> Result<std::result::Result<Features, String>> {
        let in_memory = layout.bytes() <= MEMORY;
        let cache = match &self.cache {
            Ok(c) if c.has_room(&layout) => Ok(c.clone()),
            Ok(_) => {
                Err("they take more than the limit of the cache folder, GRAFT_FEATURES_LIMIT".to_string())
            }
            Err(why) => Err(why.clone()),
        };
        if in_memory {
            let mut bytes = Vec::with_capacity(layout.bytes() as usize);
            self.compute(&layout, examples, &mut bytes)?;
            match cache.and_then(|c| c.keep(&layout, |w| w.write_all(&bytes))) {
                Ok(()) => self.report.written += 1,
                Err(why) => self.report.note = Some(why),
            }
            return Ok(Ok(Features { layout, rows: Rows::Memory(bytes), stack: examples.stack() }));
        }
        let cache = match cache {
            Ok(c) => c,
            Err(why) => {
                return Ok(Err(format!("the features of all examples take more than 1 GiB, and {why}")));
            }
        };
        let mut failed = None;
        let kept = cache.keep(&layout, |w| {
            self.compute(&layout, examples, w).map_err(|e| {
                failed = Some(e);
                io::Error::other("computing failed")
            })
        });
        if let Some(e) = failed {
            return Err(e);
        }
        match kept.and_then(|()| cache.read(&layout).ok_or_else(|| "the file can't be read back".to_string()))
        {
            Ok(rows) => {
                self.report.written += 1;
                Ok(Ok(Features { layout, rows, stack: examples.stack() }))
            }
            Err(why) => Ok(Err(format!("the features of all examples take more than 1 GiB, and {why}"))),
        }
    }

    /// Runs the frozen half over all examples and writes their rows in order.
    fn compute(&mut self, layout: &Layout, examples: &Examples, out: &mut dyn Write) -> Result<()> {
        let stack = examples.stack();
        let wide = layout.row().saturating_mul(stack) / layout.precision.bytes() * 4;
        let per_chunk = (CHUNK / wide.max(1)).max(1);
        let all: Vec<usize> = (0..examples.len()).collect();
        let unwritten = |e: io::Error| TaskError::Input { what: "features".into(), detail: e.to_string() };
        for rows in all.chunks(per_chunk) {
            let tensors =
                if rows.len() == all.len() { self.run(examples)? } else { self.run(&examples.select(rows))? };
            let places = (0..rows.len()).flat_map(|r| (0..stack).map(move |s| s * rows.len() + r));
            for r in places {
                for t in &tensors {
                    let width = t.data.len() / (rows.len() * stack).max(1);
                    let cell = &t.data[r * width..(r + 1) * width];
                    match layout.precision {
                        Precision::F32 => out.write_all(cell),
                        Precision::F16 => out.write_all(&halved(cell).ok_or_else(too_large)?),
                    }
                    .map_err(unwritten)?;
                }
            }
        }
        Ok(())
    }

    fn run(&mut self, examples: &Examples) -> Result<Vec<api::Tensor>> {
        let base = self.base;
        let program = match &mut self.program {
            Some(p) => p,
            None => self.program.insert(Program::new(base, &self.split.frozen, &self.options)?),
        };
        run_all(program, &TextFeed { base, examples, pad: self.pad }, &|_| None, &self.split.cut)
    }

    /// Whether padding is invisible, where that is not proven: the shortest and the longest example must give alone what
    /// they give together.
    fn hides_padding(&mut self, examples: &Examples) -> Result<bool> {
        let lengths = examples.lengths();
        let order = |r: &usize| lengths[*r];
        let (Some(short), Some(long)) =
            ((0..lengths.len()).min_by_key(order), (0..lengths.len()).max_by_key(order))
        else {
            return Ok(false);
        };
        let together = self.run(&examples.first_texts(&[short, long]))?;
        for (row, example) in [(0, short), (1, long)] {
            let alone = self.run(&examples.first_texts(&[example]))?;
            for (a, t) in alone.iter().zip(&together) {
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

/// Float32 as float16; `None` where a number is too large for it.
fn halved(cell: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(cell.len() / 2);
    for b in cell.chunks_exact(4) {
        let full = f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
        let half = f16::from_f32(full);
        if full.is_finite() && !half.is_finite() {
            return None;
        }
        bytes.extend_from_slice(&half.to_le_bytes());
    }
    Some(bytes)
}

fn too_large() -> TaskError {
    TaskError::Input {
        what: "feature_precision".into(),
        detail: "a feature is larger than float16 can hold (65504); choose f32".into(),
    }
}
