//! A sweep: the runs of a grid one after the other, of which the best by the evaluation is kept.

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::job::{Job, JobError, Prepare};
use crate::best::{Direction, Metrics, Watch};
use crate::grid::Settings;
use crate::interrupt::Interrupt;
use crate::observe::Observer;
use crate::recipe::{Layer, Recipe};

/// The word that `sweep.json` begins with, under `format`.
const FORMAT: &str = "graft.sweep";
/// Largest `sweep.json` that is read, in bytes.
const MAX_FILE: u64 = 64 << 20;

/// One finished point.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Its number, from 1.
    pub number: usize,
    /// What it differs in.
    pub settings: Settings,
    /// Metrics on the evaluation data.
    pub evaluation: Metrics,
    /// Metrics on the test data, which choose nothing.
    pub test: Metrics,
    /// Seconds from reading to the saved adapter.
    pub seconds: f64,
    /// Why it has no adapter.
    pub error: Option<String>,
}

/// What a sweep has found; the content of `sweep.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Table {
    format: String,
    version: u32,
    /// BLAKE3 of the recipes of all points: a sweep that goes on must be the same.
    recipes: String,
    /// Number of points, finished or not.
    pub points: usize,
    /// The metric that chooses.
    pub metric: Option<String>,
    /// Which way it is better.
    pub higher_is_better: bool,
    /// Number of the best point.
    pub best: Option<usize>,
    /// The finished points.
    pub done: Vec<Point>,
}

/// A sweep that is ready to start.
pub struct Sweep {
    /// The folder that everything is written to.
    pub folder: PathBuf,
    /// Whether every adapter is kept.
    pub keep_all: bool,
    points: Vec<(Settings, Recipe)>,
    table: Table,
}

impl Sweep {
    /// Resolves the recipe of every point. With `resume` the points that are in the folder's `sweep.json` are not run
    /// again.
    ///
    /// # Errors
    /// A recipe that does not resolve, or without evaluation data to choose by; a folder that exists, or with `resume`
    /// one of another sweep.
    pub fn new(
        layers: &[Layer],
        points: Vec<Settings>,
        keep_all: bool,
        resume: bool,
    ) -> Result<Sweep, JobError> {
        let setup = |e: &dyn std::fmt::Display| JobError::Setup(e.to_string());
        let (mut made, mut folder) = (Vec::new(), PathBuf::new());
        let mut digest = blake3::Hasher::new();
        for (i, settings) in points.into_iter().enumerate() {
            let mut own = Layer::command_line();
            for (key, value) in &settings {
                own.set(&format!("{key}={value}")).map_err(|e| setup(&e))?;
            }
            let mut recipe = Recipe::resolve(&[layers, &[own]].concat()).map_err(|e| setup(&e))?;
            if recipe.eval_data.is_none() && recipe.eval_split.is_none() {
                return Err(JobError::Setup(
                    "a sweep chooses by evaluation data, and there is none: give --eval-data FILE or --eval-split 0.1 \
                     (test data choose nothing)"
                        .into(),
                ));
            }
            if i > 0 && recipe.out != folder {
                return Err(JobError::Setup("`out` is the sweep's own folder and can't be an axis".into()));
            }
            folder.clone_from(&recipe.out);
            recipe.out = folder.join("points").join((i + 1).to_string());
            digest.update(recipe.to_toml().map_err(|e| setup(&e))?.as_bytes());
            made.push((settings, recipe));
        }
        let fresh = Table {
            format: FORMAT.into(),
            version: 1,
            recipes: digest.finalize().to_hex().to_string(),
            points: made.len(),
            metric: None,
            higher_is_better: true,
            best: None,
            done: Vec::new(),
        };
        let table = match (folder.exists(), resume) {
            (false, _) => fresh,
            (true, false) => {
                let path = folder.join("sweep.json");
                if path.is_file() {
                    let m = "exists already and holds a sweep: --resume goes on with it, another --out begins anew";
                    return Err(JobError::Setup(format!("{} {m}", folder.display())));
                }
                return Err(JobError::Exists(folder));
            }
            (true, true) => read(&folder, &fresh)?,
        };
        Ok(Sweep { folder, keep_all, points: made, table })
    }

    /// The recipe of the first point.
    pub fn first(&self) -> Option<&Recipe> {
        self.points.first().map(|(_, recipe)| recipe)
    }

    /// What is known so far.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Runs the points that are not finished, keeps the best adapter as `best` and writes `sweep.json` and `sweep.md` after
    /// each. `observer` makes what watches a run that saves into the folder it is given; `told` learns of each finished
    /// point. An interrupt ends the sweep; the point that it ended is run again by `--resume`.
    ///
    /// # Errors
    /// What can't be written; when no point has an adapter.
    pub fn run(
        &mut self,
        with: &Prepare<'_>,
        observer: &mut dyn FnMut(&Path) -> Box<dyn Observer>,
        told: &mut dyn FnMut(&Table, &Point),
        interrupt: &Interrupt,
    ) -> Result<(), JobError> {
        std::fs::create_dir_all(self.folder.join("points")).map_err(|e| io(&self.folder, &e))?;
        self.write()?;
        for i in 0..self.points.len() {
            let number = i + 1;
            if self.table.done.iter().any(|p| p.number == number) {
                continue;
            }
            if interrupt.requested() {
                return Ok(());
            }
            let (settings, recipe) = self.points[i].clone();
            // What an interrupted run left is no adapter of this point.
            remove(&recipe.out)?;
            let clock = Instant::now();
            let ran = run(&recipe, with, observer, interrupt);
            if interrupt.requested() {
                return Ok(());
            }
            let seconds = clock.elapsed().as_secs_f64();
            let mut point = Point {
                number,
                settings,
                evaluation: Metrics::new(),
                test: Metrics::new(),
                seconds,
                error: None,
            };
            match ran {
                Ok((watch, evaluation, test)) => {
                    if let Some(w) = &watch {
                        self.table.metric = Some(w.metric.clone());
                        self.table.higher_is_better = w.direction == Direction::Higher;
                    }
                    (point.evaluation, point.test) = (evaluation, test);
                }
                Err(e) => point.error = Some(e.to_string()),
            }
            self.take(point)?;
            self.write()?;
            if let Some(point) = self.table.done.last() {
                told(&self.table, point);
            }
        }
        self.finish()
    }

    /// Adds a point; its adapter is kept if it is the best so far.
    fn take(&mut self, point: Point) -> Result<(), JobError> {
        let better = self.table.value(&point).is_some_and(|value| match self.table.best_point() {
            None => true,
            Some(best) => self.table.value(best).is_none_or(|old| match self.table.higher_is_better {
                true => value > old,
                false => value < old,
            }),
        });
        let own = |n: usize| self.folder.join("points").join(n.to_string());
        let loser = if better { self.table.best.replace(point.number) } else { Some(point.number) };
        if let Some(n) = loser.filter(|_| !self.keep_all) {
            remove(&own(n))?;
        }
        self.table.done.push(point);
        Ok(())
    }

    /// Moves the best adapter to `best`.
    fn finish(&self) -> Result<(), JobError> {
        let Some(best) = self.table.best else {
            let first =
                self.table.done.iter().find_map(|p| p.error.as_deref()).unwrap_or("there are no points");
            return Err(JobError::Setup(format!(
                "no point of the sweep has an adapter; the first says: {first}"
            )));
        };
        let (from, to) = (self.folder.join("points").join(best.to_string()), self.folder.join("best"));
        if from.exists() {
            remove(&to)?;
            std::fs::rename(&from, &to).map_err(|e| io(&to, &e))?;
        }
        // Only an empty folder goes.
        std::fs::remove_dir(self.folder.join("points")).ok();
        Ok(())
    }

    fn write(&self) -> Result<(), JobError> {
        let json = serde_json::to_vec_pretty(&self.table).map_err(|e| JobError::Setup(e.to_string()))?;
        graft_adapters::write_file(&self.folder.join("sweep.json"), |w| w.write_all(&json))?;
        let text = self.table.markdown();
        Ok(graft_adapters::write_file(&self.folder.join("sweep.md"), |w| w.write_all(text.as_bytes()))?)
    }
}

type Ran = (Option<Watch>, Metrics, Metrics);

/// One point through the same job as `graft train`.
fn run(
    recipe: &Recipe,
    with: &Prepare<'_>,
    observer: &mut dyn FnMut(&Path) -> Box<dyn Observer>,
    interrupt: &Interrupt,
) -> Result<Ran, JobError> {
    let job = Job::prepare(recipe.clone(), with)?;
    let mut watching = observer(&recipe.out);
    let outcome = job.run(&mut [watching.as_mut()], interrupt)?;
    let test = outcome.test.into_iter().flatten().map(|m| (m.name, m.value)).collect();
    Ok((outcome.watch, outcome.report.evaluation.unwrap_or_default(), test))
}

impl Table {
    /// The value that a point is judged by; NaN is none.
    pub fn value(&self, point: &Point) -> Option<f64> {
        point.evaluation.get(self.metric.as_deref()?).copied().filter(|v| !v.is_nan())
    }

    /// The best point so far.
    pub fn best_point(&self) -> Option<&Point> {
        self.done.iter().find(|p| Some(p.number) == self.best)
    }

    /// The finished points as a Markdown table, the best in bold.
    pub fn markdown(&self) -> String {
        let names: indexmap::IndexSet<&String> = self.done.iter().flat_map(|p| p.evaluation.keys()).collect();
        let keys: indexmap::IndexSet<&String> = self.done.iter().flat_map(|p| p.settings.keys()).collect();
        let cell = |text: &str| text.replace('|', "\\|").replace('\n', " ");
        let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
        let titles = keys.iter().chain(&names).map(|k| cell(k));
        let mut text = line(["#".to_string()].into_iter().chain(titles).chain(["seconds".into()]).collect());
        text += &format!("|{}\n", "---|".repeat(keys.len() + names.len() + 2));
        for p in &self.done {
            let bold = |s: String| if Some(p.number) == self.best { format!("**{s}**") } else { s };
            let mut cells = vec![bold(p.number.to_string())];
            cells.extend(keys.iter().map(|k| cell(p.settings.get(*k).map_or("", String::as_str))));
            match &p.error {
                Some(e) => {
                    cells.push(format!("failed: {}", cell(e)));
                    cells.extend(names.iter().skip(1).map(|_| String::new()));
                }
                None => cells.extend(
                    names
                        .iter()
                        .map(|n| bold(p.evaluation.get(*n).map_or_else(String::new, |v| format!("{v:.4}")))),
                ),
            }
            cells.push(format!("{:.1}", p.seconds));
            text += &line(cells);
        }
        text
    }
}

/// What an interrupted sweep left, if it is the same as this one.
fn read(folder: &Path, fresh: &Table) -> Result<Table, JobError> {
    let path = folder.join("sweep.json");
    let bad = |what: &str| JobError::Setup(format!("{}: {what}", path.display()));
    let size =
        std::fs::metadata(&path).map_err(|e| bad(&format!("there is no sweep to go on with: {e}")))?.len();
    if size > MAX_FILE {
        return Err(bad("it is too large to be a sweep"));
    }
    let bytes = std::fs::read(&path).map_err(|e| io(&path, &e))?;
    let table: Table = serde_json::from_slice(&bytes)
        .map_err(|e| bad(&format!("it is no sweep that is known here: {e}")))?;
    if table.format != FORMAT || table.version != 1 {
        return Err(bad("it is of another format or a newer version"));
    }
    if table.recipes != fresh.recipes || table.points != fresh.points {
        return Err(bad("it is of another recipe or another grid; give the same ones, or another --out"));
    }
    let known = |p: &Point| (1..=table.points).contains(&p.number);
    if !table.done.iter().all(known) || table.best.is_some() && table.best_point().is_none() {
        return Err(bad("its points are not those of its grid"));
    }
    Ok(table)
}

fn remove(folder: &Path) -> Result<(), JobError> {
    match std::fs::remove_dir_all(folder) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(io(folder, &e)),
        _ => Ok(()),
    }
}

fn io(path: &Path, e: &std::io::Error) -> JobError {
    JobError::Setup(format!("{}: {e}", path.display()))
}
