//! Which rows of a batch are run together, and running them.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use graft_graph::Tensor;
use graft_plugins::api;
use graft_runtime::View;
use graft_tasks::{Banks, Examples, Parts, TaskError, Tenant};
use indexmap::IndexMap;
use serde_json::Value;

use super::queue::Item;
use super::scores::scores;
use crate::ask::{Refusal, Want};
use crate::form::{Alone, Form, Way};
use crate::store::{Resident, Store};

/// Sessions of single adapters that are kept for their next rows.
const KEPT: usize = 4;

/// An answer for each row of a group.
pub(super) type Answers = Vec<Result<Value, Refusal>>;

/// A row of a batch that many share.
#[derive(Clone, Copy)]
struct Row<'a> {
    item: &'a Item,
    form: &'a Form,
    parts: &'a Parts,
}

impl Row<'_> {
    fn tenant(&self) -> Tenant<'_> {
        Tenant { id: self.item.resident.id, parts: self.parts }
    }
}

/// The sessions.
pub(super) struct Passes {
    pad: i64,
    /// Most bytes of adapters in banks.
    bank_bytes: usize,
    /// Adapters with sessions of their own, least recently used first.
    alone: Vec<((u64, Want), Weak<Resident>)>,
    banks: Option<Banks>,
    /// When each adapter in the banks was used last.
    used: HashMap<u64, (u64, Weak<Resident>)>,
    batches: u64,
}

impl Passes {
    pub(super) fn new(pad: i64, bank_bytes: usize) -> Passes {
        let (alone, used) = (Vec::new(), HashMap::new());
        Passes { pad, bank_bytes, alone, banks: None, used, batches: 0 }
    }

    /// The rows that are run together: all that can be, and those of each other adapter.
    pub(super) fn groups(&self, store: &Store, items: Vec<Item>) -> Vec<Vec<Item>> {
        let mut shared = Vec::new();
        let mut alone: IndexMap<(u64, Want), Vec<Item>> = IndexMap::new();
        for item in items {
            match item.resident.form(store, item.want) {
                Ok(Some(Form { way: Way::Shared(..), .. })) => shared.push(item),
                _ => alone.entry((item.resident.id, item.want)).or_default().push(item),
            }
        }
        let shared = (!shared.is_empty()).then_some(shared);
        shared.into_iter().chain(alone.into_values()).collect()
    }

    /// The answers to the rows of a group.
    pub(super) fn run(&mut self, store: &Store, items: &[Item]) -> Result<Answers, Refusal> {
        let mut forms = Vec::with_capacity(items.len());
        for item in items {
            let form = item.resident.form(store, item.want).map_err(Refusal::Invalid)?;
            forms.push(form.ok_or_else(|| Refusal::Invalid("the adapter has no head".into()))?);
        }
        match forms.first().map(|f| &f.way) {
            None => Ok(Vec::new()),
            Some(Way::Alone(alone)) => self.alone(store, forms[0], alone, items),
            Some(Way::Shared(..)) => self.shared(store, &forms, items),
        }
    }

    fn alone(
        &mut self,
        store: &Store,
        form: &Form,
        alone: &Alone,
        items: &[Item],
    ) -> Result<Answers, Refusal> {
        self.used_alone(store, &items[0]);
        let rows: Vec<&Item> = items.iter().collect();
        let batch = self.batch(store, &rows)?;
        let fitted = &alone.fitted;
        let run = || {
            let mut session = alone.session(&store.base, &store.rooms)?;
            let Some(program) = session.as_mut() else { return Ok(Vec::new()) };
            let get = |name: &str| batch.get(name).or_else(|| fitted.value(name)).map(View::from);
            let outputs = program.run(&get)?;
            let one = |n: String| Ok(api::Tensor::f32s(&n, outputs.shape(&n)?, outputs.f32s(&n)?));
            fitted.outputs().into_iter().map(one).collect::<Result<Vec<_>, TaskError>>()
        };
        Ok(decoded(form, &rows, run().map_err(internal)?))
    }

    /// Counts a use of an adapter with a session of its own. Of those that were used longest ago the sessions go.
    fn used_alone(&mut self, store: &Store, item: &Item) {
        let key = (item.resident.id, item.want);
        self.alone.retain(|(k, r)| *k != key && r.strong_count() > 0);
        self.alone.push((key, Arc::downgrade(&item.resident)));
        if self.alone.len() <= KEPT {
            return;
        }
        let ((_, want), oldest) = self.alone.remove(0);
        let Some(oldest) = oldest.upgrade() else { return };
        if let Ok(Some(Form { way: Way::Alone(alone), .. })) = oldest.form(store, want) {
            alone.end_session();
        }
    }

    fn batch(&self, store: &Store, items: &[&Item]) -> Result<HashMap<String, Tensor>, Refusal> {
        let examples = examples(items.iter().copied());
        let all: Vec<usize> = (0..items.len()).collect();
        let made = examples.base_batch(&store.base, &all, self.pad, None).map_err(internal)?;
        Ok(made.tensors)
    }

    /// Rows of many adapters. What is wrong with one of them is told to its own rows alone.
    fn shared(&mut self, store: &Store, forms: &[&Form], items: &[Item]) -> Result<Answers, Refusal> {
        if let Some(room) = store.rooms.take() {
            match &mut self.banks {
                Some(banks) => banks.adopt(room),
                none => *none = Some(Banks::new(room)),
            }
        }
        let mut rows: Vec<Row<'_>> = Vec::with_capacity(items.len());
        for (item, form) in items.iter().zip(forms) {
            match &form.way {
                Way::Shared(parts, _) => rows.push(Row { item, form, parts }),
                Way::Alone(..) => return Err(Refusal::Internal("rows of one session were mixed up".into())),
            }
        }
        let refused = self.place(store, &rows);
        let placed: Vec<usize> = (0..rows.len()).filter(|i| refused[*i].is_none()).collect();
        let mut answers: Vec<Option<Result<Value, Refusal>>> =
            refused.into_iter().map(|r| r.map(Err)).collect();
        let mut groups = vec![placed];
        while let Some(group) = groups.pop().filter(|g| !g.is_empty()) {
            let own: Vec<Row<'_>> = group.iter().map(|i| rows[*i]).collect();
            match self.run_shared(store, &own) {
                Ok(made) => group.iter().zip(made).for_each(|(i, a)| answers[*i] = Some(a)),
                Err(why) => {
                    let first = own[0].item.resident.id;
                    let same = |i: &usize| rows[*i].item.resident.id == first;
                    let (mine, others): (Vec<usize>, Vec<usize>) = group.into_iter().partition(same);
                    if others.is_empty() {
                        mine.iter().for_each(|i| answers[*i] = Some(Err(why.clone())));
                    } else {
                        groups.extend([others, mine]);
                    }
                }
            }
        }
        Ok(answers.into_iter().map(|a| a.unwrap_or_else(|| Err(lost()))).collect())
    }

    /// Rows of adapters that are in the banks, in one pass.
    fn run_shared(&mut self, store: &Store, rows: &[Row<'_>]) -> Result<Answers, Refusal> {
        let items: Vec<&Item> = rows.iter().map(|r| r.item).collect();
        let tenants: Vec<Tenant<'_>> = rows.iter().map(Row::tenant).collect();
        let batch = self.batch(store, &items)?;
        let banks = self.banks.as_mut().ok_or_else(|| Refusal::Internal("there is no session".into()))?;
        let outputs = banks.run(&batch, &tenants).map_err(internal)?;
        // Rows of one adapter are decoded together.
        let mut answers: Vec<Option<Result<Value, Refusal>>> = items.iter().map(|_| None).collect();
        for first in 0..items.len() {
            if answers[first].is_some() {
                continue;
            }
            let vector = |i: usize| items[i].want == Want::Vector;
            let same =
                |i: &usize| items[*i].resident.id == items[first].resident.id && vector(*i) == vector(first);
            let own: Vec<usize> = (first..items.len()).filter(same).collect();
            let mut tensors = Vec::new();
            for (name, here, sizes) in banks.outputs(rows[first].parts) {
                let shape = outputs.shape(&here).map_err(|e| internal(e.into()))?;
                let values = outputs.f32s(&here).map_err(|e| internal(e.into()))?;
                tensors.push(picked(&name, shape, values, &sizes, &own));
            }
            let of: Vec<&Item> = own.iter().map(|i| items[*i]).collect();
            for (row, answer) in own.iter().zip(decoded(rows[first].form, &of, tensors)) {
                answers[*row] = Some(answer);
            }
        }
        Ok(answers.into_iter().map(|a| a.unwrap_or_else(|| Err(lost()))).collect())
    }

    /// Sees to it that the adapters are in the banks; those that were not used for longest make room.
    /// Why a row's adapter can't be had, for each row.
    fn place(&mut self, store: &Store, rows: &[Row<'_>]) -> Vec<Option<Refusal>> {
        let mut refused: Vec<Option<Refusal>> = rows.iter().map(|_| None).collect();
        let Some(banks) = &mut self.banks else { return refused };
        self.batches += 1;
        let gone: Vec<u64> =
            self.used.iter().filter(|(_, (_, r))| r.strong_count() == 0).map(|(id, _)| *id).collect();
        for id in gone {
            banks.remove(id);
            self.used.remove(&id);
        }
        for (row, refused) in rows.iter().zip(&mut refused) {
            let tenant = row.tenant();
            self.used.insert(tenant.id, (self.batches, Arc::downgrade(&row.item.resident)));
            if banks.holds(&tenant) {
                continue;
            }
            if let Err(e) = banks.place(&store.base, &tenant) {
                *refused = Some(internal(e));
                continue;
            }
            banks.keep_alone(&tenant);
            while banks.bytes_leased() > self.bank_bytes {
                let pinned = |r: &Weak<Resident>| r.upgrade().is_some_and(|r| store.is_pinned(&r));
                let idle = self.used.iter().filter(|(_, (tick, r))| *tick < self.batches && !pinned(r));
                let oldest = idle.min_by_key(|(_, (tick, _))| *tick).map(|(id, (_, r))| (*id, r.upgrade()));
                let Some((oldest, resident)) = oldest else { break };
                banks.take_out(oldest, resident.iter().flat_map(|r| r.shared()));
                self.used.remove(&oldest);
                store.metrics.evicted();
            }
        }
        refused
    }
}

fn internal(e: TaskError) -> Refusal {
    Refusal::Internal(e.to_string())
}

fn examples<'i>(items: impl Iterator<Item = &'i Item> + Clone) -> Examples {
    Examples {
        rows: items.clone().map(|i| i.row.clone()).collect(),
        encodings: items.map(|i| i.encoding.clone()).collect(),
        ..Examples::default()
    }
}

/// The answers that an objective makes of its outputs for these rows, which are of one adapter.
fn decoded(form: &Form, items: &[&Item], tensors: Vec<api::Tensor>) -> Answers {
    let rows: Vec<api::Row> = items.iter().map(|i| i.row.clone()).collect();
    let numbers = items.iter().any(|i| i.want == Want::Scores).then(|| scores(&tensors, items.len()));
    let words = || form.objective().and_then(|o| Ok(o.decode(&rows, tensors.clone())?));
    let words = if items.iter().all(|i| i.want == Want::Scores) { None } else { Some(words()) };
    let one = |(k, item): (usize, &&Item)| match (item.want, &numbers, &words) {
        (Want::Scores, Some(Ok(all)), _) => all.get(k).cloned().ok_or_else(lost),
        (Want::Scores, Some(Err(why)), _) => Err(why.clone()),
        (_, _, Some(Ok(all))) => all.get(k).cloned().ok_or_else(lost),
        // One row that can't be answered (ids without a text for spans) is no reason not to answer the others.
        (_, _, Some(Err(_))) if items.len() > 1 => {
            let alone = tensors.iter().map(|t| row_of(t, k)).collect();
            decoded(form, &[item], alone).pop().unwrap_or_else(|| Err(lost()))
        }
        (_, _, Some(Err(e))) => Err(Refusal::Unfit(e.to_string())),
        _ => Err(lost()),
    };
    items.iter().enumerate().map(one).collect()
}

fn lost() -> Refusal {
    Refusal::Internal("an answer is missing".into())
}

fn row_of(t: &api::Tensor, row: usize) -> api::Tensor {
    match t.to_f32s() {
        Ok(values) => picked(&t.name, &t.shape, &values, &[], &[row]),
        Err(_) => t.clone(),
    }
}

/// Some rows of an output, cut to the sizes that are the adapter's own.
fn picked(
    name: &str,
    shape: &[usize],
    values: &[f32],
    sizes: &[Option<usize>],
    rows: &[usize],
) -> api::Tensor {
    let own: Vec<usize> = shape
        .iter()
        .skip(1)
        .enumerate()
        .map(|(k, d)| sizes.get(k).copied().flatten().map_or(*d, |s| s.min(*d)))
        .collect();
    let per: usize = shape.iter().skip(1).product();
    let mut kept = Vec::with_capacity(rows.len() * own.iter().product::<usize>());
    for row in rows {
        if let Some(values) = values.get(row * per..(row + 1) * per) {
            cut(values, &shape[1..], &own, &mut kept);
        }
    }
    let shape: Vec<usize> = std::iter::once(rows.len()).chain(own).collect();
    api::Tensor::f32s(name, &shape, &kept)
}

fn cut(values: &[f32], shape: &[usize], own: &[usize], kept: &mut Vec<f32>) {
    match (shape, own) {
        ([_, rest @ ..], [n, own @ ..]) if !rest.is_empty() => {
            let per: usize = rest.iter().product();
            values.chunks_exact(per.max(1)).take(*n).for_each(|v| cut(v, rest, own, kept));
        }
        ([_], [n]) => kept.extend(values.iter().take(*n)),
        _ => kept.extend(values),
    }
}
