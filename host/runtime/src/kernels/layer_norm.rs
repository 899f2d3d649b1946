//! The gradients of LayerNormalization; mean and deviation are computed again from `x`.

use ort::operator::ShapeInferenceContext;
use ort::operator::{ComputeContext, Kernel, KernelContext, Operator, OperatorInput, OperatorOutput};
use ort::value::TensorElementType::Float32;

use super::par::{chunks, error, guard};
use super::simd::{Eight, fma, sums, vectorised};
use super::{NAME_LAYER_NORM_GRAD, axis, floats, output};

/// Elements that one task takes, about.
const CHUNK: usize = 8192;
/// Most tasks that the sums over rows are kept apart for.
const PARTS: usize = 64;

#[inline(always)]
fn rows_body<V: Eight>(dy: &[f32], x: &[f32], scale: &[f32], epsilon: f32, dx: &mut [f32], sum: &mut [f32]) {
    let n = scale.len();
    let share = 1.0 / n as f32;
    for ((dy, x), dx) in dy.chunks_exact(n).zip(x.chunks_exact(n)).zip(dx.chunks_exact_mut(n)) {
        let [s] = sums!(V, 1, n, |i, [s]| [s.add(V::load(x, i))], [s + x[i]]);
        let mean = s * share;
        let middle = V::splat(mean);
        // Σ(x − mean)², Σg and Σg·(x − mean).
        let [square, g, gx] = sums!(
            V,
            3,
            n,
            |i, [v, g, gx]| {
                let d = V::load(x, i).sub(middle);
                let w = V::load(dy, i).mul(V::load(scale, i));
                [d.mul_add(d, v), g.add(w), w.mul_add(d, gx)]
            },
            {
                let (d, w) = (x[i] - mean, dy[i] * scale[i]);
                [fma::<V>(d, d, v), g + w, fma::<V>(w, d, gx)]
            }
        );
        let inv = 1.0 / (square * share + epsilon).sqrt();
        let (base, slope) = (g * share, gx * share * inv * inv);
        for i in 0..n {
            let w = dy[i] * scale[i];
            dx[i] = inv * (w - base - (x[i] - mean) * slope);
        }
        if sum.len() == 2 * n {
            let (dscale, dbias) = sum.split_at_mut(n);
            for i in 0..n {
                dscale[i] = fma::<V>(dy[i], (x[i] - mean) * inv, dscale[i]);
                dbias[i] += dy[i];
            }
        }
    }
}

vectorised! {
    /// Rows of `n = scale.len()`: with x̂ = (x − mean)/√(var + ε) and g = dy·scale,
    /// `dx = (g − mean(g) − x̂·mean(g·x̂))/√(var + ε)`. `sum` is empty or `[dscale; n], [dbias; n]`, added to.
    rows = rows_body(dy: &[f32], x: &[f32], scale: &[f32], epsilon: f32, dx: &mut [f32], sum: &mut [f32])
}

/// `LayerNormGrad(dy, x, scale; axis = −1, epsilon = 1e-5) → dx, dscale?, dbias?`, f32; `dy`, `x` and `dx` of one
/// shape, `scale`, `dscale` and `dbias` of that shape from `axis` on.
pub(crate) struct LayerNormGrad;

impl Operator for LayerNormGrad {
    type Kernel<'attr> = LayerNormGradKernel;

    fn name(&self) -> &str {
        NAME_LAYER_NORM_GRAD
    }

    fn versions(&self) -> std::ops::RangeInclusive<u32> {
        1..=1
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        [OperatorInput::required(Float32), OperatorInput::required(Float32), OperatorInput::required(Float32)]
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [
            OperatorOutput::required(Float32),
            OperatorOutput::optional(Float32),
            OperatorOutput::optional(Float32),
        ]
    }

    fn create_kernel<'attr>(&self, attributes: &KernelContext<'attr>) -> ort::Result<LayerNormGradKernel> {
        Ok(LayerNormGradKernel {
            axis: attributes.get::<i64>("axis").unwrap_or(-1),
            epsilon: attributes.get::<f32>("epsilon").unwrap_or(1e-5),
        })
    }

    fn infer_shape(&self, ctx: &mut ShapeInferenceContext) -> ort::Result<()> {
        super::same_shape(NAME_LAYER_NORM_GRAD, ctx, 1, &[0])
    }
}

/// The kernel of [`LayerNormGrad`].
pub(crate) struct LayerNormGradKernel {
    axis: i64,
    epsilon: f32,
}

impl Kernel for LayerNormGradKernel {
    fn compute(&mut self, ctx: &ComputeContext) -> ort::Result<()> {
        guard(NAME_LAYER_NORM_GRAD, || self.run(ctx))
    }
}

impl LayerNormGradKernel {
    fn run(&self, ctx: &ComputeContext) -> ort::Result<()> {
        let name = NAME_LAYER_NORM_GRAD;
        let (dy, x, scale) = (ctx.input(0)?, ctx.input(1)?, ctx.input(2)?);
        let (shape, dy) = floats(name, "dy", &dy)?;
        let (x_shape, x) = floats(name, "x", &x)?;
        let (_, scale) = floats(name, "scale", &scale)?;
        if shape != x_shape {
            return Err(error(name, &format!("dy is {shape:?}, x is {x_shape:?}; they must be alike")));
        }
        let axis = axis(name, self.axis, shape.len())?;
        let tail = &shape[axis..];
        let n: usize = tail.iter().map(|d| *d as usize).product();
        if scale.len() != n {
            return Err(error(
                name,
                &format!("scale has {} elements, but rows have {n} ({tail:?})", scale.len()),
            ));
        }
        let Some(mut dx) = output(ctx, 0, shape)? else { return Ok(()) };
        let (_, dx) = dx.try_extract_tensor_mut::<f32>()?;
        let outputs = ctx.num_outputs()?;
        let mut dscale = if outputs > 1 { output(ctx, 1, tail)? } else { None };
        let mut dbias = if outputs > 2 { output(ctx, 2, tail)? } else { None };
        let wanted = dscale.is_some() || dbias.is_some();
        let rows_all = dx.len().checked_div(n).unwrap_or(0);
        // Fixed by the shape alone, never by the number of threads: the sums over rows are cut the same way always.
        let rows_each = if wanted { rows_all.div_ceil(PARTS) } else { CHUNK / n.max(1) }.max(1);
        let (size, side) = (rows_each * n, if wanted { 2 * n } else { 0 });
        let mut sums = vec![0f32; side * rows_all.div_ceil(rows_each)];
        if n > 0 {
            chunks(ctx, name, (dx, size), (&mut sums, side), |i, dx, sum| {
                let at = i * size;
                rows(&dy[at..at + dx.len()], &x[at..at + dx.len()], scale, self.epsilon, dx, sum);
            })?;
        }
        for (out, offset) in [(&mut dscale, 0), (&mut dbias, n)] {
            let Some(out) = out else { continue };
            let (_, out) = out.try_extract_tensor_mut::<f32>()?;
            out.fill(0.0);
            for part in sums.chunks_exact(side.max(1)) {
                out.iter_mut().zip(&part[offset..]).for_each(|(o, p)| *o += p);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::simd::Plain;
    use super::*;

    /// LayerNorm in f64, weighted by `dy` and summed.
    fn weighted(x: &[f64], scale: &[f64], dy: &[f64]) -> f64 {
        let n = x.len() as f64;
        let mean = x.iter().sum::<f64>() / n;
        let var = x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
        x.iter().zip(scale).zip(dy).map(|((v, s), d)| d * s * (v - mean) / (var + 1e-5).sqrt()).sum()
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        let n = 37;
        let list = |f: f64| (0..n).map(|i| ((i as f64) * f).sin()).collect::<Vec<f64>>();
        let (x, scale, dy) = (list(1.3), list(0.4), list(2.1));
        let small = |v: &[f64]| v.iter().map(|v| *v as f32).collect::<Vec<f32>>();
        let (mut dx, mut sum) = (vec![0.0; n], vec![0.0; 2 * n]);
        rows(&small(&dy), &small(&x), &small(&scale), 1e-5, &mut dx, &mut sum);
        let mut plain = vec![0.0; n];
        rows_body::<Plain>(&small(&dy), &small(&x), &small(&scale), 1e-5, &mut plain, &mut []);
        for i in 0..n {
            let slope = |v: &[f64], which: usize| {
                let at = |h: f64| {
                    let mut moved = v.to_vec();
                    moved[i] += h;
                    if which == 0 { weighted(&moved, &scale, &dy) } else { weighted(&x, &moved, &dy) }
                };
                (at(1e-5) - at(-1e-5)) / 2e-5
            };
            assert!((f64::from(dx[i]) - slope(&x, 0)).abs() < 2e-6, "dx[{i}]");
            assert!((f64::from(sum[i]) - slope(&scale, 1)).abs() < 2e-6, "dscale[{i}]");
            assert!((f64::from(sum[n + i]) - dy[i]).abs() < 1e-6, "dbias[{i}]");
            assert!((dx[i] - plain[i]).abs() < 1e-6);
        }
    }
}
