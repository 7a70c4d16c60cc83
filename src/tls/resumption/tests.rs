//! Handshakes in memory between clients and the shards of one server or two.

use std::sync::Arc;

use rustls::version::{TLS12, TLS13};

use super::*;
use testing::{Identity, Machine, OTHER_POLICY, POLICY, hello, is_resumed, resumes, settings};

/// Shards of a server in the tests.
const SHARDS: usize = 4;

#[test]
fn a_ticket_of_one_shard_resumes_on_every_other() {
    let (identity, machine) = (Identity::new(), Machine::new(SHARDS, settings(true)));
    let shards = machine.listener(&identity, POLICY, None);
    for version in [&TLS12, &TLS13] {
        let client = Arc::new(identity.client(version));
        assert!(!is_resumed(&client, &shards[0]));
        for shard in shards.iter().rev() {
            assert!(is_resumed(&client, shard));
        }
    }
    let accepted = |shard| machine.metrics(shard).tls.tickets_accepted.value();
    assert_eq!([0, 1, 2, 3].map(accepted), [2; SHARDS]);
    // The client keeps the session: the server has none.
    assert_eq!((machine.totals.sessions.value(), machine.held_bytes()), (0, 0));
}

#[test]
fn tickets_outlive_rotations_whoever_hears_of_them_first() {
    let (identity, machine) = (Identity::new(), Machine::new(2, settings(true)));
    let shards = machine.listener(&identity, POLICY, None);
    let client = || Arc::new(identity.client(&TLS13));
    let (old, before) = (client(), client());
    assert!(!is_resumed(&old, &shards[0]));
    assert!(!is_resumed(&before, &shards[0]));
    let mut keys = Arc::clone(&machine.shards[0].keys.borrow());
    // The first shard hears of each of the two rotations before the other does.
    for _ in 0..2 {
        keys = Arc::new(keys.rotated(2).unwrap());
        let during = client();
        machine.shards[0].set_keys(Arc::clone(&keys));
        assert!(!is_resumed(&during, &shards[0]));
        assert!(is_resumed(&during, &shards[1]), "one that does not know of the rotation");
        assert!(is_resumed(&during, &shards[0]), "one that knows, of one that does not");
        machine.shards[1].set_keys(Arc::clone(&keys));
        assert!(is_resumed(&during, &shards[1]));
    }
    assert!(is_resumed(&before, &shards[1]), "two rotations later");
    keys = Arc::new(keys.rotated(2).unwrap());
    for shard in &machine.shards {
        shard.set_keys(Arc::clone(&keys));
    }
    assert!(!is_resumed(&old, &shards[1]), "the key is gone");
}

#[test]
fn tickets_outlive_reloads() {
    let (identity, machine) = (Identity::new(), Machine::new(2, settings(true)));
    let client = Arc::new(identity.client(&TLS13));
    assert!(!is_resumed(&client, &machine.listener(&identity, POLICY, None)[0]));
    for shard in &machine.shards {
        shard.reload(&TlsSessionCache { size_bytes: 0, ..settings(true) });
    }
    let shards = machine.listener(&identity, POLICY, None);
    assert!(is_resumed(&client, &shards[1]));
    // Keys reach the configurations of the last reload, those before it being gone.
    let keys = Arc::new(machine.shards[0].keys.borrow().rotated(1).unwrap());
    machine.shards[0].set_keys(keys);
    assert!(is_resumed(&client, &shards[0]));
    assert!(is_resumed(&client, &shards[1]), "of the key that is the current one of the other shard");
}

#[test]
fn a_ticket_is_good_for_its_lifetime() {
    let (identity, machine) = (Identity::new(), Machine::new(2, settings(true)));
    let shards = machine.listener(&identity, POLICY, None);
    for version in [&TLS12, &TLS13] {
        for (age, good) in [(3599, true), (3600, false)] {
            let client = Arc::new(identity.client(version));
            assert!(!is_resumed(&client, &shards[0]));
            machine.time.advance(age);
            assert_eq!(is_resumed(&client, &shards[1]), good, "{age} s");
        }
    }
    assert_eq!(machine.metrics(1).tls.tickets_accepted.value(), 2);
    assert_eq!(machine.metrics(1).tls.tickets_refused.value(), 2);
}

#[test]
fn a_lifetime_is_a_week_at_most() {
    let month = TlsSessionCache { lifetime: Duration::from_secs(30 * 24 * 3600), ..settings(true) };
    assert_eq!(lifetime(&month), Duration::from_secs(7 * 24 * 3600));
    assert_eq!(lifetime(&settings(true)), Duration::from_secs(3600));
}

#[test]
fn a_ticket_of_an_unknown_key_leads_to_a_full_handshake() {
    let identity = Identity::new();
    let (one, two) = (Machine::new(1, settings(true)), Machine::new(1, settings(true)));
    for version in [&TLS12, &TLS13] {
        let client = Arc::new(identity.client(version));
        let listener = two.listener(&identity, POLICY, None);
        assert!(!is_resumed(&client, &one.listener(&identity, POLICY, None)[0]));
        assert!(!is_resumed(&client, &listener[0]));
        assert!(is_resumed(&client, &listener[0]), "with the ticket that it got instead");
    }
    assert_eq!(two.metrics(0).tls.tickets_refused.value(), 2);
}

#[test]
fn machines_with_the_same_key_file_resume_each_others_sessions() {
    let folder = tempfile::tempdir().unwrap();
    let (identity, path) = (Identity::new(), folder.path().join("ticket.key"));
    let (one, two) = (Machine::new(2, settings(true)), Machine::new(2, settings(true)));
    let listener = |machine: &Machine, keys: &[u8]| {
        let bytes: Vec<u8> = keys.iter().flat_map(|key| [*key; 80]).collect();
        std::fs::write(&path, bytes).unwrap();
        let keys = Arc::new(TicketKeys::load(&path).unwrap());
        machine.listener(&identity, POLICY, Some(&keys))
    };
    let (mut first, mut second) = (listener(&one, b"A"), listener(&two, b"A"));
    let client = Arc::new(identity.client(&TLS13));
    assert!(!is_resumed(&client, &first[0]));
    assert!(is_resumed(&client, &second[1]));
    // Each machine in its turn: the new key decrypts everywhere before it encrypts anywhere.
    for keys in [b"AB", b"BA"] {
        first = listener(&one, keys);
        assert!(is_resumed(&client, &second[0]), "of the old");
        assert!(is_resumed(&client, &first[0]), "of the old");
        assert!(is_resumed(&client, &second[1]), "of the new");
        second = listener(&two, keys);
        assert!(is_resumed(&client, &first[1]));
    }
    // The server's own keys rotate; those of the file do not.
    one.shards[0].set_keys(Arc::new(TicketKeys::generate().unwrap()));
    assert!(is_resumed(&client, &first[0]));
    second = listener(&two, b"C");
    assert!(!is_resumed(&client, &second[0]));
}

#[test]
fn kept_sessions_resume_on_other_shards_every_time() {
    let (identity, machine) = (Identity::new(), Machine::new(SHARDS, settings(false)));
    let shards = machine.listener(&identity, POLICY, None);
    for version in [&TLS12, &TLS13] {
        let client = Arc::new(identity.client(version));
        assert!(!is_resumed(&client, &shards[0]));
        let resumed = (0..1000).filter(|turn| is_resumed(&client, &shards[(turn * 7 + 1) % SHARDS])).count();
        assert_eq!(resumed, 1000);
    }
    let hits = |shard| machine.metrics(shard).tls.session_cache_hits.value();
    assert_eq!([0, 1, 2, 3].map(hits), [500; SHARDS]);
    assert_eq!(machine.metrics(0).tls.tickets_accepted.value(), 0);
    // One of each version: each of TLS 1.3 ends the one before it.
    assert_eq!(machine.totals.sessions.value(), 2);
}

#[test]
fn a_client_without_tickets_resumes_by_id_beside_tickets() {
    let (identity, machine) = (Identity::new(), Machine::new(SHARDS, settings(true)));
    let shards = machine.listener(&identity, POLICY, None);
    let client = Arc::new(identity.client_by_id());
    assert!(!is_resumed(&client, &shards[0]));
    let resumed = (0..1000).filter(|turn| is_resumed(&client, &shards[(turn * 7 + 1) % SHARDS])).count();
    assert_eq!(resumed, 1000);
    assert_eq!(machine.totals.sessions.value(), 1);
    machine.time.advance(3600);
    assert!(!is_resumed(&client, &shards[1]), "its lifetime is over");
}

#[test]
fn a_session_of_tls_1_3_resumes_once() {
    let (identity, machine) = (Identity::new(), Machine::new(SHARDS, settings(false)));
    let shards = machine.listener(&identity, POLICY, None);
    let client = Arc::new(identity.client(&TLS13));
    assert!(!is_resumed(&client, &shards[0]));
    // The same ClientHello again, as somebody who has recorded it would send it.
    let hello = hello(&client);
    let resumed: Vec<bool> = shards.iter().map(|shard| resumes(&hello, shard)).collect();
    assert_eq!(resumed, [true, false, false, false]);
    assert_eq!(machine.totals.sessions.value(), 0);
}

#[test]
fn listeners_with_other_policies_share_nothing() {
    for (tickets, version) in [(true, &TLS13), (true, &TLS12), (false, &TLS13), (false, &TLS12)] {
        let (identity, machine) = (Identity::new(), Machine::new(2, settings(tickets)));
        let (one, other) =
            (machine.listener(&identity, POLICY, None), machine.listener(&identity, OTHER_POLICY, None));
        let client = Arc::new(identity.client(version));
        assert!(!is_resumed(&client, &one[0]));
        assert!(!is_resumed(&client, &other[1]), "{tickets} {version:?}");
        assert!(is_resumed(&client, &other[0]));
        assert!(!is_resumed(&client, &one[0]));
    }
}

#[test]
fn without_room_every_handshake_is_a_full_one() {
    let (identity, none) = (Identity::new(), TlsSessionCache { size_bytes: 0, ..settings(false) });
    let machine = Machine::new(2, none);
    let shards = machine.listener(&identity, POLICY, None);
    for version in [&TLS12, &TLS13] {
        let client = Arc::new(identity.client(version));
        assert!(!is_resumed(&client, &shards[0]));
        assert!(!is_resumed(&client, &shards[0]));
    }
    assert_eq!(machine.held_bytes(), 0);
}
