//! A module that is called several times is one: one set of parameters, whose gradients add up over its uses.
#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use graft_graph::model::describe;
use graft_graph::sites::sites;
use graft_graph::{Builder, DType, Dim, Graph, Tensor, ValueId, onnx};
use graft_plugins::{Adapted, Method, Plugin, adapt};
use graft_tests::differences::{Derived, Tolerance};
use graft_tests::{Draw, fixture, runtime};
use serde_json::json;

const WIDTH: usize = 4;

/// A layer with a bias that is called three times, as the old exporter names the calls.
fn base() -> Graph {
    let mut g = Graph::new("shared", onnx::WORKING_OPSET);
    let x = g.add_input("x", DType::F32, vec![Dim::from("batch"), Dim::from("sequence"), Dim::from(WIDTH)]);
    let choices = [7];
    let mut draw = Draw::new(&choices);
    let mut constant = |g: &mut Graph, name: &str, shape: &[usize]| {
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| draw.real(-0.8, 0.8) as f32).collect();
        g.add_constant(name, Tensor::new(shape, &values).unwrap())
    };
    let weight = constant(&mut g, "onnx::MatMul_7", &[WIDTH, WIDTH]);
    let bias = constant(&mut g, "layers.0.fc.bias", &[WIDTH]);
    let mut value = x;
    for call in ["fc", "fc_1", "fc_2"] {
        let y = named(&mut g, &format!("/layers.0/{call}/MatMul"), "MatMul", &[value, weight]);
        let y = named(&mut g, &format!("/layers.0/{call}/Add"), "Add", &[bias, y]);
        value = named(&mut g, &format!("/layers.0/{call}/Tanh"), "Tanh", &[y]);
    }
    g.rename(value, "last_hidden_state");
    g.outputs = vec![value];
    g
}

fn named(g: &mut Graph, name: &str, op: &str, inputs: &[ValueId]) -> ValueId {
    let value = Builder::new(g, "").op(op, inputs);
    g.nodes.last_mut().unwrap().name = name.into();
    value
}

fn lora(g: &Graph, training: bool) -> Adapted {
    let plugin = Plugin::load(&fixture::target_dir().join("libgraft_plugin_lora.so")).unwrap();
    let config = json!({ "r": 2, "target_modules": ["fc"], "bias": "lora_only" });
    let method = Method::new(&plugin, "lora", &config).unwrap();
    adapt(g, &describe(g, None).unwrap(), Some(&method), None, training).unwrap()
}

#[test]
fn its_uses_share_one_set_of_parameters() {
    let g = base();
    let paths: Vec<String> = sites(&g).into_iter().map(|s| s.path).collect();
    assert_eq!(paths, ["layers.0.fc"; 3]);
    let a = lora(&g, true);
    let names: Vec<&str> = a.params.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(names, ["layers.0.fc.lora_A.weight", "layers.0.fc.lora_B.weight", "layers.0.fc.bias"]);
    assert_eq!(a.matched[0].matched, ["layers.0.fc"]);
    for p in &a.params {
        let uses = a.graph.consumers()[p.value.index()].len();
        assert_eq!(uses, 3, "{}", p.name);
    }
}

#[test]
fn their_gradients_add_up() {
    let Some(runtime) = runtime() else { return };
    let g = base();
    let a = lora(&g, true);
    let choices = [1, 2, 3];
    let mut draw = Draw::new(&choices);
    let mut fed = Vec::new();
    let mut feed = |name: &str, shape: &[usize]| {
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| draw.real(-1.0, 1.0) as f32).collect();
        fed.push((name.to_string(), Tensor::new(shape, &values).unwrap()));
    };
    feed("x", &[2, 3, WIDTH]);
    for p in &a.params {
        feed(&p.name, &p.shape);
    }
    fed.extend(a.settings.iter().map(|s| (s.input.clone(), Tensor::scalar(s.number * 0.1))));
    let wrt: Vec<ValueId> = a.params.iter().map(|p| p.value).collect();
    let mut derived = Derived::new(runtime, &a.graph, &wrt, true).unwrap();
    let choices = [9];
    let mut cotangents = Draw::new(&choices);
    derived.check(&fed, Tolerance::Approximate, &mut || cotangents.real(-1.0, 1.0)).unwrap();
}
