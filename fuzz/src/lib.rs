//! What each parser of foreign bytes promises, checked on one input: a module and a function `check` for each.
//!
//! Called by libFuzzer with inputs that it makes up (`targets/`) and by `cargo test` with those in `corpus/`, which
//! `tests/corpus.rs` does by including this file. Safe code over the public interface of the server, without a
//! dependency of its own. A broken promise is a panic; what `check` returns is whether the parser took the input.

pub mod accept_encoding;
pub mod body;
pub mod conditional;
pub mod configuration;
pub mod exempt;
pub mod handshake;
pub mod head;
pub mod path;
pub mod range;

use webserver::{
    config::Host,
    http::{Field, Known, Method, OwnedRequest, Parts, Request, Span},
};

/// Any process: what it may use decides defaults of a configuration, not whether its text is read.
const HOST: Host =
    Host { cores: 2, nofile_soft: 1 << 16, nofile_hard: 1 << 20, memory_bytes: 1 << 36, binary: false };

/// One target.
pub type Check = fn(&[u8]) -> bool;

/// Every target under the name of its folder in `corpus/` and of its program.
pub const TARGETS: &[(&str, Check)] = &[
    ("accept_encoding", accept_encoding::check),
    ("body", body::check),
    ("conditional", conditional::check),
    ("configuration", configuration::check),
    ("exempt", exempt::check),
    ("handshake", handshake::check),
    ("head", head::check),
    ("path", path::check),
    ("range", range::check),
];

/// The first line of `input` without its LF, and what follows it. Inputs that need a number or two beside the bytes
/// to parse have them there, as text, so that a corpus can be read and written by hand.
fn first_line(input: &[u8]) -> (&[u8], &[u8]) {
    match input.iter().position(|&byte| byte == b'\n') {
        Some(end) => (&input[..end], &input[end + 1..]),
        None => (input, &[]),
    }
}

/// The number that `text` is, as `str::parse` reads it; 0 for any other text.
fn number(text: &[u8]) -> u64 {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// A request of field lines alone, names and values, as a codec hands it over.
fn request(method: Method, fields: &[(&[u8], &[u8])]) -> OwnedRequest {
    let mut bytes = Vec::new();
    let mut parts = Parts::default();
    parts.method = method;
    for (name, value) in fields {
        let mut add = |text: &[u8]| {
            let start = bytes.len() as u32;
            bytes.extend_from_slice(text);
            Span::new(start, bytes.len() as u32)
        };
        parts.add_field(Field { name: add(name), value: add(value) }, Known::classify(name));
    }
    parts.length = bytes.len() as u32;
    OwnedRequest::from(Request { bytes: &bytes, parts: &parts })
}

/// RFC 9110 5.5: what a codec lets through as the value of a field.
fn is_value(text: &[u8]) -> bool {
    text.iter().all(|&byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f))
}

/// RFC 9110 5.6.2: visible ASCII without delimiters, and not nothing.
fn is_token(text: &[u8]) -> bool {
    let plain = |byte: &u8| byte.is_ascii_graphic() && !b"\"(),/:;<=>?@[\\]{}".contains(byte);
    !text.is_empty() && text.iter().all(plain)
}
