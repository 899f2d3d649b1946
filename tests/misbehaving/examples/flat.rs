//! A method whose parameter has no gradient: all that it does goes through an operator that is flat.

use graft_plugin_api::*;

graft_plugin_api::__export_manifest!(
    br#"{"format": 1, "id": "flat", "version": "1.0.0", "api": "0.1", "licence": "MIT",
         "methods": [{"id": "flat", "summary": "is flat", "config": {}}]}"#
);

static PLUGIN: export::Plugin = export::Plugin {
    id: "flat",
    version: "1.0.0",
    licence: "MIT",
    requires: &[abi::GRAPH_EXTENSION],
    entries: &[export::Entry::method::<Flat>()],
};

graft_plugin_api::__export_header!(PLUGIN);

config! {
    /// Is flat.
    pub struct Flat {}
}

impl Method for Flat {
    const ID: &'static str = "flat";
    const SUMMARY: &'static str = "is flat";

    fn apply(&self, g: &Graph<'_>) -> Result<()> {
        let sites = g.select(&Selection { targets: None, exclude: None, kinds: &[SiteKind::LINEAR] })?;
        g.each(&sites, |site| {
            let gate = g.param(ParamSpec::new("gate", &[site.out_features]).site(&site.path))?;
            g.replace_output(site, g.mul(site.output()?, g.emit("Sign", &[gate], &[])?)?)
        })
    }
}
