//! Examples: rows of fields, tokenised or decoded once, made into batches.

use std::collections::HashMap;

use graft_data::{
    EncodeOptions, Encoding, Images, Mapping, PadOptions, Records, Table, TextBatch, Tokenizer,
};
use graft_graph::Tensor;
use graft_graph::model::Role;
use graft_plugins::Objective;
use graft_plugins::api::{Cell, Field, FieldKind, Row, Summary};

use crate::base::Base;
use crate::error::{Result, TaskError};
use crate::words;

/// Rows that were read, and their texts tokenised or their images decoded.
#[derive(Clone, Debug, Default)]
pub struct Examples {
    /// The fields of each row besides texts and images.
    pub rows: Vec<Row>,
    /// The tokens of each row; none where the rows are images.
    pub encodings: Vec<Encoding>,
    /// The images, one for each row; `None` where the rows are texts.
    pub images: Option<Images>,
    /// Rows that truncation cut.
    pub cut: usize,
    /// Where the rows come from, for messages.
    pub origin: String,
}

/// The tensors of a batch by input name.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Inputs of the base and of the objective.
    pub tensors: HashMap<String, Tensor>,
    /// Rows.
    pub rows: usize,
}

impl Examples {
    /// Reads the fields that an objective needs from a table. Rows without labels are allowed where `labelled` is
    /// false.
    ///
    /// # Errors
    /// A column that is not there, a blank cell, a text that can't be tokenised; each with its place.
    pub fn read(
        table: &Table,
        mapping: &Mapping,
        fields: &[Field],
        tokenizer: &Tokenizer,
        max_length: Option<usize>,
    ) -> Result<Examples> {
        let records = table.records(mapping)?;
        if let Some(words) = words::examples(table, &records, mapping, fields, tokenizer, max_length)? {
            return Ok(words);
        }
        let text_fields: Vec<&Field> = fields.iter().filter(|f| f.kind == FieldKind::TEXT).collect();
        let texts = text_fields
            .first()
            .and_then(|f| records.field(&f.name))
            .ok_or_else(|| missing(table.file(), text_fields.first().map_or("text", |f| &f.name)))?;
        let second = text_fields.get(1).and_then(|f| records.field(&f.name));
        let options = EncodeOptions { max_length, ..EncodeOptions::default() };
        let encoded = tokenizer.encode_batch(texts, second, &options)?;
        Ok(Examples {
            rows: other_fields(&records, fields),
            encodings: encoded.rows,
            images: None,
            cut: encoded.cut,
            origin: table.file().to_string(),
        })
    }

    /// The rows of a table whose images were read.
    ///
    /// # Errors
    /// A column that is not there, a blank cell; each with its place.
    pub fn of_table(table: &Table, mapping: &Mapping, fields: &[Field], images: Images) -> Result<Examples> {
        let rows = other_fields(&table.records(mapping)?, fields);
        Ok(Examples { rows, images: Some(images), origin: table.file().to_string(), ..Examples::default() })
    }

    /// Examples without labels from plain texts.
    ///
    /// # Errors
    /// A text that is blank or can't be tokenised.
    pub fn of_texts(texts: &[String], tokenizer: &Tokenizer, max_length: Option<usize>) -> Result<Examples> {
        if let Some(i) = texts.iter().position(|t| t.trim().is_empty()) {
            return Err(TaskError::Input { what: format!("text {}", i + 1), detail: "it is empty".into() });
        }
        let options = EncodeOptions { max_length, offsets: true, ..EncodeOptions::default() };
        let encoded = tokenizer.encode_batch(texts, None, &options)?;
        let rows = texts.iter().zip(&encoded.rows).map(|(t, e)| words::row(t, e, Row::default())).collect();
        let origin = "the given texts".into();
        Ok(Examples { rows, encodings: encoded.rows, images: None, cut: encoded.cut, origin })
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// True without rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Tokens of each row; 1 for each image.
    pub fn lengths(&self) -> Vec<usize> {
        if self.images.is_some() {
            return vec![1; self.len()];
        }
        self.encodings.iter().map(|e| e.ids.len()).collect()
    }

    /// The rows at these places.
    pub fn select(&self, rows: &[usize]) -> Examples {
        Examples {
            rows: rows.iter().map(|r| self.rows[*r].clone()).collect(),
            encodings: rows.iter().filter_map(|r| self.encodings.get(*r).cloned()).collect(),
            images: self.images.as_ref().map(|i| i.select(rows)),
            cut: rows.iter().filter_map(|r| self.encodings.get(*r)).filter(|e| e.is_cut()).count(),
            origin: self.origin.clone(),
        }
    }

    /// The values of a field that every row has.
    pub fn field(&self, name: &str) -> Option<Vec<String>> {
        self.rows.iter().map(|r| r.text(name)).collect()
    }

    /// What an objective gets to know of its training data: the counts of each label field. Labels of words and spans are
    /// counted one by one.
    pub fn summary(&self, fields: &[Field]) -> Summary {
        let counts = |f: &Field| {
            let mut counts: indexmap::IndexMap<String, u64> = indexmap::IndexMap::new();
            let values = self.rows.iter().filter_map(|r| r.text(&f.name));
            values.flat_map(|v| words::labels(f.kind, v)).for_each(|v| *counts.entry(v).or_default() += 1);
            counts.sort_keys();
            (f.name.clone(), counts.into_iter().collect())
        };
        let labels = fields.iter().filter(|f| words::has_labels(f.kind)).map(counts).collect();
        Summary { rows: self.len() as u64, labels }
    }

    /// The inputs of the base for these rows, padded to the longest of them, or to `length`.
    ///
    /// # Errors
    /// When the size overflows.
    pub fn base_batch(&self, base: &Base, rows: &[usize], pad: i64, length: Option<usize>) -> Result<Batch> {
        if let Some(images) = &self.images {
            let pixels = base.model.input(Role::Pixels).map(|v| base.graph.name_of(v).to_string());
            let tensors =
                pixels.map(|name| Ok((name, images.batch(rows)?))).into_iter().collect::<Result<_>>()?;
            return Ok(Batch { tensors, rows: rows.len() });
        }
        let encodings: Vec<&Encoding> = rows.iter().map(|r| &self.encodings[*r]).collect();
        let text = TextBatch::new(&encodings, &PadOptions { id: pad, length, ..PadOptions::default() })?;
        let shape = text.ids.shape().to_vec();
        let mut tensors = HashMap::new();
        for (value, role) in &base.model.inputs {
            let tensor = match role {
                Role::Ids => text.ids.clone(),
                Role::Mask => text.mask.clone(),
                Role::Types => text.type_ids.clone(),
                Role::Positions => {
                    let row: Vec<i64> = (0..shape[1] as i64).collect();
                    Tensor::new(shape.clone(), &row.repeat(shape[0]))?
                }
                _ => continue,
            };
            tensors.insert(base.graph.name_of(*value).to_string(), base.as_declared(*value, tensor)?);
        }
        Ok(Batch { tensors, rows: rows.len() })
    }

    /// The tensors that the objective makes of these rows.
    ///
    /// # Errors
    /// Whatever the objective finds wrong with them, for example a label that it does not know.
    pub fn collate(&self, objective: &Objective, rows: &[usize], seed: u64) -> Result<Vec<(String, Tensor)>> {
        let rows: Vec<Row> = rows.iter().map(|r| self.rows[*r].clone()).collect();
        let made = objective.collate(&rows, seed)?;
        made.into_iter()
            .map(|t| {
                let name = t.name.clone();
                Ok((
                    name,
                    graft_plugins::adapt::to_graph_tensor(t).map_err(|e| TaskError::Input {
                        what: format!("tensors of the objective '{}'", objective.id()),
                        detail: e.to_string(),
                    })?,
                ))
            })
            .collect()
    }
}

/// The cells of each row that are neither text nor image.
pub(crate) fn other_fields(records: &Records<'_>, fields: &[Field]) -> Vec<Row> {
    let inputs = [FieldKind::TEXT, FieldKind::IMAGE, FieldKind::WORDS];
    let raw = |f: &&Field| !inputs.contains(&f.kind);
    let others: Vec<(&str, &[&str])> =
        fields.iter().filter(raw).filter_map(|f| Some((f.name.as_str(), records.field(&f.name)?))).collect();
    let cell = |values: &[&str], r: usize| Cell::Text(values[r].to_owned());
    let row = |r: usize| Row { cells: others.iter().map(|(n, v)| (n.to_string(), cell(v, r))).collect() };
    (0..records.len()).map(row).collect()
}

fn missing(file: &str, field: &str) -> TaskError {
    TaskError::Input {
        what: file.to_string(),
        detail: format!("no column is named for the field '{field}'; say --{field} COLUMN"),
    }
}
