//! Cross-origin requests (the CORS protocol of the Fetch standard): what pages of other origins may read and ask for.
//!
//! All fields are rendered when the configuration is; a request chooses among them.

use std::rc::Rc;

use super::Response;
use crate::{
    config,
    http::{Method, Request, Status, syntax},
};

/// What one route grants.
#[derive(Debug)]
pub(super) struct Cors {
    /// By origin; none when all are treated alike.
    grants: Vec<Grant>,
    /// Fields for those that have no grant of their own: all when any origin may read, else those that were refused.
    others: Rc<[u8]>,
    any_origin: bool,
    methods: Vec<String>,
    headers: Vec<String>,
    /// Further fields of the answer to a preflight.
    preflight: Vec<u8>,
}

#[derive(Debug)]
struct Grant {
    origin: String,
    fields: Rc<[u8]>,
}

/// Methods that need no permission (Fetch, 2.2.1).
const METHODS_SAFELISTED: [&[u8]; 3] = [b"GET", b"HEAD", b"POST"];

impl Cors {
    /// Rendered as configured.
    pub(super) fn new(config: &config::Cors) -> Self {
        let mut common = String::new();
        if config.credentials {
            common.push_str("Access-Control-Allow-Credentials: true\r\n");
        }
        push_list(&mut common, "Access-Control-Expose-Headers", &config.expose);
        let mut preflight = String::new();
        push_list(&mut preflight, "Access-Control-Allow-Methods", &config.methods);
        push_list(&mut preflight, "Access-Control-Allow-Headers", &config.headers);
        if let Some(time) = config.max_age {
            preflight.push_str(&format!("Access-Control-Max-Age: {}\r\n", time.as_secs()));
        }
        let any_origin = config.origins.iter().any(|origin| origin == "*");
        let grant = |origin: &str| format!("Access-Control-Allow-Origin: {origin}\r\n{common}");
        // What depends on the origin must not be kept for another (Fetch, 3.2.5).
        let vary = "Vary: Origin\r\n";
        let others = if any_origin { grant("*") } else { vary.to_owned() };
        let grants = config.origins.iter().filter(|_| !any_origin).map(|origin| Grant {
            origin: origin.clone(),
            fields: (grant(origin) + vary).into_bytes().into(),
        });
        Cors {
            grants: grants.collect(),
            others: others.into_bytes().into(),
            any_origin,
            methods: config.methods.clone(),
            headers: config.headers.clone(),
            preflight: preflight.into_bytes(),
        }
    }

    /// The fields of any response to `request`.
    pub(super) fn fields(&self, request: Request<'_>) -> Rc<[u8]> {
        Rc::clone(self.grant(request).map_or(&self.others, |grant| &grant.fields))
    }

    /// The answer to a preflight, which asks what another request may do; `None` when `request` is none. One that is
    /// refused has no fields that grant anything.
    pub(super) fn preflight(&self, request: Request<'_>) -> Option<(Response, Option<Rc<[u8]>>)> {
        if request.method() != Method::Options {
            return None;
        }
        request.header("origin")?;
        let method = request.header("access-control-request-method")?;
        let mut response = Response::new(Status::NO_CONTENT);
        let is_granted = (self.any_origin || self.grant(request).is_some())
            && self.takes_method(method)
            && self.takes_headers(request);
        if is_granted {
            response.fields.extend_from_slice(&self.preflight);
            return Some((response, Some(self.fields(request))));
        }
        // Without a star `others` grants nothing, and says on what that depends.
        Some((response, (!self.any_origin).then(|| Rc::clone(&self.others))))
    }

    fn grant(&self, request: Request<'_>) -> Option<&Grant> {
        if self.any_origin {
            return None;
        }
        let origin = request.header("origin")?;
        self.grants.iter().find(|grant| grant.origin.as_bytes() == origin)
    }

    /// Methods are compared as they are (Fetch, 4.9).
    fn takes_method(&self, method: &[u8]) -> bool {
        METHODS_SAFELISTED.contains(&method)
            || self.methods.iter().any(|name| name == "*" || name.as_bytes() == method)
    }

    fn takes_headers(&self, request: Request<'_>) -> bool {
        let asked = request
            .fields()
            .filter(|(name, _)| name.eq_ignore_ascii_case(b"access-control-request-headers"))
            .flat_map(|(_, value)| syntax::elements(value));
        asked.filter(|name| !name.is_empty()).all(|name| self.takes_header(name))
    }

    /// `Authorization` is not among what the star stands for (Fetch, 4.9).
    fn takes_header(&self, name: &[u8]) -> bool {
        let is_listed = |listed: &String| listed.as_bytes().eq_ignore_ascii_case(name);
        self.headers.iter().any(is_listed)
            || (!name.eq_ignore_ascii_case(b"authorization")
                && self.headers.iter().any(|listed| listed == "*"))
    }
}

fn push_list(text: &mut String, name: &str, items: &[String]) {
    if !items.is_empty() {
        text.push_str(&format!("{name}: {}\r\n", items.join(", ")));
    }
}
