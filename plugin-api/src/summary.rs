//! What an objective gets to know of its training data.

use crate::{Code, Error, Result, wire};

/// What the training data looks like.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Summary {
    /// Number of rows.
    pub rows: u64,
    /// For each label field its distinct values with the number of rows that have them.
    pub labels: Vec<(String, Vec<(String, u64)>)>,
    /// What is to be known of each field of numbers.
    pub numbers: Vec<(String, Numbers)>,
    /// Names of the fields that the data has, besides those of the kinds `TEXT` and `IMAGE`.
    pub fields: Vec<String>,
}

/// What is to be known of a column of numbers.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Numbers {
    /// Their mean.
    pub mean: f64,
    /// Their standard deviation, that of a population.
    pub deviation: f64,
    /// The smallest.
    pub low: f64,
    /// The largest.
    pub high: f64,
}

impl Numbers {
    /// Of these numbers; all 0 without any.
    pub fn of(numbers: &[f64]) -> Numbers {
        if numbers.is_empty() {
            return Numbers::default();
        }
        let n = numbers.len() as f64;
        let mean = numbers.iter().map(|x| x / n).sum::<f64>();
        let variance = numbers.iter().map(|x| (x - mean) * (x - mean) / n).sum::<f64>();
        Numbers {
            mean,
            deviation: variance.sqrt(),
            low: numbers.iter().copied().fold(f64::INFINITY, f64::min),
            high: numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        }
    }
}

fn lacking(field: &str) -> Error {
    Error::new(Code::DATA, format!("the data has no field `{field}`"))
}

impl Summary {
    /// The distinct values of a label field with their counts, in no particular order.
    ///
    /// # Errors
    /// `DATA` when the field was not counted.
    pub fn counts(&self, field: &str) -> Result<&[(String, u64)]> {
        let found = self.labels.iter().find(|(f, _)| f == field).map(|(_, c)| c.as_slice());
        found.ok_or_else(|| lacking(field))
    }

    /// What is known of a field of numbers.
    ///
    /// # Errors
    /// `DATA` when the data has no such field.
    pub fn numbers(&self, field: &str) -> Result<Numbers> {
        let found = self.numbers.iter().find(|(f, _)| f == field).map(|(_, n)| *n);
        found.ok_or_else(|| lacking(field))
    }

    /// Whether the data has a field.
    pub fn has(&self, field: &str) -> bool {
        self.fields.iter().any(|f| f == field)
    }
}

impl From<wire::Summary> for Summary {
    fn from(s: wire::Summary) -> Summary {
        let counts = |f: Vec<wire::Count>| f.into_iter().map(|c| (c.value, c.count)).collect();
        let numbers = |n: wire::NumberSummary| {
            let known = Numbers { mean: n.mean, deviation: n.deviation, low: n.low, high: n.high };
            (n.field, known)
        };
        Summary {
            rows: s.rows,
            labels: s.fields.into_iter().map(|f| (f.field, counts(f.counts))).collect(),
            numbers: s.numbers.into_iter().map(numbers).collect(),
            fields: s.present,
        }
    }
}

impl From<&Summary> for wire::Summary {
    fn from(s: &Summary) -> wire::Summary {
        let field = |(name, counts): &(String, Vec<(String, u64)>)| wire::FieldSummary {
            field: name.clone(),
            counts: counts.iter().map(|(v, n)| wire::Count { value: v.clone(), count: *n }).collect(),
        };
        let numbers = |(name, n): &(String, Numbers)| wire::NumberSummary {
            field: name.clone(),
            mean: n.mean,
            deviation: n.deviation,
            low: n.low,
            high: n.high,
        };
        wire::Summary {
            rows: s.rows,
            fields: s.labels.iter().map(field).collect(),
            numbers: s.numbers.iter().map(numbers).collect(),
            present: s.fields.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_survives_the_wire() {
        let s = Summary {
            rows: 3,
            labels: vec![("label".into(), vec![("a".into(), 2), ("b".into(), 1)])],
            numbers: vec![("target".into(), Numbers::of(&[1.0, 2.0, 6.0]))],
            fields: vec!["label".into(), "target".into()],
        };
        assert_eq!(Summary::from(wire::Summary::from(&s)), s);
        assert!(s.has("label") && !s.has("score"));
        assert!(s.counts("target").is_err() && s.numbers("label").is_err());
    }

    #[test]
    fn the_deviation_is_that_of_a_population() {
        let n = Numbers::of(&[1.0, 2.0, 6.0]);
        assert_eq!((n.mean, n.low, n.high), (3.0, 1.0, 6.0));
        assert!((n.deviation - (14.0f64 / 3.0).sqrt()).abs() < 1e-15);
        assert_eq!(Numbers::of(&[]), Numbers::default());
    }
}
