//! Both logs of a server: which files they go to, and how that changes while it runs.
//!
//! A change is made in two steps. What can fail, opening files above all, comes first ([`Writer::prepare`]) and changes
//! nothing; what comes then cannot. An access line is written where its shard meant it to: each batch names its output,
//! and an output is closed when the last shard has turned to another.

mod thread;

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, Ordering::Relaxed},
        mpsc::SyncSender,
    },
    time::{Duration, Instant},
};

use super::{
    AccessLog, Callback, Sink, dispatch,
    output::Output,
    queue::{BatchQueue, Change, Job},
};
use crate::{
    Error, ErrorKind, Result,
    config::{self, Level, LogPath},
    memory::Budget,
    metrics::{LogMetrics, ShardMetrics},
};
use thread::Thread;

/// What is logged and where.
#[derive(Clone)]
pub struct Plan {
    /// Where the access log goes, if anywhere.
    pub access: Option<LogPath>,
    /// Where the diagnostic log goes, if anywhere; apart from `callback`.
    pub diagnostic: Option<LogPath>,
    /// Least severe level of the diagnostic log.
    pub level: Level,
    /// The host's log function, which receives the same events. Cannot change.
    pub callback: Option<Callback>,
    /// Number of shards that will write an access log. Cannot change.
    pub shards: usize,
    /// Where failures and drops are counted. Cannot change.
    pub metrics: Arc<LogMetrics>,
}

/// Both logs of a server. Dropped without [`Writer::stop`] its thread writes what is queued, without waiting for
/// the reader of a full pipe, and ends by itself.
pub struct Writer {
    sink: Arc<Sink>,
    lines: Lines,
    /// As it is in force.
    plan: Plan,
    thread: Option<Thread>,
    /// The number of the next output for access lines.
    output_next: u32,
    /// Outputs that shards may still send to, although there is another for what comes.
    outputs_before: Vec<u32>,
}

/// Where shards get their access log from.
#[derive(Clone, Debug, Default)]
pub struct Lines(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// The way to the thread, from the first time on that there is one.
    jobs: OnceLock<SyncSender<Job>>,
    /// The output for access lines that are yet to be written.
    output: AtomicU32,
}

/// A change whose files are open. Dropped instead of committed it leaves everything as it was.
pub struct Prepared {
    plan: Plan,
    change: Change,
}

impl Lines {
    /// A shard's access log; `None` when none is configured.
    pub fn access_log(
        &self,
        config: Option<&config::AccessLog>,
        metrics: Arc<ShardMetrics>,
        budget: &Arc<Budget>,
    ) -> Option<AccessLog> {
        let (config, jobs) = (config?, self.0.jobs.get()?);
        let (queue, output) = (BatchQueue::new(jobs.clone()), self.0.output.load(Relaxed));
        Some(AccessLog::new(config, queue, output, metrics, Arc::clone(budget)))
    }

    /// A shard's access log under another configuration: what was recorded goes where it would have gone.
    pub fn change(
        &self,
        log: Option<AccessLog>,
        config: Option<&config::AccessLog>,
        metrics: &Arc<ShardMetrics>,
        budget: &Arc<Budget>,
    ) -> Option<AccessLog> {
        match (log, config) {
            (Some(mut log), Some(config)) => {
                log.change(config, self.0.output.load(Relaxed));
                Some(log)
            }
            (_, config) => self.access_log(config, Arc::clone(metrics), budget),
        }
    }
}

impl Writer {
    /// Opens the files and starts the thread; no thread as long as no file is asked for.
    ///
    /// Errors: a file that cannot be opened, with its path; a thread that cannot be started.
    pub fn start(plan: &Plan) -> Result<Writer> {
        let mut writer = Writer {
            sink: Arc::new(Sink::new(plan.level, plan.callback.clone())),
            lines: Lines::default(),
            plan: Plan { access: None, diagnostic: None, ..plan.clone() },
            thread: None,
            output_next: 0,
            outputs_before: Vec::new(),
        };
        let prepared = writer.prepare(plan)?;
        writer.commit(prepared);
        Ok(writer)
    }

    /// The dispatch to set in each of our threads.
    pub fn dispatch(&self) -> tracing::Dispatch {
        dispatch(&self.sink)
    }

    /// Where shards get their access log from.
    pub fn lines(&self) -> Lines {
        self.lines.clone()
    }

    /// Opens what `plan` wants and is not open yet. Nothing changes before [`Writer::commit`].
    ///
    /// Errors: those of [`Writer::start`]; [`ErrorKind::Timeout`] when earlier changes wait for a write that hangs.
    pub fn prepare(&mut self, plan: &Plan) -> Result<Prepared> {
        let mut change = Change::default();
        match &plan.access {
            Some(path) if self.plan.access.as_ref() != Some(path) => {
                change.open = Some((self.output_next, Output::access(path)?));
            }
            _ => {}
        }
        if self.plan.diagnostic != plan.diagnostic {
            change.diagnostic = Some(plan.diagnostic.as_ref().map(Output::diagnostic).transpose()?);
        }
        self.make_way(plan.access.is_some() || plan.diagnostic.is_some())?;
        Ok(Prepared { plan: plan.clone(), change })
    }

    /// Goes over to what was prepared. Shards that change their access log now write to its file; when all of them
    /// have, [`Writer::finish`] is due.
    pub fn commit(&mut self, prepared: Prepared) {
        let Prepared { plan, change } = prepared;
        if self.plan.access.is_some() && self.plan.access != plan.access {
            self.outputs_before.push(self.lines.0.output.load(Relaxed));
        }
        if let Some((output, _)) = &change.open {
            self.output_next = output.wrapping_add(1);
            self.lines.0.output.store(*output, Relaxed);
        }
        self.sink.change(plan.level, plan.diagnostic.is_some());
        self.plan = plan;
        self.send(change);
    }

    /// Every shard has changed its access log: the files before are closed once what was sent to them is written.
    pub fn finish(&mut self) {
        for output in std::mem::take(&mut self.outputs_before) {
            self.send(Change { close: Some(output), ..Change::default() });
        }
    }

    /// Opens the files anew by their paths and goes over to them, both or none, for a rotation that has renamed the
    /// old ones. Lines that were handed over before go to the old files, which are complete when this returns.
    ///
    /// Errors: a file that cannot be opened, and the old ones stay; [`ErrorKind::Timeout`] when what was handed over
    /// before is not written within `timeout`: the new files take over as soon as it is. Both are counted.
    pub fn reopen(&mut self, timeout: Duration) -> Result<()> {
        let reopened = self.try_reopen(timeout);
        match &reopened {
            Ok(()) => self.plan.metrics.reopens.add(1),
            Err(_) => self.plan.metrics.reopen_errors.add(1),
        }
        reopened
    }

    fn try_reopen(&mut self, timeout: Duration) -> Result<()> {
        let Plan { access, diagnostic, .. } = &self.plan;
        let access = access.as_ref().map(Output::access).transpose()?;
        let diagnostic = diagnostic.as_ref().map(Output::diagnostic).transpose()?;
        self.make_way(false)?;
        let (done, is_done) = std::sync::mpsc::sync_channel(0);
        let output = self.lines.0.output.load(Relaxed);
        self.send(Change {
            open: access.map(|access| (output, access)),
            diagnostic: diagnostic.map(Some),
            done: Some(done),
            close: None,
        });
        match is_done.recv_timeout(timeout) {
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => Err(Error::new(
                ErrorKind::Timeout,
                "a log file or its storage hangs; the new log files take over when it does not any more",
            )),
            // The thread lets go of its end when it is done; without a thread nobody has one.
            _ => Ok(()),
        }
    }

    /// Writes what is queued, closes the files and joins the thread. Every [`AccessLog`] must be dropped before,
    /// or its last lines are lost. Half of `timeout` may go to waiting for the reader of a full pipe; what is left
    /// then is lost and counted.
    ///
    /// Errors: [`ErrorKind::Timeout`] when the thread hangs in a write (the thread is left behind and ends when the
    /// write does), [`ErrorKind::Panic`] when it ended by a bug.
    pub fn stop(mut self, timeout: Duration) -> Result<()> {
        self.thread.take().map_or(Ok(()), |thread| thread.stop(timeout))
    }

    /// Makes sure that the two changes that follow find their place, and if `wanted` that there is a thread.
    fn make_way(&mut self, wanted: bool) -> Result<()> {
        match &self.thread {
            Some(thread) => thread.has_room(),
            None if wanted => {
                let thread = Thread::start(&self.plan, &self.sink)?;
                // The first one stays: a thread, once started, is there until the end.
                let _ = self.lines.0.jobs.set(thread.jobs.clone());
                self.thread = Some(thread);
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn send(&self, change: Change) {
        if let Some(thread) = &self.thread {
            thread.send(change);
        }
    }
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer")
            .field("sink", &self.sink)
            .field("thread", &self.thread)
            .finish_non_exhaustive()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if let Some(thread) = &self.thread {
            thread.begin_to_stop(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests;
