//! Panics become values, with their message and place. Used on both sides of the boundary.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

/// A panic that was caught.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Panic {
    /// What it said.
    pub message: String,
    /// `file:line` of the panic, empty when unknown.
    pub place: String,
}

impl fmt::Display for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.place.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{} ({})", self.message, self.place)
        }
    }
}

thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    static PLACE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Runs `f`; a panic inside it is an error here and is not printed.
///
/// # Errors
/// The panic's message and place.
pub fn guarded<T>(f: impl FnOnce() -> T) -> Result<T, Panic> {
    install_hook();
    DEPTH.with(|d| d.set(d.get() + 1));
    let result = panic::catch_unwind(AssertUnwindSafe(f));
    DEPTH.with(|d| d.set(d.get() - 1));
    result.map_err(|payload| Panic {
        message: message_of(payload),
        place: PLACE.with(|p| p.try_borrow_mut().map(|mut p| std::mem::take(&mut *p)).unwrap_or_default()),
    })
}

fn message_of(payload: Box<dyn Any + Send>) -> String {
    match payload.downcast::<String>() {
        Ok(s) => *s,
        Err(payload) => match payload.downcast::<&'static str>() {
            Ok(s) => (*s).to_owned(),
            Err(other) => {
                // Dropping a payload of an unknown type runs foreign code that may panic again.
                std::mem::forget(other);
                "a panic without a message".to_owned()
            }
        },
    }
}

/// Every library has its own standard library, hence its own hook: each side puts this one before its own.
fn install_hook() {
    static HOOK: Once = Once::new();
    if std::thread::panicking() {
        return;
    }
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if DEPTH.try_with(Cell::get).unwrap_or(0) == 0 {
                return before(info);
            }
            let place = info.location().map(|l| format!("{}:{}", l.file(), l.line())).unwrap_or_default();
            let _ = PLACE.try_with(|p| p.try_borrow_mut().map(|mut p| *p = place));
        }));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_keeps_its_message_and_its_line() {
        let line = line!() + 1;
        let e = guarded(|| panic!("rank {} is odd", 7)).unwrap_err();
        assert_eq!(e.message, "rank 7 is odd");
        assert!(e.place.ends_with(&format!("guard.rs:{line}")), "{}", e.place);
    }

    #[test]
    fn a_payload_that_panics_when_dropped_is_survived() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("dropped");
            }
        }
        let e = guarded(|| panic::panic_any(Bomb)).unwrap_err();
        assert_eq!(e.message, "a panic without a message");
    }

    #[test]
    fn guards_nest() {
        let e = guarded(|| {
            let inner = guarded(|| panic!("inner")).unwrap_err();
            assert_eq!(inner.message, "inner");
            panic!("outer")
        });
        assert_eq!(e.map_err(|e| e.message), Err::<(), _>("outer".to_owned()));
    }
}
