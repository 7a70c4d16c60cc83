//! Descriptors that wake an epoll set: an eventfd for other threads, a timerfd for deadlines.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use super::check;

/// A counter that other threads raise (eventfd(2)).
#[derive(Debug)]
pub struct EventFd(File);

impl EventFd {
    /// Non-blocking, close-on-exec, at 0.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointer is passed.
        let fd = check(unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) })?;
        // SAFETY: the kernel has just given us this descriptor and nobody else knows it.
        Ok(EventFd(File::from(unsafe { OwnedFd::from_raw_fd(fd) })))
    }

    /// Makes it readable. Cannot fail in a way that matters: a full counter is readable already.
    pub fn raise(&self) {
        let _ = (&self.0).write(&1u64.to_ne_bytes());
    }

    /// Makes it unreadable again.
    pub fn clear(&self) {
        let mut count = [0u8; 8];
        let _ = (&self.0).read(&mut count);
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A one-shot timer (timerfd_create(2)) on the monotonic clock.
#[derive(Debug)]
pub struct TimerFd(File);

impl TimerFd {
    /// Disarmed, non-blocking, close-on-exec.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointer is passed.
        let fd = check(unsafe {
            libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_NONBLOCK | libc::TFD_CLOEXEC)
        })?;
        // SAFETY: the kernel has just given us this descriptor and nobody else knows it.
        Ok(TimerFd(File::from(unsafe { OwnedFd::from_raw_fd(fd) })))
    }

    /// Fires once after `millis`; 0 disarms.
    pub fn arm(&self, millis: u64) -> io::Result<()> {
        let zero = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let value = libc::timespec {
            tv_sec: libc::time_t::try_from(millis / 1000).unwrap_or(libc::time_t::MAX),
            tv_nsec: i64::try_from(millis % 1000).unwrap_or(0) * 1_000_000,
        };
        let spec = libc::itimerspec { it_interval: zero, it_value: value };
        // SAFETY: `spec` lives for the call and the old value is not asked for.
        check(unsafe {
            libc::timerfd_settime(self.0.as_raw_fd(), 0, &raw const spec, std::ptr::null_mut())
        })?;
        Ok(())
    }

    /// Makes it unreadable after it fired.
    pub fn clear(&self) {
        let mut count = [0u8; 8];
        let _ = (&self.0).read(&mut count);
    }
}

impl AsFd for TimerFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
