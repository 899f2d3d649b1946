//! PEFT's adapters of split projections on bases that have them fused, and the other way round, give PEFT's own outputs.
#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use std::path::{Path, PathBuf};

use graft_adapters::read_tensors;
use graft_tests::fixture::House;

/// Largest difference from PEFT's outputs.
const CLOSE: f64 = 1e-5;

/// Of both of PyTorch's exporters.
const EXPORTERS: [&str; 2] = ["ts", "dynamo"];

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/projections")
}

/// Compares what `graft run` wrote with a tensor of a file.
fn close(house: &House, name: &str, file: &Path, wanted: &str, what: &str) {
    let found = house.tensors("out.safetensors")[name].to_f64s().unwrap();
    let wanted = read_tensors(file).unwrap()[wanted].to_f64s().unwrap();
    assert_eq!(found.len(), wanted.len());
    let worst = found.iter().zip(&wanted).fold(0f64, |m, (a, b)| m.max((a - b).abs()));
    assert!(worst <= CLOSE, "{what} is off by {worst:.1e}");
}

/// Runs an adapter on the fused and on the split model of a pair; on the one that it wasn't trained on, `said` is said.
fn on_both(pair: &str, adapter: &str, said: &[&str]) {
    let Some(house) = House::new() else { return };
    let folder = data().join(pair);
    let dir = folder.join(adapter);
    for base in ["split", "fused"] {
        for exporter in EXPORTERS {
            let file = folder.join(format!("{base}.{exporter}.onnx"));
            let line = format!(
                "run {} --tensors {} --out out.safetensors --adapter {}",
                file.display(),
                folder.join("io.safetensors").display(),
                dir.display()
            );
            let ended = house.run(&line);
            ended.succeeded();
            for words in said {
                assert_eq!(ended.err.contains(words), !adapter.starts_with(base), "{}", ended.err);
            }
            let what = format!("{adapter} on {base}.{exporter}");
            close(
                &house,
                "out:last_hidden_state",
                &dir.join("out.safetensors"),
                "out:last_hidden_state",
                &what,
            );
        }
    }
}

const FUSED_QKV: &str = "`q_proj`, `k_proj`, `v_proj` became one `qkv_proj`, 2 times";
const FUSED_GATE: &str = "`gate_proj`, `up_proj` became one `gate_up_proj`, 2 times";
const SPLIT_QKV: &str = "`qkv_proj` became `q_proj`, `k_proj`, `v_proj`, 2 times";

/// Two of three are trained; the rows of the third stay the base's.
#[test]
fn a_lora_of_queries_and_values_alone_is_fused() {
    on_both("llama", "split_lora", &[FUSED_QKV]);
}

#[test]
fn ranks_and_scalings_of_their_own_are_folded_into_one() {
    on_both("llama", "split_numbers", &[FUSED_QKV, FUSED_GATE]);
}

#[test]
fn magnitudes_are_laid_end_to_end() {
    on_both("llama", "split_dora", &[FUSED_QKV, FUSED_GATE]);
}

#[test]
fn scales_of_outputs_are_laid_end_to_end() {
    on_both("llama", "split_ia3", &[FUSED_QKV]);
}

#[test]
fn what_was_fused_is_split() {
    for adapter in ["fused_lora", "fused_dora", "fused_ia3"] {
        on_both("llama", adapter, &[SPLIT_QKV]);
    }
}

#[test]
fn biases_go_with_the_projections_of_gpt2() {
    on_both("gpt2", "split_bias", &["`q_proj`, `k_proj`, `v_proj` became one `c_attn`, 2 times"]);
    on_both("gpt2", "fused_bias", &["`c_attn` became `q_proj`, `k_proj`, `v_proj`, 2 times"]);
}

/// The magnitudes of the third are the norms of the base's rows.
#[test]
fn magnitudes_of_some_meet_the_norms_of_the_base() {
    on_both("llama", "split_dora_some", &[FUSED_QKV]);
}

/// What is written fits the base as it is.
#[test]
fn a_converted_adapter_has_the_bases_modules() {
    let Some(house) = House::new() else { return };
    let folder = data().join("llama");
    let (base, dir) = (folder.join("fused.ts.onnx"), folder.join("split_numbers"));
    let (base, io) = (base.display(), folder.join("io.safetensors"));
    let ended =
        house.run(&format!("adapters convert {} --to peft --base {base} converted --json", dir.display()));
    let lines = ended.json()["converted"].as_array().unwrap().len();
    assert_eq!(lines, 2, "{}", ended.out);
    let tensors = house.tensors("converted/adapter_model.safetensors");
    let b = &tensors["base_model.model.layers.0.self_attn.qkv_proj.lora_B.weight"];
    // Ranks 2, 1 and 2; queries of 16 features, keys and values of 8.
    assert_eq!(b.shape(), [32, 5]);
    let line = format!("run {base} --tensors {} --out out.safetensors --adapter converted", io.display());
    let ended = house.run(&line);
    ended.succeeded();
    assert!(!ended.err.contains("became"), "{}", ended.err);
    close(
        &house,
        "out:last_hidden_state",
        &dir.join("out.safetensors"),
        "out:last_hidden_state",
        "converted",
    );
}
