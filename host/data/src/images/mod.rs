//! Images: from files to the pixels that a base takes.

mod decode;
mod folder;
mod preprocess;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use graft_graph::Tensor;
use rayon::prelude::*;

pub(crate) use folder::read as read_folder;
pub use preprocess::Preprocessor;

use crate::error::{DataError, Place};
use crate::table::Table;

/// Most bytes of all images of a table together, after resizing.
const MAX_BYTES: usize = 8 << 30;

/// The size of images: how many channels, and height and width where the base has them fixed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageSize {
    /// 3, or 1 for grey.
    pub channels: usize,
    /// Height.
    pub height: Option<usize>,
    /// Width.
    pub width: Option<usize>,
}

/// Images of one size as bytes; a row's pixels become numbers when a batch asks for them.
#[derive(Debug, Clone, PartialEq)]
pub struct Images {
    pixels: Arc<Vec<Vec<u8>>>,
    rows: Vec<usize>,
    shape: [usize; 3],
    affine: Vec<(f32, f32)>,
}

/// Where an image is named, and its file.
type Named = (Place, PathBuf);

impl Images {
    /// Reads the images that a column names, by paths relative to `folder`, JPEG or PNG. Every file is decoded here, so
    /// that a bad one is found before anything is trained.
    ///
    /// # Errors
    /// [`DataError::Image`] with the row's place for a file that is missing, damaged, too large, or that does not come
    /// to the base's size.
    pub fn read(
        table: &Table,
        column: &str,
        folder: &Path,
        preprocessor: &Preprocessor,
        size: ImageSize,
    ) -> Result<Images, DataError> {
        let cells = table.column_for(column, Some("image"))?;
        let name = |row: usize| match cells.get(row).map(str::trim) {
            Some(name) if !name.is_empty() => Ok((table.place(row), folder.join(name))),
            _ => Err(DataError::Missing {
                place: table.place(row),
                column: column.to_owned(),
                field: "image".to_owned(),
            }),
        };
        Images::of(&(0..table.len()).map(name).collect::<Result<Vec<_>, _>>()?, preprocessor, size)
    }

    /// Reads image files.
    ///
    /// # Errors
    /// As [`Images::read`].
    pub fn of_files(
        files: &[PathBuf],
        preprocessor: &Preprocessor,
        size: ImageSize,
    ) -> Result<Images, DataError> {
        let named = |(i, f): (usize, &PathBuf)| {
            (Place::Row { file: "the given images".into(), row: i as u64 + 1 }, f.clone())
        };
        Images::of(&files.iter().enumerate().map(named).collect::<Vec<Named>>(), preprocessor, size)
    }

    fn of(files: &[Named], preprocessor: &Preprocessor, size: ImageSize) -> Result<Images, DataError> {
        let one = |(place, path): &Named| -> Result<(Vec<u8>, [usize; 3]), DataError> {
            let fail = |message| DataError::Image { place: place.clone(), path: path.clone(), message };
            let image = decode::decode(path).map_err(fail)?;
            let (bytes, height, width) = preprocessor.bytes(&image, size.channels).map_err(fail)?;
            let fits = size.height.is_none_or(|h| h == height) && size.width.is_none_or(|w| w == width);
            if !fits {
                let side = |n: Option<usize>| n.map_or("any".to_owned(), |n| n.to_string());
                return Err(fail(format!(
                    "it comes to {width}×{height} pixels, and the base takes {}×{}; set do_resize and size in \
                     preprocessor_config.json",
                    side(size.width),
                    side(size.height)
                )));
            }
            Ok((bytes, [size.channels, height, width]))
        };
        let Some(first) = files.first() else { return Err(DataError::EmptyBatch) };
        let (bytes, shape) = one(first)?;
        let all = bytes.len().checked_mul(files.len()).filter(|n| *n <= MAX_BYTES);
        all.ok_or(DataError::ImagesTooLarge { count: files.len(), limit: MAX_BYTES })?;
        let rest = files[1..].par_iter().map(|named| {
            let (bytes, found) = one(named)?;
            if found == shape {
                return Ok(bytes);
            }
            let message = format!(
                "it comes to {}×{} pixels, the first to {}×{}; a batch needs one size: set do_resize and size in \
                 preprocessor_config.json",
                found[2], found[1], shape[2], shape[1]
            );
            Err(DataError::Image { place: named.0.clone(), path: named.1.clone(), message })
        });
        // The first bad row is the one that is told of, however the work was shared out.
        let rest: Vec<Result<Vec<u8>, DataError>> = rest.collect();
        let mut pixels = vec![bytes];
        for r in rest {
            pixels.push(r?);
        }
        Ok(Images {
            rows: (0..pixels.len()).collect(),
            pixels: Arc::new(pixels),
            shape,
            affine: (0..size.channels).map(|c| preprocessor.affine(c)).collect(),
        })
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// True without images.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The images at these places.
    #[must_use]
    pub fn select(&self, rows: &[usize]) -> Images {
        Images { rows: rows.iter().map(|r| self.rows[*r]).collect(), ..self.clone() }
    }

    /// The pixels `[rows, channels, height, width]` of these rows.
    ///
    /// # Errors
    /// [`DataError::BatchTooLarge`].
    pub fn batch(&self, rows: &[usize]) -> Result<Tensor, DataError> {
        let [channels, height, width] = self.shape;
        let plane = height * width;
        let too_large = || DataError::BatchTooLarge { rows: rows.len(), length: channels * plane };
        let size = rows.len().checked_mul(channels * plane).filter(|n| *n < isize::MAX as usize / 8);
        let mut values = Vec::with_capacity(size.ok_or_else(too_large)?);
        for r in rows {
            let bytes = &self.pixels[self.rows[*r]];
            for (plane, (factor, summand)) in bytes.chunks_exact(plane.max(1)).zip(&self.affine) {
                values.extend(plane.iter().map(|b| f32::from(*b).mul_add(*factor, *summand)));
            }
        }
        Tensor::new([rows.len(), channels, height, width], &values).map_err(|_| too_large())
    }
}
