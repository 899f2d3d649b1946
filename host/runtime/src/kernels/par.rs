//! Work split over ONNX Runtime's own threads. Chunks are the same whatever the number of threads, so results are
//! too.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

use ort::operator::ComputeContext;

/// Runs `compute`, and turns a panic in it into an error that names the kernel: a panic must not reach ONNX Runtime,
/// which would end the process.
pub(crate) fn guard<T>(kernel: &str, compute: impl FnOnce() -> ort::Result<T>) -> ort::Result<T> {
    catch_unwind(AssertUnwindSafe(compute)).unwrap_or_else(|cause| Err(panicked(kernel, &*cause)))
}

fn panicked(kernel: &str, cause: &(dyn std::any::Any + Send)) -> ort::Error {
    let words = cause
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| cause.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    error(kernel, &format!("panicked: {words}"))
}

/// An error of a kernel. A zero byte would make ort panic while it hands the message on.
pub(crate) fn error(kernel: &str, message: &str) -> ort::Error {
    ort::Error::new(format!("kernel graft.{kernel}: {message}").replace('\0', " "))
}

/// Cuts `out` into pieces of `size` (the last may be shorter) and `side` into as many equal pieces, and gives each
/// pair to `each` with its number, on ONNX Runtime's threads.
pub(crate) fn chunks(
    ctx: &ComputeContext,
    kernel: &str,
    (out, size): (&mut [f32], usize),
    (side, side_size): (&mut [f32], usize),
    each: impl Fn(usize, &mut [f32], &mut [f32]) + Sync + Send,
) -> ort::Result<()> {
    let count = out.len().div_ceil(size.max(1));
    if side.len() < count * side_size {
        return Err(error(kernel, "the side buffer is too small"));
    }
    let (out, side) = (Pieces::new(out), Pieces::new(side));
    tasks(ctx, kernel, count, |i| {
        // SAFETY: ONNX Runtime calls each number once, and pieces of different numbers do not overlap.
        let (a, b) = unsafe { (out.piece(i, size), side.piece(i, side_size)) };
        each(i, a, b);
    })
}

/// Gives `count` numbers to `each`, on ONNX Runtime's threads, with `side_size` elements of scratch, which may hold anything,
/// and a way to write into `out` wherever it belongs.
pub(crate) fn scattered(
    ctx: &ComputeContext,
    kernel: &str,
    out: &mut [f32],
    count: usize,
    side_size: usize,
    each: impl Fn(usize, &mut [f32], &Pieces) + Sync + Send,
) -> ort::Result<()> {
    thread_local! {
        /// Kept for the next batch: as much as one task needs.
        static SIDE: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
    }
    let out = Pieces::new(out);
    tasks(ctx, kernel, count, |i| {
        SIDE.with_borrow_mut(|side| {
            if side.len() < side_size {
                side.resize(side_size, 0.0);
            }
            each(i, &mut side[..side_size], &out);
        });
    })
}

fn tasks(
    ctx: &ComputeContext,
    kernel: &str,
    count: usize,
    each: impl Fn(usize) + Sync + Send,
) -> ort::Result<()> {
    let failure: Mutex<Option<ort::Error>> = Mutex::new(None);
    let one = |i: usize| {
        let done = guard(kernel, || {
            each(i);
            Ok(())
        });
        if let Err(e) = done {
            // Nothing panics while the lock is held.
            *failure.lock().unwrap_or_else(|e| e.into_inner()) = Some(e);
        }
    };
    if count == 1 {
        one(0);
    } else if count > 1 {
        ctx.par_for(count, 0, one)?;
    }
    failure.into_inner().unwrap_or_else(|e| e.into_inner()).map_or(Ok(()), Err)
}

/// A buffer that several threads write different pieces of.
pub(crate) struct Pieces {
    start: *mut f32,
    len: usize,
}

// SAFETY: the pointer comes from a mutable borrow that outlives the parallel section; who calls `piece` and `put` vouches
// that no two threads write one place.
unsafe impl Send for Pieces {}
// SAFETY: as above.
unsafe impl Sync for Pieces {}

impl Pieces {
    fn new(buffer: &mut [f32]) -> Pieces {
        Pieces { start: buffer.as_mut_ptr(), len: buffer.len() }
    }

    /// Writes `values` from place `at` on, as far as the buffer goes.
    ///
    /// # Safety
    /// Nobody else may write there meanwhile, and the buffer must be alive.
    #[inline(always)]
    pub(crate) unsafe fn put(&self, at: usize, values: &[f32]) {
        let count = values.len().min(self.len.saturating_sub(at));
        // Few numbers at a time, for which a call of `memcpy` takes longer than they do.
        let (many, few) = values[..count].as_chunks::<16>();
        // SAFETY: `at + count` is within the buffer; the caller vouches for the rest.
        unsafe {
            let to = self.start.add(at.min(self.len));
            for (i, values) in many.iter().enumerate() {
                to.add(16 * i).cast::<[f32; 16]>().write_unaligned(*values);
            }
            for (i, value) in few.iter().enumerate() {
                to.add(16 * many.len() + i).write(*value);
            }
        }
    }

    /// # Safety
    /// No other piece of the same number may be alive, and the buffer must be.
    #[expect(clippy::mut_from_ref, reason = "pieces are disjoint, which the caller vouches for")]
    unsafe fn piece(&self, i: usize, size: usize) -> &mut [f32] {
        let start = i.saturating_mul(size).min(self.len);
        let len = size.min(self.len - start);
        // SAFETY: `start + len` is within the buffer; the caller vouches for the rest.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), len) }
    }
}

#[cfg(test)]
mod tests {
    use ort::operator::{
        BoxedKernel, KernelContext, Operator, OperatorDomain, OperatorInput, OperatorOutput,
    };
    use ort::session::builder::SessionBuilder;
    use ort::value::{Tensor, TensorElementType::Float32};

    use super::*;
    use crate::{Runtime, RuntimeError, RuntimeOptions};

    /// An ONNX model (opset 17) of one node, `y = graft.Bomb(x)`, f32 of two elements.
    const BOMB: &[u8] = b"\x08\x08\x3a\x3a\x0a\x13\x0a\x01x\x12\x01y\x22\x04Bomb\x3a\x05graft\x12\x01bZ\x0f\x0a\x01x\x12\
\x0a\x0a\x08\x08\x01\x12\x04\x0a\x02\x08\x02b\x0f\x0a\x01y\x12\x0a\x0a\x08\x08\x01\x12\x04\x0a\x02\x08\x02B\x04\x0a\x00\x10\x11B\x09\x0a\x05graft\x10\x01";

    struct Bomb;

    impl Operator for Bomb {
        type Kernel<'attr> = BoxedKernel<'attr>;
        fn name(&self) -> &str {
            "Bomb"
        }
        fn versions(&self) -> std::ops::RangeInclusive<u32> {
            1..=1
        }
        fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
            [OperatorInput::required(Float32)]
        }
        fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
            [OperatorOutput::required(Float32)]
        }
        fn create_kernel<'attr>(&self, _: &KernelContext<'attr>) -> ort::Result<BoxedKernel<'attr>> {
            Ok(Box::new(|ctx: &ComputeContext| {
                guard("Bomb", || {
                    let mut y = ctx.output(0, [2i64])?.ok_or_else(|| error("Bomb", "no output"))?;
                    let (_, y) = y.try_extract_tensor_mut::<f32>()?;
                    chunks(ctx, "Bomb", (y, 1), (&mut [], 0), |i, _, _| panic!("chunk {i} went\0off"))
                })
            }))
        }
    }

    #[test]
    fn a_panic_on_a_thread_of_onnx_runtime_is_an_error_and_the_process_lives() {
        let runtime = match Runtime::start(&RuntimeOptions::default()) {
            Ok(r) => r,
            Err(RuntimeError::LibraryNotFound { .. }) if std::env::var_os("CI").is_none() => {
                println!("skipped: no ONNX Runtime library");
                return;
            }
            Err(e) => panic!("{e}"),
        };
        let domain = OperatorDomain::new("graft").unwrap().add(Bomb).unwrap();
        let builder = SessionBuilder::new(&runtime.environment).unwrap();
        let builder = builder.with_intra_threads(2).map_err(|e| e.to_string()).unwrap();
        let mut builder = builder.with_operators(domain).map_err(|e| e.to_string()).unwrap();
        let mut session = builder.commit_from_memory(BOMB).unwrap();
        for _ in 0..3 {
            let x = Tensor::from_array(([2usize], vec![1f32, 2.0])).unwrap();
            let e = session.run(ort::inputs!["x" => x]).map(|_| ()).unwrap_err().to_string();
            assert!(e.contains("kernel graft.Bomb: panicked: chunk") && e.contains("went off"), "{e}");
        }
    }
}
