//! Short and long texts mixed.

use std::fs;

use super::Options;
use super::adapters::Maker;
use super::bare::Bare;
use super::server::{self, Server};
use crate::bench::Bench;
use crate::bench::table::{Table, number};
use crate::error::{Result, io};

const ADAPTERS: usize = 32;
/// Words of a passage.
const PASSAGE: usize = 200;
/// The load of the open loop, relative to what the server can do.
const LOAD: f64 = 0.7;

/// As many passages as questions, made of questions one after the other.
fn mixed(questions: &[String]) -> Vec<String> {
    let mut words = questions.iter().cycle().flat_map(|q| q.split_whitespace());
    let total: usize = questions.iter().map(|q| q.split_whitespace().count()).sum();
    if total == 0 {
        return Vec::new();
    }
    let passages = questions.iter().map(|_| words.by_ref().take(PASSAGE).collect::<Vec<_>>().join(" "));
    questions.iter().cloned().zip(passages).flat_map(|(q, p)| [q, p]).collect()
}

/// Measures what the server can do at most, and how long people wait at 70 % of it.
///
/// # Errors
/// When a run fails.
pub fn run(bench: &Bench<'_>, made: &Maker, options: &Options) -> Result<String> {
    let mut csv = csv::Reader::from_path(&bench.trec.test)
        .map_err(|e| io("cannot read", &bench.trec.test)(std::io::Error::other(e)))?;
    let questions: Vec<String> =
        csv.deserialize::<(String, String)>().filter_map(|row| Some(row.ok()?.0)).collect();
    let file = bench.folder.join("serve/mixed.txt");
    fs::write(&file, mixed(&questions).join("\n")).map_err(io("cannot write", &file))?;

    let folder = made.folder("few", ADAPTERS)?;
    let sorted = Bare::start(bench, &folder)?.sorted_tokens(&file)?;
    let server = Server::start(bench, &folder)?;
    let (texts, clients) = (file.display().to_string(), options.clients.to_string());
    let full = server.drive(bench, options.seconds, &["--clients", &clients, "--texts", &texts])?;
    let most = server::number(&full, "requests_per_second").unwrap_or(1.0);
    let rate = format!("{:.2}", LOAD * most);
    let open = server.drive(bench, options.seconds, &["--rate", &rate, "--texts", &texts])?;

    let mut table = Table::new([
        "load",
        "requests/s",
        "useful tokens/s",
        "× sorted batches",
        "padding, %",
        "rows a batch",
        "p50, ms",
        "p99, ms",
    ]);
    let mut line = |name: String, found: &crate::bench::Figures, compared: bool| {
        let get = |place: &str| server::number(found, place);
        let tokens = get("tokens_per_second");
        table.row([
            name,
            number(get("requests_per_second"), 0),
            number(tokens, 0),
            number(tokens.zip(sorted).map(|(a, b)| a / b).filter(|_| compared), 3),
            number(get("padding").map(|p| 100.0 * p), 1),
            number(get("rows_per_batch"), 1),
            number(get("latency_ms/p50"), 1),
            number(get("latency_ms/p99"), 1),
        ]);
    };
    line(format!("{clients} clients that wait"), &full, true);
    line(format!("open loop at {:.0} %", 100.0 * LOAD), &open, false);
    let sorted = number(sorted, 0);
    Ok(format!(
        "**Mixed lengths**: as many passages of {PASSAGE} words as TREC questions, {ADAPTERS} adapters; sorted by length, in \
         batches of 32 and without a server, they are {sorted} useful tokens/s\n\n{table}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_question_is_followed_by_a_passage() {
        let questions = ["one two three".to_owned(), "four".to_owned()];
        let all = mixed(&questions);
        assert_eq!((all.len(), all[0].as_str(), all[2].as_str()), (4, "one two three", "four"));
        assert!(all[1].starts_with("one two three four one"));
        for passage in [&all[1], &all[3]] {
            assert_eq!(passage.split(' ').count(), PASSAGE);
        }
        assert!(mixed(&[]).is_empty() && mixed(&[String::new()]).is_empty());
    }
}
