//! The tokens of a text, and which word each is a piece of.

use crate::wire;

/// A text with its tokens as the base sees them, special tokens included, in the order of the base's sequence axis
/// (padding stands behind them).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tokens {
    /// The text. Of a row of words, the words with a space between each two.
    pub text: String,
    /// One for each token.
    pub pieces: Vec<Piece>,
    /// Words of the row; truncation may have left some of them without a piece.
    pub words: usize,
}

/// A token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Piece {
    /// First byte in the text.
    pub start: usize,
    /// The byte behind the last.
    pub end: usize,
    /// The word that it is a piece of, from 0; none for special tokens.
    pub word: Option<usize>,
}

impl Tokens {
    /// The token that begins each word: its place on the sequence axis and the word, in the order of the tokens. Words
    /// without a token are left out.
    pub fn first_pieces(&self) -> Vec<(usize, usize)> {
        let mut last = None;
        let mut first = Vec::new();
        for (place, piece) in self.pieces.iter().enumerate() {
            if let Some(word) = piece.word
                && last.is_none_or(|l| word > l)
            {
                first.push((place, word));
                last = Some(word);
            }
        }
        first
    }

    /// The characters (Unicode scalar values, as Python counts them) in front of a byte of the text; a byte within a
    /// character counts as its first.
    pub fn characters(&self, byte: usize) -> usize {
        self.text.char_indices().take_while(|(at, c)| at + c.len_utf8() <= byte).count()
    }
}

impl From<wire::Tokens> for Tokens {
    fn from(t: wire::Tokens) -> Tokens {
        let size = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        let ends = t.starts.into_iter().zip(t.ends).zip(t.word_numbers);
        let piece = |((start, end), word): ((u64, u64), u64)| Piece {
            start: size(start),
            end: size(end),
            word: word.checked_sub(1).map(size),
        };
        Tokens { text: t.text, pieces: ends.map(piece).collect(), words: size(t.words) }
    }
}

impl From<&Tokens> for wire::Tokens {
    fn from(t: &Tokens) -> wire::Tokens {
        let each = |number: fn(&Piece) -> u64| t.pieces.iter().map(number).collect();
        wire::Tokens {
            text: t.text.clone(),
            starts: each(|p| p.start as u64),
            ends: each(|p| p.end as u64),
            word_numbers: each(|p| p.word.map_or(0, |w| w as u64 + 1)),
            words: t.words as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens() -> Tokens {
        let piece = |start, end, word| Piece { start, end, word };
        let pieces = vec![
            piece(0, 0, None),
            piece(0, 3, Some(0)),
            piece(3, 5, Some(0)),
            piece(6, 9, Some(2)),
            piece(0, 0, None),
        ];
        Tokens { text: "Zürich ab".into(), pieces, words: 4 }
    }

    #[test]
    fn tokens_cross_the_boundary_whole() {
        assert_eq!(Tokens::from(wire::Tokens::from(&tokens())), tokens());
    }

    #[test]
    fn the_first_piece_of_each_word_is_found() {
        assert_eq!(tokens().first_pieces(), [(1, 0), (3, 2)]);
    }

    #[test]
    fn positions_are_counted_in_characters() {
        let t = tokens();
        let found: Vec<usize> = [0, 1, 2, 3, 7, 99].map(|b| t.characters(b)).to_vec();
        assert_eq!(found, [0, 1, 1, 2, 6, 9]);
    }
}
