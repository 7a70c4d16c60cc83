//! What one shard counts. The shard's thread is the only writer.

use super::{Counter, Gauge, Histogram, ShardMemory, ShardTls};

/// The buffer tiers as metric labels, smallest first; indices of `buffers_allocated` and `buffers_available`.
pub const BUFFER_SIZES: [&str; 3] = ["small", "medium", "large"];

/// Everything one shard counts, on cache lines of its own (128 bytes, because processors fetch lines in pairs).
/// What each request touches stands together at the front.
#[derive(Debug)]
#[repr(align(128))]
pub struct ShardMetrics {
    /// Bytes read from client connections.
    pub bytes_received: Counter,
    /// Bytes written to client connections, heads included.
    pub bytes_sent: Counter,
    /// Connections with a request in progress, or that have not sent their first one yet.
    pub connections_active: Gauge,
    /// Connections that have answered a request and wait for the next.
    pub connections_idle: Gauge,
    /// Lookups that the open-file cache answered.
    pub file_cache_hits: Counter,
    /// How long requests took.
    pub request_duration: Histogram,
    /// Times the shard slept because nothing was ready.
    pub parks: Counter,
    /// Its part of the budget.
    pub memory: ShardMemory,
    /// TLS.
    pub tls: ShardTls,

    /// Connections taken into a slot.
    pub connections_accepted: Counter,
    /// Connections that left their slot, for any reason.
    pub connections_closed: Counter,
    /// Connections turned away, by [`Shed`].
    pub shed: [Counter; Shed::COUNT],
    /// Connections closed by a deadline, by [`Timeout`].
    pub timeouts: [Counter; Timeout::COUNT],
    /// Requests refused before a handler saw them; indices are those of the registry's labels.
    pub refusals: Box<[Counter]>,
    /// Requests answered with 429: their client asks too often.
    pub requests_limited: Counter,
    /// `accept` failures other than "nothing there" and those of `descriptor_exhaustion`.
    pub accept_errors: Counter,
    /// `accept` failures for want of a descriptor (`EMFILE`, `ENFILE`).
    pub descriptor_exhaustion: Counter,

    /// Files (and remembered failures) in the open-file cache.
    pub file_cache_entries: Gauge,
    /// Lookups that had to go to the file system.
    pub file_cache_misses: Counter,
    /// Content bytes held by the response cache.
    pub response_cache_bytes: Gauge,
    /// Bytes held by request bodies that are gathered for handlers.
    pub request_body_bytes: Gauge,
    /// Bytes of files that are mapped, in whole pages.
    pub mapped_bytes: Gauge,
    /// Pool buffers in use, by [`BUFFER_SIZES`].
    pub buffers_allocated: [Gauge; BUFFER_SIZES.len()],
    /// Pool buffers kept free, by [`BUFFER_SIZES`].
    pub buffers_available: [Gauge; BUFFER_SIZES.len()],

    /// Reads of content that was not in the page cache.
    pub cold_reads: Counter,
    /// Bytes those reads returned.
    pub cold_bytes: Counter,
    /// Bytes sent with `sendfile`; contained in `bytes_sent`.
    pub sendfile_bytes: Counter,
    /// Bytes of responses that were taken from mapped files; contained in `bytes_sent` as far as they were sent.
    pub mapped_sent_bytes: Counter,
    /// Jobs given to the blocking pool.
    pub blocking_jobs: Counter,
    /// Jobs that the blocking pool had no room for.
    pub blocking_refused: Counter,
    /// Access-log lines dropped because the writer was behind.
    pub access_log_dropped: Counter,
    /// Responses that were begun and could not be finished: the client left or stalled, the file changed.
    pub responses_cut: Counter,
    /// Connections closed because of a bug that was caught.
    pub panics: Counter,
    /// Descriptors of ended executors that could not be told apart from others and stay open.
    pub executor_descriptors_left: Counter,

    /// Responses by status code.
    pub requests: StatusCounters,
}

impl ShardMetrics {
    /// All zero, with `refusals` counters for reasons of refusal.
    pub fn new(refusals: usize) -> Self {
        ShardMetrics {
            bytes_received: Counter::new(),
            bytes_sent: Counter::new(),
            connections_active: Gauge::new(),
            connections_idle: Gauge::new(),
            file_cache_hits: Counter::new(),
            request_duration: Histogram::new(),
            parks: Counter::new(),
            memory: ShardMemory::default(),
            tls: ShardTls::default(),
            connections_accepted: Counter::new(),
            connections_closed: Counter::new(),
            shed: [const { Counter::new() }; Shed::COUNT],
            timeouts: [const { Counter::new() }; Timeout::COUNT],
            refusals: (0..refusals).map(|_| Counter::new()).collect(),
            requests_limited: Counter::new(),
            accept_errors: Counter::new(),
            descriptor_exhaustion: Counter::new(),
            file_cache_entries: Gauge::new(),
            file_cache_misses: Counter::new(),
            response_cache_bytes: Gauge::new(),
            request_body_bytes: Gauge::new(),
            mapped_bytes: Gauge::new(),
            buffers_allocated: [const { Gauge::new() }; BUFFER_SIZES.len()],
            buffers_available: [const { Gauge::new() }; BUFFER_SIZES.len()],
            cold_reads: Counter::new(),
            cold_bytes: Counter::new(),
            sendfile_bytes: Counter::new(),
            mapped_sent_bytes: Counter::new(),
            blocking_jobs: Counter::new(),
            blocking_refused: Counter::new(),
            access_log_dropped: Counter::new(),
            responses_cut: Counter::new(),
            panics: Counter::new(),
            executor_descriptors_left: Counter::new(),
            requests: StatusCounters::new(),
        }
    }

    /// Counts one connection turned away.
    pub fn count_shed(&self, reason: Shed) {
        self.shed[reason as usize].increment();
    }

    /// Counts one connection closed by a deadline.
    pub fn count_timeout(&self, kind: Timeout) {
        self.timeouts[kind as usize].increment();
    }

    /// Counts one refused request. An index without a label is ignored.
    pub fn count_refusal(&self, index: usize) {
        if let Some(counter) = self.refusals.get(index) {
            counter.increment();
        }
    }
}

/// Why a connection was turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shed {
    /// Every slot is taken.
    Capacity,
    /// The process has no descriptor left.
    Descriptors,
    /// The listener has all the connections that it may have.
    Listener,
    /// The client has.
    PerIp,
    /// Memory is short: the pressure is critical.
    Memory,
}

impl Shed {
    /// Number of reasons.
    pub const COUNT: usize = Shed::ALL.len();
    /// Every reason, in the order of its index.
    pub const ALL: [Shed; 5] = [Shed::Capacity, Shed::Descriptors, Shed::Listener, Shed::PerIp, Shed::Memory];

    /// The reason as a metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Shed::Capacity => "capacity",
            Shed::Descriptors => "descriptors",
            Shed::Listener => "listener",
            Shed::PerIp => "per_ip",
            Shed::Memory => "memory",
        }
    }
}

/// Which deadline closed a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timeout {
    /// The TLS handshake was not complete in time.
    Handshake,
    /// The request head was not complete in time.
    Header,
    /// The request body stopped coming.
    Body,
    /// The client stopped taking the response.
    Write,
    /// No further request came.
    Idle,
}

impl Timeout {
    /// Number of kinds.
    pub const COUNT: usize = Timeout::ALL.len();
    /// Every kind, in the order of its index.
    pub const ALL: [Timeout; 5] =
        [Timeout::Handshake, Timeout::Header, Timeout::Body, Timeout::Write, Timeout::Idle];

    /// The kind as a metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Timeout::Handshake => "handshake",
            Timeout::Header => "header",
            Timeout::Body => "body",
            Timeout::Write => "write",
            Timeout::Idle => "idle",
        }
    }
}

/// Responses by status code: one counter for each code from 100 to 599, 4 KB, of which a server touches a few lines.
#[derive(Debug)]
pub struct StatusCounters([Counter; STATUS_MAX - STATUS_MIN + 1]);

const STATUS_MIN: usize = 100;
const STATUS_MAX: usize = 599;

impl StatusCounters {
    /// All zero.
    pub const fn new() -> Self {
        StatusCounters([const { Counter::new() }; STATUS_MAX - STATUS_MIN + 1])
    }

    /// Counts `count` responses of `status`. A code that HTTP does not have (RFC 9110, section 15) counts as 599.
    #[inline]
    pub fn add(&self, status: u16, count: u64) {
        let index = usize::from(status).checked_sub(STATUS_MIN).unwrap_or(self.0.len());
        self.0[index.min(self.0.len() - 1)].add(count);
    }

    /// Every code in ascending order with its count.
    pub fn iter(&self) -> impl Iterator<Item = (u16, u64)> + '_ {
        (STATUS_MIN as u16..).zip(&self.0).map(|(status, counter)| (status, counter.value()))
    }
}

impl Default for StatusCounters {
    fn default() -> Self {
        StatusCounters::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_do_not_share_cache_lines() {
        assert_eq!(align_of::<ShardMetrics>(), 128);
        assert_eq!(size_of::<ShardMetrics>() % 128, 0);
    }

    #[test]
    fn labels_stand_at_their_indices() {
        assert!(Shed::ALL.iter().enumerate().all(|(index, reason)| *reason as usize == index));
        assert!(Timeout::ALL.iter().enumerate().all(|(index, kind)| *kind as usize == index));
    }

    #[test]
    fn counts_first_and_last_status_and_folds_impossible_ones() {
        let counters = StatusCounters::new();
        for status in [0, 99, 100, 200, 599, 600, u16::MAX] {
            counters.add(status, 1);
        }
        let counted: Vec<_> = counters.iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counted, [(100, 1), (200, 1), (599, 5)]);
    }

    #[test]
    fn an_unknown_refusal_is_ignored() {
        let metrics = ShardMetrics::new(2);
        metrics.count_refusal(1);
        metrics.count_refusal(2);
        assert_eq!(metrics.refusals[1].value(), 1);
    }
}
