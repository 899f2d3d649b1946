//! Putting a value in the place of another.

use graft_graph::{ValueId, dim};
use graft_plugin_api::{Code, Error, Result};

use super::writer::{SiteIndex, Writer};

impl Writer {
    /// The value that stands where `v` stood.
    pub(super) fn current(&self, mut v: ValueId) -> ValueId {
        while let Some(next) = self.forward.get(&v) {
            v = *next;
        }
        v
    }

    pub(super) fn put_output(&mut self, site: u32, value: u64) -> Result<()> {
        let (path, old) = match self.site(site)? {
            SiteIndex::Module(i) => (self.sites[i].path.clone(), self.sites[i].output),
            SiteIndex::Attention(i) => (self.attentions[i].path.clone(), self.attentions[i].output),
            SiteIndex::Residual(i) => {
                self.replaced_branches.insert(self.residuals[i].branch);
                (self.residuals[i].path.clone(), self.residuals[i].branch)
            }
        };
        let (old, new) = (self.current(old), self.value(value)?);
        if old == new {
            return Ok(());
        }
        self.must_fit(old, new).map_err(|e| e.at(&path))?;
        let made_from = self.ancestors(new);
        let reads = |i: usize| self.graph.nodes[i].inputs.contains(&Some(old));
        let readers: Vec<usize> = (0..self.graph.nodes.len()).filter(|i| reads(*i)).collect();
        for i in readers {
            if made_from[i] && i < self.base_nodes {
                let node = &self.graph.nodes[i];
                let what = format!("the new output is made from `{}`, which reads the output", node.name);
                return Err(Error::new(Code::REFUSED, what).at(&path));
            }
            if !made_from[i] {
                let inputs = &mut self.graph.nodes[i].inputs;
                inputs.iter_mut().filter(|v| **v == Some(old)).for_each(|v| *v = Some(new));
            }
        }
        if self.graph.outputs.contains(&old) {
            let name = self.graph.name_of(old).to_owned();
            self.graph.outputs.iter_mut().filter(|o| **o == old).for_each(|o| *o = new);
            self.graph.rename(new, &name);
        }
        self.forward.insert(old, new);
        Ok(())
    }

    pub(super) fn put_input(&mut self, site: u32, value: u64) -> Result<()> {
        let (index, new) = (self.site(site)?, self.value(value)?);
        let SiteIndex::Module(index) = index else {
            let what = "an attention or a residual connection has no single input to replace";
            let e = Error::new(Code::REFUSED, what);
            return Err(e.help("replace keys and values of an attention with `replace_attention`"));
        };
        let (path, weight) = (self.sites[index].path.clone(), self.sites[index].weight);
        let output = self.sites[index].output;
        let old = self.inputs_now.get(&index).copied().unwrap_or(self.current(self.sites[index].input));
        self.must_fit(old, new).map_err(|e| e.at(&path))?;
        let made_from = self.ancestors(new);
        // A module that is called twice on one value has two nodes with the same inputs; the output tells them apart.
        let leads = |n: &graft_graph::Node| {
            let behind =
                |m: &graft_graph::Node| m.inputs.contains(&n.output(0)) && m.output(0) == Some(output);
            n.output(0) == Some(output) || self.graph.nodes.iter().any(behind)
        };
        let own = |n: &graft_graph::Node| {
            n.inputs.contains(&Some(old)) && n.inputs.contains(&Some(weight)) && leads(n)
        };
        let Some(i) = self.graph.nodes.iter().take(self.base_nodes).position(own) else {
            return Err(Error::new(Code::REFUSED, "its input cannot be replaced").at(&path));
        };
        if made_from[i] {
            return Err(
                Error::new(Code::REFUSED, "the new input is made from the site's own output").at(&path)
            );
        }
        let inputs = &mut self.graph.nodes[i].inputs;
        inputs.iter_mut().filter(|v| **v == Some(old)).for_each(|v| *v = Some(new));
        self.inputs_now.insert(index, new);
        Ok(())
    }

    /// The new value has the old one's type, and no dimension that can never be equal to the old one's.
    pub(super) fn must_fit(&self, old: ValueId, new: ValueId) -> Result<()> {
        let (was, is) = (self.graph.fact(old), self.graph.fact(new));
        let refuse = |what: String| Err(Error::new(Code::REFUSED, what));
        if let (Some(a), Some(b)) = (was.dtype, is.dtype)
            && a != b
        {
            return refuse(format!("a value of {a} cannot be replaced by one of {b}"));
        }
        let (Some(a), Some(b)) = (&was.shape, &is.shape) else {
            return refuse("the shape of the new value is not known".to_owned());
        };
        let fits = a.len() == b.len() && a.iter().zip(b).all(|(x, y)| x.equals(y) != Some(false));
        if fits {
            return Ok(());
        }
        refuse(format!(
            "a value of shape {} cannot be replaced by one of shape {}",
            dim::show(a),
            dim::show(b)
        ))
    }

    /// For each node whether `value` depends on it.
    pub(super) fn ancestors(&self, value: ValueId) -> Vec<bool> {
        let producers = self.graph.producers();
        let mut seen = vec![false; self.graph.nodes.len()];
        let mut waiting = vec![value];
        while let Some(v) = waiting.pop() {
            if let Some(i) = producers[v.index()]
                && !std::mem::replace(&mut seen[i], true)
            {
                waiting.extend(self.graph.nodes[i].inputs.iter().flatten());
            }
        }
        seen
    }
}
