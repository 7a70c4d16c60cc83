//! Reads of a file that is not in the page cache: through the executor's io_uring, past the cache where the
//! file system allows it (`O_DIRECT`), buffered where it does not.
//!
//! The duplicate is a new open file (through /proc/self/fd), so the flags of the original are untouched and the
//! path is not resolved again.

use std::{io, os::fd::BorrowedFd};

use glommio::io::{BufferedFile, ReadResult};

use crate::sys::descriptors;

/// Direct reads begin and end on multiples of this many bytes: what every block device here accepts.
const ALIGNMENT_BYTES: u64 = 4096;

/// A file opened for reads by the executor. End it with [`FileReader::close`]: dropping it leaks a descriptor
/// until the executor polls again.
#[derive(Debug)]
pub struct FileReader {
    file: BufferedFile,
    direct: bool,
}

/// Bytes that were read, in a buffer of the executor's.
#[derive(Debug)]
pub struct Chunk {
    bytes: ReadResult,
    start: usize,
    end: usize,
}

impl Chunk {
    /// What is left of it.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Bytes of memory that it keeps: all that was read.
    pub fn held_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Forgets the first `count` bytes.
    pub fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
    }
}

impl FileReader {
    /// Opens the same file again, with `O_DIRECT` if the file system takes it. Does not touch storage.
    pub fn open(file: BorrowedFd<'_>) -> io::Result<Self> {
        match descriptors::reopen(file, true) {
            Ok(fd) => Ok(FileReader { file: descriptors::give(fd), direct: true }),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => FileReader::open_buffered(file),
            Err(error) => Err(error),
        }
    }

    /// Opens the same file again, without `O_DIRECT`.
    pub fn open_buffered(file: BorrowedFd<'_>) -> io::Result<Self> {
        Ok(FileReader { file: descriptors::give(descriptors::reopen(file, false)?), direct: false })
    }

    /// Whether reads bypass the page cache.
    pub fn is_direct(&self) -> bool {
        self.direct
    }

    /// Reads up to `length` bytes at `offset`; an empty chunk is the file's end. A direct read is widened to
    /// aligned bounds and cut back.
    pub async fn read(&self, offset: u64, length: usize) -> io::Result<Chunk> {
        let (begin, size) = if self.direct {
            let begin = offset - offset % ALIGNMENT_BYTES;
            let end = (offset + length as u64).next_multiple_of(ALIGNMENT_BYTES);
            (begin, usize::try_from(end - begin).unwrap_or(usize::MAX))
        } else {
            (offset, length)
        };
        let bytes = self.file.read_at(begin, size).await.map_err(io::Error::from)?;
        let start = usize::try_from(offset - begin).unwrap_or(usize::MAX).min(bytes.len());
        let end = (start + length).min(bytes.len());
        Ok(Chunk { bytes, start, end })
    }

    /// Closes the file through the executor.
    pub async fn close(self) {
        // close(2) on a file that was only read has nothing to report.
        let _ = self.file.close().await;
    }
}
