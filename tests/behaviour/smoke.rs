//! The main job.

use crate::harness::TestServer;

#[test]
fn serves_a_file_and_keeps_the_connection() {
    let server = TestServer::with_files(&[("a.txt", b"hello")]);
    let mut client = server.connect();
    for _ in 0..3 {
        client.send("GET /a.txt HTTP/1.1\r\nHost: test\r\n\r\n");
        let response = client.response();
        assert_eq!((response.status, response.body.as_slice()), (200, &b"hello"[..]));
        assert_eq!(response.field("content-type"), Some("text/plain; charset=utf-8"));
        assert!(response.field("date").is_some());
    }
    assert_eq!(server.get("/missing").status, 404);
    server.await_metric("webserver_requests_total{status=\"200\"}", 3);
}
