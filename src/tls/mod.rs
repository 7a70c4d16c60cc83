//! TLS on connections that clients open: certificates, sessions, their resumption. Knows no socket and no framing.
//!
//! The library is named here and nowhere else. A connection's [`Session`] holds no buffers: whoever has the socket feeds it
//! what came and sends what it gives.

mod cache;
mod certificate;
mod clients;
mod material;
mod output;
mod pem;
mod provider;
mod resolver;
mod resumption;
mod self_signed;
mod session;
#[cfg(test)]
mod testing;
mod tickets;

pub use cache::{SharedSessions, Wake};
pub use certificate::client_subject;
pub use material::{Acceptor, Expiry, Material};
pub use output::Output;
pub use resumption::Resumption;
pub use self_signed::self_signed;
pub use session::{Facts, Fed, OwnedFacts, RECORD_BYTES_MAX, RECORD_OVERHEAD_BYTES, Session};
pub use tickets::{TicketKeys, TicketRotation};
