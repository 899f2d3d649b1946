//! Figures from torch 2.11: two parameters, three steps, rates and gradients below.

use super::*;

const GRADS: [[&[f32]; 2]; 3] = [
    [&[0.1, -0.2, 0.3, 1e-9], &[1.5, -0.25]],
    [&[-0.4, 0.05, 0.0, 2e-9], &[0.5, 0.125]],
    [&[0.7, 0.7, -1.3, -1e-3], &[-2.0, 1e4]],
];
const RATES: [f64; 3] = [0.01, 0.005, 0.02];

/// A matrix that is decayed and a vector that is not, the latter with its own multiple of the rate.
fn params(lr_scale: f64) -> Parameters {
    let mut bias = Parameter::new("b", [2], vec![3.0, -0.75]).unwrap();
    bias.lr_scale = lr_scale;
    Parameters::new(vec![Parameter::new("w", [2, 2], vec![0.5, -1.25, 2.0, 0.001]).unwrap(), bias]).unwrap()
}

fn grads(i: usize) -> Vec<Vec<f32>> {
    GRADS[i].iter().map(|g| g.to_vec()).collect()
}

fn check(config: OptimizerConfig, lr_scale: f64, expected: [f32; 6]) {
    let mut p = params(lr_scale);
    let mut o = config.build(&p);
    (0..3).for_each(|i| o.step(&mut p, &grads(i), RATES[i]));
    for (a, b) in p.iter().flat_map(|p| &p.values).zip(expected) {
        assert!((a - b).abs() <= 1e-6 * b.abs().max(1.0), "{config:?}: {a} instead of {b}");
    }
}

fn adamw(betas: (f64, f64), eps: f64) -> OptimizerConfig {
    OptimizerConfig::AdamW { betas, eps, weight_decay: 0.1 }
}

fn sgd(momentum: f64, nesterov: bool) -> OptimizerConfig {
    OptimizerConfig::Sgd { momentum, nesterov, weight_decay: 0.1 }
}

#[test]
fn adamw_is_that_of_torch() {
    let e = [0.484_446_9, -1.243_519_8, 1.989_810_9, 0.012_208_065, 2.974_648_2, -0.752_888_98];
    check(adamw((0.9, 0.999), 1e-8), 2.0, e);
}

#[test]
fn adamw_takes_other_betas_and_eps() {
    let e = [0.477_823_3, -1.255_412, 2.001_376_4, 0.009_049_112, 2.999_942_3, -0.762_145_76];
    check(adamw((0.4, 0.95), 1e-3), 1.0, e);
}

#[test]
fn sgd_is_that_of_torch() {
    let e = [0.485_250_26, -1.257_883_9, 2.016_014_3, 0.001_016_503_5, 3.044_999_8, -400.746_25];
    check(sgd(0.0, false), 2.0, e);
}

#[test]
fn sgd_with_momentum_is_that_of_torch() {
    let e = [0.488_449_28, -1.249_815_2, 2.002_078, 0.001_012_636_2, 2.964_900_0, -400.740_4];
    check(sgd(0.9, false), 2.0, e);
}

#[test]
fn sgd_with_nesterov_is_that_of_torch() {
    let e = [0.474_858_3, -1.257_739_8, 2.017_920_3, 0.001_027_884_2, 3.013_410_1, -760.737_55];
    check(sgd(0.9, true), 2.0, e);
}

#[test]
fn exported_state_goes_on_where_it_was_left_bit_for_bit() {
    for config in [adamw((0.9, 0.999), 1e-8), sgd(0.0, false), sgd(0.9, true)] {
        let mut whole = params(1.0);
        let mut o = config.build(&whole);
        (0..2).for_each(|i| o.step(&mut whole, &grads(i), RATES[i]));
        let (mut rest, state) = (whole.clone(), o.export(&whole));
        o.step(&mut whole, &grads(2), RATES[2]);
        let mut again = config.build(&rest);
        again.import(&rest, &state).unwrap();
        again.step(&mut rest, &grads(2), RATES[2]);
        assert_eq!(whole, rest);
    }
}

#[test]
fn state_that_does_not_fit_is_refused_by_name() {
    let p = params(1.0);
    let mut o = adamw((0.9, 0.999), 1e-8).build(&p);
    let mut state = o.export(&p);
    state.insert("w.exp_avg".into(), Tensor::vector(&[1.0f32]));
    let e = o.import(&p, &state).unwrap_err().to_string();
    assert!(e.contains("`w.exp_avg` has shape [1], not [2, 2]"), "{e}");
    state.shift_remove("w.exp_avg");
    let e = o.import(&p, &state).unwrap_err().to_string();
    assert!(e.contains("the tensor `w.exp_avg` is missing"), "{e}");
    state.insert("step".into(), Tensor::scalar(-1i64));
    assert!(o.import(&p, &state).unwrap_err().to_string().contains("`step`"));
}
