//! Many connections over TLS at once, on the calling thread and one epoll set.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    os::fd::{AsFd, AsRawFd},
    sync::Arc,
    time::{Duration, Instant},
};

use rustls::{ClientConfig, ClientConnection, HandshakeKind};
use webserver::sys::epoll::{self, Epoll, Event};

use super::{File, answer::Answer, server_name};
use crate::common::Outcome;

/// An answer that takes longer is none.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);
/// Longest wait for events.
const LOOKS_EVERY_MS: libc::c_int = 100;

/// What each place does, over and over.
#[derive(Clone, Copy, Debug)]
pub struct Job {
    /// Connections at once.
    pub places: usize,
    /// What they ask for.
    pub file: File,
    /// Each request has a connection of its own, which the server ends.
    pub closing: bool,
}

/// What was done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Done {
    /// Whole answers.
    pub answers: u64,
    /// Handshakes completed.
    pub handshakes: u64,
    /// Those of them that resumed a session.
    pub resumed: u64,
}

/// The places and their connections.
pub struct Load {
    job: Job,
    port: u16,
    epoll: Epoll,
    config: Arc<ClientConfig>,
    places: Vec<Option<Connection>>,
    request: Vec<u8>,
    received: Vec<u8>,
    plain: Vec<u8>,
    done: Done,
}

struct Connection {
    socket: TcpStream,
    tls: ClientConnection,
    answer: Answer,
    phase: Phase,
    /// When it began to wait.
    since: Instant,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Handshake,
    Asked,
    /// The answer came, and the server is to close.
    Closing,
}

impl Load {
    /// Opens the first connection of each place.
    ///
    /// # Errors
    /// The server does not accept.
    pub fn new(port: u16, config: Arc<ClientConfig>, job: Job) -> Outcome<Load> {
        let failed = |error: io::Error| format!("no epoll set: {error}");
        let mut load = Load {
            job,
            port,
            epoll: Epoll::new().map_err(failed)?,
            config,
            places: (0..job.places).map(|_| None).collect(),
            request: job.file.request(job.closing),
            received: vec![0; 256 << 10],
            plain: vec![0; 64 << 10],
            done: Done::default(),
        };
        for index in 0..job.places {
            load.open(index)?;
        }
        Ok(load)
    }

    /// Does the job for a time, and says what was done meanwhile; connections stay as they are.
    ///
    /// # Errors
    /// The first wrong answer, or none within ten seconds.
    pub fn run(&mut self, lasts: impl Fn() -> bool) -> Outcome<Done> {
        self.done = Done::default();
        let mut looked = Instant::now();
        while lasts() {
            self.turn().map_err(|error| format!("{:?}: {error}", self.job))?;
            if looked.elapsed() > ANSWERS_WITHIN / 10 {
                looked = Instant::now();
                let mut open = self.places.iter().flatten();
                if open.any(|connection| connection.since.elapsed() > ANSWERS_WITHIN) {
                    return Err(format!("{:?}: no answer within {ANSWERS_WITHIN:?}", self.job));
                }
            }
        }
        Ok(self.done)
    }

    fn open(&mut self, index: usize) -> Outcome<()> {
        let socket = TcpStream::connect(("127.0.0.1", self.port))
            .and_then(|socket| socket.set_nodelay(true).map(|()| socket))
            .and_then(|socket| socket.set_nonblocking(true).map(|()| socket))
            .and_then(|socket| self.epoll.add(socket.as_fd(), index as u64, epoll::SOCKET).map(|()| socket))
            .map_err(|error| format!("cannot connect: {error}"))?;
        let tls = ClientConnection::new(Arc::clone(&self.config), server_name());
        let tls = tls.map_err(|error| format!("no client: {error}"))?;
        self.places[index] = Some(Connection {
            socket,
            tls,
            answer: Answer::default(),
            phase: Phase::Handshake,
            since: Instant::now(),
        });
        self.act(index)
    }

    fn turn(&mut self) -> Outcome<()> {
        let mut events = [Event::EMPTY; 256];
        let failed = |error: io::Error| format!("cannot wait: {error}");
        let mut tokens = [0; 256];
        let ready = self.epoll.wait(&mut events, false).map_err(failed)?;
        for (token, event) in tokens.iter_mut().zip(ready) {
            *token = event.token() as usize;
        }
        let count = ready.len();
        if count == 0 {
            wait_for(&self.epoll);
        }
        tokens[..count].iter().try_for_each(|index| self.act(*index))
    }

    /// Lets a connection go on as far as it can; another follows when it has ended.
    fn act(&mut self, index: usize) -> Outcome<()> {
        let Some(connection) = &mut self.places[index] else { return Ok(()) };
        loop {
            connection.send()?;
            let count = match connection.socket.read(&mut self.received) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(_) if connection.phase == Phase::Closing => break,
                Err(error) => return Err(format!("cannot receive: {error}")),
            };
            let mut records = &self.received[..count];
            while !records.is_empty() {
                connection.tls.read_tls(&mut records).map_err(|error| format!("cannot take: {error}"))?;
                connection.progress(&self.request, &self.job, &mut self.plain, &mut self.done)?;
            }
        }
        if connection.phase != Phase::Closing {
            return Err("the server closed a connection without an answer".to_owned());
        }
        self.places[index] = None;
        self.open(index)
    }
}

impl Connection {
    fn send(&mut self) -> Outcome<()> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut self.socket) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(format!("cannot send: {error}")),
            }
        }
        Ok(())
    }

    /// Uses what the record layer holds.
    fn progress(&mut self, request: &[u8], job: &Job, plain: &mut [u8], done: &mut Done) -> Outcome<()> {
        self.tls.process_new_packets().map_err(|error| format!("TLS: {error}"))?;
        if self.phase == Phase::Handshake && !self.tls.is_handshaking() {
            done.handshakes += 1;
            done.resumed += u64::from(self.tls.handshake_kind() == Some(HandshakeKind::Resumed));
            self.ask(request)?;
        }
        loop {
            let count = match self.tls.reader().read(plain) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(format!("cannot read: {error}")),
            };
            if self.phase != Phase::Asked {
                return Err("bytes that nobody asked for".to_owned());
            }
            if self.answer.take(&plain[..count], job.file)? {
                done.answers += 1;
                if job.closing {
                    self.phase = Phase::Closing;
                } else {
                    self.ask(request)?;
                }
            }
        }
    }

    fn ask(&mut self, request: &[u8]) -> Outcome<()> {
        self.phase = Phase::Asked;
        self.since = Instant::now();
        self.tls.writer().write_all(request).map_err(|error| format!("cannot ask: {error}"))
    }
}

/// Waits until the set has something, for a tenth of a second at most.
fn wait_for(epoll: &Epoll) {
    let mut waited = libc::pollfd { fd: epoll.as_fd().as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one initialised element that outlives the call.
    unsafe { libc::poll(&raw mut waited, 1, LOOKS_EVERY_MS) };
}
