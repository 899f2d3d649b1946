//! Looking for NaN and infinities.

use graft_graph::{DType, Tensor};

/// Index and value of the first element that is no finite number; `None` for sound tensors and for integers.
pub(crate) fn first_non_finite(tensor: &Tensor) -> Option<(usize, f64)> {
    match tensor.dtype() {
        DType::F32 => scan(tensor.values::<f32>().ok()?.iter().map(|v| f64::from(*v))),
        DType::F64 => scan(tensor.values::<f64>().ok()?.iter().copied()),
        DType::F16 => scan(tensor.values::<half::f16>().ok()?.iter().map(|v| f64::from(*v))),
        DType::BF16 => scan(tensor.values::<half::bf16>().ok()?.iter().map(|v| f64::from(*v))),
        _ => None,
    }
}

fn scan(values: impl Iterator<Item = f64>) -> Option<(usize, f64)> {
    values.enumerate().find(|(_, v)| !v.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bad_element_of_every_float_type_is_found() {
        let f = |t: Tensor| first_non_finite(&t).map(|(i, _)| i);
        assert_eq!(f(Tensor::vector(&[0.0f32, 1.0, f32::NAN])), Some(2));
        assert_eq!(f(Tensor::vector(&[f64::NEG_INFINITY, f64::NAN])), Some(0));
        assert_eq!(f(Tensor::vector(&[half::f16::ONE, half::f16::INFINITY])), Some(1));
        assert_eq!(f(Tensor::vector(&[half::bf16::ONE, half::bf16::NAN])), Some(1));
        assert_eq!(f(Tensor::vector(&[f32::MAX, f32::MIN_POSITIVE])), None);
        assert_eq!(f(Tensor::vector(&[i64::MAX])), None);
    }
}
