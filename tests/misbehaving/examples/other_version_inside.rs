//! A plugin whose manifest lies: its code was built against another version of the API.

#![expect(missing_docs, reason = "the exported static is documented by no one")]

use abi_stable::StableAbi;
use abi_stable::library::RootModule;
use abi_stable::prefix_type::PrefixTypeTrait;
use abi_stable::sabi_types::VersionStrings;

graft_plugin_api::__export_manifest!(
    br#"{"format": 1, "id": "other-version-inside", "version": "1.0.0", "api": "0.1", "licence": "MIT"}"#
);

/// What plugins of version 7 export.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = SevenRef)))]
pub struct Seven {
    /// A field.
    #[sabi(last_prefix_field)]
    pub number: u32,
}

impl RootModule for SevenRef {
    abi_stable::declare_root_module_statics! {SevenRef}
    const BASE_NAME: &'static str = "graft_plugin";
    const NAME: &'static str = "graft_plugin";
    const VERSION_STRINGS: VersionStrings = VersionStrings::new("7.0.0");
}

/// The module.
#[abi_stable::export_root_module]
pub fn module() -> SevenRef {
    Seven { number: 7 }.leak_into_prefix()
}
