//! A server of HTTPS for a test, and what is left of its connections when they are gone.

#![allow(dead_code, reason = "the tests of HTTPS use their part of it")]

use std::{net::SocketAddr, rc::Rc};

use rustls::{
    SupportedProtocolVersion,
    version::{TLS12, TLS13},
};
use webserver::{
    config::Config,
    http::Status,
    server::Options,
    service::{Body, Call, Context, Handler, Handlers, Outcome, Response},
};

use crate::{
    certificates::{Certificates, Pair},
    harness::{Client, TestServer, wait_until, write},
    memory::{Large, Later, Length},
    tls_client::{Connector, Dialer, TlsClient},
};

/// Each version alone.
pub const VERSIONS: [&[&SupportedProtocolVersion]; 2] = [&[&TLS12], &[&TLS13]];
/// Where the same is served without TLS.
const PLAIN: &str = "127.0.0.2:0";

/// Says what is known about the connection's TLS.
struct TellFacts;

impl Handler for TellFacts {
    fn handle(self: Rc<Self>, call: &Call<'_>, _: &Rc<Context>) -> Outcome {
        let mut response = Response::new(Status::OK);
        let told = call.tls.map_or("none".to_owned(), |facts| {
            format!(
                "{} {} {} {} {} {}",
                facts.version,
                facts.cipher,
                facts.server_name.unwrap_or("-"),
                facts.resumed,
                facts.client_subject.unwrap_or("-"),
                facts.client_certificate.map_or(0, <[u8]>::len)
            )
        });
        response.body = Body::Shared(told.into());
        Outcome::Ready(response)
    }
}

/// A server with a certificate for `localhost` on its first listener, and the same without TLS on its second.
///
/// Beside its files it has `/length` (of a body), `/own` (a megabyte from memory), `/later` (when there is a file `go`) and
/// `/facts` (of TLS).
pub struct Https {
    pub server: TestServer,
    pub certificates: Certificates,
    pub pair: Pair,
    tls: String,
    yaml: String,
}

impl Https {
    /// `tls` has more keys of the listener's TLS, each with a comma before it, or all of them, `certificates` first; `yaml` those of the top level. Both may name the
    /// test's authority as `{ca}`.
    pub fn start(tls: &str, yaml: &str, files: &[(&str, &[u8])]) -> Self {
        Self::serve(tls, yaml, files, tempfile::tempdir().unwrap(), Certificates::new())
    }

    /// The same from a folder and with certificates that are there already.
    pub fn serve(
        tls: &str,
        yaml: &str,
        files: &[(&str, &[u8])],
        folder: tempfile::TempDir,
        certificates: Certificates,
    ) -> Self {
        for (path, content) in files {
            write(folder.path(), path, content);
        }
        let pair = certificates.server(&["localhost", "127.0.0.1"]);
        let go = folder.path().join("go");
        let mut handlers = Handlers::new();
        handlers.add(None, "/length", || Rc::new(Length)).unwrap();
        handlers.add(None, "/own", || Rc::new(Large)).unwrap();
        handlers.add(None, "/facts", || Rc::new(TellFacts)).unwrap();
        handlers.add(None, "/later", move || Rc::new(Later(go.clone()))).unwrap();
        let ca = certificates.ca().display().to_string();
        let (tls, yaml) = (tls.replace("{ca}", &ca), yaml.replace("{ca}", &ca));
        let text = configuration(&pair, &tls, &yaml, &folder);
        let server = TestServer::with_options(&text, folder, Options { handlers, ..Options::default() });
        Https { server, certificates, pair, tls, yaml }
    }

    /// Reloads with another first certificate.
    pub fn reload(&self, pair: &Pair) -> webserver::Result<()> {
        let mut config = Config::new();
        config.load_yaml(&configuration(pair, &self.tls, &self.yaml, &self.server.folder))?;
        self.server.server.reload(&config)
    }

    pub fn address(&self) -> SocketAddr {
        self.server.address
    }

    /// A client that trusts the test's authority.
    pub fn dialer(&self) -> Dialer<'_> {
        Dialer::trusting(&self.certificates)
    }

    /// One that speaks these versions.
    pub fn connector(&self, versions: &'static [&'static SupportedProtocolVersion]) -> Connector {
        self.dialer().versions(versions).connector()
    }

    /// A connection in whatever version is agreed upon.
    pub fn connect(&self) -> TlsClient {
        self.dialer().connector().connect(self.server.address)
    }

    /// A connection without TLS to the other listener.
    pub fn connect_plain(&self) -> Client {
        let port = self.server.server.port(Some(PLAIN)).unwrap();
        Client::connect(([127, 0, 0, 2], port).into())
    }

    pub fn failures(&self, reason: &str) -> u64 {
        self.server.metric(&format!("webserver_tls_failures_total{{reason=\"{reason}\"}}"))
    }

    /// Waits until TLS has ended so many connections for this reason.
    pub fn await_failures(&self, reason: &str, wanted: u64) {
        self.server.await_metric(&format!("webserver_tls_failures_total{{reason=\"{reason}\"}}"), wanted);
    }

    /// Completed handshakes of a kind.
    pub fn handshakes(&self, kind: &str) -> u64 {
        self.server.metric(&format!("webserver_tls_handshakes_total{{kind=\"{kind}\"}}"))
    }

    pub fn used(&self, holder: &str) -> u64 {
        self.server.metric(&format!("webserver_memory_used_bytes{{holder=\"{holder}\"}}"))
    }

    /// Waits until the connections are gone, and all that they held.
    #[track_caller]
    pub fn expect_nothing_left(&self) {
        self.server.await_no_connections();
        let left = || {
            [
                self.server.metric("webserver_tls_handshakes_in_progress"),
                self.server.metric("webserver_tls_handshakes_waiting"),
                self.used("tls"),
                self.used("buffers_in_use"),
                self.used("request_bodies"),
                self.used("response_bodies"),
                self.server.metric("webserver_panics_total"),
                self.failures("internal"),
            ]
        };
        wait_until("everything to be given back", || {
            let left = left();
            assert_eq!(left[6..], [0, 0], "panics, internal failures");
            left.iter().sum::<u64>() == 0
        });
    }
}

fn configuration(pair: &Pair, tls: &str, yaml: &str, folder: &tempfile::TempDir) -> String {
    let shards = if yaml.contains("shards:") { "" } else { "shards: 1\n" };
    let root = folder.path().display();
    let routes =
        if yaml.contains("routes:") { String::new() } else { format!("routes: [{{ root: {root} }}]\n") };
    let certificates = if tls.starts_with("certificates:") {
        String::new()
    } else {
        format!("certificates: [{}]", pair.yaml())
    };
    format!(
        "{shards}listen: [{{ address: \"127.0.0.1:0\", tls: {{ {certificates}{tls} }} }}, \"{PLAIN}\"]\n\
         {routes}{}\n",
        yaml.replace("{root}", &root.to_string())
    )
}
