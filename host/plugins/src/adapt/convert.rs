//! Between the boundary's plain data and the IR's.

use bytes::Bytes;
use graft_graph::{Attr, Attrs, DType, Dim, Fact, Tensor as GraphTensor};
use graft_plugin_api::{self as api, Code, Error, Result, Tensor, wire};

/// Largest tensor that crosses, in bytes.
pub(super) const MAX_TENSOR: usize = 1 << 30;

/// Most axes of a tensor.
const MAX_RANK: usize = 16;

pub(super) fn dtype(number: api::DType) -> Result<DType> {
    i32::try_from(number.0)
        .ok()
        .and_then(DType::from_onnx)
        .ok_or_else(|| Error::new(Code::UNSUPPORTED, format!("element type {} is unknown here", number.0)))
}

/// Extents as sizes of memory; with `unit` bytes for each element.
pub(super) fn extents(shape: &[u64], dtype: DType, limit: usize) -> Result<Vec<usize>> {
    let refuse = || Error::new(Code::LIMIT, format!("a tensor of {dtype} {shape:?} is too large"));
    if shape.len() > MAX_RANK {
        return Err(refuse());
    }
    let extents: Option<Vec<usize>> = shape.iter().map(|d| usize::try_from(*d).ok()).collect();
    let extents = extents.ok_or_else(refuse)?;
    let count = extents.iter().try_fold(1usize, |a, d| a.checked_mul(*d));
    match count.and_then(|c| dtype.bytes_of(c)) {
        Some(bytes) if bytes <= limit => Ok(extents),
        _ => Err(refuse()),
    }
}

/// A tensor of a plugin as one of the IR. The bytes are moved, not copied.
///
/// # Errors
/// `UNSUPPORTED` for an unknown element type, `MALFORMED` when bytes and shape disagree.
pub fn to_graph_tensor(t: Tensor) -> Result<GraphTensor> {
    check_tensor(&t)?;
    GraphTensor::from_bytes(dtype(t.dtype)?, t.shape, Bytes::from(t.data))
        .map_err(|e| Error::new(Code::MALFORMED, format!("tensor `{}`: {e}", t.name)))
}

/// Refuses a tensor whose bytes are not what its shape takes.
pub(crate) fn check_tensor(t: &Tensor) -> Result<()> {
    let shape: Vec<u64> = t.shape.iter().map(|d| *d as u64).collect();
    let dtype = dtype(t.dtype)?;
    let extents = extents(&shape, dtype, MAX_TENSOR)?;
    let expected = dtype.bytes_of(extents.iter().product()).unwrap_or(usize::MAX);
    if expected != t.data.len() {
        let what = format!(
            "tensor `{}` of {dtype} {:?} takes {expected} bytes, it has {}",
            t.name,
            t.shape,
            t.data.len()
        );
        return Err(Error::new(Code::MALFORMED, what));
    }
    Ok(())
}

pub(super) fn attrs(list: Vec<wire::Attr>) -> Result<Attrs> {
    let mut attrs = Attrs::new();
    for a in list {
        let value = match a.value {
            Some(wire::AttrValue::Int(v)) => Attr::Int(v),
            Some(wire::AttrValue::Float(v)) => Attr::Float(v),
            Some(wire::AttrValue::Text(v)) => Attr::String(Bytes::from(v.into_bytes())),
            Some(wire::AttrValue::Ints(v)) => Attr::Ints(v.values),
            Some(wire::AttrValue::Floats(v)) => Attr::Floats(v.values),
            Some(wire::AttrValue::Texts(v)) => {
                Attr::Strings(v.values.into_iter().map(|s| Bytes::from(s.into_bytes())).collect())
            }
            Some(wire::AttrValue::Tensor(t)) => Attr::Tensor(to_graph_tensor(t.into())?),
            None => {
                return Err(Error::new(Code::MALFORMED, format!("attribute `{}` has no value", a.name)));
            }
        };
        attrs.insert(a.name, value);
    }
    Ok(attrs)
}

pub(super) fn fact(f: &Fact) -> api::Fact {
    api::Fact {
        dtype: f.dtype.map(|d| api::DType(d.onnx().unsigned_abs())),
        shape: f.shape.as_ref().map(|s| s.iter().map(dim).collect()),
    }
}

fn dim(d: &Dim) -> api::Dim {
    match d.known() {
        Some(n) => u64::try_from(n).map_or(api::Dim::Unknown, api::Dim::Known),
        None => api::Dim::Symbol(d.to_string()),
    }
}
