//! The logs as files: what lines say whatever peers send, which requests have one, and what a rotation and a reload do
//! to them under load.

use std::{
    fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread::JoinHandle,
};

use serde::Deserialize;
use webserver::{ErrorKind, config::Config};

use crate::harness::{Client, PATIENCE, TestServer, content, wait_until};

const GET: &str = "GET /a.txt HTTP/1.1\r\nHost: test\r\n\r\n";

/// A line in JSON; a name that is not here is an error.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Line {
    time: String,
    remote_ip: Option<String>,
    remote_port: Option<u16>,
    method: Option<String>,
    uri: Option<String>,
    proto: Option<String>,
    host: Option<String>,
    request: Option<String>,
    status: u16,
    size: u64,
    duration: f64,
    referer: Option<String>,
    user_agent: Option<String>,
}

/// A server with a folder for its logs, and configurations that differ from its own in their logs.
struct Logged {
    server: TestServer,
    logs: tempfile::TempDir,
}

impl Logged {
    /// `logs` has `{}` for the folder.
    fn start(logs: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let yaml = logs.replace("{}", &folder.path().display().to_string());
        let files = [("a.txt", &b"hello"[..]), ("large", &content(100_000))];
        Logged { server: TestServer::start(&format!("shards: 2\n{yaml}"), &files), logs: folder }
    }

    fn reload(&self, logs: &str) -> webserver::Result<()> {
        let mut config = Config::new();
        let (root, logs) = (self.server.folder.path().display(), logs.replace("{}", &self.logs_path()));
        let text = format!("shards: 2\nlisten: [\"127.0.0.1:0\"]\nroutes: [{{ root: {root} }}]\n{logs}\n");
        config.load_yaml(&text).unwrap();
        self.server.server.reload(&config)
    }

    fn logs_path(&self) -> String {
        self.logs.path().display().to_string()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.logs.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn stop(&self) {
        self.server.server.stop(PATIENCE).unwrap();
    }

    /// Stops, and reads a log in JSON.
    fn json(&self, name: &str) -> Vec<Line> {
        self.stop();
        let text = self.text(name);
        assert!(text.is_ascii() && (text.is_empty() || text.ends_with('\n')));
        let parse =
            |line: &str| serde_saphyr::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        text.lines().map(parse).collect()
    }
}

/// Clients that ask over and over until they are told to end, and how often they were answered.
struct Load {
    ends: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(server: &TestServer) -> Self {
        let (ends, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let threads = (0..4)
            .map(|_| {
                let (mut client, ends, answered) =
                    (server.connect(), Arc::clone(&ends), Arc::clone(&answered));
                std::thread::spawn(move || {
                    while !ends.load(Relaxed) {
                        client.send(GET.repeat(20));
                        for _ in 0..20 {
                            assert_eq!(client.response().status, 200);
                            answered.fetch_add(1, Relaxed);
                        }
                    }
                })
            })
            .collect();
        Load { ends, answered, threads }
    }

    /// Waits until a number of requests more were answered.
    fn go_on(&self, requests: usize) {
        let goal = self.answered.load(Relaxed) + requests;
        wait_until("requests to be answered", || self.answered.load(Relaxed) >= goal);
    }

    fn end(self) -> usize {
        self.ends.store(true, Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
        self.answered.load(Relaxed)
    }
}

#[test]
fn a_line_in_json_tells_the_request_its_answer_and_how_long_it_took() {
    let logged = Logged::start("access_log: { path: \"{}/log\", format: json }");
    let mut client = logged.server.connect();
    let port = client.stream.local_addr().unwrap().port();
    let fields = "Referer: http://a.test/\r\nUser-Agent: curl/8.0\r\n";
    assert_eq!(client.request("GET", "/a.txt?q=1", fields).status, 200);
    assert_eq!(client.request("HEAD", "/large", "").status, 200);
    assert_eq!(client.request("GET", "/large", "").body.len(), 100_000);
    assert_eq!(client.request("GET", "/missing", "").status, 404);
    assert_eq!(client.ask("POST /a.txt HTTP/1.1\r\nHost: b:8\r\nContent-Length: 3\r\n\r\nabc").status, 405);
    assert_eq!(client.ask("GET /a.txt HTTP/1.0\r\n\r\n").status, 200);
    let lines = logged.json("log");
    let first = &lines[0];
    assert_eq!((first.remote_ip.as_deref(), first.remote_port), (Some("127.0.0.1"), Some(port)));
    assert_eq!((first.method.as_deref(), first.uri.as_deref()), (Some("GET"), Some("/a.txt?q=1")));
    assert_eq!((first.proto.as_deref(), first.host.as_deref()), (Some("HTTP/1.1"), Some("test")));
    assert_eq!(
        (first.referer.as_deref(), first.user_agent.as_deref()),
        (Some("http://a.test/"), Some("curl/8.0"))
    );
    assert_eq!((first.status, first.size, &first.request), (200, 5, &None));
    let told: Vec<_> = lines.iter().map(|line| (line.status, line.method.as_deref().unwrap())).collect();
    assert_eq!(told, [(200, "GET"), (200, "HEAD"), (200, "GET"), (404, "GET"), (405, "POST"), (200, "GET")]);
    assert_eq!((lines[1].size, lines[2].size), (0, 100_000));
    assert_eq!(
        (lines[4].host.as_deref(), &lines[4].user_agent, &lines[4].referer),
        (Some("b:8"), &None, &None)
    );
    assert_eq!((lines[5].proto.as_deref(), &lines[5].host), (Some("HTTP/1.0"), &None));
    for line in &lines {
        // "2026-11-23T12:00:00.123Z"
        let time = line.time.as_bytes();
        assert_eq!((time.len(), time[10], time[19], time[23]), (24, b'T', b'.', b'Z'), "{line:?}");
        assert!(line.duration > 0.0 && line.duration < PATIENCE.as_secs_f64(), "{line:?}");
    }
}

#[test]
fn no_peer_breaks_a_line_in_json() {
    let logged = Logged::start("access_log: { path: \"{}/log\", format: json }");
    let odd: Vec<u8> = (0x20..=0xff).filter(|byte| *byte != 0x7f).collect();
    let mut client = logged.server.connect();
    let mut request = b"GET /a.txt?\"'<>| HTTP/1.1\r\nHost: test\r\nUser-Agent: x".to_vec();
    request.extend_from_slice(&odd);
    request.extend_from_slice(b"\r\nReferer: \"}\\\",\\u0000\r\n\r\n");
    assert_eq!(client.ask(&request).status, 200);
    // What is no request at all.
    for bytes in [
        &b"\x16\x03\x01\"\\\xff\x00\x1b[0m\r\n\r\n"[..],
        b"{\"status\":200}\n\r\n\r\n",
        b"\r\n\r\n\r\n\r\n\r\n",
    ] {
        let mut client = logged.server.connect();
        client.send(bytes);
        assert_eq!(client.response().status / 100, 4);
    }
    let lines = logged.json("log");
    let (answered, refused): (Vec<&Line>, Vec<&Line>) = lines.iter().partition(|line| line.status == 200);
    assert_eq!((answered.len(), refused.len()), (1, 3));
    // Each byte is the character of its number.
    let text: String = odd.iter().map(|byte| char::from(*byte)).collect();
    assert_eq!(answered[0].user_agent.as_deref(), Some(format!("x{text}").as_str()));
    assert_eq!(answered[0].referer.as_deref(), Some("\"}\\\",\\u0000"));
    assert!(refused.iter().all(|line| line.method.is_none() && line.request.is_some()));
    let first_line = "\u{16}\u{3}\u{1}\"\\\u{ff}\0\u{1b}[0m";
    assert!(refused.iter().any(|line| line.request.as_deref() == Some(first_line)), "{refused:?}");
}

#[test]
fn a_sample_has_one_in_so_many_and_every_error() {
    for (sample, expected) in [(1, 100), (2, 50), (10, 10), (100, 1), (1000, 1)] {
        let yaml = format!("access_log: {{ path: \"{{}}/log\", format: json, sample: {sample} }}");
        let logged = Logged::start(&yaml);
        let mut client = logged.server.connect();
        for _ in 0..10 {
            client.send(format!("{}GET /missing HTTP/1.1\r\nHost: test\r\n\r\n", GET.repeat(10)));
            let statuses: Vec<u16> = (0..11).map(|_| client.response().status).collect();
            assert_eq!((statuses[0], statuses[10]), (200, 404));
        }
        assert_eq!(client.ask("GET\r\n\r\n").status, 400);
        let lines = logged.json("log");
        let count = |status| lines.iter().filter(|line| line.status == status).count();
        assert_eq!((count(200), count(404), count(400)), (expected, 10, 1), "one in {sample}");
    }
}

#[test]
fn a_rotation_under_load_loses_no_line_and_tears_none() {
    let logged = Logged::start("access_log: { path: \"{}/log\" }");
    let load = Load::start(&logged.server);
    for round in 1..=10 {
        load.go_on(500);
        fs::rename(logged.path("log"), logged.path(&format!("log.{round}"))).unwrap();
        logged.server.server.reopen_logs().unwrap();
        let old = logged.text(&format!("log.{round}"));
        load.go_on(100);
        // Nothing comes after the call.
        assert_eq!(logged.text(&format!("log.{round}")).len(), old.len());
    }
    let answered = load.end();
    logged.stop();
    let names = (1..=10).map(|round| format!("log.{round}")).chain(["log".to_owned()]);
    let text: String = names.map(|name| logged.text(&name)).collect();
    let whole = |line: &&str| {
        line.starts_with("127.0.0.1 - - [") && line.ends_with("\"GET /a.txt HTTP/1.1\" 200 5 \"-\" \"-\"")
    };
    assert_eq!((text.lines().filter(whole).count(), text.lines().count()), (answered, answered));
    let lost = ["webserver_access_log_dropped_total", "webserver_log_lines_lost_total"];
    assert_eq!(lost.map(|series| logged.server.metric(series)), [0, 0]);
    assert_eq!(logged.server.metric("webserver_log_reopens_total"), 10);
}

#[test]
fn a_log_that_cannot_be_opened_anew_stays_as_it_was() {
    let logged = Logged::start("access_log: { path: \"{}/log\" }");
    let mut client = logged.server.connect();
    assert_eq!(client.ask(GET).status, 200);
    fs::rename(logged.path("log"), logged.path("log.1")).unwrap();
    fs::create_dir(logged.path("log")).unwrap();
    let error = logged.server.server.reopen_logs().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.message().contains("/log"), "{error}");
    assert_eq!(logged.server.metric("webserver_log_reopen_errors_total"), 1);
    assert_eq!(client.ask(GET).status, 200);
    // When it can, it is.
    fs::remove_dir(logged.path("log")).unwrap();
    wait_until("the lines to be written", || logged.text("log.1").lines().count() == 2);
    logged.server.server.reopen_logs().unwrap();
    assert_eq!(client.ask(GET).status, 200);
    logged.stop();
    assert_eq!((logged.text("log.1").lines().count(), logged.text("log").lines().count()), (2, 1));
    assert_eq!(logged.server.server.reopen_logs().unwrap_err().kind(), ErrorKind::State);
}

#[test]
fn a_reload_under_load_changes_the_access_log_and_loses_no_line() {
    let logged = Logged::start("access_log: { path: \"{}/combined\" }");
    let load = Load::start(&logged.server);
    for round in 0..5 {
        load.go_on(300);
        let format = ["json", "combined"][round % 2];
        logged.reload(&format!("access_log: {{ path: \"{{}}/{format}\", format: {format} }}")).unwrap();
    }
    load.go_on(300);
    let answered = load.end();
    logged.stop();
    let (combined, json) = (logged.text("combined"), logged.text("json"));
    assert!(combined.lines().all(|line| line.starts_with("127.0.0.1 - - [") && line.ends_with("\"-\"")));
    assert!(json.lines().all(|line| line.starts_with("{\"time\":\"") && line.ends_with("}")));
    assert_eq!(combined.lines().count() + json.lines().count(), answered);
}

#[test]
fn a_reload_turns_the_access_log_on_and_off() {
    let logged = Logged::start("");
    let mut clients: Vec<Client> = (0..8).map(|_| logged.server.connect()).collect();
    let mut ask = |count: usize| {
        for client in &mut clients {
            (0..count).for_each(|_| assert_eq!(client.ask(GET).status, 200));
        }
    };
    ask(1);
    logged.reload("access_log: { path: \"{}/log\" }").unwrap();
    ask(2);
    logged.reload("").unwrap();
    // What was recorded is written when the log is turned off.
    wait_until("the lines to be written", || logged.text("log").lines().count() == 16);
    ask(4);
    logged.reload("access_log: { path: \"{}/log\", sample: 8 }").unwrap();
    ask(8);
    logged.stop();
    // Each shard takes the first of each eight of its own.
    let lines = logged.text("log").lines().count();
    assert!((16 + 8..=16 + 9).contains(&lines), "{lines}");
}

#[test]
fn a_reload_changes_the_diagnostic_log() {
    let logged = Logged::start("log: { path: \"{}/one\", level: warn }");
    logged.reload("log: { path: \"{}/one\", level: info }").unwrap();
    logged.reload("log: { path: \"{}/two\", level: info }").unwrap();
    logged.reload("log: { path: \"{}/two\", level: error }").unwrap();
    logged.stop();
    let (one, two) = (logged.text("one"), logged.text("two"));
    assert!(
        one.lines().all(|line| line.contains("Z INFO webserver::")) && one.contains("log.level"),
        "{one}"
    );
    assert!(two.contains("Z INFO webserver::") && !two.contains("ended"), "{two}");
}

#[test]
fn a_reload_with_a_log_that_cannot_be_opened_changes_nothing() {
    let logged = Logged::start("access_log: { path: \"{}/log\" }");
    let mut client = logged.server.connect();
    for logs in [
        "access_log: { path: \"{}\" }",
        "log: { path: \"{}/missing/log\" }\naccess_log: { path: \"{}/other\" }",
    ] {
        let error = logged.reload(&format!("{logs}\nlimits: {{ target_bytes: 64 }}")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(error.message().contains(&logged.logs_path()), "{error}");
        assert_eq!(client.request("GET", &format!("/a.txt?{}", "q".repeat(100)), "").status, 200);
    }
    logged.stop();
    assert_eq!(logged.text("log").lines().count(), 2);
}
