//! What an established connection feels while others flood the server with handshakes.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    os::fd::AsFd,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use rustls::ClientConnection;
use webserver::sys::epoll::{self, Epoll, Event};

use super::{
    File, Resumes, Site, Version,
    client::Client,
    config,
    load::{Job, Load},
    server_name,
};
use crate::common::{
    LOAD_CORE, Outcome,
    process::pin_thread,
    quantile,
    servers::{Kind, Server},
    table,
};

const CONNECTIONS: usize = 200;
/// How long the flood lasts before the connection is looked at.
const RISES: Duration = Duration::from_millis(300);

/// What floods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flood {
    Nobody,
    /// ClientHellos: who is answered leaves at once and comes back.
    Hellos,
    /// Whole handshakes with a request each.
    Handshakes,
}

const FLOODS: [(Flood, &str); 3] = [
    (Flood::Nobody, "alone"),
    (Flood::Hellos, "200 send ClientHellos"),
    (Flood::Handshakes, "200 connect and ask"),
];

/// The rows of one server: what floods; the flood's handshakes a second; the connection's requests a second, and its median,
/// 99th percentile and longest wait in microseconds.
///
/// # Errors
/// The server answers wrongly.
pub fn measure(site: &Site, kind: Kind, lasts: Duration) -> Outcome<Vec<Vec<String>>> {
    let mut rows = Vec::new();
    for (flood, title) in FLOODS {
        let failed = |error: String| format!("{}, {title}: {error}", kind.name());
        let server = site.serve(kind, File::SMALL)?;
        let (flooded, waits) = beside(flood, &server, lasts).map_err(failed)?;
        let share = |share| format!("{:.0}", quantile(&waits, share));
        rows.push(vec![
            format!("{}, {title}", kind.name()),
            if flood == Flood::Nobody { "-".to_owned() } else { table::rate(flooded) },
            table::rate(waits.len() as f64 / lasts.as_secs_f64()),
            share(0.5),
            share(0.99),
            share(1.0),
        ]);
    }
    Ok(rows)
}

/// The flood's handshakes a second, and how long each request of the established connection took beside it, sorted, in
/// microseconds.
fn beside(flood: Flood, server: &Server, lasts: Duration) -> Outcome<(f64, Vec<f64>)> {
    let mut client = Client::connect(server.port, &config(Version::Tls13, Resumes::Never)?)?;
    client.expect(File::SMALL)?;
    let ends = AtomicBool::new(false);
    thread::scope(|scope| {
        let begun = Instant::now();
        let flooding = scope.spawn(|| {
            pin_thread(LOAD_CORE);
            give_way();
            match flood {
                Flood::Nobody => Ok(0),
                Flood::Hellos => hellos(server.port, &ends),
                Flood::Handshakes => handshakes(server.port, &ends),
            }
        });
        let waits = waits(&mut client, lasts);
        ends.store(true, Relaxed);
        let flooded = flooding.join().map_err(|_| "the flood panicked".to_owned())??;
        Ok((flooded as f64 / begun.elapsed().as_secs_f64(), waits?))
    })
}

fn waits(client: &mut Client, lasts: Duration) -> Outcome<Vec<f64>> {
    thread::sleep(RISES);
    let mut waits = Vec::new();
    let begun = Instant::now();
    while begun.elapsed() < lasts {
        let asked = Instant::now();
        client.expect(File::SMALL)?;
        waits.push(asked.elapsed().as_secs_f64() * 1e6);
    }
    waits.sort_by(f64::total_cmp);
    Ok(waits)
}

/// The flood has the core when the connection that is measured does not want it: else its waits would be for this program.
fn give_way() {
    let lowest = libc::sched_param { sched_priority: 0 };
    // SAFETY: the parameter is initialised and outlives the call; 0 is the calling thread.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const lowest) };
}

fn handshakes(port: u16, ends: &AtomicBool) -> Outcome<u64> {
    let job = Job { places: CONNECTIONS, file: File::SMALL, closing: true };
    Load::new(port, config(Version::Tls13, Resumes::Never)?, job)?
        .run(|| !ends.load(Relaxed))
        .map(|done| done.handshakes)
}

/// The hello is the same each time, so that sending it costs next to nothing; the server cannot know.
fn hellos(port: u16, ends: &AtomicBool) -> Outcome<u64> {
    let failed = |error: io::Error| format!("a hello: {error}");
    let tls = ClientConnection::new(config(Version::Tls13, Resumes::Never)?, server_name());
    let mut hello = Vec::new();
    tls.map_err(io::Error::other).and_then(|mut tls| tls.write_tls(&mut hello)).map_err(failed)?;
    let epoll = Epoll::new().map_err(failed)?;
    let open = |token: usize| {
        let mut socket = TcpStream::connect(("127.0.0.1", port))?;
        socket.set_nonblocking(true)?;
        leave_at_once(&socket)?;
        socket.write_all(&hello)?;
        epoll.add(socket.as_fd(), token as u64, epoll::SOCKET)?;
        Ok(socket)
    };
    let mut sockets = (0..CONNECTIONS).map(open).collect::<io::Result<Vec<_>>>().map_err(failed)?;
    let (mut answered, mut piece) = (0, [0; 8192]);
    while !ends.load(Relaxed) {
        let mut events = [Event::EMPTY; 64];
        let ready = epoll.wait(&mut events, false).map_err(failed)?;
        if ready.is_empty() {
            thread::sleep(Duration::from_micros(50));
        }
        for event in ready {
            let index = event.token() as usize;
            match sockets[index].read(&mut piece) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Ok(count) if count > 0 => answered += 1,
                // Turned away: it comes back all the same.
                _ => {}
            }
            sockets[index] = open(index).map_err(failed)?;
        }
    }
    Ok(answered)
}

/// Closing resets the connection, so that ports do not run out.
fn leave_at_once(socket: &TcpStream) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    let size = size_of::<libc::linger>() as libc::socklen_t;
    // SAFETY: the option is initialised, has this size and outlives the call.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size,
        )
    };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
