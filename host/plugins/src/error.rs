//! What goes wrong with plugins, with everything that is known of where.

use std::fmt;
use std::path::PathBuf;

use graft_plugin_api::{Code, Error};

/// An error of a plugin, or of the host about one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginError {
    /// Kind.
    pub code: Code,
    /// Id of the plugin; empty when it is not known.
    pub plugin: String,
    /// Id of the method or objective; empty when it is not about one.
    pub entry: String,
    /// What was being done: `apply`, `collate`; may be empty.
    pub operation: String,
    /// The site it happened at; may be empty.
    pub site: String,
    /// `file:line` in the plugin's sources; may be empty.
    pub place: String,
    /// The library, where it is about the file.
    pub path: Option<PathBuf>,
    /// Whether it is wrong on any base: the host refused what the plugin wrote, and not for what this base lacks.
    pub mistake: bool,
    /// What happened.
    pub message: String,
    /// What to do; may be empty.
    pub help: String,
}

/// Result with [`PluginError`]; boxed, for it is large and rare.
pub type Result<T> = std::result::Result<T, Box<PluginError>>;

impl PluginError {
    /// An error about a file.
    pub(crate) fn file(code: Code, path: &std::path::Path, message: String, help: &str) -> Box<PluginError> {
        Box::new(PluginError {
            path: Some(path.to_owned()),
            help: help.to_owned(),
            ..*PluginError::from_error(Error::new(code, message), "", "", "")
        })
    }

    /// An error that a plugin (or the host's side of its callbacks) gave.
    pub(crate) fn from_error(e: Error, plugin: &str, entry: &str, operation: &str) -> Box<PluginError> {
        Box::new(PluginError {
            code: e.code,
            plugin: plugin.to_owned(),
            entry: entry.to_owned(),
            operation: operation.to_owned(),
            site: e.site,
            place: e.place,
            path: None,
            mistake: false,
            message: e.message,
            help: e.help,
        })
    }
}

impl fmt::Display for PluginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(path) = &self.path {
            write!(f, "{}: ", path.display())?;
        }
        if !self.plugin.is_empty() {
            write!(f, "plugin `{}`", self.plugin)?;
            if !self.entry.is_empty() && self.entry != self.plugin {
                write!(f, ", `{}`", self.entry)?;
            }
            if !self.operation.is_empty() {
                write!(f, ", {}", self.operation)?;
            }
            f.write_str(": ")?;
        }
        f.write_str(&self.message)?;
        if !self.site.is_empty() {
            write!(f, " (at site `{}`)", self.site)?;
        }
        // What a person got wrong in options or data is not to be looked for in the plugin's sources.
        let persons = [Code::CONFIG, Code::DATA, Code::NO_SITE, Code::CANCELLED].contains(&self.code);
        if !self.place.is_empty() && !persons {
            write!(f, " ({})", self.place)?;
        }
        if !self.help.is_empty() {
            write!(f, ". {}", self.help)?;
        }
        Ok(())
    }
}

impl std::error::Error for PluginError {}
