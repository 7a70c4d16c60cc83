//! Who holds how many bytes of the budget, and what was done when they became many. Written by `memory`, which also
//! decides; here they are numbers with names.

use super::{BUFFER_SIZES, Counter, Gauge, SharedCounter, SharedGauge};

/// For what bytes of the budget are held. The value is the index in the metrics' arrays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// Connection slots, and the state of requests in progress.
    Connections,
    /// Pool buffers in use.
    BuffersInUse,
    /// Pool buffers kept free, by the shards and by all together.
    BuffersFree,
    /// Request bodies that are gathered, beyond what lies in pool buffers.
    RequestBodies,
    /// Response bodies of handlers and listings that are being sent.
    ResponseBodies,
    /// Open files and what is known about paths.
    OpenFiles,
    /// Small hot files kept whole.
    ResponseCache,
    /// Pages of files that are mapped: the kernel's page cache, resident in this process.
    MappedFiles,
    /// Reads past the page cache, ahead of the socket.
    DirectReads,
    /// TLS of connections: keys, and what a handshake needs.
    Tls,
    /// TLS sessions kept for resumption.
    TlsSessions,
    /// Log lines on their way to the writer.
    Logs,
    /// What runs the server: the executors' rings and memory, scratch buffers, stacks, tables of fixed size.
    Substrate,
    /// What the host has charged.
    Host,
}

impl Holder {
    /// Number of holders.
    pub const COUNT: usize = Holder::ALL.len();
    /// Every holder, in the order of its index.
    pub const ALL: [Holder; 14] = [
        Holder::Connections,
        Holder::BuffersInUse,
        Holder::BuffersFree,
        Holder::RequestBodies,
        Holder::ResponseBodies,
        Holder::OpenFiles,
        Holder::ResponseCache,
        Holder::MappedFiles,
        Holder::DirectReads,
        Holder::Tls,
        Holder::TlsSessions,
        Holder::Logs,
        Holder::Substrate,
        Holder::Host,
    ];

    /// The holder as a metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Holder::Connections => "connections",
            Holder::BuffersInUse => "buffers_in_use",
            Holder::BuffersFree => "buffers_free",
            Holder::RequestBodies => "request_bodies",
            Holder::ResponseBodies => "response_bodies",
            Holder::OpenFiles => "open_files",
            Holder::ResponseCache => "response_cache",
            Holder::MappedFiles => "mapped_files",
            Holder::DirectReads => "direct_reads",
            Holder::Tls => "tls",
            Holder::TlsSessions => "tls_sessions",
            Holder::Logs => "logs",
            Holder::Substrate => "substrate",
            Holder::Host => "host",
        }
    }
}

/// What a shard does when memory gets short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relief {
    /// Times caches were shrunk.
    CachesShrunk,
    /// Times the response cache was cleared.
    CachesCleared,
    /// Times the pool was halved.
    PoolHalved,
    /// Idle connections closed.
    IdleClosed,
    /// Connections closed while a request was in progress.
    ActiveClosed,
    /// Connections refused.
    Refused,
}

impl Relief {
    /// Number of actions.
    pub const COUNT: usize = Relief::ALL.len();
    /// Every action, in the order of its index.
    pub const ALL: [Relief; 6] = [
        Relief::CachesShrunk,
        Relief::CachesCleared,
        Relief::PoolHalved,
        Relief::IdleClosed,
        Relief::ActiveClosed,
        Relief::Refused,
    ];

    /// The action as a metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Relief::CachesShrunk => "caches_shrunk",
            Relief::CachesCleared => "caches_cleared",
            Relief::PoolHalved => "pool_halved",
            Relief::IdleClosed => "idle_closed",
            Relief::ActiveClosed => "active_closed",
            Relief::Refused => "refused",
        }
    }
}

/// Names of the levels of pressure; the index is the value of `webserver_memory_pressure`.
pub const LEVELS: [&str; 4] = ["normal", "elevated", "high", "critical"];

/// Bytes of one shard, by [`Holder`], and how often it could not have more.
#[derive(Debug, Default)]
pub struct ShardMemory {
    /// Bytes held. Their sum is never more than `granted_bytes`.
    pub used_bytes: [Gauge; Holder::COUNT],
    /// Bytes that the shard may hold: it takes them from the budget in chunks.
    pub granted_bytes: Gauge,
    /// Requests for bytes that were refused.
    pub refused: [Counter; Holder::COUNT],
    /// What it did when memory got short.
    pub relief: [Counter; Relief::COUNT],
}

/// What the shards have in common.
#[derive(Debug, Default)]
pub struct ServerMemory {
    /// The budget.
    pub budget_bytes: SharedGauge,
    /// Bytes that are taken from it: by the shards in chunks, and by holders that belong to no shard.
    pub taken_bytes: SharedGauge,
    /// The most that was ever taken. What was used is at most this.
    pub peak_bytes: SharedGauge,
    /// Bytes held by no shard, by [`Holder`].
    pub used_bytes: [SharedGauge; Holder::COUNT],
    /// Free pool buffers that all shards share, smallest tier first.
    pub buffers_available: [SharedGauge; BUFFER_SIZES.len()],
    /// Requests of no shard that were refused.
    pub refused: [SharedCounter; Holder::COUNT],
    /// The level of pressure, an index of [`LEVELS`].
    pub pressure: SharedGauge,
    /// Times each level was entered from another, an index of [`LEVELS`].
    pub entered: [SharedCounter; LEVELS.len()],
}

impl ShardMemory {
    /// Bytes held for everything.
    pub fn used_sum(&self) -> u64 {
        self.used_bytes.iter().map(Gauge::value).sum()
    }
}

impl ServerMemory {
    /// Bytes held for everything by no shard.
    pub fn used_sum(&self) -> u64 {
        self.used_bytes.iter().map(SharedGauge::value).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_stand_at_their_indices() {
        assert!(Holder::ALL.iter().enumerate().all(|(index, holder)| *holder as usize == index));
        assert!(Relief::ALL.iter().enumerate().all(|(index, relief)| *relief as usize == index));
    }
}
