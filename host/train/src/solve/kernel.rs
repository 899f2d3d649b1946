//! The two products of softmax regression, for few labels: a matrix product that packs its operands would spend most of
//! its time on packing.

/// Labels that are worked on at once.
pub const LABELS: usize = 8;
/// Rows or columns that are worked on at once.
const TILE: usize = 4;

/// `z = x · w` for `x` `[rows, columns]`, `w` `[columns, LABELS]` and `z` `[rows, LABELS]`.
pub fn forward(x: &[f64], columns: usize, w: &[f64], z: &mut [f64]) {
    #[cfg(target_arch = "x86_64")]
    if has_avx2() {
        // SAFETY: the processor has what the function is compiled for.
        return unsafe { forward_avx2(x, columns, w, z) };
    }
    forward_of::<FUSED>(x, columns, w, z);
}

/// `g += xᵀ · z` for `x` `[rows, columns]`, `z` `[rows, LABELS]` and `g` `[columns, LABELS]`.
pub fn backward(x: &[f64], columns: usize, z: &[f64], g: &mut [f64]) {
    #[cfg(target_arch = "x86_64")]
    if has_avx2() {
        // SAFETY: the processor has what the function is compiled for.
        return unsafe { backward_avx2(x, columns, z, g) };
    }
    backward_of::<FUSED>(x, columns, z, g);
}

/// Whether every processor of the architecture multiplies and adds at once.
const FUSED: bool = cfg!(target_arch = "aarch64");

#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn forward_avx2(x: &[f64], columns: usize, w: &[f64], z: &mut [f64]) {
    forward_of::<true>(x, columns, w, z);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn backward_avx2(x: &[f64], columns: usize, z: &[f64], g: &mut [f64]) {
    backward_of::<true>(x, columns, z, g);
}

#[inline(always)]
fn add<const FMA: bool>(sums: &mut [f64; LABELS], factor: f64, row: &[f64]) {
    for (s, v) in sums.iter_mut().zip(row) {
        *s = if FMA { factor.mul_add(*v, *s) } else { factor * v + *s };
    }
}

#[inline(always)]
fn forward_of<const FMA: bool>(x: &[f64], columns: usize, w: &[f64], z: &mut [f64]) {
    let mut tiles = x.chunks_exact(TILE * columns);
    let mut out = z.chunks_exact_mut(TILE * LABELS);
    for (x, z) in tiles.by_ref().zip(out.by_ref()) {
        let mut sums = [[0.0; LABELS]; TILE];
        let (ab, cd) = x.split_at(2 * columns);
        let ((a, b), (c, d)) = (ab.split_at(columns), cd.split_at(columns));
        for ((((a, b), c), d), w) in a.iter().zip(b).zip(c).zip(d).zip(w.chunks_exact(LABELS)) {
            add::<FMA>(&mut sums[0], *a, w);
            add::<FMA>(&mut sums[1], *b, w);
            add::<FMA>(&mut sums[2], *c, w);
            add::<FMA>(&mut sums[3], *d, w);
        }
        z.copy_from_slice(sums.as_flattened());
    }
    let rest = tiles.remainder().chunks_exact(columns);
    for (x, z) in rest.zip(out.into_remainder().chunks_exact_mut(LABELS)) {
        let mut sums = [0.0; LABELS];
        x.iter().zip(w.chunks_exact(LABELS)).for_each(|(x, w)| add::<FMA>(&mut sums, *x, w));
        z.copy_from_slice(&sums);
    }
}

#[inline(always)]
fn backward_of<const FMA: bool>(x: &[f64], columns: usize, z: &[f64], g: &mut [f64]) {
    let mut tiles = g.chunks_exact_mut(TILE * LABELS);
    let mut first = 0;
    for g in tiles.by_ref() {
        let mut sums = [[0.0; LABELS]; TILE];
        for (x, z) in x.chunks_exact(columns).zip(z.chunks_exact(LABELS)) {
            for (sums, x) in sums.iter_mut().zip(&x[first..first + TILE]) {
                add::<FMA>(sums, *x, z);
            }
        }
        g.iter_mut().zip(sums.as_flattened()).for_each(|(g, s)| *g += s);
        first += TILE;
    }
    for (i, g) in tiles.into_remainder().chunks_exact_mut(LABELS).enumerate() {
        let mut sums = [0.0; LABELS];
        for (x, z) in x.chunks_exact(columns).zip(z.chunks_exact(LABELS)) {
            add::<FMA>(&mut sums, x[first + i], z);
        }
        g.iter_mut().zip(sums).for_each(|(g, s)| *g += s);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_products_are_those_of_ndarray() {
        use ndarray::Array2;
        let number = |i: usize| ((i * 7919 + 13) % 1009) as f64 / 1009.0 - 0.5;
        for (rows, columns) in [(1, 1), (4, 4), (7, 9), (13, 385)] {
            let x = Array2::from_shape_fn((rows, columns), |(r, c)| number(r * columns + c));
            let w = Array2::from_shape_fn((columns, LABELS), |(r, c)| number(r * LABELS + c + 5));
            let (flat, of_w) = (x.as_slice().unwrap(), w.as_slice().unwrap());
            let mut z = Array2::<f64>::zeros((rows, LABELS));
            forward(flat, columns, of_w, z.as_slice_mut().unwrap());
            let near = |a: &Array2<f64>, b: &Array2<f64>| (a - b).iter().all(|d| d.abs() < 1e-12);
            assert!(near(&z, &x.dot(&w)), "{rows} {columns}");
            let mut plain = vec![0.0; rows * LABELS];
            forward_of::<false>(flat, columns, of_w, &mut plain);
            assert!(plain.iter().zip(&z).all(|(a, b)| (a - b).abs() < 1e-12));
            let mut g = Array2::<f64>::ones((columns, LABELS));
            backward(flat, columns, z.as_slice().unwrap(), g.as_slice_mut().unwrap());
            assert!(near(&g, &(x.t().dot(&z) + 1.0)), "{rows} {columns}");
        }
    }
}
