//! Finding the ONNX Runtime library and making sure that it is the right one *before* anything calls into it.

use std::env;
use std::ffi::CStr;
use std::path::{Path, PathBuf};

use crate::error::{Result, RuntimeError};

/// Version of ONNX Runtime that Graft is built and tested with.
pub const ORT_VERSION: &str = "1.31.1";
/// Environment variable that names the library file, before every other place but the explicit option.
pub const ORT_DYLIB_PATH: &str = "ORT_DYLIB_PATH";
/// Environment variable that names the folder fetched files are kept in.
pub const GRAFT_CACHE: &str = "GRAFT_CACHE";

const SYSTEM: [&str; 5] =
    ["/usr/local/lib", "/usr/lib", "/usr/lib64", "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu"];

/// Where to search: everything the search depends on, so that it can be tested without touching the process.
#[derive(Debug, Clone, Default)]
pub struct Search {
    /// A path given by option; nothing else is tried when it is set.
    pub explicit: Option<PathBuf>,
    /// The value of `ORT_DYLIB_PATH`; nothing else is tried when it is set.
    pub env_path: Option<PathBuf>,
    /// The value of `GRAFT_CACHE`.
    pub cache: Option<PathBuf>,
    /// The running executable.
    pub exe: Option<PathBuf>,
    /// The working directory.
    pub cwd: Option<PathBuf>,
    /// The user's data directory (`$XDG_DATA_HOME` or `~/.local/share`).
    pub data_dir: Option<PathBuf>,
    /// System library folders.
    pub system: Vec<PathBuf>,
}

impl Search {
    /// The search as this process's environment describes it.
    pub fn from_process(explicit: Option<PathBuf>) -> Search {
        let path = |name: &str| env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        Search {
            explicit,
            env_path: path(ORT_DYLIB_PATH),
            cache: path(GRAFT_CACHE),
            exe: env::current_exe().ok(),
            cwd: env::current_dir().ok(),
            data_dir: path("XDG_DATA_HOME").or_else(|| path("HOME").map(|h| h.join(".local/share"))),
            system: SYSTEM.iter().map(PathBuf::from).collect(),
        }
    }

    /// Every file that would be tried, best first.
    pub fn candidates(&self) -> Vec<PathBuf> {
        let mut folders = Vec::new();
        let mut caches = Vec::new();
        if let Some(dir) = self.exe.as_deref().and_then(Path::parent) {
            folders.push(dir.to_path_buf());
            folders.extend(dir.parent().map(|up| up.join("lib")));
            caches.extend(dir.ancestors().map(|up| up.join(".graft")));
        }
        caches.splice(0..0, self.cache.clone());
        if let Some(cwd) = &self.cwd {
            let here = cwd.join(".graft");
            if !caches.contains(&here) {
                caches.push(here);
            }
        }
        caches.extend(self.data_dir.as_ref().map(|d| d.join("graft")));
        folders.extend(caches.into_iter().map(|c| c.join(format!("onnxruntime-{ORT_VERSION}"))));
        folders.extend(self.system.iter().cloned());
        folders.iter().flat_map(|f| names().map(|n| f.join(n))).collect()
    }

    /// The library file: the explicit path or `ORT_DYLIB_PATH` if set, else the first file that exists.
    ///
    /// # Errors
    /// [`RuntimeError::LibraryPathMissing`] for a named path without a file, [`RuntimeError::LibraryNotFound`] with
    /// every place looked at.
    pub fn find(&self) -> Result<PathBuf> {
        let named = [(&self.explicit, "the library option"), (&self.env_path, ORT_DYLIB_PATH)];
        if let Some((Some(path), origin)) = named.into_iter().find(|(p, _)| p.is_some()) {
            return named_file(path)
                .ok_or_else(|| RuntimeError::LibraryPathMissing { origin, path: path.clone() });
        }
        let places = self.candidates();
        match places.iter().find(|p| p.is_file()) {
            Some(path) => Ok(path.clone()),
            None => Err(RuntimeError::LibraryNotFound { needed: ORT_VERSION, places }),
        }
    }
}

fn names() -> impl Iterator<Item = String> {
    [format!("libonnxruntime.so.{ORT_VERSION}"), "libonnxruntime.so".to_owned()].into_iter()
}

/// A named path may be the file itself or the folder it lies in.
fn named_file(path: &Path) -> Option<PathBuf> {
    if path.is_dir() {
        return names().map(|n| path.join(n)).find(|p| p.is_file());
    }
    path.is_file().then(|| path.to_path_buf())
}

/// Loads `path` and asks for its version, so that whatever is wrong with it is an error and never a panic.
///
/// The library stays loaded: it is the one that sessions will use, and libraries of this size are not safe to unload.
///
/// # Errors
/// [`RuntimeError::NotALibrary`] and [`RuntimeError::WrongVersion`].
pub fn check(path: &Path) -> Result<String> {
    let refuse =
        |reason: String| RuntimeError::NotALibrary { path: path.to_path_buf(), reason, needed: ORT_VERSION };
    // A relative name without a slash would be searched for in the loader's own path instead.
    let full = path.canonicalize().map_err(|e| refuse(e.to_string()))?;
    // SAFETY: loading runs the library's initialisers. The file is one that the user named or that lies where
    // Graft's own libraries lie; running it is what was asked for.
    let library = unsafe { libloading::Library::new(&full) }.map_err(|e| refuse(e.to_string()))?;
    // SAFETY: the symbol's type is that of ONNX Runtime's C header, unchanged since its first release.
    let base = unsafe {
        library.get::<unsafe extern "C" fn() -> *const ort::sys::OrtApiBase>(b"OrtGetApiBase\0").map(|f| f())
    }
    .map_err(|_| refuse("it has no symbol OrtGetApiBase".into()))?;
    if base.is_null() {
        return Err(refuse("OrtGetApiBase returned nothing".into()));
    }
    // SAFETY: `base` is not null and points to the static table that `OrtGetApiBase` returns; the string is static.
    let version = unsafe { CStr::from_ptr(((*base).GetVersionString)()) }.to_string_lossy().into_owned();
    let wrong = || RuntimeError::WrongVersion {
        path: path.to_path_buf(),
        found: version.clone(),
        needed: ORT_VERSION,
    };
    if minor(&version) != minor(ORT_VERSION) {
        return Err(wrong());
    }
    // SAFETY: as above; an API version that the library lacks gives null.
    if unsafe { ((*base).GetApi)(ort::sys::ORT_API_VERSION) }.is_null() {
        return Err(wrong());
    }
    std::mem::forget(library);
    Ok(version)
}

/// Major and minor number: patch releases are interchangeable, others are not tested with.
fn minor(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.').map(|p| p.parse().ok());
    Some((parts.next()??, parts.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(path: &Path) -> PathBuf {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, b"no library").unwrap();
        path.to_path_buf()
    }

    #[test]
    fn the_places_are_searched_in_order() {
        let t = tempfile::tempdir().unwrap();
        let root = t.path();
        let so = format!("libonnxruntime.so.{ORT_VERSION}");
        let mut s = Search {
            exe: Some(root.join("work/target/release/graft")),
            cache: Some(root.join("cache")),
            data_dir: Some(root.join("share")),
            system: vec![root.join("usr/lib")],
            ..Search::default()
        };
        let cached = format!("onnxruntime-{ORT_VERSION}/{so}");
        // From the last place to the first: each new file must win over those before.
        for place in [
            root.join("usr/lib/libonnxruntime.so"),
            root.join("share/graft").join(&cached),
            root.join("work/.graft").join(&cached),
            root.join("cache").join(&cached),
            root.join("work/target/lib").join(&so),
            root.join("work/target/release").join(&so),
        ] {
            let place = touch(&place);
            assert_eq!(s.find().unwrap(), place);
        }
        s.env_path = Some(touch(&root.join("env.so")));
        assert_eq!(s.find().unwrap(), root.join("env.so"));
        s.explicit = Some(touch(&root.join("explicit.so")));
        assert_eq!(s.find().unwrap(), root.join("explicit.so"));
    }

    #[test]
    fn nothing_found_lists_every_place_and_the_cure() {
        let t = tempfile::tempdir().unwrap();
        let s = Search { cache: Some(t.path().to_path_buf()), ..Search::default() };
        let e = s.find().unwrap_err().to_string();
        assert!(
            e.contains(&format!("{}/onnxruntime-{ORT_VERSION}/libonnxruntime.so", t.path().display())),
            "{e}"
        );
        assert!(e.contains("cargo xtask quickstart") && e.contains("ORT_DYLIB_PATH"), "{e}");
    }

    #[test]
    fn a_named_path_without_a_file_is_not_searched_past() {
        let s = Search { env_path: Some("nowhere/x.so".into()), ..Search::default() };
        let e = s.find().unwrap_err().to_string();
        assert!(e.contains("ORT_DYLIB_PATH names nowhere/x.so"), "{e}");
    }

    #[test]
    fn a_file_that_is_no_library_is_refused() {
        let t = tempfile::tempdir().unwrap();
        let file = touch(&t.path().join("libonnxruntime.so"));
        assert!(matches!(check(&file), Err(RuntimeError::NotALibrary { .. })));
        assert!(matches!(check(&t.path().join("missing.so")), Err(RuntimeError::NotALibrary { .. })));
    }

    #[test]
    fn versions_are_compared_by_major_and_minor() {
        assert_eq!(minor("1.31.0"), minor(ORT_VERSION));
        assert_ne!(minor("1.3.1"), minor(ORT_VERSION));
        assert_eq!(minor("nonsense"), None);
    }
}
