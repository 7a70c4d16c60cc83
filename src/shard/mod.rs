//! One shard: a thread that owns its sockets, its connections, its caches and its counters, and takes no lock on
//! a request that it can serve alone.
//!
//! `Driver` turns readiness into turns of connections, `Worker` is what a connection's turn works with.

mod body;
mod census;
mod cold;
mod connection;
mod deadline;
mod driver;
mod exchange;
mod file;
mod handshakes;
mod inbox;
mod listener;
mod logging;
mod messages;
mod outgoing;
mod relief;
mod responder;
mod secure;
mod sender;
mod slot;

pub use census::{Answer, CENSUS_DEADLINE, Holding, listener_names, render_holdings};
pub(crate) use cold::READER_BYTES;
pub use listener::{Accepted, Listening};
pub(crate) use responder::WAITING_BYTES;

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    io,
    os::fd::{AsFd, OwnedFd},
    rc::Rc,
    sync::{Arc, mpsc},
};

use crate::{
    admission::{Admission, Client, Exempt, Rate},
    clock::{Clock, Now},
    error::Result,
    files::{ContentBounds, FileCache, MmapCache, PathBuffer},
    http::{Parts, date::DateCache},
    http1,
    log::{AccessLog, Lines},
    memory::{Allowance, Budget, BufferPool, Level, Overflow, Share, Stock},
    metrics::{Holder, Registry, ShardMetrics},
    runtime::{Executor, Jobs, Local, Mailbox, Offload},
    service::{Admin, Context, Health, Listings, Router, Site},
    sys::{event::EventFd, socket::Peer},
    tls::{Resumption, SharedSessions, TicketKeys},
};

use census::Census;
use cold::Permits;
use deadline::Deadlines;
use driver::Driver;
use exchange::{EXCHANGE_BYTES, Exchange};
use inbox::Inbox;
use outgoing::Outgoing;
use secure::Tls;
use slot::Key;

/// Bytes received at once; also the most that one turn reads before it answers.
const SCRATCH_BYTES: usize = 64 << 10;
/// Places for exchanges that are kept for reuse: seven pages.
pub(crate) const EXCHANGES_MAX: usize = 63;
/// Readers past the page cache at once: each holds up to 1.5 MB. Beyond them, fast clients go through it too.
pub(crate) const COLD_READERS_MAX: usize = 16;
/// Bytes that the request bodies gathered by one shard may hold together; one body at its limit always fits.
const BODIES_BYTES: usize = 64 << 20;
/// What a connection that finds no slot is told.
const SHED_RESPONSE: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\n\
Content-Length: 24\r\nRetry-After: 1\r\nConnection: close\r\n\r\n503 Service Unavailable\n";

/// What other threads ask of a shard.
#[derive(Debug)]
pub enum Message {
    /// Take a connection that the shard which accepted it has no room for.
    Accepted(Accepted),
    /// Say that you are there.
    Present(mpsc::Sender<()>),
    /// Serve from this configuration from now on, log what it changes, and say that it is done.
    Reload(Arc<Site>, Vec<String>, mpsc::Sender<()>),
    /// Give duplicates of the listening sockets, with the numbers of their listeners.
    Listeners(mpsc::Sender<io::Result<Vec<(usize, OwnedFd)>>>),
    /// Say which connections hold most, so many at most.
    Largest(usize, Answer),
    /// The level of pressure is this one; also once a second while it is critical.
    Pressure(Level),
    /// The keys of session tickets are these from now on.
    TicketKeys(Arc<TicketKeys>),
    /// Take in the TLS sessions that other shards have published.
    Sessions,
    /// Accept no more, close idle connections, end when the rest is answered.
    Drain,
    /// The same, but another process accepts what waits, for the admin listener too.
    HandOver,
    /// Close everything and end.
    Stop,
}

/// All that a shard is made from. Moves to its thread.
#[derive(Debug)]
pub struct Setup {
    /// The shard's number, from 0.
    pub index: usize,
    /// Configuration and opened folders.
    pub site: Arc<Site>,
    /// This shard's listeners: listening already.
    pub listeners: Vec<Listening>,
    /// What is counted over all shards.
    pub admission: Arc<Admission>,
    /// What everything is reserved from.
    pub budget: Arc<Budget>,
    /// Free buffers that all shards share.
    pub overflow: Arc<Overflow>,
    /// The time that all shards share.
    pub clock: Clock,
    /// Where other threads reach each shard; this one's is at `index`.
    pub mailboxes: Arc<[Arc<Mailbox<Message>>]>,
    /// Its counters.
    pub metrics: Arc<ShardMetrics>,
    /// Everybody's counters, for the admin listener.
    pub registry: Arc<Registry>,
    /// What health checks are told.
    pub health: Arc<Health>,
    /// Threads for blocking work.
    pub jobs: Arc<Jobs>,
    /// Where it gets its access log from.
    pub lines: Lines,
    /// The TLS sessions of all shards.
    pub sessions: Arc<SharedSessions>,
    /// What session tickets are encrypted with.
    pub ticket_keys: Arc<TicketKeys>,
}

/// Runs a shard on the calling thread until it is told to end. `ready` is called once: when it accepts, or with
/// the reason why it does not.
pub fn run(setup: Setup, ready: impl FnOnce(Result<()>)) {
    let executor = match Executor::new() {
        Ok(executor) => executor,
        Err(error) => return ready(Err(error)),
    };
    let metrics = Arc::clone(&setup.metrics);
    executor.run(async move {
        match Driver::new(setup) {
            Ok(driver) => {
                ready(Ok(()));
                driver.run().await;
            }
            Err(error) => ready(Err(error)),
        }
    });
    metrics.executor_descriptors_left.add(executor.finish() as u64);
}

/// What a connection's turn works with: everything of a shard but the connections themselves.
struct Worker {
    scratch: Box<[u8]>,
    parts: Option<Box<Parts>>,
    path: PathBuffer,
    outgoing: Outgoing,
    tls: Tls,
    exchanges: Stock<Exchange>,
    share: Rc<Share>,
    pool: BufferPool,
    overflow: Arc<Overflow>,
    bodies: Rc<Allowance>,
    /// Connections whose bodies wait for memory.
    starved: VecDeque<Key>,
    router: Router,
    admin: Router,
    context: Rc<Context>,
    inbox: Rc<Inbox>,
    mappings: MmapCache,
    cold_permits: Permits,
    resumption: Resumption,
    metrics: Arc<ShardMetrics>,
    lines: Lines,
    access_log: Option<AccessLog>,
    admission: Arc<Admission>,
    client_limits: ClientLimits,
    limits: http1::Limits,
    body_bytes_max: u64,
    requests_per_connection: u32,
    deadlines: Deadlines,
    clock: Clock,
    now: Now,
    /// When the turn began, on `clock`.
    turn_nanos: u64,
    date: DateCache,
    draining: bool,
    /// Responses of this turn that were answered at once, and are timed together.
    answered: u64,
    /// How far the partial head at hand was searched for its end.
    scanned: u32,
}

impl Worker {
    fn new(setup: &Setup, share: &Rc<Share>, local: Rc<Local>, finished: Arc<EventFd>) -> Self {
        let settings = &setup.site.settings;
        let clock = setup.clock;
        let now = clock.now();
        let (entries, contents) = file_cache_share(settings);
        let files = FileCache::new(&settings.memory.open_file_cache, entries, contents, &setup.budget);
        let context = Rc::new(Context {
            files: RefCell::new(files),
            offload: Offload::new(Arc::clone(&setup.jobs), finished),
            now: Cell::new(now),
            path: RefCell::default(),
            listings: Listings::new(&setup.budget),
            spare: RefCell::default(),
            share: Rc::clone(share),
        });
        let census = Census {
            mailboxes: Arc::clone(&setup.mailboxes),
            offload: Rc::clone(&context.offload),
            listeners: census::listener_names(settings),
        };
        let resumption = Resumption::new(
            setup.index,
            &settings.memory.tls_session_cache,
            Arc::clone(&setup.ticket_keys),
            &setup.sessions,
            &setup.budget,
            &setup.metrics,
        );
        let admin = Admin::new(Arc::clone(&setup.registry), Arc::clone(&setup.health), Rc::new(census));
        Worker {
            scratch: vec![0; SCRATCH_BYTES].into_boxed_slice(),
            parts: Some(Box::new(Parts::with_capacity(settings.limits.headers))),
            path: PathBuffer::new(),
            outgoing: Outgoing::new(),
            tls: Tls::new(&setup.site, &resumption),
            exchanges: Stock::new(
                Holder::Connections,
                EXCHANGE_BYTES,
                EXCHANGES_MAX / Stock::<Exchange>::PLACES,
                share,
                &setup.overflow,
            ),
            share: Rc::clone(share),
            pool: BufferPool::new(settings.memory.buffer_pools, share, &setup.overflow),
            overflow: Arc::clone(&setup.overflow),
            starved: VecDeque::new(),
            bodies: Allowance::new(bodies_bytes_max(settings)),
            router: Router::new(&setup.site),
            admin: Router::single(Rc::new(admin)),
            mappings: MmapCache::new(
                settings.memory.mmap.file_bytes_max,
                mapped_share(settings),
                settings.shards,
                &setup.budget,
                Rc::clone(&context.offload),
            ),
            context,
            inbox: Inbox::new(local),
            cold_permits: Permits::new(COLD_READERS_MAX, share),
            resumption,
            metrics: Arc::clone(&setup.metrics),
            access_log: setup.lines.access_log(
                settings.access_log.as_ref(),
                Arc::clone(&setup.metrics),
                &setup.budget,
            ),
            lines: setup.lines.clone(),
            admission: Arc::clone(&setup.admission),
            client_limits: ClientLimits::new(settings),
            limits: limits(settings),
            body_bytes_max: settings.limits.body_bytes,
            requests_per_connection: settings.limits.requests_per_connection,
            deadlines: Deadlines::new(&settings.timeouts),
            clock,
            now,
            turn_nanos: clock.nanos(),
            date: DateCache::new(),
            draining: false,
            answered: 0,
            scanned: 0,
        }
    }

    /// Takes over another configuration: what is in progress ends as it began.
    fn reload(&mut self, site: &Site) {
        let settings = &site.settings;
        let cache = &settings.memory.open_file_cache;
        self.access_log = self.lines.change(
            self.access_log.take(),
            settings.access_log.as_ref(),
            &self.metrics,
            self.share.budget(),
        );
        self.router = Router::new(site);
        self.resumption.reload(&settings.memory.tls_session_cache);
        self.tls.reload(site, &self.resumption);
        self.limits = limits(settings);
        self.client_limits = ClientLimits::new(settings);
        self.body_bytes_max = settings.limits.body_bytes;
        self.requests_per_connection = settings.limits.requests_per_connection;
        self.deadlines.reload(&settings.timeouts);
        self.bodies.resize(bodies_bytes_max(settings));
        if let Some(parts) = &mut self.parts {
            **parts = Parts::with_capacity(settings.limits.headers);
        }
        self.mappings.resize(settings.memory.mmap.file_bytes_max, mapped_share(settings));
        // Routes are numbered, and another configuration numbers them anew: what is still looked for on behalf of the
        // old one must not find its way into the cache, so that keeps the old context, with a cache that holds nothing.
        let mut files = self.context.files.replace(FileCache::new(
            cache,
            0,
            ContentBounds::default(),
            self.share.budget(),
        ));
        files.clear();
        let (entries, contents) = file_cache_share(settings);
        files.resize(cache, entries, contents, self.now.millis);
        self.context = Rc::new(Context {
            files: RefCell::new(files),
            offload: Rc::clone(&self.context.offload),
            now: Cell::new(self.now),
            path: RefCell::default(),
            listings: self.context.listings.clone(),
            spare: RefCell::default(),
            share: Rc::clone(&self.share),
        });
    }

    /// After a panic in a connection's turn: whatever that turn had taken is made anew.
    fn recover(&mut self) {
        if self.scratch.is_empty() {
            self.scratch = vec![0; SCRATCH_BYTES].into_boxed_slice();
        }
        self.parts.get_or_insert_with(Box::default);
        self.outgoing = Outgoing::new();
        self.tls.restore();
    }
}

/// What one client may have, by the configuration in force.
struct ClientLimits {
    /// 0 is no limit.
    connections: u32,
    rate: Option<Rate>,
    exempt: Exempt,
}

impl ClientLimits {
    fn new(settings: &crate::config::Settings) -> Self {
        let limits = &settings.limits;
        ClientLimits {
            connections: limits.connections_per_ip,
            rate: Rate::new(limits.requests_per_ip, limits.requests_per_ip_burst),
            exempt: Exempt::new(&limits.exempt),
        }
    }

    /// The client that limits are for; `None` for an exempt one and for a unix socket.
    fn client(&self, peer: Peer) -> Option<Client> {
        match peer.ip() {
            Some(address) if !self.exempt.contains(address) => Client::of(peer),
            _ => None,
        }
    }
}

fn limits(settings: &crate::config::Settings) -> http1::Limits {
    http1::Limits {
        header_bytes: settings.limits.header_bytes,
        headers: settings.limits.headers,
        target_bytes: settings.limits.target_bytes,
    }
}

/// One shard's part of the open-file cache: entries, and bytes of content.
fn file_cache_share(settings: &crate::config::Settings) -> (usize, ContentBounds) {
    let (shards, memory) = (settings.shards.max(1), &settings.memory);
    (memory.open_file_cache.entries.div_ceil(shards), ContentBounds::share(&memory.response_cache, shards))
}

/// One shard's part of what may be mapped, in bytes.
fn mapped_share(settings: &crate::config::Settings) -> usize {
    settings.memory.mmap.total_bytes_max / settings.shards.max(1)
}

/// One body at its limit fits, as far as the budget allows it; together they take at most half of the budget.
pub(crate) fn bodies_bytes_max(settings: &crate::config::Settings) -> usize {
    let body_bytes = usize::try_from(settings.limits.body_bytes).unwrap_or(usize::MAX);
    body_bytes.max(BODIES_BYTES).min(settings.memory.budget_bytes / 2)
}

/// An epoll token that is not a connection: those have generation 0.
fn token(index: u32) -> u64 {
    u64::from(index)
}

/// Adds a descriptor that belongs to the shard for good.
fn watch(epoll: &crate::sys::epoll::Epoll, fd: &impl AsFd, index: u32) -> io::Result<()> {
    epoll.add(fd.as_fd(), token(index), crate::sys::epoll::READABLE)
}
