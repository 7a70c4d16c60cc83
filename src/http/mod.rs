//! Message types that every version of HTTP shares: methods, statuses, request heads, dates, ranges,
//! conditions and media types.
//!
//! Everything here works on bytes that someone else received. Nothing reads a socket, a file or a clock, and
//! nothing knows how a message is framed on the wire; that is `http1`'s business.

pub mod accept;
pub mod accept_encoding;
pub mod conditional;
pub mod date;
pub mod mime;
pub mod multipart;
pub mod range;

mod known;
mod method;
mod request;
mod status;
pub(crate) mod syntax;

pub use known::Known;
pub use method::{Method, Version};
pub use request::{Field, Framing, OwnedRequest, Parts, Request, Span};
pub use status::Status;
