//! Tables, texts and images to batches.
//!
//! [`Table`] reads CSV, TSV, JSONL, CoNLL and Parquet into columns of strings that know the line of each row;
//! [`Mapping`] says which column is which field of an objective; [`Tokenizer`] turns texts into token ids;
//! [`Batches`] decides which rows meet in a batch and [`TextBatch`] pads them into tensors. [`Images`] are the pictures
//! that a column names, or that lie in a folder for each class, as a [`Preprocessor`] brings them to the base's size.
//! [`Stats`] is what is shown before training.
//!
//! Every bad row is an error that names file and line; nothing is skipped in silence. Whatever is random depends
//! on a seed alone and gives the same result on every platform.

mod batches;
mod conll;
mod delimited;
mod error;
mod fields;
mod images;
mod jsonl;
mod parquet_file;
mod read;
mod rng;
mod split;
mod stats;
mod table;
mod text_batch;
mod tokenizer;
mod word_cache;

pub use batches::{Batches, Order, Padding};
pub use error::{DataError, Place};
pub use fields::{Mapping, Records};
pub use images::{ImageSize, Images, Preprocessor};
pub use read::{Format, Limits, ReadOptions, digest_file};
pub use split::{Split, split};
pub use stats::{ClassCount, Lengths, NumberStats, Stats};
pub use table::{Column, Table};
pub use text_batch::{PadOptions, Side, TextBatch};
pub use tokenizer::{EncodeOptions, Encoded, Encoding, Special, Tokenizer};
