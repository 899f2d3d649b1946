//! The clients that people have, unmodified, against a small server.

use std::process::{Command, Output};

use graft_tests::clients;
use graft_tests::served::ADMIN_KEY;

use crate::house;

/// Runs a script of `tests/peers` with the Python that has the clients.
fn script(name: &str, args: &[&str]) {
    let Some(python) = clients() else { return };
    let Some(house) = house() else { return };
    let mut server = house.serve("");
    let args = args.iter().map(|a| match *a {
        "HTTP" => server.http.clone(),
        "HTTP_ADDRESS" => server.http.trim_start_matches("http://").to_owned(),
        "GRPC_ADDRESS" => server.grpc.clone(),
        other => other.to_owned(),
    });
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/").to_owned() + name;
    let mut command = Command::new(python);
    command.arg(script).args(args).env("GRAFT_ADMIN_KEY", ADMIN_KEY).env("HF_HUB_DISABLE_TELEMETRY", "1");
    let Output { status, stdout, stderr } = command.output().expect("Python starts");
    let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    assert!(status.success(), "{}\n{}\n{}", text(&stdout), text(&stderr), server.end());
    let said = server.end();
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn clients_of_openai_and_hugging_face_work_unmodified() {
    script("ask_server.py", &["HTTP", "one"]);
}

#[test]
fn clients_of_triton_work_unmodified() {
    script("clients_v2.py", &["HTTP_ADDRESS", "GRPC_ADDRESS"]);
}
