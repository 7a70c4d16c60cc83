//! A file's answer to a `Range` that counts (RFC 9110 14): one part, several, or that there is none.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    rc::Rc,
};

use bytes::Bytes;

use super::{Body, Entity, Response};
use crate::{
    files::OpenFile,
    http::{
        Status,
        multipart::{Multipart, part_overhead_bytes},
        range::{self, ByteRange, RangeSet, Selected},
    },
};

/// The 206 or the 416; `None` when the whole file is the answer.
pub(super) fn respond(range: &[u8], file: &Rc<OpenFile>) -> Option<Response> {
    let size = file.size();
    match range::select(range, size, part_overhead_bytes(file.media_type().len(), size)) {
        Selected::Whole => None,
        Selected::One(range) => Some(one_part(range, file)),
        // Whether the parts or the multipart would be what `Content-Encoding` is about is not said anywhere.
        Selected::Several(_) if file.is_coded() => None,
        Selected::Several(ranges) => Some(several_parts(&ranges, file)),
        Selected::Unsatisfiable => {
            let mut response = Response::page(Status::RANGE_NOT_SATISFIABLE);
            response.push_field("Content-Range", format!("bytes */{size}").as_bytes());
            Some(response)
        }
    }
}

fn one_part(range: ByteRange, file: &Rc<OpenFile>) -> Response {
    let ByteRange { first, last } = range;
    let mut response = Response::new(Status::PARTIAL_CONTENT);
    response.push_field("Content-Range", format!("bytes {first}-{last}/{}", file.size()).as_bytes());
    response.entity = Some(Entity::Part(Rc::clone(file)));
    response.body = Body::File { file: Rc::clone(file), offset: first, length: range.length() };
    response
}

/// RFC 9110 15.3.7.2: the head of such a response MUST NOT have a `Content-Range`; its type is the multipart's.
fn several_parts(ranges: &RangeSet, file: &Rc<OpenFile>) -> Response {
    let parts = Multipart::new(ranges, file.size(), file.media_type(), random());
    let mut response = Response::new(Status::PARTIAL_CONTENT);
    response.push_field("Content-Type", &parts.content_type());
    response.push_field("Accept-Ranges", b"bytes");
    response.entity = Some(Entity::Validators(Rc::clone(file)));
    response.body = match file.content() {
        Some(content) => Body::Shared(join(parts, content)),
        None => Body::Multipart { file: Rc::clone(file), parts: Box::new(parts) },
    };
    response
}

/// The body as one piece of memory: a file whose content is kept is small, and its parts are less than the whole.
fn join(mut parts: Multipart, content: &[u8]) -> Bytes {
    let mut body = Vec::with_capacity(usize::try_from(parts.length()).unwrap_or(0));
    loop {
        let (text, range) = parts.advance();
        body.extend_from_slice(text);
        let Some(ByteRange { first, last }) = range else { return Bytes::from(body) };
        let bounds = usize::try_from(first).ok().zip(usize::try_from(last).ok());
        body.extend_from_slice(
            bounds.and_then(|(first, last)| content.get(first..=last)).unwrap_or_default(),
        );
    }
}

/// 64 bits that nobody outside can foresee, different each time: SipHash under keys that the standard library takes
/// from the kernel once a thread and changes with each use. No system call, no state of ours.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boundaries_differ_from_response_to_response() {
        let drawn: std::collections::BTreeSet<u64> = (0..1000).map(|_| random()).collect();
        assert_eq!(drawn.len(), 1000);
    }
}
