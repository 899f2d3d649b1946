//! What parameters begin as that is computed from the base's weights.

use graft_graph::Graph;
use graft_plugin_api::{Code, Course, Error, Init, ParamSpec, Result, Role};

use super::Start;
use super::writer::Writer;

impl Writer {
    /// Numbers of PyTorch's must come within reason; a computed beginning must be made of constants alone, and have the parameter's shape.
    pub(super) fn check_start(&self, name: &str, init: &Init, shape: &[usize]) -> Result<()> {
        if let Init::Torch { skip, bound, .. } = init
            && (*skip > u64::from(u32::MAX) || !bound.is_finite())
        {
            let what = format!("parameter `{name}` begins as numbers within {bound} after {skip} others");
            return Err(
                Error::new(Code::REFUSED, what).help("both are to be finite, and no more than 2^32 skipped")
            );
        }
        let Init::Computed(handle) = init else { return Ok(()) };
        let value = self.value(handle.id())?;
        let refuse =
            |what: String| Err(Error::new(Code::REFUSED, format!("parameter `{name}` begins as {what}")));
        let fact = self.graph.fact(value);
        let known: Option<Vec<usize>> =
            fact.shape.as_ref().and_then(|s| s.iter().map(|d| usize::try_from(d.known()?).ok()).collect());
        if fact.dtype != Some(graft_graph::DType::F32) || known.as_deref() != Some(shape) {
            return refuse(format!("a value of another type or shape than its own, f32 {shape:?}"));
        }
        let base = |v| self.params.iter().any(|p| p.base.is_some() && p.value == v);
        match self.foreign_input(value, base) {
            Some(v) => refuse(format!(
                "what depends on `{}`: only weights of the base are known before training",
                self.graph.name_of(v)
            )),
            None => Ok(()),
        }
    }

    /// What is not trained is a method's; what an adapter does not hold begins alike in every run and on every base.
    pub(super) fn check_course(&self, name: &str, spec: &ParamSpec) -> Result<()> {
        let drawn_anew = match spec.init {
            Init::Zeros | Init::Ones | Init::Full(_) | Init::Torch { .. } | Init::Given(_) => false,
            Init::Normal(_)
            | Init::Uniform(_)
            | Init::KaimingUniform(_)
            | Init::XavierUniform
            | Init::Rows { .. }
            | Init::Computed(_) => true,
        };
        let what = match spec.course {
            Course::Trained => return Ok(()),
            _ if self.role() == Role::Head => "is a head's, and those are all trained",
            Course::Implied if drawn_anew => {
                "is not held by the adapter, but begins as the seed of a run or the base says"
            }
            _ => return Ok(()),
        };
        Err(Error::new(Code::REFUSED, format!("parameter `{name}` {what}")))
    }

    /// The graph of [`super::Adapted::starts`].
    pub(super) fn starts(&self) -> Graph {
        let of = |init: &Start| match init {
            Start::Asked(Init::Computed(handle)) => self.value(handle.id()).ok(),
            _ => None,
        };
        let outputs: Vec<_> = self.params.iter().filter_map(|p| of(&p.init)).collect();
        if outputs.is_empty() {
            return Graph::new("starts", self.graph.opset());
        }
        let mut graph = self.graph.cut_to(&outputs);
        // Weights that are trained too are inputs by now: here they are what they were.
        for p in &self.params {
            if let Start::Base(tensor) = &p.init {
                graph.set_constant(p.value, tensor.clone());
            }
        }
        graph.inputs.clear();
        graph.remove_dead();
        graph
    }
}
