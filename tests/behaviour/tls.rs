//! What is served over TLS: the same bytes as without, whatever records they come in, and little memory for who waits.

use std::{
    io::{Read, Write},
    thread,
};

use rustls::version::{TLS12, TLS13};

use crate::{
    harness::{Client, Response, find, wait_until},
    https::{Https, VERSIONS},
    system::{PATTERN_BYTES, assert_same, bound_receive_buffer, disk_folder, evict, pattern, write_cold},
    tls_client::TlsClient,
};

const SIZES: [usize; 11] = [
    0,
    1,
    13,
    4 << 10,
    14_000,
    (16 << 10) - 29,
    (16 << 10) + 1,
    64 << 10,
    (64 << 10) + 1,
    1 << 20,
    (5 << 20) + 3,
];
/// More than sockets take in advance.
const LARGE_BYTES: usize = 16 << 20;

fn sized(yaml: &str, sizes: &[usize]) -> Https {
    let names: Vec<String> = sizes.iter().map(usize::to_string).collect();
    let files: Vec<(&str, &[u8])> =
        names.iter().zip(sizes).map(|(name, &size)| (name.as_str(), &pattern()[..size])).collect();
    Https::start("", yaml, &files)
}

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n")
}

/// A response without what differs from one to the next.
fn comparable(mut response: Response) -> (u16, Vec<(String, String)>, Vec<u8>) {
    let kind = response.field("content-type").unwrap_or_default().to_owned();
    if let Some((_, boundary)) = kind.split_once("boundary=") {
        while let Some(at) = find(&response.body, boundary.as_bytes()) {
            response.body.splice(at..at + boundary.len(), *b"BOUNDARY");
        }
    }
    response.fields.retain(|(name, value)| name != "date" && !value.contains("boundary="));
    (response.status, response.fields, response.body)
}

#[test]
fn files_of_all_sizes_arrive_byte_for_byte_in_both_versions() {
    let server = sized("", &SIZES);
    for versions in VERSIONS {
        let mut client = server.connector(versions).connect(server.address());
        for size in SIZES {
            let response = client.request("GET", &format!("/{size}"), "");
            assert_eq!(response.status, 200);
            assert_same(&format!("{size} bytes"), &response.body, &pattern()[..size]);
        }
        client.close();
    }
    assert_eq!((server.handshakes("1.2 full"), server.handshakes("1.3 full")), (1, 1));
    server.expect_nothing_left();
}

#[test]
fn what_is_answered_is_what_is_answered_without_tls() {
    let server = sized("", &[13, 100_000, 5 << 20]);
    let mut plain = server.connect_plain();
    let mut secure: Vec<TlsClient> =
        VERSIONS.map(|versions| server.connector(versions).connect(server.address())).into();
    for (method, target, fields) in [
        ("HEAD", "/5242880", ""),
        ("GET", "/missing", ""),
        ("HEAD", "/missing", ""),
        ("GET", "/13", "Range: bytes=1-1\r\n"),
        ("GET", "/100000", "Range: bytes=-1000\r\n"),
        ("GET", "/5242880", "Range: bytes=4095-2000000\r\n"),
        ("GET", "/5242880", "Range: bytes=9999999-\r\n"),
        ("GET", "/100000", "Range: bytes=0-0,5-70000,99999-\r\n"),
        ("GET", "/5242880", "Range: bytes=0-0,1000-1999,100000-3000000,-1\r\n"),
        ("GET", "/13", "If-None-Match: *\r\n"),
        ("GET", "/own", ""),
        ("PUT", "/13", ""),
    ] {
        let wanted = comparable(plain.request(method, target, fields));
        for client in &mut secure {
            let got = comparable(client.request(method, target, fields));
            assert_eq!((got.0, &got.1), (wanted.0, &wanted.1), "{method} {target} {fields}");
            assert_same(&format!("{method} {target} {fields}"), &got.2, &wanted.2);
        }
    }
}

#[test]
fn requests_are_answered_in_order_however_they_are_cut_into_records() {
    let server = sized("", &[13, 100_000]);
    let requests: String =
        (0..20).map(|number| get(if number % 7 == 3 { "/100000" } else { "/13" })).collect();
    let expect_answers = |client: &mut TlsClient| {
        for number in 0..20 {
            let size = if number % 7 == 3 { 100_000 } else { 13 };
            assert_same("body", &client.response().body, &pattern()[..size]);
        }
    };
    for versions in VERSIONS {
        let mut client = server.connector(versions).connect(server.address());
        client.send(&requests);
        expect_answers(&mut client);
        // A write is a record.
        for bytes in [7, 50, 61] {
            requests.as_bytes().chunks(bytes).for_each(|record| client.send(record));
            expect_answers(&mut client);
        }
        get("/13").as_bytes().chunks(1).for_each(|record| client.send(record));
        assert_eq!(client.response().body, &pattern()[..13]);
        // Records that come a byte at a time.
        for bytes in [1, 3] {
            client.stream.tls.writer().write_all(get("/100000").as_bytes()).unwrap();
            let mut record = Vec::new();
            client.stream.tls.write_tls(&mut record).unwrap();
            record.chunks(bytes).for_each(|piece| client.stream.socket.write_all(piece).unwrap());
            assert_same("body", &client.response().body, &pattern()[..100_000]);
        }
        client.close();
    }
    server.expect_nothing_left();
}

/// Lengths of the records of a response, read from the socket itself.
fn records_of_response(client: &mut TlsClient, target: &str, body_bytes: usize) -> Vec<usize> {
    client.send(get(target));
    let (mut records, mut received, mut plain) = (Vec::new(), Vec::new(), Vec::new());
    let whole = |plain: &[u8]| {
        let head = plain.windows(4).position(|end| end == b"\r\n\r\n");
        head.is_some_and(|head| plain.len() == head + 4 + body_bytes)
    };
    while !whole(&plain) {
        let mut bytes = [0; 32 << 10];
        let count = client.stream.socket.read(&mut bytes).unwrap();
        assert!(count > 0, "the connection has ended");
        received.extend_from_slice(&bytes[..count]);
        while let Some(head) = received.get(..5) {
            let length = 5 + usize::from(u16::from_be_bytes([head[3], head[4]]));
            if received.len() < length {
                break;
            }
            records.push(length);
            let tls = &mut client.stream.tls;
            let mut record: &[u8] = &received[..length];
            while !record.is_empty() {
                tls.read_tls(&mut record).unwrap();
            }
            tls.process_new_packets().unwrap();
            let _ = tls.reader().read_to_end(&mut plain);
            received.drain(..length);
        }
    }
    records
}

#[test]
fn a_short_response_is_one_record_and_a_long_one_begins_with_small_ones() {
    let server = sized("", &[13, 10_000, 1_000_000]);
    for versions in VERSIONS {
        let mut client = server.connector(versions).connect(server.address());
        // The ticket of TLS 1.3 goes before the first response.
        client.request("GET", "/13", "");
        for bytes in [13, 10_000] {
            let records = records_of_response(&mut client, &format!("/{bytes}"), bytes);
            assert_eq!(records.len(), 1, "{records:?}");
        }
        for _ in 0..2 {
            let records = records_of_response(&mut client, "/1000000", 1_000_000);
            let small = records.iter().take_while(|length| **length <= 4 << 10).count();
            assert!((16..=18).contains(&small), "{records:?}");
            let (last, others) = records[small..].split_last().unwrap();
            // As large as fits a buffer, but for the last of each write.
            assert!(others.iter().all(|length| *length <= 16 << 10), "{records:?}");
            assert!(
                others.iter().filter(|length| **length > 15 << 10).count() * 3 > others.len(),
                "{records:?}"
            );
            assert!(*last <= 16 << 10);
        }
        client.close();
    }
    server.expect_nothing_left();
}

#[test]
fn a_handshake_may_come_a_byte_at_a_time() {
    let server = sized("", &[13]);
    for versions in VERSIONS {
        let mut stream = crate::tls_client::TlsStream {
            tls: server.connector(versions).connection(),
            socket: server.server.connect().stream,
        };
        while stream.tls.is_handshaking() || stream.tls.wants_write() {
            let mut flight = Vec::new();
            while stream.tls.wants_write() {
                stream.tls.write_tls(&mut flight).unwrap();
            }
            flight.chunks(1).for_each(|byte| stream.socket.write_all(byte).unwrap());
            if stream.tls.is_handshaking() {
                assert!(stream.tls.read_tls(&mut stream.socket).unwrap() > 0);
                stream.tls.process_new_packets().unwrap();
            }
        }
        let mut client = Client { stream, received: Vec::new() };
        assert_eq!(client.request("GET", "/13", "").body, &pattern()[..13]);
        client.close();
    }
    server.expect_nothing_left();
}

#[test]
fn bodies_are_gathered_and_thrown_away() {
    let server = sized("limits: { body_bytes: 8MB }", &[13]);
    let body = &pattern()[..(3 << 20) + 5];
    let head = |target: &str, fields: &str| format!("POST {target} HTTP/1.1\r\nHost: test\r\n{fields}\r\n");
    let length = format!("Content-Length: {}\r\n", body.len());
    let wanted = body.len().to_string().into_bytes();
    for versions in VERSIONS {
        let mut client = server.connector(versions).connect(server.address());
        client.send(head("/length", &length));
        client.send(body);
        assert_eq!(client.response().body, wanted);

        client.send(head("/length", "Transfer-Encoding: chunked\r\n"));
        for chunk in body.chunks(70_001) {
            client.send(format!("{:x}\r\n", chunk.len()));
            client.send(chunk);
            client.send("\r\n");
        }
        client.send("0\r\n\r\n");
        assert_eq!(client.response().body, wanted);

        client.send(head("/length", &format!("Expect: 100-continue\r\n{length}")));
        assert_eq!(client.response().status, 100);
        client.send(body);
        assert_eq!(client.response().body, wanted);

        // Nobody wants it, so it is read and dropped; the connection stays.
        client.send(head("/13", "Content-Length: 100000\r\n"));
        client.send(&body[..100_000]);
        assert_eq!(client.response().status, 405);
        assert_eq!(client.request("GET", "/13", "").body, &pattern()[..13]);

        let mut client = server.connector(versions).connect(server.address());
        let refused = client.ask(head("/length", "Content-Length: 9000000\r\n"));
        assert_eq!((refused.status, refused.field("connection")), (413, Some("close")));
    }
    server.expect_nothing_left();
}

#[test]
fn a_body_waits_for_memory_and_goes_on_when_there_is_some() {
    const BODY_BYTES: usize = 12_000_000;
    let server = sized("memory: { budget: 64MB }", &[13]);
    let mut client = server.connect();
    assert_eq!(client.request("GET", "/13", "").status, 200);
    let stats = server.server.server.stats().totals;
    let charge = usize::try_from(stats.memory_budget_bytes * 87 / 100 - stats.memory_used_bytes).unwrap();
    server.server.server.charge(charge).unwrap();
    wait_until("high", || server.server.metric("webserver_memory_pressure") == 2);
    client.expect_goodbye();
    let mut client = server.connect();
    let sending = thread::spawn(move || {
        client.send(format!("POST /length HTTP/1.1\r\nHost: t\r\nContent-Length: {BODY_BYTES}\r\n\r\n"));
        client.send(&pattern()[..BODY_BYTES]);
        let response = client.response();
        client.close();
        response
    });
    server.server.await_metric("webserver_memory_refused_total{holder=\"request_bodies\"}", 1);
    // Whoever needs little memory is served meanwhile.
    assert_eq!(server.connect().request("GET", "/13", "").body, &pattern()[..13]);
    server.server.server.release(charge);
    assert_eq!(sending.join().unwrap().body, BODY_BYTES.to_string().into_bytes());
    server.expect_nothing_left();
}

#[test]
fn cold_files_arrive_byte_for_byte() {
    let server = Https::serve("", "", &[], disk_folder(), crate::certificates::Certificates::new());
    let path = |name: &str| server.server.folder.path().join(name);
    for (versions, version) in VERSIONS.into_iter().zip(["1.2", "1.3"]) {
        let mut client = server.connector(versions).connect(server.address());
        for size in [1, 4097, (256 << 10) + 1, PATTERN_BYTES] {
            let name = format!("{version}-{size}");
            if !write_cold(&path(&name), &pattern()[..size]) {
                return;
            }
            let before = server.server.metric("webserver_cold_reads_total");
            let response = client.request("GET", &format!("/{name}"), "");
            assert_same(&name, &response.body, &pattern()[..size]);
            assert!(server.server.metric("webserver_cold_reads_total") > before, "{name} was not cold");
        }
        for (first, last) in [(12_345, 3_456_789), (PATTERN_BYTES - 5000, PATTERN_BYTES - 1)] {
            let name = format!("{version}-{PATTERN_BYTES}");
            assert!(evict(&path(&name)));
            let range = format!("Range: bytes={first}-{last}\r\n");
            let response = client.request("GET", &format!("/{name}"), &range);
            assert_same(&range, &response.body, &pattern()[first..=last]);
        }
    }
    assert_eq!(server.server.metric("webserver_responses_cut_total"), 0);
    server.expect_nothing_left();
}

#[test]
fn who_does_not_read_holds_little_and_gets_everything_later() {
    const CLIENTS: usize = 8;
    let server = sized("", &[LARGE_BYTES]);
    let held = || server.used("tls") + server.used("buffers_in_use") + server.used("connections");
    let connectors = VERSIONS.map(|versions| server.connector(versions));
    let mut clients: Vec<TlsClient> =
        (0..CLIENTS).map(|number| connectors[number % 2].connect(server.address())).collect();
    let before = held();
    for client in &mut clients {
        bound_receive_buffer(&client.stream.socket);
        client.send(get("/16777216"));
        assert_eq!(client.head_response().status, 200);
    }
    let buffers = || server.used("buffers_in_use");
    wait_until("each to wait for its client", || buffers() >= (CLIENTS * 4096) as u64);
    wait_until("nothing more to be sent", || {
        let sent = server.server.metric("webserver_bytes_sent_total");
        thread::sleep(std::time::Duration::from_millis(20));
        server.server.metric("webserver_bytes_sent_total") == sent
    });
    let each = (held() - before) / CLIENTS as u64 + 4096;
    assert!(each <= 40 << 10, "{each} bytes each");
    assert!(buffers() > 0);
    for client in &mut clients {
        while client.received.len() < LARGE_BYTES {
            assert!(client.receive() > 0);
        }
        assert_same("body", &client.received, &pattern()[..LARGE_BYTES]);
        client.received.clear();
    }
    clients.into_iter().for_each(TlsClient::close);
    server.expect_nothing_left();
}

#[test]
fn what_tls_holds_is_told_of_each_connection() {
    let server = sized("", &[13]);
    let largest = || -> serde_json::Value {
        let answer = server.server.server.largest_connections(1).unwrap();
        serde_json::from_str::<serde_json::Value>(&answer).unwrap()["connections"][0].take()
    };
    let mut begun = server.server.connect();
    begun.send([22, 3]);
    wait_until("the hello to begin", || largest()["held"]["buffers"] == 4096);
    let told = largest();
    assert_eq!((told["state"].as_str(), &told["held"]["tls"]), (Some("handshake"), &(12 << 10).into()));
    drop(begun);
    server.server.await_no_connections();
    let mut idle = server.connect();
    assert_eq!(idle.request("GET", "/13", "").status, 200);
    let told = largest();
    assert_eq!((told["state"].as_str(), &told["held"]["tls"]), (Some("idle"), &4096.into()));
    assert_eq!(told["held_bytes"], 4096 + 64);
}

#[test]
fn a_reader_of_little_at_a_time_gets_everything() {
    let size = (5 << 20) + 3;
    let server = sized("", &[size]);
    for versions in VERSIONS {
        let mut client = server.connector(versions).connect(server.address());
        bound_receive_buffer(&client.stream.socket);
        client.send(get(&format!("/{size}")) + &get(&format!("/{size}")));
        for _ in 0..2 {
            assert_eq!(client.head_response().status, 200);
            let mut body = std::mem::take(&mut client.received);
            let mut piece = [0; 4096];
            while body.len() < size {
                let count = client.stream.read(&mut piece).unwrap();
                assert!(count > 0);
                body.extend_from_slice(&piece[..count]);
            }
            client.received = body.split_off(size);
            assert_same("body", &body, &pattern()[..size]);
        }
    }
}

#[test]
fn many_clients_at_once_get_what_each_asked_for() {
    let server = sized("shards: 2", &[13, 14_000, 100_000, 1 << 20]);
    let address = server.address();
    let threads: Vec<_> = (0..16)
        .map(|number| {
            let connector = server.connector(VERSIONS[number % 2]);
            thread::spawn(move || {
                for round in 0..3 {
                    let mut client = connector.connect(address);
                    for step in 0..4 {
                        let size = [13, 14_000, 100_000, 1 << 20][(number + round + step) % 4];
                        let body = client.request("GET", &format!("/{size}"), "").body;
                        assert_same("body", &body, &pattern()[..size]);
                    }
                    client.close();
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    server.expect_nothing_left();
}

#[test]
fn keys_are_changed_in_the_middle_of_transfers() {
    let server = sized("", &[LARGE_BYTES]);
    let mut client = server.connector(VERSIONS[1]).connect(server.address());
    bound_receive_buffer(&client.stream.socket);
    // Down.
    client.send(get("/16777216"));
    assert_eq!(client.head_response().status, 200);
    let mut next_update = 0;
    while client.received.len() < LARGE_BYTES {
        if client.received.len() >= next_update {
            client.update_keys();
            next_update += 1 << 20;
        }
        assert!(client.receive() > 0);
    }
    assert_same("body", &client.received, &pattern()[..LARGE_BYTES]);
    client.received.clear();
    // Up.
    let body = &pattern()[..3 << 20];
    client.send(format!("POST /length HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n", body.len()));
    for piece in body.chunks(300_000) {
        client.send(piece);
        client.update_keys();
    }
    assert_eq!(client.response().body, body.len().to_string().into_bytes());
    client.close();
    server.expect_nothing_left();
}

#[test]
fn handlers_know_how_the_connection_is_encrypted() {
    let server = Https::start(", client_ca: \"{ca}\", client_certificates: optional", "", &[]);
    assert_eq!(server.connect_plain().request("GET", "/facts", "").body, b"none");
    let fact = |client: &mut TlsClient| {
        let body = client.request("GET", "/facts", "").body;
        String::from_utf8(body).unwrap()
    };
    let connector = server.dialer().versions(&[&TLS13]).connector();
    let told = fact(&mut connector.connect(server.address()));
    assert_eq!(told, "TLSv1.3 TLS_AES_128_GCM_SHA256 localhost false - 0");
    let told = fact(&mut connector.connect(server.address()));
    assert_eq!(told, "TLSv1.3 TLS_AES_128_GCM_SHA256 localhost true - 0");
    let identity = server.certificates.client("client 7");
    for (versions, version) in [(&[&TLS12], "TLSv1.2"), (&[&TLS13], "TLSv1.3")] {
        let dialer = server.dialer().versions(versions).name("127.0.0.1").showing(&identity);
        let told = fact(&mut dialer.connector().connect(server.address()));
        assert!(told.starts_with(&format!("{version} TLS_")), "{told}");
        assert!(told.ends_with(&format!(" - false CN=client 7 {}", identity.der.len())), "{told}");
    }
}
