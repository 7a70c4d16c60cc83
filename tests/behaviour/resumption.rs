//! A client resumes its session on whichever shard it meets: by ticket and by id, across reloads, on another machine.

use rustls::{
    SupportedProtocolVersion,
    client::Tls12Resumption,
    version::{TLS12, TLS13},
};
use webserver::{ErrorKind, config::Config};

use crate::{
    certificates::{Certificates, Pair},
    harness::{TestServer, try_start},
    tls_client::{Connector, Dialer},
};

/// Shards of a server in the tests.
const SHARDS: usize = 3;
/// Connections that resume, one after another.
const TRIES: u64 = 200;
const REQUEST: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

fn yaml(pair: &Pair, tls: &str, cache: &str) -> String {
    format!(
        "shards: {SHARDS}\nlisten: [{{ address: \"127.0.0.1:0\", tls: {{ certificates: [{}]{tls} }} }}]\n\
         memory: {{ tls_session_cache: {{ {cache} }} }}",
        pair.yaml()
    )
}

fn start(yaml: &str) -> TestServer {
    TestServer::from_yaml(yaml, tempfile::tempdir().unwrap())
}

/// A connection with a request, after whose response the client has been given its next session.
fn is_resumed(connector: &Connector, server: &TestServer) -> bool {
    let mut client = connector.connect(server.address);
    assert_eq!(client.ask(REQUEST).status, 200);
    let resumed = client.resumed();
    client.close();
    resumed
}

fn resumed_of(connector: &Connector, server: &TestServer, tries: u64) -> u64 {
    (0..tries).filter(|_| is_resumed(connector, server)).count() as u64
}

fn connector(
    certificates: &Certificates,
    version: &'static SupportedProtocolVersion,
    by: Tls12Resumption,
) -> Connector {
    Dialer::trusting(certificates).versions(&[version]).tls12_resumption(by).connector()
}

#[test]
fn every_connection_resumes_the_one_before_it_on_whatever_shard() {
    let certificates = Certificates::new();
    let pair = certificates.server(&["localhost"]);
    for tickets in [true, false] {
        let server = start(&yaml(&pair, "", &format!("tickets: {tickets}")));
        for (version, by) in [
            (&TLS13, Tls12Resumption::Disabled),
            (&TLS12, Tls12Resumption::SessionIdOrTickets),
            (&TLS12, Tls12Resumption::SessionIdOnly),
        ] {
            let connector = connector(&certificates, version, by);
            assert!(!is_resumed(&connector, &server));
            assert_eq!(resumed_of(&connector, &server, TRIES), TRIES, "{tickets} {version:?} {by:?}");
        }
        let by_ticket = server.metric("webserver_tls_tickets_accepted_total");
        let by_id = server.metric("webserver_tls_session_cache_hits_total");
        assert_eq!((by_ticket, by_id), if tickets { (2 * TRIES, TRIES) } else { (0, 3 * TRIES) });
        // Where there are tickets the server keeps the session of the client that takes none.
        let kept = server.metric("webserver_tls_session_cache_entries");
        assert_eq!(kept, if tickets { 1 } else { 3 });
        assert!(server.metric("webserver_memory_used_bytes{holder=\"tls_sessions\"}") > 0);
        assert_eq!(server.metric("webserver_tls_handshakes_total{kind=\"1.3 resumed\"}"), TRIES);
    }
}

#[test]
fn sessions_outlive_reloads_until_their_lifetime_is_over() {
    let certificates = Certificates::new();
    let pair = certificates.server(&["localhost"]);
    for tickets in [true, false] {
        let server = start(&yaml(&pair, "", &format!("tickets: {tickets}")));
        let connector = connector(&certificates, &TLS13, Tls12Resumption::Disabled);
        assert!(!is_resumed(&connector, &server));
        let mut config = Config::new();
        config.load_yaml(&yaml(&pair, "", &format!("tickets: {tickets}, size: 1MB"))).unwrap();
        for _ in 0..3 {
            server.server.reload(&config).unwrap();
            assert!(is_resumed(&connector, &server), "{tickets}");
        }
    }
}

#[test]
fn two_servers_with_one_key_file_resume_each_others_sessions() {
    let certificates = Certificates::new();
    let pair = certificates.server(&["localhost"]);
    let keys = certificates.folder.path().join("ticket.key");
    std::fs::write(&keys, [1; 80]).unwrap();
    let yaml = yaml(&pair, &format!(", ticket_key_file: {}", keys.display()), "lifetime: 10m");
    let (one, two) = (start(&yaml), start(&yaml));
    let connector = connector(&certificates, &TLS13, Tls12Resumption::Disabled);
    assert!(!is_resumed(&connector, &one));
    assert!(is_resumed(&connector, &two));
    // A new key: the old one decrypts on.
    std::fs::write(&keys, [[2; 80], [1; 80]].concat()).unwrap();
    let mut config = Config::new();
    config.load_yaml(&yaml).unwrap();
    two.server.reload(&config).unwrap();
    assert!(is_resumed(&connector, &two));
    assert!(!is_resumed(&connector, &one), "the other does not know the new key");
    one.server.reload(&config).unwrap();
    assert!(is_resumed(&connector, &two) && is_resumed(&connector, &one));
    // A file that is no good: all stays as it is.
    std::fs::write(&keys, [3; 79]).unwrap();
    let error = one.server.reload(&config).unwrap_err();
    assert!(error.to_string().contains("ticket.key") && error.to_string().contains("79 bytes"), "{error}");
    assert!(is_resumed(&connector, &one));
    assert_eq!(try_start(&yaml).unwrap_err().kind(), ErrorKind::Config);
}
