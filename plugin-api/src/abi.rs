//! The frozen surface: two function pointers over bytes. Everything else grows inside the messages of [`crate::wire`].
//!
//! `abi_stable` refuses any library whose surface has another layout, in one direction only (fewer fields than the
//! interface). So nothing is ever added here: new abilities are new operation numbers, announced by an extension id.

use std::ffi::c_void;

use abi_stable::StableAbi;
use abi_stable::library::RootModule;
use abi_stable::sabi_types::VersionStrings;
use abi_stable::std_types::{RResult, RSlice, RStr, RVec};

/// Version of the surface and of the messages, as `MAJOR.MINOR`. While the major is 0 nothing is frozen and the minor
/// must match; from 1.0 on a host takes every plugin of its major.
pub const API_VERSION: (u32, u32) = (0, 1);

/// [`API_VERSION`] as text, with the patch level that `abi_stable` asks for.
pub const API_VERSION_TEXT: &str = "0.1.0";

/// A plugin with this extension has methods ([`crate::Method`]).
pub const METHOD_EXTENSION: &str = "graft.method/1";

/// A plugin with this extension has objectives ([`crate::Objective`]).
pub const OBJECTIVE_EXTENSION: &str = "graft.objective/1";

/// A host with this extension offers the graph builder ([`crate::Graph`]).
pub const GRAPH_EXTENSION: &str = "graft.graph/1";

/// The section of a plugin library that holds its manifest.
pub const MANIFEST_SECTION: &str = ".graft.manifest";

/// The symbol under which a plugin exports its header, as `abi_stable` looks it up.
pub const HEADER_SYMBOL: &str = abi_stable::library::ROOT_MODULE_LOADER_NAME;

/// Bytes of the answer, or the bytes of a [`crate::wire::Error`].
pub type Reply = RResult<RVec<u8>, RVec<u8>>;

/// What every plugin library exports.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = PluginModuleRef)))]
pub struct PluginModule {
    /// Major version of the API that the plugin was built against.
    pub api_major: u32,
    /// Minor version of the API that the plugin was built against.
    pub api_minor: u32,
    /// The plugin's id, as in its manifest.
    pub name: RStr<'static>,
    /// The only way in: operation, instance (0 where none is meant), request and the host's side.
    #[sabi(last_prefix_field)]
    pub call: extern "C" fn(u32, u64, RSlice<'_, u8>, &HostCallbacks) -> Reply,
}

impl RootModule for PluginModuleRef {
    abi_stable::declare_root_module_statics! {PluginModuleRef}
    const BASE_NAME: &'static str = "graft_plugin";
    const NAME: &'static str = "graft_plugin";
    const VERSION_STRINGS: VersionStrings = VersionStrings::new(API_VERSION_TEXT);
}

/// The host's side of one call; valid until that call returns.
#[repr(C)]
#[derive(StableAbi)]
pub struct HostCallbacks {
    /// Handed back with each callback; means something to the host only.
    pub context: *const c_void,
    /// The only way out: context, operation and request.
    pub call: extern "C" fn(*const c_void, u32, RSlice<'_, u8>) -> Reply,
}

/// True when a host of version `host` takes a plugin that was built against version `plugin`.
pub fn compatible(host: (u32, u32), plugin: (u32, u32)) -> bool {
    host.0 == plugin.0 && (host.0 != 0 || host.1 == plugin.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn before_one_the_minor_must_match_and_after_it_only_the_major() {
        assert!(compatible((0, 1), (0, 1)));
        assert!(!compatible((0, 2), (0, 1)));
        assert!(compatible((1, 4), (1, 9)));
        assert!(!compatible((2, 0), (1, 9)));
    }

    #[test]
    fn the_version_text_says_the_version() {
        assert_eq!(API_VERSION_TEXT, format!("{}.{}.0", API_VERSION.0, API_VERSION.1));
        // Authors depend on the crate by this version, and the tests tell the kept release's API by it.
        assert!(env!("CARGO_PKG_VERSION").starts_with(&format!("{}.{}.", API_VERSION.0, API_VERSION.1)));
    }

    #[test]
    fn the_exported_symbol_is_the_one_that_is_looked_up() {
        assert_eq!(crate::__header_symbol!(), HEADER_SYMBOL);
    }
}
