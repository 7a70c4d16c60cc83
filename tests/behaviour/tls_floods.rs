//! Many handshakes at once: so many are in progress, the others wait their turn, and who has a connection is served.

use std::{
    io::Write,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
};

use crate::{
    harness::{Client, wait_until},
    https::Https,
    tls_client::TlsClient,
};

const GET: &str = "GET /small HTTP/1.1\r\nHost: test\r\n\r\n";

fn start(yaml: &str) -> (Https, TlsClient) {
    let server = Https::start("", yaml, &[("small", b"hello")]);
    let mut established = server.connect();
    serve(&mut established);
    (server, established)
}

fn serve(client: &mut TlsClient) {
    assert_eq!(client.ask(GET).body, b"hello");
}

/// A handshake that has begun and does not go on.
fn begin(server: &Https) -> Client {
    let mut client = server.server.connect();
    client.send([22, 3]);
    client
}

fn in_progress(server: &Https, count: u64) {
    wait_until("the handshakes to begin", || {
        server.server.metric("webserver_tls_handshakes_in_progress") == count
    });
}

fn waiting(server: &Https, count: u64) {
    wait_until("handshakes to wait", || server.server.metric("webserver_tls_handshakes_waiting") == count);
}

#[test]
fn a_handshake_beyond_the_limit_waits_for_another_to_end() {
    let (server, mut established) = start("limits: { handshakes: 4 }");
    let mut begun: Vec<Client> = (0..4).map(|_| begin(&server)).collect();
    in_progress(&server, 4);
    let (address, connector) = (server.address(), server.dialer().connector());
    let late = thread::spawn(move || {
        let mut client = connector.connect(address);
        serve(&mut client);
        client.close();
    });
    waiting(&server, 1);
    serve(&mut established);
    // Who waits holds nothing but a slot.
    assert_eq!(server.handshakes("1.3 full") + server.handshakes("1.3 resumed"), 1);
    drop(begun.pop());
    late.join().unwrap();
    drop(begun);
    established.close();
    server.expect_nothing_left();
    assert_eq!((server.failures("left"), server.failures("gave_way"), server.failures("timeout")), (4, 0, 0));
}

#[test]
fn slow_handshakes_give_way_to_those_that_wait_and_no_more_than_that() {
    let (server, mut established) = start("limits: { handshakes: 4 }\ntimeouts: { handshake: 10m }");
    let begun: Vec<Client> = (0..4).map(|_| begin(&server)).collect();
    in_progress(&server, 4);
    let mut client = server.connect();
    serve(&mut client);
    serve(&mut established);
    assert_eq!((server.failures("gave_way"), server.failures("left")), (1, 0));
    in_progress(&server, 3);
    drop(begun);
    client.close();
    established.close();
    server.expect_nothing_left();
}

#[test]
fn a_limit_holds_for_all_shards_together() {
    let (server, established) = start("shards: 2\nlimits: { handshakes: 2 }\ntimeouts: { handshake: 10m }");
    let begun: Vec<Client> = (0..20).map(|_| begin(&server)).collect();
    wait_until("all to be taken in", || {
        let metric = |name: &str| server.server.metric(&format!("webserver_tls_handshakes_{name}"));
        assert!(metric("in_progress") <= 2);
        metric("waiting") + metric("in_progress") + server.failures("gave_way") >= 20
    });
    drop(begun);
    established.close();
    server.expect_nothing_left();
}

#[test]
fn who_waits_and_leaves_is_forgotten() {
    let (server, mut established) = start("limits: { handshakes: 1 }\ntimeouts: { handshake: 10m }");
    let first = begin(&server);
    in_progress(&server, 1);
    let others: Vec<Client> = (0..50).map(|_| begin(&server)).collect();
    waiting(&server, 50);
    drop(others);
    // Their slots are free at once, and nobody gives way to them.
    wait_until("them to leave", || server.server.metric("webserver_connections_active") == 1);
    waiting(&server, 0);
    in_progress(&server, 1);
    assert_eq!((server.failures("left"), server.failures("gave_way")), (50, 0));
    serve(&mut established);
    drop(first);
    server.connect().close();
    established.close();
    server.expect_nothing_left();
}

/// Tells threads to end when it is dropped, be it by a panic.
pub struct Done<'a>(pub &'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

#[test]
fn established_connections_are_served_in_a_flood_of_handshakes() {
    const CLIENTS: usize = 300;
    let (server, mut established) = start("limits: { handshakes: 64 }");
    let (address, connector) = (server.address(), server.dialer().connector());
    let (hello, done) = (connector.hello(), AtomicBool::new(false));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut flood: Vec<Client> = Vec::new();
                while !done.load(Relaxed) {
                    let mut client = Client::connect(address);
                    // The server may have let it go by then.
                    let _ = client.stream.write_all(&hello);
                    flood.push(client);
                    if flood.len() == CLIENTS / 2 {
                        flood.clear();
                    }
                }
            });
        }
        let _done = Done(&done);
        server.server.await_metric("webserver_connections_accepted_total", CLIENTS as u64);
        for _ in 0..50 {
            serve(&mut established);
        }
        let mut newcomer = connector.connect(address);
        serve(&mut newcomer);
        newcomer.close();
    });
    established.close();
    server.expect_nothing_left();
}

#[test]
fn thousands_that_say_nothing_leave_nothing() {
    let (server, mut established) = start("timeouts: { handshake: 5s }");
    for round in 1..=20 {
        let silent: Vec<Client> = (0..100).map(|_| server.server.connect()).collect();
        serve(&mut established);
        drop(silent);
        server.server.await_metric("webserver_connections_accepted_total", 100 * round);
    }
    serve(&mut established);
    established.close();
    server.expect_nothing_left();
    assert_eq!(server.failures("left") + server.failures("timeout"), 2000);
}
