//! What a plugin declares besides nodes: parameters, noise, states.

use crate::{Code, DType, Error, Result, Tensor, Value, wire};

/// How a parameter starts, or its neutral value.
#[derive(Debug, Clone, PartialEq)]
pub enum Init {
    /// All 0.
    Zeros,
    /// All 1.
    Ones,
    /// All this number.
    Full(f64),
    /// Normal with mean 0 and this standard deviation.
    Normal(f64),
    /// Uniform between −bound and bound.
    Uniform(f64),
    /// As `torch.nn.init.kaiming_uniform_(a)`: uniform with bound `sqrt(6 / ((1 + a²) · fan_in))`, where the fan-in is
    /// the product of all axes but the first.
    KaimingUniform(f64),
    /// As `torch.nn.init.xavier_uniform_`: uniform with bound `sqrt(6 / (fan_in + fan_out))`.
    XavierUniform,
    /// Uniform between −bound and bound, the numbers that PyTorch draws: `tensor.uniform_(-bound, bound)` with a generator
    /// of the CPU that `manual_seed(seed)` was called on and that gave `skip` numbers before. The same whatever the seed of
    /// the run is.
    Torch {
        /// Seed of the generator.
        seed: u64,
        /// How many numbers it gave before.
        skip: u64,
        /// The bound.
        bound: f64,
    },
    /// These values.
    Given(Tensor),
    /// Rows of a table of the base, the initializer `table` `[rows, width]`: those of a text's tokens, again and again
    /// until there are enough, or else drawn at random.
    Rows {
        /// Name of the initializer.
        table: String,
        /// The text.
        text: Option<String>,
    },
    /// What this value is, which is made of weights of the base alone (the norms of a weight's rows).
    Computed(Value),
}

impl From<Init> for wire::Init {
    fn from(i: Init) -> wire::Init {
        let mut computed = 0;
        let (kind, value, tensor) = match i {
            Init::Rows { table, text } => {
                return wire::Init { kind: 9, table, text, ..wire::Init::default() };
            }
            Init::Torch { seed, skip, bound } => {
                return wire::Init { kind: 10, value: bound, seed, skip, ..wire::Init::default() };
            }
            Init::Zeros => (0, 0.0, None),
            Init::Ones => (1, 0.0, None),
            Init::Normal(std) => (2, std, None),
            Init::Uniform(bound) => (3, bound, None),
            Init::KaimingUniform(a) => (4, a, None),
            Init::XavierUniform => (5, 0.0, None),
            Init::Given(t) => (6, 0.0, Some(t.into())),
            Init::Full(v) => (7, v, None),
            Init::Computed(v) => {
                computed = v.0;
                (8, 0.0, None)
            }
        };
        wire::Init { kind, value, tensor, computed, ..wire::Init::default() }
    }
}

impl TryFrom<wire::Init> for Init {
    type Error = Error;

    fn try_from(i: wire::Init) -> Result<Init> {
        if !i.value.is_finite() {
            return Err(Error::new(
                Code::MALFORMED,
                format!("an initialiser cannot have the number {}", i.value),
            ));
        }
        Ok(match (i.kind, i.tensor) {
            (0, _) => Init::Zeros,
            (1, _) => Init::Ones,
            (2, _) => Init::Normal(i.value),
            (3, _) => Init::Uniform(i.value),
            (4, _) => Init::KaimingUniform(i.value),
            (5, _) => Init::XavierUniform,
            (6, Some(t)) => Init::Given(t.into()),
            (7, _) => Init::Full(i.value),
            (8, _) => Init::Computed(Value(i.computed)),
            (9, _) => Init::Rows { table: i.table, text: i.text },
            (10, _) => Init::Torch { seed: i.seed, skip: i.skip, bound: i.value },
            (k, _) => return Err(Error::new(Code::UNSUPPORTED, format!("initialiser {k} is unknown here"))),
        })
    }
}

/// Whether weight decay may touch a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decay {
    /// Unless it is a bias or a norm, that is of rank 1.
    Auto,
    /// Never.
    No,
}

/// Whose parameter it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The method's.
    Adapter,
    /// The objective's.
    Head,
}

/// What becomes of a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Course {
    /// It is trained, and the adapter holds it.
    Trained,
    /// It stays what it began as, and the adapter holds it.
    Fixed,
    /// It stays what it began as, and the adapter does not hold it: it begins again as its [`Init`] says, which must not
    /// depend on the seed of a run or on the base.
    Implied,
}

/// A parameter, f32.
#[derive(Debug, Clone, PartialEq)]
pub struct ParamSpec {
    /// Key within the site as PEFT has it (`lora_A.weight`), or the whole key without a site (`classifier.weight`).
    pub key: String,
    /// Path of the site, if it has one.
    pub site: Option<String>,
    /// Dimensions.
    pub shape: Vec<u64>,
    /// How it starts.
    pub init: Init,
    /// The value that makes the adapter do nothing: rows of the base, and adapters without the site, use it.
    pub neutral: Init,
    /// Axes that may be padded with zeros without changing the result (the rank, the labels).
    pub paddable: Vec<u32>,
    /// Weight decay.
    pub decay: Decay,
    /// Element type.
    pub dtype: DType,
    /// Whose it is.
    pub role: Role,
    /// Whether it is trained, and held.
    pub course: Course,
    /// `file:line` in the author's sources, which [`Graph::param`](crate::Graph::param) fills in.
    pub place: String,
}

impl ParamSpec {
    /// An adapter's parameter with this key and shape: zeros at the start and as the neutral value.
    pub fn new(key: &str, shape: &[u64]) -> ParamSpec {
        ParamSpec {
            key: key.to_owned(),
            site: None,
            shape: shape.to_vec(),
            init: Init::Zeros,
            neutral: Init::Zeros,
            paddable: Vec::new(),
            decay: Decay::Auto,
            dtype: DType::F32,
            role: Role::Adapter,
            course: Course::Trained,
            place: String::new(),
        }
    }

    /// At this site.
    pub fn site(mut self, path: &str) -> ParamSpec {
        self.site = Some(path.to_owned());
        self
    }

    /// Starts like this.
    pub fn init(mut self, init: Init) -> ParamSpec {
        self.init = init;
        self
    }

    /// Does nothing at this value.
    pub fn neutral(mut self, neutral: Init) -> ParamSpec {
        self.neutral = neutral;
        self
    }

    /// This axis may be padded with zeros.
    pub fn paddable(mut self, axis: u32) -> ParamSpec {
        self.paddable.push(axis);
        self
    }

    /// Never decayed.
    pub fn no_decay(mut self) -> ParamSpec {
        self.decay = Decay::No;
        self
    }

    /// Never trained (random projections that the trained parameters scale). A method's alone.
    pub fn fixed(mut self) -> ParamSpec {
        self.course = Course::Fixed;
        self
    }

    /// Never trained nor held by the adapter. A method's alone.
    pub fn implied(mut self) -> ParamSpec {
        self.course = Course::Implied;
        self
    }

    /// Belongs to the objective's head.
    pub fn head(mut self) -> ParamSpec {
        self.role = Role::Head;
        self
    }
}

impl From<ParamSpec> for wire::Param {
    fn from(p: ParamSpec) -> wire::Param {
        wire::Param {
            key: p.key,
            site: p.site.unwrap_or_default(),
            dtype: p.dtype.0,
            shape: p.shape,
            init: Some(p.init.into()),
            neutral: Some(p.neutral.into()),
            paddable: p.paddable,
            decay: p.decay == Decay::Auto,
            role: (p.role == Role::Head) as u32,
            course: match p.course {
                Course::Trained => 0,
                Course::Fixed => 1,
                Course::Implied => 2,
            },
            place: p.place,
        }
    }
}

impl TryFrom<wire::Param> for ParamSpec {
    type Error = Error;

    fn try_from(p: wire::Param) -> Result<ParamSpec> {
        let read = |i: Option<wire::Init>| i.map_or(Ok(Init::Zeros), Init::try_from);
        Ok(ParamSpec {
            key: p.key,
            site: (!p.site.is_empty()).then_some(p.site),
            shape: p.shape,
            init: read(p.init)?,
            neutral: read(p.neutral)?,
            paddable: p.paddable,
            decay: if p.decay { Decay::Auto } else { Decay::No },
            dtype: DType(p.dtype),
            role: if p.role == 1 { Role::Head } else { Role::Adapter },
            course: match p.course {
                0 => Course::Trained,
                1 => Course::Fixed,
                2 => Course::Implied,
                c => return Err(Error::new(Code::UNSUPPORTED, format!("course {c} is unknown here"))),
            },
            place: p.place,
        })
    }
}

/// How noise is distributed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Distribution {
    /// Uniform in `[low, high)`.
    Uniform {
        /// Lower end.
        low: f32,
        /// Upper end, not reached.
        high: f32,
    },
    /// Normal.
    Normal {
        /// Mean.
        mean: f32,
        /// Standard deviation.
        std: f32,
    },
    /// `value` with probability `keep`, else 0. Dropout has `value = 1 / keep`.
    Bernoulli {
        /// Probability of `value`.
        keep: f32,
        /// What is kept.
        value: f32,
    },
}

impl Distribution {
    /// As (kind, a, b) of [`wire::Noise`].
    pub fn to_wire(self) -> (u32, f32, f32) {
        match self {
            Distribution::Uniform { low, high } => (0, low, high),
            Distribution::Normal { mean, std } => (1, mean, std),
            Distribution::Bernoulli { keep, value } => (2, keep, value),
        }
    }

    /// From (kind, a, b) of [`wire::Noise`].
    ///
    /// # Errors
    /// `UNSUPPORTED` for another kind, `MALFORMED` for numbers that are no parameters of it.
    pub fn from_wire(kind: u32, a: f32, b: f32) -> Result<Distribution> {
        let sound = a.is_finite() && b.is_finite();
        match kind {
            0 if sound && a <= b => Ok(Distribution::Uniform { low: a, high: b }),
            1 if sound && b >= 0.0 => Ok(Distribution::Normal { mean: a, std: b }),
            2 if sound && (0.0..=1.0).contains(&a) => Ok(Distribution::Bernoulli { keep: a, value: b }),
            0..=2 => Err(Error::new(Code::MALFORMED, format!("noise cannot have the numbers {a} and {b}"))),
            k => Err(Error::new(Code::UNSUPPORTED, format!("distribution {k} is unknown here"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_survives_the_wire() {
        let p = ParamSpec::new("lora_A.weight", &[8, 384])
            .site("encoder.layer.0.attention.self.query")
            .init(Init::KaimingUniform(5f64.sqrt()))
            .paddable(0)
            .neutral(Init::Computed(Value(7)))
            .no_decay()
            .head();
        assert_eq!(ParamSpec::try_from(wire::Param::from(p.clone())).unwrap(), p);
        let p = ParamSpec::new("vera_A", &[4, 32]).init(Init::Torch { seed: 1, skip: 2, bound: 0.5 }).fixed();
        assert_eq!(ParamSpec::try_from(wire::Param::from(p.clone())).unwrap(), p);
        let p = p.implied();
        assert_eq!(ParamSpec::try_from(wire::Param::from(p.clone())).unwrap(), p);
    }

    #[test]
    fn numbers_that_mean_nothing_are_refused() {
        assert!(Init::try_from(wire::Init { kind: 2, value: f64::NAN, ..wire::Init::default() }).is_err());
        assert_eq!(
            Init::try_from(wire::Init { kind: 99, ..wire::Init::default() }).unwrap_err().code,
            Code::UNSUPPORTED
        );
        assert!(Distribution::from_wire(2, 1.5, 1.0).is_err());
    }
}
