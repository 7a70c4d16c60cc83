//! What a route answers beside its files: fallbacks, error pages, methods, and what is said to caches.

use crate::{
    harness::{Response, TestServer, wait_until},
    system::make_fifo,
};

fn file_and_status(response: &Response) -> (u16, &[u8]) {
    (response.status, response.body.as_slice())
}

#[test]
fn what_is_not_found_is_answered_with_the_fallback() {
    let server = TestServer::with_route(
        "    fallback: /app/index.html",
        "",
        &[("app/index.html", b"app"), ("a.txt", b"a"), ("empty/x/y", b"y"), (".env", b"secret")],
    );
    for target in
        ["/missing", "/deep/er/missing.js?q", "/empty/", "/", "/a.txt/", "/a.txt/x", "/app/index.html"]
    {
        // Twice: what is opened off the shard the first time is answered on another way.
        for _ in 0..3 {
            let response = server.get(target);
            assert_eq!(file_and_status(&response), (200, &b"app"[..]), "{target}");
            assert_eq!(response.field("content-type"), Some("text/html; charset=utf-8"), "{target}");
        }
    }
    assert_eq!(server.get("/a.txt").body, b"a");
    assert_eq!(server.get("/empty").status, 301, "a folder is led to its slash first");
    assert_eq!(server.get("/.env").status, 404, "a hidden name is not answered for");
    assert_eq!(server.get("/..").status, 400);
    assert_eq!(server.request("PUT", "/missing", "").status, 405);
    assert_eq!(server.request("OPTIONS", "/missing", "").status, 204);
    let head = server.request("HEAD", "/missing", "");
    assert_eq!((head.status, head.field("content-length")), (200, Some("3")));
    // Its validators and ranges are those of the file.
    let etag = server.get("/missing").field("etag").unwrap().to_owned();
    assert_eq!(server.request("GET", "/other", &format!("If-None-Match: {etag}\r\n")).status, 304);
    assert_eq!(server.request("GET", "/other", "Range: bytes=1-\r\n").body, b"pp");
}

#[test]
fn a_fallback_that_is_missing_or_a_folder_is_not_found() {
    for fallback in ["/missing.html", "/folder", "/a.txt/x"] {
        let route = format!("    fallback: {fallback}");
        let server = TestServer::with_route(&route, "", &[("a.txt", b"a"), ("folder/b", b"b")]);
        for _ in 0..2 {
            assert_eq!(server.get("/x").status, 404, "{fallback}");
        }
        assert_eq!(server.get("/a.txt").body, b"a");
    }
}

#[test]
fn a_fallback_that_appears_later_is_found() {
    let server = TestServer::with_route(
        "    fallback: /index.html",
        "memory: { open_file_cache: { entries: 100, valid: 1ms } }",
        &[("a.txt", b"a")],
    );
    assert_eq!(server.get("/x").status, 404);
    server.write("index.html", b"late");
    wait_until("the fallback to be found", || server.get("/x").status == 200);
    assert_eq!(server.get("/x").body, b"late");
}

const PAGES: &str =
    "    error_pages: { 404: /e/404.html, 405: /e/405.json, 412: /e/missing, 416: /e/416.txt, 501: /e }";

fn with_pages() -> TestServer {
    TestServer::with_route(
        PAGES,
        "",
        &[
            ("a.txt", b"hello"),
            ("e/404.html", b"<h1>not here</h1>"),
            ("e/405.json", b"{}"),
            ("e/416.txt", b"no such range"),
        ],
    )
}

#[test]
fn an_error_page_keeps_the_status_and_what_belongs_to_it() {
    let server = with_pages();
    for _ in 0..3 {
        let response = server.get("/missing");
        assert_eq!(file_and_status(&response), (404, &b"<h1>not here</h1>"[..]));
        assert_eq!(response.field("content-type"), Some("text/html; charset=utf-8"));
        assert_eq!(response.field("content-length"), Some("17"));
        for name in ["etag", "last-modified", "accept-ranges", "content-range"] {
            assert_eq!(response.field(name), None, "{name}");
        }
        let response = server.request("POST", "/a.txt", "Content-Length: 0\r\n");
        assert_eq!(file_and_status(&response), (405, &b"{}"[..]));
        assert_eq!(response.field("content-type"), Some("application/json"));
        assert_eq!(response.field("allow"), Some("GET, HEAD, OPTIONS"));
        let response = server.request("GET", "/a.txt", "Range: bytes=9-\r\n");
        assert_eq!(file_and_status(&response), (416, &b"no such range"[..]));
        assert_eq!(response.field("content-range"), Some("bytes */5"));
    }
    // Asked for by its own name it is a file like others.
    let response = server.get("/e/404.html");
    assert_eq!(response.status, 200);
    assert!(response.field("etag").is_some());
}

#[test]
fn an_error_page_has_no_conditions_and_no_ranges() {
    let server = with_pages();
    for fields in ["If-None-Match: *\r\n", "Range: bytes=0-1\r\n", "If-Match: \"x\"\r\n"] {
        let response = server.request("GET", "/missing", fields);
        assert_eq!(file_and_status(&response), (404, &b"<h1>not here</h1>"[..]), "{fields}");
    }
    let head = server.request("HEAD", "/missing", "");
    assert_eq!((head.status, head.field("content-length")), (404, Some("17")));
}

#[test]
fn an_error_page_that_cannot_be_had_is_the_built_in_text() {
    let server = with_pages();
    for _ in 0..2 {
        let response = server.request("GET", "/a.txt", "If-Match: \"x\"\r\n");
        assert_eq!(file_and_status(&response), (412, &b"412 Precondition Failed\n"[..]));
        assert_eq!(response.field("content-type"), Some("text/plain; charset=utf-8"));
        let response = server.request("BREW", "/a.txt", "");
        assert_eq!(file_and_status(&response), (501, &b"501 Not Implemented\n"[..]));
    }
}

#[test]
fn an_error_page_may_be_large() {
    let page = crate::harness::content(300_000);
    let server = TestServer::with_route("    error_pages: { 404: /404.bin }", "", &[("404.bin", &page)]);
    let mut client = server.connect();
    for _ in 0..3 {
        let response = client.request("GET", "/missing", "");
        assert_eq!(response.status, 404);
        assert!(response.body == page);
    }
}

#[test]
fn a_route_takes_the_methods_that_it_names() {
    let folder = tempfile::tempdir().unwrap();
    crate::harness::write(folder.path(), "a", b"a");
    let root = folder.path().display();
    let text = format!(
        "shards: 1\nlisten: [\"127.0.0.1:0\"]\nroutes:\n  - {{ path: /get, root: {root}, methods: [GET] }}\n  \
         - {{ path: /head, root: {root}, methods: [HEAD], error_pages: {{ 405: /a }} }}\n  \
         - {{ path: /to, redirect: {{ to: /x }}, methods: [POST, GET] }}\n  \
         - {{ path: /any, redirect: {{ to: /x }} }}\n"
    );
    let server = TestServer::from_yaml(&text, folder);
    let table = [
        ("GET", "/get/a", 200, None),
        ("HEAD", "/get/a", 200, None),
        ("POST", "/get/a", 405, Some("GET, HEAD, OPTIONS")),
        ("OPTIONS", "/get/a", 204, Some("GET, HEAD, OPTIONS")),
        ("BREW", "/get/a", 501, None),
        ("HEAD", "/head/a", 200, None),
        ("GET", "/head/a", 405, Some("HEAD, OPTIONS")),
        ("OPTIONS", "/head/missing", 204, Some("HEAD, OPTIONS")),
        ("GET", "/to/a", 301, None),
        ("HEAD", "/to/a", 301, None),
        ("POST", "/to/a", 301, None),
        ("DELETE", "/to/a", 405, Some("GET, HEAD, OPTIONS, POST")),
        ("OPTIONS", "/to/a", 204, Some("GET, HEAD, OPTIONS, POST")),
        ("BREW", "/to/a", 501, None),
        ("DELETE", "/any/a", 301, None),
        ("OPTIONS", "/any/a", 301, None),
    ];
    for (method, target, status, allow) in table {
        let response = server.request(method, target, "");
        assert_eq!((response.status, response.field("allow")), (status, allow), "{method} {target}");
    }
    assert_eq!(server.request("GET", "/head/x", "").body, b"a", "the page of the 405");
}

const CACHED: &str = "    fallback: /index.html
    cache_control:
      - { pattern: \"*.css\", value: \"public, max-age=3600\", expires: 1h }
      - { pattern: \"assets/*\", value: \"public, max-age=31536000, immutable\" }
      - { pattern: \"index.html\", value: no-cache }
      - { pattern: \"*.json\", expires: 10s }";

fn expires_in(response: &Response) -> Option<u64> {
    let seconds = |name| webserver::http::date::parse(response.field(name)?.as_bytes());
    Some(seconds("expires")? - seconds("date")?)
}

#[test]
fn the_first_rule_that_is_about_a_file_is_told_to_caches() {
    let server = TestServer::with_route(
        CACHED,
        "",
        &[
            ("index.html", b"<p>"),
            ("sub/index.html", b"<p>"),
            ("a.css", b"a{}"),
            ("assets/b.css", b"b{}"),
            ("assets/deep/c.js", b"1"),
            ("d.json", b"{}"),
            ("e.txt", b"e"),
        ],
    );
    let css = "public, max-age=3600";
    let forever = "public, max-age=31536000, immutable";
    let table = [
        ("/a.css", Some(css), Some(3600)),
        ("/assets/b.css", Some(css), Some(3600)),
        ("/assets/deep/c.js", Some(forever), None),
        ("/", Some("no-cache"), None),
        ("/sub/", Some("no-cache"), None),
        ("/d.json", Some("max-age=10"), Some(10)),
        ("/e.txt", None, None),
        // The fallback is the file that it is, whatever was asked for.
        ("/assets/missing.css", Some("no-cache"), None),
    ];
    for (target, value, expires) in table {
        for _ in 0..3 {
            let response = server.get(target);
            assert_eq!(response.status, 200, "{target}");
            assert_eq!(
                (response.field("cache-control"), expires_in(&response)),
                (value, expires),
                "{target}"
            );
        }
    }
    let etag = server.get("/a.css").field("etag").unwrap().to_owned();
    for (fields, status) in
        [("Range: bytes=0-0\r\n".to_owned(), 206), (format!("If-None-Match: {etag}\r\n"), 304)]
    {
        let response = server.request("GET", "/a.css", &fields);
        assert_eq!((response.status, response.field("cache-control")), (status, Some(css)));
    }
    // An error is not a file.
    for (method, fields, status) in
        [("GET", "Range: bytes=9-\r\n", 416), ("GET", "If-Match: \"x\"\r\n", 412), ("PUT", "", 405)]
    {
        let response = server.request(method, "/a.css", fields);
        assert_eq!(response.status, status);
        assert_eq!((response.field("cache-control"), response.field("expires")), (None, None), "{status}");
    }
}

#[test]
fn one_value_is_told_about_every_file() {
    let server = TestServer::with_route("    cache_control: no-store", "", &[("a", b"a"), ("x/b", b"b")]);
    for target in ["/a", "/x/b"] {
        assert_eq!(server.get(target).field("cache-control"), Some("no-store"));
    }
    assert_eq!(server.get("/missing").field("cache-control"), None);
}

#[test]
fn what_may_not_be_served_is_not_answered_for_by_the_fallback() {
    let server = TestServer::with_route("    fallback: /index.html", "", &[("index.html", b"i")]);
    make_fifo(&server.folder.path().join("fifo"));
    assert_eq!(server.get("/fifo").status, 403);
    assert_eq!(server.get("/other").body, b"i");
}
