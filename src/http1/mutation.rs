//! Requests changed at random, the same way in every run: whatever the bytes, the decoders keep their promises.

use super::{BodyDecoder, Decoded, Limits, Piece, Refusal, decode, decode_from};
use crate::http::{Framing, Parts, Request, Span};

const LIMITS: Limits = Limits { header_bytes: 512, headers: 16, target_bytes: 64 };

const HEADS: &[&str] = &[
    "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "\r\nHEAD /a/b.html?c=d&e=%20 HTTP/1.1\r\nHost: [::1]:8080\r\nUser-Agent: x/1 (y; z)\r\nAccept: */*\r\n\r\n",
    "POST http://example.com:80/p HTTP/1.1\r\nHost: other\r\nContent-Length: 12\r\nExpect: 100-continue\r\n\r\n",
    "PUT /x HTTP/1.1\r\nhost: a\r\nTransfer-Encoding: chunked\r\nTrailer: Digest\r\n\r\n",
    "GET / HTTP/1.0\r\nConnection: keep-alive\r\nIf-None-Match: \"a\", W/\"b\"\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nHost:h\r\nConnection: close\r\nConnection: x\r\n\r\n",
    "CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: h\r\nX: \r\nY:\t z\t\r\nCookie: a=b\r\ncookie: c=d\r\nRange: bytes=0-\r\n\r\n",
    "DELETE /%ff HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nIf-Match: *\r\n\r\n",
];

const BODIES: &[&str] = &[
    "5\r\nhello\r\n0\r\n\r\n",
    "a;b=\"c\"\r\n0123456789\r\n1 ;d\r\nx\r\n000\r\nA: b\r\nC:\r\n\r\nGET / HTTP/1.1\r\n",
    "ffffffffffffffff\r\nabc",
];

/// Pieces that matter to the grammar, put in at random places.
const PIECES: &[&str] = &[
    "\r\n",
    "\n",
    "\r",
    " ",
    "\t",
    ":",
    ",",
    "\0",
    "\r\n\r\n",
    "\n\n",
    "\r\n ",
    "Host: a\r\n",
    "Content-Length: 1\r\n",
    "/",
    "?",
    "#",
    "*",
    "@",
    "[",
    "]",
    "%",
    "HTTP/1.1",
    "HTTP/2.0",
    "Transfer-Encoding: chunked\r\n",
    "chunked",
    "0",
    "0x",
    "+",
    "-",
    ";",
    "\u{7f}",
    "\u{e4}",
    "http://",
    "65536",
];

/// xorshift64*: the same numbers in each run, so that a failure repeats.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound.max(1)
    }

    fn change(&mut self, bytes: &mut Vec<u8>) {
        let at = self.below(bytes.len() + 1);
        let end = (at + self.below(8)).min(bytes.len());
        match self.below(5) {
            0 if at < bytes.len() => bytes[at] = self.below(256) as u8,
            1 => drop(bytes.drain(at..end)),
            2 => drop(bytes.splice(at..at, PIECES[self.below(PIECES.len())].bytes())),
            3 => drop(bytes.splice(at..end, PIECES[self.below(PIECES.len())].bytes())),
            _ => {
                let copy = bytes[at..end].to_vec();
                let to = self.below(bytes.len() + 1);
                drop(bytes.splice(to..to, copy));
            }
        }
    }
}

fn check_head(input: &[u8], parts: &mut Parts, other: &mut Parts) -> bool {
    let whole = decode(input, &LIMITS, parts);
    let mut scanned = 0;
    let mut pieces = Ok(Decoded::Partial);
    let mut used = 0;
    while pieces == Ok(Decoded::Partial) && used < input.len() {
        used += 1;
        pieces = decode_from(&input[..used], &mut scanned, &LIMITS, other);
    }
    match whole {
        Ok(Decoded::Complete) => {
            check_parts(input, parts);
            let length = parts.length as usize;
            assert_eq!((pieces, used), (Ok(Decoded::Complete), length), "in pieces");
            assert_eq!(other, parts, "in pieces");
            for end in 0..length {
                assert_eq!(decode(&input[..end], &LIMITS, other), Ok(Decoded::Partial), "cut at {end}");
            }
            for tail in [&b""[..], b"\r\n\r\n", b"\0", b"GET / HTTP/1.1\r\n\r\n"] {
                let longer = [&input[..length], tail].concat();
                assert_eq!(decode(&longer, &LIMITS, other), Ok(Decoded::Complete), "with a tail");
                assert_eq!(other, parts, "with a tail");
            }
            true
        }
        Ok(Decoded::Partial) => {
            assert!(input.len() < LIMITS.header_bytes);
            assert_eq!(pieces, Ok(Decoded::Partial), "in pieces");
            false
        }
        // In pieces the refusal may come before the end, for another reason, or wait for the length to double.
        Err(_) => {
            assert_ne!(pieces, Ok(Decoded::Complete), "in pieces");
            false
        }
    }
}

fn check_parts(input: &[u8], parts: &Parts) {
    let within = |span: Span| assert!(span.start <= span.end && span.end <= parts.length);
    assert!(parts.length as usize <= input.len() && parts.length as usize <= LIMITS.header_bytes);
    assert!(parts.fields.len() <= LIMITS.headers);
    let optional = [parts.query, parts.host].into_iter().flatten();
    [parts.method_text, parts.target, parts.path].into_iter().chain(optional).for_each(within);
    let request = Request { bytes: input, parts };
    assert!(request.target().len() <= LIMITS.target_bytes);
    assert!(request.target().iter().all(|byte| byte.is_ascii_graphic()));
    let head = &input[..parts.length as usize];
    assert!(head.ends_with(b"\r\n\r\n"));
    // Every LF has its CR and every CR its LF.
    for (at, &byte) in head.iter().enumerate() {
        assert!(byte != b'\n' || head[at - 1] == b'\r');
        assert!(byte != b'\r' || head[at + 1] == b'\n');
    }
    for (field, (name, value)) in parts.fields.iter().zip(request.fields()) {
        within(field.name);
        within(field.value);
        assert!(crate::http::syntax::is_token(name));
        assert!(value.iter().all(|&byte| crate::http::syntax::is_value_byte(byte)));
        assert_eq!(value, value.trim_ascii());
    }
}

#[test]
fn changed_heads_keep_the_promises() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut parts, mut other) = (Parts::default(), Parts::default());
    let mut complete = 0;
    for round in 0..6_000 {
        let mut input = HEADS[round % HEADS.len()].as_bytes().to_vec();
        for _ in 0..random.below(5) {
            random.change(&mut input);
        }
        complete += usize::from(check_head(&input, &mut parts, &mut other));
    }
    // A test in which all or nothing was accepted would have shown little.
    assert!((600..5_400).contains(&complete), "{complete}");
}

#[test]
fn the_corpus_itself_is_accepted() {
    let (mut parts, mut other) = (Parts::default(), Parts::default());
    for head in HEADS {
        assert!(check_head(head.as_bytes(), &mut parts, &mut other), "{head:?}");
    }
}

/// Data, bytes consumed, and how it ended.
fn run(mut decoder: BodyDecoder, input: &[u8], step: usize) -> (Vec<u8>, usize, Result<bool, Refusal>) {
    let (mut data, mut at, mut end) = (Vec::new(), 0, 0);
    loop {
        match decoder.decode(&input[at..end]) {
            Err(refusal) => return (data, 0, Err(refusal)),
            Ok((consumed, piece)) => {
                at += consumed;
                match piece {
                    Piece::Data(bytes) => data.extend_from_slice(bytes),
                    Piece::End => return (data, at, Ok(true)),
                    Piece::More if end == input.len() => return (data, at, Ok(false)),
                    Piece::More => {
                        assert_eq!(at, end);
                        end = (end + step).min(input.len());
                    }
                }
            }
        }
    }
}

#[test]
fn changed_bodies_keep_the_promises() {
    let mut random = Random(0x0123_4567_89ab_cdef);
    for round in 0..6_000 {
        let mut input = BODIES[round % BODIES.len()].as_bytes().to_vec();
        for _ in 0..random.below(4) {
            random.change(&mut input);
        }
        for (framing, limit) in [(Framing::Chunked, 0), (Framing::Chunked, 12), (Framing::Length(9), 0)] {
            let decoder = BodyDecoder::new(framing, limit).unwrap();
            let whole = run(decoder, &input, input.len().max(1));
            assert!(whole.0.len() <= input.len() && whole.1 <= input.len());
            assert!(limit == 0 || whole.0.len() as u64 <= limit);
            for step in [1, 2, 3, 7] {
                assert_eq!(run(decoder, &input, step), whole);
            }
        }
    }
}
