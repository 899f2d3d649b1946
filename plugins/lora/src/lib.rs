//! LoRA: `W x` becomes `W x + (alpha / r) · B A x` with `A` `[r, in]` and `B` `[out, r]` (Hu et al. 2021,
//! "LoRA: Low-Rank Adaptation of Large Language Models"). Beside a convolution, `A` is a convolution that moves as the
//! base's does, and `B` one of kernel 1. With DoRA the whole is scaled to a learned magnitude (see [`dora`]). Names,
//! shapes, defaults and starting values are those of Hugging Face PEFT.

mod conv;
mod dora;
mod embedding;
mod plus;

use graft_plugin_api::*;

config! {
    /// LoRA: a low-rank update beside each chosen linear layer, convolution or embedding.
    pub struct Lora {
        /// Rank of the update.
        r: u64 = 8,
        /// The update is scaled by `alpha / r`.
        #[serde(alias = "lora_alpha")]
        alpha: f32 = 16.0,
        /// Dropout on the input of the update, while training.
        #[serde(alias = "lora_dropout")]
        dropout: f32 = 0.0,
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
        /// Scale by `alpha / sqrt(r)` instead (rank-stabilised LoRA, Kalajdzievski 2023).
        use_rslora: bool = false,
        /// Learn direction and magnitude of each weight apart (weight-decomposed LoRA, Liu et al. 2024).
        use_dora: bool = false,
        /// Which biases of the base to train as well.
        bias: Bias = Bias::None,
        /// LoRA+ (Hayou et al. 2024): `B` and every trained vector learn with this multiple of the learning rate.
        loraplus_lr_ratio: Option<f64> = None,
        /// LoRA+: what the update of an embedding learns with; without it 1e-6, as in PEFT.
        loraplus_lr_embedding: Option<f64> = None,
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
    LoraOnly,
}

impl Method for Lora {
    const ID: &'static str = "lora";
    const SUMMARY: &'static str = "low-rank update of linear, conv and embedding layers (LoRA, rsLoRA, DoRA)";

    fn check(&self) -> Result<()> {
        if self.r == 0 {
            return fail!(CONFIG, "option `r`: a rank of 0 has no parameters");
        }
        if !self.alpha.is_finite() {
            return fail!(CONFIG, "option `alpha`: {} is not a number to scale by", self.alpha);
        }
        self.rank_pattern.check_ranks("rank_pattern")?;
        self.alpha_pattern.check("alpha_pattern", f64::is_finite, "a number to scale by")?;
        if !(0.0..1.0).contains(&self.dropout) {
            return fail!(CONFIG, "option `dropout`: {} is not in [0, 1)", self.dropout);
        }
        self.check_plus()
    }

    fn examples() -> Vec<(&'static str, Self)> {
        let all = Some(Names::Pattern("all-linear".to_owned()));
        vec![
            ("query and value, as PEFT does by default", Self::default()),
            ("every linear layer", Self { target_modules: all.clone(), ..Self::default() }),
            ("direction and magnitude apart (DoRA)", Self { use_dora: true, ..Self::default() }),
            ("B learns faster than A (LoRA+)", Self { loraplus_lr_ratio: Some(16.0), ..Self::default() }),
            ("a high rank", Self { r: 64, use_rslora: true, target_modules: all, ..Self::default() }),
        ]
    }

    fn apply(&self, g: &Graph<'_>) -> Result<()> {
        let sites = self.sites(g)?;
        let scale = |r: u64, alpha: f32| alpha / if self.use_rslora { (r as f32).sqrt() } else { r as f32 };
        let alike = self.rank_pattern.is_empty() && self.alpha_pattern.is_empty();
        let shared = if alike { Some(g.setting("scaling", scale(self.r, self.alpha))?) } else { None };
        g.each(&sites, |site| {
            let r = self.rank_pattern.number(&site.path)?.map_or(self.r, |rank| rank as u64);
            let alpha = self.alpha_pattern.number(&site.path)?.map_or(self.alpha, |alpha| alpha as f32);
            let scaling = shared.map_or_else(|| g.setting_at(site, "scaling", scale(r, alpha)), Ok)?;
            let update = match site.kind {
                SiteKind::CONV => self.conv(g, site, r, scaling)?,
                SiteKind::EMBEDDING => self.embedding(g, site, r, scaling)?,
                _ => self.linear(g, site, r, scaling)?,
            };
            self.rate(g, site, &update)?;
            let output = site.output()?;
            let adapted = if self.use_dora {
                dora::apply(g, site, &update, scaling)?
            } else {
                g.add(output, update.added)?
            };
            g.replace_output(site, adapted)
        })?;
        let biased = match self.bias {
            Bias::None => Vec::new(),
            Bias::All => g.sites()?,
            Bias::LoraOnly => sites,
        };
        self.rate_vectors(g)?;
        biased.iter().filter_map(|s| s.bias.as_deref()).try_for_each(|b| g.train_base(b).map(drop))
    }
}

/// The update beside a module.
struct Update {
    /// What is added to the output: `s · B A x`.
    added: Value,
    /// What enters `A`, where dropout has made it another value than the module's input.
    dropped: Option<Value>,
    /// `A` `[r, in, …]`.
    a: Value,
    /// `B` `[out, r, …]`.
    b: Value,
}

impl Lora {
    /// The sites that are updated.
    fn sites(&self, g: &Graph<'_>) -> Result<Vec<Site>> {
        let selection = Selection {
            targets: self.target_modules.as_ref(),
            exclude: self.exclude_modules.as_ref(),
            kinds: &[SiteKind::LINEAR, SiteKind::CONV, SiteKind::EMBEDDING],
        };
        g.select_in_layers(&selection, self.layers_to_transform.as_deref(), self.layers_pattern.as_deref())
    }

    fn linear(&self, g: &Graph<'_>, site: &Site, r: u64, scaling: Value) -> Result<Update> {
        let a = ParamSpec::new("lora_A.weight", &[r, site.in_features])
            .init(Init::KaimingUniform(5f64.sqrt()))
            .paddable(0);
        let b = ParamSpec::new("lora_B.weight", &[site.out_features, r]).paddable(1);
        let (a, b) = (g.param(a.site(&site.path))?, g.param(b.site(&site.path))?);
        let (x, dropped) = self.dropped(g, site)?;
        // The scale goes onto the narrow activation: the product is the same and the work is less.
        let narrow = g.mul(g.linear(x, a, None)?, scaling)?;
        Ok(Update { added: g.linear(narrow, b, None)?, dropped, a, b })
    }

    /// What enters the update, and the same where it is not what enters the module.
    fn dropped(&self, g: &Graph<'_>, site: &Site) -> Result<(Value, Option<Value>)> {
        let input = site.input()?;
        let x = g.dropout(input, self.dropout, "lora_dropout")?;
        Ok((x, (x != input).then_some(x)))
    }
}

export_plugin! { id: "lora", methods: [Lora], objectives: [] }
