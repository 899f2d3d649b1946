//! Reads a plugin's manifest out of its library without running any of it.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use graft_plugin_api::Code;
use graft_plugin_api::abi::{API_VERSION, HEADER_SYMBOL, MANIFEST_SECTION, compatible};
use graft_plugin_api::manifest::{FORMAT, Manifest};
use object::read::{File as ObjectFile, Object, ObjectSection, ObjectSymbol, ReadCache};

use crate::{PluginError, Result};

/// Largest library that is looked into.
pub const MAX_FILE: u64 = 1 << 30;

/// Largest manifest that is read.
pub const MAX_MANIFEST: u64 = 1 << 20;

/// Reads the manifest of the library at `path`, and checks that this host could load it: processor, exported header,
/// manifest format and API version.
///
/// # Errors
/// `LOAD` when it is no library of this machine, or no plugin; `VERSION` when it was built against another API.
pub fn read_manifest(path: &Path) -> Result<Manifest> {
    let (manifest, has_header) = read_unchecked(path)?;
    let api = manifest.api_version();
    if !api.is_some_and(|v| compatible(API_VERSION, v)) {
        return Err(version_error(path, &manifest.id, &manifest.api));
    }
    if !has_header {
        let message = format!("the library exports no plugin header (symbol `{HEADER_SYMBOL}`)");
        let help = "Export the plugin with `export_plugin!` and build it as a cdylib";
        return Err(PluginError::file(Code::LOAD, path, message, help));
    }
    Ok(manifest)
}

/// The error for a plugin of another API version.
pub(crate) fn version_error(path: &Path, plugin: &str, built: &str) -> Box<PluginError> {
    let (major, minor) = API_VERSION;
    let message =
        format!("plugin `{plugin}` was built against plugin API {built}, this host has {major}.{minor}");
    let help = format!(
        "Rebuild the plugin against graft-plugin-api {major}.{minor}, or use a host of the plugin's version"
    );
    PluginError::file(Code::VERSION, path, message, &help)
}

fn read_unchecked(path: &Path) -> Result<(Manifest, bool)> {
    let fail = |message: String, help: &str| PluginError::file(Code::LOAD, path, message, help);
    let file = File::open(path).map_err(|e| fail(format!("cannot be opened: {e}"), ""))?;
    let meta = file.metadata().map_err(|e| fail(format!("cannot be read: {e}"), ""))?;
    if !meta.is_file() {
        return Err(fail("is not a file".to_owned(), "Name a plugin library (a `.so` file)"));
    }
    if meta.len() > MAX_FILE {
        return Err(fail(format!("has {} bytes; plugins have at most {MAX_FILE}", meta.len()), ""));
    }
    check_header(&file).map_err(|m| fail(m, "Name a plugin library (a `.so` file) that was built here"))?;
    let cache = ReadCache::new(BufReader::new(file));
    let object =
        ObjectFile::parse(&cache).map_err(|e| fail(format!("is not a sound shared library: {e}"), ""))?;
    let section = object.section_by_name(MANIFEST_SECTION).ok_or_else(|| {
        let help =
            "Export the plugin with `export_plugin!`; a library that was stripped by hand may have lost it";
        fail(format!("has no manifest (section `{MANIFEST_SECTION}`), so it is no Graft plugin"), help)
    })?;
    if section.size() > MAX_MANIFEST {
        return Err(fail(format!("its manifest has {} bytes, more than {MAX_MANIFEST}", section.size()), ""));
    }
    let bytes = section.data().map_err(|e| fail(format!("its manifest cannot be read: {e}"), ""))?;
    let has_header = object.dynamic_symbols().any(|s| s.is_definition() && s.name() == Ok(HEADER_SYMBOL));
    Ok((parse(bytes).map_err(|m| fail(m, ""))?, has_header))
}

/// The first bytes say what the file is; the library parser's messages do not.
fn check_header(mut file: &File) -> std::result::Result<(), String> {
    let mut head = [0u8; 20];
    let short = file.read_exact(&mut head).is_err();
    if short || !head.starts_with(b"\x7fELF") {
        return Err("is not a shared library".to_owned());
    }
    let (machine, name) = if cfg!(target_arch = "x86_64") {
        (62, "x86-64")
    } else if cfg!(target_arch = "aarch64") {
        (183, "AArch64")
    } else {
        return Ok(());
    };
    if head[4] != 2 || head[5] != 1 || u16::from_le_bytes([head[18], head[19]]) != machine {
        return Err(format!("is a library for another processor than {name}"));
    }
    Ok(())
}

fn parse(bytes: &[u8]) -> std::result::Result<Manifest, String> {
    let json: serde_json::Value =
        serde_json::from_slice(bytes).map_err(|e| format!("its manifest is not JSON: {e}"))?;
    match json.get("format").and_then(serde_json::Value::as_u64) {
        Some(f) if f == u64::from(FORMAT) => {}
        Some(f) => return Err(format!("its manifest has format {f}, this host reads {FORMAT}")),
        None => {
            return Err(
                "its manifest is empty: run the plugin's tests with GRAFT_UPDATE_MANIFEST=1".to_owned()
            );
        }
    }
    serde_json::from_value(json).map_err(|e| format!("its manifest is incomplete: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(bytes: &[u8]) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.so");
        std::fs::write(&path, bytes).unwrap();
        read_manifest(&path).unwrap_err().to_string()
    }

    #[test]
    fn what_is_no_library_is_said_to_be_none() {
        assert!(refused(b"").contains("is not a shared library"));
        assert!(refused(b"PK\x03\x04 something else entirely").contains("is not a shared library"));
        assert!(read_manifest(Path::new("/")).unwrap_err().to_string().contains("is not a file"));
        assert!(read_manifest(Path::new("absent.so")).unwrap_err().to_string().contains("cannot be opened"));
    }

    #[test]
    fn a_library_for_another_processor_is_named_so() {
        let mut elf = vec![0u8; 64];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        elf[18] = 40;
        assert!(refused(&elf).contains("another processor"));
    }

    #[test]
    fn damaged_libraries_are_errors() {
        // This test's own executable is a sound ELF file without a manifest; damage is done to its start.
        let sound = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(refused(&sound).contains("has no manifest"));
        for cut in [20, 63, 64, 100, sound.len() / 2] {
            assert!(!refused(&sound[..cut]).is_empty());
        }
        let headers = sound.len() - 4096;
        for at in (16..64).chain(headers..headers + 64) {
            let mut damaged = sound.clone();
            damaged[at] ^= 0xff;
            assert!(!refused(&damaged).is_empty());
        }
    }

    #[test]
    fn manifests_of_other_formats_are_refused() {
        assert!(parse(b"{}").unwrap_err().contains("is empty"));
        assert!(parse(br#"{"format": 9}"#).unwrap_err().contains("format 9"));
        assert!(parse(br#"{"format": 1}"#).unwrap_err().contains("incomplete"));
    }
}
