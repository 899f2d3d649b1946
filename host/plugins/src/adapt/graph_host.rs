//! [`GraphHost`] over the IR.

use std::collections::BTreeSet;

use graft_graph::{Attrs, Builder, DType, Dim, ValueId, dim};
use graft_plugin_api::{self as api, Code, Error, Fact, Init, ParamSpec, Result, Tensor, wire};

use super::convert::{self, MAX_TENSOR};
use super::writer::Writer;
use super::{Matched, Noise, Param, Setting, Start, State};
use crate::host::GraphHost;

/// Most bytes of constants that may be added.
const MAX_CONSTANTS: usize = 1 << 30;

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
        made.iter().for_each(|v| self.remember(*v, &node.place));
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
            && !self
                .sites
                .iter()
                .map(|s| &s.path)
                .chain(self.attentions.iter().map(|s| &s.path))
                .chain(self.residuals.iter().map(|s| &s.path))
                .any(|p| p == path)
        {
            return Err(Error::new(Code::REFUSED, format!("parameter `{name}`: there is no site `{path}`")));
        }
        let shape = convert::extents(&spec.shape, DType::F32, MAX_TENSOR)?;
        if shape.contains(&0) || spec.paddable.iter().any(|a| *a as usize >= shape.len()) {
            let what =
                format!("parameter `{name}` has shape {shape:?} and paddable axes {:?}", spec.paddable);
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
        for init in [&spec.init, &spec.neutral] {
            self.check_start(&name, init, &shape)?;
        }
        self.check_course(&name, &spec)?;
        if let Some(p) = self.params.iter().find(|p| p.key == spec.key && p.site == spec.site) {
            let same = p.course == spec.course && p.role == self.role();
            if p.shape == shape && alike(&p.init, &spec.init) && same {
                return Ok(self.handle(p.value));
            }
            return Err(Error::new(
                Code::REFUSED,
                format!("parameter `{name}` is declared already, otherwise"),
            ));
        }
        let value = self.graph.add_input(&name, DType::F32, shape.iter().map(|d| Dim::from(*d)).collect());
        self.params.push(Param {
            value,
            name: self.graph.name_of(value).to_owned(),
            key: spec.key,
            site: spec.site,
            decay: spec.decay == api::Decay::Auto && shape.len() > 1,
            rate: None,
            shape,
            dtype: DType::F32,
            init: Start::Asked(spec.init),
            neutral: Start::Asked(spec.neutral),
            paddable: spec.paddable.iter().map(|a| *a as usize).collect(),
            role: self.role(),
            base: None,
            course: spec.course,
            used: true,
        });
        self.remember(value, &spec.place);
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
        if matches!(init, Init::Computed(_)) {
            return Err(Error::new(
                Code::UNSUPPORTED,
                format!("state `{}` begins as a computed value", s.name),
            ));
        }
        let dims = shape.iter().map(|d| Dim::from(*d)).collect();
        let value = self.graph.add_input(&format!("state.{}", s.name), dtype, dims);
        self.states.push(State { value, name: s.name, shape, dtype, init, next: None });
        Ok(self.handle(value))
    }

    fn set_state(&mut self, name: &str, next: u64) -> Result<()> {
        let next = self.value(next)?;
        let index = self.states.iter().position(|s| s.name == name);
        let index = index.ok_or_else(|| Error::new(Code::REFUSED, format!("there is no state `{name}`")))?;
        self.must_fit(self.states[index].value, next)?;
        self.states[index].next = Some(next);
        Ok(())
    }

    fn stop_gradient(&mut self, value: u64, place: &str) -> Result<u64> {
        let value = self.value(value)?;
        let scope = self.scope("");
        let stopped = Builder::new(&mut self.graph, scope).op("Identity", &[value]);
        self.stopped.push(stopped);
        self.remember(stopped, place);
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
            let what = format!("noise `{}` of shape {}", n.name, dim::show(&shape));
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
        self.params.push(Param {
            value,
            name: initializer.to_owned(),
            key: initializer.to_owned(),
            site: None,
            decay: tensor.shape().len() > 1,
            rate: None,
            shape: tensor.shape().to_vec(),
            dtype: DType::F32,
            init: Start::Base(tensor.clone()),
            neutral: Start::Base(tensor),
            paddable: Vec::new(),
            role: self.role(),
            base: Some(initializer.to_owned()),
            course: api::Course::Trained,
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
        Ok(self.all_sites())
    }

    fn replace_output(&mut self, site: u32, value: u64) -> Result<()> {
        self.put_output(site, value)
    }

    fn replace_input(&mut self, site: u32, value: u64) -> Result<()> {
        self.put_input(site, value)
    }

    fn replace_attention(&mut self, r: wire::ReplaceAttention) -> Result<()> {
        let bias = if r.bias == 0 { None } else { Some(self.value(r.bias)?) };
        let (key, value) = (self.value(r.key)?, self.value(r.value)?);
        self.put_attention(r.site, key, value, bias)
    }

    fn virtual_tokens(&mut self, asked: wire::VirtualTokens) -> Result<()> {
        self.begin_virtual(&asked)
    }

    fn put_virtual(&mut self, r: wire::PutVirtual) -> Result<u64> {
        let (value, rows) = (self.value(r.value)?, self.value(r.rows)?);
        let put = self.put_at_virtual(value, rows, r.axis as usize)?;
        Ok(self.handle(put))
    }

    fn words(&mut self) -> Result<Option<wire::Site>> {
        let number = self.model.words.and_then(|v| self.sites.iter().position(|s| s.output == v));
        let number = number.map(|i| i as u32 + 1);
        Ok(self.sites()?.into_iter().find(|s| Some(s.number) == number))
    }

    fn store_as(&mut self, key: &str, value: u64) -> Result<()> {
        let value = self.value(value)?;
        let taken = self.params.iter().any(|p| p.site.is_none() && p.key == key);
        if key.is_empty() || taken || self.stored.iter().any(|(k, _)| k == key) {
            return Err(Error::new(Code::REFUSED, format!("there is a parameter `{key}` already")));
        }
        let ours = |v| self.params.iter().any(|p| p.value == v);
        if let Some(input) = self.foreign_input(value, ours) {
            let what = format!("`{key}` depends on `{}`, which is no parameter", self.graph.name_of(input));
            return Err(Error::new(Code::REFUSED, what));
        }
        self.stored.push((key.to_owned(), value));
        Ok(())
    }

    fn call_site(&mut self, site: u32, value: u64) -> Result<u64> {
        let value = self.value(value)?;
        self.call(site, value)
    }

    fn solve_head(&mut self, how: wire::SolveHead) -> Result<()> {
        self.ask_to_solve(how)
    }

    fn softmax_head(&mut self, head: wire::SoftmaxHead) -> Result<()> {
        self.take_softmax_head(&head)
    }

    fn learning_rate(&mut self, rate: wire::LearningRate) -> Result<()> {
        self.take_rate(rate)
    }

    fn hidden(&mut self) -> Result<u64> {
        match self.model.hidden {
            Some(v) => {
                let seen = self.hidden_of_text(v);
                Ok(self.handle(seen))
            }
            None => Err(Error::new(Code::REFUSED, "the base has no hidden states".to_owned())
                .help("name the value with --hidden")),
        }
    }

    fn pooled(&mut self) -> Result<Option<u64>> {
        Ok(self.model.pooled.map(|v| self.handle(v)))
    }

    fn logits(&mut self) -> Result<Option<u64>> {
        Ok(self.model.logits.map(|v| self.handle(v)))
    }

    fn model_input(&mut self, role: &str) -> Result<Option<u64>> {
        let found = self.model.inputs.iter().find(|(_, r)| r.name() == role).copied();
        Ok(found.map(|(v, role)| {
            let seen = self.input_of_text(v, role);
            self.handle(seen)
        }))
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

/// Whether two declarations of a parameter begin alike. Each use of a module computes its beginning anew, from the same
/// weights.
fn alike(a: &Start, b: &Init) -> bool {
    let Start::Asked(a) = a else { return false };
    a == b || matches!((a, b), (Init::Computed(_), Init::Computed(_)))
}
