//! Which adapter and which texts a request has.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::DriveError;

/// Adapters with their shares, and texts.
#[derive(Debug, Clone)]
pub struct Mix {
    names: Vec<String>,
    /// Sums of the shares up to each adapter.
    sums: Vec<f64>,
    texts: Vec<String>,
}

/// Draws adapters, texts and pauses.
pub(super) struct Draw(ChaCha8Rng);

impl Draw {
    /// Each stream of a seed has numbers of its own.
    pub(super) fn new(seed: u64, stream: u64) -> Draw {
        let mut draw = ChaCha8Rng::seed_from_u64(seed);
        draw.set_stream(stream);
        Draw(draw)
    }

    /// From 0, and below 1.
    pub(super) fn part(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn below(&mut self, n: usize) -> usize {
        ((self.part() * n as f64) as usize).min(n.saturating_sub(1))
    }

    /// The pause until the next of arrivals that wait for nobody, `rate` a second.
    pub(super) fn pause(&mut self, rate: f64) -> f64 {
        -(1.0 - self.part()).ln() / rate
    }
}

impl Mix {
    /// Adapters that are asked as often as their shares say, and texts that are taken at random.
    ///
    /// # Errors
    /// No adapter, no text, a share that is not above 0.
    pub fn new(shares: Vec<(String, f64)>, texts: Vec<String>) -> Result<Mix, DriveError> {
        if shares.is_empty() {
            return Err(DriveError::Plan("there is no adapter to ask".into()));
        }
        if let Some((name, share)) = shares.iter().find(|(_, s)| !(s.is_finite() && *s > 0.0)) {
            return Err(DriveError::Plan(format!("'{name}' has a share of {share}; it has to be above 0")));
        }
        if texts.is_empty() {
            return Err(DriveError::Plan("there is no text to ask about".into()));
        }
        let sums = shares.iter().scan(0.0, |sum, (_, s)| {
            *sum += s;
            Some(*sum)
        });
        let sums = sums.collect();
        Ok(Mix { names: shares.into_iter().map(|(n, _)| n).collect(), sums, texts })
    }

    /// The adapters.
    pub fn adapters(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    pub(super) fn name(&self, adapter: usize) -> &str {
        &self.names[adapter]
    }

    pub(super) fn text(&self, n: usize) -> &str {
        &self.texts[n % self.texts.len()]
    }

    /// An adapter, by its place.
    pub(super) fn adapter(&self, draw: &mut Draw) -> usize {
        let at = draw.part() * self.sums.last().copied().unwrap_or_default();
        self.sums.partition_point(|sum| *sum <= at).min(self.names.len() - 1)
    }

    pub(super) fn texts(&self, draw: &mut Draw, rows: usize) -> Vec<&str> {
        (0..rows).map(|_| self.text(draw.below(self.texts.len()))).collect()
    }
}

/// A text for each line that is not blank.
pub fn of_lines(text: &str) -> Vec<String> {
    text.lines().map(str::trim).filter(|l| !l.is_empty()).map(str::to_owned).collect()
}

/// 1,000 texts of words, as many as `shortest` to `longest` each.
pub fn built_in(shortest: usize, longest: usize, seed: u64) -> Vec<String> {
    const WORDS: [&str; 24] = [
        "the", "of", "and", "to", "in", "is", "for", "that", "with", "from", "order", "price", "question",
        "answer", "city", "river", "music", "science", "doctor", "engine", "letter", "market", "weather",
        "history",
    ];
    let mut draw = Draw::new(seed, u64::MAX);
    let text = |_| {
        let words = shortest + draw.below(longest.saturating_sub(shortest) + 1);
        (0..words.max(1)).map(|_| WORDS[draw.below(WORDS.len())]).collect::<Vec<_>>().join(" ")
    };
    (0..1000).map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adapters_are_asked_as_often_as_their_shares_say() {
        let shares = vec![("a".to_owned(), 1.0), ("b".to_owned(), 3.0), ("c".to_owned(), 4.0)];
        let mix = Mix::new(shares, vec!["x".into()]).expect("a mix");
        let mut draw = Draw::new(7, 0);
        let mut counts = [0; 3];
        (0..8000).for_each(|_| counts[mix.adapter(&mut draw)] += 1);
        for (count, expected) in counts.iter().zip([1000i32, 3000, 4000]) {
            assert!((count - expected).abs() < 200, "{counts:?}");
        }
    }

    #[test]
    fn arrivals_come_at_the_rate_and_other_streams_have_other_ones() {
        let mut draw = Draw::new(7, 0);
        let sum: f64 = (0..10_000).map(|_| draw.pause(50.0)).sum();
        assert!((sum - 200.0).abs() < 10.0, "{sum}");
        assert_ne!(Draw::new(7, 1).part(), Draw::new(7, 2).part());
    }

    #[test]
    fn texts_have_as_many_words_as_asked_for() {
        let all = built_in(3, 5, 1);
        let words = |t: &String| t.split(' ').count();
        assert_eq!((all.iter().map(words).min(), all.iter().map(words).max()), (Some(3), Some(5)));
    }

    #[test]
    fn what_is_no_mix_is_refused() {
        let text = || vec!["x".to_owned()];
        assert!(Mix::new(vec![], text()).is_err());
        assert!(Mix::new(vec![("a".into(), 1.0)], vec![]).is_err());
        assert!(Mix::new(vec![("a".into(), 0.0)], text()).is_err());
        assert!(Mix::new(vec![("a".into(), f64::NAN)], text()).is_err());
    }
}
