//! What other threads ask of a shard, and what it does then: another configuration, a drain, the end.

use std::os::fd::AsFd;

use super::{
    Message, census,
    deadline::DRAIN_GRACE,
    driver::{Driver, handshakes_share, slots_bytes},
    listener::{DRAIN_ACCEPTS, Listening, RESERVED_SLOTS},
    slot::{Key, Stage},
};
use crate::{
    memory::{Level, Rank},
    service::Site,
    sys::socket,
};

impl Driver {
    pub(super) fn obey(&mut self, message: Message) {
        match message {
            Message::Accepted(accepted) => self.take_in(accepted),
            // Whoever asked may have given up waiting.
            Message::Present(here) => {
                let _ = here.send(());
            }
            Message::Reload(site, changes, done) => {
                self.reload(&site);
                for change in changes {
                    tracing::info!("reloaded: {change}");
                }
                let _ = done.send(());
            }
            Message::Listeners(answer) => {
                let duplicate = |listening: &Listening| {
                    Ok((listening.listener, socket::duplicate(listening.socket.as_fd())?))
                };
                let _ = answer.send(self.listeners.iter().flatten().map(duplicate).collect());
            }
            Message::Largest(limit, answer) => {
                answer.give(census::largest(&self.slots, self.shard, limit));
            }
            Message::Pressure(level) => self.relieve(level),
            Message::TicketKeys(keys) => self.worker.resumption.set_keys(keys),
            Message::Sessions => self.worker.resumption.take_in(),
            Message::Drain => self.drain(),
            Message::HandOver => {
                for index in 0..self.listeners.len() {
                    self.close_listener(index);
                }
                self.drain();
            }
            Message::Stop => {
                self.drain();
                self.stopping = true;
                self.listeners.clear();
                self.worker.context.offload.close();
                self.close_where(|_| true);
            }
        }
    }

    /// Takes over another configuration. More connections get their slots now; when there are more than are allowed
    /// from now on, all of them stay, and no other comes in until enough have left.
    fn reload(&mut self, site: &Site) {
        self.worker.reload(site);
        let memory = &site.settings.memory;
        let bytes = slots_bytes(memory.worker_connections);
        if self.slots_held.grow(bytes, Rank::Finish) {
            self.capacity = memory.worker_connections;
            let slots = self.capacity + RESERVED_SLOTS;
            self.slots.reserve(slots.saturating_sub(self.slots.len()));
        } else {
            tracing::warn!(shard = self.shard, "memory is short: no more connections than before");
            self.capacity = self.capacity.min(memory.worker_connections);
        }
        self.handshakes.resize(handshakes_share(&site.settings));
        self.kept = memory.buffer_pools;
        if self.level >= Level::High {
            self.worker.pool.halve(self.kept);
        } else {
            self.worker.pool.resize(self.kept);
        }
        tracing::debug!(shard = self.shard, "serving from a new configuration");
    }

    /// Takes what waits in the queues of the listeners, closes them, and lets go of who waits for nothing.
    fn drain(&mut self) {
        if std::mem::replace(&mut self.worker.draining, true) {
            return;
        }
        tracing::info!(shard = self.shard, connections = self.open, "draining");
        for index in 0..self.listeners.len() {
            if self.listeners[index].as_ref().is_some_and(|listening| !listening.admin) {
                for _ in 0..DRAIN_ACCEPTS {
                    if !self.accept(index) {
                        break;
                    }
                }
                self.close_listener(index);
            }
        }
        let now = self.worker.now;
        let deadlines = &mut self.worker.deadlines;
        deadlines.begin_drain();
        let soon = deadlines.within(DRAIN_GRACE, now);
        let mut resting = Vec::new();
        for (index, slot) in &mut self.slots {
            match slot.stage {
                Stage::Idle if slot.flags.admin() => {}
                Stage::Idle if !deadlines.answered_lately(slot.deadline, now) => {
                    slot.ask_to_end();
                    resting.push(Key::of(index, slot));
                }
                Stage::Idle | Stage::Fresh | Stage::Handshake => slot.deadline = slot.deadline.min(soon),
                _ => {}
            }
        }
        for key in resting {
            self.queue(key);
        }
    }

    fn close_listener(&mut self, index: usize) {
        if let Some(listening) = self.listeners[index].take() {
            // A duplicate in another shard, or in another process, would keep the registration alive.
            let _ = self.epoll.remove(listening.socket.as_fd());
        }
    }
}
