//! Answers are made beside the thread that runs batches: who is refused there, and what is left when a server stops.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use common::{Answer, BASE, House, Plan, copy};
use graft_serve::form::Way;
use graft_serve::{Ask, Limits, Refusal, Text, Want};
use serde_json::{Map, Value, json};

/// Loads an adapter whose objective misbehaves in this way.
fn misbehaving(house: &House, name: &str, mode: &str) {
    let dir = house.adapters().join(name);
    copy(&house.golden("lora"), &dir);
    let weights = dir.join("adapter_model.safetensors");
    let tensors = graft_adapters::read_tensors_owned(&weights).unwrap();
    let without_head = tensors.iter().filter(|(n, _)| !n.contains("classifier"));
    graft_adapters::write_tensors(&weights, without_head.map(|(n, t)| (n.as_str(), t))).unwrap();
    let config = dir.join("adapter_config.json");
    let mut peft: Value = serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
    (peft["task_type"], peft["modules_to_save"]) = ("FEATURE_EXTRACTION".into(), Value::Null);
    std::fs::write(&config, peft.to_string()).unwrap();
    let digest = |file: &str| graft_adapters::digest_bytes(&std::fs::read(dir.join(file)).unwrap());
    let files =
        ["adapter_config.json", "adapter_model.safetensors"].map(|f| (f.to_owned(), digest(f).into()));
    let file = json!({
        "format": 1,
        "graft": "0.1.0",
        "method": { "id": "lora" },
        "objective": { "id": "misbehaving-objective", "config": { "mode": mode } },
        "base": { "digest": house.engine.store.base.digest().unwrap(), "name": BASE },
        "files": Map::from_iter(files),
    });
    std::fs::write(dir.join("graft.json"), file.to_string()).unwrap();
    let loaded = house.engine.store.load(name, &dir, false).unwrap();
    let form = loaded.form(&house.engine.store, Want::Answer).unwrap().unwrap();
    assert!(matches!(form.way, Way::Shared(..)), "it shares batches with the others");
}

/// Many requests of one row at once, in turn to these adapters.
async fn at_once(house: &Arc<House>, adapters: &[&str], requests: usize) -> Vec<(String, Answer)> {
    let ask = |k: usize| {
        let (house, adapter) = (Arc::clone(house), adapters[k % adapters.len()].to_owned());
        tokio::spawn(async move {
            let answer = house.post(&format!("/a/{adapter}/predict"), json!({ "inputs": "my apple" })).await;
            (adapter, answer)
        })
    };
    let asked: Vec<_> = (0..requests).map(ask).collect();
    let mut answers = Vec::with_capacity(requests);
    for one in asked {
        answers.push(one.await.unwrap());
    }
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_answer_is_told_so_and_its_neighbours_have_theirs() {
    let Some(house) = House::new() else { return };
    misbehaving(&house, "speechless", "panic-answering");
    let house = Arc::new(house);
    let alone = house.post("/a/lora/predict", json!({ "inputs": "my apple" })).await.ok();
    let mut refused = 0;
    for (adapter, answer) in at_once(&house, &["lora", "speechless", "ia3"], 96).await {
        match adapter.as_str() {
            "speechless" => {
                refused += 1;
                let text = &answer.text;
                assert_eq!(answer.status, 424, "{text}");
                assert!(text.contains("misbehaving-objective"), "it is named: {text}");
            }
            "lora" => assert_eq!(answer.ok(), alone, "as if nobody had been there"),
            _ => drop(answer.ok()),
        }
    }
    assert_eq!(refused, 32);
    let failed = house.number(r#"graft_refusals_total{why="inference"}"#).await;
    assert_eq!(failed, 32.0, "it is nothing that who asks could have done otherwise");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_has_stopped_when_all_that_it_took_is_answered() {
    const ROWS: usize = 256;
    let limits = Limits { batch_rows: 1, ..Limits::default() };
    let Some(house) = House::with(Plan { limits: Some(limits), ..Plan::default() }) else { return };
    let text = Text::One("my apple".into());
    let ask = |rows: usize| Ask::new(Some("lora"), vec![text.clone(); rows], Want::Answer);
    let mut asked = Box::pin(house.engine.ask(ask(ROWS)));
    let mut looked = Context::from_waker(Waker::noop());
    while house.engine.waiting() < ROWS / 2 {
        assert!(asked.as_mut().poll(&mut looked).is_pending(), "its rows waited before this looked");
        tokio::task::yield_now().await;
    }
    tokio::task::block_in_place(|| house.engine.stop());
    let Poll::Ready(Ok(answered)) = asked.as_mut().poll(&mut looked) else { panic!("it was taken") };
    assert_eq!(answered.answers.len(), ROWS);
    assert!(matches!(house.engine.ask(ask(1)).await, Err(Refusal::Stopping)));
}
