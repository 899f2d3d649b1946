//! Tensors of a call: their elements from bytes and into bytes. Nothing is believed before it is checked against the bytes
//! that are there.

use super::fault::Fault;

/// Bytes in front of an element of BYTES: its length, little-endian.
const PREFIX: usize = 4;

/// The types of tensors that are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataType {
    /// Elements of any length.
    Bytes,
    /// 64 bits.
    Int64,
    /// 32 bits, which are widened.
    Int32,
}

/// The elements of a tensor, row by row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// Of BYTES.
    Bytes(Vec<Vec<u8>>),
    /// Of INT64 and INT32.
    Ints(Vec<i64>),
}

/// An input of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// As many elements as the shape says.
    pub data: Data,
}

impl DataType {
    /// The type with a name of the protocol; `input` is only for the fault.
    ///
    /// # Errors
    /// A type that no input has.
    pub fn of(name: &str, input: &str) -> Result<DataType, Fault> {
        match name {
            "BYTES" => Ok(DataType::Bytes),
            "INT64" => Ok(DataType::Int64),
            "INT32" => Ok(DataType::Int32),
            _ => Err(Fault::invalid(format!(
                "input '{input}' is of type '{name}'; texts are BYTES, token ids and masks INT64 or INT32"
            ))),
        }
    }
}

impl Input {
    /// An input of elements.
    ///
    /// # Errors
    /// A shape that can't be one, or that says another number of elements.
    pub fn new(name: &str, shape: &[i64], data: Data) -> Result<Input, Fault> {
        let (shape, wanted) = sized(name, shape)?;
        let found = match &data {
            Data::Bytes(all) => all.len(),
            Data::Ints(all) => all.len(),
        };
        if found != wanted {
            return Err(Fault::invalid(format!(
                "input '{name}' of shape {shape:?} has {found} elements instead of {wanted}"
            )));
        }
        Ok(Input { name: name.to_owned(), shape, data })
    }

    /// An input of the bytes of its elements, without a gap.
    ///
    /// # Errors
    /// As [`Input::new`]; bytes that are not the elements of the type.
    pub fn of_raw(name: &str, datatype: &str, shape: &[i64], raw: &[u8]) -> Result<Input, Fault> {
        let (sizes, count) = sized(name, shape)?;
        let odd = |width: usize| {
            Fault::invalid(format!(
                "input '{name}' of shape {sizes:?} has {} bytes instead of {count} × {width}",
                raw.len()
            ))
        };
        let data = match DataType::of(datatype, name)? {
            DataType::Bytes => {
                let elements = decode_bytes(raw, count);
                let elements = elements.map_err(|e| Fault::invalid(format!("input '{name}': {e}")))?;
                Data::Bytes(elements.into_iter().map(<[u8]>::to_vec).collect())
            }
            DataType::Int64 => {
                let values = words::<8>(raw, count).ok_or_else(|| odd(8))?;
                Data::Ints(values.map(i64::from_le_bytes).collect())
            }
            DataType::Int32 => {
                let values = words::<4>(raw, count).ok_or_else(|| odd(4))?;
                Data::Ints(values.map(|w| i64::from(i32::from_le_bytes(w))).collect())
            }
        };
        Ok(Input { name: name.to_owned(), shape: sizes, data })
    }
}

/// The shape as sizes, and how many elements it says.
fn sized(name: &str, shape: &[i64]) -> Result<(Vec<usize>, usize), Fault> {
    let no_shape = || Fault::invalid(format!("input '{name}': {shape:?} is no shape"));
    let sizes: Result<Vec<usize>, _> = shape.iter().map(|d| usize::try_from(*d)).collect();
    let sizes = sizes.map_err(|_| no_shape())?;
    let count = sizes.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).ok_or_else(no_shape)?;
    Ok((sizes, count))
}

/// `count` words of `N` bytes, if that is what the bytes are.
fn words<const N: usize>(raw: &[u8], count: usize) -> Option<impl Iterator<Item = [u8; N]>> {
    let (words, rest) = raw.as_chunks::<N>();
    (rest.is_empty() && words.len() == count).then(|| words.iter().copied())
}

/// The elements of a tensor of BYTES: each is its length in 4 little-endian bytes, then that many bytes.
///
/// # Errors
/// In words: other bytes than those of `count` elements.
pub fn decode_bytes(raw: &[u8], count: usize) -> Result<Vec<&[u8]>, String> {
    // Each element takes at least its prefix: so nothing is reserved for elements that can't be there.
    if raw.len() / PREFIX < count {
        return Err(format!("{} bytes are too few for {count} elements of BYTES", raw.len()));
    }
    let mut elements = Vec::with_capacity(count);
    let mut rest = raw;
    for n in 0..count {
        let cut = || format!("element {n} of BYTES ends behind its tensor");
        let (length, behind) = rest.split_first_chunk::<PREFIX>().ok_or_else(cut)?;
        let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| cut())?;
        let (element, behind) = behind.split_at_checked(length).ok_or_else(cut)?;
        elements.push(element);
        rest = behind;
    }
    match rest.len() {
        0 => Ok(elements),
        left => Err(format!("{left} bytes are left behind {count} elements of BYTES")),
    }
}

/// The bytes of a tensor of BYTES.
///
/// # Errors
/// In words: an element of 4 GiB.
pub fn encode_bytes<T: AsRef<[u8]>>(elements: &[T]) -> Result<Vec<u8>, String> {
    let mut raw = Vec::with_capacity(elements.iter().map(|e| e.as_ref().len() + PREFIX).sum());
    for element in elements {
        let element = element.as_ref();
        let length = u32::try_from(element.len()).map_err(|_| "an element has 4 GiB".to_owned())?;
        raw.extend_from_slice(&length.to_le_bytes());
        raw.extend_from_slice(element);
    }
    Ok(raw)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn elements_come_back_from_their_bytes(all in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..20)) {
            let raw = encode_bytes(&all).unwrap();
            prop_assert_eq!(decode_bytes(&raw, all.len()).unwrap(), all.iter().map(Vec::as_slice).collect::<Vec<_>>());
            prop_assert!(decode_bytes(&raw, all.len() + 1).is_err());
        }

        #[test]
        fn any_bytes_are_elements_or_refused(raw in prop::collection::vec(prop_oneof![Just(0u8), Just(1), any::<u8>()], 0..200), count in 0usize..40) {
            if let Ok(elements) = decode_bytes(&raw, count) {
                prop_assert_eq!(encode_bytes(&elements).unwrap(), raw);
            }
        }

        #[test]
        fn any_tensor_is_taken_or_refused(
            datatype in prop_oneof![Just("BYTES"), Just("INT64"), Just("INT32"), Just("FP32"), Just("")],
            shape in prop::collection::vec(prop_oneof![0i64..6, any::<i64>()], 0..5),
            raw in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            if let Ok(input) = Input::of_raw("x", datatype, &shape, &raw) {
                let count: usize = input.shape.iter().product();
                let found = match &input.data { Data::Bytes(b) => b.len(), Data::Ints(i) => i.len() };
                prop_assert_eq!(found, count);
            }
        }
    }

    #[test]
    fn shapes_that_overflow_are_refused() {
        for shape in [&[i64::MAX, 3][..], &[1 << 32, 1 << 32], &[-1], &[-1, -8]] {
            let fault = Input::of_raw("x", "INT64", shape, &[0; 8]).unwrap_err();
            assert!(fault.message.contains("is no shape"), "{fault:?}");
        }
    }

    #[test]
    fn a_shape_must_say_what_the_bytes_are() {
        let taken = Input::of_raw("x", "INT32", &[1, 2], &[1, 0, 0, 0, 255, 255, 255, 255]).unwrap();
        assert_eq!(taken.data, Data::Ints(vec![1, -1]));
        for shape in [&[1i64][..], &[3], &[2, 0]] {
            assert!(Input::of_raw("x", "INT32", shape, &[0; 8]).is_err(), "{shape:?}");
        }
    }

    #[test]
    fn a_huge_count_reserves_nothing() {
        assert!(decode_bytes(&[0; 8], usize::MAX).unwrap_err().contains("too few"));
        assert!(decode_bytes(&[255, 255, 255, 255, 0], 1).unwrap_err().contains("ends behind"));
    }
}
