//! How connections over TLS end: each side says so (RFC 8446 6.1), and what was asked before is answered. Who leaves
//! without a word is counted.

use std::{io::Write, thread};

use webserver::server::State;

use crate::{
    harness::{PATIENCE, wait_until},
    https::{Https, VERSIONS},
    system::{assert_same, bound_receive_buffer, pattern, reset_on_close},
    tls_client::TlsClient,
};

const LARGE_BYTES: usize = 16 << 20;
const GET: &str = "GET /small HTTP/1.1\r\nHost: test\r\n\r\n";

fn start(yaml: &str) -> Https {
    Https::start("", yaml, &[("small", b"hello"), ("large", &pattern()[..LARGE_BYTES])])
}

/// One after the other, of each version.
fn clients(server: &Https) -> impl Iterator<Item = TlsClient> {
    VERSIONS.into_iter().map(|versions| server.connector(versions).connect(server.address()))
}

fn pair(server: &Https) -> [TlsClient; 2] {
    VERSIONS.map(|versions| server.connector(versions).connect(server.address()))
}

fn truncated(server: &Https) -> u64 {
    server.server.metric("webserver_tls_truncated_total")
}

/// Reads a response whose head was read already.
fn expect_large(client: &mut TlsClient) {
    while client.received.len() < LARGE_BYTES {
        assert!(client.receive() > 0);
    }
    let rest = client.received.split_off(LARGE_BYTES);
    assert_same("large", &client.received, &pattern()[..LARGE_BYTES]);
    client.received = rest;
}

/// Resets the connection.
fn reset(client: TlsClient) {
    reset_on_close(&client.stream.socket);
    drop(client);
}

#[test]
fn a_close_that_was_asked_for_is_said() {
    let server = start("");
    for target in ["small", "large", "own", "missing"] {
        for mut client in clients(&server) {
            let response = client.request("GET", &format!("/{target}"), "Connection: close\r\n");
            assert_eq!(response.field("connection"), Some("close"), "{target}");
            client.expect_goodbye();
        }
    }
    for mut client in clients(&server) {
        assert_eq!(client.ask("nonsense\r\n\r\n").status, 400);
        client.expect_goodbye();
    }
    server.expect_nothing_left();
    assert_eq!(truncated(&server), 0);
}

#[test]
fn who_is_idle_too_long_is_told() {
    let server = start("timeouts: { idle: 100ms, header: 100ms, body: 100ms }");
    for mut client in clients(&server) {
        client.expect_goodbye();
    }
    for mut client in clients(&server) {
        assert_eq!(client.ask(GET).status, 200);
        client.expect_goodbye();
    }
    for request in ["GET / HT", "POST /length HTTP/1.1\r\nHost: test\r\nContent-Length: 9\r\n\r\n1234"] {
        for mut client in clients(&server) {
            client.send(request);
            assert_eq!(client.response().status, 408);
            client.expect_goodbye();
        }
    }
    server.expect_nothing_left();
}

#[test]
fn a_part_of_a_record_is_waited_for_as_long_as_a_head() {
    let server = start("timeouts: { header: 100ms, idle: 10m }");
    for mut client in clients(&server) {
        assert_eq!(client.ask(GET).status, 200);
        client.stream.tls.writer().write_all(GET.as_bytes()).unwrap();
        let mut record = Vec::new();
        client.stream.tls.write_tls(&mut record).unwrap();
        client.stream.socket.write_all(&record[..9]).unwrap();
        assert_eq!(client.response().status, 408);
        client.expect_goodbye();
    }
    server.expect_nothing_left();
}

#[test]
fn a_record_without_a_request_in_two_parts_leaves_the_connection_idle() {
    let server = start("timeouts: { header: 200ms, idle: 10m }");
    let [_, mut client] = pair(&server);
    assert_eq!(client.ask(GET).status, 200);
    client.stream.tls.refresh_traffic_keys().unwrap();
    let mut record = Vec::new();
    client.stream.tls.write_tls(&mut record).unwrap();
    client.stream.socket.write_all(&record[..9]).unwrap();
    server.server.await_metric("webserver_connections_active", 1);
    client.stream.socket.write_all(&record[9..]).unwrap();
    wait_until("it to be idle", || server.server.metric("webserver_connections_idle") == 1);
    assert_eq!(client.ask(GET).status, 200);
    client.close();
    server.expect_nothing_left();
    assert_eq!(server.server.metric("webserver_timeouts_total{kind=\"header\"}"), 0);
}

#[test]
fn a_drain_answers_what_was_asked_and_says_goodbye() {
    let server = start("");
    let [mut idle, mut waiting] = pair(&server);
    let [mut loading, _] = pair(&server);
    assert_eq!(idle.ask(GET).status, 200);
    waiting.send("GET /later HTTP/1.1\r\nHost: test\r\n\r\n");
    wait_until("the request to be there", || server.used("buffers_in_use") > 0);
    bound_receive_buffer(&loading.stream.socket);
    loading.send("GET /large HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(loading.head_response().status, 200);
    server.server.server.drain();
    idle.expect_goodbye();
    server.server.write("go", b"");
    assert_eq!(waiting.response().status, 200);
    waiting.expect_goodbye();
    expect_large(&mut loading);
    loading.expect_goodbye();
    wait_until("the drain to end", || server.server.server.drained());
}

#[test]
fn a_stop_says_goodbye_to_who_is_idle() {
    let server = start("");
    let mut idle = pair(&server);
    idle.iter_mut().for_each(|client| assert_eq!(client.ask(GET).status, 200));
    server.server.server.stop(PATIENCE).unwrap();
    assert_eq!(server.server.server.stats().state, State::Stopped);
    idle.iter_mut().for_each(TlsClient::expect_goodbye);
}

#[test]
fn who_will_send_no_more_is_answered_still() {
    let server = start("");
    // The goodbye comes in the same segment as the requests, with a response pending, and amid one.
    for mut client in clients(&server) {
        let mut flight = Vec::new();
        client.stream.tls.writer().write_all(GET.repeat(2).as_bytes()).unwrap();
        client.stream.tls.send_close_notify();
        while client.stream.tls.wants_write() {
            client.stream.tls.write_tls(&mut flight).unwrap();
        }
        client.stream.socket.write_all(&flight).unwrap();
        assert_eq!((client.response().body, client.response().body), (b"hello".into(), b"hello".into()));
        client.expect_goodbye();
    }
    for mut client in clients(&server) {
        std::fs::remove_file(server.server.folder.path().join("go")).ok();
        client.send("GET /later HTTP/1.1\r\nHost: test\r\n\r\n");
        client.finish();
        thread::yield_now();
        server.server.write("go", b"");
        assert_eq!(client.response().status, 200);
        client.expect_goodbye();
    }
    for mut client in clients(&server) {
        bound_receive_buffer(&client.stream.socket);
        client.send("GET /large HTTP/1.1\r\nHost: test\r\n\r\n");
        assert_eq!(client.head_response().status, 200);
        client.send(GET);
        client.notify();
        expect_large(&mut client);
        assert_eq!(client.response().body, b"hello");
        client.expect_goodbye();
    }
    server.expect_nothing_left();
    assert_eq!(truncated(&server), 0);
}

#[test]
fn who_leaves_without_a_word_is_counted() {
    let server = start("");
    // With FIN: idle, amid a head, amid a record.
    for (number, sent) in ["", "GET / HTTP/1.1\r\n"].into_iter().enumerate() {
        for mut client in clients(&server) {
            assert_eq!(client.ask(GET).status, 200);
            client.send(sent);
            client.truncate();
            client.expect_goodbye();
        }
        server.server.await_metric("webserver_tls_truncated_total", 2 * (number as u64 + 1));
    }
    for mut client in clients(&server) {
        client.stream.socket.write_all(&[23, 3, 3, 0, 100, 1, 2]).unwrap();
        client.truncate();
        client.expect_goodbye();
    }
    server.server.await_metric("webserver_tls_truncated_total", 6);
    // With a reset.
    for mut client in clients(&server) {
        assert_eq!(client.ask(GET).status, 200);
        reset(client);
    }
    server.server.await_metric("webserver_tls_truncated_total", 8);
    server.expect_nothing_left();
    assert_eq!(truncated(&server), 8);
    // Who has said goodbye has not.
    clients(&server).for_each(TlsClient::close);
    server.expect_nothing_left();
    assert_eq!(truncated(&server), 8);
}

#[test]
fn downloads_that_are_cut_disturb_nobody() {
    let server = start("");
    let mut bystanders = pair(&server);
    for round in 1..=3 {
        for mut client in clients(&server) {
            bound_receive_buffer(&client.stream.socket);
            client.send("GET /large HTTP/1.1\r\nHost: test\r\n\r\n");
            assert_eq!(client.head_response().status, 200);
            if round == 2 { drop(client) } else { reset(client) }
        }
        server.server.await_metric("webserver_responses_cut_total", 2 * round);
        for bystander in &mut bystanders {
            assert_eq!(bystander.ask(GET).body, b"hello");
        }
    }
    bystanders.into_iter().for_each(TlsClient::close);
    server.expect_nothing_left();
}
