//! The plan the other way round: how many connections of a kind the budget has room for.

use super::{H2_BYTES, H2_TYPICAL_BYTES, Kind, Term, tier_bytes, total, wide};
use crate::config::{
    Settings,
    sizes::{EXCHANGE_BYTES, SLOT_BYTES, TIER_BYTES, TLS_HANDSHAKE_BYTES, TLS_IDLE_BYTES, TLS_SENDING_BYTES},
};

/// What keeps the number from being larger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// Connection slots: `memory.worker_connections` of each shard.
    Slots,
    /// The budget.
    Memory,
}

/// How many connections of one kind fit, if all are of that kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fit {
    /// The kind, as JSON has it.
    pub kind: &'static str,
    /// The kind, for people.
    pub name: &'static str,
    /// What one holds, its slot included.
    pub unit_bytes: usize,
    /// How many fit.
    pub count: usize,
    /// Why no more.
    pub bound: Bound,
}

/// `limit_bytes` is how much of the budget connections may make full.
pub(super) fn fits(settings: &Settings, terms: &[Term], limit_bytes: u64) -> Vec<Fit> {
    let slots = settings.shards.saturating_mul(settings.memory.worker_connections);
    let standing = total(terms.iter().filter(|term| term.kind != Kind::Connections), Term::bytes);
    // The slots are among what stands, and part of what a connection holds.
    let slots_bytes = wide(slots).saturating_mul(wide(SLOT_BYTES));
    let room = limit_bytes.saturating_add(slots_bytes).saturating_sub(standing);
    let fit = |kind, name, more_bytes: usize| {
        let unit_bytes = SLOT_BYTES + more_bytes;
        let by_memory = usize::try_from(room / wide(unit_bytes)).unwrap_or(usize::MAX);
        let (count, bound) =
            if by_memory < slots { (by_memory, Bound::Memory) } else { (slots, Bound::Slots) };
        Fit { kind, name, unit_bytes, count, bound }
    };
    let worst = EXCHANGE_BYTES + tier_bytes(settings.limits.header_bytes) + TIER_BYTES[2];
    vec![
        fit("idle", "idle", 0),
        fit("active", "in a request, typically", EXCHANGE_BYTES + TIER_BYTES[0]),
        fit("active_worst", "in a request, at worst", worst),
        fit("tls_handshake", "TLS, in a handshake", TLS_HANDSHAKE_BYTES),
        fit("tls_idle", "TLS, idle", TLS_IDLE_BYTES),
        fit("tls_active", "TLS, in a request", TLS_IDLE_BYTES + EXCHANGE_BYTES + TLS_SENDING_BYTES),
        fit("h2", "HTTP/2, typically (not in this version)", H2_TYPICAL_BYTES),
        fit("h2_worst", "HTTP/2, at worst (not in this version)", H2_BYTES),
    ]
}
