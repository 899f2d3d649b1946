//! Bodies that were packed for the way.

use std::io::Read;

use axum::body::Bytes;
use axum::http::HeaderMap;
use axum::http::header::CONTENT_ENCODING;
use flate2::bufread::{GzDecoder, ZlibDecoder};

use crate::v2::{Fault, Kind, MAX_CALL};

/// The body as it was before it was packed, at most [`MAX_CALL`] bytes.
pub fn unpacked(headers: &HeaderMap, body: Bytes) -> Result<Bytes, Fault> {
    let encoding = headers.get(CONTENT_ENCODING).map_or(Ok("identity"), |e| e.to_str());
    match encoding.map(str::to_ascii_lowercase).as_deref() {
        Ok("identity" | "") => Ok(body),
        Ok("gzip") => bounded(GzDecoder::new(&*body)),
        Ok("deflate") => bounded(ZlibDecoder::new(&*body)),
        _ => Err(Fault::invalid("a body is packed by gzip or deflate, or not at all")),
    }
}

fn bounded(packed: impl Read) -> Result<Bytes, Fault> {
    let mut body = Vec::new();
    let read = packed.take(MAX_CALL as u64 + 1).read_to_end(&mut body);
    read.map_err(|e| Fault::invalid(format!("the packed body: {e}")))?;
    if body.len() > MAX_CALL {
        return Err(Fault::new(Kind::TooLarge, format!("a call has at most {MAX_CALL} bytes")));
    }
    Ok(body.into())
}
