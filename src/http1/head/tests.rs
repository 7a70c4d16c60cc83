//! Each rule about a request head, with what it accepts and what it refuses.

use super::*;
use crate::http::{Framing, OwnedRequest};

const LIMITS: Limits = Limits { header_bytes: 4096, headers: 100, target_bytes: 1024 };

/// Decodes a head that must be whole, accepted, and as long as the input.
fn accepted(input: &str) -> OwnedRequest {
    let mut parts = Parts::with_capacity(LIMITS.headers);
    assert_eq!(decode(input.as_bytes(), &LIMITS, &mut parts), Ok(Decoded::Complete), "{input:?}");
    assert_eq!(parts.length as usize, input.len());
    OwnedRequest::from(Request { bytes: input.as_bytes(), parts: &parts })
}

fn outcome(input: &[u8]) -> Result<Decoded, Refusal> {
    decode(input, &LIMITS, &mut Parts::with_capacity(LIMITS.headers))
}

fn refused(input: &str) -> Refusal {
    match outcome(input.as_bytes()) {
        Err(refusal) => refusal,
        Ok(decoded) => panic!("{decoded:?}: {input:?}"),
    }
}

/// An HTTP/1.1 `GET` with these field lines after a `Host`.
fn with_fields(lines: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: h\r\n{lines}\r\n")
}

#[test]
fn decodes_a_request() {
    let owned = accepted(
        "GET /a%20b?c=d HTTP/1.1\r\nHost: localhost:8080\r\nX-Empty:\r\nUser-Agent: \tx y \t\r\n\r\n",
    );
    let request = owned.as_request();
    assert_eq!(request.method(), Method::Get);
    assert_eq!(request.method_text(), b"GET");
    assert_eq!(request.version(), Version::Http11);
    assert_eq!(request.target(), b"/a%20b?c=d");
    assert_eq!(request.path(), b"/a%20b");
    assert_eq!(request.query(), Some(&b"c=d"[..]));
    assert_eq!(request.host(), Some(&b"localhost:8080"[..]));
    assert_eq!(request.field(Known::UserAgent), Some(&b"x y"[..]));
    assert_eq!(request.header("x-empty"), Some(&b""[..]));
    assert_eq!(request.parts.framing, Framing::None);
    assert!(request.parts.keep_alive);
    assert!(!request.parts.expect_continue);
}

#[test]
fn bytes_after_the_head_are_left_alone() {
    let mut parts = Parts::default();
    let input = b"GET / HTTP/1.0\r\n\r\nGET /next HTTP/1.0\r\n\r\n";
    assert_eq!(decode(input, &LIMITS, &mut parts), Ok(Decoded::Complete));
    assert_eq!(parts.length, 18);
}

#[test]
fn nothing_of_the_request_before_remains() {
    let mut parts = Parts::default();
    let first = b"POST http://a/?q HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nCookie: x\r\nExpect: 100-continue\r\n\r\n";
    assert_eq!(decode(first, &LIMITS, &mut parts), Ok(Decoded::Complete));
    let second = b"GET / HTTP/1.0\r\n\r\n";
    assert_eq!(decode(second, &LIMITS, &mut parts), Ok(Decoded::Complete));
    let mut fresh = Parts::default();
    assert_eq!(decode(second, &LIMITS, &mut fresh), Ok(Decoded::Complete));
    assert_eq!(parts, fresh);
}

#[test]
fn other_methods_are_tokens() {
    assert_eq!(accepted("PROPFIND / HTTP/1.0\r\n\r\n").as_request().method_text(), b"PROPFIND");
    assert_eq!(accepted("get / HTTP/1.0\r\n\r\n").as_request().method(), Method::Other);
    for input in
        [" GET / HTTP/1.1\r\n\r\n", "G(T / HTTP/1.1\r\n\r\n", "GET\t/ HTTP/1.1\r\n\r\n", "GET\r\n\r\n", "\0"]
    {
        assert_eq!(refused(input), Refusal::MethodMalformed, "{input:?}");
    }
}

#[test]
fn a_tls_client_hello_is_refused_at_once() {
    assert_eq!(outcome(b"\x16\x03\x01\x02\x00\x01"), Err(Refusal::MethodMalformed));
}

#[test]
fn a_method_is_bounded() {
    let longest = "M".repeat(METHOD_BYTES_MAX);
    assert_eq!(accepted(&format!("{longest} / HTTP/1.0\r\n\r\n")).as_request().method(), Method::Other);
    assert_eq!(outcome(longest.as_bytes()), Ok(Decoded::Partial));
    assert_eq!(refused(&format!("{longest}M / HTTP/1.0\r\n\r\n")), Refusal::MethodTooLong);
    assert_eq!(refused(&format!("{longest}M")), Refusal::MethodTooLong);
}

#[test]
fn the_request_line_has_single_spaces() {
    assert_eq!(refused("GET  / HTTP/1.1\r\nHost: h\r\n\r\n"), Refusal::TargetMalformed);
    assert_eq!(refused("GET /  HTTP/1.1\r\nHost: h\r\n\r\n"), Refusal::VersionMalformed);
    assert_eq!(refused("GET /\tHTTP/1.1\r\nHost: h\r\n\r\n"), Refusal::TargetMalformed);
    assert_eq!(refused("GET / HTTP/1.1 \r\nHost: h\r\n\r\n"), Refusal::LineEnding);
    assert_eq!(refused("GET /a b HTTP/1.1\r\nHost: h\r\n\r\n"), Refusal::VersionMalformed);
    assert_eq!(refused("GET /\r\n\r\n"), Refusal::TargetMalformed);
    assert_eq!(refused("GET \r\n\r\n"), Refusal::TargetMalformed);
}

#[test]
fn only_two_versions_are_spoken() {
    assert_eq!(accepted("GET / HTTP/1.0\r\n\r\n").as_request().version(), Version::Http10);
    for version in ["HTTP/2.0", "HTTP/1.2", "HTTP/0.9", "HTTP/3.0"] {
        assert_eq!(refused(&format!("GET / {version}\r\nHost: h\r\n\r\n")), Refusal::VersionUnsupported);
    }
    assert_eq!(refused("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), Refusal::VersionUnsupported);
    for version in
        ["http/1.1", "HTTP/1", "HTTP/1.x", "HTTPS/1.1", "HTTP/", "HTTP 1.1", "HTTP/+1.1", "", "HTTP/2"]
    {
        assert_eq!(
            refused(&format!("GET / {version}\r\nHost: h\r\n\r\n")),
            Refusal::VersionMalformed,
            "{version}"
        );
    }
    assert_eq!(refused("GET / HTTP/1.10\r\nHost: h\r\n\r\n"), Refusal::LineEnding);
}

#[test]
fn an_unspoken_version_is_refused_when_it_can_be_seen() {
    assert_eq!(outcome(b"GET / HTTP/"), Ok(Decoded::Partial));
    assert_eq!(outcome(b"GET / HTTP/2"), Err(Refusal::VersionUnsupported));
    assert_eq!(outcome(b"GET / HTTP/1."), Ok(Decoded::Partial));
}

#[test]
fn a_few_empty_lines_are_skipped() {
    let head = "GET / HTTP/1.0\r\nHost: h\r\n\r\n";
    for count in 0..=EMPTY_LINES_MAX {
        let owned = accepted(&format!("{}{head}", "\r\n".repeat(count)));
        assert_eq!(owned.as_request().method_text(), b"GET");
        assert_eq!(owned.as_request().host(), Some(&b"h"[..]));
    }
    let many = "\r\n".repeat(EMPTY_LINES_MAX + 1);
    assert_eq!(refused(&format!("{many}{head}")), Refusal::EmptyLines);
    assert_eq!(refused(&many), Refusal::EmptyLines);
    assert_eq!(outcome(b"\r\n\r\n"), Ok(Decoded::Partial));
    assert_eq!(outcome(b"\r\n\r"), Ok(Decoded::Partial));
    assert_eq!(outcome(b""), Ok(Decoded::Partial));
}

#[test]
fn every_line_ends_with_cr_lf() {
    let bare = [
        "\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
        "\r\n\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
        "\r\rGET / HTTP/1.1\r\nHost: h\r\n\r\n",
        "\rGET / HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET / HTTP/1.1\nHost: h\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\nX: y\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\nX:\nY: z\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\nX:\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\n\n",
        "GET / HTTP/1.1\r\nHost: h\n\n",
        "GET / HTTP/1.0\n\n",
        "GET / HTTP/1.0\r\n\n",
        "GET / HTTP/1.0\n\r\n",
        "GET / HTTP/1.1\rHost: h\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\n\rX",
        "GET / HTTP/1.1\r\nHost: h\rX: y\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\nX: a\rb\r\n\r\n",
    ];
    for input in bare {
        assert_eq!(refused(input), Refusal::LineEnding, "{input:?}");
    }
}

#[test]
fn field_lines_are_well_formed() {
    for (lines, refusal) in [
        (" X: y\r\n", Refusal::FieldFolded),
        ("X: y\r\n z\r\n", Refusal::FieldFolded),
        ("X: y\r\n\tz\r\n", Refusal::FieldFolded),
        ("X : y\r\n", Refusal::FieldNameSpace),
        ("X\t: y\r\n", Refusal::FieldNameSpace),
        ("Content-Length : 5\r\n", Refusal::FieldNameSpace),
        ("X\r\n", Refusal::FieldName),
        (": y\r\n", Refusal::FieldName),
        ("X y: z\r\n", Refusal::FieldName),
        ("X(: y\r\n", Refusal::FieldName),
        ("X\0: y\r\n", Refusal::FieldName),
        ("\u{e4}: y\r\n", Refusal::FieldName),
        ("X: a\0b\r\n", Refusal::FieldValue),
        ("X: \0\r\n", Refusal::FieldValue),
        ("X: a\u{b}\r\n", Refusal::FieldValue),
        ("X: a\u{7f}\r\n", Refusal::FieldValue),
    ] {
        assert_eq!(refused(&with_fields(lines)), refusal, "{lines:?}");
    }
    // As the first line, too, and when the line is cut off.
    assert_eq!(refused("GET / HTTP/1.1\r\n X: y\r\n\r\n"), Refusal::FieldFolded);
    assert_eq!(refused("GET / HTTP/1.1\r\nHost: h\r\n\tX"), Refusal::FieldFolded);
    assert_eq!(refused("GET / HTTP/1.1\r\nA: \x01"), Refusal::FieldValue);
    assert_eq!(
        accepted(&with_fields("X: \u{e4}\tz\r\n")).as_request().header("X"),
        Some("\u{e4}\tz".as_bytes())
    );
}

#[test]
fn a_target_is_visible_ascii_without_a_fragment() {
    for target in ["/\u{e4}", "/\u{7f}", "/\u{1}", "/a#b", "a", "*", "/a\"\u{80}"] {
        let input = format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n");
        assert_eq!(refused(&input), Refusal::TargetMalformed, "{target:?}");
    }
    assert_eq!(outcome(b"GET /\xff HTTP/1.1\r\nHost: h\r\n\r\n"), Err(Refusal::TargetMalformed));
}

#[test]
fn an_absolute_target_replaces_the_host() {
    let owned = accepted("GET http://a:1/p?q HTTP/1.1\r\nHost: b\r\n\r\n");
    assert_eq!(owned.as_request().host(), Some(&b"a:1"[..]));
    assert_eq!(owned.as_request().path(), b"/p");
    assert_eq!(owned.as_request().field(Known::Host), Some(&b"b"[..]));
    assert_eq!(refused("GET http://a/ HTTP/1.1\r\n\r\n"), Refusal::HostMissing);
    assert_eq!(refused("GET http://a/ HTTP/1.1\r\nHost: b c\r\n\r\n"), Refusal::HostMalformed);
    assert_eq!(refused("GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n"), Refusal::HostMalformed);
}

#[test]
fn options_may_ask_about_the_server() {
    assert_eq!(accepted("OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n").as_request().path(), b"*");
}

#[test]
fn connect_names_host_and_port() {
    let owned = accepted("CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(owned.as_request().host(), Some(&b"a:443"[..]));
    assert_eq!(refused("CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n"), Refusal::TargetMalformed);
}

#[test]
fn http11_needs_exactly_one_valid_host() {
    assert_eq!(refused("GET / HTTP/1.1\r\n\r\n"), Refusal::HostMissing);
    assert_eq!(refused(&with_fields("Host: h\r\n")), Refusal::HostRepeated);
    assert_eq!(refused(&with_fields("hOST: other\r\n")), Refusal::HostRepeated);
    for host in ["", "a b", "a/b", "a@b", "h:65536", "[::1", "a,b:c", "\u{e4}"] {
        let input = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(refused(&input), Refusal::HostMalformed, "{host:?}");
    }
}

#[test]
fn http10_may_do_without_a_host() {
    assert_eq!(accepted("GET / HTTP/1.0\r\n\r\n").as_request().host(), None);
    assert_eq!(accepted("GET / HTTP/1.0\r\nHost: h\r\n\r\n").as_request().host(), Some(&b"h"[..]));
    assert_eq!(refused("GET / HTTP/1.0\r\nHost: h\r\nHost: h\r\n\r\n"), Refusal::HostRepeated);
    assert_eq!(refused("GET / HTTP/1.0\r\nHost: a b\r\n\r\n"), Refusal::HostMalformed);
}

fn framing(lines: &str) -> Framing {
    accepted(&with_fields(lines)).as_request().parts.framing
}

#[test]
fn content_length_is_one_number() {
    assert_eq!(framing("Content-Length: 0\r\n"), Framing::Length(0));
    assert_eq!(framing("content-length:  007 \r\n"), Framing::Length(7));
    assert_eq!(framing("Content-Length: 18446744073709551615\r\n"), Framing::Length(u64::MAX));
    for value in ["", "+1", "-1", "1, 1", "1,2", "0x10", "1 1", "1.0", "18446744073709551616", "a", "1;"] {
        let input = with_fields(&format!("Content-Length: {value}\r\n"));
        assert_eq!(refused(&input), Refusal::LengthMalformed, "{value:?}");
    }
}

#[test]
fn rejects_two_content_lengths() {
    assert_eq!(refused(&with_fields("Content-Length: 5\r\nContent-Length: 5\r\n")), Refusal::LengthRepeated);
    assert_eq!(
        refused(&with_fields("Content-Length: 5\r\nX: y\r\ncontent-length: 6\r\n")),
        Refusal::LengthRepeated
    );
}

#[test]
fn rejects_content_length_with_transfer_encoding() {
    let both = [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: x\r\nContent-Length: 0\r\n",
    ];
    for lines in both {
        assert_eq!(refused(&with_fields(lines)), Refusal::LengthAndCoding);
    }
}

#[test]
fn chunked_is_the_only_transfer_coding() {
    assert_eq!(framing("Transfer-Encoding: chunked\r\n"), Framing::Chunked);
    assert_eq!(framing("transfer-encoding: CHUNKED\r\n"), Framing::Chunked);
    for (value, refusal) in [
        ("gzip, chunked", Refusal::CodingUnknown),
        ("identity, chunked", Refusal::CodingUnknown),
        ("foo;a=b, chunked", Refusal::CodingUnknown),
        ("gzip", Refusal::CodingNotFinal),
        ("identity", Refusal::CodingNotFinal),
        ("xchunked", Refusal::CodingNotFinal),
        ("chunked, gzip", Refusal::CodingNotFinal),
        ("chunked, chunked", Refusal::CodingNotFinal),
        ("", Refusal::CodingMalformed),
        ("chunked,", Refusal::CodingMalformed),
        (",chunked", Refusal::CodingMalformed),
        ("chunked;a=b", Refusal::CodingMalformed),
        ("chunked;", Refusal::CodingMalformed),
        ("\"chunked\"", Refusal::CodingMalformed),
        ("chunked chunked", Refusal::CodingMalformed),
    ] {
        let input = with_fields(&format!("Transfer-Encoding: {value}\r\n"));
        assert_eq!(refused(&input), refusal, "{value:?}");
    }
}

#[test]
fn transfer_codings_of_several_lines_are_one_list() {
    let twice = "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n";
    assert_eq!(refused(&with_fields(twice)), Refusal::CodingNotFinal);
    let unknown = "Transfer-Encoding: gzip\r\nX: y\r\nTransfer-Encoding: chunked\r\n";
    assert_eq!(refused(&with_fields(unknown)), Refusal::CodingUnknown);
    let hidden = "Transfer-Encoding: chunked\r\nTransfer-encoding: identity\r\n";
    assert_eq!(refused(&with_fields(hidden)), Refusal::CodingNotFinal);
}

#[test]
fn http10_has_no_transfer_coding() {
    assert_eq!(refused("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), Refusal::CodingInHttp10);
}

#[test]
fn connections_are_kept_by_version_and_option() {
    let keeps = |version: &str, lines: &str| {
        accepted(&format!("GET / {version}\r\nHost: h\r\n{lines}\r\n")).as_request().parts.keep_alive
    };
    assert!(keeps("HTTP/1.1", ""));
    assert!(keeps("HTTP/1.1", "Connection: keep-alive\r\n"));
    assert!(keeps("HTTP/1.1", "Connection: closed, upgrade\r\n"));
    assert!(!keeps("HTTP/1.1", "Connection: close\r\n"));
    assert!(!keeps("HTTP/1.1", "Connection: Upgrade , CLOSE\r\n"));
    assert!(!keeps("HTTP/1.1", "Connection: keep-alive\r\nConnection: close\r\n"));
    assert!(!keeps("HTTP/1.1", "Connection: close\r\nConnection: keep-alive\r\n"));
    assert!(!keeps("HTTP/1.0", ""));
    assert!(keeps("HTTP/1.0", "Connection: Keep-Alive\r\n"));
    assert!(keeps("HTTP/1.0", "Connection: x\r\nConnection: keep-alive\r\n"));
    assert!(!keeps("HTTP/1.0", "Connection: keep-alive, close\r\n"));
}

#[test]
fn only_100_continue_can_be_expected() {
    let expects = |version: &str, lines: &str| {
        accepted(&format!("POST / {version}\r\nHost: h\r\n{lines}\r\n")).as_request().parts.expect_continue
    };
    assert!(expects("HTTP/1.1", "Expect: 100-Continue\r\nContent-Length: 1\r\n"));
    assert!(expects("HTTP/1.1", "Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n"));
    // Without a body there is nothing to wait for.
    assert!(!expects("HTTP/1.1", "Expect: 100-continue\r\n"));
    assert!(!expects("HTTP/1.1", "Expect: 100-continue\r\nContent-Length: 0\r\n"));
    for value in ["", "200-ok", "100-continue, x", "100-continue=1"] {
        let input = with_fields(&format!("Expect: {value}\r\nContent-Length: 1\r\n"));
        assert_eq!(refused(&input), Refusal::Expectation, "{value:?}");
    }
    let hidden = with_fields("Expect: 100-continue\r\nExpect: magic\r\n");
    assert_eq!(refused(&hidden), Refusal::Expectation);
}

#[test]
fn http10_expectations_are_ignored() {
    let owned = accepted("POST / HTTP/1.0\r\nExpect: magic\r\nContent-Length: 1\r\n\r\n");
    assert!(!owned.as_request().parts.expect_continue);
}

#[test]
fn a_head_is_bounded() {
    let fixed = "GET / HTTP/1.1\r\nHost: h\r\nX: \r\n\r\n".len();
    let largest = with_fields(&format!("X: {}\r\n", "a".repeat(LIMITS.header_bytes - fixed)));
    assert_eq!(largest.len(), LIMITS.header_bytes);
    accepted(&largest);
    // Complete only with a body behind it: the limit is about the head alone.
    assert_eq!(outcome(format!("{largest}body").as_bytes()), Ok(Decoded::Complete));
    let larger = with_fields(&format!("X: {}\r\n", "a".repeat(LIMITS.header_bytes - fixed + 1)));
    assert_eq!(refused(&larger), Refusal::HeadTooLarge);
    // Refused as soon as it cannot fit any more.
    assert_eq!(refused(&larger[..LIMITS.header_bytes]), Refusal::HeadTooLarge);
    assert_eq!(outcome(&larger.as_bytes()[..LIMITS.header_bytes - 1]), Ok(Decoded::Partial));
}

#[test]
fn a_target_is_bounded() {
    let target = format!("/{}", "a".repeat(LIMITS.target_bytes - 1));
    accepted(&format!("GET {target} HTTP/1.0\r\n\r\n"));
    assert_eq!(refused(&format!("GET {target}a HTTP/1.0\r\n\r\n")), Refusal::TargetTooLong);
    // Also while the line, or the rest of the head, is still on its way.
    assert_eq!(outcome(format!("GET {target}").as_bytes()), Ok(Decoded::Partial));
    assert_eq!(refused(&format!("GET {target}a")), Refusal::TargetTooLong);
    assert_eq!(refused(&format!("GET {target}a HTTP/1.0\r\nX")), Refusal::TargetTooLong);
    assert_eq!(refused(&format!("GET {}", target.repeat(8))), Refusal::TargetTooLong);
}

#[test]
fn the_number_of_fields_is_bounded() {
    for headers in [1, 100, FIELDS_FEW, FIELDS_FEW + 1, FIELDS_MAX] {
        let limits = Limits { header_bytes: 65536, headers, ..LIMITS };
        let mut parts = Parts::with_capacity(headers);
        let lines = "X: y\r\n".repeat(headers - 1);
        assert_eq!(decode(with_fields(&lines).as_bytes(), &limits, &mut parts), Ok(Decoded::Complete));
        assert_eq!(parts.fields.len(), headers);
        let more = with_fields(&format!("{lines}X: y\r\n"));
        assert_eq!(decode(more.as_bytes(), &limits, &mut parts), Err(Refusal::TooManyFields));
    }
}

#[test]
fn no_memory_is_allocated_within_the_capacity() {
    let mut parts = Parts::with_capacity(LIMITS.headers);
    let (pointer, capacity) = (parts.fields.as_ptr(), parts.fields.capacity());
    for count in [99, 0, 99] {
        let input = with_fields(&"X: y\r\n".repeat(count));
        assert_eq!(decode(input.as_bytes(), &LIMITS, &mut parts), Ok(Decoded::Complete));
    }
    assert_eq!((parts.fields.as_ptr(), parts.fields.capacity()), (pointer, capacity));
}

#[test]
fn a_refusal_leaves_the_request_line_for_the_log() {
    let mut parts = Parts::default();
    let input = b"POST /x?y HTTP/1.1\r\nHost: h\r\nContent-Length: z\r\n\r\n";
    assert_eq!(decode(input, &LIMITS, &mut parts), Err(Refusal::LengthMalformed));
    assert_eq!(
        (parts.method, parts.method_text.of(input), parts.target.of(input)),
        (Method::Post, &b"POST"[..], &b"/x?y"[..])
    );
    let input = b"GET /x HTTP/3.0\r\n";
    assert_eq!(decode(input, &LIMITS, &mut parts), Err(Refusal::VersionUnsupported));
    assert_eq!(parts.target.of(input), b"/x");
}

#[test]
fn a_head_in_pieces_is_decoded_a_few_times_only() {
    let input = with_fields(&format!("X: {}\r\n", "a".repeat(3000)));
    let mut parts = Parts::default();
    let (mut scanned, mut decoded) = (0, Decoded::Partial);
    let mut tried = 0;
    for end in 1..=input.len() {
        let seen = scanned as usize;
        tried += usize::from(seen == 0 || is_worth_decoding(&input.as_bytes()[..end], seen));
        decoded = decode_from(&input.as_bytes()[..end], &mut scanned, &LIMITS, &mut parts).unwrap();
    }
    assert_eq!(decoded, Decoded::Complete);
    assert_eq!(scanned, 0);
    assert!(tried <= 14, "{tried}");
}

#[test]
fn a_head_in_pieces_meets_the_same_limits() {
    let mut parts = Parts::default();
    let mut feed = |input: &[u8]| {
        let mut scanned = 0;
        (1..=input.len()).find_map(|end| decode_from(&input[..end], &mut scanned, &LIMITS, &mut parts).err())
    };
    assert_eq!(feed(with_fields(&"X: y\r\n".repeat(2000)).as_bytes()), Some(Refusal::TooManyFields));
    assert_eq!(
        feed(with_fields(&format!("X: {}", "y".repeat(5000))).as_bytes()),
        Some(Refusal::HeadTooLarge)
    );
    assert_eq!(feed(format!("GET /{}", "a".repeat(5000)).as_bytes()), Some(Refusal::TargetTooLong));
    assert_eq!(feed(b"GET / HTTP/1.0\nX: y\n\n"), Some(Refusal::LineEnding));
    assert_eq!(feed("\r\n".repeat(9).as_bytes()), Some(Refusal::EmptyLines));
}
