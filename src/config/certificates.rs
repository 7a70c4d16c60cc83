//! Certificates that a program adds from its memory to listeners that are there already.
//!
//! They become part of the document, as if the text of `listen` had them; only a socket that the program opened stands
//! in no document and keeps its own.

use std::sync::Arc;

use super::{
    Config, NAME_BYTES_MAX,
    document::{Entry, Node, Source, Value},
    draft::{CERTIFICATES_MAX, PEM_BYTES_MAX},
    given_source,
    inherit::{self, Origin},
    resolve::default_listener,
    settings::{Certificate, Pem, Tls, TlsVersions},
};
use crate::error::{Error, ErrorKind, Result};

impl Config {
    /// Adds a certificate chain and its private key, PEM both, to the listener that is written as `address` or was added
    /// under that name, which makes it HTTPS; `None`: to each one that was configured or added so far, and to the default
    /// address if that is none. The first certificate of a listener is its default, others are chosen by name. What stands
    /// before the first BEGIN line is left out. A later `listen` replaces these certificates with the listeners.
    ///
    /// What is in the texts is looked at when a server starts or reloads.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`]: no such listener, or a text without a PEM block; [`ErrorKind::Config`]: a text longer than
    /// 512 KB, one that is cut off, a listener with 256 certificates. Then nothing was added.
    pub fn add_certificate(&mut self, address: Option<&str>, certificate: &str, key: &str) -> Result<()> {
        let source = given_source()?;
        let (certificate, key) = (pem_block(certificate, "certificate")?, pem_block(key, "key")?);
        let is_meant = |name: &str| address.is_none_or(|address| address == name);
        let mut listeners = self.listeners(&source);
        let mut found = false;
        for listener in &mut listeners {
            if written_address(listener).is_some_and(is_meant) {
                add_to(listener, pair(certificate, key, &source), &source);
                found = true;
            }
        }
        let mut sockets = self.sockets.clone();
        let of_host = sockets.iter_mut().filter(|socket| socket.origin == Origin::Host);
        for socket in of_host.filter(|socket| is_meant(&socket.name)) {
            let name = &socket.name;
            let tls = socket.tls.get_or_insert_with(without_certificates);
            if tls.certificates.len() == CERTIFICATES_MAX {
                let what = format!("{name} has {CERTIFICATES_MAX} certificates, and no more are allowed");
                return Err(Error::new(ErrorKind::Config, what));
            }
            tls.certificates.push(Certificate { chain: text(certificate), key: text(key), ocsp: None });
            found = true;
        }
        if !found {
            let what = match address {
                None => String::from("there is no listener"),
                Some(address) => {
                    let shown: String = address.chars().take(NAME_BYTES_MAX).collect();
                    format!("no listener is written or named {shown:?}")
                }
            };
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        if !listeners.is_empty() {
            self.lay(Node::list(listeners, &source).under("listen"))?;
        }
        self.sockets = sockets;
        Ok(())
    }

    /// The items of `listen`; the default address when nothing listens.
    fn listeners(&self, source: &Arc<Source>) -> Vec<Node> {
        match self.document.as_ref().and_then(|document| document.child("listen")) {
            Some(Node { value: Value::List(items), .. }) => items.clone(),
            _ if inherit::are_none_but_predecessors(&self.sockets) => {
                vec![Node::text(&default_listener().name, source)]
            }
            _ => Vec::new(),
        }
    }
}

/// The text from its first BEGIN line on. Not the name of a file, which the document would take it for.
fn pem_block<'t>(text: &'t str, what: &str) -> Result<&'t str> {
    let line =
        text.match_indices("-----BEGIN").find(|(at, _)| *at == 0 || text[..*at].ends_with(['\n', '\r']));
    let Some((begin, _)) = line else {
        let what = format!("{what} is not PEM: it has no line that begins with -----BEGIN");
        return Err(Error::new(ErrorKind::Invalid, what));
    };
    let block = &text[begin..];
    if block.len() > PEM_BYTES_MAX {
        let what = format!("{what} is longer than {} KB", PEM_BYTES_MAX >> 10);
        return Err(Error::new(ErrorKind::Config, what));
    }
    if !block.contains("-----END ") {
        return Err(Error::new(ErrorKind::Config, format!("{what} is cut off: it has no line -----END")));
    }
    Ok(block)
}

fn written_address(listener: &Node) -> Option<&str> {
    match (&listener.value, listener.child("address").map(|address| &address.value)) {
        (Value::Text(address), _) | (_, Some(Value::Text(address))) => Some(address),
        _ => None,
    }
}

/// An item of `certificates`.
fn pair(certificate: &str, key: &str, source: &Arc<Source>) -> Node {
    let entry = |name: &str, text: &str| Entry::new(name, Node::text(text, source));
    Node::map(vec![entry("certificate", certificate), entry("key", key)], source)
}

/// Appends to `tls.certificates` of a listener, spelling out what was written shorter.
fn add_to(listener: &mut Node, pair: Node, source: &Arc<Source>) {
    if matches!(listener.value, Value::Text(_)) {
        let address = std::mem::replace(listener, Node::list(Vec::new(), source));
        *listener = address.under("address");
    }
    listener.change("tls", |tls| {
        tls.change("certificates", |certificates| {
            let items = match std::mem::replace(&mut certificates.value, Value::Null) {
                Value::List(items) => items,
                Value::Null => Vec::new(),
                value => vec![Node { mark: certificates.mark.clone(), value }],
            };
            certificates.value = Value::List(items.into_iter().chain([pair]).collect());
        });
    });
}

fn text(pem: &str) -> Pem {
    Pem::Text(Arc::from(pem))
}

fn without_certificates() -> Tls {
    Tls {
        certificates: Vec::new(),
        versions: TlsVersions::default(),
        client_auth: None,
        ticket_key_file: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Host, Listener, Settings};

    fn pem(label: &str, content: &str) -> String {
        format!("-----BEGIN {label}-----\n{content}\n-----END {label}-----\n")
    }

    fn add(config: &mut Config, address: Option<&str>, content: &str) -> Result<(), String> {
        let (certificate, key) = (pem("CERTIFICATE", content), pem("PRIVATE KEY", content));
        config.add_certificate(address, &certificate, &key).map_err(|error| error.to_string())
    }

    fn with(text: &str) -> Config {
        let mut config = Config::new();
        config.load_yaml(text).unwrap();
        config
    }

    fn with_socket(config: &mut Config, name: &str) {
        config.add_listener(name, std::fs::File::open("/dev/null").unwrap().into()).unwrap();
    }

    fn resolve(config: &Config) -> Result<Settings, String> {
        let host = Host {
            cores: 1,
            nofile_soft: 1 << 20,
            nofile_hard: 1 << 20,
            memory_bytes: 1 << 33,
            binary: false,
        };
        config.resolve(&host).map_err(|error| error.to_string())
    }

    /// Each listener with the contents of its certificates.
    fn listeners(config: &Config) -> Vec<(String, String)> {
        let content = |pem: &Pem| match pem {
            Pem::Text(text) => text.lines().nth(1).unwrap().to_owned(),
            Pem::File(path) => path.display().to_string(),
        };
        let certificates = |listener: &Listener| {
            let certificates = listener.tls.iter().flat_map(|tls| &tls.certificates);
            let contents: Vec<String> = certificates.map(|certificate| content(&certificate.chain)).collect();
            contents.join(" ")
        };
        let all = resolve(config).unwrap().listeners;
        all.iter().map(|listener| (listener.name.clone(), certificates(listener))).collect()
    }

    fn named(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(name, contents)| ((*name).to_owned(), (*contents).to_owned())).collect()
    }

    #[test]
    fn the_default_address_becomes_https() {
        let mut config = Config::new();
        add(&mut config, None, "a").unwrap();
        add(&mut config, Some("127.0.0.1:8080"), "b").unwrap();
        assert_eq!(listeners(&config), named(&[("127.0.0.1:8080", "a b")]));
    }

    #[test]
    fn one_listener_is_meant_by_its_address_or_name_and_all_by_none() {
        let mut config = with("listen: [\"[::1]:1\", { address: \"127.0.0.1:0\", connections: 7 }]");
        with_socket(&mut config, "mine");
        add(&mut config, Some("127.0.0.1:0"), "a").unwrap();
        add(&mut config, Some("mine"), "b").unwrap();
        assert_eq!(listeners(&config), named(&[("[::1]:1", ""), ("127.0.0.1:0", "a"), ("mine", "b")]));
        add(&mut config, None, "c").unwrap();
        assert_eq!(listeners(&config), named(&[("[::1]:1", "c"), ("127.0.0.1:0", "a c"), ("mine", "b c")]));
        assert_eq!(resolve(&config).unwrap().listeners[1].connections, 7);
    }

    #[test]
    fn a_socket_of_the_host_s_alone_is_all_there_is() {
        let mut config = Config::new();
        with_socket(&mut config, "mine");
        add(&mut config, None, "a").unwrap();
        assert_eq!(listeners(&config), named(&[("mine", "a")]));
        assert!(add(&mut config, Some("127.0.0.1:8080"), "a").is_err());
    }

    #[test]
    fn what_the_text_says_about_tls_stays() {
        let mut config = with(
            "listen: [{ address: \"[::1]:1\", tls: { certificates: { certificate: /c, key: /k }, versions: tls1.3 } }]",
        );
        add(&mut config, None, "a").unwrap();
        assert_eq!(listeners(&config), named(&[("[::1]:1", "/c a")]));
        let tls = resolve(&config).unwrap().listeners.remove(0).tls.unwrap();
        assert_eq!(tls.versions, TlsVersions { tls12: false, tls13: true });
    }

    #[test]
    fn the_text_may_leave_all_certificates_to_the_program() {
        let mut config = with("listen: [{ address: \"[::1]:1\", tls: { client_ca: /ca } }]");
        let told = resolve(&config).unwrap_err();
        assert_eq!(told, "<text>:1:21: listen[0].tls needs certificates: at least one");
        add(&mut config, None, "a").unwrap();
        assert_eq!(listeners(&config), named(&[("[::1]:1", "a")]));
        assert!(resolve(&config).unwrap().listeners[0].tls.as_ref().unwrap().client_auth.is_some());
    }

    #[test]
    fn a_later_list_of_listeners_replaces_them_and_their_certificates() {
        let mut config = with("listen: \"[::1]:1\"");
        add(&mut config, None, "a").unwrap();
        config.load_yaml("shards: 1").unwrap();
        assert_eq!(listeners(&config), named(&[("[::1]:1", "a")]));
        config.load_yaml("listen: \"[::1]:1\"").unwrap();
        assert_eq!(listeners(&config), named(&[("[::1]:1", "")]));
    }

    #[test]
    fn what_stands_before_a_block_is_left_out_and_never_taken_for_a_file() {
        let mut config = Config::new();
        let (certificate, key) = (pem("CERTIFICATE", "a"), pem("PRIVATE KEY", "k"));
        config.add_certificate(None, &format!("subject=CN = x\n\n{certificate}"), &key).unwrap();
        assert_eq!(listeners(&config), named(&[("127.0.0.1:8080", "a")]));
        for wrong in
            ["", "/etc/passwd", "cert.pem", "a -----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"]
        {
            for (certificate, key) in [(wrong, key.as_str()), (certificate.as_str(), wrong)] {
                let error = config.add_certificate(None, certificate, key).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Invalid, "{wrong}");
                assert!(error.message().contains("is not PEM"), "{error}");
            }
        }
    }

    #[test]
    fn what_is_refused_changes_nothing() {
        let mut config = with("listen: \"[::1]:1\"");
        with_socket(&mut config, "mine");
        let long = "A".repeat(PEM_BYTES_MAX);
        for (address, certificate, kind, told) in [
            (
                Some("[::1]:2"),
                pem("CERTIFICATE", "a"),
                ErrorKind::Invalid,
                "no listener is written or named \"[::1]:2\"",
            ),
            (Some(""), pem("CERTIFICATE", "a"), ErrorKind::Invalid, "no listener is written or named \"\""),
            (None, pem("CERTIFICATE", &long), ErrorKind::Config, "certificate is longer than 512 KB"),
            (None, "-----BEGIN CERTIFICATE-----\nA".into(), ErrorKind::Config, "certificate is cut off"),
        ] {
            let error = config.add_certificate(address, &certificate, &pem("PRIVATE KEY", "k")).unwrap_err();
            assert_eq!(error.kind(), kind);
            assert!(error.to_string().contains(told), "{error}");
        }
        assert_eq!(listeners(&config), named(&[("[::1]:1", ""), ("mine", "")]));
    }

    #[test]
    fn a_configuration_that_is_printed_shows_no_key() {
        let mut config = Config::new();
        with_socket(&mut config, "mine");
        config.load_yaml("listen: \"[::1]:1\"").unwrap();
        add(&mut config, None, "SECRET").unwrap();
        let printed = format!("{config:?}");
        assert!(printed.contains("[::1]:1") && !printed.contains("SECRET"), "{printed}");
    }

    #[test]
    fn a_listener_has_at_most_256() {
        for name in ["[::1]:1", "mine"] {
            let mut config = with("listen: \"[::1]:1\"");
            with_socket(&mut config, "mine");
            for _ in 0..CERTIFICATES_MAX {
                add(&mut config, Some(name), "a").unwrap();
            }
            assert!(add(&mut config, Some(name), "a").unwrap_err().contains("256"));
            // All or none: the other has room.
            assert!(add(&mut config, None, "b").is_err());
            assert!(listeners(&config).iter().all(|(_, contents)| !contents.contains('b')));
        }
    }
}
