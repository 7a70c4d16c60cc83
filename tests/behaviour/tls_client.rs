//! A client of HTTPS that says exactly what it is told: which name, versions, protocols and certificate it shows, whether
//! it resumes, and how it closes.
//!
//! ```ignore
//! let connector = Dialer::trusting(&certificates).name("a.test").versions(&[&TLS13]).connector();
//! let mut client = connector.connect(server.address);
//! assert_eq!(client.ask("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").status, 200);
//! client.close();
//! assert!(connector.connect(server.address).resumed());
//! ```

#![allow(dead_code, reason = "the tests of HTTPS use their part of it")]

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::Arc,
};

use rustls::{
    AlertDescription, CipherSuite, ClientConfig, ClientConnection, Error, HandshakeKind, ProtocolVersion,
    RootCertStore, SupportedProtocolVersion,
    client::{Resumption, Tls12Resumption},
    crypto::CryptoProvider,
    pki_types::ServerName,
};

use crate::{
    anyone::Anyone,
    certificates::{Certificates, Pair},
    harness::{Client, PATIENCE},
};

/// A connection over TLS, with everything that a plain [`Client`] can do.
pub type TlsClient = Client<TlsStream>;

/// How a client shall connect.
pub struct Dialer<'a> {
    /// What is asked for (SNI) and must be in the certificate; an address is not sent.
    name: &'a str,
    versions: &'a [&'static SupportedProtocolVersion],
    /// Empty: all that the provider has.
    suites: &'a [CipherSuite],
    alpn: &'a [&'a str],
    identity: Option<&'a Pair>,
    roots: Option<RootCertStore>,
    tls12_resumption: Tls12Resumption,
}

impl<'a> Dialer<'a> {
    /// Verifies the server's certificate, and asks for `localhost`.
    pub fn trusting(certificates: &Certificates) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(certificates.ca_der()).unwrap();
        Dialer { roots: Some(roots), ..Dialer::trusting_anyone() }
    }

    /// Takes any certificate whose key the server has.
    pub fn trusting_anyone() -> Self {
        Dialer {
            name: "localhost",
            versions: rustls::ALL_VERSIONS,
            suites: &[],
            alpn: &["http/1.1"],
            identity: None,
            roots: None,
            tls12_resumption: Tls12Resumption::SessionIdOrTickets,
        }
    }

    pub fn name(self, name: &'a str) -> Self {
        Dialer { name, ..self }
    }

    pub fn versions(self, versions: &'a [&'static SupportedProtocolVersion]) -> Self {
        Dialer { versions, ..self }
    }

    pub fn suites(self, suites: &'a [CipherSuite]) -> Self {
        Dialer { suites, ..self }
    }

    /// Empty: the extension is not sent.
    pub fn alpn(self, alpn: &'a [&'a str]) -> Self {
        Dialer { alpn, ..self }
    }

    /// Shows a client's certificate when it is asked for one.
    pub fn showing(self, identity: &'a Pair) -> Self {
        Dialer { identity: Some(identity), ..self }
    }

    /// What it resumes sessions of TLS 1.2 with.
    pub fn tls12_resumption(self, tls12_resumption: Tls12Resumption) -> Self {
        Dialer { tls12_resumption, ..self }
    }

    /// A client with a store of its own for sessions: its connections resume those that came before.
    pub fn connector(self) -> Connector {
        let mut provider = provider();
        if !self.suites.is_empty() {
            provider.cipher_suites.retain(|suite| self.suites.contains(&suite.suite()));
        }
        let provider = Arc::new(provider);
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_protocol_versions(self.versions).unwrap();
        let builder = match self.roots {
            Some(roots) => builder.with_root_certificates(roots),
            None => builder.dangerous().with_custom_certificate_verifier(Arc::new(Anyone(provider))),
        };
        let mut config = match self.identity {
            Some(pair) => builder.with_client_auth_cert(vec![pair.der.clone()], pair.private_key()).unwrap(),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = self.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        config.resumption = Resumption::in_memory_sessions(64).tls12_resumption(self.tls12_resumption);
        Connector { config: Arc::new(config), name: ServerName::try_from(self.name.to_owned()).unwrap() }
    }
}

/// A client and the sessions that it can resume. One of TLS 1.3 can be resumed once its ticket was received, which a server
/// sends before its first response; each ticket is used once.
#[derive(Clone)]
pub struct Connector {
    pub config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Connector {
    /// Connects and completes the handshake.
    pub fn connect(&self, address: SocketAddr) -> TlsClient {
        self.try_connect(address).unwrap_or_else(|error| panic!("no handshake: {error}"))
    }

    /// The same where the server may refuse; [`alert`] reads why. In TLS 1.3 the client's handshake is complete before the server
    /// has seen its certificate: a refusal of that comes with the first read ([`Connector::refusal`]).
    pub fn try_connect(&self, address: SocketAddr) -> io::Result<TlsClient> {
        self.handshake_over(TcpStream::connect(address)?)
    }

    /// The same over a connection that is there.
    pub fn handshake_over(&self, socket: TcpStream) -> io::Result<TlsClient> {
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        socket.set_nodelay(true)?;
        let mut stream = TlsStream { tls: self.connection(), socket };
        while stream.tls.is_handshaking() {
            stream.tls.complete_io(&mut stream.socket)?;
        }
        // The last flight of TLS 1.3.
        stream.flush()?;
        Ok(Client { stream, received: Vec::new() })
    }

    /// The alert with which the server refuses this client, be it during the handshake or instead of an answer.
    pub fn refusal(&self, address: SocketAddr) -> AlertDescription {
        let refused = self.try_connect(address).and_then(|mut client| {
            client.stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")?;
            client.stream.read(&mut [0; 256])
        });
        let error = refused.map(|count| format!("served {count} bytes")).expect_err("not refused");
        alert(&error).unwrap_or_else(|| panic!("refused without an alert: {error}"))
    }

    /// The records with a ClientHello of this client, to be sent by hand.
    pub fn hello(&self) -> Vec<u8> {
        let mut records = Vec::new();
        self.connection().write_tls(&mut records).unwrap();
        records
    }

    /// The machine of one connection, without a socket.
    pub fn connection(&self) -> ClientConnection {
        ClientConnection::new(Arc::clone(&self.config), self.name.clone()).unwrap()
    }
}

/// The alert that was received, if that is what the error says.
pub fn alert(error: &io::Error) -> Option<AlertDescription> {
    match error.get_ref()?.downcast_ref()? {
        Error::AlertReceived(alert) => Some(*alert),
        _ => None,
    }
}

/// TLS over a socket. Reading gives 0 after close_notify and `UnexpectedEof` when the peer ended the stream without. Dropping it
/// closes the socket without close_notify.
pub struct TlsStream {
    pub tls: ClientConnection,
    pub socket: TcpStream,
}

impl Read for TlsStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        rustls::Stream::new(&mut self.tls, &mut self.socket).read(buffer)
    }
}

impl Write for TlsStream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        rustls::Stream::new(&mut self.tls, &mut self.socket).write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.socket)?;
        }
        Ok(())
    }
}

impl TlsClient {
    pub fn version(&self) -> ProtocolVersion {
        self.stream.tls.protocol_version().unwrap()
    }

    pub fn suite(&self) -> CipherSuite {
        self.stream.tls.negotiated_cipher_suite().unwrap().suite()
    }

    pub fn resumed(&self) -> bool {
        self.stream.tls.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    pub fn alpn(&self) -> Option<&str> {
        self.stream.tls.alpn_protocol().map(|name| std::str::from_utf8(name).unwrap())
    }

    /// The server showed this certificate.
    pub fn was_shown(&self, pair: &Pair) -> bool {
        self.stream.tls.peer_certificates().and_then(|chain| chain.first()) == Some(&pair.der)
    }

    /// Ends this side's stream in order: close_notify, then FIN. The other side can still be read.
    pub fn finish(&mut self) {
        self.notify();
        self.stream.socket.shutdown(Shutdown::Write).unwrap();
    }

    /// Sends close_notify alone.
    pub fn notify(&mut self) {
        self.stream.tls.send_close_notify();
        self.stream.flush().unwrap();
    }

    /// Ends this side's stream without close_notify.
    pub fn truncate(&mut self) {
        self.stream.socket.shutdown(Shutdown::Write).unwrap();
    }

    /// Closes in order, on both sides.
    pub fn close(mut self) {
        self.finish();
        self.expect_finish();
    }

    /// Waits for the server's goodbye: close_notify, then FIN.
    #[track_caller]
    pub fn expect_goodbye(&mut self) {
        self.expect_finish();
        assert_eq!(self.stream.socket.read(&mut [0; 16]).unwrap(), 0, "bytes after close_notify");
    }

    /// Changes the keys and asks the peer to do the same (KeyUpdate, TLS 1.3).
    pub fn update_keys(&mut self) {
        self.stream.tls.refresh_traffic_keys().unwrap();
        self.stream.flush().unwrap();
    }

    /// Waits for the alert with which the server ends the connection; fails when it sends something else.
    pub fn expect_alert(&mut self, expected: AlertDescription) {
        let error = self.stream.read(&mut [0; 256]).expect_err("no alert");
        assert_eq!(alert(&error), Some(expected), "{error}");
    }
}

/// What this program was built with, and never the process's default.
pub fn provider() -> CryptoProvider {
    #[cfg(feature = "aws-lc-rs")]
    return rustls::crypto::aws_lc_rs::default_provider();
    #[cfg(not(feature = "aws-lc-rs"))]
    return rustls::crypto::ring::default_provider();
}
