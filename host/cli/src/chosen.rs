//! What a run chose, in lines for people and as JSON.

use graft_train::engine::Chosen;
use serde_json::{Value, json};

use crate::commands::patterns;
use crate::table::count;

/// Patterns of paths that are shown of a selection.
pub const SHOWN: usize = 6;

/// One fact a line: what the method takes, what the objective makes of it, how much is trained, where the base is cut.
pub fn facts(c: &Chosen, method: &str, objective: &str) -> Vec<(&'static str, String)> {
    let mut facts = Vec::new();
    for m in &c.matched {
        let paths: Vec<&str> = m.matched.iter().map(String::as_str).collect();
        let all = patterns(&paths);
        let more = if all.len() > SHOWN { ", …" } else { "" };
        let shown = all.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
        facts.push(("method", format!("{method}: {} sites match {}", paths.len(), m.pattern)));
        facts.push(("", format!("{shown}{more}")));
    }
    if c.matched.is_empty() {
        facts.push(("method", format!("{method}: no module is chosen")));
    }
    let pooling = c.pooling.as_ref().map_or_else(String::new, |p| format!(", pooling {p}"));
    facts.push(("objective", format!("{objective}{pooling}")));
    facts.push((
        "trained",
        format!(
            "{} parameters, {} of the base's {}",
            count(c.trained as u64),
            percent(c.share()),
            count(c.base as u64)
        ),
    ));
    facts.push(("cut", cut(c)));
    facts
}

fn cut(c: &Chosen) -> String {
    match &c.cut {
        Err(why) => format!("none, the base runs in every step: {why}"),
        Ok(cut) => {
            let at: Vec<String> =
                cut.values.iter().map(|(name, shape)| format!("'{name}' {shape}")).collect();
            let doubt = cut
                .doubt
                .as_ref()
                .map_or_else(String::new, |d| format!(", if padding does not reach it: {d}"));
            format!(
                "at {}: {} of the arithmetic lies before it and is done once per example, {} numbers for each{doubt}",
                at.join(", "),
                percent(cut.share),
                count(cut.row as u64)
            )
        }
    }
}

fn percent(part: f64) -> String {
    format!("{:.2} %", 100.0 * part)
}

/// The same as one JSON object.
pub fn to_json(c: &Chosen, method: &str, objective: &str) -> Value {
    let matched: Vec<Value> =
        c.matched.iter().map(|m| json!({ "pattern": m.pattern, "sites": m.matched })).collect();
    let cut = c.cut.as_ref().ok().map(|cut| {
        let values: Vec<Value> = cut.values.iter().map(|(n, s)| json!({ "name": n, "shape": s })).collect();
        json!({ "values": values, "share": cut.share, "row": cut.row, "doubt": cut.doubt })
    });
    json!({
        "method": method, "objective": objective, "matched": matched, "pooling": c.pooling,
        "trained_parameters": c.trained, "base_parameters": c.base, "cut": cut, "not_cut": c.cut.as_ref().err(),
    })
}
