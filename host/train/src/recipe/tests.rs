use super::*;

const LEAST: &str = r#"
base = "base"
data = "train.csv"
out = "adapter"
method = "lora"
objective = "classification"
"#;

fn file(text: &str) -> Layer {
    Layer::from_toml("recipe.toml", text).unwrap()
}

fn resolve(text: &str, sets: &[&str]) -> Result<Recipe, RecipeError> {
    let mut flags = Layer::command_line();
    sets.iter().try_for_each(|s| flags.set(s))?;
    Recipe::resolve(&[Layer::from_toml("recipe.toml", text)?, flags])
}

fn error(text: &str, sets: &[&str]) -> String {
    resolve(text, sets).unwrap_err().to_string()
}

#[test]
fn the_least_recipe_has_the_documented_defaults() {
    let r = resolve(LEAST, &[]).unwrap();
    assert_eq!((r.epochs, r.batch_size, r.lr, r.weight_decay, r.seed), (3, 32, 1e-3, 0.01, 0));
    assert_eq!((r.optimizer, r.schedule), (OptimizerKind::AdamW, ScheduleKind::Linear));
    assert_eq!((r.warmup_steps, r.warmup_ratio, r.clip_norm, r.accumulation), (None, Some(0.06), None, 1));
    assert_eq!((r.method.name.as_str(), r.method.settings.len(), r.provider.as_str()), ("lora", 0, "cpu"));
    let plan = r.plan(None);
    assert_eq!(plan.warmup.steps(510), 31);
    assert_eq!(plan.optimizer, OptimizerConfig::AdamW { betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.01 });
}

#[test]
fn every_default_is_allowed_under_its_own_key() {
    for f in FIELDS {
        if let Some(v) = f.default_value() {
            assert!(f.accept(&v).is_some(), "{}", f.name);
        }
    }
}

#[test]
fn every_key_of_the_written_recipe_is_a_documented_one_and_in_its_order() {
    let text = resolve(LEAST, &["hidden=h", "eval_split=0.1", "threads=2"]).unwrap().to_toml().unwrap();
    let key = |line: &str| Some(line.trim_matches(['[', ']']).split(" = ").next()?.to_string());
    let written: Vec<String> =
        text.lines().skip(2).filter_map(key).filter(|k| !k.is_empty() && k != "name").collect();
    let place = |k: &String| FIELDS.iter().position(|f| f.name == k).unwrap_or_else(|| panic!("{k}"));
    assert!(written.iter().map(place).is_sorted(), "{text}");
    assert!(FIELDS.iter().filter(|f| f.default.is_some()).all(|f| written.contains(&f.name.into())));
}

#[test]
fn nesting_has_its_limit() {
    let deep = [format!("method.x = {}", "[".repeat(100_000)), format!("method{} = 1", ".a".repeat(100_000))];
    for text in deep {
        assert!(matches!(Layer::from_toml("x", &text), Err(RecipeError::Syntax { .. })));
    }
    assert!(Layer::command_line().set(&format!("method{}=1", ".a".repeat(100_000))).is_err());
}

#[test]
fn a_written_recipe_resolves_to_itself() {
    let text = r#"
        base = "b.onnx"
        tokenizer = "t/tokenizer.json"
        hidden = "last"
        batches = "b.safetensors"
        eval_data = "dev.csv"
        out = "o"
        optimizer = "sgd"
        momentum = 0.9
        nesterov = true
        warmup_steps = 5
        clip_norm = 1
        text = "question"
        [columns]
        label = "coarse"
        [method]
        name = "lora"
        r = 8
        alpha = 16.0
        target_modules = ["query", "value"]
        rank_pattern = { "layer.0.query" = 4 }
        [objective]
        name = "classification"
        pooling = "mean"
    "#;
    let r = resolve(text, &["seed=9223372036854775807"]).unwrap();
    assert_eq!((r.columns["label"].as_str(), r.columns["text"].as_str()), ("coarse", "question"));
    let written = r.to_toml().unwrap();
    assert!(written.starts_with("format = \"graft.recipe\"\nversion = 1\n"), "{written}");
    assert_eq!(Recipe::resolve(&[file(&written)]).unwrap(), r);
}

#[test]
fn set_guesses_toml_types() {
    let sets = [
        "method.r=8",
        "method.dropout=0.1",
        "method.rslora=true",
        "method.target_modules=[\"query\", \"value\"]",
        "method.exclude_modules=all-linear",
        "method.since=2026-01-01",
        "method.rank_pattern.\"layer.0.query\"=4",
        "objective.pooling=mean",
        "label=1",
        "epochs = 5",
        "lr=1",
    ];
    let r = resolve(LEAST, &sets).unwrap();
    let m = &r.method.settings;
    assert_eq!(m["r"].as_integer(), Some(8));
    assert_eq!(m["dropout"].as_float(), Some(0.1));
    assert_eq!(m["rslora"].as_bool(), Some(true));
    assert_eq!(m["target_modules"].as_array().map(Vec::len), Some(2));
    assert_eq!(m["exclude_modules"].as_str(), Some("all-linear"));
    assert_eq!(m["since"].as_str(), Some("2026-01-01"));
    assert_eq!(m["rank_pattern"]["layer.0.query"].as_integer(), Some(4));
    assert_eq!(r.objective.settings["pooling"].as_str(), Some("mean"));
    assert_eq!((r.columns["label"].as_str(), r.epochs, r.lr), ("1", 5, 1.0));
}

#[test]
fn flags_win_over_the_file() {
    let mut flags = Layer::command_line();
    for (name, text) in [("batch-size", "8"), ("schedule", "cosine"), ("eval-data", "dev.csv"), ("data", "7")]
    {
        flags.flag(name, text).unwrap();
    }
    let text = format!("batch_size = 64\neval_split = 0.1\nlr = 0.5\n{LEAST}");
    let r = Recipe::resolve(&[file(&text), flags]).unwrap();
    assert_eq!((r.batch_size, r.schedule, r.lr), (8, ScheduleKind::Cosine, 0.5));
    assert_eq!((r.eval_data, r.eval_split), (Some("dev.csv".into()), None));
    assert_eq!(r.data, Some("7".into()));
}

#[test]
fn settings_are_merged_unless_the_method_is_another() {
    let text = LEAST.replace("method = \"lora\"", "") + "[method]\nname = \"lora\"\nr = 4\nalpha = 8\n";
    let r = resolve(&text, &["method.r=16", "method=lora"]).unwrap();
    assert_eq!(
        (r.method.settings["r"].as_integer(), r.method.settings["alpha"].as_integer()),
        (Some(16), Some(8))
    );
    let r = resolve(&text, &["method=linear-probe"]).unwrap();
    assert_eq!((r.method.name.as_str(), r.method.settings.len()), ("linear-probe", 0));
    // In whatever order name and settings stand on the command line.
    let r = resolve(LEAST, &["method.x=1", "method=other"]).unwrap();
    assert_eq!((r.method.name.as_str(), r.method.settings.len()), ("other", 1));
}

#[test]
fn messages_name_key_value_and_what_is_allowed() {
    let e = error(&format!("bacth_size = 3\n{LEAST}"), &[]);
    assert_eq!(e, "recipe.toml: a recipe has no key `bacth_size`; did you mean `batch_size`?");
    let e = error(LEAST, &["epochs=0"]);
    assert_eq!(e, "the command line: `epochs` is 0, but takes a whole number from 1");
    let e = error(LEAST, &["optimizer=adam"]);
    assert_eq!(e, "the command line: `optimizer` is \"adam\", but takes one of adamw, sgd");
    let e = error(LEAST, &["lr=nan"]);
    assert_eq!(e, "the command line: `lr` is nan, but takes a number greater than 0 and up to 1000000");
    assert!(error(LEAST, &["zzz=1"]).contains("it has base, hidden"));
    assert!(error(LEAST, &["method.r"]).contains("KEY=VALUE"));
    assert!(error(LEAST, &["=1"]).contains("KEY=VALUE"));
    assert!(error(LEAST, &["method.name=3"]).contains("`method` is"));
    let e = error(&LEAST.replace("base =", "hidden ="), &[]);
    assert_eq!(
        e,
        "`base` is missing (folder or .onnx file of the base): give --base or write `base` into the recipe"
    );
    assert!(error(&LEAST.replace("data =", "test_data ="), &[]).contains("`data` is missing"));
    assert!(
        error(&LEAST.replace("method = \"lora\"", "[method]\nr = 8"), &[]).contains("`method` is missing")
    );
}

#[test]
fn what_does_not_go_together_is_said() {
    let e = error(&format!("eval_split = 0.1\neval_data = \"d\"\n{LEAST}"), &[]);
    assert_eq!(e, "recipe.toml gives both `eval_data` and `eval_split`: choose one");
    assert!(error(LEAST, &["momentum=0.9"]).contains("optimizer = \"sgd\""));
    assert!(error(LEAST, &["optimizer=sgd", "nesterov=true"]).contains("needs a `momentum`"));
    assert!(error(LEAST, &["batches=b", "eval_split=0.1"]).contains("prepared `batches`"));
}

#[test]
fn files_that_are_no_recipes_are_refused() {
    assert!(error("base = ", &[]).contains("recipe.toml is not a recipe: TOML parse error at line 1"));
    assert!(error("version = 2", &[]).contains("`version = 2` is not known here"));
    assert!(error("format = \"other\"", &[]).contains("newer Graft"));
    let dir = tempfile::tempdir().unwrap();
    let read = |name: &str| Layer::from_file(&dir.path().join(name)).unwrap_err().to_string();
    std::fs::write(dir.path().join("large.toml"), vec![b'#'; (1 << 20) + 1]).unwrap();
    std::fs::write(dir.path().join("latin.toml"), b"base = \"\xe9\"").unwrap();
    assert!(read("large.toml").contains("at most"));
    assert!(read("latin.toml").contains("invalid utf-8"));
    assert!(read("none.toml").contains("cannot be read"));
}

proptest::proptest! {
    #[test]
    fn no_text_makes_reading_panic(text in "[ -~\n]{0,60}", key in "[a-z.\"=\\[\\]]{0,12}") {
        let _ = Layer::from_toml("x", &text);
        let _ = Layer::command_line().set(&format!("{key}={text}"));
        let _ = Layer::command_line().set(&text);
    }
}
