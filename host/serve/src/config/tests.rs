//! Layers, unknown names, keys.

use super::*;

fn file(content: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), content).expect("a file");
    file
}

fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let file = file(
        "base = 'a'\nlisten = '0.0.0.0:1'\n[limits]\ntexts = 1\nbatch_rows = 2\n[rates.adapters]\nx = 3\n",
    );
    let env = env(&[("GRAFT_SERVE_BASE", "b"), ("GRAFT_SERVE_LIMITS__TEXTS", "7"), ("OTHER", "x")]);
    let mut flags = Table::new();
    set(&mut flags, "base", "c");
    let config = Config::layered(Some(file.path()), env, flags).expect("all is known");
    assert_eq!(config.base.as_deref(), Some(Path::new("c")));
    assert_eq!(
        (config.limits.engine.texts, config.limits.engine.batch_rows, config.listen.port()),
        (7, 2, 1)
    );
    assert_eq!(config.rates.adapters["x"], 3.0);
    assert_eq!(config.limits.engine.queue_rows, LimitsConfig::default().engine.queue_rows);
}

#[test]
fn an_unknown_setting_is_refused_with_the_nearest_name() {
    let said = |content: &str| {
        let file = file(content);
        Config::layered(Some(file.path()), [], Table::new()).expect_err("it is refused").to_string()
    };
    assert!(said("lisen = 'x'").ends_with("there is no setting 'lisen'; did you mean 'listen'?"));
    assert!(said("[limits]\ntext = 1").ends_with("'limits.text'; did you mean 'limits.texts'?"));
    assert!(said("[limits]\ntexts = 'many'").contains("many"));
    assert!(said("[limits]\ntexts = 0").contains("limits.texts is 0"));
    assert!(said("[rates]\neveryone = -1.0").contains("above 0"));
    assert!(said("watch_seconds = -1.0").contains("watch_seconds is -1"));
    assert!(said("[limits]\nload_seconds = nan").contains("limits.load_seconds is NaN"));
    assert!(said("load = 'later'").contains("on-request"));
    assert!(said("[timeouts]\nbody_seconds = -1.0").contains("timeouts.body_seconds is -1"));
    assert!(said("[timeouts]\nrequest_seconds = inf").contains("no time"));
    assert!(said("log_format = 'xml'").contains("xml"));
    let by_env = Config::layered(None, env(&[("GRAFT_SERVE_BSAE", "x")]), Table::new());
    assert!(by_env.expect_err("it is refused").to_string().contains("did you mean 'base'?"));
}

#[test]
fn keys_come_from_files_and_the_environment_and_are_never_shown() {
    let of_keys = file("admin = 'one'\n[adapters]\nacme = ['two']\n");
    let config = Config { keys_file: Some(of_keys.path().to_owned()), ..Config::default() };
    let secret = file("three\n");
    let path = secret.path().display().to_string();
    let env = |name: &str| (name == "GRAFT_METRICS_KEY_FILE").then(|| path.clone());
    let settings = config.settings(&env).expect("all can be read");
    let key = |k: &str| Some(crate::Key::new(k));
    assert!(settings.access.administer(key("one")).is_ok());
    assert!(settings.access.watch(key("three")).is_ok());
    assert!(settings.access.ask(key("two"), "acme").is_ok());
    let wrong = file("admin = 'secret'\nadmni = 'secret'\n");
    let config = Config { keys_file: Some(wrong.path().to_owned()), ..Config::default() };
    let said = config.settings(&|_| None).expect_err("an unknown key").to_string();
    assert!(said.contains("admni") && !said.contains("secret"), "{said}");
    assert!(Config::default().settings(&|_| Some(" ".into())).is_err());
}

#[test]
fn adapters_are_kept_as_the_settings_say() {
    let of = |content: &str| {
        let file = file(content);
        Config::layered(Some(file.path()), [], Table::new()).expect("all is known")
    };
    assert_eq!(of("").keeping(), Keeping::default());
    assert_eq!(of("").watching(), Some(Duration::from_secs(1)));
    let other =
        of("load = 'on-request'\nwatch_seconds = 0.0\n[limits]\nhost_bytes = 7\nload_seconds = 0.5\n");
    let wait = Duration::from_millis(500);
    assert_eq!(other.keeping(), Keeping { on_request: true, host_bytes: 7, wait });
    assert_eq!(other.watching(), None);
}
