//! What a route does about TLS: requests that came without are sent to the same place with it, and browsers are told to
//! ask for nothing else (HTTP Strict Transport Security, RFC 6797).
//!
//! There is no exception for `/.well-known/acme-challenge/`: a longer route without `https_redirect` serves it.

use std::rc::Rc;

use super::{Response, hosts, redirect::location};
use crate::{
    config::{Hsts, HttpsRedirect, Route},
    http::{Request, Status},
};

/// What one route does, rendered.
#[derive(Debug, Default)]
pub(super) struct Https {
    redirect: Option<Redirect>,
    hsts: Option<Rc<[u8]>>,
}

#[derive(Debug)]
struct Redirect {
    status: Status,
    /// With its colon; empty for the port that https has anyway.
    port: String,
}

impl Https {
    /// Rendered as configured; `None` for a route that treats all requests alike.
    pub(super) fn new(route: &Route) -> Option<Self> {
        if route.https_redirect.is_none() && route.hsts.is_none() {
            return None;
        }
        Some(Https {
            redirect: route.https_redirect.map(Redirect::new),
            hsts: route.hsts.map(|hsts| render(hsts).into_bytes().into()),
        })
    }

    /// Whether a request is answered by [`Https::redirect`].
    pub(super) fn redirects(&self, is_secure: bool) -> bool {
        self.redirect.is_some() && !is_secure
    }

    /// The answer to a request that came without TLS: where it is to be sent. 400 without a host, which only HTTP/1.0 may
    /// leave out. `None` for a request that is to be handled.
    pub(super) fn redirect(&self, request: Request<'_>, is_secure: bool) -> Option<Response> {
        let redirect = self.redirect.as_ref().filter(|_| !is_secure)?;
        let Some(host) = request.host() else { return Some(Response::page(Status::BAD_REQUEST)) };
        let mut target = Vec::from(b"https://");
        target.extend_from_slice(hosts::name(host));
        target.extend_from_slice(redirect.port.as_bytes());
        target.extend_from_slice(request.path());
        Some(location(redirect.status, target, request))
    }

    /// `Strict-Transport-Security`; never without TLS, where anybody may have written it (RFC 6797 7.2).
    pub(super) fn hsts(&self, is_secure: bool) -> Option<Rc<[u8]>> {
        self.hsts.as_ref().filter(|_| is_secure).cloned()
    }
}

impl Redirect {
    fn new(redirect: HttpsRedirect) -> Self {
        let port = if redirect.port == 443 { String::new() } else { format!(":{}", redirect.port) };
        Redirect { status: Status::from_code(redirect.status).unwrap_or(Status::PERMANENT_REDIRECT), port }
    }
}

/// The field, with its line end (RFC 6797 6.1). `preload` is no part of the RFC: the browsers' lists ask for it.
fn render(hsts: Hsts) -> String {
    let mut field = format!("Strict-Transport-Security: max-age={}", hsts.max_age.as_secs());
    if hsts.include_subdomains {
        field.push_str("; includeSubDomains");
    }
    if hsts.preload {
        field.push_str("; preload");
    }
    field + "\r\n"
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_field_says_what_is_configured() {
        let field = |include_subdomains, preload| {
            render(Hsts { max_age: Duration::from_secs(31_536_000), include_subdomains, preload })
        };
        assert_eq!(field(false, false), "Strict-Transport-Security: max-age=31536000\r\n");
        assert_eq!(field(true, false), "Strict-Transport-Security: max-age=31536000; includeSubDomains\r\n");
        assert_eq!(
            field(true, true),
            "Strict-Transport-Security: max-age=31536000; includeSubDomains; preload\r\n"
        );
    }

    #[test]
    fn the_field_goes_out_over_tls_and_redirects_do_not() {
        let https = Https {
            redirect: Some(Redirect::new(HttpsRedirect { status: 308, port: 443 })),
            hsts: Some(Rc::from(*b"x")),
        };
        assert_eq!((https.hsts(true).as_deref(), https.hsts(false)), (Some(&b"x"[..]), None));
        assert_eq!((https.redirects(true), https.redirects(false)), (false, true));
        let hsts = Https { redirect: None, ..https };
        assert!(!hsts.redirects(true) && !hsts.redirects(false));
    }
}
