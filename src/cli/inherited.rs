//! Listening sockets that this process was started with: by a supervisor (sd_listen_fds(3)), or by the process that it
//! is to replace (see [`super::succession`]).
//!
//! The variables are read and not removed: the one program that is ever started from here gets an environment
//! without them.

use std::{
    env,
    io::Write,
    os::fd::{AsFd, OwnedFd, RawFd},
    path::PathBuf,
    process,
    sync::Arc,
};

use webserver::{
    config::{ADMIN, Address, OpenSocket, Origin},
    sys::{
        descriptors,
        socket::{self, Local},
    },
};

use super::{
    Failure,
    succession::{self, Handed},
};

/// A supervisor passes descriptors from this number on.
const FIRST: RawFd = 3;
/// Descriptors that are taken from a supervisor.
const SUPERVISED_MAX: usize = 64;
/// What sd_listen_fds(3) tells: for whom, how many, and what each is called.
pub(super) const VARIABLES: [&str; 3] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];

/// What this process was started with.
#[derive(Debug, Default)]
pub(super) struct Inherited {
    /// Sockets that listen already.
    pub(super) sockets: Vec<OpenSocket>,
    /// Who is to be told that this process accepts.
    predecessor: Option<OwnedFd>,
}

impl Inherited {
    /// Takes over what the environment tells of. To be called once, before anything else opens descriptors.
    ///
    /// # Errors
    /// A variable that does not say what it should, and a descriptor that is not a listening stream socket.
    pub(super) fn take() -> Result<Inherited, Failure> {
        if let Some(handed) = Handed::from_environment()? {
            return Inherited::from_predecessor(handed);
        }
        let [pid, count, names] = VARIABLES.map(|name| env::var(name).ok());
        if pid.is_none_or(|pid| pid != process::id().to_string()) {
            return Ok(Inherited::default());
        }
        let count: usize = match count.as_deref().map(str::parse) {
            None => 0,
            Some(Ok(count)) if count <= SUPERVISED_MAX => count,
            Some(_) => {
                return Err(Failure::usage(format_args!("LISTEN_FDS must be at most {SUPERVISED_MAX}")));
            }
        };
        let names = names.unwrap_or_default();
        let mut names = names.split(':');
        let mut inherited = Inherited::default();
        for number in (FIRST..).take(count) {
            let called = names.next().unwrap_or_default();
            let what = format!("descriptor {number} of LISTEN_FDS ({called})");
            let (socket, address) = adopt(number, &what)?;
            // A name cannot be an address, for names are separated by colons: it is bound to what it is for.
            let name = match &address {
                _ if called == ADMIN => String::from(ADMIN),
                Some(address) => written(address),
                None => format!("LISTEN_FDS:{number}"),
            };
            inherited.sockets.push(OpenSocket {
                name,
                address,
                origin: Origin::Supervisor,
                socket,
                tls: None,
            });
        }
        Ok(inherited)
    }

    fn from_predecessor(handed: Handed) -> Result<Inherited, Failure> {
        let ready = descriptors::inherit(handed.ready)
            .map_err(|error| Failure::failed(format_args!("{}: {error}", succession::VARIABLE)))?;
        let mut inherited = Inherited { predecessor: Some(ready), sockets: Vec::new() };
        for (number, origin, name) in handed.sockets {
            let (socket, address) = adopt(number, &format!("descriptor {number} handed over ({name})"))?;
            inherited.sockets.push(OpenSocket { name, address, origin, socket, tls: None });
        }
        Ok(inherited)
    }

    /// Whether this process replaces another.
    pub(super) fn is_successor(&self) -> bool {
        self.predecessor.is_some()
    }

    /// The server has its own duplicates. A supervisor's sockets are kept, to tell a reload by; others would stay
    /// open, and be connected to, when the server has ended.
    pub(super) fn forget_predecessor_s(&mut self) {
        self.sockets.retain(|socket| socket.origin == Origin::Supervisor);
    }

    /// Tells the process that this one replaces that it accepts. Nobody listens if that has ended meanwhile.
    pub(super) fn tell_ready(&mut self) {
        if let Some(ready) = self.predecessor.take() {
            let _ = descriptors::give::<std::fs::File>(ready).write_all(b"\n");
        }
    }
}

fn adopt(number: RawFd, what: &str) -> Result<(Arc<OwnedFd>, Option<Address>), Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::failed(format_args!("{what}: {error}"));
    let descriptor = descriptors::inherit(number).map_err(|error| failed(&error))?;
    if !socket::is_listening(descriptor.as_fd()).unwrap_or(false) {
        return Err(failed(&"not a listening stream socket"));
    }
    let address = match socket::local_address(descriptor.as_fd()).map_err(|error| failed(&error))? {
        Local::Tcp(address) => Some(Address::Tcp(address)),
        Local::Unix => {
            socket::unix_path(descriptor.as_fd()).map_err(|error| failed(&error))?.map(Address::Unix)
        }
    };
    Ok((Arc::new(descriptor), address))
}

/// An address as a configuration has it.
fn written(address: &Address) -> String {
    match address {
        Address::Tcp(address) => address.to_string(),
        Address::Unix(path) => format!("unix:{}", PathBuf::from(path).display()),
        Address::Inherited => String::new(),
    }
}
