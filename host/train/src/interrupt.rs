//! Ctrl-C: once finishes the step and stops, twice ends the process at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::TrainError;

/// Exit status of a process that a second Ctrl-C ends (128 + SIGINT).
pub const EXIT_STATUS: i32 = 130;

/// A request to stop, shared by whoever asks and whoever looks.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<AtomicUsize>);

/// Which press it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Press {
    /// The first: training stops after the step.
    First,
    /// Any further one: the process is to end now.
    Again,
}

impl Interrupt {
    /// One that no signal reaches; [`Interrupt::press`] asks for the stop.
    pub fn new() -> Self {
        Self::default()
    }

    /// One that Ctrl-C, SIGTERM and SIGHUP reach. The second signal ends the process with [`EXIT_STATUS`].
    ///
    /// # Errors
    /// [`TrainError::Interrupt`] when the process has a handler already.
    pub fn install() -> Result<Self, TrainError> {
        let interrupt = Self::new();
        let handler = interrupt.clone();
        ctrlc::set_handler(move || match handler.press() {
            Press::First => eprintln!("\nstopping after this step; press Ctrl-C again to stop at once"),
            Press::Again => std::process::exit(EXIT_STATUS),
        })
        .map_err(|e| TrainError::Interrupt(e.to_string()))?;
        Ok(interrupt)
    }

    /// Asks for the stop.
    pub fn press(&self) -> Press {
        match self.0.fetch_add(1, Ordering::SeqCst) {
            0 => Press::First,
            _ => Press::Again,
        }
    }

    /// True once somebody asked.
    pub fn requested(&self) -> bool {
        self.0.load(Ordering::SeqCst) > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_press_asks_and_the_second_insists() {
        let i = Interrupt::new();
        let other = i.clone();
        assert!(!i.requested());
        assert_eq!(other.press(), Press::First);
        assert!(i.requested());
        assert_eq!(i.press(), Press::Again);
        assert_eq!(other.press(), Press::Again);
    }
}
