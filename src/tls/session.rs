//! One connection's TLS: ciphertext in, plaintext out, and back.
//!
//! A session holds keys and the state of its handshake, and no buffers: what was received and is not a whole record yet, and
//! what is to be sent, are its caller's.

use std::sync::Arc;

use rustls::{
    CipherSuite, Error, HandshakeKind, InvalidMessage, PeerIncompatible, PeerMisbehaved, ProtocolVersion,
    server::UnbufferedServerConnection,
    unbuffered::{ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus},
};

use super::{
    Output,
    certificate::{client_subject, has_expired},
};
use crate::metrics::{Handshake, TlsFailure};

/// The longest record that a peer may send: 2^14 bytes, 256 more in TLS 1.3 or 2,048 in TLS 1.2 (RFC 5246 6.2.3), and the
/// head.
pub const RECORD_BYTES_MAX: usize = 5 + (16 << 10) + 2048;
/// What a record has beside its plaintext, at most: head, explicit nonce or content type, tag.
pub const RECORD_OVERHEAD_BYTES: usize = 5 + 8 + 16;
/// Room for what may go before a record: an answer to a key update.
const PENDING_BYTES: usize = 128;

/// One connection's TLS.
pub struct Session {
    connection: UnbufferedServerConnection,
    server_name: Option<Box<str>>,
    client_subject: Option<Box<str>>,
    is_established: bool,
    peer_closed: bool,
    said_goodbye: bool,
}

/// What is known about a connection's TLS once its handshake is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts<'s> {
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    /// The cipher suite by its IANA name, `TLS_AES_128_GCM_SHA256`.
    pub cipher: &'static str,
    /// The host that the client asked for (SNI, RFC 6066 3), in lower case.
    pub server_name: Option<&'s str>,
    /// The session was resumed.
    pub resumed: bool,
    /// The subject of the client's certificate (RFC 4514), if it showed one.
    pub client_subject: Option<&'s str>,
    /// That certificate, DER.
    pub client_certificate: Option<&'s [u8]>,
}

/// The same for what outlives the turn.
#[derive(Clone, Debug)]
pub struct OwnedFacts {
    version: &'static str,
    cipher: &'static str,
    resumed: bool,
    server_name: Option<Box<str>>,
    client_subject: Option<Box<str>>,
    client_certificate: Option<Box<[u8]>>,
}

impl From<Facts<'_>> for OwnedFacts {
    fn from(facts: Facts<'_>) -> Self {
        OwnedFacts {
            version: facts.version,
            cipher: facts.cipher,
            resumed: facts.resumed,
            server_name: facts.server_name.map(Box::from),
            client_subject: facts.client_subject.map(Box::from),
            client_certificate: facts.client_certificate.map(Box::from),
        }
    }
}

impl OwnedFacts {
    /// The facts, to be read like the original.
    pub fn as_facts(&self) -> Facts<'_> {
        Facts {
            version: self.version,
            cipher: self.cipher,
            resumed: self.resumed,
            server_name: self.server_name.as_deref(),
            client_subject: self.client_subject.as_deref(),
            client_certificate: self.client_certificate.as_deref(),
        }
    }
}

/// What feeding came to.
#[derive(Debug)]
pub struct Fed {
    /// Bytes of the input that were used; the others are the beginning of a record, or of a message of several.
    pub used: usize,
    /// Why the session cannot go on, if it cannot: then the output ends with the alert that says so.
    pub failure: Option<TlsFailure>,
}

impl Session {
    /// Before its first byte.
    ///
    /// # Errors
    /// [`TlsFailure::Internal`] when the configuration allows no session.
    pub fn new(config: &Arc<rustls::ServerConfig>) -> Result<Self, TlsFailure> {
        Ok(Session {
            connection: UnbufferedServerConnection::new(Arc::clone(config))
                .map_err(|_| TlsFailure::Internal)?,
            server_name: None,
            client_subject: None,
            is_established: false,
            peer_closed: false,
            said_goodbye: false,
        })
    }

    /// Takes what was received, which may be changed: plaintext goes to `plain` a record at a time, what is to be sent to
    /// `output`.
    pub fn feed(&mut self, input: &mut [u8], mut plain: impl FnMut(&[u8]), output: &mut Output) -> Fed {
        let mut used = 0;
        let failure = loop {
            let UnbufferedStatus { discard, state } = self.connection.process_tls_records(&mut input[used..]);
            let mut goes_on = true;
            let failure = match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(Ok(record)) = traffic.next_record() {
                        plain(record.payload);
                    }
                    None
                }
                Ok(ConnectionState::EncodeTlsData(data)) => encode(data, output).err(),
                Ok(ConnectionState::TransmitTlsData(data)) => {
                    data.done();
                    None
                }
                Ok(ConnectionState::PeerClosed) => {
                    self.peer_closed = true;
                    None
                }
                Ok(
                    ConnectionState::BlockedHandshake
                    | ConnectionState::WriteTraffic(_)
                    | ConnectionState::Closed,
                ) => {
                    goes_on = false;
                    None
                }
                // Early data is not offered, and there are no other states.
                Ok(_) => Some(TlsFailure::Internal),
                Err(error) => {
                    let failure = reason(&error);
                    self.take_alert(&mut input[used + discard..], output);
                    Some(failure)
                }
            };
            used += discard;
            if failure.is_some() || !goes_on {
                break failure;
            }
        };
        if !self.is_established && !self.connection.is_handshaking() {
            self.is_established = true;
            self.client_subject = self.client_certificate().and_then(client_subject);
        }
        Fed { used: used.min(input.len()), failure }
    }

    /// Encrypts `plain`, at most 16 KB less [`RECORD_OVERHEAD_BYTES`], as one record at the end of `output`. `begun` is what
    /// [`Session::feed`] has left unused of its last input: the library knows places in it, and looks at them.
    ///
    /// # Errors
    /// When the session cannot send any more.
    pub fn seal(&mut self, begun: &mut [u8], plain: &[u8], output: &mut Output) -> Result<(), TlsFailure> {
        let UnbufferedStatus { state, .. } = self.connection.process_tls_records(begun);
        let Ok(ConnectionState::WriteTraffic(mut traffic)) = state else { return Err(TlsFailure::Internal) };
        let mut room_bytes = plain.len() + RECORD_OVERHEAD_BYTES + PENDING_BYTES;
        loop {
            match traffic.encrypt(plain, output.room(room_bytes)) {
                Ok(count) => {
                    output.add(count);
                    return Ok(());
                }
                Err(EncryptError::InsufficientSize(size)) if size.required_size > room_bytes => {
                    room_bytes = size.required_size;
                }
                Err(_) => return Err(TlsFailure::Internal),
            }
        }
    }

    /// Says that nothing more will be sent (`close_notify`, RFC 8446 6.1); once. `begun` as in [`Session::seal`].
    pub fn say_goodbye(&mut self, begun: &mut [u8], output: &mut Output) {
        if !self.is_established || std::mem::replace(&mut self.said_goodbye, true) {
            return;
        }
        if let UnbufferedStatus { state: Ok(ConnectionState::WriteTraffic(mut traffic)), .. } =
            self.connection.process_tls_records(begun)
            && let Ok(count) = traffic.queue_close_notify(output.room(PENDING_BYTES))
        {
            output.add(count);
        }
    }

    /// The handshake is complete.
    pub fn is_established(&self) -> bool {
        self.is_established
    }

    /// The peer has said that it will send nothing more.
    pub fn is_peer_closed(&self) -> bool {
        self.peer_closed
    }

    /// Notes the name that the client asked for.
    pub fn set_server_name(&mut self, name: Box<str>) {
        self.server_name = Some(name);
    }

    /// What the session holds beyond that of a client which showed no certificate.
    pub fn certificates_bytes(&self) -> usize {
        let chain = self.connection.peer_certificates().unwrap_or_default();
        chain.iter().map(|certificate| certificate.len()).sum()
    }

    /// Whether the session was resumed although the client's certificate has expired since it was made.
    pub fn has_outlived_certificate(&self, unix_seconds: u64) -> bool {
        self.connection.handshake_kind() == Some(HandshakeKind::Resumed)
            && self.client_certificate().is_some_and(|certificate| has_expired(certificate, unix_seconds))
    }

    /// The certificate that the client showed, DER.
    pub fn client_certificate(&self) -> Option<&[u8]> {
        self.connection.peer_certificates()?.first().map(|certificate| &**certificate)
    }

    /// Which kind of handshake it was.
    pub fn kind(&self) -> Handshake {
        let resumed = self.connection.handshake_kind() == Some(HandshakeKind::Resumed);
        match (self.connection.protocol_version(), resumed) {
            (Some(ProtocolVersion::TLSv1_3), false) => Handshake::Full13,
            (Some(ProtocolVersion::TLSv1_3), true) => Handshake::Resumed13,
            (_, false) => Handshake::Full12,
            (_, true) => Handshake::Resumed12,
        }
    }

    /// What is known about it.
    pub fn facts(&self) -> Facts<'_> {
        let kind = self.kind();
        Facts {
            version: match kind {
                Handshake::Full13 | Handshake::Resumed13 => "TLSv1.3",
                Handshake::Full12 | Handshake::Resumed12 => "TLSv1.2",
            },
            cipher: self.connection.negotiated_cipher_suite().map_or("", |suite| cipher_name(suite.suite())),
            server_name: self.server_name.as_deref(),
            resumed: matches!(kind, Handshake::Resumed13 | Handshake::Resumed12),
            client_subject: self.client_subject.as_deref(),
            client_certificate: self.client_certificate(),
        }
    }

    /// After a failure: the alert that tells the peer, behind what else was to be sent. `rest` is what the input has beyond
    /// what was used. Behind its alert the library must not be asked again: it would look at the same input once more.
    fn take_alert(&mut self, rest: &mut [u8], output: &mut Output) {
        loop {
            match self.connection.process_tls_records(rest).state {
                Ok(ConnectionState::EncodeTlsData(data)) => {
                    let before = output.filled().len();
                    if encode(data, output).is_err() || is_alert(&output.filled()[before..]) {
                        return;
                    }
                }
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                _ => return,
            }
        }
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("is_established", &self.is_established).finish_non_exhaustive()
    }
}

fn encode<D>(mut data: EncodeTlsData<'_, D>, output: &mut Output) -> Result<(), TlsFailure> {
    let mut room_bytes = RECORD_BYTES_MAX;
    loop {
        match data.encode(output.room(room_bytes)) {
            Ok(count) => {
                output.add(count);
                return Ok(());
            }
            Err(EncodeError::InsufficientSize(size)) if size.required_size > room_bytes => {
                room_bytes = size.required_size;
            }
            Err(_) => return Err(TlsFailure::Internal),
        }
    }
}

/// Whether a record is an alert: by its type, or in TLS 1.3 by its length, level, description, type and tag.
fn is_alert(record: &[u8]) -> bool {
    const ALERT: u8 = 21;
    const APPLICATION_DATA: u8 = 23;
    match record.first() {
        Some(&ALERT) => true,
        Some(&APPLICATION_DATA) => record.len() == 5 + 2 + 1 + 16,
        _ => false,
    }
}

/// Names as IANA has them: those of TLS 1.3 begin without the `13` that tells them apart here.
fn cipher_name(suite: CipherSuite) -> &'static str {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        suite => suite.as_str().unwrap_or(""),
    }
}

/// What a peer did to end the session.
fn reason(error: &Error) -> TlsFailure {
    match error {
        Error::InvalidMessage(InvalidMessage::MessageTooLarge | InvalidMessage::HandshakePayloadTooLarge)
        | Error::PeerSentOversizedRecord => TlsFailure::Oversized,
        Error::InvalidMessage(_) | Error::UnsupportedNameType => TlsFailure::Malformed,
        Error::PeerIncompatible(
            PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::Tls13RequiredForQuic
            | PeerIncompatible::SupportedVersionsExtensionRequired,
        ) => TlsFailure::Version,
        Error::PeerIncompatible(_) => TlsFailure::Parameters,
        Error::NoApplicationProtocol => TlsFailure::Protocol,
        Error::DecryptError => TlsFailure::Decrypt,
        Error::NoCertificatesPresented => TlsFailure::ClientCertificateMissing,
        Error::InvalidCertificate(_) | Error::InvalidCertRevocationList(_) => {
            TlsFailure::ClientCertificateRefused
        }
        Error::AlertReceived(_) => TlsFailure::Alert,
        Error::PeerMisbehaved(
            PeerMisbehaved::TooManyEmptyFragments
            | PeerMisbehaved::TooManyKeyUpdateRequests
            | PeerMisbehaved::TooManyRenegotiationRequests
            | PeerMisbehaved::TooManyWarningAlertsReceived,
        ) => TlsFailure::Flood,
        Error::PeerMisbehaved(_)
        | Error::InappropriateMessage { .. }
        | Error::InappropriateHandshakeMessage { .. } => TlsFailure::Misbehaved,
        _ => TlsFailure::Internal,
    }
}
