//! Messages of the graph builder.

use prost::Message;

use super::{Attr, Dim, Tensor};

/// Values of the graph, by the host's number for them. 0 stands for an optional input that is left out.
#[derive(Clone, PartialEq, Message)]
pub struct Values {
    /// The numbers.
    #[prost(uint64, repeated, tag = "1")]
    pub ids: Vec<u64>,
}

/// A new node.
#[derive(Clone, PartialEq, Message)]
pub struct Emit {
    /// Operator.
    #[prost(string, tag = "1")]
    pub op: String,
    /// Domain; empty for ONNX's own.
    #[prost(string, tag = "2")]
    pub domain: String,
    /// Inputs; 0 is an optional one that is left out.
    #[prost(uint64, repeated, tag = "3")]
    pub inputs: Vec<u64>,
    /// Attributes.
    #[prost(message, repeated, tag = "4")]
    pub attrs: Vec<Attr>,
    /// Number of outputs.
    #[prost(uint32, tag = "5")]
    pub outputs: u32,
    /// The site that is being worked on; may be empty.
    #[prost(string, tag = "6")]
    pub site: String,
    /// `file:line` in the plugin's sources that asks for it; empty from older plugins.
    #[prost(string, tag = "7")]
    pub place: String,
}

/// A value through which no gradient is to flow. The tag of the value is that of [`Values`], which older plugins send.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct StopGradient {
    /// The value, alone.
    #[prost(uint64, repeated, tag = "1")]
    pub ids: Vec<u64>,
    /// As in [`Emit`].
    #[prost(string, tag = "2")]
    pub place: String,
}

/// How a parameter or state starts.
#[derive(Clone, PartialEq, Message)]
pub struct Init {
    /// See [`crate::Init`]: 0 zeros, 1 ones, 2 normal, 3 uniform, 4 Kaiming uniform, 5 Xavier uniform, 6 given, 7 full,
    /// 8 computed, 9 rows of a table, 10 uniform as PyTorch draws it.
    #[prost(uint32, tag = "1")]
    pub kind: u32,
    /// Standard deviation, bound, `a` or fill value.
    #[prost(double, tag = "2")]
    pub value: f64,
    /// The values, for kind 6.
    #[prost(message, optional, tag = "3")]
    pub tensor: Option<Tensor>,
    /// The graph's value, for kind 8.
    #[prost(uint64, tag = "4")]
    pub computed: u64,
    /// Name of the initializer, for kind 9.
    #[prost(string, tag = "5")]
    pub table: String,
    /// The text whose rows are meant, for kind 9; without it they are drawn.
    #[prost(string, optional, tag = "6")]
    pub text: Option<String>,
    /// Seed of PyTorch's generator, for kind 10.
    #[prost(uint64, tag = "7")]
    pub seed: u64,
    /// How many numbers it gave before, for kind 10.
    #[prost(uint64, tag = "8")]
    pub skip: u64,
}

/// A parameter.
#[derive(Clone, PartialEq, Message)]
pub struct Param {
    /// Key within its site as PEFT has it (`lora_A.weight`), or the whole key for a head (`classifier.weight`).
    #[prost(string, tag = "1")]
    pub key: String,
    /// Path of the site; empty for a head or a parameter of the whole model.
    #[prost(string, tag = "2")]
    pub site: String,
    /// Element type, ONNX's number.
    #[prost(uint32, tag = "3")]
    pub dtype: u32,
    /// Dimensions.
    #[prost(uint64, repeated, tag = "4")]
    pub shape: Vec<u64>,
    /// How it starts.
    #[prost(message, optional, tag = "5")]
    pub init: Option<Init>,
    /// The value that makes the adapter do nothing.
    #[prost(message, optional, tag = "6")]
    pub neutral: Option<Init>,
    /// Axes that may be padded with zeros without changing the result.
    #[prost(uint32, repeated, tag = "7")]
    pub paddable: Vec<u32>,
    /// False: never decayed. True: decayed unless it is a bias or a norm (rank 1).
    #[prost(bool, tag = "8")]
    pub decay: bool,
    /// 0 adapter, 1 head.
    #[prost(uint32, tag = "9")]
    pub role: u32,
    /// 0 trained and held by the adapter, 1 fixed and held, 2 fixed and not held.
    #[prost(uint32, tag = "11")]
    pub course: u32,
    /// `file:line` in the plugin's sources that declares it; empty from older plugins.
    #[prost(string, tag = "10")]
    pub place: String,
}

/// A number of the config that enters the maths.
#[derive(Clone, PartialEq, Message)]
pub struct Setting {
    /// Name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Value.
    #[prost(float, tag = "2")]
    pub value: f32,
    /// Path of the site it belongs to; empty for the whole adapter.
    #[prost(string, tag = "3")]
    pub site: String,
}

/// What is carried from step to step without a gradient.
#[derive(Clone, PartialEq, Message)]
pub struct State {
    /// Name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Element type, ONNX's number.
    #[prost(uint32, tag = "2")]
    pub dtype: u32,
    /// Dimensions.
    #[prost(uint64, repeated, tag = "3")]
    pub shape: Vec<u64>,
    /// How it starts.
    #[prost(message, optional, tag = "4")]
    pub init: Option<Init>,
}

/// A name, and a value where the operation needs one.
#[derive(Clone, PartialEq, Message)]
pub struct Named {
    /// The name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The value, 0 for none.
    #[prost(uint64, tag = "2")]
    pub value: u64,
}

/// An input that the host fills from seed, step and name.
#[derive(Clone, PartialEq, Message)]
pub struct Noise {
    /// Name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Path of the site it belongs to; may be empty.
    #[prost(string, tag = "2")]
    pub site: String,
    /// Dimensions.
    #[prost(message, repeated, tag = "3")]
    pub shape: Vec<Dim>,
    /// 0 uniform in [a, b), 1 normal with mean a and deviation b, 2 Bernoulli: b with probability a, else 0.
    #[prost(uint32, tag = "4")]
    pub kind: u32,
    /// First number of the distribution.
    #[prost(float, tag = "5")]
    pub a: f32,
    /// Second number of the distribution.
    #[prost(float, tag = "6")]
    pub b: f32,
}

/// A named input of the graph that `collate` fills.
#[derive(Clone, PartialEq, Message)]
pub struct Input {
    /// Name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Element type, ONNX's number.
    #[prost(uint32, tag = "2")]
    pub dtype: u32,
    /// Dimensions.
    #[prost(message, repeated, tag = "3")]
    pub shape: Vec<Dim>,
}

/// A named module of the base.
#[derive(Clone, PartialEq, Message)]
pub struct Site {
    /// Path, such as `encoder.layer.0.attention.self.query`.
    #[prost(string, tag = "1")]
    pub path: String,
    /// See [`crate::SiteKind`].
    #[prost(uint32, tag = "2")]
    pub kind: u32,
    /// Value that enters it.
    #[prost(uint64, tag = "3")]
    pub input: u64,
    /// Value that leaves it, behind the bias.
    #[prost(uint64, tag = "4")]
    pub output: u64,
    /// Name of the weight's initializer; may be empty.
    #[prost(string, tag = "5")]
    pub weight: String,
    /// Name of the bias' initializer; may be empty.
    #[prost(string, tag = "6")]
    pub bias: String,
    /// Width of the input; 0 when it has none.
    #[prost(uint64, tag = "7")]
    pub in_features: u64,
    /// Width of the output; 0 when it has none.
    #[prost(uint64, tag = "8")]
    pub out_features: u64,
    /// True when the weight lies as `[in, out]`, false for PyTorch's `[out, in]`.
    #[prost(bool, tag = "9")]
    pub transposed: bool,
    /// The host's number for this use of the module, from 1: a module that is called twice is two sites of one path.
    #[prost(uint32, tag = "10")]
    pub number: u32,
    /// For a convolution.
    #[prost(message, optional, tag = "11")]
    pub conv: Option<Conv>,
    /// For the core of an attention module.
    #[prost(message, optional, tag = "12")]
    pub attention: Option<Attention>,
    /// For a residual connection.
    #[prost(message, optional, tag = "13")]
    pub residual: Option<Residual>,
}

/// A residual connection: what part of a layer it belongs to, and what follows.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Residual {
    /// See [`crate::Sublayer`].
    #[prost(uint32, tag = "1")]
    pub sublayer: u32,
    /// Number of the norm site that takes the sum and that nothing else of it bypasses; 0 where there is none.
    #[prost(uint32, tag = "2")]
    pub norm: u32,
}

/// What meets in an attention module.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Attention {
    /// Queries `[batch, heads, queries, head_dim]` as they enter the scores.
    #[prost(uint64, tag = "1")]
    pub query: u64,
    /// Keys `[batch, kv_heads, keys, head_dim]` as they enter the scores, one for each head of keys.
    #[prost(uint64, tag = "2")]
    pub key: u64,
    /// Values `[batch, kv_heads, keys, value_dim]`.
    #[prost(uint64, tag = "3")]
    pub value: u64,
    /// What is added to the scores, masks included; 0 for nothing.
    #[prost(uint64, tag = "4")]
    pub bias: u64,
    /// Heads of queries.
    #[prost(uint64, tag = "5")]
    pub heads: u64,
    /// Heads of keys and values.
    #[prost(uint64, tag = "6")]
    pub kv_heads: u64,
    /// Width of a head of queries and keys.
    #[prost(uint64, tag = "7")]
    pub head_dim: u64,
    /// Width of a head of values.
    #[prost(uint64, tag = "8")]
    pub value_dim: u64,
}

/// How a convolution's kernel moves over its input.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Conv {
    /// Extents of the kernel.
    #[prost(int64, repeated, tag = "1")]
    pub kernel: Vec<i64>,
    /// Steps along each axis.
    #[prost(int64, repeated, tag = "2")]
    pub strides: Vec<i64>,
    /// Padding before each axis, then behind each.
    #[prost(int64, repeated, tag = "3")]
    pub pads: Vec<i64>,
    /// Distances between the kernel's elements.
    #[prost(int64, repeated, tag = "4")]
    pub dilations: Vec<i64>,
    /// Groups of channels that do not see each other.
    #[prost(int64, tag = "5")]
    pub group: i64,
    /// `NOTSET`, or the rule that decides the padding instead of `pads`, as ONNX has it.
    #[prost(string, tag = "6")]
    pub auto_pad: String,
}

/// The sites of the base.
#[derive(Clone, PartialEq, Message)]
pub struct Sites {
    /// In graph order.
    #[prost(message, repeated, tag = "1")]
    pub sites: Vec<Site>,
}

/// A site gets another input or output.
#[derive(Clone, PartialEq, Message)]
pub struct Replace {
    /// The site's number.
    #[prost(uint32, tag = "1")]
    pub site: u32,
    /// The value from now on.
    #[prost(uint64, tag = "2")]
    pub value: u64,
}

/// An attention site gets other keys, values and another bias, together: they may be longer than before.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ReplaceAttention {
    /// The site's number.
    #[prost(uint32, tag = "1")]
    pub site: u32,
    /// The keys from now on.
    #[prost(uint64, tag = "2")]
    pub key: u64,
    /// The values from now on.
    #[prost(uint64, tag = "3")]
    pub value: u64,
    /// The bias from now on; 0 leaves it.
    #[prost(uint64, tag = "4")]
    pub bias: u64,
}

/// Every row of the base begins with virtual tokens.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct VirtualTokens {
    /// How many.
    #[prost(uint64, tag = "1")]
    pub count: u64,
    /// Whether they stay in what the base puts out.
    #[prost(bool, tag = "2")]
    pub kept: bool,
}

/// What stands at the virtual tokens of a value.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct PutVirtual {
    /// The value, whose axis 0 is the batch.
    #[prost(uint64, tag = "1")]
    pub value: u64,
    /// What stands there in every row: the value's shape without the batch, with as many entries along the axis as
    /// there are virtual tokens.
    #[prost(uint64, tag = "2")]
    pub rows: u64,
    /// The value's axis of tokens.
    #[prost(uint32, tag = "3")]
    pub axis: u32,
}

/// Yes or no.
#[derive(Clone, PartialEq, Message)]
pub struct Flag {
    /// The answer.
    #[prost(bool, tag = "1")]
    pub value: bool,
}

/// A line for the log.
#[derive(Clone, PartialEq, Message)]
pub struct Log {
    /// 1 error, 2 warning, 3 information, 4 debug, 5 trace.
    #[prost(uint32, tag = "1")]
    pub level: u32,
    /// What to say.
    #[prost(string, tag = "2")]
    pub message: String,
}

/// Asks for random numbers.
#[derive(Clone, PartialEq, Message)]
pub struct Random {
    /// Seed.
    #[prost(uint64, tag = "1")]
    pub seed: u64,
    /// Stream.
    #[prost(string, tag = "2")]
    pub name: String,
    /// How many.
    #[prost(uint64, tag = "3")]
    pub count: u64,
}

/// Which sites a pattern took.
#[derive(Clone, PartialEq, Message)]
pub struct Matched {
    /// Taken, in graph order.
    #[prost(string, repeated, tag = "1")]
    pub matched: Vec<String>,
    /// Of the same kinds, but left.
    #[prost(string, repeated, tag = "2")]
    pub unmatched: Vec<String>,
    /// The pattern in words.
    #[prost(string, tag = "3")]
    pub pattern: String,
}
