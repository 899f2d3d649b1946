//! A method whose gradient is wrong: part of what it adds jumps, and no derivative says so.

use graft_plugin_api::*;

graft_plugin_api::__export_manifest!(
    br#"{"format": 1, "id": "jumping", "version": "1.0.0", "api": "0.1", "licence": "MIT",
         "methods": [{"id": "jumping", "summary": "jumps", "config": {}}]}"#
);

static PLUGIN: export::Plugin = export::Plugin {
    id: "jumping",
    version: "1.0.0",
    licence: "MIT",
    requires: &[abi::GRAPH_EXTENSION],
    entries: &[export::Entry::method::<Jumping>()],
};

graft_plugin_api::__export_header!(PLUGIN);

config! {
    /// Jumps.
    pub struct Jumping {}
}

impl Method for Jumping {
    const ID: &'static str = "jumping";
    const SUMMARY: &'static str = "jumps";

    fn apply(&self, g: &Graph<'_>) -> Result<()> {
        let sites = g.select(&Selection { targets: None, exclude: None, kinds: &[SiteKind::LINEAR] })?;
        g.each(&sites, |site| {
            let spec = ParamSpec::new("scale", &[site.out_features]).init(Init::Ones).neutral(Init::Ones);
            let scale = g.param(spec.site(&site.path))?;
            let scaled = g.mul(site.output()?, scale)?;
            let hundred = g.scalar(100.0)?;
            let steps = g.emit("Round", &[g.mul(scaled, hundred)?], &[])?;
            g.replace_output(site, g.add(scaled, g.div(steps, hundred)?)?)
        })
    }
}
