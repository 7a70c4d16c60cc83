//! Bodies from mapped files: shared, bounded, let go, and never trusted when the file changes.

use std::{
    fs::{self, File, OpenOptions},
    path::{Path, PathBuf},
};

use webserver::config::Config;

use crate::{
    harness::{Client, TestServer, wait_until},
    system::{assert_same, bound_receive_buffer, in_child, pattern},
};

/// No content in memory, so that files of all sizes may be mapped, and files trusted without end.
const MEMORY: &str = "response_cache: 0, open_file_cache: { entries: 100, valid: 1h }";
/// The largest file there can be a mapping of.
const LARGE_BYTES: usize = 4 << 20;
/// Responses of [`LARGE_BYTES`] that are more together than sockets take in advance.
const LARGE_COUNT: usize = 8;

/// A server with these limits of a file and of all.
fn server(max_file: usize, max_total: usize) -> TestServer {
    server_with(max_file, max_total, MEMORY)
}

fn server_with(max_file: usize, max_total: usize, memory: &str) -> TestServer {
    let yaml = format!("memory: {{ mmap: {{ max_file: {max_file}, max_total: {max_total} }}, {memory} }}");
    TestServer::start(&yaml, &[("other", b"other")])
}

fn path(server: &TestServer, name: &str) -> PathBuf {
    server.folder.path().join(name)
}

fn writable(server: &TestServer, name: &str) -> File {
    OpenOptions::new().write(true).open(path(server, name)).unwrap()
}

/// Asks for a file until it comes from a mapping.
fn map(server: &TestServer, name: &str, content: &[u8]) {
    let mut client = server.connect();
    let before = server.metric("webserver_mapped_sent_bytes_total");
    wait_until("the file to be mapped", || {
        assert_same(name, &client.request("GET", &format!("/{name}"), "").body, content);
        server.metric("webserver_mapped_sent_bytes_total") > before
    });
}

/// Asks for a large mapped file so often that the socket cannot take it all, and reads the first head.
fn stall(server: &TestServer, name: &str) -> Client {
    let mut client = server.connect();
    bound_receive_buffer(&client.stream);
    client.send(format!("GET /{name} HTTP/1.1\r\nHost: test\r\n\r\n").repeat(LARGE_COUNT));
    assert_eq!(client.head_response().field("content-length"), Some("4194304"));
    client
}

/// Reads what [`stall`] left, whole: the file as it was, and from some response on perhaps as it is now.
fn finish(client: &mut Client, content: &[u8], later: &[u8]) {
    while client.received.len() < content.len() {
        assert!(client.receive() > 0, "closed before the end");
    }
    let rest = client.received.split_off(content.len());
    assert_same("the first", &client.received, content);
    client.received = rest;
    let mut expected = content;
    for _ in 1..LARGE_COUNT {
        let body = client.response().body;
        if body != expected {
            expected = later;
        }
        assert_same("another", &body, expected);
    }
}

/// Mappings that this process has of a file.
fn mappings_of(path: &Path) -> usize {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().filter(|line| line.ends_with(path.to_str().unwrap())).count()
}

#[test]
fn mapped_files_arrive_byte_for_byte_and_in_parts() {
    let server = server(LARGE_BYTES, 64 << 20);
    let sizes = [1, 13, 4095, 4096, 4097, (16 << 10) + 1, 256 << 10, LARGE_BYTES];
    for size in sizes {
        let name = size.to_string();
        server.write(&name, &pattern()[..size]);
        map(&server, &name, &pattern()[..size]);
        let mut client = server.connect();
        let ends = [(0, 0), (size / 3, size / 2), (size / 2, size - 1), (4095, 4096), (0, size - 1)];
        for (first, last) in ends.into_iter().filter(|(_, last)| *last < size) {
            let before = server.metric("webserver_mapped_sent_bytes_total");
            let fields = format!("Range: bytes={first}-{last}\r\n");
            let response = client.request("GET", &format!("/{name}"), &fields);
            assert_eq!(response.status, 206);
            assert_same(&format!("{first}-{last} of {size}"), &response.body, &pattern()[first..=last]);
            let sent = server.metric("webserver_mapped_sent_bytes_total") - before;
            assert_eq!(sent, (last - first + 1) as u64, "{first}-{last} of {size}");
        }
        let before = server.metric("webserver_mapped_sent_bytes_total");
        let head = client.request("HEAD", &format!("/{name}"), "");
        assert_eq!(head.field("content-length"), Some(name.as_str()));
        assert_eq!(server.metric("webserver_mapped_sent_bytes_total"), before);
    }
    let pages = sizes.iter().map(|size| size.next_multiple_of(4096)).sum::<usize>();
    assert_eq!(server.metric("webserver_mapped_bytes"), pages as u64);
    assert_eq!(server.metric("webserver_responses_cut_total"), 0);
}

#[test]
fn clients_of_one_file_share_its_mapping() {
    let server = server(LARGE_BYTES, LARGE_BYTES);
    server.write("a", &pattern()[..LARGE_BYTES]);
    map(&server, "a", &pattern()[..LARGE_BYTES]);
    let mut clients: Vec<Client> = (0..4).map(|_| stall(&server, "a")).collect();
    assert_eq!(server.metric("webserver_mapped_bytes"), LARGE_BYTES as u64);
    assert_eq!(mappings_of(&path(&server, "a")), 1);
    for client in &mut clients {
        finish(client, &pattern()[..LARGE_BYTES], &pattern()[..LARGE_BYTES]);
    }
    assert_eq!(server.metric("webserver_responses_cut_total"), 0);
}

#[test]
fn files_are_mapped_up_to_the_limit_of_a_file_and_of_all() {
    let server = server(8192, 12288);
    let mut client = server.connect();
    let mut ask = |name: &str, size: usize| {
        for _ in 0..40 {
            let body = client.request("GET", &format!("/{name}"), "").body;
            assert_same(name, &body, &pattern()[..size]);
        }
    };
    server.write("past", &pattern()[..8193]);
    ask("past", 8193);
    assert_eq!(server.metric("webserver_mapped_bytes"), 0);
    server.write("at", &pattern()[..8192]);
    map(&server, "at", &pattern()[..8192]);
    server.write("last", &pattern()[..4096]);
    map(&server, "last", &pattern()[..4096]);
    assert_eq!(server.metric("webserver_mapped_bytes"), 12288);
    server.write("beyond", &pattern()[..1]);
    ask("beyond", 1);
    assert_eq!(server.metric("webserver_mapped_bytes"), 12288);
    assert_eq!(mappings_of(&path(&server, "beyond")), 0);
}

#[test]
fn a_mapping_lasts_as_long_as_the_last_response() {
    let server = server(LARGE_BYTES, 64 << 20);
    let name = path(&server, "a");
    server.write("a", &pattern()[..LARGE_BYTES]);
    map(&server, "a", &pattern()[..LARGE_BYTES]);
    let mut clients: Vec<Client> = (0..2).map(|_| stall(&server, "a")).collect();
    let mut config = Config::new();
    let root = server.folder.path().display();
    config
        .load_yaml(&format!(
            "shards: 1\nlisten: [\"127.0.0.1:0\"]\nroutes: [{{ path: /, root: {root} }}]\nmemory: {{ mmap: {{ max_file: 0 }}, {MEMORY} }}"
        ))
        .unwrap();
    server.server.reload(&config).unwrap();
    for mut client in clients.drain(..) {
        assert_eq!(mappings_of(&name), 1);
        assert_eq!(server.metric("webserver_mapped_bytes"), LARGE_BYTES as u64);
        finish(&mut client, &pattern()[..LARGE_BYTES], &pattern()[..LARGE_BYTES]);
    }
    wait_until("the file to be unmapped", || mappings_of(&name) == 0);
    wait_until("that to be counted", || server.metric("webserver_mapped_bytes") == 0);
    assert_eq!(server.metric("webserver_responses_cut_total"), 0);
    // Once more, from the descriptor.
    let before = server.metric("webserver_mapped_sent_bytes_total");
    assert_same("a", &server.get("/a").body, &pattern()[..LARGE_BYTES]);
    assert_eq!(server.metric("webserver_mapped_sent_bytes_total"), before);
}

#[test]
fn clients_that_leave_let_go_of_the_mapping() {
    in_child("mapped::a_server_that_ends_leaves_no_mapping");
}

#[test]
#[ignore = "run in a process of its own, which looks at all its mappings"]
fn a_server_that_ends_leaves_no_mapping() {
    let server = server(LARGE_BYTES, 64 << 20);
    let name = path(&server, "a");
    server.write("a", &pattern()[..LARGE_BYTES]);
    map(&server, "a", &pattern()[..LARGE_BYTES]);
    drop([stall(&server, "a"), stall(&server, "a")]);
    let kept = stall(&server, "a");
    assert_eq!(mappings_of(&name), 1);
    // Cut in the middle of a response.
    server.server.stop(std::time::Duration::ZERO).unwrap();
    assert_eq!(mappings_of(&name), 0);
    drop(kept);
}

#[test]
fn a_mapped_file_that_is_cut_while_it_is_sent_closes_that_connection_alone() {
    let server = server(LARGE_BYTES, 64 << 20);
    // To nothing, at the end of a page, and in the middle of the last one: only that gives zeros and no error.
    for length in [0, 8192, LARGE_BYTES - 1000] {
        let name = length.to_string();
        server.write(&name, &pattern()[..LARGE_BYTES]);
        map(&server, &name, &pattern()[..LARGE_BYTES]);
        let mut other = server.connect();
        let cut = server.metric("webserver_responses_cut_total");
        let mut client = stall(&server, &name);
        writable(&server, &name).set_len(length as u64).unwrap();
        let rest = client.rest();
        assert!(rest.len() < LARGE_BYTES * LARGE_COUNT, "a file that was cut arrived {LARGE_COUNT} times");
        server.await_metric("webserver_responses_cut_total", cut + 1);
        assert_eq!(other.request("GET", "/other", "").body, b"other");
    }
    assert_eq!(server.metric("webserver_panics_total"), 0);
}

#[test]
fn a_mapped_file_that_was_cut_before_is_not_sent_from_its_mapping() {
    let server = server(LARGE_BYTES, 64 << 20);
    server.write("a", &pattern()[..100_000]);
    map(&server, "a", &pattern()[..100_000]);
    for length in [99_999, 5000, 0] {
        writable(&server, "a").set_len(length).unwrap();
        let before = server.metric("webserver_mapped_sent_bytes_total");
        let mut client = server.connect();
        client.send("GET /a HTTP/1.1\r\nHost: test\r\n\r\n");
        assert_eq!(client.head_response().field("content-length"), Some("100000"));
        assert_same("what is left", &client.rest(), &pattern()[..length as usize]);
        assert_eq!(server.metric("webserver_mapped_sent_bytes_total"), before);
    }
    wait_until("the old pages to be unmapped", || mappings_of(&path(&server, "a")) == 0);
}

#[test]
fn a_mapped_file_that_is_replaced_is_sent_to_its_end() {
    let memory = "response_cache: 0, open_file_cache: { entries: 100, valid: 1ms }";
    let server = server_with(LARGE_BYTES, 64 << 20, memory);
    let (old, new) = (&pattern()[..LARGE_BYTES], &pattern()[1..=LARGE_BYTES]);
    server.write("a", old);
    map(&server, "a", old);
    let mut client = stall(&server, "a");
    server.write("new", new);
    fs::rename(path(&server, "new"), path(&server, "a")).unwrap();
    wait_until("the new file", || server.get("/a").body == new);
    map(&server, "a", new);
    finish(&mut client, old, new);
    assert_eq!(server.metric("webserver_responses_cut_total"), 0);
}
