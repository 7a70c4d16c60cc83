//! What tests of TLS are made of: authorities, certificates, clients, handshakes in memory.

use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SerialNumber};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, ServerConnection, SignatureScheme,
    SupportedProtocolVersion,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    version,
};

use super::{
    material::{Acceptor, Material},
    provider::provider,
    resumption::testing::Machine,
};
use crate::config::{Certificate, Pem, Tls, TlsSessionCache, TlsVersions};

/// A certificate and its key, both PEM.
#[derive(Clone)]
pub struct Made {
    pub certificate: String,
    pub key: String,
}

impl Made {
    pub fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap()
    }

    pub fn configured(&self) -> Certificate {
        Certificate {
            chain: Pem::Text(self.certificate.as_str().into()),
            key: Pem::Text(self.key.as_str().into()),
            ocsp: None,
        }
    }
}

/// A certificate for `names` by its own new key, changed by `change` before it is signed.
pub fn made(names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Made {
    made_with(&KeyPair::generate().unwrap(), names, change)
}

/// The same with a key.
pub fn made_with(key: &KeyPair, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Made {
    let certificate = parameters(names, change).self_signed(key).unwrap();
    Made { certificate: certificate.pem(), key: key.serialize_pem() }
}

fn parameters(names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.serial_number = Some(SerialNumber::from_slice(&[1]));
    change(&mut params);
    params
}

/// An authority, which signs certificates.
pub struct Authority {
    pub certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub fn new(name: &str) -> Authority {
        let key = KeyPair::generate().unwrap();
        let params = parameters(&[], |params| {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.distinguished_name.push(DnType::CommonName, name);
        });
        let certificate = params.self_signed(&key).unwrap().pem();
        Authority { certificate, issuer: Issuer::new(params, key) }
    }

    pub fn signs(&self, change: impl FnOnce(&mut CertificateParams)) -> Made {
        let key = KeyPair::generate().unwrap();
        let certificate = parameters(&[], change).signed_by(&key, &self.issuer).unwrap();
        Made { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

/// A listener's settings with these certificates, given as text.
pub fn settings(certificates: &[&Made]) -> Tls {
    Tls {
        certificates: certificates.iter().map(|made| made.configured()).collect(),
        versions: TlsVersions::default(),
        client_auth: None,
        ticket_key_file: None,
    }
}

/// What a shard that is alone accepts with.
pub fn accepting(material: &Material) -> Arc<Acceptor> {
    material.acceptor(&Machine::new(1, TlsSessionCache::default()).shards[0]).unwrap()
}

/// A client that takes any certificate with a signature of these schemes, and shows what it got.
#[derive(Debug)]
pub struct Client {
    pub schemes: Vec<SignatureScheme>,
    pub ocsp: Mutex<Vec<u8>>,
}

impl Client {
    pub fn verifying(schemes: &[SignatureScheme]) -> Arc<Client> {
        Arc::new(Client { schemes: schemes.to_vec(), ocsp: Mutex::default() })
    }

    pub fn any() -> Arc<Client> {
        Client::verifying(&provider().signature_verification_algorithms.supported_schemes())
    }

    /// Its configuration; `shows` is its own certificate.
    pub fn config(
        self: &Arc<Client>,
        version: &'static SupportedProtocolVersion,
        shows: Option<&Made>,
    ) -> ClientConfig {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[version])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::<Client>::clone(self));
        match shows {
            None => builder.with_no_client_auth(),
            Some(made) => {
                let key = PrivateKeyDer::from_pem_slice(made.key.as_bytes()).unwrap();
                builder.with_client_auth_cert(vec![made.der()], key).unwrap()
            }
        }
    }
}

impl ServerCertVerifier for Client {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        *self.ocsp.lock().unwrap() = ocsp.to_vec();
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &provider().signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}

/// Both versions.
pub const VERSIONS: [&SupportedProtocolVersion; 2] = [&version::TLS12, &version::TLS13];

/// Both ends after a handshake in memory, or what the server said of it, or the client.
pub fn handshake(
    acceptor: &Acceptor,
    config: ClientConfig,
    name: &str,
) -> Result<(ClientConnection, ServerConnection), Error> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut server = ServerConnection::new(Arc::clone(acceptor.config())).unwrap();
    while client.is_handshaking() || server.is_handshaking() || client.wants_write() || server.wants_write() {
        let mut records = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut records).unwrap();
        }
        server.read_tls(&mut records.as_slice()).unwrap();
        server.process_new_packets()?;
        let mut records = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut records).unwrap();
        }
        client.read_tls(&mut records.as_slice()).unwrap();
        client.process_new_packets()?;
    }
    Ok((client, server))
}
