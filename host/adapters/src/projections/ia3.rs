//! (IA)³: a vector for each layer, of its output or of its input.

use graft_graph::Tensor;

use super::{Group, build, module, numbers};
use crate::error::Result;
use crate::peft::feeds;
use crate::stored::{ParamKey, Parameters, StoredAdapter};

/// The vectors of a group's new modules. A scale of 1 stands for split layers that the adapter leaves alone.
pub(super) fn convert(adapter: &StoredAdapter, g: &Group) -> Result<Parameters> {
    let mut made = Parameters::new();
    if !g.change.fuses {
        for (name, t) in module(adapter, &g.fused) {
            let parts = match feeds(&t) {
                Some(true) => vec![t; g.split.len()],
                _ => g.cut(adapter, &name, &t)?,
            };
            let keys = g.split.iter().map(|p| ParamKey::new(p, &name));
            made.extend(keys.zip(parts));
        }
        return Ok(made);
    }
    let vectors: Vec<Option<(String, Tensor)>> =
        g.split.iter().map(|p| module(adapter, p).into_iter().next()).collect();
    let name = vectors.iter().flatten().next().map_or_else(String::new, |(name, _)| name.clone());
    let inputs = vectors.iter().flatten().filter(|(_, t)| feeds(t) == Some(true)).count();
    if inputs == 0 {
        let ones = |width: &usize| build(vec![*width, 1], &vec![1.0; *width]);
        let one = |(v, width): (&Option<(String, Tensor)>, &usize)| match v {
            Some((_, t)) => Ok(t.clone()),
            None => ones(width),
        };
        let parts = vectors.iter().zip(&g.widths).map(one).collect::<Result<Vec<_>>>()?;
        made.insert(ParamKey::new(&g.fused, &name), g.join(adapter, &name, &parts)?);
        return Ok(made);
    }
    // They have one input, which can be scaled in one way only.
    let mut all = vectors.iter().map(|v| v.as_ref().map(|(_, t)| (t.shape().to_vec(), numbers(t))));
    let first = all.next().flatten();
    match vectors.first() {
        Some(Some((_, t))) if all.all(|v| v == first) => {
            made.insert(ParamKey::new(&g.fused, &name), t.clone());
            Ok(made)
        }
        _ => Err(g.refuse(adapter, "each scales the input in its own way, and a fused layer has one".into())),
    }
}
