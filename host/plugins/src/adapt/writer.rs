//! [`GraphHost`] over the IR.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU32, Ordering};

use graft_graph::model::Model;
use graft_graph::sites::{Site, SiteKind, sites};
use graft_graph::{Attrs, Builder, DType, Dim, Graph, ValueId, fused, shape};
use graft_plugin_api::{self as api, Code, Error, Fact, Init, ParamSpec, Result, Role, Tensor, config, wire};
use indexmap::IndexSet;

use super::convert::{self, MAX_TENSOR};
use super::{Adapted, Matched, Noise, Param, Setting, State};
use crate::handles::BuiltValues;
use crate::host::GraphHost;

/// Most nodes that a method and an objective may add.
const MAX_NODES: usize = 50_000;

/// Most outputs of a node.
const MAX_OUTPUTS: u32 = 64;

/// Most bytes of constants that may be added.
const MAX_CONSTANTS: usize = 1 << 30;

/// Most parameters, settings, inputs and the like, together.
const MAX_INPUTS: usize = 100_000;

/// Operators whose tensor inputs (from, to) have one element type.
const SAME_TYPE: [(&str, usize, usize); 15] = [
    ("Add", 0, 2),
    ("Sub", 0, 2),
    ("Mul", 0, 2),
    ("Div", 0, 2),
    ("MatMul", 0, 2),
    ("Gemm", 0, 3),
    ("Max", 0, 64),
    ("Min", 0, 64),
    ("Sum", 0, 64),
    ("Mean", 0, 64),
    ("Concat", 0, 64),
    ("Equal", 0, 2),
    ("Greater", 0, 2),
    ("Less", 0, 2),
    ("Where", 1, 3),
];

/// Writes plugins' wishes into a graph.
pub(super) struct Writer {
    pub(super) graph: Graph,
    pub(super) base_nodes: usize,
    pub(super) sites: Vec<Site>,
    /// Replaced value → what stands in its place.
    pub(super) forward: HashMap<ValueId, ValueId>,
    /// Site → its replaced input.
    pub(super) inputs_now: HashMap<usize, ValueId>,
    model: Model,
    training: bool,
    head: bool,
    session: u64,
    /// Values that were given out; a handle is the place in this list.
    handles: RefCell<IndexSet<ValueId>>,
    constant_bytes: usize,
    /// Symbols as plugins see them → as the graph has them.
    symbols: BTreeMap<String, Dim>,
    params: Vec<Param>,
    settings: Vec<Setting>,
    noises: Vec<Noise>,
    states: Vec<State>,
    inputs: Vec<(String, ValueId)>,
    stopped: Vec<ValueId>,
    matched: Vec<Matched>,
    loss: Option<ValueId>,
    outputs: Vec<(String, ValueId)>,
}

impl Writer {
    pub(super) fn new(graph: Graph, model: Model, training: bool) -> Writer {
        static SESSION: AtomicU32 = AtomicU32::new(1);
        Writer {
            base_nodes: graph.nodes.len(),
            sites: sites(&graph),
            graph,
            forward: HashMap::new(),
            inputs_now: HashMap::new(),
            model,
            training,
            head: false,
            session: u64::from(SESSION.fetch_add(1, Ordering::Relaxed)) << 32,
            handles: RefCell::default(),
            constant_bytes: 0,
            symbols: BTreeMap::new(),
            params: Vec::new(),
            settings: Vec::new(),
            noises: Vec::new(),
            states: Vec::new(),
            inputs: Vec::new(),
            stopped: Vec::new(),
            matched: Vec::new(),
            loss: None,
            outputs: Vec::new(),
        }
    }

    /// From now on it is the objective that writes.
    pub(super) fn enter_head(&mut self) {
        self.head = true;
    }

    /// Gives the objective's outputs their names and makes them the graph's.
    pub(super) fn take_outputs(&mut self, built: &BuiltValues) -> Result<()> {
        let refuse = |what: String| Err(Error::new(Code::REFUSED, what));
        if self.training && built.loss.is_none() {
            return refuse("the objective built no loss for training".to_owned());
        }
        self.graph.outputs.clear();
        for (name, value) in &built.outputs {
            let value = self.value(*value)?;
            if self.outputs.iter().any(|(n, _)| n == name) {
                return refuse(format!("the objective has two outputs `{name}`"));
            }
            let value = self.named_output(name, value);
            self.outputs.push((name.clone(), value));
        }
        if let Some(loss) = built.loss {
            let loss = self.value(loss)?;
            let fact = self.graph.fact(loss);
            if fact.dtype != Some(DType::F32) || fact.shape.as_ref().is_none_or(|s| !s.is_empty()) {
                let shape = fact.shape.as_deref().map_or("unknown".to_owned(), graft_graph::dim::show);
                return refuse(format!("the loss must be an f32 scalar, its shape is {shape}"));
            }
            self.loss = Some(self.named_output("loss", loss));
        }
        let next: Vec<ValueId> = self.states.iter().filter_map(|s| s.next).collect();
        self.graph.outputs.extend(next);
        Ok(())
    }

    /// An output of its own: what is an input, a constant or an output already is copied.
    fn named_output(&mut self, name: &str, value: ValueId) -> ValueId {
        let made = self.graph.producers()[value.index()].is_some();
        let taken = !made || self.graph.outputs.contains(&value);
        let value = if taken { Builder::new(&mut self.graph, "output.").op("Identity", &[value]) } else { value };
        self.graph.rename(value, name);
        self.graph.outputs.push(value);
        value
    }

    pub(super) fn into_adapted(self) -> Adapted {
        let now = |v: Option<ValueId>| v.map(|v| self.current(v));
        let (hidden, pooled) = (now(self.model.hidden), now(self.model.pooled));
        Adapted {
            graph: self.graph,
            params: self.params,
            settings: self.settings,
            noises: self.noises,
            states: self.states,
            inputs: self.inputs,
            loss: self.loss,
            outputs: self.outputs,
            stopped: self.stopped,
            matched: self.matched,
            hidden,
            pooled,
        }
    }

    fn handle(&self, v: ValueId) -> u64 {
        let mut handles = self.handles.borrow_mut();
        let index = handles.insert_full(v).0;
        self.session | (index as u64 + 1)
    }

    pub(super) fn value(&self, handle: u64) -> Result<ValueId> {
        let index = (handle & 0xffff_ffff).checked_sub(1).filter(|_| handle & !0xffff_ffff == self.session);
        let known = index.and_then(|i| self.handles.borrow().get_index(i as usize).copied());
        let refuse = || Error::new(Code::REFUSED, "a value that is not of this call was used".to_owned());
        known.map(|v| self.current(v)).ok_or_else(refuse)
    }

    pub(super) fn site(&self, number: u32) -> Result<usize> {
        let index = (number as usize).checked_sub(1).filter(|i| *i < self.sites.len());
        index.ok_or_else(|| Error::new(Code::REFUSED, format!("there is no site number {number}")))
    }

    fn scope(&self, site: &str) -> String {
        match (site.is_empty(), self.head) {
            (true, true) => "head.".to_owned(),
            (true, false) => "adapter.".to_owned(),
            (false, _) => format!("{site}."),
        }
    }

    fn room_for_input(&self) -> Result<()> {
        let added = self.params.len() + self.settings.len() + self.noises.len() + self.states.len();
        if added + self.inputs.len() + self.matched.len() < MAX_INPUTS {
            return Ok(());
        }
        Err(Error::new(Code::LIMIT, format!("more than {MAX_INPUTS} parameters and inputs")))
    }

    /// The dimensions of a new input, in the graph's own symbols.
    fn dims(&self, shape: Vec<wire::Dim>) -> Result<Vec<Dim>> {
        let one = |d: wire::Dim| match api::Dim::from(d) {
            api::Dim::Known(n) => i64::try_from(n).map(Dim::from).ok(),
            api::Dim::Symbol(s) => Some(self.symbols.get(&s).cloned().unwrap_or_else(|| Dim::symbol(s))),
            api::Dim::Unknown => None,
        };
        let dims: Option<Vec<Dim>> = shape.into_iter().map(one).collect();
        dims.ok_or_else(|| Error::new(Code::REFUSED, "a dimension of the new input is unknown".to_owned()))
    }

    fn check_operator(&self, node: &wire::Emit) -> Result<()> {
        if node.outputs == 0 || node.outputs > MAX_OUTPUTS {
            return Err(Error::new(Code::LIMIT, format!("`{}` with {} outputs", node.op, node.outputs)));
        }
        if self.graph.nodes.len() - self.base_nodes >= MAX_NODES {
            return Err(Error::new(Code::LIMIT, format!("more than {MAX_NODES} nodes were added")));
        }
        let known = match node.domain.as_str() {
            "" => shape::supported().any(|o| o == node.op),
            domain => fused::find(domain, &node.op).is_some(),
        };
        if known {
            return Ok(());
        }
        let full = if node.domain.is_empty() { node.op.clone() } else { format!("{}::{}", node.domain, node.op) };
        let e = Error::new(Code::UNSUPPORTED, format!("operator `{full}` is not one that this host can infer"));
        if node.op.starts_with("Random") || node.op == "Bernoulli" {
            return Err(e.help("random numbers come in through `noise`"));
        }
        let near = config::nearest(&node.op, shape::supported(), 3).join(", ");
        Err(if near.is_empty() { e } else { e.help(format!("the nearest are {near}")) })
    }

    fn check_types(&self, op: &str, inputs: &[Option<ValueId>]) -> Result<()> {
        let Some((_, from, to)) = SAME_TYPE.iter().find(|(o, _, _)| *o == op) else { return Ok(()) };
        let ids = inputs.iter().take(*to).skip(*from).flatten();
        let types: BTreeSet<DType> = ids.filter_map(|v| self.graph.dtype(*v)).collect();
        if types.len() < 2 {
            return Ok(());
        }
        let types: Vec<_> = types.iter().map(|t| t.name()).collect();
        Err(Error::new(Code::REFUSED, format!("`{op}` was given {}", types.join(" and "))).help("insert a Cast"))
    }

    /// The last node's result must be known, unless it depends on data.
    fn check_result(&mut self, op: &str, inputs: &[Option<ValueId>], output: ValueId) -> Result<()> {
        let g = &self.graph;
        let whole = |v: &ValueId| g.dtype(*v).is_some() && g.shape(*v).is_some();
        let by_data = |v: &ValueId| {
            let integer = g.dtype(*v).is_some_and(|d| !d.is_float());
            integer && g.fact(*v).elements.is_none() && g.constant(*v).is_none()
        };
        let given: Vec<ValueId> = inputs.iter().flatten().copied().collect();
        let excused = !given.iter().all(whole) || given.iter().skip(1).any(by_data);
        if g.shape(output).is_some() || excused {
            return Ok(());
        }
        let shapes: Vec<String> =
            given.iter().filter_map(|v| g.shape(*v)).map(|s| graft_graph::dim::show(s)).collect();
        self.graph.nodes.pop();
        Err(Error::new(Code::REFUSED, format!("`{op}` has no result for {}", shapes.join(" and "))))
    }

    fn initializer_named(&self, name: &str) -> Result<ValueId> {
        let found = self.graph.find(name).filter(|v| self.graph.constant(*v).is_some());
        found.ok_or_else(|| Error::new(Code::REFUSED, format!("the base has no initializer `{name}`")))
    }
}

impl GraphHost for Writer {
    fn emit(&mut self, node: wire::Emit) -> Result<Vec<u64>> {
        self.check_operator(&node)?;
        let id = |i: &u64| if *i == 0 { Ok(None) } else { self.value(*i).map(Some) };
        let inputs: Vec<Option<ValueId>> = node.inputs.iter().map(id).collect::<Result<_>>()?;
        self.check_types(&node.op, &inputs)?;
        let attrs: Attrs = convert::attrs(node.attrs)?;
        let scope = self.scope(&node.site);
        let mut b = Builder::new(&mut self.graph, scope);
        let made = b.emit(&node.op, &node.domain, &inputs, attrs, node.outputs as usize);
        if let Some(first) = made.first() {
            self.check_result(&node.op, &inputs, *first)?;
        }
        Ok(made.into_iter().map(|v| self.handle(v)).collect())
    }

    fn constant(&mut self, tensor: Tensor) -> Result<u64> {
        self.constant_bytes = self.constant_bytes.saturating_add(tensor.data.len()).saturating_add(64);
        if self.constant_bytes > MAX_CONSTANTS {
            return Err(Error::new(Code::LIMIT, format!("more than {MAX_CONSTANTS} bytes of constants")));
        }
        let tensor = convert::to_graph_tensor(tensor)?;
        let scope = self.scope("");
        let v = Builder::new(&mut self.graph, scope).constant(tensor);
        Ok(self.handle(v))
    }

    fn fact(&mut self, value: u64) -> Result<Fact> {
        let fact = self.graph.fact(self.value(value)?);
        for d in fact.shape.iter().flatten().filter(|d| d.known().is_none()) {
            self.symbols.insert(d.to_string(), d.clone());
        }
        Ok(convert::fact(fact))
    }

    fn param(&mut self, spec: ParamSpec) -> Result<u64> {
        self.room_for_input()?;
        let name = match &spec.site {
            Some(site) => format!("{site}.{}", spec.key),
            None => spec.key.clone(),
        };
        if spec.key.is_empty() || spec.dtype != api::DType::F32 {
            let what = format!("parameter `{name}` needs a key and the element type f32");
            return Err(Error::new(Code::REFUSED, what));
        }
        if let Some(path) = &spec.site
            && !self.sites.iter().any(|s| s.path == *path)
        {
            return Err(Error::new(Code::REFUSED, format!("parameter `{name}`: there is no site `{path}`")));
        }
        let shape = convert::extents(&spec.shape, DType::F32, MAX_TENSOR)?;
        if shape.contains(&0) || spec.paddable.iter().any(|a| *a as usize >= shape.len()) {
            let what = format!("parameter `{name}` has shape {shape:?} and paddable axes {:?}", spec.paddable);
            return Err(Error::new(Code::REFUSED, what));
        }
        let given = [&spec.init, &spec.neutral].into_iter().filter_map(|i| match i {
            Init::Given(t) => Some(t),
            _ => None,
        });
        for t in given {
            convert::check_tensor(t)?;
            if t.shape != shape || t.dtype != spec.dtype {
                let what = format!("parameter `{name}` of shape {shape:?} starts with shape {:?}", t.shape);
                return Err(Error::new(Code::REFUSED, what));
            }
        }
        if let Some(p) = self.params.iter().find(|p| p.key == spec.key && p.site == spec.site) {
            if p.shape == shape && p.init == spec.init && p.role == self.role() {
                return Ok(self.handle(p.value));
            }
            return Err(Error::new(Code::REFUSED, format!("parameter `{name}` is declared already, otherwise")));
        }
        let value = self.graph.add_input(&name, DType::F32, shape.iter().map(|d| Dim::from(*d)).collect());
        self.params.push(Param {
            value,
            name: self.graph.name_of(value).to_owned(),
            key: spec.key,
            site: spec.site,
            decay: spec.decay == api::Decay::Auto && shape.len() > 1,
            shape,
            dtype: DType::F32,
            init: spec.init,
            neutral: spec.neutral,
            paddable: spec.paddable.iter().map(|a| *a as usize).collect(),
            role: self.role(),
            base: None,
            used: true,
        });
        Ok(self.handle(value))
    }

    fn setting(&mut self, s: wire::Setting) -> Result<u64> {
        self.room_for_input()?;
        let site = (!s.site.is_empty()).then_some(s.site);
        if let Some(known) = self.settings.iter().find(|k| k.name == s.name && k.site == site) {
            if known.number.to_bits() == s.value.to_bits() {
                return Ok(self.handle(known.value));
            }
            let what = format!("setting `{}` is {} already, not {}", s.name, known.number, s.value);
            return Err(Error::new(Code::REFUSED, what).help("use `setting_at` for a number of each site"));
        }
        let stem = format!("{}setting.{}", self.scope(site.as_deref().unwrap_or_default()), s.name);
        let value = self.graph.add_input(&stem, DType::F32, Vec::new());
        let input = self.graph.name_of(value).to_owned();
        self.settings.push(Setting { value, input, name: s.name, site, number: s.value });
        Ok(self.handle(value))
    }

    fn state(&mut self, s: wire::State) -> Result<u64> {
        self.room_for_input()?;
        if self.states.iter().any(|k| k.name == s.name) {
            return Err(Error::new(Code::REFUSED, format!("there is a state `{}` already", s.name)));
        }
        let dtype = convert::dtype(api::DType(s.dtype))?;
        let shape = convert::extents(&s.shape, dtype, MAX_TENSOR)?;
        let init = s.init.map_or(Ok(Init::Zeros), Init::try_from)?;
        let dims = shape.iter().map(|d| Dim::from(*d)).collect();
        let value = self.graph.add_input(&format!("state.{}", s.name), dtype, dims);
        self.states.push(State { value, name: s.name, shape, dtype, init, next: None });
        Ok(self.handle(value))
    }

    fn set_state(&mut self, name: &str, next: u64) -> Result<()> {
        let next = self.value(next)?;
        let index = self.states.iter().position(|s| s.name == name);
        let index =
            index.ok_or_else(|| Error::new(Code::REFUSED, format!("there is no state `{name}`")))?;
        self.must_fit(self.states[index].value, next)?;
        self.states[index].next = Some(next);
        Ok(())
    }

    fn stop_gradient(&mut self, value: u64) -> Result<u64> {
        let value = self.value(value)?;
        let scope = self.scope("");
        let stopped = Builder::new(&mut self.graph, scope).op("Identity", &[value]);
        self.stopped.push(stopped);
        Ok(self.handle(stopped))
    }

    fn noise(&mut self, n: wire::Noise) -> Result<Option<u64>> {
        self.room_for_input()?;
        let distribution = api::Distribution::from_wire(n.kind, n.a, n.b)?;
        let shape = self.dims(n.shape)?;
        if !self.training {
            return Ok(None);
        }
        let fed: BTreeSet<String> = self
            .model
            .inputs
            .iter()
            .filter_map(|(v, _)| self.graph.shape(*v))
            .flat_map(|s| s.iter().flat_map(|d| d.symbols().map(str::to_owned).collect::<Vec<_>>()))
            .collect();
        if let Some(s) = shape.iter().flat_map(|d| d.symbols()).find(|s| !fed.contains(*s)) {
            let what = format!("noise `{}` of shape {}", n.name, graft_graph::dim::show(&shape));
            let e = Error::new(Code::REFUSED, format!("{what}: `{s}` is no dimension of the base's inputs"));
            return Err(e);
        }
        let stem = format!("{}noise.{}", self.scope(&n.site), n.name);
        let value = self.graph.add_input(&stem, DType::F32, shape.clone());
        let name = self.graph.name_of(value).to_owned();
        self.noises.push(Noise { value, name, shape, distribution });
        Ok(Some(self.handle(value)))
    }

    fn input(&mut self, i: wire::Input) -> Result<u64> {
        self.room_for_input()?;
        if i.name.is_empty() || self.inputs.iter().any(|(n, _)| *n == i.name) {
            return Err(Error::new(Code::REFUSED, format!("there is an input `{}` already", i.name)));
        }
        let (dtype, shape) = (convert::dtype(api::DType(i.dtype))?, self.dims(i.shape)?);
        let value = self.graph.add_input(&i.name, dtype, shape);
        self.inputs.push((i.name, value));
        Ok(self.handle(value))
    }

    fn train_base(&mut self, initializer: &str) -> Result<u64> {
        self.room_for_input()?;
        if let Some(p) = self.params.iter().find(|p| p.base.as_deref() == Some(initializer)) {
            return Ok(self.handle(p.value));
        }
        let value = self.initializer_named(initializer)?;
        if self.graph.dtype(value) != Some(DType::F32) {
            let what = format!("initializer `{initializer}` is not of f32 and cannot be trained");
            return Err(Error::new(Code::REFUSED, what));
        }
        let Some(tensor) = self.graph.remove_constant(value) else {
            return Err(Error::new(Code::REFUSED, format!("`{initializer}` is no initializer")));
        };
        self.graph.inputs.push(value);
        let start = Tensor {
            name: initializer.to_owned(),
            dtype: api::DType::F32,
            shape: tensor.shape().to_vec(),
            data: tensor.bytes().to_vec(),
        };
        self.params.push(Param {
            value,
            name: initializer.to_owned(),
            key: initializer.to_owned(),
            site: None,
            decay: tensor.shape().len() > 1,
            shape: tensor.shape().to_vec(),
            dtype: DType::F32,
            init: Init::Given(start.clone()),
            neutral: Init::Given(start),
            paddable: Vec::new(),
            role: self.role(),
            base: Some(initializer.to_owned()),
            used: true,
        });
        Ok(self.handle(value))
    }

    fn initializer(&mut self, name: &str) -> Result<u64> {
        let trained = self.params.iter().find(|p| p.base.as_deref() == Some(name)).map(|p| p.value);
        let value = trained.map_or_else(|| self.initializer_named(name), Ok)?;
        Ok(self.handle(value))
    }

    fn sites(&mut self) -> Result<Vec<wire::Site>> {
        let kind = |k| match k {
            SiteKind::Linear => api::SiteKind::LINEAR,
            SiteKind::Embedding => api::SiteKind::EMBEDDING,
            SiteKind::Norm => api::SiteKind::NORM,
            SiteKind::Conv => api::SiteKind::CONV,
        };
        let name = |v: Option<ValueId>| v.map(|v| self.graph.name_of(v).to_owned()).unwrap_or_default();
        let site = |(i, s): (usize, &Site)| wire::Site {
            path: s.path.clone(),
            kind: kind(s.kind).0,
            input: self.handle(self.inputs_now.get(&i).copied().unwrap_or(s.input)),
            output: self.handle(s.output),
            weight: name(Some(s.weight)),
            bias: name(s.bias),
            in_features: s.in_features as u64,
            out_features: s.out_features as u64,
            transposed: !s.weight_is_out_in,
            number: i as u32 + 1,
        };
        Ok(self.sites.iter().enumerate().map(site).collect())
    }

    fn replace_output(&mut self, site: u32, value: u64) -> Result<()> {
        self.put_output(site, value)
    }

    fn replace_input(&mut self, site: u32, value: u64) -> Result<()> {
        self.put_input(site, value)
    }

    fn hidden(&mut self) -> Result<u64> {
        match self.model.hidden {
            Some(v) => Ok(self.handle(v)),
            None => Err(Error::new(Code::REFUSED, "the base has no hidden states".to_owned())
                .help("name the value with --hidden")),
        }
    }

    fn pooled(&mut self) -> Result<Option<u64>> {
        Ok(self.model.pooled.map(|v| self.handle(v)))
    }

    fn model_input(&mut self, role: &str) -> Result<Option<u64>> {
        let found = self.model.inputs.iter().find(|(_, r)| r.name() == role);
        Ok(found.map(|(v, _)| self.handle(*v)))
    }

    fn training(&mut self) -> Result<bool> {
        Ok(self.training)
    }

    fn matched(&mut self, m: wire::Matched) -> Result<()> {
        self.room_for_input()?;
        self.matched.push(Matched { pattern: m.pattern, matched: m.matched, unmatched: m.unmatched });
        Ok(())
    }
}

impl Writer {
    fn role(&self) -> Role {
        if self.head { Role::Head } else { Role::Adapter }
    }
}
