//! The plan of a configuration comes true: what it says of a state is what a server in that state accounts.

use webserver::{
    config::sizes::OPEN_FILE_BYTES,
    metrics::Holder,
    server::plan::{Load, Plan},
};

use crate::{
    certificates::Certificates,
    harness::{Client, TestServer, wait_until},
    tls_client::Dialer,
};

fn used(server: &TestServer, holder: Holder) -> u64 {
    server.metric(&format!("webserver_memory_used_bytes{{holder=\"{}\"}}", holder.label()))
}

fn used_in_all(server: &TestServer) -> u64 {
    Holder::ALL.iter().map(|holder| used(server, *holder)).sum()
}

fn plan(server: &TestServer, connections: usize) -> Plan {
    let settings = server.server.settings();
    Plan::new(&settings, Load { connections, ..Plan::load(&settings) })
}

fn typical(plan: &Plan, holder: Holder) -> u64 {
    let terms = plan.terms.iter().filter(|term| term.holder == Some(holder));
    terms.map(|term| term.typical_bytes()).sum()
}

#[test]
fn of_a_server_that_nobody_has_asked_for_anything() {
    for yaml in ["shards: 1", "shards: 2\nmemory: { budget: 32MB }\nlimits: { requests_per_ip: 100 }"] {
        let server = TestServer::start(yaml, &[]);
        wait_until("the figures of every shard", || used_in_all(&server) == plan(&server, 0).always_bytes());
    }
}

#[test]
fn of_idle_connections_and_of_heads_that_come_in_pieces() {
    const CONNECTIONS: usize = 630;
    let server = TestServer::start("memory: { budget: 64MB }", &[]);
    let mut clients: Vec<Client> = (0..CONNECTIONS).map(|_| server.connect()).collect();
    server.await_metric("webserver_connections_accepted_total", CONNECTIONS as u64);
    let plan = plan(&server, CONNECTIONS);
    assert_eq!(used_in_all(&server), plan.always_bytes(), "idle connections take nothing more");
    for client in clients.iter_mut().take(CONNECTIONS / 10) {
        client.send("GET / HTTP/1.1\r\nHost: t\r\n");
    }
    for holder in [Holder::Connections, Holder::BuffersInUse, Holder::Substrate] {
        let planned = typical(&plan, holder);
        wait_until(&format!("{}: {planned}, not {}", holder.label(), used(&server, holder)), || {
            used(&server, holder) == planned
        });
    }
}

#[test]
fn of_idle_connections_over_tls() {
    const CONNECTIONS: usize = 40;
    let certificates = Certificates::new();
    let pair = certificates.server(&["localhost"]);
    let text = format!(
        "shards: 1\nlisten: [{{ address: \"127.0.0.1:0\", tls: {{ certificates: \
         [{}] }} }}]\nmemory: {{ budget: 64MB }}",
        pair.yaml()
    );
    let server = TestServer::from_yaml(&text, tempfile::tempdir().unwrap());
    let connector = Dialer::trusting(&certificates).connector();
    let mut clients: Vec<_> = (0..CONNECTIONS).map(|_| connector.connect(server.address)).collect();
    for client in &mut clients {
        assert_eq!(client.request("GET", "/", "Host: localhost\r\n").status, 200);
    }
    let plan = plan(&server, CONNECTIONS);
    for holder in [Holder::Tls, Holder::Substrate] {
        let planned = typical(&plan, holder);
        wait_until(&format!("{}: {planned}, not {}", holder.label(), used(&server, holder)), || {
            used(&server, holder) == planned
        });
    }
    drop(clients);
    wait_until("nothing is held for TLS", || used(&server, Holder::Tls) == 0);
}

#[test]
fn of_open_files_within_a_tenth() {
    const FILES: usize = 100;
    let server = TestServer::start("", &[]);
    let mut client = server.connect();
    for number in 0..FILES {
        let name = format!("/assets/images/2026/picture-{number:012}.html");
        server.write(&name[1..], b"content");
        assert_eq!(client.request("GET", &name, "").status, 200);
    }
    // As many notes as there may be beside them.
    for number in 0..FILES / 4 {
        let name = format!("/assets/images/2026/missing-{number:012}.html");
        assert_eq!(client.request("GET", &name, "").status, 404);
    }
    server.await_metric("webserver_open_file_cache_entries", FILES as u64);
    let (planned, held) = ((FILES * OPEN_FILE_BYTES) as u64, used(&server, Holder::OpenFiles));
    assert!(held.abs_diff(planned) <= planned / 10, "{held}, planned {planned}");
}
