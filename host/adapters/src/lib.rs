//! Adapter directories: the formats of Hugging Face PEFT and, for bottleneck adapters, of AdapterHub's library, Graft's
//! own file beside them, digests.
//!
//! An adapter is a directory:
//!
//! | file | what | who reads it |
//! |---|---|---|
//! | `adapter_config.json` | how the base is changed ([`PeftConfig`]) | PEFT and Graft |
//! | `adapter_model.safetensors` | the trained tensors under PEFT's keys | PEFT and Graft |
//! | `adapter.safetensors` | the same of a bottleneck adapter, under AdapterHub's keys ([`HubConfig`]) | AdapterHub and Graft |
//! | `head_config.json`, `model_head.safetensors` | its head, where it is a stock classifier's | AdapterHub and Graft |
//! | `graft.json` | objective, labels, base digest, plugins, provenance, a manifest ([`GraftFile`]) | Graft |
//! | `graft_parameters.safetensors` | the trained tensors of a method that PEFT has no format for, by the base's names | Graft |
//! | `graft_head.safetensors` | a head that stock PEFT cannot rebuild | Graft |
//!
//! [`load`] and [`save`] go between such a directory and a [`StoredAdapter`]; [`StoredAdapter::compose`] makes one
//! from trained tensors, [`StoredAdapter::bind`] fits one to a base, [`info`] sums one up. Saving either happens
//! completely or not at all. [`read_tensors`] and [`write_tensors`] are for safetensors files of any content.

mod align;
mod architecture;
mod atomic;
mod compose;
mod convert;
mod diff;
mod digest;
mod error;
mod finite;
mod graft_file;
mod hub;
mod info;
mod json;
mod load;
pub mod peft;
mod projections;
mod save;
mod stored;
mod tensors;

pub use align::{AlignError, Alignment, align};
pub use architecture::{Architecture, StockHead};
pub use atomic::{create_whole, write_file};
pub use compose::Composition;
pub use convert::{Plain, to_peft};
pub use diff::{AdapterDiff, ModuleDiff, SettingDiff, ShapeDiff, diff};
pub use digest::{digest_adapter, digest_bytes, digest_files};
pub use error::{Error, Result};
pub use graft_file::{
    BaseRef, Component, DataFile, FORMAT, GraftFile, HeadInfo, ObjectiveInfo, PluginRef, Training,
};
pub use hub::HubConfig;
pub use info::{AdapterInfo, PeftSupport, info};
pub use load::{load, load_digested};
pub use peft::{
    Ia3Config, LnTuningConfig, LoHaConfig, LoraConfig, PeftConfig, PeftType, Targets, VeraConfig,
    VirtualTokensConfig,
};
pub use projections::{Layer, Own, Projected, project};
pub use save::{install, keep, recover, save};
pub use stored::{Expected, Head, ParamKey, Parameters, StoredAdapter};
pub use tensors::{MAX_HEADER, Tensors, read_tensors, read_tensors_owned, write_tensors};

/// Where the adapter's files in a directory are: in their places, or in a set that was saved and whose move was cut off.
pub fn files_of(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    match dir.join(atomic::COMMITTED).is_dir() {
        true => FILES.iter().filter_map(|name| atomic::locate(dir, name)).collect(),
        false => FILES.iter().map(|name| dir.join(name)).filter(|p| p.exists()).collect(),
    }
}

/// PEFT's file with the configuration.
pub const CONFIG_FILE: &str = "adapter_config.json";
/// PEFT's file with the tensors.
pub const MODEL_FILE: &str = "adapter_model.safetensors";
/// AdapterHub's file with the tensors of an adapter.
pub const HUB_FILE: &str = "adapter.safetensors";
/// AdapterHub's file with the configuration of a head.
pub const HUB_HEAD_CONFIG: &str = "head_config.json";
/// AdapterHub's file with the tensors of a head.
pub const HUB_HEAD_FILE: &str = "model_head.safetensors";
/// Graft's own file.
pub const GRAFT_FILE: &str = "graft.json";
/// The head, where stock PEFT cannot rebuild it.
pub const HEAD_FILE: &str = "graft_head.safetensors";
/// The trained tensors of a method that PEFT has no format for.
pub const PARAMETERS_FILE: &str = "graft_parameters.safetensors";
/// Every file name that belongs to an adapter; whatever else lies in the directory is left alone.
pub const FILES: [&str; 8] = [
    CONFIG_FILE,
    MODEL_FILE,
    HUB_FILE,
    HUB_HEAD_CONFIG,
    HUB_HEAD_FILE,
    PARAMETERS_FILE,
    HEAD_FILE,
    GRAFT_FILE,
];
