//! The listing of a folder without an index: what a request wants of it, and the response. `html` and `json` render.
//!
//! Reading and rendering happen off the shard. What they hold is bounded: listings under way or being sent by
//! [`Listings`], each of them by [`TEXT_BYTES_MAX`].

mod html;
mod json;

use std::{
    cmp::Ordering as Order,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC};

use super::{Body, Call, Response};
use crate::{
    files::{Folder, folder::Entry},
    http::{Status, accept},
    memory::{Budget, Charge},
    metrics::Holder,
};

/// Listings of one shard that are made or sent at once; one more is answered 503.
pub(crate) const LISTINGS_MAX: usize = 16;

/// Where a listing's text is cut, in bytes. 10,000 entries with names of 60 bytes take about 3 MB.
pub(crate) const TEXT_BYTES_MAX: usize = 4 << 20;

/// What one listing is reserved for while it is made: the names, and a text that grows by doubling.
pub(crate) const LISTING_BYTES_MAX: usize = 2 * TEXT_BYTES_MAX;

/// A text up to this size is not counted once it is made: a small file's content takes as much.
const TEXT_BYTES_SMALL: usize = 64 << 10;

/// What is encoded in a name that becomes part of a link: all but the unreserved characters (RFC 3986 2.3).
const NAME: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Nothing but the page itself and its own style, nothing to send, and no frame around it.
const CONTENT_SECURITY_POLICY: &[u8] = b"default-src 'none'; style-src 'unsafe-inline'; img-src data:; \
base-uri 'none'; form-action 'none'; frame-ancestors 'self'";

/// Counts the listings of one shard, and reserves for them.
#[derive(Clone, Debug)]
pub struct Listings {
    count: Arc<AtomicUsize>,
    budget: Arc<Budget>,
}

/// One listing, until it is dropped.
#[derive(Debug)]
pub(super) struct Permit {
    _one: One,
    held: Charge,
}

/// One of [`LISTINGS_MAX`].
#[derive(Debug)]
struct One(Arc<AtomicUsize>);

impl Listings {
    /// None yet.
    pub fn new(budget: &Arc<Budget>) -> Self {
        Listings { count: Arc::default(), budget: Arc::clone(budget) }
    }

    /// The right to one more, with memory for the largest, if there is one.
    pub(super) fn take(&self) -> Option<Permit> {
        let one = One(Arc::clone(&self.count));
        if self.count.fetch_add(1, Ordering::Relaxed) >= LISTINGS_MAX {
            return None;
        }
        let held = self.budget.charge(Holder::ResponseBodies, LISTING_BYTES_MAX)?;
        Some(Permit { _one: one, held })
    }
}

impl Drop for One {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What entries are ordered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Name,
    Size,
    Time,
}

/// A listing as one request wants it. Made on the shard, rendered off it.
#[derive(Debug)]
pub(super) struct Listing {
    /// The folder's path, decoded, with its slashes.
    path: Vec<u8>,
    /// The route's own folder: nothing above it belongs to the route.
    is_top: bool,
    key: Key,
    is_descending: bool,
    is_json: bool,
}

impl Listing {
    /// What `call` wants: by name unless `?sort=name|size|time&order=asc|desc` says more, as HTML unless it would rather
    /// have JSON. Other values are not errors; they count as absent.
    pub(super) fn new(call: &Call<'_>, is_top: bool) -> Self {
        let (mut key, mut is_descending) = (Key::Name, false);
        for parameter in call.request.query().unwrap_or_default().split(|&byte| byte == b'&') {
            match parameter {
                b"sort=name" => key = Key::Name,
                b"sort=size" => key = Key::Size,
                b"sort=time" => key = Key::Time,
                b"order=asc" => is_descending = false,
                b"order=desc" => is_descending = true,
                _ => {}
            }
        }
        let is_json = accept::prefers(call.request, ("application", "json"), ("text", "html"));
        Listing { path: call.absolute_path.to_vec(), is_top, key, is_descending, is_json }
    }

    /// The text of the listing.
    pub(super) fn render(&self, mut folder: Folder) -> Vec<u8> {
        folder.entries.sort_by(|one, other| self.compare(one, other));
        if self.is_json { json::render(self, &folder) } else { html::render(self, &folder) }
    }

    /// The response with its fields, all but those for caches.
    pub(super) fn response(&self, text: Vec<u8>, mut permit: Permit) -> Response {
        let mut response = Response::new(Status::OK);
        let media_type: &[u8] = if self.is_json { b"application/json" } else { b"text/html; charset=utf-8" };
        response.push_field("Content-Type", media_type);
        response.push_field("Vary", b"Accept");
        if !self.is_json {
            response.push_field("Content-Security-Policy", CONTENT_SECURITY_POLICY);
        }
        response.body = if text.len() <= TEXT_BYTES_SMALL {
            Body::Shared(Bytes::from(text))
        } else {
            // From here on it is the text alone, for as long as it is sent.
            permit.held.shrink(text.capacity());
            Body::Cached(Bytes::from_owner(Held { text, _permit: permit }))
        };
        response
    }

    /// Folders come first in any order; what is equal is ordered by name.
    fn compare(&self, one: &Entry, other: &Entry) -> Order {
        let by_key = match self.key {
            Key::Name => Order::Equal,
            Key::Size => one.size.cmp(&other.size),
            Key::Time => one.modified_unix_seconds.cmp(&other.modified_unix_seconds),
        };
        let by_name = || compare_names(&one.name, &other.name);
        let order = match self.key {
            Key::Name if self.is_descending => by_name().reverse(),
            _ if self.is_descending => by_key.reverse().then_with(by_name),
            _ => by_key.then_with(by_name),
        };
        other.is_folder.cmp(&one.is_folder).then(order)
    }
}

/// Without regard to case, as people look for a name; then by bytes.
fn compare_names(one: &[u8], other: &[u8]) -> Order {
    let lower = |name: &[u8]| name.to_ascii_lowercase();
    lower(one).cmp(&lower(other)).then_with(|| one.cmp(other))
}

/// A large text, which counts as long as it is being sent.
struct Held {
    text: Vec<u8>,
    _permit: Permit,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::budget::tests::budget;

    pub(super) fn entry(name: &[u8], is_folder: bool, size: u64, modified_unix_seconds: u64) -> Entry {
        Entry { name: name.into(), is_folder, size, modified_unix_seconds }
    }

    pub(super) fn listing(path: &[u8], key: Key, is_descending: bool) -> Listing {
        Listing { path: path.to_vec(), is_top: path == b"/", key, is_descending, is_json: false }
    }

    #[test]
    fn folders_come_first_in_each_order() {
        let sorted = |key, is_descending| {
            let mut entries = [
                entry(b"b.txt", false, 5, 30),
                entry(b"A.txt", false, 7, 20),
                entry(b"a.txt", false, 7, 10),
                entry(b"z", true, 0, 2),
                entry(b"Y", true, 0, 1),
            ];
            let listing = listing(b"/", key, is_descending);
            entries.sort_by(|one, other| listing.compare(one, other));
            entries
                .iter()
                .map(|entry| String::from_utf8_lossy(&entry.name).into_owned())
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(sorted(Key::Name, false), "Y z A.txt a.txt b.txt");
        assert_eq!(sorted(Key::Name, true), "z Y b.txt a.txt A.txt");
        assert_eq!(sorted(Key::Size, false), "Y z b.txt A.txt a.txt");
        assert_eq!(sorted(Key::Size, true), "Y z A.txt a.txt b.txt");
        assert_eq!(sorted(Key::Time, false), "Y z a.txt A.txt b.txt");
        assert_eq!(sorted(Key::Time, true), "z Y b.txt A.txt a.txt");
    }

    #[test]
    fn listings_are_counted_while_they_are_held() {
        let budget = budget(1 << 30, 1);
        let listings = Listings::new(&budget);
        let mut permits: Vec<Permit> = (0..LISTINGS_MAX).map_while(|_| listings.take()).collect();
        assert_eq!(permits.len(), LISTINGS_MAX);
        assert!(listings.take().is_none());
        assert!(listings.take().is_none(), "a refusal takes nothing");
        assert_eq!(budget.used_bytes(), (LISTINGS_MAX * LISTING_BYTES_MAX) as u64);
        let listing = listing(b"/", Key::Name, false);
        let small = listing.response(vec![b'x'; TEXT_BYTES_SMALL], permits.pop().unwrap());
        let large = listing.response(vec![b'x'; TEXT_BYTES_SMALL + 1], listings.take().unwrap());
        assert!(listings.take().is_none());
        drop(small);
        assert!(listings.take().is_none());
        drop(large);
        assert!(listings.take().is_some());
        drop(permits);
        assert_eq!(budget.used_bytes(), 0);
    }

    #[test]
    fn a_listing_that_is_sent_counts_for_its_text_alone() {
        let budget = budget(LISTING_BYTES_MAX * 2, 1);
        let listings = Listings::new(&budget);
        let large = vec![b'x'; TEXT_BYTES_SMALL + 1];
        let capacity = large.capacity() as u64;
        let response = listing(b"/", Key::Name, false).response(large, listings.take().unwrap());
        assert_eq!(budget.used_bytes(), capacity);
        assert!(listings.take().is_some());
        let _all = budget.charge(Holder::Host, LISTING_BYTES_MAX).unwrap();
        assert!(listings.take().is_none(), "no memory for another");
        drop(response);
    }

    #[test]
    fn a_text_is_cut_at_its_limit() {
        let name = [b'<'; 255];
        let entries: Vec<Entry> = (0..10_000).map(|size| entry(&name, false, size, 0)).collect();
        for is_json in [false, true] {
            let listing = Listing { is_json, ..listing(b"/", Key::Size, false) };
            let text = listing.render(Folder { entries: entries.clone(), is_cut: false });
            assert!((TEXT_BYTES_MAX..TEXT_BYTES_MAX + 8192).contains(&text.len()), "{}", text.len());
        }
    }
}
