//! How a shard's listeners resume sessions: with tickets or with sessions that are kept, the same on all shards.

use std::{
    cell::RefCell,
    fmt,
    sync::{Arc, Weak},
    time::Duration,
};

use rustls::{
    ServerConfig,
    time_provider::{DefaultTimeProvider, TimeProvider},
};

use super::{
    cache::{Policy, SessionCache, SharedSessions, Store},
    tickets::{TicketKeys, Ticketer, TicketerSetup},
};
use crate::{config::TlsSessionCache, memory::Budget, metrics::ShardMetrics};

/// No session lives longer, RFC 8446 section 4.6.1: a week.
const LIFETIME_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// How long a session can be resumed.
pub(super) fn lifetime(settings: &TlsSessionCache) -> Duration {
    settings.lifetime.min(LIFETIME_MAX)
}

/// One shard's part in resumption. Belongs to its thread; what the library is given of it counts on that thread too.
pub struct Resumption {
    shard: usize,
    settings: RefCell<TlsSessionCache>,
    cache: Arc<SessionCache>,
    keys: RefCell<Arc<TicketKeys>>,
    /// Of the configurations that connections still use.
    ticketers: RefCell<Vec<Weak<Ticketer>>>,
    time: Arc<dyn TimeProvider>,
    metrics: Arc<ShardMetrics>,
}

impl Resumption {
    /// For the shard with this number, which counts in `metrics`.
    pub fn new(
        shard: usize,
        settings: &TlsSessionCache,
        keys: Arc<TicketKeys>,
        sessions: &Arc<SharedSessions>,
        budget: &Arc<Budget>,
        metrics: &Arc<ShardMetrics>,
    ) -> Self {
        Resumption::with_time(shard, settings, keys, sessions, budget, metrics, Arc::new(DefaultTimeProvider))
    }

    pub(super) fn with_time(
        shard: usize,
        settings: &TlsSessionCache,
        keys: Arc<TicketKeys>,
        sessions: &Arc<SharedSessions>,
        budget: &Arc<Budget>,
        metrics: &Arc<ShardMetrics>,
        time: Arc<dyn TimeProvider>,
    ) -> Self {
        let cache = SessionCache::new(
            shard,
            Arc::clone(sessions),
            Arc::clone(budget),
            Arc::clone(metrics),
            Arc::clone(&time),
        );
        Resumption {
            shard,
            settings: RefCell::new(*settings),
            cache,
            keys: RefCell::new(keys),
            ticketers: RefCell::default(),
            time,
            metrics: Arc::clone(metrics),
        }
    }

    #[cfg(test)]
    pub(super) fn cache(&self) -> &Arc<SessionCache> {
        &self.cache
    }

    /// Makes a listener of this shard resume sessions. `policy` is what it asks of its clients' certificates: listeners
    /// with different ones do not resume each other's sessions. `file_keys` are those of its `ticket_key_file`; without
    /// tickets they are not used.
    pub fn apply(&self, config: &mut ServerConfig, policy: &[u8; 32], file_keys: Option<&Arc<TicketKeys>>) {
        let settings = *self.settings.borrow();
        let policy: Policy = *policy;
        let store = Store::new(Arc::clone(&self.cache), policy, settings.tickets);
        config.session_storage = Arc::<Store>::clone(&store);
        // A second one would be for a client that opens two connections next; most resume with one for both.
        config.send_tls13_tickets = 1;
        if !settings.tickets {
            return;
        }
        let setup = TicketerSetup {
            policy,
            lifetime: lifetime(&settings),
            time: Arc::clone(&self.time),
            metrics: Arc::clone(&self.metrics),
            store,
        };
        let own_keys = self.keys.borrow();
        let ticketer = Arc::new(Ticketer::new(setup, file_keys.unwrap_or(&own_keys), file_keys.is_some()));
        let mut ticketers = self.ticketers.borrow_mut();
        ticketers.retain(|ticketer| ticketer.strong_count() > 0);
        ticketers.push(Arc::downgrade(&ticketer));
        config.ticketer = ticketer;
    }

    /// The server has replaced its ticket keys.
    pub fn set_keys(&self, keys: Arc<TicketKeys>) {
        for ticketer in self.ticketers.borrow().iter().filter_map(Weak::upgrade) {
            ticketer.set_keys(&keys);
        }
        *self.keys.borrow_mut() = keys;
    }

    /// Other sizes and lifetimes from now on; call [`Resumption::apply`] for the listeners' new configurations after it.
    pub fn reload(&self, settings: &TlsSessionCache) {
        *self.settings.borrow_mut() = *settings;
        self.cache.reload(settings);
    }

    /// Takes in what other shards have published: they do not want to wait for this one to look.
    pub fn take_in(&self) {
        self.cache.take_in();
    }

    /// Memory is short: `percent` of the sessions are left when all shards have done this.
    pub fn shrink_to(&self, percent: usize) {
        self.cache.shrink_to(percent);
    }

    /// Ends what has expired. Bounded work; about once a second while [`Resumption::needs_housekeeping`].
    pub fn keep_house(&self) {
        self.cache.keep_house();
    }

    /// Whether the shard knows any session.
    pub fn needs_housekeeping(&self) -> bool {
        !self.cache.is_empty()
    }
}

impl fmt::Debug for Resumption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resumption").field("shard", &self.shard).finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(super) mod testing;
#[cfg(test)]
mod tests;
