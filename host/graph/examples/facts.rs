//! Prints every node of a model with what is inferred of its outputs: `cargo run --example facts -- model.onnx`.
use graft_graph::dim::show;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: facts MODEL.onnx")?;
    let mut g = graft_graph::onnx::read(std::path::Path::new(&path))?;
    println!("raised: {:?}", graft_graph::raise::raise(&mut g));
    for n in &g.nodes {
        let o = n.output(0).map(|v| g.value(v).clone()).unwrap_or_default();
        let shape = o.fact.shape.as_deref().map_or("?".into(), show);
        println!("{:24} {shape:40} {:?} {}", n.op, o.fact.dtype, o.name);
    }
    for s in graft_graph::sites::sites(&g) {
        println!(
            "{} {} {}x{} bias {}",
            s.kind.name(),
            s.path,
            s.in_features,
            s.out_features,
            s.bias.is_some()
        );
    }
    Ok(())
}
