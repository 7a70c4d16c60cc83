//! HTTPS as others speak it: openssl and curl.

use std::{
    fs,
    io::{BufRead, BufReader, PipeReader, Read, Write, pipe},
    process::{Child, ChildStdin, Command, Stdio},
};

use crate::{
    https::Https,
    system::{assert_same, pattern, skip},
};

const LARGE_BYTES: usize = (5 << 20) + 3;
const REQUEST: &str = "GET /small HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";

fn start() -> Https {
    Https::start("", "shards: 2", &[("small", b"hello\n"), ("large", &pattern()[..LARGE_BYTES])])
}

/// Whether a program is there; says so when it is not.
fn is_there(program: &str) -> bool {
    let output = Command::new(program).arg("version").stdin(Stdio::null()).output();
    if output.is_err() {
        skip(&format!("there is no {program} to speak HTTPS"));
    }
    output.is_ok()
}

/// `openssl s_client` that talks to the server, and what it says.
struct OpenSsl {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<PipeReader>,
}

impl OpenSsl {
    fn start(server: &Https, arguments: &[&str]) -> Self {
        let (output, said) = pipe().unwrap();
        let mut child = Command::new("openssl")
            .args(["s_client", "-connect", &server.address().to_string(), "-servername", "localhost"])
            .args(["-CAfile", server.certificates.ca().to_str().unwrap(), "-verify_return_error"])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(said.try_clone().unwrap())
            .stderr(said)
            .spawn()
            .unwrap();
        let input = child.stdin.take();
        OpenSsl { child, input, output: BufReader::new(output) }
    }

    fn say(&mut self, text: &str) {
        let input = self.input.as_mut().unwrap();
        input.write_all(text.as_bytes()).unwrap();
        input.flush().unwrap();
    }

    /// Reads up to a line that has this.
    #[track_caller]
    fn expect(&mut self, wanted: &str) {
        let mut said = Vec::new();
        loop {
            let mut line = Vec::new();
            let count = self.output.read_until(b'\n', &mut line).unwrap();
            assert!(count > 0, "no {wanted:?} in {}", String::from_utf8_lossy(&said));
            said.extend_from_slice(&line);
            if String::from_utf8_lossy(&line).contains(wanted) {
                return;
            }
        }
    }

    /// Everything until it ends by itself.
    fn rest(mut self) -> String {
        let mut said = Vec::new();
        self.output.read_to_end(&mut said).unwrap();
        self.child.wait().unwrap();
        String::from_utf8_lossy(&said).into_owned()
    }
}

impl Drop for OpenSsl {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn openssl_resumes_by_ticket_and_by_session_id() {
    if !is_there("openssl") {
        return;
    }
    let server = start();
    for (flags, version) in
        [(&["-tls1_3"][..], "TLSv1.3"), (&["-tls1_2"], "TLSv1.2"), (&["-tls1_2", "-no_ticket"], "TLSv1.2")]
    {
        let session = server.server.folder.path().join("session.pem");
        let session = session.to_str().unwrap();
        let visit = |resume: &[&str]| {
            let arguments = [flags, &["-ign_eof", "-sess_out", session], resume].concat();
            let mut openssl = OpenSsl::start(&server, &arguments);
            openssl.say(REQUEST);
            let said = openssl.rest();
            assert!(said.contains("HTTP/1.1 200 OK") && said.contains("hello"), "{said}");
            said.contains(&format!("Reused, {version}"))
        };
        assert!(!visit(&[]), "{flags:?}");
        for _ in 0..4 {
            assert!(visit(&["-sess_in", session]), "{flags:?}");
        }
    }
    server.expect_nothing_left();
}

#[test]
fn openssl_reconnects_with_the_session_it_had() {
    if !is_there("openssl") {
        return;
    }
    let server = start();
    for flags in [&["-reconnect", "-tls1_2"][..], &["-reconnect", "-tls1_2", "-no_ticket"]] {
        let mut openssl = OpenSsl::start(&server, flags);
        openssl.input = None;
        let said = openssl.rest();
        assert_eq!(said.matches("Reused, TLSv1.2").count(), 5, "{said}");
    }
    server.expect_nothing_left();
}

#[test]
fn openssl_updates_its_keys() {
    if !is_there("openssl") {
        return;
    }
    let server = start();
    let mut openssl = OpenSsl::start(&server, &["-tls1_3"]);
    let keep = REQUEST.replace("close", "keep-alive");
    openssl.say(&keep);
    openssl.expect("hello");
    // With a capital it asks the server to do the same.
    for update in ["K\n", "k\n", "K\n"] {
        openssl.say(update);
        openssl.expect("KEYUPDATE");
        openssl.say(&keep);
        openssl.expect("hello");
    }
    drop(openssl);
    server.expect_nothing_left();
}

#[test]
fn curl_loads_and_uploads_in_both_versions() {
    if !is_there("curl") {
        return;
    }
    let server = start();
    let folder = tempfile::tempdir().unwrap();
    let (got, body) = (folder.path().join("got"), folder.path().join("body"));
    fs::write(&body, &pattern()[..1 << 20]).unwrap();
    let port = server.address().port();
    let curl = |arguments: &[&str]| {
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--noproxy", "*", "--max-time", "60"])
            .args(["--resolve", &format!("localhost:{port}:127.0.0.1"), "--cacert"])
            .arg(server.certificates.ca())
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let url = |target: &str| format!("https://localhost:{port}/{target}");
    for version in [&["--tlsv1.2", "--tls-max", "1.2"][..], &["--tlsv1.3"]] {
        curl(&[version, &["--output", got.to_str().unwrap(), &url("large")]].concat());
        assert_same("large", &fs::read(&got).unwrap(), &pattern()[..LARGE_BYTES]);
        // Two on one connection; both versions of HTTP are offered.
        let told =
            curl(&[version, &["--http2", "-w", "%{http_version} ", &url("small"), &url("small")]].concat());
        assert_eq!(told, b"hello\n1.1 hello\n1.1 ");
        let body = format!("@{}", body.display());
        assert_eq!(curl(&[version, &["--data-binary", &body, &url("length")]].concat()), b"1048576");
        let part = curl(&[version, &["--range", "1-3", &url("small")]].concat());
        assert_eq!(part, b"ell");
    }
    server.expect_nothing_left();
    assert_eq!(server.failures("alert") + server.failures("left"), 0);
}
