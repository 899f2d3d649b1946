//! Residual connections: where what a part of a layer computed is added to what went around it.

use std::collections::{HashMap, HashSet};

use super::attention::AttentionSite;
use super::{Site, SiteKind};
use crate::ir::{Graph, Node, ValueId};

/// A part of a layer that a residual connection goes around.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Sublayer {
    /// The sequence attends to itself.
    Attention,
    /// It attends to another one: keys and values are not made of what goes around.
    CrossAttention,
    /// Everything else: feed-forward layers.
    FeedForward,
}

/// `sum = branch + stream`, where the branch was computed from the stream and its last operator is a linear layer.
#[derive(Clone, Debug)]
pub struct ResidualSite {
    /// Path of the module that holds this linear layer: `encoder.layer.0.attention.output`.
    pub path: String,
    /// What it goes around.
    pub sublayer: Sublayer,
    /// What was computed, `[…, width]`.
    pub branch: ValueId,
    /// What went around, `[…, width]`.
    pub stream: ValueId,
    /// Place, in the list of sites, of the norm of the same layer that alone reads the sum; none where the sum goes on
    /// as it is.
    pub norm: Option<usize>,
    /// Width of the branch.
    pub width: usize,
}

/// The residual connections of a graph that was raised, in the order of its nodes. `sites` and `attentions` are those
/// of the same graph. A module that is called several times has one for each call.
pub fn residuals(graph: &Graph, sites: &[Site], attentions: &[AttentionSite]) -> Vec<ResidualSite> {
    let linear = sites.iter().filter(|s| s.kind == SiteKind::Linear).map(|s| (s.output, s)).collect();
    let norms = sites.iter().enumerate().filter(|(_, s)| s.kind == SiteKind::Norm);
    let find = Finder {
        graph,
        producers: graph.producers(),
        consumers: graph.consumers(),
        linear,
        norms: norms.map(|(i, s)| (s.input, i)).collect(),
        sites,
        attentions: attentions.iter().map(|a| (a.output, a)).collect(),
    };
    graph.nodes.iter().filter(|n| n.is("Add")).filter_map(|n| find.residual(n)).collect()
}

struct Finder<'a> {
    graph: &'a Graph,
    producers: Vec<Option<usize>>,
    consumers: Vec<Vec<usize>>,
    linear: HashMap<ValueId, &'a Site>,
    norms: HashMap<ValueId, usize>,
    sites: &'a [Site],
    attentions: HashMap<ValueId, &'a AttentionSite>,
}

impl Finder<'_> {
    fn residual(&self, n: &Node) -> Option<ResidualSite> {
        let (a, b, sum) = (n.input(0)?, n.input(1)?, n.output(0)?);
        [(a, b), (b, a)].into_iter().find_map(|(branch, stream)| self.around(branch, stream, sum))
    }

    fn around(&self, branch: ValueId, stream: ValueId, sum: ValueId) -> Option<ResidualSite> {
        let last = self.last_layer(branch)?;
        let width = |v: ValueId| usize::try_from(self.graph.shape(v)?.last()?.known()?).ok();
        let width = width(branch).filter(|w| Some(*w) == width(stream))?;
        let inside = self.computed_from(branch, stream)?;
        let attention = inside.iter().find_map(|v| self.attentions.get(v));
        let sublayer = match attention {
            Some(a) if inside.contains(&a.key) => Sublayer::Attention,
            Some(_) => Sublayer::CrossAttention,
            None => Sublayer::FeedForward,
        };
        let path = last.path.rsplit_once('.').map_or("", |(module, _)| module).to_string();
        (!path.is_empty()).then(|| ResidualSite {
            norm: self.norm_behind(sum, &last.path),
            path,
            sublayer,
            branch,
            stream,
            width,
        })
    }

    /// The linear layer whose output `v` is, perhaps in another shape.
    fn last_layer(&self, mut v: ValueId) -> Option<&Site> {
        loop {
            if let Some(site) = self.linear.get(&v) {
                return Some(site);
            }
            let made = &self.graph.nodes[self.producers[v.index()]?];
            v = made.input(0).filter(|_| made.is("Reshape") || made.is("Identity"))?;
        }
    }

    /// The values on the ways from `stream` to `branch`; none where there is no way. Nodes are in an order in which
    /// what is made comes behind what it is made of, so that nothing in front of the stream is looked at.
    fn computed_from(&self, branch: ValueId, stream: ValueId) -> Option<HashSet<ValueId>> {
        let first = self.producers[stream.index()].map_or(0, |i| i + 1);
        let mut behind = HashSet::from([stream]);
        let last = self.producers[branch.index()]?;
        for n in self.graph.nodes.get(first..=last)? {
            if n.inputs.iter().flatten().any(|v| behind.contains(v)) {
                behind.extend(n.outputs.iter().flatten());
            }
        }
        if !behind.contains(&branch) {
            return None;
        }
        let (mut inside, mut waiting) = (HashSet::from([branch]), vec![branch]);
        while let Some(v) = waiting.pop() {
            let made = self.producers[v.index()].filter(|_| v != stream).map(|i| &self.graph.nodes[i]);
            let from = made.into_iter().flat_map(|n| n.inputs.iter().flatten());
            waiting.extend(from.filter(|v| behind.contains(*v) && inside.insert(**v)));
        }
        Some(inside)
    }

    /// The norm that alone reads `sum`, in the numbered layer of the linear layer at `path`, or else in its module.
    fn norm_behind(&self, sum: ValueId, path: &str) -> Option<usize> {
        let index = self.norms.get(&sum).copied()?;
        let whole = self.consumers[sum.index()].len() == 1 && !self.graph.outputs.contains(&sum);
        let layer = layer_of(path).or(path.rsplit_once('.').map(|(module, _)| module))?;
        let inside = |p: &str| p.strip_prefix(layer).is_some_and(|rest| rest.starts_with('.'));
        (whole && inside(&self.sites[index].path)).then_some(index)
    }
}

/// A path up to its first number: `encoder.layer.0.output.dense` → `encoder.layer.0`.
fn layer_of(path: &str) -> Option<&str> {
    let mut end = 0;
    for segment in path.split('.') {
        end += segment.len();
        if !segment.is_empty() && segment.bytes().all(|b| b.is_ascii_digit()) {
            return path.get(..end);
        }
        end += 1;
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::super::sites;
    use super::*;
    use crate::{Builder, DType, Dim, Tensor};

    /// A linear layer with the path that the old exporter's node name gives it.
    fn linear(g: &mut Graph, path: &str, x: ValueId, width: usize) -> ValueId {
        let w =
            g.add_constant(&format!("{path}.w"), Tensor::new([4, width], &vec![0.5f32; 4 * width]).unwrap());
        let y = Builder::new(g, "").op("MatMul", &[x, w]);
        g.nodes.last_mut().unwrap().name = format!("/{}/MatMul", path.replace('.', "/"));
        y
    }

    fn norm(g: &mut Graph, path: &str, x: ValueId) -> ValueId {
        let w = g.add_constant(&format!("{path}.weight"), Tensor::new([4], &[1f32; 4]).unwrap());
        Builder::new(g, "").op("LayerNormalization", &[x, w])
    }

    fn start() -> (Graph, ValueId) {
        let mut g = Graph::new("g", 20);
        let x = g.add_input("x", DType::F32, vec![Dim::from("n"), Dim::from(4)]);
        (g, x)
    }

    fn found(g: &Graph) -> Vec<ResidualSite> {
        residuals(g, &sites(g), &[])
    }

    #[test]
    fn the_norm_of_a_layer_belongs_to_the_connection_that_it_closes() {
        let (mut g, x) = start();
        let h = linear(&mut g, "layer.0.output.dense", x, 4);
        let sum = Builder::new(&mut g, "").op("Add", &[h, x]);
        let y = norm(&mut g, "layer.0.output.norm", sum);
        g.outputs = vec![y];
        let all = found(&g);
        assert_eq!(all.len(), 1);
        let r = &all[0];
        assert_eq!((r.path.as_str(), r.branch, r.stream, r.width), ("layer.0.output", h, x, 4));
        assert_eq!((r.sublayer, r.norm.map(|i| sites(&g)[i].output)), (Sublayer::FeedForward, Some(y)));
    }

    #[test]
    fn norms_in_front_of_the_next_part_or_behind_all_layers_do_not() {
        let (mut g, x) = start();
        let h = linear(&mut g, "layer.0.mlp.down", x, 4);
        let first = Builder::new(&mut g, "").op("Add", &[x, h]);
        let normed = norm(&mut g, "layer.1.norm", first);
        let h = linear(&mut g, "layer.1.mlp.down", normed, 4);
        let second = Builder::new(&mut g, "").op("Add", &[first, h]);
        let last = norm(&mut g, "norm", second);
        g.outputs = vec![last];
        let all = found(&g);
        assert_eq!(all.iter().map(|r| r.path.as_str()).collect::<Vec<_>>(), ["layer.0.mlp", "layer.1.mlp"]);
        assert!(all.iter().all(|r| r.norm.is_none()));
        assert_eq!(all[1].stream, first);
    }

    #[test]
    fn a_sum_of_two_branches_and_a_bias_are_no_connections() {
        let (mut g, x) = start();
        let a = linear(&mut g, "layer.0.a", x, 4);
        let b = linear(&mut g, "layer.0.b", x, 4);
        let sum = Builder::new(&mut g, "").op("Add", &[a, b]);
        let bias = g.add_constant("layer.0.bias", Tensor::new([4], &[1f32; 4]).unwrap());
        let y = Builder::new(&mut g, "").op("Add", &[sum, bias]);
        g.outputs = vec![y];
        assert!(found(&g).is_empty());
    }
}
