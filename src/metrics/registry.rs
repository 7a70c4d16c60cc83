//! All shards' figures together: as text for a scrape, as sums for the statistics of the C interface, as a tree for the
//! status page.

mod status;
mod tls;

pub use status::{Labelled, Status};

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use super::{
    BUFFER_SIZES, Counter, Gauge, Holder, LEVELS, Relief, ServerMemory, ServerTls, ShardMetrics,
    SharedCounter, Shed, Timeout, exposition::Exposition, heap, histogram::Merged, resident_bytes,
};

/// The figures of one server.
#[derive(Debug)]
pub struct Registry {
    /// One for each shard, in the order of their numbers.
    pub shards: Vec<Arc<ShardMetrics>>,
    /// What the log writer counts.
    pub log: Arc<LogMetrics>,
    /// The budget.
    pub memory: Arc<ServerMemory>,
    /// TLS sessions, of all shards.
    pub tls: Arc<ServerTls>,
    started: SystemTime,
    started_at: Instant,
    refusal_labels: &'static [&'static str],
    /// The servers' certificates and when they end, in Unix time; each name once.
    certificates: Mutex<BTreeMap<String, u64>>,
}

/// What is counted by whoever writes logs, from several threads.
#[derive(Debug, Default)]
pub struct LogMetrics {
    /// Writes to a log file that failed.
    pub write_errors: SharedCounter,
    /// Lines that were lost by those failures, of both logs.
    pub lines_lost: SharedCounter,
    /// Diagnostic events dropped because the writer was behind.
    pub diagnostics_dropped: SharedCounter,
    /// Times the log files were opened anew, for a rotation.
    pub reopens: SharedCounter,
    /// Times that failed.
    pub reopen_errors: SharedCounter,
}

/// Sums over all shards at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Number of shards.
    pub shards: u32,
    /// The memory budget.
    pub memory_budget_bytes: u64,
    /// Bytes of it that are held.
    pub memory_used_bytes: u64,
    /// The most that was ever taken from it.
    pub memory_peak_bytes: u64,
    /// The level of pressure, an index of [`LEVELS`].
    pub memory_pressure: u32,
    /// Connections with a request in progress or before their first.
    pub connections_active: u64,
    /// Connections waiting for their next request.
    pub connections_idle: u64,
    /// Connections taken.
    pub connections_accepted: u64,
    /// Connections that left.
    pub connections_closed: u64,
    /// Connections turned away.
    pub connections_shed: u64,
    /// Requests answered, refused ones included.
    pub requests: u64,
    /// Bytes read from clients.
    pub bytes_received: u64,
    /// Bytes written to clients.
    pub bytes_sent: u64,
    /// Pool buffers in use: 4 KB, 16 KB, 64 KB.
    pub buffers_allocated: [u64; 3],
    /// Pool buffers kept free: 4 KB, 16 KB, 64 KB.
    pub buffers_available: [u64; 3],
    /// Entries of the open-file cache.
    pub open_file_cache_entries: u64,
    /// Content bytes in the response cache.
    pub response_cache_bytes: u64,
    /// TLS sessions kept for resumption.
    pub tls_session_cache_entries: u64,
    /// Responses of class 5xx, failed `accept`s and failed log writes.
    pub errors: u64,
}

impl Registry {
    /// A registry for `shards` shards. `refusal_labels` names the reasons for refusing a request, each once, in the
    /// order of their indices; they become label values and may not hold `"`, `\` or a line feed.
    pub fn new(shards: usize, refusal_labels: &'static [&'static str]) -> Self {
        Registry {
            shards: (0..shards).map(|_| Arc::new(ShardMetrics::new(refusal_labels.len()))).collect(),
            log: Arc::default(),
            memory: Arc::default(),
            tls: Arc::default(),
            started: SystemTime::now(),
            started_at: Instant::now(),
            refusal_labels,
            certificates: Mutex::default(),
        }
    }

    /// Replaces what is told about certificates: what each is called, and its end in Unix time. Of several by one name the
    /// first to end is told.
    pub fn set_certificates(&self, certificates: impl IntoIterator<Item = (String, u64)>) {
        let mut ends = BTreeMap::new();
        for (certificate, end) in certificates {
            ends.entry(certificate).and_modify(|first: &mut u64| *first = end.min(*first)).or_insert(end);
        }
        *self.certificates.lock().unwrap_or_else(PoisonError::into_inner) = ends;
    }

    /// Sums over all shards. Takes no lock; a shard may count on meanwhile.
    pub fn totals(&self) -> Totals {
        let failed_accepts = self.sum(|shard| &shard.accept_errors)
            + self.sum(|shard| &shard.descriptor_exhaustion)
            + self.log.write_errors.value();
        let mut totals = Totals {
            shards: u32::try_from(self.shards.len()).unwrap_or(u32::MAX),
            memory_budget_bytes: self.memory.budget_bytes.value(),
            memory_used_bytes: Holder::ALL.iter().map(|holder| self.memory_used_bytes(*holder)).sum(),
            memory_peak_bytes: self.memory.peak_bytes.value(),
            memory_pressure: u32::try_from(self.memory.pressure.value()).unwrap_or(u32::MAX),
            connections_active: self.sum_gauge(|shard| &shard.connections_active),
            connections_idle: self.sum_gauge(|shard| &shard.connections_idle),
            connections_accepted: self.sum(|shard| &shard.connections_accepted),
            connections_closed: self.sum(|shard| &shard.connections_closed),
            connections_shed: Shed::ALL.iter().map(|reason| self.sum(|s| &s.shed[*reason as usize])).sum(),
            requests: 0,
            bytes_received: self.sum(|shard| &shard.bytes_received),
            bytes_sent: self.sum(|shard| &shard.bytes_sent),
            buffers_allocated: [0, 1, 2].map(|size| self.sum_gauge(|shard| &shard.buffers_allocated[size])),
            buffers_available: [0, 1, 2].map(|size| self.buffers_available(size)),
            open_file_cache_entries: self.sum_gauge(|shard| &shard.file_cache_entries),
            response_cache_bytes: self.sum_gauge(|shard| &shard.response_cache_bytes),
            tls_session_cache_entries: self.tls.sessions.value(),
            errors: failed_accepts,
        };
        for (status, count) in self.requests_by_status() {
            totals.requests += count;
            totals.errors += if status >= 500 { count } else { 0 };
        }
        totals
    }

    /// Appends all figures in the Prometheus text format, version 0.0.4
    /// (`text/plain; version=0.0.4; charset=utf-8`). Reads `/proc/self/status`; about 16 KB.
    pub fn render(&self, out: &mut String) {
        let mut text = Exposition::new(out);
        self.render_process(&mut text);
        self.render_memory(&mut text);
        self.render_connections(&mut text);
        self.render_requests(&mut text);
        self.render_resources(&mut text);
        self.render_tls(&mut text);
        self.render_work(&mut text);
    }

    fn render_process(&self, text: &mut Exposition<'_>) {
        text.gauge(
            "webserver_start_time_seconds",
            "When the server was started, in Unix time.",
            self.started_unix_seconds(),
        );
        text.gauge("webserver_shards", "Number of shards.", self.shards.len());
        if let Some(bytes) = resident_bytes() {
            text.gauge("webserver_memory_total_bytes", "Resident set size of the process.", bytes);
        }
        if let Some(heap) = heap::figures() {
            text.gauge("webserver_memory_heap_bytes", "Heap held by Rust code.", heap.bytes);
            text.gauge("webserver_memory_heap_peak_bytes", "Largest heap so far.", heap.peak_bytes);
            text.counter("webserver_heap_allocations_total", "Heap allocations made.", heap.allocations);
        }
    }

    fn render_memory(&self, text: &mut Exposition<'_>) {
        let memory = &self.memory;
        text.gauge("webserver_memory_budget_bytes", "The memory budget.", memory.budget_bytes.value());
        text.gauges(
            "webserver_memory_used_bytes",
            "Bytes of the budget that are held.",
            "holder",
            Holder::ALL.iter().map(|holder| (holder.label(), self.memory_used_bytes(*holder))),
        );
        text.gauge(
            "webserver_memory_peak_bytes",
            "The most that was taken from the budget so far.",
            memory.peak_bytes.value(),
        );
        text.gauge(
            "webserver_memory_pressure",
            "Level of pressure: 0 normal, 1 elevated, 2 high, 3 critical.",
            memory.pressure.value(),
        );
        text.counters(
            "webserver_memory_pressure_entered_total",
            "Times each level of pressure was entered.",
            "level",
            LEVELS.iter().zip(&memory.entered).map(|(level, count)| (level, count.value())),
        );
        text.counters(
            "webserver_memory_refused_total",
            "Requests for bytes of the budget that were refused.",
            "holder",
            Holder::ALL.iter().map(|holder| (holder.label(), self.memory_refused(*holder))),
        );
        text.counters(
            "webserver_memory_relief_total",
            "What was done when memory got short.",
            "action",
            Relief::ALL
                .iter()
                .map(|relief| (relief.label(), self.sum(|shard| &shard.memory.relief[*relief as usize]))),
        );
    }

    fn started_unix_seconds(&self) -> u64 {
        self.started.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }

    /// Bytes of the budget that are held for something, by all shards and by none.
    pub fn memory_used_bytes(&self, holder: Holder) -> u64 {
        let shards = self.sum_gauge(|shard| &shard.memory.used_bytes[holder as usize]);
        shards + self.memory.used_bytes[holder as usize].value()
    }

    /// Free buffers of a tier: those of each shard and those that all share.
    fn buffers_available(&self, size: usize) -> u64 {
        let shards = self.sum_gauge(|shard| &shard.buffers_available[size]);
        shards + self.memory.buffers_available[size].value()
    }

    fn memory_refused(&self, holder: Holder) -> u64 {
        let shards = self.sum(|shard| &shard.memory.refused[holder as usize]);
        shards + self.memory.refused[holder as usize].value()
    }

    fn render_connections(&self, text: &mut Exposition<'_>) {
        text.gauge(
            "webserver_connections_active",
            "Connections with a request in progress, or before their first.",
            self.sum_gauge(|shard| &shard.connections_active),
        );
        text.gauge(
            "webserver_connections_idle",
            "Keep-alive connections that wait for their next request.",
            self.sum_gauge(|shard| &shard.connections_idle),
        );
        text.counter(
            "webserver_connections_accepted_total",
            "Connections taken.",
            self.sum(|shard| &shard.connections_accepted),
        );
        text.counter(
            "webserver_connections_closed_total",
            "Connections closed, for any reason.",
            self.sum(|shard| &shard.connections_closed),
        );
        text.counters(
            "webserver_connections_shed_total",
            "Connections turned away.",
            "reason",
            Shed::ALL.iter().map(|reason| (reason.label(), self.sum(|s| &s.shed[*reason as usize]))),
        );
        text.counters(
            "webserver_timeouts_total",
            "Connections closed by a deadline.",
            "kind",
            Timeout::ALL.iter().map(|kind| (kind.label(), self.sum(|s| &s.timeouts[*kind as usize]))),
        );
        text.counter(
            "webserver_accept_errors_total",
            "Failures to accept a connection, without those for want of a descriptor.",
            self.sum(|shard| &shard.accept_errors),
        );
        text.counter(
            "webserver_descriptor_exhaustion_total",
            "Failures to accept a connection for want of a descriptor.",
            self.sum(|shard| &shard.descriptor_exhaustion),
        );
    }

    fn render_requests(&self, text: &mut Exposition<'_>) {
        text.counters(
            "webserver_requests_total",
            "Requests answered, by status code.",
            "status",
            // 200 is always there, so that the family is never empty and its first rate is not lost.
            self.requests_by_status().filter(|(status, count)| *count > 0 || *status == 200),
        );
        text.counters(
            "webserver_requests_refused_total",
            "Requests refused before a handler saw them.",
            "reason",
            self.refusal_labels.iter().enumerate().map(|(index, label)| (label, self.refused(index))),
        );
        text.counter(
            "webserver_requests_limited_total",
            "Requests answered with 429 because their client asks too often.",
            self.sum(|shard| &shard.requests_limited),
        );
        let mut durations = Merged::default();
        self.shards.iter().for_each(|shard| durations.add(&shard.request_duration));
        text.histogram(
            "webserver_request_duration_seconds",
            "From a request's head to the end of its response.",
            &durations,
        );
        text.counter(
            "webserver_bytes_received_total",
            "Bytes read from clients.",
            self.sum(|shard| &shard.bytes_received),
        );
        text.counter("webserver_bytes_sent_total", "Bytes written to clients.", self.sum(|s| &s.bytes_sent));
    }

    fn render_resources(&self, text: &mut Exposition<'_>) {
        let sizes = || BUFFER_SIZES.iter().enumerate();
        text.gauges(
            "webserver_buffer_pool_allocated",
            "Pool buffers in use.",
            "size",
            sizes().map(|(size, label)| (label, self.sum_gauge(|shard| &shard.buffers_allocated[size]))),
        );
        text.gauges(
            "webserver_buffer_pool_available",
            "Pool buffers kept free.",
            "size",
            sizes().map(|(size, label)| (label, self.buffers_available(size))),
        );
        text.gauge(
            "webserver_open_file_cache_entries",
            "Entries of the open-file cache.",
            self.sum_gauge(|shard| &shard.file_cache_entries),
        );
        text.counter(
            "webserver_open_file_cache_hits_total",
            "Lookups that the open-file cache answered.",
            self.sum(|shard| &shard.file_cache_hits),
        );
        text.counter(
            "webserver_open_file_cache_misses_total",
            "Lookups that had to go to the file system.",
            self.sum(|shard| &shard.file_cache_misses),
        );
        text.gauge(
            "webserver_request_body_bytes",
            "Bytes held by request bodies that are gathered for handlers.",
            self.sum_gauge(|shard| &shard.request_body_bytes),
        );
        text.gauge(
            "webserver_response_cache_bytes",
            "Content bytes held by the response cache.",
            self.sum_gauge(|shard| &shard.response_cache_bytes),
        );
        text.gauge(
            "webserver_mapped_bytes",
            "Bytes of files that are mapped, in whole pages.",
            self.sum_gauge(|shard| &shard.mapped_bytes),
        );
    }

    fn render_work(&self, text: &mut Exposition<'_>) {
        type Named = (&'static str, &'static str, fn(&ShardMetrics) -> &Counter);
        let counters: [Named; 11] = [
            ("webserver_cold_reads_total", "Reads that had to wait for storage.", |s| &s.cold_reads),
            ("webserver_cold_read_bytes_total", "Bytes of those reads.", |s| &s.cold_bytes),
            ("webserver_sendfile_bytes_total", "Bytes sent with sendfile.", |s| &s.sendfile_bytes),
            ("webserver_mapped_sent_bytes_total", "Bytes of responses taken from mapped files.", |s| {
                &s.mapped_sent_bytes
            }),
            ("webserver_blocking_jobs_total", "Jobs given to the blocking pool.", |s| &s.blocking_jobs),
            ("webserver_blocking_jobs_refused_total", "Jobs it had no room for.", |s| &s.blocking_refused),
            ("webserver_parks_total", "Times a shard slept.", |s| &s.parks),
            ("webserver_access_log_dropped_total", "Access-log lines dropped before the writer.", |s| {
                &s.access_log_dropped
            }),
            ("webserver_responses_cut_total", "Responses that were begun and not finished.", |s| {
                &s.responses_cut
            }),
            ("webserver_panics_total", "Connections closed because of a bug in the server.", |s| &s.panics),
            ("webserver_executor_descriptors_left_total", "Descriptors left by ended executors.", |s| {
                &s.executor_descriptors_left
            }),
        ];
        for (name, help, of) in counters {
            text.counter(name, help, self.sum(of));
        }
        let log = &self.log;
        text.counter(
            "webserver_log_write_errors_total",
            "Writes to a log that failed.",
            log.write_errors.value(),
        );
        text.counter(
            "webserver_log_lines_lost_total",
            "Lines lost by those failures.",
            log.lines_lost.value(),
        );
        text.counter(
            "webserver_diagnostics_dropped_total",
            "Diagnostic events dropped because the log writer was behind.",
            log.diagnostics_dropped.value(),
        );
        text.counter(
            "webserver_log_reopens_total",
            "Times the log files were opened anew.",
            log.reopens.value(),
        );
        text.counter(
            "webserver_log_reopen_errors_total",
            "Times the log files could not be opened anew, and the old ones stayed.",
            log.reopen_errors.value(),
        );
    }

    /// Each status code in ascending order, summed over the shards.
    fn requests_by_status(&self) -> impl Iterator<Item = (u16, u64)> {
        let mut counts: Vec<(u16, u64)> = (100..=599).map(|status| (status, 0)).collect();
        for shard in &self.shards {
            for (sum, (_, count)) in counts.iter_mut().zip(shard.requests.iter()) {
                sum.1 += count;
            }
        }
        counts.into_iter()
    }

    fn refused(&self, index: usize) -> u64 {
        self.shards.iter().filter_map(|shard| shard.refusals.get(index)).map(Counter::value).sum()
    }

    fn sum(&self, of: impl Fn(&ShardMetrics) -> &Counter) -> u64 {
        self.shards.iter().map(|shard| of(shard).value()).sum()
    }

    fn sum_gauge(&self, of: impl Fn(&ShardMetrics) -> &Gauge) -> u64 {
        self.shards.iter().map(|shard| of(shard).value()).sum()
    }
}

#[cfg(test)]
mod tests;
