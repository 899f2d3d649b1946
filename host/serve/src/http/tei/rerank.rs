//! `/rerank` as this dialect has it, and the scores that the other one takes from here.

use std::sync::Arc;
use std::time::Instant;

use axum::response::Response;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{done, only_right};
use crate::app::App;
use crate::ask::{Answered, Ask, Refusal};
use crate::http::answers::{Answer, paired, sigmoid};
use crate::http::call::{Call, Parameters};
use crate::http::openapi::{right, texts};
use crate::store::Resident;

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "RerankRequest")]
pub(in crate::http) struct Request {
    query: String,
    #[schemars(schema_with = "texts")]
    texts: Vec<String>,
    truncate: Option<bool>,
    #[serde(default)]
    #[schemars(schema_with = "right")]
    truncation_direction: Option<String>,
    #[serde(default)]
    raw_scores: bool,
    #[serde(default)]
    return_text: bool,
    model: Option<String>,
    parameters: Option<Parameters>,
}

#[derive(Serialize)]
struct Rank {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    score: f64,
}

/// The score of each text for the query, in order; only an adapter that gives one number of a pair has them.
pub(crate) async fn scores(
    call: &Call,
    resident: &Arc<Resident>,
    query: &str,
    texts: Vec<String>,
    truncate: bool,
    raw: bool,
) -> Result<(Vec<f64>, Answered), Refusal> {
    let unfit = || Refusal::Unfit("the adapter is no reranker: it does not give one number of a pair".into());
    if resident.objective() != Some("regression") {
        return Err(unfit());
    }
    let texts = paired(call.caller.app.engine(), query, texts)?;
    let ask = Ask { truncate, ..Ask::new(None, texts, crate::ask::Want::Answer) };
    let answered = call.ask(resident, ask).await?;
    let score = |answer| match Answer::of(answer, resident)? {
        Answer::Number(x) => Ok(if raw { x } else { sigmoid(x) }),
        _ => Err(unfit()),
    };
    let scores = answered.answers.iter().map(score).collect::<Result<_, _>>()?;
    Ok((scores, answered))
}

pub(crate) async fn answer(app: &App, call: &Call) -> Result<Response, Refusal> {
    let began = Instant::now();
    let request: Request = call.read()?;
    only_right(request.truncation_direction.as_deref())?;
    let resident = call.resident(call.adapter(&request.model, request.parameters.as_ref())).await?;
    if request.texts.is_empty() {
        return Err(Refusal::Empty("`texts` is empty".into()));
    }
    let of_query = request.query.chars().count() * request.texts.len();
    let chars = of_query + request.texts.iter().map(|t| t.chars().count()).sum::<usize>();
    let kept = request.return_text.then(|| request.texts.clone());
    let truncate = request.truncate.unwrap_or(app.settings().truncate);
    let (scores, answered) =
        scores(call, &resident, &request.query, request.texts, truncate, request.raw_scores).await?;
    let text = |i: usize| kept.as_ref().and_then(|k| k.get(i).cloned());
    let rank = |(index, score)| Rank { index, text: text(index), score };
    let mut ranks: Vec<Rank> = scores.into_iter().enumerate().map(rank).collect();
    ranks.sort_by(|a, b| b.score.total_cmp(&a.score));
    Ok(done(app, &answered, chars, began, ranks))
}
