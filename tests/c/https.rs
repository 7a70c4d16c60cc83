//! HTTPS of a C host: certificates from its memory, what handlers learn, renewal while it serves, what is refused, and what
//! is left at the end.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
    client::Resumption,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName},
    version::{TLS12, TLS13},
};

use super::{
    certificates::{Certificates, Pair},
    harness::{Answer, Host, Linkage, Running, ask_over, compile, connect, get, library, site, wait_until},
};

const INVALID: i32 = -1;
const CONFIG: i32 = -2;

type Stream = StreamOwned<ClientConnection, TcpStream>;

/// A client that trusts the test's authority; it resumes sessions only when told.
struct Visitor {
    config: ClientConfig,
}

impl Visitor {
    fn new(certificates: &Certificates) -> Self {
        Visitor::with(certificates, &[&TLS13, &TLS12], None)
    }

    fn with(
        certificates: &Certificates,
        versions: &[&'static SupportedProtocolVersion],
        identity: Option<&Pair>,
    ) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(certificates.ca_der()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match identity {
            Some(pair) => builder.with_client_auth_cert(vec![pair.der.clone()], pair.private_key()).unwrap(),
            None => builder.with_no_client_auth(),
        };
        config.resumption = Resumption::disabled();
        Visitor { config }
    }

    /// Connects and completes the handshake.
    fn open(&self, port: u16, name: &str) -> Stream {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let connection = ClientConnection::new(Arc::new(self.config.clone()), name).unwrap();
        let mut stream = StreamOwned::new(connection, connect(port));
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock).unwrap();
        }
        stream
    }

    fn get(&self, port: u16, name: &str, target: &str) -> Answer {
        ask_over(self.open(port, name), "GET", target, "", "")
    }

    /// The certificate that the server shows for a name.
    fn shown(&self, port: u16, name: &str) -> CertificateDer<'static> {
        shown(&self.open(port, name))
    }
}

fn provider() -> CryptoProvider {
    #[cfg(feature = "aws-lc-rs")]
    return rustls::crypto::aws_lc_rs::default_provider();
    #[cfg(not(feature = "aws-lc-rs"))]
    return rustls::crypto::ring::default_provider();
}

fn shown(stream: &Stream) -> CertificateDer<'static> {
    stream.conn.peer_certificates().unwrap()[0].clone().into_owned()
}

/// One request on a connection that stays; the body of its answer, which is a 200.
fn ask_again(stream: &mut Stream) -> String {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let (mut received, mut byte) = (Vec::new(), [0]);
    while !received.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        received.push(byte[0]);
    }
    let head = String::from_utf8(received).unwrap().to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 200 "), "{head}");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body).unwrap();
    String::from_utf8(body).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Adds a pair to the listeners of a configuration of the host's.
fn add(host: &mut Host, config: usize, address: &str, pair: &Pair) {
    host.ok(&format!("certificate {config} {address} {} {}", text(&pair.certificate), text(&pair.key)));
}

/// Pairs that no server may have, and what the error says of each.
fn refused_pairs(certificates: &Certificates) -> Vec<(Pair, &'static str)> {
    let good = certificates.server(&["good.test"]);
    let wrong_key =
        Pair { key: certificates.server(&["other.test"]).key, ..certificates.server(&["mine.test"]) };
    let file = |name: &str, content: String| {
        let path = certificates.folder.path().join(name);
        fs::write(&path, content).unwrap();
        path
    };
    let block =
        |label: &str, content: &str| format!("-----BEGIN {label}-----\n{content}\n-----END {label}-----\n");
    let certificate = |name: &str, content: String| Pair {
        certificate: file(name, content),
        key: good.key.clone(),
        der: good.der.clone(),
    };
    let key = |name: &str, content: String| Pair {
        certificate: good.certificate.clone(),
        key: file(name, content),
        der: good.der.clone(),
    };
    vec![
        (wrong_key, "the key does not belong to the certificate"),
        (certificates.expired_server(&["expired.test"]), "expired on "),
        (certificate("base64", block("CERTIFICATE", "!!!!")), "not base64"),
        (certificate("der", block("CERTIFICATE", "AAAA")), "cannot be read"),
        (certificate("kind", block("PRIVATE KEY", "AAAA")), "no certificate in it"),
        (key("key-der", block("PRIVATE KEY", "AAAA")), "not an RSA, ECDSA or Ed25519 key"),
        (key("key-kind", block("CERTIFICATE", "AAAA")), "no private key in it"),
        (key("encrypted", block("ENCRYPTED PRIVATE KEY", "AAAA")), "encrypted"),
    ]
}

#[test]
fn handlers_learn_of_the_connection_what_tls_knows() {
    let (certificates, folder) = (Certificates::new(), site(""));
    let (server, client) =
        (certificates.server(&["localhost", "127.0.0.1"]), certificates.client("client 7"));
    let ca = certificates.ca();
    let arguments = [folder.path(), &server.certificate, &server.key, &ca].map(text);
    let mut program = Running::of(compile("tests/c/handlers.c", Linkage::Shared), &arguments);
    let port = program.line().parse().unwrap();
    let facts = |resumed, version, cipher, name, subject, certificate: &str| {
        format!(
            "is_tls=1\nresumed={resumed}\nversion={version}\ncipher={cipher}\nserver_name={name}\n\
             client_subject={subject}\nclient_certificate={certificate}"
        )
    };
    let (suite13, suite12) = ("TLS_AES_128_GCM_SHA256", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256");

    let nobody = Visitor::with(&certificates, &[&TLS13], None);
    let expected = facts(0, "TLSv1.3", suite13, "localhost", "NULL", "NULL");
    assert_eq!(nobody.get(port, "localhost", "/tls").body, expected);
    let expected = facts(0, "TLSv1.3", suite13, "NULL", "NULL", "NULL");
    assert_eq!(nobody.get(port, "127.0.0.1", "/tls").body, expected);

    let hex: String = client.der.iter().map(|byte| format!("{byte:02x}")).collect();
    for (version, told, suite) in [(&TLS13, "TLSv1.3", suite13), (&TLS12, "TLSv1.2", suite12)] {
        let mut known = Visitor::with(&certificates, &[version], Some(&client));
        known.config.resumption = Resumption::in_memory_sessions(4);
        for resumed in [0, 1] {
            let expected = facts(resumed, told, suite, "localhost", "CN=client 7", &hex);
            assert_eq!(known.get(port, "localhost", "/tls").body, expected);
        }
    }
    assert_eq!(nobody.get(port, "localhost", "/null").status, 200);
    let output = program.finish();
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
}

#[test]
fn without_tls_there_is_nothing_to_know() {
    let folder = site("");
    let mut program = Running::of(compile("tests/c/handlers.c", Linkage::Shared), &[text(folder.path())]);
    let port = program.line().parse().unwrap();
    assert_eq!(
        get(port, "/tls").body,
        "is_tls=0\nresumed=0\nversion=NULL\ncipher=NULL\nserver_name=NULL\nclient_subject=NULL\nclient_certificate=NULL"
    );
}

#[test]
fn certificates_are_chosen_by_name_and_the_first_is_the_default() {
    serves(Linkage::Shared);
}

#[test]
fn https_works_when_linked_statically() {
    serves(Linkage::Static);
}

fn serves(linkage: Linkage) {
    let (certificates, folder) = (Certificates::new(), site("over TLS"));
    let (first, second) = (certificates.server(&["localhost"]), certificates.server(&["b.test"]));
    let mut host = Host::with(linkage);
    host.configure(0, Some(folder.path()));
    add(&mut host, 0, "127.0.0.1:0", &first);
    add(&mut host, 0, "-", &second);
    host.ok("start 0 0");
    host.ok("free 0");
    let port = host.port(0, "");
    let visitor = Visitor::new(&certificates);
    for (name, pair) in [("localhost", &first), ("b.test", &second)] {
        let answer = visitor.get(port, name, "/");
        assert_eq!((answer.status, answer.body.as_str()), (200, "over TLS"));
        assert!(visitor.shown(port, name) == pair.der, "{name}");
    }
    host.ok("stop 0 1000");
}

#[test]
fn a_socket_of_the_hosts_speaks_tls_too() {
    let (certificates, folder) = (Certificates::new(), site("inherited"));
    let pair = certificates.server(&["localhost"]);
    let mut host = Host::new();
    host.configure(0, Some(folder.path()));
    let port = u16::try_from(host.ok("listen 0 activated").numbers()[0]).unwrap();
    add(&mut host, 0, "activated", &pair);
    host.ok("start 0 0");
    assert_eq!(Visitor::new(&certificates).get(port, "localhost", "/").body, "inherited");
    assert_eq!(get(host.port(0, "127.0.0.1:0"), "/").body, "inherited");
    host.ok("stop 0 1000");
}

#[test]
fn a_start_with_a_wrong_pair_says_why_and_leaves_nothing() {
    let certificates = Certificates::new();
    let mut host = Host::new();
    let before = host.ok("held").rest;
    for (pair, told) in refused_pairs(&certificates) {
        host.configure(0, None);
        add(&mut host, 0, "-", &pair);
        let reply = host.ask("start 0 0");
        assert_eq!(reply.code, CONFIG, "{told}: {}", reply.rest);
        assert!(reply.rest.contains(told), "not {told}: {}", reply.rest);
        host.ok("free 0");
        assert_eq!(host.ok(&format!("await {before}")).rest, before, "{told}: something is left");
    }
}

#[test]
fn a_refused_reload_leaves_the_old_certificates() {
    let certificates = Certificates::new();
    let served = certificates.server(&["localhost"]);
    let mut host = Host::new();
    host.configure(0, None);
    add(&mut host, 0, "-", &served);
    host.ok("start 0 0");
    let port = host.port(0, "");
    let visitor = Visitor::new(&certificates);
    let mut open = visitor.open(port, "localhost");
    for (pair, told) in refused_pairs(&certificates) {
        host.configure(1, None);
        add(&mut host, 1, "-", &pair);
        let reply = host.ask("reload 0 1");
        assert_eq!(reply.code, CONFIG, "{told}: {}", reply.rest);
        assert!(reply.rest.contains(told), "not {told}: {}", reply.rest);
        host.ok("free 1");
        assert!(visitor.shown(port, "localhost") == served.der, "{told}");
        ask_again(&mut open);
    }
    // Neither can it lose its TLS.
    host.configure(1, None);
    let reply = host.ask("reload 0 1");
    assert_eq!(reply.code, CONFIG, "{}", reply.rest);
    assert!(reply.rest.contains("listen[0].tls"), "{}", reply.rest);
    ask_again(&mut open);
    host.ok("stop 0 1000");
}

#[test]
fn certificates_go_with_the_listeners_that_are_replaced() {
    let certificates = Certificates::new();
    let pair = certificates.server(&["localhost"]);
    let mut host = Host::new();
    host.configure(0, None);
    let unknown =
        host.ask(&format!("certificate 0 127.0.0.1:1 {} {}", text(&pair.certificate), text(&pair.key)));
    assert_eq!(unknown.code, INVALID, "{}", unknown.rest);
    assert!(unknown.rest.contains("127.0.0.1:1"), "{}", unknown.rest);
    add(&mut host, 0, "-", &pair);
    host.ok("set 0 shards 1");
    host.ok("start 0 0");
    host.ok("set 0 listen 127.0.0.1:0");
    host.ok("start 0 1");
    assert_eq!(Visitor::new(&certificates).get(host.port(0, ""), "localhost", "/").status, 200);
    assert_eq!(get(host.port(1, ""), "/").status, 200);
    host.ok("stop 0 1000");
    host.ok("stop 1 1000");
}

#[test]
fn stop_leaves_nothing_whatever_clients_of_tls_do() {
    const LARGE: u64 = 256 << 20;
    let (certificates, folder) = (Certificates::new(), site("small"));
    fs::File::create(folder.path().join("large.bin")).unwrap().set_len(LARGE).unwrap();
    let pair = certificates.server(&["localhost"]);
    let visitor = Visitor::new(&certificates);
    let mut host = Host::new();
    host.configure(0, Some(folder.path()));
    add(&mut host, 0, "-", &pair);
    let before = host.ok("held").rest;
    for timeout_ms in [0, 500] {
        host.ok("start 0 0");
        let port = host.port(0, "");
        let mut idle = visitor.open(port, "localhost");
        assert_eq!(ask_again(&mut idle), "small");
        let silent = connect(port);
        let mut half_greeted = connect(port);
        half_greeted.write_all(&[22, 3, 1, 2, 0, 1]).unwrap();
        let mut stalled = visitor.open(port, "localhost");
        stalled.write_all(b"GET /large.bin HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        stalled.read_exact(&mut [0; 1024]).unwrap();
        host.await_stats(|figures| figures[3] >= 4);

        host.ok(&format!("stop 0 {timeout_ms}"));
        assert_eq!(host.ok(&format!("await {before}")).rest, before, "descriptors or threads are left");
        let mut rest = Vec::new();
        let _ = stalled.read_to_end(&mut rest);
        assert!((rest.len() as u64) < LARGE, "the server did not stop");
        drop((idle, silent, half_greeted));
    }
}

#[test]
fn signals_and_limits_of_the_host_stay_its_own_with_tls_too() {
    let certificates = Certificates::new();
    let pair = certificates.server(&["localhost"]);
    let arguments = [&pair.certificate, &pair.key].map(|path| text(path));
    let mut guest = Running::of(compile("tests/c/guest.c", Linkage::Shared), &arguments);
    let port = guest.line().parse().unwrap();
    assert_eq!(Visitor::new(&certificates).get(port, "localhost", "/").status, 200);
    let output = guest.finish();
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
}

/// The standard library leaves destructors of its own on the host's thread, which is why the library stays mapped; what
/// TLS computes with must add none.
#[test]
fn a_thread_may_end_after_the_library_was_closed_and_tls_leaves_nothing_on_it() {
    let certificates = Certificates::new();
    let pair = certificates.server(&["localhost"]);
    let arguments = [library().shared.as_path(), &pair.certificate, &pair.key].map(text);
    let mut program = Running::of(compile("tests/c/unload.c", Linkage::Loaded), &arguments);
    let visitor = Visitor::new(&certificates);
    let mut round = |kind: &str, visit: &dyn Fn(u16) -> Answer| {
        program.say(kind);
        let port = program.line().parse().unwrap();
        assert_eq!(visit(port).status, 200);
        program.say("stop");
        program.line()
    };
    let left = round("http", &|port| get(port, "/"));
    assert!(left.ends_with(" 1"), "threads are left: {left}");
    for _ in 0..3 {
        assert_eq!(round("https", &|port| visitor.get(port, "localhost", "/")), left);
    }
    assert_eq!(program.finish().status.code(), Some(0));
}

#[test]
fn the_example_serves_and_renews_from_memory() {
    renews(&[]);
}

#[test]
fn the_example_serves_and_renews_from_files() {
    renews(&["-f"]);
}

fn renews(options: &[&str]) {
    let certificates = Certificates::new();
    let first = certificates.server(&["localhost"]);
    let files = [text(&first.certificate), text(&first.key), "127.0.0.1:0"];
    let program = compile("c-examples/https.c", Linkage::Shared);
    assert_eq!(program.run(&[]).code(), 2);
    let refused = program.run(&[options, &["/nonexistent/cert.pem", files[1], files[2]]].concat());
    assert_eq!(refused.code(), 1);
    assert!(refused.stderr().contains("cannot read /nonexistent/cert.pem"), "{}", refused.stderr());
    let mut example = Running::of(program, &[options, &files].concat());
    let port = example.line().rsplit(' ').next().unwrap().parse().unwrap();
    let visitor = Visitor::new(&certificates);
    let mut open = visitor.open(port, "localhost");
    assert_eq!(ask_again(&mut open), "TLSv1.3, TLS_AES_128_GCM_SHA256, asked for localhost, a new session\n");
    assert!(shown(&open) == first.der);

    // Requests go on meanwhile, on a connection that stays and on new ones.
    let (answered, enough) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let busy = thread::spawn({
        let mut kept = visitor.open(port, "localhost");
        let other = Visitor { config: visitor.config.clone() };
        let (answered, enough) = (Arc::clone(&answered), Arc::clone(&enough));
        move || {
            while !enough.load(Relaxed) {
                ask_again(&mut kept);
                assert_eq!(other.get(port, "localhost", "/").status, 200);
                answered.fetch_add(1, Relaxed);
            }
        }
    });
    let mut last = first;
    for _ in 0..4 {
        let next = certificates.server(&["localhost"]);
        assert!(next.der != last.der);
        let before = answered.load(Relaxed);
        example.say("");
        assert_eq!(example.line(), "renewed");
        assert!(visitor.shown(port, "localhost") == next.der);
        // One may have begun before; the second began and ended after.
        wait_until("requests are answered", || answered.load(Relaxed) >= before + 2);
        last = next;
    }
    enough.store(true, Relaxed);
    busy.join().unwrap();

    fs::write(&last.key, "no key").unwrap();
    example.say("");
    let told = example.line();
    assert!(told.starts_with("not renewed: "), "{told}");
    assert!(visitor.shown(port, "localhost") == last.der);
    ask_again(&mut open);
    assert_eq!(example.finish().status.code(), Some(0));
}
