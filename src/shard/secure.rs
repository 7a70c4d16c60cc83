//! TLS between a connection and its socket: receives, feeds, encrypts, sends, and keeps what the socket did not take.
//!
//! An idle connection holds its session and no buffer. What is received lies in the shard's own buffer; a record that is
//! not whole yet, and plaintext that its reader had no room for, move to pooled ones until they are used. What is sent is
//! gathered and encrypted in the shard's own buffers; of that at most [`WRITE_BYTES`] can wait for the socket, and
//! nothing more is encrypted until it is gone.

mod receive;
mod send;

pub(super) use send::write_bytes;

use std::{cell::Cell, collections::VecDeque, io, os::fd::BorrowedFd, rc::Rc, sync::Arc};

use super::{SCRATCH_BYTES, exchange::Unsent};
use crate::{
    memory::{Buffer, BufferPool, Rank, Reservation, Tier},
    service::Site,
    sys::socket,
    tls::{Acceptor, Material, Output, RECORD_BYTES_MAX, RECORD_OVERHEAD_BYTES, Resumption, Session},
};

/// Ciphertext of one write to a socket that may not take all of it: what waits then fits one medium and three small buffers.
const WRITE_BYTES: usize = 28 << 10;
/// And to one that will: fewer calls, and fewer wake-ups of the client.
const WRITE_BYTES_MAX: usize = 60 << 10;
/// Plaintext of a write, with room for what its records have beside it.
const PLAIN_BYTES: usize = WRITE_BYTES - 8 * RECORD_OVERHEAD_BYTES;
const PLAIN_BYTES_MAX: usize = WRITE_BYTES_MAX - 16 * RECORD_OVERHEAD_BYTES;
/// A response up to this size is one record: it fits the congestion window that a connection begins with (RFC 6928).
const ONE_RECORD_BYTES: usize = 14_000;
/// A longer one begins with records that fit three segments, so that the client can use the first of them at once,
const SMALL_RECORD_BYTES: usize = (4 << 10) - RECORD_OVERHEAD_BYTES;
/// until so much of it was sent. Then they are as large as they may be.
const SMALL_RECORDS_BYTES: usize = 64 << 10;
/// A record that fits a medium buffer with all that belongs to it.
const LARGE_RECORD_BYTES: usize = (16 << 10) - RECORD_OVERHEAD_BYTES;
/// A fatal `internal_error` before there are keys (RFC 8446 6): there is no room or no memory for the connection.
pub(super) const NO_ROOM_ALERT: &[u8] = &[21, 3, 1, 0, 2, 2, 80];

/// TLS of one connection.
#[derive(Debug)]
pub struct Secure {
    pub(super) session: Session,
    /// What the session counts for.
    held: Reservation,
    /// Of a handshake in progress.
    turn: Option<Turn>,
    /// When the handshake began, in the shard's milliseconds.
    pub(super) begun_millis: u64,
    /// What waits in pooled buffers; nothing does while the connection is idle.
    waiting: Option<Box<Waiting>>,
    /// Plaintext of the response in progress that was sent.
    sent_bytes: usize,
}

/// Bytes that outlive the turn.
#[derive(Debug, Default)]
struct Waiting {
    /// The beginning of a record, or of a handshake's message.
    received: Option<Buffer>,
    /// Plaintext that its reader had no room for.
    plain: Option<Buffer>,
    /// Records that the socket did not take: buffers, in order.
    unsent: VecDeque<Unsent>,
}

/// One of the handshakes that may be in progress at once; its place is free when it is dropped.
#[derive(Debug)]
struct Turn(Rc<Cell<usize>>);

/// What a shard has for the TLS of all its connections.
#[derive(Debug)]
pub(super) struct Tls {
    /// By listener: whether it speaks TLS, and with what.
    acceptors: Vec<(bool, Option<Arc<Acceptor>>)>,
    /// What was received, to be decrypted.
    received: Box<[u8]>,
    /// What is to be encrypted.
    plain: Box<[u8]>,
    output: Output,
    /// Handshakes that hold memory.
    in_progress: Rc<Cell<usize>>,
}

impl Tls {
    /// For the listeners of a site; without one that speaks TLS it holds nothing.
    pub fn new(site: &Site, resumption: &Resumption) -> Self {
        let mut tls = Tls {
            acceptors: Vec::new(),
            received: Box::default(),
            plain: Box::default(),
            output: Output::default(),
            in_progress: Rc::default(),
        };
        tls.reload(site, resumption);
        tls
    }

    /// Takes over another site's certificates; connections go on with what they have.
    pub fn reload(&mut self, site: &Site, resumption: &Resumption) {
        let acceptor = |material: &Material| match material.acceptor(resumption) {
            Ok(acceptor) => Some(acceptor),
            Err(error) => {
                tracing::error!(%error, "a listener cannot speak TLS and accepts nobody");
                None
            }
        };
        let materials = site.tls.iter().map(Option::as_ref);
        self.acceptors = materials.map(|tls| (tls.is_some(), tls.and_then(acceptor))).collect();
        self.restore();
    }

    /// Whether a listener speaks TLS.
    pub fn is_spoken_at(&self, listener: usize) -> bool {
        self.acceptors.get(listener).is_some_and(|(is_spoken, _)| *is_spoken)
    }

    fn acceptor(&self, listener: u8) -> Option<&Acceptor> {
        self.acceptors.get(usize::from(listener))?.1.as_deref()
    }

    /// Handshakes that hold memory.
    pub fn in_progress(&self) -> usize {
        self.in_progress.get()
    }

    /// Makes the buffers, also those that a panic has lost.
    pub fn restore(&mut self) {
        if !self.acceptors.iter().any(|(is_spoken, _)| *is_spoken) {
            return;
        }
        if self.received.is_empty() {
            self.received = vec![0; SCRATCH_BYTES + RECORD_BYTES_MAX].into_boxed_slice();
        }
        if self.plain.is_empty() {
            self.plain = vec![0; PLAIN_BYTES_MAX].into_boxed_slice();
        }
        self.output.clear();
    }
}

impl Turn {
    fn take(in_progress: &Rc<Cell<usize>>) -> Self {
        in_progress.set(in_progress.get() + 1);
        Turn(Rc::clone(in_progress))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Secure {
    /// Bytes that are held for it.
    pub fn held_bytes(&self) -> usize {
        self.held.bytes() + self.waiting.as_ref().map_or(0, |waiting| waiting.held_bytes())
    }

    /// The same without its buffers.
    pub fn session_bytes(&self) -> usize {
        self.held.bytes()
    }

    /// Whether a record has begun.
    pub fn is_amid_record(&self) -> bool {
        self.waiting.as_ref().is_some_and(|waiting| waiting.received.is_some())
    }

    /// Another response begins.
    pub fn begin_response(&mut self) {
        self.sent_bytes = 0;
    }

    /// Encrypts `plain`, of a response of which `left` bytes are left with it.
    fn seal(&mut self, mut plain: &[u8], mut left: usize, output: &mut Output) -> io::Result<()> {
        while !plain.is_empty() {
            let small = self.sent_bytes < SMALL_RECORDS_BYTES && self.sent_bytes + left > ONE_RECORD_BYTES;
            let count = plain.len().min(if small { SMALL_RECORD_BYTES } else { LARGE_RECORD_BYTES });
            let begun = begun(&mut self.waiting);
            self.session
                .seal(begun, &plain[..count], output)
                .map_err(|_| io::ErrorKind::ConnectionAborted)?;
            self.sent_bytes = self.sent_bytes.saturating_add(count);
            left = left.saturating_sub(count);
            plain = &plain[count..];
        }
        Ok(())
    }

    fn say_goodbye(&mut self, output: &mut Output) {
        let begun = begun(&mut self.waiting);
        self.session.say_goodbye(begun, output);
    }

    /// Whether records wait for the socket.
    fn has_unsent(&self) -> bool {
        self.waiting.as_ref().is_some_and(|waiting| !waiting.unsent.is_empty())
    }

    fn waiting(&mut self) -> &mut Waiting {
        self.waiting.get_or_insert_default()
    }

    /// Lets go of what held what no longer waits.
    fn tidy(&mut self) {
        if self.waiting.as_ref().is_some_and(|waiting| waiting.is_empty()) {
            self.waiting = None;
        }
    }
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.received.is_none() && self.plain.is_none() && self.unsent.is_empty()
    }

    fn held_bytes(&self) -> usize {
        let unsent = self.unsent.iter().filter_map(|piece| match piece {
            Unsent::Buffer(buffer) => Some(buffer),
            _ => None,
        });
        let buffers = [&self.received, &self.plain].into_iter().flatten().chain(unsent);
        buffers.map(|buffer| buffer.tier().bytes()).sum()
    }

    /// Keeps records until the socket takes them. False when there is no memory for them.
    fn keep(&mut self, mut records: &[u8], pool: &BufferPool) -> bool {
        while !records.is_empty() {
            let tier = if records.len() > 3 * Tier::Small.bytes() { Tier::Medium } else { Tier::Small };
            let count = records.len().min(tier.bytes());
            let Some(mut buffer) = pool.get(count, Rank::Finish) else { return false };
            if self.unsent.try_reserve(1).is_err() || !buffer.extend_from_slice(&records[..count]) {
                return false;
            }
            self.unsent.push_back(Unsent::Buffer(buffer));
            records = &records[count..];
        }
        true
    }
}

/// Sends as much as the socket takes, perhaps nothing.
fn send(socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match socket::send(socket, bytes, false) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
            sent => return sent,
        }
    }
}

/// The beginning of a record, which the session wants to see whatever it is to do.
fn begun(waiting: &mut Option<Box<Waiting>>) -> &mut [u8] {
    let received = waiting.as_mut().and_then(|waiting| waiting.received.as_mut());
    received.map_or(&mut [], Buffer::filled_mut)
}
