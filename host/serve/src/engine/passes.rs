//! Which rows of a batch are run together, and running them.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use graft_graph::Tensor;
use graft_plugins::api;
use graft_runtime::View;
use graft_tasks::{Banks, Examples, Parts, TaskError, Tenant, Threads};
use indexmap::IndexMap;

use super::queue::Item;
use crate::ask::{Refusal, Want};
use crate::form::{Alone, Form, Way};
use crate::store::{Resident, Store};

/// Sessions of single adapters that are kept for their next rows.
const KEPT: usize = 4;

/// Rows of one adapter that were run.
pub(super) struct Ran {
    /// Their places in the group.
    pub(super) rows: Vec<usize>,
    /// What came out for them: its first dimension is theirs.
    pub(super) outputs: Result<Vec<api::Tensor>, Refusal>,
}

/// A row of a batch that many share.
#[derive(Clone, Copy)]
struct Row<'a> {
    /// In its group.
    place: usize,
    item: &'a Item,
    parts: &'a Parts,
}

impl Row<'_> {
    fn tenant(&self) -> Tenant<'_> {
        Tenant { id: self.item.resident.id, parts: self.parts }
    }
}

/// The sessions of a lane.
pub(super) struct Passes {
    lane: usize,
    pad: i64,
    /// Most bytes of adapters in its banks.
    bank_bytes: usize,
    /// Adapters with sessions of their own, least recently used first.
    alone: Vec<((u64, Want), Weak<Resident>)>,
    banks: Option<Banks>,
    /// When each adapter in the banks was used last.
    used: HashMap<u64, (u64, Weak<Resident>)>,
    batches: u64,
}

impl Passes {
    pub(super) fn new(lane: usize, pad: i64, bank_bytes: usize) -> Passes {
        let (alone, used) = (Vec::new(), HashMap::new());
        Passes { lane, pad, bank_bytes, alone, banks: None, used, batches: 0 }
    }

    /// The rows that are run together: all that can be, and those of each other adapter.
    pub(super) fn groups(&self, store: &Store, items: Vec<Item>) -> Vec<Vec<Item>> {
        let mut shared = Vec::new();
        let mut alone: IndexMap<(u64, Want), Vec<Item>> = IndexMap::new();
        for item in items {
            match item.form(store) {
                Ok(Form { way: Way::Shared(..), .. }) => shared.push(item),
                _ => alone.entry((item.resident.id, item.want)).or_default().push(item),
            }
        }
        let shared = (!shared.is_empty()).then_some(shared);
        shared.into_iter().chain(alone.into_values()).collect()
    }

    /// Runs a group with some of the threads: what came out for each of its rows, once.
    pub(super) fn run(
        &mut self,
        store: &Store,
        items: &[Item],
        threads: Threads,
    ) -> Result<Vec<Ran>, Refusal> {
        let forms = items.iter().map(|i| i.form(store)).collect::<Result<Vec<_>, _>>()?;
        match forms.first().map(|f| &f.way) {
            None => Ok(Vec::new()),
            Some(Way::Alone(alone)) => self.alone(store, alone, items),
            Some(Way::Shared(..)) => self.shared(store, &forms, items, threads),
        }
    }

    fn alone(&mut self, store: &Store, alone: &Alone, items: &[Item]) -> Result<Vec<Ran>, Refusal> {
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
        Ok(vec![Ran { rows: (0..items.len()).collect(), outputs: Ok(run().map_err(internal)?) }])
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
    fn shared(
        &mut self,
        store: &Store,
        forms: &[&Form],
        items: &[Item],
        threads: Threads,
    ) -> Result<Vec<Ran>, Refusal> {
        if let Some(room) = store.rooms.take(self.lane) {
            match &mut self.banks {
                Some(banks) => banks.adopt(room),
                none => *none = Some(Banks::new(room)),
            }
        }
        let mut rows: Vec<Row<'_>> = Vec::with_capacity(items.len());
        for (place, (item, form)) in items.iter().zip(forms).enumerate() {
            match &form.way {
                Way::Shared(parts, _) => rows.push(Row { place, item, parts }),
                Way::Alone(..) => return Err(Refusal::Internal("rows of one session were mixed up".into())),
            }
        }
        let refused = self.place(store, &rows);
        let placed = rows.iter().zip(&refused).filter(|(_, why)| why.is_none()).map(|(row, _)| *row);
        let mut groups: Vec<Vec<Row<'_>>> = vec![placed.collect()];
        let without = |(i, why): (usize, Option<Refusal>)| Some(Ran { rows: vec![i], outputs: Err(why?) });
        let mut ran: Vec<Ran> = refused.into_iter().enumerate().filter_map(without).collect();
        while let Some(group) = groups.pop().filter(|g| !g.is_empty()) {
            match self.run_shared(store, &group, threads) {
                Ok(made) => ran.extend(made),
                Err(why) => {
                    let first = group[0].item.resident.id;
                    let (mine, others): (Vec<_>, Vec<_>) =
                        group.into_iter().partition(|r| r.item.resident.id == first);
                    if others.is_empty() {
                        ran.push(Ran { rows: mine.iter().map(|r| r.place).collect(), outputs: Err(why) });
                    } else {
                        groups.extend([others, mine]);
                    }
                }
            }
        }
        Ok(ran)
    }

    /// Rows of adapters that are in the banks, in one pass. Those of one adapter come out together, as they are decoded.
    fn run_shared(&mut self, store: &Store, rows: &[Row<'_>], threads: Threads) -> Result<Vec<Ran>, Refusal> {
        let items: Vec<&Item> = rows.iter().map(|r| r.item).collect();
        let tenants: Vec<Tenant<'_>> = rows.iter().map(Row::tenant).collect();
        let batch = self.batch(store, &items)?;
        let banks = self.banks.as_mut().ok_or_else(|| Refusal::Internal("there is no session".into()))?;
        let outputs = banks.run_on(threads, &batch, &tenants).map_err(internal)?;
        let mut of_adapters: IndexMap<(u64, bool), Vec<usize>> = IndexMap::new();
        for (k, item) in items.iter().enumerate() {
            of_adapters.entry((item.resident.id, item.want == Want::Vector)).or_default().push(k);
        }
        let of_adapter = |own: Vec<usize>| {
            let mut tensors = Vec::new();
            for (name, here, sizes) in banks.outputs(rows[own[0]].parts) {
                let shape = outputs.shape(here).map_err(|e| internal(e.into()))?;
                let values = outputs.f32s(here).map_err(|e| internal(e.into()))?;
                tensors.push(picked(name, shape, values, &sizes, &own));
            }
            Ok(Ran { rows: own.iter().map(|k| rows[*k].place).collect(), outputs: Ok(tensors) })
        };
        of_adapters.into_values().map(of_adapter).collect()
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
            // The base is asked in every lane.
            if row.item.resident.by.adapter.is_some() {
                banks.keep_alone(&tenant);
            }
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

/// Some rows of an output, cut to the sizes that are the adapter's own; a number as it is.
pub(super) fn picked(
    name: &str,
    shape: &[usize],
    values: &[f32],
    sizes: &[Option<usize>],
    rows: &[usize],
) -> api::Tensor {
    let Some((_, inner)) = shape.split_first() else { return api::Tensor::f32s(name, shape, values) };
    let size = |(k, d): (usize, &usize)| sizes.get(k).copied().flatten().map_or(*d, |s| s.min(*d));
    let own: Vec<usize> = inner.iter().enumerate().map(size).collect();
    let per: usize = inner.iter().product();
    let mut kept = Vec::with_capacity(rows.len() * own.iter().product::<usize>());
    for row in rows {
        if let Some(values) = values.get(row * per..(row + 1) * per) {
            cut(values, inner, &own, &mut kept);
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
