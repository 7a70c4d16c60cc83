//! Looks at the process's own descriptors and threads in /proc: what glommio leaves behind is found by difference.

use std::{
    collections::BTreeSet,
    fs, io,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd},
        unix::fs::OpenOptionsExt,
    },
};

/// The process's blocking eventfds and threads at one moment. Ours do not block (`sys::event`), glommio's do: so
/// those that other shards open and close meanwhile are not taken for its.
#[derive(Debug)]
pub struct Census {
    eventfds: BTreeSet<RawFd>,
    threads: BTreeSet<u32>,
}

impl Census {
    /// Reads /proc/self. Fails where /proc is not mounted.
    pub fn take() -> io::Result<Self> {
        Ok(Census { eventfds: event_descriptors()?, threads: threads()? })
    }

    /// The eventfd that came since `earlier`, if exactly one did: the host may open others meanwhile.
    pub fn new_eventfd(&self, earlier: &Census) -> Option<Leaked> {
        only_new(&earlier.eventfds, &self.eventfds, |_| true).map(Leaked)
    }

    /// The thread that came since `earlier` with the calling thread's name, which a thread inherits until it
    /// is given another; if exactly one did.
    pub fn new_thread(&self, earlier: &Census) -> Option<u32> {
        let own_name = super::thread::current_name()?;
        only_new(&earlier.threads, &self.threads, |&id| thread_name(id).as_ref() == Some(&own_name))
    }
}

/// An eventfd whose owner forgets it instead of closing it.
#[derive(Debug)]
pub struct Leaked(RawFd);

impl Leaked {
    /// Closes it, if it still is an eventfd. To be called once its owner is gone.
    pub fn close(self) {
        let link = fs::read_link(format!("/proc/self/fd/{}", self.0));
        if link.is_ok_and(|link| link.as_os_str() == "anon_inode:[eventfd]") {
            // SAFETY: the descriptor appeared while its owner was made and the owner never closes it, so no
            // OwnedFd for it exists; that it still is an eventfd says that its number was not used again.
            drop(unsafe { OwnedFd::from_raw_fd(self.0) });
        }
    }
}

/// Hands a descriptor to a type that can be made from one and closes it when dropped.
pub fn give<T: FromRawFd>(fd: OwnedFd) -> T {
    // SAFETY: the caller owned the descriptor and gives it away.
    unsafe { T::from_raw_fd(fd.into_raw_fd()) }
}

/// Takes over a descriptor that this process was started with, and makes it close-on-exec.
///
/// # Errors
/// `EBADF` when it is not open or is close-on-exec: what came through an exec is not, and everything opened since by
/// this program, or taken over once, is. A program that opens descriptors another way must not call this.
pub fn inherit(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: takes integers only; a descriptor that is not open is an error return.
    let flags = super::check(unsafe { libc::fcntl(number, libc::F_GETFD) })?;
    if flags & libc::FD_CLOEXEC != 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: as above.
    super::check(unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) })?;
    // SAFETY: it is open and came through the exec, so no OwnedFd for it exists; nor can a second one be made, for
    // it is close-on-exec from now on.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// A duplicate that a program started from here keeps under the same number. To be closed at once after that.
pub fn inheritable(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: takes integers only. Above standard error, which the program may want another.
    let number = super::check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD, 3) })?;
    // SAFETY: the kernel has just given us this descriptor and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Opens the file behind a descriptor once more, for reading, with flags of its own (through /proc/self/fd, so
/// that no path is resolved). `direct` asks for `O_DIRECT`: `EINVAL` where the file system has none.
pub fn reopen(file: BorrowedFd<'_>, direct: bool) -> io::Result<OwnedFd> {
    let flags = libc::O_NOCTTY | libc::O_NONBLOCK | if direct { libc::O_DIRECT } else { 0 };
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(fs::OpenOptions::new().read(true).custom_flags(flags).open(path)?.into())
}

/// Whether a thread of this process still exists.
pub fn thread_exists(id: u32) -> bool {
    fs::exists(format!("/proc/self/task/{id}")).unwrap_or(false)
}

fn event_descriptors() -> io::Result<BTreeSet<RawFd>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        let entry = entry?;
        let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // A descriptor may be gone by now; that is not an error.
        let is_eventfd =
            fs::read_link(entry.path()).is_ok_and(|link| link.as_os_str() == "anon_inode:[eventfd]");
        if is_eventfd && blocks(number) {
            found.insert(number);
        }
    }
    Ok(found)
}

fn blocks(fd: RawFd) -> bool {
    // SAFETY: takes integers only; a descriptor that is gone is an error return.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    flags >= 0 && flags & libc::O_NONBLOCK == 0
}

fn threads() -> io::Result<BTreeSet<u32>> {
    let names = fs::read_dir("/proc/self/task")?;
    Ok(names.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect())
}

fn thread_name(id: u32) -> Option<String> {
    Some(fs::read_to_string(format!("/proc/self/task/{id}/comm")).ok()?.trim_end().to_owned())
}

/// The one element of `after` that is not in `before` and passes, if it is one.
fn only_new<T: Copy + Ord>(
    before: &BTreeSet<T>,
    after: &BTreeSet<T>,
    passes: impl Fn(&T) -> bool,
) -> Option<T> {
    let mut new = after.difference(before).copied().filter(passes);
    let first = new.next();
    if new.next().is_some() { None } else { first }
}
