//! Files with a word and its tag a line.
#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use graft_data::{DataError, ReadOptions, Table};

fn read(content: &str) -> Result<Table, DataError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.conll");
    std::fs::write(&path, content).unwrap();
    Table::read(path, &ReadOptions::default())
}

#[test]
fn sentences_are_rows_and_blank_lines_end_them() {
    let text = "-DOCSTART- -X- O\n\nEU NNP B-ORG\nrejects VBZ O\r\n\n\n\t\nAT&T\tB-ORG\n#tag\tO";
    let table = read(text).unwrap();
    let cells = |c: &str, r: usize| table.column(c).unwrap().get(r).unwrap().to_owned();
    assert_eq!(table.len(), 2);
    assert_eq!(
        (cells("tokens", 0), cells("tags", 0)),
        (r#"["EU","rejects"]"#.into(), r#"["B-ORG","O"]"#.into())
    );
    assert_eq!(
        (cells("tokens", 1), cells("tags", 1)),
        (r##"["AT&T","#tag"]"##.into(), r#"["B-ORG","O"]"#.into())
    );
    assert_eq!(
        (table.place(0).to_string().ends_with(":3"), table.place(1).to_string().ends_with(":8")),
        (true, true)
    );
}

#[test]
fn a_line_without_a_tag_is_refused_with_its_place() {
    for (text, line) in [("EU\tB-ORG\nrejects\n", 2), ("EU\t\n", 1), ("\tO\n", 1)] {
        let e = read(text).unwrap_err();
        assert!(
            matches!(e, DataError::NoTag { .. }) && e.to_string().contains(&format!("a.conll:{line}")),
            "{e}"
        );
    }
    assert!(matches!(read("\n\n"), Err(DataError::NoRows { .. })));
}
