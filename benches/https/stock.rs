//! Sessions of all clients of a load together. A ticket of TLS 1.3 is used once, and h2o gives none to who resumes: tickets are
//! laid in by full handshakes first, and used up while resumed ones are measured, with all servers alike.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use rustls::{
    NamedGroup,
    client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue},
    pki_types::ServerName,
};

/// Enough for every measurement; more are dropped.
const TICKETS_MAX: usize = 100_000;

/// The sessions.
#[derive(Debug, Default)]
pub struct Stock {
    /// Sessions may be resumed.
    open: AtomicBool,
    sessions: Mutex<Sessions>,
}

#[derive(Debug, Default)]
struct Sessions {
    tickets: VecDeque<Tls13ClientSessionValue>,
    tls12: Option<Tls12ClientSessionValue>,
}

impl Stock {
    /// From now on sessions are resumed.
    pub fn open(&self) {
        self.open.store(true, Relaxed);
    }

    /// Tickets of TLS 1.3 that were not used.
    pub fn tickets(&self) -> usize {
        self.sessions().tickets.len()
    }

    fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl ClientSessionStore for Stock {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, session: Tls12ClientSessionValue) {
        self.sessions().tls12 = Some(session);
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.open.load(Relaxed).then(|| self.sessions().tls12.clone())?
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        let tickets = &mut self.sessions().tickets;
        if tickets.len() < TICKETS_MAX {
            tickets.push_back(ticket);
        }
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.open.load(Relaxed).then(|| self.sessions().tickets.pop_front())?
    }
}
