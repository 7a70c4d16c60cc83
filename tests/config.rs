//! The configuration as its users see it: texts in, settings or `FILE:LINE:COLUMN: message` out.

use std::{fs, net::TcpListener, os::fd::OwnedFd, path::Path, time::Duration};

use webserver::{
    ErrorKind,
    config::{
        AccessFormat, Action, Address, Certificate, ClientAuth, Coding, Config, Host, Hsts, HttpsRedirect,
        Level, LogPath, Pem, Profile, ResponseCache, Settings, Tls, TlsVersions,
    },
    server::plan::{Load, Plan},
};

const HOST: Host =
    Host { cores: 4, nofile_soft: 1 << 16, nofile_hard: 1 << 20, memory_bytes: 1 << 33, binary: false };
const BINARY: Host = Host { binary: true, ..HOST };

/// The example of the interface, whole.
const INTERFACE: &str = r#"shards: auto                  # one per core this process may use
pin_shards: false
listen:
  - address: 127.0.0.1:8080   # HTTP/1.1, and HTTP/2 by prior knowledge
  - address: 127.0.0.1:8443
    tls:
      certificates:           # several: chosen by SNI, the first is the default
        - { certificate: cert.pem, key: key.pem }
      versions: [tls1.2, tls1.3]
      client_ca: ca.pem       # optional: demand client certificates
      ticket_key_file: path   # optional: shared across machines, re-read on reload
admin:
  address: 127.0.0.1:9090     # absent: no admin listener
routes:                       # first host match, then longest path prefix
  - host: example.com         # or *.example.com; absent: any
    path: /
    root: ./public
    index: [index.html]
    listing: false
    fallback: /index.html     # what a missing file answers with (single-page applications)
    precompressed: [br, zstd, gzip]
    headers: { Cache-Control: "public, max-age=60" }
    error_pages: { 404: /404.html }
  - path: /api/
    proxy:
      upstreams: [ "http://127.0.0.1:9000", "unix:/run/app.sock" ]
      cache: true             # RFC 9111 shared cache
  - path: /old/
    redirect: { to: /new/, status: 301 }
memory:                       # the keys of the memory profile, as it writes them
  profile: small              # small | medium | large: the profile's three columns; keys below override
  budget: 512MB               # hard budget for everything the server holds
  worker_connections: 1024    # per shard
  buffer_pools:               # free buffers kept; in use they are bounded by the budget
    small:  { count: 256, size: "4KB",  global: 1024 }
    medium: { count: 64,  size: "16KB", global: 256 }
    large:  { count: 16,  size: "64KB", global: 64 }
  open_file_cache: 1000       # or { entries: 1000, min_uses: 1, inactive: 60s, valid: 5s, errors: true }
  mmap: { max_file: 256KB, max_total: 64MB }      # 0 turns mapping off
  response_cache: "64MB"      # or { size: 64MB, static: 32MB, proxy: 48MB, max_object: 8MB, high: 90, low: 70 }
  tls_session_cache: "5MB"    # or { size: 5MB, lifetime: 1h, tickets: true }
  raise_nofile: true          # the binary's default; the library's is false
timeouts: { handshake: 10s, header: 10s, body: 30s, write: 30s, idle: 75s, upstream_connect: 5s, upstream_read: 60s, drain: 30s }
limits: { header_bytes: 32KB, headers: 100, target_bytes: 8KB, body_bytes: 16MB, requests_per_connection: 0, connections_per_ip: 0, h2_streams: 100 }
access_log: { path: "-", format: combined }     # or json; absent: off
log: { level: info, format: text }
"#;

/// The same, for what this version does.
const FULL: &str = r#"
shards: 3
pin_shards: true
listen:
  - address: 127.0.0.1:8081
  - "[::1]:8082"
  - address: "unix:run/x.sock"
    connections: 77
  - address: 127.0.0.1:8443
    tls:
      certificates:
        - { certificate: cert.pem, key: /k/key.pem, ocsp: "o ü.der" }
        - { certificate: other.pem, key: other.key }
      versions: [tls1.3]
      client_ca: ca.pem
      client_certificates: optional
      ticket_key_file: tickets.key
  - address: 127.0.0.1:8444
    tls: { certificates: { certificate: cert.pem, key: key.pem }, client_ca: ca.pem, versions: tls1.2 }
admin: { address: 127.0.0.1:9091 }
routes:
  - host: [Example.com, "*.EXAMPLE.net"]
    path: /
    root: ./public
    index: [index.html, index.htm]
    dotfiles: true
    types: { md: "text/markdown; charset=utf-8" }
    headers: { Cache-Control: "public, max-age=60", X-Quote: "say \"hi\" \\ bye" }
    methods: [GET]
    fallback: "/index ü.html"
    error_pages: { 404: /404.html, 503: "/e/#.html" }
  - path: /cached/
    root: ./public
    listing: true
    canonical: true
    precompressed: [zstd, br]
    cache_control:
      - { pattern: "*.css", value: "public, max-age=60", expires: 1m }
      - { pattern: "\"?/*", expires: 0 }
  - path: /old/
    redirect: { to: /new/, status: 308 }
    methods: [GET, POST]
    cors: { origins: [HTTPS://a.b, "http://c:81"], methods: [], headers: [X-A, X-B], expose: [X-C], credentials: true, max_age: 10m }
  - path: /open/
    root: ./public
    cors: { origins: "*" }
    https_redirect: { status: 307, port: 8443 }
    hsts: { max_age: 400d, include_subdomains: true, preload: true }
  - path: /secure/
    redirect: { to: / }
    https_redirect: true
    hsts: 0s
memory:
  profile: large
  budget: 48MB
  worker_connections: 512
  buffer_pools:
    small:  { count: 10, size: "4KB", global: 13 }
    medium: { count: 11, size: "16KB", global: 14 }
    large:  { count: 12, size: "64KB", global: 15 }
  open_file_cache: { entries: 99, min_uses: 2, inactive: 61s, valid: 1500ms, errors: false }
  mmap: { max_file: 1MB, max_total: 3MB }
  response_cache: { size: 10MB, static: 1025, proxy: 2MB, max_object: 3KB, high: 80, low: 20 }
  tls_session_cache: { size: 300KB, lifetime: 7d, tickets: false }
  raise_nofile: true
timeouts: { handshake: 9s, header: 1s, body: 2m, write: 3h, idle: 4ms, drain: 0s }
limits: { header_bytes: 16KB, headers: 50, target_bytes: 4KB, body_bytes: 0, requests_per_connection: 1000,
          connections_per_ip: 8, requests_per_ip: 50, requests_per_ip_burst: 90, handshakes: 33,
          exempt: [127.0.0.1, 10.0.0.0/8, "::1", "2001:db8::/32"] }
access_log: { path: logs/access.log, format: json, sample: 10 }
log: { level: debug, format: text, path: "-" }
"#;

fn load(text: &str) -> Result<Config, String> {
    let mut config = Config::new();
    config.load_yaml(text).map_err(|error| error.to_string())?;
    Ok(config)
}

fn settings(text: &str) -> Settings {
    load(text)
        .and_then(|config| config.resolve(&HOST).map_err(|error| error.to_string()))
        .expect("a good text")
}

fn names(settings: &Settings) -> Vec<&str> {
    settings.listeners.iter().map(|listener| listener.name.as_str()).collect()
}

#[test]
fn nothing_at_all_serves_the_welcome_page() {
    let library = Config::new().resolve(&HOST).unwrap();
    assert_eq!((library.shards, names(&library)), (4, vec!["127.0.0.1:8080"]));
    assert!(library.admin.is_none() && !library.memory.raise_nofile);
    assert!(matches!(library.routes[..], [ref route] if matches!(route.action, Action::Welcome)));

    let binary = Config::new().resolve(&BINARY).unwrap();
    assert_eq!(binary.admin.unwrap().name, "127.0.0.1:9090");
    assert!(binary.memory.raise_nofile);
}

#[test]
fn any_configuration_leaves_the_admin_listener_out() {
    let mut config = Config::new();
    config.set("pin_shards", "true").unwrap();
    assert!(config.resolve(&BINARY).unwrap().admin.is_none());
    assert!(load("").unwrap().resolve(&BINARY).unwrap().admin.is_none());
}

#[test]
fn listen_and_routes_are_enough() {
    let settings = settings("listen: [{ address: 127.0.0.1:80 }]\nroutes: [{ root: /srv }]\n");
    assert_eq!(names(&settings), ["127.0.0.1:80"]);
    let memory = &settings.memory;
    assert_eq!((memory.worker_connections, memory.open_file_cache.entries), (1024, 1000));
    assert_eq!((memory.response_cache.size_bytes, memory.response_cache.static_bytes), (64 << 20, 32 << 20));
    assert_eq!(settings.timeouts.idle, Duration::from_secs(75));
    assert_eq!(settings.limits.body_bytes, 16 << 20);
    assert_eq!((settings.log.level, settings.log.path), (Level::Info, None));
}

#[test]
fn every_key_is_taken() {
    let settings = settings(FULL);
    let base = std::env::current_dir().unwrap();
    assert_eq!((settings.shards, settings.pin_shards), (3, true));
    assert_eq!(
        names(&settings),
        ["127.0.0.1:8081", "[::1]:8082", "unix:run/x.sock", "127.0.0.1:8443", "127.0.0.1:8444"]
    );
    assert!(
        matches!(&settings.listeners[2].address, Address::Unix(path) if *path == base.join("run/x.sock"))
    );
    assert_eq!(settings.routes[0].hosts, ["example.com", "*.example.net"]);
    let Action::Files(files) = &settings.routes[0].action else { panic!("files") };
    assert_eq!((&files.root, files.index.len(), files.dotfiles), (&base.join("public"), 2, true));
    assert_eq!(settings.routes[0].headers[1].1, "say \"hi\" \\ bye");
    assert_eq!((files.fallback.as_deref(), files.error_pages.len()), (Some("/index ü.html"), 2));
    let Action::Files(cached) = &settings.routes[1].action else { panic!("files") };
    assert_eq!(cached.cache_control[1].expires, Some(Duration::ZERO));
    assert_eq!(cached.precompressed, [Coding::Zstd, Coding::Br]);
    let Action::Redirect(redirect) = &settings.routes[2].action else { panic!("redirect") };
    assert_eq!((redirect.to.as_str(), redirect.status), ("/new/", 308));
    assert_eq!((settings.memory.profile, settings.memory.budget_bytes), (Profile::Large, 48 << 20));
    let pools = settings.memory.buffer_pools;
    assert_eq!((pools.counts(), pools.global_counts()), ([10, 11, 12], [13, 14, 15]));
    let cache = ResponseCache {
        size_bytes: 10 << 20,
        static_bytes: 1025,
        proxy_bytes: 2 << 20,
        object_bytes_max: 3 << 10,
        high_percent: 80,
        low_percent: 20,
    };
    assert_eq!(settings.memory.response_cache, cache);
    assert_eq!(settings.memory.open_file_cache.valid, Duration::from_millis(1500));
    let mmap = settings.memory.mmap;
    assert_eq!((mmap.file_bytes_max, mmap.total_bytes_max), (1 << 20, 3 << 20));
    assert_eq!(settings.timeouts.drain, Duration::ZERO);
    assert_eq!(settings.listeners.iter().map(|one| one.connections).collect::<Vec<_>>(), [0, 0, 77, 0, 0]);
    let limits = &settings.limits;
    assert_eq!(
        (limits.connections_per_ip, limits.requests_per_ip, limits.requests_per_ip_burst),
        (8, 50, 90)
    );
    let exempt: Vec<String> = limits.exempt.iter().map(ToString::to_string).collect();
    assert_eq!(exempt, ["127.0.0.1", "10.0.0.0/8", "::1", "2001:db8::/32"]);
    let log = settings.access_log.unwrap();
    assert_eq!(log.path, LogPath::File(base.join("logs/access.log")));
    assert_eq!((log.format, log.sample), (AccessFormat::Json, 10));
}

#[test]
fn every_key_of_tls_is_taken() {
    let settings = settings(FULL);
    let base = std::env::current_dir().unwrap();
    let tls: Vec<&Tls> = settings.listeners.iter().filter_map(|listener| listener.tls.as_ref()).collect();
    let [whole, short] = tls[..] else { panic!("{tls:?}") };
    let file = |name: &str| Pem::File(base.join(name));
    let certificate =
        |chain, key, ocsp: Option<&str>| Certificate { chain, key, ocsp: ocsp.map(|name| base.join(name)) };
    assert_eq!(
        whole.certificates,
        [
            certificate(file("cert.pem"), file("/k/key.pem"), Some("o ü.der")),
            certificate(file("other.pem"), file("other.key"), None)
        ]
    );
    assert_eq!(whole.versions, TlsVersions { tls12: false, tls13: true });
    assert_eq!(whole.client_auth, Some(ClientAuth { ca: file("ca.pem"), optional: true }));
    assert_eq!(whole.ticket_key_file, Some(base.join("tickets.key")));
    assert_eq!(short.certificates, [certificate(file("cert.pem"), file("key.pem"), None)]);
    assert_eq!(short.versions, TlsVersions { tls12: true, tls13: false });
    assert_eq!(short.client_auth, Some(ClientAuth { ca: file("ca.pem"), optional: false }));
    let sessions = settings.memory.tls_session_cache;
    assert_eq!(
        (sessions.size_bytes, sessions.lifetime.as_secs(), sessions.tickets),
        (300 << 10, 604_800, false)
    );
    assert_eq!((settings.timeouts.handshake.as_secs(), settings.limits.handshakes), (9, 33));
    let redirects: Vec<_> = settings.routes.iter().filter_map(|route| route.https_redirect).collect();
    let redirect = |status, port| HttpsRedirect { status, port };
    assert_eq!(redirects, [redirect(307, 8443), redirect(308, 443)]);
    let hsts: Vec<_> = settings.routes.iter().filter_map(|route| route.hsts).collect();
    let days = |days: u64| Duration::from_secs(days * 24 * 3600);
    let hsts_of = |max_age, both| Hsts { max_age, include_subdomains: both, preload: both };
    assert_eq!(hsts, [hsts_of(days(400), true), hsts_of(days(0), false)]);
}

#[test]
fn pem_in_memory_is_not_printed() {
    let key = "-----BEGIN PRIVATE KEY-----\nSECRET\n-----END PRIVATE KEY-----\n";
    let mut config = Config::new();
    let certificate = format!("{{ certificate: c.pem, key: {key:?} }}");
    let listen = format!("{{ address: 127.0.0.1:1, tls: {{ certificates: [{certificate}] }} }}");
    config.set("listen", &listen).unwrap();
    let settings = config.resolve(&HOST).unwrap();
    let printed = settings.to_yaml();
    assert!(
        printed.contains("          key: \"-----BEGIN (in memory, 61 bytes, not shown)\"\n"),
        "{printed}"
    );
    assert!(!printed.contains("SECRET") && !format!("{settings:?}").contains("SECRET"));
    // What stands in its place is not taken for a certificate.
    let told = load(&printed).unwrap_err();
    assert!(told.contains("listen[0].tls.certificates[0].key is PEM that was cut off"), "{told}");
}

#[test]
fn a_burst_is_one_second_of_requests_unless_given() {
    let burst = |text: &str| settings(&format!("limits: {{ {text} }}")).limits.requests_per_ip_burst;
    assert_eq!(burst("requests_per_ip: 50"), 50);
    assert_eq!(burst("requests_per_ip: 50, requests_per_ip_burst: 1"), 1);
    assert_eq!(burst("headers: 1"), 0);
}

#[test]
fn what_check_prints_loads_to_the_same_settings() {
    for text in ["", FULL, "access_log: {}\nlog: { path: a.log }", "routes: [{ root: /s, index: [] }]"] {
        let first = settings(text);
        let printed = first.to_yaml();
        let second = settings(&printed);
        assert_eq!(second.to_yaml(), printed);
        // A unix socket's name becomes absolute on the way; all else is the same to the letter.
        let same = |settings: &Settings| format!("{settings:?}").replace("unix:run", "");
        let absolute = format!("unix:{}/run", std::env::current_dir().unwrap().display());
        assert_eq!(same(&second).replace(&absolute, ""), same(&first), "{printed}");
    }
}

#[test]
fn defaults_that_were_scaled_down_are_printed_and_load_again() {
    let tight = Host { nofile_soft: 1024, ..HOST };
    let printed = Config::new().resolve(&tight).unwrap().to_yaml();
    assert!(printed.contains("worker_connections: 64\n"), "{printed}");
    assert_eq!(load(&printed).unwrap().resolve(&tight).unwrap().to_yaml(), printed);
}

#[test]
fn the_interface_example_stops_at_what_is_not_built() {
    let mut config = Config::new();
    let error = config.load_yaml(INTERFACE).unwrap_err();
    assert_eq!(error.to_string(), "<text>:25:5: routes[1].proxy: not in this version");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let place = error.place().unwrap();
    assert_eq!((place.line, place.column), (25, 5));
}

#[test]
fn the_memory_profiles_column_is_read() {
    let column = "memory:\n  worker_connections: 4096\n  buffer_pools:\n    small: { count: 1024, size: \"4KB\" }\n    \
                  medium: { count: 256, size: \"16KB\" }\n    large: { count: 64, size: \"64KB\" }\n  \
                  open_file_cache: 10000\n  response_cache: \"512MB\"\n  tls_session_cache: \"50MB\"\n";
    let memory = settings(column).memory;
    assert_eq!((memory.worker_connections, memory.open_file_cache.entries), (4096, 10000));
    assert_eq!(memory.response_cache.size_bytes, 512 << 20);
    assert_eq!(memory.tls_session_cache.size_bytes, 50 << 20);
}

#[test]
fn each_example_is_a_column_of_the_profile_and_has_room_for_its_connections() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let host = Host { cores: 8, nofile_soft: 1 << 20, memory_bytes: 2 << 30, ..HOST };
    for (profile, connections) in
        [(Profile::Small, 1_000), (Profile::Medium, 10_000), (Profile::Large, 100_000)]
    {
        let name = profile.name();
        let mut config = Config::new();
        config.load_file(&folder.join(format!("{name}.yaml"))).unwrap_or_else(|error| panic!("{error}"));
        let settings = config.resolve(&host).unwrap_or_else(|error| panic!("{error}"));
        let column = load(&format!("memory: {{ profile: {name}, budget: 1024GB }}"));
        let column = column.unwrap().resolve(&host).unwrap().memory;
        let memory = &settings.memory;
        assert_eq!(memory.profile, profile);
        assert_eq!(memory.worker_connections, column.worker_connections, "{name}");
        assert_eq!(memory.buffer_pools, column.buffer_pools, "{name}");
        assert_eq!(memory.open_file_cache, column.open_file_cache, "{name}");
        assert_eq!(memory.response_cache, column.response_cache, "{name}");
        assert_eq!(memory.tls_session_cache, column.tls_session_cache, "{name}");

        let load = Load { connections, tls_percent: 0, h2_percent: 0 };
        let plan = Plan::new(&settings, load);
        let active = plan.fits.iter().find(|fit| fit.kind == "active").unwrap();
        assert!(active.count >= connections, "{name}: {active:?}");
        // No pressure on an ordinary day.
        assert!(plan.typical_bytes() < plan.budget_bytes / 100 * 70, "{name}");
    }
    let files = fs::read_dir(&folder).unwrap().count();
    assert_eq!(files, 3, "every example is read here");
}

#[test]
fn loading_again_merges_keys_and_replaces_lists() {
    let mut config = load(FULL).unwrap();
    config
        .load_yaml("listen: [127.0.0.1:1]\nlimits: { headers: 7 }\nmemory: { open_file_cache: 5 }\n")
        .unwrap();
    let settings = config.resolve(&HOST).unwrap();
    assert_eq!(names(&settings), ["127.0.0.1:1"]);
    assert_eq!((settings.limits.headers, settings.limits.header_bytes), (7, 16 << 10));
    let files = settings.memory.open_file_cache;
    assert_eq!((files.entries, files.min_uses), (5, 2));
    assert_eq!(settings.routes.len(), 5);
}

#[test]
fn what_fails_changes_nothing() {
    let mut config = load("shards: 2").unwrap();
    assert!(config.load_yaml("shards: 3\nlimits: { headers: 0 }").is_err());
    assert!(config.set("shards", "0").is_err());
    assert_eq!(config.resolve(&HOST).unwrap().shards, 2);
    let mut fresh = Config::new();
    assert!(fresh.set("shards", "0").is_err());
    assert!(fresh.resolve(&BINARY).unwrap().admin.is_some());
}

#[test]
fn keys_are_set_by_their_dotted_name() {
    let mut config = Config::new();
    for (key, value) in [
        ("limits.body_bytes", "1MB"),
        ("memory.buffer_pools.small.count", "3"),
        ("timeouts.drain", "0"),
        ("memory.response_cache", "{ size: 8MB, static: 1MB }"),
        ("memory.mmap.max_file", "64KB"),
        ("memory.budget", "64MB"),
        ("memory.profile", "medium"),
        ("listen", "[::1]:0"),
        ("admin.address", "[::1]:0"),
        ("log.level", "warn"),
    ] {
        config.set(key, value).unwrap_or_else(|error| panic!("{key}: {error}"));
    }
    let settings = config.resolve(&HOST).unwrap();
    assert_eq!((settings.limits.body_bytes, settings.memory.buffer_pools.small), (1 << 20, 3));
    assert_eq!((settings.memory.response_cache.static_bytes, settings.log.level), (1 << 20, Level::Warn));
    assert_eq!(settings.memory.mmap.file_bytes_max, 64 << 10);
    assert_eq!((settings.memory.budget_bytes, settings.memory.profile), (64 << 20, Profile::Medium));
    assert_eq!(
        (names(&settings), settings.admin.as_ref().unwrap().name.as_str()),
        (vec!["[::1]:0"], "[::1]:0")
    );
    config.set("listen", "[127.0.0.1:1, 127.0.0.1:2]").unwrap();
    assert_eq!(names(&config.resolve(&HOST).unwrap()), ["127.0.0.1:1", "127.0.0.1:2"]);
}

#[test]
fn an_error_of_set_names_the_key() {
    let mut config = Config::new();
    for (key, value, told) in [
        (
            "limits.headers",
            "many",
            "limits.headers must be a whole number from 1 to 1024, not the text \"many\"",
        ),
        ("limits.headers", "[1", "limits.headers: not valid YAML: unclosed bracket '['"),
        (
            "memory.budget",
            "64",
            "memory.budget must be a size from 1MB to 16384GB, such as 4KB, 64MB or 1GB (powers of 1024, no \
             fractions), not 64",
        ),
        ("root", "[]", "root must be text, not a list"),
        ("", "1", "\"\" is not a dotted key"),
        ("limits..headers", "1", "\"limits..headers\" is not a dotted key"),
        ("limits\n.headers", "[", "\"limits\\n.headers\" is not a dotted key"),
    ] {
        let error = config.set(key, value).unwrap_err();
        assert_eq!(error.to_string(), told);
        assert!(error.place().is_none());
    }
    let unknown = config.set("limit.headers", "1").unwrap_err().to_string();
    assert!(unknown.starts_with("unknown key \"limit\"; allowed: shards, "), "{unknown}");
}

#[test]
fn root_is_a_route_at_slash_and_others_stay() {
    let mut config =
        load("routes:\n - { root: /a }\n - { path: /b, root: /b }\n - { host: h, root: /h }\n").unwrap();
    config.set("root", "site").unwrap();
    config.set_root(Path::new("/c: d")).unwrap();
    let settings = config.resolve(&HOST).unwrap();
    let roots: Vec<_> = settings
        .routes
        .iter()
        .map(|route| match &route.action {
            Action::Files(files) => files.root.display().to_string(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(roots, ["/b", "/h", "/c: d"]);
}

#[test]
fn inherited_sockets_stand_alone_or_follow_listen() {
    let socket = || OwnedFd::from(TcpListener::bind("127.0.0.1:0").unwrap());
    let mut config = Config::new();
    config.add_listener("main", socket()).unwrap();
    let settings = config.resolve(&BINARY).unwrap();
    assert_eq!(names(&settings), ["main"]);
    assert!(settings.admin.is_none());
    assert!(settings.to_yaml().contains("# listening too: the inherited socket \"main\"\n"));

    config.load_yaml("listen: []").unwrap();
    assert_eq!(names(&config.resolve(&HOST).unwrap()), ["main"]);
    config.set("listen", "127.0.0.1:0").unwrap();
    assert_eq!(names(&config.resolve(&HOST).unwrap()), ["127.0.0.1:0", "main"]);

    assert_eq!(config.add_listener("main", socket()).unwrap_err().kind(), ErrorKind::Invalid);
    assert!(config.add_listener("", socket()).is_err());
    for count in 1..64 {
        config.add_listener(&format!("s{count}"), socket()).unwrap();
    }
    assert!(config.add_listener("one too many", socket()).is_err());
    let told = config.resolve(&HOST).unwrap_err().to_string();
    assert_eq!(told, "65 listeners, inherited ones included; at most 64");
}

#[test]
fn a_file_is_read_relative_to_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("w.yaml");
    fs::write(&file, "routes: [{ root: ./public }]\nlog: { path: ../x.log }\n").unwrap();
    let mut config = Config::new();
    config.load_file(&file).unwrap();
    config.set("root", "elsewhere").unwrap();
    config.load_file(&file).unwrap();
    let settings = config.resolve(&HOST).unwrap();
    let Action::Files(files) = &settings.routes[0].action else { panic!("files") };
    assert_eq!(files.root, folder.path().join("public"));
    assert_eq!(settings.log.path, Some(LogPath::File(folder.path().join("../x.log"))));
}

#[test]
fn an_error_in_a_file_names_file_line_and_column() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("w.yaml");
    let told = |bytes: &[u8]| {
        fs::write(&file, bytes).unwrap();
        let error = Config::new().load_file(&file).unwrap_err().to_string();
        error.strip_prefix(&format!("{}:", file.display())).map(str::to_owned).unwrap_or(error)
    };
    assert_eq!(
        told(b"listen: [127.0.0.1:1]\nmemory:\n  worker_conections: 3\n"),
        "3:3: unknown key \"worker_conections\" in memory; allowed: profile, budget, worker_connections, buffer_pools, \
         open_file_cache, mmap, response_cache, tls_session_cache, raise_nofile"
    );
    assert_eq!(
        told(b"# \xc3\xbc\nlimits: { header_bytes: 4MB }\n"),
        "2:25: limits.header_bytes must be a size from 512 to 64KB, such as 4KB, 64MB or 1GB (powers of 1024, no \
         fractions), not the text \"4MB\""
    );
    assert_eq!(
        told(b"timeouts: { idle: 10 }\n"),
        "1:19: timeouts.idle must be a time from 1ms to 24h, such as 500ms, 10s, 5m or 1h, not 10"
    );
    assert_eq!(told(b"listen: [localhost:80]\n").split(": ").next(), Some("1:10"));
    assert_eq!(told(b"shards: 1\nshards: 2\n"), "2:1: the key \"shards\" is given twice");
    assert_eq!(told(b"a: \xc3\xbc\nb: \xc3\xbc\xff\n"), "2:5: not UTF-8");
    let long = vec![b' '; (1 << 20) + 1];
    assert_eq!(told(&long), "1:1: the text is 1048577 bytes long, at most 1048576 are read");
    fs::write(&file, &long[1..]).unwrap();
    assert!(Config::new().load_file(&file).is_ok());
}

#[test]
fn a_file_that_cannot_be_read_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing.yaml");
    let error = Config::new().load_file(&missing).unwrap_err();
    assert_eq!((error.kind(), error.sys_errno()), (ErrorKind::Io, 2));
    assert!(error.to_string().starts_with(&format!("cannot read {}: ", missing.display())));
    assert_eq!(Config::new().load_file(folder.path()).unwrap_err().kind(), ErrorKind::Io);
}
