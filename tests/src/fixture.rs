//! A folder with a tiny base, a small data set and the `graft` binary, so that whole commands can be tried in seconds.
//! Everything in it is made here from a seed; nothing has to be fetched.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;

use graft_graph::Tensor;
use serde_json::Value;
use tempfile::TempDir;

use crate::fixture_base;

/// The folder with the built binary and plugins: `GRAFT_TEST_BINARIES`, which lets an installation be tested, or else the
/// profile of these tests. There Cargo is asked once; what is built is kept.
///
/// # Panics
/// When they can't be built.
pub fn target_dir() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        if let Some(given) = std::env::var_os("GRAFT_TEST_BINARIES") {
            return PathBuf::from(given);
        }
        let exe = std::env::current_exe().expect("a test knows its own path");
        let profile = exe.ancestors().nth(2).expect("tests lie in PROFILE/deps").to_owned();
        let mut cargo = Command::new(env!("CARGO"));
        cargo.arg("build").arg("--target-dir").arg(profile.parent().unwrap_or(&profile));
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        cargo.args(["--lib", "--bins", "--examples", "--quiet"]).current_dir(env!("CARGO_MANIFEST_DIR"));
        for package in [
            "graft",
            "graft-misbehaving",
            "graft-plugin-lora",
            "graft-plugin-linear-probe",
            "graft-plugin-ia3",
            "graft-plugin-vera",
            "graft-plugin-loha",
            "graft-plugin-bottleneck-adapter",
            "graft-plugin-norm-tuning",
            "graft-plugin-full",
            "graft-plugin-prompt-tuning",
            "graft-plugin-prefix-tuning",
            "graft-plugin-classification",
            "graft-plugin-regression",
            "graft-plugin-embedding",
            "graft-plugin-token-classification",
        ] {
            cargo.args(["-p", package]);
        }
        assert!(cargo.status().is_ok_and(|s| s.success()), "graft and its plugins could not be built");
        profile
    })
}

/// The ONNX Runtime library as `graft` finds it. Where there is none it says so, except on a build server, where that
/// is a failure.
///
/// # Panics
/// When `CI` is set and there is no library.
pub fn library() -> Option<PathBuf> {
    match graft_runtime::library::Search::from_process(None).find() {
        Ok(path) => Some(path.canonicalize().unwrap_or(path)),
        Err(e) => {
            assert!(std::env::var_os("CI").is_none(), "{e}");
            println!("skipped: no ONNX Runtime");
            None
        }
    }
}

/// A folder of its own for each test: `base` (a tiny BERT with a tokenizer), `train.csv` (60 rows, 3 labels), `dev.csv`
/// and `test.csv` (30 each, of other rows). Commands run in it, and see nothing of the machine but the library.
#[derive(Debug)]
pub struct House {
    dir: TempDir,
    library: PathBuf,
}

/// What a command printed and how it ended.
#[derive(Debug)]
pub struct Ended {
    /// Its stdout.
    pub out: String,
    /// Its stderr.
    pub err: String,
    /// Its exit code; none if a signal ended it.
    pub code: Option<i32>,
}

impl House {
    /// A new one; none where there is no ONNX Runtime.
    ///
    /// # Panics
    /// When the folder can't be filled.
    pub fn new() -> Option<House> {
        let library = library()?;
        let dir = tempfile::tempdir().expect("a temporary folder");
        fixture_base::checkpoint(&dir.path().join("checkpoint"));
        graft_models::import(&dir.path().join("checkpoint"), &dir.path().join("base"))
            .expect("the checkpoint is sound");
        let house = House { dir, library };
        for (k, (name, rows)) in [("train", 60), ("dev", 30), ("test", 30)].into_iter().enumerate() {
            house.write(&format!("{name}.csv"), fixture_base::table(k as u16, rows));
        }
        Some(house)
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file.
    ///
    /// # Panics
    /// When it can't be written.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), content).expect("a file in a temporary folder");
    }

    /// Reads a file.
    ///
    /// # Panics
    /// When it isn't there.
    pub fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// The tensors of a safetensors file.
    ///
    /// # Panics
    /// When it isn't there or isn't sound.
    pub fn tensors(&self, name: &str) -> indexmap::IndexMap<String, Tensor> {
        graft_adapters::read_tensors_owned(&self.path(name)).unwrap_or_else(|e| panic!("{e}"))
    }

    /// Writes a safetensors file.
    ///
    /// # Panics
    /// When it can't be written.
    pub fn write_tensors<'a>(&self, name: &str, tensors: impl IntoIterator<Item = (&'a str, &'a Tensor)>) {
        graft_adapters::write_tensors(&self.path(name), tensors).unwrap_or_else(|e| panic!("{e}"));
    }

    /// `graft` with the arguments in `line`, separated by spaces, ready to start.
    pub fn command(&self, line: &str) -> Command {
        let mut command = Command::new(target_dir().join("graft"));
        command.args(line.split_whitespace()).current_dir(self.dir.path()).stdin(Stdio::null());
        command.env("HOME", self.dir.path()).env("ORT_DYLIB_PATH", &self.library).env("COLUMNS", "100");
        for name in [
            "XDG_DATA_HOME",
            "XDG_CACHE_HOME",
            "GRAFT_FEATURES",
            "GRAFT_FEATURES_LIMIT",
            "GRAFT_PLUGIN_PATH",
            "GRAFT_LOG",
            "CLICOLOR_FORCE",
        ] {
            command.env_remove(name);
        }
        command
    }

    /// Runs `graft` with the arguments in `line`, separated by spaces.
    pub fn run(&self, line: &str) -> Ended {
        Ended::of(&mut self.command(line))
    }

    /// As [`House::run`], with text on stdin.
    ///
    /// # Panics
    /// When it does not start.
    pub fn run_on(&self, line: &str, stdin: &str) -> Ended {
        let mut command = self.command(line);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child: Child = command.spawn().expect("graft starts");
        if let Some(mut pipe) = child.stdin.take() {
            pipe.write_all(stdin.as_bytes()).expect("graft reads its stdin");
        }
        Ended::from(child.wait_with_output().expect("graft ends"))
    }

    /// Arguments of a training run that succeeds within a second; flags in `more` must differ from those here.
    pub fn training(out: &str, more: &str) -> String {
        format!(
            "train --base base --objective classification --data train.csv --text text --label label --out {out} \
             --threads 1 --json {more}"
        )
    }

    /// Trains a LoRA into the folder `out`: 6 epochs with a high learning rate.
    pub fn lora(&self, out: &str, more: &str) -> Ended {
        self.run(&House::training(out, &format!("--method lora --epochs 6 --batch-size 8 --lr 0.02 {more}")))
    }

    /// The lines of a run's `metrics.jsonl` of one kind: `step`, `epoch` … A last line that was cut off is left out.
    ///
    /// # Panics
    /// When there is none.
    pub fn metrics(&self, adapter: &str, kind: &str) -> Vec<Value> {
        let text = String::from_utf8(self.read(&format!("{adapter}/metrics.jsonl"))).expect("JSON is text");
        let whole = text.rsplit_once('\n').map_or("", |(lines, _)| lines);
        let lines = whole.lines().map(|l| serde_json::from_str::<Value>(l).expect("a line is an object"));
        lines.filter(|l| l["kind"] == kind).collect()
    }

    /// The losses of a run's steps.
    pub fn losses(&self, adapter: &str) -> Vec<f64> {
        self.metrics(adapter, "step").iter().filter_map(|s| s["loss"].as_f64()).collect()
    }

    /// The names in a folder, sorted.
    ///
    /// # Panics
    /// When it isn't there.
    pub fn entries(&self, folder: &str) -> Vec<String> {
        let list = std::fs::read_dir(self.path(folder)).unwrap_or_else(|e| panic!("{folder}: {e}"));
        let mut names: Vec<String> =
            list.map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

impl Ended {
    /// Runs a command to its end.
    ///
    /// # Panics
    /// When it does not start.
    pub fn of(command: &mut Command) -> Ended {
        Ended::from(command.output().expect("the command starts"))
    }

    /// The JSON object in the last line of stdout, of a command that succeeded.
    ///
    /// # Panics
    /// When it failed or there is none.
    pub fn json(&self) -> Value {
        assert_eq!(self.code, Some(0), "{}", self.err);
        let last =
            self.out.lines().last().unwrap_or_else(|| panic!("nothing on stdout; stderr: {}", self.err));
        serde_json::from_str(last).expect("the last line is JSON")
    }

    /// The JSON of a command that succeeded.
    ///
    /// # Panics
    /// When it failed.
    pub fn succeeded(&self) -> &Ended {
        assert_eq!(self.code, Some(0), "{}\n{}", self.out, self.err);
        self
    }

    /// As [`Ended::failed`], and asserts that nothing was printed on stdout.
    ///
    /// # Panics
    /// When it did otherwise.
    pub fn refused(&self, words: &[&str]) -> &Ended {
        assert_eq!(self.out, "", "{}", self.err);
        self.failed(words)
    }

    /// Asserts that the command failed with a message that holds all of `words`.
    ///
    /// # Panics
    /// When it did otherwise.
    pub fn failed(&self, words: &[&str]) -> &Ended {
        assert_eq!(self.code, Some(1), "{}\n{}", self.out, self.err);
        assert!(self.err.contains("error: "), "{}", self.err);
        for w in words {
            assert!(self.err.contains(w), "no word of `{w}` in: {}", self.err);
        }
        assert!(!self.err.contains("panicked at"), "{}", self.err);
        self
    }
}

impl From<Output> for Ended {
    fn from(o: Output) -> Ended {
        let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
        Ended { out: text(&o.stdout), err: text(&o.stderr), code: o.status.code() }
    }
}
