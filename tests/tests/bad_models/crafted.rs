//! Graphs that break ONNX's rules, or are built to exhaust who reads them.

use graft_graph::grad::{GradError, gradient_model};
use graft_graph::onnx::OnnxError;
use graft_graph::onnx::proto::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetId, ValueInfo,
    attribute_type,
};
use graft_graph::{Builder, DType, Dim, Graph, Tensor};

use crate::{changed, invalid, read, refused, small};

fn graph(m: &mut ModelProto) -> &mut GraphProto {
    m.graph.as_mut().expect("it has a graph")
}

fn node(op: &str, domain: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    let names = |n: &[&str]| n.iter().map(|s| s.to_string()).collect();
    NodeProto {
        op_type: op.into(),
        domain: domain.into(),
        name: format!("{op}_{}", outputs.join("_")),
        input: names(inputs),
        output: names(outputs),
        ..NodeProto::default()
    }
}

#[test]
fn a_cycle_is_named_by_a_value_on_it() {
    let detail = invalid(|m| {
        let g = graph(m);
        g.node.push(node("Add", "", &["x", "b"], &["a"]));
        g.node.push(node("Neg", "", &["a"], &["b"]));
    });
    assert!(detail.contains("cycle") && detail.contains("'a'"), "{detail}");
    let detail = invalid(|m| graph(m).node.push(node("Add", "", &["x", "a"], &["a"])));
    assert!(detail.contains("cycle"), "{detail}");
}

#[test]
fn names_are_made_once() {
    let detail = invalid(|m| {
        let again = graph(m).node[0].clone();
        graph(m).node.push(again);
    });
    assert!(detail.contains("made twice"), "{detail}");
    let detail = invalid(|m| graph(m).node.push(node("Neg", "", &["x"], &["x"])));
    assert!(detail.contains("'x' is made twice"), "{detail}");
    let detail = invalid(|m| {
        let again = graph(m).initializer[0].clone();
        graph(m).initializer.push(again);
    });
    assert!(detail.contains("there twice"), "{detail}");
    let detail = invalid(|m| {
        let again = graph(m).input[0].clone();
        graph(m).input.push(again);
    });
    assert!(detail.contains("input 'x' is there twice"), "{detail}");
}

#[test]
fn what_is_read_must_be_made_by_something() {
    let detail = invalid(|m| graph(m).node.push(node("Neg", "", &["nowhere"], &["y"])));
    assert!(detail.contains("'nowhere', which nothing makes") && detail.contains("Neg_y"), "{detail}");
    let detail = invalid(|m| graph(m).output.push(ValueInfo { name: "nowhere".into(), r#type: None }));
    assert!(detail.contains("'nowhere'"), "{detail}");
    let detail = invalid(|m| graph(m).sparse_initializer.push(Default::default()));
    assert!(detail.contains("sparse"), "{detail}");
}

/// `depth` Ifs, each in a branch of the one before.
fn nested(depth: usize) -> GraphProto {
    (0..depth).fold(GraphProto::default(), |inner, _| {
        let branch = AttributeProto {
            name: "then_branch".into(),
            r#type: attribute_type::GRAPH,
            g: Some(inner),
            ..AttributeProto::default()
        };
        let mut n = node("If", "", &[], &[]);
        n.attribute.push(branch);
        GraphProto { node: vec![n], ..GraphProto::default() }
    })
}

#[test]
fn subgraphs_are_followed_to_a_limit() {
    assert!(read(changed(|m| graph(m).node.extend(nested(10).node))).is_ok());
    let detail = invalid(|m| graph(m).node.extend(nested(20).node));
    assert!(detail.contains("nested too deeply"), "{detail}");
    // Past what the decoder itself follows.
    let e = refused(changed(|m| graph(m).node.extend(nested(200).node)));
    assert!(matches!(e, OnnxError::NotOnnx { .. }), "{e}");
}

/// A function of one input and one output that calls `calls` in turn.
fn function(name: &str, calls: &[&str]) -> FunctionProto {
    let values: Vec<String> = (0..=calls.len()).map(|k| format!("v{k}")).collect();
    let call = |(k, c): (usize, &&str)| node(c, "own", &[&values[k]], &[&values[k + 1]]);
    FunctionProto {
        name: name.into(),
        domain: "own".into(),
        input: vec![values[0].clone()],
        output: vec![values[calls.len()].clone()],
        node: calls.iter().enumerate().map(call).collect(),
        opset_import: vec![OperatorSetId { domain: String::new(), version: 20 }],
        ..FunctionProto::default()
    }
}

fn calling(m: &mut ModelProto, functions: Vec<FunctionProto>) {
    m.opset_import.push(OperatorSetId { domain: "own".into(), version: 1 });
    m.functions = functions;
    graph(m).node.push(node("f0", "own", &["x"], &["called"]));
    graph(m).output.push(ValueInfo { name: "called".into(), r#type: None });
}

#[test]
fn functions_that_call_each_other_without_end_are_refused() {
    let detail = invalid(|m| calling(m, vec![function("f0", &["f0"])]));
    assert!(detail.contains("without end") && detail.contains("f0"), "{detail}");
    let detail = invalid(|m| calling(m, vec![function("f0", &["f1"]), function("f1", &["f0"])]));
    assert!(detail.contains("without end"), "{detail}");
}

#[test]
fn functions_that_double_at_every_level_are_refused_before_they_fill_the_memory() {
    let names: Vec<String> = (0..31).map(|k| format!("f{k}")).collect();
    let detail = invalid(|m| {
        let doubling = names.windows(2).map(|n| function(&n[0], &[&n[1], &n[1]])).collect();
        calling(m, doubling);
    });
    assert!(detail.contains("more than"), "{detail}");
}

#[test]
fn an_output_of_a_split_without_a_name_is_given_one() {
    let bytes = changed(|m| {
        graph(m).node.push(node("Split", "", &["x"], &["half", ""]));
        graph(m).node.last_mut().expect("just pushed").attribute.push(AttributeProto {
            name: "num_outputs".into(),
            r#type: attribute_type::INT,
            i: 2,
            ..AttributeProto::default()
        });
    });
    let g = read(bytes).unwrap();
    let split = g.nodes.iter().find(|n| n.is("Split")).unwrap();
    assert!(split.outputs.iter().all(Option::is_some) && split.outputs[0] != split.outputs[1]);
}

#[test]
fn an_operator_without_a_gradient_rule_is_named_with_its_node_and_module() {
    let mut g = Graph::new("g", 20);
    let x = g.add_input("x", DType::F32, vec![Dim::from("n"), Dim::from(4)]);
    let mut b = Builder::new(&mut g, "/encoder/layer.0/");
    let w = b.constant(Tensor::vector(&[1f32, 2.0, 3.0, 4.0]));
    let y = b.op("Mul", &[x, w]);
    let y = b.op("Shrink", &[y]);
    g.outputs = vec![y];
    match gradient_model(&g, None).err().unwrap() {
        GradError::NoRule { op, node, module } => {
            assert_eq!((op.as_str(), module.as_str()), ("Shrink", "encoder.layer.0"));
            assert!(g.nodes.iter().any(|n| n.name == node));
        }
        e => panic!("{e}"),
    }
    // In front of the trainable parameters it does no harm.
    let mut b = Builder::new(&mut g, "");
    let head = b.constant(Tensor::vector(&[1f32, 1.0, 1.0, 1.0]));
    let y = b.op("Mul", &[y, head]);
    g.outputs = vec![y];
    let wrt = [g.name_of(head).to_string()];
    assert!(gradient_model(&g, Some(&wrt)).is_ok());
}

#[test]
fn gradients_of_what_is_not_there_or_no_float_or_without_influence_are_refused_by_name() {
    let g = small();
    let of = |name: &str| gradient_model(&g, Some(&[name.to_string()])).err().unwrap();
    assert!(matches!(of("absent"), GradError::UnknownValue { value } if value == "absent"));
    let ints = g.constants().find(|(_, t)| t.dtype() == DType::I64).unwrap().0;
    assert!(matches!(of(g.name_of(ints)), GradError::NotFloat { .. }));
    let mut g = small();
    g.add_constant("loose", Tensor::scalar(1f32));
    let e = gradient_model(&g, Some(&["loose".to_string()])).err().unwrap();
    assert!(matches!(&e, GradError::NoPath { value, .. } if value == "loose"), "{e}");
}
