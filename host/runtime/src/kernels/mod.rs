//! Graft's own kernels: operators of the domain `graft`, version 1, on the processor.
//!
//! Each is optional. A model carries a `FunctionProto` of the same name whose body is made of standard operators; ONNX
//! Runtime takes the kernel where it is registered and inlines the body where it is not.

mod bank;
mod gelu;
mod layer_norm;
mod par;
mod simd;
mod sixteen;
mod softmax;

use ort::operator::{ComputeContext, OperatorDomain, ShapeInferenceContext};
use ort::value::{
    DynValueRef, PrimitiveTensorElementType, Shape, SymbolicDimensions, TensorElementType, ValueRefMut,
    ValueType,
};

use self::par::{error, guard};

/// The domain of Graft's operators.
pub const KERNEL_DOMAIN: &str = "graft";

/// Names of the operators that Graft has kernels for.
pub const KERNELS: [&str; 9] = [
    NAME_BANK_DOWN,
    NAME_BANK_LOW_RANK,
    NAME_BANK_LOW_RANK_BIAS,
    NAME_BANK_LOW_RANK_HEADS,
    NAME_BANK_LOW_RANK_RESIDUAL,
    NAME_BANK_UP,
    NAME_GELU_GRAD,
    NAME_LAYER_NORM_GRAD,
    NAME_SOFTMAX_GRAD,
];

const NAME_BANK_DOWN: &str = graft_graph::fused::BANK_DOWN;
const NAME_BANK_LOW_RANK: &str = graft_graph::fused::BANK_LOW_RANK;
const NAME_BANK_LOW_RANK_BIAS: &str = graft_graph::fused::BANK_LOW_RANK_BIAS;
const NAME_BANK_LOW_RANK_HEADS: &str = graft_graph::fused::BANK_LOW_RANK_HEADS;
const NAME_BANK_LOW_RANK_RESIDUAL: &str = graft_graph::fused::BANK_LOW_RANK_RESIDUAL;
const NAME_BANK_UP: &str = graft_graph::fused::BANK_UP;
const NAME_GELU_GRAD: &str = "GeluGrad";
const NAME_LAYER_NORM_GRAD: &str = "LayerNormGrad";
const NAME_SOFTMAX_GRAD: &str = "SoftmaxGrad";

/// The kernels, ready to be registered with one session.
pub(crate) fn domain() -> ort::Result<OperatorDomain> {
    OperatorDomain::new(KERNEL_DOMAIN)?
        .add(bank::BankDown)?
        .add(bank::BankLowRank::Plain)?
        .add(bank::BankLowRank::Bias)?
        .add(bank::BankLowRank::Residual)?
        .add(bank::BankLowRankHeads)?
        .add(bank::BankUp)?
        .add(gelu::GeluGrad)?
        .add(layer_norm::LayerNormGrad)?
        .add(softmax::SoftmaxGrad)
}

/// Shape and elements of an input.
fn floats<'v>(
    kernel: &str,
    input: &str,
    value: &'v Option<DynValueRef<'_>>,
) -> ort::Result<(&'v Shape, &'v [f32])> {
    elements(kernel, input, value)
}

/// The same of 64-bit integers.
fn ints<'v>(
    kernel: &str,
    input: &str,
    value: &'v Option<DynValueRef<'_>>,
) -> ort::Result<(&'v Shape, &'v [i64])> {
    elements(kernel, input, value)
}

fn elements<'v, T: PrimitiveTensorElementType>(
    kernel: &str,
    input: &str,
    value: &'v Option<DynValueRef<'_>>,
) -> ort::Result<(&'v Shape, &'v [T])> {
    let value = value.as_ref().ok_or_else(|| error(kernel, &format!("input {input} is missing")))?;
    value.try_extract_tensor::<T>().map_err(|e| error(kernel, &format!("input {input}: {}", e.message())))
}

/// An output of the given shape; `None` when the graph does not use it.
fn output<'c>(ctx: &'c ComputeContext, index: usize, shape: &[i64]) -> ort::Result<Option<ValueRefMut<'c>>> {
    ctx.output(index, shape.to_vec())
}

/// An axis counted from the front.
fn axis(kernel: &str, axis: i64, rank: usize) -> ort::Result<usize> {
    let counted = if axis < 0 { axis.checked_add(rank as i64) } else { Some(axis) };
    counted
        .and_then(|a| usize::try_from(a).ok())
        .filter(|a| *a < rank)
        .ok_or_else(|| error(kernel, &format!("axis {axis} does not exist in {rank} dimensions")))
}

/// Tells ONNX Runtime that `outputs` have the shape of input `from`, so that it can plan memory.
fn same_shape(
    kernel: &str,
    ctx: &mut ShapeInferenceContext,
    from: usize,
    outputs: &[usize],
) -> ort::Result<()> {
    guard(kernel, || {
        let inputs = ctx.inputs();
        // ONNX Runtime gives no dimensions both for a scalar and for a value of unknown rank; saying "scalar" of the
        // latter would make it fold wrong shapes. An unknown dimension that is handed back would count as -1.
        if let Some(like @ ValueType::Tensor { shape, .. }) = inputs.get(from)
            && !shape.is_empty()
            && shape.iter().all(|d| *d >= 0)
        {
            for output in outputs {
                ctx.set_output(*output, like)?;
            }
        }
        Ok(())
    })
}

/// A dimension of an output: that of an axis of an input, or a number.
#[derive(Clone, Copy)]
enum Size {
    Of(usize, usize),
    Is(i64),
}

/// Tells ONNX Runtime the shape of output 0, f32. It may then plan memory, and let the output take the place of an input of
/// that shape.
fn dims(kernel: &str, ctx: &mut ShapeInferenceContext, from: &[Size]) -> ort::Result<()> {
    guard(kernel, || {
        let inputs = ctx.inputs();
        let dim = |size: &Size| match size {
            Size::Is(size) => Some((*size, String::new())),
            Size::Of(input, axis) => match inputs.get(*input) {
                Some(ValueType::Tensor { shape, dimension_symbols, .. }) => {
                    let (size, symbol) = (*shape.get(*axis)?, dimension_symbols.get(*axis)?);
                    // A dimension with neither size nor name would count as -1.
                    (size >= 0 || !symbol.is_empty()).then(|| (size, symbol.clone()))
                }
                _ => None,
            },
        };
        if let Some(dims) = from.iter().map(dim).collect::<Option<Vec<_>>>() {
            let (sizes, symbols): (Vec<i64>, Vec<String>) = dims.into_iter().unzip();
            let (shape, dimension_symbols) = (Shape::new(sizes), SymbolicDimensions::new(symbols));
            ctx.set_output(
                0,
                &ValueType::Tensor { ty: TensorElementType::Float32, shape, dimension_symbols },
            )?;
        }
        Ok(())
    })
}
