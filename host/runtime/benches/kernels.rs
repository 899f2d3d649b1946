//! Graft's kernels against their decompositions in ONNX Runtime's own operators (all optimisations), in microseconds:
//! `cargo bench -p graft-runtime [THREADS]`. Also ONNX Runtime's Gelu, as the measure for a kernel of our own.

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "../tests/kernels/models.rs"]
mod models;

use std::time::Instant;

use common::*;
use graft_graph::Tensor;
use graft_runtime::{Session, SessionOptions, SessionSource, View};
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
        let source = model.source();
        let [kernel, body] = [true, false].map(|k| measure(&source, k, threads, &names, &tensors));
        println!(
            "{name:<26} {:?} kernel {kernel:>8.0}   operators {body:>8.0}   {:.1} x",
            inputs[0].1,
            body / kernel
        );
    }
    products(threads);
}

/// The products with rows of a bank, 32 rows in a batch, beside one of ONNX Runtime with a matrix; GFLOP/s are of what the
/// ranks ask for, padding not counted.
fn products(threads: usize) {
    let ranks: [(&str, &[usize]); 3] =
        [("8", &[8]), ("4 to 64", &[4, 64, 16, 8, 32]), ("8 or none", &[0, 8])];
    let plain = model(
        &[("x", &["m", "k"]), ("w", &["k", "n"])],
        &[("y", &["m", "n"])],
        vec![node("MatMul", &["x", "w"], &["y"])],
    );
    for (seq, k, n) in
        [(64, 384, 384), (16, 384, 384), (128, 384, 384), (1, 384, 384), (64, 384, 1536), (64, 1536, 384)]
    {
        let tensors = [random(&[32 * seq, k], 1), random(&[k, n], 2)];
        let time = measure(&plain.source(), true, threads, &["x", "w"], &tensors);
        let rate = |multiplications: usize, time: f64| 2e-3 * multiplications as f64 / time;
        println!(
            "32 x {seq} positions, {k} x {n}: MatMul {time:.0} ({:.0} GFLOP/s)",
            rate(32 * seq * k * n, time)
        );
        for (title, ranks) in ranks {
            for op in [DOWN, UP, LOW_RANK, LOW_RANK_BIAS] {
                let ranks: Vec<usize> = (0..32).map(|b| ranks[b % ranks.len()]).collect();
                let widths = if op == DOWN {
                    k
                } else if op == UP {
                    n
                } else {
                    k + n
                };
                let work = seq * widths * ranks.iter().sum::<usize>();
                let tensors = bank_inputs(op, seq, [k, n], &ranks);
                let names: Vec<&str> = op.1.iter().map(|(n, _)| *n).collect();
                let source = bank_model(op, |b, node, first| vec![node(b, first)]);
                let [kernel, body] = [true, false].map(|k| measure(&source, k, threads, &names, &tensors));
                println!(
                    "    {:<15} rank {title:<10} kernel {kernel:>8.0} ({:>3.0} GFLOP/s)   operators {body:>8.0}   {:.1} x",
                    op.0,
                    rate(work, kernel),
                    body / kernel
                );
            }
            let ranks: Vec<usize> = (0..32).map(|b| ranks[b % ranks.len()]).collect();
            let tensors = bank_inputs(LOW_RANK_BIAS, seq, [k, n], &ranks);
            let names: Vec<&str> = LOW_RANK_BIAS.1.iter().map(|(n, _)| *n).collect();
            let [one, two] =
                [true, false].map(|t| measure(&biased_product(t), true, threads, &names, &tensors));
            println!("    Neg, and a bias and an update by one operator {one:>8.0}   by two {two:>8.0}");
        }
    }
}

/// Inputs for rows of a batch with adapters of these ranks, each with rows of its own in the banks.
fn bank_inputs(op: (&str, Inputs), seq: usize, [k, n]: [usize; 2], ranks: &[usize]) -> Vec<Tensor> {
    let (batch, all, most) =
        (ranks.len(), 1 + ranks.iter().sum::<usize>(), *ranks.iter().max().unwrap_or(&1));
    let mut next = 0..all as i64;
    next.next();
    let rows: Vec<i64> = ranks
        .iter()
        .flat_map(|r| {
            (0..most).map(|j| if j < *r { next.next().unwrap_or(0) } else { 0 }).collect::<Vec<_>>()
        })
        .collect();
    let size = |dim: &str| match dim {
        "batch" => batch,
        "seq" => seq,
        "in" => k,
        "out" => n,
        "rank" => most,
        _ => all,
    };
    let tensor = |(name, dims): &(&str, &[&str])| match name.starts_with("rows") {
        true => Tensor::new([batch, most], &rows).expect("as many numbers as the shape asks for"),
        false => random(&dims.iter().map(|d| size(d)).collect::<Vec<_>>(), name.len() as u64),
    };
    op.1.iter().map(tensor).collect()
}

fn random(shape: &[usize], seed: u64) -> Tensor {
    Tensor::new(shape, &numbers(seed, shape.iter().product())).expect("as many numbers as the shape asks for")
}

fn measure(source: &SessionSource, kernels: bool, threads: usize, names: &[&str], tensors: &[Tensor]) -> f64 {
    let runtime = runtime().expect("the library: set ORT_DYLIB_PATH");
    let options = SessionOptions { kernels, threads: Some(threads), ..SessionOptions::default() };
    let mut s = Session::new(runtime, source, &options).expect("the model loads");
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
