//! What is read, what is refused and with which words.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use rcgen::{CertificateParams, KeyPair, PKCS_ED25519, date_time_ymd};
use tempfile::TempDir;

use crate::{
    config::{Certificate, ClientAuth, Pem, Tls},
    error::ErrorKind,
    tls::{
        Material,
        self_signed::self_signed,
        testing::{Made, made, made_with, settings},
    },
};

macro_rules! data {
    ($file:literal) => {
        include_str!(concat!("../../../../tests/data/tls/", $file))
    };
}

/// Well-formed PEM that is no certificate.
const JUNK: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";

/// A folder with the files of one certificate.
struct Files {
    folder: TempDir,
    made: Made,
}

impl Files {
    fn new() -> Files {
        Files::of(made(&["a.example"], |_| ()))
    }

    fn of(made: Made) -> Files {
        let files = Files { folder: TempDir::new().unwrap(), made };
        files.write("cert.pem", &files.made.certificate);
        files.write("key.pem", &files.made.key);
        files.set_mode("key.pem", 0o600);
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.path(name), bytes).unwrap();
    }

    fn set_mode(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    fn settings(&self) -> Tls {
        let file = |name| Pem::File(self.path(name));
        let certificate = Certificate { chain: file("cert.pem"), key: file("key.pem"), ocsp: None };
        Tls { certificates: vec![certificate], ..settings(&[]) }
    }

    /// The files are refused with a message that names one of them and then says something.
    fn assert_refused(&self, name: &str, reason: &str) {
        self.assert_settings_refused(&self.settings(), name, reason);
    }

    fn assert_settings_refused(&self, tls: &Tls, name: &str, reason: &str) {
        let error = Material::load(tls).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        let expected = format!("{}: {reason}", self.path(name).display());
        assert!(error.to_string().contains(&expected), "{error}, not {expected}");
    }
}

fn warnings(tls: &Tls) -> Vec<String> {
    Material::load(tls).unwrap().warnings().to_vec()
}

#[test]
fn keys_are_read_in_each_form() {
    let rsa = KeyPair::from_pem(data!("rsa.pkcs8.pem")).unwrap();
    let ec = KeyPair::from_pem(data!("ec.pkcs8.pem")).unwrap();
    let ed25519 = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    for (pair, key) in [
        (&rsa, data!("rsa.pkcs8.pem")),
        (&rsa, data!("rsa.pkcs1.pem")),
        (&ec, data!("ec.pkcs8.pem")),
        (&ec, data!("ec.sec1.pem")),
        (&ed25519, ed25519.serialize_pem().as_str()),
    ] {
        let made = Made { key: key.to_owned(), ..made_with(pair, &["a.example"], |_| ()) };
        Material::load(&settings(&[&made])).unwrap();
        Material::load(&Files::of(made).settings()).unwrap();
    }
}

#[test]
fn files_that_cannot_be_read_are_refused() {
    for missing in ["cert.pem", "key.pem"] {
        let files = Files::new();
        fs::remove_file(files.path(missing)).unwrap();
        files.assert_refused(missing, "No such file or directory");
        assert_eq!(Material::load(&files.settings()).unwrap_err().sys_errno(), libc::ENOENT);
        fs::create_dir(files.path(missing)).unwrap();
        files.assert_refused(missing, "Is a directory");
    }
}

#[test]
fn files_with_something_else_in_them_are_refused() {
    let files = Files::new();
    for wrong in ["", "certainly not PEM\n", files.made.key.as_str()] {
        files.write("cert.pem", wrong);
        files.assert_refused("cert.pem", "no certificate in it: PEM is wanted");
    }
    files.write("cert.pem", files.made.der());
    files.assert_refused("cert.pem", "no certificate in it: it is DER");
    files.write("cert.pem", &files.made.certificate[..100]);
    files.assert_refused("cert.pem", "a PEM block without its END line");
    files.write("cert.pem", files.made.certificate.replacen("\nM", "\n!", 1));
    files.assert_refused("cert.pem", "a PEM block that is not base64");
    files.write("cert.pem", files.made.certificate.replacen("E-----", "E", 1));
    files.assert_refused("cert.pem", "a BEGIN line that is not well formed");
    files.write("cert.pem", JUNK);
    files.assert_refused("cert.pem", "certificate 1 of the chain cannot be read");

    let files = Files::new();
    files.write("key.pem", &files.made.certificate);
    files.assert_refused("key.pem", "no private key in it: PEM is wanted");
}

#[test]
fn chains_are_bounded_and_hold_certificates() {
    let files = Files::new();
    files.write("cert.pem", files.made.certificate.repeat(16));
    Material::load(&files.settings()).unwrap();
    files.write("cert.pem", files.made.certificate.repeat(17));
    files.assert_refused("cert.pem", "more than 16 certificates");
    files.write("cert.pem", format!("{}{JUNK}", files.made.certificate));
    files.assert_refused("cert.pem", "certificate 2 of the chain cannot be read");
}

#[test]
fn files_are_bounded() {
    for large in ["cert.pem", "key.pem"] {
        let files = Files::new();
        let mut bytes = fs::read(files.path(large)).unwrap();
        bytes.resize(1 << 20, b'\n');
        files.write(large, &bytes);
        Material::load(&files.settings()).unwrap();
        bytes.push(b'\n');
        files.write(large, &bytes);
        files.assert_refused(large, "larger than 1024 KB");
    }
    let mut tls = settings(&[&made(&["a.example"], |_| ())]);
    tls.certificates[0].key = Pem::Text("\n".repeat((1 << 20) + 1).into());
    assert_eq!(Material::load(&tls).unwrap_err().message(), "key (PEM text): larger than 1024 KB");
}

#[test]
fn keys_that_cannot_be_used_are_refused() {
    let files = Files::new();
    for encrypted in [data!("encrypted.pkcs8.pem"), data!("encrypted.sec1.pem")] {
        files.write("key.pem", encrypted);
        files.assert_refused("key.pem", "the key is encrypted");
    }
    files.write("key.pem", data!("dsa.pkcs8.pem"));
    files.assert_refused("key.pem", "not an RSA, ECDSA or Ed25519 key that can be used");
}

#[test]
fn a_key_that_does_not_belong_to_the_first_certificate_is_refused() {
    let files = Files::new();
    let reason =
        format!("the key does not belong to the certificate in {}", files.path("cert.pem").display());
    for other in [data!("ec.sec1.pem"), data!("rsa.pkcs8.pem")] {
        files.write("key.pem", other);
        files.assert_refused("key.pem", &reason);
    }
    files.write("key.pem", &files.made.key);
    files
        .write("cert.pem", format!("{}{}", made(&["b.example"], |_| ()).certificate, files.made.certificate));
    files.assert_refused("key.pem", &reason);
}

#[test]
fn an_expired_certificate_is_refused() {
    let files = Files::of(made(&["a.example"], |params| params.not_after = date_time_ymd(2020, 2, 3)));
    files.assert_refused("cert.pem", "the certificate expired on 2020-02-03T00:00:00Z");
}

#[test]
fn an_ocsp_response_is_bounded_and_in_der() {
    let files = Files::new();
    let mut tls = files.settings();
    tls.certificates[0].ocsp = Some(files.path("ocsp"));
    files.assert_settings_refused(&tls, "ocsp", "No such file or directory");
    for wrong in
        [&b""[..], b"-----BEGIN OCSP RESPONSE-----", b"\x30\x03\x0a\x01\x06", b"\x30\x04\x0a\x01\x00"]
    {
        files.write("ocsp", wrong);
        files.assert_settings_refused(&tls, "ocsp", "not a successful OCSP response in DER");
    }
    files.write("ocsp", vec![0x30; (64 << 10) + 1]);
    files.assert_settings_refused(&tls, "ocsp", "larger than 64 KB");
    files.write("ocsp", b"\x30\x03\x0a\x01\x00");
    Material::load(&tls).unwrap();
}

#[test]
fn authorities_that_cannot_be_read_are_refused() {
    let files = Files::new();
    let ca = Pem::File(files.path("ca.pem"));
    let tls = Tls { client_auth: Some(ClientAuth { ca, optional: false }), ..files.settings() };
    files.assert_settings_refused(&tls, "ca.pem", "No such file or directory");
    files.write("ca.pem", "");
    files.assert_settings_refused(&tls, "ca.pem", "no certificate in it");
    files.write("ca.pem", format!("{}{JUNK}", files.made.certificate));
    files.assert_settings_refused(&tls, "ca.pem", "certificate 2 cannot be an authority's");
    files.write("ca.pem", vec![b'\n'; (1 << 20) + 1]);
    files.assert_settings_refused(&tls, "ca.pem", "larger than 1024 KB");
}

#[test]
fn a_key_that_others_may_read_or_change_is_warned_about() {
    let files = Files::new();
    let expected = format!("{}: a private key that every user", files.path("key.pem").display());
    for (mode, warned) in [(0o600, false), (0o640, false), (0o644, true), (0o602, true)] {
        files.set_mode("key.pem", mode);
        let warnings = warnings(&files.settings());
        assert_eq!(warnings.len(), usize::from(warned), "{mode:o}: {warnings:?}");
        assert!(warnings.iter().all(|warning| warning.starts_with(&expected)), "{warnings:?}");
    }
}

#[test]
fn a_certificate_that_is_not_yet_valid_is_warned_about() {
    let early = |params: &mut CertificateParams| params.not_before = date_time_ymd(2999, 1, 1);
    let warnings = warnings(&settings(&[&made(&["a.example"], early)]));
    assert_eq!(warnings, ["certificate (PEM text): valid only from 2999-01-01T00:00:00Z"]);
}

#[test]
fn a_certificate_that_no_client_can_ask_for_is_warned_about() {
    let (named, nameless) = (made(&["a.example"], |_| ()), made(&["192.0.2.1"], |_| ()));
    assert!(warnings(&settings(&[&nameless, &named])).is_empty());
    let warnings = warnings(&settings(&[&named, &nameless]));
    assert_eq!(warnings, ["certificate (PEM text): no DNS name in it, so that no client gets it"]);
}

#[test]
fn a_certificate_that_expires_soon_is_warned_about() {
    let (certificate, key) = self_signed(&[String::from("a.example")]).unwrap();
    assert!(warnings(&settings(&[&Made { certificate, key }])).is_empty());
    let days = |days: u64| SystemTime::now() + Duration::from_secs(days * 24 * 60 * 60);
    for (left, warned) in [(13, true), (15, false)] {
        let made = made(&["a.example"], |params| params.not_after = days(left).into());
        let warnings = warnings(&settings(&[&made]));
        assert_eq!(warnings.len(), usize::from(warned), "{warnings:?}");
        assert!(warnings.iter().all(|warning| warning.starts_with("certificate (PEM text): expires on 2")));
    }
}

#[test]
fn the_end_of_each_certificate_is_told_by_its_file_or_first_name() {
    let ends = |params: &mut CertificateParams| params.not_after = date_time_ymd(2051, 1, 2);
    let files = Files::of(made(&["a.example"], ends));
    let mut tls = files.settings();
    tls.certificates.push(made(&["*.b.example", "c.example"], ends).configured());
    tls.certificates.push(made(&["192.0.2.1"], ends).configured());
    let material = Material::load(&tls).unwrap();
    let names: Vec<&str> = material.expiries().iter().map(|expiry| expiry.certificate.as_str()).collect();
    assert_eq!(names, [files.path("cert.pem").to_str().unwrap(), "*.b.example", "certificate (PEM text)"]);
    assert!(material.expiries().iter().all(|expiry| expiry.not_after == 2_556_230_400));
}
