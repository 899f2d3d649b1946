//! Numbers that stay in the memory of a device.
#![allow(clippy::unwrap_used, reason = "what fails is a test that fails")]

mod common;

use std::sync::Arc;

use common::{model, node, runtime};
use graft_runtime::{DeviceMemory, Provider, RuntimeError, Session, SessionOptions, View};

/// The provider that `GRAFT_TEST_PROVIDER` names.
fn provider() -> Provider {
    std::env::var("GRAFT_TEST_PROVIDER").map_or(Provider::Cpu, |name| name.parse().unwrap())
}

#[test]
fn provider_numbers_on_a_device_are_written_read_and_lent_to_runs() {
    let Some(runtime) = runtime() else { return };
    let memory = DeviceMemory::new(runtime, &provider()).unwrap();
    let mut tensor = memory.tensor(6).unwrap();
    tensor.write(0, &[1., 2., 3., 4., 5., 6.]).unwrap();
    tensor.write(2, &[30., 40.]).unwrap();
    tensor.write(6, &[]).unwrap();
    assert_eq!(tensor.read(1, 4).unwrap(), [2., 30., 40., 5.]);

    let m = model(&[("x", &["n", "2"])], &[("y", &["n", "2"])], vec![node("Add", &["x", "x"], &["y"])]);
    let options = SessionOptions { provider: provider(), ..SessionOptions::default() };
    let mut session = Session::new(runtime, &m.source(), &options).unwrap();
    let plan = session.plan(&["x"], &["y"]).unwrap();
    // A view of the first rows, of all, and of other numbers after a write.
    let run = |session: &mut Session, x: View<'_>| {
        session.run_planned(&plan, &[x]).unwrap().f32s("y").unwrap().to_vec()
    };
    assert_eq!(run(&mut session, tensor.view(&[2, 2]).unwrap()), [2., 4., 60., 80.]);
    tensor.write(5, &[7.]).unwrap();
    assert_eq!(run(&mut session, tensor.view(&[3, 2]).unwrap()), [2., 4., 60., 80., 10., 14.]);
    assert_eq!(run(&mut session, tensor.view(&[0, 2]).unwrap()), [0f32; 0]);
}

#[test]
fn provider_no_number_outside_is_touched() {
    let Some(runtime) = runtime() else { return };
    let memory = DeviceMemory::new(runtime, &provider()).unwrap();
    let mut tensor = memory.tensor(4).unwrap();
    for (start, len) in [(0, 5), (4, 1), (usize::MAX, 1), (1, 4)] {
        let refused = tensor.write(start, &vec![1.0; len]).unwrap_err();
        assert!(matches!(refused, RuntimeError::BadSetting { .. }), "{refused}");
        assert!(tensor.read(start, len).is_err());
    }
    assert!(tensor.view(&[5]).is_none() && tensor.view(&[usize::MAX, 2]).is_none());
    assert!(memory.tensor(0).unwrap().is_empty());
    assert!(matches!(memory.tensor(1 << 58), Err(RuntimeError::Ort { .. })), "more than there is");
}

#[test]
fn provider_an_output_that_is_such_an_input_is_not_changed_by_a_later_write() {
    let Some(runtime) = runtime() else { return };
    let memory = DeviceMemory::new(runtime, &provider()).unwrap();
    let mut tensor = memory.tensor(2).unwrap();
    tensor.write(0, &[1., 2.]).unwrap();
    let m = model(&[("x", &["n"])], &[("x", &["n"]), ("y", &["n"])], vec![node("Add", &["x", "x"], &["y"])]);
    let options = SessionOptions { provider: provider(), ..SessionOptions::default() };
    let mut session = Session::new(runtime, &m.source(), &options).unwrap();
    let plan = session.plan(&["x"], &["x", "y"]).unwrap();
    let outputs = session.run_planned(&plan, &[tensor.view(&[2]).unwrap()]).unwrap();
    tensor.write(0, &[8., 9.]).unwrap();
    assert_eq!((outputs.f32s("x").unwrap(), outputs.f32s("y").unwrap()), (&[1f32, 2.][..], &[2f32, 4.][..]));
}

#[test]
fn provider_tensors_outlive_who_made_them_and_move_between_threads() {
    let Some(runtime) = runtime() else { return };
    let memory = DeviceMemory::new(runtime, &provider()).unwrap();
    let mut tensors: Vec<_> = (0..4).map(|_| memory.tensor(1000).unwrap()).collect();
    drop(memory);
    std::thread::scope(|scope| {
        for (k, tensor) in tensors.iter_mut().enumerate() {
            scope.spawn(move || tensor.write(0, &vec![k as f32; 1000]).unwrap());
        }
    });
    let tensors = Arc::new(tensors);
    let all = Arc::clone(&tensors);
    std::thread::spawn(move || {
        for (k, tensor) in all.iter().enumerate() {
            assert!(tensor.read(0, 1000).unwrap().iter().all(|x| *x == k as f32));
        }
    })
    .join()
    .unwrap();
}
