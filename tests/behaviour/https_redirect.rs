//! Routes that want TLS, asked without it and with it.

use crate::{
    certificates::Certificates,
    harness::{Client, TestServer, write},
    tls_client::Dialer,
};

fn location(server: &TestServer, host: &str, target: &str) -> (u16, String) {
    let response = server.request("GET", target, &format!("Host: {host}\r\n"));
    (response.status, response.field("location").unwrap_or_default().to_owned())
}

#[test]
fn a_request_without_tls_is_sent_to_the_same_place_with_it() {
    let server = TestServer::with_route("    https_redirect: true", "", &[("a", b"a")]);
    for (host, target, to) in [
        ("example.com", "/", "https://example.com/"),
        ("Example.com:8080", "/a%20b//c?d=e&f", "https://Example.com/a%20b//c?d=e&f"),
        ("example.com.", "/missing", "https://example.com/missing"),
        ("127.0.0.1:80", "/a?", "https://127.0.0.1/a?"),
        ("[::1]:8080", "/a", "https://[::1]/a"),
        ("[::1]", "//evil.test/..", "https://[::1]//evil.test/.."),
        ("other.test", "http://example.com:81/b?c", "https://example.com/b?c"),
        ("other.test", "http://example.com?c", "https://example.com/?c"),
    ] {
        assert_eq!(location(&server, host, target), (308, to.to_owned()), "{host} {target}");
    }
    let mut client = server.connect();
    let response = client.request("GET", "/a", "Host: t\r\n");
    assert_eq!(response.body, b"308 Permanent Redirect\n");
    assert_eq!(client.request("DELETE", "/a", "Host: t\r\n").status, 308, "the connection stays");
    client.send("HEAD /a HTTP/1.1\r\nHost: t\r\n\r\n");
    let head = client.head_response();
    assert_eq!((head.status, head.field("location")), (308, Some("https://t/a")));
}

#[test]
fn status_and_port_are_configured() {
    let route = "    https_redirect: { status: 302, port: 8443 }";
    let server = TestServer::with_route(route, "", &[]);
    assert_eq!(location(&server, "a.test:80", "/x?y"), (302, "https://a.test:8443/x?y".to_owned()));
    assert_eq!(location(&server, "[::1]:80", "/"), (302, "https://[::1]:8443/".to_owned()));
}

#[test]
fn without_a_host_nobody_knows_where() {
    let server = TestServer::with_route("    https_redirect: true", "", &[("a", b"a")]);
    let mut client = Client::connect(server.address);
    let response = client.ask("GET /a HTTP/1.0\r\n\r\n");
    assert_eq!((response.status, response.field("location")), (400, None));
    let mut client = Client::connect(server.address);
    let response = client.ask("GET /a HTTP/1.0\r\nHost: old.test\r\n\r\n");
    assert_eq!(response.field("location"), Some("https://old.test/a"));
}

#[test]
fn a_body_is_not_wanted_of_who_is_sent_elsewhere() {
    let server = TestServer::with_route("    https_redirect: true", "", &[]);
    let mut client = server.connect();
    let head = "Host: t\r\nExpect: 100-continue\r\nContent-Length: 1000000\r\n\r\n";
    let response = client.ask(format!("POST /a HTTP/1.1\r\n{head}"));
    assert_eq!(response.status, 308, "and no 100 before it");
    let mut client = server.connect();
    let response = client.ask("POST /a HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\n12345");
    assert_eq!(response.status, 308);
    assert_eq!(client.request("GET", "/b", "Host: t\r\n").field("location"), Some("https://t/b"));
}

#[test]
fn a_longer_route_without_it_is_served() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "token", b"answer");
    let root = folder.path().display();
    let text = format!(
        "shards: 1\nlisten: [\"127.0.0.1:0\"]\nroutes:\n\
         - {{ path: /, root: {root}, https_redirect: true }}\n\
         - {{ path: /off/, root: {root}, https_redirect: false }}\n\
         - {{ path: /old/, redirect: {{ to: /new/ }}, https_redirect: true }}\n\
         - {{ path: /.well-known/acme-challenge/, root: {root} }}\n"
    );
    let server = TestServer::from_yaml(&text, folder);
    assert_eq!(server.get("/.well-known/acme-challenge/token").body, b"answer");
    assert_eq!(server.get("/off/token").body, b"answer");
    assert_eq!(location(&server, "t", "/.well-known/other"), (308, "https://t/.well-known/other".to_owned()));
    // Before whatever else the route does.
    assert_eq!(location(&server, "t", "/old/x"), (308, "https://t/old/x".to_owned()));
}

#[test]
fn a_preflight_and_a_method_that_is_refused_are_redirected_too() {
    let route = "    https_redirect: true\n    cors: { origins: \"*\" }\n    headers: { X-A: b }";
    let server = TestServer::with_route(route, "", &[]);
    let fields = "Host: t\r\nOrigin: null\r\nAccess-Control-Request-Method: PUT\r\n";
    let response = server.request("OPTIONS", "/a", fields);
    assert_eq!(response.status, 308);
    assert_eq!(response.field("access-control-allow-origin"), Some("*"));
    assert_eq!(response.field("x-a"), Some("b"), "fields of the route are on its redirects");
    assert_eq!(server.request("PUT", "/a", "Host: t\r\nContent-Length: 0\r\n").status, 308);
}

#[test]
fn strict_transport_security_is_not_said_without_tls() {
    let hsts = "    hsts: { max_age: 365d, include_subdomains: true }";
    let server = TestServer::with_route(hsts, "", &[("a", b"a")]);
    for target in ["/a", "/missing"] {
        assert_eq!(server.get(target).field("strict-transport-security"), None, "{target}");
    }
    let server = TestServer::with_route(&format!("{hsts}\n    https_redirect: true"), "", &[]);
    let response = server.get("/a");
    assert_eq!((response.status, response.field("strict-transport-security")), (308, None));
}

#[test]
fn over_tls_a_request_is_answered_and_browsers_are_told_to_stay() {
    let certificates = Certificates::new();
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "a", b"a");
    let (root, pair) = (folder.path().display(), certificates.server(&["localhost"]));
    let text = format!(
        "shards: 1\nlisten: [{{ address: \"127.0.0.1:0\", tls: {{ certificates: [{}] }} }}]\nroutes:\n\
         - {{ path: /, root: {root}, https_redirect: true, hsts: {{ max_age: 365d, include_subdomains: true }} }}\n\
         - {{ path: /old/, redirect: {{ to: /new/ }}, https_redirect: true, hsts: 0s }}\n\
         - {{ path: /plain/, root: {root}, https_redirect: true }}\n",
        pair.yaml()
    );
    let server = TestServer::from_yaml(&text, folder);
    let mut client = Dialer::trusting(&certificates).connector().connect(server.address);
    let year = Some("max-age=31536000; includeSubDomains");
    for (method, target, fields, status, hsts) in [
        ("GET", "/a", "", 200, year),
        ("GET", "/a", "If-None-Match: *\r\n", 304, year),
        ("GET", "/a", "Range: bytes=7-\r\n", 416, year),
        ("GET", "/missing", "", 404, year),
        ("DELETE", "/a", "", 405, year),
        ("GET", "/old/x", "", 301, Some("max-age=0")),
        ("GET", "/plain/a", "", 200, None),
    ] {
        let response = client.request(method, target, &format!("Host: localhost\r\n{fields}"));
        assert_eq!(response.status, status, "{method} {target}");
        assert_eq!(response.field("strict-transport-security"), hsts, "{method} {target}");
    }
}
