//! One revision of an adapter in memory.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use graft_adapters::{AdapterInfo, StoredAdapter, files_of, info, load_digested};
use graft_tasks::binding::{Choice, objective_of};
use graft_tasks::{Base, Parts};
use serde_json::json;

use super::folder::{Stamp, formers};
use super::{Store, StoreError, check_name};
use crate::ask::{Provenance, Want};
use crate::form::{Form, Way};
use crate::tally::Tally;

/// The objective that makes vectors.
const VECTOR_OBJECTIVE: &str = "embedding";
/// How often files are read that change meanwhile.
pub(super) const TRIES: usize = 3;

/// An adapter as it is used: one revision of it.
pub struct Resident {
    /// Name, revision and digest.
    pub by: Provenance,
    /// The adapter as its folder had it, without its tensors; `None` for the base.
    pub stored: Option<StoredAdapter>,
    /// Its folder.
    pub dir: PathBuf,
    /// Where texts are cut.
    pub max_length: Option<usize>,
    /// Distinguishes residents from each other, also from former ones of the same name.
    pub id: u64,
    /// What it is, in a few lines; `None` for the base.
    pub info: Option<AdapterInfo>,
    /// The labels in the order of the head's outputs, or the names of its numbers; none for vectors.
    pub labels: Vec<String>,
    /// What it answered.
    pub tally: Tally,
    /// The lane that its rows are run in, once it was asked.
    pub(crate) lane: OnceLock<usize>,
    own: Option<Form>,
    vector: OnceLock<Form>,
}

impl Resident {
    /// The base as it is.
    pub(super) fn bare(base: &Base) -> Result<Resident, StoreError> {
        Ok(Resident {
            by: Provenance { adapter: None, revision: 0, digest: base.digest()?.into() },
            stored: None,
            dir: base.dir.clone(),
            max_length: base.max_length(None, 0)?,
            id: 0,
            info: None,
            labels: Vec::new(),
            tally: Tally::default(),
            lane: OnceLock::new(),
            own: None,
            vector: OnceLock::new(),
        })
    }

    /// The adapter's name; empty for the base.
    pub(super) fn name(&self) -> &str {
        self.by.adapter.as_deref().unwrap_or_default()
    }

    /// The same, read from a folder that has another place now.
    pub(super) fn moved(mut self, dir: &Path) -> Resident {
        if let Some(stored) = &mut self.stored {
            stored.dir = dir.to_owned();
        }
        self.dir = dir.to_owned();
        self
    }

    /// Bytes of its tensors in memory.
    pub fn bytes(&self) -> usize {
        self.info.as_ref().map_or(0, |i| i.bytes)
    }

    /// Whether vectors were asked of it that its own head does not give.
    pub(super) fn has_vectors(&self) -> bool {
        self.vector.get().is_some()
    }

    /// The id of the adapter's own objective (`classification`); none for the base and for adapters without a head.
    pub fn objective(&self) -> Option<&str> {
        self.own.as_ref()?.objective().ok().map(|o| o.id())
    }

    /// Its fragments, with its own objective and with that for vectors, as far as it has any.
    pub fn shared(&self) -> impl Iterator<Item = &Parts> {
        self.own.iter().chain(self.vector.get()).filter_map(|f| match &f.way {
            Way::Shared(parts, _) => Some(&**parts),
            Way::Alone(_) => None,
        })
    }

    /// The adapter with what makes the wanted of its hidden states; `None` where it has no objective of its own.
    ///
    /// # Errors
    /// Why vectors can't be had, in words.
    pub fn form(&self, store: &Store, want: Want) -> std::result::Result<Option<&Form>, String> {
        if want == Want::Vector && self.made(want).is_none() {
            // What fails today may not tomorrow: only what was made is kept.
            let made = store.vectors_of(self).map_err(|e| e.to_string())?;
            let _ = self.vector.set(made);
        }
        Ok(self.made(want))
    }

    /// Whether it can be run for that without first making or waiting for something.
    pub fn is_ready(&self, want: Want) -> bool {
        self.made(want).is_some_and(|f| matches!(f.way, Way::Shared(..)))
    }

    fn made(&self, want: Want) -> Option<&Form> {
        match want {
            Want::Answer | Want::Scores => self.own.as_ref(),
            Want::Vector => {
                self.own.as_ref().filter(|f| f.is(VECTOR_OBJECTIVE)).or_else(|| self.vector.get())
            }
        }
    }
}

impl Store {
    /// Reads the adapter in `dir` and fits it to the base, without anybody seeing it.
    ///
    /// # Errors
    /// A name that can't be one; an adapter that can't be read or does not fit.
    pub fn fit(&self, name: &str, dir: &Path) -> Result<Resident, StoreError> {
        check_name(name)?;
        self.memory.room(name, bytes_of(dir))?;
        let (mut stored, digest) = read(dir)?;
        let own = self.form_of(Some(&stored), None)?;
        // An adapter without a head has nothing else to give; why it can't is told to who asks.
        let vector = match own {
            None => self.form_of(Some(&stored), Some(&vectors())).ok().flatten(),
            Some(_) => None,
        };
        let (labels, info) = (labels(&self.base, &stored), info(&stored));
        // Its numbers are in its forms, and then in banks, but not here as well.
        stored.parameters.clear();
        stored.head = None;
        let virtual_tokens = own.as_ref().map_or(0, |f| f.virtual_tokens);
        let trained = stored.graft.as_ref().and_then(|g| g.training.as_ref());
        let trained = trained.and_then(|t| usize::try_from(t.recipe.get("max_length")?.as_u64()?).ok());
        // What an adapter's own file says is no reason to go beyond the base.
        let max_length = self.base.max_length(trained.filter(|n| *n > 0), virtual_tokens)?;
        let max_length = max_length.into_iter().chain(self.base.longest()).min();
        self.memory.room(name, 0)?;
        Ok(Resident {
            by: Provenance { adapter: Some(name.into()), revision: 0, digest: digest.into() },
            stored: Some(stored),
            dir: dir.to_path_buf(),
            max_length,
            id: self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed),
            info: Some(info),
            labels,
            tally: Tally::default(),
            lane: OnceLock::new(),
            own,
            vector: vector.map(OnceLock::from).unwrap_or_default(),
        })
    }

    /// An adapter as it is run, with a place for it in the session that adapters share.
    fn form_of(
        &self,
        stored: Option<&StoredAdapter>,
        instead: Option<&Choice>,
    ) -> Result<Option<Form>, StoreError> {
        let form = Form::open(&self.base, &self.rooms, stored, instead, &self.plugin_dirs)?;
        if let Some(Way::Alone(alone)) = form.as_ref().map(|f| &f.way) {
            tracing::info!("{} has passes of its own: {}", alone.fitted.name, alone.why);
        }
        Ok(form)
    }

    /// What makes vectors; of the first adapter of its kind, and of others that can't share a batch, with the tensors read
    /// from its folder once more.
    fn vectors_of(&self, resident: &Resident) -> Result<Form, StoreError> {
        let own = resident.own.as_ref();
        if let Some(form) = own.and_then(|own| own.with(&self.base, &self.rooms, &vectors())) {
            return Ok(form);
        }
        if let Some(name) = &resident.by.adapter {
            self.memory.room(name, bytes_of(&resident.dir))?;
        }
        let stored = resident.stored.is_some().then(|| self.reload(resident)).transpose()?;
        let form = self.form_of(stored.as_ref(), Some(&vectors()))?;
        form.ok_or_else(|| StoreError::Unknown(resident.name().to_owned()))
    }

    /// The adapter of a resident with its tensors: from its folder, or from where the files are kept of what was replaced.
    fn reload(&self, resident: &Resident) -> Result<StoredAdapter, StoreError> {
        let kept = self.root().map(|root| formers(root, resident.name())).unwrap_or_default();
        for dir in [&resident.dir].into_iter().chain(&kept) {
            if let Ok((stored, digest)) = read(dir)
                && digest == *resident.by.digest
            {
                return Ok(stored);
            }
        }
        Err(StoreError::Replaced(resident.name().to_owned()))
    }
}

/// Bytes of an adapter's files.
fn bytes_of(dir: &Path) -> u64 {
    files_of(dir).iter().filter_map(|f| f.metadata().ok()).map(|m| m.len()).sum()
}

fn vectors() -> Choice {
    Choice { id: VECTOR_OBJECTIVE.into(), config: json!({}) }
}

/// An adapter and the digest of its files, which somebody may be replacing meanwhile.
fn read(dir: &Path) -> Result<(StoredAdapter, String), StoreError> {
    for _ in 0..TRIES {
        let seen = Stamp::of(dir);
        let read = load_digested(dir);
        if seen.is_none() || seen == Stamp::of(dir) {
            return Ok(read?);
        }
    }
    Err(StoreError::restless(dir))
}

/// The names of what a head gives, in order.
fn labels(base: &Base, stored: &StoredAdapter) -> Vec<String> {
    if let Some(g) = stored.graft.as_ref().filter(|g| !g.objective.labels.is_empty()) {
        return g.objective.labels.clone();
    }
    let config = objective_of(base, stored).map(|c| c.config).unwrap_or_default();
    let list = ["labels", "targets"].into_iter().find_map(|key| config.get(key)?.as_array().cloned());
    list.unwrap_or_default().iter().filter_map(|l| l.as_str().map(str::to_owned)).collect()
}
