//! Graft's own file for an adapter that PEFT wrote.

use std::path::PathBuf;

use graft_adapters::{BaseRef, Component, GraftFile, HeadInfo, ObjectiveInfo, StoredAdapter};
use graft_plugins::{Method, Objective};
use serde_json::{Map, Value, json};

use crate::base::Base;
use crate::binding::{method_of, objective_of};
use crate::error::{Result, TaskError};
use crate::projections::fit_projections;
use crate::task::Fitted;

/// Adds to an adapter of PEFT's what only Graft keeps: the base's digest, the settings of method and objective, the names
/// of the labels. The adapter is fitted to the base, so that a wrong one is seen here.
///
/// # Errors
/// An adapter that is Graft's already or has no head; labels that are not as many as the head has; what does not fit the
/// base.
pub fn adopt(
    base: &Base,
    adapter: &StoredAdapter,
    labels: Option<Vec<String>>,
    plugin_dirs: &[PathBuf],
) -> Result<StoredAdapter> {
    let refuse = |detail: String| Err(TaskError::Input { what: adapter.dir.display().to_string(), detail });
    if adapter.graft.is_some() {
        return refuse("it has Graft's own file already; convert it --to peft, or use it as it is".into());
    }
    let adapter = &*fit_projections(base, adapter)?;
    let (Some(head), Some(choice)) = (&adapter.head, objective_of(base, adapter)) else {
        return refuse("it has no head, so there is no objective to describe; Graft uses it as it is".into());
    };
    let mut config = object(choice.config);
    if let Some(labels) = labels {
        let rows = head.tensors.get("weight").map_or(0, |w| w.shape().first().copied().unwrap_or(0));
        if labels.len() != rows {
            return refuse(format!("its head has {rows} outputs, and {} labels were given", labels.len()));
        }
        config.insert("labels".into(), json!(labels));
    }
    let objective = Objective::find(plugin_dirs, &choice.id, &Value::Object(config))?;
    let method = method_of(base, adapter)?;
    let method = method.map(|m| Method::find(plugin_dirs, &m.id, &m.config)).transpose()?;
    let Some(method) = method else { return refuse("its method is not known".into()) };
    let config = object(objective.config().clone());
    let names = config.get("labels").and_then(Value::as_array).into_iter().flatten();
    let names = names.filter_map(|v| v.as_str().map(str::to_owned)).collect();
    let pooling = config.get("pooling").and_then(Value::as_str).map(str::to_owned);
    let mut graft = GraftFile::new(
        Component { id: method.id().into(), config: object(method.config().clone()) },
        ObjectiveInfo { id: objective.id().into(), config, labels: names },
        BaseRef { digest: base.digest()?.to_owned(), name: base.name(), model_type: base.model_type.clone() },
    );
    graft.head = Some(HeadInfo { pooling, module: head.module.clone(), not_stock: None });
    let adopted = StoredAdapter { graft: Some(graft), ..adapter.clone() };
    Fitted::open(base, &adopted, plugin_dirs)?;
    Ok(adopted)
}

fn object(v: Value) -> Map<String, Value> {
    if let Value::Object(map) = v { map } else { Map::new() }
}
