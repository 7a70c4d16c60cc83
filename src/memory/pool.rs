//! Buffers of one shard: 4 KB, 16 KB and 64 KB, kept for reuse when they come back.
//!
//! A pool belongs to one thread. It starts empty; the configuration bounds what it keeps free, the budget what it holds.
//! A buffer that is not free here comes from those that all shards share ([`Overflow`]), under a lock, and surplus ones
//! go there. When the budget has nothing left [`BufferPool::get`] answers `None` and the caller sheds or waits: the pool
//! itself never waits, never panics, and never lends memory that was not initialised.

use std::{
    cell::{Cell, RefCell},
    fmt,
    ops::{Deref, DerefMut},
    rc::Rc,
    sync::Arc,
};

use super::{
    Overflow,
    budget::{Rank, Share},
    region::Block,
};
use crate::{
    config::BufferPools,
    metrics::{Holder, ShardMetrics},
};

/// A shard's buffers. A clone is another handle to the same pool; buffers that outlive every handle are freed
/// when they are dropped.
#[derive(Clone, Debug)]
pub struct BufferPool {
    shared: Rc<Shared>,
}

impl BufferPool {
    /// An empty pool that keeps at most `kept` free buffers of each tier. What it holds, in use and free, is reserved
    /// from `share`.
    pub fn new(kept: BufferPools, share: &Rc<Share>, overflow: &Arc<Overflow>) -> Self {
        let shelves = kept.counts().map(Shelf::new);
        let (share, overflow) = (Rc::clone(share), Arc::clone(overflow));
        BufferPool { shared: Rc::new(Shared { shelves, share, overflow }) }
    }

    /// Keeps other counts of free buffers from now on; surplus ones are given up, lent ones are not called back.
    pub fn resize(&self, kept: BufferPools) {
        self.shared.keep_at_most(kept.counts());
    }

    /// Keeps at most half of what the configuration says, while memory is short.
    pub fn halve(&self, kept: BufferPools) {
        self.shared.keep_at_most(kept.counts().map(|count| count / 2));
    }

    /// Gives up half of the free buffers that nobody has needed since this was last done.
    pub fn decay(&self) {
        for tier in Tier::ALL {
            let shelf = &self.shared.shelves[tier as usize];
            let available = self.available(tier);
            self.shared.cut(tier, available - shelf.unused.get().div_ceil(2).min(available));
            shelf.unused.set(self.available(tier));
        }
    }

    /// Whether no buffer is free here.
    pub fn is_empty(&self) -> bool {
        Tier::ALL.iter().all(|tier| self.available(*tier) == 0)
    }

    /// Lends an empty buffer of the smallest tier that holds `bytes_min`; the one returned last, because its
    /// lines are likely still in the processor's cache.
    ///
    /// `None` above 64 KB, when the budget has no room for a buffer although all free ones were given up, and when the
    /// system has no memory.
    pub fn get(&self, bytes_min: usize, rank: Rank) -> Option<Buffer> {
        let tier = Tier::holding(bytes_min)?;
        let block = self.shared.take(tier, rank)?;
        Some(Buffer {
            block: Some(block),
            home: Rc::clone(&self.shared),
            tier,
            start: 0,
            end: 0,
            dirty_end: 0,
            is_lent: false,
        })
    }

    /// What the pool reserves from.
    pub fn share(&self) -> &Rc<Share> {
        &self.shared.share
    }

    /// Buffers of `tier` in use.
    pub fn in_use(&self, tier: Tier) -> usize {
        self.shared.shelves[tier as usize].in_use.get()
    }

    /// Free buffers of `tier` that are kept here.
    pub fn available(&self, tier: Tier) -> usize {
        self.shared.shelves[tier as usize].free.borrow().len()
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
    /// There until it is dropped.
    block: Option<Block>,
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
        &self[self.start..self.end]
    }

    /// The same, to be changed.
    pub fn filled_mut(&mut self) -> &mut [u8] {
        let (start, end) = (self.start, self.end);
        &mut self.storage()[start..end]
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
        let end = self.end;
        &mut self.storage()[end..]
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
        let (start, end) = (self.end, self.end + bytes.len());
        self.storage()[start..end].copy_from_slice(bytes);
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

    /// The whole tier, without a claim that it is written.
    fn storage(&mut self) -> &mut [u8] {
        self.block.as_deref_mut().unwrap_or_default()
    }

    /// Moves the filled part to the front, which costs a copy of it.
    pub fn compact(&mut self) {
        if self.start > 0 {
            let filled = self.start..self.end;
            self.storage().copy_within(filled, 0);
            self.end -= self.start;
            self.start = 0;
        }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    /// The whole tier.
    #[inline]
    fn deref(&self) -> &[u8] {
        self.block.as_deref().unwrap_or_default()
    }
}

impl DerefMut for Buffer {
    /// The whole tier, which counts as written from then on.
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        self.dirty_end = self.tier.bytes();
        self.storage()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(block) = self.block.take() {
            let written = if self.is_lent { self.tier.bytes() } else { self.dirty_end };
            self.home.give_back(self.tier, block, written);
        }
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
    share: Rc<Share>,
    overflow: Arc<Overflow>,
}

impl Shared {
    /// A free buffer, of this shard or of all, or a new one.
    fn take(&self, tier: Tier, rank: Rank) -> Option<Block> {
        let shelf = &self.shelves[tier as usize];
        let kept = shelf.pop().or_else(|| self.overflow.take(tier, &self.share));
        let block = match kept {
            Some(block) => {
                self.share.pass(Holder::BuffersFree, Holder::BuffersInUse, tier.bytes());
                block
            }
            None => self.make(tier, rank)?,
        };
        shelf.prepare_place();
        shelf.in_use.set(shelf.in_use.get() + 1);
        Some(block)
    }

    fn make(&self, tier: Tier, rank: Rank) -> Option<Block> {
        let (holder, bytes) = (Holder::BuffersInUse, tier.bytes());
        if !self.share.take(holder, bytes, rank) {
            // Buffers of other tiers may lie idle, here and with the others.
            self.keep_none();
            if !self.share.take(holder, bytes, rank) {
                return None;
            }
        }
        let block = self.overflow.make(tier);
        if block.is_none() {
            self.share.give_back(holder, bytes);
        }
        block
    }

    fn give_back(&self, tier: Tier, mut block: Block, written: usize) {
        let shelf = &self.shelves[tier as usize];
        shelf.in_use.set(shelf.in_use.get() - 1);
        let is_kept_here = shelf.has_room();
        if !is_kept_here && !self.overflow.has_room(tier) {
            self.overflow.discard(tier, block);
            self.share.give_back(Holder::BuffersInUse, tier.bytes());
            return;
        }
        if tier != Tier::Large {
            block[..written].fill(0);
        }
        self.share.pass(Holder::BuffersInUse, Holder::BuffersFree, tier.bytes());
        if is_kept_here {
            shelf.free.borrow_mut().push(block);
        } else {
            self.overflow.keep(tier, block, &self.share);
        }
    }

    fn keep_at_most(&self, counts: [usize; Tier::ALL.len()]) {
        for tier in Tier::ALL {
            self.shelves[tier as usize].free_max.set(counts[tier as usize]);
            self.cut(tier, counts[tier as usize]);
        }
    }

    fn keep_none(&self) {
        for tier in Tier::ALL {
            self.cut(tier, 0);
        }
        self.overflow.clear();
    }

    /// Gives up the free buffers of a tier beyond `keep`, those that were returned first.
    fn cut(&self, tier: Tier, keep: usize) {
        let shelf = &self.shelves[tier as usize];
        let mut free = shelf.free.borrow_mut();
        let surplus: Vec<Block> = {
            let beyond = free.len().saturating_sub(keep);
            free.drain(..beyond).collect()
        };
        shelf.unused.set(shelf.unused.get().min(free.len()));
        drop(free);
        for block in surplus {
            self.overflow.discard(tier, block);
            self.share.give_back(Holder::BuffersFree, tier.bytes());
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        for tier in Tier::ALL {
            self.cut(tier, 0);
        }
    }
}

/// The free buffers of one tier, last in first out.
#[derive(Debug)]
struct Shelf {
    free: RefCell<Vec<Block>>,
    free_max: Cell<usize>,
    in_use: Cell<usize>,
    /// The fewest that were free since the last decay: nobody needed those.
    unused: Cell<usize>,
}

impl Shelf {
    fn new(free_max: usize) -> Self {
        Shelf {
            free: RefCell::default(),
            free_max: Cell::new(free_max),
            in_use: Cell::new(0),
            unused: Cell::new(0),
        }
    }

    fn pop(&self) -> Option<Block> {
        let mut free = self.free.borrow_mut();
        let block = free.pop();
        self.unused.set(self.unused.get().min(free.len()));
        block
    }

    /// A place in the list for a buffer that is about to be lent, so that its return allocates nothing.
    fn prepare_place(&self) {
        let mut free = self.free.borrow_mut();
        let places = (self.in_use.get() + 1 + free.len()).min(self.free_max.get());
        let missing = places.saturating_sub(free.len());
        // Without a place the buffer will not be kept.
        let _ = free.try_reserve(missing);
    }

    /// Whether one more is kept.
    fn has_room(&self) -> bool {
        let free = self.free.borrow();
        free.len() < self.free_max.get() && free.len() < free.capacity()
    }
}

#[cfg(test)]
pub(crate) mod tests;
