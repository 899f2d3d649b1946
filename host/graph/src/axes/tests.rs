//! What is claimed, and the near misses that must not be.

use super::*;
use crate::builder::Builder;
use crate::tensor::{DType, Tensor};

/// A graph under test: ids and their mask, hidden states as an input of no role, and pixels.
struct Lab {
    graph: Graph,
    roles: Vec<(ValueId, Role)>,
    ids: ValueId,
    mask: ValueId,
    /// `[batch, seq, 6]`, looked up.
    x: ValueId,
}

impl Lab {
    fn new() -> Lab {
        let mut graph = Graph::new("g", 20);
        let dims = || vec![Dim::from("batch"), Dim::from("seq")];
        let ids = graph.add_input("input_ids", DType::I64, dims());
        let mask = graph.add_input("attention_mask", DType::I64, dims());
        let rows: Vec<f32> = (0..30).map(|i| i as f32 * 0.1).collect();
        let table = graph.add_constant("table", Tensor::new([5, 6], &rows).unwrap());
        let x = Builder::new(&mut graph, "").op("Gather", &[table, ids]);
        Lab { graph, roles: vec![(ids, Role::Ids), (mask, Role::Mask)], ids, mask, x }
    }

    fn op(&mut self, op: &str, inputs: &[ValueId]) -> ValueId {
        Builder::new(&mut self.graph, "").op(op, inputs)
    }

    fn with(&mut self, op: &str, inputs: &[ValueId], attrs: &[(&str, Attr)]) -> ValueId {
        Builder::new(&mut self.graph, "").op_with(op, inputs, attrs)
    }

    fn ints(&mut self, values: &[i64]) -> ValueId {
        Builder::new(&mut self.graph, "").ints(values)
    }

    fn number(&mut self, value: f32) -> ValueId {
        Builder::new(&mut self.graph, "").scalar(value)
    }

    fn integer(&mut self, value: i64) -> ValueId {
        Builder::new(&mut self.graph, "").scalar(value)
    }

    fn float_mask(&mut self) -> ValueId {
        self.with("Cast", &[self.mask], &[("to", Attr::Int(1))])
    }

    fn batch(&self, v: ValueId) -> Batch {
        analyse(&self.graph, &self.roles).batch(v)
    }

    fn hides_padding(&self, v: ValueId) -> bool {
        analyse(&self.graph, &self.roles).padding_invisible(v)
    }

    /// The name of a dimension: `batch` or `seq`, as a vector of one element.
    fn size(&mut self, axis: i64) -> ValueId {
        let shape = self.op("Shape", &[self.ids]);
        let axis = self.ints(&[axis]);
        self.op("Gather", &[shape, axis])
    }

    /// Attention over `x` with `low` added at padded keys: weights and what they give.
    fn attention(&mut self, low: f32) -> (ValueId, ValueId) {
        let (one, low) = (self.number(1.0), self.number(low));
        let m = self.float_mask();
        let off = self.op("Sub", &[one, m]);
        let add = self.op("Mul", &[off, low]);
        let axes = self.ints(&[1]);
        let add = self.op("Unsqueeze", &[add, axes]);
        let keys = self.with("Transpose", &[self.x], &[("perm", Attr::Ints(vec![0, 2, 1]))]);
        let scores = self.op("MatMul", &[self.x, keys]);
        let scores = self.op("Add", &[scores, add]);
        let weights = self.with("Softmax", &[scores], &[("axis", Attr::Int(-1))]);
        let y = self.op("MatMul", &[weights, self.x]);
        (weights, y)
    }
}

#[test]
fn position_wise_work_keeps_the_batch_and_the_sequence() {
    let mut l = Lab::new();
    let w = l.graph.add_constant("w", Tensor::new([6, 2], &[0.5f32; 12]).unwrap());
    let y = l.op("MatMul", &[l.x, w]);
    let y = l.op("Tanh", &[y]);
    let a = analyse(&l.graph, &l.roles);
    assert_eq!(a.batch(y), Batch::Axis(0));
    assert_eq!(a.sequences(y), [(1, l.ids)]);
    assert!(a.rows_independent(y) && a.padding_invisible(y));
    let t = l.with("Transpose", &[y], &[("perm", Attr::Ints(vec![2, 1, 0]))]);
    assert_eq!(l.batch(t), Batch::Axis(2));
}

#[test]
fn what_is_folded_can_be_unfolded() {
    let mut l = Lab::new();
    let to = l.ints(&[-1, 6]);
    let flat = l.op("Reshape", &[l.x, to]);
    assert_eq!(l.batch(flat), Batch::Merged { axis: 0, position: 0 });
    let shape = l.op("Shape", &[l.x]);
    let back = l.op("Reshape", &[flat, shape]);
    assert_eq!(l.batch(back), Batch::Axis(0));
    assert!(l.hides_padding(back));
    // Heads in front of the batch: [2, batch, seq, 3] → [2·batch, seq, 3].
    let to = l.ints(&[0, 0, 2, 3]);
    let heads = l.op("Reshape", &[l.x, to]);
    let heads = l.with("Transpose", &[heads], &[("perm", Attr::Ints(vec![2, 0, 1, 3]))]);
    let seq = l.size(1);
    let (free, three) = (l.ints(&[-1]), l.ints(&[3]));
    let to = l.with("Concat", &[free, seq, three], &[("axis", Attr::Int(0))]);
    let folded = l.op("Reshape", &[heads, to]);
    assert_eq!(l.batch(folded), Batch::Merged { axis: 0, position: 1 });
}

#[test]
fn a_reshape_that_mixes_rows_with_anything_is_not_followed() {
    let mut l = Lab::new();
    let (batch, seq, six) = (l.size(0), l.size(1), l.ints(&[6]));
    let turned = l.with("Concat", &[seq, batch, six], &[("axis", Attr::Int(0))]);
    let y = l.op("Reshape", &[l.x, turned]);
    assert_eq!(l.batch(y), Batch::Unknown);
    let features = l.with("Concat", &[six, batch, seq], &[("axis", Attr::Int(0))]);
    let y = l.op("Reshape", &[l.x, features]);
    assert_eq!(l.batch(y), Batch::Unknown);
    let to = l.ints(&[2, -1, 6]);
    let y = l.op("Reshape", &[l.x, to]);
    assert_eq!(l.batch(y), Batch::Unknown);
    assert!(!l.hides_padding(y));
}

#[test]
fn axes_of_the_same_name_are_told_apart() {
    let mut g = Graph::new("g", 20);
    let x = g.add_input("input_ids", DType::I64, vec![Dim::from("n"), Dim::from("n")]);
    let mut b = Builder::new(&mut g, "");
    let (zero, one) = (b.ints(&[0]), b.ints(&[1]));
    let t = b.op("Transpose", &[x]);
    let kept = b.op_with("ReduceSum", &[x, one], &[("keepdims", Attr::Int(0))]);
    let mixed = b.op_with("ReduceSum", &[x, zero], &[("keepdims", Attr::Int(0))]);
    let sum = b.op("Add", &[x, t]);
    let a = analyse(&g, &[(x, Role::Ids)]);
    assert_eq!((a.batch(t), a.batch(kept)), (Batch::Axis(1), Batch::Axis(0)));
    assert_eq!((a.batch(mixed), a.batch(sum)), (Batch::Unknown, Batch::Unknown));
}

#[test]
fn work_across_the_batch_is_never_independent() {
    let mut l = Lab::new();
    let zero = l.ints(&[0]);
    let scalar = l.integer(0);
    let last = l.integer(-1);
    let (scale, stat) = (
        l.graph.add_constant("s", Tensor::vector(&[1f32; 6])),
        l.graph.add_constant("v", Tensor::vector(&[1f32, 2.0, 3.0, 4.0, 5.0, 6.0])),
    );
    let turned = l.with("Transpose", &[l.x], &[("perm", Attr::Ints(vec![0, 2, 1]))]);
    let training =
        l.with("BatchNormalization", &[turned, scale, stat, stat, scale], &[("training_mode", Attr::Int(1))]);
    let inference = l.op("BatchNormalization", &[turned, scale, stat, stat, scale]);
    let crosses = [
        l.with("Softmax", &[l.x], &[("axis", Attr::Int(0))]),
        l.op("ReduceMean", &[l.x, zero]),
        l.op("ReduceSum", &[l.x, zero]),
        l.op("ReduceMax", &[l.x]),
        l.op("CumSum", &[l.x, scalar]),
        l.with("Gather", &[l.x, scalar], &[("axis", Attr::Int(0))]),
        l.with("Gather", &[l.x, last], &[("axis", Attr::Int(0))]),
        l.with("Concat", &[l.x, l.x], &[("axis", Attr::Int(0))]),
        l.with("LayerNormalization", &[l.x, scale], &[("axis", Attr::Int(0))]),
        l.with("ArgMax", &[l.x], &[("axis", Attr::Int(0))]),
        training,
    ];
    for v in crosses {
        let name = l.graph.name_of(v).to_string();
        assert_eq!(l.batch(v), Batch::Unknown, "{name}");
        let summary = analyse(&l.graph, &l.roles).summary(v);
        assert!(!summary.rows_independent && summary.mixed_by.is_some(), "{name}");
    }
    assert_eq!(l.batch(inference), Batch::Axis(0));
}

#[test]
fn the_number_and_the_order_of_rows_must_not_matter() {
    let mut l = Lab::new();
    let batch = l.size(0);
    let count = l.with("Cast", &[batch], &[("to", Attr::Int(1))]);
    let divided = l.op("Div", &[l.x, count]);
    assert_eq!(l.batch(divided), Batch::Unknown);
    let (zero, one) = (l.integer(0), l.integer(1));
    let none = l.ints(&[0]);
    let limit = l.op("Squeeze", &[batch, none]);
    let places = l.op("Range", &[zero, limit, one]);
    let behind = l.ints(&[1, 2]);
    let places = l.op("Unsqueeze", &[places, behind]);
    let places = l.with("Cast", &[places], &[("to", Attr::Int(1))]);
    let numbered = l.op("Add", &[l.x, places]);
    assert_eq!(l.batch(numbered), Batch::Unknown);
    let turned = l.with("Transpose", &[l.x], &[("perm", Attr::Ints(vec![2, 1, 0]))]);
    let pairs = l.op("MatMul", &[l.x, turned]);
    assert_eq!(l.batch(pairs), Batch::Unknown, "rows meet rows");
}

#[test]
fn only_weights_of_exactly_zero_hide_padding() {
    for (low, hidden) in [(f32::MIN, true), (f32::NEG_INFINITY, false), (-10000.0, false), (-1e29, false)] {
        let mut l = Lab::new();
        let (weights, y) = l.attention(low);
        let a = analyse(&l.graph, &l.roles);
        assert_eq!(a.batch(y), Batch::Axis(0));
        assert_eq!(a.padding_invisible(y), hidden, "{low}");
        assert_eq!(a.sequences(weights), [(1, l.ids), (2, l.ids)]);
    }
    // Infinity times zero is no number, but chosen by the mask it is proof.
    let mut l = Lab::new();
    let on = l.with("Cast", &[l.mask], &[("to", Attr::Int(9))]);
    let axes = l.ints(&[1]);
    let on = l.op("Unsqueeze", &[on, axes]);
    let low = l.number(f32::NEG_INFINITY);
    let keys = l.with("Transpose", &[l.x], &[("perm", Attr::Ints(vec![0, 2, 1]))]);
    let scores = l.op("MatMul", &[l.x, keys]);
    let scores = l.op("Where", &[on, scores, low]);
    let weights = l.with("Softmax", &[scores], &[("axis", Attr::Int(-1))]);
    let y = l.op("MatMul", &[weights, l.x]);
    assert!(l.hides_padding(y));
    // Without a mask every position is seen.
    let scores = l.op("MatMul", &[l.x, keys]);
    let weights = l.with("Softmax", &[scores], &[("axis", Attr::Int(-1))]);
    let y = l.op("MatMul", &[weights, l.x]);
    assert!(!l.hides_padding(y));
}

#[test]
fn pooling_over_the_mask_and_the_first_token_hide_padding() {
    let mut l = Lab::new();
    let (one, first, last) = (l.ints(&[1]), l.integer(0), l.integer(-1));
    let behind = l.ints(&[2]);
    let m = l.float_mask();
    let m = l.op("Unsqueeze", &[m, behind]);
    let masked = l.op("Mul", &[l.x, m]);
    let drop = [("keepdims", Attr::Int(0))];
    let sum = l.with("ReduceSum", &[masked, one], &drop);
    let count = l.with("ReduceSum", &[m, one], &drop);
    let mean = l.op("Div", &[sum, count]);
    let pooled = [mean, l.with("Gather", &[l.x, first], &[("axis", Attr::Int(1))])];
    let seen = [
        l.with("ReduceMean", &[l.x, one], &drop),
        l.with("ReduceMean", &[masked, one], &drop),
        l.with("ReduceMax", &[masked, one], &drop),
        l.with("Gather", &[l.x, last], &[("axis", Attr::Int(1))]),
    ];
    let a = analyse(&l.graph, &l.roles);
    for v in pooled {
        assert_eq!((a.batch(v), a.padding_invisible(v)), (Batch::Axis(0), true), "{}", l.graph.name_of(v));
    }
    for v in seen {
        assert_eq!((a.batch(v), a.padding_invisible(v)), (Batch::Axis(0), false), "{}", l.graph.name_of(v));
        let by = a.summary(v).padding_by.expect("a reason");
        assert!(by.op.starts_with("Reduce") || by.op == "Gather", "{by}");
    }
}

#[test]
fn a_mask_that_is_gathered_by_number_is_followed_but_not_out_of_order() {
    for (start, follows) in [(0, true), (1, false)] {
        let mut l = Lab::new();
        let to = l.ints(&[-1]);
        let flat = l.op("Reshape", &[l.mask, to]);
        let (from, step, none) = (l.integer(0), l.integer(1), l.ints(&[0]));
        let begin = l.integer(start);
        let (batch, seq) = (l.size(0), l.size(1));
        let (batch, seq) = (l.op("Squeeze", &[batch, none]), l.op("Squeeze", &[seq, none]));
        let rows = l.op("Range", &[from, batch, step]);
        let places = l.op("Range", &[from, seq, step]);
        let axes = l.ints(&[1]);
        let rows = l.op("Unsqueeze", &[rows, axes]);
        let rows = l.op("Mul", &[rows, seq]);
        let places = l.op("Add", &[places, begin]);
        let index = l.op("Add", &[rows, places]);
        let y = l.op("Gather", &[flat, index]);
        let expected = if follows { Batch::Axis(0) } else { Batch::Unknown };
        assert_eq!(l.batch(y), expected);
    }
}

#[test]
fn a_mask_that_is_picked_by_ranges_is_followed_but_not_crossed_or_shifted() {
    // mask[rows, positions], as exporters write it: one range a component, spread over [batch, 1, seq].
    for (crossed, start, follows) in [(false, 0, true), (true, 0, false), (false, 1, false)] {
        let mut l = Lab::new();
        let (from, step, none) = (l.integer(start), l.integer(1), l.ints(&[0]));
        let (batch, seq, one) = (l.size(0), l.size(1), l.ints(&[1]));
        let full = l.with("Concat", &[batch, one, seq, one], &[("axis", Attr::Int(0))]);
        let column = |l: &mut Lab, size: ValueId, axes: &[i64]| {
            let size = l.op("Squeeze", &[size, none]);
            let range = l.op("Range", &[from, size, step]);
            let axes = l.ints(axes);
            let range = l.op("Unsqueeze", &[range, axes]);
            l.op("Expand", &[range, full])
        };
        let (rows, places) = (column(&mut l, batch, &[1, 2, 3]), column(&mut l, seq, &[0, 1, 3]));
        let both = if crossed { [places, rows] } else { [rows, places] };
        let indices = l.with("Concat", &both, &[("axis", Attr::Int(-1))]);
        let y = l.op("GatherND", &[l.mask, indices]);
        assert_eq!(l.batch(y), if follows { Batch::Axis(0) } else { Batch::Unknown }, "{crossed} {start}");
    }
}

#[test]
fn an_operator_without_a_rule_makes_unknown_what_it_is_fed_and_is_named() {
    let mut l = Lab::new();
    let y = l.op("Det", &[l.x]);
    let z = l.op("Relu", &[y]);
    let s = analyse(&l.graph, &l.roles).summary(z);
    assert_eq!(s.batch, Batch::Unknown);
    assert_eq!(s.mixed_by.map(|r| r.op).as_deref(), Some("Det"));
    let c = l.number(1.0);
    let free = l.op("Det", &[c]);
    assert_eq!(l.batch(free), Batch::None);
}

#[test]
fn what_the_file_says_of_values_inside_is_not_believed() {
    let mut l = Lab::new();
    let to = l.ints(&[6, -1]);
    let y = l.op("Reshape", &[l.x, to]);
    l.graph.fact_mut(y).shape = Some(vec![Dim::from("batch"), Dim::from("seq")]);
    assert_eq!(l.batch(y), Batch::Unknown);
}

/// The hidden states with steps first, through an LSTM of that direction: all states and the last one.
fn through_lstm(lab: &mut Lab, direction: &str) -> Vec<ValueId> {
    let x = lab.with("Transpose", &[lab.x], &[("perm", Attr::Ints(vec![1, 0, 2]))]);
    let ways = if direction == "bidirectional" { 2 } else { 1 };
    let mut b = Builder::new(&mut lab.graph, "");
    let weights = |b: &mut Builder<'_>, width: usize| {
        let values = vec![0.1f32; ways * 8 * width];
        b.constant(Tensor::new([ways, 8, width], &values).unwrap())
    };
    let (w, r) = (weights(&mut b, 6), weights(&mut b, 2));
    let attrs = [("direction".into(), Attr::from(direction)), ("hidden_size".into(), Attr::Int(2))];
    b.emit("LSTM", "", &[Some(x), Some(w), Some(r)], attrs.into(), 3)
}

#[test]
fn forwards_a_recurrent_step_sees_no_padding_behind_it() {
    for (direction, hidden) in [("forward", true), ("reverse", false), ("bidirectional", false)] {
        let mut lab = Lab::new();
        let made = through_lstm(&mut lab, direction);
        assert_eq!((lab.batch(made[0]), lab.batch(made[1])), (Batch::Axis(2), Batch::Axis(1)), "{direction}");
        assert_eq!(lab.hides_padding(made[0]), hidden, "{direction}");
        // The last state has gone through the padding, too.
        assert!(!lab.hides_padding(made[1]) && !lab.hides_padding(made[2]), "{direction}");
    }
}

#[test]
fn rows_that_are_the_steps_of_a_recurrent_operator_are_mixed() {
    let mut lab = Lab::new();
    let turned = lab.with("Transpose", &[lab.x], &[("perm", Attr::Ints(vec![1, 0, 2]))]);
    lab.x = turned;
    let made = through_lstm(&mut lab, "forward");
    assert_eq!(lab.batch(made[0]), Batch::Unknown);
}
