//! The stand-alone binary as a person and a supervisor meet it: arguments, lines, signals, exit codes.
#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs)]

mod activation;
#[path = "../behaviour/anyone.rs"]
mod anyone;
mod handover;
mod plan;
mod process;
mod tls;

use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Write},
    net::TcpStream,
    process::Command,
    time::{Duration, Instant},
};

use process::{Binary, PATIENCE, configure, connect, get, run};

#[test]
fn serves_a_folder_and_ends_cleanly_on_sigterm_and_sigint() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("index.html"), "<p>mine").unwrap();
    for signal in ["TERM", "INT"] {
        let mut binary =
            Binary::start(&["-l", "127.0.0.1:0", "--shards", "1", folder.path().to_str().unwrap()]);
        let port = binary.port();
        assert!(get(port, "/").ends_with("<p>mine"));
        binary.signal(signal);
        assert_eq!(binary.exit_code(), Some(0));
    }
}

#[test]
fn names_every_listener_and_serves_metrics() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let mut binary = Binary::start(&[
        "-l",
        "127.0.0.1:0",
        "-l",
        &format!("unix:{}", socket.display()),
        "--admin",
        "127.0.0.1:0",
    ]);
    let port = binary.port();
    assert_eq!(binary.line("listening on unix:"), socket.display().to_string());
    let admin: u16 = binary.line("admin on http://127.0.0.1:").parse().unwrap();
    assert!(get(port, "/").starts_with("HTTP/1.1 200 OK\r\n"));
    assert!(get(admin, "/healthz").ends_with("\r\n\r\nok\n"));
    let metrics = get(admin, "/metrics");
    assert!(metrics.contains("\nwebserver_requests_total{status=\"200\"} "), "{metrics}");
    let heap = metrics.lines().find_map(|line| line.strip_prefix("webserver_memory_heap_bytes ")).unwrap();
    assert!(heap.parse::<u64>().unwrap() > 0);
    binary.signal("TERM");
    assert_eq!(binary.exit_code(), Some(0));
    assert!(!socket.exists());
}

#[test]
fn a_drain_lets_a_download_finish_and_says_so_to_health_checks() {
    const LARGE: usize = 32 << 20;
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("large.bin"), vec![7; LARGE]).unwrap();
    let mut binary = Binary::start(&[
        "-l",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
        "--shards",
        "1",
        folder.path().to_str().unwrap(),
    ]);
    let port = binary.port();
    let admin: u16 = binary.line("admin on http://127.0.0.1:").parse().unwrap();
    let mut download = connect(port);
    download.write_all(b"GET /large.bin HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    download.read_exact(&mut [0; 1]).unwrap();
    binary.signal("TERM");
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect(("127.0.0.1", port)).is_ok() {
        assert!(Instant::now() < deadline, "still accepting");
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(get(admin, "/healthz").starts_with("HTTP/1.1 503 "));
    let mut body = Vec::new();
    download.read_to_end(&mut body).unwrap();
    assert!(body.len() > LARGE && body.ends_with(&[7; 1000]), "{} bytes", body.len());
    assert_eq!(binary.exit_code(), Some(0));
}

#[test]
fn a_second_signal_stops_at_once() {
    let folder = tempfile::tempdir().unwrap();
    fs::File::create(folder.path().join("large.bin")).unwrap().set_len(256 << 20).unwrap();
    let file = configure(
        folder.path(),
        "listen: [\"127.0.0.1:0\"]\nroutes: [{path: /, root: .}]\ntimeouts: {drain: 1h, write: 1h}\n",
    );
    let mut binary = Binary::start(&["-c", &file]);
    let port = binary.port();
    let mut stalled = connect(port);
    stalled.write_all(b"GET /large.bin HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    stalled.read_exact(&mut [0; 1]).unwrap();
    binary.signal("TERM");
    binary.line("webserver: draining").clear();
    binary.signal("TERM");
    assert_eq!(binary.exit_code(), Some(0));
}

#[test]
fn sighup_takes_over_a_good_configuration_and_keeps_the_old_one_for_a_bad_one() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["one", "two"] {
        fs::create_dir(folder.path().join(name)).unwrap();
        fs::write(folder.path().join(name).join("index.html"), name).unwrap();
    }
    let with_root = |root: &str| {
        configure(folder.path(), &format!("listen: [\"127.0.0.1:0\"]\nroutes: [{{path: /, root: {root}}}]\n"))
    };
    let file = with_root("one");
    let mut binary = Binary::start(&["-c", &file]);
    let port = binary.port();
    assert!(get(port, "/").ends_with("one"));
    with_root("two");
    binary.signal("HUP");
    let deadline = Instant::now() + PATIENCE;
    while !get(port, "/").ends_with("two") {
        assert!(Instant::now() < deadline, "not taken over");
    }
    configure(folder.path(), "listen: [\"127.0.0.1:0\"]\nroutes: [{path: /, rot: two}]\n");
    binary.signal("HUP");
    let told = binary.line("webserver: not reloaded: ");
    assert!(told.contains("webserver.yaml:2:") && told.contains("rot"), "{told}");
    assert!(get(port, "/").ends_with("two"));
    binary.signal("TERM");
    assert_eq!(binary.exit_code(), Some(0));
}

#[test]
fn sigusr1_opens_the_logs_anew_and_loses_no_line_under_load() {
    const REQUESTS: usize = 2000;
    const ROTATIONS: usize = 5;
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.txt"), "hello").unwrap();
    let file = configure(
        folder.path(),
        "shards: 2\nlisten: [\"127.0.0.1:0\"]\nroutes: [{path: /, root: .}]\n\
         access_log: {path: access.log, format: json}\nlog: {path: server.log}\n",
    );
    let path = |name: &str| folder.path().join(name);
    let mut binary = Binary::start(&["-c", &file]);
    let port = binary.port();
    let clients: Vec<_> = (0..2)
        .map(|_| {
            std::thread::spawn(move || {
                let mut stream = connect(port);
                let mut response = vec![0; 4096];
                for _ in 0..REQUESTS {
                    write!(stream, "GET /a.txt HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
                    let count = stream.read(&mut response).unwrap();
                    assert!(response[..count].ends_with(b"hello"));
                }
            })
        })
        .collect();
    for round in 1..=ROTATIONS {
        for name in ["access.log", "server.log"] {
            fs::rename(path(name), path(&format!("{name}.{round}"))).unwrap();
        }
        binary.signal("USR1");
        let deadline = Instant::now() + PATIENCE;
        while !(path("access.log").exists() && path("server.log").exists()) {
            assert!(Instant::now() < deadline, "not opened anew");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    clients.into_iter().for_each(|client| client.join().unwrap());
    // A name that cannot be opened is said, and the old file stays.
    fs::rename(path("access.log"), path("access.log.last")).unwrap();
    fs::create_dir(path("access.log")).unwrap();
    binary.signal("USR1");
    assert!(binary.line("webserver: logs not reopened: ").contains("access.log"));
    assert!(get(port, "/a.txt").ends_with("hello"));
    binary.signal("TERM");
    assert_eq!(binary.exit_code(), Some(0));
    let mut lines = 0;
    for entry in fs::read_dir(folder.path()).unwrap().map(Result::unwrap) {
        if entry.file_name().to_string_lossy().starts_with("access.log.") {
            let text = fs::read_to_string(entry.path()).unwrap();
            assert!(text.lines().all(|line| line.starts_with("{\"time\":\"") && line.ends_with("}")));
            lines += text.lines().count();
        }
    }
    assert_eq!(lines, 2 * REQUESTS + 1);
}

#[test]
fn check_prints_what_it_would_run_with_or_where_the_mistake_is() {
    let folder = tempfile::tempdir().unwrap();
    let file = configure(folder.path(), "routes: [{path: /, root: .}]\n");
    let (code, out, err) = run(&["check", "-c", &file]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(out.contains("worker_connections: 1024"), "{out}");
    let again = configure(folder.path(), &out);
    assert_eq!(run(&["check", "-c", &again]).1, out, "the effective configuration loads to itself");

    let file = configure(folder.path(), "routes:\n  - path: /\n    root: .\nlimits: {header_bytes: 4TB}\n");
    let (code, out, err) = run(&["check", "-c", &file]);
    assert_eq!((code, out.as_str()), (Some(2), ""));
    assert!(err.contains("webserver.yaml:4:24: "), "{err}");
}

#[test]
fn wrong_usage_exits_2_and_a_taken_address_1() {
    assert_eq!(run(&["--frobnicate"]).0, Some(2));
    assert_eq!(run(&["-c", "/nonexistent/webserver.yaml"]).0, Some(2));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, _, err) = run(&["-l", &address]);
    assert_eq!(code, Some(1));
    assert!(err.contains(&address) && err.contains("in use"), "{err}");
}

#[test]
fn the_manual_page_and_the_help_have_the_same_options_and_signals() {
    let words = |text: &str, start: &str| -> BTreeSet<String> {
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '-';
        let found =
            text.split(start).skip(1).map(|rest| rest.split(|c| !is_word(c)).next().unwrap_or_default());
        found.filter(|word| !word.is_empty()).map(str::to_owned).collect()
    };
    let help = run(&["--help"]).1;
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/webserver.1")).unwrap();
    let options = words(&help, " --");
    assert!(options.contains("listen") && options.len() > 5, "{options:?}");
    assert_eq!(options, words(&page, "Fl -"));
    assert_eq!(words(&help, "SIG"), words(&page, "Dv SIG"));
    let lint = Command::new("mandoc").args(["-T", "lint", "-W", "warning", "docs/webserver.1"]).output();
    match lint {
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout)),
        Err(_) => eprintln!("SKIPPED: the manual page is not checked without mandoc"),
    }
}

#[test]
fn access_lines_go_to_standard_output_when_asked() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.txt"), "hello").unwrap();
    let file = configure(
        folder.path(),
        "listen: [\"127.0.0.1:0\"]\nroutes: [{path: /, root: .}]\naccess_log: {path: \"-\"}\n",
    );
    let mut binary = Binary::start(&["-c", &file]);
    let port = binary.port();
    get(port, "/a.txt");
    binary.signal("TERM");
    assert_eq!(binary.exit_code(), Some(0));
    let mut out = String::new();
    binary.child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    assert!(
        out.starts_with("127.0.0.1 - - [") && out.ends_with("\"GET /a.txt HTTP/1.1\" 200 5 \"-\" \"-\"\n"),
        "{out}"
    );
}
