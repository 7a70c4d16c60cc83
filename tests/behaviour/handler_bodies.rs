//! Bodies of requests on their way to handlers that want them whole: however they are framed and cut, up to the limit,
//! and what is left of those that never end.

use std::{
    fmt::Write as _,
    io::Write as _,
    rc::Rc,
    sync::atomic::{AtomicUsize, Ordering},
};

use webserver::{
    config::Config,
    http::{Request, Status},
    server::Options,
    service::{Body, BodyWanted, Call, Context, Handler, Handlers, Outcome, Response},
};

use crate::harness::{Client, TestServer, content, wait_until, write};

const LIMIT: usize = 16 << 20;
/// What the bodies of one shard may hold together.
const MEMORY: usize = 64 << 20;

/// Sends the body back.
struct Echo;

impl Handler for Echo {
    fn handle(self: Rc<Self>, call: &Call<'_>, context: &Rc<Context>) -> Outcome {
        let mut response = Response::new(Status::OK);
        let mut body = context.buffer();
        body.extend_from_slice(call.body);
        response.body = Body::Owned(body);
        Outcome::Ready(response)
    }

    fn body_wanted(&self, _: Request<'_>) -> BodyWanted {
        BodyWanted::Whole
    }
}

/// Wants no body and leaves every request to the next.
struct Passing;

impl Handler for Passing {
    fn handle(self: Rc<Self>, call: &Call<'_>, _: &Rc<Context>) -> Outcome {
        assert_eq!(call.path, b"echo/next");
        Outcome::Next
    }

    fn body_wanted(&self, _: Request<'_>) -> BodyWanted {
        BodyWanted::AsNext
    }
}

/// Echoes at /echo and /echo/next, beside a file `a`.
fn echo(yaml: &str) -> TestServer {
    let mut handlers = Handlers::new();
    handlers.add(None, "/echo", || Rc::new(Echo)).unwrap();
    handlers.add(None, "/echo/next", || Rc::new(Passing)).unwrap();
    handlers.add(Some("POST"), "/echo/*", || Rc::new(Echo)).unwrap();
    start(yaml, handlers)
}

fn start(yaml: &str, handlers: Handlers) -> TestServer {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "a", b"file");
    let root = folder.path().display();
    let text = format!("shards: 1\nlisten: [\"127.0.0.1:0\"]\nroutes: [{{ root: {root} }}]\n{yaml}");
    TestServer::with_options(&text, folder, Options { handlers, ..Options::default() })
}

fn post(body: &[u8]) -> Vec<u8> {
    let mut request = head("POST", body.len());
    request.extend_from_slice(body);
    request
}

fn head(method: &str, length: usize) -> Vec<u8> {
    format!("{method} /echo HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n").into_bytes()
}

/// In chunks of `size` bytes, the first with an extension, and a trailer.
fn chunked(body: &[u8], size: usize) -> Vec<u8> {
    let mut request = b"POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for (index, chunk) in body.chunks(size).enumerate() {
        let extension = if index == 0 { ";x=y" } else { "" };
        request.extend_from_slice(format!("{:x}{extension}\r\n", chunk.len()).as_bytes());
        request.extend_from_slice(chunk);
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"0\r\nX-Trailer: z\r\n\r\n");
    request
}

fn expect_echo(client: &mut Client, body: &[u8]) {
    let response = client.response();
    assert_eq!(response.status, 200);
    assert!(response.body == body, "{} bytes came back of {}", response.body.len(), body.len());
}

fn expect_nothing_held(server: &TestServer) {
    wait_until("all bodies to be let go of", || server.metric("webserver_request_body_bytes") == 0);
}

#[test]
fn a_body_comes_back_whatever_its_length_and_framing() {
    let server = echo("");
    let mut client = server.connect();
    for length in [0, 1, 13, 4096, 4097, 65_000, 65_536, 65_537, 300_000, (1 << 20) + 1] {
        let body = content(length);
        client.send(post(&body));
        expect_echo(&mut client, &body);
        for size in [1000, 70_000] {
            client.send(chunked(&body, size));
            expect_echo(&mut client, &body);
        }
    }
    expect_nothing_held(&server);
}

#[test]
fn a_request_cut_at_each_byte_is_whole() {
    let server = echo("");
    let body = content(40);
    for request in [post(&body), chunked(&body, 7)] {
        let mut client = server.connect();
        for cut in 1..request.len() {
            client.send(&request[..cut]);
            // The first part is received by itself when something else was answered in between.
            assert_eq!(server.get("/a").status, 200);
            client.send(&request[cut..]);
            expect_echo(&mut client, &body);
        }
    }
    expect_nothing_held(&server);
}

#[test]
fn requests_behind_a_body_are_answered_in_order() {
    let server = echo("");
    let (small, large) = (content(100), content(200_000));
    let mut client = server.connect();
    let mut bytes = Vec::new();
    let file = b"GET /a HTTP/1.1\r\nHost: test\r\n\r\n";
    for request in
        [&post(&small)[..], file, &chunked(&small, 30), file, &post(&large), file, &chunked(&large, 999)]
    {
        bytes.extend_from_slice(request);
    }
    bytes.extend_from_slice(file);
    let mut stream = client.stream.try_clone().unwrap();
    let sender = std::thread::spawn(move || stream.write_all(&bytes).unwrap());
    for body in [&small, &small, &large, &large] {
        expect_echo(&mut client, body);
        assert_eq!(client.response().body, b"file");
    }
    sender.join().unwrap();
}

#[test]
fn a_body_of_any_method_is_taken() {
    let server = echo("");
    let mut client = server.connect();
    for method in ["GET", "PUT", "DELETE", "OPTIONS", "PURGE"] {
        client.send([&head(method, 5)[..], b"hello"].concat());
        expect_echo(&mut client, b"hello");
    }
    client.send([&head("HEAD", 5)[..], b"hello"].concat());
    let response = client.head_response();
    assert_eq!((response.status, response.field("content-length")), (200, Some("5")));
    client.send(post(b"after"));
    expect_echo(&mut client, b"after");
}

#[test]
fn body_bytes_is_the_limit_of_what_a_handler_gets() {
    let server = echo("");
    let body = content(LIMIT);
    let mut client = server.connect();
    client.send(post(&body));
    expect_echo(&mut client, &body);
    client.send(chunked(&body, 1 << 20));
    expect_echo(&mut client, &body);
    expect_nothing_held(&server);

    // One more is refused as soon as it is known.
    client.send(head("POST", LIMIT + 1));
    assert_eq!(client.response().status, 413);
    client.expect_finish();
    let mut client = server.connect();
    let mut sender = client.stream.try_clone().unwrap();
    let request = chunked(&content(LIMIT + 1), 1 << 20);
    let sender = std::thread::spawn(move || sender.write_all(&request));
    assert_eq!(client.response().status, 413);
    // The server may have cut the connection before all of it was taken.
    let _ = sender.join().unwrap();
    expect_nothing_held(&server);
    let mut client = server.connect();
    client.send(post(b"after"));
    expect_echo(&mut client, b"after");
}

#[test]
fn without_a_limit_a_body_may_take_what_bodies_may_hold() {
    let server = echo("limits: { body_bytes: 0 }");
    let mut client = server.connect();
    client.send(head("POST", MEMORY + 1));
    assert_eq!(client.response().status, 413);
    let mut client = server.connect();
    let body = content(20 << 20);
    client.send(post(&body));
    expect_echo(&mut client, &body);
    // A body that nobody wants has no limit.
    let mut client = server.connect();
    client.send(format!("GET /a HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n", MEMORY + 1));
    for _ in 0..=MEMORY >> 20 {
        client.send(vec![0; 1 << 20].get(..1 << 20).unwrap());
    }
    assert_eq!(client.response().body, b"file");
}

#[test]
fn an_announced_length_holds_nothing_before_it_comes() {
    let server = echo("");
    let mut clients: Vec<Client> = Vec::new();
    for _ in 0..100 {
        let mut client = server.connect();
        client.send([&head("POST", LIMIT)[..], b"x"].concat());
        clients.push(client);
    }
    server.await_metric("webserver_request_body_bytes", 100 << 12);
    assert_eq!(server.metric("webserver_request_body_bytes"), 100 << 12);
    assert_eq!(server.get("/a").status, 200);
    drop(clients);
    expect_nothing_held(&server);
}

#[test]
fn bodies_that_do_not_fit_together_are_told_to_come_again() {
    let server = echo("");
    let count = MEMORY / LIMIT;
    let body = content(LIMIT);
    // As many as fit, all but their last byte.
    let mut clients: Vec<Client> = (0..count).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send(&post(&body)[..head("POST", LIMIT).len() + LIMIT - 1]);
    }
    server.await_metric("webserver_request_body_bytes", MEMORY as u64);
    let mut other = server.connect();
    other.send([&head("POST", 2)[..], b"x"].concat());
    let response = other.response();
    assert_eq!((response.status, response.field("retry-after")), (503, Some("1")));
    assert_eq!(response.field("connection"), Some("close"));
    other.expect_finish();
    assert_eq!(server.metric("webserver_requests_refused_total{reason=\"body_memory\"}"), 1);
    // A small body that came whole needs no memory, and a file does not either.
    let mut other = server.connect();
    other.send(post(b"small"));
    expect_echo(&mut other, b"small");
    assert_eq!(server.get("/a").status, 200);
    // The others get theirs, and then there is room again.
    for client in &mut clients {
        client.send(&body[LIMIT - 1..]);
        expect_echo(client, &body);
    }
    expect_nothing_held(&server);
    other.send(chunked(&body, 1 << 20));
    expect_echo(&mut other, &body);
}

#[test]
fn a_client_that_leaves_in_the_middle_of_a_body_leaves_nothing_behind() {
    let server = echo("");
    for length in [1, 5000, 100_000, 3 << 20] {
        for request in [&post(&content(4 << 20))[..], &chunked(&content(4 << 20), 1 << 20)] {
            let mut client = server.connect();
            client.send(&request[..100 + length]);
            server.await_metric("webserver_request_body_bytes", length as u64);
            drop(client);
            expect_nothing_held(&server);
        }
    }
    server.await_no_connections();
    assert_eq!(server.get("/a").status, 200);
}

#[test]
fn a_body_that_stops_is_answered_with_408_and_let_go_of() {
    let server = echo("timeouts: { body: 200ms }");
    for length in [10, 1 << 20] {
        let mut client = server.connect();
        client.send([&head("POST", 2 << 20)[..], &content(length)].concat());
        let response = client.response();
        assert_eq!((response.status, response.field("connection")), (408, Some("close")));
        client.expect_finish();
        expect_nothing_held(&server);
    }
    assert_eq!(server.metric("webserver_timeouts_total{kind=\"body\"}"), 2);
}

#[test]
fn broken_chunks_reach_no_handler_and_are_let_go_of() {
    let server = echo("");
    let mut client = server.connect();
    let mut request = chunked(&content(10_000), 1000);
    request.truncate(request.len() - 20);
    request.extend_from_slice(b"zz\r\n");
    client.send(request);
    assert_eq!(client.response().status, 400);
    client.expect_finish();
    expect_nothing_held(&server);
}

#[test]
fn a_client_that_asks_first_is_told_to_go_on_where_its_body_is_wanted() {
    let server = echo("");
    let ask = |target: &str, length: usize| {
        format!(
            "POST {target} HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n"
        )
    };
    for target in ["/echo", "/echo/next", "/echo/other"] {
        let mut client = server.connect();
        client.send(ask(target, 5));
        assert_eq!(client.response().status, 100);
        client.send("hello");
        expect_echo(&mut client, b"hello");
    }
    for (target, length, status) in [("/a", 5, 405), ("/missing", 5, 405), ("/echo", LIMIT + 1, 413)] {
        let mut client = server.connect();
        client.send(ask(target, length));
        let response = client.response();
        assert_eq!((response.status, response.field("connection")), (status, Some("close")), "{target}");
        client.expect_finish();
    }
}

#[test]
fn who_passes_a_request_on_passes_its_body_too() {
    let server = echo("");
    let mut client = server.connect();
    for length in [10, 100_000] {
        let body = content(length);
        let mut request = String::new();
        write!(request, "POST /echo/next HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n")
            .unwrap();
        client.send([request.as_bytes(), &body].concat());
        expect_echo(&mut client, &body);
    }
}

#[test]
fn a_handler_that_wants_no_body_gets_none_and_the_connection_goes_on() {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    struct Bodiless;
    impl Handler for Bodiless {
        fn handle(self: Rc<Self>, call: &Call<'_>, _: &Rc<Context>) -> Outcome {
            assert!(call.body.is_empty());
            CALLS.fetch_add(1, Ordering::SeqCst);
            Outcome::Ready(Response::new(Status::NO_CONTENT))
        }
    }
    let mut handlers = Handlers::new();
    handlers.add(None, "/echo", || Rc::new(Bodiless)).unwrap();
    let server = start("", handlers);
    let mut client = server.connect();
    for request in [post(b"hello"), chunked(&content(100_000), 5000), post(&content(1 << 20))] {
        client.send(request);
        assert_eq!(client.response().status, 204);
    }
    assert_eq!(CALLS.load(Ordering::SeqCst), 3);
    assert_eq!(server.metric("webserver_request_body_bytes"), 0);
}

#[test]
fn a_body_that_was_dropped_before_a_reload_is_asked_for_again() {
    let server = start("", Handlers::new());
    let mut client = server.connect();
    client.send([&head("POST", 10)[..], b"hello"].concat());
    server.await_metric("webserver_bytes_received_total", head("POST", 10).len() as u64 + 5);
    let mut handlers = Handlers::new();
    handlers.add(None, "/echo", || Rc::new(Echo)).unwrap();
    let mut config = Config::new();
    config.load_yaml("shards: 1\nlisten: [\"127.0.0.1:0\"]").unwrap();
    server.server.reload_with(&config, handlers).unwrap();
    client.send("world");
    let response = client.response();
    assert_eq!((response.status, response.field("retry-after")), (503, Some("1")));
    client.send(post(b"again"));
    expect_echo(&mut client, b"again");
}
