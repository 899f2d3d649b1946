//! Looking for NaN and infinities.

use graft_graph::{DType, Element, Tensor};

/// Index and value of the first element that is no finite number; `None` for sound tensors and for integers.
pub(crate) fn first_non_finite(tensor: &Tensor) -> Option<(usize, f64)> {
    match tensor.dtype() {
        DType::F32 => first(tensor, |v: f32| v.is_finite(), f64::from),
        DType::F64 => first(tensor, |v: f64| v.is_finite(), |v| v),
        DType::F16 => first(tensor, |v: half::f16| v.is_finite(), f64::from),
        DType::BF16 => first(tensor, |v: half::bf16| v.is_finite(), f64::from),
        _ => None,
    }
}

/// Elements that are looked at before the first bad one among them is looked for: the compiler makes one pass without
/// branches of them.
const AT_ONCE: usize = 1024;

fn first<T: Element>(
    tensor: &Tensor,
    is_finite: impl Fn(T) -> bool,
    number: impl Fn(T) -> f64,
) -> Option<(usize, f64)> {
    let values = tensor.values::<T>().ok()?;
    let sound = |part: &[T]| part.iter().fold(true, |all, v| all & is_finite(*v));
    let part = values.chunks(AT_ONCE).position(|part| !sound(part))? * AT_ONCE;
    let within = values.get(part..)?.iter().position(|v| !is_finite(*v))?;
    Some((part + within, number(*values.get(part + within)?)))
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

    #[test]
    fn it_is_found_wherever_it_is() {
        for at in [0, 1, AT_ONCE - 1, AT_ONCE, 2 * AT_ONCE + 7] {
            let mut values = vec![1f32; 2 * AT_ONCE + 8];
            (values[at], values[2 * AT_ONCE + 7]) = (f32::NEG_INFINITY, f32::NEG_INFINITY);
            assert_eq!(first_non_finite(&Tensor::vector(&values)), Some((at, f64::NEG_INFINITY)));
        }
    }
}
