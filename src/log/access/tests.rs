//! Exact bytes of lines, and what happens when nobody takes the batches.

use std::{net::Ipv6Addr, sync::mpsc::Receiver};

use super::*;
use crate::{
    log::{
        queue::{self, Job},
        text::FIELD_BYTES_MAX,
    },
    memory::{budget::tests::budget, heap::tests::allocations_during},
};

fn access_log() -> (AccessLog, Receiver<Job>) {
    configured(AccessFormat::Combined, 1)
}

fn configured(format: AccessFormat, sample: u32) -> (AccessLog, Receiver<Job>) {
    let (jobs, received) = queue::channel(1);
    let config = config::AccessLog { format, sample, ..config::AccessLog::default() };
    (
        AccessLog::new(&config, BatchQueue::new(jobs), 0, Arc::new(ShardMetrics::new(0)), budget(1 << 30, 1)),
        received,
    )
}

fn at(unix_seconds: u64) -> Now {
    Now { millis: 0, unix_seconds, unix_second_millis: 7 }
}

fn v6(text: &str) -> Peer {
    Peer::V6(text.parse::<Ipv6Addr>().unwrap().octets(), 443)
}

fn entry() -> Entry<'static> {
    Entry {
        peer: Peer::V4([192, 0, 2, 255], 40123),
        now: at(1_795_435_200),
        request_line: b"GET /x HTTP/1.1",
        request: Some(RequestParts {
            method: b"GET",
            target: b"/x",
            protocol: "HTTP/1.1",
            host: Some(b"a.test"),
        }),
        status: 200,
        body_bytes_sent: 123,
        duration_nanos: 1_000_123_999,
        referer: Some(b"http://example.com/"),
        user_agent: Some(b"curl/8.0"),
        tls: None,
    }
}

/// The text of one entry's line.
fn line_of(entry: Entry<'_>) -> String {
    line_in(AccessFormat::Combined, entry)
}

fn line_in(format: AccessFormat, entry: Entry<'_>) -> String {
    let (mut log, _received) = configured(format, 1);
    log.record(&entry);
    String::from_utf8(log.batch.clone()).unwrap()
}

fn take_batch(received: &Receiver<Job>) -> queue::Batch {
    match received.try_recv() {
        Ok(Job::Access(batch)) => batch,
        other => panic!("no batch but {other:?}"),
    }
}

#[test]
fn writes_the_combined_format() {
    assert_eq!(
        line_of(entry()),
        "192.0.2.255 - - [23/Nov/2026:12:00:00 +0000] \"GET /x HTTP/1.1\" 200 123 \
         \"http://example.com/\" \"curl/8.0\"\n"
    );
}

#[test]
fn writes_a_dash_for_what_is_absent() {
    let bare = Entry {
        request_line: b"",
        status: 400,
        body_bytes_sent: 0,
        referer: None,
        user_agent: Some(b""),
        ..entry()
    };
    assert_eq!(line_of(bare), "192.0.2.255 - - [23/Nov/2026:12:00:00 +0000] \"-\" 400 0 \"-\" \"-\"\n");
}

#[test]
fn names_every_kind_of_peer() {
    for (peer, text) in [
        (Peer::Unix, "unix:"),
        (Peer::V4([0; 4], 1), "0.0.0.0"),
        (Peer::V4([10, 20, 30, 4], 1), "10.20.30.4"),
        (v6("::1"), "::1"),
        (v6("2001:db8::ff00:42:8329"), "2001:db8::ff00:42:8329"),
        (v6("::ffff:192.0.2.1"), "192.0.2.1"),
    ] {
        assert!(line_of(Entry { peer, ..entry() }).starts_with(&format!("{text} - - [")), "{text}");
    }
}

#[test]
fn escapes_what_could_end_a_field_or_a_line() {
    let line = line_of(Entry {
        request_line: b"GET /\"\\\r\n\0\x1f\x20~\x7f\x80\xff HTTP/1.1",
        user_agent: Some("\u{1b}[31mü".as_bytes()),
        ..entry()
    });
    assert!(line.contains(r#""GET /\x22\x5C\x0D\x0A\x00\x1F ~\x7F\x80\xFF HTTP/1.1" 200"#), "{line}");
    assert!(line.ends_with("\"\\x1B[31m\\xC3\\xBC\"\n"), "{line}");
    assert_eq!(line.matches('\n').count(), 1);
}

#[test]
fn the_largest_line_fits_its_estimate() {
    let long = [0_u8; 100_000];
    let largest = Entry {
        peer: v6("1111:2222:3333:4444:5555:6666:7777:8888"),
        status: u16::MAX,
        body_bytes_sent: u64::MAX,
        duration_nanos: u64::MAX,
        request_line: &long,
        request: Some(RequestParts { method: &long, target: &long, protocol: "HTTP/1.1", host: Some(&long) }),
        referer: Some(&long),
        user_agent: Some(&long),
        ..entry()
    };
    let small = Entry { request_line: b"", referer: None, user_agent: None, ..largest };
    let refused = Entry { request: None, ..largest };
    let fits = |entry: Entry<'_>| line_of(entry).len() <= Combined::line_bytes_max(&entry);
    assert!(fits(largest) && fits(small) && fits(refused));
    assert!((3 * FIELD_BYTES_MAX..combined::LINE_BYTES_MAX).contains(&line_of(largest).len()));
    let length = |entry: Entry<'_>| line_in(AccessFormat::Json, entry).len();
    let fits = |entry: Entry<'_>| length(entry) <= Json::line_bytes_max(&entry);
    assert!(fits(largest) && fits(small) && fits(refused));
    assert!((5 * (FIELD_BYTES_MAX - 6)..json::LINE_BYTES_MAX).contains(&length(largest)));
}

#[test]
fn writes_an_object_a_line() {
    assert_eq!(
        line_in(AccessFormat::Json, entry()),
        "{\"time\":\"2026-11-23T12:00:00.007Z\",\"remote_ip\":\"192.0.2.255\",\"remote_port\":40123,\
         \"method\":\"GET\",\"uri\":\"/x\",\"proto\":\"HTTP/1.1\",\"host\":\"a.test\",\"status\":200,\"size\":123,\
         \"duration\":1.000123,\"referer\":\"http://example.com/\",\"user_agent\":\"curl/8.0\"}\n"
    );
    let bare =
        Entry { peer: Peer::Unix, request: None, referer: None, user_agent: None, status: 400, ..entry() };
    assert_eq!(
        line_in(AccessFormat::Json, Entry { request_line: b"GET\x00 \"\\\xff", duration_nanos: 999, ..bare }),
        "{\"time\":\"2026-11-23T12:00:00.007Z\",\"request\":\"GET\\u0000 \\\"\\\\\\u00ff\",\"status\":400,\
         \"size\":123,\"duration\":0.000000}\n"
    );
}

#[test]
fn of_requests_without_an_error_one_in_so_many_is_taken() {
    let taken = |sample: u32, statuses: &[u16]| {
        let (mut log, _received) = configured(AccessFormat::Combined, sample);
        statuses.iter().map(|status| log.takes(*status)).collect::<Vec<_>>()
    };
    assert_eq!(taken(1, &[200; 4]), [true; 4]);
    assert_eq!(
        taken(3, &[200, 304, 206, 200, 200, 399, 301]),
        [true, false, false, true, false, false, true]
    );
    // Each of the others, and they do not count.
    assert_eq!(taken(3, &[200, 400, 200, 503, 404, 200, 200]), [true, true, false, true, true, false, true]);
    let (mut log, _received) = configured(AccessFormat::Combined, 1_000_000);
    assert_eq!((0..1_000_001).filter(|_| log.takes(200)).count(), 2);
}

#[test]
fn a_change_sends_what_was_recorded_to_where_it_belongs() {
    let (mut log, received) = access_log();
    log.record(&entry());
    let config = config::AccessLog { format: AccessFormat::Json, sample: 2, ..config::AccessLog::default() };
    log.change(&config, 5);
    log.record(&entry());
    log.flush();
    let before = take_batch(&received);
    assert!(before.lines.starts_with(b"192.0.2.255 - - [") && before.output == 0);
    let after = take_batch(&received);
    assert!(after.lines.starts_with(b"{\"time\":") && after.output == 5);
    assert_eq!([200; 3].map(|status| log.takes(status)), [true, false, true]);
}

#[test]
fn the_date_follows_the_second() {
    let (mut log, _received) = access_log();
    for unix_seconds in [59, 60, 59] {
        log.record(&Entry { now: at(unix_seconds), ..entry() });
    }
    let text = String::from_utf8(log.batch.clone()).unwrap();
    let dates: Vec<_> = text.lines().map(|line| line.split(['[', ' ']).nth(4).unwrap()).collect();
    assert_eq!(dates, ["01/Jan/1970:00:00:59", "01/Jan/1970:00:01:00", "01/Jan/1970:00:00:59"]);
}

#[test]
fn hands_over_when_a_batch_is_full_and_on_flush() {
    let (mut log, received) = access_log();
    let length = line_of(entry()).len();
    let mut recorded = 0;
    while received.try_recv().is_err() {
        log.record(&entry());
        recorded += 1;
    }
    assert!((recorded - 1) * length <= BATCH_BYTES && recorded * (length + 200) > BATCH_BYTES);
    log.flush();
    assert_eq!(take_batch(&received).lines.len(), length);
    log.flush();
    assert!(received.try_recv().is_err());
}

#[test]
fn drops_and_counts_when_every_batch_is_under_way_and_recovers() {
    let (mut log, received) = access_log();
    let mut recorded = 0_u64;
    while log.metrics.access_log_dropped.value() == 0 {
        log.record(&entry());
        recorded += 1;
    }
    log.record(&entry());
    assert_eq!(log.metrics.access_log_dropped.value(), 2);
    let batches: Vec<_> = (0..BATCHES_MAX).map(|_| take_batch(&received)).collect();
    assert!(received.try_recv().is_err());
    assert_eq!(batches.iter().map(|batch| count_lines(&batch.lines)).sum::<u64>(), recorded - 1);
    batches.into_iter().for_each(queue::Batch::recycle);
    log.record(&entry());
    log.flush();
    assert_eq!(count_lines(&take_batch(&received).lines), 1);
    assert_eq!(log.metrics.access_log_dropped.value(), 2);
}

#[test]
fn keeps_its_lines_while_the_queue_is_full() {
    let (jobs, received) = std::sync::mpsc::sync_channel(1);
    let config = config::AccessLog::default();
    let mut log =
        AccessLog::new(&config, BatchQueue::new(jobs), 0, Arc::new(ShardMetrics::new(0)), budget(1 << 30, 1));
    log.record(&entry());
    log.flush();
    log.record(&entry());
    log.flush();
    assert_eq!(count_lines(&log.batch), 1);
    drop(take_batch(&received));
    log.flush();
    assert_eq!(count_lines(&take_batch(&received).lines), 1);
}

#[test]
fn the_last_lines_are_sent_or_counted_when_it_is_dropped() {
    let (mut log, received) = access_log();
    log.record(&entry());
    drop(log);
    assert_eq!(count_lines(&take_batch(&received).lines), 1);

    let (mut log, received) = access_log();
    let metrics = Arc::clone(&log.metrics);
    drop(received);
    log.record(&entry());
    log.record(&entry());
    drop(log);
    assert_eq!(metrics.access_log_dropped.value(), 2);
}

#[test]
fn a_steady_state_allocates_nothing() {
    for format in [AccessFormat::Combined, AccessFormat::Json] {
        a_steady_state_allocates_nothing_in(format);
    }
}

fn a_steady_state_allocates_nothing_in(format: AccessFormat) {
    let (mut log, received) = configured(format, 1);
    let addresses = [v6("2001:db8::1"), Peer::Unix, entry().peer];
    let turn = |log: &mut AccessLog| {
        for peer in addresses {
            log.record(&Entry { peer, ..entry() });
        }
        log.flush();
        take_batch(&received).recycle();
    };
    (0..4).for_each(|_| turn(&mut log));
    assert_eq!(allocations_during(|| (0..100).for_each(|_| turn(&mut log))), 0);
}

/// Not a test: prints what a line costs. `cargo test --release --lib what_a_line_costs -- --ignored --nocapture`
#[test]
#[ignore = "a measurement, to be read by a person"]
#[allow(clippy::print_stderr)]
fn what_a_line_costs() {
    const LINES: u32 = 2_000_000;
    for (format, what) in [(AccessFormat::Combined, "combined"), (AccessFormat::Json, "json")] {
        let (mut log, received) = configured(format, 1);
        let bare = Entry { referer: None, user_agent: None, ..entry() };
        for (entry, fields) in [(entry(), "with"), (bare, "without")] {
            let begun = std::time::Instant::now();
            for _ in 0..LINES {
                log.record(std::hint::black_box(&entry));
                if let Ok(Job::Access(batch)) = received.try_recv() {
                    batch.recycle();
                }
            }
            let nanos = begun.elapsed().as_nanos() / u128::from(LINES);
            eprintln!(
                "{what}, {fields} Referer and User-Agent: {nanos} ns a line, a look at the queue included"
            );
        }
    }
}

#[test]
fn without_memory_for_a_batch_lines_are_dropped_and_counted() {
    let (jobs, received) = queue::channel(1);
    let metrics = Arc::new(ShardMetrics::new(0));
    let budget = budget(BATCH_BYTES * 2, 1);
    let all = budget.charge(Holder::Host, BATCH_BYTES).unwrap();
    let config = config::AccessLog::default();
    let mut log =
        AccessLog::new(&config, BatchQueue::new(jobs), 0, Arc::clone(&metrics), Arc::clone(&budget));
    log.record(&entry());
    assert_eq!((metrics.access_log_dropped.value(), log.has_lines()), (1, false));
    drop(all);
    log.record(&entry());
    assert_eq!((metrics.access_log_dropped.value(), log.has_lines()), (1, true));
    assert_eq!(budget.used_bytes(), BATCH_BYTES as u64);
    drop((log, received));
    assert_eq!(budget.used_bytes(), 0);
}
