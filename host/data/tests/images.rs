//! Images from files: what they come to, and what is refused.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::Path;

use graft_data::{DataError, ImageSize, Images, Preprocessor, ReadOptions, Table};
use image::{GrayImage, ImageFormat, Rgb, RgbImage};

const SIZE: ImageSize = ImageSize { channels: 3, height: Some(4), width: Some(4) };

fn gradient(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| Rgb([(x * 40) as u8, (y * 40) as u8, 200]))
}

fn preprocessor(dir: &Path, json: &str) -> Result<Preprocessor, DataError> {
    let path = dir.join("preprocessor_config.json");
    std::fs::write(&path, json).unwrap();
    Preprocessor::load(&path)
}

const PLAIN: &str = r#"{"do_resize": false, "do_normalize": false}"#;

fn read(dir: &Path, config: &str, names: &[&str], size: ImageSize) -> Result<Images, DataError> {
    let table: String = names.iter().map(|n| format!("{n}\n")).collect();
    std::fs::write(dir.join("table.csv"), format!("image\n{table}")).unwrap();
    let table = Table::read(dir.join("table.csv"), &ReadOptions::default()).unwrap();
    Images::read(&table, "image", dir, &preprocessor(dir, config)?, size)
}

fn floats(images: &Images, rows: &[usize]) -> Vec<f32> {
    images.batch(rows).unwrap().values::<f32>().unwrap().into_owned()
}

#[test]
fn pixels_are_planes_of_normalised_numbers() {
    let dir = tempfile::tempdir().unwrap();
    gradient(4, 4).save(dir.path().join("a.png")).unwrap();
    let config = r#"{"do_resize": false, "rescale_factor": 0.01, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 1, 2]}"#;
    let images = read(dir.path(), config, &["a.png", "a.png"], SIZE).unwrap();
    assert_eq!(images.batch(&[0, 1]).unwrap().shape(), [2, 3, 4, 4]);
    let values = floats(&images, &[1]);
    let near = |i: usize, v: f32| assert!((values[i] - v).abs() < 1e-6, "{i}: {} {v}", values[i]);
    near(3, (1.2 - 0.1) / 0.5);
    near(16 + 4, (0.4 - 0.2) / 1.0);
    near(32, (2.0 - 0.3) / 2.0);
}

#[test]
fn the_shorter_side_is_resized_and_the_middle_cut_out() {
    let dir = tempfile::tempdir().unwrap();
    let halves = RgbImage::from_fn(32, 8, |x, _| if x < 16 { Rgb([255, 0, 0]) } else { Rgb([0, 0, 255]) });
    halves.save(dir.path().join("wide.png")).unwrap();
    let config =
        r#"{"size": {"shortest_edge": 4}, "do_center_crop": true, "crop_size": 4, "do_normalize": false}"#;
    let values = floats(&read(dir.path(), config, &["wide.png"], SIZE).unwrap(), &[0]);
    assert!(values[0] > 0.9 && values[3] < 0.1 && values[32] < 0.1 && values[35] > 0.9, "{values:?}");
}

#[test]
fn grey_bases_and_jpeg_files() {
    let dir = tempfile::tempdir().unwrap();
    GrayImage::from_pixel(4, 4, image::Luma([51])).save(dir.path().join("a.jpg")).unwrap();
    let size = ImageSize { channels: 1, height: None, width: None };
    let images = read(dir.path(), PLAIN, &["a.jpg"], size).unwrap();
    assert!(floats(&images, &[0]).iter().all(|v| (v - 0.2).abs() < 0.01));
}

#[test]
fn bad_files_are_errors_with_their_line() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    gradient(4, 4).save(at("good.png")).unwrap();
    gradient(64, 64).save(at("whole.jpg")).unwrap();
    let jpeg = std::fs::read(at("whole.jpg")).unwrap();
    std::fs::write(at("cut.jpg"), &jpeg[..jpeg.len() * 2 / 3]).unwrap();
    std::fs::write(at("no-end.jpg"), &jpeg[..jpeg.len() - 2]).unwrap();
    let png = std::fs::read(at("good.png")).unwrap();
    std::fs::write(at("cut.png"), &png[..png.len() - 20]).unwrap();
    std::fs::write(at("text.png"), "not a picture").unwrap();
    std::fs::write(at("empty.png"), "").unwrap();
    gradient(5, 4).save_with_format(at("wrong.png"), ImageFormat::Png).unwrap();
    std::fs::write(at("huge.png"), huge_png()).unwrap();
    let cases = [
        ("cut.jpg", "cut off"),
        ("no-end.jpg", "cut off"),
        ("cut.png", "image"),
        ("text.png", "neither JPEG nor PNG"),
        ("empty.png", "neither JPEG nor PNG"),
        ("wrong.png", "5×4 pixels, and the base takes 4×4"),
        ("huge.png", "limit"),
        ("missing.png", "No such file"),
    ];
    for (name, words) in cases {
        let e = read(dir.path(), PLAIN, &["good.png", name], SIZE).unwrap_err().to_string();
        let lower = e.to_lowercase();
        assert!(
            e.contains("table.csv:3") && e.contains(name) && lower.contains(&words.to_lowercase()),
            "{e}"
        );
    }
    let any = ImageSize { height: None, width: None, ..SIZE };
    let e = read(dir.path(), PLAIN, &["good.png", "wrong.png"], any).unwrap_err().to_string();
    assert!(e.contains("the first to 4×4"), "{e}");
}

/// A PNG whose header promises 60,000 × 60,000 pixels.
fn huge_png() -> Vec<u8> {
    let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\x0d".to_vec();
    let mut header = b"IHDR".to_vec();
    header.extend(60_000u32.to_be_bytes().iter().chain(&60_000u32.to_be_bytes()).chain(&[8, 2, 0, 0, 0]));
    let crc = header.iter().fold(!0u32, |crc, b| {
        (0..8).fold(crc ^ u32::from(*b), |c, _| if c & 1 == 1 { (c >> 1) ^ 0xedb8_8320 } else { c >> 1 })
    });
    png.extend(header);
    png.extend((!crc).to_be_bytes());
    png.extend(b"\0\0\0\0IDAT\x35\xaf\x06\x1e\0\0\0\0IEND\xae\x42\x60\x82");
    png
}

#[test]
fn folders_are_classes() {
    let dir = tempfile::tempdir().unwrap();
    for class in ["dog", "cat"] {
        std::fs::create_dir(dir.path().join(class)).unwrap();
        for i in [1, 0] {
            gradient(4, 4).save(dir.path().join(format!("{class}/{i}.png"))).unwrap();
        }
    }
    std::fs::write(dir.path().join("README.txt"), "about").unwrap();
    std::fs::write(dir.path().join("dog/.hidden"), "").unwrap();
    let table = Table::read(dir.path(), &ReadOptions::default()).unwrap();
    let cells = |name: &str| -> Vec<&str> {
        (0..table.len()).map(|r| table.column(name).unwrap().get(r).unwrap()).collect()
    };
    assert_eq!(cells("image"), ["cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png"]);
    assert_eq!(cells("label"), ["cat", "cat", "dog", "dog"]);
    let again = Table::read(dir.path(), &ReadOptions::default()).unwrap();
    assert_eq!(table.digest(), again.digest());
    std::fs::write(dir.path().join("dog/notes.txt"), "").unwrap();
    let e = Table::read(dir.path(), &ReadOptions::default()).unwrap_err().to_string();
    assert!(e.contains("notes.txt"), "{e}");
}

#[test]
fn an_empty_folder_has_no_rows() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(Table::read(dir.path(), &ReadOptions::default()), Err(DataError::NoRows { .. })));
}

#[test]
fn preprocessing_that_is_not_known_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for (json, word) in [
        ("{", "cannot be read"),
        (r#"{"do_resize": true}"#, "`size` is missing"),
        (r#"{"size": {"longest_edge": 4}}"#, "`size`"),
        (r#"{"size": 100000}"#, "from 1 to"),
        (r#"{"size": 4, "resample": 5}"#, "resample = 5"),
        (r#"{"crop_pct": 0.875, "size": 224}"#, "crop_pct"),
        (r#"{"do_pad": true}"#, "do_pad"),
        (r#"{"do_normalize": true, "image_mean": [1, 2], "image_std": [1, 1]}"#, "image_mean"),
        (r#"{"image_mean": [0, 0, 0], "image_std": [1, 0, 1]}"#, "above 0"),
        (r#"{"rescale_factor": 1e300}"#, "finite"),
    ] {
        let e = preprocessor(dir.path(), json).unwrap_err().to_string();
        assert!(e.contains(word) && e.contains("preprocessor_config.json"), "{json}: {e}");
    }
}
