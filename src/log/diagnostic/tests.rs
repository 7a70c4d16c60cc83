//! What reaches a callback and a queue, and in what words.

use std::sync::Mutex;

use tracing::dispatcher::with_default;

use super::*;
use crate::{
    log::queue::{self, DIAGNOSTICS_MAX, Job},
    metrics::LogMetrics,
};

type Seen = Arc<Mutex<Vec<(Level, String, String)>>>;

fn callback(level: Level) -> (Arc<Sink>, Seen) {
    let seen = Seen::default();
    let into = Arc::clone(&seen);
    let callback: Callback = Arc::new(move |level, target: &str, message: &str| {
        into.lock().unwrap().push((level, target.to_owned(), message.to_owned()));
    });
    (Arc::new(Sink::new(level, Some(callback))), seen)
}

/// The message that the host receives from one event.
fn message_of(emit: impl FnOnce()) -> String {
    let (sink, seen) = callback(Level::Trace);
    with_default(&dispatch(&sink), emit);
    let (_, _, message) = seen.lock().unwrap().pop().unwrap();
    message
}

#[test]
fn the_callback_receives_level_target_and_message() {
    let (sink, seen) = callback(Level::Info);
    with_default(&dispatch(&sink), || {
        tracing::warn!(target: "webserver::shard", shard = 3, "shard is slow");
    });
    let expected = (Level::Warn, "webserver::shard".to_owned(), "shard is slow shard=3".to_owned());
    assert_eq!(*seen.lock().unwrap(), [expected]);
}

#[test]
fn each_level_lets_itself_and_the_more_severe_through() {
    for level in [Level::Error, Level::Warn, Level::Info, Level::Debug, Level::Trace] {
        let (sink, seen) = callback(level);
        with_default(&dispatch(&sink), || {
            tracing::error!("1");
            tracing::warn!("2");
            tracing::info!("3");
            tracing::debug!("4");
            tracing::trace!("5");
        });
        let levels: Vec<_> = seen.lock().unwrap().iter().map(|(level, _, _)| *level as u8).collect();
        assert_eq!(levels, (1..=level as u8).collect::<Vec<_>>());
    }
}

#[test]
fn of_the_executor_only_warnings_and_errors_pass() {
    let (sink, seen) = callback(Level::Trace);
    let emit = || {
        tracing::error!(target: "glommio", "1");
        tracing::warn!(target: "glommio::reactor", "2");
        tracing::info!(target: "glommio::reactor", "3");
        tracing::info!(target: "glommiox", "4");
    };
    with_default(&dispatch(&sink), emit);
    let messages: Vec<_> = seen.lock().unwrap().drain(..).map(|(_, _, message)| message).collect();
    assert_eq!(messages, ["1", "2", "4"]);
    sink.change(Level::Error, false);
    with_default(&dispatch(&sink), emit);
    assert_eq!(seen.lock().unwrap().len(), 1);
}

#[test]
fn an_empty_sink_asks_for_no_event() {
    with_default(&dispatch(&Arc::new(Sink::new(Level::Trace, None))), || {
        assert!(!tracing::event_enabled!(tracing::Level::ERROR));
    });
}

#[test]
fn the_level_and_the_file_change_while_a_dispatch_is_in_use() {
    let (jobs, received) = queue::channel(0);
    let sink = Arc::new(Sink::new(Level::Info, None));
    let count = |sink: &Sink| {
        // The same places in the code each time: what they were told before must not be believed.
        tracing::info!("1");
        tracing::debug!("2");
        let lines = received.try_iter().count();
        (0..lines).for_each(|_| sink.queue.get().unwrap().written());
        lines
    };
    with_default(&dispatch(&sink), || {
        assert_eq!(count(&sink), 0);
        sink.connect(DiagnosticQueue::new(jobs, Arc::default()));
        for (level, has_file, lines) in [
            (Level::Info, true, 1),
            (Level::Trace, true, 2),
            (Level::Warn, true, 0),
            (Level::Trace, false, 0),
        ] {
            sink.change(level, has_file);
            assert_eq!(count(&sink), lines, "{level:?}");
        }
    });
}

/// A sink that writes to a queue alone.
fn to_file(queue: DiagnosticQueue) -> Arc<Sink> {
    let sink = Arc::new(Sink::new(Level::Info, None));
    sink.connect(queue);
    sink.change(Level::Info, true);
    sink
}

#[test]
fn spans_are_ignored_and_their_events_pass() {
    let message = message_of(|| {
        let span = tracing::info_span!("request", path = "/");
        span.in_scope(|| tracing::info!("inside"));
    });
    assert_eq!(message, "inside");
}

#[test]
fn fields_follow_the_message_and_odd_strings_are_quoted() {
    let error = std::io::Error::from_raw_os_error(libc::ENOENT);
    let message = message_of(|| {
        tracing::info!(word = "plain", words = "two words", empty = "", quote = "a\"b", yes = true, %error, debug = ?Some(1), "text here");
    });
    assert_eq!(
        message,
        "text here word=plain words=\"two words\" empty=\"\" quote=\"a\\\"b\" yes=true \
         error=No such file or directory (os error 2) debug=Some(1)"
    );
    assert_eq!(message_of(|| tracing::info!(count = 1)), "count=1");
}

#[test]
fn a_peer_cannot_forge_a_line() {
    let path = "/x\r\n2026-11-23T12:00:00Z ERROR forged\u{1b}[0m";
    let message = message_of(|| tracing::info!(%path, "not found: {path}"));
    assert!(!message.chars().any(char::is_control), "{message}");
    assert!(message.contains("/x\\r\\n2026"));
}

#[test]
fn a_message_is_cut_past_its_bound_and_not_at_it() {
    // Room for the mark is kept, so a message may be that much shorter than the bound.
    let longest = "a".repeat(MESSAGE_BYTES_MAX - CUT.len());
    assert_eq!(message_of(|| tracing::info!("{longest}")), longest);
    let cut = message_of(|| tracing::info!(more = 1, "{longest}a"));
    assert_eq!(cut, format!("{longest}{CUT}"));
    let wide = message_of(|| tracing::info!("{}", "ü".repeat(MESSAGE_BYTES_MAX)));
    assert!(wide.len() <= MESSAGE_BYTES_MAX && wide.ends_with("ü..."));
    let controls = message_of(|| tracing::info!("{}", "\0".repeat(MESSAGE_BYTES_MAX)));
    assert!(controls.len() <= MESSAGE_BYTES_MAX && controls.ends_with(CUT));
}

#[test]
fn the_queue_receives_whole_lines() {
    let (jobs, received) = queue::channel(0);
    let queue = DiagnosticQueue::new(jobs, Arc::default());
    with_default(&dispatch(&to_file(queue)), || {
        tracing::info!(target: "webserver::server", listeners = 2, "started");
    });
    let Ok(Job::Diagnostic(line)) = received.try_recv() else { panic!("no line") };
    let (stamp, rest) = line.split_at("2026-11-23T12:00:00Z".len());
    assert!(stamp.ends_with('Z') && stamp.as_bytes()[10] == b'T', "{line}");
    assert_eq!(rest, " INFO webserver::server: started listeners=2\n");
}

#[test]
fn a_full_queue_drops_and_counts_and_recovers() {
    let (jobs, received) = queue::channel(0);
    let metrics = Arc::new(LogMetrics::default());
    let queue = DiagnosticQueue::new(jobs, Arc::clone(&metrics));
    let sink = to_file(queue.clone());
    let emit = |count: usize| {
        with_default(&dispatch(&sink), || (0..count).for_each(|_| tracing::info!("event")));
    };
    emit(DIAGNOSTICS_MAX);
    assert_eq!(metrics.diagnostics_dropped.value(), 0);
    emit(1);
    assert_eq!(metrics.diagnostics_dropped.value(), 1);
    assert!(received.try_recv().is_ok());
    queue.written();
    emit(1);
    assert_eq!(metrics.diagnostics_dropped.value(), 1);
    drop(received);
    queue.written();
    emit(2);
    assert_eq!(metrics.diagnostics_dropped.value(), 3);
}

#[test]
fn an_event_inside_a_callback_does_not_recurse() {
    let seen = Arc::new(Mutex::new(0));
    let into = Arc::clone(&seen);
    let callback: Callback = Arc::new(move |_, _, _: &str| {
        *into.lock().unwrap() += 1;
        tracing::error!("from inside");
    });
    let sink = Arc::new(Sink::new(Level::Info, Some(callback)));
    with_default(&dispatch(&sink), || tracing::error!("outside"));
    assert_eq!(*seen.lock().unwrap(), 1);
}

#[test]
fn a_later_server_hears_from_places_that_an_earlier_one_has_passed() {
    let place = || tracing::warn!("passed");
    for round in 0..2 {
        let (sink, seen) = callback(Level::Info);
        // Made by a thread of the host, heard on one of ours.
        let dispatch = dispatch(&sink);
        std::thread::spawn(move || with_default(&dispatch, place)).join().unwrap();
        assert_eq!(seen.lock().unwrap().len(), 1, "server {round}");
    }
}
