//! What a server holds for each connection that has been served and is idle.

use super::{File, Resumes, Site, Version, client::Client, config};
use crate::common::{Outcome, servers::Kind};

/// Connections that come before memory is looked at, and stay: what they left behind would serve others.
const WARMING: usize = 64;

/// What was served before connections are idle, for each version.
pub const CASES: [(&str, Version, File); 4] = [
    ("TLS 1.3 after 1 KB", Version::Tls13, File::SMALL),
    ("TLS 1.2 after 1 KB", Version::Tls12, File::SMALL),
    ("TLS 1.3 after 1 MB", Version::Tls13, File::LARGE),
    ("TLS 1.2 after 1 MB", Version::Tls12, File::LARGE),
];
/// Resident bytes that a connection may add.
pub const GOAL_BYTES: f64 = 4096.0;

/// Resident memory, in bytes.
pub struct Held {
    /// Grown for each connection.
    pub each: f64,
    /// Of the warm server with [`WARMING`] connections, and what it has allocated in advance.
    pub before: u64,
}

/// Opens connections, lets each be served once, and looks. It is also printed.
///
/// # Errors
/// The server answers wrongly, or its memory cannot be read.
pub fn measure(
    site: &Site,
    kind: Kind,
    (title, version, file): (&str, Version, File),
    connections: usize,
) -> Outcome<Held> {
    let failed = |error: String| format!("{}, {title}: {error}", kind.name());
    let server = site.serve(kind, file)?;
    let warming = open(server.port, version, file, WARMING).map_err(failed)?;
    let before = server.process.resident_bytes();
    let held = open(server.port, version, file, connections).map_err(failed)?;
    let after = server.process.resident_bytes();
    if before == 0 || after == 0 {
        return Err(failed("its memory cannot be read".to_owned()));
    }
    drop(warming);
    let each = after.saturating_sub(before) as f64 / held.len() as f64;
    println!("{title} {:<6} {each:>7.0} B a connection, {:.1} MB before", kind.name(), before as f64 / 1e6);
    Ok(Held { each, before })
}

/// One after the other: each has been served before the next comes.
fn open(port: u16, version: Version, file: File, count: usize) -> Outcome<Vec<Client>> {
    let config = config(version, Resumes::Never)?;
    let one = |index| {
        let connected = Client::connect(port, &config).and_then(|mut client| {
            client.expect(file)?;
            Ok(client)
        });
        connected.map_err(|error| format!("connection {index}: {error}"))
    };
    (0..count).map(one).collect()
}
