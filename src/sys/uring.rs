//! What the executor needs of the kernel, asked before it is made: it panics, prints or exits where this
//! returns an error that says what to change.

use std::{
    io,
    mem::MaybeUninit,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use super::{check, rlimit};
use crate::error::{Error, ErrorKind, Result};

/// Bytes that must be lockable: the executor refuses to start below.
const MEMLOCK_MIN_BYTES: u64 = 512 * 1024;

/// `IORING_REGISTER_PROBE` of io_uring_register(2).
const REGISTER_PROBE: libc::c_uint = 8;
/// `IO_URING_OP_SUPPORTED`.
const OP_SUPPORTED: u16 = 1;

/// The operations that the executor checks for, by their numbers in `linux/io_uring.h`.
const OPERATIONS: [(u8, &str); 23] = [
    (0, "NOP"),
    (1, "READV"),
    (2, "WRITEV"),
    (3, "FSYNC"),
    (4, "READ_FIXED"),
    (5, "WRITE_FIXED"),
    (6, "POLL_ADD"),
    (7, "POLL_REMOVE"),
    (9, "SENDMSG"),
    (10, "RECVMSG"),
    (11, "TIMEOUT"),
    (12, "TIMEOUT_REMOVE"),
    (13, "ACCEPT"),
    (15, "LINK_TIMEOUT"),
    (16, "CONNECT"),
    (17, "FALLOCATE"),
    (18, "OPENAT"),
    (19, "CLOSE"),
    (21, "STATX"),
    (22, "READ"),
    (23, "WRITE"),
    (26, "SEND"),
    (27, "RECV"),
];

/// `struct io_uring_params`, of which only the size matters here.
#[repr(C)]
struct Params([u32; 30]);

/// `struct io_uring_probe` with room for every operation number.
#[repr(C)]
struct Probe {
    last_op: u8,
    ops_len: u8,
    reserved: u16,
    reserved2: [u32; 3],
    ops: [ProbeOp; 256],
}

#[derive(Clone, Copy)]
#[repr(C)]
struct ProbeOp {
    op: u8,
    reserved: u8,
    flags: u16,
    reserved2: u32,
}

/// Checks io_uring, each operation the executor wants, `openat2` and `RLIMIT_MEMLOCK`.
///
/// Fails with [`ErrorKind::Unsupported`] naming the setting and the remedy. Makes and closes one small ring. To be
/// called on a thread that ends soon after: the kernel winds a ring down later and interrupts the thread that made it
/// once more (`EINTR` from whatever it waits for then), which must not be one of the host's.
pub fn preflight() -> Result<()> {
    let memlock = rlimit::memlock().map_err(|error| Error::io("cannot read RLIMIT_MEMLOCK", &error))?;
    if memlock.soft < MEMLOCK_MIN_BYTES {
        return Err(unsupported(format!(
            "RLIMIT_MEMLOCK is {} bytes and io_uring needs {MEMLOCK_MIN_BYTES}: raise it (ulimit -l, \
             LimitMEMLOCK= of systemd, --ulimit memlock= of a container)",
            memlock.soft
        )));
    }
    probe()?;
    if !super::open::openat2_supported() {
        return Err(unsupported(
            "openat2(2) is refused: Linux 5.6 or newer is needed, and a seccomp profile must allow it"
                .to_owned(),
        ));
    }
    Ok(())
}

/// Makes a ring and asks it for each operation.
fn probe() -> Result<()> {
    let ring = setup().map_err(|error| refused(&error))?;
    enter(&ring).map_err(|error| refused(&error))?;
    let missing = missing_operations(&ring).map_err(|error| {
        Error::sys(
            ErrorKind::Unsupported,
            "the kernel does not answer an io_uring probe (Linux 5.8 or newer \
                   is needed)",
            &error,
        )
    })?;
    if !missing.is_empty() {
        return Err(unsupported(format!(
            "this kernel's io_uring lacks {}: Linux 5.8 or newer is needed",
            missing.join(", ")
        )));
    }
    Ok(())
}

fn unsupported(message: String) -> Error {
    Error::new(ErrorKind::Unsupported, message)
}

fn refused(error: &io::Error) -> Error {
    let remedy = match error.raw_os_error() {
        Some(libc::ENOSYS) => {
            "the kernel has no io_uring or a seccomp profile hides it: Linux 5.8 or newer is needed, and a \
             container must allow io_uring_setup, io_uring_enter and io_uring_register"
        }
        Some(libc::EPERM | libc::EACCES) => {
            "io_uring is forbidden: set the sysctl kernel.io_uring_disabled to 0, or let the container's seccomp \
             profile allow io_uring_setup, io_uring_enter and io_uring_register"
        }
        Some(libc::ENOMEM) => "not enough lockable memory: raise RLIMIT_MEMLOCK (ulimit -l)",
        Some(libc::EMFILE | libc::ENFILE) => "no descriptor left: raise RLIMIT_NOFILE (ulimit -n)",
        _ => "io_uring_setup(2) or io_uring_enter(2) failed",
    };
    Error::sys(ErrorKind::Unsupported, remedy, error)
}

fn setup() -> io::Result<OwnedFd> {
    let mut params = Params([0; 30]);
    // SAFETY: the structure has the kernel's size (120 bytes), is zeroed, and lives for the call.
    let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 2, &raw mut params) };
    let fd = check(libc::c_int::try_from(fd).unwrap_or(-1))?;
    // SAFETY: the kernel has just given us this descriptor and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Enters the ring with nothing to do: a seccomp profile may allow its setup and refuse its use.
fn enter(ring: &OwnedFd) -> io::Result<()> {
    let none = std::ptr::null::<u8>();
    // SAFETY: nothing is submitted or waited for, and no signal mask is passed.
    let result = unsafe { libc::syscall(libc::SYS_io_uring_enter, ring.as_raw_fd(), 0, 0, 0, none, 0_usize) };
    check(libc::c_int::try_from(result).unwrap_or(-1))?;
    Ok(())
}

fn missing_operations(ring: &OwnedFd) -> io::Result<Vec<&'static str>> {
    let mut probe = Box::new(MaybeUninit::<Probe>::zeroed());
    // SAFETY: the structure is zeroed as the call demands, has room for 256 operations, and lives for it.
    let result = unsafe {
        libc::syscall(libc::SYS_io_uring_register, ring.as_raw_fd(), REGISTER_PROBE, probe.as_mut_ptr(), 256)
    };
    check(libc::c_int::try_from(result).unwrap_or(-1))?;
    // SAFETY: plain integers, for which zeros and whatever the kernel wrote are valid.
    let probe = unsafe { probe.assume_init_ref() };
    let supported = |number: u8| {
        probe.ops[..usize::from(probe.ops_len)]
            .iter()
            .any(|entry| entry.op == number && entry.flags & OP_SUPPORTED != 0)
    };
    Ok(OPERATIONS.iter().filter(|(number, _)| !supported(*number)).map(|(_, name)| *name).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_passes() {
        preflight().unwrap();
    }

    #[test]
    fn refusals_name_the_setting() {
        let text = |errno| refused(&io::Error::from_raw_os_error(errno)).to_string();
        assert!(text(libc::EPERM).contains("kernel.io_uring_disabled"));
        assert!(text(libc::ENOSYS).contains("seccomp"));
        assert!(text(libc::ENOMEM).contains("RLIMIT_MEMLOCK"));
    }

    #[test]
    fn structures_have_the_kernels_size() {
        assert_eq!(size_of::<Params>(), 120);
        assert_eq!(size_of::<Probe>(), 16 + 256 * 8);
    }
}
