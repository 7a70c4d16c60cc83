//! Listening sockets: bound and listening before any shard exists, so that a taken address is an error of start.

use std::{
    fs, io,
    net::SocketAddr,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{FileTypeExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

use super::Bound;
use crate::{
    config::{Address, Listener, OpenSocket, Origin},
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

/// Which listener it is, and for whom.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// Its number in the order of the configuration.
    pub(super) number: usize,
    /// It is the admin listener.
    pub(super) admin: bool,
    /// How many shards accept from it.
    pub(super) shards: usize,
}

/// A listener that is open.
pub(super) struct Sockets {
    pub(super) bound: Bound,
    /// For each shard, at least one.
    pub(super) listening: Vec<Vec<Listening>>,
    /// The file of a unix socket that is ours to remove.
    pub(super) file: Option<UnixPath>,
    /// The sockets, and the file, were there before.
    pub(super) inherited: bool,
}

/// Opens a listener, or takes over the sockets that are open for it.
pub(super) fn open(listener: &Listener, open: &[OpenSocket], place: Place) -> Result<Sockets> {
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
    let opened = match &listener.address {
        _ if !open.is_empty() => adopt(listener, open, place),
        Address::Tcp(address) => bind_tcp(listener, *address, place),
        Address::Unix(path) => bind_unix(listener, path, place),
        Address::Inherited => Err(io::Error::from_raw_os_error(libc::EBADF)),
    };
    opened.map_err(|error| failed(&error))
}

fn bind_tcp(listener: &Listener, address: SocketAddr, place: Place) -> io::Result<Sockets> {
    // A plain bind first: with SO_REUSEPORT alone a second server would share the port unnoticed. It is
    // closed before the real ones are bound, so a port chosen by the kernel is asked for by number.
    let probe = socket::bind_tcp(address, Port::Exclusive)?;
    let local = socket::local_address(probe.as_fd())?;
    let Local::Tcp(address) = local else { return Err(io::ErrorKind::Unsupported.into()) };
    drop(probe);
    let sockets = (0..place.shards).map(|_| listen_tcp(address)).collect::<io::Result<_>>()?;
    let bound = place.bound(listener, local);
    Ok(Sockets { bound, listening: deal(sockets, place)?, file: None, inherited: false })
}

fn listen_tcp(address: SocketAddr) -> io::Result<OwnedFd> {
    let socket = socket::bind_tcp(address, Port::Shared)?;
    socket::listen(socket.as_fd(), BACKLOG)?;
    Ok(socket)
}

fn bind_unix(listener: &Listener, path: &Path, place: Place) -> io::Result<Sockets> {
    replace_stale(path)?;
    let socket = socket::bind_unix(path)?;
    let file = UnixPath::of(path)?;
    let listening = socket::listen(socket.as_fd(), BACKLOG).and_then(|()| deal(vec![socket], place));
    let listening = listening.inspect_err(|_| file.remove())?;
    let bound = place.bound(listener, Local::Unix);
    Ok(Sockets { bound, listening, file: Some(file), inherited: false })
}

/// Listens on duplicates of sockets that listen already.
fn adopt(listener: &Listener, open: &[OpenSocket], place: Place) -> io::Result<Sockets> {
    let mut sockets = Vec::with_capacity(open.len().max(place.shards));
    for one in open {
        let socket = socket::duplicate(one.socket.as_fd())?;
        if !socket::is_listening(socket.as_fd())? {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        socket::adopt(socket.as_fd())?;
        sockets.push(socket);
    }
    let first = sockets.first().ok_or(io::ErrorKind::NotFound)?;
    let local = socket::local_address(first.as_fd())?;
    if let Local::Tcp(address) = local
        && socket::shares_port(first.as_fd())?
    {
        // More shards than there were: each has a socket of its own. Another user's cannot be joined; then they share.
        let more = sockets.len()..place.shards;
        sockets.extend(more.map_while(|_| listen_tcp(address).ok()));
    }
    let file = match &listener.address {
        Address::Unix(path) if open.iter().all(|one| one.origin == Origin::Predecessor) => {
            UnixPath::of(path).ok()
        }
        _ => None,
    };
    let bound = place.bound(listener, local);
    Ok(Sockets { bound, listening: deal(sockets, place)?, file, inherited: true })
}

impl Place {
    fn bound(&self, listener: &Listener, local: Local) -> Bound {
        let (url, port) = match (local, &listener.address) {
            (Local::Tcp(address), _) => {
                let scheme = if listener.tls.is_some() { "https" } else { "http" };
                (format!("{scheme}://{address}"), Some(address.port()))
            }
            (Local::Unix, Address::Unix(path)) => (format!("unix:{}", path.display()), None),
            (Local::Unix, _) if listener.name.starts_with("unix:") => (listener.name.clone(), None),
            (Local::Unix, _) => (format!("unix:{}", listener.name), None),
        };
        Bound { name: listener.name.clone(), url, port, admin: self.admin }
    }

    fn listening(&self, socket: OwnedFd, shared: bool) -> Listening {
        Listening { listener: self.number, socket, admin: self.admin, shared }
    }
}

/// Gives every shard its sockets: all of them are watched, for connections may wait in any. Where there are fewer than
/// shards, those that would have none get duplicates.
fn deal(sockets: Vec<OwnedFd>, place: Place) -> io::Result<Vec<Vec<Listening>>> {
    let count = sockets.len();
    let mut dealt: Vec<Vec<Listening>> = (0..place.shards).map(|_| Vec::new()).collect();
    for (shard, socket) in (count..place.shards).zip(sockets.iter().cycle()) {
        dealt[shard].push(place.listening(socket::duplicate(socket.as_fd())?, true));
    }
    for (index, socket) in sockets.into_iter().enumerate() {
        // The shards `index + count`, `index + 2 count` and so on have its duplicates.
        dealt[index % place.shards].push(place.listening(socket, index + count < place.shards));
    }
    Ok(dealt)
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
