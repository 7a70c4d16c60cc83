//! Keys of session tickets: generated ones that rotate, or those of a file that several machines share.

use std::{fs::File, io::Read, os::unix::fs::PermissionsExt, path::Path, sync::Arc};

use zeroize::Zeroizing;

use crate::{
    error::{Error, ErrorKind, Result},
    sys::random,
};

/// Bytes of a key's name, with which a ticket says what it was encrypted by.
pub(super) const NAME_BYTES: usize = 16;
/// Bytes of a generated secret.
const SECRET_BYTES: usize = 32;
/// Sizes of a key in a file, name included, as nginx takes them: the shorter only alone.
const SHORT_KEY_BYTES: usize = 48;
const LONG_KEY_BYTES: usize = 80;
/// Keys of a file beside the first.
const FILE_PREVIOUS_MAX: usize = 16;
/// Permission bits of everybody who is neither the owner nor of the group.
const OTHERS: u32 = 0o007;

/// A name and a secret. The secret is overwritten when the last who knows it lets go.
pub(super) struct TicketKey {
    pub(super) name: [u8; NAME_BYTES],
    pub(super) secret: Zeroizing<Box<[u8]>>,
}

/// An unchangeable set of keys, shared by all shards: the first encrypts, all of them decrypt.
#[derive(Debug)]
pub struct TicketKeys {
    keys: Vec<Arc<TicketKey>>,
    warning: Option<String>,
}

impl TicketKeys {
    /// A current key and the next one, nobody else's.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] when the system has no random bytes.
    pub fn generate() -> Result<Self> {
        let (current, next) = (TicketKey::generate()?, TicketKey::generate()?);
        Ok(TicketKeys { keys: vec![Arc::new(current), Arc::new(next)], warning: None })
    }

    /// The set after this one: the next key becomes the current one, the current one a previous one, of which at most
    /// `previous_max` are kept, and there is another next one.
    ///
    /// Shards hear of a rotation one after the other. Whoever has not heard yet knows the key that others encrypt with
    /// by now, because it was the next one for a whole period; whoever has heard knows the old one, because it is a
    /// previous one. So in whatever order the shards hear, a ticket of one can be decrypted by all.
    pub(in crate::tls) fn rotated(&self, previous_max: usize) -> Result<Self> {
        let [current, next, previous @ ..] = &self.keys[..] else {
            return TicketKeys::generate();
        };
        let mut keys = vec![Arc::clone(next), Arc::new(TicketKey::generate()?)];
        keys.extend(std::iter::once(current).chain(previous).take(previous_max).cloned());
        Ok(TicketKeys { keys, warning: None })
    }

    /// The keys of a file: one of 48 or 80 bytes, as `openssl rand 80` makes it, or several of 80 bytes one after
    /// another, of which the first encrypts and the others, 16 at most, decrypt only. Blocks.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] when the file cannot be read, [`ErrorKind::Config`] when it does not hold such keys.
    pub fn load(path: &Path) -> Result<Self> {
        let failed = |error| Error::io(format!("cannot read the ticket keys {}", path.display()), &error);
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(wrong(path, "is not a regular file"));
        }
        // One byte more than there may be, all of it reserved: bytes that are moved leave a copy behind.
        let bytes_max = LONG_KEY_BYTES * (1 + FILE_PREVIOUS_MAX);
        let mut bytes = Zeroizing::new(Vec::with_capacity(bytes_max + 1));
        file.take(bytes_max as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
        let mut keys = TicketKeys::parse(&bytes).map_err(|what| wrong(path, &what))?;
        let mode = metadata.permissions().mode() & 0o777;
        if mode & OTHERS != 0 {
            keys.warning = Some(format!(
                "the ticket keys {} are open to every user of this machine (mode {mode:03o}): whoever reads them can \
                 decrypt recorded connections; chmod 600 closes them",
                path.display()
            ));
        }
        Ok(keys)
    }

    /// Something about the file that whoever runs the server should hear.
    pub(in crate::tls) fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }

    /// All keys, the one that encrypts first.
    pub(super) fn keys(&self) -> &[Arc<TicketKey>] {
        &self.keys
    }

    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let count = bytes.len() / LONG_KEY_BYTES;
        let key_bytes = match bytes.len() {
            SHORT_KEY_BYTES => SHORT_KEY_BYTES,
            length if length > 0 && length % LONG_KEY_BYTES == 0 && count <= 1 + FILE_PREVIOUS_MAX => {
                LONG_KEY_BYTES
            }
            length if length > LONG_KEY_BYTES * (1 + FILE_PREVIOUS_MAX) => {
                return Err(format!("has more than {} keys", 1 + FILE_PREVIOUS_MAX));
            }
            length => return Err(format!("has {length} bytes")),
        };
        let keys: Vec<Arc<TicketKey>> =
            bytes.chunks_exact(key_bytes).map(|key| Arc::new(TicketKey::read(key))).collect();
        for (index, key) in keys.iter().enumerate() {
            if key.secret.iter().all(|byte| *byte == 0) {
                return Err(format!("has a key of zeros, number {}", index + 1));
            }
            if keys[..index].iter().any(|other| other.name == key.name) {
                return Err(format!("has two keys of the same name, the second is number {}", index + 1));
            }
        }
        Ok(TicketKeys { keys, warning: None })
    }
}

impl TicketKey {
    fn generate() -> Result<Self> {
        let mut bytes = Zeroizing::new([0; NAME_BYTES + SECRET_BYTES]);
        random::fill(&mut *bytes)
            .map_err(|error| Error::io("the system has no random bytes for a ticket key", &error))?;
        Ok(TicketKey::read(&*bytes))
    }

    /// From the name and what follows it.
    fn read(bytes: &[u8]) -> Self {
        let (name, secret) = bytes.split_at(NAME_BYTES);
        let mut key = TicketKey { name: [0; NAME_BYTES], secret: Zeroizing::new(secret.into()) };
        key.name.copy_from_slice(name);
        key
    }
}

impl std::fmt::Debug for TicketKey {
    /// Never the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TicketKey(..)")
    }
}

fn wrong(path: &Path, what: &str) -> Error {
    Error::new(
        ErrorKind::Config,
        format!(
            "the ticket keys {} cannot be used: the file {what}; it must hold one key of 48 or 80 random bytes, as \
             openssl rand 80 makes it, or up to {} keys of 80 bytes, the newest first",
            path.display(),
            1 + FILE_PREVIOUS_MAX
        ),
    )
}
