//! A hot request allocates nothing: neither on its shard nor anywhere else in the process.
//!
//! One test, because the counter is the whole process's and another would be counted with it.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    rc::Rc,
    time::{Duration, Instant},
};

use webserver::{
    Server,
    config::Config,
    http::{Request, Status},
    memory::heap::CountingAllocator,
    metrics::heap,
    server::Options,
    service::{Body, BodyWanted, Call, Context, Handler, Handlers, Outcome, Response},
};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Until caches hold the file, buffers have grown to their size and idle threads have gone to sleep.
const WARM_UP: usize = 200;
const REQUESTS: usize = 1000;
const RESPONSE_BYTES_MAX: usize = 32 << 10;

/// Answers with a field and 1 KB, or the body of the request.
struct Answering;

impl Handler for Answering {
    fn handle(self: Rc<Self>, call: &Call<'_>, context: &Rc<Context>) -> Outcome {
        let mut response = Response::new(Status::OK);
        response.fields = context.buffer();
        response.push_field("Content-Type", b"application/octet-stream");
        let mut body = context.buffer();
        body.extend_from_slice(if call.body.is_empty() { &[b'x'; 1024] } else { call.body });
        response.body = Body::Owned(body);
        Outcome::Ready(response)
    }

    fn body_wanted(&self, _: Request<'_>) -> BodyWanted {
        BodyWanted::Whole
    }
}

/// A client that allocates nothing after it was made.
struct Client {
    stream: TcpStream,
    request: Vec<u8>,
    response: [u8; RESPONSE_BYTES_MAX],
    /// Length of one whole response, learnt from the first.
    length: usize,
}

impl Client {
    fn new(port: u16, target: &str, fields: &str, body: &str, pipelined: usize) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let request = format!("GET {target} HTTP/1.1\r\nHost: test\r\n{fields}\r\n{body}")
            .repeat(pipelined)
            .into_bytes();
        Client { stream, request, response: [0; RESPONSE_BYTES_MAX], length: 0 }
    }

    /// Learns how long a response is: what one request that closes its connection gets, without that field.
    fn learn(mut self, port: u16, status: &str, pipelined: usize) -> Self {
        let one = str::from_utf8(&self.request[..self.request.len() / pipelined]).unwrap();
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let request = one.replacen("\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1);
        stream.write_all(request.as_bytes()).unwrap();
        let mut response = Vec::new();
        stream.read_to_end(&mut response).unwrap();
        assert!(response.starts_with(status.as_bytes()), "{}", String::from_utf8_lossy(&response));
        self.length = (response.len() - "Connection: close\r\n".len()) * pipelined;
        self
    }

    fn ask(&mut self) {
        self.stream.write_all(&self.request).unwrap();
        let mut received = 0;
        while received < self.length {
            let count = self.stream.read(&mut self.response[received..]).unwrap();
            assert!(count > 0);
            received += count;
        }
        assert_eq!(received, self.length);
        assert_eq!(&self.response[..9], b"HTTP/1.1 ");
    }
}

#[test]
fn a_hot_request_allocates_nothing() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("13"), "Hello, world!").unwrap();
    fs::write(folder.path().join("1k"), vec![b'x'; 1024]).unwrap();
    fs::write(folder.path().join("20k"), vec![b'x'; 20 << 10]).unwrap();
    fs::write(folder.path().join("index.html"), "index").unwrap();
    fs::write(folder.path().join("index.html.gz"), "gzip").unwrap();
    let mut config = Config::new();
    // Looking at a file again after `valid` opens it, which allocates: not what is measured here.
    let text = format!(
        "shards: 1\nlisten: [\"127.0.0.1:0\"]\nmemory: {{ open_file_cache: {{ entries: 100, valid: 1h }} }}\n\
         routes:\n\
         - {{ path: /app, root: {root}, fallback: /13, cache_control: [{{ pattern: \"*\", expires: 1h }}] }}\n\
         - {{ path: /coded, root: {root}, precompressed: [br, zstd, gzip] }}\n",
        root = folder.path().display()
    );
    config.load_yaml(&text).unwrap();
    config.set("memory.mmap.max_file", "256KB").unwrap();
    config.set_root(folder.path()).unwrap();
    let mut handlers = Handlers::new();
    handlers.add(None, "/handler/*", || Rc::new(Answering)).unwrap();
    let server = Server::start_with(&config, Options { handlers, ..Options::default() }).unwrap();
    let port = server.port(None).unwrap();
    let cases = [
        ("13 bytes", "/13", "", "", "HTTP/1.1 200", 1),
        ("1 KB", "/1k", "", "", "HTTP/1.1 200", 1),
        ("20 KB from a mapped file", "/20k", "", "", "HTTP/1.1 200", 1),
        ("a folder's index", "/", "", "", "HTTP/1.1 200", 1),
        ("with an escape and a query", "/%31%33?query", "", "", "HTTP/1.1 200", 1),
        ("with a browser's fields", "/13", BROWSER, "", "HTTP/1.1 200", 1),
        ("not modified", "/13", "If-None-Match: *\r\n", "", "HTTP/1.1 304", 1),
        ("a fallback that expires", "/app/missing", "", "", "HTTP/1.1 200", 1),
        ("a coding, after two that are missing", "/coded/index.html", BROWSER, "", "HTTP/1.1 200", 1),
        ("a coding of an index", "/coded/", "Accept-Encoding: gzip;q=0.5, *;q=0\r\n", "", "HTTP/1.1 200", 1),
        ("a coding not modified", "/coded/index.html", CODED_NOT_MODIFIED, "", "HTTP/1.1 304", 1),
        ("no coding where there are some", "/coded/index.html", "", "", "HTTP/1.1 200", 1),
        ("four at once", "/13", "", "", "HTTP/1.1 200", 4),
        ("a handler", "/handler/a?b", BROWSER, "", "HTTP/1.1 200", 1),
        ("a handler and a body", "/handler/a", "Content-Length: 5\r\n", "hello", "HTTP/1.1 200", 4),
    ];
    let before = heap::figures().unwrap().allocations;
    drop(std::hint::black_box(Box::new(1_u8)));
    assert_eq!(
        heap::figures().unwrap().allocations,
        before + 1,
        "the process is quiet and the counter counts"
    );
    for (what, target, fields, body, status, pipelined) in cases {
        let mut client = Client::new(port, target, fields, body, pipelined).learn(port, status, pipelined);
        for _ in 0..WARM_UP {
            client.ask();
        }
        // Mapping is left to another thread, and its result is taken up by a request.
        let deadline = Instant::now() + Duration::from_secs(20);
        while target == "/20k" && server.metrics_text().contains("\nwebserver_mapped_sent_bytes_total 0\n") {
            assert!(Instant::now() < deadline, "never mapped");
            client.ask();
        }
        let before = heap::figures().unwrap().allocations;
        for _ in 0..REQUESTS {
            client.ask();
        }
        let made = heap::figures().unwrap().allocations - before;
        assert_eq!(made, 0, "{what}: allocations in {REQUESTS} requests");
    }
    server.stop(Duration::from_secs(20)).unwrap();
}

const CODED_NOT_MODIFIED: &str = "Accept-Encoding: gzip\r\nIf-None-Match: *\r\n";
const BROWSER: &str = "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\nAccept-Language: en-GB,en;q=0.5\r\n\
Accept-Encoding: gzip, deflate, br, zstd\r\nConnection: keep-alive\r\nUpgrade-Insecure-Requests: 1\r\n\
Sec-Fetch-Dest: document\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Site: none\r\nPriority: u=0, i\r\n";
