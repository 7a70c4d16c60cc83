//! What is counted about TLS, as text for a scrape and as a part of the tree.

use std::sync::{Arc, PoisonError};

use serde::Serialize;

use super::{Labelled, Registry};
use crate::metrics::{
    Counter, Gauge, Handshake, Holder, ShardMetrics, ShardTls, TlsFailure,
    exposition::{Escaped, Exposition},
};

/// TLS of these shards.
#[derive(Debug, Serialize)]
pub(super) struct Tls {
    handshakes: Labelled<{ Handshake::COUNT }>,
    failures: Labelled<{ TlsFailure::COUNT }>,
    handshakes_in_progress: u64,
    handshakes_waiting: u64,
    truncated: u64,
    pub(super) session_cache: SessionCache,
    tickets: Tickets,
}

/// Of one shard: what its list knows, and the list's bytes. Of all: each session once, and all bytes.
#[derive(Debug, Serialize)]
pub(super) struct SessionCache {
    pub(super) entries: u64,
    pub(super) bytes: u64,
    hits: u64,
    misses: u64,
}

#[derive(Debug, Serialize)]
struct Tickets {
    accepted: u64,
    refused: u64,
}

impl Tls {
    pub(super) fn sum(shards: &[Arc<ShardMetrics>]) -> Self {
        let count = |of: &dyn Fn(&ShardTls) -> &Counter| shards.iter().map(|s| of(&s.tls).value()).sum();
        let gauge = |of: &dyn Fn(&ShardTls) -> &Gauge| shards.iter().map(|s| of(&s.tls).value()).sum();
        Tls {
            handshakes: Labelled(
                Handshake::ALL.map(|kind| (kind.label(), count(&|tls| &tls.handshakes[kind as usize]))),
            ),
            failures: Labelled(
                TlsFailure::ALL.map(|reason| (reason.label(), count(&|tls| &tls.failures[reason as usize]))),
            ),
            handshakes_in_progress: gauge(&|tls| &tls.handshakes_in_progress),
            handshakes_waiting: gauge(&|tls| &tls.handshakes_waiting),
            truncated: count(&|tls| &tls.truncated),
            session_cache: SessionCache {
                entries: gauge(&|tls| &tls.session_cache_entries),
                bytes: gauge(&|tls| &tls.session_cache_bytes),
                hits: count(&|tls| &tls.session_cache_hits),
                misses: count(&|tls| &tls.session_cache_misses),
            },
            tickets: Tickets {
                accepted: count(&|tls| &tls.tickets_accepted),
                refused: count(&|tls| &tls.tickets_refused),
            },
        }
    }
}

impl Registry {
    pub(super) fn render_tls(&self, text: &mut Exposition<'_>) {
        let tls = Tls::sum(&self.shards);
        text.counters(
            "webserver_tls_handshakes_total",
            "TLS handshakes completed, by version and whether the session was resumed.",
            "kind",
            tls.handshakes.0.into_iter(),
        );
        text.counters(
            "webserver_tls_failures_total",
            "Connections that TLS ended, by reason.",
            "reason",
            tls.failures.0.into_iter(),
        );
        text.gauge(
            "webserver_tls_handshakes_in_progress",
            "TLS handshakes in progress.",
            tls.handshakes_in_progress,
        );
        text.gauge(
            "webserver_tls_handshakes_waiting",
            "Connections whose TLS handshake waits until fewer are in progress.",
            tls.handshakes_waiting,
        );
        text.counter(
            "webserver_tls_truncated_total",
            "Connections that clients ended without close_notify.",
            tls.truncated,
        );
        let cache = &tls.session_cache;
        text.gauge(
            "webserver_tls_session_cache_entries",
            "TLS sessions kept for resumption.",
            self.tls.sessions.value(),
        );
        text.gauge(
            "webserver_tls_session_cache_bytes",
            "Bytes held by them.",
            self.memory_used_bytes(Holder::TlsSessions),
        );
        text.counter(
            "webserver_tls_session_cache_hits_total",
            "TLS sessions that clients asked for and that were there.",
            cache.hits,
        );
        text.counter(
            "webserver_tls_session_cache_misses_total",
            "TLS sessions that clients asked for and that were not there.",
            cache.misses,
        );
        text.counter(
            "webserver_tls_session_cache_lost_total",
            "TLS sessions that did not reach a shard, because it was behind by too many.",
            self.tls.sessions_lost.value(),
        );
        text.counter(
            "webserver_tls_tickets_accepted_total",
            "TLS session tickets accepted.",
            tls.tickets.accepted,
        );
        text.counter(
            "webserver_tls_tickets_refused_total",
            "TLS session tickets refused: of an unknown key, too old, or forged.",
            tls.tickets.refused,
        );
        self.render_certificates(text);
    }

    fn render_certificates(&self, text: &mut Exposition<'_>) {
        let certificates = self.certificates.lock().unwrap_or_else(PoisonError::into_inner);
        if !certificates.is_empty() {
            text.gauges(
                "webserver_tls_certificate_expiry_seconds",
                "When each certificate ends, in Unix time.",
                "certificate",
                certificates.iter().map(|(certificate, end)| (Escaped(certificate), *end)),
            );
        }
    }
}
