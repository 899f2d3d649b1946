//! What features are kept under: a digest of everything that their numbers depend on.

use graft_graph::onnx;
use graft_graph::split::Split;
use graft_runtime::SessionOptions;
use graft_tasks::{Base, Examples, Result};

use super::cache::Precision;

/// The key of the features of `examples`: the base's files, the graph up to the cut, how it is run, and what is fed. What
/// is fed are the tokens or pixels themselves, so that data, tokenizer, truncation and preprocessing are in it.
///
/// # Errors
/// When a file of the base can't be read.
pub(super) fn key(
    base: &Base,
    split: &Split,
    options: &SessionOptions,
    pad: i64,
    precision: Precision,
    examples: &Examples,
) -> Result<String> {
    let mut hasher = blake3::Hasher::new_derive_key("graft 2026 frozen features v1");
    let runtime = base.runtime();
    // The number of threads decides how sums are split, and with it their last bits.
    let threads = options.threads.unwrap_or(runtime.threads());
    let SessionOptions { provider, optimization, deterministic, kernels, .. } = options;
    let run = format!(
        "{} {provider:?} {threads} {optimization:?} {deterministic} {kernels} {} {precision:?} {pad}",
        runtime.version(),
        std::env::consts::ARCH,
    );
    let mut part = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
    };
    part(env!("CARGO_PKG_VERSION").as_bytes());
    part(base.digest()?.as_bytes());
    part(run.as_bytes());
    let shared: std::collections::HashSet<String> =
        onnx::shared_constants(&base.graph).into_iter().map(|(name, _)| name).collect();
    part(&onnx::for_session(&split.frozen, &|name| shared.contains(name)));
    split.cut.iter().for_each(|name| part(name.as_bytes()));
    part(&(examples.len() as u64).to_le_bytes());
    part(&(examples.stack() as u64).to_le_bytes());
    for e in examples.encodings.iter().chain(examples.further.values().flatten()) {
        let numbers = |v: &[i64]| v.iter().flat_map(|i| i.to_le_bytes()).collect::<Vec<u8>>();
        part(&numbers(&e.ids));
        part(&numbers(&e.type_ids));
    }
    if let Some(images) = &examples.images {
        for row in 0..examples.len() {
            part(images.batch(&[row])?.bytes());
        }
    }
    Ok(hasher.finalize().to_hex().to_string())
}
