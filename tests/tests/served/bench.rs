//! `graft bench serve` against a small server.

use serde_json::Value;

use crate::house;

/// The number at a place.
#[track_caller]
fn number(figures: &Value, place: &str) -> f64 {
    figures.pointer(place).and_then(Value::as_f64).unwrap_or_else(|| panic!("no {place} in {figures}"))
}

#[test]
fn both_loops_answer_and_their_figures_fit_each_other() {
    let Some(house) = house() else { return };
    let server = house.serve("");
    let bench = |more: &str| {
        let line = format!("bench serve --url {} --duration 0.5 --warmup 0.1 --json {more}", server.http);
        let mut command = house.command(&line);
        command.env("GRAFT_ADMIN_KEY", graft_tests::served::ADMIN_KEY);
        graft_tests::fixture::Ended::of(&mut command)
    };
    let closed = bench("--clients 3 --rows 2 --by-adapter");
    assert!(closed.out.contains("one  ") && closed.out.contains("latency, ms"), "{}", closed.out);
    assert!(closed.out.contains("beyond inference"), "{}", closed.out);
    let open = bench("--rate 60 --texts test.csv --zipf 1 --adapter two --adapter one=0.5 --adapter base");
    for (ended, rows, names) in
        [(&closed, 2.0, &["one", "rank", "two"][..]), (&open, 1.0, &["two", "one", "base"])]
    {
        let figures = ended.json();
        let answered = number(&figures, "/answered");
        assert!(answered > 0.0 && figures["errors"].as_object().is_some_and(|e| e.is_empty()), "{figures}");
        let a_second = number(&figures, "/requests_per_second");
        assert!((a_second * number(&figures, "/seconds") - answered).abs() < 1e-6);
        assert!((number(&figures, "/rows_per_second") - rows * a_second).abs() < 1e-6);
        assert!(
            (0.0..1.0).contains(&number(&figures, "/padding"))
                && number(&figures, "/tokens_per_second") > 0.0
        );
        let ranks_of =
            |what: &str| ["p50", "p90", "p99", "max"].map(|r| number(&figures, &format!("/{what}/{r}")));
        let ranks = ranks_of("latency_ms");
        assert!(ranks.is_sorted() && ranks[0] > 0.0, "{ranks:?}");
        let beyond = ranks_of("beyond_inference_ms");
        assert!(beyond.is_sorted() && beyond[0] > 0.0, "{beyond:?}");
        assert!(beyond.iter().zip(ranks).all(|(b, all)| *b < all), "{beyond:?} of {ranks:?}");
        let adapters = figures["adapters"].as_array().expect("a list");
        assert!(adapters.iter().map(|a| &a["name"]).eq(names), "{figures}");
        let sum: f64 = adapters.iter().map(|a| number(a, "/answered")).sum();
        assert_eq!(sum, answered, "each is one adapter's");
    }
    // 60 a second for half a second, drawn from the seed.
    let sent = number(&open.json(), "/answered");
    assert!((10.0..60.0).contains(&sent), "{sent}");
}

#[test]
fn what_can_not_be_measured_is_told() {
    let Some(house) = house() else { return };
    let server = house.serve("");
    let at = |more: &str| house.run(&format!("bench serve --url {} {more}", server.http));
    at("--adapter nobody").refused(&["nobody", "there is no adapter 'nobody' here"]);
    at("--adapter one=0").refused(&["share of 0"]);
    at("--words 9-3").refused(&["--words 9-3"]);
    at("--rate=-1").refused(&["--rate -1"]);
    at("--texts train.csv --column none").refused(&["no column `none`"]);
    house.run("bench serve --url https://127.0.0.1:1").refused(&["no address of a server"]);
    house.run("bench serve --url http://127.0.0.1:1 --timeout 5").refused(&["connection failed"]);
}

#[test]
fn refusals_are_counted_and_are_no_errors() {
    let Some(house) = house() else { return };
    let server = house.serve("--set rates.everyone=20");
    let line = format!("bench serve --url {} --rate 200 --duration 0.5 --warmup 0 --json", server.http);
    let figures = house.run(&line).json();
    assert!(number(&figures, "/refused") > 0.0 && number(&figures, "/answered") > 0.0, "{figures}");
    assert_eq!(figures["padding"], Value::Null, "the numbers need a key");
}
