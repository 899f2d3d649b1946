//! A plugin whose manifest says that it was built against another API. It must not be opened: its constructor would end
//! the process.

graft_plugin_api::__export_manifest!(
    br#"{"format": 1, "id": "old-version", "version": "1.0.0", "api": "0.0", "licence": "MIT"}"#
);

extern "C" fn at_load() {
    std::process::abort();
}

#[used]
#[unsafe(link_section = ".init_array")]
static AT_LOAD: extern "C" fn() = at_load;
