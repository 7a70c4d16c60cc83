//! The memory budget under attack: thousands of connections that are idle, read slowly, send their heads slowly or all at
//! once, against budgets of 32, 64 and 256 MB, with well-behaved clients beside them; nginx under the same.
//!
//! `cargo bench --bench stress [-- --quick | --budget MB ... | --only NAME ... | --no-nginx]`; docs/measuring.md says more.
//! Ends with failure when one of the checks below misses.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints what it measured")]

use std::{
    path::Path,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

mod attack;
mod common;
mod verdicts;
mod watch;

use attack::{Attack, Kind, Load, Tally};
use common::{
    Outcome,
    behaved::Behaved,
    large, load,
    probe::SMALL_FILE,
    process::{Process, enter_own_network, raise_descriptor_limit},
    servers::{self, Keys, Kind as ServerKind, Watched},
};
use watch::{Sample, Watch};

const LARGE_BYTES: u64 = 64 << 20;
/// Connections of a server before it is attacked, so that it is warm.
const WARMING_CONNECTIONS: usize = 64;
/// How long the well-behaved clients are alone before the attack.
const CALM: Duration = Duration::from_secs(2);
/// How long a server may take to be again what it was.
const RECOVERS_WITHIN: Duration = Duration::from_secs(15);
/// What resident memory may be then, of what it was before.
const RESIDENT_BACK: f64 = 1.2;
/// Deadlines beyond every attack: what bounds it is memory alone.
const TIMEOUTS: &str = "header: 120s, body: 120s, write: 120s, idle: 600s";
const NGINX_TIMEOUTS: &str = "client_header_timeout 120s; client_body_timeout 120s; send_timeout 120s;";

/// One attack.
pub struct Case {
    name: &'static str,
    count: usize,
    quick_count: usize,
    kinds: &'static [Kind],
    at_once: bool,
    /// It must take every budget to Critical.
    critical: bool,
    hold: Duration,
}

const CASES: [Case; 4] = [
    Case {
        name: "idle",
        count: 10_000,
        quick_count: 3000,
        kinds: &[Kind::Idle],
        at_once: false,
        critical: false,
        hold: Duration::from_secs(8),
    },
    Case {
        name: "readers",
        count: 2000,
        quick_count: 500,
        kinds: &[Kind::Reader],
        at_once: false,
        critical: false,
        hold: Duration::from_secs(15),
    },
    Case {
        name: "headers",
        count: 12_000,
        quick_count: 6000,
        kinds: &[Kind::Writer],
        at_once: false,
        critical: false,
        hold: Duration::from_secs(20),
    },
    // Heads that lie in buffers of 4, 16 and 64 KB: 336 MB, if all of them were let in.
    Case {
        name: "burst",
        count: 12_000,
        quick_count: 12_000,
        kinds: &[Kind::Head(2000), Kind::Head(10_000), Kind::Head(20_000)],
        at_once: true,
        critical: true,
        hold: Duration::from_secs(8),
    },
];

struct Options {
    budgets_mb: Vec<u64>,
    only: Vec<String>,
    quick: bool,
    nginx: bool,
}

impl Options {
    fn parse(arguments: &[String]) -> Outcome<Options> {
        let mut options = Options { budgets_mb: Vec::new(), only: Vec::new(), quick: false, nginx: true };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--quick" => options.quick = true,
                "--no-nginx" => options.nginx = false,
                "--budget" => {
                    let megabytes = arguments.next().and_then(|text| text.parse().ok());
                    let megabytes = megabytes.filter(|count| (1..=1 << 20).contains(count));
                    options.budgets_mb.push(megabytes.ok_or("--budget wants a number of MB from 1 on")?);
                }
                "--only" => {
                    let name = arguments.next().filter(|name| CASES.iter().any(|case| case.name == **name));
                    options.only.push(name.ok_or("--only wants idle, readers, headers or burst")?.clone());
                }
                other => {
                    let known = "--quick, --budget MB, --only idle|readers|headers|burst, --no-nginx";
                    return Err(format!("unknown option {other}: {known} are known"));
                }
            }
        }
        if options.budgets_mb.is_empty() {
            options.budgets_mb = vec![32, 64, 256];
        }
        Ok(options)
    }

    fn cases(&self) -> impl Iterator<Item = &'static Case> {
        let wanted = |case: &&Case| self.only.is_empty() || self.only.iter().any(|name| name == case.name);
        CASES.iter().filter(wanted)
    }
}

fn main() -> ExitCode {
    attack::generate().unwrap_or_else(|| common::run("stress", Options::parse, measure))
}

/// Measures and prints; whether every check was passed.
fn measure(options: &Options) -> Outcome<bool> {
    raise_descriptor_limit();
    enter_own_network()?;
    let folder = servers::disk_folder(None)?;
    let site = folder.path().join("site");
    large::make_site(&site, LARGE_BYTES)?;
    let mut passed = true;
    for megabytes in &options.budgets_mb {
        let title = format!("{megabytes} MB");
        let mut runs = Vec::new();
        for case in options.cases() {
            let name = format!("{megabytes}-{}", case.name);
            let memory = format!(
                "budget: {megabytes}MB, worker_connections: 8192, open_file_cache: 100, raise_nofile: true"
            );
            let server = Watched::start(
                &site,
                folder.path(),
                &name,
                &Keys { shards: 2, memory: &memory, timeouts: TIMEOUTS, limits: "" },
            )?;
            let target =
                Target { process: &server.process, port: server.port, admin_port: Some(server.admin_port) };
            let run = Run::of(case, options, &target);
            runs.push(run.map_err(|error| format!("{title}, {}: {error}", case.name))?);
        }
        verdicts::print_tables(&title, &runs);
        passed &= verdicts::judge(&title, megabytes << 20, &runs);
    }
    if options.nginx {
        match ServerKind::Nginx.available() {
            Ok(()) => verdicts::print_tables("nginx", &nginx_runs(options, &site, folder.path())?),
            Err(message) => println!("skipped nginx: {message}"),
        }
    }
    Ok(passed)
}

fn nginx_runs(options: &Options, site: &Path, folder: &Path) -> Outcome<Vec<Run>> {
    let run = |case: &'static Case| {
        let server = servers::start_nginx(2, NGINX_TIMEOUTS, site, folder)?;
        let target = Target { process: &server.process, port: server.port, admin_port: None };
        Run::of(case, options, &target).map_err(|error| format!("nginx, {}: {error}", case.name))
    };
    options.cases().map(run).collect()
}

/// What was seen of one server in one case.
pub struct Run {
    case: &'static Case,
    /// Connections that were open when all had come.
    held: u64,
    tally: Tally,
    clients: [Behaved; 2],
    samples: Vec<Sample>,
    /// When the attack began.
    begun: Instant,
    /// Resident memory of the warm server, and its peak.
    resident_before: u64,
    resident_max: u64,
    recovery: Recovery,
}

/// How a server was again what it had been, counted from the moment at which the attack's last connection had gone;
/// `None` is not within [`RECOVERS_WITHIN`].
struct Recovery {
    /// The level is Normal.
    normal: Option<Duration>,
    /// Resident memory is within a fifth of where it was.
    resident: Option<Duration>,
    /// Nobody is connected but the well-behaved.
    alone: Option<Duration>,
}

/// Whom a run is about.
struct Target<'a> {
    process: &'a Process,
    port: u16,
    /// Of a server of ours.
    admin_port: Option<u16>,
}

impl Run {
    fn of(case: &'static Case, options: &Options, target: &Target<'_>) -> Outcome<Run> {
        let Target { process, port, admin_port } = *target;
        warm_up(port)?;
        let watch = Watch::default();
        let (clients, run) = thread::scope(|scope| {
            scope.spawn(|| watch.run(process, admin_port));
            let seen = Behaved::beside(port, || {
                thread::sleep(CALM);
                let resident_before = process.resident_bytes();
                let begun = Instant::now();
                let (held, tally) = attack(case, options, port)?;
                let recovery = Recovery::of(&watch, resident_before);
                Ok((held, tally, begun, resident_before, recovery))
            });
            watch.end();
            seen
        })?;
        let (held, tally, begun, resident_before, recovery) = run;
        let samples = watch.into_samples();
        let sampled = samples.iter().map(|sample| sample.resident_bytes).max().unwrap_or(0);
        // The kernel keeps the peak of one process, and nginx is several.
        let known = admin_port.map_or(0, |_| watch::resident_peak_bytes(process));
        let resident_max = sampled.max(known);
        Ok(Run { case, held, tally, clients, samples, begun, resident_before, resident_max, recovery })
    }
}

/// Some connections that come and go, and a read of both files.
fn warm_up(port: u16) -> Outcome<()> {
    load::idle_connections(port, WARMING_CONNECTIONS, &format!("/{}", SMALL_FILE.0), SMALL_FILE.1)?;
    let large = load::fetch(port, "/large.bin")?;
    if large.len() as u64 == LARGE_BYTES {
        Ok(())
    } else {
        Err(format!("the large file came with {} bytes", large.len()))
    }
}

/// Lets the attack come, stay and go; how many connections were open at once, and what became of all.
fn attack(case: &Case, options: &Options, port: u16) -> Outcome<(u64, Tally)> {
    let count = if options.quick { case.quick_count } else { case.count };
    let mut attack = Attack::start(&Load { count, kinds: case.kinds, at_once: case.at_once }, port)?;
    let held = attack.await_held()?;
    thread::sleep(if options.quick { case.hold / 2 } else { case.hold });
    Ok((held, attack.end()?))
}

impl Recovery {
    fn of(watch: &Watch, resident_before: u64) -> Recovery {
        let ended = Instant::now();
        let mut recovery = Recovery { normal: None, resident: None, alone: None };
        while ended.elapsed() < RECOVERS_WITHIN {
            thread::sleep(Duration::from_millis(20));
            let Some(sample) = watch.last().filter(|sample| sample.asked >= ended) else { continue };
            let said = sample.said.unwrap_or_default();
            let own = Behaved::KINDS.len() as u64;
            let resident = sample.resident_bytes as f64 <= resident_before as f64 * RESIDENT_BACK;
            let now = ended.elapsed();
            note(&mut recovery.normal, said.level == 0, now);
            note(&mut recovery.alone, said.connections <= own, now);
            note(&mut recovery.resident, resident, now);
            if recovery.normal.is_some() && recovery.resident.is_some() && recovery.alone.is_some() {
                break;
            }
        }
        recovery
    }
}

/// Notes the first time at which something is so.
fn note(first: &mut Option<Duration>, so: bool, now: Duration) {
    if so && first.is_none() {
        *first = Some(now);
    }
}
