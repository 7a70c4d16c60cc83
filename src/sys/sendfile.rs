//! `sendfile(2)`: pages of a file to a socket without a copy through the process.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

use super::check_size;

/// Sends up to `count` bytes of `file` from `offset`; returns how many went, 0 at the file's end.
///
/// Blocks on storage when the pages are not in the page cache: ask `open::resident` first.
/// Fails with `EAGAIN` when the socket is full, `EPIPE` or `ECONNRESET` when the peer is gone.
pub fn sendfile(
    socket: BorrowedFd<'_>,
    file: BorrowedFd<'_>,
    offset: u64,
    count: usize,
) -> io::Result<usize> {
    let mut position =
        libc::off_t::try_from(offset).map_err(|_| io::Error::from_raw_os_error(libc::EOVERFLOW))?;
    // SAFETY: both descriptors are open for the call and the offset lives through it.
    check_size(unsafe { libc::sendfile(socket.as_raw_fd(), file.as_raw_fd(), &raw mut position, count) }
        as libc::c_long)
}
