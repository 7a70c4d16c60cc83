//! The figures of a server at one moment, for the host.

use crate::metrics::{Registry, Totals, heap, resident_bytes};

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

/// What a server holds and has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Where the server is in its life.
    pub state: State,
    /// Heap of this library alone, bytes; 0 where it is not counted.
    pub memory_heap_bytes: u64,
    /// Resident memory of the whole process, bytes.
    pub memory_rss_bytes: u64,
    /// Sums over all shards.
    pub totals: Totals,
}

pub(super) fn collect(registry: &Registry, state: State) -> Stats {
    Stats {
        state,
        memory_heap_bytes: heap::figures().map_or(0, |heap| heap.bytes),
        memory_rss_bytes: resident_bytes().unwrap_or(0),
        totals: registry.totals(),
    }
}
