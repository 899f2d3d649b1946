//! An update that ends in a sum beside the two operators that it stands for.

use super::*;

#[test]
fn a_residual_gives_the_bits_of_an_update_and_a_sum() {
    let [Some(mut plain), Some(mut s)] = [LOW_RANK_BIAS, LOW_RANK_RESIDUAL].map(|op| start(op, true, 2))
    else {
        return;
    };
    let mut roll = dice(23);
    for (seed, (batch, seq, width)) in batches(&mut roll).into_iter().enumerate() {
        // Some rows without an adapter.
        let ranks: Vec<usize> = (0..batch).map(|_| roll(20).saturating_sub(5)).collect();
        let batch = Batch::new(seed as u64, &ranks, seq, width);
        let got = batch.run(&mut s, BANK_LOW_RANK_RESIDUAL);
        let sum = batch.run(&mut plain, BANK_LOW_RANK_BIAS);
        let want: Vec<f32> = sum.iter().zip(batch.residual.concat()).map(|(a, b)| a + b).collect();
        assert!(bits(&got) == bits(&want), "ranks {ranks:?}, {seq} positions, widths {width:?}");
    }
}

#[test]
fn a_residual_of_another_shape_is_refused() {
    let any: Inputs = &[
        ("y", &["b0", "s0", "o0"]),
        ("x", &["b1", "s1", "i1"]),
        ("a", &["any_a", "i2"]),
        ("rows_a", &["b2", "rank"]),
        ("b", &["any_b", "o2"]),
        ("rows_b", &["b3", "rank_b"]),
        ("scale", &["b4"]),
        ("bias", &["o3"]),
        ("residual", &["b5", "s5", "o5"]),
    ];
    let Some(mut s) = start((BANK_LOW_RANK_RESIDUAL, any), true, 2) else { return };
    let batch = Batch::new(1, &[2], 3, [4, 6]);
    let mut owned = batch.inputs(BANK_LOW_RANK_RESIDUAL);
    owned[8].1 = Tensor::new([1, 3, 5], &[0f32; 15]).expect("as many numbers as the shape asks for");
    let inputs: Vec<(&str, &Tensor)> = owned.iter().map(|(n, t)| (*n, t)).collect();
    let why = refused(&mut s, &inputs);
    assert!(why.contains("graft.BankLowRankResidual") && why.contains("residual is [1, 3, 5]"), "{why}");
}
