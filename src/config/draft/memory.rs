//! The keys below `memory`, typed and checked one by one.
//!
//! What depends on the profile, on the budget or on two keys together is left to `resolve` and `fit`.

use std::{ops::RangeInclusive, time::Duration};

use super::{Marked, TIME, mark};
use crate::{
    config::{
        document::Value,
        field::Field,
        settings::{OpenFileCache, Profile, TlsSessionCache},
        sizes::TIER_BYTES,
    },
    error::Result,
};

const BUDGET_BYTES: RangeInclusive<u64> = 1 << 20..=1 << 44;
const WORKER_CONNECTIONS: RangeInclusive<u64> = 1..=1_000_000;
const POOL_BUFFERS: RangeInclusive<u64> = 0..=65_536;
const OPEN_FILES: RangeInclusive<u64> = 0..=1_000_000;
const MIN_USES: RangeInclusive<u64> = 1..=1_000_000;
const RESPONSE_CACHE_BYTES: RangeInclusive<u64> = 0..=1 << 40;
const TLS_SESSION_CACHE_BYTES: RangeInclusive<u64> = 0..=1 << 40;
/// A ticket may be good for seven days (RFC 8446 4.6.1).
const TLS_SESSION_LIFETIME: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(7 * 24 * 3600);
const HIGH_PERCENT: RangeInclusive<u64> = 1..=100;
const LOW_PERCENT: RangeInclusive<u64> = 0..=99;
/// A mapped file is sent by one call, and others wait meanwhile.
const MAPPED_FILE_BYTES: RangeInclusive<u64> = 0..=4 << 20;
const MAPPED_BYTES: RangeInclusive<u64> = 0..=1 << 40;

const PROFILES: [(&str, Profile); 3] =
    [("small", Profile::Small), ("medium", Profile::Medium), ("large", Profile::Large)];

/// What is said below `memory`. An `Option` that is `None` was not given.
#[derive(Debug, Default)]
pub(in crate::config) struct MemoryDraft {
    /// Where defaults come from.
    pub profile: Profile,
    /// All that the server may hold, bytes.
    pub budget: Option<Marked<usize>>,
    /// Connection slots of each shard.
    pub worker_connections: Option<Marked<usize>>,
    /// Free buffers kept, smallest tier first.
    pub buffer_pools: [PoolDraft; 3],
    /// All but its `entries`.
    pub open_file_cache: OpenFileCache,
    /// The cache's `entries`.
    pub open_files: Option<Marked<usize>>,
    /// The response cache.
    pub response_cache: ResponseCacheDraft,
    /// The largest file that is mapped, bytes.
    pub mapped_file_bytes: Option<Marked<u64>>,
    /// All mappings, bytes.
    pub mapped_bytes: Option<Marked<usize>>,
    /// All but its size.
    pub tls_session_cache: TlsSessionCache,
    /// All TLS sessions, bytes.
    pub tls_session_cache_bytes: Option<Marked<usize>>,
    /// Raise the soft limit of descriptors.
    pub raise_nofile: Option<bool>,
}

/// Free buffers of one tier.
#[derive(Debug, Default)]
pub(in crate::config) struct PoolDraft {
    /// Of each shard.
    pub count: Option<Marked<usize>>,
    /// Of all shards together.
    pub global: Option<Marked<usize>>,
}

/// The response cache.
#[derive(Debug, Default)]
pub(in crate::config) struct ResponseCacheDraft {
    /// All of it, bytes.
    pub size: Option<Marked<usize>>,
    /// Its static share, bytes.
    pub static_share: Option<Marked<usize>>,
    /// Its share for upstreams, bytes.
    pub proxy_share: Option<Marked<usize>>,
    /// The largest response, bytes.
    pub max_object: Option<Marked<usize>>,
    /// Where eviction begins, percent.
    pub high: Option<Marked<u8>>,
    /// Where it ends, percent.
    pub low: Option<Marked<u8>>,
}

impl MemoryDraft {
    /// Reads the section.
    pub(super) fn read(&mut self, memory: &Field<'_>) -> Result<()> {
        const KEYS: [&str; 9] = [
            "profile",
            "budget",
            "worker_connections",
            "buffer_pools",
            "open_file_cache",
            "mmap",
            "response_cache",
            "tls_session_cache",
            "raise_nofile",
        ];
        for field in memory.section()? {
            match field.key {
                "profile" => self.profile = field.word(&PROFILES)?,
                "budget" => self.budget = Some(mark(&field, field.size(BUDGET_BYTES)?)),
                "worker_connections" => {
                    self.worker_connections = Some(mark(&field, field.count(WORKER_CONNECTIONS)?));
                }
                "buffer_pools" => self.read_buffer_pools(&field)?,
                "open_file_cache" => self.read_open_file_cache(&field)?,
                "mmap" => self.read_mmap(&field)?,
                "response_cache" => self.response_cache.read(&field)?,
                "tls_session_cache" => self.read_tls_session_cache(&field)?,
                "raise_nofile" => self.raise_nofile = Some(field.bool()?),
                _ => return Err(field.unknown(&KEYS, &[])),
            }
        }
        Ok(())
    }

    fn read_buffer_pools(&mut self, pools: &Field<'_>) -> Result<()> {
        const TIERS: [&str; 3] = ["small", "medium", "large"];
        for tier in pools.section()? {
            let Some(index) = TIERS.iter().position(|name| *name == tier.key) else {
                return Err(tier.unknown(&TIERS, &[]));
            };
            self.buffer_pools[index].read(&tier, TIER_BYTES[index])?;
        }
        Ok(())
    }

    fn read_open_file_cache(&mut self, cache: &Field<'_>) -> Result<()> {
        const KEYS: [&str; 5] = ["entries", "min_uses", "inactive", "valid", "errors"];
        if !matches!(cache.node.value, Value::Map(_)) {
            self.open_files = Some(mark(cache, cache.count(OPEN_FILES)?));
            return Ok(());
        }
        for field in cache.section()? {
            match field.key {
                "entries" => self.open_files = Some(mark(&field, field.count(OPEN_FILES)?)),
                "min_uses" => self.open_file_cache.min_uses = field.count(MIN_USES)?,
                "inactive" => self.open_file_cache.inactive = field.time(TIME)?,
                "valid" => self.open_file_cache.valid = field.time(TIME)?,
                "errors" => self.open_file_cache.errors = field.bool()?,
                _ => return Err(field.unknown(&KEYS, &[])),
            }
        }
        Ok(())
    }

    fn read_tls_session_cache(&mut self, cache: &Field<'_>) -> Result<()> {
        let size = |field: &Field<'_>| Ok(Some(mark(field, field.size(TLS_SESSION_CACHE_BYTES)?)));
        if !matches!(cache.node.value, Value::Map(_)) {
            self.tls_session_cache_bytes = size(cache)?;
            return Ok(());
        }
        for field in cache.section()? {
            match field.key {
                "size" => self.tls_session_cache_bytes = size(&field)?,
                "lifetime" => self.tls_session_cache.lifetime = field.seconds(TLS_SESSION_LIFETIME)?,
                "tickets" => self.tls_session_cache.tickets = field.bool()?,
                _ => return Err(field.unknown(&["size", "lifetime", "tickets"], &[])),
            }
        }
        Ok(())
    }

    fn read_mmap(&mut self, mmap: &Field<'_>) -> Result<()> {
        for field in mmap.section()? {
            match field.key {
                "max_file" => self.mapped_file_bytes = Some(mark(&field, field.size(MAPPED_FILE_BYTES)?)),
                "max_total" => self.mapped_bytes = Some(mark(&field, field.size(MAPPED_BYTES)?)),
                _ => return Err(field.unknown(&["max_file", "max_total"], &[])),
            }
        }
        Ok(())
    }
}

impl PoolDraft {
    /// The sizes are the profile's and fixed: a configuration may state them, not change them.
    fn read(&mut self, tier: &Field<'_>, tier_bytes: usize) -> Result<()> {
        for field in tier.section()? {
            match field.key {
                "count" => self.count = Some(mark(&field, field.count(POOL_BUFFERS)?)),
                "global" => self.global = Some(mark(&field, field.count(POOL_BUFFERS)?)),
                "size" if field.size::<usize>(0..=u64::MAX).is_ok_and(|bytes| bytes == tier_bytes) => {}
                "size" => {
                    return Err(field.wrong(&format!("{}KB, the size of this tier", tier_bytes >> 10)));
                }
                _ => return Err(field.unknown(&["count", "size", "global"], &[])),
            }
        }
        Ok(())
    }
}

impl ResponseCacheDraft {
    fn read(&mut self, cache: &Field<'_>) -> Result<()> {
        const KEYS: [&str; 6] = ["size", "static", "proxy", "max_object", "high", "low"];
        let size = |field: &Field<'_>| Ok(Some(mark(field, field.size(RESPONSE_CACHE_BYTES)?)));
        if !matches!(cache.node.value, Value::Map(_)) {
            self.size = size(cache)?;
            return Ok(());
        }
        for field in cache.section()? {
            match field.key {
                "size" => self.size = size(&field)?,
                "static" => self.static_share = size(&field)?,
                "proxy" => self.proxy_share = size(&field)?,
                "max_object" => self.max_object = size(&field)?,
                "high" => self.high = Some(mark(&field, field.count(HIGH_PERCENT)?)),
                "low" => self.low = Some(mark(&field, field.count(LOW_PERCENT)?)),
                _ => return Err(field.unknown(&KEYS, &[])),
            }
        }
        Ok(())
    }
}
