//! Weights as a recipe asks for them: by name and shape, as f32, and for linear layers turned to `[in, out]`.

use std::collections::HashSet;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use graft_graph::{DType, Element, Tensor};

use crate::checkpoint::Tensors;
use crate::error::{ImportError, Result};

/// Edge of the square that is turned at once, in elements: two of them fit into the first-level cache.
const TILE: usize = 32;
/// Names that old checkpoints use for a norm's parameters.
const OLD_NAMES: &[(&str, &str)] = &[(".weight", ".gamma"), (".bias", ".beta")];

/// The tensors of a checkpoint, and which of them were used.
pub(crate) struct Weights {
    dir: PathBuf,
    tensors: Tensors,
    used: HashSet<String>,
    prefix: String,
    spill: Spill,
}

impl Weights {
    /// `scratch` is a directory with room for what has to be rewritten.
    pub(crate) fn new(dir: &Path, tensors: Tensors, scratch: &Path) -> Result<Weights> {
        let spill = Spill::new(scratch)?;
        Ok(Weights { dir: dir.into(), tensors, used: HashSet::new(), prefix: String::new(), spill })
    }

    /// Finds out whether names begin with one of `prefixes` (checkpoints of a model with a head do) by looking for
    /// `anchor`; without one they are taken to have none.
    pub(crate) fn find_prefix(&mut self, prefixes: &[&str], anchor: &str) {
        let found = prefixes.iter().find(|p| self.tensors.contains_key(&format!("{p}{anchor}")));
        self.prefix = found.map(|p| p.to_string()).unwrap_or_default();
    }

    /// The name under which the checkpoint has `name`.
    fn stored_name(&self, name: &str) -> Option<String> {
        let full = format!("{}{name}", self.prefix);
        let old = OLD_NAMES.iter().filter_map(|(new, old)| Some(format!("{}{old}", full.strip_suffix(new)?)));
        std::iter::once(full.clone()).chain(old).find(|n| self.tensors.contains_key(n))
    }

    /// True when the checkpoint has that tensor.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.stored_name(name).is_some()
    }

    fn take(&mut self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let Some(stored) = self.stored_name(name) else { return Err(self.missing(name)) };
        let tensor = self.tensors[&stored].clone();
        if tensor.shape() != shape {
            return Err(ImportError::TensorShape {
                dir: self.dir.clone(),
                tensor: stored,
                found: tensor.shape().to_vec(),
                expected: shape.to_vec(),
            });
        }
        if !tensor.dtype().is_float() {
            let dtype = tensor.dtype().to_string();
            return Err(ImportError::TensorType { dir: self.dir.clone(), tensor: stored, dtype });
        }
        self.used.insert(stored);
        Ok(tensor)
    }

    fn missing(&self, name: &str) -> ImportError {
        let tensor = format!("{}{name}", self.prefix);
        let mut near: Vec<(f64, &String)> =
            self.tensors.keys().map(|k| (strsim::jaro_winkler(k, &tensor), k)).collect();
        near.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
        let near: Vec<&str> = near.iter().take(3).map(|(_, k)| k.as_str()).collect();
        let nearest = if near.is_empty() { "there are no tensors".into() } else { near.join(", ") };
        ImportError::MissingTensor { dir: self.dir.clone(), tensor, nearest }
    }

    /// The tensor of that name (without the checkpoint's prefix) as f32; f32 stays where it is mapped.
    ///
    /// # Errors
    /// [`ImportError::MissingTensor`], [`ImportError::TensorShape`], [`ImportError::TensorType`], or an I/O error.
    pub(crate) fn get(&mut self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let t = self.take(name, shape)?;
        if t.dtype() == DType::F32 {
            return Ok(t);
        }
        let values = to_f32(&t);
        self.spill.tensor(shape, &values)
    }

    /// The weight `[out, in]` of a linear layer as f32 `[in, out]`: what a MatMul takes, and what ONNX Runtime packs.
    ///
    /// # Errors
    /// As [`Weights::get`].
    pub(crate) fn get_transposed(&mut self, name: &str, out: usize, input: usize) -> Result<Tensor> {
        let t = self.take(name, &[out, input])?;
        let turned = match t.values::<f32>() {
            Ok(values) => transpose(&values, out, input),
            Err(_) => transpose(&to_f32(&t), out, input),
        };
        self.spill.tensor(&[input, out], &turned)
    }

    /// Names of the checkpoint's tensors that nothing asked for.
    pub(crate) fn unused(&self) -> Vec<String> {
        self.tensors.keys().filter(|k| !self.used.contains(*k)).cloned().collect()
    }
}

/// Elements of any float type as f32.
fn to_f32(t: &Tensor) -> Vec<f32> {
    fn all<T: Element>(t: &Tensor, f: impl Fn(T) -> f32) -> Vec<f32> {
        t.values::<T>().map(|v| v.iter().map(|x| f(*x)).collect()).unwrap_or_default()
    }
    match t.dtype() {
        DType::F16 => all::<half::f16>(t, half::f16::to_f32),
        DType::BF16 => all::<half::bf16>(t, half::bf16::to_f32),
        DType::F64 => all::<f64>(t, |v| v as f32),
        _ => all::<f32>(t, |v| v),
    }
}

/// `[rows, columns]` → `[columns, rows]`, tile by tile.
fn transpose(x: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let mut y = vec![0.0; x.len()];
    for r0 in (0..rows).step_by(TILE) {
        for c0 in (0..columns).step_by(TILE) {
            for r in r0..(r0 + TILE).min(rows) {
                for c in c0..(c0 + TILE).min(columns) {
                    y[c * rows + r] = x[r * columns + c];
                }
            }
        }
    }
    y
}

/// Tensors that had to be rewritten, in a nameless file: memory holds one of them at a time.
struct Spill {
    file: File,
    length: u64,
    dir: PathBuf,
}

impl Spill {
    fn new(dir: &Path) -> Result<Spill> {
        let file = tempfile::tempfile_in(dir).map_err(ImportError::io(dir, "making a temporary file"))?;
        Ok(Spill { file, length: 0, dir: dir.into() })
    }

    fn tensor(&mut self, shape: &[usize], values: &[f32]) -> Result<Tensor> {
        let failed = |doing| ImportError::io(&self.dir, doing);
        let mut bytes = Vec::with_capacity(size_of_val(values));
        values.iter().for_each(|v| bytes.extend_from_slice(&v.to_le_bytes()));
        self.file.write_all(&bytes).map_err(failed("writing a temporary file"))?;
        let mut options = memmap2::MmapOptions::new();
        options.offset(self.length).len(bytes.len());
        // SAFETY: the file has no name, so that no other program can shorten it, and what was written to it is
        // never written again.
        let map = unsafe { options.map(&self.file) }.map_err(failed("mapping a temporary file"))?;
        self.length += bytes.len() as u64;
        Tensor::from_bytes(DType::F32, shape, Bytes::from_owner(map)).map_err(|e| {
            let source = std::io::Error::other(e);
            ImportError::Io { path: self.dir.clone(), doing: "mapping a temporary file", source }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transposing_reaches_every_element() {
        let (rows, columns) = (70, 33);
        let x: Vec<f32> = (0..rows * columns).map(|v| v as f32).collect();
        let y = transpose(&x, rows, columns);
        for r in 0..rows {
            for c in 0..columns {
                assert_eq!(y[c * rows + r], x[r * columns + c]);
            }
        }
    }

    #[test]
    fn halves_are_widened_and_turned() {
        let dir = tempfile::tempdir().unwrap();
        let halves: Vec<half::bf16> = (0..6).map(|v| half::bf16::from_f32(v as f32)).collect();
        let t = Tensor::new([2, 3], &halves).unwrap();
        let tensors = Tensors::from([("bert.a.weight".to_string(), t)]);
        let mut w = Weights::new(dir.path(), tensors, dir.path()).unwrap();
        w.find_prefix(&["", "bert."], "a.weight");
        let turned = w.get_transposed("a.weight", 2, 3).unwrap();
        assert_eq!(turned.shape(), [3, 2]);
        assert_eq!(&*turned.values::<f32>().unwrap(), &[0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
        assert_eq!(
            &*w.get("a.weight", &[2, 3]).unwrap().values::<f32>().unwrap(),
            &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
        );
        assert!(w.unused().is_empty());
    }
}
