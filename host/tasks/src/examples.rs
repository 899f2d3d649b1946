//! Examples: rows of fields, tokenised or decoded once, made into batches.

use std::collections::HashMap;

use graft_data::{EncodeOptions, Encoding, Images, Mapping, PadOptions, Table, TextBatch, Tokenizer};
use graft_graph::Tensor;
use graft_graph::model::Role;
use graft_plugins::Objective;
use graft_plugins::api::{Field, FieldKind, Row, Summary};
use indexmap::IndexMap;

use crate::base::Base;
use crate::error::{Result, TaskError};
use crate::fields;
use crate::words;

/// Rows that were read, and their texts tokenised or their images decoded.
#[derive(Clone, Debug, Default)]
pub struct Examples {
    /// The fields of each row besides texts and images.
    pub rows: Vec<Row>,
    /// The tokens of each row; none where the rows are images.
    pub encodings: Vec<Encoding>,
    /// Tokens of further texts that are rows of their own in the base's batch: by field one list, with an item a row.
    pub further: IndexMap<String, Vec<Encoding>>,
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
        let records = fields::records(table, mapping, fields)?;
        if let Some(words) = words::examples(table, &records, mapping, fields, tokenizer, max_length)? {
            return Ok(words);
        }
        let of_kind = |kind| fields.iter().filter(move |f: &&Field| f.kind == kind);
        let mut texts = of_kind(FieldKind::TEXT);
        let first = texts.next().map_or("text", |f| &f.name);
        let column = records.field(first).ok_or_else(|| missing(table.file(), first))?;
        let second = texts.next().and_then(|f| records.field(&f.name));
        let options = EncodeOptions { max_length, ..EncodeOptions::default() };
        let encoded = tokenizer.encode_batch(column, second, &options)?;
        let mut cut = encoded.cut;
        let mut further = IndexMap::new();
        for f in of_kind(FieldKind::TEXT_APART) {
            let Some(texts) = records.field(&f.name) else { continue };
            let encoded = tokenizer.encode_batch(texts, None, &options)?;
            cut += encoded.cut;
            further.insert(f.name.clone(), encoded.rows);
        }
        Ok(Examples {
            rows: fields::rows(table, mapping, fields)?,
            encodings: encoded.rows,
            further,
            images: None,
            cut,
            origin: table.file().to_string(),
        })
    }

    /// The rows of a table whose images were read.
    ///
    /// # Errors
    /// A column that is not there, a blank cell; each with its place.
    pub fn of_table(table: &Table, mapping: &Mapping, fields: &[Field], images: Images) -> Result<Examples> {
        let rows = fields::rows(table, mapping, fields)?;
        Ok(Examples { rows, images: Some(images), origin: table.file().to_string(), ..Examples::default() })
    }

    /// Examples without labels from plain texts, or from pairs where `second` is given.
    ///
    /// # Errors
    /// A text that is blank or can't be tokenised; another number of second texts.
    pub fn of_texts(
        texts: &[String],
        second: Option<&[String]>,
        tokenizer: &Tokenizer,
        max_length: Option<usize>,
    ) -> Result<Examples> {
        for list in [Some(texts), second].into_iter().flatten() {
            if let Some(i) = list.iter().position(|t| t.trim().is_empty()) {
                return Err(TaskError::Input {
                    what: format!("text {}", i + 1),
                    detail: "it is empty".into(),
                });
            }
        }
        let options = EncodeOptions { max_length, offsets: second.is_none(), ..EncodeOptions::default() };
        let encoded = tokenizer.encode_batch(texts, second, &options)?;
        let tokens = texts.iter().zip(&encoded.rows).map(|(t, e)| words::row(t, e, Row::default()));
        // What points into a text needs to know which.
        let rows = if second.is_none() { tokens.collect() } else { vec![Row::default(); texts.len()] };
        Ok(Examples {
            rows,
            encodings: encoded.rows,
            cut: encoded.cut,
            origin: "the given texts".into(),
            ..Examples::default()
        })
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// True without rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Rows of the base's batch for each example: 1, and 1 for each further text.
    pub fn stack(&self) -> usize {
        1 + self.further.len()
    }

    /// Whether a base is fed the same for `other`: the same tokens or pixels, row by row.
    pub fn has_inputs_of(&self, other: &Examples) -> bool {
        let alike = |a: &[Encoding], b: &[Encoding]| {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.ids == b.ids && a.type_ids == b.type_ids)
        };
        let further = self.further.values().zip(other.further.values());
        self.len() == other.len()
            && self.images == other.images
            && alike(&self.encodings, &other.encodings)
            && self.further.len() == other.further.len()
            && further.into_iter().all(|(a, b)| alike(a, b))
    }

    /// Tokens of each row, those of its longest text; 1 for each image.
    pub fn lengths(&self) -> Vec<usize> {
        if self.images.is_some() {
            return vec![1; self.len()];
        }
        let longest = |r: usize| self.texts_of(r).map(|e| e.ids.len()).max().unwrap_or(0);
        (0..self.encodings.len()).map(longest).collect()
    }

    fn texts_of(&self, row: usize) -> impl Iterator<Item = &Encoding> {
        std::iter::once(&self.encodings).chain(self.further.values()).filter_map(move |t| t.get(row))
    }

    /// The rows at these places with the first of their texts alone.
    pub fn first_texts(&self, rows: &[usize]) -> Examples {
        Examples { further: IndexMap::new(), ..self.select(rows) }
    }

    /// The rows at these places.
    pub fn select(&self, rows: &[usize]) -> Examples {
        let chosen = |texts: &Vec<Encoding>| rows.iter().filter_map(|r| texts.get(*r).cloned()).collect();
        Examples {
            rows: rows.iter().map(|r| self.rows[*r].clone()).collect(),
            encodings: chosen(&self.encodings),
            further: self.further.iter().map(|(n, texts)| (n.clone(), chosen(texts))).collect(),
            images: self.images.as_ref().map(|i| i.select(rows)),
            cut: rows.iter().flat_map(|r| self.texts_of(*r)).filter(|e| e.is_cut()).count(),
            origin: self.origin.clone(),
        }
    }

    /// The values of a field that every row has.
    pub fn field(&self, name: &str) -> Option<Vec<String>> {
        self.rows.iter().map(|r| r.text(name)).collect()
    }

    /// What an objective gets to know of its training data: counts of labels, statistics of numbers, which fields there
    /// are.
    pub fn summary(&self, fields: &[Field]) -> Summary {
        fields::summary(self, fields)
    }

    /// The inputs of the base for these rows, padded to the longest of them, or to `length`. Further texts follow in rows
    /// of their own: first the first text of every row, then the second of every row, and so on.
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
        let texts = std::iter::once(&self.encodings).chain(self.further.values());
        let encodings: Vec<&Encoding> = texts.flat_map(|t| rows.iter().map(|r| &t[*r])).collect();
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

fn missing(file: &str, field: &str) -> TaskError {
    TaskError::Input {
        what: file.to_string(),
        detail: format!("no column is named for the field '{field}'; say --{field} COLUMN"),
    }
}
