//! Adapters for the server: one that was trained, and as many like it as are wanted, each with numbers of its own.

use std::fs;
use std::path::{Path, PathBuf};

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use crate::bench::Bench;
use crate::error::{Error, Result, io};
use crate::process;
use crate::stamp::{self, Inputs};

const WEIGHTS: &str = "adapter_model.safetensors";
const CONFIG: &str = "adapter_config.json";
/// Has digests of the other files.
const MANIFEST: &str = "graft.json";

/// Makes folders of adapters.
pub struct Maker {
    template: PathBuf,
    folder: PathBuf,
}

impl Maker {
    /// Trains the adapter that the others are like, unless it is there: LoRA r = 8 on all linear layers, an epoch of TREC.
    ///
    /// # Errors
    /// When the run fails.
    pub fn new(bench: &Bench<'_>) -> Result<Maker> {
        let (folder, name) = (bench.folder.join("serve"), "serve-template");
        fs::create_dir_all(&folder).map_err(io("cannot make the folder", &folder))?;
        let template = bench.folder.join("adapters").join(name);
        let made_of = Inputs::new().file(&bench.base().join("model.onnx"))?.file(&bench.trec.train)?;
        let stamp = made_of.stamp(&template);
        if !stamp.holds() {
            stamp.clear()?;
            let mut command = bench.graft_train("lora", name)?;
            command.args(["--set", "method.target_modules=all-linear", "--set", "objective.pooling=pooled"]);
            process::run(command.args(["--epochs", "1", "--batch-size", "32", "--lr", "1e-3"]))?;
            stamp.set()?;
        }
        Ok(Maker { template, folder })
    }

    /// Bytes of the tensors of an adapter.
    ///
    /// # Errors
    /// When they can't be read.
    pub fn bytes(&self) -> Result<u64> {
        let file = self.template.join(WEIGHTS);
        Ok(fs::metadata(&file).map_err(io("cannot read", &file))?.len())
    }

    /// A folder `name` with so many adapters, `a0000`, `a0001` and so on. What was there before is removed.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn folder(&self, name: &str, count: usize) -> Result<PathBuf> {
        let folder = self.folder.join(name);
        stamp::remove(&folder).map_err(io("cannot remove", &folder))?;
        let weights = self.template.join(WEIGHTS);
        let bytes = fs::read(&weights).map_err(io("cannot read", &weights))?;
        let manifest = self.template.join(MANIFEST);
        let text = fs::read(&manifest).map_err(io("cannot read", &manifest))?;
        let mut described: serde_json::Value = serde_json::from_slice(&text)
            .map_err(|e| Error::Tensors { path: manifest.clone(), detail: e.to_string() })?;
        for n in 0..count {
            let to = folder.join(format!("a{n:04}"));
            fs::create_dir_all(&to).map_err(io("cannot make the folder", &to))?;
            let write = |name: &str, bytes: &[u8]| {
                let file = to.join(name);
                fs::write(&file, bytes).map_err(io("cannot write", &file))
            };
            let config = self.template.join(CONFIG);
            write(CONFIG, &fs::read(&config).map_err(io("cannot read", &config))?)?;
            let own = varied(&bytes, n as u64, &to)?;
            described["files"][WEIGHTS] = format!("blake3:{}", blake3::hash(&own).to_hex()).into();
            write(WEIGHTS, &own)?;
            write(MANIFEST, described.to_string().as_bytes())?;
        }
        Ok(folder)
    }
}

/// Removes a folder that is needed no more: thousands of adapters are gigabytes.
///
/// # Errors
/// When it can't be removed.
pub fn remove(folder: &Path) -> Result<()> {
    stamp::remove(folder).map_err(io("cannot remove", folder))
}

/// The tensors with each number changed by up to a tenth of itself, for the folder `to`.
fn varied(bytes: &[u8], seed: u64, to: &Path) -> Result<Vec<u8>> {
    let odd = |e: safetensors::SafeTensorError| Error::Tensors { path: to.to_owned(), detail: e.to_string() };
    let tensors = SafeTensors::deserialize(bytes).map_err(odd)?;
    let mut state = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut noise = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        1.0 + ((state >> 40) as f32 / 16_777_216.0 - 0.5) * 0.2
    };
    let mut all = Vec::new();
    for (name, tensor) in tensors.tensors() {
        let values = tensor.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b) * noise());
        let data: Vec<u8> = match tensor.dtype() {
            Dtype::F32 => values.flat_map(f32::to_le_bytes).collect(),
            _ => tensor.data().to_vec(),
        };
        all.push((name, tensor.dtype(), tensor.shape().to_vec(), data));
    }
    let views: Vec<(&str, TensorView<'_>)> = all
        .iter()
        .map(|(name, dtype, shape, data)| {
            Ok((name.as_str(), TensorView::new(*dtype, shape.clone(), data).map_err(odd)?))
        })
        .collect::<Result<_>>()?;
    safetensors::serialize(views, None).map_err(odd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_seed_gives_other_numbers_of_the_same_shape() {
        let values: Vec<u8> = [1f32, -2.0, 0.0].iter().flat_map(|x| x.to_le_bytes()).collect();
        let view = TensorView::new(Dtype::F32, vec![3, 1], &values).unwrap();
        let bytes = safetensors::serialize([("a", view)], None).unwrap();
        let read = |seed: u64| {
            let all = varied(&bytes, seed, Path::new("x")).unwrap();
            let tensors = SafeTensors::deserialize(&all).unwrap();
            let tensor = tensors.tensor("a").unwrap();
            assert_eq!(tensor.shape(), [3, 1]);
            tensor.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect::<Vec<_>>()
        };
        let (one, two) = (read(1), read(2));
        assert_ne!(one, two);
        for (x, was) in one.iter().zip([1f32, -2.0, 0.0]) {
            assert!((x - was).abs() <= was.abs() * 0.1);
        }
    }
}
