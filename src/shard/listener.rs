//! Taking connections in: admission, the answer when there is no room, and survival without descriptors.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use super::{
    Message,
    connection::Step,
    driver::Driver,
    slot::{Flags, Slot, Stage},
};
use crate::{
    admission::Client,
    memory::Level,
    metrics::{Relief, Shed},
    sys::{
        epoll,
        socket::{self, Peer},
    },
};

/// Connections taken from one listener in one turn.
const ACCEPTS_PER_TURN: usize = 64;
/// Turns' shares that a drain takes before it closes a listener: 4,096 connections, a whole backlog.
pub(super) const DRAIN_ACCEPTS: usize = 64;
/// Connections beyond capacity that may wait for their 503 to be read.
const SHED_SLOTS: usize = 64;
/// Admin connections, from slots of their own: they get in when nobody else does.
const ADMIN_SLOTS: usize = 16;
/// Slots of a shard beside `worker_connections`.
pub(super) const RESERVED_SLOTS: usize = SHED_SLOTS + ADMIN_SLOTS;
/// How long a listener rests that cannot be accepted from.
const PAUSE: Duration = Duration::from_millis(100);

/// Connections that wait for one shard because another has no room; more are refused. Far below what a mailbox
/// takes, so that a stop always finds room.
const PASSED_MAX: usize = 64;

const _: () = assert!(RESERVED_SLOTS == crate::config::sizes::RESERVED_SLOTS, "sums say otherwise");

/// A connection that has not been taken in.
#[derive(Debug)]
pub struct Accepted {
    socket: OwnedFd,
    peer: Peer,
    /// See [`Listening::listener`].
    listener: usize,
    /// How many shards had no room for it.
    passed: usize,
}

/// A listening socket of one shard.
#[derive(Debug)]
pub struct Listening {
    /// The number of its listener, in the order of the configuration; the admin listener comes last.
    pub listener: usize,
    /// The socket.
    pub socket: OwnedFd,
    /// Answers the admin routes instead of the site's.
    pub admin: bool,
    /// Other shards have a duplicate of the same socket.
    pub shared: bool,
}

impl Listening {
    pub(super) fn interest(&self) -> u32 {
        if self.shared { epoll::SHARED_LISTENER } else { epoll::READABLE }
    }
}

/// What came of taking a connection without a descriptor for it.
enum Shedding {
    /// It was answered and closed; there may be another.
    Told,
    /// None was waiting.
    NobodyThere,
    /// Somebody else took the spare descriptor.
    Failed,
}

/// What a connection that there is no room for is told, before TLS if that is spoken.
pub(super) fn no_room(is_secure: bool) -> &'static [u8] {
    if is_secure { super::secure::NO_ROOM_ALERT } else { super::SHED_RESPONSE }
}

impl Driver {
    /// Takes what waits at a listener, up to a turn's share; the epoll set reports it again if there is more.
    /// Returns whether there may be.
    pub(super) fn accept(&mut self, index: usize) -> bool {
        for _ in 0..ACCEPTS_PER_TURN {
            let Some(Some(listening)) = self.listeners.get(index) else { return false };
            let (listener, admin) = (listening.listener, listening.admin);
            match socket::accept(listening.socket.as_fd()) {
                Ok((socket, peer)) if admin => self.admit(socket, peer, listener, true),
                Ok((socket, peer)) => self.take_in(Accepted { socket, peer, listener, passed: 0 }),
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN) => return false,
                    Some(libc::EMFILE | libc::ENFILE) => match self.shed_without_descriptor(index) {
                        Shedding::Told => {}
                        Shedding::NobodyThere => return false,
                        Shedding::Failed => {
                            self.pause(index);
                            return false;
                        }
                    },
                    Some(libc::ENOBUFS | libc::ENOMEM) => {
                        self.worker.metrics.accept_errors.add(1);
                        self.pause(index);
                        return false;
                    }
                    Some(libc::EBADF | libc::EINVAL | libc::ENOTSOCK | libc::EOPNOTSUPP) => {
                        tracing::error!(%error, "a listener is broken and is closed");
                        // A duplicate in another shard or in the host would keep the registration alive.
                        let _ = self.epoll.remove(listening.socket.as_fd());
                        self.listeners[index] = None;
                        return false;
                    }
                    // Errors of one connection that ended before it was taken (accept(2)).
                    _ => self.worker.metrics.accept_errors.add(1),
                },
            }
        }
        true
    }

    /// Takes a connection in, unless there is no room for it here and another shard has some.
    pub(super) fn take_in(&mut self, accepted: Accepted) {
        let accepted = if self.open < self.capacity || self.worker.draining {
            Some(accepted)
        } else {
            self.pass_on(accepted)
        };
        if let Some(Accepted { socket, peer, listener, .. }) = accepted {
            self.admit(socket, peer, listener, false);
        }
    }

    /// Hands a connection to the next shard that has room by the figures it has published last; gives it back when
    /// there is none. Those may be a turn old: who is full by then passes it on again, and the last one says no.
    fn pass_on(&self, mut accepted: Accepted) -> Option<Accepted> {
        let shards = self.mailboxes.len();
        accepted.passed += 1;
        if accepted.passed >= shards {
            return Some(accepted);
        }
        for index in (1..shards).map(|distance| (self.shard + distance) % shards) {
            let metrics = &self.registry.shards[index];
            let open = metrics.connections_active.value() + metrics.connections_idle.value();
            if open >= self.capacity as u64 {
                continue;
            }
            match self.mailboxes[index].send_below(PASSED_MAX, Message::Accepted(accepted)) {
                Err(Message::Accepted(back)) => accepted = back,
                _ => return None,
            }
        }
        Some(accepted)
    }

    fn admit(&mut self, socket: OwnedFd, peer: Peer, listener: usize, admin: bool) {
        self.worker.metrics.connections_accepted.add(1);
        let is_secure = !admin && self.worker.tls.is_spoken_at(listener);
        // At most 64 listeners and the admin listener, which no cap is for.
        let listener = u8::try_from(listener).unwrap_or(u8::MAX);
        // A client usually sends at once: the first receive often finds its request.
        let mut flags = Flags::default();
        flags.set_readable(true);
        flags.set_admin(admin);
        flags.set_secure(is_secure);
        if !admin && let Err(reason) = self.count(peer, listener, &mut flags) {
            self.worker.metrics.count_shed(reason);
            flags.set_shed(true);
        }
        // Who is told to come back takes no slot that a connection could have, unless there are plenty.
        let sheds = self.sheds < SHED_SLOTS || self.open + self.sheds < self.capacity;
        let room = if admin { self.admins < ADMIN_SLOTS } else { !flags.shed() || sheds };
        if !room || self.slots.len() >= self.slots.capacity() {
            self.uncount(peer, listener, flags);
            // Not even a slot to linger in: the answer may be lost, the client is told as well as can be.
            if !admin {
                let _ = socket::send(socket.as_fd(), no_room(is_secure), false);
            }
            self.worker.metrics.connections_closed.add(1);
            return;
        }
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        let (deadlines, now) = (&self.worker.deadlines, self.worker.now);
        let slot = Slot {
            socket,
            generation: self.generation,
            deadline: if is_secure { deadlines.handshake(now) } else { deadlines.header(now) },
            requests: 0,
            stage_bytes: 0,
            peer,
            listener,
            stage: if is_secure { Stage::Handshake } else { Stage::Fresh },
            flags,
            exchange: None,
            secure: None,
        };
        let key = self.insert(slot);
        let step = if flags.shed() {
            self.turn(key, |worker, slot, _| worker.shed(slot))
        } else if is_secure {
            self.queue_handshake(key);
            Step::Wait
        } else {
            self.turn(key, |worker, slot, key| worker.serve(slot, key))
        };
        if step != Step::Close && !self.register(key) {
            self.close(key);
        }
    }

    /// Counts a connection where a limit asks for it, or says which limit it would pass; then it is counted nowhere.
    fn count(&self, peer: Peer, listener: u8, flags: &mut Flags) -> Result<(), Shed> {
        if self.open >= self.capacity {
            return Err(Shed::Capacity);
        }
        if self.worker.share.budget().level() == Level::Critical {
            let relief = &self.worker.metrics.memory.relief;
            relief[Relief::Refused as usize].increment();
            return Err(Shed::Memory);
        }
        let (admission, limits) = (&self.worker.admission, &self.worker.client_limits);
        if let Some(cap) = admission.listener(listener.into()).filter(|cap| cap.is_on()) {
            if !cap.take() {
                return Err(Shed::Listener);
            }
            flags.set_counted_by_listener(true);
        }
        if limits.connections > 0
            && let Some(client) = limits.client(peer)
        {
            if !admission.clients.take(client, limits.connections) {
                self.uncount(peer, listener, *flags);
                flags.set_counted_by_listener(false);
                return Err(Shed::PerIp);
            }
            flags.set_counted_by_client(true);
        }
        Ok(())
    }

    /// A connection with these flags is gone. Whatever the limits are by now, it leaves the counts that it is in.
    pub(super) fn uncount(&self, peer: Peer, listener: u8, flags: Flags) {
        let admission = &self.worker.admission;
        if flags.counted_by_listener()
            && let Some(cap) = admission.listener(listener.into())
        {
            cap.give_back();
        }
        if flags.counted_by_client()
            && let Some(client) = Client::of(peer)
        {
            admission.clients.give_back(client);
        }
    }

    /// No descriptor is left: gives up the spare one to take a connection, tells it, closes it. The kernel asks for
    /// a descriptor before it looks into the queue, so there may be nobody to be told.
    fn shed_without_descriptor(&mut self, index: usize) -> Shedding {
        if self.spare.take().is_none() {
            self.worker.metrics.descriptor_exhaustion.add(1);
            self.spare = socket::spare_descriptor().ok();
            return Shedding::Failed;
        }
        let Some(Some(listening)) = self.listeners.get(index) else { return Shedding::Failed };
        let shedding = match socket::accept(listening.socket.as_fd()) {
            Ok((socket, _)) => {
                self.worker.metrics.descriptor_exhaustion.add(1);
                self.worker.metrics.count_shed(Shed::Descriptors);
                let is_secure = self.worker.tls.is_spoken_at(listening.listener);
                let _ = socket::send(socket.as_fd(), no_room(is_secure), false);
                Shedding::Told
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Shedding::NobodyThere,
            Err(_) => {
                self.worker.metrics.descriptor_exhaustion.add(1);
                Shedding::Failed
            }
        };
        self.spare = socket::spare_descriptor().ok();
        if self.spare.is_some() { shedding } else { Shedding::Failed }
    }

    /// Stops looking at a listener for a moment; its queue holds what comes.
    fn pause(&mut self, index: usize) {
        let Some(Some(listening)) = self.listeners.get(index) else { return };
        if self.epoll.remove(listening.socket.as_fd()).is_ok() {
            self.paused.push(index);
            self.resume_at = self.worker.deadlines.within(PAUSE, self.worker.now);
        }
    }

    /// Looks at paused listeners again.
    pub(super) fn resume_listeners(&mut self) {
        for index in std::mem::take(&mut self.paused) {
            if self.watch_listener(index).is_err() {
                self.paused.push(index);
                self.resume_at = self.worker.deadlines.within(PAUSE, self.worker.now);
            }
        }
    }
}
