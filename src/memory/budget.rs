//! One budget for everything that a server holds. Each holder reserves before it takes and gives back by `Drop`.
//!
//! A shard takes bytes from the budget in chunks and hands them out itself ([`Share`]), so that a request touches no
//! counter of another shard. What belongs to no shard, and what is rare, reserves from the budget at once ([`Charge`]).
//! Whatever the order of events, the sum of what is held is never more than the budget. Nothing here waits, and
//! nothing is called when memory gets short: a refusal is a value, and [`Budget::wait`] is for a thread that looks.

use std::{
    cell::Cell,
    rc::Rc,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Relaxed, SeqCst},
            fence,
        },
    },
    time::Duration,
};

use super::{Tier, pressure::Level};
use crate::metrics::{Holder, ServerMemory, ShardMetrics, SharedGauge};

/// A shard takes and gives back a chunk at a time: this part of its share of the budget.
const CHUNKS_PER_SHARE: u64 = 512;
/// Bounds of a chunk. The lower one is four small buffers.
const CHUNK_BYTES: (u64, u64) = (16 << 10, 1 << 20);
/// The part of the budget that is kept for finishing what was begun.
const FINISH_PART: u64 = 32;

/// What bytes are wanted for. Finishing a response outranks starting one: otherwise responses that are half sent could
/// wait for requests that wait for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rank {
    /// Taking in a request, caching: the last 1/32 of the budget is not for it.
    Start,
    /// Ending what a client was promised.
    Finish,
}

/// The budget of a server.
#[derive(Debug)]
pub struct Budget {
    server: Arc<ServerMemory>,
    shards: Vec<Arc<ShardMetrics>>,
    alarm: Alarm,
}

/// Wakes whoever decides about the level of pressure.
#[derive(Debug)]
struct Alarm {
    /// From here on, and below this, bytes taken ring it.
    above_bytes: AtomicU64,
    below_bytes: AtomicU64,
    rung: AtomicBool,
    closed: Mutex<bool>,
    wake: Condvar,
}

/// The budget at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assessment {
    /// The level that follows the present one.
    pub level: Level,
    /// Bytes held.
    pub used_bytes: u64,
    /// The budget.
    pub budget_bytes: u64,
}

impl Budget {
    /// A budget of `bytes`, counted in `server` and, for what the shards hold, in `shards`.
    pub fn new(bytes: usize, server: Arc<ServerMemory>, shards: Vec<Arc<ShardMetrics>>) -> Arc<Self> {
        let alarm = Alarm {
            above_bytes: AtomicU64::new(u64::MAX),
            below_bytes: AtomicU64::new(0),
            rung: AtomicBool::new(false),
            closed: Mutex::new(false),
            wake: Condvar::new(),
        };
        let budget = Budget { server, shards, alarm };
        budget.server.budget_bytes.set(bytes as u64);
        budget.watch(Level::Normal);
        Arc::new(budget)
    }

    /// Allows another number of bytes from now on. What is held above it stays until it is given back.
    pub fn resize(&self, bytes: usize) {
        self.server.budget_bytes.set(bytes as u64);
        self.watch(self.level());
        self.alarm.ring();
    }

    /// Bytes allowed.
    pub fn bytes(&self) -> u64 {
        self.server.budget_bytes.value()
    }

    /// Bytes held by everyone.
    pub fn used_bytes(&self) -> u64 {
        self.server.used_sum() + self.shards.iter().map(|shard| shard.memory.used_sum()).sum::<u64>()
    }

    /// Bytes held by one shard for something.
    #[cfg(test)]
    pub(super) fn used_by_shard(&self, shard: usize, holder: Holder) -> u64 {
        self.shards.get(shard).map_or(0, |shard| shard.memory.used_bytes[holder as usize].value())
    }

    /// The level of pressure that was decided last. One load of a line that is rarely written.
    pub fn level(&self) -> Level {
        Level::from_number(self.server.pressure.value())
    }

    /// Reserves `bytes` for a holder that belongs to no shard; any thread. `None` when the budget has not so many left.
    pub fn charge(self: &Arc<Self>, holder: Holder, bytes: usize) -> Option<Charge> {
        if !self.take(bytes as u64, Rank::Start) {
            self.server.refused[holder as usize].add(1);
            return None;
        }
        self.server.used_bytes[holder as usize].add(bytes as u64);
        Some(Charge { budget: Arc::clone(self), holder, bytes })
    }

    /// Reserves bytes of the host's own; false when the budget has not so many left.
    #[must_use]
    pub fn charge_host(&self, bytes: usize) -> bool {
        let taken = self.take(bytes as u64, Rank::Start);
        if taken {
            self.server.used_bytes[Holder::Host as usize].add(bytes as u64);
        } else {
            self.server.refused[Holder::Host as usize].add(1);
        }
        taken
    }

    /// The host gives bytes back: at most those it has charged.
    pub fn release_host(&self, bytes: usize) {
        self.give_back(self.server.used_bytes[Holder::Host as usize].subtract_up_to(bytes as u64));
    }

    /// The level by what is held now, which becomes the present one, and whether it is another than before.
    pub fn assess(&self) -> (Assessment, bool) {
        let (before, budget_bytes) = (self.level(), self.bytes());
        let used_bytes = self.used_bytes();
        let level = before.next(used_bytes, budget_bytes);
        if level != before {
            self.server.pressure.set(level as u64);
            self.server.entered[level as usize].add(1);
            self.watch(level);
        }
        (Assessment { level, used_bytes, budget_bytes }, level != before)
    }

    /// Waits until so many bytes are taken, or so few, that the level may be another; or for `timeout`; or until the
    /// budget is closed. False when it is closed.
    #[must_use]
    pub fn wait(&self, timeout: Option<Duration>) -> bool {
        self.alarm.wait(timeout)
    }

    /// Whether more bytes are taken than the present level is for: some of them may not be held yet.
    pub fn is_near_next_level(&self) -> bool {
        self.server.taken_bytes.value() >= self.alarm.above_bytes.load(Relaxed)
    }

    /// Whoever waits is told to end.
    pub fn close(&self) {
        *self.alarm.closed.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.alarm.wake.notify_all();
    }

    /// Gives back what no shard holds any more.
    pub(super) fn give_back_shared(&self, holder: Holder, bytes: usize) {
        self.server.used_bytes[holder as usize].subtract_up_to(bytes as u64);
        self.give_back(bytes as u64);
    }

    /// Where the number of free buffers that all shards share is shown.
    pub(super) fn buffers_available(&self, tier: Tier) -> &SharedGauge {
        &self.server.buffers_available[tier as usize]
    }

    fn chunk_bytes(&self) -> u64 {
        let share = self.bytes() / (self.shards.len() as u64).max(1);
        (share / CHUNKS_PER_SHARE).clamp(CHUNK_BYTES.0, CHUNK_BYTES.1)
    }

    /// Takes exactly `bytes`.
    fn take(&self, bytes: u64, rank: Rank) -> bool {
        let budget = self.bytes();
        let max = match rank {
            Rank::Start => budget - budget / FINISH_PART,
            Rank::Finish => budget,
        };
        match self.server.taken_bytes.add_up_to(bytes, max) {
            Some(taken) => {
                self.server.peak_bytes.raise(taken);
                if taken >= self.alarm.above_bytes.load(Relaxed) {
                    self.alarm.ring();
                }
                true
            }
            None => {
                self.alarm.ring();
                false
            }
        }
    }

    fn give_back(&self, bytes: u64) {
        self.server.taken_bytes.subtract_up_to(bytes);
        if self.server.taken_bytes.value() < self.alarm.below_bytes.load(Relaxed) {
            self.alarm.ring();
        }
    }

    /// Sets the alarm for what ends `level`.
    fn watch(&self, level: Level) {
        let (below, above) = level.bounds(self.bytes());
        self.alarm.below_bytes.store(below, Relaxed);
        self.alarm.above_bytes.store(above, Relaxed);
    }
}

impl Alarm {
    /// Once until somebody has waited: further calls cost a load.
    fn ring(&self) {
        // Whoever finds it rung must be sure that the one who waits will see what was taken: see `wait`.
        fence(SeqCst);
        if !self.rung.load(Relaxed) && !self.rung.swap(true, Relaxed) {
            // The lock, so that no waiter is between its look and its wait.
            let _closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
            self.wake.notify_all();
        }
    }

    fn wait(&self, timeout: Option<Duration>) -> bool {
        let closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        let quiet = |closed: &mut bool| !*closed && !self.rung.load(Relaxed);
        let closed = match timeout {
            Some(timeout) => {
                let (closed, _) = self
                    .wake
                    .wait_timeout_while(closed, timeout, quiet)
                    .unwrap_or_else(PoisonError::into_inner);
                closed
            }
            None => self.wake.wait_while(closed, quiet).unwrap_or_else(PoisonError::into_inner),
        };
        self.rung.store(false, Relaxed);
        // What is looked at from here on is newer than any call that found the alarm rung.
        fence(SeqCst);
        !*closed
    }
}

/// Bytes reserved by a holder that belongs to no shard. Given back when dropped, by any thread.
#[derive(Debug)]
pub struct Charge {
    budget: Arc<Budget>,
    holder: Holder,
    bytes: usize,
}

impl Charge {
    /// Bytes reserved.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Gives back what is beyond `bytes`.
    pub fn shrink(&mut self, bytes: usize) {
        let less = self.bytes.saturating_sub(bytes);
        self.bytes -= less;
        self.budget.give_back_shared(self.holder, less);
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.give_back_shared(self.holder, self.bytes);
    }
}

/// One shard's part of the budget. Belongs to its thread.
#[derive(Debug)]
pub struct Share {
    budget: Arc<Budget>,
    metrics: Arc<ShardMetrics>,
    used_bytes: Cell<u64>,
    granted_bytes: Cell<u64>,
}

impl Share {
    /// Nothing yet, for the shard with this number.
    pub fn new(budget: &Arc<Budget>, shard: usize) -> Rc<Self> {
        let metrics = Arc::clone(&budget.shards[shard]);
        let budget = Arc::clone(budget);
        Rc::new(Share { budget, metrics, used_bytes: Cell::new(0), granted_bytes: Cell::new(0) })
    }

    /// The budget that it is a part of.
    pub fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// Reserves `bytes`; `None` when neither the shard nor the budget has so many left.
    pub fn reserve(self: &Rc<Self>, holder: Holder, bytes: usize, rank: Rank) -> Option<Reservation> {
        self.take(holder, bytes, rank).then(|| Reservation { share: Rc::clone(self), holder, bytes })
    }

    /// The same without a guard: whoever takes bytes so gives them back with [`Share::give_back`].
    #[must_use]
    pub(super) fn take(&self, holder: Holder, bytes: usize, rank: Rank) -> bool {
        let used = self.used_bytes.get().saturating_add(bytes as u64);
        let missing = used.saturating_sub(self.granted_bytes.get());
        if missing > 0 && !self.grow(missing, rank) {
            self.metrics.memory.refused[holder as usize].increment();
            return false;
        }
        self.used_bytes.set(used);
        self.metrics.memory.used_bytes[holder as usize].add(bytes as u64);
        true
    }

    /// Gives back what [`Share::take`] took.
    pub(super) fn give_back(&self, holder: Holder, bytes: usize) {
        self.metrics.memory.used_bytes[holder as usize].subtract(bytes as u64);
        let used = self.used_bytes.get().saturating_sub(bytes as u64);
        self.used_bytes.set(used);
        let chunk = self.budget.chunk_bytes();
        let spare = self.granted_bytes.get() - used;
        if spare > 2 * chunk {
            self.grant(self.granted_bytes.get() - (spare - chunk));
            self.budget.give_back(spare - chunk);
        }
    }

    /// Bytes held for one thing are held for another from now on.
    pub(super) fn pass(&self, from: Holder, to: Holder, bytes: usize) {
        self.metrics.memory.used_bytes[from as usize].subtract(bytes as u64);
        self.metrics.memory.used_bytes[to as usize].add(bytes as u64);
    }

    /// Bytes held here are held by no shard from now on, for the same thing.
    pub(super) fn hand_over(&self, holder: Holder, bytes: usize) {
        let bytes = bytes as u64;
        self.metrics.memory.used_bytes[holder as usize].subtract(bytes);
        self.budget.server.used_bytes[holder as usize].add(bytes);
        self.used_bytes.set(self.used_bytes.get() - bytes);
        self.grant(self.granted_bytes.get() - bytes);
    }

    /// Bytes held by no shard are held here from now on, for the same thing.
    pub(super) fn adopt(&self, holder: Holder, bytes: usize) {
        let bytes = bytes as u64;
        self.budget.server.used_bytes[holder as usize].subtract_up_to(bytes);
        self.grant(self.granted_bytes.get() + bytes);
        self.used_bytes.set(self.used_bytes.get() + bytes);
        self.metrics.memory.used_bytes[holder as usize].add(bytes);
    }

    /// Takes a chunk, or what is missing if that is more, or if a chunk is not left.
    fn grow(&self, missing: u64, rank: Rank) -> bool {
        let chunk = self.budget.chunk_bytes().max(missing);
        for bytes in [chunk, missing] {
            if self.budget.take(bytes, rank) {
                self.grant(self.granted_bytes.get() + bytes);
                return true;
            }
        }
        false
    }

    fn grant(&self, bytes: u64) {
        self.granted_bytes.set(bytes);
        self.metrics.memory.granted_bytes.set(bytes);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        // Every reservation holds the share: none is left.
        let granted = self.granted_bytes.replace(0);
        self.metrics.memory.granted_bytes.set(0);
        self.budget.give_back(granted);
    }
}

/// Bytes reserved by a holder of a shard. Given back when dropped.
#[derive(Debug)]
pub struct Reservation {
    share: Rc<Share>,
    holder: Holder,
    bytes: usize,
}

impl Reservation {
    /// Bytes reserved.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Makes it `bytes` large; false, and nothing changed, when there are not so many left.
    #[must_use]
    pub fn grow(&mut self, bytes: usize, rank: Rank) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        let taken = self.share.take(self.holder, more, rank);
        if taken {
            self.bytes += more;
        }
        taken
    }
}

impl Reservation {
    /// Gives back what is beyond `bytes`.
    pub fn shrink(&mut self, bytes: usize) {
        self.share.give_back(self.holder, self.bytes.saturating_sub(bytes));
        self.bytes = self.bytes.min(bytes);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.share.give_back(self.holder, self.bytes);
    }
}

#[cfg(test)]
pub(crate) mod tests;
