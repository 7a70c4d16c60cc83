//! Every system call and every unsafe block of the core, as thin safe functions.
//!
//! Nothing here decides anything: no policy, no retry beyond `EINTR`, no logging.

mod cgroup;
pub mod clock;
pub mod cpu;
pub mod descriptors;
pub mod epoll;
pub mod event;
pub mod folder;
pub mod mapped;
pub mod memory;
pub mod open;
pub mod random;
pub mod rlimit;
pub mod sendfile;
pub mod socket;
pub mod thread;
pub mod uring;

use std::io;

/// `-1` becomes the calling thread's `errno`.
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The same for calls that return a size.
///
/// The calls made for every request go through syscall(2), whose result has this type too: glibc's own wrappers are
/// cancellation points, which cost a process with threads two locked operations a call and are of no use here.
fn check_size(result: libc::c_long) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}
