//! A method that stops a gradient on purpose, as methods may.

use graft_plugin_api::*;

graft_plugin_api::__export_manifest!(
    br#"{"format": 1, "id": "stopping", "version": "1.0.0", "api": "0.1", "licence": "MIT",
         "methods": [{"id": "stopping", "summary": "divides by a size that is held fixed", "config": {}}]}"#
);

static PLUGIN: export::Plugin = export::Plugin {
    id: "stopping",
    version: "1.0.0",
    licence: "MIT",
    requires: &[abi::GRAPH_EXTENSION],
    entries: &[export::Entry::method::<Stopping>()],
};

graft_plugin_api::__export_header!(PLUGIN);

config! {
    /// Divides by a size that is held fixed.
    pub struct Stopping {}
}

impl Method for Stopping {
    const ID: &'static str = "stopping";
    const SUMMARY: &'static str = "divides by a size that is held fixed";

    fn apply(&self, g: &Graph<'_>) -> Result<()> {
        let sites = g.select(&Selection { targets: None, exclude: None, kinds: &[SiteKind::LINEAR] })?;
        g.each(&sites, |site| {
            let spec = ParamSpec::new("scale", &[site.out_features]).init(Init::Ones).neutral(Init::Ones);
            let scale = g.param(spec.site(&site.path))?;
            let size = g.reduce_mean(g.mul(scale, scale)?, &[], false)?;
            let held = g.stop_gradient(size)?;
            g.replace_output(site, g.mul(site.output()?, g.div(scale, held)?)?)
        })
    }
}
