//! What a shard does when memory gets short, and when it is there again. The level is decided elsewhere; here it is
//! obeyed, once for each message.
//!
//! | level | what is done |
//! | --- | --- |
//! | elevated | caches give up 30 % of what they hold |
//! | high | the response cache is cleared, mapped files are let go, idle connections end, those with TLS first, the pool keeps half as many free buffers; nothing new is cached |
//! | critical | a quarter of the connections ends, on entering and once a second: idle ones first, then those that hold most; new connections are told to come back later |
//!
//! A level that is skipped on the way up is made up for. Admin connections are left alone.

use super::{
    connection::{Step, take_kept},
    driver::Driver,
    slot::{Key, Stage},
};
use crate::{memory::Level, metrics::Relief};

/// What is left of a cache's content after it was shrunk, in per cent.
const SHRUNK_PERCENT: usize = 70;
/// The part of the connections that ends at once: one in so many.
const CLOSED_PART: usize = 4;

impl Driver {
    /// The level of pressure is another, or it is still critical a second later.
    pub(super) fn relieve(&mut self, level: Level) {
        let before = std::mem::replace(&mut self.level, level);
        if level >= Level::Elevated && before < Level::Elevated {
            self.shrink_caches();
        }
        if level >= Level::High && before < Level::High {
            self.clear_caches();
            self.end_idle(usize::MAX);
            self.halve_pool();
        }
        if level < Level::High && before >= Level::High {
            self.worker.pool.resize(self.kept);
            self.worker.overflow.resize(self.kept);
        }
        if level == Level::Critical {
            self.close_a_quarter();
        }
    }

    fn shrink_caches(&mut self) {
        self.worker.context.files.borrow_mut().shrink_to(SHRUNK_PERCENT);
        self.worker.mappings.shrink_to(SHRUNK_PERCENT);
        self.worker.resumption.shrink_to(SHRUNK_PERCENT);
        self.count_relief(Relief::CachesShrunk, 1);
    }

    fn clear_caches(&mut self) {
        self.worker.context.files.borrow_mut().clear_contents();
        self.worker.mappings.shrink_to(0);
        self.count_relief(Relief::CachesCleared, 1);
    }

    fn halve_pool(&mut self) {
        self.worker.pool.halve(self.kept);
        self.worker.overflow.halve(self.kept);
        self.worker.exchanges.keep_empty(0);
        self.count_relief(Relief::PoolHalved, 1);
    }

    /// Ends up to `count` idle connections: those with TLS first, which hold most, and of either kind those that have been
    /// idle longest. A request that has come meanwhile is answered. Returns how many there were.
    fn end_idle(&mut self, count: usize) -> usize {
        let mut idle: Vec<((bool, u32), Key)> = self
            .slots
            .iter()
            .filter(|(_, slot)| slot.stage == Stage::Idle && !slot.flags.admin() && !slot.flags.close())
            // All wait equally long, so the earliest deadline is the oldest.
            .map(|(index, slot)| ((!slot.is_secure(), slot.deadline), Key::of(index, slot)))
            .collect();
        idle.sort_unstable_by_key(|(order, _)| *order);
        idle.truncate(count);
        for (_, key) in &idle {
            if let Some(slot) = self.slot(*key) {
                slot.ask_to_end();
                self.queue(*key);
            }
        }
        self.count_relief(Relief::IdleClosed, idle.len());
        idle.len()
    }

    fn close_a_quarter(&mut self) {
        let count = self.open.div_ceil(CLOSED_PART);
        let left = count - self.end_idle(count);
        if left == 0 {
            return;
        }
        let mut active: Vec<(usize, Key)> = self
            .slots
            .iter()
            .filter(|(_, slot)| {
                !slot.flags.admin()
                    && !slot.flags.shed()
                    && !matches!(slot.stage, Stage::Idle | Stage::Lingering)
            })
            .map(|(index, slot)| (slot.held_bytes(), Key::of(index, slot)))
            .collect();
        if left < active.len() {
            active.select_nth_unstable_by_key(left, |(bytes, _)| std::cmp::Reverse(*bytes));
            active.truncate(left);
        }
        self.count_relief(Relief::ActiveClosed, active.len());
        for (_, key) in active {
            self.turn(key, |worker, slot, _| match slot.stage {
                // Nothing of a response was sent: there is something better to say than nothing.
                Stage::Fresh | Stage::Head | Stage::Body => {
                    let kept = take_kept(slot);
                    worker.refuse_for_memory(slot, kept.as_ref().map_or(&[], |kept| kept.filled()));
                    worker.settle(slot, Step::Wait)
                }
                _ => Step::Close,
            });
        }
    }

    fn count_relief(&self, relief: Relief, count: usize) {
        self.worker.metrics.memory.relief[relief as usize].add(count as u64);
    }

    /// Bodies that wait for memory look whether there is some.
    pub(super) fn feed_starved(&mut self) {
        for _ in 0..self.worker.starved.len() {
            let Some(key) = self.worker.starved.pop_front() else { return };
            if let Some(slot) = self.slot(key) {
                slot.flags.set_starved(false);
                self.queue(key);
            }
        }
    }
}
