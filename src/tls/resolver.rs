//! Which certificate a client gets: by the name that it asks for (SNI, RFC 6066 3) and by what it can verify.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use rustls::{
    SignatureAlgorithm, SignatureScheme,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

/// Certificates for one name, the preferred ones first.
type Choices = Vec<Arc<CertifiedKey>>;

/// The certificates of a listener by their names; shared by all shards.
#[derive(Debug)]
pub(super) struct Names {
    exact: HashMap<Box<str>, Choices>,
    /// By what follows `*.`.
    below: HashMap<Box<str>, Choices>,
    /// For clients that ask for no name, or for one that no certificate has.
    default: Choices,
}

impl Names {
    /// The certificates in the order of the configuration, each with its names in lower case. The first is the default,
    /// with those that share a name with it.
    pub(super) fn new(certificates: &[(Arc<CertifiedKey>, Vec<Box<str>>)]) -> Names {
        let mut names = Names { exact: HashMap::new(), below: HashMap::new(), default: Vec::new() };
        let first = certificates.first().map(|(_, names)| names.as_slice()).unwrap_or_default();
        for (index, (key, of)) in certificates.iter().enumerate() {
            for name in of {
                let choices = match name.strip_prefix("*.") {
                    Some(parent) => names.below.entry(parent.into()).or_default(),
                    None => names.exact.entry(name.clone()).or_default(),
                };
                choices.push(Arc::clone(key));
            }
            if index == 0 || of.iter().any(|name| first.contains(name)) {
                names.default.push(Arc::clone(key));
            }
        }
        let all = names.exact.values_mut().chain(names.below.values_mut()).chain([&mut names.default]);
        // Stable: otherwise the order of the configuration stays.
        all.for_each(|choices| choices.sort_by_key(|key| key.key.algorithm() != SignatureAlgorithm::ECDSA));
        names
    }

    /// What a client gets that asks for `name` and can verify `schemes`. When it can verify none of the certificates for
    /// the name, one of them all the same: the handshake then fails for the true reason.
    fn choose(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<&Arc<CertifiedKey>> {
        let exact = name.and_then(|name| self.exact.get(name));
        let below = name.and_then(|name| name.split_once('.')).and_then(|(_, parent)| self.below.get(parent));
        let named = || exact.into_iter().chain(below).flatten();
        if named().next().is_some() { pick(named, schemes) } else { pick(|| self.default.iter(), schemes) }
    }
}

/// The first that can be verified, or the first of all.
fn pick<'n, I>(choices: impl Fn() -> I, schemes: &[SignatureScheme]) -> Option<&'n Arc<CertifiedKey>>
where
    I: Iterator<Item = &'n Arc<CertifiedKey>>,
{
    if choices().nth(1).is_none() {
        return choices().next();
    }
    choices().find(|key| key.key.choose_scheme(schemes).is_some()).or_else(|| choices().next())
}

/// [`Names`] for one shard. Remembers the name that was asked for last: the connection itself does not tell it.
#[derive(Debug)]
pub(super) struct Resolver {
    names: Arc<Names>,
    /// Never waited for: only one thread has this resolver.
    asked: Mutex<Option<Box<str>>>,
}

impl Resolver {
    /// For one shard.
    pub(super) fn new(names: Arc<Names>) -> Resolver {
        Resolver { names, asked: Mutex::default() }
    }

    /// The name in the `ClientHello` that was processed last, in lower case; once.
    pub(super) fn take_server_name(&self) -> Option<Box<str>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // In lower case already. Both forms mean the same host (RFC 1034 3.1).
        let name = hello.server_name().map(|name| name.strip_suffix('.').unwrap_or(name));
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = name.map(Box::from);
        // Reduced by then to those that the cipher suites in common can be used with.
        self.names.choose(name, hello.signature_schemes()).cloned()
    }
}
