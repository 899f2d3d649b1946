//! Gradients against central finite differences.

use graft_graph::grad::{expose, grad};
use graft_graph::{Attrs, DType, Dim, Fact, Graph, Node, Shape, Tensor, ValueId, cse, fused, onnx, shape};
use graft_runtime::{Runtime, Session, SessionOptions, SessionSource};

use crate::draw::Array;

/// How well a gradient must agree with the differences, and in which precision both are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tolerance {
    /// Operators that are linear in each input, in f64: differences have no error but rounding.
    Exact,
    /// Smooth operators in f64: differences have an error of second order in the step.
    Close,
    /// In f32, where the provider has no f64 kernel of an operator of the forward or backward pass.
    Approximate,
}

impl Tolerance {
    /// The float type that the case is computed in.
    pub fn dtype(self) -> DType {
        if self == Tolerance::Approximate { DType::F32 } else { DType::F64 }
    }

    /// Half the distance of the two points that a difference is taken over.
    fn step(self) -> f64 {
        match self {
            Tolerance::Exact => 1e-3,
            Tolerance::Close => 1e-5,
            Tolerance::Approximate => 1e-2,
        }
    }

    /// Largest error, relative to the largest element of the gradient (or to 1, where that is smaller).
    fn bound(self) -> f64 {
        match self {
            Tolerance::Exact => 1e-10,
            Tolerance::Close => 1e-7,
            Tolerance::Approximate => 2e-3,
        }
    }
}

/// An input of the operator under test.
#[derive(Debug, Clone)]
pub enum Arg {
    /// A float graph input that gradients may be taken of.
    Float(Array),
    /// A graph input of another type: a condition, indices.
    Held(Tensor),
    /// An initializer.
    Constant(Tensor),
    /// A float initializer, of the precision that the case is computed in.
    Fixed(Array),
    /// An optional input that is left out.
    Missing,
}

/// One operator application with its inputs.
#[derive(Debug, Clone)]
pub struct Case {
    /// Operator of ONNX's own domain, or `graft::Operator`.
    pub op: &'static str,
    /// Attributes.
    pub attrs: Attrs,
    /// Inputs.
    pub args: Vec<Arg>,
    /// Number of outputs.
    pub outputs: usize,
    /// The operator's result can only be described when sizes are known.
    pub needs_sizes: bool,
}

/// What a graph says of the sizes of its inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sizes {
    /// Numbers.
    Known,
    /// One symbol for each size: equal sizes are known to be equal.
    Shared,
    /// A symbol for each axis: nothing is known, and what broadcasts is found at run time.
    Own,
}

/// Numbers as a tensor of f32 or f64.
pub fn tensor(array: &Array, dtype: DType) -> Tensor {
    let made = match dtype {
        DType::F32 => {
            Tensor::new(array.shape.clone(), &array.values.iter().map(|v| *v as f32).collect::<Vec<_>>())
        }
        _ => Tensor::new(array.shape.clone(), &array.values),
    };
    made.expect("an array has as many values as its shape asks for")
}

impl Case {
    /// The graph of the one node, the float inputs, and what all inputs are fed.
    pub fn graph(&self, sizes: Sizes, dtype: DType) -> (Graph, Vec<ValueId>, Vec<(String, Tensor)>) {
        let mut g = Graph::new(self.op, opset(self.op));
        let (mut inputs, mut floats, mut fed) = (Vec::new(), Vec::new(), Vec::new());
        for (k, arg) in self.args.iter().enumerate() {
            let name = format!("x{k}");
            let mut input = |g: &mut Graph, t: Tensor| {
                let v = g.add_input(&name, t.dtype(), declared(&t, &name, sizes));
                fed.push((name.clone(), t));
                v
            };
            inputs.push(match arg {
                Arg::Float(a) => {
                    let v = input(&mut g, tensor(a, dtype));
                    floats.push(v);
                    Some(v)
                }
                Arg::Held(t) => Some(input(&mut g, t.clone())),
                Arg::Constant(t) => Some(g.add_constant(&name, t.clone())),
                Arg::Fixed(a) => Some(g.add_constant(&name, tensor(a, dtype))),
                Arg::Missing => None,
            });
        }
        g.outputs = (0..self.outputs).map(|k| g.add_value(&format!("y{k}"), Fact::default())).collect();
        let (domain, op) = self.op.split_once("::").unwrap_or(("", self.op));
        if let Some(own) = fused::find(domain, op) {
            fused::declare(&mut g, own);
        }
        g.nodes.push(Node {
            op: op.into(),
            domain: domain.into(),
            name: format!("/module/{}", self.op),
            inputs,
            outputs: g.outputs.iter().copied().map(Some).collect(),
            attrs: self.attrs.clone(),
            ..Node::default()
        });
        shape::infer(&mut g);
        (g, floats, fed)
    }
}

/// The working operator set, or the first one that has the operator.
fn opset(op: &str) -> i64 {
    match op {
        "RMSNormalization" => 23,
        "Swish" => 24,
        _ => onnx::WORKING_OPSET,
    }
}

fn declared(t: &Tensor, name: &str, sizes: Sizes) -> Shape {
    let dim = |(k, n): (usize, &usize)| match sizes {
        // A list of axes or sizes has a known length; what is in it need not be known.
        _ if t.dtype() == DType::I64 && t.shape().len() == 1 => Dim::from(*n),
        Sizes::Known => Dim::from(*n),
        Sizes::Shared => Dim::symbol(format!("n{n}")),
        Sizes::Own => Dim::symbol(format!("{name}_{k}")),
    };
    t.shape().iter().enumerate().map(dim).collect()
}

/// Numbers of several tensors, row-major.
pub type Numbers = Vec<Vec<f64>>;

/// A graph and its gradient graph, both loaded.
pub struct Derived {
    forward: Session,
    gradient: Session,
    outputs: Vec<String>,
    wrt: Vec<String>,
}

impl Derived {
    /// Derives the gradients of all outputs with respect to `wrt`, which are inputs. With `join`, equal nodes are
    /// joined first, as they are in training.
    ///
    /// # Errors
    /// What the derivation or ONNX Runtime says.
    pub fn new(
        runtime: &'static Runtime,
        graph: &Graph,
        wrt: &[ValueId],
        join: bool,
    ) -> Result<Derived, String> {
        Derived::with_stand_in(runtime, graph, wrt, join, &|_| {})
    }

    /// As [`Derived::new`]; before either graph is loaded, `stand_in` puts other operators in the place of those that
    /// the runtime has no kernel of in the precision of the case.
    ///
    /// # Errors
    /// As [`Derived::new`].
    pub fn with_stand_in(
        runtime: &'static Runtime,
        graph: &Graph,
        wrt: &[ValueId],
        join: bool,
        stand_in: &dyn Fn(&mut Graph),
    ) -> Result<Derived, String> {
        let mut g = graph.clone();
        let mut seeds = Vec::new();
        // Indices have no gradients.
        let is_float = |v: &ValueId| graph.dtype(*v).is_none_or(DType::is_float);
        let float_outputs: Vec<ValueId> = graph.outputs.iter().copied().filter(is_float).collect();
        for o in float_outputs.iter().copied() {
            let fact = g.fact(o).clone();
            let shape = fact.shape.ok_or("the shape of an output is not inferred")?;
            let dtype = fact.dtype.ok_or("the type of an output is not inferred")?;
            let name = format!("ct:{}", g.name_of(o));
            seeds.push((o, g.add_input(&name, dtype, shape)));
        }
        let grads = grad(&mut g, &seeds, wrt, &[]).map_err(|e| e.to_string())?;
        for (v, d) in wrt.iter().zip(&grads) {
            if g.dtype(*d) != g.dtype(*v) {
                return Err(format!("a gradient of type {:?} for {:?}", g.dtype(*d), g.dtype(*v)));
            }
        }
        let names = |ids: &[ValueId]| -> Vec<String> { ids.iter().map(|v| g.name_of(*v).into()).collect() };
        let (outputs, wrt) = (names(&float_outputs), names(wrt));
        g.outputs.clear();
        expose(&mut g, &grads, &wrt);
        if join {
            cse::join_equal(&mut g);
        }
        let load = |graph: &Graph, name: &str| {
            let options = SessionOptions { name: name.into(), threads: Some(1), ..SessionOptions::default() };
            let mut graph = graph.clone();
            stand_in(&mut graph);
            Session::new(runtime, &SessionSource::plain(onnx::to_bytes(&graph)), &options)
                .map_err(|e| e.to_string())
        };
        Ok(Derived { forward: load(graph, "forward")?, gradient: load(&g, "gradient")?, outputs, wrt })
    }

    fn outputs(&mut self, fed: &[(String, Tensor)]) -> Result<Vec<Tensor>, String> {
        let fed: Vec<(&str, &Tensor)> = fed.iter().map(|(n, t)| (n.as_str(), t)).collect();
        let names: Vec<&str> = self.outputs.iter().map(String::as_str).collect();
        let run = self.forward.run(&fed, &names).map_err(|e| e.to_string())?;
        names.iter().map(|n| run.tensor(n).map_err(|e| e.to_string())).collect()
    }

    /// The gradients of `Σ ct·output`, where `ct` are the numbers that `next` gives, and the cotangents.
    ///
    /// # Errors
    /// What ONNX Runtime says, and a gradient whose shape is not that of its value.
    pub fn gradients(
        &mut self,
        fed: &[(String, Tensor)],
        next: &mut dyn FnMut() -> f64,
    ) -> Result<(Numbers, Numbers), String> {
        let mut all = fed.to_vec();
        let mut cotangents = Vec::new();
        for (name, y) in self.outputs.clone().iter().zip(self.outputs(fed)?) {
            let ct = Array { shape: y.shape().to_vec(), values: (0..y.len()).map(|_| next()).collect() };
            all.push((format!("ct:{name}"), tensor(&ct, y.dtype())));
            cotangents.push(ct.values);
        }
        let read: Vec<(&str, &Tensor)> = all.iter().map(|(n, t)| (n.as_str(), t)).collect();
        let names: Vec<String> = self.wrt.iter().map(|n| format!("grad:{n}")).collect();
        let wanted: Vec<&str> = names.iter().map(String::as_str).collect();
        let run = self.gradient.run(&read, &wanted).map_err(|e| e.to_string())?;
        let mut grads = Vec::new();
        for (name, x) in names.iter().zip(&self.wrt) {
            let g = run.tensor(name).map_err(|e| e.to_string())?;
            let like = fed.iter().find(|(n, _)| n == x).ok_or("gradients are taken of what is fed")?;
            if g.shape() != like.1.shape() {
                return Err(format!("{name} has shape {:?}, {x} has {:?}", g.shape(), like.1.shape()));
            }
            grads.push(g.to_f64s().ok_or("gradients are floats")?);
        }
        Ok((grads, cotangents))
    }

    /// Compares every element of every gradient with a central difference.
    ///
    /// # Errors
    /// What differs, and what ONNX Runtime says.
    pub fn check(
        &mut self,
        fed: &[(String, Tensor)],
        tolerance: Tolerance,
        next: &mut dyn FnMut() -> f64,
    ) -> Result<(), String> {
        let (grads, cotangents) = self.gradients(fed, next)?;
        for (name, grad) in self.wrt.clone().iter().zip(&grads) {
            let scale = grad.iter().fold(1f64, |m, g| m.max(g.abs()));
            for (i, g) in grad.iter().enumerate() {
                let d = self.difference(fed, name, i, tolerance.step(), &cotangents)?;
                // A number that is none is no agreement.
                let agrees = (d - g).abs() <= tolerance.bound() * scale;
                if !agrees {
                    return Err(format!("grad:{name}[{i}] is {g}, the difference quotient is {d}"));
                }
            }
        }
        Ok(())
    }

    fn difference(
        &mut self,
        fed: &[(String, Tensor)],
        name: &str,
        i: usize,
        step: f64,
        cotangents: &[Vec<f64>],
    ) -> Result<f64, String> {
        let mut at = |by: f64| -> Result<(f64, f64), String> {
            let mut moved = fed.to_vec();
            let x = moved.iter_mut().find(|(n, _)| n == name).ok_or("no such input")?;
            let mut values = x.1.to_f64s().ok_or("no float input")?;
            values[i] += by;
            x.1 = tensor(&Array { shape: x.1.shape().to_vec(), values }, x.1.dtype());
            // What was really added: f32 rounds.
            let there = x.1.to_f64s().ok_or("no float input")?[i];
            let outputs = self.outputs(&moved)?;
            let sum = |(y, ct): (&Tensor, &Vec<f64>)| -> f64 {
                y.to_f64s().unwrap_or_default().iter().zip(ct).map(|(y, c)| y * c).sum()
            };
            Ok((outputs.iter().zip(cotangents).map(sum).sum(), there))
        };
        let ((up, high), (down, low)) = (at(step)?, at(-step)?);
        Ok((up - down) / (high - low))
    }
}
