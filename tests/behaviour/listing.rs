//! Folders without an index, listed; and paths led to their one spelling.

use std::{
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt, fs::symlink},
    time::{Duration, SystemTime},
};

use crate::harness::{Response, TestServer};

const JSON: &str = "Accept: application/json\r\n";

fn text(response: &Response) -> String {
    String::from_utf8(response.body.clone()).unwrap()
}

/// The names of a JSON listing, in its order.
fn names(server: &TestServer, target: &str) -> Vec<String> {
    #[derive(serde::Deserialize)]
    struct Listing {
        entries: Vec<Entry>,
    }
    #[derive(serde::Deserialize)]
    struct Entry {
        name: String,
    }
    let response = server.request("GET", target, JSON);
    assert_eq!(
        (response.status, response.field("content-type")),
        (200, Some("application/json")),
        "{target}"
    );
    // JSON is YAML too.
    let listing: Listing = serde_saphyr::from_str(&text(&response)).unwrap();
    listing.entries.into_iter().map(|entry| entry.name).collect()
}

fn with_listing(route: &str) -> TestServer {
    let server = TestServer::with_route(
        &format!("    listing: true\n{route}"),
        "",
        &[
            ("b.txt", b"12345"),
            ("a b#?%.txt", b"1"),
            ("sub/index.txt", b"in sub"),
            ("indexed/index.html", b"the index"),
            (".hidden", b"x"),
            (".git/config", b"x"),
        ],
    );
    for (name, days) in [("b.txt", 2), ("a b#?%.txt", 3), ("sub", 1)] {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(days * 86_400);
        fs::File::open(server.folder.path().join(name)).unwrap().set_modified(time).unwrap();
    }
    server
}

#[test]
fn a_folder_without_an_index_is_listed() {
    let server = with_listing("");
    let response = server.get("/");
    assert_eq!((response.status, response.field("content-type")), (200, Some("text/html; charset=utf-8")));
    assert_eq!(response.field("vary"), Some("Accept"));
    assert_eq!(response.field("cache-control"), Some("no-cache"));
    assert!(response.field("content-security-policy").unwrap().starts_with("default-src 'none'"));
    assert_eq!(response.field("etag"), None);
    let page = text(&response);
    assert!(page.contains("<a href=\"./a%20b%23%3F%25.txt\"><bdi>a b#?%.txt</bdi></a>"), "{page}");
    assert!(page.contains("<a class=\"f\" href=\"./sub/\"><bdi>sub</bdi>/</a>"), "{page}");
    assert!(page.contains(">5 B</td>") && page.contains(">1970-01-03 00:00</time>"), "{page}");
    assert!(!page.contains("hidden") && !page.contains(".git") && !page.contains("href=\"../\""), "{page}");
    assert!(text(&server.get("/sub/")).contains("href=\"../\""));
    assert_eq!(server.get("/a%20b%23%3F%25.txt").body, b"1", "the link leads there");
    assert_eq!(server.get("/indexed/").body, b"the index");
    assert_eq!(server.get("/sub").field("location"), Some("/sub/"));
    for target in ["/missing/", "/b.txt/", "/.git/", "/sub/missing/"] {
        assert_eq!(server.get(target).status, 404, "{target}");
    }
    let head = server.request("HEAD", "/", "");
    assert_eq!((head.status, head.field("content-length")), (200, Some(page.len().to_string().as_str())));
    assert_eq!(server.request("POST", "/", "Content-Length: 0\r\n").status, 405);
}

#[test]
fn without_the_key_nothing_is_listed() {
    let server = TestServer::with_files(&[("a/b", b"b")]);
    assert_eq!(server.get("/").status, 404);
    assert_eq!(server.request("GET", "/a/", JSON).status, 404);
}

#[test]
fn a_listing_is_ordered_as_the_query_says() {
    let server = with_listing("");
    let (a, b) = ("a b#?%.txt", "b.txt");
    let table = [
        ("/", ["indexed", "sub", a, b]),
        ("/?sort=name&order=desc", ["sub", "indexed", b, a]),
        ("/?sort=size", ["indexed", "sub", a, b]),
        ("/?order=desc&sort=size", ["indexed", "sub", b, a]),
        ("/?sort=time", ["sub", "indexed", b, a]),
        ("/?sort=time&order=desc", ["indexed", "sub", a, b]),
        ("/?sort=../etc&order=1&&x", ["indexed", "sub", a, b]),
    ];
    for (target, expected) in table {
        assert_eq!(names(&server, target), expected, "{target}");
    }
}

#[test]
fn the_format_is_what_the_client_likes_best() {
    let server = with_listing("");
    let media_type = |accept: &str| {
        let response = server.request("GET", "/", &format!("Accept: {accept}\r\n"));
        response.field("content-type").unwrap().to_owned()
    };
    for accept in ["application/json", "application/json, text/html;q=0.9", "application/*"] {
        assert_eq!(media_type(accept), "application/json", "{accept}");
    }
    for accept in
        ["*/*", "text/html,application/xml;q=0.9,*/*;q=0.8", "application/json;q=0.5, text/*", "image/png"]
    {
        assert_eq!(media_type(accept), "text/html; charset=utf-8", "{accept}");
    }
}

#[test]
fn names_that_are_not_text_are_listed_and_linked() {
    let server = with_listing("");
    fs::write(server.folder.path().join(OsStr::from_bytes(b"sub/\xff<i>\"\n.txt")), "odd").unwrap();
    let json = text(&server.request("GET", "/sub/", JSON));
    let entry = "{\"name\":\"\u{fffd}<i>\\\"\\u000a.txt\",\"href\":\"%FF%3Ci%3E%22%0A.txt\",\"type\":\"file\",\"size\":3,";
    assert!(json.starts_with("{\"path\":\"/sub/\",\"entries\":[") && json.contains(entry), "{json}");
    let page = text(&server.get("/sub/"));
    assert!(
        page.contains("<a href=\"./%FF%3Ci%3E%22%0A.txt\"><bdi>\u{fffd}&lt;i&gt;&quot;\u{fffd}.txt</bdi>"),
        "{page}"
    );
    assert_eq!(server.get("/sub/%FF%3Ci%3E%22%0A.txt").body, b"odd");
}

#[test]
fn what_leads_out_of_the_root_is_not_listed() {
    let outside = tempfile::tempdir().unwrap();
    crate::harness::write(outside.path(), "secret", b"x");
    let server = with_listing("    dotfiles: true");
    let site = server.folder.path();
    symlink(outside.path(), site.join("out")).unwrap();
    symlink(outside.path().join("secret"), site.join("sub/secret")).unwrap();
    symlink("../b.txt", site.join("sub/up.txt")).unwrap();
    crate::system::make_fifo(&site.join("sub/fifo"));
    assert_eq!(names(&server, "/sub/"), ["index.txt", "up.txt"]);
    assert_eq!(names(&server, "/"), [".git", "indexed", "sub", ".hidden", "a b#?%.txt", "b.txt"]);
    for target in ["/out/", "/sub/secret"] {
        assert_eq!(server.get(target).status, 404, "{target}");
    }
}

#[test]
fn a_listing_comes_before_the_fallback_and_obeys_cache_control() {
    let server = with_listing(
        "    fallback: /b.txt\n    cache_control: [{ pattern: \"sub/\", value: max-age=5 }]\n    index: []",
    );
    assert_eq!(server.get("/indexed/").field("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(server.get("/missing/").body, b"12345");
    assert_eq!(server.get("/sub/").field("cache-control"), Some("max-age=5"));
    assert_eq!(server.get("/").field("cache-control"), Some("no-cache"));
    let server = with_listing("    headers: { cache-control: private }");
    let response = server.get("/");
    let fields = response.fields.iter().filter(|(name, _)| name == "cache-control").count();
    assert_eq!((fields, response.field("cache-control")), (1, Some("private")));
}

#[test]
fn a_large_folder_is_listed_to_many_clients_at_once() {
    let server = with_listing("");
    let folder = server.folder.path().join("large");
    fs::create_dir(&folder).unwrap();
    for n in 0..2000 {
        fs::write(folder.join(format!("{n:04}-{}", "n".repeat(60))), "").unwrap();
    }
    let page = server.get("/large/").body;
    assert!(page.len() > 64 << 10);
    // Asked at once and read after: each is the whole page, or a refusal where there were too many.
    let mut clients: Vec<_> = (0..40).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send("GET /large/ HTTP/1.1\r\nHost: test\r\n\r\n");
    }
    let mut served = 0;
    for client in &mut clients {
        let response = client.response();
        match response.status {
            200 => {
                assert!(response.body == page);
                served += 1;
            }
            status => assert_eq!((status, response.field("retry-after")), (503, Some("1"))),
        }
    }
    assert!(served > 0);
    assert!(server.get("/large/").body == page, "recovered");
}

fn location(server: &TestServer, target: &str) -> Option<String> {
    let response = server.get(target);
    assert_eq!(response.status == 301, response.field("location").is_some(), "{target}");
    response.field("location").map(str::to_owned)
}

#[test]
fn each_path_has_one_spelling_where_that_is_wanted() {
    let server = TestServer::with_route(
        "    canonical: true\n    index: [index.html, index.htm]",
        "",
        &[
            ("index.html", b"i"),
            ("dir/index.html", b"i"),
            ("dir/index.htm", b"other"),
            ("old/index.htm", b"i"),
            ("file.html", b"f"),
            ("a b", b"a"),
            ("x/index.html/y", b"y"),
        ],
    );
    let table = [
        ("/index.html", "/"),
        ("/index.html?q=1", "/?q=1"),
        ("/dir/index.html", "/dir/"),
        ("/old/index.htm", "/old/"),
        ("/file.html/", "/file.html"),
        ("/dir/index.html/?q", "/dir/index.html?q"),
        ("/dir", "/dir/"),
        ("//dir//", "/dir/"),
        ("/dir/../file.html?a=%41", "/file.html?a=%41"),
        ("/%66ile.html", "/file.html"),
        ("/./a%20b", "/a%20b"),
        ("//evil.example/..", "/"),
        ("//evil.example", "/evil.example"),
        ("/\\evil.example//", "/%5Cevil.example/"),
        ("/%5cevil.example/index.html/..", "/%5Cevil.example/"),
        ("/.//evil.example", "/evil.example"),
    ];
    for (target, expected) in table {
        for _ in 0..2 {
            assert_eq!(location(&server, target).as_deref(), Some(expected), "{target}");
        }
    }
    for target in ["/", "/dir/", "/file.html", "/a%20b", "/dir/index.htm", "/missing", "/missing/", "/x/"] {
        assert_eq!(location(&server, target), None, "{target}");
    }
    assert_eq!(server.get("/dir/index.htm").body, b"other", "its folder answers with another");
    assert_eq!(server.request("POST", "//dir", "Content-Length: 0\r\n").status, 405);
}

#[test]
fn other_spellings_are_served_where_nothing_else_is_wanted() {
    let server = TestServer::with_files(&[("dir/index.html", b"i"), ("file.html", b"f")]);
    for target in ["/dir/index.html", "//dir//", "/dir/../file.html", "/%66ile.html"] {
        assert_eq!(server.get(target).status, 200, "{target}");
    }
    assert_eq!(server.get("/file.html/").status, 404);
}

#[test]
fn a_route_below_a_prefix_has_its_own_spellings() {
    let folder = tempfile::tempdir().unwrap();
    crate::harness::write(folder.path(), "index.html", b"i");
    let text = format!(
        "shards: 1\nlisten: [\"127.0.0.1:0\"]\nroutes:\n  - {{ path: /app, root: {}, canonical: true, listing: true }}\n",
        folder.path().display()
    );
    let server = TestServer::from_yaml(&text, folder);
    for (target, expected) in [("/app", "/app/"), ("/app/index.html", "/app/"), ("/x/../app//", "/app/")] {
        assert_eq!(location(&server, target).as_deref(), Some(expected), "{target}");
    }
    assert_eq!(server.get("/app/").body, b"i");
}
