//! The server's own numbers.

/// Counters of `/metrics`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Numbers {
    /// Texts that were answered.
    pub texts: f64,
    /// Tokens that were run, padding not included.
    pub tokens: f64,
    /// Padding that was run.
    pub padding: f64,
    /// Passes.
    pub batches: f64,
    /// Rows of all passes.
    pub rows: f64,
}

impl Numbers {
    /// Reads the text that Prometheus reads.
    pub(super) fn of(text: &str) -> Numbers {
        let get = |name: &str| {
            let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' '));
            line.and_then(|v| v.trim().parse().ok()).unwrap_or(0.0)
        };
        Numbers {
            texts: get("graft_texts_total"),
            tokens: get("graft_tokens_total"),
            padding: get("graft_padding_tokens_total"),
            batches: get("graft_batch_rows_count"),
            rows: get("graft_batch_rows_sum"),
        }
    }

    /// What came to it since then.
    pub(super) fn since(&self, before: &Numbers) -> Numbers {
        Numbers {
            texts: self.texts - before.texts,
            tokens: self.tokens - before.tokens,
            padding: self.padding - before.padding,
            batches: self.batches - before.batches,
            rows: self.rows - before.rows,
        }
    }

    /// The part of what was run that was padding.
    pub fn waste(&self) -> f64 {
        let all = self.tokens + self.padding;
        if all > 0.0 { self.padding / all } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_by_their_whole_names() {
        let text = "# HELP graft_tokens_total x\ngraft_tokens_total_x 9\ngraft_tokens_total 30\n\
                    graft_padding_tokens_total 10\ngraft_batch_rows_count 2\ngraft_batch_rows_sum 5\n";
        let numbers = Numbers::of(text);
        assert_eq!((numbers.tokens, numbers.rows, numbers.texts), (30.0, 5.0, 0.0));
        assert_eq!(numbers.waste(), 0.25);
        assert_eq!(numbers.since(&numbers).waste(), 0.0);
    }
}
