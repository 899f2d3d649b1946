//! ONNX Runtime for Graft: finding the library, providers, sessions, kernels.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use graft_graph::Tensor;
//! use graft_runtime::{Runtime, RuntimeOptions, Session, SessionOptions, SessionSource};
//!
//! let runtime = Runtime::start(&RuntimeOptions::default())?;
//! let source = SessionSource::plain(std::fs::read("model.onnx")?);
//! let mut session = Session::new(runtime, &source, &SessionOptions::default())?;
//! let x = Tensor::vector(&[1.0f32, 2.0]);
//! let out = session.run(&[("x", &x)], &["y"])?;
//! println!("{:?}", out.f32s("y")?);
//! # Ok(()) }
//! ```

mod build;
mod cancel;
mod declared;
mod device;
mod error;
mod kernels;
mod lent;
pub mod library;
mod memory;
mod outputs;
pub mod profile;
mod provider;
mod run;
mod runtime;
mod session;
mod threads;
mod value;
mod weights;

pub use cancel::CancelToken;
pub use device::{DeviceMemory, DeviceTensor};
pub use error::{Result, RuntimeError};
pub use kernels::{KERNEL_DOMAIN, KERNELS};
pub use memory::{give_back_memory, map_large_blocks, own_memory, peak_rss_mb, rss_mb};
pub use outputs::Outputs;
pub use provider::{Cuda, Provider, ShapeProfile, TensorRt};
pub use run::{Plan, Target};
pub use runtime::{Runtime, RuntimeOptions};
pub use session::{Optimization, Port, Session, SessionOptions, SessionSource, Spinning};
pub use threads::default_threads;
pub use value::View;
pub use weights::SharedWeights;
