//! The routes of Text Embeddings Inference.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::{Answer, BASE, House, RANKER, close, numbers};
use serde_json::{Value, json};

#[track_caller]
fn refused(answer: &Answer, status: u16, kind: &str) {
    assert_eq!(
        (answer.status.as_u16(), &answer.json()["error_type"]),
        (status, &json!(kind)),
        "{}",
        answer.text
    );
    assert!(!answer.json()["error"].as_str().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_two_strings_is_a_pair_and_a_list_of_lists_a_batch() {
    let Some(house) = House::new() else { return };
    let ask = async |inputs: Value| house.post("/a/lora/predict", json!({ "inputs": inputs })).await;
    let one = ask(json!("my apple")).await.ok();
    let scores: Vec<f64> = one.as_array().unwrap().iter().map(|p| p["score"].as_f64().unwrap()).collect();
    assert_eq!(scores.len(), 3);
    assert!(scores.is_sorted_by(|a, b| a >= b), "the best first");
    close(&[scores.iter().sum()], &[1.0], 1e-6);
    assert_eq!(ask(json!(["my apple"])).await.ok(), one, "a list of one is that one");
    let pair = ask(json!(["my apple", "a saw"])).await.ok();
    assert!(pair[0]["label"].is_string(), "a pair is one thing: {pair}");
    assert_ne!(pair, one);
    let batch = ask(json!([["my apple"], ["my apple", "a saw"]])).await.ok();
    let score = |v: &Value| numbers(&v.as_array().unwrap().iter().map(|p| p["score"].clone()).collect());
    close(&score(&batch[0]), &score(&one), 1e-5);
    close(&score(&batch[1]), &score(&pair), 1e-5);
    for (inputs, status, kind) in [
        (json!(["a", "b", "c"]), 422, "Validation"),
        (json!([["a", "b", "c"]]), 422, "Validation"),
        (json!([["a"], "b"]), 422, "Validation"),
        (json!(1), 422, "Validation"),
        (json!([]), 400, "Empty"),
        (json!([[]]), 400, "Empty"),
        (json!(""), 400, "Empty"),
    ] {
        refused(&ask(inputs).await, status, kind);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_scores_are_the_logits() {
    let Some(house) = House::new() else { return };
    let ask = async |adapter: &str, raw: bool| {
        house
            .post(&format!("/a/{adapter}/predict"), json!({ "inputs": "my apple", "raw_scores": raw }))
            .await
            .ok()
    };
    let (raw, soft) = (ask("lora", true).await, ask("lora", false).await);
    let sum: f64 = (0..3).map(|i| raw[i]["score"].as_f64().unwrap().exp()).sum();
    for i in 0..3 {
        assert_eq!(raw[i]["label"], soft[i]["label"]);
        close(&[raw[i]["score"].as_f64().unwrap().exp() / sum], &[soft[i]["score"].as_f64().unwrap()], 1e-5);
    }
    let (raw, soft) = (ask(RANKER, true).await, ask(RANKER, false).await);
    let x = raw[0]["score"].as_f64().unwrap();
    close(&[soft[0]["score"].as_f64().unwrap()], &[1.0 / (1.0 + (-x).exp())], 1e-6);
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_are_embedded() {
    let Some(house) = House::new() else { return };
    let ask = async |body: Value| house.post("/embed", body).await;
    let answer = ask(json!({ "inputs": "my apple" })).await;
    let one = answer.ok();
    let vector = numbers(&one[0]);
    close(&[vector.iter().map(|x| x * x).sum()], &[1.0], 1e-5);
    assert_eq!((answer.header("x-adapter"), answer.header("x-compute-tokens")), (BASE, "4"));
    assert_eq!(answer.header("x-compute-characters"), "8");
    let two = ask(json!({ "inputs": ["my apple", "a saw"] })).await.ok();
    assert_eq!(two.as_array().unwrap().len(), 2, "a list of strings is a batch here");
    close(&numbers(&two[0]), &vector, 1e-5);
    assert_eq!(
        ask(json!({ "inputs": "my apple", "dimensions": 8 })).await.ok()[0].as_array().unwrap().len(),
        8
    );
    let adapted = ask(json!({ "inputs": "my apple", "parameters": { "adapter_id": "lora" } })).await;
    assert_eq!(adapted.header("x-adapter"), "lora");
    assert_ne!(numbers(&adapted.ok()[0]), vector);
    refused(&ask(json!({ "inputs": [] })).await, 400, "Empty");
    refused(&ask(json!({ "inputs": "a", "dimensions": 99 })).await, 422, "Validation");
    refused(&ask(json!({ "inputs": "a", "prompt_name": "query" })).await, 422, "Validation");
    refused(&ask(json!({ "inputs": "a", "truncation_direction": "Left" })).await, 422, "Validation");
    refused(&ask(json!({ "inputs": "a", "normalize": false })).await, 422, "Validation");
    refused(&ask(json!({ "inputs": "a", "model": "none" })).await, 404, "Validation");
    refused(&house.post("/a/none/embed", json!({ "inputs": "a" })).await, 404, "Validation");
    refused(&house.send("POST", "/embed", None, "{").await, 422, "Validation");
    refused(&house.post("/predict", json!({ "inputs": "a" })).await, 424, "Backend");
    let alike = json!({ "inputs": { "source_sentence": "my apple", "sentences": ["my apple", "a saw"] } });
    let alike = numbers(&house.post("/similarity", alike).await.ok());
    close(&alike[..1], &[1.0], 1e-5);
    assert!(alike[1] < 0.9999);
}

#[tokio::test(flavor = "multi_thread")]
async fn long_texts_are_cut_unless_the_request_says_otherwise() {
    let Some(house) = House::new() else { return };
    let long = vec!["old"; 100].join(" ");
    let cut = house.post("/embed", json!({ "inputs": long })).await;
    assert_eq!((cut.status.as_u16(), cut.header("x-compute-tokens")), (200, "64"));
    refused(&house.post("/embed", json!({ "inputs": long, "truncate": false })).await, 422, "Validation");
    let predict = json!({ "inputs": long, "truncate": false });
    refused(&house.post("/a/lora/predict", predict).await, 422, "Validation");
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_are_ranked() {
    let Some(house) = House::new() else { return };
    let body = json!({ "query": "my apple", "texts": ["a saw", "the pear", "old"], "return_text": true });
    let ranks = house.post(&format!("/a/{RANKER}/rerank"), body.clone()).await.ok();
    let scores: Vec<f64> = (0..3).map(|i| ranks[i]["score"].as_f64().unwrap()).collect();
    assert!(scores.is_sorted_by(|a, b| a >= b) && scores.iter().all(|s| (0.0..=1.0).contains(s)));
    let texts = ["a saw", "the pear", "old"];
    for i in 0..3 {
        assert_eq!(ranks[i]["text"], texts[ranks[i]["index"].as_u64().unwrap() as usize]);
    }
    // One of them is what a pair gives.
    let pair =
        house.post(&format!("/a/{RANKER}/predict"), json!({ "inputs": ["my apple", "old"] })).await.ok();
    let old = (0..3).find(|i| ranks[*i]["index"] == 2).unwrap();
    close(&[pair[0]["score"].as_f64().unwrap()], &[scores[old]], 1e-5);
    let none = json!({ "query": "a", "texts": [], "model": RANKER });
    refused(&house.post("/rerank", none).await, 400, "Empty");
    refused(&house.post("/a/lora/rerank", body).await, 424, "Backend");
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_are_tokenised() {
    let Some(house) = House::new() else { return };
    let all = house.post("/tokenize", json!({ "inputs": ["my saw!", "old"] })).await.ok();
    assert_eq!(all.as_array().unwrap().len(), 2);
    assert_eq!(all[0][0], json!({ "id": 2, "text": "[CLS]", "special": true, "start": null, "stop": null }));
    assert_eq!(
        (&all[0][2]["text"], &all[0][2]["start"], &all[0][2]["stop"]),
        (&json!("saw"), &json!(3), &json!(6))
    );
    let plain =
        house.post("/tokenize", json!({ "inputs": "my saw", "add_special_tokens": false })).await.ok();
    assert_eq!(plain[0].as_array().unwrap().len(), 2);
    refused(&house.post("/tokenize", json!({ "inputs": [] })).await, 400, "Empty");
}

#[tokio::test(flavor = "multi_thread")]
async fn info_tells_what_is_served() {
    let Some(house) = House::new() else { return };
    assert_eq!(house.get("/health").await.status, 200);
    let info = house.get("/info").await.ok();
    assert_eq!((&info["model_id"], &info["max_input_length"]), (&json!(BASE), &json!(64)));
    assert!(info["model_type"]["embedding"].is_object());
    let lora = house.get("/a/lora/info").await;
    assert_eq!(lora.ok()["model_type"]["classifier"]["id2label"]["2"], "LABEL_2");
    assert_eq!(lora.header("x-adapter"), "lora");
    let ranker = house.get(&format!("/a/{RANKER}/info")).await.ok();
    assert!(ranker["model_type"]["reranker"].is_object());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_root_answers_as_the_adapter_does() {
    let Some(house) = House::new() else { return };
    let labels =
        house.post("/a/lora", json!({ "inputs": "my apple", "parameters": { "top_k": 2 } })).await.ok();
    assert_eq!((labels.as_array().unwrap().len(), labels[0].as_array().unwrap().len()), (1, 2));
    assert!(labels[0][0]["label"].is_string());
    let vectors = house.post("/", json!({ "inputs": "my apple" })).await.ok();
    assert_eq!(vectors[0].as_array().unwrap().len(), 32);
    assert_eq!(house.get("/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_body_tells_the_dialect_on_paths_that_two_own() {
    let Some(house) = House::new() else { return };
    let tei = house.post("/classify", json!({ "inputs": "my apple", "model": "lora" })).await.ok();
    assert!(tei[0]["label"].is_string());
    let vllm = house.post("/classify", json!({ "input": "my apple", "model": "lora" })).await.ok();
    assert_eq!(vllm["data"][0]["num_classes"], 3);
    for (path, tei, vllm) in [
        ("/rerank", json!({ "query": "a", "texts": ["b"] }), json!({ "query": "a", "documents": ["b"] })),
        ("/tokenize", json!({ "inputs": "a" }), json!({ "prompt": "a" })),
        ("/classify", json!({ "inputs": "a" }), json!({ "input": "a" })),
    ] {
        let with = |mut v: Value| {
            v["model"] = json!("none");
            v
        };
        assert!(house.post(path, with(tei)).await.json()["error_type"].is_string(), "{path}");
        assert!(house.post(path, with(vllm)).await.json()["error"]["message"].is_string(), "{path}");
    }
}
