//! A plugin whose manifest belongs to another plugin.

use graft_plugin_api::export::Plugin;

graft_plugin_api::__export_manifest!(
    br#"{"format": 1, "id": "somebody-else", "version": "1.0.0", "api": "0.1", "licence": "MIT"}"#
);

static PLUGIN: Plugin =
    Plugin { id: "myself", version: "1.0.0", licence: "MIT", requires: &[], entries: &[] };

graft_plugin_api::__export_header!(PLUGIN);
