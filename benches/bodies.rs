//! How a body should leave: requests per CPU-second of servers that differ only in how the bytes of a file reach the
//! socket, for files of 1 KB to 1 MB, and of this server with mapping on and off. docs/architecture.md draws its table
//! of bodies from these figures.
//!
//! `cargo bench --bench bodies [-- --quick | --rounds N | --only NAME ...]`. The prototypes are this program started again.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints what it measured")]

use std::{collections::HashMap, fs, path::Path, process::Command, process::ExitCode};

mod common;
mod ways;

use common::{
    Outcome, SERVER_CORE, load,
    process::Process,
    servers::{self, Kind},
    table,
};
use ways::Way;

const SIZES: [usize; 6] = [1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20];
const CONNECTIONS: [usize; 2] = [64, 1];
/// Requests before a measurement: the server has a file mapped, or in memory, after some uses.
const WARM_UP: usize = 64;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Contender {
    Prototype(Way),
    /// This server; more keys of `memory`.
    Server(&'static str, &'static str),
}

/// Content kept in memory, mappings and neither: the size of a file decides between the first and the others.
const SERVERS: [Contender; 3] = [
    Contender::Server("server", ""),
    Contender::Server("server, mapped", "response_cache: 0, mmap: {max_file: 4MB, max_total: 64MB}"),
    Contender::Server("server, sendfile", "response_cache: 0, mmap: {max_file: 0}"),
];

impl Contender {
    fn all() -> impl Iterator<Item = Contender> {
        Way::ALL.into_iter().map(Contender::Prototype).chain(SERVERS)
    }

    fn name(self) -> &'static str {
        match self {
            Contender::Prototype(way) => way.name(),
            Contender::Server(name, _) => name,
        }
    }
}

struct Options {
    rounds: usize,
    seconds: u64,
    only: Vec<String>,
}

impl Options {
    fn parse(arguments: &[String]) -> Outcome<Options> {
        let mut options = Options { rounds: 5, seconds: 2, only: Vec::new() };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--quick" => (options.rounds, options.seconds) = (2, 1),
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
        match options.only.iter().find(|name| Contender::all().all(|known| known.name() != name.as_str())) {
            None => Ok(options),
            Some(name) => {
                let names: Vec<&str> = Contender::all().map(Contender::name).collect();
                Err(format!("--only {name:?}: it is one of {}", names.join("; ")))
            }
        }
    }

    fn contenders(&self) -> Vec<Contender> {
        let wanted =
            |one: &Contender| self.only.is_empty() || self.only.iter().any(|only| only == one.name());
        Contender::all().filter(wanted).collect()
    }
}

fn main() -> ExitCode {
    let serve: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, way, path] = serve.as_slice()
        && flag == "--serve"
    {
        return serve_prototype(way, path);
    }
    let Some(arguments) = common::arguments() else { return ExitCode::SUCCESS };
    match Options::parse(&arguments).and_then(|options| measure(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("bodies: {message}");
            ExitCode::FAILURE
        }
    }
}

fn serve_prototype(way: &str, path: &str) -> ExitCode {
    let way = Way::ALL.into_iter().find(|known| known.name() == way);
    match way.map(|way| ways::serve(way, Path::new(path))) {
        Some(Ok(())) => ExitCode::SUCCESS,
        Some(Err(error)) => {
            eprintln!("prototype: {error}");
            ExitCode::FAILURE
        }
        None => ExitCode::FAILURE,
    }
}

fn measure(options: &Options) -> Outcome<()> {
    if !load::installed("wrk") {
        return Err(format!("wrk is missing: {}", load::install("wrk")));
    }
    let folder = servers::disk_folder(None)?;
    let site = folder.path().join("site");
    let failed = |error| format!("cannot write the files to serve: {error}");
    fs::create_dir(&site).map_err(failed)?;
    for size in SIZES {
        let bytes: Vec<u8> = (0..size).map(|index| (index % 251) as u8).collect();
        fs::write(site.join(size.to_string()), bytes).map_err(failed)?;
    }
    let contenders = options.contenders();
    let mut figures: HashMap<(usize, usize, &'static str), Vec<f64>> = HashMap::new();
    for round in 0..options.rounds {
        for size in SIZES {
            // Each round another one goes first: what warms or slows the machine meets all of them.
            let turn = round % contenders.len().max(1);
            for contender in contenders[turn..].iter().chain(&contenders[..turn]).copied() {
                let (server, port) = start(contender, size, &site, folder.path())?;
                for connections in CONNECTIONS {
                    let request = load::Request { path: &format!("/{size}"), connections, closing: false };
                    let load = load::wrk(&server, port, &request, options.seconds)
                        .map_err(|error| format!("{}, {size} B: {error}", contender.name()))?;
                    figures
                        .entry((size, connections, contender.name()))
                        .or_default()
                        .push(load.per_cpu_second);
                }
            }
            println!("round {}: {size} B done", round + 1);
        }
    }
    for connections in CONNECTIONS {
        println!(
            "\nRequests per server CPU-second, {connections} connections, medians of {} rounds",
            options.rounds
        );
        let rows: Vec<Vec<String>> = SIZES
            .iter()
            .map(|&size| {
                let of = |contender: &Contender| {
                    let all = figures.get(&(size, connections, contender.name()));
                    all.map_or("-".to_owned(), |all| table::rate(common::median(all)))
                };
                let name = format!("{} KB", size >> 10);
                std::iter::once(name).chain(contenders.iter().map(of)).collect()
            })
            .collect();
        let names = contenders.iter().map(|contender| contender.name());
        table::print(&std::iter::once("file").chain(names).collect::<Vec<_>>(), &rows);
    }
    Ok(())
}

/// Starts a contender that serves the file of `size` bytes, and returns it with its port.
fn start(contender: Contender, size: usize, site: &Path, folder: &Path) -> Outcome<(Process, u16)> {
    let (server, port) = match contender {
        Contender::Server(_, memory) => {
            let server = servers::start_with(Kind::Ours, site, folder, 0, memory)?;
            (server.process, server.port)
        }
        Contender::Prototype(way) => {
            let program =
                std::env::current_exe().map_err(|error| format!("cannot find this program: {error}"))?;
            let mut command = Command::new(program);
            command.args(["--serve", way.name()]).arg(site.join(size.to_string()));
            let mut server = Process::start(&mut command, SERVER_CORE, &folder.join("log"))?;
            let port =
                |server: &Process| server.log().lines().next().and_then(|line| line.parse::<u16>().ok());
            server.wait_until(|server| port(server).is_some())?;
            let port = port(&server).ok_or("a prototype printed no port")?;
            (server, port)
        }
    };
    for _ in 0..WARM_UP {
        let got = load::fetch(port, &format!("/{size}"))?;
        if got.len() != size || got.iter().enumerate().any(|(index, byte)| *byte != (index % 251) as u8) {
            return Err(format!("{} answers {} wrong bytes", contender.name(), got.len()));
        }
    }
    Ok((server, port))
}
