//! Graft's kernels against their decompositions in ONNX Runtime's own operators (all optimisations), in microseconds:
//! `cargo bench -p graft-runtime [THREADS]`. Also ONNX Runtime's Gelu, as the measure for a kernel of our own.

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "../tests/kernels/models.rs"]
mod models;

use std::time::Instant;

use common::*;
use graft_graph::Tensor;
use graft_runtime::{Session, SessionOptions, View};
use models::*;

/// Title, model, and the inputs' names and shapes.
type Case = (&'static str, Model, Vec<(&'static str, Vec<usize>)>);

fn main() {
    let threads = std::env::args().skip(1).find_map(|a| a.parse().ok()).unwrap_or(2);
    let gelu = Model { opset_import: vec![opset("", 20), opset("graft", 1)], ..gelu_forward() };
    let cases: [Case; 5] = [
        ("GeluGrad", gelu_grad(), vec![("dy", vec![32, 1, 64, 1536]), ("x", vec![32, 1, 64, 1536])]),
        (
            "LayerNormGrad, dx alone",
            layer_norm_dx(),
            vec![("dy", vec![32, 1, 64, 384]), ("x", vec![32, 1, 64, 384]), ("scale", vec![384])],
        ),
        (
            "LayerNormGrad",
            layer_norm_grad(),
            vec![("dy", vec![32, 1, 64, 384]), ("x", vec![32, 1, 64, 384]), ("scale", vec![384])],
        ),
        ("SoftmaxGrad", softmax_grad(-1), vec![("dy", vec![32, 12, 64, 64]), ("y", vec![32, 12, 64, 64])]),
        ("Gelu (ONNX Runtime's)", gelu, vec![("x", vec![32, 1, 64, 1536])]),
    ];
    println!("{threads} threads; best of 30 runs, µs");
    for (name, model, inputs) in cases {
        let tensors: Vec<Tensor> = inputs.iter().map(|(n, s)| random(s, n.len() as u64)).collect();
        let names: Vec<&str> = inputs.iter().map(|(n, _)| *n).collect();
        let [kernel, body] = [true, false].map(|k| measure(&model, k, threads, &names, &tensors));
        println!(
            "{name:<26} {:?} kernel {kernel:>8.0}   operators {body:>8.0}   {:.1} x",
            inputs[0].1,
            body / kernel
        );
    }
}

fn random(shape: &[usize], seed: u64) -> Tensor {
    Tensor::new(shape, &numbers(seed, shape.iter().product())).expect("as many numbers as the shape asks for")
}

fn measure(model: &Model, kernels: bool, threads: usize, names: &[&str], tensors: &[Tensor]) -> f64 {
    let runtime = runtime().expect("the library: set ORT_DYLIB_PATH");
    let options = SessionOptions { kernels, threads: Some(threads), ..SessionOptions::default() };
    let mut s = Session::new(runtime, &model.source(), &options).expect("the model loads");
    let outputs: Vec<String> = s.outputs().iter().map(|p| p.name.clone()).collect();
    let outputs: Vec<&str> = outputs.iter().map(String::as_str).collect();
    let plan = s.plan(names, &outputs).expect("the names are the model's");
    let views: Vec<View<'_>> = tensors.iter().map(View::from).collect();
    let times: Vec<f64> = (0..40)
        .map(|_| {
            let started = Instant::now();
            s.run_planned(&plan, &views).expect("the model runs");
            started.elapsed().as_secs_f64() * 1e6
        })
        .skip(10)
        .collect();
    times.into_iter().fold(f64::INFINITY, f64::min)
}
