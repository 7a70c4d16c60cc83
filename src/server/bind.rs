//! Listening sockets: bound and listening before any shard exists, so that a taken address is an error of start.

use std::{
    fs, io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{FileTypeExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

use super::Bound;
use crate::{
    config::{Address, Listener},
    error::{Error, ErrorKind, Result},
    shard::Listening,
    sys::socket::{self, Local, Port},
};

/// Connections that the kernel completes and keeps until they are accepted (capped by `net.core.somaxconn`).
const BACKLOG: i32 = 4096;

/// A unix socket's file, removed at the end if it still is ours.
#[derive(Debug)]
pub(super) struct UnixPath {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl UnixPath {
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::symlink_metadata(path)?;
        Ok(UnixPath { path: path.to_owned(), device: metadata.dev(), inode: metadata.ino() })
    }

    /// Removes the file unless somebody has put another there.
    pub(super) fn remove(&self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|metadata| metadata.dev() == self.device && metadata.ino() == self.inode);
        if ours {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// One listener's sockets: one for each shard.
pub(super) struct Sockets {
    pub(super) bound: Bound,
    pub(super) listening: Vec<Listening>,
    pub(super) unix_path: Option<UnixPath>,
}

/// Opens a listener for `shards` shards. The admin listener is for one shard.
pub(super) fn open(listener: &Listener, shards: usize, admin: bool) -> Result<Sockets> {
    let failed = |error: &io::Error| {
        let kind = match error.raw_os_error() {
            Some(libc::EMFILE | libc::ENFILE) => ErrorKind::Limit,
            Some(libc::ENOMEM | libc::ENOBUFS) => ErrorKind::Io,
            _ => ErrorKind::Address,
        };
        let remedy = match error.raw_os_error() {
            Some(libc::EADDRINUSE) => " (another process or server listens there)",
            Some(libc::EADDRNOTAVAIL) => " (no interface of this machine has the address)",
            Some(libc::EACCES) => {
                " (ports below 1024 need CAP_NET_BIND_SERVICE, a socket file a writable folder)"
            }
            _ => "",
        };
        Error::sys(kind, format!("cannot listen on {}{remedy}", listener.name), error)
    };
    match &listener.address {
        Address::Tcp(address) => {
            // A plain bind first: with SO_REUSEPORT alone a second server would share the port unnoticed. It is
            // closed before the real ones are bound, so a port chosen by the kernel is asked for by number.
            let probe = socket::bind_tcp(*address, Port::Exclusive).map_err(|error| failed(&error))?;
            let Local::Tcp(address) = socket::local_address(probe.as_fd()).map_err(|error| failed(&error))?
            else {
                return Err(Error::new(ErrorKind::Address, format!("{} is not TCP", listener.name)));
            };
            drop(probe);
            let mut listening = Vec::with_capacity(shards);
            for _ in 0..shards {
                let socket = socket::bind_tcp(address, Port::Shared).map_err(|error| failed(&error))?;
                socket::listen(socket.as_fd(), BACKLOG).map_err(|error| failed(&error))?;
                listening.push(Listening { socket, admin, shared: false });
            }
            let bound = Bound {
                name: listener.name.clone(),
                url: format!("http://{address}"),
                port: Some(address.port()),
                admin,
            };
            Ok(Sockets { bound, listening, unix_path: None })
        }
        Address::Unix(path) => {
            replace_stale(path).map_err(|error| failed(&error))?;
            let socket = socket::bind_unix(path).map_err(|error| failed(&error))?;
            let unix_path = UnixPath::of(path).map_err(|error| failed(&error))?;
            let opened =
                socket::listen(socket.as_fd(), BACKLOG).and_then(|()| duplicates(socket, shards, admin));
            let listening = opened.map_err(|error| {
                unix_path.remove();
                failed(&error)
            })?;
            let bound = Bound {
                name: listener.name.clone(),
                url: format!("unix:{}", path.display()),
                port: None,
                admin,
            };
            Ok(Sockets { bound, listening, unix_path: Some(unix_path) })
        }
        Address::Inherited(fd) => {
            let adopted = socket::duplicate(fd.as_fd()).and_then(|socket| {
                if !socket::is_listening(socket.as_fd())? {
                    return Err(io::Error::from_raw_os_error(libc::EINVAL));
                }
                socket::adopt(socket.as_fd())?;
                let local = socket::local_address(socket.as_fd())?;
                Ok((local, duplicates(socket, shards, admin)?))
            });
            let (local, listening) = adopted.map_err(|error| failed(&error))?;
            let (url, port) = match local {
                Local::Tcp(address) => (format!("http://{address}"), Some(address.port())),
                Local::Unix => (format!("unix:{}", listener.name), None),
            };
            let bound = Bound { name: listener.name.clone(), url, port, admin };
            Ok(Sockets { bound, listening, unix_path: None })
        }
    }
}

fn duplicates(socket: OwnedFd, shards: usize, admin: bool) -> io::Result<Vec<Listening>> {
    let shared = shards > 1;
    let mut listening = Vec::with_capacity(shards);
    for _ in 1..shards {
        let socket = socket::duplicate(socket.as_fd())?;
        listening.push(Listening { socket, admin, shared });
    }
    listening.push(Listening { socket, admin, shared });
    Ok(listening)
}

/// Removes a socket file that nobody listens on any more. Any other file is left alone.
fn replace_stale(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            Err(io::Error::from_raw_os_error(libc::EADDRINUSE))
        }
        Ok(_) if socket::unix_is_served(path)? => Err(io::Error::from_raw_os_error(libc::EADDRINUSE)),
        Ok(_) => fs::remove_file(path),
    }
}
