//! Certificates of clients: which authorities may have signed them.

use std::sync::Arc;

use rustls::{
    RootCertStore,
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};

use super::{
    pem::Source,
    provider::{provider, sha256},
};
use crate::{config::ClientAuth, error::Result};

/// What is asked of a listener's clients.
#[derive(Debug)]
pub(super) struct Clients {
    /// Verifies what they show.
    pub verifier: Arc<dyn ClientCertVerifier>,
    /// Tells apart what is asked: equal for equal authorities and demands, whatever the machine, the file's name or the
    /// order in the file.
    pub policy: [u8; 32],
}

/// What is asked; its number goes into the policy.
#[derive(Clone, Copy)]
enum Demand {
    Nothing,
    Optional,
    Required,
}

impl Clients {
    /// Reads the authorities. Blocks.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Config`] naming the file, when it cannot be read, is larger than 1 MB, or holds no certificate
    /// or one that cannot be an authority's.
    pub(super) fn load(auth: Option<&ClientAuth>) -> Result<Clients> {
        let Some(auth) = auth else {
            let verifier = WebPkiClientVerifier::no_client_auth();
            return Ok(Clients { verifier, policy: policy(Demand::Nothing, Vec::new()) });
        };
        let source = Source::read(&auth.ca, "client_ca (PEM text)")?;
        let authorities = source.certificates(usize::MAX)?;
        let mut roots = RootCertStore::empty();
        for (index, authority) in authorities.iter().enumerate() {
            roots.add(authority.clone()).map_err(|error| {
                source.refused(format_args!("certificate {} cannot be an authority's: {error}", index + 1))
            })?;
        }
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
        let (builder, demand) = match auth.optional {
            true => (builder.allow_unauthenticated(), Demand::Optional),
            false => (builder, Demand::Required),
        };
        let verifier = builder.build().map_err(|error| source.refused(error))?;
        let authorities = authorities.iter().map(AsRef::as_ref).collect();
        Ok(Clients { verifier, policy: policy(demand, authorities) })
    }
}

/// SHA-256 over the demand and the authorities, each with its length before it.
fn policy(demand: Demand, mut authorities: Vec<&[u8]>) -> [u8; 32] {
    authorities.sort_unstable();
    authorities.dedup();
    let mut bytes = b"webserver client certificates\0".to_vec();
    bytes.push(demand as u8);
    for authority in authorities {
        bytes.extend((authority.len() as u64).to_be_bytes());
        bytes.extend(authority);
    }
    sha256(&bytes)
}
