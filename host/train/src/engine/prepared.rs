//! Prepared batches from a tensors file: `input_ids:STEP`, `labels:STEP` …, or `:STEP.MICRO` for several micro-batches.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use graft_adapters::read_tensors;
use graft_tasks::{Base, TaskError};

use super::source::TrainBatch;

/// Reads the steps of a file in their order, each as its micro-batches. Names other than `inputs` are ignored: a file
/// may hold reference losses beside them.
///
/// # Errors
/// A step that lacks an input which others have, or a file without any.
pub(super) fn read(path: &Path, base: &Base, inputs: &[String]) -> Result<Vec<Vec<TrainBatch>>, TaskError> {
    let fail = |detail: String| TaskError::Input { what: path.display().to_string(), detail };
    let mut steps: BTreeMap<(u64, u64), TrainBatch> = BTreeMap::new();
    for (key, tensor) in read_tensors(path)? {
        let Some((name, at)) = key.rsplit_once(':').filter(|(n, _)| inputs.iter().any(|i| i == n)) else {
            continue;
        };
        let (step, micro) = at.split_once('.').unwrap_or((at, "0"));
        let place = step.parse().ok().zip(micro.parse().ok());
        let place =
            place.ok_or_else(|| fail(format!("tensor '{key}': expected NAME:STEP or NAME:STEP.MICRO")))?;
        let rows =
            *tensor.shape().first().ok_or_else(|| fail(format!("tensor '{key}' has no batch axis")))?;
        let batch = steps.entry(place).or_default();
        if batch.rows != 0 && batch.rows != rows {
            return Err(fail(format!(
                "tensor '{key}' has {rows} rows, others of its step have {}",
                batch.rows
            )));
        }
        batch.rows = rows;
        batch.tensors.insert(name.to_string(), tensor);
    }
    let there: BTreeSet<&String> = steps.values().flat_map(|b| b.tensors.keys()).collect();
    if there.is_empty() {
        return Err(fail(format!("it has no tensor called NAME:STEP for one of {}", inputs.join(", "))));
    }
    for ((step, _), batch) in &steps {
        if let Some(missing) = there.iter().find(|n| !batch.tensors.contains_key(n.as_str())) {
            return Err(fail(format!("step {step} lacks '{missing}', which other steps have")));
        }
    }
    for batch in steps.values_mut() {
        let implied = base.imply_inputs(&|n| batch.tensors.get(n).cloned())?;
        batch.tensors.extend(implied);
    }
    let mut grouped: BTreeMap<u64, Vec<TrainBatch>> = BTreeMap::new();
    for ((step, _), batch) in steps {
        grouped.entry(step).or_default().push(batch);
    }
    Ok(grouped.into_values().collect())
}
