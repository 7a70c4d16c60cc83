//! Bytes that arrive in pieces and must lie in one: the body of a request that a handler wants whole.
//!
//! Storage doubles as bytes come, so that a peer who announces much and sends little holds little: pooled buffers up to
//! 64 KB, a mapping of its own beyond. All of a shard share one [`Allowance`]; at its end, and when the pool or the system
//! has nothing left, a piece is not taken and the caller refuses the request.

use std::{cell::Cell, rc::Rc};

use super::{Buffer, BufferPool, Mapping, Tier};

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

    fn take(self: &Rc<Self>, bytes: usize) -> Option<Share> {
        let used = self.used_bytes.get().checked_add(bytes).filter(|used| *used <= self.bytes_max.get())?;
        self.used_bytes.set(used);
        Some(Share { allowance: Rc::clone(self), bytes })
    }
}

/// Bytes of an allowance, given back when dropped.
#[derive(Debug)]
struct Share {
    allowance: Rc<Allowance>,
    bytes: usize,
}

impl Share {
    /// Makes it `bytes` large; false, and nothing changed, when the allowance has not so many left.
    fn grow(&mut self, bytes: usize) -> bool {
        let Some(mut more) = self.allowance.take(bytes.saturating_sub(self.bytes)) else { return false };
        self.bytes += std::mem::take(&mut more.bytes);
        true
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.allowance.used_bytes.set(self.allowance.used_bytes.get() - self.bytes);
    }
}

/// Bytes gathered so far. Empty, it holds nothing.
#[derive(Debug)]
pub struct Gathered {
    storage: Storage,
    /// What the storage counts for.
    share: Option<Share>,
    length: usize,
    bytes_max: usize,
}

#[derive(Debug)]
enum Storage {
    Nothing,
    Pooled(Buffer),
    Mapped(Mapping),
}

impl Gathered {
    /// Nothing yet. `bytes_max` bytes are expected at most: storage does not grow ahead past them.
    pub fn new(bytes_max: usize) -> Self {
        Gathered { storage: Storage::Nothing, share: None, length: 0, bytes_max }
    }

    /// Everything so far, in one piece.
    pub fn bytes(&self) -> &[u8] {
        match &self.storage {
            Storage::Nothing => &[],
            Storage::Pooled(buffer) => buffer.filled(),
            Storage::Mapped(mapping) => &mapping[..self.length],
        }
    }

    /// Appends a piece; false, and nothing appended, when there is no memory for it.
    #[must_use]
    pub fn push(&mut self, piece: &[u8], pool: &BufferPool, allowance: &Rc<Allowance>) -> bool {
        let Some(length) = self.length.checked_add(piece.len()) else { return false };
        if length > self.capacity() && self.grow(length, pool, allowance).is_none() {
            return false;
        }
        match &mut self.storage {
            Storage::Nothing => {}
            Storage::Pooled(buffer) => {
                if !buffer.extend_from_slice(piece) {
                    return false;
                }
            }
            Storage::Mapped(mapping) => mapping[self.length..length].copy_from_slice(piece),
        }
        self.length = length;
        true
    }

    /// Bytes of memory behind it, used or not.
    pub fn capacity(&self) -> usize {
        match &self.storage {
            Storage::Nothing => 0,
            Storage::Pooled(buffer) => buffer.tier().bytes(),
            Storage::Mapped(mapping) => mapping.len(),
        }
    }

    /// Makes room for `length` bytes, at least doubling what there is.
    fn grow(&mut self, length: usize, pool: &BufferPool, allowance: &Rc<Allowance>) -> Option<()> {
        let wanted = length.max(self.capacity().saturating_mul(2).min(self.bytes_max));
        if let Some(tier) = Tier::holding(wanted) {
            let share = allowance.take(tier.bytes())?;
            let mut buffer = pool.get(wanted)?;
            if !buffer.extend_from_slice(self.bytes()) {
                return None;
            }
            self.storage = Storage::Pooled(buffer);
            self.share = Some(share);
            return Some(());
        }
        let capacity = wanted.checked_next_multiple_of(PAGE_BYTES)?;
        if let (Storage::Mapped(mapping), Some(share)) = (&mut self.storage, &mut self.share) {
            return (share.grow(capacity) && mapping.grow(capacity)).then_some(());
        }
        let share = allowance.take(capacity)?;
        let mut mapping = Mapping::anonymous(capacity)?;
        mapping[..self.length].copy_from_slice(self.bytes());
        self.storage = Storage::Mapped(mapping);
        self.share = Some(share);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::BufferPools;

    fn pool() -> BufferPool {
        BufferPool::new(BufferPools { small: 1, medium: 1, large: 1, ..BufferPools::default() }, usize::MAX)
    }

    fn pattern(length: usize) -> Vec<u8> {
        (0..length).map(|index| (index % 251) as u8).collect()
    }

    #[test]
    fn pieces_of_every_size_lie_in_one() {
        let (pool, allowance) = (pool(), Allowance::new(1 << 20));
        let wanted = pattern(300_000);
        for size in [1, 7, 4095, 4096, 4097, 65_536, 300_000] {
            let mut gathered = Gathered::new(wanted.len());
            for piece in wanted.chunks(size) {
                assert!(gathered.push(piece, &pool, &allowance));
            }
            assert!(gathered.bytes() == wanted, "{size}");
        }
        assert_eq!((allowance.used_bytes(), pool.in_use_bytes()), (0, 0));
    }

    #[test]
    fn storage_doubles_and_stops_at_what_is_expected() {
        let (pool, allowance) = (pool(), Allowance::new(1 << 20));
        let mut gathered = Gathered::new(300_000);
        let mut held = vec![allowance.used_bytes()];
        for piece in pattern(300_000).chunks(1000) {
            assert!(gathered.push(piece, &pool, &allowance));
            if allowance.used_bytes() != held[held.len() - 1] {
                held.push(allowance.used_bytes());
            }
        }
        let last = 300_000_usize.next_multiple_of(PAGE_BYTES);
        assert_eq!(held, [0, 4 << 10, 16 << 10, 64 << 10, 128 << 10, 256 << 10, last]);
    }

    #[test]
    fn the_allowance_is_used_to_its_last_byte_and_recovers() {
        let (pool, allowance) = (pool(), Allowance::new(256 << 10));
        let mut first = Gathered::new(usize::MAX);
        assert!(first.push(&pattern(128 << 10), &pool, &allowance));
        let mut second = Gathered::new(128 << 10);
        assert!(second.push(&pattern(128 << 10), &pool, &allowance));
        assert_eq!(allowance.used_bytes(), 256 << 10);
        // One more byte, of an old one or a new one, has to wait.
        assert!(!second.push(b"x", &pool, &allowance));
        assert!(!Gathered::new(1).push(b"x", &pool, &allowance));
        assert!(second.bytes() == pattern(128 << 10), "what was gathered is still there");
        drop(first);
        assert!(second.push(b"x", &pool, &allowance));
        drop(second);
        assert_eq!(allowance.used_bytes(), 0);
    }

    #[test]
    fn a_pool_that_has_nothing_left_is_no_memory() {
        let pool =
            BufferPool::new(BufferPools { small: 1, medium: 1, large: 1, ..BufferPools::default() }, 4 << 10);
        let allowance = Allowance::new(1 << 20);
        let mut gathered = Gathered::new(5000);
        assert!(gathered.push(&pattern(4096), &pool, &allowance));
        assert!(!gathered.push(b"x", &pool, &allowance));
        assert_eq!(gathered.bytes().len(), 4096);
        assert_eq!(allowance.used_bytes(), 4 << 10);
    }
}
