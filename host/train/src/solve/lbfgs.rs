//! L-BFGS with a preconditioner, for smooth functions in float64 (Nocedal and Wright 2006, "Numerical Optimization",
//! algorithms 7.4 and 7.5).

use super::wolfe::{Line, search};

/// Pairs of steps and changes of the gradient that are remembered.
const MEMORY: usize = 10;

/// Value and gradient of a function; the gradient is written into the second argument, as long as the first.
pub type Function<'a> = dyn FnMut(&[f64], &mut [f64]) -> f64 + 'a;

/// Multiplies a vector with an approximation of the inverse Hessian, symmetric and positive definite.
pub type Precondition<'a> = dyn Fn(&[f64]) -> Vec<f64> + 'a;

/// When to stop.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Largest absolute component of the gradient that counts as zero.
    pub tolerance: f64,
    /// Most iterations.
    pub iterations: usize,
}

/// Where a minimisation ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Minimum {
    /// The function's value.
    pub value: f64,
    /// Largest absolute component of the gradient.
    pub gradient: f64,
    /// Iterations done.
    pub iterations: usize,
    /// Whether the gradient is within the tolerance. Without that it is as small as rounding or the limit let it become.
    pub converged: bool,
}

/// Minimises `f` from `x`, which becomes the place of the minimum.
pub fn minimise(
    x: &mut [f64],
    f: &mut Function<'_>,
    precondition: &Precondition<'_>,
    limits: Limits,
) -> Minimum {
    let mut gradient = vec![0.0; x.len()];
    let mut value = f(x, &mut gradient);
    let mut history = History::default();
    for iterations in 0..=limits.iterations {
        let largest = gradient.iter().fold(0f64, |m, g| m.max(g.abs()));
        let done = |converged| Minimum { value, gradient: largest, iterations, converged };
        // NaN is within no tolerance, and no step leads out of it.
        if largest <= limits.tolerance || !value.is_finite() {
            return done(largest <= limits.tolerance && value.is_finite());
        }
        if iterations == limits.iterations {
            return done(false);
        }
        let mut direction = history.direction(&gradient, precondition);
        if dot(&direction, &gradient) >= 0.0 {
            history = History::default();
            direction = history.direction(&gradient, precondition);
        }
        let Some(step) = search(&Line { x, direction: &direction, value, gradient: &gradient }, f) else {
            // No step improves on this place: rounding is all that is left of the gradient.
            return done(false);
        };
        let moved: Vec<f64> = step.x.iter().zip(&*x).map(|(a, b)| a - b).collect();
        let changed: Vec<f64> = step.gradient.iter().zip(&gradient).map(|(a, b)| a - b).collect();
        history.push(moved, changed, precondition);
        x.copy_from_slice(&step.x);
        (value, gradient) = (step.value, step.gradient);
    }
    unreachable!("the last iteration returns")
}

/// The latest steps `s`, changes of the gradient `y` and `1 / sᵀy`.
#[derive(Default)]
struct History {
    pairs: std::collections::VecDeque<(Vec<f64>, Vec<f64>, f64)>,
    /// How much the preconditioner overestimates, by the latest pair: `sᵀy / yᵀMy`.
    scale: Option<f64>,
}

impl History {
    /// A pair whose curvature is not positive says nothing of a minimum and is left out.
    fn push(&mut self, s: Vec<f64>, y: Vec<f64>, precondition: &Precondition<'_>) {
        let sy = dot(&s, &y);
        let ymy = dot(&y, &precondition(&y));
        if !(sy > 0.0 && ymy > 0.0 && (1.0 / sy).is_finite()) {
            return;
        }
        if self.pairs.len() == MEMORY {
            self.pairs.pop_front();
        }
        self.scale = Some(sy / ymy);
        self.pairs.push_back((s, y, 1.0 / sy));
    }

    /// Minus the inverse Hessian, as far as it is known, times the gradient.
    fn direction(&self, gradient: &[f64], precondition: &Precondition<'_>) -> Vec<f64> {
        let mut q = gradient.to_vec();
        let mut weights = Vec::with_capacity(self.pairs.len());
        for (s, y, inverse) in self.pairs.iter().rev() {
            let a = inverse * dot(s, &q);
            add(&mut q, -a, y);
            weights.push(a);
        }
        let mut r = precondition(&q);
        let scale = self.scale.unwrap_or(1.0);
        r.iter_mut().for_each(|v| *v *= scale);
        for ((s, y, inverse), a) in self.pairs.iter().zip(weights.into_iter().rev()) {
            let b = inverse * dot(y, &r);
            add(&mut r, a - b, s);
        }
        r.iter_mut().for_each(|v| *v = -*v);
        r
    }
}

pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// `x += factor · y`.
fn add(x: &mut [f64], factor: f64, y: &[f64]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += factor * y);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rosenbrock's valley (Rosenbrock 1960), whose minimum is 0 at (1, 1).
    fn rosenbrock(x: &[f64], g: &mut [f64]) -> f64 {
        let (a, b) = (1.0 - x[0], x[1] - x[0] * x[0]);
        g[0] = -2.0 * a - 400.0 * x[0] * b;
        g[1] = 200.0 * b;
        a * a + 100.0 * b * b
    }

    #[test]
    fn the_bottom_of_a_bent_valley_is_found() {
        let mut x = [-1.2, 1.0];
        let limits = Limits { tolerance: 1e-10, iterations: 200 };
        let m = minimise(&mut x, &mut rosenbrock, &|v| v.to_vec(), limits);
        assert!(m.converged && m.iterations < 60, "{m:?}");
        assert!((x[0] - 1.0).abs() < 1e-9 && (x[1] - 1.0).abs() < 1e-9, "{x:?}");
    }

    #[test]
    fn the_right_preconditioner_needs_one_step() {
        let curvature = [1e-4, 1.0, 1e6];
        let mut f = |x: &[f64], g: &mut [f64]| {
            g.iter_mut().zip(x).zip(curvature).for_each(|((g, x), c)| *g = c * (x - 3.0));
            x.iter().zip(curvature).map(|(x, c)| 0.5 * c * (x - 3.0) * (x - 3.0)).sum()
        };
        let inverse = |v: &[f64]| v.iter().zip(curvature).map(|(v, c)| v / c).collect();
        let mut x = [0.0; 3];
        let m = minimise(&mut x, &mut f, &inverse, Limits { tolerance: 1e-9, iterations: 5 });
        assert_eq!((m.iterations, m.converged), (1, true), "{m:?}");
    }

    #[test]
    fn what_has_no_minimum_ends_at_the_limit_and_says_so() {
        let mut f = |x: &[f64], g: &mut [f64]| {
            g[0] = -(-x[0]).exp();
            (-x[0]).exp()
        };
        let m = minimise(&mut [0.0], &mut f, &|v| v.to_vec(), Limits { tolerance: 0.0, iterations: 20 });
        assert!(!m.converged, "{m:?}");
        let mut nan = |_: &[f64], g: &mut [f64]| {
            g[0] = f64::NAN;
            f64::NAN
        };
        let m = minimise(&mut [0.0], &mut nan, &|v| v.to_vec(), Limits { tolerance: 1.0, iterations: 20 });
        assert!(!m.converged, "{m:?}");
    }
}
