//! A row's answer does not depend on who shares its batch.
#![allow(clippy::unwrap_used, reason = "what fails is a test that fails")]

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use graft_adapters::{Head, ParamKey, Parameters, PeftConfig, StoredAdapter, load};
use graft_graph::Tensor;
use graft_graph::batch::Fragment;
use graft_graph::model::Role;
use graft_graph::sites::{SiteKind, sites};
use graft_plugins::Objective;
use graft_runtime::{DeviceMemory, Provider, SessionOptions, View};
use graft_tasks::binding::Choice;
use graft_tasks::{
    Banks, Base, BaseOptions, Export, Fitted, Parts, Program, Room, Structures, Tenant, Threads, export,
};
use graft_tests::{fixture, on_provider, runtime, shared};
use serde_json::json;

/// How far a row in a batch of many adapters may be from the same row with its adapter alone, at the same length and at
/// its own, relative to the largest number of its output (f32, processor).
const ALONE: f32 = 1e-5;

/// The same between a batch on a device and a row alone on the processor.
const ON_DEVICE: f32 = 1e-4;

/// How far it may be from the merged model.
const MERGED: f32 = 1e-4;

/// Numbers from a seed (xorshift64*, Vigna 2016).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
    fn below(&mut self, n: usize) -> usize {
        (self.next() >> 33) as usize % n
    }
    fn tensor(&mut self, shape: &[usize], size: f32) -> Tensor {
        let one = |n: u64| ((n >> 40) as f32 / 16_777_216.0 - 0.5) * size;
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| one(self.next())).collect();
        Tensor::new(shape, &values).unwrap()
    }
}

/// A base with adapters of many kinds.
struct House {
    base: Base,
    adapters: Vec<(Fitted, Parts)>,
    /// The same as they were stored; none for the base.
    stored: Vec<Option<StoredAdapter>>,
    /// Names of those that have passes of their own, and why.
    alone: Vec<String>,
    /// Sessions of single adapters.
    programs: RefCell<HashMap<usize, Program>>,
}

fn plugins() -> Vec<PathBuf> {
    vec![fixture::target_dir().to_owned()]
}

/// A LoRA of PEFT's with random numbers on the linear modules whose path `fits`, and a head of `labels` where there are any.
fn lora(
    base: &Base,
    numbers: &mut Numbers,
    r: usize,
    labels: usize,
    fits: &dyn Fn(&str) -> bool,
) -> StoredAdapter {
    let config =
        json!({ "peft_type": "LORA", "task_type": "FEATURE_EXTRACTION", "r": r, "lora_alpha": 2 * r + 1 });
    let peft = PeftConfig::parse(Path::new("adapter_config.json"), config.to_string().as_bytes()).unwrap();
    let mut parameters = Parameters::new();
    for s in sites(&base.graph).iter().filter(|s| s.kind == SiteKind::Linear && fits(&s.path)) {
        let mut put = |name: &str, shape: [usize; 2]| {
            parameters.insert(ParamKey::new(s.path.clone(), name), numbers.tensor(&shape, 0.5));
        };
        put("lora_A.weight", [r, s.in_features]);
        put("lora_B.weight", [s.out_features, r]);
    }
    assert!(!parameters.is_empty());
    let width = sites(&base.graph).iter().find(|s| s.kind == SiteKind::Linear).unwrap().in_features;
    let head = (labels > 1).then(|| {
        let weight = ("weight".to_owned(), numbers.tensor(&[labels, width], 1.0));
        let bias = ("bias".to_owned(), numbers.tensor(&[labels], 1.0));
        Head { module: None, tensors: [weight, bias].into_iter().collect() }
    });
    StoredAdapter {
        dir: PathBuf::from(format!("r{r}")),
        peft: Some(peft),
        hub: None,
        parameters,
        head,
        graft: None,
    }
}

/// A LoRA of PEFT's with random numbers on the table of words.
fn embedding_lora(base: &Base, numbers: &mut Numbers, r: usize) -> StoredAdapter {
    let mut made = lora(base, numbers, r, 0, &|_| true);
    made.parameters.clear();
    let words = base.model.input(Role::Ids).unwrap();
    for s in sites(&base.graph).iter().filter(|s| s.kind == SiteKind::Embedding && s.input == words) {
        let mut put = |name: &str, shape: [usize; 2]| {
            made.parameters.insert(ParamKey::new(s.path.clone(), name), numbers.tensor(&shape, 0.5));
        };
        put("lora_embedding_A", [r, s.in_features]);
        put("lora_embedding_B", [s.out_features, r]);
    }
    assert_eq!(made.parameters.len(), 2);
    StoredAdapter { dir: PathBuf::from(format!("words{r}")), ..made }
}

impl House {
    fn open(model: &str, file: &str) -> Option<House> {
        let (golden, runtime) = (shared()?.join("conformance/adapters").join(model), runtime()?);
        let mut base = Base::open(runtime, &golden.join(file), &BaseOptions::default()).unwrap();
        if base.model.hidden.is_none() {
            // An export that gives logits alone: the hidden states are the first that might be them.
            let hidden = graft_graph::model::hidden_candidates(&base.graph)[0];
            let hidden = Some(base.graph.name_of(hidden).to_owned());
            base = Base::open(runtime, &golden.join(file), &BaseOptions { hidden, ..BaseOptions::default() })
                .unwrap();
        }
        let embed = || Objective::find(&plugins(), "embedding", &json!({})).unwrap();
        let mut stored = vec![None];
        for name in ["lora", "ia3", "dora", "ah_seq_bn", "prompt", "prefix"] {
            let dir = golden.join(name);
            stored.extend(dir.is_dir().then(|| Some(load(&dir).unwrap())));
        }
        let mut numbers = Numbers(7);
        let attention = |p: &str| p.contains("attn") || p.contains("attention");
        let encoder = |p: &str| !p.contains("pooler") && !p.contains("lm_head");
        for (r, labels, all) in [(1, 0, false), (3, 2, true), (8, 5, true), (17, 3, false)] {
            let fits = |p: &str| encoder(p) && (all || attention(p));
            stored.push(Some(lora(&base, &mut numbers, r, labels, &fits)));
        }
        stored.extend([2, 5].map(|r| Some(embedding_lora(&base, &mut numbers, r))));
        let (mut adapters, mut alone) = (Vec::new(), Vec::new());
        let mut kept = Vec::new();
        for one in &stored {
            let labels = one.as_ref().and_then(|s| s.head.as_ref().filter(|_| s.graft.is_none()));
            let labels = labels.filter(|h| h.module.is_none()).map(|h| h.tensors["bias"].len());
            let objective = match labels {
                Some(n) => {
                    let labels: Vec<String> = (0..n).map(|i| format!("L{i}")).collect();
                    let config = json!({ "labels": labels, "pooling": "mean" });
                    Some(Objective::find(&plugins(), "classification", &config).unwrap())
                }
                None => None,
            };
            let fitted = match objective {
                Some(o) => Fitted::with_head(&base, one.as_ref().unwrap(), o, &plugins()),
                None => Fitted::with_objective(&base, one.as_ref(), embed(), &plugins()),
            };
            let fitted = fitted.unwrap();
            match fitted.parts(&base).and_then(|p| p.check(&base).map(|()| p)) {
                Ok(parts) => {
                    adapters.push((fitted, parts));
                    kept.push(one.clone());
                }
                Err(e) => alone.push(format!("{}: {e}", fitted.name)),
            }
        }
        Some(House { base, adapters, stored: kept, alone, programs: RefCell::default() })
    }

    fn banks(&self) -> Banks {
        self.banks_in(self.room())
    }

    /// All adapters in the banks of a room.
    fn banks_in(&self, room: Room) -> Banks {
        let mut banks = Banks::new(room);
        for i in 0..self.adapters.len() {
            banks.place(&self.base, &self.tenant(i)).unwrap();
        }
        banks
    }

    /// A room for all adapters.
    fn room(&self) -> Room {
        Room::new(&self.base, &self.fragments(), &on_provider()).unwrap()
    }

    fn fragments(&self) -> Vec<Arc<Fragment>> {
        self.adapters.iter().flat_map(|(_, p)| p.fragments().cloned()).collect()
    }

    fn tenant(&self, i: usize) -> Tenant<'_> {
        Tenant { id: i as u64, parts: &self.adapters[i].1 }
    }

    /// The inputs of rows of these tokens, padded to `length`.
    fn batch(&self, rows: &[&[i64]], length: usize) -> HashMap<String, Tensor> {
        let (mut ids, mut mask) = (Vec::new(), Vec::new());
        for row in rows {
            ids.extend(row.iter().copied().chain(std::iter::repeat_n(0, length - row.len())));
            mask.extend((0..length).map(|i| i64::from(i < row.len())));
        }
        let name = |role| self.base.model.input(role).map(|v| self.base.graph.name_of(v).to_owned());
        let mut batch = HashMap::new();
        for (role, values) in [(Role::Ids, &ids), (Role::Mask, &mask)] {
            if let Some(name) = name(role) {
                batch.insert(name, Tensor::new([rows.len(), length], values).unwrap());
            }
        }
        let implied = self.base.imply_inputs(&|n| batch.get(n).cloned()).unwrap();
        batch.extend(implied);
        batch
    }

    /// The tokens of a row with as many of its first one in front as its adapter has virtual tokens.
    fn laid_out(&self, adapter: usize, row: &[i64]) -> Vec<i64> {
        let count = self.adapters[adapter].0.virtual_tokens;
        std::iter::repeat_n(row[0], count).chain(row.iter().copied()).collect()
    }

    /// Most virtual tokens of an adapter.
    fn most_virtual(&self) -> usize {
        self.adapters.iter().map(|(f, _)| f.virtual_tokens).max().unwrap_or(0)
    }

    /// The output of a row with its adapter alone, padded to `length` without its virtual tokens.
    fn alone(&self, adapter: usize, row: &[i64], length: usize) -> Vec<f32> {
        let fitted = &self.adapters[adapter].0;
        let batch = self.batch(&[row], length);
        let get = |n: &str| batch.get(n).or_else(|| fitted.value(n)).map(View::from);
        let mut programs = self.programs.borrow_mut();
        let open = || fitted.program(&self.base, &SessionOptions::default()).unwrap();
        let outputs = programs.entry(adapter).or_insert_with(open).run(&get).unwrap();
        outputs.f32s(&fitted.outputs()[0]).unwrap().to_vec()
    }

    /// The outputs of rows that share a batch, each with its adapter, padded to `length` with all virtual tokens.
    fn together(&self, banks: &mut Banks, rows: &[(usize, &[i64])], length: usize) -> Vec<Vec<f32>> {
        let (batch, tenants) = self.asked(rows, length);
        answers(Threads::All, banks, &batch, &tenants)
    }

    /// The inputs of rows that share a batch, and whose they are.
    fn asked(&self, rows: &[(usize, &[i64])], length: usize) -> (HashMap<String, Tensor>, Vec<Tenant<'_>>) {
        let laid_out: Vec<Vec<i64>> = rows.iter().map(|(a, r)| self.laid_out(*a, r)).collect();
        let batch = self.batch(&laid_out.iter().map(|r| &r[..]).collect::<Vec<_>>(), length);
        (batch, rows.iter().map(|r| self.tenant(r.0)).collect())
    }

    /// A row for each adapter.
    fn row_each(&self, numbers: &mut Numbers, longest: usize) -> Vec<(usize, Vec<i64>)> {
        let mut rows = self.rows(numbers, self.adapters.len(), longest);
        rows.iter_mut().enumerate().for_each(|(adapter, row)| row.0 = adapter);
        rows
    }

    fn rows(&self, numbers: &mut Numbers, count: usize, longest: usize) -> Vec<(usize, Vec<i64>)> {
        let one = |_| {
            let adapter = numbers.below(self.adapters.len());
            let length = 1 + numbers.below(longest);
            (adapter, (0..length).map(|_| 1 + numbers.below(40) as i64).collect())
        };
        (0..count).map(one).collect()
    }
}

/// The outputs of a batch's rows.
fn answers(
    threads: Threads,
    banks: &mut Banks,
    batch: &HashMap<String, Tensor>,
    tenants: &[Tenant<'_>],
) -> Vec<Vec<f32>> {
    let outputs = banks.run_on(threads, batch, tenants).unwrap();
    let own = |(k, tenant): (usize, &Tenant<'_>)| {
        let (_, name, sizes) = banks.outputs(tenant.parts).next().unwrap();
        let (shape, values) = (outputs.shape(name).unwrap(), outputs.f32s(name).unwrap());
        values[k * shape[1]..][..sizes[0].unwrap()].to_vec()
    };
    tenants.iter().enumerate().map(own).collect()
}

fn lent(rows: &[(usize, Vec<i64>)]) -> Vec<(usize, &[i64])> {
    rows.iter().map(|(a, r)| (*a, &r[..])).collect()
}

fn apart(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let size = a.iter().fold(1f32, |m, x| m.max(x.abs()));
    a.iter().zip(b).fold(0f32, |m, (x, y)| m.max((x - y).abs())) / size
}

fn houses() -> Vec<(String, House)> {
    let all = [
        ("bert", "base.ts.onnx"),
        ("bert", "base.dynamo.onnx"),
        ("llama", "base.ts.onnx"),
        ("llama", "base.dynamo.onnx"),
    ];
    all.iter().filter_map(|(m, f)| Some((format!("{m}/{f}"), House::open(m, f)?))).collect()
}

#[test]
fn provider_a_row_among_others_is_as_alone() {
    for (name, house) in houses() {
        assert!(house.alone.is_empty(), "{name}: {:?}", house.alone);
        assert!(house.most_virtual() > 0);
        let mut banks = house.banks();
        let far_enough = if on_provider().provider.is_device() { ON_DEVICE } else { ALONE };
        let mut numbers = Numbers(11);
        for turn in 0..12 {
            let (count, longest) = (1 + numbers.below(12), 2 + numbers.below(9));
            let rows = house.rows(&mut numbers, count, longest);
            let virtual_tokens = |a: usize| house.adapters[a].0.virtual_tokens;
            let longest = rows.iter().map(|(a, r)| virtual_tokens(*a) + r.len()).max().unwrap();
            let answers = house.together(&mut banks, &lent(&rows), longest);
            for ((adapter, row), answer) in rows.iter().zip(&answers) {
                for length in [longest - virtual_tokens(*adapter), row.len()] {
                    let alone = house.alone(*adapter, row, length);
                    let far = apart(&alone, answer);
                    let who = &house.adapters[*adapter].0.name;
                    assert!(
                        far <= far_enough,
                        "{name}, batch {turn}: {who} is off by {far} at {length} tokens"
                    );
                }
            }
        }
    }
}

#[test]
fn provider_a_row_among_others_is_as_in_the_merged_model() {
    let mut compared = 0;
    for (name, house) in houses() {
        let mut banks = house.banks();
        let rows = house.rows(&mut Numbers(23), 30, 8);
        let length = 8 + house.most_virtual();
        let answers = house.together(&mut banks, &lent(&rows), length);
        let hidden = house.base.model.hidden.map(|v| house.base.graph.name_of(v).to_owned());
        for (adapter, (fitted, _)) in house.adapters.iter().enumerate() {
            let Some(stored) = &house.stored[adapter] else { continue };
            if !fitted.objective().unwrap().id().eq("embedding") || fitted.virtual_tokens > 0 {
                continue;
            }
            let temp = tempfile::tempdir().unwrap();
            let out = temp.path().join("merged.onnx");
            let how = Export {
                merge: true,
                no_head: true,
                inputs: None,
                plugin_dirs: plugins(),
                session: SessionOptions::default(),
            };
            // A method that can't be merged says so.
            if let Err(e) = export(&house.base, stored, &out, &how) {
                assert!(e.to_string().contains("merge"), "{name}: {}: {e}", fitted.name);
                continue;
            }
            let options = BaseOptions { hidden: hidden.clone(), ..BaseOptions::default() };
            let merged = Base::open(house.base.runtime(), &out, &options).unwrap();
            let embed = Objective::find(&plugins(), "embedding", &json!({})).unwrap();
            let alone = Fitted::with_objective(&merged, None, embed, &plugins()).unwrap();
            let mut program = alone.program(&merged, &SessionOptions::default()).unwrap();
            for ((_, row), answer) in rows.iter().zip(&answers).filter(|((a, _), _)| *a == adapter) {
                let batch = house.batch(&[row], row.len());
                let outputs = program.run(&|n| batch.get(n).map(View::from)).unwrap();
                let far = apart(outputs.f32s(&alone.outputs()[0]).unwrap(), answer);
                assert!(far <= MERGED, "{name}: {} is off by {far}", fitted.name);
                compared += 1;
            }
        }
    }
    assert!(compared > 20 || shared().is_none(), "{compared} rows");
}

#[test]
fn provider_neighbours_change_no_bit() {
    for (name, house) in houses() {
        let mut banks = house.banks();
        let mut numbers = Numbers(5);
        let (longest, length) = (9, 9 + house.most_virtual());
        for adapter in 0..house.adapters.len() {
            let row: Vec<i64> = (0..6).map(|_| 1 + numbers.below(40) as i64).collect();
            let mut seen: Option<Vec<f32>> = None;
            for turn in 0..4 {
                // Others of any kind before and behind it; never alone, for a product with a vector sums in another order.
                // A device's products sum in another order for another number of rows, too.
                let others = if on_provider().provider.is_device() { 5 } else { 2 + turn * 3 };
                let mut rows = house.rows(&mut numbers, others, longest);
                let at = numbers.below(rows.len() + 1);
                rows.insert(at, (adapter, row.clone()));
                let answer = house.together(&mut banks, &lent(&rows), length).swap_remove(at);
                let first = seen.get_or_insert_with(|| answer.clone());
                let same = first.iter().zip(&answer).all(|(a, b)| a.to_bits() == b.to_bits());
                let who = &house.adapters[adapter].0.name;
                assert!(same, "{name}: {who} differs by {}", apart(first, &answer));
            }
        }
    }
}

#[test]
fn lanes_and_threads_change_no_bit() {
    for (name, house) in houses() {
        let options = SessionOptions { threads: Some(4), ..SessionOptions::default() };
        let rooms = Room::lanes(&house.base, &house.fragments(), &options).unwrap();
        let mut lanes: Vec<Banks> = rooms.into_iter().map(|room| house.banks_in(room)).collect();
        assert_eq!(lanes.len(), 2);
        let mut numbers = Numbers(17);
        let length = 9 + house.most_virtual();
        for _ in 0..8 {
            let count = 2 + numbers.below(12);
            let rows = house.rows(&mut numbers, count, 9);
            let (batch, tenants) = house.asked(&lent(&rows), length);
            let expected = answers(Threads::All, &mut lanes[0], &batch, &tenants);
            // Both at once, as a server has them.
            let both: Vec<_> = std::thread::scope(|scope| {
                let run = |banks| scope.spawn(|| answers(Threads::Half, banks, &batch, &tenants));
                let running: Vec<_> = lanes.iter_mut().map(run).collect();
                running.into_iter().map(|r| r.join().unwrap()).collect()
            });
            let bits = |rows: &Vec<Vec<f32>>| rows.concat().iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            for answers in &both {
                assert_eq!(bits(answers), bits(&expected), "{name}");
            }
        }
    }
}

#[test]
fn provider_an_adapter_full_of_nan_changes_no_bit_of_others() {
    let Some(house) = House::open("bert", "base.ts.onnx") else { return };
    let mut banks = house.banks();
    let mut numbers = Numbers(3);
    let rows = house.rows(&mut numbers, 9, 8);
    let length = 8 + house.most_virtual();
    let before = house.together(&mut banks, &lent(&rows), length);
    // The same fragments as the LoRA on all modules, with another number for each parameter.
    let mut broken = lora(&house.base, &mut numbers, 8, 0, &|p| !p.contains("pooler"));
    for t in broken.parameters.values_mut() {
        *t = Tensor::new(t.shape(), &vec![f32::NAN; t.len()]).unwrap();
    }
    let embed = Objective::find(&plugins(), "embedding", &json!({})).unwrap();
    let broken = Fitted::with_objective(&house.base, Some(&broken), embed, &plugins())
        .unwrap()
        .parts(&house.base)
        .unwrap();
    assert!(banks.covers(&broken), "it needs no other session");
    let tenant = Tenant { id: 1000, parts: &broken };
    banks.place(&house.base, &tenant).unwrap();
    assert_eq!(house.together(&mut banks, &lent(&rows), length), before, "resident");
    let laid_out: Vec<Vec<i64>> = rows.iter().map(|(a, r)| house.laid_out(*a, r)).collect();
    let all: Vec<&[i64]> = laid_out.iter().map(|r| &r[..]).chain([&[1i64, 2, 3][..]]).collect();
    let batch = house.batch(&all, length);
    let mut tenants: Vec<Tenant<'_>> = rows.iter().map(|r| house.tenant(r.0)).collect();
    tenants.push(tenant);
    let outputs = banks.run(&batch, &tenants).unwrap();
    for (k, ((adapter, _), before)) in rows.iter().zip(&before).enumerate() {
        let (_, name, sizes) = banks.outputs(&house.adapters[*adapter].1).next().unwrap();
        let width = outputs.shape(name).unwrap()[1];
        let here = &outputs.f32s(name).unwrap()[k * width..][..sizes[0].unwrap()];
        assert!(here.iter().zip(before).all(|(a, b)| a.to_bits() == b.to_bits()), "in the same batch");
    }
    let (_, name, _) = banks.outputs(&broken).next().unwrap();
    let width = outputs.shape(name).unwrap()[1];
    let own = &outputs.f32s(name).unwrap()[rows.len() * width..][..width];
    assert!(own.iter().all(|x| x.is_nan()), "and it has its own answer");
    // What it leaves behind when it goes is nobody's.
    banks.remove(1000);
    assert_eq!(house.together(&mut banks, &lent(&rows), length), before, "gone");
    assert!(banks.run(&batch, &tenants).is_err(), "what is gone gives no answer");
}

#[test]
fn provider_a_larger_room_keeps_who_is_there() {
    let Some(house) = House::open("bert", "base.ts.onnx") else { return };
    let rows = house.rows(&mut Numbers(9), 8, 7);
    let length = 7 + house.most_virtual();
    let expected = house.together(&mut house.banks(), &lent(&rows), length);
    // A room for the first adapters alone, then one for all, of which the new ones are placed.
    let room = |n: usize| {
        let fragments: Vec<_> =
            house.adapters[..n].iter().flat_map(|(_, p)| p.fragments().cloned()).collect();
        Room::new(&house.base, &fragments, &on_provider()).unwrap()
    };
    let mut banks = Banks::new(room(2));
    banks.place(&house.base, &house.tenant(0)).unwrap();
    banks.place(&house.base, &house.tenant(1)).unwrap();
    let last = house.adapters.len() - 1;
    assert!(!banks.covers(&house.adapters[last].1));
    assert!(banks.place(&house.base, &house.tenant(last)).is_err());
    banks.adopt(room(house.adapters.len()));
    assert!(banks.holds(&house.tenant(1)) && !banks.holds(&house.tenant(last)));
    for i in 2..=last {
        banks.place(&house.base, &house.tenant(i)).unwrap();
    }
    assert_eq!(house.together(&mut banks, &lent(&rows), length), expected);
}

#[test]
fn adapters_of_one_configuration_differ_by_their_numbers_alone() {
    let Some(house) = House::open("bert", "base.ts.onnx") else { return };
    let mut numbers = Numbers(21);
    let stored: Vec<StoredAdapter> =
        (0..2).map(|_| lora(&house.base, &mut numbers, 8, 0, &|p| !p.contains("pooler"))).collect();
    let choice = Choice { id: "embedding".into(), config: json!({}) };
    let fitted = |s: &StoredAdapter| {
        let embed = Objective::find(&plugins(), "embedding", &json!({})).unwrap();
        Fitted::with_objective(&house.base, Some(s), embed, &plugins()).unwrap()
    };
    let structures = Structures::default();
    let Err(key) = structures.find(&house.base, Some(&stored[0]), &choice).unwrap() else {
        panic!("nothing was taken apart yet")
    };
    let mut first = fitted(&stored[0]);
    let objective = Arc::new(first.objective.take().unwrap());
    structures.keep(key, &first, &first.parts(&house.base).unwrap(), &objective);
    let Ok(known) = structures.find(&house.base, Some(&stored[1]), &choice).unwrap() else {
        panic!("its configuration is known")
    };
    let taken_apart = fitted(&stored[1]).parts(&house.base).unwrap();
    let mut banks = house.banks();
    let row = [5i64, 6, 7, 8];
    let mut answer = |parts: &Parts, id| {
        let tenant = Tenant { id, parts };
        banks.place(&house.base, &tenant).unwrap();
        let batch = house.batch(&[&row, &row], 4);
        let name = banks.outputs(parts).next().unwrap().1.to_owned();
        banks.run(&batch, &[tenant, tenant]).unwrap().f32s(&name).unwrap().to_vec()
    };
    let (a, b) = (answer(&taken_apart, 501), answer(&known.parts, 502));
    assert!(a.iter().zip(&b).all(|(a, b)| a.to_bits() == b.to_bits()));
    assert_ne!(a, answer(&first.parts(&house.base).unwrap(), 503), "the numbers are its own");
    // Tensors that do not fit are found here as well.
    let mut misfit = lora(&house.base, &mut numbers, 8, 0, &|p| !p.contains("pooler"));
    let key = misfit.parameters.keys().next().unwrap().clone();
    misfit.parameters.insert(key, Tensor::new([1, 1], &[0f32]).unwrap());
    assert!(structures.find(&house.base, Some(&misfit), &choice).is_err());
    // Another rank is another configuration.
    let other = lora(&house.base, &mut numbers, 4, 0, &|p| !p.contains("pooler"));
    assert!(structures.find(&house.base, Some(&other), &choice).unwrap().is_err());
}

#[test]
fn provider_what_is_in_banks_alone_comes_back_as_it_was() {
    let Some(house) = House::open("bert", "base.ts.onnx") else { return };
    comes_back(&house, house.room());
}

#[test]
fn banks_that_a_device_has_too_follow_what_comes_and_goes() {
    let Some(house) = House::open("bert", "base.ts.onnx") else { return };
    let memory = DeviceMemory::new(house.base.runtime(), &Provider::Cpu).unwrap();
    let kept = house.room().with_memory(memory);
    let rows = house.row_each(&mut Numbers(13), 6);
    let length = 6 + house.most_virtual();
    let expected = house.together(&mut house.banks(), &lent(&rows), length);
    assert_eq!(comes_back(&house, kept), expected);
}

/// Adapters come and go, and the answers stay; gives the answers.
fn comes_back(house: &House, room: Room) -> Vec<Vec<f32>> {
    let rows = house.row_each(&mut Numbers(13), 6);
    let length = 6 + house.most_virtual();
    let mut banks = house.banks_in(room);
    let before = house.together(&mut banks, &lent(&rows), length);
    let all = 0..house.adapters.len();
    all.clone().for_each(|i| banks.keep_alone(&house.tenant(i)));
    let leased = banks.bytes_leased();
    // Many come and go, so that what stays moves together.
    let mut numbers = Numbers(17);
    let mut guests = Vec::new();
    for id in 0..60 {
        let stored = lora(&house.base, &mut numbers, 17, 0, &|p| p.contains("attention"));
        let embed = Objective::find(&plugins(), "embedding", &json!({})).unwrap();
        let fitted = Fitted::with_objective(&house.base, Some(&stored), embed, &plugins()).unwrap();
        let parts = fitted.parts(&house.base).unwrap();
        banks.place(&house.base, &Tenant { id: 2000 + id, parts: &parts }).unwrap();
        guests.push(parts);
        if id % 25 == 7 {
            assert_eq!(house.together(&mut banks, &lent(&rows), length), before, "{id} guests");
        }
    }
    let crowded = banks.bytes();
    for i in all.clone().filter(|i| i % 2 == 0) {
        let Tenant { id, parts } = house.tenant(i);
        banks.take_out(id, std::iter::once(parts));
    }
    (0..60).for_each(|id| banks.remove(2000 + id));
    assert!(banks.bytes() < crowded / 2, "{} of {crowded} bytes stayed", banks.bytes());
    for i in all.clone().filter(|i| i % 2 == 0) {
        assert!(!banks.holds(&house.tenant(i)));
        banks.place(&house.base, &house.tenant(i)).unwrap();
    }
    assert_eq!(banks.bytes_leased(), leased);
    assert_eq!(house.together(&mut banks, &lent(&rows), length), before);
    // What is in these banks alone can't be placed in others.
    all.for_each(|i| banks.keep_alone(&house.tenant(i)));
    let mut others = Banks::new(house.room());
    assert!(others.place(&house.base, &house.tenant(1)).is_err());
    before
}
