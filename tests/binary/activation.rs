//! Under a supervisor: sockets that it has opened, and what it is told.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    os::{
        fd::OwnedFd,
        unix::net::{UnixDatagram, UnixListener, UnixStream},
    },
    path::Path,
    process::{Command, Stdio},
};

use crate::process::{Binary, PATIENCE, configure, connect, get, get_over};

/// Starts the binary as a supervisor does: descriptors from 3 on, and variables with its own number. A shell does both, for
/// it becomes the binary.
fn supervised(sockets: Vec<OwnedFd>, names: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("sh");
    let count = sockets.len();
    let moved = ["", "exec 3<&0 </dev/null;", "exec 3<&0 4<&1 </dev/null >/dev/null;"][count];
    let script =
        format!("{moved} LISTEN_PID=$$ LISTEN_FDS={count} LISTEN_FDNAMES={names} exec \"$0\" \"$@\"");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_webserver")]).args(arguments);
    let mut sockets = sockets.into_iter();
    command.stdin(sockets.next().map_or_else(Stdio::null, Stdio::from));
    command.stdout(sockets.next().map_or_else(Stdio::null, Stdio::from)).stderr(Stdio::piped());
    command
}

fn start(command: &mut Command) -> Binary {
    let mut child = command.spawn().unwrap();
    let stderr = std::io::BufReader::new(child.stderr.take().unwrap());
    Binary { child, stderr, successors: Vec::new() }
}

fn bound() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

fn duplicate(listener: &TcpListener) -> OwnedFd {
    listener.try_clone().unwrap().into()
}

/// Where a supervisor is told.
fn notified(folder: &Path) -> UnixDatagram {
    let socket = UnixDatagram::bind(folder.join("notify")).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn next_message(socket: &UnixDatagram) -> String {
    let mut buffer = [0; 1024];
    let count = socket.recv(&mut buffer).unwrap();
    String::from_utf8(buffer[..count].to_vec()).unwrap()
}

#[test]
fn a_supervisor_s_sockets_stand_in_for_addresses_and_it_is_told_what_happens() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a"), "a").unwrap();
    let supervisor = notified(folder.path());
    let ((web, port), (admin, admin_port)) = (bound(), bound());
    let yaml = |limit: &str| {
        let text = format!(
            "shards: 2\nlisten: [\"127.0.0.1:{port}\"]\nroutes: [{{ path: /, root: . }}]\nlimits: {{ headers: {limit} }}\n"
        );
        configure(folder.path(), &text)
    };
    let file = yaml("50");
    let mut command = supervised(vec![duplicate(&web), duplicate(&admin)], "web:admin", &["-c", &file]);
    let mut binary = start(command.env("NOTIFY_SOCKET", folder.path().join("notify")));
    assert_eq!(next_message(&supervisor), "READY=1");
    assert_eq!(binary.port(), port);
    assert_eq!(binary.line("admin on http://127.0.0.1:"), admin_port.to_string());
    assert!(get(port, "/a").ends_with("\r\n\r\na"));
    assert!(get(admin_port, "/healthz").ends_with("ok\n"));

    for (limit, told) in [("60", "reloaded: limits.headers 50 -> 60"), ("many", "not reloaded")] {
        yaml(limit);
        binary.signal("HUP");
        let message = next_message(&supervisor);
        let micros = message.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
        assert!(micros.parse::<u64>().unwrap() > 0, "{message}");
        assert_eq!(next_message(&supervisor), "READY=1");
        let mut line = String::new();
        while !line.contains(told) {
            line.clear();
            assert!(std::io::BufRead::read_line(&mut binary.stderr, &mut line).unwrap() > 0, "{told}");
        }
    }

    // The next process has the sockets too, and the supervisor is told its number by the one it knows.
    yaml("70");
    binary.replace();
    assert_eq!(next_message(&supervisor), format!("MAINPID={}", binary.pid()));
    assert_eq!(binary.exit_code(), Some(0));
    assert!(get(port, "/a").ends_with("\r\n\r\na"));
    assert!(get(admin_port, "/healthz").ends_with("ok\n"));
    binary.signal("TERM");
    assert_eq!(next_message(&supervisor), "STOPPING=1");
    binary.await_end(binary.pid());
    // Nothing is refused while nobody serves: the supervisor has the socket.
    TcpStream::connect(("127.0.0.1", port)).unwrap();
}

#[test]
fn sockets_that_nothing_is_configured_for_are_listened_on() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a"), "a").unwrap();
    let path = folder.path().join("http.sock");
    let unix = UnixListener::bind(&path).unwrap();
    let (tcp, port) = bound();
    let root = folder.path().to_str().unwrap();
    let mut binary = start(&mut supervised(vec![duplicate(&tcp), unix.into()], "", &[root]));
    assert_eq!(binary.port(), port);
    assert_eq!(binary.line("listening on unix:"), path.display().to_string());
    assert!(get(port, "/a").ends_with("\r\n\r\na"));
    assert!(get_over(UnixStream::connect(&path).unwrap(), "/a").ends_with("\r\n\r\na"));
    // They are not configured anywhere, and still there in the next process.
    let before = binary.pid();
    binary.replace();
    binary.await_end(before);
    assert!(get(port, "/a").ends_with("\r\n\r\na"));
    assert!(get_over(UnixStream::connect(&path).unwrap(), "/a").ends_with("\r\n\r\na"));
    binary.signal("TERM");
    binary.await_end(binary.pid());
    assert!(path.exists(), "the file is the supervisor's");
}

#[test]
fn what_is_not_a_listening_socket_is_named_and_what_is_for_another_process_is_left_alone() {
    let file: OwnedFd = fs::File::open("/dev/null").unwrap().into();
    let output = supervised(vec![file], "x", &["-l", "127.0.0.1:0"]).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("descriptor 3 of LISTEN_FDS (x): not a listening stream socket"), "{told}");

    let mut other = Command::new(env!("CARGO_BIN_EXE_webserver"));
    other.args(["-l", "127.0.0.1:0"]).envs([("LISTEN_PID", "1"), ("LISTEN_FDS", "2")]).stdin(Stdio::null());
    let mut binary = Binary::spawn(&mut other);
    let port = binary.port();
    assert!(get_over(connect(port), "/").starts_with("HTTP/1.1 200 OK"));
    binary.signal("TERM");
    assert_eq!(binary.exit_code(), Some(0));
}
