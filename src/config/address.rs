//! The written form of a listening address.
//!
//! Numbers and paths only: no name is resolved here, so that checking a configuration asks no network.

use std::{
    net::SocketAddr,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use super::settings::{Address, Listener};

/// Longest path of a unix socket: `sun_path` less its terminating NUL, unix(7).
const UNIX_PATH_BYTES_MAX: usize = 107;

/// What an address may look like, for errors.
pub(super) const ALLOWED: &str = "an address such as 127.0.0.1:8080, [::1]:8080 or unix:/run/x.sock";

impl Listener {
    /// The listener written as `text`; the path of a unix socket starts at `base`.
    ///
    /// # Errors
    /// What is wrong with it, to follow the name of the key: `must be an address such as ...`.
    pub(super) fn parse(text: &str, base: &Path) -> Result<Listener, String> {
        let address = match text.strip_prefix("unix:") {
            Some("") => return Err(String::from("needs a path after unix:")),
            Some(path) => {
                let path: PathBuf = base.join(path).components().collect();
                let bytes = path.as_os_str().as_bytes().len();
                if bytes > UNIX_PATH_BYTES_MAX {
                    return Err(format!(
                        "names {}, a path of {bytes} bytes; a unix socket's has at most {UNIX_PATH_BYTES_MAX}",
                        path.display()
                    ));
                }
                Address::Unix(path)
            }
            None => text
                .parse::<SocketAddr>()
                .map(Address::Tcp)
                .map_err(|_| format!("must be {ALLOWED}, not the text {text:?}"))?,
        };
        Ok(Listener { name: text.to_owned(), address, connections: 0, tls: None, sockets: Vec::new() })
    }

    /// Whether both cannot be bound at once. Port 0 is a different port each time.
    pub(super) fn clashes_with(&self, other: &Listener) -> bool {
        match (&self.address, &other.address) {
            (Address::Tcp(mine), Address::Tcp(theirs)) => mine == theirs && mine.port() != 0,
            (Address::Unix(mine), Address::Unix(theirs)) => mine == theirs,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Listener, String> {
        Listener::parse(text, Path::new("/base"))
    }

    #[test]
    fn reads_the_three_forms() {
        for text in ["127.0.0.1:8080", "0.0.0.0:0", "[::1]:8080", "[::]:65535", "[fe80::1%2]:80"] {
            let listener = parse(text).unwrap();
            assert!(matches!(listener.address, Address::Tcp(_)) && listener.name == text, "{text}");
        }
        let unix = |text| match parse(text).unwrap().address {
            Address::Unix(path) => path,
            other => panic!("{other:?}"),
        };
        assert_eq!(unix("unix:/run/x.sock"), PathBuf::from("/run/x.sock"));
        assert_eq!(unix("unix:./x.sock"), PathBuf::from("/base/x.sock"));
    }

    #[test]
    fn refuses_everything_else() {
        for text in [
            "",
            "8080",
            ":8080",
            "localhost:80",
            "127.0.0.1",
            "127.0.0.1:65536",
            "::1:80",
            "http://1.1.1.1:1",
            "unix:",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_unix_path_has_at_most_107_bytes() {
        assert!(parse(&format!("unix:/{}", "a".repeat(106))).is_ok());
        assert!(parse(&format!("unix:/{}", "a".repeat(107))).is_err());
    }

    #[test]
    fn port_0_never_clashes() {
        let clash = |a: &str, b: &str| parse(a).unwrap().clashes_with(&parse(b).unwrap());
        assert!(clash("127.0.0.1:80", "127.0.0.1:80"));
        assert!(!clash("127.0.0.1:0", "127.0.0.1:0"));
        assert!(!clash("127.0.0.1:80", "[::1]:80"));
        assert!(clash("unix:/a/./b", "unix:/a/b"));
    }
}
