use super::*;
use crate::sites::sites;
use crate::{Attr, Builder, DType, Dim};

const IN: usize = 3;
const OUT: usize = 2;

/// `y = x·W + b` with the module's path in the node's name, and the module.
fn base() -> (Graph, Site) {
    let mut g = Graph::new("base", 20);
    let x = g.add_input("x", DType::F32, vec![Dim::from("batch"), Dim::from("seq"), Dim::from(IN)]);
    let w = g.add_constant("fc.weight", tensor([IN, OUT], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]));
    let b = g.add_constant("fc.bias", tensor([OUT], &[0.5, -0.5]));
    let product = Builder::new(&mut g, "").op("MatMul", &[x, w]);
    g.nodes[0].name = "/fc/MatMul".into();
    let y = Builder::new(&mut g, "").op("Add", &[product, b]);
    g.outputs = vec![y];
    g.rename(y, "y");
    let site = sites(&g).remove(0);
    (g, site)
}

fn tensor<const N: usize>(shape: [usize; N], values: &[f32]) -> Tensor {
    Tensor::new(shape.to_vec(), values).expect("it fits")
}

/// Puts what `wrap` makes of input and output in the place of the output.
fn wrapped(
    g: &mut Graph,
    site: &Site,
    wrap: impl Fn(&mut Builder<'_>, ValueId, ValueId) -> ValueId,
) -> Change {
    let made = wrap(&mut Builder::new(g, ""), site.input, site.output);
    g.outputs = vec![made];
    g.rename(made, "y");
    Change { site: site.clone(), input: site.input, output: made }
}

fn lora(b: &mut Builder<'_>, x: ValueId, y: ValueId) -> ValueId {
    let down = b.constant(tensor([IN, 1], &[1.0, 0.0, -1.0]));
    let up = b.constant(tensor([1, OUT], &[2.0, 1.0]));
    let half = b.scalar(0.5f32);
    let narrow = b.op("MatMul", &[x, down]);
    let scaled = b.op("Mul", &[narrow, half]);
    let wide = b.op("MatMul", &[scaled, up]);
    b.op("Add", &[y, wide])
}

fn ops(g: &Graph) -> Vec<&str> {
    g.nodes.iter().map(|n| n.op.as_str()).collect()
}

#[test]
fn a_product_beside_the_module_becomes_its_weight_and_the_graph_is_the_bases_again() {
    let (mut g, site) = base();
    let change = wrapped(&mut g, &site, lora);
    let folded = fold(&g, &[change]).expect("it is linear");
    assert_eq!(folded.computed.len(), 1, "the bias stays");
    assert_eq!(folded.computed[0].replaces, site.weight);
    assert_eq!(ops(&folded.sums()), ["Reshape", "Mul", "MatMul", "Add"], "W + (A·s)·B, s as a scalar");
    assert!(folded.untied.is_empty());
    let new = tensor([IN, OUT], &[2.0, 2.5, 3.0, 4.0, 4.0, 5.5]);
    let g = folded.finish(vec![new.clone()]);
    assert_eq!(ops(&g), ["MatMul", "Add"]);
    assert_eq!(g.constant(g.find("fc.weight").expect("the name stays")), Some(&new));
    assert_eq!(g.name_of(g.outputs[0]), "y");
    assert_eq!(g.constants().count(), 2);
}

#[test]
fn a_scaled_output_scales_weight_and_bias() {
    let (mut g, site) = base();
    let change = wrapped(&mut g, &site, |b, _, y| {
        let l = b.constant(tensor([OUT], &[2.0, 3.0]));
        b.op("Mul", &[y, l])
    });
    let folded = fold(&g, &[change]).expect("it is linear");
    let replaced: Vec<ValueId> = folded.computed.iter().map(|c| c.replaces).collect();
    assert_eq!(replaced.len(), 2);
    assert!(replaced.contains(&site.weight) && replaced.contains(&site.bias.expect("it has one")));
}

#[test]
fn a_weight_with_another_use_is_untied() {
    let (mut g, site) = base();
    let change = wrapped(&mut g, &site, lora);
    let x = g.inputs[0];
    let twice = Builder::new(&mut g, "").op("MatMul", &[x, site.weight]);
    g.outputs.push(twice);
    let folded = fold(&g, &[change]).expect("it is linear");
    assert_eq!(folded.untied, ["fc"]);
    let g = folded.finish(vec![tensor([IN, OUT], &[0.0; 6])]);
    let old = g.constant(site.weight).expect("the other use keeps it");
    assert_eq!(old.values::<f32>().expect("f32")[5], 6.0);
}

#[test]
fn what_is_not_affine_is_refused_with_its_operator() {
    let (mut g, site) = base();
    let change = wrapped(&mut g, &site, |b, _, y| b.op("Relu", &[y]));
    let e = fold(&g, &[change]).err().expect("it is refused");
    assert_eq!(e.site, "fc");
    assert!(e.detail.contains("Relu"), "{e}");
}

#[test]
fn a_square_a_residual_and_a_number_for_each_position_are_refused() {
    type Wrap = fn(&mut Builder<'_>, ValueId, ValueId) -> ValueId;
    let cases: [(Wrap, &str); 4] = [
        (|b, _, y| b.op("Mul", &[y, y]), "multiplied by itself"),
        (
            |b, _, y| {
                let c = b.constant(tensor([4, 1], &[1.0; 4]));
                b.op("Mul", &[y, c])
            },
            "row to row",
        ),
        (
            |b, _, y| {
                let c = b.constant(tensor([1], &[1.0]));
                b.op("Add", &[y, c])
            },
            "one number for each",
        ),
        (|b, _, y| b.op_with("Softmax", &[y], &[("axis", Attr::Int(-1))]), "Softmax"),
    ];
    for (wrap, words) in cases {
        let (mut g, site) = base();
        let change = wrapped(&mut g, &site, wrap);
        let e = fold(&g, &[change]).err().expect("it is refused");
        assert!(e.detail.contains(words), "{e}");
    }
}

#[test]
fn an_output_that_something_else_reads_unadapted_is_refused() {
    let (mut g, site) = base();
    let change = wrapped(&mut g, &site, lora);
    g.outputs.push(site.output);
    let e = fold(&g, &[change]).err().expect("it is refused");
    assert!(e.detail.contains("other uses"), "{e}");
}

#[test]
fn rows_of_an_embedding_get_the_product_of_their_parts() {
    let mut g = Graph::new("base", 20);
    let ids = g.add_input("ids", DType::I64, vec![Dim::from("batch"), Dim::from("seq")]);
    let table = g.add_constant("emb.weight", tensor([3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]));
    let y = Builder::new(&mut g, "").op("Gather", &[table, ids]);
    g.outputs = vec![y];
    let site = sites(&g).remove(0);
    let change = wrapped(&mut g, &site, |b, ids, y| {
        let narrow = b.constant(tensor([3, 1], &[1.0, 0.0, -1.0]));
        let up = b.constant(tensor([1, 2], &[2.0, 1.0]));
        let rows = b.op("Gather", &[narrow, ids]);
        let wide = b.op("MatMul", &[rows, up]);
        b.op("Add", &[y, wide])
    });
    let folded = fold(&g, &[change]).expect("it is linear");
    assert_eq!(ops(&folded.sums()), ["MatMul", "Add"]);
    assert_eq!(ops(&folded.finish(vec![tensor([3, 2], &[0.0; 6])])), ["Gather"]);
}
