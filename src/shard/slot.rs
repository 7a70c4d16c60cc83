//! A connection slot: all that an idle connection costs, beside its registration with the kernel.

use std::os::fd::OwnedFd;

use super::{connection::Step, exchange::Exchange, secure::Secure};
use crate::{memory::Stocked, sys::socket::Peer, tls::Facts};

/// Names a slot for as long as one connection has it: a later connection in the same slot has another
/// generation, so a late event or a finished task cannot reach it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Index in the slab.
    pub index: u32,
    /// The connection's own number.
    pub generation: u32,
}

impl Key {
    /// Of the connection that the slab has at `index`.
    pub fn of(index: usize, slot: &Slot) -> Self {
        Key { index: index as u32, generation: slot.generation }
    }

    /// As an epoll token.
    pub fn token(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    /// From an epoll token.
    pub fn from_token(token: u64) -> Self {
        Key { index: (token & u64::from(u32::MAX)) as u32, generation: (token >> 32) as u32 }
    }
}

/// What a connection waits for.
///
/// ```text
/// Handshake ─> Fresh, with TLS
/// Fresh ─┬─> Head ─┬─> Body ──┐
/// Idle ──┘         ├──────────┴─> Waiting ─┬─> Sending ─┬─> Idle
///                  └───────────────────────┘            ├─> Lingering ─> closed
///                                                       └─> closed
/// ```
/// A request that is complete and can be answered at once goes from `Fresh` or `Idle` to `Idle` in one turn and
/// is never seen in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Accepted where TLS is spoken; the handshake is not complete, or has not begun.
    Handshake,
    /// Accepted; nothing came yet.
    Fresh,
    /// Has answered a request and waits for the next.
    Idle,
    /// A part of a head came.
    Head,
    /// The head came, the body has not ended.
    Body,
    /// A handler has not answered yet.
    Waiting,
    /// A response has not been taken by the socket yet.
    Sending,
    /// Everything was sent; what the peer still sends is read and thrown away so that closing does not reset the
    /// connection before the response was read (RFC 9112 9.6).
    Lingering,
}

/// One connection.
#[derive(Debug)]
pub struct Slot {
    /// The socket; dropping it closes the connection and removes it from the epoll set.
    pub socket: OwnedFd,
    /// See [`Key`].
    pub generation: u32,
    /// When [`Stage`] has lasted too long, in ticks; 0 is never.
    pub deadline: u32,
    /// Requests answered.
    pub requests: u32,
    /// While sending or idle: bytes that the peer had not acknowledged when that was last asked, `u32::MAX` before.
    /// While lingering: bytes thrown away.
    pub stage_bytes: u32,
    /// Who is at the other end.
    pub peer: Peer,
    /// The listener it came from, by its place among the shard's.
    pub listener: u8,
    /// What it waits for.
    pub stage: Stage,
    /// Facts about the connection.
    pub flags: Flags,
    /// State of the request in progress, from the shard's stock.
    pub exchange: Option<Stocked<Exchange>>,
    /// Its TLS, from the first byte of the handshake to the goodbye.
    pub secure: Option<Box<Secure>>,
}

/// Facts that are yes or no, a bit each.
#[derive(Clone, Copy, Default)]
pub struct Flags(u16);

/// Reads and writes of the bits, by name.
macro_rules! flags {
    ($($(#[$doc:meta])* $bit:literal $name:ident $set:ident)*) => {
        impl Flags {
            $(
                $(#[$doc])*
                pub fn $name(self) -> bool {
                    self.0 & (1 << $bit) != 0
                }

                /// Notes it.
                pub fn $set(&mut self, is_so: bool) {
                    self.0 = self.0 & !(1 << $bit) | u16::from(is_so) << $bit;
                }
            )*
        }

        impl std::fmt::Debug for Flags {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_set()$(.entries(self.$name().then_some(stringify!($name))))*.finish()
            }
        }
    };
}

flags! {
    /// The socket may have bytes that were not read.
    0 readable set_readable
    /// The peer will send no more (`EPOLLRDHUP`): after a short read comes the end.
    1 peer_finished set_peer_finished
    /// In the queue of connections to be served without an event.
    2 queued set_queued
    /// Came from the admin listener.
    3 admin set_admin
    /// Answered with 503 because there was no room; not counted as a connection.
    4 shed set_shed
    /// In the count of its listener's connections.
    5 counted_by_listener set_counted_by_listener
    /// In the count of its client's connections.
    6 counted_by_client set_counted_by_client
    /// Close once the response in progress is sent.
    7 close set_close
    /// The peer may have sent bytes that nobody will read: linger before closing.
    8 linger set_linger
    /// Its body waits for memory, in line with others.
    9 starved set_starved
    /// The peer asked for the close, and so must not send another request (RFC 9112 9.6).
    10 last_request set_last_request
    /// Came from a listener that speaks TLS.
    11 secure set_secure
    /// TLS has failed: its alert was sent, and nothing else will be.
    12 alerted set_alerted
}

impl Stage {
    /// In one word.
    pub fn word(self) -> &'static str {
        match self {
            Stage::Handshake => "handshake",
            Stage::Fresh => "fresh",
            Stage::Idle => "idle",
            Stage::Head => "head",
            Stage::Body => "body",
            Stage::Waiting => "waiting",
            Stage::Sending => "sending",
            Stage::Lingering => "lingering",
        }
    }
}

impl Slot {
    /// Bytes that the connection holds.
    pub fn held_bytes(&self) -> usize {
        SLOT_BYTES
            + self.exchange.as_ref().map_or(0, |exchange| exchange.held_bytes())
            + self.secure.as_ref().map_or(0, |secure| secure.held_bytes())
    }

    /// Whether TLS is spoken.
    pub fn is_secure(&self) -> bool {
        self.flags.secure()
    }

    /// What is known about its TLS.
    pub fn tls_facts(&self) -> Option<Facts<'_>> {
        self.secure.as_ref().map(|secure| secure.session.facts())
    }

    /// The drain has waited long enough for another request: one that has come is the last, and without one the
    /// connection ends. Its next turn finds that out, for a close with bytes unread would reset the connection and
    /// take back the responses before it.
    pub fn ask_to_end(&mut self) -> Step {
        self.flags.set_close(true);
        self.flags.set_readable(true);
        Step::Again
    }
}

/// Bytes that a connection takes in the slab.
pub const SLOT_BYTES: usize = size_of::<SlabEntry>();

/// The slab's entry around a slot, as crate `slab` lays it out.
#[allow(dead_code, reason = "only its size is of interest")]
enum SlabEntry {
    Vacant(usize),
    Occupied(Slot),
}

const _: () = assert!(SLOT_BYTES <= 128, "a connection slot has outgrown its 128 bytes");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_names_index_and_generation() {
        let key = Key { index: 0xfffe, generation: 0x8000_0001 };
        assert_eq!(Key::from_token(key.token()), key);
    }

    #[test]
    fn a_slot_is_one_cache_line() {
        assert_eq!(SLOT_BYTES, crate::config::sizes::SLOT_BYTES);
    }
}
