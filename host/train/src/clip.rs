//! The global norm of the gradients, and clipping to it.

use crate::bulk::{self, PIECE};

/// Euclidean norm over all gradients together, summed in f64 in an order that does not depend on the number of
/// threads, so that it is the same on every run. NaN or infinite if an element is.
pub fn global_norm(grads: &[Vec<f32>]) -> f64 {
    let buffers: Vec<&[f32]> = grads.iter().map(Vec::as_slice).collect();
    bulk::map(&buffers, bulk::squares).iter().sum::<f64>().sqrt()
}

/// Multiplies all gradients by `max_norm / (norm + 1e-6)` where that is below 1, as torch's
/// `clip_grad_norm_` does, and returns that factor (1 where nothing was clipped).
pub fn clip(grads: &mut [Vec<f32>], norm: f64, max_norm: f64) -> f64 {
    let factor = (max_norm / (norm + 1e-6)).min(1.0);
    if factor < 1.0 {
        let elements = grads.iter().map(Vec::len).sum();
        let pieces = grads.iter_mut().flat_map(|g| g.chunks_mut(PIECE)).collect();
        bulk::each(elements, pieces, |piece: &mut [f32]| piece.iter_mut().for_each(|g| *g *= factor as f32));
    }
    factor
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grads() -> Vec<Vec<f32>> {
        vec![vec![0.1, -2.0, 0.3, 1.5], vec![1.5, -0.25]]
    }

    fn check(max_norm: f64, expected: [f32; 6]) {
        let mut g = grads();
        let norm = global_norm(&g);
        assert!((norm - 2.9432127475738525).abs() < 1e-6);
        clip(&mut g, norm, max_norm);
        for (a, b) in g.iter().flatten().zip(expected) {
            assert!((a - b).abs() < 1e-6, "{a} instead of {b}");
        }
    }

    #[test]
    fn norm_and_clipped_gradients_are_those_of_torch() {
        check(1.0, [0.033976465, -0.6795293, 0.1019294, 0.509647, 0.509647, -0.08494116]);
        check(2.5, [0.08494116, -1.6988232, 0.2548235, 1.2741175, 1.2741175, -0.2123529]);
    }

    #[test]
    fn a_small_gradient_is_left_alone_bit_for_bit() {
        let mut g = grads();
        assert_eq!(clip(&mut g, 2.9432127, 100.0), 1.0);
        assert_eq!(g, grads());
    }

    #[test]
    fn large_elements_do_not_overflow_the_norm() {
        assert!((global_norm(&[vec![1e30, 1e30]]) / (2f64.sqrt() * 1e30) - 1.0).abs() < 1e-6);
        assert!(global_norm(&[vec![f32::NAN]]).is_nan());
    }
}
