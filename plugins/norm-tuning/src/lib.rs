//! Norm tuning: the base's own normalisations are trained and nothing else of it (Zhao et al. 2023, "Tuning LayerNorm in
//! Attention: Towards Efficient Multi-Modal LLM Finetuning"), or its biases alone (Ben Zaken et al. 2022, "BitFit").

use graft_plugin_api::*;

config! {
    /// Trains the base's own norms, or its biases, from where they are.
    pub struct NormTuning {
        /// What is trained.
        parameters: Parameters = Parameters::Norms,
        /// In which modules: a list of names or ends of paths, or a regular expression for the whole path. Without it in
        /// all that have such parameters.
        target_modules: Option<Names> = None,
        /// Which of these to leave out.
        exclude_modules: Option<Names> = None,
    }
}

/// Which parameters of the base are trained.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(crate = "graft_plugin_api::serde", rename_all = "snake_case")]
#[schemars(crate = "graft_plugin_api::schemars")]
pub enum Parameters {
    /// Scales and biases of the norms.
    Norms,
    /// Every bias, those of the norms too.
    Biases,
}

impl Method for NormTuning {
    const ID: &'static str = "norm-tuning";
    const SUMMARY: &'static str = "trains the base's own norms, or its biases (BitFit)";

    fn examples() -> Vec<(&'static str, Self)> {
        vec![
            ("every norm", Self::default()),
            ("every bias (BitFit)", Self { parameters: Parameters::Biases, ..Self::default() }),
        ]
    }

    fn apply(&self, g: &Graph<'_>) -> Result<()> {
        let biases = self.parameters == Parameters::Biases;
        let kinds: &[SiteKind] = match self.parameters {
            Parameters::Norms => &[SiteKind::NORM],
            Parameters::Biases => &[SiteKind::NORM, SiteKind::LINEAR, SiteKind::CONV],
        };
        let has = |s: &Site| kinds.contains(&s.kind) && (!biases || s.bias.is_some());
        let targets = match &self.target_modules {
            Some(given) => given.clone(),
            None => names_of(&g.sites()?, has),
        };
        let exclude = self.exclude_modules.as_ref();
        let sites = g.select(&Selection { targets: Some(&targets), exclude, kinds })?;
        let parts = sites.iter().flat_map(|s| [s.weight.as_deref().filter(|_| !biases), s.bias.as_deref()]);
        let parts: Vec<&str> = parts.flatten().collect();
        if parts.is_empty() {
            let what = if biases { "biases" } else { "scales or biases" };
            return Err(Error::new(Code::NO_SITE, format!("none of the modules {targets} has {what}")));
        }
        parts.into_iter().try_for_each(|p| g.train_base(p).map(drop))
    }
}

export_plugin! { id: "norm-tuning", methods: [NormTuning], objectives: [] }
