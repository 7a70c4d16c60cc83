//! What other clients of a shard feel while one of them downloads a file that is not in the page cache: a
//! small request every millisecond, its latency with and without the download, and nginx for comparison.
//!
//! `cargo bench --bench cold [-- --quick | --bytes N | --dir FOLDER | --only NAME]`. Ends with failure when
//! the download is cut short or our server brought the file into the page cache.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints what it measured")]

use std::{
    path::PathBuf,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

mod common;

use common::{
    LOAD_CORE, Outcome,
    large::{self, make_cold, resident_share},
    load::Client,
    probe::{SMALL_FILE, probe},
    process::pin_thread,
    quantile,
    servers::{self, Kind, Server},
    table,
};

/// The share of the file that may be found in the page cache after our download.
const RESIDENT_SHARE_MAX: f64 = 0.05;

struct Options {
    bytes: u64,
    folder: Option<PathBuf>,
    only: Option<String>,
}

impl Options {
    fn parse(arguments: &[String]) -> Outcome<Options> {
        let mut options = Options { bytes: 2 << 30, folder: None, only: None };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--quick" => options.bytes = 256 << 20,
                "--bytes" => {
                    let count =
                        arguments.next().and_then(|text| text.parse().ok()).filter(|count| *count > 0);
                    options.bytes = count.ok_or("--bytes wants a number from 1")?;
                }
                "--dir" => options.folder = Some(arguments.next().ok_or("--dir wants a folder")?.into()),
                "--only" => options.only = Some(arguments.next().cloned().unwrap_or_default()),
                other => {
                    let known = "--quick, --bytes N, --dir FOLDER, --only ours|nginx";
                    return Err(format!("unknown option {other}: {known} are known"));
                }
            }
        }
        Ok(options)
    }
}

fn main() -> ExitCode {
    common::run("cold", Options::parse, measure)
}

/// Measures and prints; whether our server left the page cache as it was.
fn measure(options: &Options) -> Outcome<bool> {
    let folder = servers::disk_folder(options.folder.as_deref())?;
    let site = folder.path().join("site");
    let large = large::make_site(&site, options.bytes)?;

    let mut rows = Vec::new();
    let mut stayed_cold = true;
    for kind in [Kind::Ours, Kind::Nginx] {
        if options.only.as_ref().is_some_and(|only| only != kind.name()) {
            continue;
        }
        if let Err(message) = kind.available() {
            println!("skipped {}: {message}", kind.name());
            continue;
        }
        let server = servers::start(kind, &site, folder.path(), 0)?;
        let named = |error| format!("{}: {error}", kind.name());
        let alone = probe_for(&server, Duration::from_secs(2)).map_err(named)?;
        rows.push(row(kind, "alone", &alone, "", ""));

        let before =
            make_cold(&large).map_err(|error| format!("cannot drop the file from memory: {error}"))?;
        if before > RESIDENT_SHARE_MAX {
            return Err(format!("{:.0} % of the file cannot be dropped from the page cache", before * 100.0));
        }
        let cpu = server.process.cpu_seconds();
        let (beside, seconds) = probe_beside_download(&server, options.bytes).map_err(named)?;
        let cpu = server.process.cpu_seconds() - cpu;
        let after = resident_share(&large).map_err(|error| format!("mincore: {error}"))?;
        let speed = format!("{:.0} MB/s, {cpu:.1} CPU-s", options.bytes as f64 / seconds / 1e6);
        rows.push(row(kind, "beside the download", &beside, &speed, &format!("{:.0} %", after * 100.0)));
        stayed_cold &= kind != Kind::Ours || after <= RESIDENT_SHARE_MAX;
    }
    println!("Latency of a {} B answer asked for every millisecond, microseconds", SMALL_FILE.1.len());
    let head = ["server", "requests", "p50", "p99", "max", "download", "cached after"];
    table::print(&head, &rows);
    if !stayed_cold {
        println!("ours read through the page cache: the file was cold and is cached now");
    }
    Ok(stayed_cold)
}

fn row(kind: Kind, when: &str, sorted: &[f64], speed: &str, resident: &str) -> Vec<String> {
    let figure = |share| format!("{:.0}", quantile(sorted, share));
    let name = format!("{}, {when}", kind.name());
    vec![
        name,
        sorted.len().to_string(),
        figure(0.5),
        figure(0.99),
        figure(1.0),
        speed.into(),
        resident.into(),
    ]
}

fn probe_for(server: &Server, time: Duration) -> Outcome<Vec<f64>> {
    let deadline = Instant::now() + time;
    probe(server.port, || Instant::now() < deadline)
}

/// Latencies while the large file is downloaded, and how many seconds that took.
fn probe_beside_download(server: &Server, bytes: u64) -> Outcome<(Vec<f64>, f64)> {
    thread::scope(|scope| {
        let download = scope.spawn(|| {
            pin_thread(LOAD_CORE);
            let start = Instant::now();
            download(server.port, bytes).map(|()| start.elapsed().as_secs_f64())
        });
        let latencies = probe(server.port, || !download.is_finished())?;
        let seconds = download.join().map_err(|_| "the download panicked".to_owned())??;
        Ok((latencies, seconds))
    })
}

/// Receives the large file and counts it.
fn download(port: u16, bytes: u64) -> Outcome<()> {
    let mut client = Client::connect(port)?;
    client.ask("/large.bin")?;
    let announced = client.receive_head()?;
    if announced != bytes {
        return Err(format!("announces {announced} bytes of {bytes}"));
    }
    let (stream, first) = client.into_parts();
    let mut received = first.len() as u64;
    while received < bytes {
        let room = (bytes - received).min(1 << 20) as usize;
        match large::receive_nowhere(&stream, room) {
            Ok(count) if count > 0 => received += count as u64,
            other => return Err(format!("the download ended after {received} of {bytes} bytes ({other:?})")),
        }
    }
    Ok(())
}
