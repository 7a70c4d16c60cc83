//! When generated ticket keys are replaced. One thread of the server looks; shards are told.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::TicketKeys;
use crate::{config::Settings, error::Result, tls::resumption::lifetime};

/// Bounds of a period, which is half of a ticket's lifetime: whoever gets hold of a key can decrypt what was resumed
/// with its tickets and is recorded, so a key is not for long; but each one costs a message to every shard.
const PERIOD: (Duration, Duration) = (Duration::from_secs(10 * 60), Duration::from_secs(6 * 3600));
/// When the system had no random bytes, how long until it is asked again.
const RETRY: Duration = Duration::from_secs(10);

/// The server's own ticket keys, from its start to its end, reloads included.
#[derive(Debug)]
pub struct TicketRotation {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    keys: Arc<TicketKeys>,
    period: Duration,
    /// Previous keys that are kept: as many as a ticket's lifetime has periods.
    previous_max: usize,
    /// When the keys are replaced next; never, while no listener encrypts with them.
    due: Option<Instant>,
}

impl TicketRotation {
    /// Keys for a server with these settings.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Io`] when the system has no random bytes.
    pub fn start(settings: &Settings, now: Instant) -> Result<Self> {
        let keys = Arc::new(TicketKeys::generate()?);
        let state = State { keys, period: PERIOD.1, previous_max: 1, due: None };
        let rotation = TicketRotation { state: Mutex::new(state) };
        rotation.reload(settings, now);
        Ok(rotation)
    }

    /// Keys that are to be replaced at once.
    #[cfg(test)]
    pub(crate) fn overdue() -> Self {
        let keys = Arc::new(TicketKeys::generate().unwrap());
        let state = State { keys, period: PERIOD.1, previous_max: 1, due: Some(Instant::now()) };
        TicketRotation { state: Mutex::new(state) }
    }

    /// Goes by other settings from now on. The keys stay, so tickets do.
    pub fn reload(&self, settings: &Settings, now: Instant) {
        let own = |tls: &crate::config::Tls| tls.ticket_key_file.is_none();
        let used = settings.memory.tls_session_cache.tickets
            && settings.listeners.iter().any(|listener| listener.tls.as_ref().is_some_and(own));
        let mut state = self.lock();
        state.set_lifetime(lifetime(&settings.memory.tls_session_cache));
        let latest = now + state.period;
        state.due = used.then(|| state.due.map_or(latest, |due| due.min(latest)));
    }

    /// The keys in force.
    pub fn keys(&self) -> Arc<TicketKeys> {
        Arc::clone(&self.lock().keys)
    }

    /// When [`TicketRotation::rotate`] is due next, if ever.
    pub fn due(&self) -> Option<Instant> {
        self.lock().due
    }

    /// Replaces the keys if that is due, and returns those in force.
    pub fn rotate(&self, now: Instant) -> Arc<TicketKeys> {
        let mut state = self.lock();
        if state.due.is_some_and(|due| due <= now) {
            match state.keys.rotated(state.previous_max) {
                Ok(keys) => {
                    state.keys = Arc::new(keys);
                    state.due = Some(now + state.period);
                }
                Err(error) => {
                    tracing::error!("{error}; the old ones stay for {} s more", RETRY.as_secs());
                    state.due = Some(now + RETRY);
                }
            }
        }
        Arc::clone(&state.keys)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// A key encrypts for one period, and decrypts for a ticket's whole lifetime after that.
    fn set_lifetime(&mut self, lifetime: Duration) {
        self.period = (lifetime / 2).clamp(PERIOD.0, PERIOD.1);
        let periods = lifetime.as_secs().div_ceil(self.period.as_secs());
        self.previous_max = usize::try_from(periods).unwrap_or(usize::MAX).max(1);
    }
}
