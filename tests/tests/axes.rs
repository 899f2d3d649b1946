//! What the analysis of axes claims of exported models, tried on them: rows are put in another order, left out and
//! changed, and padding is filled with something else and lengthened.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::HashMap;
use std::path::Path;

use graft_graph::axes::{Axes, Batch, analyse};
use graft_graph::model::Role;
use graft_graph::{Graph, Tensor, ValueId};
use graft_runtime::{Session, SessionOptions};
use graft_tasks::{Base, BaseOptions};
use graft_tests::{runtime, shared};

const IDS: i64 = 90;

/// What is fed: ids of each row and its number of tokens; the rest follows from them.
#[derive(Clone)]
struct Feed {
    ids: Vec<Vec<i64>>,
    tokens: Vec<usize>,
    images: Vec<u32>,
}

impl Feed {
    fn new(rows: usize, length: usize) -> Feed {
        let id = |r: usize, p: usize| ((r * 31 + p * 17 + r * p * 5) as i64) % IDS + 1;
        Feed {
            ids: (0..rows).map(|r| (0..length).map(|p| id(r, p)).collect()).collect(),
            tokens: (0..rows).map(|r| length - r.min(length - 1)).collect(),
            images: (0..rows as u32).collect(),
        }
    }

    fn select(&self, rows: &[usize]) -> Feed {
        Feed {
            ids: rows.iter().map(|r| self.ids[*r].clone()).collect(),
            tokens: rows.iter().map(|r| self.tokens[*r]).collect(),
            images: rows.iter().map(|r| self.images[*r]).collect(),
        }
    }

    /// Other ids at padded positions, and `more` of them.
    fn other_padding(&self, more: usize) -> Feed {
        let mut feed = self.clone();
        for (row, tokens) in feed.ids.iter_mut().zip(&self.tokens) {
            row.resize(row.len() + more, 0);
            row.iter_mut().enumerate().skip(*tokens).for_each(|(p, id)| *id = (*id * 7 + p as i64) % IDS + 1);
        }
        feed
    }

    fn tensors(&self, base: &Base) -> Vec<(String, Tensor)> {
        let (rows, length) = (self.ids.len(), self.ids[0].len());
        let tensor = |role: Role, v: ValueId| match role {
            Role::Pixels => {
                let numbers = base.graph.shape(v).unwrap()[1..].iter().map(|d| d.known().unwrap() as usize);
                let shape: Vec<usize> = std::iter::once(rows).chain(numbers).collect();
                let size: usize = shape[1..].iter().product();
                let pixel = |r: u32, p: usize| (r as f32 * 1.7 + p as f32 * (0.31 + r as f32 * 0.01)).sin();
                let values: Vec<f32> =
                    self.images.iter().flat_map(|r| (0..size).map(move |p| pixel(*r, p))).collect();
                Tensor::new(shape, &values).unwrap()
            }
            Role::Mask => {
                let row = |t: &usize| (0..length).map(|p| i64::from(p < *t)).collect::<Vec<_>>();
                Tensor::new([rows, length], &self.tokens.iter().flat_map(row).collect::<Vec<_>>()).unwrap()
            }
            _ => Tensor::new([rows, length], &self.ids.concat()).unwrap(),
        };
        base.model.inputs.iter().map(|(v, r)| (base.graph.name_of(*v).to_string(), tensor(*r, *v))).collect()
    }
}

/// A model, all of whose values are read.
struct Probe {
    base: Base,
    graph: Graph,
    axes: Axes,
    session: Session,
}

type Values = HashMap<String, Tensor>;

impl Probe {
    fn open(folder: &Path) -> Option<Probe> {
        let base = Base::open(runtime()?, folder, &BaseOptions::default()).expect("the model opens");
        let axes = analyse(&base.graph, &base.model.inputs);
        let mut graph = base.graph.clone();
        let mut all: Vec<ValueId> = graph.nodes.iter().filter_map(|n| n.output(0)).collect();
        all.retain(|v| axes.rows_independent(*v) || axes.padding_invisible(*v));
        graph.outputs = all;
        let session = base.session(&graph, &SessionOptions::default()).expect("a session");
        Some(Probe { base, graph, axes, session })
    }

    fn run(&mut self, feed: &Feed) -> Values {
        let tensors = feed.tensors(&self.base);
        let inputs: Vec<(&str, &Tensor)> = tensors.iter().map(|(n, t)| (n.as_str(), t)).collect();
        let names: Vec<&str> = self.graph.outputs.iter().map(|o| self.graph.name_of(*o)).collect();
        let run = self.session.run(&inputs, &names).expect("the model runs");
        run.tensors().expect("outputs").into_iter().collect()
    }

    /// Compares `old` with `new` at every place of `old` that `place` (per axis: what it is, the number) gives a place
    /// in `new`.
    fn compare(&self, what: &str, v: ValueId, old: &Values, new: &Values, place: Place<'_>) -> usize {
        let name = self.graph.name_of(v);
        let (a, b) = (&old[name], &new[name]);
        let (x, y) = (numbers(a), numbers(b));
        assert_eq!(a.shape().len(), b.shape().len(), "{name}");
        let scale = x.iter().filter(|n| n.abs() < 1e30).fold(1e-3f64, |m, n| m.max(n.abs()));
        let mut compared = 0;
        for (i, n) in x.iter().enumerate() {
            let Some(to) = place(&coordinates(i, a.shape())) else { continue };
            let Some(j) = flat(&to, b.shape()) else { panic!("{what}: {name} has no place {to:?}") };
            let same = *n == y[j] || n.is_nan() && y[j].is_nan() || (n - y[j]).abs() <= 1e-4 * scale;
            assert!(same, "{what}: {name} at {to:?}: {n} became {}", y[j]);
            compared += 1;
        }
        compared
    }

    /// Tries every claim about rows: `map[i]` is where row `i` of `old` is in `new`.
    fn check_rows(&self, what: &str, old: &Values, new: &Values, map: &[Option<usize>]) -> usize {
        let mut claims = 0;
        for v in &self.graph.outputs {
            let compared = match self.axes.batch(*v) {
                Batch::Axis(k) => self.compare(what, *v, old, new, &|at| {
                    let mut to = at.to_vec();
                    to[k] = *map.get(at[k])?.as_ref()?;
                    Some(to)
                }),
                // What is alike in all rows may be there once for each.
                Batch::None if old[self.graph.name_of(*v)].shape() == new[self.graph.name_of(*v)].shape() => {
                    self.compare(what, *v, old, new, &|at| Some(at.to_vec()))
                }
                _ => 0,
            };
            claims += usize::from(compared > 0);
        }
        claims
    }

    /// Tries every claim about padding: what is not padded is the same in both.
    fn check_padding(&self, what: &str, feed: &Feed, old: &Values, new: &Values) -> usize {
        let mut claims = 0;
        for v in self.graph.outputs.iter().filter(|v| self.axes.padding_invisible(**v)) {
            let sequences = self.axes.sequences(*v);
            let batch = match self.axes.batch(*v) {
                Batch::Axis(k) => Some(k),
                Batch::None => None,
                _ => continue,
            };
            let shortest = feed.tokens.iter().min().copied().unwrap_or(0);
            let compared = self.compare(what, *v, old, new, &|at| {
                let tokens = batch.map_or(shortest, |k| feed.tokens[at[k]]);
                sequences.iter().all(|(k, _)| at[*k] < tokens).then(|| at.to_vec())
            });
            claims += usize::from(compared > 0);
        }
        claims
    }

    fn named(&self, part: &str) -> ValueId {
        let found =
            self.base.graph.outputs.iter().copied().find(|v| self.base.graph.name_of(*v).contains(part));
        found.unwrap_or_else(|| panic!("no output {part}"))
    }
}

type Place<'a> = &'a dyn Fn(&[usize]) -> Option<Vec<usize>>;

fn numbers(t: &Tensor) -> Vec<f64> {
    t.to_f64s()
        .or_else(|| Some(t.to_i64s()?.into_iter().map(|n| n as f64).collect()))
        .unwrap_or_else(|| t.bytes().iter().map(|b| f64::from(*b)).collect())
}

fn coordinates(mut i: usize, shape: &[usize]) -> Vec<usize> {
    let mut at = vec![0; shape.len()];
    for (a, n) in at.iter_mut().zip(shape).rev() {
        *a = i % n;
        i /= n;
    }
    at
}

fn flat(at: &[usize], shape: &[usize]) -> Option<usize> {
    at.iter().zip(shape).try_fold(0, |sum, (a, n)| (a < n).then_some(sum * n + a))
}

fn folder(name: &str) -> Option<std::path::PathBuf> {
    Some(shared()?.join("conformance/autodiff").join(name))
}

/// Tries all claims on a model whose batch and length are free; gives how many of rows and of padding were tried.
fn try_all(name: &str) -> Option<(Probe, usize, usize)> {
    let mut probe = Probe::open(&folder(name)?)?;
    let feed = Feed::new(3, 6);
    let old = probe.run(&feed);
    let order = [2, 0, 1];
    let turned = probe.run(&feed.select(&order));
    let rows = probe.check_rows("other order", &old, &turned, &[Some(1), Some(2), Some(0)]);
    let alone = probe.run(&feed.select(&[1]));
    probe.check_rows("alone", &old, &alone, &[None, Some(0), None]);
    let mut changed = feed.clone();
    changed.ids[0].iter_mut().for_each(|id| *id = *id % IDS + 1);
    (changed.tokens[0], changed.images[0]) = (4, 9);
    let changed = probe.run(&changed);
    probe.check_rows("another row changed", &old, &changed, &[None, Some(1), Some(2)]);
    let filled = probe.run(&feed.other_padding(0));
    let padding = probe.check_padding("other padding", &feed, &old, &filled);
    let longer = probe.run(&feed.other_padding(2));
    probe.check_padding("more padding", &feed, &old, &longer);
    Some((probe, rows, padding))
}

#[test]
fn hidden_states_of_encoders_and_decoders_are_proven_and_every_claim_holds() {
    for (name, output, sequences) in [("bert.ts", "last_hidden_state", 1), ("gpt2.ts", "logits", 1)] {
        let Some((probe, rows, padding)) = try_all(name) else { return };
        let v = probe.named(output);
        assert_eq!(probe.axes.batch(v), Batch::Axis(0), "{name}");
        assert!(probe.axes.rows_independent(v), "{name}");
        assert!(probe.axes.padding_invisible(v), "{name}");
        assert_eq!(probe.axes.sequences(v).len(), sequences, "{name}");
        assert!(rows > 60 && padding > 60, "{name}: only {rows} and {padding} claims");
    }
}

#[test]
fn claims_about_models_of_images_and_of_both_hold() {
    for (name, output, least) in [("resnet.ts", "last_hidden_state", 12), ("clip.ts", "image_embeds", 60)] {
        let Some((probe, rows, _)) = try_all(name) else { return };
        let v = probe.named(output);
        assert_eq!(probe.axes.batch(v), Batch::Axis(0), "{name}");
        assert!(rows >= least, "{name}: only {rows} claims");
    }
    let Some(folder) = folder("clip.ts") else { return };
    let Some(probe) = Probe::open(&folder) else { return };
    let every_pair = probe.named("logits_per_image");
    assert_eq!(probe.axes.batch(every_pair), Batch::Unknown, "each image meets each text");
}

#[test]
fn claims_about_models_of_fixed_sizes_hold() {
    for (name, output, length) in [
        ("bert.dynamo", "last_hidden_state", 7),
        ("llama.dynamo", "logits", 7),
        ("vit.dynamo", "last_hidden_state", 7),
    ] {
        let Some(folder) = folder(name) else { return };
        let Some(mut probe) = Probe::open(&folder) else { return };
        let feed = Feed::new(2, length);
        let old = probe.run(&feed);
        let turned = probe.run(&feed.select(&[1, 0]));
        let rows = probe.check_rows("other order", &old, &turned, &[Some(1), Some(0)]);
        let filled = probe.run(&feed.other_padding(0));
        probe.check_padding("other padding", &feed, &old, &filled);
        let v = probe.named(output);
        assert_eq!(probe.axes.batch(v), Batch::Axis(0), "{name}: {:?}", probe.axes.summary(v).mixed_by);
        assert!(rows > 40, "{name}: only {rows} claims");
    }
}
