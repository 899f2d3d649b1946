//! The Open Inference Protocol over HTTP, answered by PEFT's own adapters.
#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

mod support;

use std::io::Write;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use graft_serve::http::{self, Settings};
use serde_json::{Value, json};
use tower::ServiceExt;

use support::{ADAPTERS, ADMIN, BASE, House, bytes, int64s};

/// Largest difference from PEFT's probabilities.
const CLOSE: f64 = 1e-5;

struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {:?}", self.text()))
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|h| h.to_str().unwrap())
    }

    /// The words of a fault with that status.
    fn fault(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{}", self.text());
        self.json()["error"].as_str().unwrap().to_owned()
    }

    /// The output of a name in an answer of JSON.
    fn output(&self, name: &str) -> Value {
        assert_eq!(self.status, 200, "{}", self.text());
        let all = self.json()["outputs"].as_array().unwrap().clone();
        all.into_iter().find(|o| o["name"] == name).unwrap_or_else(|| panic!("no output {name}"))
    }

    /// The JSON in front of the bytes, and the bytes of its outputs.
    fn binary(&self) -> (Value, Vec<Vec<u8>>) {
        assert_eq!(self.status, 200, "{}", self.text());
        let length = self.header("inference-header-content-length").unwrap().parse().unwrap();
        let (head, mut rest) = self.body.split_at(length);
        let head: Value = serde_json::from_slice(head).unwrap();
        let mut all = Vec::new();
        for output in head["outputs"].as_array().unwrap() {
            let Some(size) = output["parameters"]["binary_data_size"].as_u64() else { continue };
            let (bytes, behind) = rest.split_at(size as usize);
            all.push(bytes.to_vec());
            rest = behind;
        }
        assert!(rest.is_empty());
        (head, all)
    }
}

async fn send(router: &Router, request: Request<Body>) -> Reply {
    let response = router.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap().to_vec();
    Reply { status: parts.status, headers: parts.headers, body }
}

async fn get(router: &Router, path: &str) -> Reply {
    send(router, Request::get(path).body(Body::empty()).unwrap()).await
}

async fn post(router: &Router, path: &str, body: impl Into<Body>) -> Reply {
    send(router, Request::post(path).body(body.into()).unwrap()).await
}

/// Asks the repository for something, with the administrator's key.
async fn change(router: &Router, request: &str, body: &'static str) -> Reply {
    let path = format!("/v2/repository/models/{request}");
    send(router, Request::post(path).header("x-api-key", ADMIN).body(body.into()).unwrap()).await
}

async fn infer(router: &Router, model: &str, call: Value) -> Reply {
    post(router, &format!("/v2/models/{model}/infer"), call.to_string()).await
}

/// A call with tensors as bytes.
async fn infer_binary(router: &Router, model: &str, call: Value, tensors: &[Vec<u8>]) -> Reply {
    let head = call.to_string();
    let request = Request::post(format!("/v2/models/{model}/infer"))
        .header("Inference-Header-Content-Length", head.len());
    let body = [head.into_bytes(), tensors.concat()].concat();
    send(router, request.body(Body::from(body)).unwrap()).await
}

fn texts(name: &str, all: &[&str]) -> Value {
    json!({ "name": name, "datatype": "BYTES", "shape": [all.len()], "data": all })
}

fn close(found: &Value, expected: &[(String, f64)]) {
    let found: Vec<f64> = found.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
    let near = found.iter().zip(expected).all(|(f, (_, e))| (f - e).abs() < CLOSE);
    assert!(found.len() == expected.len() && near, "{found:?} instead of {expected:?}");
}

#[tokio::test]
async fn the_server_and_its_models_say_what_they_are() {
    let Some(house) = House::new() else { return };
    let router = http::router(house.app());
    for path in
        ["/v2/health/live", "/v2/health/ready", "/v2/models/lora/ready", "/v2/models/tiny/versions/0/ready"]
    {
        assert_eq!(get(&router, path).await.status, 200, "{path}");
    }
    let server = get(&router, "/v2").await.json();
    assert_eq!(server["name"], "graft");
    assert!(server["extensions"].as_array().unwrap().contains(&json!("binary_tensor_data")));
    let model = get(&router, "/v2/models/lora/versions/1").await.json();
    assert_eq!((&model["name"], &model["versions"]), (&json!("lora"), &json!(["1"])));
    let digest = house.engine.store.find("lora").unwrap().by.digest.to_string();
    assert_eq!(model["parameters"]["digest"], json!(digest));
    assert_eq!(model["parameters"]["objective"], "classification");
    assert_eq!(model["inputs"][2], json!({ "name": "input_ids", "datatype": "INT64", "shape": [-1, -1] }));
    let config = get(&router, "/v2/models/lora/config").await.json();
    assert_eq!(config["output"][0], json!({ "name": "label", "data_type": "TYPE_STRING", "dims": [-1] }));
    assert_eq!(config["parameters"]["digest"]["string_value"], json!(digest));
}

#[tokio::test]
async fn tokens_are_answered_as_peft_answers_them() {
    let Some(house) = House::new() else { return };
    let router = http::router(house.app());
    let [ids, mask] = house.tokens();
    let tensor = |name: &str, data: &[i64]| json!({ "name": name, "datatype": "INT64", "shape": [3, 9], "data": data });
    for adapter in ADAPTERS {
        let call =
            json!({ "id": "a call", "inputs": [tensor("input_ids", &ids), tensor("attention_mask", &mask)] });
        let reply = infer(&router, adapter, call).await;
        let expected = house.expected(adapter);
        close(&reply.output("score")["data"], &expected);
        let labels: Vec<&String> = expected.iter().map(|(l, _)| l).collect();
        assert_eq!(reply.output("label")["data"], json!(labels), "{adapter}");
        assert_eq!(reply.output("revision")["data"], json!(["1", "1", "1"]));
        let whole: Value = serde_json::from_str(reply.output("json")["data"][0].as_str().unwrap()).unwrap();
        assert_eq!(whole["probabilities"].as_object().unwrap().len(), 3);
        let head = reply.json();
        assert_eq!(
            (&head["model_name"], &head["model_version"], &head["id"]),
            (&json!(adapter), &json!("1"), &json!("a call"))
        );
        assert_eq!(
            (reply.header("x-adapter"), reply.header("x-adapter-revision")),
            (Some(adapter), Some("1"))
        );
        let digest = house.engine.store.find(adapter).unwrap().by.digest.to_string();
        assert_eq!(reply.header("x-adapter-digest"), Some(digest.as_str()));
    }
}

#[tokio::test]
async fn tensors_go_and_come_as_bytes() {
    let Some(house) = House::new() else { return };
    let router = http::router(house.app());
    let tensors: Vec<Vec<u8>> = house.tokens().iter().map(|t| int64s(t)).collect();
    let tensor = |name: &str| {
        let parameters = json!({ "binary_data_size": 3 * 9 * 8 });
        json!({ "name": name, "datatype": "INT64", "shape": [3, 9], "parameters": parameters })
    };
    let inputs = json!([tensor("input_ids"), tensor("attention_mask")]);
    let call = json!({ "inputs": inputs, "parameters": { "binary_data_output": true } });
    let (head, all) = infer_binary(&router, "ia3", call, &tensors).await.binary();
    let scores: Vec<f32> = all[1].as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    close(&json!(scores), &house.expected("ia3"));
    assert_eq!(head["outputs"][1]["parameters"]["binary_data_size"], 12);
    let labels: Vec<String> = house.expected("ia3").into_iter().map(|(l, _)| l).collect();
    assert_eq!(all[0], bytes(&labels.iter().map(String::as_str).collect::<Vec<_>>()));

    let outputs = json!([{ "name": "revision", "parameters": { "binary_data": true } }, { "name": "score" }]);
    let call = json!({ "inputs": inputs, "outputs": outputs });
    let (head, all) = infer_binary(&router, "ia3", call, &tensors).await.binary();
    assert_eq!(all, [bytes(&["1", "1", "1"])]);
    let names: Vec<&Value> = head["outputs"].as_array().unwrap().iter().map(|o| &o["name"]).collect();
    assert_eq!(names, ["score", "revision"]);
    close(&head["outputs"][0]["data"], &house.expected("ia3"));
}

#[tokio::test]
async fn rows_name_their_adapters() {
    let Some(house) = House::new() else { return };
    let router = http::router(house.app());
    let text = "my old owl";
    let mut alone = Vec::new();
    for model in ["lora", "ia3", BASE] {
        let reply = infer(&router, model, json!({ "inputs": [texts("text", &[text])] })).await;
        alone.push(reply.output("json")["data"][0].clone());
        assert_eq!(reply.header("x-adapter"), Some(model));
    }
    let rows = ["ia3", "", "tiny", "ia3"];
    let call = json!({ "inputs": [texts("text", &[text; 4]), texts("adapter", &rows)] });
    let reply = infer(&router, "lora", call).await;
    assert_eq!(reply.output("revision")["data"], json!(["1", "1", "0", "1"]));
    assert_eq!(reply.header("x-adapter"), None, "the rows have several adapters");
    let label = |v: &Value| serde_json::from_str::<Value>(v.as_str().unwrap()).unwrap()["label"].clone();
    let mixed = reply.output("json")["data"].clone();
    for (row, which) in [1, 0, 2, 1].into_iter().enumerate() {
        assert_eq!(label(&mixed[row]), label(&alone[which]), "row {row}");
    }
    let vector: Value = serde_json::from_str(mixed[2].as_str().unwrap()).unwrap();
    assert_eq!(vector["vector"].as_array().unwrap().len(), 32);
    assert_eq!(
        (&reply.output("label")["data"][2], &reply.output("score")["data"][2]),
        (&json!(""), &json!(0.0))
    );
    let call = json!({ "inputs": [texts("text", &[text; 2]), texts("adapter", &["", "lorax"])] });
    assert!(infer(&router, "lora", call).await.fault(404).contains("'lorax'"));
}

#[tokio::test]
async fn models_and_versions_that_are_not_there_are_not_found() {
    let Some(house) = House::new() else { return };
    let router = http::router(house.app());
    for path in [
        "nobody",
        "nobody/ready",
        "nobody/config",
        "nobody/stats",
        "lora/versions/2",
        "lora/versions/2/ready",
    ] {
        let fault = get(&router, &format!("/v2/models/{path}")).await.fault(404);
        assert!(fault.contains("nobody") || fault.contains("version 1"), "{fault}");
    }
    let call = json!({ "inputs": [texts("text", &["a"])] });
    infer(&router, "nobody", call.clone()).await.fault(404);
    infer(&router, "lora/versions/2", call.clone()).await.fault(404);
    assert_eq!(infer(&router, "lora/versions/1", call).await.status, 200);
    get(&router, "/v2/models/lora/versions/one").await.fault(400);
    get(&router, "/v2/nothing/here").await.fault(404);
    get(&router, "/v2/models/lora/explain").await.fault(404);
    get(&router, "/v2/models/lora/infer").await.fault(405);
    get(&router, "/v2/models/%ff").await.fault(400);
}

#[tokio::test]
async fn calls_that_make_no_sense_are_refused_in_words() {
    let Some(house) = House::new() else { return };
    let router = http::router(house.app());
    let shaped = |shape: Value, data: Value| json!({ "inputs": [{ "name": "text", "datatype": "BYTES", "shape": shape, "data": data }] });
    for (call, why) in [
        (json!({}), "inputs"),
        (json!({ "inputs": [] }), "either"),
        (json!({ "inputs": [texts("text", &["a"])], "outputs": [{ "name": "logits" }] }), "'logits'"),
        (json!({ "inputs": [texts("text", &["a"])], "parameters": { "timeout": "soon" } }), "timeout"),
        (shaped(json!([2]), json!(["a"])), "1 elements instead of 2"),
        (shaped(json!([-1]), json!(["a"])), "no shape"),
        (shaped(json!([1]), json!([1])), "not BYTES"),
        (shaped(json!([0]), json!([])), "0 rows"),
    ] {
        let fault = infer(&router, "lora", call.clone()).await.fault(400);
        assert!(fault.contains(why), "{call}: {fault}");
    }
    assert!(post(&router, "/v2/models/lora/infer", "{").await.fault(400).contains("JSON"));
    assert!(
        post(&router, "/v2/models/lora/infer", vec![b' '; Settings::default().body_bytes + 1])
            .await
            .fault(413)
            .contains("bytes")
    );
    let shared = json!({ "name": "text", "datatype": "BYTES", "shape": [1], "parameters": { "shared_memory_region": "r" } });
    infer(&router, "lora", json!({ "inputs": [shared] })).await.fault(501);
}

#[tokio::test]
async fn packed_bodies_are_unpacked_up_to_the_limit() {
    let Some(house) = House::new() else { return };
    let router = http::router(house.app());
    let packed = |content: &[u8]| {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(content).unwrap();
        packer.finish().unwrap()
    };
    let send = async |encoding: &str, body: Vec<u8>| {
        let request = Request::post("/v2/models/lora/infer").header("Content-Encoding", encoding);
        send(&router, request.body(Body::from(body)).unwrap()).await
    };
    let call = json!({ "inputs": [texts("text", &["a"])] }).to_string();
    assert_eq!(send("gzip", packed(call.as_bytes())).await.status, 200);
    send("gzip", packed(&vec![b' '; Settings::default().body_bytes + 1])).await.fault(413);
    send("gzip", call.clone().into_bytes()).await.fault(400);
    send("br", call.into_bytes()).await.fault(400);
}

#[tokio::test]
async fn the_repository_is_listed_loaded_and_unloaded() {
    let Some(house) = House::new() else { return };
    let router = http::router(house.app());
    let index = async |body: &'static str| post(&router, "/v2/repository/index", body).await.json();
    let entry =
        |list: &Value, name: &str| list.as_array().unwrap().iter().find(|e| e["name"] == name).cloned();
    let ready = json!({ "name": "lora", "version": "1", "state": "READY", "reason": "" });
    let all = index("").await;
    assert_eq!(entry(&all, "lora"), Some(ready));
    assert_eq!(entry(&all, BASE).unwrap()["version"], "0");

    assert_eq!(change(&router, "lora/unload", "").await.status, 200);
    get(&router, "/v2/models/lora/ready").await.fault(404);
    assert_eq!(entry(&index("").await, "lora").unwrap()["state"], "UNAVAILABLE");
    assert_eq!(entry(&index(r#"{"ready": true}"#).await, "lora"), None);
    change(&router, "lora/unload", "{}").await.fault(404);
    change(&router, "tiny/unload", "").await.fault(400);

    let config = house.adapters().join("ia3/adapter_config.json");
    let same = std::fs::read_to_string(&config).unwrap();
    change(&router, "ia3/load", "{}").await;
    assert_eq!(
        entry(&index("").await, "ia3").unwrap()["version"],
        "1",
        "the same files are no other version"
    );
    std::fs::write(&config, format!("{same}\n")).unwrap();
    for adapter in ["lora", "ia3"] {
        let loaded = change(&router, &format!("{adapter}/load"), "{}").await;
        assert_eq!(loaded.status, 200, "{}", loaded.text());
        assert_eq!(entry(&index("").await, adapter).unwrap()["state"], "READY");
    }
    assert_eq!(entry(&index("").await, "ia3").unwrap()["version"], "2");
    get(&router, "/v2/models/ia3/versions/1").await.fault(404);
    for name in ["nobody", "..", "%2e%2e%2fbase", "a%2fb"] {
        let status = change(&router, &format!("{name}/load"), "").await.status;
        assert!(status == 404 || status == 400, "{name}: {status}");
    }
    std::fs::write(house.adapters().join("dora/adapter_config.json"), "{").unwrap();
    let fault = change(&router, "dora/load", "").await.fault(400);
    assert!(!fault.contains(&*house.adapters().to_string_lossy()), "{fault}");
    assert_eq!(get(&router, "/v2/models/dora/versions/1/ready").await.status, 200, "the former one stays");
    let config = r#"{"parameters": {"config": "{}"}}"#;
    change(&router, "lora/load", config).await.fault(501);
}

#[tokio::test]
async fn statistics_count_rows_and_faults() {
    let Some(house) = House::new() else { return };
    let router = http::router(house.app());
    infer(&router, "lora", json!({ "inputs": [texts("text", &["a", "b", "c"])] })).await.output("label");
    let ids = json!({ "name": "input_ids", "datatype": "INT64", "shape": [1, 1], "data": [5000] });
    infer(&router, "lora", json!({ "inputs": [ids] })).await.fault(400);
    let stats = get(&router, "/v2/models/lora/stats").await.json();
    let lora = &stats["model_stats"][0];
    assert_eq!(
        (&lora["name"], &lora["version"], &lora["inference_count"]),
        (&json!("lora"), &json!("1"), &json!(3))
    );
    assert_eq!(lora["inference_stats"]["success"]["count"], 1);
    assert_eq!(lora["inference_stats"]["fail"]["count"], 1);
    assert!(lora["inference_stats"]["compute_infer"]["ns"].as_u64().unwrap() > 0);
    assert!(lora["last_inference"].as_u64().unwrap() > 1_600_000_000_000);
    let all = get(&router, "/v2/models/stats").await.json();
    assert_eq!(all["model_stats"].as_array().unwrap().len(), ADAPTERS.len() + 1);
}
