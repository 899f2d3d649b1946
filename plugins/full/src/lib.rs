//! Full fine-tuning: the base's own parameters are trained, all of them, those of chosen modules, or those of its top
//! layers.

use std::collections::{BTreeMap, BTreeSet};

use graft_plugin_api::*;

config! {
    /// Trains the base's own parameters from where they are.
    pub struct Full {
        /// Of which modules: a list of names or ends of paths, or a regular expression for the whole path. Without it of
        /// all modules.
        target_modules: Option<Names> = None,
        /// Which modules to leave out.
        exclude_modules: Option<Names> = None,
        /// Only the last so many numbered layers of the base, and what lies behind them.
        top_layers: Option<u64> = None,
    }
}

const KINDS: [SiteKind; 4] = [SiteKind::LINEAR, SiteKind::EMBEDDING, SiteKind::NORM, SiteKind::CONV];

impl Method for Full {
    const ID: &'static str = "full";
    const SUMMARY: &'static str = "trains the base's own parameters, all or those of chosen layers";

    fn check(&self) -> Result<()> {
        match (self.top_layers, &self.target_modules) {
            (Some(0), _) => fail!(CONFIG, "option `top_layers`: with 0 layers there is nothing to train"),
            (Some(_), Some(_)) => {
                fail!(
                    CONFIG,
                    "options `top_layers` and `target_modules` both say what to train; give one of them"
                )
            }
            _ => Ok(()),
        }
    }

    fn examples() -> Vec<(&'static str, Self)> {
        vec![
            ("every parameter", Self::default()),
            ("the last layer and what lies behind it", Self { top_layers: Some(1), ..Self::default() }),
        ]
    }

    fn apply(&self, g: &Graph<'_>) -> Result<()> {
        let all = g.sites()?;
        let targets = match (&self.target_modules, self.top_layers) {
            (Some(given), _) => given.clone(),
            (None, Some(count)) => top(&all, count)?,
            (None, None) => names_of(&all, |s| KINDS.contains(&s.kind)),
        };
        let exclude = self.exclude_modules.as_ref();
        let sites = g.select(&Selection { targets: Some(&targets), exclude, kinds: &KINDS })?;
        let parts = sites.iter().flat_map(|s| [s.weight.as_deref(), s.bias.as_deref()]).flatten();
        parts.into_iter().try_for_each(|p| g.train_base(p).map(drop))
    }
}

/// The modules of the last `count` numbered layers, and those behind them.
fn top(sites: &[Site], count: u64) -> Result<Names> {
    let stacks = stacks(sites);
    // In the order in which the graph enters them.
    let mut starts: Vec<usize> = Vec::new();
    let mut seen = BTreeSet::new();
    for (i, site) in sites.iter().enumerate().filter(|(_, s)| KINDS.contains(&s.kind)) {
        let layer = numbered(&site.path).find(|(stack, _)| stacks.contains(*stack));
        if layer.is_some_and(|l| seen.insert(l)) {
            starts.push(i);
        }
    }
    let first = usize::try_from(count).ok().and_then(|c| starts.len().checked_sub(c));
    let Some(start) = first.and_then(|f| starts.get(f)) else {
        return fail!(
            CONFIG,
            "option `top_layers`: {count} layers are wanted, the base has {}",
            starts.len()
        );
    };
    let top = sites[*start..].iter().filter(|s| KINDS.contains(&s.kind)).map(|s| s.path.clone());
    Ok(Names::List(top.collect::<BTreeSet<_>>().into_iter().collect()))
}

/// The paths of the lists that hold more than one numbered module.
fn stacks(sites: &[Site]) -> BTreeSet<&str> {
    let mut numbers: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (stack, number) in sites.iter().flat_map(|s| numbered(&s.path)) {
        numbers.entry(stack).or_default().insert(number);
    }
    numbers.into_iter().filter(|(_, n)| n.len() > 1).map(|(stack, _)| stack).collect()
}

/// Each number in a path, with what stands before it: `encoder.layer.1.output` → (`encoder.layer`, `1`).
fn numbered(path: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut at = 0;
    path.split('.').filter_map(move |segment| {
        let before = path.get(..at).unwrap_or_default();
        at += segment.len() + 1;
        let number = !segment.is_empty() && segment.bytes().all(|b| b.is_ascii_digit());
        number.then_some((before.strip_suffix('.').unwrap_or(before), segment))
    })
}

export_plugin! { id: "full", methods: [Full], objectives: [] }
