//! From start to exit: signals, reloads, the supervisor, and the process that takes over.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        mpsc::{self, Receiver, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use signal_hook::{
    consts::signal::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2},
    iterator::Signals,
};
use webserver::{Server, server::Options};

use super::{
    Failure,
    arguments::Overlay,
    inherited::Inherited,
    notify::Supervisor,
    say,
    succession::{EXIT_PATIENCE, Successor},
    tls::Tls,
};

/// What the main thread waits for.
#[derive(Debug)]
pub(super) enum Event {
    /// A signal came.
    Signal(i32),
    /// The process that is to take over accepts, or has ended before.
    Successor { pid: u32, ready: bool },
    /// The server has ended, or stopping it has panicked.
    Stopped(thread::Result<webserver::Result<()>>),
}

/// What the main thread knows of a server that runs.
struct Running<'a> {
    overlay: &'a Overlay,
    server: Arc<Server>,
    supervisor: Supervisor,
    inherited: Inherited,
    events: (Sender<Event>, Receiver<Event>),
    /// How long a drain may take.
    drain: Duration,
    successor: Option<Successor>,
}

/// Serves until a signal says otherwise, or another process has taken over.
pub(super) fn serve(overlay: &Overlay) -> Result<(), Failure> {
    let mut inherited = Inherited::take()?;
    let (config, settings) = overlay.settings(&inherited.sockets)?;
    let drain = settings.timeouts.drain;
    // Before the start: a signal that comes during it waits here instead of killing a server half made.
    let events = mpsc::channel();
    forward_signals(events.0.clone())?;
    let server = Server::start_with(&config, Options { binary: true, ..Options::default() })?;
    for bound in server.addresses() {
        say(format_args!("{} on {}", if bound.admin { "admin" } else { "listening" }, bound.url));
    }
    if let Some(notice) = overlay.tls.as_ref().and_then(Tls::notice) {
        say(format_args!("webserver: {notice}"));
    }
    drop((config, settings));
    inherited.forget_predecessor_s();
    let supervisor = Supervisor::from_environment();
    if inherited.is_successor() {
        // The supervisor is told by the process that it knows.
        inherited.tell_ready();
    } else {
        supervisor.ready();
    }
    let server = Arc::new(server);
    Running { overlay, server, supervisor, inherited, events, drain, successor: None }.run()
}

impl Running<'_> {
    fn run(mut self) -> Result<(), Failure> {
        loop {
            match self.next_event() {
                Some(Event::Signal(SIGHUP)) => self.reload(),
                Some(Event::Signal(SIGUSR1)) => self.reopen_logs(),
                Some(Event::Signal(SIGUSR2)) => self.replace(),
                Some(Event::Signal(_)) => {
                    if let Some(mut successor) = self.successor.take() {
                        successor.end(Duration::ZERO);
                    }
                    self.supervisor.stopping();
                    return self.stop();
                }
                Some(Event::Successor { pid, ready }) => {
                    // One that was given up reports its end all the same.
                    let expected = self.successor.as_ref().is_some_and(|successor| successor.pid() == pid);
                    if expected && ready {
                        self.supervisor.replaced_by(pid);
                        self.server.hand_over();
                        say(format_args!("webserver: process {pid} has taken over"));
                        return self.stop();
                    }
                    if expected {
                        self.give_up(EXIT_PATIENCE);
                    }
                }
                Some(Event::Stopped(stopped)) => return end(stopped),
                None => self.give_up(Duration::ZERO),
            }
        }
    }

    /// `None` when the process that is to take over has had its time.
    fn next_event(&self) -> Option<Event> {
        let left = self
            .successor
            .as_ref()
            .map_or(Duration::MAX, |successor| successor.deadline.saturating_duration_since(Instant::now()));
        // A sender is kept in `self`, so the channel has not ended.
        self.events.1.recv_timeout(left).ok()
    }

    fn reload(&mut self) {
        self.supervisor.reloading();
        let reloaded = self.overlay.settings(&self.inherited.sockets).and_then(|(config, settings)| {
            self.server.reload(&config)?;
            Ok(settings.timeouts.drain)
        });
        match reloaded {
            Ok(drain) => self.drain = drain,
            Err(failure) => say(format_args!("webserver: not reloaded: {}", failure.message)),
        }
        self.supervisor.ready();
    }

    /// The old files stay in use when the new ones cannot be opened.
    fn reopen_logs(&self) {
        if let Err(error) = self.server.reopen_logs() {
            say(format_args!("webserver: logs not reopened: {error}"));
        }
    }

    /// Starts the process that is to take over, unless there is one.
    fn replace(&mut self) {
        if let Some(successor) = &self.successor {
            say(format_args!("webserver: process {} is about to take over already", successor.pid()));
            return;
        }
        match Successor::start(&self.server, &self.inherited.sockets, self.events.0.clone()) {
            Ok(successor) => {
                say(format_args!("webserver: process {} is to take over", successor.pid()));
                self.successor = Some(successor);
            }
            Err(failure) => say(format_args!("webserver: not handed over: {}", failure.message)),
        }
    }

    /// The process that was to take over has ended, or has had its time.
    fn give_up(&mut self, patience: Duration) {
        if let Some(mut successor) = self.successor.take() {
            let (pid, how) = (successor.pid(), successor.end(patience));
            say(format_args!("webserver: not handed over: process {pid} does not accept connections: {how}"));
        }
    }

    /// Drains in a thread of its own, so that a second signal is seen and cuts at once.
    fn stop(mut self) -> Result<(), Failure> {
        // It has taken over, or was ended.
        self.successor = None;
        let drain = self.drain;
        say(format_args!("webserver: draining for at most {drain:?}; a second signal stops at once"));
        let (server, events) = (Arc::clone(&self.server), self.events.0.clone());
        let stopper = thread::Builder::new().name(String::from("ws-stop")).spawn(move || {
            let stopped = catch_unwind(AssertUnwindSafe(|| server.stop(drain)));
            // The receiver waits for it.
            let _ = events.send(Event::Stopped(stopped));
        });
        if stopper.is_err() {
            // No thread to be had: better a short stop than a deaf one.
            return Ok(self.server.stop(Duration::ZERO)?);
        }
        loop {
            match self.next_event() {
                Some(Event::Signal(SIGTERM | SIGINT)) => self.server.stop_now(),
                Some(Event::Signal(SIGUSR1)) => self.reopen_logs(),
                Some(Event::Stopped(stopped)) => return end(stopped),
                _ => {}
            }
        }
    }
}

fn end(stopped: thread::Result<webserver::Result<()>>) -> Result<(), Failure> {
    match stopped {
        Ok(stopped) => Ok(stopped?),
        Err(_) => Err(Failure::failed("a bug: stopping panicked")),
    }
}

/// Signals become events, in a thread that ends with the process.
fn forward_signals(events: Sender<Event>) -> Result<(), Failure> {
    let failed = |error| Failure::failed(format_args!("cannot wait for signals: {error}"));
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2]).map_err(failed)?;
    let forward = move || {
        for signal in signals.forever() {
            if events.send(Event::Signal(signal)).is_err() {
                break;
            }
        }
    };
    thread::Builder::new().name(String::from("ws-signals")).spawn(forward).map_err(failed)?;
    Ok(())
}
