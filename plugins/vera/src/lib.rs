//! VeRA: `W x` becomes `W x + b ∘ (B (d ∘ (A x)))`, where `A` and `B` are random, never trained and shared by all modules,
//! and each module has trained vectors `d` `[r]` and `b` `[out]` (Kopiczko et al. 2024, "VeRA: Vector-based Random Matrix
//! Adaptation"). Modules of other widths take the first columns of `A` and rows of `B`. Names, shapes, defaults, starting
//! values and the numbers of `A` and `B` are those of Hugging Face PEFT.

use graft_plugin_api::*;

config! {
    /// VeRA: trained scales of random projections that all modules share.
    pub struct Vera {
        /// Rank of the projections.
        r: u64 = 256,
        /// What each number of `d` begins as.
        d_initial: f32 = 0.1,
        /// Which modules: a list of names or ends of paths, a regular expression for the whole path, or `all-linear`.
        /// Without it the customary ones of the architecture (query and value).
        target_modules: Option<Names> = None,
        /// Which of these to leave out.
        exclude_modules: Option<Names> = None,
        /// Only in these numbered layers, from 0.
        layers_to_transform: Option<Vec<u64>> = None,
        /// The name of the list whose layers `layers_to_transform` counts; without it the innermost one.
        layers_pattern: Option<String> = None,
        /// Dropout on the input of the update, while training.
        #[serde(alias = "vera_dropout")]
        dropout: f32 = 0.0,
        /// Seed that the projections are drawn from.
        projection_prng_key: u64 = 0,
        /// Whether the adapter holds the projections; otherwise they are drawn again wherever it is used.
        save_projection: bool = true,
        /// Which biases of the base to train as well.
        bias: Bias = Bias::None,
    }
}

/// Which biases of the base are trained.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(crate = "graft_plugin_api::serde", rename_all = "snake_case")]
#[schemars(crate = "graft_plugin_api::schemars")]
pub enum Bias {
    /// None of them.
    None,
    /// All of them.
    All,
    /// Those of the modules that are adapted.
    VeraOnly,
}

impl Method for Vera {
    const ID: &'static str = "vera";
    const SUMMARY: &'static str = "trained scales of shared random projections beside linear layers (VeRA)";

    fn check(&self) -> Result<()> {
        if self.r == 0 {
            return fail!(CONFIG, "option `r`: a rank of 0 has no parameters");
        }
        if !self.d_initial.is_finite() {
            return fail!(CONFIG, "option `d_initial`: {} is not a number to begin with", self.d_initial);
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return fail!(CONFIG, "option `dropout`: {} is not in [0, 1)", self.dropout);
        }
        Ok(())
    }

    fn examples() -> Vec<(&'static str, Self)> {
        let all = Some(Names::Pattern("all-linear".to_owned()));
        vec![
            ("query and value, as PEFT does by default", Self::default()),
            ("every linear layer", Self { target_modules: all, ..Self::default() }),
            (
                "projections that are drawn again instead of stored",
                Self { save_projection: false, ..Self::default() },
            ),
        ]
    }

    fn apply(&self, g: &Graph<'_>) -> Result<()> {
        let selection = Selection {
            targets: self.target_modules.as_ref(),
            exclude: self.exclude_modules.as_ref(),
            kinds: &[SiteKind::LINEAR],
        };
        let layers = self.layers_to_transform.as_deref();
        let sites = g.select_in_layers(&selection, layers, self.layers_pattern.as_deref())?;
        let shared = self.projections(g, &sites)?;
        g.each(&sites, |site| {
            let d = ParamSpec::new("vera_lambda_d", &[self.r]).init(Init::Full(self.d_initial.into()));
            let b = ParamSpec::new("vera_lambda_b", &[site.out_features]);
            let (d, b) = (g.param(d.paddable(0).site(&site.path))?, g.param(b.site(&site.path))?);
            let x = g.dropout(site.input()?, self.dropout, "vera_dropout")?;
            let narrow =
                g.mul(g.linear(x, first(g, shared.a, 1, site.in_features, shared.widest_in)?, None)?, d)?;
            let wide =
                g.linear(narrow, first(g, shared.b, 0, site.out_features, shared.widest_out)?, None)?;
            g.replace_output(site, g.add(site.output()?, g.mul(wide, b)?)?)
        })?;
        let biased = match self.bias {
            Bias::None => Vec::new(),
            Bias::All => g.sites()?,
            Bias::VeraOnly => sites,
        };
        biased.iter().filter_map(|s| s.bias.as_deref()).try_for_each(|b| g.train_base(b).map(drop))
    }
}

/// What all modules share.
struct Projections {
    /// `A` `[r, widest_in]`.
    a: Value,
    /// `B` `[widest_out, r]`.
    b: Value,
    widest_in: u64,
    widest_out: u64,
}

impl Vera {
    /// `A` and `B`, as wide as the widest module needs. PEFT draws both from one generator, `A` first.
    fn projections(&self, g: &Graph<'_>, sites: &[Site]) -> Result<Projections> {
        let widest_in = sites.iter().map(|s| s.in_features).max().unwrap_or(0);
        let widest_out = sites.iter().map(|s| s.out_features).max().unwrap_or(0);
        let drawn = |name, shape: [u64; 2], skip| {
            // torch's `kaiming_uniform_`.
            let bound = 3f64.sqrt() * (2f64.sqrt() / (shape[1] as f64).sqrt());
            let seed = self.projection_prng_key;
            let spec =
                ParamSpec::new(name, &shape).init(Init::Torch { seed, skip, bound }).paddable(0).paddable(1);
            g.param(if self.save_projection { spec.fixed() } else { spec.implied() })
        };
        let a = drawn("vera_A", [self.r, widest_in], 0)?;
        let b = drawn("vera_B", [widest_out, self.r], self.r.saturating_mul(widest_in))?;
        Ok(Projections { a, b, widest_in, widest_out })
    }
}

/// The first `count` of a matrix' `all` rows (`axis` 0) or columns (`axis` 1).
fn first(g: &Graph<'_>, matrix: Value, axis: i64, count: u64, all: u64) -> Result<Value> {
    if count == all {
        return Ok(matrix);
    }
    let end = i64::try_from(count).unwrap_or(i64::MAX);
    g.emit("Slice", &[matrix, g.ints(&[0])?, g.ints(&[end])?, g.ints(&[axis])?], &[])
}

export_plugin! { id: "vera", methods: [Vera], objectives: [] }
