//! The rate by a clock that the tests turn, and a table too small for its clients.

use std::{sync::atomic::AtomicUsize, thread};

use super::*;

const MILLI: u64 = 1_000_000;
/// Any moment but the beginning.
const START: u64 = 77 * SECOND_NANOS;

fn client(number: u32) -> Client {
    Client::V4(number.to_be_bytes())
}

fn admitted(table: &RequestTable, client: Client, rate: Rate, now: u64) -> bool {
    table.ask(client, rate, now) == Verdict::Admitted
}

/// Requests admitted of `count` at one moment.
fn burst(table: &RequestTable, client: Client, rate: Rate, now: u64, count: usize) -> usize {
    (0..count).filter(|_| admitted(table, client, rate, now)).count()
}

/// A xorshift generator: the same numbers each time.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

#[test]
fn no_rate_is_no_limit() {
    assert_eq!(Rate::new(0, 0), None);
    assert_eq!(Rate::new(0, 10), None);
}

#[test]
fn a_burst_then_the_rate_then_a_burst_again() {
    let table = RequestTable::with_sets(1);
    let rate = Rate::new(10, 3).unwrap();
    let ask = |at: u64| table.ask(client(1), rate, START + at);
    assert_eq!(burst(&table, client(1), rate, START, 100), 3);
    assert_eq!(ask(99 * MILLI), Verdict::Refused { retry_after_seconds: 1 });
    assert_eq!(ask(100 * MILLI), Verdict::Admitted);
    assert_eq!(ask(199 * MILLI), Verdict::Refused { retry_after_seconds: 1 });
    assert_eq!(burst(&table, client(1), rate, START + 300 * MILLI, 100), 2);
    assert_eq!(burst(&table, client(1), rate, START + 600 * MILLI, 100), 3);
    assert_eq!(burst(&table, client(1), rate, START + 3600 * SECOND_NANOS, 100), 3);
}

#[test]
fn says_when_the_next_request_is_admitted() {
    let table = RequestTable::with_sets(1);
    let rate = Rate::new(1, 3).unwrap();
    assert_eq!(burst(&table, client(1), rate, START, 4), 3);
    for (millis, seconds) in [(0, 1), (1, 1), (999, 1)] {
        let verdict = table.ask(client(1), rate, START + millis * MILLI);
        assert_eq!(verdict, Verdict::Refused { retry_after_seconds: seconds });
    }
    assert!(admitted(&table, client(1), rate, START + SECOND_NANOS));
    // Another shard's turn may have begun earlier.
    assert_eq!(table.ask(client(1), rate, START), Verdict::Refused { retry_after_seconds: 2 });
}

#[test]
fn never_more_than_the_burst_and_the_rate_in_any_span() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for per_second in [1, 3, 7, 50, 999, 1000, 999_999, 1_000_000] {
        for burst in [1, 2, 10, 1000] {
            let table = RequestTable::with_sets(1);
            let rate = Rate::new(per_second, burst).unwrap();
            let mut now = START + random.below(SECOND_NANOS);
            let mut times = Vec::new();
            for _ in 0..4000 {
                now += match random.below(4) {
                    0 => 0,
                    1 => random.below(rate.request_nanos),
                    2 => random.below(2 * rate.request_nanos),
                    _ => random.below(1 + u64::from(burst) * rate.request_nanos / 100),
                };
                if admitted(&table, client(1), rate, now) {
                    times.push(now);
                }
            }
            assert!(times.len() >= burst as usize);
            for (first, from) in times.iter().enumerate().step_by(17) {
                for (last, to) in times.iter().enumerate().skip(first).step_by(13) {
                    let admitted = (last - first + 1) as f64;
                    let allowed =
                        f64::from(burst) + f64::from(per_second) * (to - from) as f64 / SECOND_NANOS as f64;
                    assert!(
                        admitted <= allowed + 1e-6,
                        "{per_second}/s, burst {burst}: {admitted} > {allowed}"
                    );
                }
            }
        }
    }
}

#[test]
fn whoever_keeps_to_the_rate_is_never_refused() {
    for per_second in [1, 3, 1000, 1_000_000] {
        let table = RequestTable::with_sets(1);
        let rate = Rate::new(per_second, 1).unwrap();
        for request in 0..5000 {
            assert!(admitted(&table, client(1), rate, START + request * rate.request_nanos), "{per_second}");
        }
    }
}

#[test]
fn clients_do_not_share_their_allowance() {
    let table = RequestTable::default();
    let rate = Rate::new(1, 2).unwrap();
    for number in 0..1000 {
        assert_eq!(burst(&table, client(number), rate, START, 3), 2, "client {number}");
    }
    // And all of them are remembered.
    let again = (0..1000).filter(|number| admitted(&table, client(*number), rate, START)).count();
    assert_eq!(again, 0);
}

#[test]
fn a_full_set_forgets_whoever_would_be_whole_soonest() {
    let table = RequestTable::with_sets(1);
    let rate = Rate::new(1, 8).unwrap();
    // Client 3 has asked least, so it is whole soonest.
    for (number, requests) in [(1, 8), (2, 5), (3, 2), (4, 7)] {
        assert_eq!(burst(&table, client(number), rate, START, requests), requests);
    }
    // A fifth has all of its own allowance, and takes that way.
    assert_eq!(burst(&table, client(5), rate, START, 9), 8);
    assert_eq!([1, 2, 4].map(|number| burst(&table, client(number), rate, START, 9)), [0, 3, 1]);
    // Client 3 comes back as a new one.
    assert_eq!(burst(&table, client(3), rate, START, 9), 8);
    // Those who are whole again are forgotten first, and lose nothing by it.
    let later = START + 100 * SECOND_NANOS;
    assert_eq!(burst(&table, client(1), rate, later, 8), 8);
    for number in 10..13 {
        assert_eq!(burst(&table, client(number), rate, later, 9), 8);
    }
    assert_eq!(burst(&table, client(1), rate, later, 1), 0);
}

#[test]
fn a_reload_to_a_smaller_burst_does_not_lock_anybody_out() {
    let table = RequestTable::with_sets(1);
    let wide = Rate::new(1, 1_000_000).unwrap();
    assert_eq!(burst(&table, client(1), wide, START, 1000), 1000);
    let narrow = Rate::new(1, 2).unwrap();
    assert_eq!(table.ask(client(1), narrow, START), Verdict::Refused { retry_after_seconds: 1 });
    assert!(!admitted(&table, client(1), narrow, START + SECOND_NANOS - 1));
    // As if it had just used all that it has now.
    assert_eq!(burst(&table, client(1), narrow, START + SECOND_NANOS, 9), 1);
    assert_eq!(burst(&table, client(1), narrow, START + 9 * SECOND_NANOS, 9), 2);
}

#[test]
fn threads_together_are_admitted_no_more_than_one() {
    let table = RequestTable::default();
    let rate = Rate::new(1, 500).unwrap();
    for number in 0..20 {
        let count = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| count.fetch_add(burst(&table, client(number), rate, START, 300), Relaxed));
            }
        });
        assert_eq!(count.into_inner(), 500);
    }
}

#[test]
fn the_table_has_the_size_that_is_documented() {
    assert_eq!(size_of::<Set>() * SETS, 1 << 20);
    assert_eq!(SETS * WAYS, 65_536);
}
