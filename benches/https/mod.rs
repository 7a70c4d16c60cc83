//! Clients of HTTPS that measure: what they offer, and what they trust.

pub mod answer;
pub mod client;
pub mod flood;
pub mod idle;
pub mod load;
pub mod rates;
pub mod resumption;
pub mod stock;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    CipherSuite, ClientConfig, DigitallySignedStruct, Error, NamedGroup, SignatureScheme,
    client::{
        Resumption, Tls12Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use crate::common::{
    Outcome,
    servers::{self, Kind, Secured, Server},
};

/// The only suites that clients offer, so that all servers compute the same.
const SUITES: [CipherSuite; 2] =
    [CipherSuite::TLS13_AES_128_GCM_SHA256, CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256];

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// RFC 8446.
    Tls13,
    /// RFC 5246.
    Tls12,
}

impl Version {
    /// As the tables call it.
    pub fn name(self) -> &'static str {
        match self {
            Version::Tls13 => "TLS 1.3",
            Version::Tls12 => "TLS 1.2",
        }
    }
}

/// How a client comes back.
#[derive(Clone, Debug)]
pub enum Resumes {
    /// With a full handshake each time.
    Never,
    /// With what the server gave it: a ticket, or the name of a session that the server keeps.
    Either,
    /// TLS 1.2: with the name alone.
    SessionId,
    /// With what is in a store that others share.
    From(Arc<stock::Stock>),
}

/// One client. It offers X25519 and one suite, and checks no certificate: the load is to be
/// cheaper than what it measures.
pub fn config(version: Version, resumes: Resumes) -> Outcome<Arc<ClientConfig>> {
    let mut provider = provider();
    provider.cipher_suites.retain(|suite| SUITES.contains(&suite.suite()));
    // The second is the certificate's curve, which TLS 1.2 wants among the groups.
    let groups = [NamedGroup::X25519, NamedGroup::secp256r1];
    provider.kx_groups.retain(|group| groups.contains(&group.name()));
    let schemes = provider.signature_verification_algorithms.supported_schemes();
    let versions = match version {
        Version::Tls13 => &[&rustls::version::TLS13],
        Version::Tls12 => &[&rustls::version::TLS12],
    };
    let builder = ClientConfig::builder_with_provider(Arc::new(provider)).with_protocol_versions(versions);
    let mut config = builder
        .map_err(|error| format!("no client of {}: {error}", version.name()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Unverified(schemes)))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = match resumes {
        // It takes tickets as others do, and forgets them.
        Resumes::Never => Resumption::disabled().tls12_resumption(Tls12Resumption::SessionIdOrTickets),
        Resumes::Either => Resumption::in_memory_sessions(8),
        Resumes::SessionId => {
            Resumption::in_memory_sessions(8).tls12_resumption(Tls12Resumption::SessionIdOnly)
        }
        Resumes::From(stock) => Resumption::store(stock),
    };
    Ok(Arc::new(config))
}

/// The name in [`Site::make`]'s certificate.
pub fn server_name() -> ServerName<'static> {
    ServerName::try_from("localhost").expect("a name of one label")
}

fn provider() -> CryptoProvider {
    #[cfg(feature = "aws-lc-rs")]
    return rustls::crypto::aws_lc_rs::default_provider();
    #[cfg(not(feature = "aws-lc-rs"))]
    return rustls::crypto::ring::default_provider();
}

/// What is served: files, and a certificate with an ECDSA key over P-256.
pub struct Site {
    folder: tempfile::TempDir,
    certificate: PathBuf,
    key: PathBuf,
}

/// A file of the site, by its number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File(pub usize);

impl File {
    /// A kilobyte.
    pub const SMALL: File = File(1024);
    /// A megabyte.
    pub const LARGE: File = File(1 << 20);
    /// 100 megabytes.
    pub const HUGE: File = File(100 << 20);

    /// The path of its URL.
    pub fn path(self) -> String {
        format!("/{}.txt", self.0)
    }

    /// What it holds.
    pub fn body(self) -> Vec<u8> {
        (0..self.0).map(File::byte).collect()
    }

    /// What every file holds at an offset: a shift shows, because the number is prime.
    pub fn byte(offset: usize) -> u8 {
        (offset % 251) as u8
    }

    /// A request for it that keeps the connection, or ends it.
    pub fn request(self, closing: bool) -> Vec<u8> {
        let closes = if closing { "Connection: close\r\n" } else { "" };
        format!("GET {} HTTP/1.1\r\nHost: localhost\r\n{closes}\r\n", self.path()).into_bytes()
    }
}

impl Site {
    /// Writes files and certificate to a disk.
    ///
    /// # Errors
    /// The disk is full, or there is none.
    pub fn make(files: &[File]) -> Outcome<Site> {
        let failed = |error: &dyn std::fmt::Display| format!("cannot make what is served: {error}");
        let folder = servers::disk_folder(None)?;
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).map_err(|e| failed(&e))?;
        let (certificate, key) = (folder.path().join("certificate.pem"), folder.path().join("key.pem"));
        let write = |path: &Path, content: &[u8]| fs::write(path, content).map_err(|error| failed(&error));
        write(&certificate, made.cert.pem().as_bytes())?;
        write(&key, made.signing_key.serialize_pem().as_bytes())?;
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).map_err(|error| failed(&error))?;
        let site = Site { folder, certificate, key };
        fs::create_dir(site.root()).map_err(|error| failed(&error))?;
        for file in files {
            write(&site.root().join(&file.path()[1..]), &file.body())?;
        }
        Ok(site)
    }

    /// Starts a server and sees that it answers twice with the right bytes.
    ///
    /// # Errors
    /// It does not start, or answers otherwise.
    pub fn serve(&self, kind: Kind, file: File) -> Outcome<Server> {
        self.serve_with(kind, file, 1, "")
    }

    /// The same with so many shards and keys of `memory`.
    ///
    /// # Errors
    /// Those of [`Site::serve`].
    pub fn serve_with(&self, kind: Kind, file: File, workers: usize, memory: &str) -> Outcome<Server> {
        let secured = Secured { certificate: &self.certificate, key: &self.key, workers, memory };
        let server = servers::start_secured(kind, &self.root(), self.folder.path(), &secured)?;
        let config = config(Version::Tls13, Resumes::Never)?;
        for _ in 0..2 {
            client::Client::connect(server.port, &config)
                .and_then(|mut client| client.expect(file))
                .map_err(|error| format!("{}: {error}", kind.name()))?;
        }
        Ok(server)
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("site")
    }
}

/// Believes everybody: verifying is the client's work, and the client is not measured.
#[derive(Debug)]
struct Unverified(Vec<SignatureScheme>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.clone()
    }
}
