//! The folder of the adapters while the server runs: what others change in it, loading on request, memory, going back.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{ADAPTERS, BASE, House, Plan, RANKER, change, copy, digest, packed};
use graft_runtime::SessionOptions;
use graft_serve::access::{Access, KeyFile};
use graft_serve::{Keeping, Limits, Watcher};
use serde_json::{Value, json};

const EVERY: Duration = Duration::from_millis(50);
const LOADS: &str = "graft_adapter_loads_total";
const FAILURES: &str = "graft_adapter_load_failures_total";

fn plan(keeping: Keeping) -> Plan {
    let access = Access::new(&KeyFile { admin: Some("root".into()), ..KeyFile::default() });
    Plan { access, keeping, ..Plan::default() }
}

fn on_request() -> Keeping {
    Keeping { on_request: true, ..Keeping::default() }
}

fn watched() -> Option<(House, Watcher)> {
    let house = House::with(plan(Keeping::default()))?;
    let watcher = Watcher::start(Arc::clone(&house.engine.store), EVERY).unwrap();
    Some((house, watcher))
}

async fn until(what: &str, is: impl AsyncFn() -> bool) {
    let began = Instant::now();
    while !is().await {
        assert!(began.elapsed() < Duration::from_secs(60), "never: {what}");
        tokio::time::sleep(EVERY / 5).await;
    }
}

/// Long enough for the folder to be looked at several times.
async fn some_looks() {
    tokio::time::sleep(EVERY * 8).await;
}

async fn status(house: &House, name: &str) -> u16 {
    let body = json!({ "inputs": "my apple", "raw_scores": true }).to_string();
    house.send("POST", &format!("/a/{name}/predict"), Some("root"), body).await.status.as_u16()
}

/// The first score, the digest and the revision of an answer.
async fn answer(house: &House, name: &str) -> (f64, String, String) {
    let body = json!({ "inputs": "my apple", "raw_scores": true }).to_string();
    let answer = house.send("POST", &format!("/a/{name}/predict"), Some("root"), body).await;
    let header = |name: &str| answer.header(name).to_owned();
    (answer.ok()[0]["score"].as_f64().unwrap(), header("x-adapter-digest"), header("x-adapter-revision"))
}

async fn admin(house: &House, method: &str, path: &str, body: Vec<u8>) -> Value {
    let answer = house.send(method, &format!("/admin/adapters/{path}"), Some("root"), body).await;
    assert!(answer.status.is_success(), "{} {}", answer.status, answer.text);
    if answer.text.is_empty() { Value::Null } else { answer.json() }
}

/// As somebody copies: file by file, each in pieces.
fn cut_off(from: &Path, to: &Path, bytes: usize) {
    let all = std::fs::read(from).unwrap();
    std::fs::write(to, &all[..bytes.min(all.len())]).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_put_replace_and_take_away_is_noticed() {
    let Some((house, _watcher)) = watched() else { return };
    let place = house.adapters().join("new");
    copy(&house.golden("lora"), &place);
    until("it is put there", async || status(&house, "new").await == 200).await;
    assert_eq!(answer(&house, "new").await, answer(&house, "lora").await);
    change(&place, "classifier", 2.0);
    until("it is replaced", async || answer(&house, "new").await.2 == "2").await;
    let second = answer(&house, "new").await;
    assert!(second.1 == digest(&place) && second.0 != answer(&house, "lora").await.0);
    let back = admin(&house, "POST", "new/rollback", Vec::new()).await;
    assert_eq!(back["revision"], 1, "the former one is in memory");
    some_looks().await;
    assert_eq!(answer(&house, "new").await.2, "1", "nobody has changed the files since");
    std::fs::remove_dir_all(&place).unwrap();
    until("it is gone", async || status(&house, "new").await == 404).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_half_copied_waits_and_is_told_of_once() {
    let Some((house, _watcher)) = watched() else { return };
    let (from, place) = (house.golden("lora"), house.adapters().join("new"));
    std::fs::create_dir(&place).unwrap();
    let file = |dir: &Path, name: &str| dir.join(name);
    let (config, weights) = ("adapter_config.json", "adapter_model.safetensors");
    std::fs::copy(file(&from, config), file(&place, config)).unwrap();
    until("it has no weights", async || house.number(FAILURES).await == 1.0).await;
    some_looks().await;
    assert_eq!((house.number(FAILURES).await, status(&house, "new").await), (1.0, 404));
    cut_off(&file(&from, weights), &file(&place, weights), 1000);
    until("its weights are cut off", async || house.number(FAILURES).await == 2.0).await;
    std::fs::copy(file(&from, weights), file(&place, weights)).unwrap();
    until("it is whole", async || status(&house, "new").await == 200).await;

    let before = answer(&house, "new").await;
    cut_off(&file(&from, weights), &file(&place, weights), 2000);
    until("what replaces it is cut off", async || house.number(FAILURES).await == 3.0).await;
    some_looks().await;
    assert_eq!((answer(&house, "new").await, house.number(FAILURES).await), (before.clone(), 3.0));
    std::fs::copy(file(&from, weights), file(&place, weights)).unwrap();
    some_looks().await;
    assert_eq!(answer(&house, "new").await, before, "the same files are no other revision");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_changes_adapters_over_http_is_not_contradicted_by_the_folder() {
    let Some((house, _watcher)) = watched() else { return };
    let loads = house.number(LOADS).await;
    admin(&house, "PUT", "new", packed(&house.golden("lora"))).await;
    some_looks().await;
    assert_eq!(house.number(LOADS).await, loads + 1.0, "it is not loaded twice");
    let unload = json!({ "lora_name": "new" }).to_string();
    let gone = house.send("POST", "/v1/unload_lora_adapter", Some("root"), unload).await;
    assert_eq!(gone.status, 200, "{}", gone.text);
    some_looks().await;
    assert_eq!(status(&house, "new").await, 404, "it stays away");
    change(&house.adapters().join("new"), "classifier", 2.0);
    until("its files have changed", async || status(&house, "new").await == 200).await;
    // From elsewhere, under the name of a folder.
    let load = json!({ "lora_name": "ia3", "lora_path": "lora", "load_inplace": true }).to_string();
    let loaded = house.send("POST", "/v1/load_lora_adapter", Some("root"), load).await;
    assert_eq!(loaded.status, 200, "{}", loaded.text);
    change(&house.adapters().join("ia3"), "classifier", 2.0);
    some_looks().await;
    assert_eq!(answer(&house, "ia3").await.1, digest(&house.golden("lora")));
    admin(&house, "DELETE", "new", Vec::new()).await;
    some_looks().await;
    assert_eq!(status(&house, "new").await, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adapter_is_loaded_by_the_first_request_for_it_once() {
    let Some(house) = House::with(plan(on_request())) else { return };
    let house = Arc::new(house);
    let ids = async || {
        let list = house.send("GET", "/v1/models", Some("root"), "").await.ok();
        let mut ids: Vec<String> =
            list["data"].as_array().unwrap().iter().map(|m| m["id"].as_str().unwrap().to_owned()).collect();
        ids.sort();
        ids
    };
    let mut all = vec![BASE, RANKER];
    all.extend(ADAPTERS);
    all.sort_unstable();
    assert_eq!(ids().await, all);
    let card = house.send("GET", "/v1/models/lora", Some("root"), "").await.ok();
    assert_eq!((&card["root"], &card["parent"]), (&json!("lora"), &json!(BASE)));
    assert_eq!(admin(&house, "GET", "lora", Vec::new()).await["loaded"], false);
    assert_eq!(house.number(LOADS).await, 0.0);
    let many: Vec<_> = (0..16)
        .map(|_| {
            let house = Arc::clone(&house);
            tokio::spawn(async move { status(&house, "lora").await })
        })
        .collect();
    for one in many {
        assert_eq!(one.await.unwrap(), 200);
    }
    assert_eq!(house.number(LOADS).await, 1.0);
    assert_eq!(status(&house, "none").await, 404);

    let weights = house.adapters().join("ia3/adapter_model.safetensors");
    let whole = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, b"rubbish").unwrap();
    for _ in 0..3 {
        let broken = house.post("/a/ia3/predict", json!({ "inputs": "old" })).await;
        assert_eq!(broken.status, 503, "{}", broken.text);
        assert!(!broken.text.contains(&*house.adapters().to_string_lossy()), "{}", broken.text);
    }
    assert_eq!(house.number(FAILURES).await, 1.0, "the same files are not tried again");
    assert_eq!(house.number(r#"graft_refusals_total{why="not_loaded"}"#).await, 3.0);
    std::fs::write(&weights, whole).unwrap();
    assert_eq!(status(&house, "ia3").await, 200);
    assert_eq!(ids().await, all);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_would_wait_too_long_is_told_to_come_again() {
    let keeping = Keeping { wait: Duration::ZERO, ..on_request() };
    let Some(house) = House::with(plan(keeping)) else { return };
    let ask = async || house.post("/a/lora/predict", json!({ "inputs": "old" })).await;
    let early = ask().await;
    assert_eq!((early.status.as_u16(), early.header("retry-after")), (429, "1"), "{}", early.text);
    until("it is loaded all the same", async || ask().await.status == 200).await;
    assert_eq!(house.number(LOADS).await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_does_not_open_an_adapter_does_not_load_it() {
    let own = [("lora".to_owned(), vec!["tenant".to_owned()])].into_iter().collect();
    let access = Access::new(&KeyFile { adapters: own, ..KeyFile::default() });
    let Some(house) = House::with(Plan { access, keeping: on_request(), ..Plan::default() }) else { return };
    let ask = async |key: Option<&str>| {
        let body = json!({ "inputs": "old" }).to_string();
        house.send("POST", "/a/lora/predict", key, body).await.status.as_u16()
    };
    assert_eq!((ask(None).await, ask(Some("wrong")).await), (401, 401));
    let loaded = || house.engine.store.find("lora").is_some();
    assert!(!loaded());
    assert_eq!(ask(Some("tenant")).await, 200);
    assert!(loaded());
}

/// What a house answers for an adapter, and its vector, the latter first.
async fn both(house: &House, name: &str) -> (Value, Value) {
    let body = json!({ "inputs": "my apple", "raw_scores": true }).to_string();
    let vector = house.send("POST", &format!("/a/{name}/embed"), Some("root"), body.clone()).await.ok();
    (vector, house.send("POST", &format!("/a/{name}/predict"), Some("root"), body).await.ok())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_leaves_the_banks_comes_back_with_both_of_its_heads() {
    // Banks for less than one adapter: each makes room for the next, with two lanes for the next of its own.
    for (threads, evictions) in [(1, 6.0), (2, 4.0)] {
        let limits = Some(Limits { bank_bytes: 1, ..Limits::default() });
        let options = SessionOptions { threads: Some(threads), ..SessionOptions::default() };
        let Some(house) = House::with(Plan { limits, options, ..plan(Keeping::default()) }) else { return };
        let names = [ADAPTERS[0], ADAPTERS[1], RANKER];
        let mut first = Vec::new();
        for name in names {
            first.push(both(&house, name).await);
        }
        assert!(first[0].0 != first[1].0 && first[0].1 != first[1].1);
        for _ in 0..2 {
            for (name, before) in names.into_iter().zip(&first) {
                assert_eq!(both(&house, name).await, *before, "{name}");
            }
        }
        let evicted = house.number(r#"graft_adapter_evictions_total{tier="banks"}"#).await;
        assert!(evicted >= evictions, "{evicted} with {threads} threads");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn vectors_are_made_of_what_is_in_memory() {
    let Some(house) = House::with(plan(Keeping::default())) else { return };
    let expected = both(&house, "lora").await.0;
    // Another of the same configuration, whose files are gone before anybody wants a vector.
    let place = house.adapters().join("other");
    copy(&house.golden("lora"), &place);
    house.engine.store.load("other", &place, false).unwrap();
    std::fs::remove_dir_all(&place).unwrap();
    assert_eq!(both(&house, "other").await.0, expected);
}

/// How many threads of this process come after others, by the names of `/proc`.
#[cfg(target_os = "linux")]
fn threads_behind(name: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let stats = tasks.filter_map(|t| std::fs::read_to_string(t.path().join("stat")).ok());
    let behind = |stat: &String| {
        let (head, tail) = stat.rsplit_once(')')?;
        let nice: i32 = tail.split_whitespace().nth(16)?.parse().ok()?;
        Some(nice > 0 && head.ends_with(&format!("({name}")))
    };
    stats.filter(|s| behind(s) == Some(true)).count()
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn who_loads_adapters_comes_after_who_answers_and_sessions_do_not() {
    let options = SessionOptions { threads: Some(3), ..SessionOptions::default() };
    let Some(house) = House::with(Plan { options, ..plan(Keeping::default()) }) else { return };
    answer(&house, "lora").await;
    // One that nobody knows here yet: a larger session is made, whose threads are started meanwhile.
    house.send("PUT", "/admin/adapters/dora", Some("root"), packed(&house.golden("dora"))).await.ok();
    answer(&house, "dora").await;
    assert_eq!(
        (threads_behind("loading"), threads_behind("sessions"), threads_behind("inference")),
        (1, 0, 0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_used_for_longest_leaves_memory_and_comes_back() {
    // Less than one adapter: only the newest stays, and what is pinned.
    let Some(house) = House::with(plan(Keeping { host_bytes: 1, ..Keeping::default() })) else { return };
    let here = |name: &str| house.engine.store.find(name).is_some();
    let first = answer(&house, "lora").await;
    assert!(here("lora") && !here("ia3") && !here(RANKER));
    let second = answer(&house, "ia3").await;
    assert!(here("ia3") && !here("lora"));
    assert_eq!(answer(&house, "lora").await, first, "the same answer, of the same revision");
    assert_eq!(answer(&house, "ia3").await, second);
    assert!(house.number(r#"graft_adapter_evictions_total{tier="memory"}"#).await >= 4.0);
    assert_eq!(house.number("graft_adapters_resident").await, 1.0);

    assert_eq!(admin(&house, "POST", "lora/pin", Vec::new()).await["pinned"], true);
    answer(&house, RANKER).await;
    answer(&house, "ia3").await;
    assert!(here("lora") && here("ia3") && !here(RANKER));
    assert!(house.number("graft_adapter_bytes").await > 0.0);

    // What lies in the folder is no longer it: it must stay.
    std::fs::write(house.adapters().join("ia3/adapter_config.json"), "{").unwrap();
    answer(&house, RANKER).await;
    assert!(here("ia3"));
    assert_eq!(answer(&house, "ia3").await, second);
}

#[tokio::test(flavor = "multi_thread")]
async fn going_back_works_after_a_restart_and_after_leaving_memory() {
    for keeping in [Keeping::default(), on_request(), Keeping { host_bytes: 1, ..Keeping::default() }] {
        let Some(house) = House::with(plan(Keeping::default())) else { return };
        let aside = tempfile::tempdir().unwrap();
        copy(&house.golden("lora"), aside.path());
        let mut made = Vec::new();
        for _ in 0..3 {
            admin(&house, "PUT", "mine", packed(aside.path())).await;
            made.push(answer(&house, "mine").await);
            change(aside.path(), "classifier", 2.0);
        }
        let house = house.restarted(plan(keeping));
        let place = house.adapters().join("mine");
        assert_eq!(answer(&house, "mine").await, (made[2].0, made[2].1.clone(), "1".into()));
        let state = admin(&house, "GET", "mine", Vec::new()).await;
        assert_eq!(state["previous"], json!({ "revision": null, "digest": made[1].1 }));
        let back = admin(&house, "POST", "mine/rollback", Vec::new()).await;
        assert_eq!((&back["digest"], &back["revision"]), (&json!(made[1].1), &json!(2)));
        assert_eq!(back["previous"], json!({ "revision": 1, "digest": made[2].1 }));
        // Something else pushes it out where there is no room.
        answer(&house, "ia3").await;
        assert_eq!(answer(&house, "mine").await, (made[1].0, made[1].1.clone(), "2".into()));
        assert_eq!(digest(&place), made[1].1, "in the folder too");
        answer(&house, "ia3").await;
        admin(&house, "POST", "mine/rollback", Vec::new()).await;
        assert_eq!(answer(&house, "mine").await, (made[2].0, made[2].1.clone(), "1".into()));
        let house = house.restarted(plan(keeping));
        admin(&house, "POST", "mine/rollback", Vec::new()).await;
        assert_eq!(answer(&house, "mine").await.1, made[1].1);
        // Files that somebody else has put there are no successor of what was kept.
        change(&place, "classifier", 3.0);
        let house = house.restarted(plan(keeping));
        let none = house.send("POST", "/admin/adapters/mine/rollback", Some("root"), "").await;
        assert_eq!(none.status, 409, "{}", none.text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_loaded_while_it_is_uploaded_answers_as_it_lies_there() {
    let Some(house) = House::with(plan(Keeping::default())) else { return };
    let place = house.adapters().join("mine");
    let aside = tempfile::tempdir().unwrap();
    copy(&house.golden("lora"), aside.path());
    admin(&house, "PUT", "mine", packed(aside.path())).await;
    for _ in 0..20 {
        change(aside.path(), "classifier", 1.01);
        let (store, dir, done) =
            (Arc::clone(&house.engine.store), place.clone(), Arc::new(AtomicBool::new(false)));
        let uploaded = Arc::clone(&done);
        // Whichever files it finds, the last load has read them before the upload or after it.
        let load = tokio::task::spawn_blocking(move || {
            while !uploaded.load(Ordering::Relaxed) {
                store.unload("mine").unwrap();
                store.load("mine", &dir, true).unwrap();
            }
        });
        admin(&house, "PUT", "mine", packed(aside.path())).await;
        done.store(true, Ordering::Relaxed);
        load.await.unwrap();
        let (_, answered, _) = answer(&house, "mine").await;
        assert_eq!(answered, digest(&place));
        assert_eq!(answered, digest(aside.path()));
    }
}
