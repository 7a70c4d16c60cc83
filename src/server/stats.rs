//! The figures of a server at one moment, for the host.

use crate::metrics::Registry;

/// Where a server is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Accepting.
    Running = 0,
    /// Ending what it has.
    Draining = 1,
    /// Ended.
    Stopped = 2,
}

/// Sums over all shards. Bytes, or counts since start unless said otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Number of shards.
    pub shards: u32,
    /// Where the server is in its life.
    pub state: State,
    /// Heap of this library alone; 0 where it is not counted.
    pub memory_heap_bytes: u64,
    /// Resident memory of the whole process.
    pub memory_rss_bytes: u64,
    /// Connections with a request in progress, now.
    pub connections_active: u64,
    /// Connections that wait for their next request, now.
    pub connections_idle: u64,
    /// Connections taken.
    pub connections_accepted: u64,
    /// Connections answered with 503 because there was no room.
    pub connections_shed: u64,
    /// Responses sent or begun.
    pub requests: u64,
    /// Bytes received from clients.
    pub bytes_received: u64,
    /// Bytes handed to the kernel for clients.
    pub bytes_sent: u64,
    /// Buffers in use, now: 4 KB, 16 KB, 64 KB.
    pub buffers_allocated: [u64; 3],
    /// Buffers free, now.
    pub buffers_available: [u64; 3],
    /// Entries of the open-file caches, now.
    pub open_file_cache_entries: u64,
    /// Bytes of small files kept in memory, now.
    pub response_cache_bytes: u64,
    /// Requests refused and responses cut.
    pub errors: u64,
}

pub(super) fn collect(registry: &Registry, shards: usize, state: State) -> Stats {
    let totals = registry.totals();
    Stats {
        shards: u32::try_from(shards).unwrap_or(u32::MAX),
        state,
        memory_heap_bytes: crate::metrics::heap::figures().map_or(0, |heap| heap.bytes),
        memory_rss_bytes: crate::metrics::resident_bytes().unwrap_or(0),
        connections_active: totals.connections_active,
        connections_idle: totals.connections_idle,
        connections_accepted: totals.connections_accepted,
        connections_shed: totals.connections_shed,
        requests: totals.requests,
        bytes_received: totals.bytes_received,
        bytes_sent: totals.bytes_sent,
        buffers_allocated: totals.buffers_allocated,
        buffers_available: totals.buffers_available,
        open_file_cache_entries: totals.open_file_cache_entries,
        response_cache_bytes: totals.response_cache_bytes,
        errors: totals.errors,
    }
}
