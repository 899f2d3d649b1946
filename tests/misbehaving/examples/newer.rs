//! A plugin of later days: it needs an extension of the host that there is not yet.

graft_plugin_api::__export_manifest!(
    br#"{"format": 1, "id": "newer", "version": "3.1.0", "api": "0.1", "licence": "MIT", "methods": [],
         "of-later-days": {"unknown": true}}"#
);

static PLUGIN: graft_plugin_api::export::Plugin = graft_plugin_api::export::Plugin {
    id: "newer",
    version: "3.1.0",
    licence: "MIT",
    requires: &[graft_plugin_api::abi::GRAPH_EXTENSION, "graft.telepathy/1"],
    entries: &[],
};

graft_plugin_api::__export_header!(PLUGIN);
