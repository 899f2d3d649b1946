//! Where a recipe's values come from: a file, then the command line, which wins.

use std::io::Read;
use std::path::Path;

use toml::{Table, Value};

use super::RecipeError;
use super::fields::{EITHER, FIELDS, Field, Kind};
use super::{FORMAT, RECIPE_VERSION};

/// Largest recipe file that is read, in bytes.
const LIMIT: u64 = 1 << 20;

/// Values from one place, checked against [`FIELDS`].
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    pub(super) origin: String,
    pub(super) table: Table,
}

impl Layer {
    /// Reads a `recipe.toml`.
    ///
    /// # Errors
    /// [`RecipeError`] when the file cannot be read, is no TOML, is of a newer format, or has a key or value that a
    /// recipe does not take.
    pub fn from_file(path: &Path) -> Result<Layer, RecipeError> {
        let origin = path.display().to_string();
        let failed = |source| RecipeError::Read { path: path.into(), source };
        let mut bytes = Vec::new();
        let file = std::fs::File::open(path).map_err(failed)?;
        file.take(LIMIT + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > LIMIT {
            return Err(RecipeError::Syntax {
                origin,
                message: format!("a recipe has at most {LIMIT} bytes"),
            });
        }
        match String::from_utf8(bytes) {
            Ok(text) => Layer::from_toml(origin, &text),
            Err(e) => Err(RecipeError::Syntax { origin, message: e.utf8_error().to_string() }),
        }
    }

    /// Reads TOML; `origin` stands in messages.
    ///
    /// # Errors
    /// As [`Layer::from_file`].
    pub fn from_toml(origin: impl Into<String>, text: &str) -> Result<Layer, RecipeError> {
        let mut layer = Layer { origin: origin.into(), table: Table::new() };
        let parsed: Table = text.parse().map_err(|e: toml::de::Error| RecipeError::Syntax {
            origin: layer.origin.clone(),
            message: e.to_string().trim_end().into(),
        })?;
        for (key, value) in parsed {
            match key.as_str() {
                "format" | "version" => layer.check_header(&key, &value)?,
                _ => layer.put(&key, value)?,
            }
        }
        layer.check_either()?;
        Ok(layer)
    }

    /// An empty layer for flags and `--set`.
    pub fn command_line() -> Layer {
        Layer { origin: "the command line".into(), table: Table::new() }
    }

    /// Takes a flag: its name without the dashes before it (`batch-size`), and its text.
    ///
    /// # Errors
    /// [`RecipeError`] when a recipe has no such key or it does not take the value.
    pub fn flag(&mut self, name: &str, text: &str) -> Result<(), RecipeError> {
        let key = name.replace('-', "_");
        let value = self.guess(&key, text);
        self.put(&key, value)?;
        self.check_either()
    }

    /// Takes `KEY=VALUE`, where the key may be dotted (`method.r=8`) and the value is read as TOML where it is a TOML
    /// value, as text otherwise.
    ///
    /// # Errors
    /// [`RecipeError`] when it is not of that form, or as [`Layer::flag`].
    pub fn set(&mut self, assignment: &str) -> Result<(), RecipeError> {
        let wrong = || RecipeError::Assignment { text: assignment.into() };
        let (path, text) = assignment.split_once('=').ok_or_else(wrong)?;
        if path.contains(['\n', '\r', '#']) {
            return Err(wrong());
        }
        // The TOML reader splits dotted and quoted keys; the 0 is then replaced.
        let mut table: Table = format!("{path} = 0").parse().map_err(|_| wrong())?;
        let (key, mut slot) = table.iter_mut().next().ok_or_else(wrong)?;
        let key = key.clone();
        let nested = slot.is_table();
        while let Value::Table(t) = slot {
            slot = t.iter_mut().next().ok_or_else(wrong)?.1;
        }
        *slot = if nested { guess(text.trim()) } else { self.guess(&key, text.trim()) };
        match table.remove(&key) {
            Some(value) => self.put(&key, value)?,
            None => return Err(wrong()),
        }
        self.check_either()
    }

    /// The value that `text` stands for under a key: text stays text where the key takes text.
    fn guess(&self, key: &str, text: &str) -> Value {
        match Field::find(key).map(|f| f.kind) {
            Some(Kind::Text | Kind::Path | Kind::Column | Kind::Choice(_)) => match guess(text) {
                Value::String(s) => Value::String(s),
                _ => Value::String(text.into()),
            },
            _ => guess(text),
        }
    }

    fn check_header(&self, key: &str, value: &Value) -> Result<(), RecipeError> {
        let good = match value {
            Value::String(s) => key == "format" && s == FORMAT,
            Value::Integer(v) => key == "version" && (1..=i64::from(RECIPE_VERSION)).contains(v),
            _ => false,
        };
        match good {
            true => Ok(()),
            false => Err(RecipeError::Version {
                origin: self.origin.clone(),
                key: key.into(),
                found: value.to_string(),
            }),
        }
    }

    fn put(&mut self, key: &str, value: Value) -> Result<(), RecipeError> {
        let field = Field::find(key).ok_or_else(|| RecipeError::unknown(&self.origin, key))?;
        let accepted = field.accept(&value).ok_or_else(|| RecipeError::Value {
            origin: self.origin.clone(),
            key: key.into(),
            found: value.to_string(),
            allowed: field.allowed(),
        })?;
        let (key, value) = match field.kind {
            Kind::Column => ("columns", Value::Table(Table::from_iter([(key.to_string(), accepted)]))),
            _ => (key, accepted),
        };
        overlay(&mut self.table, key, value);
        Ok(())
    }

    fn check_either(&self) -> Result<(), RecipeError> {
        match EITHER.iter().find(|pair| pair.iter().all(|k| self.table.contains_key(*k))) {
            None => Ok(()),
            Some([a, b]) => {
                let (first, second) = (a.to_string(), b.to_string());
                Err(RecipeError::Both { origin: self.origin.clone(), first, second })
            }
        }
    }
}

/// A TOML value, or text where it is none. Dates are text: no setting is one.
fn guess(text: &str) -> Value {
    let parsed = if text.contains(['\n', '\r']) { None } else { text.parse().ok() };
    match parsed {
        Some(Value::Datetime(_)) | None => Value::String(text.into()),
        Some(value) => value,
    }
}

/// Puts a value over what is there; tables are merged. A method or objective of another name starts afresh: the
/// settings of the one before are not for it.
fn overlay(table: &mut Table, key: &str, value: Value) {
    let part = Field::find(key).is_some_and(|f| f.kind == Kind::Part);
    let other_name = |old: &Table, new: &Table| new.get("name").is_some_and(|n| old.get("name") != Some(n));
    match (table.get_mut(key), value) {
        (Some(Value::Table(old)), Value::Table(new))
            if !(part && old.contains_key("name") && other_name(old, &new)) =>
        {
            new.into_iter().for_each(|(k, v)| overlay(old, &k, v));
        }
        (_, value) => {
            table.insert(key.into(), value);
        }
    }
}

/// All layers over each other, the last on top, over the defaults.
pub(super) fn merge(layers: &[Layer]) -> Table {
    let mut all = Table::new();
    for layer in layers {
        for [a, b] in EITHER {
            for (given, other) in [(a, b), (b, a)] {
                if layer.table.contains_key(*given) {
                    all.remove(*other);
                }
            }
        }
        layer.table.iter().for_each(|(k, v)| overlay(&mut all, k, v.clone()));
    }
    for f in FIELDS {
        let rival = EITHER.iter().any(|p| p.contains(&f.name) && p.iter().any(|k| all.contains_key(*k)));
        if let (false, false, Some(v)) = (rival, all.contains_key(f.name), f.default_value()) {
            all.insert(f.name.into(), v);
        }
    }
    all
}
