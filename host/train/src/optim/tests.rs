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

fn check(config: OptimizerConfig, lr_scale: f64, expected: [f64; 6]) {
    let mut p = params(lr_scale);
    let mut o = config.build(&p);
    (0..3).for_each(|i| o.step(&mut p, &grads(i), RATES[i]));
    for (a, b) in p.iter().flat_map(|p| &p.values).zip(expected) {
        assert!((f64::from(*a) - b).abs() <= 1e-6 * b.abs().max(1.0), "{config:?}: {a} instead of {b}");
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
    let e = [
        0.4844469130039215,
        -1.2435197830200195,
        1.9898109436035156,
        0.012208065018057823,
        2.9746482372283936,
        -0.7528889775276184,
    ];
    check(adamw((0.9, 0.999), 1e-8), 2.0, e);
}

#[test]
fn adamw_takes_other_betas_and_eps() {
    let e = [
        0.47782328724861145,
        -1.255411982536316,
        2.0013763904571533,
        0.009049111977219582,
        2.9999423027038574,
        -0.7621457576751709,
    ];
    check(adamw((0.4, 0.95), 1e-3), 1.0, e);
}

#[test]
fn sgd_is_that_of_torch() {
    let e = [
        0.4852502644062042,
        -1.257883906364441,
        2.016014337539673,
        0.001016503549180925,
        3.044999837875366,
        -400.7462463378906,
    ];
    check(sgd(0.0, false), 2.0, e);
}

#[test]
fn sgd_with_momentum_is_that_of_torch() {
    let e = [
        0.4884492754936218,
        -1.2498152256011963,
        2.002078056335449,
        0.0010126362321898341,
        2.964900016784668,
        -400.7403869628906,
    ];
    check(sgd(0.9, false), 2.0, e);
}

#[test]
fn sgd_with_nesterov_is_that_of_torch() {
    let e = [
        0.4748583137989044,
        -1.257739782333374,
        2.0179202556610107,
        0.0010278841946274042,
        3.0134100914001465,
        -760.737548828125,
    ];
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
