//! Recurrent operators: each row goes through its steps by itself.

use super::level::Level;
use super::state::{Axis, State, Tag};
use super::{Rule, Step};

pub(super) const RULES: &[(&str, Rule)] = &[("GRU", |s| recurrent(s, 2)), ("LSTM", |s| recurrent(s, 3))];

/// Inputs that may hold a state for each row.
const STATES: [usize; 2] = [5, 6];
/// The input that tells how long rows are.
const LENGTHS: usize = 4;

/// Forwards a step is made of what came before it, so padding behind is not seen by it; backwards, and in the last
/// state, it may be.
fn recurrent(step: &Step<'_>, outputs: usize) -> Option<Vec<State>> {
    let [steps, rows, width] = step.axes(0)? else { return None };
    if step.node.int("layout", 0) != 0 {
        return None;
    }
    // Weights that hang on the batch, or on a sequence, are not followed.
    let fixed = |s: &State| s.is_free() && !s.axes.iter().flatten().any(Axis::has_seq);
    if [1, 2, 3, 7].into_iter().any(|i| step.has(i) && !step.state(i).is_some_and(fixed)) {
        return None;
    }
    let mut all = step.join(&[0, LENGTHS, STATES[0], STATES[1]])?;
    step.consume(&mut all, width);
    for i in STATES.into_iter().filter(|i| step.has(*i)) {
        let [ways, mine, width] = step.axes(i)? else { return None };
        follows(mine, rows)?;
        [ways, width].into_iter().for_each(|a| step.consume(&mut all, a));
    }
    if step.has(LENGTHS) {
        let [mine] = step.axes(LENGTHS)? else { return None };
        follows(mine, rows)?;
    }
    let mut last = all.clone();
    step.consume(&mut last, steps);
    let forwards = step.node.text("direction").unwrap_or("forward") == "forward";
    let tag = match &steps.tag {
        Tag::Seq(..) | Tag::Own | Tag::Same if forwards => steps.tag.clone(),
        _ => {
            step.consume(&mut all, steps);
            step.lose(&mut all, steps)
        }
    };
    // Steps differ by their place even where their input does not.
    let tag = if matches!(tag, Tag::Same) { Tag::Own } else { tag };
    let own = |k: usize| Some(Axis::own(step.out_shape(0)?.get(k)?));
    let (ways, hidden) = (own(1)?, own(3)?);
    let done = |s: State, axes: Vec<Axis>| {
        let mut s = State { axes: Some(axes), affine: None, ..s }.level(Level::Tame);
        s.relevel(&|_| Level::Tame);
        s
    };
    let steps = Axis::new(tag, steps.dim.clone());
    let all = done(all, vec![steps, ways.clone(), rows.clone(), hidden.clone()]);
    let last = done(last, vec![ways, rows.clone(), hidden]);
    Some(std::iter::once(all).chain(std::iter::repeat_n(last, outputs - 1)).collect())
}

/// What has something for each row: along `mine` runs what runs along `rows`, or nothing changes.
fn follows(mine: &Axis, rows: &Axis) -> Option<()> {
    (matches!(mine.tag, Tag::Same) || mine.is_like(rows)).then_some(())
}
