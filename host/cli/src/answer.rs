//! One answer of an objective, in a line for people.

use serde_json::{Map, Value};

/// Numbers of a vector that are shown.
const SHOWN: usize = 4;

/// A label with its probability and the runners-up, the labels of a row that has several, numbers, spans, the start of a vector;
/// anything else as JSON.
pub fn show(answer: &Value) -> String {
    let shown = match answer {
        Value::Object(a) => {
            label(a).or_else(|| labels(a)).or_else(|| value(a)).or_else(|| values(a)).or_else(|| vector(a))
        }
        Value::Array(found) => spans(found),
        _ => None,
    };
    shown.unwrap_or_else(|| answer.to_string())
}

/// Spans: `person "Ada Lovelace" 97 % at 4–16`.
fn spans(found: &[Value]) -> Option<String> {
    let one = |s: &Value| {
        let (label, text) = (s["label"].as_str()?, s["text"].as_str()?);
        let (start, end, score) = (s["start"].as_u64()?, s["end"].as_u64()?, s["score"].as_f64()?);
        Some(format!("{label} \"{text}\" {:.0} % at {start}–{end}", score * 100.0))
    };
    let shown: Vec<String> = found.iter().map(one).collect::<Option<_>>()?;
    Some(if shown.is_empty() { "nothing found".into() } else { shown.join(", ") })
}

/// Labels with their probabilities, the most probable first.
fn ranked(answer: &Map<String, Value>) -> Vec<(&str, f64)> {
    let all = answer.get("probabilities").and_then(Value::as_object).into_iter().flatten();
    let mut all: Vec<(&str, f64)> = all.filter_map(|(l, p)| Some((l.as_str(), p.as_f64()?))).collect();
    all.sort_by(|a, b| b.1.total_cmp(&a.1));
    all
}

fn runners_up<'a>(others: impl Iterator<Item = (&'a str, f64)>) -> String {
    others.take(2).map(|(l, p)| format!("{l} {:.0} %", p * 100.0)).collect::<Vec<_>>().join(", ")
}

fn label(answer: &Map<String, Value>) -> Option<String> {
    let (label, score) = (answer.get("label")?.as_str()?, answer.get("score")?.as_f64()?);
    let rest = runners_up(ranked(answer).into_iter().filter(|(l, _)| *l != label));
    Some(format!("{label} {:.1} %   ({rest})", score * 100.0))
}

fn labels(answer: &Map<String, Value>) -> Option<String> {
    let chosen: Vec<&str> = answer.get("labels")?.as_array()?.iter().filter_map(Value::as_str).collect();
    let ranked = ranked(answer);
    let (said, others): (Vec<_>, Vec<_>) = ranked.into_iter().partition(|(l, _)| chosen.contains(l));
    let said: Vec<String> = said.iter().map(|(l, p)| format!("{l} {:.1} %", p * 100.0)).collect();
    let said = if said.is_empty() { "none".to_string() } else { said.join(", ") };
    Some(match others.is_empty() {
        true => said,
        false => format!("{said}   ({})", runners_up(others.into_iter())),
    })
}

fn value(answer: &Map<String, Value>) -> Option<String> {
    Some(number(answer.get("value")?.as_f64()?))
}

fn values(answer: &Map<String, Value>) -> Option<String> {
    let all = answer.get("values")?.as_object()?.iter();
    let each: Option<Vec<String>> =
        all.map(|(name, v)| Some(format!("{name} {}", number(v.as_f64()?)))).collect();
    Some(each?.join(", "))
}

fn vector(answer: &Map<String, Value>) -> Option<String> {
    let all = answer.get("vector")?.as_array()?;
    let start: Vec<String> = all.iter().take(SHOWN).filter_map(|v| Some(number(v.as_f64()?))).collect();
    let more = if all.len() > SHOWN { ", …" } else { "" };
    Some(format!("[{}{more}]   {} numbers", start.join(", "), all.len()))
}

/// Four digits that count, however large it is.
fn number(x: f64) -> String {
    match x.abs() {
        0.0 => "0".into(),
        a if (1e-4..1e6).contains(&a) => {
            let digits = (3 - a.log10().floor() as i64).clamp(0, 8) as usize;
            format!("{x:.digits$}")
        }
        _ => format!("{x:.3e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_kind_of_answer_is_a_line() {
        let p = json!({ "a": 0.7, "b": 0.2, "c": 0.1 });
        let one = json!({ "label": "a", "score": 0.7, "probabilities": p });
        assert_eq!(show(&one), "a 70.0 %   (b 20 %, c 10 %)");
        assert_eq!(show(&json!({ "labels": ["a"], "probabilities": p })), "a 70.0 %   (b 20 %, c 10 %)");
        assert_eq!(show(&json!({ "labels": [], "probabilities": p })), "none   (a 70 %, b 20 %)");
        assert_eq!(show(&json!({ "value": -7.12345 })), "-7.123");
        assert_eq!(show(&json!({ "values": { "x": 1200.0, "y": 0.012345 } })), "x 1200, y 0.01235");
        assert_eq!(
            show(&json!({ "vector": [0.5, -0.5, 0.5, 0.5, 0.0] })),
            "[0.5000, -0.5000, 0.5000, 0.5000, …]   5 numbers"
        );
        assert_eq!(show(&json!({ "spans": [] })), "{\"spans\":[]}");
    }

    #[test]
    fn numbers_keep_the_digits_that_count() {
        let shown = [0.0, 1e-9, 0.000_123_46, 999_999.4, 12_345_678.0].map(number);
        assert_eq!(shown, ["0", "1.000e-9", "0.0001235", "999999", "1.235e7"]);
    }
}
