//! What a supervisor is told: sd_notify(3), one datagram a message. Without `NOTIFY_SOCKET` nobody is told anything.

use std::{
    env,
    ffi::OsStr,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
};

use webserver::sys::clock;

/// Where the supervisor listens, if there is one.
#[derive(Debug)]
pub(super) struct Supervisor {
    socket: Option<(UnixDatagram, SocketAddr)>,
}

impl Supervisor {
    /// As `NOTIFY_SOCKET` says: a path, or an abstract address that begins with `@`. Anything else is no supervisor.
    pub(super) fn from_environment() -> Supervisor {
        Supervisor { socket: env::var_os("NOTIFY_SOCKET").and_then(|name| open(&name)) }
    }

    /// The server accepts, or has reloaded.
    pub(super) fn ready(&self) {
        self.tell("READY=1");
    }

    /// A reload begins; [`Supervisor::ready`] ends it, whether it succeeds or not.
    pub(super) fn reloading(&self) {
        // systemd compares the time with that of its own request (sd_notify(3)).
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={}", clock::monotonic_micros()));
    }

    /// The server ends.
    pub(super) fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// Another process is the server from now on.
    pub(super) fn replaced_by(&self, pid: u32) {
        self.tell(&format!("MAINPID={pid}"));
    }

    /// Never waits: a supervisor that does not read is not worth a server that does not serve.
    fn tell(&self, message: &str) {
        if let Some((socket, address)) = &self.socket {
            let _ = socket.send_to_addr(message.as_bytes(), address);
        }
    }
}

fn open(name: &OsStr) -> Option<(UnixDatagram, SocketAddr)> {
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name).ok()?,
        [b'/', ..] => SocketAddr::from_pathname(name).ok()?,
        _ => return None,
    };
    let socket = UnixDatagram::unbound().ok()?;
    socket.set_nonblocking(true).ok()?;
    Some((socket, address))
}
