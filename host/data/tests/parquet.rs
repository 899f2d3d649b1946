//! Parquet: values, nulls, codecs, and what is refused.

#![allow(clippy::unwrap_used, reason = "a test stops where its helper stops")]

use std::path::Path;
use std::sync::Arc;

use graft_data::{DataError, Limits, ReadOptions, Table};
use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{
    BoolType, ByteArray, ByteArrayType, DataType, DoubleType, FloatType, Int32Type, Int64Type,
};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;

const SCHEMA: &str = "message rows {
    required binary text (UTF8);
    optional binary plain;
    required int32 small;
    required int64 large (INTEGER(64,false));
    required float single;
    required double double;
    required boolean yes;
    required int32 day (DATE);
    required int32 price (DECIMAL(9,2));
}";

fn column<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, std::fs::File>,
    values: &[T::T],
    def: Option<&[i16]>,
) {
    let mut writer = group.next_column().unwrap().unwrap();
    writer.typed::<T>().write_batch(values, def, None).unwrap();
    writer.close().unwrap();
}

fn write(path: &Path, codec: Compression, plain: &[u8]) {
    let schema = Arc::new(parse_message_type(SCHEMA).unwrap());
    let properties = Arc::new(WriterProperties::builder().set_compression(codec).build());
    let file = std::fs::File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, properties).unwrap();
    let mut group = writer.next_row_group().unwrap();
    column::<ByteArrayType>(&mut group, &[ByteArray::from("café"), ByteArray::from("")], None);
    column::<ByteArrayType>(&mut group, &[ByteArray::from(plain.to_vec())], Some(&[0, 1]));
    column::<Int32Type>(&mut group, &[-7, i32::MAX], None);
    column::<Int64Type>(&mut group, &[1, -1], None);
    column::<FloatType>(&mut group, &[0.1, 3.0], None);
    column::<DoubleType>(&mut group, &[1e300, -0.5], None);
    column::<BoolType>(&mut group, &[true, false], None);
    column::<Int32Type>(&mut group, &[0, 20_000], None);
    column::<Int32Type>(&mut group, &[1234, -5], None);
    group.close().unwrap();
    writer.close().unwrap();
}

fn cells(table: &Table, column: &str) -> Vec<Option<String>> {
    let column = table.column(column).unwrap();
    (0..table.len()).map(|r| column.get(r).map(str::to_owned)).collect()
}

fn both(a: &str, b: &str) -> Vec<Option<String>> {
    vec![Some(a.into()), Some(b.into())]
}

#[test]
fn values_are_converted_faithfully_whatever_the_codec() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    let zstd = Compression::ZSTD(ZstdLevel::default());
    let gzip = Compression::GZIP(Default::default());
    for codec in [Compression::UNCOMPRESSED, Compression::SNAPPY, gzip, Compression::LZ4_RAW, zstd] {
        write(&path, codec, b"text");
        let table = Table::read(&path, &ReadOptions::default()).unwrap();
        assert_eq!(cells(&table, "text"), both("café", ""), "{codec}");
        assert_eq!(cells(&table, "plain"), [None, Some("text".into())]);
        assert_eq!(cells(&table, "small"), both("-7", "2147483647"));
        assert_eq!(cells(&table, "large"), both("1", "18446744073709551615"));
        assert_eq!(cells(&table, "single"), both("0.1", "3.0"));
        assert_eq!(cells(&table, "double"), both("1e300", "-0.5"));
        assert_eq!(cells(&table, "yes"), both("true", "false"));
        assert_eq!(cells(&table, "day"), both("1970-01-01", "2024-10-04"));
        assert_eq!(cells(&table, "price"), both("12.34", "-0.05"));
        assert!(table.place(1).to_string().ends_with("a.parquet, row 2"));
    }
}

#[test]
fn bytes_that_are_no_text_are_refused_with_row_and_column_unless_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    write(&path, Compression::SNAPPY, b"\xff\xfe");
    let message = Table::read(&path, &ReadOptions::default()).unwrap_err().to_string();
    assert!(message.contains("a.parquet, row 2: column `plain`"), "{message}");
    let select = ReadOptions { select: Some(vec!["small".into()]), ..Default::default() };
    let table = Table::read(&path, &select).unwrap();
    assert_eq!(table.columns().collect::<Vec<_>>(), ["small"]);
    let typo = ReadOptions { select: Some(vec!["smal".into()]), ..Default::default() };
    let message = Table::read(&path, &typo).unwrap_err().to_string();
    assert!(message.contains("did you mean `small`?"), "{message}");
}

#[test]
fn nested_columns_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    let schema = "message rows {
        required int32 id;
        required group tags (LIST) { repeated group list { required int32 element; } }
    }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut writer =
        SerializedFileWriter::new(std::fs::File::create(&path).unwrap(), schema, Default::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    column::<Int32Type>(&mut group, &[1], None);
    let mut tags = group.next_column().unwrap().unwrap();
    tags.typed::<Int32Type>().write_batch(&[5, 6], Some(&[1, 1]), Some(&[0, 1])).unwrap();
    tags.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
    let message = Table::read(&path, &ReadOptions::default()).unwrap_err().to_string();
    assert!(message.contains("a.parquet: column `tags` holds lists"), "{message}");
    let select = ReadOptions { select: Some(vec!["id".into()]), ..Default::default() };
    assert_eq!(cells(&Table::read(&path, &select).unwrap(), "id"), [Some("1".into())]);
}

#[test]
fn damaged_files_are_errors_and_never_panics() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    write(&path, Compression::SNAPPY, b"text");
    let whole = std::fs::read(&path).unwrap();
    for keep in [0, 3, 8, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..keep]).unwrap();
        let e = Table::read(&path, &ReadOptions::default()).unwrap_err();
        assert!(matches!(e, DataError::Parquet { .. }), "{keep}: {e}");
    }
    // A damaged byte may change a value unnoticed; it must not end the process.
    for at in (0..whole.len()).step_by(3) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x41;
        std::fs::write(&path, &damaged).unwrap();
        let _ = Table::read(&path, &ReadOptions::default());
    }
}

#[test]
fn the_size_that_a_file_unpacks_to_is_limited() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    write(&path, Compression::SNAPPY, b"text");
    let limits = Limits { rows: 1, ..Default::default() };
    let options = ReadOptions { limits, ..Default::default() };
    assert!(matches!(Table::read(&path, &options), Err(DataError::TooManyRows { .. })));
}
