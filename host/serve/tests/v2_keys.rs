//! The Open Inference Protocol respects keys and limits as the other dialects do, over HTTP and over gRPC.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::collections::HashMap;

use axum::http::{Extensions, HeaderMap};
use common::{Answer, BASE, House, Plan, RANKER, change};
use graft_serve::access::{Access, KeyFile};
use graft_serve::grpc::wire::grpc_inference_service_client::GrpcInferenceServiceClient;
use graft_serve::grpc::wire::model_infer_request::InferInputTensor;
use graft_serve::grpc::wire::{self, ModelInferRequest};
use graft_serve::v2::tensor::encode_bytes;
use graft_serve::v2::{Data, Input, Outputs, Request, Response, infer, models};
use graft_serve::{App, Caller, Rates, grpc};
use serde_json::{Value, json};
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

type Client = GrpcInferenceServiceClient<Channel>;

/// `lora` answers to `tenant` alone, what has no keys of its own to `all`.
fn plan(all: Option<&str>) -> Plan {
    let some = |k: &str| Some(k.to_owned());
    let adapters = HashMap::from([("lora".to_owned(), vec!["tenant".to_owned()])]);
    let keys = KeyFile { admin: some("root"), metrics: some("watch"), all: all.and_then(some), adapters };
    Plan { access: Access::new(&keys), aliases: vec!["default".into()], ..Plan::default() }
}

async fn served(app: &App) -> Client {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let app = app.clone();
    tokio::spawn(async move { grpc::serve(listener, app, std::future::pending()).await });
    let channel = Endpoint::from_shared(format!("http://{at}")).unwrap().connect().await.unwrap();
    GrpcInferenceServiceClient::new(channel)
}

/// The inputs of a call: a text for each row, and their adapters.
fn inputs(adapters: &[&str]) -> Value {
    let column = |name: &str, all: &[&str]| json!({ "name": name, "datatype": "BYTES", "shape": [all.len()], "data": all });
    json!({ "inputs": [column("text", &vec!["old"; adapters.len()]), column("adapter", adapters)] })
}

async fn ask(house: &House, model: &str, key: Option<&str>, adapters: &[&str]) -> Answer {
    house.send("POST", &format!("/v2/models/{model}/infer"), key, inputs(adapters).to_string()).await
}

/// The same over gRPC.
fn call(model: &str, adapters: &[&str]) -> ModelInferRequest {
    let tensor = |name: &str| InferInputTensor {
        name: name.into(),
        datatype: "BYTES".into(),
        shape: vec![adapters.len() as i64],
        ..Default::default()
    };
    let raw = [encode_bytes(&vec!["old"; adapters.len()]).unwrap(), encode_bytes(adapters).unwrap()];
    ModelInferRequest {
        model_name: model.into(),
        inputs: vec![tensor("text"), tensor("adapter")],
        raw_input_contents: raw.to_vec(),
        ..Default::default()
    }
}

fn keyed<T>(key: Option<&str>, message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    if let Some(key) = key {
        request.metadata_mut().insert("authorization", format!("Bearer {key}").parse().unwrap());
    }
    request
}

fn code<T>(answer: Result<T, tonic::Status>) -> Code {
    answer.map_or_else(|status| status.code(), |_| Code::Ok)
}

/// What an adapter that is for `tenant` says to each key.
const SAID: [(Option<&str>, u16, Code); 5] = [
    (None, 401, Code::Unauthenticated),
    (Some("wrong"), 401, Code::Unauthenticated),
    (Some("watch"), 404, Code::NotFound),
    (Some("tenant"), 200, Code::Ok),
    (Some("root"), 200, Code::Ok),
];

#[tokio::test(flavor = "multi_thread")]
async fn an_adapter_is_there_for_its_keys_alone() {
    let Some(house) = House::with(plan(None)) else { return };
    let mut client = served(&house.app).await;
    for (key, status, of_grpc) in SAID {
        for path in ["lora", "lora/ready", "lora/config", "lora/stats", "lora/versions/1"] {
            let answer = house.send("GET", &format!("/v2/models/{path}"), key, "").await;
            assert_eq!(answer.status, status, "{path} {key:?}");
        }
        let (name, version) = ("lora".to_owned(), String::new());
        let ready = wire::ModelReadyRequest { name: name.clone(), version: version.clone() };
        let there = client.model_ready(keyed(key, ready)).await;
        match of_grpc {
            Code::Unauthenticated => assert_eq!(code(there), of_grpc),
            _ => assert_eq!(there.unwrap().into_inner().ready, of_grpc == Code::Ok, "{key:?}"),
        }
        let metadata = wire::ModelMetadataRequest { name: name.clone(), version: version.clone() };
        assert_eq!(code(client.model_metadata(keyed(key, metadata)).await), of_grpc);
        let config = wire::ModelConfigRequest { name: name.clone(), version: version.clone() };
        assert_eq!(code(client.model_config(keyed(key, config)).await), of_grpc);
        let statistics = wire::ModelStatisticsRequest { name, version };
        assert_eq!(code(client.model_statistics(keyed(key, statistics)).await), of_grpc);
        // As the model, and as the adapter of one row among others.
        for (model, rows) in [("lora", [""].as_slice()), ("ia3", &["", "lora"]), (BASE, &["", "lora"])] {
            assert_eq!(ask(&house, model, key, rows).await.status, status, "{model} {key:?}");
            assert_eq!(code(client.model_infer(keyed(key, call(model, rows))).await), of_grpc);
        }
        assert_eq!(ask(&house, "ia3", key, &["", BASE]).await.status, 200, "they have no keys of their own");
        assert_eq!(code(client.model_infer(keyed(key, call("default", &["ia3"]))).await), Code::Ok);
    }
    for (key, status) in [(None, 401), (Some("tenant"), 404)] {
        assert_eq!(ask(&house, "nobody", key, &[""]).await.status, status, "a name that nobody has");
        assert_eq!(ask(&house, "ia3", key, &["nobody"]).await.status, status);
    }
    let mut request = tonic::Request::new(call("lora", &[""]));
    request.metadata_mut().insert("x-api-key", "tenant".parse().unwrap());
    assert_eq!(code(client.model_infer(request).await), Code::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_the_base_have_the_keys_of_the_base() {
    let adapters = HashMap::from([(BASE.to_owned(), vec!["own".to_owned()])]);
    let access = Access::new(&KeyFile { adapters, ..KeyFile::default() });
    let plan = Plan { access, aliases: vec!["default".into()], ..Plan::default() };
    let Some(house) = House::with(plan) else { return };
    for name in [BASE, "default"] {
        assert_eq!(ask(&house, name, None, &[""]).await.status, 401);
        assert_eq!(ask(&house, "lora", None, &[name]).await.status, 401);
        assert_eq!(ask(&house, name, Some("own"), &[""]).await.ok()["model_name"], name);
        assert_eq!(ask(&house, "lora", Some("own"), &[name]).await.header("x-adapter"), BASE);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_have_what_the_key_opens() {
    let Some(house) = House::with(plan(None)) else { return };
    let mut client = served(&house.app).await;
    let names = |list: &Value| -> Vec<String> {
        let mut names: Vec<String> =
            list.as_array().unwrap().iter().map(|e| e["name"].as_str().unwrap().to_owned()).collect();
        names.sort();
        names
    };
    for loaded in [true, false] {
        if !loaded {
            let gone = house.send("POST", "/v2/repository/models/lora/unload", Some("root"), "").await;
            assert_eq!(gone.status, 200);
        }
        for (key, sees) in
            [(None, false), (Some("watch"), false), (Some("tenant"), true), (Some("root"), true)]
        {
            let lora = if sees { &["lora"][..] } else { &[] };
            let wanted = [&["ia3"], lora, &[RANKER, BASE]].concat();
            let index = house.send("POST", "/v2/repository/index", key, "").await.ok();
            assert_eq!(names(&index), wanted, "{key:?}");
            let request = wire::RepositoryIndexRequest::default();
            let of_grpc = client.repository_index(keyed(key, request)).await.unwrap().into_inner().models;
            assert_eq!(of_grpc.len(), wanted.len());
            assert_eq!(of_grpc.iter().any(|m| m.name == "lora"), sees);
            let statistics = house.send("GET", "/v2/models/stats", key, "").await.ok();
            let counted = wanted.len() - usize::from(sees && !loaded);
            assert_eq!(names(&statistics["model_stats"]).len(), counted);
            let request = wire::ModelStatisticsRequest::default();
            let of_grpc = client.model_statistics(keyed(key, request)).await.unwrap().into_inner();
            assert_eq!(of_grpc.model_stats.len(), counted);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_see_nothing_is_asked_for_a_key() {
    let Some(house) = House::with(plan(Some("all"))) else { return };
    let mut client = served(&house.app).await;
    for (key, status) in [(None, 401), (Some("wrong"), 401), (Some("watch"), 200), (Some("all"), 200)] {
        for (method, path) in
            [("GET", "/v1/models"), ("POST", "/v2/repository/index"), ("GET", "/v2/models/stats")]
        {
            assert_eq!(house.send(method, path, key, "").await.status, status, "{path} {key:?}");
        }
        let index = client.repository_index(keyed(key, wire::RepositoryIndexRequest::default())).await;
        assert_eq!(code(index), if status == 200 { Code::Ok } else { Code::Unauthenticated });
        for path in ["/v2", "/v2/health/live", "/v2/health/ready"] {
            assert_eq!(house.send("GET", path, key, "").await.status, 200, "{path} tells nothing");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn adapters_are_changed_with_the_administrators_key_alone() {
    let Some(house) = House::with(plan(None)) else { return };
    let mut client = served(&house.app).await;
    let model_name = || "lora".to_owned();
    for (key, status, of_grpc) in [
        (None, 401, Code::Unauthenticated),
        (Some("wrong"), 401, Code::Unauthenticated),
        (Some("tenant"), 403, Code::PermissionDenied),
        (Some("root"), 200, Code::Ok),
    ] {
        for what in ["load", "unload", "load"] {
            let path = format!("/v2/repository/models/lora/{what}");
            assert_eq!(house.send("POST", &path, key, "").await.status, status, "{what} {key:?}");
        }
        let unload = wire::RepositoryModelUnloadRequest { model_name: model_name(), ..Default::default() };
        assert_eq!(code(client.repository_model_unload(keyed(key, unload)).await), of_grpc);
        let load = wire::RepositoryModelLoadRequest { model_name: model_name(), ..Default::default() };
        assert_eq!(code(client.repository_model_load(keyed(key, load)).await), of_grpc);
        let changed = house.engine.store.find("lora").unwrap().by.revision > 1;
        assert_eq!(changed, status == 200);
    }
    assert_eq!(house.send("POST", "/v2/repository/models/lora/load", None, "{").await.status, 401);
    let Some(open) = House::new() else { return };
    assert_eq!(open.send("POST", "/v2/repository/models/lora/unload", Some("any"), "").await.status, 403);
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn no_folder_is_loaded_that_leads_out_of_the_adapters() {
    let Some(house) = House::with(plan(None)) else { return };
    std::os::unix::fs::symlink(house.golden("lora"), house.adapters().join("out")).unwrap();
    let answer = house.send("POST", "/v2/repository/models/out/load", Some("root"), "").await;
    assert_eq!(answer.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_and_numbers_of_an_adapter_are_those_of_all_dialects() {
    let rates = Rates::new(None, HashMap::from([("lora".to_owned(), 0.5)]));
    let Some(house) = House::with(Plan { rates, ..Plan::default() }) else { return };
    let mut client = served(&house.app).await;
    ask(&house, "ia3", None, &["", "lora", ""]).await.ok();
    let often = ask(&house, "lora", None, &[""]).await;
    assert_eq!((often.status.as_u16(), often.header("retry-after")), (429, "2"));
    let often = client.model_infer(call("ia3", &["", "lora"])).await.unwrap_err();
    assert_eq!(often.code(), Code::ResourceExhausted);
    assert_eq!(often.metadata().get("retry-after").unwrap(), "2");
    assert_eq!(house.post("/a/lora/predict", json!({ "inputs": "old" })).await.status, 429);
    client.model_infer(call("ia3", &[""])).await.unwrap();
    ask(&house, "nobody", None, &[""]).await;
    assert_eq!(code(client.model_infer(call("ia3", &["nobody"])).await), Code::NotFound);
    let numbers = house.get("/metrics").await.text;
    for line in [
        r#"graft_adapter_requests_total{adapter="lora"} 1"#,
        r#"graft_adapter_tokens_total{adapter="lora"} 3"#,
        r#"graft_refusals_total{why="rate"} 3"#,
        r#"graft_refusals_total{why="unknown_adapter"} 2"#,
        r#"graft_http_responses_total{status="429"} 2"#,
    ] {
        assert!(numbers.lines().any(|l| l == line), "no {line} in\n{numbers}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_answered_by_the_revision_that_was_found() {
    let Some(house) = House::new() else { return };
    let caller = Caller::of(&house.app, &HeaderMap::new(), &Extensions::new());
    let column = |name: &str, all: [&str; 2]| {
        let data = Data::Bytes(all.map(|t| t.as_bytes().to_vec()).to_vec());
        Input::new(name, &[2], data).unwrap()
    };
    let request = || {
        // By its name and as the model that was called.
        let inputs = vec![column("text", ["old"; 2]), column("adapter", ["lora", ""])];
        Request { model: "lora".into(), inputs, ..Request::default() }
    };
    let found = models::find(&caller, "lora", "1").await.unwrap();
    let before = infer(&caller, &found, request()).await.unwrap();
    let dir = house.adapters().join("lora");
    change(&dir, "classifier", 2.0);
    house.engine.store.load("lora", &dir, true).unwrap();
    let again = infer(&caller, &found, request()).await.unwrap();
    assert_eq!(Response { times: before.times, ..again }, before);
    assert_eq!((before.version, before.by.unwrap().digest), (1, found.by.digest.clone()));
    assert_eq!(before.outputs[3].data, Outputs::Bytes(vec!["1".into(), "1".into()]));
    let new = models::find(&caller, "lora", "2").await.unwrap();
    let after = infer(&caller, &new, request()).await.unwrap();
    assert_eq!(after.version, 2);
    assert_ne!(after.outputs[1].data, before.outputs[1].data);
    assert!(models::find(&caller, "lora", "1").await.is_err());
}
