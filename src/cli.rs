//! The command line: arguments, exit codes, signals, and what is said on standard error.
//!
//! Turns arguments into a [`Config`] and drives a [`Server`]; knows nothing of what either does inside.

use std::{
    fmt,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    thread,
    time::Duration,
};

use lexopt::{Arg, Parser, ValueExt};
use signal_hook::{
    consts::signal::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};
use webserver::{
    Error, ErrorKind, Server,
    config::{Config, Settings},
    server::Options,
};

const FAILED: u8 = 1;
const USAGE: u8 = 2;

const HELP: &str = "\
Usage: webserver [OPTIONS] [ROOT]
       webserver check -c FILE

Serves the folder ROOT; without ROOT or --config, a built-in page on
http://127.0.0.1:8080.

  -c, --config FILE      YAML configuration
  -l, --listen ADDRESS   repeatable; 127.0.0.1:8080, [::1]:8080, unix:/run/x.sock;
                         replaces the addresses of the configuration
      --admin ADDRESS    metrics and health
      --shards N|auto    threads that serve; auto: one per core
  -h, --help             this text
  -V, --version          the version

check parses and validates FILE and prints the effective configuration.

SIGTERM and SIGINT drain and exit, a second one stops at once. SIGHUP reloads
the configuration; one that is wrong is reported and the old one stays.
Exit status: 0 clean, 1 failed at run time, 2 usage or configuration.
A folder named check or plan is served as ./check or ./plan.
";

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
enum Command {
    Serve(Overlay),
    Check(PathBuf),
    Help,
    Version,
}

/// What the arguments say, kept so that a reload can say it again over the file read anew.
#[derive(Debug, Default, PartialEq, Eq)]
struct Overlay {
    config: Option<PathBuf>,
    root: Option<PathBuf>,
    listen: Vec<String>,
    admin: Option<String>,
    shards: Option<String>,
}

/// Why the process ends before or against its wish, and with which status.
#[derive(Debug)]
struct Failure {
    status: u8,
    message: String,
}

/// Runs the command that `arguments` ask for.
pub(crate) fn run(arguments: Parser) -> ExitCode {
    let done = parse(arguments).and_then(|command| match command {
        Command::Serve(overlay) => serve(&overlay),
        Command::Check(file) => check(file),
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

fn parse(mut arguments: Parser) -> Result<Command, Failure> {
    let mut overlay = Overlay::default();
    let mut checking = false;
    let mut first = true;
    while let Some(argument) = arguments.next()? {
        match argument {
            Arg::Short('h') | Arg::Long("help") => return Ok(Command::Help),
            Arg::Short('V') | Arg::Long("version") => return Ok(Command::Version),
            Arg::Short('c') | Arg::Long("config") => {
                once(&mut overlay.config, PathBuf::from(arguments.value()?), "--config")?;
            }
            Arg::Short('l') | Arg::Long("listen") => overlay.listen.push(arguments.value()?.string()?),
            Arg::Long("admin") => once(&mut overlay.admin, arguments.value()?.string()?, "--admin")?,
            Arg::Long("shards") => once(&mut overlay.shards, arguments.value()?.string()?, "--shards")?,
            Arg::Long("tls-cert") => return Err(later("--tls-cert")),
            Arg::Long("tls-key") => return Err(later("--tls-key")),
            Arg::Value(word) if first && word == "check" => checking = true,
            Arg::Value(word) if first && word == "plan" => return Err(later("plan")),
            Arg::Value(root) => once(&mut overlay.root, PathBuf::from(root), "ROOT")?,
            Arg::Short(_) | Arg::Long(_) => return Err(argument.unexpected().into()),
        }
        first = false;
    }
    if !checking {
        return Ok(Command::Serve(overlay));
    }
    match overlay {
        Overlay { config: Some(file), root: None, listen, admin: None, shards: None }
            if listen.is_empty() =>
        {
            Ok(Command::Check(file))
        }
        _ => Err(Failure::usage("check takes -c FILE and nothing else")),
    }
}

impl Overlay {
    /// The configuration file, if any, and the arguments over it.
    fn config(&self) -> Result<Config, Failure> {
        let mut config = Config::new();
        if let Some(file) = &self.config {
            config.load_file(file).map_err(|error| Failure::usage(&error))?;
        }
        let given =
            |option: &'static str| move |error: Error| Failure::usage(format_args!("{option}: {error}"));
        if let Some(root) = &self.root {
            config.set_root(root).map_err(given("ROOT"))?;
        }
        if !self.listen.is_empty() {
            config.set_listeners(&self.listen).map_err(given("--listen"))?;
        }
        if let Some(address) = &self.admin {
            config.set("admin.address", address).map_err(given("--admin"))?;
        }
        if let Some(shards) = &self.shards {
            config.set("shards", shards).map_err(given("--shards"))?;
        }
        Ok(config)
    }

    /// The same, and what it resolves to: whatever is wrong with a configuration shows here, before start.
    fn settings(&self) -> Result<(Config, Settings), Failure> {
        let config = self.config()?;
        let settings = config.resolve(&Server::host(true)).map_err(|error| Failure::usage(&error))?;
        Ok((config, settings))
    }
}

fn check(file: PathBuf) -> Result<(), Failure> {
    let overlay = Overlay { config: Some(file), ..Overlay::default() };
    print(&overlay.settings()?.1.to_yaml())
}

/// Serves until a signal says otherwise.
fn serve(overlay: &Overlay) -> Result<(), Failure> {
    let (config, settings) = overlay.settings()?;
    // Before the start: a signal that comes during it waits here instead of killing a server half made.
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])
        .map_err(|error| Failure::failed(format_args!("cannot wait for signals: {error}")))?;
    let server = Server::start_with(&config, Options { binary: true, ..Options::default() })?;
    for bound in server.addresses() {
        say(format_args!("{} on {}", if bound.admin { "admin" } else { "listening" }, bound.url));
    }
    let server = Arc::new(server);
    let mut drain = settings.timeouts.drain;
    for signal in signals.forever() {
        if signal != SIGHUP {
            break;
        }
        match reload(overlay, &server) {
            Ok(settings) => drain = settings.timeouts.drain,
            Err(failure) => say(format_args!("webserver: not reloaded: {}", failure.message)),
        }
    }
    stop(&server, &mut signals, drain)
}

fn reload(overlay: &Overlay, server: &Server) -> Result<Settings, Failure> {
    let (config, settings) = overlay.settings()?;
    server.reload(&config)?;
    Ok(settings)
}

/// Drains for at most `drain` in a thread of its own, so that a second signal is seen and cuts at once.
fn stop(server: &Arc<Server>, signals: &mut Signals, drain: Duration) -> Result<(), Failure> {
    say(format_args!("webserver: draining for at most {drain:?}; a second signal stops at once"));
    let (stopping, finished) = (Arc::clone(server), signals.handle());
    let stopper = thread::Builder::new().name(String::from("ws-stop")).spawn(move || {
        let stopped = stopping.stop(drain);
        finished.close();
        stopped
    });
    let Ok(stopper) = stopper else {
        // No thread to be had: better a short stop than a deaf one.
        return Ok(server.stop(Duration::ZERO)?);
    };
    for signal in signals.forever() {
        if signal != SIGHUP {
            server.stop_now();
        }
    }
    match stopper.join() {
        Ok(stopped) => Ok(stopped?),
        Err(_) => Err(Failure::failed("a bug: stopping panicked")),
    }
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

fn once<T>(place: &mut Option<T>, value: T, name: &str) -> Result<(), Failure> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(Failure::usage(format_args!("{name} is given twice (see webserver --help)"))),
    }
}

fn later(what: &str) -> Failure {
    Failure::usage(format_args!("{what}: not in this version"))
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

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    fn command(arguments: &[&str]) -> Result<Command, String> {
        parse(Parser::from_args(arguments.iter().map(OsString::from))).map_err(|failure| {
            assert_eq!(failure.status, USAGE);
            failure.message
        })
    }

    #[test]
    fn options_and_root_come_in_any_order() {
        let expected = Overlay {
            config: Some("a.yaml".into()),
            root: Some("site".into()),
            listen: vec!["127.0.0.1:1".to_owned(), "[::1]:2".to_owned()],
            admin: Some("127.0.0.1:3".to_owned()),
            shards: Some("auto".to_owned()),
        };
        let first = ["-c", "a.yaml", "-l", "127.0.0.1:1", "--listen=[::1]:2", "--admin", "127.0.0.1:3"];
        let last = ["--shards", "auto", "site"];
        assert_eq!(command(&[&first[..], &last[..]].concat()), Ok(Command::Serve(expected)));
        assert_eq!(command(&[]), Ok(Command::Serve(Overlay::default())));
    }

    #[test]
    fn check_takes_a_file_alone() {
        assert_eq!(command(&["check", "-c", "a"]), Ok(Command::Check("a".into())));
        for wrong in [&["check"][..], &["check", "a"], &["check", "-c", "a", "-l", "127.0.0.1:1"]] {
            assert_eq!(command(wrong), Err("check takes -c FILE and nothing else".to_owned()));
        }
    }

    #[test]
    fn a_folder_named_check_can_be_served() {
        for arguments in [&["./check"][..], &["--shards", "1", "check"]] {
            assert!(matches!(command(arguments), Ok(Command::Serve(Overlay { root: Some(_), .. }))));
        }
    }

    #[test]
    fn what_is_not_built_yet_says_so() {
        for (arguments, told) in [
            (&["plan", "-c", "a"][..], "plan: not in this version"),
            (&["--tls-cert", "a"], "--tls-cert: not in this version"),
            (&["--tls-key=a"], "--tls-key: not in this version"),
        ] {
            assert_eq!(command(arguments), Err(told.to_owned()));
        }
    }

    #[test]
    fn wrong_usage_names_the_argument() {
        assert!(command(&["--frobnicate"]).unwrap_err().contains("--frobnicate"));
        assert!(command(&["-c"]).unwrap_err().contains("-c"));
        assert!(command(&["a", "b"]).unwrap_err().contains("ROOT is given twice"));
        assert!(
            command(&["--shards", "1", "--shards", "2"]).unwrap_err().contains("--shards is given twice")
        );
    }

    #[test]
    fn arguments_lie_over_the_defaults() {
        let overlay = Overlay {
            root: Some("/srv".into()),
            listen: vec!["[::1]:0".to_owned()],
            admin: Some("[::1]:0".to_owned()),
            shards: Some("3".to_owned()),
            ..Overlay::default()
        };
        let (_, settings) = overlay.settings().unwrap();
        assert_eq!((settings.shards, settings.listeners[0].name.as_str()), (3, "[::1]:0"));
        assert_eq!(settings.admin.unwrap().name, "[::1]:0");
    }

    #[test]
    fn a_wrong_value_names_its_option() {
        let told = |overlay: Overlay| overlay.config().unwrap_err().message;
        let shards = told(Overlay { shards: Some("many".to_owned()), ..Overlay::default() });
        assert_eq!(
            shards,
            "--shards: shards must be auto or a whole number from 1 to 1024, not the text \"many\""
        );
        let listen = told(Overlay { listen: vec!["8080".to_owned()], ..Overlay::default() });
        assert!(listen.starts_with("--listen: listen[0] must be an address such as"), "{listen}");
    }
}
