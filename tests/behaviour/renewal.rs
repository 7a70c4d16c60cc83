//! Certificates from day to day: told when they end, renewed by a reload, the old ones kept when the new are no good.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    sync::{Arc, Mutex},
};

use webserver::{
    ErrorKind,
    config::{Config, Level},
    server::Options,
};

use crate::{
    certificates::{Certificates, Pair},
    harness::{TestServer, try_start},
};

/// The beginnings of two years in Unix time.
const YEAR_2150: u64 = 5_680_281_600;
const YEAR_2160: u64 = 5_995_814_400;

fn yaml(pair: &Pair) -> String {
    format!("shards: 1\nlisten: [{{ address: \"127.0.0.1:0\", tls: {{ certificates: [{}] }} }}]", pair.yaml())
}

fn reload(server: &TestServer, yaml: &str) -> webserver::Result<()> {
    let mut config = Config::new();
    config.load_yaml(yaml).unwrap();
    server.server.reload(&config)
}

fn series(pair: &Pair) -> String {
    let file = pair.certificate.display();
    format!("webserver_tls_certificate_expiry_seconds{{certificate=\"{file}\"}}")
}

#[test]
fn a_start_with_a_key_of_another_certificate_is_refused_by_name() {
    let certificates = Certificates::new();
    let (pair, other) = (certificates.server(&["a.example"]), certificates.server(&["b.example"]));
    fs::copy(&other.key, &pair.key).unwrap();
    let error = try_start(&yaml(&pair)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    let expected = format!("{}: the key does not belong to the certificate", pair.key.display());
    assert!(error.to_string().contains(&expected), "{error}");
}

#[test]
fn the_end_of_a_certificate_is_a_metric_that_a_reload_renews() {
    let certificates = Certificates::new();
    let pair = certificates.server_until(&["a.example"], 2150);
    let server = TestServer::from_yaml(&yaml(&pair), tempfile::tempdir().unwrap());
    assert_eq!(server.metric(&series(&pair)), YEAR_2150);

    certificates.expired_server(&["a.example"]);
    let error = reload(&server, &yaml(&pair)).unwrap_err();
    let expected = format!("{}: the certificate expired on 2020-01-01", pair.certificate.display());
    assert!(error.to_string().contains(&expected), "{error}");
    assert_eq!(server.metric(&series(&pair)), YEAR_2150);

    certificates.server_until(&["a.example"], 2160);
    reload(&server, &yaml(&pair)).unwrap();
    assert_eq!(server.metric(&series(&pair)), YEAR_2160);

    let other = certificates.server_until(&["b.example"], 2150);
    reload(&server, &yaml(&other)).unwrap();
    assert_eq!(server.metric(&series(&pair)), 0);
    assert_eq!(server.metric(&series(&other)), YEAR_2150);
}

#[test]
fn a_reload_tells_which_certificates_are_others_in_the_same_files() {
    let certificates = Certificates::new();
    let pair = certificates.server_until(&["a.example"], 2150);
    let told = Arc::new(Mutex::new(Vec::new()));
    let lines = Arc::clone(&told);
    let options = Options {
        log: Some(Arc::new(move |_, _: &str, line: &str| lines.lock().unwrap().push(line.to_owned()))),
        ..Options::default()
    };
    let server = TestServer::with_options(&yaml(&pair), tempfile::tempdir().unwrap(), options);
    let reloaded = || {
        let lines = std::mem::take(&mut *told.lock().unwrap());
        lines.into_iter().filter(|line| line.starts_with("reloaded: ")).collect::<Vec<_>>()
    };
    reload(&server, &yaml(&pair)).unwrap();
    assert_eq!(reloaded(), ["reloaded: nothing has changed"]);
    certificates.server_until(&["a.example"], 2160);
    reload(&server, &yaml(&pair)).unwrap();
    let file = pair.certificate.display();
    let expected =
        format!("reloaded: {file}: another certificate, valid until Tue, 01 Jan 2160 00:00:00 GMT");
    assert_eq!(reloaded(), [expected]);
}

#[test]
fn what_should_be_looked_at_is_logged_at_the_start_and_at_each_reload() {
    let certificates = Certificates::new();
    let pair = certificates.server(&["a.example"]);
    let (_, key) = webserver::tls::self_signed(&["b.example".to_owned()]).unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));
    let lines = Arc::clone(&told);
    let options = Options {
        log: Some(Arc::new(move |_, _: &str, line: &str| lines.lock().unwrap().push(line.to_owned()))),
        log_level: Some(Level::Warn),
        ..Options::default()
    };
    fs::set_permissions(&pair.key, fs::Permissions::from_mode(0o644)).unwrap();
    let server = TestServer::with_options(&yaml(&pair), tempfile::tempdir().unwrap(), options);
    let expected = format!("{}: a private key that every user may read", pair.key.display());
    let count = || told.lock().unwrap().iter().filter(|line| line.starts_with(&expected)).count();
    assert_eq!(count(), 1, "{:?}", told.lock().unwrap());
    reload(&server, &yaml(&pair)).unwrap();
    assert_eq!(count(), 2);
    // What is refused is for the caller alone.
    fs::write(&pair.key, key).unwrap();
    reload(&server, &yaml(&pair)).unwrap_err();
    assert_eq!(count(), 2);
}
