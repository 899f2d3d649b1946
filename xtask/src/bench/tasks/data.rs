//! The data of the tasks, as both sides read them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Error, Result, io};
use crate::process;
use crate::stamp::{remove, write_atomic};

/// The three parts of a task's data: files, or folders by class.
pub struct Data {
    pub train: PathBuf,
    /// What selects the epoch; none where the last one counts.
    pub dev: Option<PathBuf>,
    pub test: PathBuf,
}

/// Where data come from and where they are put.
pub struct Place<'a> {
    /// The folder `data` of the shared files.
    pub from: &'a Path,
    pub to: &'a Path,
    /// No more rows than these of each file.
    pub rows: usize,
}

impl Place<'_> {
    fn read(&self, name: &str) -> Result<String> {
        let path = self.from.join(name);
        if !path.is_file() {
            return Err(Error::Shared { path });
        }
        let bytes = fs::read(&path).map_err(io("cannot read", &path))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.to.join(name);
        write_atomic(&path, text.as_bytes()).map_err(io("cannot write", &path))?;
        Ok(path)
    }

    /// Writes a CSV file.
    fn table<const N: usize>(&self, name: &str, head: [&str; N], rows: &[[String; N]]) -> Result<PathBuf> {
        let quoted = |cell: &String| format!("\"{}\"", cell.replace('"', "\"\""));
        let line = |row: &[String; N]| row.iter().map(quoted).collect::<Vec<_>>().join(",");
        let lines = rows.iter().take(self.rows).map(line);
        let text: Vec<String> = std::iter::once(head.join(",")).chain(lines).collect();
        self.write(name, &(text.join("\n") + "\n"))
    }
}

/// 77 intents of bank customers (Casanueva et al. 2020): 10,003 to train on, 3,080 to test on.
pub fn banking77(at: &Place<'_>) -> Result<Data> {
    let one = |from: &str, to: &str| {
        let text = at.read(&format!("text/banking77/{from}"))?;
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let rows: Vec<[String; 2]> = reader.deserialize().filter_map(std::result::Result::ok).collect();
        at.table(to, ["text", "label"], &rows)
    };
    let (train, test) = (one("train.csv", "banking77.train.csv")?, one("test.csv", "banking77.test.csv")?);
    Ok(Data { train, dev: None, test })
}

/// Sentences of film reviews, good or bad (Socher et al. 2013): 6,920 to train on, 1,821 to test on.
pub fn sst(at: &Place<'_>) -> Result<Data> {
    let one = |part: &str| {
        let text = at.read(&format!("text/sst/stsa.binary.{part}"))?;
        let row = |line: &str| line.split_once(' ').map(|(label, text)| [text.to_owned(), label.to_owned()]);
        let rows: Vec<[String; 2]> = text.lines().filter_map(row).collect();
        at.table(&format!("sst.{part}.csv"), ["text", "label"], &rows)
    };
    Ok(Data { train: one("train")?, dev: None, test: one("test")? })
}

/// Rare entities in what people write (Derczynski et al. 2017): 3,394 sentences, 1,009 to select by, 1,287 to test on.
pub fn wnut17(at: &Place<'_>) -> Result<Data> {
    let one = |from: &str, to: &str| {
        let text = at.read(&format!("text/wnut17/{from}"))?;
        let sentences: Vec<&str> = text.split("\n\n").take(at.rows).collect();
        at.write(to, &(sentences.join("\n\n") + "\n"))
    };
    Ok(Data {
        train: one("wnut17train.conll", "wnut17.train.conll")?,
        dev: Some(one("emerging.dev.conll", "wnut17.dev.conll")?),
        test: one("emerging.test.annotated", "wnut17.test.conll")?,
    })
}

/// Pairs of sentences with a likeness from 0 to 5 (Agirre et al. 2015): 3,000, 750 to select by, 6,750 to test on, for
/// the others have no score.
pub fn sts2015(at: &Place<'_>) -> Result<Data> {
    let one = |part: &str| {
        let text = at.read(&format!("text/sts2015/2015.{part}.tsv"))?;
        let row = |line: &str| {
            let cells: Vec<&str> = line.split('\t').collect();
            let [score, text, pair] = cells.as_slice() else { return None };
            (!score.is_empty()).then(|| [*text, *pair, *score].map(str::to_owned))
        };
        let rows: Vec<[String; 3]> = text.lines().filter_map(row).collect();
        at.table(&format!("sts2015.{part}.csv"), ["text", "text_pair", "score"], &rows)
    };
    Ok(Data { train: one("train")?, dev: Some(one("val")?), test: one("test")? })
}

/// Solubility of 1,128 molecules in log mol/l (Delaney 2004): of every ten rows one selects and one tests.
pub fn esol(at: &Place<'_>) -> Result<Data> {
    let text = at.read("molecule/ESOL.csv")?;
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let row = |r: csv::StringRecord| Some([r.get(9)?.trim().to_owned(), r.get(8)?.to_owned()]);
    let rows: Vec<[String; 2]> = reader.records().filter_map(|r| row(r.ok()?)).collect();
    let one = |part: &str, of: &dyn Fn(usize) -> bool| {
        let chosen: Vec<[String; 2]> =
            rows.iter().enumerate().filter(|(i, _)| of(i % 10)).map(|(_, r)| r.clone()).collect();
        at.table(&format!("esol.{part}.csv"), ["smiles", "target"], &chosen)
    };
    Ok(Data {
        train: one("train", &|i| i < 8)?,
        dev: Some(one("dev", &|i| i == 8)?),
        test: one("test", &|i| i == 9)?,
    })
}

/// CIFAR-10 (Krizhevsky 2009) as JPEG files in folders by class: 4,500 to train on, 500 to select by, 1,000 to test on.
pub fn cifar(at: &Place<'_>) -> Result<Data> {
    let folder = at.to.join("cifar");
    remove(&folder).map_err(io("cannot remove", &folder))?;
    fs::create_dir_all(&folder).map_err(io("cannot make the folder", &folder))?;
    for name in ["dev_train_500pc.tar", "dev_test_100pc.tar"] {
        let tar = at.from.join("image/cifar10_jpeg").join(name);
        if !tar.is_file() {
            return Err(Error::Shared { path: tar });
        }
        process::run(Command::new("tar").arg("xf").arg(tar).arg("-C").arg(&folder))?;
    }
    let (train, dev) = (folder.join("train"), folder.join("dev"));
    for class in files(&train)? {
        let to = dev.join(class.file_name().unwrap_or_default());
        fs::create_dir_all(&to).map_err(io("cannot make the folder", &to))?;
        for (i, image) in files(&class)?.into_iter().enumerate() {
            if i >= at.rows {
                fs::remove_file(&image).map_err(io("cannot remove", &image))?;
            } else if i % 10 == 9 {
                let moved = to.join(image.file_name().unwrap_or_default());
                fs::rename(&image, &moved).map_err(io("cannot move", &image))?;
            }
        }
    }
    Ok(Data { train, dev: Some(dev), test: folder.join("test") })
}

/// What a folder holds, in order.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let listed = fs::read_dir(folder).map_err(io("cannot list", folder))?;
    let mut all: Vec<PathBuf> = listed.flatten().map(|e| e.path()).collect();
    all.sort();
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_without_a_score_are_left_out_and_cells_are_quoted() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("text/sts2015");
        fs::create_dir_all(&folder).unwrap();
        for part in ["train", "val", "test"] {
            fs::write(folder.join(format!("2015.{part}.tsv")), "3.00\tA \"b\", c\td\n\te\tf\n").unwrap();
        }
        let made = sts2015(&Place { from: dir.path(), to: dir.path(), rows: 9 }).unwrap();
        let text = fs::read_to_string(made.test).unwrap();
        assert_eq!(text, "text,text_pair,score\n\"A \"\"b\"\", c\",\"d\",\"3.00\"\n");
    }

    #[test]
    fn data_that_are_not_there_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let none = Place { from: dir.path(), to: dir.path(), rows: 9 };
        assert!(matches!(banking77(&none), Err(Error::Shared { path }) if path.ends_with("train.csv")));
    }
}
