//! A row's answer does not depend on who shares its batch.
#![allow(clippy::unwrap_used, reason = "what fails is a test that fails")]

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use graft_adapters::{Head, ParamKey, Parameters, PeftConfig, StoredAdapter, load};
use graft_graph::Tensor;
use graft_graph::model::Role;
use graft_graph::sites::{SiteKind, sites};
use graft_plugins::Objective;
use graft_runtime::{SessionOptions, View};
use graft_tasks::{Banks, Base, BaseOptions, Fitted, Parts, Program, Room, Tenant};
use graft_tests::{fixture, runtime, shared};
use serde_json::json;

/// How far a row in a batch of many adapters may be from the same row with its adapter alone, at the same length and at
/// its own, relative to the largest number of its output (f32, processor).
const ALONE: f32 = 1e-5;

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
        let (mut adapters, mut alone) = (Vec::new(), Vec::new());
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
                Ok(parts) => adapters.push((fitted, parts)),
                Err(e) => alone.push(format!("{}: {e}", fitted.name)),
            }
        }
        Some(House { base, adapters, alone, programs: RefCell::default() })
    }

    fn banks(&self) -> Banks {
        let fragments: Vec<_> = self.adapters.iter().flat_map(|(_, p)| p.fragments().cloned()).collect();
        let room = Room::new(&self.base, &fragments, &SessionOptions::default()).unwrap();
        let mut banks = Banks::new(room);
        for i in 0..self.adapters.len() {
            banks.place(&self.base, &self.tenant(i)).unwrap();
        }
        banks
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

    /// The output of a row with its adapter alone.
    fn alone(&self, adapter: usize, row: &[i64], length: usize) -> Vec<f32> {
        let fitted = &self.adapters[adapter].0;
        let batch = self.batch(&[row], length);
        let get = |n: &str| batch.get(n).or_else(|| fitted.value(n)).map(View::from);
        let mut programs = self.programs.borrow_mut();
        let open = || fitted.program(&self.base, &SessionOptions::default()).unwrap();
        let outputs = programs.entry(adapter).or_insert_with(open).run(&get).unwrap();
        outputs.f32s(&fitted.outputs()[0]).unwrap().to_vec()
    }

    /// The outputs of rows that share a batch, each with its adapter.
    fn together(&self, banks: &mut Banks, rows: &[(usize, &[i64])], length: usize) -> Vec<Vec<f32>> {
        let batch = self.batch(&rows.iter().map(|r| r.1).collect::<Vec<_>>(), length);
        let tenants: Vec<Tenant<'_>> = rows.iter().map(|r| self.tenant(r.0)).collect();
        let outputs = banks.run(&batch, &tenants).unwrap();
        let own = |(k, (adapter, _)): (usize, &(usize, &[i64]))| {
            let (_, name, sizes) = banks.outputs(&self.adapters[*adapter].1).remove(0);
            let (shape, values) = (outputs.shape(&name).unwrap(), outputs.f32s(&name).unwrap());
            values[k * shape[1]..][..sizes[0].unwrap()].to_vec()
        };
        rows.iter().enumerate().map(own).collect()
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
fn a_row_among_others_is_as_alone() {
    for (name, house) in houses() {
        // What lengthens every row has a pass of its own; nothing else has.
        assert!(house.alone.iter().all(|a| a.contains("virtual tokens")), "{name}: {:?}", house.alone);
        let mut banks = house.banks();
        let mut numbers = Numbers(11);
        for turn in 0..12 {
            let (count, longest) = (1 + numbers.below(12), 2 + numbers.below(9));
            let rows = house.rows(&mut numbers, count, longest);
            let longest = rows.iter().map(|(_, r)| r.len()).max().unwrap();
            let answers = house.together(&mut banks, &lent(&rows), longest);
            for ((adapter, row), answer) in rows.iter().zip(&answers) {
                for length in [longest, row.len()] {
                    let alone = house.alone(*adapter, row, length);
                    let far = apart(&alone, answer);
                    let who = &house.adapters[*adapter].0.name;
                    assert!(far <= ALONE, "{name}, batch {turn}: {who} is off by {far} at {length} tokens");
                }
            }
        }
    }
}

#[test]
fn neighbours_change_no_bit() {
    for (name, house) in houses() {
        let mut banks = house.banks();
        let mut numbers = Numbers(5);
        let length = 9;
        for adapter in 0..house.adapters.len() {
            let row: Vec<i64> = (0..6).map(|_| 1 + numbers.below(40) as i64).collect();
            let mut seen: Option<Vec<f32>> = None;
            for turn in 0..4 {
                // Others of any kind before and behind it; never alone, for a product with a vector sums in another order.
                let mut rows = house.rows(&mut numbers, 2 + turn * 3, length);
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
fn an_adapter_full_of_nan_changes_no_bit_of_others() {
    let Some(house) = House::open("bert", "base.ts.onnx") else { return };
    let mut banks = house.banks();
    let mut numbers = Numbers(3);
    let rows = house.rows(&mut numbers, 9, 8);
    let before = house.together(&mut banks, &lent(&rows), 8);
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
    assert_eq!(house.together(&mut banks, &lent(&rows), 8), before, "resident");
    let batch = house.batch(&rows.iter().map(|r| &r.1[..]).chain([&[1i64, 2, 3][..]]).collect::<Vec<_>>(), 8);
    let mut tenants: Vec<Tenant<'_>> = rows.iter().map(|r| house.tenant(r.0)).collect();
    tenants.push(tenant);
    let outputs = banks.run(&batch, &tenants).unwrap();
    for (k, ((adapter, _), before)) in rows.iter().zip(&before).enumerate() {
        let (_, name, sizes) = banks.outputs(&house.adapters[*adapter].1).remove(0);
        let width = outputs.shape(&name).unwrap()[1];
        let here = &outputs.f32s(&name).unwrap()[k * width..][..sizes[0].unwrap()];
        assert!(here.iter().zip(before).all(|(a, b)| a.to_bits() == b.to_bits()), "in the same batch");
    }
    let (_, name, _) = banks.outputs(&broken).remove(0);
    let width = outputs.shape(&name).unwrap()[1];
    let own = &outputs.f32s(&name).unwrap()[rows.len() * width..][..width];
    assert!(own.iter().all(|x| x.is_nan()), "and it has its own answer");
    // What it leaves behind when it goes is nobody's.
    banks.remove(1000);
    assert_eq!(house.together(&mut banks, &lent(&rows), 8), before, "gone");
    assert!(banks.run(&batch, &tenants).is_err(), "what is gone gives no answer");
}

#[test]
fn a_larger_room_keeps_who_is_there() {
    let Some(house) = House::open("bert", "base.ts.onnx") else { return };
    let rows = house.rows(&mut Numbers(9), 8, 7);
    let expected = house.together(&mut house.banks(), &lent(&rows), 7);
    // A room for the first adapters alone, then one for all, of which the new ones are placed.
    let room = |n: usize| {
        let fragments: Vec<_> =
            house.adapters[..n].iter().flat_map(|(_, p)| p.fragments().cloned()).collect();
        Room::new(&house.base, &fragments, &SessionOptions::default()).unwrap()
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
    assert_eq!(house.together(&mut banks, &lent(&rows), 7), expected);
}
