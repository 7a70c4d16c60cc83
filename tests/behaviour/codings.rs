//! Files that were compressed beforehand: which of them a client gets, and what is said about it.

use std::{
    fs::{self, File},
    os::unix::fs::symlink,
    time::{Duration, SystemTime},
};

use crate::{
    harness::{Client, Response, TestServer, content, wait_until},
    system::{assert_same, disk_folder, make_fifo, pattern, write_cold},
};

const ALL: &str = "    precompressed: [br, zstd, gzip]";

/// What `/a.html` and its codings consist of, each of another length.
const SITE: [(&str, &[u8]); 5] = [
    ("a.html", b"plain page"),
    ("a.html.br", b"br"),
    ("a.html.zst", b"zstd"),
    ("a.html.gz", b"gzipped"),
    ("b.html", b"another page"),
];

fn site() -> TestServer {
    TestServer::with_route(ALL, "", &SITE)
}

/// The coding of a response, `identity` for none; a status that is not 200 instead.
fn coding(response: &Response) -> String {
    match response.status {
        200 => response.field("content-encoding").unwrap_or("identity").to_owned(),
        status => status.to_string(),
    }
}

/// A request with one line `Accept-Encoding`.
fn get(client: &mut Client, target: &str, accept: &str) -> Response {
    client.request("GET", target, &format!("Accept-Encoding: {accept}\r\n"))
}

fn vary(response: &Response) -> Option<&str> {
    assert!(response.fields.iter().filter(|(name, _)| name == "vary").count() < 2);
    response.field("vary")
}

#[test]
fn the_client_s_weights_choose_among_the_codings() {
    let server = site();
    let mut client = server.connect();
    let table = [
        ("gzip", "gzip"),
        ("x-gzip", "gzip"),
        ("GZip", "gzip"),
        ("br", "br"),
        ("zstd", "zstd"),
        ("deflate", "identity"),
        ("gzip, deflate, br, zstd", "br"),
        ("gzip;q=0.5, br;q=0.4, zstd;q=0.3", "gzip"),
        ("gzip;q=0.5,br;q=0.4,zstd;q=0.501", "zstd"),
        ("br;q=0, gzip;q=0.001", "gzip"),
        ("br;q=0, gzip;q=0, zstd;q=0", "identity"),
        ("br;q=1.000, zstd", "br"),
        ("br;q=1.001, zstd", "zstd"),
        ("br;q=0.1234, zstd;q=0.1", "zstd"),
        ("br; q=0.1 ,\tzstd ;q=0.2", "zstd"),
        ("*", "br"),
        ("*;q=0.5, zstd", "zstd"),
        ("br;q=0, *", "zstd"),
        ("gzip, *;q=0", "gzip"),
        ("identity, br;q=0.9", "identity"),
        ("identity;q=0.5, br;q=0.5", "br"),
        ("identity;q=0, gzip;q=0.1", "gzip"),
        ("*;q=0, identity", "identity"),
        ("", "identity"),
        ("identity;q=0", "406"),
        ("*;q=0", "406"),
        ("deflate, *;q=0", "406"),
        ("identity;q=0, deflate", "406"),
    ];
    // From the descriptor first, from memory later.
    for round in 0..4 {
        for (accept, expected) in table {
            let response = get(&mut client, "/a.html", accept);
            assert_eq!(coding(&response), expected, "{accept} in round {round}");
            assert_eq!(vary(&response), Some("Accept-Encoding"), "{accept}");
            let name = match expected {
                "identity" => "a.html",
                "br" => "a.html.br",
                "zstd" => "a.html.zst",
                "gzip" => "a.html.gz",
                _ => continue,
            };
            let (_, body) = SITE.into_iter().find(|(file, _)| *file == name).unwrap();
            assert_eq!(response.body, body, "{accept}");
            assert_eq!(response.field("content-type"), Some("text/html; charset=utf-8"), "{accept}");
        }
        assert_eq!(coding(&client.request("GET", "/a.html", "")), "identity");
    }
    let lines = "Accept-Encoding: gzip;q=0.2\r\nX: y\r\nAccept-Encoding: zstd;q=0.3\r\nAccept-Encoding: identity;q=0\r\n";
    assert_eq!(coding(&client.request("GET", "/a.html", lines)), "zstd");
}

#[test]
fn at_equal_weights_the_configuration_s_order_decides() {
    let server = TestServer::with_route("    precompressed: [gzip, br]", "", &SITE);
    let mut client = server.connect();
    assert_eq!(coding(&get(&mut client, "/a.html", "zstd, br, gzip")), "gzip");
    assert_eq!(coding(&get(&mut client, "/a.html", "zstd, br")), "br");
    assert_eq!(coding(&get(&mut client, "/a.html", "zstd")), "identity");
    assert_eq!(coding(&get(&mut client, "/a.html", "zstd, *;q=0")), "406");
}

#[test]
fn without_the_key_nobody_gets_a_coding() {
    for route in ["", "    precompressed: []"] {
        let server = TestServer::with_route(route, "", &SITE);
        let mut client = server.connect();
        for accept in ["br, gzip", "identity;q=0", "*;q=0"] {
            let response = get(&mut client, "/a.html", accept);
            assert_eq!((coding(&response), vary(&response)), ("identity".to_owned(), None), "{accept}");
        }
    }
}

#[test]
fn a_head_says_what_a_get_would() {
    let server = site();
    let mut client = server.connect();
    for accept in ["br", "gzip", "zstd", "identity", "identity;q=0"] {
        let fields = format!("Accept-Encoding: {accept}\r\n");
        let get = client.request("GET", "/a.html", &fields);
        let head = client.request("HEAD", "/a.html", &fields);
        assert_eq!(head.status, get.status);
        let known = |response: &Response| {
            let fields = response.fields.iter().filter(|(name, _)| name != "date");
            fields.cloned().collect::<Vec<_>>()
        };
        assert_eq!(known(&head), known(&get), "{accept}");
    }
}

/// Entity tags of `/a.html` by what is accepted.
fn etags(client: &mut Client) -> Vec<(&'static str, String)> {
    let accepts = ["identity", "br", "zstd", "gzip"].into_iter();
    accepts.map(|accept| (accept, get(client, "/a.html", accept).field("etag").unwrap().to_owned())).collect()
}

#[test]
fn each_coding_has_validators_of_its_own() {
    let server = site();
    let times = [("a.html", 1_000_000_000), ("a.html.gz", 1_100_000_000)];
    for (name, seconds) in times {
        let file = File::options().write(true).open(server.folder.path().join(name)).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
    }
    let mut client = server.connect();
    let modified = |response: Response| response.field("last-modified").unwrap().to_owned();
    assert_eq!(modified(get(&mut client, "/a.html", "")), "Sun, 09 Sep 2001 01:46:40 GMT");
    assert_eq!(modified(get(&mut client, "/a.html", "gzip")), "Tue, 09 Nov 2004 11:33:20 GMT");
    let etags = etags(&mut client);
    for (accept, etag) in &etags {
        assert!(etag.starts_with('"'), "{etag} is not strong");
        for (other, other_etag) in &etags {
            assert_eq!(accept == other, etag == other_etag);
            let fields = format!("Accept-Encoding: {accept}\r\nIf-None-Match: {other_etag}\r\n");
            let response = client.request("GET", "/a.html", &fields);
            assert_eq!(response.status, if accept == other { 304 } else { 200 }, "{accept}, {other}");
            assert_eq!(response.field("etag"), Some(etag.as_str()));
            // RFC 9110 15.4.5: what a 200 would have said.
            assert_eq!(vary(&response), Some("Accept-Encoding"));
        }
        let all: Vec<&str> = etags.iter().map(|(_, etag)| etag.as_str()).collect();
        let fields = format!("Accept-Encoding: {accept}\r\nIf-None-Match: {}\r\n", all.join(", "));
        assert_eq!(client.request("GET", "/a.html", &fields).status, 304);
    }
    let since = |accept: &str| {
        format!("Accept-Encoding: {accept}\r\nIf-Modified-Since: Sun, 09 Sep 2001 01:46:40 GMT\r\n")
    };
    assert_eq!(client.request("GET", "/a.html", &since("")).status, 304);
    assert_eq!(client.request("GET", "/a.html", &since("gzip")).status, 200);
}

#[test]
fn ranges_are_of_the_coded_bytes() {
    let server = site();
    let mut client = server.connect();
    for _ in 0..3 {
        for (accept, etag) in etags(&mut client) {
            let whole = get(&mut client, "/a.html", accept);
            let size = whole.body.len();
            let fields = format!("Accept-Encoding: {accept}\r\nRange: bytes=1-\r\n");
            let part = client.request("GET", "/a.html", &fields);
            assert_eq!((part.status, part.body.as_slice()), (206, &whole.body[1..]), "{accept}");
            let bounds = format!("bytes 1-{}/{size}", size - 1);
            assert_eq!(part.field("content-range"), Some(bounds.as_str()), "{accept}");
            for name in ["etag", "content-encoding", "content-type", "last-modified", "vary"] {
                assert_eq!(part.field(name), whole.field(name), "{name}, {accept}");
            }
            for (other, other_etag) in etags(&mut client) {
                let fields = format!("{fields}If-Range: {other_etag}\r\n");
                let status = client.request("GET", "/a.html", &fields).status;
                assert_eq!(status, if other_etag == etag { 206 } else { 200 }, "{accept}, {other}");
            }
            let fields = format!("Accept-Encoding: {accept}\r\nRange: bytes={size}-\r\n");
            assert_eq!(client.request("GET", "/a.html", &fields).status, 416, "{accept}");
        }
    }
}

#[test]
fn several_ranges_of_a_coding_are_the_whole_of_it() {
    let large = content(100_000);
    let server = TestServer::with_route(ALL, "", &[("a.txt", &large), ("a.txt.gz", &large[1..])]);
    let mut client = server.connect();
    let ranges = "Range: bytes=0-9,50000-50009\r\n";
    let response = client.request("GET", "/a.txt", &format!("Accept-Encoding: gzip\r\n{ranges}"));
    assert_eq!(coding(&response), "gzip");
    assert_same("coded", &response.body, &large[1..]);
    let response = client.request("GET", "/a.txt", ranges);
    assert_eq!(response.status, 206);
    assert!(response.field("content-type").unwrap().starts_with("multipart/byteranges; boundary="));
    assert_eq!(vary(&response), Some("Accept-Encoding"));
}

#[test]
fn what_cannot_be_read_is_passed_over() {
    let server =
        TestServer::with_route(ALL, "", &[("a.css", b"plain"), ("a.css.gz", b"gzip"), ("b.css", b"plain")]);
    let at = |name: &str| server.folder.path().join(name);
    fs::create_dir(at("a.css.br")).unwrap();
    make_fifo(&at("a.css.zst"));
    symlink("/etc/hostname", at("b.css.br")).unwrap();
    symlink("b.css.zst", at("b.css.zst")).unwrap();
    let mut client = server.connect();
    for _ in 0..3 {
        assert_eq!(coding(&get(&mut client, "/a.css", "br, zstd, gzip")), "gzip");
        assert_eq!(coding(&get(&mut client, "/a.css", "br, zstd")), "identity");
        assert_eq!(coding(&get(&mut client, "/a.css", "br, zstd, identity;q=0")), "406");
        assert_eq!(coding(&get(&mut client, "/b.css", "br, zstd, gzip")), "identity");
        assert_eq!(coding(&get(&mut client, "/b.css", "*, identity;q=0")), "406");
    }
    assert_eq!(server.metric("webserver_panics_total"), 0);
}

#[test]
fn a_coding_alone_is_not_the_file() {
    let server = TestServer::with_route(ALL, "", &[("a.txt.gz", b"gzip"), ("folder/b.br", b"br")]);
    let mut client = server.connect();
    for target in ["/a.txt", "/folder/b", "/missing"] {
        let response = get(&mut client, target, "gzip, br");
        assert_eq!((response.status, vary(&response)), (404, None), "{target}");
    }
}

#[test]
fn a_coding_asked_for_by_its_name_is_a_file_like_any_other() {
    let server = site();
    let mut client = server.connect();
    for _ in 0..3 {
        for (target, media_type, body) in [
            ("/a.html.gz", "application/gzip", &b"gzipped"[..]),
            ("/a.html.zst", "application/zstd", b"zstd"),
            ("/a.html.br", "application/octet-stream", b"br"),
        ] {
            // Asked for in both ways in turn: neither is found under the name of the other.
            assert_eq!(coding(&get(&mut client, "/a.html", "gzip")), "gzip");
            let response = get(&mut client, target, "gzip, br, zstd, identity;q=0");
            assert_eq!((coding(&response), vary(&response)), ("identity".to_owned(), None), "{target}");
            assert_eq!(response.field("content-type"), Some(media_type), "{target}");
            assert_eq!(response.body, body, "{target}");
        }
    }
}

#[test]
fn the_index_of_a_folder_has_codings_too() {
    let files: [(&str, &[u8]); 3] =
        [("sub/start.htm", b"plain"), ("sub/start.htm.br", b"br"), ("sub/index.html.br", b"not this")];
    let route = format!("{ALL}\n    index: [missing.html, index.html, start.htm]");
    for memory in ["", "memory: { open_file_cache: 0 }"] {
        let server = TestServer::with_route(&route, memory, &files);
        let mut client = server.connect();
        for _ in 0..3 {
            let response = get(&mut client, "/sub/", "gzip, zstd;q=0.9, br;q=0.8");
            assert_eq!((coding(&response), response.body.as_slice()), ("br".to_owned(), &b"br"[..]));
            assert_eq!(get(&mut client, "/sub", "br").status, 301);
            assert_eq!(get(&mut client, "/sub/", "").body, b"plain");
        }
    }
}

#[test]
fn a_fallback_has_codings_and_an_error_page_has_none() {
    let files: [(&str, &[u8]); 4] =
        [("app.html", b"app"), ("app.html.br", b"br"), ("404.html", b"sorry"), ("404.html.br", b"br")];
    let server = TestServer::with_route(&format!("{ALL}\n    fallback: /app.html"), "", &files);
    let mut client = server.connect();
    for _ in 0..3 {
        let response = get(&mut client, "/missing/page", "br");
        assert_eq!((coding(&response), response.body.as_slice()), ("br".to_owned(), &b"br"[..]));
        assert_eq!(get(&mut client, "/missing/page", "gzip").body, b"app");
    }
    let route = format!("{ALL}\n    error_pages: {{ 404: /404.html, 406: /404.html }}");
    let server = TestServer::with_route(&route, "", &files);
    let mut client = server.connect();
    for (target, accept, status, varies) in
        [("/missing", "br", 404, None), ("/app.html", "*;q=0", 406, Some("Accept-Encoding"))]
    {
        let response = get(&mut client, target, accept);
        assert_eq!((response.status, response.body.as_slice()), (status, &b"sorry"[..]));
        assert_eq!((response.field("content-encoding"), vary(&response)), (None, varies));
    }
}

#[test]
fn the_route_s_media_types_are_those_of_its_codings() {
    let route = format!("{ALL}\n    types: {{ foo: x/foo, gz: x/gz }}");
    let server = TestServer::with_route(&route, "", &[("a.foo", b"plain"), ("a.foo.gz", b"gzip")]);
    let mut client = server.connect();
    assert_eq!(get(&mut client, "/a.foo", "gzip").field("content-type"), Some("x/foo"));
    assert_eq!(get(&mut client, "/a.foo.gz", "gzip").field("content-type"), Some("x/gz"));
}

#[test]
fn a_coding_is_used_however_old_it_is() {
    let server = site();
    let old = File::options().write(true).open(server.folder.path().join("a.html.br")).unwrap();
    old.set_modified(SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!(coding(&get(&mut server.connect(), "/a.html", "br")), "br");
}

#[test]
fn codings_that_come_and_go_are_seen_within_valid() {
    let server = TestServer::with_route(
        ALL,
        "memory: { open_file_cache: { entries: 100, valid: 1ms } }",
        &[("a.txt", b"plain"), ("a.txt.gz", b"one")],
    );
    let mut client = server.connect();
    assert_eq!(get(&mut client, "/a.txt", "gzip, br").body, b"one");
    server.write("a.txt.br", b"br");
    wait_until("a better coding", || coding(&get(&mut client, "/a.txt", "gzip, br")) == "br");
    fs::remove_file(server.folder.path().join("a.txt.br")).unwrap();
    wait_until("the next one", || coding(&get(&mut client, "/a.txt", "gzip, br")) == "gzip");
    server.write("a.txt.gz", b"two, longer");
    wait_until("its new content", || get(&mut client, "/a.txt", "gzip, br").body == b"two, longer");
    fs::remove_file(server.folder.path().join("a.txt")).unwrap();
    wait_until("the file to be gone", || get(&mut client, "/a.txt", "gzip").status == 404);
}

#[test]
fn a_coding_that_is_missing_is_looked_for_once_within_valid() {
    let server = TestServer::with_route(
        ALL,
        "memory: { open_file_cache: { entries: 100, valid: 1h } }",
        &[("a.txt", b"plain")],
    );
    let mut client = server.connect();
    // Three codings and the file, which is looked at again when it is hot.
    for _ in 0..3 {
        assert_eq!(coding(&get(&mut client, "/a.txt", "*")), "identity");
    }
    let before = server.metric("webserver_open_file_cache_misses_total");
    for _ in 0..10 {
        assert_eq!(coding(&get(&mut client, "/a.txt", "*")), "identity");
    }
    assert_eq!(server.metric("webserver_open_file_cache_misses_total"), before);
    server.write("a.txt.br", b"too late");
    assert_eq!(coding(&get(&mut client, "/a.txt", "*")), "identity");
}

#[test]
fn a_large_coding_arrives_byte_for_byte_warm_and_cold() {
    let folder = disk_folder();
    let text = format!(
        "shards: 1\nlisten: [\"127.0.0.1:0\"]\nroutes:\n  - root: {}\n{ALL}\n",
        folder.path().display()
    );
    let server = TestServer::from_yaml(&text, folder);
    let size = (5 << 20) + 3;
    server.write("a.bin", b"plain");
    if !write_cold(&server.folder.path().join("a.bin.zst"), &pattern()[..size]) {
        server.write("a.bin.zst", &pattern()[..size]);
    }
    let mut client = server.connect();
    for _ in 0..2 {
        let response = get(&mut client, "/a.bin", "zstd");
        assert_eq!(coding(&response), "zstd");
        assert_same("coded", &response.body, &pattern()[..size]);
        let fields = format!("Accept-Encoding: zstd\r\nRange: bytes={}-\r\n", size - 1_000_000);
        let part = client.request("GET", "/a.bin", &fields);
        assert_same("its end", &part.body, &pattern()[size - 1_000_000..size]);
    }
    assert_eq!(get(&mut client, "/a.bin", "gzip").body, b"plain");
}
