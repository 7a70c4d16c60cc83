//! The options that turn the addresses of the command line into HTTPS.

use std::{fs, path::PathBuf};

use webserver::{
    Result,
    config::{Config, DEFAULT_PORT, Pem},
    tls,
};

use super::Failure;

/// Names that every machine has for itself.
const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// The options as they were given.
#[derive(Debug, Default)]
pub(super) struct Given {
    pub(super) certificate: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
    pub(super) self_signed: Option<()>,
}

/// One certificate for all addresses of the command line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Tls {
    /// Read anew by each reload.
    Files { certificate: PathBuf, key: PathBuf },
    /// Made once for this process: the same after a reload.
    Made { certificate: Pem, key: Pem, names: Vec<String> },
}

impl Given {
    /// What the options come to; `None` when there are none. Makes the throw-away certificate.
    pub(super) fn resolve(self) -> std::result::Result<Option<Tls>, Failure> {
        match (self.certificate, self.key, self.self_signed) {
            (None, None, None) => Ok(None),
            (Some(certificate), Some(key), None) => Ok(Some(Tls::Files { certificate, key })),
            (None, None, Some(())) => made(names(&host_name())).map(Some).map_err(Failure::failed),
            (_, _, Some(())) => Err(Failure::usage(
                "--tls-self-signed makes a certificate: leave --tls-cert and --tls-key out",
            )),
            (Some(_), None, None) => {
                Err(Failure::usage("--tls-cert needs --tls-key, the certificate's private key"))
            }
            (None, Some(_), None) => Err(Failure::usage("--tls-key needs --tls-cert, the key's certificate")),
        }
    }
}

impl Tls {
    /// The option that asked for it.
    pub(super) fn option(&self) -> &'static str {
        match self {
            Tls::Files { .. } => "--tls-cert",
            Tls::Made { .. } => "--tls-self-signed",
        }
    }

    /// Makes all addresses, the default one if there are none, speak TLS.
    pub(super) fn listen(&self, config: &mut Config, addresses: &[String]) -> Result<()> {
        // Where HTTP would be spoken.
        let default = [format!("127.0.0.1:{DEFAULT_PORT}")];
        let addresses = if addresses.is_empty() { &default } else { addresses };
        match self {
            Tls::Files { certificate, key } => {
                let file = |path: &PathBuf| Pem::File(path.clone());
                config.set_https_listeners(addresses, &file(certificate), &file(key))
            }
            Tls::Made { certificate, key, .. } => config.set_https_listeners(addresses, certificate, key),
        }
    }

    /// What people should know about it.
    pub(super) fn notice(&self) -> Option<String> {
        match self {
            Tls::Files { .. } => None,
            Tls::Made { names, .. } => Some(format!(
                "a throw-away certificate for {}: nobody has signed it, so clients must be told to trust it",
                names.join(", ")
            )),
        }
    }
}

fn made(names: Vec<String>) -> Result<Tls> {
    let (certificate, key) = tls::self_signed(&names)?;
    Ok(Tls::Made { certificate: Pem::Text(certificate.into()), key: Pem::Text(key.into()), names })
}

/// The machine's own name; empty when the kernel does not say.
fn host_name() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

/// Those of every machine, and the host's if a certificate can have it.
fn names(host: &str) -> Vec<String> {
    let mut names = LOOPBACK.map(String::from).to_vec();
    let is_name = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    if host.len() <= 253 && host.split('.').all(is_name) && !LOOPBACK.contains(&host) {
        names.push(host.to_owned());
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_s_name_is_one_of_the_names_if_it_can_be() {
        assert_eq!(names("box.example"), ["localhost", "127.0.0.1", "::1", "box.example"]);
        for host in ["", "localhost", "(none)", "a..b", "ü", &"a".repeat(254)] {
            assert_eq!(names(host), LOOPBACK, "{host}");
        }
    }

    #[test]
    fn a_made_certificate_is_in_memory_and_says_for_whom_it_is() {
        let tls = made(names("box")).unwrap();
        assert!(tls.notice().unwrap().contains("for localhost, 127.0.0.1, ::1, box: nobody has signed it"));
        let mut config = Config::new();
        tls.listen(&mut config, &[]).unwrap();
        let settings = config.resolve(&webserver::Server::host(true)).unwrap();
        assert_eq!(settings.listeners[0].name, "127.0.0.1:8080");
        let certificate = &settings.listeners[0].tls.as_ref().unwrap().certificates[0];
        assert!(matches!((&certificate.chain, &certificate.key), (Pem::Text(_), Pem::Text(_))));
    }
}
