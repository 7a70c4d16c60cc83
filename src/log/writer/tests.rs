//! The thread with real files, full devices, and pipes that nobody reads.

use std::{
    fs::{self, File},
    io::{self, PipeReader, PipeWriter, Read},
    os::fd::{AsRawFd, OwnedFd},
    path::PathBuf,
    sync::Mutex,
};

use tracing::subscriber::NoSubscriber;

use super::*;
use crate::log::{Entry, Peer};

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
        unix_seconds: 0,
        request_line: b"GET / HTTP/1.1",
        status: 200,
        body_bytes_sent: 13,
        referer: None,
        user_agent: None,
    }
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
        .map(|metrics| (writer.access_log(Arc::clone(metrics)).unwrap(), writer.dispatch()))
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
    assert!(writer.access_log(Arc::new(ShardMetrics::new(0))).is_none());
    tracing::dispatcher::with_default(&writer.dispatch(), || tracing::info!("event"));
    assert_eq!(*heard.lock().unwrap(), 1);
    writer.stop(Duration::ZERO).unwrap();

    let silent = Writer::start(&plan()).unwrap();
    assert!(silent.dispatch().is::<NoSubscriber>());
}

#[test]
fn only_what_is_configured_is_logged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let access = Writer::start(&Plan { access: Some(LogPath::File(path.clone())), ..plan() }).unwrap();
    assert!(access.sink().queue.is_none() && access.dispatch().is::<NoSubscriber>());
    access.stop(LONG).unwrap();
    let diagnostic = Writer::start(&Plan { diagnostic: Some(LogPath::File(path)), ..plan() }).unwrap();
    assert!(diagnostic.access_log(Arc::new(ShardMetrics::new(0))).is_none());
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
    let mut log = writer.access_log(Arc::clone(&metrics)).unwrap();
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
    let mut log = writer.access_log(Arc::new(ShardMetrics::new(0))).unwrap();
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
    let mut log = writer.access_log(Arc::clone(&metrics)).unwrap();
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
    let writer = Writer::launch(&plan(), Some(output), None).unwrap();
    let mut log = writer.access_log(Arc::new(ShardMetrics::new(0))).unwrap();
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
    let mut log = writer.access_log(Arc::new(ShardMetrics::new(0))).unwrap();
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
    let mut logs: Vec<_> = (0..300).map(|_| writer.access_log(Arc::clone(&metrics)).unwrap()).collect();
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
