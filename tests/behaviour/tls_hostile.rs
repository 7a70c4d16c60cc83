//! Clients that break TLS: each is told as the protocol has it, or cut, and counted by reason; others are served all the
//! while, and nothing is left of it.

use std::io::{Read, Write};

use rustls::AlertDescription;

use crate::{
    harness::{Client, wait_until},
    https::{Https, VERSIONS},
    system::reset_on_close,
    tls_client::TlsClient,
    tls_forger::{ALERT, CHANGE_CIPHER_SPEC, DATA, Forger, HANDSHAKE, plain_record},
};

const GET: &str = "GET /small HTTP/1.1\r\nHost: test\r\n\r\n";
const UNEXPECTED_MESSAGE: u8 = 10;
const BAD_RECORD_MAC: u8 = 20;
const RECORD_OVERFLOW: u8 = 22;
const HANDSHAKE_FAILURE: u8 = 40;
const DECODE_ERROR: u8 = 50;
const PROTOCOL_VERSION: u8 = 70;
const NO_RENEGOTIATION: u8 = 100;
/// A suite that is not spoken, with RSA key exchange and CBC, and one that is.
const OLD_SUITE: [u8; 2] = [0x00, 0x2f];
const SUITE: [u8; 2] = [0xc0, 0x2b];

/// A server, and a client of it that must not notice anything.
struct Hostile {
    server: Https,
    bystander: TlsClient,
}

impl Hostile {
    fn start(yaml: &str) -> Self {
        let server = Https::start("", yaml, &[("small", b"hello")]);
        let mut bystander = server.connect();
        assert_eq!(bystander.ask(GET).body, b"hello");
        Hostile { server, bystander }
    }

    /// So many connections have ended for this reason by now, and others are served.
    #[track_caller]
    fn expect(&mut self, reason: &str, count: u64) {
        self.server.await_failures(reason, count);
        assert_eq!(self.server.failures(reason), count, "{reason}");
        assert_eq!(self.bystander.ask(GET).body, b"hello");
        assert_eq!(self.server.connect().ask(GET).body, b"hello");
    }

    fn finish(self) {
        self.bystander.close();
        self.server.expect_nothing_left();
    }

    /// Sends this and takes everything that comes until the end.
    fn say(&self, bytes: &[u8]) -> Vec<u8> {
        let mut client = self.server.server.connect();
        // The server may close before it has taken all.
        let _ = client.stream.write_all(bytes);
        client.rest()
    }
}

/// A fatal alert before there are keys.
#[track_caller]
fn assert_alert(said: &[u8], description: u8) {
    assert!(said.len() == 7 && said[0] == ALERT && said[5] == 2, "no alert: {said:?}");
    assert_eq!(said[6], description);
}

/// A ClientHello (RFC 5246 7.4.1.2) of this version, with one cipher suite.
fn hello(version: [u8; 2], suite: [u8; 2]) -> Vec<u8> {
    let extensions = [
        &[0, 10, 0, 4, 0, 2, 0, 29][..],
        &[0, 11, 0, 2, 1, 0],
        &[0, 13, 0, 6, 0, 4, 4, 3, 8, 4],
        &[0, 23, 0, 0],
    ]
    .concat();
    let length = |bytes: usize| u16::try_from(bytes).unwrap().to_be_bytes();
    let body = [&version[..], &[7; 32], &[0, 0, 2], &suite, &[1, 0], &length(extensions.len()), &extensions]
        .concat();
    let message = [&[1, 0], &length(body.len())[..], &body].concat();
    plain_record(HANDSHAKE, &message)
}

#[test]
fn what_is_no_tls_is_told_so() {
    let mut hostile = Hostile::start("");
    for (count, garbage) in [&[0xff; 64][..], &[0; 64], &[22, 9, 9, 0, 4, 1, 2, 3, 4]].into_iter().enumerate()
    {
        assert_alert(&hostile.say(garbage), DECODE_ERROR);
        hostile.expect("malformed", count as u64 + 1);
    }
    // A message of a handshake that is none, and one that does not begin it.
    assert_alert(&hostile.say(&plain_record(HANDSHAKE, &[1, 0, 0, 2, 9, 9])), DECODE_ERROR);
    hostile.expect("malformed", 4);
    assert_alert(&hostile.say(&plain_record(HANDSHAKE, &[20, 0, 0, 2, 9, 9])), UNEXPECTED_MESSAGE);
    assert_alert(&hostile.say(&plain_record(DATA, b"GET /")), UNEXPECTED_MESSAGE);
    hostile.expect("misbehaved", 2);
    hostile.finish();
}

#[test]
fn http_without_tls_is_answered_in_the_clear() {
    let mut hostile = Hostile::start("");
    for (count, request) in
        [GET, "\r\nGET / HTTP/1.1\r\n", "POST / HTTP/1.1\r\nContent-Length: 100000\r\n\r\n"]
            .into_iter()
            .enumerate()
    {
        let mut client = hostile.server.server.connect();
        client.send(request);
        client.send(vec![b'x'; 10_000]);
        let response = client.response();
        assert_eq!((response.status, response.field("connection")), (400, Some("close")));
        assert!(String::from_utf8(response.body).unwrap().contains("https://"));
        client.finish();
        client.expect_close();
        hostile.expect("plain_http", count as u64 + 1);
    }
    hostile.finish();
}

#[test]
fn records_that_are_too_long_are_refused_by_their_head() {
    let mut hostile = Hostile::start("");
    let said = hostile.say(&[22, 3, 1, 0x48, 0x01]);
    assert!(said.is_empty() || said[6] == RECORD_OVERFLOW || said[6] == DECODE_ERROR, "{said:?}");
    hostile.expect("oversized", 1);
    // A message of a handshake that would be longer than any.
    let said = hostile.say(&plain_record(HANDSHAKE, &[1, 1, 0, 0, 3, 3]));
    assert!(said.is_empty() || said[6] == DECODE_ERROR, "{said:?}");
    hostile.expect("oversized", 2);
    for (count, versions) in VERSIONS.into_iter().enumerate() {
        // A record whose head is fine and whose content is too long.
        let mut forger = Forger::connect(&hostile.server, versions);
        forger.send(DATA, &[b'x'; (16 << 10) + 1]);
        assert_eq!(forger.last_alert(), Some(RECORD_OVERFLOW));
        hostile.expect("oversized", count as u64 + 3);
    }
    hostile.finish();
}

#[test]
fn a_hello_in_records_of_one_byte_is_a_hello() {
    let mut hostile = Hostile::start("");
    for versions in VERSIONS {
        let mut tls = hostile.server.connector(versions).connection();
        let mut socket = hostile.server.server.connect().stream;
        let mut flight = Vec::new();
        tls.write_tls(&mut flight).unwrap();
        let records: Vec<u8> =
            flight[5..].iter().flat_map(|byte| plain_record(HANDSHAKE, &[*byte])).collect();
        records.chunks(1000).for_each(|piece| socket.write_all(piece).unwrap());
        while tls.is_handshaking() {
            tls.complete_io(&mut socket).unwrap();
        }
        let mut client =
            Client { stream: crate::tls_client::TlsStream { tls, socket }, received: Vec::new() };
        assert_eq!(client.ask(GET).body, b"hello");
        client.close();
    }
    hostile.expect("left", 0);
    hostile.finish();
}

#[test]
fn a_hello_without_an_end_holds_little_and_ends() {
    let mut hostile = Hostile::start("timeouts: { handshake: 300ms, idle: 10m }");
    let held = |server: &Https| server.used("tls") + server.used("buffers_in_use");
    let before = held(&hostile.server);
    // A byte now and then, of a message that is as long as one may be.
    let mut slow = hostile.server.server.connect();
    slow.send(plain_record(HANDSHAKE, &[1, 0, 0xff, 0xff]));
    let mut kilobytes = 0;
    while slow.try_send(plain_record(HANDSHAKE, &[0; 1000])).is_ok() && kilobytes < 12 {
        kilobytes += 1;
        assert!(held(&hostile.server) - before <= (12 + 16) << 10);
    }
    hostile.expect("timeout", 1);
    drop(slow);
    // Records of one byte, so that what has to be kept is more than the message.
    let mut client = hostile.server.server.connect();
    let byte = plain_record(HANDSHAKE, &[0]).repeat(1000);
    client.send(plain_record(HANDSHAKE, &[1, 0, 0xff, 0xff]));
    while client.try_send(&byte).is_ok() {}
    hostile.expect("oversized", 1);
    // Nothing at all, and half a head.
    let (mut silent, mut begun) = (hostile.server.server.connect(), hostile.server.server.connect());
    begun.send([22, 3]);
    silent.expect_close();
    begun.expect_close();
    hostile.expect("timeout", 3);
    hostile.finish();
}

#[test]
fn old_versions_and_old_suites_are_refused_by_name() {
    let mut hostile = Hostile::start("");
    assert_alert(&hostile.say(&hello([3, 1], OLD_SUITE)), PROTOCOL_VERSION);
    assert_alert(&hostile.say(&hello([3, 2], SUITE)), PROTOCOL_VERSION);
    assert_alert(&hostile.say(&hello([3, 0], SUITE)), PROTOCOL_VERSION);
    hostile.expect("version", 3);
    assert_alert(&hostile.say(&hello([3, 3], OLD_SUITE)), HANDSHAKE_FAILURE);
    hostile.expect("parameters", 1);
    // That it is not the hello that is wrong: this one is answered.
    let mut client = hostile.server.server.connect();
    client.send(hello([3, 3], SUITE));
    let mut head = [0; 6];
    client.stream.read_exact(&mut head).unwrap();
    assert_eq!((head[0], head[5]), (HANDSHAKE, 2));
    drop(client);
    hostile.expect("left", 1);
    hostile.finish();
}

#[test]
fn records_that_are_forged_end_the_connection() {
    let mut hostile = Hostile::start("");
    for (count, versions) in VERSIONS.into_iter().enumerate() {
        let count = count as u64;
        let mut forger = Forger::connect(&hostile.server, versions);
        let mut record = forger.record(DATA, GET.as_bytes());
        *record.last_mut().unwrap() ^= 1;
        forger.socket.write_all(&record).unwrap();
        assert_eq!(forger.last_alert(), Some(BAD_RECORD_MAC));
        hostile.expect("decrypt", 2 * count + 1);
        // What was sent before it is answered.
        let mut forger = Forger::connect(&hostile.server, versions);
        let (good, mut bad) = (forger.record(DATA, GET.as_bytes()), forger.record(DATA, GET.as_bytes()));
        bad[7] ^= 0x80;
        forger.socket.write_all(&[good, bad].concat()).unwrap();
        assert_eq!(forger.last_alert(), Some(BAD_RECORD_MAC));
        hostile.expect("decrypt", 2 * count + 2);
        // No record at all.
        let mut forger = Forger::connect(&hostile.server, versions);
        forger.socket.write_all(&[0xff; 100]).unwrap();
        assert_eq!(forger.last_alert(), Some(DECODE_ERROR));
        hostile.expect("malformed", count + 1);
    }
    hostile.finish();
}

#[test]
fn messages_that_do_not_belong_there_end_the_connection() {
    let mut hostile = Hostile::start("");
    for versions in VERSIONS {
        for (kind, content) in [
            // A finished, a key update of a kind that there is not, another type of record.
            (HANDSHAKE, &[20, 0, 0, 4, 1, 2, 3, 4][..]),
            (HANDSHAKE, &[24, 0, 0, 1, 9]),
            (CHANGE_CIPHER_SPEC, &[1]),
            (99, &[1]),
        ] {
            let mut forger = Forger::connect(&hostile.server, versions);
            forger.send(kind, content);
            let alert = forger.last_alert();
            assert!(alert.is_some(), "{kind} {content:?}: no alert");
        }
    }
    assert_eq!(hostile.bystander.ask(GET).body, b"hello");
    hostile.finish();
}

#[test]
fn a_message_that_has_begun_does_not_harm_what_is_sent_meanwhile() {
    let mut hostile = Hostile::start("");
    for versions in VERSIONS {
        let mut forger = Forger::connect(&hostile.server, versions);
        // A key update, or a hello, of which the rest never comes; then a byte of the next record.
        let mut records = forger.record(DATA, GET.as_bytes());
        records.extend(forger.record(HANDSHAKE, &[if versions == VERSIONS[1] { 24 } else { 1 }, 0]));
        records.push(DATA);
        forger.socket.write_all(&records).unwrap();
        let (kind, content) = forger.receive_beyond_tickets().unwrap();
        assert_eq!((kind, content.starts_with(b"HTTP/1.1 200 OK\r\n")), (DATA, true));
        // No other record may come between the parts of a message (RFC 8446 5.1).
        let record = forger.record(DATA, GET.as_bytes());
        forger.socket.write_all(&record[1..]).unwrap();
        assert_eq!(forger.receive_beyond_tickets(), None);
    }
    hostile.expect("misbehaved", 2);
    hostile.finish();
}

#[test]
fn floods_of_what_means_nothing_end() {
    let mut hostile = Hostile::start("");
    for (count, versions) in VERSIONS.into_iter().enumerate() {
        let count = 2 * count as u64;
        // Warnings: that there is no renegotiation, or that the user has cancelled.
        let mut forger = Forger::connect(&hostile.server, versions);
        forger.flood(ALERT, &[1, if versions == VERSIONS[0] { NO_RENEGOTIATION } else { 90 }], 1000);
        while forger.receive().is_some() {}
        hostile.expect("flood", count + 1);
        // Records with nothing in them.
        let mut forger = Forger::connect(&hostile.server, versions);
        forger.flood(DATA, b"", 1000);
        while forger.receive().is_some() {}
        hostile.expect("flood", count + 2);
    }
    let mut client = hostile.server.connector(VERSIONS[1]).connect(hostile.server.address());
    for _ in 0..100 {
        client.stream.tls.refresh_traffic_keys().unwrap();
    }
    let _ = client.stream.flush();
    hostile.expect("flood", 5);
    drop(client);
    hostile.finish();
}

#[test]
fn who_wants_to_renegotiate_is_warned_once() {
    let mut hostile = Hostile::start("");
    let mut forger = Forger::connect(&hostile.server, VERSIONS[0]);
    let again = &hello([3, 3], SUITE)[5..];
    forger.send(HANDSHAKE, again);
    let (kind, content) = forger.receive_beyond_tickets().unwrap();
    assert_eq!((kind, &content[..]), (ALERT, &[1, NO_RENEGOTIATION][..]));
    forger.send(DATA, GET.as_bytes());
    assert_eq!(forger.receive_beyond_tickets().unwrap().0, DATA);
    forger.send(HANDSHAKE, again);
    while forger.receive().is_some() {}
    drop(forger);
    hostile.expect("flood", 1);
    hostile.finish();
}

#[test]
fn who_leaves_amid_a_handshake_is_counted() {
    let mut hostile = Hostile::start("");
    let hello = hostile.server.connector(VERSIONS[1]).hello();
    let parts = [&hello[..3], &hello[..200], &hello];
    for (count, part) in parts.iter().enumerate() {
        let mut client = hostile.server.server.connect();
        client.send(part);
        if *part == hello {
            assert!(client.response_begins());
        }
        client.finish();
        client.rest();
        hostile.expect("left", count as u64 + 1);
    }
    for (count, part) in parts.iter().enumerate() {
        let mut client = hostile.server.server.connect();
        client.send(part);
        if *part == hello {
            assert!(client.response_begins());
        }
        reset_on_close(&client.stream);
        drop(client);
        hostile.expect("left", count as u64 + 4);
    }
    // One that does not like our certificate says so.
    let stranger = crate::certificates::Certificates::new();
    let connector = crate::tls_client::Dialer::trusting(&stranger).connector();
    assert!(connector.try_connect(hostile.server.address()).is_err());
    hostile.expect("alert", 1);
    hostile.finish();
}

#[test]
fn when_there_is_no_room_or_no_memory_clients_are_told_by_an_alert() {
    const NO_ROOM: AlertDescription = AlertDescription::InternalError;
    let server = Https::start("", "memory: { budget: 64MB, worker_connections: 3 }", &[("small", b"hello")]);
    let mut clients: Vec<TlsClient> = (0..3).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(|client| assert_eq!(client.ask(GET).body, b"hello"));
    assert_eq!(server.dialer().connector().refusal(server.address()), NO_ROOM);
    assert_eq!(server.server.metric("webserver_connections_shed_total{reason=\"capacity\"}"), 1);
    clients.iter_mut().for_each(|client| assert_eq!(client.ask(GET).body, b"hello"));
    clients.into_iter().for_each(TlsClient::close);
    server.server.await_no_connections();
    let stats = server.server.server.stats().totals;
    let charge = usize::try_from(stats.memory_budget_bytes * 96 / 100 - stats.memory_used_bytes).unwrap();
    server.server.server.charge(charge).unwrap();
    wait_until("critical", || server.server.metric("webserver_memory_pressure") == 3);
    assert_eq!(server.dialer().connector().refusal(server.address()), NO_ROOM);
    assert_eq!(server.server.metric("webserver_connections_shed_total{reason=\"memory\"}"), 1);
    server.server.server.release(charge);
    wait_until("normal", || server.server.metric("webserver_memory_pressure") == 0);
    assert_eq!(server.connect().ask(GET).body, b"hello");
    server.expect_nothing_left();
}
