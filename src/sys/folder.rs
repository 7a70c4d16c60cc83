//! Reading the names of a folder: `getdents64`, on a descriptor that is open already.
//!
//! It waits for the disk, so it is for threads that may. It opens nothing and follows nothing.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

/// Bytes of names asked of the kernel at once.
const BUFFER_BYTES: usize = 32 << 10;

/// Where the length of a record, and its name, begin (`struct linux_dirent64`, `getdents64(2)`).
const LENGTH_START: usize = 16;
const NAME_START: usize = 19;

/// The names in a folder, in the order in which the file system has them.
#[derive(Debug)]
pub struct Names {
    folder: OwnedFd,
    buffer: Box<[u8]>,
    filled: usize,
    position: usize,
}

impl Names {
    /// The names in the folder `folder`, which is open for reading.
    pub fn of(folder: OwnedFd) -> Self {
        Names { folder, buffer: vec![0; BUFFER_BYTES].into(), filled: 0, position: 0 }
    }

    /// The next name, `.` and `..` aside; `None` after the last.
    ///
    /// # Errors
    /// Those of `getdents64(2)`.
    pub fn read(&mut self) -> io::Result<Option<&[u8]>> {
        loop {
            if self.position >= self.filled {
                self.filled = self.fill()?;
                self.position = 0;
                if self.filled == 0 {
                    return Ok(None);
                }
            }
            let record = self.position..self.filled;
            let length = match self.buffer[record.clone()].get(LENGTH_START..NAME_START) {
                Some(&[low, high, _]) => usize::from(u16::from_ne_bytes([low, high])),
                _ => 0,
            };
            // The kernel writes whole records; one that is not would keep us here.
            if length <= NAME_START || length > record.len() {
                return Err(io::Error::from_raw_os_error(libc::EIO));
            }
            self.position += length;
            let name = &self.buffer[record.start + NAME_START..record.start + length];
            let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
            if !matches!(&name[..end], b"." | b"..") {
                // Again from the buffer, because the borrow of this turn ends with the loop.
                return Ok(Some(&self.buffer[record.start + NAME_START..][..end]));
            }
        }
    }

    fn fill(&mut self) -> io::Result<usize> {
        // SAFETY: pointer and length are those of the buffer, which is borrowed mutably until the call returns.
        let returned = unsafe {
            libc::syscall(
                libc::SYS_getdents64,
                self.folder.as_raw_fd(),
                self.buffer.as_mut_ptr(),
                self.buffer.len(),
            )
        };
        usize::try_from(returned).map_err(|_| io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs};

    use super::*;

    fn names(folder: &tempfile::TempDir) -> BTreeSet<Vec<u8>> {
        let mut names = Names::of(fs::File::open(folder.path()).unwrap().into());
        let mut all = BTreeSet::new();
        while let Some(name) = names.read().unwrap() {
            assert!(all.insert(name.to_vec()), "a name is read once");
        }
        all
    }

    #[test]
    fn reads_each_name_once_over_many_buffers() {
        let folder = tempfile::tempdir().unwrap();
        assert!(names(&folder).is_empty());
        let wanted: BTreeSet<Vec<u8>> =
            (0..1500).map(|n| format!("{}{n}", "n".repeat(n % 250)).into_bytes()).collect();
        for name in &wanted {
            fs::write(folder.path().join(std::str::from_utf8(name).unwrap()), "").unwrap();
        }
        assert_eq!(names(&folder), wanted);
    }

    #[test]
    fn a_file_has_no_names() {
        let file = tempfile::tempfile().unwrap();
        let error = Names::of(file.into()).read().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOTDIR));
    }
}
