//! Builds the plugins that the tests load, and a host that records what plugins ask of it.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use graft_plugins::GraphHost;
use graft_plugins::api::{Code, DType, Dim, Error, Fact, ParamSpec, Result, SiteKind, Tensor, wire};

/// The folder with the built libraries, in the profile of these tests. Cargo is asked once; what is built is kept.
pub fn target_dir() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let exe = std::env::current_exe().unwrap();
        let profile_dir = exe.parent().and_then(Path::parent).unwrap().to_owned();
        let mut cargo = Command::new(env!("CARGO"));
        cargo.arg("build").arg("--target-dir").arg(profile_dir.parent().unwrap());
        if profile_dir.ends_with("release") {
            cargo.arg("--release");
        }
        cargo.args(["--lib", "--examples", "--quiet"]).current_dir(env!("CARGO_MANIFEST_DIR"));
        for package in ["plugin-lora", "plugin-linear-probe", "plugin-classification", "misbehaving"] {
            cargo.args(["-p", &format!("graft-{package}")]);
        }
        assert!(cargo.status().unwrap().success(), "the plugins could not be built");
        profile_dir
    })
}

/// A plugin of this repository: `library("graft_plugin_lora")`.
pub fn library(name: &str) -> PathBuf {
    target_dir().join(format!("lib{name}.so"))
}

/// A library of `tests/misbehaving/examples`.
pub fn faulty(name: &str) -> PathBuf {
    target_dir().join("examples").join(format!("lib{name}.so"))
}

/// A host without a graph: it hands out numbers, and panics at the callback number `panic_at`.
#[derive(Default)]
pub struct Recorder {
    /// What was asked, in order.
    pub calls: Vec<String>,
    /// Declared parameters.
    pub params: Vec<ParamSpec>,
    /// Settings.
    pub settings: Vec<(String, f32)>,
    /// Number of the callback that panics.
    pub panic_at: Option<usize>,
    /// Numbers given out.
    pub values: u64,
}

impl Recorder {
    fn call(&mut self, what: impl Into<String>) {
        self.calls.push(what.into());
        if self.panic_at == Some(self.calls.len()) {
            panic!("the recorder was told to panic");
        }
    }

    fn next(&mut self) -> u64 {
        self.values += 1;
        100 + self.values
    }
}

impl GraphHost for Recorder {
    fn emit(&mut self, node: wire::Emit) -> Result<Vec<u64>> {
        self.call(format!("{}({:?}) at {}", node.op, node.inputs, node.site));
        if node.op == "MatMull" {
            return Err(Error::new(Code::UNSUPPORTED, "no such operator"));
        }
        Ok((0..node.outputs.min(8)).map(|_| self.next()).collect())
    }
    fn constant(&mut self, tensor: Tensor) -> Result<u64> {
        self.call(format!("constant {:?}", tensor.shape));
        Ok(self.next())
    }
    fn fact(&mut self, value: u64) -> Result<Fact> {
        self.call(format!("fact {value}"));
        let shape = vec![Dim::from("batch"), Dim::from("sequence"), Dim::from(16)];
        Ok(Fact { dtype: Some(DType::F32), shape: Some(shape) })
    }
    fn param(&mut self, spec: ParamSpec) -> Result<u64> {
        self.call(format!("param {}", spec.key));
        self.params.push(spec);
        Ok(self.next())
    }
    fn setting(&mut self, s: wire::Setting) -> Result<u64> {
        self.call(format!("setting {}", s.name));
        self.settings.push((s.name, s.value));
        Ok(self.next())
    }
    fn sites(&mut self) -> Result<Vec<wire::Site>> {
        self.call("sites");
        let site = |number: u32, name: &str| wire::Site {
            path: format!("encoder.layer.0.attention.self.{name}"),
            kind: SiteKind::LINEAR.0,
            input: 1,
            output: 10 + u64::from(number),
            weight: format!("{name}.weight"),
            bias: format!("{name}.bias"),
            in_features: 16,
            out_features: 32,
            transposed: true,
            number,
            conv: None,
            attention: None,
            residual: None,
        };
        Ok(vec![site(1, "query"), site(2, "key"), site(3, "value")])
    }
    fn train_base(&mut self, initializer: &str) -> Result<u64> {
        self.call(format!("train {initializer}"));
        Ok(self.next())
    }
    fn noise(&mut self, noise: wire::Noise) -> Result<Option<u64>> {
        self.call(format!("noise {} at {}", noise.name, noise.site));
        Ok(Some(self.next()))
    }
    fn replace_output(&mut self, site: u32, _: u64) -> Result<()> {
        self.call(format!("replace output of {site}"));
        Ok(())
    }
    fn matched(&mut self, m: wire::Matched) -> Result<()> {
        self.call(format!("matched {} left {}", m.matched.len(), m.unmatched.len()));
        Ok(())
    }
}
