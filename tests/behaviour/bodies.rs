//! Bodies on their way out: from memory, with `sendfile`, and read past the page cache; whole, in parts, slowly, and cut
//! when the file changes meanwhile.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Write},
    os::unix::fs::FileExt,
    path::Path,
};

use crate::{
    harness::{Client, Response, TestServer, wait_until},
    system::{
        PATTERN_BYTES, assert_left_nothing, assert_same, bound_receive_buffer, census, descriptors_of,
        disk_folder, evict, in_child, pattern, skip, write_cold,
    },
};

const SIZES: [usize; 9] =
    [0, 1, 13, (16 << 10) - 1, 16 << 10, (16 << 10) + 1, 64 << 10, 1 << 20, (5 << 20) + 3];

/// More than sockets take in advance, so a download of it is in progress until it is read.
const LARGE_BYTES: usize = 16 << 20;
/// Where a large file is cut, in the middle of a page and past what sockets took.
const CUT_BYTES: usize = (12 << 20) + 1234;

/// A server of files named by their size, with content from [`pattern`].
fn sized(yaml: &str, sizes: &[usize]) -> TestServer {
    let names: Vec<String> = sizes.iter().map(usize::to_string).collect();
    let files: Vec<(&str, &[u8])> =
        names.iter().zip(sizes).map(|(name, &size)| (name.as_str(), &pattern()[..size])).collect();
    TestServer::start(yaml, &files)
}

/// A server of a folder on a disk, where files can be out of memory.
fn on_disk(memory: &str) -> TestServer {
    let folder = disk_folder();
    let text = format!(
        "shards: 1\nlisten: [\"127.0.0.1:0\"]\nroutes: [{{ root: {} }}]\nmemory: {{ {memory} }}\n",
        folder.path().display()
    );
    TestServer::from_yaml(&text, folder)
}

fn path(server: &TestServer, name: &str) -> std::path::PathBuf {
    server.folder.path().join(name)
}

/// Begins a download that stalls, since no more than the head is read of it.
fn begin(server: &TestServer, target: &str) -> (Client, Response) {
    let mut client = server.connect();
    bound_receive_buffer(&client.stream);
    client.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n"));
    let head = client.head_response();
    assert_eq!(head.status, 200, "{target}");
    (client, head)
}

/// Reads until `wanted` bytes of body were received.
fn read_on(client: &mut Client, wanted: usize) {
    while client.received.len() < wanted {
        assert!(client.receive() > 0, "closed {} bytes before the end", wanted - client.received.len());
    }
}

#[test]
fn each_size_arrives_byte_for_byte() {
    let server = sized("", &SIZES);
    let mut client = server.connect();
    // The first time from the descriptor, later from memory where it is small.
    for round in 0..4 {
        for size in SIZES {
            let response = client.request("GET", &format!("/{size}"), "");
            assert_eq!(response.status, 200);
            assert_same(&format!("{size} in round {round}"), &response.body, &pattern()[..size]);
        }
    }
    assert!(server.metric("webserver_response_cache_bytes") >= 16 << 10);
    assert!(server.metric("webserver_sendfile_bytes_total") > 5 << 20);
    assert_eq!(server.metric("webserver_cold_reads_total"), 0);
}

#[test]
fn parts_of_each_size_arrive_byte_for_byte() {
    let server = sized("", &SIZES);
    let mut client = server.connect();
    for _ in 0..3 {
        for size in SIZES.into_iter().filter(|size| *size > 0) {
            let ends =
                [(0, 0), (size / 3, size / 2), (size / 2 + 1, size - 1), (1, 4095), (4095, 4097), (0, size)];
            for (first, last) in ends {
                let (first, last) = (first.min(size - 1), last.min(size - 1));
                if first > last {
                    continue;
                }
                let fields = format!("Range: bytes={first}-{last}\r\n");
                let response = client.request("GET", &format!("/{size}"), &fields);
                assert_eq!(response.status, 206);
                assert_same(&format!("{first}-{last} of {size}"), &response.body, &pattern()[first..=last]);
            }
        }
    }
}

#[test]
fn pipelined_requests_of_all_sizes_are_answered_in_order() {
    let server = sized("", &SIZES);
    let mut order: Vec<usize> = SIZES.to_vec();
    order.extend(SIZES.iter().rev());
    order.extend([13, 13, 1 << 20, 13, 0, 0, 64 << 10, 13]);
    for _ in 0..2 {
        let mut client = server.connect();
        let mut requests = String::new();
        for size in &order {
            requests += &format!("GET /{size} HTTP/1.1\r\nHost: test\r\n\r\n");
            requests += &format!("GET /{size} HTTP/1.1\r\nHost: test\r\nRange: bytes=-7\r\n\r\n");
            requests += "HEAD /13 HTTP/1.1\r\nHost: test\r\n\r\nGET /missing HTTP/1.1\r\nHost: test\r\n\r\n";
        }
        client.send(&requests);
        for size in order.iter().copied() {
            assert_same(&size.to_string(), &client.response().body, &pattern()[..size]);
            assert_same("its end", &client.response().body, &pattern()[size.saturating_sub(7)..size]);
            assert_eq!(client.head_response().field("content-length"), Some("13"));
            assert_eq!(client.response().status, 404);
        }
    }
}

#[test]
fn thousands_of_pipelined_requests_are_answered_though_nobody_reads_at_first() {
    let server = sized("", &[13, 16 << 10]);
    let mut client = server.connect();
    bound_receive_buffer(&client.stream);
    let requests: usize = 4000;
    let mut stream = client.stream.try_clone().unwrap();
    let sender = std::thread::spawn(move || {
        for _ in 0..requests / 2 {
            stream
                .write_all(b"GET /13 HTTP/1.1\r\nHost: test\r\n\r\nGET /16384 HTTP/1.1\r\nHost: test\r\n\r\n")
                .unwrap();
        }
    });
    for _ in 0..requests / 2 {
        assert_same("13", &client.response().body, &pattern()[..13]);
        assert_same("16384", &client.response().body, &pattern()[..16 << 10]);
    }
    sender.join().unwrap();
    assert_eq!(server.metric("webserver_panics_total"), 0);
}

#[test]
fn a_reader_that_takes_a_kilobyte_at_a_time_gets_everything() {
    let size = (5 << 20) + 3;
    let server = sized("", &[size]);
    let (mut client, _) = begin(&server, &format!("/{size}"));
    let mut body = std::mem::take(&mut client.received);
    let mut kilobyte = [0; 1024];
    while body.len() < size {
        let count = client.stream.read(&mut kilobyte).unwrap();
        assert!(count > 0);
        body.extend_from_slice(&kilobyte[..count]);
    }
    assert_same("body", &body, &pattern()[..size]);
    assert_eq!(client.request("GET", &format!("/{size}"), "Range: bytes=0-0\r\n").body, pattern()[..1]);
}

#[test]
fn a_client_that_will_send_no_more_gets_its_file() {
    let server = sized("", &[LARGE_BYTES, 13]);
    let mut client = server.connect();
    bound_receive_buffer(&client.stream);
    client.send("GET /16777216 HTTP/1.1\r\nHost: test\r\n\r\nGET /13 HTTP/1.1\r\nHost: test\r\n\r\n");
    client.finish();
    assert_eq!(client.head_response().status, 200);
    read_on(&mut client, LARGE_BYTES);
    let rest = client.received.split_off(LARGE_BYTES);
    assert_same("large", &client.received, &pattern()[..LARGE_BYTES]);
    client.received = rest;
    assert_same("small", &client.response().body, &pattern()[..13]);
    client.expect_close();
}

#[test]
fn a_cold_file_arrives_byte_for_byte_and_in_parts() {
    let server = on_disk("");
    let sizes = [1, 13, 4095, 4097, (16 << 10) + 1, (256 << 10) + 1, (5 << 20) + 3, PATTERN_BYTES];
    let mut client = server.connect();
    for size in sizes {
        let name = size.to_string();
        if !write_cold(&path(&server, &name), &pattern()[..size]) {
            return;
        }
        let before = server.metric("webserver_cold_reads_total");
        let response = client.request("GET", &format!("/{name}"), "");
        assert_same(&name, &response.body, &pattern()[..size]);
        assert!(server.metric("webserver_cold_reads_total") > before, "{name} was not cold");
    }
    server.await_metric("webserver_cold_read_bytes_total", PATTERN_BYTES as u64);
    let before = server.metric("webserver_cold_reads_total");
    let size = PATTERN_BYTES;
    let parts = [
        (0, 0),
        (1, 1),
        (4095, 4096),
        (4096, 8191),
        (12_345, 3_456_789),
        ((256 << 10) - 1, (512 << 10) + 1),
        ((20 << 20) + 511, (28 << 20) + 513),
        (size - 1, size - 1),
        (size - 5000, size - 1),
    ];
    for (first, last) in parts {
        assert!(evict(&path(&server, &size.to_string())));
        let response =
            client.request("GET", &format!("/{size}"), &format!("Range: bytes={first}-{last}\r\n"));
        assert_same(&format!("{first}-{last}"), &response.body, &pattern()[first..=last]);
    }
    assert!(server.metric("webserver_cold_reads_total") >= before + 5);
    assert_eq!(server.metric("webserver_responses_cut_total"), 0);
}

#[test]
fn a_small_cold_file_is_warm_the_next_time() {
    let server = on_disk("");
    if !write_cold(&path(&server, "a"), &pattern()[..1 << 20]) {
        return;
    }
    let mut client = server.connect();
    assert_same("cold", &client.request("GET", "/a", "").body, &pattern()[..1 << 20]);
    wait_until("the file to be in memory", || {
        let before = server.metric("webserver_cold_reads_total");
        assert_same("warm", &client.request("GET", "/a", "").body, &pattern()[..1 << 20]);
        server.metric("webserver_cold_reads_total") == before
    });
}

#[test]
fn a_hole_is_zeros() {
    let server = on_disk("");
    let size = 8 << 20;
    let file = File::create(path(&server, "sparse")).unwrap();
    file.set_len(size as u64).unwrap();
    file.write_all_at(b"begin", 0).unwrap();
    file.write_all_at(b"middle", 4_000_001).unwrap();
    file.write_all_at(b"end", size as u64 - 3).unwrap();
    let mut wanted = vec![0; size];
    wanted[..5].copy_from_slice(b"begin");
    wanted[4_000_001..4_000_007].copy_from_slice(b"middle");
    wanted[size - 3..].copy_from_slice(b"end");
    for _ in 0..2 {
        assert_same("sparse", &server.get("/sparse").body, &wanted);
    }
}

#[test]
fn more_cold_downloads_at_once_than_there_are_readers() {
    let server = on_disk("");
    if !write_cold(&path(&server, "a"), pattern()) {
        return;
    }
    // 40 parts of one file and 8 files, begun before any is read.
    for number in 0..8 {
        assert!(write_cold(&path(&server, &format!("f{number}")), &pattern()[number..number + (3 << 20)]));
    }
    assert!(evict(&path(&server, "a")));
    let mut downloads: Vec<(Client, usize, usize)> = Vec::new();
    for number in 0..40 {
        let (first, last) = (number * 800_001, number * 800_001 + 1_900_000);
        let mut client = server.connect();
        client.send(format!("GET /a HTTP/1.1\r\nHost: test\r\nRange: bytes={first}-{last}\r\n\r\n"));
        downloads.push((client, first, last + 1));
    }
    for number in 0..8 {
        let mut client = server.connect();
        client.send(format!("GET /f{number} HTTP/1.1\r\nHost: test\r\n\r\n"));
        downloads.push((client, number, number + (3 << 20)));
    }
    for (client, first, end) in &mut downloads {
        assert_same(
            &format!("{first}"),
            &client.response().body,
            &pattern()[*first..(*end).min(PATTERN_BYTES)],
        );
    }
    assert!(server.metric("webserver_cold_reads_total") >= 8);
}

#[test]
fn stalled_cold_downloads_do_not_keep_others_from_theirs() {
    let server = on_disk("");
    if !write_cold(&path(&server, "a"), pattern()) || !write_cold(&path(&server, "b"), pattern()) {
        return;
    }
    // More than there are readers; none of them takes anything.
    let mut stalled = Vec::new();
    for _ in 0..20 {
        let mut client = server.connect();
        client.send("GET /a HTTP/1.1\r\nHost: test\r\n\r\n");
        stalled.push(client);
    }
    assert!(stalled.iter_mut().all(|client| client.response_begins()));
    assert!(evict(&path(&server, "b")));
    assert_same("b", &server.get("/b").body, pattern());
}

#[test]
fn a_client_that_leaves_a_cold_download_leaves_nothing_behind() {
    in_child("bodies::a_client_that_leaves_a_cold_download");
}

#[test]
#[ignore = "run in a process of its own, which counts its descriptors"]
fn a_client_that_leaves_a_cold_download() {
    // Whatever a process opens once is open after this.
    drop(on_disk(""));
    let before = census();
    let server = on_disk("open_file_cache: 0");
    if !write_cold(&path(&server, "a"), pattern()) {
        return;
    }
    // More than there are readers, so that some leave while they wait for one.
    let mut clients: Vec<Client> = Vec::new();
    for number in 0..48 {
        let mut client = server.connect();
        bound_receive_buffer(&client.stream);
        client.send(format!("GET /a HTTP/1.1\r\nHost: test\r\nRange: bytes={}-\r\n\r\n", number * 300_007));
        clients.push(client);
    }
    let mut first = clients.remove(0);
    assert_eq!(first.head_response().status, 206);
    read_on(&mut first, 1 << 20);
    assert!(server.metric("webserver_cold_reads_total") > 0, "the file was not cold");
    drop((first, clients));
    let file = path(&server, "a");
    wait_until("all readers to close the file", || descriptors_of(&file) == 0);
    server.await_metric("webserver_connections_closed_total", 48);
    assert_same("afterwards", &server.get("/a").body, pattern());
    wait_until("the file to be closed", || descriptors_of(&file) == 0);
    drop(server);
    assert_left_nothing(before, "the last server");
}

/// Cuts a file to `length` while it is downloaded, and checks that nothing but this download suffers.
fn truncate_during_download(server: &TestServer, name: &str, size: usize, length: usize) {
    let path = path(server, name);
    server.write("other", b"other");
    let mut other = server.connect();
    assert_eq!(other.request("GET", "/other", "").body, b"other");
    let cut = server.metric("webserver_responses_cut_total");
    let (mut client, head) = begin(server, &format!("/{name}"));
    assert_eq!(head.field("content-length").unwrap(), size.to_string());
    OpenOptions::new().write(true).open(&path).unwrap().set_len(length as u64).unwrap();
    let body = client.rest();
    assert!(body.len() < size, "a cut file arrived whole");
    if length == CUT_BYTES {
        assert_same("what was left", &body, &pattern()[..length]);
    } else {
        assert_same("what was under way", &body, &pattern()[..body.len()]);
    }
    assert_eq!(server.metric("webserver_responses_cut_total"), cut + 1);
    assert_eq!(other.request("GET", "/other", "").body, b"other");
    assert_eq!(server.metric("webserver_panics_total"), 0);
}

#[test]
fn a_file_cut_during_its_download_closes_that_connection_alone() {
    let server = sized("memory: { open_file_cache: { entries: 100, valid: 1ms } }", &[LARGE_BYTES]);
    for length in [CUT_BYTES, 0] {
        server.write("16777216", &pattern()[..LARGE_BYTES]);
        truncate_during_download(&server, "16777216", LARGE_BYTES, length);
    }
}

#[test]
fn a_cold_file_cut_during_its_download_closes_that_connection_alone() {
    let server = on_disk("open_file_cache: { entries: 100, valid: 1ms }");
    for length in [CUT_BYTES, 0] {
        if !write_cold(&path(&server, "a"), &pattern()[..LARGE_BYTES]) {
            return;
        }
        let before = server.metric("webserver_cold_reads_total");
        truncate_during_download(&server, "a", LARGE_BYTES, length);
        assert!(server.metric("webserver_cold_reads_total") > before);
    }
}

#[test]
fn a_cold_file_cut_after_its_client_was_fast_closes_that_connection() {
    let server = on_disk("");
    // Larger than what is always read into the page cache, and past what a client must take fast to have a reader.
    for length in [(25 << 20) + 1234, 0] {
        let name = length.to_string();
        if !write_cold(&path(&server, &name), pattern()) {
            return;
        }
        let cut = server.metric("webserver_responses_cut_total");
        let (mut client, _) = begin(&server, &format!("/{name}"));
        read_on(&mut client, 12 << 20);
        OpenOptions::new().write(true).open(path(&server, &name)).unwrap().set_len(length).unwrap();
        let body = client.rest();
        assert!(body.len() < PATTERN_BYTES, "a cut file arrived whole");
        assert_same("what was under way", &body, &pattern()[..body.len()]);
        assert_eq!(server.metric("webserver_responses_cut_total"), cut + 1);
    }
}

#[test]
fn a_file_that_was_cut_since_it_was_opened_closes_the_connection() {
    let server = sized("memory: { open_file_cache: { entries: 100, valid: 1h } }", &[100_000]);
    assert_eq!(server.get("/100000").body.len(), 100_000);
    let file = OpenOptions::new().write(true).open(path(&server, "100000")).unwrap();
    for length in [5000, 0] {
        file.set_len(length as u64).unwrap();
        let mut client = server.connect();
        client.send("GET /100000 HTTP/1.1\r\nHost: test\r\n\r\n");
        assert_eq!(client.head_response().field("content-length"), Some("100000"));
        assert_same("what is left", &client.rest(), &pattern()[..length]);
    }
    assert_eq!(server.metric("webserver_responses_cut_total"), 2);
}

#[test]
fn a_file_that_grows_is_sent_as_long_as_was_said() {
    let server = sized("memory: { open_file_cache: { entries: 100, valid: 1ms } }", &[LARGE_BYTES]);
    let (mut client, head) = begin(&server, "/16777216");
    assert_eq!(head.field("content-length"), Some("16777216"));
    let mut file = OpenOptions::new().append(true).open(path(&server, "16777216")).unwrap();
    file.write_all(b"more").unwrap();
    read_on(&mut client, LARGE_BYTES);
    assert_same("body", &client.received, &pattern()[..LARGE_BYTES]);
    client.received.clear();
    wait_until("the new length", || {
        let response = client.request("GET", "/16777216", "Range: bytes=-4\r\n");
        response.body == b"more"
            && response.field("content-range") == Some("bytes 16777216-16777219/16777220")
    });
}

#[test]
fn a_file_that_is_replaced_or_removed_is_sent_to_its_end() {
    let server = sized("memory: { open_file_cache: { entries: 100, valid: 1ms } }", &[LARGE_BYTES]);
    let (mut first, _) = begin(&server, "/16777216");
    server.write("new", b"new");
    fs::rename(path(&server, "new"), path(&server, "16777216")).unwrap();
    wait_until("the new file", || server.get("/16777216").body == b"new");
    let (mut second, _) = {
        server.write("16777216", &pattern()[..LARGE_BYTES]);
        wait_until("the old file", || {
            server.request("HEAD", "/16777216", "").field("content-length") == Some("16777216")
        });
        begin(&server, "/16777216")
    };
    fs::remove_file(path(&server, "16777216")).unwrap();
    wait_until("it to be gone", || server.get("/16777216").status == 404);
    for client in [&mut first, &mut second] {
        read_on(client, LARGE_BYTES);
        assert_same("the old file", &client.received, &pattern()[..LARGE_BYTES]);
    }
    assert_eq!(server.metric("webserver_responses_cut_total"), 0);
}

#[test]
fn a_cold_file_that_is_removed_is_sent_to_its_end() {
    let server = on_disk("");
    if !write_cold(&path(&server, "a"), &pattern()[..LARGE_BYTES]) {
        return;
    }
    let (mut client, _) = begin(&server, "/a");
    fs::remove_file(path(&server, "a")).unwrap();
    read_on(&mut client, LARGE_BYTES);
    assert_same("removed", &client.received, &pattern()[..LARGE_BYTES]);
}

#[test]
fn a_file_in_memory_alone_is_served() {
    let shared = Path::new("/dev/shm");
    let Ok(folder) = tempfile::tempdir_in(shared) else {
        return skip("no /dev/shm to serve files of tmpfs from");
    };
    for size in SIZES {
        fs::write(folder.path().join(size.to_string()), &pattern()[..size]).unwrap();
    }
    let text =
        format!("shards: 1\nlisten: [\"127.0.0.1:0\"]\nroutes: [{{ root: {} }}]\n", folder.path().display());
    let server = TestServer::from_yaml(&text, folder);
    let mut client = server.connect();
    for _ in 0..3 {
        for size in SIZES {
            assert_same("tmpfs", &client.request("GET", &format!("/{size}"), "").body, &pattern()[..size]);
        }
    }
    truncate_during_download_on_tmpfs(&server);
}

fn truncate_during_download_on_tmpfs(server: &TestServer) {
    server.write("large", &pattern()[..LARGE_BYTES]);
    truncate_during_download(server, "large", LARGE_BYTES, CUT_BYTES);
}
