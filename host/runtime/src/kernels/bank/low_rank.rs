//! What low-rank adapters add to a product, each row of a batch with an adapter of its own.

use std::ops::Range;

use ort::operator::ShapeInferenceContext;
use ort::operator::{ComputeContext, Kernel, KernelContext, Operator, OperatorInput, OperatorOutput};
use ort::value::TensorElementType::{Float32, Int64};
use ort::value::ValueType;

use super::super::par::{chunks, error, guard, scattered};
use super::super::{
    NAME_BANK_LOW_RANK, NAME_BANK_LOW_RANK_BIAS, NAME_BANK_LOW_RANK_HEADS, NAME_BANK_LOW_RANK_RESIDUAL, Size,
    dims, floats, ints, output,
};
use super::tiles::{BLOCK, Terms, Update, low_rank_rows};
use super::used::{Bank, Used, by_row, task};

/// `BankLowRank(y, x, a, rows_a, b, rows_b, scale) → out`, LoRA (Hu et al. 2021): y and out `[batch, positions, out]`, x
/// `[batch, positions, in]`, a `[any, in]`, b `[any, out]`, scale `[batch]`, all f32, rows_a and rows_b `[batch, rank]`
/// i64. `out[i] = y[i] + (scale[i]·(x[i]·a[rows_a[i]]ᵀ))·b[rows_b[i]]`, without the pairs of rows of which one is 0; the bits
/// of `y[i]` where no other is left. The output may take the place of y.
///
/// `BankLowRankBias(y, …, scale, bias)`, bias `[out]` f32, gives what that gives of `y + bias`, to the same bits;
/// `BankLowRankResidual(y, …, scale, bias, residual)`, residual like y, gives that plus the residual.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum BankLowRank {
    Plain,
    Bias,
    Residual,
}

impl Operator for BankLowRank {
    type Kernel<'attr> = BankLowRankKernel;

    const INPLACES: &[(u32, u32)] = &[(0, 0)];

    fn name(&self) -> &str {
        self.full_name()
    }

    fn versions(&self) -> std::ops::RangeInclusive<u32> {
        1..=1
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        let more = match self {
            BankLowRank::Plain => 0,
            BankLowRank::Bias => 1,
            BankLowRank::Residual => 2,
        };
        inputs(more)
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::required(Float32)]
    }

    fn create_kernel<'attr>(&self, _: &KernelContext<'attr>) -> ort::Result<BankLowRankKernel> {
        Ok(BankLowRankKernel { name: self.full_name(), of: *self, heads: None })
    }

    fn infer_shape(&self, ctx: &mut ShapeInferenceContext) -> ort::Result<()> {
        dims(self.full_name(), ctx, &[Size::Of(0, 0), Size::Of(0, 1), Size::Of(0, 2)])
    }
}

/// The seven that all have, and so many more.
fn inputs(more: usize) -> impl Iterator<Item = OperatorInput> {
    let types = [Float32, Float32, Float32, Int64, Float32, Int64, Float32];
    types.into_iter().chain(std::iter::repeat_n(Float32, more)).map(OperatorInput::required)
}

/// `BankLowRankHeads(y, …, scale, bias; heads)` gives what `BankLowRankBias` gives, as `[batch, heads, positions, out / heads]`.
pub(crate) struct BankLowRankHeads;

impl Operator for BankLowRankHeads {
    type Kernel<'attr> = BankLowRankKernel;

    fn name(&self) -> &str {
        NAME_BANK_LOW_RANK_HEADS
    }

    fn versions(&self) -> std::ops::RangeInclusive<u32> {
        1..=1
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        inputs(1)
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::required(Float32)]
    }

    fn create_kernel<'attr>(&self, attributes: &KernelContext<'attr>) -> ort::Result<BankLowRankKernel> {
        let name = NAME_BANK_LOW_RANK_HEADS;
        let heads = attributes.get::<Vec<i64>>("heads").unwrap_or_default();
        let one = match heads[..] {
            [heads] => usize::try_from(heads).ok().filter(|h| *h > 0),
            _ => None,
        };
        let heads = one.ok_or_else(|| error(name, &format!("heads is {heads:?}, not one number above 0")))?;
        Ok(BankLowRankKernel { name, of: BankLowRank::Bias, heads: Some(heads) })
    }

    fn infer_shape(&self, ctx: &mut ShapeInferenceContext) -> ort::Result<()> {
        let heads = ctx.attr::<Vec<i64>>("heads").unwrap_or_default();
        let width = match ctx.inputs().first() {
            Some(ValueType::Tensor { shape, .. }) => shape.get(2).copied().filter(|n| *n >= 0),
            _ => None,
        };
        match (&heads[..], width) {
            ([heads], Some(n)) if *heads > 0 && n % heads == 0 => {
                let sizes = [Size::Of(0, 0), Size::Is(*heads), Size::Of(0, 1), Size::Is(n / heads)];
                dims(NAME_BANK_LOW_RANK_HEADS, ctx, &sizes)
            }
            _ => Ok(()),
        }
    }
}

impl BankLowRank {
    fn full_name(&self) -> &'static str {
        match self {
            BankLowRank::Plain => NAME_BANK_LOW_RANK,
            BankLowRank::Bias => NAME_BANK_LOW_RANK_BIAS,
            BankLowRank::Residual => NAME_BANK_LOW_RANK_RESIDUAL,
        }
    }
}

/// The kernel of [`BankLowRank`] and [`BankLowRankHeads`].
pub(crate) struct BankLowRankKernel {
    name: &'static str,
    of: BankLowRank,
    heads: Option<usize>,
}

impl Kernel for BankLowRankKernel {
    fn compute(&mut self, ctx: &ComputeContext) -> ort::Result<()> {
        guard(self.name, || self.run(ctx))
    }
}

impl BankLowRankKernel {
    fn run(&self, ctx: &ComputeContext) -> ort::Result<()> {
        let name = self.name;
        let (y, x, scale) = (ctx.input(0)?, ctx.input(1)?, ctx.input(6)?);
        let bias = if self.of == BankLowRank::Plain { None } else { ctx.input(7)? };
        let residual = if self.of == BankLowRank::Residual { ctx.input(8)? } else { None };
        let (a, rows_a, b, rows_b) = (ctx.input(2)?, ctx.input(3)?, ctx.input(4)?, ctx.input(5)?);
        let (shape, before) = floats(name, "y", &y)?;
        // Where the output takes the place of y, no borrow of y may be left.
        let place = before.as_ptr().addr();
        let (x_shape, x) = floats(name, "x", &x)?;
        let (_, scale) = floats(name, "scale", &scale)?;
        let bank = |names, values, rows| {
            let ((shape, values), (rows_shape, rows)) = (values, rows);
            Bank { names, shape, values, rows_shape, rows }
        };
        let a = bank(["a", "rows_a"], floats(name, "a", &a)?, ints(name, "rows_a", &rows_a)?);
        let b = bank(["b", "rows_b"], floats(name, "b", &b)?, ints(name, "rows_b", &rows_b)?);
        let ([batch, positions, n], [x_batch, x_positions, k]) = (&shape[..], &x_shape[..]) else {
            return Err(error(
                name,
                &format!("y is {shape:?}, x is {x_shape:?}; they must be [batch, positions, width]"),
            ));
        };
        if (batch, positions) != (x_batch, x_positions) {
            return Err(error(
                name,
                &format!("y is {shape:?}, x is {x_shape:?}; the first two must be alike"),
            ));
        }
        let (n, k, batch, positions) = (*n as usize, *k as usize, *batch, *positions as usize);
        let ((k_a, rank), (n_b, rank_b)) = (a.sizes(name, batch)?, b.sizes(name, batch)?);
        if (k_a, n_b, rank_b) != (k, n, rank) {
            let words = format!(
                "y is {shape:?}, x is {x_shape:?}, a is {:?}, b is {:?}, rows_a is {:?}, rows_b is {:?}",
                a.shape, b.shape, a.rows_shape, b.rows_shape
            );
            return Err(error(name, &format!("{words}; they do not fit each other")));
        }
        let batch = batch as usize;
        if scale.len() != batch {
            return Err(error(
                name,
                &format!("scale has {} elements, but the batch has {batch} rows", scale.len()),
            ));
        }
        let bias = if self.of == BankLowRank::Plain { None } else { Some(floats(name, "bias", &bias)?) };
        if let Some((bias, _)) = bias.filter(|(bias, _)| bias[..] != shape[2..]) {
            return Err(error(name, &format!("y is {shape:?}, bias is {bias:?}, not [{n}]")));
        }
        let bias = bias.map(|(_, bias)| bias);
        let residual =
            if self.of == BankLowRank::Residual { Some(floats(name, "residual", &residual)?) } else { None };
        if let Some((residual, _)) = residual.filter(|(residual, _)| *residual != shape) {
            return Err(error(
                name,
                &format!("y is {shape:?}, residual is {residual:?}; they must be alike"),
            ));
        }
        let residual = residual.map(|(_, residual)| residual);
        let used = Used::read(name, [a, b], batch, rank)?;
        let task = task(k.saturating_add(n).saturating_mul(rank), batch * positions);
        // A row of the batch, positions of all, what they add to, and where that goes: once for each row of a task.
        let one =
            |row: usize, at: Range<usize>, y: Option<&[f32]>, h: &mut [[f32; BLOCK]], out: &mut [f32]| {
                let (places, [a, b]) = used.of(row);
                let residual = residual.map(|r| &r[at.start * n..at.end * n]);
                if places.is_empty() {
                    if let Some(y) = y {
                        out.copy_from_slice(y);
                    }
                    if let Some(bias) = bias {
                        add_to_rows(bias, out);
                    }
                    if let Some(residual) = residual {
                        add_to_rows(residual, out);
                    }
                    return;
                }
                let next = if at.end.is_multiple_of(positions) { used.any_of(row + 1) } else { None };
                let x = &x[at.start * k..at.end * k];
                low_rank_rows(
                    Terms { y, bias },
                    residual,
                    x,
                    Update { a, b, scale: scale[row] },
                    next,
                    &mut h[..places.len()],
                    out,
                );
            };
        if let Some(heads) = self.heads {
            if !n.is_multiple_of(heads) {
                return Err(error(name, &format!("y is {shape:?}, which can't be cut into {heads} heads")));
            }
            let sizes = [batch, heads, positions, n / heads].map(|d| d as i64);
            let Some(mut out) = output(ctx, 0, &sizes)? else { return Ok(()) };
            let (_, out) = out.try_extract_tensor_mut::<f32>()?;
            if out.is_empty() {
                return Ok(());
            }
            let side = rank * BLOCK + task * n;
            return scattered(ctx, name, out, (batch * positions).div_ceil(task), side, |i, side, out| {
                let first = i * task;
                let (h, made) = side.split_at_mut(rank * BLOCK);
                let (h, _) = h.as_chunks_mut::<BLOCK>();
                for (row, at) in by_row(first..(first + task).min(batch * positions), positions) {
                    let at = first + at.start..first + at.end;
                    let made = &mut made[..at.len() * n];
                    one(row, at.clone(), Some(&before[at.start * n..at.end * n]), h, made);
                    let (columns, from) = (n / heads, at.start % positions);
                    for head in 0..heads {
                        let place = ((row * heads + head) * positions + from) * columns;
                        for (p, made) in made.chunks_exact(n).enumerate() {
                            // SAFETY: each position of each row is in one task, so its numbers are written once.
                            unsafe { out.put(place + p * columns, &made[head * columns..][..columns]) };
                        }
                    }
                }
            });
        }
        let Some(mut out) = output(ctx, 0, shape)? else { return Ok(()) };
        let (_, out) = out.try_extract_tensor_mut::<f32>()?;
        if out.is_empty() {
            return Ok(());
        }
        let y = if out.as_ptr().addr() == place { None } else { Some(floats(name, "y", &y)?.1) };
        let mut h = vec![0f32; (batch * positions).div_ceil(task) * rank * BLOCK];
        chunks(ctx, name, (out, task * n), (&mut h, rank * BLOCK), |i, out, h| {
            let first = i * task;
            let (h, _) = h.as_chunks_mut::<BLOCK>();
            for (row, at) in by_row(first..first + out.len() / n, positions) {
                let out = &mut out[at.start * n..at.end * n];
                let at = first + at.start..first + at.end;
                let y = y.map(|y| &y[at.start * n..at.end * n]);
                one(row, at, y, h, out);
            }
        })
    }
}

/// Adds `terms`, again and again, to `out`; they are not empty.
fn add_to_rows(terms: &[f32], out: &mut [f32]) {
    for row in out.chunks_exact_mut(terms.len()) {
        row.iter_mut().zip(terms).for_each(|(v, term)| *v += term);
    }
}
