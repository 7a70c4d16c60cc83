//! The C interface as a C host meets it: the committed header, the symbols, and C programs compiled against
//! the shared and the static library, with HTTP clients on this side of the socket.
//!
//! `cargo test` builds no cdylib, so the first test that wants it runs cargo for the package `webserver-ffi`.
//! `WEBSERVER_WRITE_HEADER=1 cargo test --test c_abi header` writes `include/webserver.h` anew.

// In a test a broken step is a failed test.
#![allow(clippy::unwrap_used, clippy::needless_pass_by_value)]

use std::{
    env, fs,
    io::{Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    path::Path,
    process::Command,
    thread,
};

#[path = "behaviour/certificates.rs"]
mod certificates;
#[path = "c/handlers.rs"]
mod handlers;
#[path = "c/harness.rs"]
mod harness;
#[path = "c/https.rs"]
mod https;

use harness::{
    Host, Linkage, ROOT, Running, STATS_SIZE, compile, connect, get, library, site, skipped, wait_until,
};

const CONFIG: i32 = -2;
const IO: i32 = -3;
const ADDRESS: i32 = -4;
const LIMIT: i32 = -6;

const STATE_RUNNING: u64 = 0;
const STATE_DRAINING: u64 = 1;

mod header {
    use super::*;

    #[test]
    fn committed_header_is_current() {
        let committed = Path::new(ROOT).join("include/webserver.h");
        let generated = fs::read_to_string(&library().header).unwrap();
        if env::var_os("WEBSERVER_WRITE_HEADER").is_some() {
            fs::write(&committed, &generated).unwrap();
        }
        assert!(
            fs::read_to_string(committed).unwrap() == generated,
            "include/webserver.h is stale: WEBSERVER_WRITE_HEADER=1 cargo test --test c_abi header"
        );
    }

    #[test]
    fn compiles_as_c99_without_a_warning() {
        let program = compile("tests/c/header.c", Linkage::Shared);
        assert_eq!(program.run(&[]).code(), 0);
    }

    #[test]
    fn compiles_as_cpp11_without_a_warning() {
        if Command::new("g++").arg("--version").output().is_err() {
            skipped(format_args!("compiles_as_cpp11_without_a_warning: no g++ on this machine"));
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let output = Command::new("g++")
            .args(["-x", "c++", "-std=c++11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only"])
            .arg("-I")
            .arg(Path::new(ROOT).join("include"))
            .arg(Path::new(ROOT).join("tests/c/header.c"))
            .current_dir(&folder)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

mod library_file {
    use super::*;

    #[test]
    fn exports_the_functions_of_the_header_and_nothing_else() {
        let Some(listing) = inspect("nm", &["-D", "--defined-only"]) else { return };
        let mut exported: Vec<&str> =
            listing.lines().filter_map(|line| line.split_whitespace().last()).collect();
        exported.sort_unstable();

        let header = fs::read_to_string(&library().header).unwrap();
        let mut declared: Vec<&str> = header
            .lines()
            .filter(|line| !line.starts_with([' ', '/', '#']) && !line.starts_with("typedef"))
            .filter_map(|line| line.split_once('(')?.0.rsplit([' ', '*']).next())
            .filter(|name| name.starts_with("webserver_"))
            .collect();
        declared.sort_unstable();

        assert!(declared.len() >= 17, "the header declares only {declared:?}");
        assert_eq!(exported, declared);
    }

    #[test]
    fn has_its_name_and_stays_mapped() {
        let Some(dynamic) = inspect("readelf", &["-d"]) else { return };
        assert!(dynamic.contains("[libwebserver.so]"), "{dynamic}");
        assert!(dynamic.contains("NODELETE"), "{dynamic}");
    }

    /// What a binutils program says about the shared library; `None` when the program is missing.
    fn inspect(tool: &str, arguments: &[&str]) -> Option<String> {
        match Command::new(tool).args(arguments).arg(&library().shared).output() {
            Ok(output) => Some(String::from_utf8(output.stdout).unwrap()),
            Err(_) => {
                skipped(format_args!("a look at the shared library: no {tool} on this machine"));
                None
            }
        }
    }
}

mod calls {
    use super::*;

    #[test]
    fn refuse_null_and_wrong_arguments() {
        compile("tests/c/arguments.c", Linkage::Shared).run(&[]).succeeds_silently();
    }

    #[test]
    fn refuse_null_and_wrong_arguments_when_linked_statically() {
        compile("tests/c/arguments.c", Linkage::Static).run(&[]).succeeds_silently();
    }

    #[test]
    fn refuse_wrong_arguments_beside_a_running_server() {
        compile("tests/c/arguments.c", Linkage::Shared).run(&["running"]).succeeds_silently();
    }

    #[test]
    fn count_the_hosts_memory_and_tell_it_of_pressure() {
        compile("tests/c/memory.c", Linkage::Shared).run(&[]).succeeds_silently();
    }

    #[test]
    fn refuse_to_run_in_a_child_after_fork() {
        let program = compile("tests/c/fork.c", Linkage::Shared);
        program.run(&[]).succeeds_silently();
        program.run(&["running"]).succeeds_silently();
    }

    #[test]
    fn leave_the_hosts_signals_limits_and_output_alone() {
        compile("tests/c/guest.c", Linkage::Shared).run(&[]).succeeds_silently();
    }

    #[test]
    fn from_a_log_callback_are_refused_and_lines_arrive() {
        let mut host = Host::new();
        host.configure(0, None);
        host.ok("log 0 5");
        host.ok("start 0 0");
        assert_eq!(get(host.port(0, ""), "/").status, 200);
        host.ok("stop 0 1000");

        let lines = host.ok("lines").numbers();
        assert!(lines[0] > 0, "no line arrived");
        assert_eq!(lines[0], lines[1], "a call from inside the callback was not refused");
    }

    #[test]
    fn log_nothing_when_the_host_sets_no_level() {
        let mut host = Host::new();
        host.configure(0, None);
        host.ok("log 0 0");
        host.ok("start 0 0");
        host.ok("stop 0 1000");
        assert_eq!(host.ok("lines").numbers(), [0, 0]);
    }
}

mod configuration {
    use super::*;

    #[test]
    fn names_line_and_column_of_a_mistake_in_text() {
        let mut host = Host::new();
        host.ok("new 0");
        let reply = host.ask(r"yaml 0 shards: 1\nlisten:\n  - adress: 127.0.0.1:0\n");
        assert_eq!(reply.code, CONFIG, "{}", reply.rest);
        reply.is_at(3, "adress");
    }

    #[test]
    fn names_file_line_and_column_of_a_mistake_in_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("site.yaml");
        fs::write(&path, "shards: 1\n\nno_such_key: 3\n").unwrap();
        let mut host = Host::new();
        host.ok("new 0");
        let reply = host.ask(&format!("file 0 {}", path.display()));
        assert_eq!(reply.code, CONFIG, "{}", reply.rest);
        reply.is_at(3, "no_such_key");
        assert!(reply.rest.contains(&format!("{}:3:", path.display())), "{}", reply.rest);
    }

    #[test]
    fn keeps_the_message_when_the_path_is_too_long_for_the_text() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("a".repeat(120)).join("b".repeat(120));
        fs::create_dir_all(&deep).unwrap();
        let path = deep.join("site.yaml");
        fs::write(&path, "no_such_key: 3\n").unwrap();
        let mut host = Host::new();
        host.ok("new 0");
        let reply = host.ask(&format!("file 0 {}", path.display()));
        assert_eq!(reply.code, CONFIG, "{}", reply.rest);
        assert!(reply.rest.contains(" site.yaml:1:"), "{}", reply.rest);
        assert!(reply.rest.contains("no_such_key"), "{}", reply.rest);
    }

    #[test]
    fn says_which_system_call_failed_for_a_missing_file() {
        let mut host = Host::new();
        host.ok("new 0");
        let reply = host.ask("file 0 /nonexistent/site.yaml");
        assert_eq!(reply.code, IO, "{}", reply.rest);
        assert!(reply.rest.starts_with("0 0 2 "), "errno is not ENOENT: {}", reply.rest);
    }

    #[test]
    fn refuses_an_unknown_key_and_stays_usable() {
        let mut host = Host::new();
        host.configure(0, None);
        assert_eq!(host.ask("set 0 no_such_key 1").code, CONFIG);
        assert_eq!(host.ask("set 0 shards many").code, CONFIG);
        host.ok("start 0 0");
        host.ok("stop 0 1000");
    }

    #[test]
    fn merges_what_is_loaded_and_set_later() {
        let (first, second, third) = (site("first"), site("second"), site("third"));
        let mut host = Host::new();
        host.configure(0, Some(first.path()));
        host.ok(&format!("yaml 0 {{ routes: [{{ path: /, root: {} }}] }}", second.path().display()));
        host.ok("start 0 0");
        host.ok(&format!("set 0 root {}", third.path().display()));
        host.ok("start 0 1");

        // The listeners of the first text stay; a running server keeps the configuration of its start.
        assert_eq!(get(host.port(0, ""), "/").body, "second");
        assert_eq!(get(host.port(1, ""), "/").body, "third");
        host.ok("stop 0 1000");
        host.ok("stop 1 1000");
    }
}

mod serving {
    use super::*;

    #[test]
    fn answers_requests_from_the_shared_library() {
        serves_a_folder(Linkage::Shared);
    }

    #[test]
    fn answers_requests_when_linked_statically() {
        serves_a_folder(Linkage::Static);
    }

    fn serves_a_folder(linkage: Linkage) {
        let site = site("hello from C");
        let mut host = Host::with(linkage);
        host.configure(0, Some(site.path()));
        host.ok("start 0 0");
        host.ok("free 0");
        let port = host.port(0, "");
        assert_eq!(port, host.port(0, "127.0.0.1:0"));
        let answer = get(port, "/");
        assert_eq!((answer.status, answer.body.as_str()), (200, "hello from C"));
        assert_eq!(get(port, "/missing").status, 404);
        host.ok("stop 0 1000");
        assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "the port is still open");
    }

    #[test]
    fn runs_two_servers_in_one_process() {
        let (first, second) = (site("first"), site("second"));
        let mut host = Host::new();
        host.configure(0, Some(first.path()));
        host.configure(1, Some(second.path()));
        host.ok("start 0 0");
        host.ok("start 1 1");
        let (one, two) = (host.port(0, ""), host.port(1, ""));
        assert_eq!(get(one, "/").body, "first");
        assert_eq!(get(two, "/").body, "second");
        host.ok("stop 0 1000");
        assert_eq!(get(two, "/").body, "second");
        host.ok("stop 1 1000");
    }

    #[test]
    fn names_an_address_that_another_program_has() {
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut host = Host::new();
        host.ok("new 0");
        assert_refused(&mut host, other.local_addr().unwrap().port());
    }

    #[test]
    fn names_an_address_that_another_server_of_ours_has() {
        let mut host = Host::new();
        host.configure(1, None);
        host.ok("start 1 1");
        host.ok("new 0");
        let port = host.port(1, "");
        assert_refused(&mut host, port);
        assert_eq!(get(port, "/").status, 200);
        host.ok("stop 1 1000");
    }

    fn assert_refused(host: &mut Host, port: u16) {
        let before = host.ok("held").rest;
        host.ok(&format!(r#"set 0 listen [{{ address: "127.0.0.1:{port}" }}]"#));
        host.ok("set 0 memory.worker_connections 64");
        let reply = host.ask("start 0 0");
        assert_eq!(reply.code, ADDRESS, "{}", reply.rest);
        assert!(reply.rest.contains(&format!("127.0.0.1:{port}")), "{}", reply.rest);
        assert!(reply.rest.starts_with("0 0 98 "), "errno is not EADDRINUSE: {}", reply.rest);
        assert_eq!(host.ok(&format!("await {before}")).rest, before, "a failed start left something behind");
    }

    #[test]
    fn listens_on_a_socket_of_the_hosts() {
        let site = site("inherited");
        let mut host = Host::new();
        host.configure(0, Some(site.path()));
        let port = host.ok("listen 0 activated").numbers()[0];
        host.ok("start 0 0");
        host.ok("free 0");
        assert_eq!(u64::from(host.port(0, "activated")), port);
        assert_eq!(get(u16::try_from(port).unwrap(), "/").body, "inherited");
        host.ok("stop 0 1000");
    }

    #[test]
    fn reloads_all_or_nothing() {
        let (first, second) = (site("first"), site("second"));
        let mut host = Host::new();
        host.configure(0, Some(first.path()));
        host.ok("start 0 0");
        let port = host.port(0, "");

        host.ok(&format!("set 0 root {}", second.path().display()));
        host.ok("set 0 shards 2");
        let refused = host.ask("reload 0 0");
        assert!(refused.code < 0 && refused.rest.contains("shards"), "{} {}", refused.code, refused.rest);
        assert_eq!(get(port, "/").body, "first");

        host.ok("set 0 shards 1");
        host.ok("reload 0 0");
        assert_eq!(get(port, "/").body, "second");
        host.ok("stop 0 1000");
    }

    #[test]
    fn opens_its_logs_anew_after_a_rotation() {
        let (site, logs) = (site("logged"), tempfile::tempdir().unwrap());
        let path = |name: &str| logs.path().join(name);
        let lines = |name: &str| fs::read_to_string(path(name)).unwrap().lines().count();
        let mut host = Host::new();
        host.configure(0, Some(site.path()));
        host.ok(&format!("yaml 0 access_log: {{ path: {} }}", path("log").display()));
        host.ok("start 0 0");
        let port = host.port(0, "");
        assert_eq!(get(port, "/").status, 200);
        wait_until("the line to be written", || lines("log") == 1);

        fs::rename(path("log"), path("log.1")).unwrap();
        host.ok("reopen 0");
        assert_eq!(get(port, "/").status, 200);
        fs::remove_file(path("log")).unwrap();
        fs::create_dir(path("log")).unwrap();
        let refused = host.ask("reopen 0");
        assert_eq!(refused.code, IO, "{}", refused.rest);
        assert!(refused.rest.contains("/log"), "{}", refused.rest);
        fs::remove_dir(path("log")).unwrap();
        host.ok("reopen 0");
        assert_eq!(get(port, "/").status, 200);
        host.ok("stop 0 1000");
        assert_eq!(lines("log.1"), 1);
        // The second line went to the file that was removed, unless it waited in its shard until the end.
        assert!((1..=2).contains(&lines("log")));
    }

    #[test]
    fn fills_as_much_of_the_stats_as_both_sides_know() {
        let mut host = Host::new();
        host.configure(0, None);
        host.ok("start 0 0");
        assert_eq!(get(host.port(0, ""), "/").status, 200);
        for (size, filled) in [(STATS_SIZE, STATS_SIZE), (2 * STATS_SIZE, STATS_SIZE), (16, 16), (4, 4)] {
            let reply = host.ok(&format!("stats 0 {size}"));
            let figures = reply.numbers();
            assert_eq!(figures[0], filled as u64, "{}", reply.rest);
            assert!(reply.rest.ends_with("intact"), "{}", reply.rest);
            if filled == STATS_SIZE {
                assert_eq!(figures[1..3], [1, STATE_RUNNING], "{}", reply.rest);
                assert!(figures[3..6].iter().all(|figure| *figure > 0), "{}", reply.rest);
            }
        }
        host.ok("stop 0 1000");
    }

    #[test]
    fn writes_metrics_into_a_buffer_that_is_large_enough() {
        let mut host = Host::new();
        host.configure(0, None);
        host.ok("start 0 0");
        let refused = host.ask("metrics 0 10");
        assert_eq!(refused.code, LIMIT);
        let (needed, written) = (refused.numbers()[0], refused.numbers()[1]);
        assert!(needed > 10);
        assert_eq!(written, 0, "a buffer that is too small was written to");

        // Numbers may have grown by a digit since.
        let reply = host.ok(&format!("metrics 0 {}", needed + 4096));
        assert_eq!(reply.numbers()[0], reply.numbers()[1] + 1);
        assert!(reply.rest.contains("webserver_connections_active "), "{}", reply.rest);
        assert!(reply.rest.ends_with('|'), "the text does not end its last line");
        host.ok("stop 0 1000");
    }
}

mod ending {
    use super::*;

    #[test]
    fn drain_refuses_new_connections_and_does_not_wait() {
        let mut host = Host::new();
        host.configure(0, None);
        host.ok("start 0 0");
        let port = host.port(0, "");
        host.ok("drain 0");
        host.ok("drain 0");
        host.await_stats(|figures| figures[2] == STATE_DRAINING);
        wait_until("the port is closed", || TcpStream::connect(("127.0.0.1", port)).is_err());
        host.ok("stop 0 1000");
    }

    #[test]
    fn stop_returns_whatever_clients_do_and_leaves_nothing() {
        for timeout_ms in [0, 500] {
            stops_beside_stubborn_clients(timeout_ms);
        }
    }

    fn stops_beside_stubborn_clients(timeout_ms: u32) {
        const LARGE: u64 = 256 << 20;
        let site = site("small");
        fs::File::create(site.path().join("large.bin")).unwrap().set_len(LARGE).unwrap();
        let mut host = Host::new();
        host.configure(0, Some(site.path()));
        let before = host.ok("held").rest;
        host.ok("start 0 0");
        let port = host.port(0, "");

        let mut idle = connect(port);
        idle.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"small") {
            let mut byte = [0];
            idle.read_exact(&mut byte).unwrap();
            answer.push(byte[0]);
        }
        let silent = connect(port);
        let mut half_sent = connect(port);
        half_sent.write_all(b"GET / HTTP/1.1\r\nHost: loc").unwrap();
        let mut stalled = connect(port);
        stalled.write_all(b"GET /large.bin HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        stalled.read_exact(&mut [0; 1024]).unwrap();
        let mut busy = connect(port);
        busy.write_all(b"GET /large.bin HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        busy.read_exact(&mut [0; 1024]).unwrap();
        let download = thread::spawn(move || {
            let mut buffer = vec![0; 4096];
            while busy.read(&mut buffer).is_ok_and(|count| count > 0) {}
        });
        host.await_stats(|figures| figures[3] >= 5);
        let while_running = host.ok("held").numbers();

        host.ok(&format!("stop 0 {timeout_ms}"));
        assert_eq!(host.ok(&format!("await {before}")).rest, before, "descriptors or threads are left");
        let at_rest: Vec<u64> = before.split(' ').map(|figure| figure.parse().unwrap()).collect();
        assert_eq!(while_running[1], at_rest[1], "a descriptor would outlive exec");

        download.join().unwrap();
        for mut client in [idle, silent, half_sent, stalled] {
            // The end, a reset, or an answer and then the end; never silence.
            let _ = client.shutdown(Shutdown::Write);
            let mut rest = Vec::new();
            if let Err(error) = client.read_to_end(&mut rest) {
                assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
            }
            assert!((rest.len() as u64) < LARGE, "the server did not stop");
        }
    }

    #[test]
    fn a_file_cut_while_it_is_sent_ends_that_connection_and_not_the_host() {
        const LARGE: u64 = 64 << 20;
        for left in [0, (1 << 20) + 123] {
            let site = site("small");
            let large = fs::File::create(site.path().join("large.bin")).unwrap();
            large.set_len(LARGE).unwrap();
            let mut host = Host::new();
            host.configure(0, Some(site.path()));
            host.ok("start 0 0");
            let port = host.port(0, "");
            let mut reader = connect(port);
            reader.write_all(b"GET /large.bin HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
            reader.read_exact(&mut [0; 1024]).unwrap();
            large.set_len(left).unwrap();
            let mut rest = Vec::new();
            // The end or a reset: the message is short either way.
            let _ = reader.read_to_end(&mut rest);
            assert!((rest.len() as u64) < LARGE, "bytes came that the file no longer has");
            assert_eq!(get(port, "/").body, "small");
            host.ok("stop 0 1000");
        }
    }

    #[test]
    fn starting_and_stopping_again_and_again_grows_nothing() {
        let mut host = Host::new();
        host.configure(0, None);
        let before = host.ok("held").rest;
        for _ in 0..5 {
            host.ok("start 0 0");
            assert_eq!(get(host.port(0, ""), "/").status, 200);
            host.ok("stop 0 1000");
            assert_eq!(host.ok(&format!("await {before}")).rest, before);
        }
    }
}

mod examples {
    use super::*;

    #[test]
    fn hello_serves_a_page_until_enter() {
        const PORT: u16 = 8080;
        let taken = TcpListener::bind(("127.0.0.1", PORT)).is_err();
        let mut hello = Running::new(compile("c-examples/hello.c", Linkage::Shared).command(&[]));
        if taken {
            // The other half of the example: it says why it cannot.
            let output = hello.finish();
            assert_eq!(output.status.code(), Some(1));
            assert!(String::from_utf8_lossy(&output.stderr).contains("127.0.0.1:8080"));
            skipped(format_args!("half of hello_serves_a_page_until_enter: port {PORT} is taken"));
            return;
        }
        wait_until("hello answers", || TcpStream::connect(("127.0.0.1", PORT)).is_ok());
        let answer = get(PORT, "/");
        assert_eq!(answer.status, 200);
        assert!(!answer.body.is_empty());
        hello.say("");
        assert_eq!(hello.finish().status.code(), Some(0));
    }

    #[test]
    fn static_files_serves_a_folder_and_prints_stats() {
        let site = site("from the example");
        let folder = site.path().to_str().unwrap().to_owned();
        let program = compile("c-examples/static_files.c", Linkage::Shared);
        let mut example = Running::new(program.command(&[&folder, "127.0.0.1:0"]));
        let first = example.line();
        let port = first.rsplit(' ').next().unwrap().parse().unwrap();
        assert_eq!(get(port, "/").body, "from the example");
        example.say("");
        assert!(example.line().starts_with("connections "), "{first}");
        assert_eq!(example.finish().status.code(), Some(0));
    }

    #[test]
    fn static_files_explains_what_is_wrong() {
        let program = compile("c-examples/static_files.c", Linkage::Shared);
        assert_eq!(program.run(&[]).code(), 2);

        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let finished = program.run(&[ROOT, &address]);
        assert_eq!(finished.code(), 1);
        assert!(finished.stderr().contains(&address), "{}", finished.stderr());
        assert!(finished.stderr().contains("address in use or unavailable"), "{}", finished.stderr());
    }
}
