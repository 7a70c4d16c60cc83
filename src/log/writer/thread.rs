//! The one thread that writes logs, so that no shard waits for a disk, a pipe or a terminal.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use super::Plan;
use crate::{
    Error, ErrorKind, Result,
    log::{
        DiagnosticQueue, Sink,
        access::count_lines,
        dispatch,
        output::Output,
        queue::{self, CHANGES_MAX, Change, Job},
    },
    metrics::LogMetrics,
    sys,
};

/// Name of the thread.
const NAME: &str = "webserver-log";
/// Changes that one reload or one rotation needs room for.
const CHANGES_AT_ONCE: usize = 2;

/// The thread, from outside.
#[derive(Debug)]
pub(super) struct Thread {
    pub(super) jobs: SyncSender<Job>,
    pub(super) handle: JoinHandle<()>,
    /// Disconnected when the thread ends.
    ended: Receiver<()>,
    /// Set once, to stop: the thread ends when it has written what is queued, and waits for no pipe past this.
    give_up: Arc<OnceLock<Instant>>,
    /// Changes that were sent and not made yet.
    changes: Arc<AtomicUsize>,
}

impl Thread {
    /// Starts it without any output, and tells `sink` the way to it.
    pub(super) fn start(plan: &Plan, sink: &Arc<Sink>) -> Result<Thread> {
        let (jobs, received) = queue::channel(plan.shards);
        let queue = DiagnosticQueue::new(jobs.clone(), Arc::clone(&plan.metrics));
        let (give_up, changes) = (Arc::default(), Arc::default());
        let (end, ended) = sync_channel(0);
        let mut worker = Worker {
            access: Vec::new(),
            diagnostic: None,
            queue: queue.clone(),
            metrics: Arc::clone(&plan.metrics),
            give_up: Arc::clone(&give_up),
            changes: Arc::clone(&changes),
            jobs_max: queue::jobs_max(plan.shards),
        };
        let dispatch = dispatch(sink);
        let work = move || {
            let _default = tracing::dispatcher::set_default(&dispatch);
            worker.run(&received);
            // The files are closed before anybody is told.
            drop(worker);
            drop(end);
        };
        let handle = sys::thread::spawn(NAME, work)
            .map_err(|error| Error::io(format_args!("cannot start thread {NAME}"), &error))?;
        sink.connect(queue);
        Ok(Thread { jobs, handle, ended, give_up, changes })
    }

    /// Whether the next changes find their place in the queue. They do not if earlier ones are still in it.
    pub(super) fn has_room(&self) -> Result<()> {
        if self.changes.load(Relaxed) + CHANGES_AT_ONCE > CHANGES_MAX {
            return Err(Error::new(
                ErrorKind::Timeout,
                "a log file or its storage hangs; earlier changes of the log files still wait for it",
            ));
        }
        Ok(())
    }

    pub(super) fn send(&self, change: Change) {
        self.changes.fetch_add(1, Relaxed);
        // The queue has a place for it, see `has_room`; gone means that the thread has ended, by a bug.
        if self.jobs.try_send(Job::Change(Box::new(change))).is_err() {
            self.changes.fetch_sub(1, Relaxed);
        }
    }

    pub(super) fn begin_to_stop(&self, give_up: Instant) {
        // Set already means told already.
        let _ = self.give_up.set(give_up);
        // Wakes a thread with nothing to do. One whose queue is full looks at `give_up` after its next job.
        let _ = self.jobs.try_send(Job::Stop);
        self.handle.thread().unpark();
    }

    /// See [`super::Writer::stop`].
    pub(super) fn stop(self, timeout: Duration) -> Result<()> {
        let now = Instant::now();
        // A timeout beyond the clock's range means an hour.
        let give_up = now.checked_add(timeout / 2).unwrap_or(now + Duration::from_secs(3600));
        self.begin_to_stop(give_up);
        match self.ended.recv_timeout(timeout) {
            Err(RecvTimeoutError::Timeout) => Err(Error::new(
                ErrorKind::Timeout,
                format!("thread {NAME} did not end in time: a log file or its storage hangs"),
            )),
            _ => self.handle.join().map_err(|_| {
                Error::new(ErrorKind::Panic, format!("thread {NAME} ended by a bug, log lines may be lost"))
            }),
        }
    }
}

/// What the thread owns.
struct Worker {
    /// By number. One, and while a reload is under way another.
    access: Vec<(u32, Output)>,
    diagnostic: Option<Output>,
    queue: DiagnosticQueue,
    metrics: Arc<LogMetrics>,
    give_up: Arc<OnceLock<Instant>>,
    changes: Arc<AtomicUsize>,
    jobs_max: usize,
}

impl Worker {
    fn run(&mut self, received: &Receiver<Job>) {
        while let Ok(job) = received.recv() {
            self.work(job);
            if self.give_up.get().is_some() {
                break;
            }
        }
        // What is left, and what was sent meanwhile, a report about failed writes for instance. One queue full at
        // most, whoever goes on sending.
        for job in received.try_iter().take(self.jobs_max) {
            self.work(job);
        }
    }

    fn work(&mut self, job: Job) {
        let give_up = &self.give_up;
        let may_wait = || give_up.get().is_none_or(|deadline| Instant::now() < *deadline);
        match job {
            Job::Access(batch) => {
                match self.access.iter_mut().find(|(number, _)| *number == batch.output) {
                    Some((_, output)) => output.append(&batch.lines, &self.metrics, &may_wait),
                    // Its shard did not answer to a reload in time.
                    None => self.metrics.lines_lost.add(count_lines(&batch.lines)),
                }
                batch.recycle();
            }
            Job::Diagnostic(line) => {
                if let Some(output) = &mut self.diagnostic {
                    output.append(line.as_bytes(), &self.metrics, &may_wait);
                }
                self.queue.written();
            }
            Job::Change(change) => {
                self.change(*change);
                self.changes.fetch_sub(1, Relaxed);
            }
            Job::Stop => {}
        }
    }

    fn change(&mut self, change: Change) {
        if let Some((number, output)) = change.open {
            self.close(number);
            self.access.push((number, output));
        }
        if let Some(number) = change.close {
            self.close(number);
        }
        if let Some(diagnostic) = change.diagnostic {
            if let Some(output) = &mut self.diagnostic {
                output.finish();
            }
            self.diagnostic = diagnostic;
        }
        // Whoever waits is told when the old files are closed.
        drop(change.done);
    }

    fn close(&mut self, number: u32) {
        if let Some(index) = self.access.iter().position(|(found, _)| *found == number) {
            let (_, mut output) = self.access.swap_remove(index);
            output.finish();
        }
    }
}
