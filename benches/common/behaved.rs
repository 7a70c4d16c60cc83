//! Clients that ask for a small file now and then and do nothing wrong: what they feel is what a server is worth to
//! everybody else.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use super::{LOAD_CORE, Outcome, load::Client, probe::SMALL_FILE, process::pin_thread};

/// A client that behaves, and how it fared.
pub struct Behaved {
    /// As the tables call it.
    pub name: &'static str,
    /// In the order in which they were sent.
    pub requests: Vec<Request>,
}

/// One request.
pub struct Request {
    /// When it was sent.
    pub asked: Instant,
    /// How long it took, a second attempt included.
    pub took: Duration,
    /// How it ended.
    pub fate: Fate,
    /// The kept connection was gone before a byte of an answer came, so that a new one was opened. That is no failure:
    /// a server may close an idle connection at any time, and a client sends the request anew (RFC 9112 9.3.1).
    pub reconnected: bool,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// 200 and the right bytes.
    Answered,
    /// 503.
    Refused,
    /// No connection, no answer, or half of one.
    Closed,
    /// Anything else.
    Wrong,
}

impl Behaved {
    /// Both kinds: one that stays connected and asks every 5 ms, one that connects anew for each request, 20 times a
    /// second.
    pub const KINDS: [(&'static str, Duration, bool); 2] = [
        ("stays connected", Duration::from_millis(5), true),
        ("connects anew", Duration::from_millis(50), false),
    ];

    /// Does `work` with both clients beside it.
    ///
    /// # Errors
    /// Those of `work`.
    pub fn beside<T>(port: u16, work: impl FnOnce() -> Outcome<T>) -> Outcome<([Behaved; 2], T)> {
        let ends = AtomicBool::new(false);
        thread::scope(|scope| {
            let clients = Behaved::KINDS.map(|kind| {
                scope.spawn({
                    let ends = &ends;
                    move || Behaved::run(kind, port, ends)
                })
            });
            let worked = work();
            ends.store(true, Relaxed);
            let [staying, coming] =
                clients.map(|client| client.join().map_err(|_| "a client panicked".to_owned()));
            Ok(([staying?, coming?], worked?))
        })
    }

    fn run((name, interval, stays): (&'static str, Duration, bool), port: u16, ends: &AtomicBool) -> Behaved {
        pin_thread(LOAD_CORE);
        let mut requests = Vec::new();
        let mut kept = None;
        while !ends.load(Relaxed) {
            let asked = Instant::now();
            let had_one = kept.is_some();
            let (mut fate, mut client) = ask(kept.take(), port);
            let reconnected = had_one && fate == Fate::Closed;
            if reconnected {
                (fate, client) = ask(None, port);
            }
            kept = client.filter(|client| stays && !client.ends);
            let took = asked.elapsed();
            requests.push(Request { asked, took, fate, reconnected });
            thread::sleep(interval.saturating_sub(took));
        }
        Behaved { name, requests }
    }

    /// Microseconds of the requests that were answered, in ascending order.
    pub fn latencies_us(&self) -> Vec<f64> {
        latencies_us(&self.requests)
    }

    /// The same of those sent before a moment, and of the others.
    pub fn latencies_around(&self, moment: Instant) -> (Vec<f64>, Vec<f64>) {
        let (before, after) =
            self.requests.split_at(self.requests.partition_point(|request| request.asked < moment));
        (latencies_us(before), latencies_us(after))
    }

    /// Requests that were not answered as they should.
    pub fn failures(&self) -> usize {
        self.requests.iter().filter(|request| request.fate != Fate::Answered).count()
    }
}

fn latencies_us(requests: &[Request]) -> Vec<f64> {
    let answered = requests.iter().filter(|request| request.fate == Fate::Answered);
    let mut latencies: Vec<f64> = answered.map(|request| request.took.as_secs_f64() * 1e6).collect();
    latencies.sort_by(f64::total_cmp);
    latencies
}

/// Asks once, and keeps the connection if the answer was right.
fn ask(kept: Option<Client>, port: u16) -> (Fate, Option<Client>) {
    let Ok(mut client) = kept.map_or_else(|| Client::connect(port), Ok) else { return (Fate::Closed, None) };
    match client.ask(&format!("/{}", SMALL_FILE.0)).and_then(|()| client.receive()) {
        Ok(body) if body == SMALL_FILE.1 => (Fate::Answered, Some(client)),
        Ok(_) => (Fate::Wrong, None),
        Err(_) if client.status == 503 => (Fate::Refused, None),
        Err(_) if client.status == 0 || client.status == 200 => (Fate::Closed, None),
        Err(_) => (Fate::Wrong, None),
    }
}
