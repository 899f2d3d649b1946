//! Every gradient rule against finite differences: random shapes, broadcasting, attributes, sizes known and unknown.
//!
//! One row an operator. A rule without a row fails `every_rule_has_a_case`.

mod activation;
mod attention;
mod conv;
mod einsum;
mod elementwise;
mod fourier;
mod linear;
mod loss;
mod movement;
mod norm;
mod quant;
mod recurrent;
mod reduce;
mod scatter;
mod symbolic;
mod ties;
mod window;

use std::collections::BTreeSet;

use graft_graph::{Attr, Attrs, Graph, grad};
use graft_tests::differences::{Arg, Case, Derived, Sizes, Tolerance};
use graft_tests::{Draw, runtime};
use proptest::collection::vec;
use proptest::prelude::any;
use proptest::test_runner::{Config, TestCaseError, TestError, TestRunner};

/// Makes a case of the operator.
type Make = fn(&'static str, &mut Draw<'_>) -> Case;
/// Operator, how exact its gradient is, and its cases.
type Row = (&'static str, Tolerance, Make);

/// Cases of one operator in one run; `PROPTEST_CASES` asks for more.
const CASES: u32 = 40;

#[test]
fn every_rule_has_a_case() {
    let all = [
        elementwise::CASES,
        linear::CASES,
        movement::CASES,
        reduce::CASES,
        activation::CASES,
        norm::CASES,
        loss::CASES,
        conv::CASES,
        scatter::CASES,
        window::CASES,
        einsum::CASES,
        fourier::CASES,
        attention::CASES,
        recurrent::CASES,
    ];
    let rows = all.into_iter().flatten().map(|row| row.0).chain(quant::STRAIGHT_THROUGH);
    let rows: BTreeSet<&str> = rows.collect();
    let rules: BTreeSet<&str> = grad::supported().into_iter().collect();
    assert_eq!(rules, rows, "every rule needs a row of cases, and every row a rule");
}

#[test]
fn elementwise_rules_agree_with_differences() {
    check_all(elementwise::CASES);
}

#[test]
fn rules_of_products_and_normalisations_agree_with_differences() {
    check_all(linear::CASES);
}

#[test]
fn rules_that_move_elements_agree_with_differences() {
    check_all(movement::CASES);
}

#[test]
fn rules_of_reductions_agree_with_differences() {
    check_all(reduce::CASES);
}

#[test]
fn activation_functions_agree_with_differences() {
    check_all(activation::CASES);
}

#[test]
fn normalisations_agree_with_differences() {
    check_all(norm::CASES);
}

#[test]
fn losses_agree_with_differences() {
    check_all(loss::CASES);
}

#[test]
fn convolutions_and_poolings_agree_with_differences() {
    check_all(conv::CASES);
}

#[test]
fn taking_and_placing_by_index_agree_with_differences() {
    check_all(scatter::CASES);
}

#[test]
fn padding_repeating_and_resampling_agree_with_differences() {
    check_all(window::CASES);
}

#[test]
fn einsum_equations_agree_with_differences() {
    check_all(einsum::CASES);
}

#[test]
fn attention_and_rotary_positions_agree_with_differences() {
    check_all(attention::CASES);
}

#[test]
fn recurrent_operators_agree_with_differences() {
    check_all(recurrent::CASES);
}

#[test]
fn recurrent_operators_agree_with_differences_in_double_precision() {
    check_all_with(recurrent::DOUBLE, &recurrent::unrolled);
}

fn check_all(rows: &[Row]) {
    check_all_with(rows, &|_, _| {});
}

/// As [`Derived::with_stand_in`], where what stands in hangs on the case.
fn check_all_with(rows: &[Row], stand_in: &dyn Fn(&mut Graph, &Case)) {
    let Some(runtime) = runtime() else { return };
    let mut failures = Vec::new();
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(CASES);
    for (op, tolerance, make) in rows {
        let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
        let result = runner.run(&vec(any::<u16>(), 48), |choices| {
            let mut draw = Draw::new(&choices);
            let case = make(op, &mut draw);
            let join = draw.flag();
            let sizes = match case.needs_sizes {
                true => Sizes::Known,
                false => draw.pick(&[Sizes::Known, Sizes::Own, Sizes::Shared]),
            };
            let (graph, floats, fed) = case.graph(sizes, tolerance.dtype());
            // Gradients of some inputs only: a rule must not lean on the others.
            let some: Vec<_> = floats.iter().copied().filter(|_| !draw.flag()).collect();
            let wrt = if some.is_empty() { floats } else { some };
            let mut check = || {
                let stand_in = |g: &mut Graph| stand_in(g, &case);
                let mut derived = Derived::with_stand_in(runtime, &graph, &wrt, join, &stand_in)?;
                derived.check(&fed, *tolerance, &mut || draw.real(-1.0, 1.0))
            };
            check().map_err(|e| TestCaseError::fail(format!("{e}\n{sizes:?} join {join} {case:?}")))
        });
        failures.extend(result.err().map(|e| match e {
            // The choices say nothing; the case that they led to is in the reason.
            TestError::Fail(why, _) => format!("{op}: {why}"),
            e => format!("{op}: {e}"),
        }));
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

/// A case of one output.
fn case(op: &'static str, args: Vec<Arg>, attrs: &[(&str, Attr)]) -> Case {
    let attrs: Attrs = attrs.iter().map(|(k, v)| (k.to_string(), v.clone())).collect();
    Case { op, attrs, args, outputs: 1, needs_sizes: false }
}
