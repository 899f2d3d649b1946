//! What is read, written and read again is the same model, and gives the same numbers.

use std::path::{Path, PathBuf};

use graft_adapters::read_tensors;
use graft_graph::onnx::{self, Placement};
use graft_graph::{Builder, DType, Graph, Tensor, fused, raise};
use graft_runtime::{Runtime, Session, SessionOptions, SessionSource};
use graft_tasks::{Base, BaseOptions, gradients};
use graft_tests::differences::tensor;
use graft_tests::{Draw, runtime, shared};
use indexmap::IndexMap;

const MODELS: [&str; 2] = ["bert.ts", "bert.dynamo"];

fn folders() -> Option<(Vec<PathBuf>, &'static Runtime)> {
    let folder = shared()?.join("conformance/autodiff");
    Some((MODELS.map(|m| folder.join(m)).to_vec(), runtime()?))
}

/// A graph as names, so that two of them can be compared: what their values are numbered is no matter.
fn described(g: &Graph) -> Vec<String> {
    let name = |v: &Option<graft_graph::ValueId>| v.map_or("", |v| g.name_of(v)).to_string();
    let names = |vs: &[Option<graft_graph::ValueId>]| vs.iter().map(name).collect::<Vec<_>>();
    let port = |v: &graft_graph::ValueId| format!("{} {:?}", g.name_of(*v), g.fact(*v));
    let mut all: Vec<String> = Vec::new();
    all.extend(g.inputs.iter().map(|v| format!("input {}", port(v))));
    all.extend(g.outputs.iter().map(|v| format!("output {}", port(v))));
    all.extend(g.opsets.iter().map(|(d, v)| format!("opset {d:?} {v}")));
    all.extend(g.metadata.iter().map(|(k, v)| format!("metadata {k} {v}")));
    all.extend(g.nodes.iter().map(|n| {
        let (inputs, outputs) = (names(&n.inputs), names(&n.outputs));
        format!("{} {} {inputs:?} {outputs:?} {:?} {:?}", n.full_op(), n.name, n.attrs, n.metadata)
    }));
    let mut constants: Vec<String> =
        g.constants().map(|(v, t)| format!("{} {t:?} {:?}", g.name_of(v), t.bytes())).collect();
    constants.sort();
    all.extend(constants);
    all
}

fn run(
    runtime: &'static Runtime,
    source: &SessionSource,
    io: &IndexMap<String, Tensor>,
) -> Vec<(String, Tensor)> {
    let options = SessionOptions { threads: Some(1), ..SessionOptions::default() };
    let mut session = Session::new(runtime, source, &options).expect("it loads");
    let fed: Vec<(&str, &Tensor)> =
        io.iter().filter_map(|(n, t)| Some((n.strip_prefix("in:")?, t))).collect();
    let wanted: Vec<&str> = io.keys().filter_map(|n| n.strip_prefix("out:")).collect();
    session.run(&fed, &wanted).expect("it runs").tensors().expect("tensors")
}

#[test]
fn a_model_that_is_written_and_read_again_is_the_same_model() {
    let Some((folders, runtime)) = folders() else { return };
    for folder in folders {
        let io = read_tensors(&folder.join("io.safetensors")).unwrap();
        let first = onnx::read(&folder.join("model.onnx")).unwrap();
        let outputs = run(runtime, &SessionSource::plain(onnx::to_bytes(&first)), &io);
        for (placement, files) in [(Placement::Inline, 1), (Placement::Beside, 2)] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("model.onnx");
            onnx::write(&first, &path, placement).unwrap();
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), files, "{placement:?}");
            let again = onnx::read(&path).unwrap();
            for (a, b) in described(&first).iter().zip(described(&again)) {
                assert_eq!(*a, b, "{placement:?}");
            }
            assert_eq!(described(&first).len(), described(&again).len());
            // ONNX Runtime reads the file itself, its external data included.
            let source = SessionSource {
                proto: std::fs::read(&path).unwrap(),
                weights: None,
                external_dir: Some(dir.path().to_path_buf()),
            };
            assert!(run(runtime, &source, &io) == outputs, "{} {placement:?}", folder.display());
        }
    }
}

#[test]
fn writing_over_a_model_that_is_mapped_leaves_the_open_one_as_it_was() {
    let Some((folders, _)) = folders() else { return };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.onnx");
    let first = onnx::read(&folders[0].join("model.onnx")).unwrap();
    onnx::write(&first, &path, Placement::Beside).unwrap();
    let open = onnx::read(&path).unwrap();
    let before = described(&open);
    onnx::write(&Graph::new("other", 20), &path, Placement::Beside).unwrap();
    assert_eq!(described(&open), before);
    onnx::write(&open, &path, Placement::Beside).unwrap();
    assert_eq!(described(&onnx::read(&path).unwrap()), before);
}

#[test]
fn a_saved_gradient_model_has_standard_operators_only_and_runs() {
    let Some((folders, runtime)) = folders() else { return };
    for folder in folders {
        let io = read_tensors(&folder.join("io.safetensors")).unwrap();
        let base = Base::open(runtime, &folder, &BaseOptions::default()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gradient.onnx");
        let options = SessionOptions { threads: Some(1), ..SessionOptions::default() };
        let with_kernels = gradients(&base, &io, None, Some(&path), &options).unwrap();
        let saved = onnx::read(&path).unwrap();
        assert_eq!(saved.opsets.keys().collect::<Vec<_>>(), [""]);
        assert!(saved.functions.is_empty() && saved.nodes.iter().all(|n| n.domain.is_empty()));
        let proto = std::fs::read(&path).unwrap();
        let options = SessionOptions { kernels: false, ..options };
        let mut session = Session::new(runtime, &SessionSource::plain(proto), &options).unwrap();
        let key = |n: &str| if n.starts_with("ct:") { n.to_string() } else { format!("in:{n}") };
        let names: Vec<String> = saved.inputs.iter().map(|v| saved.name_of(*v).to_string()).collect();
        let fed: Vec<(&str, &Tensor)> = names.iter().map(|n| (n.as_str(), &io[&key(n)])).collect();
        let outputs: Vec<&str> = saved.outputs.iter().map(|v| saved.name_of(*v)).collect();
        for (name, got) in session.run(&fed, &outputs).unwrap().tensors().unwrap() {
            let known = if name.starts_with("grad:") { name } else { format!("out:{name}") };
            let (got, want) = (got.to_f64s().unwrap(), with_kernels.tensors[&known].to_f64s().unwrap());
            let size = want.iter().fold(0.1f64, |m, v| m.max(v.abs()));
            let worst = got.iter().zip(&want).fold(0f64, |m, (a, b)| m.max((a - b).abs()));
            assert!(worst <= 1e-5 * size, "{known} is off by {worst:.1e} of {size:.1e}");
        }
    }
}

/// How often each operator occurs.
fn count(g: &Graph, op: &str) -> usize {
    g.nodes.iter().filter(|n| n.is(op)).count()
}

#[test]
fn both_exporters_berts_are_raised_to_the_same_operators() {
    let Some(shared) = shared() else { return };
    let bases =
        ["base.ts.onnx", "base.dynamo.onnx"].map(|f| shared.join("conformance/adapters/bert").join(f));
    let models = MODELS.map(|m| shared.join("conformance/autodiff").join(m).join("model.onnx"));
    for path in models.iter().chain(&bases) {
        let mut g = onnx::read(path).unwrap();
        raise::raise(&mut g);
        let at = path.display();
        let absent = ["Erf", "Dropout", "Identity", "Pow", "Sqrt", "ReduceMean"];
        assert_eq!(absent.map(|op| count(&g, op)), [0; 6], "{at}");
        let layers = g.nodes.iter().filter(|n| fused::is_attention(n)).count();
        assert_eq!(count(&g, "Softmax"), 0, "{at}");
        assert!(layers > 0, "{at}");
        assert_eq!(count(&g, "Gelu"), layers, "{at}");
        assert_eq!(count(&g, "LayerNormalization"), 2 * layers + 1, "{at}");
        let mut twice = g.clone();
        assert!(raise::raise(&mut twice).is_empty(), "{at}");
        assert_eq!(twice.nodes, g.nodes, "{at}: raising what is raised changes it");
    }
}

#[test]
fn raising_changes_no_output() {
    let Some((folders, runtime)) = folders() else { return };
    for folder in folders {
        let io = read_tensors(&folder.join("io.safetensors")).unwrap();
        let mut g = onnx::read(&folder.join("model.onnx")).unwrap();
        raise::raise(&mut g);
        for (name, got) in run(runtime, &SessionSource::plain(onnx::to_bytes(&g)), &io) {
            let (got, want) = (got.to_f64s().unwrap(), io[&format!("out:{name}")].to_f64s().unwrap());
            let worst = got.iter().zip(&want).fold(0f64, |m, (a, b)| m.max((a - b).abs()));
            assert!(worst <= 1e-4, "{}: {name} is off by {worst:.1e}", folder.display());
        }
    }
}

#[test]
fn a_folder_that_is_not_there_is_an_error_with_its_name() {
    let g = Graph::new("g", 20);
    let e = onnx::write(&g, Path::new("no/such/folder/model.onnx"), Placement::Beside).unwrap_err();
    assert!(e.to_string().contains("no/such/folder"), "{e}");
}

/// x [2, 32] times a weight [32, 32] that is stored transposed: ONNX Runtime's optimiser transposes it while loading.
#[test]
fn weights_that_the_optimiser_folds_are_those_of_the_file() {
    let Some(runtime) = runtime() else { return };
    let mut draw = Draw::new(&[5]);
    let (x, w) = (draw.reals(&[2, 32], (-1.0, 1.0), &[]), draw.reals(&[32, 32], (-1.0, 1.0), &[]));
    let mut g = Graph::new("g", 20);
    let input = g.add_input("x", DType::F32, vec![2.into(), 32.into()]);
    let weight = g.add_constant("w", tensor(&w, DType::F32));
    let mut b = Builder::new(&mut g, "");
    let flipped = b.op("Transpose", &[weight]);
    let y = b.op("MatMul", &[input, flipped]);
    g.outputs = vec![y];
    g.rename(y, "y");
    for placement in [Placement::Inline, Placement::Beside] {
        let dir = tempfile::tempdir().unwrap();
        onnx::write(&g, &dir.path().join("model.onnx"), placement).unwrap();
        let base = Base::open(runtime, dir.path(), &BaseOptions::default()).unwrap();
        let mut session = base.session(&base.graph, &SessionOptions::default()).unwrap();
        let run = session.run(&[("x", &tensor(&x, DType::F32))], &["y"]).unwrap();
        for (k, got) in run.f32s("y").unwrap().iter().enumerate() {
            let (row, column) = (k / 32 * 32, k % 32 * 32);
            let want: f64 = (0..32).map(|i| x.values[row + i] * w.values[column + i]).sum();
            assert!((f64::from(*got) - want).abs() < 1e-4, "{placement:?}: {got} for {want}");
        }
    }
}
