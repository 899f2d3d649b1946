//! Other keys, values and another bias for an attention of the base.

use graft_graph::raise::attention::{repeat, transposed};
use graft_graph::sites::bias_fits;
use graft_graph::{Builder, Dim, ValueId, dim, fused, shape};
use graft_plugin_api::{Code, Error, Result};

use super::writer::{SiteIndex, Writer};

/// The axis of keys and values along which they may get longer.
const LENGTH: usize = 2;

impl Writer {
    /// The attention with number `site` reads `key` and `value`, which may be longer than what they replace, and adds
    /// `bias` where there is one.
    pub(super) fn put_attention(
        &mut self,
        site: u32,
        key: ValueId,
        value: ValueId,
        bias: Option<ValueId>,
    ) -> Result<()> {
        let SiteIndex::Attention(index) = self.site(site)? else {
            return Err(Error::new(Code::REFUSED, "the site is no attention"));
        };
        let path = self.attentions[index].path.clone();
        self.set_attention(index, key, value, bias).map_err(|e| e.at(&path))
    }

    fn set_attention(
        &mut self,
        index: usize,
        key: ValueId,
        value: ValueId,
        bias: Option<ValueId>,
    ) -> Result<()> {
        let now = self.attentions[index].clone();
        let length = self.must_fit_beside(now.key, key)?;
        if length.equals(&self.must_fit_beside(now.value, value)?) == Some(false) {
            return refuse(format!("there are {length} keys, but not as many values"));
        }
        let added = bias.or(now.bias);
        if let Some(added) = added {
            self.must_add(&now, added, &length)?;
        }
        let output = now.output;
        let is_own = |n: &graft_graph::Node| fused::is_attention(n) && n.output(0) == Some(output);
        let Some(at) = self.graph.nodes.iter().position(is_own) else {
            return refuse("its operator is not in the graph any more".to_owned());
        };
        for new in [Some(key), Some(value), bias].into_iter().flatten() {
            if self.ancestors(new)[at] {
                return refuse("what is to enter is made from what comes out of it".to_owned());
            }
        }
        let heads = i64::try_from(now.heads).unwrap_or(i64::MAX);
        let scope = self.scope(&now.path);
        let mut b = Builder::new(&mut self.graph, scope);
        let (Some(keys), Some(values)) = (repeat(&mut b, key, heads), repeat(&mut b, value, heads)) else {
            return refuse("heads of keys and values are not known".to_owned());
        };
        let keys = transposed(&mut b, keys);
        let inputs = &mut self.graph.nodes[at].inputs;
        (inputs[1], inputs[2]) = (Some(keys), Some(values));
        if let Some(bias) = bias {
            inputs[3] = Some(bias);
        }
        shape::infer_at(&mut self.graph, at);
        let site = &mut self.attentions[index];
        (site.key, site.value, site.bias) = (key, value, added);
        Ok(())
    }

    /// The length of `new`, which must be like `old` otherwise.
    fn must_fit_beside(&self, old: ValueId, new: ValueId) -> Result<Dim> {
        let (was, is) = (self.graph.fact(old), self.graph.fact(new));
        let (Some(a), Some(b)) = (&was.shape, &is.shape) else {
            return refuse("the shape of new keys or values is not known".to_owned());
        };
        let fits = |(k, (x, y)): (usize, (&Dim, &Dim))| k == LENGTH || x.equals(y) != Some(false);
        if was.dtype == is.dtype && a.len() == b.len() && a.iter().zip(b).enumerate().all(fits) {
            return Ok(b[LENGTH].clone());
        }
        let (a, b) = (dim::show(a), dim::show(b));
        refuse(format!(
            "{b} can't take the place of keys or values {a}, of which only axis {LENGTH} may change"
        ))
    }

    /// The bias must broadcast to scores over `keys` keys.
    fn must_add(&self, now: &graft_graph::sites::AttentionSite, bias: ValueId, keys: &Dim) -> Result<()> {
        let (Some(q), Some(b)) = (self.graph.shape(now.query), self.graph.shape(bias)) else {
            return refuse("the shape of the bias is not known".to_owned());
        };
        let typed = self.graph.dtype(bias) == self.graph.dtype(now.query);
        let mut scores = q[..q.len() - 1].to_vec();
        scores.push(keys.clone());
        let narrow = |(x, s): (&Dim, &Dim)| x.is(1) || x.equals(s) != Some(false);
        if typed && b.len() <= scores.len() && b.iter().rev().zip(scores.iter().rev()).all(narrow) {
            return Ok(());
        }
        let what = format!("a bias {} can't be added to scores {}", dim::show(b), dim::show(&scores));
        let e = Error::new(Code::REFUSED, what);
        Err(if bias_fits(b, keys) { e } else { e.help("lengthen the bias along with the keys") })
    }
}

fn refuse<T>(what: String) -> Result<T> {
    Err(Error::new(Code::REFUSED, what))
}

#[cfg(test)]
#[path = "attention_tests.rs"]
mod tests;
