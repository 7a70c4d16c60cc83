//! What others feel, and what the server holds, while thousands of clients send their heads or bodies a few bytes at a
//! time, or read their answers so: slowhttptest against two shards, and a well-behaved client beside it.
//!
//! `cargo bench --bench slow [-- --quick | --connections N | --only NAME]`. Ends with failure when a well-behaved request
//! fails or takes too long, or the server holds more than a slow connection may cost.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints what it measured")]

use std::{
    process::{Command, ExitCode, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

mod common;

use common::{
    LOAD_CORE, Outcome,
    behaved::Behaved,
    large, load,
    metrics::Figures,
    probe::SMALL_FILE,
    process::{enter_own_network, kernel_tcp_bytes, pin_on_start, raise_descriptor_limit},
    quantile,
    servers::{self, Keys, Watched},
    table,
};

/// What a slow connection may add to the server's resident memory: a small buffer, and as much again.
const CONNECTION_BYTES_MAX: f64 = 8192.0;
/// Whoever behaves waits no longer than this.
const LATENCY_MAX: Duration = Duration::from_secs(1);
const SAMPLE_INTERVAL: Duration = Duration::from_millis(200);
const LARGE_BYTES: u64 = 4 << 20;

/// One kind of slowness, as slowhttptest is told.
struct Attack {
    name: &'static str,
    path: &'static str,
    arguments: &'static [&'static str],
}

const ATTACKS: [Attack; 3] = [
    // A header line of up to 24 bytes every two seconds, and never the last one.
    Attack { name: "headers", path: "/small.txt", arguments: &["-H", "-x", "24", "-i", "2"] },
    // Up to 10 of 8,192 announced bytes every two seconds.
    Attack { name: "bodies", path: "/small.txt", arguments: &["-B", "-s", "8192", "-x", "10", "-i", "2"] },
    // 32 bytes every two seconds of a file of 4 MB, through a window of 512 to 1,024 bytes.
    Attack {
        name: "readers",
        path: "/large.bin",
        arguments: &["-X", "-w", "512", "-y", "1024", "-n", "2", "-z", "32"],
    },
];

struct Options {
    connections: usize,
    seconds: u64,
    only: Option<String>,
}

impl Options {
    fn parse(arguments: &[String]) -> Outcome<Options> {
        let mut options = Options { connections: 5000, seconds: 30, only: None };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--quick" => options.seconds = 12,
                "--connections" => {
                    let count = arguments.next().and_then(|text| text.parse().ok());
                    let count = count.filter(|count| (1..=8000).contains(count));
                    options.connections = count.ok_or("--connections wants a number from 1 to 8000")?;
                }
                "--only" => options.only = Some(arguments.next().cloned().unwrap_or_default()),
                other => {
                    let known = "--quick, --connections N, --only headers|bodies|readers";
                    return Err(format!("unknown option {other}: {known} are known"));
                }
            }
        }
        Ok(options)
    }
}

fn main() -> ExitCode {
    common::run("slow", Options::parse, measure)
}

/// Measures and prints; whether every goal was met.
fn measure(options: &Options) -> Outcome<bool> {
    if !load::installed("slowhttptest") {
        return Err(format!("slowhttptest is missing: {}", load::install("slowhttptest")));
    }
    raise_descriptor_limit();
    enter_own_network()?;
    let folder = servers::disk_folder(None)?;
    let site = folder.path().join("site");
    large::make_site(&site, LARGE_BYTES)?;

    let (mut clients, mut held, mut missed) = (Vec::new(), Vec::new(), Vec::new());
    for attack in &ATTACKS {
        if options.only.as_ref().is_some_and(|only| only != attack.name) {
            continue;
        }
        let memory = "worker_connections: 8192, open_file_cache: 100, raise_nofile: true";
        let keys = Keys { shards: 2, memory, timeouts: "header: 20s", limits: "" };
        let server = Watched::start(&site, folder.path(), attack.name, &keys)?;
        let alone = watch_while(&server, || {
            thread::sleep(Duration::from_secs(2));
            Ok(())
        })?;
        clients.extend(rows(attack.name, "alone", &alone.clients));
        let before = server.process.resident_bytes();
        let attacked = watch_while(&server, || run(attack, server.port, options))?;
        clients.extend(rows(attack.name, "beside them", &attacked.clients));
        wait_for_leavers(server.admin_port)?;
        let after = server.process.resident_bytes();
        let slow = attacked.connections_max.saturating_sub(Behaved::KINDS.len() as u64);
        let growth = attacked.resident_max.saturating_sub(before) as f64 / slow.max(1) as f64;
        let megabytes = |bytes: u64| format!("{:.1}", bytes as f64 / 1e6);
        let figures = Figures::read(server.admin_port)?;
        held.push(vec![
            attack.name.to_owned(),
            slow.to_string(),
            megabytes(before),
            megabytes(attacked.resident_max),
            megabytes(after),
            format!("{growth:.0}"),
            megabytes(attacked.kernel_max),
            figures.sum("webserver_timeouts_total").to_string(),
            figures.sum("webserver_connections_shed_total").to_string(),
        ]);
        if slow < options.connections as u64 * 9 / 10 {
            missed.push(format!("{}: only {slow} connections were open at once", attack.name));
        }
        if growth > CONNECTION_BYTES_MAX {
            missed.push(format!("{}: {growth:.0} B of memory for each connection", attack.name));
        }
        for client in &attacked.clients {
            let longest = Duration::from_secs_f64(quantile(&client.latencies_us(), 1.0) / 1e6);
            if client.failures() > 0 || longest > LATENCY_MAX {
                let failures = client.failures();
                missed.push(format!("{}: {}: {failures} failures, {longest:?}", attack.name, client.name));
            }
        }
    }
    println!("A well-behaved client: latency of {} bytes, microseconds", SMALL_FILE.1.len());
    table::print(&["slow", "client", "requests", "failed", "p50", "p99", "max"], &clients);
    println!(
        "\nWhat the server held (MB), bytes for each slow connection at the peak, and what TCP held (MB)"
    );
    table::print(
        &["slow", "at once", "before", "peak", "after", "each", "kernel", "timed out", "shed"],
        &held,
    );
    missed.iter().for_each(|what| println!("missed: {what}"));
    Ok(missed.is_empty())
}

/// Lets slowhttptest do its worst for as long as it was told.
fn run(attack: &Attack, port: u16, options: &Options) -> Outcome<()> {
    let (connections, seconds) = (options.connections.to_string(), options.seconds.to_string());
    let url = format!("http://127.0.0.1:{port}{}", attack.path);
    let mut command = Command::new("slowhttptest");
    command.args(attack.arguments).args(["-c", &connections, "-r", "1000", "-l", &seconds, "-u", &url]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    pin_on_start(&mut command, LOAD_CORE);
    // It says how it ended in its status, which is nothing to go by: being cut by the server is one of the ways.
    command.status().map(drop).map_err(|error| format!("cannot run slowhttptest: {error}"))
}

/// What was seen while something went on.
struct Seen {
    clients: [Behaved; 2],
    resident_max: u64,
    kernel_max: u64,
    connections_max: u64,
}

/// Does `work`, with the well-behaved clients beside it and an eye on the server.
fn watch_while(server: &Watched, work: impl FnOnce() -> Outcome<()>) -> Outcome<Seen> {
    let ends = AtomicBool::new(false);
    let peak = Mutex::new((0, 0, 0));
    let (clients, ()) = thread::scope(|scope| {
        scope.spawn(|| {
            while !ends.load(Relaxed) {
                let connections = Figures::read(server.admin_port).map_or(0, |figures| figures.connections());
                if let Ok(mut peak) = peak.lock() {
                    peak.0 = peak.0.max(server.process.resident_bytes());
                    peak.1 = peak.1.max(connections);
                    peak.2 = peak.2.max(kernel_tcp_bytes());
                }
                thread::sleep(SAMPLE_INTERVAL);
            }
        });
        let seen = Behaved::beside(server.port, work);
        ends.store(true, Relaxed);
        seen
    })?;
    let (resident_max, connections_max, kernel_max) = peak.into_inner().unwrap_or_default();
    Ok(Seen { clients, resident_max, kernel_max, connections_max })
}

/// Waits until the slow clients are gone.
fn wait_for_leavers(admin_port: u16) -> Outcome<()> {
    let deadline = Instant::now() + Duration::from_secs(30);
    while Figures::read(admin_port)?.connections() > 0 {
        if Instant::now() > deadline {
            return Err("connections are left half a minute after the slow clients went".to_owned());
        }
        thread::sleep(SAMPLE_INTERVAL);
    }
    Ok(())
}

fn rows(attack: &str, when: &str, clients: &[Behaved; 2]) -> Vec<Vec<String>> {
    let row = |client: &Behaved| {
        let latencies = client.latencies_us();
        let figure = |share: f64| format!("{:.0}", quantile(&latencies, share));
        vec![
            attack.to_owned(),
            format!("{}, {when}", client.name),
            latencies.len().to_string(),
            client.failures().to_string(),
            figure(0.5),
            figure(0.99),
            figure(1.0),
        ]
    };
    clients.iter().map(row).collect()
}
