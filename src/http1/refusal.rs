//! Why a request is refused, and the response that says so.
//!
//! Every reason has a variant of its own, so that each can be counted. A refused request ends its connection:
//! after a framing error nobody knows where the next request begins.

use std::io::Write;

use crate::http::Status;

macro_rules! refusals {
    ($($name:ident $label:literal $status:ident $detail:literal;)*) => {
        /// Why a request is refused. The order is that of the counters.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Refusal {
            $(#[doc = $detail] $name,)*
        }

        impl Refusal {
            /// Every reason, in the order of [`Refusal::index`].
            pub const ALL: &'static [Refusal] = &[$(Refusal::$name),*];

            /// The names of all reasons, in the same order.
            pub const LABELS: &'static [&'static str] = &[$($label),*];

            /// The name of the reason in metrics: lower case with underscores.
            pub fn label(self) -> &'static str {
                match self {
                    $(Refusal::$name => $label,)*
                }
            }

            /// The status it is answered with.
            pub fn status(self) -> Status {
                match self {
                    $(Refusal::$name => Status::$status,)*
                }
            }

            /// One sentence for people, without a full stop.
            pub fn detail(self) -> &'static str {
                match self {
                    $(Refusal::$name => $detail,)*
                }
            }
        }
    };
}

refusals! {
    EmptyLines "empty_lines" BAD_REQUEST "too many empty lines before the request";
    LineEnding "line_ending" BAD_REQUEST "a line does not end with CR LF";
    MethodMalformed "method_malformed" BAD_REQUEST "the method is not a token followed by one space";
    MethodTooLong "method_too_long" NOT_IMPLEMENTED "the method is longer than any that is known";
    TargetMalformed "target_malformed" BAD_REQUEST "the request target is not valid for this method";
    TargetTooLong "target_too_long" URI_TOO_LONG "the request target is longer than the limit";
    VersionMalformed "version_malformed" BAD_REQUEST "the request line does not end with an HTTP version";
    VersionUnsupported "version_unsupported" HTTP_VERSION_NOT_SUPPORTED "only HTTP/1.0 and HTTP/1.1 are spoken here";
    FieldName "field_name" BAD_REQUEST "a header line does not begin with a field name and a colon";
    FieldNameSpace "field_name_space" BAD_REQUEST "there is whitespace between a field name and its colon";
    FieldFolded "field_folded" BAD_REQUEST "a header line begins with whitespace";
    FieldValue "field_value" BAD_REQUEST "a field value holds a control character";
    TooManyFields "too_many_fields" REQUEST_HEADER_FIELDS_TOO_LARGE "there are more header fields than the limit";
    HeadTooLarge "head_too_large" REQUEST_HEADER_FIELDS_TOO_LARGE "the request head is larger than the limit";
    HostMissing "host_missing" BAD_REQUEST "an HTTP/1.1 request needs a Host field";
    HostRepeated "host_repeated" BAD_REQUEST "there is more than one Host field";
    HostMalformed "host_malformed" BAD_REQUEST "the host is not a valid name or address with an optional port";
    LengthMalformed "length_malformed" BAD_REQUEST "Content-Length is not one decimal number of 64 bits";
    LengthRepeated "length_repeated" BAD_REQUEST "there is more than one Content-Length field";
    LengthAndCoding "length_and_coding" BAD_REQUEST "Content-Length and Transfer-Encoding exclude each other";
    CodingMalformed "coding_malformed" BAD_REQUEST "Transfer-Encoding is not a list of transfer codings";
    CodingUnknown "coding_unknown" NOT_IMPLEMENTED "no transfer coding but chunked is understood";
    CodingNotFinal "coding_not_final" BAD_REQUEST "chunked is not the final transfer coding, or not the only one of its kind";
    CodingInHttp10 "coding_in_http10" BAD_REQUEST "HTTP/1.0 has no Transfer-Encoding";
    Expectation "expectation" EXPECTATION_FAILED "no expectation but 100-continue can be met";
    BodyTooLarge "body_too_large" CONTENT_TOO_LARGE "the request body is larger than the limit";
    ChunkSize "chunk_size" BAD_REQUEST "a chunk size is not 1 to 16 hexadecimal digits";
    ChunkExtension "chunk_extension" BAD_REQUEST "a chunk extension is malformed or longer than the limit";
    ChunkEnd "chunk_end" BAD_REQUEST "a chunk does not end with CR LF";
    TrailerMalformed "trailer_malformed" BAD_REQUEST "a trailer line is not a field name, a colon and a value";
    TrailersTooLarge "trailers_too_large" REQUEST_HEADER_FIELDS_TOO_LARGE "the trailer section is larger than the limit";
    HeaderTimeout "header_timeout" REQUEST_TIMEOUT "the request head did not arrive in time";
    BodyTimeout "body_timeout" REQUEST_TIMEOUT "the request body did not arrive in time";
    BodyMemory "body_memory" SERVICE_UNAVAILABLE "other request bodies hold all the memory there is for them";
}

impl Refusal {
    /// Number of reasons.
    pub const COUNT: usize = Refusal::ALL.len();

    /// A dense index for counters, below [`Refusal::COUNT`].
    #[inline]
    pub fn index(self) -> usize {
        self as usize
    }
}

/// Appends the whole response for a refusal: status line, `Date`, a plain text body and `Connection: close`
/// (RFC 9112 9.6). `date_line` is a rendered `Date: ...\r\n` (RFC 9110 6.6.1), or empty without a clock. After a HEAD
/// request the body MUST be left out (RFC 9110 9.3.2): `with_body` is false then, and the length stays. At most
/// 400 bytes; allocates only what `out` lacks.
pub fn write_refusal(out: &mut Vec<u8>, refusal: Refusal, date_line: &[u8], with_body: bool) {
    let status = refusal.status();
    let (text, detail) = (status.text(), refusal.detail());
    // "404 Not Found: the detail\n"
    let length = text.len() + 2 + detail.len() + 1;
    out.extend_from_slice(status.line());
    out.extend_from_slice(date_line);
    if status == Status::SERVICE_UNAVAILABLE {
        // RFC 9110 15.6.4: when it is worth while to try again.
        out.extend_from_slice(b"Retry-After: 1\r\n");
    }
    let head = write!(
        out,
        "Content-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    let body = if with_body { writeln!(out, "{text}: {detail}") } else { Ok(()) };
    debug_assert!(head.is_ok() && body.is_ok(), "a vector takes every write");
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const DATE: &[u8] = b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n";

    #[test]
    fn indexes_are_dense_and_labels_unique() {
        for (index, refusal) in Refusal::ALL.iter().enumerate() {
            assert_eq!(refusal.index(), index);
            let label = refusal.label();
            assert!(
                label.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_' || byte.is_ascii_digit())
            );
        }
        let labels: BTreeSet<_> = Refusal::ALL.iter().map(|refusal| refusal.label()).collect();
        assert_eq!(labels.len(), Refusal::COUNT);
    }

    #[test]
    fn every_refusal_is_an_error_status() {
        for refusal in Refusal::ALL {
            assert!((400..600).contains(&refusal.status().code()), "{refusal:?}");
        }
    }

    #[test]
    fn the_response_is_whole_and_closes() {
        let mut out = Vec::new();
        write_refusal(&mut out, Refusal::HostMissing, DATE, true);
        let expected = "HTTP/1.1 400 Bad Request\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
            Content-Type: text/plain; charset=utf-8\r\nContent-Length: 56\r\nConnection: close\r\n\r\n\
            400 Bad Request: an HTTP/1.1 request needs a Host field\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn without_its_body_the_head_is_the_same() {
        let (mut whole, mut head) = (Vec::new(), Vec::new());
        write_refusal(&mut whole, Refusal::HostMissing, DATE, true);
        write_refusal(&mut head, Refusal::HostMissing, DATE, false);
        assert!(whole.starts_with(&head) && head.ends_with(b"\r\n\r\n") && whole.len() == head.len() + 56);
    }

    #[test]
    fn every_response_tells_its_length_and_stays_small() {
        for &refusal in Refusal::ALL {
            let mut out = b"before".to_vec();
            write_refusal(&mut out, refusal, DATE, true);
            assert!(out.starts_with(b"before"));
            assert!(out.len() - 6 <= 400, "{refusal:?}: {}", out.len());
            let text = String::from_utf8(out).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{text}");
        }
    }
}
