//! `src/grpc/wire.rs` is what `proto/inference.proto` says. No compiler of protocol buffers has to be installed.

use std::path::Path;

#[test]
fn the_generated_wire_is_that_of_the_protocol_file() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let file = protox::compile(["inference.proto"], [here.join("proto")]).expect("the file is sound");
    let out = tempfile::tempdir().expect("a temporary folder");
    tonic_prost_build::configure()
        .out_dir(out.path())
        .build_transport(false)
        .emit_rerun_if_changed(false)
        .compile_fds(file)
        .expect("code can be made of it");
    let made = std::fs::read_to_string(out.path().join("inference.rs")).expect("it was made");
    let kept = here.join("src/grpc/wire.rs");
    if std::env::var_os("GRAFT_UPDATE_WIRE").is_some_and(|v| v == "1") {
        std::fs::write(&kept, &made).expect("the sources can be written");
    }
    let is = std::fs::read_to_string(&kept).unwrap_or_default();
    assert!(is == made, "src/grpc/wire.rs is stale: run this test once with GRAFT_UPDATE_WIRE=1");
}
