//! A running server: started from a configuration, reloaded, drained, stopped.

mod bind;
mod certificates;
mod handover;
mod largest;
mod launch;
pub mod plan;
mod pressure;
mod reload;
mod stats;

pub use handover::HandedSocket;
pub use stats::{State, Stats};

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crate::{
    admission::Admission,
    config::{self, Config, Host, Settings},
    error::{Error, ErrorKind, Result},
    log,
    memory::{Budget, Charge, Level, Overflow},
    metrics::Registry,
    runtime::{Jobs, Mailbox},
    service::{Handlers, Health, Site},
    shard::Message,
    sys::{cpu, memory, rlimit, thread},
    tls::TicketRotation,
};

/// How often a stop looks whether the threads have ended.
const POLL: Duration = Duration::from_millis(1);
/// How long the shards may take to answer: a turn, unless one hangs.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);
/// How long a rotation waits for the lines before it to be written.
const REOPEN_DEADLINE: Duration = Duration::from_secs(5);
/// How long threads get to end after everything was cut. Storage that hangs is what takes longer.
const CUT_GRACE: Duration = Duration::from_secs(5);

/// How a server is started, beside its configuration.
#[derive(Clone, Default)]
pub struct Options {
    /// The stand-alone binary's defaults: descriptors are raised to the hard limit, a welcome page without any
    /// configuration gets an admin listener.
    pub binary: bool,
    /// The host's function for the diagnostic log; it gets every line, also when the configuration names a file.
    pub log: Option<log::Callback>,
    /// Overrides `log.level` of the configuration.
    pub log_level: Option<config::Level>,
    /// The host's function for the level of pressure: called with the level, the bytes used and the budget when the level
    /// has changed, by one thread of the server's. It must not stop the server.
    pub on_pressure: Option<OnPressure>,
    /// What answers beside the configured routes. They live until the server and its last reload are done with them.
    pub handlers: Handlers,
}

/// Hears of levels of pressure: the level, the bytes used, the budget.
pub type OnPressure = Arc<dyn Fn(Level, u64, u64) + Send + Sync>;

/// A listener of a running server.
#[derive(Clone, Debug)]
pub struct Bound {
    /// As written in the configuration.
    pub name: String,
    /// For people and clients: `http://127.0.0.1:8080`, `https://127.0.0.1:8443`, or `unix:/run/x.sock`.
    pub url: String,
    /// The port, with 0 replaced by the real one; `None` for a unix socket.
    pub port: Option<u16>,
    /// The admin listener.
    pub admin: bool,
}

/// A running server. Dropping it cuts every connection and joins its threads.
pub struct Server {
    shards: Vec<Arc<Mailbox<Message>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    budget: Arc<Budget>,
    overflow: Arc<Overflow>,
    /// What the threads and tables of fixed size count for, until all of it is gone.
    _substrate: Charge,
    /// Decides about the level of pressure.
    watch: Mutex<Option<JoinHandle<()>>>,
    jobs: Arc<Jobs>,
    registry: Arc<Registry>,
    health: Arc<Health>,
    bound: Vec<Bound>,
    unix_paths: Vec<bind::UnixPath>,
    admission: Arc<Admission>,
    ticket_keys: Arc<TicketRotation>,
    settings: Mutex<Arc<Site>>,
    options: Options,
    writer: Mutex<Option<log::Writer>>,
    stopped: AtomicBool,
    /// Another process listens on the sockets.
    handed_over: AtomicBool,
    /// The process that started it: a child after `fork` has none of the threads.
    pid: u32,
}

impl Server {
    /// Starts a server with the library's defaults. Returns once every listener accepts.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] and [`ErrorKind::Limit`] from the configuration, [`ErrorKind::Address`] when an
    /// address is taken, [`ErrorKind::Unsupported`] when the kernel refuses what is needed, [`ErrorKind::Io`]
    /// for folders and log files. Nothing stays behind then.
    pub fn start(config: &Config) -> Result<Server> {
        Server::start_with(config, Options::default())
    }

    /// Starts a server with options; see [`Server::start`].
    pub fn start_with(config: &Config, options: Options) -> Result<Server> {
        launch::launch(config, options)
    }

    /// What this process may use, as the configuration is resolved against it.
    pub fn host(binary: bool) -> Host {
        let nofile = rlimit::nofile().unwrap_or(rlimit::Limit { soft: 1024, hard: 1024 });
        Host {
            cores: cpu::usable(),
            nofile_soft: nofile.soft,
            nofile_hard: nofile.hard,
            memory_bytes: memory::usable_bytes(),
            binary,
        }
    }

    /// The listeners in the order of the configuration, the admin listener last.
    pub fn addresses(&self) -> &[Bound] {
        &self.bound
    }

    /// The port of a listener: by its address as written, `admin`, or the first one.
    pub fn port(&self, name: Option<&str>) -> Option<u16> {
        let bound = match name {
            None => self.bound.first(),
            Some("admin") => self.bound.iter().find(|bound| bound.admin),
            Some(name) => self.bound.iter().find(|bound| bound.name == name),
        };
        bound?.port
    }

    /// Opens the log files anew by their paths, both or none, after a rotation has renamed the old ones. No line is
    /// lost: those handed over before this are in the old files when it returns, the others will be in the new ones.
    /// Blocks for as long as opening a file takes, and for at most five seconds for lines to be written.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] when a file cannot be opened, and the old ones stay; [`ErrorKind::Timeout`] when storage
    /// hangs, and the new files take over as soon as it does not; [`ErrorKind::State`] after a stop.
    pub fn reopen_logs(&self) -> Result<()> {
        self.usable()?;
        lock(&self.writer).as_mut().map_or(Ok(()), |writer| writer.reopen(REOPEN_DEADLINE))
    }

    /// Stops accepting, closes idle connections, lets requests in progress end. Does not block.
    pub fn drain(&self) {
        self.begin_drain(|| Message::Drain);
    }

    /// Whether a drain has ended: every shard has answered what it had.
    pub fn drained(&self) -> bool {
        lock(&self.threads).iter().all(JoinHandle::is_finished)
    }

    /// Cuts every connection. Does not block; a stop in another thread returns soon after.
    pub fn stop_now(&self) {
        self.health.drain();
        for shard in &self.shards {
            let _ = shard.send(Message::Stop);
        }
    }

    /// Drains for up to `timeout`, cuts what is left, joins every thread. Calling it again does nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] when a thread hangs, in storage for instance: it is named and left running.
    /// [`ErrorKind::State`] from one of the server's own threads, [`ErrorKind::Forked`] in a child.
    pub fn stop(&self, timeout: Duration) -> Result<()> {
        if !thread::same_process(self.pid) {
            return Err(Error::new(
                ErrorKind::Forked,
                "this process is a fork of the one that runs the server",
            ));
        }
        if self.is_own_thread() {
            return Err(Error::new(
                ErrorKind::State,
                "a server cannot be stopped from one of its own threads",
            ));
        }
        if self.stopped.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        if timeout > Duration::ZERO {
            self.drain();
            self.wait(timeout);
        }
        if !self.drained() {
            self.stop_now();
            self.wait(CUT_GRACE);
        }
        self.jobs.close();
        self.budget.close();
        let mut threads = std::mem::take(&mut *lock(&self.threads));
        threads.extend(lock(&self.watch).take());
        threads.extend(self.jobs.take_threads());
        let hung = join(threads, CUT_GRACE);
        if !self.handed_over.load(Ordering::SeqCst) {
            self.unix_paths.iter().for_each(bind::UnixPath::remove);
        }
        let written = lock(&self.writer).take().map_or(Ok(()), |writer| writer.stop(CUT_GRACE));
        if hung.is_empty() {
            return written;
        }
        Err(Error::new(
            ErrorKind::Timeout,
            format!("still running, and left so: {}; its storage does not answer", hung.join(", ")),
        ))
    }

    /// Reserves memory of the host's own in the server's budget: caches shrink and connections end for it as for the
    /// server's own. Any thread; does not block.
    ///
    /// # Errors
    /// [`ErrorKind::Memory`] when the budget has not so many bytes left: nothing is reserved then.
    /// [`ErrorKind::Forked`], [`ErrorKind::State`] after a stop.
    pub fn charge(&self, bytes: usize) -> Result<()> {
        self.usable()?;
        if self.budget.charge_host(bytes) {
            return Ok(());
        }
        let (used, budget) = (self.budget.used_bytes(), self.budget.bytes());
        let what = format!(
            "{bytes} bytes do not fit into memory.budget: {used} of {budget} bytes are in use, and a part is kept for \
             responses that have begun"
        );
        Err(Error::new(ErrorKind::Memory, what))
    }

    /// Gives back what [`Server::charge`] has reserved; of more, as much as was reserved. Any thread; does not block.
    pub fn release(&self, bytes: usize) {
        if thread::same_process(self.pid) {
            self.budget.release_host(bytes);
        }
    }

    /// The figures of this moment.
    pub fn stats(&self) -> Stats {
        let state = if self.stopped.load(Ordering::SeqCst) {
            State::Stopped
        } else if self.health.is_draining() {
            State::Draining
        } else {
            State::Running
        };
        stats::collect(&self.registry, state)
    }

    /// All metrics as Prometheus text.
    pub fn metrics_text(&self) -> String {
        let mut text = String::new();
        self.registry.render(&mut text);
        text
    }

    /// The effective configuration.
    pub fn settings(&self) -> Settings {
        lock(&self.settings).settings.clone()
    }

    fn begin_drain(&self, message: impl Fn() -> Message) {
        // Once: repeated, it could fill the mailboxes, and a stop would find no room.
        if self.health.drain() {
            for shard in &self.shards {
                let _ = shard.send(message());
            }
        }
    }

    /// Asks every shard something and waits for the answers; `None` when one does not answer in time. `message` is told
    /// the shard's number.
    fn ask<T>(&self, message: impl Fn(usize, mpsc::Sender<T>) -> Message) -> Option<Vec<T>> {
        let (sender, answers) = mpsc::channel();
        for (index, shard) in self.shards.iter().enumerate() {
            // A full mailbox means that the shard does not run any more; the wait below will say so.
            let _ = shard.send(message(index, sender.clone()));
        }
        drop(sender);
        let deadline = Instant::now() + ANSWER_DEADLINE;
        let answer = |_| answers.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok();
        self.shards.iter().map(answer).collect()
    }

    fn usable(&self) -> Result<()> {
        if !thread::same_process(self.pid) {
            return Err(Error::new(
                ErrorKind::Forked,
                "this process is a fork of the one that runs the server",
            ));
        }
        if self.stopped.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::State, "the server is stopped"));
        }
        Ok(())
    }

    fn is_own_thread(&self) -> bool {
        lock(&self.threads).iter().chain(lock(&self.watch).iter()).any(thread::is_current)
    }

    fn wait(&self, timeout: Duration) {
        let deadline = Instant::now().checked_add(timeout);
        while !self.drained() && deadline.is_none_or(|deadline| Instant::now() < deadline) {
            std::thread::sleep(POLL);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // In a child after fork the threads do not exist; everything else is the parent's to undo.
        if thread::same_process(self.pid) {
            let _ = self.stop(Duration::ZERO);
        }
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("bound", &self.bound).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options").field("binary", &self.binary).finish_non_exhaustive()
    }
}

/// Joins threads that end in time; names those that do not.
fn join(threads: Vec<JoinHandle<()>>, timeout: Duration) -> Vec<String> {
    let deadline = Instant::now() + timeout;
    let mut hung = Vec::new();
    for thread in threads {
        while !thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(POLL);
        }
        if thread.is_finished() {
            // A panic was reported by the thread itself.
            let _ = thread.join();
        } else {
            hung.push(thread.thread().name().unwrap_or("webserver").to_owned());
        }
    }
    hung
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
