//! Quantised operators: straight-through gradients are none that differences could find, so they are compared with
//! what is written down, and with the products of dequantised matrices.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use graft_graph::grad::{grad, gradient_model};
use graft_graph::{Attr, Attrs, Builder, DType, Dim, Fact, Graph, Node, Tensor, ValueId, lower, onnx};
use graft_runtime::{Session, SessionOptions, SessionSource};
use graft_tests::{Draw, runtime};

/// Rules that differences can't check; the tests of this file do.
pub const STRAIGHT_THROUGH: [&str; 4] =
    ["QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "com.microsoft::MatMulNBits"];

fn run(g: &Graph, fed: &[(&str, &Tensor)]) -> Vec<Tensor> {
    let runtime = runtime().expect("looked for before");
    let options = SessionOptions { threads: Some(1), ..SessionOptions::default() };
    let mut session = Session::new(runtime, &SessionSource::plain(onnx::to_bytes(g)), &options).unwrap();
    let names: Vec<&str> = g.outputs.iter().map(|o| g.name_of(*o)).collect();
    let out = session.run(fed, &names).unwrap();
    names.iter().map(|n| out.tensor(n).unwrap()).collect()
}

fn numbers(t: &Tensor) -> Vec<f64> {
    t.to_f64s().unwrap()
}

/// The gradient of `Σ ct·y` with respect to `x`, where the graph has these two alone.
fn gradient(g: &Graph, x: &Tensor, ct: &Tensor) -> Vec<f64> {
    let model = gradient_model(g, Some(&["x".to_string()])).unwrap();
    let mut all = run(&model.graph, &[("x", x), ("ct:y", ct)]);
    let dx = all.pop().unwrap();
    assert_eq!((dx.dtype(), dx.shape()), (DType::F32, x.shape()));
    numbers(&dx)
}

fn close(got: &[f64], want: &[f64], what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (a, b)) in got.iter().zip(want).enumerate() {
        assert!((a - b).abs() <= 2e-5 * b.abs().max(1.0), "{what}: [{i}] is {a}, not {b}");
    }
}

fn input(shape: &[&str]) -> (Graph, ValueId) {
    let mut g = Graph::new("g", onnx::WORKING_OPSET);
    let dims = shape.iter().map(|d| d.parse::<i64>().map_or(Dim::from(*d), Dim::from)).collect();
    let x = g.add_input("x", DType::F32, dims);
    (g, x)
}

fn ends(g: &mut Graph, y: ValueId) {
    g.rename(y, "y");
    g.outputs = vec![y];
}

fn zero_point(dtype: DType, values: &[i64]) -> Tensor {
    match dtype {
        DType::I8 => Tensor::vector(&values.iter().map(|v| *v as i8).collect::<Vec<_>>()),
        _ => Tensor::vector(&values.iter().map(|v| *v as u8).collect::<Vec<_>>()),
    }
}

#[test]
fn a_quantiser_passes_gradients_where_its_numbers_reach_as_pytorch_has_it() {
    if runtime().is_none() {
        return;
    }
    // One number for all, and one for each column.
    for (dtype, scales, zeros) in [
        (DType::U8, vec![0.5f32], vec![128]),
        (DType::I8, vec![0.5], vec![0]),
        (DType::I8, vec![0.5, 0.25, 2.0], vec![0, -3, 100]),
    ] {
        let (mut g, x) = input(&["n", "3"]);
        let mut b = Builder::new(&mut g, "");
        let columns = scales.len() > 1;
        let (scale, zero) = (Tensor::vector(&scales), zero_point(dtype, &zeros));
        let (scale, zero) = match columns {
            true => (scale, zero),
            false => (scale.reshape([]).unwrap(), zero.reshape([]).unwrap()),
        };
        let (s, z) = (b.constant(scale), b.constant(zero));
        let q = b.op("QuantizeLinear", &[x, s, z]);
        // A quantised value may be moved before it is read.
        let to = b.ints(&[-1, 1, 3]);
        let moved = b.op("Reshape", &[q, to]);
        let y = b.op_with(
            "DequantizeLinear",
            &[moved, s, z],
            &[("axis", Attr::Int(if columns { 2 } else { 1 }))],
        );
        ends(&mut g, y);
        let (low, high) = if dtype == DType::I8 { (-128.0, 127.0) } else { (0.0, 255.0) };
        let mut values = Vec::new();
        for c in 0..3 {
            let (s, z) = (f64::from(scales[c % scales.len()]), zeros[c % zeros.len()] as f64);
            // The ends are reached from up to half a step outside; ties go to the even number.
            let steps = [low - z, low - z - 0.4, low - z - 0.6, 0.0, high - z + 0.4, high - z + 0.6, 9e4];
            values.push(steps.map(|k| (k * s) as f32));
        }
        let rows: Vec<f32> = (0..7).flat_map(|k| values.iter().map(move |v| v[k])).collect();
        let (x, ct) = (Tensor::new([7, 3], &rows).unwrap(), Tensor::new([7, 1, 3], &[2f32; 21]).unwrap());
        let want: Vec<f64> = [2.0, 2.0, 0.0, 2.0, 2.0, 0.0, 0.0].into_iter().flat_map(|v| [v; 3]).collect();
        close(&gradient(&g, &x, &ct), &want, &format!("{dtype} {scales:?}"));
    }
}

/// A stored matrix `[k, n]`, its scales and zero points, and what it stands for.
fn stored(d: &mut Draw<'_>, k: usize, n: usize) -> ([Tensor; 3], Vec<f64>) {
    let (columns, signed) = (d.flag(), d.flag());
    let count = if columns { n } else { 1 };
    let raw: Vec<i64> = (0..k * n).map(|_| d.below(256) as i64 - if signed { 128 } else { 0 }).collect();
    let scales: Vec<f32> = (0..count).map(|_| d.real(0.01, 0.1) as f32).collect();
    let zeros: Vec<i64> = (0..count).map(|_| d.below(20) as i64).collect();
    let dtype = if signed { DType::I8 } else { DType::U8 };
    let real = (0..k * n).map(|i| {
        let c = if columns { i % n } else { 0 };
        (raw[i] - zeros[c]) as f64 * f64::from(scales[c])
    });
    let real = real.collect();
    let shape = if columns { vec![n] } else { vec![] };
    let parts = [
        zero_point(dtype, &raw).reshape([k, n]).unwrap(),
        Tensor::vector(&scales).reshape(shape.clone()).unwrap(),
        zero_point(dtype, &zeros).reshape(shape).unwrap(),
    ];
    (parts, real)
}

/// `ct · Wᵀ` for `W` `[k, n]`.
fn times_transposed(ct: &[f64], w: &[f64], k: usize, n: usize) -> Vec<f64> {
    ct.chunks(n)
        .flat_map(|row| {
            (0..k)
                .map(|i| row.iter().zip(&w[i * n..(i + 1) * n]).map(|(a, b)| a * b).sum())
                .collect::<Vec<f64>>()
        })
        .collect()
}

fn choices(seed: u16) -> Vec<u16> {
    let next = |x: &mut u32| {
        *x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        Some((*x >> 16) as u16)
    };
    let mut state = u32::from(seed) * 7919 + 1;
    std::iter::from_fn(|| next(&mut state)).take(600).collect()
}

fn reals(d: &mut Draw<'_>, shape: &[usize]) -> Tensor {
    let a = d.reals(shape, (-1.0, 1.0), &[]);
    Tensor::new(shape, &a.values.iter().map(|v| *v as f32).collect::<Vec<_>>()).unwrap()
}

#[test]
fn a_product_with_a_quantised_weight_has_the_gradient_of_the_dequantised_one() {
    if runtime().is_none() {
        return;
    }
    for seed in 0..8 {
        let list = choices(seed);
        let mut d = Draw::new(&list);
        let (k, n, gemm) = (d.size(1..=5), d.size(1..=4), d.flag());
        let ([w, s, z], real) = stored(&mut d, k, n);
        let (mut g, x) = input(&["n", &k.to_string()]);
        let mut b = Builder::new(&mut g, "");
        let (w, s, z) = (b.constant(w), b.constant(s), b.constant(z));
        let weight = b.op("DequantizeLinear", &[w, s, z]);
        let y = if gemm { b.op("Gemm", &[x, weight]) } else { b.op("MatMul", &[x, weight]) };
        ends(&mut g, y);
        let (x, ct) = (reals(&mut d, &[3, k]), reals(&mut d, &[3, n]));
        let want = times_transposed(&numbers(&ct), &real, k, n);
        close(&gradient(&g, &x, &ct), &want, &format!("seed {seed}"));
        // Unasked, the parts of a quantised weight are no parameters.
        assert!(gradient_model(&g, None).unwrap().wrt.is_empty());
    }
}

/// What `quantize_dynamic` writes for a product.
fn dynamic(d: &mut Draw<'_>, k: usize, n: usize) -> (Graph, Vec<f64>) {
    let ([w, s, z], real) = stored(d, k, n);
    let (mut g, x) = input(&["b", "s", &k.to_string()]);
    let mut b = Builder::new(&mut g, "/layer/query/");
    let (w, s, z) = (b.constant(w), b.constant(s), b.constant(z));
    let parts = b.emit("DynamicQuantizeLinear", "", &[Some(x)], Attrs::new(), 3);
    let scale = if d.flag() { b.op("Mul", &[parts[1], s]) } else { b.op("Mul", &[s, parts[1]]) };
    let product = b.op("MatMulInteger", &[parts[0], w, parts[2], z]);
    let float = b.cast(product, DType::F32);
    let y = if d.flag() { b.op("Mul", &[float, scale]) } else { b.op("Mul", &[scale, float]) };
    ends(&mut g, y);
    (g, real)
}

#[test]
fn a_dynamically_quantised_product_keeps_its_output_and_gets_a_gradient() {
    if runtime().is_none() {
        return;
    }
    for seed in 0..8 {
        let list = choices(seed);
        let mut d = Draw::new(&list);
        let (k, n) = (d.size(1..=5), d.size(1..=4));
        let (g, real) = dynamic(&mut d, k, n);
        let (x, ct) = (reals(&mut d, &[2, 3, k]), reals(&mut d, &[2, 3, n]));
        let want = times_transposed(&numbers(&ct), &real, k, n);
        close(&gradient(&g, &x, &ct), &want, &format!("seed {seed}"));
        let mut plain = g.clone();
        assert_eq!(lower::lower(&mut plain), vec![("MatMulInteger", 1)]);
        let (got, want) = (run(&plain, &[("x", &x)]), run(&g, &[("x", &x)]));
        close(&numbers(&got[0]), &numbers(&want[0]), "the output");
        // It is a site with the weight's sizes.
        let sites = graft_graph::sites::sites(&plain);
        let site = &sites[0];
        assert_eq!((site.path.as_str(), site.in_features, site.out_features), ("layer.query", k, n));
    }
}

#[test]
fn a_dynamically_quantised_convolution_keeps_its_output_and_has_the_gradient_of_the_dequantised_one() {
    if runtime().is_none() {
        return;
    }
    for (seed, (channels, group, stride, pad)) in
        [(2, 1, 1, 0), (4, 2, 2, 1), (3, 3, 1, 2)].into_iter().enumerate()
    {
        let list = choices(seed as u16 + 70);
        let mut d = Draw::new(&list);
        let raw: Vec<i64> = (0..6 * channels / group * 9).map(|_| d.below(256) as i64 - 128).collect();
        let weight = zero_point(DType::I8, &raw).reshape([6, channels / group, 3, 3]).unwrap();
        let (scale, zero) = (0.03f32, 5i8);
        let attrs: Attrs = [
            ("group".to_string(), Attr::Int(group as i64)),
            ("strides".to_string(), Attr::Ints(vec![stride; 2])),
            ("pads".to_string(), Attr::Ints(vec![pad; 4])),
        ]
        .into();
        let wide = channels.to_string();
        let (mut g, x) = input(&["n", &wide, "7", "8"]);
        let mut b = Builder::new(&mut g, "/stem/");
        let (w, s, z) = (b.constant(weight.clone()), b.scalar(scale), b.scalar(zero));
        let parts = b.emit("DynamicQuantizeLinear", "", &[Some(x)], Attrs::new(), 3);
        let scales = b.op("Mul", &[parts[1], s]);
        let inputs = [parts[0], w, parts[2], z].map(Some);
        let product = b.emit("ConvInteger", "", &inputs, attrs.clone(), 1)[0];
        let float = b.cast(product, DType::F32);
        let y = b.op("Mul", &[float, scales]);
        ends(&mut g, y);
        // The convolution with what the stored numbers stand for.
        let real: Vec<f32> = raw.iter().map(|q| (q - i64::from(zero)) as f32 * scale).collect();
        let (mut smooth, x) = input(&["n", &wide, "7", "8"]);
        let mut b = Builder::new(&mut smooth, "");
        let w = b.constant(Tensor::new(weight.shape().to_vec(), &real).unwrap());
        let y = b.emit("Conv", "", &[Some(x), Some(w)], attrs, 1)[0];
        ends(&mut smooth, y);

        let x = reals(&mut d, &[2, channels, 7, 8]);
        let made = run(&g, &[("x", &x)]);
        let ct = reals(&mut d, made[0].shape());
        close(&gradient(&g, &x, &ct), &gradient(&smooth, &x, &ct), &format!("{channels} channels"));
        let mut plain = g.clone();
        assert_eq!(lower::lower(&mut plain), vec![("ConvInteger", 1)]);
        close(&numbers(&run(&plain, &[("x", &x)])[0]), &numbers(&made[0]), "the output");
    }
}

#[test]
fn a_packed_weight_gives_the_gradient_of_what_it_unpacks_to() {
    if runtime().is_none() {
        return;
    }
    for (bits, k, points) in
        [(4usize, 32usize, false), (4, 40, true), (4, 72, true), (8, 32, false), (8, 40, true)]
    {
        let list = choices(k as u16 + bits as u16);
        let mut d = Draw::new(&list);
        let (n, block) = (3usize, 16usize);
        let blocks = k.div_ceil(block);
        let bytes =
            |d: &mut Draw<'_>, count: usize| -> Vec<u8> { (0..count).map(|_| d.below(256) as u8).collect() };
        let blob = block * bits / 8;
        let (mut g, x) = input(&["n", "m", &k.to_string()]);
        let packed = Tensor::new([n, blocks, blob], &bytes(&mut d, n * blocks * blob)).unwrap();
        let scales = reals(&mut d, &[n, blocks]);
        let zeros =
            Tensor::new([n, (blocks * bits).div_ceil(8)], &bytes(&mut d, n * (blocks * bits).div_ceil(8)));
        let mut parts = vec![Some(x), Some(g.add_constant("w", packed)), Some(g.add_constant("s", scales))];
        if points {
            parts.push(Some(g.add_constant("z", zeros.unwrap())));
        }
        let y = g.add_value("y", Fact::default());
        let attrs = [("N", n), ("K", k), ("bits", bits), ("block_size", block)];
        g.nodes.push(Node {
            op: "MatMulNBits".into(),
            domain: "com.microsoft".into(),
            name: "/layer/query/MatMul_Q4".into(),
            inputs: parts,
            outputs: vec![Some(y)],
            attrs: attrs.map(|(k, v)| (k.to_string(), Attr::Int(v as i64))).into(),
            ..Node::default()
        });
        g.opsets.insert("com.microsoft".into(), 1);
        ends(&mut g, y);
        graft_graph::shape::infer(&mut g);
        // The product with the identity is the weight.
        let unit: Vec<f32> = (0..k * k).map(|i| f32::from(u8::from(i / k == i % k))).collect();
        let real = numbers(&run(&g, &[("x", &Tensor::new([1, k, k], &unit).unwrap())])[0]);
        let (x, ct) = (reals(&mut d, &[2, 2, k]), reals(&mut d, &[2, 2, n]));
        let want = times_transposed(&numbers(&ct), &real, k, n);
        let got = gradient(&g, &x, &ct);
        // The kernel may compute in fewer bits than f32 has.
        let size = want.iter().fold(0f64, |m, v| m.max(v.abs()));
        for (a, b) in got.iter().zip(&want) {
            assert!((a - b).abs() <= 1e-3 * size, "{bits} bits, K {k}: {a}, not {b}");
        }
        let site = &graft_graph::sites::sites(&g)[0];
        assert_eq!((site.path.as_str(), site.in_features, site.out_features), ("layer.query", k, n));
    }
}

#[test]
fn arithmetic_of_quantised_numbers_is_refused_with_a_way_out() {
    let (mut g, x) = input(&["n", "2"]);
    let mut b = Builder::new(&mut g, "/layer/");
    let (s, z, w) = (b.scalar(0.5f32), b.scalar(0i8), b.constant(Tensor::new([2, 2], &[1i8; 4]).unwrap()));
    let q = b.op("QuantizeLinear", &[x, s, z]);
    let p = b.op("QLinearMatMul", &[q, s, z, w, s, z, s, z]);
    let fact = b.graph.fact(q).clone();
    *b.graph.fact_mut(p) = fact;
    let y = b.op("DequantizeLinear", &[p, s, z]);
    let seed = g.add_input("ct", DType::F32, vec![Dim::from("n"), Dim::from(2)]);
    let e = grad(&mut g, &[(y, seed)], &[x], &[]).unwrap_err().to_string();
    assert!(e.contains("QLinearMatMul") && e.contains("QDQ"), "{e}");
}

#[test]
fn branches_and_loops_on_the_path_are_refused_with_a_way_out() {
    for (op, by_name, hint) in
        [("Loop", false, "unrolls"), ("Scan", false, "unrolls"), ("If", true, "choice fixed")]
    {
        let (mut g, x) = input(&["n"]);
        let choice = g.add_input("choice", DType::Bool, vec![]);
        let mut body = Graph::default();
        let (a, b) = (body.add_value("x", Fact::default()), body.add_value("inner", Fact::default()));
        body.nodes.push(Node {
            op: "Neg".into(),
            inputs: vec![Some(a)],
            outputs: vec![Some(b)],
            ..Node::default()
        });
        body.outputs = vec![b];
        let y = g.add_value("y", Fact { dtype: Some(DType::F32), ..Fact::default() });
        // What a body reads by name is on the path as well.
        let inputs = if by_name { vec![Some(choice)] } else { vec![None, Some(choice), Some(x)] };
        let body = Attr::Graph(Box::new(body));
        g.nodes.push(Node {
            op: op.into(),
            inputs,
            outputs: vec![Some(y)],
            attrs: [("body".to_string(), body)].into(),
            ..Node::default()
        });
        let seed = g.add_input("ct", DType::F32, vec![Dim::from("n")]);
        let e = grad(&mut g, &[(y, seed)], &[x], &[]).unwrap_err().to_string();
        assert!(e.contains(op) && e.contains(hint), "{e}");
    }
}
