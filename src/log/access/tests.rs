//! Exact bytes of lines, and what happens when nobody takes the batches.

use std::sync::mpsc::Receiver;

use super::*;
use crate::{
    log::queue::{self, Job},
    memory::heap::tests::allocations_during,
};

fn access_log() -> (AccessLog, Receiver<Job>) {
    let (jobs, received) = queue::channel(1);
    (AccessLog::new(BatchQueue::new(jobs), Arc::new(ShardMetrics::new(0))), received)
}

fn entry() -> Entry<'static> {
    Entry {
        peer: Peer::Ip(IpAddr::from([192, 0, 2, 255])),
        unix_seconds: 1_795_435_200,
        request_line: b"GET /x HTTP/1.1",
        status: 200,
        body_bytes_sent: 123,
        referer: Some(b"http://example.com/"),
        user_agent: Some(b"curl/8.0"),
    }
}

/// The text of one entry's line.
fn line_of(entry: Entry<'_>) -> String {
    let (mut log, _received) = access_log();
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
        (Peer::Ip("0.0.0.0".parse().unwrap()), "0.0.0.0"),
        (Peer::Ip("10.20.30.4".parse().unwrap()), "10.20.30.4"),
        (Peer::Ip("::1".parse().unwrap()), "::1"),
        (Peer::Ip("2001:db8::ff00:42:8329".parse().unwrap()), "2001:db8::ff00:42:8329"),
        (Peer::Ip("::ffff:192.0.2.1".parse().unwrap()), "192.0.2.1"),
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
fn every_byte_is_plain_or_four_characters() {
    for byte in 0..=u8::MAX {
        let mut line = Vec::new();
        push_field(&mut line, Some(&[byte]));
        let expected = if is_plain(byte) { vec![byte] } else { format!("\\x{byte:02X}").into_bytes() };
        assert_eq!(line, expected);
    }
}

#[test]
fn cuts_a_field_past_its_bound_and_not_at_it() {
    let field = |bytes: &[u8]| {
        let mut line = Vec::new();
        push_field(&mut line, Some(bytes));
        line
    };
    assert_eq!(field(&[b'a'; FIELD_BYTES_MAX]), [b'a'; FIELD_BYTES_MAX]);
    let cut = field(&[b'a'; FIELD_BYTES_MAX + 1]);
    assert_eq!(cut.len(), FIELD_BYTES_MAX + 3);
    assert!(cut.ends_with(b"a..."));
    assert_eq!(field(&[0; FIELD_BYTES_MAX / 4]).len(), FIELD_BYTES_MAX);
    assert!(field(&[0; FIELD_BYTES_MAX / 4 + 1]).ends_with(b"\\x00..."));
    // An escape is whole or absent.
    let mut mixed = vec![b'a'; FIELD_BYTES_MAX - 3];
    mixed.push(0);
    assert_eq!(field(&mixed), [&mixed[..FIELD_BYTES_MAX - 3], CUT].concat());
}

#[test]
fn the_largest_line_fits_its_estimate() {
    let long = [0_u8; 100_000];
    let largest = Entry {
        peer: Peer::Ip("1111:2222:3333:4444:5555:6666:7777:8888".parse().unwrap()),
        status: u16::MAX,
        body_bytes_sent: u64::MAX,
        request_line: &long,
        referer: Some(&long),
        user_agent: Some(&long),
        ..entry()
    };
    let length = line_of(largest).len();
    assert!(length <= largest.line_bytes_max() && length > 3 * FIELD_BYTES_MAX);
    let small = Entry { request_line: b"", referer: None, user_agent: None, ..largest };
    assert!(line_of(small).len() <= small.line_bytes_max());
}

#[test]
fn the_date_follows_the_second() {
    let (mut log, _received) = access_log();
    for unix_seconds in [59, 60, 59] {
        log.record(&Entry { unix_seconds, ..entry() });
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
    let mut log = AccessLog::new(BatchQueue::new(jobs), Arc::new(ShardMetrics::new(0)));
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
    let (mut log, received) = access_log();
    let addresses = [Peer::Ip("2001:db8::1".parse().unwrap()), Peer::Unix, entry().peer];
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
