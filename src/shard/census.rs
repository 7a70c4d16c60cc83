//! The connections that hold most bytes: each shard finds its own in one pass over its slots, whoever asked merges them.
//!
//! Slots belong to their shard's thread, so a question is a message and an answer comes later. One that does not come in
//! time is left out, and the shard is named.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    fmt,
    future::{Future, poll_fn},
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use futures_lite::future::or;
use serde::Serialize;
use slab::Slab;

use super::{
    Message,
    exchange::Held,
    slot::{SLOT_BYTES, Slot, Stage},
};
use crate::{
    config::{ADMIN, Settings},
    runtime::{self, Mailbox, Offload, Wait},
    service,
    sys::socket::Peer,
};

/// How long a shard may take to answer: a turn, unless it hangs.
pub const CENSUS_DEADLINE: Duration = Duration::from_secs(1);
/// Messages that may wait for a shard before it is asked no more; far below what a mailbox takes.
const QUESTIONS_MAX: usize = 64;

/// One connection as its shard saw it.
#[derive(Clone, Copy, Debug)]
pub struct Holding {
    shard: usize,
    peer: Peer,
    listener: u8,
    stage: Stage,
    requests: u32,
    held: Held,
}

/// Where a shard's answer goes.
pub struct Answer(Box<dyn FnOnce(Vec<Holding>) + Send>);

impl Answer {
    /// The shard's thread calls `take`, which must not block.
    pub fn new(take: impl FnOnce(Vec<Holding>) + Send + 'static) -> Self {
        Answer(Box::new(take))
    }

    /// Asks a shard for its `limit` largest connections; an answer that cannot come is dropped.
    pub fn ask(self, shard: &Mailbox<Message>, limit: usize) {
        let _ = shard.send_below(QUESTIONS_MAX, Message::Largest(limit, self));
    }

    /// Gives the answer.
    pub(super) fn give(self, found: Vec<Holding>) {
        (self.0)(found);
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Answer")
    }
}

/// The `limit` connections of a shard that hold most, in any order. One pass, and memory for `limit` of them.
pub(super) fn largest(slots: &Slab<Slot>, shard: usize, limit: usize) -> Vec<Holding> {
    let mut found: BinaryHeap<Reverse<(usize, usize)>> = BinaryHeap::with_capacity(limit.min(slots.len()));
    for (index, slot) in slots {
        let candidate = Reverse((slot.held_bytes(), index));
        if found.len() < limit {
            found.push(candidate);
        } else if let Some(mut least) = found.peek_mut()
            && candidate < *least
        {
            *least = candidate;
        }
    }
    let holding = |Reverse((_, index)): Reverse<(usize, usize)>| {
        let slot = slots.get(index)?;
        let Slot { peer, listener, stage, requests, .. } = *slot;
        Some(Holding { shard, peer, listener, stage, requests, held: held(slot) })
    };
    found.into_iter().filter_map(holding).collect()
}

/// A connection with all that it holds, its slot included.
fn held(slot: &Slot) -> Held {
    let mut held = slot.exchange.as_ref().map_or_else(Held::default, |exchange| exchange.held());
    held.state_bytes += SLOT_BYTES;
    if let Some(secure) = &slot.secure {
        held.tls_bytes = secure.session_bytes();
        held.buffer_bytes += secure.held_bytes() - secure.session_bytes();
    }
    held
}

/// The names of the listeners, in the order of their numbers; a reload does not change them.
pub fn listener_names(settings: &Settings) -> Arc<[String]> {
    settings.listeners.iter().map(|listener| listener.name.clone()).collect()
}

/// The answers of all shards as JSON, the largest connection first; `None` is a shard that gave none. `listeners` are the
/// names of [`listener_names`].
pub fn render_holdings(answers: &[Option<Vec<Holding>>], limit: usize, listeners: &[String]) -> String {
    let mut found: Vec<&Holding> = answers.iter().flatten().flatten().collect();
    found.sort_by_key(|holding| (Reverse(holding.held.bytes()), holding.shard));
    found.truncate(limit);
    let listener = |number: u8| listeners.get(usize::from(number)).map_or(ADMIN, String::as_str);
    let report = Report {
        limit,
        silent_shards: (0..answers.len()).filter(|shard| answers[*shard].is_none()).collect(),
        connections: found
            .into_iter()
            .map(|holding| Line {
                shard: holding.shard,
                peer: holding.peer.ip().zip(holding.peer.port()).map(SocketAddr::from),
                listener: listener(holding.listener),
                state: holding.stage.word(),
                requests: holding.requests,
                held_bytes: holding.held.bytes(),
                held: Parts::from(holding.held),
            })
            .collect(),
    };
    // Numbers and strings have a JSON form, always.
    serde_json::to_string(&report).unwrap_or_default()
}

#[derive(Serialize)]
struct Report<'a> {
    limit: usize,
    silent_shards: Vec<usize>,
    connections: Vec<Line<'a>>,
}

#[derive(Serialize)]
struct Line<'a> {
    shard: usize,
    /// `null` over a unix socket.
    peer: Option<SocketAddr>,
    listener: &'a str,
    state: &'static str,
    requests: u32,
    held_bytes: usize,
    held: Parts,
}

/// [`Held`], by names that do not repeat the unit.
#[derive(Serialize)]
struct Parts {
    state: usize,
    buffers: usize,
    request_body: usize,
    response_body: usize,
    mapped: usize,
    direct_reads: usize,
    tls: usize,
}

impl From<Held> for Parts {
    fn from(held: Held) -> Self {
        Parts {
            state: held.state_bytes,
            buffers: held.buffer_bytes,
            request_body: held.request_body_bytes,
            response_body: held.response_body_bytes,
            mapped: held.mapped_bytes,
            direct_reads: held.direct_read_bytes,
            tls: held.tls_bytes,
        }
    }
}

/// Asks all shards on behalf of a task of one.
#[derive(Debug)]
pub(super) struct Census {
    pub(super) mailboxes: Arc<[Arc<Mailbox<Message>>]>,
    pub(super) offload: Rc<Offload>,
    pub(super) listeners: Arc<[String]>,
}

impl service::Census for Census {
    fn largest(&self, limit: usize) -> Pin<Box<dyn Future<Output = String>>> {
        let ask = |shard: &Arc<Mailbox<Message>>| {
            let (promise, wait) = self.offload.promise();
            Answer::new(|found| promise.keep(found)).ask(shard, limit);
            Some(wait)
        };
        let mut waiting: Vec<Option<Wait<Vec<Holding>>>> = self.mailboxes.iter().map(ask).collect();
        let listeners = Arc::clone(&self.listeners);
        Box::pin(async move {
            let mut answers = vec![None; waiting.len()];
            let all = poll_fn(|context| {
                let mut is_complete = true;
                for (answer, place) in answers.iter_mut().zip(&mut waiting) {
                    let Some(wait) = place else { continue };
                    match Pin::new(wait).poll(context) {
                        Poll::Ready(given) => (*answer, *place) = (given, None),
                        Poll::Pending => is_complete = false,
                    }
                }
                if is_complete { Poll::Ready(()) } else { Poll::Pending }
            });
            or(all, runtime::sleep(CENSUS_DEADLINE)).await;
            render_holdings(&answers, limit, &listeners)
        })
    }
}
