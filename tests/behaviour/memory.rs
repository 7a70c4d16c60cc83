//! The memory budget: what each step of a connection holds, what gives way as memory gets short, and that all of it
//! comes back. Memory is made short by the host, which charges its own.

use std::{
    io::Write,
    rc::Rc,
    sync::{Arc, Mutex},
    time::Instant,
};

use webserver::{
    ErrorKind,
    config::Config,
    http::{Request, Status},
    memory::Level,
    runtime,
    server::Options,
    service::{Body, BodyWanted, Call, Context, Handler, Handlers, Outcome, Response},
};

use crate::{
    harness::{Client, TestServer, content, wait_until, write},
    https::{Https, VERSIONS},
    tls_client::{TlsClient, TlsStream},
};

const BUDGET: u64 = 64 << 20;

/// Says how long the body was.
pub struct Length;

impl Handler for Length {
    fn handle(self: Rc<Self>, call: &Call<'_>, _: &Rc<Context>) -> Outcome {
        let mut response = Response::new(Status::OK);
        response.body = Body::Shared(call.body.len().to_string().into());
        Outcome::Ready(response)
    }

    fn body_wanted(&self, _: Request<'_>) -> BodyWanted {
        BodyWanted::Whole
    }
}

/// Answers a megabyte of its own.
pub struct Large;

impl Handler for Large {
    fn handle(self: Rc<Self>, _: &Call<'_>, _: &Rc<Context>) -> Outcome {
        let mut response = Response::new(Status::OK);
        response.body = Body::Owned(vec![b'x'; 1 << 20]);
        Outcome::Ready(response)
    }
}

/// Asks whether there is memory for the megabytes that the query wants, and says so.
struct Careful;

impl Handler for Careful {
    fn handle(self: Rc<Self>, call: &Call<'_>, context: &Rc<Context>) -> Outcome {
        let query = std::str::from_utf8(call.request.query().unwrap_or_default()).unwrap_or_default();
        let megabytes: usize = query.parse().unwrap_or_default();
        let held = context.reserve(megabytes << 20);
        let mut response = Response::new(Status::OK);
        let told = match &held {
            Ok(held) => held.as_ref().map_or(0, webserver::memory::Reservation::bytes).to_string(),
            Err(error) => format!("{error:?}"),
        };
        response.body = Body::Shared(told.into());
        Outcome::Ready(response)
    }
}

/// Answers when the file `go` is there.
pub struct Later(pub std::path::PathBuf);

impl Handler for Later {
    fn handle(self: Rc<Self>, _: &Call<'_>, _: &Rc<Context>) -> Outcome {
        Outcome::Pending(Box::pin(async move {
            while !self.0.exists() {
                runtime::sleep(std::time::Duration::from_millis(1)).await;
            }
            Response::page(Status::OK)
        }))
    }
}

/// One shard with a budget of 64 MB, an admin listener, files and handlers.
fn start(yaml: &str, options: Options) -> TestServer {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "small", b"small");
    write(folder.path(), "hot", &content(10_000));
    write(folder.path(), "large", &content(8 << 20));
    let root = folder.path().display().to_string();
    let go = folder.path().join("go");
    let mut handlers = Handlers::new();
    handlers.add(None, "/length", || Rc::new(Length)).unwrap();
    handlers.add(None, "/own", || Rc::new(Large)).unwrap();
    handlers.add(None, "/careful", || Rc::new(Careful)).unwrap();
    handlers.add(None, "/later", move || Rc::new(Later(go.clone()))).unwrap();
    let text = format!(
        "shards: 1\nlisten: [\"127.0.0.1:0\"]\nadmin: {{ address: \"127.0.0.1:0\" }}\n\
         routes: [{{ root: {root} }}]\nmemory: {{ budget: {BUDGET} }}\n{yaml}\n"
    );
    TestServer::with_options(&text, folder, Options { handlers, ..options })
}

fn plain() -> TestServer {
    start("", Options::default())
}

fn used(server: &TestServer, holder: &str) -> u64 {
    server.metric(&format!("webserver_memory_used_bytes{{holder=\"{holder}\"}}"))
}

fn relief(server: &TestServer, action: &str) -> u64 {
    server.metric(&format!("webserver_memory_relief_total{{action=\"{action}\"}}"))
}

/// What connections and requests hold, without what the server holds for itself.
fn held(server: &TestServer) -> u64 {
    ["connections", "buffers_in_use", "request_bodies", "response_bodies"]
        .iter()
        .map(|holder| used(server, holder))
        .sum()
}

/// Charges as much as makes `percent` of the budget used, and waits until the server has noticed.
fn fill_to(server: &TestServer, percent: u64, level: Level) -> usize {
    let used = server.server.stats().totals.memory_used_bytes;
    let bytes = usize::try_from(BUDGET * percent / 100 - used).unwrap();
    server.server.charge(bytes).unwrap();
    await_level(server, level);
    bytes
}

fn await_level(server: &TestServer, level: Level) {
    wait_until(&format!("{level:?}"), || server.metric("webserver_memory_pressure") == level as u64);
}

fn admin(server: &TestServer, path: &str) -> u16 {
    let port = server.server.port(Some("admin")).unwrap();
    let mut client = Client::connect(([127, 0, 0, 1], port).into());
    client.ask(format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")).status
}

#[test]
fn each_step_of_a_connection_holds_what_the_profile_allows() {
    // As many as share two pages of the state of requests.
    const CLIENTS: u64 = 18;
    let server = plain();
    let start = held(&server);
    let step = |what: &str, allowed: std::ops::RangeInclusive<u64>| {
        let each = || (held(&server) - start).div_ceil(CLIENTS);
        wait_until(&format!("{what}: {allowed:?}, not {}", each()), || allowed.contains(&each()));
    };
    // 1: a slot, which was there before.
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| server.connect()).collect();
    server.await_metric("webserver_connections_accepted_total", CLIENTS);
    step("accepted", 0..=0);
    // 3: one small buffer, and the state of a request.
    clients.iter_mut().for_each(|client| client.send("GET /later HTTP/1.1\r\nHost: t\r\n"));
    step("reading headers", 4864..=4864);
    // 4: the head is kept, and the handler has a copy.
    clients.iter_mut().for_each(|client| client.send("\r\n"));
    step("processing", 6912..=7168);
    server.write("go", b"");
    clients.iter_mut().for_each(|client| assert_eq!(client.response().status, 200));
    // 6: nothing but the slot; what is kept for the next request, whoever asks, is the shard's.
    server.await_metric("webserver_connections_idle", CLIENTS);
    step("kept alive", 0..=768);
    // 5: a file is sent from the page cache, without memory for it.
    for client in &mut clients {
        client.send("GET /large HTTP/1.1\r\nHost: t\r\n\r\n");
        assert!(client.response_begins());
    }
    step("sending", 0..=(5 << 10));
    // 7: everything.
    drop(clients);
    server.await_no_connections();
    assert_eq!(used(&server, "buffers_in_use"), 0);
    step("closed, and a while later", 0..=0);
}

#[test]
fn each_step_of_a_connection_over_tls_holds_what_the_profile_allows() {
    const CLIENTS: usize = 18;
    const REQUEST: &str = "GET /later HTTP/1.1\r\nHost: t\r\n\r\n";
    let server = Https::start("", "", &[("large", &content(8 << 20))]);
    let all = || held(&server.server) + used(&server.server, "tls");
    let start = all();
    let step = |what: &str, allowed: std::ops::RangeInclusive<u64>| {
        let each = || (all() - start).div_ceil(CLIENTS as u64);
        wait_until(&format!("{what}: {allowed:?}, not {}", each()), || allowed.contains(&each()));
    };
    let connectors = VERSIONS.map(|versions| server.connector(versions));
    let mut clients: Vec<TlsClient> = (0..CLIENTS)
        .map(|number| {
            let stream = TlsStream {
                tls: connectors[number % 2].connection(),
                socket: server.server.connect().stream,
            };
            Client { stream, received: Vec::new() }
        })
        .collect();
    server.server.await_metric("webserver_connections_accepted_total", CLIENTS as u64);
    step("accepted", 0..=0);
    // 2: what a handshake needs, at first with a part of the hello in a small buffer.
    let mut hellos = Vec::new();
    for client in &mut clients {
        let mut hello = Vec::new();
        client.stream.tls.write_tls(&mut hello).unwrap();
        client.stream.socket.write_all(&hello[..100]).unwrap();
        hellos.push(hello);
    }
    step("reading a hello", (12 + 4) << 10..=(12 + 4) << 10);
    for (client, hello) in clients.iter_mut().zip(hellos) {
        client.stream.socket.write_all(&hello[100..]).unwrap();
        assert!(client.stream.socket.peek(&mut [0]).unwrap() > 0);
    }
    step("handshake", 12 << 10..=12 << 10);
    for client in &mut clients {
        while client.stream.tls.is_handshaking() {
            client.stream.tls.complete_io(&mut client.stream.socket).unwrap();
        }
        client.stream.flush().unwrap();
    }
    step("established", 4096..=4096);
    // 3 and 4: as without TLS, a record being whole.
    clients.iter_mut().for_each(|client| client.send(&REQUEST[..20]));
    step("reading headers", 4096 + 4864..=4096 + 4864);
    clients.iter_mut().for_each(|client| client.send(&REQUEST[20..]));
    step("processing", 4096 + 6912..=4096 + 7168);
    server.server.write("go", b"");
    clients.iter_mut().for_each(|client| assert_eq!(client.response().status, 200));
    // 6: the session, and nothing else but the slot.
    server.server.await_metric("webserver_connections_idle", CLIENTS as u64);
    let kept_by_the_shard = 768;
    step("kept alive", 4096..=4096 + kept_by_the_shard);
    // 5: what is encrypted and not taken.
    for client in &mut clients {
        client.send("GET /large HTTP/1.1\r\nHost: t\r\n\r\n");
        assert!(client.response_begins());
    }
    step("sending", 4096..=40 << 10);
    // 7: everything.
    drop(clients);
    server.server.await_no_connections();
    step("closed, and a while later", 0..=0);
}

#[test]
fn what_is_used_is_named_and_stays_within_the_budget() {
    let server = plain();
    for _ in 0..4 {
        assert_eq!(server.get("/small").status, 200);
        assert_eq!(server.get("/hot").status, 200);
    }
    for holder in ["connections", "open_files", "response_cache", "substrate"] {
        assert!(used(&server, holder) > 0, "{holder}");
    }
    assert_eq!(used(&server, "response_cache"), server.metric("webserver_response_cache_bytes"));
    assert_eq!(server.metric("webserver_memory_budget_bytes"), BUDGET);
    let totals = server.server.stats().totals;
    assert!(totals.memory_used_bytes > 0 && totals.memory_used_bytes <= totals.memory_peak_bytes);
    assert!(totals.memory_peak_bytes <= totals.memory_budget_bytes);
}

#[test]
fn caches_shrink_at_elevated() {
    let server = plain();
    for name in 0..20 {
        server.write(&format!("f{name}"), &content(1000));
    }
    for _ in 0..3 {
        (0..20).for_each(|name| assert_eq!(server.get(&format!("/f{name}")).status, 200));
    }
    let before = 20_000;
    wait_until("the files to be cached", || server.metric("webserver_response_cache_bytes") == before);
    let charged = fill_to(&server, 72, Level::Elevated);
    wait_until("the caches to shrink", || relief(&server, "caches_shrunk") == 1);
    wait_until("70 %", || server.metric("webserver_response_cache_bytes") == before / 10 * 7);
    assert_eq!(server.metric("webserver_open_file_cache_entries"), 14);
    server.server.release(charged);
    await_level(&server, Level::Normal);
    assert_eq!(relief(&server, "idle_closed") + relief(&server, "caches_cleared"), 0);
}

#[test]
fn nothing_is_cached_and_idle_connections_end_at_high_and_it_passes() {
    let server = plain();
    let mut idle = server.connect();
    assert_eq!(idle.request("GET", "/hot", "").status, 200);
    assert_eq!(server.get("/hot").status, 200);
    let cached = || server.metric("webserver_response_cache_bytes");
    wait_until("the file to be cached", || cached() == 10_000);
    let charged = fill_to(&server, 88, Level::High);
    idle.expect_finish();
    wait_until("the cache to be cleared", || server.metric("webserver_response_cache_bytes") == 0);
    assert_eq!(
        [relief(&server, "idle_closed"), relief(&server, "caches_cleared"), relief(&server, "pool_halved")],
        [1; 3]
    );
    for _ in 0..3 {
        assert_eq!(server.get("/hot").status, 200);
    }
    assert_eq!(server.metric("webserver_response_cache_bytes"), 0);
    server.write("new", b"new");
    assert_eq!(server.get("/new").status, 200);
    server.server.release(charged);
    await_level(&server, Level::Normal);
    for _ in 0..3 {
        assert_eq!(server.get("/hot").status, 200);
    }
    wait_until("it to be cached again", || cached() == 10_000);
}

#[test]
fn new_connections_are_told_to_come_back_at_critical_and_admin_gets_in() {
    let server = plain();
    assert_eq!(admin(&server, "/healthz"), 200);
    let charged = fill_to(&server, 96, Level::Critical);
    let refused = server.get("/small");
    assert_eq!((refused.status, refused.field("retry-after")), (503, Some("1")));
    assert_eq!(server.metric("webserver_connections_shed_total{reason=\"memory\"}"), 1);
    assert_eq!(relief(&server, "refused"), 1);
    assert_eq!((admin(&server, "/metrics"), admin(&server, "/healthz")), (200, 503));
    server.server.release(charged);
    await_level(&server, Level::Normal);
    assert_eq!((server.get("/small").status, admin(&server, "/healthz")), (200, 200));
}

#[test]
fn a_quarter_of_the_connections_ends_each_second_at_critical_those_that_hold_most_first() {
    let server = plain();
    let partial = |filler: usize| {
        let mut client = server.connect();
        client.send(format!("GET / HTTP/1.1\r\nHost: t\r\nA: {}\r\n", "a".repeat(filler)));
        client
    };
    let mut small: Vec<Client> = (0..3).map(|_| partial(10)).collect();
    let mut large = partial(10_000);
    wait_until("four heads", || used(&server, "buffers_in_use") == (3 * 4 + 16) << 10);
    let begun = Instant::now();
    let charged = fill_to(&server, 96, Level::Critical);
    // It is told why, and the others are still there.
    assert_eq!(large.response().status, 503);
    assert_eq!(relief(&server, "active_closed"), 1);
    for (index, client) in small.iter_mut().enumerate() {
        assert_eq!(client.response().status, 503);
        assert!(begun.elapsed().as_millis() >= 900 * (index as u128 + 1), "once a second");
    }
    assert_eq!(relief(&server, "active_closed"), 4);
    server.server.release(charged);
    await_level(&server, Level::Normal);
    assert_eq!(used(&server, "buffers_in_use"), 0);
}

#[test]
fn a_body_waits_for_memory_and_goes_on_when_there_is_some() {
    let server = plain();
    let charged = fill_to(&server, 87, Level::High);
    let mut client = server.connect();
    client.send("POST /length HTTP/1.1\r\nHost: t\r\nContent-Length: 12000000\r\n\r\n");
    let mut sender = client.stream.try_clone().unwrap();
    let sending = std::thread::spawn(move || Write::write_all(&mut sender, &content(12_000_000)));
    // It doubles what it holds until there is no room for that.
    let refused = "webserver_memory_refused_total{holder=\"request_bodies\"}";
    server.await_metric(refused, 1);
    assert_eq!(used(&server, "request_bodies"), 4 << 20);
    // Whoever needs no memory is served meanwhile.
    assert_eq!(server.get("/small").status, 200);
    server.server.release(charged);
    assert_eq!(client.response().body, b"12000000");
    sending.join().unwrap().unwrap();
    wait_until("the body to be given back", || used(&server, "request_bodies") == 0);
}

#[test]
fn a_body_that_waits_too_long_is_refused_and_gives_back_what_it_had() {
    let server = plain();
    let charged = fill_to(&server, 87, Level::High);
    let mut client = server.connect();
    client.send("POST /length HTTP/1.1\r\nHost: t\r\nContent-Length: 12000000\r\n\r\n");
    let mut sender = client.stream.try_clone().unwrap();
    let sending = std::thread::spawn(move || {
        // It ends when the server has given up.
        let _ = Write::write_all(&mut sender, &content(12_000_000));
    });
    assert_eq!(client.response().status, 503);
    assert_eq!(server.metric("webserver_requests_refused_total{reason=\"body_memory\"}"), 1);
    assert_eq!(used(&server, "request_bodies"), 0);
    drop(client);
    sending.join().unwrap();
    server.server.release(charged);
}

#[test]
fn replies_that_clients_do_not_take_count_until_they_are_sent_or_cut() {
    let server = plain();
    let ask = || {
        let mut client = server.connect();
        client.send("GET /own HTTP/1.1\r\nHost: t\r\n\r\n".repeat(20));
        client
    };
    // The kernel takes a part of what each is sent, and then one reply waits as a whole or in part.
    let mut slow = Vec::new();
    for waiting in 1..5 {
        slow.push(ask());
        wait_until("a reply to wait", || used(&server, "response_bodies") == waiting << 20);
    }
    drop(slow);
    wait_until("all of it to be given back", || used(&server, "response_bodies") == 0);
    assert_eq!(server.get("/own").body.len(), 1 << 20);
}

#[test]
fn a_handler_learns_before_it_makes_a_body_that_there_is_no_memory_for_it() {
    let server = plain();
    assert_eq!(server.get("/careful?0").body, b"0");
    assert_eq!(server.get("/careful?20").body, (20 << 20).to_string().into_bytes());
    let charged = fill_to(&server, 80, Level::Elevated);
    assert_eq!(server.get("/careful?20").body, b"NoMemory");
    assert_eq!(server.metric("webserver_memory_refused_total{holder=\"response_bodies\"}"), 1);
    server.server.release(charged);
    await_level(&server, Level::Normal);
    assert_eq!(server.get("/careful?20").body, (20 << 20).to_string().into_bytes());
    assert_eq!(used(&server, "response_bodies"), 0);
}

#[test]
fn the_host_hears_of_each_level_once_and_in_order() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let tell = {
        let heard = Arc::clone(&heard);
        move |level, used, budget| heard.lock().unwrap().push((level, used <= budget, budget))
    };
    let server = start("", Options { on_pressure: Some(Arc::new(tell)), ..Options::default() });
    let mut charged = 0;
    for (percent, level) in [(75, Level::Elevated), (90, Level::High), (96, Level::Critical)] {
        charged += fill_to(&server, percent, level);
    }
    server.server.release(charged);
    await_level(&server, Level::Normal);
    wait_until("the host to hear", || heard.lock().unwrap().len() == 4);
    let levels = [Level::Elevated, Level::High, Level::Critical, Level::Normal];
    assert_eq!(*heard.lock().unwrap(), levels.map(|level| (level, true, BUDGET)));
    for level in ["normal", "elevated", "high", "critical"] {
        let entered = format!("webserver_memory_pressure_entered_total{{level=\"{level}\"}}");
        assert_eq!(server.metric(&entered), 1, "{level}");
    }
}

#[test]
fn a_charge_that_does_not_fit_is_refused_with_the_figures() {
    let server = plain();
    let error = server.server.charge(usize::try_from(BUDGET).unwrap()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Memory);
    assert!(error.message().contains("67108864 bytes do not fit"), "{error}");
    assert_eq!(used(&server, "host"), 0);
    server.server.charge(1000).unwrap();
    assert_eq!(used(&server, "host"), 1000);
    server.server.release(5000);
    assert_eq!(used(&server, "host"), 0);
}

#[test]
fn a_reload_changes_the_budget_and_the_level_follows() {
    let server = plain();
    server.server.charge(40 << 20).unwrap();
    let mut config = Config::new();
    let root = server.folder.path().display();
    let text = |budget: u64| {
        format!(
            "shards: 1\nlisten: [\"127.0.0.1:0\"]\nadmin: {{ address: \"127.0.0.1:0\" }}\n\
             routes: [{{ root: {root} }}]\nmemory: {{ budget: {budget} }}\n"
        )
    };
    config.load_yaml(&text(50 << 20)).unwrap();
    server.server.reload(&config).unwrap();
    await_level(&server, Level::Elevated);
    config.load_yaml(&text(400 << 20)).unwrap();
    server.server.reload(&config).unwrap();
    await_level(&server, Level::Normal);
    server.server.charge(200 << 20).unwrap();
}

#[test]
fn free_buffers_are_given_up_when_nobody_needs_them() {
    let server = plain();
    let clients: Vec<Client> = (0..50)
        .map(|_| {
            let mut client = server.connect();
            client.send("GET / HTTP/1.1\r\n");
            client
        })
        .collect();
    wait_until("fifty heads", || used(&server, "buffers_in_use") == 50 * 4096);
    drop(clients);
    server.await_no_connections();
    assert_eq!(used(&server, "buffers_in_use"), 0);
    wait_until("the free ones to go", || used(&server, "buffers_free") == 0);
    assert_eq!(server.metric("webserver_buffer_pool_available{size=\"small\"}"), 0);
}
