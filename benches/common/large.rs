//! A file too large to be read by the way, out of the page cache, and a way to receive it without keeping it.

use std::{
    fs::{self, File},
    io::{self, Write},
    net::TcpStream,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
};

use super::{Outcome, probe::SMALL_FILE};

/// Makes the folder `site` with the probe's small file and a large one of `bytes` bytes, and returns the large one.
///
/// # Errors
/// What cannot be written.
pub fn make_site(site: &Path, bytes: u64) -> Outcome<PathBuf> {
    fs::create_dir(site).map_err(|error| format!("cannot make a folder: {error}"))?;
    fs::write(site.join(SMALL_FILE.0), SMALL_FILE.1)
        .map_err(|error| format!("cannot write a file: {error}"))?;
    let large = site.join("large.bin");
    write_large(&large, bytes).map_err(|error| format!("cannot write {}: {error}", large.display()))?;
    Ok(large)
}

/// Writes `bytes` bytes that are no hole, and waits until they are on the disk.
fn write_large(path: &Path, bytes: u64) -> io::Result<()> {
    let mut file = File::create(path)?;
    let piece: Vec<u8> = (0..1 << 20_u32).map(|index| (index % 251) as u8).collect();
    let mut left = bytes;
    while left > 0 {
        let size = left.min(piece.len() as u64) as usize;
        file.write_all(&piece[..size])?;
        left -= size as u64;
    }
    file.sync_all()
}

/// Drops `path` from the page cache; answers with the share that stayed.
pub fn make_cold(path: &Path) -> io::Result<f64> {
    let file = File::open(path)?;
    file.sync_all()?;
    // SAFETY: posix_fadvise touches no memory; 0 and 0 are the whole file.
    let error = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    if error != 0 {
        return Err(io::Error::from_raw_os_error(error));
    }
    resident_share(path)
}

/// The share of the file's pages that are in the page cache, 0 to 1 (mincore(2) of a mapping that is never
/// read).
pub fn resident_share(path: &Path) -> io::Result<f64> {
    let file = File::open(path)?;
    let length = file.metadata()?.len() as usize;
    // SAFETY: sysconf reads a constant and has no preconditions.
    let page_bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
    let mut pages = vec![0_u8; length.div_ceil(page_bytes)];
    let any = std::ptr::null_mut();
    // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
    let map = unsafe { libc::mmap(any, length, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), 0) };
    if map == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the mapping has `length` bytes and `pages` a byte for each page of it.
    let failed = unsafe { libc::mincore(map, length, pages.as_mut_ptr()) } != 0;
    let error = io::Error::last_os_error();
    // SAFETY: the mapping was made above, has this length, and no reference into it exists.
    unsafe { libc::munmap(map, length) };
    if failed {
        return Err(error);
    }
    Ok(pages.iter().filter(|page| **page & 1 == 1).count() as f64 / pages.len() as f64)
}

/// Receives up to `room` bytes and throws them away inside the kernel (`MSG_TRUNC`, tcp(7)), so that copying them slows
/// nobody; 0 is the end.
pub fn receive_nowhere(stream: &TcpStream, room: usize) -> io::Result<usize> {
    let nowhere = std::ptr::null_mut();
    // SAFETY: with MSG_TRUNC a TCP socket drops the bytes and writes nothing to the buffer.
    let count = unsafe { libc::recv(stream.as_raw_fd(), nowhere, room, libc::MSG_TRUNC) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}
