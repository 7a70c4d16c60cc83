//! The one error type of the public API: whose fault, what happened, where, and what to do about it.
//!
//! Refusals of requests are not errors of this kind; they are small `Copy` enums beside the codec
//! that makes them (`http1::Refusal`).

use std::{fmt, io, path::PathBuf};

/// A `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call failed. The C status codes are these, one to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// An argument that no configuration could make valid.
    Invalid,
    /// The configuration: its text, a value, or a combination that cannot work.
    Config,
    /// A system call; [`Error::sys_errno`] has its number.
    Io,
    /// A listener's address: in use, or not this machine's.
    Address,
    /// The kernel, io_uring, a resource limit, or a feature of a later version.
    Unsupported,
    /// A limit of this process or of the configuration does not allow it.
    Limit,
    /// The memory budget.
    Memory,
    /// The server is stopped, or the call is not allowed here.
    State,
    /// A deadline passed.
    Timeout,
    /// Called in a child after `fork`.
    Forked,
    /// A bug in this library, caught.
    Panic,
}

/// An error with a message that names the place and the remedy.
#[derive(Clone, Debug, thiserror::Error)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    sys_errno: i32,
    place: Option<Place>,
}

/// Where in a configuration file an error lies. Lines and columns count from 1; 0 is unknown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file, or `<text>` for YAML given as a string.
    pub file: PathBuf,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

impl Error {
    /// An error of `kind` with a message that says what happened and what to do.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error { kind, message: message.into(), sys_errno: 0, place: None }
    }

    /// A failed system call; `what` reads like "cannot open /srv/www". The system's text is appended.
    pub fn io(what: impl fmt::Display, source: &io::Error) -> Self {
        Error::sys(ErrorKind::Io, what, source)
    }

    /// Like [`Error::io`] with another kind, for instance [`ErrorKind::Address`] from a failed bind.
    pub fn sys(kind: ErrorKind, what: impl fmt::Display, source: &io::Error) -> Self {
        Error {
            kind,
            message: format!("{what}: {source}"),
            sys_errno: source.raw_os_error().unwrap_or(0),
            place: None,
        }
    }

    /// The same error with its place in a configuration file.
    pub fn at(mut self, place: Place) -> Self {
        self.place = Some(place);
        self
    }

    /// Whose fault it was.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The message without the place.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// `errno` of the system call that failed, or 0.
    pub fn sys_errno(&self) -> i32 {
        self.sys_errno
    }

    /// Where in a configuration file, if it is about one.
    pub fn place(&self) -> Option<&Place> {
        self.place.as_ref()
    }
}

impl fmt::Display for Error {
    /// `FILE:LINE:COLUMN: message`, or the message alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{}:{}:{}: ", place.file.display(), place.line, place.column)?;
        }
        f.write_str(&self.message)
    }
}
