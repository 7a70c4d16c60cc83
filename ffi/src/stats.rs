//! Figures of a running server: as a struct, as Prometheus text, and its largest connections as JSON. Adds nothing up.

use std::{
    ffi::{c_char, c_int},
    mem, ptr,
};

use webserver_core::{
    ErrorKind,
    server::{State, Stats},
};

use crate::{
    argument,
    error::{self, Failure},
    guard,
    server::{NO_SERVER, webserver_server},
};

/// The server accepts connections.
pub const WEBSERVER_STATE_RUNNING: u32 = 0;
/// The server accepts no more and finishes what is in progress.
pub const WEBSERVER_STATE_DRAINING: u32 = 1;
/// The server's threads have ended.
pub const WEBSERVER_STATE_STOPPED: u32 = 2;

/// Figures of a running server. Counters count from its start and do not wrap; everything else is as of now.
/// The figures are read one after the other while the server works, so sums may be off by what happened
/// meanwhile. Figures of features that this version lacks are 0. Later versions add fields at the end.
#[repr(C)]
pub struct webserver_stats {
    /// How many bytes of this struct are filled.
    pub size: u32,
    /// Threads that serve.
    pub shards: u32,
    /// Memory pressure: 0 normal, 1 elevated, 2 high, 3 critical.
    pub pressure: u32,
    /// One of the WEBSERVER_STATE_ numbers.
    pub state: u32,
    /// The memory budget.
    pub memory_budget_bytes: u64,
    /// What is accounted against the budget.
    pub memory_used_bytes: u64,
    /// The most that was ever accounted.
    pub memory_peak_bytes: u64,
    /// The library's heap.
    pub memory_heap_bytes: u64,
    /// Resident memory of the whole process, yours included.
    pub memory_rss_bytes: u64,
    /// Connections with a request in progress, or new ones that have sent none yet.
    pub connections_active: u64,
    /// Connections that have answered a request and wait for the next.
    pub connections_idle: u64,
    /// Connections accepted.
    pub connections_accepted: u64,
    /// Connections refused or closed because a limit was reached.
    pub connections_shed: u64,
    /// Requests answered.
    pub requests: u64,
    /// Bytes received from clients.
    pub bytes_received: u64,
    /// Bytes sent to clients.
    pub bytes_sent: u64,
    /// Buffers in use: 4 KB, 16 KB, 64 KB.
    pub buffers_allocated: [u64; 3],
    /// Buffers kept for the next use: 4 KB, 16 KB, 64 KB.
    pub buffers_available: [u64; 3],
    /// Entries of the open-file cache.
    pub open_file_cache_entries: u64,
    /// Bytes of responses kept in memory.
    pub response_cache_bytes: u64,
    /// TLS sessions kept for resumption.
    pub tls_session_cache_entries: u64,
    /// Errors on the server's side: failed system calls and caught bugs.
    pub errors: u64,
}

/// Fills min(`size`, the library's own sizeof) bytes of `*out`, with how many those are in its `size`; pass
/// sizeof(webserver_stats). A longer struct keeps its rest, so set it to zero first.
///
/// Any thread, until webserver_stop begins. Does not block. Errors: WEBSERVER_E_INVALID (`size` below 4).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn webserver_stats_get(
    server: *const webserver_server,
    out: *mut webserver_stats,
    size: usize,
) -> c_int {
    let result = guard::call(|| {
        // SAFETY: the caller's server, which is not stopped during the call.
        let server = unsafe { argument::shared(server, NO_SERVER)? };
        argument::output(out, "out is NULL")?;
        if size < mem::size_of::<u32>() {
            return Err(Failure::invalid("size has no room for the first field"));
        }
        let filled = size.min(mem::size_of::<webserver_stats>());
        let stats = webserver_stats::new(&server.server.stats(), filled as u32);
        // SAFETY: `out` is not NULL and has `size` bytes, `stats` has its own; neither is exceeded, and a
        // local cannot overlap the caller's memory.
        unsafe { ptr::copy_nonoverlapping((&raw const stats).cast::<u8>(), out.cast::<u8>(), filled) };
        Ok(())
    });
    error::status(&result)
}

/// Writes the server's metrics into `buffer` as NUL-terminated Prometheus text, the same that the admin
/// listener serves. `*needed` becomes the size that the buffer must have, the NUL counted: on success, and
/// also when the result is WEBSERVER_E_LIMIT because `capacity` is less, in which case `buffer` is
/// untouched. `buffer` may be NULL when `capacity` is 0. The text grows with the numbers in it, so ask with
/// room to spare.
///
/// Any thread, until webserver_stop begins. Does not block. Errors: WEBSERVER_E_LIMIT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn webserver_metrics_text(
    server: *const webserver_server,
    buffer: *mut c_char,
    capacity: usize,
    needed: *mut usize,
) -> c_int {
    let result = guard::call(|| {
        // SAFETY: the caller's server, which is not stopped during the call.
        let server = unsafe { argument::shared(server, NO_SERVER)? };
        // SAFETY: the caller's buffer of `capacity` bytes and his size, for the call.
        unsafe { give(buffer, capacity, needed, || Ok(server.server.metrics_text())) }
    });
    error::status(&result)
}

/// Writes the connections that hold most bytes into `buffer` as NUL-terminated JSON, the same that the admin
/// listener serves at /connections.json: at most `limit` of them, which is from 1 to 1000. `buffer`,
/// `capacity` and `needed` are as for webserver_metrics_text; each call asks anew, so leave room to spare:
/// 400 bytes a connection are enough unless a listener's address is long.
///
/// Any thread but those of the server, so not a handler, until webserver_stop begins. Blocks until every shard
/// has answered, for a second at most; a shard that has not is left out and named. Errors:
/// WEBSERVER_E_INVALID (limit), WEBSERVER_E_LIMIT (capacity), WEBSERVER_E_STATE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn webserver_connections_json(
    server: *const webserver_server,
    limit: usize,
    buffer: *mut c_char,
    capacity: usize,
    needed: *mut usize,
) -> c_int {
    let result = guard::call(|| {
        // SAFETY: the caller's server, which is not stopped during the call.
        let server = unsafe { argument::shared(server, NO_SERVER)? };
        // SAFETY: the caller's buffer of `capacity` bytes and his size, for the call.
        unsafe { give(buffer, capacity, needed, || Ok(server.server.largest_connections(limit)?)) }
    });
    error::status(&result)
}

/// Writes a text and a NUL into the caller's buffer, and how many bytes that takes into `needed`, also when the
/// buffer has not so many. The text is not made before the arguments are found to be right.
///
/// # Safety
/// `buffer` is NULL or points to `capacity` bytes, `needed` is NULL or points to a `usize`; the caller may write both.
unsafe fn give(
    buffer: *mut c_char,
    capacity: usize,
    needed: *mut usize,
    text: impl FnOnce() -> Result<String, Failure>,
) -> Result<(), Failure> {
    argument::output(needed, "needed is NULL")?;
    if capacity > 0 {
        argument::output(buffer, "buffer is NULL")?;
    }
    let text = text()?;
    let total = text.len() + 1;
    // SAFETY: not NULL, and the caller's to write.
    unsafe { needed.write(total) };
    if capacity < total {
        return Err(Failure::Here(ErrorKind::Limit, "the buffer is too small"));
    }
    // SAFETY: `buffer` is not NULL and has `capacity` bytes, more than `text` has; a String of ours
    // cannot overlap it.
    unsafe { ptr::copy_nonoverlapping(text.as_ptr(), buffer.cast::<u8>(), text.len()) };
    // SAFETY: the byte at `text.len()` is within `capacity`.
    let end = unsafe { buffer.add(text.len()) };
    // SAFETY: as above.
    unsafe { end.write(0) };
    Ok(())
}

impl webserver_stats {
    /// The core's figures in the layout of the header.
    fn new(stats: &Stats, size: u32) -> Self {
        let totals = &stats.totals;
        webserver_stats {
            size,
            shards: totals.shards,
            pressure: totals.memory_pressure,
            state: match stats.state {
                State::Running => WEBSERVER_STATE_RUNNING,
                State::Draining => WEBSERVER_STATE_DRAINING,
                State::Stopped => WEBSERVER_STATE_STOPPED,
            },
            memory_budget_bytes: totals.memory_budget_bytes,
            memory_used_bytes: totals.memory_used_bytes,
            memory_peak_bytes: totals.memory_peak_bytes,
            memory_heap_bytes: stats.memory_heap_bytes,
            memory_rss_bytes: stats.memory_rss_bytes,
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
            tls_session_cache_entries: totals.tls_session_cache_entries,
            errors: totals.errors,
        }
    }
}
