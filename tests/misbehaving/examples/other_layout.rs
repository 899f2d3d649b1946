//! A plugin of the right version whose boundary has another layout.

#![expect(missing_docs, reason = "the exported static is documented by no one")]

use abi_stable::StableAbi;
use abi_stable::library::RootModule;
use abi_stable::prefix_type::PrefixTypeTrait;
use abi_stable::sabi_types::VersionStrings;
use graft_plugin_api::abi::API_VERSION_TEXT;

graft_plugin_api::__export_manifest!(
    br#"{"format": 1, "id": "other-layout", "version": "1.0.0", "api": "0.1", "licence": "MIT"}"#
);

/// Not what the host expects.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = OtherRef)))]
pub struct Other {
    /// A field that is a number elsewhere.
    pub api_major: u64,
    /// Another.
    #[sabi(last_prefix_field)]
    pub call: extern "C" fn() -> u32,
}

extern "C" fn call() -> u32 {
    0
}

impl RootModule for OtherRef {
    abi_stable::declare_root_module_statics! {OtherRef}
    const BASE_NAME: &'static str = "graft_plugin";
    const NAME: &'static str = "graft_plugin";
    const VERSION_STRINGS: VersionStrings = VersionStrings::new(API_VERSION_TEXT);
}

/// The module.
#[abi_stable::export_root_module]
pub fn module() -> OtherRef {
    Other { api_major: 0, call }.leak_into_prefix()
}
