//! The servers that are compared, each with a configuration of its own that lets it do its best at the same
//! job: one worker, no access log, connections kept alive without end, open files cached.

use std::{
    ffi::OsString,
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::{
    Outcome, SERVER_CORE,
    load::{self, Client},
    process::Process,
};

/// Connections a server takes: 10,000 idle ones and some.
const CONNECTIONS_MAX: usize = 16_384;

/// A server that can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// This project's binary, one shard.
    Ours,
    /// The same with an access log in combined format.
    Combined,
    /// The same with an access log in JSON.
    Json,
    /// `handler.c`: a host that links the library and answers from an inline handler.
    Handler,
    /// `microhttpd.c`: the same with libmicrohttpd.
    Microhttpd,
    /// nginx with sendfile and its open-file cache.
    Nginx,
    /// h2o with one thread.
    H2o,
    /// `floor.c`, which answers the same number of bytes to anything.
    Floor,
}

impl Kind {
    /// Those of the table's columns, in their order.
    pub const COLUMNS: [Kind; 4] = [Kind::Ours, Kind::Nginx, Kind::H2o, Kind::Floor];

    /// As the command line and the table write it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Ours => "ours",
            Kind::Combined => "logging",
            Kind::Json => "logging JSON",
            Kind::Handler => "handler",
            Kind::Microhttpd => "libmicrohttpd",
            Kind::Nginx => "nginx",
            Kind::H2o => "h2o",
            Kind::Floor => "floor",
        }
    }

    /// `Err` with what to install when this server cannot run here.
    ///
    /// # Errors
    /// The program is not installed.
    pub fn available(self) -> Outcome<()> {
        let program = match self {
            Kind::Ours | Kind::Combined | Kind::Json => return Ok(()),
            Kind::Nginx => "nginx",
            Kind::H2o => "h2o",
            Kind::Floor | Kind::Handler => "cc",
            Kind::Microhttpd => {
                let header = Path::new("/usr/include/microhttpd.h");
                return header.exists().then_some(()).ok_or_else(|| {
                    format!("libmicrohttpd is missing: {}", load::install("gcc libmicrohttpd-dev"))
                });
            }
        };
        if load::installed(program) {
            return Ok(());
        }
        let package = if program == "cc" { "gcc" } else { program };
        Err(format!("{program} is missing: {}", load::install(package)))
    }
}

/// A server that accepts.
pub struct Server {
    /// Ends with this.
    pub process: Process,
    /// On 127.0.0.1.
    pub port: u16,
}

/// Starts `kind` on the server core, serving the folder `site`; its files go below `parent`. The programs in C
/// answer `bytes` bytes (at most 16,384) whatever is asked.
///
/// # Errors
/// It is missing, or did not serve within ten seconds; what it printed is in the error.
pub fn start(kind: Kind, site: &Path, parent: &Path, bytes: usize) -> Outcome<Server> {
    start_with(kind, site, parent, bytes, "")
}

/// Keys of a configuration of this project.
pub struct Keys<'a> {
    /// Number of shards.
    pub shards: usize,
    /// Of the section `memory`, as YAML writes them on one line.
    pub memory: &'a str,
    /// Of the section `timeouts`.
    pub timeouts: &'a str,
    /// Of the section `limits`.
    pub limits: &'a str,
}

/// This project's server with an admin listener.
pub struct Watched {
    /// Ends with this.
    pub process: Process,
    /// On 127.0.0.1.
    pub port: u16,
    /// Of the admin listener.
    pub admin_port: u16,
    /// Its configuration.
    pub configuration: PathBuf,
}

impl Watched {
    /// Starts it on the server core; its files go below `parent`, under `name`.
    ///
    /// # Errors
    /// It did not serve within ten seconds; what it printed is in the error.
    pub fn start(site: &Path, parent: &Path, name: &str, keys: &Keys<'_>) -> Outcome<Watched> {
        let configuration = parent.join(format!("{name}.yaml"));
        let (port, admin_port) = (free_port()?, free_port()?);
        let Keys { shards, memory, timeouts, limits } = keys;
        let text = format!(
            "shards: {shards}\nlisten: [\"127.0.0.1:{port}\"]\nadmin: {{address: \"127.0.0.1:{admin_port}\"}}\n\
             routes: [{{path: /, root: \"{}\"}}]\n\
             memory: {{{memory}}}\ntimeouts: {{{timeouts}}}\nlimits: {{{limits}}}\n",
            site.display()
        );
        fs::write(&configuration, text).map_err(|error| format!("cannot write a configuration: {error}"))?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_webserver"));
        command.arg("-c").arg(&configuration);
        let mut process = Process::start(&mut command, SERVER_CORE, &parent.join(format!("{name}.log")))?;
        process.wait_until(|_| Client::connect(admin_port).is_ok() && Client::connect(port).is_ok())?;
        Ok(Watched { process, port, admin_port, configuration })
    }
}

/// nginx with so many workers, and more directives of `http`, each with its semicolon.
///
/// # Errors
/// Those of [`start`].
pub fn start_nginx(workers: usize, http: &str, site: &Path, parent: &Path) -> Outcome<Server> {
    start_as(Kind::Nginx, site, parent, 0, &Wishes { memory: "", workers, http, tls: None })
}

/// What servers speak TLS with: all of them both versions, with tickets and a cache of sessions. nginx sends one ticket, as this
/// project's server does; h2o cannot be told to.
pub struct Secured<'a> {
    /// PEM.
    pub certificate: &'a Path,
    /// PEM.
    pub key: &'a Path,
    /// Shards of this project's server, or processes of nginx; the others have one thread.
    pub workers: usize,
    /// Keys of this project's `memory`, as YAML writes them on one line.
    pub memory: &'a str,
}

/// Starts a server that speaks TLS on the server core; whether it does is not looked at.
///
/// # Errors
/// Those of [`start`].
pub fn start_secured(kind: Kind, site: &Path, parent: &Path, secured: &Secured<'_>) -> Outcome<Server> {
    let http = format!(
        "ssl_certificate \"{}\"; ssl_certificate_key \"{}\"; ssl_protocols TLSv1.2 TLSv1.3; \
         ssl_ecdh_curve X25519:prime256v1; ssl_session_cache shared:tls:10m; ssl_session_timeout 1h; \
         ssl_session_tickets on; ssl_conf_command NumTickets 1;",
        secured.certificate.display(),
        secured.key.display()
    );
    let wishes = Wishes { memory: secured.memory, workers: secured.workers, http: &http, tls: Some(secured) };
    start_as(kind, site, parent, 0, &wishes)
}

/// The same with more keys of `memory` for this project's server, as YAML writes them on one line.
///
/// # Errors
/// Those of [`start`].
pub fn start_with(kind: Kind, site: &Path, parent: &Path, bytes: usize, memory: &str) -> Outcome<Server> {
    start_as(kind, site, parent, bytes, &Wishes { memory, workers: 1, http: "", tls: None })
}

/// What a configuration has beside what all of them have.
struct Wishes<'a> {
    /// Keys of this project's `memory`.
    memory: &'a str,
    /// nginx's processes, and this project's shards.
    workers: usize,
    /// Directives of nginx's `http`.
    http: &'a str,
    tls: Option<&'a Secured<'a>>,
}

fn start_as(kind: Kind, site: &Path, parent: &Path, bytes: usize, wishes: &Wishes<'_>) -> Outcome<Server> {
    let port = free_port()?;
    let name = kind.name();
    let folder = parent.join(format!("{name}-{port}"));
    fs::create_dir_all(&folder).map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
    let configure = |text: String| {
        let path = folder.join("configuration");
        let written = fs::write(&path, text);
        written.map(|()| path).map_err(|error| format!("cannot write a configuration: {error}"))
    };
    let mut command = match kind {
        Kind::Ours | Kind::Combined | Kind::Json => {
            let mut text = ours_configuration(port, site, wishes);
            if kind != Kind::Ours {
                let format = if kind == Kind::Json { "json" } else { "combined" };
                let path = folder.join("access.log");
                text += &format!("access_log: {{path: \"{}\", format: {format}}}\n", path.display());
            }
            let mut command = Command::new(env!("CARGO_BIN_EXE_webserver"));
            command.arg("-c").arg(configure(text)?);
            command
        }
        Kind::Nginx => {
            let mut command = Command::new("nginx");
            command.arg("-c").arg(configure(nginx_configuration(port, site, &folder, wishes))?);
            command.arg("-e").arg(folder.join("error.log")).arg("-p").arg(&folder);
            command
        }
        Kind::H2o => {
            let mut command = Command::new("h2o");
            command.arg("-c").arg(configure(h2o_configuration(port, site, &folder, wishes))?);
            command
        }
        Kind::Floor | Kind::Handler | Kind::Microhttpd => {
            let program = match kind {
                Kind::Floor => compile("floor", &[], parent)?,
                Kind::Microhttpd => compile("microhttpd", &["-lmicrohttpd".into()], parent)?,
                _ => compile("handler", &library()?, parent)?,
            };
            let mut command = Command::new(program);
            command.arg(port.to_string()).arg(bytes.to_string());
            command
        }
    };
    let mut process = Process::start(&mut command, SERVER_CORE, &folder.join("log"))
        .map_err(|error| format!("{name}: {error}"))?;
    let accepts = format!("://127.0.0.1:{port}");
    process
        .wait_until(|process| match kind {
            Kind::Ours | Kind::Combined | Kind::Json => process
                .log()
                .lines()
                .any(|line| line.starts_with("listening on ") && line.ends_with(&accepts)),
            _ => Client::connect(port).is_ok(),
        })
        .map_err(|error| format!("{name}: {error}"))?;
    Ok(Server { process, port })
}

/// Compiles `benches/NAME.c` into `folder`, unless that was done, and returns the program.
///
/// # Errors
/// There is no C compiler, or it refuses the source.
pub fn compile(name: &str, options: &[OsString], folder: &Path) -> Outcome<PathBuf> {
    let program = folder.join(name);
    if program.exists() {
        return Ok(program);
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("benches/{name}.c"));
    let mut command = Command::new("cc");
    command.args(["-O2", "-o"]).arg(&program).arg(source).args(options).stdin(Stdio::null());
    let output =
        command.output().map_err(|error| format!("cannot run cc ({error}): {}", load::install("gcc")))?;
    if !output.status.success() {
        return Err(format!("cc refuses {name}.c: {}", String::from_utf8_lossy(&output.stderr)));
    }
    Ok(program)
}

/// Builds the shared library as it is released, and returns what a C program is compiled with to use it.
fn library() -> Outcome<Vec<OsString>> {
    let profile = Path::new(env!("CARGO_BIN_EXE_webserver")).parent().unwrap_or(Path::new("."));
    let target = profile.parent().unwrap_or(profile);
    let mut command = Command::new(env!("CARGO"));
    command.args(["build", "--quiet", "--release", "-p", "webserver-ffi", "--target-dir"]).arg(target);
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    let status = command.status().map_err(|error| format!("cannot run cargo: {error}"))?;
    if !status.success() {
        return Err("libwebserver does not build".to_owned());
    }
    let mut options = vec![OsString::from("-I")];
    options.push(Path::new(env!("CARGO_MANIFEST_DIR")).join("include").into());
    options.push("-L".into());
    options.push(profile.into());
    options.push("-lwebserver".into());
    let mut rpath = OsString::from("-Wl,-rpath,");
    rpath.push(profile);
    options.push(rpath);
    Ok(options)
}

/// A folder that is removed with its guard, below `parent` or cargo's own folder for such files, on a disk:
/// direct reads and cold files mean nothing in memory.
///
/// # Errors
/// The folder cannot be made, or lies in a tmpfs.
pub fn disk_folder(parent: Option<&Path>) -> Outcome<tempfile::TempDir> {
    let parent = parent.unwrap_or(Path::new(env!("CARGO_TARGET_TMPDIR")));
    let failed = |error| format!("cannot make a folder in {}: {error}", parent.display());
    fs::create_dir_all(parent).map_err(failed)?;
    let folder = tempfile::tempdir_in(parent).map_err(failed)?;
    let path = std::ffi::CString::new(folder.path().as_os_str().as_encoded_bytes())
        .map_err(|_| "a folder with a NUL in its name".to_owned())?;
    // SAFETY: a statfs is integers alone, for which zero is a value.
    let mut facts: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: `path` ends with NUL and `facts` is a valid place for the answer.
    let known = unsafe { libc::statfs(path.as_ptr(), &raw mut facts) } == 0;
    if known && facts.f_type == libc::TMPFS_MAGIC {
        return Err(format!("{} is in memory; name a folder on a disk with --dir", parent.display()));
    }
    Ok(folder)
}

/// A port that was free a moment ago. A program that takes it meanwhile makes the start fail, and says so.
///
/// # Errors
/// There is none.
pub fn free_port() -> Outcome<u16> {
    let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| Ok(listener.local_addr()?.port()));
    port.map_err(|error| format!("no free port: {error}"))
}

/// Servers that root starts give up its rights, and could then not read a temporary folder of root's.
fn is_root() -> bool {
    // SAFETY: geteuid has no preconditions and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

fn ours_configuration(port: u16, site: &Path, wishes: &Wishes<'_>) -> String {
    let tls = wishes.tls.map_or(String::new(), |tls| {
        let (certificate, key) = (tls.certificate.display(), tls.key.display());
        format!(", tls: {{certificates: [{{certificate: \"{certificate}\", key: \"{key}\"}}]}}")
    });
    format!(
        "shards: {shards}
listen: [{{address: \"127.0.0.1:{port}\"{tls}}}]
routes: [{{path: /, root: \"{site}\"}}]
memory: {{worker_connections: {connections}, {memory}}}
timeouts: {{idle: 600s}}
",
        shards = wishes.workers,
        connections = CONNECTIONS_MAX / wishes.workers,
        site = site.display(),
        memory = wishes.memory,
    )
}

fn nginx_configuration(port: u16, site: &Path, folder: &Path, wishes: &Wishes<'_>) -> String {
    let user = if is_root() { "user root;" } else { "" };
    format!(
        "daemon off;
{user}
worker_processes {workers};
worker_rlimit_nofile 20000;
pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections {CONNECTIONS_MAX}; }}
http {{
  access_log off;
  types {{ text/plain txt; }}
  default_type application/octet-stream;
  sendfile on;
  tcp_nopush on;
  tcp_nodelay on;
  keepalive_timeout 600s;
  keepalive_requests 1000000000;
  open_file_cache max=1000 inactive=60s;
  open_file_cache_valid 5s;
  open_file_cache_errors on;
  {http}
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  server {{ listen 127.0.0.1:{port}{ssl} backlog=4096; root \"{site}\"; }}
}}
",
        folder = folder.display(),
        site = site.display(),
        workers = wishes.workers,
        http = wishes.http,
        ssl = if wishes.tls.is_some() { " ssl reuseport" } else { "" },
    )
}

fn h2o_configuration(port: u16, site: &Path, folder: &Path, wishes: &Wishes<'_>) -> String {
    let user = if is_root() { "user: root" } else { "" };
    let ssl = wishes.tls.map_or(String::new(), |tls| {
        format!(
            "\n  ssl:\n    certificate-file: \"{}\"\n    key-file: \"{}\"\n    minimum-version: TLSv1.2",
            tls.certificate.display(),
            tls.key.display()
        )
    });
    format!(
        "{user}
num-threads: 1
max-connections: {CONNECTIONS_MAX}
http1-request-timeout: 600
pid-file: {folder}/pid
error-log: {folder}/error.log
listen:
  host: 127.0.0.1
  port: {port}{ssl}
hosts:
  default:
    paths:
      /:
        file.dir: \"{site}\"
",
        folder = folder.display(),
        site = site.display()
    )
}
