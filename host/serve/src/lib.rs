//! Answers for many adapters over one copy of a base.
//!
//! | module | what |
//! |---|---|
//! | [`ask`] | what is asked and answered, and why something is refused: what every dialect of the wire is translated to and from |
//! | [`store`] | the adapters: which there are, their revisions, loading and unloading |
//! | [`form`] | what an adapter is run as: fragments in a session that many share, or a session of its own |
//! | [`engine`] | from an [`Ask`] to an [`Answered`]: tokens, a queue, batches, the threads that run them |
//! | [`tally`] | what an adapter answered since it was loaded |
//! | [`v2`] | the Open Inference Protocol (V2), whatever carries it |
//! | [`access`] | who may ask for what: keys |
//! | [`app`] | a server: its engine, keys and limits, whether it takes requests; who asks it |
//! | `background` | work on adapters, on threads that come after those that answer |
//! | `inside` | paths below the folder of the adapters |
//! | [`rates`] | how often each adapter may be asked |
//! | `spread` | how long things took |
//! | [`memory`] | how much memory may be used |
//! | [`patience`] | how long a request may take |
//! | [`trail`] | what is written down of a request |
//! | [`metrics`] | what happens, in numbers |
//! | [`config`] | what can be set: a file, the environment, flags |
//! | [`drive`] | the other side: asks a running server and measures |
//! | [`http`] | the dialects |
//! | [`grpc`] | V2 over gRPC |

pub mod access;
pub mod app;
pub mod ask;
mod background;
pub mod config;
pub mod drive;
pub mod engine;
pub mod form;
pub mod grpc;
pub mod http;
mod inside;
pub mod memory;
pub mod metrics;
pub mod patience;
pub mod rates;
mod spread;
pub mod store;
pub mod tally;
pub mod trail;
pub mod v2;

pub use access::{Access, Key};
pub use app::{App, Caller};
pub use ask::{Answered, Ask, Provenance, Refusal, Text, Want};
pub use config::Config;
pub use engine::{Engine, Limits};
pub use metrics::Metrics;
pub use patience::Patience;
pub use rates::Rates;
pub use store::{Keeping, Named, Resident, Store, Watcher};
