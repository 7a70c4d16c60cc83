//! For tests: shards without threads, a clock that is moved by hand, handshakes in memory.

use std::{
    io::{Read, Write},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, ServerConfig, ServerConnection, SupportedProtocolVersion,
    client::{Resumption as ClientResumption, Tls12Resumption},
    pki_types::{PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    time_provider::TimeProvider,
};

use super::{Resumption, SharedSessions, TicketKeys};
use crate::{
    config::TlsSessionCache,
    memory::Budget,
    metrics::{Holder, Registry, ServerTls, ShardMetrics},
    tls::{
        provider::provider,
        testing::{Client, Made, made},
    },
};

pub(in crate::tls) const POLICY: [u8; 32] = [7; 32];
pub(in crate::tls) const OTHER_POLICY: [u8; 32] = [8; 32];

/// Moved by hand.
#[derive(Debug)]
pub(in crate::tls) struct ManualTime(AtomicU64);

impl ManualTime {
    pub(in crate::tls) fn advance(&self, seconds: u64) {
        self.0.fetch_add(seconds, Relaxed);
    }
}

impl TimeProvider for ManualTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0.load(Relaxed))))
    }
}

/// A server of several shards, without their threads.
pub(in crate::tls) struct Machine {
    pub(in crate::tls) budget: Arc<Budget>,
    pub(in crate::tls) registry: Registry,
    pub(in crate::tls) totals: Arc<ServerTls>,
    pub(in crate::tls) sessions: Arc<SharedSessions>,
    pub(in crate::tls) time: Arc<ManualTime>,
    /// The shards that were woken, one for each time.
    pub(in crate::tls) woken: Arc<Mutex<Vec<usize>>>,
    pub(in crate::tls) shards: Vec<Resumption>,
}

pub(in crate::tls) fn settings(tickets: bool) -> TlsSessionCache {
    TlsSessionCache { size_bytes: 1 << 20, lifetime: Duration::from_secs(3600), tickets }
}

impl Machine {
    pub(in crate::tls) fn new(shards: usize, settings: TlsSessionCache) -> Self {
        Machine::with_budget(shards, settings, 1 << 30)
    }

    pub(in crate::tls) fn with_budget(shards: usize, settings: TlsSessionCache, budget_bytes: usize) -> Self {
        let registry = Registry::new(shards, &[]);
        let budget = Budget::new(budget_bytes, Arc::clone(&registry.memory), registry.shards.clone());
        let totals = Arc::clone(&registry.tls);
        let woken = Arc::new(Mutex::new(Vec::new()));
        let wakes = Arc::clone(&woken);
        let wake = Box::new(move |shard| wakes.lock().unwrap().push(shard));
        let sessions = SharedSessions::new(shards, &settings, &totals, wake);
        let time = Arc::new(ManualTime(AtomicU64::new(UnixTime::now().as_secs())));
        let keys = Arc::new(TicketKeys::generate().unwrap());
        let shard = |index| {
            Resumption::with_time(
                index,
                &settings,
                Arc::clone(&keys),
                &sessions,
                &budget,
                &registry.shards[index],
                Arc::<ManualTime>::clone(&time),
            )
        };
        let shards = (0..shards).map(shard).collect();
        Machine { budget, registry, totals, sessions, time, woken, shards }
    }

    pub(in crate::tls) fn metrics(&self, shard: usize) -> &ShardMetrics {
        &self.registry.shards[shard]
    }

    /// What is held for sessions, by the budget.
    pub(in crate::tls) fn held_bytes(&self) -> u64 {
        self.registry.memory_used_bytes(Holder::TlsSessions)
    }

    /// A configuration of each shard for one listener.
    pub(in crate::tls) fn listener(
        &self,
        identity: &Identity,
        policy: [u8; 32],
        file_keys: Option<&Arc<TicketKeys>>,
    ) -> Vec<Arc<ServerConfig>> {
        let config = |shard: &Resumption| {
            let mut config = identity.server();
            shard.apply(&mut config, &policy, file_keys);
            Arc::new(config)
        };
        self.shards.iter().map(config).collect()
    }
}

/// A server's certificate and its clients.
pub(in crate::tls) struct Identity(Made);

impl Identity {
    pub(in crate::tls) fn new() -> Self {
        Identity(made(&["localhost"], |_| ()))
    }

    fn server(&self) -> ServerConfig {
        let key = PrivateKeyDer::from_pem_slice(self.0.key.as_bytes()).unwrap();
        ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![self.0.der()], key)
            .unwrap()
    }

    /// A client with a memory of its own, of one version.
    pub(in crate::tls) fn client(&self, version: &'static SupportedProtocolVersion) -> ClientConfig {
        let mut config = Client::any().config(version, None);
        config.resumption = ClientResumption::in_memory_sessions(16);
        config
    }

    /// One of TLS 1.2 that knows no tickets.
    pub(in crate::tls) fn client_by_id(&self) -> ClientConfig {
        let mut config = self.client(&rustls::version::TLS12);
        config.resumption =
            ClientResumption::in_memory_sessions(16).tls12_resumption(Tls12Resumption::SessionIdOnly);
        config
    }
}

/// One connection, a byte of data each way. Returns whether it was resumed, which both sides agree about.
pub(in crate::tls) fn is_resumed(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> bool {
    let name = ServerName::try_from("localhost").unwrap();
    let mut client = ClientConnection::new(Arc::clone(client), name).unwrap();
    let mut server = ServerConnection::new(Arc::clone(server)).unwrap();
    client.writer().write_all(b"?").unwrap();
    server.writer().write_all(b"!").unwrap();
    let mut wire = Vec::new();
    while client.wants_write() || server.wants_write() {
        wire.clear();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        feed(&wire, |bytes| server.read_tls(bytes).map(|_| ()));
        server.process_new_packets().unwrap();
        wire.clear();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        feed(&wire, |bytes| client.read_tls(bytes).map(|_| ()));
        client.process_new_packets().unwrap();
    }
    let mut byte = [0];
    server.reader().read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"?");
    client.reader().read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"!");
    assert_eq!(client.handshake_kind().unwrap(), server.handshake_kind().unwrap());
    server.handshake_kind().unwrap() == HandshakeKind::Resumed
}

/// What a client begins a connection with.
pub(in crate::tls) fn hello(client: &Arc<ClientConfig>) -> Vec<u8> {
    let name = ServerName::try_from("localhost").unwrap();
    let mut client = ClientConnection::new(Arc::clone(client), name).unwrap();
    let mut wire = Vec::new();
    client.write_tls(&mut wire).unwrap();
    wire
}

/// Whether a connection that begins so is resumed.
pub(in crate::tls) fn resumes(hello: &[u8], server: &Arc<ServerConfig>) -> bool {
    let mut server = ServerConnection::new(Arc::clone(server)).unwrap();
    feed(hello, |bytes| server.read_tls(bytes).map(|_| ()));
    server.process_new_packets().unwrap();
    server.handshake_kind() == Some(HandshakeKind::Resumed)
}

fn feed(mut bytes: &[u8], mut read: impl FnMut(&mut &[u8]) -> std::io::Result<()>) {
    while !bytes.is_empty() {
        read(&mut bytes).unwrap();
    }
}
