//! The sites of a base as plugins see them.

use graft_graph::ValueId;
use graft_graph::sites::{AttentionSite, ResidualSite, Site, SiteKind, Sublayer};
use graft_plugin_api::{self as api, wire};

use super::writer::Writer;

impl Writer {
    /// Every site as it crosses, with what stands there now: modules, attentions, residual connections.
    pub(super) fn all_sites(&self) -> Vec<wire::Site> {
        let kind = |k| match k {
            SiteKind::Linear => api::SiteKind::LINEAR,
            SiteKind::Embedding => api::SiteKind::EMBEDDING,
            SiteKind::Norm => api::SiteKind::NORM,
            SiteKind::Conv => api::SiteKind::CONV,
        };
        let name = |v: Option<ValueId>| v.map(|v| self.graph.name_of(v).to_owned()).unwrap_or_default();
        let site = |(i, s): (usize, &Site)| wire::Site {
            path: s.path.clone(),
            kind: kind(s.kind).0,
            input: self.handle(self.inputs_now.get(&i).copied().unwrap_or(s.input)),
            output: self.handle(s.output),
            weight: name(Some(s.weight)),
            bias: name(s.bias),
            in_features: s.in_features as u64,
            out_features: s.out_features as u64,
            transposed: !s.weight_is_out_in,
            number: i as u32 + 1,
            attention: None,
            residual: None,
            conv: s.conv.clone().map(|c| wire::Conv {
                kernel: c.kernel,
                strides: c.strides,
                pads: c.pads,
                dilations: c.dilations,
                group: c.group,
                auto_pad: c.auto_pad,
            }),
        };
        let count = self.sites.len();
        let attention = |(i, s): (usize, &AttentionSite)| wire::Site {
            path: s.path.clone(),
            kind: api::SiteKind::ATTENTION.0,
            output: self.handle(s.output),
            in_features: (s.heads * s.head_dim) as u64,
            out_features: (s.heads * s.value_dim) as u64,
            number: (count + i) as u32 + 1,
            attention: Some(wire::Attention {
                query: self.handle(s.query),
                key: self.handle(s.key),
                value: self.handle(s.value),
                bias: s.bias.map_or(0, |v| self.handle(v)),
                heads: s.heads as u64,
                kv_heads: s.kv_heads as u64,
                head_dim: s.head_dim as u64,
                value_dim: s.value_dim as u64,
            }),
            ..wire::Site::default()
        };
        let before = count + self.attentions.len();
        let residual = |(i, s): (usize, &ResidualSite)| wire::Site {
            path: s.path.clone(),
            kind: api::SiteKind::RESIDUAL.0,
            input: self.handle(s.stream),
            output: self.handle(s.branch),
            in_features: s.width as u64,
            out_features: s.width as u64,
            number: (before + i) as u32 + 1,
            residual: Some(wire::Residual {
                sublayer: match s.sublayer {
                    Sublayer::Attention => api::Sublayer::ATTENTION.0,
                    Sublayer::CrossAttention => api::Sublayer::CROSS_ATTENTION.0,
                    Sublayer::FeedForward => api::Sublayer::FEED_FORWARD.0,
                },
                norm: s.norm.map_or(0, |i| i as u32 + 1),
            }),
            ..wire::Site::default()
        };
        let modules = self.sites.iter().enumerate().map(site);
        let attentions = self.attentions.iter().enumerate().map(attention);
        modules.chain(attentions).chain(self.residuals.iter().enumerate().map(residual)).collect()
    }
}
