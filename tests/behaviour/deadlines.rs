//! What lasts too long ends, is answered where somebody waits for an answer, and is counted; what makes progress goes
//! on. Deadlines are short here; nothing is asserted about how soon after one the end comes.

use std::{
    io::{ErrorKind, Read},
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use crate::harness::{Client, Response, TestServer};

const GET: &str = "GET /a.txt HTTP/1.1\r\nHost: test\r\n\r\n";
const POST: &str = "POST /a.txt HTTP/1.1\r\nHost: test\r\nContent-Length: 1000\r\n\r\n";
const CHUNKED: &str = "POST /a.txt HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n";
/// Between two bytes of a client that takes its time.
const PACE: Duration = Duration::from_millis(20);

fn server(timeouts: &str) -> TestServer {
    TestServer::start(&format!("timeouts: {{ {timeouts} }}"), &[("a.txt", b"hello")])
}

fn expect_served(client: &mut Client) {
    let response = client.ask(GET);
    assert_eq!((response.status, response.body.as_slice()), (200, &b"hello"[..]));
}

fn timeouts(server: &TestServer, kind: &str) -> u64 {
    server.metric(&format!("webserver_timeouts_total{{kind=\"{kind}\"}}"))
}

/// What was counted is one deadline of this kind and none of another.
fn expect_timeouts(server: &TestServer, kind: &str, count: u64) {
    for other in ["header", "body", "write", "idle"] {
        assert_eq!(timeouts(server, other), if other == kind { count } else { 0 }, "{other}");
    }
}

fn expect_408(client: &mut Client) {
    let response = client.response();
    assert_eq!((response.status, response.field("connection")), (408, Some("close")));
    client.expect_finish();
}

/// Sends byte by byte until a response comes; `None` when all was sent before.
fn trickle(client: &mut Client, bytes: impl IntoIterator<Item = u8>) -> Option<Response> {
    let patience = client.stream.read_timeout().unwrap();
    for byte in bytes {
        client.send([byte]);
        client.stream.set_read_timeout(Some(PACE)).unwrap();
        let mut first = [0; 1];
        let result = client.stream.peek(&mut first);
        client.stream.set_read_timeout(patience).unwrap();
        match result {
            Ok(_) => return Some(client.response()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => panic!("peek: {error}"),
        }
    }
    None
}

#[test]
fn a_head_that_does_not_end_is_answered_with_408() {
    let server = server("header: 200ms");
    let mut other = server.connect();
    expect_served(&mut other);
    let heads = ["G", "\r\n", "GET /a.txt HTTP/1.1\r\n", "GET /a.txt HTTP/1.1\r\nHost: test\r\nX: y\r\n"];
    for (count, head) in (1..).zip(heads) {
        let mut client = server.connect();
        let begin = Instant::now();
        client.send(head);
        expect_408(&mut client);
        assert!(begin.elapsed() >= Duration::from_millis(200), "too early");
        expect_timeouts(&server, "header", count);
        assert_eq!(server.metric("webserver_requests_refused_total{reason=\"header_timeout\"}"), count);
        expect_served(&mut other);
    }
    expect_served(&mut server.connect());
    drop(other);
    server.await_no_connections();
}

#[test]
fn a_later_head_has_the_same_deadline() {
    let server = server("header: 200ms");
    let mut client = server.connect();
    expect_served(&mut client);
    client.send(format!("{GET}{}", &GET[..20]));
    assert_eq!(client.response().status, 200);
    expect_408(&mut client);
    expect_timeouts(&server, "header", 1);
}

#[test]
fn a_connection_that_says_nothing_is_closed_without_a_word() {
    let server = server("header: 200ms");
    let mut other = server.connect();
    expect_served(&mut other);
    let mut silent: Vec<Client> = (0..5).map(|_| server.connect()).collect();
    for client in &mut silent {
        client.expect_finish();
    }
    expect_timeouts(&server, "header", 5);
    expect_served(&mut other);
    drop(other);
    server.await_no_connections();
}

#[test]
fn the_header_deadline_is_for_the_whole_head() {
    let server = server("header: 300ms");
    let mut other = server.connect();
    expect_served(&mut other);
    let mut client = server.connect();
    client.send("GET /a.txt HTTP/1.1\r\nHost: test\r\nX: ");
    let response =
        trickle(&mut client, std::iter::repeat_n(b'x', 5000)).expect("a client that trickles is not cut");
    assert_eq!(response.status, 408);
    client.expect_finish();
    expect_timeouts(&server, "header", 1);
    expect_served(&mut other);
}

#[test]
fn a_head_in_time_is_served_however_slowly_its_connection_began() {
    let server = server("header: 5s");
    let mut client = server.connect();
    for _ in 0..2 {
        let response = trickle(&mut client, GET.bytes());
        let response = response.unwrap_or_else(|| client.response());
        assert_eq!(response.status, 200);
    }
    expect_timeouts(&server, "", 0);
}

#[test]
fn a_body_that_stops_coming_is_answered_with_408() {
    let server = server("body: 200ms");
    let mut other = server.connect();
    expect_served(&mut other);
    let stops = [
        POST.to_owned(),
        format!("{POST}abc"),
        CHUNKED.to_owned(),
        format!("{CHUNKED}5\r\nabc"),
        format!("{CHUNKED}5\r\nabcde\r\n0\r\n"),
    ];
    for (count, request) in (1..).zip(stops) {
        let mut client = server.connect();
        let begin = Instant::now();
        client.send(format!("{GET}{request}"));
        assert_eq!(client.response().status, 200);
        expect_408(&mut client);
        assert!(begin.elapsed() >= Duration::from_millis(200), "too early");
        expect_timeouts(&server, "body", count);
        assert_eq!(server.metric("webserver_requests_refused_total{reason=\"body_timeout\"}"), count);
        expect_served(&mut other);
    }
    drop(other);
    server.await_no_connections();
}

#[test]
fn a_client_that_was_told_to_continue_and_does_not_is_answered_with_408() {
    let server = server("body: 200ms");
    let mut client = server.connect();
    client.send("GET /a.txt HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    assert_eq!(client.response().status, 100);
    expect_408(&mut client);
    expect_timeouts(&server, "body", 1);
}

#[test]
fn a_body_that_keeps_coming_may_take_longer_than_its_deadline() {
    let server = server("body: 2s");
    let mut client = server.connect();
    client.send("GET /a.txt HTTP/1.1\r\nHost: test\r\nContent-Length: 150\r\n\r\n");
    let begin = Instant::now();
    assert!(trickle(&mut client, std::iter::repeat_n(b'x', 149)).is_none());
    assert!(begin.elapsed() > Duration::from_secs(2), "it was no test");
    assert_eq!(client.ask("x").status, 200);
    expect_served(&mut client);
    expect_timeouts(&server, "", 0);
}

#[test]
fn an_idle_connection_is_closed_without_a_word() {
    let server = server("idle: 200ms");
    let mut clients: Vec<Client> = (0..5).map(|_| server.connect()).collect();
    for client in &mut clients {
        expect_served(client);
    }
    // One that has said nothing yet is not idle.
    let mut fresh = server.connect();
    for client in &mut clients {
        client.expect_finish();
    }
    expect_timeouts(&server, "idle", 5);
    expect_served(&mut fresh);
    fresh.expect_finish();
    expect_timeouts(&server, "idle", 6);
    server.await_no_connections();
}

#[test]
fn a_connection_that_is_used_outlives_its_idle_deadline() {
    let server = server("idle: 2s");
    let mut client = server.connect();
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(3) {
        assert!(trickle(&mut client, GET.bytes().take(10)).is_none());
        assert_eq!(client.ask(&GET[10..]).status, 200);
    }
    expect_timeouts(&server, "", 0);
}

/// Larger than what the sockets of both sides hold.
const LARGE_BYTES: usize = 64 << 20;

fn server_with_large(timeouts: &str) -> TestServer {
    TestServer::start(
        &format!("timeouts: {{ {timeouts} }}"),
        &[("a.txt", b"hello"), ("64k", &[b'k'; 64 << 10]), ("large", &vec![b'l'; LARGE_BYTES])],
    )
}

/// Reads what still comes; the number of bytes.
fn drain(client: &mut Client) -> usize {
    let mut buffer = vec![0; 1 << 20];
    let mut total = 0;
    loop {
        match client.stream.read(&mut buffer) {
            Ok(0) => return total,
            Ok(count) => total += count,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return total,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => panic!("receive: {error}"),
        }
    }
}

#[test]
fn a_client_that_stops_reading_a_file_is_cut() {
    let server = server_with_large("write: 300ms");
    let mut other = server.connect();
    expect_served(&mut other);
    let mut client = server.connect();
    client.send("GET /large HTTP/1.1\r\nHost: test\r\n\r\n");
    server.await_metric("webserver_timeouts_total{kind=\"write\"}", 1);
    expect_timeouts(&server, "write", 1);
    server.await_metric("webserver_connections_closed_total", 1);
    assert_eq!(server.metric("webserver_responses_cut_total"), 1);
    expect_served(&mut other);
    assert!(drain(&mut client) < LARGE_BYTES);
    drop(other);
    server.await_no_connections();
}

#[test]
fn a_client_that_stops_reading_answers_from_memory_is_cut() {
    let server = server_with_large("write: 300ms");
    let mut other = server.connect();
    expect_served(&mut other);
    let request = "GET /64k HTTP/1.1\r\nHost: test\r\n\r\n";
    let mut client = server.connect();
    let pipeline = request.repeat(1000);
    client.send(&pipeline);
    server.await_metric("webserver_timeouts_total{kind=\"write\"}", 1);
    expect_timeouts(&server, "write", 1);
    server.await_metric("webserver_connections_closed_total", 1);
    expect_served(&mut other);
    assert!(drain(&mut client) < 1000 * (64 << 10));
    drop(other);
    server.await_no_connections();
    for size in ["small", "medium", "large"] {
        assert_eq!(server.metric(&format!("webserver_buffer_pool_allocated{{size=\"{size}\"}}")), 0);
    }
}

#[test]
fn a_client_that_takes_less_than_frees_the_send_buffer_is_not_cut() {
    let server = server_with_large("write: 1s");
    let mut client = server.connect();
    client.send("GET /large HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    let begin = Instant::now();
    let mut buffer = vec![0; 16 << 10];
    let mut total = 0;
    // A megabyte a second: what the kernel waits for to be free takes longer than the deadline.
    while begin.elapsed() < Duration::from_secs(5) {
        total += client.stream.read(&mut buffer).unwrap();
        std::thread::sleep(Duration::from_millis(16));
    }
    total += drain(&mut client);
    assert!(total > LARGE_BYTES);
    expect_timeouts(&server, "", 0);
}

#[test]
fn a_client_that_reads_slowly_is_not_cut() {
    let server = server_with_large("write: 2s");
    let mut other = server.connect();
    let mut client = server.connect();
    client.send("GET /large HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    let begin = Instant::now();
    let mut buffer = vec![0; 64 << 10];
    let mut total = 0;
    // For longer than the deadline, and never so much that what the sockets hold would do; the rest at once.
    while begin.elapsed() < Duration::from_secs(5) && total < LARGE_BYTES / 2 {
        total += client.stream.read(&mut buffer).unwrap();
        expect_served(&mut other);
        std::thread::sleep(PACE);
    }
    assert!(begin.elapsed() > Duration::from_secs(2), "it was no test");
    total += drain(&mut client);
    assert!(total > LARGE_BYTES);
    expect_timeouts(&server, "", 0);
    assert_eq!(server.metric("webserver_responses_cut_total"), 0);
}

#[test]
fn a_client_that_does_not_close_after_its_last_response_is_cut() {
    let server = server("header: 200ms");
    let mut client = server.connect();
    client.send("G");
    expect_408(&mut client);
    // The end of our stream was seen and nothing follows: lingering has a deadline too.
    server.await_metric("webserver_connections_closed_total", 1);
    expect_timeouts(&server, "header", 1);
}

#[test]
fn deadlines_of_many_connections_are_all_met() {
    let server = server("header: 250ms, body: 200ms, idle: 300ms");
    for _ in 0..3 {
        let mut silent: Vec<Client> = (0..20).map(|_| server.connect()).collect();
        let mut heads: Vec<Client> = (0..20).map(|_| server.connect()).collect();
        let mut bodies: Vec<Client> = (0..20).map(|_| server.connect()).collect();
        let mut idle: Vec<Client> = (0..20).map(|_| server.connect()).collect();
        heads.iter_mut().for_each(|client| client.send(&GET[..5]));
        bodies.iter_mut().for_each(|client| client.send(POST));
        idle.iter_mut().for_each(expect_served);
        silent.iter_mut().for_each(Client::expect_finish);
        heads.iter_mut().for_each(expect_408);
        bodies.iter_mut().for_each(expect_408);
        idle.iter_mut().for_each(Client::expect_finish);
        drop((silent, heads, bodies, idle));
        server.await_no_connections();
    }
    assert_eq!(
        [timeouts(&server, "header"), timeouts(&server, "body"), timeouts(&server, "idle")],
        [120, 60, 60]
    );
}

/// What a host's thread waits for must not be cut short by what it did to start a server.
#[test]
fn starting_a_server_does_not_interrupt_what_its_host_waits_for() {
    let (mut one, _other) = UnixStream::pair().unwrap();
    one.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    for _ in 0..5 {
        let server = server("idle: 5s");
        let error = one.read(&mut [0; 1]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        expect_served(&mut server.connect());
    }
}

#[test]
fn more_deadlines_at_once_than_one_turn_ends_are_all_met() {
    const CLIENTS: usize = 300;
    let yaml = "timeouts: { header: 200ms }\nmemory: { worker_connections: 400 }";
    let server = TestServer::start(yaml, &[("a.txt", b"hello")]);
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| server.connect()).collect();
    for client in &mut clients {
        // Some are late already, and have been told so.
        let _ = client.try_send("GET /a.txt HTTP/1.1\r\n");
    }
    clients.into_iter().for_each(|mut client| drop(client.rest()));
    server.await_no_connections();
    expect_timeouts(&server, "header", CLIENTS as u64);
    expect_served(&mut server.connect());
}
