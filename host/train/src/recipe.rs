//! Recipes: everything that a training run is told, from a `recipe.toml` and the command line.

mod fields;
mod layer;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

pub use fields::{FIELDS, Field, Kind};
pub use layer::Layer;

use crate::best::Watch;
pub use crate::engine::Precision;
use crate::optim::{OptimizerConfig, OptimizerKind};
use crate::plan::{Plan, Warmup};
use crate::schedule::ScheduleKind;

/// The word that a written recipe begins with, under `format`.
pub const FORMAT: &str = "graft.recipe";
/// The version of the format that is written; older ones are read.
pub const RECIPE_VERSION: u32 = 1;

/// A method or an objective with its settings, which its plugin checks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// Its name.
    pub name: String,
    /// The settings given, as TOML has them.
    #[serde(flatten)]
    pub settings: toml::Table,
}

/// A recipe with every default filled in. The keys, their limits and defaults are in [`FIELDS`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Recipe {
    pub base: PathBuf,
    pub hidden: Option<String>,
    pub tokenizer: Option<PathBuf>,
    pub preprocessor: Option<PathBuf>,
    pub data: Option<PathBuf>,
    pub batches: Option<PathBuf>,
    pub eval_data: Option<PathBuf>,
    pub eval_split: Option<f64>,
    pub test_data: Option<PathBuf>,
    pub encoding: Option<String>,
    pub init_adapter: Option<PathBuf>,
    pub out: PathBuf,
    pub epochs: usize,
    pub batch_size: usize,
    pub accumulation: usize,
    pub group_by_length: bool,
    pub max_length: Option<usize>,
    pub lr: f64,
    pub optimizer: OptimizerKind,
    pub weight_decay: f64,
    pub beta1: f64,
    pub beta2: f64,
    pub eps: f64,
    pub momentum: f64,
    pub nesterov: bool,
    pub schedule: ScheduleKind,
    pub warmup_steps: Option<u64>,
    pub warmup_ratio: Option<f64>,
    pub clip_norm: Option<f64>,
    pub patience: usize,
    pub best_metric: Option<String>,
    pub feature_cache: bool,
    pub feature_precision: Precision,
    pub seed: u64,
    pub provider: String,
    pub threads: Option<usize>,
    pub columns: IndexMap<String, String>,
    pub method: Part,
    pub objective: Part,
}

/// Why something is not a recipe.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// The file cannot be read.
    #[error("the recipe {path} cannot be read: {source}", path = .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file is no TOML.
    #[error("{origin} is not a recipe: {message}")]
    Syntax {
        /// Where it stands.
        origin: String,
        /// What the TOML reader says, with line and column.
        message: String,
    },
    /// The file is of another or a newer format.
    #[error(
        "{origin}: `{key} = {found}` is not known here (format \"graft.recipe\", version 1); a newer Graft may read it"
    )]
    Version {
        /// Where it stands.
        origin: String,
        /// `format` or `version`.
        key: String,
        /// What it says.
        found: String,
    },
    /// A recipe has no such key.
    #[error("{origin}: a recipe has no key `{key}`; {hint}")]
    Unknown {
        /// Where it stands.
        origin: String,
        /// The key.
        key: String,
        /// The nearest key, or all.
        hint: String,
    },
    /// The key takes no such value.
    #[error("{origin}: `{key}` is {found}, but takes {allowed}")]
    Value {
        /// Where it stands.
        origin: String,
        /// The key.
        key: String,
        /// The value given.
        found: String,
        /// What is allowed.
        allowed: String,
    },
    /// Two keys of which one excludes the other.
    #[error("{origin} gives both `{first}` and `{second}`: choose one")]
    Both {
        /// Where they stand.
        origin: String,
        /// One.
        first: String,
        /// The other.
        second: String,
    },
    /// Something is missing.
    #[error("`{key}` is missing ({help}): give --{flag} or write `{key}` into the recipe", flag = .key.replace('_', "-"))]
    Missing {
        /// The key.
        key: String,
        /// What it means.
        help: String,
    },
    /// Values that do not go together.
    #[error("{0}")]
    Conflict(String),
    /// `--set` without `KEY=VALUE`.
    #[error("`--set {text}` is not of the form KEY=VALUE, as in --set method.r=8")]
    Assignment {
        /// What was given.
        text: String,
    },
}

impl RecipeError {
    fn unknown(origin: &str, key: &str) -> Self {
        let names = FIELDS.iter().map(|f| f.name);
        let near =
            names.clone().map(|n| (strsim::jaro_winkler(n, key), n)).max_by(|a, b| a.0.total_cmp(&b.0));
        let hint = match near {
            Some((score, name)) if score > 0.8 => format!("did you mean `{name}`?"),
            _ => format!(
                "it has {} (settings go as method.NAME or objective.NAME)",
                names.collect::<Vec<_>>().join(", ")
            ),
        };
        RecipeError::Unknown { origin: origin.into(), key: key.into(), hint }
    }
}

impl Recipe {
    /// Lays the layers over the defaults, the last on top.
    ///
    /// # Errors
    /// [`RecipeError`] when something is missing or does not go together.
    pub fn resolve(layers: &[Layer]) -> Result<Recipe, RecipeError> {
        let table = layer::merge(layers);
        let missing = |key: &str, help: &str| RecipeError::Missing { key: key.into(), help: help.into() };
        for f in FIELDS.iter().filter(|f| f.required) {
            let named = f.kind != Kind::Part || table.get(f.name).is_some_and(|p| p.get("name").is_some());
            if !table.contains_key(f.name) || !named {
                return Err(missing(f.name, f.help));
            }
        }
        if !table.contains_key("data") && !table.contains_key("batches") {
            return Err(missing("data", "training data"));
        }
        let recipe: Recipe =
            table.try_into().map_err(|e: toml::de::Error| RecipeError::Conflict(e.to_string()))?;
        recipe.check()?;
        Ok(recipe)
    }

    fn check(&self) -> Result<(), RecipeError> {
        let sgd = self.optimizer == OptimizerKind::Sgd;
        let no = |m: &str| Err(RecipeError::Conflict(m.into()));
        match () {
            () if !sgd && (self.momentum != 0.0 || self.nesterov) => {
                no("`momentum` and `nesterov` are for `optimizer = \"sgd\"`; AdamW has `beta1`")
            }
            () if self.nesterov && self.momentum == 0.0 => no("`nesterov` needs a `momentum` above 0"),
            () if self.batches.is_some() && self.eval_split.is_some() => {
                no("`eval_split` splits `data`; prepared `batches` need `eval_data`")
            }
            () => Ok(()),
        }
    }

    /// The recipe as TOML, every default written out, which resolves to itself.
    ///
    /// # Errors
    /// [`RecipeError::Conflict`] when a setting has no form in TOML.
    pub fn to_toml(&self) -> Result<String, RecipeError> {
        let body = toml::to_string(self).map_err(|e| RecipeError::Conflict(e.to_string()))?;
        Ok(format!("format = \"{FORMAT}\"\nversion = {RECIPE_VERSION}\n{body}"))
    }

    /// The loop's plan; `watch` is the objective's metric (see [`Recipe::best_metric`]), if anything is evaluated.
    pub fn plan(&self, watch: Option<Watch>) -> Plan {
        let weight_decay = self.weight_decay;
        Plan {
            epochs: self.epochs,
            optimizer: match self.optimizer {
                OptimizerKind::AdamW => {
                    OptimizerConfig::AdamW { betas: (self.beta1, self.beta2), eps: self.eps, weight_decay }
                }
                OptimizerKind::Sgd => {
                    OptimizerConfig::Sgd { momentum: self.momentum, nesterov: self.nesterov, weight_decay }
                }
            },
            lr: self.lr,
            schedule: self.schedule,
            warmup: match (self.warmup_steps, self.warmup_ratio) {
                (Some(n), _) => Warmup::Steps(n),
                (None, ratio) => Warmup::Ratio(ratio.unwrap_or(0.0)),
            },
            clip_norm: self.clip_norm,
            watch,
        }
    }
}
