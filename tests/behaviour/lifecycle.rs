//! From start to stop: whatever clients do a server ends in time and leaves nothing behind; a drain loses nothing, a
//! reload changes everything at once or nothing at all.

use std::{
    fs,
    io::{ErrorKind as Io, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    sync::Arc,
    time::{Duration, Instant},
};

use webserver::{
    ErrorKind, Server,
    config::{Config, Level},
    server::{Options, State},
};

use crate::{
    harness::{Client, PATIENCE, TestServer, wait_until},
    system::{
        assert_left_nothing, assert_same, bound_receive_buffer, census, disk_folder, fork_and_wait, in_child,
        own_address, pattern, write_cold,
    },
};

/// More than sockets take in advance, so a download of it is in progress until it is read.
const LARGE_BYTES: usize = 16 << 20;

/// Time to drain in tests where something cannot be drained.
const SHORT: Duration = Duration::from_millis(100);
/// Who was answered longer ago is not waited for.
const LATELY: Duration = Duration::from_millis(1300);
/// Longer than a stop can take if nothing hangs, however busy the machine is.
const STOP_MAX: Duration = Duration::from_secs(10);

fn served() -> TestServer {
    served_with("")
}

/// A server of a small and a large file, on an address of its own: its port is nobody else's after it.
fn served_with(yaml: &str) -> TestServer {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a"), "a").unwrap();
    fs::write(folder.path().join("large"), &pattern()[..LARGE_BYTES]).unwrap();
    let (address, root) = (own_address(), folder.path().display());
    let text = format!("shards: 1\nlisten: [\"{address}:0\"]\nroutes: [{{ root: {root} }}]\n{yaml}\n");
    let mut server = TestServer::from_yaml(&text, folder);
    server.address.set_ip(address.into());
    server
}

fn idle(server: &TestServer) -> Client {
    let mut client = server.connect();
    assert_eq!(client.request("GET", "/a", "").body, b"a");
    client
}

/// A client that has asked for a file and reads no more of it than its head.
fn stalled(server: &TestServer, name: &str) -> Client {
    let mut client = server.connect();
    bound_receive_buffer(&client.stream);
    client.send(format!("GET /{name} HTTP/1.1\r\nHost: test\r\n\r\n"));
    assert_eq!(client.head_response().status, 200);
    client
}

/// A client that has asked very often and reads nothing.
fn pipelined(server: &TestServer) -> Client {
    let mut client = server.connect();
    bound_receive_buffer(&client.stream);
    client.stream.set_nonblocking(true).unwrap();
    let requests =
        "GET /large HTTP/1.1\r\nHost: test\r\n\r\nGET /a HTTP/1.1\r\nHost: test\r\n\r\n".repeat(1000);
    let mut sent = 0;
    while sent < requests.len() {
        match client.stream.write(&requests.as_bytes()[sent..]) {
            Ok(count) => sent += count,
            Err(error) if error.kind() == Io::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
    client.stream.set_nonblocking(false).unwrap();
    client
}

/// A client that has sent a part of a request.
fn half_sent(server: &TestServer, part: &str) -> Client {
    let received = server.metric("webserver_bytes_received_total");
    let mut client = server.connect();
    client.send(part);
    server.await_metric("webserver_bytes_received_total", received + part.len() as u64);
    client
}

const HALF_HEAD: &str = "GET /a HTTP/1.1\r\nHo";
const HALF_BODY: &str = "GET /a HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\n12345";

/// Stops and checks that it took no longer than it may.
fn stop_in_time(server: &TestServer, timeout: Duration) {
    let begun = Instant::now();
    server.server.stop(timeout).unwrap();
    assert!(begun.elapsed() < timeout + STOP_MAX, "{:?}", begun.elapsed());
    assert_eq!(server.server.stats().state, State::Stopped);
    await_refusal(server.address);
}

/// Waits until nobody listens: a process that another test starts has our sockets until it runs its program.
fn await_refusal(address: SocketAddr) {
    wait_until("connections to be refused", || TcpStream::connect(address).is_err());
}

#[test]
fn a_stop_is_in_time_whatever_clients_do_and_leaves_nothing() {
    in_child("lifecycle::stops");
}

#[test]
#[ignore = "run in a process of its own, which counts its descriptors and threads"]
fn stops() {
    pattern();
    drop(served());
    type Make = fn(&TestServer) -> Client;
    let kinds: [(&str, Make); 6] = [
        ("fresh", |server| server.connect()),
        ("idle", idle),
        ("half a head", |server| half_sent(server, HALF_HEAD)),
        ("half a body", |server| half_sent(server, HALF_BODY)),
        ("stalled", |server| stalled(server, "large")),
        ("pipelined", pipelined),
    ];
    let before = census();
    for timeout in [Duration::ZERO, SHORT] {
        for (kind, make) in kinds {
            let server = served();
            let clients: Vec<Client> = (0..5).map(|_| make(&server)).collect();
            stop_in_time(&server, timeout);
            drop((server, clients));
            assert_left_nothing(before, &format!("{kind}, {timeout:?}"));
        }
        let server = served();
        let clients: Vec<Client> = kinds.iter().map(|(_, make)| make(&server)).collect();
        stop_in_time(&server, timeout);
        assert_eq!(server.metric("webserver_executor_descriptors_left_total"), 0);
        drop((server, clients));
        assert_left_nothing(before, &format!("all kinds, {timeout:?}"));
    }
}

#[test]
fn a_stop_in_the_middle_of_cold_downloads_leaves_nothing() {
    in_child("lifecycle::cold_stops");
}

#[test]
#[ignore = "run in a process of its own, which counts its descriptors and threads"]
fn cold_stops() {
    drop(served());
    let before = census();
    for timeout in [Duration::ZERO, SHORT] {
        let folder = disk_folder();
        let path = folder.path().join("cold");
        if !write_cold(&path, pattern()) {
            return;
        }
        let root = folder.path().display();
        let text = format!("shards: 2\nlisten: [\"127.0.0.1:0\"]\nroutes: [{{ root: {root} }}]\n");
        let server = TestServer::from_yaml(&text, folder);
        let clients: Vec<Client> = (0..40)
            .map(|number| {
                let mut client = server.connect();
                bound_receive_buffer(&client.stream);
                let first = number * 400_001;
                client.send(format!("GET /cold HTTP/1.1\r\nHost: test\r\nRange: bytes={first}-\r\n\r\n"));
                client
            })
            .collect();
        server.await_metric("webserver_cold_reads_total", 20);
        stop_in_time(&server, timeout);
        drop((server, clients));
        assert_left_nothing(before, &format!("a stop within {timeout:?}"));
    }
}

#[test]
fn fifty_servers_one_after_another_leave_nothing() {
    in_child("lifecycle::fifty");
}

#[test]
#[ignore = "run in a process of its own, which counts its descriptors and threads"]
fn fifty() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a"), "a").unwrap();
    let mut config = Config::new();
    config.load_yaml("shards: 2\nlisten: [\"127.0.0.1:0\"]").unwrap();
    config.set_root(folder.path()).unwrap();
    let round = |number: usize| {
        let server = Server::start(&config).unwrap();
        let mut client = Client::connect(([127, 0, 0, 1], server.port(None).unwrap()).into());
        assert_eq!(client.request("GET", "/a", "").body, b"a");
        // A drain would wait a moment for its next request.
        drop(client);
        match number % 3 {
            0 => server.stop(PATIENCE).unwrap(),
            1 => server.stop(Duration::ZERO).unwrap(),
            _ => drop(server),
        }
    };
    round(0);
    let before = census();
    for number in 0..50 {
        round(number);
        assert_left_nothing(before, &format!("server {number}"));
    }
}

#[test]
fn many_servers_that_start_and_stop_at_once_leave_nothing() {
    in_child("lifecycle::at_once");
}

#[test]
#[ignore = "run in a process of its own, which counts its descriptors and threads"]
fn at_once() {
    drop(served());
    let before = census();
    for _ in 0..3 {
        std::thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| {
                    let server = TestServer::start("shards: 2", &[("a", b"a")]);
                    assert_eq!(server.get("/a").body, b"a");
                    server.server.stop(PATIENCE).unwrap();
                });
            }
        });
    }
    assert_left_nothing(before, "the last server");
}

#[test]
fn two_servers_in_a_process_know_nothing_of_each_other() {
    let first = served();
    let second = TestServer::with_files(&[("a", b"second"), ("b", b"b")]);
    let mut kept = second.connect();
    assert_eq!(kept.request("GET", "/a", "").body, b"second");
    assert_eq!(first.get("/a").body, b"a");
    assert_eq!(first.get("/b").status, 404);
    stop_in_time(&first, PATIENCE);
    assert_eq!(kept.request("GET", "/b", "").body, b"b");
    assert_eq!(second.get("/a").body, b"second");
    assert_eq!(second.server.stats().state, State::Running);
    assert!(second.metric("webserver_requests_total{status=\"200\"}") >= 2);
}

#[test]
fn stopping_again_does_nothing_and_nothing_starts_again() {
    let server = served();
    server.server.stop(PATIENCE).unwrap();
    server.server.stop(PATIENCE).unwrap();
    server.server.stop(Duration::ZERO).unwrap();
    server.server.drain();
    assert!(server.server.drained());
    let mut config = Config::new();
    config.load_yaml("listen: [\"127.0.0.1:0\"]").unwrap();
    assert_eq!(server.server.reload(&config).unwrap_err().kind(), ErrorKind::State);
    assert!(server.server.metrics_text().contains("webserver_requests_total"));
}

#[test]
fn two_threads_may_stop_a_server() {
    let server = served();
    let _stalled = stalled(&server, "large");
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| server.server.stop(SHORT).unwrap());
        }
    });
    assert_eq!(server.server.stats().state, State::Stopped);
}

#[test]
fn a_server_that_is_dropped_is_stopped() {
    let server = served();
    let address = server.address;
    let (mut idle, mut stalled) = (idle(&server), stalled(&server, "large"));
    drop(server);
    idle.expect_close();
    assert!(stalled.rest().len() < LARGE_BYTES);
    await_refusal(address);
}

#[test]
fn a_stop_without_time_cuts_at_once() {
    let server = served();
    let mut clients = [stalled(&server, "large"), half_sent(&server, HALF_HEAD), idle(&server)];
    stop_in_time(&server, Duration::ZERO);
    assert!(clients.each_mut().iter_mut().all(|client| client.rest().len() < LARGE_BYTES));
    assert_eq!(server.metric("webserver_responses_cut_total"), 1);
    assert_eq!(server.metric("webserver_connections_active"), 0);
    assert_eq!(server.metric("webserver_connections_idle"), 0);
}

#[test]
fn a_stop_while_clients_keep_coming_is_in_time() {
    let server = served();
    let address = server.address;
    let (sender, answered) = std::sync::mpsc::channel();
    let clients: Vec<_> = (0..3)
        .map(|_| {
            let sender = sender.clone();
            std::thread::spawn(move || {
                while let Ok(mut stream) = TcpStream::connect(address) {
                    let _ = stream.write_all(b"GET /a HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
                    let mut response = Vec::new();
                    let _ = stream.read_to_end(&mut response);
                    let _ = sender.send(response.len());
                }
            })
        })
        .collect();
    for _ in 0..20 {
        answered.recv_timeout(PATIENCE).unwrap();
    }
    stop_in_time(&server, PATIENCE);
    clients.into_iter().for_each(|client| client.join().unwrap());
    assert_eq!(server.metric("webserver_panics_total"), 0);
}

#[test]
fn a_drain_lets_downloads_end_and_everybody_else_go() {
    let server = served_with("admin: { address: \"127.0.0.1:0\" }\nlimits: { body_bytes: 1MB }");
    let admin = server.server.port(Some("admin")).unwrap();
    let mut health = Client::connect(([127, 0, 0, 1], admin).into());
    assert_eq!(health.request("GET", "/healthz", "").status, 200);
    let mut download = stalled(&server, "large");
    let mut idle = idle(&server);
    let mut head = half_sent(&server, HALF_HEAD);
    let mut body = half_sent(&server, HALF_BODY);
    let mut fresh = server.connect();
    let accepted = "webserver_connections_accepted_total";
    wait_until("all to be accepted", || server.metric(accepted) == 6);

    server.server.drain();
    idle.expect_close();
    await_refusal(server.address);
    assert_eq!(server.server.stats().state, State::Draining);
    let response = health.request("GET", "/healthz", "");
    assert_eq!((response.status, response.body.as_slice()), (503, &b"draining\n"[..]));

    // Requests that were begun are answered, and are the last ones.
    head.send("st: test\r\n\r\n");
    body.send("67890");
    for client in [&mut head, &mut body] {
        let response = client.response();
        assert_eq!((response.status, response.body.as_slice()), (200, &b"a"[..]));
        assert_eq!(response.field("connection"), Some("close"));
        client.expect_close();
    }
    // Who never asked for anything is let go after a moment.
    fresh.expect_close();
    assert!(!server.server.drained());
    while download.received.len() < LARGE_BYTES {
        assert!(download.receive() > 0);
    }
    assert_same("download", &download.received, &pattern()[..LARGE_BYTES]);
    download.received.clear();
    // It was begun before the drain, so it says nothing about its end: the connection just ends.
    download.expect_close();
    drop(health);
    wait_until("the shards to end", || server.server.drained());
    server.server.stop(Duration::ZERO).unwrap();
    assert_eq!(server.metric("webserver_responses_cut_total"), 0);
}

#[test]
fn a_drain_answers_what_came_behind_a_download() {
    let server = served();
    let received = "webserver_bytes_received_total";
    let mut client = server.connect();
    bound_receive_buffer(&client.stream);
    let requests = "GET /large HTTP/1.1\r\nHost: test\r\n\r\nGET /a HTTP/1.1\r\nHost: test\r\n\r\n";
    client.send(requests);
    assert_eq!(client.head_response().status, 200);
    server.await_metric(received, requests.len() as u64);
    server.server.drain();
    await_refusal(server.address);
    while client.received.len() < LARGE_BYTES {
        assert!(client.receive() > 0);
    }
    assert_same("download", &client.received[..LARGE_BYTES], &pattern()[..LARGE_BYTES]);
    client.received.drain(..LARGE_BYTES);
    let response = client.response();
    assert_eq!((response.body.as_slice(), response.field("connection")), (&b"a"[..], Some("close")));
    client.expect_close();
    wait_until("the shard to end", || server.server.drained());
}

#[test]
fn a_drain_tells_who_has_sent_requests_ahead() {
    let server = served();
    // More than a turn answers and than sockets take, and less than is thrown away for a client that has to go.
    const REQUEST: &[u8] = b"GET /a HTTP/1.1\r\nHost: test\r\n\r\n";
    let mut clients: Vec<Client> = (0..6).map(|_| server.connect()).collect();
    let mut writers = Vec::new();
    for client in &clients {
        let mut stream = client.stream.try_clone().unwrap();
        writers.push(std::thread::spawn(move || stream.write_all(&REQUEST.repeat(20_000))));
    }
    server.await_metric("webserver_requests_total{status=\"200\"}", 1000);
    server.server.drain();
    for client in &mut clients {
        loop {
            let response = client.response();
            assert_eq!(response.body, b"a");
            if response.field("connection") == Some("close") {
                break;
            }
        }
        client.expect_finish();
    }
    drop(clients);
    for writer in writers {
        // It may be told that nobody reads any more.
        let _ = writer.join().unwrap();
    }
    wait_until("the shard to end", || server.server.drained());
}

#[test]
fn a_drain_answers_the_next_request_of_who_was_answered_lately() {
    let server = served();
    let mut clients: Vec<Client> = (0..20).map(|_| idle(&server)).collect();
    let address = server.address;
    // Some are in the middle of asking again and again when it begins.
    let asking: Vec<_> = (0..4)
        .map(|_| {
            let (sender, begun) = std::sync::mpsc::channel();
            let thread = std::thread::spawn(move || {
                let mut client = Client::connect(address);
                loop {
                    let response = client.request("GET", "/a", "");
                    assert_eq!((response.status, response.body.as_slice()), (200, &b"a"[..]));
                    if response.field("connection") == Some("close") {
                        return client.expect_finish();
                    }
                    let _ = sender.send(());
                }
            });
            begun.recv_timeout(PATIENCE).unwrap();
            thread
        })
        .collect();
    server.server.drain();
    await_refusal(address);
    for client in clients.iter_mut().step_by(2) {
        let response = client.request("GET", "/a", "");
        assert_eq!((response.status, response.field("connection")), (200, Some("close")));
        client.expect_finish();
    }
    // Those who have nothing to ask are let go in order.
    for client in clients.iter_mut().skip(1).step_by(2) {
        client.expect_finish();
    }
    asking.into_iter().for_each(|thread| thread.join().unwrap());
    wait_until("the shard to end", || server.server.drained());
    assert_eq!(server.metric("webserver_timeouts_total{kind=\"idle\"}"), 0);
}

#[test]
fn a_drain_does_not_wait_for_who_was_idle_for_long() {
    let server = served();
    let mut clients: Vec<Client> = (0..5).map(|_| idle(&server)).collect();
    std::thread::sleep(LATELY);
    let begun = Instant::now();
    server.server.stop(PATIENCE).unwrap();
    assert!(begun.elapsed() < LATELY, "{:?}", begun.elapsed());
    clients.iter_mut().for_each(Client::expect_finish);
}

#[test]
fn connections_that_wait_to_be_accepted_are_served_in_a_drain() {
    let server = served();
    let mut clients: Vec<Client> = (0..50).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send("GET /a HTTP/1.1\r\nHost: test\r\n\r\n");
    }
    server.server.drain();
    for client in &mut clients {
        assert_eq!(client.response().body, b"a");
    }
    stop_in_time(&server, PATIENCE);
}

/// A server of two folders `one` and `two`, of which it serves the first, and how to serve another.
fn reloadable(shards: usize) -> (TestServer, impl Fn(&str, &str) -> Config) {
    let folder = tempfile::tempdir().unwrap();
    for name in ["one", "two"] {
        fs::create_dir(folder.path().join(name)).unwrap();
        fs::write(folder.path().join(name).join("a"), name).unwrap();
    }
    fs::write(folder.path().join("one/large"), &pattern()[..LARGE_BYTES]).unwrap();
    let base = folder.path().to_owned();
    let text = move |name: &str, more: &str| {
        let head = if more.contains("shards:") { String::new() } else { format!("shards: {shards}\n") };
        let listen = if more.contains("listen:") { "" } else { "listen: [\"127.0.0.1:0\"]\n" };
        format!("{head}{listen}routes: [{{ root: {} }}]\n{more}\n", base.join(name).display())
    };
    let server = TestServer::from_yaml(&text("one", ""), folder);
    let configure = move |name: &str, more: &str| {
        let mut config = Config::new();
        config.load_yaml(&text(name, more)).unwrap();
        config
    };
    (server, configure)
}

#[test]
fn a_reload_changes_what_is_served_and_loses_no_connection() {
    let (server, configure) = reloadable(2);
    let mut clients: Vec<Client> = (0..8).map(|_| server.connect()).collect();
    for client in &mut clients {
        assert_eq!(client.request("GET", "/a", "").body, b"one");
    }
    let mut download = stalled(&server, "large");
    let mut half = half_sent(&server, HALF_HEAD);
    server.server.reload(&configure("two", "")).unwrap();
    for client in &mut clients {
        wait_until("the other folder", || client.request("GET", "/a", "").body == b"two");
        assert_eq!(client.request("GET", "/large", "").status, 404);
    }
    half.send("st: test\r\n\r\n");
    assert_eq!(half.response().body, b"two");
    while download.received.len() < LARGE_BYTES {
        assert!(download.receive() > 0);
    }
    assert_same("download", &download.received, &pattern()[..LARGE_BYTES]);
    download.received.clear();
    assert_eq!(download.request("GET", "/a", "").body, b"two");
    assert_eq!(server.metric("webserver_connections_closed_total"), 0);
}

#[test]
fn a_reload_changes_limits_and_timeouts() {
    let (server, configure) = reloadable(1);
    let long = format!("X-Long: {}\r\n", "x".repeat(2000));
    let mut before = server.connect();
    assert_eq!(before.request("GET", "/a", &long).status, 200);
    let limits = "limits: { header_bytes: 1KB, requests_per_connection: 2 }\ntimeouts: { idle: 50ms }";
    server.server.reload(&configure("one", limits)).unwrap();
    wait_until("the new limits", || server.request("GET", "/a", &long).status == 431);
    // The new limit counts what came before it.
    let response = before.request("GET", "/a", "");
    assert_eq!((response.status, response.field("connection")), (200, Some("close")));
    before.expect_close();
    let mut client = server.connect();
    assert_eq!(client.request("GET", "/a", "").field("connection"), None);
    client.expect_close();
    assert!(server.metric("webserver_timeouts_total{kind=\"idle\"}") >= 1);
    server.server.reload(&configure("one", "")).unwrap();
    wait_until("the old limits", || server.request("GET", "/a", &long).status == 200);
}

#[test]
fn a_request_in_progress_ends_under_the_limits_it_began_with() {
    let (server, configure) = reloadable(1);
    let fields = "X: y\r\n".repeat(20);
    let mut client = half_sent(
        &server,
        &format!("GET /a HTTP/1.1\r\nHost: test\r\n{fields}Content-Length: 10\r\n\r\n12345"),
    );
    server.server.reload(&configure("one", "limits: { headers: 10 }")).unwrap();
    wait_until("the new limits", || server.request("GET", "/a", &fields).status == 431);
    client.send("67890");
    let response = client.response();
    assert_eq!((response.status, response.body.as_slice()), (200, &b"one"[..]));
    // The next request is under the new ones.
    assert_eq!(client.request("GET", "/a", &fields).status, 431);
}

#[test]
fn a_reload_that_fails_changes_nothing() {
    let (server, configure) = reloadable(2);
    let mut client = server.connect();
    assert_eq!(client.request("GET", "/a", "").body, b"one");
    let error = server.server.reload(&configure("missing", "limits: { header_bytes: 1KB }")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.message().contains("missing"), "{error}");
    let refused = [
        ("listen", "listen: [\"127.0.0.2:0\"]"),
        ("listen", "listen: [\"127.0.0.1:0\", \"127.0.0.2:0\"]"),
        ("shards", "shards: 3"),
        ("pin_shards", "pin_shards: true"),
        ("admin.address", "admin: { address: \"127.0.0.1:0\" }"),
        ("memory.raise_nofile", "memory: { raise_nofile: true }"),
    ];
    for (key, more) in refused {
        let error = server.server.reload(&configure("two", more)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{key}");
        assert!(error.message().starts_with(key), "{key}: {error}");
    }
    let long = format!("X-Long: {}\r\n", "x".repeat(2000));
    assert_eq!(client.request("GET", "/a", &long).body, b"one");
    assert_eq!(server.get("/a").body, b"one");
    assert_eq!(server.server.settings().limits.header_bytes, 32 << 10);
}

#[test]
fn a_reload_that_a_shard_does_not_answer_changes_nothing() {
    let (release, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let told = Arc::new(std::sync::Mutex::new(Vec::new()));
    let lines = Arc::clone(&told);
    let options = Options {
        log: Some(Arc::new(move |_, _: &str, message: &str| {
            // Holds up the one shard that says this, before it serves anything.
            if message.starts_with("accepting shard=1") {
                let _ = wait.lock().unwrap().recv_timeout(PATIENCE);
            }
            lines.lock().unwrap().push(message.to_owned());
        })),
        log_level: Some(Level::Info),
        ..Options::default()
    };
    let folder = tempfile::tempdir().unwrap();
    let root = |name: &str| {
        fs::create_dir_all(folder.path().join(name)).unwrap();
        fs::write(folder.path().join(name).join("a"), name).unwrap();
        let mut config = Config::new();
        config.load_yaml("shards: 2\nlisten: [\"127.0.0.1:0\"]").unwrap();
        config.set_root(&folder.path().join(name)).unwrap();
        config
    };
    let server = Server::start_with(&root("one"), options).unwrap();
    let error = server.reload(&root("two")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    release.send(()).unwrap();
    let ask = || {
        let mut client = Client::connect(([127, 0, 0, 1], server.port(None).unwrap()).into());
        String::from_utf8(client.request("GET", "/a", "").body).unwrap()
    };
    for _ in 0..20 {
        assert_eq!(ask(), "one");
    }
    assert!(server.settings().to_yaml().contains("/one"));
    server.reload(&root("two")).unwrap();
    for _ in 0..20 {
        assert_eq!(ask(), "two");
    }
    server.reload(&root("two")).unwrap();
    let told: Vec<String> =
        told.lock().unwrap().iter().filter(|line| line.starts_with("reloaded")).cloned().collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].starts_with("reloaded: routes: / root ") && told[0].ends_with("/two"), "{told:?}");
    assert_eq!(told[1], "reloaded: nothing has changed");
}

#[test]
fn a_reload_makes_room_for_more_connections_and_for_fewer() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a"), "a").unwrap();
    let root = folder.path().display();
    let yaml = |count: usize| {
        format!(
            "shards: 1\nlisten: [\"127.0.0.1:0\"]\nroutes: [{{ root: {root} }}]\n\
             memory: {{ worker_connections: {count}, open_file_cache: 16 }}\n"
        )
    };
    let server = TestServer::from_yaml(&yaml(2), tempfile::tempdir().unwrap());
    let connections = |count: usize| {
        let mut config = Config::new();
        config.load_yaml(&yaml(count)).unwrap();
        server.server.reload(&config).unwrap();
    };
    let answer = |client: &mut Client| client.request("GET", "/a", "").status;
    let mut clients: Vec<Client> = (0..2).map(|_| server.connect()).collect();
    assert!(clients.iter_mut().all(|client| answer(client) == 200));
    assert_eq!(server.connect().response().status, 503);
    // More than there were slots for at the start.
    connections(250);
    clients.extend((0..248).map(|_| server.connect()));
    assert!(clients.iter_mut().all(|client| answer(client) == 200));
    assert_eq!(server.connect().response().status, 503);
    // Fewer than there are: nobody is thrown out, and nobody comes in.
    connections(1);
    assert!(clients.iter_mut().step_by(50).all(|client| answer(client) == 200));
    assert_eq!(server.connect().response().status, 503);
    clients.clear();
    server.await_no_connections();
    let mut client = server.connect();
    assert_eq!(answer(&mut client), 200);
    assert_eq!(server.connect().response().status, 503);
}

#[test]
fn a_reload_during_a_drain_is_refused_and_harmless() {
    let (server, configure) = reloadable(2);
    let mut download = stalled(&server, "large");
    server.server.drain();
    assert_eq!(server.server.reload(&configure("two", "")).unwrap_err().kind(), ErrorKind::State);
    while download.received.len() < LARGE_BYTES {
        assert!(download.receive() > 0);
    }
    assert_same("download", &download.received, &pattern()[..LARGE_BYTES]);
    wait_until("the shards to end", || server.server.drained());
}

#[test]
fn many_reloads_under_load_answer_every_request() {
    let (server, configure) = reloadable(2);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = server.connect();
                    for _ in 0..500 {
                        let body = client.request("GET", "/a", "").body;
                        assert!(body == b"one" || body == b"two");
                    }
                })
            })
            .collect();
        let mut number = 0;
        while !clients.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            number += 1;
            server.server.reload(&configure(["one", "two"][number % 2], "")).unwrap();
        }
    });
    assert_eq!(server.metric("webserver_panics_total"), 0);
}

#[test]
fn a_start_does_not_interrupt_the_caller_s_next_call() {
    let (mut stream, _other) = UnixStream::pair().unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(30))).unwrap();
    for _ in 0..5 {
        let server = TestServer::with_files(&[]);
        let error = stream.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), Io::WouldBlock, "{error}");
        drop(server);
        let error = stream.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), Io::WouldBlock, "{error}");
    }
}

#[test]
fn a_fork_cannot_use_its_parent_s_server() {
    in_child("lifecycle::forked");
}

#[test]
#[ignore = "run in a process of its own, which forks"]
fn forked() {
    let server = served();
    let mut client = idle(&server);
    let mut config = Config::new();
    config.load_yaml("listen: [\"127.0.0.1:0\"]").unwrap();
    let answers_forked = fork_and_wait(|| {
        let stopped = server.server.stop(Duration::ZERO);
        let reloaded = server.server.reload(&config);
        let forked =
            |result: webserver::Result<()>| result.is_err_and(|error| error.kind() == ErrorKind::Forked);
        forked(stopped) && forked(reloaded)
    });
    assert!(answers_forked);
    assert_eq!(client.request("GET", "/a", "").body, b"a");
    stop_in_time(&server, PATIENCE);
}
