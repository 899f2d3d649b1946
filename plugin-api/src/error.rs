//! Errors as they cross the boundary: a numbered code, what happened, what to do, and where.

use std::fmt;
use std::panic::Location;

use crate::wire;

/// What kind of error it is. Crosses as a number, so that either side may know more of them than the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Code(pub u32);

impl Code {
    /// The plugin gave up for a reason of its own.
    pub const FAILED: Code = Code(1);
    /// The config is not one that the plugin takes.
    pub const CONFIG: Code = Code(2);
    /// The other side has no such operation, extension, method or objective.
    pub const UNSUPPORTED: Code = Code(3);
    /// A panic was caught.
    pub const PANIC: Code = Code(4);
    /// The instance panicked before and is not used again.
    pub const POISONED: Code = Code(5);
    /// A message that cannot be decoded or contradicts itself.
    pub const MALFORMED: Code = Code(6);
    /// The host refused what the plugin asked for (an operator, a shape, a value it does not know).
    pub const REFUSED: Code = Code(7);
    /// A limit on size or number was hit.
    pub const LIMIT: Code = Code(8);
    /// No site matches.
    pub const NO_SITE: Code = Code(9);
    /// The data does not fit: an unknown label, a missing field, a wrong tensor.
    pub const DATA: Code = Code(10);
    /// The person asked to stop.
    pub const CANCELLED: Code = Code(11);
    /// The library cannot be opened, is no plugin, or has no readable manifest.
    pub const LOAD: Code = Code(12);
    /// The library was built against another version or layout of the API.
    pub const VERSION: Code = Code(13);
    /// There is no such plugin, method or objective.
    pub const NOT_FOUND: Code = Code(14);
}

/// An error of a plugin or of a host callback.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// Kind.
    pub code: Code,
    /// What happened.
    pub message: String,
    /// What to do; may be empty.
    pub help: String,
    /// The site it happened at; may be empty.
    pub site: String,
    /// `file:line` in the author's sources; may be empty.
    pub place: String,
}

/// Result with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of the given kind.
    pub fn new(code: Code, message: impl Into<String>) -> Error {
        Error {
            code,
            message: message.into(),
            help: String::new(),
            site: String::new(),
            place: String::new(),
        }
    }

    /// Says what to do about it.
    pub fn help(mut self, help: impl Into<String>) -> Error {
        self.help = help.into();
        self
    }

    /// Says at which site it happened, unless that is known already.
    pub fn at(mut self, site: &str) -> Error {
        if self.site.is_empty() {
            site.clone_into(&mut self.site);
        }
        self
    }

    /// Says which line it happened in, unless that is known already.
    pub fn in_line(mut self, line: &Location<'_>) -> Error {
        if self.place.is_empty() {
            self.place = place(line);
        }
        self
    }
}

/// A line of the sources, as it crosses the boundary.
pub(crate) fn place(line: &Location<'_>) -> String {
    format!("{}:{}", line.file(), line.line())
}

/// `fail!(DATA, "label `{}` is unknown", l)` is an `Err` of that [`Code`]; without a code it is `FAILED`.
/// The error names the line.
#[macro_export]
macro_rules! fail {
    ($code:ident, $($arg:tt)+) => {
        ::std::result::Result::Err(
            $crate::Error::new($crate::Code::$code, ::std::format!($($arg)+))
                .in_line(::std::panic::Location::caller()),
        )
    };
    ($($arg:tt)+) => {
        $crate::fail!(FAILED, $($arg)+)
    };
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if !self.site.is_empty() {
            write!(f, " (at site `{}`)", self.site)?;
        }
        if !self.help.is_empty() {
            write!(f, "; {}", self.help)?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

impl From<serde_json::Error> for Error {
    fn from(e: serde_json::Error) -> Error {
        Error::new(Code::MALFORMED, format!("not the JSON that was expected: {e}"))
    }
}

impl From<wire::Error> for Error {
    fn from(e: wire::Error) -> Error {
        Error { code: Code(e.code), message: e.message, help: e.help, site: e.site, place: e.place }
    }
}

impl From<Error> for wire::Error {
    fn from(e: Error) -> wire::Error {
        wire::Error { code: e.code.0, message: e.message, help: e.help, site: e.site, place: e.place }
    }
}
