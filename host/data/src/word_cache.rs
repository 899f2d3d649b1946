//! The tokens of words that came before.

use std::sync::Arc;

use quick_cache::sync::Cache;
use tokenizers::normalizers::NormalizerWrapper;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::{Encoding, ModelWrapper, Result, Tokenizer};

/// Most words that are kept, some 3 MB of them; of more, those stay that come again.
const MOST: usize = 1 << 14;
/// Longest word that is kept, in bytes; longer ones hardly come again.
const LONGEST: usize = 32;

/// A token of a word between spaces.
#[derive(Clone, Copy)]
struct Token {
    id: u32,
    /// Where it stands in the word, in bytes.
    offsets: (usize, usize),
    /// Which one of what the tokenizer itself makes of the word ("don't" is three).
    part: u32,
}

/// The tokens of words between spaces, for a tokenizer as BERT's, whose words don't depend on their neighbours: it
/// changes characters one by one, splits at whitespace and looks pieces up within a word. Most words of a text came before,
/// and to find one is much quicker than to tokenise it.
pub(crate) struct WordCache {
    words: Cache<Box<str>, Arc<[Token]>>,
    /// Added tokens that take in the spaces beside them.
    greedy: Vec<String>,
}

impl WordCache {
    /// `None` for a tokenizer whose words may depend on their neighbours.
    pub(crate) fn of(inner: &Tokenizer) -> Option<WordCache> {
        let bert = matches!(inner.get_normalizer(), Some(NormalizerWrapper::BertNormalizer(_)))
            && matches!(inner.get_pre_tokenizer(), Some(PreTokenizerWrapper::BertPreTokenizer(_)))
            && matches!(inner.get_model(), ModelWrapper::WordPiece(_));
        if !bert {
            return None;
        }
        let mut greedy = Vec::new();
        for token in inner.get_added_tokens_decoder().values() {
            let spaces = token.lstrip || token.rstrip;
            // With a space within it would be found across words.
            if !token.content.bytes().all(|b| b.is_ascii_graphic()) || spaces && token.normalized {
                return None;
            }
            greedy.extend(spaces.then(|| token.content.clone()));
        }
        Some(WordCache { words: Cache::new(MOST), greedy })
    }

    /// The tokens of a text, without special tokens and their spelling; `inner` is the tokenizer that this is of.
    pub(crate) fn encode(&self, inner: &Tokenizer, text: &str) -> Result<Encoding> {
        if self.greedy.iter().any(|token| text.contains(token)) {
            return inner.encode(text, false);
        }
        let most = text.len() / 4;
        let (mut ids, mut offsets, mut words) =
            (Vec::with_capacity(most), Vec::with_capacity(most), Vec::with_capacity(most));
        let (mut start, mut before) = (0, 0);
        for word in text.split(' ') {
            let tokens = self.tokens(inner, word)?;
            for token in tokens.iter() {
                let (from, to) = token.offsets;
                ids.push(token.id);
                offsets.push((start + from, start + to));
                words.push(Some(before + token.part));
            }
            start += word.len() + 1;
            before += tokens.last().map_or(0, |last| last.part + 1);
        }
        let n = ids.len();
        let (zeros, ones, spelling) = (|| vec![0; n], vec![1; n], vec![String::new(); n]);
        Ok(Encoding::new(
            ids,
            zeros(),
            spelling,
            words,
            offsets,
            zeros(),
            ones,
            Vec::new(),
            Default::default(),
        ))
    }

    fn tokens(&self, inner: &Tokenizer, word: &str) -> Result<Arc<[Token]>> {
        if let Some(tokens) = self.words.get(word) {
            return Ok(tokens);
        }
        let made = inner.encode(word, false)?;
        let each = made.get_ids().iter().zip(made.get_offsets()).zip(made.get_word_ids());
        let tokens: Arc<[Token]> = each
            .map(|((id, offsets), part)| Token { id: *id, offsets: *offsets, part: part.unwrap_or(0) })
            .collect();
        if word.len() <= LONGEST {
            self.words.insert(word.into(), Arc::clone(&tokens));
        }
        Ok(tokens)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// BERT's rules over a small vocabulary with an added token of each kind.
    fn bert(special: &str, greedy: bool) -> Tokenizer {
        let mut vocab =
            serde_json::json!({"[UNK]": 0, "a": 1, "##b": 2, "ab": 3, "e": 4, ".": 5, "東": 6, "##a": 7});
        vocab[special] = 8.into();
        let added = serde_json::json!([
            {"id": 8, "content": special, "single_word": false, "lstrip": greedy, "rstrip": false, "normalized": false,
             "special": true},
            {"id": 9, "content": "<x>", "single_word": true, "lstrip": false, "rstrip": false, "normalized": true,
             "special": false}]);
        let file = serde_json::json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
            "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                           "strip_accents": null, "lowercase": true},
            "pre_tokenizer": {"type": "BertPreTokenizer"}, "post_processor": null, "decoder": null,
            "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                      "max_input_chars_per_word": 5, "vocab": vocab}});
        file.to_string().parse().expect("a tokenizer")
    }

    proptest! {
        #[test]
        fn tokens_are_those_of_the_whole_text(
            greedy: bool,
            parts in prop::collection::vec(
                prop_oneof![
                    Just(" ".to_owned()), Just("[MASK]".to_owned()), Just("<x>".to_owned()), Just("ab".to_owned()),
                    "[aAbéΣ.東\t\u{301}\u{0}\u{a0}\u{3000} ]{0,4}", "\\PC{0,3}",
                ],
                0..30,
            ),
        ) {
            let (tokenizer, text) = (bert("[MASK]", greedy), parts.concat());
            let cache = WordCache::of(&tokenizer).expect("BERT's rules");
            let whole = tokenizer.encode(text.as_str(), false).expect("tokens");
            for _ in ["new words", "known words"] {
                let made = cache.encode(&tokenizer, &text).expect("tokens");
                prop_assert_eq!(made.get_ids(), whole.get_ids());
                prop_assert_eq!(made.get_offsets(), whole.get_offsets());
                prop_assert_eq!(made.get_word_ids(), whole.get_word_ids());
                prop_assert_eq!(made.get_type_ids(), whole.get_type_ids());
                prop_assert_eq!(made.get_attention_mask(), whole.get_attention_mask());
            }
        }
    }

    #[test]
    fn tokenizers_of_other_rules_have_none() {
        assert!(WordCache::of(&bert("[MASK]", false)).is_some());
        assert!(WordCache::of(&bert("[MASK IT]", false)).is_none());
        let mut lower = bert("[MASK]", false);
        lower.with_normalizer(Some(tokenizers::normalizers::Lowercase)).expect("a normalizer");
        assert!(WordCache::of(&lower).is_none());
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let tokenizer = bert("[MASK]", false);
        let cache = WordCache::of(&tokenizer).expect("BERT's rules");
        for n in 0..2 * MOST {
            cache.encode(&tokenizer, &format!("{n}")).expect("tokens");
        }
        cache.encode(&tokenizer, &"a".repeat(LONGEST + 1)).expect("tokens");
        assert!(cache.words.len() > MOST / 2 && cache.words.len() <= MOST, "{}", cache.words.len());
        assert!(cache.words.get("a".repeat(LONGEST + 1).as_str()).is_none());
    }
}
