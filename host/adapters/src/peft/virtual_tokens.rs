//! Virtual tokens as PEFT keeps them: soft prompts (Lester et al. 2021), those of P-tuning (Liu et al. 2021) and
//! prefixes (Li & Liang 2021). There is one tensor, `prompt_embeddings`, without the prefix that other keys have; what
//! an encoder or a projection made of others in training is kept as it came out.

use std::path::Path;

use graft_graph::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::settings::{is_default, short};
use super::{Common, PeftType, Sorted, head};
use crate::error::{Error, Result};
use crate::stored::{ParamKey, Parameters};
use crate::tensors::Tensors;

/// The only tensor of such an adapter besides its head.
const EMBEDDINGS: &str = "prompt_embeddings";

/// PEFT's `PromptTuningConfig`, `PromptEncoderConfig` or `PrefixTuningConfig`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VirtualTokensConfig {
    /// What every PEFT type has; its type says which of the three it is.
    #[serde(flatten)]
    pub common: Common,
    /// How many virtual tokens there are.
    pub num_virtual_tokens: usize,
    /// Width of a token; for a prefix that of the keys of all heads.
    #[serde(default)]
    pub token_dim: Option<usize>,
    /// Attentions of the base.
    #[serde(default)]
    pub num_layers: Option<usize>,
    /// Heads of keys and values.
    #[serde(default)]
    pub num_attention_heads: Option<usize>,
    /// 2 where a decoder beside an encoder has virtual tokens of its own.
    #[serde(default)]
    pub num_transformer_submodules: Option<usize>,
    /// Whether keys and values of a prefix came out of a projection; only a prefix has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix_projection: Option<bool>,
    /// Everything else, kept as it is.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl VirtualTokensConfig {
    /// A configuration at PEFT's defaults.
    pub fn new(peft_type: PeftType, num_virtual_tokens: usize) -> VirtualTokensConfig {
        VirtualTokensConfig {
            common: Common::new(peft_type),
            num_virtual_tokens,
            token_dim: None,
            num_layers: None,
            num_attention_heads: None,
            num_transformer_submodules: Some(1),
            prefix_projection: (peft_type == PeftType::PrefixTuning).then_some(false),
            other: Map::new(),
        }
    }

    pub(super) fn method(&self) -> &'static str {
        match self.common.peft_type {
            PeftType::PrefixTuning => "prefix-tuning",
            _ => "prompt-tuning",
        }
    }

    pub(super) fn unsupported(&self) -> Vec<String> {
        // How the tokens began, and the encoder that they came out of, change nothing in a trained adapter.
        let harmless = [
            "auto_mapping",
            "encoder_dropout",
            "encoder_hidden_size",
            "encoder_num_layers",
            "encoder_reparameterization_type",
            "init_weights",
            "prompt_tuning_init",
            "prompt_tuning_init_state_dict_path",
            "prompt_tuning_init_text",
            "revision",
            "tokenizer_kwargs",
            "tokenizer_name_or_path",
        ];
        let matters =
            |(name, value): &(&String, &Value)| !harmless.contains(&name.as_str()) && !is_default(value);
        self.other.iter().filter(matters).map(|(name, value)| format!("{name} = {}", short(value))).collect()
    }

    pub(super) fn sort(&self, path: &Path, tensors: Tensors) -> Result<Sorted> {
        let parameter = |rest: &str| match rest {
            EMBEDDINGS => Ok(ParamKey::new("", EMBEDDINGS)),
            _ => Err("it is neither `prompt_embeddings` nor in a module of `modules_to_save`"),
        };
        // The tokens alone have no prefix.
        let named = |(name, tensor)| match name == EMBEDDINGS {
            true => (format!("{BASE}{EMBEDDINGS}"), tensor),
            false => (name, tensor),
        };
        let tensors: Tensors = tensors.into_iter().map(named).collect();
        let mut out =
            head::sort_below(BASE, &self.common, path, tensors, |rest| rest == EMBEDDINGS, parameter)?;
        let Some(tokens) = out.parameters.values_mut().next() else {
            let why = "the file has no virtual tokens at all".to_string();
            return Err(Error::MissingTensor { path: path.to_path_buf(), tensor: EMBEDDINGS.into(), why });
        };
        let each = match self.common.peft_type {
            PeftType::PrefixTuning => 1,
            _ => self.num_transformer_submodules.unwrap_or(1).max(1),
        };
        match tokens.shape() {
            &[n, width] if Some(n) == self.num_virtual_tokens.checked_mul(each) && n > 0 => {
                // Beside a decoder PEFT keeps as many again, and reads the first part alone, for the encoder.
                if each > 1 {
                    let bytes = &tokens.bytes()[..tokens.bytes().len() / each];
                    let (dtype, shape) = (tokens.dtype(), vec![self.num_virtual_tokens, width]);
                    let first = Tensor::from_bytes(dtype, shape, bytes.to_vec().into());
                    *tokens = first.map_err(|e| Error::Compose { reason: e.to_string() })?;
                }
                Ok(out)
            }
            found => Err(Error::Shape {
                path: path.to_path_buf(),
                tensor: EMBEDDINGS.into(),
                found: found.to_vec(),
                expected: format!(
                    "[{}, width], a row for each virtual token",
                    self.num_virtual_tokens.saturating_mul(each)
                ),
            }),
        }
    }

    pub(super) fn key(&self, key: &ParamKey, _hooked: bool) -> String {
        key.to_string()
    }

    pub(super) fn target(&mut self, _parameters: &Parameters) {}

    pub(super) fn targets_exactly(&self, _parameters: &Parameters, _others: &[String]) -> bool {
        true
    }
}

/// What stands in front of the keys of heads. PEFT wraps nothing in the base, so the second `model.` is not there.
pub(super) const BASE: &str = "base_model.";
