//! Threads of ours: named, with every signal blocked that is the host's business.

use std::{
    ffi::CStr,
    io,
    mem::MaybeUninit,
    os::unix::thread::JoinHandleExt,
    thread::{self, JoinHandle},
};

/// Signals left open so that the host's crash handlers still run on our threads.
const FAULTS: [libc::c_int; 5] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP];

/// Starts a thread whose first act is to block all signals but the faults. Threads it starts inherit that.
///
/// `name` is cut to 15 bytes by the kernel (pthread_setname_np(3)).
pub fn spawn<F, T>(name: &str, body: F) -> io::Result<JoinHandle<T>>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        block_signals();
        body()
    })
}

/// Binds the calling thread to one core of those it may use: the `index`th, counted round.
pub fn pin(index: usize) -> io::Result<()> {
    let cores = super::cpu::allowed()?;
    if cores.is_empty() {
        return Ok(());
    }
    let core = cores[index % cores.len()];
    // SAFETY: a cpu_set_t is a plain bit array for which all zeros is the empty set.
    let mut set = unsafe { MaybeUninit::<libc::cpu_set_t>::zeroed().assume_init() };
    // SAFETY: `core` came from a set of the same size, so it is in bounds.
    unsafe { libc::CPU_SET(core, &mut set) };
    // SAFETY: the set lives for the call; 0 is the calling thread.
    super::check(unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) })?;
    Ok(())
}

/// The name the kernel knows the calling thread by.
pub fn current_name() -> Option<String> {
    Some(std::fs::read_to_string("/proc/thread-self/comm").ok()?.trim_end().to_owned())
}

/// Whether a thread is the calling one. Asks the kernel's name for it: `std::thread::current` would leave a
/// thread-local with a destructor on a thread of the host's.
pub fn is_current(thread: &JoinHandle<()>) -> bool {
    // SAFETY: has no preconditions.
    let own = unsafe { libc::pthread_self() };
    thread.as_pthread_t() == own
}

/// Gives the calling thread another name, of at most 15 bytes, which threads it starts inherit (prctl(2)).
pub fn set_current_name(name: &CStr) {
    // SAFETY: the string ends in a NUL and lives for the call, which copies it.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
}

/// Whether the calling process is still the one that `pid` was read in: false in a child after `fork`.
pub fn same_process(pid: u32) -> bool {
    std::process::id() == pid
}

fn block_signals() {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigfillset initialises the set it is given.
    unsafe { libc::sigfillset(set.as_mut_ptr()) };
    // SAFETY: initialised by the call above.
    let mut set = unsafe { set.assume_init() };
    for signal in FAULTS {
        // SAFETY: an initialised set and a valid signal number.
        unsafe { libc::sigdelset(&raw mut set, signal) };
    }
    // SAFETY: an initialised set; the old mask is not asked for. Only the calling thread changes.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_signals_on_its_thread_alone() {
        let (sender, receiver) = std::sync::mpsc::channel();
        let thread = spawn("signals", move || {
            sender.send(std::fs::read_to_string("/proc/thread-self/status").unwrap()).unwrap();
        })
        .unwrap();
        thread.join().unwrap();
        let blocked = |status: &str| {
            let line = status.lines().find(|line| line.starts_with("SigBlk:")).unwrap().to_owned();
            u64::from_str_radix(line["SigBlk:".len()..].trim(), 16).unwrap()
        };
        let theirs = blocked(&receiver.recv().unwrap());
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGUSR1, libc::SIGPIPE] {
            assert_ne!(theirs & (1 << (signal - 1)), 0, "signal {signal} is open");
        }
        for signal in FAULTS {
            assert_eq!(theirs & (1 << (signal - 1)), 0, "signal {signal} is blocked");
        }
        let ours = blocked(&std::fs::read_to_string("/proc/thread-self/status").unwrap());
        assert_eq!(ours & (1 << (libc::SIGTERM - 1)), 0);
    }
}
