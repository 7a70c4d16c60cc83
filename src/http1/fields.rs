//! The fields that decide about the connection: `Host`, `Content-Length`, `Transfer-Encoding`, `Connection`
//! and `Expect`.
//!
//! Each function reads a head whose field lines are already well formed and answers one question.

use super::{Refusal, target};
use crate::http::{
    Framing, Known, Request, Version,
    syntax::{decimal, elements, is_token},
};

/// Checks the `Host` field: a server MUST answer 400 when it is missing from HTTP/1.1, repeated or invalid
/// (RFC 9112 3.2).
#[inline]
pub(super) fn host(request: Request<'_>) -> Result<(), Refusal> {
    match request.field(Known::Host) {
        Some(_) if request.repeated(Known::Host) => Err(Refusal::HostRepeated),
        Some(value) => match target::authority(value) {
            Some(_) => Ok(()),
            None => Err(Refusal::HostMalformed),
        },
        None if request.version() == Version::Http10 => Ok(()),
        None => Err(Refusal::HostMissing),
    }
}

/// How the body is framed (RFC 9112 6.3). Whatever could be read in two ways is refused: that is how requests
/// are smuggled past a server in front.
#[inline]
pub(super) fn framing(request: Request<'_>) -> Result<Framing, Refusal> {
    let length = request.field(Known::ContentLength);
    if request.field(Known::TransferEncoding).is_some() {
        // RFC 9112 6.1: both together ought to be handled as an error, and so does a coding in HTTP/1.0.
        if length.is_some() {
            return Err(Refusal::LengthAndCoding);
        }
        if request.version() == Version::Http10 {
            return Err(Refusal::CodingInHttp10);
        }
        return transfer_coding(request);
    }
    match length {
        None => Ok(Framing::None),
        Some(_) if request.repeated(Known::ContentLength) => Err(Refusal::LengthRepeated),
        // RFC 9112 6.3: an invalid length is an unrecoverable error. A list of equal numbers may be refused.
        Some(text) => decimal(text).map(Framing::Length).ok_or(Refusal::LengthMalformed),
    }
}

/// Whether the connection may be used again (RFC 9112 9.3): `close` wins, else HTTP/1.1 keeps it and HTTP/1.0
/// keeps it when asked to.
#[inline]
pub(super) fn keep_alive(request: Request<'_>) -> bool {
    let mut keep = request.version() >= Version::Http11;
    if request.field(Known::Connection).is_some() {
        for option in request.fields_named(Known::Connection).flat_map(elements) {
            if option.eq_ignore_ascii_case(b"close") {
                return false;
            }
            keep |= option.eq_ignore_ascii_case(b"keep-alive");
        }
    }
    keep
}

/// Whether the client waits for `100 Continue`. An expectation in HTTP/1.0 MUST be ignored (RFC 9110 10.1.1);
/// any other expectation is answered with 417.
#[inline]
pub(super) fn expects_continue(request: Request<'_>) -> Result<bool, Refusal> {
    if request.field(Known::Expect).is_none() || request.version() == Version::Http10 {
        return Ok(false);
    }
    let known = |value: &[u8]| value.eq_ignore_ascii_case(b"100-continue");
    if request.fields_named(Known::Expect).flat_map(elements).all(known) {
        Ok(true)
    } else {
        Err(Refusal::Expectation)
    }
}

/// Reads all `Transfer-Encoding` lines as one list. Only `chunked` alone is accepted. A list that does not end
/// with `chunked` MUST be answered with 400 (RFC 9112 6.3), an unknown coding in front of it with 501 (6.1).
fn transfer_coding(request: Request<'_>) -> Result<Framing, Refusal> {
    let (mut chunked, mut unknown) = (false, false);
    for coding in request.fields_named(Known::TransferEncoding).flat_map(elements) {
        // Parameters may follow a coding's name; chunked has none (RFC 9112 7).
        let name = coding.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii_end();
        if !is_token(name) {
            return Err(Refusal::CodingMalformed);
        }
        if chunked {
            return Err(Refusal::CodingNotFinal);
        }
        if name.eq_ignore_ascii_case(b"chunked") {
            if name.len() != coding.len() {
                return Err(Refusal::CodingMalformed);
            }
            chunked = true;
        } else {
            unknown = true;
        }
    }
    match (chunked, unknown) {
        (true, false) => Ok(Framing::Chunked),
        (true, true) => Err(Refusal::CodingUnknown),
        (false, _) => Err(Refusal::CodingNotFinal),
    }
}
