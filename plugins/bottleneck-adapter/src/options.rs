//! The options, by the names that AdapterHub's configurations have.

use std::fmt;

use graft_plugin_api::*;

config! {
    /// Bottleneck adapters: small nets inside each layer. What is left out is as the variant has it.
    pub struct BottleneckAdapter {
        /// Where they are and what goes around them.
        variant: Variant = Variant::SeqBn,
        /// The layer's width is divided by this inside of the adapter. `seq_bn` and `double_seq_bn` have 16, `par_bn` 2.
        reduction_factor: Option<f32> = None,
        /// What is between the two layers of the adapter. `double_seq_bn` has `swish`, the others `relu`.
        non_linearity: Option<NonLinearity> = None,
        /// What the adapter's output is multiplied by: a number, `learned`, or `channel` for one of each feature. `par_bn`
        /// has 4, the others 1.
        scaling: Option<Scaling> = None,
        /// Dropout on the adapter's output, while training.
        dropout: f32 = 0.0,
        /// A layer norm of its own in front of the adapter.
        ln_before: bool = false,
        /// A layer norm of its own behind the adapter.
        ln_after: bool = false,
        /// Adapters after attention; `double_seq_bn` has them.
        mh_adapter: Option<bool> = None,
        /// Adapters after attention to another sequence.
        cross_adapter: bool = false,
        /// Adapters after feed-forward layers; all variants have them.
        output_adapter: Option<bool> = None,
        /// The adapter reads what the part of the layer read, instead of what it gave; `par_bn` has it so.
        is_parallel: Option<bool> = None,
        /// The base's residual connection and layer norm also stand in front of the adapter; `seq_bn` has them there.
        original_ln_before: Option<bool> = None,
        /// They stand behind the adapter; all variants have them there.
        original_ln_after: Option<bool> = None,
        /// What goes around the adapter is taken in front of this layer norm: `true` before the base's residual
        /// connection too, `post_add` between both, `false` behind both.
        residual_before_ln: Option<ResidualBeforeLn> = None,
        /// It is added in front of the adapter's own layer norm behind it, instead of behind that.
        adapter_residual_before_ln: bool = false,
        /// Numbers of layers without adapters, from 0.
        leave_out: Vec<u64> = Vec::new(),
        /// How the weights start: `bert`, or `mam_adapter`, which does nothing at first and which `par_bn` has.
        init_weights: Option<InitWeights> = None,
    }
}

/// An enum as a config has one: words for its values.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$word_meta:meta])* $word:ident),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
        #[serde(crate = "graft_plugin_api::serde", rename_all = "snake_case")]
        #[schemars(crate = "graft_plugin_api::schemars")]
        pub enum $name { $($(#[$word_meta])* $word),* }
    };
}

words! {
    /// AdapterHub's configurations of bottleneck adapters.
    Variant {
        /// After the feed-forward layers (Pfeiffer et al. 2021).
        SeqBn,
        /// After attention and after the feed-forward layers (Houlsby et al. 2019).
        DoubleSeqBn,
        /// Beside the feed-forward layers (He et al. 2022).
        ParBn,
    }
}

words! {
    /// What is between the adapter's two layers.
    NonLinearity {
        /// max(x, 0).
        Relu,
        /// Gelu with the error function.
        Gelu,
        /// Gelu with a hyperbolic tangent.
        GeluNew,
        /// x · sigmoid(x).
        #[serde(alias = "silu")]
        Swish,
        /// Hyperbolic tangent.
        Tanh,
        /// 1 / (1 + exp(−x)).
        Sigmoid,
        /// x, or 0.01 · x below zero.
        Leakyrelu,
        /// Nothing.
        Linear,
    }
}

words! {
    /// How weights start.
    InitWeights {
        /// Normal with standard deviation 0.02, biases 0.
        Bert,
        /// Uniform as in LoRA's `A`, and 0 in the second layer.
        MamAdapter,
    }
}

words! {
    /// A word in the place of a number.
    ScalingWord {
        /// One number, learned.
        Learned,
        /// One for each feature, learned.
        Channel,
    }
}

/// What the adapter's output is multiplied by.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(crate = "graft_plugin_api::serde", untagged)]
#[schemars(crate = "graft_plugin_api::schemars")]
pub enum Scaling {
    /// A number.
    Number(f32),
    /// A learned one.
    Word(ScalingWord),
}

impl Scaling {
    /// One learned number.
    pub fn learned() -> Scaling {
        Scaling::Word(ScalingWord::Learned)
    }

    /// The shape of what is learned, for outputs of this width; `None` for a number.
    pub fn learned_shape(self, width: u64) -> Option<[u64; 1]> {
        match self {
            Scaling::Number(_) => None,
            Scaling::Word(ScalingWord::Learned) => Some([1]),
            Scaling::Word(ScalingWord::Channel) => Some([width]),
        }
    }
}

impl fmt::Display for Scaling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scaling::Number(n) => write!(f, "{n}"),
            Scaling::Word(w) => write!(f, "{w:?}"),
        }
    }
}

/// Where what goes around the adapter is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResidualBeforeLn {
    /// What the part of the layer gave.
    Before,
    /// Between the base's residual connection and its layer norm.
    PostAdd,
    /// What enters the adapter.
    Behind,
}

/// As AdapterHub writes it: a boolean or `post_add`.
#[derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(crate = "graft_plugin_api::serde", untagged)]
#[schemars(crate = "graft_plugin_api::schemars")]
enum Written {
    Plain(bool),
    Word(PostAdd),
}

#[derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(crate = "graft_plugin_api::serde", rename_all = "snake_case")]
#[schemars(crate = "graft_plugin_api::schemars")]
enum PostAdd {
    PostAdd,
}

impl From<Written> for ResidualBeforeLn {
    fn from(w: Written) -> ResidualBeforeLn {
        match w {
            Written::Plain(true) => ResidualBeforeLn::Before,
            Written::Plain(false) => ResidualBeforeLn::Behind,
            Written::Word(PostAdd::PostAdd) => ResidualBeforeLn::PostAdd,
        }
    }
}

impl serde::Serialize for ResidualBeforeLn {
    fn serialize<S: serde::Serializer>(&self, s: S) -> std::result::Result<S::Ok, S::Error> {
        let written = match self {
            ResidualBeforeLn::Before => Written::Plain(true),
            ResidualBeforeLn::Behind => Written::Plain(false),
            ResidualBeforeLn::PostAdd => Written::Word(PostAdd::PostAdd),
        };
        serde::Serialize::serialize(&written, s)
    }
}

impl<'de> serde::Deserialize<'de> for ResidualBeforeLn {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        <Written as serde::Deserialize>::deserialize(d).map(Into::into)
    }
}

impl schemars::JsonSchema for ResidualBeforeLn {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ResidualBeforeLn".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        <Written as schemars::JsonSchema>::json_schema(generator)
    }
}

/// The options with the variant's own where they were left out.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Resolved {
    pub reduction_factor: f32,
    pub non_linearity: NonLinearity,
    pub scaling: Scaling,
    pub dropout: f32,
    pub ln_before: bool,
    pub ln_after: bool,
    pub mh_adapter: bool,
    pub cross_adapter: bool,
    pub output_adapter: bool,
    pub is_parallel: bool,
    pub original_ln_before: bool,
    pub original_ln_after: bool,
    pub residual_before_ln: ResidualBeforeLn,
    pub adapter_residual_before_ln: bool,
    pub leave_out: Vec<u64>,
    pub init_weights: InitWeights,
}

impl BottleneckAdapter {
    pub(crate) fn resolved(&self) -> Resolved {
        let (pfeiffer, houlsby) = (self.variant == Variant::SeqBn, self.variant == Variant::DoubleSeqBn);
        let parallel = self.variant == Variant::ParBn;
        let between = if houlsby { NonLinearity::Swish } else { NonLinearity::Relu };
        let init = if parallel { InitWeights::MamAdapter } else { InitWeights::Bert };
        Resolved {
            reduction_factor: self.reduction_factor.unwrap_or(if parallel { 2.0 } else { 16.0 }),
            non_linearity: self.non_linearity.unwrap_or(between),
            scaling: self.scaling.unwrap_or(Scaling::Number(if parallel { 4.0 } else { 1.0 })),
            dropout: self.dropout,
            ln_before: self.ln_before,
            ln_after: self.ln_after,
            mh_adapter: self.mh_adapter.unwrap_or(houlsby),
            cross_adapter: self.cross_adapter,
            output_adapter: self.output_adapter.unwrap_or(true),
            is_parallel: self.is_parallel.unwrap_or(parallel),
            original_ln_before: self.original_ln_before.unwrap_or(pfeiffer),
            original_ln_after: self.original_ln_after.unwrap_or(true),
            residual_before_ln: self.residual_before_ln.unwrap_or(ResidualBeforeLn::Before),
            adapter_residual_before_ln: self.adapter_residual_before_ln,
            leave_out: self.leave_out.clone(),
            init_weights: self.init_weights.unwrap_or(init),
        }
    }
}

impl Resolved {
    /// Whether an adapter goes to this site.
    pub(crate) fn takes(&self, site: &Site) -> bool {
        let part = site.residual.is_some_and(|r| match r.sublayer {
            Sublayer::ATTENTION => self.mh_adapter,
            Sublayer::CROSS_ATTENTION => self.cross_adapter,
            Sublayer::FEED_FORWARD => self.output_adapter,
            _ => false,
        });
        let number = site.path.split('.').find_map(|segment| segment.parse::<u64>().ok());
        part && number.is_none_or(|n| !self.leave_out.contains(&n))
    }

    /// The width inside of the adapter.
    pub(crate) fn width(&self, of: u64) -> u64 {
        // As Python's `//` on floats.
        ((of as f64 / f64::from(self.reduction_factor)).floor() as u64).max(1)
    }
}
