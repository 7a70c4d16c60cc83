//! The access log's lines, collected by a shard until there are enough to hand over.

use std::sync::Arc;

use super::{
    combined::{self, Combined},
    json::{self, Json},
    queue::{BATCHES_MAX, BatchQueue},
};
use crate::{
    clock::Now,
    config::{self, AccessFormat},
    memory::{Budget, Charge},
    metrics::{Holder, ShardMetrics},
    sys::socket::Peer,
};

/// Bytes of a batch.
pub(crate) const BATCH_BYTES: usize = 64 << 10;

const _: () = assert!(combined::LINE_BYTES_MAX <= BATCH_BYTES, "a batch takes any line");
const _: () = assert!(json::LINE_BYTES_MAX <= BATCH_BYTES, "a batch takes any line");

/// The least status that is logged always, however few of the others are.
const ERROR_STATUS_MIN: u16 = 400;

/// One shard's part of the access log.
///
/// It holds at most eight batches of 64 KB, made when they are first needed and reused from then on. While all
/// of them are on their way to a writer that does not keep up, or when the memory budget has no room for another, lines are
/// dropped and counted in `ShardMetrics::access_log_dropped`.
#[derive(Debug)]
pub struct AccessLog {
    /// The batch being filled; without capacity until a line needs one.
    batch: Vec<u8>,
    /// What each batch that was made counts for.
    batches: Vec<Charge>,
    budget: Arc<Budget>,
    queue: BatchQueue,
    /// The output that the lines of this batch are for.
    output: u32,
    metrics: Arc<ShardMetrics>,
    format: Format,
    /// Of this many requests without an error one is logged.
    sample: u32,
    /// How many of them are left out before the next.
    skipping: u32,
}

#[derive(Debug)]
enum Format {
    Combined(Combined),
    Json(Json),
}

impl Format {
    fn new(format: AccessFormat) -> Self {
        match format {
            AccessFormat::Combined => Format::Combined(Combined::default()),
            AccessFormat::Json => Format::Json(Json::default()),
        }
    }
}

impl AccessLog {
    pub(super) fn new(
        config: &config::AccessLog,
        queue: BatchQueue,
        output: u32,
        metrics: Arc<ShardMetrics>,
        budget: Arc<Budget>,
    ) -> Self {
        AccessLog {
            batch: Vec::new(),
            batches: Vec::with_capacity(BATCHES_MAX),
            budget,
            queue,
            output,
            metrics,
            format: Format::new(config.format),
            sample: config.sample,
            skipping: 0,
        }
    }

    /// Writes as `config` says from now on, to another output perhaps; what was collected goes where it belongs.
    pub(super) fn change(&mut self, config: &config::AccessLog, output: u32) {
        self.flush();
        self.output = output;
        self.format = Format::new(config.format);
        self.sample = config.sample;
        self.skipping = 0;
    }

    /// Whether a request that is answered with `status` is logged: each one with an error, of the others one in so
    /// many. Asked once for each request.
    #[inline]
    pub fn takes(&mut self, status: u16) -> bool {
        if self.sample <= 1 || status >= ERROR_STATUS_MIN {
            return true;
        }
        let is_taken = self.skipping == 0;
        self.skipping = if is_taken { self.sample - 1 } else { self.skipping - 1 };
        is_taken
    }

    /// Whether lines tell how long a request took: then it must be measured.
    pub fn tells_duration(&self) -> bool {
        matches!(self.format, Format::Json(_))
    }

    /// Appends the line of one answered request. Hands the batch over when the line does not fit.
    pub fn record(&mut self, entry: &Entry<'_>) {
        let bytes_max = match &self.format {
            Format::Combined(_) => Combined::line_bytes_max(entry),
            Format::Json(_) => Json::line_bytes_max(entry),
        };
        if !self.make_room(bytes_max) {
            self.metrics.access_log_dropped.increment();
            return;
        }
        match &mut self.format {
            Format::Combined(format) => format.push(&mut self.batch, entry),
            Format::Json(format) => format.push(&mut self.batch, entry),
        }
    }

    /// Whether lines wait for the next flush.
    pub fn has_lines(&self) -> bool {
        !self.batch.is_empty()
    }

    /// Hands the lines collected so far to the writer; for the shard's tick. When the writer's queue is full they
    /// stay, and go with the next call.
    pub fn flush(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        if let Err(lines) = self.queue.send(std::mem::take(&mut self.batch), self.output) {
            self.batch = lines;
        }
    }

    /// Makes sure that the batch takes `bytes` more without growing.
    fn make_room(&mut self, bytes: usize) -> bool {
        if self.batch.capacity() - self.batch.len() >= bytes {
            return true;
        }
        self.flush();
        if self.batch.capacity() == 0 {
            match self.queue.returned() {
                Some(batch) => self.batch = batch,
                None => self.make_batch(),
            }
        }
        self.batch.capacity() - self.batch.len() >= bytes
    }

    fn make_batch(&mut self) {
        if self.batches.len() < BATCHES_MAX
            && let Some(held) = self.budget.charge(Holder::Logs, BATCH_BYTES)
            && self.batch.try_reserve_exact(BATCH_BYTES).is_ok()
        {
            self.batches.push(held);
        }
    }
}

impl Drop for AccessLog {
    /// The last lines go to the writer too, or are counted as dropped.
    fn drop(&mut self) {
        self.flush();
        self.metrics.access_log_dropped.add(count_lines(&self.batch));
    }
}

/// What is logged of one request.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Who asked. IPv4 in IPv6 is written as IPv4; a unix socket as `unix:`, or not at all in JSON.
    pub peer: Peer,
    /// When the response was complete.
    pub now: Now,
    /// The request line as received, without its line end; may be empty or malformed in a refused request.
    pub request_line: &'a [u8],
    /// Its parts; `None` for a refused request.
    pub request: Option<RequestParts<'a>>,
    /// Status code sent.
    pub status: u16,
    /// Bytes of content sent, without the head.
    pub body_bytes_sent: u64,
    /// From the request's head to the response; of use only if [`AccessLog::tells_duration`].
    pub duration_nanos: u64,
    /// The `Referer` field.
    pub referer: Option<&'a [u8]>,
    /// The `User-Agent` field.
    pub user_agent: Option<&'a [u8]>,
    /// How it was encrypted, if it was; of use in JSON.
    pub tls: Option<TlsParts<'a>>,
}

/// TLS of the connection that a request came over.
#[derive(Clone, Copy, Debug)]
pub struct TlsParts<'a> {
    /// `TLSv1.3` and its kind.
    pub version: &'static str,
    /// The cipher suite's name, at most 64 bytes.
    pub cipher: &'static str,
    /// The session was resumed.
    pub resumed: bool,
    /// The name that the client asked for.
    pub server_name: Option<&'a str>,
    /// The subject of the client's certificate.
    pub client_subject: Option<&'a str>,
}

/// A request line that was understood, and the host it is for.
#[derive(Clone, Copy, Debug)]
pub struct RequestParts<'a> {
    /// The method as sent.
    pub method: &'a [u8],
    /// The target as sent.
    pub target: &'a [u8],
    /// `HTTP/1.1` and its kind.
    pub protocol: &'static str,
    /// Host and optional port.
    pub host: Option<&'a [u8]>,
}

/// Number of lines in `bytes`.
pub(super) fn count_lines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}

#[cfg(test)]
mod tests;
