//! What an author of a method writes.

use crate::config::Config;
use crate::{Graph, Result};

/// How an adapter changes the base. The type is the config (see [`config!`](crate::config)).
pub trait Method: Config {
    /// Name that people type, such as `lora`.
    const ID: &'static str;
    /// One line that says what it does.
    const SUMMARY: &'static str;

    /// Refuses configs that cannot work.
    ///
    /// # Errors
    /// `CONFIG` naming the option.
    fn check(&self) -> Result<()> {
        Ok(())
    }

    /// Configs worth showing, each with a line that says what it is for. They are checked by a test.
    fn examples() -> Vec<(&'static str, Self)> {
        Vec::new()
    }

    /// Writes the forward maths of one adapter into the graph.
    ///
    /// # Errors
    /// Those of the graph, and whatever the method finds wrong.
    fn apply(&self, graph: &Graph<'_>) -> Result<()>;
}
