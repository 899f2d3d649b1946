//! Products with a few rows of a bank, a matrix that holds rows of many adapters: each row of a batch names its own.
//!
//! A row's result has the same bits whatever the other rows of the batch are, however many of them there are, how far the
//! rows' numbers are padded, and how many threads there are. No row of a bank is read that it does not name; the null
//! row, number 0, never is.

mod ask;
mod down;
mod low_rank;
mod tiles;
mod up;
mod used;

use ort::operator::ShapeInferenceContext;
use ort::operator::{ComputeContext, Kernel, KernelContext, Operator, OperatorInput, OperatorOutput};
use ort::value::TensorElementType::{Float32, Int64};

pub(super) use self::low_rank::{BankLowRank, BankLowRankHeads};
use self::tiles::{BLOCK, down_rows, up_rows};
use self::used::{Bank, Used, by_row, task};
use super::par::{chunks, error, guard};
use super::{NAME_BANK_DOWN, NAME_BANK_UP, Size, dims, floats, ints, output};

/// `BankDown(x, bank, rows) → h`: x `[batch, positions, width]` f32, bank `[any, width]` f32, rows `[batch, rank]` i64,
/// h `[batch, positions, rank]` f32 with `h[b, s, j] = Σ_k x[b, s, k]·bank[rows[b, j], k]`, zero where `rows[b, j]` is.
pub(crate) struct BankDown;

/// `BankUp(x, bank, rows) → y`: x `[batch, positions, rank]` f32, bank `[any, width]` f32, rows `[batch, rank]` i64, y
/// `[batch, positions, width]` f32 with `y[b, s] = Σ_j x[b, s, j]·bank[rows[b, j]]`, without the j where `rows[b, j]` is 0.
pub(crate) struct BankUp;

macro_rules! operator {
    ($operator:ident, $name:expr, $down:literal) => {
        impl Operator for $operator {
            type Kernel<'attr> = ProductKernel;

            fn name(&self) -> &str {
                $name
            }

            fn versions(&self) -> std::ops::RangeInclusive<u32> {
                1..=1
            }

            fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
                [Float32, Float32, Int64].map(OperatorInput::required)
            }

            fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
                [OperatorOutput::required(Float32)]
            }

            fn create_kernel<'attr>(&self, _: &KernelContext<'attr>) -> ort::Result<ProductKernel> {
                Ok(ProductKernel { name: $name, down: $down })
            }

            fn infer_shape(&self, ctx: &mut ShapeInferenceContext) -> ort::Result<()> {
                let last = if $down { Size::Of(2, 1) } else { Size::Of(1, 1) };
                dims($name, ctx, &[Size::Of(0, 0), Size::Of(0, 1), last])
            }
        }
    };
}

operator!(BankDown, NAME_BANK_DOWN, true);
operator!(BankUp, NAME_BANK_UP, false);

/// The kernel of [`BankDown`] and [`BankUp`].
pub(crate) struct ProductKernel {
    name: &'static str,
    down: bool,
}

impl Kernel for ProductKernel {
    fn compute(&mut self, ctx: &ComputeContext) -> ort::Result<()> {
        guard(self.name, || self.run(ctx))
    }
}

impl ProductKernel {
    fn run(&self, ctx: &ComputeContext) -> ort::Result<()> {
        let name = self.name;
        let (x, bank, rows) = (ctx.input(0)?, ctx.input(1)?, ctx.input(2)?);
        let (shape, x) = floats(name, "x", &x)?;
        let (bank_shape, values) = floats(name, "bank", &bank)?;
        let (rows_shape, rows) = ints(name, "rows", &rows)?;
        let [batch, positions, inner] = shape[..] else {
            return Err(error(name, &format!("x is {shape:?}, not [batch, positions, width]")));
        };
        let bank = Bank { names: ["bank", "rows"], shape: bank_shape, values, rows_shape, rows };
        let (width, rank) = bank.sizes(name, batch)?;
        let (wanted, outer) = if self.down { (width, rank) } else { (rank, width) };
        if inner as usize != wanted {
            let with = if self.down { ("bank", bank_shape) } else { ("rows", rows_shape) };
            return Err(error(
                name,
                &format!("x is {shape:?}, {} is {:?}; the last must be alike", with.0, with.1),
            ));
        }
        let used = Used::read(name, [bank], batch as usize, rank)?;
        let Some(mut out) = output(ctx, 0, &[batch, positions, outer as i64])? else { return Ok(()) };
        let (_, out) = out.try_extract_tensor_mut::<f32>()?;
        if out.is_empty() {
            return Ok(());
        }
        if wanted == 0 {
            out.fill(0.0);
            return Ok(());
        }
        let task = task(width.saturating_mul(rank), batch as usize * positions as usize);
        let mut h = vec![0f32; (batch as usize * positions as usize).div_ceil(task) * rank * BLOCK];
        chunks(ctx, name, (out, task * outer), (&mut h, rank * BLOCK), |i, out, h| {
            let first = i * task;
            let x = &x[first * wanted..];
            let (h, _) = h.as_chunks_mut::<BLOCK>();
            for (row, at) in by_row(first..first + out.len() / outer, positions as usize) {
                let (places, [w]) = used.of(row);
                let x = &x[at.start * wanted..at.end * wanted];
                let (out, h) = (&mut out[at.start * outer..at.end * outer], &mut h[..places.len()]);
                match self.down {
                    true => down_rows(x, w, places, rank, h, out),
                    false => up_rows(x, w, places, rank, h, out),
                }
            }
        })
    }
}
