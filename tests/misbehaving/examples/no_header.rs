//! A library with a sound manifest that exports no plugin.

graft_plugin_api::__export_manifest!(
    br#"{"format": 1, "id": "no-header", "version": "1.0.0", "api": "0.1", "licence": "MIT"}"#
);
