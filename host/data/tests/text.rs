//! Tokenizers against the ids that the Python package gives, statistics, and the shared data sets.

#![allow(clippy::unwrap_used, reason = "a test stops where its helper stops")]

mod common;

use common::shared;
use graft_data::{Batches, DataError, EncodeOptions, Mapping, Order, ReadOptions, Stats, Table, Tokenizer};

const TEXTS: [&str; 4] =
    ["Hello, world!", "How far is it from Denver to Aspen ?", "naïve café — 東京 🙂", "don't  stop\n"];

/// A Unigram model as SentencePiece conversions have it.
const UNIGRAM: &str = r#"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,
"pre_tokenizer":{"type":"Metaspace","replacement":"▁","prepend_scheme":"always","split":true},
"post_processor":null,
"decoder":{"type":"Metaspace","replacement":"▁","prepend_scheme":"always","split":true},
"model":{"type":"Unigram","unk_id":0,"vocab":[["<unk>",0.0],["▁a",-1.0],["▁b",-2.0],["c",-3.0],["▁",-4.0],
["▁ab",-2.5],["b",-5.0]],"byte_fallback":false}}"#;

fn ids(tokenizer: &Tokenizer, texts: &[&str]) -> Vec<Vec<i64>> {
    let encoded = tokenizer.encode_batch(texts, None, &EncodeOptions::default()).unwrap();
    encoded.rows.into_iter().map(|r| r.ids).collect()
}

fn most(max_length: usize) -> EncodeOptions {
    EncodeOptions { max_length: Some(max_length), ..Default::default() }
}

fn unigram() -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    std::fs::write(&path, UNIGRAM).unwrap();
    (folder, path)
}

#[test]
fn word_pieces_are_those_of_bert() {
    let Some(path) = shared("data/tokenizers/bert-base-uncased.tokenizer.json") else { return };
    let bert = Tokenizer::load(path).unwrap();
    assert_eq!(
        ids(&bert, &TEXTS),
        [
            vec![101, 7592, 1010, 2088, 999, 102],
            vec![101, 2129, 2521, 2003, 2009, 2013, 7573, 2000, 18567, 1029, 102],
            vec![101, 15743, 7668, 1517, 1879, 1755, 100, 102],
            vec![101, 2123, 1005, 1056, 2644, 102],
        ]
    );
    let special = bert.special();
    assert_eq!(
        (special.pad, special.cls, special.sep, special.mask),
        (Some(0), Some(101), Some(102), Some(103))
    );
    assert_eq!((special.unk, special.bos, special.eos), (Some(100), None, None));
    assert_eq!((bert.pad_id(), bert.vocab_size()), (0, 30522));
    assert_eq!(bert.decode(&[101, 7592, 1010, 2088, 999, 102]).unwrap(), "hello, world!");
}

#[test]
fn truncation_keeps_special_tokens_and_counts_what_it_cut() {
    let Some(path) = shared("data/tokenizers/bert-base-uncased.tokenizer.json") else { return };
    let bert = Tokenizer::load(path).unwrap();
    let texts = ["one two three four five six seven eight", "one two"];
    let encoded = bert.encode_batch(&texts, None, &most(8)).unwrap();
    assert_eq!(encoded.rows[0].ids, [101, 2028, 2048, 2093, 2176, 2274, 2416, 102]);
    assert_eq!((encoded.rows[0].full_length, encoded.rows[0].is_cut()), (10, true));
    assert_eq!((encoded.rows[1].full_length, encoded.rows[1].is_cut()), (4, false));
    assert_eq!((encoded.cut, encoded.lengths()), (1, vec![8, 4]));
    assert_eq!(bert.encode_batch(&texts[1..], None, &most(4)).unwrap().cut, 0);
    let e = bert.encode_batch(&texts, None, &most(2)).unwrap_err();
    assert!(matches!(e, DataError::MaxLength { max_length: 2, special: 2 }), "{e}");
    let plain = EncodeOptions { plain: true, ..most(2) };
    assert_eq!(bert.encode_batch(&texts, None, &plain).unwrap().rows[0].ids, [2028, 2048]);
}

#[test]
fn pairs_are_told_apart_and_the_longer_text_is_cut() {
    let Some(path) = shared("data/tokenizers/bert-base-uncased.tokenizer.json") else { return };
    let bert = Tokenizer::load(path).unwrap();
    let encoded =
        bert.encode_batch(&["How are you?"], Some(&["I am fine."]), &EncodeOptions::default()).unwrap();
    assert_eq!(encoded.rows[0].ids, [101, 2129, 2024, 2017, 1029, 102, 1045, 2572, 2986, 1012, 102]);
    assert_eq!(encoded.rows[0].type_ids, [0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1]);
    let encoded = bert.encode_batch(&["one two three four five six"], Some(&["a b c"]), &most(8)).unwrap();
    assert_eq!(encoded.rows[0].ids, [101, 2028, 2048, 2093, 102, 1037, 1038, 102]);
    assert_eq!(encoded.rows[0].full_length, 12);
    assert!(matches!(bert.encode_batch(&["a"], Some(&[]), &most(8)), Err(DataError::PairCount { .. })));
}

#[test]
fn offsets_are_ranges_of_bytes() {
    let Some(path) = shared("data/tokenizers/bert-base-uncased.tokenizer.json") else { return };
    let bert = Tokenizer::load(path).unwrap();
    let with = EncodeOptions { offsets: true, ..Default::default() };
    let row = &bert.encode_batch(&["Café, hi"], None, &with).unwrap().rows[0];
    assert_eq!(row.offsets, [(0, 0), (0, 5), (5, 6), (7, 9), (0, 0)]);
    assert!(
        bert.encode_batch(&["Café"], None, &EncodeOptions::default()).unwrap().rows[0].offsets.is_empty()
    );
}

#[test]
fn byte_level_pairs_are_those_of_gpt2() {
    let Some(path) = shared("data/tokenizers/gpt2.tokenizer.json") else { return };
    let gpt2 = Tokenizer::load(path).unwrap();
    assert_eq!(
        ids(&gpt2, &TEXTS),
        [
            vec![15496, 11, 995, 0],
            vec![2437, 1290, 318, 340, 422, 10656, 284, 1081, 3617, 5633],
            vec![2616, 38776, 40304, 851, 10545, 251, 109, 12859, 105, 32485],
            vec![9099, 470, 220, 2245, 198],
        ]
    );
    let special = gpt2.special();
    assert_eq!((special.eos, special.pad, special.cls), (Some(50256), None, None));
    assert_eq!(gpt2.pad_id(), 50256);
    let pair =
        gpt2.encode_batch(&["How are you?"], Some(&["I am fine."]), &EncodeOptions::default()).unwrap();
    assert_eq!(pair.rows[0].ids, [2437, 389, 345, 30, 40, 716, 3734, 13]);
    assert_eq!(pair.rows[0].type_ids, [0, 0, 0, 0, 1, 1, 1, 1]);
}

#[test]
fn pairs_with_byte_fallback_are_those_of_llama() {
    let Some(path) = shared("models/stories260k/tokenizer.json") else { return };
    let llama = Tokenizer::load(path).unwrap();
    assert_eq!(
        ids(&llama, &TEXTS[2..]),
        [
            vec![
                1, 297, 412, 198, 178, 360, 280, 412, 431, 485, 410, 481, 410, 233, 160, 180, 231, 189, 175,
                410, 243, 162, 156, 133
            ],
            vec![1, 279, 289, 439, 413, 410, 349, 414, 427, 13],
        ]
    );
    assert_eq!((llama.special().bos, llama.special().eos), (Some(1), Some(2)));
}

#[test]
fn unigram_models_are_read() {
    let (_folder, path) = unigram();
    let tokenizer = Tokenizer::load(path).unwrap();
    assert_eq!(ids(&tokenizer, &["ab c abc zz"]), [[5, 4, 3, 5, 3, 4, 0]]);
    assert_eq!((tokenizer.id("▁ab"), tokenizer.token(3)), (Some(5), Some("c".to_owned())));
}

#[test]
fn special_tokens_are_taken_from_the_configuration_beside_the_tokenizer() {
    let (folder, path) = unigram();
    let config = r#"{"pad_token": "c", "cls_token": {"content": "▁a"}, "eos_token": null}"#;
    std::fs::write(folder.path().join("tokenizer_config.json"), config).unwrap();
    let special = Tokenizer::load(&path).unwrap().special();
    assert_eq!((special.pad, special.cls, special.eos, special.unk), (Some(3), Some(1), None, Some(0)));
    std::fs::write(folder.path().join("tokenizer_config.json"), "{").unwrap();
    assert!(matches!(Tokenizer::load(&path), Err(DataError::Tokenizer { .. })));
}

#[test]
fn broken_tokenizers_are_errors() {
    let (folder, path) = unigram();
    assert!(matches!(Tokenizer::load(folder.path().join("none.json")), Err(DataError::Io { .. })));
    let broken = [
        "",
        "{}",
        "[]",
        "null",
        &UNIGRAM[..UNIGRAM.len() / 2],
        &UNIGRAM.replace("\"unk_id\":0", "\"unk_id\":99"),
        &UNIGRAM.replace("\"Unigram\"", "\"Trigram\""),
        r#"{"version":"1.0","model":{"type":"BPE","vocab":{"a":0},"merges":["a b"]}}"#,
        r#"{"version":"9.0","model":{"type":"WordPiece","vocab":{}}}"#,
    ];
    for text in broken {
        std::fs::write(&path, text).unwrap();
        let e = Tokenizer::load(&path).unwrap_err();
        assert!(matches!(e, DataError::Tokenizer { .. }), "{text}: {e}");
        assert!(e.to_string().contains("tokenizer.json"), "{e}");
    }
}

#[test]
fn statistics_show_balance_and_lengths() {
    let (_folder, path) = unigram();
    let tokenizer = Tokenizer::load(path).unwrap();
    let texts = ["ab", "c", "ab c abc zz", "ab ab"];
    let encoded = tokenizer.encode_batch(&texts, None, &most(4)).unwrap();
    let stats = Stats::new(4, Some(&["x", "y", "y", "y"]), Some(&encoded.rows));
    let lengths = stats.lengths.unwrap();
    assert_eq!((lengths.p50, lengths.p95, lengths.max, lengths.truncated), (2, 7, 7, 1));
    assert_eq!((lengths.mean, lengths.truncated_share), (3.0, 0.25));
    assert_eq!(
        (stats.classes[0].label.as_str(), stats.classes[0].count, stats.classes[0].share),
        ("y", 3, 0.75)
    );
    let shown = "4 rows
tokens   mean 3.0   p50 2   p95 7   max 7   cut 1 (25.0 %)
label      rows    share
y             3   75.0 %  ▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪
x             1   25.0 %  ▪▪▪▪▪▪▪";
    assert_eq!(stats.to_string(), shown);
    let json = serde_json::to_value(&stats).unwrap();
    assert_eq!(json["classes"][1]["label"], "x");
    assert_eq!(json["lengths"]["p95"], 7);
    assert_eq!(Stats::new(0, None, Some(&[])).to_string(), "0 rows");
}

#[test]
fn banking77_is_read_and_grouping_pads_little() {
    let Some(path) = shared("data/text/banking77/train.csv") else { return };
    let Some(tokenizer) = shared("data/tokenizers/bert-base-uncased.tokenizer.json") else { return };
    let table = Table::read(path, &ReadOptions::default()).unwrap();
    let records = table.records(&Mapping::new().with("text", "text").with("label", "category")).unwrap();
    let texts = records.field("text").unwrap();
    assert_eq!(texts.len(), 10_003);
    let encoded = Tokenizer::load(tokenizer).unwrap().encode_batch(texts, None, &most(64)).unwrap();
    let stats = Stats::new(texts.len(), records.field("label"), Some(&encoded.rows));
    assert_eq!(stats.classes.len(), 77);
    assert!(stats.to_string().contains("and 57 more labels"), "{stats}");
    assert_eq!(stats.lengths.unwrap().truncated, encoded.cut);
    let waste = |order| Batches::new(&encoded.lengths(), 32, order, 0, 0).unwrap().padding().waste();
    println!("{stats}\npadding: random {:.3}, grouped {:.3}", waste(Order::Random), waste(Order::Grouped));
    assert!(waste(Order::Grouped) < 0.03 && waste(Order::Random) > 0.4);
}

#[test]
fn sts_is_read_and_pairs_without_a_score_are_refused() {
    let Some(train) = shared("data/text/sts2015/2015.train.tsv") else { return };
    let Some(test) = shared("data/text/sts2015/2015.test.tsv") else { return };
    let names = ["score", "text", "text2"].map(String::from).to_vec();
    let options = ReadOptions { columns: Some(names), ..Default::default() };
    let table = Table::read(&train, &options).unwrap();
    let scores = table.numbers("score").unwrap();
    assert_eq!(scores.len(), std::fs::read_to_string(&train).unwrap().lines().count());
    assert!(scores.iter().all(|s| (0.0..=5.0).contains(s)));
    let table = Table::read(&test, &options).unwrap();
    let e = table.records(&Mapping::new().with("score", "score")).unwrap_err();
    assert!(e.to_string().contains("2015.test.tsv:2: column `score` is empty"), "{e}");
}

#[test]
fn bbbp_is_read() {
    let Some(path) = shared("data/molecule/BBBP.csv") else { return };
    let table = Table::read(path, &ReadOptions::default()).unwrap();
    let records = table.records(&Mapping::new().with("text", "smiles").with("label", "p_np")).unwrap();
    let stats = Stats::new(records.len(), records.field("label"), None);
    assert_eq!(records.len(), 2050);
    assert_eq!(
        stats.classes.iter().map(|c| (c.label.as_str(), c.count)).collect::<Vec<_>>(),
        [("1", 1567), ("0", 483)]
    );
}
