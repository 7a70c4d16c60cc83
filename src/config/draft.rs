//! What the document says, typed and checked key by key, with the defaults that depend on nothing else.
//!
//! What depends on the process or on two keys together is left to [`super::resolve`].

mod memory;
mod tls;

use std::{ops::RangeInclusive, time::Duration};

pub(super) use memory::{MemoryDraft, ResponseCacheDraft};
pub(super) use tls::{CERTIFICATES_MAX, PEM_BYTES_MAX};

use super::{
    document::{Mark, Node, Value},
    field::Field,
    network::Network,
    routes::read_routes,
    settings::{AccessFormat, AccessLog, Level, Limits, Listener, Log, LogPath, Route, Timeouts},
};
use crate::error::{Error, Result};

/// Most addresses in `listen`, inherited sockets included.
pub(super) const LISTENERS_MAX: usize = 64;

/// Bounds of `shards`.
pub(super) const SHARDS: RangeInclusive<u64> = 1..=1024;

const TIME: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(24 * 3600);
const DRAIN: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(24 * 3600);
const HEADER_BYTES: RangeInclusive<u64> = 512..=64 << 10;
const HEADERS: RangeInclusive<u64> = 1..=1024;
const TARGET_BYTES: RangeInclusive<u64> = 64..=64 << 10;
const BODY_BYTES: RangeInclusive<u64> = 0..=1 << 50;
const REQUESTS: RangeInclusive<u64> = 0..=u32::MAX as u64;
/// Of a listener's or a client's connections, and of a client's requests.
const CAP: RangeInclusive<u64> = 0..=1_000_000;
const HANDSHAKES: RangeInclusive<u64> = 1..=1_000_000;
const SAMPLE: RangeInclusive<u64> = 1..=1_000_000;
/// Most items of `limits.exempt`.
const EXEMPT_MAX: usize = 256;

/// A value that a later check may have to complain about.
#[derive(Clone, Debug)]
pub(super) struct Marked<T> {
    /// The value.
    pub value: T,
    /// Where it stands.
    pub mark: Mark,
}

/// One layer or all layers of the configuration. An `Option` that is `None` was not given.
#[derive(Debug, Default)]
pub(super) struct Draft {
    /// Absent or `auto`: one per core.
    pub shards: Option<Marked<usize>>,
    /// Bind each shard to a core.
    pub pin_shards: bool,
    /// The items of `listen`, and where they stand together.
    pub listen: Option<Marked<Vec<Marked<Listener>>>>,
    /// The admin listener.
    pub admin: Option<Marked<Listener>>,
    /// Empty when none was given.
    pub routes: Vec<Route>,
    /// Sizes and counts of what is held in memory.
    pub memory: MemoryDraft,
    /// Deadlines.
    pub timeouts: Timeouts,
    /// Bounds, all but `target_bytes` and `handshakes`.
    pub limits: Limits,
    /// The bound of a request's target.
    pub target_bytes: Option<Marked<usize>>,
    /// The bound of TLS handshakes in progress.
    pub handshakes: Option<Marked<usize>>,
    /// The access log.
    pub access_log: Option<AccessLog>,
    /// The diagnostic log.
    pub log: Log,
}

impl Draft {
    /// Reads a document.
    ///
    /// # Errors
    /// The first key, in the order written, that is unknown, not in this version, or has a value that is
    /// not allowed.
    pub(super) fn read(document: &Node) -> Result<Draft> {
        const KEYS: [&str; 10] = [
            "shards",
            "pin_shards",
            "listen",
            "admin",
            "routes",
            "memory",
            "timeouts",
            "limits",
            "access_log",
            "log",
        ];
        let mut draft = Draft::default();
        for field in Field::root(document).section()? {
            match field.key {
                "shards" => draft.shards = read_shards(&field)?,
                "pin_shards" => draft.pin_shards = field.bool()?,
                "listen" => draft.listen = Some(mark(&field, read_listen(&field)?)),
                "admin" => draft.admin = Some(read_admin(&field)?),
                "routes" => draft.routes = read_routes(&field)?,
                "memory" => draft.memory.read(&field)?,
                "timeouts" => read_timeouts(&field, &mut draft.timeouts)?,
                "limits" => draft.read_limits(&field)?,
                "access_log" => draft.access_log = Some(read_access_log(&field)?),
                "log" => read_log(&field, &mut draft.log)?,
                _ => return Err(field.unknown(&KEYS, &[])),
            }
        }
        Ok(draft)
    }

    fn read_limits(&mut self, limits: &Field<'_>) -> Result<()> {
        const KEYS: [&str; 10] = [
            "header_bytes",
            "headers",
            "target_bytes",
            "body_bytes",
            "requests_per_connection",
            "connections_per_ip",
            "requests_per_ip",
            "requests_per_ip_burst",
            "handshakes",
            "exempt",
        ];
        const LATER: [&str; 1] = ["h2_streams"];
        for field in limits.section()? {
            match field.key {
                "header_bytes" => self.limits.header_bytes = field.size(HEADER_BYTES)?,
                "headers" => self.limits.headers = field.count(HEADERS)?,
                "target_bytes" => self.target_bytes = Some(mark(&field, field.size(TARGET_BYTES)?)),
                "body_bytes" => self.limits.body_bytes = field.size(BODY_BYTES)?,
                "requests_per_connection" => self.limits.requests_per_connection = field.count(REQUESTS)?,
                "connections_per_ip" => self.limits.connections_per_ip = field.count(CAP)?,
                "requests_per_ip" => self.limits.requests_per_ip = field.count(CAP)?,
                "requests_per_ip_burst" => self.limits.requests_per_ip_burst = field.count(CAP)?,
                "handshakes" => self.handshakes = Some(mark(&field, field.count(HANDSHAKES)?)),
                "exempt" => self.limits.exempt = read_exempt(&field)?,
                _ => return Err(field.unknown(&KEYS, &LATER)),
            }
        }
        Ok(())
    }
}

fn mark<T>(field: &Field<'_>, value: T) -> Marked<T> {
    Marked { value, mark: field.node.mark.clone() }
}

fn read_shards(field: &Field<'_>) -> Result<Option<Marked<usize>>> {
    match &field.node.value {
        Value::Text(text) if text == "auto" => Ok(None),
        Value::Int(_) => Ok(Some(mark(field, field.count(SHARDS)?))),
        _ => Err(field.wrong(&format!("auto or a whole number from {} to {}", SHARDS.start(), SHARDS.end()))),
    }
}

fn read_listen(field: &Field<'_>) -> Result<Vec<Marked<Listener>>> {
    let mut listeners: Vec<Marked<Listener>> = Vec::new();
    for item in field.items(LISTENERS_MAX)? {
        let listener = match item.node.value {
            Value::Text(_) => read_address(&item)?,
            _ => read_listener(&item)?,
        };
        if listeners.iter().any(|other| other.value.clashes_with(&listener.value)) {
            return Err(item.error(format!("{}: {} is listened on already", item.path, listener.value.name)));
        }
        listeners.push(listener);
    }
    Ok(listeners)
}

/// A mapping with an `address`, and perhaps a cap and TLS.
fn read_listener(field: &Field<'_>) -> Result<Marked<Listener>> {
    let mut address = None;
    let mut connections = 0;
    let mut tls = None;
    for entry in field.section()? {
        match entry.key {
            "address" => address = Some(read_address(&entry)?),
            "connections" => connections = entry.count(CAP)?,
            "tls" => tls = Some(tls::read_tls(&entry)?),
            _ => return Err(entry.unknown(&["address", "connections", "tls"], &[])),
        }
    }
    let mut listener = address.ok_or_else(|| needs_address(field))?;
    listener.value.connections = connections;
    listener.value.tls = tls;
    Ok(listener)
}

/// A mapping with an `address` and nothing else.
fn read_admin(field: &Field<'_>) -> Result<Marked<Listener>> {
    let mut address = None;
    for entry in field.section()? {
        match entry.key {
            "address" => address = Some(read_address(&entry)?),
            _ => return Err(entry.unknown(&["address"], &[])),
        }
    }
    address.ok_or_else(|| needs_address(field))
}

fn needs_address(field: &Field<'_>) -> Error {
    field.at_key(format!("{} needs an address", field.path))
}

fn read_address(field: &Field<'_>) -> Result<Marked<Listener>> {
    let Value::Text(_) = field.node.value else {
        return Err(field.wrong(super::address::ALLOWED));
    };
    let listener = Listener::parse(field.text()?, field.node.mark.base())
        .map_err(|what| field.error(format!("{} {what}", field.path)))?;
    Ok(mark(field, listener))
}

fn read_exempt(field: &Field<'_>) -> Result<Vec<Network>> {
    let parse = |item: &Field<'_>| {
        let Value::Text(_) = item.node.value else { return Err(item.wrong(super::network::ALLOWED)) };
        Network::parse(item.text()?).map_err(|what| item.error(format!("{} {what}", item.path)))
    };
    field.items(EXEMPT_MAX)?.iter().map(parse).collect()
}

fn read_timeouts(field: &Field<'_>, timeouts: &mut Timeouts) -> Result<()> {
    const KEYS: [&str; 6] = ["handshake", "header", "body", "write", "idle", "drain"];
    const LATER: [&str; 2] = ["upstream_connect", "upstream_read"];
    for entry in field.section()? {
        match entry.key {
            "handshake" => timeouts.handshake = entry.time(TIME)?,
            "header" => timeouts.header = entry.time(TIME)?,
            "body" => timeouts.body = entry.time(TIME)?,
            "write" => timeouts.write = entry.time(TIME)?,
            "idle" => timeouts.idle = entry.time(TIME)?,
            "drain" => timeouts.drain = entry.time(DRAIN)?,
            _ => return Err(entry.unknown(&KEYS, &LATER)),
        }
    }
    Ok(())
}

/// A mapping, perhaps empty: `access_log: {}` writes to standard output.
fn read_access_log(field: &Field<'_>) -> Result<AccessLog> {
    if let Value::Null = field.node.value {
        return Err(field.wrong("a mapping such as { path: \"-\", format: combined }"));
    }
    const FORMATS: [(&str, AccessFormat); 2] =
        [("combined", AccessFormat::Combined), ("json", AccessFormat::Json)];
    let mut log = AccessLog::default();
    for entry in field.section()? {
        match entry.key {
            "path" => log.path = read_log_path(&entry)?,
            "format" => log.format = entry.word(&FORMATS)?,
            "sample" => log.sample = entry.count(SAMPLE)?,
            _ => return Err(entry.unknown(&["path", "format", "sample"], &[])),
        }
    }
    Ok(log)
}

fn read_log(field: &Field<'_>, log: &mut Log) -> Result<()> {
    const LEVELS: [(&str, Level); 5] = [
        ("error", Level::Error),
        ("warn", Level::Warn),
        ("info", Level::Info),
        ("debug", Level::Debug),
        ("trace", Level::Trace),
    ];
    for entry in field.section()? {
        match entry.key {
            "level" => log.level = entry.word(&LEVELS)?,
            "format" => entry.word(&[("text", ())])?,
            "path" => log.path = Some(read_log_path(&entry)?),
            _ => return Err(entry.unknown(&["level", "format", "path"], &[])),
        }
    }
    Ok(())
}

fn read_log_path(field: &Field<'_>) -> Result<LogPath> {
    match field.text()? {
        "-" => Ok(LogPath::Standard),
        _ => field.path().map(LogPath::File),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::document::{Source, parse};

    fn read(text: &str) -> Result<Draft, String> {
        let source = Arc::new(Source { file: Some("f".into()), base: "/base".into() });
        Draft::read(&parse(text, &source).unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn unknown_keys_list_what_is_allowed() {
        assert_eq!(
            read("limits:\n  header_bytes: 4KB\n  heders: 3\n").unwrap_err(),
            "f:3:3: unknown key \"heders\" in limits; allowed: header_bytes, headers, target_bytes, body_bytes, \
             requests_per_connection, connections_per_ip, requests_per_ip, requests_per_ip_burst, \
             handshakes, exempt"
        );
        assert_eq!(
            read("worker_connections: 3\n").unwrap_err(),
            "f:1:1: unknown key \"worker_connections\"; allowed: shards, pin_shards, listen, admin, routes, memory, \
             timeouts, limits, access_log, log"
        );
        assert_eq!(
            read("memory: { buffer_pools: { small: { amount: 3 } } }").unwrap_err(),
            "f:1:36: unknown key \"amount\" in memory.buffer_pools.small; allowed: count, size, global"
        );
    }

    #[test]
    fn what_is_not_built_yet_says_so_where_it_stands() {
        for (text, told) in [
            ("routes: [{ proxy: { upstreams: [] } }]", "f:1:12: routes[0].proxy"),
            ("timeouts: { upstream_connect: 1s }", "f:1:13: timeouts.upstream_connect"),
            ("timeouts: { upstream_read: 1s }", "f:1:13: timeouts.upstream_read"),
            ("limits: { h2_streams: 100 }", "f:1:11: limits.h2_streams"),
        ] {
            assert_eq!(read(text).unwrap_err(), format!("{told}: not in this version"));
        }
    }

    #[test]
    fn each_limit_holds_at_its_ends() {
        let (ends, past) = (
            [
                "shards: 1",
                "shards: 1024",
                "shards: auto",
                "memory: { profile: small, budget: 1MB }",
                "memory: { profile: large, budget: 16384GB }",
                "memory: { worker_connections: 1 }",
                "memory: { worker_connections: 1000000 }",
                "memory: { buffer_pools: { small: { count: 0, size: 4096 } } }",
                "memory: { buffer_pools: { large: { count: 65536, size: 64kb } } }",
                "memory: { buffer_pools: { small: { global: 0 }, medium: { global: 65536 } } }",
                "memory: { open_file_cache: 0 }",
                "memory: { open_file_cache: { entries: 1000000, min_uses: 1 } }",
                "memory: { mmap: { max_file: 0, max_total: 0 } }",
                "memory: { mmap: { max_file: 4MB, max_total: 1024GB } }",
                "memory: { response_cache: 0 }",
                "memory: { response_cache: 1024GB }",
                "memory: { response_cache: { proxy: 0, max_object: 1024GB, high: 1, low: 0 } }",
                "memory: { response_cache: { proxy: 1024GB, max_object: 0, high: 100, low: 99 } }",
                "timeouts: { header: 1ms, idle: 24h, drain: 0 }",
                "timeouts: { drain: 0s }",
                "timeouts: { handshake: 1ms }",
                "timeouts: { handshake: 24h }",
                "limits: { handshakes: 1 }",
                "limits: { handshakes: 1000000 }",
                "memory: { tls_session_cache: 0 }",
                "memory: { tls_session_cache: 1024GB }",
                "memory: { tls_session_cache: { lifetime: 1s, tickets: false } }",
                "memory: { tls_session_cache: { size: 0, lifetime: 168h } }",
                "limits: { header_bytes: 512 }",
                "limits: { header_bytes: 64KB }",
                "limits: { headers: 1 }",
                "limits: { headers: 1024 }",
                "limits: { target_bytes: 64 }",
                "limits: { target_bytes: 64KB }",
                "limits: { body_bytes: 0 }",
                "limits: { requests_per_connection: 0 }",
                "limits: { requests_per_connection: 4294967295 }",
                "limits: { connections_per_ip: 0 }",
                "limits: { connections_per_ip: 1000000 }",
                "limits: { requests_per_ip: 0, requests_per_ip_burst: 0 }",
                "limits: { requests_per_ip: 1000000, requests_per_ip_burst: 1000000 }",
                "limits: { exempt: [] }",
                "access_log: { sample: 1, format: json }",
                "access_log: { sample: 1000000, format: combined }",
                "limits: { exempt: 127.0.0.1 }",
                "listen: [{ address: \"[::1]:1\", connections: 0 }]",
                "listen: [{ address: \"[::1]:1\", connections: 1000000 }]",
            ],
            [
                "shards: 0",
                "shards: 1025",
                "shards: Auto",
                "shards: \"2\"",
                "memory: { profile: Small }",
                "memory: { budget: 1048575 }",
                "memory: { budget: 16385GB }",
                "memory: { worker_connections: 0 }",
                "memory: { worker_connections: 1000001 }",
                "memory: { buffer_pools: { small: { size: 16KB } } }",
                "memory: { buffer_pools: { large: { count: 65537 } } }",
                "memory: { buffer_pools: { medium: { global: 65537 } } }",
                "memory: { open_file_cache: 1000001 }",
                "memory: { open_file_cache: 4KB }",
                "memory: { open_file_cache: { min_uses: 0 } }",
                "memory: { open_file_cache: { valid: 0s } }",
                "memory: { mmap: 64MB }",
                "memory: { mmap: { max_file: 4194305 } }",
                "memory: { mmap: { max_total: 1025GB } }",
                "memory: { mmap: { max_files: 1 } }",
                "memory: { response_cache: 1025GB }",
                "memory: { response_cache: { proxy: 1025GB } }",
                "memory: { response_cache: { max_object: 1025GB } }",
                "memory: { response_cache: { high: 0 } }",
                "memory: { response_cache: { high: 101 } }",
                "memory: { response_cache: { low: 100 } }",
                "memory: { raise_nofile: yes }",
                "timeouts: { header: 0s }",
                "timeouts: { idle: 0 }",
                "timeouts: { write: 86401s }",
                "timeouts: { handshake: 0s }",
                "timeouts: { handshake: 86401s }",
                "limits: { handshakes: 0 }",
                "limits: { handshakes: 1000001 }",
                "memory: { tls_session_cache: 1025GB }",
                "memory: { tls_session_cache: { size: 1025GB } }",
                "memory: { tls_session_cache: { lifetime: 0s } }",
                "memory: { tls_session_cache: { lifetime: 999ms } }",
                "memory: { tls_session_cache: { lifetime: 1500ms } }",
                "memory: { tls_session_cache: { lifetime: 604801s } }",
                "memory: { tls_session_cache: { tickets: 1 } }",
                "memory: { tls_session_cache: { entries: 1 } }",
                "limits: { header_bytes: 511 }",
                "limits: { header_bytes: 65537 }",
                "limits: { headers: 0 }",
                "limits: { headers: 1025 }",
                "limits: { target_bytes: 63 }",
                "limits: { requests_per_connection: 4294967296 }",
                "limits: { connections_per_ip: 1000001 }",
                "limits: { connections_per_ip: -1 }",
                "limits: { requests_per_ip: 1000001 }",
                "limits: { requests_per_ip: 0.5 }",
                "limits: { requests_per_ip_burst: 1000001 }",
                "limits: { exempt: }",
                "limits: { exempt: [1] }",
                "listen: [{ address: \"[::1]:1\", connections: 1000001 }]",
                "listen: [{ connections: 1 }]",
                "admin: { address: \"[::1]:1\", connections: 1 }",
                "log: { level: warning }",
                "log: { format: json }",
                "log: { path: 3 }",
                "access_log:",
                "access_log: { sample: 0 }",
                "access_log: { sample: 1000001 }",
                "access_log: { format: JSON }",
                "admin:",
                "admin: 127.0.0.1:9090",
                "listen:",
                "listen: [{}]",
                "listen: 8080",
                "listen: [8080]",
                "listen: { adress: x }",
                "routes:",
                "memory: []",
                "[]",
                "text",
            ],
        );
        for text in ends {
            assert!(read(text).is_ok(), "{text}: {}", read(text).unwrap_err());
        }
        for text in past {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sections_may_be_left_empty() {
        let draft = read("memory:\nlimits:\ntimeouts:\nlog:\n").unwrap();
        assert_eq!((draft.limits, draft.timeouts), (Limits::default(), Timeouts::default()));
    }

    #[test]
    fn an_address_is_listened_on_once() {
        assert_eq!(
            read("listen: [\"127.0.0.1:1\", { address: \"127.0.0.1:1\" }]").unwrap_err(),
            "f:1:25: listen[1]: 127.0.0.1:1 is listened on already"
        );
        assert!(read("listen: [\"127.0.0.1:0\", \"127.0.0.1:0\"]").is_ok());
    }

    #[test]
    fn there_are_at_most_64_addresses() {
        let text = |count: usize| format!("listen: [{}]", vec!["\"127.0.0.1:0\""; count].join(", "));
        assert!(read(&text(LISTENERS_MAX)).is_ok());
        assert!(read(&text(LISTENERS_MAX + 1)).unwrap_err().contains("has 65 items, at most 64"));
    }

    #[test]
    fn exempt_networks_are_at_most_256_and_each_is_named_where_it_stands() {
        let text = |count: usize| format!("limits: {{ exempt: [{}] }}", vec!["10.0.0.0/8"; count].join(", "));
        assert_eq!(read(&text(EXEMPT_MAX)).unwrap().limits.exempt.len(), EXEMPT_MAX);
        assert!(read(&text(EXEMPT_MAX + 1)).unwrap_err().contains("has 257 items, at most 256"));
        assert_eq!(
            read("limits:\n  exempt:\n    - \"::1\"\n    - 10.0.0.1/8\n").unwrap_err(),
            "f:4:7: limits.exempt[1] names 10.0.0.1, an address inside the network; the network is 10.0.0.0/8"
        );
    }

    #[test]
    fn the_access_log_goes_to_standard_output_unless_told() {
        assert_eq!(read("access_log: {}").unwrap().access_log, Some(AccessLog::default()));
        assert_eq!(AccessLog::default().path, LogPath::Standard);
        let file = read("access_log: { path: a.log, format: json, sample: 7 }").unwrap().access_log;
        let path = LogPath::File("/base/a.log".into());
        assert_eq!(file, Some(AccessLog { path, format: AccessFormat::Json, sample: 7 }));
    }
}
