//! The admin listener: metrics for machines, health for load balancers, figures and a page for people.

mod connections;
mod health;
mod status;

pub use connections::{CONNECTIONS_MAX, Census};
pub use health::Health;

use std::{rc::Rc, sync::Arc};

use bytes::Bytes;

use super::{Body, Call, Context, Handler, Outcome, Response, methods::Methods};
use crate::{http::Status, metrics::Registry};

/// Answers `/metrics`, `/healthz`, `/status`, `/status.json` and `/connections.json`.
#[derive(Debug)]
pub struct Admin {
    /// What is counted.
    registry: Arc<Registry>,
    /// What health checks are told.
    health: Arc<Health>,
    /// Who knows the connections.
    census: Rc<dyn Census>,
    methods: Methods,
}

impl Admin {
    /// Answers from these.
    pub fn new(registry: Arc<Registry>, health: Arc<Health>, census: Rc<dyn Census>) -> Self {
        Admin { registry, health, census, methods: Methods::get_and_head() }
    }

    /// Prometheus text exposition format 0.0.4. Reads /proc/self/status: some microseconds on the shard.
    fn metrics(&self) -> Response {
        let mut text = String::with_capacity(16 << 10);
        self.registry.render(&mut text);
        figures("text/plain; version=0.0.4; charset=utf-8", text)
    }

    fn condition(&self) -> health::Condition {
        self.health.condition(&self.registry)
    }
}

impl Handler for Admin {
    fn handle(self: Rc<Self>, call: &Call<'_>, _: &Rc<Context>) -> Outcome {
        if let Some(refused) = self.methods.answer(call.request.method()) {
            return Outcome::Ready(refused);
        }
        Outcome::Ready(match call.path {
            b"metrics" => self.metrics(),
            b"healthz" => self.condition().response(),
            b"status" => status::page(),
            b"connections.json" => return connections::answer(call.request.query(), &*self.census),
            b"status.json" => status::figures(&self.registry, self.condition()),
            _ => Response::page(Status::NOT_FOUND),
        })
    }
}

/// Figures as of now, which nobody may keep.
fn figures(content_type: &str, text: String) -> Response {
    let mut response = Response::new(Status::OK);
    response.push_field("Content-Type", content_type.as_bytes());
    response.push_field("Cache-Control", b"no-store");
    response.body = Body::Shared(Bytes::from(text));
    response
}
