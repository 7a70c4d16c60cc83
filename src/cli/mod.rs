//! The command line: arguments, exit codes, signals, and what is said on standard error.
//!
//! Turns arguments into a [`Config`](webserver::config::Config) and drives a [`Server`](webserver::Server); knows
//! nothing of what either does inside.

mod arguments;
mod inherited;
mod notify;
mod plan;
mod serve;
mod succession;
mod tls;

use std::{
    fmt,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use lexopt::Parser;
use webserver::{Error, ErrorKind, config::Settings};

use arguments::{Command, Overlay};

const FAILED: u8 = 1;
const USAGE: u8 = 2;

const HELP: &str = "\
Usage: webserver [OPTIONS] [ROOT]
       webserver check -c FILE
       webserver plan -c FILE [--connections N] [--tls PERCENT] [--h2 PERCENT] [--json]

Serves the folder ROOT; without ROOT or --config, a built-in page on
http://127.0.0.1:8080.

  -c, --config FILE      YAML configuration
  -l, --listen ADDRESS   repeatable; 127.0.0.1:8080, [::1]:8080, unix:/run/x.sock;
                         replaces the addresses of the configuration
      --admin ADDRESS    metrics and health
      --tls-cert FILE    HTTPS on the addresses of --listen, or on the default one:
      --tls-key FILE     the certificate chain and its private key, PEM
      --tls-self-signed  the same with a throw-away certificate, made in memory
      --shards N|auto    threads that serve; auto: one per core
  -h, --help             this text
  -V, --version          the version

check parses and validates FILE and prints the effective configuration.

plan sums up what FILE comes to in bytes, term by term, and how many connections
its budget has room for:
      --connections N    open at once; as many as there are slots, unless given
      --tls PERCENT      of them speak TLS; all where a listener does, unless given
      --h2 PERCENT       of them speak HTTP/2
      --json             for machines

SIGTERM and SIGINT drain and exit, a second one stops at once. SIGHUP reloads
the configuration; one that is wrong is reported and the old one stays.
SIGUSR1 opens the log files anew, for a rotation that has renamed them.
SIGUSR2 starts the program anew and hands the listening sockets over to it: no
connection is refused, and this process ends when it has answered its own. When
the new one does not accept within 30 seconds, this one goes on.
Exit status: 0 clean, 1 failed at run time, 2 usage or configuration.
A folder named check or plan is served as ./check or ./plan.
";

/// Why the process ends before or against its wish, and with which status.
#[derive(Debug)]
struct Failure {
    status: u8,
    message: String,
}

/// Runs the command that `arguments` ask for.
pub(crate) fn run(arguments: Parser) -> ExitCode {
    let done = arguments::parse(arguments).and_then(|command| match command {
        Command::Serve(overlay) => serve::serve(&overlay),
        Command::Check(file) => check(file),
        Command::Plan(options) => plan::plan(&options),
        Command::Help => print(HELP),
        Command::Version => print(concat!("webserver ", env!("CARGO_PKG_VERSION"), "\n")),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            say(format_args!("webserver: {}", failure.message));
            ExitCode::from(failure.status)
        }
    }
}

fn check(file: PathBuf) -> Result<(), Failure> {
    print(&settings(file)?.to_yaml())
}

/// What the file alone resolves to.
fn settings(file: PathBuf) -> Result<Settings, Failure> {
    let overlay = Overlay { config: Some(file), ..Overlay::default() };
    Ok(overlay.settings(&[])?.1)
}

impl Failure {
    /// The arguments or the configuration are wrong.
    fn usage(message: impl fmt::Display) -> Failure {
        Failure { status: USAGE, message: message.to_string() }
    }

    /// It went wrong at run time.
    fn failed(message: impl fmt::Display) -> Failure {
        Failure { status: FAILED, message: message.to_string() }
    }
}

impl From<lexopt::Error> for Failure {
    fn from(error: lexopt::Error) -> Failure {
        Failure::usage(format_args!("{error} (see webserver --help)"))
    }
}

impl From<Error> for Failure {
    /// An error of a server: the configuration's fault or the day's.
    fn from(error: Error) -> Failure {
        match error.kind() {
            ErrorKind::Config | ErrorKind::Invalid => Failure::usage(&error),
            _ => Failure::failed(&error),
        }
    }
}

fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| Failure::failed(format_args!("cannot write to standard output: {error}")))
}

/// One line on standard error, in one write, so that the log's lines do not come between its parts. Nobody is
/// left to hear that this failed.
fn say(line: fmt::Arguments<'_>) {
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}
