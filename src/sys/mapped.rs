//! Files in memory, for the kernel alone: a mapping can be sent and unmapped, and there is no way to read it.
//!
//! A file that becomes shorter leaves pages behind that do not exist. A process that touches one is killed by `SIGBUS`;
//! a system call answers `EFAULT`. So no reference into a mapping is ever made, here or through what is offered.

use std::{
    fmt, io,
    ops::Range,
    os::fd::{AsRawFd, BorrowedFd},
    ptr::{self, NonNull},
};

/// Shared, read-only pages of a file; unmapped when dropped.
///
/// Unmapping waits for whoever is changing the process's mappings, a thread that reads pages in for instance: drop it
/// where waiting is allowed.
pub struct FileMapping {
    address: NonNull<libc::c_void>,
    bytes: usize,
}

impl FileMapping {
    /// Maps the first `bytes` bytes of `file` and reads them in (`MAP_POPULATE`): waits for the disk. Pages past the end
    /// of the file are mapped too, and cannot be sent.
    ///
    /// No advice is given with it: `MADV_SEQUENTIAL` would make the kernel give up these pages before others.
    ///
    /// # Errors
    /// Those of mmap(2): `ENODEV` from a file system without mappings, `ENOMEM` when the process has too many. `EINVAL`
    /// for 0 bytes.
    pub fn populated(file: BorrowedFd<'_>, bytes: usize) -> io::Result<FileMapping> {
        if bytes > isize::MAX as usize {
            return Err(io::Error::from_raw_os_error(libc::ENOMEM));
        }
        let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
        let address =
            unsafe { libc::mmap(ptr::null_mut(), bytes, libc::PROT_READ, flags, file.as_raw_fd(), 0) };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        NonNull::new(address)
            .map(|address| FileMapping { address, bytes })
            .ok_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM))
    }

    /// Number of bytes mapped.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// `range` as a system call takes it, cut to what is mapped. The pointer is for the kernel: it is good for as long
    /// as the mapping lives, and what it points to may vanish at any time.
    pub(super) fn piece(&self, range: Range<usize>) -> libc::iovec {
        let end = range.end.min(self.bytes);
        let start = range.start.min(end);
        // SAFETY: `start` is at most `bytes`, which is the length of the mapping.
        let iov_base = unsafe { self.address.as_ptr().byte_add(start) };
        libc::iovec { iov_base, iov_len: end - start }
    }
}

impl Drop for FileMapping {
    fn drop(&mut self) {
        // SAFETY: the range is the one that was mapped; no reference into it was ever made.
        let result = unsafe { libc::munmap(self.address.as_ptr(), self.bytes) };
        debug_assert_eq!(result, 0, "munmap of a mapping that we made");
    }
}

// SAFETY: the pages are not tied to the thread that mapped them, and nothing in the process reads or writes them.
unsafe impl Send for FileMapping {}

// SAFETY: a shared reference gives an address and a length.
unsafe impl Sync for FileMapping {}

impl fmt::Debug for FileMapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileMapping").field("bytes", &self.bytes).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::socket::{Pieces, send_pieces};
    use std::{
        fs::OpenOptions,
        io::{Read as _, Write as _},
        os::{fd::AsFd as _, unix::net::UnixStream},
    };

    fn file(bytes: &[u8]) -> (tempfile::TempDir, std::fs::File) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let mut file = OpenOptions::new().read(true).write(true).create_new(true).open(path).unwrap();
        file.write_all(bytes).unwrap();
        (folder, file)
    }

    /// Sends a part of a mapping behind a head and gives what arrived.
    fn sent(mapping: &FileMapping, range: Range<usize>) -> io::Result<Vec<u8>> {
        let (one, mut other) = UnixStream::pair().unwrap();
        let mut pieces = Pieces::empty();
        pieces.push(b"head:");
        pieces.push_mapped(mapping, range);
        let count = send_pieces(one.as_fd(), &pieces, false)?;
        drop(one);
        let mut bytes = Vec::new();
        other.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len(), count);
        Ok(bytes)
    }

    #[test]
    fn parts_are_sent_and_never_more_than_is_mapped() {
        let (_folder, file) = file(b"0123456789");
        let mapping = FileMapping::populated(file.as_fd(), 10).unwrap();
        assert_eq!(sent(&mapping, 0..10).unwrap(), b"head:0123456789");
        assert_eq!(sent(&mapping, 3..5).unwrap(), b"head:34");
        assert_eq!(sent(&mapping, 8..99).unwrap(), b"head:89");
        assert_eq!(sent(&mapping, 10..11).unwrap(), b"head:");
        assert_eq!(sent(&mapping, 99..100).unwrap(), b"head:");
    }

    #[test]
    fn what_was_cut_off_is_an_error_and_no_signal() {
        let (_folder, file) = file(&[7; 8192]);
        let mapping = FileMapping::populated(file.as_fd(), 8192).unwrap();
        file.set_len(4000).unwrap();
        // Within the page the kernel gives zeros: whoever sends must ask whether the file has changed.
        assert_eq!(sent(&mapping, 3999..4002).unwrap(), b"head:\x07\0\0");
        file.set_len(0).unwrap();
        let (one, _other) = UnixStream::pair().unwrap();
        let mut pieces = Pieces::empty();
        pieces.push_mapped(&mapping, 0..100);
        let error = send_pieces(one.as_fd(), &pieces, false).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EFAULT));
    }

    #[test]
    fn refuses_nothing_and_what_cannot_be_mapped() {
        let (_folder, file) = file(b"abc");
        let errno = |result: io::Result<FileMapping>| result.unwrap_err().raw_os_error();
        assert_eq!(errno(FileMapping::populated(file.as_fd(), 0)), Some(libc::EINVAL));
        assert_eq!(errno(FileMapping::populated(file.as_fd(), usize::MAX)), Some(libc::ENOMEM));
        let (reader, _writer) = io::pipe().unwrap();
        assert_eq!(errno(FileMapping::populated(reader.as_fd(), 1)), Some(libc::ENODEV));
    }
}
