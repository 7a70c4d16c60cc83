//! What a configuration comes to in bytes, term by term, before anything starts: at worst, typically, and the other way
//! round, how many connections fit.
//!
//! Computed from [`Settings`] alone, with the sizes that the server itself reserves by. Starts nothing, measures nothing.

use crate::{
    config::{
        Action, RESERVED_DESCRIPTORS, Settings,
        sizes::{
            CERTIFICATE_BYTES, CLIENT_REQUESTS_BYTES, EXCHANGE_BYTES, OPEN_FILE_BYTES, RESERVED_SLOTS,
            ROUTE_BYTES, ROUTE_SHARD_BYTES, SERVER_BYTES, SHARD_BYTES, SLOT_BYTES, TIER_BYTES,
            TLS_HANDSHAKE_BYTES, TLS_IDLE_BYTES, TLS_SENDING_BYTES, TLS_SHARD_BYTES, certificates,
        },
    },
    log, memory,
    metrics::Holder,
    runtime, service, shard,
};

mod fits;

pub use fits::{Bound, Fit};

/// Typically so many connections of a hundred are in the middle of a request.
pub const ACTIVE_PERCENT: u8 = 10;

/// The memory profile's figures for what this version does not do.
const H2_BYTES: usize = 100 << 10;
const H2_TYPICAL_BYTES: usize = 30 << 10;

/// A TCP socket, its inode, its file and its directory entry: measured on Linux 6.18 as the growth of the kernel's slabs
/// with 4,000 connections, less their epoll entries.
const SOCKET_BYTES: usize = 3760;
/// `struct epitem` and its entry in the socket's wait queue.
const EPOLL_ENTRY_BYTES: usize = 192;
/// What a client that stops reading leaves in its socket's queue, measured with a file of 3 MB on loopback as what the
/// machine had less of; the pages of the file itself are in the page cache in any case. `tcp_wmem` allows more.
const QUEUE_BYTES: usize = 84 << 10;

/// Most connections that a plan is made for.
pub const CONNECTIONS_MAX: usize = 1_000_000_000;

/// For how many connections, and of what kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Open at once, over all shards, at most [`CONNECTIONS_MAX`].
    pub connections: usize,
    /// How many of a hundred speak TLS, at most 100.
    pub tls_percent: u8,
    /// How many of a hundred speak HTTP/2, at most 100.
    pub h2_percent: u8,
}

/// When a term holds what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// From the start to the end.
    Always,
    /// When caches and pools are full.
    Kept,
    /// While connections are open and requests in progress.
    Connections,
}

/// One product of the sum.
#[derive(Clone, Debug)]
pub struct Term {
    /// What it is.
    pub name: &'static str,
    /// For what the server accounts it; none for memory of the kernel's.
    pub holder: Option<Holder>,
    /// How many at worst.
    pub count: usize,
    /// How many typically.
    pub typical_count: usize,
    /// Bytes of one.
    pub unit_bytes: usize,
    /// When they are held.
    pub when: &'static str,
    kind: Kind,
}

impl Term {
    /// At worst.
    pub fn bytes(&self) -> u64 {
        product(self.count, self.unit_bytes)
    }

    /// Typically.
    pub fn typical_bytes(&self) -> u64 {
        product(self.typical_count, self.unit_bytes)
    }

    fn new(name: &'static str, holder: Holder, count: usize, unit_bytes: usize, when: &'static str) -> Term {
        let holder = Some(holder);
        Term { name, holder, count, typical_count: count, unit_bytes, when, kind: Kind::Always }
    }

    fn kept(self, typical_count: usize) -> Term {
        Term { typical_count, kind: Kind::Kept, ..self }
    }

    fn of_connections(self, typical_count: usize) -> Term {
        Term { typical_count, kind: Kind::Connections, ..self }
    }
}

/// What a configuration comes to.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Number of shards.
    pub shards: usize,
    /// What it was computed for.
    pub load: Load,
    /// Everything that counts against the budget, in the order of [`Holder`].
    pub terms: Vec<Term>,
    /// The budget.
    pub budget_bytes: u64,
    /// How many connections fit beside what always stands and full caches and pools.
    pub fits: Vec<Fit>,
    /// Memory of the kernel's, which no budget counts.
    pub kernel: Vec<Term>,
    /// Descriptors at worst: connections, listeners of each shard, open files, and a reserve.
    pub descriptors: u64,
    /// Sockets, listeners and eventfds in the epoll sets.
    pub epoll_entries: usize,
}

impl Plan {
    /// All connections that the shards take: all with TLS where a listener speaks it, without HTTP/2.
    pub fn load(settings: &Settings) -> Load {
        let connections = settings.shards.saturating_mul(settings.memory.worker_connections);
        Load { connections, tls_percent: if settings.speaks_tls() { 100 } else { 0 }, h2_percent: 0 }
    }

    /// Computes everything. Cannot overflow: what would is as large as numbers get.
    pub fn new(settings: &Settings, load: Load) -> Plan {
        let mut terms = Vec::new();
        standing(settings, &mut terms);
        connections(settings, load, &mut terms);
        kept(settings, load, &mut terms);
        let position = |term: &Term| term.holder.map_or(Holder::COUNT, |holder| holder as usize);
        terms.sort_by_key(position);
        let budget_bytes = wide(settings.memory.budget_bytes);
        let listeners = (settings.listeners.len() + usize::from(settings.admin.is_some())) * settings.shards;
        Plan {
            shards: settings.shards,
            load,
            fits: fits::fits(settings, &terms, memory::Level::High.bounds(budget_bytes).1),
            terms,
            budget_bytes,
            kernel: kernel(load, listeners),
            descriptors: RESERVED_DESCRIPTORS
                + wide(load.connections + listeners + settings.memory.open_file_cache.entries),
            epoll_entries: load.connections + listeners + settings.shards * EVENTS_OF_SHARD,
        }
    }

    /// The sum at worst.
    pub fn worst_bytes(&self) -> u64 {
        total(&self.terms, Term::bytes)
    }

    /// The sum typically.
    pub fn typical_bytes(&self) -> u64 {
        total(&self.terms, Term::typical_bytes)
    }

    /// What there is of the sum before the first connection, whatever is cached later.
    pub fn always_bytes(&self) -> u64 {
        total(self.terms.iter().filter(|term| term.kind == Kind::Always), Term::bytes)
    }

    /// What there is before the first connection and after the last, with full caches and pools.
    pub fn standing_bytes(&self) -> u64 {
        let standing = self.terms.iter().filter(|term| term.kind != Kind::Connections);
        total(standing, Term::bytes)
    }
}

/// Timer, mailbox and finished jobs of a shard.
const EVENTS_OF_SHARD: usize = 3;

fn standing(settings: &Settings, terms: &mut Vec<Term>) {
    let (shards, routes) = (settings.shards, settings.routes.len());
    let slots = settings.memory.worker_connections.saturating_add(RESERVED_SLOTS).saturating_mul(shards);
    terms.extend([
        Term::new("shards", Holder::Substrate, shards, SHARD_BYTES, "always"),
        Term::new("shared threads and tables", Holder::Substrate, 1, SERVER_BYTES, "always"),
        Term::new("routes", Holder::Substrate, routes, ROUTE_BYTES + shards * ROUTE_SHARD_BYTES, "always"),
        Term::new("connection slots", Holder::Connections, slots, SLOT_BYTES, "always, used or not"),
    ]);
    let certificates = certificates(settings);
    if certificates > 0 {
        terms.extend([
            Term::new("shards, for TLS", Holder::Substrate, shards, TLS_SHARD_BYTES, "always"),
            Term::new("certificates", Holder::Substrate, certificates, CERTIFICATE_BYTES, "always"),
        ]);
    }
    if settings.limits.requests_per_ip > 0 {
        let when = "always, for limits.requests_per_ip";
        terms.push(Term::new("requests of clients", Holder::Substrate, 1, CLIENT_REQUESTS_BYTES, when));
    }
    if settings.access_log.is_some() {
        let (count, when) = (shards.saturating_mul(log::BATCHES_MAX), "while the writer is behind");
        let batches = Term::new("access log batches", Holder::Logs, count, log::BATCH_BYTES, when);
        // One is filled while another is being written.
        terms.push(batches.kept(shards.saturating_mul(2)));
    }
}

fn connections(settings: &Settings, load: Load, terms: &mut Vec<Term>) {
    let tls = percent(load.connections, load.tls_percent);
    let h2 = percent(load.connections, load.h2_percent);
    let h1 = load.connections - h2;
    let active = percent(h1, ACTIVE_PERCENT);
    let stock = load.connections.min(settings.shards.saturating_mul(shard::EXCHANGES_MAX));
    let head_bytes = tier_bytes(settings.limits.header_bytes);
    // One more than wait for a thread is refused.
    let answers = h1.min(runtime::QUEUE_MAX + super::launch::IO_THREADS);
    let answer_bytes = shard::WAITING_BYTES.saturating_add(settings.limits.header_bytes);
    terms.extend([
        Term::new("requests", Holder::Connections, h1, EXCHANGE_BYTES, "while a request waits; 63 kept")
            .of_connections(active.max(stock.min(h1))),
        Term::new("answers", Holder::Connections, answers, answer_bytes, "while a file is looked for")
            .of_connections(0),
        Term::new(
            "small buffers",
            Holder::BuffersInUse,
            0,
            TIER_BYTES[0],
            "typically, while a request waits",
        )
        .of_connections(active),
        Term::new("heads", Holder::BuffersInUse, h1, head_bytes, "while a head comes in pieces")
            .of_connections(0),
        Term::new("output", Holder::BuffersInUse, h1, TIER_BYTES[2], "while a client takes no answer")
            .of_connections(0),
        Term::new(
            "bodies for handlers",
            Holder::RequestBodies,
            settings.shards,
            shard::bodies_bytes_max(settings),
            "while a handler gathers one",
        )
        .of_connections(0),
    ]);
    if settings.routes.iter().any(|route| matches!(&route.action, Action::Files(files) if files.listing)) {
        let count = settings.shards.saturating_mul(service::LISTINGS_MAX);
        let (unit_bytes, when) = (service::LISTING_BYTES_MAX, "while made or sent");
        terms.push(Term::new("listings", Holder::ResponseBodies, count, unit_bytes, when).of_connections(0));
    }
    tls_of_connections(settings, tls, terms);
    if h2 > 0 {
        let state = "while open; not in this version";
        terms.extend([
            Term::new("HTTP/2 state", Holder::Connections, h2, H2_TYPICAL_BYTES, state).of_connections(h2),
            Term::new(
                "HTTP/2 streams",
                Holder::Connections,
                h2,
                H2_BYTES - H2_TYPICAL_BYTES,
                "streams busy; not in this version",
            )
            .of_connections(0),
        ]);
    }
    let readers = settings.shards.saturating_mul(shard::COLD_READERS_MAX);
    terms.push(
        Term::new(
            "readers",
            Holder::DirectReads,
            readers,
            shard::READER_BYTES,
            "while a fast client gets cold files",
        )
        .of_connections(0),
    );
}

/// What a handshake takes beyond what its connection keeps, for no more of them than may be in progress. A record of the
/// largest size is a few bytes more than a medium buffer.
fn tls_of_connections(settings: &Settings, tls: usize, terms: &mut Vec<Term>) {
    if tls == 0 {
        return;
    }
    let handshakes = settings.limits.handshakes.min(tls);
    let handshake_bytes = TLS_HANDSHAKE_BYTES - TLS_IDLE_BYTES;
    let when = "in a handshake; limits.handshakes";
    terms.extend([
        Term::new("sessions", Holder::Tls, tls, TLS_IDLE_BYTES, "while open").of_connections(tls),
        Term::new("handshakes", Holder::Tls, handshakes, handshake_bytes, when).of_connections(0),
        Term::new("records", Holder::BuffersInUse, tls, TIER_BYTES[2], "while a TLS record comes in pieces")
            .of_connections(0),
        Term::new(
            "ciphertext",
            Holder::BuffersInUse,
            tls,
            TLS_SENDING_BYTES,
            "while a client takes no answer",
        )
        .of_connections(percent(tls, ACTIVE_PERCENT)),
    ]);
}

fn kept(settings: &Settings, load: Load, terms: &mut Vec<Term>) {
    let (memory, shards) = (&settings.memory, settings.shards);
    let active = percent(load.connections, ACTIVE_PERCENT);
    let cache = &memory.response_cache;
    // The rest of the whole can hold nothing but responses of upstreams.
    let upstreams = cache.proxy_bytes.min(cache.size_bytes - cache.static_bytes.min(cache.size_bytes));
    let entries = memory.open_file_cache.entries;
    let mapped = memory.mmap.total_bytes_max;
    terms.extend([
        Term::new("files and notes", Holder::OpenFiles, entries, OPEN_FILE_BYTES, "when cached")
            .kept(entries),
        Term::new("small hot files", Holder::ResponseCache, 1, cache.static_bytes, "when cached").kept(1),
        Term::new("upstreams", Holder::ResponseCache, 1, upstreams, "when cached; not in this version")
            .kept(0),
        Term::new("pages", Holder::MappedFiles, 1, mapped, "when hot, and no room in the cache").kept(0),
    ]);
    if settings.speaks_tls() {
        let (bytes, when) = (memory.tls_session_cache.size_bytes, "until resumed or too old");
        terms.push(Term::new("sessions kept", Holder::TlsSessions, 1, bytes, when).kept(1));
    }
    let pools = memory.buffer_pools;
    let own = pools.counts().map(|count| count.saturating_mul(shards));
    let names = [
        ("small, of shards", "small, of all together"),
        ("medium, of shards", "medium, of all together"),
        ("large, of shards", "large, of all together"),
    ];
    for (tier, (own_name, global_name)) in names.into_iter().enumerate() {
        let typical = if tier == 0 { active.min(own[tier]) } else { 0 };
        let bytes = TIER_BYTES[tier];
        let global = pools.global_counts()[tier];
        terms.extend([
            Term::new(own_name, Holder::BuffersFree, own[tier], bytes, "kept after use").kept(typical),
            Term::new(global_name, Holder::BuffersFree, global, bytes, "kept after use").kept(0),
        ]);
    }
}

fn kernel(load: Load, listeners: usize) -> Vec<Term> {
    let term = |name, count, typical_count, unit_bytes, when| Term {
        name,
        holder: None,
        count,
        typical_count,
        unit_bytes,
        when,
        kind: Kind::Connections,
    };
    let (all, active) = (load.connections, percent(load.connections, ACTIVE_PERCENT));
    vec![
        term("sockets", all + listeners, all + listeners, SOCKET_BYTES, "while open"),
        term("epoll entries", all + listeners, all + listeners, EPOLL_ENTRY_BYTES, "while open"),
        term("queues of sockets", all, active, QUEUE_BYTES, "while a client takes no answer"),
    ]
}

fn total<'a>(terms: impl IntoIterator<Item = &'a Term>, bytes: fn(&Term) -> u64) -> u64 {
    terms.into_iter().map(bytes).fold(0, u64::saturating_add)
}

/// The tier that holds so many bytes.
fn tier_bytes(bytes: usize) -> usize {
    memory::Tier::holding(bytes).unwrap_or(memory::Tier::Large).bytes()
}

/// Rounded up: one in a hundred of a few is one.
fn percent(count: usize, percent: u8) -> usize {
    let part = (count as u128 * u128::from(percent)).div_ceil(100);
    usize::try_from(part).map_or(count, |part| part.min(count))
}

fn product(count: usize, unit_bytes: usize) -> u64 {
    wide(count).saturating_mul(wide(unit_bytes))
}

fn wide(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
