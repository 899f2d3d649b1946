//! The update beside a convolution, which moves as the base's does.

use graft_plugin_api::*;

use crate::{Loha, matrix, torch};

impl Loha {
    /// The kernel as one matrix `[out, in · extents]`, or, with `use_effective_conv2d` and unless all extents are 1, taken
    /// apart by each of its axes.
    pub(crate) fn conv(&self, g: &Graph<'_>, site: &Site, r: u64, scaling: Value) -> Result<Value> {
        let c = site.conv()?;
        let number = |n: &i64| u64::try_from(*n).unwrap_or(0);
        let (group, extents) = (number(&c.group), c.kernel.iter().map(number).collect::<Vec<_>>());
        if group == 0 || !site.in_features.is_multiple_of(group) || !(1..=2).contains(&extents.len()) {
            let e =
                Error::new(Code::UNSUPPORTED, "PEFT's LoHa has updates for convolutions of one or two axes");
            return Err(e.help("leave the module out with `exclude_modules`"));
        }
        let channels = site.in_features / group;
        let places: u64 = extents.iter().product();
        let shape: Vec<i64> = [site.out_features, channels]
            .iter()
            .chain(&extents)
            .map(|n| i64::try_from(*n).unwrap_or(-1))
            .collect();
        let delta = if self.use_effective_conv2d && places > 1 {
            g.mul(
                factor(g, site, r, channels, "1", torch())?,
                factor(g, site, r, channels, "2", Init::Zeros)?,
            )?
        } else {
            matrix(g, site, r, [site.out_features, channels * places])?
        };
        let delta = self.dropped(g, g.mul(g.reshape(delta, &shape)?, scaling)?, site.out_features)?;
        let mut attrs = vec![
            attr("kernel_shape", &c.kernel[..]),
            attr("strides", &c.strides[..]),
            attr("dilations", &c.dilations[..]),
            attr("group", c.group),
        ];
        attrs.push(match c.auto_pad.as_str() {
            "NOTSET" => attr("pads", &c.pads[..]),
            rule => attr("auto_pad", rule),
        });
        g.emit("Conv", &[site.input()?, delta], &attrs)
    }
}

/// One of the two factors, `[out, channels, places]`: `t` `[r, r, …extents]` is widened along its first axis by `w_a`
/// `[r, out]` and along its second by `w_b` `[r, channels]`.
fn factor(g: &Graph<'_>, site: &Site, r: u64, channels: u64, which: &str, start: Init) -> Result<Value> {
    let c = site.conv()?;
    // PEFT has two axes of the kernel here even where the convolution has one.
    let mut extents: Vec<u64> = c.kernel.iter().map(|k| u64::try_from(*k).unwrap_or(0)).collect();
    extents.resize(2, 1);
    let param = |name: &str, shape: &[u64], padded: &[u32], start: Init| {
        let spec = ParamSpec::new(&format!("hada_{name}"), shape).init(start).site(&site.path);
        g.param(padded.iter().fold(spec, |spec, axis| spec.paddable(*axis)))
    };
    let core = param(&format!("t{which}"), &[r, r, extents[0], extents[1]], &[0, 1], torch())?;
    let a = param(&format!("w{which}_a"), &[r, site.out_features], &[0], torch())?;
    let b = param(&format!("w{which}_b"), &[r, channels], &[0], start)?;
    let [r, out, channels] = [r, site.out_features, channels].map(|n| i64::try_from(n).unwrap_or(-1));
    let wide = g.matmul(g.transpose(a, &[1, 0])?, g.reshape(core, &[r, -1])?)?;
    let rows = g.transpose(g.reshape(wide, &[out, r, -1])?, &[0, 2, 1])?;
    let both = g.matmul(g.reshape(rows, &[-1, r])?, b)?;
    g.transpose(g.reshape(both, &[out, -1, channels])?, &[0, 2, 1])
}
