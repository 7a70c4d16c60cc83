//! What these tests need of the system and safe Rust cannot do: a process of their own, limits, another user, files
//! that are not in the page cache, system calls that are refused. It knows nothing about HTTP.

use std::{
    ffi::CString,
    fs::{self, File},
    io::{self, Write},
    mem::size_of,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::chown, process::CommandExt},
    },
    path::Path,
    process::Command,
    sync::{
        OnceLock,
        atomic::{AtomicU8, Ordering},
    },
    time::{Duration, Instant},
};

use crate::harness::PATIENCE;

/// User and group `nobody`.
const NOBODY: libc::c_uint = 65534;
/// A child that takes longer is killed: it hangs.
const CHILD_SECONDS_MAX: libc::c_uint = 120;
/// Length of [`pattern`]: more than what is asked into the page cache after it was found cold.
pub const PATTERN_BYTES: usize = (33 << 20) + 7;

/// Says on stderr, which the test runner does not capture on this way, that something could not be tested here.
pub fn skip(why: &str) {
    let _ = writeln!(io::stderr(), "SKIPPED: {why}");
}

/// Runs an ignored test of this program in a process of its own, and gives what it wrote to stderr.
pub fn in_child(test: &str) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "--ignored", test, "--test-threads=1", "--nocapture"]);
    // SAFETY: between fork and exec only alarm(2) is called, which is async-signal-safe.
    unsafe { command.pre_exec(end_in_time) };
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{test}: {}\n{text}\n{errors}", output.status);
    assert!(text.contains("test result: ok. 1 passed"), "there is no test {test}:\n{text}");
    for line in errors.lines().filter(|line| line.starts_with("SKIPPED")) {
        let _ = writeln!(io::stderr(), "{line}");
    }
    errors.into_owned()
}

/// Has the process killed when it takes too long; a program that it becomes is killed too.
fn end_in_time() -> io::Result<()> {
    // SAFETY: takes an integer only.
    unsafe { libc::alarm(CHILD_SECONDS_MAX) };
    Ok(())
}

/// Open descriptors and threads of this process, for comparing with earlier figures of the same process.
pub fn census() -> (usize, usize) {
    let count = |path| fs::read_dir(path).unwrap().count();
    (count("/proc/self/fd"), count("/proc/self/task"))
}

/// Checks that there is nothing more than at an earlier [`census`]. Descriptors are gone at once; a thread that was
/// joined can be seen for a moment longer.
#[track_caller]
pub fn assert_left_nothing(before: (usize, usize), what: &str) {
    let names = |path: &str| -> Vec<_> {
        let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
        entries
            .map(|path| fs::read_link(&path).map_or_else(|_| comm(&path), |link| link.display().to_string()))
            .collect()
    };
    let (descriptors, _) = census();
    assert_eq!(descriptors, before.0, "descriptors after {what}: {:?}", names("/proc/self/fd"));
    let deadline = Instant::now() + PATIENCE;
    while census().1 != before.1 {
        assert!(Instant::now() < deadline, "threads after {what}: {:?}", names("/proc/self/task"));
        std::thread::yield_now();
    }
}

fn comm(task: &Path) -> String {
    fs::read_to_string(task.join("comm")).unwrap_or_default().trim_end().to_owned()
}

/// Descriptors that this process has open for a file.
pub fn descriptors_of(path: &Path) -> usize {
    let links =
        fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    links.filter(|link| link == path).count()
}

/// Bytes without a period that a mistaken offset could hide behind.
pub fn pattern() -> &'static [u8] {
    static PATTERN: OnceLock<Vec<u8>> = OnceLock::new();
    PATTERN.get_or_init(|| {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut bytes = Vec::with_capacity(PATTERN_BYTES + 8);
        while bytes.len() < PATTERN_BYTES {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            bytes.extend_from_slice(&state.to_le_bytes());
        }
        bytes.truncate(PATTERN_BYTES);
        bytes
    })
}

/// Like `assert_eq!` of two long byte strings, without printing them.
#[track_caller]
pub fn assert_same(what: &str, received: &[u8], wanted: &[u8]) {
    if received == wanted {
        return;
    }
    let differs = received.iter().zip(wanted).position(|(one, other)| one != other);
    panic!("{what}: {} bytes, not {}; first difference at {differs:?}", received.len(), wanted.len());
}

/// Makes this process another user's, all its threads, and these paths too. False when it was not root's.
pub fn become_nobody(own: &[&Path]) -> bool {
    // SAFETY: takes no arguments and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        return false;
    }
    for path in own {
        chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    // SAFETY: an empty list is not read.
    check(unsafe { libc::setgroups(0, std::ptr::null()) });
    // SAFETY: takes integers only.
    check(unsafe { libc::setresgid(NOBODY, NOBODY, NOBODY) });
    // SAFETY: takes integers only.
    check(unsafe { libc::setresuid(NOBODY, NOBODY, NOBODY) });
    true
}

/// A TCP socket over IPv4 that has its descriptor and is not connected yet.
pub struct Unconnected(OwnedFd);

impl Unconnected {
    pub fn new() -> Self {
        // SAFETY: takes integers only.
        let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
        assert!(fd >= 0, "{}", io::Error::last_os_error());
        // SAFETY: the kernel has just given us this descriptor and nobody else knows it.
        Unconnected(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// Connects to a port of 127.0.0.1. Needs no descriptor.
    pub fn connect(self, port: u16) -> TcpStream {
        let address = libc::sockaddr_in {
            sin_family: libc::sa_family_t::try_from(libc::AF_INET).unwrap(),
            sin_port: port.to_be(),
            sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes([127, 0, 0, 1]) },
            sin_zero: [0; 8],
        };
        let length = libc::socklen_t::try_from(size_of::<libc::sockaddr_in>()).unwrap();
        // SAFETY: the address lives for the call and has the size that is passed.
        check(unsafe { libc::connect(self.0.as_raw_fd(), (&raw const address).cast(), length) });
        TcpStream::from(self.0)
    }
}

/// An address of the loopback network that no other test uses, nor a client as its own: what is said about its ports
/// stays true while other tests open some.
pub fn own_address() -> Ipv4Addr {
    static COUNT: AtomicU8 = AtomicU8::new(2);
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    // 127.0/16 is left out: there are the addresses that everybody uses.
    let network = 1 + (high.wrapping_mul(31) ^ middle) % 254;
    Ipv4Addr::new(127, network, low, COUNT.fetch_add(1, Ordering::Relaxed))
}

/// A connection from an address of the loopback network: another client to the server.
pub fn connect_from(source: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let SocketAddr::V4(to) = to else { panic!("{to} is not IPv4") };
    // SAFETY: no pointer is passed.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    assert!(fd >= 0, "{}", io::Error::last_os_error());
    // SAFETY: the kernel has just given us this descriptor and nobody else knows it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let raw = |address: SocketAddrV4| libc::sockaddr_in {
        sin_family: libc::sa_family_t::try_from(libc::AF_INET).unwrap(),
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.ip().octets()) },
        sin_zero: [0; 8],
    };
    let (from, to) = (raw(SocketAddrV4::new(source, 0)), raw(to));
    let length = libc::socklen_t::try_from(size_of::<libc::sockaddr_in>()).unwrap();
    // SAFETY: the address lives for the call and has the length that is told.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const from).cast(), length) });
    // SAFETY: the same.
    check(unsafe { libc::connect(socket.as_raw_fd(), (&raw const to).cast(), length) });
    TcpStream::from(socket)
}

/// Takes every descriptor that this process has left, until it is dropped.
pub fn take_all_descriptors() -> Vec<File> {
    let mut taken = Vec::with_capacity(4096);
    while let Ok(file) = File::open("/dev/null") {
        taken.push(file);
        assert!(taken.len() < 4096, "there is no limit of descriptors");
    }
    taken
}

/// Sets a resource limit of this process.
pub fn set_limit(resource: libc::__rlimit_resource_t, soft: u64, hard: u64) {
    let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
    // SAFETY: the structure lives for the call.
    check(unsafe { libc::setrlimit(resource, &raw const limit) });
}

/// A FIFO that everybody may open.
pub fn make_fifo(path: &Path) {
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    // SAFETY: the string ends in a NUL and outlives the call.
    check(unsafe { libc::mkfifo(path.as_ptr(), 0o666) });
}

/// A device node like /dev/zero, if this user may make one.
pub fn make_device(path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    // SAFETY: the string ends in a NUL and outlives the call.
    match unsafe { libc::mknod(path.as_ptr(), libc::S_IFCHR | 0o666, libc::makedev(1, 5)) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Writes a file below a folder on a real disk and puts its pages out of memory. False, after saying so, when they
/// stay: nothing about cold files can be tested there.
pub fn write_cold(path: &Path, content: &[u8]) -> bool {
    fs::write(path, content).unwrap();
    evict(path)
}

/// Puts a file's pages out of memory; see [`write_cold`].
pub fn evict(path: &Path) -> bool {
    // A busy disk takes its time over what was asked for ahead.
    let deadline = Instant::now() + Duration::from_secs(5);
    let file = File::open(path).unwrap();
    file.sync_all().unwrap();
    while Instant::now() < deadline {
        // SAFETY: takes integers only.
        unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
        if pages_in_memory(&file) == 0 {
            return true;
        }
        // Pages that are being read at this moment stay until they were.
        std::thread::sleep(Duration::from_millis(1));
    }
    skip(&format!("{} stays in memory: its file system has no use for DONTNEED", path.display()));
    false
}

/// Pages of a file in the page cache (mincore(2)), found without touching one.
fn pages_in_memory(file: &File) -> usize {
    let length = usize::try_from(file.metadata().unwrap().len()).unwrap();
    if length == 0 {
        return 0;
    }
    let mut pages = vec![0_u8; length.div_ceil(4096)];
    // SAFETY: a new mapping at an address of the kernel's choice; nothing is read or written through it.
    let start = unsafe {
        libc::mmap(std::ptr::null_mut(), length, libc::PROT_NONE, libc::MAP_SHARED, file.as_raw_fd(), 0)
    };
    assert_ne!(start, libc::MAP_FAILED, "{}", io::Error::last_os_error());
    // SAFETY: the range is the mapping's, and the vector has a byte for each page of it, however large pages are.
    check(unsafe { libc::mincore(start, length, pages.as_mut_ptr()) });
    // SAFETY: the mapping was made above and nobody else knows it.
    check(unsafe { libc::munmap(start, length) });
    pages.iter().filter(|page| **page & 1 != 0).count()
}

/// A folder on the disk that this was built on: the usual one for temporary files may be in memory.
pub fn disk_folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// Bounds what a connection takes in advance, so that a server notices when nobody reads: with its own buffer, which
/// Linux lets grow to 4 MB, some 5 MB are under way at most. Much less would make the transfer itself slow.
pub fn bound_receive_buffer(stream: &TcpStream) {
    let bytes: libc::c_int = 128 << 10;
    let length = libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap();
    // SAFETY: the value lives for the call and has the size that is passed.
    check(unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVBUF,
            (&raw const bytes).cast(),
            length,
        )
    });
}

/// Makes the close of a connection a reset.
pub fn reset_on_close(stream: &TcpStream) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    let length = libc::socklen_t::try_from(size_of::<libc::linger>()).unwrap();
    // SAFETY: the value lives for the call and has the size that is passed.
    check(unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            length,
        )
    });
}

/// Asks something in a child after fork, which then ends at once. The child has this thread alone.
pub fn fork_and_wait(ask: impl FnOnce() -> bool) -> bool {
    // SAFETY: the child calls `ask` and `_exit`; the C library keeps its allocator usable in it.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "{}", io::Error::last_os_error());
    if pid == 0 {
        let code = if ask() { 0 } else { 1 };
        // SAFETY: ends the process without running anything of the parent's.
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    // SAFETY: the integer is written during the call.
    let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    assert_eq!(waited, pid, "{}", io::Error::last_os_error());
    libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
}

/// From now on a system call fails with `errno` on this thread and on those it starts (seccomp(2)).
pub fn refuse_call(number: libc::c_long, errno: libc::c_int) {
    let number = u32::try_from(number).unwrap();
    let step = |code: u32, jt, jf, k| libc::sock_filter { code: u16::try_from(code).unwrap(), jt, jf, k };
    let mut program = [
        // The number of the call is the first word of `struct seccomp_data`.
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, number),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | errno.cast_unsigned()),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog {
        len: libc::c_ushort::try_from(program.len()).unwrap(),
        filter: program.as_mut_ptr(),
    };
    // SAFETY: takes integers only.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) });
    // SAFETY: the program lives for the call, which copies it.
    check(unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) });
}

/// Descriptors that this process may have: now, and at most.
pub fn descriptor_limit() -> (u64, u64) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure is written during the call.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) });
    (limit.rlim_cur, limit.rlim_max)
}

#[track_caller]
fn check(returned: libc::c_int) {
    assert_eq!(returned, 0, "{}", io::Error::last_os_error());
}
