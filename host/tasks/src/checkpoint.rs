//! What an exported base or an adapter lacks, taken from the checkpoint that the base was exported from: the pooler,
//! which exporters drop where no output needs it, and a head that stands in the model and not in the adapter.

use std::path::Path;

use graft_adapters::{Architecture, Head, StoredAdapter, Tensors, read_tensors};
use graft_graph::model::Model;
use graft_graph::{Builder, Graph, Tensor};

use crate::binding::as_f32;
use crate::error::{Result, TaskError};

/// The tensors of a checkpoint directory of Hugging Face's.
#[derive(Debug)]
pub struct Checkpoint {
    tensors: Tensors,
}

impl Checkpoint {
    /// Maps `model.safetensors` of a directory.
    ///
    /// # Errors
    /// [`TaskError::Input`] where there is none; a file that is damaged.
    pub fn open(dir: &Path) -> Result<Checkpoint> {
        let file = dir.join("model.safetensors");
        if !file.is_file() {
            let split = dir.join("model.safetensors.index.json").is_file();
            let detail = if split {
                "its weights are in several files; save them as one"
            } else {
                "it has no model.safetensors"
            };
            return Err(TaskError::Input {
                what: format!("checkpoint {}", dir.display()),
                detail: detail.into(),
            });
        }
        Ok(Checkpoint { tensors: read_tensors(&file)? })
    }

    /// The tensor of which the name is `name` or ends with it, in f32.
    fn find(&self, name: &str) -> Result<Option<Tensor>> {
        let is = |k: &str| k == name || k.strip_suffix(name).is_some_and(|front| front.ends_with('.'));
        self.tensors.iter().find(|(k, _)| is(k)).map(|(_, t)| as_f32(t.clone())).transpose()
    }

    /// Gives a base that has hidden states but no pooled output the checkpoint's pooler, where that is BERT's: a linear
    /// layer over the first token, and tanh.
    ///
    /// # Errors
    /// A pooler whose shapes do not fit the hidden states.
    pub(crate) fn add_pooler(&self, graph: &mut Graph, model: &mut Model) -> Result<()> {
        let (Some(hidden), None) = (model.hidden, model.pooled) else { return Ok(()) };
        let (Some(weight), Some(bias)) = (self.find("pooler.dense.weight")?, self.find("pooler.dense.bias")?)
        else {
            return Ok(());
        };
        let width = graph.shape(hidden).and_then(|s| s.last()?.known()).and_then(|n| usize::try_from(n).ok());
        let fits =
            matches!((weight.shape(), bias.shape()), (&[out, into], &[b]) if out == b && Some(into) == width);
        if !fits {
            return Err(TaskError::Input {
                what: "the checkpoint".into(),
                detail: format!(
                    "its pooler of shape {:?} does not fit hidden states of width {width:?}: it is another base's",
                    weight.shape()
                ),
            });
        }
        let mut b = Builder::new(graph, "/pooler/");
        let first = b.scalar(0i64);
        let first = b.op_with("Gather", &[hidden, first], &[("axis", 1i64.into())]);
        let (weight, bias) = (b.constant(weight), b.constant(bias));
        let y = b.op_with("Gemm", &[first, weight, bias], &[("transB", 1i64.into())]);
        model.pooled = Some(b.op("Tanh", &[y]));
        Ok(())
    }

    /// Gives an adapter of PEFT's that brings no head the one that the checkpoint has, where a stock classifier of the
    /// architecture has one.
    ///
    /// # Errors
    /// Only where a tensor can't be read.
    pub fn add_head(&self, architecture: Option<&Architecture>, adapter: &mut StoredAdapter) -> Result<()> {
        let Some(stock) = architecture.and_then(|a| a.head.as_ref()) else { return Ok(()) };
        if adapter.head.is_some() || adapter.graft.is_some() {
            return Ok(());
        }
        let mut tensors = Tensors::new();
        for name in ["weight", "bias"] {
            if let Some(t) = self.find(&format!("{}.{name}", stock.module))? {
                tensors.insert(name.to_string(), t);
            }
        }
        if tensors.contains_key("weight") {
            adapter.head = Some(Head { module: Some(stock.module.to_string()), tensors });
        }
        Ok(())
    }
}
