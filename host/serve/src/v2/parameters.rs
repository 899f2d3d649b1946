//! Parameters of calls and tensors, whatever carries them.

use std::time::Duration;

use super::fault::{Fault, Kind};

/// Parameters that change what a tensor is, of extensions that are not served. To skip them would be a wrong answer.
const UNSERVED: [&str; 2] = ["shared_memory_region", "classification"];

/// Whether a tensor can be served that has the parameters that `has` says.
///
/// # Errors
/// [`Kind::Unsupported`].
pub fn check_tensor(tensor: &str, has: impl Fn(&str) -> bool) -> Result<(), Fault> {
    match UNSERVED.iter().find(|p| has(p)) {
        Some(p) => {
            Err(Fault::new(Kind::Unsupported, format!("tensor '{tensor}': parameter '{p}' is not served")))
        }
        None => Ok(()),
    }
}

/// How long an answer is of use, of the parameter `timeout`: `None` where there is none, `Some(None)` where it is no whole
/// number. It counts microseconds; 0 is for ever.
///
/// # Errors
/// A parameter that is no number.
pub fn timeout(given: Option<Option<u64>>) -> Result<Option<Duration>, Fault> {
    match given {
        None | Some(Some(0)) => Ok(None),
        Some(Some(micros)) => Ok(Some(Duration::from_micros(micros))),
        Some(None) => Err(Fault::invalid("parameter 'timeout' is a number of microseconds")),
    }
}
