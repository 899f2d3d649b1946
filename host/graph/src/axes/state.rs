//! What the analysis knows of one value.

use super::level::Level;
use crate::dim::Dim;

/// What runs along an axis.
#[derive(Clone, Debug)]
pub(crate) enum Tag {
    /// Nothing changes along it.
    Same,
    /// Something of its own: features, channels, heads, places of an image.
    Own,
    /// Rows of the batch: the element at `i` is made of row `i` of each batched input and nothing else.
    Batch,
    /// Positions of the sequence with that number, and what holds of elements at padded positions.
    Seq(usize, Level),
    /// Several in one, outermost first.
    Merged(Vec<Axis>),
}

/// An axis of a value.
#[derive(Clone, Debug)]
pub(crate) struct Axis {
    pub(crate) tag: Tag,
    pub(crate) dim: Dim,
}

impl Axis {
    pub(crate) fn new(tag: Tag, dim: Dim) -> Axis {
        Axis { tag, dim }
    }

    pub(crate) fn own(dim: &Dim) -> Axis {
        Axis::new(Tag::Own, dim.clone())
    }

    pub(crate) fn same(dim: &Dim) -> Axis {
        Axis::new(Tag::Same, dim.clone())
    }

    /// The axes that were folded into this one, or the axis itself.
    pub(crate) fn parts(&self) -> &[Axis] {
        match &self.tag {
            Tag::Merged(parts) => parts,
            _ => std::slice::from_ref(self),
        }
    }

    pub(crate) fn has_batch(&self) -> bool {
        self.parts().iter().any(|p| matches!(p.tag, Tag::Batch))
    }

    pub(crate) fn has_seq(&self) -> bool {
        self.parts().iter().any(|p| matches!(p.tag, Tag::Seq(..)))
    }

    /// True where the same thing runs along both, as far as that matters to rows and positions.
    pub(crate) fn is_like(&self, other: &Axis) -> bool {
        let (a, b) = (self.parts(), other.parts());
        let like = |a: &Axis, b: &Axis| match (&a.tag, &b.tag) {
            (Tag::Seq(x, _), Tag::Seq(y, _)) => x == y,
            (Tag::Own, Tag::Own) | (Tag::Same, Tag::Same) | (Tag::Batch, Tag::Batch) => true,
            _ => false,
        };
        let fits = |(a, b): (&Axis, &Axis)| like(a, b) && a.dim == b.dim;
        a.len() == b.len() && a.iter().zip(b).all(fits)
    }

    /// With the level at padded positions of each sequence in it replaced; `part` counts the axes folded into it.
    pub(crate) fn with_pads(&self, level: &dyn Fn(usize, Level) -> Level) -> Axis {
        let new = |part: usize, a: &Axis| match &a.tag {
            Tag::Seq(k, pad) => Axis::new(Tag::Seq(*k, level(part, *pad)), a.dim.clone()),
            _ => a.clone(),
        };
        match &self.tag {
            Tag::Merged(parts) => {
                let parts = parts.iter().enumerate().map(|(i, p)| new(i, p)).collect();
                Axis::new(Tag::Merged(parts), self.dim.clone())
            }
            _ => new(0, self),
        }
    }
}

/// A value that is `of[0]·index[0] + of[1]·index[1] + … + plus`.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Affine {
    pub(crate) of: Vec<Dim>,
    pub(crate) plus: Dim,
}

/// Where and why something stopped being known.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Cause {
    /// Number of the node; none for an input.
    pub(crate) node: Option<usize>,
    pub(crate) why: &'static str,
}

/// What the analysis knows of one value.
#[derive(Clone, Debug)]
pub(crate) struct State {
    /// The axes; none where not even their number is known.
    pub(crate) axes: Option<Vec<Axis>>,
    /// Made of batched inputs. Row `i` of them goes to place `i` of the one axis that is tagged so.
    pub(crate) rows: bool,
    /// Elements depend on how many rows there are.
    pub(crate) batch_size: bool,
    /// Elements depend on how long a sequence is with its padding.
    pub(crate) length: bool,
    /// Rows may depend on each other.
    pub(crate) mixed: Option<Cause>,
    /// What is at padded positions may have reached others.
    pub(crate) visible: Option<Cause>,
    /// Of all elements.
    pub(crate) all: Level,
    /// Of elements at unpadded positions.
    pub(crate) kept: Level,
    /// Of those, where two axes are of one sequence, the ones at the same position along both.
    pub(crate) diagonal: Level,
    /// Elements as a function of their own place.
    pub(crate) affine: Option<Affine>,
}

impl State {
    /// A value that depends on no input.
    pub(crate) fn free(axes: Option<Vec<Axis>>) -> State {
        State {
            axes,
            rows: false,
            batch_size: false,
            length: false,
            mixed: None,
            visible: None,
            all: Level::Any,
            kept: Level::Any,
            diagonal: Level::Any,
            affine: None,
        }
    }

    pub(crate) fn is_free(&self) -> bool {
        !self.rows && !self.batch_size && !self.length && self.mixed.is_none() && self.visible.is_none()
    }

    pub(crate) fn level(mut self, level: Level) -> State {
        (self.all, self.kept, self.diagonal) = (level, level, level);
        self
    }

    pub(crate) fn mix(&mut self, cause: Cause) {
        self.mixed.get_or_insert(cause);
    }

    pub(crate) fn show(&mut self, cause: Cause) {
        self.visible.get_or_insert(cause);
    }

    /// Every level replaced.
    pub(crate) fn relevel(&mut self, f: &dyn Fn(Level) -> Level) {
        (self.all, self.kept, self.diagonal) = (f(self.all), f(self.kept), f(self.diagonal));
        if let Some(axes) = &mut self.axes {
            axes.iter_mut().for_each(|a| *a = a.with_pads(&|_, l| f(l)));
        }
    }
}
