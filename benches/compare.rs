//! Ours beside nginx, h2o and the fixed-answer floor: the same files, one core for the server, the load on
//! another, requests per second of the server's CPU time and memory per idle connection, as medians of
//! interleaved rounds, held against the goals. Then pairs that differ in one thing: a handler in C beside
//! libmicrohttpd, the access log on beside off.
//!
//! `cargo bench --bench compare [-- --quick | --rounds N | --only NAME ...]`; docs/measuring.md says more.
//! Ends with failure when a goal is missed.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints what it measured")]

use std::{collections::HashMap, fs, path::Path, process::ExitCode};

mod common;

use common::{
    Outcome, load,
    process::raise_descriptor_limit,
    servers::{self, Kind, Server},
    table,
};

const IDLE_CONNECTIONS: usize = 10_000;
/// Bytes of process memory that an idle keep-alive connection may cost.
const IDLE_BYTES_GOAL: f64 = 200.0;
const IDLE: &str = "idle";

/// One row of the table: a file asked for over a number of connections.
struct Case {
    name: &'static str,
    bytes: usize,
    connections: usize,
    /// Each request closes its connection: what accepting costs.
    closing: bool,
    /// Smallest ratio to another server that was promised.
    goals: &'static [(Kind, f64)],
    /// A case of fewer connections: what is kept of it shall be no less than what nginx keeps.
    keeps_of: Option<&'static str>,
}

const CASES: [Case; 8] = [
    Case { name: "13B", bytes: 13, goals: &SMALL_GOALS, ..CASE },
    Case { name: "1KB", goals: &SMALL_GOALS, ..CASE },
    Case { name: "64KB", bytes: 65_536, goals: &[(Kind::Nginx, 1.0)], ..CASE },
    Case { name: "1MB", bytes: 1 << 20, goals: &[(Kind::Nginx, 1.0)], ..CASE },
    Case { name: "one", bytes: 13, connections: 1, goals: &[(Kind::Nginx, 0.9)], ..CASE },
    Case { name: "1024", connections: 1024, keeps_of: Some("1KB"), ..CASE },
    Case { name: "8000", connections: 8000, keeps_of: Some("1KB"), ..CASE },
    Case { name: "close", closing: true, goals: &[(Kind::Nginx, 1.2)], ..CASE },
];
const CASE: Case =
    Case { name: "", bytes: 1024, connections: 64, closing: false, goals: &[], keeps_of: None };
const SMALL_GOALS: [(Kind, f64); 3] = [(Kind::Nginx, 1.5), (Kind::H2o, 1.1), (Kind::Floor, 0.75)];

/// Two servers that do the same job over 64 connections, 1 KB an answer, and differ in one thing.
struct Pair {
    name: &'static str,
    ours: Kind,
    other: Kind,
    /// Smallest ratio of the two that was promised.
    goal: f64,
}

const PAIRS: [Pair; 3] = [
    Pair { name: "handler", ours: Kind::Handler, other: Kind::Microhttpd, goal: 2.0 },
    Pair { name: "log", ours: Kind::Combined, other: Kind::Ours, goal: 0.95 },
    Pair { name: "json", ours: Kind::Json, other: Kind::Ours, goal: 0.95 },
];

impl Case {
    fn path(&self) -> String {
        format!("/{}.txt", self.bytes)
    }

    /// The bytes of the file, which are also what the floor answers.
    fn body(&self) -> Vec<u8> {
        b"Hello, World!".iter().copied().cycle().take(self.bytes).collect()
    }

    /// The floor answers from one buffer, does not wait for room and closes no connection: large bodies and closing
    /// are not for it.
    fn is_for(&self, kind: Kind) -> bool {
        kind != Kind::Floor || (self.bytes <= 1024 && !self.closing)
    }

    /// As the table calls it.
    fn title(&self) -> String {
        let size = if self.bytes == 13 {
            "13B"
        } else if self.bytes == 1024 {
            "1KB"
        } else {
            self.name
        };
        format!("{size} x {}{}", self.connections, if self.closing { ", closing" } else { "" })
    }
}

/// What was measured, a figure a round; rounds of one case and all servers lie side by side.
type Figures = HashMap<(&'static str, &'static str), Vec<f64>>;

fn main() -> ExitCode {
    common::run("compare", Options::parse, measure)
}

struct Options {
    rounds: usize,
    seconds: u64,
    only: Vec<String>,
}

impl Options {
    fn parse(arguments: &[String]) -> Outcome<Options> {
        let mut options = Options { rounds: 3, seconds: 5, only: Vec::new() };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--quick" => options.seconds = 2,
                "--rounds" => {
                    let count =
                        arguments.next().and_then(|text| text.parse().ok()).filter(|count| *count > 0);
                    options.rounds = count.ok_or("--rounds wants a number from 1")?;
                }
                "--only" => options.only.push(arguments.next().cloned().unwrap_or_default()),
                other => {
                    return Err(format!(
                        "unknown option {other}: --quick, --rounds N, --only NAME are known"
                    ));
                }
            }
        }
        let known = |name: &String| cases().chain(kinds()).any(|known| known == name);
        match options.only.iter().find(|name| !known(name)) {
            None => Ok(options),
            Some(name) => {
                let names: Vec<&str> = cases().chain(kinds()).collect();
                Err(format!("--only {name:?}: it is one of {}", names.join(", ")))
            }
        }
    }

    /// Whether `name` is asked for: `--only` chooses cases by the names of cases and servers by theirs.
    fn wants(&self, name: &str, mut among: impl Iterator<Item = &'static str>) -> bool {
        let chosen = among.any(|one| self.only.iter().any(|only| only == one));
        !chosen || self.only.iter().any(|only| only == name)
    }
}

fn cases() -> impl Iterator<Item = &'static str> {
    CASES.iter().map(|case| case.name).chain([IDLE]).chain(PAIRS.iter().map(|pair| pair.name))
}

fn kinds() -> impl Iterator<Item = &'static str> {
    Kind::COLUMNS.iter().map(|kind| kind.name())
}

/// Measures and prints; whether every goal that could be judged was met.
fn measure(options: &Options) -> Outcome<bool> {
    if !load::installed("wrk") {
        return Err(format!("wrk is missing: {}", load::install("wrk")));
    }
    let mut wanted = Vec::new();
    for kind in Kind::COLUMNS.into_iter().filter(|kind| options.wants(kind.name(), kinds())) {
        match kind.available() {
            Ok(()) => wanted.push(kind),
            Err(message) => println!("skipped {}: {message}", kind.name()),
        }
    }
    let mut pairs = Vec::new();
    for pair in PAIRS.iter().filter(|pair| options.wants(pair.name, cases())) {
        match pair.other.available() {
            Ok(()) => pairs.push(pair),
            Err(message) => println!("skipped {}: {message}", pair.name),
        }
    }
    raise_descriptor_limit();
    let folder = servers::disk_folder(None)?;
    let site = folder.path().join("site");
    let failed = |error| format!("cannot write the files to serve: {error}");
    fs::create_dir(&site).map_err(failed)?;
    for case in &CASES {
        fs::write(site.join(&case.path()[1..]), case.body()).map_err(failed)?;
    }

    let mut figures = Figures::new();
    for round in 0..options.rounds {
        // Each round another server goes first: what warms or slows the machine meets all of them.
        let turn = round % wanted.len().max(1);
        let order: Vec<Kind> = wanted[turn..].iter().chain(&wanted[..turn]).copied().collect();
        for case in CASES.iter().filter(|case| options.wants(case.name, cases())) {
            for kind in order.iter().copied().filter(|kind| case.is_for(*kind)) {
                let figure = throughput(kind, case, case.name, &site, folder.path(), options, round)?;
                figures.entry((case.name, kind.name())).or_default().push(figure);
            }
        }
        for pair in &pairs {
            let order = if round % 2 == 0 { [pair.ours, pair.other] } else { [pair.other, pair.ours] };
            for kind in order {
                let case = Case { ..CASE };
                let figure = throughput(kind, &case, pair.name, &site, folder.path(), options, round)?;
                figures.entry((pair.name, kind.name())).or_default().push(figure);
            }
        }
        if options.wants(IDLE, cases()) {
            for kind in order.iter().copied().filter(|kind| *kind != Kind::Floor) {
                let bytes = idle_bytes(&start(kind, &CASES[0], &site, folder.path())?, &CASES[0])
                    .map_err(|error| format!("{}, {IDLE}: {error}", kind.name()))?;
                println!("round {}: {IDLE} {:<5} {bytes:>9.0} B a connection", round + 1, kind.name());
                figures.entry((IDLE, kind.name())).or_default().push(bytes);
            }
        }
    }
    Ok(report(&figures, options))
}

/// Requests per CPU-second of one server in one case, which is also printed.
fn throughput(
    kind: Kind,
    case: &Case,
    name: &str,
    site: &Path,
    folder: &Path,
    options: &Options,
    round: usize,
) -> Outcome<f64> {
    let server = start(kind, case, site, folder)?;
    let load = load::Request { path: &case.path(), connections: case.connections, closing: case.closing };
    // Connecting is part of the load; the more connections, the longer it takes until that does not show.
    let seconds = if case.connections < 1000 { options.seconds } else { 3 * options.seconds };
    let load = load::wrk(&server.process, server.port, &load, seconds)
        .map_err(|error| format!("{}, {name}: {error}", kind.name()))?;
    println!(
        "round {}: {name:>7} {:<10} {:>9} req/CPU-s {:>9} req/s",
        round + 1,
        kind.name(),
        table::rate(load.per_cpu_second),
        table::rate(load.per_second)
    );
    Ok(load.per_cpu_second)
}

/// Starts a server and sees that it answers what is to be measured.
fn start(kind: Kind, case: &Case, site: &Path, folder: &Path) -> Outcome<Server> {
    let server = servers::start(kind, site, folder, case.bytes)?;
    // Twice: the second answer may come from a cache that the first one filled.
    for _ in 0..2 {
        let got =
            load::fetch(server.port, &case.path()).map_err(|error| format!("{}: {error}", kind.name()))?;
        if got != case.body() {
            return Err(format!("{} answers {} with {} wrong bytes", kind.name(), case.path(), got.len()));
        }
    }
    Ok(server)
}

/// Memory that a warm server grows by per connection that has been answered once and is open.
fn idle_bytes(server: &Server, case: &Case) -> Outcome<f64> {
    drop(load::idle_connections(server.port, 64, &case.path(), &case.body())?);
    let before = server.process.resident_bytes();
    let clients = load::idle_connections(server.port, IDLE_CONNECTIONS, &case.path(), &case.body())?;
    let after = server.process.resident_bytes();
    if before == 0 || after == 0 {
        return Err("its memory cannot be read".to_owned());
    }
    Ok(after.saturating_sub(before) as f64 / clients.len() as f64)
}

/// Prints the table and the goals that were missed; true when there are none.
fn report(figures: &Figures, options: &Options) -> bool {
    println!("\nRequests per server CPU-second, and ratios: medians of {} rounds", options.rounds);
    let of = |case: &str, kind: Kind| {
        figures.iter().find(|(key, _)| **key == (case, kind.name())).map(|(_, all)| all)
    };
    let mut missed = Vec::new();
    let mut rows = Vec::new();
    for case in CASES.iter().filter(|case| options.wants(case.name, cases())) {
        let mut row = vec![case.title()];
        for kind in Kind::COLUMNS {
            row.push(of(case.name, kind).map_or("-".to_owned(), |all| table::rate(common::median(all))));
        }
        for kind in [Kind::Nginx, Kind::H2o, Kind::Floor] {
            let goal = case.goals.iter().find(|goal| goal.0 == kind).map(|goal| goal.1);
            let ratio =
                of(case.name, Kind::Ours).zip(of(case.name, kind)).map(|(ours, theirs)| ratio(ours, theirs));
            row.push(match (ratio, goal) {
                (None, _) => "-".to_owned(),
                (Some(ratio), None) => format!("{ratio:.2}     "),
                (Some(ratio), Some(goal)) => {
                    if ratio < goal {
                        missed.push(format!("{}: {ratio:.2} x {}, goal {goal:.2}", row[0], kind.name()));
                    }
                    format!("{ratio:.2} {}{goal:.2}", if ratio < goal { '<' } else { '≥' })
                }
            });
        }
        rows.push(row);
    }
    if options.wants(IDLE, cases()) {
        let mut row = vec!["idle, B each".to_owned()];
        for kind in Kind::COLUMNS {
            row.push(of(IDLE, kind).map_or("-".to_owned(), |all| format!("{:.0}", common::median(all))));
        }
        if let Some(ours) = of(IDLE, Kind::Ours).map(|all| common::median(all))
            && ours > IDLE_BYTES_GOAL
        {
            missed.push(format!("idle: {ours:.0} B a connection, goal {IDLE_BYTES_GOAL:.0}"));
        }
        rows.push(row);
    }
    table::print(&["case", "ours", "nginx", "h2o", "floor", "of nginx", "of h2o", "of floor"], &rows);
    let mut rows = Vec::new();
    for case in &CASES {
        let Some(base) = case.keeps_of else { continue };
        let kept = |kind| Some(ratio(of(case.name, kind)?, of(base, kind)?));
        let (Some(ours), Some(nginx)) = (kept(Kind::Ours), kept(Kind::Nginx)) else { continue };
        judge(
            &mut rows,
            &mut missed,
            format!("{} keeps of x 64", case.title()),
            [ours, nginx],
            ours / nginx,
            1.0,
        );
    }
    for pair in &PAIRS {
        let (Some(ours), Some(other)) = (of(pair.name, pair.ours), of(pair.name, pair.other)) else {
            continue;
        };
        let title = format!("{} beside {}", pair.ours.name(), pair.other.name());
        let medians = [ours, other].map(|all| common::median(all));
        judge(&mut rows, &mut missed, title, medians, ratio(ours, other), pair.goal);
    }
    if !rows.is_empty() {
        println!();
        table::print(&["1 KB", "ours", "other", "ratio"], &rows);
    }
    missed.iter().for_each(|goal| println!("goal missed: {goal}"));
    missed.is_empty()
}

/// Adds the row of two figures whose ratio has a goal.
fn judge(
    rows: &mut Vec<Vec<String>>,
    missed: &mut Vec<String>,
    title: String,
    figures: [f64; 2],
    ratio: f64,
    goal: f64,
) {
    let met = ratio >= goal;
    if !met {
        missed.push(format!("{title}: {ratio:.2}, goal {goal:.2}"));
    }
    let [ours, other] =
        figures.map(|figure| if figure < 10.0 { format!("{figure:.2}") } else { table::rate(figure) });
    rows.push(vec![title, ours, other, format!("{ratio:.2} {}{goal:.2}", if met { '≥' } else { '<' })]);
}

/// The median of the rounds' ratios: what slows one round slows both of its sides.
fn ratio(ours: &[f64], theirs: &[f64]) -> f64 {
    let ratios: Vec<f64> = ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect();
    common::median(&ratios)
}
