//! The dashboard that ships asks for nothing that the server does not give.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::collections::{BTreeSet, HashMap, HashSet};

use common::House;
use serde_json::{Value, json};

const DASHBOARD: &str = include_str!("../../../docs/grafana.json");

/// All texts under a key, wherever they stand.
fn texts(value: &Value, key: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (k, v) in map {
                match v.as_str() {
                    Some(text) if k == key => found.push(text.to_owned()),
                    _ => texts(v, key, found),
                }
            }
        }
        Value::Array(all) => all.iter().for_each(|v| texts(v, key, found)),
        _ => {}
    }
}

/// The words of a query that begin like metrics.
fn metrics(query: &str) -> impl Iterator<Item = &str> {
    query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|w| w.starts_with("graft_"))
}

/// The labels that a query groups by or chooses by.
fn labels(query: &str) -> HashSet<&str> {
    let grouped = query.split("by (").skip(1).filter_map(|rest| rest.split(')').next());
    let chosen = query.split(['{', '}']).skip(1).step_by(2).flat_map(|inner| inner.split(','));
    let chosen = chosen.filter_map(|c| c.split(['=', '!']).next());
    let all = grouped.flat_map(|g| g.split(',')).chain(chosen).map(str::trim);
    all.filter(|l| !l.is_empty()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dashboard_asks_for_what_there_is() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: HashSet<u64> = panels.iter().map(|p| p["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "two panels have one id");
    for (i, a) in panels.iter().enumerate() {
        let place = |p: &Value| ["x", "y", "w", "h"].map(|k| p["gridPos"][k].as_u64().unwrap());
        let [x, y, w, h] = place(a);
        assert!(x + w <= 24, "{} is wider than the page", a["title"]);
        for b in &panels[i + 1..] {
            let [x2, y2, w2, h2] = place(b);
            let apart = x + w <= x2 || x2 + w2 <= x || y + h <= y2 || y2 + h2 <= y;
            assert!(apart, "{} lies over {}", a["title"], b["title"]);
        }
    }
    let mut queries = Vec::new();
    texts(&dashboard, "expr", &mut queries);
    texts(&dashboard, "definition", &mut queries);
    assert!(queries.len() > 20);

    let Some(house) = House::new() else { return };
    house.post("/a/lora/predict", json!({ "inputs": "my apple" })).await.ok();
    house.post("/embed", json!({ "inputs": "my apple", "model": "none" })).await;
    let text = house.get("/metrics").await.text;
    // Name → the labels of its series.
    let mut given: HashMap<&str, BTreeSet<&str>> = HashMap::new();
    for line in text.lines().filter(|l| !l.starts_with('#')) {
        let (name, rest) = line.split_at(line.find(['{', ' ']).unwrap());
        let inner = rest.strip_prefix('{').and_then(|r| r.split('}').next()).unwrap_or_default();
        let names = inner.split(',').filter_map(|pair| pair.split('=').next()).filter(|n| !n.is_empty());
        given.entry(name).or_default().extend(names);
    }
    for query in &queries {
        let mut asked = metrics(query).peekable();
        assert!(asked.peek().is_some(), "{query}");
        for name in asked {
            let known = given.get(name).unwrap_or_else(|| panic!("/metrics has no {name}: {query}"));
            for label in labels(query) {
                // Prometheus itself adds the instance.
                assert!(label == "instance" || known.contains(label), "{name} has no label {label}: {query}");
            }
        }
    }
}
