//! Gradients of models that were really trained, against differences along random directions of all their parameters.

use std::path::Path;

use graft_graph::{DType, Graph, Tensor, ValueId, onnx, tied};
use graft_runtime::{Runtime, Session, SessionOptions, SessionSource};
use graft_tasks::{Base, BaseOptions, gradients};
use graft_tests::{Draw, runtime, shared};
use indexmap::IndexMap;

/// Random directions that are tried for each model.
const DIRECTIONS: usize = 5;

/// Half the distances of two points, in units of each parameter's root mean square.
const STEPS: [f64; 6] = [3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5];

/// Largest error, relative to the typical slope along such directions. The differences are of f32 outputs.
const CLOSE: f64 = 1e-2;

/// File, sizes of the symbols in the shapes of its inputs (rows, length), and numbers that an integer input may hold.
const MODELS: [(&str, [usize; 2], usize); 7] = [
    ("albert_smiles/converted_encoder.onnx", [2, 11], 500),
    ("albert_smiles/converted_mlm.onnx", [3, 7], 500),
    ("stories260k/converted_stories260k.onnx", [2, 9], 500),
    ("stories260k/converted_stories260k_hidden.onnx", [1, 13], 500),
    ("resnet20_cifar10/converted_resnet20.onnx", [2, 32], 0),
    ("magika_v3_3/model.onnx", [2, 2048], 256),
    ("mnist_cntk/mnist.onnx", [1, 28], 0),
];

/// What each input is fed: `in:NAME`. Masks hide the end of the last row; types are zero.
fn inputs(
    graph: &Graph,
    [rows, length]: [usize; 2],
    numbers: usize,
    draw: &mut Draw<'_>,
) -> IndexMap<String, Tensor> {
    let feed = |v: &ValueId| {
        let name = graph.name_of(*v);
        let size = |(k, d): (usize, &graft_graph::Dim)| match d.known() {
            Some(n) => usize::try_from(n).expect("a size"),
            None => [rows, length][k.min(1)],
        };
        let shape: Vec<usize> =
            graph.shape(*v).expect("a declared shape").iter().enumerate().map(size).collect();
        let count = shape.iter().product::<usize>();
        let number = |k: usize, draw: &mut Draw<'_>| match name {
            n if n.contains("mask") => i64::from(rows == 1 || k + 3 < count),
            n if n.contains("type") => 0,
            _ => draw.real(0.0, numbers as f64) as i64,
        };
        let tensor = match graph.dtype(*v) {
            Some(DType::I64) => {
                Tensor::new(shape, &(0..count).map(|k| number(k, draw)).collect::<Vec<i64>>())
            }
            Some(DType::I32) => {
                Tensor::new(shape, &(0..count).map(|k| number(k, draw) as i32).collect::<Vec<i32>>())
            }
            _ => Tensor::new(shape, &(0..count).map(|_| draw.real(-1.0, 1.0) as f32).collect::<Vec<f32>>()),
        };
        (format!("in:{name}"), tensor.expect("as many as the shape asks for"))
    };
    graph.inputs.iter().map(feed).collect()
}

/// The sum of cotangent times output, in f64, after each parameter was moved by its own direction times `by`.
fn moved(
    runtime: &'static Runtime,
    graph: &Graph,
    along: &[(ValueId, Vec<f64>)],
    by: f64,
    tensors: &IndexMap<String, Tensor>,
) -> f64 {
    let mut graph = graph.clone();
    for (v, d) in along {
        let t = graph.constant(*v).expect("a parameter");
        let values: Vec<f32> =
            t.to_f64s().expect("floats").iter().zip(d).map(|(x, d)| (x + by * d) as f32).collect();
        let new = Tensor::new(t.shape().to_vec(), &values).expect("the same shape");
        graph.set_constant(*v, new);
    }
    let mut session =
        Session::new(runtime, &SessionSource::plain(onnx::to_bytes(&graph)), &SessionOptions::default())
            .expect("the model loads");
    let fed: Vec<(&str, &Tensor)> =
        tensors.iter().filter_map(|(k, t)| Some((k.strip_prefix("in:")?, t))).collect();
    let names: Vec<String> = graph.outputs.iter().map(|v| graph.name_of(*v).to_string()).collect();
    let wanted: Vec<&str> = names.iter().map(String::as_str).collect();
    let run = session.run(&fed, &wanted).expect("the model runs");
    let dot = |n: &&str| {
        let (y, ct) = (run.tensor(n).expect("an output"), &tensors[&format!("ct:{n}")]);
        y.to_f64s()
            .expect("floats")
            .iter()
            .zip(ct.to_f64s().expect("floats"))
            .map(|(y, c)| y * c)
            .sum::<f64>()
    };
    wanted.iter().map(dot).sum()
}

/// Probabilities of a classifier that is sure of itself hardly move: what goes into them is looked at instead.
const LOGITS: &str = "jax2tf_get_logits_/pjit_get_logits_/MagikaV2/Dense_1/AddV2:0";

/// The direction of a copy of `v`, which may be its transpose.
fn follow(graph: &Graph, v: ValueId, d: &[f64], transposed: bool) -> Vec<f64> {
    let &[rows, columns] = graph.constant(v).expect("a matrix").shape() else { panic!("a matrix is tied") };
    match transposed {
        true => (0..d.len()).map(|k| d[(k % rows) * columns + k / rows]).collect(),
        false => d.to_vec(),
    }
}

/// How far the slope along a random direction is from what the gradients say, relative to the typical slope: the median
/// of several, since one may begin beside a kink.
fn error(runtime: &'static Runtime, file: &Path, sizes: [usize; 2], numbers: usize) -> f64 {
    let mut base = Base::open(runtime, file, &BaseOptions::default()).expect("the model opens");
    if let Some(logits) = base.graph.find(LOGITS) {
        base.graph.outputs = vec![logits];
    }
    let seeds: Vec<u16> = (0..8).map(|k| k * 31 + sizes[1] as u16).collect();
    let mut draw = Draw::new(&seeds);
    let mut tensors = inputs(&base.graph, sizes, numbers, &mut draw);
    let options = SessionOptions::default();
    // The outputs' sizes at run time tell the cotangents'.
    let fed: Vec<(&str, &Tensor)> = tensors.iter().map(|(k, t)| (&k[3..], t)).collect();
    let mut forward = base.session(&base.graph, &options).expect("the model loads");
    let mut cotangents = IndexMap::new();
    for o in &base.graph.outputs {
        let name = base.graph.name_of(*o);
        let shape =
            forward.run(&fed, &[name]).expect("it runs").tensor(name).expect("an output").shape().to_vec();
        let ct: Vec<f32> = (0..shape.iter().product()).map(|_| draw.real(-1.0, 1.0) as f32).collect();
        cotangents.insert(format!("ct:{name}"), Tensor::new(shape, &ct).expect("as many"));
    }
    tensors.extend(cotangents);
    let run = gradients(&base, &tensors, None, None, &options).expect("gradients run");
    // Numbers that the maths is made of (an epsilon, an exponent) are no parameters; a second copy of a matrix moves with
    // the first, whose gradient is that of both.
    let copies = tied::groups(&base.graph);
    let is_copy = |v: ValueId| copies.iter().any(|(_, same)| same.iter().any(|c| c.value == v));
    let grads: Vec<(ValueId, Vec<f64>)> = run
        .tensors
        .iter()
        .filter_map(|(k, t)| Some((base.graph.find(k.strip_prefix("grad:")?)?, t)))
        .filter(|(v, t)| !t.shape().is_empty() && !is_copy(*v))
        .map(|(v, t)| (v, t.to_f64s().expect("floats")))
        .collect();
    assert!(!grads.is_empty(), "{}: no gradients", file.display());
    let scale = |v: ValueId| {
        let x = base.graph.constant(v).expect("a parameter").to_f64s().expect("floats");
        (x.iter().map(|x| x * x).sum::<f64>() / x.len().max(1) as f64).sqrt()
    };
    // The spread of slopes over all directions, each element of one drawn evenly from -1 to 1.
    let variance =
        |(v, g): &(ValueId, Vec<f64>)| scale(*v).powi(2) / 3.0 * g.iter().map(|g| g * g).sum::<f64>();
    let typical = grads.iter().map(variance).sum::<f64>().sqrt();
    let mut errors = Vec::with_capacity(DIRECTIONS);
    for _ in 0..DIRECTIONS {
        let mut slope = 0.0;
        let mut along = Vec::with_capacity(grads.len());
        for (v, g) in &grads {
            let s = scale(*v);
            let d: Vec<f64> = g.iter().map(|_| s * draw.real(-1.0, 1.0)).collect();
            slope += g.iter().zip(&d).map(|(g, d)| g * d).sum::<f64>();
            for (_, same) in copies.iter().filter(|(first, _)| first == v) {
                along.extend(same.iter().map(|c| (c.value, follow(&base.graph, *v, &d, c.transposed))));
            }
            along.push((*v, d));
        }
        // Steps of which the next half as long says the same are short enough for kinks and long enough for f32.
        let at = |by: f64| {
            (moved(runtime, &base.graph, &along, by, &tensors)
                - moved(runtime, &base.graph, &along, -by, &tensors))
                / (2.0 * by)
        };
        let slopes: Vec<f64> = STEPS.iter().map(|h| at(*h)).collect();
        let pair = slopes.windows(2).min_by(|a, b| (a[0] - a[1]).abs().total_cmp(&(b[0] - b[1]).abs()));
        let difference = pair.map_or(f64::NAN, |p| (p[0] + p[1]) / 2.0);
        let error = (difference - slope).abs() / typical;
        assert!(error.is_finite(), "{}: {difference} against {slope}", file.display());
        errors.push(error);
    }
    errors.sort_by(f64::total_cmp);
    errors[DIRECTIONS / 2]
}

#[test]
fn gradients_of_trained_models_agree_with_differences_along_random_directions() {
    let (Some(shared), Some(runtime)) = (shared(), runtime()) else { return };
    let mut wrong = Vec::new();
    for (name, sizes, numbers) in MODELS {
        let error = error(runtime, &shared.join("models").join(name), sizes, numbers);
        println!("{name}: {error:.1e}");
        if error > CLOSE {
            wrong.push(format!("{name}: {error:.1e}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// The old exporter computes the padding of a shortcut by turning a matrix of pads around, and calls the children of a
/// Sequential by its name.
#[test]
fn a_residual_network_is_read_with_its_shapes_and_module_paths() {
    let (Some(shared), Some(runtime)) = (shared(), runtime()) else { return };
    let file = shared.join("models/resnet20_cifar10/converted_resnet20.onnx");
    let base = Base::open(runtime, &file, &BaseOptions::default()).expect("the model opens");
    let shape = base.graph.shape(base.graph.outputs[0]).expect("an inferred shape");
    assert_eq!(graft_graph::dim::show(shape), "[batch_size, 10]");
    let sites = graft_graph::sites::sites(&base.graph);
    let paths: Vec<&str> = sites.iter().map(|s| s.path.as_str()).collect();
    assert!(paths.contains(&"layer1.0.conv1") && paths.contains(&"layer3.2.conv2"), "{paths:?}");
}
