//! Defects that were found once, each by a test that failed then. The file grows with every defect.

use std::{
    io::Write,
    net::{Shutdown, TcpListener, TcpStream},
    os::fd::{AsRawFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use webserver::{Server, config::Config, server::Options};

use crate::harness::{Client, PATIENCE, TestServer, wait_until, write};

/// CPU time of this process, in hundredths of a second.
fn cpu_ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let rest = stat.rsplit(") ").next().unwrap();
    let fields: Vec<&str> = rest.split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn a_listener_that_its_owner_shuts_down_is_no_spin() {
    crate::system::in_child("regressions::shut_down_listener");
}

#[test]
#[ignore = "run in a process of its own"]
fn shut_down_listener() {
    let folder = tempfile::tempdir().unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let own = tcp.try_clone().unwrap();
    let mut config = Config::new();
    config.load_yaml(&format!("shards: 1\nroutes: [{{ root: {} }}]", folder.path().display())).unwrap();
    config.add_listener("web", OwnedFd::from(tcp)).unwrap();
    let server = Server::start(&config).unwrap();
    let stream = TcpStream::from(OwnedFd::from(own));
    let _ = stream.shutdown(Shutdown::Both);
    std::thread::sleep(Duration::from_millis(200));
    let before = cpu_ticks();
    std::thread::sleep(Duration::from_secs(1));
    let spent = cpu_ticks() - before;
    assert!(stream.as_raw_fd() > 0 && spent < 20, "{spent} hundredths of a second of CPU in one second");
    server.stop(PATIENCE).unwrap();
}

#[test]
fn what_was_looked_for_before_a_reload_is_not_remembered_after_it() {
    let old = tempfile::tempdir().unwrap();
    let new = tempfile::tempdir().unwrap();
    for index in 0..3000 {
        write(new.path(), &format!("x{index}"), b"new");
    }
    let yaml = |root: &std::path::Path| {
        format!("shards: 1\nlisten: [\"127.0.0.1:0\"]\nroutes: [{{ root: {} }}]\n", root.display())
    };
    let server = TestServer::from_yaml(&yaml(old.path()), tempfile::tempdir().unwrap());
    let mut config = Config::new();
    config.load_yaml(&yaml(new.path())).unwrap();
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                let mut client = server.connect();
                while !stop.load(Ordering::Relaxed) {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= 3000 {
                        break;
                    }
                    client.request("GET", &format!("/x{index}"), "");
                }
            });
        }
        wait_until("some requests", || next.load(Ordering::Relaxed) > 500);
        server.server.reload(&config).unwrap();
        stop.store(true, Ordering::Relaxed);
    });
    let asked = next.load(Ordering::Relaxed).min(3000);
    let mut client = server.connect();
    let wrong: Vec<usize> =
        (0..asked).filter(|index| client.request("GET", &format!("/x{index}"), "").status != 200).collect();
    assert!(wrong.is_empty(), "of {asked} asked, still answered from the old folder: {wrong:?}");
}

#[test]
fn a_stop_is_not_lost_behind_many_drains() {
    let server = TestServer::with_files(&[]);
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: te");
    server.await_metric("webserver_connections_active", 1);
    for _ in 0..100_000 {
        server.server.drain();
    }
    let before = Instant::now();
    for _ in 0..2000 {
        server.server.drain();
    }
    server.server.stop(Duration::ZERO).unwrap();
    assert!(before.elapsed() < Duration::from_secs(4), "{:?}", before.elapsed());
}

#[test]
fn a_drain_does_not_reset_what_a_pipelining_client_was_answered() {
    let server = TestServer::with_files(&[("a", b"a")]);
    let mut client = server.connect();
    let mut sender = client.stream.try_clone().unwrap();
    let thread = std::thread::spawn(move || {
        // Less than what a connection that has ended reads and throws away.
        let batch = "GET /a HTTP/1.1\r\nHost: t\r\n\r\n".repeat(30_000);
        let _ = sender.write_all(batch.as_bytes());
    });
    for _ in 0..64 {
        assert_eq!(client.response().status, 200);
    }
    server.server.drain();
    loop {
        let response = client.response();
        assert_eq!(response.status, 200);
        if response.field("connection") == Some("close") {
            break;
        }
    }
    client.expect_close();
    thread.join().unwrap();
}

#[test]
fn a_drain_takes_all_that_wait_to_be_accepted() {
    const CLIENTS: usize = 200;
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "a", b"a");
    let (sender, draining) = mpsc::sync_channel::<()>(1);
    let (connected, go_on) = mpsc::sync_channel::<()>(1);
    let go_on = std::sync::Mutex::new(go_on);
    let log: webserver::server::Options = Options {
        log: Some(Arc::new(move |_, _: &str, message: &str| {
            if message.starts_with("draining") {
                sender.send(()).unwrap();
                go_on.lock().unwrap().recv().unwrap();
            }
        })),
        log_level: Some(webserver::config::Level::Info),
        ..Options::default()
    };
    let mut config = Config::new();
    config
        .load_yaml(&format!(
            "shards: 1\nlisten: [\"127.0.0.1:0\"]\nroutes: [{{ root: {} }}]",
            folder.path().display()
        ))
        .unwrap();
    let server = Server::start_with(&config, log).unwrap();
    let address = ("127.0.0.1", server.port(None).unwrap());
    server.drain();
    draining.recv().unwrap();
    let clients: Vec<Client> = (0..CLIENTS)
        .map(|_| {
            let mut client = Client::from(TcpStream::connect(address).unwrap());
            client.send("GET /a HTTP/1.1\r\nHost: t\r\n\r\n");
            client
        })
        .collect();
    connected.send(()).unwrap();
    for (index, mut client) in clients.into_iter().enumerate() {
        assert!(client.response_begins(), "client {index} was accepted by the kernel and then reset");
        assert_eq!(client.response().body, b"a");
    }
    server.stop(PATIENCE).unwrap();
}

#[test]
fn a_request_in_progress_survives_a_reload_with_smaller_limits() {
    let server = TestServer::with_files(&[("a", b"a")]);
    let mut client = server.connect();
    let fields: String = (0..20).map(|index| format!("X-{index}: y\r\n")).collect();
    client.send(format!("GET /a HTTP/1.1\r\nHost: t\r\n{fields}Content-Length: 4\r\n\r\nab"));
    server.await_metric("webserver_connections_active", 1);
    wait_until("the head to arrive", || server.metric("webserver_bytes_received_total") > 100);
    let mut config = Config::new();
    config
        .load_yaml(&format!(
            "shards: 1\nlisten: [\"127.0.0.1:0\"]\nlimits: {{ headers: 16 }}\nroutes: [{{ root: {} }}]",
            server.folder.path().display()
        ))
        .unwrap();
    server.server.reload(&config).unwrap();
    client.send("cd");
    assert_eq!(client.response().status, 200);
}

#[test]
fn a_connection_closed_for_want_of_buffers_is_not_a_panic() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "big", &vec![7; 100_000]);
    let root = folder.path().display();
    let text = format!(
        "shards: 1\nlisten: [\"127.0.0.1:0\"]\naccess_log: {{ path: {root}/log }}\n\
         memory: {{ worker_connections: 1 }}\nroutes: [{{ root: {root} }}]\n"
    );
    let server = TestServer::from_yaml(&text, folder);
    let mut client = server.connect();
    assert_eq!(client.ask("GET /big HTTP/1.1\r\nHost: t\r\n\r\n").status, 200);
    // All memory there is, down to the last small buffer.
    let mut charged = 0;
    for bytes in (10..30).rev().map(|power| 1 << power) {
        while server.server.charge(bytes).is_ok() {
            charged += bytes;
        }
    }
    // A large request behind them keeps the rest above 16 KB.
    let mut sender = client.stream.try_clone().unwrap();
    let thread = std::thread::spawn(move || {
        let batch = "GET /big HTTP/1.1\r\nHost: t\r\n\r\n".repeat(8000);
        let _ = sender.write_all(batch.as_bytes());
    });
    let received = client.rest().len();
    let _ = thread.join();
    let panics = server.metric("webserver_panics_total");
    assert_eq!(panics, 0, "{received}");
    server.server.release(charged);
    wait_until("another client to be served", || server.get("/big").status == 200);
}
