//! Methods that change what is in the base: each learns, is stored where it belongs, and is loaded as it was trained.

use graft_tests::fixture::{Ended, House};
use graft_tests::fixture_base::{HIDDEN, POSITIONS};
use serde_json::Value;

use super::{ends, number};

/// Largest difference of two losses that are the same.
const SAME_LOSS: f64 = 1e-6;

/// Trains with a method, and asserts that the loss falls, that the stored adapter is as good as training said, and that
/// training goes on from it. Gives the command's JSON.
fn learns(house: &House, out: &str, method: &str) -> Value {
    let line = format!("--method {method} --epochs 6 --batch-size 8 --lr 0.02 --eval-data train.csv");
    let json = house.run(&House::training(out, &line)).json();
    let (first, last) = ends(house, out);
    assert!(last < 0.8 * first, "{method}: from {first} to {last}");
    let line = format!("eval --base base --adapter {out} --data train.csv --threads 1 --json");
    let eval = house.run(&line).json();
    let trained = &json["evaluation"];
    assert_eq!(number(&eval, "accuracy"), number(trained, "accuracy"), "{method}");
    assert!((number(&eval, "loss") - number(trained, "loss")).abs() < SAME_LOSS, "{method}: {eval} {json}");
    let on = format!("--method {method} --init-adapter {out} --epochs 1 --lr 1e-9 --eval-data train.csv");
    let again = house.run(&House::training(&format!("{out}-on"), &on)).json();
    assert_eq!(again["evaluation"]["accuracy"], eval["accuracy"], "{method}");
    json
}

/// The keys of a file of an adapter.
fn keys(house: &House, file: &str) -> Vec<String> {
    house.tensors(file).into_keys().collect()
}

fn config(house: &House, adapter: &str) -> Value {
    serde_json::from_slice(&house.read(&format!("{adapter}/adapter_config.json"))).unwrap()
}

#[test]
fn scales_of_features_are_stored_as_peft_has_them() {
    let Some(house) = House::new() else { return };
    let json = learns(&house, "out", "ia3 --set objective.pooling=pooled");
    // In each of two layers key and value, 32 wide, and what enters two layers of 32 and 64 features; the head.
    assert_eq!(number(&json, "trainable_parameters") as usize, 2 * (32 + 32 + 32 + 64) + 99);
    let tensors = house.tensors("out/adapter_model.safetensors");
    let shape =
        |module: &str| tensors[&format!("base_model.model.bert.encoder.layer.1.{module}.ia3_l")].shape();
    assert_eq!(shape("attention.self.key"), [32, 1]);
    assert_eq!(shape("attention.output.dense"), [1, 32]);
    assert_eq!(shape("output.dense"), [1, 64]);
    let config = config(&house, "out");
    assert_eq!((&config["peft_type"], &config["task_type"]), (&"IA3".into(), &"SEQ_CLS".into()));
    let count = |name: &str| config[name].as_array().map(Vec::len);
    assert_eq!((count("target_modules"), count("feedforward_modules")), (Some(8), Some(4)), "{config}");
}

#[test]
fn names_that_mean_what_was_trained_are_kept_for_peft() {
    let Some(house) = House::new() else { return };
    let names = r#"--set method.target_modules=["key","intermediate.dense"]"#;
    learns(&house, "out", &format!(r#"ia3 {names} --set method.feedforward_modules=["intermediate.dense"]"#));
    let config = config(&house, "out");
    assert_eq!(config["target_modules"], serde_json::json!(["key", "intermediate.dense"]));
    assert_eq!(config["feedforward_modules"], serde_json::json!(["intermediate.dense"]));
}

#[test]
fn norms_are_stored_as_peft_has_them() {
    let Some(house) = House::new() else { return };
    let json = learns(&house, "out", "norm-tuning");
    assert_eq!(number(&json, "trainable_parameters") as usize, 5 * (32 + 32) + 99);
    let keys = keys(&house, "out/adapter_model.safetensors");
    assert_eq!(keys.len(), 10);
    let one = "base_model.model.encoder.layer.0.output.LayerNorm.ln_tuning_layers.weight";
    assert!(keys.iter().any(|k| k == one), "{keys:?}");
    let config = config(&house, "out");
    assert_eq!(config["peft_type"], "LN_TUNING");
    assert_eq!(config["target_modules"], serde_json::json!(["LayerNorm"]));
}

#[test]
fn scales_of_shared_projections_are_trained_and_the_projections_are_not() {
    let Some(house) = House::new() else { return };
    let targets = r#"--set method.target_modules=["query","intermediate.dense"]"#;
    let method = format!("vera --set method.r=16 {targets} --set method.projection_prng_key=5");
    let json = learns(&house, "out", &method);
    // In each of two layers 16 scales inside, and one for each of 32 and 64 outputs; the head.
    let trained = 2 * (16 + 32 + 16 + 64) + 99;
    assert_eq!(number(&json, "trainable_parameters") as usize, trained);
    let tensors = house.tensors("out/adapter_model.safetensors");
    let (a, b) = (&tensors["base_model.vera_A"], &tensors["base_model.vera_B"]);
    assert_eq!((a.shape(), b.shape()), (&[16, 32][..], &[64, 16][..]));
    let bound = |fan: f64| (6.0 / fan).sqrt();
    let drawn = |skip, fan, count| graft_tasks::torch::uniform(5, skip, bound(fan), count);
    assert_eq!(a.values::<f32>().unwrap(), drawn(0, 32.0, 16 * 32));
    assert_eq!(b.values::<f32>().unwrap(), drawn(16 * 32, 16.0, 64 * 16));
    let settings = config(&house, "out");
    assert_eq!((&settings["peft_type"], &settings["save_projection"]), (&"VERA".into(), &true.into()));
    // Drawn again where they are not stored, training is the same.
    let line = format!("{method} --set method.save_projection=false");
    let again = learns(&house, "drawn", &line);
    assert_eq!(again["evaluation"], json["evaluation"]);
    let kept = house.tensors("drawn/adapter_model.safetensors");
    assert_eq!(kept.len(), tensors.len() - 2);
    assert!(kept.iter().all(|(name, t)| tensors[name] == *t));
    assert_eq!(config(&house, "drawn")["save_projection"], false);
}

#[test]
fn products_of_low_rank_updates_are_trained_and_written_for_peft() {
    let Some(house) = House::new() else { return };
    let ranks = r#"--set method.rank_pattern={"layer.1.attention.self.query"=3}"#;
    let drops = "--set method.rank_dropout=0.1 --set method.module_dropout=0.1";
    learns(&house, "out", &format!("loha {ranks} {drops}"));
    let tensors = house.tensors("out/adapter_model.safetensors");
    let shape = |key: &str| tensors[&format!("base_model.model.encoder.layer.{key}")].shape().to_vec();
    assert_eq!(shape("1.attention.self.query.hada_w1_b"), [3, 32]);
    assert_eq!(shape("0.attention.self.query.hada_w2_a"), [32, 8]);
    let config = config(&house, "out");
    assert_eq!((&config["peft_type"], &config["alpha"]), (&"LOHA".into(), &8.into()));
    assert_eq!(config["rank_pattern"].as_object().map(serde_json::Map::len), Some(1), "{config}");
}

/// ‖row‖ of each row of a weight `[out, in]`.
fn row_norms(weight: &graft_graph::Tensor) -> Vec<f64> {
    let width = weight.shape()[1];
    let norm = |row: &[f64]| row.iter().map(|v| v * v).sum::<f64>().sqrt();
    weight.to_f64s().unwrap().chunks(width).map(norm).collect()
}

#[test]
fn magnitudes_begin_as_the_norms_of_the_weights_and_are_trained() {
    let Some(house) = House::new() else { return };
    let json = learns(&house, "out", "lora --set method.use_dora=true --set method.r=4");
    // Beside the two matrices a number for each output.
    assert_eq!(number(&json, "trainable_parameters") as usize, 4 * (4 * 32 + 32 * 4 + 32) + 99);
    assert_eq!(config(&house, "out")["use_dora"], true);
    let line = "--method lora --set method.use_dora=true --epochs 1 --lr 1e-9";
    house.run(&House::training("start", line)).succeeded();
    let (start, end) =
        (house.tensors("start/adapter_model.safetensors"), house.tensors("out/adapter_model.safetensors"));
    let checkpoint = house.tensors("checkpoint/model.safetensors");
    let weights =
        checkpoint.iter().filter(|(k, _)| k.ends_with("query.weight") || k.ends_with("value.weight"));
    let norms: Vec<Vec<f64>> = weights.map(|(_, w)| row_norms(w)).collect();
    let mut found = 0;
    for (key, magnitudes) in start.iter().filter(|(k, _)| k.ends_with(".lora_magnitude_vector")) {
        let values = magnitudes.to_f64s().unwrap();
        let is = |n: &Vec<f64>| n.iter().zip(&values).all(|(a, b)| (a - b).abs() < 1e-5 * a);
        assert!(norms.iter().any(is), "{key}");
        assert_ne!(end[key].to_f64s().unwrap(), values, "{key}");
        found += 1;
    }
    assert_eq!((found, norms.len()), (4, 4));
}

#[test]
fn ranks_and_alphas_of_some_modules_are_trained_and_written_for_peft() {
    let Some(house) = House::new() else { return };
    let ranks = r#"--set method.rank_pattern={"layer.1.attention.self.query"=3}"#;
    let alphas = r#"--set method.alpha_pattern={"value"=4.0}"#;
    let targets = r#"--set method.target_modules=["query","value","word_embeddings"]"#;
    learns(&house, "out", &format!("lora {ranks} {alphas} {targets}"));
    let tensors = house.tensors("out/adapter_model.safetensors");
    let shape = |key: &str| tensors[&format!("base_model.model.{key}")].shape().to_vec();
    assert_eq!(shape("encoder.layer.1.attention.self.query.lora_A.weight"), [3, 32]);
    assert_eq!(shape("encoder.layer.0.attention.self.query.lora_A.weight"), [8, 32]);
    assert_eq!(shape("embeddings.word_embeddings.lora_embedding_B"), [32, 8]);
    let config = config(&house, "out");
    let count = |name: &str| config[name].as_object().map(serde_json::Map::len);
    assert_eq!((count("rank_pattern"), count("alpha_pattern")), (Some(1), Some(2)), "{config}");
}

#[test]
fn only_the_chosen_layers_are_updated() {
    let Some(house) = House::new() else { return };
    learns(&house, "out", "lora --set method.layers_to_transform=[1] --set method.layers_pattern=layer");
    let keys = keys(&house, "out/adapter_model.safetensors");
    assert!(keys.len() == 4 && keys.iter().all(|k| k.contains("layer.1.")), "{keys:?}");
}

#[test]
fn bottlenecks_are_stored_as_adapterhub_has_them() {
    let Some(house) = House::new() else { return };
    let method = "bottleneck-adapter --set method.variant=double_seq_bn --set method.reduction_factor=4";
    let json = learns(&house, "out", &format!("{method} --set objective.pooling=pooled"));
    // In each of two layers two adapters 32 → 8 → 32; the head.
    assert_eq!(number(&json, "trainable_parameters") as usize, 4 * (8 * 32 + 8 + 32 * 8 + 32) + 99);
    let tensors = house.tensors("out/adapter.safetensors");
    let one = |part: &str| tensors[&format!("bert.encoder.layer.1.{part}")].shape();
    assert_eq!(one("attention.output.adapters.adapter.adapter_down.0.weight"), [8, 32]);
    assert_eq!(one("output.adapters.adapter.adapter_up.weight"), [32, 8]);
    assert_eq!(tensors.len(), 16);
    let config = config(&house, "out");
    assert_eq!(config["model_class"], "BertForSequenceClassification");
    assert_eq!(config["config"]["non_linearity"], "swish");
    assert_eq!(keys(&house, "out/model_head.safetensors"), ["classifier.bias", "classifier.weight"]);
    house.run("merge base out merged.onnx").refused(&["residual connection", "graft export"]);
    house.run("export base out exported.onnx").succeeded();
}

#[test]
fn norms_and_scales_of_a_bottleneck_are_trained_and_stored() {
    let Some(house) = House::new() else { return };
    let own = "--set method.ln_before=true --set method.ln_after=true --set method.scaling=channel";
    learns(&house, "out", &format!("bottleneck-adapter --set method.dropout=0.1 {own}"));
    let tensors = house.tensors("out/adapter.safetensors");
    let stem = "encoder.layer.0.output.adapters.adapter";
    // The norm in front is also the first of the list that ends in the first layer.
    assert_eq!(
        tensors[&format!("{stem}.adapter_norm_before.weight")],
        tensors[&format!("{stem}.adapter_down.0.weight")]
    );
    assert_eq!(tensors[&format!("{stem}.adapter_down.1.weight")].shape(), [2, 32]);
    assert_eq!(tensors[&format!("{stem}.scaling")].shape(), [32]);
}

#[test]
fn biases_are_stored_in_a_file_of_our_own() {
    let Some(house) = House::new() else { return };
    learns(&house, "out", "norm-tuning --set method.parameters=biases");
    let keys = keys(&house, "out/graft_parameters.safetensors");
    assert!(keys.iter().all(|k| k.ends_with(".bias")), "{keys:?}");
    assert!(keys.iter().any(|k| k.ends_with("layer.1.attention.self.query.bias")), "{keys:?}");
    assert!(!house.path("out/adapter_config.json").exists());
    let info = house.run("adapters info out --json").json();
    assert_eq!(info["peft"], "no");
}

#[test]
fn the_whole_base_is_trained_stored_and_loaded() {
    let Some(house) = House::new() else { return };
    let json = learns(&house, "out", "full");
    let tensors = house.tensors("out/graft_parameters.safetensors");
    let checkpoint = house.tensors("checkpoint/model.safetensors");
    let shapes = |t: &indexmap::IndexMap<String, graft_graph::Tensor>| {
        let mut sizes: Vec<usize> = t.values().map(graft_graph::Tensor::len).collect();
        sizes.sort_unstable();
        sizes
    };
    // Every tensor of the checkpoint, also the pooler that this head does not read.
    assert_eq!(shapes(&tensors), shapes(&checkpoint), "{:?}\n{:?}", tensors.keys(), checkpoint.keys());
    assert!(number(&json, "trainable_parameters") > 1e4);
}

#[test]
fn the_top_layers_alone_are_trained() {
    let Some(house) = House::new() else { return };
    learns(&house, "out", "full --set method.top_layers=1");
    let names = keys(&house, "out/graft_parameters.safetensors");
    assert!(names.iter().any(|k| k.contains("layer.1.")), "{names:?}");
    assert!(names.iter().all(|k| !k.contains("layer.0.") && !k.contains("embeddings")), "{names:?}");
    learns(&house, "some", r#"full --set method.target_modules=.*layer\.0\.output.*"#);
    let names = keys(&house, "some/graft_parameters.safetensors");
    assert_eq!(names.len(), 4, "{names:?}");
}

/// The only tensor of the method, and PEFT's type of it.
fn virtual_tokens(house: &House, out: &str) -> (Vec<usize>, Value) {
    let tensors = house.tensors(&format!("{out}/adapter_model.safetensors"));
    let config = config(house, out);
    (tensors["prompt_embeddings"].shape().to_vec(), config["peft_type"].clone())
}

#[test]
fn soft_prompts_are_stored_as_peft_has_them() {
    let Some(house) = House::new() else { return };
    let json = learns(&house, "out", "prompt-tuning --set method.virtual_tokens=4");
    assert_eq!(number(&json, "trainable_parameters") as usize, 4 * 32 + 99);
    assert_eq!(virtual_tokens(&house, "out"), (vec![4, 32], "PROMPT_TUNING".into()));
    // With the head that PEFT can rebuild; it reads the first virtual token.
    let line = "--method prompt-tuning --set objective.pooling=pooled --epochs 1";
    house.run(&House::training("stock", line)).succeeded();
    assert_eq!(keys(&house, "stock/adapter_model.safetensors")[0], "base_model.classifier.bias");
    assert_eq!(config(&house, "stock")["task_type"], "SEQ_CLS");
    house.run("eval --base base --adapter stock --data train.csv").succeeded();
}

#[test]
fn prefixes_are_stored_as_peft_has_them() {
    let Some(house) = House::new() else { return };
    let json = learns(&house, "out", "prefix-tuning --set method.virtual_tokens=4");
    // Keys and values of two layers.
    assert_eq!(number(&json, "trainable_parameters") as usize, 4 * 2 * 2 * 32 + 99);
    assert_eq!(virtual_tokens(&house, "out"), (vec![4, 128], "PREFIX_TUNING".into()));
}

/// What an encoder or a projection made is all that is left of it, and is as good as it was.
#[test]
fn what_only_helps_training_is_not_stored() {
    let Some(house) = House::new() else { return };
    for (out, method, width) in [
        ("p", "prompt-tuning --set method.encoder=16", 32),
        ("f", "prefix-tuning --set method.projection=16", 128),
    ] {
        let line =
            format!("--method {method} --set method.virtual_tokens=4 --epochs 3 --eval-data train.csv");
        let json = house.run(&House::training(out, &line)).json();
        assert_eq!(virtual_tokens(&house, out).0, [4, width]);
        assert_eq!(keys(&house, &format!("{out}/adapter_model.safetensors")).len(), 1);
        let eval = house
            .run(&format!("eval --base base --adapter {out} --data train.csv --threads 1 --json"))
            .json();
        let (loss, trained) = (number(&eval, "loss"), number(&json["evaluation"], "loss"));
        assert!((loss - trained).abs() < SAME_LOSS, "{out}: {loss} and {trained}");
    }
}

/// The pieces of a text, and the first of them again where there are not enough.
#[test]
fn a_soft_prompt_begins_as_the_words_of_a_text() {
    let Some(house) = House::new() else { return };
    let method = "--method prompt-tuning --set method.virtual_tokens=6 --set method.text=owlpear";
    let line = format!("{method} --set method.init=text --epochs 1 --lr 1e-12");
    house.run(&House::training("out", &line)).succeeded();
    let prompt = house.tensors("out/adapter_model.safetensors")["prompt_embeddings"].to_f64s().unwrap();
    let tokenizer: Value = serde_json::from_slice(&house.read("checkpoint/tokenizer.json")).unwrap();
    let checkpoint = house.tensors("checkpoint/model.safetensors");
    let table = checkpoint["embeddings.word_embeddings.weight"].to_f64s().unwrap();
    let pieces = ["owl", "##p", "##e", "##a", "##r", "owl"];
    for (piece, row) in pieces.iter().zip(prompt.chunks(HIDDEN)) {
        let id = tokenizer["model"]["vocab"][piece].as_u64().unwrap() as usize;
        let wanted = &table[id * HIDDEN..(id + 1) * HIDDEN];
        assert!(row.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-6), "{piece}: {row:?}, {wanted:?}");
    }
    house.run(&House::training("no", method)).refused(&["`text`", "only"]);
}

#[test]
fn virtual_tokens_take_places_of_texts() {
    let Some(house) = House::new() else { return };
    let method = format!("--method prompt-tuning --set method.virtual_tokens={}", POSITIONS / 2);
    house.run(&House::training("out", &format!("{method} --epochs 1"))).succeeded();
    let long = vec!["owl"; 2 * POSITIONS].join(" ");
    Ended::of(house.command("predict --base base --adapter out --json").arg(&long)).succeeded();
    let whole = format!("--method prompt-tuning --set method.virtual_tokens={} --epochs 1", POSITIONS + 1);
    house.run(&House::training("no", &whole)).refused(&["virtual tokens"]);
}

#[test]
fn settings_that_cannot_work_are_refused_by_sentence() {
    let Some(house) = House::new() else { return };
    for (method, words) in [
        (
            r#"ia3 --set method.target_modules=["key"] --set method.feedforward_modules=["value"]"#,
            "`value` is not among",
        ),
        (r#"ia3 --set method.target_modules=["LayerNorm"]"#, "is a norm site"),
        (r#"norm-tuning --set method.target_modules=["query"]"#, "is a linear site"),
        ("norm-tuning --set method.parameters=scales", "scales"),
        (r#"norm-tuning --set method.target_modules=["norms"]"#, "no site matches"),
        ("prompt-tuning --set method.virtual_tokens=0", "nothing to train"),
        ("prompt-tuning --set method.init=text", "needs the option `text`"),
        ("prefix-tuning --set method.virtual_tokens=0", "nothing to train"),
        ("prefix-tuning --set method.projection=0", "lets nothing through"),
        ("lora --set method.layers_to_transform=[7]", "in a layer of [7]"),
        (r#"lora --set method.rank_pattern={"query"=0}"#, "is not a rank"),
        ("bottleneck-adapter --set method.reduction_factor=0", "`reduction_factor`"),
        ("bottleneck-adapter --set method.output_adapter=false", "there is no adapter"),
        ("bottleneck-adapter --set method.non_linearity=sine", "sine"),
        (
            "bottleneck-adapter --set method.residual_before_ln=post_add --set method.original_ln_before=false",
            "post_add",
        ),
        (
            "bottleneck-adapter --set method.output_adapter=false --set method.cross_adapter=true",
            "no residual connection",
        ),
        ("full --set method.top_layers=0", "nothing to train"),
        ("full --set method.top_layers=3", "3 layers are wanted, the base has 2"),
        (r#"full --set method.top_layers=1 --set method.target_modules=["query"]"#, "give one of them"),
    ] {
        house.run(&House::training("out", &format!("--method {method}"))).refused(&[words]);
    }
}

#[test]
fn parameters_of_our_own_that_do_not_fit_are_refused() {
    let Some(house) = House::new() else { return };
    learns(&house, "out", "full --set method.top_layers=1");
    let file = "out/graft_parameters.safetensors";
    let ask = "eval --base base --adapter out --data dev.csv";
    let whole = house.read(file);
    house.write(file, &whole[..whole.len() - 4]);
    house.run(ask).refused(&["graft_parameters.safetensors"]);
    std::fs::remove_file(house.path(file)).unwrap();
    house.run(ask).refused(&["graft_parameters.safetensors", "missing"]);
}
