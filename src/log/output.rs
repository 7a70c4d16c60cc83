//! A file that log lines are appended to, and how its failures are survived.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::OpenOptionsExt,
    },
    path::Path,
    thread,
    time::{Duration, Instant},
};

use super::access::count_lines;
use crate::{Error, Result, config::LogPath, metrics::LogMetrics};

/// Failures of one output are reported once in this time; all of them are counted.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);
/// How often a pipe that is full is tried again.
const RETRY_INTERVAL: Duration = Duration::from_millis(10);

/// An open log.
#[derive(Debug)]
pub(super) struct Output {
    file: File,
    name: String,
    /// The last write ended inside a line.
    is_torn: bool,
    reported: Option<Instant>,
    lines_lost: u64,
}

impl Output {
    /// Opens what `path` names for the access log; `-` is standard output.
    pub(super) fn access(path: &LogPath) -> Result<Output> {
        Output::open(path, "standard output", io::stdout().as_fd())
    }

    /// Opens what `path` names for the diagnostic log; `-` is standard error.
    pub(super) fn diagnostic(path: &LogPath) -> Result<Output> {
        Output::open(path, "standard error", io::stderr().as_fd())
    }

    /// An output on a file that is open already.
    pub(super) fn new(file: File, name: String) -> Output {
        Output { file, name, is_torn: false, reported: None, lines_lost: 0 }
    }

    fn open(path: &LogPath, standard_name: &str, standard: BorrowedFd<'_>) -> Result<Output> {
        match path {
            // A duplicate, so that dropping the output leaves the host's descriptor alone.
            LogPath::Standard => match standard.try_clone_to_owned() {
                Ok(descriptor) => Ok(Output::new(File::from(descriptor), standard_name.to_owned())),
                Err(error) => Err(Error::io(format_args!("cannot log to {standard_name}"), &error)),
            },
            LogPath::File(path) => match open_append(path) {
                Ok(file) => Ok(Output::new(file, path.display().to_string())),
                Err(error) => Err(Error::io(format_args!("cannot open log file {}", path.display()), &error)),
            },
        }
    }

    /// Appends whole lines. What cannot be written is lost and counted, and reported now and then; the next
    /// lines are tried again. Waits for a reader while a pipe is full, as long as `may_wait` says so.
    pub(super) fn append(&mut self, lines: &[u8], metrics: &LogMetrics, may_wait: &dyn Fn() -> bool) {
        let mut rest = lines;
        let result = self.mend(may_wait).and_then(|()| write_all(&self.file, &mut rest, may_wait));
        if rest.len() < lines.len() {
            self.is_torn = lines[lines.len() - rest.len() - 1] != b'\n';
        }
        if let Err(error) = result {
            let lost = count_lines(rest);
            metrics.write_errors.add(1);
            metrics.lines_lost.add(lost);
            self.lines_lost += lost;
            self.report(&error, Instant::now());
        }
    }

    /// Nothing more is written: a line that was cut is ended, if that can be done without waiting.
    pub(super) fn finish(&mut self) {
        // It failed before, and was reported.
        let _ = self.mend(&|| false);
    }

    /// Ends the line that an earlier failure cut, so that the next one stands alone.
    fn mend(&mut self, may_wait: &dyn Fn() -> bool) -> io::Result<()> {
        if self.is_torn {
            write_all(&self.file, &mut b"\n".as_slice(), may_wait)?;
            self.is_torn = false;
        }
        Ok(())
    }

    fn report(&mut self, error: &io::Error, now: Instant) {
        let is_due = self.reported.is_none_or(|last| now.duration_since(last) >= REPORT_INTERVAL);
        if is_due {
            self.reported = Some(now);
            let lines = std::mem::take(&mut self.lines_lost);
            tracing::error!(log = %self.name, %error, lines, "cannot write log lines, they are lost");
        }
    }
}

/// Opens for appending, or creates with mode 0640. Close-on-exec. Non-blocking matters for a FIFO only: without a
/// reader opening it fails (`ENXIO`) where it would hang, and a full one does not hold the writer's thread.
fn open_append(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
}

/// Writes `rest`, which shrinks by what was written, also when an error ends it.
fn write_all(mut file: &File, rest: &mut &[u8], may_wait: &dyn Fn() -> bool) -> io::Result<()> {
    while !rest.is_empty() {
        match file.write(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => *rest = &rest[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && may_wait() => {
                thread::park_timeout(RETRY_INTERVAL);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Read, os::fd::OwnedFd, os::unix::fs::PermissionsExt, path::PathBuf, sync::Mutex};

    use super::*;
    use crate::{config::Level, log::Sink};

    fn never() -> bool {
        false
    }

    /// Runs `work` and returns the messages it reported.
    fn reports_of(work: impl FnOnce()) -> Vec<String> {
        let messages = std::sync::Arc::new(Mutex::new(Vec::new()));
        let seen = std::sync::Arc::clone(&messages);
        let callback: crate::log::Callback = std::sync::Arc::new(move |_, _, message: &str| {
            seen.lock().unwrap().push(message.to_owned());
        });
        let sink = std::sync::Arc::new(Sink::new(Level::Info, Some(callback)));
        tracing::dispatcher::with_default(&crate::log::dispatch(&sink), work);
        let reported = messages.lock().unwrap();
        reported.clone()
    }

    #[test]
    fn creates_with_mode_0640_at_most_and_appends() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let metrics = LogMetrics::default();
        for line in ["one\n", "two\n"] {
            let mut output = Output::access(&LogPath::File(path.clone())).unwrap();
            output.append(line.as_bytes(), &metrics, &never);
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\n");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777 & !0o640, 0);
        assert_eq!(metrics.write_errors.value(), 0);
    }

    #[test]
    fn an_error_to_open_names_the_path() {
        let path = PathBuf::from("/nonexistent/folder/access.log");
        let error = Output::diagnostic(&LogPath::File(path)).unwrap_err();
        assert!(error.to_string().starts_with("cannot open log file /nonexistent/folder/access.log: "));
        assert_eq!(error.sys_errno(), libc::ENOENT);
    }

    #[test]
    fn a_full_disk_is_counted_and_reported_once() {
        let mut output = Output::access(&LogPath::File("/dev/full".into())).unwrap();
        let metrics = LogMetrics::default();
        let reports = reports_of(|| {
            output.append(b"one\ntwo\n", &metrics, &never);
            output.append(b"three\n", &metrics, &never);
        });
        assert_eq!((metrics.write_errors.value(), metrics.lines_lost.value()), (2, 3));
        assert_eq!(reports.len(), 1);
        assert!(reports[0].contains("log=/dev/full") && reports[0].contains("lines=2"), "{reports:?}");
        assert!(reports[0].contains("No space left on device"), "{reports:?}");
    }

    #[test]
    fn reports_again_after_a_minute_with_what_was_lost_since() {
        let mut output = Output::access(&LogPath::File("/dev/full".into())).unwrap();
        let start = Instant::now();
        let error = io::Error::from_raw_os_error(libc::ENOSPC);
        let reports = reports_of(|| {
            for (after, lost) in [(0, 1), (59, 10), (60, 100), (119, 1000), (120, 0)] {
                output.lines_lost += lost;
                output.report(&error, start + Duration::from_secs(after));
            }
        });
        let lost: Vec<_> = reports.iter().map(|text| text.rsplit("lines=").next().unwrap()).collect();
        assert_eq!(lost, ["1", "110", "1000"]);
    }

    #[test]
    fn a_line_that_was_cut_is_ended_before_the_next() {
        let (mut reader, writer) = io::pipe().unwrap();
        // Opened anew, the pipe has its own non-blocking flag and keeps at least one page.
        let mut output = reopened(&writer);
        let metrics = LogMetrics::default();
        let mut lines = [vec![b'x'; 1 << 20], b"\nsecond\n".to_vec()].concat();
        output.append(&lines, &metrics, &never);
        assert_eq!((metrics.write_errors.value(), metrics.lines_lost.value()), (1, 2));
        assert!(output.is_torn);

        let mut drained = vec![0; 4 << 20];
        let first = reader.read(&mut drained).unwrap();
        output.append(b"third\n", &metrics, &never);
        assert!(!output.is_torn);
        drop((output, writer));
        drained.truncate(first);
        reader.read_to_end(&mut drained).unwrap();
        lines.truncate(drained.len() - b"\nthird\n".len());
        assert_eq!(drained, [lines, b"\nthird\n".to_vec()].concat());
        assert_eq!(metrics.lines_lost.value(), 2);
    }

    #[test]
    fn a_broken_pipe_is_an_error_like_any_other() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let mut output = Output::new(File::from(OwnedFd::from(writer)), "pipe".to_owned());
        let metrics = LogMetrics::default();
        output.append(b"one\n", &metrics, &never);
        assert_eq!(metrics.lines_lost.value(), 1);
    }

    /// The writing end of a pipe as a log file would be opened.
    fn reopened(writer: &io::PipeWriter) -> Output {
        use std::os::fd::AsRawFd;
        let path = PathBuf::from(format!("/proc/self/fd/{}", writer.as_raw_fd()));
        Output::access(&LogPath::File(path)).unwrap()
    }
}
