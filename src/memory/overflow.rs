//! Free buffers that all shards share, under a lock that a shard takes only when its own are too few or too many. And
//! below them the memory that buffers are made of.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use super::{
    Tier,
    budget::{Budget, Share},
    region::{Block, Regions},
};
use crate::{config::BufferPools, metrics::Holder};

/// How often the free buffers that nobody needed become fewer.
const DECAY_MILLIS: u64 = 1000;

/// The free buffers of all shards together.
#[derive(Debug)]
pub struct Overflow {
    budget: Arc<Budget>,
    shelves: [Mutex<Shelf>; Tier::ALL.len()],
    decayed_millis: AtomicU64,
}

#[derive(Debug)]
struct Shelf {
    free: Vec<Block>,
    free_max: usize,
    /// The fewest that were free since the last decay: nobody needed those.
    unused: usize,
    regions: Regions,
}

impl Overflow {
    /// None free, at most the configuration's `global` counts.
    pub fn new(kept: BufferPools, budget: &Arc<Budget>) -> Arc<Self> {
        let counts = kept.global_counts();
        let shelf = |tier: Tier| {
            let (free, free_max) = (Vec::new(), counts[tier as usize]);
            Mutex::new(Shelf { free, free_max, unused: 0, regions: Regions::new(tier) })
        };
        Arc::new(Overflow {
            budget: Arc::clone(budget),
            shelves: Tier::ALL.map(shelf),
            decayed_millis: AtomicU64::new(0),
        })
    }

    /// Keeps other counts from now on.
    pub fn resize(&self, kept: BufferPools) {
        self.resize_to(kept.global_counts());
    }

    /// Keeps at most half of the configuration's counts, while memory is short.
    pub fn halve(&self, kept: BufferPools) {
        self.resize_to(kept.global_counts().map(|count| count / 2));
    }

    /// Free buffers of `tier`.
    pub fn available(&self, tier: Tier) -> usize {
        usize::try_from(self.budget.buffers_available(tier).value()).unwrap_or(usize::MAX)
    }

    /// Whether no buffer is free.
    pub fn is_empty(&self) -> bool {
        Tier::ALL.iter().all(|tier| self.available(*tier) == 0)
    }

    /// Gives up half of the buffers that nobody has needed since this was last done, once a second whoever calls.
    pub fn decay(&self, now_millis: u64) {
        let last = self.decayed_millis.load(Relaxed);
        if now_millis.saturating_sub(last) < DECAY_MILLIS
            || self.decayed_millis.compare_exchange(last, now_millis, Relaxed, Relaxed).is_err()
        {
            return;
        }
        for tier in Tier::ALL {
            let mut shelf = self.lock(tier);
            let keep = shelf.free.len() - shelf.unused.div_ceil(2).min(shelf.free.len());
            let surplus = self.cut(tier, &mut shelf, keep);
            shelf.unused = shelf.free.len();
            drop(shelf);
            self.free(tier, surplus);
        }
    }

    /// Gives up every free buffer of every tier: memory is wanted for something else.
    pub(super) fn clear(&self) {
        for tier in Tier::ALL {
            if self.available(tier) > 0 {
                let surplus = self.cut(tier, &mut self.lock(tier), 0);
                self.free(tier, surplus);
            }
        }
    }

    /// A free buffer for a shard, which counts for it from now on.
    pub(super) fn take(&self, tier: Tier, share: &Share) -> Option<Block> {
        if self.available(tier) == 0 {
            return None;
        }
        let mut shelf = self.lock(tier);
        let block = shelf.free.pop()?;
        shelf.unused = shelf.unused.min(shelf.free.len());
        self.publish(tier, &shelf);
        drop(shelf);
        share.adopt(Holder::BuffersFree, tier.bytes());
        Some(block)
    }

    /// A new zeroed buffer, for which the caller has reserved; `None` when the kernel refuses memory.
    pub(super) fn make(&self, tier: Tier) -> Option<Block> {
        self.lock(tier).regions.take()
    }

    /// Takes a shard's free buffer, and what it counts for; gives both up where there are enough.
    pub(super) fn keep(&self, tier: Tier, block: Block, share: &Share) {
        let mut shelf = self.lock(tier);
        if shelf.free.len() < shelf.free_max && shelf.free.try_reserve(1).is_ok() {
            share.hand_over(Holder::BuffersFree, tier.bytes());
            shelf.free.push(block);
            self.publish(tier, &shelf);
            return;
        }
        drop(shelf);
        self.discard(tier, block);
        share.give_back(Holder::BuffersFree, tier.bytes());
    }

    /// Gives the memory of a buffer back to the kernel.
    pub(super) fn discard(&self, tier: Tier, block: Block) {
        let vacated = block.discard();
        self.lock(tier).regions.give_back(vacated);
    }

    /// Whether a buffer of `tier` that comes now would be kept.
    pub(super) fn has_room(&self, tier: Tier) -> bool {
        let shelf = self.lock(tier);
        shelf.free.len() < shelf.free_max
    }

    fn resize_to(&self, counts: [usize; Tier::ALL.len()]) {
        for tier in Tier::ALL {
            let mut shelf = self.lock(tier);
            shelf.free_max = counts[tier as usize];
            let keep = shelf.free_max;
            let surplus = self.cut(tier, &mut shelf, keep);
            drop(shelf);
            self.free(tier, surplus);
        }
    }

    /// Takes what is beyond `keep` off a shelf, those that came first.
    fn cut(&self, tier: Tier, shelf: &mut Shelf, keep: usize) -> Vec<Block> {
        let beyond = shelf.free.len().saturating_sub(keep);
        let surplus = shelf.free.drain(..beyond).collect();
        shelf.unused = shelf.unused.min(shelf.free.len());
        self.publish(tier, shelf);
        surplus
    }

    /// Gives up buffers that counted for no shard.
    fn free(&self, tier: Tier, surplus: Vec<Block>) {
        for block in surplus {
            self.discard(tier, block);
            self.budget.give_back_shared(Holder::BuffersFree, tier.bytes());
        }
    }

    /// The number of free buffers is looked at without the lock.
    fn publish(&self, tier: Tier, shelf: &Shelf) {
        self.budget.buffers_available(tier).set(shelf.free.len() as u64);
    }

    fn lock(&self, tier: Tier) -> MutexGuard<'_, Shelf> {
        self.shelves[tier as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Overflow {
    fn drop(&mut self) {
        self.clear();
    }
}
