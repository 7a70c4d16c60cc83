//! The status page, and the figures that it shows.

use super::health::Condition;
use crate::{http::Status, metrics::Registry, service::Response};

/// The page: one file that asks for nothing but figures.
const PAGE: &str = include_str!("status.html");

/// Nothing but the page's own style and script, figures from here, and no frame around it. The page is a constant, and what
/// it shows is put in as text, so that there is nothing that could add a script to it.
const CONTENT_SECURITY_POLICY: &[u8] =
    b"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'";

/// The page.
pub(super) fn page() -> Response {
    let mut response = Response::fixed(Status::OK, "text/html; charset=utf-8", PAGE.as_bytes());
    response.push_field("Cache-Control", b"no-cache");
    response.push_field("Content-Security-Policy", CONTENT_SECURITY_POLICY);
    response.push_field("X-Content-Type-Options", b"nosniff");
    response
}

/// All figures of this moment as JSON. Reads /proc/self/status and some hundred counters of each shard: some ten
/// microseconds on the shard that answers.
pub(super) fn figures(registry: &Registry, condition: Condition) -> Response {
    match serde_json::to_string(&registry.status(condition.word())) {
        Ok(text) => super::figures("application/json", text),
        Err(_) => Response::page(Status::INTERNAL_SERVER_ERROR),
    }
}
