//! What a request in progress holds when it outlives a turn. Idle connections have none.

use std::{collections::VecDeque, rc::Rc};

use bytes::Bytes;

use super::cold::{Cold, Pace, Populating};
pub(super) use crate::config::sizes::EXCHANGE_BYTES;
use crate::{
    files::{MappedSlice, OpenFile},
    http::multipart::Multipart,
    http1::BodyDecoder,
    memory::{Buffer, Gathered, Rank, Reservation, Share},
    metrics::Holder,
};

/// Pieces that wait for the socket and are contained in [`EXCHANGE_BYTES`].
const UNSENT_CONTAINED: usize = 4;

/// State of one connection between the first byte of a request and the last byte of its response.
#[derive(Debug, Default)]
pub struct Exchange {
    /// Received bytes that no request has used yet: a partial head, or requests that wait their turn.
    pub input: Option<Buffer>,
    /// How far `input` was searched for the end of its head.
    pub scanned: u32,
    /// The head of the request in progress, kept for its response and its log line.
    pub head: Option<Buffer>,
    /// How its body is framed and how much came.
    pub body: Option<BodyDecoder>,
    /// What came of it, if a handler wants it whole.
    pub gathered: Option<Gathered>,
    /// Response bytes that the socket did not take, in order.
    pub unsent: VecDeque<Unsent>,
    /// What their list counts for, when it is long.
    unsent_held: Option<Reservation>,
    /// The file that follows them.
    pub file: Option<FileBody>,
    /// What will be logged and counted when the response has ended.
    pub record: Option<Record>,
    /// What else it counts for: a handler that is waited for, the parts of a body that has several.
    pub extra: Option<Reservation>,
    /// When it began to wait for memory, in the shard's milliseconds; 0 while it does not.
    pub starved_millis: u64,
}

// It counts so, with the first places of `unsent` and what the allocator takes for them.
const _: () = assert!(
    size_of::<Exchange>() + UNSENT_CONTAINED * size_of::<Unsent>() + 16 <= EXCHANGE_BYTES,
    "an exchange has outgrown what it counts for"
);

/// What an exchange holds, by what it is. Bodies from a cache count although others may hold them too: this is what a
/// connection keeps from being freed, not what the budget says of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// The exchange itself and its lists.
    pub state_bytes: usize,
    /// Pool buffers, as large as their tiers are.
    pub buffer_bytes: usize,
    /// The request's body as far as it was gathered, pooled or mapped.
    pub request_body_bytes: usize,
    /// What is not sent of response bodies in memory.
    pub response_body_bytes: usize,
    /// The same of mapped files: pages of the kernel's.
    pub mapped_bytes: usize,
    /// Reads past the page cache, ahead of the socket.
    pub direct_read_bytes: usize,
    /// The TLS session, without the buffers of records on their way.
    pub tls_bytes: usize,
}

/// Bytes in memory that wait for the socket.
#[derive(Debug)]
pub enum Unsent {
    /// Rendered by us: a head, a small body.
    Buffer(Buffer),
    /// A cached body, which counts for itself, or another one and what it counts for.
    Shared(Bytes, Option<Reservation>),
    /// A body of the program.
    Static(&'static [u8]),
    /// A part of a mapped file.
    Mapped(MappedSlice),
}

/// A range of a file that is being sent, perhaps one of several.
#[derive(Debug)]
pub struct FileBody {
    /// Open until the last byte is sent.
    pub file: Rc<OpenFile>,
    /// Next byte.
    pub offset: u64,
    /// One past the last byte.
    pub end: u64,
    /// What lies before this was found in the page cache, or read into it, a moment ago.
    pub ready_end: u64,
    /// How fast the client takes it.
    pub pace: Pace,
    /// Whether any of it was not in the page cache.
    pub was_cold: bool,
    /// What is being read into the page cache.
    pub populating: Option<Populating>,
    /// The reader past the page cache, for a fast client.
    pub cold: Option<Rc<Cold>>,
    /// The parts that follow this one, if the body has several.
    pub parts: Option<Box<Multipart>>,
}

/// A response that is counted when it ends.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    /// Its status code.
    pub status: u16,
    /// Bytes of body handed to the kernel so far.
    pub body_bytes: u64,
    /// When its head was complete, in nanoseconds of the shard's clock.
    pub started_nanos: u64,
}

impl FileBody {
    /// The bytes from `offset` up to, not including, `end`.
    pub fn new(file: Rc<OpenFile>, offset: u64, end: u64) -> Self {
        FileBody {
            file,
            offset,
            end,
            ready_end: offset,
            pace: Pace::new(),
            was_cold: false,
            populating: None,
            cold: None,
            parts: None,
        }
    }
}

impl Unsent {
    /// Bytes left to send.
    pub fn length(&self) -> usize {
        match self {
            Unsent::Buffer(buffer) => buffer.filled().len(),
            Unsent::Shared(bytes, _) => bytes.len(),
            Unsent::Static(bytes) => bytes.len(),
            Unsent::Mapped(slice) => slice.len(),
        }
    }

    /// The bytes themselves; none of a mapped file, which only the kernel reads.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Unsent::Buffer(buffer) => buffer.filled(),
            Unsent::Shared(bytes, _) => bytes,
            Unsent::Static(bytes) => bytes,
            Unsent::Mapped(_) => &[],
        }
    }

    /// Forgets the first `count` bytes.
    pub fn consume(&mut self, count: usize) {
        match self {
            Unsent::Buffer(buffer) => buffer.consume(count),
            Unsent::Shared(bytes, _) => bytes::Buf::advance(bytes, count),
            Unsent::Static(bytes) => *bytes = bytes.get(count..).unwrap_or_default(),
            Unsent::Mapped(slice) => slice.consume(count),
        }
    }
}

impl Held {
    /// Everything together.
    pub fn bytes(&self) -> usize {
        self.state_bytes
            + self.buffer_bytes
            + self.request_body_bytes
            + self.response_body_bytes
            + self.mapped_bytes
            + self.direct_read_bytes
            + self.tls_bytes
    }
}

impl Exchange {
    /// Bytes of memory that are held until the exchange is reset or dropped, and those that the exchange itself counts
    /// for. Costs a pass over what was not sent.
    pub fn held_bytes(&self) -> usize {
        self.held().bytes()
    }

    /// The same by what they are.
    pub fn held(&self) -> Held {
        let of = |buffer: &Option<Buffer>| buffer.as_ref().map_or(0, |buffer| buffer.tier().bytes());
        let mut held = Held {
            state_bytes: EXCHANGE_BYTES
                + [&self.unsent_held, &self.extra]
                    .into_iter()
                    .flatten()
                    .map(Reservation::bytes)
                    .sum::<usize>(),
            buffer_bytes: of(&self.input) + of(&self.head),
            request_body_bytes: self.gathered.as_ref().map_or(0, Gathered::capacity),
            ..Held::default()
        };
        for piece in &self.unsent {
            match piece {
                Unsent::Buffer(buffer) => held.buffer_bytes += buffer.tier().bytes(),
                Unsent::Shared(bytes, None) => held.response_body_bytes += bytes.len(),
                Unsent::Shared(_, Some(reserved)) => held.response_body_bytes += reserved.bytes(),
                Unsent::Static(_) => {}
                Unsent::Mapped(slice) => held.mapped_bytes += slice.len(),
            }
        }
        if let Some(file) = &self.file {
            held.direct_read_bytes = file.cold.as_ref().map_or(0, |cold| cold.held_bytes());
        }
        held
    }

    /// Bytes that wait for the socket.
    pub fn unsent_bytes(&self) -> usize {
        self.unsent.iter().map(Unsent::length).sum()
    }

    /// Makes room for `count` more pieces that wait for the socket. False when there is no memory for them.
    #[must_use]
    pub fn prepare_unsent(&mut self, count: usize, share: &Rc<Share>) -> bool {
        let pieces = self.unsent.len() + count;
        if pieces <= self.unsent.capacity() {
            return true;
        }
        let pieces = pieces.max(UNSENT_CONTAINED);
        if pieces > UNSENT_CONTAINED {
            let bytes = (pieces - UNSENT_CONTAINED) * size_of::<Unsent>();
            let held = share.reserve(Holder::Connections, bytes, Rank::Finish);
            if held.is_none() {
                return false;
            }
            self.unsent_held = held;
        }
        self.unsent.try_reserve_exact(pieces - self.unsent.len()).is_ok()
    }
}

impl Drop for Exchange {
    /// A reader past the page cache closes its file and ends.
    fn drop(&mut self) {
        if let Some(cold) = self.file.take().and_then(|body| body.cold) {
            cold.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{
        Allowance, Sources,
        budget::tests::{budget, plenty},
        pool::tests::pool_of,
    };

    #[test]
    fn held_bytes_are_those_of_every_part_and_what_the_budget_says() {
        let share = plenty();
        let pool = pool_of([0; 3], &share);
        let mut exchange = Exchange::default();
        assert_eq!(exchange.held_bytes(), EXCHANGE_BYTES);
        exchange.input = pool.get(1, Rank::Start);
        exchange.head = pool.get(5000, Rank::Start);
        assert!(exchange.prepare_unsent(3, &share));
        exchange.unsent.push_back(Unsent::Buffer(pool.get(64 << 10, Rank::Start).unwrap()));
        let body = share.reserve(Holder::ResponseBodies, 1000, Rank::Start);
        exchange.unsent.push_back(Unsent::Shared(Bytes::from_static(&[0; 1000]).slice(1..), body));
        exchange.unsent.push_back(Unsent::Static(&[0; 500]));
        let mut gathered = Gathered::new(200_000);
        let allowance = Allowance::new(1 << 20);
        let sources = Sources { pool: &pool, share: &share, allowance: &allowance };
        assert!(gathered.push(&[0; 100_000], sources));
        exchange.gathered = Some(gathered);
        let held = exchange.held();
        assert_eq!(
            held,
            Held {
                state_bytes: EXCHANGE_BYTES,
                buffer_bytes: (4 << 10) + (16 << 10) + (64 << 10),
                request_body_bytes: 100_000_usize.next_multiple_of(4096),
                response_body_bytes: 1000,
                ..Held::default()
            }
        );
        assert_eq!(exchange.held_bytes(), held.bytes());
        // Its own bytes are its stock's.
        assert_eq!(share.budget().used_bytes(), (held.bytes() - EXCHANGE_BYTES) as u64);
        drop(exchange);
        assert_eq!(share.budget().used_bytes(), 0);
    }

    #[test]
    fn many_pieces_count_and_are_refused_without_memory() {
        let share = Share::new(&budget(1 << 10, 1), 0);
        let mut exchange = Exchange::default();
        assert!(exchange.prepare_unsent(UNSENT_CONTAINED, &share));
        assert_eq!(exchange.held_bytes(), EXCHANGE_BYTES);
        assert!(exchange.prepare_unsent(UNSENT_CONTAINED + 1, &share));
        assert_eq!(exchange.held_bytes(), EXCHANGE_BYTES + size_of::<Unsent>());
        assert!(!exchange.prepare_unsent(1000, &share));
        drop(exchange);
        assert_eq!(share.budget().used_bytes(), 0);
    }
}
