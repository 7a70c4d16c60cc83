//! What is read in a certificate (X.509, RFC 5280). Signatures are not checked here.

use std::fmt::{self, Write};

use rustls::pki_types::DnsName;
use x509_cert::{
    Certificate, TbsCertificate,
    der::{
        self, Decode, Tag, TagNumber, Tagged,
        asn1::AnyRef,
        oid::{AssociatedOid, db::rfc4519::COMMON_NAME},
    },
    ext::pkix::SubjectAltName,
    time::Time,
};

/// Most bytes of a subject as text.
const SUBJECT_BYTES_MAX: usize = 1 << 10;
/// The tag of a DNS name among the subject alternative names (RFC 5280 4.2.1.6).
const DNS_NAME: Tag = Tag::ContextSpecific { constructed: false, number: TagNumber::N2 };

/// Whom a certificate is for, and when.
#[derive(Debug)]
pub(super) struct Facts {
    /// DNS names in lower case; `*.` before one stands for one label (RFC 6125 6.4.3).
    pub names: Vec<Box<str>>,
    /// First moment of its validity.
    pub not_before: Moment,
    /// Last moment of its validity.
    pub not_after: Moment,
}

/// A moment of a certificate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment(Time);

impl Moment {
    /// Unix time.
    pub(super) fn unix_seconds(self) -> u64 {
        self.0.to_unix_duration().as_secs()
    }
}

impl fmt::Display for Moment {
    /// `2030-01-02T03:04:05Z`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.to_date_time().fmt(f)
    }
}

impl Facts {
    /// Reads a certificate.
    pub(super) fn read(der: &[u8]) -> Result<Facts, der::Error> {
        let certificate = Certificate::from_der(der)?.tbs_certificate;
        let validity = certificate.validity;
        Ok(Facts {
            names: names(&certificate)?,
            not_before: Moment(validity.not_before),
            not_after: Moment(validity.not_after),
        })
    }
}

/// The DNS names among the subject alternative names; the common name of a certificate that has none of any kind.
fn names(certificate: &TbsCertificate) -> Result<Vec<Box<str>>, der::Error> {
    let extensions = certificate.extensions.as_deref().unwrap_or_default();
    if let Some(extension) = extensions.iter().find(|extension| extension.extn_id == SubjectAltName::OID) {
        // Names of other kinds are not looked into.
        let alternatives = Vec::<AnyRef<'_>>::from_der(extension.extn_value.as_bytes())?;
        let names = alternatives.iter().filter(|name| name.tag() == DNS_NAME);
        return Ok(names.filter_map(|name| dns_name(name.value())).collect());
    }
    let attributes = certificate.subject.0.iter().flat_map(|relative| relative.0.iter());
    let common = attributes.filter(|attribute| attribute.oid == COMMON_NAME);
    Ok(common.filter_map(|attribute| dns_name(attribute.value.value())).collect())
}

/// A name that clients can ask for, in lower case; a wildcard stands for the whole first label.
fn dns_name(bytes: &[u8]) -> Option<Box<str>> {
    let name = std::str::from_utf8(bytes).ok()?;
    let name = name.strip_suffix('.').unwrap_or(name);
    DnsName::try_from(name.strip_prefix("*.").unwrap_or(name)).ok()?;
    Some(name.to_ascii_lowercase().into())
}

/// The subject of a certificate as text (RFC 4514), in printable ASCII alone: bytes that are not are escaped as that RFC
/// has it, `\C3\BC`. `None` when the certificate cannot be read, has an empty subject, or one of more than 1 KB: a part
/// of a name could be another's name.
pub fn client_subject(der: &[u8]) -> Option<Box<str>> {
    let certificate = Certificate::from_der(der).ok()?;
    let mut text = Printable(String::new());
    write!(text, "{}", certificate.tbs_certificate.subject).ok()?;
    Some(text.0).filter(|text| !text.is_empty()).map(String::into_boxed_str)
}

/// Whether a certificate has expired. A session can be resumed for longer than the certificate is valid that it was made
/// with, and the library does not look at it again.
pub(super) fn has_expired(der: &[u8], unix_seconds: u64) -> bool {
    Certificate::from_der(der).is_ok_and(|certificate| {
        Moment(certificate.tbs_certificate.validity.not_after).unix_seconds() < unix_seconds
    })
}

/// Takes text of a bounded length.
struct Printable(String);

impl Write for Printable {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            match byte {
                b' '..=b'~' => self.0.push(char::from(byte)),
                _ => write!(&mut self.0, "\\{byte:02X}")?,
            }
            if self.0.len() > SUBJECT_BYTES_MAX {
                return Err(fmt::Error);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
