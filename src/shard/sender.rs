//! How a body leaves, and how a connection ends.
//!
//! | body | way out |
//! | --- | --- |
//! | in memory, or mapped | the same send as its head (`outgoing`) |
//! | a file in the page cache | `sendfile` in 2 MB steps, the head before it with `MSG_MORE` |
//! | a file that is not | read into it a window at a time, or for a fast client through io_uring past it (`cold`) |
//! | any of them over TLS | copied, or read, into the buffer that is encrypted, a write of it at a time (`secure`) |

use std::{io, os::fd::AsFd};

use super::{
    Worker,
    connection::{Received, Step},
    file::SENDFILE_STEP_BYTES,
    listener::no_room,
    outgoing,
    slot::{Key, Slot, Stage},
};
use crate::{memory::Rank, sys::socket};

/// Bytes thrown away from a client that sends on after its connection ended; then it is cut.
const LINGER_BYTES_MAX: u32 = 1 << 20;

impl Worker {
    /// Goes on with a response, and notes where it stands when it has to wait.
    pub(super) fn send(&mut self, slot: &mut Slot, key: Key) -> Step {
        let step = self.send_what_fits(slot, key);
        if step == Step::Wait {
            slot.stage_bytes = in_flight(slot);
        }
        step
    }

    /// The write or idle deadline passed. The kernel says that a socket has room again only when a third of its buffer
    /// is free, and takes a response's last megabytes long before the peer has them: a slow client that has
    /// acknowledged anything since has made progress, and is not idle.
    pub(super) fn has_progressed(&mut self, slot: &mut Slot) -> bool {
        let in_flight = in_flight(slot);
        let progressed = in_flight < slot.stage_bytes && (in_flight > 0 || slot.stage == Stage::Sending);
        if progressed {
            slot.stage_bytes = in_flight;
            slot.deadline = match slot.stage {
                Stage::Idle => self.deadlines.idle(self.now),
                _ => self.deadlines.write(self.now),
            };
        }
        progressed
    }

    /// Kept bytes first, then the file; of several parts each behind the text before it.
    fn send_what_fits(&mut self, slot: &mut Slot, key: Key) -> Step {
        let before = body_bytes(slot);
        loop {
            let file = slot.exchange.as_ref().and_then(|exchange| exchange.file.as_ref());
            let (has_file, file_follows) = (file.is_some(), file.is_some_and(|body| body.offset < body.end));
            match self.flush(slot, file_follows) {
                Err(_) => return self.cut(slot),
                Ok(false) => return Step::Wait,
                Ok(true) => {}
            }
            if !has_file {
                break;
            }
            let sent =
                if slot.is_secure() { self.send_file_secure(slot, key) } else { self.send_file(slot, key) };
            match sent {
                // Parts that are no step each are one together.
                Ok(Step::Again) if body_bytes(slot) - before > SENDFILE_STEP_BYTES => return Step::Yield,
                Ok(Step::Again) => {}
                Ok(step) => return step,
                Err(error) => {
                    if error.kind() == io::ErrorKind::UnexpectedEof {
                        tracing::warn!("a file became shorter while it was sent; the connection is closed");
                    }
                    return self.cut(slot);
                }
            }
            if !self.next_part(slot) {
                self.finish_file(slot);
                break;
            }
        }
        slot.stage = Stage::Idle;
        if slot.flags.close() {
            return self.end(slot);
        }
        self.begin_idle(slot);
        Step::Again
    }

    /// From now on the next request is waited for.
    pub(super) fn begin_idle(&mut self, slot: &mut Slot) {
        slot.stage_bytes = u32::MAX;
        slot.deadline = self.deadlines.idle(self.now);
        if let Some(secure) = slot.secure.as_deref_mut() {
            secure.begin_response();
        }
    }

    /// Sends what this turn collected behind what earlier turns kept. False when the socket is full.
    pub(super) fn flush(&mut self, slot: &mut Slot, more: bool) -> io::Result<bool> {
        let flushed = self.flush_kept_and_collected(slot, more);
        if let Err(error) = &flushed
            && outgoing::is_file_changed(error)
        {
            self.metrics.responses_cut.add(1);
            tracing::warn!("a mapped file changed while it was sent; the connection is closed");
        }
        flushed
    }

    fn flush_kept_and_collected(&mut self, slot: &mut Slot, more: bool) -> io::Result<bool> {
        if slot.is_secure() {
            return self.flush_secure(slot, more);
        }
        let kept = slot.exchange.as_ref().is_some_and(|exchange| !exchange.unsent.is_empty());
        if !kept {
            if self.outgoing.is_empty() {
                return Ok(true);
            }
            let bytes = self.outgoing.len();
            if self.outgoing.flush(slot.socket.as_fd(), more)? {
                self.metrics.bytes_sent.add(bytes as u64);
                return Ok(true);
            }
            self.metrics.bytes_sent.add((bytes - self.outgoing.len()) as u64);
        }
        self.keep_collected(slot)?;
        if !kept {
            return Ok(false);
        }
        let Some(exchange) = slot.exchange.as_deref_mut() else { return Ok(true) };
        let socket = slot.socket.as_fd();
        let (all, sent) = outgoing::resume(socket, &mut exchange.unsent, more)?;
        self.metrics.bytes_sent.add(sent as u64);
        if sent > 0 && slot.stage == Stage::Sending {
            slot.deadline = self.deadlines.write(self.now);
        }
        Ok(all)
    }

    /// Moves what this turn collected and did not send behind what earlier turns kept.
    pub(super) fn keep_collected(&mut self, slot: &mut Slot) -> io::Result<()> {
        if self.outgoing.is_empty() {
            return Ok(());
        }
        if self.exchange(slot, Rank::Finish).is_none() {
            self.outgoing.discard();
        }
        let exchange = slot.exchange.as_deref_mut();
        let kept = exchange.is_some_and(|exchange| self.outgoing.keep(&self.pool, exchange));
        if kept { Ok(()) } else { Err(io::ErrorKind::OutOfMemory.into()) }
    }

    /// While something else is waited for: goes on with bytes that the socket did not take.
    pub(super) fn resume_unsent(&mut self, slot: &mut Slot) -> Step {
        match self.flush(slot, false) {
            Ok(_) => Step::Wait,
            Err(_) => Step::Close,
        }
    }

    /// The response cannot be finished: what was sent is logged, and the connection is closed so that the client
    /// sees a short message (RFC 9112 8).
    fn cut(&mut self, slot: &mut Slot) -> Step {
        self.outgoing.discard();
        let record = slot.exchange.as_mut().and_then(|exchange| exchange.record.take());
        if let Some(record) = record {
            let head = slot.exchange.as_mut().and_then(|exchange| exchange.head.take());
            self.metrics.responses_cut.add(1);
            self.count_response(record.status);
            self.log_kept(slot, head.as_ref(), record);
        }
        Step::Close
    }

    /// Everything was handed to the kernel and the connection shall end: at once if the peer has all of it and
    /// nothing in flight that we would leave unread, after lingering otherwise. To what comes later a closed socket
    /// answers with a reset, which would destroy the response that is still under way (RFC 9112 9.6).
    pub(super) fn end(&mut self, slot: &mut Slot) -> Step {
        let delivered = || matches!(socket::unacknowledged_bytes(slot.socket.as_fd()), Ok(0));
        if !slot.flags.linger() && !slot.flags.readable() && delivered() {
            return Step::Close;
        }
        if !self.say_goodbye(slot) {
            slot.flags.set_close(true);
            slot.stage = Stage::Sending;
            slot.stage_bytes = in_flight(slot);
            slot.deadline = self.deadlines.write(self.now);
            return Step::Wait;
        }
        if socket::finish_sending(slot.socket.as_fd()).is_err() {
            return Step::Close;
        }
        self.release(slot);
        slot.secure = None;
        slot.stage = Stage::Lingering;
        slot.stage_bytes = 0;
        slot.deadline = self.deadlines.linger(self.now);
        Step::Again
    }

    /// [`Worker::end`] for a response that the kernel took whole in the turn that made it. A peer that asked for the
    /// close sends nothing after its request, so there is nothing to reset the connection: no need to ask how far the
    /// response got, or to stay until it has. Four system calls a connection instead of seven to ten.
    pub(super) fn end_at_once(&mut self, slot: &mut Slot) -> Step {
        if slot.flags.last_request() && !slot.flags.linger() && !slot.flags.readable() {
            return Step::Close;
        }
        self.end(slot)
    }

    pub(super) fn linger(&mut self, slot: &mut Slot) -> Step {
        let mut scratch = std::mem::take(&mut self.scratch);
        let step = loop {
            match self.receive_bytes(slot, &mut scratch) {
                Ok(Received::Bytes(count)) => {
                    slot.stage_bytes =
                        slot.stage_bytes.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
                    if slot.stage_bytes > LINGER_BYTES_MAX {
                        break Step::Close;
                    }
                }
                Ok(Received::Nothing) => break Step::Wait,
                Ok(Received::End) | Err(_) => break Step::Close,
            }
        };
        self.scratch = scratch;
        step
    }

    /// Says 503 to a connection there is no room for.
    pub fn shed(&mut self, slot: &mut Slot) -> Step {
        let told = no_room(slot.is_secure());
        match socket::send(slot.socket.as_fd(), told, false) {
            Ok(count) if count == told.len() => {
                slot.flags.set_linger(true);
                self.end(slot)
            }
            _ => Step::Close,
        }
    }

    /// The connection is closed: a response in progress is logged as far as it went.
    pub(super) fn abandon(&mut self, slot: &mut Slot) {
        if slot.stage == Stage::Sending {
            self.cut(slot);
        } else if slot.is_secure() {
            self.say_goodbye(slot);
        }
        self.release(slot);
    }

    /// Gives back whatever the connection holds but its slot.
    pub(super) fn release(&mut self, slot: &mut Slot) {
        slot.exchange = None;
    }
}

/// Bytes of the current response's body handed to the kernel so far, if it is a file's.
fn body_bytes(slot: &Slot) -> u64 {
    let record = slot.exchange.as_ref().and_then(|exchange| exchange.record);
    record.map_or(0, |record| record.body_bytes)
}

/// Bytes sent and not acknowledged; none if the socket cannot tell.
pub(super) fn in_flight(slot: &Slot) -> u32 {
    let bytes = socket::unacknowledged_bytes(slot.socket.as_fd()).unwrap_or(0);
    u32::try_from(bytes).unwrap_or(u32::MAX)
}
