//! The one thread that writes logs, so that no shard waits for a disk, a pipe or a terminal.

use std::{
    sync::{
        Arc, OnceLock,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use super::{
    AccessLog, Callback, DiagnosticQueue, Sink, dispatch,
    output::Output,
    queue::{self, BatchQueue, Job},
};
use crate::{
    Error, ErrorKind, Result,
    config::{Level, LogPath},
    metrics::{LogMetrics, ShardMetrics},
    sys,
};

/// Name of the thread.
const THREAD_NAME: &str = "webserver-log";

/// What a [`Writer`] is started with.
#[derive(Clone)]
pub struct Plan {
    /// Where the access log goes, if anywhere.
    pub access: Option<LogPath>,
    /// Where the diagnostic log goes, if anywhere; apart from `callback`.
    pub diagnostic: Option<LogPath>,
    /// Least severe level of the diagnostic log.
    pub level: Level,
    /// The host's log function, which receives the same events.
    pub callback: Option<Callback>,
    /// Number of shards that will write an access log.
    pub shards: usize,
    /// Where failures and drops are counted.
    pub metrics: Arc<LogMetrics>,
}

/// Both logs of a server. Dropped without [`Writer::stop`] its thread writes what is queued, without waiting for
/// the reader of a full pipe, and ends by itself.
#[derive(Debug)]
pub struct Writer {
    sink: Sink,
    level: Level,
    thread: Option<Thread>,
    logs_access: bool,
}

#[derive(Debug)]
struct Thread {
    jobs: SyncSender<Job>,
    handle: JoinHandle<()>,
    /// Disconnected when the thread ends.
    ended: Receiver<()>,
    /// Set once, to stop: the thread ends when it has written what is queued, and waits for no pipe past this.
    give_up: Arc<OnceLock<Instant>>,
}

impl Thread {
    fn begin_to_stop(&self, give_up: Instant) {
        // Set already means told already.
        let _ = self.give_up.set(give_up);
        // Wakes a thread with nothing to do. One whose queue is full looks at `give_up` after its next job.
        let _ = self.jobs.try_send(Job::Stop);
        self.handle.thread().unpark();
    }
}

impl Writer {
    /// Opens the files and starts the thread; no thread when no file is asked for.
    ///
    /// Errors: a file that cannot be opened, with its path; a thread that cannot be started.
    pub fn start(plan: &Plan) -> Result<Writer> {
        let access = plan.access.as_ref().map(Output::access).transpose()?;
        let diagnostic = plan.diagnostic.as_ref().map(Output::diagnostic).transpose()?;
        Writer::launch(plan, access, diagnostic)
    }

    fn launch(plan: &Plan, access: Option<Output>, diagnostic: Option<Output>) -> Result<Writer> {
        let mut writer = Writer {
            sink: Sink { queue: None, callback: plan.callback.clone() },
            level: plan.level,
            thread: None,
            logs_access: access.is_some(),
        };
        if access.is_none() && diagnostic.is_none() {
            return Ok(writer);
        }
        let (jobs, received) = queue::channel(plan.shards);
        let jobs_max = queue::jobs_max(plan.shards);
        let queue = DiagnosticQueue::new(jobs.clone(), Arc::clone(&plan.metrics));
        writer.sink.queue = diagnostic.is_some().then(|| queue.clone());
        let give_up = Arc::new(OnceLock::new());
        let (end, ended) = sync_channel(0);
        let mut worker = Worker {
            access,
            diagnostic,
            queue,
            metrics: Arc::clone(&plan.metrics),
            give_up: Arc::clone(&give_up),
            jobs_max,
        };
        let dispatch = writer.dispatch();
        let work = move || {
            let _default = tracing::dispatcher::set_default(&dispatch);
            worker.run(&received);
            // The files are closed before anybody is told.
            drop(worker);
            drop(end);
        };
        let handle = sys::thread::spawn(THREAD_NAME, work)
            .map_err(|error| Error::io(format_args!("cannot start thread {THREAD_NAME}"), &error))?;
        writer.thread = Some(Thread { jobs, handle, ended, give_up });
        Ok(writer)
    }

    /// Where diagnostic events go.
    pub fn sink(&self) -> &Sink {
        &self.sink
    }

    /// The dispatch to set in each of our threads.
    pub fn dispatch(&self) -> tracing::Dispatch {
        dispatch(self.level, &self.sink)
    }

    /// A shard's access log; `None` when none is configured.
    pub fn access_log(&self, metrics: Arc<ShardMetrics>) -> Option<AccessLog> {
        let thread = self.thread.as_ref().filter(|_| self.logs_access)?;
        Some(AccessLog::new(BatchQueue::new(thread.jobs.clone()), metrics))
    }

    /// Writes what is queued, closes the files and joins the thread. Every [`AccessLog`] must be dropped before,
    /// or its last lines are lost. Half of `timeout` may go to waiting for the reader of a full pipe; what is left
    /// then is lost and counted.
    ///
    /// Errors: [`ErrorKind::Timeout`] when the thread hangs in a write (the thread is left behind and ends when the
    /// write does), [`ErrorKind::Panic`] when it ended by a bug.
    pub fn stop(mut self, timeout: Duration) -> Result<()> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        let now = Instant::now();
        // A timeout beyond the clock's range means an hour.
        let give_up = now.checked_add(timeout / 2).unwrap_or(now + Duration::from_secs(3600));
        thread.begin_to_stop(give_up);
        match thread.ended.recv_timeout(timeout) {
            Err(RecvTimeoutError::Timeout) => Err(Error::new(
                ErrorKind::Timeout,
                format!("thread {THREAD_NAME} did not end in time: a log file or its storage hangs"),
            )),
            _ => thread.handle.join().map_err(|_| {
                Error::new(
                    ErrorKind::Panic,
                    format!("thread {THREAD_NAME} ended by a bug, log lines may be lost"),
                )
            }),
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if let Some(thread) = &self.thread {
            thread.begin_to_stop(Instant::now());
        }
    }
}

/// What the thread owns.
struct Worker {
    access: Option<Output>,
    diagnostic: Option<Output>,
    queue: DiagnosticQueue,
    metrics: Arc<LogMetrics>,
    give_up: Arc<OnceLock<Instant>>,
    jobs_max: usize,
}

impl Worker {
    fn run(&mut self, received: &Receiver<Job>) {
        while let Ok(job) = received.recv() {
            self.write(job);
            if self.give_up.get().is_some() {
                break;
            }
        }
        // What is left, and what was sent meanwhile, a report about failed writes for instance. One queue full at
        // most, whoever goes on sending.
        for job in received.try_iter().take(self.jobs_max) {
            self.write(job);
        }
    }

    fn write(&mut self, job: Job) {
        let give_up = &self.give_up;
        let may_wait = || give_up.get().is_none_or(|deadline| Instant::now() < *deadline);
        match job {
            Job::Access(batch) => {
                if let Some(output) = &mut self.access {
                    output.append(&batch.lines, &self.metrics, &may_wait);
                }
                batch.recycle();
            }
            Job::Diagnostic(line) => {
                if let Some(output) = &mut self.diagnostic {
                    output.append(line.as_bytes(), &self.metrics, &may_wait);
                }
                self.queue.written();
            }
            Job::Stop => {}
        }
    }
}

#[cfg(test)]
mod tests;
