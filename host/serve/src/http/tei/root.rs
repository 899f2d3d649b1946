//! `POST /`, which Hugging Face's clients ask when they are given the address of a server: what is answered depends on
//! what the adapter gives, in the shape of Hugging Face's pipelines.

use std::time::Instant;

use axum::response::Response;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde_json::{Value, json};

use super::predict::{Inputs, predictions};
use super::{characters, done, embed};
use crate::app::App;
use crate::ask::{Ask, Refusal, Want};
use crate::http::call::{Call, Parameters};

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "RootRequest")]
pub(in crate::http) struct Request {
    #[schemars(schema_with = "inputs")]
    inputs: Value,
    model: Option<String>,
    parameters: Option<Parameters>,
}

/// What labels are made of, or vectors, or cosines.
fn inputs(generator: &mut SchemaGenerator) -> Schema {
    let all = [
        generator.subschema_for::<Inputs>(),
        generator.subschema_for::<embed::Inputs>(),
        generator.subschema_for::<embed::Compared>(),
    ];
    json_schema!({ "anyOf": all })
}

pub(super) async fn answer(app: &App, call: &Call) -> Result<Response, Refusal> {
    let began = Instant::now();
    let request: Request = call.read()?;
    let parameters = request.parameters.unwrap_or_default();
    let resident = call.resident(call.adapter(&request.model, Some(&parameters))).await?;
    if request.inputs.get("source_sentence").is_some() {
        return embed::similarity(app, call).await;
    }
    if matches!(resident.objective(), None | Some("embedding")) {
        return embed::answer(app, call).await;
    }
    let inputs: Inputs =
        serde_json::from_value(request.inputs).map_err(|e| Refusal::Invalid(e.to_string()))?;
    let (texts, batch) = inputs.texts()?;
    let chars = characters(&texts);
    let truncate = parameters.truncate.unwrap_or(app.settings().truncate);
    let answered = call.ask(&resident, Ask { truncate, ..Ask::new(None, texts, Want::Answer) }).await?;
    let mut all = Vec::with_capacity(answered.answers.len());
    for answer in &answered.answers {
        let mut one = predictions(answer, &resident, false)?;
        if let (Some(n), Some(list)) = (parameters.top_k, one.as_array_mut()) {
            list.truncate(n);
        }
        all.push(one);
    }
    // The pipeline for labels gives a list for each text even of one text, that for spans does not.
    let spans = resident.objective() == Some("token-classification");
    let body = if spans && !batch { all.pop().unwrap_or_default() } else { json!(all) };
    Ok(done(app, &answered, chars, began, body))
}
