//! Prints every node of a model with what is inferred of its outputs: `cargo run --example facts -- model.onnx`.
use graft_graph::dim::show;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: facts MODEL.onnx")?;
    let mut g = graft_graph::onnx::read(std::path::Path::new(&path))?;
    println!("raised: {:?}", graft_graph::raise::raise(&mut g));
    let model = graft_graph::model::describe(&g, None)?;
    let axes = graft_graph::axes::analyse(&g, &model.inputs);
    for n in &g.nodes {
        let o = n.output(0).map(|v| g.value(v).clone()).unwrap_or_default();
        let shape = o.fact.shape.as_deref().map_or("?".into(), show);
        println!("{:24} {shape:40} {:?} {}", n.op, o.fact.dtype, o.name);
        if let Some(v) = n.output(0) {
            let s = axes.summary(v);
            let positions: Vec<usize> = axes.sequences(v).into_iter().map(|(k, _)| k).collect();
            print!(
                "    batch {:?} sequences {positions:?} padding invisible {}",
                s.batch, s.padding_invisible
            );
            let reasons = [s.mixed_by, s.padding_by].into_iter().flatten().map(|r| format!("; {r}"));
            println!("{}", reasons.collect::<String>());
        }
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
    for a in graft_graph::sites::attentions(&g) {
        let (heads, bias) = ((a.heads, a.kv_heads, a.head_dim, a.value_dim), a.bias.is_some());
        println!("attention {} {heads:?} bias {bias}", a.path);
    }
    Ok(())
}
