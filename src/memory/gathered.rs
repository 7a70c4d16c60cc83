//! Bytes that arrive in pieces and must lie in one: the body of a request that a handler wants whole.
//!
//! Storage doubles as bytes come, so that a peer who announces much and sends little holds little: pooled buffers up to
//! 64 KB, a mapping of its own beyond. All of a shard share one [`Allowance`]; at its end, and when the budget or the
//! system has nothing left, there is no room for a piece and the caller waits, or refuses the request.

use std::{cell::Cell, rc::Rc};

use super::{Buffer, BufferPool, Mapping, Rank, Reservation, Share, Tier};
use crate::metrics::Holder;

/// Mappings are made of whole pages.
const PAGE_BYTES: usize = 4 << 10;

/// How many bytes everything that is gathered may hold at a time. Belongs to one shard.
#[derive(Debug)]
pub struct Allowance {
    used_bytes: Cell<usize>,
    bytes_max: Cell<usize>,
}

impl Allowance {
    /// `bytes_max` bytes, rounded up to a page.
    pub fn new(bytes_max: usize) -> Rc<Self> {
        let allowance = Allowance { used_bytes: Cell::new(0), bytes_max: Cell::new(0) };
        allowance.resize(bytes_max);
        Rc::new(allowance)
    }

    /// Allows another number of bytes from now on. What is held above it stays until it is dropped.
    pub fn resize(&self, bytes_max: usize) {
        self.bytes_max.set(bytes_max.checked_next_multiple_of(PAGE_BYTES).unwrap_or(usize::MAX));
    }

    /// Bytes allowed.
    pub fn bytes_max(&self) -> usize {
        self.bytes_max.get()
    }

    /// Bytes held.
    pub fn used_bytes(&self) -> usize {
        self.used_bytes.get()
    }

    fn take(self: &Rc<Self>, bytes: usize) -> Option<Part> {
        let used = self.used_bytes.get().checked_add(bytes).filter(|used| *used <= self.bytes_max.get())?;
        self.used_bytes.set(used);
        Some(Part { allowance: Rc::clone(self), bytes })
    }
}

/// Bytes of an allowance, given back when dropped.
#[derive(Debug)]
struct Part {
    allowance: Rc<Allowance>,
    bytes: usize,
}

impl Part {
    /// Makes it `bytes` large; false, and nothing changed, when the allowance has not so many left.
    fn grow(&mut self, bytes: usize) -> bool {
        let Some(mut more) = self.allowance.take(bytes.saturating_sub(self.bytes)) else { return false };
        self.bytes += std::mem::take(&mut more.bytes);
        true
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.allowance.used_bytes.set(self.allowance.used_bytes.get() - self.bytes);
    }
}

/// Bytes gathered so far. Empty, it holds nothing.
#[derive(Debug)]
pub struct Gathered {
    storage: Storage,
    /// What the storage counts for.
    part: Option<Part>,
    length: usize,
    bytes_max: usize,
}

#[derive(Debug)]
enum Storage {
    Nothing,
    Pooled(Buffer),
    /// And what of the budget it is.
    Mapped(Mapping, Reservation),
}

/// Where a body that is gathered has its memory from.
#[derive(Clone, Copy, Debug)]
pub struct Sources<'a> {
    /// Up to 64 KB.
    pub pool: &'a BufferPool,
    /// Beyond.
    pub share: &'a Rc<Share>,
    /// Both.
    pub allowance: &'a Rc<Allowance>,
}

impl Gathered {
    /// Nothing yet. `bytes_max` bytes are expected at most: storage does not grow ahead past them.
    pub fn new(bytes_max: usize) -> Self {
        Gathered { storage: Storage::Nothing, part: None, length: 0, bytes_max }
    }

    /// Everything so far, in one piece.
    pub fn bytes(&self) -> &[u8] {
        match &self.storage {
            Storage::Nothing => &[],
            Storage::Pooled(buffer) => buffer.filled(),
            Storage::Mapped(mapping, _) => &mapping[..self.length],
        }
    }

    /// Appends a piece; false, and nothing appended, when there is no memory for it.
    #[must_use]
    pub fn push(&mut self, piece: &[u8], sources: Sources<'_>) -> bool {
        let Some(length) = self.length.checked_add(piece.len()) else { return false };
        if length > self.capacity() && self.grow(length, sources).is_none() {
            return false;
        }
        match &mut self.storage {
            Storage::Nothing => {}
            Storage::Pooled(buffer) => {
                if !buffer.extend_from_slice(piece) {
                    return false;
                }
            }
            Storage::Mapped(mapping, _) => mapping[self.length..length].copy_from_slice(piece),
        }
        self.length = length;
        true
    }

    /// Bytes that can be appended without more memory, after more was taken if there was no room at all. 0: there is
    /// none to be had now.
    pub fn make_room(&mut self, sources: Sources<'_>) -> usize {
        if self.capacity() == self.length && self.length < usize::MAX {
            // Refused, the room is what it was: none.
            let _ = self.grow(self.length + 1, sources);
        }
        self.capacity() - self.length
    }

    /// Bytes of memory behind it, used or not.
    pub fn capacity(&self) -> usize {
        match &self.storage {
            Storage::Nothing => 0,
            Storage::Pooled(buffer) => buffer.tier().bytes(),
            Storage::Mapped(mapping, _) => mapping.len(),
        }
    }

    /// Makes room for `length` bytes, at least doubling what there is.
    fn grow(&mut self, length: usize, sources: Sources<'_>) -> Option<()> {
        let Sources { pool, share, allowance } = sources;
        let wanted = length.max(self.capacity().saturating_mul(2).min(self.bytes_max));
        if let Some(tier) = Tier::holding(wanted) {
            let part = allowance.take(tier.bytes())?;
            let mut buffer = pool.get(wanted, Rank::Start)?;
            if !buffer.extend_from_slice(self.bytes()) {
                return None;
            }
            self.storage = Storage::Pooled(buffer);
            self.part = Some(part);
            return Some(());
        }
        let capacity = wanted.checked_next_multiple_of(PAGE_BYTES)?;
        if let (Storage::Mapped(mapping, reservation), Some(part)) = (&mut self.storage, &mut self.part) {
            let grown =
                part.grow(capacity) && reservation.grow(capacity, Rank::Start) && mapping.grow(capacity);
            return grown.then_some(());
        }
        let part = allowance.take(capacity)?;
        let reservation = share.reserve(Holder::RequestBodies, capacity, Rank::Start)?;
        let mut mapping = Mapping::anonymous(capacity)?;
        mapping[..self.length].copy_from_slice(self.bytes());
        self.storage = Storage::Mapped(mapping, reservation);
        self.part = Some(part);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{budget::tests::budget, pool::tests::pool_of};

    /// A shard with so many bytes of a budget.
    struct Shard {
        pool: BufferPool,
        share: Rc<Share>,
        allowance: Rc<Allowance>,
    }

    impl Shard {
        fn new(budget_bytes: usize, allowed_bytes: usize) -> Self {
            let share = Share::new(&budget(budget_bytes, 1), 0);
            Shard { pool: pool_of([1, 1, 1], &share), share, allowance: Allowance::new(allowed_bytes) }
        }

        fn push(&self, gathered: &mut Gathered, piece: &[u8]) -> bool {
            gathered.push(piece, self.sources())
        }

        fn sources(&self) -> Sources<'_> {
            Sources { pool: &self.pool, share: &self.share, allowance: &self.allowance }
        }
    }

    fn pattern(length: usize) -> Vec<u8> {
        (0..length).map(|index| (index % 251) as u8).collect()
    }

    #[test]
    fn pieces_of_every_size_lie_in_one() {
        let shard = Shard::new(1 << 30, 1 << 20);
        let wanted = pattern(300_000);
        for size in [1, 7, 4095, 4096, 4097, 65_536, 300_000] {
            let mut gathered = Gathered::new(wanted.len());
            for piece in wanted.chunks(size) {
                assert!(shard.push(&mut gathered, piece));
            }
            assert!(gathered.bytes() == wanted, "{size}");
        }
        assert_eq!((shard.allowance.used_bytes(), shard.pool.in_use(Tier::Large)), (0, 0));
    }

    #[test]
    fn storage_doubles_and_stops_at_what_is_expected() {
        let shard = Shard::new(1 << 30, 1 << 20);
        let mut gathered = Gathered::new(300_000);
        let mut held = vec![shard.allowance.used_bytes()];
        for piece in pattern(300_000).chunks(1000) {
            assert!(shard.push(&mut gathered, piece));
            if shard.allowance.used_bytes() != held[held.len() - 1] {
                held.push(shard.allowance.used_bytes());
            }
        }
        let last = 300_000_usize.next_multiple_of(PAGE_BYTES);
        assert_eq!(held, [0, 4 << 10, 16 << 10, 64 << 10, 128 << 10, 256 << 10, last]);
    }

    #[test]
    fn the_allowance_is_used_to_its_last_byte_and_recovers() {
        let shard = Shard::new(1 << 30, 256 << 10);
        let mut first = Gathered::new(usize::MAX);
        assert!(shard.push(&mut first, &pattern(128 << 10)));
        let mut second = Gathered::new(128 << 10);
        assert!(shard.push(&mut second, &pattern(128 << 10)));
        assert_eq!(shard.allowance.used_bytes(), 256 << 10);
        // One more byte, of an old one or a new one, has to wait.
        assert!(!shard.push(&mut second, b"x"));
        assert!(!shard.push(&mut Gathered::new(1), b"x"));
        assert!(second.bytes() == pattern(128 << 10), "what was gathered is still there");
        drop(first);
        assert!(shard.push(&mut second, b"x"));
        drop(second);
        assert_eq!(shard.allowance.used_bytes(), 0);
    }

    #[test]
    fn a_pool_that_has_nothing_left_is_no_memory() {
        let shard = Shard::new(10 << 10, 1 << 20);
        let mut gathered = Gathered::new(5000);
        assert!(shard.push(&mut gathered, &pattern(4096)));
        assert!(!shard.push(&mut gathered, b"x"));
        assert_eq!(gathered.bytes().len(), 4096);
        assert_eq!(shard.allowance.used_bytes(), 4 << 10);
    }
}
