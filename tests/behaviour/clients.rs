//! Limits of one client and of one listener, over all shards: at the maximum, one past it, after it was passed, and
//! while a reload changes them.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use webserver::config::Config;

use crate::{
    harness::{Client, PATIENCE, Response, TestServer, wait_until},
    system::connect_from,
};

const GET: &str = "GET /a.txt HTTP/1.1\r\nHost: test\r\n\r\n";
const PER_IP: &str = "webserver_connections_shed_total{reason=\"per_ip\"}";
const LISTENER: &str = "webserver_connections_shed_total{reason=\"listener\"}";
const LIMITED: &str = "webserver_requests_limited_total";

const ONE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 21);
const OTHER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 22);

fn server(shards: usize, limits: &str) -> TestServer {
    TestServer::start(&format!("shards: {shards}\nlimits: {{ {limits} }}"), &[("a.txt", b"hello")])
}

/// The configuration of such a server with other limits, or with more keys of its listener.
fn reload(server: &TestServer, shards: usize, limits: &str, listener: &str) {
    let root = server.folder.path().display();
    let mut config = Config::new();
    let text = format!(
        "shards: {shards}\nlisten: [{{ address: \"127.0.0.1:0\"{listener} }}]\nroutes: [{{ root: {root} }}]\n\
         limits: {{ {limits} }}\n"
    );
    config.load_yaml(&text).unwrap();
    server.server.reload(&config).unwrap();
}

fn from(source: Ipv4Addr, server: &TestServer) -> Client {
    Client::from(connect_from(source, server.address))
}

/// A connection that is served.
fn served(source: Ipv4Addr, server: &TestServer) -> Client {
    let mut client = from(source, server);
    expect_served(&mut client);
    client
}

fn expect_served(client: &mut Client) {
    let response = client.ask(GET);
    assert_eq!((response.status, response.body.as_slice()), (200, &b"hello"[..]));
}

fn expect_shed(mut client: Client) {
    let response = client.response();
    assert_eq!((response.status, response.field("connection")), (503, Some("close")));
    assert!(response.field("retry-after").unwrap().parse::<u32>().unwrap() > 0);
    client.expect_finish();
}

fn expect_limited(response: &Response) {
    assert_eq!((response.status, response.field("connection")), (429, None));
    assert!(response.field("retry-after").unwrap().parse::<u32>().unwrap() > 0);
}

fn await_connections(server: &TestServer, count: u64) {
    wait_until(&format!("{count} connections to be left"), || {
        server.metric("webserver_connections_active") + server.metric("webserver_connections_idle") == count
    });
}

/// Waits until every connection that was taken has been let go. How many there are is published at the end of a turn, which
/// may be after the client has its answer.
fn await_closed(server: &TestServer) {
    wait_until("every connection to be closed", || {
        let closed = server.metric("webserver_connections_closed_total");
        closed == server.metric("webserver_connections_accepted_total")
    });
}

#[test]
fn connections_per_ip() {
    for shards in [1, 2] {
        let server = server(shards, "connections_per_ip: 3");
        let mut clients: Vec<Client> = (0..3).map(|_| served(ONE, &server)).collect();
        let mut others: Vec<Client> = (0..3).map(|_| served(OTHER, &server)).collect();
        assert_eq!(server.metric(PER_IP), 0);
        for round in 1..=5 {
            expect_shed(from(ONE, &server));
            expect_shed(from(OTHER, &server));
            assert_eq!(server.metric(PER_IP), 2 * round);
            // Whoever is in does not notice.
            clients.iter_mut().chain(&mut others).for_each(expect_served);
            // One leaves, one may come.
            clients.remove(0);
            await_connections(&server, 5);
            clients.push(served(ONE, &server));
        }
        assert_eq!(server.metric(PER_IP), 10);
        drop((clients, others));
        server.await_no_connections();
        let _clients: Vec<Client> = (0..3).map(|_| served(ONE, &server)).collect();
        expect_shed(from(ONE, &server));
    }
}

#[test]
fn connections_that_say_nothing_are_their_clients_too() {
    let server = server(1, "connections_per_ip: 2");
    let silent = [from(ONE, &server), from(ONE, &server)];
    await_connections(&server, 2);
    expect_shed(from(ONE, &server));
    drop(silent);
    server.await_no_connections();
    served(ONE, &server);
}

#[test]
fn however_a_connection_ends_its_client_may_have_another() {
    let server = server(2, "connections_per_ip: 1, requests_per_connection: 2, header_bytes: 512");
    for _ in 0..3 {
        // The server ends it, in order and for a request that it refuses; the client does; nobody asks.
        let mut client = served(ONE, &server);
        assert_eq!(client.ask(GET).field("connection"), Some("close"));
        client.expect_finish();
        drop(client);
        await_closed(&server);
        let mut client = from(ONE, &server);
        assert_eq!(client.ask(format!("GET / HTTP/1.1\r\nX: {}\r\n", "x".repeat(600))).status, 431);
        client.expect_finish();
        drop(client);
        await_closed(&server);
        let mut client = served(ONE, &server);
        client.finish();
        client.expect_finish();
        await_closed(&server);
        // It may be gone before the server knows of it.
        let accepted = server.metric("webserver_connections_accepted_total");
        drop(from(ONE, &server));
        server.await_metric("webserver_connections_accepted_total", accepted + 1);
        await_closed(&server);
    }
    let _client = served(ONE, &server);
    expect_shed(from(ONE, &server));
}

#[test]
fn no_limit_of_a_client_unless_one_is_set() {
    let server = server(1, "");
    let mut clients: Vec<Client> = (0..60).map(|_| served(ONE, &server)).collect();
    for client in &mut clients {
        client.send(GET.repeat(20));
        assert!((0..20).all(|_| client.response().status == 200));
    }
}

#[test]
fn a_reload_turns_the_limit_of_connections_on_and_off_and_changes_it() {
    let server = server(2, "");
    // Taken while there was no limit: in no count, then or later.
    let mut before: Vec<Client> = (0..3).map(|_| served(ONE, &server)).collect();
    reload(&server, 2, "connections_per_ip: 2", "");
    let mut clients: Vec<Client> = (0..2).map(|_| served(ONE, &server)).collect();
    expect_shed(from(ONE, &server));
    before.clear();
    await_connections(&server, 2);
    expect_shed(from(ONE, &server));
    reload(&server, 2, "connections_per_ip: 3", "");
    clients.push(served(ONE, &server));
    expect_shed(from(ONE, &server));
    reload(&server, 2, "connections_per_ip: 1", "");
    clients.iter_mut().for_each(expect_served);
    expect_shed(from(ONE, &server));
    // Who was counted leaves the count also while there is no limit.
    reload(&server, 2, "", "");
    clients.push(served(ONE, &server));
    clients.push(served(ONE, &server));
    clients.clear();
    server.await_no_connections();
    reload(&server, 2, "connections_per_ip: 1", "");
    let _client = served(ONE, &server);
    expect_shed(from(ONE, &server));
}

#[test]
fn whoever_is_exempt_is_not_limited() {
    let limits = "connections_per_ip: 1, requests_per_ip: 1, exempt: [127.0.0.22, 127.0.1.0/24]";
    let server = server(2, limits);
    for source in [OTHER, Ipv4Addr::new(127, 0, 1, 0), Ipv4Addr::new(127, 0, 1, 255)] {
        let mut clients: Vec<Client> = (0..5).map(|_| served(source, &server)).collect();
        clients.iter_mut().for_each(expect_served);
    }
    for source in [ONE, Ipv4Addr::new(127, 0, 0, 255), Ipv4Addr::new(127, 0, 2, 0)] {
        let mut client = from(source, &server);
        client.send(GET.repeat(5));
        let statuses: Vec<u16> = (0..5).map(|_| client.response().status).collect();
        assert_eq!((statuses[0], statuses.contains(&429)), (200, true), "{source}");
        expect_shed(from(source, &server));
    }
    // A reload takes the exemption away.
    reload(&server, 2, "connections_per_ip: 1, requests_per_ip: 1", "");
    let _first = from(OTHER, &server);
    await_connections(&server, 1);
    expect_shed(from(OTHER, &server));
}

#[test]
fn ipv6_and_unix_sockets_have_clients_of_their_own_or_none() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.txt"), "hello").unwrap();
    let (root, path) = (folder.path().display(), folder.path().join("socket"));
    let text = format!(
        "shards: 1\nlisten: [\"127.0.0.1:0\", \"[::1]:0\", \"unix:{}\"]\nroutes: [{{ root: {root} }}]\n\
         admin: {{ address: \"127.0.0.1:0\" }}\nlimits: {{ connections_per_ip: 1, requests_per_ip: 1 }}\n",
        path.display()
    );
    let server = TestServer::from_yaml(&text, folder);
    let v6 = SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], server.server.port(Some("[::1]:0")).unwrap()));
    let mut client = Client::connect(v6);
    client.send(GET.repeat(5));
    let statuses: Vec<u16> = (0..5).map(|_| client.response().status).collect();
    assert_eq!((statuses[0], statuses.contains(&429)), (200, true));
    expect_shed(Client::connect(v6));
    served(Ipv4Addr::LOCALHOST, &server);
    // Peers of a unix socket cannot be told apart, and whoever looks at the figures must get in.
    let mut streams: Vec<UnixStream> = (0..3).map(|_| UnixStream::connect(&path).unwrap()).collect();
    for stream in &mut streams {
        use std::io::{Read, Write};
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(GET.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert!(text.starts_with("HTTP/1.1 200 ") && text.ends_with("hello"), "{text}");
    }
    let admin = SocketAddr::from(([127, 0, 0, 1], server.server.port(Some("admin")).unwrap()));
    let mut admins: Vec<Client> = (0..3).map(|_| Client::connect(admin)).collect();
    for client in &mut admins {
        for _ in 0..5 {
            assert_eq!(client.ask("GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n").status, 200);
        }
    }
}

#[test]
fn requests_per_ip() {
    let server = server(1, "requests_per_ip: 50, requests_per_ip_burst: 3");
    let mut client = from(ONE, &server);
    for _ in 0..2 {
        // At once, so that they are one turn's.
        client.send(GET.repeat(8));
        let responses: Vec<Response> = (0..8).map(|_| client.response()).collect();
        assert!(responses[..3].iter().all(|response| response.status == 200));
        let limited: Vec<&Response> = responses.iter().filter(|response| response.status != 200).collect();
        assert!(limited.len() >= 3, "{responses:?}");
        limited.iter().for_each(|response| expect_limited(response));
        assert_eq!(limited[0].body, b"429 Too Many Requests\n");
        // Another client has its own burst.
        let mut other = from(OTHER, &server);
        other.send(GET.repeat(3));
        assert!((0..3).all(|_| other.response().status == 200));
        // What is awaited is time itself: the burst is whole again when it has passed.
        std::thread::sleep(Duration::from_millis(60));
    }
    let limited = server.metric(LIMITED);
    assert!(limited >= 6);
    assert_eq!(server.metric("webserver_requests_total{status=\"429\"}"), limited);
}

#[test]
fn the_rate_is_kept_over_all_shards_and_whoever_waits_is_served() {
    const BURST: u32 = 20;
    const RATE: u32 = 50;
    let limits = format!("requests_per_ip: {RATE}, requests_per_ip_burst: {BURST}");
    let server = server(2, &limits);
    let mut clients: Vec<Client> = (0..8).map(|_| from(ONE, &server)).collect();
    let begun = Instant::now();
    let (mut admitted, mut limited) = (0, 0);
    while begun.elapsed() < Duration::from_secs(1) {
        for client in &mut clients {
            match client.ask(GET).status {
                200 => admitted += 1,
                429 => limited += 1,
                other => panic!("{other}"),
            }
        }
    }
    let allowed = f64::from(BURST) + f64::from(RATE) * begun.elapsed().as_secs_f64();
    assert!(admitted >= BURST && f64::from(admitted) <= allowed, "{admitted} of {allowed}");
    assert_eq!(server.metric(LIMITED), limited);
    wait_until("the client to be served again", || clients[0].ask(GET).status == 200);
}

#[test]
fn a_limited_request_is_read_whole_and_the_connection_goes_on() {
    let server = server(1, "requests_per_ip: 1");
    let mut client = from(ONE, &server);
    let post = "POST /a.txt HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nGET /";
    let chunked =
        "POST /a.txt HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nGET\r\n0\r\n\r\n";
    client.send(format!(
        "{GET}{post}{chunked}HEAD /a.txt HTTP/1.1\r\nHost: test\r\n\r\nGET /missing HTTP/1.1\r\n\r\n"
    ));
    assert_eq!(client.response().status, 200);
    expect_limited(&client.response());
    expect_limited(&client.response());
    let head = client.head_response();
    expect_limited(&head);
    assert_eq!(head.field("content-length"), Some("22"));
    // What is not a request is not limited but refused.
    assert_eq!(client.response().status, 400);
    client.expect_finish();
}

#[test]
fn a_reload_changes_the_rate() {
    let server = server(1, "");
    let mut client = from(ONE, &server);
    let mut admitted = |count: usize| {
        client.send(GET.repeat(count));
        (0..count).filter(|_| client.response().status == 200).count()
    };
    assert_eq!(admitted(30), 30);
    reload(&server, 1, "requests_per_ip: 1, requests_per_ip_burst: 1000000", "");
    assert_eq!(admitted(60), 60);
    reload(&server, 1, "requests_per_ip: 1, requests_per_ip_burst: 2", "");
    assert!(admitted(30) < 30);
    // What was used under the larger burst is not held against it.
    wait_until("the client to be served again", || admitted(1) == 1);
    reload(&server, 1, "", "");
    assert_eq!(admitted(60), 60);
}

#[test]
fn connections_of_a_listener() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.txt"), "hello").unwrap();
    let root = folder.path().display();
    let text = format!(
        "shards: 2\nlisten:\n  - {{ address: \"127.0.0.1:0\", connections: 3 }}\n  - \"127.0.0.2:0\"\n\
         routes: [{{ root: {root} }}]\n"
    );
    let server = TestServer::from_yaml(&text, folder);
    let second = SocketAddr::from(([127, 0, 0, 2], server.server.port(Some("127.0.0.2:0")).unwrap()));
    let mut clients: Vec<Client> = (0..3).map(|_| served(ONE, &server)).collect();
    assert_eq!(server.metric(LISTENER), 0);
    for round in 1..=5 {
        expect_shed(from(OTHER, &server));
        assert_eq!(server.metric(LISTENER), round);
        clients.iter_mut().for_each(expect_served);
        // The other listener has no cap.
        let mut others: Vec<Client> = (0..5).map(|_| Client::connect(second)).collect();
        others.iter_mut().for_each(expect_served);
        drop(others);
        clients.remove(0);
        await_connections(&server, 2);
        clients.push(served(OTHER, &server));
    }
    assert_eq!(server.metric(LISTENER), 5);
    drop(clients);
    server.await_no_connections();
    let _clients: Vec<Client> = (0..3).map(|_| served(ONE, &server)).collect();
    expect_shed(from(ONE, &server));
}

#[test]
fn a_client_turned_away_does_not_take_a_place_of_its_listener() {
    let server = server(1, "connections_per_ip: 1");
    reload(&server, 1, "connections_per_ip: 1", ", connections: 2");
    let _first = served(ONE, &server);
    for _ in 0..3 {
        expect_shed(from(ONE, &server));
    }
    let _second = served(OTHER, &server);
    expect_shed(from(Ipv4Addr::new(127, 0, 0, 23), &server));
    assert_eq!((server.metric(PER_IP), server.metric(LISTENER)), (3, 1));
}

#[test]
fn a_reload_changes_the_cap_of_a_listener() {
    let server = server(2, "");
    let before = served(ONE, &server);
    reload(&server, 2, "", ", connections: 1");
    let first = served(ONE, &server);
    expect_shed(from(ONE, &server));
    reload(&server, 2, "", ", connections: 2");
    let second = served(ONE, &server);
    expect_shed(from(ONE, &server));
    reload(&server, 2, "", "");
    let third = served(ONE, &server);
    drop((before, first, second, third));
    server.await_no_connections();
    reload(&server, 2, "", ", connections: 1");
    let _client = served(ONE, &server);
    expect_shed(from(ONE, &server));
}
