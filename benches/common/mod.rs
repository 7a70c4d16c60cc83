//! What the benches share: processes that end with the bench, load, statistics and tables.
//!
//! Nothing here measures by itself, and nothing here is linked into the server.

#![allow(dead_code, reason = "each bench is a program of its own and uses its part of this")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints what it measured")]

pub mod behaved;
pub mod large;
pub mod load;
pub mod metrics;
pub mod probe;
pub mod process;
pub mod servers;
pub mod table;

use std::process::ExitCode;

/// A failure is a sentence that says what to do; a bench prints it and ends.
pub type Outcome<T> = Result<T, String>;

/// The core that servers run on; the load runs on [`LOAD_CORE`].
pub const SERVER_CORE: usize = 0;
/// The core that the load generator runs on.
pub const LOAD_CORE: usize = 1;

/// The arguments after `--`, or `None` when this was not started by `cargo bench` (`cargo test` runs bench
/// programs too, to see that they build).
pub fn arguments() -> Option<Vec<String>> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let before = arguments.len();
    arguments.retain(|argument| argument != "--bench");
    if arguments.len() < before {
        return Some(arguments);
    }
    println!("not measured: run this with `cargo bench`");
    None
}

/// What a bench's `main` does: reads what follows `--`, measures, and says what failed. `measure` tells whether every
/// goal was met.
pub fn run<Options>(
    name: &str,
    parse: impl FnOnce(&[String]) -> Outcome<Options>,
    measure: impl FnOnce(&Options) -> Outcome<bool>,
) -> ExitCode {
    let Some(arguments) = arguments() else { return ExitCode::SUCCESS };
    match parse(&arguments).and_then(|options| measure(&options)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("{name}: {message}");
            ExitCode::FAILURE
        }
    }
}

/// The middle of `figures` (the mean of the two middle ones of an even count); 0 without figures.
pub fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        count if count % 2 == 1 => sorted[count / 2],
        count => f64::midpoint(sorted[count / 2 - 1], sorted[count / 2]),
    }
}

/// The smallest figure that `share` (0 to 1) of the sorted figures do not exceed; 0 without figures.
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.saturating_sub(1).min(sorted.len().saturating_sub(1))).copied().unwrap_or(0.0)
}
