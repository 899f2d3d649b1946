//! The author's handle on the graph. Every operation is a call into the host.

use std::cell::RefCell;
use std::panic::Location;

use prost::Message;

use crate::abi::{HostCallbacks, Reply};
use crate::error::place;
use crate::wire::{self, host_op};
use crate::{Code, DType, Dim, Distribution, Error, Fact, Init, ParamSpec, Result, Site, Tensor};

/// A value of the graph; valid within the call that it came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Value(pub(crate) u64);

impl Value {
    /// The host's number for the value.
    pub fn id(self) -> u64 {
        self.0
    }
}

/// An attribute of an operator: `attr("axis", -1)`, `attr("perm", &[1, 0][..])`.
pub fn attr(name: &str, value: impl Into<AttrValue>) -> wire::Attr {
    wire::Attr { name: name.to_owned(), value: Some(value.into().0) }
}

/// What an attribute can be made of.
pub struct AttrValue(wire::AttrValue);

macro_rules! attr_from {
    ($($t:ty, $v:ident => $e:expr;)*) => {$(
        impl From<$t> for AttrValue {
            fn from($v: $t) -> AttrValue { AttrValue($e) }
        }
    )*};
}
attr_from! {
    i64, v => wire::AttrValue::Int(v);
    f32, v => wire::AttrValue::Float(v);
    &str, v => wire::AttrValue::Text(v.to_owned());
    &[i64], v => wire::AttrValue::Ints(wire::Ints { values: v.to_vec() });
    &[f32], v => wire::AttrValue::Floats(wire::Floats { values: v.to_vec() });
    Tensor, v => wire::AttrValue::Tensor(v.into());
}

/// How loud a line of the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
#[allow(missing_docs)]
pub enum Level {
    Error = 1,
    Warn = 2,
    Info = 3,
    Debug = 4,
    Trace = 5,
}

/// Services of the host that need no graph.
pub struct Host<'h> {
    callbacks: &'h HostCallbacks,
}

impl<'h> Host<'h> {
    /// A handle over the callbacks of one call.
    pub(crate) fn new(callbacks: &'h HostCallbacks) -> Host<'h> {
        Host { callbacks }
    }

    /// Calls the host with a message and reads its answer. An error names the line that called.
    ///
    /// # Errors
    /// Whatever the host answers; `MALFORMED` when its answer cannot be read.
    #[track_caller]
    pub fn call<A: Message + Default>(&self, op: u32, request: &impl Message) -> Result<A> {
        let here = Location::caller();
        let bytes = request.encode_to_vec();
        match (self.callbacks.call)(self.callbacks.context, op, bytes.as_slice().into()) {
            Reply::ROk(answer) => A::decode(answer.as_slice()).map_err(|e| unreadable(op, &e)),
            Reply::RErr(error) => {
                let e = wire::Error::decode(error.as_slice()).map_err(|e| unreadable(op, &e))?;
                Err(Error::from(e).in_line(here))
            }
        }
    }

    /// Writes a line into the host's log.
    pub fn log(&self, level: Level, message: &str) {
        // A line that cannot be written must not stop the work.
        let _: Result<()> =
            self.call(host_op::LOG, &wire::Log { level: level as u32, message: message.to_owned() });
    }

    /// True when the person asked to stop. Long loops look at it and end with `fail!(CANCELLED, …)`.
    pub fn cancelled(&self) -> bool {
        self.call::<wire::Flag>(host_op::CANCELLED, &()).is_ok_and(|f| f.value)
    }

    /// `count` numbers in `[0, 1)`, the same ones for the same seed and name on every machine.
    ///
    /// # Errors
    /// `LIMIT` when that is too many at once.
    #[track_caller]
    pub fn random(&self, seed: u64, name: &str, count: usize) -> Result<Vec<f32>> {
        let request = wire::Random { seed, name: name.to_owned(), count: count as u64 };
        Tensor::from(self.call::<wire::Tensor>(host_op::RANDOM, &request)?).to_f32s()
    }
}

fn unreadable(op: u32, e: &dyn std::fmt::Display) -> Error {
    Error::new(Code::MALFORMED, format!("the host's answer to `{}` cannot be read: {e}", host_op::name(op)))
}

/// The graph that a method or objective writes into. Operators have the meaning that ONNX gives them in opset 20.
pub struct Graph<'h> {
    host: Host<'h>,
    site: RefCell<String>,
}

impl<'h> std::ops::Deref for Graph<'h> {
    type Target = Host<'h>;

    fn deref(&self) -> &Host<'h> {
        &self.host
    }
}

impl<'h> Graph<'h> {
    pub(crate) fn new(callbacks: &'h HostCallbacks) -> Graph<'h> {
        Graph { host: Host::new(callbacks), site: RefCell::default() }
    }

    /// A node with one output.
    ///
    /// # Errors
    /// `REFUSED` when the host knows no such operator or the shapes do not fit.
    #[track_caller]
    pub fn emit(&self, op: &str, inputs: &[Value], attrs: &[wire::Attr]) -> Result<Value> {
        let inputs: Vec<_> = inputs.iter().map(|v| Some(*v)).collect();
        one(op, self.emit_many("", op, &inputs, attrs, 1)?)
    }

    /// A node of any domain with any number of outputs; `None` is an optional input that is left out.
    ///
    /// # Errors
    /// As [`Graph::emit`].
    #[track_caller]
    pub fn emit_many(
        &self,
        domain: &str,
        op: &str,
        inputs: &[Option<Value>],
        attrs: &[wire::Attr],
        outputs: u32,
    ) -> Result<Vec<Value>> {
        let request = wire::Emit {
            op: op.to_owned(),
            domain: domain.to_owned(),
            inputs: inputs.iter().map(|v| v.map_or(0, |v| v.0)).collect(),
            attrs: attrs.to_vec(),
            outputs,
            site: self.site.borrow().clone(),
            place: place(Location::caller()),
        };
        let values = self.values(host_op::EMIT, &request)?;
        if values.len() != outputs as usize {
            return crate::fail!(MALFORMED, "`{op}` has {} outputs, {outputs} were asked for", values.len());
        }
        Ok(values)
    }

    /// A constant.
    ///
    /// # Errors
    /// `LIMIT` when it is too large, `REFUSED` when bytes and shape disagree.
    #[track_caller]
    pub fn constant(&self, tensor: Tensor) -> Result<Value> {
        self.value(host_op::CONSTANT, &wire::Tensor::from(tensor))
    }

    /// What is known of a value.
    ///
    /// # Errors
    /// `REFUSED` for a value of another call.
    #[track_caller]
    pub fn fact(&self, value: Value) -> Result<Fact> {
        let fact: wire::Fact = self.call(host_op::FACT, &wire::Values { ids: vec![value.0] })?;
        Ok(fact.into())
    }

    /// A trainable parameter. The same declaration again gives the same parameter: a module that is called twice has one.
    ///
    /// # Errors
    /// `REFUSED` for a key that is declared otherwise already or a site that is not there, `LIMIT` for a shape that is too large.
    #[track_caller]
    pub fn param(&self, spec: ParamSpec) -> Result<Value> {
        let spec = ParamSpec { place: place(Location::caller()), ..spec };
        let op =
            if spec.course == crate::Course::Trained { host_op::PARAM } else { host_op::UNTRAINED_PARAM };
        self.value(op, &wire::Param::from(spec))
    }

    /// A number of the config that enters the maths, as a scalar f32. Never a constant, so that adapters with another
    /// number share a bank. The same name with the same number is the same setting.
    ///
    /// # Errors
    /// `REFUSED` when the name has another number already.
    #[track_caller]
    pub fn setting(&self, name: &str, value: f32) -> Result<Value> {
        self.value(host_op::SETTING, &wire::Setting { name: name.to_owned(), value, site: String::new() })
    }

    /// As [`Graph::setting`], with a number of its own at this site.
    ///
    /// # Errors
    /// As [`Graph::setting`].
    #[track_caller]
    pub fn setting_at(&self, site: &Site, name: &str, value: f32) -> Result<Value> {
        let request = wire::Setting { name: name.to_owned(), value, site: site.path.clone() };
        self.value(host_op::SETTING, &request)
    }

    /// A tensor that is carried from step to step without a gradient.
    ///
    /// # Errors
    /// `REFUSED` for a name that is taken.
    #[track_caller]
    pub fn state(&self, name: &str, dtype: DType, shape: &[u64], init: Init) -> Result<Value> {
        let request = wire::State {
            name: name.to_owned(),
            dtype: dtype.0,
            shape: shape.to_vec(),
            init: Some(init.into()),
        };
        self.value(host_op::STATE, &request)
    }

    /// What the state holds after this step.
    ///
    /// # Errors
    /// `REFUSED` for a name that is no state.
    #[track_caller]
    pub fn set_state(&self, name: &str, next: Value) -> Result<()> {
        self.call(host_op::SET_STATE, &wire::Named { name: name.to_owned(), value: next.0 })
    }

    /// The same value, through which no gradient flows.
    ///
    /// # Errors
    /// `REFUSED` for a value of another call.
    #[track_caller]
    pub fn stop_gradient(&self, value: Value) -> Result<Value> {
        let request = wire::StopGradient { ids: vec![value.0], place: place(Location::caller()) };
        self.value(host_op::STOP_GRADIENT, &request)
    }

    /// An f32 input that the host fills from seed, step and name; `None` in evaluation. Each call is a stream of its own,
    /// also under the same name.
    ///
    /// # Errors
    /// `REFUSED` for a dimension that is none of the base's inputs.
    #[track_caller]
    pub fn noise(&self, name: &str, shape: &[Dim], distribution: Distribution) -> Result<Option<Value>> {
        let (kind, a, b) = distribution.to_wire();
        let request = wire::Noise {
            name: name.to_owned(),
            site: self.site.borrow().clone(),
            shape: shape.iter().cloned().map(Into::into).collect(),
            kind,
            a,
            b,
        };
        Ok(self.values(host_op::NOISE, &request)?.first().copied())
    }

    /// A named input of the graph, filled by the tensor of that name from `collate`.
    ///
    /// # Errors
    /// `REFUSED` for a name that is taken.
    #[track_caller]
    pub fn input(&self, name: &str, dtype: DType, shape: &[Dim]) -> Result<Value> {
        let shape = shape.iter().cloned().map(Into::into).collect();
        self.value(host_op::INPUT, &wire::Input { name: name.to_owned(), dtype: dtype.0, shape })
    }

    /// Makes an initializer of the base trainable (a bias, a norm).
    ///
    /// # Errors
    /// `REFUSED` when the base has none of that name.
    #[track_caller]
    pub fn train_base(&self, initializer: &str) -> Result<Value> {
        self.value(host_op::TRAIN_BASE, &wire::Named { name: initializer.to_owned(), value: 0 })
    }

    /// An initializer of the base, such as a site's weight.
    ///
    /// # Errors
    /// `REFUSED` when the base has none of that name.
    #[track_caller]
    pub fn initializer(&self, name: &str) -> Result<Value> {
        self.value(host_op::INITIALIZER, &wire::Named { name: name.to_owned(), value: 0 })
    }

    /// After training, `value` as it then is becomes the adapter's parameter `key`, and the parameters that it is made
    /// from are forgotten: they only help training (an encoder of a prompt, a projection of a prefix). The stored
    /// adapter is applied with a config that declares `key` itself.
    ///
    /// # Errors
    /// `REFUSED` for a value that depends on more than parameters, and for a key that is taken.
    #[track_caller]
    pub fn store_as(&self, key: &str, value: Value) -> Result<()> {
        self.call(host_op::STORE_AS, &wire::Named { name: key.to_owned(), value: value.0 })
    }

    /// All sites of the base, in graph order; behind the modules with weights come the attentions and the residual
    /// connections. Read them before
    /// replacing anything: a site that is read later is entered by what was put before it.
    ///
    /// # Errors
    /// Only if the host is of another version.
    #[track_caller]
    pub fn sites(&self) -> Result<Vec<Site>> {
        let sites: wire::Sites = self.call(host_op::SITES, &())?;
        Ok(sites.sites.into_iter().map(Site::from).collect())
    }

    /// Everything that read the site's output reads `value` from now on (but what `value` itself is made from).
    ///
    /// # Errors
    /// `REFUSED` when type or shape differ from the output's.
    #[track_caller]
    pub fn replace_output(&self, site: &Site, value: Value) -> Result<()> {
        self.call(host_op::REPLACE_OUTPUT, &wire::Replace { site: site.number, value: value.0 })
    }

    /// The site reads `value` instead of its input from now on.
    ///
    /// # Errors
    /// `REFUSED` when type or shape differ from the input's.
    #[track_caller]
    pub fn replace_input(&self, site: &Site, value: Value) -> Result<()> {
        self.call(host_op::REPLACE_INPUT, &wire::Replace { site: site.number, value: value.0 })
    }

    /// What the module makes of another input: its own operators and weights once more, without what was put in the
    /// place of its input or output.
    ///
    /// # Errors
    /// `REFUSED` for a site that is no module, or for an input of another type or shape than the site's own.
    #[track_caller]
    pub fn call_site(&self, site: &Site, input: Value) -> Result<Value> {
        self.value(host_op::CALL_SITE, &wire::Replace { site: site.number, value: input.0 })
    }

    /// The attention reads other keys and values from now on, of any length, and adds another bias to its scores.
    /// Without one the old bias stays, which must fit keys of the new length. All have the layout that
    /// [`Attention`](crate::Attention) gives.
    ///
    /// # Errors
    /// `REFUSED` for a site that is no attention, and when type or shape do not fit it.
    #[track_caller]
    pub fn replace_attention(
        &self,
        site: &Site,
        key: Value,
        value: Value,
        bias: Option<Value>,
    ) -> Result<()> {
        let bias = bias.map_or(0, |v| v.0);
        let request = wire::ReplaceAttention { site: site.number, key: key.0, value: value.0, bias };
        self.call(host_op::REPLACE_ATTENTION, &request)
    }

    /// Runs `body` for each site. Nodes and errors carry the site's path.
    ///
    /// # Errors
    /// The first error, with its site.
    pub fn each(&self, sites: &[Site], mut body: impl FnMut(&Site) -> Result<()>) -> Result<()> {
        for site in sites {
            self.site.replace(site.path.clone());
            crate::export::set_site(&site.path);
            let result = body(site).map_err(|e| e.at(&site.path));
            self.site.take();
            result?;
            crate::export::set_site("");
        }
        Ok(())
    }

    /// The base's hidden states, `[batch, sequence, hidden]`.
    ///
    /// # Errors
    /// `REFUSED` when the base has none.
    #[track_caller]
    pub fn hidden(&self) -> Result<Value> {
        self.value(host_op::HIDDEN, &())
    }

    /// The base's pooled output, `[batch, hidden]`, if it has one.
    ///
    /// # Errors
    /// Only if the host is of another version.
    #[track_caller]
    pub fn pooled(&self) -> Result<Option<Value>> {
        Ok(self.values(host_op::POOLED, &())?.first().copied())
    }

    /// The base's own logits, `[batch, labels]`, if it is a classifier.
    ///
    /// # Errors
    /// Only if the host is of another version.
    #[track_caller]
    pub fn logits(&self) -> Result<Option<Value>> {
        Ok(self.values(host_op::LOGITS, &())?.first().copied())
    }

    /// An input of the base by its role: `ids`, `mask`, `positions`, `types`, `pixels`.
    ///
    /// # Errors
    /// Only if the host is of another version.
    #[track_caller]
    pub fn model_input(&self, role: &str) -> Result<Option<Value>> {
        let request = wire::Named { name: role.to_owned(), value: 0 };
        Ok(self.values(host_op::MODEL_INPUT, &request)?.first().copied())
    }

    /// True in a training graph; in an evaluation graph objectives build no loss.
    ///
    /// # Errors
    /// Only if the host is of another version.
    #[track_caller]
    pub fn training(&self) -> Result<bool> {
        Ok(self.call::<wire::Flag>(host_op::TRAINING, &())?.value)
    }

    /// Tells the host which sites were taken; [`Graph::select`] does it.
    #[track_caller]
    pub(crate) fn report_matched(&self, matched: wire::Matched) -> Result<()> {
        self.call(host_op::MATCHED, &matched)
    }

    #[track_caller]
    pub(crate) fn values(&self, op: u32, request: &impl Message) -> Result<Vec<Value>> {
        let answer: wire::Values = self.call(op, request)?;
        Ok(answer.ids.into_iter().map(Value).collect())
    }

    #[track_caller]
    fn value(&self, op: u32, request: &impl Message) -> Result<Value> {
        one(host_op::name(op), self.values(op, request)?)
    }
}

pub(crate) fn one(what: &str, values: Vec<Value>) -> Result<Value> {
    values
        .first()
        .copied()
        .ok_or_else(|| Error::new(Code::MALFORMED, format!("the host gave no value for `{what}`")))
}
