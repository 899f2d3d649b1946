//! Sites and how patterns choose among them. The rules are those of Hugging Face PEFT
//! (`check_target_module_exists`, `_maybe_include_all_linear_layers`).

use std::collections::{BTreeSet, HashSet};

use regex::Regex;

use crate::config::{Names, nearest};
use crate::{Code, Error, Graph, Result, Value, wire};

/// What kind of module a site is. Crosses as a number, so that more can be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SiteKind(pub u32);

impl SiteKind {
    /// A dense layer.
    pub const LINEAR: SiteKind = SiteKind(1);
    /// A table that is looked up.
    pub const EMBEDDING: SiteKind = SiteKind(2);
    /// A normalisation.
    pub const NORM: SiteKind = SiteKind(3);
    /// A convolution.
    pub const CONV: SiteKind = SiteKind(4);
    /// The core of an attention layer.
    pub const ATTENTION: SiteKind = SiteKind(5);
    /// A residual connection around a part of a layer.
    pub const RESIDUAL: SiteKind = SiteKind(6);

    /// The name used in messages.
    pub fn name(self) -> &'static str {
        match self {
            SiteKind::LINEAR => "linear",
            SiteKind::EMBEDDING => "embedding",
            SiteKind::NORM => "norm",
            SiteKind::CONV => "conv",
            SiteKind::ATTENTION => "attention",
            SiteKind::RESIDUAL => "residual",
            _ => "other",
        }
    }

    /// Whether such a site is a module of the base, with weights that PEFT can name.
    fn is_module(self) -> bool {
        ![SiteKind::ATTENTION, SiteKind::RESIDUAL].contains(&self)
    }
}

/// A named module of the base.
#[derive(Debug, Clone, PartialEq)]
pub struct Site {
    /// Path, such as `encoder.layer.0.attention.self.query`.
    pub path: String,
    /// Kind.
    pub kind: SiteKind,
    /// What enters it.
    pub input: Option<Value>,
    /// What leaves it, behind the bias.
    pub output: Option<Value>,
    /// Name of the weight's initializer.
    pub weight: Option<String>,
    /// Name of the bias' initializer.
    pub bias: Option<String>,
    /// Width of the input, 0 when it has none.
    pub in_features: u64,
    /// Width of the output, 0 when it has none.
    pub out_features: u64,
    /// True when the weight lies as `[in, out]`, false for PyTorch's `[out, in]`.
    pub transposed: bool,
    /// The host's number for this use of the module: one that is called twice is two sites of one path.
    pub number: u32,
    /// How a convolution's kernel moves; `None` for other kinds.
    pub conv: Option<wire::Conv>,
    /// What meets in an attention; `None` for other kinds.
    pub attention: Option<Attention>,
    /// What a residual connection goes around; `None` for other kinds.
    pub residual: Option<Residual>,
}

/// A part of a layer that has a residual connection around it. Crosses as a number, so that more can be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sublayer(pub u32);

impl Sublayer {
    /// The sequence attends to itself.
    pub const ATTENTION: Sublayer = Sublayer(1);
    /// It attends to another one.
    pub const CROSS_ATTENTION: Sublayer = Sublayer(2);
    /// The feed-forward layers.
    pub const FEED_FORWARD: Sublayer = Sublayer(3);
}

/// A residual connection: `sum = branch + stream`. The site's input is the stream, which goes around, its output the
/// branch, as the part's last linear layer gives it; its path is that of the module which holds this layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Residual {
    /// What it goes around.
    pub sublayer: Sublayer,
    /// Number of the norm site that the whole sum passes before anything else reads it, as in the layers of BERT;
    /// `None` where norms stand in front of the parts instead.
    pub norm: Option<u32>,
}

/// What meets in an attention module: `softmax(scale·query·keyᵀ + bias)·value`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attention {
    /// Queries `[batch, heads, queries, head_dim]` as they enter the scores: behind rotary positions.
    pub query: Value,
    /// Keys `[batch, kv_heads, keys, head_dim]` as they enter the scores, one for each head of keys.
    pub key: Value,
    /// Values `[batch, kv_heads, keys, value_dim]`.
    pub value: Value,
    /// What is added to the scaled scores and broadcasts to `[batch, heads, queries, keys]`: masks, causal ones too, and
    /// biases of positions.
    pub bias: Option<Value>,
    /// Heads of queries.
    pub heads: u64,
    /// Heads of keys and values; a divisor of `heads`.
    pub kv_heads: u64,
    /// Width of a head of queries and keys.
    pub head_dim: u64,
    /// Width of a head of values.
    pub value_dim: u64,
}

impl From<wire::Attention> for Attention {
    fn from(a: wire::Attention) -> Attention {
        Attention {
            query: Value(a.query),
            key: Value(a.key),
            value: Value(a.value),
            bias: (a.bias != 0).then_some(Value(a.bias)),
            heads: a.heads,
            kv_heads: a.kv_heads,
            head_dim: a.head_dim,
            value_dim: a.value_dim,
        }
    }
}

impl Site {
    /// What enters the site.
    ///
    /// # Errors
    /// `REFUSED` when the host found none.
    #[track_caller]
    pub fn input(&self) -> Result<Value> {
        self.have(self.input, "input")
    }

    /// What leaves the site.
    ///
    /// # Errors
    /// `REFUSED` when the host found none.
    #[track_caller]
    pub fn output(&self) -> Result<Value> {
        self.have(self.output, "output")
    }

    /// How the kernel moves.
    ///
    /// # Errors
    /// `REFUSED` for what is no convolution.
    #[track_caller]
    pub fn conv(&self) -> Result<&wire::Conv> {
        self.have(self.conv.as_ref(), "kernel")
    }

    /// What meets in the attention.
    ///
    /// # Errors
    /// `REFUSED` for what is no attention.
    #[track_caller]
    pub fn attention(&self) -> Result<&Attention> {
        self.have(self.attention.as_ref(), "keys and values")
    }

    /// What the residual connection goes around.
    ///
    /// # Errors
    /// `REFUSED` for what is no residual connection.
    #[track_caller]
    pub fn residual(&self) -> Result<&Residual> {
        self.have(self.residual.as_ref(), "residual connection")
    }

    #[track_caller]
    fn have<T>(&self, found: Option<T>, what: &str) -> Result<T> {
        let Some(found) = found else {
            let e = crate::fail!(REFUSED, "the {} site has no {what}", self.kind.name());
            return e.map_err(|e| e.at(&self.path));
        };
        Ok(found)
    }
}

impl From<wire::Site> for Site {
    fn from(s: wire::Site) -> Site {
        let value = |id: u64| (id != 0).then_some(Value(id));
        let text = |t: String| (!t.is_empty()).then_some(t);
        Site {
            path: s.path,
            kind: SiteKind(s.kind),
            input: value(s.input),
            output: value(s.output),
            weight: text(s.weight),
            bias: text(s.bias),
            in_features: s.in_features,
            out_features: s.out_features,
            transposed: s.transposed,
            number: s.number,
            conv: s.conv,
            attention: s.attention.map(Attention::from),
            residual: s
                .residual
                .map(|r| Residual { sublayer: Sublayer(r.sublayer), norm: (r.norm != 0).then_some(r.norm) }),
        }
    }
}

/// Which sites a method works on.
#[derive(Debug, Clone, Copy)]
pub struct Selection<'a> {
    /// What to take; without it what PEFT takes for the architecture ([`default_targets`]).
    pub targets: Option<&'a Names>,
    /// What to leave out of that.
    pub exclude: Option<&'a Names>,
    /// The kinds that the method can work on.
    pub kinds: &'a [SiteKind],
}

impl Graph<'_> {
    /// The sites of a selection, in graph order. The host is told what was taken and what was left.
    ///
    /// # Errors
    /// `NO_SITE` when nothing matches, with the nearest paths; `CONFIG` for a pattern that is no regular expression;
    /// `UNSUPPORTED` when a site of another kind matches.
    #[track_caller]
    pub fn select(&self, selection: &Selection<'_>) -> Result<Vec<Site>> {
        let sites = self.sites()?;
        let default = default_words(&sites, selection.kinds);
        let (matched, unmatched): (Vec<_>, Vec<_>) = {
            let taken = choose(&sites, selection)?;
            sites.into_iter().zip(taken).partition(|(_, t)| *t)
        };
        let targets = selection.targets.map_or_else(|| default, ToString::to_string);
        self.report_matched(wire::Matched {
            matched: modules(&matched, selection),
            unmatched: modules(&unmatched, selection),
            pattern: targets,
        })?;
        Ok(matched.into_iter().map(|(s, _)| s).collect())
    }
}

impl Graph<'_> {
    /// Tells the host which sites were taken, for a method that chooses them itself; `rule` says how, in words.
    ///
    /// # Errors
    /// Only if the host is of another version.
    #[track_caller]
    pub fn report(&self, taken: &[Site], rule: &str) -> Result<()> {
        let mut seen = HashSet::new();
        let paths = taken.iter().filter(|s| seen.insert(s.path.as_str())).map(|s| s.path.clone());
        let matched = paths.collect();
        self.report_matched(wire::Matched { matched, unmatched: Vec::new(), pattern: rule.to_owned() })
    }
}

/// The paths of sites of the selection's kinds, each once however often its module is called.
fn modules(sites: &[(Site, bool)], selection: &Selection<'_>) -> Vec<String> {
    let mut seen = HashSet::new();
    let fits = |s: &&Site| selection.kinds.contains(&s.kind) && seen.insert(s.path.clone());
    sites.iter().map(|(s, _)| s).filter(fits).map(|s| s.path.clone()).collect()
}

/// For each site, whether the selection takes it.
///
/// # Errors
/// As [`Graph::select`].
pub fn choose(sites: &[Site], selection: &Selection<'_>) -> Result<Vec<bool>> {
    let default = selection.targets.is_none().then(|| default_targets(sites, selection.kinds));
    let targets = selection.targets.or(default.as_ref());
    let include = Matcher::new(targets)?;
    let exclude = Matcher::new(selection.exclude)?;
    // Cores of attentions and residual connections have no weights and are no modules to PEFT: only methods that ask
    // for them get them.
    let offered = |s: &Site| s.kind.is_module() || selection.kinds.contains(&s.kind);
    let takes = |s: &Site| offered(s) && include.takes(s) && !exclude.takes(s);
    let taken: Vec<bool> = sites.iter().map(takes).collect();
    let other_kind = sites.iter().zip(&taken).find(|(s, t)| **t && !selection.kinds.contains(&s.kind));
    if let Some((site, _)) = other_kind {
        let kinds: Vec<_> = selection.kinds.iter().map(|k| k.name()).collect();
        let e = Error::new(Code::UNSUPPORTED, format!("`{}` is a {} site", site.path, site.kind.name()))
            .help(format!("this method works on {}; name other modules or exclude it", kinds.join(", ")));
        return Err(e);
    }
    if taken.iter().any(|t| *t) { Ok(taken) } else { Err(nothing_matches(sites, selection, targets)) }
}

/// For each site, whether `names` take it, though they may take none.
///
/// # Errors
/// `CONFIG` for a pattern that is no regular expression.
pub fn matching(sites: &[Site], names: &Names) -> Result<Vec<bool>> {
    let names = Matcher::new(Some(names))?;
    Ok(sites.iter().map(|s| names.takes(s)).collect())
}

/// Whether the end of a path, in whole segments, matches a regular expression, as PEFT asks it of the keys of
/// `rank_pattern` and `alpha_pattern`.
///
/// # Errors
/// `CONFIG` for a pattern that is no regular expression.
pub fn matches_end(path: &str, pattern: &str) -> Result<bool> {
    Ok(regular(&format!(r"(?:.*\.)?(?:{pattern})"), pattern)?.is_match(path))
}

/// A regular expression for a whole path.
fn regular(whole: &str, pattern: &str) -> Result<Regex> {
    Regex::new(&format!(r"\A(?:{whole})\z")).map_err(|e| {
        Error::new(Code::CONFIG, format!("`{pattern}` is not a regular expression: {e}"))
            .help("look-around and back references are not supported; a list of names may do")
    })
}

/// Names for exactly the wanted modules: the last parts of their paths, or whole paths where those would take others.
pub fn names_of(sites: &[Site], wanted: impl Fn(&Site) -> bool) -> Names {
    let modules = || sites.iter().filter(|s| s.kind.is_module());
    let names = |name: fn(&str) -> &str| {
        let list: BTreeSet<&str> = modules().filter(|s| wanted(s)).map(|s| name(&s.path)).collect();
        list.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let ends = names(|path| tail(path, 1));
    let takes_others = modules().any(|s| !wanted(s) && Matcher::List(&ends).takes(s));
    Names::List(if takes_others { names(|path| path) } else { ends })
}

fn nothing_matches(sites: &[Site], selection: &Selection<'_>, targets: Option<&Names>) -> Error {
    let paths = || sites.iter().filter(|s| selection.kinds.contains(&s.kind)).map(|s| s.path.as_str());
    let wanted: Vec<&str> = match targets {
        Some(Names::List(l)) => l.iter().map(String::as_str).collect(),
        Some(Names::Pattern(p)) => vec![p.as_str()],
        None => Vec::new(),
    };
    // Names are compared with the last parts of paths, of as many parts as the name has.
    let mut ends: Vec<&str> = Vec::new();
    for name in &wanted {
        let parts = name.split('.').count();
        ends.extend(nearest(name, paths().map(|p| tail(p, parts)), 3));
    }
    let mut near: Vec<&str> = ends.iter().filter_map(|e| paths().find(|p| p.ends_with(e))).collect();
    near.dedup();
    if near.is_empty() {
        near = paths().take(5).collect();
    }
    let what = targets.map_or("nothing".to_owned(), ToString::to_string);
    let but = selection.exclude.map(|e| format!(" without {e}")).unwrap_or_default();
    let help = if near.is_empty() {
        "the base has no site of a kind that this method works on; `graft inspect` lists its sites".to_owned()
    } else {
        format!("the nearest are {}", near.join(", "))
    };
    Error::new(Code::NO_SITE, format!("no site matches {what}{but}")).help(help)
}

fn tail(path: &str, parts: usize) -> &str {
    let cut = path.rmatch_indices('.').nth(parts.saturating_sub(1)).map_or(0, |(i, _)| i + 1);
    path.get(cut..).unwrap_or(path)
}

/// Names of queries and values, or of the one layer that gives both, as architectures have them: the first row counts of
/// which all names are there. They are PEFT's (`TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING`), and `q_lin` and
/// `qkv` of DistilBERT and of image transformers, which it lacks.
const CUSTOMARY: [&[&str]; 11] = [
    &["query", "value"],
    &["query_proj", "value_proj"],
    &["q_proj", "v_proj"],
    &["q_lin", "v_lin"],
    &["query_key_value"],
    &["qkv_proj"],
    &["Wqkv"],
    &["qkv"],
    &["c_attn"],
    &["in_proj"],
    &["q", "v"],
];

/// What is taken of modules of `kinds` when no target is named: queries and values by the names that the architecture
/// has. Where a base has none of them: if it is made of convolutions, each of these but the first, which reads the input
/// itself, and but those of groups or with dilations; otherwise `all-linear`.
pub fn default_targets(sites: &[Site], kinds: &[SiteKind]) -> Names {
    let has = |name: &str| sites.iter().any(|s| s.kind == SiteKind::LINEAR && tail(&s.path, 1) == name);
    if let Some(names) = CUSTOMARY.into_iter().find(|names| names.iter().all(|n| has(n))) {
        return Names::List(names.iter().map(|n| (*n).to_owned()).collect());
    }
    let mut seen = HashSet::new();
    let convs = sites.iter().filter(|s| s.kind == SiteKind::CONV && seen.insert(s.path.as_str()));
    let plain =
        |s: &&Site| s.conv.as_ref().is_some_and(|c| c.group == 1 && c.dilations.iter().all(|d| *d == 1));
    let convs: Vec<String> = convs.skip(1).filter(plain).map(|s| s.path.clone()).collect();
    let linears = sites.iter().filter(|s| s.kind == SiteKind::LINEAR && !is_output(&s.path)).count();
    if kinds.contains(&SiteKind::CONV) && convs.len() > linears {
        return Names::List(convs);
    }
    Names::Pattern("all-linear".to_owned())
}

/// What was taken by default, in few words.
fn default_words(sites: &[Site], kinds: &[SiteKind]) -> String {
    match default_targets(sites, kinds) {
        // No architecture has so many customary names.
        Names::List(names) if names.len() > 2 => {
            "the default, every plain convolution but the first".to_owned()
        }
        names => format!("the default, {names}"),
    }
}

enum Matcher<'a> {
    Nothing,
    AllLinear,
    List(&'a [String]),
    Pattern(Regex),
}

impl<'a> Matcher<'a> {
    fn new(names: Option<&'a Names>) -> Result<Matcher<'a>> {
        Ok(match names {
            None => Matcher::Nothing,
            Some(Names::List(l)) => Matcher::List(l),
            Some(Names::Pattern(p)) if p.eq_ignore_ascii_case("all-linear") => Matcher::AllLinear,
            Some(Names::Pattern(p)) => Matcher::Pattern(regular(p, p)?),
        })
    }

    fn takes(&self, site: &Site) -> bool {
        let path = site.path.as_str();
        match self {
            Matcher::Nothing => false,
            Matcher::AllLinear => site.kind == SiteKind::LINEAR && !is_output(path),
            Matcher::List(names) => names.iter().any(|n| {
                path == n
                    || path.strip_suffix(n.as_str()).is_some_and(|rest| rest.ends_with('.') && !n.is_empty())
            }),
            Matcher::Pattern(p) => p.is_match(path),
        }
    }
}

/// Output embeddings and heads, by the names that model classes give them.
fn is_output(path: &str) -> bool {
    const OUTPUTS: [&str; 9] = [
        "lm_head",
        "embed_out",
        "output_projection",
        "classifier",
        "score",
        "qa_outputs",
        "decoder_head",
        "cls.predictions.decoder",
        "vocab_projector",
    ];
    OUTPUTS.iter().any(|o| path == *o || path.strip_suffix(o).is_some_and(|rest| rest.ends_with('.')))
        || path.starts_with("classifier.")
}

#[cfg(test)]
#[path = "sites_tests.rs"]
mod tests;
