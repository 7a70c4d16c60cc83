//! What a user writes: YAML and single keys, merged, checked, resolved into [`Settings`].
//!
//! Everything that can be wrong with a configuration as such is found here, with its line and column.
//! Nothing is opened but the configuration file itself: folders, certificates and addresses are the
//! server's to try.

mod address;
mod certificates;
mod diff;
mod document;
mod draft;
mod field;
mod fit;
mod inherit;
mod network;
mod resolve;
mod routes;
mod settings;
mod show;
pub mod sizes;
mod units;

use std::{
    fs::File,
    io::Read,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
};

use document::{Entry, Node, Source, TEXT_BYTES_MAX, Value};
use draft::{Draft, LISTENERS_MAX};
pub use inherit::{ADMIN, OpenSocket, Origin};
pub use network::Network;
pub use resolve::{DEFAULT_PORT, RESERVED_DESCRIPTORS};
pub use settings::*;

use crate::error::{Error, ErrorKind, Place, Result};

/// Longest dotted key, in bytes; those that exist have a quarter of it.
const KEY_BYTES_MAX: usize = 128;

/// Longest name of an inherited socket, in bytes.
const NAME_BYTES_MAX: usize = 255;

/// A configuration being put together. Each load or set lies over what was there before: keys merge, later
/// ones win, lists (`listen`, `routes`) are replaced whole. What fails leaves it as it was.
///
/// # Defaults
/// Every key has one. Nothing loaded at all: one shard per core, 127.0.0.1:8080, the welcome page.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// A mapping; absent until something was loaded or set.
    document: Option<Node>,
    sockets: Vec<OpenSocket>,
}

/// What the process may use, which [`Config::resolve`] does not look up itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host {
    /// Cores this process may use; `shards: auto` takes one each.
    pub cores: usize,
    /// `RLIMIT_NOFILE`, soft: descriptors allowed now. See getrlimit(2).
    pub nofile_soft: u64,
    /// `RLIMIT_NOFILE`, hard: descriptors allowed once the soft limit is raised.
    pub nofile_hard: u64,
    /// Bytes that this process may use: physical memory, or less where its control group is limited to less. A quarter
    /// of it is the default of `memory.budget`.
    pub memory_bytes: u64,
    /// The stand-alone binary: `raise_nofile` defaults to true, and a run without any configuration has an
    /// admin listener on 127.0.0.1:9090.
    pub binary: bool,
}

impl Config {
    /// Nothing but defaults.
    pub fn new() -> Config {
        Config::default()
    }

    /// Lays a YAML file over what is there. Relative paths in it start at the file's folder.
    ///
    /// # Errors
    /// The file cannot be read or is longer than 1 MB; or what [`Config::load_yaml`] says.
    pub fn load_file(&mut self, path: &Path) -> Result<()> {
        let failed =
            |error: &std::io::Error| Error::io(format_args!("cannot read {}", path.display()), error);
        let limit = TEXT_BYTES_MAX as u64 + 1;
        let mut bytes = Vec::new();
        let file = File::open(path).map_err(|error| failed(&error))?;
        file.take(limit).read_to_end(&mut bytes).map_err(|error| failed(&error))?;
        let absolute = std::path::absolute(path).map_err(|error| failed(&error))?;
        let base = absolute.parent().map_or_else(|| PathBuf::from("/"), Path::to_path_buf);
        let text = std::str::from_utf8(&bytes).map_err(|error| {
            let place = place_after(path, bytes.get(..error.valid_up_to()).unwrap_or_default());
            Error::new(ErrorKind::Config, "not UTF-8").at(place)
        })?;
        self.load(text, &Arc::new(Source { file: Some(path.to_path_buf()), base }))
    }

    /// Lays YAML text over what is there. Relative paths in it start at the working directory of this call.
    ///
    /// # Errors
    /// Broken YAML, an unknown key, a key of a later version ([`ErrorKind::Unsupported`]), a value that is
    /// not allowed: the first of them, with its line and column.
    pub fn load_yaml(&mut self, text: &str) -> Result<()> {
        let source = Source { file: Some(PathBuf::from("<text>")), base: working_directory()? };
        self.load(text, &Arc::new(source))
    }

    /// Sets one key, dotted as in `limits.body_bytes`, to a value parsed as YAML. `listen` replaces all
    /// listeners, also by a single address; `root` is short for [`Config::set_root`].
    ///
    /// # Errors
    /// As [`Config::load_yaml`], with the key instead of a line and column.
    pub fn set(&mut self, key: &str, value: &str) -> Result<()> {
        let dotted = key.len() <= KEY_BYTES_MAX && key.split('.').all(|part| !part.is_empty());
        if !dotted || key.chars().any(char::is_control) {
            return Err(Error::new(ErrorKind::Invalid, format!("{key:?} is not a dotted key")));
        }
        let source = given_source()?;
        // `[::1]:8080` is not YAML, but an address all the same.
        let address =
            matches!(key, "listen" | "admin.address") && Listener::parse(value, &source.base).is_ok();
        let node = if address {
            Node::text(value, &source)
        } else {
            let node = document::parse(value, &source)
                .map_err(|error| Error::new(error.kind(), format!("{key}: {}", error.message())))?;
            if key == "root" {
                return match &node.value {
                    Value::Text(root) => self.set_root(Path::new(root)),
                    found => Err(Error::new(ErrorKind::Config, format!("root must be text, not {found}"))),
                };
            }
            node
        };
        self.lay(key.rsplit('.').fold(node, Node::under))
    }

    /// Replaces all addresses of `listen`, written as in the configuration.
    ///
    /// # Errors
    /// An address that is not one, or given twice; more than 64.
    pub fn set_listeners<S: AsRef<str>>(&mut self, addresses: &[S]) -> Result<()> {
        let source = given_source()?;
        let items = addresses.iter().map(|address| Node::text(address.as_ref(), &source)).collect();
        self.lay(Node::list(items, &source).under("listen"))
    }

    /// The same with TLS on all of them: one certificate and its private key, in files or in memory. A relative path starts
    /// at the working directory of this call.
    ///
    /// # Errors
    /// What [`Config::set_listeners`] says; a path that is empty or not UTF-8.
    pub fn set_https_listeners<S: AsRef<str>>(
        &mut self,
        addresses: &[S],
        certificate: &Pem,
        key: &Pem,
    ) -> Result<()> {
        let source = given_source()?;
        let pem = |key: &str, pem: &Pem| -> Result<Entry> {
            let text = match pem {
                Pem::Text(text) => text,
                Pem::File(path) => path.to_str().ok_or_else(|| {
                    Error::new(ErrorKind::Config, format!("{key}: {} is not UTF-8", path.display()))
                })?,
            };
            Ok(Entry::new(key, Node::text(text, &source)))
        };
        let parts = vec![pem("certificate", certificate)?, pem("key", key)?];
        let tls = Node::map(parts, &source).under("certificates");
        let listener = |address: &S| {
            let address = Entry::new("address", Node::text(address.as_ref(), &source));
            Node::map(vec![address, Entry::new("tls", tls.clone())], &source)
        };
        self.lay(Node::list(addresses.iter().map(listener).collect(), &source).under("listen"))
    }

    /// Serves the folder `root` at `/` for every host, in place of a route that did so before; other
    /// routes stay. A relative path starts at the working directory of this call.
    ///
    /// # Errors
    /// The path is empty, not UTF-8, or has control characters.
    pub fn set_root(&mut self, root: &Path) -> Result<()> {
        let source = given_source()?;
        let text = root
            .to_str()
            .ok_or_else(|| Error::new(ErrorKind::Config, format!("root: {} is not UTF-8", root.display())))?;
        let mut routes = match self.document.as_ref().and_then(|document| document.child("routes")) {
            Some(Node { value: Value::List(routes), .. }) => routes.clone(),
            _ => Vec::new(),
        };
        let for_any_host = |route: &Node| route.child("host").is_none();
        let at_slash = |route: &Node| match route.child("path") {
            Some(path) => matches!(&path.value, Value::Text(path) if path == "/"),
            None => true,
        };
        routes.retain(|route| !(for_any_host(route) && at_slash(route)));
        routes.push(Node::text(text, &source).under("root"));
        self.lay(Node::list(routes, &source).under("routes"))
    }

    /// Adds a listening stream socket that the host opened, which the caller has checked to be one. It
    /// comes after the addresses of `listen` and does not count as one; without `listen` it stands alone.
    ///
    /// # Errors
    /// The name is empty, longer than 255 bytes, or taken; or there are 64 already.
    pub fn add_listener(&mut self, name: &str, socket: OwnedFd) -> Result<()> {
        let refused = |what: String| Err(Error::new(ErrorKind::Invalid, what));
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
            return refused(format!("a listener's name has 1 to {NAME_BYTES_MAX} bytes, printable"));
        }
        if self.sockets.iter().any(|other| other.name == name) {
            return refused(format!("a listener named {name:?} was added already"));
        }
        if self.sockets.len() >= LISTENERS_MAX {
            return refused(format!("at most {LISTENERS_MAX} listeners can be added"));
        }
        let (name, socket) = (name.to_owned(), Arc::new(socket));
        self.sockets.push(OpenSocket { name, address: None, origin: Origin::Host, socket, tls: None });
        Ok(())
    }

    /// Sockets that this process was started with, which the caller has checked to be listening stream sockets. Each
    /// is for a listener that [`Origin`] tells; a listener that has one is not bound again.
    pub fn inherit(&mut self, sockets: impl IntoIterator<Item = OpenSocket>) {
        self.sockets.extend(sockets);
    }

    /// The settings to run with: defaults filled in, everything checked against itself and against `host`.
    ///
    /// # Errors
    /// Values that cannot go together, with the place of one; [`ErrorKind::Limit`] for given numbers that need
    /// more file descriptors than there are or more bytes than the budget has, with the sum.
    pub fn resolve(&self, host: &Host) -> Result<Settings> {
        let draft = match &self.document {
            Some(document) => Draft::read(document)?,
            None => Draft::default(),
        };
        let added = |socket: &OpenSocket| socket.origin != Origin::Predecessor;
        let configured = self.document.is_some() || self.sockets.iter().any(added);
        resolve::resolve(draft, &self.sockets, configured, host)
    }

    fn load(&mut self, text: &str, source: &Arc<Source>) -> Result<()> {
        let mut node = document::parse(text, source)?;
        if let Value::Null = node.value {
            node.value = Value::Map(Vec::new());
        }
        self.lay(node)
    }

    /// Checks a layer by itself, then merges it.
    fn lay(&mut self, layer: Node) -> Result<()> {
        Draft::read(&layer)?;
        let document = self
            .document
            .get_or_insert_with(|| Node { mark: layer.mark.clone(), value: Value::Map(Vec::new()) });
        document.merge(layer);
        Ok(())
    }
}

/// The source of values given one by one: no file, paths from the working directory.
fn given_source() -> Result<Arc<Source>> {
    Ok(Arc::new(Source { file: None, base: working_directory()? }))
}

fn working_directory() -> Result<PathBuf> {
    std::env::current_dir().map_err(|error| Error::io("cannot tell the working directory", &error))
}

/// The place of the byte that follows `valid`, the part of the file that is UTF-8.
fn place_after(file: &Path, valid: &[u8]) -> Place {
    let narrow = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let line = valid.iter().filter(|&&byte| byte == b'\n').count() + 1;
    let line_start = valid.iter().rposition(|&byte| byte == b'\n').map_or(0, |newline| newline + 1);
    // Characters, not bytes: those that do not continue one.
    let column = valid.iter().skip(line_start).filter(|&&byte| byte & 0xC0 != 0x80).count() + 1;
    Place { file: file.to_path_buf(), line: narrow(line), column: narrow(column) }
}
