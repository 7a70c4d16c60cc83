//! What handshakes, requests and downloads cost a server.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    File, Resumes, Site, Version, config,
    load::{Done, Job, Load},
    stock::Stock,
};
use crate::common::{Outcome, servers::Kind, table};

/// How long a load runs before it is measured: sessions are made, and connections opened.
const WARMING: Duration = Duration::from_millis(500);

/// One row of the table.
pub struct Case {
    /// As the table calls it.
    pub title: &'static str,
    /// What clients speak.
    version: Version,
    /// Each connection resumes a session that another has made.
    resumes: bool,
    /// What is done.
    job: Job,
    /// What is counted.
    unit: Unit,
    /// The smallest ratio that was promised.
    pub goal: Goal,
}

/// What is counted for each CPU-second of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    /// Handshakes, each with a request.
    Handshakes,
    /// Requests.
    Requests,
    /// Megabytes (2^20) of bodies.
    Megabytes,
}

/// A ratio, and to which server.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Goal {
    /// To the better of nginx and h2o.
    OfBetter(f64),
    /// To nginx.
    OfNginx(f64),
    /// None was promised.
    Known,
}

const CONNECTING: Case = Case {
    title: "TLS 1.3 full",
    version: Version::Tls13,
    resumes: false,
    job: Job { places: 32, file: File::SMALL, closing: true },
    unit: Unit::Handshakes,
    goal: Goal::OfBetter(1.2),
};
const TLS12: Case = Case { title: "TLS 1.2 full", version: Version::Tls12, goal: Goal::Known, ..CONNECTING };

/// Full and resumed handshakes.
pub const HANDSHAKES: [Case; 4] = [
    CONNECTING,
    Case { title: "TLS 1.3 resumed", resumes: true, ..CONNECTING },
    TLS12,
    Case { title: "TLS 1.2 resumed", resumes: true, ..TLS12 },
];

/// Small answers over connections that are kept.
pub const REQUESTS: [Case; 1] = [Case {
    title: "1 KB x 64",
    job: Job { places: 64, file: File::SMALL, closing: false },
    unit: Unit::Requests,
    goal: Goal::OfNginx(1.2),
    ..CONNECTING
}];

/// Downloads.
pub const BULK: [Case; 2] = [
    Case {
        title: "1 MB x 16, MB",
        job: Job { places: 16, file: File::LARGE, closing: false },
        unit: Unit::Megabytes,
        goal: Goal::OfBetter(1.0),
        ..CONNECTING
    },
    Case {
        title: "100 MB x 4, MB",
        job: Job { places: 4, file: File::HUGE, closing: false },
        unit: Unit::Megabytes,
        goal: Goal::OfBetter(1.0),
        ..CONNECTING
    },
];

/// One figure of one server, which is also printed: the unit for each CPU-second of the server. `None`: this server does
/// not resume such sessions.
///
/// # Errors
/// The server answers wrongly.
pub fn measure(site: &Site, kind: Kind, case: &Case, lasts: Duration) -> Outcome<Option<f64>> {
    let failed = |error| format!("{}, {}: {error}", kind.name(), case.title);
    let server = site.serve(kind, case.job.file)?;
    let stock = Arc::new(Stock::default());
    let resumes = if case.resumes { Resumes::From(Arc::clone(&stock)) } else { Resumes::Never };
    let mut load = Load::new(server.port, config(case.version, resumes)?, case.job).map_err(failed)?;
    // Tickets end before the time does with a server that gives none to who resumes.
    let more = || !case.resumes || case.version == Version::Tls12 || stock.tickets() > 2 * case.job.places;
    let mut run = |lasts: Duration, more: &dyn Fn() -> bool| {
        let begun = Instant::now();
        load.run(|| begun.elapsed() < lasts && more()).map_err(failed)
    };
    run(if case.resumes { lasts } else { WARMING }, &|| true)?;
    stock.open();
    run(WARMING / 2, &more)?;
    let (spent, begun) = (server.process.cpu_seconds(), Instant::now());
    let done = run(lasts, &more)?;
    let (spent, lasted) = (server.process.cpu_seconds() - spent, begun.elapsed().as_secs_f64());
    let idle = (1.0 - spent / lasted).max(0.0) * 100.0;
    let count = counted(case, &done);
    if spent <= 0.0 || count <= 0.0 {
        return Err(failed(format!("nothing was measured in {spent} CPU-seconds")));
    }
    let (figure, rate) = (table::rate(count / spent), table::rate(count / lasted));
    let as_wanted = !case.resumes || done.resumed * 100 >= done.handshakes * 99;
    let note = match (case.resumes, as_wanted) {
        (false, _) => String::new(),
        (true, true) => format!(", {} of {} resumed", done.resumed, done.handshakes),
        (true, false) => format!(", only {} of {} resumed: not counted", done.resumed, done.handshakes),
    };
    println!(
        "{:<16} {:<6} {figure:>9} a CPU-s {rate:>9} a s, server {idle:.0} % idle{note}",
        case.title,
        kind.name()
    );
    Ok(as_wanted.then_some(count / spent))
}

/// How often the unit was done.
fn counted(case: &Case, done: &Done) -> f64 {
    match case.unit {
        Unit::Handshakes => done.handshakes.min(done.answers) as f64,
        Unit::Requests => done.answers as f64,
        Unit::Megabytes => done.answers as f64 * case.job.file.0 as f64 / f64::from(1 << 20),
    }
}
