//! Opening files below a folder, and asking about them: `openat2`, `fstat`, `preadv2`, `cachestat`, `posix_fadvise`.
//!
//! Each function is one system call (or a bounded number of tries of one) with a safe signature. Nothing here knows
//! about HTTP, decodes a path or keeps state, and nothing opens a file outside the folder it is given.

use std::{
    ffi::c_int,
    io,
    mem::{MaybeUninit, size_of},
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

/// Longest path that [`openat2`] takes, in bytes: `PATH_MAX` without its NUL.
pub const PATH_BYTES_MAX: usize = 4095;

/// Bytes read at once by [`populate`].
const POPULATE_BYTES: usize = 128 << 10;

/// Tries of one `openat2` before its `EINTR` or `EAGAIN` is handed to the caller.
const OPEN_TRIES_MAX: u32 = 8;

/// `cachestat(2)` has this number on every architecture that Rust's standard library supports.
const SYS_CACHESTAT: libc::c_long = 451;

/// Whether resolving a path may wait for a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// Only what the kernel has in memory (`RESOLVE_CACHED`, Linux 5.12): never blocks, `EAGAIN` when it would have
    /// to, `EINVAL` on an older kernel.
    Cached,
    /// As long as the file system needs.
    Blocking,
}

/// What `fstat(2)` says about an open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStat {
    /// Device of the file system.
    pub dev: u64,
    /// Inode number, unique on `dev` while the file exists.
    pub ino: u64,
    /// Length in bytes; 0 for what has none.
    pub size: u64,
    /// Last modification, nanoseconds since 1970; negative before.
    pub mtime_ns: i128,
    /// What kind of file it is.
    pub kind: FileKind,
    /// Permission bits, `0o7777` at most.
    pub mode: u32,
}

/// The kinds of file that serving tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// Has a length and can be read at an offset.
    Regular,
    /// A folder.
    Directory,
    /// FIFO, socket, device: never served.
    Other,
}

/// Whether a range of a file can be read without waiting for a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Residency {
    /// In the page cache a moment ago.
    Resident,
    /// Not there, being read at this moment, or the file system cannot tell.
    Cold,
}

/// `struct cachestat_range` of `<linux/mman.h>`.
#[repr(C)]
struct CacheRange {
    offset: u64,
    length: u64,
}

/// `struct cachestat` of `<linux/mman.h>`; counts are pages.
#[repr(C)]
#[derive(Default)]
struct CacheCounts {
    cached: u64,
    dirty: u64,
    writeback: u64,
    evicted: u64,
    recently_evicted: u64,
}

impl FileStat {
    /// Whether both describe the same version of the same file: device, inode, size and modification time.
    pub fn same_version(&self, other: &FileStat) -> bool {
        self.dev == other.dev
            && self.ino == other.ino
            && self.size == other.size
            && self.mtime_ns == other.mtime_ns
    }
}

/// Opens `path` below `dir`, read-only, close-on-exec, without blocking on a FIFO and without taking a terminal;
/// `extra_flags` (for instance `O_DIRECT`) are added to those.
///
/// `path` is relative, without NUL, at most [`PATH_BYTES_MAX`] bytes. The kernel keeps the resolution below `dir`
/// (`RESOLVE_BENEATH`): `..`, an absolute path or a symbolic link that leads out gives `EXDEV`, and so does an absolute
/// link that would lead back in; `/proc`'s magic links give `ELOOP`. See `openat2(2)`.
///
/// # Errors
/// `EINVAL` for a NUL and `ENAMETOOLONG` for a longer path, without a system call; else those of `openat2(2)`.
/// `EAGAIN` means "would block" with [`Lookup::Cached`] and is returned at once. With [`Lookup::Blocking`] it means
/// that a rename raced with a `..` in a link, or that another process holds a lease on the file: it is tried again,
/// as is `EINTR`, 8 times in all, and then returned.
pub fn openat2(dir: BorrowedFd<'_>, path: &[u8], lookup: Lookup, extra_flags: c_int) -> io::Result<OwnedFd> {
    let flags = libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY | extra_flags;
    resolve(dir, path, lookup, flags)
}

/// Finds `path` below `dir` without opening it (`O_PATH`), as [`openat2`] would with patience: the descriptor is good
/// for [`stat`] alone, asks for no permission to read, and has no effect on a FIFO or a device.
///
/// # Errors
/// Those of [`openat2`].
pub fn find(dir: BorrowedFd<'_>, path: &[u8]) -> io::Result<OwnedFd> {
    resolve(dir, path, Lookup::Blocking, libc::O_PATH | libc::O_CLOEXEC)
}

fn resolve(dir: BorrowedFd<'_>, path: &[u8], lookup: Lookup, flags: c_int) -> io::Result<OwnedFd> {
    if path.len() > PATH_BYTES_MAX {
        return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
    }
    if path.contains(&0) {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let mut terminated = [0u8; PATH_BYTES_MAX + 1];
    terminated[..path.len()].copy_from_slice(path);

    let mut resolve = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_MAGICLINKS;
    if lookup == Lookup::Cached {
        resolve |= libc::RESOLVE_CACHED;
    }
    // SAFETY: `open_how` is three integers, for which all zeros is a valid value.
    let mut how: libc::open_how = unsafe { MaybeUninit::zeroed().assume_init() };
    how.flags = u64::from(flags.cast_unsigned());
    how.resolve = resolve;

    let mut tries = 0;
    loop {
        tries += 1;
        // SAFETY: `terminated` ends in a NUL, since it is one byte longer than the longest path and was zeroed; both
        // pointers are read only and outlive the call, and the size is that of the structure pointed to.
        let returned = unsafe {
            libc::syscall(
                libc::SYS_openat2,
                dir.as_raw_fd(),
                terminated.as_ptr(),
                &raw const how,
                size_of::<libc::open_how>(),
            )
        };
        if returned >= 0 {
            let fd = RawFd::try_from(returned).map_err(io::Error::other)?;
            // SAFETY: the kernel just made this descriptor for us; nothing else owns it.
            return Ok(unsafe { OwnedFd::from_raw_fd(fd) });
        }
        let error = io::Error::last_os_error();
        let again = match error.raw_os_error() {
            Some(libc::EINTR) => true,
            Some(libc::EAGAIN) => lookup == Lookup::Blocking,
            _ => false,
        };
        if !again || tries >= OPEN_TRIES_MAX {
            return Err(error);
        }
    }
}

/// Whether this process may call `openat2` (Linux 5.6; container runtimes can refuse it). Opens nothing: the call is
/// made with a structure of size 0, which a kernel that has it answers with `EINVAL`.
pub fn openat2_supported() -> bool {
    let none = std::ptr::null::<u8>();
    // SAFETY: the size 0 makes the kernel return before it looks at either pointer.
    let returned = unsafe { libc::syscall(libc::SYS_openat2, libc::AT_FDCWD, none, none, 0usize) };
    returned == -1 && io::Error::last_os_error().raw_os_error() == Some(libc::EINVAL)
}

/// `fstat(2)`. Does not block on local file systems.
///
/// # Errors
/// Those of `fstat(2)`; on a local file system none for an open descriptor.
pub fn stat(fd: BorrowedFd<'_>) -> io::Result<FileStat> {
    let mut buffer = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: the pointer is valid for writing one `stat`, and the kernel writes no more.
    let returned = unsafe { libc::fstat(fd.as_raw_fd(), buffer.as_mut_ptr()) };
    if returned != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fstat` returned 0, so it filled the structure.
    let stat = unsafe { buffer.assume_init() };
    let kind = match stat.st_mode & libc::S_IFMT {
        libc::S_IFREG => FileKind::Regular,
        libc::S_IFDIR => FileKind::Directory,
        _ => FileKind::Other,
    };
    Ok(FileStat {
        dev: stat.st_dev,
        ino: stat.st_ino,
        size: u64::try_from(stat.st_size).unwrap_or(0),
        mtime_ns: i128::from(stat.st_mtime) * 1_000_000_000 + i128::from(stat.st_mtime_nsec),
        kind,
        mode: stat.st_mode & 0o7777,
    })
}

/// Reads at `offset` from the page cache only (`preadv2(2)` with `RWF_NOWAIT`). Returns the bytes read, fewer than
/// asked at the end of the file or of what is in memory; 0 at or past the end.
///
/// # Errors
/// `EAGAIN`: not in memory, reading would block. `EOPNOTSUPP`: the file system cannot promise that, so treat the file
/// as cold. `EINTR` is tried again.
pub fn read_nowait(fd: BorrowedFd<'_>, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let offset = file_offset(offset)?;
    let part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    retry_interrupted(|| {
        // SAFETY: the one `iovec` describes `buffer`, which is borrowed mutably until the call returns.
        unsafe { libc::preadv2(fd.as_raw_fd(), &raw const part, 1, offset, libc::RWF_NOWAIT) }
    })
}

/// Reads at `offset`, waiting for the disk when it must. Returns the bytes read; 0 at or past the end.
///
/// # Errors
/// Those of `pread(2)`; `EINTR` is tried again.
pub fn pread(fd: BorrowedFd<'_>, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let offset = file_offset(offset)?;
    retry_interrupted(|| {
        // SAFETY: pointer and length are those of `buffer`, which is borrowed mutably until the call returns.
        unsafe { libc::pread(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), offset) }
    })
}

/// Whether `length` bytes from `offset` can be sent without waiting for a disk. Keep the range inside the file: pages
/// past its end count as missing. A range of 0 bytes is resident.
///
/// Three calls, about a microsecond: a read of one byte at each end, since pages that read-ahead has queued are
/// counted as cached although reading them would wait; then `cachestat(2)` (Linux 6.5) for holes in between. Newer
/// kernels answer that only to who owns or may write the file: where it is refused, both ends decide alone. On a file
/// system without such reads (tmpfs, NFS) the pages counted decide alone, and without either the file is cold, as all
/// files of overlayfs are: its pages belong to the layer below.
///
/// An error of any other kind is `Cold` too: the slower way meets it again and reports it. The answer may be out of
/// date at once; it is a choice of means, never of correctness.
pub fn resident(fd: BorrowedFd<'_>, offset: u64, length: u64) -> Residency {
    if length == 0 {
        return Residency::Resident;
    }
    let last = offset.saturating_add(length - 1);
    let mut byte = [0u8; 1];
    let ends = read_nowait(fd, &mut byte, offset).and_then(|_| read_nowait(fd, &mut byte, last));
    let ends_known = match ends.map_err(|error| error.raw_os_error()) {
        Ok(_) => true,
        Err(Some(libc::EOPNOTSUPP)) => false,
        Err(_) => return Residency::Cold,
    };
    let is_resident = match cached_pages(fd, offset, length) {
        Ok(pages) => {
            let page_bytes = page_bytes() as u64;
            pages > last / page_bytes - offset / page_bytes
        }
        Err(error) => ends_known && matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)),
    };
    if is_resident { Residency::Resident } else { Residency::Cold }
}

/// Asks the kernel to start reading `length` bytes from `offset` (`POSIX_FADV_WILLNEED`). Advice: errors are ignored.
/// It queues the reads and returns, but may wait for a slot in a full device queue, so a shard asks for little.
pub fn will_need(fd: BorrowedFd<'_>, offset: u64, length: u64) {
    if length == 0 {
        // To the kernel 0 means the whole rest.
        return;
    }
    let (Ok(offset), Ok(length)) = (file_offset(offset), file_offset(length)) else { return };
    // SAFETY: takes integers only; a wrong range is an error return.
    let _ = unsafe { libc::posix_fadvise(fd.as_raw_fd(), offset, length, libc::POSIX_FADV_WILLNEED) };
}

/// Reads `offset..end` into the page cache, unless it is there, and waits for it. For a thread that may block; errors end
/// it early, and whoever sends the range meets them again.
///
/// The reads are queued together first: the kernel's own read-ahead goes by the descriptor, and loses its way where many
/// responses share one.
pub fn populate(fd: BorrowedFd<'_>, offset: u64, end: u64) {
    if resident(fd, offset, end.saturating_sub(offset)) == Residency::Resident {
        return;
    }
    will_need(fd, offset, end.saturating_sub(offset));
    let mut bytes = vec![0; POPULATE_BYTES];
    let mut position = offset;
    while position < end {
        match pread(fd, &mut bytes, position) {
            Ok(count) if count > 0 => position += count as u64,
            _ => return,
        }
    }
}

/// Pages of the range that are in the page cache, ready or not.
fn cached_pages(fd: BorrowedFd<'_>, offset: u64, length: u64) -> io::Result<u64> {
    let range = CacheRange { offset, length };
    let mut counts = CacheCounts::default();
    // SAFETY: both structures have the kernel's layout and outlive the call; it reads one and writes the other.
    let returned = unsafe {
        libc::syscall(SYS_CACHESTAT, fd.as_raw_fd(), &raw const range, &raw mut counts, 0 as libc::c_uint)
    };
    if returned == 0 { Ok(counts.cached) } else { Err(io::Error::last_os_error()) }
}

/// Size of a page of memory, in bytes; at least 1.
pub fn page_bytes() -> usize {
    // SAFETY: takes an integer, reads a constant of the process.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).unwrap_or(4096).max(1)
}

/// An offset as the kernel takes it: `EINVAL` past 2^63 - 1.
fn file_offset(offset: u64) -> io::Result<i64> {
    i64::try_from(offset).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

/// Repeats a read until it is not interrupted. Our threads block all signals but the fatal ones, so this ends.
fn retry_interrupted(mut read: impl FnMut() -> isize) -> io::Result<usize> {
    loop {
        if let Ok(length) = usize::try_from(read()) {
            return Ok(length);
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EINTR) {
            return Err(error);
        }
    }
}

/// What tests of files need from the system and safe Rust cannot do.
#[cfg(test)]
pub(crate) mod testing {
    use std::{ffi::CString, io, os::unix::ffi::OsStrExt as _, path::Path};

    /// User and group `nobody`.
    const NOBODY: libc::c_long = 65534;

    /// Makes a FIFO that everybody may open.
    pub(crate) fn make_fifo(path: &Path) {
        let path = CString::new(path.as_os_str().as_bytes()).unwrap();
        // SAFETY: the string is NUL-terminated and outlives the call.
        let returned = unsafe { libc::mkfifo(path.as_ptr(), 0o666) };
        assert_eq!(returned, 0, "mkfifo: {}", io::Error::last_os_error());
    }

    /// Runs `work` on a thread of its own that is not root: permissions bind it. The other threads keep their user,
    /// because the bare system call changes the calling thread alone (the C library's function changes all).
    pub(crate) fn as_nobody<T: Send>(work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                // SAFETY: takes no arguments and cannot fail.
                if unsafe { libc::geteuid() } == 0 {
                    // SAFETY: takes integers only and changes this thread, which ends with `work`.
                    let group = unsafe { libc::syscall(libc::SYS_setresgid, NOBODY, NOBODY, NOBODY) };
                    assert_eq!(group, 0, "setresgid: {}", io::Error::last_os_error());
                    // SAFETY: as above.
                    let user = unsafe { libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY) };
                    assert_eq!(user, 0, "setresuid: {}", io::Error::last_os_error());
                }
                work()
            });
            thread.join().unwrap()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs::{self, File},
        io::Write as _,
        os::{fd::AsFd as _, unix::fs::FileExt as _},
    };

    fn folder() -> (tempfile::TempDir, File) {
        let folder = tempfile::tempdir().unwrap();
        let dir = File::open(folder.path()).unwrap();
        (folder, dir)
    }

    fn errno(result: io::Result<OwnedFd>) -> i32 {
        result.unwrap_err().raw_os_error().unwrap()
    }

    #[test]
    fn openat2_is_supported_where_tests_run() {
        assert!(openat2_supported());
    }

    #[test]
    fn opens_below_the_folder_and_nowhere_else() {
        let (folder, dir) = folder();
        fs::create_dir(folder.path().join("sub")).unwrap();
        fs::write(folder.path().join("sub/a"), "abc").unwrap();
        let open = |path: &[u8]| openat2(dir.as_fd(), path, Lookup::Blocking, 0);
        assert!(open(b"sub/a").is_ok());
        assert!(open(b"sub/../sub/a").is_ok());
        assert_eq!(errno(open(b"../x")), libc::EXDEV);
        assert_eq!(errno(open(b"/etc/passwd")), libc::EXDEV);
        assert_eq!(errno(open(b"missing")), libc::ENOENT);
    }

    #[test]
    fn refuses_a_nul_and_a_path_past_the_limit_without_a_call() {
        let (_folder, dir) = folder();
        let open = |path: &[u8]| openat2(dir.as_fd(), path, Lookup::Blocking, 0);
        assert_eq!(errno(open(b"a\0b")), libc::EINVAL);
        // At the limit the kernel is asked, and finds nothing; one past it, it is not.
        let mut path = b"a/".repeat(PATH_BYTES_MAX / 2);
        path.push(b'a');
        assert_eq!(path.len(), PATH_BYTES_MAX);
        assert_eq!(errno(open(&path)), libc::ENOENT);
        path.push(b'a');
        assert_eq!(errno(open(&path)), libc::ENAMETOOLONG);
    }

    #[test]
    fn a_cached_lookup_of_an_unknown_name_would_block() {
        let (_folder, dir) = folder();
        let error = errno(openat2(dir.as_fd(), b"never-seen", Lookup::Cached, 0));
        // A file system may answer from a complete directory in memory.
        assert!(error == libc::EAGAIN || error == libc::ENOENT, "{error}");
    }

    #[test]
    fn the_descriptor_closes_on_exec() {
        let (folder, dir) = folder();
        fs::write(folder.path().join("a"), "").unwrap();
        let fd = openat2(dir.as_fd(), b"a", Lookup::Blocking, 0).unwrap();
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).unwrap();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
        let flags = i32::from_str_radix(flags.trim(), 8).unwrap();
        assert_eq!(flags & libc::O_CLOEXEC, libc::O_CLOEXEC);
        assert_eq!(flags & libc::O_ACCMODE, libc::O_RDONLY);
    }

    #[test]
    fn stat_tells_kind_size_and_time() {
        let (folder, dir) = folder();
        let mut file = File::create(folder.path().join("a")).unwrap();
        file.write_all(b"hello").unwrap();
        let time = std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000_000, 123_456_789);
        file.set_modified(time).unwrap();
        let facts = stat(file.as_fd()).unwrap();
        assert_eq!((facts.kind, facts.size), (FileKind::Regular, 5));
        assert_eq!(facts.mtime_ns, 1_000_000_000_123_456_789);
        assert!(facts.same_version(&facts));
        assert!(!facts.same_version(&FileStat { mtime_ns: facts.mtime_ns + 1, ..facts }));
        assert_eq!(stat(dir.as_fd()).unwrap().kind, FileKind::Directory);
        assert_eq!(stat(File::open("/dev/null").unwrap().as_fd()).unwrap().kind, FileKind::Other);
    }

    #[test]
    fn reads_at_an_offset_and_stops_at_the_end() {
        let (folder, _dir) = folder();
        fs::write(folder.path().join("a"), "hello").unwrap();
        let file = File::open(folder.path().join("a")).unwrap();
        let mut buffer = [0u8; 8];
        assert_eq!(pread(file.as_fd(), &mut buffer, 1).unwrap(), 4);
        assert_eq!(&buffer[..4], b"ello");
        assert_eq!(pread(file.as_fd(), &mut buffer, 5).unwrap(), 0);
        match read_nowait(file.as_fd(), &mut buffer, 2) {
            Ok(length) => assert_eq!(&buffer[..length], b"llo"),
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EOPNOTSUPP)),
        }
        assert_eq!(
            pread(file.as_fd(), &mut buffer, u64::MAX).unwrap_err().raw_os_error(),
            Some(libc::EINVAL)
        );
    }

    /// A file of 300,000 bytes that was just written, or `None` where the file system tells nothing about it.
    fn just_written(folder: &tempfile::TempDir) -> Option<File> {
        let path = folder.path().join("a");
        fs::write(&path, vec![b'x'; 300_000]).unwrap();
        let file = File::open(&path).unwrap();
        match read_nowait(file.as_fd(), &mut [0], 0) {
            Ok(_) => Some(file),
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(libc::EOPNOTSUPP));
                println!("skipped: the file system of {} has no RWF_NOWAIT", folder.path().display());
                None
            }
        }
    }

    #[test]
    fn a_file_just_written_is_resident() {
        let (folder, _dir) = folder();
        let Some(file) = just_written(&folder) else { return };
        will_need(file.as_fd(), 0, 300_000);
        assert_eq!(resident(file.as_fd(), 0, 300_000), Residency::Resident);
        assert_eq!(resident(file.as_fd(), 4095, 2), Residency::Resident);
        assert_eq!(resident(file.as_fd(), 299_999, 1), Residency::Resident);
        assert_eq!(resident(file.as_fd(), 0, 0), Residency::Resident);
    }

    #[test]
    fn residency_of_a_file_that_is_not_ours_is_told_by_its_ends() {
        let (folder, _dir) = folder();
        let Some(file) = just_written(&folder) else { return };
        assert_eq!(testing::as_nobody(|| resident(file.as_fd(), 0, 300_000)), Residency::Resident);
    }

    #[test]
    fn a_file_without_pages_is_cold() {
        let (folder, _dir) = folder();
        let file = File::create_new(folder.path().join("a")).unwrap();
        file.set_len(1 << 20).unwrap();
        let file = File::open(folder.path().join("a")).unwrap();
        assert_eq!(resident(file.as_fd(), 0, 1 << 20), Residency::Cold);
    }

    #[test]
    fn a_pipe_is_cold_and_advice_about_it_ignored() {
        let (reader, _writer) = io::pipe().unwrap();
        assert_eq!(resident(reader.as_fd(), 0, 1), Residency::Cold);
        will_need(reader.as_fd(), 0, 1);
    }

    #[test]
    fn a_hole_between_resident_ends_is_cold() {
        let (folder, _dir) = folder();
        let file = File::create_new(folder.path().join("a")).unwrap();
        let length = 64 << 20;
        file.write_all_at(b"x", 0).unwrap();
        file.write_all_at(b"x", length - 1).unwrap();
        drop(file);
        let file = File::open(folder.path().join("a")).unwrap();
        if let Err(error) = cached_pages(file.as_fd(), 0, length) {
            println!("skipped: this kernel has no cachestat for us ({error})");
            return;
        }
        assert_eq!(resident(file.as_fd(), 0, length), Residency::Cold);
    }
}
