//! Thousands of connections that hold what a server gives them: opened, held and let go by a process of their own, for
//! their descriptors are as many as the server's.
//!
//! This is the bench's side; the process is the bench's program again ([`generate`]).

#![allow(dead_code, reason = "each bench is a program of its own and uses its part of this")]

use std::{
    env,
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio},
    time::Duration,
};

mod answer;
mod connection;
mod generator;

use crate::common::{LOAD_CORE, Outcome, process::pin_on_start};

/// The first argument that makes the bench's program the attacking process.
const ARGUMENT: &str = "attack";

/// What each of the connections does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Asks for the small file, and keeps the connection.
    Idle,
    /// Asks for the large file and reads 4 KB of it a second, through a small window.
    Reader,
    /// Sends up to three bytes of a head every second or two. Who is turned away comes back two seconds later.
    Writer,
    /// Sends so many bytes of a head at once, and nothing more.
    Head(usize),
}

/// So many connections.
pub struct Load<'a> {
    /// How many at once.
    pub count: usize,
    /// What they do: the first does the first, the second the second, and so on, in turns.
    pub kinds: &'a [Kind],
    /// As fast as the server takes them, instead of 4,000 a second.
    pub at_once: bool,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Its request was answered with 200, whole.
    Answered,
    /// It got a whole 503.
    Refused,
    /// It got another whole response: 408, 431.
    Other,
    /// It asked for nothing that could be answered yet, or was still being sent its answer, when it left.
    Held,
    /// The server closed it, in order, without an answer.
    Finished,
    /// The server reset it without an answer.
    Reset,
    /// The server closed or reset it within an answer.
    Cut,
    /// It had asked, and the server neither answered nor closed it within [`HANGS_AFTER`], or sent a slow reader nothing.
    Hung,
    /// It never came to be: refused, or not accepted in time.
    Unconnected,
}

/// How long a connection waits for an answer that is due, once the attack has ended.
pub const HANGS_AFTER: Duration = Duration::from_secs(10);

impl Fate {
    /// Every fate and its name, in the order of the table.
    pub const ALL: [(Fate, &'static str); 9] = [
        (Fate::Answered, "200"),
        (Fate::Refused, "503"),
        (Fate::Other, "other"),
        (Fate::Held, "held"),
        (Fate::Finished, "FIN"),
        (Fate::Reset, "RST"),
        (Fate::Cut, "cut"),
        (Fate::Hung, "hung"),
        (Fate::Unconnected, "refused"),
    ];
}

/// How many connections had which fate.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally([u64; Fate::ALL.len()]);

impl Tally {
    /// Connections with this fate.
    pub fn of(&self, fate: Fate) -> u64 {
        self.0[fate as usize]
    }

    /// Connections.
    pub fn sum(&self) -> u64 {
        self.0.iter().sum()
    }

    fn count(&mut self, fate: Fate) {
        self.0[fate as usize] += 1;
    }
}

/// An attack under way. Dropping it kills its process, and so closes every connection.
pub struct Attack {
    child: Child,
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Attack {
    /// Starts it against `port` of this machine, on the load's core.
    ///
    /// # Errors
    /// The process does not start.
    pub fn start(load: &Load<'_>, port: u16) -> Outcome<Attack> {
        let failed = |error| format!("cannot start the attacking process: {error}");
        let kinds: Vec<String> = load.kinds.iter().map(|kind| kind.to_argument()).collect();
        let mut command = Command::new(env::current_exe().map_err(failed)?);
        command.args([ARGUMENT, &port.to_string(), &load.count.to_string(), &load.at_once.to_string()]);
        command.args(kinds).stdin(Stdio::piped()).stdout(Stdio::piped());
        pin_on_start(&mut command, LOAD_CORE);
        let mut child = command.spawn().map_err(failed)?;
        let commands = child.stdin.take();
        let answers = child.stdout.take().ok_or("the attacking process has no output")?;
        Ok(Attack { child, commands, answers: BufReader::new(answers) })
    }

    /// Waits until each connection is open and has sent what it sends at first, or was turned away; returns how many are
    /// open then.
    ///
    /// # Errors
    /// The process ended.
    pub fn await_held(&mut self) -> Outcome<u64> {
        Ok(self.receive(&["held"])?[0])
    }

    /// Lets every connection end: who can still be answered asks for it (`Idle` again, `Writer` ends its head) and waits at
    /// most [`HANGS_AFTER`], the others leave.
    ///
    /// # Errors
    /// The process ended.
    pub fn end(mut self) -> Outcome<Tally> {
        if let Some(mut commands) = self.commands.take() {
            writeln!(commands, "end").map_err(|error| format!("the attacking process is gone: {error}"))?;
        }
        let names = Fate::ALL.map(|(_, name)| name);
        let counts = self.receive(&names)?;
        let mut tally = Tally::default();
        tally.0.copy_from_slice(&counts);
        // It ends by itself; an error means that it was waited for already.
        let _ = self.child.wait();
        Ok(tally)
    }

    /// Reads lines of a name and a number, one for each of `names` in their order.
    fn receive(&mut self, names: &[&str]) -> Outcome<Vec<u64>> {
        let mut line = String::new();
        let number = |name: &&str| {
            line.clear();
            self.answers.read_line(&mut line).map_err(|error| format!("the attack says nothing: {error}"))?;
            let count = line.strip_prefix(name).and_then(|rest| rest.trim().parse().ok());
            count.ok_or_else(|| format!("the attack says {line:?} where {name} is due"))
        };
        names.iter().map(number).collect()
    }
}

impl Drop for Attack {
    fn drop(&mut self) {
        // Errors mean that it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Kind {
    fn to_argument(self) -> String {
        match self {
            Kind::Idle => "idle".to_owned(),
            Kind::Reader => "reader".to_owned(),
            Kind::Writer => "writer".to_owned(),
            Kind::Head(bytes) => bytes.to_string(),
        }
    }

    fn from_argument(text: &str) -> Option<Kind> {
        match text {
            "idle" => Some(Kind::Idle),
            "reader" => Some(Kind::Reader),
            "writer" => Some(Kind::Writer),
            bytes => bytes.parse().ok().map(Kind::Head),
        }
    }
}

/// What a bench's `main` does first: if this is the attacking process, attacks, and says how that ended.
pub fn generate() -> Option<ExitCode> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [first, port, count, at_once, kinds @ ..] = &arguments[..] else { return None };
    if first != ARGUMENT {
        return None;
    }
    let kinds: Option<Vec<Kind>> = kinds.iter().map(|text| Kind::from_argument(text)).collect();
    let (Ok(port), Ok(count), Some(kinds)) = (port.parse(), count.parse(), kinds) else { return None };
    let load = Load { count, kinds: &kinds, at_once: at_once == "true" };
    Some(match generator::run(&load, port) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("attack: {error}");
            ExitCode::FAILURE
        }
    })
}
