use super::*;

const LIMITS: Limits = Limits {
    batch_rows: 4,
    batch_tokens: 1024,
    pass_tokens: Some(64),
    queue_rows: 1024,
    adapter_queue_rows: None,
    texts: 1024,
    text_bytes: 1024,
    bank_bytes: 1024,
};

/// A row that takes all threads.
const ALL: &str = "all";

struct Two(Lanes<&'static str>);

impl Two {
    fn new() -> Two {
        Two(Lanes::new(2))
    }

    fn push(&mut self, lane: usize, row: &'static str) -> Place {
        self.0.push(lane, &Some(row.into()), 10, row)
    }

    fn fill(&mut self, lane: usize, row: &'static str, count: usize) {
        for _ in 0..count {
            self.push(lane, row);
        }
    }

    fn begin(&mut self, lane: usize) -> Option<(Vec<&'static str>, Threads)> {
        self.0.begin(lane, &LIMITS, |_| true, |row| *row == ALL)
    }
}

#[test]
fn a_batch_has_all_threads_while_there_is_little_to_do() {
    let mut two = Two::new();
    two.push(0, "a");
    assert_eq!(two.begin(0), Some((vec!["a"], Threads::All)));
    two.push(0, "b");
    two.push(1, "c");
    assert!(!two.0.can_begin(1) && two.begin(1).is_none());
    two.0.end(0, Threads::All);
    assert_eq!(two.begin(0), None, "the other one waited");
    assert_eq!(two.begin(1), Some((vec!["c"], Threads::All)));
    two.0.end(1, Threads::All);
    assert_eq!(two.begin(0), Some((vec!["b"], Threads::All)));
}

#[test]
fn batches_share_the_threads_while_there_is_much_to_do() {
    let mut two = Two::new();
    two.fill(0, "a", 3);
    two.push(1, "b");
    assert_eq!(two.begin(0), Some((vec!["a"; 3], Threads::Half)));
    assert_eq!(two.begin(1), Some((vec!["b"], Threads::Half)));
    assert_eq!(two.begin(0), None, "one of a lane at a time");
    two.0.end(1, Threads::Half);
    two.push(1, "c");
    assert_eq!(two.begin(1), Some((vec!["c"], Threads::Half)), "the other lane still runs");
    two.0.end(1, Threads::Half);
    two.0.end(0, Threads::Half);
    two.fill(1, "d", 3);
    assert_eq!(two.begin(1), Some((vec!["d"; 3], Threads::All)), "there is nothing else");
}

#[test]
fn what_takes_all_threads_waits_for_them_and_nothing_starts_before() {
    let mut two = Two::new();
    two.fill(0, "a", 3);
    two.push(1, ALL);
    assert_eq!(two.begin(0), Some((vec!["a"; 3], Threads::Half)));
    assert_eq!(two.begin(1), None);
    assert_eq!(two.0.waiting(), 1, "it still waits");
    two.0.end(0, Threads::Half);
    two.push(0, "b");
    assert_eq!(two.begin(0), None, "it would never come to its threads");
    assert_eq!(two.begin(1), Some((vec![ALL], Threads::All)));
}

#[test]
fn what_takes_all_threads_lets_the_other_lane_have_its_turn() {
    let mut two = Two::new();
    two.push(0, ALL);
    assert_eq!(two.begin(0), Some((vec![ALL], Threads::All)));
    two.push(0, ALL);
    two.push(1, "a");
    two.0.end(0, Threads::All);
    assert_eq!(two.begin(0), None, "the other one waited");
    assert_eq!(two.begin(1), Some((vec!["a"], Threads::All)));
    two.push(1, "b");
    two.0.end(1, Threads::All);
    assert_eq!(two.begin(1), None, "now it is the first one's turn");
    assert_eq!(two.begin(0), Some((vec![ALL], Threads::All)));
}

#[test]
fn who_gives_up_its_turn_keeps_nobody_waiting() {
    let mut two = Two::new();
    two.push(0, ALL);
    two.begin(0);
    two.push(0, ALL);
    let place = two.push(1, "a");
    two.0.end(0, Threads::All);
    assert_eq!(two.begin(0), None);
    assert_eq!(two.0.remove(1, place), Some("a"));
    assert_eq!(two.begin(1), None);
    assert_eq!(two.begin(0), Some((vec![ALL], Threads::All)));
}

#[test]
fn half_of_the_threads_have_half_of_the_tokens() {
    let mut two = Two::new();
    // Four of ten tokens fit into 64, three of them into 32.
    two.fill(0, "a", 4);
    assert_eq!(two.begin(0).map(|(rows, _)| rows.len()), Some(4));
    two.0.end(0, Threads::All);
    two.fill(0, "a", 4);
    two.push(1, "b");
    assert_eq!(two.begin(0), Some((vec!["a"; 3], Threads::Half)));
}

#[test]
fn adapters_go_where_there_is_least_to_do() {
    let mut two = Two::new();
    assert_eq!([two.0.give(), two.0.give(), two.0.give()], [0, 1, 0], "by turns");
    two.fill(1, "a", 2);
    assert_eq!([two.0.give(), two.0.give()], [0, 0]);
    two.begin(1);
    two.push(0, "b");
    two.push(0, "b");
    assert_eq!(two.0.idlest(0), 1, "what is run counts as one");
    assert_eq!((two.0.waiting(), two.0.waiting_of(&Some("b".into()))), (2, 2));
}

#[test]
fn one_lane_has_all_threads() {
    let mut one: Lanes<&str> = Lanes::new(1);
    for row in ["a", ALL] {
        one.push(0, &None, 10, row);
        let begun = one.begin(0, &LIMITS, |_| true, |row| *row == ALL);
        assert_eq!(begun, Some((vec![row], Threads::All)));
        one.end(0, Threads::All);
    }
    assert_eq!((one.give(), one.give()), (0, 0));
}
