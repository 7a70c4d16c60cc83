//! What the admin listener tells as JSON: the figures of the server, and which connections hold most.

use std::{
    net::{Ipv4Addr, SocketAddr},
    rc::Rc,
    sync::{Mutex, mpsc},
};

use serde_json::Value;
use webserver::{
    ErrorKind,
    server::Options,
    service::{Call, Handlers, Outcome},
};

use crate::{
    handlers::{Told, says},
    harness::{Client, TestServer, wait_until},
};

/// Two shards and an admin listener, over a folder with `a.txt`.
fn server() -> TestServer {
    TestServer::start(
        "shards: 2\nadmin: { address: \"127.0.0.1:0\" }\nmemory: { worker_connections: 64 }",
        &[("a.txt", b"a")],
    )
}

pub fn admin(server: &TestServer) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, server.server.port(Some("admin")).unwrap()))
}

fn ask(server: &TestServer, target: &str) -> Value {
    let response = Client::connect(admin(server)).request("GET", target, "");
    assert_eq!(response.status, 200, "{target}");
    assert_eq!(response.field("content-type"), Some("application/json"));
    assert_eq!(response.field("cache-control"), Some("no-store"));
    serde_json::from_slice(&response.body).unwrap()
}

fn peers(answer: &Value) -> Vec<String> {
    let connections = answer["connections"].as_array().unwrap();
    connections.iter().map(|one| one["peer"].as_str().unwrap().to_owned()).collect()
}

/// A connection that has sent the start of a head and no more.
fn with_partial_head(server: &TestServer, bytes: usize) -> Client {
    let mut client = server.connect();
    client.send(format!("GET / HTTP/1.1\r\nHost: test\r\nX-A: {}", "a".repeat(bytes)));
    client
}

#[test]
fn status_json_has_the_figures_of_the_metrics() {
    let server = server();
    let mut clients: Vec<Client> = (0..6).map(|_| server.connect()).collect();
    for client in &mut clients {
        assert_eq!(client.request("GET", "/a.txt", "").status, 200);
    }
    server.await_metric("webserver_connections_idle", 6);
    let sent_bytes = server.metric("webserver_bytes_sent_total");
    let status = ask(&server, "/status.json");
    assert_eq!(status["state"], "accepting");
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["connections"]["idle"], 6);
    assert_eq!(status["requests"]["by_class"]["2xx"], 6);
    assert_eq!(status["bytes_sent"], sent_bytes);
    assert!(status["process"]["rss_bytes"].as_u64().unwrap() > 1 << 20);
    let shards = status["shards"].as_array().unwrap();
    assert_eq!(shards.len(), 2);
    let idle = shards.iter().map(|shard| shard["connections"]["idle"].as_u64().unwrap());
    assert_eq!(idle.sum::<u64>(), 6);
    let later = ask(&server, "/status.json");
    assert!(later["requests"]["total"].as_u64() > status["requests"]["total"].as_u64());
    assert_eq!(later["started_unix_seconds"], status["started_unix_seconds"]);
}

#[test]
fn figures_are_only_read() {
    let server = server();
    for target in ["/status", "/status.json", "/connections.json"] {
        let mut client = Client::connect(admin(&server));
        let length = client.request("GET", target, "").body.len();
        let head = client.request("HEAD", target, "");
        assert_eq!(head.status, 200, "{target}");
        let told: usize = head.field("content-length").unwrap().parse().unwrap();
        assert!(told.abs_diff(length) < 400, "{target}: {told} of {length}");
        let refused = client.request("DELETE", target, "");
        assert_eq!((refused.status, refused.field("allow")), (405, Some("GET, HEAD, OPTIONS")), "{target}");
        // The site's own listener does not know them.
        assert_eq!(server.get(target).status, 404, "{target}");
    }
}

#[test]
fn connections_are_told_by_what_they_hold() {
    let server = server();
    let mut idle = server.connect();
    assert_eq!(idle.request("GET", "/a.txt", "").status, 200);
    let (small, large) = (with_partial_head(&server, 10), with_partial_head(&server, 9000));
    let peer = |client: &Client| client.stream.local_addr().unwrap().to_string();
    wait_until("both heads are kept", || {
        let answer = ask(&server, "/connections.json");
        answer["connections"][1]["held"]["buffers"].as_u64().is_some_and(|bytes| bytes > 0)
    });
    let answer = ask(&server, "/connections.json");
    assert_eq!(answer["limit"], 20);
    assert_eq!(answer["silent_shards"], serde_json::json!([]));
    // The last one is the admin connection that asks; what it holds is the head of its request.
    assert_eq!(answer["connections"].as_array().unwrap().len(), 4);
    assert_eq!(peers(&answer)[0], peer(&large));
    let first = &answer["connections"][0];
    assert_eq!((first["state"].as_str(), first["listener"].as_str()), (Some("head"), Some("127.0.0.1:0")));
    assert_eq!(first["held"]["buffers"], 16 << 10);
    let sum: u64 = first["held"].as_object().unwrap().values().map(|bytes| bytes.as_u64().unwrap()).sum();
    assert_eq!(first["held_bytes"], sum);
    let of = |client: &Client| {
        let position = peers(&answer).iter().position(|name| *name == peer(client)).unwrap();
        answer["connections"][position].clone()
    };
    assert_eq!(of(&small)["held"]["buffers"], 4 << 10);
    assert_eq!((of(&idle)["state"].as_str(), &of(&idle)["requests"]), (Some("idle"), &Value::from(1)));
    assert_eq!(of(&idle)["held_bytes"], of(&idle)["held"]["state"], "no buffer");
    let asking = answer["connections"].as_array().unwrap().iter().find(|one| one["listener"] == "admin");
    assert_eq!(asking.unwrap()["state"], "waiting");
    // The largest of all shards, however many each has.
    let answer = ask(&server, "/connections.json?limit=1");
    assert_eq!(peers(&answer), [peer(&large)]);
    let of_host: Value = serde_json::from_str(&server.server.largest_connections(1).unwrap()).unwrap();
    assert_eq!(of_host, answer);
    drop((idle, small, large));
    server.await_no_connections();
    assert_eq!(server.server.largest_connections(1000).unwrap().matches("held_bytes").count(), 0);
}

#[test]
fn a_limit_out_of_bounds_is_refused() {
    let server = server();
    for limit in ["0", "1001", "x", ""] {
        let response =
            Client::connect(admin(&server)).request("GET", &format!("/connections.json?limit={limit}"), "");
        assert_eq!(response.status, 400, "{limit}");
    }
    for limit in [0, 1001] {
        let refused = server.server.largest_connections(limit).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Invalid, "{limit}");
    }
    assert_eq!(ask(&server, "/connections.json?limit=1000")["limit"], 1000);
    server.server.stop(std::time::Duration::ZERO).unwrap();
    assert_eq!(server.server.largest_connections(1).unwrap_err().kind(), ErrorKind::State);
}

#[test]
fn a_shard_that_hangs_is_named_and_the_others_answer() {
    let (entered, hangs) = mpsc::channel();
    let (release, gate) = mpsc::channel::<()>();
    let (entered, gate) = (Mutex::new(entered), Mutex::new(gate));
    let hang: &'static _ = Box::leak(Box::new(move || {
        entered.lock().unwrap().send(()).unwrap();
        let _ = gate.lock().unwrap().recv();
    }));
    let tell = move |_: &Call<'_>| -> Outcome {
        hang();
        says("released")
    };
    let mut handlers = Handlers::new();
    handlers.add(None, "/hang", move || Rc::new(Told(tell))).unwrap();
    let text = "shards: 2\nlisten: [\"127.0.0.1:0\"]\nmemory: { worker_connections: 64 }";
    let options = Options { handlers, ..Options::default() };
    let server = TestServer::with_options(text, tempfile::tempdir().unwrap(), options);
    let mut client = server.connect();
    client.send("GET /hang HTTP/1.1\r\nHost: test\r\n\r\n");
    hangs.recv().unwrap();
    let answer: Value = serde_json::from_str(&server.server.largest_connections(5).unwrap()).unwrap();
    assert_eq!(answer["silent_shards"].as_array().unwrap().len(), 1);
    assert_eq!(answer["connections"], serde_json::json!([]));
    drop(release);
    assert_eq!(client.response().body, b"released");
    let answer: Value = serde_json::from_str(&server.server.largest_connections(5).unwrap()).unwrap();
    assert_eq!(answer["silent_shards"], serde_json::json!([]));
    assert_eq!(answer["connections"].as_array().unwrap().len(), 1);
}
