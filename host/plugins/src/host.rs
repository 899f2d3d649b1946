//! What a host offers to plugins: one method for each operation of the boundary.

use std::sync::atomic::{AtomicBool, Ordering};

use graft_plugin_api::wire;
use graft_plugin_api::{Code, Error, Fact, ParamSpec, Result, Tensor};

/// Most random numbers for one request.
const MAX_RANDOM: u64 = 1 << 26;

static CANCELLED: AtomicBool = AtomicBool::new(false);

/// Tells plugins that the person asked to stop (or, with `false`, that the next work begins).
pub fn set_cancelled(cancelled: bool) {
    CANCELLED.store(cancelled, Ordering::Relaxed);
}

fn lacking<T>(what: &str) -> Result<T> {
    Err(Error::new(Code::UNSUPPORTED, format!("`{what}` is not to be had here"))
        .help("the graph can be used in `apply` and `build` only".to_owned()))
}

/// The host's side of the boundary. Values are numbers that the host gives out; 0 is none. Every method has a default
/// that refuses, so a host has the operations that it overrides.
pub trait GraphHost {
    /// Appends a node.
    ///
    /// # Errors
    /// Unknown operators, shapes that do not fit, limits. This and the others: see [`graft_plugin_api::Graph`].
    fn emit(&mut self, _node: wire::Emit) -> Result<Vec<u64>> {
        lacking("emit")
    }
    /// A constant.
    ///
    /// # Errors
    /// Bytes that do not fill the shape, limits.
    fn constant(&mut self, _tensor: Tensor) -> Result<u64> {
        lacking("constant")
    }
    /// Type and shape of a value.
    ///
    /// # Errors
    /// A value that is not of this call.
    fn fact(&mut self, _value: u64) -> Result<Fact> {
        lacking("fact")
    }
    /// A trainable parameter.
    ///
    /// # Errors
    /// A key that is declared otherwise already, limits.
    fn param(&mut self, _spec: ParamSpec) -> Result<u64> {
        lacking("param")
    }
    /// A number of the config that enters the maths.
    ///
    /// # Errors
    /// A name that has another number already.
    fn setting(&mut self, _setting: wire::Setting) -> Result<u64> {
        lacking("setting")
    }
    /// A tensor that is carried from step to step.
    ///
    /// # Errors
    /// A name that is taken.
    fn state(&mut self, _state: wire::State) -> Result<u64> {
        lacking("state")
    }
    /// The next value of a state.
    ///
    /// # Errors
    /// A name that is no state, another type or shape.
    fn set_state(&mut self, _name: &str, _next: u64) -> Result<()> {
        lacking("set_state")
    }
    /// The same value without a gradient; `place` is the line in the plugin's sources, where it is known.
    ///
    /// # Errors
    /// A value that is not of this call.
    fn stop_gradient(&mut self, _value: u64, _place: &str) -> Result<u64> {
        lacking("stop_gradient")
    }
    /// An input of random numbers; `None` in evaluation.
    ///
    /// # Errors
    /// A distribution that is unknown.
    fn noise(&mut self, _noise: wire::Noise) -> Result<Option<u64>> {
        lacking("noise")
    }
    /// A named input that `collate` fills.
    ///
    /// # Errors
    /// A name that is taken.
    fn input(&mut self, _input: wire::Input) -> Result<u64> {
        lacking("input")
    }
    /// An initializer of the base becomes trainable.
    ///
    /// # Errors
    /// A name that is no f32 initializer.
    fn train_base(&mut self, _initializer: &str) -> Result<u64> {
        lacking("train_base")
    }
    /// An initializer of the base.
    ///
    /// # Errors
    /// A name that is none.
    fn initializer(&mut self, _name: &str) -> Result<u64> {
        lacking("initializer")
    }
    /// The sites of the base.
    ///
    /// # Errors
    /// Only where there is no graph.
    fn sites(&mut self) -> Result<Vec<wire::Site>> {
        lacking("sites")
    }
    /// Readers of a site's output read `value` from now on.
    ///
    /// # Errors
    /// Another type or shape.
    fn replace_output(&mut self, _site: u32, _value: u64) -> Result<()> {
        lacking("replace_output")
    }
    /// The site reads `value` from now on.
    ///
    /// # Errors
    /// Another type or shape.
    fn replace_input(&mut self, _site: u32, _value: u64) -> Result<()> {
        lacking("replace_input")
    }
    /// An attention site reads other keys, values and, where one is given, another bias from now on.
    ///
    /// # Errors
    /// A site of another kind, another type or a shape that does not fit.
    fn replace_attention(&mut self, _request: wire::ReplaceAttention) -> Result<()> {
        lacking("replace_attention")
    }
    /// Every row begins with virtual tokens from now on.
    ///
    /// # Errors
    /// None or too many of them, another number than before, a base without token ids.
    fn virtual_tokens(&mut self, _request: wire::VirtualTokens) -> Result<()> {
        lacking("virtual_tokens")
    }
    /// A value with other entries at the virtual tokens.
    ///
    /// # Errors
    /// Before virtual tokens were asked for; shapes that do not fit.
    fn put_virtual(&mut self, _request: wire::PutVirtual) -> Result<u64> {
        lacking("put_virtual")
    }
    /// The site where the base looks its words up.
    ///
    /// # Errors
    /// Only where there is no graph.
    fn words(&mut self) -> Result<Option<wire::Site>> {
        lacking("words")
    }
    /// A value is stored instead of the parameters that it is made from.
    ///
    /// # Errors
    /// A value that depends on inputs of the base, a key that is taken.
    fn store_as(&mut self, _key: &str, _value: u64) -> Result<()> {
        lacking("store_as")
    }
    /// What a module makes of another input.
    ///
    /// # Errors
    /// A site that is no module, another type or a shape that does not fit.
    fn call_site(&mut self, _site: u32, _value: u64) -> Result<u64> {
        lacking("call_site")
    }
    /// The head is to be solved to its optimum.
    ///
    /// # Errors
    /// Settings that no solver can follow.
    fn solve_head(&mut self, _how: wire::SolveHead) -> Result<()> {
        lacking("solve_head")
    }
    /// The loss is convex in this head.
    ///
    /// # Errors
    /// Values that are no such head.
    fn softmax_head(&mut self, _head: wire::SoftmaxHead) -> Result<()> {
        lacking("softmax_head")
    }
    /// What a parameter, or every vector, learns with.
    ///
    /// # Errors
    /// A value that is no parameter, a number that is no rate.
    fn learning_rate(&mut self, _rate: wire::LearningRate) -> Result<()> {
        lacking("learning_rate")
    }
    /// The base's hidden states.
    ///
    /// # Errors
    /// A base without.
    fn hidden(&mut self) -> Result<u64> {
        lacking("hidden")
    }
    /// The base's pooled output.
    ///
    /// # Errors
    /// Only where there is no graph.
    fn pooled(&mut self) -> Result<Option<u64>> {
        lacking("pooled")
    }
    /// The base's own logits, if it is a classifier.
    ///
    /// # Errors
    /// Only where there is no graph.
    fn logits(&mut self) -> Result<Option<u64>> {
        lacking("logits")
    }
    /// An input of the base by role.
    ///
    /// # Errors
    /// Only where there is no graph.
    fn model_input(&mut self, _role: &str) -> Result<Option<u64>> {
        lacking("model_input")
    }
    /// True in a training graph.
    ///
    /// # Errors
    /// Only where there is no graph.
    fn training(&mut self) -> Result<bool> {
        lacking("training")
    }
    /// Which sites the method took.
    ///
    /// # Errors
    /// Only where there is no graph.
    fn matched(&mut self, _matched: wire::Matched) -> Result<()> {
        lacking("matched")
    }
    /// A line for the log.
    fn log(&mut self, level: u32, message: &str) {
        match level {
            1 => tracing::error!(target: "plugin", "{message}"),
            2 => tracing::warn!(target: "plugin", "{message}"),
            3 => tracing::info!(target: "plugin", "{message}"),
            4 => tracing::debug!(target: "plugin", "{message}"),
            _ => tracing::trace!(target: "plugin", "{message}"),
        }
    }
    /// True when the person asked to stop.
    fn cancelled(&mut self) -> bool {
        CANCELLED.load(Ordering::Relaxed)
    }
    /// Numbers in `[0, 1)` that depend on seed, name and position alone.
    ///
    /// # Errors
    /// Too many at once.
    fn random(&mut self, seed: u64, name: &str, count: u64) -> Result<Vec<f32>> {
        random(seed, name, count)
    }
}

/// The host for calls that have no graph: it logs, draws random numbers and tells of cancellation.
pub struct NoGraph;

impl GraphHost for NoGraph {}

/// Counter-based numbers: SplitMix64 (Steele et al. 2014) over a start that seed and name (by FNV-1a) decide.
fn random(seed: u64, name: &str, count: u64) -> Result<Vec<f32>> {
    if count > MAX_RANDOM {
        return Err(Error::new(
            Code::LIMIT,
            format!("{count} random numbers at once; at most {MAX_RANDOM} are given"),
        ));
    }
    let fnv = |h: u64, b: u8| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3);
    let stream = name.bytes().fold(0xcbf2_9ce4_8422_2325, fnv);
    let start = mix(seed).wrapping_add(stream);
    let number = |i: u64| {
        let bits = mix(start.wrapping_add((i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        (bits >> 40) as f32 / (1u64 << 24) as f32
    };
    Ok((0..count).map(number).collect())
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_numbers_depend_on_seed_name_and_position_alone() {
        let a = random(7, "mask", 1000).unwrap();
        assert_eq!(a, random(7, "mask", 1000).unwrap());
        assert_eq!(a[..10], random(7, "mask", 10).unwrap());
        assert_ne!(a, random(8, "mask", 1000).unwrap());
        assert_ne!(a, random(7, "masks", 1000).unwrap());
        assert!(a.iter().all(|v| (0.0..1.0).contains(v)));
        let mean = a.iter().sum::<f32>() / 1000.0;
        assert!((mean - 0.5).abs() < 0.05, "{mean}");
        assert_eq!(random(0, "", u64::MAX).unwrap_err().code, Code::LIMIT);
    }
}
