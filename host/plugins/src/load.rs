//! Loads plugin libraries. They are never unloaded: code and statics of a Rust library may be referred to for good.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use abi_stable::library::{LibraryError, RawLibrary, lib_header_from_raw_library};
use graft_plugin_api::abi::{
    API_VERSION, GRAPH_EXTENSION, HostCallbacks, PluginModuleRef, Reply, compatible,
};
use graft_plugin_api::guard::guarded;
use graft_plugin_api::manifest::Manifest;
use graft_plugin_api::wire::{self, Message, plugin_op};
use graft_plugin_api::{Code, Error};

use crate::callbacks::with_callbacks;
use crate::host::{GraphHost, NoGraph};
use crate::manifest::version_error;
use crate::{PluginError, Result, read_manifest};

/// A loaded plugin. Cloning shares it.
#[derive(Clone)]
pub struct Plugin(Arc<Loaded>);

struct Loaded {
    path: PathBuf,
    manifest: Manifest,
    module: PluginModuleRef,
    extensions: Vec<String>,
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Plugin({} {})", self.0.manifest.id, self.0.path.display())
    }
}

impl Plugin {
    /// Loads the library at `path`. Several libraries, also copies of one, live side by side; the same path again gives
    /// the same library.
    ///
    /// # Errors
    /// `LOAD` when it is no plugin; `VERSION` when it was built against another version or layout of the API, with what
    /// to rebuild.
    pub fn load(path: &Path) -> Result<Plugin> {
        let manifest = read_manifest(path)?;
        let module = open(path, &manifest)?;
        let built = (module.api_major(), module.api_minor());
        if !compatible(API_VERSION, built) {
            return Err(version_error(path, &manifest.id, &format!("{}.{}", built.0, built.1)));
        }
        if module.name().as_str() != manifest.id {
            let message =
                format!("its manifest says `{}`, its code says `{}`", manifest.id, module.name().as_str());
            let help = "Run the plugin's tests with GRAFT_UPDATE_MANIFEST=1 and build it again";
            return Err(PluginError::file(Code::LOAD, path, message, help));
        }
        let plugin =
            Plugin(Arc::new(Loaded { path: path.to_owned(), manifest, module, extensions: Vec::new() }));
        let hello = wire::Hello {
            extensions: vec![GRAPH_EXTENSION.to_owned()],
            name: format!("graft {}", env!("CARGO_PKG_VERSION")),
            requires: Vec::new(),
        };
        let answer: wire::Hello = plugin.ask("", plugin_op::HELLO, 0, &hello, &mut NoGraph)?;
        if let Some(lacking) = answer.requires.iter().find(|r| !hello.extensions.contains(r)) {
            let message =
                format!("plugin `{}` needs `{lacking}`, which {} does not have", answer.name, hello.name);
            let help = "Use a newer graft, or an older version of the plugin";
            return Err(PluginError::file(Code::VERSION, &plugin.0.path, message, help));
        }
        let Loaded { path, manifest, module, .. } = &*plugin.0;
        Ok(Plugin(Arc::new(Loaded {
            path: path.clone(),
            manifest: manifest.clone(),
            module: *module,
            extensions: answer.extensions,
        })))
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// What it says of itself.
    pub fn manifest(&self) -> &Manifest {
        &self.0.manifest
    }

    /// True when the plugin speaks that extension.
    pub fn has(&self, extension: &str) -> bool {
        self.0.extensions.iter().any(|e| e == extension)
    }

    /// Calls the plugin. Neither side unwinds into the other.
    pub(crate) fn ask<A: Message + Default>(
        &self,
        entry: &str,
        op: u32,
        instance: u64,
        request: &impl Message,
        host: &mut dyn GraphHost,
    ) -> Result<A> {
        let plugin = &self.0.manifest.id;
        let fail = |e: Error| PluginError::from_error(e, plugin, entry, plugin_op::name(op));
        let call = self.0.module.call();
        let bytes = request.encode_to_vec();
        let (reply, mistake) = with_callbacks(host, |callbacks: &HostCallbacks| {
            call(op, instance, bytes.as_slice().into(), callbacks)
        });
        let unreadable = |e| fail(Error::new(Code::MALFORMED, format!("its answer cannot be read: {e}")));
        match reply {
            Reply::ROk(answer) => A::decode(answer.as_slice()).map_err(unreadable),
            Reply::RErr(error) => {
                let error = wire::Error::decode(error.as_slice()).map_err(unreadable)?;
                let error = fail(error.into());
                Err(Box::new(PluginError { mistake: mistake && error.code == Code::REFUSED, ..*error }))
            }
        }
    }
}

/// Opens the library and checks the layout of what it exports. Not `RootModule::load_from*`: those keep one library
/// for each type and give the first one for every further path.
fn open(path: &Path, manifest: &Manifest) -> Result<PluginModuleRef> {
    let fail = |code, message: String, help: &str| PluginError::file(code, path, message, help);
    // Without a slash the system would search its own folders.
    let absolute = path.canonicalize().map_err(|e| fail(Code::LOAD, format!("cannot be opened: {e}"), ""))?;
    let opened = guarded(|| {
        let library = RawLibrary::load_at(&absolute).map_err(|e| fail(Code::LOAD, one_line(&e), ""))?;
        // Leaked before anything is asked of it: what fails below must not unload code that has run.
        let library: &'static RawLibrary = Box::leak(Box::new(library));
        // SAFETY: the library lives for ever; the manifest has said that it is a plugin, and the header starts with a
        // magic number that is checked before anything else in it is used.
        let header =
            unsafe { lib_header_from_raw_library(library) }.map_err(|e| refused(&e, path, manifest))?;
        header.init_root_module::<PluginModuleRef>().map_err(|e| refused(&e, path, manifest))
    });
    opened.unwrap_or_else(|p| Err(fail(Code::LOAD, format!("panicked while it was loaded: {p}"), "")))
}

fn refused(e: &LibraryError, path: &Path, manifest: &Manifest) -> Box<PluginError> {
    let (major, minor) = API_VERSION;
    let what = match e {
        LibraryError::GetSymbolError { .. } => {
            let help = "Export the plugin with `export_plugin!` and build it as a cdylib";
            return PluginError::file(Code::LOAD, path, "exports no plugin header".to_owned(), help);
        }
        LibraryError::IncompatibleVersionNumber { actual_version, .. } => {
            return version_error(path, &manifest.id, &actual_version.to_string());
        }
        LibraryError::InvalidAbiHeader(_) => "was built with another version of `abi_stable`",
        LibraryError::AbiInstability(_) => "has another layout of the plugin boundary",
        _ => return PluginError::file(Code::LOAD, path, one_line(e), ""),
    };
    let help = format!(
        "Rebuild it against graft-plugin-api {major}.{minor}, the version of this host (it says it was built against \
         {})",
        manifest.api
    );
    PluginError::file(Code::VERSION, path, format!("plugin `{}` {what}", manifest.id), &help)
}

fn one_line(e: &LibraryError) -> String {
    let text = e.to_string();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
