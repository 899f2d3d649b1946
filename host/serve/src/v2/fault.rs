//! Why a call has no answer, whatever carries it.

use crate::ask::Refusal;
use crate::store::StoreError;

/// The kinds of faults, which HTTP and gRPC have codes for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// There is no such model, version or route.
    NotFound,
    /// The call makes no sense.
    Invalid,
    /// An extension of the protocol that is not served.
    Unsupported,
    /// More bytes than are taken.
    TooLarge,
    /// The body did not come in time.
    Slow,
    /// A key is needed.
    NoKey,
    /// The key is not for this.
    Forbidden,
    /// Too much waits already.
    Busy,
    /// The answer was not there in time.
    Late,
    /// The server is being stopped.
    Unavailable,
    /// What went wrong is not the caller's doing.
    Internal,
}

/// Why a call has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Which kind.
    pub kind: Kind,
    /// In words.
    pub message: String,
    /// Whole seconds after which to try again, where that helps.
    pub retry_after: Option<u64>,
}

impl Fault {
    /// A fault in words.
    pub fn new(kind: Kind, message: impl Into<String>) -> Fault {
        Fault { kind, message: message.into(), retry_after: None }
    }

    /// A call that makes no sense.
    pub fn invalid(message: impl Into<String>) -> Fault {
        Fault::new(Kind::Invalid, message)
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Fault {
        let kind = match refusal {
            Refusal::UnknownAdapter { .. } => Kind::NotFound,
            Refusal::Invalid(_) | Refusal::Empty(_) | Refusal::Unfit(_) | Refusal::TooLong { .. } => {
                Kind::Invalid
            }
            Refusal::TooLarge { .. } => Kind::TooLarge,
            Refusal::Slow { .. } => Kind::Slow,
            Refusal::NoKey => Kind::NoKey,
            Refusal::Forbidden(_) => Kind::Forbidden,
            Refusal::Busy { .. } | Refusal::Rate { .. } => Kind::Busy,
            Refusal::Deadline => Kind::Late,
            Refusal::NotLoaded { .. } | Refusal::Stopping => Kind::Unavailable,
            Refusal::Internal(_) => Kind::Internal,
        };
        Fault { retry_after: refusal.retry_after(), ..Fault::new(kind, refusal.to_string()) }
    }
}

impl From<StoreError> for Fault {
    fn from(e: StoreError) -> Fault {
        let kind = match e {
            StoreError::Unknown(_) => Kind::NotFound,
            StoreError::Name(_) | StoreError::Exists(_) | StoreError::Task(_) | StoreError::NoPrevious(_) => {
                Kind::Invalid
            }
            StoreError::Memory { .. } => Kind::Unavailable,
            StoreError::Io { .. } | StoreError::Replaced(_) => Kind::Internal,
        };
        Fault::new(kind, e.to_string())
    }
}
