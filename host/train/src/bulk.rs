//! Arithmetic over all elements of many buffers, on several threads where there are many: the update of a whole model
//! would otherwise take as long as its gradients.

use rayon::prelude::*;

/// Elements of one buffer that a thread takes at a time. What is summed is summed within such pieces and then in their
/// order, so that the result does not depend on the number of threads.
pub(crate) const PIECE: usize = 1 << 16;
/// Elements from which on it is worth it to wake other threads.
const MANY: usize = 1 << 20;

/// How many threads updates take, besides those of ONNX Runtime, which wait meanwhile. The first call in a process
/// counts; without one it is as many as there are processors.
pub(crate) fn threads(count: usize) {
    // A second call fails, by contract.
    rayon::ThreadPoolBuilder::new().num_threads(count).build_global().ok();
}

/// Does `work` on every piece. `elements` is how many they hold together.
pub(crate) fn each<T: Send>(elements: usize, pieces: Vec<T>, work: impl Fn(T) + Sync + Send) {
    if elements < MANY { pieces.into_iter().for_each(work) } else { pieces.into_par_iter().for_each(work) }
}

/// What `of` gives for each piece of the buffers, in their order.
pub(crate) fn map<R: Send>(buffers: &[&[f32]], of: impl Fn(&[f32]) -> R + Sync + Send) -> Vec<R> {
    let pieces: Vec<&[f32]> = buffers.iter().flat_map(|b| b.chunks(PIECE)).collect();
    if buffers.iter().map(|b| b.len()).sum::<usize>() < MANY {
        pieces.into_iter().map(of).collect()
    } else {
        pieces.into_par_iter().map(of).collect()
    }
}

/// Whether every element is finite.
pub(crate) fn finite(values: &[f32]) -> bool {
    // Without a way out of the loop it is done many at a time.
    values.chunks(PIECE).all(|piece| piece.iter().fold(true, |all, v| all & v.is_finite()))
}

/// The sum of squares in f64.
pub(crate) fn squares(values: &[f32]) -> f64 {
    const LANES: usize = 8;
    let mut sums = [0f64; LANES];
    let (rows, rest) = values.as_chunks::<LANES>();
    for row in rows {
        for (s, v) in sums.iter_mut().zip(row) {
            *s += f64::from(*v) * f64::from(*v);
        }
    }
    sums.iter().sum::<f64>() + rest.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_elements_and_few_are_treated_alike() {
        let values: Vec<f32> = (0..MANY + 3).map(|i| (i % 17) as f32 - 8.0).collect();
        let whole: f64 = values.iter().map(|v| f64::from(*v) * f64::from(*v)).sum();
        assert_eq!(map(&[&values[..5], &values[5..]], squares).iter().sum::<f64>(), whole);
        let mut out = vec![0f32; values.len()];
        let pieces: Vec<_> = out.chunks_mut(PIECE).zip(values.chunks(PIECE)).collect();
        each(values.len(), pieces, |(o, v)| o.copy_from_slice(v));
        assert_eq!(out, values);
    }

    #[test]
    fn one_element_that_is_not_finite_is_seen() {
        let mut values = vec![1f32; PIECE + 2];
        assert!(finite(&values));
        values[PIECE + 1] = f32::NAN;
        assert!(!finite(&values));
    }
}
