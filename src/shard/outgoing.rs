//! Response bytes of one turn, collected and sent in as few calls as fit. What the socket does not take moves to
//! the connection's exchange; until then nothing is copied or allocated.

use std::{collections::VecDeque, io, ops::Range, os::fd::BorrowedFd};

use bytes::{Buf, Bytes};

use super::exchange::{Exchange, Unsent};
use crate::{
    files::MappedSlice,
    memory::{BufferPool, Rank, Reservation},
    service::COPIED_BYTES_MAX,
    sys::socket::{self, PIECES_MAX, Pieces},
};

/// Rendered bytes collected before they are sent; a head that would not fit is sent first.
const RENDERED_BYTES_MAX: usize = 64 << 10;
/// Bytes collected, bodies included, after which the next request waits until they were sent: a client that sends
/// requests ahead and takes no response makes one response wait, not many.
const COLLECTED_BYTES_MAX: usize = 256 << 10;
/// The largest pooled buffer.
const BUFFER_BYTES_MAX: usize = 64 << 10;

/// The shard's own buffer for responses; empty between connections.
#[derive(Debug, Default)]
pub struct Outgoing {
    rendered: Vec<u8>,
    pieces: Vec<Piece>,
    bytes: usize,
    sent: usize,
}

#[derive(Debug)]
enum Piece {
    Rendered(Range<usize>),
    Shared(Bytes, Option<Reservation>),
    Static(&'static [u8]),
    Mapped(MappedSlice),
}

impl Outgoing {
    /// Empty, with its memory.
    pub fn new() -> Self {
        Outgoing {
            rendered: Vec::with_capacity(RENDERED_BYTES_MAX),
            pieces: Vec::with_capacity(PIECES_MAX),
            bytes: 0,
            sent: 0,
        }
    }

    /// Bytes that were not sent yet.
    pub fn len(&self) -> usize {
        self.bytes - self.sent
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets what was collected: the connection is closed instead.
    pub fn discard(&mut self) {
        self.clear();
    }

    /// Whether another response should wait until this was sent.
    pub fn is_full(&self) -> bool {
        self.rendered.len() >= RENDERED_BYTES_MAX / 2
            || self.pieces.len() + 2 > PIECES_MAX
            || self.bytes >= COLLECTED_BYTES_MAX
    }

    /// Lets `render` append bytes, a head for instance.
    pub fn render(&mut self, render: impl FnOnce(&mut Vec<u8>)) {
        let start = self.rendered.len();
        render(&mut self.rendered);
        let end = self.rendered.len();
        self.bytes += end - start;
        match self.pieces.last_mut() {
            Some(Piece::Rendered(range)) if range.end == start => range.end = end,
            _ => self.pieces.push(Piece::Rendered(start..end)),
        }
    }

    /// Appends a body of the program.
    pub fn push_static(&mut self, body: &'static [u8]) {
        if body.len() <= COPIED_BYTES_MAX {
            self.render(|rendered| rendered.extend_from_slice(body));
        } else {
            self.bytes += body.len();
            self.pieces.push(Piece::Static(body));
        }
    }

    /// Appends a shared body, and what it counts for unless that is the business of whoever shares it.
    pub fn push_shared(&mut self, body: Bytes, held: Option<Reservation>) {
        if body.len() <= COPIED_BYTES_MAX {
            self.render(|rendered| rendered.extend_from_slice(&body));
        } else {
            self.bytes += body.len();
            self.pieces.push(Piece::Shared(body, held));
        }
    }

    /// Appends a body of this response alone; gives it back when it was copied.
    pub fn push_owned(&mut self, body: Vec<u8>, held: Option<Reservation>) -> Option<Vec<u8>> {
        if body.len() <= COPIED_BYTES_MAX {
            self.render(|rendered| rendered.extend_from_slice(&body));
            return Some(body);
        }
        self.push_shared(body.into(), held);
        None
    }

    /// Appends a part of a mapped file.
    pub fn push_mapped(&mut self, body: MappedSlice) {
        self.bytes += body.len();
        self.pieces.push(Piece::Mapped(body));
    }

    /// Sends what was collected; false when the socket is full: then [`Outgoing::keep`] the rest. `more` says that
    /// a file follows at once, so that its first bytes share a segment with the head.
    ///
    /// # Errors
    /// Those of the socket, and [`is_file_changed`] when a mapped file is not what it was. Nothing is left then.
    pub fn flush(&mut self, socket: BorrowedFd<'_>, more: bool) -> io::Result<bool> {
        while self.sent < self.bytes {
            match self.send(socket, more) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.clear();
                    return Err(error);
                }
            }
        }
        let intact = self.pieces.iter().all(|piece| match piece {
            Piece::Mapped(slice) => slice.is_intact(),
            Piece::Rendered(_) | Piece::Shared(..) | Piece::Static(_) => true,
        });
        self.clear();
        if intact { Ok(true) } else { Err(file_changed()) }
    }

    /// Copies what was not sent as far as it fits, and forgets that. Mapped files are left out: see [`Unsent::bytes`].
    pub fn take(&mut self, into: &mut [u8]) -> usize {
        let (mut skip, mut count) = (self.sent, 0);
        for piece in &self.pieces {
            let bytes = match piece {
                Piece::Rendered(range) => &self.rendered[range.clone()],
                Piece::Shared(bytes, _) => bytes,
                Piece::Static(bytes) => bytes,
                Piece::Mapped(_) => &[],
            };
            let rest = bytes.get(skip..).unwrap_or_default();
            skip = skip.saturating_sub(bytes.len());
            let fits = rest.len().min(into.len() - count);
            into[count..count + fits].copy_from_slice(&rest[..fits]);
            count += fits;
        }
        self.sent += count;
        if self.is_empty() {
            self.clear();
        }
        count
    }

    /// Moves what was not sent to `exchange`, rendered bytes into pooled buffers. False when there is no memory
    /// left: the response cannot be finished.
    pub fn keep(&mut self, pool: &BufferPool, exchange: &mut Exchange) -> bool {
        let mut skip = self.sent;
        // Rendered bytes may need two buffers.
        if !exchange.prepare_unsent(self.pieces.len() + 1, pool.share()) {
            self.clear();
            return false;
        }
        let unsent = &mut exchange.unsent;
        let mut kept = true;
        for piece in self.pieces.drain(..) {
            let length = piece.length();
            if skip >= length {
                skip -= length;
                continue;
            }
            match piece {
                Piece::Rendered(range) => {
                    kept &= keep_bytes(&self.rendered[range.start + skip..range.end], pool, unsent);
                }
                Piece::Shared(mut bytes, held) => {
                    bytes.advance(skip);
                    unsent.push_back(Unsent::Shared(bytes, held));
                }
                Piece::Static(bytes) => unsent.push_back(Unsent::Static(&bytes[skip..])),
                Piece::Mapped(mut slice) => {
                    slice.consume(skip);
                    unsent.push_back(Unsent::Mapped(slice));
                }
            }
            skip = 0;
        }
        self.clear();
        kept
    }

    fn send(&self, socket: BorrowedFd<'_>, more: bool) -> io::Result<usize> {
        if let [Piece::Rendered(range)] = self.pieces.as_slice() {
            return socket::send(socket, &self.rendered[range.start + self.sent..range.end], more);
        }
        let mut skip = self.sent;
        let mut pieces = Pieces::empty();
        for piece in &self.pieces {
            let length = piece.length();
            if skip >= length {
                skip -= length;
                continue;
            }
            match piece {
                Piece::Rendered(range) => pieces.push(&self.rendered[range.start + skip..range.end]),
                Piece::Shared(bytes, _) => pieces.push(&bytes[skip..]),
                Piece::Static(bytes) => pieces.push(&bytes[skip..]),
                Piece::Mapped(slice) => push_mapped(&mut pieces, slice, skip),
            }
            skip = 0;
        }
        socket::send_pieces(socket, &pieces, more)
    }

    fn clear(&mut self) {
        self.rendered.clear();
        self.pieces.clear();
        self.bytes = 0;
        self.sent = 0;
    }
}

impl Piece {
    fn length(&self) -> usize {
        match self {
            Piece::Rendered(range) => range.len(),
            Piece::Shared(bytes, _) => bytes.len(),
            Piece::Static(bytes) => bytes.len(),
            Piece::Mapped(slice) => slice.len(),
        }
    }
}

/// Goes on with what an earlier turn kept; false when the socket is full again. Returns the bytes sent too. Fails as
/// [`Outgoing::flush`] does.
pub fn resume(
    socket: BorrowedFd<'_>,
    unsent: &mut VecDeque<Unsent>,
    more: bool,
) -> io::Result<(bool, usize)> {
    let mut sent = 0;
    while !unsent.is_empty() {
        let mut pieces = Pieces::empty();
        for piece in unsent.iter().take(PIECES_MAX) {
            match piece {
                Unsent::Buffer(buffer) => pieces.push(buffer.filled()),
                Unsent::Shared(bytes, _) => pieces.push(bytes),
                Unsent::Static(bytes) => pieces.push(bytes),
                Unsent::Mapped(slice) => push_mapped(&mut pieces, slice, 0),
            }
        }
        let mut count = match socket::send_pieces(socket, &pieces, more) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok((false, sent)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        sent += count;
        while let Some(first) = unsent.front_mut() {
            let length = first.length();
            if count < length {
                first.consume(count);
                break;
            }
            count -= length;
            if let Some(Unsent::Mapped(slice)) = unsent.pop_front()
                && !slice.is_intact()
            {
                return Err(file_changed());
            }
        }
    }
    Ok((true, sent))
}

/// Whether sending ended because a mapped file is not what it was when it was opened: pages of it are gone (`EFAULT`), or
/// were sent while it changed.
pub fn is_file_changed(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EFAULT | libc::ESTALE))
}

fn file_changed() -> io::Error {
    io::Error::from_raw_os_error(libc::ESTALE)
}

fn push_mapped<'b>(pieces: &mut Pieces<'b>, slice: &'b MappedSlice, skip: usize) {
    if let Some((mapping, range)) = slice.piece() {
        pieces.push_mapped(mapping, range.start + skip..range.end);
    }
}

fn keep_bytes(mut bytes: &[u8], pool: &BufferPool, unsent: &mut VecDeque<Unsent>) -> bool {
    while !bytes.is_empty() {
        let count = bytes.len().min(BUFFER_BYTES_MAX);
        let Some(mut buffer) = pool.get(count, Rank::Finish) else { return false };
        if !buffer.extend_from_slice(&bytes[..count]) {
            return false;
        }
        bytes = &bytes[count..];
        unsent.push_back(Unsent::Buffer(buffer));
    }
    true
}
