//! From files to examples.

use std::path::Path;

use graft_adapters::DataFile;
use graft_data::{Mapping, NumberStats, Stats, Table};
use graft_plugins::api::{Field, FieldKind, Summary};
use graft_tasks::{Base, Examples, Intake, table_options};

use super::job::JobError;
use super::source::TrainBatch;
use crate::recipe::Recipe;

/// Reads a run's tables; the tokenizer or preprocessor is loaded with the first of them.
pub(super) struct Reader<'a> {
    pub(super) recipe: &'a Recipe,
    pub(super) base: &'a Base,
    pub(super) fields: &'a [Field],
    pub(super) intake: Option<Intake>,
    pub(super) data: Vec<DataFile>,
    /// Places that the method's virtual tokens take from texts.
    pub(super) virtual_tokens: usize,
}

impl Reader<'_> {
    /// The examples of a file.
    ///
    /// # Errors
    /// A column that is not there, a bad row, a missing tokenizer.
    pub(super) fn read(&mut self, path: &Path, role: &str) -> Result<Examples, JobError> {
        let intake = match self.intake.take() {
            Some(i) => i,
            None => Intake::open(self.base)?,
        };
        let mut mapping = Mapping::new();
        for f in self.fields.iter().filter(|f| intake.reads(f)) {
            // Columns that are not named are called like their fields.
            let given = self.recipe.columns.get(&f.name);
            if let Some(column) = given.or(f.required.then_some(&f.name)) {
                mapping = mapping.with(f.name.clone(), column.clone());
            }
        }
        let options = table_options(&mapping, self.fields, self.recipe.encoding.clone());
        let table = Table::read(path, &options)?;
        let max = self.base.max_length(self.recipe.max_length, self.virtual_tokens)?;
        let examples = intake.examples(&table, path, &mapping, self.fields, max)?;
        self.intake = Some(intake);
        let name = path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
        let (digest, rows) = (table.digest().to_string(), examples.len() as u64);
        self.data.push(DataFile { role: role.into(), name, digest, rows });
        Ok(examples)
    }
}

/// Names of tensors that a file of prepared batches may hold.
pub(super) fn batch_inputs(base: &Base) -> Vec<String> {
    let inputs = base.graph.inputs.iter().map(|v| base.graph.name_of(*v).to_string());
    inputs.chain(["labels".to_string()]).collect()
}

/// The labels of prepared batches are numbers; they are counted by name all the same.
pub(super) fn label_numbers(batches: &[Vec<TrainBatch>]) -> Summary {
    let mut counts: std::collections::BTreeMap<i64, u64> = std::collections::BTreeMap::new();
    let labels = batches.iter().flatten().filter_map(|b| b.tensors.get("labels")?.to_i64s());
    labels.flatten().for_each(|l| *counts.entry(l).or_default() += 1);
    let rows = counts.values().sum();
    // What an adapter calls its labels is in its own file; here only their number and order count.
    let named = counts.into_iter().map(|(l, n)| (format!("LABEL_{l}"), n)).collect();
    Summary { rows, labels: vec![("label".into(), named)], ..Summary::default() }
}

/// Class balance, lengths and numbers of the training data.
pub(super) fn stats(train: &Examples, fields: &[Field], summary: &Summary) -> Stats {
    let field = fields.iter().find(|f| f.kind == FieldKind::LABEL);
    let cells = field.and_then(|f| train.field(&f.name));
    let labels: Option<Vec<&str>> =
        field.zip(cells.as_ref()).map(|(f, cells)| cells.iter().flat_map(|c| f.values(c)).collect());
    let mut stats = Stats::new(train.len(), labels.as_deref(), Some(&train.encodings));
    let numbers = summary.numbers.iter().map(|(field, n)| NumberStats {
        field: field.clone(),
        mean: n.mean,
        deviation: n.deviation,
        low: n.low,
        high: n.high,
    });
    stats.numbers = numbers.collect();
    stats
}
