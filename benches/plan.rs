//! What `webserver plan` predicts beside what comes: the server is driven into one state after the other, and what it
//! accounts for and what it grew by are compared with the sum of the plan's terms for that state.
//!
//! `cargo bench --bench plan [-- --only NAME ...]`. Ends with failure when a prediction is off by more than 10 % of the
//! accounted bytes or 20 % of the grown resident memory.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints what it measured")]

use std::{
    fs,
    path::Path,
    process::{Command, ExitCode},
    thread,
    time::Duration,
};

use serde::Deserialize;

mod attack;
mod common;

use attack::{Attack, Kind, Load};
use common::{
    Outcome,
    load::{self, Client},
    metrics::Figures,
    probe::SMALL_FILE,
    process::{enter_own_network, raise_descriptor_limit},
    servers::{self, Keys, Watched},
    table,
};

/// How far a prediction may be off, of what is accounted for and of what resident memory grew by.
const ACCOUNTED_OFF_MAX: f64 = 0.10;
const RESIDENT_OFF_MAX: f64 = 0.20;
/// Resident memory that no prediction is held against: pages that are partly used, and what the allocator keeps.
const RESIDENT_BYTES_FREE: f64 = 256.0 * 1024.0;
/// Connections of a server before anything is measured.
const WARMING_CONNECTIONS: usize = 64;
/// Between the last connection or file of a state and the look at it.
const SETTLES: Duration = Duration::from_secs(1);
const FILES: usize = 1000;
const HOT_BYTES: usize = 4000;
/// Too large to be kept in memory or mapped.
const OPEN_BYTES: usize = 40_000;

/// What a server is driven into, and what the plan says of it.
struct State {
    name: &'static str,
    does: Does,
    /// Names of the plan's terms; each counts as often as the state has connections or files.
    terms: &'static [&'static str],
    /// Bytes of content for each, where the plan's term is a number of bytes.
    content_bytes: usize,
}

#[derive(Clone, Copy)]
enum Does {
    Nothing,
    Connections(usize, Kind),
    /// Asks for each of the files in a folder so many times.
    Files(&'static str, usize),
}

/// Of every connection, idle or not. It is accounted for before there is one, and is resident from the first on.
const SLOTS: &str = "connection slots";
const SMALL_HEADS: &[&str] = &["requests", "small buffers"];
const FILE_ENTRIES: &[&str] = &["files and notes"];

const fn state(name: &'static str, does: Does, terms: &'static [&'static str]) -> State {
    State { name, does, terms, content_bytes: 0 }
}

/// Heads fill the pages of their buffers: what the plan has whole and the kernel only as far as it was written is no
/// difference worth telling.
const STATES: [State; 8] = [
    state("nothing", Does::Nothing, &[]),
    state("1,000 idle", Does::Connections(1000, Kind::Idle), &[]),
    state("8,000 idle", Does::Connections(8000, Kind::Idle), &[]),
    state("2,000 heads of 1 KB", Does::Connections(2000, Kind::Head(1000)), SMALL_HEADS),
    state("8,000 heads of 1 KB", Does::Connections(8000, Kind::Head(1000)), SMALL_HEADS),
    state("1,000 heads of 15 KB", Does::Connections(1000, Kind::Head(15_000)), &["requests", "heads"]),
    State { content_bytes: HOT_BYTES, ..state("1,000 hot files", Does::Files("hot", 3), FILE_ENTRIES) },
    state("1,000 open files", Does::Files("open", 1), FILE_ENTRIES),
];

/// What `webserver plan --json` says, as far as it is needed here.
#[derive(Deserialize)]
struct Plan {
    terms: Vec<Term>,
}

#[derive(Deserialize)]
struct Term {
    name: String,
    unit_bytes: u64,
    bytes: u64,
    when: String,
}

struct Options {
    only: Vec<String>,
}

impl Options {
    fn parse(arguments: &[String]) -> Outcome<Options> {
        let mut options = Options { only: Vec::new() };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--only" => options.only.push(arguments.next().cloned().unwrap_or_default()),
                other => return Err(format!("unknown option {other}: --only NAME is known")),
            }
        }
        Ok(options)
    }
}

fn main() -> ExitCode {
    attack::generate().unwrap_or_else(|| common::run("plan", Options::parse, measure))
}

/// Measures and prints; whether every prediction came true.
fn measure(options: &Options) -> Outcome<bool> {
    raise_descriptor_limit();
    enter_own_network()?;
    let folder = servers::disk_folder(None)?;
    let site = folder.path().join("site");
    make_site(&site).map_err(|error| format!("cannot write the site: {error}"))?;
    let (mut rows, mut missed) = (Vec::new(), Vec::new());
    let wanted =
        |state: &&State| options.only.is_empty() || options.only.iter().any(|name| name == state.name);
    for state in STATES.iter().filter(wanted) {
        let seen =
            Seen::of(state, &site, folder.path()).map_err(|error| format!("{}: {error}", state.name))?;
        let accounted_off = seen.accounted as f64 / seen.accounted_planned as f64 - 1.0;
        let resident_off = seen.grown - seen.grown_planned;
        let resident_off_max = (seen.grown * RESIDENT_OFF_MAX).max(RESIDENT_BYTES_FREE);
        let accounted_met = accounted_off.abs() <= ACCOUNTED_OFF_MAX;
        let resident_met = resident_off.abs() <= resident_off_max;
        if !accounted_met {
            missed.push(format!(
                "{}: accounted bytes are {:+.0} % of the plan",
                state.name,
                accounted_off * 100.0
            ));
        }
        if !resident_met {
            missed.push(format!(
                "{}: resident memory grew by {:.0} B, not {:.0}",
                state.name, seen.grown, seen.grown_planned
            ));
        }
        let verdict = |met| if met { "ok" } else { "MISS" }.to_owned();
        rows.push(vec![
            state.name.to_owned(),
            kilobytes(seen.accounted_planned as f64),
            kilobytes(seen.accounted as f64),
            format!("{:+.1} %", accounted_off * 100.0),
            verdict(accounted_met),
            kilobytes(seen.grown_planned),
            kilobytes(seen.grown),
            verdict(resident_met),
        ]);
    }
    println!(
        "What is planned for each state, and what came; KB. Grown: more resident than with nothing to do"
    );
    table::print(
        &["state", "planned", "accounted", "off", "", "planned growth", "resident grown", ""],
        &rows,
    );
    missed.iter().for_each(|what| println!("missed: {what}"));
    Ok(missed.is_empty() && !rows.is_empty())
}

/// What a state was planned to be, and was.
struct Seen {
    accounted_planned: u64,
    accounted: u64,
    /// By how much resident memory grew from an idle, warm server.
    grown_planned: f64,
    grown: f64,
}

impl Seen {
    fn of(state: &State, site: &Path, folder: &Path) -> Outcome<Seen> {
        let name = state.name.replace([' ', ','], "-");
        let keys = Keys {
            shards: 1,
            memory: "budget: 256MB, worker_connections: 8192, open_file_cache: 1200, response_cache: 32MB, \
                     raise_nofile: true",
            timeouts: "header: 120s, idle: 600s",
            // The tier that a head may need.
            limits: "header_bytes: 16KB",
        };
        let server = Watched::start(site, folder, &name, &keys)?;
        let plan = Plan::of(&server.configuration)?;
        load::idle_connections(
            server.port,
            WARMING_CONNECTIONS,
            &format!("/{}", SMALL_FILE.0),
            SMALL_FILE.1,
        )?;
        thread::sleep(SETTLES);
        let resident_before = server.process.resident_bytes();
        let mut seen =
            Seen { accounted_planned: plan.always(), accounted: 0, grown_planned: 0.0, grown: 0.0 };
        let mut look = |count: usize| -> Outcome<()> {
            thread::sleep(SETTLES);
            let more = (plan.unit_bytes(state.terms)? + state.content_bytes as u64) * count as u64;
            let slots = match state.does {
                Does::Connections(count, _) => plan.unit_bytes(&[SLOTS])? * count as u64,
                _ => 0,
            };
            seen.accounted_planned += more;
            seen.grown_planned = (more + slots) as f64;
            seen.accounted = Figures::read(server.admin_port)?.sum("webserver_memory_used_bytes");
            seen.grown = server.process.resident_bytes() as f64 - resident_before as f64;
            Ok(())
        };
        match state.does {
            Does::Nothing => look(0)?,
            Does::Connections(count, kind) => {
                let mut attack = Attack::start(&Load { count, kinds: &[kind], at_once: false }, server.port)?;
                let held = attack.await_held()?;
                if held != count as u64 {
                    return Err(format!("only {held} of {count} connections are open"));
                }
                look(count)?;
                attack.end()?;
            }
            Does::Files(folder, times) => {
                let mut client = Client::connect(server.port)?;
                for _ in 0..times {
                    for index in 0..FILES {
                        client.ask(&format!("/{folder}/{index}"))?;
                        client.receive()?;
                    }
                }
                look(FILES)?;
            }
        }
        Ok(seen)
    }
}

impl Plan {
    fn of(configuration: &Path) -> Outcome<Plan> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_webserver"));
        command.arg("plan").arg("-c").arg(configuration).arg("--json");
        let output = command.output().map_err(|error| format!("cannot ask for the plan: {error}"))?;
        if !output.status.success() {
            return Err(format!("no plan: {}", String::from_utf8_lossy(&output.stderr)));
        }
        // JSON is YAML.
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        serde_saphyr::from_str(&text).map_err(|error| format!("the plan cannot be read: {error}"))
    }

    /// What a server holds that has nothing to do.
    fn always(&self) -> u64 {
        self.terms.iter().filter(|term| term.when.starts_with("always")).map(|term| term.bytes).sum()
    }

    /// What one of something holds, by the terms of these names.
    fn unit_bytes(&self, names: &[&str]) -> Outcome<u64> {
        let unit = |name: &&str| {
            let term = self.terms.iter().find(|term| term.name == *name);
            term.map(|term| term.unit_bytes).ok_or_else(|| format!("the plan has no term {name:?}"))
        };
        names.iter().map(unit).sum()
    }
}

fn make_site(site: &Path) -> std::io::Result<()> {
    fs::create_dir(site)?;
    fs::write(site.join(SMALL_FILE.0), SMALL_FILE.1)?;
    for (folder, bytes) in [("hot", HOT_BYTES), ("open", OPEN_BYTES)] {
        let folder = site.join(folder);
        fs::create_dir(&folder)?;
        let content = vec![b'x'; bytes];
        (0..FILES).try_for_each(|index| fs::write(folder.join(index.to_string()), &content))?;
    }
    Ok(())
}

fn kilobytes(bytes: f64) -> String {
    format!("{:.0}", bytes / 1024.0)
}
