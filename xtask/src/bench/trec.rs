//! The questions of TREC as two CSV files, made from the shared data.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result, io};
use crate::paths::Paths;
use crate::stamp::write_atomic;

/// Names the folder with the shared data sets.
const GRAFT_SHARED: &str = "GRAFT_SHARED";

/// The files, with the columns `text` and `label`.
pub struct Trec {
    /// 5,452 questions to train on.
    pub train: PathBuf,
    /// 500 questions that nothing is selected on.
    pub test: PathBuf,
}

/// The folder of data sets and peers: `$GRAFT_SHARED`, or `shared` beside the workspace.
pub fn shared(paths: &Paths) -> PathBuf {
    match std::env::var_os(GRAFT_SHARED).filter(|v| !v.is_empty()) {
        Some(named) => std::env::current_dir().unwrap_or_default().join(named),
        None => paths.root.join("../shared"),
    }
}

/// Writes the files into `folder`, with no more than `rows` questions each where given.
///
/// # Errors
/// [`Error::Shared`] when the data set is not there.
pub fn prepare(paths: &Paths, folder: &Path, rows: Option<usize>) -> Result<Trec> {
    let source = shared(paths).join("data/text/trec");
    let make = |name: &str, out: &str| -> Result<PathBuf> {
        let (from, to) = (source.join(name), folder.join(out));
        if !from.is_file() {
            return Err(Error::Shared { path: from });
        }
        let bytes = fs::read(&from).map_err(io("cannot read", &from))?;
        let csv = to_csv(&bytes, rows.unwrap_or(usize::MAX));
        write_atomic(&to, csv.as_bytes()).map_err(io("cannot write", &to))?;
        Ok(to)
    };
    Ok(Trec { train: make("TREC.train", "trec.train.csv")?, test: make("TREC.test", "trec.test.csv")? })
}

/// `COARSE:fine question` in Latin-1, a line each, to CSV in UTF-8 with the coarse label.
fn to_csv(latin1: &[u8], rows: usize) -> String {
    // Latin-1 is the first 256 code points.
    let text: String = latin1.iter().map(|b| char::from(*b)).collect();
    let mut csv = String::from("text,label\n");
    for line in text.split('\n').map(str::trim).take(rows) {
        let parts =
            line.split_once(' ').and_then(|(label, question)| Some((question, label.split_once(':')?.0)));
        if let Some((question, label)) = parts {
            csv.push_str(&format!("\"{}\",{label}\n", question.replace('"', "\"\"")));
        }
    }
    csv
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_quoted_and_the_label_ends_at_the_colon() {
        let latin1 = b"DESC:manner How did \"X\" , the first : end ?\nLOC:other Where is Bogot\xe1 ?\n\n";
        let csv = to_csv(latin1, 10);
        let mut reader = csv::Reader::from_reader(csv.as_bytes());
        let rows: Vec<(String, String)> = reader.deserialize().map(|r| r.unwrap()).collect();
        let expected = [("How did \"X\" , the first : end ?", "DESC"), ("Where is Bogotá ?", "LOC")]
            .map(|(q, l)| (q.into(), l.into()));
        assert_eq!(rows, expected);
    }

    #[test]
    fn a_subset_has_the_first_rows() {
        assert_eq!(to_csv(b"A:x one\nB:y two\nA:z three\n", 2), "text,label\n\"one\",A\n\"two\",B\n");
    }
}
