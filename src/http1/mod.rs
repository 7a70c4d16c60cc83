//! HTTP/1.1 and 1.0 on the wire (RFC 9112): bytes in, a request head or pieces of a body out.
//!
//! Sans-I/O: no socket, no clock, no executor, no allocation on a request that is accepted. httparse finds
//! the tokens; what is accepted of them is decided here, and strictly: whatever two recipients could read
//! differently is refused, because a refused request costs one connection and a misread one costs the next user's.

mod body;
mod encode;
mod fields;
mod head;
mod refusal;
mod target;

pub use body::{BodyDecoder, Piece};
pub use encode::{Connection, request_line, write_head};
pub use head::{Decoded, Limits, decode, decode_from};
pub use refusal::{Refusal, write_refusal};
