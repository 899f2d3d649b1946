//! A folder of its own for each test, with the binary and the plugins in it, so that nothing of the machine is seen.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use tempfile::TempDir;

/// The plugins that the tests install.
const PLUGINS: [&str; 3] = ["classification", "linear-probe", "lora"];

/// Columns of the terminal that help is wrapped for.
const COLUMNS: &str = "100";

/// An installation: `bin/graft`, plugins in `bin/plugins`, and the folder that commands run in.
pub struct House {
    dir: TempDir,
}

/// What a command printed and how it ended, with everything that differs between machines replaced.
pub struct Ended {
    pub out: String,
    pub err: String,
    pub code: Option<i32>,
}

impl House {
    /// A house with the binary alone.
    pub fn empty() -> House {
        // Hard links need the file system of the target folder.
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        std::fs::create_dir_all(dir.path().join("bin/plugins")).unwrap();
        let house = House { dir };
        link(Path::new(env!("CARGO_BIN_EXE_graft")), &house.graft());
        house
    }

    /// A house with the plugins of this repository.
    pub fn with_plugins() -> House {
        let house = House::empty();
        for plugin in PLUGINS {
            let file = format!("libgraft_plugin_{}.so", plugin.replace('-', "_"));
            link(&built_plugins().join(&file), &house.path().join("bin/plugins").join(&file));
        }
        house
    }

    /// The folder of the house, where commands run.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    fn graft(&self) -> PathBuf {
        self.path().join("bin/graft")
    }

    /// Runs `graft` with the arguments in `line`, separated by spaces.
    pub fn run(&self, line: &str) -> Ended {
        self.run_with(line, &[])
    }

    /// As [`House::run`], with environment variables set.
    pub fn run_with(&self, line: &str, env: &[(&str, &str)]) -> Ended {
        let mut command = Command::new(self.graft());
        command.args(line.split_whitespace()).current_dir(self.path()).stdin(Stdio::null());
        command.env("HOME", self.path()).env("COLUMNS", COLUMNS);
        for name in ["XDG_DATA_HOME", "GRAFT_PLUGIN_PATH", "GRAFT_LOG", "CLICOLOR_FORCE"] {
            command.env_remove(name);
        }
        let Output { status, stdout, stderr } = command.envs(env.iter().copied()).output().unwrap();
        Ended { out: self.filtered(&stdout), err: self.filtered(&stderr), code: status.code() }
    }

    fn filtered(&self, bytes: &[u8]) -> String {
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let full = self.path().canonicalize().unwrap();
        let text = text.replace(&*full.to_string_lossy(), "[HOUSE]");
        text.replace(&*self.path().to_string_lossy(), "[HOUSE]")
    }
}

impl Ended {
    /// The JSON object in the last line of stdout.
    pub fn json(&self) -> serde_json::Value {
        let last =
            self.out.lines().last().unwrap_or_else(|| panic!("nothing on stdout; stderr: {}", self.err));
        serde_json::from_str(last).unwrap()
    }

    /// Everything, for a snapshot.
    pub fn all(&self) -> String {
        let code = self.code.map_or_else(|| "none".to_string(), |c| c.to_string());
        format!("exit code {code}\n--- stdout\n{}--- stderr\n{}", self.out, self.err)
    }
}

fn link(from: &Path, to: &Path) {
    if std::fs::hard_link(from, to).is_err() {
        std::fs::copy(from, to).unwrap();
    }
}

/// The folder of the built plugins, in the profile of these tests. Cargo is asked once; what is built is kept.
fn built_plugins() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let profile = Path::new(env!("CARGO_BIN_EXE_graft")).parent().unwrap().to_owned();
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--lib", "--quiet", "--target-dir"]).arg(profile.parent().unwrap());
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        for plugin in PLUGINS {
            cargo.args(["-p", &format!("graft-plugin-{plugin}")]);
        }
        let built = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status().unwrap();
        assert!(built.success(), "the plugins could not be built");
        profile
    })
}

/// The shared data; `None`, with a word on stdout, where there are none. On a build server that is a failure.
pub fn shared() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let folder = std::env::var_os("GRAFT_SHARED").map_or_else(beside, PathBuf::from);
    if folder.join("conformance").is_dir() {
        return Some(folder);
    }
    assert!(std::env::var_os("CI").is_none(), "no shared data: set GRAFT_SHARED");
    println!("skipped: no shared data");
    None
}

/// Where ONNX Runtime is found as the binary finds it; as [`shared`] where there is none.
pub fn library() -> Option<String> {
    match graft_runtime::library::Search::from_process(None).find() {
        Ok(path) => Some(path.canonicalize().unwrap().to_string_lossy().into_owned()),
        Err(e) => {
            assert!(std::env::var_os("CI").is_none(), "{e}");
            println!("skipped: no ONNX Runtime");
            None
        }
    }
}
