//! The sum of bytes: what always stands, and caches and free buffers when they are full, against the budget.
//!
//! Pure, and before anything starts. What connections hold while requests are in progress is not in the sum: the server
//! reserves that as it goes and refuses what the budget has no room for; `webserver plan` shows how much fits.

use super::{
    draft::{Marked, MemoryDraft},
    resolve::{
        OPEN_FILES_MIN, WORKER_CONNECTIONS_MIN, resolve_mmap, resolve_response_cache, response_cache_least,
        wide,
    },
    settings::Settings,
    sizes,
    units::show_size,
};
use crate::error::{Error, ErrorKind, Result};

/// Defaults are made to leave this part of the budget, in percent, to connections: pressure begins at 70 % in use.
const FULL_PERCENT: u64 = 60;
/// Without `memory.budget`: one of so many parts of what the process may use.
const BUDGET_PART: u64 = 4;

/// Defaults give way down to this and no further.
const CACHE_BYTES_MIN: usize = 256 << 10;
const POOL_BUFFERS_MIN: [usize; 3] = [16, 4, 1];
const HANDSHAKES_MIN: usize = 16;

/// What was given, as far as it stands in the sum.
#[derive(Clone, Copy)]
pub(super) struct Given<'a> {
    /// `memory`.
    pub memory: &'a MemoryDraft,
    /// `shards`.
    pub shards: Option<&'a Marked<usize>>,
    /// `limits.handshakes`.
    pub handshakes: Option<&'a Marked<usize>>,
}

/// Something whose maximum is configured.
struct Term<'a> {
    key: &'static str,
    /// What one takes, in all shards that have one.
    unit_bytes: usize,
    count: usize,
    /// A default is not made smaller than this.
    least: usize,
    /// Where the value was given; a default has no place, and may give way.
    given: Option<&'a Marked<usize>>,
    /// Puts another count into the settings.
    set: fn(&mut Settings, usize),
}

impl Term<'_> {
    fn bytes(&self) -> u64 {
        wide(self.count).saturating_mul(wide(self.unit_bytes))
    }

    fn can_give(&self) -> bool {
        self.given.is_none() && self.count > self.least
    }

    fn halve(&mut self) {
        self.count = (self.count / 2).max(self.least);
    }
}

/// Settles the budget and makes the defaults of `settings` fit it. Given values are kept: those that cannot fit are an
/// error that does the sum.
pub(super) fn fit(settings: &mut Settings, given: Given<'_>, memory_bytes: u64) -> Result<()> {
    let draft = given.memory;
    let substrate = stands(settings);
    let mut terms = terms(settings, given);
    let budget = budget(given, memory_bytes, settings.shards, empty_bytes(substrate, settings))?;
    let full = budget / 100 * FULL_PERCENT;
    while sum(substrate, &terms) > full {
        let giving = terms.iter_mut().skip(1).filter(|term| term.can_give());
        let Some(term) = giving.max_by_key(|term| term.bytes()) else { break };
        term.halve();
    }
    // Connections are what a server is for: they give way last, and not for the sake of what was given.
    let defaults = |terms: &[Term<'_>]| {
        let bytes = terms.iter().filter(|term| term.given.is_none()).map(Term::bytes);
        bytes.fold(substrate, u64::saturating_add)
    };
    while terms[0].can_give() && (defaults(&terms) > full || sum(substrate, &terms) > budget) {
        terms[0].halve();
    }
    if sum(substrate, &terms) > budget {
        return Err(misfit(&terms, substrate, settings.shards, draft.budget.as_ref(), budget));
    }
    settings.memory.budget_bytes = usize::try_from(budget).unwrap_or(usize::MAX);
    for term in &terms {
        (term.set)(settings, term.count);
    }
    // Shares of a default go with it.
    let memory = &mut settings.memory;
    memory.response_cache = resolve_response_cache(&draft.response_cache, memory.response_cache.size_bytes)?;
    memory.mmap = resolve_mmap(draft, memory.mmap.total_bytes_max)?;
    Ok(())
}

/// What runs the server, and the slots that no key counts.
fn stands(settings: &Settings) -> u64 {
    wide(sizes::substrate_bytes(settings) + settings.shards * sizes::RESERVED_SLOTS * sizes::SLOT_BYTES)
}

fn sum(substrate: u64, terms: &[Term<'_>]) -> u64 {
    terms.iter().map(Term::bytes).fold(substrate, u64::saturating_add)
}

/// Connections first.
fn terms<'a>(settings: &Settings, given: Given<'a>) -> Vec<Term<'a>> {
    let draft = given.memory;
    let (shards, memory) = (settings.shards, &settings.memory);
    let cache = |key, count, least: usize, given, set| Term {
        key,
        unit_bytes: 1,
        count,
        least: least.max(CACHE_BYTES_MIN),
        given,
        set,
    };
    let [small, medium, large] = &draft.buffer_pools;
    let pools = memory.buffer_pools;
    let [own_small, own_medium, own_large] =
        [(small, 0), (medium, 1), (large, 2)].map(|(pool, tier)| (pool.count.as_ref(), tier, shards));
    let [global_small, global_medium, global_large] =
        [(small, 0), (medium, 1), (large, 2)].map(|(pool, tier)| (pool.global.as_ref(), tier, 1));
    let pool = |key, count, (given, tier, holders): (Option<&'a Marked<usize>>, usize, usize), set| Term {
        key,
        unit_bytes: sizes::TIER_BYTES[tier] * holders,
        count,
        least: POOL_BUFFERS_MIN[tier],
        given,
        set,
    };
    let mapped_file = draft.mapped_file_bytes.as_ref().map_or(0, |given| given.value);
    let mut terms = vec![
        Term {
            key: "memory.worker_connections",
            unit_bytes: shards * sizes::SLOT_BYTES,
            count: memory.worker_connections,
            least: WORKER_CONNECTIONS_MIN,
            given: draft.worker_connections.as_ref(),
            set: |settings, count| settings.memory.worker_connections = count,
        },
        Term {
            key: "memory.open_file_cache",
            unit_bytes: sizes::OPEN_FILE_BYTES,
            count: memory.open_file_cache.entries,
            least: OPEN_FILES_MIN,
            given: draft.open_files.as_ref(),
            set: |settings, count| settings.memory.open_file_cache.entries = count,
        },
        cache(
            "memory.response_cache",
            memory.response_cache.size_bytes,
            response_cache_least(&draft.response_cache),
            draft.response_cache.size.as_ref(),
            |settings, bytes| settings.memory.response_cache.size_bytes = bytes,
        ),
        cache(
            "memory.mmap.max_total",
            memory.mmap.total_bytes_max,
            usize::try_from(mapped_file).unwrap_or(usize::MAX),
            draft.mapped_bytes.as_ref(),
            |settings, bytes| settings.memory.mmap.total_bytes_max = bytes,
        ),
        pool("memory.buffer_pools.small.count", pools.small, own_small, |settings, count| {
            settings.memory.buffer_pools.small = count;
        }),
        pool("memory.buffer_pools.medium.count", pools.medium, own_medium, |settings, count| {
            settings.memory.buffer_pools.medium = count;
        }),
        pool("memory.buffer_pools.large.count", pools.large, own_large, |settings, count| {
            settings.memory.buffer_pools.large = count;
        }),
        pool("memory.buffer_pools.small.global", pools.global_small, global_small, |settings, count| {
            settings.memory.buffer_pools.global_small = count;
        }),
        pool("memory.buffer_pools.medium.global", pools.global_medium, global_medium, |settings, count| {
            settings.memory.buffer_pools.global_medium = count;
        }),
        pool("memory.buffer_pools.large.global", pools.global_large, global_large, |settings, count| {
            settings.memory.buffer_pools.global_large = count;
        }),
    ];
    if settings.speaks_tls() {
        terms.push(cache(
            "memory.tls_session_cache",
            memory.tls_session_cache.size_bytes,
            0,
            draft.tls_session_cache_bytes.as_ref(),
            |settings, bytes| settings.memory.tls_session_cache.size_bytes = bytes,
        ));
        terms.push(Term {
            key: "limits.handshakes",
            unit_bytes: sizes::TLS_HANDSHAKE_BYTES,
            count: settings.limits.handshakes,
            least: HANDSHAKES_MIN,
            given: given.handshakes,
            set: |settings, count| settings.limits.handshakes = count,
        });
    }
    terms
}

/// What a server holds that serves nobody and whose caches and pools are as small as they get.
fn empty_bytes(substrate: u64, settings: &Settings) -> u64 {
    let tiers = POOL_BUFFERS_MIN.iter().zip(sizes::TIER_BYTES).map(|(count, bytes)| count * bytes);
    let pools: usize = tiers.sum();
    let shard = wide(pools + WORKER_CONNECTIONS_MIN * sizes::SLOT_BYTES);
    let shared = wide(pools + 2 * CACHE_BYTES_MIN + OPEN_FILES_MIN * sizes::OPEN_FILE_BYTES);
    let tls = if settings.speaks_tls() {
        wide(CACHE_BYTES_MIN + HANDSHAKES_MIN * sizes::TLS_HANDSHAKE_BYTES)
    } else {
        0
    };
    let shards = shard.saturating_mul(wide(settings.shards));
    [shared, tls, shards].into_iter().fold(substrate, u64::saturating_add)
}

/// The budget as given, or a quarter of what the process may use, in whole megabytes; as much as an empty server needs
/// if that is more.
fn budget(given: Given<'_>, memory_bytes: u64, shards: usize, empty: u64) -> Result<u64> {
    const MEGABYTE: u64 = 1 << 20;
    let least = empty.saturating_mul(100).div_ceil(FULL_PERCENT).div_ceil(MEGABYTE).saturating_mul(MEGABYTE);
    let needs = |shards| format!("{} is the least with shards: {shards}", show_size(least));
    if let Some(given) = &given.memory.budget {
        if wide(given.value) >= least {
            return Ok(wide(given.value));
        }
        let what =
            format!("memory.budget ({}) is too small: {}", show_size(wide(given.value)), needs(shards));
        return Err(given.mark.error(ErrorKind::Config, what));
    }
    if least > memory_bytes {
        let what = format!(
            "this process may use {} of memory, but {}; set fewer",
            show_size(memory_bytes),
            needs(shards)
        );
        return Err(match given.shards {
            Some(given) => given.mark.error(ErrorKind::Limit, what),
            None => Error::new(ErrorKind::Limit, what),
        });
    }
    Ok((memory_bytes / BUDGET_PART / MEGABYTE * MEGABYTE).max(least))
}

/// The sum, term by term, and what would make it fit, where the largest given value stands.
fn misfit(
    terms: &[Term<'_>],
    substrate: u64,
    shards: usize,
    budget_given: Option<&Marked<usize>>,
    budget: u64,
) -> Error {
    let needed = sum(substrate, terms);
    let parts: Vec<String> = terms
        .iter()
        .filter(|term| term.bytes() > 0)
        .map(|term| match term.unit_bytes {
            1 => format!("{} {}", term.key, show_size(term.bytes())),
            unit => format!(
                "{} {} x {} = {}",
                term.key,
                term.count,
                show_size(wide(unit)),
                show_size(term.bytes())
            ),
        })
        .collect();
    let has = match budget_given {
        Some(_) => format!("memory.budget is {}", show_size(budget)),
        None => format!(
            "memory.budget, a quarter of what this process may use unless given, is {}",
            show_size(budget)
        ),
    };
    let largest = terms.iter().filter(|term| term.given.is_some()).max_by_key(|term| term.bytes());
    let lower = largest.and_then(|term| {
        let left = budget.checked_sub(needed.saturating_sub(term.bytes()))? / wide(term.unit_bytes).max(1);
        let left = if term.unit_bytes == 1 { show_size(left) } else { left.to_string() };
        Some(format!("lower {} to {left} or less, or ", term.key))
    });
    let what = format!(
        "needs {} bytes, but {has}: {shards} shards and what they share {}, {}; {}raise memory.budget to {} or more",
        needed,
        show_size(substrate),
        parts.join(", "),
        lower.unwrap_or_default(),
        show_size(needed.div_ceil(1 << 20).saturating_mul(1 << 20)),
    );
    match largest.and_then(|term| term.given).or(budget_given) {
        Some(marked) => marked.mark.error(ErrorKind::Limit, what),
        None => Error::new(ErrorKind::Limit, what),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Host};

    const HOST: Host =
        Host { cores: 2, nofile_soft: 1 << 30, nofile_hard: 1 << 30, memory_bytes: 8 << 30, binary: false };

    fn settings_on(text: &str, host: &Host) -> Result<Settings, String> {
        let mut config = Config::new();
        config.load_yaml(text).unwrap();
        config.resolve(host).map_err(|error| error.to_string())
    }

    fn settings(memory: &str) -> Result<Settings, String> {
        settings_on(&format!("memory: {{ {memory} }}"), &HOST)
    }

    /// What stands against the budget.
    fn held(settings: &Settings) -> u64 {
        let draft = MemoryDraft::default();
        let terms = terms(settings, Given { memory: &draft, shards: None, handshakes: None });
        sum(stands(settings), &terms)
    }

    #[test]
    fn without_a_budget_it_is_a_quarter_of_what_the_process_may_use() {
        let budget = |memory_bytes| {
            settings_on("", &Host { memory_bytes, ..HOST }).map(|settings| settings.memory.budget_bytes)
        };
        assert_eq!(budget(8 << 30), Ok(2 << 30));
        assert_eq!(budget((8 << 30) + 12_345_678), Ok((2 << 30) + (2 << 20)));
        // A quarter of 16 MB would be too little for two shards.
        assert_eq!(budget(16 << 20), Ok(8 << 20));
        assert_eq!(budget(8 << 20), Ok(8 << 20));
        assert_eq!(
            budget((8 << 20) - 1).unwrap_err(),
            "this process may use 8388607 of memory, but 8MB is the least with shards: 2; set fewer"
        );
    }

    #[test]
    fn defaults_leave_four_tenths_of_any_budget_to_connections() {
        for shards in [1, 2, 4] {
            for budget_mb in [32, 33, 48, 64, 100, 256, 512, 4096] {
                let text = format!("shards: {shards}\nmemory: {{ profile: large, budget: {budget_mb}MB }}");
                let settings = settings_on(&text, &HOST).unwrap_or_else(|error| panic!("{text}: {error}"));
                let full = (budget_mb << 20) / 100 * FULL_PERCENT;
                assert!(held(&settings) <= full, "{text}: {}", held(&settings));
                // And no more is given up than that takes: twice of everything but what stands would not fit.
                let stands = wide(sizes::substrate_bytes(&settings) + sizes::slots_bytes(&settings));
                assert!(2 * (held(&settings) - stands) + stands >= full, "{text}");
            }
        }
    }

    #[test]
    fn the_small_profile_needs_no_scaling_at_512_mb() {
        let whole = settings("budget: 512MB").unwrap().memory;
        assert_eq!((whole.worker_connections, whole.buffer_pools.counts()), (1024, [256, 64, 16]));
        assert_eq!((whole.response_cache.size_bytes, whole.mmap.total_bytes_max), (64 << 20, 64 << 20));
        let tight = settings("budget: 32MB").unwrap().memory;
        assert_eq!((tight.worker_connections, tight.open_file_cache.entries), (1024, 1000));
        let cache = tight.response_cache;
        assert_eq!(
            (cache.static_bytes, cache.proxy_bytes),
            (cache.size_bytes / 2, cache.size_bytes - cache.size_bytes / 4)
        );
        assert_eq!(cache.object_bytes_max, cache.size_bytes);
    }

    #[test]
    fn connections_give_way_last() {
        let text = "shards: 2\nmemory: { profile: large, budget: 9MB }";
        let memory = settings_on(text, &HOST).unwrap().memory;
        assert_eq!(memory.response_cache.size_bytes, CACHE_BYTES_MIN);
        assert_eq!(memory.buffer_pools.counts(), POOL_BUFFERS_MIN);
        assert!((WORKER_CONNECTIONS_MIN..32_768).contains(&memory.worker_connections));
        // What was given takes its room from the rest of the budget, not from connections.
        let memory = settings("budget: 32MB, response_cache: 25MB").unwrap().memory;
        assert_eq!((memory.worker_connections, memory.mmap.total_bytes_max), (1024, CACHE_BYTES_MIN));
    }

    #[test]
    fn a_budget_is_refused_below_what_an_empty_server_needs() {
        let least = settings("budget: 8MB").unwrap();
        assert!(held(&least) <= 8 << 20);
        assert_eq!(
            settings("budget: 8388607").unwrap_err(),
            "<text>:1:19: memory.budget (8388607) is too small: 8MB is the least with shards: 2"
        );
        let mut config = Config::new();
        config.set("memory.budget", "1MB").unwrap();
        let told = config.resolve(&HOST).unwrap_err();
        assert_eq!(told.to_string(), "memory.budget (1MB) is too small: 8MB is the least with shards: 2");
        config.set("memory.budget", "64MB").unwrap();
        assert_eq!(config.resolve(&HOST).unwrap().memory.budget_bytes, 64 << 20);
    }

    #[test]
    fn given_values_that_cannot_fit_are_summed_up_where_the_largest_stands() {
        let told = settings("budget: 32MB, response_cache: 64MB, open_file_cache: 10").unwrap_err();
        assert_eq!(
            told,
            "<text>:1:41: needs 71299712 bytes, but memory.budget is 32MB: 2 shards and what they share 3247KB, \
             memory.worker_connections 64 x 128 = 8KB, memory.open_file_cache 10 x 576 = 5760, \
             memory.response_cache 64MB, memory.mmap.max_total 256KB, memory.buffer_pools.small.count 16 x 8KB = \
             128KB, memory.buffer_pools.medium.count 4 x 32KB = 128KB, memory.buffer_pools.large.count 1 x 128KB = \
             128KB, memory.buffer_pools.small.global 16 x 4KB = 64KB, memory.buffer_pools.medium.global 4 x 16KB = \
             64KB, memory.buffer_pools.large.global 1 x 64KB = 64KB; lower memory.response_cache to 29363584 or less, \
             or raise memory.budget to 68MB or more"
        );
        let with =
            |bytes: u64| settings(&format!("budget: 32MB, open_file_cache: 10, response_cache: {bytes}"));
        assert!(held(&with(29_363_584).unwrap()) == 32 << 20);
        assert!(with(29_363_585).is_err());
        let told =
            settings_on("memory:\n  mmap: { max_total: 1GB }\n", &Host { memory_bytes: 1 << 30, ..HOST })
                .unwrap_err();
        assert!(
            told.starts_with("<text>:2:22: needs ")
                && told
                    .contains("memory.budget, a quarter of what this process may use unless given, is 256MB"),
            "{told}"
        );
        let told = settings("budget: 32MB, worker_connections: 1000000").unwrap_err();
        assert!(told.contains("worker_connections 1000000 x 128 = 125000KB"), "{told}");
    }

    const TLS: &str = "listen: [{ address: \"[::1]:1\", tls: { certificates: { certificate: c, key: k } } }]";

    #[test]
    fn tls_is_in_the_sum_once_a_listener_speaks_it() {
        let at = |listen: &str, memory: &str| {
            settings_on(&format!("{listen}\nmemory: {{ profile: large, {memory} }}"), &HOST).unwrap()
        };
        let of =
            |settings: &Settings| (settings.memory.tls_session_cache.size_bytes, settings.limits.handshakes);
        let plain = at("", "budget: 9MB");
        assert_eq!(of(&plain), (500 << 20, 512));
        let tls = at(TLS, "budget: 9MB");
        assert_eq!(of(&tls), (CACHE_BYTES_MIN, HANDSHAKES_MIN));
        assert!(held(&tls) <= 9 << 20);
        let tls = at(TLS, "budget: 16384GB");
        assert_eq!(of(&tls), (500 << 20, 512));
        let without = Settings { listeners: plain.listeners, ..tls.clone() };
        let of_shards = wide(tls.shards * sizes::TLS_SHARD_BYTES + sizes::CERTIFICATE_BYTES);
        assert_eq!(held(&tls) - held(&without), (500 << 20) + 512 * 12_288 + of_shards);
    }

    #[test]
    fn handshakes_and_sessions_that_are_given_stay_or_are_an_error_that_sums_them_up() {
        let text = |given: &str| format!("{TLS}\nmemory: {{ budget: 64MB }}\n{given}");
        let settings = settings_on(&text("limits: { handshakes: 4000 }"), &HOST).unwrap();
        assert_eq!(settings.limits.handshakes, 4000);
        let told = settings_on(&text("limits: { handshakes: 1000000 }"), &HOST).unwrap_err();
        assert!(told.starts_with("<text>:3:23: needs "), "{told}");
        assert!(told.contains("limits.handshakes 1000000 x 12KB = 12000000KB"), "{told}");
        assert!(told.contains("; lower limits.handshakes to "), "{told}");
        let text = format!("{TLS}\nmemory: {{ budget: 64MB, tls_session_cache: 100MB }}");
        let told = settings_on(&text, &HOST).unwrap_err();
        assert!(told.contains("memory.tls_session_cache 100MB"), "{told}");
        // Without TLS nothing of it is kept.
        assert!(settings_on("memory: { budget: 64MB, tls_session_cache: 100MB }", &HOST).is_ok());
    }

    #[test]
    fn a_budget_too_small_for_tls_says_what_is_the_least() {
        let told = |listen: &str| {
            settings_on(&format!("{listen}\nshards: 1\nmemory: {{ budget: 1MB }}"), &HOST).unwrap_err()
        };
        let least = |text| {
            format!("<text>:3:19: memory.budget (1MB) is too small: {text} is the least with shards: 1")
        };
        assert_eq!(told(""), least("5MB"));
        assert_eq!(told(TLS), least("6MB"));
    }

    #[test]
    fn what_was_made_to_fit_is_given_when_it_is_read_again() {
        for budget in ["8MB", "32MB", "100MB", "4GB"] {
            let first = settings(&format!("profile: medium, budget: {budget}")).unwrap();
            assert_eq!(settings_on(&first.to_yaml(), &HOST).unwrap().to_yaml(), first.to_yaml());
        }
    }

    #[test]
    fn the_largest_numbers_do_not_overflow() {
        let text = "shards: 1024\nmemory: { worker_connections: 1000000, open_file_cache: 1000000, response_cache: \
                    1024GB, mmap: { max_total: 1024GB } }";
        assert!(settings_on(text, &Host { memory_bytes: 0, ..HOST }).is_err());
        assert!(settings_on(text, &Host { memory_bytes: u64::MAX, ..HOST }).is_ok());
    }
}
