//! LoRA and DoRA.

use graft_graph::Tensor;
use indexmap::{IndexMap, IndexSet};

use super::{Group, Module, Own, build, misfit, module, numbers};
use crate::error::Result;
use crate::peft::PeftConfig;
use crate::stored::{ParamKey, Parameters, StoredAdapter};

const A: &str = "lora_A.weight";
const B: &str = "lora_B.weight";

type ByPath = Box<dyn Fn(&str) -> (usize, f64)>;

/// Ranks and alphas by module.
pub(super) struct Numbers {
    of: ByPath,
    rank_stabilised: bool,
}

impl Numbers {
    pub(super) fn of(config: Option<&PeftConfig>) -> Numbers {
        let Some(PeftConfig::Lora(lora)) = config else {
            return Numbers { of: Box::new(|_| (1, 1.0)), rank_stabilised: false };
        };
        let (ranks, alphas) = (lora.ranks(), lora.alphas());
        let of = Box::new(move |path: &str| (ranks(path), alphas(path)));
        Numbers { of, rank_stabilised: lora.use_rslora }
    }

    /// Rank and alpha of a module.
    pub(super) fn at(&self, path: &str) -> (usize, f64) {
        (self.of)(path)
    }

    /// What alpha is divided by.
    fn divisor(&self, rank: usize) -> f64 {
        if self.rank_stabilised { (rank as f64).sqrt() } else { rank as f64 }
    }
}

/// The tensors of a group's new modules, whose ranks and alphas are noted in `numbered`.
pub(super) fn convert(
    adapter: &StoredAdapter,
    g: &Group,
    own: Own<'_>,
    numbers: &Numbers,
    numbered: &mut IndexMap<String, (usize, f64)>,
) -> Result<Parameters> {
    if g.change.fuses {
        fuse(adapter, g, own, numbers, numbered)
    } else {
        split(adapter, g, numbers, numbered)
    }
}

fn split(
    adapter: &StoredAdapter,
    g: &Group,
    numbers: &Numbers,
    numbered: &mut IndexMap<String, (usize, f64)>,
) -> Result<Parameters> {
    let own = module(adapter, &g.fused);
    let mut parts: Vec<Module> = vec![Module::new(); g.split.len()];
    for (name, t) in &own {
        let pieces = if name == A { vec![t.clone(); parts.len()] } else { g.cut(adapter, name, t)? };
        parts.iter_mut().zip(pieces).for_each(|(part, piece)| drop(part.insert(name.clone(), piece)));
    }
    let mut made = Parameters::new();
    for (path, part) in g.split.iter().zip(parts) {
        numbered.insert(path.clone(), numbers.at(&g.fused));
        made.extend(part.into_iter().map(|(name, t)| (ParamKey::new(path, name), t)));
    }
    Ok(made)
}

fn fuse(
    adapter: &StoredAdapter,
    g: &Group,
    own: Own<'_>,
    numbers: &Numbers,
    numbered: &mut IndexMap<String, (usize, f64)>,
) -> Result<Parameters> {
    let parts: Vec<Module> = g.split.iter().map(|p| module(adapter, p)).collect();
    let mut made = Parameters::new();
    if parts.iter().any(|p| p.contains_key(A)) {
        let (a, b, rank, alpha) = matrices(adapter, g, &parts, numbers)?;
        numbered.insert(g.fused.clone(), (rank, alpha));
        made.insert(ParamKey::new(&g.fused, A), a);
        made.insert(ParamKey::new(&g.fused, B), b);
    }
    // What belongs to an output is there for all of them: where the adapter leaves one alone, it is the base's own.
    let names = parts.iter().flat_map(Module::keys).filter(|n| *n != A && *n != B);
    for name in names.collect::<IndexSet<_>>() {
        let base = if parts.iter().all(|p| p.contains_key(name)) { None } else { own(&g.place, name) };
        let base = base.filter(|b| b.len() == g.rows());
        let mut from = 0;
        let one = |(part, width): (&Module, &usize)| {
            let range = from..from + width;
            from = range.end;
            match (part.get(name), &base) {
                (Some(t), _) => Ok(t.clone()),
                (None, Some(base)) => build(vec![*width], &base[range]),
                (None, None) => {
                    let why = format!(
                        "it has `{name}` for some of them only, and what `{}` has for the others can't be read",
                        g.place
                    );
                    Err(g.refuse(adapter, why))
                }
            }
        };
        let all = parts.iter().zip(&g.widths).map(one).collect::<Result<Vec<_>>>()?;
        made.insert(ParamKey::new(&g.fused, name), g.join(adapter, name, &all)?);
    }
    Ok(made)
}

/// `A` `[Σ r, in]`, `B` `[rows, Σ r]`, the rank and the alpha of a fused layer. A split layer without an update has rows of
/// zeros in `B`.
fn matrices(
    adapter: &StoredAdapter,
    g: &Group,
    parts: &[Module],
    of: &Numbers,
) -> Result<(Tensor, Tensor, usize, f64)> {
    let updated: Vec<(usize, &Tensor, &Tensor, f64)> = parts
        .iter()
        .enumerate()
        .filter_map(|(i, p)| {
            let (r, alpha) = of.at(&g.split[i]);
            Some((i, p.get(A)?, p.get(B)?, alpha / of.divisor(r)))
        })
        .collect();
    let width = |t: &Tensor, axis: usize| t.shape().get(axis).copied().unwrap_or(0);
    let rank: usize = updated.iter().map(|u| width(u.1, 0)).sum();
    let input = updated.first().map_or(0, |u| width(u.1, 1));
    // One scaling stays a setting; of several each goes into its matrix.
    let first = updated.first().map_or(1.0, |u| u.3);
    let alike = updated.iter().all(|u| u.3 == first);
    let scaling = if alike { first } else { 1.0 };
    // Checked before room is made: the rank is the file's own.
    for (i, part_a, part_b, _) in &updated {
        let r = width(part_a, 0);
        let fits = [(A, part_a, [r, input]), (B, part_b, [g.widths[*i], r])];
        for (name, t, expected) in fits {
            if t.shape() != expected {
                let key = ParamKey::new(&g.split[*i], name);
                return Err(misfit(adapter, &key, t, format!("{expected:?}")));
            }
        }
    }
    let mut a = Vec::new();
    let mut b = vec![0.0; g.rows() * rank];
    let mut column = 0;
    for (i, part_a, part_b, own) in updated {
        let r = width(part_a, 0);
        a.extend(numbers(part_a));
        let from: usize = g.widths[..i].iter().sum();
        let factor = if alike { 1.0 } else { own };
        for (row, values) in numbers(part_b).chunks_exact(r.max(1)).enumerate() {
            let start = (from + row) * rank + column;
            b[start..start + r].iter_mut().zip(values).for_each(|(to, v)| *to = v * factor);
        }
        column += r;
    }
    let alpha = scaling * of.divisor(rank);
    Ok((build(vec![rank, input], &a)?, build(vec![g.rows(), rank], &b)?, rank, alpha))
}
