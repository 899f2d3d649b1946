//! Bringing the module paths of an adapter and of a base together.
//!
//! The same module is `bert.encoder.layer.0` to the one who trained a classifier, `encoder.layer.0` in the bare model
//! and `m.encoder.layer.0` in a file exported through a wrapper. The difference is always a prefix.

use indexmap::IndexMap;
use std::collections::{BTreeSet, HashSet};

/// How the paths of an adapter are found in a base.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alignment {
    /// What is taken away from the front of an adapter path; empty or without a final dot.
    pub adapter_prefix: String,
    /// What is put there instead.
    pub base_prefix: String,
    /// Adapter path → base path, in the order of the adapter.
    pub map: IndexMap<String, String>,
}

/// Why paths cannot be brought together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each message names its fields")]
pub enum AlignError {
    /// Some paths have no counterpart under any pair of prefixes.
    #[error("{} of {total} adapter modules are not in this base: {}", .unmatched.len(), listed(.unmatched))]
    NoMatch { total: usize, unmatched: Vec<(String, Option<String>)> },
    /// Several places of the base fit equally well.
    #[error("the adapter's modules fit several places of the base equally well: {}", .places.join(" or "))]
    Ambiguous { places: Vec<String> },
}

fn listed(unmatched: &[(String, Option<String>)]) -> String {
    let one = |(path, nearest): &(String, Option<String>)| match nearest {
        Some(n) => format!("`{path}` (nearest: `{n}`)"),
        None => format!("`{path}` (nothing like it)"),
    };
    let mut out = unmatched.iter().take(5).map(one).collect::<Vec<_>>().join(", ");
    if unmatched.len() > 5 {
        out.push_str(&format!(" and {} more", unmatched.len() - 5));
    }
    out
}

/// A prefix to strip from adapter paths and one to strip from base paths.
type Pair<'a> = (&'a str, &'a str);

/// Finds the pair of prefixes (one to strip from adapter paths, one from base paths) under which *all* adapter paths
/// are paths of the base. Of several the shortest counts: whole names that agree outweigh parts of them.
///
/// # Errors
/// [`AlignError::NoMatch`] lists the paths that the best pair leaves over with the nearest of the base;
/// [`AlignError::Ambiguous`] when two pairs equally short fit.
pub fn align(adapter: &[impl AsRef<str>], base: &[impl AsRef<str>]) -> Result<Alignment, AlignError> {
    let adapter: Vec<&str> = adapter.iter().map(AsRef::as_ref).collect();
    let base: Vec<&str> = base.iter().map(AsRef::as_ref).collect();
    let known: HashSet<&str> = base.iter().copied().collect();
    // Any pair that fits all paths fits the first one.
    let Some(first) = adapter.first() else {
        return Ok(Alignment {
            adapter_prefix: String::new(),
            base_prefix: String::new(),
            map: IndexMap::new(),
        });
    };
    let pairs: BTreeSet<(usize, Pair)> =
        base.iter().filter_map(|b| common_end(first, b)).map(|p| (size(p), p)).collect();
    let mut fitting: Vec<(usize, Pair)> = Vec::new();
    for (size, pair) in &pairs {
        if fitting.first().is_some_and(|f| f.0 < *size) {
            break;
        }
        if adapter.iter().all(|a| place(a, *pair).is_some_and(|p| known.contains(p.as_str()))) {
            fitting.push((*size, *pair));
        }
    }
    match fitting.as_slice() {
        [] => Err(no_match(&adapter, &base, &known, pairs.iter().map(|p| p.1))),
        [(_, pair)] => Ok(Alignment {
            adapter_prefix: pair.0.to_string(),
            base_prefix: pair.1.to_string(),
            map: adapter.iter().filter_map(|a| Some((a.to_string(), place(a, *pair)?))).collect(),
        }),
        several => Err(AlignError::Ambiguous {
            places: several.iter().filter_map(|(_, p)| place(first, *p)).map(|p| format!("`{p}`")).collect(),
        }),
    }
}

/// What is left of both paths when their longest common end (in whole segments) is taken away; `None` without one.
fn common_end<'a>(adapter: &'a str, base: &'a str) -> Option<Pair<'a>> {
    let common =
        adapter.rsplit('.').zip(base.rsplit('.')).take_while(|(a, b)| a == b).map(|(a, _)| a.len() + 1);
    let length = common.sum::<usize>();
    let front = |path: &'a str| &path[..path.len().saturating_sub(length)];
    (length > 0).then(|| (front(adapter), front(base)))
}

fn size(pair: Pair) -> usize {
    [pair.0, pair.1].iter().filter(|p| !p.is_empty()).map(|p| p.split('.').count()).sum()
}

/// The path with its prefix replaced; `None` if it has another prefix.
fn place(path: &str, (from, to): Pair) -> Option<String> {
    let rest = if from.is_empty() { path } else { path.strip_prefix(from)?.strip_prefix('.')? };
    Some(if to.is_empty() { rest.to_string() } else { format!("{to}.{rest}") })
}

fn no_match<'a>(
    adapter: &[&str],
    base: &[&str],
    known: &HashSet<&str>,
    pairs: impl Iterator<Item = Pair<'a>>,
) -> AlignError {
    let misses = |pair| -> Vec<&str> {
        let missing = |a: &&&str| !place(a, pair).is_some_and(|p| known.contains(p.as_str()));
        adapter.iter().filter(missing).copied().collect()
    };
    // Messages need no more than the most promising pairs: those that are shortest.
    let left = pairs.take(64).map(misses).min_by_key(Vec::len).unwrap_or_else(|| adapter.to_vec());
    let unmatched = left.iter().enumerate().map(|(i, a)| {
        let nearest = if i < 5 { nearest(a, base) } else { None };
        (a.to_string(), nearest)
    });
    AlignError::NoMatch { total: adapter.len(), unmatched: unmatched.collect() }
}

/// The base path with the longest common end, then the most segments in common.
fn nearest(path: &str, base: &[&str]) -> Option<String> {
    let segments: HashSet<&str> = path.split('.').collect();
    let score = |b: &str| {
        let end = path.rsplit('.').zip(b.rsplit('.')).take_while(|(x, y)| x == y).count();
        (b.split('.').filter(|s| segments.contains(s)).count(), end)
    };
    let best = base.iter().map(|b| (score(b), b)).filter(|(s, _)| s.0 > 0);
    best.max_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(a.1))).map(|(_, b)| b.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(prefix: &str, layers: std::ops::Range<usize>, modules: &[&str]) -> Vec<String> {
        layers
            .flat_map(|l| {
                modules.iter().map(move |m| format!("{prefix}encoder.layer.{l}.attention.self.{m}"))
            })
            .collect()
    }

    #[test]
    fn every_pair_of_usual_prefixes_is_found() {
        for from in ["", "bert.", "model.", "0.auto_model."] {
            for to in ["", "bert.", "m.", "model.", "0.auto_model."] {
                let base = paths(to, 0..3, &["query", "key", "value"]);
                let found = align(&paths(from, 0..3, &["query"]), &base).unwrap();
                assert_eq!(found.map[1], format!("{to}encoder.layer.1.attention.self.query"), "{from} {to}");
                assert_eq!(found.map.len(), 3);
            }
        }
    }

    #[test]
    fn one_layer_alone_is_not_mistaken_for_another() {
        let base = paths("m.", 0..12, &["query", "value"]);
        let found = align(&paths("bert.", 3..4, &["query", "value"]), &base).unwrap();
        assert_eq!((found.adapter_prefix.as_str(), found.base_prefix.as_str()), ("bert", "m"));
        assert_eq!(found.map[0], "m.encoder.layer.3.attention.self.query");
    }

    #[test]
    fn a_module_that_the_base_lacks_is_named_with_the_nearest() {
        let base = paths("m.", 0..2, &["query", "value"]);
        let e = align(&paths("bert.", 0..3, &["query"]), &base).unwrap_err();
        let AlignError::NoMatch { total: 3, unmatched } = &e else { panic!("{e}") };
        assert_eq!(unmatched.len(), 1);
        assert_eq!(unmatched[0].0, "bert.encoder.layer.2.attention.self.query");
        assert!(e.to_string().contains("nearest: `m.encoder.layer.0.attention.self.query`"), "{e}");
    }

    #[test]
    fn two_places_that_fit_equally_well_are_refused() {
        let base = ["encoder.block.0.q", "decoder.block.0.q"];
        let e = align(&["block.0.q"], &base).unwrap_err();
        assert!(matches!(&e, AlignError::Ambiguous { places } if places.len() == 2), "{e}");
        let side = align(&["t5.decoder.block.0.q"], &base).unwrap();
        assert_eq!(side.map[0], "decoder.block.0.q");
    }

    #[test]
    fn segments_are_never_cut() {
        let e = align(&["xquery"], &["query"]).unwrap_err();
        assert!(matches!(e, AlignError::NoMatch { .. }));
        assert!(align(&["a.query"], &["query"]).is_ok());
    }
}
