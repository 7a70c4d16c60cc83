//! The life of a connection: how long it is kept, how it ends, and that connections do not get into each other's way.

use std::{
    io::{Read, Write},
    sync::atomic::{AtomicBool, Ordering},
};

use crate::{
    harness::{Client, TestServer, content, wait_until},
    hello::{GET, RECEIVED, expect_usable, server},
};

#[test]
fn keeps_a_connection_through_successes_and_failures() {
    let server = server();
    let mut client = server.connect();
    for _ in 0..100 {
        assert_eq!(client.ask("GET /missing HTTP/1.1\r\nHost: test\r\n\r\n").status, 404);
        expect_usable(&mut client);
    }
    assert_eq!(server.metric("webserver_connections_accepted_total"), 1);
    wait_until("the connection to be idle", || server.metric("webserver_connections_idle") == 1);
    assert_eq!(server.metric("webserver_connections_active"), 0);
    drop(client);
    server.await_no_connections();
}

#[test]
fn a_response_that_ends_a_turn_goes_to_its_own_client() {
    // A connection may answer 64 requests before others get their turn; the 64th is a file here, whose head waits
    // for its first bytes. Others are ready at the same time and must not get what was collected.
    let large = content(200 << 10);
    let server = TestServer::with_files(&[("a.txt", b"hello"), ("large", &large)]);
    let mut clients: Vec<Client> = (0..8).map(|_| server.connect()).collect();
    // Content is kept in memory from the second use on: only then are answers collected.
    for _ in 0..3 {
        expect_usable(&mut clients[0]);
    }
    let turn = format!("{}GET /large HTTP/1.1\r\nHost: test\r\n\r\n", GET.repeat(63));
    for _ in 0..10 {
        for client in &mut clients {
            client.send(&turn);
        }
        for client in &mut clients {
            for _ in 0..63 {
                assert_eq!(client.response().body, b"hello");
            }
            assert!(client.response().body == large, "the file came changed");
        }
    }
}

#[test]
fn a_client_that_sends_a_body_without_end_does_not_stop_others() {
    let server = TestServer::start("limits: { body_bytes: 0 }", &[("a.txt", b"hello")]);
    let mut other = server.connect();
    expect_usable(&mut other);
    let mut sender = server.connect();
    sender.send("POST /a.txt HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n");
    let chunk = [b"10000\r\n".as_slice(), &content(64 << 10), b"\r\n"].concat().repeat(8);
    let served = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !served.load(Ordering::Relaxed) {
                sender.send(&chunk);
            }
        });
        for _ in 0..100 {
            expect_usable(&mut other);
        }
        served.store(true, Ordering::Relaxed);
    });
    sender.send("0\r\n\r\n");
    assert_eq!(sender.response().status, 405);
    expect_usable(&mut sender);
}

#[test]
fn a_client_that_takes_all_it_can_get_does_not_stop_others() {
    let large = content(16 << 20);
    let server = TestServer::with_files(&[("a.txt", b"hello"), ("large", &large)]);
    let mut other = server.connect();
    expect_usable(&mut other);
    let mut taker = server.connect();
    let served = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut buffer = vec![0; 256 << 10];
            taker.send("GET /large HTTP/1.1\r\nHost: test\r\n\r\n".repeat(1000));
            while !served.load(Ordering::Relaxed) {
                assert!(taker.stream.read(&mut buffer).unwrap() > 0);
            }
        });
        for _ in 0..100 {
            expect_usable(&mut other);
        }
        served.store(true, Ordering::Relaxed);
    });
}

#[test]
fn http10_closes_unless_asked_to_keep() {
    let server = server();
    let mut client = server.connect();
    let response = client.ask("GET /a.txt HTTP/1.0\r\n\r\n");
    assert_eq!((response.status, response.body.as_slice()), (200, &b"hello"[..]));
    assert_eq!(response.status_line, "HTTP/1.1 200 OK");
    assert_eq!(response.field("connection"), Some("close"));
    client.expect_finish();

    let mut client = server.connect();
    for _ in 0..3 {
        let response = client.ask("GET /a.txt HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n");
        assert_eq!((response.status, response.body.as_slice()), (200, &b"hello"[..]));
        assert_eq!(response.field("connection"), Some("keep-alive"));
    }
    assert_eq!(client.ask("GET /a.txt HTTP/1.0\r\n\r\n").field("connection"), Some("close"));
    client.expect_finish();
}

#[test]
fn the_connection_field_decides_about_the_connection() {
    let server = server();
    let cases = [
        ("1.1", "", true),
        ("1.1", "Connection: keep-alive\r\n", true),
        ("1.1", "Connection: close\r\n", false),
        ("1.1", "cOnNeCtIoN:CLOSE\r\n", false),
        ("1.1", "Connection: keep-alive, close\r\n", false),
        ("1.1", "Connection: close, keep-alive\r\n", false),
        ("1.1", "Connection: upgrade ,\tClose ,x\r\n", false),
        ("1.1", "Connection: keep-alive\r\nConnection: close\r\n", false),
        ("1.1", "Connection: close\r\nX: y\r\nConnection: keep-alive\r\n", false),
        ("1.1", "Connection: closed, x-close\r\n", true),
        ("1.1", "Connection: ,, ,\r\n", true),
        ("1.1", "Connection:\r\n", true),
        ("1.1", "Proxy-Connection: close\r\n", true),
        ("1.0", "", false),
        ("1.0", "Connection: keep-alive\r\n", true),
        ("1.0", "Connection: x, Keep-Alive\r\n", true),
        ("1.0", "Connection: x\r\nConnection: keep-alive\r\n", true),
        ("1.0", "Connection: keep-alive, close\r\n", false),
        ("1.0", "Connection: keep-alives\r\n", false),
    ];
    for (version, fields, kept) in cases {
        let mut client = server.connect();
        let response = client.ask(format!("GET /a.txt HTTP/{version}\r\nHost: test\r\n{fields}\r\n"));
        assert_eq!((response.status, response.body.as_slice()), (200, &b"hello"[..]));
        let said = response.field("connection");
        if kept {
            assert_eq!(said, (version == "1.0").then_some("keep-alive"), "{version} {fields:?}");
            expect_usable(&mut client);
        } else {
            assert_eq!(said, Some("close"), "{version} {fields:?}");
            client.expect_finish();
        }
    }
}

#[test]
fn what_follows_a_last_request_is_not_answered() {
    let large = content(5 << 20);
    let server = TestServer::with_files(&[("a.txt", b"hello"), ("large", &large)]);
    for target in ["/a.txt", "/large", "/missing"] {
        let mut client = server.connect();
        let last = format!("GET {target} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        client.send(format!("{GET}{last}{GET}{GET}"));
        assert_eq!(client.response().body, b"hello");
        let response = client.response();
        assert_eq!(response.field("connection"), Some("close"));
        assert!(target != "/large" || response.body == large);
        client.expect_finish();
    }
}

#[test]
fn half_closed_clients_are_answered() {
    let large = content(3 << 20);
    let server = TestServer::with_files(&[("a.txt", b"hello"), ("large", &large)]);
    for round in 0..50 {
        let mut client = server.connect();
        client.send(GET);
        client.finish();
        assert_eq!(client.response().body, b"hello", "round {round}");
        client.expect_finish();
    }
    for round in 0..50 {
        let mut client = server.connect();
        expect_usable(&mut client);
        // The server owes an acknowledgement that it does not send at once, so what is written while a first part
        // is under way waits, and the end of the stream joins it in its segment.
        client.stream.set_nodelay(false).unwrap();
        client.send(&GET[..9]);
        client.send(&GET[9..]);
        client.finish();
        assert_eq!(client.response().body, b"hello", "round {round}");
        client.expect_finish();
    }
    for _ in 0..5 {
        let mut client = server.connect();
        client.send(format!("{GET}GET /large HTTP/1.1\r\nHost: test\r\n\r\n{GET}"));
        client.finish();
        assert_eq!(client.response().body, b"hello");
        assert!(client.response().body == large);
        assert_eq!(client.response().body, b"hello");
        client.expect_finish();
    }
    server.await_no_connections();
    assert_eq!(server.metric("webserver_connections_closed_total"), 105);
}

#[test]
fn half_closed_clients_are_answered_after_a_body_and_behind_a_new_file() {
    let server = server();
    for round in 0..50 {
        let name = format!("new-{round}.txt");
        server.write(&name, b"fresh");
        let mut client = server.connect();
        client.send(format!("GET /{name} HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\nbo"));
        client.send("dy");
        client.finish();
        assert_eq!(client.response().body, b"fresh", "round {round}");
        client.expect_finish();
    }
    server.await_no_connections();
}

#[test]
fn clients_that_leave_in_the_middle_leave_nothing() {
    let large = content(8 << 20);
    let server = TestServer::with_files(&[("a.txt", b"hello"), ("large", &large)]);
    let mut other = server.connect();
    expect_usable(&mut other);
    let partial = [
        "",
        "GE",
        "GET /a.txt HTTP/1.1\r\nHost: te",
        "POST /a.txt HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nabc",
        "POST /a.txt HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        "GET /large HTTP/1.1\r\nHost: test\r\n\r\n",
    ];
    let mut closed = 0;
    for bytes in partial {
        for half in [false, true] {
            let before = server.metric(RECEIVED);
            let mut client = server.connect();
            client.send(bytes);
            server.await_metric(RECEIVED, before + bytes.len() as u64);
            if half {
                client.finish();
                client.rest();
            }
            drop(client);
            closed += 1;
            server.await_metric("webserver_connections_closed_total", closed);
            expect_usable(&mut other);
        }
    }
    drop(other);
    server.await_no_connections();
}

#[test]
fn a_response_is_not_lost_to_what_its_client_still_sends() {
    let large = content(2 << 20);
    let server = TestServer::with_files(&[("a.txt", b"hello"), ("large", &large)]);
    let garbage = content(700_000);
    let last = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    for (request, status) in [
        (last("/a.txt"), 200),
        (last("/large"), 200),
        (last("/missing"), 404),
        ("GET /a.txt HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("POST /a.txt HTTP/1.1\r\nHost: test\r\nContent-Length: 99999999999\r\n\r\n".to_owned(), 413),
    ] {
        // Behind the request in one write: more than the server reads at once.
        let mut client = server.connect();
        client.send([request.as_bytes(), &garbage].concat());
        let response = client.response();
        assert_eq!(response.status, status);
        assert!(!request.contains("/large") || response.body == large);
        client.expect_finish();
    }
    server.await_no_connections();
}

#[test]
fn a_client_that_never_stops_sending_after_its_last_response_is_cut() {
    let server = server();
    let mut client = server.connect();
    client.send("GET /a.txt HTTP/1.1\r\n\r\n");
    assert_eq!(client.response().status, 400);
    let garbage = content(64 << 10);
    let mut sent = 0;
    while client.stream.write_all(&garbage).is_ok() {
        sent += garbage.len();
        assert!(sent < 256 << 20, "never cut");
    }
    server.await_no_connections();
}

#[test]
fn a_response_under_way_survives_bytes_that_come_after_the_last_request() {
    // All of it fits the sockets of both sides, so the server has nothing left to do before the client has read it.
    let large = content(1 << 20);
    let server = TestServer::with_files(&[("a.txt", b"hello"), ("large", &large)]);
    for (target, body) in [("/a.txt", &b"hello"[..]), ("/large", &large)] {
        let sent = server.metric("webserver_bytes_sent_total");
        let mut client = server.connect();
        client.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"));
        server.await_metric("webserver_bytes_sent_total", sent + body.len() as u64);
        // Sent to a closed socket these would be answered with a reset, which throws away what was not received.
        for _ in 0..5 {
            let _ = client.try_send(GET);
        }
        assert!(client.response().body == body, "the file came changed");
    }
    server.await_no_connections();
}

#[test]
fn a_request_behind_a_body_is_seen_whatever_another_client_sent_meanwhile() {
    let server = server();
    let post = "POST /a.txt HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\n";
    let partial = format!("GET /a.txt HTTP/1.1\r\nHost: test\r\nX: {}", "x".repeat(200));
    let mut client = server.connect();
    // Lengths round that of what stands behind the body.
    for length in GET.len() - 3..GET.len() + 3 {
        let before = server.metric(RECEIVED);
        client.send(post);
        server.await_metric(RECEIVED, before + post.len() as u64);
        let mut other = server.connect();
        other.send(&partial[..length]);
        server.await_metric(RECEIVED, before + (post.len() + length) as u64);
        client.send(format!("body{GET}"));
        assert_eq!([405, 200], [client.response().status, client.response().status]);
    }
}
