//! Answers for many adapters over one copy of a base.
//!
//! | module | what |
//! |---|---|
//! | [`ask`] | what is asked and answered, and why something is refused: what every dialect of the wire is translated to and from |
//! | [`store`] | the adapters: which there are, their revisions, loading and unloading |
//! | [`form`] | what an adapter is run as: fragments in a session that many share, or a session of its own |
//! | [`engine`] | from an [`Ask`] to an [`Answered`]: tokens, a queue, batches, the thread that runs them |
//! | [`http`] | the dialects |

pub mod ask;
pub mod engine;
pub mod form;
pub mod http;
pub mod store;

pub use ask::{Answered, Ask, Provenance, Refusal, Text, Want};
pub use engine::{Engine, Limits};
pub use store::{Resident, Store};
