//! LoHa: `W` becomes `W + (alpha / r) · (w1_a w1_b) ∘ (w2_a w2_b)`, the elementwise product of two low-rank matrices, whose
//! rank may be the square of theirs (Hyeon-Woo et al. 2022, "FedPara: Low-Rank Hadamard Product for
//! Communication-Efficient Federated Learning"). Names, shapes, defaults and starting values are those of Hugging Face PEFT.

mod conv;

use graft_plugin_api::*;

config! {
    /// LoHa: the elementwise product of two low-rank updates beside each chosen linear layer or convolution.
    pub struct Loha {
        /// Rank of each of the two.
        r: u64 = 8,
        /// The update is scaled by `alpha / r`.
        alpha: f32 = 8.0,
        /// Which modules: a list of names or ends of paths, a regular expression for the whole path, or `all-linear`.
        /// Without it the customary ones of the architecture (query and value).
        target_modules: Option<Names> = None,
        /// Which of these to leave out.
        exclude_modules: Option<Names> = None,
        /// Only in these numbered layers, from 0.
        layers_to_transform: Option<Vec<u64>> = None,
        /// The name of the list whose layers `layers_to_transform` counts; without it the innermost one.
        layers_pattern: Option<String> = None,
        /// Other ranks for some modules: a regular expression for the end of the path, and the rank. The first that
        /// matches counts.
        rank_pattern: Patterns = Patterns::default(),
        /// Other alphas for some modules, likewise.
        alpha_pattern: Patterns = Patterns::default(),
        /// Take the kernels of convolutions apart by all of their axes (proposition 3 of the paper), not as one matrix.
        use_effective_conv2d: bool = false,
        /// The probability, while training, that an output has no update in a step; the others are scaled up.
        rank_dropout: f32 = 0.0,
        /// The probability, while training, that a module has no update in a step.
        module_dropout: f32 = 0.0,
    }
}

impl Method for Loha {
    const ID: &'static str = "loha";
    const SUMMARY: &'static str =
        "elementwise product of two low-rank updates of linear and conv layers (LoHa)";

    fn check(&self) -> Result<()> {
        if self.r == 0 {
            return fail!(CONFIG, "option `r`: a rank of 0 has no parameters");
        }
        if !self.alpha.is_finite() {
            return fail!(CONFIG, "option `alpha`: {} is not a number to scale by", self.alpha);
        }
        self.rank_pattern.check_ranks("rank_pattern")?;
        self.alpha_pattern.check("alpha_pattern", f64::is_finite, "a number to scale by")?;
        for (option, p) in [("rank_dropout", self.rank_dropout), ("module_dropout", self.module_dropout)] {
            if !(0.0..1.0).contains(&p) {
                return fail!(CONFIG, "option `{option}`: {p} is not in [0, 1)");
            }
        }
        Ok(())
    }

    fn examples() -> Vec<(&'static str, Self)> {
        let all = Some(Names::Pattern("all-linear".to_owned()));
        vec![
            ("query and value, as PEFT does by default", Self::default()),
            ("every linear layer", Self { target_modules: all, ..Self::default() }),
        ]
    }

    fn apply(&self, g: &Graph<'_>) -> Result<()> {
        let selection = Selection {
            targets: self.target_modules.as_ref(),
            exclude: self.exclude_modules.as_ref(),
            kinds: &[SiteKind::LINEAR, SiteKind::CONV],
        };
        let layers = self.layers_to_transform.as_deref();
        let sites = g.select_in_layers(&selection, layers, self.layers_pattern.as_deref())?;
        let alike = self.rank_pattern.is_empty() && self.alpha_pattern.is_empty();
        let shared = if alike { Some(g.setting("scaling", self.alpha / self.r as f32)?) } else { None };
        g.each(&sites, |site| {
            let r = self.rank_pattern.number(&site.path)?.map_or(self.r, |rank| rank as u64);
            let alpha = self.alpha_pattern.number(&site.path)?.map_or(self.alpha, |alpha| alpha as f32);
            let scaling = shared.map_or_else(|| g.setting_at(site, "scaling", alpha / r as f32), Ok)?;
            let added = if site.kind == SiteKind::CONV {
                self.conv(g, site, r, scaling)?
            } else {
                let delta = matrix(g, site, r, [site.out_features, site.in_features])?;
                let delta = self.dropped(g, g.mul(delta, scaling)?, site.out_features)?;
                g.linear(site.input()?, delta, None)?
            };
            g.replace_output(site, g.add(site.output()?, added)?)
        })
    }
}

/// `(w1_a w1_b) ∘ (w2_a w2_b)` `[rows, columns]`, with `w_a` `[rows, r]` and `w_b` `[r, columns]`.
fn matrix(g: &Graph<'_>, site: &Site, r: u64, [rows, columns]: [u64; 2]) -> Result<Value> {
    let product = |a: &str, b: &str, start: Init| {
        let a = ParamSpec::new(a, &[rows, r]).init(torch()).paddable(1).site(&site.path);
        let b = ParamSpec::new(b, &[r, columns]).init(start).paddable(0).site(&site.path);
        g.matmul(g.param(a)?, g.param(b)?)
    };
    // One factor of zeros is enough for the update to be zero at first.
    let first = product("hada_w1_a", "hada_w1_b", torch())?;
    g.mul(first, product("hada_w2_a", "hada_w2_b", Init::Zeros)?)
}

/// As the weight of torch's layers begins.
fn torch() -> Init {
    Init::KaimingUniform(5f64.sqrt())
}

impl Loha {
    /// The update of a weight `[outputs, …]` with what training leaves out of it.
    fn dropped(&self, g: &Graph<'_>, delta: Value, outputs: u64) -> Result<Value> {
        let axes = g.fact(delta)?.shape.map_or(2, |s| s.len());
        let drawn = |name, count, p: f32| {
            let shape: Vec<Dim> = (0..axes).map(|i| Dim::Known(if i == 0 { count } else { 1 })).collect();
            let keep = Distribution::Bernoulli { keep: 1.0 - p, value: 1.0 };
            if p > 0.0 { g.noise(name, &shape, keep) } else { Ok(None) }
        };
        let mut delta = delta;
        if let Some(kept) = drawn("rank_dropout", outputs, self.rank_dropout)? {
            // Where no output is left, there is nothing to scale up.
            let part = g.max(g.reduce_mean(kept, &[0], true)?, g.scalar(f32::MIN_POSITIVE)?)?;
            delta = g.mul(delta, g.div(kept, part)?)?;
        }
        if let Some(kept) = drawn("module_dropout", 1, self.module_dropout)? {
            delta = g.mul(delta, kept)?;
        }
        Ok(delta)
    }
}

export_plugin! { id: "loha", methods: [Loha], objectives: [] }
