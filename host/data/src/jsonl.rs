//! JSON Lines: one object a line, its values kept as they are written.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::error::DataError;
use crate::table::{Builder, Table};

/// An object's keys and raw values in their order; keys that come twice are kept twice, to be refused.
struct Object<'a>(Vec<(Key<'a>, &'a RawValue)>);

#[derive(serde::Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Object(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// Reads the lines of `text`; blank lines are skipped. Cells of the columns `nested` may be lists and objects.
pub(crate) fn read(
    mut builder: Builder,
    text: &str,
    nested: &[String],
    digest: String,
) -> Result<Table, DataError> {
    for (index, raw) in text.split('\n').enumerate() {
        let line = index as u64 + 1;
        if raw.trim().is_empty() {
            continue;
        }
        let object: Object<'_> = serde_json::from_str(raw).map_err(|e| json(&builder, line, &e))?;
        for (Key(name), value) in object.0 {
            let column = match builder.index_of(&name) {
                Some(column) => column,
                None => {
                    builder.add_column(&name, line)?;
                    builder.width() - 1
                }
            };
            if !builder.wants(&name) {
                continue;
            }
            let cell = match value.get().as_bytes().first() {
                Some(b'[' | b'{') if nested.iter().any(|n| *n == name) => Some(Cow::Borrowed(value.get())),
                _ => cell(&builder, line, &name, value)?,
            };
            if !builder.set(column, cell.as_deref(), line)? {
                return Err(DataError::DuplicateColumn {
                    place: builder.place(line),
                    column: name.into_owned(),
                });
            }
        }
        builder.end_row(line)?;
    }
    builder.finish(digest)
}

fn json(builder: &Builder, line: u64, error: &serde_json::Error) -> DataError {
    // serde_json counts lines from the start of what it was given, which is a single line here.
    let whole = error.to_string();
    let said = whole.split(" at line ").next().unwrap_or(&whole);
    DataError::Json { place: builder.place(line), message: format!("{said} at column {}", error.column()) }
}

fn cell<'a>(
    builder: &Builder,
    line: u64,
    name: &str,
    value: &'a RawValue,
) -> Result<Option<Cow<'a, str>>, DataError> {
    let nested = |what| DataError::Nested { place: builder.place(line), column: name.to_owned(), what };
    let raw = value.get();
    match raw.as_bytes().first() {
        Some(b'"') => match serde_json::from_str::<Key<'a>>(raw) {
            Ok(Key(text)) => Ok(Some(text)),
            Err(e) => Err(json(builder, line, &e)),
        },
        Some(b'{') => Err(nested("an object")),
        Some(b'[') => Err(nested("an array")),
        Some(b'n') => Ok(None),
        _ => Ok(Some(Cow::Borrowed(raw))),
    }
}
