//! What answers requests: the contract between the shard, which has connections, and whatever describes a response.

use std::{future::Future, pin::Pin, rc::Rc};

use super::{Call, Context, Response};
use crate::http::{Method, Request};

/// What a handler gives.
pub enum Outcome {
    /// The response, known now: the usual case, without an allocation.
    Ready(Response),
    /// The response, known later. The future runs as a task of the shard and is not cut when the client leaves. One
    /// that panics is answered with 500.
    Pending(Pin<Box<dyn Future<Output = Response>>>),
    /// Not this handler's: the next route that matches is asked, and without one the answer is 404.
    Next,
}

/// What a handler wants of a request's body. Asked before the body is received, and only when there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyWanted {
    /// Nothing, and the answer is a refusal: a client that asks first (`Expect: 100-continue`) is answered at once. What
    /// is sent all the same is read and dropped.
    Refused,
    /// Nothing; it is read and dropped, so that the connection can go on.
    Dropped,
    /// All of it in one piece, up to `limits.body_bytes`: the handler is called when it has come, with `Call::body`.
    Whole,
    /// Whatever the next route that matches wants: for a handler that answers [`Outcome::Next`] and needs no body.
    AsNext,
}

/// Answers requests. Each shard has handlers of its own, so that their state needs no lock.
pub trait Handler {
    /// Answers one request. Runs on the shard's thread and must not block. A panic is answered with 500.
    fn handle(self: Rc<Self>, call: &Call<'_>, context: &Rc<Context>) -> Outcome;

    /// What is to become of the body of this request. Unless told otherwise, a method that could change something is
    /// refused its body.
    fn body_wanted(&self, request: Request<'_>) -> BodyWanted {
        match request.method() {
            Method::Get | Method::Head | Method::Options => BodyWanted::Dropped,
            _ => BodyWanted::Refused,
        }
    }
}

impl std::fmt::Debug for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Outcome::Ready(response) => f.debug_tuple("Ready").field(response).finish(),
            Outcome::Pending(_) => f.write_str("Pending"),
            Outcome::Next => f.write_str("Next"),
        }
    }
}
