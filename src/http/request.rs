//! A request head as offsets into the bytes it was received in.
//!
//! Offsets survive a copy of the bytes, so a head can be read in place within a turn and copied whole
//! ([`OwnedRequest`]) when the request must wait. Nothing here interprets a field; `Parts` is filled by a codec.

use super::{Known, Method, Version};

/// A part of a request's bytes: `start` up to, not including, `end`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Offset of the first byte.
    pub start: u32,
    /// Offset past the last byte.
    pub end: u32,
}

/// One field line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// The name as sent.
    pub name: Span,
    /// The value without the whitespace around it.
    pub value: Span,
}

/// How the length of a request's body is told (RFC 9112 6.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// No body.
    #[default]
    None,
    /// `Content-Length`, in bytes.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

/// The decoded head of one request, without its bytes.
///
/// One per shard, made by [`Parts::with_capacity`] and filled again for each request, so that decoding
/// allocates nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// The method; its text is in `method_text`.
    pub method: Method,
    /// The version of the request line.
    pub version: Version,
    /// The method as sent.
    pub method_text: Span,
    /// The whole request target as sent.
    pub target: Span,
    /// The path of the target, percent-encoding kept: `/` for an absolute target without a path, `*` for the
    /// asterisk form, empty for `CONNECT`.
    pub path: Span,
    /// What follows the first `?` of the target.
    pub query: Option<Span>,
    /// Host and optional port: from an absolute target, else from `Host`. Absent in HTTP/1.0 without one.
    pub host: Option<Span>,
    /// All field lines in the order sent.
    pub fields: Vec<Field>,
    /// How the body is framed.
    pub framing: Framing,
    /// Whether the connection may carry another request after this one.
    pub keep_alive: bool,
    /// The client waits for `100 Continue` before it sends the body.
    pub expect_continue: bool,
    /// Length of the head in bytes, the empty line included.
    pub length: u32,
    /// Index of the first line of each known field, plus one; 0 is absent. 1024 lines at most, so 16 bits do.
    known: [u16; Known::COUNT],
    /// A bit for each known field that has more than one line.
    repeated: u32,
}

/// A request head: bytes and the parts that were found in them. Two words, passed by value.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// What was received. The head is at its start; what follows is the body or the next request.
    pub bytes: &'a [u8],
    /// The parts of exactly these bytes.
    pub parts: &'a Parts,
}

/// A copy of a request head that outlives the buffer it was received in: two allocations.
#[derive(Clone, Debug)]
pub struct OwnedRequest {
    bytes: Box<[u8]>,
    parts: Parts,
}

impl Span {
    /// The span from `start` up to `end`.
    #[inline]
    pub fn new(start: u32, end: u32) -> Span {
        Span { start, end }
    }

    /// The bytes of this span; empty when `bytes` are not those it was made for.
    #[inline]
    pub fn of(self, bytes: &[u8]) -> &[u8] {
        bytes.get(self.start as usize..self.end as usize).unwrap_or_default()
    }
}

impl Framing {
    /// Whether at least one byte of body or framing follows the head.
    #[inline]
    pub fn has_body(self) -> bool {
        !matches!(self, Framing::None | Framing::Length(0))
    }
}

impl Parts {
    /// Parts with room for `fields` field lines, the limit that heads are decoded with.
    pub fn with_capacity(fields: usize) -> Parts {
        Parts { fields: Vec::with_capacity(fields), ..Parts::default() }
    }

    /// Forgets the request; keeps the memory.
    #[inline]
    pub fn clear(&mut self) {
        self.fields.clear();
        let fields = std::mem::take(&mut self.fields);
        *self = Parts { fields, ..Parts::default() };
    }

    /// Adds one field line and notes it when its name is a [`Known`] one. Lines past 65,534 are not noted.
    #[inline]
    pub fn add_field(&mut self, field: Field, known: Option<Known>) {
        self.fields.push(field);
        if let Some(known) = known {
            let first = &mut self.known[known as usize];
            if *first == 0 {
                *first = u16::try_from(self.fields.len()).unwrap_or(0);
            } else {
                self.repeated |= 1 << known as u32;
            }
        }
    }

    /// The value of the first line of a known field.
    #[inline]
    pub fn field(&self, known: Known) -> Option<Span> {
        let index = usize::from(self.known[known as usize]).checked_sub(1)?;
        self.fields.get(index).map(|field| field.value)
    }

    /// Whether a known field has more than one line.
    #[inline]
    pub fn repeated(&self, known: Known) -> bool {
        self.repeated & (1 << known as u32) != 0
    }
}

impl<'a> Request<'a> {
    /// The method.
    #[inline]
    pub fn method(self) -> Method {
        self.parts.method
    }

    /// The method as sent.
    #[inline]
    pub fn method_text(self) -> &'a [u8] {
        self.parts.method_text.of(self.bytes)
    }

    /// The version of the request line.
    #[inline]
    pub fn version(self) -> Version {
        self.parts.version
    }

    /// The whole request target as sent.
    #[inline]
    pub fn target(self) -> &'a [u8] {
        self.parts.target.of(self.bytes)
    }

    /// The path, percent-encoding kept; see [`Parts::path`].
    #[inline]
    pub fn path(self) -> &'a [u8] {
        self.parts.path.of(self.bytes)
    }

    /// What follows the first `?` of the target.
    #[inline]
    pub fn query(self) -> Option<&'a [u8]> {
        self.parts.query.map(|span| span.of(self.bytes))
    }

    /// Host and optional port as sent.
    #[inline]
    pub fn host(self) -> Option<&'a [u8]> {
        self.parts.host.map(|span| span.of(self.bytes))
    }

    /// The value of the first line of a known field, without a search.
    #[inline]
    pub fn field(self, known: Known) -> Option<&'a [u8]> {
        self.parts.field(known).map(|span| span.of(self.bytes))
    }

    /// Whether a known field has more than one line.
    #[inline]
    pub fn repeated(self, known: Known) -> bool {
        self.parts.repeated(known)
    }

    /// The values of all lines of a known field in the order sent. Names are compared only if it is repeated.
    #[inline]
    pub fn fields_named(self, known: Known) -> impl Iterator<Item = &'a [u8]> {
        let first = usize::from(self.parts.known[known as usize]);
        let count = match (first, self.repeated(known)) {
            (0, _) => 0,
            (_, false) => 1,
            (_, true) => usize::MAX,
        };
        self.parts
            .fields
            .iter()
            .skip(first.saturating_sub(1))
            .take(count)
            .filter(move |field| count == 1 || Known::classify(field.name.of(self.bytes)) == Some(known))
            .map(move |field| field.value.of(self.bytes))
    }

    /// The value of the first line with this name, in any case. Searches all lines.
    pub fn header(self, name: &str) -> Option<&'a [u8]> {
        self.fields().find(|(text, _)| text.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
    }

    /// Names and values of all field lines in the order sent.
    #[inline]
    pub fn fields(self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone {
        self.parts.fields.iter().map(move |field| (field.name.of(self.bytes), field.value.of(self.bytes)))
    }
}

impl OwnedRequest {
    /// The request, to be read like one that was received this turn.
    #[inline]
    pub fn as_request(&self) -> Request<'_> {
        Request { bytes: &self.bytes, parts: &self.parts }
    }
}

impl From<Request<'_>> for OwnedRequest {
    /// Copies the head; bytes that follow it stay behind.
    fn from(request: Request<'_>) -> Self {
        let head = Span::new(0, request.parts.length).of(request.bytes);
        OwnedRequest { bytes: head.into(), parts: request.parts.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parts of `name: value\r\n` lines alone.
    fn lines(bytes: &[u8]) -> Parts {
        let mut parts = Parts::with_capacity(8);
        let mut start = 0;
        for line in bytes.split_inclusive(|&byte| byte == b'\n') {
            let colon = line.iter().position(|&byte| byte == b':').unwrap() as u32;
            let name = Span::new(start, start + colon);
            let value = Span::new(start + colon + 2, start + line.len() as u32 - 2);
            parts.add_field(Field { name, value }, Known::classify(name.of(bytes)));
            start += line.len() as u32;
        }
        parts.length = start;
        parts
    }

    #[test]
    fn fields_are_found_by_kind_and_by_name() {
        let bytes = b"X-A: 1\r\nHOST: h\r\nx-a: 2\r\n";
        let parts = lines(bytes);
        let request = Request { bytes, parts: &parts };
        assert_eq!(request.field(Known::Host), Some(&b"h"[..]));
        assert_eq!(request.field(Known::Range), None);
        assert_eq!(request.header("x-A"), Some(&b"1"[..]));
        assert_eq!(request.header("x-b"), None);
        assert_eq!(request.fields().count(), 3);
        assert!(!request.repeated(Known::Host));
    }

    #[test]
    fn all_lines_of_a_repeated_field_are_seen() {
        let bytes = b"If-Match: a\r\nHost: h\r\nif-match: b\r\nCookie: c\r\nIF-MATCH: c\r\n";
        let parts = lines(bytes);
        let request = Request { bytes, parts: &parts };
        assert!(request.repeated(Known::IfMatch));
        let all: Vec<&[u8]> = request.fields_named(Known::IfMatch).collect();
        assert_eq!(all, [&b"a"[..], b"b", b"c"]);
        assert_eq!(request.fields_named(Known::Host).collect::<Vec<_>>(), [&b"h"[..]]);
        assert_eq!(request.fields_named(Known::Range).count(), 0);
    }

    #[test]
    fn a_copy_outlives_the_buffer() {
        let mut bytes = b"Host: h\r\nBODY".to_vec();
        let mut parts = lines(&bytes[..9]);
        let owned = OwnedRequest::from(Request { bytes: &bytes, parts: &parts });
        bytes.fill(0);
        parts.clear();
        assert_eq!(owned.as_request().field(Known::Host), Some(&b"h"[..]));
        assert_eq!(owned.as_request().bytes, b"Host: h\r\n");
    }

    #[test]
    fn clearing_forgets_everything_and_keeps_the_memory() {
        let mut parts = lines(b"Host: h\r\nHost: h\r\n");
        let capacity = parts.fields.capacity();
        parts.clear();
        assert_eq!(parts, Parts::default());
        assert_eq!(parts.fields.capacity(), capacity);
        assert_eq!(parts.field(Known::Host), None);
        assert!(!parts.repeated(Known::Host));
    }

    #[test]
    fn a_span_of_other_bytes_is_empty() {
        assert_eq!(Span::new(2, 9).of(b"abc"), b"");
        assert_eq!(Span::new(2, 1).of(b"abc"), b"");
    }
}
