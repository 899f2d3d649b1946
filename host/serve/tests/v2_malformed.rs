//! Whatever is sent, each call over HTTP is answered or refused in the protocol's words.
#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

mod support;

use axum::body::{Body, to_bytes};
use axum::http::{Method, Request};
use graft_serve::http;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};
use tower::ServiceExt;

use support::{ADMIN, House};

/// JSON of any kind, small.
fn junk() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map("[a-z_]{1,8}", inner, 0..3).prop_map(|m| json!(m)),
        ]
    })
}

/// The inputs of a call that makes sense.
fn sound() -> impl Strategy<Value = Value> {
    let tensor = |name: &str, datatype: &str, shape: Value, data: Value| json!({ "name": name, "datatype": datatype, "shape": shape, "data": data });
    let texts = |name: &str, all: [&str; 2]| tensor(name, "BYTES", json!([2]), json!(all));
    let ids = |name: &str| tensor(name, "INT64", json!([1, 2]), json!([[1, 1]]));
    let mut raw = ids("input_ids");
    raw["data"] = Value::Null;
    raw["parameters"] = json!({ "binary_data_size": 16 });
    prop::sample::select(vec![
        json!([texts("text", ["a", "an owl"])]),
        json!([texts("text", ["a", ""]), texts("text_pair", ["b", "c"]), texts("adapter", ["", "lora"])]),
        json!([ids("input_ids"), ids("attention_mask")]),
        json!([raw]),
    ])
}

/// Another value for a field of a tensor.
fn change() -> impl Strategy<Value = (usize, &'static str, Value)> {
    let plausible = prop::sample::select(vec![
        ("name", json!("text")),
        ("name", json!("adapter")),
        ("datatype", json!("BYTES")),
        ("datatype", json!("INT64")),
        ("datatype", json!("FP32")),
        ("shape", json!([2])),
        ("shape", json!([2, 1])),
        ("shape", json!([0])),
        ("shape", json!([1u64 << 62, 4])),
        ("shape", json!([-1])),
        ("data", json!([])),
        ("data", json!(["a", "nobody"])),
        ("data", json!([5000, 6])),
        ("parameters", json!({ "binary_data_size": 16 })),
        ("parameters", json!({ "binary_data_size": u64::MAX })),
        ("parameters", json!({ "shared_memory_region": "r" })),
    ]);
    let fields = prop::sample::select(vec!["name", "datatype", "shape", "data", "parameters"]);
    let change = prop_oneof![3 => plausible, 1 => (fields, junk())];
    (0usize..3, change).prop_map(|(tensor, (field, value))| (tensor, field, value))
}

/// A call, sound or with one or two fields changed.
fn call() -> impl Strategy<Value = Value> {
    let outputs =
        vec![Value::Null, json!([]), json!([{ "name": "label" }]), json!([{ "name": "x" }]), json!(1)];
    let parameters =
        vec![Value::Null, json!({ "binary_data_output": true }), json!({ "timeout": 1 }), json!([])];
    let (outputs, parameters) = (prop::sample::select(outputs), prop::sample::select(parameters));
    let changes = prop::collection::vec(change(), 0..3);
    (sound(), changes, outputs, parameters).prop_map(|(mut inputs, changes, outputs, parameters)| {
        for (tensor, field, value) in changes {
            if let Some(tensor) = inputs.get_mut(tensor) {
                tensor[field] = value;
            }
        }
        json!({ "inputs": inputs, "outputs": outputs, "parameters": parameters })
    })
}

#[test]
fn every_call_is_answered_or_refused() {
    let Some(house) = House::new() else { return };
    let router = http::router(house.app());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let bytes = prop_oneof![
        4 => Just(Vec::new()),
        1 => Just([1i64.to_le_bytes(), 2i64.to_le_bytes()].concat()),
        1 => prop::collection::vec(any::<u8>(), 0..24),
    ];
    let infer = prop::sample::select(vec!["/v2/models/lora/infer", "/v2/models/tiny/infer"]);
    let others = prop::sample::select(vec![
        "/v2/models/nobody/versions/7/infer",
        "/v2/repository/index",
        "/v2/repository/models/nobody/load",
        "/v2/repository/models/nobody/unload",
    ]);
    let paths = prop_oneof![3 => infer, 1 => others];
    let body = prop_oneof![8 => call(), 1 => junk()];
    let header = prop_oneof![3 => Just(Some(0i64)), 1 => Just(None), 1 => (-9i64..9).prop_map(Some)];
    let answered = std::cell::Cell::new(0);
    let mut runner =
        TestRunner::new(Config { cases: 10_000, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&(paths, body, bytes, header), |(path, body, bytes, header)| {
        let head = body.to_string().into_bytes();
        let mut request = Request::builder().method(Method::POST).uri(path).header("x-api-key", ADMIN);
        if let Some(off) = header {
            request = request.header("inference-header-content-length", head.len() as i64 + off);
        }
        let request = request.body(Body::from([head, bytes].concat())).unwrap();
        let (status, body) = runtime.block_on(async {
            let response = router.clone().oneshot(request).await.unwrap();
            (response.status(), to_bytes(response.into_body(), usize::MAX).await.unwrap())
        });
        // 503: a deadline of a microsecond has passed.
        prop_assert!(
            !status.is_server_error() || [501, 503].contains(&status.as_u16()),
            "{status}: {body:?}"
        );
        if status.is_success() {
            answered.set(answered.get() + usize::from(path.ends_with("infer")));
        } else {
            let fault: Value =
                serde_json::from_slice(&body).map_err(|e| TestCaseError::fail(e.to_string()))?;
            prop_assert!(fault["error"].is_string(), "{fault}");
        }
        Ok(())
    });
    outcome.unwrap();
    assert!(answered.get() > 10, "only {} calls made sense", answered.get());
    let good = r#"{"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["a"]}]}"#;
    let request = Request::post("/v2/models/lora/infer").body(Body::from(good)).unwrap();
    assert_eq!(runtime.block_on(router.oneshot(request)).unwrap().status(), 200, "it still answers");
}
