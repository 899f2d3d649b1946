//! The update beside a convolution.

use graft_plugin_api::*;

use crate::{Lora, Update};

impl Lora {
    /// As in PEFT, `A` sees all channels whatever the groups of the base are, and `B` has the base's groups.
    pub(crate) fn conv(&self, g: &Graph<'_>, site: &Site, r: u64, scaling: Value) -> Result<Update> {
        let c = site.conv()?;
        if c.dilations.iter().any(|d| *d != 1) {
            let e =
                Error::new(Code::UNSUPPORTED, "PEFT's LoRA has no update for a convolution with dilations");
            return Err(e.help("leave the module out with `exclude_modules`"));
        }
        let group = u64::try_from(c.group).unwrap_or(0);
        if group == 0 || !r.is_multiple_of(group) {
            let e = Error::new(Code::CONFIG, format!("a rank of {r} does not divide by {} groups", c.group));
            return Err(e.help("choose another `r`, or leave the module out with `exclude_modules`"));
        }
        let extents = c.kernel.iter().map(|k| u64::try_from(*k).unwrap_or(0));
        let shape: Vec<u64> = [r, site.in_features].into_iter().chain(extents).collect();
        let a =
            ParamSpec::new("lora_A.weight", &shape).init(Init::KaimingUniform(5f64.sqrt())).site(&site.path);
        let ones = vec![1; c.kernel.len()];
        let shape: Vec<u64> = [site.out_features, r / group].into_iter().chain(ones).collect();
        let b = ParamSpec::new("lora_B.weight", &shape).site(&site.path);
        // Channels may be added to the update only where no group cuts them apart.
        let (a, b) = if group == 1 { (a.paddable(0), b.paddable(1)) } else { (a, b) };
        let (a, b) = (g.param(a)?, g.param(b)?);
        let (x, dropped) = self.dropped(g, site)?;
        let narrow = g.mul(g.emit("Conv", &[x, a], &movement(c))?, scaling)?;
        let added = g.emit("Conv", &[narrow, b], &[attr("group", c.group)])?;
        Ok(Update { added, dropped, a, b })
    }
}

/// How the base's kernel moves, as attributes of `Conv`; without its groups.
pub(crate) fn movement(c: &wire::Conv) -> Vec<wire::Attr> {
    let mut attrs = vec![attr("kernel_shape", &c.kernel[..]), attr("strides", &c.strides[..])];
    attrs.push(match c.auto_pad.as_str() {
        "NOTSET" => attr("pads", &c.pads[..]),
        rule => attr("auto_pad", rule),
    });
    attrs
}
