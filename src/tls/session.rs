//! One connection's TLS.

/// What is known about a connection's TLS once its handshake is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts<'s> {
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    /// The cipher suite by its IANA name, `TLS13_AES_128_GCM_SHA256`.
    pub cipher: &'static str,
    /// The host that the client asked for (SNI), in lower case.
    pub server_name: Option<&'s str>,
    /// The session was resumed.
    pub resumed: bool,
    /// The subject of the client's certificate (RFC 4514), if it showed one.
    pub client_subject: Option<&'s str>,
    /// That certificate, DER.
    pub client_certificate: Option<&'s [u8]>,
}

/// Why a session cannot go on.
pub type Failure = crate::metrics::TlsFailure;

/// One connection's TLS.
#[derive(Debug)]
pub struct Session {}
