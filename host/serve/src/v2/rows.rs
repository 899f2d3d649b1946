//! The rows of a call: what each is to be answered for, and by whom.

use super::fault::Fault;
use super::models::{ADAPTER, ATTENTION_MASK, INPUT_IDS, INPUTS, TEXT, TEXT_PAIR};
use super::tensor::{Data, Input};
use crate::ask::Text;

/// The rows of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rows {
    /// What is asked.
    pub texts: Vec<Text>,
    /// As many names of adapters; empty for the model that was called.
    pub adapters: Vec<String>,
}

impl Rows {
    /// The rows of the inputs, at most `most`.
    ///
    /// # Errors
    /// Inputs that are not known, are there twice, are missing, or have other rows than each other.
    pub fn of(inputs: Vec<Input>, most: usize) -> Result<Rows, Fault> {
        let mut by_name: [Option<Input>; INPUTS.len()] = [const { None }; INPUTS.len()];
        for input in inputs {
            let place =
                INPUTS.iter().position(|i| i.name == input.name).ok_or_else(|| unknown(&input.name))?;
            let rows = input.shape.first().copied().unwrap_or(0);
            if !(1..=most).contains(&rows) {
                let name = &input.name;
                return Err(Fault::invalid(format!(
                    "input '{name}' has {rows} rows; a call has 1 to {most}"
                )));
            }
            if let Some(twice) = by_name[place].replace(input) {
                return Err(Fault::invalid(format!("input '{}' is there twice", twice.name)));
            }
        }
        let [text, pair, ids, mask, adapter] = by_name;
        let texts = match (text, ids) {
            (Some(text), None) => match mask {
                None => texts(text, pair)?,
                Some(_) => return Err(Fault::invalid(format!("'{ATTENTION_MASK}' is for '{INPUT_IDS}'"))),
            },
            (None, Some(ids)) => match pair {
                None => tokens(ids, mask)?,
                Some(_) => return Err(Fault::invalid(format!("'{TEXT_PAIR}' is for '{TEXT}'"))),
            },
            _ => {
                let message = format!("a call has either the input '{TEXT}' or the input '{INPUT_IDS}'");
                return Err(Fault::invalid(message));
            }
        };
        let adapters = match adapter {
            Some(adapter) => column(adapter)?,
            None => vec![String::new(); texts.len()],
        };
        same(ADAPTER, adapters.len(), texts.len())?;
        Ok(Rows { texts, adapters })
    }
}

fn unknown(name: &str) -> Fault {
    let known = INPUTS.map(|i| i.name).join(", ");
    Fault::invalid(format!("there is no input '{name}'; there are {known}"))
}

fn same(name: &str, rows: usize, wanted: usize) -> Result<(), Fault> {
    if rows == wanted {
        return Ok(());
    }
    Err(Fault::invalid(format!("input '{name}' has {rows} rows, but the call has {wanted}")))
}

/// The texts of a tensor `[B]` of BYTES; `[B, 1]` is the same to clients that always send a batch of rows.
fn column(input: Input) -> Result<Vec<String>, Fault> {
    let Input { name, shape, data } = input;
    let (Data::Bytes(elements), [_] | [_, 1]) = (data, shape.as_slice()) else {
        return Err(Fault::invalid(format!("input '{name}' is not BYTES of shape [rows]")));
    };
    let text = |(row, bytes): (usize, Vec<u8>)| {
        String::from_utf8(bytes)
            .map_err(|_| Fault::invalid(format!("row {row} of input '{name}' is not UTF-8")))
    };
    elements.into_iter().enumerate().map(text).collect()
}

fn texts(text: Input, pair: Option<Input>) -> Result<Vec<Text>, Fault> {
    let first = column(text)?;
    let Some(pair) = pair else { return Ok(first.into_iter().map(Text::One).collect()) };
    let second = column(pair)?;
    same(TEXT_PAIR, second.len(), first.len())?;
    Ok(first.into_iter().zip(second).map(|(a, b)| Text::Pair(a, b)).collect())
}

/// The token ids of rows, each cut to its mask. A mask with a gap would move positions, so it is refused.
fn tokens(ids: Input, mask: Option<Input>) -> Result<Vec<Text>, Fault> {
    let (shape, ids) = matrix(ids)?;
    let mask = match mask.map(matrix).transpose()? {
        Some((other, _)) if other != shape => {
            let message = format!("'{ATTENTION_MASK}' has shape {other:?}, but '{INPUT_IDS}' {shape:?}");
            return Err(Fault::invalid(message));
        }
        Some((_, mask)) => mask,
        None => vec![1; ids.len()],
    };
    let [_, length] = shape;
    if length == 0 {
        return Err(Fault::invalid(format!("the rows of '{INPUT_IDS}' have no tokens")));
    }
    let rows = ids.chunks_exact(length).zip(mask.chunks_exact(length)).enumerate();
    rows.map(|(row, (ids, mask))| Ok(Text::Tokens(ids[kept(row, mask)?].to_vec()))).collect()
}

fn matrix(input: Input) -> Result<([usize; 2], Vec<i64>), Fault> {
    let Input { name, shape, data } = input;
    match (data, shape.as_slice()) {
        (Data::Ints(values), &[rows, length]) => Ok(([rows, length], values)),
        _ => Err(Fault::invalid(format!("input '{name}' is not INT64 of shape [rows, tokens]"))),
    }
}

/// The places of a row that its mask keeps.
fn kept(row: usize, mask: &[i64]) -> Result<std::ops::Range<usize>, Fault> {
    let fault = |what: &str| Err(Fault::invalid(format!("row {row} of '{ATTENTION_MASK}' {what}")));
    let Some(start) = mask.iter().position(|m| *m != 0) else { return fault("keeps no token") };
    let end = mask.iter().rposition(|m| *m != 0).map_or(start, |last| last + 1);
    match mask[start..end].iter().find(|m| **m != 1) {
        None => Ok(start..end),
        Some(0) => fault("has a gap"),
        Some(_) => fault("has other numbers than 0 and 1"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(name: &str, all: &[&str]) -> Input {
        let data = Data::Bytes(all.iter().map(|t| t.as_bytes().to_vec()).collect());
        Input::new(name, &[all.len() as i64], data).unwrap()
    }

    fn ints(name: &str, shape: [i64; 2], all: &[i64]) -> Input {
        Input::new(name, &shape, Data::Ints(all.to_vec())).unwrap()
    }

    fn refused(inputs: Vec<Input>) -> String {
        Rows::of(inputs, 4).unwrap_err().message
    }

    #[test]
    fn rows_are_texts_pairs_or_tokens() {
        let rows = Rows::of(vec![bytes(ADAPTER, &["", "x"]), bytes(TEXT, &["a", "b"])], 4).unwrap();
        assert_eq!(rows.texts, [Text::One("a".into()), Text::One("b".into())]);
        assert_eq!(rows.adapters, ["", "x"]);
        let rows = Rows::of(vec![bytes(TEXT, &["a"]), bytes(TEXT_PAIR, &["b"])], 4).unwrap();
        assert_eq!(rows.texts, [Text::Pair("a".into(), "b".into())]);
        let mask = ints(ATTENTION_MASK, [2, 3], &[1, 1, 0, 0, 0, 1]);
        let rows = Rows::of(vec![mask, ints(INPUT_IDS, [2, 3], &[5, 6, 0, 0, 0, 9])], 4).unwrap();
        assert_eq!(rows.texts, [Text::Tokens(vec![5, 6]), Text::Tokens(vec![9])]);
    }

    #[test]
    fn what_is_no_batch_of_rows_is_refused() {
        let ids = || ints(INPUT_IDS, [1, 3], &[1, 2, 3]);
        assert!(refused(vec![]).contains("either"));
        assert!(refused(vec![ids(), bytes(TEXT, &["a"])]).contains("either"));
        assert!(refused(vec![bytes("logits", &["a"])]).contains("no input 'logits'"));
        assert!(refused(vec![bytes(TEXT, &["a"]), bytes(TEXT, &["a"])]).contains("twice"));
        assert!(refused(vec![bytes(TEXT, &["a"; 5])]).contains("5 rows"));
        assert!(refused(vec![bytes(TEXT, &[])]).contains("0 rows"));
        assert!(refused(vec![bytes(TEXT, &["a"]), bytes(ADAPTER, &["x", "y"])]).contains("2 rows"));
        assert!(refused(vec![bytes(INPUT_IDS, &["a"])]).contains("not INT64"));
        assert!(refused(vec![ints(TEXT, [1, 1], &[1])]).contains("not BYTES"));
        assert!(refused(vec![ints(INPUT_IDS, [2, 0], &[])]).contains("no tokens"));
        assert!(refused(vec![ids(), ints(ATTENTION_MASK, [3, 1], &[1; 3])]).contains("shape"));
        for (mask, why) in [([1, 0, 1], "gap"), ([0; 3], "no token"), ([2, 1, 1], "0 and 1")] {
            assert!(refused(vec![ids(), ints(ATTENTION_MASK, [1, 3], &mask)]).contains(why));
        }
        let odd = Input::new(TEXT, &[1], Data::Bytes(vec![vec![0xff]])).unwrap();
        assert!(refused(vec![odd]).contains("UTF-8"));
    }
}
