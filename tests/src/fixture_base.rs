//! What the fixture's folders are filled with: a tiny checkpoint with a tokenizer, and tables that can be learnt.

use std::path::Path;

use graft_graph::Tensor;
use serde_json::{Value, json};

use crate::Draw;

/// Width of the hidden states.
pub const HIDDEN: usize = 32;
/// Rows of the word embeddings.
pub const VOCABULARY: usize = 97;
/// The labels of the tables.
pub const LABELS: [&str; 3] = ["bird", "fruit", "tool"];

/// Words that tell the label.
const KEYS: [[&str; 4]; 3] =
    [["owl", "crow", "finch", "swan"], ["apple", "pear", "plum", "fig"], ["saw", "axe", "drill", "hammer"]];
/// Words that tell nothing.
const OTHERS: [&str; 12] =
    ["the", "my", "a", "is", "was", "on", "table", "old", "and", "green", "here", "small"];
const WIDE: usize = 64;
/// Rows of the position embeddings: the longest text.
pub const POSITIONS: usize = 64;

/// A comma-separated table of `rows` sentences with their labels in turn; each `seed` gives other ones.
pub fn table(seed: u16, rows: usize) -> String {
    let choices = [seed, 1, 2, 3];
    let mut draw = Draw::new(&choices);
    let mut below = |n: usize| (draw.real(0.0, n as f64) as usize).min(n - 1);
    let mut text = String::from("text,label\n");
    for r in 0..rows {
        let mut words: Vec<&str> = (0..1 + below(4)).map(|_| OTHERS[below(OTHERS.len())]).collect();
        let key = KEYS[r % 3][below(4)];
        words.insert(below(words.len() + 1), key);
        text.push_str(&format!("{},{}\n", words.join(" "), LABELS[r % 3]));
    }
    text
}

/// Writes a BERT checkpoint of two layers with random weights, and its tokenizer.
///
/// # Panics
/// When the folder can't be written.
pub fn checkpoint(dir: &Path) {
    std::fs::create_dir_all(dir).expect("a folder in a temporary folder");
    let write =
        |name: &str, json: Value| std::fs::write(dir.join(name), json.to_string()).expect("a temporary file");
    write(
        "config.json",
        json!({
            "model_type": "bert", "architectures": ["BertModel"], "vocab_size": VOCABULARY, "hidden_size": HIDDEN,
            "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": WIDE, "hidden_act": "gelu",
            "max_position_embeddings": POSITIONS, "type_vocab_size": 2, "layer_norm_eps": 1e-12, "pad_token_id": 0,
        }),
    );
    write("tokenizer.json", tokenizer());
    let tensors = weights();
    let named = tensors.iter().map(|(n, t)| (n.as_str(), t));
    graft_adapters::write_tensors(&dir.join("model.safetensors"), named).expect("a temporary file");
}

fn weights() -> Vec<(String, Tensor)> {
    let choices = [1, 2, 3];
    let mut draw = Draw::new(&choices);
    let mut all = Vec::new();
    let mut add = |name: String, shape: &[usize], middle: f64, bound: f64| {
        let n = shape.iter().product();
        let values: Vec<f32> = (0..n).map(|_| (middle + draw.real(-bound, bound)) as f32).collect();
        all.push((name, Tensor::new(shape, &values).expect("as many values as the shape says")));
    };
    let tables = [("word", VOCABULARY, 1.0), ("position", POSITIONS, 0.2), ("token_type", 2, 0.2)];
    for (name, rows, bound) in tables {
        add(format!("embeddings.{name}_embeddings.weight"), &[rows, HIDDEN], 0.0, bound);
    }
    let mut norms = vec!["embeddings.LayerNorm".to_string()];
    let mut linears = vec![("pooler.dense".to_string(), HIDDEN, HIDDEN)];
    for i in 0..2 {
        let at = format!("encoder.layer.{i}");
        norms.extend(["attention.output", "output"].map(|n| format!("{at}.{n}.LayerNorm")));
        let square = ["self.query", "self.key", "self.value", "output.dense"];
        linears.extend(square.map(|n| (format!("{at}.attention.{n}"), HIDDEN, HIDDEN)));
        linears.push((format!("{at}.intermediate.dense"), HIDDEN, WIDE));
        linears.push((format!("{at}.output.dense"), WIDE, HIDDEN));
    }
    for name in norms {
        add(format!("{name}.weight"), &[HIDDEN], 1.0, 0.1);
        add(format!("{name}.bias"), &[HIDDEN], 0.0, 0.1);
    }
    for (name, inputs, outputs) in linears {
        add(format!("{name}.weight"), &[outputs, inputs], 0.0, 1.5 / (inputs as f64).sqrt());
        add(format!("{name}.bias"), &[outputs], 0.0, 0.1);
    }
    all
}

/// WordPiece over the words of the tables and, for all others, over letters.
fn tokenizer() -> Value {
    let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"].map(str::to_string);
    let letters = ('a'..='z').flat_map(|c| [c.to_string(), format!("##{c}")]);
    let words = KEYS.iter().flatten().chain(&OTHERS).filter(|w| w.len() > 1).map(|w| w.to_string());
    let pieces: Vec<String> = special.iter().cloned().chain(letters).chain(words).collect();
    assert!(pieces.len() <= VOCABULARY, "{} pieces", pieces.len());
    let vocabulary: serde_json::Map<String, Value> =
        pieces.into_iter().enumerate().map(|(i, p)| (p, json!(i))).collect();
    let added = |(i, content): (usize, &String)| {
        json!({
            "id": i, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
            "special": true,
        })
    };
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": special.iter().enumerate().map(added).collect::<Vec<_>>(),
        "normalizer": {
            "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null,
            "lowercase": true,
        },
        "pre_tokenizer": { "type": "BertPreTokenizer" },
        "post_processor": { "type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2] },
        "decoder": { "type": "WordPiece", "prefix": "##", "cleanup": true },
        "model": {
            "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocabulary,
        },
    })
}
