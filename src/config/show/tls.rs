//! What is said about TLS, of listeners and of routes.

use std::fmt::Write;

use super::quote;
use crate::config::{
    settings::{Hsts, Pem, Route, Tls},
    units::show_time,
};

/// The keys of a listener.
pub(super) fn write_tls(out: &mut String, tls: &Tls) -> std::fmt::Result {
    writeln!(out, "    tls:\n      certificates:")?;
    for certificate in &tls.certificates {
        writeln!(out, "        - certificate: {}", pem(&certificate.chain))?;
        writeln!(out, "          key: {}", pem(&certificate.key))?;
        if let Some(path) = &certificate.ocsp {
            writeln!(out, "          ocsp: {}", quote(&path.display().to_string()))?;
        }
    }
    let versions = [(tls.versions.tls12, "tls1.2"), (tls.versions.tls13, "tls1.3")];
    let versions: Vec<&str> = versions.iter().filter(|(spoken, _)| *spoken).map(|(_, name)| *name).collect();
    writeln!(out, "      versions: [{}]", versions.join(", "))?;
    if let Some(clients) = &tls.client_auth {
        let certificates = if clients.optional { "optional" } else { "required" };
        writeln!(out, "      client_ca: {}", pem(&clients.ca))?;
        writeln!(out, "      client_certificates: {certificates}")?;
    }
    match &tls.ticket_key_file {
        Some(path) => writeln!(out, "      ticket_key_file: {}", quote(&path.display().to_string())),
        None => Ok(()),
    }
}

/// The keys of a route.
pub(super) fn write_route(out: &mut String, route: &Route) -> std::fmt::Result {
    if let Some(redirect) = &route.https_redirect {
        let (status, port) = (redirect.status, redirect.port);
        writeln!(out, "    https_redirect: {{ status: {status}, port: {port} }}")?;
    }
    let Some(Hsts { max_age, include_subdomains, preload }) = route.hsts else { return Ok(()) };
    let max_age = show_time(max_age);
    writeln!(
        out,
        "    hsts: {{ max_age: {max_age}, include_subdomains: {include_subdomains}, preload: {preload} }}"
    )
}

/// A path, or how long the text is. It has no END line, so that nobody takes it for a certificate.
fn pem(pem: &Pem) -> String {
    match pem {
        Pem::File(path) => quote(&path.display().to_string()),
        Pem::Text(text) => quote(&format!("-----BEGIN (in memory, {} bytes, not shown)", text.len())),
    }
}
