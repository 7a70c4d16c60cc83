//! The edge-triggered epoll set inside glommio's executor, and the driver that waits for it.

use std::{
    future::poll_fn,
    io,
    net::TcpListener,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    rc::Rc,
    task::Poll,
    time::{Duration, Instant},
};

use super::{Probes, announce, answer, park};

/// While a timer or a read is outstanding, glommio's reactor runs at least this often.
const REACTOR_INTERVAL: Duration = Duration::from_millis(1);
const LISTENER: u64 = u64::MAX;
const EVENTS_MAX: usize = 256;

/// As large as a slot of the server may be, so that memory per connection is comparable.
#[repr(align(64))]
struct Slot {
    socket: Option<OwnedFd>,
    _rest: [u64; 12],
}

struct Sockets {
    set: OwnedFd,
    listener: TcpListener,
    slots: Vec<Slot>,
    free: Vec<usize>,
    events: Vec<libc::epoll_event>,
    input: Vec<u8>,
    output: Vec<u8>,
    probes: Rc<Probes>,
}

/// Serves forever. With `block`, waits inside `epoll_wait` while glommio has nothing to finish; otherwise, and
/// while it has, parks in its reactor.
pub async fn drive(probes: Rc<Probes>, block: bool) -> io::Result<()> {
    let mut sockets = Sockets::new(Rc::clone(&probes))?;
    let mut parked = Instant::now();
    loop {
        let alone = probes.outstanding.get() == 0;
        if block && alone {
            // Nothing but these sockets can wake this thread: no task, timer or read is left to starve.
            sockets.turn(-1)?;
            continue;
        }
        let count = sockets.turn(0)?;
        if count == 0 || (!alone && parked.elapsed() >= REACTOR_INTERVAL) {
            park(sockets.set.as_raw_fd()).await?;
            parked = Instant::now();
        } else {
            yield_once().await;
        }
    }
}

impl Sockets {
    fn new(probes: Rc<Probes>) -> io::Result<Sockets> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        // SAFETY: listen on an open socket again only changes its backlog.
        unsafe { libc::listen(listener.as_raw_fd(), 4096) };
        // SAFETY: epoll_create1 touches no memory.
        let set = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: `set` was made just now and is owned by nothing else.
        let set = unsafe { OwnedFd::from_raw_fd(set) };
        add(&set, listener.as_raw_fd(), LISTENER)?;
        announce(listener.local_addr()?.port());
        let none = libc::epoll_event { events: 0, u64: 0 };
        Ok(Sockets {
            set,
            listener,
            slots: Vec::new(),
            free: Vec::new(),
            events: vec![none; EVENTS_MAX],
            input: vec![0; 65536],
            output: Vec::with_capacity(65536),
            probes,
        })
    }

    /// Waits `timeout_ms` (-1: until there is one) for events, serves them and returns how many there were.
    fn turn(&mut self, timeout_ms: i32) -> io::Result<usize> {
        let into = self.events.as_mut_ptr();
        // SAFETY: `into` has room for EVENTS_MAX events.
        let count = unsafe { libc::epoll_wait(self.set.as_raw_fd(), into, EVENTS_MAX as i32, timeout_ms) };
        let count = match check(count) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            other => other? as usize,
        };
        for index in 0..count {
            let event = self.events[index];
            match event.u64 {
                LISTENER => self.accept()?,
                slot => self.serve(slot as usize, event.events),
            }
        }
        Ok(count)
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            let slot = self.free.pop().unwrap_or(self.slots.len());
            if slot == self.slots.len() {
                self.slots.push(Slot { socket: None, _rest: [0; 12] });
            }
            add(&self.set, stream.as_raw_fd(), slot as u64)?;
            self.slots[slot].socket = Some(stream.into());
        }
    }

    /// Reads until the socket is drained and answers. A short read means drained, unless the event says that
    /// the client has finished: data and FIN can share one edge.
    fn serve(&mut self, slot: usize, events: u32) {
        let finished = events & (libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR) as u32 != 0;
        let Some(socket) = self.slots[slot].socket.as_ref().map(AsRawFd::as_raw_fd) else { return };
        let open = loop {
            let room = self.input.len();
            // SAFETY: `input` has `room` bytes to write to.
            let count = unsafe { libc::recv(socket, self.input.as_mut_ptr().cast(), room, 0) };
            if count <= 0 {
                let error = io::Error::last_os_error();
                break count < 0 && error.kind() == io::ErrorKind::WouldBlock;
            }
            let count = count as usize;
            self.output.clear();
            if !answer(&self.input[..count], &mut self.output, &self.probes) || !self.send(socket) {
                break false;
            }
            if count < room && !finished {
                break true;
            }
        };
        if !open {
            self.slots[slot].socket = None;
            self.free.push(slot);
        }
    }

    fn send(&self, socket: RawFd) -> bool {
        let bytes = &self.output;
        // SAFETY: `bytes` is initialised for its length.
        let sent = unsafe { libc::send(socket, bytes.as_ptr().cast(), bytes.len(), libc::MSG_NOSIGNAL) };
        sent == bytes.len() as isize
    }
}

/// Registers once for everything, edge-triggered.
fn add(set: &OwnedFd, socket: RawFd, token: u64) -> io::Result<()> {
    let events = (libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET) as u32;
    let mut event = libc::epoll_event { events, u64: token };
    // SAFETY: `event` is initialised and copied by the kernel.
    check(unsafe { libc::epoll_ctl(set.as_raw_fd(), libc::EPOLL_CTL_ADD, socket, &raw mut event) })?;
    Ok(())
}

fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Lets every other task run that is ready, and comes back.
async fn yield_once() {
    let mut yielded = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
