//! What models are, in the wire's messages.

use super::wire::model_metadata_response::TensorMetadata;
use super::wire::repository_index_response::ModelIndex;
use super::wire::{
    DataType, InferStatistics, ModelConfig, ModelInput, ModelMetadataResponse, ModelOutput, ModelParameter,
    ModelStatistics, StatisticDuration,
};
use crate::store::{Resident, Store};
use crate::tally::Spent;
use crate::v2::models::{self, INPUTS, OUTPUTS, TensorInfo, config_type};
use crate::v2::repository::Entry;

pub fn metadata(store: &Store, name: String, model: &Resident) -> ModelMetadataResponse {
    let tensor = |t: &TensorInfo| TensorMetadata {
        name: t.name.into(),
        datatype: t.datatype.into(),
        shape: t.shape.to_vec(),
    };
    let properties = models::properties(store, model).into_iter();
    ModelMetadataResponse {
        name,
        versions: vec![model.by.revision.to_string()],
        platform: models::PLATFORM.into(),
        inputs: INPUTS.iter().map(tensor).collect(),
        outputs: OUTPUTS.iter().map(tensor).collect(),
        properties: properties.map(|(name, value)| (name.to_owned(), value)).collect(),
    }
}

pub fn config(store: &Store, name: String, model: &Resident) -> ModelConfig {
    let kind = |t: &TensorInfo| DataType::from_str_name(config_type(t.datatype)).unwrap_or_default().into();
    let input = |t: &TensorInfo| ModelInput {
        name: t.name.into(),
        data_type: kind(t),
        dims: t.shape.to_vec(),
        optional: true,
    };
    let output =
        |t: &TensorInfo| ModelOutput { name: t.name.into(), data_type: kind(t), dims: t.shape.to_vec() };
    let parameter = |(name, value): (&str, String)| (name.to_owned(), ModelParameter { string_value: value });
    ModelConfig {
        name,
        platform: models::PLATFORM.into(),
        backend: models::BACKEND.into(),
        max_batch_size: 0,
        input: INPUTS.iter().map(input).collect(),
        output: OUTPUTS.iter().map(output).collect(),
        parameters: models::properties(store, model).into_iter().map(parameter).collect(),
    }
}

pub fn statistics(store: &Store, model: &Resident) -> ModelStatistics {
    let counts = model.tally.counts();
    let spent = |s: Spent| Some(StatisticDuration { count: s.count, ns: s.nanoseconds });
    ModelStatistics {
        name: models::name(store, model).to_owned(),
        version: model.by.revision.to_string(),
        last_inference: counts.last,
        inference_count: counts.rows,
        execution_count: counts.success.count,
        inference_stats: Some(InferStatistics {
            success: spent(counts.success),
            fail: spent(counts.fail),
            queue: spent(counts.queue),
            compute_input: spent(counts.tokenization),
            compute_infer: spent(counts.inference),
            compute_output: spent(Spent::default()),
        }),
    }
}

pub fn entry(entry: Entry) -> ModelIndex {
    let Entry { name, version, state, reason } = entry;
    ModelIndex { name, version, state: state.into(), reason: reason.into() }
}
