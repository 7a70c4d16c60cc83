//! Resource limits of the process (getrlimit(2)).

use std::{io, mem::MaybeUninit};

use super::check;

/// A soft limit and its ceiling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// What counts now. `u64::MAX` is unlimited.
    pub soft: u64,
    /// What the process may raise it to.
    pub hard: u64,
}

/// Open descriptors (`RLIMIT_NOFILE`).
pub fn nofile() -> io::Result<Limit> {
    read(libc::RLIMIT_NOFILE)
}

/// Bytes that may be locked in memory (`RLIMIT_MEMLOCK`); io_uring's registered buffers count.
pub fn memlock() -> io::Result<Limit> {
    read(libc::RLIMIT_MEMLOCK)
}

/// Raises the soft limit of descriptors to the hard one. Affects the whole process.
pub fn raise_nofile() -> io::Result<Limit> {
    let limit = nofile()?;
    if limit.soft < limit.hard {
        let raised = libc::rlimit { rlim_cur: limit.hard, rlim_max: limit.hard };
        // SAFETY: the struct lives for the call.
        check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) })?;
    }
    nofile()
}

fn read(resource: libc::__rlimit_resource_t) -> io::Result<Limit> {
    let mut limit = MaybeUninit::<libc::rlimit>::uninit();
    // SAFETY: the kernel fills the struct that is passed.
    check(unsafe { libc::getrlimit(resource, limit.as_mut_ptr()) })?;
    // SAFETY: filled by the successful call above.
    let limit = unsafe { limit.assume_init() };
    Ok(Limit { soft: limit.rlim_cur, hard: limit.rlim_max })
}
