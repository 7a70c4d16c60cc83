//! Servers that answer every request with one file and differ only in how its bytes reach the socket. They look for the
//! end of a head and do nothing else that a server must do, so what differs between two of them is the way.
//!
//! Not shared with the server: a prototype shows what a way costs before anything is built on it.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read},
    net::TcpListener,
    os::fd::{AsRawFd, OwnedFd, RawFd},
    path::Path,
};

/// The listener's number in the epoll set; sockets have their descriptor's.
const LISTENER: u64 = u64::MAX;
const EVENTS_MAX: usize = 256;

/// How a body reaches the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From memory, copied behind the head: one `send`.
    Copied,
    /// From memory: one `sendmsg` of head and body.
    Gathered,
    /// From a populated mapping of the file: one `sendmsg` of head and body, with an `fstat` before and after it.
    Mapped,
    /// The head with `MSG_MORE`, then `sendfile`.
    Sendfile,
    /// The same, after asking whether the file is in the page cache: `preadv2` at both ends and `cachestat`.
    Asked,
}

impl Way {
    /// All of them, in the order of the table.
    pub const ALL: [Way; 5] = [Way::Copied, Way::Gathered, Way::Mapped, Way::Sendfile, Way::Asked];

    /// As the command line and the table write it.
    pub fn name(self) -> &'static str {
        match self {
            Way::Copied => "copied",
            Way::Gathered => "gathered",
            Way::Mapped => "mapped",
            Way::Sendfile => "sendfile",
            Way::Asked => "asked",
        }
    }
}

/// The file, in every form a way wants.
struct Body {
    file: File,
    bytes: Vec<u8>,
    mapping: *const libc::c_void,
    head: Vec<u8>,
    /// Head and body of [`Way::Copied`].
    copy: Vec<u8>,
}

/// A response that the socket has not taken whole: how far it got.
type Unfinished = HashMap<RawFd, usize>;

/// Serves `path` in `way` on a port of the kernel's choice, which it prints, until the process is ended.
///
/// # Errors
/// The file or a socket is refused.
pub fn serve(way: Way, path: &Path) -> io::Result<()> {
    let mut body = Body::new(path)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    // SAFETY: listen on an open socket again only changes its backlog.
    unsafe { libc::listen(listener.as_raw_fd(), 4096) };
    // SAFETY: epoll_create1 touches no memory.
    let set = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) as isize })? as RawFd;
    watch(set, listener.as_raw_fd(), LISTENER, libc::EPOLLIN)?;
    announce(listener.local_addr()?.port());
    let mut sockets: HashMap<RawFd, OwnedFd> = HashMap::new();
    let mut unfinished = Unfinished::new();
    let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS_MAX];
    let mut input = vec![0_u8; 16384];
    loop {
        // SAFETY: the kernel writes at most as many events as the vector holds.
        let count = unsafe { libc::epoll_wait(set, events.as_mut_ptr(), EVENTS_MAX as i32, -1) };
        for event in &events[..usize::try_from(count).unwrap_or(0)] {
            if event.u64 == LISTENER {
                while let Ok((stream, _)) = listener.accept() {
                    stream.set_nonblocking(true)?;
                    stream.set_nodelay(true)?;
                    let socket = OwnedFd::from(stream);
                    let both = libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET;
                    watch(set, socket.as_raw_fd(), socket.as_raw_fd() as u64, both)?;
                    sockets.insert(socket.as_raw_fd(), socket);
                }
                continue;
            }
            let socket = event.u64 as RawFd;
            let readable = event.events & libc::EPOLLIN as u32 != 0;
            if !readable && !unfinished.contains_key(&socket) {
                continue;
            }
            if !converse(way, &mut body, socket, &mut unfinished, &mut input) {
                unfinished.remove(&socket);
                sockets.remove(&socket);
            }
        }
    }
}

/// Goes on with a response, or receives a request and answers it; false ends the connection.
fn converse(way: Way, body: &mut Body, socket: RawFd, unfinished: &mut Unfinished, input: &mut [u8]) -> bool {
    let mut sent = match unfinished.get(&socket) {
        Some(sent) => *sent,
        None => {
            let no_address = std::ptr::null_mut::<libc::c_void>();
            // SAFETY: the pointer is good for the length given.
            let received = unsafe {
                libc::syscall(
                    libc::SYS_recvfrom,
                    socket,
                    input.as_mut_ptr(),
                    input.len(),
                    0,
                    no_address,
                    no_address,
                )
            };
            match received {
                count if count > 0 && input[..count as usize].ends_with(b"\r\n\r\n") => 0,
                -1 => return io::Error::last_os_error().kind() == io::ErrorKind::WouldBlock,
                _ => return false,
            }
        }
    };
    let whole = body.head.len() + body.bytes.len();
    while sent < whole {
        match body.send(way, socket, sent) {
            Ok(count) => sent += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                unfinished.insert(socket, sent);
                return true;
            }
            Err(_) => return false,
        }
    }
    unfinished.remove(&socket);
    true
}

impl Body {
    fn new(path: &Path) -> io::Result<Body> {
        let mut file = File::open(path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let any = std::ptr::null_mut();
        let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
        let mapping = unsafe { libc::mmap(any, bytes.len(), libc::PROT_READ, flags, file.as_raw_fd(), 0) };
        if mapping == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let head = format!(
            "HTTP/1.1 200 OK\r\nServer: ways\r\nDate: Tue, 15 Nov 1994 08:12:31 GMT\r\nETag: \"1f3c-400-17d3a\"\r\n\
             Last-Modified: Tue, 15 Nov 1994 08:12:31 GMT\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n",
            bytes.len()
        );
        Ok(Body {
            file,
            copy: Vec::with_capacity(head.len() + bytes.len()),
            bytes,
            mapping,
            head: head.into(),
        })
    }

    /// Sends what lies behind the first `sent` bytes of head and body.
    fn send(&mut self, way: Way, socket: RawFd, sent: usize) -> io::Result<usize> {
        let in_body = sent.saturating_sub(self.head.len());
        let head = &self.head[sent.min(self.head.len())..];
        match way {
            Way::Copied => {
                self.copy.clear();
                self.copy.extend_from_slice(head);
                self.copy.extend_from_slice(&self.bytes[in_body..]);
                send(socket, &self.copy, 0)
            }
            Way::Gathered => {
                send_both(socket, head, self.bytes[in_body..].as_ptr().cast(), self.bytes.len() - in_body)
            }
            Way::Mapped => {
                let _ = self.file.metadata()?;
                // SAFETY: `in_body` is less than the mapping's length.
                let rest = unsafe { self.mapping.byte_add(in_body) };
                let count = send_both(socket, head, rest, self.bytes.len() - in_body);
                let _ = self.file.metadata()?;
                count
            }
            Way::Sendfile | Way::Asked if !head.is_empty() => send(socket, head, libc::MSG_MORE),
            Way::Sendfile | Way::Asked => {
                let count = self.bytes.len() - in_body;
                if way == Way::Asked {
                    self.ask(in_body, count);
                }
                let mut offset = in_body as libc::off_t;
                // SAFETY: both descriptors are open and the offset lives through the call.
                check(unsafe { libc::sendfile(socket, self.file.as_raw_fd(), &raw mut offset, count) })
            }
        }
    }

    /// What it costs to know that `count` bytes from `offset` are in the page cache.
    fn ask(&self, offset: usize, count: usize) {
        const SYS_CACHESTAT: libc::c_long = 451;
        let mut byte = 0_u8;
        let part = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
        for at in [offset, offset + count - 1] {
            // SAFETY: the vector names one byte, which lives through the call.
            unsafe { libc::preadv2(self.file.as_raw_fd(), &raw const part, 1, at as i64, libc::RWF_NOWAIT) };
        }
        let range = [offset as u64, count as u64];
        let mut counts = [0_u64; 5];
        // SAFETY: both arrays have the layout of the kernel's structures and outlive the call.
        unsafe {
            libc::syscall(SYS_CACHESTAT, self.file.as_raw_fd(), range.as_ptr(), counts.as_mut_ptr(), 0)
        };
    }
}

fn send(socket: RawFd, bytes: &[u8], flags: libc::c_int) -> io::Result<usize> {
    let (no_address, flags) = (std::ptr::null::<libc::c_void>(), flags | libc::MSG_NOSIGNAL);
    // SAFETY: the pointer is good for the length given.
    check(unsafe {
        libc::syscall(libc::SYS_sendto, socket, bytes.as_ptr(), bytes.len(), flags, no_address, 0) as isize
    })
}

/// One `sendmsg` of `head` and of `length` bytes at `body`, which the kernel alone reads.
fn send_both(socket: RawFd, head: &[u8], body: *const libc::c_void, length: usize) -> io::Result<usize> {
    let mut pieces = [
        libc::iovec { iov_base: head.as_ptr().cast_mut().cast(), iov_len: head.len() },
        libc::iovec { iov_base: body.cast_mut(), iov_len: length },
    ];
    // SAFETY: a msghdr is plain integers and pointers, for which zeros mean "absent".
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = pieces.as_mut_ptr();
    message.msg_iovlen = pieces.len();
    // SAFETY: the message and its pieces live for the call, which only reads through them.
    check(unsafe {
        libc::syscall(libc::SYS_sendmsg, socket, &raw const message, libc::MSG_NOSIGNAL) as isize
    })
}

fn watch(set: RawFd, descriptor: RawFd, number: u64, interest: i32) -> io::Result<()> {
    let mut event = libc::epoll_event { events: interest as u32, u64: number };
    // SAFETY: both descriptors are open and the event lives for the call.
    check(unsafe { libc::epoll_ctl(set, libc::EPOLL_CTL_ADD, descriptor, &raw mut event) as isize })?;
    Ok(())
}

fn check(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

#[allow(clippy::print_stdout, reason = "the bench reads the port from here")]
fn announce(port: u16) {
    println!("{port}");
}
