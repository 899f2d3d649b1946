//! A module's operators once more, on another input.

use std::collections::HashMap;

use graft_graph::{Builder, ValueId};
use graft_plugin_api::{Code, Error, Result};

use super::writer::{SiteIndex, Writer};

/// Most operators that a module with weights is made of.
const MAX_OPERATORS: usize = 16;

impl Writer {
    /// A handle for what the module with number `site` makes of `input`.
    pub(super) fn call(&mut self, site: u32, input: ValueId) -> Result<u64> {
        let SiteIndex::Module(index) = self.site(site)? else {
            return Err(Error::new(Code::REFUSED, "only a module with weights can be called"));
        };
        let (path, own) = (self.sites[index].path.clone(), self.sites[index].input);
        let (read, output) = (self.reads(index), self.sites[index].output);
        self.must_fit(own, input).map_err(|e| e.at(&path))?;
        let nodes = self.between(read, output);
        let nodes =
            nodes.ok_or_else(|| Error::new(Code::REFUSED, "its operators are not found").at(&path))?;
        let mut made = HashMap::from([(read, input)]);
        for i in nodes {
            let node = self.graph.nodes[i].clone();
            let inputs: Vec<_> =
                node.inputs.iter().map(|v| v.map(|v| made.get(&v).copied().unwrap_or(v))).collect();
            let scope = self.scope(&path);
            let mut b = Builder::new(&mut self.graph, scope);
            let outputs = b.emit(&node.op, &node.domain, &inputs, node.attrs.clone(), node.outputs.len());
            made.extend(node.outputs.iter().zip(outputs).filter_map(|(old, new)| Some(((*old)?, new))));
        }
        let result = made.get(&output).copied();
        let result =
            result.ok_or_else(|| Error::new(Code::REFUSED, "it makes nothing of its input").at(&path))?;
        Ok(self.handle(result))
    }

    /// What a module's first operator reads now.
    fn reads(&self, index: usize) -> ValueId {
        let now = self.inputs_now.get(&index).copied();
        now.unwrap_or_else(|| self.current(self.sites[index].input))
    }

    /// The operators between two values, in their order; `None` where they are not those of one module.
    fn between(&self, from: ValueId, to: ValueId) -> Option<Vec<usize>> {
        let producers = self.graph.producers();
        let (mut waiting, mut nodes) = (vec![to], Vec::new());
        while let Some(v) = waiting.pop() {
            let made = producers[v.index()].filter(|_| v != from);
            let Some(i) = made.filter(|i| !nodes.contains(i)) else { continue };
            if nodes.len() == MAX_OPERATORS {
                return None;
            }
            nodes.push(i);
            waiting.extend(self.graph.nodes[i].inputs.iter().flatten());
        }
        nodes.sort_unstable();
        let leads = nodes.iter().any(|i| self.graph.nodes[*i].inputs.contains(&Some(from)));
        leads.then_some(nodes)
    }
}
