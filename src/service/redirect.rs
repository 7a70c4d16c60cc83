//! Redirects of a route: the route's prefix is replaced, the rest of the path and the query are kept.

use std::rc::Rc;

use percent_encoding::{AsciiSet, CONTROLS, percent_encode};

use super::{BodyWanted, Call, Context, Handler, Outcome, Response, methods::Methods};
use crate::{
    config,
    http::{Request, Status},
};

/// What is encoded in a path that was decoded: everything that could end it or that RFC 3986 3.3 does not allow.
pub(super) const PATH: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// Answers everything below its route with a redirect.
#[derive(Debug)]
pub struct Redirect {
    to: String,
    status: Status,
    /// Absent: every method is redirected.
    methods: Option<Methods>,
}

impl Redirect {
    /// A redirect as configured, of requests with these methods.
    pub(super) fn new(redirect: &config::Redirect, methods: Option<Methods>) -> Self {
        Redirect {
            to: redirect.to.clone(),
            status: Status::from_code(redirect.status).unwrap_or(Status::FOUND),
            methods,
        }
    }
}

impl Handler for Redirect {
    fn handle(self: Rc<Self>, call: &Call<'_>, _: &Rc<Context>) -> Outcome {
        let refused = self.methods.as_ref().and_then(|methods| methods.answer(call.request.method()));
        if let Some(refused) = refused {
            return Outcome::Ready(refused);
        }
        let mut target = self.to.clone();
        let rest = call.rest();
        if !rest.is_empty() {
            // One slash between the two, whether or not either has it.
            let rest = rest.strip_prefix(b"/").unwrap_or(rest);
            if !target.ends_with('/') {
                target.push('/');
            }
            target.extend(percent_encode(rest, PATH));
        }
        Outcome::Ready(location(self.status, target.into_bytes(), call.request))
    }

    fn body_wanted(&self, _: Request<'_>) -> BodyWanted {
        BodyWanted::Refused
    }
}

/// A redirect to `target` with the request's query, and a body for clients that do not follow.
pub(super) fn location(status: Status, mut target: Vec<u8>, request: Request<'_>) -> Response {
    if let Some(query) = request.query() {
        target.push(b'?');
        target.extend_from_slice(query);
    }
    let mut response = Response::page(status);
    response.push_field("Location", &target);
    response
}
