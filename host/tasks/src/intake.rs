//! What stands between raw data and a base: a tokenizer for texts, a preprocessor for images.

use std::path::{Path, PathBuf};

use graft_data::{ImageSize, Images, Mapping, Preprocessor, Table, Tokenizer};
use graft_graph::Dim;
use graft_graph::model::Role;
use graft_plugins::api::{Field, FieldKind, Row};

use crate::base::Base;
use crate::error::{Result, TaskError};
use crate::examples::Examples;

/// How texts or images become the inputs of a base.
pub enum Intake {
    /// Texts.
    Text(Box<Tokenizer>),
    /// Images of a size.
    Images(Preprocessor, ImageSize),
}

impl Intake {
    /// Loads the tokenizer or, for a base that takes images, the preprocessor.
    ///
    /// # Errors
    /// [`TaskError::Input`] where there is none beside the base and none was named; a file that can't be used; a base
    /// whose images have neither one nor three channels.
    pub fn open(base: &Base) -> Result<Intake> {
        let lacking = |name: &str, flag: &str| TaskError::Input {
            what: base.dir.display().to_string(),
            detail: format!("no {name} lies beside the model: give --{flag} FILE"),
        };
        if !base.takes_images() {
            let file = base.tokenizer.as_ref().ok_or_else(|| lacking("tokenizer.json", "tokenizer"))?;
            return Ok(Intake::Text(Box::new(Tokenizer::load(file)?)));
        }
        let size = image_size(base)?;
        let file = base.preprocessor.as_ref();
        let file = file.ok_or_else(|| lacking("preprocessor_config.json", "preprocessor"))?;
        Ok(Intake::Images(Preprocessor::load(file)?, size))
    }

    /// The id that texts are padded with.
    pub fn pad_id(&self) -> i64 {
        match self {
            Intake::Text(t) => t.pad_id(),
            Intake::Images(..) => 0,
        }
    }

    /// Whether a field is for this kind of base: a base of images has no texts to read, and the other way round.
    pub fn reads(&self, field: &Field) -> bool {
        match self {
            Intake::Text(_) => field.kind != FieldKind::IMAGE,
            Intake::Images(..) => {
                ![FieldKind::TEXT, FieldKind::TEXT_APART, FieldKind::WORDS].contains(&field.kind)
            }
        }
    }

    /// The rows of a table that was read from `path`; texts are cut at `max_length` tokens, and paths of images start at
    /// the table's folder.
    ///
    /// # Errors
    /// Whatever is wrong with a row, with its place.
    pub fn examples(
        &self,
        table: &Table,
        path: &Path,
        mapping: &Mapping,
        fields: &[Field],
        max_length: Option<usize>,
    ) -> Result<Examples> {
        match self {
            Intake::Text(tokenizer) => Examples::read(table, mapping, fields, tokenizer, max_length),
            Intake::Images(preprocessor, size) => {
                let field = fields.iter().find(|f| f.kind == FieldKind::IMAGE).map_or("image", |f| &f.name);
                let column = mapping.iter().find(|(f, _)| *f == field).map_or(field, |(_, c)| c);
                let folder = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new("")) };
                let images = Images::read(table, column, folder, preprocessor, *size)?;
                Examples::of_table(table, mapping, fields, images)
            }
        }
    }

    /// Examples without labels from pairs of texts.
    ///
    /// # Errors
    /// A text that is blank, lists of different lengths; a base that takes images.
    pub fn pairs(&self, first: &[String], second: &[String], max_length: Option<usize>) -> Result<Examples> {
        match self {
            Intake::Text(tokenizer) => Examples::of_texts(first, Some(second), tokenizer, max_length),
            Intake::Images(..) => Err(TaskError::Input {
                what: "the second texts".into(),
                detail: "the base takes images, and no texts".into(),
            }),
        }
    }

    /// Examples without labels from the arguments of a command: texts, or files of images.
    ///
    /// # Errors
    /// A text that is blank, an image that can't be used.
    pub fn arguments(&self, given: &[String], max_length: Option<usize>) -> Result<Examples> {
        match self {
            Intake::Text(tokenizer) => Examples::of_texts(given, None, tokenizer, max_length),
            Intake::Images(preprocessor, size) => {
                let files: Vec<PathBuf> = given.iter().map(PathBuf::from).collect();
                let images = Images::of_files(&files, preprocessor, *size)?;
                let rows = vec![Row { cells: Vec::new() }; given.len()];
                Ok(Examples {
                    rows,
                    images: Some(images),
                    origin: "the given images".into(),
                    ..Examples::default()
                })
            }
        }
    }
}

/// The size of images as the base's input declares it, `[batch, channels, height, width]`.
fn image_size(base: &Base) -> Result<ImageSize> {
    let input = base.model.input(Role::Pixels);
    let shape = input.and_then(|v| base.graph.shape(v)).map_or(&[][..], Vec::as_slice);
    let side = |d: &Dim| d.known().and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0);
    match shape {
        [_, c, h, w] if matches!(c.known(), None | Some(1 | 3)) => {
            Ok(ImageSize { channels: side(c).unwrap_or(3), height: side(h), width: side(w) })
        }
        _ => Err(TaskError::Input {
            what: base.path.display().to_string(),
            detail: format!(
                "its images have the shape {}; [batch, 3, height, width], or 1 for grey, is what can be fed",
                graft_graph::dim::show(shape)
            ),
        }),
    }
}
