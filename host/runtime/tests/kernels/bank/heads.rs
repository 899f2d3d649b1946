//! An update that is cut into heads beside the operators that it stands for.

use super::*;

#[test]
fn heads_have_the_bits_of_an_update_that_is_cut_and_transposed() {
    let mut roll = dice(29);
    for count in [1usize, 3, 12] {
        let sources = [true, false].map(|together| heads(together, count as i64));
        let [Some(mut one), Some(mut apart)] = [&sources[0], &sources[1]].map(|s| load(s, true, 2)) else {
            return;
        };
        let mut alone = load(&sources[0], true, 1).expect("a runtime");
        let mut body = load(&sources[0], false, 2).expect("a runtime");
        let mut shapes = vec![(2, 130, 8, 32), (3, 1, 384, 32), (32, 16, 24, 8), (2, 5, 0, 3)];
        shapes.extend((0..12).map(|_| (1 + roll(5), 1 + roll(70), 1 + roll(90), 1 + roll(40))));
        for (seed, (rows, seq, k, columns)) in shapes.into_iter().enumerate() {
            let ranks: Vec<usize> = (0..rows).map(|_| roll(20).saturating_sub(5)).collect();
            let batch = Batch::new(seed as u64, &ranks, seq, [k, count * columns]);
            let got = batch.run(&mut one, BANK_LOW_RANK_BIAS);
            let words = format!("{count} heads of {columns}, ranks {ranks:?}, {seq} positions of {k}");
            assert!(bits(&got) == bits(&batch.run(&mut apart, BANK_LOW_RANK_BIAS)), "{words}");
            assert!(bits(&got) == bits(&batch.run(&mut alone, BANK_LOW_RANK_BIAS)), "{words}: one thread");
            assert!(distance(&got, &batch.run(&mut body, BANK_LOW_RANK_BIAS)) < 1e-5, "{words}: by the body");
        }
    }
}

#[test]
fn columns_that_do_not_fill_the_heads_are_refused() {
    let Some(mut s) = load(&heads(true, 4), true, 2) else { return };
    let owned = Batch::new(1, &[2], 3, [4, 6]).inputs(BANK_LOW_RANK_BIAS);
    let inputs: Vec<(&str, &Tensor)> = owned.iter().map(|(n, t)| (*n, t)).collect();
    let why = refused(&mut s, &inputs);
    assert!(why.contains("graft.BankLowRankHeads") && why.contains("can't be cut into 4 heads"), "{why}");
}
