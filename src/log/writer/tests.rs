//! The thread with real files, full devices, and pipes that nobody reads.

use std::{
    fs::{self, File},
    io::{self, PipeReader, PipeWriter, Read},
    os::fd::{AsRawFd, OwnedFd},
    path::PathBuf,
    sync::Mutex,
};

use super::*;
use crate::memory::budget::tests::budget;
use crate::{
    clock::Now,
    config::AccessFormat,
    log::{Entry, queue::CHANGES_MAX},
    sys::socket::Peer,
};

/// Longer than any test takes: a deadline that is reached is a failure.
const LONG: Duration = Duration::from_secs(120);

fn plan() -> Plan {
    Plan {
        access: None,
        diagnostic: None,
        level: Level::Info,
        callback: None,
        shards: 1,
        metrics: Arc::default(),
    }
}

fn entry() -> Entry<'static> {
    Entry {
        peer: Peer::Unix,
        now: Now { millis: 0, unix_seconds: 0, unix_second_millis: 0 },
        request_line: b"GET / HTTP/1.1",
        request: None,
        status: 200,
        body_bytes_sent: 13,
        duration_nanos: 0,
        referer: None,
        user_agent: None,
        tls: None,
    }
}

/// A shard's access log in the usual format.
fn access_log(writer: &Writer, metrics: &Arc<ShardMetrics>) -> Option<AccessLog> {
    let config = writer.plan.access.as_ref().map(|_| config::AccessLog::default());
    writer.lines().access_log(config.as_ref(), Arc::clone(metrics), &budget(1 << 30, 1))
}

/// Whether an error would be written anywhere.
fn hears(writer: &Writer) -> bool {
    tracing::dispatcher::with_default(&writer.dispatch(), || tracing::event_enabled!(tracing::Level::ERROR))
}

/// The writing end of a pipe, to be opened as a log file: non-blocking then, unlike `writer` itself.
fn path_of(writer: &PipeWriter) -> LogPath {
    LogPath::File(PathBuf::from(format!("/proc/self/fd/{}", writer.as_raw_fd())))
}

fn read_lines(reader: &mut PipeReader) -> Vec<String> {
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn both_logs_are_on_disk_after_stop() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let plan = Plan {
        access: Some(LogPath::File(path("access.log"))),
        diagnostic: Some(LogPath::File(path("server.log"))),
        shards: 2,
        ..plan()
    };
    let writer = Writer::start(&plan).unwrap();
    let shards = [(); 2].map(|()| Arc::new(ShardMetrics::new(0)));
    let threads: Vec<_> = shards
        .iter()
        .map(|metrics| (access_log(&writer, metrics).unwrap(), writer.dispatch()))
        .enumerate()
        .map(|(shard, (mut log, dispatch))| {
            std::thread::spawn(move || {
                let _default = tracing::dispatcher::set_default(&dispatch);
                tracing::info!(target: "webserver", shard, "started");
                (0..1000).for_each(|_| log.record(&entry()));
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    writer.stop(LONG).unwrap();

    let access = fs::read_to_string(path("access.log")).unwrap();
    let dropped: u64 = shards.iter().map(|metrics| metrics.access_log_dropped.value()).sum();
    assert_eq!((access.lines().count(), dropped), (2000, 0));
    let line = "unix: - - [01/Jan/1970:00:00:00 +0000] \"GET / HTTP/1.1\" 200 13 \"-\" \"-\"";
    assert!(access.lines().all(|written| written == line));
    let server = fs::read_to_string(path("server.log")).unwrap();
    let mut events: Vec<_> = server.lines().map(|line| line.split_once(' ').unwrap().1).collect();
    events.sort_unstable();
    assert_eq!(events, ["INFO webserver: started shard=0", "INFO webserver: started shard=1"]);
}

#[test]
fn without_files_there_is_no_thread_and_the_callback_still_hears() {
    let heard = Arc::new(Mutex::new(0));
    let into = Arc::clone(&heard);
    let callback: Callback = Arc::new(move |_, _, _: &str| *into.lock().unwrap() += 1);
    let writer = Writer::start(&Plan { callback: Some(callback), ..plan() }).unwrap();
    assert!(writer.thread.is_none());
    assert!(access_log(&writer, &Arc::new(ShardMetrics::new(0))).is_none());
    tracing::dispatcher::with_default(&writer.dispatch(), || tracing::info!("event"));
    assert_eq!(*heard.lock().unwrap(), 1);
    writer.stop(Duration::ZERO).unwrap();

    let silent = Writer::start(&plan()).unwrap();
    assert!(!hears(&silent));
}

#[test]
fn only_what_is_configured_is_logged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let access = Writer::start(&Plan { access: Some(LogPath::File(path.clone())), ..plan() }).unwrap();
    assert!(!hears(&access));
    access.stop(LONG).unwrap();
    let diagnostic = Writer::start(&Plan { diagnostic: Some(LogPath::File(path)), ..plan() }).unwrap();
    assert!(hears(&diagnostic) && access_log(&diagnostic, &Arc::new(ShardMetrics::new(0))).is_none());
    diagnostic.stop(LONG).unwrap();
}

#[test]
fn a_file_that_cannot_be_opened_fails_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = LogPath::File(folder.path().to_owned());
    let error = Writer::start(&Plan { access: Some(path), ..plan() }).unwrap_err();
    assert_eq!((error.kind(), error.sys_errno()), (ErrorKind::Io, libc::EISDIR));
    assert!(error.message().contains(folder.path().to_str().unwrap()));
}

#[test]
fn a_stalled_writer_costs_counted_lines_and_nothing_else() {
    let (mut reader, pipe) = io::pipe().unwrap();
    let plan = Plan { access: Some(path_of(&pipe)), ..plan() };
    let writer = Writer::start(&plan).unwrap();
    drop(pipe);
    let metrics = Arc::new(ShardMetrics::new(0));
    let mut log = access_log(&writer, &metrics).unwrap();
    // The pipe and eight batches take about 600 KB; this is 2 MB and nobody reads yet.
    let recorded = 30_000;
    (0..recorded).for_each(|_| log.record(&entry()));
    assert!(metrics.access_log_dropped.value() > 0);
    drop(log);
    let stopping = std::thread::spawn(move || writer.stop(LONG));
    let lines = read_lines(&mut reader);
    stopping.join().unwrap().unwrap();
    assert_eq!(lines.len() as u64 + metrics.access_log_dropped.value(), recorded);
    assert!(lines.windows(2).all(|pair| pair[0] == pair[1]), "only whole lines");
    assert_eq!(plan.metrics.lines_lost.value(), 0);
}

#[test]
fn a_full_disk_is_survived_counted_and_reported_to_the_other_log() {
    let (mut reader, pipe) = io::pipe().unwrap();
    let plan =
        Plan { access: Some(LogPath::File("/dev/full".into())), diagnostic: Some(path_of(&pipe)), ..plan() };
    let writer = Writer::start(&plan).unwrap();
    drop(pipe);
    let mut log = access_log(&writer, &Arc::new(ShardMetrics::new(0))).unwrap();
    for _ in 0..3 {
        log.record(&entry());
        log.flush();
    }
    drop(log);
    writer.stop(LONG).unwrap();
    assert_eq!((plan.metrics.write_errors.value(), plan.metrics.lines_lost.value()), (3, 3));
    let lines = read_lines(&mut reader);
    assert_eq!(lines.len(), 1);
    assert!(lines[0].contains(" ERROR webserver::log::output: cannot write log lines"), "{lines:?}");
    assert!(lines[0].contains("log=/dev/full") && lines[0].contains("No space left"), "{lines:?}");
}

#[test]
fn stop_gives_up_on_a_pipe_that_nobody_reads() {
    let (reader, pipe) = io::pipe().unwrap();
    let plan = Plan { access: Some(path_of(&pipe)), ..plan() };
    let writer = Writer::start(&plan).unwrap();
    let metrics = Arc::new(ShardMetrics::new(0));
    let mut log = access_log(&writer, &metrics).unwrap();
    (0..30_000).for_each(|_| log.record(&entry()));
    drop(log);
    // The thread gives up at once; that the writer is dropped instead of stopped leaves the join to us.
    let mut writer = writer;
    let thread = writer.thread.take().unwrap();
    thread.begin_to_stop(Instant::now());
    thread.handle.join().unwrap();
    assert!(plan.metrics.lines_lost.value() > 0);
    drop((reader, pipe));
}

#[test]
fn stop_reports_a_thread_that_hangs_in_a_write() {
    let (mut reader, pipe) = io::pipe().unwrap();
    // Not reopened: a blocking write, as to storage that hangs.
    let output = Output::new(File::from(OwnedFd::from(pipe)), "pipe".to_owned());
    let mut writer = Writer::start(&plan()).unwrap();
    let plan = Plan { access: Some(LogPath::Standard), ..plan() };
    writer.make_way(true).unwrap();
    writer.commit(Prepared { plan, change: Change { open: Some((0, output)), ..Change::default() } });
    let mut log = access_log(&writer, &Arc::new(ShardMetrics::new(0))).unwrap();
    (0..30_000).for_each(|_| log.record(&entry()));
    drop(log);
    let error = writer.stop(Duration::from_millis(1)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.message().contains("webserver-log"));
    // The thread ends by itself once the write returns, and with it the pipe.
    assert!(!read_lines(&mut reader).is_empty());
}

#[test]
fn a_writer_that_is_dropped_ends_its_thread() {
    let (mut reader, pipe) = io::pipe().unwrap();
    let writer =
        Writer::start(&Plan { access: Some(path_of(&pipe)), diagnostic: Some(path_of(&pipe)), ..plan() })
            .unwrap();
    drop(pipe);
    let mut log = access_log(&writer, &Arc::new(ShardMetrics::new(0))).unwrap();
    log.record(&entry());
    drop(log);
    drop(writer);
    // Ends when the thread has closed both ends it had.
    assert_eq!(read_lines(&mut reader).len(), 1);
}

#[test]
fn stop_twice_over_is_harmless_and_the_queue_may_be_full() {
    let (mut reader, pipe) = io::pipe().unwrap();
    let plan = Plan { access: Some(path_of(&pipe)), shards: 0, ..plan() };
    let writer = Writer::start(&plan).unwrap();
    drop(pipe);
    // Far more batches than a queue for no shards was made for.
    let metrics = Arc::new(ShardMetrics::new(0));
    let mut logs: Vec<_> = (0..300).map(|_| access_log(&writer, &metrics).unwrap()).collect();
    let mut recorded = 0;
    for log in &mut logs {
        for _ in 0..900 {
            log.record(&entry());
            recorded += 1;
        }
    }
    drop(logs);
    assert!(metrics.access_log_dropped.value() > 0);
    let stopping = std::thread::spawn(move || writer.stop(LONG));
    let lines = read_lines(&mut reader).len() as u64;
    stopping.join().unwrap().unwrap();
    assert_eq!(lines + metrics.access_log_dropped.value(), recorded);
}

/// A folder for logs, and the lines of a file in it.
struct Logs(tempfile::TempDir);

impl Logs {
    fn new() -> Self {
        Logs(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> LogPath {
        LogPath::File(self.0.path().join(name))
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.0.path().join(from), self.0.path().join(to)).unwrap();
    }

    fn lines(&self, name: &str) -> usize {
        fs::read_to_string(self.0.path().join(name)).unwrap().lines().count()
    }
}

fn record(log: &mut AccessLog, lines: usize) {
    (0..lines).for_each(|_| log.record(&entry()));
    log.flush();
}

#[test]
fn after_a_rotation_the_old_files_are_complete_and_the_new_ones_take_over() {
    let logs = Logs::new();
    let plan = Plan { access: Some(logs.path("access")), diagnostic: Some(logs.path("server")), ..plan() };
    let mut writer = Writer::start(&plan).unwrap();
    let mut log = access_log(&writer, &Arc::new(ShardMetrics::new(0))).unwrap();
    let note = |writer: &Writer| {
        tracing::dispatcher::with_default(&writer.dispatch(), || tracing::info!("noted"));
    };
    for round in 1..=3 {
        record(&mut log, 1000);
        note(&writer);
        let (access, server) = (format!("access.{round}"), format!("server.{round}"));
        logs.rename("access", &access);
        logs.rename("server", &server);
        // Not handed over yet: these are for the new file.
        (0..5).for_each(|_| log.record(&entry()));
        writer.reopen(LONG).unwrap();
        let carried = if round == 1 { 0 } else { 5 };
        assert_eq!((logs.lines(&access), logs.lines(&server)), (1000 + carried, 1));
        assert_eq!((logs.lines("access"), logs.lines("server")), (0, 0));
        log.flush();
    }
    drop(log);
    writer.stop(LONG).unwrap();
    assert_eq!(logs.lines("access"), 5);
    assert_eq!((plan.metrics.reopens.value(), plan.metrics.reopen_errors.value()), (3, 0));
}

#[test]
fn a_rotation_without_a_rename_changes_nothing() {
    let logs = Logs::new();
    let mut writer = Writer::start(&Plan { access: Some(logs.path("access")), ..plan() }).unwrap();
    let mut log = access_log(&writer, &Arc::new(ShardMetrics::new(0))).unwrap();
    for _ in 0..3 {
        record(&mut log, 10);
        writer.reopen(LONG).unwrap();
    }
    assert_eq!(logs.lines("access"), 30);
    // And one without any file has nothing to do.
    Writer::start(&plan()).unwrap().reopen(Duration::ZERO).unwrap();
}

#[test]
fn a_file_that_cannot_be_opened_anew_leaves_both_old_ones() {
    let logs = Logs::new();
    let plan = Plan { access: Some(logs.path("access")), diagnostic: Some(logs.path("server")), ..plan() };
    let mut writer = Writer::start(&plan).unwrap();
    let mut log = access_log(&writer, &Arc::new(ShardMetrics::new(0))).unwrap();
    logs.rename("access", "access.1");
    logs.rename("server", "server.1");
    fs::create_dir(logs.0.path().join("server")).unwrap();
    let error = writer.reopen(LONG).unwrap_err();
    assert_eq!((error.kind(), error.sys_errno()), (ErrorKind::Io, libc::EISDIR));
    assert!(error.message().contains("/server"), "{error}");
    assert_eq!(plan.metrics.reopen_errors.value(), 1);
    record(&mut log, 7);
    drop(log);
    writer.stop(LONG).unwrap();
    assert_eq!((logs.lines("access.1"), logs.lines("access")), (7, 0));
}

#[test]
fn rotations_behind_a_pipe_that_nobody_reads_are_refused_in_time_and_bounded() {
    let (reader, pipe) = io::pipe().unwrap();
    let plan = Plan { access: Some(path_of(&pipe)), ..plan() };
    let mut writer = Writer::start(&plan).unwrap();
    let mut log = access_log(&writer, &Arc::new(ShardMetrics::new(0))).unwrap();
    record(&mut log, 10_000);
    for _ in 0..3 * CHANGES_MAX {
        assert_eq!(writer.reopen(Duration::from_millis(1)).unwrap_err().kind(), ErrorKind::Timeout);
    }
    let waiting = writer.thread.as_ref().map(Thread::has_room);
    assert_eq!(waiting.unwrap().unwrap_err().kind(), ErrorKind::Timeout);
    drop((reader, pipe, log));
    writer.stop(LONG).unwrap();
}

#[test]
fn a_reload_takes_access_lines_from_one_file_to_another_and_mixes_none() {
    let logs = Logs::new();
    let metrics = Arc::new(ShardMetrics::new(0));
    let first = Plan { access: Some(logs.path("one")), ..plan() };
    let mut writer = Writer::start(&first).unwrap();
    let lines = writer.lines();
    let combined = config::AccessLog::default();
    let json = config::AccessLog { format: AccessFormat::Json, ..combined.clone() };
    // Two shards, of which one turns later than the other.
    let budget = budget(1 << 30, 1);
    let mut shards = [(); 2].map(|()| lines.access_log(Some(&combined), Arc::clone(&metrics), &budget));
    for shard in shards.iter_mut().flatten() {
        record(shard, 10);
        shard.record(&entry());
    }
    let prepared = writer.prepare(&Plan { access: Some(logs.path("two")), ..first.clone() }).unwrap();
    for shard in shards.iter_mut().flatten() {
        record(shard, 10);
    }
    writer.commit(prepared);
    let [early, late] = &mut shards;
    *early = lines.change(early.take(), Some(&json), &metrics, &budget);
    record(early.as_mut().unwrap(), 100);
    record(late.as_mut().unwrap(), 10);
    *late = lines.change(late.take(), Some(&json), &metrics, &budget);
    writer.finish();
    record(late.as_mut().unwrap(), 100);
    // Off, and on again: a new file of the old name.
    let prepared = writer.prepare(&Plan { access: None, ..first.clone() }).unwrap();
    writer.commit(prepared);
    shards = shards.map(|shard| lines.change(shard, None, &metrics, &budget));
    writer.finish();
    assert!(shards.iter().all(Option::is_none));
    logs.rename("one", "one.1");
    let prepared = writer.prepare(&first).unwrap();
    writer.commit(prepared);
    shards = shards.map(|shard| lines.change(shard, Some(&combined), &metrics, &budget));
    writer.finish();
    for shard in shards.iter_mut().flatten() {
        record(shard, 3);
    }
    drop(shards);
    writer.stop(LONG).unwrap();
    assert_eq!((logs.lines("one.1"), logs.lines("two"), logs.lines("one")), (52, 200, 6));
    let two = fs::read_to_string(logs.0.path().join("two")).unwrap();
    assert!(two.lines().all(|line| line.starts_with("{\"time\":")));
    assert_eq!((metrics.access_log_dropped.value(), first.metrics.lines_lost.value()), (0, 0));
}

#[test]
fn what_cannot_be_prepared_changes_nothing() {
    let logs = Logs::new();
    let first = Plan { diagnostic: Some(logs.path("server")), ..plan() };
    let mut writer = Writer::start(&first).unwrap();
    let access = Some(LogPath::File(logs.0.path().to_owned()));
    let error = writer.prepare(&Plan { access, diagnostic: None, ..first.clone() }).map(drop).unwrap_err();
    assert_eq!(error.sys_errno(), libc::EISDIR);
    // Nor what was prepared and thrown away.
    drop(writer.prepare(&Plan { diagnostic: None, level: Level::Error, ..first }).unwrap());
    tracing::dispatcher::with_default(&writer.dispatch(), || tracing::info!("noted"));
    writer.stop(LONG).unwrap();
    assert_eq!(logs.lines("server"), 1);
}

#[test]
fn logs_are_turned_on_in_a_server_that_had_none() {
    let logs = Logs::new();
    let mut writer = Writer::start(&plan()).unwrap();
    let dispatch = writer.dispatch();
    let note = || tracing::dispatcher::with_default(&dispatch, || tracing::debug!("noted"));
    note();
    for (level, name) in [(Level::Debug, "one"), (Level::Info, "one"), (Level::Trace, "two")] {
        let wanted = Plan { diagnostic: Some(logs.path(name)), level, ..plan() };
        let prepared = writer.prepare(&wanted).unwrap();
        writer.commit(prepared);
        writer.finish();
        note();
    }
    writer.stop(LONG).unwrap();
    assert_eq!((logs.lines("one"), logs.lines("two")), (1, 1));
}
