//! What asks: wrk for throughput, a small blocking client for checks, idle connections and latencies.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    process::{Command, Stdio},
    time::Duration,
};

use super::{LOAD_CORE, Outcome, process, process::Process};

/// What wrk did against a server, and what that cost the server.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Requests answered per second of the server's CPU time.
    pub per_cpu_second: f64,
    /// Requests answered per second of the clock.
    pub per_second: f64,
}

/// What wrk shall ask for.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Path of the URL.
    pub path: &'a str,
    /// Connections at once.
    pub connections: usize,
    /// Each request says `Connection: close` and has a connection of its own.
    pub closing: bool,
}

/// One keep-alive connection that asks and waits. Answers must carry `Content-Length`.
pub struct Client {
    stream: TcpStream,
    received: Vec<u8>,
    /// Of the last answer; 0 until its head has come.
    pub status: u16,
    /// The last answer said that the connection ends with it.
    pub ends: bool,
}

impl Client {
    /// Connects to `port` on this machine. An answer may take 30 seconds.
    ///
    /// # Errors
    /// The connection is refused.
    pub fn connect(port: u16) -> Outcome<Client> {
        let stream =
            TcpStream::connect(("127.0.0.1", port)).map_err(|error| format!("cannot connect: {error}"))?;
        let failed = |error| format!("cannot set up a connection: {error}");
        stream.set_nodelay(true).map_err(failed)?;
        stream.set_read_timeout(Some(Duration::from_secs(30))).map_err(failed)?;
        Ok(Client { stream, received: Vec::new(), status: 0, ends: false })
    }

    /// Sends one request for `path`.
    ///
    /// # Errors
    /// The server closed the connection.
    pub fn ask(&mut self, path: &str) -> Outcome<()> {
        self.ask_with(path, "")
    }

    /// The same with more header fields, each line ended.
    ///
    /// # Errors
    /// The server closed the connection.
    pub fn ask_with(&mut self, path: &str, fields: &str) -> Outcome<()> {
        self.status = 0;
        let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{fields}\r\n");
        self.stream.write_all(request.as_bytes()).map_err(|error| format!("cannot send: {error}"))
    }

    /// Receives a head and returns what its `Content-Length` announces; the body is still to be received.
    ///
    /// # Errors
    /// The status is not 200, the length is missing, or the connection ends.
    pub fn receive_head(&mut self) -> Outcome<u64> {
        let end = loop {
            if let Some(at) = self.received.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            self.receive_more()?;
        };
        let head: Vec<u8> = self.received.drain(..end).collect();
        let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
        let status = head.strip_prefix("http/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
        self.status = status.unwrap_or(0);
        if self.status != 200 {
            return Err(format!("answered {:?} instead of 200", head.lines().next().unwrap_or_default()));
        }
        self.ends = head.contains("\r\nconnection: close\r\n");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
        length.ok_or_else(|| "an answer without Content-Length".to_owned())
    }

    /// Receives a whole answer and returns its body.
    ///
    /// # Errors
    /// Those of [`Client::receive_head`].
    pub fn receive(&mut self) -> Outcome<Vec<u8>> {
        let length = self.receive_head()? as usize;
        while self.received.len() < length {
            self.receive_more()?;
        }
        Ok(self.received.drain(..length).collect())
    }

    /// The socket.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// What came after the last head or body, and the socket.
    pub fn into_parts(self) -> (TcpStream, Vec<u8>) {
        (self.stream, self.received)
    }

    fn receive_more(&mut self) -> Outcome<()> {
        let mut piece = [0; 65536];
        match self.stream.read(&mut piece) {
            Ok(0) => Err("the server closed the connection".to_owned()),
            Ok(count) => {
                self.received.extend_from_slice(&piece[..count]);
                Ok(())
            }
            Err(error) => Err(format!("no answer: {error}")),
        }
    }
}

/// The body of `path`, asked for on a connection of its own.
///
/// # Errors
/// Anything but a whole answer with status 200.
pub fn fetch(port: u16, path: &str) -> Outcome<Vec<u8>> {
    let mut client = Client::connect(port)?;
    client.ask(path)?;
    client.receive()
}

/// `count` connections that have each asked for `path` once, got `body`, and are idle now.
///
/// # Errors
/// The first connection that was refused or answered otherwise.
pub fn idle_connections(port: u16, count: usize, path: &str, body: &[u8]) -> Outcome<Vec<Client>> {
    let mut clients = Vec::with_capacity(count);
    for index in 0..count {
        let mut client = Client::connect(port).map_err(|error| format!("connection {index}: {error}"))?;
        client.ask(path)?;
        let got = client.receive().map_err(|error| format!("connection {index}: {error}"))?;
        if got != body {
            return Err(format!("connection {index}: {} wrong bytes", got.len()));
        }
        clients.push(client);
    }
    Ok(clients)
}

/// Runs wrk with one thread on the load core against `server` and reads the server's CPU time around it.
///
/// # Errors
/// wrk is missing, or it saw a socket error or a status other than 2xx and 3xx: such a run measures nothing.
pub fn wrk(server: &Process, port: u16, request: &Request<'_>, seconds: u64) -> Outcome<Load> {
    let url = format!("http://127.0.0.1:{port}{}", request.path);
    let mut command = Command::new("wrk");
    command.args(["-t1", &format!("-c{}", request.connections), &format!("-d{seconds}s"), &url]);
    if request.closing {
        command.args(["-H", "Connection: close"]);
    }
    command.stdin(Stdio::null());
    process::pin_on_start(&mut command, LOAD_CORE);
    let before = server.cpu_seconds();
    let output = command.output().map_err(|error| format!("cannot run wrk ({error}): {}", install("wrk")))?;
    let spent = server.cpu_seconds() - before;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (requests, lasted) = parse_wrk(&text)?;
    if !output.status.success() || requests == 0 || spent <= 0.0 {
        return Err(format!("wrk measured nothing in {spent} CPU-seconds; it printed: {text}"));
    }
    Ok(Load { per_cpu_second: requests as f64 / spent, per_second: requests as f64 / lasted })
}

/// Requests and seconds from wrk's report (`61234 requests in 5.01s, 8.20MB read`).
fn parse_wrk(text: &str) -> Outcome<(u64, f64)> {
    let complaint = text.lines().find(|line| line.contains("Socket errors") || line.contains("Non-2xx"));
    if let Some(line) = complaint {
        return Err(format!("wrk saw failures, so this is no measurement: {}", line.trim()));
    }
    wrk_figures(text)
}

fn wrk_figures(text: &str) -> Outcome<(u64, f64)> {
    let line = text.lines().find_map(|line| line.trim().split_once(" requests in "));
    let (requests, rest) = line.ok_or_else(|| format!("wrk printed no figures: {text}"))?;
    let lasted = rest.split(',').next().and_then(seconds);
    match (requests.parse().ok(), lasted) {
        (Some(requests), Some(lasted)) => Ok((requests, lasted)),
        _ => Err(format!("wrk printed figures that cannot be read: {text}")),
    }
}

/// Requests that wrk saw answered and that it saw fail, from its report.
///
/// # Errors
/// The report has no such figures.
pub fn wrk_failures(text: &str) -> Outcome<(u64, u64)> {
    let (answered, _) = wrk_figures(text)?;
    let numbers = |line: &str| -> u64 {
        line.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse::<u64>().ok()).sum()
    };
    let count =
        |start: &str| text.lines().find_map(|line| line.trim().strip_prefix(start)).map_or(0, numbers);
    // `Socket errors: connect 0, read 3, write 0, timeout 0`, `Non-2xx or 3xx responses: 2`.
    Ok((answered, count("Socket errors:") + count("Non-2xx or 3xx responses:")))
}

/// wrk writes `5.01s` or `1.00m`.
fn seconds(text: &str) -> Option<f64> {
    match text.strip_suffix('m') {
        Some(minutes) => minutes.parse::<f64>().ok().map(|minutes| minutes * 60.0),
        None => text.strip_suffix('s')?.parse().ok(),
    }
}

/// Whether `program` is found in `PATH`.
pub fn installed(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':').chain(["/usr/sbin"]).any(|folder| fs::metadata(format!("{folder}/{program}")).is_ok())
}

/// What to type when `package` is missing.
pub fn install(package: &str) -> String {
    format!("install it with `apt-get install {package}`")
}
