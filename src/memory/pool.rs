//! Buffers of one shard: 4 KB, 16 KB and 64 KB, kept for reuse when they come back.
//!
//! A pool belongs to one thread and takes no lock. It starts empty; the configuration bounds what it keeps free,
//! the caller bounds what is in use. Past the second bound [`BufferPool::get`] answers `None` and the caller
//! sheds or waits: the pool itself never waits, never panics, and never lends memory that was not initialised.

use std::{
    cell::{Cell, RefCell},
    fmt, mem,
    ops::{Deref, DerefMut},
    rc::Rc,
};

use super::Mapping;
use crate::{config::BufferPools, metrics::ShardMetrics};

/// A shard's buffers. A clone is another handle to the same pool; buffers that outlive every handle are freed
/// when they are dropped.
#[derive(Clone, Debug)]
pub struct BufferPool {
    shared: Rc<Shared>,
}

impl BufferPool {
    /// An empty pool that keeps at most `kept` free buffers of each tier, and lends at most `in_use_bytes_max`
    /// bytes at a time, counted in whole tiers.
    pub fn new(kept: BufferPools, in_use_bytes_max: usize) -> Self {
        let shelves = [kept.small, kept.medium, kept.large].map(Shelf::new);
        let in_use_bytes_max = Cell::new(in_use_bytes_max);
        BufferPool { shared: Rc::new(Shared { shelves, in_use_bytes: Cell::new(0), in_use_bytes_max }) }
    }

    /// Keeps other counts of free buffers from now on, and lends at most so many bytes; surplus ones are freed, lent
    /// ones are not called back.
    pub fn resize(&self, kept: BufferPools, in_use_bytes_max: usize) {
        self.shared.in_use_bytes_max.set(in_use_bytes_max);
        for (shelf, count) in self.shared.shelves.iter().zip([kept.small, kept.medium, kept.large]) {
            shelf.free_max.set(count);
            shelf.free.borrow_mut().truncate(count);
        }
    }

    /// Lends an empty buffer of the smallest tier that holds `bytes_min`; the one returned last, because its
    /// lines are likely still in the processor's cache. Allocates only when no free buffer is kept.
    ///
    /// `None` above 64 KB, when `in_use_bytes_max` would be passed, and when the system has no memory.
    pub fn get(&self, bytes_min: usize) -> Option<Buffer> {
        let tier = Tier::holding(bytes_min)?;
        let shelf = &self.shared.shelves[tier as usize];
        let in_use_bytes = self.shared.in_use_bytes.get().checked_add(tier.bytes())?;
        if in_use_bytes > self.shared.in_use_bytes_max.get() {
            return None;
        }
        let kept = shelf.free.borrow_mut().pop();
        let storage = match kept {
            Some(storage) => storage,
            None => shelf.make(tier)?,
        };
        shelf.in_use.set(shelf.in_use.get() + 1);
        self.shared.in_use_bytes.set(in_use_bytes);
        Some(Buffer {
            storage,
            home: Rc::clone(&self.shared),
            tier,
            start: 0,
            end: 0,
            dirty_end: 0,
            is_lent: false,
        })
    }

    /// Buffers of `tier` in use.
    pub fn in_use(&self, tier: Tier) -> usize {
        self.shared.shelves[tier as usize].in_use.get()
    }

    /// Free buffers of `tier` that are kept.
    pub fn available(&self, tier: Tier) -> usize {
        self.shared.shelves[tier as usize].free.borrow().len()
    }

    /// Bytes of all buffers in use.
    pub fn in_use_bytes(&self) -> usize {
        self.shared.in_use_bytes.get()
    }

    /// Bytes that the pool holds, in use and free: what counts against a budget.
    pub fn held_bytes(&self) -> usize {
        Tier::ALL.iter().map(|tier| (self.in_use(*tier) + self.available(*tier)) * tier.bytes()).sum()
    }

    /// Sets the shard's buffer gauges. For the shard's tick, not for each request.
    pub fn publish(&self, metrics: &ShardMetrics) {
        for tier in Tier::ALL {
            metrics.buffers_allocated[tier as usize].set(self.in_use(tier) as u64);
            metrics.buffers_available[tier as usize].set(self.available(tier) as u64);
        }
    }
}

/// A size of buffer; the value is the index in the pool's and the metrics' arrays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// 4 KB: heads and small requests.
    Small,
    /// 16 KB: large heads, records.
    Medium,
    /// 64 KB: bodies and pieces of files.
    Large,
}

impl Tier {
    /// Smallest first.
    pub const ALL: [Tier; 3] = [Tier::Small, Tier::Medium, Tier::Large];

    /// Size in bytes.
    pub const fn bytes(self) -> usize {
        match self {
            Tier::Small => 4 << 10,
            Tier::Medium => 16 << 10,
            Tier::Large => 64 << 10,
        }
    }

    /// The smallest tier that holds `bytes`; `None` past 64 KB.
    pub fn holding(bytes: usize) -> Option<Tier> {
        Tier::ALL.into_iter().find(|tier| bytes <= tier.bytes())
    }
}

/// Bytes on loan from a [`BufferPool`], which get them back when this is dropped.
///
/// It dereferences to the whole tier, `len()` is the tier's size. Within that, `filled()` is what was written
/// and not yet consumed, `unfilled()` what lies behind it. Small and medium buffers go back zeroed as far as they
/// were written; a large one goes back as it is, so that its next user may see old bytes behind `filled()`.
pub struct Buffer {
    storage: Storage,
    home: Rc<Shared>,
    tier: Tier,
    /// `start..end` is filled.
    start: usize,
    end: usize,
    /// Nothing at or behind this index was ever written by this user.
    dirty_end: usize,
    /// `unfilled()` was handed out and nobody said yet how much of it was written: take all of it.
    is_lent: bool,
}

impl Buffer {
    /// The tier this came from.
    pub fn tier(&self) -> Tier {
        self.tier
    }

    /// Bytes written and not consumed.
    pub fn filled(&self) -> &[u8] {
        &self.storage[self.start..self.end]
    }

    /// Number of filled bytes.
    pub fn filled_len(&self) -> usize {
        self.end - self.start
    }

    /// Whether nothing is filled.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Number of bytes that fit behind the filled ones without moving them.
    pub fn room(&self) -> usize {
        self.tier.bytes() - self.end
    }

    /// The bytes behind the filled ones, to read into. Say afterwards how many were written, with
    /// [`Buffer::add_filled`] or [`Buffer::set_filled`], 0 included; until then all of them count as written.
    pub fn unfilled(&mut self) -> &mut [u8] {
        self.is_lent = true;
        &mut self.storage[self.end..]
    }

    /// The first `bytes` of the unfilled bytes were written. More than there is room for counts as all.
    pub fn add_filled(&mut self, bytes: usize) {
        self.set_filled(self.filled_len().saturating_add(bytes));
    }

    /// Makes the filled part `bytes` long, longer or shorter. More than the tier holds behind the consumed part
    /// counts as all.
    pub fn set_filled(&mut self, bytes: usize) {
        self.end = self.start.saturating_add(bytes).min(self.tier.bytes());
        self.dirty_end = self.dirty_end.max(self.end);
        self.is_lent = false;
    }

    /// Appends one byte; `false`, and nothing appended, when the buffer is full.
    #[must_use]
    pub fn push(&mut self, byte: u8) -> bool {
        self.extend_from_slice(&[byte])
    }

    /// Appends all of `bytes`, moving the filled part to the front when only that makes room; `false`, and
    /// nothing appended, when they do not fit.
    #[must_use]
    pub fn extend_from_slice(&mut self, bytes: &[u8]) -> bool {
        if bytes.len() > self.room() {
            if bytes.len() > self.tier.bytes() - self.filled_len() {
                return false;
            }
            self.compact();
        }
        let end = self.end + bytes.len();
        self.storage[self.end..end].copy_from_slice(bytes);
        self.end = end;
        self.dirty_end = self.dirty_end.max(end);
        true
    }

    /// Drops `bytes` from the front of the filled part, at most all of it. An emptied buffer starts over.
    pub fn consume(&mut self, bytes: usize) {
        self.start = self.start.saturating_add(bytes).min(self.end);
        if self.is_empty() {
            self.clear();
        }
    }

    /// Forgets what is filled.
    pub fn clear(&mut self) {
        self.start = 0;
        self.end = 0;
    }

    /// Moves the filled part to the front, which costs a copy of it.
    pub fn compact(&mut self) {
        if self.start > 0 {
            self.storage.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    /// The whole tier.
    fn deref(&self) -> &[u8] {
        &self.storage
    }
}

impl DerefMut for Buffer {
    /// The whole tier, which counts as written from then on.
    fn deref_mut(&mut self) -> &mut [u8] {
        self.dirty_end = self.tier.bytes();
        &mut self.storage
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut storage = mem::take(&mut self.storage);
        if self.tier != Tier::Large {
            let written = if self.is_lent { self.tier.bytes() } else { self.dirty_end };
            storage[..written].fill(0);
        }
        self.home.give_back(self.tier, storage);
    }
}

impl fmt::Debug for Buffer {
    /// Sizes; never the content, which is a peer's.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer").field("tier", &self.tier).field("filled", &self.filled_len()).finish()
    }
}

#[derive(Debug)]
struct Shared {
    shelves: [Shelf; Tier::ALL.len()],
    in_use_bytes: Cell<usize>,
    in_use_bytes_max: Cell<usize>,
}

impl Shared {
    fn give_back(&self, tier: Tier, storage: Storage) {
        let shelf = &self.shelves[tier as usize];
        shelf.in_use.set(shelf.in_use.get() - 1);
        self.in_use_bytes.set(self.in_use_bytes.get() - tier.bytes());
        let mut free = shelf.free.borrow_mut();
        // `make` reserved the place. At the bound, or without a place, the storage is freed here.
        if free.len() < shelf.free_max.get() && free.len() < free.capacity() {
            free.push(storage);
        }
    }
}

/// The free buffers of one tier, last in first out.
#[derive(Debug)]
struct Shelf {
    free: RefCell<Vec<Storage>>,
    free_max: Cell<usize>,
    in_use: Cell<usize>,
}

impl Shelf {
    fn new(free_max: usize) -> Self {
        Shelf { free: RefCell::new(Vec::new()), free_max: Cell::new(free_max), in_use: Cell::new(0) }
    }

    /// A new buffer, and a place for it in the free list, so that giving back never allocates.
    fn make(&self, tier: Tier) -> Option<Storage> {
        let mut free = self.free.borrow_mut();
        let places = (self.in_use.get() + 1 + free.len()).min(self.free_max.get());
        let missing = places.saturating_sub(free.len());
        free.try_reserve(missing).ok()?;
        Storage::zeroed(tier)
    }
}

enum Storage {
    Heap(Box<[u8]>),
    Mapped(Mapping),
}

impl Storage {
    fn zeroed(tier: Tier) -> Option<Storage> {
        if tier == Tier::Large {
            return Mapping::anonymous(tier.bytes()).map(Storage::Mapped);
        }
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(tier.bytes()).ok()?;
        bytes.resize(tier.bytes(), 0);
        Some(Storage::Heap(bytes.into_boxed_slice()))
    }
}

impl Default for Storage {
    /// Nothing, without allocating: what a buffer is left with while it is dropped.
    fn default() -> Self {
        Storage::Heap(Box::default())
    }
}

impl Deref for Storage {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match self {
            Storage::Heap(bytes) => bytes,
            Storage::Mapped(mapping) => mapping,
        }
    }
}

impl DerefMut for Storage {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        match self {
            Storage::Heap(bytes) => bytes,
            Storage::Mapped(mapping) => mapping,
        }
    }
}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Storage").field("bytes", &self.len()).finish()
    }
}

#[cfg(test)]
mod tests;
