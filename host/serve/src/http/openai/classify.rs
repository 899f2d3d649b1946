//! vLLM's `/classify`.

use axum::Json;
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{id, may_cut, now, usage};
use crate::app::App;
use crate::ask::{Ask, Refusal};
use crate::http::answers::{Answer, sigmoid, want};
use crate::http::call::{Call, Parameters, signed_answer};
use crate::http::openapi::all_that_fits;
use crate::http::tei::Inputs;

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "ClassifyRequest")]
pub(in crate::http) struct Request {
    input: Inputs,
    model: Option<String>,
    #[serde(default)]
    #[schemars(schema_with = "all_that_fits")]
    truncate_prompt_tokens: Option<i64>,
    #[serde(alias = "activation")]
    use_activation: Option<bool>,
    parameters: Option<Parameters>,
}

pub(in crate::http) async fn answer(app: &App, call: &Call) -> Result<Response, Refusal> {
    let request: Request = call.read()?;
    let resident = call.resident(call.adapter(&request.model, request.parameters.as_ref())).await?;
    let raw = request.use_activation == Some(false);
    let truncate = may_cut(request.truncate_prompt_tokens)?;
    let ask = Ask { truncate, ..Ask::new(None, request.input.texts(), want(&resident, raw)) };
    let answered = call.ask(&resident, ask).await?;
    let mut data = Vec::with_capacity(answered.answers.len());
    for (index, answer) in answered.answers.iter().enumerate() {
        let scored = match Answer::of(answer, &resident)? {
            Answer::Labels(all) | Answer::Numbers(all) => all,
            Answer::Number(x) => vec![("LABEL_0".to_owned(), if raw { x } else { sigmoid(x) })],
            Answer::Spans(_) | Answer::Vector => {
                return Err(Refusal::Unfit("the adapter does not classify texts".into()));
            }
        };
        let best = scored.iter().max_by(|a, b| a.1.total_cmp(&b.1)).map(|(label, _)| label.clone());
        let probs: Vec<f64> = scored.iter().map(|(_, p)| *p).collect();
        data.push(json!({ "index": index, "label": best, "probs": probs, "num_classes": probs.len() }));
    }
    let body = json!({
        "id": id("classify"),
        "object": "list",
        "created": now(),
        "model": app.name_of(&resident),
        "data": Value::Array(data),
        "usage": usage(&answered),
    });
    Ok(signed_answer(app, &answered, Json(body).into_response()))
}
