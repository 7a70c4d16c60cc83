//! Authorities, certificates and keys for one test, made anew in a folder of its own.

#![allow(dead_code, reason = "the tests of HTTPS use their part of it")]

use std::{fs, path::PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

/// Two authorities, and the folder in which they and what they sign are written. Keys are ECDSA P-256 unless a name
/// says otherwise; files of pairs are `NAME.pem` and `NAME.key`, so that a second pair of one name replaces the first.
pub struct Certificates {
    pub folder: tempfile::TempDir,
    authority: Authority,
    stranger: Authority,
}

type Authority = CertifiedIssuer<'static, KeyPair>;

/// A certificate and its key.
#[derive(Debug)]
pub struct Pair {
    /// The file of the certificate, PEM.
    pub certificate: PathBuf,
    /// The file of the key, PEM (PKCS #8).
    pub key: PathBuf,
    pub der: CertificateDer<'static>,
}

impl Pair {
    /// As an element of `certificates`.
    pub fn yaml(&self) -> String {
        format!("{{ certificate: {}, key: {} }}", self.certificate.display(), self.key.display())
    }

    pub fn certificate_text(&self) -> String {
        fs::read_to_string(&self.certificate).unwrap()
    }

    pub fn key_text(&self) -> String {
        fs::read_to_string(&self.key).unwrap()
    }

    pub fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_file(&self.key).unwrap()
    }
}

impl Certificates {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (authority, stranger) = (authority("Test Authority"), authority("Other Authority"));
        fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
        fs::write(folder.path().join("stranger.pem"), stranger.pem()).unwrap();
        Certificates { folder, authority, stranger }
    }

    /// The file of the authority that signs everything but [`Certificates::stranger`].
    pub fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    pub fn ca_der(&self) -> CertificateDer<'static> {
        self.authority.der().clone()
    }

    /// A server's, for these names and addresses; the first names its files.
    pub fn server(&self, names: &[&str]) -> Pair {
        self.pair(names[0], server_params(names), &KeyPair::generate().unwrap(), &self.authority)
    }

    /// The same with an RSA key of 2,048 bits; its files are `NAME-rsa`. `None`: the provider that this was built with
    /// makes no such keys.
    pub fn rsa_server(&self, names: &[&str]) -> Option<Pair> {
        let key = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).ok()?;
        Some(self.pair(&format!("{}-rsa", names[0]), server_params(names), &key, &self.authority))
    }

    /// A server's that has expired.
    pub fn expired_server(&self, names: &[&str]) -> Pair {
        self.server_until(names, 2020)
    }

    /// A server's that expires when this year begins, UTC.
    pub fn server_until(&self, names: &[&str], year: i32) -> Pair {
        let mut params = server_params(names);
        params.not_before = date_time_ymd(2019, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        self.pair(names[0], params, &KeyPair::generate().unwrap(), &self.authority)
    }

    /// A client's: this is the common name of its subject.
    pub fn client(&self, name: &str) -> Pair {
        self.pair(name, client_params(name), &KeyPair::generate().unwrap(), &self.authority)
    }

    /// A client's that has expired.
    pub fn expired_client(&self, name: &str) -> Pair {
        let mut params = client_params(name);
        params.not_before = date_time_ymd(2019, 1, 1);
        params.not_after = date_time_ymd(2020, 1, 1);
        self.pair(name, params, &KeyPair::generate().unwrap(), &self.authority)
    }

    /// A client's that the other authority signed.
    pub fn stranger(&self, name: &str) -> Pair {
        self.pair(name, client_params(name), &KeyPair::generate().unwrap(), &self.stranger)
    }

    fn pair(&self, name: &str, params: CertificateParams, key: &KeyPair, by: &Authority) -> Pair {
        let signed = params.signed_by(key, by).unwrap();
        let file = |ending| self.folder.path().join(format!("{}.{ending}", name.replace('*', "any")));
        let pair = Pair { certificate: file("pem"), key: file("key"), der: signed.der().clone() };
        fs::write(&pair.certificate, signed.pem()).unwrap();
        fs::write(&pair.key, key.serialize_pem()).unwrap();
        pair
    }
}

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Authority::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn server_params(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names.as_slice()).unwrap();
    params.distinguished_name.push(DnType::CommonName, names[0].as_str());
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params
}

fn client_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}
