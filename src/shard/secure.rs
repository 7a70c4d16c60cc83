//! TLS between a connection and its socket: receives, feeds, encrypts, sends, and keeps what the socket did not take.
//!
//! An idle connection holds its session and no buffer. What is received lies in the shard's own buffer; a record that is
//! not whole yet, and plaintext that its reader had no room for, move to pooled ones until they are used. What is sent is
//! gathered and encrypted in the shard's own buffers; of that at most [`WRITE_BYTES`] can wait for the socket, and
//! nothing more is encrypted until it is gone.

use std::{
    cell::Cell,
    collections::VecDeque,
    io,
    os::fd::{AsFd, BorrowedFd},
    rc::Rc,
    sync::Arc,
};

use super::{
    SCRATCH_BYTES, Worker,
    connection::Received,
    exchange::Unsent,
    slot::{Slot, Stage},
};
use crate::{
    config::sizes::{TLS_HANDSHAKE_BYTES, TLS_IDLE_BYTES},
    memory::{Buffer, BufferPool, Rank, Reservation, Tier},
    metrics::{Holder, TlsFailure},
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
/// So much may wait for the file that follows it, to share a record with it.
const HEAD_BYTES_MAX: usize = 8 << 10;
/// What a client that speaks HTTP to a listener for TLS is told.
const PLAIN_RESPONSE: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 78\r\n\
Connection: close\r\n\r\n400 Bad Request: this port speaks HTTPS; use https:// instead of http:// here\n";
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
    /// Records that the socket did not take.
    unsent: VecDeque<Buffer>,
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
        let buffers = [&self.received, &self.plain].into_iter().flatten().chain(&self.unsent);
        buffers.map(|buffer| buffer.tier().bytes()).sum()
    }

    /// Sends records. Says how many bytes, and whether all are gone.
    fn resume(&mut self, socket: BorrowedFd<'_>) -> io::Result<(usize, bool)> {
        let mut sent = 0;
        while let Some(first) = self.unsent.front_mut() {
            match send(socket, first.filled())? {
                count if count == first.filled_len() => {
                    sent += count;
                    self.unsent.pop_front();
                }
                count => {
                    first.consume(count);
                    return Ok((sent + count, false));
                }
            }
        }
        Ok((sent, true))
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
            self.unsent.push_back(buffer);
            records = &records[count..];
        }
        true
    }
}

impl Worker {
    /// Receives ciphertext and gives the plaintext of it, as [`Worker::receive`] does. A handshake goes on as far as it can
    /// meanwhile; the connection has its first stage once that is complete.
    pub(super) fn receive_secure(&mut self, slot: &mut Slot, buffer: &mut [u8]) -> io::Result<Received> {
        let mut scratch = std::mem::take(&mut self.tls.received);
        let received = loop {
            match self.receive_records(slot, buffer, &mut scratch) {
                Ok(None) => {}
                Ok(Some(received)) => break Ok(received),
                Err(error) => break Err(error),
            }
        };
        self.tls.received = scratch;
        received
    }

    /// One receive and what comes of it; `None` when that was no plaintext. The library bounds how often in a row.
    fn receive_records(
        &mut self,
        slot: &mut Slot,
        buffer: &mut [u8],
        scratch: &mut [u8],
    ) -> io::Result<Option<Received>> {
        let mut carried = 0;
        if let Some(secure) = slot.secure.as_deref_mut() {
            let waiting = secure.waiting.as_deref_mut();
            if let Some(count) = waiting.and_then(|waiting| take_plain(&mut waiting.plain, buffer)) {
                secure.tidy();
                return Ok(Some(Received::Bytes(count)));
            }
            if secure.session.is_peer_closed() {
                slot.flags.set_readable(false);
                return Ok(Some(Received::End));
            }
            if !slot.flags.readable() {
                return Ok(Some(Received::Nothing));
            }
            if let Some(begun) = secure.waiting.as_ref().and_then(|waiting| waiting.received.as_ref()) {
                carried = begun.filled_len();
                scratch[..carried].copy_from_slice(begun.filled());
            }
        }
        let end = buffer.len().max(RECORD_BYTES_MAX).max(carried + Tier::Small.bytes()).min(scratch.len());
        let received = self.receive_bytes(slot, &mut scratch[carried..end]);
        if matches!(received, Ok(Received::End) | Err(_)) {
            self.note_truncation(slot);
        }
        let count = match received? {
            Received::Bytes(count) => count,
            nothing => return Ok(Some(nothing)),
        };
        if slot.secure.is_none() && !self.begin_secure(slot, scratch[0]) {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let count = self.feed(slot, &mut scratch[..carried + count], buffer)?;
        Ok((count > 0).then_some(Received::Bytes(count)))
    }

    /// Feeds the session what was received. Returns how much plaintext that gave.
    fn feed(&mut self, slot: &mut Slot, input: &mut [u8], buffer: &mut [u8]) -> io::Result<usize> {
        let Some(secure) = slot.secure.as_deref_mut() else { return Ok(0) };
        let was_established = secure.session.is_established();
        let (pool, mut plain, bytes_max) = (&self.pool, None::<Buffer>, input.len());
        let (mut count, mut kept) = (0, true);
        let take = |bytes: &[u8]| {
            let fits = bytes.len().min(buffer.len() - count);
            buffer[count..count + fits].copy_from_slice(&bytes[..fits]);
            count += fits;
            if fits < bytes.len() {
                if plain.is_none() {
                    plain = pool.get(bytes_max - count, Rank::Start);
                }
                kept &= plain.as_mut().is_some_and(|plain| plain.extend_from_slice(&bytes[fits..]));
            }
        };
        let fed = secure.session.feed(input, take, &mut self.tls.output);
        let rest = &input[fed.used..];
        if let Some(waiting) = secure.waiting.as_deref_mut() {
            waiting.received = None;
        }
        let handshake_bytes_max = self.tls.acceptor(slot.listener).map_or(0, Acceptor::handshake_bytes_max);
        let is_oversized = !secure.session.is_established() && rest.len() > handshake_bytes_max;
        if kept && !rest.is_empty() && !is_oversized && fed.failure.is_none() {
            let mut begun = self.pool.get(rest.len(), Rank::Start);
            kept = begun.as_mut().is_some_and(|begun| begun.extend_from_slice(rest));
            secure.waiting().received = begun;
        }
        if plain.is_some() {
            secure.waiting().plain = plain;
            slot.flags.set_readable(true);
        }
        secure.tidy();
        let acceptor = self.tls.acceptor(slot.listener);
        if !was_established && let Some(name) = acceptor.and_then(|acceptor| acceptor.take_server_name()) {
            secure.session.set_server_name(name);
        }
        let ends = !was_established && secure.session.is_established() && fed.failure.is_none();
        let failure = match fed.failure {
            None if ends => self.end_handshake(slot).err(),
            None if is_oversized => Some(TlsFailure::Oversized),
            failure => failure,
        };
        let sent = self.send_output(slot);
        if let Some(failure) = failure {
            return Err(self.fail(slot, failure));
        }
        sent?;
        if !kept {
            return Err(self.fail(slot, TlsFailure::Memory));
        }
        Ok(count)
    }

    /// The first byte of a connection has come. False when no handshake begins with it, or there is no memory for one: the
    /// client was told.
    fn begin_secure(&mut self, slot: &mut Slot, first: u8) -> bool {
        if first.is_ascii_alphabetic() || matches!(first, b'\r' | b'\n') {
            self.fail(slot, TlsFailure::PlainHttp);
            self.say_in_plain(slot, PLAIN_RESPONSE);
            self.log_refused(slot, b"", 400);
            return false;
        }
        if slot.flags.peer_finished() {
            // It cannot answer what the handshake would send it.
            self.fail(slot, TlsFailure::Left);
            return false;
        }
        let acceptor = self.tls.acceptor(slot.listener);
        let held = self.share.reserve(Holder::Tls, TLS_HANDSHAKE_BYTES, Rank::Start);
        let session =
            acceptor.ok_or(TlsFailure::Internal).and_then(|acceptor| Session::new(acceptor.config()));
        let (session, held) = match (session, held) {
            (Ok(session), Some(held)) => (session, held),
            (session, _) => {
                self.fail(slot, session.err().unwrap_or(TlsFailure::Memory));
                self.say_in_plain(slot, NO_ROOM_ALERT);
                return false;
            }
        };
        slot.secure = Some(Box::new(Secure {
            session,
            held,
            turn: Some(Turn::take(&self.tls.in_progress)),
            begun_millis: self.now.millis,
            waiting: None,
            sent_bytes: 0,
        }));
        true
    }

    /// The handshake is complete: what it needed beyond the session is given back, and requests are waited for.
    ///
    /// # Errors
    /// When the session cannot go on all the same: the client's certificate has expired, or there is no memory for it.
    fn end_handshake(&mut self, slot: &mut Slot) -> Result<(), TlsFailure> {
        let Some(secure) = slot.secure.as_deref_mut() else { return Ok(()) };
        secure.turn = None;
        let bytes = TLS_IDLE_BYTES + secure.session.certificates_bytes();
        secure.held.shrink(bytes);
        if !secure.held.grow(bytes, Rank::Finish) {
            return Err(TlsFailure::Memory);
        }
        if secure.session.has_outlived_certificate(self.now.unix_seconds) {
            return Err(TlsFailure::ClientCertificateRefused);
        }
        self.metrics.tls.handshakes[secure.session.kind() as usize].increment();
        slot.stage = Stage::Fresh;
        slot.deadline = self.deadlines.header(self.now);
        Ok(())
    }

    /// TLS cannot go on. What tells the client is sent before or after.
    fn fail(&mut self, slot: &mut Slot, failure: TlsFailure) -> io::Error {
        self.metrics.tls.failures[failure as usize].increment();
        slot.flags.set_alerted(true);
        slot.flags.set_linger(true);
        io::ErrorKind::ConnectionAborted.into()
    }

    /// The client has gone without a word, if TLS is spoken and it has not said goodbye.
    pub(super) fn note_truncation(&self, slot: &Slot) {
        match slot.secure.as_deref() {
            Some(secure) if secure.session.is_peer_closed() => {}
            Some(secure) if secure.session.is_established() => self.metrics.tls.truncated.increment(),
            _ if slot.stage == Stage::Handshake => {
                self.metrics.tls.failures[TlsFailure::Left as usize].increment();
            }
            _ => {}
        }
    }

    /// Says something before there are keys. The socket is new and has room for it.
    fn say_in_plain(&mut self, slot: &Slot, bytes: &[u8]) {
        if let Ok(count) = socket::send(slot.socket.as_fd(), bytes, false) {
            self.metrics.bytes_sent.add(count as u64);
        }
    }

    /// Sends what this turn collected behind what earlier turns kept, as [`Worker::flush`] does. What a file follows waits
    /// for it if it is short.
    pub(super) fn flush_secure(&mut self, slot: &mut Slot, more: bool) -> io::Result<bool> {
        loop {
            if !self.send_records(slot)? {
                return self.keep_collected(slot).map(|()| false);
            }
            let kept = slot.exchange.as_deref().map_or(0, |exchange| exchange.unsent_bytes());
            let left = kept + self.outgoing.len();
            if left == 0 || more && left <= HEAD_BYTES_MAX {
                return Ok(true);
            }
            let bytes_max = write_bytes(slot, left);
            let count = self.gather(slot, bytes_max);
            let is_last = count == left && !more && slot.flags.close() && slot.stage == Stage::Idle;
            let Some(secure) = slot.secure.as_deref_mut() else {
                return Err(io::ErrorKind::NotConnected.into());
            };
            secure.seal(&self.tls.plain[..count], left, &mut self.tls.output)?;
            if is_last {
                secure.say_goodbye(&mut self.tls.output);
            }
            if !self.send_output(slot)? {
                return self.keep_collected(slot).map(|()| false);
            }
        }
    }

    /// Moves what is to be sent next to the buffer that is encrypted: what was kept, then what was collected. Returns how
    /// much it is.
    pub(super) fn gather(&mut self, slot: &mut Slot, bytes_max: usize) -> usize {
        let plain = &mut self.tls.plain[..bytes_max];
        let exchange = slot.exchange.as_deref_mut();
        let count = exchange.map_or(0, |exchange| take_unsent(&mut exchange.unsent, plain));
        count + self.outgoing.take(&mut plain[count..])
    }

    /// Room in the buffer that is encrypted.
    pub(super) fn room_to_seal(&mut self, range: std::ops::Range<usize>) -> &mut [u8] {
        &mut self.tls.plain[range]
    }

    /// Encrypts and sends what was gathered, of a response of which `left` bytes are left with it. False when the socket is
    /// full: nothing more may be encrypted until it has room.
    pub(super) fn send_sealed(&mut self, slot: &mut Slot, count: usize, left: usize) -> io::Result<bool> {
        let Some(secure) = slot.secure.as_deref_mut() else { return Err(io::ErrorKind::NotConnected.into()) };
        secure.seal(&self.tls.plain[..count], left, &mut self.tls.output)?;
        self.send_output(slot)
    }

    /// Sends records that the socket did not take before; false when it does not now.
    pub(super) fn send_records(&mut self, slot: &mut Slot) -> io::Result<bool> {
        let Some(secure) = slot.secure.as_deref_mut().filter(|secure| secure.has_unsent()) else {
            return Ok(true);
        };
        let (sent, all) = secure.waiting().resume(slot.socket.as_fd())?;
        self.metrics.bytes_sent.add(sent as u64);
        secure.tidy();
        if sent > 0 && slot.stage == Stage::Sending {
            slot.deadline = self.deadlines.write(self.now);
        }
        Ok(all)
    }

    /// Sends what was encrypted and keeps what the socket does not take; false when that is something.
    fn send_output(&mut self, slot: &mut Slot) -> io::Result<bool> {
        let Some(secure) = slot.secure.as_deref_mut() else { return Ok(true) };
        let output = &mut self.tls.output;
        if output.is_empty() {
            return Ok(!secure.has_unsent());
        }
        let sent = if secure.has_unsent() { Ok(0) } else { send(slot.socket.as_fd(), output.filled()) };
        let rest = match &sent {
            Ok(count) => &output.filled()[*count..],
            Err(_) => &[],
        };
        let kept = rest.is_empty() || secure.waiting().keep(rest, &self.pool);
        let all = !secure.has_unsent();
        output.clear();
        self.metrics.bytes_sent.add(sent? as u64);
        if kept { Ok(all) } else { Err(io::ErrorKind::OutOfMemory.into()) }
    }

    /// Says goodbye to a client whose connection ends as it should. False when it waits for the socket.
    pub(super) fn say_goodbye(&mut self, slot: &mut Slot) -> bool {
        let Some(secure) = slot.secure.as_deref_mut().filter(|_| !slot.flags.alerted()) else { return true };
        secure.say_goodbye(&mut self.tls.output);
        // Where it cannot be sent at all the client sees the connection end.
        self.send_output(slot).unwrap_or(true)
    }
}

/// How much of a response of which `left` bytes are left is encrypted before it is sent.
pub(super) fn write_bytes(slot: &Slot, left: usize) -> usize {
    let takes_all = || socket::send_room(slot.socket.as_fd()) >= 2 * WRITE_BYTES_MAX;
    if left > PLAIN_BYTES && takes_all() { PLAIN_BYTES_MAX } else { PLAIN_BYTES }
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

/// Plaintext that waited; `None` when there is none.
fn take_plain(plain: &mut Option<Buffer>, buffer: &mut [u8]) -> Option<usize> {
    let waiting = plain.as_mut()?;
    let count = waiting.filled_len().min(buffer.len());
    buffer[..count].copy_from_slice(&waiting.filled()[..count]);
    waiting.consume(count);
    if waiting.is_empty() {
        *plain = None;
    }
    Some(count)
}

/// Copies what waits for the socket as far as it fits, and forgets that.
fn take_unsent(unsent: &mut VecDeque<Unsent>, into: &mut [u8]) -> usize {
    let mut count = 0;
    while let Some(first) = unsent.front_mut() {
        let fits = first.bytes().len().min(into.len() - count);
        into[count..count + fits].copy_from_slice(&first.bytes()[..fits]);
        count += fits;
        if fits < first.length() {
            first.consume(fits);
            break;
        }
        unsent.pop_front();
    }
    count
}
