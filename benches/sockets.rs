//! How a shard should wait for its sockets: requests per CPU-second of prototypes that differ in nothing else,
//! beside the same answer from C (`floor.c`), and what waiting so costs timers and disk reads.
//!
//! `cargo bench --bench sockets [-- --quick | --rounds N]`. The prototypes are this program started again.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints what it measured")]

use std::{fs, path::Path, process::Command, process::ExitCode};

mod common;
mod prototypes;

use common::{
    Outcome, SERVER_CORE, load,
    process::{Process, raise_descriptor_limit},
    servers, table,
};
use prototypes::Way;

const IDLE_CONNECTIONS: usize = 10_000;
const PROBE_FILE_BYTES: usize = 64 << 20;

/// One row of the table.
struct Contender {
    name: &'static str,
    /// `None` is the floor.
    way: Option<Way>,
}

const CONTENDERS: [Contender; 4] = [
    Contender { name: "streams: a glommio task and TcpStream each", way: Some(Way::Streams) },
    Contender { name: "nested: epoll set, parks in the reactor", way: Some(Way::Nested) },
    Contender { name: "blocking: epoll set, blocks when alone", way: Some(Way::Blocking) },
    Contender { name: "floor: C, epoll, nothing parsed", way: None },
];

/// What was measured of a contender, a figure a round.
#[derive(Default)]
struct Figures {
    many: Vec<f64>,
    one: Vec<f64>,
}

fn main() -> ExitCode {
    let serve: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, way, rest @ ..] = serve.as_slice()
        && flag == "--serve"
    {
        return serve_prototype(way, rest.first());
    }
    let Some(arguments) = common::arguments() else { return ExitCode::SUCCESS };
    match Options::parse(&arguments).and_then(|options| measure(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("sockets: {message}");
            ExitCode::FAILURE
        }
    }
}

struct Options {
    rounds: usize,
    seconds: u64,
}

impl Options {
    fn parse(arguments: &[String]) -> Outcome<Options> {
        let mut options = Options { rounds: 3, seconds: 5 };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--quick" => (options.rounds, options.seconds) = (1, 2),
                "--rounds" => {
                    let count = arguments.next().and_then(|text| text.parse().ok());
                    options.rounds = count.ok_or("--rounds wants a number")?;
                }
                other => return Err(format!("unknown option {other}: --quick and --rounds N are known")),
            }
        }
        Ok(options)
    }
}

fn serve_prototype(way: &str, probe: Option<&String>) -> ExitCode {
    raise_descriptor_limit();
    let way = match way {
        "streams" => Way::Streams,
        "nested" => Way::Nested,
        _ => Way::Blocking,
    };
    match prototypes::serve(way, probe.map(Into::into)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("prototype: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(options: &Options) -> Outcome<()> {
    if !load::installed("wrk") {
        return Err(format!("wrk is missing: {}", load::install("wrk")));
    }
    raise_descriptor_limit();
    let folder = servers::disk_folder(None)?;
    let floor = servers::compile("floor", &[], folder.path())?;
    let start = |way: Option<Way>, probe: Option<&Path>| start(way, probe, &floor, folder.path());

    let mut figures: [Figures; CONTENDERS.len()] = Default::default();
    for round in 1..=options.rounds {
        for (contender, figures) in CONTENDERS.iter().zip(&mut figures) {
            let (server, port) = start(contender.way, None)?;
            let many = load::wrk(
                &server,
                port,
                &load::Request { path: "/", connections: 64, closing: false },
                options.seconds,
            )?;
            let one = load::wrk(
                &server,
                port,
                &load::Request { path: "/", connections: 1, closing: false },
                options.seconds,
            )?;
            println!(
                "round {round}: {}: {:.0} req/s at 64 connections, {:.0} at 1",
                contender.name, many.per_second, one.per_second
            );
            figures.many.push(many.per_cpu_second);
            figures.one.push(one.per_cpu_second);
        }
    }

    let floors = (common::median(&figures[3].many), common::median(&figures[3].one));
    let mut rows = Vec::new();
    for (contender, figures) in CONTENDERS.iter().zip(&figures) {
        let (many, one) = (common::median(&figures.many), common::median(&figures.one));
        let (server, port) = start(contender.way, None)?;
        rows.push(vec![
            contender.name.to_owned(),
            table::rate(many),
            format!("{:.2}", many / floors.0),
            table::rate(one),
            format!("{:.2}", one / floors.1),
            format!("{:.0}", idle_bytes(&server, port)?),
        ]);
    }
    println!(
        "\nRequests per server CPU-second, medians of {} rounds; bytes grown per idle connection",
        options.rounds
    );
    let head = ["server", "64 connections", "of floor", "1 connection", "of floor", "idle B"];
    table::print(&head, &rows);

    let file = folder.path().join("probe");
    fs::write(&file, vec![b'x'; PROBE_FILE_BYTES])
        .map_err(|error| format!("cannot write a file: {error}"))?;
    let mut rows = Vec::new();
    for contender in &CONTENDERS[..3] {
        let (server, port) = start(contender.way, Some(&file))?;
        load::fetch(port, "/probe")?;
        let load = load::wrk(
            &server,
            port,
            &load::Request { path: "/", connections: 64, closing: false },
            options.seconds,
        )?;
        let report = load::fetch(port, "/probe")?;
        let report = String::from_utf8_lossy(&report).into_owned();
        let mut row = vec![contender.name.to_owned(), table::rate(load.per_cpu_second)];
        row.extend(report.split_whitespace().map(str::to_owned));
        rows.push(row);
    }
    println!("\nWith 4 KB direct reads and 1 ms timers beside 64 connections at full load, microseconds");
    let head = ["server", "req/CPU-s", "read p50", "p99", "max", "1 ms timer p50", "p99", "max"];
    table::print(&head, &rows);
    Ok(())
}

/// Starts a contender and returns it with its port.
fn start(way: Option<Way>, probe: Option<&Path>, floor: &Path, folder: &Path) -> Outcome<(Process, u16)> {
    let program = std::env::current_exe().map_err(|error| format!("cannot find this program: {error}"))?;
    let mut command = match way {
        None => Command::new(floor),
        Some(way) => {
            let mut command = Command::new(program);
            command.args(["--serve", format!("{way:?}").to_lowercase().as_str()]);
            command.args(probe);
            command
        }
    };
    let mut server = Process::start(&mut command, SERVER_CORE, &folder.join("log"))?;
    let port = |server: &Process| server.log().lines().next().and_then(|line| line.parse::<u16>().ok());
    server.wait_until(|server| port(server).is_some())?;
    let port = port(&server).ok_or("a prototype printed no port")?;
    if load::fetch(port, "/")? != b"Hello, World!" {
        return Err("a prototype answers wrong bytes".to_owned());
    }
    Ok((server, port))
}

fn idle_bytes(server: &Process, port: u16) -> Outcome<f64> {
    drop(load::idle_connections(port, 64, "/", b"Hello, World!")?);
    let before = server.resident_bytes();
    let clients = load::idle_connections(port, IDLE_CONNECTIONS, "/", b"Hello, World!")?;
    let grown = server.resident_bytes().saturating_sub(before);
    Ok(grown as f64 / clients.len() as f64)
}
