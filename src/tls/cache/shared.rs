//! What the shards' session caches have in common: the bounds, the sessions themselves, and how one shard's reach
//! the others.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicBool, AtomicU64, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
};

use zeroize::Zeroizing;

use super::{ID_BYTES, Policy};
use crate::{config::TlsSessionCache, memory::Charge, metrics::ServerTls, tls::resumption::lifetime};

/// Sessions that may wait for a shard to take them in. Beyond that the oldest is lost to that shard.
pub(super) const INBOX_MAX: usize = 256;
/// A shard is woken when so many more wait: it looks by itself before it looks anything up, so this is for an idle one.
pub(super) const WAKE_EVERY: usize = 32;
/// What the allocator keeps with an allocation, at most.
const ALLOCATION_BYTES: usize = 16;
/// What a session takes in one shard's list: key, reference, links, and up to 2.3 places of 17 bytes in the table.
pub(super) const NODE_BYTES: usize =
    ID_BYTES + size_of::<Arc<Entry>>() + 2 * size_of::<usize>() + ALLOCATION_BYTES + 40;
/// What it takes once, beside its value: itself, the counts of references.
const ENTRY_BYTES: usize = size_of::<Entry>() + 2 * size_of::<usize>() + 2 * ALLOCATION_BYTES;

/// Wakes the shard with this number, so that it calls [`crate::tls::Resumption::take_in`].
pub type Wake = Box<dyn Fn(usize) + Send + Sync>;

/// The sessions of a server, over all its shards.
pub struct SharedSessions {
    inboxes: Box<[Inbox]>,
    size_bytes: AtomicUsize,
    lifetime_seconds: AtomicU64,
    totals: Arc<ServerTls>,
    wake: Wake,
}

/// What one shard has not taken in yet.
type Inbox = Mutex<VecDeque<Arc<Entry>>>;

/// A session, referred to by all shards.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) id: [u8; ID_BYTES],
    pub(super) policy: Policy,
    pub(super) created_seconds: u64,
    /// It was resumed since it was last considered for eviction, on whatever shard.
    pub(super) recent: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Gone when the session was used up, evicted or has expired: on all shards at once.
    value: Option<(Zeroizing<Box<[u8]>>, Live)>,
    charge: Charge,
    shell_bytes: usize,
}

/// The part of the bound that a session takes while it can be resumed.
#[derive(Debug)]
pub(super) struct Live {
    totals: Arc<ServerTls>,
    bytes: u64,
}

impl SharedSessions {
    /// No sessions yet, of so many shards. `wake` is called by any of their threads and must not block.
    pub fn new(shards: usize, settings: &TlsSessionCache, totals: &Arc<ServerTls>, wake: Wake) -> Arc<Self> {
        let shared = SharedSessions {
            inboxes: (0..shards).map(|_| Inbox::default()).collect(),
            size_bytes: AtomicUsize::new(0),
            lifetime_seconds: AtomicU64::new(0),
            totals: Arc::clone(totals),
            wake,
        };
        shared.reload(settings);
        Arc::new(shared)
    }

    /// Other bounds from now on.
    pub(super) fn reload(&self, settings: &TlsSessionCache) {
        self.size_bytes.store(settings.size_bytes, Relaxed);
        self.lifetime_seconds.store(lifetime(settings).as_secs(), Relaxed);
    }

    pub(super) fn size_bytes(&self) -> usize {
        self.size_bytes.load(Relaxed)
    }

    pub(super) fn shards(&self) -> usize {
        self.inboxes.len()
    }

    /// Whether there are more bytes than allowed: they are fewer since a reload.
    pub(super) fn is_too_large(&self) -> bool {
        self.totals.session_bytes.value() > self.size_bytes() as u64
    }

    /// What a session with a value of so many bytes takes, the lists of all shards included.
    pub(super) fn bytes_of(&self, value_bytes: usize) -> usize {
        ENTRY_BYTES + value_bytes + ALLOCATION_BYTES + self.shards() * NODE_BYTES
    }

    /// The most sessions that there can be.
    pub(super) fn entries_max(&self) -> usize {
        self.size_bytes() / self.bytes_of(0)
    }

    /// A place for a session, unless there is no room for it.
    pub(super) fn reserve(&self, bytes: usize) -> Option<Live> {
        self.totals.session_bytes.add_up_to(bytes as u64, self.size_bytes() as u64)?;
        self.totals.sessions.add(1);
        Some(Live { totals: Arc::clone(&self.totals), bytes: bytes as u64 })
    }

    /// A session that has just been made.
    pub(super) fn entry(
        &self,
        id: [u8; ID_BYTES],
        policy: Policy,
        created_seconds: u64,
        value: (Zeroizing<Box<[u8]>>, Live),
        charge: Charge,
    ) -> Arc<Entry> {
        let shell_bytes = self.bytes_of(0);
        let state = Mutex::new(State { value: Some(value), charge, shell_bytes });
        Arc::new(Entry { id, policy, created_seconds, recent: AtomicBool::new(false), state })
    }

    pub(super) fn is_over(&self, entry: &Entry, now_seconds: u64) -> bool {
        now_seconds.saturating_sub(entry.created_seconds) >= self.lifetime_seconds.load(Relaxed)
    }

    /// Tells all shards but `from` that there is a session, or that there is one no more. They know it before they
    /// look up anything else. One that ends before a shard has heard of it need not be heard of.
    pub(super) fn publish(&self, from: usize, entry: &Arc<Entry>) {
        for (index, inbox) in self.inboxes.iter().enumerate().filter(|(index, _)| *index != from) {
            let mut waiting = lock(inbox);
            if waiting.back().is_some_and(|last| Arc::ptr_eq(last, entry)) {
                waiting.pop_back();
                continue;
            }
            let lost = if waiting.len() >= INBOX_MAX { waiting.pop_front() } else { None };
            waiting.push_back(Arc::clone(entry));
            let wanted = waiting.len() % WAKE_EVERY == 0;
            drop(waiting);
            if lost.is_some_and(|lost| lost.is_live()) {
                self.totals.sessions_lost.add(1);
            }
            if wanted {
                (self.wake)(index);
            }
        }
    }

    /// Swaps what waits for a shard into `empty`.
    pub(super) fn receive(&self, shard: usize, empty: &mut VecDeque<Arc<Entry>>) {
        if let Some(inbox) = self.inboxes.get(shard) {
            std::mem::swap(empty, &mut *lock(inbox));
        }
    }
}

impl Entry {
    /// A copy of the session; `None` when it is gone.
    pub(super) fn value(&self) -> Option<Vec<u8>> {
        lock(&self.state).value.as_ref().map(|(value, _)| value.to_vec())
    }

    pub(super) fn is_live(&self) -> bool {
        lock(&self.state).value.is_some()
    }

    /// Ends the session on all shards and returns it; to one caller alone, whoever else tries.
    pub(super) fn end(&self) -> Option<Zeroizing<Box<[u8]>>> {
        let mut state = lock(&self.state);
        let (value, _live) = state.value.take()?;
        let shell_bytes = state.shell_bytes;
        state.charge.shrink(shell_bytes);
        Some(value)
    }

    /// Ends the session if `matches` says so of its value.
    pub(super) fn end_if(&self, matches: impl FnOnce(&[u8]) -> bool) -> bool {
        let matching = lock(&self.state).value.as_ref().is_some_and(|(value, _)| matches(value));
        matching && self.end().is_some()
    }

    /// Whether it was resumed since this was last asked.
    pub(super) fn was_recent(&self) -> bool {
        self.recent.load(Relaxed) && self.recent.swap(false, SeqCst)
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.totals.session_bytes.subtract_up_to(self.bytes);
        self.totals.sessions.subtract_up_to(1);
    }
}

impl std::fmt::Debug for SharedSessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedSessions").field("shards", &self.shards()).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
