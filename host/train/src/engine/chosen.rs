//! What a method and an objective come to on a base, before anything is trained.

use std::path::PathBuf;

use graft_graph::work::work;
use graft_graph::{Graph, ValueId, dim};
use graft_plugins::adapt::Matched;
use graft_plugins::{Adapted, Method, Objective, adapt, without_data};
use graft_tasks::Base;

use super::features::cut;
use super::job::{JobError, configuration};
use super::run::slim;
use crate::recipe::Recipe;

/// What symbols of shapes are taken for when arithmetic is estimated: rows, tokens of a text, and other sizes.
const SIZE: i64 = 64;

/// What a run does to a base, and what it leaves.
#[derive(Debug, Clone)]
pub struct Chosen {
    /// Which modules the method took, one entry for each of its selections.
    pub matched: Vec<Matched>,
    /// How the objective makes one vector of a text, where it says so.
    pub pooling: Option<String>,
    /// Numbers that are trained.
    pub trained: usize,
    /// Numbers in the base's weights.
    pub base: usize,
    /// Where the base is cut, or why it is not.
    pub cut: Result<CutPlace, String>,
}

/// Where what is computed once per example ends.
#[derive(Debug, Clone, PartialEq)]
pub struct CutPlace {
    /// The values there: name and shape.
    pub values: Vec<(String, String)>,
    /// The part of the arithmetic, up to the loss, that lies before it, from 0 to 1, as estimated.
    pub share: f64,
    /// Numbers of a row of features.
    pub row: usize,
    /// Why padding is not proven to be invisible there; it is then tried on the data.
    pub doubt: Option<String>,
}

impl Chosen {
    /// Writes both into the base and looks for the cut; nothing is run.
    ///
    /// # Errors
    /// Whatever the plugins find wrong.
    pub fn of(base: &Base, method: &Method, objective: &Objective) -> Result<Chosen, JobError> {
        let mut adapted = adapt(&base.graph, &base.model, Some(method), Some(objective), true)?;
        slim(&mut adapted);
        let size = |shape: &[usize]| shape.iter().product::<usize>();
        let weights = base.graph.constants().filter(|(_, t)| t.dtype().is_float() && t.len() > 1);
        Ok(Chosen {
            pooling: objective.config().get("pooling").and_then(|p| p.as_str()).map(str::to_owned),
            trained: adapted.params.iter().filter(|p| p.trained()).map(|p| size(&p.shape)).sum(),
            base: weights.map(|(_, t)| t.len()).sum(),
            cut: place(base, &adapted),
            matched: adapted.matched,
        })
    }

    /// As [`Chosen::of`] for the method and the objective of a recipe, as if there were data with two labels.
    ///
    /// # Errors
    /// Settings that do not fit, plugins that are not there, and as [`Chosen::of`].
    pub fn of_recipe(base: &Base, recipe: &Recipe, plugin_dirs: &[PathBuf]) -> Result<Chosen, JobError> {
        base.require_states()?;
        let (method, goal) = (&recipe.method, &recipe.objective);
        let method = Method::find(plugin_dirs, &method.name, &configuration(None, method)?)?;
        let goal = Objective::find(plugin_dirs, &goal.name, &configuration(None, goal)?)?;
        Chosen::of(base, &method, &without_data(&goal)?)
    }

    /// The part of the base's numbers that is trained.
    pub fn share(&self) -> f64 {
        self.trained as f64 / self.base.max(1) as f64
    }
}

fn place(base: &Base, adapted: &Adapted) -> Result<CutPlace, String> {
    let split = cut(base, adapted).map_err(|why| why.to_string())?;
    let before = total(&split.frozen);
    let all = before.saturating_add(total(&split.rest)).max(1);
    let shape = |name: &String| {
        let found = split.frozen.find(name).and_then(|v: ValueId| split.frozen.shape(v));
        found.cloned().unwrap_or_default()
    };
    let numbers = |name: &String| {
        let dims = shape(name).into_iter().skip(1);
        dims.map(|d| d.known().and_then(|n| usize::try_from(n).ok()).unwrap_or(1)).product::<usize>()
    };
    Ok(CutPlace {
        row: split.cut.iter().map(numbers).sum(),
        values: split.cut.iter().map(|n| (n.clone(), dim::show(&shape(n)))).collect(),
        share: before as f64 / all as f64,
        doubt: split.doubt,
    })
}

fn total(graph: &Graph) -> u64 {
    work(graph, &|_| Some(SIZE)).into_iter().fold(0, u64::saturating_add)
}
