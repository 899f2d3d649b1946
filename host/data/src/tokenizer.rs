//! Texts to token ids, by a `tokenizer.json`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use tokenizers::utils::truncation::{
    TruncationDirection, TruncationParams, TruncationStrategy, truncate_encodings,
};
use tokenizers::{PostProcessor, Tokenizer as Inner};

use crate::error::DataError;
use crate::word_cache::WordCache;

/// A tokenizer file is refused above this size before it is parsed.
const MAX_FILE: u64 = 256 << 20;

/// Ids of the special tokens that the tokenizer knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Special {
    /// Padding.
    pub pad: Option<i64>,
    /// Stands before the text and for the whole of it.
    pub cls: Option<i64>,
    /// Separates and ends texts.
    pub sep: Option<i64>,
    /// A masked token.
    pub mask: Option<i64>,
    /// Begins a text.
    pub bos: Option<i64>,
    /// Ends a text.
    pub eos: Option<i64>,
    /// Stands for what the vocabulary lacks.
    pub unk: Option<i64>,
}

/// Options of [`Tokenizer::encode_batch`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EncodeOptions {
    /// The most tokens of a row, special tokens included; no limit if not given.
    pub max_length: Option<usize>,
    /// Whether to keep where in the text each token stands.
    pub offsets: bool,
    /// Leaves out the special tokens that the tokenizer adds.
    pub plain: bool,
}

/// The tokens of a row.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Encoding {
    /// Token ids.
    pub ids: Vec<i64>,
    /// For each token 0, or 1 for the second text of a pair, as the model's tokenizer has it.
    pub type_ids: Vec<i64>,
    /// For each token its range of bytes in the text, `(0, 0)` for special tokens; empty unless asked for.
    pub offsets: Vec<(usize, usize)>,
    /// For each token the word of the text that it is a piece of, as the tokenizer splits words; `None` for special
    /// tokens; empty unless offsets are asked for.
    pub words: Vec<Option<u32>>,
    /// Tokens before truncation, special tokens included.
    pub full_length: usize,
}

impl Encoding {
    /// True if truncation cut tokens off.
    pub fn is_cut(&self) -> bool {
        self.full_length > self.ids.len()
    }

    /// The same with `count` virtual tokens in front: each a copy of the first one, so that it is never padding; without
    /// a place in the text.
    #[must_use]
    pub fn behind_virtual(self, count: usize) -> Encoding {
        fn longer<T: Clone>(all: Vec<T>, of: Option<T>, count: usize) -> Vec<T> {
            let Some(of) = of.filter(|_| !all.is_empty()) else { return all };
            std::iter::repeat_n(of, count).chain(all).collect()
        }
        let first = self.ids.first().copied();
        Encoding {
            ids: longer(self.ids, first, count),
            type_ids: longer(self.type_ids, Some(0), count),
            offsets: longer(self.offsets, Some((0, 0)), count),
            words: longer(self.words, Some(None), count),
            full_length: self.full_length + count,
        }
    }
}

/// Encoded rows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Encoded {
    /// The rows in the order of the texts.
    pub rows: Vec<Encoding>,
    /// How many rows truncation cut.
    pub cut: usize,
}

impl Encoded {
    /// Lengths in tokens, for [`crate::Batches`].
    pub fn lengths(&self) -> Vec<usize> {
        self.rows.iter().map(|r| r.ids.len()).collect()
    }
}

/// A tokenizer read from a `tokenizer.json` as the package `tokenizers` writes it: WordPiece, BPE, byte-level BPE,
/// Unigram. Truncation and padding that the file asks for are ignored, except for the side of truncation.
pub struct Tokenizer {
    inner: Inner,
    words: Option<WordCache>,
    special: Special,
    direction: TruncationDirection,
    digest: String,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer").field("special", &self.special).field("digest", &self.digest).finish()
    }
}

impl Tokenizer {
    /// Reads a `tokenizer.json`. Special tokens are found by the names that a `tokenizer_config.json` beside it
    /// gives, else by the names in common use (`[PAD]`, `<pad>` …).
    ///
    /// # Errors
    /// [`DataError::Io`]; [`DataError::Tokenizer`] when the file is no tokenizer.
    pub fn load(path: impl AsRef<Path>) -> Result<Tokenizer, DataError> {
        let path = path.as_ref();
        let io = |source| DataError::Io { file: path.to_owned(), source };
        let size = std::fs::metadata(path).map_err(io)?.len();
        if size > MAX_FILE {
            return Err(broken(path, format!("it has {size} bytes, more than the limit of {MAX_FILE}")));
        }
        let bytes = std::fs::read(path).map_err(io)?;
        let parsed = catch_unwind(|| Inner::from_bytes(&bytes))
            .map_err(|_| broken(path, "its parts contradict each other".into()))?;
        let mut inner = parsed.map_err(|e| broken(path, e.to_string()))?;
        let direction = inner.get_truncation().map(|t| t.direction).unwrap_or_default();
        let pad = inner.get_padding().map(|p| i64::from(p.pad_id));
        inner.with_truncation(None).map_err(|e| broken(path, e.to_string()))?;
        inner.with_padding(None);
        let mut special = special(&inner, &named(path)?);
        special.pad = special.pad.or(pad);
        let digest = format!("blake3:{}", blake3::hash(&bytes).to_hex());
        let words = WordCache::of(&inner);
        Ok(Tokenizer { inner, words, special, direction, digest })
    }

    /// Ids of the special tokens.
    pub fn special(&self) -> Special {
        self.special
    }

    /// The id to pad with: that of the padding token, else the end of text, else 0. The mask hides it either way.
    pub fn pad_id(&self) -> i64 {
        self.special.pad.or(self.special.eos).unwrap_or(0)
    }

    /// Size of the vocabulary, added tokens included.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// `blake3:` and the hexadecimal digest of the file's bytes.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The id of a token.
    pub fn id(&self, token: &str) -> Option<i64> {
        self.inner.token_to_id(token).map(i64::from)
    }

    /// The token with an id.
    pub fn token(&self, id: i64) -> Option<String> {
        u32::try_from(id).ok().and_then(|id| self.inner.id_to_token(id))
    }

    /// The text of token ids, without special tokens.
    ///
    /// # Errors
    /// [`DataError::Encode`] for ids outside the range of ids.
    pub fn decode(&self, ids: &[i64]) -> Result<String, DataError> {
        let error = |message: String| DataError::Encode { row: 1, message };
        let ids: Result<Vec<u32>, _> = ids.iter().map(|i| u32::try_from(*i)).collect();
        let ids = ids.map_err(|_| error("a token id is negative or too large".into()))?;
        self.inner.decode(&ids, true).map_err(|e| error(e.to_string()))
    }

    /// Special tokens that are added to a text or to a pair.
    pub fn added_tokens(&self, pair: bool) -> usize {
        self.inner.get_post_processor().map_or(0, |p| p.added_tokens(pair))
    }

    /// Encodes texts, many in parallel, or pairs where `second` is given. Truncation keeps the special tokens; of a pair,
    /// the longer text is cut first.
    ///
    /// # Errors
    /// [`DataError::PairCount`], [`DataError::MaxLength`], and [`DataError::Encode`] for a text that the
    /// tokenizer refuses.
    pub fn encode_batch<S: AsRef<str> + Sync>(
        &self,
        texts: &[S],
        second: Option<&[S]>,
        options: &EncodeOptions,
    ) -> Result<Encoded, DataError> {
        if let Some(second) = second.filter(|s| s.len() != texts.len()) {
            return Err(DataError::PairCount { first: texts.len(), second: second.len() });
        }
        let special = if options.plain { 0 } else { self.added_tokens(second.is_some()) };
        if let Some(max_length) = options.max_length.filter(|m| *m <= special) {
            return Err(DataError::MaxLength { max_length, special });
        }
        let encode = |row: usize| {
            let pair = second.map(|s| s[row].as_ref());
            let one = || self.encode(texts[row].as_ref(), pair, options, special);
            let result = catch_unwind(AssertUnwindSafe(one));
            let result = result.unwrap_or_else(|_| Err("the tokenizer panicked".into()));
            result.map_err(|e| DataError::Encode { row: row + 1, message: e.to_string() })
        };
        let rows: Vec<Encoding> = match texts.len() {
            // To hand it to another thread and wait takes longer.
            1 => vec![encode(0)?],
            n => (0..n).into_par_iter().map(encode).collect::<Result<_, _>>()?,
        };
        let cut = rows.iter().filter(|r| r.is_cut()).count();
        Ok(Encoded { rows, cut })
    }

    fn encode(
        &self,
        text: &str,
        pair: Option<&str>,
        options: &EncodeOptions,
        special: usize,
    ) -> tokenizers::Result<Encoding> {
        let tokens = |text: &str| match &self.words {
            Some(words) => words.encode(&self.inner, text),
            None if options.offsets => self.inner.encode(text, false),
            None => self.inner.encode_fast(text, false),
        };
        let mut first = tokens(text)?;
        let mut second = pair.map(tokens).transpose()?;
        if let Some(second) = &mut second {
            second.set_type_ids(vec![1; second.len()]);
        }
        let full = first.len() + second.as_ref().map_or(0, |s| s.len());
        if let Some(max_length) = options.max_length.filter(|m| *m < full + special) {
            let params = TruncationParams {
                direction: self.direction,
                max_length: max_length - special,
                strategy: TruncationStrategy::LongestFirst,
                stride: 0,
            };
            (first, second) = truncate_encodings(first, second, &params)?;
            // What was cut off would be given special tokens too, in every combination for pairs.
            first.take_overflowing();
            second.as_mut().map(|s| s.take_overflowing());
        }
        let kept = first.len() + second.as_ref().map_or(0, |s| s.len());
        let done = self.inner.post_process(first, second, !options.plain)?;
        Ok(Encoding {
            ids: done.get_ids().iter().map(|i| i64::from(*i)).collect(),
            type_ids: done.get_type_ids().iter().map(|i| i64::from(*i)).collect(),
            offsets: if options.offsets { done.get_offsets().to_vec() } else { Vec::new() },
            words: if options.offsets { done.get_word_ids().to_vec() } else { Vec::new() },
            full_length: done.len() + full - kept,
        })
    }
}

fn broken(path: &Path, message: String) -> DataError {
    DataError::Tokenizer { file: path.to_owned(), message }
}

/// The names of special tokens in a `tokenizer_config.json` beside the tokenizer; empty without such a file.
fn named(path: &Path) -> Result<serde_json::Value, DataError> {
    let config: PathBuf = path.with_file_name("tokenizer_config.json");
    let Ok(meta) = std::fs::metadata(&config) else { return Ok(serde_json::Value::Null) };
    if meta.len() > MAX_FILE {
        return Err(broken(&config, "it is too large".into()));
    }
    let bytes = std::fs::read(&config).map_err(|source| DataError::Io { file: config.clone(), source })?;
    serde_json::from_slice(&bytes).map_err(|e| broken(&config, e.to_string()))
}

fn special(inner: &Inner, named: &serde_json::Value) -> Special {
    let find = |key: &str, common: &[&str]| {
        let entry = &named[key];
        let name = entry.as_str().or_else(|| entry["content"].as_str());
        let mut names = name.into_iter().chain(common.iter().copied());
        names.find_map(|n| inner.token_to_id(n)).map(i64::from)
    };
    Special {
        pad: find("pad_token", &["[PAD]", "<pad>", "<|pad|>", "<|finetune_right_pad_id|>"]),
        cls: find("cls_token", &["[CLS]"]),
        sep: find("sep_token", &["[SEP]"]),
        mask: find("mask_token", &["[MASK]", "<mask>"]),
        bos: find("bos_token", &["<s>", "<|begin_of_text|>", "<bos>"]),
        eos: find("eos_token", &["</s>", "<|endoftext|>", "<|end_of_text|>", "<eos>"]),
        unk: find("unk_token", &["[UNK]", "<unk>"]),
    }
}
