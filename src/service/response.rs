//! A response as its parts: a status, header fields already rendered, and a description of the body.

use std::rc::Rc;

use bytes::Bytes;

use crate::{
    files::OpenFile,
    http::{Status, multipart::Multipart},
};

/// What a handler answers. The codec of the connection's version turns it into bytes.
#[derive(Debug)]
pub struct Response {
    /// The status code.
    pub status: Status,
    /// Header fields that belong to a file.
    pub entity: Option<Entity>,
    /// Header fields of the route, rendered once.
    pub route_fields: Option<Rc<[u8]>>,
    /// Fields of this response alone, each ending in CRLF. Empty costs nothing.
    pub fields: Vec<u8>,
    /// What follows the head.
    pub body: Body,
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
            Body::Shared(bytes) => bytes.len() as u64,
            Body::File { length, .. } => *length,
            Body::Multipart { parts, .. } => parts.length(),
        }
    }
}

impl Response {
    /// A response without body and fields.
    pub fn new(status: Status) -> Self {
        Response { status, entity: None, route_fields: None, fields: Vec::new(), body: Body::Empty }
    }

    /// A plain-text page that says the status, for errors.
    pub fn page(status: Status) -> Self {
        let mut response = Response::new(status);
        response.push_field("Content-Type", b"text/plain; charset=utf-8");
        response.body = Body::Shared(Bytes::from(format!("{} {}\n", status.code(), status.reason())));
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

    /// The pre-rendered fields of the file, if any.
    pub fn entity_fields(&self) -> &[u8] {
        match &self.entity {
            None => &[],
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
