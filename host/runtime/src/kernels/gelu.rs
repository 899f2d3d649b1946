//! The gradient of Gelu with the error function, `Gelu(x) = x·Φ(x)`.

use ort::operator::ShapeInferenceContext;
use ort::operator::{ComputeContext, Kernel, KernelContext, Operator, OperatorInput, OperatorOutput};
use ort::value::TensorElementType::Float32;

use super::par::{chunks, error, guard};
use super::simd::{Eight, exp, fma, vectorised};
use super::{NAME_GELU_GRAD, floats, output};

/// Elements that one task takes: 32 KiB of each of its three arrays.
const CHUNK: usize = 8192;

/// Φ(x) and φ(x), the normal distribution's function and density. Φ(−a) = exp(−a²/2)·t·Q(t) with t = 1/(1 + 0.21·a),
/// Q a polynomial fitted to relative error 2e-8.
#[inline(always)]
pub(crate) fn normal<V: Eight>(x: f32) -> (f32, f32) {
    const Q: [f32; 9] = [
        -7.16569e-2,
        2.8359154e-1,
        -3.3025977e-1,
        3.494085e-1,
        -9.39305e-2,
        1.2487503e-1,
        6.919157e-2,
        8.506894e-2,
        8.371157e-2,
    ];
    const DENSITY: f32 = 0.398_942_3;
    let a = x.abs();
    let bell = exp::<V>(a * a * -0.5);
    let t = 1.0 / fma::<V>(a, 0.21, 1.0);
    let mut q = Q[0];
    for c in &Q[1..] {
        q = fma::<V>(q, t, *c);
    }
    let tail = q * t * bell;
    (if x < 0.0 { tail } else { 1.0 - tail }, bell * DENSITY)
}

#[inline(always)]
fn gelu_grad_body<V: Eight>(dy: &[f32], x: &[f32], dx: &mut [f32]) {
    let n = dx.len();
    let (dy, x) = (&dy[..n], &x[..n]);
    for i in 0..n {
        // Beyond 13 the bell is zero in f32. `clamp` keeps NaN.
        let v = x[i].clamp(-13.0, 13.0);
        let (cumulative, density) = normal::<V>(v);
        dx[i] = dy[i] * fma::<V>(v, density, cumulative);
    }
}

vectorised! {
    /// `dx = dy · (Φ(x) + x·φ(x))`, element by element.
    gelu_grad = gelu_grad_body(dy: &[f32], x: &[f32], dx: &mut [f32])
}

/// `GeluGrad(dy, x) → dx`, f32 of one shape.
pub(crate) struct GeluGrad;

impl Operator for GeluGrad {
    type Kernel<'attr> = GeluGradKernel;

    fn name(&self) -> &str {
        NAME_GELU_GRAD
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

    fn create_kernel<'attr>(&self, _: &KernelContext<'attr>) -> ort::Result<GeluGradKernel> {
        Ok(GeluGradKernel)
    }

    fn infer_shape(&self, ctx: &mut ShapeInferenceContext) -> ort::Result<()> {
        super::same_shape(NAME_GELU_GRAD, ctx, 1, &[0])
    }
}

/// The kernel of [`GeluGrad`].
pub(crate) struct GeluGradKernel;

impl Kernel for GeluGradKernel {
    fn compute(&mut self, ctx: &ComputeContext) -> ort::Result<()> {
        guard(NAME_GELU_GRAD, || {
            let (dy, x) = (ctx.input(0)?, ctx.input(1)?);
            let (shape, dy) = floats(NAME_GELU_GRAD, "dy", &dy)?;
            let (x_shape, x) = floats(NAME_GELU_GRAD, "x", &x)?;
            if shape != x_shape {
                return Err(error(
                    NAME_GELU_GRAD,
                    &format!("dy is {shape:?}, x is {x_shape:?}; they must be alike"),
                ));
            }
            let Some(mut dx) = output(ctx, 0, shape)? else { return Ok(()) };
            let (_, dx) = dx.try_extract_tensor_mut::<f32>()?;
            chunks(ctx, NAME_GELU_GRAD, (dx, CHUNK), (&mut [], 0), |i, dx, _| {
                let at = i * CHUNK;
                gelu_grad(&dy[at..at + dx.len()], &x[at..at + dx.len()], dx);
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::simd::Plain;
    use super::*;

    /// Φ(x) + x·φ(x) in f64, Φ by a series (small x) or a continued fraction (large x).
    fn reference(x: f64) -> f64 {
        let density = (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
        let a = x.abs();
        let tail = if a < 4.0 {
            let (mut term, mut sum, mut k) = (a, a, 1.0);
            while term > 1e-18 * sum {
                k += 2.0;
                term *= a * a / k;
                sum += term;
            }
            0.5 - density * sum
        } else {
            density / (1..60).rev().fold(a, |f, k| a + f64::from(k) / f)
        };
        (if x < 0.0 { tail } else { 1.0 - tail }) + x * density
    }

    #[test]
    fn the_derivative_is_right_everywhere() {
        let xs: Vec<f32> = (-40_000..=40_000).map(|i| i as f32 / 2000.0).collect();
        let dy = vec![1.0; xs.len()];
        let mut wide = vec![0.0; xs.len()];
        let mut plain = wide.clone();
        gelu_grad(&dy, &xs, &mut wide);
        gelu_grad_body::<Plain>(&dy, &xs, &mut plain);
        for ((x, w), p) in xs.iter().zip(&wide).zip(&plain) {
            let want = reference(f64::from(*x));
            assert!((f64::from(*w) - want).abs() < 3e-7, "at {x}: {w}, not {want}");
            assert!((w - p).abs() <= 1e-6, "at {x}: {w} with AVX2, {p} without");
        }
    }

    #[test]
    fn extremes_and_nan_go_through() {
        let x = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e30, -1e30, 0.0];
        let mut dx = [0.0; 6];
        gelu_grad(&[2.0; 6], &x, &mut dx);
        assert!(dx[0].is_nan());
        assert!(dx[1..].iter().zip([2.0, 0.0, 2.0, 0.0, 1.0]).all(|(a, b)| (a - b).abs() < 1e-30), "{dx:?}");
    }
}
