//! Requests that fail while the server is reloaded every tenth of a second and one process follows another: none may.
//!
//! `cargo bench --bench handover [-- --requests N | --quick]`. wrk loads the server over kept-alive connections and over
//! one for each request in turn; clients of this program check every byte beside it. Ends with failure when a request
//! failed: a connection that was refused, reset or ended early, a timeout, another status than 200, other bytes.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints what it measured")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

mod common;

use common::{
    Outcome, SERVER_CORE,
    load::{self, Client},
    process::{Process, signal},
    servers,
};

/// Between two reloads.
const RELOAD_EVERY: Duration = Duration::from_millis(100);
/// Between two hand-overs: time for the process before to end.
const HAND_OVER_EVERY: Duration = Duration::from_secs(3);
/// How long a hand-over may take: the server's own limit and some.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(40);
/// Seconds of one run of wrk.
const WRK_SECONDS: u64 = 10;
/// Connections of wrk.
const CONNECTIONS: usize = 64;
/// What is asked for: more than fits a packet, and known byte for byte.
const BODY_BYTES: usize = 10_000;

/// Failures that are told one by one.
const FAILURES_SHOWN: u64 = 10;

struct Options {
    requests: u64,
}

impl Options {
    fn parse(arguments: &[String]) -> Outcome<Options> {
        let mut options = Options { requests: 1_000_000 };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--quick" => options.requests = 50_000,
                "--requests" => {
                    let count = arguments.next().and_then(|text| text.parse().ok());
                    options.requests = count.ok_or("--requests wants a number")?;
                }
                other => {
                    return Err(format!("unknown option {other}: --quick, --requests N are known"));
                }
            }
        }
        Ok(options)
    }
}

fn main() -> ExitCode {
    common::run("handover", Options::parse, measure)
}

/// What the clients have counted.
#[derive(Default)]
struct Count {
    stop: AtomicBool,
    answered: AtomicU64,
    failed: AtomicU64,
}

/// Loads and disturbs; whether no request failed.
fn measure(options: &Options) -> Outcome<bool> {
    if !load::installed("wrk") {
        return Err(format!("wrk is missing: {}", load::install("wrk")));
    }
    let folder = tempfile::tempdir().map_err(|error| format!("cannot make a folder: {error}"))?;
    let site = folder.path().join("site");
    let body: Vec<u8> = (0..BODY_BYTES).map(|index| b'a' + (index % 23) as u8).collect();
    fs::create_dir(&site)
        .and_then(|()| fs::write(site.join("a"), &body))
        .map_err(|error| format!("cannot write a file: {error}"))?;
    let mut server = Succession::start(folder.path(), &site)?;
    let port = server.port;
    let count = Count::default();
    let begun = Instant::now();
    let wrk = thread::scope(|scope| {
        let clients = [true, false].map(|keep_alive| {
            let (count, body) = (&count, &body);
            scope.spawn(move || ask_until_stopped(port, keep_alive, body, count))
        });
        let disturbed = scope.spawn(|| {
            let disturbed = server.disturb(&count.stop);
            count.stop.store(true, Ordering::Relaxed);
            disturbed
        });
        let wrk = wrk_until(port, options.requests, &count);
        count.stop.store(true, Ordering::Relaxed);
        for client in clients {
            let _ = client.join();
        }
        let disturbed = disturbed.join().unwrap_or_else(|_| Err("the disturbing thread panicked".to_owned()));
        disturbed.and(wrk)
    })?;
    let own = count.answered.into_inner();
    let own_failed = count.failed.into_inner();
    println!(
        "requests answered    {:>9}  wrk {}, checked byte for byte {own}",
        wrk.answered + own,
        wrk.answered
    );
    println!("requests failed      {:>9}  wrk {}, checked {own_failed}", wrk.failed + own_failed, wrk.failed);
    println!("reloads              {:>9}", server.reloads);
    println!(
        "processes            {:>9}  the first and {} that followed",
        server.pids.len(),
        server.pids.len() - 1
    );
    println!("seconds              {:>9.0}", begun.elapsed().as_secs_f64());
    Ok(wrk.failed + own_failed == 0)
}

/// A server whose processes follow each other; the last one ends with this.
struct Succession {
    /// The first process, and the log of all.
    process: Process,
    port: u16,
    site: PathBuf,
    configuration: PathBuf,
    /// In the order in which they served.
    pids: Vec<u32>,
    reloads: u64,
}

impl Succession {
    fn start(folder: &Path, site: &Path) -> Outcome<Succession> {
        let port = servers::free_port()?;
        let configuration = folder.join("webserver.yaml");
        let mut command = Command::new(env!("CARGO_BIN_EXE_webserver"));
        command.arg("-c").arg(&configuration);
        write_configuration(&configuration, port, site, 2, 0)?;
        let log = folder.join("log");
        let mut process = Process::start(&mut command, SERVER_CORE, &log)?;
        process.wait_until(|process| process.log().contains("listening on "))?;
        let pids = vec![process.id()];
        Ok(Succession { process, port, site: site.to_owned(), configuration, pids, reloads: 0 })
    }

    /// Reloads and hands over until told to stop.
    fn disturb(&mut self, stop: &AtomicBool) -> Outcome<()> {
        let mut handed_over = Instant::now();
        while !stop.load(Ordering::Relaxed) {
            thread::sleep(RELOAD_EVERY);
            let pid = self.pids.last().copied().unwrap_or_default();
            if handed_over.elapsed() < HAND_OVER_EVERY {
                self.reloads += 1;
                self.configure(self.pids.len())?;
                signal(pid, libc::SIGHUP);
                continue;
            }
            self.configure(self.pids.len() + 1)?;
            signal(pid, libc::SIGUSR2);
            self.await_successor()?;
            handed_over = Instant::now();
        }
        Ok(())
    }

    /// Another configuration for the process of this number: fewer or more shards than the one before, and with each
    /// reload other fields, limits and sizes.
    fn configure(&self, process: usize) -> Outcome<()> {
        write_configuration(&self.configuration, self.port, &self.site, 1 + process % 3, self.reloads)
    }

    fn await_successor(&mut self) -> Outcome<()> {
        let deadline = Instant::now() + TAKEN_OVER_WITHIN;
        loop {
            let log = self.process.log();
            let told = log.lines().filter_map(|line| {
                line.strip_prefix("webserver: process ")?.strip_suffix(" has taken over")?.parse().ok()
            });
            let followed: Vec<u32> = told.collect();
            if followed.len() >= self.pids.len() {
                self.pids.truncate(1);
                self.pids.extend(followed);
                return Ok(());
            }
            if Instant::now() > deadline || log.contains("not handed over") {
                return Err(format!("no other process has taken over; the server printed: {log}"));
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Succession {
    fn drop(&mut self) {
        // The first one ends with its guard.
        if let [_, .., last] = self.pids[..] {
            signal(last, libc::SIGTERM);
        }
    }
}

fn write_configuration(path: &Path, port: u16, site: &Path, shards: usize, version: u64) -> Outcome<()> {
    let text = format!(
        "shards: {shards}
listen: [\"127.0.0.1:{port}\"]
routes: [{{path: /, root: \"{site}\", headers: {{X-Version: \"{version}\"}}}}]
memory: {{worker_connections: {connections}}}
limits: {{headers: {headers}}}
log: {{level: error}}
",
        site = site.display(),
        connections = 1024 + version % 3 * 100,
        headers = 50 + version % 50,
    );
    // Whole or not at all: the server may read it at any moment.
    let new = path.with_extension("new");
    fs::write(&new, text)
        .and_then(|()| fs::rename(&new, path))
        .map_err(|error| format!("cannot write a configuration: {error}"))
}

/// Asks over one connection as long as the server keeps it, or over a new one each time, and compares every byte.
fn ask_until_stopped(port: u16, keep_alive: bool, body: &[u8], count: &Count) {
    let mut kept: Option<Client> = None;
    while !count.stop.load(Ordering::Relaxed) {
        let answer = kept.take().map_or_else(|| Client::connect(port), Ok).and_then(|mut client| {
            client.ask_with("/a", if keep_alive { "" } else { "Connection: close\r\n" })?;
            let got = client.receive()?;
            if got != body {
                return Err(format!("{} wrong bytes", got.len()));
            }
            Ok((!client.ends).then_some(client))
        });
        match answer {
            Ok(client) => {
                kept = client;
                count.answered.fetch_add(1, Ordering::Relaxed);
            }
            Err(message) => {
                let before = count.failed.fetch_add(1, Ordering::Relaxed);
                if before < FAILURES_SHOWN {
                    println!("failed: {message}");
                }
            }
        }
    }
}

/// What wrk has seen.
#[derive(Default)]
struct Seen {
    answered: u64,
    failed: u64,
}

/// Runs wrk until it and the clients have had `requests` answers, or were told to stop.
fn wrk_until(port: u16, requests: u64, count: &Count) -> Outcome<Seen> {
    let mut seen = Seen::default();
    let mut closing = false;
    while seen.answered + count.answered.load(Ordering::Relaxed) < requests
        && !count.stop.load(Ordering::Relaxed)
    {
        let mut command = Command::new("wrk");
        command.args(["-t1", "-c", &CONNECTIONS.to_string(), "-d", &format!("{WRK_SECONDS}s")]);
        if closing {
            command.args(["-H", "Connection: close"]);
        }
        command.arg(format!("http://127.0.0.1:{port}/a")).stderr(Stdio::inherit());
        let output = command.output().map_err(|error| format!("cannot start wrk: {error}"))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (answered, failed) = load::wrk_failures(&text)?;
        if failed > 0 {
            println!("wrk, {}:\n{text}", if closing { "closing" } else { "kept alive" });
        }
        if answered == 0 {
            return Err(format!("the server answers nothing any more; wrk printed: {text}"));
        }
        seen.answered += answered;
        seen.failed += failed;
        closing = !closing;
    }
    Ok(seen)
}
