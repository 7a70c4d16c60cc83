//! `listen[].tls`: certificates, versions, clients' certificates, the file of ticket keys.
//!
//! No file is opened here: what is in them is checked when the server reads them. PEM text is known by how it begins, and
//! no error repeats any of it: it may be a private key.

use std::{path::PathBuf, sync::Arc};

use crate::{
    config::{
        document::Value,
        field::Field,
        settings::{Certificate, ClientAuth, Pem, Tls, TlsVersions},
    },
    error::Result,
};

/// Most certificates of one listener.
pub(in crate::config) const CERTIFICATES_MAX: usize = 256;

/// Longest PEM text, in bytes: room for a bundle of every public authority.
pub(in crate::config) const PEM_BYTES_MAX: usize = 512 << 10;

/// How a listener speaks TLS. Certificates may be left out: a program adds them from its memory. That there are any in the
/// end is looked at when the layers are one.
pub(super) fn read_tls(field: &Field<'_>) -> Result<Tls> {
    const KEYS: [&str; 5] =
        ["certificates", "versions", "client_ca", "client_certificates", "ticket_key_file"];
    const CLIENT_CERTIFICATES: [(&str, bool); 2] = [("required", false), ("optional", true)];
    let (mut certificates, mut versions) = (Vec::new(), TlsVersions::default());
    let mut ca: Option<Pem> = None;
    let mut optional: Option<(bool, Field<'_>)> = None;
    let mut ticket_key_file: Option<PathBuf> = None;
    for entry in field.section()? {
        match entry.key {
            "certificates" => certificates = read_certificates(&entry)?,
            "versions" => versions = read_versions(&entry)?,
            "client_ca" => ca = Some(read_pem(&entry)?),
            "client_certificates" => optional = Some((entry.word(&CLIENT_CERTIFICATES)?, entry)),
            "ticket_key_file" => ticket_key_file = Some(entry.path()?),
            _ => return Err(entry.unknown(&KEYS, &[])),
        }
    }
    let client_auth = match (ca, optional) {
        (Some(ca), optional) => {
            Some(ClientAuth { ca, optional: optional.is_some_and(|(optional, _)| optional) })
        }
        (None, Some((_, entry))) => {
            return Err(
                entry.at_key(format!("{} needs client_ca: whose certificates are accepted", entry.path))
            );
        }
        (None, None) => None,
    };
    Ok(Tls { certificates, versions, client_auth, ticket_key_file })
}

fn read_certificates(field: &Field<'_>) -> Result<Vec<Certificate>> {
    let items = field.items(CERTIFICATES_MAX)?;
    if items.is_empty() {
        return Err(field.wrong("at least one certificate such as { certificate: cert.pem, key: key.pem }"));
    }
    items.iter().map(read_certificate).collect()
}

fn read_certificate(item: &Field<'_>) -> Result<Certificate> {
    const KEYS: [&str; 3] = ["certificate", "key", "ocsp"];
    let (mut chain, mut key, mut ocsp) = (None, None, None);
    for entry in item.section()? {
        match entry.key {
            "certificate" => chain = Some(read_pem(&entry)?),
            "key" => key = Some(read_pem(&entry)?),
            "ocsp" => ocsp = Some(entry.path()?),
            _ => return Err(entry.unknown(&KEYS, &[])),
        }
    }
    match (chain, key) {
        (Some(chain), Some(key)) => Ok(Certificate { chain, key, ocsp }),
        (None, _) => Err(item.error(format!("{} needs a certificate", item.path))),
        (_, None) => Err(item.error(format!("{} needs a key: the certificate's private key", item.path))),
    }
}

fn read_versions(field: &Field<'_>) -> Result<TlsVersions> {
    const VERSIONS: [(&str, &str); 2] = [("tls1.2", "tls1.2"), ("tls1.3", "tls1.3")];
    let mut versions = TlsVersions { tls12: false, tls13: false };
    for item in field.items(VERSIONS.len())? {
        let name = item.word(&VERSIONS)?;
        let version = if name == "tls1.2" { &mut versions.tls12 } else { &mut versions.tls13 };
        if std::mem::replace(version, true) {
            return Err(item.error(format!("{name} is given twice in {}", field.path)));
        }
    }
    if !versions.tls12 && !versions.tls13 {
        return Err(field.wrong("at least one of tls1.2, tls1.3"));
    }
    Ok(versions)
}

/// A path, or PEM itself (RFC 7468 2): text that begins with the line before what is encoded.
fn read_pem(field: &Field<'_>) -> Result<Pem> {
    let text = match &field.node.value {
        Value::Text(text) if Pem::is_text(text) => text,
        _ => return field.path().map(Pem::File),
    };
    if text.len() > PEM_BYTES_MAX {
        return Err(field.error(format!("{} is longer than {PEM_BYTES_MAX} bytes", field.path)));
    }
    if !text.contains("-----END ") {
        return Err(field.error(format!("{} is PEM that was cut off: it has no line -----END", field.path)));
    }
    Ok(Pem::Text(Arc::from(text.as_str())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::document::{Source, parse};

    const CERTIFICATE: &str = "certificates: [{ certificate: c.pem, key: k.pem }]";

    fn read(text: &str) -> Result<Tls, String> {
        let source = Arc::new(Source { file: Some("f".into()), base: "/base".into() });
        let node = parse(&format!("tls:\n  {{ {text} }}\n"), &source).unwrap();
        read_tls(&Field::root(&node).section().unwrap()[0]).map_err(|error| error.to_string())
    }

    #[test]
    fn a_certificate_is_enough() {
        let tls = read(CERTIFICATE).unwrap();
        let certificate = Certificate {
            chain: Pem::File("/base/c.pem".into()),
            key: Pem::File("/base/k.pem".into()),
            ocsp: None,
        };
        assert_eq!(tls.certificates, [certificate]);
        assert_eq!(
            (tls.versions, tls.client_auth, tls.ticket_key_file),
            (TlsVersions::default(), None, None)
        );
    }

    #[test]
    fn every_key_is_read_and_paths_start_at_the_folder() {
        let tls = read(
            "certificates: [{ certificate: /c, key: ../k, ocsp: o.der }, { certificate: d, key: e }], \
             versions: tls1.3, client_ca: ca.pem, client_certificates: optional, ticket_key_file: t/keys",
        )
        .unwrap();
        assert_eq!(tls.certificates.len(), 2);
        assert_eq!(tls.certificates[0].chain, Pem::File("/c".into()));
        assert_eq!(tls.certificates[0].key, Pem::File("/base/../k".into()));
        assert_eq!(tls.certificates[0].ocsp, Some("/base/o.der".into()));
        assert_eq!(tls.versions, TlsVersions { tls12: false, tls13: true });
        let ca = Pem::File("/base/ca.pem".into());
        assert_eq!(tls.client_auth, Some(ClientAuth { ca, optional: true }));
        assert_eq!(tls.ticket_key_file, Some("/base/t/keys".into()));
    }

    #[test]
    fn clients_must_show_a_certificate_unless_told() {
        let optional = |text: &str| {
            read(&format!("{CERTIFICATE}, client_ca: ca.pem{text}")).unwrap().client_auth.unwrap().optional
        };
        assert!(!optional(""));
        assert!(!optional(", client_certificates: required"));
        assert!(optional(", client_certificates: optional"));
    }

    #[test]
    fn pem_is_a_path_or_the_text_itself() {
        let pem = |text: &str| {
            read(&format!("certificates: [{{ certificate: {text}, key: k }}]"))
                .map(|mut tls| tls.certificates.remove(0).chain)
        };
        let text = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
        let quoted = format!("\"{}\"", text.replace('\n', "\\n"));
        assert_eq!(pem(&quoted), Ok(Pem::Text(text.into())));
        assert_eq!(pem(&quoted.replacen('"', "\"\\n ", 1)), Ok(Pem::Text(format!("\n {text}").into())));
        assert_eq!(pem("----BEGIN"), Ok(Pem::File("/base/----BEGIN".into())));
        let long = |bytes: usize| {
            let padding = "A".repeat(bytes - text.len());
            pem(&quoted.replace("MIIB", &format!("MIIB{padding}")))
        };
        assert!(long(PEM_BYTES_MAX).is_ok());
        assert!(long(PEM_BYTES_MAX + 1).unwrap_err().contains("longer than 524288 bytes"));
    }

    #[test]
    fn no_error_repeats_pem_text() {
        let key = "\"-----BEGIN PRIVATE KEY-----\\nSECRET\\n-----END PRIVATE KEY-----\"";
        for text in [
            format!("certificates: {key}"),
            format!("certificates: [{key}]"),
            format!("certificates: [{{ certificate: a, key: {} }}]", key.replace("END", "EN")),
            format!("certificates: [{{ certificate: a, key: b, ocsp: {key} }}]"),
            format!("certificates: [{{ certificate: a, key: [{key}] }}]"),
            format!("versions: {key}"),
            format!("client_certificates: {key}"),
            format!("ticket_key_file: {key}"),
        ] {
            let told = read(&text).unwrap_err();
            assert!(!told.contains("SECRET"), "{told}");
        }
        let tls = read(&format!("certificates: [{{ certificate: {key}, key: {key} }}]")).unwrap();
        assert!(!format!("{tls:?}").contains("SECRET"));
    }

    #[test]
    fn there_are_1_to_256_certificates() {
        let count = |count: usize| {
            let items = vec!["{ certificate: c, key: k }"; count].join(", ");
            read(&format!("certificates: [{items}]")).map(|tls| tls.certificates.len())
        };
        assert_eq!((count(1), count(CERTIFICATES_MAX)), (Ok(1), Ok(256)));
        assert!(count(CERTIFICATES_MAX + 1).unwrap_err().contains("has 257 items, at most 256"));
        assert!(count(0).unwrap_err().starts_with("f:2:19: tls.certificates must be at least one"));
    }

    #[test]
    fn what_is_missing_or_wrong_is_told_where_it_stands() {
        for (text, told) in [
            ("certificates: [{ key: k }]".into(), "f:2:20: tls.certificates[0] needs a certificate"),
            (
                "certificates: [{ certificate: c }]".into(),
                "f:2:20: tls.certificates[0] needs a key: the certificate's private key",
            ),
            (
                "certificates: [{ certificate: c, key: k, chain: d }]".into(),
                "f:2:46: unknown key \"chain\" in tls.certificates[0]; allowed: certificate, key, ocsp",
            ),
            (
                format!("{CERTIFICATE}, client_certificates: required"),
                "f:2:57: tls.client_certificates needs client_ca: whose certificates are accepted",
            ),
            (
                format!("{CERTIFICATE}, client_ca: ca, client_certificates: none"),
                "f:2:93: tls.client_certificates must be one of required, optional, not the text \"none\"",
            ),
            (
                format!("{CERTIFICATE}, versions: []"),
                "f:2:67: tls.versions must be at least one of tls1.2, tls1.3, not a list",
            ),
            (
                format!("{CERTIFICATE}, versions: [tls1.3, tls1.3]"),
                "f:2:76: tls1.3 is given twice in tls.versions",
            ),
            (
                format!("{CERTIFICATE}, versions: [tls1.1]"),
                "f:2:68: tls.versions[0] must be one of tls1.2, tls1.3, not the text \"tls1.1\"",
            ),
            (
                format!("{CERTIFICATE}, cipher_suites: []"),
                "f:2:57: unknown key \"cipher_suites\" in tls; allowed: certificates, versions, client_ca, \
                 client_certificates, ticket_key_file",
            ),
        ] {
            assert_eq!(read(&text).unwrap_err(), told);
        }
    }
}
