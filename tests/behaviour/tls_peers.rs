//! Who talks to whom: certificates by name and renewed by a reload, certificates of clients, versions and protocols, and
//! what is logged of it.

use std::fs;

use rustls::{AlertDescription, ProtocolVersion};

use crate::{
    certificates::Certificates,
    harness::wait_until,
    https::{Https, VERSIONS},
    tls_client::{Connector, Dialer, TlsClient},
    tls_floods::Done,
};

const GET: &str = "GET /small HTTP/1.1\r\nHost: test\r\n\r\n";
const FILES: [(&str, &[u8]); 1] = [("small", b"hello")];

fn serve(client: &mut TlsClient) {
    assert_eq!(client.ask(GET).body, b"hello");
}

/// Connects, is served, and says whether the session was resumed.
fn visit(connector: &Connector, server: &Https) -> bool {
    let mut client = connector.connect(server.address());
    serve(&mut client);
    let resumed = client.resumed();
    client.close();
    resumed
}

#[test]
fn new_connections_get_the_new_certificate_and_the_others_go_on() {
    let server = Https::start("", "shards: 2", &FILES);
    let renewed = server.certificates.server(&["localhost", "renewed.test"]);
    let mut open: Vec<TlsClient> =
        (0..6).map(|number| server.connector(VERSIONS[number % 2]).connect(server.address())).collect();
    assert!(open.iter().all(|client| client.was_shown(&server.pair)));
    let expect_shown = |renewed_is: bool| {
        for versions in VERSIONS {
            let client = server.connector(versions).connect(server.address());
            assert_eq!(
                (client.was_shown(&server.pair), client.was_shown(&renewed)),
                (!renewed_is, renewed_is)
            );
        }
    };
    // The files have the renewed one already, the server has not.
    expect_shown(false);
    server.reload(&renewed).unwrap();
    expect_shown(true);
    open.iter_mut().for_each(serve);
    // What is no good is refused by name, and changes nothing.
    for (text, reason) in [("nonsense", "PEM"), (renewed.key_text().as_str(), "")] {
        let certificate = renewed.certificate_text();
        fs::write(&renewed.certificate, text).unwrap();
        let error = server.reload(&renewed).unwrap_err().to_string();
        assert!(error.contains("localhost.pem") && error.contains(reason), "{error}");
        fs::write(&renewed.certificate, certificate).unwrap();
        expect_shown(true);
    }
    let expired = server.certificates.expired_server(&["old.test"]);
    assert!(server.reload(&expired).unwrap_err().to_string().contains("expired"));
    expect_shown(true);
    open.iter_mut().for_each(serve);
    open.into_iter().for_each(TlsClient::close);
    server.expect_nothing_left();
}

#[test]
fn reloads_under_load_lose_no_connection() {
    let server = Https::start("", "shards: 2", &FILES);
    let (address, connectors) = (server.address(), VERSIONS.map(|versions| server.connector(versions)));
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clients: Vec<_> = connectors
            .iter()
            .map(|connector| {
                scope.spawn(|| {
                    let mut kept = connector.connect(address);
                    let mut visits = 0;
                    while !done.load(std::sync::atomic::Ordering::Relaxed) || visits < 3 {
                        serve(&mut kept);
                        let mut client = connector.connect(address);
                        serve(&mut client);
                        client.close();
                        visits += 1;
                    }
                    kept.close();
                })
            })
            .collect();
        let all = Done(&done);
        for _ in 0..10 {
            server.reload(&server.certificates.server(&["localhost"])).unwrap();
        }
        drop(all);
        clients.into_iter().for_each(|client| client.join().unwrap());
    });
    server.expect_nothing_left();
}

#[test]
fn clients_without_the_certificate_that_is_wanted_are_refused_and_told_why() {
    for mode in ["required", "optional"] {
        let tls = format!(", client_ca: \"{{ca}}\", client_certificates: {mode}");
        let server = Https::start(&tls, "", &FILES);
        let (known, stranger, expired) = (
            server.certificates.client("known"),
            server.certificates.stranger("stranger"),
            server.certificates.expired_client("expired"),
        );
        for versions in VERSIONS {
            let anonymous = server.connector(versions);
            if mode == "optional" {
                assert!(!visit(&anonymous, &server));
            } else {
                let told = anonymous.refusal(server.address());
                assert_eq!(told, AlertDescription::CertificateRequired);
            }
            assert!(!visit(&server.dialer().versions(versions).showing(&known).connector(), &server));
            let refusal =
                |pair| server.dialer().versions(versions).showing(pair).connector().refusal(server.address());
            assert_eq!(refusal(&stranger), AlertDescription::UnknownCA);
            assert_eq!(refusal(&expired), AlertDescription::CertificateExpired);
        }
        let missing = if mode == "required" { 2 } else { 0 };
        server.expect_nothing_left();
        assert_eq!(server.failures("client_certificate_missing"), missing);
        assert_eq!(server.failures("client_certificate_refused"), 4);
    }
}

#[test]
fn a_session_of_a_client_resumes_with_who_it_was() {
    for cache in ["true", "false"] {
        let yaml = format!("shards: 2\nmemory: {{ tls_session_cache: {{ tickets: {cache} }} }}");
        let server = Https::start(", client_ca: \"{ca}\"", &yaml, &FILES);
        let known = server.certificates.client("known");
        for versions in VERSIONS {
            let connector = server.dialer().versions(versions).showing(&known).connector();
            for round in 0..3 {
                let mut client = connector.connect(server.address());
                let facts = client.request("GET", "/facts", "").body;
                let wanted = format!(" localhost {} CN=known {}", round > 0, known.der.len());
                assert!(String::from_utf8(facts).unwrap().ends_with(&wanted), "{wanted}");
                client.close();
            }
        }
    }
}

#[test]
fn the_name_that_is_asked_for_decides_which_certificate_is_shown() {
    let certificates = Certificates::new();
    let pairs = [&["default.test"], &["a.test"], &["*.b.test"]].map(|names| certificates.server(names));
    let all: Vec<String> = pairs.iter().map(|pair| pair.yaml()).collect();
    let tls = format!("certificates: [{}]", all.join(", "));
    let server = Https::serve(&tls, "", &FILES, tempfile::tempdir().unwrap(), certificates);
    for versions in VERSIONS {
        for (name, shown) in [
            ("default.test", 0),
            ("a.test", 1),
            ("www.b.test", 2),
            ("b.test", 0),
            ("x.www.b.test", 0),
            ("unknown.test", 0),
            ("127.0.0.1", 0),
        ] {
            let dialer = Dialer::trusting_anyone().name(name).versions(versions);
            let mut client = dialer.connector().connect(server.address());
            assert!(client.was_shown(&pairs[shown]), "{name}");
            let told = client.request("GET", "/facts", "").body;
            let name = if name == "127.0.0.1" { "-" } else { name };
            assert_eq!(String::from_utf8(told).unwrap().split(' ').nth(2), Some(name));
        }
    }
}

#[test]
fn the_protocol_is_http_1_1_or_there_is_none_in_common() {
    let server = Https::start("", "", &FILES);
    let dial = |alpn: &[&str]| server.dialer().alpn(alpn).connector();
    for (offered, chosen) in [
        (&[][..], None),
        (&["http/1.1"], Some("http/1.1")),
        (&["h2", "http/1.1"], Some("http/1.1")),
        (&["http/1.1", "h2"], Some("http/1.1")),
    ] {
        let mut client = dial(offered).connect(server.address());
        assert_eq!(client.alpn(), chosen, "{offered:?}");
        serve(&mut client);
    }
    for offered in [&["h2"][..], &["http/1.0", "spdy/3"]] {
        assert_eq!(dial(offered).refusal(server.address()), AlertDescription::NoApplicationProtocol);
    }
    server.expect_nothing_left();
    assert_eq!(server.failures("protocol"), 2);
}

#[test]
fn a_listener_speaks_the_versions_that_it_was_told_to() {
    for (version, spoken, other) in
        [("tls1.2", VERSIONS[0], VERSIONS[1]), ("tls1.3", VERSIONS[1], VERSIONS[0])]
    {
        let server = Https::start(&format!(", versions: [{version}]"), "", &FILES);
        let mut client = server.connector(rustls::ALL_VERSIONS).connect(server.address());
        let wanted = if version == "tls1.2" { ProtocolVersion::TLSv1_2 } else { ProtocolVersion::TLSv1_3 };
        assert_eq!(client.version(), wanted);
        serve(&mut client);
        drop(client);
        assert!(!visit(&server.connector(spoken), &server));
        let told = server.connector(other).refusal(server.address());
        assert_eq!(told, AlertDescription::ProtocolVersion);
        server.expect_nothing_left();
        assert_eq!(server.failures("version"), 1);
    }
}

#[test]
fn the_access_log_says_how_it_was_encrypted() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.log");
    let yaml = format!("access_log: {{ path: {}, format: json }}", log.display());
    let server = Https::serve("", &yaml, &FILES, folder, Certificates::new());
    assert!(!visit(&server.connector(VERSIONS[1]), &server));
    assert_eq!(server.connect_plain().ask(GET).status, 200);
    let mut plain = server.server.connect();
    assert_eq!(plain.ask(GET).status, 400);
    let lines = || -> Vec<serde_json::Value> {
        let text = fs::read_to_string(&log).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    };
    wait_until("three lines", || lines().len() == 3);
    let lines = lines();
    let wanted = serde_json::json!({
        "version": "TLSv1.3", "cipher_suite": "TLS_AES_128_GCM_SHA256", "resumed": false,
        "server_name": "localhost"
    });
    assert_eq!(lines[0]["tls"], wanted);
    assert_eq!((lines[1]["status"].as_u64(), &lines[1]["tls"]), (Some(200), &serde_json::Value::Null));
    assert_eq!((lines[2]["status"].as_u64(), &lines[2]["tls"]), (Some(400), &serde_json::Value::Null));
}
