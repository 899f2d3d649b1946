//! Requests that make no sense are refused in words, whatever they are.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::{BASE, House, Plan, RANKER};
use graft_serve::access::{Access, KeyFile};
use serde_json::{Value, json};

/// Fields that some route reads.
const FIELDS: [&str; 20] = [
    "input",
    "inputs",
    "texts",
    "query",
    "documents",
    "prompt",
    "model",
    "parameters",
    "encoding_format",
    "dimensions",
    "truncate",
    "truncate_prompt_tokens",
    "raw_scores",
    "normalize",
    "top_n",
    "lora_name",
    "lora_path",
    "pinned",
    "add_special_tokens",
    "use_activation",
];

/// Values of every kind, sensible and not.
fn values() -> Vec<Value> {
    let deep = (0..100).fold(json!("x"), |v, _| json!([v]));
    vec![
        Value::Null,
        json!(true),
        json!(0),
        json!(-1),
        json!(1e300),
        json!(u64::MAX),
        json!(""),
        json!("my apple"),
        json!("\u{0}\u{feff}\u{10ffff}é"),
        json!(" \n\t"),
        json!(RANKER),
        json!(BASE),
        json!([]),
        json!([[]]),
        json!(["my apple", "old"]),
        json!([["my apple", "old"]]),
        json!([0, 1, 2]),
        json!([[5, 6], [7]]),
        json!([i64::MAX, i64::MIN]),
        json!([1, "a", null]),
        json!({}),
        json!({ "adapter_id": "lora", "top_k": 0 }),
        json!({ "text": "a" }),
        json!({ "source_sentence": "a", "sentences": ["b"] }),
        deep,
    ]
}

/// Numbers that look random and are the same in every run.
struct Draw(u64);

impl Draw {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }
}

/// Requests to each route.
const EACH: usize = 10_000;
/// Bytes that the process may grow by while half of them are answered; what leaks with each request is more.
const GROWTH: u64 = 24 << 20;

/// Something that looks like a body, and may be cut off or have a byte in it that does not belong there.
fn body(values: &[Value], draw: &mut Draw) -> Vec<u8> {
    let mut body = serde_json::Map::new();
    for _ in 0..1 + draw.below(4) {
        let field = FIELDS[draw.below(FIELDS.len())];
        let value = values[draw.below(values.len())].clone();
        // Taking it away would be a sensible request, and the others would have nobody to ask.
        if field != "lora_name" || value != RANKER {
            body.insert(field.into(), value);
        }
    }
    let mut bytes = Value::Object(body).to_string().into_bytes();
    match draw.below(6) {
        0 => bytes.truncate(draw.below(bytes.len())),
        1 => {
            let at = draw.below(bytes.len());
            bytes[at] = draw.below(256) as u8;
        }
        _ => {}
    }
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_is_answered_by_an_error_of_the_server() {
    let keys = KeyFile { admin: Some("root".into()), ..KeyFile::default() };
    let Some(house) = House::with(Plan { access: Access::new(&keys), ..Plan::default() }) else { return };
    let document = house.get("/openapi.json").await.ok();
    let places: Vec<(String, String)> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, methods)| {
            let place = path.replace("{adapter}", RANKER).replace("{name}", "gone").replace("{id}", "%00");
            let methods = methods.as_object().unwrap().keys();
            methods.map(move |m| (m.to_uppercase(), place.clone())).collect::<Vec<_>>()
        })
        .collect();
    let (values, mut draw) = (values(), Draw(20_251_126));
    let mut half = 0;
    for k in 0..EACH {
        if k == EACH / 2 {
            half = graft_runtime::own_memory().unwrap_or_default();
        }
        for (method, place) in &places {
            let bytes = body(&values, &mut draw);
            let shown = String::from_utf8_lossy(&bytes).into_owned();
            let answer = house.send(method, place, Some("root"), bytes).await;
            // V2 says with 501 what is not served, as Triton does.
            let told = answer.status.as_u16() < 500 || (answer.status == 501 && place.starts_with("/v2"));
            assert!(told, "{method} {place} {shown}: {} {}", answer.status, answer.text);
            if !answer.status.is_success() {
                let body = answer.json();
                assert!(body["error"].is_string() || body["error"]["message"].is_string(), "{}", answer.text);
            }
        }
    }
    let grown = graft_runtime::own_memory().unwrap_or_default().saturating_sub(half);
    println!("{} routes, {EACH} requests each; the second half added {grown} bytes", places.len());
    assert!(grown < GROWTH, "{grown} bytes more after the second half");
    assert_eq!(house.engine.waiting(), 0, "nothing waits any more");
    let numbers = house.send("GET", "/metrics", Some("root"), "").await.text;
    assert!(!numbers.contains(r#"why="inference""#), "no batch failed");
    let after = house.post("/a/ranker/predict", json!({ "inputs": "my apple" })).await;
    assert_eq!(after.status, 200, "the server still answers");
}
