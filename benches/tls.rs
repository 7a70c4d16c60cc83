//! HTTPS beside nginx and h2o: what an idle connection holds, what handshakes, requests and downloads cost a server, whether
//! sessions are resumed on any shard, and what a flood of handshakes does to others.
//!
//! `cargo bench --bench tls [-- ROW ... | --quick | --rounds N | --connections N | --only SERVER ...]`; docs/measuring.md
//! says more. Says which goals were missed, and fails only when a server answers wrongly.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints what it measured")]

use std::{process::ExitCode, time::Duration};

mod common;
mod https;

use common::{
    LOAD_CORE, Outcome, median,
    process::{pin_thread, raise_descriptor_limit},
    servers::Kind,
    table,
};
use https::{
    File, Site, flood,
    idle::{self, Held},
    rates::{self, Case, Goal},
    resumption,
};

const ROWS: [&str; 6] = ["idle", "handshakes", "requests", "bulk", "resumption", "flood"];
const SERVERS: [Kind; 3] = [Kind::Ours, Kind::Nginx, Kind::H2o];

struct Options {
    rows: Vec<String>,
    only: Vec<String>,
    rounds: usize,
    connections: usize,
    lasts: Duration,
}

impl Options {
    fn parse(arguments: &[String]) -> Outcome<Options> {
        let mut options = Options {
            rows: Vec::new(),
            only: Vec::new(),
            rounds: 3,
            connections: 2000,
            lasts: Duration::from_secs(4),
        };
        let mut arguments = arguments.iter();
        let number = |text: Option<&String>, name: &str| {
            let count = text.and_then(|text| text.parse().ok()).filter(|count| *count > 0);
            count.ok_or_else(|| format!("{name} wants a number from 1"))
        };
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                row if ROWS.contains(&row) => options.rows.push(argument.clone()),
                "--quick" => (options.rounds, options.lasts) = (1, Duration::from_secs(1)),
                "--rounds" => options.rounds = number(arguments.next(), argument)?,
                "--connections" => options.connections = number(arguments.next(), argument)?,
                "--only" => {
                    let known = |name: &&String| SERVERS.iter().any(|kind| kind.name() == **name);
                    let name = arguments.next().filter(known);
                    options.only.push(name.ok_or("--only wants ours, nginx or h2o")?.clone());
                }
                other => {
                    return Err(format!(
                        "unknown option {other}: {}, --quick, --rounds N, --connections N and --only SERVER are \
                         known",
                        ROWS.join(", ")
                    ));
                }
            }
        }
        Ok(options)
    }

    fn wants(&self, row: &str) -> bool {
        self.rows.is_empty() || self.rows.iter().any(|wanted| wanted == row)
    }

    /// The servers that are asked for and installed.
    fn servers(&self) -> Vec<Kind> {
        let mut servers = Vec::new();
        for kind in SERVERS {
            if !self.only.is_empty() && !self.only.iter().any(|name| name == kind.name()) {
                continue;
            }
            match kind.available() {
                Ok(()) => servers.push(kind),
                Err(message) => println!("skipped {}: {message}", kind.name()),
            }
        }
        servers
    }
}

fn main() -> ExitCode {
    common::run("tls", Options::parse, measure)
}

/// A table of the report: its head and its rows.
type Table = (Vec<&'static str>, Vec<Vec<String>>);

fn measure(options: &Options) -> Outcome<bool> {
    raise_descriptor_limit();
    pin_thread(LOAD_CORE);
    let servers = options.servers();
    let site = Site::make(&[File::SMALL, File::LARGE, File::HUGE])?;
    let (mut tables, mut missed) = (Vec::new(), Vec::new());
    if options.wants("idle") {
        tables.push(idle_table(&site, &servers, options, &mut missed)?);
    }
    let rates =
        [("handshakes", &rates::HANDSHAKES[..]), ("requests", &rates::REQUESTS), ("bulk", &rates::BULK)];
    let cases: Vec<&Case> =
        rates.iter().filter(|(row, _)| options.wants(row)).flat_map(|(_, cases)| *cases).collect();
    if !cases.is_empty() {
        tables.push(rates_table(&site, &servers, &cases, options, &mut missed)?);
    }
    if options.wants("resumption") && servers.contains(&Kind::Ours) {
        missed.extend(resumption::measure(&site)?);
    }
    if options.wants("flood") {
        let rows = servers.iter().map(|kind| flood::measure(&site, *kind, options.lasts));
        let rows: Vec<Vec<String>> = rows.collect::<Outcome<Vec<_>>>()?.concat();
        tables.push((vec!["one connection", "flood/s", "req/s", "p50 us", "p99 us", "max us"], rows));
    }
    for (head, rows) in &tables {
        println!();
        table::print(head, rows);
    }
    println!();
    missed.iter().for_each(|goal| println!("goal missed: {goal}"));
    if missed.is_empty() {
        println!("every goal that could be judged was met");
    }
    Ok(true)
}

fn idle_table(site: &Site, servers: &[Kind], options: &Options, missed: &mut Vec<String>) -> Outcome<Table> {
    let mut rows = Vec::new();
    for case in idle::CASES {
        let measured = servers.iter().map(|kind| {
            let held = idle::measure(site, *kind, case, options.connections)?;
            Ok((*kind, held))
        });
        let measured: Vec<(Kind, Held)> = measured.collect::<Outcome<_>>()?;
        let of = |kind: Kind| measured.iter().find(|(of, _)| *of == kind).map(|(_, held)| held);
        let mut row = vec![case.0.to_owned()];
        row.extend(SERVERS.map(|kind| of(kind).map_or("-".to_owned(), |held| format!("{:.0}", held.each))));
        row.push(of(Kind::Ours).map_or("-".to_owned(), |held| {
            let met = held.each <= idle::GOAL_BYTES;
            if !met {
                missed.push(format!("idle, {}: {:.0} B, goal {:.0}", case.0, held.each, idle::GOAL_BYTES));
            }
            format!("{}{:.0}", if met { '≤' } else { '>' }, idle::GOAL_BYTES)
        }));
        row.extend(
            SERVERS.map(|kind| {
                of(kind).map_or("-".to_owned(), |held| format!("{:.1}", held.before as f64 / 1e6))
            }),
        );
        rows.push(row);
    }
    let head =
        vec!["idle, B a connection", "ours", "nginx", "h2o", "goal", "ours before, MB", "nginx", "h2o"];
    Ok((head, rows))
}

/// The figures of one case, a round each, for each server; `None` where it did not do what is counted.
type Figures = Vec<(Kind, Vec<Option<f64>>)>;

fn rates_table(
    site: &Site,
    servers: &[Kind],
    cases: &[&Case],
    options: &Options,
    missed: &mut Vec<String>,
) -> Outcome<Table> {
    let mut figures: Vec<Figures> =
        cases.iter().map(|_| servers.iter().map(|kind| (*kind, Vec::new())).collect()).collect();
    for round in 0..options.rounds {
        for (case, figures) in cases.iter().zip(&mut figures) {
            // Each round another server goes first: what warms or slows the machine meets all of them.
            for turn in 0..servers.len() {
                let (kind, figures) = &mut figures[(round + turn) % servers.len()];
                figures.push(rates::measure(site, *kind, case, options.lasts)?);
            }
        }
    }
    let rows = cases.iter().zip(&figures).map(|(case, figures)| rates_row(case, figures, missed)).collect();
    Ok((vec!["a server CPU-second", "ours", "nginx", "h2o", "of nginx", "of h2o", "goal"], rows))
}

fn rates_row(case: &Case, figures: &Figures, missed: &mut Vec<String>) -> Vec<String> {
    let of = |kind: Kind| -> Option<Vec<f64>> {
        let (_, rounds) = figures.iter().find(|(of, _)| *of == kind)?;
        rounds.iter().copied().collect()
    };
    // The median of the rounds' ratios: what slows one round slows both of its sides.
    let ratio = |other: Kind| {
        let ratios: Vec<f64> =
            of(Kind::Ours)?.iter().zip(of(other)?).map(|(ours, theirs)| ours / theirs).collect();
        Some(median(&ratios))
    };
    let mut row = vec![case.title.to_owned()];
    row.extend(SERVERS.map(|kind| of(kind).map_or("-".to_owned(), |all| table::rate(median(&all)))));
    let (nginx, h2o) = (ratio(Kind::Nginx), ratio(Kind::H2o));
    row.extend([nginx, h2o].map(|ratio| ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}"))));
    let (worst, goal) = match case.goal {
        Goal::OfBetter(goal) => ([nginx, h2o].into_iter().flatten().reduce(f64::min), goal),
        Goal::OfNginx(goal) => (nginx, goal),
        Goal::Known => (None, 0.0),
    };
    row.push(worst.map_or("-".to_owned(), |ratio| {
        if ratio < goal {
            missed.push(format!("{}: {ratio:.2}, goal {goal:.2}", case.title));
        }
        format!("{ratio:.2} {}{goal:.2}", if ratio < goal { '<' } else { '≥' })
    }));
    row
}
