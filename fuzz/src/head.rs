//! Request heads: `http1::decode` and `http1::decode_from`. The input is what a connection received.
//!
//! However a head arrives it decodes to the same parts, these lie within it, and they are what a plain split of its
//! lines finds.

use webserver::{
    http::{Framing, Parts, Request, Span, Version},
    http1::{Decoded, Limits, Refusal, decode, decode_from},
};

/// The defaults; bounds that a short input passes; as many fields as may be configured.
const LIMITS: [Limits; 3] = [
    Limits { header_bytes: 32 << 10, headers: 100, target_bytes: 8 << 10 },
    Limits { header_bytes: 512, headers: 16, target_bytes: 64 },
    Limits { header_bytes: 4096, headers: 1024, target_bytes: 1024 },
];

/// Sizes of the pieces that a head arrives in.
const STEPS: [usize; 4] = [1, 2, 7, 61];

/// Checks one input; whether it begins with a head that is accepted under the default limits.
pub fn check(input: &[u8]) -> bool {
    let [accepted, ..] = LIMITS.map(|limits| check_within(input, &limits));
    accepted
}

fn check_within(input: &[u8], limits: &Limits) -> bool {
    let (mut parts, mut other) = (Parts::default(), Parts::default());
    let whole = decode(input, limits, &mut parts);
    match whole {
        Ok(Decoded::Complete) => {
            check_parts(input, &parts, limits);
            check_tails(input, &parts, limits, &mut other);
            check_rendered(Request { bytes: input, parts: &parts }, limits, &mut other);
        }
        Ok(Decoded::Partial) => {
            assert!(input.len() < limits.header_bytes, "a full window is never partial");
            let text = without_empty_lines(input);
            for end in [&b"\r\n\r\n"[..], b"\n\n", b"\n\r\n"] {
                assert!(!contains(text, end), "the end of the head is there");
            }
        }
        Err(_) => {}
    }
    check_cuts(input, whole, &parts, limits, &mut other);
    for step in STEPS {
        check_pieces(input, step, whole, &parts, limits, &mut other);
    }
    check_any_start(input, whole, limits, &mut other);
    whole == Ok(Decoded::Complete)
}

/// A shorter input is never complete before its end, and what is refused is not accepted when more arrives.
fn check_cuts(
    input: &[u8],
    whole: Result<Decoded, Refusal>,
    parts: &Parts,
    limits: &Limits,
    other: &mut Parts,
) {
    let length = if whole == Ok(Decoded::Complete) { parts.length as usize } else { input.len() };
    // All cuts of a short input, the last ones and some more of a long one.
    let stride = 1 + length / 64;
    for end in (0..length).step_by(stride).chain(length.saturating_sub(8)..length) {
        match decode(&input[..end], limits, other) {
            Ok(Decoded::Partial) => {}
            Ok(Decoded::Complete) => panic!("complete at {end}, but {whole:?} as a whole"),
            Err(refusal) => assert!(whole.is_err(), "{refusal:?} at {end}, but {whole:?} as a whole"),
        }
    }
}

/// In pieces a head is complete as soon as its last byte is there. A refusal may come before the end, for another
/// reason, or wait until the length doubles.
fn check_pieces(
    input: &[u8],
    step: usize,
    whole: Result<Decoded, Refusal>,
    parts: &Parts,
    limits: &Limits,
    other: &mut Parts,
) {
    let (mut scanned, mut used) = (0, 0);
    let mut pieces = Ok(Decoded::Partial);
    while pieces == Ok(Decoded::Partial) && used < input.len() {
        used = (used + step).min(input.len());
        pieces = decode_from(&input[..used], &mut scanned, limits, other);
    }
    match whole {
        Ok(Decoded::Complete) => {
            let length = parts.length as usize;
            assert_eq!(pieces, whole, "in pieces of {step}");
            assert_eq!(used, length.next_multiple_of(step).min(input.len()), "in pieces of {step}");
            assert_eq!(other, parts, "in pieces of {step}");
            assert_eq!(scanned, 0, "ready for the next head");
        }
        Ok(Decoded::Partial) => assert_eq!(pieces, whole, "in pieces of {step}"),
        Err(_) => assert_ne!(pieces, Ok(Decoded::Complete), "in pieces of {step}"),
    }
}

/// Whatever was scanned before, the answer is that of the whole or "not yet".
fn check_any_start(input: &[u8], whole: Result<Decoded, Refusal>, limits: &Limits, other: &mut Parts) {
    let length = input.len() as u32;
    for start in [0, 1, 2, length / 2, length.saturating_sub(1), length, length.saturating_add(1), u32::MAX] {
        let mut scanned = start;
        let decoded = decode_from(input, &mut scanned, limits, other);
        assert!(
            decoded == whole || decoded == Ok(Decoded::Partial),
            "{decoded:?} from {start}, not {whole:?}"
        );
    }
}

/// What follows a head changes nothing of it.
fn check_tails(input: &[u8], parts: &Parts, limits: &Limits, other: &mut Parts) {
    let head = &input[..parts.length as usize];
    for tail in [&b""[..], b"\r\n\r\n", b"\0", b"GET / HTTP/1.1\r\n\r\n"] {
        assert_eq!(decode(&[head, tail].concat(), limits, other), Ok(Decoded::Complete), "with a tail");
        assert_eq!(other, parts, "with a tail");
    }
}

/// A head that is written again from its parts means the same.
fn check_rendered(request: Request<'_>, limits: &Limits, other: &mut Parts) {
    let mut bytes = Vec::new();
    for part in [request.method_text(), b" ", request.target(), b" ", request.version().as_str().as_bytes()] {
        bytes.extend_from_slice(part);
    }
    for (name, value) in request.fields() {
        bytes.extend_from_slice(&[b"\r\n", name, b": ", value].concat());
    }
    bytes.extend_from_slice(b"\r\n\r\n");
    // Spaces that were not there before may be too many.
    if bytes.len() > limits.header_bytes {
        return;
    }
    assert_eq!(decode(&bytes, limits, other), Ok(Decoded::Complete), "written again");
    let again = Request { bytes: &bytes, parts: other };
    assert_eq!(again.method_text(), request.method_text());
    assert_eq!((again.method(), again.version()), (request.method(), request.version()));
    assert_eq!((again.target(), again.path()), (request.target(), request.path()));
    assert_eq!((again.query(), again.host()), (request.query(), request.host()));
    assert!(again.fields().eq(request.fields()));
    assert_eq!(other.framing, request.parts.framing);
    assert_eq!(other.keep_alive, request.parts.keep_alive);
    assert_eq!(other.expect_continue, request.parts.expect_continue);
}

/// The parts lie within the head, keep the limits and are what its lines say.
fn check_parts(input: &[u8], parts: &Parts, limits: &Limits) {
    assert!(parts.length as usize <= input.len().min(limits.header_bytes));
    assert!(parts.fields.len() <= limits.headers);
    let within = |span: Span| assert!(span.start <= span.end && span.end <= parts.length);
    let optional = [parts.query, parts.host].into_iter().flatten();
    [parts.method_text, parts.target, parts.path].into_iter().chain(optional).for_each(within);
    parts.fields.iter().flat_map(|field| [field.name, field.value]).for_each(within);

    let request = Request { bytes: input, parts };
    assert!(request.target().len() <= limits.target_bytes);
    assert!(request.target().iter().all(u8::is_ascii_graphic));
    let target = if request.query().is_some() {
        [request.path(), b"?", request.query().unwrap_or_default()].concat()
    } else {
        request.path().to_vec()
    };
    if request.target().starts_with(b"/") {
        assert_eq!(target, request.target(), "path and query make up an origin-form target");
    }
    if let Some(host) = request.host() {
        assert!(!host.is_empty() && host.iter().all(|byte| !b"/@?#\\ \t".contains(byte)));
    }

    let text = without_empty_lines(&input[..parts.length as usize]);
    let lines: Vec<&[u8]> = lines(text);
    let [request_line, fields @ .., b"", b""] = &lines[..] else { panic!("no empty line at the end") };
    let version = request.version().as_str().as_bytes();
    assert_eq!([request.method_text(), b" ", request.target(), b" ", version].concat(), *request_line);
    assert!(super::is_token(request.method_text()));
    assert_eq!(fields.len(), request.fields().count());
    for (line, (name, value)) in fields.iter().zip(request.fields()) {
        let colon = line.iter().position(|&byte| byte == b':').expect("a colon");
        assert!(super::is_token(name) && super::is_value(value));
        assert_eq!((&line[..colon], line[colon + 1..].trim_ascii()), (name, value));
    }
    check_framing(request);
}

/// No two recipients may take the body for another one: at most one of the two fields, once, with one meaning.
fn check_framing(request: Request<'_>) {
    let named = |wanted: &str| {
        request
            .fields()
            .filter(|(name, _)| name.eq_ignore_ascii_case(wanted.as_bytes()))
            .map(|(_, value)| value)
            .collect::<Vec<_>>()
    };
    let codings = named("transfer-encoding").join(&b","[..]).to_ascii_lowercase();
    match (&named("content-length")[..], &codings[..], request.parts.framing) {
        ([], b"", Framing::None) => {}
        ([], b"chunked", Framing::Chunked) => assert_eq!(request.version(), Version::Http11),
        ([digits], b"", Framing::Length(length)) => {
            assert!(digits.iter().all(u8::is_ascii_digit));
            assert_eq!(super::number(digits), length);
        }
        (lengths, _, framing) => panic!("{framing:?} for {lengths:?} and {}", codings.escape_ascii()),
    }
    let hosts = named("host");
    assert!(hosts.len() == 1 || (hosts.is_empty() && request.version() == Version::Http10));
}

/// The lines of `text`, which end with CR LF; no other byte of them is CR or LF.
fn lines(text: &[u8]) -> Vec<&[u8]> {
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") {
        lines.push(&rest[..end]);
        rest = &rest[end + 2..];
    }
    lines.push(rest);
    assert!(lines.iter().all(|line| !line.contains(&b'\r') && !line.contains(&b'\n')));
    lines
}

fn without_empty_lines(mut text: &[u8]) -> &[u8] {
    while let Some(rest) = text.strip_prefix(b"\r\n") {
        text = rest;
    }
    text
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}
