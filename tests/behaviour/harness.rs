//! A server for a test, a folder to serve, and a client that says exactly what it is told.

use std::{
    fs,
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    path::Path,
    time::{Duration, Instant},
};

use webserver::{Server, config::Config, server::Options};

/// Longer than anything a test waits for unless something is broken.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A running server with a folder of its own.
pub struct TestServer {
    pub server: Server,
    pub folder: tempfile::TempDir,
    pub address: SocketAddr,
}

impl TestServer {
    /// Serves `files` (path below the root, content) with one shard and default settings.
    pub fn with_files(files: &[(&str, &[u8])]) -> Self {
        Self::start("", files)
    }

    /// Serves `files` with more configuration: YAML of top-level keys other than `listen` and `routes`.
    pub fn start(yaml: &str, files: &[(&str, &[u8])]) -> Self {
        Self::with_route("", yaml, files)
    }

    /// The same with more keys of the one route: lines that begin with four spaces.
    pub fn with_route(route: &str, yaml: &str, files: &[(&str, &[u8])]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (path, content) in files {
            write(folder.path(), path, content);
        }
        let root = folder.path().display();
        let shards = if yaml.contains("shards:") { "" } else { "shards: 1\n" };
        let text = format!(
            "{shards}listen: [\"127.0.0.1:0\"]\nroutes:\n  - path: /\n    root: {root}\n{route}\n{yaml}\n"
        );
        Self::from_yaml(&text, folder)
    }

    /// Starts from a complete configuration. `folder` is kept until the server is gone.
    pub fn from_yaml(text: &str, folder: tempfile::TempDir) -> Self {
        Self::with_options(text, folder, Options::default())
    }

    /// The same with what no configuration can say.
    pub fn with_options(text: &str, folder: tempfile::TempDir, options: Options) -> Self {
        let mut config = Config::new();
        config.load_yaml(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let server = Server::start_with(&config, options).unwrap_or_else(|error| panic!("{error}"));
        let address = SocketAddr::from(([127, 0, 0, 1], server.port(None).unwrap_or(0)));
        TestServer { server, folder, address }
    }

    pub fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    /// One request on a connection of its own.
    pub fn get(&self, path: &str) -> Response {
        let mut client = self.connect();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"));
        client.response()
    }

    /// One request with more header fields, each line ended, on a connection of its own.
    pub fn request(&self, method: &str, target: &str, fields: &str) -> Response {
        self.connect().request(method, target, fields)
    }

    pub fn write(&self, path: &str, content: &[u8]) {
        write(self.folder.path(), path, content);
    }

    /// One sample of the metrics, by its name and labels as they stand in the text; 0 when there is none.
    pub fn metric(&self, series: &str) -> u64 {
        let text = self.server.metrics_text();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map_or(0, |value| value.trim().parse::<f64>().unwrap() as u64)
    }

    /// Waits until a metric has reached a value.
    pub fn await_metric(&self, series: &str, wanted: u64) {
        wait_until(&format!("{series} to reach {wanted}"), || self.metric(series) >= wanted);
    }

    /// Waits until no connection is left: neither with a request nor without.
    pub fn await_no_connections(&self) {
        wait_until("the last connection to leave", || {
            self.metric("webserver_connections_active") + self.metric("webserver_connections_idle") == 0
        });
    }
}

/// Starts a server from a complete configuration, or says why not.
pub fn try_start(text: &str) -> webserver::Result<Server> {
    let mut config = Config::new();
    config.load_yaml(text)?;
    Server::start(&config)
}

/// Waits for something that an event elsewhere will make true.
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub fn write(folder: &Path, path: &str, content: &[u8]) {
    let path = folder.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// A connection that says exactly what it is told; over TLS it is a `TlsClient`.
pub struct Client<S = TcpStream> {
    pub stream: S,
    /// Received and not yet used.
    pub received: Vec<u8>,
}

impl From<TcpStream> for Client {
    fn from(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Client { stream, received: Vec::new() }
    }
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        Client::from(TcpStream::connect(address).unwrap())
    }

    /// No more will be sent.
    pub fn finish(&mut self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }
}

impl<S: Read + Write> Client<S> {
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    /// Sends what the peer may refuse to take because it closed.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// One request without a body and its response; `fields` are more header fields, each line ended.
    pub fn request(&mut self, method: &str, target: &str, fields: &str) -> Response {
        let host = if fields.starts_with("Host:") { "" } else { "Host: test\r\n" };
        self.send(format!("{method} {target} HTTP/1.1\r\n{host}{fields}\r\n"));
        self.read_response(method == "HEAD")
    }

    /// Sends a request that is not HEAD and waits for its response.
    pub fn ask(&mut self, request: impl AsRef<[u8]>) -> Response {
        self.send(request);
        self.response()
    }

    /// The next response to a request that was not HEAD.
    pub fn response(&mut self) -> Response {
        self.read_response(false)
    }

    /// The next response to a HEAD request.
    pub fn head_response(&mut self) -> Response {
        self.read_response(true)
    }

    fn read_response(&mut self, head_only: bool) -> Response {
        let end = loop {
            if let Some(position) = find(&self.received, b"\r\n\r\n") {
                break position + 4;
            }
            assert!(
                self.receive() > 0,
                "closed before a head: {:?}",
                String::from_utf8_lossy(&self.received)
            );
        };
        let head = String::from_utf8(self.received.drain(..end).collect()).unwrap();
        let mut lines = head.split("\r\n");
        let status_line = lines.next().unwrap().to_owned();
        let status: u16 = status_line.split(' ').nth(1).unwrap().parse().unwrap();
        let fields: Vec<(String, String)> = lines
            .filter(|line| !line.is_empty())
            .map(|line| {
                let (name, value) = line.split_once(": ").unwrap_or_else(|| panic!("field {line:?}"));
                (name.to_ascii_lowercase(), value.to_owned())
            })
            .collect();
        let mut response = Response { status, status_line, fields, body: Vec::new() };
        if head_only || status < 200 || status == 204 || status == 304 {
            return response;
        }
        let length: usize =
            response.field("content-length").unwrap_or_else(|| panic!("no length:\n{head}")).parse().unwrap();
        while self.received.len() < length {
            assert!(self.receive() > 0, "closed {} bytes before the end", length - self.received.len());
        }
        response.body = self.received.drain(..length).collect();
        response
    }

    /// Whether a first byte came, of whatever it is.
    pub fn response_begins(&mut self) -> bool {
        !self.received.is_empty() || self.receive() > 0
    }

    /// Everything until the peer closes.
    pub fn rest(&mut self) -> Vec<u8> {
        while self.receive() > 0 {}
        std::mem::take(&mut self.received)
    }

    /// Waits for the peer to close; fails when it sends something first.
    pub fn expect_close(&mut self) {
        let rest = self.rest();
        assert!(rest.is_empty(), "unexpected {:?}", String::from_utf8_lossy(&rest));
    }

    /// Waits for the peer to end the stream in order: fails when it sends something first, or resets.
    pub fn expect_finish(&mut self) {
        assert!(self.received.is_empty(), "unexpected {:?}", String::from_utf8_lossy(&self.received));
        let mut buffer = [0; 256];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return,
                Ok(count) => panic!("unexpected {:?}", String::from_utf8_lossy(&buffer[..count])),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => panic!("not closed in order: {error}"),
            }
        }
    }

    /// Receives once; 0 when the peer closed or reset.
    pub fn receive(&mut self) -> usize {
        let mut buffer = [0; 16 << 10];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(count) => {
                    self.received.extend_from_slice(&buffer[..count]);
                    return count;
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return 0,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => panic!("receive: {error}"),
            }
        }
    }
}

#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub status_line: String,
    /// Names in lower case, in the order sent.
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }
}

/// Bytes that are the same each time and never repeat in a way that would hide a shift.
pub fn content(length: usize) -> Vec<u8> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..length).map(|_| next()).collect()
}

pub fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}
