//! Routes: which one answers a host and a path, where redirects lead, and what a route adds to its responses.

use std::fmt::Write as _;

use crate::harness::{TestServer, write};

/// Starts a server from routes in which `{name}` stands for a folder with a file `who` that says `name`.
fn with_routes(names: &[&str], routes: &str) -> TestServer {
    let folder = tempfile::tempdir().unwrap();
    let mut text = String::from("shards: 1\nlisten: [\"127.0.0.1:0\"]\nroutes:\n");
    let mut routes = routes.to_owned();
    for name in names {
        write(folder.path(), &format!("{name}/who"), name.as_bytes());
        write(folder.path(), &format!("{name}/index.html"), name.as_bytes());
        routes = routes.replace(&format!("{{{name}}}"), &folder.path().join(name).display().to_string());
    }
    for line in routes.lines() {
        let _ = writeln!(text, "  {line}");
    }
    TestServer::from_yaml(&text, folder)
}

/// Who answers a host and a path; empty for an error.
fn who(server: &TestServer, host: &str, target: &str) -> String {
    let response = server.request("GET", target, &format!("Host: {host}\r\n"));
    if response.status == 200 { String::from_utf8(response.body).unwrap() } else { String::new() }
}

#[test]
fn a_host_is_matched_exactly_by_wildcard_or_not_at_all() {
    let server = with_routes(
        &["exact", "wild", "six", "any"],
        "- { host: Example.com, root: '{exact}' }\n\
         - { host: '*.example.com', root: '{wild}' }\n\
         - { host: '[::1]', root: '{six}' }\n\
         - { root: '{any}' }",
    );
    let table = [
        ("example.com", "exact"),
        ("EXAMPLE.COM", "exact"),
        ("example.com:8080", "exact"),
        ("example.com:", "exact"),
        ("example.com.", "exact"),
        ("example.com.:80", "exact"),
        ("www.example.com", "wild"),
        ("a.b.EXAMPLE.com:1", "wild"),
        ("badexample.com", "any"),
        ("example.com.evil", "any"),
        ("example.org", "any"),
        ("[::1]:8080", "six"),
        ("[::1]", "six"),
        ("[::2]", "any"),
        ("127.0.0.1", "any"),
    ];
    for (host, expected) in table {
        assert_eq!(who(&server, host, "/who"), expected, "{host}");
    }
}

#[test]
fn a_route_answers_for_each_of_its_hosts() {
    let server = with_routes(
        &["one", "two"],
        "- { host: [a.example, '*.b.example', '[::1]'], root: '{one}' }\n\
         - { host: [c.example, www.b.example], path: /deep/, root: '{two}' }",
    );
    let table = [
        ("A.example:80", "/who", "one"),
        ("x.b.example.", "/who", "one"),
        ("[::1]:1", "/who", "one"),
        ("c.example", "/deep/who", "two"),
        // The first host that matches and has a route for the path.
        ("www.b.example", "/deep/who", ""),
        ("www.b.example", "/who", "one"),
        ("c.example", "/who", ""),
        ("b.example", "/who", ""),
        ("d.example", "/who", ""),
    ];
    for (host, target, expected) in table {
        assert_eq!(who(&server, host, target), expected, "{host} {target}");
    }
}

#[test]
fn the_right_one_of_many_hosts_answers() {
    let names = ["first", "wild", "late", "any"];
    let mut routes = String::from(
        "- { host: first.example, root: '{first}' }\n- { host: '*.example', path: /w/, root: '{wild}' }\n",
    );
    for n in 0..500 {
        let _ =
            writeln!(routes, "- {{ host: ['h{n}.example', '*.h{n}.example'], redirect: {{ to: '/{n}' }} }}");
    }
    routes.push_str("- { host: late.example, root: '{late}' }\n- { root: '{any}' }");
    let server = with_routes(&names, &routes);
    for n in [0, 250, 499] {
        for host in [format!("H{n}.Example:8080"), format!("a.b.h{n}.example.")] {
            let response = server.request("GET", "/x", &format!("Host: {host}\r\n"));
            assert_eq!(response.field("location"), Some(format!("/{n}/x").as_str()), "{host}");
        }
    }
    for (host, target, expected) in [
        ("first.example", "/who", "first"),
        ("late.example", "/who", "late"),
        ("late.example", "/w/who", "wild"),
        ("h0.example", "/w/who", "wild"),
        ("h500.example", "/who", "any"),
        ("example", "/who", "any"),
    ] {
        assert_eq!(who(&server, host, target), expected, "{host} {target}");
    }
    // HTTP/1.0 may have no host at all; an absolute target's comes before the field.
    let mut client = server.connect();
    client.send("GET /who HTTP/1.0\r\n\r\n");
    assert_eq!(client.response().body, b"any");
    assert_eq!(who(&server, "first.example", "http://LATE.example:80/who"), "late");
}

#[test]
fn the_target_s_host_comes_before_the_field() {
    let server =
        with_routes(&["one", "two"], "- { host: one, root: '{one}' }\n- { host: two, root: '{two}' }");
    assert_eq!(who(&server, "two", "http://one/who"), "one");
    assert_eq!(who(&server, "one", "http://TWO:80/who"), "two");
}

#[test]
fn without_a_route_for_a_host_nothing_is_found() {
    let server = with_routes(&["one"], "- { host: one, root: '{one}' }");
    assert_eq!(who(&server, "one", "/who"), "one");
    let response = server.request("GET", "/who", "Host: two\r\n");
    assert_eq!(response.status, 404);
    // HTTP/1.0 may have no host at all.
    let mut client = server.connect();
    client.send("GET /who HTTP/1.0\r\n\r\n");
    assert_eq!(client.response().status_line, "HTTP/1.1 404 Not Found");
}

#[test]
fn hosts_are_tried_in_their_order_and_paths_by_length() {
    let server = with_routes(
        &["root", "api", "v1", "hosted"],
        "- { root: '{root}' }\n\
         - { path: /api/v1/, root: '{v1}' }\n\
         - { path: /api, root: '{api}' }\n\
         - { host: h, path: /api/v1/deep, root: '{hosted}' }",
    );
    let table = [
        ("/who", "root"),
        ("/api/who", "api"),
        ("/api/v1/who", "v1"),
        ("/api/v1/", "v1"),
        ("/api/", "api"),
        ("/apiary/who", ""),
        ("/api/v1x/who", ""),
        ("/API/who", ""),
        ("/api//v1//who", "v1"),
        ("/api/x/../v1/who", "v1"),
        ("/%61pi/who", "api"),
        ("/api/../who", "root"),
    ];
    for (target, expected) in table {
        assert_eq!(who(&server, "h", target), expected, "{target}");
    }
    // The host without a name comes first, and has an answer to every path.
    assert_eq!(who(&server, "h", "/api/v1/deep/who"), "");
}

#[test]
fn a_host_without_a_matching_path_leaves_the_request_to_the_next() {
    let server =
        with_routes(&["deep", "any"], "- { host: h, path: /deep/, root: '{deep}' }\n- { root: '{any}' }");
    assert_eq!(who(&server, "h", "/deep/who"), "deep");
    assert_eq!(who(&server, "h", "/who"), "any");
    assert_eq!(who(&server, "other", "/deep/who"), "");
}

#[test]
fn a_route_s_own_folder_is_redirected_to_its_slash() {
    let server = with_routes(&["api"], "- { path: /api/, root: '{api}' }");
    let response = server.get("/api?q");
    assert_eq!((response.status, response.field("location")), (301, Some("/api/?q")));
    assert_eq!(server.get("/api/").body, b"api");
    assert_eq!(server.get("/").status, 404);
}

#[test]
fn dotfiles_of_a_route_are_those_below_it() {
    let server = with_routes(&["hidden"], "- { path: /.files/, root: '{hidden}' }");
    assert_eq!(server.get("/.files/who").body, b"hidden");
    server.write("hidden/.secret", b"x");
    assert_eq!(server.get("/.files/.secret").status, 404);
}

#[test]
fn redirects_keep_the_rest_and_the_query() {
    let server = with_routes(
        &[],
        "- { path: /old/, redirect: { to: /new/ } }\n\
         - { path: /found, redirect: { to: /new, status: 302 } }\n\
         - { path: /see, redirect: { to: /new, status: 303 } }\n\
         - { path: /temporary, redirect: { to: /new, status: 307 } }\n\
         - { path: /permanent, redirect: { to: 'https://example.com/x', status: 308 } }\n\
         - { host: bare, redirect: { to: 'http://example.com' } }\n\
         - { host: top, redirect: { to: / } }",
    );
    let table = [
        ("h", "/old/", 301, "/new/"),
        ("h", "/old", 301, "/new/"),
        ("h", "/old/a/b?c=d&e", 301, "/new/a/b?c=d&e"),
        ("h", "/old?c", 301, "/new/?c"),
        ("h", "/old/a%20b%3fc", 301, "/new/a%20b%3Fc"),
        ("h", "/old/../old/x", 301, "/new/x"),
        ("h", "/found/x/", 302, "/new/x/"),
        ("h", "/found", 302, "/new"),
        ("h", "/see", 303, "/new"),
        ("h", "/temporary", 307, "/new"),
        ("h", "/permanent/y?z", 308, "https://example.com/x/y?z"),
        ("bare", "/a/b", 301, "http://example.com/a/b"),
        ("bare", "/", 301, "http://example.com"),
        ("bare", "//evil.example/x", 301, "http://example.com/evil.example/x"),
        ("top", "//evil.example/x", 301, "/evil.example/x"),
        ("top", "/%5c%5cevil.example", 301, "/%5C%5Cevil.example"),
        ("top", "/x%0d%0aA:%20b", 301, "/x%0D%0AA:%20b"),
    ];
    for (host, target, status, location) in table {
        let response = server.request("GET", target, &format!("Host: {host}\r\n"));
        assert_eq!(
            (response.status, response.field("location")),
            (status, Some(location)),
            "{host} {target}"
        );
    }
    // Whatever the method: 307 and 308 are there for those that have a body.
    let mut client = server.connect();
    client.send("POST /temporary HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi");
    assert_eq!(client.response().status, 307);
    assert_eq!(client.request("GET", "/old/", "").status, 301, "the body was read");
}

#[test]
fn a_route_s_fields_are_in_each_of_its_responses() {
    let server = with_routes(
        &["a", "b"],
        "- { path: /a/, root: '{a}', headers: { Cache-Control: 'public, max-age=60', X-Frame-Options: DENY } }\n\
         - { path: /r/, redirect: { to: /a/ }, headers: { X-Frame-Options: SAME } }\n\
         - { path: /b/, root: '{b}' }",
    );
    let etag = server.get("/a/who").field("etag").unwrap().to_owned();
    let answers = [
        ("GET", "/a/who", String::new(), 200),
        ("HEAD", "/a/who", String::new(), 200),
        ("GET", "/a/who", format!("If-None-Match: {etag}\r\n"), 304),
        ("GET", "/a/who", "Range: bytes=0-0\r\n".to_owned(), 206),
        ("GET", "/a/who", "Range: bytes=9-\r\n".to_owned(), 416),
        ("GET", "/a/who", "If-Match: \"x\"\r\n".to_owned(), 412),
        ("GET", "/a/missing", String::new(), 404),
        ("GET", "/a", String::new(), 301),
        ("PUT", "/a/who", String::new(), 405),
        ("OPTIONS", "/a/who", String::new(), 204),
    ];
    for (method, target, fields, status) in answers {
        // Twice: what is opened off the shard the first time is answered on another way.
        for _ in 0..2 {
            let response = server.request(method, target, &fields);
            assert_eq!(response.status, status, "{method} {target} {fields}");
            assert_eq!(response.field("cache-control"), Some("public, max-age=60"), "{status}");
            assert_eq!(response.field("x-frame-options"), Some("DENY"), "{status}");
        }
    }
    assert_eq!(server.get("/r/x").field("x-frame-options"), Some("SAME"));
    assert_eq!(server.get("/b/who").field("cache-control"), None);
}

#[test]
fn the_same_folder_at_two_routes_keeps_two_media_types() {
    let server = with_routes(
        &["a"],
        "- { path: /one, root: '{a}', types: { html: text/x-one } }\n- { path: /two, root: '{a}' }",
    );
    for _ in 0..3 {
        assert_eq!(server.get("/one/index.html").field("content-type"), Some("text/x-one"));
        assert_eq!(server.get("/two/index.html").field("content-type"), Some("text/html; charset=utf-8"));
    }
}

#[test]
fn without_a_configuration_there_is_a_welcome_page() {
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::from_yaml("shards: 1\nlisten: [\"127.0.0.1:0\"]\n", folder);
    let response = server.get("/");
    assert_eq!((response.status, response.field("content-type")), (200, Some("text/html; charset=utf-8")));
    assert!(!response.body.is_empty());
    assert_eq!(server.get("/other").status, 404);
}
