//! Answering with several adapters: those that share most of a base's work share its pass.

use std::collections::HashMap;

use graft_graph::beside::{beside, share};
use graft_graph::cse::join_equal;
use graft_graph::hoist::hoist;
use graft_graph::{Graph, Tensor};
use graft_plugins::api;
use graft_runtime::{SessionOptions, View};

use crate::base::Base;
use crate::error::Result;
use crate::evaluate::{TextFeed, run_all};
use crate::examples::Examples;
use crate::program::Program;
use crate::task::Fitted;

/// The part of its arithmetic from which on an adapter shares the pass of a base: one that has more of its own gains
/// little, and holds memory while the others run.
const SHARED: f64 = 0.5;
/// What any symbol of a shape is taken for when arithmetic is estimated: rows of a batch, tokens of a text.
const SIZE: i64 = 32;

/// One run of a graph over all examples, for one adapter or several.
pub struct Pass {
    /// Places of the adapters in the list that was asked.
    pub adapters: Vec<usize>,
    /// What is run.
    pub graph: Graph,
    name: String,
    values: HashMap<String, Tensor>,
    /// For each adapter its outputs: the name in the graph and that of the objective.
    outputs: Vec<Vec<(String, String)>>,
}

/// The passes that answer these adapters, each on its examples: adapters of which the base does most of the work, on the
/// same texts or images, have one together; every other one has its own.
pub fn passes(base: &Base, asked: &[(&Fitted, &Examples)]) -> Vec<Pass> {
    let light = |f: &Fitted| share(&base.graph, &f.graph, &|_| Some(SIZE)) >= SHARED;
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut open: Vec<usize> = Vec::new();
    for (i, (fitted, examples)) in asked.iter().enumerate() {
        if asked.len() == 1 || !light(fitted) {
            groups.push(vec![i]);
            continue;
        }
        let fits = |g: &&usize| asked[groups[**g][0]].1.has_inputs_of(examples);
        match open.iter().find(fits).copied() {
            Some(g) => groups[g].push(i),
            None => {
                open.push(groups.len());
                groups.push(vec![i]);
            }
        }
    }
    let mut all = Vec::new();
    for group in groups {
        match joined(base, asked, &group) {
            Some(pass) => all.push(pass),
            None => all.extend(group.into_iter().map(|i| alone(i, asked[i].0))),
        }
    }
    all
}

fn alone(i: usize, fitted: &Fitted) -> Pass {
    let graph = fitted.slim_graph();
    let outputs = graph.outputs.iter().map(|v| graph.name_of(*v).to_string());
    let outputs = vec![outputs.map(|n| (n.clone(), n)).collect()];
    Pass { adapters: vec![i], graph, name: fitted.name.clone(), values: fitted.values.clone(), outputs }
}

/// Several adapters in one graph; `None` for a single one, or where they can't be joined.
fn joined(base: &Base, asked: &[(&Fitted, &Examples)], group: &[usize]) -> Option<Pass> {
    if group.len() < 2 {
        return None;
    }
    let members: Vec<&Fitted> = group.iter().map(|i| asked[*i].0).collect();
    let graphs: Vec<&Graph> = members.iter().map(|f| &f.graph).collect();
    let mut made = beside(&base.graph, &graphs).ok()?;
    let mut values = HashMap::new();
    for (member, map) in members.iter().zip(&made.values) {
        for (name, tensor) in &member.values {
            let here = member.graph.find(name).and_then(|v| *map.get(v.index())?);
            // What no output depends on is not in the graph either.
            let Some(here) = here else { continue };
            values.insert(made.graph.name_of(here).to_string(), tensor.clone());
        }
    }
    // The same choice of a token by several heads must be one before it can go up.
    join_equal(&mut made.graph);
    hoist(&mut made.graph);
    let name_of = |(here, own): (&graft_graph::ValueId, &graft_graph::ValueId), member: &Fitted| {
        (made.graph.name_of(*here).to_string(), member.graph.name_of(*own).to_string())
    };
    let outputs = made.outputs.iter().zip(&members);
    let outputs =
        outputs.map(|(here, m)| here.iter().zip(&m.graph.outputs).map(|pair| name_of(pair, m)).collect());
    let outputs = outputs.collect();
    let name = members.iter().map(|m| m.name.as_str()).collect::<Vec<_>>().join(" + ");
    Some(Pass { adapters: group.to_vec(), graph: made.graph, name, values, outputs })
}

impl Pass {
    /// The outputs of each adapter over all examples, as its objective calls them. The session lives as long as this
    /// takes.
    ///
    /// # Errors
    /// What a batch or ONNX Runtime says.
    pub fn run(
        &self,
        base: &Base,
        examples: &Examples,
        pad: i64,
        options: &SessionOptions,
    ) -> Result<Vec<Vec<api::Tensor>>> {
        let options = SessionOptions { name: self.name.clone(), ..options.clone() };
        let mut program = Program::new(base, &self.graph, &options)?;
        let fixed = |n: &str| self.values.get(n).map(View::from);
        let names: Vec<String> = self.outputs.iter().flatten().map(|(here, _)| here.clone()).collect();
        let mut all = run_all(&mut program, &TextFeed { base, examples, pad }, &fixed, &names)?.into_iter();
        let own = |outputs: &Vec<(String, String)>| {
            let named = all.by_ref().zip(outputs);
            named.take(outputs.len()).map(|(t, (_, own))| api::Tensor { name: own.clone(), ..t }).collect()
        };
        Ok(self.outputs.iter().map(own).collect())
    }
}
