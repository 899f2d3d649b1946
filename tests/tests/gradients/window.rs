//! Cases of operators that pad, regroup and resample.

use graft_graph::grad::grad;
use graft_graph::{Attr, DType, Tensor};
use graft_tests::differences::Tolerance::{Approximate, Exact};
use graft_tests::differences::{Arg, Case, Sizes};
use graft_tests::{Array, Draw};

use crate::{Row, case};

pub const CASES: &[Row] = &[
    ("Pad", Exact, pad),
    ("Resize", Approximate, resize),
    ("DepthToSpace", Exact, depth_to_space),
    ("SpaceToDepth", Exact, space_to_depth),
];

fn float(d: &mut Draw<'_>, shape: &[usize]) -> Arg {
    Arg::Float(d.reals(shape, (-2.0, 2.0), &[]))
}

/// A list of numbers that is known, or at run time only.
fn list(d: &mut Draw<'_>, values: &[i64]) -> Arg {
    let t = Tensor::vector(values);
    if d.below(3) == 2 { Arg::Held(t) } else { Arg::Constant(t) }
}

/// All modes, on all axes or some, with amounts that cut off. The constant may have a gradient.
fn pad(op: &'static str, d: &mut Draw<'_>) -> Case {
    let shape: Vec<usize> = d.shape(1..=3).iter().map(|n| n + 1).collect();
    let axes = d.flag().then(|| d.axes(shape.len())).filter(|a| !a.is_empty());
    let mode = d.pick(&[None, Some("constant"), Some("reflect"), Some("edge"), Some("wrap")]);
    let named: Vec<usize> = axes.clone().unwrap_or_else(|| (0..shape.len()).collect());
    let mut pads = Vec::new();
    for _ in 0..2 {
        for a in &named {
            // Both sides together leave an element at least; a reflection stays within the other ones.
            pads.push(match d.below(4) {
                3 if shape[*a] > 2 => -1,
                n => n.min(shape[*a] - 1).min(2) as i64,
            });
        }
    }
    if mode.is_some_and(|m| m != "constant") && pads.iter().any(|n| *n < 0) {
        // What ONNX Runtime makes of a mode and a cut together on one axis is not what the standard says.
        pads.iter_mut().for_each(|n| *n = (*n).max(0));
    }
    let mut args = vec![float(d, &shape), list(d, &pads)];
    if mode.is_none_or(|m| m == "constant") {
        args.push(match d.below(4) {
            0 => Arg::Missing,
            1 => Arg::Fixed(Array { shape: vec![], values: vec![0.5] }),
            2 => float(d, &[]),
            _ => float(d, &[1]),
        });
    } else {
        args.push(Arg::Missing);
    }
    match axes {
        Some(axes) => {
            let written: Vec<i64> = axes.iter().map(|a| d.written(*a, shape.len())).collect();
            args.push(list(d, &written));
        }
        None if matches!(args[2], Arg::Missing) => args.truncate(2),
        None => {}
    }
    let mut c = case(op, args, &[]);
    c.attrs.extend(mode.map(|m| ("mode".into(), Attr::from(m))));
    c
}

/// Pictures of one to three axes behind batch and channels, or a matrix alone; by scales or to sizes.
fn resize(op: &'static str, d: &mut Draw<'_>) -> Case {
    let mode = d.pick(&["nearest", "linear", "cubic"]);
    let (leading, own) = match mode {
        "nearest" => (d.below(3), d.size(1..=3)),
        "linear" => d.pick(&[(0, 2), (2, 2), (2, 3), (1, 2)]),
        _ => d.pick(&[(0, 2), (2, 2)]),
    };
    let rank = leading + own;
    let shape: Vec<usize> = (0..rank).map(|a| d.size(1..=if a < leading { 2 } else { 4 })).collect();
    let named = d.flag();
    let axes: Vec<usize> = (if named { leading } else { 0 }..rank).collect();
    let to_sizes = d.flag();
    let scale = |d: &mut Draw<'_>, a: usize| match a < leading {
        true => 1f32,
        false => d.pick(&[2f32, 1.0, 1.5, 0.6, 3.0, 0.5]).max(1.0 / shape[a] as f32),
    };
    let scales: Vec<f32> = axes.iter().map(|a| scale(d, *a)).collect();
    let sizes: Vec<i64> = axes.iter().zip(&scales).map(|(a, s)| (shape[*a] as f32 * s) as i64).collect();
    let mut args = vec![float(d, &shape), Arg::Missing];
    match to_sizes {
        true => args.extend([Arg::Missing, list(d, &sizes)]),
        false => {
            let t = Tensor::vector(&scales);
            let held = d.below(3) == 2;
            args.push(if held { Arg::Held(t) } else { Arg::Constant(t) });
        }
    }
    let mut c = case(op, args, &[("mode", Attr::from(mode))]);
    if named {
        let written = axes.iter().map(|a| d.written(*a, rank)).collect();
        c.attrs.insert("axes".into(), Attr::Ints(written));
    }
    let coordinates =
        ["half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric"];
    if d.below(4) > 0 {
        c.attrs.insert("coordinate_transformation_mode".into(), Attr::from(d.pick(&coordinates)));
    }
    match mode {
        "nearest" if d.flag() => {
            let rounds = d.pick(&["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]);
            c.attrs.insert("nearest_mode".into(), Attr::from(rounds));
        }
        "cubic" if d.flag() => {
            c.attrs.insert("cubic_coeff_a".into(), Attr::Float(-0.5));
            c.attrs.insert("exclude_outside".into(), Attr::Int(1));
        }
        "linear" | "cubic" if d.flag() && leading != 1 && own == 2 => {
            c.attrs.insert("antialias".into(), Attr::Int(1));
        }
        _ => {}
    }
    c
}

fn depth_to_space(op: &'static str, d: &mut Draw<'_>) -> Case {
    let n = d.size(1..=2);
    let shape = [d.size(1..=2), d.size(1..=2) * n * n, d.size(1..=3), d.size(1..=3)];
    let mut c = case(op, vec![float(d, &shape)], &[("blocksize", Attr::Int(n as i64))]);
    if let Some(mode) = d.pick(&[None, Some("DCR"), Some("CRD")]) {
        c.attrs.insert("mode".into(), Attr::from(mode));
    }
    c
}

fn space_to_depth(op: &'static str, d: &mut Draw<'_>) -> Case {
    let n = d.size(1..=2);
    let shape = [d.size(1..=2), d.size(1..=3), d.size(1..=2) * n, d.size(1..=2) * n];
    case(op, vec![float(d, &shape)], &[("blocksize", Attr::Int(n as i64))])
}

#[test]
fn resampling_that_is_not_derived_is_refused_with_a_reason() {
    let refused = |attrs: &[(&str, Attr)], to_sizes: bool| {
        let x = Arg::Float(Array { shape: vec![2, 2], values: vec![1.0; 4] });
        let mut args = vec![x, Arg::Missing];
        match to_sizes {
            true => args.extend([Arg::Missing, Arg::Constant(Tensor::vector(&[4i64, 4]))]),
            false => args.push(Arg::Constant(Tensor::vector(&[2f32, 2.0]))),
        }
        let (mut graph, floats, _) = case("Resize", args, attrs).graph(Sizes::Known, DType::F32);
        let y = graph.outputs[0];
        grad(&mut graph, &[(y, y)], &floats, &[]).unwrap_err().to_string()
    };
    let why = refused(&[("coordinate_transformation_mode", Attr::from("tf_crop_and_resize"))], false);
    assert!(why.contains("'tf_crop_and_resize' are not derived"), "{why}");
    let why = refused(&[("keep_aspect_ratio_policy", Attr::from("not_larger"))], true);
    assert!(why.contains("the policy 'not_larger' are not derived"), "{why}");
}
