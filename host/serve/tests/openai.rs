//! OpenAI's and vLLM's routes.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use common::{BASE, House, Plan, RANKER, close, numbers};
use graft_serve::access::{Access, KeyFile};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn models_are_the_base_and_its_adapters() {
    let Some(house) = House::new() else { return };
    let list = house.get("/v1/models").await.ok();
    let ids: Vec<&str> = list["data"].as_array().unwrap().iter().map(|m| m["id"].as_str().unwrap()).collect();
    assert_eq!(ids, [BASE, "ia3", "lora", RANKER]);
    let (base, lora) = (&list["data"][0], &list["data"][2]);
    assert_eq!((&base["root"], &base["parent"]), (&json!(BASE), &Value::Null));
    assert_eq!((&lora["root"], &lora["parent"]), (&json!("lora"), &json!(BASE)));
    let one = house.get("/v1/models/lora").await;
    assert_eq!((&one.ok()["id"], one.header("x-adapter-revision")), (&json!("lora"), "1"));
    assert_eq!(house.get("/v1/models/none").await.json()["error"]["code"], "model_not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn embeddings_of_texts_and_of_tokens_as_numbers_and_as_base64() {
    let Some(house) = House::new() else { return };
    let ask = async |body: Value| house.post("/v1/embeddings", body).await;
    let answer = ask(json!({ "input": "the old table", "model": BASE })).await;
    let one = answer.ok();
    assert_eq!((&one["object"], &one["model"]), (&json!("list"), &json!(BASE)));
    let vector = numbers(&one["data"][0]["embedding"]);
    assert_eq!(vector.len(), 32);
    close(&[vector.iter().map(|x| x * x).sum()], &[1.0], 1e-5);
    // Special tokens count.
    assert_eq!(one["usage"], json!({ "prompt_tokens": 5, "total_tokens": 5 }));
    assert_eq!((answer.header("x-adapter"), answer.header("x-adapter-revision")), (BASE, "0"));
    assert!(answer.header("x-adapter-digest").len() > 20);

    let many = ask(json!({ "input": ["my apple", "the old table"], "model": BASE })).await.ok();
    close(&numbers(&many["data"][1]["embedding"]), &vector, 1e-5);
    assert_eq!(many["data"][1]["index"], 1);

    let tokens = house.post("/tokenize", json!({ "prompt": "the old table" })).await.ok();
    for input in [tokens["tokens"].clone(), json!([tokens["tokens"]])] {
        let of_tokens = ask(json!({ "input": input, "model": BASE })).await.ok();
        close(&numbers(&of_tokens["data"][0]["embedding"]), &vector, 1e-5);
    }

    let packed =
        ask(json!({ "input": "the old table", "model": BASE, "encoding_format": "base64" })).await.ok();
    let bytes = BASE64_STANDARD.decode(packed["data"][0]["embedding"].as_str().unwrap()).unwrap();
    let unpacked: Vec<f64> =
        bytes.chunks_exact(4).map(|c| f64::from(f32::from_le_bytes(c.try_into().unwrap()))).collect();
    close(&unpacked, &vector, 1e-6);

    let short = ask(json!({ "input": "the old table", "model": BASE, "dimensions": 8 })).await.ok();
    let short = numbers(&short["data"][0]["embedding"]);
    let length = vector[..8].iter().map(|x| x * x).sum::<f64>().sqrt();
    close(&short, &vector[..8].iter().map(|x| x / length).collect::<Vec<_>>(), 1e-5);

    let adapted = ask(json!({ "input": "the old table", "model": "lora" })).await;
    assert_ne!(numbers(&adapted.ok()["data"][0]["embedding"]), vector);
    assert_eq!(adapted.header("x-adapter"), "lora");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_embeddings_refuse() {
    let Some(house) = House::new() else { return };
    let unknown = house.post("/v1/embeddings", json!({ "input": "a", "model": "none" })).await;
    assert_eq!(unknown.status, 404);
    let error = &unknown.json()["error"];
    assert_eq!((&error["type"], &error["param"]), (&json!("invalid_request_error"), &json!("model")));
    assert!(error["message"].as_str().unwrap().contains("none"));
    let long = vec!["old"; 100].join(" ");
    let cases = [
        (json!({ "model": BASE }), "input"),
        (json!({ "input": [], "model": BASE }), "no text"),
        (json!({ "input": "", "model": BASE }), "empty"),
        (json!({ "input": [[]], "model": BASE }), "empty"),
        (json!({ "input": [[999]], "model": BASE }), "999"),
        (json!({ "input": [[-1]], "model": BASE }), "-1"),
        (json!({ "input": { "a": 1 }, "model": BASE }), "string"),
        (json!({ "input": "a", "encoding_format": "hex" }), "hex"),
        (json!({ "input": "a", "dimensions": 33 }), "32"),
        (json!({ "input": "a", "dimensions": 0 }), "32"),
        (json!({ "input": long, "model": BASE }), "102 tokens"),
        (json!([]), "can't be read"),
    ];
    for (body, word) in cases {
        let answer = house.post("/v1/embeddings", body.clone()).await;
        assert_eq!(answer.status, 400, "{body}");
        let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.contains(word), "{body}: {message}");
    }
    let cut = json!({ "input": long, "truncate_prompt_tokens": -1 });
    assert_eq!(house.post("/v1/embeddings", cut).await.ok()["usage"]["total_tokens"], 64);
    let broken = house.send("POST", "/v1/embeddings", None, "{").await;
    assert_eq!((broken.status.as_u16(), &broken.json()["error"]["code"]), (400, &Value::Null));
}

#[tokio::test(flavor = "multi_thread")]
async fn classify_gives_what_peft_gives() {
    let Some(house) = House::new() else { return };
    for adapter in common::ADAPTERS {
        let (ids, wanted) = house.expected(adapter);
        let body = json!({ "input": ids, "model": adapter, "use_activation": false });
        let answer = house.post("/classify", body).await;
        let data = answer.ok()["data"].clone();
        for (row, logits) in wanted.iter().enumerate() {
            close(&numbers(&data[row]["probs"]), logits, 1e-4);
        }
        let body = json!({ "input": ids, "model": adapter });
        let data = house.post("/classify", body).await.ok()["data"].clone();
        for (row, logits) in wanted.iter().enumerate() {
            let sum: f64 = logits.iter().map(|l| l.exp()).sum();
            close(
                &numbers(&data[row]["probs"]),
                &logits.iter().map(|l| l.exp() / sum).collect::<Vec<_>>(),
                1e-5,
            );
            let best = (0..3).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap();
            assert_eq!(data[row]["label"], format!("LABEL_{best}"));
            assert_eq!((&data[row]["index"], &data[row]["num_classes"]), (&json!(row), &json!(3)));
        }
    }
    let unfit = house.post("/classify", json!({ "input": "a" })).await;
    assert_eq!(unfit.status, 400);
    assert!(unfit.json()["error"]["message"].as_str().unwrap().contains("no head"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_address_wins_over_the_model_and_that_over_the_parameter() {
    let aliases = vec!["default".to_owned()];
    let Some(house) = House::with(Plan { aliases, ..Plan::default() }) else { return };
    let who = async |path: &str, model: Value, parameter: Value| {
        let body = json!({ "input": "my apple", "model": model, "parameters": { "adapter_id": parameter } });
        let answer = house.post(path, body).await;
        (answer.status.as_u16(), answer.header("x-adapter").to_owned())
    };
    let null = || Value::Null;
    let ok = |name: &str| (200, name.to_owned());
    assert_eq!(who("/a/lora/v1/embeddings", json!("ia3"), json!("ia3")).await, ok("lora"));
    assert_eq!(who("/v1/embeddings", json!("ia3"), json!("lora")).await, ok("ia3"));
    assert_eq!(who("/v1/embeddings", null(), json!("lora")).await, ok("lora"));
    assert_eq!(who("/v1/embeddings", null(), null()).await, ok(BASE));
    assert_eq!(who("/v1/embeddings", json!("default"), null()).await, ok(BASE));
    assert_eq!(who("/a/tiny/v1/embeddings", null(), null()).await, ok(BASE));
    assert_eq!(who("/a/none/v1/embeddings", json!("lora"), null()).await.0, 404);
    assert_eq!(who("/v1/embeddings", null(), json!("none")).await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn vllm_ranks_documents_and_counts_tokens() {
    let Some(house) = House::new() else { return };
    let body = json!({ "query": "my apple", "documents": ["a saw", { "text": "the pear" }, "old"], "model": RANKER });
    let answer = house.post("/rerank", body.clone()).await;
    let results = answer.ok()["results"].clone();
    let scores: Vec<f64> = (0..3).map(|i| results[i]["relevance_score"].as_f64().unwrap()).collect();
    assert!(scores.is_sorted_by(|a, b| a >= b));
    assert_eq!(answer.header("x-adapter"), RANKER);
    let place = (0..3).find(|i| results[*i]["index"] == 1).unwrap();
    assert_eq!(results[place]["document"]["text"], "the pear");
    let mut top = body;
    top["top_n"] = json!(1);
    assert_eq!(house.post("/v1/rerank", top).await.ok()["results"].as_array().unwrap().len(), 1);
    let tokens =
        house.post("/tokenize", json!({ "prompt": "my apple", "return_token_strs": true })).await.ok();
    assert_eq!((&tokens["count"], &tokens["max_model_len"]), (&json!(4), &json!(64)));
    assert_eq!(tokens["token_strs"], json!(["[CLS]", "my", "apple", "[SEP]"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn adapters_are_loaded_and_unloaded_as_vllm_does_it() {
    let keys = KeyFile { admin: Some("root".into()), ..KeyFile::default() };
    let Some(house) = House::with(Plan { access: Access::new(&keys), ..Plan::default() }) else { return };
    let ask = async |what: &str, body: Value| {
        house.send("POST", &format!("/v1/{what}_lora_adapter"), Some("root"), body.to_string()).await
    };
    let loaded = ask("load", json!({ "lora_name": "copy", "lora_path": "lora" })).await;
    assert_eq!(
        (loaded.status.as_u16(), loaded.text.as_str()),
        (200, "Success: LoRA adapter 'copy' added successfully.")
    );
    assert!(loaded.header("content-type").starts_with("text/plain"));
    let absolute = house.adapters().join("ia3").display().to_string();
    let again = json!({ "lora_name": "copy", "lora_path": absolute });
    let taken = ask("load", again.clone()).await;
    assert_eq!((taken.status.as_u16(), &taken.json()["error"]["type"]), (400, &json!("InvalidUserInput")));
    let mut inplace = again;
    inplace["load_inplace"] = json!(true);
    assert_eq!(ask("load", inplace).await.header("x-adapter-revision"), "2");
    let models = house.get("/v1/models/copy").await.ok();
    assert_eq!(models["root"], "ia3", "shown relative to the folder of the adapters");

    for path in ["../base", "/etc", "lora/../../base", "nowhere", "."] {
        let out = ask("load", json!({ "lora_name": "x", "lora_path": path })).await;
        assert_eq!(
            (out.status.as_u16(), &out.json()["error"]["type"]),
            (404, &json!("NotFoundError")),
            "{path}"
        );
    }
    for name in ["", "../x", ".x", "a/b", &"x".repeat(129)] {
        assert_eq!(
            ask("load", json!({ "lora_name": name, "lora_path": "lora" })).await.status,
            400,
            "{name}"
        );
    }
    std::fs::create_dir(house.adapters().join("broken")).unwrap();
    std::fs::write(house.adapters().join("broken/adapter_config.json"), "{}").unwrap();
    let broken = ask("load", json!({ "lora_name": "broken", "lora_path": "broken" })).await;
    assert_eq!(broken.status, 400);
    assert!(!broken.text.contains(&*house.adapters().to_string_lossy()), "{}", broken.text);

    let gone = ask("unload", json!({ "lora_name": "copy" })).await;
    assert_eq!(gone.text, "Success: LoRA adapter 'copy' removed successfully.");
    assert_eq!(ask("unload", json!({ "lora_name": "copy" })).await.status, 404);
    assert_eq!(house.post("/v1/embeddings", json!({ "input": "a", "model": "copy" })).await.status, 404);
    let without = house.post("/v1/load_lora_adapter", json!({ "lora_name": "x", "lora_path": "lora" })).await;
    assert_eq!((without.status.as_u16(), &without.json()["error"]["code"]), (401, &json!("invalid_api_key")));
}
