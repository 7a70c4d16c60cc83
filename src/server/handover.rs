//! The listening sockets of a running server for another process, which goes on where this one stops: no connection
//! is refused, because every queue that the kernel keeps for a socket stays open.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::atomic::Ordering,
};

use super::Server;
use crate::{
    config::ADMIN,
    error::{Error, ErrorKind, Result},
    shard::Message,
    sys::socket,
};

/// A duplicate of a socket that a running server listens on.
#[derive(Debug)]
pub struct HandedSocket {
    /// The listener's address as written in its configuration; [`ADMIN`] for the admin listener.
    pub name: String,
    /// The duplicate, close-on-exec.
    pub socket: OwnedFd,
    /// Tells sockets apart, whatever number of descriptors each has.
    pub inode: u64,
}

impl Server {
    /// Every socket that this server listens on, once each: several for a listener where each shard has its own,
    /// in whose queue connections may wait that no other socket would get. The server goes on as before.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] when a shard does not answer, [`ErrorKind::Limit`] without descriptors,
    /// [`ErrorKind::State`] in a drain and after a stop.
    pub fn listening_sockets(&self) -> Result<Vec<HandedSocket>> {
        self.usable()?;
        if self.health.is_draining() {
            return Err(Error::new(ErrorKind::State, "the server is draining"));
        }
        let answers = self
            .ask(|_, sender| Message::Listeners(sender))
            .ok_or_else(|| Error::new(ErrorKind::Timeout, "a shard does not answer"))?;
        let mut handed: Vec<HandedSocket> = Vec::new();
        for answer in answers {
            for (listener, socket) in answer.map_err(|error| failed(&error))? {
                let inode = socket::inode(socket.as_fd()).map_err(|error| failed(&error))?;
                // Shards that share a socket have a duplicate each.
                if handed.iter().any(|other| other.inode == inode) {
                    continue;
                }
                let Some(bound) = self.bound.get(listener) else { continue };
                let name = if bound.admin { String::from(ADMIN) } else { bound.name.clone() };
                handed.push(HandedSocket { name, socket, inode });
            }
        }
        Ok(handed)
    }

    /// Another process listens on the sockets from now on: like [`Server::drain`], but what waits to be accepted is
    /// left to the other, the admin listener is given up too, and the files of unix sockets stay at a stop.
    pub fn hand_over(&self) {
        self.handed_over.store(true, Ordering::SeqCst);
        self.begin_drain(|| Message::HandOver);
    }
}

fn failed(error: &io::Error) -> Error {
    Error::sys(ErrorKind::Limit, "cannot duplicate a listening socket", error)
}
