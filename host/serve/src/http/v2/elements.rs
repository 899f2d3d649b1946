//! The elements of a tensor in JSON, flat or nested, read without building the JSON in memory.

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, SeqAccess, Visitor};

use crate::v2::Data;

/// Most elements of a tensor: their places take many times the bytes that an empty one has in JSON.
const MAX_ELEMENTS: usize = 1 << 22;

/// The elements of a tensor in the order of rows.
#[derive(Debug, Default, PartialEq)]
pub struct Elements(Option<Data>);

impl Elements {
    /// The elements; those of a tensor without any have either type.
    pub fn into_data(self) -> Option<Data> {
        self.0
    }

    fn add_int<E: Error>(&mut self, value: i64) -> Result<(), E> {
        match self.0.get_or_insert_with(|| Data::Ints(Vec::new())) {
            Data::Ints(all) if all.len() < MAX_ELEMENTS => {
                all.push(value);
                Ok(())
            }
            data => Err(refused(data)),
        }
    }

    fn add_text<E: Error>(&mut self, value: &str) -> Result<(), E> {
        match self.0.get_or_insert_with(|| Data::Bytes(Vec::new())) {
            Data::Bytes(all) if all.len() < MAX_ELEMENTS => {
                all.push(value.as_bytes().to_vec());
                Ok(())
            }
            data => Err(refused(data)),
        }
    }
}

fn refused<E: Error>(data: &Data) -> E {
    match data {
        Data::Bytes(all) if all.len() < MAX_ELEMENTS => E::custom("a number among texts"),
        Data::Ints(all) if all.len() < MAX_ELEMENTS => E::custom("a text among numbers"),
        _ => E::custom(format_args!("a tensor has at most {MAX_ELEMENTS} elements")),
    }
}

/// Adds what it is given to elements.
struct Into<'a>(&'a mut Elements);

impl<'de> DeserializeSeed<'de> for Into<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Into<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("texts, whole numbers, or arrays of them")
    }
    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.0.add_int(value)
    }
    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.0.add_int(i64::try_from(value).map_err(|_| E::custom("a number that no INT64 holds"))?)
    }
    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        self.0.add_text(value)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<(), A::Error> {
        while all.next_element_seed(Into(self.0))?.is_some() {}
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Elements {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Elements, D::Error> {
        let mut elements = Elements::default();
        deserializer.deserialize_seq(Into(&mut elements))?;
        Ok(elements)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Option<Data>, String> {
        serde_json::from_str::<Elements>(json).map(Elements::into_data).map_err(|e| e.to_string())
    }

    #[test]
    fn arrays_are_flattened() {
        assert_eq!(read("[[1, -2], [3, 4]]").unwrap(), Some(Data::Ints(vec![1, -2, 3, 4])));
        assert_eq!(read(r#"["a", "é"]"#).unwrap(), Some(Data::Bytes(vec![b"a".to_vec(), "é".into()])));
        assert_eq!(read("[[], []]").unwrap(), None);
    }

    #[test]
    fn what_no_input_holds_is_refused() {
        for json in ["1", "[1.5]", "[true]", "[null]", "[{}]", r#"[1, "a"]"#, "[18446744073709551615]"] {
            assert!(read(json).is_err(), "{json}");
        }
        assert!(read(&"[".repeat(100_000)).is_err());
    }
}
