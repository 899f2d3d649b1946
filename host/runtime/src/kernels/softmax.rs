//! The gradient of Softmax from its output.

use ort::operator::ShapeInferenceContext;
use ort::operator::{ComputeContext, Kernel, KernelContext, Operator, OperatorInput, OperatorOutput};
use ort::value::TensorElementType::Float32;

use super::par::{chunks, error, guard};
use super::simd::{Eight, fma, sums, vectorised};
use super::{NAME_SOFTMAX_GRAD, axis, floats, output};

/// Elements that one task takes, about.
const CHUNK: usize = 8192;

#[inline(always)]
fn rows_body<V: Eight>(dy: &[f32], y: &[f32], n: usize, dx: &mut [f32]) {
    for ((dy, y), dx) in dy.chunks_exact(n).zip(y.chunks_exact(n)).zip(dx.chunks_exact_mut(n)) {
        let [dot] =
            sums!(V, 1, n, |i, [s]| [V::load(dy, i).mul_add(V::load(y, i), s)], [fma::<V>(dy[i], y[i], s)]);
        for i in 0..n {
            dx[i] = y[i] * (dy[i] - dot);
        }
    }
}

vectorised! {
    /// `dx = y · (dy − Σ dy·y)` for each row of `n`.
    rows = rows_body(dy: &[f32], y: &[f32], n: usize, dx: &mut [f32])
}

#[inline(always)]
fn columns_body<V: Eight>(dy: &[f32], y: &[f32], inner: usize, dx: &mut [f32], dot: &mut [f32]) {
    dot.fill(0.0);
    for (dy, y) in dy.chunks_exact(inner).zip(y.chunks_exact(inner)) {
        for i in 0..inner {
            dot[i] = fma::<V>(dy[i], y[i], dot[i]);
        }
    }
    for ((dy, y), dx) in dy.chunks_exact(inner).zip(y.chunks_exact(inner)).zip(dx.chunks_exact_mut(inner)) {
        for i in 0..inner {
            dx[i] = y[i] * (dy[i] - dot[i]);
        }
    }
}

vectorised! {
    /// The same down the columns of one `[n, inner]` matrix; `dot` is scratch of `inner`.
    columns = columns_body(dy: &[f32], y: &[f32], inner: usize, dx: &mut [f32], dot: &mut [f32])
}

/// `SoftmaxGrad(dy, y; axis = −1) → dx`, f32 of one shape.
pub(crate) struct SoftmaxGrad;

impl Operator for SoftmaxGrad {
    type Kernel<'attr> = SoftmaxGradKernel;

    fn name(&self) -> &str {
        NAME_SOFTMAX_GRAD
    }

    fn versions(&self) -> std::ops::RangeInclusive<u32> {
        1..=1
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        [OperatorInput::required(Float32), OperatorInput::required(Float32)]
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::required(Float32)]
    }

    fn create_kernel<'attr>(&self, attributes: &KernelContext<'attr>) -> ort::Result<SoftmaxGradKernel> {
        Ok(SoftmaxGradKernel { axis: attributes.get::<i64>("axis").unwrap_or(-1) })
    }

    fn infer_shape(&self, ctx: &mut ShapeInferenceContext) -> ort::Result<()> {
        super::same_shape(NAME_SOFTMAX_GRAD, ctx, 1, &[0])
    }
}

/// The kernel of [`SoftmaxGrad`].
pub(crate) struct SoftmaxGradKernel {
    axis: i64,
}

impl Kernel for SoftmaxGradKernel {
    fn compute(&mut self, ctx: &ComputeContext) -> ort::Result<()> {
        guard(NAME_SOFTMAX_GRAD, || {
            let (dy, y) = (ctx.input(0)?, ctx.input(1)?);
            let (shape, dy) = floats(NAME_SOFTMAX_GRAD, "dy", &dy)?;
            let (y_shape, y) = floats(NAME_SOFTMAX_GRAD, "y", &y)?;
            if shape != y_shape {
                let words = format!("dy is {shape:?}, y is {y_shape:?}; they must be alike");
                return Err(error(NAME_SOFTMAX_GRAD, &words));
            }
            let axis = axis(NAME_SOFTMAX_GRAD, self.axis, shape.len())?;
            let n = shape[axis] as usize;
            let inner: usize = shape[axis + 1..].iter().map(|d| *d as usize).product();
            let Some(mut dx) = output(ctx, 0, shape)? else { return Ok(()) };
            let (_, dx) = dx.try_extract_tensor_mut::<f32>()?;
            if dx.is_empty() {
                return Ok(());
            }
            if inner == 1 {
                let size = n * (CHUNK / n).max(1);
                return chunks(ctx, NAME_SOFTMAX_GRAD, (dx, size), (&mut [], 0), |i, dx, _| {
                    let at = i * size;
                    rows(&dy[at..at + dx.len()], &y[at..at + dx.len()], n, dx);
                });
            }
            let size = n * inner;
            let mut dots = vec![0.0; dx.len() / n];
            chunks(ctx, NAME_SOFTMAX_GRAD, (dx, size), (&mut dots, inner), |i, dx, dot| {
                let at = i * size;
                columns(&dy[at..at + size], &y[at..at + size], inner, dx, dot);
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::simd::Plain;
    use super::*;

    #[test]
    fn rows_and_columns_agree_with_the_definition_and_each_other() {
        let dy: Vec<f32> = (0..60).map(|i| (i as f32 * 0.7).sin()).collect();
        let y: Vec<f32> = (0..60).map(|i| (i as f32 * 0.3).cos().abs() / 6.0).collect();
        let mut wide = vec![0.0; 60];
        let mut plain = vec![0.0; 60];
        rows(&dy, &y, 12, &mut wide);
        rows_body::<Plain>(&dy, &y, 12, &mut plain);
        for r in 0..5 {
            let dot: f32 = (0..12).map(|i| dy[r * 12 + i] * y[r * 12 + i]).sum();
            for i in r * 12..r * 12 + 12 {
                let want = y[i] * (dy[i] - dot);
                assert!((wide[i] - want).abs() < 1e-6 && (plain[i] - want).abs() < 1e-6);
            }
        }
        // The same numbers, transposed: 12 rows of 5 columns.
        let turn = |v: &[f32]| (0..60).map(|i| v[(i % 5) * 12 + i / 5]).collect::<Vec<f32>>();
        let (mut dx, mut dot) = (vec![0.0; 60], vec![0.0; 5]);
        columns(&turn(&dy), &turn(&y), 5, &mut dx, &mut dot);
        assert!(dx.iter().zip(turn(&wide)).all(|(a, b)| (a - b).abs() < 1e-6));
    }
}
