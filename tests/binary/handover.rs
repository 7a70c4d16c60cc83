//! One process after another on the same sockets: no request fails, and a new process that cannot start changes nothing.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::unix::{fs::MetadataExt, net::UnixStream},
    path::Path,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use crate::process::{Binary, PATIENCE, command, configure, connect, get, get_over};

/// Requests that each client sends at least.
const REQUESTS_MIN: usize = 300;

/// The end of a response's head, its length, and whether the connection ends with it.
fn head(received: &[u8]) -> Option<(usize, usize, bool)> {
    let end = received.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let text = String::from_utf8(received[..end].to_vec()).unwrap();
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
    let length =
        text.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap().parse().unwrap();
    Some((end, length, text.contains("\r\nConnection: close\r\n")))
}

/// One request and its response; whether another may follow.
fn ask(stream: &mut TcpStream, keep_alive: bool, body: &[u8]) -> Result<bool, String> {
    let connection = if keep_alive { "" } else { "Connection: close\r\n" };
    let request = format!("GET /a HTTP/1.1\r\nHost: test\r\n{connection}\r\n");
    stream.write_all(request.as_bytes()).map_err(|error| format!("write: {error}"))?;
    let mut received = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        if let Some((end, length, close)) = head(&received)
            && received.len() >= end + length
        {
            assert!(received[end..] == *body, "another body");
            return Ok(!close);
        }
        match stream.read(&mut buffer) {
            Ok(0) => return Err(format!("closed after {} bytes", received.len())),
            Ok(count) => received.extend_from_slice(&buffer[..count]),
            Err(error) => return Err(format!("read: {error}")),
        }
    }
}

/// Asks until told to stop, over as few connections as the server allows, or over one each.
fn ask_on(
    port: u16,
    keep_alive: bool,
    body: &[u8],
    stop: &AtomicBool,
    answered: &AtomicUsize,
) -> Vec<String> {
    let mut failed = Vec::new();
    let mut own = 0;
    let mut kept: Option<TcpStream> = None;
    while own < REQUESTS_MIN || !stop.load(Ordering::Relaxed) {
        let connected = || {
            let stream = TcpStream::connect(("127.0.0.1", port))?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            Ok::<_, std::io::Error>(stream)
        };
        let stream = kept.take().map_or_else(connected, Ok);
        let outcome = stream.map_err(|error| format!("connect: {error}")).and_then(|mut stream| {
            if ask(&mut stream, keep_alive, body)? {
                kept = Some(stream);
            }
            Ok(())
        });
        match outcome {
            Ok(()) => answered.fetch_add(1, Ordering::Relaxed),
            Err(error) => {
                failed.push(error);
                0
            }
        };
        own += 1;
    }
    failed
}

fn write_configuration(folder: &Path, shards: usize) -> String {
    configure(
        folder,
        &format!(
            "shards: {shards}\nlisten: [\"127.0.0.1:0\"]\nadmin: {{ address: \"127.0.0.1:0\" }}\n\
             routes: [{{ path: /, root: . }}]\nlog: {{ level: error }}\n"
        ),
    )
}

#[test]
fn no_request_fails_while_processes_follow_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let body: Vec<u8> = (0..10_000).map(|index| b'a' + (index % 23) as u8).collect();
    fs::write(folder.path().join("a"), &body).unwrap();
    let file = write_configuration(folder.path(), 2);
    let mut binary = Binary::start(&["-c", &file]);
    let port = binary.port();
    let (stop, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let failed: Vec<String> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..6)
            .map(|number| {
                let (body, stop, answered) = (&body, &stop, &answered);
                scope.spawn(move || ask_on(port, number % 2 == 0, body, stop, answered))
            })
            .collect();
        let mut before = binary.pid();
        // More shards, fewer, and as many as before.
        for shards in [3, 1, 2, 2] {
            write_configuration(folder.path(), shards);
            let seen = answered.load(Ordering::Relaxed);
            binary.replace();
            binary.await_end(before);
            before = binary.pid();
            binary.signal("HUP");
            while answered.load(Ordering::Relaxed) < seen + 100 {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        stop.store(true, Ordering::Relaxed);
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    assert!(failed.is_empty(), "{} of {} failed: {failed:?}", failed.len(), answered.into_inner());
    assert_eq!(binary.exit_code(), Some(0));
    binary.signal("TERM");
    binary.await_end(binary.pid());
}

#[test]
fn the_process_before_ends_what_it_has_begun_and_gives_up_the_admin_listener() {
    const LARGE: usize = 32 << 20;
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("large"), vec![7; LARGE]).unwrap();
    fs::write(folder.path().join("a"), "a").unwrap();
    let file = write_configuration(folder.path(), 1);
    let mut binary = Binary::start(&["-c", &file]);
    let port = binary.port();
    let admin: u16 = binary.line("admin on http://127.0.0.1:").parse().unwrap();
    let mut download = connect(port);
    download.write_all(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    download.read_exact(&mut [0; 1]).unwrap();
    binary.replace();
    for _ in 0..10 {
        assert!(get(admin, "/healthz").starts_with("HTTP/1.1 200 OK"), "the one that drains answered");
        assert!(get(port, "/a").ends_with("\r\n\r\na"));
    }
    assert!(binary.child.try_wait().unwrap().is_none(), "the download was given up");
    let mut rest = Vec::new();
    download.read_to_end(&mut rest).unwrap();
    assert!(rest.len() > LARGE && rest.ends_with(&[7; 1000]), "{} bytes", rest.len());
    assert_eq!(binary.exit_code(), Some(0));
    assert!(get(port, "/a").ends_with("\r\n\r\na"));
    binary.signal("TERM");
    binary.await_end(binary.pid());
}

#[test]
fn a_process_that_cannot_start_leaves_the_old_one_serving() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a"), "a").unwrap();
    let program = folder.path().join("webserver");
    fs::copy(env!("CARGO_BIN_EXE_webserver"), &program).unwrap();
    let file = write_configuration(folder.path(), 2);
    let mut process = std::process::Command::new(&program);
    process.args(["-c", &file]).stdin(std::process::Stdio::null());
    let mut binary = Binary::spawn(&mut process);
    let port = binary.port();
    configure(folder.path(), "listen: [\"127.0.0.1:0\"]\nroutes: [{ path: /, rot: . }]\n");
    binary.signal("USR2");
    let told = binary.line("webserver: not handed over: process ");
    assert!(told.ends_with("does not accept connections: it ended with exit status: 2"), "{told}");
    assert!(get(port, "/a").ends_with("\r\n\r\na"));
    // The file is another one by now: that one is started.
    write_configuration(folder.path(), 1);
    let newer = folder.path().join("newer");
    fs::copy(env!("CARGO_BIN_EXE_webserver"), &newer).unwrap();
    fs::rename(&newer, &program).unwrap();
    binary.replace();
    assert_eq!(binary.exit_code(), Some(0));
    assert!(get(port, "/a").ends_with("\r\n\r\na"));
    assert_eq!(fs::read_link(format!("/proc/{}/exe", binary.pid())).unwrap(), program);
    binary.signal("TERM");
    binary.await_end(binary.pid());
}

#[test]
fn the_file_of_a_unix_socket_is_handed_over_and_removed_by_the_last() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a"), "a").unwrap();
    let path = folder.path().join("http.sock");
    let listen = format!("unix:{}", path.display());
    let site = folder.path().to_str().unwrap();
    let mut binary = Binary::start(&["-l", &listen, "--shards", "3", site]);
    binary.line("listening on unix:");
    let inode = fs::metadata(&path).unwrap().ino();
    for _ in 0..2 {
        let before = binary.pid();
        binary.replace();
        binary.await_end(before);
        assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
        assert!(get_over(UnixStream::connect(&path).unwrap(), "/a").ends_with("\r\n\r\na"));
    }
    binary.signal("TERM");
    binary.await_end(binary.pid());
    assert!(!path.exists());
}

#[test]
fn a_hand_over_meant_for_another_process_is_refused() {
    let output = command(&["-l", "127.0.0.1:0"]).env("WEBSERVER_HANDOVER", "1 2 3:p:a").output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(told.contains("WEBSERVER_HANDOVER is not for this process"), "{told}");
}
