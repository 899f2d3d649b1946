//! Attention in files of both exporters: how often it is raised, the sites around it, and what may enter them.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::PathBuf;

use graft_graph::sites::{AttentionSite, attentions};
use graft_graph::{Graph, fused, onnx, raise};
use graft_tests::shared;

/// A file below `conformance`, and how many attentions it has.
const FILES: &[(&str, usize)] = &[
    ("autodiff/bert.ts/model.onnx", 2),
    ("autodiff/bert.dynamo/model.onnx", 2),
    ("autodiff/clip.ts/model.onnx", 4),
    ("autodiff/gpt2.ts/model.onnx", 2),
    ("autodiff/llama.dynamo/model.onnx", 2),
    ("autodiff/resnet.ts/model.onnx", 0),
    ("autodiff/t5.ts/model.onnx", 6),
    ("autodiff/vit.dynamo/model.onnx", 2),
    ("adapters/bert/base.ts.onnx", 2),
    ("adapters/bert/base.dynamo.onnx", 2),
    ("adapters/llama/base.ts.onnx", 2),
    ("adapters/llama/base.dynamo.onnx", 2),
    ("adapters/t5/base.ts.onnx", 6),
    ("adapters/t5/base.dynamo.onnx", 6),
];

fn raised(file: &str) -> Option<Graph> {
    let path: PathBuf = shared()?.join("conformance").join(file);
    let mut g = onnx::read(&path).unwrap();
    raise::raise(&mut g);
    Some(g)
}

/// What both exporters' files must agree about: path, heads of queries and of keys, widths, whether there is a bias.
fn told(s: &AttentionSite) -> (String, [usize; 4], bool) {
    (s.path.clone(), [s.heads, s.kv_heads, s.head_dim, s.value_dim], s.bias.is_some())
}

fn sites_of(file: &str) -> Option<Vec<(String, [usize; 4], bool)>> {
    Some(attentions(&raised(file)?).iter().map(told).collect())
}

#[test]
fn every_attention_of_the_exported_models_is_raised_and_is_a_site() {
    for (file, count) in FILES {
        let Some(g) = raised(file) else { return };
        assert_eq!(g.nodes.iter().filter(|n| fused::is_attention(n)).count(), *count, "{file}");
        assert_eq!(g.nodes.iter().filter(|n| n.is("Softmax")).count(), 0, "{file}");
        assert_eq!(attentions(&g).len(), *count, "{file}");
    }
}

#[test]
fn both_exporters_files_of_a_model_have_the_same_attention_sites() {
    for model in ["bert", "llama", "t5"] {
        let files = ["ts", "dynamo"].map(|e| format!("adapters/{model}/base.{e}.onnx"));
        let (Some(a), Some(b)) = (sites_of(&files[0]), sites_of(&files[1])) else { return };
        assert!(!a.is_empty());
        assert_eq!(a, b, "{model}");
    }
    let both = ["ts", "dynamo"].map(|e| sites_of(&format!("autodiff/bert.{e}/model.onnx")));
    assert_eq!(both[0], both[1]);
}

#[test]
fn a_site_knows_its_module_and_its_heads() {
    let all = |paths: &[&str], heads: [usize; 4], bias: bool| {
        paths.iter().map(|p| (p.to_string(), heads, bias)).collect::<Vec<_>>()
    };
    let four = [4, 4, 8, 8];
    let cases = [
        (
            "autodiff/gpt2.ts/model.onnx",
            all(&["m.transformer.h.0.attn", "m.transformer.h.1.attn"], four, true),
        ),
        (
            "adapters/llama/base.dynamo.onnx",
            all(&["model.model.layers.0.self_attn", "model.model.layers.1.self_attn"], [4, 2, 8, 8], true),
        ),
        (
            "autodiff/vit.dynamo/model.onnx",
            all(&["m.layers.0.attention", "m.layers.1.attention"], four, true),
        ),
        (
            "autodiff/bert.ts/model.onnx",
            all(&["m.encoder.layer.0.attention.self", "m.encoder.layer.1.attention.self"], four, true),
        ),
    ];
    for (file, wanted) in cases {
        let Some(found) = sites_of(file) else { return };
        assert_eq!(found, wanted, "{file}");
    }
    let Some(clip) = sites_of("autodiff/clip.ts/model.onnx") else { return };
    let masked: Vec<(&str, bool)> = clip.iter().map(|(p, _, b)| (p.as_str(), *b)).collect();
    let tower = |name: &str, i: usize| format!("m.{name}.encoder.layers.{i}.self_attn");
    let wanted: Vec<(String, bool)> = [("vision_model", false), ("text_model", true)]
        .into_iter()
        .flat_map(|(name, masked)| (0..2).map(move |i| (tower(name, i), masked)))
        .collect();
    assert_eq!(masked, wanted.iter().map(|(p, b)| (p.as_str(), *b)).collect::<Vec<_>>());
    let Some(t5) = sites_of("adapters/t5/base.ts.onnx") else { return };
    let cross: Vec<&str> =
        t5.iter().map(|s| s.0.as_str()).filter(|p| p.ends_with("EncDecAttention")).collect();
    let layer = |i: usize| format!("model.decoder.block.{i}.layer.1.EncDecAttention");
    assert_eq!(cross, [layer(0), layer(1)]);
}

#[test]
fn what_meets_at_a_site_has_the_axes_that_it_says() {
    for (file, _) in FILES {
        let Some(g) = raised(file) else { return };
        for s in attentions(&g) {
            let sizes = |v, heads: usize, width: usize| {
                let shape = g.shape(v).unwrap();
                assert_eq!(shape.len(), 4, "{file}: {}", s.path);
                assert!(shape[1].is(heads as i64) && shape[3].is(width as i64), "{file}: {}", s.path);
                shape[2].clone()
            };
            sizes(s.query, s.heads, s.head_dim);
            sizes(s.output, s.heads, s.value_dim);
            let keys = sizes(s.key, s.kv_heads, s.head_dim);
            assert_ne!(keys.equals(&sizes(s.value, s.kv_heads, s.value_dim)), Some(false));
            assert_eq!(s.heads % s.kv_heads, 0);
        }
    }
}
