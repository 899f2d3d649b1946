//! The ceiling of memory. What counts is what the process holds for itself; files that are mapped, as a base's weights are,
//! can be dropped by the system at any time and do not.
//!
//! At the ceiling nothing more is loaded: an adapter is refused before its tensors are read where they can't fit, and let go
//! again where it turned out larger than its files. What is loaded goes on answering.

use std::sync::atomic::{AtomicU64, Ordering};

use graft_runtime::{give_back_memory, own_memory};

use crate::store::StoreError;

/// How much more than its files an adapter takes: its tensors as they are, and once more in the banks.
const TIMES_FILES: u64 = 2;

/// How much memory may be used.
#[derive(Debug, Default)]
pub struct Ceiling(AtomicU64);

impl Ceiling {
    /// Sets it, in bytes; 0 for none.
    pub fn set(&self, bytes: u64) {
        self.0.store(bytes, Ordering::Relaxed);
    }

    /// The ceiling in bytes, if there is one.
    pub fn most(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|b| *b > 0)
    }

    /// What is used, in bytes; `None` where the system does not say.
    pub fn used(&self) -> Option<u64> {
        own_memory()
    }

    /// Whether an adapter with files of so many bytes can be loaded; with none, whether what was loaded is within the ceiling.
    ///
    /// # Errors
    /// [`StoreError::Memory`].
    pub fn room(&self, name: &str, files: u64) -> Result<(), StoreError> {
        let Some(most) = self.most() else { return Ok(()) };
        let needed = files.saturating_mul(TIMES_FILES);
        let fits = || self.used().is_none_or(|used| used.saturating_add(needed) <= most);
        if fits() {
            return Ok(());
        }
        // What was freed may still be with the allocator.
        give_back_memory();
        if fits() {
            return Ok(());
        }
        Err(StoreError::Memory { name: name.to_owned(), needed, used: self.used().unwrap_or(0), most })
    }
}

/// Bytes as people read them.
pub(crate) fn shown(bytes: u64) -> String {
    match bytes {
        0..0x400 => format!("{bytes} B"),
        0x400..0x10_0000 => format!("{:.1} KiB", bytes as f64 / f64::from(1 << 10)),
        _ => format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_with_numbers() {
        let ceiling = Ceiling::default();
        assert!(ceiling.room("x", u64::MAX).is_ok(), "there is none");
        let used = ceiling.used().expect("this system says it");
        ceiling.set(used + (512 << 20));
        assert!(ceiling.room("x", 1 << 20).is_ok());
        let why = ceiling.room("x", 1 << 30).expect_err("it is too large").to_string();
        assert!(why.contains("'x'") && why.contains("2048.0 MiB") && why.contains("memory_bytes"), "{why}");
        ceiling.set(1);
        assert!(ceiling.room("x", 0).is_err(), "more is held already");
    }
}
