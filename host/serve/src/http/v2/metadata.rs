//! What the server and its models are, in JSON.

use axum::Json;
use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use super::ModelPath;
use crate::app::Caller;
use crate::store::{Resident, Store};
use crate::tally::Spent;
use crate::v2::models::{self, INPUTS, OUTPUTS, TensorInfo, config_type};
use crate::v2::repository::Entry;
use crate::v2::{EXTENSIONS, Fault, SERVER, VERSION};

pub async fn server() -> Json<Value> {
    Json(json!({ "name": SERVER, "version": VERSION, "extensions": EXTENSIONS }))
}

pub async fn model(caller: Caller, path: ModelPath) -> Result<Json<Value>, Fault> {
    let Path(path) = path?;
    let model = models::find(&caller, &path.model, &path.version).await?;
    let tensor = |t: &TensorInfo| json!({ "name": t.name, "datatype": t.datatype, "shape": t.shape });
    let parameters: Map<String, Value> = models::properties(&caller.app.engine().store, &model)
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.into()))
        .collect();
    Ok(Json(json!({
        "name": path.model,
        "versions": [model.by.revision.to_string()],
        "platform": models::PLATFORM,
        "inputs": INPUTS.iter().map(tensor).collect::<Vec<_>>(),
        "outputs": OUTPUTS.iter().map(tensor).collect::<Vec<_>>(),
        "parameters": parameters,
    })))
}

pub async fn config(caller: Caller, path: ModelPath) -> Result<Json<Value>, Fault> {
    let Path(path) = path?;
    let model = models::find(&caller, &path.model, &path.version).await?;
    let tensor =
        |t: &TensorInfo| json!({ "name": t.name, "data_type": config_type(t.datatype), "dims": t.shape });
    let input = |t: &TensorInfo| {
        let mut tensor = tensor(t);
        tensor["optional"] = true.into();
        tensor
    };
    let parameters: Map<String, Value> = models::properties(&caller.app.engine().store, &model)
        .into_iter()
        .map(|(name, value)| (name.to_owned(), json!({ "string_value": value })))
        .collect();
    Ok(Json(json!({
        "name": path.model,
        "platform": models::PLATFORM,
        "backend": models::BACKEND,
        "max_batch_size": 0,
        "input": INPUTS.iter().map(input).collect::<Vec<_>>(),
        "output": OUTPUTS.iter().map(tensor).collect::<Vec<_>>(),
        "parameters": parameters,
    })))
}

pub async fn statistics(caller: Caller, path: ModelPath) -> Result<Json<Value>, Fault> {
    let Path(path) = path?;
    let model = models::find(&caller, &path.model, &path.version).await?;
    Ok(Json(json!({ "model_stats": [of_model(&caller.app.engine().store, &model)] })))
}

pub async fn all_statistics(caller: Caller) -> Result<Json<Value>, Fault> {
    let store = &caller.app.engine().store;
    let all: Vec<Value> = caller.residents()?.iter().map(|m| of_model(store, m)).collect();
    Ok(Json(json!({ "model_stats": all })))
}

fn of_model(store: &Store, model: &Resident) -> Value {
    let counts = model.tally.counts();
    let spent = |s: Spent| json!({ "count": s.count, "ns": s.nanoseconds });
    let none = || spent(Spent::default());
    json!({
        "name": models::name(store, model),
        "version": model.by.revision.to_string(),
        "last_inference": counts.last,
        "inference_count": counts.rows,
        "execution_count": counts.success.count,
        "inference_stats": {
            "success": spent(counts.success),
            "fail": spent(counts.fail),
            "queue": spent(counts.queue),
            "compute_input": spent(counts.tokenization),
            "compute_infer": spent(counts.inference),
            "compute_output": none(),
            "cache_hit": none(),
            "cache_miss": none(),
        },
        "response_stats": {},
        "batch_stats": [],
        "memory_usage": [],
    })
}

/// The models of the repository.
pub fn index(entries: &[Entry]) -> Response {
    let entry =
        |e: &Entry| json!({ "name": e.name, "version": e.version, "state": e.state, "reason": e.reason });
    Json(entries.iter().map(entry).collect::<Vec<_>>()).into_response()
}
