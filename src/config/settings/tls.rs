//! What listeners and routes are told about TLS.

use std::{path::PathBuf, sync::Arc, time::Duration};

/// How a listener speaks TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// At least one; which of them a client gets is decided by the name it asks for. The first is the default.
    pub certificates: Vec<Certificate>,
    /// Which versions are spoken.
    pub versions: TlsVersions,
    /// Whether clients must or may show a certificate; absent: they are not asked.
    pub client_auth: Option<ClientAuth>,
    /// Keys of session tickets that several machines share; absolute. Absent: keys of this process.
    pub ticket_key_file: Option<PathBuf>,
}

/// A certificate chain and its private key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The chain, the server's own certificate first.
    pub chain: Pem,
    /// Its private key.
    pub key: Pem,
    /// The OCSP response (DER) that is stapled; absolute.
    pub ocsp: Option<PathBuf>,
}

/// PEM (RFC 7468): in a file, or in memory.
#[derive(Clone, PartialEq, Eq)]
pub enum Pem {
    /// Absolute.
    File(PathBuf),
    /// The text itself.
    Text(Arc<str>),
}

impl Pem {
    /// Whether a value of the configuration is PEM itself rather than the path of a file.
    pub(in crate::config) fn is_text(value: &str) -> bool {
        value.trim_ascii_start().starts_with("-----BEGIN")
    }
}

/// Versions that a listener speaks; at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsVersions {
    /// TLS 1.2, RFC 5246.
    pub tls12: bool,
    /// TLS 1.3, RFC 8446.
    pub tls13: bool,
}

/// Certificates of clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientAuth {
    /// The authorities that may have signed them.
    pub ca: Pem,
    /// A client without one is served all the same.
    pub optional: bool,
}

/// What is kept so that clients can resume their sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsSessionCache {
    /// Bytes of sessions kept by the server, for all shards together; 0 keeps none.
    pub size_bytes: usize,
    /// How long a session can be resumed, in whole seconds.
    pub lifetime: Duration,
    /// The client keeps its session, sealed, as a ticket; the server keeps only those of clients that take no ticket.
    pub tickets: bool,
}

/// Requests that came without TLS are sent to the same place with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpsRedirect {
    /// 301, 302, 307 or 308.
    pub status: u16,
    /// Where TLS is spoken; 443 is left out of the address.
    pub port: u16,
}

/// `Strict-Transport-Security` (RFC 6797) on responses that go out over TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hsts {
    /// In whole seconds.
    pub max_age: Duration,
    /// For all names below the host's too.
    pub include_subdomains: bool,
    /// The host may be put into the browsers' lists.
    pub preload: bool,
}

impl Default for TlsVersions {
    /// Both.
    fn default() -> Self {
        TlsVersions { tls12: true, tls13: true }
    }
}

impl Default for TlsSessionCache {
    /// The memory profile's smallest column; tickets.
    fn default() -> Self {
        TlsSessionCache { size_bytes: 5 << 20, lifetime: Duration::from_secs(3600), tickets: true }
    }
}

impl std::fmt::Debug for Pem {
    /// Never a private key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Pem::File(path) => f.debug_tuple("File").field(path).finish(),
            Pem::Text(_) => f.write_str("Text(..)"),
        }
    }
}
