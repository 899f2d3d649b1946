//! Parquet through the crate's record interface, so that nothing of Arrow is needed.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};

use parquet::basic::{Compression, ConvertedType};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use parquet::schema::types::Type;

use crate::error::{DataError, Place};
use crate::table::{Builder, Table};

/// Reads the flat columns of a file.
pub(crate) fn read(builder: Builder, file: File, digest: String) -> Result<Table, DataError> {
    let place = Place::Row { file: builder.file.clone(), row: 1 };
    // The reader panics on some malformed files and on types that it does not know.
    let read = catch_unwind(AssertUnwindSafe(|| read_rows(builder, file, digest)));
    read.unwrap_or_else(|_| Err(malformed(place, "the reader cannot make sense of it")))
}

fn malformed(place: Place, message: impl ToString) -> DataError {
    DataError::Parquet { place, message: message.to_string() }
}

fn read_rows(mut builder: Builder, file: File, digest: String) -> Result<Table, DataError> {
    let reader = SerializedFileReader::new(file).map_err(|e| malformed(builder.place(0), e))?;
    check(&builder, &reader)?;
    let schema = reader.metadata().file_metadata().schema().clone();
    let mut kept = Vec::new();
    for field in schema.get_fields() {
        builder.add_column(field.name(), 0)?;
        if !builder.wants(field.name()) {
            continue;
        }
        if let Some(what) = nesting(field) {
            let (file, column) = (builder.file.clone(), field.name().to_owned());
            return Err(DataError::NestedColumn { file, column, what });
        }
        kept.push((builder.width() - 1, field.clone()));
    }
    let fields = kept.iter().map(|(_, f)| f.clone()).collect();
    let projection = Type::group_type_builder(schema.name()).with_fields(fields).build();
    let projection = projection.map_err(|e| malformed(builder.place(0), e))?;
    if kept.is_empty() {
        return builder.finish(digest);
    }
    let rows = reader.get_row_iter(Some(projection)).map_err(|e| malformed(builder.place(0), e))?;
    let mut bytes = 0u64;
    for row in rows {
        let row = row.map_err(|e| malformed(builder.place(0), e))?;
        for ((column, kind), (_, field)) in kept.iter().zip(row.get_column_iter()) {
            let cell = cell(&builder, kind.name(), field)?;
            bytes = bytes.saturating_add(cell.as_ref().map_or(0, |c| c.len() as u64));
            builder.set(*column, cell.as_deref(), 0)?;
        }
        if bytes > builder.limits.file_bytes {
            return Err(too_large(&builder, bytes));
        }
        builder.end_row(0)?;
    }
    builder.finish(digest)
}

fn too_large(builder: &Builder, size: u64) -> DataError {
    DataError::FileTooLarge { file: builder.file.clone(), size, limit: builder.limits.file_bytes }
}

/// Size and compression, as the file says they are, are checked before anything is unpacked.
fn check(builder: &Builder, reader: &SerializedFileReader<File>) -> Result<(), DataError> {
    let groups = reader.metadata().row_groups();
    let total = groups.iter().fold(0u64, |sum, g| sum.saturating_add(g.total_byte_size().max(0) as u64));
    let rows = groups.iter().fold(0u64, |sum, g| sum.saturating_add(g.num_rows().max(0) as u64));
    if total > builder.limits.file_bytes {
        return Err(too_large(builder, total));
    }
    let known = |c: Compression| !matches!(c, Compression::BROTLI(_) | Compression::LZO);
    let mut codecs = groups.iter().flat_map(|g| g.columns()).map(|c| c.compression());
    if let Some(codec) = codecs.find(|c| !known(*c)) {
        return Err(DataError::Codec { file: builder.file.clone(), codec: codec.to_string() });
    }
    if rows > builder.limits.rows as u64 {
        return Err(DataError::TooManyRows { file: builder.file.clone(), limit: builder.limits.rows });
    }
    Ok(())
}

fn nesting(field: &Type) -> Option<&'static str> {
    let info = field.get_basic_info();
    let repeated = info.has_repetition() && info.repetition() == parquet::basic::Repetition::REPEATED;
    match (field.is_group(), info.converted_type()) {
        (true, ConvertedType::LIST) => Some("lists"),
        (true, ConvertedType::MAP) => Some("maps"),
        (true, _) => Some("structs"),
        (false, _) if repeated => Some("lists"),
        _ => None,
    }
}

fn cell(builder: &Builder, column: &str, field: &Field) -> Result<Option<String>, DataError> {
    let text = match field {
        Field::Null => return Ok(None),
        Field::Str(s) => s.clone(),
        Field::Float(v) => format!("{v:?}"),
        Field::Double(v) => format!("{v:?}"),
        Field::Float16(v) => format!("{:?}", v.to_f32()),
        // Many writers leave the mark "UTF-8" away from columns of text.
        Field::Bytes(b) => match b.as_utf8() {
            Ok(s) => s.to_owned(),
            Err(_) => {
                return Err(DataError::BinaryCell { place: builder.place(0), column: column.to_owned() });
            }
        },
        Field::Group(_) | Field::ListInternal(_) | Field::MapInternal(_) => {
            let (place, column) = (builder.place(0), column.to_owned());
            return Err(DataError::Nested { place, column, what: "a nested value" });
        }
        // Integers, booleans, decimals, dates and times.
        other => other.to_string(),
    };
    Ok(Some(text))
}
