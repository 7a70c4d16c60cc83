//! Status codes and the caller's error struct. Must not allocate: it also reports to a child after `fork`.

use std::{
    ffi::{CStr, c_char, c_int},
    fmt::{self, Write as _},
    path::Path,
};

use webserver_core::{Error, ErrorKind};

/// Success.
pub const WEBSERVER_OK: c_int = 0;
/// An argument is NULL or can never be right.
pub const WEBSERVER_E_INVALID: c_int = -1;
/// The configuration: its text, a value, or a combination that cannot work.
pub const WEBSERVER_E_CONFIG: c_int = -2;
/// A system call failed; sys_errno of the error struct has its number.
pub const WEBSERVER_E_IO: c_int = -3;
/// A listener's address is in use or is not one of this machine's.
pub const WEBSERVER_E_ADDRESS: c_int = -4;
/// The kernel, io_uring, a limit on locked memory, or a feature that is not in this version.
pub const WEBSERVER_E_UNSUPPORTED: c_int = -5;
/// A limit of the process, of the configuration, or of the buffer that was passed.
pub const WEBSERVER_E_LIMIT: c_int = -6;
/// The memory budget does not allow it.
pub const WEBSERVER_E_MEMORY: c_int = -7;
/// The server is stopped, or the call is not allowed where it was made.
pub const WEBSERVER_E_STATE: c_int = -8;
/// A deadline passed.
pub const WEBSERVER_E_TIMEOUT: c_int = -9;
/// Called in the child after fork.
pub const WEBSERVER_E_FORKED: c_int = -10;
/// A bug in the library, caught.
pub const WEBSERVER_E_PANIC: c_int = -11;
/// Not now; try again later.
pub const WEBSERVER_E_AGAIN: c_int = -12;
/// What the call is about no longer exists.
pub const WEBSERVER_E_GONE: c_int = -13;

/// What went wrong, in a struct of yours. Initialise it with WEBSERVER_ERROR_INIT; one struct may serve many
/// calls. A call writes it only when it fails.
#[repr(C)]
pub struct webserver_error {
    /// sizeof(webserver_error) as you compiled it. Fields that later versions add are written only when it
    /// covers them; the fields below always are.
    pub size: u32,
    /// The status code that the call returned.
    pub code: i32,
    /// errno of the system call that failed, or 0.
    pub sys_errno: i32,
    /// Line in the configuration, from 1; 0 when the error has no place there.
    pub line: u32,
    /// Column in characters, from 1; 0 when the error has no place there.
    pub column: u32,
    /// One line for people, "FILE:LINE:COLUMN: message" or "message". NUL-terminated UTF-8, cut to fit.
    pub text: [c_char; 256],
}

/// A short English name for a status code, never NULL. The string is the library's.
///
/// Any thread, also inside a callback and after fork. Does not block and cannot fail.
#[unsafe(no_mangle)]
pub extern "C" fn webserver_strerror(code: c_int) -> *const c_char {
    let name: &'static CStr = match code {
        WEBSERVER_OK => c"success",
        WEBSERVER_E_INVALID => c"invalid argument",
        WEBSERVER_E_CONFIG => c"configuration error",
        WEBSERVER_E_IO => c"system call failed",
        WEBSERVER_E_ADDRESS => c"address in use or unavailable",
        WEBSERVER_E_UNSUPPORTED => c"not supported by this kernel, its settings, or this version",
        WEBSERVER_E_LIMIT => c"limit reached",
        WEBSERVER_E_MEMORY => c"memory budget exhausted",
        WEBSERVER_E_STATE => c"not possible in this state",
        WEBSERVER_E_TIMEOUT => c"timed out",
        WEBSERVER_E_FORKED => c"called in a child process after fork",
        WEBSERVER_E_PANIC => c"bug in the library",
        WEBSERVER_E_AGAIN => c"try again later",
        WEBSERVER_E_GONE => c"gone",
        _ => c"unknown status code",
    };
    name.as_ptr()
}

/// Why a call failed: a fixed text, or an error of the core.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Found in this crate.
    Here(ErrorKind, &'static str),
    /// Passed on.
    Core(Error),
}

impl Failure {
    /// An argument that can never be right.
    pub(crate) fn invalid(text: &'static str) -> Self {
        Failure::Here(ErrorKind::Invalid, text)
    }

    fn kind(&self) -> ErrorKind {
        match self {
            Failure::Here(kind, _) => *kind,
            Failure::Core(error) => error.kind(),
        }
    }

    /// Fills every field but `size`, which stays the caller's.
    fn describe(&self, size: u32) -> webserver_error {
        let mut text = Text { bytes: [0; 256], used: 0, cut: false };
        let (mut sys_errno, mut line, mut column) = (0, 0, 0);
        match self {
            Failure::Here(_, message) => text.push_str(message),
            Failure::Core(error) => {
                text.push(format_args!("{error}"));
                sys_errno = error.sys_errno();
                if let Some(place) = error.place() {
                    (line, column) = (place.line, place.column);
                    if text.cut {
                        // A long folder must not push the message out: the file's name will do.
                        let name = place.file.file_name().map(Path::new).unwrap_or(&place.file);
                        text = Text { bytes: [0; 256], used: 0, cut: false };
                        text.push(format_args!("{}:{line}:{column}: {}", name.display(), error.message()));
                    }
                }
            }
        }
        webserver_error { size, code: code_of(self.kind()), sys_errno, line, column, text: text.bytes }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Core(error)
    }
}

/// The status code of `result`, with its details in `err`.
///
/// # Safety
/// `err` is NULL or points to a `webserver_error` that the caller may write. Its `size` need not be right.
pub(crate) unsafe fn report(result: &Result<(), Failure>, err: *mut webserver_error) -> c_int {
    if let Err(failure) = result
        && !err.is_null()
    {
        // SAFETY: the caller's struct begins with `size`, a u32 in C memory.
        let size = unsafe { err.cast::<u32>().read() };
        // SAFETY: the caller's struct has at least the fields of this version, the first there was.
        unsafe { err.write(failure.describe(size)) };
    }
    status(result)
}

/// The status code of `result`, for functions without an error struct.
pub(crate) fn status(result: &Result<(), Failure>) -> c_int {
    result.as_ref().err().map_or(WEBSERVER_OK, |failure| code_of(failure.kind()))
}

fn code_of(kind: ErrorKind) -> c_int {
    match kind {
        ErrorKind::Invalid => WEBSERVER_E_INVALID,
        ErrorKind::Config => WEBSERVER_E_CONFIG,
        ErrorKind::Io => WEBSERVER_E_IO,
        ErrorKind::Address => WEBSERVER_E_ADDRESS,
        ErrorKind::Unsupported => WEBSERVER_E_UNSUPPORTED,
        ErrorKind::Limit => WEBSERVER_E_LIMIT,
        ErrorKind::Memory => WEBSERVER_E_MEMORY,
        ErrorKind::State => WEBSERVER_E_STATE,
        ErrorKind::Timeout => WEBSERVER_E_TIMEOUT,
        ErrorKind::Forked => WEBSERVER_E_FORKED,
        ErrorKind::Panic => WEBSERVER_E_PANIC,
    }
}

/// A C string of fixed size that is cut between characters when it is full.
struct Text {
    bytes: [c_char; 256],
    /// At most 255: the last byte stays NUL.
    used: usize,
    cut: bool,
}

impl Text {
    fn push(&mut self, text: fmt::Arguments<'_>) {
        // The only error is our own "full", which `cut` has noted.
        let _ = self.write_fmt(text);
    }

    fn push_str(&mut self, text: &str) {
        let _ = self.write_str(text);
    }
}

impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.cut {
            return Err(fmt::Error);
        }
        let room = self.bytes.len() - 1 - self.used;
        let end = if text.len() <= room { text.len() } else { text.floor_char_boundary(room) };
        for (to, from) in self.bytes[self.used..].iter_mut().zip(&text.as_bytes()[..end]) {
            // A message is one C string: a NUL inside it would hide the rest.
            *to = (if *from == 0 { b'?' } else { *from }) as c_char;
        }
        self.used += end;
        self.cut = end < text.len();
        if self.cut { Err(fmt::Error) } else { Ok(()) }
    }
}
