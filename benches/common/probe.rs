//! What a client with a small request feels while a server is busy with something else.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::{LOAD_CORE, Outcome, load::Client, process::pin_thread};

/// The file that is asked for, and what it holds.
pub const SMALL_FILE: (&str, &[u8]) = ("small.txt", b"Hello, World!");

const INTERVAL: Duration = Duration::from_millis(1);

/// Asks every [`INTERVAL`] on one connection while `more` and returns the latencies, sorted, in microseconds.
/// An answer that takes longer than the interval stands for the requests that were not sent meanwhile too:
/// each of them would have waited for the rest of that time.
pub fn probe(port: u16, more: impl Fn() -> bool) -> Outcome<Vec<f64>> {
    pin_thread(LOAD_CORE);
    let mut client = Client::connect(port)?;
    let mut latencies = Vec::new();
    let mut due = Instant::now();
    while more() {
        due += INTERVAL;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let asked = Instant::now();
        client.ask(&format!("/{}", SMALL_FILE.0))?;
        let got = client.receive()?;
        if got != SMALL_FILE.1 {
            return Err(format!("answered {} wrong bytes", got.len()));
        }
        let mut waited = asked.elapsed();
        due = due.max(Instant::now().checked_sub(INTERVAL).unwrap_or(due));
        latencies.push(waited.as_secs_f64() * 1e6);
        while waited > INTERVAL {
            waited -= INTERVAL;
            latencies.push(waited.as_secs_f64() * 1e6);
        }
    }
    latencies.sort_by(f64::total_cmp);
    Ok(latencies)
}
