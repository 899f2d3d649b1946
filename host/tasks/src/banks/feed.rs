//! The inputs of a batch: where each comes from, and those that are made anew for each batch.

use std::collections::HashMap;
use std::ops::Range;

use graft_graph::Tensor;
use graft_graph::batch::Placed;
use graft_runtime::View;

use super::shelf::Shelf;
use crate::error::Result;
use crate::program::lacking;

/// Where an input of a session comes from.
#[derive(Debug, Clone, Copy)]
enum Source {
    /// The batch itself: tokens and the like.
    Batch,
    /// A bank: of which shelf, and which one there.
    Bank(usize, usize),
    /// What is [`Said`] of the batch.
    Said(usize),
}

/// The inputs of a session in its order, looked up once for many batches.
pub(super) struct Feed {
    inputs: Vec<(String, Source)>,
}

impl Feed {
    /// For a session with these inputs, and its shelves.
    pub(super) fn new(inputs: Vec<String>, shelves: &[Shelf], placed: &[Placed]) -> Feed {
        let mut known: HashMap<&str, Source> = HashMap::new();
        let mut said = 0;
        for (at, (shelf, placed)) in shelves.iter().zip(placed).enumerate() {
            for name in shelf.said().chain(placed.active.as_deref()) {
                known.insert(name, Source::Said(said));
                said += 1;
            }
            known.extend(shelf.banks().map(|(bank, name)| (name, Source::Bank(at, bank))));
        }
        let with_source = |name: String| {
            let source = known.get(name.as_str()).copied().unwrap_or(Source::Batch);
            (name, source)
        };
        Feed { inputs: inputs.into_iter().map(with_source).collect() }
    }

    /// The inputs for a batch.
    ///
    /// # Errors
    /// One that the batch lacks.
    pub(super) fn views<'v>(
        &self,
        batch: &'v HashMap<String, Tensor>,
        said: &'v Said,
        shelves: &'v [Shelf],
    ) -> Result<Vec<View<'v>>> {
        let one = |(name, source): &(String, Source)| {
            let view = match source {
                Source::Batch => batch.get(name).map(View::from),
                Source::Bank(at, bank) => shelves.get(*at).and_then(|s| s.bank(*bank)),
                Source::Said(at) => said.view(*at),
            };
            view.ok_or_else(|| lacking(name, "banks"))
        };
        self.inputs.iter().map(one).collect()
    }
}

/// What is said of the rows of a batch, input by input. Its memory is the same from batch to batch, so that a session that gets it
/// again has nothing to prepare.
#[derive(Default)]
pub(super) struct Said {
    places: Vec<i64>,
    numbers: Vec<f32>,
    flags: Vec<bool>,
    inputs: Vec<Input>,
}

struct Input {
    shape: [usize; 2],
    rank: usize,
    values: Values,
}

enum Values {
    Places(Range<usize>),
    Numbers(Range<usize>),
    Flags(Range<usize>),
}

impl Said {
    /// Nothing is said yet of the next batch.
    pub(super) fn clear(&mut self) {
        self.places.clear();
        self.numbers.clear();
        self.flags.clear();
        self.inputs.clear();
    }

    /// Which rows of a bank are whose: `[rows]`, or `[rows, most]` where `most` is given. All are 0, nobody's, until they are
    /// written to what this gives.
    pub(super) fn places(&mut self, rows: usize, most: Option<usize>) -> &mut [i64] {
        let range = self.places.len()..self.places.len() + rows * most.unwrap_or(1);
        self.places.resize(range.end, 0);
        let (shape, rank) = ([rows, most.unwrap_or(1)], 1 + usize::from(most.is_some()));
        self.inputs.push(Input { shape, rank, values: Values::Places(range.clone()) });
        &mut self.places[range]
    }

    /// A number for each row.
    pub(super) fn numbers(&mut self, numbers: impl Iterator<Item = f32>) {
        let start = self.numbers.len();
        self.numbers.extend(numbers);
        let range = start..self.numbers.len();
        self.inputs.push(Input { shape: [range.len(), 1], rank: 1, values: Values::Numbers(range) });
    }

    /// Yes or no for each row.
    pub(super) fn flags(&mut self, flags: &[bool]) {
        let range = self.flags.len()..self.flags.len() + flags.len();
        self.flags.extend(flags);
        self.inputs.push(Input { shape: [flags.len(), 1], rank: 1, values: Values::Flags(range) });
    }

    fn view(&self, at: usize) -> Option<View<'_>> {
        let Input { shape, rank, values } = self.inputs.get(at)?;
        let shape = shape.get(..*rank)?;
        match values {
            Values::Places(range) => View::new(shape, self.places.get(range.clone())?),
            Values::Numbers(range) => View::new(shape, self.numbers.get(range.clone())?),
            Values::Flags(range) => View::new(shape, self.flags.get(range.clone())?),
        }
        .ok()
    }
}
