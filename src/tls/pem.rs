//! PEM (RFC 7468) as the configuration gives it, a file or the text itself, and what is found in it. Errors call it by
//! the file's name and never show any of its content.

use std::{
    fmt,
    fs::File,
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use rustls::pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{self, PemObject},
};

use crate::{
    config::Pem,
    error::{Error, ErrorKind, Result},
};

/// Most bytes of a file.
const BYTES_MAX: u64 = 1 << 20;
/// Marks of keys that want a passphrase: PKCS#8's, and the older one inside of PKCS#1 and SEC1.
const ENCRYPTED: [&[u8]; 2] = [b"-----BEGIN ENCRYPTED PRIVATE KEY-----", b"Proc-Type: 4,ENCRYPTED"];
/// What every DER file of these kinds begins with: a SEQUENCE with a length of two bytes.
const DER_BEGINS: [u8; 2] = [0x30, 0x82];

/// PEM that was read.
pub(super) struct Source {
    /// What errors call it.
    pub name: String,
    bytes: Vec<u8>,
    /// Permission bits, of a file.
    mode: Option<u32>,
}

impl Source {
    /// Reads the file. PEM in memory is called `what`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when it cannot be read or is larger than 1 MB.
    pub(super) fn read(pem: &Pem, what: &str) -> Result<Source> {
        match pem {
            Pem::File(path) => {
                let (bytes, mode) = read_file(path, BYTES_MAX)?;
                Ok(Source { name: path.display().to_string(), bytes, mode: Some(mode) })
            }
            Pem::Text(text) if text.len() as u64 > BYTES_MAX => Err(refused(what, too_large(BYTES_MAX))),
            Pem::Text(text) => {
                Ok(Source { name: what.to_owned(), bytes: text.as_bytes().to_vec(), mode: None })
            }
        }
    }

    /// All certificates, at least one and at most `max`, in their order.
    pub(super) fn certificates(&self, max: usize) -> Result<Vec<CertificateDer<'static>>> {
        let mut certificates = Vec::new();
        for certificate in CertificateDer::pem_slice_iter(&self.bytes) {
            if certificates.len() == max {
                return Err(self.refused(format_args!(
                    "more than {max} certificates: leave out what is no part of the chain"
                )));
            }
            certificates.push(certificate.map_err(|error| self.malformed(&error))?);
        }
        if certificates.is_empty() {
            return Err(self.refused(format_args!("no certificate in it{}", self.hint("CERTIFICATE"))));
        }
        Ok(certificates)
    }

    /// The first private key: PKCS#8, PKCS#1 or SEC1.
    pub(super) fn private_key(&self) -> Result<PrivateKeyDer<'static>> {
        PrivateKeyDer::from_pem_slice(&self.bytes).map_err(|error| match error {
            _ if self.is_encrypted() => self.refused(
                "the key is encrypted, and nobody is here to ask for its passphrase: decrypt it with \"openssl pkey\"",
            ),
            pem::Error::NoItemsFound => {
                self.refused(format_args!("no private key in it{}", self.hint("PRIVATE KEY")))
            }
            error => self.malformed(&error),
        })
    }

    /// Whether users that neither own the file nor are of its group may read or change it.
    pub(super) fn is_open_to_others(&self) -> bool {
        self.mode.is_some_and(|mode| mode & 0o006 != 0)
    }

    /// An error about it.
    pub(super) fn refused(&self, reason: impl fmt::Display) -> Error {
        refused(&self.name, reason)
    }

    fn malformed(&self, error: &pem::Error) -> Error {
        self.refused(match error {
            pem::Error::MissingSectionEnd { .. } => "a PEM block without its END line: the file is cut short",
            pem::Error::IllegalSectionStart { .. } => "a BEGIN line that is not well formed",
            pem::Error::Base64Decode(_) => "a PEM block that is not base64",
            _ => "not well-formed PEM",
        })
    }

    fn is_encrypted(&self) -> bool {
        ENCRYPTED.iter().any(|mark| self.bytes.windows(mark.len()).any(|window| window == *mark))
    }

    fn hint(&self, label: &str) -> String {
        if self.bytes.starts_with(&DER_BEGINS) {
            return String::from(": it is DER, and PEM is wanted");
        }
        format!(": PEM is wanted, a block that begins with -----BEGIN {label}-----")
    }
}

/// The content and the permission bits of a file of at most `max` bytes. Blocks.
///
/// # Errors
/// [`ErrorKind::Config`] naming the file.
pub(super) fn read_file(path: &Path, max: u64) -> Result<(Vec<u8>, u32)> {
    let read = || -> io::Result<(Vec<u8>, u32)> {
        let file = File::open(path)?;
        let mode = file.metadata()?.permissions().mode();
        let mut bytes = Vec::new();
        // The size that the file system tells may be none, of a pipe for instance.
        file.take(max + 1).read_to_end(&mut bytes)?;
        Ok((bytes, mode))
    };
    let failed =
        |error| Error::sys(ErrorKind::Config, format_args!("cannot read {}", path.display()), &error);
    let (bytes, mode) = read().map_err(failed)?;
    if bytes.len() as u64 > max {
        return Err(refused(path.display(), too_large(max)));
    }
    Ok((bytes, mode))
}

/// An error about the content of a file.
pub(super) fn refused(name: impl fmt::Display, reason: impl fmt::Display) -> Error {
    Error::new(ErrorKind::Config, format!("{name}: {reason}"))
}

fn too_large(max: u64) -> String {
    format!("larger than {} KB", max >> 10)
}
