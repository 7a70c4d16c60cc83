//! The access log's lines, in the combined format, collected by a shard until there are enough to hand over.

use std::{
    io::Write,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use super::{
    date,
    queue::{BATCHES_MAX, BatchQueue},
};
use crate::metrics::ShardMetrics;

/// Bytes of a batch.
const BATCH_BYTES: usize = 64 << 10;
/// Bytes that one field of a peer's making may take, escapes included. A longer one is cut and ends in `...`.
const FIELD_BYTES_MAX: usize = 8 << 10;
const CUT: &[u8] = b"...";
/// All of a line but those three fields: an IPv6 address (45), the date (28), a status (5), a length (20) and
/// the 17 bytes between them.
const FIXED_BYTES_MAX: usize = 45 + date::COMBINED_BYTES + 5 + 20 + 17;

const _: () =
    assert!(FIXED_BYTES_MAX + 3 * (FIELD_BYTES_MAX + CUT.len()) <= BATCH_BYTES, "a batch takes any line");

/// One shard's part of the access log.
///
/// It holds at most eight batches of 64 KB, made when they are first needed and reused from then on. While all
/// of them are on their way to a writer that does not keep up, lines are dropped and counted in
/// `ShardMetrics::access_log_dropped`.
#[derive(Debug)]
pub struct AccessLog {
    /// The batch being filled; without capacity until a line needs one.
    batch: Vec<u8>,
    batches_made: usize,
    queue: BatchQueue,
    metrics: Arc<ShardMetrics>,
    date_seconds: u64,
    date: [u8; date::COMBINED_BYTES],
}

impl AccessLog {
    pub(super) fn new(queue: BatchQueue, metrics: Arc<ShardMetrics>) -> Self {
        AccessLog {
            batch: Vec::new(),
            batches_made: 0,
            queue,
            metrics,
            date_seconds: 0,
            date: date::combined(0),
        }
    }

    /// Appends the line of one answered request. Hands the batch over when the line does not fit.
    pub fn record(&mut self, entry: &Entry<'_>) {
        if !self.make_room(entry.line_bytes_max()) {
            self.metrics.access_log_dropped.increment();
            return;
        }
        if self.date_seconds != entry.unix_seconds {
            self.date_seconds = entry.unix_seconds;
            self.date = date::combined(entry.unix_seconds);
        }
        let line = &mut self.batch;
        push_peer(line, entry.peer);
        line.extend_from_slice(b" - - ");
        line.extend_from_slice(&self.date);
        line.extend_from_slice(b" \"");
        push_field(line, Some(entry.request_line));
        line.extend_from_slice(b"\" ");
        push_decimal(line, u64::from(entry.status));
        line.push(b' ');
        push_decimal(line, entry.body_bytes_sent);
        line.extend_from_slice(b" \"");
        push_field(line, entry.referer);
        line.extend_from_slice(b"\" \"");
        push_field(line, entry.user_agent);
        line.extend_from_slice(b"\"\n");
    }

    /// Whether lines wait for the next flush.
    pub fn has_lines(&self) -> bool {
        !self.batch.is_empty()
    }

    /// Hands the lines collected so far to the writer; for the shard's tick. When the writer's queue is full they
    /// stay, and go with the next call.
    pub fn flush(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        if let Err(lines) = self.queue.send(std::mem::take(&mut self.batch)) {
            self.batch = lines;
        }
    }

    /// Makes sure that the batch takes `bytes` more without growing.
    fn make_room(&mut self, bytes: usize) -> bool {
        if self.batch.capacity() - self.batch.len() >= bytes {
            return true;
        }
        self.flush();
        if self.batch.capacity() == 0 {
            match self.queue.returned() {
                Some(batch) => self.batch = batch,
                None => self.make_batch(),
            }
        }
        self.batch.capacity() - self.batch.len() >= bytes
    }

    fn make_batch(&mut self) {
        if self.batches_made < BATCHES_MAX && self.batch.try_reserve_exact(BATCH_BYTES).is_ok() {
            self.batches_made += 1;
        }
    }
}

impl Drop for AccessLog {
    /// The last lines go to the writer too, or are counted as dropped.
    fn drop(&mut self) {
        self.flush();
        self.metrics.access_log_dropped.add(count_lines(&self.batch));
    }
}

/// What is logged of one request.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Who asked.
    pub peer: Peer,
    /// When the response was complete, in Unix time.
    pub unix_seconds: u64,
    /// The request line as received, without its line end; may be empty or malformed in a refused request.
    pub request_line: &'a [u8],
    /// Status code sent.
    pub status: u16,
    /// Bytes of content sent, without the head.
    pub body_bytes_sent: u64,
    /// The `Referer` field.
    pub referer: Option<&'a [u8]>,
    /// The `User-Agent` field.
    pub user_agent: Option<&'a [u8]>,
}

impl Entry<'_> {
    /// An upper bound of the line's length, by counting every byte as escaped.
    fn line_bytes_max(&self) -> usize {
        let field = |bytes: &[u8]| bytes.len().saturating_mul(4).clamp(1, FIELD_BYTES_MAX) + CUT.len();
        FIXED_BYTES_MAX
            + field(self.request_line)
            + field(self.referer.unwrap_or_default())
            + field(self.user_agent.unwrap_or_default())
    }
}

/// The other end of a connection, as far as a log names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// An address; an IPv4 address mapped into IPv6 is written as IPv4.
    Ip(IpAddr),
    /// A unix socket; written `unix:`.
    Unix,
}

/// Number of lines in `bytes`.
pub(super) fn count_lines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}

fn push_peer(line: &mut Vec<u8>, peer: Peer) {
    match peer {
        Peer::Unix => line.extend_from_slice(b"unix:"),
        Peer::Ip(address) => match address.to_canonical() {
            IpAddr::V4(address) => push_ipv4(line, address),
            // Formatting an address into a Vec with room neither fails nor allocates.
            IpAddr::V6(address) => write!(line, "{address}").unwrap_or_default(),
        },
    }
}

fn push_ipv4(line: &mut Vec<u8>, address: Ipv4Addr) {
    let [first, rest @ ..] = address.octets();
    push_decimal(line, u64::from(first));
    for octet in rest {
        line.push(b'.');
        push_decimal(line, u64::from(octet));
    }
}

fn push_decimal(line: &mut Vec<u8>, value: u64) {
    line.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// A field between quotes: `-` when it is absent or empty, with `"`, `\`, controls and everything outside ASCII
/// as `\xHH`, so that a peer can neither end the field nor the line, nor speak to a terminal.
fn push_field(line: &mut Vec<u8>, field: Option<&[u8]>) {
    let Some(mut rest) = field.filter(|bytes| !bytes.is_empty()) else {
        line.push(b'-');
        return;
    };
    let mut room = FIELD_BYTES_MAX;
    while !rest.is_empty() {
        let plain = rest.iter().take(room).take_while(|byte| is_plain(**byte)).count();
        line.extend_from_slice(&rest[..plain]);
        rest = &rest[plain..];
        room -= plain;
        let Some((byte, tail)) = rest.split_first() else { return };
        if room < 4 {
            line.extend_from_slice(CUT);
            return;
        }
        const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
        let (high, low) = (DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]);
        line.extend_from_slice(&[b'\\', b'x', high, low]);
        rest = tail;
        room -= 4;
    }
}

fn is_plain(byte: u8) -> bool {
    (0x20..0x7f).contains(&byte) && byte != b'"' && byte != b'\\'
}

#[cfg(test)]
mod tests;
