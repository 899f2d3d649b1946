//! LoRA: `W x` becomes `W x + (alpha / r) · B A x` with `A` `[r, in]` and `B` `[out, r]` (Hu et al. 2021,
//! "LoRA: Low-Rank Adaptation of Large Language Models"). Beside a convolution, `A` is a convolution that moves as the
//! base's does, and `B` one of kernel 1. Names, shapes, defaults and starting values are those of Hugging Face PEFT.

use graft_plugin_api::*;

config! {
    /// LoRA: a low-rank update beside each chosen linear layer or convolution.
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
        /// Scale by `alpha / sqrt(r)` instead (rank-stabilised LoRA, Kalajdzievski 2023).
        use_rslora: bool = false,
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
    LoraOnly,
}

impl Method for Lora {
    const ID: &'static str = "lora";
    const SUMMARY: &'static str = "low-rank update of linear and conv layers (LoRA, rsLoRA)";

    fn check(&self) -> Result<()> {
        if self.r == 0 {
            return fail!(CONFIG, "option `r`: a rank of 0 has no parameters");
        }
        if !self.alpha.is_finite() {
            return fail!(CONFIG, "option `alpha`: {} is not a number to scale by", self.alpha);
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
            ("every linear layer", Self { target_modules: all.clone(), ..Self::default() }),
            ("a high rank", Self { r: 64, use_rslora: true, target_modules: all, ..Self::default() }),
        ]
    }

    fn apply(&self, g: &Graph<'_>) -> Result<()> {
        let sites = g.select(&Selection {
            targets: self.target_modules.as_ref(),
            exclude: self.exclude_modules.as_ref(),
            kinds: &[SiteKind::LINEAR, SiteKind::CONV],
        })?;
        let r = self.r as f32;
        let scaling = g.setting("scaling", self.alpha / if self.use_rslora { r.sqrt() } else { r })?;
        g.each(&sites, |site| {
            if site.kind == SiteKind::CONV {
                return g.replace_output(site, g.add(site.output()?, self.conv(g, site, scaling)?)?);
            }
            let a = ParamSpec::new("lora_A.weight", &[self.r, site.in_features])
                .init(Init::KaimingUniform(5f64.sqrt()))
                .paddable(0);
            let b = ParamSpec::new("lora_B.weight", &[site.out_features, self.r]).paddable(1);
            let (a, b) = (g.param(a.site(&site.path))?, g.param(b.site(&site.path))?);
            let x = g.dropout(site.input()?, self.dropout, "lora_dropout")?;
            // The scale goes onto the narrow activation: the product is the same and the work is less.
            let narrow = g.mul(g.linear(x, a, None)?, scaling)?;
            g.replace_output(site, g.add(site.output()?, g.linear(narrow, b, None)?)?)
        })?;
        let biased = match self.bias {
            Bias::None => Vec::new(),
            Bias::All => g.sites()?,
            Bias::LoraOnly => sites,
        };
        biased.iter().filter_map(|s| s.bias.as_deref()).try_for_each(|b| g.train_base(b).map(drop))
    }
}

impl Lora {
    /// The update beside a convolution. As in PEFT, `A` sees all channels whatever the groups of the base are, and `B`
    /// has the base's groups.
    fn conv(&self, g: &Graph<'_>, site: &Site, scaling: Value) -> Result<Value> {
        let c = site.conv()?;
        if c.dilations.iter().any(|d| *d != 1) {
            let e =
                Error::new(Code::UNSUPPORTED, "PEFT's LoRA has no update for a convolution with dilations");
            return Err(e.help("leave the module out with `exclude_modules`"));
        }
        let group = u64::try_from(c.group).unwrap_or(0);
        if group == 0 || !self.r.is_multiple_of(group) {
            let e = Error::new(
                Code::CONFIG,
                format!("a rank of {} does not divide by {} groups", self.r, c.group),
            );
            return Err(e.help("choose another `r`, or leave the module out with `exclude_modules`"));
        }
        let extents = c.kernel.iter().map(|k| u64::try_from(*k).unwrap_or(0));
        let shape: Vec<u64> = [self.r, site.in_features].into_iter().chain(extents).collect();
        let a =
            ParamSpec::new("lora_A.weight", &shape).init(Init::KaimingUniform(5f64.sqrt())).site(&site.path);
        let ones = vec![1; c.kernel.len()];
        let shape: Vec<u64> = [site.out_features, self.r / group].into_iter().chain(ones).collect();
        let b = ParamSpec::new("lora_B.weight", &shape).site(&site.path);
        // Channels may be added to the update only where no group cuts them apart.
        let (a, b) = if group == 1 { (a.paddable(0), b.paddable(1)) } else { (a, b) };
        let (a, b) = (g.param(a)?, g.param(b)?);
        let x = g.dropout(site.input()?, self.dropout, "lora_dropout")?;
        let mut attrs = vec![attr("kernel_shape", &c.kernel[..]), attr("strides", &c.strides[..])];
        attrs.push(match c.auto_pad.as_str() {
            "NOTSET" => attr("pads", &c.pads[..]),
            rule => attr("auto_pad", rule),
        });
        let narrow = g.mul(g.emit("Conv", &[x, a], &attrs)?, scaling)?;
        g.emit("Conv", &[narrow, b], &[attr("group", c.group)])
    }
}

export_plugin! { id: "lora", methods: [Lora], objectives: [] }
