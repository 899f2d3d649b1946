//! Imports a checkpoint: `cargo run --release -p graft-models --example import -- HF_DIR OUT_DIR`.

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(from), Some(to)) = (args.next(), args.next()) else {
        return Err("usage: import HF_DIR OUT_DIR".into());
    };
    println!("{:#?}", graft_models::import(&from, &to)?);
    Ok(())
}
