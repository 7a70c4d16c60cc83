//! The attacking process: one thread, one epoll set, connections that are opened, fed and told to end. A line on standard
//! input, or its end, ends the attack; what is said on standard output is for [`super::Attack`].

use std::{
    collections::VecDeque,
    io,
    os::fd::AsFd,
    thread,
    time::{Duration, Instant},
};

use webserver::sys::epoll::{self, Epoll, Event};

use super::{Fate, Kind, Load, Tally, connection::Connection};
use crate::common::process::raise_descriptor_limit;

/// The token of standard input.
const COMMANDS: u64 = u64::MAX;
/// Between two looks at what is due.
const TICK: Duration = Duration::from_millis(50);
/// Between two looks at the epoll set when it had nothing.
const REST: Duration = Duration::from_millis(1);
/// Connections that wait to be accepted: fewer than a listener's queue holds, which would drop the others for a second.
const CONNECTING_MAX: usize = 256;
/// Connections opened in a row, about a millisecond.
const OPENED_AT_ONCE_MAX: usize = 64;
const OPENED_MAX: usize = 4;
/// After which who was turned away comes back, if its kind does.
const RETURNS_AFTER: Duration = Duration::from_secs(2);

struct Generator<'a> {
    load: &'a Load<'a>,
    port: u16,
    epoll: Epoll,
    places: Vec<Place>,
    /// Places without a connection, and when one comes; the earliest first.
    due: VecDeque<(Instant, usize)>,
    /// Connections opened so far, of all places.
    opened: usize,
    connecting: usize,
    tally: Tally,
    scratch: Vec<u8>,
}

/// A connection's place; another may follow in it.
struct Place {
    connection: Option<Connection>,
    /// One has settled here, or has ended.
    settled: bool,
}

/// Attacks until told to end, waits for answers that are due, and prints what became of the connections.
///
/// # Errors
/// There is no epoll set, or no port or descriptor left.
pub fn run(load: &Load<'_>, port: u16) -> io::Result<()> {
    raise_descriptor_limit();
    let now = Instant::now();
    let mut generator = Generator {
        load,
        port,
        epoll: Epoll::new()?,
        places: (0..load.count).map(|_| Place { connection: None, settled: false }).collect(),
        due: (0..load.count).map(|index| (now, index)).collect(),
        opened: 0,
        connecting: 0,
        tally: Tally::default(),
        scratch: vec![0; 1 << 16],
    };
    generator.attack()?;
    generator.end()?;
    for (fate, name) in Fate::ALL {
        println!("{name} {}", generator.tally.of(fate));
    }
    Ok(())
}

impl Generator<'_> {
    fn attack(&mut self) -> io::Result<()> {
        let commands = io::stdin();
        self.epoll.add(commands.as_fd(), COMMANDS, epoll::READABLE)?;
        let mut told = false;
        let mut ticked = Instant::now();
        loop {
            let now = Instant::now();
            let ticks = now.duration_since(ticked) >= TICK;
            self.open_some(now)?;
            if ticks {
                ticked = now;
                self.tick(now);
            }
            if !told && ticks && self.places.iter().all(|place| place.settled) {
                told = true;
                let held = self.places.iter().filter(|place| place.connection.is_some()).count();
                println!("held {held}");
            }
            if self.turn(now)? {
                self.epoll.remove(commands.as_fd())?;
                return Ok(());
            }
        }
    }

    fn end(&mut self) -> io::Result<()> {
        let now = Instant::now();
        for index in 0..self.places.len() {
            self.act(index, |connection, scratch| connection.end(scratch, now));
        }
        while self.places.iter().any(|place| place.connection.is_some()) {
            let now = Instant::now();
            self.tick(now);
            self.turn(now)?;
        }
        Ok(())
    }

    /// Opens what is due, as fast as the load allows.
    fn open_some(&mut self, now: Instant) -> io::Result<()> {
        let most = if self.load.at_once { OPENED_AT_ONCE_MAX } else { OPENED_MAX };
        let room = most.min(CONNECTING_MAX.saturating_sub(self.connecting));
        for _ in 0..room {
            let Some((_, index)) = self.due.pop_front_if(|(due, _)| *due <= now) else { break };
            let kind = self.load.kinds[index % self.load.kinds.len()];
            let connection = Connection::open(kind, self.port, self.opened, now)?;
            self.epoll.add(connection.stream().as_fd(), index as u64, epoll::SOCKET)?;
            self.opened += 1;
            self.connecting += 1;
            self.places[index].connection = Some(connection);
        }
        Ok(())
    }

    fn tick(&mut self, now: Instant) {
        for index in 0..self.places.len() {
            self.act(index, |connection, scratch| connection.on_time(scratch, now));
        }
    }

    /// Serves what epoll reports; whether the attack is to end.
    fn turn(&mut self, now: Instant) -> io::Result<bool> {
        let mut events = [Event::EMPTY; 256];
        let ready = self.epoll.wait(&mut events, false)?;
        let mut ends = false;
        if ready.is_empty() {
            thread::sleep(REST);
        }
        for event in ready {
            if event.token() == COMMANDS {
                ends = true;
                continue;
            }
            let writable = event.writable() || event.broken();
            let index = event.token() as usize;
            self.act(index, |connection, scratch| connection.on_event(writable, scratch, now));
        }
        Ok(ends)
    }

    /// Lets a connection act, and clears its place when that was its end.
    fn act(&mut self, index: usize, act: impl FnOnce(&mut Connection, &mut [u8]) -> Option<Fate>) {
        let place = &mut self.places[index];
        let Some(connection) = &mut place.connection else { return };
        let connecting = connection.connecting();
        let fate = act(connection, &mut self.scratch);
        if connecting && (fate.is_some() || !connection.connecting()) {
            self.connecting -= 1;
        }
        place.settled |= fate.is_some() || connection.settled();
        if let Some(fate) = fate {
            self.tally.count(fate);
            place.connection = None;
            let kind = self.load.kinds[index % self.load.kinds.len()];
            if kind == Kind::Writer {
                self.due.push_back((Instant::now() + RETURNS_AFTER, index));
            }
        }
    }
}
