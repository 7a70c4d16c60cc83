//! Tickets that are whole, and tickets that are not; keys and their files; rotation.

use std::{os::unix::fs::PermissionsExt, path::Path, time::Instant};

use super::*;
use crate::{
    config::{Config, Listener, Settings, Tls, TlsVersions},
    error::ErrorKind,
    server::Server,
    tls::resumption::testing::{Machine, OTHER_POLICY, POLICY, settings},
};

const SESSION: &[u8] = b"what the library encodes";

/// Shards of one server, one ticketer each.
fn ticketers(machine: &Machine, keys: &TicketKeys, policy: Policy) -> Vec<Ticketer> {
    let ticketer = |index: usize| {
        let store = Store::new(Arc::clone(machine.shards[index].cache()), policy, true);
        let time: Arc<dyn TimeProvider> =
            Arc::<crate::tls::resumption::testing::ManualTime>::clone(&machine.time);
        let metrics = Arc::clone(&machine.registry.shards[index]);
        let lifetime = Duration::from_secs(3600);
        Ticketer::new(TicketerSetup { policy, lifetime, time, metrics, store }, keys, false)
    };
    (0..machine.shards.len()).map(ticketer).collect()
}

fn one() -> (Machine, Ticketer) {
    let machine = Machine::new(1, settings(true));
    let ticketer = ticketers(&machine, &TicketKeys::generate().unwrap(), POLICY).remove(0);
    (machine, ticketer)
}

#[test]
fn a_ticket_is_its_session_and_nothing_that_is_not_whole_is() {
    let (machine, ticketer) = one();
    let ticket = ticketer.encrypt(SESSION).unwrap();
    assert_eq!(ticket.len(), HEAD_BYTES + ISSUED_BYTES + SESSION.len() + TAG_BYTES);
    assert!(!ticket.windows(SESSION.len()).any(|window| window == SESSION));
    assert_eq!(ticketer.decrypt(&ticket).as_deref(), Some(SESSION));
    for at in 0..ticket.len() {
        let mut forged = ticket.clone();
        forged[at] ^= 1;
        assert_eq!(ticketer.decrypt(&forged), None, "byte {at}");
        assert_eq!(ticketer.decrypt(&ticket[..at]), None, "the first {at} bytes");
    }
    let mut longer = ticket.clone();
    longer.push(0);
    assert_eq!(ticketer.decrypt(&longer), None);
    longer.resize(TICKET_BYTES_MAX + 1, 0);
    assert_eq!(ticketer.decrypt(&longer), None);
    let tls = &machine.metrics(0).tls;
    assert_eq!(tls.tickets_accepted.value(), 1);
    assert_eq!(tls.tickets_refused.value(), 2 * ticket.len() as u64 + 2);
}

#[test]
fn two_tickets_of_one_session_have_nothing_in_common_but_the_key() {
    let (_machine, ticketer) = one();
    let (first, second) = (ticketer.encrypt(SESSION).unwrap(), ticketer.encrypt(SESSION).unwrap());
    assert_eq!(first[..NAME_BYTES], second[..NAME_BYTES]);
    assert_ne!(first[NAME_BYTES..HEAD_BYTES], second[NAME_BYTES..HEAD_BYTES]);
    assert_ne!(first[HEAD_BYTES..], second[HEAD_BYTES..]);
}

#[test]
fn the_longest_ticket_is_whole_and_a_longer_one_is_not_made() {
    let (_machine, ticketer) = one();
    let most = TICKET_BYTES_MAX - HEAD_BYTES - ISSUED_BYTES - TAG_BYTES;
    let ticket = ticketer.encrypt(&vec![1; most]).unwrap();
    assert_eq!(ticketer.decrypt(&ticket), Some(vec![1; most]));
    assert_eq!(ticketer.encrypt(&vec![1; most + 1]), None);
    let empty = ticketer.encrypt(b"").unwrap();
    assert_eq!(ticketer.decrypt(&empty), Some(Vec::new()));
}

#[test]
fn other_policies_make_other_keys_of_the_same_secret() {
    let machine = Machine::new(1, settings(true));
    let keys = TicketKeys::generate().unwrap();
    let (one, other) =
        (ticketers(&machine, &keys, POLICY).remove(0), ticketers(&machine, &keys, OTHER_POLICY).remove(0));
    let ticket = one.encrypt(SESSION).unwrap();
    assert_eq!(other.decrypt(&ticket), None);
    assert!(one.decrypt(&ticket).is_some());
}

#[test]
fn a_clock_that_is_behind_takes_a_ticket_for_a_new_one() {
    let machine = Machine::new(2, settings(true));
    let ahead = Machine::new(1, settings(true));
    ahead.time.advance(100_000);
    let keys = TicketKeys::generate().unwrap();
    let ticket = ticketers(&ahead, &keys, POLICY)[0].encrypt(SESSION).unwrap();
    assert!(ticketers(&machine, &keys, POLICY)[1].decrypt(&ticket).is_some());
}

#[test]
fn a_key_decrypts_for_as_many_rotations_as_are_asked_for() {
    let machine = Machine::new(1, settings(true));
    let mut keys = TicketKeys::generate().unwrap();
    let ticketer = ticketers(&machine, &keys, POLICY).remove(0);
    let ticket = ticketer.encrypt(SESSION).unwrap();
    for rotation in 1..=4 {
        keys = keys.rotated(3).unwrap();
        ticketer.set_keys(&keys);
        assert_eq!(ticketer.decrypt(&ticket).is_some(), rotation <= 3, "{rotation}");
        assert_eq!(keys.keys().len(), 2 + rotation.min(3));
        let new = ticketer.encrypt(SESSION).unwrap();
        assert_eq!(ticketer.decrypt(&new).as_deref(), Some(SESSION));
    }
    let names: std::collections::HashSet<_> = keys.keys().iter().map(|key| key.name).collect();
    assert_eq!(names.len(), keys.keys().len());
}

fn bytes(keys: usize) -> Vec<u8> {
    (0..keys).flat_map(|key| vec![key as u8 + 1; 80]).collect()
}

fn write(path: &Path, bytes: &[u8], mode: u32) {
    std::fs::write(path, bytes).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn key_files_of_the_right_sizes_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ticket.key");
    for (length, count) in [(48, 1), (80, 1), (160, 2), (240, 3), (17 * 80, 17)] {
        write(&path, &bytes(17)[..length], 0o600);
        let keys = TicketKeys::load(&path).unwrap();
        assert_eq!(keys.keys().len(), count);
        assert_eq!(keys.keys()[0].name, [1; NAME_BYTES]);
        assert_eq!(keys.keys()[0].secret.len(), if length == 48 { 32 } else { 64 });
        assert_eq!(keys.warning(), None);
    }
    write(&path, &bytes(1), 0o640);
    assert_eq!(TicketKeys::load(&path).unwrap().warning(), None);
    write(&path, &bytes(1), 0o604);
    let keys = TicketKeys::load(&path).unwrap();
    let warning = keys.warning().unwrap();
    assert!(warning.contains(path.to_str().unwrap()) && warning.contains("mode 604"), "{warning}");
}

#[test]
fn other_key_files_are_refused_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ticket.key");
    let zeros = |from: usize| [bytes(2)[..80 + from].to_vec(), vec![0; 80 - from]].concat();
    let cases = [
        (Vec::new(), "has 0 bytes"),
        (bytes(1)[..79].to_vec(), "has 79 bytes"),
        (bytes(2)[..96].to_vec(), "has 96 bytes"),
        (bytes(18), "has more than 17 keys"),
        (bytes(18)[..17 * 80 + 1].to_vec(), "has more than 17 keys"),
        (vec![0; 80], "has a key of zeros, number 1"),
        (zeros(16), "has a key of zeros, number 2"),
        ([bytes(1), bytes(1)].concat(), "has two keys of the same name, the second is number 2"),
    ];
    for (bytes, reason) in cases {
        write(&path, &bytes, 0o600);
        let error = TicketKeys::load(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        let text = error.to_string();
        assert!(text.contains(path.to_str().unwrap()), "{text}");
        assert!(text.contains(reason) && text.contains("openssl rand 80"), "{text}");
    }
    let error = TicketKeys::load(&folder.path().join("none")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().contains("none"), "{error}");
    let error = TicketKeys::load(folder.path()).unwrap_err();
    assert!(error.to_string().contains("not a regular file"), "{error}");
}

/// Settings with a TLS listener whose tickets live so long.
fn with_listener(lifetime_seconds: u64, tickets: bool, key_file: bool) -> Settings {
    let mut settings = Config::new().resolve(&Server::host(false)).unwrap();
    settings.memory.tls_session_cache.lifetime = Duration::from_secs(lifetime_seconds);
    settings.memory.tls_session_cache.tickets = tickets;
    let listener: &mut Listener = &mut settings.listeners[0];
    listener.tls = Some(Tls {
        certificates: Vec::new(),
        versions: TlsVersions::default(),
        client_auth: None,
        ticket_key_file: key_file.then(|| "ticket.key".into()),
    });
    settings
}

#[test]
fn keys_rotate_when_they_are_due_and_only_then() {
    let now = Instant::now();
    let rotation = TicketRotation::start(&with_listener(24 * 3600, true, false), now).unwrap();
    let period = Duration::from_secs(6 * 3600);
    assert_eq!(rotation.due(), Some(now + period));
    let first = rotation.keys();
    assert!(Arc::ptr_eq(&first, &rotation.rotate(now + period - Duration::from_millis(1))));
    let mut last = Arc::clone(&first);
    for turn in 1..=6 {
        let keys = rotation.rotate(now + turn * period);
        assert_eq!(keys.keys()[0].name, last.keys()[1].name, "the next one is the current one now");
        // A ticket of the last moment before the first rotation lives for four periods more.
        let decrypts = keys.keys().iter().any(|key| key.name == first.keys()[0].name);
        assert_eq!(decrypts, turn <= 4, "{turn}");
        assert!(Arc::ptr_eq(&keys, &rotation.keys()));
        last = keys;
    }
    assert_eq!(rotation.due(), Some(now + 7 * period));
}

#[test]
fn a_period_is_half_of_the_lifetime_within_bounds() {
    let now = Instant::now();
    for (lifetime, period) in [(1, 600), (3600, 1800), (12 * 3600, 6 * 3600), (30 * 24 * 3600, 6 * 3600)] {
        let rotation = TicketRotation::start(&with_listener(lifetime, true, false), now).unwrap();
        assert_eq!(rotation.due(), Some(now + Duration::from_secs(period)), "{lifetime}");
    }
}

#[test]
fn a_reload_keeps_the_keys_and_brings_the_next_rotation_forward_at_most() {
    let now = Instant::now();
    let rotation = TicketRotation::start(&with_listener(24 * 3600, true, false), now).unwrap();
    let keys = rotation.keys();
    let later = now + Duration::from_secs(60);
    rotation.reload(&with_listener(24 * 3600, true, false), later);
    assert_eq!(rotation.due(), Some(now + Duration::from_secs(6 * 3600)));
    rotation.reload(&with_listener(3600, true, false), later);
    assert_eq!(rotation.due(), Some(later + Duration::from_secs(1800)));
    assert!(Arc::ptr_eq(&keys, &rotation.keys()));
    // Nobody encrypts with them.
    for (tickets, key_file) in [(false, false), (true, true)] {
        rotation.reload(&with_listener(3600, tickets, key_file), later);
        assert_eq!(rotation.due(), None);
        assert!(Arc::ptr_eq(&keys, &rotation.rotate(now + Duration::from_secs(1 << 20))));
    }
    rotation.reload(&with_listener(3600, true, false), later);
    assert_eq!(rotation.due(), Some(later + Duration::from_secs(1800)));
}
