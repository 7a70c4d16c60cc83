//! Files: which of them a request can reach, what is said about them, and what is remembered of them.

use std::{
    fs::{self, File, Permissions},
    os::unix::{
        fs::{MetadataExt, PermissionsExt, symlink},
        net::UnixListener,
    },
    time::{Duration, SystemTime},
};

use crate::{
    harness::{Client, TestServer, wait_until},
    system::{assert_same, become_nobody, in_child, make_device, make_fifo, pattern, skip},
};

/// A site in `site`, and beside it a file that is nobody's business.
fn site_with_a_secret(route: &str, files: &[(&str, &[u8])]) -> TestServer {
    let folder = tempfile::tempdir().unwrap();
    for (path, content) in files {
        crate::harness::write(&folder.path().join("site"), path, content);
    }
    crate::harness::write(folder.path(), "secret", b"SECRET");
    let root = folder.path().join("site");
    let text = format!(
        "shards: 1\nlisten: [\"127.0.0.1:0\"]\nroutes:\n  - path: /\n    root: {}\n{route}\n",
        root.display()
    );
    TestServer::from_yaml(&text, folder)
}

#[test]
fn no_path_leaves_the_root() {
    let server = site_with_a_secret("", &[("a/b.txt", b"b"), ("c.txt", b"c")]);
    let refused = [
        ("/../secret", 400),
        ("/..", 400),
        ("/a/../../secret", 400),
        ("/./../secret", 400),
        ("/%2e%2e/secret", 400),
        ("/%2E./secret", 400),
        ("/a/%2e%2E/%2e%2e/secret", 400),
        ("//../secret", 400),
        ("/..%2fsecret", 400),
        ("/a%2Fb.txt", 400),
        ("/%2e%2e%2fsecret", 400),
        ("/secret%00", 400),
        ("/c.txt%00.html", 400),
        ("/%", 400),
        ("/%2", 400),
        ("/%zz", 400),
        ("/%252e%252e/secret", 404),
        ("/%252e%252e%252fsecret", 404),
        ("/..%5csecret", 404),
        ("/....//secret", 404),
        ("/..;/secret", 404),
        ("/%c0%ae%c0%ae/secret", 404),
        ("/a/b.txt/../../secret", 404),
        ("/secret", 404),
    ];
    for (target, status) in refused {
        let response = server.get(target);
        assert_eq!(response.status, status, "{target}");
        assert!(!response.body.windows(6).any(|window| window == b"SECRET"), "{target}");
    }
    for target in ["/a/../c.txt", "/a/%2e%2e/c.txt", "/./c.txt", "//c.txt", "/a/.//../c.txt", "/%63.txt"] {
        let response = server.get(target);
        assert_eq!((response.status, response.body.as_slice()), (200, &b"c"[..]), "{target}");
    }
}

#[test]
fn a_raw_nul_ends_the_connection() {
    let server = TestServer::with_files(&[("a", b"a")]);
    let mut client = server.connect();
    client.send(b"GET /a\0b HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(client.response().status, 400);
    client.expect_close();
}

#[test]
fn a_path_is_as_long_as_the_kernel_allows_and_no_longer() {
    let server = TestServer::with_files(&[("a", b"a")]);
    let dots = |count: usize| format!("/{}a", "./".repeat(count));
    assert_eq!(server.get(&dots(2000)).status, 200, "what is left counts");
    for length in [255, 256, 4095, 4096, 8000] {
        assert_eq!(server.get(&format!("/{}", "n".repeat(length))).status, 404, "{length}");
    }
}

#[test]
fn links_are_followed_inside_the_root_alone() {
    let server = site_with_a_secret("", &[("real/page.txt", b"page")]);
    let site = server.folder.path().join("site");
    let outside = server.folder.path();
    symlink("real/page.txt", site.join("inside")).unwrap();
    symlink("real", site.join("folder")).unwrap();
    symlink("../real/page.txt", site.join("real/up")).unwrap();
    symlink("../secret", site.join("outside")).unwrap();
    symlink(outside.join("secret"), site.join("absolute")).unwrap();
    symlink(outside, site.join("out")).unwrap();
    symlink("loop", site.join("loop")).unwrap();
    symlink("nowhere", site.join("broken")).unwrap();
    symlink("/proc/self/environ", site.join("proc")).unwrap();
    for target in ["/inside", "/folder/page.txt", "/real/up"] {
        let response = server.get(target);
        assert_eq!((response.status, response.body.as_slice()), (200, &b"page"[..]), "{target}");
    }
    for target in ["/outside", "/absolute", "/out/secret", "/out/", "/loop", "/broken", "/proc", "/proc/"] {
        assert_eq!(server.get(target).status, 404, "{target}");
    }
}

#[test]
fn what_is_no_file_is_forbidden_and_holds_nobody_up() {
    let server = TestServer::with_files(&[("a.txt", b"a")]);
    let folder = server.folder.path();
    make_fifo(&folder.join("fifo"));
    let _socket = UnixListener::bind(folder.join("socket")).unwrap();
    let mut waiting = server.connect();
    waiting.send("GET /fifo HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(server.get("/a.txt").body, b"a");
    assert_eq!(waiting.response().status, 403);
    assert_eq!(server.get("/socket").status, 403);
    assert_eq!(server.get("/fifo/").status, 404);
    match make_device(&folder.join("zero")) {
        Ok(()) => assert_eq!(server.get("/zero").status, 403),
        Err(error) => skip(&format!("a device is not served: cannot make one ({error})")),
    }
    assert_eq!(server.get("/a.txt").body, b"a");
}

#[test]
fn an_unreadable_file_is_forbidden() {
    in_child("files::an_unreadable_file_is_forbidden_to_nobody");
}

#[test]
#[ignore = "run in a process of its own by an_unreadable_file_is_forbidden: it gives up being root"]
fn an_unreadable_file_is_forbidden_to_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let mode = |name: &str, mode| fs::set_permissions(path(name), Permissions::from_mode(mode)).unwrap();
    for name in ["open.txt", "closed.txt", "shut/a.txt", "unlisted/a.txt"] {
        crate::harness::write(folder.path(), name, b"content");
    }
    fs::write(path("large"), &pattern()[..1 << 20]).unwrap();
    mode("closed.txt", 0);
    mode("shut", 0o600);
    mode("unlisted", 0o711);
    if become_nobody(&[folder.path(), &path("shut"), &path("unlisted"), &path("closed.txt")]) {
        assert_eq!(fs::metadata(path("large")).unwrap().uid(), 0);
    }
    let root = folder.path().display().to_string();
    let text = format!("shards: 1\nlisten: [\"127.0.0.1:0\"]\nroutes: [{{ root: {root} }}]\n");
    let server = TestServer::from_yaml(&text, tempfile::tempdir().unwrap());
    for _ in 0..3 {
        assert_eq!(server.get("/open.txt").body, b"content");
        assert_eq!(server.get("/unlisted/a.txt").status, 200);
        assert_eq!(server.get("/closed.txt").status, 403);
        assert_eq!(server.get("/shut/a.txt").status, 403);
        assert_eq!(server.get("/shut/missing").status, 403);
    }
    // Somebody else's file, about which the kernel tells less, still goes from the page cache.
    assert_same("large", &server.get("/large").body, &pattern()[..1 << 20]);
    assert!(server.metric("webserver_sendfile_bytes_total") >= 1 << 20);
    mode("shut", 0o700);
}

#[test]
fn dotfiles_are_hidden_unless_asked_for() {
    let files: [(&str, &[u8]); 5] = [
        (".env", b"e"),
        (".git/config", b"g"),
        ("a/.hidden", b"h"),
        (".well-known/security.txt", b"w"),
        ("a/.well-known/x", b"x"),
    ];
    let hidden = TestServer::with_files(&files);
    let served = TestServer::with_route("    dotfiles: true", "", &files);
    for (path, content) in files {
        let expected = if path == ".well-known/security.txt" { 200 } else { 404 };
        assert_eq!(hidden.get(&format!("/{path}")).status, expected, "{path}");
        assert_eq!(served.get(&format!("/{path}")).body, content, "{path}");
    }
    for target in ["/%2eenv", "/.git", "/.git/", "/x/../.env", "/..env", "/.well-known/.x", "/...", "//.env"]
    {
        assert_eq!(hidden.get(target).status, 404, "{target}");
    }
    // A folder of that name is not found either: a redirect would tell that it exists.
    assert_eq!(hidden.get("/.git").field("location"), None);
}

#[test]
fn a_folder_answers_with_the_first_index_that_exists() {
    let files: [(&str, &[u8]); 5] = [
        ("index.html", b"root"),
        ("sub/index.html", b"sub"),
        ("both/index.html", b"second"),
        ("both/home.htm", b"first"),
        ("empty/x", b""),
    ];
    let server = TestServer::with_route("    index: [home.htm, index.html]", "", &files);
    fs::create_dir(server.folder.path().join("sub/home.htm")).unwrap();
    assert_eq!(server.get("/").body, b"root");
    assert_eq!(server.get("/?query").body, b"root");
    assert_eq!(server.get("/sub/").body, b"sub", "a folder is no index");
    assert_eq!(server.get("/both/").body, b"first");
    assert_eq!(server.get("/empty/").status, 404);
    assert_eq!(server.get("/sub/").field("content-type"), Some("text/html; charset=utf-8"));
    let none = TestServer::with_route("    index: []", "", &files);
    assert_eq!(none.get("/").status, 404);
    assert_eq!(none.get("/index.html").body, b"root");
}

#[test]
fn a_folder_without_its_slash_is_redirected_within_the_site() {
    let server = TestServer::with_files(&[
        ("sub/index.html", b"sub"),
        ("a b/c#d/index.html", b"x"),
        ("evil.example/index.html", b"x"),
        ("\\evil.example/index.html", b"x"),
        ("x\r\nSet-Cookie: y/index.html", b"x"),
        ("file.txt", b"x"),
    ]);
    let redirects = [
        ("/sub", "/sub/"),
        ("/sub?a=b&c=%20", "/sub/?a=b&c=%20"),
        ("/sub?", "/sub/?"),
        ("/a%20b", "/a%20b/"),
        ("/a%20b/c%23d?q", "/a%20b/c%23d/?q"),
        ("//evil.example", "/evil.example/"),
        ("///evil.example", "/evil.example/"),
        ("/.//evil.example", "/evil.example/"),
        ("//sub/..//evil.example", "/evil.example/"),
        ("/\\evil.example", "/%5Cevil.example/"),
        ("/%5cevil.example", "/%5Cevil.example/"),
        ("/x%0d%0aSet-Cookie:%20y", "/x%0D%0ASet-Cookie:%20y/"),
    ];
    for (target, location) in redirects {
        let response = server.get(target);
        assert_eq!((response.status, response.field("location")), (301, Some(location)), "{target}");
        assert_eq!(response.field("set-cookie"), None);
    }
    // Nothing is left of it: the root's index is asked for.
    assert_eq!(server.get("//evil.example/..").status, 404);
    assert_eq!(server.get("//evil.example/%2e%2e").field("location"), None);
    assert_eq!(server.get("/file.txt/").status, 404);
}

#[test]
fn media_types_come_from_the_table_or_the_route() {
    let names =
        ["a.html", "A.HTML", "a.svg", "a.js", "a.unknown", "noext", "a.tar.gz", "x.d/file", "a.foo", "a.txt"];
    let files: Vec<(&str, &[u8])> = names.iter().map(|name| (*name, &b"x"[..])).collect();
    let route = "    types: { foo: application/x-foo, .TXT: \"text/plain; charset=latin1\" }";
    let server = TestServer::with_route(route, "", &files);
    let octets = "application/octet-stream";
    let types = [
        ("/a.html", "text/html; charset=utf-8"),
        ("/A.HTML", "text/html; charset=utf-8"),
        ("/a.svg", "image/svg+xml"),
        ("/a.js", "text/javascript; charset=utf-8"),
        ("/a.unknown", octets),
        ("/noext", octets),
        ("/a.tar.gz", "application/gzip"),
        ("/x.d/file", octets),
        ("/a.foo", "application/x-foo"),
        ("/a.txt", "text/plain; charset=latin1"),
    ];
    for (target, media_type) in types {
        assert_eq!(server.get(target).field("content-type"), Some(media_type), "{target}");
    }
}

#[test]
fn validators_say_inode_size_and_time() {
    let server = TestServer::with_files(&[("a.txt", b"hello")]);
    let path = server.folder.path().join("a.txt");
    let time = SystemTime::UNIX_EPOCH + Duration::new(784_111_777, 123_456_789);
    File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
    let stat = fs::metadata(&path).unwrap();
    let nanos = i128::from(stat.mtime()) * 1_000_000_000 + i128::from(stat.mtime_nsec());
    let response = server.get("/a.txt");
    assert_eq!(response.field("etag").unwrap(), format!("\"{:x}-5-{nanos:x}\"", stat.ino()));
    assert_eq!(response.field("last-modified"), Some("Sun, 06 Nov 1994 08:49:37 GMT"));
    assert_eq!(response.field("accept-ranges"), Some("bytes"));
    assert_eq!(response.field("content-length"), Some("5"));
    let head = server.request("HEAD", "/a.txt", "");
    let get = server.request("GET", "/a.txt", "");
    let without_date = |fields: &[(String, String)]| -> Vec<(String, String)> {
        fields.iter().filter(|(name, _)| name != "date").cloned().collect()
    };
    assert_eq!((head.status, without_date(&head.fields)), (200, without_date(&get.fields)));
}

/// A server with one file `a.txt`, ten bytes, of a known date, and its entity tag.
fn dated() -> (TestServer, String) {
    let server = TestServer::with_files(&[("a.txt", b"0123456789")]);
    let time = SystemTime::UNIX_EPOCH + Duration::new(784_111_777, 5);
    File::options().write(true).open(server.folder.path().join("a.txt")).unwrap().set_modified(time).unwrap();
    let etag = server.get("/a.txt").field("etag").unwrap().to_owned();
    (server, etag)
}

const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
const AT: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
const AFTER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

#[test]
fn conditions_are_evaluated_in_their_order() {
    let (server, etag) = dated();
    let mut client = server.connect();
    let table = [
        // RFC 9110 13.2.2, step 1 and 2.
        (format!("If-Match: {etag}\r\n"), 200),
        ("If-Match: *\r\n".to_owned(), 200),
        ("If-Match: \"other\"\r\n".to_owned(), 412),
        (format!("If-Match: W/{etag}\r\n"), 412),
        (format!("If-Match: \"other\", {etag}\r\n"), 200),
        (format!("If-Unmodified-Since: {BEFORE}\r\n"), 412),
        (format!("If-Unmodified-Since: {AT}\r\n"), 200),
        (format!("If-Match: {etag}\r\nIf-Unmodified-Since: {BEFORE}\r\n"), 200),
        // Steps 3 and 4.
        (format!("If-None-Match: {etag}\r\n"), 304),
        (format!("If-None-Match: W/{etag}\r\n"), 304),
        ("If-None-Match: *\r\n".to_owned(), 304),
        ("If-None-Match: \"other\"\r\n".to_owned(), 200),
        (format!("If-None-Match: \"other\"\r\nIf-None-Match: {etag}\r\n"), 304),
        (format!("If-Modified-Since: {BEFORE}\r\n"), 200),
        (format!("If-Modified-Since: {AT}\r\n"), 304),
        (format!("If-Modified-Since: {AFTER}\r\n"), 304),
        ("If-Modified-Since: Sunday, 06-Nov-94 08:49:37 GMT\r\n".to_owned(), 304),
        ("If-Modified-Since: Sun Nov  6 08:49:37 1994\r\n".to_owned(), 304),
        ("If-Modified-Since: yesterday\r\n".to_owned(), 200),
        (format!("If-None-Match: \"other\"\r\nIf-Modified-Since: {AFTER}\r\n"), 200),
        // Across steps: what comes first decides.
        (format!("If-Match: \"other\"\r\nIf-None-Match: {etag}\r\n"), 412),
        (format!("If-Match: {etag}\r\nIf-None-Match: {etag}\r\n"), 304),
        (format!("If-None-Match: {etag}\r\nRange: bytes=0-1\r\n"), 304),
        ("If-Match: \"other\"\r\nRange: bytes=0-1\r\n".to_owned(), 412),
        (format!("If-Match: {etag}\r\nRange: bytes=0-1\r\n"), 206),
    ];
    for (fields, status) in table {
        for method in ["GET", "HEAD"] {
            let response = client.request(method, "/a.txt", &fields);
            let expected = if method == "HEAD" && status == 206 { 200 } else { status };
            assert_eq!(response.status, expected, "{method} {fields}");
            if status == 304 {
                assert_eq!(response.field("etag"), Some(etag.as_str()), "{fields}");
                assert_eq!(response.field("last-modified"), Some(AT), "{fields}");
                assert_eq!(response.field("content-length"), None, "{fields}");
            }
        }
    }
    // In front of another answer than 2xx conditions mean nothing (RFC 9110 13.2.1).
    assert_eq!(client.request("GET", "/missing", "If-None-Match: *\r\n").status, 404);
    assert_eq!(client.request("GET", "/missing", "If-Match: *\r\n").status, 404);
}

#[test]
fn single_ranges_are_served() {
    let (server, etag) = dated();
    let mut client = server.connect();
    let parts: [(&str, &[u8], &str); 10] = [
        ("bytes=0-0", b"0", "bytes 0-0/10"),
        ("bytes=2-4", b"234", "bytes 2-4/10"),
        ("bytes=0-", b"0123456789", "bytes 0-9/10"),
        ("bytes=9-", b"9", "bytes 9-9/10"),
        ("bytes=8-100", b"89", "bytes 8-9/10"),
        ("bytes=-1", b"9", "bytes 9-9/10"),
        ("bytes=-10", b"0123456789", "bytes 0-9/10"),
        ("bytes=-99999999999999999999999", b"0123456789", "bytes 0-9/10"),
        ("BYTES=3-99999999999999999999999", b"3456789", "bytes 3-9/10"),
        ("bytes= 1-2 ", b"12", "bytes 1-2/10"),
    ];
    for (range, body, content_range) in parts {
        let response = client.request("GET", "/a.txt", &format!("Range: {range}\r\n"));
        assert_eq!((response.status, response.body.as_slice()), (206, body), "{range}");
        assert_eq!(response.field("content-range"), Some(content_range), "{range}");
        assert_eq!(response.field("etag"), Some(etag.as_str()), "{range}");
        assert_eq!(response.field("content-type"), Some("text/plain; charset=utf-8"), "{range}");
    }
    for range in ["bytes=10-", "bytes=10-11", "bytes=-0", "bytes=99999999999999999999999-"] {
        let response = client.request("GET", "/a.txt", &format!("Range: {range}\r\n"));
        assert_eq!((response.status, response.field("content-range")), (416, Some("bytes */10")), "{range}");
    }
    let ignored =
        ["bytes=4-2", "bytes=", "bytes=-", "bytes=a-b", "bytes=0-1,x", "lines=1-2", "0-1", "bytes=+1-2"];
    for range in ignored {
        let response = client.request("GET", "/a.txt", &format!("Range: {range}\r\n"));
        assert_eq!((response.status, response.body.len()), (200, 10), "{range}");
        assert_eq!(response.field("content-range"), None, "{range}");
    }
}

#[test]
fn if_range_decides_whether_a_range_counts() {
    let (server, etag) = dated();
    let mut client = server.connect();
    let table = [
        (etag.clone(), 206),
        (AT.to_owned(), 206),
        (format!("W/{etag}"), 200),
        ("\"other\"".to_owned(), 200),
        (BEFORE.to_owned(), 200),
        (AFTER.to_owned(), 200),
        ("nonsense".to_owned(), 200),
    ];
    for (value, status) in table {
        let response = client.request("GET", "/a.txt", &format!("Range: bytes=0-1\r\nIf-Range: {value}\r\n"));
        assert_eq!(response.status, status, "{value}");
        // A range that cannot be served is no reason for 416 when it does not count.
        let response = client.request("GET", "/a.txt", &format!("Range: bytes=50-\r\nIf-Range: {value}\r\n"));
        assert_eq!(response.status, if status == 206 { 416 } else { 200 }, "{value}");
    }
    assert_eq!(client.request("GET", "/a.txt", &format!("If-Range: {etag}\r\n")).status, 200);
}

#[test]
fn a_range_means_nothing_to_head_and_to_an_empty_file_little() {
    let server = TestServer::with_files(&[("a", b"0123456789"), ("empty", b"")]);
    let mut client = server.connect();
    let head = client.request("HEAD", "/a", "Range: bytes=0-1\r\n");
    assert_eq!((head.status, head.field("content-length")), (200, Some("10")));
    assert_eq!(client.request("HEAD", "/a", "Range: bytes=50-\r\n").status, 200);
    assert_eq!(client.request("GET", "/empty", "Range: bytes=0-\r\n").status, 416);
    assert_eq!(client.request("GET", "/empty", "Range: bytes=-5\r\n").status, 200);
    assert_eq!(client.request("GET", "/empty", "").body, b"");
}

#[test]
fn other_methods_are_refused_and_the_connection_goes_on() {
    let server = TestServer::with_files(&[("a", b"a")]);
    let mut client = server.connect();
    for (method, status) in [("PUT", 405), ("DELETE", 405), ("PATCH", 405), ("TRACE", 405), ("BREW", 501)] {
        let response = client.request(method, "/a", "");
        assert_eq!((response.status, response.field("allow")), allowed(status), "{method}");
    }
    let options = client.request("OPTIONS", "/a", "");
    assert_eq!((options.status, options.field("allow")), (204, Some("GET, HEAD, OPTIONS")));
    assert_eq!(client.request("GET", "/a", "").body, b"a");
}

fn allowed(status: u16) -> (u16, Option<&'static str>) {
    (status, (status == 405).then_some("GET, HEAD, OPTIONS"))
}

/// Configuration of an open-file cache.
fn cache(values: &str) -> String {
    format!("memory: {{ open_file_cache: {{ {values} }} }}")
}

/// A connection that is there already: a request on it is answered in a later turn of the shard than the one that
/// answered before on another connection, and a turn ends with its figures published.
struct Barrier(Client);

impl Barrier {
    fn new(server: &TestServer) -> Self {
        let mut barrier = Barrier(server.connect());
        barrier.pass();
        barrier
    }

    fn pass(&mut self) {
        assert_eq!(self.0.request("OPTIONS", "/", "").status, 204);
    }
}

#[test]
fn a_replaced_file_is_seen_within_valid() {
    for large in [false, true] {
        let content = |byte: u8| vec![byte; if large { 100_000 } else { 10 }];
        let server = TestServer::start(&cache("entries: 100, valid: 20ms"), &[("a", &content(b'1'))]);
        let path = server.folder.path().join("a");
        let mut client = server.connect();
        for _ in 0..3 {
            assert_eq!(client.request("GET", "/a", "").body, content(b'1'));
        }
        // Another file takes the name, as a deployment does it.
        server.write("new", &content(b'2'));
        fs::rename(server.folder.path().join("new"), &path).unwrap();
        wait_until("the other file", || client.request("GET", "/a", "").body == content(b'2'));
        if !large {
            // The same file is written again. (A large one would be cut meanwhile: its length was announced.)
            let before = client.request("GET", "/a", "").field("etag").unwrap().to_owned();
            fs::write(&path, vec![b'3'; 11]).unwrap();
            wait_until("the new content", || client.request("GET", "/a", "").body == [b'3'; 11]);
            assert_ne!(client.request("GET", "/a", "").field("etag"), Some(before.as_str()));
        }
        fs::remove_file(&path).unwrap();
        wait_until("the file to be gone", || client.request("GET", "/a", "").status == 404);
    }
}

#[test]
fn within_valid_a_file_is_not_looked_at_again() {
    let server = TestServer::start(&cache("entries: 100, valid: 1h"), &[("a", b"old")]);
    let mut client = server.connect();
    for _ in 0..3 {
        assert_eq!(client.request("GET", "/a", "").body, b"old");
    }
    server.write("new", b"new");
    fs::rename(server.folder.path().join("new"), server.folder.path().join("a")).unwrap();
    assert_eq!(client.request("GET", "/a", "").body, b"old");
    assert!(server.metric("webserver_open_file_cache_hits_total") >= 1);
}

#[test]
fn a_failure_is_remembered_for_as_long_as_valid() {
    let server = TestServer::start(&cache("entries: 100, valid: 1h"), &[]);
    let mut client = server.connect();
    assert_eq!(client.request("GET", "/late", "").status, 404);
    server.write("late", b"here");
    assert_eq!(client.request("GET", "/late", "").status, 404, "remembered");

    let server = TestServer::start(&cache("entries: 100, valid: 20ms"), &[]);
    let mut client = server.connect();
    assert_eq!(client.request("GET", "/late", "").status, 404);
    server.write("late", b"here");
    wait_until("the file to appear", || client.request("GET", "/late", "").status == 200);

    let server = TestServer::start(&cache("entries: 100, valid: 1h, errors: false"), &[]);
    let mut client = server.connect();
    assert_eq!(client.request("GET", "/late", "").status, 404);
    server.write("late", b"here");
    assert_eq!(client.request("GET", "/late", "").body, b"here");
}

#[test]
fn a_file_is_kept_from_its_min_uses_on() {
    let server = TestServer::start(&cache("entries: 100, min_uses: 3"), &[("a", b"a")]);
    let mut client = server.connect();
    let mut barrier = Barrier::new(&server);
    for (uses, entries) in [(1, 0), (2, 0), (3, 1), (4, 1)] {
        assert_eq!(client.request("GET", "/a", "").body, b"a");
        barrier.pass();
        assert_eq!(server.metric("webserver_open_file_cache_entries"), entries, "after {uses} uses");
    }
}

#[test]
fn the_cache_holds_its_entries_and_no_more() {
    let names: Vec<String> = (0..40).map(|number| format!("file{number}")).collect();
    let files: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), name.as_bytes())).collect();
    for (entries, kept) in [("4", 4), ("0", 0)] {
        let server = TestServer::start(&cache(&format!("entries: {entries}")), &files);
        let mut client = server.connect();
        let mut barrier = Barrier::new(&server);
        for _ in 0..3 {
            for name in &names {
                assert_eq!(client.request("GET", &format!("/{name}"), "").body, name.as_bytes());
                assert_eq!(client.request("GET", &format!("/missing{name}"), "").status, 404);
            }
        }
        barrier.pass();
        assert_eq!(server.metric("webserver_open_file_cache_entries"), kept);
    }
}

#[test]
fn what_is_not_used_is_let_go() {
    let server = TestServer::start(&cache("entries: 100, inactive: 1ms"), &[("a", b"a")]);
    assert_eq!(server.get("/a").body, b"a");
    server.await_metric("webserver_open_file_cache_entries", 1);
    wait_until("the file to be closed", || server.metric("webserver_open_file_cache_entries") == 0);
    assert_eq!(server.get("/a").body, b"a");
}

#[test]
fn a_file_in_use_is_never_closed_under_its_reader() {
    let large = &pattern()[..16 << 20];
    let server =
        TestServer::start(&cache("entries: 1, inactive: 1ms, valid: 1ms"), &[("large", large), ("b", b"b")]);
    let mut slow = Client::connect(server.address);
    crate::system::bound_receive_buffer(&slow.stream);
    slow.send("GET /large HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(slow.head_response().status, 200);
    for _ in 0..3 {
        assert_eq!(server.get("/b").body, b"b");
    }
    fs::remove_file(server.folder.path().join("large")).unwrap();
    wait_until("the cache to be empty", || server.metric("webserver_open_file_cache_entries") == 0);
    assert_eq!(server.get("/large").status, 404);
    while slow.received.len() < large.len() {
        assert!(slow.receive() > 0);
    }
    assert_same("large", &slow.received, large);
}
