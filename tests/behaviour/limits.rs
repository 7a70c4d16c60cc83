//! Each limit at its maximum, one past it, and after it was passed.

use crate::harness::{Client, TestServer, wait_until};

const GET: &str = "GET /a.txt HTTP/1.1\r\nHost: test\r\n\r\n";

fn server(limits: &str) -> TestServer {
    TestServer::start(&format!("limits: {{ {limits} }}"), &[("a.txt", b"hello")])
}

fn expect_served(client: &mut Client) {
    let response = client.ask(GET);
    assert_eq!((response.status, response.body.as_slice()), (200, &b"hello"[..]));
}

/// `accepted` is answered with 200 and `refused` with `status` and a close, however they arrive; the connection
/// that was not refused goes on, and so does everybody else.
fn expect_limit(server: &TestServer, accepted: &str, refused: &str, status: u16, reason: &str) {
    let counter = format!("webserver_requests_refused_total{{reason=\"{reason}\"}}");
    let mut other = server.connect();
    for pieces in [1, 2, 7] {
        let send = |client: &mut Client, bytes: &str| {
            for piece in bytes.as_bytes().chunks(bytes.len().div_ceil(pieces)) {
                client.send(piece);
            }
        };
        let before = server.metric(&counter);
        let mut client = server.connect();
        for _ in 0..2 {
            send(&mut client, accepted);
            assert_eq!(client.response().status, 200, "{pieces} pieces");
        }
        assert_eq!(server.metric(&counter), before);
        send(&mut client, refused);
        let response = client.response();
        assert_eq!(
            (response.status, response.field("connection")),
            (status, Some("close")),
            "{pieces} pieces"
        );
        client.expect_finish();
        assert_eq!(server.metric(&counter), before + 1);
        expect_served(&mut other);
        expect_served(&mut server.connect());
    }
}

/// A GET whose head is exactly `length` bytes.
fn head_of(length: usize) -> String {
    let (start, end) = ("GET /a.txt HTTP/1.1\r\nHost: test\r\nX: ", "\r\n\r\n");
    format!("{start}{}{end}", "x".repeat(length - start.len() - end.len()))
}

#[test]
fn header_bytes() {
    for (setting, bytes) in [("512", 512), ("5000", 5000), ("32KB", 32 << 10), ("64KB", 64 << 10)] {
        let server = server(&format!("header_bytes: {setting}"));
        expect_limit(&server, &head_of(bytes), &head_of(bytes + 1), 431, "head_too_large");
    }
    let server = server("");
    expect_limit(&server, &head_of(32 << 10), &head_of((32 << 10) + 1), 431, "head_too_large");
}

#[test]
fn a_head_that_fills_its_limit_is_refused_before_it_ends() {
    let server = server("header_bytes: 1KB");
    for _ in 0..3 {
        let mut client = server.connect();
        client.send(format!("{GET}{}", &head_of(2000)[..1024]));
        assert_eq!([200, 431], [client.response().status, client.response().status]);
        client.expect_finish();
    }
}

#[test]
fn a_full_head_may_stand_behind_others_in_a_pipeline() {
    let server = server("header_bytes: 64KB");
    let mut client = server.connect();
    for _ in 0..3 {
        client.send(format!("{GET}{0}{GET}{0}{0}{GET}", head_of(64 << 10)));
        for _ in 0..6 {
            assert_eq!(client.response().body, b"hello");
        }
    }
}

#[test]
fn headers() {
    let with =
        |count: usize| format!("GET /a.txt HTTP/1.1\r\nHost: test\r\n{}\r\n", "X: y\r\n".repeat(count - 1));
    for count in [1, 3, 100, 128, 129, 1024] {
        let server = server(&format!("headers: {count}, header_bytes: 64KB"));
        expect_limit(&server, &with(count), &with(count + 1), 431, "too_many_fields");
    }
    let server = server("");
    expect_limit(&server, &with(100), &with(101), 431, "too_many_fields");
}

#[test]
fn target_bytes() {
    let with = |count: usize| {
        let target = "/a.txt?";
        format!("GET {target}{} HTTP/1.1\r\nHost: test\r\n\r\n", "q".repeat(count - target.len()))
    };
    for (setting, bytes) in
        [("target_bytes: 64", 64), ("target_bytes: 4000", 4000), ("header_bytes: 600", 600)]
    {
        // A target may be as long as a whole head, but then the head has room for nothing else.
        let (accepted, refused, reason) = match bytes {
            600 => (570 - GET.len() + 6, 600, (431, "head_too_large")),
            _ => (bytes, bytes + 1, (414, "target_too_long")),
        };
        expect_limit(&server(setting), &with(accepted), &with(refused), reason.0, reason.1);
    }
    expect_limit(&server(""), &with(8 << 10), &with((8 << 10) + 1), 414, "target_too_long");
}

/// A GET with a body of `length` bytes in chunks of at most `chunk`.
fn chunked(length: usize, chunk: usize) -> String {
    let mut text = "GET /a.txt HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned();
    let mut left = length;
    while left > 0 {
        let count = left.min(chunk);
        text.push_str(&format!("{count:x}\r\n{}\r\n", "b".repeat(count)));
        left -= count;
    }
    text + "0\r\n\r\n"
}

/// The same with its length told.
fn measured(length: usize) -> String {
    format!("GET /a.txt HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n{}", "b".repeat(length))
}

#[test]
fn body_bytes() {
    for length in [1, 10, 4096, 100_000] {
        let server = server(&format!("body_bytes: {length}"));
        expect_limit(&server, &measured(length), &measured(length + 1), 413, "body_too_large");
        expect_limit(
            &server,
            &chunked(length, length),
            &chunked(length + 1, length + 1),
            413,
            "body_too_large",
        );
        let chunk = length.div_ceil(10);
        expect_limit(&server, &chunked(length, chunk), &chunked(length + 1, chunk), 413, "body_too_large");
    }
}

#[test]
fn a_body_past_its_limit_is_refused_when_it_is_announced() {
    let server = server("body_bytes: 1MB");
    for framing in [
        "Content-Length: 1048577\r\n\r\n",
        "Expect: 100-continue\r\nContent-Length: 1048577\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n100001\r\n",
    ] {
        let mut client = server.connect();
        assert_eq!(
            client.ask(format!("POST /a.txt HTTP/1.1\r\nHost: test\r\n{framing}")).status,
            413,
            "{framing}"
        );
        client.expect_finish();
    }
    let mut client = server.connect();
    client
        .send("GET /a.txt HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 1048576\r\n\r\n");
    assert_eq!(client.response().status, 100);
    client.send(vec![b'x'; 1 << 20]);
    assert_eq!(client.response().status, 200);
    expect_served(&mut client);
}

#[test]
fn body_bytes_without_limit() {
    let server = server("body_bytes: 0");
    let mut client = server.connect();
    for request in [measured(17 << 20), chunked(17 << 20, 1 << 20)] {
        assert_eq!(client.ask(request).status, 200);
    }
    expect_served(&mut client);
    // The limit unless another is given.
    let server = self::server("");
    let head = format!("GET / HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n", (16 << 20) + 1);
    assert_eq!(server.connect().ask(head).status, 413);
}

#[test]
fn requests_per_connection() {
    let server = server("requests_per_connection: 3");
    for _ in 0..3 {
        // One after the other, and what is not found counts too.
        let mut client = server.connect();
        assert_eq!(client.ask(GET).field("connection"), None);
        let missing = client.ask("GET /missing HTTP/1.1\r\nHost: test\r\n\r\n");
        assert_eq!((missing.status, missing.field("connection")), (404, None));
        let last = client.ask(GET);
        assert_eq!((last.status, last.field("connection")), (200, Some("close")));
        client.expect_finish();
        // At once, with more than will be answered behind them.
        let mut client = server.connect();
        client.send(GET.repeat(5));
        for connection in [None, None, Some("close")] {
            let response = client.response();
            assert_eq!((response.status, response.field("connection")), (200, connection));
        }
        client.expect_finish();
        // HTTP/1.0, whose kept connections say so.
        let mut client = server.connect();
        for connection in ["keep-alive", "keep-alive", "close"] {
            let response = client.ask("GET /a.txt HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
            assert_eq!((response.status, response.field("connection")), (200, Some(connection)));
        }
        client.expect_finish();
    }
    server.await_no_connections();
}

#[test]
fn one_request_per_connection_and_no_limit() {
    let server = server("requests_per_connection: 1");
    for _ in 0..3 {
        let mut client = server.connect();
        assert_eq!(client.ask(GET).field("connection"), Some("close"));
        client.expect_finish();
    }
    let server = self::server("requests_per_connection: 0");
    let mut client = server.connect();
    for _ in 0..300 {
        assert_eq!(client.ask(GET).field("connection"), None);
    }
}

const SHED: &str = "webserver_connections_shed_total{reason=\"capacity\"}";

fn crowded() -> TestServer {
    TestServer::start(
        "memory: { worker_connections: 4 }\nadmin: { address: \"127.0.0.1:0\" }",
        &[("a.txt", b"hello")],
    )
}

fn connections(server: &TestServer) -> u64 {
    server.metric("webserver_connections_active") + server.metric("webserver_connections_idle")
}

fn expect_shed(client: &mut Client) {
    let response = client.response();
    assert_eq!((response.status, response.field("connection")), (503, Some("close")));
    let seconds: u32 = response.field("retry-after").unwrap().parse().unwrap();
    assert!(seconds > 0);
    client.expect_finish();
}

#[test]
fn worker_connections() {
    let server = crowded();
    let mut clients: Vec<Client> = (0..4).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(expect_served);
    assert_eq!(server.metric(SHED), 0);
    for round in 1..=5 {
        // One too many, whether or not it says anything, is told and counted.
        expect_shed(&mut server.connect());
        let mut client = server.connect();
        let _ = client.try_send(GET);
        expect_shed(&mut client);
        assert_eq!(server.metric(SHED), 2 * round);
        // The others do not notice.
        clients.iter_mut().for_each(expect_served);
        assert_eq!(connections(&server), 4);
        // One leaves, another takes its place.
        clients.remove(0);
        wait_until("a place to be free", || connections(&server) == 3);
        let mut next = server.connect();
        expect_served(&mut next);
        clients.push(next);
        assert_eq!(server.metric(SHED), 2 * round);
    }
    drop(clients);
    server.await_no_connections();
    expect_served(&mut server.connect());
}

#[test]
fn connections_that_say_nothing_hold_their_places() {
    let server = crowded();
    let mut clients: Vec<Client> = (0..4).map(|_| server.connect()).collect();
    wait_until("the places to be taken", || connections(&server) == 4);
    expect_shed(&mut server.connect());
    clients.iter_mut().for_each(expect_served);
}

#[test]
fn a_crowd_past_capacity_is_shed_and_served_after() {
    let server = crowded();
    let mut clients: Vec<Client> = (0..4).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(expect_served);
    // More at once than there are slots to linger in: none is left hanging, most are told.
    let mut crowd: Vec<Client> = (0..200).map(|_| server.connect()).collect();
    let told = crowd.iter_mut().filter_map(|client| String::from_utf8(client.rest()).ok());
    assert!(told.filter(|text| text.starts_with("HTTP/1.1 503 ")).count() >= 64);
    assert_eq!(server.metric(SHED), 200);
    clients.iter_mut().for_each(expect_served);
    drop((clients, crowd));
    server.await_no_connections();
    // Who was turned away is among those that left.
    server.await_metric("webserver_connections_closed_total", 204);
    assert_eq!(server.metric("webserver_connections_accepted_total"), 204);
    expect_served(&mut server.connect());
}

#[test]
fn the_admin_listener_has_places_of_its_own() {
    let server = crowded();
    let admin = std::net::SocketAddr::from(([127, 0, 0, 1], server.server.port(Some("admin")).unwrap()));
    let mut clients: Vec<Client> = (0..4).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(expect_served);
    let mut client = Client::connect(admin);
    for _ in 0..3 {
        assert_eq!(client.ask("GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n").body, b"ok\n");
        // It is in neither figure.
        assert_eq!(connections(&server), 4);
    }
    expect_shed(&mut server.connect());
}
