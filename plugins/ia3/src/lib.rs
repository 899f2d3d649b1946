//! (IA)³: what leaves a module, or what enters it, is multiplied by a learned vector (Liu et al. 2022, "Few-Shot
//! Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context Learning"). Names, shapes, defaults and
//! starting values are those of Hugging Face PEFT.

use graft_plugin_api::*;

config! {
    /// (IA)³: a learned scale for each feature of chosen linear layers.
    pub struct Ia3 {
        /// Which modules: a list of names or ends of paths, a regular expression for the whole path, or `all-linear`.
        /// Without it the customary ones of the architecture (key, value and the feed-forward layers' outputs).
        target_modules: Option<Names> = None,
        /// Of which of these the input is scaled instead of the output, chosen likewise. Without it the customary ones
        /// of the architecture.
        feedforward_modules: Option<Names> = None,
        /// Which of the targets to leave out.
        exclude_modules: Option<Names> = None,
    }
}

/// What is customary, by the names that an architecture has: the targets, and which of these are feed-forward layers.
/// The first row counts of which all names are there.
const CUSTOMARY: [(&[&str], &[&str]); 12] = [
    (&["key", "value", "output.dense"], &["output.dense"]),
    (&["key", "value", "ffn_output"], &["ffn_output"]),
    (&["key_proj", "value_proj", "output.dense"], &["output.dense"]),
    (&["k_lin", "v_lin", "lin2"], &["lin2"]),
    (&["k_proj", "v_proj", "down_proj"], &["down_proj"]),
    (&["k_proj", "v_proj", "w2"], &["w2"]),
    (&["q_proj", "v_proj", "fc_out"], &["fc_out"]),
    (&["q_proj", "v_proj", "fc2"], &["fc2"]),
    (&["c_attn", "mlp.c_proj"], &["mlp.c_proj"]),
    (&["q_proj", "v_proj", "c_proj"], &["c_proj"]),
    (&["query_key_value", "dense_4h_to_h"], &["dense_4h_to_h"]),
    (&["k", "v", "wo"], &["wo"]),
];

impl Method for Ia3 {
    const ID: &'static str = "ia3";
    const SUMMARY: &'static str = "learned scales of what enters or leaves linear layers (IA³)";

    fn check(&self) -> Result<()> {
        let (Some(Names::List(targets)), Some(Names::List(fed))) =
            (&self.target_modules, &self.feedforward_modules)
        else {
            return Ok(());
        };
        match fed.iter().find(|f| !targets.contains(f)) {
            Some(f) => fail!(CONFIG, "option `feedforward_modules`: `{f}` is not among `target_modules`"),
            None => Ok(()),
        }
    }

    fn examples() -> Vec<(&'static str, Self)> {
        let all = Some(Names::Pattern("all-linear".to_owned()));
        let none = Some(Names::List(Vec::new()));
        let outputs = Self { target_modules: all, feedforward_modules: none, ..Self::default() };
        vec![
            ("keys, values and feed-forward layers, as PEFT does by default", Self::default()),
            ("the output of every linear layer", outputs),
        ]
    }

    fn apply(&self, g: &Graph<'_>) -> Result<()> {
        let (targets, fed) = self.names(&g.sites()?)?;
        let sites = g.select(&Selection {
            targets: Some(&targets),
            exclude: self.exclude_modules.as_ref(),
            kinds: &[SiteKind::LINEAR],
        })?;
        let fed = matching(&sites, &fed)?;
        let vector = |site: &Site, shape: [u64; 2]| {
            let spec = ParamSpec::new("ia3_l", &shape).init(Init::Ones).neutral(Init::Ones).site(&site.path);
            g.reshape(g.param(spec)?, &[-1])
        };
        let mut fed = fed.into_iter();
        g.each(&sites, |site| {
            if fed.next() == Some(true) {
                let x = g.mul(site.input()?, vector(site, [1, site.in_features])?)?;
                return g.replace_input(site, x);
            }
            let y = g.mul(site.output()?, vector(site, [site.out_features, 1])?)?;
            g.replace_output(site, y)
        })
    }
}

impl Ia3 {
    /// The names of the targets and of the feed-forward layers among them.
    fn names(&self, sites: &[Site]) -> Result<(Names, Names)> {
        let list = |names: &[&str]| Names::List(names.iter().map(|n| (*n).to_owned()).collect());
        let row = CUSTOMARY.iter().find(|(targets, _)| targets.iter().all(|t| has(sites, t)));
        let targets = match (&self.target_modules, row) {
            (Some(given), _) => given.clone(),
            (None, Some((targets, _))) => list(targets),
            (None, None) => {
                let e = Error::new(Code::NO_SITE, "no modules of this base are customary for (IA)³");
                return Err(e.help("name some with `target_modules`, and `feedforward_modules` among them"));
            }
        };
        let fed = match &self.feedforward_modules {
            Some(given) => given.clone(),
            None => list(row.map_or(&[], |(_, fed)| fed)),
        };
        Ok((targets, fed))
    }
}

/// Whether a linear layer's path is this name or ends with it.
fn has(sites: &[Site], name: &str) -> bool {
    let ends =
        |path: &str| path.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    sites.iter().any(|s| s.kind == SiteKind::LINEAR && ends(&s.path))
}

export_plugin! { id: "ia3", methods: [Ia3], objectives: [] }
