//! Another process takes over without a connection refused: it is started with every listening socket, and this one
//! ends when it says that it accepts.
//!
//! The sockets go by number: duplicates that are not close-on-exec for as long as it takes to start the process. The
//! variable says which number is for which listener, and by the parent's number for whom it is.

use std::{
    env,
    io::{self, PipeReader, Read},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd, RawFd},
        unix::process::parent_id,
    },
    process::{self, Child, Command},
    sync::mpsc::Sender,
    thread,
    time::{Duration, Instant},
};

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use webserver::{
    Server,
    config::{OpenSocket, Origin},
    sys::{descriptors, socket},
};

use super::{Failure, inherited, serve::Event};

/// `PARENT READY NUMBER:ORIGIN:NAME ...`, where names are percent-encoded and `s` is a supervisor's socket.
pub(super) const VARIABLE: &str = "WEBSERVER_HANDOVER";
/// How long the new process may take until it accepts: more than a server takes to say why it cannot start.
const READY_DEADLINE: Duration = Duration::from_secs(30);
/// How long a process may take to end that has closed the pipe: a moment, for it is exiting.
pub(super) const EXIT_PATIENCE: Duration = Duration::from_secs(2);

/// The process that is to replace this one.
#[derive(Debug)]
pub(super) struct Successor {
    child: Child,
    /// When it is given up.
    pub(super) deadline: Instant,
}

impl Successor {
    /// Starts the program anew, as this process was started, with the sockets that `server` listens on. Of those
    /// `supervised` are the supervisor's. That it is ready, or has ended before, is sent to `events`.
    ///
    /// # Errors
    /// No descriptor, thread or process to be had; a server that is draining. Everything is then as before.
    pub(super) fn start(
        server: &Server,
        supervised: &[OpenSocket],
        events: Sender<Event>,
    ) -> Result<Successor, Failure> {
        let failed =
            |error: io::Error| Failure::failed(format_args!("cannot start another process: {error}"));
        let mut arguments = env::args_os();
        // As it was given and not as what it was then: the file may be another by now, that is what this is for.
        let program =
            arguments.next().ok_or_else(|| Failure::failed("this process has no name to start by"))?;
        let supervised: Vec<u64> =
            supervised.iter().filter_map(|open| socket::inode(open.socket.as_fd()).ok()).collect();
        let (reader, writer) = io::pipe().map_err(failed)?;
        let ready = descriptors::inheritable(writer.as_fd()).map_err(failed)?;
        drop(writer);
        let mut value = format!("{} {}", process::id(), ready.as_raw_fd());
        let mut passed: Vec<OwnedFd> = vec![ready];
        for handed in server.listening_sockets()? {
            let socket = descriptors::inheritable(handed.socket.as_fd()).map_err(failed)?;
            let origin = if supervised.contains(&handed.inode) { 's' } else { 'p' };
            let name = utf8_percent_encode(&handed.name, NON_ALPHANUMERIC);
            value.push_str(&format!(" {}:{origin}:{name}", socket.as_raw_fd()));
            passed.push(socket);
        }
        let mut command = Command::new(program);
        command.args(arguments).env(VARIABLE, value);
        for variable in inherited::VARIABLES {
            command.env_remove(variable);
        }
        let child = command.spawn().map_err(failed)?;
        // The pipe ends when the new process has the only other end of it.
        drop(passed);
        let mut successor = Successor { child, deadline: Instant::now() + READY_DEADLINE };
        let pid = successor.pid();
        let waiter = thread::Builder::new().name(String::from("ws-successor"));
        if let Err(error) = waiter.spawn(move || await_ready(reader, pid, &events)) {
            successor.end(Duration::ZERO);
            return Err(failed(error));
        }
        Ok(successor)
    }

    /// Its process.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// It will not replace this process: ends it if it does not end by itself within `patience`, and says how it did.
    pub(super) fn end(&mut self, patience: Duration) -> String {
        let deadline = Instant::now() + patience;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return format!("it ended with {status}"),
                Ok(None) if Instant::now() < deadline => thread::sleep(Duration::from_millis(1)),
                Ok(None) => break,
                Err(error) => return error.to_string(),
            }
        }
        let _ = self.child.kill();
        match self.child.wait() {
            Ok(_) => String::from("it did not in time, and was ended"),
            Err(error) => error.to_string(),
        }
    }
}

fn await_ready(mut reader: PipeReader, pid: u32, events: &Sender<Event>) {
    let ready = matches!(reader.read(&mut [0]), Ok(1));
    // Nobody is left to be told when this process ends.
    let _ = events.send(Event::Successor { pid, ready });
}

/// What the variable tells a process that is to replace its parent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Handed {
    /// Where to say that this process accepts.
    pub(super) ready: RawFd,
    /// Number, origin and name of each socket.
    pub(super) sockets: Vec<(RawFd, Origin, String)>,
}

impl Handed {
    /// From the environment; `None` for a process that replaces nobody.
    ///
    /// # Errors
    /// The variable is for another process, or is not one that [`Successor::start`] has written.
    pub(super) fn from_environment() -> Result<Option<Handed>, Failure> {
        let Some(value) = env::var_os(VARIABLE) else { return Ok(None) };
        let handed = value.to_str().and_then(|value| Handed::parse(value, parent_id()));
        handed.map(Some).ok_or_else(|| {
            Failure::failed(format_args!(
                "{VARIABLE} is not for this process: it is set by a webserver that starts another"
            ))
        })
    }

    fn parse(value: &str, parent: u32) -> Option<Handed> {
        let mut words = value.split(' ');
        if words.next()?.parse() != Ok(parent) {
            return None;
        }
        let ready = words.next()?.parse().ok()?;
        let sockets = words.map(|word| {
            let mut parts = word.splitn(3, ':');
            let number = parts.next()?.parse().ok()?;
            let origin = match parts.next()? {
                "s" => Origin::Supervisor,
                "p" => Origin::Predecessor,
                _ => return None,
            };
            let name = percent_decode_str(parts.next()?).decode_utf8().ok()?;
            Some((number, origin, name.into_owned()))
        });
        Some(Handed { ready, sockets: sockets.collect::<Option<_>>()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes_for_its_own_child_only() {
        let name = "unix:/run/a b:c%";
        let encoded = utf8_percent_encode(name, NON_ALPHANUMERIC);
        let value = format!("77 4 5:p:127%2E0%2E0%2E1%3A0 6:s:{encoded}");
        let sockets = vec![
            (5, Origin::Predecessor, String::from("127.0.0.1:0")),
            (6, Origin::Supervisor, String::from(name)),
        ];
        assert_eq!(Handed::parse(&value, 77), Some(Handed { ready: 4, sockets }));
        assert_eq!(Handed::parse(&value, 78), None);
        assert_eq!(Handed::parse("77 4", 77), Some(Handed { ready: 4, sockets: Vec::new() }));
        for wrong in ["", "77", "77 x", "77 4 5", "77 4 5:p", "77 4 5:q:a", "77 4 x:p:a", "77 4 5:p:%ff"] {
            assert_eq!(Handed::parse(wrong, 77), None, "{wrong:?}");
        }
    }
}
