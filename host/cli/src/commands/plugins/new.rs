//! `graft plugins new`.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::ValueEnum;
use graft_plugins::api::abi::API_VERSION;
use serde_json::json;

use crate::table::{Page, show_json};

/// Write a new plugin: a crate that builds, passes its tests and can be trained with as it is
///
/// The crate is a workspace of its own and depends on graft-plugin-api alone. Change the maths in src/lib.rs from there.
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  graft plugins new my-method --kind method\n  cd my-method && cargo test && cargo build --release"
)]
pub struct New {
    /// The name that people will type: lower-case letters, digits and dashes
    name: String,
    /// What it brings
    #[arg(long, value_enum)]
    kind: Kind,
    /// The folder to make [default: the name]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// The folder of the crate graft-plugin-api [default: beside the sources that this graft was built in, where they are
    /// still there, else the crate by its version]
    #[arg(long, value_name = "DIR")]
    api: Option<PathBuf>,
    /// Print one JSON object instead
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// How an adapter changes the base
    Method,
    /// What is optimised
    Objective,
}

impl Kind {
    /// The templates of source and manifest.
    fn templates(self) -> [&'static str; 2] {
        match self {
            Kind::Method => {
                [include_str!("templates/method.rs.in"), include_str!("templates/method.json.in")]
            }
            Kind::Objective => {
                [include_str!("templates/objective.rs.in"), include_str!("templates/objective.json.in")]
            }
        }
    }

    fn flag(self) -> &'static str {
        if self == Kind::Method { "--method" } else { "--objective" }
    }
}

/// Words that a Rust crate or type can't be called.
const RESERVED: [&str; 6] = ["self", "super", "crate", "test", "core", "std"];

/// Runs the command.
pub fn run(args: &New) -> Result<()> {
    let type_name = type_name(&args.name)?;
    let out = args.out.clone().unwrap_or_else(|| PathBuf::from(&args.name));
    let api = match &args.api {
        Some(dir) if !dir.join("Cargo.toml").is_file() => {
            bail!(
                "--api {}: there is no Cargo.toml in it; name the folder of the crate graft-plugin-api",
                dir.display()
            )
        }
        Some(dir) => Some(dir.canonicalize()?),
        None => beside_the_binary(),
    };
    let version = format!("{}.{}", API_VERSION.0, API_VERSION.1);
    let dependency = match &api {
        Some(dir) => format!("{{ path = {} }}", json!(dir)),
        None => format!("\"{version}\""),
    };
    let fill = |template: &str| {
        let values = [
            ("{{crate}}", args.name.as_str()),
            ("{{id}}", &args.name),
            ("{{type}}", &type_name),
            ("{{version}}", version.as_str()),
            ("{{api}}", &dependency),
        ];
        values.iter().fold(template.to_owned(), |text, (key, value)| text.replace(key, value))
    };
    let [source, manifest] = args.kind.templates();
    let files = [
        ("Cargo.toml", fill(include_str!("templates/Cargo.toml.in"))),
        ("src/lib.rs", fill(source)),
        ("plugin.json", fill(manifest)),
        (".gitignore", "/target\n".to_owned()),
    ];
    graft_adapters::create_whole(&out, true, |folder| write(folder, &files))?;
    let library = format!("{}{}.so", std::env::consts::DLL_PREFIX, args.name.replace('-', "_"));
    let names: Vec<&str> = files.iter().map(|f| f.0).collect();
    if args.json {
        return show_json(&json!({ "path": out, "files": names, "api": api, "library": library }));
    }
    let mut page = Page::new();
    page.line(format!("Written to {}: {}", out.display(), names.join(", ")));
    if api.is_none() {
        page.line(format!(
            "It depends on graft-plugin-api {version} by version; for a folder of it, give --api DIR."
        ));
    }
    page.line("\nNext:");
    page.line(format!("  cd {} && cargo test && cargo build --release", out.display()));
    page.line(format!("  graft plugins verify target/release/{library}"));
    page.line(format!("  graft train … {} {} --plugin-dir target/release", args.kind.flag(), args.name));
    page.line("\nWhen the config in src/lib.rs has changed: GRAFT_UPDATE_MANIFEST=1 cargo test");
    page.show()
}

fn write(folder: &Path, files: &[(&str, String)]) -> Result<(), anyhow::Error> {
    std::fs::create_dir_all(folder.join("src"))?;
    for (name, content) in files {
        std::fs::write(folder.join(name), content)?;
    }
    Ok(())
}

/// `my-method` as a Rust type: `MyMethod`.
fn type_name(name: &str) -> Result<String> {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let parts: Vec<&str> = name.split('-').collect();
    let words = parts.iter().all(|p| !p.is_empty() && p.chars().all(good));
    if !words
        || !name.starts_with(|c: char| c.is_ascii_lowercase())
        || name.len() > 64
        || RESERVED.contains(&name)
    {
        bail!(
            "`{name}` is no name for a plugin: use lower-case letters, digits and single dashes, a letter first"
        );
    }
    let capital = |p: &&str| p[..1].to_ascii_uppercase() + &p[1..];
    Ok(parts.iter().map(capital).collect())
}

/// The crate's folder in the sources that the binary lies below, as it does where it was built.
fn beside_the_binary() -> Option<PathBuf> {
    let exe = std::env::current_exe().ok()?.canonicalize().ok()?;
    exe.ancestors().map(|a| a.join("plugin-api")).find(|d| d.join("src/abi.rs").is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_types() {
        assert_eq!(type_name("my-method").unwrap(), "MyMethod");
        assert_eq!(type_name("ia3").unwrap(), "Ia3");
    }

    #[test]
    fn names_that_rust_or_a_shell_would_not_take_are_refused() {
        for name in ["", "-x", "My", "a--b", "3d", "a_b", "../x", "é", "std"] {
            assert!(type_name(name).is_err(), "{name}");
        }
    }
}
