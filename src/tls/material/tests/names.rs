//! Which certificate a client gets, seen from the client.

use std::sync::Arc;

use rcgen::KeyPair;
use rustls::{
    ClientConfig, Error, SignatureScheme, SupportedProtocolVersion, crypto::CryptoProvider,
    pki_types::CertificateDer, version,
};

use crate::{
    config::{Tls, TlsVersions},
    tls::{
        Acceptor, Material,
        provider::provider,
        testing::{Client, Made, VERSIONS, accepting, handshake, made, made_with, settings},
    },
};

const ECDSA: [SignatureScheme; 1] = [SignatureScheme::ECDSA_NISTP256_SHA256];
const RSA: [SignatureScheme; 1] = [SignatureScheme::RSA_PSS_SHA256];

fn acceptor(certificates: &[&Made]) -> Arc<Acceptor> {
    accepting(&Material::load(&settings(certificates)).unwrap())
}

fn rsa(names: &[&str]) -> Made {
    let key = include_str!("../../../../tests/data/tls/rsa.pkcs8.pem");
    made_with(&KeyPair::from_pem(key).unwrap(), names, |_| ())
}

/// The certificate that a client gets.
fn shown(
    acceptor: &Acceptor,
    version: &'static SupportedProtocolVersion,
    name: &str,
    schemes: &[SignatureScheme],
) -> CertificateDer<'static> {
    let config = Client::verifying(schemes).config(version, None);
    let (client, _) = handshake(acceptor, config, name).unwrap();
    client.peer_certificates().unwrap()[0].clone().into_owned()
}

#[test]
fn a_name_gets_its_certificate_exact_before_wildcard_before_the_first() {
    let first = made(&["first.example"], |_| ());
    let wildcard = made(&["*.example.com"], |_| ());
    let exact = made(&["www.example.com", "Upper.Example.COM"], |_| ());
    let acceptor = acceptor(&[&first, &wildcard, &exact]);
    for version in VERSIONS {
        for (name, expected) in [
            ("first.example", &first),
            ("www.example.com", &exact),
            ("WWW.Example.com", &exact),
            ("upper.example.com", &exact),
            ("other.example.com", &wildcard),
            ("example.com", &first),
            ("a.b.example.com", &first),
            ("a.www.example.com", &first),
            ("nobody.example", &first),
            ("com", &first),
            ("192.0.2.1", &first),
        ] {
            assert_eq!(shown(&acceptor, version, name, &ECDSA), expected.der(), "{name}");
        }
    }
}

#[test]
fn the_name_asked_for_is_told_once() {
    let acceptor = acceptor(&[&made(&["a.example"], |_| ())]);
    assert_eq!(acceptor.take_server_name(), None);
    for (asked, told) in [("Nobody.Example", Some("nobody.example")), ("192.0.2.1", None)] {
        for name in ["a.example", asked] {
            handshake(&acceptor, Client::any().config(&version::TLS13, None), name).unwrap();
        }
        assert_eq!(acceptor.take_server_name().as_deref(), told);
        assert_eq!(acceptor.take_server_name(), None);
    }
}

#[test]
fn shards_do_not_see_each_others_names() {
    let material = Material::load(&settings(&[&made(&["a.example"], |_| ())])).unwrap();
    let (one, other) = (accepting(&material), accepting(&material));
    handshake(&one, Client::any().config(&version::TLS13, None), "a.example").unwrap();
    assert_eq!(other.take_server_name(), None);
    assert_eq!(one.take_server_name().as_deref(), Some("a.example"));
}

#[test]
fn of_several_kinds_of_key_a_client_gets_one_that_it_can_verify_ecdsa_first() {
    let (rsa, ecdsa) = (rsa(&["both.example"]), made(&["both.example"], |_| ()));
    let all = provider().signature_verification_algorithms.supported_schemes();
    for order in [[&rsa, &ecdsa], [&ecdsa, &rsa]] {
        let acceptor = acceptor(&order);
        for version in VERSIONS {
            // A name of both, and one of neither: the default is both as well.
            for name in ["both.example", "other.example"] {
                assert_eq!(shown(&acceptor, version, name, &all), ecdsa.der());
                assert_eq!(shown(&acceptor, version, name, &ECDSA), ecdsa.der());
                assert_eq!(shown(&acceptor, version, name, &RSA), rsa.der());
            }
        }
    }
}

#[test]
fn a_wildcard_helps_out_where_the_exact_names_key_is_of_no_use() {
    let first = made(&["first.example"], |_| ());
    let (exact, wildcard) = (made(&["www.example.com"], |_| ()), rsa(&["*.example.com"]));
    let acceptor = acceptor(&[&first, &exact, &wildcard]);
    assert_eq!(shown(&acceptor, &version::TLS13, "www.example.com", &RSA), wildcard.der());
    assert_eq!(shown(&acceptor, &version::TLS13, "www.example.com", &ECDSA), exact.der());
}

#[test]
fn among_equals_the_order_of_the_configuration_decides() {
    let (one, two) = (made(&["a.example"], |_| ()), made(&["a.example"], |_| ()));
    for (order, expected) in [([&one, &two], &one), ([&two, &one], &two)] {
        assert_eq!(shown(&acceptor(&order), &version::TLS13, "a.example", &ECDSA), expected.der());
    }
}

#[test]
fn a_client_whose_cipher_suites_want_rsa_gets_rsa() {
    let (rsa, ecdsa) = (rsa(&["both.example"]), made(&["both.example"], |_| ()));
    // With TLS 1.3 on, such a client would speak that, where suites say nothing about keys.
    let versions = TlsVersions { tls12: true, tls13: false };
    let tls = Tls { versions, ..settings(&[&ecdsa, &rsa]) };
    let acceptor = accepting(&Material::load(&tls).unwrap());
    let mut limited = CryptoProvider::clone(&provider());
    limited.cipher_suites.retain(|suite| !format!("{:?}", suite.suite()).contains("ECDHE_ECDSA"));
    let config = ClientConfig::builder_with_provider(limited.into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Client::any())
        .with_no_client_auth();
    let (client, _) = handshake(&acceptor, config, "both.example").unwrap();
    assert_eq!(client.peer_certificates().unwrap()[0], rsa.der());
}

#[test]
fn a_client_that_can_verify_no_certificate_is_refused() {
    let acceptor = acceptor(&[&made(&["a.example"], |_| ())]);
    for version in VERSIONS {
        let config = Client::verifying(&RSA).config(version, None);
        let error = handshake(&acceptor, config, "a.example").unwrap_err();
        assert!(matches!(error, Error::PeerIncompatible(_)), "{error}");
    }
}

#[test]
fn an_ocsp_response_is_stapled() {
    let folder = tempfile::TempDir::new().unwrap();
    let response = b"\x30\x03\x0a\x01\x00";
    std::fs::write(folder.path().join("ocsp"), response).unwrap();
    let mut tls = settings(&[&made(&["a.example"], |_| ())]);
    tls.certificates[0].ocsp = Some(folder.path().join("ocsp"));
    let acceptor = accepting(&Material::load(&tls).unwrap());
    for version in VERSIONS {
        let client = Client::any();
        handshake(&acceptor, client.config(version, None), "a.example").unwrap();
        assert_eq!(*client.ocsp.lock().unwrap(), response);
    }
}

#[test]
fn versions_that_are_off_are_not_spoken() {
    let made = made(&["a.example"], |_| ());
    for (spoken, other, versions) in [
        (&version::TLS12, &version::TLS13, TlsVersions { tls12: true, tls13: false }),
        (&version::TLS13, &version::TLS12, TlsVersions { tls12: false, tls13: true }),
    ] {
        let tls = Tls { versions, ..settings(&[&made]) };
        let acceptor = accepting(&Material::load(&tls).unwrap());
        let (client, _) = handshake(&acceptor, Client::any().config(spoken, None), "a.example").unwrap();
        assert_eq!(client.protocol_version(), Some(spoken.version));
        let error = handshake(&acceptor, Client::any().config(other, None), "a.example").unwrap_err();
        assert!(matches!(error, Error::PeerIncompatible(_)), "{error}");
    }
}

#[test]
fn the_protocol_is_http_1_1_or_left_open() {
    let acceptor = acceptor(&[&made(&["a.example"], |_| ())]);
    for version in VERSIONS {
        for (offered, agreed) in [
            (&["h2", "http/1.1"][..], Ok(Some(b"http/1.1".to_vec()))),
            (&[], Ok(None)),
            (&["h2"], Err(Error::NoApplicationProtocol)),
        ] {
            let mut config = Client::any().config(version, None);
            config.alpn_protocols = offered.iter().map(|name| name.as_bytes().to_vec()).collect();
            let ends = handshake(&acceptor, config, "a.example");
            assert_eq!(ends.map(|(client, _)| client.alpn_protocol().map(<[u8]>::to_vec)), agreed);
        }
    }
}
