//! Sites whose paths differ in numbers alone, in one line.

use std::collections::BTreeSet;

use indexmap::IndexMap;

use super::report::{Heads, Site};

/// Sites of one pattern.
#[derive(Debug, PartialEq)]
pub struct Group {
    /// The path, `{0..5}` for a number that runs from 0 to 5.
    pub path: String,
    pub kind: &'static str,
    pub count: usize,
    pub in_features: usize,
    pub out_features: usize,
    /// Of all of them together.
    pub parameters: u64,
    /// The weights' name in the same way; the first one's and an ellipsis where they follow no pattern. Of attentions the
    /// heads.
    pub weight: String,
}

/// Groups `sites` that have the same kind, size and path up to its numbers, in the order of their first member; with
/// `each`, every site is a group.
pub fn groups(sites: &[Site], each: bool) -> Vec<Group> {
    let mut alike: IndexMap<_, Vec<&Site>> = IndexMap::new();
    for (i, s) in sites.iter().enumerate() {
        let key = (stencil(&s.path).0, s.kind, s.in_features, s.out_features, s.attention, each.then_some(i));
        alike.entry(key).or_default().push(s);
    }
    alike.into_values().map(|members| group(&members)).collect()
}

/// `paths` with a line for those that differ in numbers alone, in the order of their first member.
pub fn patterns(paths: &[&str]) -> Vec<String> {
    let mut alike: IndexMap<_, Vec<&str>> = IndexMap::new();
    paths.iter().for_each(|p| alike.entry(stencil(p).0).or_default().push(p));
    alike.into_values().filter_map(|members| pattern(&members)).collect()
}

fn group(members: &[&Site]) -> Group {
    let first = members[0];
    let names = |of: fn(&Site) -> &str| members.iter().map(|s| of(s)).collect::<Vec<_>>();
    Group {
        path: pattern(&names(|s| &s.path)).unwrap_or_else(|| first.path.clone()),
        kind: first.kind,
        count: members.len(),
        in_features: first.in_features,
        out_features: first.out_features,
        parameters: members.iter().fold(0, |n, s| n.saturating_add(s.parameters)),
        weight: match first.attention {
            Some(heads) => heads_text(&heads),
            None => pattern(&names(|s| &s.weight)).unwrap_or_else(|| format!("{}, …", first.weight)),
        },
    }
}

fn heads_text(h: &Heads) -> String {
    let shared = if h.kv_heads == h.heads { String::new() } else { format!(" over {} of keys", h.kv_heads) };
    format!("{} heads{shared}, {}", h.heads, if h.biased { "masked or biased" } else { "no mask" })
}

/// A path with its numbers taken out, and the numbers.
fn stencil(path: &str) -> (Vec<Option<&str>>, Vec<u32>) {
    let mut numbers = Vec::new();
    let mut parts = Vec::new();
    for part in path.split('.') {
        match part.parse::<u32>() {
            // `007` would come back as `7`.
            Ok(n) if n.to_string() == part => {
                numbers.push(n);
                parts.push(None);
            }
            _ => parts.push(Some(part)),
        }
    }
    (parts, numbers)
}

/// One text for all names: numbers that differ become `{0..5}` or `{0,2,7}`. None where the names differ otherwise.
fn pattern(names: &[&str]) -> Option<String> {
    let (parts, _) = stencil(names.first()?);
    let mut numbers: Vec<BTreeSet<u32>> = Vec::new();
    for name in names {
        let (own, found) = stencil(name);
        if own != parts {
            return None;
        }
        numbers.resize(found.len(), BTreeSet::new());
        for (n, set) in found.into_iter().zip(&mut numbers) {
            set.insert(n);
        }
    }
    let mut numbers = numbers.iter();
    let text = parts.iter().map(|p| match p {
        Some(word) => word.to_string(),
        None => numbers.next().map(spelled).unwrap_or_default(),
    });
    Some(text.collect::<Vec<_>>().join("."))
}

fn spelled(numbers: &BTreeSet<u32>) -> String {
    let (Some(first), Some(last)) = (numbers.first(), numbers.last()) else { return String::new() };
    let text: Vec<String> = numbers.iter().map(ToString::to_string).collect();
    match numbers.len() {
        1 => first.to_string(),
        n if n > 2 && (last - first) as usize == n - 1 => format!("{{{first}..{last}}}"),
        _ => format!("{{{}}}", text.join(",")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(path: &str, weight: &str, out_features: usize) -> Site {
        let (in_features, parameters) = (4, 4 * out_features as u64);
        Site {
            path: path.into(),
            kind: "linear",
            in_features,
            out_features,
            parameters,
            weight: weight.into(),
            bias: None,
            attention: None,
        }
    }

    #[test]
    fn numbered_layers_share_a_line() {
        let sites: Vec<Site> = (0..6)
            .map(|i| site(&format!("layer.{i}.query"), &format!("layer.{i}.query.weight"), 8))
            .collect();
        let one = &groups(&sites, false)[0];
        assert_eq!((one.path.as_str(), one.count, one.parameters), ("layer.{0..5}.query", 6, 192));
        assert_eq!(one.weight, "layer.{0..5}.query.weight");
        assert_eq!(groups(&sites, true).len(), 6);
        assert_eq!(groups(&sites, true)[3].path, "layer.3.query");
    }

    #[test]
    fn attentions_are_told_by_their_heads() {
        let heads = |kv_heads| Heads { heads: 4, kv_heads, head_dim: 8, value_dim: 8, biased: true };
        let core = |path: &str, kv_heads| Site {
            kind: "attention",
            attention: Some(heads(kv_heads)),
            ..site(path, "", 32)
        };
        let groups = groups(&[core("h.0.attn", 4), core("h.1.attn", 4), core("h.2.attn", 2)], false);
        let seen: Vec<_> = groups.iter().map(|g| (g.path.as_str(), g.weight.as_str())).collect();
        let grouped = "4 heads over 2 of keys, masked or biased";
        assert_eq!(seen, [("h.{0,1}.attn", "4 heads, masked or biased"), ("h.2.attn", grouped)]);
    }

    #[test]
    fn other_sizes_and_names_do_not() {
        let sites = [site("a.0", "x", 8), site("a.1", "y", 8), site("a.2", "z", 9), site("b.3", "u", 8)];
        let seen: Vec<_> = groups(&sites, false).into_iter().map(|g| (g.path, g.weight)).collect();
        let wanted = [("a.{0,1}", "x, …"), ("a.2", "z"), ("b.3", "u")];
        assert_eq!(seen, wanted.map(|(p, w)| (p.to_string(), w.to_string())));
    }

    #[test]
    fn several_numbers_and_gaps_are_spelled_out() {
        let names = ["e.0.x.1", "e.0.x.3", "e.1.x.3", "e.2.x.9"];
        assert_eq!(pattern(&names).as_deref(), Some("e.{0..2}.x.{1,3,9}"));
        assert_eq!(pattern(&["w", "w"]).as_deref(), Some("w"));
        assert_eq!(pattern(&["w.007"]).as_deref(), Some("w.007"));
        assert_eq!(pattern(&["w.1", "v.1"]), None);
        assert_eq!(pattern(&[]), None);
    }
}
