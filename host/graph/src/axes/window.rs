//! Windows over images: convolutions, pooling, batch normalisation.

use super::level::Level;
use super::state::{Axis, State, Tag};
use super::{Rule, Step};

pub(super) const RULES: &[(&str, Rule)] = &[
    ("Conv", |s| windows(s, 1)),
    ("ConvTranspose", |s| windows(s, 1)),
    ("MaxPool", |s| windows(s, 2)),
    ("AveragePool", |s| windows(s, 2)),
    ("LpPool", |s| windows(s, 2)),
    ("GlobalAveragePool", |s| windows(s, 2)),
    ("GlobalMaxPool", |s| windows(s, 2)),
    ("GlobalLpPool", |s| windows(s, 2)),
    ("BatchNormalization", batch_norm),
    ("LRN", |s| windows(s, 1)),
    ("DepthToSpace", |s| windows(s, 1)),
    ("SpaceToDepth", |s| windows(s, 1)),
];

/// Axis 0 stays, axes from `from` on are worked across, those between have each element by itself.
fn windows(step: &Step<'_>, from: usize) -> Option<Vec<State>> {
    let axes = step.axes(0)?;
    let others: Vec<usize> = (0..step.node.inputs.len()).collect();
    let mut out = step.join(&others)?;
    for i in &others[1..] {
        // Weights that hang on the batch, or on a sequence, are not followed.
        if step.state(*i).is_some_and(|s| !s.is_free() || s.axes.iter().flatten().any(Axis::has_seq)) {
            return None;
        }
    }
    for a in axes.get(from..)? {
        step.consume(&mut out, a);
    }
    let level = if others.iter().all(|i| step.state(*i).is_none_or(|s| s.all.is_tame())) {
        Level::Tame
    } else {
        Level::Any
    };
    let shape = step.out_shape(0)?;
    let mut new: Vec<Axis> = shape.iter().map(Axis::own).collect();
    for (k, a) in axes.iter().enumerate().take(from) {
        let tag = if k > 0 { step.lose(&mut out, a) } else { a.tag.clone() };
        new.get_mut(k)?.tag = tag;
    }
    out.axes = Some(new);
    out = out.level(level);
    out.relevel(&|_| level);
    Some(vec![out])
}

/// With fixed statistics every element is scaled by itself; in training the statistics are those of the batch.
fn batch_norm(step: &Step<'_>) -> Option<Vec<State>> {
    let axes = step.axes(0)?;
    let mut out = step.join(&[0, 1, 2, 3, 4])?;
    if step.node.int("training_mode", 0) != 0 || step.node.outputs.iter().flatten().count() > 1 {
        out.mix(step.cause("takes its statistics from the batch"));
        out.show(step.cause("takes its statistics from the batch"));
    }
    if (1..5).any(|i| step.state(i).is_none_or(|s| !s.is_free())) {
        return None;
    }
    let mut new = axes.to_vec();
    if let Some(channel) = new.get_mut(1) {
        channel.tag = step.lose(&mut out, &axes[1]);
    } else if matches!(axes.first()?.tag, Tag::Seq(..)) {
        return None;
    }
    out.axes = Some(new);
    out.relevel(&|_| Level::Tame);
    Some(vec![out.level(Level::Tame)])
}
