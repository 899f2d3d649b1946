//! An outside fuzzer, schemathesis, which knows no more of a small server than its OpenAPI document: no answer is a failure
//! of the server, each is as the document says, and no connection is lost. `GRAFT_FUZZ_EXAMPLES` asks for more examples of
//! each operation than the few that fit into a test.

use std::process::Command;

use graft_tests::clients;
use graft_tests::fixture::{Ended, House};
use graft_tests::served::{ADMIN_KEY, Served};

use crate::house;

const CHECKS: &str =
    "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance";
/// What changes the adapters: these paths are tried by themselves, for afterwards there is little left to ask.
const CHANGES: &str = "^/admin/|_lora_adapter$|/repository/models/";

/// Names that are there, without which most requests would end at the first check.
const NAMES: &str = r#"
[parameters]
"path.adapter" = "one"
"path.model" = "one"
"path.id" = "one"
"path.version" = "1"
"path.name" = "two"

[[operations]]
include-path-regex = "^/a/.*/rerank$"
parameters = { "path.adapter" = "rank" }
"#;

/// Runs the fuzzer in the folder of a house.
fn fuzz(house: &House, server: &mut Served, parameters: &str, args: &[&str]) {
    let Some(python) = clients() else { return };
    house.write("schemathesis.toml", parameters);
    let examples = std::env::var("GRAFT_FUZZ_EXAMPLES").unwrap_or_else(|_| "10".into());
    let mut command = Command::new(python.with_file_name("schemathesis"));
    command.current_dir(house.path("")).arg("run").arg(format!("{}/openapi.json", server.http));
    command.args(["--checks", CHECKS, "--max-examples", &examples, "--phases", "examples,coverage,fuzzing"]);
    command.args(["--generation-deterministic", "--continue-on-failure"]);
    command.args(["--request-timeout", "30", "--suppress-health-check", "all", "--no-color"]);
    let ended = Ended::of(command.args(args).env("COLUMNS", "120"));
    let numbers = server.get("/metrics");
    let runs = server.runs();
    let said = server.end();
    assert_eq!(ended.code, Some(0), "{}\n{}\n{said}", ended.out, ended.err);
    assert!(runs && !said.contains("panicked"), "{said}");
    // One dialect has no 5xx for what went wrong in a batch.
    assert!(!numbers.contains(r#"why="inference""#), "{numbers}");
    assert!(numbers.contains(r#"graft_http_responses_total{status="200"}"#), "{numbers}");
}

#[test]
fn no_request_that_the_document_knows_is_answered_by_a_failure() {
    let Some(house) = house() else { return };
    let mut server = house.serve("");
    fuzz(&house, &mut server, NAMES, &["--exclude-path-regex", CHANGES]);
}

#[test]
fn no_change_that_the_document_knows_is_answered_by_a_failure() {
    let Some(house) = house() else { return };
    let mut server = house.serve("");
    let key = format!("Authorization: Bearer {ADMIN_KEY}");
    fuzz(&house, &mut server, NAMES, &["--include-path-regex", CHANGES, "--header", &key]);
}
