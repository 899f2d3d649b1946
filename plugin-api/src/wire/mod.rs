//! The messages that cross the boundary, protobuf encoded. Fields are only ever added, with new tags; unknown ones are
//! skipped, so an older side reads what a newer one writes.

mod graph;
mod objective;
mod rates;
mod solve;
mod tensor;

pub use graph::*;
pub use objective::*;
pub use rates::*;
pub use solve::*;
pub use tensor::*;

pub use prost::Message;

/// Operations of the plugin, as numbers that never change their meaning.
pub mod plugin_op {
    /// [`Hello`](super::Hello) → [`Hello`](super::Hello): which extensions the other side has.
    pub const HELLO: u32 = 1;
    /// [`Create`](super::Create) → [`Created`](super::Created): an instance with a checked config.
    pub const CREATE: u32 = 2;
    /// Forgets the instance.
    pub const DROP: u32 = 3;
    /// A method writes its maths into the graph. Empty → empty.
    pub const APPLY: u32 = 10;
    /// Empty → [`Fields`](super::Fields).
    pub const FIELDS: u32 = 20;
    /// [`Summary`](super::Summary) → [`Json`](super::Json): the config with what the data decided.
    pub const PREPARE: u32 = 21;
    /// [`Collate`](super::Collate) → [`Tensors`](super::Tensors).
    pub const COLLATE: u32 = 22;
    /// Empty → [`Built`](super::Built).
    pub const BUILD: u32 = 23;
    /// [`Tensors`](super::Tensors) → [`Metrics`](super::Metrics).
    pub const METRICS: u32 = 24;
    /// [`Tensors`](super::Tensors) → [`Answers`](super::Answers).
    pub const DECODE: u32 = 25;
    /// [`Tensors`](super::Tensors) → [`Json`](super::Json): the config with what outputs on evaluation data decided.
    pub const CALIBRATE: u32 = 26;

    /// What an operation is called in messages.
    pub fn name(op: u32) -> &'static str {
        match op {
            HELLO => "hello",
            CREATE => "configure",
            DROP => "drop",
            APPLY => "apply",
            FIELDS => "fields",
            PREPARE => "prepare",
            COLLATE => "collate",
            BUILD => "build",
            METRICS => "metrics",
            DECODE => "decode",
            CALIBRATE => "calibrate",
            _ => "an unknown operation",
        }
    }
}

/// Operations of the host, as numbers that never change their meaning.
pub mod host_op {
    /// [`Emit`](super::Emit) → [`Values`](super::Values).
    pub const EMIT: u32 = 1;
    /// [`Tensor`](super::Tensor) → [`Values`](super::Values).
    pub const CONSTANT: u32 = 2;
    /// [`Values`](super::Values) of one → [`Fact`](super::Fact).
    pub const FACT: u32 = 3;
    /// [`Param`](super::Param) → [`Values`](super::Values).
    pub const PARAM: u32 = 4;
    /// [`Setting`](super::Setting) → [`Values`](super::Values).
    pub const SETTING: u32 = 5;
    /// [`State`](super::State) → [`Values`](super::Values).
    pub const STATE: u32 = 6;
    /// [`Named`](super::Named): the next value of a state.
    pub const SET_STATE: u32 = 7;
    /// [`StopGradient`](super::StopGradient) → [`Values`](super::Values).
    pub const STOP_GRADIENT: u32 = 8;
    /// [`Noise`](super::Noise) → [`Values`](super::Values), empty in evaluation.
    pub const NOISE: u32 = 9;
    /// [`Input`](super::Input) → [`Values`](super::Values).
    pub const INPUT: u32 = 10;
    /// [`Named`](super::Named): a base initializer becomes trainable. → [`Values`](super::Values).
    pub const TRAIN_BASE: u32 = 11;
    /// Empty → [`Sites`](super::Sites).
    pub const SITES: u32 = 12;
    /// [`Replace`](super::Replace) of a site's output.
    pub const REPLACE_OUTPUT: u32 = 13;
    /// [`Replace`](super::Replace) of a site's input.
    pub const REPLACE_INPUT: u32 = 14;
    /// [`Named`](super::Named) initializer of the base → [`Values`](super::Values).
    pub const INITIALIZER: u32 = 15;
    /// Empty → [`Values`](super::Values): the base's hidden states.
    pub const HIDDEN: u32 = 16;
    /// Empty → [`Values`](super::Values): the base's pooled output, empty when it has none.
    pub const POOLED: u32 = 17;
    /// [`Named`](super::Named) role → [`Values`](super::Values), empty when the base has no such input.
    pub const MODEL_INPUT: u32 = 18;
    /// Empty → [`Flag`](super::Flag).
    pub const TRAINING: u32 = 19;
    /// [`Log`](super::Log).
    pub const LOG: u32 = 20;
    /// Empty → [`Flag`](super::Flag).
    pub const CANCELLED: u32 = 21;
    /// [`Random`](super::Random) → [`Tensor`](super::Tensor) of f32 in [0, 1).
    pub const RANDOM: u32 = 22;
    /// [`Matched`](super::Matched): which sites the method's pattern took and left.
    pub const MATCHED: u32 = 23;
    /// Empty → [`Values`](super::Values): the base's own logits, empty when it has none.
    pub const LOGITS: u32 = 24;
    /// [`ReplaceAttention`](super::ReplaceAttention) of what enters an attention site.
    pub const REPLACE_ATTENTION: u32 = 25;
    /// [`Replace`](super::Replace): what the site makes of a value → [`Values`](super::Values).
    pub const CALL_SITE: u32 = 26;
    /// [`VirtualTokens`](super::VirtualTokens) in front of every row.
    pub const VIRTUAL_TOKENS: u32 = 27;
    /// [`PutVirtual`](super::PutVirtual) → [`Values`](super::Values).
    pub const PUT_VIRTUAL: u32 = 28;
    /// [`Named`](super::Named): the value is stored under the name, instead of the parameters that it is made from.
    pub const STORE_AS: u32 = 29;
    /// Empty → [`Sites`](super::Sites): where the base looks its words up; empty when it looks none up.
    pub const WORDS: u32 = 30;
    /// [`SolveHead`](super::SolveHead): the head is to be solved to its optimum.
    pub const SOLVE_HEAD: u32 = 31;
    /// [`SoftmaxHead`](super::SoftmaxHead): the loss is convex in it.
    pub const SOFTMAX_HEAD: u32 = 32;
    /// [`LearningRate`](super::LearningRate) of a parameter, or of all vectors.
    pub const LEARNING_RATE: u32 = 33;
    /// [`Param`](super::Param) that is not trained → value. A host that does not know of such is to refuse it, not to train
    /// it.
    pub const UNTRAINED_PARAM: u32 = 34;

    /// What an operation is called in messages.
    pub fn name(op: u32) -> &'static str {
        match op {
            EMIT => "emit",
            CONSTANT => "constant",
            FACT => "fact",
            PARAM => "param",
            SETTING => "setting",
            STATE => "state",
            SET_STATE => "set_state",
            STOP_GRADIENT => "stop_gradient",
            NOISE => "noise",
            INPUT => "input",
            TRAIN_BASE => "train_base",
            SITES => "sites",
            REPLACE_OUTPUT => "replace_output",
            REPLACE_INPUT => "replace_input",
            INITIALIZER => "initializer",
            HIDDEN => "hidden",
            POOLED => "pooled",
            MODEL_INPUT => "model_input",
            TRAINING => "training",
            LOG => "log",
            CANCELLED => "cancelled",
            RANDOM => "random",
            MATCHED => "matched",
            LOGITS => "logits",
            REPLACE_ATTENTION => "replace_attention",
            VIRTUAL_TOKENS => "virtual_tokens",
            PUT_VIRTUAL => "put_virtual",
            STORE_AS => "store_as",
            WORDS => "words",
            CALL_SITE => "call_site",
            SOLVE_HEAD => "solve_head",
            SOFTMAX_HEAD => "softmax_head",
            LEARNING_RATE => "learning_rate",
            UNTRAINED_PARAM => "untrained_param",
            _ => "an unknown operation",
        }
    }
}

/// Greeting, in both directions.
#[derive(Clone, PartialEq, Message)]
pub struct Hello {
    /// Extension ids that the sender has.
    #[prost(string, repeated, tag = "1")]
    pub extensions: Vec<String>,
    /// The sender's program or plugin, with its version.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Extension ids that the sender cannot do without. Older senders leave it empty.
    #[prost(string, repeated, tag = "3")]
    pub requires: Vec<String>,
}

/// Asks for an instance.
#[derive(Clone, PartialEq, Message)]
pub struct Create {
    /// `graft.method/1` or `graft.objective/1`.
    #[prost(string, tag = "1")]
    pub extension: String,
    /// Id of the method or objective.
    #[prost(string, tag = "2")]
    pub id: String,
    /// The config as a JSON object; empty for all defaults.
    #[prost(string, tag = "3")]
    pub config: String,
}

/// An instance.
#[derive(Clone, PartialEq, Message)]
pub struct Created {
    /// Number for later calls, never 0.
    #[prost(uint64, tag = "1")]
    pub instance: u64,
    /// The config with every default filled in, as JSON.
    #[prost(string, tag = "2")]
    pub config: String,
}

/// JSON text.
#[derive(Clone, PartialEq, Message)]
pub struct Json {
    /// The text.
    #[prost(string, tag = "1")]
    pub text: String,
}

/// What went wrong, on either side.
#[derive(Clone, PartialEq, Message)]
pub struct Error {
    /// See [`crate::Code`].
    #[prost(uint32, tag = "1")]
    pub code: u32,
    /// What happened.
    #[prost(string, tag = "2")]
    pub message: String,
    /// What to do; may be empty.
    #[prost(string, tag = "3")]
    pub help: String,
    /// The site it happened at; may be empty.
    #[prost(string, tag = "4")]
    pub site: String,
    /// `file:line` in the plugin's sources; may be empty.
    #[prost(string, tag = "5")]
    pub place: String,
}
