//! A certificate to try things out with: nobody has signed it, so clients must be told to trust it.

use std::time::{Duration, SystemTime};

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
};

use crate::error::{Error, ErrorKind, Result};

/// How long it is valid.
const LIFETIME: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// It is valid since a while before it was made: the clients' clocks may be slow.
const BACKDATED: Duration = Duration::from_secs(60 * 60);

/// Makes a key (ECDSA, P-256) and a certificate for it that is valid for 30 days, both as PEM: the certificate first.
/// `names` are DNS names and IP addresses; they become its subject alternative names. Writes no file.
///
/// # Errors
/// [`ErrorKind::Invalid`] without a name or with one that is neither; [`ErrorKind::Io`] when the system has no randomness.
pub fn self_signed(names: &[String]) -> Result<(String, String)> {
    if names.is_empty() {
        return Err(Error::new(ErrorKind::Invalid, "a certificate needs at least one name"));
    }
    let mut params = CertificateParams::new(names)
        .map_err(|error| Error::new(ErrorKind::Invalid, format!("no certificate for {names:?}: {error}")))?;
    let now = SystemTime::now();
    params.not_before = (now - BACKDATED).into();
    params.not_after = (now + LIFETIME).into();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "webserver self-signed certificate");
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];

    let failed =
        |error: rcgen::Error| Error::new(ErrorKind::Io, format!("cannot make a certificate: {error}"));
    let key = KeyPair::generate().map_err(failed)?;
    let certificate = params.self_signed(&key).map_err(failed)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::{
        CertificateError, RootCertStore,
        client::{WebPkiServerVerifier, danger::ServerCertVerifier},
        pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
    };

    use super::*;
    use crate::tls::provider::provider;

    /// What a client that trusts the certificate says about it, for a name, some days from now.
    fn verdict(pem: &str, name: &str, days: u64) -> Result<(), rustls::Error> {
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).unwrap();
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build().unwrap();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let then = UnixTime::since_unix_epoch(now + Duration::from_secs(days * 24 * 60 * 60));
        let name = ServerName::try_from(name).unwrap();
        verifier.verify_server_cert(&certificate, &[], &name, &[], then).map(|_| ())
    }

    #[test]
    fn is_good_for_its_names_and_addresses_and_for_a_month() {
        let names = ["localhost", "127.0.0.1", "::1"].map(String::from);
        let (certificate, _) = self_signed(&names).unwrap();
        for name in &names {
            verdict(&certificate, name, 0).unwrap();
            verdict(&certificate, name, 29).unwrap();
        }
        let other = verdict(&certificate, "example.com", 0).unwrap_err();
        assert!(matches!(
            other,
            rustls::Error::InvalidCertificate(CertificateError::NotValidForNameContext { .. })
        ));
        let late = verdict(&certificate, "localhost", 31).unwrap_err();
        assert!(matches!(late, rustls::Error::InvalidCertificate(CertificateError::ExpiredContext { .. })));
    }

    #[test]
    fn each_one_has_a_key_of_its_own() {
        let names = [String::from("localhost")];
        let (first, second) = (self_signed(&names).unwrap(), self_signed(&names).unwrap());
        assert_ne!(first.1, second.1);
        assert!(first.1.starts_with("-----BEGIN PRIVATE KEY-----"));
    }

    #[test]
    fn names_are_wanted_and_checked() {
        assert_eq!(self_signed(&[]).unwrap_err().kind(), ErrorKind::Invalid);
        let error = self_signed(&[String::from("bücher.example")]).unwrap_err();
        assert!(error.to_string().contains("bücher.example"), "{error}");
    }
}
