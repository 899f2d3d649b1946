//! A step along a line that fulfils the strong Wolfe conditions (Nocedal and Wright 2006, algorithms 3.5 and 3.6).

use super::lbfgs::{Function, dot};

/// Part of the promised decrease that a step must give.
const DECREASE: f64 = 1e-4;
/// Part of the slope that may be left.
const CURVATURE: f64 = 0.9;
/// Most evaluations of one search.
const EVALUATIONS: usize = 40;
/// Near the minimum the decrease drowns in rounding while slopes are still told apart: a value that is higher by no more
/// than this part of itself counts as equal, and the slopes decide (Hager and Zhang 2005, "A new conjugate gradient
/// method with guaranteed descent and an efficient line search").
const EQUAL: f64 = 1e-12;

/// Where a search starts, and where to.
pub struct Line<'a> {
    /// The place.
    pub x: &'a [f64],
    /// The direction, in which the function falls.
    pub direction: &'a [f64],
    /// The function's value at the place.
    pub value: f64,
    /// Its gradient there.
    pub gradient: &'a [f64],
}

/// Where a search ended.
pub struct Step {
    /// The place.
    pub x: Vec<f64>,
    /// The function's value there.
    pub value: f64,
    /// Its gradient there.
    pub gradient: Vec<f64>,
}

/// Step length, value and slope.
#[derive(Clone, Copy)]
struct Point {
    at: f64,
    value: f64,
    slope: f64,
}

struct Search<'s, 'f> {
    line: &'s Line<'s>,
    f: &'s mut Function<'f>,
    start: Point,
    step: Step,
}

/// Looks for a step, first of length 1; `None` where none fulfils the conditions.
pub fn search(line: &Line<'_>, f: &mut Function<'_>) -> Option<Step> {
    let start = Point { at: 0.0, value: line.value, slope: dot(line.direction, line.gradient) };
    if !start.slope.is_finite() || start.slope >= 0.0 {
        return None;
    }
    let n = line.x.len();
    let step = Step { x: vec![0.0; n], value: 0.0, gradient: vec![0.0; n] };
    let mut s = Search { line, f, start, step };
    s.run().then_some(s.step)
}

impl Search<'_, '_> {
    fn evaluate(&mut self, at: f64) -> Point {
        let places = self.line.x.iter().zip(self.line.direction);
        self.step.x.iter_mut().zip(places).for_each(|(to, (x, d))| *to = x + at * d);
        self.step.value = (self.f)(&self.step.x, &mut self.step.gradient);
        Point { at, value: self.step.value, slope: dot(self.line.direction, &self.step.gradient) }
    }

    fn falls_enough(&self, p: Point) -> bool {
        let (s, equal) = (self.start, EQUAL * self.start.value.abs());
        let by_value = p.value <= s.value + DECREASE * p.at * s.slope;
        by_value || (p.value <= s.value + equal && p.slope <= (2.0 * DECREASE - 1.0) * s.slope)
    }

    fn is_flat_enough(&self, p: Point) -> bool {
        p.slope.abs() <= -CURVATURE * self.start.slope
    }

    /// Lengthens the step until it is a good one or a good one lies behind it.
    fn run(&mut self) -> bool {
        let mut before = self.start;
        let mut at = 1.0;
        for k in 0..EVALUATIONS {
            let here = self.evaluate(at);
            // A value that is not a number is one that is much too high.
            if !here.value.is_finite() || !self.falls_enough(here) || (k > 0 && here.value > before.value) {
                return self.zoom(before, here, EVALUATIONS - k);
            }
            if self.is_flat_enough(here) {
                return true;
            }
            if here.slope >= 0.0 {
                return self.zoom(here, before, EVALUATIONS - k);
            }
            before = here;
            at *= 2.0;
        }
        false
    }

    /// Narrows an interval that holds a good step; `low` is the best end so far.
    fn zoom(&mut self, mut low: Point, mut high: Point, evaluations: usize) -> bool {
        for _ in 0..evaluations {
            let here = self.evaluate(between(low, high));
            if !here.value.is_finite()
                || !self.falls_enough(here)
                || here.value > low.value + EQUAL * low.value.abs()
            {
                high = here;
            } else {
                if self.is_flat_enough(here) {
                    return true;
                }
                if here.slope * (high.at - low.at) >= 0.0 {
                    high = low;
                }
                low = here;
            }
            if (high.at - low.at).abs() <= f64::EPSILON * low.at.abs() {
                break;
            }
        }
        false
    }
}

/// The minimum of the cubic through both ends, if it is well inside, else their middle.
fn between(a: Point, b: Point) -> f64 {
    let middle = 0.5 * (a.at + b.at);
    let d = a.slope + b.slope - 3.0 * (a.value - b.value) / (a.at - b.at);
    let root = (d * d - a.slope * b.slope).sqrt() * (b.at - a.at).signum();
    let cubic = b.at - (b.at - a.at) * (b.slope + root - d) / (b.slope - a.slope + 2.0 * root);
    let (least, most) = (a.at.min(b.at), a.at.max(b.at));
    let margin = 0.1 * (most - least);
    if cubic.is_finite() && cubic > least + margin && cubic < most - margin { cubic } else { middle }
}
