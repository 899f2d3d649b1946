//! Gradient accumulation: one step over several micro-batches.
//!
//! Every micro-batch weighs the same: loss and gradient of a step are the arithmetic mean of those of its
//! micro-batches, however many examples each holds. The last step of an epoch may have fewer micro-batches, and
//! its mean is over those it has.

/// Groups micro-batches into steps of `size` (at least 1); the last group may be smaller.
pub fn group<B, X>(
    micro: impl Iterator<Item = Result<B, X>>,
    size: usize,
) -> impl Iterator<Item = Result<Vec<B>, X>> {
    let mut micro = micro.fuse();
    std::iter::from_fn(move || {
        let step: Result<Vec<B>, X> = micro.by_ref().take(size.max(1)).collect();
        match step {
            Ok(v) if v.is_empty() => None,
            other => Some(other),
        }
    })
}

/// Number of steps that [`group`] makes of `micro` micro-batches.
pub fn steps(micro: usize, size: usize) -> usize {
    micro.div_ceil(size.max(1))
}

/// Adds `from` to `sum`, element by element.
pub(crate) fn add(sum: &mut [Vec<f32>], from: &[Vec<f32>]) {
    for (s, f) in sum.iter_mut().zip(from) {
        s.iter_mut().zip(f).for_each(|(a, b)| *a += b);
    }
}

/// Divides every element by `count`.
pub(crate) fn divide(sum: &mut [Vec<f32>], count: usize) {
    let n = count as f32;
    sum.iter_mut().flatten().for_each(|a| *a /= n);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_group_holds_what_is_left() {
        let all: Vec<Vec<i32>> = group((0..7).map(Ok::<_, ()>), 3).map(|g| g.unwrap()).collect();
        assert_eq!(all, [vec![0, 1, 2], vec![3, 4, 5], vec![6]]);
        assert_eq!(steps(7, 3), 3);
        assert_eq!(group((0..6).map(Ok::<_, ()>), 3).count(), steps(6, 3));
        assert_eq!(group((0..2).map(Ok::<_, ()>), 0).count(), 2);
    }

    #[test]
    fn an_error_in_a_micro_batch_is_the_steps_error() {
        let mut g = group([Ok(1), Err("bad"), Ok(2)].into_iter(), 2);
        assert_eq!(g.next(), Some(Err("bad")));
        assert_eq!(g.next(), Some(Ok(vec![2])));
        assert_eq!(g.next(), None);
    }
}
