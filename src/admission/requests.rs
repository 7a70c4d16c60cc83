//! The rate of each client's requests, over all shards and without a lock.
//!
//! The generic cell rate algorithm (ITU-T I.371): of each client only one time is kept, the one at which its allowance
//! will be whole again if it asks for nothing more. A request moves it on by the time that one request is worth, and is
//! refused when it lies further ahead than the burst is worth. Times are handed in.

use std::{
    hash::{BuildHasher, RandomState},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use super::Client;

/// Clients that can meet in one set before one of them is forgotten; 16 bytes each, a set is one cache line.
const WAYS: usize = 4;
/// Sets of the table: 1 MB, 65,536 clients.
const SETS: usize = 16 << 10;
const SECOND_NANOS: u64 = 1_000_000_000;

/// How often a client may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// What one request is worth. Rounded up: never more than the rate.
    request_nanos: u64,
    /// How far ahead a client's time may be for another request.
    ahead_nanos: u64,
}

impl Rate {
    /// `per_second` requests, and `burst` at once by a client that has not asked lately. `None` when there is no limit:
    /// `per_second` is 0.
    pub fn new(per_second: u32, burst: u32) -> Option<Rate> {
        if per_second == 0 {
            return None;
        }
        let request_nanos = SECOND_NANOS.div_ceil(u64::from(per_second));
        Some(Rate { request_nanos, ahead_nanos: request_nanos * u64::from(burst.max(1) - 1) })
    }
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is answered.
    Admitted,
    /// It is one too many. After so many seconds, at least 1, another would not be.
    Refused {
        /// For `Retry-After`.
        retry_after_seconds: u64,
    },
}

/// The time of each client that has asked lately: a fixed number of them.
///
/// A set keeps four clients. When a fifth comes while none of the four has its allowance whole, the one that would
/// have it soonest is forgotten, which gives it back its burst. Which clients share a set is keyed at random.
#[derive(Debug)]
pub struct RequestTable {
    hasher: RandomState,
    sets: Box<[Set]>,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Set([Way; WAYS]);

/// One client. Relaxed throughout: the two words need not agree. Whoever is between them when a way changes hands
/// counts one request of the old client to the new one, or one less.
#[derive(Debug, Default)]
struct Way {
    /// The client's whole hash; 0 is nobody.
    tag: AtomicU64,
    /// When its allowance is whole again, in nanoseconds.
    whole_at: AtomicU64,
}

impl Default for RequestTable {
    fn default() -> Self {
        RequestTable::with_sets(SETS)
    }
}

impl RequestTable {
    fn with_sets(sets: usize) -> Self {
        RequestTable { hasher: RandomState::new(), sets: (0..sets).map(|_| Set::default()).collect() }
    }

    /// Counts one request of `client` at `now_nanos`, a time that all shards share, unless it is one too many. A
    /// refused request costs the client nothing.
    pub fn ask(&self, client: Client, rate: Rate, now_nanos: u64) -> Verdict {
        let tag = self.hasher.hash_one(client).max(1);
        let way = self.way(tag, now_nanos);
        let mut whole_at = way.whole_at.load(Relaxed);
        loop {
            let furthest = now_nanos + rate.ahead_nanos + rate.request_nanos;
            // Further ahead than this rate lets anybody be is what another rate has left, before a reload. A second
            // more is for shards whose turns did not begin at the same moment.
            let is_left_over = whole_at > furthest + SECOND_NANOS;
            let from = if is_left_over { furthest } else { whole_at.max(now_nanos) };
            let ahead_nanos = from - now_nanos;
            if ahead_nanos > rate.ahead_nanos {
                if is_left_over {
                    let _ = way.whole_at.compare_exchange(whole_at, from, Relaxed, Relaxed);
                }
                let wait_nanos = ahead_nanos - rate.ahead_nanos;
                return Verdict::Refused { retry_after_seconds: wait_nanos.div_ceil(SECOND_NANOS) };
            }
            match way.whole_at.compare_exchange_weak(whole_at, from + rate.request_nanos, Relaxed, Relaxed) {
                Ok(_) => return Verdict::Admitted,
                Err(changed) => whole_at = changed,
            }
        }
    }

    /// The way of the client with this hash; another client's if that one must give way.
    fn way(&self, tag: u64, now_nanos: u64) -> &Way {
        let Set(ways) = &self.sets[tag as usize % self.sets.len()];
        let mut soonest = &ways[0];
        // Another shard may take the way that was chosen; that often at most, then two clients share one for once.
        for _ in 0..WAYS {
            let mut soonest_at = u64::MAX;
            let mut soonest_tag = 0;
            for way in ways {
                let (found, whole_at) = (way.tag.load(Relaxed), way.whole_at.load(Relaxed));
                if found == tag {
                    return way;
                }
                // Who has its allowance whole can be forgotten without a difference: the first of those.
                let at = whole_at.max(now_nanos);
                if at < soonest_at {
                    (soonest, soonest_at, soonest_tag) = (way, at, found);
                }
            }
            if soonest.tag.compare_exchange(soonest_tag, tag, Relaxed, Relaxed).is_ok() {
                // The time of a forgotten client that had not all of its allowance must not be held against this one.
                if soonest_at > now_nanos {
                    let _ = soonest.whole_at.compare_exchange(soonest_at, now_nanos, Relaxed, Relaxed);
                }
                return soonest;
            }
        }
        soonest
    }
}

#[cfg(test)]
mod tests;
