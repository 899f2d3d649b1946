//! An update of a product with a bias beside the two operators that it stands for.

use super::*;

#[test]
fn a_bias_gives_the_bits_of_a_sum_and_an_update() {
    let [Some(mut plain), Some(mut s)] = [LOW_RANK, LOW_RANK_BIAS].map(|op| start(op, true, 2)) else {
        return;
    };
    // The decomposition, by ONNX Runtime's operators.
    let apart = bank_model(LOW_RANK_BIAS, |b, node, y| vec![node(b, y)]);
    let mut apart = load(&apart, false, 2).expect("a runtime");
    let mut roll = dice(17);
    for (seed, (batch, seq, width)) in batches(&mut roll).into_iter().enumerate() {
        let ranks: Vec<usize> = (0..batch).map(|_| roll(20).saturating_sub(5)).collect();
        let batch = Batch::new(seed as u64, &ranks, seq, width);
        let got = batch.run(&mut s, BANK_LOW_RANK_BIAS);
        let want = batch.with_bias_in_y().run(&mut plain, BANK_LOW_RANK);
        assert!(bits(&got) == bits(&want), "ranks {ranks:?}, {seq} positions, widths {width:?}");
        assert!(distance(&got, &batch.run(&mut apart, BANK_LOW_RANK_BIAS)) < 1e-5);
    }
    // A row without adapter: the sum as it is, whatever it is.
    let mut batch = Batch::new(8, &[0, 4], 6, [16, 24]);
    batch.y[0][..3].copy_from_slice(&[-0.0, f32::from_bits(0x7fc0_1234), f32::INFINITY]);
    batch.bias[0] = -0.0;
    batch.x[0].fill(f32::NAN);
    batch.scale[0] = f32::NAN;
    let got = batch.run(&mut s, BANK_LOW_RANK_BIAS);
    assert_eq!(bits(&got[..6 * 24]), bits(&batch.with_bias_in_y().y[0]));
    assert_eq!(got[0].to_bits(), (-0.0f32).to_bits());
    // Half a pair adds nothing either.
    batch.rows[1].iter_mut().enumerate().for_each(|(j, pair)| pair[j % 2] = 0);
    let got = batch.run(&mut s, BANK_LOW_RANK_BIAS);
    assert_eq!(bits(&got[6 * 24..]), bits(&batch.with_bias_in_y().y[1]));
}

#[test]
fn one_operator_with_a_bias_gives_the_bits_of_two_in_a_session() {
    let [together, apart] = [true, false].map(biased_product);
    let batch = Batch::new(6, &[8, 0, 3, 17], 21, [40, 75]);
    for threads in [1, 2] {
        let [Some(mut one), Some(mut two)] = [&together, &apart].map(|m| load(m, true, threads)) else {
            return;
        };
        let [one, two] = [&mut one, &mut two].map(|s| batch.run(s, BANK_LOW_RANK_BIAS));
        assert_eq!(bits(&one), bits(&two));
    }
}
