//! The options that turn addresses into HTTPS.

use std::{fs, sync::Arc};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName},
};

use crate::{
    anyone::Anyone,
    process::{Binary, connect, get_over, run},
};

/// A client of `localhost`, and what the server's certificate has to be for it.
fn client(verifier: Arc<dyn ServerCertVerifier>) -> ClientConnection {
    let config = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let config = config.unwrap().dangerous().with_custom_certificate_verifier(verifier);
    let name = ServerName::try_from("localhost").unwrap();
    ClientConnection::new(Arc::new(config.with_no_client_auth()), name).unwrap()
}

fn provider() -> Arc<CryptoProvider> {
    #[cfg(feature = "aws-lc-rs")]
    return Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    #[cfg(not(feature = "aws-lc-rs"))]
    return Arc::new(rustls::crypto::ring::default_provider());
}

/// What a client gets that trusts this certificate and no other.
fn get_trusting(port: u16, certificate: &CertificateDer<'static>) -> String {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build().unwrap();
    get_over(StreamOwned::new(client(verifier), connect(port)), "/")
}

/// The certificate that the server shows.
fn shown(port: u16) -> CertificateDer<'static> {
    let mut tls = client(Arc::new(Anyone(provider())));
    let mut socket = connect(port);
    while tls.is_handshaking() {
        tls.complete_io(&mut socket).unwrap();
    }
    tls.peer_certificates().unwrap()[0].clone().into_owned()
}

fn https_port(binary: &mut Binary) -> u16 {
    binary.line("listening on https://127.0.0.1:").parse().unwrap()
}

#[test]
fn a_certificate_and_its_key_make_every_address_https() {
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (certificate, key) = (folder.path().join("c.pem"), folder.path().join("k.pem"));
    fs::write(&certificate, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    fs::create_dir(folder.path().join("site")).unwrap();
    fs::write(folder.path().join("site/index.html"), "<p>mine").unwrap();
    let site = folder.path().join("site");
    let options = ["--tls-cert", certificate.to_str().unwrap(), "--tls-key", key.to_str().unwrap()];
    let listen = ["-l", "127.0.0.1:0", "-l", "127.0.0.1:0", "--shards", "1", site.to_str().unwrap()];
    let mut binary = Binary::start(&[&options[..], &listen[..]].concat());
    for port in [https_port(&mut binary), https_port(&mut binary)] {
        assert!(get_trusting(port, made.cert.der()).ends_with("<p>mine"));
    }
    binary.signal("TERM");
    assert_eq!(binary.exit_code(), Some(0));

    fs::write(&key, "no key").unwrap();
    let (code, _, err) = run(&[&options[..], &listen[..]].concat());
    assert_eq!(code, Some(2));
    assert!(err.contains(key.to_str().unwrap()), "{err}");
}

#[test]
fn a_throw_away_certificate_is_signed_by_nobody_and_stays_over_a_reload() {
    let mut binary = Binary::start(&["--tls-self-signed", "-l", "127.0.0.1:0", "--shards", "1"]);
    let port = https_port(&mut binary);
    let notice = binary.line("webserver: a throw-away certificate for localhost, 127.0.0.1, ::1");
    assert!(notice.ends_with("nobody has signed it, so clients must be told to trust it"), "{notice}");
    let shown = shown(port);
    assert!(get_trusting(port, &shown).starts_with("HTTP/1.1 200 OK\r\n"));
    binary.signal("HUP");
    while !binary.line("").ends_with("nothing has changed") {}
    assert_eq!(self::shown(port), shown);
    binary.signal("TERM");
    assert_eq!(binary.exit_code(), Some(0));
}
