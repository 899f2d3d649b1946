//! Keys, limits, numbers, and changing the adapters of a running server.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use common::{Answer, BASE, House, Plan, RANKER, change, copy, digest, packed};
use graft_serve::access::{Access, KeyFile};
use graft_serve::{Limits, Rates};
use serde_json::{Value, json};

fn keys() -> Access {
    let some = |k: &str| Some(k.to_owned());
    let adapters = HashMap::from([("lora".to_owned(), vec!["tenant".to_owned()])]);
    Access::new(&KeyFile { admin: some("root"), metrics: some("watch"), all: None, adapters })
}

fn admin() -> Plan {
    Plan { access: keys(), ..Plan::default() }
}

async fn put(house: &House, name: &str, tar: Vec<u8>) -> Answer {
    house.send("PUT", &format!("/admin/adapters/{name}"), Some("root"), tar).await
}

async fn score(house: &House, name: &str) -> (f64, String) {
    let body = json!({ "inputs": "my apple", "raw_scores": true }).to_string();
    let answer = house.send("POST", &format!("/a/{name}/predict"), Some("root"), body).await;
    (answer.ok()[0]["score"].as_f64().unwrap(), answer.header("x-adapter-digest").to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adapter_is_uploaded_replaced_rolled_back_and_removed() {
    let Some(house) = House::with(admin()) else { return };
    let aside = tempfile::tempdir().unwrap();
    copy(&house.golden("lora"), aside.path());
    let made = put(&house, "mine", packed(aside.path())).await;
    let state = made.ok();
    assert_eq!(
        (&state["revision"], &state["method"], &state["path"]),
        (&json!(1), &json!("lora"), &json!("mine"))
    );
    assert_eq!((&state["previous"], &state["pinned"]), (&Value::Null, &json!(false)));
    assert!(state["parameters"].as_u64().unwrap() > 0 && state["bytes"].as_u64().unwrap() > 0);
    let vector = json!({ "input": "my apple", "model": "mine" }).to_string();
    let vector = house.send("POST", "/v1/embeddings", Some("root"), vector).await;
    assert_eq!(vector.status, 200, "{}", vector.text);
    let first = score(&house, "mine").await;
    assert_eq!(score(&house, "lora").await, first, "the same files, the same answer and digest");

    change(aside.path(), "classifier", 2.0);
    assert_eq!(put(&house, "mine", packed(aside.path())).await.ok()["revision"], 2);
    let second = score(&house, "mine").await;
    assert!(second.0 > first.0 && second.1 != first.1);
    assert_eq!(digest(&house.adapters().join("mine")), second.1, "what answers is what lies there");

    let back = house.send("POST", "/admin/adapters/mine/rollback", Some("root"), "").await.ok();
    assert_eq!((&back["revision"], &back["previous"]["revision"]), (&json!(1), &json!(2)));
    assert_eq!(score(&house, "mine").await, first);
    assert_eq!(digest(&house.adapters().join("mine")), first.1, "in the folder too");
    let forth = house.send("POST", "/admin/adapters/mine/rollback", Some("root"), "").await.ok();
    assert_eq!(forth["revision"], 2);
    let again = put(&house, "mine", packed(aside.path())).await.ok();
    assert_eq!(again["revision"], 2, "the same files are no other revision");
    change(aside.path(), "classifier", 2.0);
    house.send("POST", "/admin/adapters/mine/rollback", Some("root"), "").await.ok();
    let third = put(&house, "mine", packed(aside.path())).await.ok();
    assert_eq!(
        (&third["revision"], &third["previous"]["revision"]),
        (&json!(3), &json!(1)),
        "none is given twice"
    );

    let pin = async |body: &'static str| {
        let answer = house.send("POST", "/admin/adapters/mine/pin", Some("root"), body).await;
        answer.ok()["pinned"].clone()
    };
    assert_eq!((pin("").await, pin(r#"{"pinned": false}"#).await), (json!(true), json!(false)));

    let gone = house.send("DELETE", "/admin/adapters/mine", Some("root"), "").await;
    assert_eq!(gone.status, 204);
    assert!(!house.adapters().join("mine").exists());
    let state = house.send("GET", "/admin/adapters/mine", Some("root"), "").await;
    assert_eq!(state.status, 404);
    let never = house.send("POST", "/admin/adapters/lora/rollback", Some("root"), "").await;
    assert_eq!(never.status, 409);
    let hidden = std::fs::read_dir(house.adapters()).unwrap();
    assert!(
        hidden.flatten().all(|e| !e.file_name().to_string_lossy().starts_with('.')),
        "nothing is left over"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_adapter_of_this_base_changes_nothing() {
    let Some(house) = House::with(admin()) else { return };
    let before = score(&house, "ia3").await;
    let aside = tempfile::tempdir().unwrap();
    copy(&house.golden("lora"), aside.path());
    std::fs::write(aside.path().join("adapter_model.safetensors"), b"rubbish").unwrap();
    let rubbish = put(&house, "ia3", packed(aside.path())).await;
    assert_eq!(rubbish.status, 422, "{}", rubbish.text);
    assert!(!rubbish.text.contains(&*house.adapters().to_string_lossy()), "{}", rubbish.text);
    let no_tar = put(&house, "ia3", b"not a tar".to_vec()).await;
    assert_eq!(no_tar.status, 400, "{}", no_tar.text);
    assert_eq!(put(&house, "..%2Fx", packed(&house.golden("lora"))).await.status, 400);
    assert_eq!(put(&house, ".hidden", packed(&house.golden("lora"))).await.status, 400);
    assert_eq!(score(&house, "ia3").await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_ceiling_of_memory_adapters_are_refused_and_the_others_answer() {
    let Some(house) = House::with(admin()) else { return };
    let before = score(&house, "lora").await;
    let memory = &house.engine.store.memory;
    // What is there already needs no memory.
    let unloaded = house.send("POST", "/v2/repository/models/ia3/unload", Some("root"), "").await;
    assert_eq!(unloaded.status, 200, "{}", unloaded.text);
    memory.set(1);
    let full = put(&house, "mine", packed(&house.golden("lora"))).await;
    assert_eq!(full.status, 507, "{}", full.text);
    assert!(full.text.contains("limits.memory_bytes"), "{}", full.text);
    assert!(!house.adapters().join("mine").exists());
    let v2 = house.send("POST", "/v2/repository/models/ia3/load", Some("root"), "").await;
    assert_eq!(v2.status, 503, "{}", v2.text);
    let lora = json!({ "lora_name": "mine", "lora_path": "ia3" }).to_string();
    let lora = house.send("POST", "/v1/load_lora_adapter", Some("root"), lora).await;
    assert_eq!(lora.status, 507, "{}", lora.text);
    assert_eq!(score(&house, "lora").await, before);
    memory.set(0);
    put(&house, "mine", packed(&house.golden("lora"))).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_open_what_they_are_for() {
    let Some(house) = House::with(admin()) else { return };
    let ask = async |key: Option<&str>, model: &str| {
        let body = json!({ "inputs": "my apple", "model": model }).to_string();
        house.send("POST", "/embed", key, body).await.status.as_u16()
    };
    assert_eq!((ask(None, "lora").await, ask(Some("wrong"), "lora").await), (401, 401));
    assert_eq!((ask(Some("tenant"), "lora").await, ask(Some("root"), "lora").await), (200, 200));
    assert_eq!(ask(Some("watch"), "lora").await, 404, "as if it were not there");
    assert_eq!((ask(Some("tenant"), "none").await, ask(None, "none").await), (404, 401));
    assert_eq!((ask(None, "ia3").await, ask(None, BASE).await), (200, 200), "without keys of their own");
    let ids = async |key: Option<&str>| {
        let list = house.send("GET", "/v1/models", key, "").await.ok();
        let ids = list["data"].as_array().unwrap().iter().map(|m| m["id"].as_str().unwrap().to_owned());
        ids.collect::<Vec<_>>()
    };
    assert!(!ids(None).await.contains(&"lora".to_owned()));
    assert!(ids(Some("tenant")).await.contains(&"lora".to_owned()));
    let status = async |method: &str, path: &str, key: Option<&str>| {
        house.send(method, path, key, "").await.status.as_u16()
    };
    assert_eq!(
        (status("GET", "/metrics", None).await, status("GET", "/metrics", Some("tenant")).await),
        (401, 403)
    );
    assert_eq!(
        (status("GET", "/metrics", Some("watch")).await, status("GET", "/metrics", Some("root")).await),
        (200, 200)
    );
    for (method, path) in
        [("GET", "/admin/adapters"), ("DELETE", "/admin/adapters/lora"), ("PUT", "/admin/adapters/x")]
    {
        assert_eq!(
            (status(method, path, None).await, status(method, path, Some("tenant")).await),
            (401, 403)
        );
    }
    assert!(house.adapters().join("lora").exists());
    let Some(open) = House::new() else { return };
    assert_eq!(open.get("/metrics").await.status, 200);
    assert_eq!(open.get("/admin/adapters").await.status, 403, "no key, no changes");
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_told_in_the_words_of_the_dialect() {
    let limits = Limits { texts: 2, text_bytes: 10, ..Limits::default() };
    let plan = Plan { limits: Some(limits), body_bytes: Some(200), ..Plan::default() };
    let Some(house) = House::with(plan) else { return };
    let large = "x".repeat(300);
    let tei = async |inputs: Value| house.post("/embed", json!({ "inputs": inputs })).await;
    let openai = async |input: Value| house.post("/v1/embeddings", json!({ "input": input })).await;
    for (inputs, of_tei, of_openai) in
        [(json!(large), 413, 413), (json!(["a", "b", "c"]), 422, 400), (json!("long long long"), 422, 400)]
    {
        let (t, o) = (tei(inputs.clone()).await, openai(inputs).await);
        assert_eq!((t.status.as_u16(), o.status.as_u16()), (of_tei, of_openai));
        assert_eq!(t.json()["error_type"], "Validation");
        assert_eq!(o.json()["error"]["type"], "invalid_request_error");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adapter_that_is_asked_too_often_makes_the_others_no_slower() {
    let rates = Rates::new(None, HashMap::from([("lora".to_owned(), 1.0)]));
    let Some(house) = House::with(Plan { rates, ..Plan::default() }) else { return };
    let ask =
        async |adapter: &str| house.post(&format!("/a/{adapter}/predict"), json!({ "inputs": "old" })).await;
    assert_eq!(ask("lora").await.status, 200);
    let often = ask("lora").await;
    assert_eq!((often.status.as_u16(), &often.json()["error_type"]), (429, &json!("Overloaded")));
    assert_eq!(often.header("retry-after"), "1");
    assert_eq!((ask("ia3").await.status.as_u16(), ask("ia3").await.status.as_u16()), (200, 200));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_says_when_to_come_again() {
    let limits = Limits { queue_rows: 1, batch_rows: 1, ..Limits::default() };
    let Some(house) = House::with(Plan { limits: Some(limits), ..Plan::default() }) else { return };
    let house = Arc::new(house);
    let many: Vec<_> = (0..40)
        .map(|_| {
            let house = Arc::clone(&house);
            tokio::spawn(
                async move { house.post("/v1/embeddings", json!({ "input": vec!["old"; 8] })).await },
            )
        })
        .collect();
    let mut seen = (0, 0);
    for one in many {
        let answer = one.await.unwrap();
        match answer.status.as_u16() {
            200 => seen.0 += 1,
            429 => {
                assert_eq!(answer.header("retry-after"), "1");
                seen.1 += 1;
            }
            other => panic!("{other} {}", answer.text),
        }
    }
    assert!(seen.0 > 0 && seen.1 > 0, "{seen:?}");
}

/// A request of so many rows, which wait when this returns.
async fn flood(house: &Arc<House>, adapter: &str, rows: usize) -> tokio::task::JoinHandle<Answer> {
    let (of_task, path) = (Arc::clone(house), format!("/a/{adapter}/predict"));
    let body = json!({ "inputs": vec![["old"]; rows] });
    let asked = tokio::spawn(async move { of_task.post(&path, body).await });
    while house.engine.waiting() < rows / 2 {
        assert!(!asked.is_finished(), "its rows waited before this looked");
        tokio::task::yield_now().await;
    }
    asked
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_one_adapter_lets_the_others_through() {
    let limits = Limits { batch_rows: 1, ..Limits::default() };
    let Some(house) = House::with(Plan { limits: Some(limits), ..Plan::default() }) else { return };
    let house = Arc::new(house);
    house.post("/a/ia3/predict", json!({ "inputs": "old" })).await.ok();
    let flood = flood(&house, "lora", 1024).await;
    house.post("/a/ia3/predict", json!({ "inputs": "old" })).await.ok();
    assert!(house.engine.waiting() > 0, "it had to wait for all of them");
    // Who goes away leaves nothing behind.
    flood.abort();
    assert!(flood.await.is_err());
    assert_eq!(house.engine.waiting(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adapter_has_a_part_of_the_queue_for_itself_and_not_more() {
    let limits = Limits { batch_rows: 1, adapter_queue_rows: Some(512), ..Limits::default() };
    let Some(house) = House::with(Plan { limits: Some(limits), ..Plan::default() }) else { return };
    let house = Arc::new(house);
    let flood = flood(&house, "lora", 1000).await;
    let body = json!({ "inputs": vec![["old"]; 200] });
    let refused = house.post("/a/lora/predict", body.clone()).await;
    assert_eq!((refused.status.as_u16(), refused.header("retry-after")), (429, "1"), "{}", refused.text);
    assert!(refused.json()["error"].as_str().unwrap().contains("too much for 'lora'"), "{}", refused.text);
    house.post("/a/ia3/predict", body).await.ok();
    flood.await.unwrap().ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_will_stop_is_not_ready_and_still_answers() {
    let Some(house) = House::new() else { return };
    let ready = ["/health", "/ping", "/a/lora/health", "/v2/health/ready"];
    for path in ready {
        assert_eq!(house.get(path).await.status, 200, "{path}");
    }
    let app = house.app.clone();
    let draining = tokio::spawn(async move { app.drain(Duration::from_secs(3600)).await });
    while house.app.ready().is_ok() {
        tokio::task::yield_now().await;
    }
    for path in ready {
        let answer = house.get(path).await;
        assert_eq!(answer.status, 503, "{path}");
        assert_eq!(answer.json()["error"], "the server is being stopped");
    }
    assert_eq!(house.get("/health").await.json()["error_type"], "Unhealthy");
    assert_eq!(house.get("/v2/health/live").await.status, 200);
    house.post("/a/lora/predict", json!({ "inputs": "my apple" })).await.ok();
    draining.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_add_up() {
    let Some(house) = House::new() else { return };
    for _ in 0..3 {
        house.post("/a/lora/predict", json!({ "inputs": [["my apple"], ["old"]] })).await.ok();
    }
    house.post("/embed", json!({ "inputs": "my apple" })).await.ok();
    house.post("/embed", json!({ "inputs": "my apple", "model": "none" })).await;
    let answer = house.get("/metrics").await;
    assert!(answer.header("content-type").starts_with("text/plain; version=0.0.4"));
    let value = |line: &str| -> f64 {
        let found = answer.text.lines().find_map(|l| l.strip_prefix(&format!("{line} ")));
        found.unwrap_or_else(|| panic!("no {line} in\n{}", answer.text)).parse().unwrap()
    };
    assert_eq!(value(r#"graft_requests_total{result="answered"}"#), 4.0);
    assert_eq!(value(r#"graft_refusals_total{why="unknown_adapter"}"#), 1.0);
    assert_eq!(value("graft_texts_total"), 7.0);
    // Three times 4 and 3 tokens, once 4; the shorter row of each batch is padded by one.
    assert_eq!((value("graft_tokens_total"), value("graft_padding_tokens_total")), (25.0, 3.0));
    assert_eq!((value("graft_adapters_resident"), value("graft_adapter_loads_total")), (3.0, 3.0));
    assert_eq!((value("graft_queue_rows"), value("te_queue_size")), (0.0, 0.0));
    assert_eq!(value("graft_request_duration_seconds_count"), 4.0);
    assert_eq!(value(r#"graft_adapter_requests_total{adapter="lora"}"#), 3.0);
    assert_eq!(value(r#"graft_adapter_tokens_total{adapter="lora"}"#), 21.0);
    assert_eq!(value(r#"te_request_count{method="batch"}"#), 3.0);
    assert_eq!(value(r#"te_request_success{method="single"}"#), 1.0);
    assert_eq!((value("te_embed_success"), value("te_predict_success")), (1.0, 6.0));
    assert_eq!(value("te_request_inference_duration_count"), 4.0);
    assert_eq!(value("te_batch_next_size_count"), 4.0);
    assert_eq!(value(r#"graft_http_responses_total{status="404"}"#), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_of_the_document_is_there() {
    let Some(house) = House::with(admin()) else { return };
    let document = house.get("/openapi.json").await.ok();
    let text = document.to_string();
    for reference in text.split("\"$ref\":\"#").skip(1) {
        let place = reference.split('"').next().unwrap();
        assert!(document.pointer(place).is_some(), "{place} is not in the document");
    }
    let schema = &document["components"]["schemas"]["EmbeddingsRequest"];
    assert_eq!(schema["required"], json!(["input"]));
    let paths = document["paths"].as_object().unwrap();
    for path in [
        "/predict",
        "/a/{adapter}/v1/embeddings",
        "/a/{adapter}",
        "/admin/adapters/{name}",
        "/v2/models/{model}/versions/{version}/infer",
    ] {
        assert!(paths.contains_key(path), "{path}");
    }
    for (path, methods) in paths {
        let place = path.replace("{adapter}", "lora").replace("{name}", "none").replace("{id}", BASE);
        let place = place.replace("{model}", "ia3").replace("{version}", "1");
        for method in methods.as_object().unwrap().keys() {
            let answer = house.send(&method.to_uppercase(), &place, Some("root"), "").await;
            let (status, empty) = (answer.status.as_u16(), answer.text.is_empty());
            assert!(status != 405 && (status != 404 || !empty), "{method} {path}: {status}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_say_where_their_time_went() {
    let Some(house) = House::with(Plan::default()) else { return };
    let text = json!({ "name": "text", "shape": [1], "datatype": "BYTES", "data": ["my apple"] });
    let asked = [
        ("/a/lora/predict", json!({ "inputs": "my apple" })),
        ("/embed", json!({ "inputs": "my apple" })),
        ("/classify", json!({ "input": "my apple", "model": "lora" })),
        ("/v1/embeddings", json!({ "input": "my apple", "model": BASE })),
        ("/rerank", json!({ "query": "my", "documents": ["apple", "table"], "model": RANKER })),
        ("/v2/models/lora/infer", json!({ "inputs": [text] })),
    ];
    for (path, body) in asked {
        let began = std::time::Instant::now();
        let answer = house.post(path, body).await;
        let whole = began.elapsed().as_secs_f64() * 1e3;
        answer.ok();
        let said = answer.header("server-timing");
        let parts: Vec<(&str, f64)> = said
            .split(", ")
            .map(|p| p.split_once(";dur=").unwrap_or_else(|| panic!("{path}: '{said}'")))
            .map(|(name, ms)| (name, ms.parse().unwrap()))
            .collect();
        assert_eq!(
            parts.iter().map(|p| p.0).collect::<Vec<_>>(),
            ["tokenize", "queue", "inference"],
            "{path}"
        );
        let sum: f64 = parts.iter().map(|p| p.1).sum();
        assert!(parts[2].1 > 0.0 && sum <= whole + 0.002, "{path}: {said} of {whole} ms");
    }
    let refused = house.post("/a/none/predict", json!({ "inputs": "my apple" })).await;
    assert_eq!((refused.status.as_u16(), refused.header("server-timing")), (404, ""));
}
