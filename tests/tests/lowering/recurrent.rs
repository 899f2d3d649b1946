//! Recurrent operators whose rows come first, of which ONNX Runtime has no kernel, against those whose steps do.

use graft_graph::{Attr, Graph, Tensor, lower};
use graft_tests::{Draw, runtime};

use crate::{floats, graph, plain, run};

/// A recurrent layer over 4 steps of 3 rows, and what it is fed: steps first, or rows first.
fn recurrent(op: &str, rows_first: bool, d: &mut Draw<'_>) -> (Graph, Vec<(String, Tensor)>) {
    let (gates, states) = if op == "LSTM" { (4, 2) } else { (3, 1) };
    let mut inputs =
        vec![floats(d, &[4, 3, 2]), floats(d, &[2, gates * 2, 2]), floats(d, &[2, gates * 2, 2])];
    inputs.extend([floats(d, &[2, 4 * gates]), Some(Tensor::vector(&[4i32, 1, 3]))]);
    inputs.extend((0..states).map(|_| floats(d, &[2, 3, 2])));
    let mut u = plain(inputs);
    u.outputs = (0..=states).collect();
    u.attrs =
        [("direction".into(), Attr::from("bidirectional")), ("hidden_size".into(), Attr::Int(2))].into();
    if rows_first {
        for k in [0, 5, 6] {
            if let Some(Some(t)) = u.inputs.get_mut(k) {
                *t = turned(t);
            }
        }
        u.attrs.insert("layout".into(), Attr::Int(1));
    }
    graph("", op, &u, true)
}

/// The first two axes change places.
fn turned(t: &Tensor) -> Tensor {
    let [a, b, c] = t.shape() else { panic!("three axes") };
    let values = t.to_f64s().unwrap();
    let from = |i: usize| (i / c % a * b + i / c / a) * c + i % c;
    let values: Vec<f32> = (0..values.len()).map(|i| values[from(i)] as f32).collect();
    Tensor::new(vec![*b, *a, *c], &values).unwrap()
}

#[test]
fn recurrent_layers_whose_rows_come_first_give_what_those_give_whose_steps_do() {
    if runtime().is_none() {
        return;
    }
    for op in ["LSTM", "GRU"] {
        let (first, fed) = recurrent(op, false, &mut Draw::new(&[5]));
        let (mut second, other) = recurrent(op, true, &mut Draw::new(&[5]));
        let shapes = |g: &Graph| g.outputs.iter().map(|o| g.shape(*o).cloned()).collect::<Vec<_>>();
        let told = shapes(&second);
        assert_eq!(lower::lower(&mut second), vec![(op, 1)]);
        assert_eq!(told, shapes(&second), "{op}");
        let (want, got) = (run(&first, &fed).unwrap(), run(&second, &other).unwrap());
        // Of the states, which have three axes, as the inputs are turned.
        for (want, got) in want.iter().zip(&got).skip(1) {
            assert_eq!(turned(&want.1), got.1, "{op} {}", want.0);
        }
        let (want, got) = (want[0].1.to_f64s().unwrap(), &got[0].1);
        assert_eq!(got.shape(), [3, 4, 2, 2]);
        for (i, v) in got.to_f64s().unwrap().iter().enumerate() {
            let (row, step, way, h) = (i / 16, i / 4 % 4, i / 2 % 2, i % 2);
            assert_eq!(*v, want[((step * 2 + way) * 3 + row) * 2 + h], "{op} {i}");
        }
    }
}
