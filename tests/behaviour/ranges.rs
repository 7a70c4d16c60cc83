//! Several ranges of one file: parts on the wire, read by a parser that knows boundaries and nothing of the server.

use std::{
    fmt::Write as _,
    fs::OpenOptions,
    io::{BufRead, Read},
    path::PathBuf,
};

use crate::{
    harness::{Client, Response, TestServer, find, wait_until},
    system::{
        PATTERN_BYTES, assert_same, bound_receive_buffer, descriptors_of, disk_folder, evict, pattern,
        write_cold,
    },
};

/// Most ranges that are answered with parts.
const RANGES_MAX: usize = 16;
const LARGE_BYTES: usize = 16 << 20;

/// A part of a body: its fields, names in lower case, and its content.
struct Part {
    fields: Vec<(String, String)>,
    content: Vec<u8>,
}

impl Part {
    fn field(&self, name: &str) -> &str {
        let mut values = self.fields.iter().filter(|(field, _)| field == name).map(|(_, value)| value);
        let value = values.next().unwrap_or_else(|| panic!("a part without {name}"));
        assert!(values.next().is_none(), "{name} twice");
        value
    }
}

/// The parts of a `multipart/byteranges` body, by its boundary alone (RFC 2046 5.1.1).
fn parts(response: &Response) -> Vec<Part> {
    assert_eq!(response.status, 206);
    // RFC 9110 15.3.7.2.
    assert_eq!(response.field("content-range"), None);
    let boundary = response.field("content-type").unwrap();
    let boundary = boundary.strip_prefix("multipart/byteranges; boundary=").unwrap();
    assert!((1..=70).contains(&boundary.len()));
    let delimiter = format!("\r\n--{boundary}");
    let mut rest = response.body.strip_prefix(&delimiter.as_bytes()[2..]).expect("a first delimiter");
    let mut parts = Vec::new();
    while let Some(part) = rest.strip_prefix(b"\r\n") {
        let head = find(part, b"\r\n\r\n").expect("the end of a part's head");
        let fields = std::str::from_utf8(&part[..head]).unwrap().split("\r\n").map(|line| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.to_ascii_lowercase(), value.to_owned())
        });
        let fields = fields.collect();
        let part = &part[head + 4..];
        let end = find_delimiter(part, delimiter.as_bytes());
        parts.push(Part { fields, content: part[..end].to_vec() });
        rest = &part[end + delimiter.len()..];
    }
    assert_eq!(rest, b"--\r\n", "what follows the last part");
    parts
}

/// [`find`] for megabytes in a test that is not optimised: the standard library looks for each carriage return.
fn find_delimiter(bytes: &[u8], delimiter: &[u8]) -> usize {
    let mut rest = bytes;
    loop {
        assert!(rest.skip_until(b'\r').unwrap() > 0, "no delimiter");
        let at = bytes.len() - rest.len() - 1;
        if bytes[at..].starts_with(delimiter) {
            return at;
        }
    }
}

/// Ranges given as first and last byte.
type Ranges<'a> = &'a [(usize, usize)];

fn range_line(ranges: Ranges<'_>) -> String {
    let mut line = String::from("Range: bytes=");
    for (index, (first, last)) in ranges.iter().enumerate() {
        let _ = write!(line, "{}{first}-{last}", if index == 0 { "" } else { "," });
    }
    line + "\r\n"
}

/// Checks that the parts are those of a file of `size` bytes of [`pattern`].
#[track_caller]
fn assert_parts(what: &str, response: &Response, ranges: Ranges<'_>, size: usize) {
    let parts = parts(response);
    assert_eq!(parts.len(), ranges.len(), "{what}");
    for (part, &(first, last)) in parts.iter().zip(ranges) {
        assert_eq!(part.field("content-range"), format!("bytes {first}-{last}/{size}"), "{what}");
        assert_eq!(part.field("content-type"), "text/plain; charset=utf-8", "{what}");
        assert_eq!(part.fields.len(), 2, "{what}");
        assert_same(what, &part.content, &pattern()[first..=last]);
    }
}

/// A server with a text file of each size.
fn sized(yaml: &str, sizes: &[usize]) -> TestServer {
    let names: Vec<String> = sizes.iter().map(|size| format!("{size}.txt")).collect();
    let files: Vec<(&str, &[u8])> =
        names.iter().zip(sizes).map(|(name, &size)| (name.as_str(), &pattern()[..size])).collect();
    TestServer::start(yaml, &files)
}

/// A server with one cold text file of [`PATTERN_BYTES`], if files can be cold here.
fn cold() -> Option<(TestServer, PathBuf)> {
    let folder = disk_folder();
    let path = folder.path().join("a.txt");
    let text =
        format!("shards: 1\nlisten: [\"127.0.0.1:0\"]\nroutes: [{{ root: {} }}]\n", folder.path().display());
    let server = TestServer::from_yaml(&text, folder);
    write_cold(&path, pattern()).then_some((server, path))
}

/// `count` ranges of `length` bytes, `step` apart, the second half before the first.
fn spread(count: usize, step: usize, length: usize) -> Vec<(usize, usize)> {
    let ranges = (0..count).map(|number| (number * step, number * step + length - 1));
    let mut ranges: Vec<_> = ranges.collect();
    ranges.rotate_left(count / 2);
    ranges
}

fn get(client: &mut Client, size: usize, ranges: Ranges<'_>) -> Response {
    client.request("GET", &format!("/{size}.txt"), &range_line(ranges))
}

#[test]
fn several_ranges_of_each_size_arrive_as_parts() {
    let server = sized("", &[1000, 16 << 10, (16 << 10) + 1, 1 << 20, (5 << 20) + 3]);
    let mut client = server.connect();
    // The first time from the descriptor, later from memory where it is small.
    for round in 0..4 {
        for size in [1000, 16 << 10, (16 << 10) + 1, 1 << 20, (5 << 20) + 3] {
            let what = format!("{size} in round {round}");
            let ends = [(0, 0), (size - 1, size - 1)];
            assert_parts(&what, &get(&mut client, size, &ends), &ends, size);
            let halves = [(size / 2, size - 1), (0, size / 4)];
            assert_parts(&what, &get(&mut client, size, &halves), &halves, size);
        }
    }
    assert_eq!(server.metric("webserver_panics_total"), 0);
}

#[test]
fn a_response_in_parts_says_whose_parts_they_are() {
    let server = sized("", &[1000]);
    let mut client = server.connect();
    for _ in 0..3 {
        let whole = client.request("GET", "/1000.txt", "");
        let response = get(&mut client, 1000, &[(900, 909), (0, 9)]);
        for name in ["etag", "last-modified", "accept-ranges"] {
            assert!(response.field(name).is_some());
            assert_eq!(response.field(name), whole.field(name), "{name}");
        }
        assert_parts("in the order asked for", &response, &[(900, 909), (0, 9)], 1000);
    }
    // No two responses have one boundary.
    let boundary = |client: &mut Client| {
        get(client, 1000, &[(0, 9), (900, 909)]).field("content-type").map(str::to_owned)
    };
    assert_ne!(boundary(&mut client), boundary(&mut client));
}

#[test]
fn ranges_that_are_not_worth_parts_are_one_range_or_the_whole() {
    let server = sized("", &[1000]);
    let mut client = server.connect();
    let table: [(&str, u16, Option<&str>); 16] = [
        ("bytes=0-9,5-19", 206, Some("bytes 0-19/1000")),
        ("bytes=10-19,0-9", 206, Some("bytes 0-19/1000")),
        ("bytes=0-9,20-29", 206, Some("bytes 0-29/1000")),
        ("bytes=0-9,1000-", 206, Some("bytes 0-9/1000")),
        ("bytes=2000-,-10", 206, Some("bytes 990-999/1000")),
        ("bytes=,0-9,", 206, Some("bytes 0-9/1000")),
        ("bytes=1000-,2000-3000", 416, Some("bytes */1000")),
        ("bytes=-0,1000-1000", 416, Some("bytes */1000")),
        ("bytes=0-,-1", 200, None),
        ("bytes=0-899,200-999", 200, None),
        ("bytes=0-9,x", 200, None),
        ("bytes=0-9,9-8", 200, None),
        ("bytes=0-9;900-909", 200, None),
        ("bytes=0-9,1-2,3-4,5-6", 200, None),
        ("bytes=0-0,0-0,0-0,0-0", 200, None),
        ("bytes=0-420,600-999", 200, None),
    ];
    for (range, status, content_range) in table {
        let response = client.request("GET", "/1000.txt", &format!("Range: {range}\r\n"));
        assert_eq!((response.status, response.field("content-range")), (status, content_range), "{range}");
        match (status, content_range.and_then(|text| text.strip_prefix("bytes ")?.strip_suffix("/1000"))) {
            (206, Some(bounds)) => {
                let (first, last) = bounds.split_once('-').unwrap();
                let (first, last) = (first.parse::<usize>().unwrap(), last.parse::<usize>().unwrap());
                assert_same(range, &response.body, &pattern()[first..=last]);
            }
            (200, _) => assert_same(range, &response.body, &pattern()[..1000]),
            _ => {}
        }
    }
}

#[test]
fn so_many_ranges_and_no_more_are_parts() {
    let server = sized("", &[1 << 20]);
    let mut client = server.connect();
    for _ in 0..2 {
        let max = spread(RANGES_MAX, 60_000, 100);
        assert_parts("the limit", &get(&mut client, 1 << 20, &max), &max, 1 << 20);
        let response = get(&mut client, 1 << 20, &spread(RANGES_MAX + 1, 60_000, 100));
        assert_eq!(response.status, 200);
        assert_same("one more", &response.body, &pattern()[..1 << 20]);
    }
    // The longest field there may be is no trouble either.
    let response =
        client.request("GET", "/1048576.txt", &format!("Range: bytes={}\r\n", "0-1,".repeat(7000)));
    assert_eq!(response.status, 200);
    let response =
        client.request("GET", "/1048576.txt", &format!("Range: bytes={}0-1\r\n", ",".repeat(30_000)));
    assert_eq!((response.status, response.body.len()), (206, 2));
}

#[test]
fn conditions_decide_about_several_ranges_as_about_one() {
    let server = sized("", &[1000]);
    let mut client = server.connect();
    let etag = client.request("GET", "/1000.txt", "").field("etag").unwrap().to_owned();
    let ranges = [(0, 9), (900, 909)];
    let mut with = |method: &str, field: String| {
        client.request(method, "/1000.txt", &format!("{}{field}", range_line(&ranges)))
    };
    assert_parts("if it is the same", &with("GET", format!("If-Range: {etag}\r\n")), &ranges, 1000);
    for field in ["If-Range: \"other\"\r\n".to_owned(), format!("If-Range: W/{etag}\r\n")] {
        let response = with("GET", field);
        assert_eq!((response.status, response.body.len()), (200, 1000));
    }
    assert_eq!(with("GET", format!("If-None-Match: {etag}\r\n")).status, 304);
    assert_eq!(with("GET", "If-Match: \"other\"\r\n".to_owned()).status, 412);
    // RFC 9110 14.2: Range means nothing to HEAD.
    let head = with("HEAD", String::new());
    assert_eq!((head.status, head.field("content-length")), (200, Some("1000")));
}

#[test]
fn parts_of_many_megabytes_arrive_byte_for_byte() {
    let server = sized("", &[LARGE_BYTES]);
    let mut client = server.connect();
    let large = [(9 << 20, LARGE_BYTES - 1), (1, (6 << 20) + 1), (7 << 20, (7 << 20) + 10)];
    let many = spread(RANGES_MAX, 1 << 20, 1_000_000);
    for _ in 0..2 {
        assert_parts("large", &get(&mut client, LARGE_BYTES, &large), &large, LARGE_BYTES);
        assert_parts("many", &get(&mut client, LARGE_BYTES, &many), &many, LARGE_BYTES);
    }
    assert!(server.metric("webserver_sendfile_bytes_total") > 50 << 20);
    assert_eq!(server.metric("webserver_cold_reads_total"), 0);
}

#[test]
fn parts_of_a_cold_file_arrive_byte_for_byte() {
    let Some((server, path)) = cold() else { return };
    // One client with much, and more at once than there are readers of cold files.
    for (count, length) in [(1, 1_500_000), (20, 100_000)] {
        let ranges = spread(RANGES_MAX, 2 << 20, length);
        assert!(evict(&path));
        let before = server.metric("webserver_cold_reads_total");
        let mut clients: Vec<Client> = (0..count).map(|_| server.connect()).collect();
        for client in &mut clients {
            client.send(format!("GET /a.txt HTTP/1.1\r\nHost: test\r\n{}\r\n", range_line(&ranges)));
        }
        for client in &mut clients {
            assert_parts("cold", &client.response(), &ranges, PATTERN_BYTES);
        }
        assert!(server.metric("webserver_cold_reads_total") > before, "the file was not cold");
    }
    assert_eq!(server.metric("webserver_panics_total"), 0);
}

#[test]
fn a_slow_reader_gets_all_parts() {
    let server = sized("", &[LARGE_BYTES]);
    let ranges = [(10 << 20, LARGE_BYTES - 1), (0, 9), (1 << 20, 2 << 20)];
    let mut client = server.connect();
    bound_receive_buffer(&client.stream);
    client.send(format!("GET /{LARGE_BYTES}.txt HTTP/1.1\r\nHost: test\r\n{}\r\n", range_line(&ranges)));
    let mut response = client.head_response();
    let length: usize = response.field("content-length").unwrap().parse().unwrap();
    response.body = std::mem::take(&mut client.received);
    let mut kilobyte = [0; 1024];
    while response.body.len() < length {
        let count = client.stream.read(&mut kilobyte).unwrap();
        assert!(count > 0);
        response.body.extend_from_slice(&kilobyte[..count]);
    }
    assert_parts("slowly", &response, &ranges, LARGE_BYTES);
    assert_eq!(get(&mut client, LARGE_BYTES, &[(0, 0)]).body, pattern()[..1]);
}

#[test]
fn requests_behind_one_for_parts_are_answered_in_order() {
    let server = sized("", &[1000, LARGE_BYTES]);
    let small = [(0, 9), (900, 909)];
    let large = [(LARGE_BYTES - 10, LARGE_BYTES - 1), (0, 5 << 20)];
    for _ in 0..3 {
        let mut client = server.connect();
        let mut requests = String::new();
        for _ in 0..3 {
            for (size, ranges) in [(1000, &small), (LARGE_BYTES, &large)] {
                let line = range_line(ranges);
                let _ = write!(requests, "GET /{size}.txt HTTP/1.1\r\nHost: test\r\n{line}\r\n");
                requests += "GET /1000.txt HTTP/1.1\r\nHost: test\r\n\r\n";
            }
        }
        client.send(&requests);
        client.finish();
        for _ in 0..3 {
            assert_parts("small", &client.response(), &small, 1000);
            assert_same("whole", &client.response().body, &pattern()[..1000]);
            assert_parts("large", &client.response(), &large, LARGE_BYTES);
            assert_same("whole", &client.response().body, &pattern()[..1000]);
        }
        client.expect_close();
    }
}

#[test]
fn a_client_that_leaves_amid_its_parts_leaves_nothing_behind() {
    let server = sized("memory: { open_file_cache: 0 }", &[LARGE_BYTES]);
    let path = server.folder.path().join(format!("{LARGE_BYTES}.txt"));
    let ranges = [(8 << 20, LARGE_BYTES - 1), (0, 7 << 20)];
    for _ in 0..3 {
        let mut client = server.connect();
        bound_receive_buffer(&client.stream);
        client.send(format!("GET /{LARGE_BYTES}.txt HTTP/1.1\r\nHost: test\r\n{}\r\n", range_line(&ranges)));
        assert_eq!(client.head_response().status, 206);
    }
    server.await_metric("webserver_responses_cut_total", 3);
    wait_until("the file to be closed", || descriptors_of(&path) == 0);
    assert_parts("afterwards", &get(&mut server.connect(), LARGE_BYTES, &ranges), &ranges, LARGE_BYTES);
}

#[test]
fn a_file_cut_amid_its_parts_closes_that_connection_alone() {
    let server = sized("", &[LARGE_BYTES, 1000]);
    let mut other = server.connect();
    assert_eq!(get(&mut other, 1000, &[(0, 0)]).status, 206);
    let mut client = server.connect();
    bound_receive_buffer(&client.stream);
    let line = range_line(&[(0, 7 << 20), (8 << 20, LARGE_BYTES - 1)]);
    client.send(format!("GET /{LARGE_BYTES}.txt HTTP/1.1\r\nHost: test\r\n{line}\r\n"));
    let length: usize = client.head_response().field("content-length").unwrap().parse().unwrap();
    let path = server.folder.path().join(format!("{LARGE_BYTES}.txt"));
    OpenOptions::new().write(true).open(path).unwrap().set_len(8 << 20).unwrap();
    let body = client.rest();
    assert!(body.len() < length, "a cut file arrived whole");
    assert_eq!(server.metric("webserver_responses_cut_total"), 1);
    assert_eq!(get(&mut other, 1000, &[(0, 0)]).status, 206);
}
