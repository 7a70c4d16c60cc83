//! What pages of other origins are told (the CORS protocol of the Fetch standard).

use crate::harness::{Response, TestServer};

const LISTED: &str = "    cors: { origins: [\"https://a.example\", \"http://b.example:81\"], methods: [GET, PUT], \
     headers: [X-Token, Content-Type], expose: [ETag, X-Count], credentials: true, max_age: 10m }";

fn allowed(response: &Response) -> [Option<&str>; 4] {
    let field = |name| response.field(name);
    [
        field("access-control-allow-origin"),
        field("access-control-allow-methods"),
        field("access-control-allow-headers"),
        field("access-control-allow-credentials"),
    ]
}

fn preflight(server: &TestServer, origin: &str, method: &str, more: &str) -> Response {
    let fields = format!("Origin: {origin}\r\nAccess-Control-Request-Method: {method}\r\n{more}");
    server.request("OPTIONS", "/a", &fields)
}

#[test]
fn any_origin_may_read_where_the_star_is() {
    let server =
        TestServer::with_route("    cors: { origins: [\"*\"], expose: [X-Count] }", "", &[("a", b"a")]);
    for (method, target, fields, status) in [
        ("GET", "/a", "Origin: https://x.example\r\n", 200),
        ("GET", "/a", "", 200),
        ("GET", "/a", "Origin: null\r\nIf-None-Match: *\r\n", 304),
        ("GET", "/a", "Origin: null\r\nRange: bytes=7-\r\n", 416),
        ("GET", "/missing", "Origin: null\r\n", 404),
        ("POST", "/a", "Origin: null\r\nContent-Length: 0\r\n", 405),
        ("OPTIONS", "/a", "Origin: null\r\n", 204),
    ] {
        for _ in 0..2 {
            let response = server.request(method, target, fields);
            assert_eq!(response.status, status, "{method} {target}");
            assert_eq!(allowed(&response), [Some("*"), None, None, None], "{status}");
            assert_eq!(response.field("access-control-expose-headers"), Some("X-Count"));
            assert_eq!(response.field("vary"), None, "the answer is the same for all");
        }
    }
    let plain = server.request("OPTIONS", "/a", "Origin: null\r\n");
    assert_eq!(plain.field("allow"), Some("GET, HEAD, OPTIONS"), "not a preflight");
    let granted = preflight(&server, "null", "POST", "");
    assert_eq!(granted.status, 204);
    assert_eq!(allowed(&granted), [Some("*"), Some("GET, HEAD, POST"), None, None]);
}

#[test]
fn a_listed_origin_is_named_and_another_is_not() {
    let server = TestServer::with_route(LISTED, "", &[("a", b"a")]);
    for origin in ["https://a.example", "http://b.example:81"] {
        let response = server.request("GET", "/a", &format!("Origin: {origin}\r\n"));
        assert_eq!(allowed(&response), [Some(origin), None, None, Some("true")]);
        assert_eq!(response.field("access-control-expose-headers"), Some("ETag, X-Count"));
        assert_eq!(response.field("vary"), Some("Origin"));
        let missing = server.request("GET", "/missing", &format!("Origin: {origin}\r\n"));
        assert_eq!((missing.status, allowed(&missing)[0]), (404, Some(origin)));
    }
    let others =
        ["https://a.example:8443", "http://a.example", "https://a.example.evil", "HTTPS://A.EXAMPLE", "null"];
    for origin in others {
        let response = server.request("GET", "/a", &format!("Origin: {origin}\r\n"));
        assert_eq!((response.status, allowed(&response)), (200, [None; 4]), "{origin}");
        assert_eq!(response.field("vary"), Some("Origin"), "a cache must not keep this for a listed one");
    }
    assert_eq!(server.get("/a").field("vary"), Some("Origin"));
}

#[test]
fn a_preflight_is_granted_what_is_configured() {
    let server = TestServer::with_route(LISTED, "", &[("a", b"a")]);
    let origin = "https://a.example";
    let headers = |names: &str| format!("Access-Control-Request-Headers: {names}\r\n");
    for (method, more) in [
        ("PUT", String::new()),
        ("POST", String::new()),
        ("GET", headers("x-token, content-type")),
        ("PUT", headers("X-TOKEN") + &headers("content-type")),
        ("HEAD", headers(",x-token,,")),
    ] {
        let response = preflight(&server, origin, method, &more);
        assert_eq!((response.status, response.body.len()), (204, 0), "{method} {more}");
        assert_eq!(
            allowed(&response),
            [Some(origin), Some("GET, PUT"), Some("X-Token, Content-Type"), Some("true")],
            "{method} {more}"
        );
        assert_eq!(response.field("access-control-max-age"), Some("600"));
        assert_eq!(response.field("vary"), Some("Origin"));
    }
    for (origin, method, more) in [
        ("https://c.example", "PUT", String::new()),
        (origin, "DELETE", String::new()),
        (origin, "put", String::new()),
        (origin, "PUT", headers("x-other")),
        (origin, "PUT", headers("x-token, authorization")),
        (origin, "PUT", headers("x-token") + &headers("x-other")),
    ] {
        let response = preflight(&server, origin, method, &more);
        assert_eq!((response.status, allowed(&response)), (204, [None; 4]), "{origin} {method} {more}");
        assert_eq!(response.field("access-control-max-age"), None);
        assert_eq!(response.field("vary"), Some("Origin"));
    }
}

#[test]
fn the_star_grants_all_fields_but_authorization() {
    let server = TestServer::with_route(
        "    methods: [GET]\n    cors: { origins: \"*\", methods: \"*\", headers: \"*\" }",
        "",
        &[("a", b"a")],
    );
    let asked = |names: &str| {
        preflight(&server, "null", "PATCH", &format!("Access-Control-Request-Headers: {names}\r\n"))
    };
    assert_eq!(allowed(&asked("x-any, x-other")), [Some("*"), Some("*"), Some("*"), None]);
    assert_eq!(allowed(&asked("x-any, Authorization")), [None; 4]);
    // What the route takes is another question.
    let response = server.request("PATCH", "/a", "Origin: null\r\n");
    assert_eq!((response.status, response.field("access-control-allow-origin")), (405, Some("*")));
}
