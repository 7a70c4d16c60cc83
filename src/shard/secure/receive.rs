//! Ciphertext in, plaintext out, and handshakes.

use std::{io, os::fd::AsFd};

use super::{NO_ROOM_ALERT, Secure, Turn};
use crate::{
    config::sizes::{TLS_HANDSHAKE_BYTES, TLS_IDLE_BYTES},
    memory::{Buffer, Rank, Tier},
    metrics::{Holder, TlsFailure},
    shard::{
        Worker,
        connection::Received,
        slot::{Slot, Stage},
    },
    sys::socket,
    tls::{Acceptor, RECORD_BYTES_MAX, Session},
};

/// What a client that speaks HTTP to a listener for TLS is told.
const PLAIN_RESPONSE: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 78\r\n\
Connection: close\r\n\r\n400 Bad Request: this port speaks HTTPS; use https:// instead of http:// here\n";

impl Worker {
    /// Receives ciphertext and gives the plaintext of it, as [`Worker::receive`] does. A handshake goes on as far as it can
    /// meanwhile; the connection has its first stage once that is complete.
    pub(in crate::shard) fn receive_secure(
        &mut self,
        slot: &mut Slot,
        buffer: &mut [u8],
    ) -> io::Result<Received> {
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
        let acceptor = if was_established { None } else { self.tls.acceptor(slot.listener) };
        let is_oversized = !secure.session.is_established()
            && rest.len() > acceptor.map_or(0, Acceptor::handshake_bytes_max);
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
        if let Some(name) = acceptor.and_then(Acceptor::take_server_name) {
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
    pub(in crate::shard) fn note_truncation(&self, slot: &Slot) {
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
