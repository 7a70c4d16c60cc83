//! What one shard counts about TLS.

use super::{Counter, Gauge, SharedCounter, SharedGauge};

/// Everything a shard counts about TLS.
#[derive(Debug, Default)]
pub struct ShardTls {
    /// Handshakes that were completed, by [`Handshake`].
    pub handshakes: [Counter; Handshake::COUNT],
    /// Connections that TLS ended, by [`TlsFailure`].
    pub failures: [Counter; TlsFailure::COUNT],
    /// Handshakes in progress: they hold memory.
    pub handshakes_in_progress: Gauge,
    /// Connections whose handshake waits until fewer are in progress.
    pub handshakes_waiting: Gauge,
    /// Connections that clients ended without `close_notify` after a handshake.
    pub truncated: Counter,
    /// Sessions that the shard knows.
    pub session_cache_entries: Gauge,
    /// Bytes that its list of them takes; the sessions themselves are shared: [`ServerTls`].
    pub session_cache_bytes: Gauge,
    /// Sessions that clients asked for and that were there.
    pub session_cache_hits: Counter,
    /// And those that were not.
    pub session_cache_misses: Counter,
    /// Tickets that were accepted.
    pub tickets_accepted: Counter,
    /// Tickets that were not: of an unknown key, too old, or forged.
    pub tickets_refused: Counter,
}

/// What the shards have in common.
#[derive(Debug, Default)]
pub struct ServerTls {
    /// Sessions that can be resumed; each counts once, on however many shards it is known.
    pub sessions: SharedGauge,
    /// Bytes that they take, the lists of all shards included. Never more than configured.
    pub session_bytes: SharedGauge,
    /// Sessions that some shard did not hear of, because it was behind by too many: there they cannot be resumed.
    pub sessions_lost: SharedCounter,
}

/// A completed handshake. The value is the index in the metrics' arrays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handshake {
    /// TLS 1.2, all of it.
    Full12,
    /// TLS 1.2, resumed.
    Resumed12,
    /// TLS 1.3, all of it.
    Full13,
    /// TLS 1.3, resumed.
    Resumed13,
}

impl Handshake {
    /// Number of kinds.
    pub const COUNT: usize = Handshake::ALL.len();
    /// Every kind, in the order of its index.
    pub const ALL: [Handshake; 4] =
        [Handshake::Full12, Handshake::Resumed12, Handshake::Full13, Handshake::Resumed13];

    /// The kind as a metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Handshake::Full12 => "1.2 full",
            Handshake::Resumed12 => "1.2 resumed",
            Handshake::Full13 => "1.3 full",
            Handshake::Resumed13 => "1.3 resumed",
        }
    }
}

/// Why TLS ended a connection. The value is the index in the metrics' arrays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsFailure {
    /// What came is not TLS, or not well formed.
    Malformed,
    /// A record is longer than TLS allows.
    Oversized,
    /// HTTP without TLS; it is answered with 400.
    PlainHttp,
    /// No version in common.
    Version,
    /// No cipher suite, group or signature algorithm in common.
    Parameters,
    /// No application protocol in common.
    Protocol,
    /// A message that the protocol does not allow there.
    Misbehaved,
    /// A record that cannot be decrypted.
    Decrypt,
    /// Warnings, empty records, key updates or renegotiations without end.
    Flood,
    /// A client certificate is demanded, and there is none.
    ClientCertificateMissing,
    /// The client's certificate is not accepted.
    ClientCertificateRefused,
    /// The client sent an alert.
    Alert,
    /// The client left before the handshake was complete.
    Left,
    /// The handshake was not complete in time.
    Timeout,
    /// It was slow while others waited for their turn.
    GaveWay,
    /// There was no memory for it.
    Memory,
    /// A fault of ours.
    Internal,
}

impl TlsFailure {
    /// Number of reasons.
    pub const COUNT: usize = TlsFailure::ALL.len();
    /// Every reason, in the order of its index.
    pub const ALL: [TlsFailure; 17] = [
        TlsFailure::Malformed,
        TlsFailure::Oversized,
        TlsFailure::PlainHttp,
        TlsFailure::Version,
        TlsFailure::Parameters,
        TlsFailure::Protocol,
        TlsFailure::Misbehaved,
        TlsFailure::Decrypt,
        TlsFailure::Flood,
        TlsFailure::ClientCertificateMissing,
        TlsFailure::ClientCertificateRefused,
        TlsFailure::Alert,
        TlsFailure::Left,
        TlsFailure::Timeout,
        TlsFailure::GaveWay,
        TlsFailure::Memory,
        TlsFailure::Internal,
    ];

    /// The reason as a metric label.
    pub const fn label(self) -> &'static str {
        match self {
            TlsFailure::Malformed => "malformed",
            TlsFailure::Oversized => "oversized",
            TlsFailure::PlainHttp => "plain_http",
            TlsFailure::Version => "version",
            TlsFailure::Parameters => "parameters",
            TlsFailure::Protocol => "protocol",
            TlsFailure::Misbehaved => "misbehaved",
            TlsFailure::Decrypt => "decrypt",
            TlsFailure::Flood => "flood",
            TlsFailure::ClientCertificateMissing => "client_certificate_missing",
            TlsFailure::ClientCertificateRefused => "client_certificate_refused",
            TlsFailure::Alert => "alert",
            TlsFailure::Left => "left",
            TlsFailure::Timeout => "timeout",
            TlsFailure::GaveWay => "gave_way",
            TlsFailure::Memory => "memory",
            TlsFailure::Internal => "internal",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_stand_at_their_indices() {
        assert!(Handshake::ALL.iter().enumerate().all(|(index, kind)| *kind as usize == index));
        assert!(TlsFailure::ALL.iter().enumerate().all(|(index, reason)| *reason as usize == index));
    }
}
