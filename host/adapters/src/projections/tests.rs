//! Bases and adapters made up for the purpose; that the numbers are PEFT's is tested against PEFT.

use std::path::PathBuf;

use super::*;
use crate::peft::{Ia3Config, LoraConfig, Targets};

fn piece(width: usize, part: Option<Part>) -> Piece {
    Piece { width, part }
}

/// A base with one fused layer of this name, two features wide each.
fn fused(name: &str, pieces: Option<Vec<Piece>>) -> (Vec<String>, Vec<Layer>) {
    let path = format!("m.h.0.attn.{name}");
    (vec![path.clone()], vec![Layer { path, out_features: 6, pieces }])
}

fn in_order() -> Option<Vec<Piece>> {
    Some([Part::Query, Part::Key, Part::Value].map(|p| piece(2, Some(p))).to_vec())
}

fn tensor(shape: &[usize], from: usize) -> Tensor {
    let values: Vec<f32> = (0..shape.iter().product::<usize>()).map(|i| (i + from) as f32).collect();
    Tensor::new(shape, &values).unwrap()
}

fn adapter(peft: PeftConfig, parameters: &[(&str, &str, Tensor)]) -> StoredAdapter {
    let parameters =
        parameters.iter().map(|(p, n, t)| (ParamKey::new(format!("h.0.attn.{p}"), *n), t.clone())).collect();
    StoredAdapter {
        dir: PathBuf::from("a"),
        peft: Some(peft),
        hub: None,
        parameters,
        head: None,
        graft: None,
    }
}

fn lora(names: &[&str], out: usize) -> StoredAdapter {
    let config = LoraConfig::new(1, 2.0, Targets::List(names.iter().map(|n| n.to_string()).collect()));
    let pair = |n: &&'static str| {
        [(*n, "lora_A.weight", tensor(&[1, 3], 1)), (*n, "lora_B.weight", tensor(&[out, 1], 1))]
    };
    let leaked: Vec<&'static str> = names.iter().map(|n| &*n.to_string().leak()).collect();
    adapter(PeftConfig::Lora(config), &leaked.iter().flat_map(pair).collect::<Vec<_>>())
}

fn none(_: &str, _: &str) -> Option<Vec<f64>> {
    None
}

fn refusal(adapter: &StoredAdapter, (modules, layers): (Vec<String>, Vec<Layer>)) -> String {
    project(adapter, &modules, &layers, &none).unwrap_err().to_string()
}

#[test]
fn the_rows_of_a_module_that_is_left_alone_are_zero() {
    let (modules, layers) = fused("c_attn", in_order());
    let made = project(&lora(&["q_proj", "v_proj"], 2), &modules, &layers, &none).unwrap().unwrap();
    let b = &made.adapter.parameters[&ParamKey::new("h.0.attn.c_attn", "lora_B.weight")];
    assert_eq!(b.shape(), [6, 2]);
    assert_eq!(b.to_f64s().unwrap(), [1., 0., 2., 0., 0., 0., 0., 0., 0., 1., 0., 2.]);
    let Some(PeftConfig::Lora(config)) = &made.adapter.peft else { panic!("no LoRA") };
    assert_eq!((config.r, config.lora_alpha), (2, 4.0));
    assert_eq!(made.done, ["`q_proj`, `k_proj`, `v_proj` became one `c_attn`, once"]);
}

#[test]
fn an_adapter_that_fits_stays_as_it_is() {
    let (modules, layers) = fused("c_attn", in_order());
    assert!(project(&lora(&["c_attn"], 6), &modules, &layers, &none).unwrap().is_none());
    // What has nothing to do with projections is left to the error that says so.
    assert!(project(&lora(&["dense"], 6), &modules, &layers, &none).unwrap().is_none());
}

#[test]
fn heads_that_hold_all_three_in_turn_are_refused() {
    let said = refusal(&lora(&["q_proj"], 2), fused("query_key_value", None));
    assert!(said.contains("does not cut the output of `m.h.0.attn.query_key_value` into 3 pieces"), "{said}");
    let split: Vec<String> = ["q_proj", "k_proj", "v_proj"].map(|n| format!("h.0.attn.{n}")).to_vec();
    let layers = split.iter().map(|p| Layer { path: p.clone(), out_features: 2, pieces: None }).collect();
    let said = refusal(&lora(&["query_key_value"], 6), (split, layers));
    assert!(said.contains("each head has its queries, keys and values together"), "{said}");
}

#[test]
fn another_order_of_the_rows_is_refused() {
    let turned = [Part::Key, Part::Query, Part::Value].map(|p| piece(2, Some(p))).to_vec();
    let said = refusal(&lora(&["q_proj"], 2), fused("qkv", Some(turned)));
    assert!(said.contains("in another order: [Some(Key), Some(Query), Some(Value)]"), "{said}");
}

#[test]
fn rows_of_another_width_are_refused_with_the_tensor() {
    let said = refusal(&lora(&["q_proj"], 3), fused("qkv", in_order()));
    assert!(said.contains("`h.0.attn.q_proj.lora_B.weight` has shape [3, 1], but [2, 1]"), "{said}");
}

#[test]
fn biases_of_some_need_the_bases_own() {
    let mut some = lora(&["q_proj"], 2);
    some.parameters.insert(ParamKey::new("h.0.attn.q_proj", "bias"), tensor(&[2], 10));
    let (modules, layers) = fused("qkv", in_order());
    let said = refusal(&some, (modules.clone(), layers.clone()));
    assert!(said.contains("it has `bias` for some of them only"), "{said}");
    let own = |path: &str, name: &str| {
        (path == "m.h.0.attn.qkv" && name == "bias").then(|| vec![0., 1., 2., 3., 4., 5.])
    };
    let made = project(&some, &modules, &layers, &own).unwrap().unwrap();
    let bias = &made.adapter.parameters[&ParamKey::new("h.0.attn.qkv", "bias")];
    assert_eq!(bias.to_f64s().unwrap(), [10., 11., 2., 3., 4., 5.]);
}

#[test]
fn inputs_that_are_scaled_each_in_its_way_are_refused() {
    let list = || Targets::List(vec!["gate_proj".into(), "up_proj".into()]);
    let scaled = |other: usize| {
        let vectors =
            [("gate_proj", "ia3_l", tensor(&[1, 3], 1)), ("up_proj", "ia3_l", tensor(&[1, 3], other))];
        adapter(PeftConfig::Ia3(Ia3Config::new(list(), list())), &vectors)
    };
    let base = || fused("gate_up_proj", Some(vec![piece(3, None), piece(3, None)]));
    let said = refusal(&scaled(2), base());
    assert!(said.contains("each scales the input in its own way"), "{said}");
    let (modules, layers) = base();
    let made = project(&scaled(1), &modules, &layers, &none).unwrap().unwrap();
    let vector = &made.adapter.parameters[&ParamKey::new("h.0.attn.gate_up_proj", "ia3_l")];
    assert_eq!(vector, &tensor(&[1, 3], 1));
}
