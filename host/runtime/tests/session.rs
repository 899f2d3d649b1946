//! Sessions on the real library: runs, checks, cancelling, providers.

mod common;

use common::*;
use graft_graph::{DType, Tensor};
use graft_runtime::{
    CancelToken, Provider, Runtime, RuntimeError, Session, SessionOptions, SessionSource, Target, View,
};

/// `y = x + x` with `x` f32 [n, 3], and `i` i64 [n] passed through to `j = −i`.
fn doubling() -> Model {
    let mut m = model(
        &[("x", &["n", "3"])],
        &[("y", &["n", "3"])],
        vec![node("Add", &["x", "x"], &["y"]), node("Neg", &["i"], &["j"])],
    );
    let g = m.graph.as_mut().expect("model() sets it");
    g.input.push(typed("i", &["n"], 7));
    g.output.push(typed("j", &["n"], 7));
    m
}

fn open(runtime: &'static Runtime, m: &Model) -> Session {
    let options = SessionOptions { name: "doubling".into(), ..SessionOptions::default() };
    Session::new(runtime, &m.source(), &options).expect("the model loads")
}

fn six() -> Tensor {
    Tensor::new([2, 3], &[1f32, 2., 3., 4., 5., 6.]).expect("six numbers")
}

#[test]
fn a_model_given_as_bytes_runs() {
    let Some(runtime) = runtime() else { return };
    let mut s = open(runtime, &doubling());
    assert!(runtime.version().starts_with("1.31."), "{}", runtime.version());
    let i = Tensor::vector(&[7i64, -8]);
    let out = s.run(&[("i", &i), ("x", &six())], &["j", "y"]).unwrap();
    drop(s);
    assert_eq!(out.names().collect::<Vec<_>>(), ["j", "y"]);
    assert_eq!(out.f32s("y").unwrap(), [2., 4., 6., 8., 10., 12.]);
    assert_eq!(out.i64s("j").unwrap(), [-7, 8]);
    assert_eq!(out.tensor("y").unwrap().shape(), [2, 3]);
    assert!(matches!(out.f32s("j"), Err(RuntimeError::OutputType { .. })));
    assert!(matches!(out.f32s("z"), Err(RuntimeError::UnknownName { .. })));
}

#[test]
fn misaligned_and_empty_inputs_run() {
    let Some(runtime) = runtime() else { return };
    let mut s = open(runtime, &doubling());
    let mut bytes = vec![0u8];
    bytes.extend_from_slice(six().bytes());
    let x = Tensor::from_bytes(DType::F32, [2, 3], bytes::Bytes::from(bytes).slice(1..)).unwrap();
    let i = Tensor::vector(&[0i64, 0]);
    assert_eq!(s.run(&[("x", &x), ("i", &i)], &["y"]).unwrap().f32s("y").unwrap()[5], 12.0);
    let (none, no) = (Tensor::new::<f32>([0, 3], &[]).unwrap(), Tensor::vector::<i64>(&[]));
    let out = s.run(&[("x", &none), ("i", &no)], &["y"]).unwrap();
    assert!(out.f32s("y").unwrap().is_empty() && out.shape("y").unwrap() == [0, 3]);
}

#[test]
fn what_does_not_fit_is_named_before_anything_runs() {
    let Some(runtime) = runtime() else { return };
    let mut s = open(runtime, &doubling());
    let i = Tensor::vector(&[0i64, 0]);
    let mut fails =
        |inputs: &[(&str, &Tensor)], outputs: &[&str]| s.run(inputs, outputs).unwrap_err().to_string();
    let e = fails(&[("x", &six()), ("i", &i), ("mask", &i)], &["y"]);
    assert_eq!(e, "session doubling has no input `mask`; it has: x, i");
    let e = fails(&[("x", &six()), ("i", &i)], &["loss"]);
    assert_eq!(e, "session doubling has no output `loss`; it has: y, j");
    let e = fails(&[("x", &six())], &["y"]);
    assert_eq!(e, "session doubling: no value for input `i` (i64 [n])");
    let e = fails(&[("x", &i), ("i", &i)], &["y"]);
    assert_eq!(e, "session doubling: input `x` takes f32 [n, 3], not i64 [2]");
    let flat = six().reshape([3, 2]).unwrap();
    let e = fails(&[("x", &flat), ("i", &i)], &["y"]);
    assert_eq!(e, "session doubling: input `x` takes f32 [n, 3], not f32 [3, 2]");
    let e = fails(&[("x", &six()), ("x", &six()), ("i", &i)], &["y"]);
    assert_eq!(e, "session doubling: input `x`: it is given twice");
}

#[test]
fn bytes_that_are_no_model_are_an_error() {
    let Some(runtime) = runtime() else { return };
    let whole = doubling().source().proto;
    for proto in [Vec::new(), b"no model at all".to_vec(), whole[..whole.len() / 2].to_vec(), vec![0xff; 64]]
    {
        let e = Session::new(runtime, &SessionSource::plain(proto), &SessionOptions::default()).unwrap_err();
        assert!(matches!(e, RuntimeError::Ort { .. }), "{e}");
        assert!(e.to_string().starts_with("loading session: "), "{e}");
    }
}

#[test]
fn an_error_while_running_names_operator_and_node() {
    let Some(runtime) = runtime() else { return };
    let call = node("MatMul", &["a", "b"], &["c"]);
    let m = model(&[("a", &["i", "j"]), ("b", &["k", "l"])], &[("c", &["i", "l"])], vec![call]);
    let mut s = open(runtime, &m);
    let e = s.run(&[("a", &six()), ("b", &six())], &["c"]).unwrap_err().to_string();
    assert!(
        e.starts_with("running doubling: ") && e.contains("MatMul") && e.contains("node_MatMul_c"),
        "{e}"
    );
}

#[test]
fn outputs_are_written_into_the_callers_buffers() {
    let Some(runtime) = runtime() else { return };
    let mut s = open(runtime, &doubling());
    let plan = s.plan(&["i", "x"], &["y"]).unwrap();
    let (x, i) = ([1f32, 2., 3.], [0i64]);
    let inputs = [View::new(&[1], &i).unwrap(), View::new(&[1, 3], &x).unwrap()];
    let mut y = [0f32; 3];
    for _ in 0..3 {
        s.run_into(&plan, &inputs, &mut [Target { shape: &[1, 3], data: &mut y }]).unwrap();
        assert_eq!(y, [2., 4., 6.]);
        y.fill(0.0);
    }
    let mut wide = [0f32; 6];
    let mut fails = |shape: &[usize], len: usize| {
        s.run_into(&plan, &inputs, &mut [Target { shape, data: &mut wide[..len] }]).unwrap_err().to_string()
    };
    assert!(fails(&[1, 3], 6).contains("6 elements do not fill"));
    assert!(fails(&[1, 6], 6).contains("f32 [n, 3]"));
    // The graph takes any number of rows, so only the run finds out.
    assert!(fails(&[2, 3], 6).starts_with("running doubling: "));
}

#[test]
fn a_plan_is_for_the_session_that_made_it() {
    let Some(runtime) = runtime() else { return };
    let plan = open(runtime, &doubling()).plan(&["x", "i"], &["y", "j"]).unwrap();
    let small = model(&[("a", &["n"])], &[("b", &["n"])], vec![node("Neg", &["a"], &["b"])]);
    let (x, i) = (six(), Tensor::vector(&[0i64, 0]));
    let views = [View::from(&x), View::from(&i)];
    let e = open(runtime, &small).run_planned(&plan, &views).unwrap_err().to_string();
    assert!(e.contains("made by another session"), "{e}");
}

/// Values over memory that is lent are kept for the next run: each run must see what is there then, in the shape that is said then,
/// wherever buffers come and go.
#[test]
fn memory_that_is_lent_again_is_read_as_it_is_then() {
    let Some(runtime) = runtime() else { return };
    let any = [("x", &["n", "m"][..])];
    let twice = model(&any, &[("y", &["n", "m"])], vec![node("Add", &["x", "x"], &["y"])]);
    let mut s = open(runtime, &twice);
    let plan = s.plan(&["x"], &["y"]).unwrap();
    let mut buffers = [vec![0f32; 12], vec![0f32; 12], vec![0f32; 12]];
    for turn in 0..48usize {
        let buffer = &mut buffers[[0, 1, 0, 2][turn % 4]];
        if turn % 5 == 4 {
            *buffer = vec![0f32; 12];
        }
        buffer.iter_mut().enumerate().for_each(|(k, v)| *v = (turn * 100 + k) as f32);
        let shape = [[2, 3], [3, 2], [1, 6], [4, 3], [12, 1]][turn % 7 % 5];
        let from = turn % 2 * 6 * usize::from(shape.iter().product::<usize>() == 6);
        let own = from..from + shape.iter().product::<usize>();
        let out = s.run_planned(&plan, &[View::new(&shape, &buffer[own.clone()]).unwrap()]).unwrap();
        let expected: Vec<f32> = buffer[own].iter().map(|v| 2.0 * v).collect();
        assert_eq!(
            (out.shape("y").unwrap(), out.f32s("y").unwrap()),
            (&shape[..], &expected[..]),
            "turn {turn}"
        );
    }
}

#[test]
fn an_output_that_is_an_input_outlives_the_run() {
    let Some(runtime) = runtime() else { return };
    let mut m = model(&[("x", &["2", "3"])], &[("y", &["2", "3"])], vec![node("Add", &["x", "x"], &["y"])]);
    m.graph.as_mut().unwrap().output.push(value("x", &["2", "3"]));
    let mut s = open(runtime, &m);
    let out = {
        let x = six();
        s.run(&[("x", &x)], &["x", "y"]).unwrap()
    };
    let _elsewhere = vec![9f32; 1000];
    assert_eq!(out.f32s("x").unwrap(), [1., 2., 3., 4., 5., 6.]);
    assert_eq!(out.tensor("x").unwrap(), six());
}

#[test]
fn a_cancelled_run_stops_and_the_session_lives_on() {
    let Some(runtime) = runtime() else { return };
    // Long enough that no machine is through with it when the token is used: 4000 products of 256 × 256.
    let names: Vec<String> = (0..=4000).map(|k| format!("x{k}")).collect();
    let nodes = names.windows(2).map(|w| node("MatMul", &[&w[0], "x0"], &[&w[1]])).collect();
    let m = model(&[("x0", &["256", "256"])], &[("x4000", &["256", "256"])], nodes);
    let mut s = open(runtime, &m);
    let token = CancelToken::new(runtime).unwrap();
    s.set_cancel(Some(token.clone()));
    let x = Tensor::new([256, 256], &[0f32; 256 * 256]).unwrap();
    let other = token.clone();
    let stopper = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(20));
        other.cancel().unwrap();
    });
    let e = s.run(&[("x0", &x)], &["x4000"]).unwrap_err();
    stopper.join().unwrap();
    assert!(matches!(e, RuntimeError::Cancelled { .. }) && token.is_cancelled(), "{e}");
    assert!(matches!(s.run(&[("x0", &x)], &["x4000"]), Err(RuntimeError::Cancelled { .. })));
    token.reset().unwrap();
    assert!(s.run(&[("x0", &x)], &["x4000"]).is_ok());
}

#[test]
fn a_provider_that_is_not_there_is_an_error_and_never_the_cpu() {
    let Some(runtime) = runtime() else { return };
    let tried = runtime.providers_that_start();
    assert_eq!(tried.iter().map(|(p, _)| p.to_string()).collect::<Vec<_>>(), ["cpu", "cuda:0", "tensorrt:0"]);
    assert!(tried[0].1.is_ok(), "{:?}", tried[0].1);
    for (provider, started) in &tried[1..] {
        let options = SessionOptions { provider: provider.clone(), ..SessionOptions::default() };
        let session = Session::new(runtime, &doubling().source(), &options);
        match (started, session) {
            (Ok(()), Ok(_)) => println!("{provider} is there"),
            (Err(RuntimeError::ProviderUnavailable { help, .. }), Err(e)) => {
                assert!(matches!(e, RuntimeError::ProviderUnavailable { .. }) && !help.is_empty(), "{e}");
            }
            (a, b) => panic!("{provider}: {a:?} on trial, {b:?} in use"),
        }
    }
    let none = Provider::Cuda(graft_runtime::Cuda { device: 99, ..Default::default() });
    assert!(matches!(runtime.try_provider(&none), Err(RuntimeError::ProviderUnavailable { .. })));
}

#[test]
fn what_a_loop_holds_can_move_between_threads() {
    fn moves<T: Send + 'static>() {}
    moves::<Session>();
    moves::<graft_runtime::Outputs>();
    moves::<CancelToken>();
    moves::<std::sync::Arc<graft_runtime::SharedWeights>>();
}

#[test]
fn sessions_can_be_made_from_several_threads() {
    let Some(runtime) = runtime() else { return };
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut s = open(runtime, &doubling());
                let i = Tensor::vector(&[1i64, 2]);
                assert_eq!(s.run(&[("x", &six()), ("i", &i)], &["y"]).unwrap().f32s("y").unwrap()[0], 2.0);
            });
        }
    });
}
