//! What a request in progress holds when it outlives a turn. Idle connections have none.

use std::{collections::VecDeque, rc::Rc};

use bytes::Bytes;

use super::cold::{Cold, Pace, Populating};
use crate::{
    files::{MappedSlice, OpenFile},
    http::multipart::Multipart,
    http1::BodyDecoder,
    memory::{Buffer, Gathered},
};

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
    /// The file that follows them.
    pub file: Option<FileBody>,
    /// What will be logged and counted when the response has ended.
    pub record: Option<Record>,
}

/// Bytes in memory that wait for the socket.
#[derive(Debug)]
pub enum Unsent {
    /// Rendered by us: a head, a small body.
    Buffer(Buffer),
    /// A cached body.
    Shared(Bytes),
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
            Unsent::Shared(bytes) => bytes.len(),
            Unsent::Static(bytes) => bytes.len(),
            Unsent::Mapped(slice) => slice.len(),
        }
    }

    /// Forgets the first `count` bytes.
    pub fn consume(&mut self, count: usize) {
        match self {
            Unsent::Buffer(buffer) => buffer.consume(count),
            Unsent::Shared(bytes) => bytes::Buf::advance(bytes, count),
            Unsent::Static(bytes) => *bytes = bytes.get(count..).unwrap_or_default(),
            Unsent::Mapped(slice) => slice.consume(count),
        }
    }
}

impl Exchange {
    /// Gives everything back; the box can serve another request.
    pub fn reset(&mut self) {
        if let Some(cold) = self.file.take().and_then(|body| body.cold) {
            cold.cancel();
        }
        self.input = None;
        self.scanned = 0;
        self.head = None;
        self.body = None;
        self.gathered = None;
        self.unsent.clear();
        self.record = None;
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.reset();
    }
}
