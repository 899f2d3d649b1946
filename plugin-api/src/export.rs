//! Behind `export_plugin!`: instances, dispatch and the guard around every entry.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use prost::Message;

use crate::abi::{HostCallbacks, METHOD_EXTENSION, OBJECTIVE_EXTENSION, Reply};
use crate::config::{self, Config};
use crate::graph::Host;
use crate::guard::guarded;
use crate::wire::{self, plugin_op};
use crate::{Code, Error, Graph, Method, Objective, Result, Row, Summary, Tensor};

/// What a plugin library holds; built by `export_plugin!`.
#[derive(Debug)]
pub struct Plugin {
    /// Id, as in the manifest.
    pub id: &'static str,
    /// Version of the plugin.
    pub version: &'static str,
    /// Licence, as an SPDX expression.
    pub licence: &'static str,
    /// Extensions that the host must have.
    pub requires: &'static [&'static str],
    /// Methods and objectives.
    pub entries: &'static [Entry],
}

/// A method or objective of a plugin.
#[derive(Debug)]
pub struct Entry {
    /// The extension that it belongs to.
    pub extension: &'static str,
    /// Id.
    pub id: &'static str,
    /// One line.
    pub summary: &'static str,
    /// JSON Schema of the config.
    pub schema: fn() -> serde_json::Value,
    /// Examples: what for, and the config.
    pub examples: fn() -> Vec<(&'static str, serde_json::Value)>,
    create: fn(&str) -> Result<(Instance, String)>,
}

enum Instance {
    Method(Box<dyn AnyMethod>),
    Objective(Box<dyn AnyObjective>),
}

impl Entry {
    /// The entry of a method.
    pub const fn method<M: Method>() -> Entry {
        Entry {
            extension: METHOD_EXTENSION,
            id: M::ID,
            summary: M::SUMMARY,
            schema: schema::<M>,
            examples: || examples(M::examples()),
            create: |text| {
                let m: M = config::parse(text)?;
                m.check()?;
                let config = serde_json::to_string(&m)?;
                Ok((Instance::Method(Box::new(m)), config))
            },
        }
    }

    /// The entry of an objective.
    pub const fn objective<O: Objective>() -> Entry {
        Entry {
            extension: OBJECTIVE_EXTENSION,
            id: O::ID,
            summary: O::SUMMARY,
            schema: schema::<O>,
            examples: || examples(O::examples()),
            create: |text| {
                let o: O = config::parse(text)?;
                o.check()?;
                let config = serde_json::to_string(&o)?;
                Ok((Instance::Objective(Box::new(o)), config))
            },
        }
    }

    /// Reads and checks a config as an instance would; gives it back with every default filled in.
    ///
    /// # Errors
    /// As the author's `check`.
    pub fn check(&self, config: &str) -> Result<String> {
        (self.create)(config).map(|(_, c)| c)
    }
}

fn schema<C: Config>() -> serde_json::Value {
    schemars::schema_for!(C).to_value()
}

fn examples<C: Config>(list: Vec<(&'static str, C)>) -> Vec<(&'static str, serde_json::Value)> {
    list.into_iter().map(|(what, c)| (what, serde_json::to_value(c).unwrap_or_default())).collect()
}

trait AnyMethod: Send + Sync {
    fn apply(&self, graph: &Graph<'_>) -> Result<()>;
}

impl<M: Method> AnyMethod for M {
    fn apply(&self, graph: &Graph<'_>) -> Result<()> {
        Method::apply(self, graph)
    }
}

trait AnyObjective: Send + Sync {
    fn call(&self, op: u32, request: &[u8], host: &HostCallbacks) -> Result<Vec<u8>>;
}

impl<O: Objective> AnyObjective for O {
    fn call(&self, op: u32, request: &[u8], host: &HostCallbacks) -> Result<Vec<u8>> {
        Ok(match op {
            plugin_op::FIELDS => {
                let fields = self.fields().into_iter().map(Into::into).collect();
                wire::Fields { fields, calibrates: self.calibrates() }.encode_to_vec()
            }
            plugin_op::PREPARE => {
                let summary = Summary::from(decode::<wire::Summary>(request)?);
                let text = serde_json::to_string(&self.clone().prepare(&summary)?)?;
                wire::Json { text }.encode_to_vec()
            }
            plugin_op::CALIBRATE => {
                let text = serde_json::to_string(&self.clone().calibrate(&tensors(request)?)?)?;
                wire::Json { text }.encode_to_vec()
            }
            plugin_op::COLLATE => {
                let request: wire::Collate = decode(request)?;
                let rows: Vec<Row> = request.rows.into_iter().map(Row::from).collect();
                let tensors = self.collate(&Host::new(host), &rows, request.seed)?;
                wire::Tensors { tensors: tensors.into_iter().map(Into::into).collect() }.encode_to_vec()
            }
            plugin_op::BUILD => {
                let built = self.build(&Graph::new(host))?;
                let output = |(name, v): (String, crate::Value)| wire::Named { name, value: v.id() };
                let outputs = built.outputs.into_iter().map(output).collect();
                wire::Built { loss: built.loss.map_or(0, |v| v.id()), outputs }.encode_to_vec()
            }
            plugin_op::METRICS => {
                let metric = |m: crate::Metric| wire::Metric {
                    name: m.name,
                    value: m.value,
                    higher_is_better: m.higher_is_better,
                };
                let metrics = self.metrics(&tensors(request)?)?;
                wire::Metrics { metrics: metrics.into_iter().map(metric).collect() }.encode_to_vec()
            }
            plugin_op::DECODE => {
                let request: wire::Decode = decode(request)?;
                let rows: Vec<Row> = request.rows.into_iter().map(Row::from).collect();
                let tensors: Vec<Tensor> = request.tensors.into_iter().map(Tensor::from).collect();
                let answers = self.decode_rows(&Host::new(host), &rows, &tensors)?;
                wire::Answers { answers: answers.iter().map(ToString::to_string).collect() }.encode_to_vec()
            }
            _ => return unknown(op),
        })
    }
}

fn tensors(request: &[u8]) -> Result<Vec<Tensor>> {
    Ok(decode::<wire::Tensors>(request)?.tensors.into_iter().map(Tensor::from).collect())
}

fn decode<M: Message + Default>(bytes: &[u8]) -> Result<M> {
    M::decode(bytes)
        .map_err(|e| Error::new(Code::MALFORMED, format!("the host's request cannot be read: {e}")))
}

fn unknown<T>(op: u32) -> Result<T> {
    let what = plugin_op::name(op);
    Err(Error::new(Code::UNSUPPORTED, format!("operation {op} (`{what}`) is not one that this plugin knows"))
        .help("this host is newer than the plugin: build it against the newer API"))
}

struct Slot {
    instance: Instance,
    poison: OnceLock<String>,
}

static SLOTS: Mutex<BTreeMap<u64, Arc<Slot>>> = Mutex::new(BTreeMap::new());
static NEXT: AtomicU64 = AtomicU64::new(1);

thread_local! {
    static SITE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Remembers which site is worked on, so that a panic can say so.
pub(crate) fn set_site(path: &str) {
    SITE.with(|s| path.clone_into(&mut s.borrow_mut()));
}

/// The body of the exported function: nothing that happens in it unwinds into the host.
pub fn entry(plugin: &Plugin, op: u32, instance: u64, request: &[u8], host: &HostCallbacks) -> Reply {
    set_site("");
    let result = guarded(|| dispatch(plugin, op, instance, request, host)).unwrap_or_else(|p| {
        // Best effort within a guard of its own: the lock may be the very thing that broke.
        let poisoned = guarded(|| slot(instance).map(|s| s.poison.set(p.to_string())));
        drop(poisoned);
        let site = SITE.with(|s| s.try_borrow().map(|s| s.clone()).unwrap_or_default());
        let message = format!("the plugin panicked: {}", p.message);
        Err(Error { place: p.place, ..Error::new(Code::PANIC, message).at(&site) })
    });
    match result {
        Ok(bytes) => Reply::ROk(bytes.into()),
        Err(e) => Reply::RErr(wire::Error::from(e).encode_to_vec().into()),
    }
}

fn dispatch(
    plugin: &Plugin,
    op: u32,
    instance: u64,
    request: &[u8],
    host: &HostCallbacks,
) -> Result<Vec<u8>> {
    match op {
        plugin_op::HELLO => {
            let mut extensions: Vec<String> = plugin.entries.iter().map(|e| e.extension.to_owned()).collect();
            extensions.sort();
            extensions.dedup();
            let name = format!("{} {}", plugin.id, plugin.version);
            let requires = plugin.requires.iter().map(|r| (*r).to_owned()).collect();
            Ok(wire::Hello { extensions, name, requires }.encode_to_vec())
        }
        plugin_op::CREATE => create(plugin, &decode(request)?),
        plugin_op::DROP => {
            let gone = slots().remove(&instance);
            drop(gone);
            Ok(Vec::new())
        }
        _ => {
            let slot = slot(instance)
                .ok_or_else(|| Error::new(Code::MALFORMED, format!("there is no instance {instance}")))?;
            if let Some(why) = slot.poison.get() {
                let e = Error::new(Code::POISONED, format!("this instance panicked before: {why}"));
                return Err(e.help("make a new one; if it panics again, the plugin has a fault"));
            }
            match (&slot.instance, op) {
                (Instance::Method(m), plugin_op::APPLY) => m.apply(&Graph::new(host)).map(|()| Vec::new()),
                (Instance::Objective(o), _) => o.call(op, request, host),
                _ => unknown(op),
            }
        }
    }
}

fn create(plugin: &Plugin, request: &wire::Create) -> Result<Vec<u8>> {
    let mut entries = plugin.entries.iter();
    let Some(entry) = entries.find(|e| e.extension == request.extension && e.id == request.id) else {
        let what = format!("plugin `{}` has no `{}` of {}", plugin.id, request.id, request.extension);
        return Err(Error::new(Code::NOT_FOUND, what));
    };
    let (instance, config) = (entry.create)(&request.config)?;
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    slots().insert(number, Arc::new(Slot { instance, poison: OnceLock::new() }));
    Ok(wire::Created { instance: number, config }.encode_to_vec())
}

fn slots() -> std::sync::MutexGuard<'static, BTreeMap<u64, Arc<Slot>>> {
    SLOTS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn slot(instance: u64) -> Option<Arc<Slot>> {
    slots().get(&instance).cloned()
}
