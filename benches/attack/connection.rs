//! One connection of an attack: opened without waiting, fed and read as its kind asks, and told apart by how it ended.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, TcpStream},
    os::fd::{FromRawFd, OwnedFd},
    time::{Duration, Instant},
};

use super::{Fate, HANGS_AFTER, Kind, answer::Answer};
use crate::common::probe::SMALL_FILE;

/// A slow reader's receive buffer (the kernel doubles it), and what it takes at a time.
const WINDOW_BYTES: libc::c_int = 4096;
const READ_BYTES: usize = 2048;
const READ_EVERY: Duration = Duration::from_millis(500);
/// A connection that is not accepted by then will not be.
const CONNECTS_WITHIN: Duration = Duration::from_secs(30);
/// Addresses that connections come from, 28,000 each: 127.0.0.2 and on.
const SOURCES: usize = 16;
/// Longest line of a head: servers have limits of their own for one.
const LINE_BYTES: usize = 500;

/// A connection that has not ended.
pub struct Connection {
    stream: TcpStream,
    kind: Kind,
    phase: Phase,
    answer: Answer,
    /// What is to be sent, and how much of it was.
    request: Vec<u8>,
    sent: usize,
    /// When it acts next by itself; while it connects, when that has failed.
    due: Instant,
    /// It came too late to take part.
    late: bool,
    /// Times it has acted.
    turns: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Connecting,
    Open,
    /// The attack has ended, and an answer is due by then.
    Ending(Instant),
}

/// How a connection came to its end.
enum End {
    Finished,
    Reset,
    /// It leaves by itself.
    Left,
}

impl Connection {
    /// Begins to connect; `number` says from which address.
    ///
    /// # Errors
    /// No descriptor, or no port.
    pub fn open(kind: Kind, port: u16, number: usize, now: Instant) -> io::Result<Connection> {
        let stream = connect(kind, port, number)?;
        let request = match kind {
            Kind::Idle => ask(SMALL_FILE.0, "\r\n"),
            Kind::Reader => ask("large.bin", "\r\n"),
            Kind::Writer => ask(SMALL_FILE.0, "X-Slow: "),
            Kind::Head(bytes) => partial_head(bytes),
        };
        Ok(Connection {
            stream,
            kind,
            phase: Phase::Connecting,
            answer: Answer::default(),
            request,
            sent: 0,
            due: now + CONNECTS_WITHIN,
            late: false,
            turns: number,
        })
    }

    /// The socket.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Neither connected nor refused yet.
    pub fn connecting(&self) -> bool {
        self.phase == Phase::Connecting
    }

    /// Has sent what it sends at first, and got the answer if that asks for one.
    pub fn settled(&self) -> bool {
        let answered = self.kind != Kind::Idle || self.answer.count > 0;
        !self.connecting() && self.sent == self.request.len() && answered
    }

    /// epoll has reported something.
    pub fn on_event(&mut self, writable: bool, scratch: &mut [u8], now: Instant) -> Option<Fate> {
        if self.connecting() {
            if !writable {
                return None;
            }
            if !matches!(self.stream.take_error(), Ok(None)) {
                return Some(Fate::Unconnected);
            }
            if self.late {
                return Some(Fate::Held);
            }
            self.phase = Phase::Open;
            self.due = now + self.pause();
        }
        if let Some(fate) = self.send(scratch) {
            return Some(fate);
        }
        // A slow reader reads when it is due, whatever has come.
        if self.kind == Kind::Reader { None } else { self.receive(scratch) }
    }

    /// Time has passed.
    pub fn on_time(&mut self, scratch: &mut [u8], now: Instant) -> Option<Fate> {
        match self.phase {
            Phase::Connecting if now >= self.due => Some(Fate::Unconnected),
            Phase::Ending(by) if now >= by => Some(Fate::Hung),
            Phase::Open if now >= self.due => {
                self.due += self.pause();
                self.turns += 1;
                match self.kind {
                    Kind::Reader => self.receive(&mut scratch[..READ_BYTES]),
                    Kind::Writer => {
                        self.request = vec![b'a'; 1 + self.turns % 3];
                        self.sent = 0;
                        self.send(scratch)
                    }
                    Kind::Idle | Kind::Head(_) => None,
                }
            }
            _ => None,
        }
    }

    /// The attack ends. Who has left has a fate; the others wait for what they have asked for.
    pub fn end(&mut self, scratch: &mut [u8], now: Instant) -> Option<Fate> {
        match self.kind {
            _ if self.connecting() => {
                self.late = true;
                self.due = now + HANGS_AFTER;
                None
            }
            Kind::Reader | Kind::Head(_) => self.receive(scratch).or_else(|| {
                // A slow reader has had time to read its answer's head.
                let silent = self.kind == Kind::Reader && self.answer.last.is_none() && !self.answer.begun();
                Some(if silent { Fate::Hung } else { self.fate(&End::Left) })
            }),
            Kind::Idle | Kind::Writer => {
                self.phase = Phase::Ending(now + HANGS_AFTER);
                self.request = match self.kind {
                    Kind::Idle => ask(SMALL_FILE.0, LAST_FIELD),
                    _ => [b"\r\n", LAST_FIELD.as_bytes()].concat(),
                };
                self.sent = 0;
                // Responses from now on are the last.
                self.answer.count = 0;
                self.send(scratch)
            }
        }
    }

    fn send(&mut self, scratch: &mut [u8]) -> Option<Fate> {
        while self.sent < self.request.len() {
            match self.stream.write(&self.request[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => {
                    // What came before the reset is still there, and may be an answer.
                    let _ = self.receive(scratch);
                    return Some(self.fate(&End::Reset));
                }
            }
        }
        None
    }

    /// Reads what there is; a slow reader, one piece.
    fn receive(&mut self, scratch: &mut [u8]) -> Option<Fate> {
        loop {
            match self.stream.read(scratch) {
                Ok(0) => return Some(self.fate(&End::Finished)),
                Ok(count) => self.answer.take(&scratch[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => return Some(self.fate(&End::Reset)),
            }
            if self.kind == Kind::Reader && scratch.len() == READ_BYTES {
                break;
            }
        }
        let over = matches!(self.phase, Phase::Ending(_)) && self.answer.count > 0;
        over.then(|| self.fate(&End::Left))
    }

    fn fate(&self, end: &End) -> Fate {
        if self.answer.begun() {
            return if matches!(end, End::Left) { Fate::Held } else { Fate::Cut };
        }
        match (self.answer.last, end) {
            (Some(200), _) => Fate::Answered,
            (Some(503), _) => Fate::Refused,
            (Some(_), _) => Fate::Other,
            (None, End::Finished) => Fate::Finished,
            (None, End::Reset) => Fate::Reset,
            (None, End::Left) => Fate::Held,
        }
    }

    fn pause(&self) -> Duration {
        match self.kind {
            Kind::Reader => READ_EVERY,
            // From one to two seconds, each its own.
            _ => Duration::from_millis(1000 + (self.turns * 37 % 1000) as u64),
        }
    }
}

const LAST_FIELD: &str = "Connection: close\r\n\r\n";

fn ask(path: &str, rest: &str) -> Vec<u8> {
    format!("GET /{path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{rest}").into_bytes()
}

/// `bytes` bytes of a head that never ends.
fn partial_head(bytes: usize) -> Vec<u8> {
    let mut head = ask(SMALL_FILE.0, "");
    while head.len() < bytes {
        head.extend_from_slice(b"X-Part: ");
        head.extend(std::iter::repeat_n(b'a', LINE_BYTES));
        head.extend_from_slice(b"\r\n");
    }
    head.truncate(bytes);
    head
}

/// A socket that connects, or has failed to.
fn connect(kind: Kind, port: u16, number: usize) -> io::Result<TcpStream> {
    // SAFETY: socket takes integers only.
    let socket = unsafe {
        libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, 0)
    };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made and nobody else knows it.
    let stream = TcpStream::from(unsafe { OwnedFd::from_raw_fd(socket) });
    if kind == Kind::Reader {
        set(socket, libc::SOL_SOCKET, libc::SO_RCVBUF, WINDOW_BYTES)?;
    }
    set(socket, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
    // The port is chosen when it is known where to: each address has all of them.
    set(socket, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1)?;
    let from = address(Ipv4Addr::new(127, 0, 0, 2 + (number % SOURCES) as u8), 0);
    let to = address(Ipv4Addr::LOCALHOST, port);
    let length = size_of::<libc::sockaddr_in>() as libc::socklen_t;
    // SAFETY: the address lives for the call and has the length that is passed.
    let bound = unsafe { libc::bind(socket, (&raw const from).cast(), length) };
    if bound != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as above.
    let connected = unsafe { libc::connect(socket, (&raw const to).cast(), length) };
    let error = io::Error::last_os_error();
    if connected != 0 && error.raw_os_error() != Some(libc::EINPROGRESS) {
        return Err(error);
    }
    Ok(stream)
}

fn set(socket: libc::c_int, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the value lives for the call and has the length that is passed.
    let failed = unsafe { libc::setsockopt(socket, level, option, (&raw const value).cast(), length) } != 0;
    if failed { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn address(ip: Ipv4Addr, port: u16) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(ip).to_be() },
        sin_zero: [0; 8],
    }
}
