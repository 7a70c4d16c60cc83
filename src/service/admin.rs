//! The admin listener: metrics for machines and health for load balancers.

use std::{
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;

use super::{Body, Call, Context, Handler, Outcome, Response, methods::Methods};
use crate::{http::Status, metrics::Registry};

/// Whether new requests are welcome; shared by all of a server.
#[derive(Debug, Default)]
pub struct Health {
    draining: AtomicBool,
}

impl Health {
    /// From now on health checks fail. Returns whether they did not before.
    pub fn drain(&self) -> bool {
        !self.draining.swap(true, Ordering::Relaxed)
    }

    /// Whether a drain began.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}

/// Answers `/metrics` and `/healthz`.
#[derive(Debug)]
pub struct Admin {
    /// What is counted.
    registry: Arc<Registry>,
    /// What health checks are told.
    health: Arc<Health>,
    methods: Methods,
}

impl Admin {
    /// Answers from these.
    pub fn new(registry: Arc<Registry>, health: Arc<Health>) -> Self {
        Admin { registry, health, methods: Methods::get_and_head() }
    }

    /// Prometheus text exposition format 0.0.4. Reads /proc/self/status: some microseconds on the shard.
    fn metrics(&self) -> Response {
        let mut text = String::with_capacity(16 << 10);
        self.registry.render(&mut text);
        let mut response = Response::new(Status::OK);
        response.push_field("Content-Type", b"text/plain; version=0.0.4; charset=utf-8");
        response.push_field("Cache-Control", b"no-store");
        response.body = Body::Shared(Bytes::from(text));
        response
    }

    fn health(&self) -> Response {
        let mut response = if self.health.is_draining() {
            Response::fixed(Status::SERVICE_UNAVAILABLE, "text/plain; charset=utf-8", b"draining\n")
        } else {
            Response::fixed(Status::OK, "text/plain; charset=utf-8", b"ok\n")
        };
        response.push_field("Cache-Control", b"no-store");
        response
    }
}

impl Handler for Admin {
    fn handle(self: Rc<Self>, call: &Call<'_>, _: &Rc<Context>) -> Outcome {
        if let Some(refused) = self.methods.answer(call.request.method()) {
            return Outcome::Ready(refused);
        }
        Outcome::Ready(match call.path {
            b"metrics" => self.metrics(),
            b"healthz" => self.health(),
            _ => Response::page(Status::NOT_FOUND),
        })
    }
}
