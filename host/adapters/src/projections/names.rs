//! What fused and split projections are called.

use std::collections::HashSet;

/// Split projections in the order of their rows in a fused one.
const QUERY_KEY_VALUE: &[&[&str]] = &[
    &["q_proj", "k_proj", "v_proj"],
    &["query", "key", "value"],
    &["q_lin", "k_lin", "v_lin"],
    &["query_proj", "key_proj", "value_proj"],
    &["to_q", "to_k", "to_v"],
    &["q", "k", "v"],
];
const GATE_UP: &[&[&str]] = &[&["gate_proj", "up_proj"]];

/// Names of split projections, and of fused ones that have the same rows.
const KINDS: [(&[&[&str]], &[&str]); 2] = [
    (QUERY_KEY_VALUE, &["c_attn", "qkv_proj", "qkv", "Wqkv", "W_pack", "query_key_value"]),
    (GATE_UP, &["gate_up_proj"]),
];

/// One kind of projection that the adapter has in one way and the base in the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Change {
    /// The split modules' names, in the order of their rows.
    pub(super) split: &'static [&'static str],
    /// The fused module's name.
    pub(super) fused: &'static str,
    /// Whether it is the base that has them fused.
    pub(super) fuses: bool,
}

impl Change {
    /// Whether it is about the adapter's modules of this name.
    pub(super) fn reads(&self, name: &str) -> bool {
        if self.fuses { self.split.contains(&name) } else { self.fused == name }
    }
}

/// What must change for an adapter with modules of these paths to have a base's names.
pub(super) fn changes(adapter: &[&str], base: &[String]) -> Vec<Change> {
    let last = |path: &'_ str| path.rsplit('.').next().unwrap_or_default().to_string();
    let mine: HashSet<String> = adapter.iter().map(|p| last(p)).collect();
    let theirs: HashSet<String> = base.iter().map(|p| last(p)).collect();
    let mut out = Vec::new();
    for (splits, fusions) in KINDS {
        for split in splits {
            let has = |names: &HashSet<String>, n: &&&str| names.contains(**n);
            let (any, all) = (split.iter().any(|n| has(&mine, &n)), split.iter().all(|n| has(&theirs, &n)));
            let none = !split.iter().any(|n| has(&theirs, &n));
            for fused in fusions {
                let (fuses, splits) = (theirs.contains(*fused), mine.contains(*fused));
                if any && none && fuses {
                    out.push(Change { split, fused, fuses: true });
                } else if all && splits && !fuses {
                    out.push(Change { split, fused, fuses: false });
                }
            }
        }
    }
    out
}

/// Why the rows of a fused layer of this name can't be told apart by it.
pub(super) fn interleaved(fused: &str) -> Option<&'static str> {
    (fused == "query_key_value").then_some(
        "in some architectures each head has its queries, keys and values together in `query_key_value`, and nothing \
         in the adapter says whether these do",
    )
}
