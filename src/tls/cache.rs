//! Sessions that the server keeps, by their ids: all of them with `tickets: false`, otherwise those of TLS 1.2 whose
//! client takes no ticket.
//!
//! A session is one allocation to which every shard's list has a reference. The shard that makes it puts it into the
//! others' inboxes before the client hears of it, and a shard reads its inbox before it looks anything up: so however
//! fast the client is and wherever it comes back, the session is there. To end one is to empty it, which ends it on all
//! shards; then the others are told, so that they let go of what is left.

mod shared;

pub use shared::{SharedSessions, Wake};

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering::Relaxed},
};

use lru::LruCache;
use rustls::{server::StoresServerSessions, time_provider::TimeProvider};
use zeroize::{Zeroize, Zeroizing};

use crate::{
    config::TlsSessionCache,
    memory::{Budget, Level},
    metrics::{Holder, ShardMetrics},
};
use shared::{Entry, Live, NODE_BYTES};

/// A digest of what a listener asks of its clients' certificates; sessions of one are nothing to another.
pub(super) type Policy = [u8; 32];

/// Bytes of a session's id: as many as the library makes, in both versions.
const ID_BYTES: usize = 32;
/// The largest session, in bytes: a client's chain of certificates is in it.
const VALUE_BYTES_MAX: usize = 16 << 10;
/// Sessions that are ended, at most, to make room for one.
const EVICTIONS_MAX: usize = 128;
/// Sessions, at most, that are passed over then because they were resumed lately.
const CHANCES: usize = 8;
/// Sessions that are looked at once a second, whether they have expired.
const SWEEP_MAX: usize = 256;
/// Sessions that are ended at once when memory is short or the bound is lower: 2 ms or so.
const TRIM_MAX: usize = 4096;
/// Of a session's bytes, how many at the end hold times and differ between two copies of one session.
const TIMES_BYTES: usize = 12;

/// One shard's list of the sessions of all shards. Only the shard's thread takes the lock.
pub(super) struct SessionCache {
    shard: usize,
    shared: Arc<SharedSessions>,
    budget: Arc<Budget>,
    metrics: Arc<ShardMetrics>,
    time: Arc<dyn TimeProvider>,
    list: Mutex<List>,
}

struct List {
    entries: LruCache<[u8; ID_BYTES], Arc<Entry>>,
    /// It has had entries since its table was made.
    has_grown: bool,
    /// Swapped with the inbox.
    received: VecDeque<Arc<Entry>>,
    /// Sessions that are still to be ended because memory is short.
    surplus: usize,
}

impl SessionCache {
    pub(super) fn new(
        shard: usize,
        shared: Arc<SharedSessions>,
        budget: Arc<Budget>,
        metrics: Arc<ShardMetrics>,
        time: Arc<dyn TimeProvider>,
    ) -> Arc<Self> {
        let list =
            List { entries: LruCache::unbounded(), has_grown: false, received: VecDeque::new(), surplus: 0 };
        Arc::new(SessionCache { shard, shared, budget, metrics, time, list: Mutex::new(list) })
    }

    /// Other bounds from now on. What is too much is ended bit by bit.
    pub(super) fn reload(&self, settings: &TlsSessionCache) {
        self.shared.reload(settings);
        self.trim(&mut self.list());
    }

    /// Reads what other shards have published.
    pub(super) fn take_in(&self) {
        drop(self.list());
    }

    /// Ends this shard's part of the sessions until `percent` of them are left on all shards, if all shards do so;
    /// those resumed least recently first. Many are ended bit by bit, by [`SessionCache::keep_house`].
    pub(super) fn shrink_to(&self, percent: usize) {
        let mut list = self.list();
        let ended = list.entries.len() * 100usize.saturating_sub(percent);
        list.surplus = ended.div_ceil(100 * self.shared.shards().max(1));
        self.trim(&mut list);
    }

    /// Ends what has expired or is too much. Bounded work; to be called about once a second while there are sessions.
    pub(super) fn keep_house(&self) {
        let now_seconds = self.now_seconds();
        let mut list = self.list();
        for _ in 0..SWEEP_MAX {
            match list.entries.peek_lru() {
                Some((_, entry)) if self.shared.is_over(entry, now_seconds) || !entry.is_live() => {
                    let entry = Arc::clone(entry);
                    self.end(&mut list, &entry);
                }
                _ => break,
            }
        }
        self.trim(&mut list);
    }

    /// Whether [`SessionCache::keep_house`] has anything to look at.
    pub(super) fn is_empty(&self) -> bool {
        self.lock().entries.is_empty()
    }

    fn trim(&self, list: &mut List) {
        if list.entries.is_empty() && !list.has_grown {
            list.surplus = 0;
            return;
        }
        for _ in 0..TRIM_MAX {
            if list.surplus == 0 && !self.shared.is_too_large() {
                break;
            }
            list.surplus = list.surplus.saturating_sub(1);
            if !self.evict(list) {
                list.surplus = 0;
                break;
            }
        }
        if list.entries.is_empty() {
            // The table keeps the size that it has once had.
            list.entries = LruCache::unbounded();
            list.has_grown = false;
        }
        self.count(list);
    }

    /// `None` when the session is not stored: it is too large, or there is no memory for it.
    fn put(&self, policy: &Policy, id: &[u8], value: &[u8]) -> Option<Arc<Entry>> {
        if value.len() > VALUE_BYTES_MAX || self.budget.level() >= Level::High {
            return None;
        }
        let id = <[u8; ID_BYTES]>::try_from(id).ok()?;
        let bytes = self.shared.bytes_of(value.len());
        let mut list = self.list();
        let live = self.make_room(&mut list, bytes)?;
        let charge = self.budget.charge(Holder::TlsSessions, bytes)?;
        let value = (Zeroizing::new(Box::from(value)), live);
        let entry = self.shared.entry(id, *policy, self.now_seconds(), value, charge);
        list.has_grown = true;
        if let Some(old) = list.entries.put(id, Arc::clone(&entry)) {
            old.end();
        }
        self.count(&list);
        self.shared.publish(self.shard, &entry);
        Some(entry)
    }

    fn look_up(&self, policy: &Policy, id: &[u8], once: bool) -> Option<Vec<u8>> {
        let found = self.find(policy, id, once);
        let tls = &self.metrics.tls;
        if found.is_some() { &tls.session_cache_hits } else { &tls.session_cache_misses }.increment();
        found
    }

    fn find(&self, policy: &Policy, id: &[u8], once: bool) -> Option<Vec<u8>> {
        let id = <[u8; ID_BYTES]>::try_from(id).ok()?;
        let mut list = self.list();
        let entry = Arc::clone(list.entries.get(&id)?);
        if entry.policy != *policy {
            return None;
        }
        if self.shared.is_over(&entry, self.now_seconds()) {
            self.end(&mut list, &entry);
            return None;
        }
        if once {
            return self.end(&mut list, &entry).map(|value| value.to_vec());
        }
        entry.recent.store(true, Relaxed);
        entry.value()
    }

    /// Ends a session on all shards, and takes it off this one's list.
    fn end(&self, list: &mut List, entry: &Arc<Entry>) -> Option<Zeroizing<Box<[u8]>>> {
        list.entries.pop(&entry.id);
        self.count(list);
        let value = entry.end()?;
        self.shared.publish(self.shard, entry);
        Some(value)
    }

    fn make_room(&self, list: &mut List, bytes: usize) -> Option<Live> {
        if bytes > self.shared.size_bytes() {
            return None;
        }
        for _ in 0..EVICTIONS_MAX {
            if let Some(live) = self.shared.reserve(bytes) {
                return Some(live);
            }
            if !self.evict(list) {
                return None;
            }
        }
        None
    }

    /// Ends the session that was resumed least recently, as far as this shard knows. False when there is none.
    fn evict(&self, list: &mut List) -> bool {
        let mut chances = CHANCES;
        while let Some((id, entry)) = list.entries.pop_lru() {
            if chances > 0 && entry.was_recent() {
                chances -= 1;
                list.entries.put(id, entry);
            } else if entry.end().is_some() {
                self.shared.publish(self.shard, &entry);
                return true;
            }
        }
        false
    }

    /// The list, with what other shards have published.
    fn list(&self) -> MutexGuard<'_, List> {
        let mut list = self.lock();
        let list_ref = &mut *list;
        self.shared.receive(self.shard, &mut list_ref.received);
        if list_ref.received.is_empty() {
            return list;
        }
        for entry in list_ref.received.drain(..) {
            if entry.is_live() {
                list_ref.has_grown = true;
                list_ref.entries.put(entry.id, entry);
            } else {
                list_ref.entries.pop(&entry.id);
            }
        }
        // When an inbox has overflowed, the list has entries of which nobody said that they ended.
        while list_ref.entries.len() > self.shared.entries_max() {
            list_ref.entries.pop_lru();
        }
        self.count(list_ref);
        list
    }

    fn lock(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, list: &List) {
        let entries = list.entries.len();
        self.metrics.tls.session_cache_entries.set(entries as u64);
        self.metrics.tls.session_cache_bytes.set((entries * NODE_BYTES) as u64);
    }

    /// 0, and nothing expires, on a system that does not know the time.
    fn now_seconds(&self) -> u64 {
        self.time.current_time().map_or(0, |time| time.as_secs())
    }
}

/// What one listener's library sees of a shard's cache.
pub(super) struct Store {
    cache: Arc<SessionCache>,
    policy: Policy,
    /// With tickets: the session that was stored last. Whether its client takes a ticket is known right after.
    last: Option<Mutex<Option<Arc<Entry>>>>,
}

impl Store {
    /// `tickets`: the listener has a ticketer that calls [`Store::withdraw`].
    pub(super) fn new(cache: Arc<SessionCache>, policy: Policy, tickets: bool) -> Arc<Self> {
        Arc::new(Store { cache, policy, last: tickets.then(Mutex::default) })
    }

    /// The client gets a ticket for a session, so the session that was stored last, if it is this one, is not needed.
    ///
    /// The library stores each session of TLS 1.2 and then makes the ticket, both in one call. It encodes the session
    /// twice, and the second may have passed since: the times, at the end, are not compared.
    pub(super) fn withdraw(&self, session: &[u8]) {
        let Some(last) = &self.last else { return };
        let Some(entry) = last.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        let same = |value: &[u8]| {
            value.len() == session.len()
                && value.iter().zip(session).rev().skip(TIMES_BYTES).all(|(a, b)| a == b)
        };
        if entry.end_if(same) {
            let mut list = self.cache.list();
            list.entries.pop(&entry.id);
            self.cache.count(&list);
            self.cache.shared.publish(self.cache.shard, &entry);
        }
    }
}

impl StoresServerSessions for Store {
    fn put(&self, id: Vec<u8>, mut session: Vec<u8>) -> bool {
        let stored = self.cache.put(&self.policy, &id, &session);
        session.zeroize();
        let is_stored = stored.is_some();
        if let Some(last) = &self.last {
            *last.lock().unwrap_or_else(PoisonError::into_inner) = stored;
        }
        is_stored
    }

    fn get(&self, id: &[u8]) -> Option<Vec<u8>> {
        self.cache.look_up(&self.policy, id, false)
    }

    /// A session of TLS 1.3 resumes once, on whichever shard asks first.
    fn take(&self, id: &[u8]) -> Option<Vec<u8>> {
        self.cache.look_up(&self.policy, id, true)
    }

    fn can_cache(&self) -> bool {
        self.cache.shared.size_bytes() > 0
    }
}

impl fmt::Debug for SessionCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionCache").field("shard", &self.shard).finish_non_exhaustive()
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("cache", &self.cache).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
