//! Random numbers that depend on nothing but a seed, a step and a name.
//!
//! Each buffer has its own ChaCha8 stream, keyed by BLAKE3 over seed, step and name. So a value does not depend on
//! what else was drawn, on the order of drawing or on the number of threads, and logarithm and cosine are those of
//! the crate `libm`, so that every platform draws the same bits.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::error::TrainError;

/// What noise looks like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Distribution {
    /// Evenly between two bounds; the upper one can occur by rounding.
    Uniform {
        /// Lower bound.
        low: f64,
        /// Upper bound.
        high: f64,
    },
    /// The normal distribution.
    Normal {
        /// Mean.
        mean: f64,
        /// Standard deviation.
        std: f64,
    },
    /// 1 with probability `p`, else 0.
    Bernoulli {
        /// Probability of 1.
        p: f64,
    },
}

impl Distribution {
    fn check(self, name: &str) -> Result<(), TrainError> {
        let good = match self {
            Distribution::Uniform { low, high } => low <= high && (high - low).is_finite(),
            Distribution::Normal { mean, std } => mean.is_finite() && std.is_finite() && std >= 0.0,
            Distribution::Bernoulli { p } => (0.0..=1.0).contains(&p),
        };
        match good {
            true => Ok(()),
            false => Err(TrainError::Random(format!("the noise `{name}` cannot be drawn from {self:?}"))),
        }
    }
}

/// A stream of random numbers.
struct Stream(ChaCha8Rng);

impl Stream {
    fn new(purpose: &str, seed: u64, step: u64, name: &str) -> Self {
        let mut key = blake3::Hasher::new_derive_key(purpose);
        key.update(&seed.to_le_bytes()).update(&step.to_le_bytes()).update(name.as_bytes());
        Stream(ChaCha8Rng::from_seed(*key.finalize().as_bytes()))
    }

    /// In [0, 1), in steps of 2⁻⁵³.
    fn unit(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn fill(&mut self, distribution: Distribution, out: &mut [f32]) {
        match distribution {
            Distribution::Uniform { low, high } => {
                out.iter_mut().for_each(|v| *v = (low + (high - low) * self.unit()) as f32);
            }
            Distribution::Bernoulli { p } => {
                // 32 bits for each value: p is met to 2⁻³², and 1 is certain at p = 1.
                let threshold = (p * (1u64 << 32) as f64) as u64;
                out.iter_mut()
                    .for_each(|v| *v = f32::from(u8::from(u64::from(self.0.next_u32()) < threshold)));
            }
            Distribution::Normal { mean, std } => {
                for pair in out.chunks_mut(2) {
                    let (a, b) = self.normal_pair();
                    pair[0] = (mean + std * a) as f32;
                    if let Some(second) = pair.get_mut(1) {
                        *second = (mean + std * b) as f32;
                    }
                }
            }
        }
    }

    /// Two independent standard normal values (Box and Muller 1958).
    fn normal_pair(&mut self) -> (f64, f64) {
        let radius = (-2.0 * libm::log(1.0 - self.unit())).sqrt();
        let (sin, cos) = libm::sincos(std::f64::consts::TAU * self.unit());
        (radius * cos, radius * sin)
    }
}

/// Fills `out` with the noise `name` of a step.
///
/// # Errors
/// [`TrainError::Random`] when the distribution's numbers make no sense.
pub fn noise(
    seed: u64,
    step: u64,
    name: &str,
    what: Distribution,
    out: &mut [f32],
) -> Result<(), TrainError> {
    what.check(name)?;
    Stream::new("graft 2026 noise", seed, step, name).fill(what, out);
    Ok(())
}

/// Puts items into a random order (Fisher–Yates), the same for the same seed, name and number of items.
pub fn shuffle<T>(seed: u64, name: &str, items: &mut [T]) {
    let mut stream = Stream::new("graft 2026 order", seed, 0, name);
    for i in (1..items.len()).rev() {
        items.swap(i, (stream.unit() * (i + 1) as f64) as usize);
    }
}

/// How a parameter begins. Fans are torch's: of a shape `[out, in, rest…]`, fan-in is `in · rest`, fan-out
/// `out · rest`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// All 0.
    Zeros,
    /// All 1.
    Ones,
    /// Normal around 0.
    Normal {
        /// Standard deviation.
        std: f64,
    },
    /// Uniform in ±bound.
    Uniform {
        /// The bound.
        bound: f64,
    },
    /// Uniform in ±√(6 / ((1 + a²) · fan-in)): He et al. 2015, as torch's `kaiming_uniform_`.
    KaimingUniform {
        /// Negative slope of the rectifier; √5 is what `nn.Linear` uses.
        a: f64,
    },
    /// Uniform in ±√(6 / (fan-in + fan-out)): Glorot and Bengio 2010.
    XavierUniform,
}

/// Fan-in and fan-out.
fn fans(name: &str, shape: &[usize]) -> Result<(f64, f64), TrainError> {
    let [out, inner, rest @ ..] = shape else {
        let m =
            format!("the parameter `{name}` of shape {shape:?} has no fan-in: its initialiser needs rank 2");
        return Err(TrainError::Random(m));
    };
    let rest: f64 = rest.iter().map(|d| *d as f64).product();
    Ok((*inner as f64 * rest, *out as f64 * rest))
}

impl Init {
    /// The first values of the parameter `name`: the same for the same seed and name.
    ///
    /// # Errors
    /// [`TrainError::Random`] when the initialiser does not fit the shape or its numbers make no sense.
    pub fn values(self, seed: u64, name: &str, shape: &[usize]) -> Result<Vec<f32>, TrainError> {
        let count = shape.iter().try_fold(1usize, |a, d| a.checked_mul(*d));
        let too_large =
            || TrainError::Random(format!("the parameter `{name}` of shape {shape:?} is too large"));
        let count = count.filter(|c| *c <= isize::MAX as usize / 4).ok_or_else(too_large)?;
        let mut out = Vec::new();
        out.try_reserve_exact(count).map_err(|_| too_large())?;
        out.resize(count, if self == Init::Ones { 1.0 } else { 0.0 });
        if count == 0 {
            return Ok(out);
        }
        let bound = match self {
            Init::Zeros | Init::Ones => return Ok(out),
            Init::Normal { std } => {
                return Self::draw(seed, name, Distribution::Normal { mean: 0.0, std }, out);
            }
            Init::Uniform { bound } => bound,
            Init::KaimingUniform { a } => (6.0 / ((1.0 + a * a) * fans(name, shape)?.0)).sqrt(),
            Init::XavierUniform => fans(name, shape).map(|(i, o)| (6.0 / (i + o)).sqrt())?,
        };
        Self::draw(seed, name, Distribution::Uniform { low: -bound, high: bound }, out)
    }

    fn draw(seed: u64, name: &str, what: Distribution, mut out: Vec<f32>) -> Result<Vec<f32>, TrainError> {
        what.check(name)?;
        Stream::new("graft 2026 init", seed, 0, name).fill(what, &mut out);
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(seed: u64, step: u64, name: &str, what: Distribution, count: usize) -> Vec<f32> {
        let mut out = vec![0.0; count];
        noise(seed, step, name, what, &mut out).unwrap();
        out
    }

    fn moments(v: &[f32]) -> (f64, f64) {
        let n = v.len() as f64;
        let mean = v.iter().map(|x| f64::from(*x)).sum::<f64>() / n;
        (mean, v.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / n)
    }

    const N: usize = 200_000;
    const UNIT: Distribution = Distribution::Uniform { low: 0.0, high: 1.0 };

    #[test]
    fn uniform_noise_fills_its_range_evenly() {
        let v = draw(1, 2, "x", Distribution::Uniform { low: -2.0, high: 4.0 }, N);
        assert!(v.iter().all(|x| (-2.0..=4.0).contains(x)));
        let (mean, variance) = moments(&v);
        assert!((mean - 1.0).abs() < 0.02 && (variance - 3.0).abs() < 0.05, "{mean} {variance}");
        // χ² over 60 cells of equal width: 59 degrees of freedom, 99.99 % lie below 108.
        let mut cells = [0f64; 60];
        v.iter().for_each(|x| cells[(((x + 2.0) * 10.0) as usize).min(59)] += 1.0);
        let expected = N as f64 / 60.0;
        let chi: f64 = cells.iter().map(|c| (c - expected).powi(2) / expected).sum();
        assert!(chi < 108.0, "{chi}");
    }

    #[test]
    fn normal_noise_has_the_normal_distribution_function() {
        let v = draw(3, 0, "x", Distribution::Normal { mean: 5.0, std: 2.0 }, N + 1);
        let (mean, variance) = moments(&v);
        assert!((mean - 5.0).abs() < 0.02 && (variance - 4.0).abs() < 0.05, "{mean} {variance}");
        // Kolmogorov–Smirnov: the largest gap to Φ; 1.95/√n is passed by 99.9 %.
        let mut z: Vec<f64> = v.iter().map(|x| (f64::from(*x) - 5.0) / 2.0).collect();
        z.sort_by(f64::total_cmp);
        let gap = z.iter().enumerate().fold(0.0f64, |m, (i, z)| {
            let phi = 0.5 * libm::erfc(-z / std::f64::consts::SQRT_2);
            m.max((phi - (i as f64 + 0.5) / (N + 1) as f64).abs())
        });
        assert!(gap < 1.95 / (N as f64).sqrt(), "{gap}");
    }

    #[test]
    fn bernoulli_noise_meets_its_probability_and_its_ends() {
        let v = draw(4, 0, "x", Distribution::Bernoulli { p: 0.9 }, N);
        assert!(v.iter().all(|x| *x == 0.0 || *x == 1.0));
        assert!((moments(&v).0 - 0.9).abs() < 0.003);
        assert!(draw(4, 0, "x", Distribution::Bernoulli { p: 1.0 }, N).iter().all(|x| *x == 1.0));
        assert!(draw(4, 0, "x", Distribution::Bernoulli { p: 0.0 }, N).iter().all(|x| *x == 0.0));
    }

    #[test]
    fn streams_of_other_seeds_steps_and_names_are_uncorrelated() {
        let base = draw(1, 1, "a", UNIT, N);
        assert_eq!(base, draw(1, 1, "a", UNIT, N));
        for other in [draw(2, 1, "a", UNIT, N), draw(1, 2, "a", UNIT, N), draw(1, 1, "b", UNIT, N)] {
            let dot: f64 =
                base.iter().zip(&other).map(|(a, b)| (f64::from(*a) - 0.5) * (f64::from(*b) - 0.5)).sum();
            assert!((dot / N as f64 * 12.0).abs() < 0.01);
        }
        let lagged: f64 =
            base.windows(2).map(|w| (f64::from(w[0]) - 0.5) * (f64::from(w[1]) - 0.5)).sum::<f64>()
                / N as f64;
        assert!((lagged * 12.0).abs() < 0.01);
    }

    #[test]
    fn the_numbers_are_these_on_every_platform() {
        let bits = |what| draw(7, 3, "dropout.0", what, 3).iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        // From the definitions of BLAKE3, ChaCha8 and Box–Muller, written out in Python.
        assert_eq!(bits(UNIT), [1046468576, 1055277459, 1043748826]);
        let normal = bits(Distribution::Normal { mean: 0.0, std: 1.0 });
        assert_eq!(normal, [3207260329, 1046443559, 3198685570]);
    }

    #[test]
    fn initialisers_have_the_bounds_of_torch() {
        // fan-in of [8, 4, 3] is 12, fan-out 24; with a = √5 the bound is 1/√12.
        let largest = |i: Init, shape: &[usize]| {
            let v = i.values(0, "w", shape).unwrap();
            v.iter().fold(0.0f32, |m, x| m.max(x.abs()))
        };
        let near =
            |found: f32, bound: f64| assert!(f64::from(found) <= bound && f64::from(found) > 0.99 * bound);
        near(largest(Init::KaimingUniform { a: 5f64.sqrt() }, &[800, 4, 3]), 1.0 / 12f64.sqrt());
        near(largest(Init::XavierUniform, &[30, 20, 5]), (6.0f64 / 250.0).sqrt());
        near(largest(Init::Uniform { bound: 0.3 }, &[4000]), 0.3);
        let (mean, variance) = moments(&Init::Normal { std: 0.02 }.values(0, "w", &[400, 400]).unwrap());
        assert!(mean.abs() < 1e-3 && (variance.sqrt() - 0.02).abs() < 1e-3);
        assert_eq!(Init::Zeros.values(0, "w", &[3]).unwrap(), [0.0; 3]);
        assert_eq!(Init::Ones.values(0, "w", &[]).unwrap(), [1.0]);
        let xavier = |seed, name| Init::XavierUniform.values(seed, name, &[2, 2]).unwrap();
        assert_ne!(xavier(0, "w"), xavier(0, "v"));
        assert_ne!(xavier(0, "w"), xavier(1, "w"));
    }

    #[test]
    fn numbers_that_make_no_sense_are_errors() {
        for what in [
            Distribution::Bernoulli { p: 1.5 },
            Distribution::Bernoulli { p: f64::NAN },
            Distribution::Normal { mean: 0.0, std: -1.0 },
            Distribution::Uniform { low: 1.0, high: 0.0 },
        ] {
            assert!(noise(0, 0, "x", what, &mut [0.0]).unwrap_err().to_string().contains("noise `x`"));
        }
        assert!(Init::KaimingUniform { a: 1.0 }.values(0, "b", &[5]).is_err());
        assert!(Init::Zeros.values(0, "b", &[usize::MAX, 2]).is_err());
        assert!(Init::Uniform { bound: f64::NAN }.values(0, "b", &[5]).is_err());
        assert_eq!(Init::XavierUniform.values(0, "b", &[0, 0]).unwrap(), [0f32; 0]);
    }
}
