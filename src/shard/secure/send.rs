//! Plaintext gathered, encrypted and sent in as few writes as fit.

use std::{collections::VecDeque, io, ops::Range, os::fd::AsFd};

use super::{PLAIN_BYTES, PLAIN_BYTES_MAX, WRITE_BYTES_MAX, send};
use crate::{
    shard::{
        Worker,
        exchange::Unsent,
        outgoing,
        slot::{Slot, Stage},
    },
    sys::socket,
};

/// So much may wait for the file that follows it, to share a record with it.
const HEAD_BYTES_MAX: usize = 8 << 10;

impl Worker {
    /// Sends what this turn collected behind what earlier turns kept, as [`Worker::flush`] does. What a file follows waits
    /// for it if it is short.
    pub(in crate::shard) fn flush_secure(&mut self, slot: &mut Slot, more: bool) -> io::Result<bool> {
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
            if !self.send_sealed(slot, count, left, is_last)? {
                return self.keep_collected(slot).map(|()| false);
            }
        }
    }

    /// Moves what is to be sent next to the buffer that is encrypted: what was kept, then what was collected. Returns how
    /// much it is.
    pub(in crate::shard) fn gather(&mut self, slot: &mut Slot, bytes_max: usize) -> usize {
        let plain = &mut self.tls.plain[..bytes_max];
        let exchange = slot.exchange.as_deref_mut();
        let count = exchange.map_or(0, |exchange| take_unsent(&mut exchange.unsent, plain));
        count + self.outgoing.take(&mut plain[count..])
    }

    /// Room in the buffer that is encrypted.
    pub(in crate::shard) fn room_to_seal(&mut self, range: Range<usize>) -> &mut [u8] {
        &mut self.tls.plain[range]
    }

    /// Encrypts and sends what was gathered, of a response of which `left` bytes are left with it, and the goodbye behind it
    /// when it is the last. False when the socket is full: nothing more may be encrypted until it has room.
    pub(in crate::shard) fn send_sealed(
        &mut self,
        slot: &mut Slot,
        count: usize,
        left: usize,
        is_last: bool,
    ) -> io::Result<bool> {
        let Some(secure) = slot.secure.as_deref_mut() else { return Err(io::ErrorKind::NotConnected.into()) };
        secure.seal(&self.tls.plain[..count], left, &mut self.tls.output)?;
        if is_last {
            secure.say_goodbye(&mut self.tls.output);
        }
        self.send_output(slot)
    }

    /// Sends records that the socket did not take before; false when it does not now.
    pub(in crate::shard) fn send_records(&mut self, slot: &mut Slot) -> io::Result<bool> {
        let Some(secure) = slot.secure.as_deref_mut().filter(|secure| secure.has_unsent()) else {
            return Ok(true);
        };
        let (all, sent) = outgoing::resume(slot.socket.as_fd(), &mut secure.waiting().unsent, false)?;
        self.metrics.bytes_sent.add(sent as u64);
        secure.tidy();
        if sent > 0 && slot.stage == Stage::Sending {
            slot.deadline = self.deadlines.write(self.now);
        }
        Ok(all)
    }

    /// Sends what was encrypted and keeps what the socket does not take; false when that is something.
    pub(super) fn send_output(&mut self, slot: &mut Slot) -> io::Result<bool> {
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
    pub(in crate::shard) fn say_goodbye(&mut self, slot: &mut Slot) -> bool {
        let Some(secure) = slot.secure.as_deref_mut().filter(|_| !slot.flags.alerted()) else { return true };
        secure.say_goodbye(&mut self.tls.output);
        // Where it cannot be sent at all the client sees the connection end.
        self.send_output(slot).unwrap_or(true)
    }
}

/// How much of a response of which `left` bytes are left is encrypted before it is sent.
pub(in crate::shard) fn write_bytes(slot: &Slot, left: usize) -> usize {
    let takes_all = || socket::send_room(slot.socket.as_fd()) >= 2 * WRITE_BYTES_MAX;
    if left > PLAIN_BYTES && takes_all() { PLAIN_BYTES_MAX } else { PLAIN_BYTES }
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
