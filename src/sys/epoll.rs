//! An epoll set (epoll(7)): one a shard, closed on drop.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use super::{check, check_size};

/// What a socket is registered for, once: both directions and the peer's half-close, edge-triggered.
pub const SOCKET: u32 = (libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET) as u32;
/// A descriptor that stays reported while readable, such as a listener of one shard.
pub const READABLE: u32 = libc::EPOLLIN as u32;
/// A listener shared by several sets: the kernel wakes one of them (epoll_ctl(2), `EPOLLEXCLUSIVE`).
pub const SHARED_LISTENER: u32 = (libc::EPOLLIN | libc::EPOLLEXCLUSIVE) as u32;

/// One readiness report.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Event(libc::epoll_event);

impl Event {
    /// An empty report, to fill an array with.
    pub const EMPTY: Event = Event(libc::epoll_event { events: 0, u64: 0 });

    /// The token the descriptor was registered with.
    pub fn token(&self) -> u64 {
        self.0.u64
    }

    /// There may be bytes to read, or the end of the stream.
    pub fn readable(&self) -> bool {
        self.has(libc::EPOLLIN)
    }

    /// There may be room to write.
    pub fn writable(&self) -> bool {
        self.has(libc::EPOLLOUT)
    }

    /// The peer will send no more: a short read must be followed by another.
    pub fn peer_finished(&self) -> bool {
        self.has(libc::EPOLLRDHUP)
    }

    /// Both directions are gone, or the socket has an error.
    pub fn broken(&self) -> bool {
        self.has(libc::EPOLLHUP) || self.has(libc::EPOLLERR)
    }

    fn has(&self, flag: libc::c_int) -> bool {
        let events = self.0.events;
        events & flag as u32 != 0
    }
}

/// An epoll set.
#[derive(Debug)]
pub struct Epoll(OwnedFd);

impl Epoll {
    /// An empty set. Fails with `EMFILE`, `ENFILE` or `ENOMEM`.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointer is passed.
        let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: the kernel has just given us this descriptor and nobody else knows it.
        Ok(Epoll(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Adds a descriptor. Closing it (its last duplicate) removes it again.
    pub fn add(&self, fd: BorrowedFd<'_>, token: u64, interest: u32) -> io::Result<()> {
        let mut event = libc::epoll_event { events: interest, u64: token };
        // SAFETY: `event` lives for the call, and both descriptors are open for it.
        check(unsafe {
            libc::epoll_ctl(self.0.as_raw_fd(), libc::EPOLL_CTL_ADD, fd.as_raw_fd(), &raw mut event)
        })?;
        Ok(())
    }

    /// Removes a descriptor. Needed where duplicates of it stay open.
    pub fn remove(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        // SAFETY: the event pointer may be null for this operation since Linux 2.6.9.
        check(unsafe {
            libc::epoll_ctl(self.0.as_raw_fd(), libc::EPOLL_CTL_DEL, fd.as_raw_fd(), std::ptr::null_mut())
        })?;
        Ok(())
    }

    /// Fills `events` with what is ready; `block` waits until something is. `EINTR` counts as nothing.
    pub fn wait<'e>(&self, events: &'e mut [Event], block: bool) -> io::Result<&'e [Event]> {
        let capacity = libc::c_int::try_from(events.len()).unwrap_or(libc::c_int::MAX);
        // SAFETY: `Event` is a transparent epoll_event, and the pointer is good for `capacity` of them.
        let count = check_size(unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait,
                self.0.as_raw_fd(),
                events.as_mut_ptr(),
                capacity,
                if block { -1 } else { 0 },
                std::ptr::null::<libc::sigset_t>(),
                0,
            )
        });
        match count {
            Ok(count) => Ok(&events[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(&[]),
            Err(error) => Err(error),
        }
    }
}

impl AsFd for Epoll {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
