//! One image file, within limits.

use std::io::Cursor;
use std::path::Path;

use image::{DynamicImage, ImageFormat, ImageReader, Limits};

/// Largest file, in bytes.
const MAX_FILE: u64 = 64 << 20;
/// Largest width and height of an image that is decoded.
const MAX_SIDE: u32 = 16_384;
/// Most memory that decoding may take, in bytes.
const MAX_ALLOCATION: u64 = 512 << 20;

/// Decodes a JPEG or PNG file, whatever its name ends in.
pub(super) fn decode(path: &Path) -> Result<DynamicImage, String> {
    let size = std::fs::metadata(path).map_err(|e| e.to_string())?.len();
    if size > MAX_FILE {
        return Err(format!("the file has {size} bytes, more than the limit of {MAX_FILE}"));
    }
    let bytes = std::fs::read(path).map_err(|e| e.to_string())?;
    let mut reader =
        ImageReader::new(Cursor::new(&bytes)).with_guessed_format().map_err(|e| e.to_string())?;
    match reader.format() {
        // The decoder fills what is missing with grey.
        Some(ImageFormat::Jpeg) if !is_whole_jpeg(&bytes) => return Err("the file is cut off".into()),
        Some(ImageFormat::Jpeg | ImageFormat::Png) => {}
        _ => return Err("it is neither JPEG nor PNG".into()),
    }
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_ALLOCATION);
    reader.limits(limits);
    reader.decode().map_err(|e| e.to_string())
}

/// Whether the marker of the end follows on the last scan.
fn is_whole_jpeg(bytes: &[u8]) -> bool {
    const START_OF_SCAN: u8 = 0xda;
    const END: u8 = 0xd9;
    let mut at = 2;
    let mut in_scan = false;
    loop {
        // To the next marker: in a scan, FF 00 is a byte of data and D0 to D7 are restarts; FF fills.
        let Some(step) = bytes.get(at..).and_then(|rest| rest.iter().position(|b| *b == 0xff)) else {
            return false;
        };
        if step > 0 && !in_scan {
            return false;
        }
        at += step + 1;
        match bytes.get(at) {
            None => return false,
            Some(0xff) => {}
            Some(0x00 | 0xd0..=0xd7) => at += 1,
            Some(&END) => return in_scan,
            Some(marker) => {
                let Some([high, low]) = bytes.get(at + 1..at + 3) else { return false };
                in_scan = *marker == START_OF_SCAN;
                at += 1 + usize::from(u16::from_be_bytes([*high, *low]));
            }
        }
    }
}
