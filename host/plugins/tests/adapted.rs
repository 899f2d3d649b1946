//! Methods and objectives written into a graph.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use graft_graph::model::{Model, describe};
use graft_graph::{Attr, Builder, DType, Dim, Graph, Tensor, ValueId, dim};
use graft_plugins::adapt::Start;
use graft_plugins::api::{Code, Init, LearningRate, Role, json};
use graft_plugins::{Adapted, Method, Objective, Plugin, PluginError, adapt};
use support::library;

const WIDTH: usize = 4;

/// An embedding, two linear layers in a row with biases, a normalisation; a pooler beside it.
fn base() -> (Graph, Model) {
    let mut g = Graph::new("tiny", 20);
    let shape = || vec![Dim::from("batch"), Dim::from("sequence")];
    let ids = g.add_input("input_ids", DType::I64, shape());
    g.add_input("attention_mask", DType::I64, shape());
    let table = g.add_constant("embeddings.word.weight", floats(&[10, WIDTH]));
    let x = Builder::new(&mut g, "").op("Gather", &[table, ids]);
    let first = linear(&mut g, "layer.0.query", x);
    let second = linear(&mut g, "layer.0.dense", first);
    let scale = g.add_constant("layer.0.norm.weight", floats(&[WIDTH]));
    let shift = g.add_constant("layer.0.norm.bias", floats(&[WIDTH]));
    let attrs = [("axis", Attr::Int(-1))];
    let hidden = Builder::new(&mut g, "").op_with("LayerNormalization", &[second, scale, shift], &attrs);
    g.rename(hidden, "last_hidden_state");
    let zero = g.add_constant("", Tensor::scalar(0i64));
    let token = Builder::new(&mut g, "").op_with("Gather", &[hidden, zero], &[("axis", Attr::Int(1))]);
    let pooled = linear(&mut g, "pooler.dense", token);
    g.rename(pooled, "pooler_output");
    g.outputs = vec![hidden, pooled];
    let model = describe(&g, None).unwrap();
    (g, model)
}

fn floats(shape: &[usize]) -> Tensor {
    let values: Vec<f32> = (0..shape.iter().product::<usize>()).map(|i| i as f32 / 8.0).collect();
    Tensor::new(shape, &values).unwrap()
}

fn linear(g: &mut Graph, path: &str, x: ValueId) -> ValueId {
    let w = g.add_constant(&format!("{path}.weight"), floats(&[WIDTH, WIDTH]));
    let b = g.add_constant(&format!("{path}.bias"), floats(&[WIDTH]));
    let mut builder = Builder::new(g, "");
    let y = builder.op("MatMul", &[x, w]);
    builder.op("Add", &[y, b])
}

fn method(name: &str, config: serde_json::Value) -> Method {
    let file =
        format!("graft_{}", if name == "misbehaving" { name.to_owned() } else { format!("plugin_{name}") });
    Method::new(&Plugin::load(&library(&file)).unwrap(), &name.replace('_', "-"), &config).unwrap()
}

fn classification(config: serde_json::Value) -> Objective {
    let plugin = Plugin::load(&library("graft_plugin_classification")).unwrap();
    Objective::new(&plugin, "classification", &config).unwrap()
}

fn misbehave(mode: &str) -> Result<Adapted, Box<PluginError>> {
    let (g, model) = base();
    adapt(&g, &model, Some(&method("misbehaving", json!({ "mode": mode }))), None, true)
}

/// Operators on the way from `from` to `to`.
fn reaches(g: &Graph, from: ValueId, to: ValueId) -> bool {
    let producers = g.producers();
    let mut waiting = vec![to];
    let mut seen = std::collections::HashSet::new();
    while let Some(v) = waiting.pop() {
        if v == from {
            return true;
        }
        if let Some(i) = producers[v.index()].filter(|_| seen.insert(v)) {
            waiting.extend(g.nodes[i].inputs.iter().flatten());
        }
    }
    false
}

fn is_ordered(g: &Graph) -> bool {
    let mut known: std::collections::HashSet<ValueId> = g.inputs.iter().copied().collect();
    known.extend(g.constants().map(|(v, _)| v));
    g.nodes.iter().all(|n| {
        let ok = n.inputs.iter().flatten().all(|v| known.contains(v));
        known.extend(n.outputs.iter().flatten());
        ok
    })
}

#[test]
fn lora_and_classification_make_a_training_graph() {
    let (g, model) = base();
    let lora =
        method("lora", json!({ "r": 2, "target_modules": ["query", "layer.0.dense"], "dropout": 0.25 }));
    let objective = classification(json!({ "labels": ["a", "b", "c"] }));
    let a = adapt(&g, &model, Some(&lora), Some(&objective), true).unwrap();
    let names: Vec<&str> = a.params.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "layer.0.query.lora_A.weight",
            "layer.0.query.lora_B.weight",
            "layer.0.dense.lora_A.weight",
            "layer.0.dense.lora_B.weight",
            "classifier.weight",
            "classifier.bias"
        ]
    );
    assert_eq!(a.params[4].shape, [3, WIDTH]);
    assert_eq!((a.params[0].role, a.params[4].role), (Role::Adapter, Role::Head));
    assert!(a.params[0].decay && a.params[4].decay && !a.params[5].decay);
    assert_eq!(a.params[1].init, Start::Asked(Init::Zeros));
    assert!(is_ordered(&a.graph));
    let loss = a.loss.unwrap();
    assert_eq!(a.graph.shape(loss).map(Vec::len), Some(0));
    let logits = a.outputs[0].1;
    assert_eq!(
        (a.graph.name_of(logits), dim::show(a.graph.shape(logits).unwrap())),
        ("logits", "[batch, 3]".to_owned())
    );
    assert!(a.params.iter().all(|p| p.used && reaches(&a.graph, p.value, loss)));
    assert_eq!(a.settings.iter().map(|s| s.number).collect::<Vec<_>>(), [8.0]);
    assert_eq!(a.noises.len(), 2);
    assert_eq!(dim::show(&a.noises[0].shape), "[batch, sequence, 4]");
    assert_eq!(a.inputs.iter().map(|(n, _)| n.as_str()).collect::<Vec<_>>(), ["labels"]);
    assert_eq!(a.matched[0].matched, ["layer.0.query", "layer.0.dense"]);
    assert_eq!(a.matched[0].unmatched, ["embeddings.word", "pooler.dense"]);
}

#[test]
fn a_site_behind_a_replaced_one_reads_the_replacement() {
    let (g, model) = base();
    let lora = method("lora", json!({ "r": 2, "target_modules": ["query", "layer.0.dense"] }));
    let a = adapt(&g, &model, Some(&lora), None, true).unwrap();
    // The first layer's update reaches the second layer's own update, which reads the second layer's input.
    let (b1, a2) = (a.params[1].value, a.params[2].value);
    let narrow = a
        .graph
        .nodes
        .iter()
        .find(|n| n.is("MatMul") && n.inputs.iter().flatten().any(|v| reaches(&a.graph, a2, *v)));
    let input = narrow.unwrap().input(0).unwrap();
    assert!(reaches(&a.graph, b1, input));
}

#[test]
fn evaluation_has_neither_noise_nor_loss() {
    let (g, model) = base();
    let lora = method("lora", json!({ "dropout": 0.5, "target_modules": "all-linear" }));
    let objective = classification(json!({ "labels": ["a", "b"], "dropout": 0.5, "pooling": "pooled" }));
    let a = adapt(&g, &model, Some(&lora), Some(&objective), false).unwrap();
    assert!(a.noises.is_empty() && a.loss.is_none() && a.inputs.is_empty());
    assert_eq!(a.params.len(), 3 * 2 + 2);
    assert!(a.params.iter().all(|p| p.used));
}

#[test]
fn what_the_outputs_do_not_need_is_gone_and_said_to_be_unused() {
    let (g, model) = base();
    let lora = method("lora", json!({ "target_modules": "all-linear" }));
    let objective = classification(json!({ "labels": ["a", "b"], "pooling": "mean" }));
    let a = adapt(&g, &model, Some(&lora), Some(&objective), true).unwrap();
    let unused: Vec<_> = a.params.iter().filter(|p| !p.used).map(|p| p.name.as_str()).collect();
    assert_eq!(unused, ["pooler.dense.lora_A.weight", "pooler.dense.lora_B.weight"]);
}

#[test]
fn every_pooling_and_loss_is_a_sound_graph() {
    let (g, model) = base();
    for pooling in ["mean", "cls", "last", "pooled"] {
        for weights in [json!("none"), json!([1.0, 2.0])] {
            let config = json!({ "labels": ["a", "b"], "pooling": pooling, "class_weights": weights,
                                 "label_smoothing": 0.1, "dropout": 0.1 });
            let probe = method("linear_probe", json!({}));
            let a = adapt(&g, &model, Some(&probe), Some(&classification(config)), true).unwrap();
            assert!(is_ordered(&a.graph), "{pooling}");
            assert_eq!(dim::show(a.graph.shape(a.outputs[0].1).unwrap()), "[batch, 2]", "{pooling}");
        }
    }
}

#[test]
fn the_base_is_left_as_it_was_and_replaced_outputs_keep_their_names() {
    let (g, model) = base();
    let before = g.clone();
    let a =
        adapt(&g, &model, Some(&method("lora", json!({ "target_modules": ["pooler.dense"] }))), None, true)
            .unwrap();
    assert_eq!(g, before);
    let names: Vec<&str> = a.graph.outputs.iter().map(|o| a.graph.name_of(*o)).collect();
    assert_eq!(names, ["last_hidden_state", "pooler_output"]);
    assert_ne!(a.graph.outputs[1], g.outputs[1]);
    assert_eq!(a.pooled, Some(a.graph.outputs[1]));
}

#[test]
fn biases_of_the_base_become_inputs() {
    let (g, model) = base();
    let a = adapt(&g, &model, Some(&method("lora", json!({ "bias": "all" }))), None, true);
    // Only the site `query` has a customary name, so the default takes all linear ones.
    let a = a.unwrap();
    let base: Vec<_> = a.params.iter().filter_map(|p| p.base.as_deref()).collect();
    assert_eq!(base, ["layer.0.query.bias", "layer.0.dense.bias", "layer.0.norm.bias", "pooler.dense.bias"]);
    for p in a.params.iter().filter(|p| p.base.is_some()) {
        assert!(a.graph.constant(p.value).is_none() && a.graph.inputs.contains(&p.value) && !p.decay);
        assert!(matches!(&p.init, Start::Base(t) if t.shape() == [WIDTH]));
    }
}

/// `B`, biases of the base, and the head's bias; `A` and the head's weight learn with the run's rate.
#[test]
fn with_a_ratio_of_rates_b_and_all_vectors_learn_faster() {
    let (g, model) = base();
    let objective = classification(json!({ "labels": ["a", "b", "c"] }));
    let rates = |training| {
        let lora = method("lora", json!({ "loraplus_lr_ratio": 16.0, "bias": "lora_only" }));
        let a = adapt(&g, &model, Some(&lora), Some(&objective), training).unwrap();
        a.params.into_iter().map(|p| (p.key, p.rate)).collect::<Vec<_>>()
    };
    for (key, rate) in rates(true) {
        let faster = key == "lora_B.weight" || key.ends_with("bias");
        assert_eq!(rate, faster.then_some(LearningRate::Times(16.0)), "{key}");
    }
    assert!(rates(false).iter().all(|(_, rate)| rate.is_none()), "rates are for training alone");
}

#[test]
fn a_pattern_that_matches_nothing_lists_what_is_near() {
    let (g, model) = base();
    let lora = method("lora", json!({ "target_modules": ["quarry"] }));
    let e = adapt(&g, &model, Some(&lora), None, true).unwrap_err();
    assert_eq!(e.code, Code::NO_SITE);
    assert!(e.to_string().contains("layer.0.query"), "{e}");
}

#[test]
fn misbehaviour_is_refused_by_name() {
    for (mode, code, words) in [
        ("unknown-operator", Code::UNSUPPORTED, "operator `MatMull` is not one"),
        ("unknown-operator", Code::UNSUPPORTED, "MatMul"),
        ("random-operator", Code::UNSUPPORTED, "through `noise`"),
        (
            "shapes-that-do-not-fit",
            Code::REFUSED,
            "`MatMul` has no result for [batch, sequence, 4] and [5, 2]",
        ),
        ("types-that-do-not-fit", Code::REFUSED, "`Add` was given f32 and i64"),
        (
            "wrong-shape",
            Code::REFUSED,
            "[batch, sequence, 4] cannot be replaced by one of shape [batch, sequence, 1]",
        ),
        ("wrong-type", Code::REFUSED, "a value of f32 cannot be replaced by one of f64"),
        ("own-reader", Code::REFUSED, "which reads the output"),
        ("endless", Code::LIMIT, "nodes were added"),
        ("many-outputs", Code::LIMIT, "`Split` with 4294967295 outputs"),
        ("huge-parameter", Code::LIMIT, "too large"),
        ("huge-constant", Code::LIMIT, "too large"),
        ("short-constant", Code::MALFORMED, "takes 12 bytes, it has 4"),
        ("rate-of-no-parameter", Code::REFUSED, "is no parameter and has no learning rate"),
        ("two-settings", Code::REFUSED, "setting `a` is 1 already, not 2"),
        ("absent-initializer", Code::REFUSED, "no initializer `no.such.bias`"),
    ] {
        let e = misbehave(mode).expect_err(mode);
        assert_eq!(e.code, code, "{mode}: {e}");
        assert!(e.to_string().contains(words), "{mode}: {e}");
        assert_eq!((e.plugin.as_str(), e.operation.as_str()), ("misbehaving", "apply"), "{mode}");
    }
    assert!(misbehave("wrong-shape").unwrap_err().site.ends_with("layer.0.query"));
}

#[test]
fn values_of_an_earlier_call_are_refused() {
    misbehave("keep").unwrap();
    let e = misbehave("use-kept").unwrap_err();
    assert!(e.message.contains("not of this call"), "{e}");
}

#[test]
fn a_loss_must_be_a_scalar_and_be_there() {
    let (g, model) = base();
    let plugin = Plugin::load(&library("graft_misbehaving")).unwrap();
    for (mode, words) in [("no-loss", "built no loss"), ("loss-for-each-row", "its shape is [batch]")] {
        let o = Objective::new(&plugin, "misbehaving-objective", &json!({ "mode": mode })).unwrap();
        let e = adapt(&g, &model, None, Some(&o), true).unwrap_err();
        assert!(e.message.contains(words), "{e}");
    }
}
