//! What happens to an image before a base sees it, as `preprocessor_config.json` of Hugging Face says it.

use std::path::Path;

use image::imageops::{self, FilterType};
use image::{DynamicImage, GrayImage, RgbImage};
use serde::Deserialize;
use serde_json::Value;

use crate::error::DataError;

/// Largest file that is read, in bytes.
const MAX_CONFIG: u64 = 1 << 20;

/// Largest height and width that images are brought to.
const MAX_SIDE: u32 = 8192;

/// The size that images are brought to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Size {
    /// Height and width.
    Exact(u32, u32),
    /// The shorter side; the longer one in proportion.
    Shortest(u32),
}

/// Resizing, cutting out the middle, scaling and normalisation.
#[derive(Debug, Clone, PartialEq)]
pub struct Preprocessor {
    resize: Option<(Size, FilterType)>,
    crop: Option<(u32, u32)>,
    scale: f32,
    mean: Vec<f32>,
    std: Vec<f32>,
}

/// The file's fields; those that only say how a batch is put together are not looked at.
#[derive(Deserialize)]
struct File {
    do_resize: Option<bool>,
    size: Option<Value>,
    resample: Option<u32>,
    do_center_crop: Option<bool>,
    crop_size: Option<Value>,
    do_rescale: Option<bool>,
    rescale_factor: Option<f64>,
    do_normalize: Option<bool>,
    image_mean: Option<Vec<f64>>,
    image_std: Option<Vec<f64>>,
    crop_pct: Option<Value>,
    do_pad: Option<bool>,
    do_flip_channel_order: Option<bool>,
    do_thumbnail: Option<bool>,
}

impl Preprocessor {
    /// Reads `preprocessor_config.json`.
    ///
    /// # Errors
    /// [`DataError::Preprocessor`] for what is no such file or asks for steps that are not known here.
    pub fn load(path: &Path) -> Result<Preprocessor, DataError> {
        let fail = |message: String| DataError::Preprocessor { file: path.to_owned(), message };
        let io = |source| DataError::Io { file: path.to_owned(), source };
        if std::fs::metadata(path).map_err(io)?.len() > MAX_CONFIG {
            return Err(fail(format!("it is larger than {MAX_CONFIG} bytes")));
        }
        let file: File = serde_json::from_slice(&std::fs::read(path).map_err(io)?)
            .map_err(|e| fail(format!("it cannot be read: {e}")))?;
        Preprocessor::of(&file).map_err(fail)
    }

    fn of(file: &File) -> Result<Preprocessor, String> {
        let steps = [
            ("crop_pct", file.crop_pct.as_ref().is_some_and(|v| !v.is_null())),
            ("do_pad", file.do_pad == Some(true)),
            ("do_flip_channel_order", file.do_flip_channel_order == Some(true)),
            ("do_thumbnail", file.do_thumbnail == Some(true)),
        ];
        if let Some((name, _)) = steps.iter().find(|(_, asked)| *asked) {
            return Err(format!("`{name}` is not supported"));
        }
        let crop = match file.do_center_crop {
            Some(true) => match size(file.crop_size.as_ref(), "crop_size", false)? {
                Size::Exact(h, w) => Some((h, w)),
                Size::Shortest(_) => return Err("`crop_size` must have a height and a width".into()),
            },
            _ => None,
        };
        let resize = if file.do_resize.unwrap_or(file.size.is_some()) {
            // One number is the shorter side for processors that cut afterwards, and a square for the others.
            Some((size(file.size.as_ref(), "size", crop.is_some())?, filter(file.resample.unwrap_or(2))?))
        } else {
            None
        };
        let scale =
            if file.do_rescale == Some(false) { 1.0 } else { file.rescale_factor.unwrap_or(1.0 / 255.0) };
        let normal = file.do_normalize.unwrap_or(file.image_mean.is_some());
        let numbers = |list: &Option<Vec<f64>>, name: &str, neutral: f32| match list.as_deref() {
            _ if !normal => Ok(vec![neutral]),
            Some(l) if matches!(l.len(), 1 | 3) => Ok(l.iter().map(|v| *v as f32).collect()),
            _ => Err(format!("`{name}` must hold one number for each of three channels, or one")),
        };
        let (mean, std) =
            (numbers(&file.image_mean, "image_mean", 0.0)?, numbers(&file.image_std, "image_std", 1.0)?);
        let scale = scale as f32;
        if !scale.is_finite()
            || mean.iter().any(|v| !v.is_finite())
            || std.iter().any(|v| !(v.is_finite() && *v > 0.0))
        {
            return Err("scale, mean and deviation must be finite, and the deviation above 0".into());
        }
        Ok(Preprocessor { resize, crop, scale, mean, std })
    }

    /// The bytes `[channels, height, width]` of an image after resizing and cutting, with height and width.
    pub(super) fn bytes(
        &self,
        image: &DynamicImage,
        channels: usize,
    ) -> Result<(Vec<u8>, usize, usize), String> {
        if channels == 1 {
            let image = self.sized(
                &image.to_luma8(),
                |i, h, w, f| imageops::resize(i, w, h, f),
                GrayImage::dimensions,
            )?;
            let image = self.cut(image, GrayImage::dimensions, |i, x, y, w, h| {
                imageops::crop_imm(i, x, y, w, h).to_image()
            })?;
            let (w, h) = image.dimensions();
            return Ok((image.into_raw(), h as usize, w as usize));
        }
        let image =
            self.sized(&image.to_rgb8(), |i, h, w, f| imageops::resize(i, w, h, f), RgbImage::dimensions)?;
        let image = self
            .cut(image, RgbImage::dimensions, |i, x, y, w, h| imageops::crop_imm(i, x, y, w, h).to_image())?;
        let (w, h) = image.dimensions();
        let packed = image.into_raw();
        let planes = (0..3).flat_map(|c| packed.iter().skip(c).step_by(3)).copied().collect();
        Ok((planes, h as usize, w as usize))
    }

    fn sized<I: Clone>(
        &self,
        image: &I,
        resize: impl Fn(&I, u32, u32, FilterType) -> I,
        dimensions: impl Fn(&I) -> (u32, u32),
    ) -> Result<I, String> {
        let Some((size, filter)) = self.resize else { return Ok(image.clone()) };
        let (w, h) = dimensions(image);
        let (height, width) = match size {
            Size::Exact(height, width) => (height, width),
            Size::Shortest(n) => {
                let long = |side: u32, short: u32| u64::from(n) * u64::from(side) / u64::from(short.max(1));
                let (height, width) =
                    if w < h { (long(h, w), u64::from(n)) } else { (u64::from(n), long(w, h)) };
                let fits = |v: u64| u32::try_from(v).ok().filter(|v| *v <= MAX_SIDE);
                match (fits(height), fits(width)) {
                    (Some(height), Some(width)) => (height, width),
                    _ => return Err(format!("{w}×{h} is too long and thin to be resized")),
                }
            }
        };
        if (height, width) == (h, w) { Ok(image.clone()) } else { Ok(resize(image, height, width, filter)) }
    }

    fn cut<I>(
        &self,
        image: I,
        dimensions: impl Fn(&I) -> (u32, u32),
        crop: impl Fn(&I, u32, u32, u32, u32) -> I,
    ) -> Result<I, String> {
        let Some((height, width)) = self.crop else { return Ok(image) };
        let (w, h) = dimensions(&image);
        let (Some(right), Some(below)) = (w.checked_sub(width), h.checked_sub(height)) else {
            return Err(format!("{w}×{h} is smaller than the {width}×{height} that are cut out"));
        };
        Ok(crop(&image, right / 2, below / 2, width, height))
    }

    /// Factor and summand that turn a byte of a channel into the base's number.
    pub(super) fn affine(&self, channel: usize) -> (f32, f32) {
        let of = |list: &[f32]| list.get(channel).or(list.first()).copied();
        let (mean, std) = (of(&self.mean).unwrap_or(0.0), of(&self.std).unwrap_or(1.0));
        (self.scale / std, -mean / std)
    }
}

fn filter(resample: u32) -> Result<FilterType, String> {
    // The numbers are Pillow's.
    Ok(match resample {
        0 => FilterType::Nearest,
        1 => FilterType::Lanczos3,
        2 => FilterType::Triangle,
        3 => FilterType::CatmullRom,
        other => return Err(format!("`resample = {other}` is not supported")),
    })
}

fn size(value: Option<&Value>, name: &str, number_is_shortest: bool) -> Result<Size, String> {
    let side = |v: &Value| {
        let n = v.as_u64().and_then(|n| u32::try_from(n).ok());
        n.filter(|n| (1..=MAX_SIDE).contains(n))
            .ok_or_else(|| format!("`{name}` must be from 1 to {MAX_SIDE}"))
    };
    match value {
        Some(Value::Object(o)) => match (o.get("height"), o.get("width"), o.get("shortest_edge")) {
            (Some(h), Some(w), None) => Ok(Size::Exact(side(h)?, side(w)?)),
            (None, None, Some(n)) if o.len() == 1 => Ok(Size::Shortest(side(n)?)),
            _ => Err(format!("`{name}` must have height and width, or shortest_edge alone")),
        },
        Some(n @ Value::Number(_)) if number_is_shortest => Ok(Size::Shortest(side(n)?)),
        Some(n @ Value::Number(_)) => side(n).map(|n| Size::Exact(n, n)),
        _ => Err(format!("`{name}` is missing")),
    }
}
