//! Settings of memory before they are made to fit: given values, and the profile's defaults for the others.

use crate::{
    config::{
        draft::{Marked, MemoryDraft, ResponseCacheDraft},
        settings::{BufferPools, Memory, Mmap, OpenFileCache, Profile, ResponseCache, TlsSessionCache},
    },
    error::{ErrorKind, Result},
};

const OBJECT_BYTES_MAX: usize = 8 << 20;
const HIGH_PERCENT: u8 = 90;
const LOW_PERCENT: u8 = 70;

/// A column of the memory profile.
struct Column {
    worker_connections: usize,
    /// Smallest tier first, of each shard.
    buffer_pools: [usize; 3],
    open_files: usize,
    response_cache_bytes: usize,
    tls_session_cache_bytes: usize,
}

impl Column {
    fn of(profile: Profile) -> Column {
        match profile {
            Profile::Small => Column {
                worker_connections: 1024,
                buffer_pools: [256, 64, 16],
                open_files: 1000,
                response_cache_bytes: 64 << 20,
                tls_session_cache_bytes: 5 << 20,
            },
            Profile::Medium => Column {
                worker_connections: 4096,
                buffer_pools: [1024, 256, 64],
                open_files: 10_000,
                response_cache_bytes: 512 << 20,
                tls_session_cache_bytes: 50 << 20,
            },
            Profile::Large => Column {
                worker_connections: 32_768,
                buffer_pools: [4096, 1024, 256],
                open_files: 100_000,
                response_cache_bytes: 4 << 30,
                tls_session_cache_bytes: 500 << 20,
            },
        }
    }
}

/// Everything as given or, where nothing is, as the profile has it. The budget is not known here and 0.
pub(super) fn resolve_memory(draft: &MemoryDraft, raise_nofile: bool) -> Result<Memory> {
    let column = Column::of(draft.profile);
    let given =
        |marked: &Option<Marked<usize>>, default| marked.as_ref().map_or(default, |given| given.value);
    let [small, medium, large] = &draft.buffer_pools;
    let global = BufferPools::default().global_counts();
    Ok(Memory {
        profile: draft.profile,
        budget_bytes: 0,
        worker_connections: given(&draft.worker_connections, column.worker_connections),
        buffer_pools: BufferPools {
            small: given(&small.count, column.buffer_pools[0]),
            medium: given(&medium.count, column.buffer_pools[1]),
            large: given(&large.count, column.buffer_pools[2]),
            global_small: given(&small.global, global[0]),
            global_medium: given(&medium.global, global[1]),
            global_large: given(&large.global, global[2]),
        },
        open_file_cache: OpenFileCache {
            entries: given(&draft.open_files, column.open_files),
            ..draft.open_file_cache
        },
        response_cache: resolve_response_cache(&draft.response_cache, column.response_cache_bytes)?,
        mmap: resolve_mmap(draft, Mmap::default().total_bytes_max)?,
        tls_session_cache: TlsSessionCache {
            size_bytes: given(&draft.tls_session_cache_bytes, column.tls_session_cache_bytes),
            ..draft.tls_session_cache
        },
        raise_nofile,
    })
}

/// The whole cache, `size_default` if nobody spoke of it, its shares, half and three quarters of it unless given, and its
/// marks. A share or a largest response given alone makes the whole fit it.
pub(in crate::config) fn resolve_response_cache(
    draft: &ResponseCacheDraft,
    size_default: usize,
) -> Result<ResponseCache> {
    let parts =
        [("static", &draft.static_share), ("proxy", &draft.proxy_share), ("max_object", &draft.max_object)];
    let size_bytes = match &draft.size {
        Some(size) => size.value,
        None => size_default.max(response_cache_least(draft)),
    };
    for (key, part) in parts {
        if let Some(part) = part.as_ref().filter(|part| part.value > size_bytes) {
            let what = format!(
                "memory.response_cache.{key} ({}) is more than memory.response_cache.size ({size_bytes}), of which it \
                 is a part",
                part.value
            );
            return Err(part.mark.error(ErrorKind::Config, what));
        }
    }
    let given = |part: &Option<Marked<usize>>, default| part.as_ref().map_or(default, |part| part.value);
    let (high_percent, low_percent) = match (&draft.high, &draft.low) {
        (Some(high), Some(low)) if low.value >= high.value => {
            let what = format!(
                "memory.response_cache.low ({}) must be less than memory.response_cache.high ({})",
                low.value, high.value
            );
            return Err(low.mark.error(ErrorKind::Config, what));
        }
        (Some(high), Some(low)) => (high.value, low.value),
        (Some(high), None) => (high.value, LOW_PERCENT.min(high.value.saturating_sub(1))),
        (None, Some(low)) => (HIGH_PERCENT.max(low.value.saturating_add(1)), low.value),
        (None, None) => (HIGH_PERCENT, LOW_PERCENT),
    };
    Ok(ResponseCache {
        size_bytes,
        static_bytes: given(&draft.static_share, size_bytes / 2),
        proxy_bytes: given(&draft.proxy_share, size_bytes - size_bytes / 4),
        object_bytes_max: given(&draft.max_object, OBJECT_BYTES_MAX.min(size_bytes)),
        high_percent,
        low_percent,
    })
}

/// The smallest size that everything given is a part of.
pub(in crate::config) fn response_cache_least(draft: &ResponseCacheDraft) -> usize {
    let given = [&draft.static_share, &draft.proxy_share, &draft.max_object];
    given.into_iter().flatten().map(|part| part.value).max().unwrap_or(0)
}

/// The largest mapped file and all of them, `total_default` if nobody spoke of it. One that is given alone makes the
/// other's default fit it; 0 is the end of both.
pub(in crate::config) fn resolve_mmap(draft: &MemoryDraft, total_default: usize) -> Result<Mmap> {
    let default = Mmap::default();
    let wide = super::wide;
    let (file_bytes_max, total_bytes_max) = match (&draft.mapped_file_bytes, &draft.mapped_bytes) {
        (Some(file), Some(total)) if total.value > 0 && file.value > wide(total.value) => {
            let what = format!(
                "memory.mmap.max_file ({}) is more than memory.mmap.max_total ({}), of which it is a part",
                file.value, total.value
            );
            return Err(file.mark.error(ErrorKind::Config, what));
        }
        (Some(file), Some(total)) => (file.value, total.value),
        (Some(file), None) => (file.value, total_default),
        (None, Some(total)) => (default.file_bytes_max.min(wide(total.value)), total.value),
        (None, None) => (default.file_bytes_max.min(wide(total_default)), total_default),
    };
    if file_bytes_max == 0 || total_bytes_max == 0 {
        return Ok(Mmap { file_bytes_max: 0, total_bytes_max: 0 });
    }
    Ok(Mmap { file_bytes_max, total_bytes_max })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Host};

    const HOST: Host =
        Host { cores: 2, nofile_soft: 1 << 20, nofile_hard: 1 << 20, memory_bytes: 1 << 40, binary: false };

    fn memory(text: &str) -> Result<Memory, String> {
        let mut config = Config::new();
        config.load_yaml(&format!("memory: {{ {text} }}")).unwrap();
        config.resolve(&HOST).map(|settings| settings.memory).map_err(|error| error.to_string())
    }

    #[test]
    fn defaults_are_a_column_of_the_profile_and_given_keys_override_it() {
        let column = |text: &str| {
            let memory = memory(text).unwrap();
            (
                memory.worker_connections,
                memory.buffer_pools.counts(),
                memory.open_file_cache.entries,
                memory.response_cache.size_bytes,
                memory.tls_session_cache.size_bytes,
            )
        };
        let small = (1024, [256, 64, 16], 1000, 64 << 20, 5 << 20);
        assert_eq!(column(""), small);
        assert_eq!(column("profile: small"), small);
        assert_eq!(column("profile: medium"), (4096, [1024, 256, 64], 10_000, 512 << 20, 50 << 20));
        assert_eq!(column("profile: large"), (32_768, [4096, 1024, 256], 100_000, 4 << 30, 500 << 20));
        let given = "profile: large, worker_connections: 7, buffer_pools: { medium: { count: 8 } }, \
                     open_file_cache: { entries: 9 }, response_cache: 10MB, tls_session_cache: 11MB";
        assert_eq!(column(given), (7, [4096, 8, 256], 9, 10 << 20, 11 << 20));
        assert_eq!(memory("profile: large").unwrap().buffer_pools.global_counts(), [1024, 256, 64]);
        let global = "buffer_pools: { small: { global: 1 }, medium: { global: 2 }, large: { global: 0 } }";
        assert_eq!(memory(global).unwrap().buffer_pools.global_counts(), [1, 2, 0]);
    }

    #[test]
    fn sessions_of_tls_are_kept_for_an_hour_as_tickets_unless_told() {
        let cache = |text: &str| memory(&format!("tls_session_cache: {text}")).unwrap().tls_session_cache;
        let default = TlsSessionCache::default();
        assert_eq!(cache("{}"), default);
        assert_eq!((default.lifetime.as_secs(), default.tickets), (3600, true));
        assert_eq!(cache("1MB"), TlsSessionCache { size_bytes: 1 << 20, ..default });
        let whole = cache("{ size: 0, lifetime: 90s, tickets: false }");
        let lifetime = std::time::Duration::from_secs(90);
        assert_eq!(whole, TlsSessionCache { size_bytes: 0, lifetime, tickets: false });
    }

    #[test]
    fn responses_of_upstreams_may_have_three_quarters_and_each_response_8_mb() {
        let shares = |text: &str| {
            let cache = memory(&format!("response_cache: {text}"))?.response_cache;
            Ok::<_, String>((cache.size_bytes, cache.proxy_bytes, cache.object_bytes_max))
        };
        assert_eq!(shares("{}"), Ok((64 << 20, 48 << 20, 8 << 20)));
        assert_eq!(shares("1MB"), Ok((1 << 20, 768 << 10, 1 << 20)));
        assert_eq!(shares("0"), Ok((0, 0, 0)));
        assert_eq!(shares("{ proxy: 1GB, max_object: 2GB }"), Ok((2 << 30, 1 << 30, 2 << 30)));
        assert_eq!(shares("{ size: 1MB, proxy: 1MB, max_object: 1MB }"), Ok((1 << 20, 1 << 20, 1 << 20)));
        for key in ["proxy", "max_object"] {
            let told = shares(&format!("{{ size: 1MB, {key}: 1048577 }}")).unwrap_err();
            let what = "(1048577) is more than memory.response_cache.size (1048576), of which it is a part";
            assert!(told.ends_with(&format!("memory.response_cache.{key} {what}")), "{told}");
        }
    }

    #[test]
    fn eviction_ends_below_where_it_begins() {
        let marks = |text: &str| {
            let cache = memory(&format!("response_cache: {{ {text} }}"))?.response_cache;
            Ok::<_, String>((cache.high_percent, cache.low_percent))
        };
        assert_eq!(marks(""), Ok((90, 70)));
        assert_eq!(marks("high: 70"), Ok((70, 69)));
        assert_eq!(marks("low: 90"), Ok((91, 90)));
        assert_eq!(marks("high: 100, low: 99"), Ok((100, 99)));
        assert_eq!(marks("high: 1"), Ok((1, 0)));
        assert_eq!(
            marks("low: 50, high: 50").unwrap_err(),
            "<text>:1:34: memory.response_cache.low (50) must be less than memory.response_cache.high (50)"
        );
    }

    #[test]
    fn static_files_take_half_of_the_response_cache_unless_told() {
        let bytes = |text: &str| {
            let cache = memory(&format!("response_cache: {text}"))?.response_cache;
            Ok::<_, String>((cache.size_bytes, cache.static_bytes))
        };
        assert_eq!(bytes("{}"), Ok((64 << 20, 32 << 20)));
        assert_eq!(bytes("16MB"), Ok((16 << 20, 8 << 20)));
        assert_eq!(bytes("0"), Ok((0, 0)));
        assert_eq!(bytes("{ size: 16MB, static: 16MB }"), Ok((16 << 20, 16 << 20)));
        assert_eq!(bytes("{ static: 1GB }"), Ok((1 << 30, 1 << 30)));
        assert_eq!(
            bytes("{ size: 1KB, static: 1025 }").unwrap_err(),
            "<text>:1:48: memory.response_cache.static (1025) is more than memory.response_cache.size (1024), of \
             which it is a part"
        );
    }

    #[test]
    fn the_largest_mapped_file_is_part_of_what_is_mapped() {
        let mapped = |text: &str| {
            let mmap = memory(&format!("mmap: {text}"))?.mmap;
            Ok::<_, String>((mmap.file_bytes_max, mmap.total_bytes_max))
        };
        assert_eq!(mapped("{}"), Ok((16 << 10, 64 << 20)));
        assert_eq!(mapped("{ max_file: 4MB, max_total: 4MB }"), Ok((4 << 20, 4 << 20)));
        assert_eq!(mapped("{ max_file: 64KB }"), Ok((64 << 10, 64 << 20)));
        assert_eq!(mapped("{ max_total: 16385 }"), Ok((16 << 10, 16385)));
        assert_eq!(mapped("{ max_total: 4095 }"), Ok((4095, 4095)));
        assert_eq!(mapped("{ max_file: 0 }"), Ok((0, 0)));
        assert_eq!(mapped("{ max_total: 0 }"), Ok((0, 0)));
        assert_eq!(mapped("{ max_file: 1MB, max_total: 0 }"), Ok((0, 0)));
        assert_eq!(
            mapped("{ max_file: 65537, max_total: 64KB }").unwrap_err(),
            "<text>:1:29: memory.mmap.max_file (65537) is more than memory.mmap.max_total (65536), of which it is a part"
        );
    }
}
