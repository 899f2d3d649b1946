//! Answers for many adapters over one copy of a base.
//!
//! | module | what |
//! |---|---|
//! | [`ask`] | what is asked and answered, and why something is refused: what every dialect of the wire is translated to and from |
//! | [`store`] | the adapters: which there are, their revisions, loading and unloading |
//! | [`form`] | what an adapter is run as: fragments in a session that many share, or a session of its own |
//! | [`engine`] | from an [`Ask`] to an [`Answered`]: tokens, a queue, batches, the thread that runs them |
//! | [`tally`] | what an adapter answered since it was loaded |
//! | [`v2`] | the Open Inference Protocol (V2), whatever carries it |
//! | [`http`] | the dialects |
//! | [`grpc`] | V2 over gRPC |

pub mod ask;
pub mod engine;
pub mod form;
pub mod grpc;
pub mod http;
pub mod store;
pub mod tally;
pub mod v2;

pub use ask::{Answered, Ask, Provenance, Refusal, Text, Want};
pub use engine::{Engine, Limits};
pub use store::{Resident, Store};
