//! Listening sockets, admission, and what happens when descriptors run out.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    net::{Ipv6Addr, TcpListener, TcpStream},
    os::{
        fd::OwnedFd,
        unix::{
            fs::FileTypeExt,
            net::{UnixListener, UnixStream},
        },
    },
    path::Path,
    time::Duration,
};

use webserver::{ErrorKind, Server, config::Config};

use crate::{
    harness::{Client, PATIENCE, TestServer, try_start, wait_until},
    system::{
        Unconnected, assert_left_nothing, bound_receive_buffer, census, descriptor_limit, disk_folder,
        in_child, own_address, pattern, set_limit, skip, take_all_descriptors, write_cold,
    },
};

/// A server of one file `a` on these addresses.
fn listening(addresses: &str, more: &str) -> TestServer {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a"), "a").unwrap();
    let shards = if more.contains("shards:") { "" } else { "shards: 1\n" };
    let root = folder.path().display();
    let text = format!("{shards}listen: [{addresses}]\nroutes: [{{ root: {root} }}]\n{more}\n");
    TestServer::from_yaml(&text, folder)
}

/// One request over any stream, and everything that comes until the server closes.
fn ask(mut stream: impl Read + Write) -> String {
    stream.write_all(b"GET /a HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").unwrap();
    let mut response = String::new();
    match stream.read_to_string(&mut response) {
        Err(error) if error.kind() != io::ErrorKind::ConnectionReset => panic!("{error}"),
        _ => response,
    }
}

#[track_caller]
fn assert_answers(stream: impl Read + Write) {
    let response = ask(stream);
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n") && response.ends_with("\r\n\r\na"), "{response}");
}

#[test]
fn listens_on_ipv4_and_ipv6_at_ports_of_the_kernel_s_choice() {
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        return skip("this machine has no IPv6");
    }
    let server = listening("\"127.0.0.1:0\", \"[::1]:0\"", "");
    let bound = server.server.addresses();
    assert_eq!(bound.len(), 2);
    for (bound, host) in bound.iter().zip(["127.0.0.1", "[::1]"]) {
        let port = bound.port.unwrap();
        assert_ne!(port, 0);
        assert_eq!((bound.url.as_str(), bound.admin), (format!("http://{host}:{port}").as_str(), false));
        assert_eq!(server.server.port(Some(&bound.name)), Some(port));
        assert_answers(TcpStream::connect(bound.url.strip_prefix("http://").unwrap()).unwrap());
    }
    assert_eq!(server.server.port(None), bound[0].port);
    assert_eq!(server.server.port(Some("127.0.0.1:1")), None);
    // All of IPv6 is not all of IPv4 too.
    let six = listening("\"[::]:0\"", "");
    assert_answers(TcpStream::connect((Ipv6Addr::LOCALHOST, six.address.port())).unwrap());
    assert!(TcpStream::connect((own_address(), six.address.port())).is_err());
}

#[test]
fn a_unix_socket_serves_and_is_removed_at_the_stop() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.sock");
    for shards in [1, 3] {
        let server = listening(&format!("\"unix:{}\"", path.display()), &format!("shards: {shards}"));
        assert_eq!(server.server.addresses()[0].url, format!("unix:{}", path.display()));
        assert_eq!(server.server.port(None), None);
        let streams: Vec<UnixStream> = (0..20).map(|_| UnixStream::connect(&path).unwrap()).collect();
        streams.into_iter().for_each(|stream| assert_answers(stream));
        server.server.stop(PATIENCE).unwrap();
        assert!(!path.exists());
    }
}

#[test]
fn a_half_closed_unix_client_is_answered() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.sock");
    let _server = listening(&format!("\"unix:{}\"", path.display()), "");
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.write_all(b"GET /a HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    assert!(response.ends_with("\r\n\r\na"), "{response}");
}

/// Why a server on a unix socket is refused.
fn refusal(path: &Path) -> webserver::Error {
    let text = format!("shards: 1\nlisten: [\"unix:{}\"]\n", path.display());
    try_start(&text).unwrap_err()
}

#[test]
fn a_stale_unix_socket_is_replaced_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.sock");
    drop(UnixListener::bind(&path).unwrap());
    // A process that another test starts has our sockets until it runs its program.
    wait_until("the socket to be stale", || UnixStream::connect(&path).is_err());
    assert!(fs::symlink_metadata(&path).unwrap().file_type().is_socket());
    let server = listening(&format!("\"unix:{}\"", path.display()), "");
    assert_answers(UnixStream::connect(&path).unwrap());

    let error = refusal(&path);
    assert_eq!((error.kind(), error.sys_errno()), (ErrorKind::Address, libc::EADDRINUSE));
    assert!(error.message().contains(path.to_str().unwrap()), "{error}");
    assert_answers(UnixStream::connect(&path).unwrap());
    drop(server);

    fs::write(&path, "precious").unwrap();
    assert_eq!(refusal(&path).kind(), ErrorKind::Address);
    assert_eq!(fs::read(&path).unwrap(), b"precious");

    let missing = folder.path().join("missing/x.sock");
    assert_eq!((refusal(&missing).kind(), refusal(&missing).sys_errno()), (ErrorKind::Address, libc::ENOENT));
}

#[test]
fn a_unix_socket_that_somebody_replaced_is_left_to_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.sock");
    let server = listening(&format!("\"unix:{}\"", path.display()), "");
    // Renamed, not removed, so that the new file cannot have the old one's inode.
    fs::rename(&path, folder.path().join("old")).unwrap();
    let other = UnixListener::bind(&path).unwrap();
    drop(server);
    let client = UnixStream::connect(&path).unwrap();
    other.accept().unwrap();
    drop(client);
}

#[test]
fn a_taken_address_is_an_error_that_names_it() {
    let foreign = TcpListener::bind("127.0.0.1:0").unwrap();
    let own = listening("\"127.0.0.1:0\"", "shards: 2");
    for port in [foreign.local_addr().unwrap().port(), own.address.port()] {
        for shards in [1, 2] {
            let error =
                try_start(&format!("shards: {shards}\nlisten: [\"127.0.0.1:{port}\"]\n")).unwrap_err();
            assert_eq!((error.kind(), error.sys_errno()), (ErrorKind::Address, libc::EADDRINUSE));
            assert!(error.message().contains(&format!("127.0.0.1:{port}")), "{error}");
        }
        let everywhere = try_start(&format!("shards: 1\nlisten: [\"0.0.0.0:{port}\"]\n")).unwrap_err();
        assert_eq!(everywhere.kind(), ErrorKind::Address);
    }
    assert_eq!(own.get("/a").body, b"a");
    let error = try_start("shards: 1\nlisten: [\"192.0.2.1:0\"]\n").unwrap_err();
    assert_eq!((error.kind(), error.sys_errno()), (ErrorKind::Address, libc::EADDRNOTAVAIL));
}

#[test]
fn an_address_is_free_again_after_the_stop() {
    let address = own_address();
    let server = listening(&format!("\"{address}:0\""), "");
    let port = server.address.port();
    // A connection that the server closed first leaves the port in TIME-WAIT.
    assert_answers(TcpStream::connect((address, port)).unwrap());
    drop(server);
    let mut again = None;
    // A process that another test starts has our sockets until it runs its program.
    wait_until("the address to be free", || {
        again = try_start(&format!("shards: 2\nlisten: [\"{address}:{port}\"]\n")).ok();
        again.is_some()
    });
    assert_eq!(again.and_then(|server| server.port(None)), Some(port));
}

#[test]
fn a_start_that_fails_takes_back_what_it_bound() {
    in_child("sockets::a_start_that_fails");
}

#[test]
#[ignore = "run in a process of its own, which counts its descriptors and threads"]
fn a_start_that_fails() {
    drop(listening("\"127.0.0.1:0\"", ""));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.sock");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let free = TcpListener::bind((own_address(), 0)).unwrap().local_addr().unwrap();
    let before = census();
    let listen = format!("[\"unix:{}\", \"{free}\", \"{}\"]", path.display(), taken.local_addr().unwrap());
    let error = try_start(&format!("shards: 2\nlisten: {listen}\n")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Address);
    assert!(!path.exists());
    drop(TcpListener::bind(free).unwrap());
    let missing = folder.path().join("missing");
    let text = format!("shards: 2\nlisten: [\"{free}\"]\nroutes: [{{ root: {} }}]\n", missing.display());
    let error = try_start(&text).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.message().contains(missing.to_str().unwrap()), "{error}");
    assert_left_nothing(before, "the last server");
}

#[test]
fn an_inherited_socket_is_served_under_its_name() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a"), "a").unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = tcp.local_addr().unwrap().port();
    let path = folder.path().join("x.sock");
    let unix = UnixListener::bind(&path).unwrap();
    let host_s_own = tcp.try_clone().unwrap();
    let mut config = Config::new();
    let root = folder.path().display();
    config.load_yaml(&format!("shards: 2\nroutes: [{{ root: {root} }}]")).unwrap();
    config.add_listener("web", OwnedFd::from(tcp)).unwrap();
    config.add_listener("local", OwnedFd::from(unix)).unwrap();
    let server = Server::start(&config).unwrap();
    assert_eq!((server.port(Some("web")), server.port(None)), (Some(port), Some(port)));
    assert_eq!(server.port(Some("local")), None);
    for _ in 0..10 {
        assert_answers(TcpStream::connect(("127.0.0.1", port)).unwrap());
        assert_answers(UnixStream::connect(&path).unwrap());
    }
    server.stop(PATIENCE).unwrap();
    drop(server);
    // The socket is the host's: it goes on listening, and another server may have it.
    let waiting = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let again = Server::start(&config).unwrap();
    assert_answers(waiting);
    drop(again);
    drop(config);
    let waiting = TcpStream::connect(("127.0.0.1", port)).unwrap();
    assert_eq!(host_s_own.accept().unwrap().1, waiting.local_addr().unwrap());
    assert!(path.exists(), "a file that the host made is the host's");
}

#[test]
fn all_shards_get_connections() {
    // One slot each: three connections at once are three shards.
    let server = listening("\"127.0.0.1:0\"", "shards: 3\nmemory: { worker_connections: 1 }");
    let mut served: Vec<Client> = Vec::new();
    wait_until("each shard to have a connection", || {
        let mut client = server.connect();
        client.try_send("GET /a HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
        let response = client.response();
        match response.status {
            200 => served.push(client),
            503 => assert_eq!(response.field("connection"), Some("close")),
            other => panic!("{other}"),
        }
        served.len() == 3
    });
    for _ in 0..10 {
        assert_eq!(server.request("GET", "/a", "").status, 503);
    }
    for client in &mut served {
        assert_eq!(client.request("GET", "/a", "").body, b"a");
    }
    assert_eq!(server.server.stats().totals.shards, 3);
}

#[test]
fn a_full_shard_passes_a_connection_on_to_one_that_has_room() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let addresses = format!("\"127.0.0.1:0\", \"unix:{}\"", path.display());
    let server = listening(&addresses, "shards: 3\nmemory: { worker_connections: 4 }");
    // Whichever shards the kernel gives them to, nobody is refused before all of them are full.
    let mut clients: Vec<Client> = Vec::new();
    for round in 0..3 {
        clients.extend((0..12).map(|_| server.connect()));
        for client in &mut clients {
            assert_eq!(client.request("GET", "/a", "").body, b"a", "round {round}");
        }
        let mut refused = server.connect();
        assert_eq!(refused.response().status, 503);
        drop(refused);
        clients.clear();
        server.await_no_connections();
    }
    let ask = || {
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"GET /a HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
        let mut start = [0; 15];
        stream.read_exact(&mut start).unwrap();
        assert_eq!(start, *b"HTTP/1.1 200 OK");
        stream
    };
    let _all: Vec<UnixStream> = (0..12).map(|_| ask()).collect();
    assert_eq!(server.metric("webserver_connections_shed_total{reason=\"capacity\"}"), 3);
}

#[test]
fn beyond_capacity_a_connection_is_told_and_counted() {
    let server = listening(
        "\"127.0.0.1:0\"",
        "memory: { worker_connections: 2 }\nadmin: { address: \"127.0.0.1:0\" }",
    );
    let mut first = server.connect();
    let mut second = server.connect();
    for _ in 0..2 {
        assert_eq!(first.request("GET", "/a", "").body, b"a");
        assert_eq!(second.request("GET", "/a", "").body, b"a");
    }
    for refused in 1..=5 {
        let mut third = server.connect();
        let response = third.response();
        assert_eq!((response.status, response.field("retry-after")), (503, Some("1")));
        assert_eq!(response.field("connection"), Some("close"));
        drop(third);
        server.await_metric("webserver_connections_shed_total{reason=\"capacity\"}", refused);
    }
    // Those who look after the server get in.
    let admin = server.server.port(Some("admin")).unwrap();
    let health = Client::connect(([127, 0, 0, 1], admin).into()).request("GET", "/healthz", "");
    assert_eq!((health.status, health.body.as_slice()), (200, &b"ok\n"[..]));
    assert_eq!(first.request("GET", "/a", "").body, b"a");
    drop(second);
    wait_until("a slot to be free", || {
        let mut client = server.connect();
        let _ = client.try_send("GET /a HTTP/1.1\r\nHost: test\r\n\r\n");
        client.response().status == 200
    });
    assert_eq!(
        server.server.stats().totals.connections_shed,
        server.metric("webserver_connections_shed_total{reason=\"capacity\"}")
    );
}

#[test]
fn hundreds_that_are_turned_away_at_once_leave_the_rest_alone() {
    let server = listening("\"127.0.0.1:0\"", "memory: { worker_connections: 1 }");
    let mut inside = server.connect();
    assert_eq!(inside.request("GET", "/a", "").body, b"a");
    // They neither read nor leave: more than there are slots to linger in.
    let crowd: Vec<TcpStream> = (0..200).map(|_| TcpStream::connect(server.address).unwrap()).collect();
    server.await_metric("webserver_connections_shed_total{reason=\"capacity\"}", 200);
    for _ in 0..10 {
        assert_eq!(inside.request("GET", "/a", "").body, b"a");
    }
    for mut stream in crowd {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        assert!(response.starts_with("HTTP/1.1 503 "), "{response}");
    }
}

#[test]
fn a_configuration_that_needs_more_descriptors_than_there_are_is_refused() {
    in_child("sockets::too_few_descriptors");
}

#[test]
#[ignore = "run in a process of its own, whose descriptors are limited"]
fn too_few_descriptors() {
    set_limit(libc::RLIMIT_NOFILE, 300, 800);
    let start =
        |memory: &str| try_start(&format!("shards: 1\nlisten: [\"127.0.0.1:0\"]\nmemory: {{ {memory} }}\n"));
    let error = start("worker_connections: 4096, open_file_cache: 100").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Limit);
    for part in
        ["4325", "300", "4096", "100", "128", "lower memory.worker_connections to 71", "raise_nofile", "800"]
    {
        assert!(error.message().contains(part), "{part}: {error}");
    }
    assert_eq!(error.place().map(|place| place.line), Some(3));
    start("worker_connections: 72, open_file_cache: 100").unwrap_err();
    let server = start("worker_connections: 71, open_file_cache: 100").unwrap();
    assert_eq!(descriptor_limit(), (300, 800), "a library leaves the host's limits alone");
    drop(server);
    // Defaults give way.
    let server = start("").unwrap();
    assert!(server.settings().memory.worker_connections < 300);
    drop(server);
    start("worker_connections: 572, open_file_cache: 100, raise_nofile: true").unwrap_err();
    assert_eq!(descriptor_limit(), (300, 800));
    let server = start("worker_connections: 571, open_file_cache: 100, raise_nofile: true").unwrap();
    assert_eq!(descriptor_limit(), (800, 800));
    drop(server);
}

#[test]
fn a_server_without_descriptors_survives_and_recovers() {
    in_child("sockets::without_descriptors");
}

#[test]
#[ignore = "run in a process of its own, whose descriptors are taken"]
fn without_descriptors() {
    set_limit(libc::RLIMIT_NOFILE, 600, 600);
    let server = listening("\"127.0.0.1:0\"", "memory: { worker_connections: 64, open_file_cache: 16 }");
    let mut inside = server.connect();
    for _ in 0..3 {
        assert_eq!(inside.request("GET", "/a", "").body, b"a");
    }
    let mut told = 0;
    for round in 0..3 {
        let outside: Vec<Unconnected> = (0..10).map(|_| Unconnected::new()).collect();
        let mut taken = Vec::new();
        for socket in outside {
            // Each time, because the server may have closed one of its own meanwhile.
            taken.extend(take_all_descriptors());
            let mut client = Client::from(socket.connect(server.address.port()));
            let _ = client.try_send("GET /a HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
            let response = String::from_utf8(client.rest()).unwrap();
            told += u64::from(response.starts_with("HTTP/1.1 503 "));
            assert!(response.starts_with("HTTP/1.1 "), "{response}");
            assert_eq!(inside.request("GET", "/a", "").body, b"a");
        }
        // What needs a descriptor is unavailable, what does not is served.
        let unavailable = (0..10).any(|number| {
            server.write(&format!("{round}-{number}"), b"new");
            taken.extend(take_all_descriptors());
            let status = inside.request("GET", &format!("/{round}-{number}"), "").status;
            taken.truncate(taken.len() - 10);
            status == 503
        });
        assert!(unavailable);
        assert_eq!(inside.request("GET", "/a", "").body, b"a");
        drop(taken);
        assert_eq!(server.get("/a").body, b"a");
        assert_eq!(inside.request("GET", &format!("/{round}-0"), "").body, b"new");
    }
    assert!(told >= 20, "{told}");
    // One for each connection that came, and not one for each look at an empty queue.
    assert_eq!(server.metric("webserver_descriptor_exhaustion_total"), told);
    assert_eq!(server.metric("webserver_connections_shed_total{reason=\"descriptors\"}"), told);
    server.server.stop(PATIENCE).unwrap();
}

#[test]
fn waiting_for_a_disk_without_descriptors_is_no_spin() {
    in_child("sockets::stalled_without_descriptors");
}

#[test]
#[ignore = "run in a process of its own, whose descriptors are taken"]
fn stalled_without_descriptors() {
    set_limit(libc::RLIMIT_NOFILE, 600, 600);
    let folder = disk_folder();
    fs::write(folder.path().join("a"), "a").unwrap();
    if !write_cold(&folder.path().join("cold"), pattern()) {
        return;
    }
    let text = format!(
        "shards: 1\nlisten: [\"127.0.0.1:0\"]\nroutes: [{{ root: {} }}]\ntimeouts: {{ write: 500ms }}\n\
         memory: {{ worker_connections: 64, open_file_cache: 16 }}\n",
        folder.path().display()
    );
    let server = TestServer::from_yaml(&text, folder);
    let mut inside = server.connect();
    for _ in 0..3 {
        assert_eq!(inside.request("GET", "/a", "").body, b"a");
    }
    let mut stalled = server.connect();
    bound_receive_buffer(&stalled.stream);
    stalled.send("GET /cold HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(stalled.head_response().status, 200);
    let mut taken = take_all_descriptors();
    // Each answer fires the park, which gives its descriptor back and takes one again: until we are faster.
    let stolen = (0..100_000).any(|_| {
        assert_eq!(inside.request("GET", "/a", "").body, b"a");
        File::open("/dev/null").map(|file| taken.push(file)).is_ok()
    });
    assert!(stolen, "the shard holds on to its descriptor");
    let before = server.metric("webserver_parks_total");
    wait_until("the download to be cut", || server.metric("webserver_timeouts_total{kind=\"write\"}") == 1);
    let parks = server.metric("webserver_parks_total") - before;
    assert!(parks < 10_000, "{parks} turns while there was nothing to do");
    drop(taken);
    assert_eq!(server.get("/a").body, b"a");
    server.server.stop(Duration::ZERO).unwrap();
}
