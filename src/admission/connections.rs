//! Connections counted over all shards: by listener, and by client. Touched when a connection is taken and when it
//! is closed, and only for connections that a limit was asked about: whoever was counted must be uncounted once.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::{BuildHasher, RandomState},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use super::Client;

/// Parts of the table, each with a lock of its own: more than there are shards on most machines.
const STRIPES: usize = 32;

/// A number of connections that may be open at once, counted while there is such a cap.
///
/// Relaxed throughout: the count orders nothing but itself.
#[derive(Debug)]
pub struct ListenerCap {
    /// 0 is no cap.
    max: AtomicUsize,
    open: AtomicUsize,
}

impl ListenerCap {
    /// A cap of `max` connections; 0 is none.
    pub fn new(max: usize) -> Self {
        ListenerCap { max: AtomicUsize::new(max), open: AtomicUsize::new(0) }
    }

    /// Another cap from now on. Connections that were taken while there was none are not in the count.
    pub fn change(&self, max: usize) {
        self.max.store(max, Relaxed);
    }

    /// Whether there is a cap to be asked.
    pub fn is_on(&self) -> bool {
        self.max.load(Relaxed) > 0
    }

    /// Counts one more connection unless the cap is reached.
    pub fn take(&self) -> bool {
        let max = self.max.load(Relaxed);
        self.open.try_update(Relaxed, Relaxed, |open| (open < max).then_some(open + 1)).is_ok()
    }

    /// A connection that was counted is closed.
    pub fn give_back(&self) {
        self.open.fetch_sub(1, Relaxed);
    }
}

/// How many connections each client has. Bounded by the connections there are: who has none is not in it.
#[derive(Debug, Default)]
pub struct ClientConnections {
    /// Keyed at random, so that no client can choose whom it meets.
    hasher: RandomState,
    stripes: [Mutex<HashMap<Client, u32>>; STRIPES],
}

impl ClientConnections {
    /// Counts one more connection unless the client has `max` already.
    pub fn take(&self, client: Client, max: u32) -> bool {
        let mut stripe = self.stripe(client).lock().unwrap_or_else(PoisonError::into_inner);
        let count = stripe.entry(client).or_insert(0);
        let has_room = *count < max;
        *count += u32::from(has_room);
        has_room
    }

    /// A connection that was counted is closed.
    pub fn give_back(&self, client: Client) {
        let mut stripe = self.stripe(client).lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut entry) = stripe.entry(client) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }

    fn stripe(&self, client: Client) -> &Mutex<HashMap<Client, u32>> {
        // Cannot be out of bounds; the remainder of a 64-bit hash is as good as the hash.
        &self.stripes[self.hasher.hash_one(client) as usize % STRIPES]
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn entries(table: &ClientConnections) -> usize {
        table.stripes.iter().map(|stripe| stripe.lock().unwrap().len()).sum()
    }

    #[test]
    fn a_client_has_its_maximum_and_no_more_until_one_is_closed() {
        let table = ClientConnections::default();
        let (one, other) = (Client::V4([192, 0, 2, 1]), Client::V6([0x20, 1, 0xd, 0xb8, 0, 0, 0, 1]));
        assert!(table.take(one, 2) && table.take(one, 2) && !table.take(one, 2));
        assert!(table.take(other, 2));
        table.give_back(one);
        assert!(table.take(one, 2) && !table.take(one, 2));
        // A lower limit is one for those to come.
        assert!(!table.take(one, 1));
        table.give_back(one);
        assert!(!table.take(one, 1));
        table.give_back(one);
        assert!(table.take(one, 1));
        table.give_back(one);
        table.give_back(other);
        assert_eq!(entries(&table), 0);
    }

    #[test]
    fn whoever_was_refused_at_once_is_not_remembered() {
        let table = ClientConnections::default();
        table.give_back(Client::V4([0; 4]));
        assert_eq!(entries(&table), 0);
    }

    #[test]
    fn threads_together_never_pass_a_limit_and_leave_nothing() {
        let (table, cap) = (ClientConnections::default(), ListenerCap::new(3));
        let (held, held_here) = (AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for thread in 0..4_u8 {
                let (table, cap, held, held_here) = (&table, &cap, &held, &held_here);
                scope.spawn(move || {
                    for round in 0..2000_u32 {
                        let client = Client::V4([10, 0, 0, (round % 3) as u8]);
                        if table.take(client, 1000) {
                            table.give_back(client);
                        }
                        if table.take(Client::V4([192, 0, 2, 1]), 2) {
                            assert!(held.fetch_add(1, Relaxed) < 2, "thread {thread}");
                            held.fetch_sub(1, Relaxed);
                            table.give_back(Client::V4([192, 0, 2, 1]));
                        }
                        if cap.take() {
                            assert!(held_here.fetch_add(1, Relaxed) < 3, "thread {thread}");
                            held_here.fetch_sub(1, Relaxed);
                            cap.give_back();
                        }
                    }
                });
            }
        });
        assert_eq!((entries(&table), cap.open.load(Relaxed)), (0, 0));
    }

    #[test]
    fn a_cap_may_be_raised_lowered_and_taken_away() {
        let cap = ListenerCap::new(1);
        assert!(cap.is_on() && cap.take() && !cap.take());
        cap.change(2);
        assert!(cap.take() && !cap.take());
        cap.change(1);
        cap.give_back();
        assert!(!cap.take());
        cap.give_back();
        assert!(cap.take());
        cap.change(0);
        assert!(!cap.is_on());
    }
}
