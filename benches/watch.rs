//! What a server says about its memory, and what the kernel says, ten times a second.

use std::{
    fs,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use crate::common::{
    LOAD_CORE,
    load::Client,
    metrics::Figures,
    process::{Process, pin_thread},
};

/// Names of the levels of pressure.
pub const LEVELS: [&str; 4] = ["Normal", "Elevated", "High", "Critical"];
/// The level at which a server may turn anybody away.
pub const CRITICAL: usize = 3;

const INTERVAL: Duration = Duration::from_millis(100);

/// One look.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// When it began and ended: the figures are of a moment between.
    pub asked: Instant,
    pub answered: Instant,
    /// Of all the server's processes.
    pub resident_bytes: u64,
    /// What the server says; nothing of a server that is not ours, or that did not answer.
    pub said: Option<Said>,
}

/// What a server of ours says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Said {
    /// Index of [`LEVELS`].
    pub level: usize,
    /// Times Critical was entered.
    pub criticals: u64,
    pub used_bytes: u64,
    pub peak_bytes: u64,
    pub budget_bytes: u64,
    pub heap_bytes: u64,
    pub connections: u64,
    pub shed: u64,
    pub idle_closed: u64,
    pub active_closed: u64,
}

/// Everything that was seen of one server.
#[derive(Default)]
pub struct Watch {
    samples: Mutex<Vec<Sample>>,
    ends: AtomicBool,
}

impl Watch {
    /// Looks until told to end.
    pub fn run(&self, process: &Process, admin_port: Option<u16>) {
        pin_thread(LOAD_CORE);
        let mut client = None;
        while !self.ends.load(Relaxed) {
            let asked = Instant::now();
            let said = admin_port.and_then(|port| Said::ask(&mut client, port));
            let answered = Instant::now();
            let sample = Sample { asked, answered, resident_bytes: process.resident_bytes(), said };
            self.samples.lock().unwrap_or_else(PoisonError::into_inner).push(sample);
            thread::sleep(INTERVAL.saturating_sub(asked.elapsed()));
        }
    }

    /// Has [`Watch::run`] return.
    pub fn end(&self) {
        self.ends.store(true, Relaxed);
    }

    /// The last look, if there was one.
    pub fn last(&self) -> Option<Sample> {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner).last().copied()
    }

    /// All of them, in their order.
    pub fn into_samples(self) -> Vec<Sample> {
        self.samples.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Said {
    fn ask(client: &mut Option<Client>, port: u16) -> Option<Said> {
        let mut asked = client.take().or_else(|| Client::connect(port).ok())?;
        let figures = Figures::ask(&mut asked).ok()?;
        *client = (!asked.ends).then_some(asked);
        let relief = |action| figures.labelled("webserver_memory_relief_total", action);
        Some(Said {
            level: (figures.sum("webserver_memory_pressure") as usize).min(CRITICAL),
            criticals: figures.labelled("webserver_memory_pressure_entered_total", "critical"),
            used_bytes: figures.sum("webserver_memory_used_bytes"),
            peak_bytes: figures.sum("webserver_memory_peak_bytes"),
            budget_bytes: figures.sum("webserver_memory_budget_bytes"),
            heap_bytes: figures.sum("webserver_memory_heap_bytes"),
            connections: figures.connections(),
            shed: figures.sum("webserver_connections_shed_total"),
            idle_closed: relief("idle_closed"),
            active_closed: relief("active_closed"),
        })
    }
}

/// The highest level that there can have been between two moments: of the looks around and between them, or Critical when
/// that was entered meanwhile.
pub fn level_between(samples: &[Sample], from: Instant, to: Instant) -> usize {
    let first = samples.partition_point(|sample| sample.answered <= from).saturating_sub(1);
    let last = samples.partition_point(|sample| sample.asked < to).min(samples.len().saturating_sub(1));
    let said = || samples.get(first..=last).into_iter().flatten().filter_map(|sample| sample.said);
    let criticals = |said: Option<Said>| said.map_or(0, |said| said.criticals);
    if criticals(said().next()) != criticals(said().next_back()) {
        return CRITICAL;
    }
    said().map(|said| said.level).max().unwrap_or(0)
}

/// The most that was ever resident, of a process that has no descendants (`VmHWM` of proc(5)).
pub fn resident_peak_bytes(process: &Process) -> u64 {
    let text = fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}
