//! The effective configuration: every default filled in, every value checked. What the server runs from.
//!
//! Built by [`super::Config::resolve`] and immutable afterwards; a reload makes a new one.

mod tls;

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

pub use tls::*;

use super::{Network, OpenSocket};

/// Everything a server is started with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Number of shards, 1 to 1024.
    pub shards: usize,
    /// Bind each shard's thread to one core.
    pub pin_shards: bool,
    /// At least one.
    pub listeners: Vec<Listener>,
    /// Where metrics are served, if anywhere.
    pub admin: Option<Listener>,
    /// In the order written; the router decides precedence.
    pub routes: Vec<Route>,
    /// Sizes and counts.
    pub memory: Memory,
    /// All finite: 1 ms to 24 h.
    pub timeouts: Timeouts,
    /// Bounds on requests.
    pub limits: Limits,
    /// Absent: no access log.
    pub access_log: Option<AccessLog>,
    /// The diagnostic log.
    pub log: Log,
}

impl Settings {
    /// Whether any listener speaks TLS.
    pub fn speaks_tls(&self) -> bool {
        self.listeners.iter().any(|listener| listener.tls.is_some())
    }

    /// Takes the open sockets out: those of each listener in order, and of the admin listener. Kept here they would
    /// be open, and be connected to, when nobody accepts any more.
    pub fn take_sockets(&mut self) -> Vec<Vec<OpenSocket>> {
        let listeners = self.listeners.iter_mut().chain(&mut self.admin);
        listeners.map(|listener| std::mem::take(&mut listener.sockets)).collect()
    }
}

/// One listening address.
#[derive(Clone, Debug)]
pub struct Listener {
    /// As written in the configuration; `webserver_port` looks it up by this.
    pub name: String,
    /// Where to listen.
    pub address: Address,
    /// Connections taken here at once, over all shards; one more gets 503. 0 is no cap but the shards' own.
    pub connections: usize,
    /// Absent: HTTP without TLS.
    pub tls: Option<Tls>,
    /// What listens there already, several with `SO_REUSEPORT`; empty: the address is bound at the start, which also
    /// takes the sockets out of here.
    pub sockets: Vec<OpenSocket>,
}

/// Where a listener listens.
#[derive(Clone, Debug)]
pub enum Address {
    /// TCP over IPv4 or IPv6; port 0 lets the kernel choose.
    Tcp(SocketAddr),
    /// A unix stream socket at this path.
    Unix(PathBuf),
    /// What its sockets are bound to, which were open before.
    Inherited,
}

/// What answers requests below one path prefix of one host.
#[derive(Clone, Debug)]
pub struct Route {
    /// Lower case, without port; `*.example.com` for any name below; none: any host.
    pub hosts: Vec<String>,
    /// The prefix, beginning with `/`; `/api/` and `/api` both match what lies below, on segment boundaries.
    pub path: String,
    /// What the route does.
    pub action: Action,
    /// Header fields added to every response of this route; names and values are checked.
    pub headers: Vec<(String, String)>,
    /// Methods that the route takes, in upper case; empty: those that its action knows. `GET` includes `HEAD`.
    pub methods: Vec<String>,
    /// What pages of other origins may read; absent: nothing is said about it.
    pub cors: Option<Cors>,
    /// Where requests that came without TLS are sent; absent: they are answered.
    pub https_redirect: Option<HttpsRedirect>,
    /// What browsers are told about TLS; absent: nothing.
    pub hsts: Option<Hsts>,
}

impl Route {
    /// The hosts one by one; `None` alone for any.
    pub fn hosts(&self) -> impl Iterator<Item = Option<&str>> {
        let any = self.hosts.is_empty().then_some(None);
        any.into_iter().chain(self.hosts.iter().map(|host| Some(host.as_str())))
    }
}

/// What pages of other origins may read and ask for (the CORS protocol of the Fetch standard).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cors {
    /// As browsers send them, or `*` alone for all; at least one.
    pub origins: Vec<String>,
    /// Methods that a preflight grants, beside `GET`, `HEAD` and `POST`, which need no permission; or `*`.
    pub methods: Vec<String>,
    /// Header fields that a preflight grants; or `*`.
    pub headers: Vec<String>,
    /// Header fields of responses that pages may read beside the usual ones; or `*`.
    pub expose: Vec<String>,
    /// Cookies and other credentials may be sent along. No list has `*` then.
    pub credentials: bool,
    /// How long the answer to a preflight may be kept, in whole seconds; absent: as long as the browser likes.
    pub max_age: Option<Duration>,
}

impl Default for Cors {
    /// No origin.
    fn default() -> Self {
        Cors {
            origins: Vec::new(),
            methods: ["GET", "HEAD", "POST"].map(String::from).to_vec(),
            headers: Vec::new(),
            expose: Vec::new(),
            credentials: false,
            max_age: None,
        }
    }
}

/// What a route does with a request.
#[derive(Clone, Debug)]
pub enum Action {
    /// Serve files.
    Files(Files),
    /// Answer with a redirect.
    Redirect(Redirect),
    /// The built-in welcome page.
    Welcome,
}

/// A folder that is served.
#[derive(Clone, Debug)]
pub struct Files {
    /// Absolute.
    pub root: PathBuf,
    /// Names tried in order when a folder is asked for.
    pub index: Vec<String>,
    /// Serve names that begin with a dot.
    pub dotfiles: bool,
    /// Media types by extension (lower case, without dot) that override the built-in table.
    pub types: BTreeMap<String, String>,
    /// Content codings whose files are looked for beside each file, the one that is preferred first; each once.
    pub precompressed: Vec<Coding>,
    /// List a folder that has no index.
    pub listing: bool,
    /// Redirect to the canonical spelling of a path.
    pub canonical: bool,
    /// The file that answers for one that is not found: a path below the root, decoded, with its leading slash.
    pub fallback: Option<String>,
    /// What answers instead of the built-in text, by status (400 to 599): paths as `fallback`.
    pub error_pages: BTreeMap<u16, String>,
    /// How long files may be kept by caches: the first rule whose pattern matches.
    pub cache_control: Vec<CacheRule>,
}

/// What is said to caches about the files whose name a pattern matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheRule {
    /// `*` stands for any bytes, `?` for one. Without a `/` it is compared with the file's name, with one with the whole
    /// path below the route.
    pub pattern: String,
    /// The value of `Cache-Control`; absent: `max-age` from `expires`.
    pub value: Option<String>,
    /// How long after the response `Expires` is, in whole seconds; absent: no such field. One of the two is there.
    pub expires: Option<Duration>,
}

/// A content coding (RFC 9110 8.4.1) that a file can have been put into beforehand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// Brotli, RFC 7932.
    Br,
    /// Zstandard, RFC 8878.
    Zstd,
    /// Gzip, RFC 1952.
    Gzip,
}

impl Coding {
    /// All there are, in the order of their numbers.
    pub const ALL: [Coding; Coding::COUNT] = [Coding::Br, Coding::Zstd, Coding::Gzip];

    /// Number of variants.
    pub const COUNT: usize = Coding::Gzip as usize + 1;

    /// The name in header fields and in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Coding::Br => "br",
            Coding::Zstd => "zstd",
            Coding::Gzip => "gzip",
        }
    }

    /// What a file's name ends in when its content is coded so.
    pub fn suffix(self) -> &'static str {
        match self {
            Coding::Br => ".br",
            Coding::Zstd => ".zst",
            Coding::Gzip => ".gz",
        }
    }
}

/// A redirect: `to` replaces the route's prefix and the rest of the path and the query are kept.
#[derive(Clone, Debug)]
pub struct Redirect {
    /// A path or an absolute URL.
    pub to: String,
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
}

/// Sizes and counts of what is held in memory.
#[derive(Clone, Debug)]
pub struct Memory {
    /// The column of the memory profile that the defaults came from.
    pub profile: Profile,
    /// All that the server may hold, in bytes.
    pub budget_bytes: usize,
    /// Connection slots of each shard.
    pub worker_connections: usize,
    /// Free buffers kept: 4 KB, 16 KB and 64 KB.
    pub buffer_pools: BufferPools,
    /// Open files and what is known about them.
    pub open_file_cache: OpenFileCache,
    /// Responses kept in memory.
    pub response_cache: ResponseCache,
    /// Files that stay mapped.
    pub mmap: Mmap,
    /// TLS sessions kept for resumption.
    pub tls_session_cache: TlsSessionCache,
    /// Raise the soft limit of descriptors to the hard one at start.
    pub raise_nofile: bool,
}

/// A deployment that the memory profile describes: where the defaults of counts and sizes come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// Up to 1,000 connections at once, 2 GB of memory.
    #[default]
    Small,
    /// Up to 10,000, 8 GB.
    Medium,
    /// Up to 100,000, 32 GB.
    Large,
}

impl Profile {
    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Profile::Small => "small",
            Profile::Medium => "medium",
            Profile::Large => "large",
        }
    }
}

/// How many free buffers of each tier are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferPools {
    /// 4 KB buffers of each shard.
    pub small: usize,
    /// 16 KB buffers of each shard.
    pub medium: usize,
    /// 64 KB buffers of each shard.
    pub large: usize,
    /// 4 KB buffers of all shards together, beside their own.
    pub global_small: usize,
    /// 16 KB buffers of all shards together.
    pub global_medium: usize,
    /// 64 KB buffers of all shards together.
    pub global_large: usize,
}

impl BufferPools {
    /// Those of each shard, smallest tier first.
    pub fn counts(&self) -> [usize; 3] {
        [self.small, self.medium, self.large]
    }

    /// Those of all shards together, smallest tier first.
    pub fn global_counts(&self) -> [usize; 3] {
        [self.global_small, self.global_medium, self.global_large]
    }
}

/// The response cache, of the whole server. Its categories may be larger together than the whole is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseCache {
    /// All that it keeps, bytes; 0 keeps nothing.
    pub size_bytes: usize,
    /// Small hot files, bytes, at most `size_bytes`.
    pub static_bytes: usize,
    /// Responses of upstreams, bytes, at most `size_bytes`. Nothing is kept there in this version.
    pub proxy_bytes: usize,
    /// The largest response that is kept, bytes, at most `size_bytes`.
    pub object_bytes_max: usize,
    /// Percent of its bytes from which on a category gives up what was used least recently, at most 100.
    pub high_percent: u8,
    /// Percent of its bytes at which it stops doing so, less than `high_percent`.
    pub low_percent: u8,
}

/// Files that are used so often that their pages stay mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mmap {
    /// Largest file that is mapped, in bytes, at most 4 MB; 0 maps none.
    pub file_bytes_max: u64,
    /// Bytes mapped, for the whole server, in whole pages; 0 maps none. Each shard has its share.
    pub total_bytes_max: usize,
}

/// The open-file cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenFileCache {
    /// Entries for the whole server; 0 turns the cache off.
    pub entries: usize,
    /// Uses within `inactive` before a file is kept open; at least 1.
    pub min_uses: u32,
    /// An entry that was not used for so long is dropped.
    pub inactive: Duration,
    /// How long an entry is trusted before the file is looked at again.
    pub valid: Duration,
    /// Remember failures (missing, forbidden) too.
    pub errors: bool,
}

impl Default for BufferPools {
    /// The memory profile's smallest column: 1 MB in each tier.
    fn default() -> Self {
        BufferPools {
            small: 256,
            medium: 64,
            large: 16,
            global_small: 1024,
            global_medium: 256,
            global_large: 64,
        }
    }
}

impl Default for Mmap {
    /// The largest file for which a mapping was measured to win over `sendfile`, and as much as the smallest column's
    /// response cache.
    fn default() -> Self {
        Mmap { file_bytes_max: 16 << 10, total_bytes_max: 64 << 20 }
    }
}

impl Default for OpenFileCache {
    /// The memory profile's smallest column, and nginx's usual intervals.
    fn default() -> Self {
        OpenFileCache {
            entries: 1000,
            min_uses: 1,
            inactive: Duration::from_secs(60),
            valid: Duration::from_secs(5),
            errors: true,
        }
    }
}

/// Deadlines. `body` and `write` mean no progress for that long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// From accept to the end of the TLS handshake.
    pub handshake: Duration,
    /// From the first byte of a request (or accept) to the end of its head.
    pub header: Duration,
    /// Between two pieces of a request body.
    pub body: Duration,
    /// Between two pieces of a response taken by the client.
    pub write: Duration,
    /// Between requests on a connection.
    pub idle: Duration,
    /// How long a drain may take before connections are cut; 0 cuts at once.
    pub drain: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            handshake: Duration::from_secs(10),
            header: Duration::from_secs(10),
            body: Duration::from_secs(30),
            write: Duration::from_secs(30),
            idle: Duration::from_secs(75),
            drain: Duration::from_secs(30),
        }
    }
}

/// Bounds on requests and on single clients. 0 is unlimited for `body_bytes`, `requests_per_connection` and the two
/// bounds of a client. A client is an IPv4 address or the /64 network of an IPv6 address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Request line and header fields together, in bytes: 431 past it. 512 B to 64 KB.
    pub header_bytes: usize,
    /// Number of header fields: 431 past it. 1 to 1024.
    pub headers: usize,
    /// Request target, in bytes: 414 past it. 64 B to `header_bytes`.
    pub target_bytes: usize,
    /// Decoded request body, in bytes: 413 past it.
    pub body_bytes: u64,
    /// Requests answered on one connection; the last one says `Connection: close`.
    pub requests_per_connection: u32,
    /// Connections of one client at once, over all shards and listeners: 503 past it.
    pub connections_per_ip: u32,
    /// Requests of one client a second, over all shards: 429 past it.
    pub requests_per_ip: u32,
    /// Requests that a client which has asked for nothing lately may send at once. At least 1 if `requests_per_ip`
    /// is not 0.
    pub requests_per_ip_burst: u32,
    /// TLS handshakes in progress at once, over all shards: more wait their turn. At least 1.
    pub handshakes: usize,
    /// Clients that the bounds of a client are not for. At most 256.
    pub exempt: Vec<Network>,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            header_bytes: 32 << 10,
            headers: 100,
            target_bytes: 8 << 10,
            body_bytes: 16 << 20,
            requests_per_connection: 0,
            connections_per_ip: 0,
            requests_per_ip: 0,
            requests_per_ip_burst: 0,
            handshakes: 512,
            exempt: Vec::new(),
        }
    }
}

/// The access log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLog {
    /// Where the lines go.
    pub path: LogPath,
    /// What they look like.
    pub format: AccessFormat,
    /// One in so many requests with a status below 400 is logged, each of the others. At least 1.
    pub sample: u32,
}

/// What a line of the access log looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessFormat {
    /// That of Apache and nginx.
    Combined,
    /// One object a line.
    Json,
}

impl Default for AccessLog {
    /// Every request in combined format, to standard output.
    fn default() -> Self {
        AccessLog { path: LogPath::Standard, format: AccessFormat::Combined, sample: 1 }
    }
}

/// Where log lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogPath {
    /// `-`: standard output for the access log, standard error for the diagnostic log.
    Standard,
    /// Appended to this file; absolute.
    File(PathBuf),
}

/// The diagnostic log, as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Least severe level that is written.
    pub level: Level,
    /// Absent: the binary writes to standard error, the library nothing (or to the host's callback).
    pub path: Option<LogPath>,
}

impl Default for Log {
    fn default() -> Self {
        Log { level: Level::Info, path: None }
    }
}

/// Severity, as in the C ABI: 1 error to 5 trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Something failed that an operator must look at.
    Error = 1,
    /// Something is wrong and was survived.
    Warn = 2,
    /// Life cycle.
    Info = 3,
    /// Per connection.
    Debug = 4,
    /// Per event.
    Trace = 5,
}
