//! Many clients that download one large file that is not in the page cache, slower than it can be sent: what the server
//! reads from the disk for what it sends, the memory and time that takes, and what a small request beside it feels.
//!
//! `cargo bench --bench readers [-- --quick | --seconds N | --bytes N | --dir FOLDER | --only NAME]`.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints what it measured")]

use std::{
    io,
    net::TcpStream,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

mod common;

use common::{
    LOAD_CORE, Outcome,
    large::{self, make_cold, receive_nowhere},
    load::Client,
    probe::probe,
    process::{pin_thread, raise_descriptor_limit},
    quantile,
    servers::{self, Kind, Server},
    table,
};

/// How often a client takes its share.
const TICK: Duration = Duration::from_millis(50);
/// What a slow client's kernel takes in advance, so that its pace is felt by the server.
static RECEIVE_BUFFER_BYTES: libc::c_int = 64 << 10;

/// One row: so many clients, each as fast as its number says between two speeds.
struct Case {
    name: &'static str,
    clients: usize,
    /// Bytes a second; `None` takes what comes.
    speeds: Option<(u64, u64)>,
    /// Each begins somewhere else, as clients do that did not come together.
    spread: bool,
}

const SLOW: Option<(u64, u64)> = Some((100_000, 500_000));
const CASES: [Case; 5] = [
    Case { name: "1 at full speed", clients: 1, speeds: None, spread: false },
    Case { name: "16 at full speed", clients: 16, speeds: None, spread: false },
    Case { name: "500 slow, together", clients: 500, speeds: SLOW, spread: false },
    Case { name: "500 slow, spread", clients: 500, speeds: SLOW, spread: true },
    Case { name: "2000 slow, together", clients: 2000, speeds: SLOW, spread: false },
];

struct Options {
    bytes: u64,
    seconds: u64,
    folder: Option<PathBuf>,
    only: Vec<String>,
}

impl Options {
    fn parse(arguments: &[String]) -> Outcome<Options> {
        let mut options = Options { bytes: 2 << 30, seconds: 15, folder: None, only: Vec::new() };
        let mut arguments = arguments.iter();
        let number =
            |text: Option<&String>| text.and_then(|text| text.parse().ok()).filter(|count| *count > 0);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--quick" => (options.bytes, options.seconds) = (1 << 30, 5),
                "--bytes" => {
                    options.bytes = number(arguments.next()).ok_or("--bytes wants a number from 1")?
                }
                "--seconds" => {
                    options.seconds = number(arguments.next()).ok_or("--seconds wants a number from 1")?;
                }
                "--dir" => options.folder = Some(arguments.next().ok_or("--dir wants a folder")?.into()),
                "--only" => options.only.push(arguments.next().cloned().unwrap_or_default()),
                other => {
                    let known = "--quick, --seconds N, --bytes N, --dir FOLDER, --only ours|nginx";
                    return Err(format!("unknown option {other}: {known} are known"));
                }
            }
        }
        Ok(options)
    }
}

fn main() -> ExitCode {
    let Some(arguments) = common::arguments() else { return ExitCode::SUCCESS };
    match Options::parse(&arguments).and_then(|options| measure(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("readers: {message}");
            ExitCode::FAILURE
        }
    }
}

fn measure(options: &Options) -> Outcome<()> {
    raise_descriptor_limit();
    let folder = servers::disk_folder(options.folder.as_deref())?;
    let site = folder.path().join("site");
    large::make_site(&site, options.bytes)?;
    let mut rows = Vec::new();
    for case in &CASES {
        for kind in [Kind::Ours, Kind::Nginx] {
            if !options.only.is_empty() && options.only.iter().all(|only| only != kind.name()) {
                continue;
            }
            if let Err(message) = kind.available() {
                println!("skipped {}: {message}", kind.name());
                continue;
            }
            let row = measure_case(case, kind, options, &site, folder.path())
                .map_err(|error| format!("{}, {}: {error}", kind.name(), case.name))?;
            println!("{}", row.join("  "));
            rows.push(row);
        }
    }
    println!("\nFor {} s each, a file of {} MB", options.seconds, options.bytes >> 20);
    let head = [
        "clients",
        "server",
        "MB/s",
        "read / sent",
        "CPU-s per GB",
        "RSS grown, MB",
        "small p50 us",
        "p99",
        "max",
    ];
    table::print(&head, &rows);
    Ok(())
}

fn measure_case(
    case: &Case,
    kind: Kind,
    options: &Options,
    site: &Path,
    folder: &Path,
) -> Outcome<Vec<String>> {
    let server = servers::start(kind, site, folder, 0)?;
    let latencies = probe_until(&server, Instant::now() + Duration::from_millis(200))?;
    drop(latencies);
    make_cold(&site.join("large.bin"))
        .map_err(|error| format!("cannot drop the file from memory: {error}"))?;
    let clients = connect(case, &server, options)?;
    let (cpu, resident, read) =
        (server.process.cpu_seconds(), server.process.resident_bytes(), server.process.read_bytes());
    let start = Instant::now();
    let deadline = start + Duration::from_secs(options.seconds);
    let (received, latencies, grown) = thread::scope(|scope| {
        let load = scope.spawn(|| receive(case, &clients, deadline));
        let memory = scope.spawn(|| {
            let mut most = 0;
            while Instant::now() < deadline {
                most = server.process.resident_bytes().max(most);
                thread::sleep(Duration::from_millis(500));
            }
            most.saturating_sub(resident)
        });
        let latencies = probe_until(&server, deadline)?;
        let received = load.join().map_err(|_| "the clients panicked".to_owned())??;
        let grown = memory.join().map_err(|_| "the memory could not be watched".to_owned())?;
        Ok::<_, String>((received, latencies, grown))
    })?;
    let seconds = start.elapsed().as_secs_f64();
    let read = server.process.read_bytes() - read;
    let cpu = server.process.cpu_seconds() - cpu;
    let sent = received.max(1) as f64;
    let latency = |share| format!("{:.0}", quantile(&latencies, share));
    Ok(vec![
        case.name.to_owned(),
        kind.name().to_owned(),
        format!("{:.0}", sent / seconds / 1e6),
        format!("{:.2}", read as f64 / sent),
        format!("{:.2}", cpu / (sent / 1e9)),
        format!("{:.1}", grown as f64 / f64::from(1 << 20)),
        latency(0.5),
        latency(0.99),
        latency(1.0),
    ])
}

fn probe_until(server: &Server, deadline: Instant) -> Outcome<Vec<f64>> {
    probe(server.port, || Instant::now() < deadline)
}

/// Connections that have asked for the file and received nothing yet.
fn connect(case: &Case, server: &Server, options: &Options) -> Outcome<Vec<TcpStream>> {
    (0..case.clients)
        .map(|index| {
            let mut client = Client::connect(server.port)?;
            let stream = client.stream();
            if case.speeds.is_some() {
                // SAFETY: the value lives for the call and has the size that is passed.
                unsafe {
                    libc::setsockopt(
                        stream.as_raw_fd(),
                        libc::SOL_SOCKET,
                        libc::SO_RCVBUF,
                        (&raw const RECEIVE_BUFFER_BYTES).cast(),
                        size_of::<libc::c_int>() as libc::socklen_t,
                    )
                };
            }
            let first = if case.spread { options.bytes / case.clients as u64 * index as u64 } else { 0 };
            client.ask_with("/large.bin", &format!("Range: bytes={first}-\r\n"))?;
            let (stream, _) = client.into_parts();
            stream.set_nonblocking(case.speeds.is_some()).map_err(|error| error.to_string())?;
            Ok(stream)
        })
        .collect()
}

/// Receives until the deadline, each client at its speed, and gives the bytes of all.
fn receive(case: &Case, clients: &[TcpStream], deadline: Instant) -> Outcome<u64> {
    pin_thread(LOAD_CORE);
    let Some((slowest, fastest)) = case.speeds else {
        return thread::scope(|scope| {
            let all: Vec<_> =
                clients.iter().map(|client| scope.spawn(|| receive_all(client, deadline))).collect();
            all.into_iter().map(|one| one.join().map_err(|_| "a client panicked".to_owned())?).sum()
        });
    };
    let start = Instant::now();
    let mut received = vec![0_u64; clients.len()];
    while Instant::now() < deadline {
        let seconds = start.elapsed().as_secs_f64();
        for (index, (client, got)) in clients.iter().zip(&mut received).enumerate() {
            let speed = slowest + (fastest - slowest) * index as u64 / clients.len() as u64;
            let due = (speed as f64 * seconds) as u64;
            if due > *got
                && let Ok(count) = receive_nowhere(client, (due - *got) as usize)
            {
                *got += count as u64;
            }
        }
        thread::sleep(TICK);
    }
    Ok(received.iter().sum())
}

fn receive_all(client: &TcpStream, deadline: Instant) -> Outcome<u64> {
    pin_thread(LOAD_CORE);
    let mut received = 0;
    while Instant::now() < deadline {
        match receive_nowhere(client, 1 << 20) {
            Ok(0) => break,
            Ok(count) => received += count as u64,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(format!("a download ended: {error}")),
        }
    }
    Ok(received)
}
