//! From the tensors of a call to its answers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::task::JoinSet;

use super::fault::{Fault, Kind};
use super::models::OUTPUTS;
use super::rows::Rows;
use super::tensor::{Input, encode_bytes};
use crate::app::Caller;
use crate::ask::{Answered, Ask, Provenance, Refusal, Text, Times, Want};
use crate::store::Resident;

/// A call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// The model as the caller names it.
    pub model: String,
    /// The inputs.
    pub inputs: Vec<Input>,
    /// The outputs that are wanted; all where there is none.
    pub outputs: Vec<String>,
    /// How long the answer is of use.
    pub timeout: Option<Duration>,
}

/// The elements of an output, one a row.
#[derive(Debug, Clone, PartialEq)]
pub enum Outputs {
    /// Of BYTES.
    Bytes(Vec<String>),
    /// Of FP32.
    Floats(Vec<f32>),
}

/// An output of a call.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// Its name.
    pub name: &'static str,
    /// Its type, in the protocol's words.
    pub datatype: &'static str,
    /// Its elements.
    pub data: Outputs,
}

/// What a call is answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Response {
    /// The model that was called.
    pub model: String,
    /// The version of it that answered.
    pub version: u64,
    /// The wanted outputs.
    pub outputs: Vec<Output>,
    /// What made all rows; `None` where they have several adapters.
    pub by: Option<Provenance>,
    /// Where the time went; where rows have several adapters, the longest of each.
    pub times: Times,
}

impl Output {
    /// How many elements there are.
    pub fn rows(&self) -> usize {
        match &self.data {
            Outputs::Bytes(all) => all.len(),
            Outputs::Floats(all) => all.len(),
        }
    }

    /// The bytes of its elements.
    ///
    /// # Errors
    /// In words: an element of 4 GiB.
    pub fn to_raw(&self) -> Result<Vec<u8>, String> {
        match &self.data {
            Outputs::Bytes(all) => encode_bytes(all),
            Outputs::Floats(all) => Ok(all.iter().flat_map(|x| x.to_le_bytes()).collect()),
        }
    }
}

/// The rows of one adapter.
struct Group {
    resident: Arc<Resident>,
    places: Vec<usize>,
    texts: Vec<Text>,
}

/// Answers a call to a model that was found: the rows of each adapter in one request to the engine, all at once. The model
/// answers as the revision that it is, though it may be replaced meanwhile.
///
/// # Errors
/// See [`Fault`]. Nothing is answered where one row can't be.
pub async fn infer(caller: &Caller, model: &Arc<Resident>, request: Request) -> Result<Response, Fault> {
    let wanted = wanted(&request.outputs)?;
    let rows = Rows::of(request.inputs, caller.app.engine().limits.texts)?;
    let count = rows.texts.len();
    let groups = groups(caller, model, rows).await?;
    let deadline = caller.deadline(request.timeout);
    let mut answers: Vec<Option<(Value, u64)>> = vec![None; count];
    let (mut by, mut times) = (Vec::new(), Times::default());
    for (places, answered) in ask(caller, groups, deadline).await? {
        for (place, answer) in places.into_iter().zip(answered.answers) {
            answers[place] = Some((answer, answered.by.revision));
        }
        by.push(answered.by);
        times = times.longest(answered.times);
    }
    let answers: Vec<(Value, u64)> = answers.into_iter().flatten().collect();
    if answers.len() != count {
        return Err(Fault::new(Kind::Internal, "a row was left without an answer"));
    }
    let outputs = OUTPUTS.iter().enumerate().filter(|(i, _)| wanted[*i]);
    let outputs =
        outputs.map(|(_, o)| Output { name: o.name, datatype: o.datatype, data: elements(o.name, &answers) });
    let by = if by.len() == 1 { by.pop() } else { None };
    let version = model.by.revision;
    Ok(Response { model: request.model, version, outputs: outputs.collect(), by, times })
}

/// Which of [`OUTPUTS`] are wanted.
fn wanted(names: &[String]) -> Result<Vec<bool>, Fault> {
    let mut wanted = vec![names.is_empty(); OUTPUTS.len()];
    for name in names {
        let known = OUTPUTS.iter().position(|o| o.name == name);
        let known = known.ok_or_else(|| {
            let all = OUTPUTS.map(|o| o.name).join(", ");
            Fault::invalid(format!("there is no output '{name}'; there are {all}"))
        })?;
        wanted[known] = true;
    }
    Ok(wanted)
}

/// The rows by adapter, in the order in which adapters first occur.
async fn groups(caller: &Caller, model: &Arc<Resident>, rows: Rows) -> Result<Vec<Group>, Fault> {
    let mut groups: Vec<Group> = Vec::new();
    let mut of_name = std::collections::HashMap::new();
    for (place, (text, adapter)) in rows.texts.into_iter().zip(rows.adapters).enumerate() {
        let group = match of_name.get(&adapter) {
            Some(group) => *group,
            None => {
                let mut resident = Arc::clone(model);
                if !adapter.is_empty() {
                    let found = caller.resident(&adapter).await?;
                    // By its name too it is the revision that was called.
                    if found.by.adapter != model.by.adapter {
                        resident = found;
                    }
                }
                let same = |g: &Group| g.resident.by.adapter == resident.by.adapter;
                let group = groups.iter().position(same).unwrap_or(groups.len());
                if group == groups.len() {
                    groups.push(Group { resident, places: Vec::new(), texts: Vec::new() });
                }
                of_name.insert(adapter, group);
                group
            }
        };
        groups[group].places.push(place);
        groups[group].texts.push(text);
    }
    Ok(groups)
}

/// The answers of all groups. Dropping the future gives up all of them.
async fn ask(
    caller: &Caller,
    mut groups: Vec<Group>,
    deadline: Option<Instant>,
) -> Result<Vec<(Vec<usize>, Answered)>, Fault> {
    let one = |Group { resident, places, texts }: Group| {
        let headless = matches!(resident.form(&caller.app.engine().store, Want::Answer), Ok(None));
        let want = if headless { Want::Vector } else { Want::Answer };
        let ask = Ask { deadline, ..Ask::new(None, texts, want) };
        let caller = caller.clone();
        async move { Ok::<_, Refusal>((places, caller.ask(&resident, ask).await?)) }
    };
    // Of one adapter, as most calls are: no task for it.
    if groups.len() == 1
        && let Some(group) = groups.pop()
    {
        return Ok(vec![one(group).await?]);
    }
    let mut running = JoinSet::new();
    for group in groups {
        running.spawn(one(group));
    }
    let mut all = Vec::new();
    while let Some(done) = running.join_next().await {
        all.push(done.map_err(|_| Fault::new(Kind::Internal, "a request to the engine failed"))??);
    }
    Ok(all)
}

/// The elements of an output.
fn elements(name: &str, answers: &[(Value, u64)]) -> Outputs {
    let label = |a: &Value| a.get("label").and_then(Value::as_str).unwrap_or_default().to_owned();
    match name {
        "score" => Outputs::Floats(answers.iter().map(|(a, _)| score(a)).collect()),
        "label" => Outputs::Bytes(answers.iter().map(|(a, _)| label(a)).collect()),
        "revision" => Outputs::Bytes(answers.iter().map(|(_, revision)| revision.to_string()).collect()),
        _ => Outputs::Bytes(answers.iter().map(|(a, _)| a.to_string()).collect()),
    }
}

/// The score of a label or the value of a regression.
fn score(answer: &Value) -> f32 {
    match answer.get("score").or_else(|| answer.get("value")) {
        Some(score) => score.as_f64().map_or(f32::NAN, |x| x as f32),
        None => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_kind_of_answer_has_a_label_and_a_score() {
        let answers = [
            json!({ "label": "a", "score": 0.5, "probabilities": {} }),
            json!({ "value": -2.5 }),
            json!({ "vector": [1.0] }),
            json!([{ "label": "PER", "score": 0.9 }]),
            json!({ "label": "a", "score": null }),
        ];
        let answers: Vec<(Value, u64)> = answers.into_iter().map(|a| (a, 7)).collect();
        let Outputs::Floats(scores) = elements("score", &answers) else { panic!("scores are floats") };
        assert_eq!(scores[..4], [0.5, -2.5, 0.0, 0.0]);
        assert!(scores[4].is_nan());
        let text = |all: [&str; 5]| Outputs::Bytes(all.map(str::to_owned).to_vec());
        assert_eq!(elements("label", &answers), text(["a", "", "", "", "a"]));
        assert_eq!(elements("revision", &answers), text(["7"; 5]));
    }

    #[test]
    fn outputs_that_do_not_exist_are_refused() {
        assert_eq!(wanted(&[]).unwrap(), [true; 4]);
        assert_eq!(wanted(&["json".into()]).unwrap(), [false, false, true, false]);
        assert!(wanted(&["logits".into()]).unwrap_err().message.contains("label, score, json, revision"));
    }
}
