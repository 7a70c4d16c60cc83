//! From a request to a description of its response. Nothing here sees a socket, a framing or an epoll set.
//!
//! A [`Handler`] gets a [`Call`] and gives a [`Response`], at once or later. What it must not do is block: it
//! runs on a shard's thread. Work that may block goes through [`Context::offload`].

mod admin;
mod canonical;
mod cors;
mod files;
mod freshness;
mod handler;
mod hosts;
mod https;
mod listing;
mod methods;
mod mount;
mod ranges;
mod redirect;
mod response;
mod router;
mod welcome;

pub use admin::{Admin, CONNECTIONS_MAX, Census, Health};
pub use freshness::Freshness;
pub use handler::{BodyWanted, Handler, Outcome};
pub use listing::Listings;
pub(crate) use listing::{LISTING_BYTES_MAX, LISTINGS_MAX};
pub use mount::Handlers;
pub use response::{Body, Entity, Response, RouteFields};
pub use router::{Candidate, Router, Site};

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use crate::{
    clock::Now,
    files::FileCache,
    http::{OwnedRequest, Request},
    memory::{Rank, Reservation, Share},
    metrics::Holder,
    runtime::Offload,
    sys::socket::Peer,
    tls::{Facts, OwnedFacts},
};

/// What handlers of one shard share: its caches, its clock, its way to blocking work.
#[derive(Debug)]
pub struct Context {
    /// The shard's open files. Borrowed for a statement, never across an await.
    pub files: RefCell<FileCache>,
    /// Threads for work that may block.
    pub offload: Rc<Offload>,
    /// The current turn's time.
    pub now: Cell<Now>,
    /// A buffer for building paths, kept so that building one does not allocate.
    pub path: RefCell<Vec<u8>>,
    /// How many listings of folders are made or sent.
    pub listings: Listings,
    /// Buffers of responses that were sent, for the next ones.
    pub spare: RefCell<Vec<Vec<u8>>>,
    /// What the shard reserves from.
    pub share: Rc<Share>,
}

/// The memory budget has no room for what is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoMemory;

/// Buffers kept in [`Context::spare`]: the fields and the body of a response, and of some that wait.
const SPARE_MAX: usize = 8;
/// Bodies up to this size are copied behind their head, cheaper than another element of the vector, and so need no
/// reservation.
pub const COPIED_BYTES_MAX: usize = 4 << 10;
/// A larger buffer is freed instead of kept.
const SPARE_BYTES_MAX: usize = 16 << 10;

impl Context {
    /// An empty buffer for the fields or the body of a response, one that was used before if there is one.
    pub fn buffer(&self) -> Vec<u8> {
        self.spare.borrow_mut().pop().unwrap_or_default()
    }

    /// Reserves for a body that a handler is about to make. Hold it until the handler has answered: from then on the
    /// response is reserved for as it leaves.
    ///
    /// # Errors
    /// [`NoMemory`] when the budget has not so many bytes left.
    pub fn reserve(&self, bytes: usize) -> Result<Option<Reservation>, NoMemory> {
        self.reserve_at(bytes, Rank::Start)
    }

    /// The same at a rank.
    pub(crate) fn reserve_at(&self, bytes: usize, rank: Rank) -> Result<Option<Reservation>, NoMemory> {
        if bytes <= COPIED_BYTES_MAX {
            return Ok(None);
        }
        self.share.reserve(Holder::ResponseBodies, bytes, rank).map(Some).ok_or(NoMemory)
    }

    /// Keeps the memory of a buffer that is not needed any more.
    pub fn recycle(&self, mut buffer: Vec<u8>) {
        if !(1..=SPARE_BYTES_MAX).contains(&buffer.capacity()) {
            return;
        }
        let mut spare = self.spare.borrow_mut();
        if spare.len() < SPARE_MAX {
            buffer.clear();
            spare.push(buffer);
        }
    }
}

/// One request on its way to a handler.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The head as received.
    pub request: Request<'a>,
    /// The path, decoded once, normalised, with its leading slash; a folder keeps its trailing slash.
    pub absolute_path: &'a [u8],
    /// The same without its leading slash: a name below a root.
    pub path: &'a [u8],
    /// How much of `path` the route matched: what follows is the handler's own part.
    pub matched: usize,
    /// The whole body, for a handler that wants it so; empty without one.
    pub body: &'a [u8],
    /// Who asks.
    pub peer: Peer,
    /// How the connection is encrypted, if it is.
    pub tls: Option<Facts<'a>>,
}

/// A copy of a call that outlives the turn: two or three allocations. The body stays behind: who answers later copies
/// what he needs of it.
#[derive(Clone, Debug)]
pub struct OwnedCall {
    request: OwnedRequest,
    absolute_path: Box<[u8]>,
    matched: usize,
    peer: Peer,
    tls: Option<Box<OwnedFacts>>,
}

impl<'a> Call<'a> {
    /// The part of the path below the route.
    pub fn rest(&self) -> &'a [u8] {
        self.path.get(self.matched..).unwrap_or_default()
    }
}

impl From<&Call<'_>> for OwnedCall {
    fn from(call: &Call<'_>) -> Self {
        OwnedCall {
            request: OwnedRequest::from(call.request),
            absolute_path: call.absolute_path.into(),
            matched: call.matched,
            peer: call.peer,
            tls: call.tls.map(|facts| Box::new(facts.into())),
        }
    }
}

impl OwnedCall {
    /// The call, to be read like the original.
    pub fn as_call(&self) -> Call<'_> {
        Call {
            request: self.request.as_request(),
            absolute_path: &self.absolute_path,
            path: self.absolute_path.get(1..).unwrap_or_default(),
            matched: self.matched,
            body: &[],
            peer: self.peer,
            tls: self.tls.as_deref().map(OwnedFacts::as_facts),
        }
    }
}
