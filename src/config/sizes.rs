//! What one of each thing takes, in bytes: for the sum that a configuration must fit, for the plan, and for what the
//! server reserves from its budget. The three agree because they all ask here.
//!
//! Sizes of types are checked where the types are; the others were measured as it says beside them, with the release
//! binary on x86-64.

use super::settings::Settings;

/// A connection slot with its place in the slab. An idle connection takes nothing else in this process.
pub const SLOT_BYTES: usize = 64;

/// Slots of each shard beside those of `worker_connections`: for the admin listener, and for clients that are refused.
pub const RESERVED_SLOTS: usize = 80;

/// The state of a request that could not be answered at once, with a list of four pieces that wait for the socket and
/// the state of a read that it waits for.
pub const EXCHANGE_BYTES: usize = 768;

/// The TLS of an idle connection: keys, traffic secrets and the session itself, what the provider allocates in C included,
/// which no Rust allocator sees. No buffer is among it. Measured as what resident memory grew by: 3.7 to 3.9 KB.
pub const TLS_IDLE_BYTES: usize = 4 << 10;

/// The TLS of a connection whose handshake is in progress: what it will hold when idle, the key exchange, the transcript,
/// the client's certificates. Measured while the client's second flight was waited for: 4.4 KB in TLS 1.3, 3.0 KB in 1.2;
/// a flight that is computed, and a chain of the client's, take some more.
pub const TLS_HANDSHAKE_BYTES: usize = 12 << 10;

/// Ciphertext of one connection that its socket has not taken, in one medium and three small buffers. Nothing more is
/// encrypted until it has.
pub const TLS_SENDING_BYTES: usize = TIER_BYTES[1] + 3 * TIER_BYTES[0];

/// A buffer of each tier.
pub const TIER_BYTES: [usize; 3] = [4 << 10, 16 << 10, 64 << 10];

/// An entry of the open-file cache, with the quarter of a note that comes with it: key, links, rendered fields, for a
/// path of 40 bytes. `cache::tests` measures it. A descriptor comes on top, which is the kernel's.
pub const OPEN_FILE_BYTES: usize = 576;

/// What a shard takes before it has a connection: 1 MB registered with io_uring, three rings of 128 entries, 64 KB to
/// receive into and 64 KB to render into, its stack, its tables. Measured as what resident memory grew by for each
/// shard beside the first, after large and pipelined requests to all of them: 1,305 KB anonymous, 50 KB of rings.
pub const SHARD_BYTES: usize = 1360 << 10;

/// What a shard takes to speak TLS: 82 KB to receive into, 60 KB that are encrypted, 64 KB of records.
pub const TLS_SHARD_BYTES: usize = 208 << 10;

/// A certificate with its chain, its key and what is stapled, as the server and each shard have them.
pub const CERTIFICATE_BYTES: usize = 8 << 10;

/// What the server takes however many shards it has: threads for blocking work and for logs, allocator arenas,
/// metrics, a small configuration. The rest of the same measurement: 387 KB.
pub const SERVER_BYTES: usize = 512 << 10;

/// A route in the configuration, with what reading it left to the allocator: what resident memory grew by with a
/// thousand of them, 3.5 KB each.
pub const ROUTE_BYTES: usize = 4 << 10;

/// A route in the router of each shard; 430 bytes in the same measurement.
pub const ROUTE_SHARD_BYTES: usize = 512;

/// The table of clients' requests, once `limits.requests_per_ip` asks for it.
pub const CLIENT_REQUESTS_BYTES: usize = 1 << 20;

/// Certificates of all listeners.
pub fn certificates(settings: &Settings) -> usize {
    let tls = settings.listeners.iter().filter_map(|listener| listener.tls.as_ref());
    tls.map(|tls| tls.certificates.len()).sum()
}

/// What runs the server, in use or not.
pub fn substrate_bytes(settings: &Settings) -> usize {
    let shards = settings.shards.saturating_mul(SHARD_BYTES);
    let routes = settings.routes.len().saturating_mul(ROUTE_BYTES + settings.shards * ROUTE_SHARD_BYTES);
    let clients = if settings.limits.requests_per_ip > 0 { CLIENT_REQUESTS_BYTES } else { 0 };
    let certificates = certificates(settings).saturating_mul(CERTIFICATE_BYTES);
    let tls = if certificates > 0 { settings.shards.saturating_mul(TLS_SHARD_BYTES) } else { 0 };
    [shards, routes, clients, certificates, tls].into_iter().fold(SERVER_BYTES, usize::saturating_add)
}

/// The slots of all shards, in use or not.
pub fn slots_bytes(settings: &Settings) -> usize {
    let slots = settings.memory.worker_connections.saturating_add(RESERVED_SLOTS);
    settings.shards.saturating_mul(slots).saturating_mul(SLOT_BYTES)
}
