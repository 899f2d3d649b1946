//! Deep graphs: gradients of a size that is proportional to the graph's.

use std::time::Instant;

use graft_graph::grad::gradient_model;
use graft_graph::{Attr, Builder, DType, Dim, Graph, Tensor, onnx, shape};

/// Nodes of one layer.
const LAYER: usize = 10;

/// `layers` blocks of a feed-forward network with residual and normalisation over x [batch, seq, 8].
fn network(layers: usize) -> Graph {
    let mut g = Graph::new("deep", 20);
    let mut x = g.add_input("x", DType::F32, vec![Dim::from("batch"), Dim::from("seq"), Dim::from(8)]);
    for _ in 0..layers {
        let mut b = Builder::new(&mut g, "");
        let weight = |b: &mut Builder<'_>, shape: &[usize]| {
            let n = shape.iter().product();
            b.constant(Tensor::new(shape, &vec![0.1f32; n]).expect("as many as the shape asks for"))
        };
        let (up, down) = (weight(&mut b, &[8, 16]), weight(&mut b, &[16, 8]));
        let (one, two) = (weight(&mut b, &[16]), weight(&mut b, &[8]));
        let (scale, bias) = (weight(&mut b, &[8]), weight(&mut b, &[8]));
        let y = b.op("MatMul", &[x, up]);
        let y = b.op("Add", &[y, one]);
        let y = b.op("Gelu", &[y]);
        let y = b.op("MatMul", &[y, down]);
        let y = b.op("Add", &[y, two]);
        let flat = b.ints(&[0, -1]);
        let rows = b.op("Reshape", &[y, flat]);
        let sizes = b.op("Shape", &[y]);
        let y = b.op("Reshape", &[rows, sizes]);
        let y = b.op("Add", &[y, x]);
        x = b.op_with("LayerNormalization", &[y, scale, bias], &[("epsilon", Attr::Float(1e-5))]);
    }
    g.outputs = vec![x];
    shape::infer(&mut g);
    g
}

#[test]
fn gradients_of_a_graph_ten_times_as_deep_have_ten_times_as_many_nodes() {
    let sizes = [50, 500].map(|layers| {
        let g = network(layers);
        assert_eq!(g.nodes.len(), layers * LAYER);
        let started = Instant::now();
        let model = gradient_model(&g, None).unwrap();
        println!("{} nodes: {:?} for {}", g.nodes.len(), started.elapsed(), model.graph.nodes.len());
        model.graph.nodes.len()
    });
    assert!(sizes[1] < 11 * sizes[0], "{sizes:?}");
    assert!(sizes[1] <= 5 * 500 * LAYER, "{sizes:?}");
}

/// Bytes of memory that belong to this process alone; pages of mapped files are not among them.
#[cfg(target_os = "linux")]
fn own_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux tells");
    let line = status.lines().find(|l| l.starts_with("RssAnon:")).expect("a line for it");
    line.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok()).expect("a number") * 1024
}

#[test]
#[cfg(target_os = "linux")]
fn the_transform_takes_no_memory_for_the_weights() {
    const WIDTH: usize = 4096;
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("wide.onnx");
    let mut g = Graph::new("wide", 20);
    let mut x = g.add_input("x", DType::F32, vec![Dim::from("batch"), Dim::from(WIDTH)]);
    for layer in 0..4 {
        let weight = Tensor::new([WIDTH, WIDTH], &vec![0.01f32 * (layer + 1) as f32; WIDTH * WIDTH]);
        let w = g.add_constant(&format!("w{layer}"), weight.expect("as many as the shape asks for"));
        let mut b = Builder::new(&mut g, "");
        let y = b.op("MatMul", &[x, w]);
        x = b.op("Tanh", &[y]);
    }
    g.outputs = vec![x];
    onnx::write(&g, &path, onnx::Placement::Beside).expect("256 MB are written");
    drop(g);
    let before = own_memory();
    let g = onnx::read(&path).expect("they are read");
    let model = gradient_model(&g, None).expect("and derived");
    let grown = own_memory().saturating_sub(before);
    assert_eq!(model.wrt.len(), 4);
    assert!(grown < 16 << 20, "{grown} bytes for 256 MB of weights");
}
