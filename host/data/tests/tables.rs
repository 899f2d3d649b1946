//! Reading tables: what is read, and what is refused with file, line and a way out.

#![allow(clippy::unwrap_used, reason = "a test stops where its helper stops")]

use std::path::PathBuf;

use graft_data::{DataError, Format, Limits, Mapping, ReadOptions, Table, digest_file};

struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Files {
        Files(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

fn read(name: &str, bytes: impl AsRef<[u8]>) -> Result<Table, DataError> {
    read_with(name, bytes, &ReadOptions::default())
}

fn read_with(name: &str, bytes: impl AsRef<[u8]>, options: &ReadOptions) -> Result<Table, DataError> {
    let files = Files::new();
    Table::read(files.write(name, bytes), options)
}

/// The message of a refusal, which must name the file.
fn refused(name: &str, bytes: impl AsRef<[u8]>) -> String {
    let message = read(name, bytes).unwrap_err().to_string();
    assert!(message.contains(name), "{message}");
    message
}

fn cells<'a>(table: &'a Table, column: &str) -> Vec<Option<&'a str>> {
    let column = table.column(column).unwrap();
    (0..table.len()).map(|r| column.get(r)).collect()
}

fn line(table: &Table, row: usize) -> String {
    table.place(row).to_string().rsplit(':').next().unwrap().to_owned()
}

#[test]
fn csv_rows_know_the_line_on_which_they_start() {
    for end in ["\n", "\r\n"] {
        let text =
            ["text,label", "\"two", "lines, quoted\",a", "", "plain,b", "\"say \"\"hi\"\"\",c", ""].join(end);
        let table = read("a.csv", text).unwrap();
        assert_eq!(table.columns().collect::<Vec<_>>(), ["text", "label"]);
        let quoted = format!("two{end}lines, quoted");
        assert_eq!(cells(&table, "text"), [Some(quoted.as_str()), Some("plain"), Some("say \"hi\"")]);
        assert_eq!((0..3).map(|r| line(&table, r)).collect::<Vec<_>>(), ["2", "5", "6"]);
    }
}

#[test]
fn a_byte_order_mark_is_no_part_of_the_first_column() {
    assert_eq!(cells(&read("a.csv", b"\xef\xbb\xbftext\nx\n").unwrap(), "text"), [Some("x")]);
    assert_eq!(cells(&read("a.jsonl", b"\xef\xbb\xbf{\"text\": \"x\"}").unwrap(), "text"), [Some("x")]);
}

#[test]
fn quotes_are_text_in_tsv() {
    let table = read("a.tsv", "text\tn\n\"open quote\t1\nplain\t2\n").unwrap();
    assert_eq!(cells(&table, "text"), [Some("\"open quote"), Some("plain")]);
    let quoted = ReadOptions { quotes: Some(true), ..Default::default() };
    assert_eq!(cells(&read_with("a.tsv", "a\n\"x\ty\"\n", &quoted).unwrap(), "a"), [Some("x\ty")]);
}

#[test]
fn delimiter_and_columns_can_be_given() {
    let options = ReadOptions {
        delimiter: Some(';'),
        columns: Some(vec!["a".into(), "b".into()]),
        ..Default::default()
    };
    let table = read_with("a.csv", "1;2\n3;4\n", &options).unwrap();
    assert_eq!(cells(&table, "b"), [Some("2"), Some("4")]);
    assert_eq!(line(&table, 0), "1");
    let bad = ReadOptions { delimiter: Some('é'), ..Default::default() };
    assert!(matches!(read_with("a.csv", "a\n1\n", &bad), Err(DataError::BadDelimiter { .. })));
}

#[test]
fn a_row_with_another_number_of_fields_is_refused_with_its_line() {
    let message = refused("a.csv", "text,label\n\"x\ny\",a\nno label\n");
    assert!(message.contains("a.csv:4: 1 fields where 2 are expected (text, label)"), "{message}");
    assert!(message.contains("--delimiter"), "{message}");
}

#[test]
fn an_open_quote_is_refused_with_the_line_on_which_it_opens() {
    for tail in ["\"never closed,b\nmore,c\n", "\"never closed", "x,\"", "\"a\"\"", "x,\"never\n\n"] {
        let e = read("a.csv", format!("text,label\nfine,a\n{tail}")).unwrap_err();
        assert!(e.to_string().contains("a.csv:3"), "{tail:?}: {e}");
        assert!(matches!(e, DataError::OpenQuote { .. }), "{tail:?}: {e}");
    }
    for fine in ["\"a\",b", "\"a\"\"\",b\n", "a,\"b\"\n\n", "6\" pipe,b", "a,6\""] {
        let table = read("a.csv", format!("text,label\n{fine}")).unwrap();
        assert_eq!(table.len(), 1, "{fine:?}");
    }
}

#[test]
fn a_column_that_stands_twice_is_refused() {
    assert!(refused("a.csv", "text,label,text\n1,2,3\n").contains("`text` stands there twice"));
    assert!(
        refused("a.jsonl", "{\"a\": 1}\n{\"a\": 1, \"a\": 2}\n").contains("a.jsonl:2: the column name `a`")
    );
}

#[test]
fn a_file_without_rows_is_refused() {
    for (name, text) in [("a.csv", ""), ("a.csv", "text,label\n"), ("a.jsonl", "\n\n"), ("a.tsv", "\n")] {
        assert!(matches!(read(name, text), Err(DataError::NoRows { .. })), "{name} {text:?}");
    }
}

#[test]
fn text_that_is_not_utf8_names_byte_and_line_and_offers_an_encoding() {
    let message = refused("a.csv", b"text\nplain\ncaf\xe9\n");
    assert!(message.contains("a.csv:3: byte 0xe9 at offset 14"), "{message}");
    assert!(message.contains("--encoding latin1"), "{message}");
    assert!(refused("a.jsonl", b"\xef\xbb\xbf\xff").contains("offset 3"));
}

#[test]
fn other_encodings_are_read_when_named() {
    for name in ["latin1", "latin-1", "ISO-8859-1", "windows-1252", "cp1252"] {
        let options = ReadOptions { encoding: Some(name.into()), ..Default::default() };
        let table = read_with("a.csv", b"text\ncaf\xe9 \x80\n", &options).unwrap();
        assert_eq!(cells(&table, "text"), [Some("café €")], "{name}");
    }
    let utf16 = ReadOptions { encoding: Some("utf-16le".into()), ..Default::default() };
    let table = read_with("a.csv", b"\xff\xfea\0\n\0\xe9\0\n\0", &utf16).unwrap();
    assert_eq!(cells(&table, "a"), [Some("é")]);
    assert!(matches!(read_with("a.csv", b"\0\xd8a\0", &utf16), Err(DataError::BadEncoding { .. })));
    let unknown = ReadOptions { encoding: Some("klingon".into()), ..Default::default() };
    assert!(matches!(read_with("a.csv", "a\n", &unknown), Err(DataError::NoSuchEncoding { .. })));
}

#[test]
fn files_that_are_no_text_are_called_what_they_are() {
    assert!(refused("a.csv", b"\x1f\x8b\x08\0rest").contains("gzip"));
    assert!(refused("a.csv", b"PK\x03\x04rest").contains("spreadsheet"));
    assert!(refused("a.csv", b"PAR1rest").contains("--format parquet"));
}

#[test]
fn json_values_are_kept_as_they_are_written() {
    let text = r#"{"text": "a\n\u00e9\ud83d\ude42", "n": 1.0, "big": 12345678901234567890123, "yes": true, "no": null}"#;
    let table = read("a.jsonl", format!("{text}\n\n  {{\"late\": -0.10}}\r\n")).unwrap();
    assert_eq!(cells(&table, "text"), [Some("a\né🙂"), None]);
    assert_eq!(cells(&table, "n"), [Some("1.0"), None]);
    assert_eq!(cells(&table, "big"), [Some("12345678901234567890123"), None]);
    assert_eq!(cells(&table, "yes"), [Some("true"), None]);
    assert_eq!(cells(&table, "no"), [None, None]);
    assert_eq!(cells(&table, "late"), [None, Some("-0.10")]);
    assert_eq!((line(&table, 0), line(&table, 1)), ("1".into(), "3".into()));
}

#[test]
fn malformed_json_is_refused_with_its_line() {
    for bad in
        ["{\"text\": \"x\"", "[1, 2]", "{\"a\": 1} {\"a\": 2}", "{\"a\": \"\\ud800\"}", "{'a': 1}", "text"]
    {
        let message = refused("a.jsonl", format!("{{\"a\": 1}}\n{bad}\n"));
        assert!(message.contains("a.jsonl:2: malformed JSON"), "{bad}: {message}");
    }
    let deep = format!("{{\"a\": {}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let message = refused("a.jsonl", deep);
    assert!(message.contains("a.jsonl:1"), "{message}");
}

#[test]
fn nested_json_is_refused_with_line_and_column_unless_left_out() {
    let text = "{\"text\": \"x\", \"tags\": null}\n{\"text\": \"y\", \"tags\": [1]}\n";
    let message = refused("a.jsonl", text);
    assert!(message.contains("a.jsonl:2: column `tags` holds an array"), "{message}");
    assert!(refused("a.jsonl", "{\"o\": {}}").contains("column `o` holds an object"));
    let select = ReadOptions { select: Some(vec!["text".into()]), ..Default::default() };
    let table = read_with("a.jsonl", text, &select).unwrap();
    assert_eq!(cells(&table, "text"), [Some("x"), Some("y")]);
    assert!(table.column("tags").is_err());
}

#[test]
fn a_column_that_is_not_there_lists_those_that_are_and_the_nearest() {
    let table = read("a.csv", "utterance,Label\nx,a\n").unwrap();
    let e = table.records(&Mapping::new().with("text", "utterance").with("label", "label")).unwrap_err();
    let message = e.to_string();
    assert!(message.contains("no column `label` (for field `label`)"), "{message}");
    assert!(message.contains("there are: `utterance`, `Label`; did you mean `Label`?"), "{message}");
    let select = ReadOptions { select: Some(vec!["txt".into()]), ..Default::default() };
    let message = read_with("a.csv", "text,label\nx,a\n", &select).unwrap_err().to_string();
    assert!(message.contains("did you mean `text`?"), "{message}");
}

#[test]
fn required_text_that_is_blank_or_missing_is_refused_with_its_line() {
    let mapping = Mapping::parse(["text=question", "label=label"]).unwrap();
    let table = read("a.csv", "question,label\nfine,a\n\"  \n\",b\n").unwrap();
    let message = table.records(&mapping).unwrap_err().to_string();
    assert!(message.contains("a.csv:3: column `question` is empty"), "{message}");
    let table = read("a.jsonl", "{\"question\": \"x\", \"label\": 1}\n{\"question\": \"y\"}\n").unwrap();
    let message = table.records(&mapping).unwrap_err().to_string();
    assert!(message.contains("a.jsonl:2: column `label` has no value"), "{message}");
    assert!(Mapping::parse(["text"]).is_err());
}

#[test]
fn records_are_the_fields_in_the_order_of_the_rows() {
    let table = read("a.csv", "q,l\none,a\ntwo,b\n").unwrap();
    let mapping = Mapping::new().with("text", "q").with("label", "l");
    let records = table.records(&mapping).unwrap();
    assert_eq!(records.len(), 2);
    assert_eq!(records.field("text"), Some(&["one", "two"][..]));
    assert_eq!(records.field("label"), Some(&["a", "b"][..]));
    assert_eq!(records.field("q"), None);
    assert_eq!(mapping.columns(), ["q", "l"]);
}

#[test]
fn numbers_are_refused_with_their_line() {
    let table = read("a.csv", "score\n1.5\n 2 \n").unwrap();
    assert_eq!(table.numbers("score").unwrap(), [1.5, 2.0]);
    for bad in ["x", "inf", "", "NaN"] {
        let message =
            read("a.csv", format!("score,x\n1,1\n{bad},1\n")).unwrap().numbers("score").unwrap_err();
        assert!(message.to_string().contains("a.csv:3"), "{message}");
    }
}

#[test]
fn limits_hold_before_and_while_parsing() {
    let with = |limits| ReadOptions { limits, ..Default::default() };
    let base = Limits::default();
    let csv = "a,b\n1234567890,2\n3,4\n";
    let file = with(Limits { file_bytes: 10, ..base });
    assert!(matches!(
        read_with("a.csv", csv, &file),
        Err(DataError::FileTooLarge { size: 21, limit: 10, .. })
    ));
    let field = with(Limits { field_bytes: 9, ..base });
    assert!(matches!(read_with("a.csv", csv, &field), Err(DataError::FieldTooLarge { size: 10, .. })));
    let columns = with(Limits { columns: 1, ..base });
    assert!(matches!(read_with("a.csv", csv, &columns), Err(DataError::TooManyColumns { count: 2, .. })));
    let jsonl = "{\"a\": 1}\n{\"b\": 1}\n";
    assert!(matches!(read_with("a.jsonl", jsonl, &columns), Err(DataError::TooManyColumns { count: 2, .. })));
    let rows = with(Limits { rows: 1, ..base });
    assert!(matches!(read_with("a.csv", csv, &rows), Err(DataError::TooManyRows { limit: 1, .. })));
}

#[test]
fn paths_that_cannot_be_read_are_refused() {
    let files = Files::new();
    let options = ReadOptions::default();
    assert!(matches!(Table::read(files.0.path().join("no.csv"), &options), Err(DataError::Io { .. })));
    let unknown = Table::read(files.write("a.txt", "a\n1\n"), &options).unwrap_err();
    assert!(unknown.to_string().contains("--format"), "{unknown}");
    let given = ReadOptions { format: Some(Format::Csv), ..Default::default() };
    assert_eq!(Table::read(files.write("a.txt", "a\n1\n"), &given).unwrap().len(), 1);
    let folder = ReadOptions { format: Some(Format::Csv), ..Default::default() };
    let folder = Table::read(files.0.path(), &folder).unwrap_err();
    assert!(folder.to_string().contains(&files.0.path().display().to_string()), "{folder}");
    assert!("xlsx".parse::<Format>().is_err());
}

#[test]
fn the_digest_is_that_of_the_bytes() {
    let files = Files::new();
    let path = files.write("a.csv", "a\n1\n");
    let table = Table::read(&path, &ReadOptions::default()).unwrap();
    assert_eq!(table.digest(), format!("blake3:{}", blake3::hash(b"a\n1\n").to_hex()));
    assert_eq!(table.digest(), digest_file(&path).unwrap());
}

#[test]
fn rows_need_no_file() {
    let table = Table::from_rows("arguments", &["text"], &[vec!["x".into()], vec![" ".into()]]).unwrap();
    assert_eq!(cells(&table, "text"), [Some("x"), Some(" ")]);
    let e = table.records(&Mapping::new().with("text", "text")).unwrap_err();
    assert!(e.to_string().contains("arguments, row 2"), "{e}");
    assert!(matches!(Table::from_rows("a", &["t"], &[vec![]]), Err(DataError::FieldCount { .. })));
}

#[test]
fn a_cell_that_may_hold_no_value_may_be_blank() {
    let table = read(
        "t.jsonl",
        "{\"text\":\"a\",\"tags\":\"x;y\"}\n{\"text\":\"b\",\"tags\":\"\"}\n{\"text\":\"c\"}\n",
    )
    .unwrap();
    let mapping = Mapping::new().with("text", "text").with("label", "tags");
    let records = table.records_with_blanks(&mapping, &["label"]).unwrap();
    assert_eq!(records.field("label").unwrap(), ["x;y", "", ""]);
    let message = table.records_with_blanks(&mapping, &["text"]).unwrap_err().to_string();
    assert!(message.contains("t.jsonl:2") && message.contains("tags"), "{message}");
}
