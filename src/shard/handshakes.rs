//! Whose TLS handshake goes on next. Handshakes cost most of the processor and memory that a client can take before it has
//! sent a request: so many are in progress at once, and in each turn of the shard so much time is spent on them, that
//! established connections are served however many clients begin one.
//!
//! Those that are in progress go first, for they hold memory. The others wait in the order in which they came, hold a slot
//! and nothing else, and leave what their clients send in the sockets.

use std::{collections::VecDeque, time::Duration};

use super::{
    Worker,
    driver::Driver,
    slot::{Key, Slot, Stage},
};
use crate::metrics::TlsFailure;

/// Time for handshakes in one turn: at most one beyond it.
const TURN_NANOS: u64 = 250_000;
/// While others wait, a handshake may take so long. A client that answers at once needs a few round trips.
const SLOW: Duration = Duration::from_secs(1);

/// Connections whose handshake can go on, or begin.
#[derive(Debug)]
pub(super) struct Handshakes {
    /// In progress.
    begun: VecDeque<Key>,
    /// Not yet.
    new: VecDeque<Key>,
    /// How many may be in progress.
    max: usize,
    /// Tick at which slow ones are looked for again.
    looked_at: u32,
}

impl Handshakes {
    /// At most `max` in progress, at least one.
    pub fn new(max: usize) -> Self {
        Handshakes { begun: VecDeque::new(), new: VecDeque::new(), max: max.max(1), looked_at: 0 }
    }

    /// Another bound; those in progress go on.
    pub fn resize(&mut self, max: usize) {
        self.max = max.max(1);
    }

    /// Whether there is something to do with so many in progress.
    pub fn is_ready(&self, in_progress: usize) -> bool {
        !self.begun.is_empty() || (!self.new.is_empty() && in_progress < self.max)
    }

    /// How many have not begun.
    pub fn waiting(&self) -> usize {
        self.new.len()
    }

    fn next(&mut self, in_progress: usize) -> Option<Key> {
        let may_begin = in_progress < self.max;
        self.begun.pop_front().or_else(|| if may_begin { self.new.pop_front() } else { None })
    }
}

impl Driver {
    /// Something has happened to a connection whose handshake is not complete: it stands in line.
    pub(super) fn queue_handshake(&mut self, key: Key) {
        let slots_max = self.slots.capacity();
        let Some(slot) = self.slots.get_mut(key.index as usize) else { return };
        if slot.flags.queued() {
            return;
        }
        slot.flags.set_queued(true);
        if slot.secure.is_some() {
            self.handshakes.begun.push_back(key);
            return;
        }
        self.handshakes.new.push_back(key);
        if self.handshakes.new.len() > slots_max {
            self.forget_who_left();
        }
    }

    /// Takes clients out of the line that left while they waited.
    fn forget_who_left(&mut self) {
        let slots = &self.slots;
        self.handshakes.new.retain(|key| is_there(slots, *key));
    }

    /// Goes on with handshakes for a while.
    pub(super) fn serve_handshakes(&mut self) {
        if !self.handshakes.is_ready(self.worker.tls.in_progress()) {
            return;
        }
        let end = self.worker.clock.nanos() + TURN_NANOS;
        while let Some(key) = self.handshakes.next(self.worker.tls.in_progress()) {
            if let Some(slot) = self.slot(key) {
                slot.flags.set_queued(false);
                self.turn(key, Worker::serve);
                if self.worker.clock.nanos() >= end {
                    return;
                }
            }
        }
    }

    /// While clients wait because others are slow: ends the slow ones, as many as wait.
    pub(super) fn end_slow_handshakes(&mut self, tick: u32) {
        if self.handshakes.waiting() == 0
            || tick == self.handshakes.looked_at
            || self.handshakes.is_ready(self.worker.tls.in_progress())
        {
            return;
        }
        self.handshakes.looked_at = tick;
        self.forget_who_left();
        let waiting = self.handshakes.waiting();
        let begun_before = self.worker.now.millis.saturating_sub(SLOW.as_millis() as u64);
        let slow: Vec<Key> = self
            .slots
            .iter()
            // Who is queued has said something, and waits for us.
            .filter(|(_, slot)| slot.stage == Stage::Handshake && !slot.flags.queued())
            .filter(|(_, slot)| slot.secure.as_ref().is_some_and(|secure| secure.begun_millis < begun_before))
            .map(|(index, slot)| Key::of(index, slot))
            .take(waiting)
            .collect();
        self.worker.metrics.tls.failures[TlsFailure::GaveWay as usize].add(slow.len() as u64);
        for key in slow {
            self.close(key);
        }
    }
}

fn is_there(slots: &slab::Slab<Slot>, key: Key) -> bool {
    slots.get(key.index as usize).is_some_and(|slot| slot.generation == key.generation)
}
