//! What a listener's TLS is made from: read and checked at the start and on each reload, shared by all shards.

use std::{path::Path, sync::Arc};

use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use super::provider::provider;
use crate::{
    config::{Certificate, Pem, Tls},
    error::{Error, ErrorKind, Result},
};

/// Certificates and keys of one listener.
#[derive(Debug)]
pub struct Material {
    certificates: Vec<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    versions: Vec<&'static rustls::SupportedProtocolVersion>,
}

impl Material {
    /// Reads what a listener is configured with. Blocks.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] naming the file and what is wrong with it.
    pub fn load(tls: &Tls) -> Result<Self> {
        let certificates = tls.certificates.iter().map(read).collect::<Result<_>>()?;
        let mut versions = Vec::new();
        if tls.versions.tls13 {
            versions.push(&rustls::version::TLS13);
        }
        if tls.versions.tls12 {
            versions.push(&rustls::version::TLS12);
        }
        Ok(Material { certificates, versions })
    }

    /// What one shard accepts connections with.
    pub fn acceptor(&self) -> Result<Arc<ServerConfig>> {
        let wrong = |error: rustls::Error| Error::new(ErrorKind::Config, error.to_string());
        let (chain, key) = &self.certificates[0];
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&self.versions)
            .map_err(wrong)?
            .with_no_client_auth()
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(wrong)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.send_tls13_tickets = 1;
        Ok(Arc::new(config))
    }
}

fn read(certificate: &Certificate) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let (Pem::File(chain), Pem::File(key)) = (&certificate.chain, &certificate.key) else { todo!() };
    let wrong = |path: &Path, error: rustls::pki_types::pem::Error| {
        Error::new(ErrorKind::Config, format!("{}: {error}", path.display()))
    };
    let chain = CertificateDer::pem_file_iter(chain)
        .and_then(Iterator::collect)
        .map_err(|error| wrong(chain, error))?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(key, error))?;
    Ok((chain, key))
}
