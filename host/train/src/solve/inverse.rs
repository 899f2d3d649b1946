//! The inverse of a Cholesky factor.

use ndarray::{Array2, ArrayView2, Axis, concatenate, s};

/// Below this size the factor is computed element by element.
const SMALL: usize = 32;

/// `L⁻¹` for a symmetric positive definite `m = LLᵀ`, by halves, so that nearly all of the work is matrix products.
pub fn factor_inverse(m: &Array2<f64>) -> Array2<f64> {
    halves(m.view())
}

/// With `m = [[a, bᵀ], [b, c]]` and `P = factor(a)⁻¹`: the factor's lower left part is `bPᵀ`, its lower right part that of
/// the Schur complement.
fn halves(m: ArrayView2<'_, f64>) -> Array2<f64> {
    let n = m.nrows();
    if n <= SMALL {
        return small(m);
    }
    let h = n / 2;
    let upper = halves(m.slice(s![..h, ..h]));
    let corner = m.slice(s![h.., ..h]).dot(&upper.t());
    let lower = halves((&m.slice(s![h.., h..]) - &corner.dot(&corner.t())).view());
    let left = -lower.dot(&corner).dot(&upper);
    let top = Array2::zeros((h, n - h));
    let rows = [
        concatenate(Axis(1), &[upper.view(), top.view()]),
        concatenate(Axis(1), &[left.view(), lower.view()]),
    ];
    match rows {
        [Ok(a), Ok(b)] => concatenate(Axis(0), &[a.view(), b.view()]).unwrap_or_else(|_| Array2::eye(n)),
        _ => Array2::eye(n),
    }
}

fn small(m: ArrayView2<'_, f64>) -> Array2<f64> {
    let n = m.nrows();
    let (mut factor, mut inverse) = (Array2::<f64>::zeros((n, n)), Array2::<f64>::zeros((n, n)));
    for i in 0..n {
        for j in 0..=i {
            let rest: f64 = (0..j).map(|k| factor[[i, k]] * factor[[j, k]]).sum();
            factor[[i, j]] = if i == j {
                // Rounding may leave less than nothing of a diagonal that is nearly 0.
                (m[[i, i]] - rest).max(f64::EPSILON * m[[i, i]].abs() + f64::MIN_POSITIVE).sqrt()
            } else {
                (m[[i, j]] - rest) / factor[[j, j]]
            };
        }
    }
    for i in 0..n {
        for j in 0..=i {
            let rest: f64 = (j..i).map(|k| factor[[i, k]] * inverse[[k, j]]).sum();
            inverse[[i, j]] = (f64::from(i == j) - rest) / factor[[i, i]];
        }
    }
    inverse
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_factors_inverse_takes_the_matrix_to_the_identity() {
        for n in [1, 5, 32, 33, 100] {
            let a = Array2::from_shape_fn((n, n + 3), |(i, j)| ((i * 31 + j * 17) % 23) as f64 / 23.0 - 0.5);
            let m = a.dot(&a.t()) + Array2::<f64>::eye(n) * 0.1;
            let inverse = factor_inverse(&m);
            let one = inverse.dot(&m).dot(&inverse.t());
            let error = (&one - &Array2::<f64>::eye(n)).iter().fold(0f64, |e, v| e.max(v.abs()));
            assert!(error < 1e-10, "{n}: {error}");
        }
    }
}
