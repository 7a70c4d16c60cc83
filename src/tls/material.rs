//! What a listener's TLS is made from: read and checked at the start and on each reload, shared by all shards.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustls::{
    InconsistentKeys, ServerConfig, SupportedProtocolVersion, pki_types::CertificateDer, sign::CertifiedKey,
    version,
};
use x509_cert::der::{Decode, Tag, Tagged, asn1::AnyRef};

use super::{
    certificate::Facts,
    clients::Clients,
    pem::{Source, read_file, refused},
    provider::{provider, provider_for, sha256},
    resolver::{Names, Resolver},
    resumption::Resumption,
    tickets::TicketKeys,
};
use crate::{
    config::{Certificate, Pem, Tls},
    error::{Error, ErrorKind, Result},
    sys::thread,
};

/// Most certificates of a chain.
const CHAIN_MAX: usize = 16;
/// Most bytes of the records that a client's hello may come in: those of browsers have two kilobytes, a few more of them in
/// records of a few bytes each.
const HELLO_BYTES_MAX: usize = 16 << 10;
/// The same where clients may show chains of certificates: as large as the library lets a message be.
const CHAIN_BYTES_MAX: usize = 64 << 10;
/// Most bytes of an OCSP response.
const OCSP_BYTES_MAX: u64 = 64 << 10;
/// A certificate that expires so soon is warned about.
const EXPIRES_SOON: Duration = Duration::from_secs(14 * 24 * 60 * 60);
/// `responseStatus successful`, the first element of an OCSP response that says anything (RFC 6960 4.2.1).
const OCSP_SUCCESSFUL: [u8; 3] = [0x0a, 1, 0];

/// Certificates, keys and authorities of one listener.
#[derive(Debug)]
pub struct Material {
    names: Arc<Names>,
    clients: Clients,
    versions: Vec<&'static SupportedProtocolVersion>,
    expiries: Vec<Expiry>,
    warnings: Vec<String>,
    /// Of the file that the listener shares with other machines.
    ticket_keys: Option<Arc<TicketKeys>>,
}

/// When a certificate ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// Its file, or its first name when it was given as text.
    pub certificate: String,
    /// Unix time in seconds.
    pub not_after: u64,
    /// SHA-256 of the certificate: which one it is.
    pub fingerprint: [u8; 32],
}

/// What one shard accepts a listener's connections with.
#[derive(Debug)]
pub struct Acceptor {
    config: Arc<ServerConfig>,
    resolver: Arc<Resolver>,
    handshake_bytes_max: usize,
}

impl Material {
    /// Reads what a listener is configured with. Blocks. Not for a thread of the host's: the library that computes keeps
    /// something of its own on each thread that it has worked on.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] naming the file and what is wrong with it.
    pub fn load(tls: &Tls) -> Result<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let clients = Clients::load(tls.client_auth.as_ref())?;
        let (mut certificates, mut expiries, mut warnings) = (Vec::new(), Vec::new(), Vec::new());
        for certificate in &tls.certificates {
            let loaded = Loaded::read(certificate, now)?;
            if loaded.facts.names.is_empty() && !certificates.is_empty() {
                warnings.push(format!("{}: no DNS name in it, so that no client gets it", loaded.chain_name));
            }
            expiries.push(loaded.expiry(&certificate.chain));
            warnings.extend(loaded.warnings);
            certificates.push((Arc::new(loaded.key), loaded.facts.names));
        }
        let ticket_keys = tls.ticket_key_file.as_deref().map(TicketKeys::load).transpose()?;
        warnings.extend(ticket_keys.as_ref().and_then(TicketKeys::warning).map(String::from));
        let versions = [(tls.versions.tls13, &version::TLS13), (tls.versions.tls12, &version::TLS12)];
        Ok(Material {
            names: Arc::new(Names::new(&certificates)),
            clients,
            versions: versions.into_iter().filter(|(on, _)| *on).map(|(_, version)| version).collect(),
            expiries,
            warnings,
            ticket_keys: ticket_keys.map(Arc::new),
        })
    }

    /// Reads what each of several listeners is configured with, on a thread of its own, and waits for it.
    ///
    /// # Errors
    /// Those of [`Material::load`]; [`ErrorKind::Io`] when there is no such thread.
    pub fn load_all(listeners: Vec<Option<Tls>>) -> Result<Vec<Option<Self>>> {
        if listeners.iter().all(Option::is_none) {
            return Ok(listeners.iter().map(|_| None).collect());
        }
        let load = move || listeners.iter().map(|tls| tls.as_ref().map(Material::load).transpose()).collect();
        let thread = thread::spawn("webserver/tls", load)
            .map_err(|error| Error::io("cannot start a thread", &error))?;
        thread.join().unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Panic, "reading certificates failed: a bug in webserver"))
        })
    }

    /// What one shard accepts connections with; `resumption` is that shard's.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when no version is on.
    pub fn acceptor(&self, resumption: &Resumption) -> Result<Arc<Acceptor>> {
        let resolver = Arc::new(Resolver::new(Arc::clone(&self.names)));
        let mut config = ServerConfig::builder_with_provider(provider_for(&self.versions))
            .with_protocol_versions(&self.versions)
            .map_err(|error| Error::new(ErrorKind::Config, error.to_string()))?
            .with_client_cert_verifier(Arc::clone(&self.clients.verifier))
            .with_cert_resolver(Arc::<Resolver>::clone(&resolver));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.ignore_client_order = true;
        resumption.apply(&mut config, &self.policy(), self.ticket_keys.as_ref());
        let handshake_bytes_max =
            if self.clients.verifier.offer_client_auth() { CHAIN_BYTES_MAX } else { HELLO_BYTES_MAX };
        Ok(Arc::new(Acceptor { config: Arc::new(config), resolver, handshake_bytes_max }))
    }

    /// Which client certificates are asked for, as a number that differs whenever that differs, and is the same on every
    /// machine and after each reload: a session made under one policy must not be resumed under another.
    pub fn policy(&self) -> [u8; 32] {
        self.clients.policy
    }

    /// When each certificate ends, in the order of the configuration.
    pub fn expiries(&self) -> &[Expiry] {
        &self.expiries
    }

    /// What is allowed and yet should be looked at, a line for each.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

impl Acceptor {
    /// The shard's configuration of the library.
    pub fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }

    /// Bytes of records that may have to be kept until a handshake's message is whole.
    pub fn handshake_bytes_max(&self) -> usize {
        self.handshake_bytes_max
    }

    /// The host that the client asked for (SNI), in lower case, once. To be called right after a `ClientHello` was
    /// processed: it is that of the last one, whichever connection that was.
    pub fn take_server_name(&self) -> Option<Box<str>> {
        self.resolver.take_server_name()
    }
}

/// A certificate with its key, checked.
struct Loaded {
    key: CertifiedKey,
    facts: Facts,
    /// What messages call it.
    chain_name: String,
    warnings: Vec<String>,
}

impl Loaded {
    fn read(certificate: &Certificate, now: Duration) -> Result<Loaded> {
        let source = Source::read(&certificate.chain, "certificate (PEM text)")?;
        let chain = source.certificates(CHAIN_MAX)?;
        let facts = facts(&source, &chain, now)?;
        let key_source = Source::read(&certificate.key, "key (PEM text)")?;
        let mut key = pair(&source, chain, &key_source)?;
        key.ocsp = certificate.ocsp.as_deref().map(ocsp).transpose()?;

        let mut warnings = Vec::new();
        if facts.not_before.unix_seconds() > now.as_secs() {
            warnings.push(format!("{}: valid only from {}", source.name, facts.not_before));
        }
        if facts.not_after.unix_seconds() < (now + EXPIRES_SOON).as_secs() {
            warnings.push(format!("{}: expires on {}", source.name, facts.not_after));
        }
        if key_source.is_open_to_others() {
            warnings.push(format!("{}: a private key that every user may read or change", key_source.name));
        }
        Ok(Loaded { key, facts, chain_name: source.name, warnings })
    }

    fn expiry(&self, chain: &Pem) -> Expiry {
        let certificate = match (chain, self.facts.names.first()) {
            (Pem::Text(_), Some(name)) => name.to_string(),
            _ => self.chain_name.clone(),
        };
        let fingerprint = self.key.cert.first().map_or([0; 32], |own| sha256(own));
        Expiry { certificate, not_after: self.facts.not_after.unix_seconds(), fingerprint }
    }
}

/// Reads the server's own certificate; each of the chain must be one, and that one must not have expired. Of the others
/// clients choose those that they need.
fn facts(source: &Source, chain: &[CertificateDer<'static>], now: Duration) -> Result<Facts> {
    let unreadable = |index: usize, error| {
        source.refused(format_args!("certificate {} of the chain cannot be read: {error}", index + 1))
    };
    for (index, certificate) in chain.iter().enumerate().skip(1) {
        AnyRef::from_der(certificate).map_err(|error| unreadable(index, error))?;
    }
    let own = chain.first().map(AsRef::as_ref).unwrap_or_default();
    let facts = Facts::read(own).map_err(|error| unreadable(0, error))?;
    if facts.not_after.unix_seconds() < now.as_secs() {
        return Err(source.refused(format_args!("the certificate expired on {}", facts.not_after)));
    }
    Ok(facts)
}

/// The chain with its key, which must belong to the first certificate.
fn pair(chain_source: &Source, chain: Vec<CertificateDer<'static>>, source: &Source) -> Result<CertifiedKey> {
    let key = provider().key_provider.load_private_key(source.private_key()?).map_err(|error| {
        source.refused(format_args!("not an RSA, ECDSA or Ed25519 key that can be used: {error}"))
    })?;
    let pair = CertifiedKey::new(chain, key);
    pair.keys_match().map_err(|error| match error {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => source.refused(format_args!(
            "the key does not belong to the certificate in {} (of a chain, the first)",
            chain_source.name
        )),
        rustls::Error::InvalidCertificate(reason) => {
            chain_source.refused(format_args!("the certificate cannot be used: {reason}"))
        }
        error => chain_source.refused(error),
    })?;
    Ok(pair)
}

/// Reads an OCSP response. What it says and of which certificate is for the clients to judge.
fn ocsp(path: &Path) -> Result<Vec<u8>> {
    let (bytes, _) = read_file(path, OCSP_BYTES_MAX)?;
    let successful = AnyRef::from_der(&bytes).is_ok_and(|response| {
        response.tag() == Tag::Sequence && response.value().starts_with(&OCSP_SUCCESSFUL)
    });
    if !successful {
        return Err(refused(path.display(), "not a successful OCSP response in DER"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
