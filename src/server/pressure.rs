//! The thread that decides about the level of pressure: it sleeps until so many bytes are taken that the level may be
//! another, tells the shards and the host, and writes one line into the log for each change. Since it sleeps anyway, it
//! also replaces the keys of session tickets when that is due.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use super::{OnPressure, Options};
use crate::{
    memory::{Budget, Level, budget::Assessment},
    runtime::Mailbox,
    shard::Message,
    sys::thread,
    tls::{TicketKeys, TicketRotation},
};

/// How often it looks while the level is not normal, or about to change: not every byte rings the alarm.
const LOOK: Duration = Duration::from_millis(50);
/// How often the shards are told that the level is still critical.
const REPEAT: Duration = Duration::from_secs(1);
/// Messages in a shard's mailbox above which it is not told now but at the next look: others must find room.
pub(super) const MESSAGES_MAX: usize = 128;

/// Starts the thread. It ends when the budget is closed.
pub(super) fn start(
    budget: &Arc<Budget>,
    shards: &Arc<[Arc<Mailbox<Message>>]>,
    rotation: &Arc<TicketRotation>,
    options: &Options,
    dispatch: tracing::Dispatch,
) -> io::Result<JoinHandle<()>> {
    let (budget, shards, host) = (Arc::clone(budget), Arc::clone(shards), options.on_pressure.clone());
    let rotation = Arc::clone(rotation);
    thread::spawn("webserver/mem", move || {
        let _logging = tracing::dispatcher::set_default(&dispatch);
        let told = vec![Told { level: Level::Normal, keys: rotation.keys() }; shards.len()];
        Watch { budget, told, shards, rotation, host, critical_since: None }.run();
    })
}

struct Watch {
    budget: Arc<Budget>,
    shards: Arc<[Arc<Mailbox<Message>>]>,
    /// What each shard was told last.
    told: Vec<Told>,
    rotation: Arc<TicketRotation>,
    host: Option<OnPressure>,
    /// When the shards were told last that the level is critical.
    critical_since: Option<Instant>,
}

/// What a shard knows.
#[derive(Clone)]
struct Told {
    level: Level,
    keys: Arc<TicketKeys>,
}

impl Watch {
    fn run(mut self) {
        let mut calm = true;
        while self.budget.wait(self.pause(calm)) {
            let (assessment, changed) = self.budget.assess();
            if changed {
                log(&assessment);
                self.critical_since = None;
            }
            let repeat = assessment.level == Level::Critical
                && self.critical_since.is_none_or(|since| since.elapsed() >= REPEAT);
            if repeat {
                self.critical_since = Some(Instant::now());
            }
            self.tell(assessment.level, repeat);
            let keys_told = self.tell_keys();
            if changed {
                self.call(&assessment);
            }
            calm = keys_told
                && assessment.level == Level::Normal
                && !self.budget.is_near_next_level()
                && self.told.iter().all(|told| told.level == Level::Normal);
            if !calm {
                // However often the alarm rings: the shards need a moment to do something about it.
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    fn tell(&mut self, level: Level, repeat: bool) {
        for (shard, told) in self.shards.iter().zip(&mut self.told) {
            if (told.level != level || repeat)
                && shard.send_below(MESSAGES_MAX, Message::Pressure(level)).is_ok()
            {
                told.level = level;
            }
        }
    }

    /// How long there is nothing to do unless the alarm rings; `None` is for ever.
    fn pause(&self, calm: bool) -> Option<Duration> {
        if !calm {
            return Some(LOOK);
        }
        self.rotation.due().map(|due| due.saturating_duration_since(Instant::now()))
    }

    /// Replaces the keys of session tickets if that is due. False when some shard has no room for the message now: it is
    /// told at the next look, which is early enough, because it has had the key that the others encrypt with for long.
    fn tell_keys(&mut self) -> bool {
        let keys = self.rotation.rotate(Instant::now());
        let mut all = true;
        for (shard, told) in self.shards.iter().zip(&mut self.told) {
            if Arc::ptr_eq(&told.keys, &keys) {
                continue;
            }
            if shard.send_below(MESSAGES_MAX, Message::TicketKeys(Arc::clone(&keys))).is_ok() {
                told.keys = Arc::clone(&keys);
            } else {
                all = false;
            }
        }
        all
    }

    /// The host's function is the host's: whatever it does, the thread goes on.
    fn call(&self, assessment: &Assessment) {
        if let Some(host) = &self.host {
            let Assessment { level, used_bytes, budget_bytes } = *assessment;
            if catch_unwind(AssertUnwindSafe(|| host(level, used_bytes, budget_bytes))).is_err() {
                tracing::error!("the host's function for memory pressure panicked");
            }
        }
    }
}

fn log(assessment: &Assessment) {
    let Assessment { level, used_bytes, budget_bytes } = assessment;
    let percent = used_bytes.saturating_mul(100) / (*budget_bytes).max(1);
    let level = level.name();
    if assessment.level > Level::Elevated {
        tracing::warn!(level, used_bytes, budget_bytes, percent, "memory pressure");
    } else {
        tracing::info!(level, used_bytes, budget_bytes, percent, "memory pressure");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Registry;

    /// The keys that a shard was sent.
    fn sent(shard: &Mailbox<Message>) -> Vec<Arc<TicketKeys>> {
        let mut messages = Vec::new();
        shard.receive(&mut messages);
        let keys = |message| if let Message::TicketKeys(keys) = message { Some(keys) } else { None };
        messages.into_iter().filter_map(keys).collect()
    }

    #[test]
    fn new_ticket_keys_reach_every_shard_once_and_one_without_room_later() {
        let registry = Registry::new(2, &[]);
        let budget = Budget::new(1 << 20, Arc::clone(&registry.memory), registry.shards.clone());
        let shards: Arc<[_]> = (0..2).map(|_| Arc::new(Mailbox::new(1).unwrap())).collect();
        let rotation = Arc::new(TicketRotation::overdue());
        let told = vec![Told { level: Level::Normal, keys: rotation.keys() }; 2];
        let mut watch = Watch {
            budget,
            shards: Arc::clone(&shards),
            told,
            rotation: Arc::clone(&rotation),
            host: None,
            critical_since: None,
        };
        assert_eq!(watch.pause(true), Some(Duration::ZERO));
        assert!(shards[1].send(Message::Sessions).is_ok());
        assert!(!watch.tell_keys());
        let keys = sent(&shards[0]);
        assert!(keys.len() == 1 && Arc::ptr_eq(&keys[0], &rotation.keys()));
        assert!(sent(&shards[1]).is_empty());
        assert!(watch.tell_keys());
        assert!(sent(&shards[0]).is_empty());
        let keys = sent(&shards[1]);
        assert!(keys.len() == 1 && Arc::ptr_eq(&keys[0], &rotation.keys()));
        assert!(watch.tell_keys());
        assert!(sent(&shards[0]).is_empty() && sent(&shards[1]).is_empty());
        assert!(watch.pause(true).unwrap() > Duration::from_secs(3600));
    }
}
