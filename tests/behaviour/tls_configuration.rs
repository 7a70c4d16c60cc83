//! What a configuration says about TLS, on a running server and over reloads.

use std::sync::{Arc, Mutex};

use rustls::{ProtocolVersion, version::TLS12};
use webserver::{
    ErrorKind,
    config::{Config, Level},
    server::Options,
};

use crate::{
    certificates::{Certificates, Pair},
    harness::{TestServer, try_start, wait_until},
    tls_client::{Connector, Dialer},
};

/// A listener with these keys inside `tls`.
fn yaml(tls: &str) -> String {
    format!("shards: 2\nlisten: [{{ address: \"127.0.0.1:0\", tls: {{ {tls} }} }}]")
}

/// The pair as PEM text.
fn in_memory(pair: &Pair) -> String {
    let (certificate, key) = (pair.certificate_text(), pair.key_text());
    format!("certificates: {{ certificate: {certificate:?}, key: {key:?} }}")
}

fn reload(server: &TestServer, yaml: &str) -> webserver::Result<()> {
    let mut config = Config::new();
    config.load_yaml(yaml).unwrap();
    server.server.reload(&config)
}

fn shows(connector: &Connector, server: &TestServer, pair: &Pair) -> bool {
    connector.connect(server.address).was_shown(pair)
}

#[test]
fn pem_in_memory_serves_and_is_replaced_by_a_reload_that_does_not_tell_it() {
    let certificates = Certificates::new();
    let old = certificates.server(&["localhost"]);
    let (old_yaml, old_key) = (yaml(&in_memory(&old)), old.key_text());
    let told = Arc::new(Mutex::new(Vec::new()));
    let lines = Arc::clone(&told);
    let options = Options {
        log: Some(Arc::new(move |_, _: &str, line: &str| lines.lock().unwrap().push(line.to_owned()))),
        log_level: Some(Level::Trace),
        ..Options::default()
    };
    let server = TestServer::with_options(&old_yaml, tempfile::tempdir().unwrap(), options);
    let connector = Dialer::trusting(&certificates).connector();
    assert!(shows(&connector, &server, &old));
    let mut open = connector.connect(server.address);

    let new = certificates.server(&["localhost"]);
    reload(&server, &yaml(&in_memory(&new))).unwrap();
    assert!(shows(&connector, &server, &new));
    assert_eq!(open.request("GET", "/", "Host: localhost\r\n").status, 200, "it goes on as it began");
    let has = |text: &str| told.lock().unwrap().iter().any(|line| line.contains(text));
    wait_until("the change to be logged", || has("listen[0].tls.certificates[0].key (in memory"));
    for key in [&old_key, &new.key_text()] {
        let secret = key.lines().nth(1).unwrap();
        assert!(!has(secret) && !has(&secret[..16]), "{:?}", told.lock().unwrap());
    }
}

#[test]
fn text_that_is_no_certificate_is_refused_without_being_repeated() {
    let certificates = Certificates::new();
    let (pair, other) = (certificates.server(&["localhost"]), certificates.server(&["b.test"]));
    let text =
        in_memory(&pair).replace(&format!("{:?}", pair.key_text()), &format!("{:?}", other.key_text()));
    let error = try_start(&yaml(&text)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    let secret = other.key_text().lines().nth(1).unwrap().to_owned();
    assert!(!error.to_string().contains(&secret), "{error}");
}

#[test]
fn versions_change_by_a_reload_and_whether_there_is_tls_does_not() {
    let certificates = Certificates::new();
    let pair = certificates.server(&["localhost"]);
    let tls = |versions: &str| yaml(&format!("certificates: {}, versions: {versions}", pair.yaml()));
    let server = TestServer::from_yaml(&tls("[tls1.2, tls1.3]"), tempfile::tempdir().unwrap());
    let version = || Dialer::trusting(&certificates).connector().connect(server.address).version();
    let old = || Dialer::trusting(&certificates).versions(&[&TLS12]).connector().try_connect(server.address);
    assert_eq!((version(), old().is_ok()), (ProtocolVersion::TLSv1_3, true));
    reload(&server, &tls("tls1.2")).unwrap();
    assert_eq!(version(), ProtocolVersion::TLSv1_2);
    reload(&server, &tls("tls1.3")).unwrap();
    assert_eq!((version(), old().is_ok()), (ProtocolVersion::TLSv1_3, false));

    let error = reload(&server, "shards: 2\nlisten: [\"127.0.0.1:0\"]").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().starts_with("listen[0].tls cannot change while the server runs"), "{error}");
    assert_eq!(version(), ProtocolVersion::TLSv1_3, "all goes on as before");
}

#[test]
fn a_listener_without_tls_serves_beside_one_with_it() {
    let certificates = Certificates::new();
    let pair = certificates.server(&["localhost"]);
    let text = format!(
        "shards: 1\nlisten:\n- address: 127.0.0.1:0\n- address: 127.0.0.2:0\n  tls: {{ certificates: [{}] }}\n",
        pair.yaml()
    );
    let server = TestServer::from_yaml(&text, tempfile::tempdir().unwrap());
    let addresses = server.server.addresses();
    let urls: Vec<&str> = addresses.iter().map(|bound| bound.url.split("127").next().unwrap()).collect();
    assert_eq!(urls, ["http://", "https://"]);
    assert_eq!(server.get("/").status, 200);
    let address = (std::net::Ipv4Addr::new(127, 0, 0, 2), addresses[1].port.unwrap()).into();
    let mut client = Dialer::trusting(&certificates).connector().connect(address);
    assert_eq!(client.request("GET", "/", "Host: localhost\r\n").status, 200);
}
