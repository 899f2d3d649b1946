//! One adapter at one residual connection.

use graft_plugin_api::*;

use crate::options::{InitWeights, NonLinearity, ResidualBeforeLn, Resolved, Scaling};

/// What AdapterHub adds to a variance before its root is taken.
const EPSILON: f32 = 1e-5;
/// Standard deviation of the weights that start as BERT's.
const BERT_STD: f64 = 0.02;

/// Writes the adapter at `site`, whose sum passes `norm` where the base has one there.
///
/// With `h` as what the part of the layer gave and `x` as what went around it, the base has `norm(h + x)`. The adapter
/// stands between: it changes `h`, and reads `h`, `norm(h + x)` or, in parallel, `x`.
pub(crate) fn apply(g: &Graph<'_>, s: &Resolved, site: &Site, norm: Option<&Site>) -> Result<()> {
    let (h, x) = (site.output()?, site.input()?);
    let adapted = if s.is_parallel {
        let out = scaled(g, s, site, x)?;
        g.add(h, after(g, s, site, out)?)?
    } else {
        let sum = g.add(h, x)?;
        let input = match norm {
            _ if !s.original_ln_before => h,
            Some(norm) => g.call_site(norm, sum)?,
            None => sum,
        };
        let residual = match s.residual_before_ln {
            ResidualBeforeLn::Before => h,
            ResidualBeforeLn::PostAdd => sum,
            ResidualBeforeLn::Behind => input,
        };
        let mut out = scaled(g, s, site, input)?;
        if s.adapter_residual_before_ln {
            out = after(g, s, site, g.add(out, residual)?)?;
        } else {
            out = g.add(after(g, s, site, out)?, residual)?;
        }
        out
    };
    match norm {
        // The base's own operators follow.
        _ if s.original_ln_after => g.replace_output(site, adapted),
        Some(norm) => g.replace_output(norm, adapted),
        None => {
            let what = "without `original_ln_after` nothing is left of the base's residual connection";
            Err(Error::new(Code::UNSUPPORTED, what)
                .help("the base has no layer norm behind it; set `original_ln_after`"))
        }
    }
}

/// `s · up(f(down(input)))`.
fn scaled(g: &Graph<'_>, s: &Resolved, site: &Site, input: Value) -> Result<Value> {
    let (hidden, inner) = (site.out_features, s.width(site.out_features));
    let mut x = input;
    if s.ln_before {
        x = own_norm(g, site, "adapter_norm_before", x)?;
    }
    let (down, up) = match s.init_weights {
        InitWeights::Bert => (Init::Normal(BERT_STD), Init::Normal(BERT_STD)),
        InitWeights::MamAdapter => (Init::KaimingUniform(5f64.sqrt()), Init::Zeros),
    };
    // The first layer stands behind the norm in one list of modules, which numbers them.
    let place = format!("adapter_down.{}", u8::from(s.ln_before));
    let weight = |name: &str, shape: [u64; 2], init, axis| {
        let spec = ParamSpec::new(&format!("{name}.weight"), &shape).init(init).paddable(axis);
        g.param(spec.site(&site.path))
    };
    let bias = |spec: ParamSpec| g.param(spec.site(&site.path));
    let w = weight(&place, [inner, hidden], down, 0)?;
    let b = bias(ParamSpec::new(&format!("{place}.bias"), &[inner]).paddable(0))?;
    let narrow = activated(g, s.non_linearity, g.linear(x, w, Some(b))?)?;
    let w = weight("adapter_up", [hidden, inner], up, 1)?;
    let b = bias(ParamSpec::new("adapter_up.bias", &[hidden]))?;
    let wide = g.linear(narrow, w, Some(b))?;
    let factor = match (s.scaling, s.scaling.learned_shape(hidden)) {
        (Scaling::Number(n), _) => g.setting("scaling", n)?,
        (_, shape) => {
            let spec = ParamSpec::new("scaling", &shape.unwrap_or([1])).init(Init::Ones).neutral(Init::Ones);
            g.param(spec.site(&site.path))?
        }
    };
    g.dropout(g.mul(wide, factor)?, s.dropout, "adapter_dropout")
}

/// The adapter's own layer norm behind it, where it has one.
fn after(g: &Graph<'_>, s: &Resolved, site: &Site, x: Value) -> Result<Value> {
    if s.ln_after { own_norm(g, site, "adapter_norm_after", x) } else { Ok(x) }
}

fn own_norm(g: &Graph<'_>, site: &Site, name: &str, x: Value) -> Result<Value> {
    let part = |part: &str, init: Init| {
        let spec = ParamSpec::new(&format!("{name}.{part}"), &[site.out_features]).init(init);
        g.param(spec.site(&site.path))
    };
    g.layer_norm(x, part("weight", Init::Ones)?, part("bias", Init::Zeros)?, EPSILON)
}

fn activated(g: &Graph<'_>, f: NonLinearity, x: Value) -> Result<Value> {
    match f {
        NonLinearity::Relu => g.relu(x),
        NonLinearity::Gelu => g.gelu(x),
        NonLinearity::GeluNew => g.emit("Gelu", &[x], &[attr("approximate", "tanh")]),
        NonLinearity::Swish => g.mul(x, g.emit("Sigmoid", &[x], &[])?),
        NonLinearity::Tanh => g.tanh(x),
        NonLinearity::Sigmoid => g.emit("Sigmoid", &[x], &[]),
        NonLinearity::Leakyrelu => g.emit("LeakyRelu", &[x], &[attr("alpha", 0.01f32)]),
        NonLinearity::Linear => Ok(x),
    }
}
