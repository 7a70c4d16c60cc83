//! From a draft to [`Settings`]: defaults that depend on the process, checks across keys, and the sum of
//! file descriptors. The sum of bytes is [`super::fit`]'s.
//!
//! Pure: what the process may use is handed in, nothing is opened, bound or looked up.

mod memory;

use std::net::{Ipv4Addr, SocketAddr};

use super::{
    Host, OpenSocket,
    draft::{Draft, LISTENERS_MAX, Marked, SHARDS},
    fit, inherit,
    settings::{Action, Address, Limits, Listener, Memory, Route, Settings},
};
use crate::error::{Error, ErrorKind, Result};
use memory::resolve_memory;
pub(super) use memory::{resolve_mmap, resolve_response_cache, response_cache_least};

/// Descriptors kept back for logs, executors, admin connections and files that are being opened.
pub const RESERVED_DESCRIPTORS: u64 = 128;

/// Defaults are scaled down to fit, no further than this.
pub(super) const WORKER_CONNECTIONS_MIN: usize = 64;
pub(super) const OPEN_FILES_MIN: usize = 16;

/// Where a server listens, on 127.0.0.1, that was told no address.
pub const DEFAULT_PORT: u16 = 8080;
const ADMIN_PORT: u16 = 9090;

/// Fills in what `draft` leaves open. `sockets` were open before; `configured` is false when nobody said anything
/// at all.
pub(super) fn resolve(
    draft: Draft,
    sockets: &[OpenSocket],
    configured: bool,
    host: &Host,
) -> Result<Settings> {
    let shards = match &draft.shards {
        Some(shards) => shards.value,
        None => host.cores.clamp(1, usize::try_from(*SHARDS.end()).unwrap_or(usize::MAX)),
    };
    let admin = match &draft.admin {
        Some(admin) => Some(admin.value.clone()),
        None => (host.binary && !configured).then(|| loopback(ADMIN_PORT)),
    };
    let (listeners, admin) = resolve_listeners(&draft, admin, sockets)?;
    let limits = resolve_limits(&draft)?;
    let mut memory = resolve_memory(&draft.memory, draft.memory.raise_nofile.unwrap_or(host.binary))?;
    Descriptors {
        shards,
        listeners: listeners.len() + usize::from(admin.is_some()),
        connections_given: draft.memory.worker_connections.is_some(),
        entries_given: draft.memory.open_files.is_some(),
        available: if memory.raise_nofile { host.nofile_hard } else { host.nofile_soft },
        hard: host.nofile_hard,
    }
    .fit(&mut memory)
    .map_err(|message| {
        let given = draft.memory.worker_connections.as_ref().or(draft.memory.open_files.as_ref());
        match given.or(draft.shards.as_ref()) {
            Some(marked) => marked.mark.error(ErrorKind::Limit, message),
            None => Error::new(ErrorKind::Limit, message),
        }
    })?;
    let routes = if draft.routes.is_empty() { vec![welcome()] } else { draft.routes };
    let mut settings = Settings {
        shards,
        pin_shards: draft.pin_shards,
        listeners,
        admin,
        routes,
        memory,
        timeouts: draft.timeouts,
        limits,
        access_log: draft.access_log,
        log: draft.log,
    };
    let given = fit::Given {
        memory: &draft.memory,
        shards: draft.shards.as_ref(),
        handshakes: draft.handshakes.as_ref(),
    };
    fit::fit(&mut settings, given, host.memory_bytes)?;
    Ok(settings)
}

/// `listen` first, in its order, then open sockets that stand in for none of it; [`DEFAULT_PORT`] when there is neither.
fn resolve_listeners(
    draft: &Draft,
    mut admin: Option<Listener>,
    sockets: &[OpenSocket],
) -> Result<(Vec<Listener>, Option<Listener>)> {
    check_certificates(draft)?;
    let mut free = sockets.to_vec();
    let mut listeners: Vec<Listener> = match &draft.listen {
        Some(listen) => listen.value.iter().map(|listener| listener.value.clone()).collect(),
        None => Vec::new(),
    };
    if draft.listen.is_none() && inherit::are_none_but_predecessors(&free) {
        listeners.push(default_listener());
    }
    for listener in &mut listeners {
        inherit::pair(listener, false, &mut free);
    }
    if let Some(admin) = &mut admin {
        inherit::pair(admin, true, &mut free);
    }
    let (others, other_admin) = inherit::remaining(free);
    listeners.extend(others);
    let admin = admin.or(other_admin);
    if listeners.is_empty() {
        match &draft.listen {
            Some(listen) => {
                return Err(listen.mark.error(ErrorKind::Config, "listen needs at least one address"));
            }
            None => listeners.push(default_listener()),
        }
    }
    if listeners.len() > LISTENERS_MAX {
        let what = format!("{} listeners, inherited ones included; at most {LISTENERS_MAX}", listeners.len());
        return Err(Error::new(ErrorKind::Config, what));
    }
    if let Some(admin) = &draft.admin
        && listeners.iter().any(|listener| listener.clashes_with(&admin.value))
    {
        let what = format!("admin.address: {} is listened on already", admin.value.name);
        return Err(admin.mark.error(ErrorKind::Config, what));
    }
    Ok((listeners, admin))
}

/// Layers may leave certificates out, since others may have them; together they have one at least.
fn check_certificates(draft: &Draft) -> Result<()> {
    let listeners = draft.listen.iter().flat_map(|listen| &listen.value);
    for (index, Marked { value: listener, mark }) in listeners.enumerate() {
        if listener.tls.as_ref().is_some_and(|tls| tls.certificates.is_empty()) {
            let what = format!("listen[{index}].tls needs certificates: at least one");
            return Err(mark.error(ErrorKind::Config, what));
        }
    }
    Ok(())
}

/// A target lies within the head, so a smaller bound of the head also bounds a target nobody spoke of. A burst that
/// nobody spoke of is one second's requests.
fn resolve_limits(draft: &Draft) -> Result<Limits> {
    let header_bytes = draft.limits.header_bytes;
    let target_bytes = match &draft.target_bytes {
        Some(target) if target.value > header_bytes => {
            let what = format!(
                "limits.target_bytes ({}) is more than limits.header_bytes ({header_bytes}), of which it is a part",
                target.value
            );
            return Err(target.mark.error(ErrorKind::Config, what));
        }
        Some(target) => target.value,
        None => draft.limits.target_bytes.min(header_bytes),
    };
    let burst = match draft.limits.requests_per_ip_burst {
        0 => draft.limits.requests_per_ip,
        burst => burst,
    };
    let handshakes = draft.handshakes.as_ref().map_or(draft.limits.handshakes, |given| given.value);
    Ok(Limits { target_bytes, requests_per_ip_burst: burst, handshakes, ..draft.limits.clone() })
}

/// The profile's `FdManager` before the start: who may hold a descriptor, against how many there are.
struct Descriptors {
    shards: usize,
    /// The admin listener included; each holds one descriptor in each shard.
    listeners: usize,
    /// `worker_connections` is not a default.
    connections_given: bool,
    /// The entries of the open-file cache are not a default.
    entries_given: bool,
    /// What the server will have once it runs.
    available: u64,
    /// What it could have.
    hard: u64,
}

impl Descriptors {
    /// Connections per shard and entries of the open-file cache. Given numbers are kept; defaults are halved,
    /// the one that holds more first, until the sum fits.
    fn fit(&self, memory: &mut Memory) -> Result<(), String> {
        let (connections, entries) = (&mut memory.worker_connections, &mut memory.open_file_cache.entries);
        while self.needed(*connections, *entries) > self.available {
            let connections_give = !self.connections_given && *connections > WORKER_CONNECTIONS_MIN;
            let entries_give = !self.entries_given && *entries > OPEN_FILES_MIN;
            match (connections_give, entries_give) {
                (true, true) if self.shards.saturating_mul(*connections) < *entries => {
                    *entries = (*entries / 2).max(OPEN_FILES_MIN)
                }
                (true, _) => *connections /= 2,
                (false, true) => *entries = (*entries / 2).max(OPEN_FILES_MIN),
                (false, false) => return Err(self.explain(*connections, *entries)),
            }
        }
        Ok(())
    }

    fn needed(&self, connections: usize, entries: usize) -> u64 {
        self.fixed() + product(self.shards, connections) + wide(entries)
    }

    fn fixed(&self) -> u64 {
        product(self.shards, self.listeners) + RESERVED_DESCRIPTORS
    }

    /// The sum, term by term, and what would make it fit.
    fn explain(&self, connections: usize, entries: usize) -> String {
        let left = self.available.saturating_sub(self.fixed() + wide(entries)) / wide(self.shards).max(1);
        let mut remedies = Vec::new();
        if left >= 1 {
            remedies.push(format!("lower memory.worker_connections to {left} or less"));
        } else {
            remedies.push(String::from("lower memory.open_file_cache or shards"));
        }
        if self.available < self.hard {
            remedies.push(format!("set memory.raise_nofile: true (the hard limit is {})", self.hard));
        }
        remedies.push(String::from("raise the limit of open files (ulimit -n, LimitNOFILE=)"));
        format!(
            "needs {} file descriptors, but this process may have {}: {} shards x {connections} worker_connections \
             = {}, open_file_cache {entries}, {} shards x {} listeners = {}, reserved {RESERVED_DESCRIPTORS}; {}",
            self.needed(connections, entries),
            self.available,
            self.shards,
            product(self.shards, connections),
            self.shards,
            self.listeners,
            product(self.shards, self.listeners),
            remedies.join(", or "),
        )
    }
}

/// Cannot overflow: both are bounded far below 32 bits.
fn product(left: usize, right: usize) -> u64 {
    wide(left).saturating_mul(wide(right))
}

pub(super) fn wide(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// Where a server listens that was not told.
pub(super) fn default_listener() -> Listener {
    loopback(DEFAULT_PORT)
}

fn loopback(port: u16) -> Listener {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    Listener {
        name: address.to_string(),
        address: Address::Tcp(address),
        connections: 0,
        tls: None,
        sockets: Vec::new(),
    }
}

fn welcome() -> Route {
    Route {
        hosts: Vec::new(),
        path: String::from("/"),
        action: Action::Welcome,
        headers: Vec::new(),
        methods: Vec::new(),
        cors: None,
        https_redirect: None,
        hsts: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn host(nofile_soft: u64, nofile_hard: u64) -> Host {
        Host { cores: 2, nofile_soft, nofile_hard, memory_bytes: u64::MAX, binary: false }
    }

    fn settings(text: &str, host: &Host) -> Result<Settings, String> {
        let mut config = Config::new();
        config.load_yaml(text).unwrap();
        config.resolve(host).map_err(|error| error.to_string())
    }

    fn scaled(text: &str, soft: u64) -> (usize, usize) {
        let memory = settings(text, &host(soft, 1 << 20)).unwrap().memory;
        (memory.worker_connections, memory.open_file_cache.entries)
    }

    #[test]
    fn defaults_fit_exactly_or_scale_down() {
        // 2 x 1024 connections, 1000 files, 2 x 1 listeners, 128 reserved.
        assert_eq!(scaled("", 3178), (1024, 1000));
        assert_eq!(scaled("", 3177), (512, 1000));
        assert_eq!(scaled("", 1024), (128, 500));
        assert_eq!(scaled("", 2 * 64 + 16 + 2 + 128), (64, 16));
        assert!(settings("", &host(2 * 64 + 16 + 2 + 127, 1 << 20)).is_err());
        assert_eq!(scaled("memory: { raise_nofile: true }", 10), (1024, 1000));
    }

    #[test]
    fn a_default_gives_way_to_a_given_number() {
        assert_eq!(scaled("memory: { worker_connections: 400 }", 1024), (400, 62));
        assert_eq!(scaled("memory: { open_file_cache: 700 }", 1024), (64, 700));
        assert_eq!(scaled("memory: { open_file_cache: 0 }", 1024), (256, 0));
    }

    #[test]
    fn given_numbers_that_cannot_fit_are_summed_up() {
        let text = "memory:\n  worker_connections: 4096\n";
        let told = settings(text, &host(1024, 4096)).unwrap_err();
        assert_eq!(
            told,
            "<text>:2:23: needs 8338 file descriptors, but this process may have 1024: 2 shards x 4096 \
             worker_connections = 8192, open_file_cache 16, 2 shards x 1 listeners = 2, reserved 128; lower \
             memory.worker_connections to 439 or less, or set memory.raise_nofile: true (the hard limit is 4096), \
             or raise the limit of open files (ulimit -n, LimitNOFILE=)"
        );
        let told = settings("memory: { worker_connections: 1, open_file_cache: 2000 }", &host(1024, 1024))
            .unwrap_err();
        assert!(
            told.contains("lower memory.open_file_cache or shards") && !told.contains("raise_nofile"),
            "{told}"
        );
        let fits =
            |count: u64| settings(&format!("memory: {{ worker_connections: {count} }}"), &host(1024, 1024));
        assert!(fits(439).is_ok());
        assert!(fits(440).is_err());
    }

    #[test]
    fn without_limits_nothing_overflows() {
        let text = "shards: 1024\nmemory: { worker_connections: 1000000, open_file_cache: 1000000 }";
        assert!(settings(text, &host(u64::MAX, u64::MAX)).is_ok());
        assert!(settings(text, &host(0, 0)).is_err());
    }

    #[test]
    fn the_target_is_part_of_the_head() {
        let host = host(1 << 20, 1 << 20);
        assert_eq!(settings("limits: { header_bytes: 512 }", &host).unwrap().limits.target_bytes, 512);
        assert!(settings("limits: { header_bytes: 8KB, target_bytes: 8KB }", &host).is_ok());
        assert_eq!(
            settings("limits: { header_bytes: 8KB, target_bytes: 8193 }", &host).unwrap_err(),
            "<text>:1:44: limits.target_bytes (8193) is more than limits.header_bytes (8192), of which it is a part"
        );
    }

    #[test]
    fn the_admin_listener_needs_an_address_of_its_own() {
        let host = host(1 << 20, 1 << 20);
        assert_eq!(
            settings("admin: { address: \"127.0.0.1:8080\" }", &host).unwrap_err(),
            "<text>:1:19: admin.address: 127.0.0.1:8080 is listened on already"
        );
        assert_eq!(
            settings("listen: []", &host).unwrap_err(),
            "<text>:1:9: listen needs at least one address"
        );
    }
}
