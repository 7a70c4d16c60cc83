//! HTTP/1.1 as a client sees it: order, methods, bodies, the life of a connection.

use std::{
    io::Write,
    net::Shutdown,
    time::{Duration, SystemTime},
};

use crate::{
    harness::{TestServer, content},
    hello::{GET, RECEIVED, expect_usable, server},
};

#[test]
fn answers_500_requests_of_one_write_in_order() {
    let names: Vec<String> = (0..10).map(|index| format!("{index}.txt")).collect();
    let files: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), name.as_bytes())).collect();
    let server = TestServer::with_files(&files);
    let mut client = server.connect();
    // Twice: the second time the files are known and small enough to be answered from memory.
    for _ in 0..2 {
        let requests: String = (0..500)
            .map(|index| format!("GET /{}.txt HTTP/1.1\r\nHost: test\r\n\r\n", index * 7 % 10))
            .collect();
        client.send(requests);
        for index in 0..500 {
            let response = client.response();
            assert_eq!(response.status, 200);
            assert_eq!(response.body, names[index * 7 % 10].as_bytes(), "response {index}");
        }
    }
    client.finish();
    client.expect_finish();
}

#[test]
fn answers_a_pipeline_that_is_cut_at_any_byte() {
    let server = TestServer::with_files(&[("a.txt", b"hello"), ("b.txt", b"other")]);
    let pipeline = "GET /b.txt HTTP/1.1\r\nHost: test\r\n\r\n\
        PUT /a.txt HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n\
        3;x=\"y\"\r\nabc\r\n0a ;y\r\n0123456789\r\n0\r\nX-Sum: 1\r\n\r\n\
        POST /a.txt HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\n\r\n\r\n\
        GET /a.txt HTTP/1.1\r\nHost: test\r\n\r\n";
    let mut client = server.connect();
    for cut in 1..pipeline.len() {
        let (first, second) = pipeline.split_at(cut);
        let before = server.metric(RECEIVED);
        client.send(first);
        server.await_metric(RECEIVED, before + first.len() as u64);
        client.send(second);
        let answers: Vec<_> = (0..4).map(|_| client.response()).collect();
        assert_eq!(
            answers.iter().map(|answer| answer.status).collect::<Vec<_>>(),
            [200, 405, 405, 200],
            "cut {cut}"
        );
        assert_eq!((answers[0].body.as_slice(), answers[3].body.as_slice()), (&b"other"[..], &b"hello"[..]));
    }
    client.finish();
    client.expect_finish();
}

#[test]
fn answers_a_pipeline_that_comes_byte_by_byte() {
    let server = server();
    let mut client = server.connect();
    for byte in GET.repeat(3).bytes() {
        client.send([byte]);
    }
    for _ in 0..3 {
        assert_eq!(client.response().body, b"hello");
    }
    expect_usable(&mut client);
}

#[test]
fn a_large_file_in_the_middle_of_a_pipeline_keeps_its_place() {
    let large = content(9 << 20);
    let server = TestServer::with_files(&[("a.txt", b"hello"), ("large", &large)]);
    let mut client = server.connect();
    for _ in 0..2 {
        client.send(format!("{GET}GET /large HTTP/1.1\r\nHost: test\r\n\r\n{GET}{GET}").repeat(2));
        for _ in 0..2 {
            assert_eq!(client.response().body, b"hello");
            let response = client.response();
            assert_eq!(response.body.len(), large.len());
            assert!(response.body == large, "the file came changed");
            assert_eq!(client.response().body, b"hello");
            assert_eq!(client.response().body, b"hello");
        }
    }
    client.finish();
    client.expect_finish();
}

#[test]
fn answers_that_are_read_late_come_whole_and_in_order() {
    let (small, medium, large) = (content(100), content(60 << 10), content(300 << 10));
    let server = TestServer::with_files(&[("small", &small), ("medium", &medium), ("large", &large)]);
    let body = "b".repeat(3000);
    let kinds: [(String, u16, &[u8]); 6] = [
        ("GET /small HTTP/1.1\r\nHost: test\r\n\r\n".to_owned(), 200, &small),
        ("GET /medium HTTP/1.1\r\nHost: test\r\n\r\n".to_owned(), 200, &medium),
        ("GET /large HTTP/1.1\r\nHost: test\r\n\r\n".to_owned(), 200, &large),
        (format!("GET /medium HTTP/1.1\r\nHost: test\r\nContent-Length: 3000\r\n\r\n{body}"), 200, &medium),
        (
            format!(
                "GET /small HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\nbb8\r\n{body}\r\n0\r\n\r\n"
            ),
            200,
            &small,
        ),
        ("GET /missing HTTP/1.1\r\nHost: test\r\n\r\n".to_owned(), 404, b"404 Not Found\n"),
    ];
    let order: Vec<usize> = content(400).iter().map(|byte| usize::from(*byte) % kinds.len()).collect();
    let pipeline: String = order.iter().map(|kind| kinds[*kind].0.as_str()).collect();
    for _ in 0..2 {
        let mut client = server.connect();
        let mut sender = client.stream.try_clone().unwrap();
        std::thread::scope(|scope| {
            let sent = server.metric("webserver_bytes_sent_total");
            scope.spawn(|| {
                sender.write_all(pipeline.as_bytes()).unwrap();
                sender.shutdown(Shutdown::Write).unwrap();
            });
            server.await_metric("webserver_bytes_sent_total", sent + (2 << 20));
            for (index, kind) in order.iter().enumerate() {
                let (_, status, content) = &kinds[*kind];
                let response = client.response();
                assert_eq!(response.status, *status, "response {index}");
                assert!(response.body == *content, "response {index} came changed");
            }
            client.expect_finish();
        });
    }
    server.await_no_connections();
}

#[test]
fn head_has_the_fields_of_get_and_no_body() {
    let large = content(300 << 10);
    let files: [(&str, &[u8]); 4] =
        [("a.txt", b"hello"), ("empty", b""), ("large", &large), ("folder/index.html", b"<p>")];
    let server = TestServer::with_files(&files);
    let mut client = server.connect();
    // More than once, so that contents kept in memory are asked for too.
    for target in ["/a.txt", "/empty", "/large", "/folder/", "/folder", "/missing", "/%00"].repeat(3) {
        let get = client.ask(format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n"));
        client.send(format!("HEAD {target} HTTP/1.1\r\nHost: test\r\n\r\n"));
        let head = client.head_response();
        assert_eq!(head.status_line, get.status_line, "{target}");
        let names =
            |fields: &[(String, String)]| fields.iter().filter(|(name, _)| name != "date").cloned().collect();
        let (of_head, of_get): (Vec<_>, Vec<_>) = (names(&head.fields), names(&get.fields));
        assert_eq!(of_head, of_get, "{target}");
        assert_eq!(get.field("content-length"), Some(get.body.len().to_string().as_str()));
    }
    expect_usable(&mut client);
}

#[test]
fn head_without_keep_alive_ends_behind_its_head() {
    let server = server();
    let mut client = server.connect();
    client.send("HEAD /a.txt HTTP/1.0\r\n\r\n");
    assert_eq!(client.head_response().field("content-length"), Some("5"));
    client.expect_finish();
}

#[test]
fn a_refused_head_request_gets_no_body_either() {
    let server = TestServer::start("limits: { body_bytes: 9 }", &[("a.txt", b"hello")]);
    let refused = [
        ("/ HTTP/1.1\r\n\r\n", 400),
        ("/ HTTP/1.1\r\nHost: test\r\nName : value\r\n\r\n", 400),
        ("/ HTTP/1.1\r\nHost: test\r\nExpect: more\r\n\r\n", 417),
        ("/ HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\n", 413),
        ("/ HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\nx", 400),
        ("/ HTTP/3.0\r\nHost: test\r\n\r\n", 505),
    ];
    for (rest, status) in refused {
        let mut client = server.connect();
        client.send(format!("{GET}HEAD {rest}"));
        assert_eq!(client.response().status, 200);
        let response = client.head_response();
        assert_eq!(response.status, status, "{rest}");
        assert!(response.field("content-length").is_some());
        client.expect_finish();
    }
    // With its body apart from its head.
    let mut client = server.connect();
    let head = "HEAD / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n";
    let before = server.metric(RECEIVED);
    client.send(head);
    server.await_metric(RECEIVED, before + head.len() as u64);
    client.send("x");
    assert_eq!(client.head_response().status, 400);
    client.expect_finish();
}

#[test]
fn options_tells_the_methods() {
    let server = server();
    let mut client = server.connect();
    for target in ["/a.txt", "/", "/missing", "*", "http://test/a.txt"] {
        let response = client.ask(format!("OPTIONS {target} HTTP/1.1\r\nHost: test\r\n\r\n"));
        assert_eq!(response.status, 204, "{target}");
        assert_eq!(response.field("allow"), Some("GET, HEAD, OPTIONS"));
        // RFC 9110 8.6: no Content-Length with 204.
        assert_eq!(response.field("content-length"), None);
    }
    let response = client.ask("OPTIONS * HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\n\r\nabc");
    assert_eq!(response.status, 204);
    expect_usable(&mut client);
}

#[test]
fn methods_that_files_do_not_have_are_told_apart() {
    let server = server();
    let mut client = server.connect();
    for method in ["POST", "PUT", "DELETE", "PATCH", "TRACE"] {
        let response = client.ask(format!("{method} /a.txt HTTP/1.1\r\nHost: test\r\n\r\n"));
        assert_eq!(response.status, 405, "{method}");
        // RFC 9110 15.5.6: a 405 MUST tell the methods.
        assert_eq!(response.field("allow"), Some("GET, HEAD, OPTIONS"), "{method}");
    }
    for method in ["BREW", "get", "GETS", "M-SEARCH", "PROPFIND"] {
        let response = client.ask(format!("{method} /a.txt HTTP/1.1\r\nHost: test\r\n\r\n"));
        assert_eq!(response.status, 501, "{method}");
    }
    assert_eq!(client.ask("CONNECT test:443 HTTP/1.1\r\nHost: test:443\r\n\r\n").status, 501);
    expect_usable(&mut client);
}

#[test]
fn a_client_that_asks_is_told_to_continue() {
    let server = server();
    let mut client = server.connect();
    for framing in ["Content-Length: 5", "Transfer-Encoding: chunked"] {
        client
            .send(format!("GET /a.txt HTTP/1.1\r\nHost: test\r\nExpect: 100-Continue\r\n{framing}\r\n\r\n"));
        let interim = client.response();
        assert_eq!((interim.status, interim.fields.len()), (100, 0));
        client.send(if framing.starts_with('C') { "12345" } else { "5\r\n12345\r\n0\r\n\r\n" });
        let response = client.response();
        assert_eq!((response.status, response.body.as_slice()), (200, &b"hello"[..]));
    }
    expect_usable(&mut client);
}

#[test]
fn the_interim_response_stands_behind_earlier_answers() {
    let server = server();
    let mut client = server.connect();
    let asking = "GET /a.txt HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n";
    client.send(format!("{GET}{GET}{asking}"));
    assert_eq!(
        [200, 200, 100],
        [client.response().status, client.response().status, client.response().status]
    );
    client.send(format!("x{GET}"));
    assert_eq!([200, 200], [client.response().status, client.response().status]);
    expect_usable(&mut client);
}

#[test]
fn no_interim_response_where_none_is_of_use() {
    let server = server();
    let mut client = server.connect();
    let unneeded = [
        // The body is there already (RFC 9110 10.1.1).
        "GET /a.txt HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n12345",
        "GET /a.txt HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        // There is none.
        "GET /a.txt HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\n\r\n",
        "GET /a.txt HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 0\r\n\r\n",
    ];
    for request in unneeded {
        assert_eq!(client.ask(request).status, 200, "{request}");
    }
    expect_usable(&mut client);
    // HTTP/1.0 does not know interim responses: the expectation MUST be ignored (RFC 9110 10.1.1).
    client.send("GET /a.txt HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    client.send("12345");
    assert_eq!(client.response().status, 200);
    client.expect_finish();
}

#[test]
fn a_client_that_asks_in_vain_is_refused_before_its_body() {
    let server = server();
    for (framing, body) in
        [("Content-Length: 100000", vec![b'x'; 100_000]), ("Transfer-Encoding: chunked", vec![])]
    {
        let mut client = server.connect();
        let head = format!("POST /a.txt HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\n{framing}\r\n\r\n");
        let response = client.ask(head);
        assert_eq!(response.status, 405);
        assert_eq!(response.field("connection"), Some("close"));
        // One that sends the body after all can still do so: it is thrown away.
        client.send(body);
        client.expect_finish();
    }
}

#[test]
fn bodies_are_read_to_their_end_and_discarded() {
    let server = server();
    let mut client = server.connect();
    let long = "z".repeat(300_000);
    let chunked_long = format!("{:x}\r\n{long}\r\n000\r\n\r\n", long.len());
    let bodies: [(&str, &str); 11] = [
        ("Content-Length: 0", ""),
        ("Content-Length: 5", "12345"),
        ("Content-Length: 0005", "12345"),
        ("Content-Length: 36", "GET /b.txt HTTP/1.1\r\nHost: other\r\n\r\n"),
        ("Content-Length: 300000", &long),
        ("Transfer-Encoding: chunked", "0\r\n\r\n"),
        ("transfer-encoding: CHUNKED", "A\r\n0123456789\r\nb\r\n0123456789a\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked", "1;a;b=c ; d=\"e;f\"\r\nx\r\n0;last\r\n\r\n"),
        ("Transfer-Encoding: chunked", "0000000000000001\r\nx\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked", "24\r\nGET /b.txt HTTP/1.1\r\nHost: other\r\n\r\n\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked", &chunked_long),
    ];
    for (framing, body) in bodies {
        for (method, status) in [("GET", 200), ("POST", 405), ("BREW", 501)] {
            let head = format!("{method} /a.txt HTTP/1.1\r\nHost: test\r\n{framing}\r\n\r\n");
            // Whole, with the next request behind it, and with its body apart.
            client.send(format!("{head}{body}{GET}"));
            assert_eq!(client.response().status, status, "{method} {framing} {body:.20}");
            assert_eq!(client.response().body, b"hello");
            let before = server.metric(RECEIVED);
            client.send(&head);
            server.await_metric(RECEIVED, before + head.len() as u64);
            client.send(body);
            assert_eq!(client.response().status, status, "{method} {framing} {body:.20}");
        }
    }
    expect_usable(&mut client);
}

#[test]
fn trailers_are_read_and_mean_nothing() {
    let server = server();
    let mut client = server.connect();
    let trailers =
        "Connection: close\r\nContent-Length: 7\r\nHost: other\r\nExpect: something\r\nX-Empty:\r\n";
    for _ in 0..3 {
        let response = client.ask(format!(
            "GET /a.txt HTTP/1.1\r\nHost: test\r\nTE: trailers\r\nTrailer: X-Empty\r\n\
             Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n{trailers}\r\n"
        ));
        assert_eq!((response.status, response.body.as_slice()), (200, &b"hello"[..]));
        assert_eq!(response.field("connection"), None);
    }
    expect_usable(&mut client);
}

#[test]
fn an_absolute_target_names_the_host() {
    let folder = tempfile::tempdir().unwrap();
    for host in ["one", "two"] {
        crate::harness::write(folder.path(), &format!("{host}/name.txt"), host.as_bytes());
        crate::harness::write(folder.path(), &format!("{host}/index.html"), host.as_bytes());
    }
    let root = folder.path().display();
    let text = format!(
        "shards: 1\nlisten: [\"127.0.0.1:0\"]\nroutes:\n  - {{ host: one.test, path: /, root: {root}/one }}\n  \
         - {{ host: two.test, path: /, root: {root}/two }}\n"
    );
    let server = TestServer::from_yaml(&text, folder);
    let mut client = server.connect();
    let cases = [
        ("/name.txt", "one.test", Some("one")),
        ("/name.txt", "TWO.test:8080", Some("two")),
        // RFC 9112 3.2.2: what Host says MUST be ignored then.
        ("http://two.test/name.txt", "one.test", Some("two")),
        ("HTTP://One.Test:80/name.txt?query", "two.test", Some("one")),
        ("https://two.test/name.txt", "one.test", Some("two")),
        ("http://two.test", "one.test", Some("two")),
        ("http://two.test?query", "one.test", Some("two")),
        ("/name.txt", "three.test", None),
        ("http://three.test/name.txt", "one.test", None),
        ("/http://two.test/name.txt", "one.test", None),
    ];
    for (target, host, answered) in cases {
        let response = client.ask(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        match answered {
            Some(body) => assert_eq!(response.body, body.as_bytes(), "{target} {host}"),
            None => assert_eq!(response.status, 404, "{target} {host}"),
        }
    }
    let response = client.ask("GET http://two.test/name.txt HTTP/1.0\r\n\r\n");
    assert_eq!(response.body, b"two");
    client.expect_finish();
}

#[test]
fn hosts_of_every_form_are_taken() {
    let server = server();
    let mut client = server.connect();
    let hosts =
        ["a", "A.b.example.", "a:80", "a:", "127.0.0.1:65535", "[::1]", "[2001:db8::1]:443", "a_b", "x%41"];
    for host in hosts {
        let response = client.ask(format!("GET /a.txt HTTP/1.1\r\nhOsT:\t {host} \t\r\n\r\n"));
        assert_eq!(response.status, 200, "{host}");
    }
}

#[test]
fn empty_lines_before_a_request_are_skipped() {
    let server = server();
    let mut client = server.connect();
    for count in 0..=4 {
        assert_eq!(client.ask(format!("{}{GET}", "\r\n".repeat(count))).status, 200, "{count}");
    }
}

#[test]
fn every_answer_has_a_date_of_now() {
    let server = server();
    let mut client = server.connect();
    let requests = [
        GET,
        "GET /missing HTTP/1.1\r\nHost: test\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: test\r\n\r\n",
        "DELETE /a.txt HTTP/1.1\r\nHost: test\r\n\r\n",
        "GET /a.txt HTTP/1.1\r\nHost: test\r\nIf-None-Match: *\r\n\r\n",
        "GET /a.txt HTTP/1.1\r\nHost: test\r\nIf-Match: \"x\"\r\n\r\n",
        "GET /a.txt HTTP/1.1\r\n\r\n",
    ];
    for request in requests {
        // Whole seconds: the date may lie up to one second before the moment.
        let before = SystemTime::now() - Duration::from_secs(2);
        let response = client.ask(request);
        let date = response.field("date").unwrap_or_else(|| panic!("no date: {response:?}"));
        let time = httpdate::parse_http_date(date).unwrap();
        assert!(before <= time && time <= SystemTime::now(), "{date}");
        assert_eq!(httpdate::fmt_http_date(time), date);
        assert_eq!(response.fields.iter().filter(|(name, _)| name == "date").count(), 1);
    }
    client.expect_finish();
}
