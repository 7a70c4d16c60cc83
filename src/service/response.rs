//! A response as its parts: a status, header fields already rendered, and a description of the body.

use std::rc::Rc;

use bytes::Bytes;

use super::Freshness;
use crate::{
    files::OpenFile,
    http::{Status, multipart::Multipart, syntax},
};

/// Fields about the message and its connection, which the codec writes: a second one would contradict it.
const OWN_FIELDS: [&[u8]; 8] = [
    b"connection",
    b"content-length",
    b"date",
    b"keep-alive",
    b"proxy-connection",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
];

/// What a handler answers. The codec of the connection's version turns it into bytes.
#[derive(Debug)]
pub struct Response {
    /// The status code.
    pub status: Status,
    /// Header fields that belong to a file.
    pub entity: Option<Entity>,
    /// Header fields of the route.
    pub route_fields: RouteFields,
    /// What is said to caches about a file.
    pub freshness: Option<Rc<Freshness>>,
    /// Fields of this response alone, each ending in CRLF. Empty costs nothing.
    pub fields: Vec<u8>,
    /// What follows the head.
    pub body: Body,
}

/// Header fields that a route adds to each of its responses, rendered once.
#[derive(Clone, Debug, Default)]
pub struct RouteFields {
    /// Those of the configuration.
    pub headers: Option<Rc<[u8]>>,
    /// What pages of other origins are told.
    pub cors: Option<Rc<[u8]>>,
    /// What browsers are told about TLS; absent without it.
    pub hsts: Option<Rc<[u8]>>,
}

/// Which of a file's pre-rendered header fields are sent.
#[derive(Debug)]
pub enum Entity {
    /// All, `Content-Length` included: the whole file is the body.
    Whole(Rc<OpenFile>),
    /// All but the length: a part of it is.
    Part(Rc<OpenFile>),
    /// The validators alone: for a 304 (RFC 9110 15.4.5), and where the body has a type of its own.
    Validators(Rc<OpenFile>),
    /// No file: the type of the built-in text of a status.
    Text,
}

/// What follows the head. A handler describes it; the shard's sender moves it.
#[derive(Debug)]
pub enum Body {
    /// Nothing, and no `Content-Length` where the status forbids one.
    Empty,
    /// Bytes of the program.
    Static(&'static [u8]),
    /// Bytes in memory, shared by reference count.
    Shared(Bytes),
    /// Bytes of a cache, which has reserved memory for them.
    Cached(Bytes),
    /// Bytes of this response alone; see [`super::Context::buffer`].
    Owned(Vec<u8>),
    /// `length` bytes of a file from `offset`.
    File {
        /// The open file; it stays open until the last byte is sent.
        file: Rc<OpenFile>,
        /// First byte.
        offset: u64,
        /// Number of bytes, inside the file's size when it was opened.
        length: u64,
    },
    /// Several parts of a file, with text around them.
    Multipart {
        /// The open file; it stays open until the last part is sent.
        file: Rc<OpenFile>,
        /// The parts, each inside the file's size when it was opened; none was taken yet.
        parts: Box<Multipart>,
    },
}

impl Body {
    /// Bytes that will be sent.
    pub fn length(&self) -> u64 {
        match self {
            Body::Empty => 0,
            Body::Static(bytes) => bytes.len() as u64,
            Body::Shared(bytes) | Body::Cached(bytes) => bytes.len() as u64,
            Body::Owned(bytes) => bytes.len() as u64,
            Body::File { length, .. } => *length,
            Body::Multipart { parts, .. } => parts.length(),
        }
    }
}

impl Response {
    /// A response without body and fields.
    pub fn new(status: Status) -> Self {
        Response {
            status,
            entity: None,
            route_fields: RouteFields::default(),
            freshness: None,
            fields: Vec::new(),
            body: Body::Empty,
        }
    }

    /// A plain-text page that says the status, for errors.
    pub fn page(status: Status) -> Self {
        let mut response = Response::new(status);
        response.entity = Some(Entity::Text);
        response.body = Body::Shared(Bytes::from(format!("{} {}\n", status.code(), status.reason())));
        response
    }

    /// 503 for what may well be possible in a moment (RFC 9110 15.6.4).
    pub fn unavailable() -> Self {
        let mut response = Response::page(Status::SERVICE_UNAVAILABLE);
        response.push_field("Retry-After", b"1");
        response
    }

    /// A response with a body of the program.
    pub fn fixed(status: Status, content_type: &str, body: &'static [u8]) -> Self {
        let mut response = Response::new(status);
        response.push_field("Content-Type", content_type.as_bytes());
        response.body = Body::Static(body);
        response
    }

    /// Adds a field. Bytes that would end the line are left out, so that a value cannot add another field.
    pub fn push_field(&mut self, name: &str, value: &[u8]) {
        self.fields.extend_from_slice(name.as_bytes());
        self.fields.extend_from_slice(b": ");
        self.fields.extend(value.iter().filter(|byte| !matches!(byte, b'\r' | b'\n' | 0)));
        self.fields.extend_from_slice(b"\r\n");
    }

    /// Whether a handler of the host's may add this field: its name is a token (RFC 9110 5.1), its value holds no control
    /// character, and the server does not write it itself.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check_field(name: &[u8], value: &[u8]) -> Result<(), &'static str> {
        if !syntax::is_token(name) {
            return Err("the name of the header field is not a token");
        }
        if OWN_FIELDS.iter().any(|own| name.eq_ignore_ascii_case(own)) {
            return Err("the header field is the server's own");
        }
        if !value.iter().all(|&byte| syntax::is_value_byte(byte)) {
            return Err("the value of the header field holds a control character");
        }
        Ok(())
    }

    /// The pre-rendered fields of the file, if any.
    pub fn entity_fields(&self) -> &[u8] {
        match &self.entity {
            None => &[],
            Some(Entity::Text) => b"Content-Type: text/plain; charset=utf-8\r\n",
            Some(Entity::Whole(file)) => file.head_full(),
            Some(Entity::Part(file)) => file.head_without_length(),
            Some(Entity::Validators(file)) => file.validators(),
        }
    }

    /// The value of the `Content-Length` field that the codec must still add: none where the file's fields have
    /// it, and none for statuses without content (RFC 9110 8.6).
    pub fn content_length(&self) -> Option<u64> {
        match (&self.entity, self.status.code()) {
            (Some(Entity::Whole(_)), _) | (_, 100..=199 | 204 | 304) => None,
            _ => Some(self.body.length()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_of_a_handler_cannot_add_another_or_contradict_the_server() {
        for (name, value) in [("X-A", "b c\td"), ("content-type", ""), ("Etag", "\"ü\"")] {
            assert_eq!(Response::check_field(name.as_bytes(), value.as_bytes()), Ok(()), "{name}");
        }
        for (name, value) in [
            ("", "a"),
            ("a b", "c"),
            ("a:", "b"),
            ("a\r\nb", "c"),
            ("a", "b\r\nc: d"),
            ("a", "b\nc"),
            ("a", "b\0"),
            ("a", "\u{7f}"),
            ("Content-LENGTH", "1"),
            ("transfer-encoding", "chunked"),
            ("Connection", "close"),
            ("Date", "now"),
            ("Upgrade", "h2c"),
        ] {
            assert!(Response::check_field(name.as_bytes(), value.as_bytes()).is_err(), "{name:?} {value:?}");
        }
    }

    #[test]
    fn the_servers_own_fields_are_written_in_lower_case() {
        assert!(OWN_FIELDS.iter().all(|name| !name.iter().any(u8::is_ascii_uppercase)));
    }
}
