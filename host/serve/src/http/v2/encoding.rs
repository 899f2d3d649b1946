//! Bodies that were packed for the way.

use std::io::Read;

use axum::body::Bytes;
use axum::http::HeaderMap;
use axum::http::header::CONTENT_ENCODING;
use flate2::bufread::{GzDecoder, ZlibDecoder};

use crate::ask::Refusal;
use crate::v2::Fault;

/// The body as it was before it was packed, at most `most` bytes.
pub fn unpacked(headers: &HeaderMap, body: Bytes, most: usize) -> Result<Bytes, Fault> {
    let encoding = headers.get(CONTENT_ENCODING).map_or(Ok("identity"), |e| e.to_str());
    match encoding.map(str::to_ascii_lowercase).as_deref() {
        Ok("identity" | "") => Ok(body),
        Ok("gzip") => bounded(GzDecoder::new(&*body), most),
        Ok("deflate") => bounded(ZlibDecoder::new(&*body), most),
        _ => Err(Fault::invalid("a body is packed by gzip or deflate, or not at all")),
    }
}

fn bounded(packed: impl Read, most: usize) -> Result<Bytes, Fault> {
    let mut body = Vec::new();
    let read = packed.take((most as u64).saturating_add(1)).read_to_end(&mut body);
    read.map_err(|e| Fault::invalid(format!("the packed body: {e}")))?;
    if body.len() > most {
        return Err(Refusal::TooLarge { most }.into());
    }
    Ok(body.into())
}
