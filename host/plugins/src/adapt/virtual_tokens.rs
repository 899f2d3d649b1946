//! Virtual tokens: dummy tokens in front of every row, which a method overwrites where they enter.
//!
//! They are tokens for everything between, so that positions and masks come out right on any exported graph, without a
//! rule for each way to make them. What a method asks for is told apart from how the rows are laid out, so that
//! adapters with different numbers of virtual tokens can share a batch: then whoever feeds the rows puts the dummy tokens
//! in front, and what is done with them is left to operators that `graft_graph::batch` has rules for.

use graft_graph::batch::virtual_tokens;
use graft_graph::model::{Role, hidden_candidates};
use graft_graph::{Builder, DType, Dim, Graph, ValueId, dim, shape};
use graft_plugin_api::{Code, Error, Result, wire};

use super::Setting;
use super::writer::Writer;

/// Most virtual tokens in front of a row.
const MOST: u64 = 1 << 16;
/// The axis of tokens in ids, masks and hidden states.
const TOKENS: usize = 1;
/// What inputs of a decoder beside an encoder are called by.
const DECODER: &str = "decoder";

/// What a method asked for.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Virtual {
    /// How many.
    pub(super) count: usize,
    /// Whether they stay in the base's outputs.
    kept: bool,
    /// Tokens of a row, virtual ones included.
    lengths: Vec<Dim>,
    /// Where rows come with their virtual tokens: an input, f32 `[]`, that says how many these are.
    number: Option<ValueId>,
}

/// The setting that says how many virtual tokens there are.
const COUNT: &str = "virtual_tokens";

impl Writer {
    pub(super) fn begin_virtual(&mut self, asked: &wire::VirtualTokens) -> Result<()> {
        if self.virtual_tokens.is_some() {
            return refuse("virtual tokens were asked for already".to_owned());
        }
        if self.model.input(Role::Ids).is_none() {
            return refuse("the base takes no token ids, so it can't have virtual tokens".to_owned());
        }
        if asked.count == 0 || asked.count > MOST {
            return refuse(format!("{} virtual tokens; from 1 to {MOST} are possible", asked.count));
        }
        let count = asked.count as usize;
        let token = |(v, r): &(ValueId, Role)| {
            let counted = matches!(r, Role::Ids | Role::Mask | Role::Types | Role::Positions);
            counted.then(|| (*v, *r, self.graph.name_of(*v).contains(DECODER)))
        };
        let inputs: Vec<(ValueId, Role, bool)> = self.model.inputs.iter().filter_map(token).collect();
        // As PEFT has it: beside a decoder, a soft prompt is in the encoder's text, and a prefix in the decoder's.
        let two = inputs.iter().any(|i| i.2) && inputs.iter().any(|i| !i.2);
        if self.laid_out && two {
            return refuse("virtual tokens beside an encoder lengthen some inputs and not others".to_owned());
        }
        let mut lengths = Vec::new();
        for (input, role, _) in inputs.into_iter().filter(|i| !two || i.2 != asked.kept) {
            lengths.push(if self.laid_out {
                self.length_of(input)?
            } else {
                self.lengthen(input, role, count)?
            });
        }
        let number = self.laid_out.then(|| self.count_input(count));
        shape::infer(&mut self.graph);
        self.virtual_tokens = Some(Virtual { count, kept: asked.kept, lengths, number });
        Ok(())
    }

    fn count_input(&mut self, count: usize) -> ValueId {
        let value = self.graph.add_input(&format!("adapter.setting.{COUNT}"), DType::F32, Vec::new());
        let input = self.graph.name_of(value).to_owned();
        self.settings.push(Setting { value, input, name: COUNT.into(), site: None, number: count as f32 });
        value
    }

    fn length_of(&self, input: ValueId) -> Result<Dim> {
        match self.graph.shape(input).map(Vec::as_slice) {
            Some([_, length]) => Ok(length.clone()),
            _ => refuse(format!(
                "the input `{}` has no shape [batch, sequence] for virtual tokens to enter",
                self.graph.name_of(input)
            )),
        }
    }

    /// What the base reads of each token gets as many entries in front: ids repeat the row's first one, which is
    /// overwritten later but is never padding; the mask says that they count; types are 0; positions begin at 0 and the
    /// text's go on from there.
    fn lengthen(&mut self, input: ValueId, role: Role, count: usize) -> Result<Dim> {
        let length = self.length_of(input)?;
        let Some(dtype) = self.graph.dtype(input) else {
            return refuse(format!("the input `{}` has no type", self.graph.name_of(input)));
        };
        let mut b = Builder::new(&mut self.graph, "virtual.");
        let (first, axis) = (b.ints(&[0]), b.ints(&[1]));
        // One column of the row's own, so that the batch's size is right whatever it is.
        let column = b.op("Slice", &[input, first, axis, axis]);
        let zero = b.ints(&[0]);
        let zero = b.cast(zero, dtype);
        let zeros = b.op("Mul", &[column, zero]);
        // [batch, 1] + [count] → [batch, count]
        let (begin, row) = match role {
            Role::Ids => (column, vec![0; count]),
            Role::Mask => (zeros, vec![1; count]),
            Role::Positions => (zeros, (0..count as i64).collect()),
            _ => (zeros, vec![0; count]),
        };
        let row = b.ints(&row);
        let row = b.cast(row, dtype);
        let front = b.op("Add", &[begin, row]);
        let mut text = input;
        if role == Role::Positions {
            let shift = b.ints(&[count as i64]);
            let shift = b.cast(shift, dtype);
            text = b.op("Add", &[input, shift]);
        }
        let longer = b.op_with("Concat", &[front, text], &[("axis", 1i64.into())]);
        for node in self.graph.nodes.iter_mut().take(self.base_nodes) {
            node.inputs.iter_mut().filter(|v| **v == Some(input)).for_each(|v| *v = Some(longer));
        }
        Ok(length.plus(&count.into()))
    }

    /// `value` with `rows` at the virtual tokens along `axis`.
    pub(super) fn put_at_virtual(&mut self, value: ValueId, rows: ValueId, axis: usize) -> Result<ValueId> {
        let Some(Virtual { count, number, .. }) = &self.virtual_tokens else {
            return refuse("ask for virtual tokens first".to_owned());
        };
        let (count, number) = (*count, *number);
        let (whole, given) = (self.graph.fact(value), self.graph.fact(rows));
        let (Some(x), Some(r)) = (&whole.shape, &given.shape) else {
            return refuse("the shape of the value or of its virtual rows is not known".to_owned());
        };
        let mut wanted = x.iter().skip(1).cloned().collect::<Vec<_>>();
        if axis == 0 || axis >= x.len() {
            return refuse(format!("axis {axis} of a value {} is no axis of tokens", dim::show(x)));
        }
        wanted[axis - 1] = count.into();
        let sizes: Option<Vec<i64>> = r.iter().map(Dim::known).collect();
        let fits = wanted.len() == r.len() && wanted.iter().zip(r).all(|(a, b)| a.equals(b) != Some(false));
        let (Some(sizes), true) = (sizes.filter(|_| whole.dtype == given.dtype), fits) else {
            let (wanted, r) = (dim::show(&wanted), dim::show(r));
            return refuse(format!(
                "virtual rows of shape {r}, where {wanted} of the value's type is needed"
            ));
        };
        if let Some(number) = number {
            let scope = self.scope("");
            let mut b = Builder::new(&mut self.graph, scope);
            return Ok(virtual_tokens::put(&mut b, value, rows, number, axis));
        }
        let rest = self.behind(value, axis, count);
        let scope = self.scope("");
        let mut b = Builder::new(&mut self.graph, scope);
        // Of what is left, so that nothing else reads the whole value.
        let batch = b.op_with("Shape", &[rest], &[("end", 1i64.into())]);
        let sizes = b.ints(&sizes);
        let full = b.op_with("Concat", &[batch, sizes], &[("axis", 0i64.into())]);
        let front = b.op("Expand", &[rows, full]);
        Ok(b.op_with("Concat", &[front, rest], &[("axis", (axis as i64).into())]))
    }

    /// `value` of the text alone.
    fn of_text(&mut self, value: ValueId, asked: &Virtual) -> ValueId {
        let Some(number) = asked.number else { return self.behind(value, TOKENS, asked.count) };
        let scope = self.scope("");
        virtual_tokens::drop(&mut Builder::new(&mut self.graph, scope), value, number)
    }

    /// What stands behind the virtual tokens.
    fn behind(&mut self, value: ValueId, axis: usize, count: usize) -> ValueId {
        let scope = self.scope("");
        let mut b = Builder::new(&mut self.graph, scope);
        let (start, end, axes) = (b.ints(&[count as i64]), b.ints(&[i64::MAX]), b.ints(&[axis as i64]));
        b.op("Slice", &[value, start, end, axes])
    }

    /// Takes the virtual tokens away from what the base puts out, where the method wants that: at the outputs, and where
    /// one of these has no tokens (it is made from one row, or from all) behind the hidden states, so that what reads
    /// the first token reads the first of the text.
    pub(super) fn drop_virtual(&mut self) {
        let Some(asked) = self.virtual_tokens.clone().filter(|v| !v.kept) else { return };
        let lengths = &asked.lengths;
        let long = |g: &Graph, v: ValueId| {
            let tokens = g.shape(v).filter(|s| s.len() > 2).and_then(|s| s.get(TOKENS));
            tokens.is_some_and(|n| lengths.contains(n))
        };
        if !self.graph.outputs.iter().all(|v| long(&self.graph, *v)) {
            let candidates = self.model.hidden.into_iter().chain(hidden_candidates(&self.graph));
            let hidden = candidates.map(|h| self.current(h)).find(|h| long(&self.graph, *h));
            if let Some(hidden) = hidden {
                self.cut_for_readers(hidden, &asked);
                shape::infer(&mut self.graph);
            }
        }
        for output in self.graph.outputs.clone() {
            if long(&self.graph, output) && !self.cut.contains(&output) {
                self.cut_for_readers(output, &asked);
            }
        }
    }

    fn cut_for_readers(&mut self, old: ValueId, asked: &Virtual) {
        let new = self.of_text(old, asked);
        for node in &mut self.graph.nodes {
            if node.output(0) != Some(new) {
                node.inputs.iter_mut().filter(|v| **v == Some(old)).for_each(|v| *v = Some(new));
            }
        }
        if self.graph.outputs.contains(&old) {
            let name = self.graph.name_of(old).to_owned();
            self.graph.outputs.iter_mut().filter(|o| **o == old).for_each(|o| *o = new);
            self.graph.rename(new, &name);
        }
        self.forward.insert(old, new);
        self.cut.insert(new);
    }

    /// The hidden states as an objective sees them: of the text alone.
    pub(super) fn hidden_of_text(&mut self, hidden: ValueId) -> ValueId {
        let hidden = self.current(hidden);
        match self.virtual_tokens.clone().filter(|_| self.head && !self.cut.contains(&hidden)) {
            Some(asked) => self.seen(hidden, &asked),
            None => hidden,
        }
    }

    /// An input of the base as an objective sees it: of the text alone.
    pub(super) fn input_of_text(&mut self, input: ValueId, role: Role) -> ValueId {
        let counted = matches!(role, Role::Ids | Role::Mask | Role::Types | Role::Positions);
        let longer = self.virtual_tokens.clone().filter(|v| self.head && counted && v.number.is_some());
        match longer {
            Some(asked) => self.seen(input, &asked),
            None => input,
        }
    }

    fn seen(&mut self, value: ValueId, asked: &Virtual) -> ValueId {
        if let Some(seen) = self.text.get(&value) {
            return *seen;
        }
        let seen = self.of_text(value, asked);
        self.text.insert(value, seen);
        seen
    }
}

fn refuse<T>(what: String) -> Result<T> {
    Err(Error::new(Code::REFUSED, what))
}
