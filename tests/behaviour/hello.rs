//! The simplest site, for tests that are about connections and not about what is served: one file that says hello.

use crate::harness::{Client, TestServer};

pub const GET: &str = "GET /a.txt HTTP/1.1\r\nHost: test\r\n\r\n";
pub const RECEIVED: &str = "webserver_bytes_received_total";

pub fn server() -> TestServer {
    TestServer::with_files(&[("a.txt", b"hello")])
}

/// The connection is of use: the next request on it is answered, and nothing comes before.
pub fn expect_usable(client: &mut Client) {
    let response = client.ask(GET);
    assert_eq!((response.status, response.body.as_slice()), (200, &b"hello"[..]));
}
