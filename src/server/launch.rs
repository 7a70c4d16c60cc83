//! Starting: everything that can be refused is refused before the first thread, and whatever was begun is undone
//! when a later step fails.

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::AtomicBool,
        mpsc::{self, RecvTimeoutError},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use super::{CUT_GRACE, Options, Server, bind, certificates, join, pressure};
use crate::{
    admission::Admission,
    clock::Clock,
    config::{Config, LogPath, Settings, sizes},
    error::{Error, ErrorKind, Result},
    http1::Refusal,
    log::{Plan, Writer},
    memory::{Budget, Overflow},
    metrics::{Holder, Registry, ShardMetrics},
    runtime::{Jobs, Mailbox},
    service::{Health, Site},
    shard::{self, Message, Setup},
    sys::{rlimit, thread, uring},
    tls::{SharedSessions, TicketRotation},
};

/// How long all shards together may take to start.
const START_DEADLINE: Duration = Duration::from_secs(20);
/// Threads for blocking work. They wait for storage, so their number is not the number of cores.
pub(super) const IO_THREADS: usize = 4;
/// Messages that may wait for a shard.
const MAILBOX_MAX: usize = 256;

pub(super) fn launch(config: &Config, mut options: Options) -> Result<Server> {
    let mut settings = config.resolve(&Server::host(options.binary))?;
    let mut open_sockets = settings.take_sockets().into_iter();
    preflight()?;
    if settings.memory.raise_nofile {
        rlimit::raise_nofile()
            .map_err(|error| Error::io("cannot raise RLIMIT_NOFILE to its hard limit", &error))?;
    }
    let site = Arc::new(Site::open(settings, std::mem::take(&mut options.handlers))?);
    let settings = &site.settings;

    let mut undo = Undo::default();
    let mut bound = Vec::new();
    let mut listeners: Vec<Vec<shard::Listening>> = (0..settings.shards).map(|_| Vec::new()).collect();
    let all =
        settings.listeners.iter().map(|one| (one, false)).chain(settings.admin.iter().map(|one| (one, true)));
    let mut inherited_paths = Vec::new();
    for (number, (listener, admin)) in all.enumerate() {
        let place = bind::Place { number, admin, shards: if admin { 1 } else { settings.shards } };
        let sockets = bind::open(listener, &open_sockets.next().unwrap_or_default(), place)?;
        bound.push(sockets.bound);
        match sockets.file {
            // Until this server has started, the file still is the one of the process that it replaces.
            Some(file) if sockets.inherited => inherited_paths.push(file),
            file => undo.unix_paths.extend(file),
        }
        for (shard, listening) in listeners.iter_mut().zip(sockets.listening) {
            shard.extend(listening);
        }
    }

    let admission = Arc::new(Admission::new(settings));
    let clock = Clock::start();
    let registry = Arc::new(Registry::new(settings.shards, Refusal::LABELS));
    let health = Arc::new(Health::default());
    let shards: Vec<Arc<ShardMetrics>> = registry.shards.clone();
    let budget = Budget::new(settings.memory.budget_bytes, Arc::clone(&registry.memory), shards);
    let overflow = Overflow::new(settings.memory.buffer_pools, &budget);
    let bytes = sizes::substrate_bytes(settings);
    let substrate = budget.charge(Holder::Substrate, bytes).ok_or_else(|| {
        let what = format!("memory.budget has no room for the {bytes} bytes that the server itself takes");
        Error::new(ErrorKind::Memory, what)
    })?;
    let writer = Writer::start(&log_plan(settings, &options, &registry))?;
    let (dispatch, lines) = (writer.dispatch(), writer.lines());
    undo.writer = Some(writer);
    certificates::publish(&site, &registry);
    certificates::warn(&site, dispatch.clone());
    let jobs = Arc::new(Jobs::start(IO_THREADS).map_err(|error| Error::io("cannot start a thread", &error))?);
    undo.jobs = Some(Arc::clone(&jobs));

    let mailbox = |_| Ok(Arc::new(Mailbox::new(MAILBOX_MAX)?));
    let mailboxes: Arc<[Arc<Mailbox<Message>>]> = (0..settings.shards)
        .map(mailbox)
        .collect::<io::Result<_>>()
        .map_err(|error| Error::io("cannot make an eventfd", &error))?;
    undo.shards = mailboxes.to_vec();

    let ticket_keys = Arc::new(TicketRotation::start(settings, Instant::now())?);
    let sessions = shared_sessions(settings, &registry, &mailboxes);

    let (sender, started) = mpsc::channel();
    for (index, listeners) in listeners.into_iter().enumerate() {
        let metrics: Arc<ShardMetrics> = Arc::clone(&registry.shards[index]);
        let setup = Setup {
            index,
            site: Arc::clone(&site),
            listeners,
            budget: Arc::clone(&budget),
            overflow: Arc::clone(&overflow),
            admission: Arc::clone(&admission),
            clock,
            mailboxes: Arc::clone(&mailboxes),
            metrics,
            registry: Arc::clone(&registry),
            health: Arc::clone(&health),
            jobs: Arc::clone(&jobs),
            lines: lines.clone(),
            sessions: Arc::clone(&sessions),
            ticket_keys: ticket_keys.keys(),
        };
        let pin = settings.pin_shards.then_some(index);
        let thread = spawn(index, setup, dispatch.clone(), pin, sender.clone())?;
        undo.threads.push(thread);
    }
    drop(sender);

    let deadline = Instant::now() + START_DEADLINE;
    for _ in 0..site.settings.shards {
        match started.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(result) => result?,
            Err(RecvTimeoutError::Timeout) => {
                return Err(Error::new(ErrorKind::Timeout, "a shard did not start within 20 seconds"));
            }
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Error::new(
                    ErrorKind::Panic,
                    "a shard ended while it started: a bug in webserver",
                ));
            }
        }
    }
    let watch = pressure::start(&budget, &mailboxes, &ticket_keys, &options, dispatch)
        .map_err(|error| Error::io("cannot start a thread", &error))?;
    let (shards, threads, mut unix_paths, writer) = undo.keep();
    unix_paths.extend(inherited_paths);
    Ok(Server {
        shards,
        threads: Mutex::new(threads),
        budget,
        overflow,
        _substrate: substrate,
        watch: Mutex::new(Some(watch)),
        jobs,
        registry,
        health,
        bound,
        unix_paths,
        admission,
        ticket_keys,
        settings: Mutex::new(site),
        options,
        writer: Mutex::new(writer),
        stopped: AtomicBool::new(false),
        handed_over: AtomicBool::new(false),
        pid: std::process::id(),
    })
}

/// The TLS sessions of all shards, each of which can wake the others.
fn shared_sessions(
    settings: &Settings,
    registry: &Registry,
    shards: &Arc<[Arc<Mailbox<Message>>]>,
) -> Arc<SharedSessions> {
    let mailboxes = Arc::clone(shards);
    let wake = move |shard: usize| {
        // A full mailbox: it is awake, and looks by itself before it looks up a session.
        let _ = mailboxes[shard].send_below(pressure::MESSAGES_MAX, Message::Sessions);
    };
    SharedSessions::new(shards.len(), &settings.memory.tls_session_cache, &registry.tls, Box::new(wake))
}

/// [`uring::preflight`] on a thread of its own, for the reason told there.
fn preflight() -> Result<()> {
    let probe = thread::spawn("webserver/probe", uring::preflight)
        .map_err(|error| Error::io("cannot start a thread", &error))?;
    probe.join().unwrap_or_else(|_| {
        Err(Error::new(ErrorKind::Panic, "the check of io_uring failed: a bug in webserver"))
    })
}

fn spawn(
    index: usize,
    setup: Setup,
    dispatch: tracing::Dispatch,
    pin: Option<usize>,
    ready: mpsc::Sender<Result<()>>,
) -> Result<JoinHandle<()>> {
    thread::spawn(&format!("webserver/{index}"), move || {
        let _logging = tracing::dispatcher::set_default(&dispatch);
        if let Some(core) = pin
            && let Err(error) = thread::pin(core)
        {
            let _ = ready.send(Err(Error::io(format!("cannot bind shard {index} to a core"), &error)));
            return;
        }
        shard::run(setup, |result| {
            // The receiver is gone when another shard failed first.
            let _ = ready.send(result);
        });
    })
    .map_err(|error| Error::io("cannot start a thread", &error))
}

/// What is logged and where: the configuration's files, the host's function, and for the binary standard error.
pub(super) fn log_plan(settings: &Settings, options: &Options, registry: &Registry) -> Plan {
    let standard = (options.binary && options.log.is_none()).then_some(LogPath::Standard);
    Plan {
        access: settings.access_log.as_ref().map(|access| access.path.clone()),
        diagnostic: settings.log.path.clone().or(standard),
        level: options.log_level.unwrap_or(settings.log.level),
        callback: options.log.clone(),
        shards: settings.shards,
        metrics: Arc::clone(&registry.log),
    }
}

/// What was begun and must be undone unless the start succeeds.
#[derive(Default)]
struct Undo {
    shards: Vec<Arc<Mailbox<Message>>>,
    threads: Vec<JoinHandle<()>>,
    jobs: Option<Arc<Jobs>>,
    unix_paths: Vec<bind::UnixPath>,
    writer: Option<Writer>,
}

type Kept = (Vec<Arc<Mailbox<Message>>>, Vec<JoinHandle<()>>, Vec<bind::UnixPath>, Option<Writer>);

impl Undo {
    /// The start succeeded: hands everything over.
    fn keep(mut self) -> Kept {
        self.jobs = None;
        (
            std::mem::take(&mut self.shards),
            std::mem::take(&mut self.threads),
            std::mem::take(&mut self.unix_paths),
            self.writer.take(),
        )
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        for shard in &self.shards {
            let _ = shard.send(Message::Stop);
        }
        let mut threads = std::mem::take(&mut self.threads);
        if let Some(jobs) = self.jobs.take() {
            jobs.close();
            threads.extend(jobs.take_threads());
        }
        join(threads, CUT_GRACE);
        for path in &self.unix_paths {
            path.remove();
        }
        if let Some(writer) = self.writer.take() {
            // The start has failed already, and that is what the caller is told.
            let _ = writer.stop(CUT_GRACE);
        }
    }
}
