//! What travels from the shards to the writer's thread, and its bounds. Sending never waits.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
    mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
};

use super::output::Output;
use crate::metrics::LogMetrics;

/// Batches of one shard, the one being filled included.
pub(crate) const BATCHES_MAX: usize = 8;
/// Diagnostic lines on their way.
pub(super) const DIAGNOSTICS_MAX: usize = 256;

/// Changes on their way.
pub(super) const CHANGES_MAX: usize = 8;

/// One thing for the writer to do, in order.
#[derive(Debug)]
pub(super) enum Job {
    /// Whole lines for the access log.
    Access(Batch),
    /// One line for the diagnostic log.
    Diagnostic(String),
    /// Other files from here on.
    Change(Box<Change>),
    /// Nothing: wakes the writer, which was told to stop.
    Stop,
}

/// What becomes of the outputs, in this order: everything that was sent before goes to the old ones.
#[derive(Debug, Default)]
pub(super) struct Change {
    /// Another output for access lines, or another file for one that there is: its number and what it writes to.
    pub(super) open: Option<(u32, Output)>,
    /// An output for access lines that nobody sends to any more.
    pub(super) close: Option<u32>,
    /// What the diagnostic log writes to, if that changes.
    pub(super) diagnostic: Option<Option<Output>>,
    /// Dropped when it is done.
    pub(super) done: Option<SyncSender<()>>,
}

/// A shard's lines, the output they are for, and where the emptied memory goes afterwards.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) lines: Vec<u8>,
    pub(super) output: u32,
    home: SyncSender<Vec<u8>>,
}

impl Batch {
    /// Gives the memory back to the shard, or frees it when the shard is gone.
    pub(super) fn recycle(mut self) {
        self.lines.clear();
        // Full cannot happen, the home has a place for each batch; gone means that nobody wants it.
        let _ = self.home.try_send(self.lines);
    }
}

/// The sending end for batches. One for each shard, with the way back.
#[derive(Debug)]
pub(super) struct BatchQueue {
    jobs: SyncSender<Job>,
    home: SyncSender<Vec<u8>>,
    returned: Receiver<Vec<u8>>,
}

impl BatchQueue {
    pub(super) fn new(jobs: SyncSender<Job>) -> Self {
        let (home, returned) = sync_channel(BATCHES_MAX);
        BatchQueue { jobs, home, returned }
    }

    /// Hands `lines` over, or gives them back: the queue is full or the writer is gone.
    pub(super) fn send(&self, lines: Vec<u8>, output: u32) -> Result<(), Vec<u8>> {
        let job = Job::Access(Batch { lines, output, home: self.home.clone() });
        match self.jobs.try_send(job) {
            Err(TrySendError::Full(Job::Access(batch)) | TrySendError::Disconnected(Job::Access(batch))) => {
                Err(batch.lines)
            }
            _ => Ok(()),
        }
    }

    /// Memory that came back empty.
    pub(super) fn returned(&self) -> Option<Vec<u8>> {
        self.returned.try_recv().ok()
    }
}

/// The sending end for diagnostic lines; any thread, clones share one bound.
#[derive(Clone, Debug)]
pub struct DiagnosticQueue {
    jobs: SyncSender<Job>,
    queued: Arc<AtomicUsize>,
    metrics: Arc<LogMetrics>,
}

impl DiagnosticQueue {
    pub(super) fn new(jobs: SyncSender<Job>, metrics: Arc<LogMetrics>) -> Self {
        DiagnosticQueue { jobs, queued: Arc::default(), metrics }
    }

    /// Hands one line over, its line feed included. With 256 lines on their way already, or with the writer gone,
    /// it is dropped and counted.
    pub(super) fn send(&self, line: String) {
        // The count only bounds memory and orders nothing.
        let has_room = self
            .queued
            .try_update(Ordering::Relaxed, Ordering::Relaxed, |queued| {
                (queued < DIAGNOSTICS_MAX).then_some(queued + 1)
            })
            .is_ok();
        if !has_room {
            self.metrics.diagnostics_dropped.add(1);
        } else if self.jobs.try_send(Job::Diagnostic(line)).is_err() {
            self.written();
            self.metrics.diagnostics_dropped.add(1);
        }
    }

    /// One line left the queue.
    pub(super) fn written(&self) {
        self.queued.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The queue of a writer for `shards` shards.
pub(super) fn channel(shards: usize) -> (SyncSender<Job>, Receiver<Job>) {
    sync_channel(jobs_max(shards))
}

/// Places in that queue: one for each batch, for each diagnostic line, for each change, and for the order to stop.
pub(super) fn jobs_max(shards: usize) -> usize {
    shards.saturating_mul(BATCHES_MAX).saturating_add(DIAGNOSTICS_MAX + CHANGES_MAX + 1)
}
