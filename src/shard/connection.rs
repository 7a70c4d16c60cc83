//! One connection's turn: receive, decode, have it answered (`responder`), send (`sender`); until it has to wait, is
//! done, or has had its share.
//!
//! Everything here runs on the driver and never waits. A request that is complete, answered at once and taken by
//! the socket costs one receive and one send and allocates nothing; whatever else a request needs is in its
//! [`Exchange`].

use std::{io, os::fd::AsFd};

use super::{
    Worker,
    exchange::Exchange,
    slot::{Key, Slot, Stage},
};
use crate::{
    http::{Parts, Request},
    http1::{self, Decoded, Refusal},
    memory::{Buffer, Rank},
    metrics::{Timeout, TlsFailure},
    service::Response,
    sys::socket,
};

/// Requests answered in one turn before other connections get theirs.
const REQUESTS_PER_TURN: u32 = 64;

/// What becomes of a connection after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// There may be more to do now.
    Again,
    /// Nothing to do before an event, a notice or a deadline.
    Wait,
    /// It has had its share: serve others, then it again.
    Yield,
    /// Close it.
    Close,
}

/// What receiving gave.
pub(super) enum Received {
    Bytes(usize),
    Nothing,
    End,
}

impl Worker {
    /// Serves a connection until it has to wait or has had its share.
    pub fn serve(&mut self, slot: &mut Slot, key: Key) -> Step {
        let before = slot.requests;
        loop {
            let step = match slot.stage {
                Stage::Handshake | Stage::Fresh | Stage::Idle | Stage::Head => {
                    self.receive_requests(slot, key)
                }
                Stage::Body => self.receive_body(slot, key),
                Stage::Waiting => self.resume_unsent(slot),
                Stage::Sending => self.send(slot, key),
                Stage::Lingering => self.linger(slot),
            };
            // A response whose file is sent next is still in the shard's own buffer: the next connection must not
            // find it there, so it leaves before the turn ends.
            let had_its_share = slot.requests.wrapping_sub(before) >= REQUESTS_PER_TURN;
            // The client is to read its alert.
            let is_alerted = slot.flags.alerted() && slot.stage != Stage::Lingering;
            let step = if step == Step::Close && is_alerted { self.end(slot) } else { step };
            match step {
                Step::Again if had_its_share && slot.stage != Stage::Sending => return Step::Yield,
                Step::Again => {}
                other => return other,
            }
        }
    }

    /// A handler's answer came.
    pub fn answer(&mut self, slot: &mut Slot, key: Key, response: Response) -> Step {
        let head = slot.exchange.as_mut().and_then(|exchange| exchange.head.take());
        let (Some(head), Some(mut parts)) = (head, self.parts.take()) else { return Step::Close };
        if let Some(exchange) = &mut slot.exchange {
            exchange.extra = None;
        }
        slot.stage = Stage::Idle;
        let step = if decode_kept(&head, &mut parts) {
            let request = Request { bytes: head.filled(), parts: &parts };
            self.respond(slot, request, response)
        } else {
            Step::Close
        };
        self.parts = Some(parts);
        if step == Step::Close {
            return step;
        }
        match self.settle(slot, step) {
            Step::Close => Step::Close,
            _ => self.serve(slot, key),
        }
    }

    /// A deadline passed.
    pub fn expire(&mut self, slot: &mut Slot) -> Step {
        if self.draining && slot.stage == Stage::Idle {
            return slot.ask_to_end();
        }
        if matches!(slot.stage, Stage::Sending | Stage::Idle) && self.has_progressed(slot) {
            return Step::Wait;
        }
        let (timeout, refusal) = match slot.stage {
            Stage::Handshake => {
                self.metrics.tls.failures[TlsFailure::Timeout as usize].increment();
                (Timeout::Handshake, None)
            }
            Stage::Fresh => (Timeout::Header, None),
            Stage::Head => (Timeout::Header, Some(Refusal::HeaderTimeout)),
            Stage::Body if slot.flags.starved() => (Timeout::Body, Some(Refusal::BodyMemory)),
            Stage::Body => (Timeout::Body, Some(Refusal::BodyTimeout)),
            Stage::Idle => (Timeout::Idle, None),
            Stage::Waiting | Stage::Sending => (Timeout::Write, None),
            Stage::Lingering => return Step::Close,
        };
        self.metrics.count_timeout(timeout);
        let Some(refusal) = refusal else { return Step::Close };
        let kept = take_kept(slot);
        self.refuse(slot, refusal, kept.as_ref().map_or(&[], |kept| kept.filled()));
        self.settle(slot, Step::Wait)
    }

    /// Receives into the shard's scratch, or behind what the connection keeps, and answers what is complete.
    fn receive_requests(&mut self, slot: &mut Slot, key: Key) -> Step {
        let Some(mut input) = slot.exchange.as_mut().and_then(|exchange| exchange.input.take()) else {
            let mut scratch = std::mem::take(&mut self.scratch);
            let step = match self.receive(slot, &mut scratch) {
                Ok(Received::Bytes(count)) => {
                    self.scanned = 0;
                    let (used, step) = self.process(slot, key, &scratch[..count]);
                    self.keep_rest(slot, step, &scratch[used..count])
                }
                Ok(Received::Nothing) => self.rest(slot),
                Ok(Received::End) | Err(_) => Step::Close,
            };
            self.scratch = scratch;
            return step;
        };
        self.scanned = slot.exchange.as_ref().map_or(0, |exchange| exchange.scanned);
        // What is kept is a partial head (`Stage::Head`), which needs more bytes, or requests that waited for the
        // response before them, which may not.
        if slot.stage == Stage::Head {
            if input.unfilled().is_empty() {
                // Heads are bounded by the largest buffer, so a larger one exists unless memory is short.
                match self.copy_to_pool(input.filled(), 1) {
                    Some(larger) => input = larger,
                    None => {
                        self.refuse_for_memory(slot, input.filled());
                        return self.settle(slot, Step::Again);
                    }
                }
            }
            match self.receive(slot, input.unfilled()) {
                Ok(Received::Bytes(count)) => input.add_filled(count),
                Ok(Received::Nothing) => {
                    input.add_filled(0);
                    self.put_back_input(slot, input);
                    return Step::Wait;
                }
                Ok(Received::End) | Err(_) => return Step::Close,
            }
        }
        let (used, step) = self.process(slot, key, input.filled());
        if used == 0 && step != Step::Close && slot.stage != Stage::Lingering {
            self.put_back_input(slot, input);
            return step;
        }
        self.keep_rest(slot, step, &input.filled()[used..])
    }

    /// Input goes back to the exchange that it was taken from.
    fn put_back_input(&mut self, slot: &mut Slot, input: Buffer) {
        if let Some(exchange) = &mut slot.exchange {
            exchange.input = Some(input);
            exchange.scanned = self.scanned;
        }
    }

    /// Nothing came. A connection that has answered its requests gives back what it held, and ends if a drain has
    /// asked it to.
    fn rest(&mut self, slot: &mut Slot) -> Step {
        let is_amid_record = slot.secure.as_ref().map(|secure| secure.is_amid_record());
        match slot.stage {
            Stage::Fresh | Stage::Idle if is_amid_record == Some(true) => {
                // A part of a record is held for it, like a part of a head.
                slot.stage = Stage::Head;
                slot.deadline = self.deadlines.header(self.now);
            }
            Stage::Head if is_amid_record == Some(false) => {
                // The record had nothing of a request.
                slot.stage = if slot.requests == 0 { Stage::Fresh } else { Stage::Idle };
                if slot.stage == Stage::Idle {
                    self.begin_idle(slot);
                }
            }
            _ => {}
        }
        if slot.stage == Stage::Idle {
            if slot.flags.close() {
                return self.end(slot);
            }
            self.release(slot);
        }
        Step::Wait
    }

    /// Keeps bytes that no request has used yet. Where there is no memory for them, a head that has begun is refused,
    /// and requests that were sent ahead are not looked at: the response in progress is the last.
    pub(super) fn keep_rest(&mut self, slot: &mut Slot, step: Step, rest: &[u8]) -> Step {
        if rest.is_empty() || step == Step::Close || slot.stage == Stage::Lingering {
            return step;
        }
        if let Some(input) = self.copy_to_pool(rest, 0)
            && self.exchange(slot, Rank::Start).is_some()
        {
            self.put_back_input(slot, input);
            return step;
        }
        if matches!(slot.stage, Stage::Fresh | Stage::Idle | Stage::Head) {
            self.refuse_for_memory(slot, rest);
            return self.settle(slot, Step::Again);
        }
        slot.flags.set_close(true);
        slot.flags.set_linger(true);
        step
    }

    /// Answers the complete requests at the start of `bytes`, in order, and sends the answers together.
    /// Returns how many bytes were used.
    fn process(&mut self, slot: &mut Slot, key: Key, bytes: &[u8]) -> (usize, Step) {
        let Some(mut parts) = self.parts.take() else { return (0, Step::Close) };
        let before = slot.requests;
        let mut used = 0;
        let step = loop {
            let rest = &bytes[used..];
            if rest.is_empty() {
                break Step::Again;
            }
            if self.outgoing.is_full() || slot.requests.wrapping_sub(before) >= REQUESTS_PER_TURN {
                break Step::Yield;
            }
            match http1::decode_from(rest, &mut self.scanned, &self.limits, &mut parts) {
                Ok(Decoded::Complete) => {
                    let request = Request { bytes: rest, parts: &parts };
                    let (count, step) = self.begin(slot, key, request);
                    used += count;
                    // Anything but an answer in memory ends the batch: a wait, a file, the connection's end.
                    if step != Step::Again || slot.stage != Stage::Idle || slot.flags.close() {
                        break step;
                    }
                }
                Ok(Decoded::Partial) => {
                    if slot.stage != Stage::Head {
                        slot.stage = Stage::Head;
                        slot.deadline = self.deadlines.header(self.now);
                    }
                    break Step::Again;
                }
                Err(refusal) => {
                    self.refuse(slot, refusal, rest);
                    used = bytes.len();
                    break Step::Again;
                }
            }
        };
        self.parts = Some(parts);
        if slot.flags.close() && used < bytes.len() {
            // Bytes that will never be read must not turn the close into a reset.
            slot.flags.set_linger(true);
        }
        (used, self.settle(slot, step))
    }

    /// Takes one request whose head is complete: its body, then its answer. Returns the bytes it used.
    fn begin(&mut self, slot: &mut Slot, key: Key, request: Request<'_>) -> (usize, Step) {
        slot.stage = Stage::Idle;
        let head_length = request.parts.length as usize;
        if !request.parts.framing.has_body() {
            return (head_length, self.dispatch(slot, key, request, Some(&[])));
        }
        self.begin_body(slot, key, request)
    }

    /// Reads what is there and notes whether there may be more: a short read means that the socket is empty,
    /// unless the peer has finished, for then the end of the stream is still to be read.
    pub(super) fn receive(&mut self, slot: &mut Slot, buffer: &mut [u8]) -> io::Result<Received> {
        if slot.is_secure() {
            return self.receive_secure(slot, buffer);
        }
        self.receive_bytes(slot, buffer)
    }

    /// The same as it comes from the socket.
    pub(super) fn receive_bytes(&mut self, slot: &mut Slot, buffer: &mut [u8]) -> io::Result<Received> {
        if !slot.flags.readable() {
            return Ok(Received::Nothing);
        }
        loop {
            return match socket::receive(slot.socket.as_fd(), buffer) {
                Ok(0) => {
                    slot.flags.set_readable(false);
                    Ok(Received::End)
                }
                Ok(count) => {
                    self.metrics.bytes_received.add(count as u64);
                    slot.flags.set_readable(count == buffer.len() || slot.flags.peer_finished());
                    Ok(Received::Bytes(count))
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    slot.flags.set_readable(false);
                    Ok(Received::Nothing)
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
        }
    }

    /// The connection's exchange, from the stock if it has none; `None` when memory is short.
    pub(super) fn exchange<'s>(&mut self, slot: &'s mut Slot, rank: Rank) -> Option<&'s mut Exchange> {
        if slot.exchange.is_none() {
            slot.exchange = Some(self.exchanges.put(Exchange::default(), rank)?);
        }
        slot.exchange.as_deref_mut()
    }

    /// A pooled copy with room for `extra` more bytes; `None` when memory is short.
    pub(super) fn copy_to_pool(&self, bytes: &[u8], extra: usize) -> Option<Buffer> {
        let mut buffer = self.pool.get(bytes.len() + extra, Rank::Start)?;
        buffer.extend_from_slice(bytes).then_some(buffer)
    }
}

/// What was received of the request in progress, as far as it is kept.
pub(super) fn take_kept(slot: &mut Slot) -> Option<Buffer> {
    slot.exchange.as_mut().and_then(|exchange| exchange.head.take().or(exchange.input.take()))
}

/// Finds the parts of a head that was accepted before: offsets are cheap to find and dear to keep. True unless by a
/// bug; the limits are the widest, because a reload may have lowered those it was accepted under.
pub(super) fn decode_kept(head: &Buffer, parts: &mut Parts) -> bool {
    let limits = http1::Limits { header_bytes: usize::MAX, headers: 1024, target_bytes: usize::MAX };
    matches!(http1::decode(head.filled(), &limits, parts), Ok(Decoded::Complete))
}
