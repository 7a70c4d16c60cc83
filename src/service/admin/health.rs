//! What load balancers are told: whether new requests are welcome.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::{http::Status, memory::Level, metrics::Registry, service::Response};

/// Whether new requests are welcome; shared by all of a server.
#[derive(Debug, Default)]
pub struct Health {
    draining: AtomicBool,
}

impl Health {
    /// From now on health checks fail. Returns whether they did not before.
    pub fn drain(&self) -> bool {
        !self.draining.swap(true, Ordering::Relaxed)
    }

    /// Whether a drain began.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// What the server is doing now.
    pub(super) fn condition(&self, registry: &Registry) -> Condition {
        if self.is_draining() {
            Condition::Draining
        } else if Level::from_number(registry.memory.pressure.value()) == Level::Critical {
            // Load goes elsewhere before connections are closed.
            Condition::Overloaded
        } else {
            Condition::Accepting
        }
    }
}

/// What a server is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    /// New requests are welcome.
    Accepting,
    /// Memory is so short that connections are refused.
    Overloaded,
    /// It ends.
    Draining,
}

impl Condition {
    /// In one word.
    pub(super) fn word(self) -> &'static str {
        match self {
            Condition::Accepting => "accepting",
            Condition::Overloaded => "overloaded",
            Condition::Draining => "draining",
        }
    }

    /// The answer to a health check: 200 while accepting, else 503.
    pub(super) fn response(self) -> Response {
        let (status, body): (Status, &'static [u8]) = match self {
            Condition::Accepting => (Status::OK, b"ok\n"),
            Condition::Overloaded => (Status::SERVICE_UNAVAILABLE, b"overloaded\n"),
            Condition::Draining => (Status::SERVICE_UNAVAILABLE, b"draining\n"),
        };
        let mut response = Response::fixed(status, "text/plain; charset=utf-8", body);
        response.push_field("Cache-Control", b"no-store");
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_health_check_fails_while_pressure_is_critical_and_in_a_drain() {
        let (health, registry) = (Health::default(), Registry::new(1, &[]));
        let status = || health.condition(&registry).response().status.code();
        for (level, code) in [(0, 200), (2, 200), (3, 503), (2, 200)] {
            registry.memory.pressure.set(level);
            assert_eq!(status(), code, "{level}");
        }
        assert!(health.drain());
        assert_eq!(status(), 503);
    }
}
