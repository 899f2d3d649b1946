//! `graft serve` as a process: what it writes down of requests, how long it waits, how much memory it takes.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use graft_tests::fixture::House;
use serde_json::{Value, json};

const TEXT: &str = "my apple zyxwvu";
const KEY: &str = "key-of-nobody-else";

#[test]
fn every_request_has_a_line_and_no_line_has_its_text_or_key() {
    let Some(house) = House::new() else { return };
    house.lora("adapters/one", "").succeeded();
    let env =
        [("GRAFT_API_KEY", KEY), ("GRAFT_SERVE_LOG_FORMAT", "json"), ("GRAFT_ADMIN_KEY", "root-of-all")];
    let server = house.server("--adapters adapters --base-name tiny --set limits.texts=3", &env);
    let key = format!("authorization: Bearer {KEY}");
    let one = json!({ "inputs": TEXT }).to_string();
    let two = json!({ "inputs": [[TEXT], [TEXT]] }).to_string();
    let v2 = json!({ "inputs": [
        { "name": "text", "datatype": "BYTES", "shape": [2], "data": [TEXT, TEXT] },
        { "name": "adapter", "datatype": "BYTES", "shape": [2], "data": ["one", "tiny"] },
    ] });
    let v2 = v2.to_string();
    let secret = format!("/v1/models/{KEY}?text=zyxwvu");
    // Headers, method, path, body, and what the line says: status, route, rows, adapter, why it was refused.
    let key = key.as_str();
    type Said<'a> = (u64, &'a str, Option<u64>, Option<&'a str>, Option<&'a str>);
    let calls: Vec<(Vec<&str>, &str, &str, &str, Said<'_>)> = vec![
        (
            vec![key, "x-request-id: a-1"],
            "POST",
            "/a/one/predict",
            &two,
            (200, "/a/{adapter}/predict", Some(2), Some("one"), None),
        ),
        (vec![key], "POST", "/embed", &one, (200, "/embed", Some(1), Some("tiny"), None)),
        (
            vec![key],
            "POST",
            "/v2/models/one/infer",
            &v2,
            (200, "/v2/models/{model}/infer", Some(2), Some("several"), None),
        ),
        (vec![key], "POST", "/predict", &one, (424, "/predict", None, Some("tiny"), Some("model_type"))),
        (
            vec![key, "x-request-timeout: 0.000001"],
            "POST",
            "/a/one/predict",
            &one,
            (504, "/a/{adapter}/predict", None, Some("one"), Some("deadline")),
        ),
        (
            vec!["x-request-id: my apple"],
            "POST",
            "/a/one/predict",
            &one,
            (401, "/a/{adapter}/predict", None, None, None),
        ),
        (vec![key], "POST", "/a/zyxwvu/predict", &one, (404, "/a/{adapter}/predict", None, None, None)),
        (vec![key], "GET", &secret, "", (404, "/v1/models/{id}", None, None, None)),
        (vec![], "GET", "/zyxwvu", "", (404, "unknown", None, None, None)),
        (vec![key], "ZYXWVU", "/predict", "", (405, "/predict", None, None, None)),
        (vec![key], "POST", "/embed", "{\"inputs\": zyxwvu", (422, "/embed", None, None, None)),
    ];
    let mut ids = Vec::new();
    for (headers, method, path, body, said) in &calls {
        let reply = server.ask(method, path, headers, body);
        assert_eq!(u64::from(reply.status), said.0, "{method} {path}: {}", reply.body);
        ids.push(reply.header("x-request-id").to_owned());
    }
    assert_eq!(ids[0], "a-1");
    assert!(ids[1..].iter().all(|id| id.len() == 32), "{ids:?}");
    // A line is written after its answer.
    let wanted = ids.last().expect("there are some").clone();
    for _ in 0..200 {
        if server.lines().iter().any(|l| l.contains(&wanted)) {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let lines = server.stop();
    for line in &lines {
        let lower = line.to_lowercase();
        assert!(!lower.contains("zyxwvu") && !lower.contains("apple"), "a text: {line}");
        assert!(!line.contains(KEY) && !line.contains("root-of-all"), "a key: {line}");
    }
    let lines: Vec<Value> =
        lines.iter().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e}: {l}"))).collect();
    for (id, (_, method, _, _, (status, route, rows, adapter, refused))) in ids.iter().zip(&calls) {
        let of: Vec<&Value> = lines.iter().filter(|l| l["request_id"] == id.as_str()).collect();
        let [line] = of[..] else { panic!("{} lines of {id}", of.len()) };
        let method = if *method == "ZYXWVU" { "other" } else { method };
        let found = (line["status"].as_u64(), line["route"].as_str(), line["method"].as_str());
        assert_eq!(found, (Some(*status), Some(*route), Some(method)), "{line}");
        let found = (line["rows"].as_u64(), line["adapter"].as_str(), line["refused"].as_str());
        assert_eq!(found, (*rows, *adapter, *refused), "{line}");
        assert!(line["ms"].as_f64().is_some_and(|ms| ms > 0.0), "{line}");
        assert_eq!(line["tokens"].is_u64(), rows.is_some(), "{line}");
        assert_eq!(line["inference_ms"].is_f64(), rows.is_some(), "{line}");
        assert!(line["timestamp"].is_string() && line["level"] == "INFO", "{line}");
    }
}

#[test]
fn a_server_at_its_ceiling_of_memory_loads_nothing_and_answers() {
    let Some(house) = House::new() else { return };
    house.lora("adapters/one", "").succeeded();
    let server = house.server("--adapters adapters --base-name tiny --set limits.memory_bytes=1000000", &[]);
    assert!(server.lines().iter().any(|l| l.contains("'one' is not served") && l.contains("memory_bytes")));
    let metrics = server.ask("GET", "/metrics", &[], "").body;
    assert!(metrics.contains("graft_memory_limit_bytes 1000000\n") && metrics.contains("graft_threads 1\n"));
    let used = metrics.lines().find_map(|l| l.strip_prefix("graft_memory_bytes ")?.parse::<u64>().ok());
    assert!(used.is_some_and(|u| u > 1_000_000), "{used:?}");
    assert_eq!(server.ask("POST", "/embed", &[], r#"{"inputs": "my apple"}"#).status, 200);
}

#[test]
fn who_does_not_send_is_not_waited_for() {
    let Some(house) = House::new() else { return };
    let limits = "--set timeouts.body_seconds=0.5 --set timeouts.idle_seconds=2 --set limits.body_bytes=300";
    let server = house.server(&format!("--base-name tiny {limits}"), &[]);
    let sent = |head: &str| {
        let mut stream = TcpStream::connect(&server.address).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket");
        stream.write_all(head.as_bytes()).expect("it reads");
        let mut text = String::new();
        // It may be closed with what it did not read.
        let _ = stream.read_to_string(&mut text);
        text
    };
    for path in ["/embed", "/v1/embeddings", "/v2/models/tiny/infer"] {
        let begun =
            format!("POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 100\r\n\r\n{{");
        let text = sent(&begun);
        assert!(text.starts_with("HTTP/1.1 408 ") && text.contains("not there within 1 s"), "{path}: {text}");
        let large = server.ask("POST", path, &[], &" ".repeat(301));
        assert_eq!(large.status, 413, "{path}: {}", large.body);
    }
    for head in ["", "POST /embed HTTP/1.1\r\nhost: x\r\n"] {
        let text = sent(head);
        assert!(text.is_empty() || text.starts_with("HTTP/1.1 408 "), "{head}: {text}");
    }
    assert_eq!(server.ask("POST", "/embed", &[], r#"{"inputs": "my apple"}"#).status, 200);
}

#[test]
fn a_request_says_how_long_it_waits_and_the_server_how_long_at_most() {
    let Some(house) = House::new() else { return };
    let server = house.server("--base-name tiny --set timeouts.request_seconds=1e-6", &[]);
    let one = r#"{"inputs": "my apple"}"#;
    assert_eq!(server.ask("POST", "/embed", &[], one).status, 504);
    for header in
        ["x-request-timeout: 60", "X-Stainless-Read-Timeout: 600", "x-envoy-expected-rq-timeout-ms: 60000"]
    {
        assert_eq!(server.ask("POST", "/embed", &[header], one).status, 200, "{header}");
    }
    let both = ["x-request-timeout: 60", "x-stainless-timeout: 0.000001"];
    assert_eq!(server.ask("POST", "/embed", &both, one).status, 504);
    let v2 = |microseconds: u64| {
        let input = json!({ "name": "text", "datatype": "BYTES", "shape": [1], "data": ["my apple"] });
        let call = json!({ "inputs": [input], "parameters": { "timeout": microseconds } }).to_string();
        server.ask("POST", "/v2/models/tiny/infer", &[], &call).status
    };
    assert_eq!((v2(60_000_000), v2(1)), (200, 503));
    drop(server);
    let server = house.server("--base-name tiny --set timeouts.longest_seconds=1e-6", &[]);
    assert_eq!(server.ask("POST", "/embed", &["x-request-timeout: 60"], one).status, 504);
}
