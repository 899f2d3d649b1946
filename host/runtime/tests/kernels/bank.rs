//! The products with rows of a bank: promises of their kernels, against decompositions where those say what is right.

use graft_graph::fused::{
    self, BANK_DOWN, BANK_LOW_RANK, BANK_LOW_RANK_BIAS, BANK_LOW_RANK_RESIDUAL, BANK_UP,
};
use graft_graph::{Builder, DType, Dim, Graph, onnx};
use graft_runtime::SessionSource;

use super::*;

mod bias;
mod heads;
mod residual;

fn start(op: (&str, Inputs), kernels: bool, threads: usize) -> Option<Session> {
    load(&bank_model(op, |b, node, first| vec![node(b, first)]), kernels, threads)
}

fn load(source: &SessionSource, kernels: bool, threads: usize) -> Option<Session> {
    let optimization = if kernels { Optimization::All } else { Optimization::Off };
    let options =
        SessionOptions { kernels, threads: Some(threads), optimization, ..SessionOptions::default() };
    Some(Session::new(runtime()?, source, &options).expect("the model loads"))
}

/// A batch of adapters: what an operator of the bank reads, as it would be named.
#[derive(Clone)]
struct Batch {
    seq: usize,
    width: [usize; 2],
    /// For each row of the batch the rows of either bank.
    rows: Vec<Vec<[i64; 2]>>,
    /// Padding behind the largest rank.
    padding: usize,
    scale: Vec<f32>,
    x: Vec<Vec<f32>>,
    y: Vec<Vec<f32>>,
    banks: [Vec<f32>; 2],
    bias: Vec<f32>,
    residual: Vec<Vec<f32>>,
}

/// Numbers below `below`, from a seed.
fn dice(seed: u64) -> impl FnMut(usize) -> usize {
    let mut from = numbers(seed, 100_000).into_iter().cycle();
    move |below| (((from.next().expect("a cycle") + 1.0) / 2.0) * below as f32) as usize % below
}

/// Batches, positions and widths: edges, and some more.
fn batches(roll: &mut impl FnMut(usize) -> usize) -> Vec<(usize, usize, [usize; 2])> {
    let edges = [(2, 130, [8, 24]), (3, 1, [384, 384]), (1, 0, [4, 4]), (2, 5, [0, 9]), (2, 3, [5, 0])];
    let more = (0..24).map(|_| (1 + roll(5), 1 + roll(70), [1 + roll(90), 1 + roll(150)]));
    edges.into_iter().chain(more).collect()
}

impl Batch {
    /// Rows of the batch with the ranks given, their rows anywhere in banks of 90 rows.
    fn new(seed: u64, ranks: &[usize], seq: usize, [k, n]: [usize; 2]) -> Batch {
        let mut roll = dice(seed);
        let rows =
            ranks.iter().map(|r| (0..*r).map(|_| [0; 2].map(|_| 1 + roll(89) as i64)).collect()).collect();
        let each = |seed: u64, width: usize| {
            (0..ranks.len()).map(|b| numbers(seed + 31 * b as u64, seq * width)).collect::<Vec<_>>()
        };
        let bank = |seed, width: usize| {
            let mut bank = numbers(seed, 90 * width);
            bank[..width].fill(0.0);
            bank
        };
        Batch {
            seq,
            width: [k, n],
            rows,
            padding: 0,
            scale: numbers(seed + 7, ranks.len()),
            x: each(seed + 1000, k),
            y: each(seed + 2000, n),
            banks: [bank(seed + 3000, k), bank(seed + 4000, n)],
            bias: numbers(seed + 5000, n),
            residual: each(seed + 6000, n),
        }
    }

    fn rank(&self) -> usize {
        self.rows.iter().map(Vec::len).max().unwrap_or(0).max(1) + self.padding
    }

    /// The inputs of `op`; `BANK_UP` takes the first numbers of `x` for those of low rank.
    fn inputs(&self, op: &str) -> Vec<(&'static str, Tensor)> {
        let (batch, rank, [k, n]) = (self.rows.len(), self.rank(), self.width);
        let rows = |which: usize| {
            let padded = |r: &Vec<[i64; 2]>| {
                let own = r.iter().map(|r| r[which]).collect::<Vec<i64>>();
                own.into_iter().chain(std::iter::repeat(0)).take(rank).collect::<Vec<_>>()
            };
            Tensor::new([batch, rank], &self.rows.iter().flat_map(padded).collect::<Vec<i64>>())
                .expect("as many numbers as the shape asks for")
        };
        let bank = |k: usize| {
            Tensor::new([90, self.width[k]], &self.banks[k]).expect("as many numbers as the shape asks for")
        };
        let full = |of: &[Vec<f32>], width| {
            Tensor::new([batch, self.seq, width], &of.concat())
                .expect("as many numbers as the shape asks for")
        };
        let (x, y) = (full(&self.x, k), full(&self.y, n));
        match op {
            BANK_DOWN => vec![("x", x), ("bank", bank(0)), ("rows", rows(0))],
            BANK_UP => {
                let low =
                    self.y.iter().flat_map(|y| (0..self.seq * rank).map(|i| y[i / rank * n + i % rank % n]));
                let low = Tensor::new([batch, self.seq, rank], &low.collect::<Vec<f32>>())
                    .expect("as many numbers as the shape asks for");
                vec![("x", low), ("bank", bank(1)), ("rows", rows(1))]
            }
            _ => {
                let bias = (op != BANK_LOW_RANK).then(|| ("bias", Tensor::vector(&self.bias)));
                let residual = (op == BANK_LOW_RANK_RESIDUAL).then(|| ("residual", full(&self.residual, n)));
                let inputs = [
                    ("y", y),
                    ("x", x),
                    ("a", bank(0)),
                    ("rows_a", rows(0)),
                    ("b", bank(1)),
                    ("rows_b", rows(1)),
                    ("scale", Tensor::vector(&self.scale)),
                ];
                inputs.into_iter().chain(bias).chain(residual).collect()
            }
        }
    }

    fn run(&self, s: &mut Session, op: &str) -> Vec<f32> {
        let owned = self.inputs(op);
        let inputs: Vec<(&str, &Tensor)> = owned.iter().map(|(n, t)| (*n, t)).collect();
        run(s, &inputs).remove(0)
    }

    /// The same with the bias added to `y`.
    fn with_bias_in_y(&self) -> Batch {
        let n = self.width[1];
        let mut batch = self.clone();
        for y in &mut batch.y {
            y.iter_mut().enumerate().for_each(|(i, v)| *v += self.bias[i % n]);
        }
        batch
    }

    /// The batch of one of its rows.
    fn alone(&self, row: usize) -> Batch {
        Batch {
            rows: vec![self.rows[row].clone()],
            scale: vec![self.scale[row]],
            x: vec![self.x[row].clone()],
            y: vec![self.y[row].clone()],
            residual: vec![self.residual[row].clone()],
            ..self.clone()
        }
    }
}

fn bits(v: &[f32]) -> Vec<u32> {
    v.iter().map(|f| f.to_bits()).collect()
}

#[test]
fn products_with_a_bank_equal_their_decompositions() {
    let mut roll = dice(5);
    let edges = [
        (1, 1, [1, 1]),
        (2, 130, [8, 24]),
        (3, 1, [384, 384]),
        (2, 3, [7, 31]),
        (1, 0, [4, 4]),
        (2, 5, [0, 9]),
    ];
    let mut shapes = edges.map(|(batch, seq, width)| (batch, seq, width, 9)).to_vec();
    for most in [1, 4, 9, 70].repeat(8) {
        shapes.push((1 + roll(5), 1 + roll(130), [1 + roll(200), 1 + roll(200)], most));
    }
    for op in [DOWN, UP, LOW_RANK, LOW_RANK_BIAS, LOW_RANK_RESIDUAL] {
        let Some(mut kernel) = start(op, true, 2) else { return };
        let mut body = start(op, false, 2).expect("a runtime");
        for (seed, (batch, seq, width, most)) in shapes.iter().enumerate() {
            let ranks: Vec<usize> = (0..*batch).map(|_| roll(most + 1)).collect();
            let batch = Batch::new(seed as u64, &ranks, *seq, *width);
            let (got, want) = (batch.run(&mut kernel, op.0), batch.run(&mut body, op.0));
            let d = distance(&got, &want);
            assert!(d < 1e-5, "{}: ranks {ranks:?}, {seq} positions, widths {width:?}: error {d}", op.0);
        }
    }
}

#[test]
fn a_row_of_a_batch_has_the_bits_that_it_has_alone_however_padded_on_any_number_of_threads() {
    for (op, seq, width) in [
        (DOWN, 70, [61, 40]),
        (UP, 37, [24, 45]),
        (LOW_RANK, 70, [61, 45]),
        (LOW_RANK_BIAS, 70, [61, 45]),
        (LOW_RANK_RESIDUAL, 70, [61, 45]),
    ] {
        let [Some(mut one), Some(mut two)] = [1, 2].map(|t| start(op, true, t)) else { return };
        let mut batch = Batch::new(11, &[8, 0, 3, 70, 8, 1, 17], seq, width);
        // The fifth row asks what the first does.
        batch.rows[4] = batch.rows[0].clone();
        (batch.x[4], batch.y[4], batch.scale[4]) = (batch.x[0].clone(), batch.y[0].clone(), batch.scale[0]);
        batch.residual[4] = batch.residual[0].clone();
        let all = batch.run(&mut two, op.0);
        assert!(bits(&all) == bits(&batch.run(&mut one, op.0)), "{}: one thread and two differ", op.0);
        let per_row = all.len() / 7;
        assert!(
            bits(&all[..per_row]) == bits(&all[4 * per_row..5 * per_row]),
            "{}: two rows alike differ",
            op.0
        );
        for row in 0..7 {
            for padding in [0, 1, 13] {
                let alone = Batch { padding, ..batch.alone(row) };
                let got = alone.run(&mut two, op.0);
                let there = &all[row * per_row..][..per_row];
                // Of what is of low rank, the part that is no padding.
                let (own, ranks) = (batch.rows[row].len(), [alone.rank(), batch.rank()]);
                let cut = |v: &[f32], rank: usize| {
                    v.chunks(rank).flat_map(|v| bits(&v[..own])).collect::<Vec<u32>>()
                };
                let (here, there) = match op.0 {
                    BANK_DOWN => (cut(&got, ranks[0]), cut(there, ranks[1])),
                    _ => (bits(&got), bits(there)),
                };
                assert!(here == there, "{}: row {row} alone, padding {padding}", op.0);
            }
        }
    }
}

#[test]
fn what_is_no_number_elsewhere_changes_nothing() {
    for op in [DOWN, UP, LOW_RANK, LOW_RANK_BIAS, LOW_RANK_RESIDUAL] {
        let Some(mut s) = start(op, true, 2) else { return };
        let clean = Batch::new(3, &[8, 0, 5], 9, [40, 56]);
        let mut poisoned = clean.clone();
        let used =
            |which: usize| clean.rows[..2].iter().flatten().map(|r| r[which] as usize).collect::<Vec<_>>();
        for which in 0..2 {
            let (used, width) = (used(which), clean.width[which]);
            for (row, values) in poisoned.banks[which].chunks_mut(width).enumerate() {
                if !used.contains(&row) {
                    values.fill(if row % 2 == 0 { f32::NAN } else { f32::INFINITY });
                }
            }
        }
        poisoned.x[2].fill(f32::NAN);
        poisoned.y[2].fill(f32::NEG_INFINITY);
        poisoned.scale[2] = f32::NAN;
        let (want, got) = (clean.run(&mut s, op.0), poisoned.run(&mut s, op.0));
        let kept = want.len() / 3 * 2;
        assert!(bits(&want[..kept]) == bits(&got[..kept]), "{}", op.0);
        assert!(got[kept..].iter().any(|v| !v.is_finite()), "{}", op.0);
    }
}

#[test]
fn a_row_without_adapter_keeps_the_bits_of_y() {
    let Some(mut s) = start(LOW_RANK, true, 2) else { return };
    let mut batch = Batch::new(8, &[0, 4], 6, [16, 24]);
    batch.y[0][..3].copy_from_slice(&[-0.0, f32::from_bits(0x7fc0_1234), f32::INFINITY]);
    batch.x[0].fill(f32::NAN);
    batch.scale[0] = f32::NAN;
    let got = batch.run(&mut s, BANK_LOW_RANK);
    assert_eq!(bits(&got[..6 * 24]), bits(&batch.y[0]));
    // Half a pair adds nothing either.
    batch.rows[1].iter_mut().enumerate().for_each(|(j, pair)| pair[j % 2] = 0);
    let got = batch.run(&mut s, BANK_LOW_RANK);
    assert_eq!(bits(&got[6 * 24..]), bits(&batch.y[1]));
}

#[test]
fn the_output_may_take_the_place_of_y_and_of_nothing_that_is_read_again() {
    for op in [LOW_RANK, LOW_RANK_BIAS, LOW_RANK_RESIDUAL] {
        let batch = Batch::new(21, &[3, 0, 8], 17, [24, 24]);
        let Some(mut plain) = start(op, true, 2) else { return };
        let mut negative = batch.clone();
        negative.y.iter_mut().flatten().for_each(|v| *v = -*v);
        let want = negative.run(&mut plain, op.0);
        // y made by another node and read once; and read again afterwards.
        let once = bank_model(op, |b, node, y| {
            let y = b.op("Neg", &[y]);
            let out = node(b, y);
            vec![b.op("Neg", &[out])]
        });
        let again = bank_model(op, |b, node, y| {
            let y = b.op("Neg", &[y]);
            let out = node(b, y);
            vec![b.op("Sub", &[y, out])]
        });
        let [once, again] = [once, again].map(|source| {
            let mut s = load(&source, true, 2).expect("a runtime");
            let first = batch.run(&mut s, op.0);
            assert_eq!(bits(&first), bits(&batch.run(&mut s, op.0)));
            first
        });
        let negative = negative.y.concat();
        assert_eq!(bits(&once), bits(&want.iter().map(|v| -v).collect::<Vec<f32>>()));
        let less: Vec<f32> = negative.iter().zip(&want).map(|(y, out)| y - out).collect();
        assert_eq!(bits(&again), bits(&less));
    }
}

#[test]
fn a_change_of_the_same_value_is_not_made_over_what_is_read() {
    // y is x as well.
    let Some(runtime) = runtime() else { return };
    let mut g = Graph::new("g", onnx::WORKING_OPSET);
    let of = |d: &[&str]| d.iter().map(|d| Dim::from(*d)).collect::<Vec<Dim>>();
    let x = g.add_input("x", DType::F32, of(&["batch", "seq", "in"]));
    let bank = g.add_input("a", DType::F32, of(&["any", "in"]));
    let rows = g.add_input("rows_a", DType::I64, of(&["batch", "rank"]));
    let scale = g.add_input("scale", DType::F32, of(&["batch"]));
    let mut b = Builder::new(&mut g, "");
    let y = b.op("Neg", &[x]);
    let out = fused::emit(&mut b, BANK_LOW_RANK, &[y, y, bank, rows, bank, rows, scale], &[]);
    let out = b.op("Neg", &[out]);
    g.outputs = vec![out];
    let source = SessionSource::plain(onnx::to_bytes(&g));
    let batch = Batch::new(4, &[5, 8], 10, [32, 32]);
    let inputs = batch.inputs(BANK_LOW_RANK);
    let inputs: Vec<(&str, &Tensor)> = inputs
        .iter()
        .filter(|(n, _)| ["x", "a", "rows_a", "scale"].contains(n))
        .map(|(n, t)| (*n, t))
        .collect();
    let outs = [true, false].map(|kernels| {
        let options = SessionOptions { kernels, ..SessionOptions::default() };
        run(&mut Session::new(runtime, &source, &options).unwrap(), &inputs).remove(0)
    });
    assert!(distance(&outs[0], &outs[1]) < 1e-5);
}

#[test]
fn what_does_not_fit_is_an_error_that_names_the_operator() {
    let zeros = |shape: &[usize]| Tensor::new(shape, &vec![0f32; shape.iter().product()]).unwrap();
    let rows = |shape: [usize; 2], v: &[i64]| Tensor::new(shape, v).unwrap();
    let expect = |op: (&'static str, Inputs), inputs: &[Tensor], words: &str| {
        // No dimension is declared, so that nothing is refused before the kernel sees it.
        let any: Vec<Vec<String>> = inputs
            .iter()
            .enumerate()
            .map(|(i, t)| (0..t.shape().len()).map(|d| format!("d{i}_{d}")).collect())
            .collect();
        let names: Vec<&str> = op.1.iter().map(|(n, _)| *n).collect();
        let mut m =
            model(&[], &[("out", &["p", "q", "r"])], vec![node(op.0, &names, &["out"]).domain("graft")]);
        let declared = names.iter().zip(&any).map(|(n, d)| {
            let dims: Vec<&str> = d.iter().map(String::as_str).collect();
            typed(n, &dims, if n.starts_with("rows") { 7 } else { 1 })
        });
        m.graph.as_mut().unwrap().input = declared.collect();
        let Some(mut s) = load(&m.source(), true, 2) else { return };
        let given: Vec<(&str, &Tensor)> = names.into_iter().zip(inputs).collect();
        let text = s.run(&given, &["out"]).expect_err(words).to_string();
        assert!(text.contains(&format!("graft.{}: ", op.0)) && text.contains(words), "{text}");
    };
    for (bad, words) in
        [(3, "has 3, but bank has 3 rows"), (-1, "has -1, but"), (i64::MIN, "has -9223372036854775808")]
    {
        for op in [DOWN, UP] {
            expect(op, &[zeros(&[2, 3, 2]), zeros(&[3, 2]), rows([2, 2], &[1, 0, 2, bad])], words);
        }
    }
    let ok = || rows([2, 2], &[1, 0, 2, 0]);
    expect(DOWN, &[zeros(&[2, 3, 4]), zeros(&[3, 5]), ok()], "x is [2, 3, 4], bank is [3, 5]");
    expect(UP, &[zeros(&[2, 3, 4]), zeros(&[3, 5]), ok()], "x is [2, 3, 4], rows is [2, 2]");
    expect(DOWN, &[zeros(&[3, 3, 4]), zeros(&[3, 4]), ok()], "rows is [2, 2], not [3, rank]");
    expect(DOWN, &[zeros(&[2, 4]), zeros(&[3, 4]), ok()], "x is [2, 4], not [batch, positions, width]");
    expect(UP, &[zeros(&[2, 3, 2]), zeros(&[12]), ok()], "bank is [12], not [rows, width]");

    let good =
        || [zeros(&[2, 3, 4]), zeros(&[2, 3, 5]), zeros(&[3, 5]), ok(), zeros(&[3, 4]), ok(), zeros(&[2])];
    let with = |at: usize, other: Tensor, words: &str| {
        let mut inputs = good();
        inputs[at] = other;
        expect(LOW_RANK, &inputs, words);
    };
    with(3, rows([2, 2], &[1, 3, 0, 0]), "rows_a has 3, but a has 3 rows");
    with(5, rows([2, 2], &[1, 0, -2, 0]), "rows_b has -2, but b has 3 rows");
    with(0, zeros(&[2, 3]), "y is [2, 3], x is [2, 3, 5]; they must be [batch, positions, width]");
    with(0, zeros(&[2, 2, 4]), "the first two must be alike");
    with(1, zeros(&[2, 3, 6]), "x is [2, 3, 6], a is [3, 5]");
    with(4, zeros(&[3, 3]), "b is [3, 3]");
    with(5, rows([2, 1], &[1, 0]), "rows_b is [2, 1]; they do not fit each other");
    with(3, rows([1, 2], &[1, 0]), "rows_a is [1, 2], not [2, rank]");
    with(6, zeros(&[3]), "scale has 3 elements, but the batch has 2 rows");

    let with = |at: usize, other: Tensor, words: &str| {
        let mut inputs = good().into_iter().chain([zeros(&[4])]).collect::<Vec<_>>();
        inputs[at] = other;
        expect(LOW_RANK_BIAS, &inputs, words);
    };
    with(3, rows([2, 2], &[1, 3, 0, 0]), "rows_a has 3, but a has 3 rows");
    with(4, zeros(&[3, 3]), "b is [3, 3]");
    with(6, zeros(&[3]), "scale has 3 elements, but the batch has 2 rows");
    with(7, zeros(&[3]), "y is [2, 3, 4], bias is [3], not [4]");
    with(7, zeros(&[1, 4]), "bias is [1, 4], not [4]");
    with(7, zeros(&[]), "bias is [], not [4]");
}
