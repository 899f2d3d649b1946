//! What low-rank adapters add to a product, each row of a batch with an adapter of its own.

use ort::operator::ShapeInferenceContext;
use ort::operator::{ComputeContext, Kernel, KernelContext, Operator, OperatorInput, OperatorOutput};
use ort::value::TensorElementType::{Float32, Int64};

use super::super::par::{chunks, error, guard};
use super::super::{NAME_BANK_LOW_RANK, NAME_BANK_LOW_RANK_BIAS, dims, floats, ints, output};
use super::tiles::{BLOCK, Terms, low_rank_rows};
use super::used::{Bank, Used, by_row, task};

/// `BankLowRank(y, x, a, rows_a, b, rows_b, scale) → out`, LoRA (Hu et al. 2021): y and out `[batch, positions, out]`, x
/// `[batch, positions, in]`, a `[any, in]`, b `[any, out]`, scale `[batch]`, all f32, rows_a and rows_b `[batch, rank]`
/// i64. `out[i] = y[i] + (scale[i]·(x[i]·a[rows_a[i]]ᵀ))·b[rows_b[i]]`, without the pairs of rows of which one is 0; the bits
/// of `y[i]` where no other is left. The output may take the place of y.
///
/// `BankLowRankBias(y, …, scale, bias)`, bias `[out]` f32, gives what that gives of `y + bias`, to the same bits.
pub(crate) struct BankLowRank {
    pub(in super::super) bias: bool,
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
        let bias = self.bias.then_some(Float32);
        let types = [Float32, Float32, Float32, Int64, Float32, Int64, Float32].into_iter().chain(bias);
        types.map(OperatorInput::required)
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::required(Float32)]
    }

    fn create_kernel<'attr>(&self, _: &KernelContext<'attr>) -> ort::Result<BankLowRankKernel> {
        Ok(BankLowRankKernel { name: self.full_name(), bias: self.bias })
    }

    fn infer_shape(&self, ctx: &mut ShapeInferenceContext) -> ort::Result<()> {
        dims(self.full_name(), ctx, &[(0, 0), (0, 1), (0, 2)])
    }
}

impl BankLowRank {
    fn full_name(&self) -> &'static str {
        if self.bias { NAME_BANK_LOW_RANK_BIAS } else { NAME_BANK_LOW_RANK }
    }
}

/// The kernel of [`BankLowRank`].
pub(crate) struct BankLowRankKernel {
    name: &'static str,
    bias: bool,
}

impl Kernel for BankLowRankKernel {
    fn compute(&mut self, ctx: &ComputeContext) -> ort::Result<()> {
        guard(self.name, || run(ctx, self.name, self.bias))
    }
}

fn run(ctx: &ComputeContext, name: &str, biased: bool) -> ort::Result<()> {
    let (y, x, scale) = (ctx.input(0)?, ctx.input(1)?, ctx.input(6)?);
    let bias = if biased { ctx.input(7)? } else { None };
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
        return Err(error(name, &format!("y is {shape:?}, x is {x_shape:?}; the first two must be alike")));
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
    let bias = if biased { Some(floats(name, "bias", &bias)?) } else { None };
    if let Some((bias, _)) = bias.filter(|(bias, _)| bias[..] != shape[2..]) {
        return Err(error(name, &format!("y is {shape:?}, bias is {bias:?}, not [{n}]")));
    }
    let bias = bias.map(|(_, bias)| bias);
    let used = Used::read(name, [a, b], batch, rank)?;
    let Some(mut out) = output(ctx, 0, shape)? else { return Ok(()) };
    let (_, out) = out.try_extract_tensor_mut::<f32>()?;
    if out.is_empty() {
        return Ok(());
    }
    let y = if out.as_ptr().addr() == place { None } else { Some(floats(name, "y", &y)?.1) };
    let task = task(k.saturating_add(n).saturating_mul(rank), batch * positions);
    let mut h = vec![0f32; (batch * positions).div_ceil(task) * rank * BLOCK];
    chunks(ctx, name, (out, task * n), (&mut h, rank * BLOCK), |i, out, h| {
        let first = i * task;
        let (h, _) = h.as_chunks_mut::<BLOCK>();
        for (row, at) in by_row(first..first + out.len() / n, positions) {
            let (places, [a, b]) = used.of(row);
            let out = &mut out[at.start * n..at.end * n];
            let y = y.map(|y| &y[(first + at.start) * n..(first + at.end) * n]);
            if places.is_empty() {
                if let Some(y) = y {
                    out.copy_from_slice(y);
                }
                if let Some(bias) = bias {
                    add_to_rows(bias, out);
                }
                continue;
            }
            let x = &x[(first + at.start) * k..(first + at.end) * k];
            low_rank_rows(Terms { y, bias }, x, a, b, scale[row], &mut h[..places.len()], out);
        }
    })
}

/// Adds `bias` to each row of `out`; it is not empty.
fn add_to_rows(bias: &[f32], out: &mut [f32]) {
    for row in out.chunks_exact_mut(bias.len()) {
        row.iter_mut().zip(bias).for_each(|(v, bias)| *v += bias);
    }
}
