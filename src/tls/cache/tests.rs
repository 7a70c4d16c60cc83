//! Sessions over several shards, without a handshake: bounds, order, time, and who hears of what.

use std::{sync::mpsc, time::Duration};

use super::{
    shared::{INBOX_MAX, WAKE_EVERY},
    *,
};
use crate::tls::resumption::{
    Resumption,
    testing::{Machine, OTHER_POLICY, POLICY, settings},
};

/// Bytes of a session's value in the tests.
const VALUE: usize = 200;

fn id(number: usize) -> Vec<u8> {
    let mut id = vec![0; ID_BYTES];
    id[..8].copy_from_slice(&number.to_be_bytes());
    id
}

fn value(number: usize) -> Vec<u8> {
    vec![number as u8; VALUE]
}

fn caches(machine: &Machine) -> Vec<Arc<SessionCache>> {
    machine.shards.iter().map(|shard| Arc::clone(shard.cache())).collect()
}

fn stores(machine: &Machine) -> Vec<Arc<Store>> {
    caches(machine).into_iter().map(|cache| Store::new(cache, POLICY, false)).collect()
}

/// A server whose bound is so many sessions.
fn sized(shards: usize, sessions: usize) -> Machine {
    let machine = Machine::new(shards, settings(false));
    resize(&machine, sessions * machine.sessions.bytes_of(VALUE));
    machine
}

fn resize(machine: &Machine, size_bytes: usize) {
    for shard in &machine.shards {
        shard.reload(&TlsSessionCache { size_bytes, ..settings(false) });
    }
}

/// Which of so many sessions can be resumed on a shard.
fn known(store: &Store, numbers: usize) -> Vec<usize> {
    (0..numbers).filter(|number| store.get(&id(*number)).is_some()).collect()
}

#[test]
fn what_one_shard_stores_every_shard_has() {
    let machine = Machine::new(3, settings(false));
    let stores = stores(&machine);
    assert!(stores[1].put(id(1), value(1)));
    for store in &stores {
        assert_eq!(store.get(&id(1)), Some(value(1)));
        assert_eq!(store.get(&id(2)), None);
        assert_eq!(store.get(b""), None);
        assert_eq!(store.get(&id(1)[1..]), None);
    }
    let tls = &machine.metrics(2).tls;
    assert_eq!((tls.session_cache_hits.value(), tls.session_cache_misses.value()), (1, 3));
    // One copy: the bytes count once, the lists' part for each shard.
    let bytes = machine.sessions.bytes_of(VALUE) as u64;
    assert_eq!(machine.held_bytes(), bytes);
    assert_eq!((machine.totals.sessions.value(), machine.totals.session_bytes.value()), (1, bytes));
    assert_eq!((tls.session_cache_entries.value(), tls.session_cache_bytes.value()), (1, NODE_BYTES as u64));
    assert!(bytes > (VALUE + 3 * NODE_BYTES) as u64);
    drop(stores);
    let Machine { shards, sessions, registry, .. } = machine;
    drop((shards, sessions));
    assert_eq!(registry.memory_used_bytes(Holder::TlsSessions), 0);
    assert_eq!(registry.tls.session_bytes.value(), 0);
}

#[test]
fn a_session_that_was_taken_is_gone_everywhere() {
    let machine = Machine::new(3, settings(false));
    let stores = stores(&machine);
    assert!(stores[0].put(id(1), value(1)));
    assert_eq!(stores[2].get(&id(1)), Some(value(1)));
    assert_eq!(stores[1].take(&id(1)), Some(value(1)));
    for store in &stores {
        assert_eq!(store.take(&id(1)), None);
        assert_eq!(store.get(&id(1)), None);
    }
    assert_eq!(machine.held_bytes(), 0, "nobody holds what is left of it");
}

#[test]
fn of_shards_that_take_a_session_at_once_one_gets_it() {
    let machine = Machine::new(4, settings(false));
    let stores = stores(&machine);
    let barrier = std::sync::Barrier::new(stores.len());
    let taken: Vec<usize> = std::thread::scope(|scope| {
        let run = |(shard, store): (usize, &Arc<Store>)| {
            let (store, barrier) = (Arc::clone(store), &barrier);
            scope.spawn(move || {
                let race = |round: usize| {
                    if round % 4 == shard {
                        assert!(store.put(id(round), value(round)));
                    }
                    barrier.wait();
                    let won = store.take(&id(round)).is_some();
                    barrier.wait();
                    won
                };
                (0..500).filter(|round| race(*round)).collect::<Vec<_>>()
            })
        };
        let threads: Vec<_> = stores.iter().enumerate().map(run).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let mut rounds = taken;
    rounds.sort_unstable();
    assert_eq!(rounds, (0..500).collect::<Vec<_>>());
}

#[test]
fn a_client_is_never_faster_than_its_session() {
    let machine = Machine::new(2, settings(false));
    let stores = stores(&machine);
    // The shard may be behind, but by no more than its inbox holds.
    let (made, clients) = mpsc::sync_channel(INBOX_MAX / 2);
    std::thread::scope(|scope| {
        let (one, two) = (&stores[0], &stores[1]);
        scope.spawn(move || {
            for number in 0..2000 {
                assert!(one.put(id(number), value(number)));
                made.send(number).unwrap();
            }
        });
        for number in clients {
            assert_eq!(two.take(&id(number)), Some(value(number)));
        }
    });
    assert_eq!(machine.totals.sessions_lost.value(), 0);
}

#[test]
fn other_policies_neither_see_nor_end_a_session() {
    let machine = Machine::new(2, settings(false));
    let other = Store::new(Arc::clone(&caches(&machine)[1]), OTHER_POLICY, false);
    let stores = stores(&machine);
    assert!(stores[0].put(id(1), value(1)));
    assert_eq!(other.get(&id(1)), None);
    assert_eq!(other.take(&id(1)), None);
    assert_eq!(stores[1].take(&id(1)), Some(value(1)));
}

#[test]
fn the_bound_holds_and_the_oldest_goes_first() {
    let machine = sized(2, 4);
    let stores = stores(&machine);
    let bound = 4 * machine.sessions.bytes_of(VALUE) as u64;
    for number in 0..4 {
        assert!(stores[number % 2].put(id(number), value(number)));
    }
    assert_eq!(machine.totals.session_bytes.value(), bound);
    assert_eq!(known(&stores[0], 4), [0, 1, 2, 3]);
    for number in 4..50 {
        assert!(stores[number % 2].put(id(number), value(number)));
        assert_eq!(machine.totals.session_bytes.value(), bound);
        assert_eq!(machine.totals.sessions.value(), 4);
    }
    // Looking up 0 to 3 was a use of each: what is left of that is forgotten by now.
    assert_eq!(known(&stores[0], 50), [46, 47, 48, 49]);
    assert_eq!(known(&stores[1], 50), [46, 47, 48, 49]);
    assert_eq!(machine.held_bytes(), bound, "what was ended is given back");
    // A larger one takes the place of several.
    assert!(stores[0].put(id(50), vec![0; VALUE + machine.sessions.bytes_of(VALUE)]));
    assert_eq!(known(&stores[1], 51), [48, 49, 50]);
    // One that can never fit takes nobody's.
    assert!(!stores[0].put(id(51), vec![0; VALUE + 4 * machine.sessions.bytes_of(VALUE)]));
    assert!(!stores[0].put(id(51), vec![0; VALUE_BYTES_MAX + 1]));
    assert_eq!(known(&stores[1], 52), [48, 49, 50]);
}

#[test]
fn sessions_resumed_on_another_shard_stay_longer() {
    let machine = sized(2, 3);
    let stores = stores(&machine);
    for number in 0..3 {
        assert!(stores[0].put(id(number), value(number)));
    }
    assert!(stores[1].get(&id(0)).is_some());
    assert!(stores[0].put(id(3), value(3)));
    assert_eq!(known(&stores[0], 4), [0, 2, 3]);
}

#[test]
fn an_inbox_holds_so_many_and_loses_the_oldest() {
    let machine = Machine::new(2, settings(false));
    let stores = stores(&machine);
    for number in 0..INBOX_MAX + 3 {
        assert!(stores[0].put(id(number), value(number)));
    }
    assert_eq!(machine.totals.sessions_lost.value(), 3);
    // Sooner and later it was woken to read.
    let woken = INBOX_MAX / WAKE_EVERY + 3;
    assert_eq!(*machine.woken.lock().unwrap(), vec![1; woken]);
    assert_eq!(known(&stores[1], INBOX_MAX + 3), (3..INBOX_MAX + 3).collect::<Vec<_>>());
    assert_eq!(known(&stores[0], INBOX_MAX + 3).len(), INBOX_MAX + 3);
    machine.shards[1].take_in();
    machine.woken.lock().unwrap().clear();
    for number in 0..WAKE_EVERY - 1 {
        assert!(stores[0].put(id(1000 + number), value(number)));
    }
    assert!(machine.woken.lock().unwrap().is_empty());
}

#[test]
fn a_list_is_bounded_although_it_was_not_told_of_ends() {
    let machine = sized(2, INBOX_MAX);
    let stores = stores(&machine);
    for round in 0..4 {
        for number in 0..INBOX_MAX {
            assert!(stores[0].put(id(round * INBOX_MAX + number), value(number)));
        }
        machine.shards[1].take_in();
        for number in 0..INBOX_MAX {
            assert!(stores[0].take(&id(round * INBOX_MAX + number)).is_some());
        }
        // The news of the ends is lost: as many others come and go.
        for number in 0..2 * INBOX_MAX {
            assert!(stores[0].put(id(100_000 + number), value(number)));
        }
        let entries = machine.metrics(1).tls.session_cache_entries.value();
        assert!(entries <= machine.sessions.entries_max() as u64);
    }
}

#[test]
fn sessions_end_after_their_lifetime() {
    let machine = Machine::new(2, settings(false));
    let stores = stores(&machine);
    assert!(stores[0].put(id(1), value(1)));
    machine.time.advance(3599);
    assert!(stores[0].put(id(2), value(2)));
    assert!(stores[1].get(&id(1)).is_some());
    machine.time.advance(1);
    assert_eq!(stores[1].get(&id(1)), None);
    assert_eq!(machine.totals.sessions.value(), 1);
    // One that nobody asks for ends too.
    machine.time.advance(3599);
    machine.shards[0].keep_house();
    assert_eq!(machine.totals.sessions.value(), 0);
    assert!(!machine.shards[0].needs_housekeeping());
    machine.shards[1].keep_house();
    assert_eq!(machine.held_bytes(), 0);
    // A reload changes the lifetime of those that there are.
    assert!(stores[0].put(id(3), value(3)));
    let shorter = TlsSessionCache { lifetime: Duration::from_secs(60), ..settings(false) };
    machine.shards[0].reload(&shorter);
    machine.time.advance(60);
    assert_eq!(stores[1].get(&id(3)), None);
}

#[test]
fn memory_pressure_shrinks_all_shards_together_by_a_part() {
    let machine = Machine::new(4, TlsSessionCache { size_bytes: 1 << 24, ..settings(false) });
    let stores = stores(&machine);
    for number in 0..1000 {
        assert!(stores[number % 4].put(id(number), value(number)));
    }
    for shard in &machine.shards {
        shard.take_in();
    }
    for shard in &machine.shards {
        shard.shrink_to(70);
    }
    let left = machine.totals.sessions.value();
    assert!((700..=780).contains(&left), "{left}");
    assert!(stores[0].get(&id(999)).is_some());
    assert!(stores[0].get(&id(0)).is_none());
    for _ in 0..20 {
        machine.shards.iter().for_each(|shard| shard.shrink_to(0));
    }
    machine.shards.iter().for_each(Resumption::take_in);
    assert_eq!((machine.totals.sessions.value(), machine.held_bytes()), (0, 0));
}

#[test]
fn a_reload_ends_what_is_too_much_bit_by_bit() {
    let machine = Machine::new(1, TlsSessionCache { size_bytes: 1 << 24, ..settings(false) });
    let stores = stores(&machine);
    let count = TRIM_MAX + 1000;
    for number in 0..count {
        assert!(stores[0].put(id(number), value(number)));
    }
    resize(&machine, 10 * machine.sessions.bytes_of(VALUE));
    assert_eq!(machine.totals.sessions.value(), 1000);
    machine.shards[0].keep_house();
    assert_eq!(machine.totals.sessions.value(), 10);
    assert_eq!(known(&stores[0], count), (count - 10..count).collect::<Vec<_>>());
    resize(&machine, 0);
    assert_eq!((machine.totals.sessions.value(), machine.held_bytes()), (0, 0));
    assert!(!stores[0].can_cache());
    assert!(!stores[0].put(id(1), value(1)));
}

#[test]
fn without_memory_nothing_is_stored() {
    let machine = Machine::with_budget(2, settings(false), 64 << 10);
    let stores = stores(&machine);
    let most = machine.budget.charge(Holder::Host, 61 << 10).unwrap();
    let stored = (0..10).filter(|number| stores[0].put(id(*number), value(*number))).count();
    assert!((1..10).contains(&stored), "{stored}");
    assert_eq!(machine.totals.sessions.value(), stored as u64);
    machine.budget.assess();
    drop(most);
    assert!(!stores[0].put(id(20), value(20)), "the pressure is high until it is assessed anew");
    machine.budget.assess();
    assert!(stores[0].put(id(20), value(20)));
}

#[test]
fn a_session_whose_client_takes_a_ticket_is_withdrawn() {
    let machine = Machine::new(2, settings(true));
    let [one, two] = &caches(&machine)[..] else { unreachable!() };
    let (one, two) = (Store::new(Arc::clone(one), POLICY, true), Store::new(Arc::clone(two), POLICY, true));
    assert!(one.put(id(1), value(1)));
    // The second may have passed between the two encodings, and nothing else differs.
    let mut again = value(1);
    again[VALUE - TIMES_BYTES..].fill(0xee);
    one.withdraw(&again);
    assert_eq!(two.get(&id(1)), None);
    assert_eq!(machine.held_bytes(), 0);
    // Another shard has heard of it already.
    assert!(one.put(id(2), value(2)));
    assert!(two.get(&id(2)).is_some());
    one.withdraw(&value(2));
    assert_eq!(two.get(&id(2)), None);
    assert_eq!(machine.held_bytes(), 0);
    // Somebody else's ticket.
    assert!(one.put(id(3), value(3)));
    let mut other = value(3);
    other[VALUE - TIMES_BYTES - 1] ^= 1;
    one.withdraw(&other);
    assert!(two.get(&id(3)).is_some());
}
