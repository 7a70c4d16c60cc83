//! Whether a client that comes back finds its session on whichever shard accepts it.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use super::{File, Resumes, Site, Version, client::Client, config};
use crate::common::{Outcome, load, servers::Kind};

/// Connections after the first.
pub const RECONNECTIONS: usize = 1000;
const SHARDS: usize = 2;
const TICKETS: &str = "";
const NO_TICKETS: &str = "tls_session_cache: {size: 5MB, lifetime: 1h, tickets: false}";

/// Title, version, how the client resumes, and what the server's `memory` says.
const CASES: [(&str, Version, Resumes, &str); 5] = [
    ("TLS 1.3, ticket", Version::Tls13, Resumes::Either, TICKETS),
    ("TLS 1.3, tickets: false", Version::Tls13, Resumes::Either, NO_TICKETS),
    ("TLS 1.2, ticket", Version::Tls12, Resumes::Either, TICKETS),
    ("TLS 1.2, session id", Version::Tls12, Resumes::SessionId, TICKETS),
    ("TLS 1.2, session id, tickets: false", Version::Tls12, Resumes::SessionId, NO_TICKETS),
];

/// Counts what was resumed and prints it; the cases in which one was not, as sentences.
///
/// # Errors
/// The server answers wrongly.
pub fn measure(site: &Site) -> Outcome<Vec<String>> {
    let mut missed = Vec::new();
    for (title, version, resumes, memory) in CASES {
        let server = site.serve_with(Kind::Ours, File::SMALL, SHARDS, memory)?;
        let config = config(version, resumes)?;
        let mut resumed = 0;
        for index in 0..=RECONNECTIONS {
            let failed = |error: String| format!("{title}, connection {index}: {error}");
            let mut client = Client::connect(server.port, &config).map_err(failed)?;
            resumed += usize::from(client.resumed());
            client.expect(File::SMALL).map_err(failed)?;
            if index == 0 && !client.may_resume() {
                return Err(failed("an answer before the session's ticket".to_owned()));
            }
            client.close().map_err(failed)?;
        }
        println!("{title}: {resumed} of {RECONNECTIONS} reconnections resumed");
        if resumed < RECONNECTIONS {
            missed.push(format!("resumption, {title}: {resumed} of {RECONNECTIONS}"));
        }
    }
    missed.extend(others(site)?);
    Ok(missed)
}

/// openssl and curl come back once each.
fn others(site: &Site) -> Outcome<Vec<String>> {
    let server = site.serve_with(Kind::Ours, File::SMALL, SHARDS, TICKETS)?;
    let mut missed = Vec::new();
    let checks: [(&str, &dyn Fn() -> Outcome<bool>); 3] = [
        ("openssl", &|| openssl(site, server.port, "-tls1_3")),
        ("openssl", &|| openssl(site, server.port, "-tls1_2")),
        ("curl", &|| curl(server.port)),
    ];
    for (index, (program, check)) in checks.into_iter().enumerate() {
        if !load::installed(program) {
            println!("skipped {program}: {}", load::install(program));
            continue;
        }
        let version = ["TLS 1.3", "TLS 1.2", "TLS 1.3"][index];
        let resumed = check()?;
        println!("{version}, {program}: {}", if resumed { "resumed" } else { "not resumed" });
        if !resumed {
            missed.push(format!("resumption, {version}, {program}: not resumed"));
        }
    }
    Ok(missed)
}

/// Two runs of `s_client`, of which the second has the session of the first.
fn openssl(site: &Site, port: u16, version: &str) -> Outcome<bool> {
    let session = site.folder.path().join("session.pem");
    let run = |option: &str, session: &Path| {
        let mut command = Command::new("sh");
        // A request makes the server answer and close, by when the ticket has come.
        let script = "printf 'GET /1024.txt HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' | \
                      openssl s_client -connect \"$1\" \"$2\" \"$3\" \"$4\" -ign_eof";
        command.args(["-c", script, "sh", &format!("127.0.0.1:{port}"), version, option]).arg(session);
        printed(&mut command)
    };
    run("-sess_out", &session)?;
    Ok(run("-sess_in", &session)?.contains("Reused, "))
}

/// One run that connects twice.
fn curl(port: u16) -> Outcome<bool> {
    let url = format!("https://127.0.0.1:{port}/1024.txt");
    let mut command = Command::new("curl");
    command.args(["-skv", "-H", "Connection: close", "-o", "/dev/null", &url, "-o", "/dev/null", &url]);
    let text = printed(&mut command)?;
    Ok(["SSL reusing session ID", "SSL re-using session ID"].iter().any(|line| text.contains(line)))
}

fn printed(command: &mut Command) -> Outcome<String> {
    let output = command.stdin(Stdio::null()).output();
    let output =
        output.map_err(|error| format!("cannot run {}: {error}", command.get_program().display()))?;
    Ok(format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
}
