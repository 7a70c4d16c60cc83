//! The head of a response on the wire.

use crate::http::{Request, Status};

/// What a response says about its connection (RFC 9112 9.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    /// Nothing: HTTP/1.1 stays open.
    Implied,
    /// `keep-alive`, for an HTTP/1.0 client that asked.
    KeepAlive,
    /// `close`.
    Close,
}

/// Appends status line, date, the blocks of rendered fields (each line ended), a `Content-Length` if there is one to
/// add, the connection's field, and the empty line. Allocates only what `out` lacks.
pub fn write_head(
    out: &mut Vec<u8>,
    status: Status,
    date_line: &[u8],
    blocks: &[&[u8]],
    content_length: Option<u64>,
    connection: Connection,
) {
    out.extend_from_slice(status.line());
    out.extend_from_slice(date_line);
    for block in blocks {
        out.extend_from_slice(block);
    }
    if let Some(length) = content_length {
        out.extend_from_slice(b"Content-Length: ");
        out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(match connection {
        Connection::Implied => b"\r\n".as_slice(),
        Connection::KeepAlive => b"Connection: keep-alive\r\n\r\n",
        Connection::Close => b"Connection: close\r\n\r\n",
    });
}

/// The request line as received, without its line end, for a log.
pub fn request_line(request: Request<'_>) -> &[u8] {
    let start = request.parts.method_text.start as usize;
    let line = request.bytes.get(start..).unwrap_or_default();
    let end = line.iter().position(|&byte| byte == b'\r').unwrap_or(line.len());
    &line[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_its_parts_in_order() {
        let mut out = Vec::new();
        let blocks: [&[u8]; 2] = [b"ETag: \"x\"\r\n", b""];
        write_head(&mut out, Status::OK, b"Date: now\r\n", &blocks, Some(0), Connection::Close);
        assert_eq!(
            out,
            b"HTTP/1.1 200 OK\r\nDate: now\r\nETag: \"x\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
    }
}
