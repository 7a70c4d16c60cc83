//! The head of a request: from bytes to [`Parts`], or to the reason why not.
//!
//! httparse splits the lines and checks the bytes of names and values. What it tolerates and we do not is
//! checked here: bare LF, many empty lines, bytes of the target. Nothing is kept between calls but the caller's
//! count of bytes that were looked at.

use std::mem::MaybeUninit;

use super::{Refusal, fields, target};
use crate::http::{
    Field, Known, Method, Parts, Request, Span, Version,
    syntax::{is_token_byte, is_value_byte},
};

/// Bounds on one request head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Request line and fields together, empty lines before them included, in bytes.
    pub header_bytes: usize,
    /// Number of field lines, 1024 at most.
    pub headers: usize,
    /// Length of the request target in bytes.
    pub target_bytes: usize,
}

/// How far a head was understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// Nothing is wrong so far and the end is not there yet.
    Partial,
    /// The head is whole; [`Parts::length`] bytes long.
    Complete,
}

/// Empty lines that are skipped before a request line. RFC 9112 2.2 asks for one; old clients send one after a body.
const EMPTY_LINES_MAX: usize = 4;

/// A longer method is refused with 501 (RFC 9112 3), even before its end is seen.
const METHOD_BYTES_MAX: usize = 64;

/// Field lines that fit the small array on the stack, 4 KB of it.
const FIELDS_FEW: usize = 128;

/// Field lines that fit the large one, 32 KB.
const FIELDS_MAX: usize = 1024;

type Tokens<'h, 'b> = httparse::Request<'h, 'b>;

/// Decodes the request head at the start of `input`.
///
/// `parts` is filled anew and allocates nothing when it has room for `limits.headers` fields; all its spans
/// count from the start of `input`. After a refusal it holds method and target as far as they were seen, for
/// the log. Only the first `limits.header_bytes` bytes are looked at, so one call costs no more than
/// that; a client that sends byte by byte makes the sum of the calls quadratic, which [`decode_from`] avoids.
///
/// # Errors
/// The first reason found why this can never become an acceptable request.
#[inline]
pub fn decode(input: &[u8], limits: &Limits, parts: &mut Parts) -> Result<Decoded, Refusal> {
    if limits.headers <= FIELDS_FEW {
        decode_into::<FIELDS_FEW>(input, limits, parts)
    } else {
        decode_many(input, limits, parts)
    }
}

/// Like [`decode`], for a head that arrives in pieces: `scanned` is 0 for a new request and is kept between
/// calls with the same, grown `input`.
///
/// Decodes on the first call, then only when the end of a head has arrived, when the input has doubled, or
/// when it reaches the limit; other calls just look at the new bytes for an empty line. So all calls together
/// cost a small multiple of the input, and what is wrong in a piece may be refused up to twice as late.
pub fn decode_from(
    input: &[u8],
    scanned: &mut u32,
    limits: &Limits,
    parts: &mut Parts,
) -> Result<Decoded, Refusal> {
    let seen = *scanned as usize;
    if seen != 0 && input.len() < limits.header_bytes && !is_worth_decoding(input, seen) {
        *scanned = input.len() as u32;
        return Ok(Decoded::Partial);
    }
    let decoded = decode(input, limits, parts)?;
    *scanned = if decoded == Decoded::Complete { 0 } else { u32::try_from(input.len()).unwrap_or(u32::MAX) };
    Ok(decoded)
}

/// Whether there may be news in what follows the first `seen` bytes: an empty line, or a doubled length.
fn is_worth_decoding(input: &[u8], seen: usize) -> bool {
    if input.len() <= seen {
        return input.len() < seen;
    }
    // An empty line whose last byte is new begins at most two bytes before the new ones. One that ends with
    // a bare LF ends a head for httparse, so it must be seen too, to be refused.
    let tail = &input[seen.saturating_sub(2)..];
    input.len().ilog2() > seen.ilog2()
        || tail.windows(2).any(|pair| pair == b"\n\n")
        || tail.windows(3).any(|three| three == b"\n\r\n")
}

/// The case of a configuration that allows more fields than usual: 32 KB of stack, in a frame of its own.
#[cold]
#[inline(never)]
fn decode_many(input: &[u8], limits: &Limits, parts: &mut Parts) -> Result<Decoded, Refusal> {
    decode_into::<FIELDS_MAX>(input, limits, parts)
}

#[inline]
fn decode_into<const N: usize>(input: &[u8], limits: &Limits, parts: &mut Parts) -> Result<Decoded, Refusal> {
    parts.clear();
    let window = &input[..input.len().min(limits.header_bytes).min(u32::MAX as usize)];
    let start = skip_empty_lines(window)?;
    let mut lines = [const { MaybeUninit::uninit() }; N];
    let mut tokens = Tokens::new(&mut []);
    let lines = &mut lines[..limits.headers.min(N)];
    match tokens.parse_with_uninit_headers(&window[start..], lines) {
        Ok(httparse::Status::Complete(length)) => {
            accept(&window[..start + length], &tokens, limits, parts)?;
            Ok(Decoded::Complete)
        }
        Ok(httparse::Status::Partial) => {
            note_request_line(window, &tokens, parts);
            match refuse_partial(&window[start..], window.len() < limits.header_bytes, &tokens, limits) {
                None => Ok(Decoded::Partial),
                Some(refusal) => Err(refusal),
            }
        }
        Err(error) => {
            note_request_line(window, &tokens, parts);
            Err(explain(error, window, &tokens, limits))
        }
    }
}

/// Length of the empty lines at the start. A lone CR at the end of the input is left to the next call.
#[inline]
fn skip_empty_lines(window: &[u8]) -> Result<usize, Refusal> {
    let mut start = 0;
    while let [b'\r', b'\n', ..] = window[start..] {
        start += 2;
        if start > 2 * EMPTY_LINES_MAX {
            return Err(Refusal::EmptyLines);
        }
    }
    // RFC 9112 2.2 lets a recipient take a bare LF as a line end. Two recipients that differ in it read two
    // different requests, so we do not.
    if window.get(start) == Some(&b'\n') { Err(Refusal::LineEnding) } else { Ok(start) }
}

/// Fills `parts` from the tokens of a whole head, or says why it is not accepted.
#[inline]
fn accept(head: &[u8], tokens: &Tokens<'_, '_>, limits: &Limits, parts: &mut Parts) -> Result<(), Refusal> {
    note_request_line(head, tokens, parts);
    if parts.method_text.of(head).len() > METHOD_BYTES_MAX {
        return Err(Refusal::MethodTooLong);
    }
    let target = parts.target.of(head);
    if target.len() > limits.target_bytes {
        return Err(Refusal::TargetTooLong);
    }
    parts.version = if tokens.version == Some(0) { Version::Http10 } else { Version::Http11 };
    parts.length = head.len() as u32;
    for line in tokens.headers.iter() {
        let name = span_of(head, line.name.as_bytes());
        // httparse takes a bare LF as a line end. A name begins right behind the LF of the line before.
        if !ends_line(head, name.start as usize) {
            return Err(Refusal::LineEnding);
        }
        let known = Known::classify(line.name.as_bytes());
        parts.add_field(Field { name, value: span_of(head, line.value) }, known);
    }
    if !head.ends_with(b"\r\n\r\n") {
        return Err(Refusal::LineEnding);
    }

    let target = target::split(target, parts.target.start, parts.method)?;
    parts.path = target.path;
    parts.query = target.query;
    let request = Request { bytes: head, parts };
    fields::host(request)?;
    // RFC 9112 3.2.2: the host of an absolute target MUST replace that of the field.
    let host = target.authority.or(parts.field(Known::Host));
    let framing = fields::framing(request)?;
    let keep_alive = fields::keep_alive(request);
    // RFC 9110 10.1.1: a server may omit the 100 when there is no body to wait for.
    let expect_continue = fields::expects_continue(request)? && framing.has_body();
    parts.host = host;
    parts.framing = framing;
    parts.keep_alive = keep_alive;
    parts.expect_continue = expect_continue;
    Ok(())
}

/// Whether the line before offset `at` ends with CR LF.
#[inline]
fn ends_line(head: &[u8], at: usize) -> bool {
    at.checked_sub(2).and_then(|start| head.get(start..at)) == Some(b"\r\n")
}

/// Notes method and target, as far as they were seen.
#[inline]
fn note_request_line(window: &[u8], tokens: &Tokens<'_, '_>, parts: &mut Parts) {
    if let Some(method) = tokens.method {
        parts.method_text = span_of(window, method.as_bytes());
        parts.method = Method::from_text(method.as_bytes());
    }
    if let Some(target) = tokens.path {
        parts.target = span_of(window, target.as_bytes());
    }
}

/// Where `part`, a slice of `whole`, lies in it.
#[inline]
fn span_of(whole: &[u8], part: &[u8]) -> Span {
    let start = part.as_ptr().addr().wrapping_sub(whole.as_ptr().addr());
    debug_assert!(start + part.len() <= whole.len());
    Span::new(start as u32, (start + part.len()) as u32)
}

/// Whether an incomplete head is already too large. `text` begins at the request line; `has_room` tells that
/// more bytes may come.
#[cold]
fn refuse_partial(text: &[u8], has_room: bool, tokens: &Tokens<'_, '_>, limits: &Limits) -> Option<Refusal> {
    let (method, target) = match (tokens.method, tokens.path) {
        // No space yet: all of the text is method.
        (None, _) => (text.len(), 0),
        // No second space yet: all that follows the method is target.
        (Some(method), None) => (method.len(), text.len() - method.len() - 1),
        (Some(method), Some(target)) => (method.len(), target.len()),
    };
    if method > METHOD_BYTES_MAX {
        Some(Refusal::MethodTooLong)
    } else if target > limits.target_bytes {
        Some(Refusal::TargetTooLong)
    } else if !has_room {
        Some(Refusal::HeadTooLarge)
    } else {
        None
    }
}

/// The reason behind an error of httparse, which names the token but not what is wrong with it.
#[cold]
fn explain(error: httparse::Error, window: &[u8], tokens: &Tokens<'_, '_>, limits: &Limits) -> Refusal {
    match error {
        httparse::Error::Token if tokens.method.is_none() => Refusal::MethodMalformed,
        httparse::Error::Token => Refusal::TargetMalformed,
        httparse::Error::Version => {
            let target = span_of(window, tokens.path.unwrap_or_default().as_bytes());
            // RFC 9112 2.3: `HTTP/` DIGIT `.` DIGIT. A well-formed other version is 505 (RFC 9110 15.6.6).
            match window.get(target.end as usize + 1..).and_then(|rest| rest.strip_prefix(b"HTTP/")) {
                Some([b'0'..=b'9']) => Refusal::VersionUnsupported,
                Some([b'0'..=b'9', b'.', rest @ ..]) if rest.first().is_none_or(u8::is_ascii_digit) => {
                    Refusal::VersionUnsupported
                }
                _ => Refusal::VersionMalformed,
            }
        }
        httparse::Error::HeaderName | httparse::Error::HeaderValue => explain_fields(window, tokens),
        httparse::Error::TooManyHeaders
            if tokens.path.is_some_and(|path| path.len() > limits.target_bytes) =>
        {
            Refusal::TargetTooLong
        }
        httparse::Error::TooManyHeaders => Refusal::TooManyFields,
        httparse::Error::NewLine | httparse::Error::Status => Refusal::LineEnding,
    }
}

/// Finds the first field line that is not well formed. The last line may be cut off anywhere.
fn explain_fields(window: &[u8], tokens: &Tokens<'_, '_>) -> Refusal {
    let target = span_of(window, tokens.path.unwrap_or_default().as_bytes());
    let lines = window[target.end as usize..].split_inclusive(|&byte| byte == b'\n').skip(1);
    for line in lines {
        if matches!(line, [b' ' | b'\t', ..]) {
            return Refusal::FieldFolded;
        }
        let is_cut = !line.ends_with(b"\n");
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        // Without an LF, a CR at the end may be the first half of a line end.
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        let end = text.iter().position(|&byte| !is_token_byte(byte)).unwrap_or(text.len());
        match text[end..] {
            [] if is_cut || text.is_empty() => {}
            [b':', ref value @ ..] if end > 0 => {
                if value.contains(&b'\r') {
                    return Refusal::LineEnding;
                }
                if !value.iter().all(|&byte| is_value_byte(byte)) {
                    return Refusal::FieldValue;
                }
            }
            [b' ' | b'\t', ref rest @ ..] if end > 0 && rest.trim_ascii_start().first() == Some(&b':') => {
                return Refusal::FieldNameSpace;
            }
            _ => return Refusal::FieldName,
        }
    }
    Refusal::FieldName
}

#[cfg(test)]
mod tests;
