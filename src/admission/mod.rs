//! Who gets in, where one shard cannot tell alone: caps on a listener's and on a client's connections, and the rate of
//! a client's requests, counted over all shards.
//!
//! Nothing here sees a socket or knows what a refusal looks like. What no limit asks for is not counted, and costs a
//! branch.

mod connections;
mod exempt;
mod requests;

pub use connections::{ClientConnections, ListenerCap};
pub use exempt::Exempt;
pub use requests::{Rate, RequestTable, Verdict};

use std::sync::OnceLock;

use crate::{config::Settings, sys::socket::Peer};

/// What is counted over all shards of one server. Lives as long as the server: a reload changes the limits, not what
/// was counted.
#[derive(Debug)]
pub struct Admission {
    /// Connections by client.
    pub clients: ClientConnections,
    /// In the order of [`Settings::listeners`].
    listeners: Box<[ListenerCap]>,
    /// Requests by client; made when they are first limited, and kept.
    requests: OnceLock<RequestTable>,
}

impl Admission {
    /// Nothing counted yet.
    pub fn new(settings: &Settings) -> Self {
        let listeners = settings.listeners.iter().map(|listener| ListenerCap::new(listener.connections));
        let admission = Admission {
            clients: ClientConnections::default(),
            listeners: listeners.collect(),
            requests: OnceLock::new(),
        };
        admission.prepare(settings);
        admission
    }

    /// Takes over the caps of the same listeners from other settings. Connections beyond a lower cap stay.
    pub fn reload(&self, settings: &Settings) {
        for (cap, listener) in self.listeners.iter().zip(&settings.listeners) {
            cap.change(listener.connections);
        }
        self.prepare(settings);
    }

    /// Makes the table of requests before a shard wants it.
    fn prepare(&self, settings: &Settings) {
        if settings.limits.requests_per_ip > 0 {
            self.requests();
        }
    }

    /// The cap of a listener, by its place in the settings. The admin listener has none.
    pub fn listener(&self, index: usize) -> Option<&ListenerCap> {
        self.listeners.get(index)
    }

    /// The requests of all clients. 1 MB from the first call on.
    pub fn requests(&self) -> &RequestTable {
        self.requests.get_or_init(RequestTable::default)
    }
}

/// Who is counted as one: an IPv4 address, or the /64 network of an IPv6 address, which a provider gives to a customer
/// as a whole (RFC 6177). IPv4 in IPv6 is IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Client {
    /// The address.
    V4([u8; 4]),
    /// The first half of the address.
    V6([u8; 8]),
}

impl Client {
    /// The client at the other end; `None` for a unix socket, whose peers are not told apart.
    pub fn of(peer: Peer) -> Option<Client> {
        match peer {
            Peer::V4(octets, _) => Some(Client::V4(octets)),
            // ::ffff:0:0/96 (RFC 4291 2.5.5.2).
            Peer::V6([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d], _) => {
                Some(Client::V4([a, b, c, d]))
            }
            Peer::V6([a, b, c, d, e, f, g, h, ..], _) => Some(Client::V6([a, b, c, d, e, f, g, h])),
            Peer::Unix => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    #[test]
    fn a_client_is_an_ipv4_address_or_half_an_ipv6_address() {
        let v6 = |text: &str, port| Client::of(Peer::V6(text.parse::<Ipv6Addr>().unwrap().octets(), port));
        let v4 = |octets, port| Client::of(Peer::V4(octets, port));
        assert_eq!(v4([192, 0, 2, 1], 1), v4([192, 0, 2, 1], 2));
        assert_ne!(v4([192, 0, 2, 1], 1), v4([192, 0, 2, 2], 1));
        assert_eq!(v6("2001:db8:1:2::1", 1), v6("2001:db8:1:2:ffff:ffff:ffff:ffff", 2));
        assert_ne!(v6("2001:db8:1:2::1", 1), v6("2001:db8:1:3::1", 1));
        assert_eq!(v6("::ffff:192.0.2.1", 1), v4([192, 0, 2, 1], 1));
        assert_eq!(Client::of(Peer::Unix), None);
    }
}
