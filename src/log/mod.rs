//! What the server tells about itself: the access log, a line for each request, and the diagnostic log.
//!
//! No shard writes to a file. Lines go in bounded batches to one thread, the [`Writer`]'s; when that is behind,
//! lines are dropped and counted, and nobody waits. Nothing is printed that the configuration did not ask for,
//! and no global `tracing` subscriber is ever installed: each of our threads sets the dispatch it is given.

mod access;
mod combined;
mod date;
pub mod diagnostic;
mod json;
mod output;
mod queue;
mod text;
mod writer;

pub(crate) use access::BATCH_BYTES;
pub use access::{AccessLog, Entry, RequestParts, TlsParts};
pub(crate) use date::rfc3339;
pub use diagnostic::{Callback, Sink, dispatch};
pub(crate) use queue::BATCHES_MAX;
pub use queue::DiagnosticQueue;
pub use writer::{Lines, Plan, Prepared, Writer};
