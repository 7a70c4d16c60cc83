//! From a whole request to rendered bytes: the route, its handler, the head of the response, and what the connection
//! waits for once they are sent. How a body leaves is `sender`'s.

use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::Poll,
};

use bytes::Bytes;

use super::{
    Worker,
    connection::Step,
    exchange::{FileBody, Record},
    sender::in_flight,
    slot::{Key, Slot, Stage},
};
use crate::{
    admission::{Rate, Verdict},
    files::{self, Dotfiles, MappedSlice, OpenFile},
    http::{Method, Request, Status, Version, multipart::Multipart},
    http1::{self, Refusal},
    memory::{Rank, Reservation},
    metrics::Holder,
    service::{Body, BodyWanted, COPIED_BYTES_MAX, Call, Candidate, Outcome, Response, RouteFields},
};

/// What a handler that is waited for holds beside a copy of the request: its future and its task.
pub(crate) const WAITING_BYTES: usize = 2 << 10;

/// How a body leaves: chosen, and its memory reserved, before the head is rendered.
enum Way {
    Nothing,
    Static(&'static [u8]),
    Shared(Bytes, Option<Reservation>),
    Owned(Vec<u8>, Option<Reservation>),
    Mapped(MappedSlice),
    /// After the head, from the exchange that the connection has for it.
    File(Rc<OpenFile>, u64),
    /// The same in parts.
    Parts(Rc<OpenFile>, Box<Multipart>),
}

impl Worker {
    /// What the handlers that may answer want of the request's body: the first that does not leave it to the next decides.
    pub(super) fn body_wanted(&mut self, slot: &Slot, request: Request<'_>) -> BodyWanted {
        let router = if slot.flags.admin() { &self.admin } else { &self.router };
        let Ok(path) = files::decode(request.path(), Dotfiles::Served, &mut self.path) else {
            return BodyWanted::Refused;
        };
        router
            .candidates(request, path)
            .filter(|candidate| candidate.accepts(request))
            .map(|candidate| candidate.target.body_wanted(request, slot.is_secure()))
            .find(|wanted| *wanted != BodyWanted::AsNext)
            .unwrap_or(BodyWanted::Refused)
    }

    /// Has the request answered: now, or by a task that leaves the answer in the inbox.
    /// `body` is `None` when there was one and it was dropped.
    pub(super) fn dispatch(
        &mut self,
        slot: &mut Slot,
        key: Key,
        request: Request<'_>,
        body: Option<&[u8]>,
    ) -> Step {
        if let Some(rate) = self.client_limits.rate
            && let Verdict::Refused { retry_after_seconds } = self.ask_for_admission(slot, rate)
        {
            self.metrics.requests_limited.increment();
            return self.respond(slot, request, too_many_requests(retry_after_seconds));
        }
        let (outcome, fields) = self.ask(slot, request, body);
        match outcome {
            Outcome::Ready(mut response) => {
                response.route_fields = fields;
                self.respond(slot, request, response)
            }
            Outcome::Next => self.respond(slot, request, Response::page(Status::NOT_FOUND)),
            Outcome::Pending(future) => {
                if !self.wait_for_answer(slot, request) {
                    self.refuse_for_memory(slot, request.bytes);
                    return Step::Again;
                }
                let (inbox, metrics) = (Rc::clone(&self.inbox), Arc::clone(&self.metrics));
                self.inbox.local().spawn(async move {
                    let mut response = catch(future).await.unwrap_or_else(|| {
                        metrics.panics.add(1);
                        Response::page(Status::INTERNAL_SERVER_ERROR)
                    });
                    response.route_fields = fields;
                    inbox.answer(key, response);
                });
                Step::Wait
            }
        }
    }

    /// Counts a request against its client's rate.
    fn ask_for_admission(&self, slot: &Slot, rate: Rate) -> Verdict {
        match self.client_limits.client(slot.peer) {
            Some(client) if !slot.flags.admin() => {
                self.admission.requests().ask(client, rate, self.turn_nanos)
            }
            _ => Verdict::Admitted,
        }
    }

    /// Asks the handlers whose path and method match, in their order; gives the fields of the route that answers too.
    fn ask(&mut self, slot: &Slot, request: Request<'_>, body: Option<&[u8]>) -> (Outcome, RouteFields) {
        let unrouted = |response| (Outcome::Ready(response), RouteFields::default());
        if request.target() == b"*" {
            return unrouted(server_options());
        }
        if request.method() == Method::Connect {
            // No tunnels here (RFC 9110 9.3.6).
            return unrouted(Response::page(Status::NOT_IMPLEMENTED));
        }
        let absolute_path = match files::decode_absolute(request.path(), Dotfiles::Served, &mut self.path) {
            Ok(path) => path,
            Err(error) => {
                let status = Status::from_code(error.status()).unwrap_or(Status::BAD_REQUEST);
                return unrouted(Response::page(status));
            }
        };
        let path = &absolute_path[1..];
        let router = if slot.flags.admin() { &self.admin } else { &self.router };
        let (mut asked, mut refused) = (false, false);
        for candidate in router.candidates(request, path) {
            if !candidate.accepts(request) {
                refused = true;
                continue;
            }
            asked = true;
            let target = candidate.target;
            let is_secure = slot.is_secure();
            if let Some(response) = target.https_redirect(request, is_secure) {
                return (Outcome::Ready(response), target.fields(request, is_secure));
            }
            if let Some((response, fields)) = target.preflight(request, is_secure) {
                return (Outcome::Ready(response), fields);
            }
            let handler = Rc::clone(&target.handler);
            if body.is_none() && handler.body_wanted(request) == BodyWanted::Whole {
                // Nobody wanted the body when it began to come: a reload has replaced the handlers since.
                return unrouted(Response::unavailable());
            }
            let call = Call {
                request,
                absolute_path,
                path,
                matched: candidate.matched,
                body: body.unwrap_or_default(),
                peer: slot.peer,
                tls: slot.tls_facts(),
            };
            // A handler's bug is one answer: the requests before and after it are none of its business.
            let outcome = catch_unwind(AssertUnwindSafe(|| handler.handle(&call, &self.context)));
            match outcome {
                Ok(Outcome::Next) => {}
                Ok(outcome) => return (outcome, target.fields(request, is_secure)),
                Err(_) => {
                    self.metrics.panics.add(1);
                    return unrouted(Response::page(Status::INTERNAL_SERVER_ERROR));
                }
            }
        }
        if refused && !asked {
            return unrouted(method_not_allowed(router.candidates(request, path)));
        }
        (Outcome::Next, RouteFields::default())
    }

    /// Keeps what the answer will need. False when there is no memory for it: then nothing has changed.
    fn wait_for_answer(&mut self, slot: &mut Slot, request: Request<'_>) -> bool {
        let head_length = request.parts.length as usize;
        let Some(head) = self.copy_to_pool(&request.bytes[..head_length], 0) else { return false };
        // The handler has a copy of its own.
        let waiting_bytes = WAITING_BYTES + head_length;
        let waiting = self.share.reserve(Holder::Connections, waiting_bytes, Rank::Start);
        let started_nanos = self.clock.nanos();
        let Some(exchange) = self.exchange(slot, Rank::Start).filter(|_| waiting.is_some()) else {
            return false;
        };
        exchange.head = Some(head);
        exchange.extra = waiting;
        exchange.record = Some(Record { status: 0, body_bytes: 0, started_nanos });
        slot.stage = Stage::Waiting;
        slot.deadline = self.deadlines.write(self.now);
        true
    }

    /// Renders the response. A body in memory goes with it; a file follows in [`Stage::Sending`].
    pub(super) fn respond(&mut self, slot: &mut Slot, request: Request<'_>, mut response: Response) -> Step {
        if response.status.forbids_content() {
            response.body = Body::Empty;
        }
        let length = if request.method() == Method::Head { 0 } else { response.body.length() };
        let content_length = response.content_length();
        let body = std::mem::replace(&mut response.body, Body::Empty);
        let Some(way) = (if length == 0 { Some(Way::Nothing) } else { self.way(slot, body) }) else {
            self.refuse_for_memory(slot, request.bytes);
            return Step::Again;
        };
        slot.requests = slot.requests.wrapping_add(1);
        let limit = self.requests_per_connection;
        let keep_alive = request.parts.keep_alive
            && !slot.flags.close()
            && !self.draining
            && (limit == 0 || slot.requests < limit);
        slot.flags.set_close(!keep_alive);
        slot.flags.set_last_request(!request.parts.keep_alive);
        let connection = match (keep_alive, request.version()) {
            (false, _) => http1::Connection::Close,
            (true, Version::Http10) => http1::Connection::KeepAlive,
            (true, Version::Http11) => http1::Connection::Implied,
        };
        let date = self.date.line(self.now.unix_seconds);
        let freshness = response.freshness.as_ref().map(|freshness| freshness.fields(self.now.unix_seconds));
        self.outgoing.render(|out| {
            http1::write_head(
                out,
                response.status,
                date,
                &[
                    response.entity_fields(),
                    response.route_fields.headers.as_deref().unwrap_or_default(),
                    response.route_fields.cors.as_deref().unwrap_or_default(),
                    response.route_fields.hsts.as_deref().unwrap_or_default(),
                    freshness.as_deref().unwrap_or_default(),
                    &response.fields,
                ],
                content_length,
                connection,
            );
        });
        drop(freshness);
        let status = response.status.code();
        self.context.recycle(response.fields);
        let waited = slot.exchange.as_mut().and_then(|exchange| exchange.record.take());
        match way {
            Way::Nothing => {}
            Way::Static(bytes) => self.outgoing.push_static(bytes),
            Way::Shared(bytes, held) => self.outgoing.push_shared(bytes, held),
            Way::Owned(bytes, held) => {
                if let Some(copied) = self.outgoing.push_owned(bytes, held) {
                    self.context.recycle(copied);
                }
            }
            Way::Mapped(slice) => {
                self.metrics.mapped_sent_bytes.add(length);
                self.outgoing.push_mapped(slice);
            }
            Way::File(file, offset) => {
                let body = FileBody::new(file, offset, offset + length);
                return self.begin_file(slot, request, status, waited, body);
            }
            Way::Parts(file, parts) => {
                let body = FileBody { parts: Some(parts), ..FileBody::new(file, 0, 0) };
                return self.begin_file(slot, request, status, waited, body);
            }
        }
        self.count_response(status);
        match waited {
            Some(record) => {
                self.metrics.request_duration.observe(self.clock.nanos() - record.started_nanos, 1)
            }
            None => self.answered += 1,
        }
        let started_nanos = waited.map_or(self.turn_nanos, |record| record.started_nanos);
        self.log_access(slot, Some(request), Record { status, body_bytes: length, started_nanos });
        Step::Again
    }

    /// How a body will leave, with the memory that takes; `None` when there is none.
    fn way(&mut self, slot: &mut Slot, body: Body) -> Option<Way> {
        // Who watches a server that is short of memory must be able to.
        let rank = if slot.flags.admin() { Rank::Finish } else { Rank::Start };
        Some(match body {
            Body::Empty => Way::Nothing,
            Body::Static(bytes) => Way::Static(bytes),
            Body::Cached(bytes) => Way::Shared(bytes, None),
            Body::Shared(bytes) => {
                let held = self.context.reserve_at(bytes.len(), rank).ok()?;
                Way::Shared(bytes, held)
            }
            // However much the buffer could hold, it is copied and used again.
            Body::Owned(bytes) if bytes.len() <= COPIED_BYTES_MAX => Way::Owned(bytes, None),
            Body::Owned(bytes) => {
                let held = self.context.reserve_at(bytes.capacity(), rank).ok()?;
                Way::Owned(bytes, held)
            }
            Body::File { file, offset, length } => {
                let mapped = if slot.is_secure() {
                    // To be encrypted it has to be read, which a mapping must not be: the file may become shorter.
                    None
                } else {
                    self.mappings.slice(&file, offset, length, self.now.millis)
                };
                match mapped {
                    Some(slice) => Way::Mapped(slice),
                    None => {
                        self.exchange(slot, Rank::Start)?;
                        Way::File(file, offset)
                    }
                }
            }
            Body::Multipart { file, parts } => {
                let held = self.share.reserve(Holder::Connections, parts.held_bytes(), Rank::Start)?;
                self.exchange(slot, Rank::Start)?.extra = Some(held);
                Way::Parts(file, parts)
            }
        })
    }

    /// A file follows the head that was rendered; of several parts the first, behind its text.
    fn begin_file(
        &mut self,
        slot: &mut Slot,
        request: Request<'_>,
        status: u16,
        waited: Option<Record>,
        body: FileBody,
    ) -> Step {
        let started_nanos = waited.map_or_else(|| self.clock.nanos(), |record| record.started_nanos);
        let head = if self.access_log.is_some() {
            self.copy_to_pool(&request.bytes[..request.parts.length as usize], 0)
        } else {
            None
        };
        // There since `way`.
        let Some(exchange) = &mut slot.exchange else { return Step::Close };
        exchange.file = Some(body);
        exchange.record = Some(Record { status, body_bytes: 0, started_nanos });
        exchange.head = head;
        self.next_part(slot);
        slot.stage = Stage::Sending;
        slot.deadline = self.deadlines.write(self.now);
        Step::Again
    }

    /// There is no memory for the request that `bytes` begin with: says so with bytes of the program, which takes none,
    /// and ends the connection.
    pub(super) fn refuse_for_memory(&mut self, slot: &mut Slot, bytes: &[u8]) {
        self.outgoing.push_static(super::SHED_RESPONSE);
        self.end_refused(slot, Status::SERVICE_UNAVAILABLE.code());
        self.log_refused(slot, bytes, Status::SERVICE_UNAVAILABLE.code());
    }

    /// Answers `bytes`, which are not a request we accept, and ends the connection.
    pub(super) fn refuse(&mut self, slot: &mut Slot, refusal: Refusal, bytes: &[u8]) {
        self.metrics.count_refusal(refusal.index());
        let date = self.date.line(self.now.unix_seconds);
        let with_body = !bytes.trim_ascii_start().starts_with(b"HEAD ");
        self.outgoing.render(|out| http1::write_refusal(out, refusal, date, with_body));
        self.end_refused(slot, refusal.status().code());
        self.log_refused(slot, bytes, refusal.status().code());
    }

    /// The refusal that was rendered is the connection's last response. What the request held is given back.
    fn end_refused(&mut self, slot: &mut Slot, status: u16) {
        self.count_response(status);
        slot.requests = slot.requests.wrapping_add(1);
        slot.flags.set_close(true);
        slot.flags.set_linger(true);
        slot.stage = Stage::Idle;
        if let Some(exchange) = &mut slot.exchange {
            exchange.input = None;
            exchange.head = None;
            exchange.body = None;
            exchange.gathered = None;
            exchange.record = None;
            exchange.extra = None;
        }
    }

    /// Sends what the turn collected and sets what the connection waits for next.
    pub(super) fn settle(&mut self, slot: &mut Slot, step: Step) -> Step {
        if step == Step::Close {
            self.outgoing.discard();
            return step;
        }
        if slot.stage == Stage::Sending {
            // The file's sender sends the head too, so that both share a segment.
            return Step::Again;
        }
        match self.flush(slot, false) {
            Err(_) => Step::Close,
            Ok(true) if slot.flags.close() && slot.stage == Stage::Idle => self.end_at_once(slot),
            Ok(true) => {
                if slot.stage == Stage::Idle {
                    self.begin_idle(slot);
                }
                step
            }
            Ok(false) => {
                // A body or a handler is waited for all the same; otherwise the socket is what we wait for.
                if matches!(slot.stage, Stage::Idle | Stage::Head) {
                    slot.stage = Stage::Sending;
                    slot.stage_bytes = in_flight(slot);
                    slot.deadline = self.deadlines.write(self.now);
                    return Step::Wait;
                }
                step
            }
        }
    }
}

/// The client asks too often (RFC 6585 4); the connection stays.
fn too_many_requests(retry_after_seconds: u64) -> Response {
    let text = "429 Too Many Requests\n";
    let mut response =
        Response::fixed(Status::TOO_MANY_REQUESTS, "text/plain; charset=utf-8", text.as_bytes());
    response.push_field("Retry-After", itoa::Buffer::new().format(retry_after_seconds).as_bytes());
    response
}

/// The answer of a handler that is waited for; `None` when it panics.
async fn catch(mut future: Pin<Box<dyn Future<Output = Response>>>) -> Option<Response> {
    std::future::poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
        Ok(poll) => poll.map(Some),
        Err(_) => Poll::Ready(None),
    })
    .await
}

/// Every candidate answers other methods: says which (RFC 9110 15.5.6).
fn method_not_allowed<'r>(candidates: impl Iterator<Item = Candidate<'r>>) -> Response {
    let mut allowed = Vec::new();
    for candidate in candidates {
        for name in candidate.allowed() {
            if !allowed.contains(&name) {
                allowed.push(name);
            }
        }
    }
    let mut response = Response::page(Status::METHOD_NOT_ALLOWED);
    response.push_field("Allow", allowed.join(", ").as_bytes());
    response
}

/// `OPTIONS *` asks about the server as a whole (RFC 9110 9.3.7).
fn server_options() -> Response {
    let mut response = Response::new(Status::NO_CONTENT);
    response.push_field("Allow", b"GET, HEAD, OPTIONS");
    response
}
