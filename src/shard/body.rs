//! The body of a request: read to its end before the request is answered, gathered for a handler that wants it whole,
//! dropped otherwise.
//!
//! Whatever a peer does with it, nothing here waits: a body that has not come is a deadline of its connection.

use super::{
    Worker,
    connection::{Received, Step, decode_kept},
    slot::{Key, Slot, Stage},
};
use crate::{
    http::{Framing, Request},
    http1::{BodyDecoder, Piece, Refusal},
    memory::{Gathered, Rank, Sources},
    service::BodyWanted,
};

/// How long a body waits for memory before its request is refused.
const MEMORY_WAIT_MILLIS: u64 = 5000;

impl Worker {
    /// Takes the body of a request whose head is complete, as far as it was received. Returns the bytes that head and body
    /// used.
    pub(super) fn begin_body(&mut self, slot: &mut Slot, key: Key, request: Request<'_>) -> (usize, Step) {
        let head_length = request.parts.length as usize;
        let received = &request.bytes[head_length..];
        let asks_first = request.parts.expect_continue && received.is_empty();
        let wanted = if asks_first || self.router.has_handlers() {
            self.body_wanted(slot, request)
        } else {
            BodyWanted::Dropped
        };
        let bytes_max = match (self.body_bytes_max, wanted) {
            // What is gathered has a limit all the same.
            (0, BodyWanted::Whole) => self.bodies.bytes_max() as u64,
            (bytes_max, _) => bytes_max,
        };
        let mut body = match BodyDecoder::new(request.parts.framing, bytes_max) {
            Ok(body) => body,
            Err(refusal) => {
                self.refuse(slot, refusal, request.bytes);
                return (request.bytes.len(), Step::Again);
            }
        };
        if asks_first {
            if wanted == BodyWanted::Refused {
                // RFC 9110 10.1.1: a final status instead of 100. Whether the client sends the body after all
                // cannot be known, so the connection ends here.
                slot.flags.set_close(true);
                slot.flags.set_linger(true);
                return (head_length, self.dispatch(slot, key, request, None));
            }
            self.outgoing.push_static(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        let mut gathered = None;
        if wanted == BodyWanted::Whole {
            if let Some(whole) = whole_body(request.parts.framing, received) {
                // Read where it was received.
                return (head_length + whole.len(), self.dispatch(slot, key, request, Some(whole)));
            }
            gathered = Some(Gathered::new(bytes_expected(request.parts.framing, bytes_max)));
        }
        match self.take_body(&mut body, gathered.as_mut(), received) {
            Ok((count, true)) => {
                let whole = gathered.as_ref().map(Gathered::bytes);
                (head_length + count, self.dispatch(slot, key, request, whole))
            }
            Ok((count, false)) => {
                let head = self.copy_to_pool(&request.bytes[..head_length], 0);
                let Some(exchange) = self.exchange(slot, Rank::Start).filter(|_| head.is_some()) else {
                    self.refuse_for_memory(slot, request.bytes);
                    return (request.bytes.len(), Step::Again);
                };
                exchange.head = head;
                exchange.body = Some(body);
                exchange.gathered = gathered;
                slot.stage = Stage::Body;
                slot.deadline = self.deadlines.body(self.now);
                (head_length + count, Step::Again)
            }
            Err(refusal) => {
                self.refuse(slot, refusal, request.bytes);
                (request.bytes.len(), Step::Again)
            }
        }
    }

    /// Reads a body to its end, then answers the request it belongs to.
    pub(super) fn receive_body(&mut self, slot: &mut Slot, key: Key) -> Step {
        if self.resume_unsent(slot) == Step::Close {
            return Step::Close;
        }
        let Some(room) = self.body_room(slot) else { return self.starve(slot, key) };
        let mut scratch = std::mem::take(&mut self.scratch);
        let room = room.min(scratch.len());
        let step = match self.receive(slot, &mut scratch[..room]) {
            Ok(Received::Bytes(count)) => self.continue_body(slot, key, &scratch[..count]),
            Ok(Received::Nothing) => Step::Wait,
            // The body was cut short: there is no request to answer (RFC 9112 8).
            Ok(Received::End) | Err(_) => Step::Close,
        };
        self.scratch = scratch;
        step
    }

    /// Bytes that can be received of a body; `None` when there is no memory for a single one.
    fn body_room(&self, slot: &mut Slot) -> Option<usize> {
        let gathered = slot.exchange.as_mut().and_then(|exchange| exchange.gathered.as_mut());
        let Some(gathered) = gathered else { return Some(usize::MAX) };
        Some(gathered.make_room(self.sources())).filter(|room| *room > 0)
    }

    /// There is no memory for more of a body: what the peer sends stays in the socket, and the connection waits in line
    /// until there is some, or for five seconds.
    fn starve(&mut self, slot: &mut Slot, key: Key) -> Step {
        let Some(exchange) = slot.exchange.as_deref_mut() else { return Step::Close };
        if exchange.starved_millis == 0 {
            exchange.starved_millis = self.now.millis.max(1);
        }
        if self.now.millis.saturating_sub(exchange.starved_millis) >= MEMORY_WAIT_MILLIS {
            let head = exchange.head.take();
            self.refuse(slot, Refusal::BodyMemory, head.as_ref().map_or(&[], |head| head.filled()));
            return self.settle(slot, Step::Again);
        }
        if !slot.flags.starved() {
            slot.flags.set_starved(true);
            self.starved.push_back(key);
        }
        Step::Wait
    }

    /// Where bodies have their memory from.
    fn sources(&self) -> Sources<'_> {
        Sources { pool: &self.pool, share: &self.share, allowance: &self.bodies }
    }

    fn continue_body(&mut self, slot: &mut Slot, key: Key, bytes: &[u8]) -> Step {
        slot.deadline = self.deadlines.body(self.now);
        let Some(exchange) = slot.exchange.as_deref_mut() else { return Step::Close };
        exchange.starved_millis = 0;
        let Some(body) = &mut exchange.body else { return Step::Close };
        match self.take_body(body, exchange.gathered.as_mut(), bytes) {
            // A client that sends as fast as it is read would otherwise never let others have their turn.
            Ok((_, false)) => {
                if slot.flags.readable() {
                    Step::Yield
                } else {
                    Step::Wait
                }
            }
            Ok((used, true)) => {
                exchange.body = None;
                let gathered = exchange.gathered.take();
                let (Some(head), Some(mut parts)) = (exchange.head.take(), self.parts.take()) else {
                    return Step::Close;
                };
                slot.stage = Stage::Idle;
                let step = if decode_kept(&head, &mut parts) {
                    let request = Request { bytes: head.filled(), parts: &parts };
                    self.dispatch(slot, key, request, gathered.as_ref().map(Gathered::bytes))
                } else {
                    Step::Close
                };
                self.parts = Some(parts);
                if step == Step::Close {
                    return step;
                }
                if slot.flags.close() && used < bytes.len() {
                    slot.flags.set_linger(true);
                }
                let step = self.settle(slot, step);
                // What follows the body was not looked at; the count may be that of another connection.
                self.scanned = 0;
                self.keep_rest(slot, step, &bytes[used..])
            }
            Err(refusal) => {
                let head = exchange.head.take();
                self.refuse(slot, refusal, head.as_ref().map_or(&[], |head| head.filled()));
                self.settle(slot, Step::Again)
            }
        }
    }

    /// Runs body bytes through the decoder; what they hold is gathered, or dropped. Says how many were used and whether the
    /// body has ended.
    fn take_body(
        &self,
        body: &mut BodyDecoder,
        mut gathered: Option<&mut Gathered>,
        bytes: &[u8],
    ) -> Result<(usize, bool), Refusal> {
        let mut used = 0;
        loop {
            let (count, piece) = body.decode(&bytes[used..])?;
            used += count;
            match (piece, &mut gathered) {
                (Piece::Data(data), Some(gathered)) => {
                    if !gathered.push(data, self.sources()) {
                        return Err(Refusal::BodyMemory);
                    }
                }
                (Piece::Data(_), None) => {}
                (Piece::More, _) => return Ok((used, false)),
                (Piece::End, _) => return Ok((used, true)),
            }
        }
    }
}

/// The body, if its length is told and all of it was received; what follows it is left out.
fn whole_body(framing: Framing, received: &[u8]) -> Option<&[u8]> {
    match framing {
        Framing::Length(length) => received.get(..usize::try_from(length).ok()?),
        Framing::None | Framing::Chunked => None,
    }
}

/// How long a body can be at most: as long as it says, else as the limit says.
fn bytes_expected(framing: Framing, bytes_max: u64) -> usize {
    let bytes = match framing {
        Framing::Length(length) => length,
        Framing::None | Framing::Chunked => bytes_max,
    };
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
