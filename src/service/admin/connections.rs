//! Which connections hold most bytes.

use std::{fmt, future::Future, pin::Pin};

use crate::{
    http::Status,
    service::{Outcome, Response},
};

/// The most connections that are told at once.
pub const CONNECTIONS_MAX: usize = 1000;
/// How many are told unless the request says.
const CONNECTIONS: usize = 20;

/// Knows the connections of all shards, or whom to ask.
pub trait Census: fmt::Debug {
    /// The `limit` connections that hold most, as JSON, in a second at most.
    fn largest(&self, limit: usize) -> Pin<Box<dyn Future<Output = String>>>;
}

/// Answers `/connections.json?limit=N`; 400 for a limit that is none or out of bounds.
pub(super) fn answer(query: Option<&[u8]>, census: &dyn Census) -> Outcome {
    let Some(limit) = limit(query.unwrap_or_default()) else {
        return Outcome::Ready(Response::page(Status::BAD_REQUEST));
    };
    let text = census.largest(limit);
    Outcome::Pending(Box::pin(async move { super::figures("application/json", text.await) }))
}

/// The last `limit` of a query.
fn limit(query: &[u8]) -> Option<usize> {
    let mut values =
        query.split(|&byte| byte == b'&').filter_map(|parameter| parameter.strip_prefix(b"limit="));
    let Some(value) = values.next_back() else { return Some(CONNECTIONS) };
    let limit = std::str::from_utf8(value).ok()?.parse().ok()?;
    (1..=CONNECTIONS_MAX).contains(&limit).then_some(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_a_number_within_its_bounds() {
        for (query, expected) in [
            ("", Some(20)),
            ("x=1", Some(20)),
            ("limit=1", Some(1)),
            ("a&limit=1000&b", Some(1000)),
            ("limit=1&limit=2", Some(2)),
            ("limit=0", None),
            ("limit=1001", None),
            ("limit=", None),
            ("limit=-1", None),
            ("limit=99999999999999999999999", None),
            ("limit=1%30", None),
        ] {
            assert_eq!(limit(query.as_bytes()), expected, "{query}");
        }
        assert_eq!(limit(b"limit=\xff"), None);
    }
}
