//! Sites: the named modules of a base that a method can hook, recovered from what exporters leave in a graph.
//!
//! Paths come, in this order, from the new exporter's scopes (`pkg.torch.onnx.name_scopes`), the old exporter's node
//! names (`/encoder/layer.0/attention/self/query/MatMul`), and the names of the bias, scale or weight beside the
//! operator.

mod attention;
mod pieces;
mod residual;

use std::collections::{HashMap, HashSet};

pub use self::attention::{AttentionSite, attentions, bias_fits};
pub use self::pieces::{Part, Piece, pieces};
pub use self::residual::{ResidualSite, Sublayer, residuals};
use crate::ir::{Graph, Node, ValueId};
use crate::tensor::DType;

/// What a site is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum SiteKind {
    /// A product with a constant matrix, bias included.
    Linear,
    /// A table of which rows are taken.
    Embedding,
    /// A normalisation with a scale.
    Norm,
    /// A convolution with a constant kernel.
    Conv,
}

impl SiteKind {
    /// The word for tables and for the plugin boundary.
    pub fn name(self) -> &'static str {
        match self {
            SiteKind::Linear => "linear",
            SiteKind::Embedding => "embedding",
            SiteKind::Norm => "norm",
            SiteKind::Conv => "conv",
        }
    }
}

/// A named module of the base.
#[derive(Clone, Debug)]
pub struct Site {
    /// Module path as PyTorch has it: `encoder.layer.0.attention.self.query`.
    pub path: String,
    /// What it is.
    pub kind: SiteKind,
    /// What goes in.
    pub input: ValueId,
    /// What comes out; behind the bias, where there is one.
    pub output: ValueId,
    /// The weight, in the orientation that the graph has it in.
    pub weight: ValueId,
    /// True where the weight is `[out, in]`, as PyTorch has it; false for `[in, out]`.
    pub weight_is_out_in: bool,
    /// The bias, where there is one.
    pub bias: Option<ValueId>,
    /// Width of the input (rows of an embedding table).
    pub in_features: usize,
    /// Width of the output.
    pub out_features: usize,
    /// How a convolution's kernel moves; `None` for other kinds.
    pub conv: Option<ConvShape>,
}

/// How a convolution's kernel moves over its input, with the operator's defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvShape {
    /// Extents of the kernel.
    pub kernel: Vec<i64>,
    /// Steps along each axis.
    pub strides: Vec<i64>,
    /// Padding before each axis, then behind each.
    pub pads: Vec<i64>,
    /// Distances between the kernel's elements.
    pub dilations: Vec<i64>,
    /// Groups of channels that do not see each other.
    pub group: i64,
    /// `NOTSET`, or the rule that decides the padding instead of `pads`.
    pub auto_pad: String,
}

/// The module path of a node, from metadata or from its name; `None` where neither holds one.
pub fn module_path(node: &Node) -> Option<String> {
    let scopes = node.metadata.iter().find(|(k, _)| k == "pkg.torch.onnx.name_scopes");
    if let Some(path) = scopes.and_then(|(_, v)| scope_path(v)) {
        return Some(path);
    }
    let mut name = node.name.strip_prefix('/')?;
    if let Some(fused) = name.strip_suffix('/') {
        // ONNX Runtime calls what it fuses `NODE/FUSION/`, after one of the nodes.
        name = fused.rsplit_once('/')?.0;
    }
    let (modules, _) = name.rsplit_once('/')?;
    let mut path: Vec<&str> = Vec::new();
    for scope in modules.split('/') {
        // A Sequential is called itself, and its children carry its name: `/layer1/layer1.0/conv`.
        let children = |last: &str| scope.strip_prefix(last).is_some_and(|rest| rest.starts_with('.'));
        if path.last().is_some_and(|last| children(last)) {
            path.pop();
        }
        path.push(scope);
    }
    Some(path.join("."))
}

/// `['', 'model', 'model.encoder', 'linear_4']` → `model.encoder`: the last entry is the operation itself.
fn scope_path(list: &str) -> Option<String> {
    let inner = list.trim().strip_prefix('[')?.strip_suffix(']')?;
    let mut scopes: Vec<&str> = inner.split(',').map(|s| s.trim().trim_matches(['\'', '"'])).collect();
    scopes.pop()?;
    scopes.pop().filter(|s| !s.is_empty()).map(str::to_string)
}

/// A name without what parameters are called: `a.b.bias` → `a.b`.
fn parameter_path(name: &str) -> Option<String> {
    // Quantisers of models add what they call the parts and what stands for the whole.
    let name = ["_DequantizeLinear_Output", "_quantized", "_QDQ", "_Q4", "_Q4G32"]
        .iter()
        .fold(name, |name, s| name.strip_suffix(s).unwrap_or(name));
    [".weight", ".bias", ".gamma", ".beta"].iter().find_map(|s| name.strip_suffix(s)).map(str::to_string)
}

/// The sites of a graph, in the order of its nodes. Operators whose path can't be recovered are left out. A module
/// that is called several times is listed once for each use, always under the path of the first.
pub fn sites(graph: &Graph) -> Vec<Site> {
    let consumers = graph.consumers();
    let outputs: HashSet<ValueId> = graph.outputs.iter().copied().collect();
    let find = Finder { graph, consumers, producers: graph.producers(), outputs };
    let mut all: Vec<Site> = graph.nodes.iter().filter_map(|n| find.site(n)).collect();
    name_uses_alike(&mut all);
    all
}

/// The old exporter numbers the calls of a module (`query`, `query_1`, `query_2`): these are uses of one module where
/// weight and bias are the same too.
fn name_uses_alike(sites: &mut [Site]) {
    let mut seen: HashMap<(SiteKind, ValueId, Option<ValueId>), Vec<String>> = HashMap::new();
    for s in sites {
        let modules = seen.entry((s.kind, s.weight, s.bias)).or_default();
        match modules.iter().find(|first| is_use_of(&s.path, first)) {
            Some(first) => s.path.clone_from(first),
            None => modules.push(s.path.clone()),
        }
    }
}

/// Whether `path` is `module`, but for the numbers of calls behind names.
fn is_use_of(path: &str, module: &str) -> bool {
    let number = |n: &str| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit());
    let call = |(segment, name): (&str, &str)| match segment.strip_prefix(name) {
        Some("") => true,
        Some(rest) => rest.strip_prefix('_').is_some_and(number),
        None => false,
    };
    path.split('.').count() == module.split('.').count() && path.split('.').zip(module.split('.')).all(call)
}

impl Site {
    /// A site without a bias, its weight `[in, out]`; `ends` are what goes in and what comes out.
    fn plain(
        kind: SiteKind,
        path: String,
        ends: (ValueId, ValueId),
        weight: ValueId,
        [in_features, out_features]: [usize; 2],
    ) -> Site {
        let (input, output) = ends;
        let (weight_is_out_in, bias, conv) = (false, None, None);
        Site { path, kind, input, output, weight, weight_is_out_in, bias, in_features, out_features, conv }
    }
}

struct Finder<'a> {
    graph: &'a Graph,
    consumers: Vec<Vec<usize>>,
    producers: Vec<Option<usize>>,
    outputs: HashSet<ValueId>,
}

impl Finder<'_> {
    fn site(&self, n: &Node) -> Option<Site> {
        match n.full_op().as_str() {
            "com.microsoft::MatMulNBits" => self.packed(n),
            "MatMul" => self.matmul(n),
            "Gemm" => self.gemm(n),
            "Gather" => self.embedding(n),
            "LayerNormalization"
            | "graft::RMSNorm"
            | "RMSNormalization"
            | "GroupNormalization"
            | "InstanceNormalization" => self.norm(n),
            "Conv" => self.conv(n),
            _ => None,
        }
    }

    /// The shape of a float constant, or of one that is kept quantised.
    fn float_constant(&self, v: ValueId, rank: usize) -> Option<&[usize]> {
        let stored = self.producers[v.index()].map(|i| &self.graph.nodes[i]);
        let t = match stored.filter(|n| n.is("DequantizeLinear")) {
            Some(n) => self.graph.constant(n.input(0)?)?,
            None => self.graph.constant(v).filter(|t| t.dtype().is_float())?,
        };
        (t.shape().len() == rank).then(|| t.shape())
    }

    /// The one node that reads `v`, which is no output of the graph.
    fn only_reader(&self, v: ValueId) -> Option<&Node> {
        let [reader] = self.consumers[v.index()].as_slice() else { return None };
        Some(&self.graph.nodes[*reader]).filter(|_| !self.outputs.contains(&v))
    }

    /// What stands for `v` behind a quantiser of activations.
    fn behind_quantiser(&self, v: ValueId) -> Option<ValueId> {
        let quantised = self.only_reader(v).filter(|n| n.is("QuantizeLinear"))?.output(0)?;
        self.only_reader(quantised).filter(|n| n.is("DequantizeLinear"))?.output(0)
    }

    fn path(&self, n: &Node, parameters: &[Option<ValueId>]) -> Option<String> {
        let from_names = || parameters.iter().flatten().find_map(|v| parameter_path(self.graph.name_of(*v)));
        module_path(n).or_else(from_names)
    }

    /// The bias that the only reader of `y` adds, and its sum.
    fn bias_behind(&self, y: ValueId, width: usize) -> Option<(ValueId, ValueId)> {
        let y = self.behind_quantiser(y).unwrap_or(y);
        let add = self.only_reader(y).filter(|n| n.is("Add"))?;
        let other = add.inputs.iter().flatten().find(|v| **v != y)?;
        (self.float_constant(*other, 1)? == [width]).then_some((*other, add.output(0)?))
    }

    fn matmul(&self, n: &Node) -> Option<Site> {
        let (input, weight, y) = (n.input(0)?, n.input(1)?, n.output(0)?);
        let &[in_features, out_features] = self.float_constant(weight, 2)? else { return None };
        let behind = self.bias_behind(y, out_features);
        let (bias, output) = (behind.map(|b| b.0), behind.map_or(y, |b| b.1));
        let path = self.path(n, &[bias, Some(weight)])?;
        Some(Site {
            bias,
            ..Site::plain(SiteKind::Linear, path, (input, output), weight, [in_features, out_features])
        })
    }

    /// A product with a weight `[out, in]` of a few bits, packed.
    fn packed(&self, n: &Node) -> Option<Site> {
        let (input, weight, y) = (n.input(0)?, n.input(1)?, n.output(0)?);
        let size = |name: &str| usize::try_from(n.int(name, 0)).ok().filter(|n| *n > 0);
        let (in_features, out_features) = (size("K")?, size("N")?);
        let behind = if n.input(5).is_none() { self.bias_behind(y, out_features) } else { None };
        let (bias, output) = (behind.map(|b| b.0).or(n.input(5)), behind.map_or(y, |b| b.1));
        let path = self.path(n, &[bias, Some(weight)])?;
        Some(Site {
            weight_is_out_in: true,
            bias,
            ..Site::plain(SiteKind::Linear, path, (input, output), weight, [in_features, out_features])
        })
    }

    fn gemm(&self, n: &Node) -> Option<Site> {
        let (input, weight, output) = (n.input(0)?, n.input(1)?, n.output(0)?);
        if n.int("transA", 0) != 0 || n.float("alpha", 1.0) != 1.0 || n.float("beta", 1.0) != 1.0 {
            return None;
        }
        let weight_is_out_in = n.int("transB", 0) != 0;
        let &[a, b] = self.float_constant(weight, 2)? else { return None };
        let (in_features, out_features) = if weight_is_out_in { (b, a) } else { (a, b) };
        let bias = n.input(2).filter(|v| self.float_constant(*v, 1).is_some());
        let path = self.path(n, &[bias, Some(weight)])?;
        Some(Site {
            weight_is_out_in,
            bias,
            ..Site::plain(SiteKind::Linear, path, (input, output), weight, [in_features, out_features])
        })
    }

    fn embedding(&self, n: &Node) -> Option<Site> {
        let (weight, input, mut output) = (n.input(0)?, n.input(1)?, n.output(0)?);
        // Rows of a quantised table are dequantised once they are taken.
        let stored = || {
            let t = self.graph.constant(weight).filter(|t| matches!(t.dtype(), DType::I8 | DType::U8))?;
            let real = self.only_reader(output).filter(|n| n.is("DequantizeLinear"))?;
            Some((t.shape(), real.output(0)?))
        };
        let shape = match self.float_constant(weight, 2) {
            Some(shape) => shape,
            None => {
                let (shape, real) = stored()?;
                output = real;
                shape
            }
        };
        let &[in_features, out_features] = shape else { return None };
        if n.int("axis", 0) != 0 {
            return None;
        }
        let path = self.path(n, &[Some(weight)])?;
        Some(Site::plain(SiteKind::Embedding, path, (input, output), weight, [in_features, out_features]))
    }

    fn norm(&self, n: &Node) -> Option<Site> {
        let (input, weight, output) = (n.input(0)?, n.input(1)?, n.output(0)?);
        let &[width] = self.float_constant(weight, 1)? else { return None };
        let bias = n.input(2).filter(|v| self.float_constant(*v, 1).is_some());
        let path = self.path(n, &[Some(weight), bias])?;
        Some(Site {
            weight_is_out_in: true,
            bias,
            ..Site::plain(SiteKind::Norm, path, (input, output), weight, [width, width])
        })
    }

    fn conv(&self, n: &Node) -> Option<Site> {
        let (input, weight, output) = (n.input(0)?, n.input(1)?, n.output(0)?);
        let t = self.graph.constant(weight).filter(|t| t.dtype().is_float() && t.shape().len() >= 3)?;
        let bias = n.input(2).filter(|v| self.float_constant(*v, 1).is_some());
        let path = self.path(n, &[bias, Some(weight)])?;
        let groups = usize::try_from(n.int("group", 1)).ok()?;
        let (in_features, out_features) = (t.shape()[1].checked_mul(groups)?, t.shape()[0]);
        let kernel: Vec<i64> =
            t.shape()[2..].iter().map(|d| i64::try_from(*d).ok()).collect::<Option<_>>()?;
        let ints = |name: &str, count: usize, default: i64| match n.ints(name) {
            Some(v) => (v.len() == count).then(|| v.to_vec()),
            None => Some(vec![default; count]),
        };
        let axes = kernel.len();
        let conv = ConvShape {
            strides: ints("strides", axes, 1)?,
            pads: ints("pads", 2 * axes, 0)?,
            dilations: ints("dilations", axes, 1)?,
            group: n.int("group", 1),
            auto_pad: n.text("auto_pad").unwrap_or("NOTSET").to_string(),
            kernel,
        };
        let plain = Site::plain(SiteKind::Conv, path, (input, output), weight, [in_features, out_features]);
        Some(Site { weight_is_out_in: true, bias, conv: Some(conv), ..plain })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;
    use crate::{Builder, DType, Dim, Tensor};

    fn node(name: &str, scopes: Option<&str>) -> Node {
        let metadata = scopes.map(|s| vec![("pkg.torch.onnx.name_scopes".to_string(), s.to_string())]);
        Node {
            op: "MatMul".into(),
            name: name.into(),
            metadata: metadata.unwrap_or_default(),
            ..Node::default()
        }
    }

    #[test]
    fn paths_are_read_from_both_exporters() {
        let old = node("/encoder/layer.0/attention/self/query/MatMul", None);
        assert_eq!(module_path(&old).as_deref(), Some("encoder.layer.0.attention.self.query"));
        let new =
            node("node_MatMul_102", Some("['', 'model', 'model.encoder.layer.0.output.dense', 'linear_3']"));
        assert_eq!(module_path(&new).as_deref(), Some("model.encoder.layer.0.output.dense"));
        let fused = node("/layers.0/norm/Mul_1/SimplifiedLayerNormFusion/", None);
        assert_eq!(module_path(&fused).as_deref(), Some("layers.0.norm"));
        assert_eq!(module_path(&node("MatMul_12", None)), None);
        assert_eq!(parameter_path("a.b.bias").as_deref(), Some("a.b"));
    }

    #[test]
    fn calls_of_one_module_have_its_path_and_modules_that_only_share_a_weight_keep_theirs() {
        let mut graph = Graph::new("calls", 20);
        let x = graph.add_input("x", DType::F32, vec![Dim::from("n"), Dim::from(2)]);
        let tensor = Tensor::new([2, 2], &[1f32, 2.0, 3.0, 4.0]).unwrap();
        let [one, other] = ["one", "other"].map(|n| graph.add_constant(n, tensor.clone()));
        let names = [("a.fc", one), ("a.fc_1", one), ("a_1.fc_12", one), ("a.fc_x", one), ("a.fc_2", other)];
        let mut value = x;
        for (path, weight) in names {
            value = Builder::new(&mut graph, "").op("MatMul", &[value, weight]);
            graph.nodes.last_mut().unwrap().name = format!("/{}/MatMul", path.replace('.', "/"));
        }
        graph.outputs = vec![value];
        let paths: Vec<String> = sites(&graph).into_iter().map(|s| s.path).collect();
        assert_eq!(paths, ["a.fc", "a.fc", "a.fc", "a.fc_x", "a.fc_2"]);
    }
}
