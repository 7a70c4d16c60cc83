//! Every reason why a request is refused: what is sent, what is answered, what is counted, and that nobody else
//! notices.

use std::collections::BTreeSet;

use webserver::http1::Refusal;

use crate::harness::{Client, TestServer};

/// Bytes that are refused, why, and the status they are refused with.
struct Case {
    bytes: Vec<u8>,
    reason: Refusal,
    status: u16,
}

const LIMITS: &str = "limits: { header_bytes: 2KB, headers: 8, target_bytes: 256, body_bytes: 100 }";
/// A request behind the refused one: what must never be answered.
const SMUGGLED: &[u8] = b"GET /a.txt HTTP/1.1\r\nHost: test\r\n\r\n";

fn case(bytes: impl Into<Vec<u8>>, reason: Refusal, status: u16) -> Case {
    Case { bytes: bytes.into(), reason, status }
}

/// Lines of the request, without the line end of the last, the end of the head, a reason.
fn lines(cases: &[(&str, Refusal, u16)]) -> Vec<Case> {
    cases.iter().map(|(lines, reason, status)| case(format!("{lines}\r\n\r\n"), *reason, *status)).collect()
}

/// Whether another client is served as before.
fn expect_undisturbed(other: &mut Client) {
    let response = other.ask(SMUGGLED);
    assert_eq!((response.status, response.body.as_slice()), (200, &b"hello"[..]));
}

fn refused(server: &TestServer, reason: Refusal) -> u64 {
    server.metric(&format!("webserver_requests_refused_total{{reason=\"{}\"}}", reason.label()))
}

fn refused_of_all_reasons(server: &TestServer) -> u64 {
    Refusal::ALL.iter().map(|reason| refused(server, *reason)).sum()
}

/// Sends each case whole, byte by byte, behind an accepted request, and with another request behind it.
fn expect_refused(cases: &[Case]) {
    let server = TestServer::start(LIMITS, &[("a.txt", b"hello")]);
    let mut other = server.connect();
    expect_undisturbed(&mut other);
    for case in cases {
        let name = String::from_utf8_lossy(&case.bytes[..case.bytes.len().min(200)]);
        // Before its colon comes, nobody can tell a name with a space behind it from a line without a colon: in pieces
        // either reason may be told.
        let is_name = [Refusal::FieldName, Refusal::FieldNameSpace].contains(&case.reason);
        let expect = |what: &str, accepted: usize, send: &dyn Fn(&mut Client)| {
            let is_told = !is_name || what == "whole";
            let (before, all_before) = (refused(&server, case.reason), refused_of_all_reasons(&server));
            let mut client = server.connect();
            send(&mut client);
            for _ in 0..accepted {
                assert_eq!(client.response().body, b"hello", "{what} {name:?}");
            }
            let response = client.response();
            let said = String::from_utf8_lossy(&response.body).into_owned();
            assert_eq!(response.status, case.status, "{what} {name:?}: {said}");
            assert!(!is_told || said.contains(case.reason.detail()), "{what} {name:?}: {said}");
            assert_eq!(response.field("connection"), Some("close"), "{what} {name:?}");
            assert!(response.field("date").is_some());
            client.expect_finish();
            assert!(!is_told || refused(&server, case.reason) == before + 1, "{what} {name:?}");
            assert_eq!(refused_of_all_reasons(&server), all_before + 1, "{what} {name:?}");
        };
        expect("whole", 0, &|client| client.send(&case.bytes));
        expect("behind another", 1, &|client| client.send([SMUGGLED, &case.bytes].concat()));
        expect("before another", 0, &|client| client.send([&case.bytes, SMUGGLED].concat()));
        expect("in halves", 0, &|client| {
            let (first, second) = case.bytes.split_at(case.bytes.len() / 2);
            client.send(first);
            client.send(second);
        });
        if case.bytes.len() < 600 {
            // An oversized piece without an end is found when it has doubled, so here the end comes.
            let bytes = [&case.bytes, SMUGGLED].concat();
            expect("byte by byte", 0, &|client| bytes.chunks(1).for_each(|byte| client.send(byte)));
        }
    }
    expect_undisturbed(&mut other);
    drop(other);
    server.await_no_connections();
    assert_eq!(server.metric("webserver_panics_total"), 0);
}

fn request_lines() -> Vec<Case> {
    use Refusal::*;
    let host = "\r\nHost: test";
    let mut cases: Vec<Case> = [
        ("(GET) / HTTP/1.1", MethodMalformed, 400),
        ("\u{e4} / HTTP/1.1", MethodMalformed, 400),
        (" GET / HTTP/1.1", MethodMalformed, 400),
        ("\0GET / HTTP/1.1", MethodMalformed, 400),
        ("\rGET / HTTP/1.1", LineEnding, 400),
        ("GET\t/ HTTP/1.1", MethodMalformed, 400),
        ("GET  / HTTP/1.1", TargetMalformed, 400),
        ("GET a.txt HTTP/1.1", TargetMalformed, 400),
        ("GET * HTTP/1.1", TargetMalformed, 400),
        ("GET /a#b HTTP/1.1", TargetMalformed, 400),
        ("GET /\u{e4} HTTP/1.1", TargetMalformed, 400),
        ("GET /\0 HTTP/1.1", TargetMalformed, 400),
        ("GET /\x7f HTTP/1.1", TargetMalformed, 400),
        ("GET ftp://test/ HTTP/1.1", TargetMalformed, 400),
        ("GET test:80 HTTP/1.1", TargetMalformed, 400),
        ("CONNECT test HTTP/1.1", TargetMalformed, 400),
        ("CONNECT /a.txt HTTP/1.1", TargetMalformed, 400),
        ("GET http:///a.txt HTTP/1.1", HostMalformed, 400),
        ("GET http://user@test/a.txt HTTP/1.1", HostMalformed, 400),
        ("GET http://test:65536/ HTTP/1.1", HostMalformed, 400),
        ("GET / HTTP/2.0", VersionUnsupported, 505),
        ("GET / HTTP/1.2", VersionUnsupported, 505),
        ("GET / HTTP/0.9", VersionUnsupported, 505),
        ("GET / HTTP/1.1 x", LineEnding, 400),
        ("GET / http/1.1", VersionMalformed, 400),
        ("GET / HTTP/one", VersionMalformed, 400),
        ("GET / FTP/1.1", VersionMalformed, 400),
    ]
    .iter()
    .map(|(line, reason, status)| case(format!("{line}{host}\r\n\r\n"), *reason, *status))
    .collect();
    let long = |count: usize| "m".repeat(count);
    cases.extend([
        case(format!("{} / HTTP/1.1\r\nHost: test\r\n\r\n", long(65)), MethodTooLong, 501),
        case(format!("GET /{} HTTP/1.1\r\nHost: test\r\n\r\n", long(256)), TargetTooLong, 414),
        case("\r\n".repeat(5), EmptyLines, 400),
        case("\n", LineEnding, 400),
        case("\r\n\n", LineEnding, 400),
        case("GET / HTTP/1.1\nHost: test\n\n", LineEnding, 400),
        case("GET / HTTP/1.1\rHost: test\r\r", LineEnding, 400),
        case("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", VersionUnsupported, 505),
        case(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".as_slice(), MethodMalformed, 400),
    ]);
    cases
}

fn field_lines() -> Vec<Case> {
    use Refusal::*;
    let mut cases: Vec<Case> = [
        ("No colon", FieldName, 400),
        (": value", FieldName, 400),
        ("N\u{e4}me: value", FieldName, 400),
        ("Na\0me: value", FieldName, 400),
        ("Na\"me: value", FieldName, 400),
        ("Name : value", FieldNameSpace, 400),
        ("Name\t: value", FieldNameSpace, 400),
        ("Content-Length : 5", FieldNameSpace, 400),
        ("Name: folded\r\n over two lines", FieldFolded, 400),
        ("Name: folded\r\n\tover two lines", FieldFolded, 400),
        ("Name:\r\n \r\nOther: value", FieldFolded, 400),
        ("Name: a\0b", FieldValue, 400),
        ("Name: a\x01b", FieldValue, 400),
        ("Name: a\x7fb", FieldValue, 400),
        ("Name: a\rb", LineEnding, 400),
        ("Name: a\rTransfer-Encoding: chunked", LineEnding, 400),
        ("Name: a\nOther: b", LineEnding, 400),
        ("Name: a\n\nGET / HTTP/1.1", LineEnding, 400),
        ("Name: a\r\r", LineEnding, 400),
        ("Host: other", HostRepeated, 400),
        ("hOST: test", HostRepeated, 400),
        ("Expect: 200-ok", Expectation, 417),
        ("Expect: 100-continue, more\r\nContent-Length: 1", Expectation, 417),
        ("Expect: 100-continue\r\nExpect: x\r\nContent-Length: 1", Expectation, 417),
    ]
    .iter()
    .map(|(line, reason, status)| {
        case(format!("GET / HTTP/1.1\r\nHost: test\r\n{line}\r\n\r\n"), *reason, *status)
    })
    .collect();
    cases.extend(lines(&[
        ("GET / HTTP/1.1\r\n Host: test", FieldFolded, 400),
        ("GET / HTTP/1.1", HostMissing, 400),
        ("GET / HTTP/1.1\r\nX-Host: test", HostMissing, 400),
        ("GET http://test/ HTTP/1.1", HostMissing, 400),
    ]));
    let hosts = [
        "", "a b", "a/b", "user@a", "a:b", "a:65536", "a:-1", ":80", "[::1", "[x]", "::1", "a,b:1,c", "a%2",
        "<a>",
    ];
    for host in hosts {
        cases.push(case(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"), HostMalformed, 400));
        cases.push(case(format!("GET / HTTP/1.0\r\nHost: {host}\r\n\r\n"), HostMalformed, 400));
    }
    let fields = |count: usize| "N: v\r\n".repeat(count);
    let name = "n".repeat(2048);
    cases.extend([
        case(format!("GET / HTTP/1.1\r\nHost: test\r\n{}\r\n", fields(8)), TooManyFields, 431),
        case(format!("GET / HTTP/1.1\r\nHost: test\r\nName: {name}\r\n\r\n"), HeadTooLarge, 431),
    ]);
    cases
}

fn framing() -> Vec<Case> {
    use Refusal::*;
    let mut cases: Vec<Case> = [
        ("Content-Length: 3\r\nContent-Length: 4", LengthRepeated, 400),
        ("Content-Length: 3\r\nContent-Length: 3", LengthRepeated, 400),
        ("Content-Length: 3\r\nX: y\r\ncontent-length: 0", LengthRepeated, 400),
        ("Content-Length: 3, 3", LengthMalformed, 400),
        ("Content-Length: 3 4", LengthMalformed, 400),
        ("Content-Length:", LengthMalformed, 400),
        ("Content-Length: -1", LengthMalformed, 400),
        ("Content-Length: +1", LengthMalformed, 400),
        ("Content-Length: 0x1", LengthMalformed, 400),
        ("Content-Length: 1.0", LengthMalformed, 400),
        ("Content-Length: 1e1", LengthMalformed, 400),
        ("Content-Length: \u{664}", LengthMalformed, 400),
        ("Content-Length: 18446744073709551616", LengthMalformed, 400),
        ("Content-Length: 18446744073709551615", BodyTooLarge, 413),
        ("Content-Length: 101", BodyTooLarge, 413),
        ("Content-Length: 101\r\nExpect: 100-continue", BodyTooLarge, 413),
        ("Content-Length: 3\r\nTransfer-Encoding: chunked", LengthAndCoding, 400),
        ("Transfer-Encoding: chunked\r\nContent-Length: 0", LengthAndCoding, 400),
        ("Transfer-Encoding: identity\r\nContent-Length: 3", LengthAndCoding, 400),
        ("Transfer-Encoding: gzip, chunked", CodingUnknown, 501),
        ("Transfer-Encoding: x\r\nTransfer-Encoding: chunked", CodingUnknown, 501),
        ("Transfer-Encoding: gzip", CodingNotFinal, 400),
        ("Transfer-Encoding: identity", CodingNotFinal, 400),
        ("Transfer-Encoding: xchunked", CodingNotFinal, 400),
        ("Transfer-Encoding: chunked, gzip", CodingNotFinal, 400),
        ("Transfer-Encoding: chunked, identity", CodingNotFinal, 400),
        ("Transfer-Encoding: chunked, chunked", CodingNotFinal, 400),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", CodingNotFinal, 400),
        ("Transfer-Encoding: chunked;q=1", CodingMalformed, 400),
        ("Transfer-Encoding: \"chunked\"", CodingMalformed, 400),
        ("Transfer-Encoding: chun ked", CodingMalformed, 400),
        ("Transfer-Encoding: \x0bchunked", FieldValue, 400),
        ("Transfer-Encoding:", CodingMalformed, 400),
        ("Transfer-Encoding: ,chunked", CodingMalformed, 400),
    ]
    .iter()
    .map(|(line, reason, status)| {
        case(format!("POST / HTTP/1.1\r\nHost: test\r\n{line}\r\n\r\n"), *reason, *status)
    })
    .collect();
    cases.extend(lines(&[
        ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked", CodingInHttp10, 400),
        ("POST / HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: gzip", CodingInHttp10, 400),
    ]));
    cases
}

fn chunks() -> Vec<Case> {
    use Refusal::*;
    let extension = format!("1;{}\r\n", "x".repeat(1024));
    let many = format!("1;{}\r\nz\r\n", "x".repeat(900)).repeat(5);
    let blank = format!("1{}", " ".repeat(1025));
    let trailer = format!("0\r\nX: {}\r\n", "y".repeat(8192));
    let trailers = format!("0\r\n{}", "X: y\r\n".repeat(1400));
    let ones = "1\r\nx\r\n".repeat(101);
    [
        ("\r\n", ChunkSize, 400),
        (";a\r\n", ChunkSize, 400),
        ("x\r\n", ChunkSize, 400),
        ("-1\r\n", ChunkSize, 400),
        ("+1\r\n", ChunkSize, 400),
        ("0x1\r\n", ChunkSize, 400),
        (" 1\r\n", ChunkSize, 400),
        ("1 \r\n", ChunkSize, 400),
        ("1 1\r\n", ChunkSize, 400),
        ("1\n", ChunkSize, 400),
        ("1\rx", ChunkSize, 400),
        ("1\0\r\n", ChunkSize, 400),
        ("1_0\r\n", ChunkSize, 400),
        ("00000000000000001\r\n", ChunkSize, 400),
        ("10000000000000000\r\n", ChunkSize, 400),
        ("fffffffffffffffff\r\n", ChunkSize, 400),
        ("ffffffffffffffff\r\n", BodyTooLarge, 413),
        ("65\r\n", BodyTooLarge, 413),
        ("64\r\n0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789\r\n1\r\n", BodyTooLarge, 413),
        (ones.as_str(), BodyTooLarge, 413),
        ("1;a\0\r\n", ChunkExtension, 400),
        ("1;a\n", ChunkExtension, 400),
        ("1;a\x7f\r\n", ChunkExtension, 400),
        (extension.as_str(), ChunkExtension, 400),
        (many.as_str(), ChunkExtension, 400),
        (blank.as_str(), ChunkExtension, 400),
        ("1\r\nxy\r\n", ChunkEnd, 400),
        ("1\r\nx\n", ChunkEnd, 400),
        ("1\r\nx\r\r", ChunkEnd, 400),
        ("1\r\nx0\r\n\r\n", ChunkEnd, 400),
        ("0\r\n\n", TrailerMalformed, 400),
        ("0\r\nX\r\n", TrailerMalformed, 400),
        ("0\r\n: y\r\n", TrailerMalformed, 400),
        ("0\r\nX : y\r\n", TrailerMalformed, 400),
        ("0\r\n X: y\r\n", TrailerMalformed, 400),
        ("0\r\nX: y\r\n folded\r\n", TrailerMalformed, 400),
        ("0\r\nX: y\n\r\n", TrailerMalformed, 400),
        ("0\r\nX: y\0\r\n", TrailerMalformed, 400),
        ("0\r\n\rx", TrailerMalformed, 400),
        (trailer.as_str(), TrailersTooLarge, 431),
        (trailers.as_str(), TrailersTooLarge, 431),
    ]
    .iter()
    .map(|(body, reason, status)| {
        let head = "POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n";
        case(format!("{head}{body}"), *reason, *status)
    })
    .collect()
}

#[test]
fn request_lines_that_are_refused() {
    expect_refused(&request_lines());
}

#[test]
fn field_lines_that_are_refused() {
    expect_refused(&field_lines());
}

#[test]
fn framings_that_are_refused() {
    expect_refused(&framing());
}

#[test]
fn chunks_that_are_refused() {
    expect_refused(&chunks());
}

#[test]
fn oversized_pieces_are_refused_before_they_end() {
    let server = TestServer::start(LIMITS, &[("a.txt", b"hello")]);
    let mut other = server.connect();
    let piece = "p".repeat(2048);
    let cases = [
        case(&piece[..65], Refusal::MethodTooLong, 501),
        case(format!("GET /{}", &piece[..256]), Refusal::TargetTooLong, 414),
        case(format!("GET / HTTP/1.1\r\nHost: test\r\nX: {piece}"), Refusal::HeadTooLarge, 431),
    ];
    for case in cases {
        let before = refused(&server, case.reason);
        let mut client = server.connect();
        assert_eq!(client.ask(&case.bytes).status, case.status);
        client.expect_finish();
        assert_eq!(refused(&server, case.reason), before + 1);
        expect_undisturbed(&mut other);
    }
}

/// The deadlines and the memory of bodies have tests of their own; every other reason stands in a table here.
#[test]
fn every_reason_is_provoked() {
    let cases =
        [request_lines(), field_lines(), framing(), chunks()].into_iter().flatten().collect::<Vec<_>>();
    let mut labels: BTreeSet<&str> = cases.iter().map(|case| case.reason.label()).collect();
    labels.extend([Refusal::HeaderTimeout, Refusal::BodyTimeout, Refusal::BodyMemory].map(Refusal::label));
    assert_eq!(labels, Refusal::LABELS.iter().copied().collect());
    for case in &cases {
        assert_eq!(case.status, case.reason.status().code(), "{}", case.reason.label());
    }
}

/// What decides about the wire also holds on a connection that has served before, and a new one works after.
#[test]
fn a_refusal_ends_a_connection_that_worked_before() {
    let server = TestServer::start(LIMITS, &[("a.txt", b"hello")]);
    for case in framing() {
        let mut client = server.connect();
        for _ in 0..3 {
            expect_undisturbed(&mut client);
        }
        assert_eq!(client.ask(&case.bytes).status, case.status);
        client.expect_finish();
        expect_undisturbed(&mut server.connect());
    }
    server.await_no_connections();
}
