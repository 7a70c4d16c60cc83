//! Session tickets (RFC 5077, RFC 8446 section 4.6.1): the client keeps its session, encrypted with a key that all
//! shards know, so that a session made on one resumes on any other and nothing is stored.
//!
//! A ticket is the name of its key (16 bytes), a nonce (12 random bytes), and by AES-256-GCM the time of issue and the
//! session. The AEAD's key is made from the key's secret and the listener's policy about client certificates
//! (HKDF-SHA256, RFC 5869), so that a listener never takes a ticket of one that asks its clients for something else.

mod keys;
mod rotation;

pub use keys::TicketKeys;
pub use rotation::TicketRotation;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rustls::{server::ProducesTickets, time_provider::TimeProvider};

use super::{
    cache::{Policy, Store},
    provider::primitives::{
        aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
        hkdf::{HKDF_SHA256, Salt},
        rand::{SecureRandom, SystemRandom},
    },
};
use crate::metrics::ShardMetrics;
use keys::{NAME_BYTES, TicketKey};

/// Separates these keys from whatever else might be made from the same secret.
const SALT: &[u8] = b"webserver session ticket 1";
/// Bytes of the time of issue: seconds since 1970, big-endian.
const ISSUED_BYTES: usize = size_of::<u64>();
/// Bytes of the AEAD's tag.
const TAG_BYTES: usize = 16;
/// What is before the ciphertext.
const HEAD_BYTES: usize = NAME_BYTES + NONCE_LEN;
/// The longest ticket, in bytes. A client sends it with every ClientHello, so a longer chain of certificates is better
/// shown anew.
pub(super) const TICKET_BYTES_MAX: usize = 8 << 10;

/// Encrypts and decrypts the tickets of one listener on one shard.
pub(super) struct Ticketer {
    /// The first encrypts. Only the shard's thread takes the lock.
    keys: Mutex<Vec<Sealer>>,
    /// The keys are a file's: rotation is none of theirs.
    fixed: bool,
    policy: Policy,
    lifetime: Duration,
    random: SystemRandom,
    time: Arc<dyn TimeProvider>,
    metrics: Arc<ShardMetrics>,
    /// Where the same listener's sessions are stored: those whose client takes a ticket are not needed there.
    store: Arc<Store>,
}

/// What a ticketer is made with.
pub(super) struct TicketerSetup {
    pub(super) policy: Policy,
    pub(super) lifetime: Duration,
    pub(super) time: Arc<dyn TimeProvider>,
    pub(super) metrics: Arc<ShardMetrics>,
    pub(super) store: Arc<Store>,
}

struct Sealer {
    name: [u8; NAME_BYTES],
    key: LessSafeKey,
}

impl Ticketer {
    pub(super) fn new(setup: TicketerSetup, keys: &TicketKeys, fixed: bool) -> Self {
        let TicketerSetup { policy, lifetime, time, metrics, store } = setup;
        let ticketer = Ticketer {
            keys: Mutex::default(),
            fixed,
            policy,
            lifetime,
            random: SystemRandom::new(),
            time,
            metrics,
            store,
        };
        ticketer.derive(keys);
        ticketer
    }

    /// Other keys from now on, unless they are a file's.
    pub(super) fn set_keys(&self, keys: &TicketKeys) {
        if !self.fixed {
            self.derive(keys);
        }
    }

    fn derive(&self, keys: &TicketKeys) {
        let sealer = |key: &Arc<TicketKey>| Sealer::new(key, &self.policy);
        *self.lock() = keys.keys().iter().filter_map(sealer).collect();
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Sealer>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_seconds(&self) -> Option<u64> {
        self.time.current_time().map(|time| time.as_secs())
    }

    fn open(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        if ticket.len() > TICKET_BYTES_MAX || ticket.len() < HEAD_BYTES + ISSUED_BYTES + TAG_BYTES {
            return None;
        }
        let (head, ciphertext) = ticket.split_at(HEAD_BYTES);
        let (name, nonce) = head.split_at(NAME_BYTES);
        let mut plain = ciphertext.to_vec();
        {
            let keys = self.lock();
            let sealer = keys.iter().find(|sealer| sealer.name == name)?;
            let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
            sealer.key.open_in_place(nonce, Aad::from(name), &mut plain).ok()?;
        }
        plain.truncate(plain.len() - TAG_BYTES);
        let session = plain.split_off(ISSUED_BYTES);
        let issued = u64::from_be_bytes(plain.try_into().ok()?);
        // Of a machine whose clock is ahead a ticket may come from the future: it is new.
        (self.now_seconds()?.saturating_sub(issued) < self.lifetime.as_secs()).then_some(session)
    }
}

impl ProducesTickets for Ticketer {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(self.lifetime.as_secs()).unwrap_or(u32::MAX)
    }

    /// `None` when the ticket would be too long: the client gets none, and its next handshake is a full one.
    fn encrypt(&self, session: &[u8]) -> Option<Vec<u8>> {
        let length = HEAD_BYTES + ISSUED_BYTES + session.len() + TAG_BYTES;
        if length > TICKET_BYTES_MAX {
            return None;
        }
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).ok()?;
        let issued = self.now_seconds()?.to_be_bytes();
        let mut ticket = Vec::with_capacity(length);
        {
            let keys = self.lock();
            let sealer = keys.first()?;
            ticket.extend_from_slice(&sealer.name);
            ticket.extend_from_slice(&nonce);
            ticket.extend_from_slice(&issued);
            ticket.extend_from_slice(session);
            let nonce = Nonce::assume_unique_for_key(nonce);
            let aad = Aad::from(&sealer.name);
            let tag = sealer.key.seal_in_place_separate_tag(nonce, aad, &mut ticket[HEAD_BYTES..]).ok()?;
            ticket.extend_from_slice(tag.as_ref());
        }
        self.store.withdraw(session);
        Some(ticket)
    }

    /// `None` for whatever is not a ticket of this listener's policy, of a key that is known, and young enough.
    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let session = self.open(ticket);
        let tls = &self.metrics.tls;
        if session.is_some() { &tls.tickets_accepted } else { &tls.tickets_refused }.increment();
        session
    }
}

impl Sealer {
    /// `None` never happens: 32 bytes are what the expansion can give.
    fn new(key: &TicketKey, policy: &Policy) -> Option<Self> {
        let extracted = Salt::new(HKDF_SHA256, SALT).extract(&key.secret);
        let info: [&[u8]; 1] = [policy];
        let expanded = extracted.expand(&info, &AES_256_GCM).ok()?;
        Some(Sealer { name: key.name, key: LessSafeKey::new(UnboundKey::from(expanded)) })
    }
}

impl fmt::Debug for Ticketer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticketer").field("lifetime", &self.lifetime).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
