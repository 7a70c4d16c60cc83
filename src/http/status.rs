//! Status codes with their reason phrases and rendered status lines.
//!
//! Every [`Status`] has its status line in static memory.

/// A status code of the IANA registry (RFC 9110 15 and the documents that extend it), or another one of a final response.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Status(u16);

macro_rules! statuses {
    ($($name:ident $code:literal $reason:literal;)*) => {
        impl Status {
            $(#[doc = concat!($code, " ", $reason)] pub const $name: Status = Status($code);)*

            /// Every registered status, in ascending order.
            pub const ALL: &'static [Status] = &[$(Status::$name),*];

            /// The status with this code, if it is a registered one.
            pub fn from_code(code: u16) -> Option<Status> {
                match code {
                    $($code => Some(Status($code)),)*
                    _ => None,
                }
            }

            /// The reason phrase, for instance `Not Found`.
            pub fn reason(self) -> &'static str {
                match self.0 {
                    $($code => $reason,)*
                    _ => "",
                }
            }

            /// `404 Not Found`: the beginning of a body for people.
            pub fn text(self) -> &'static str {
                match self.0 {
                    $($code => concat!($code, " ", $reason),)*
                    _ => "",
                }
            }

            /// The status line with its line end, for instance `HTTP/1.1 200 OK\r\n` (RFC 9112 4). The
            /// version is the server's own, also in an answer to HTTP/1.0 (RFC 9110 6.2).
            #[inline]
            pub fn line(self) -> &'static [u8] {
                match self.0 {
                    $($code => concat!("HTTP/1.1 ", $code, " ", $reason, "\r\n").as_bytes(),)*
                    code => UNREGISTERED_LINES.get(usize::from(code).wrapping_sub(200)).unwrap_or(&UNREGISTERED_LINES[300]),
                }
            }
        }
    };
}

statuses! {
    CONTINUE 100 "Continue";
    SWITCHING_PROTOCOLS 101 "Switching Protocols";
    PROCESSING 102 "Processing";
    EARLY_HINTS 103 "Early Hints";
    OK 200 "OK";
    CREATED 201 "Created";
    ACCEPTED 202 "Accepted";
    NON_AUTHORITATIVE_INFORMATION 203 "Non-Authoritative Information";
    NO_CONTENT 204 "No Content";
    RESET_CONTENT 205 "Reset Content";
    PARTIAL_CONTENT 206 "Partial Content";
    MULTI_STATUS 207 "Multi-Status";
    ALREADY_REPORTED 208 "Already Reported";
    IM_USED 226 "IM Used";
    MULTIPLE_CHOICES 300 "Multiple Choices";
    MOVED_PERMANENTLY 301 "Moved Permanently";
    FOUND 302 "Found";
    SEE_OTHER 303 "See Other";
    NOT_MODIFIED 304 "Not Modified";
    USE_PROXY 305 "Use Proxy";
    TEMPORARY_REDIRECT 307 "Temporary Redirect";
    PERMANENT_REDIRECT 308 "Permanent Redirect";
    BAD_REQUEST 400 "Bad Request";
    UNAUTHORIZED 401 "Unauthorized";
    PAYMENT_REQUIRED 402 "Payment Required";
    FORBIDDEN 403 "Forbidden";
    NOT_FOUND 404 "Not Found";
    METHOD_NOT_ALLOWED 405 "Method Not Allowed";
    NOT_ACCEPTABLE 406 "Not Acceptable";
    PROXY_AUTHENTICATION_REQUIRED 407 "Proxy Authentication Required";
    REQUEST_TIMEOUT 408 "Request Timeout";
    CONFLICT 409 "Conflict";
    GONE 410 "Gone";
    LENGTH_REQUIRED 411 "Length Required";
    PRECONDITION_FAILED 412 "Precondition Failed";
    CONTENT_TOO_LARGE 413 "Content Too Large";
    URI_TOO_LONG 414 "URI Too Long";
    UNSUPPORTED_MEDIA_TYPE 415 "Unsupported Media Type";
    RANGE_NOT_SATISFIABLE 416 "Range Not Satisfiable";
    EXPECTATION_FAILED 417 "Expectation Failed";
    MISDIRECTED_REQUEST 421 "Misdirected Request";
    UNPROCESSABLE_CONTENT 422 "Unprocessable Content";
    LOCKED 423 "Locked";
    FAILED_DEPENDENCY 424 "Failed Dependency";
    TOO_EARLY 425 "Too Early";
    UPGRADE_REQUIRED 426 "Upgrade Required";
    PRECONDITION_REQUIRED 428 "Precondition Required";
    TOO_MANY_REQUESTS 429 "Too Many Requests";
    REQUEST_HEADER_FIELDS_TOO_LARGE 431 "Request Header Fields Too Large";
    UNAVAILABLE_FOR_LEGAL_REASONS 451 "Unavailable For Legal Reasons";
    INTERNAL_SERVER_ERROR 500 "Internal Server Error";
    NOT_IMPLEMENTED 501 "Not Implemented";
    BAD_GATEWAY 502 "Bad Gateway";
    SERVICE_UNAVAILABLE 503 "Service Unavailable";
    GATEWAY_TIMEOUT 504 "Gateway Timeout";
    HTTP_VERSION_NOT_SUPPORTED 505 "HTTP Version Not Supported";
    VARIANT_ALSO_NEGOTIATES 506 "Variant Also Negotiates";
    INSUFFICIENT_STORAGE 507 "Insufficient Storage";
    LOOP_DETECTED 508 "Loop Detected";
    NOT_EXTENDED 510 "Not Extended";
    NETWORK_AUTHENTICATION_REQUIRED 511 "Network Authentication Required";
}

/// Status lines of final responses without a reason phrase, which may be empty (RFC 9112 4).
static UNREGISTERED_LINES: [[u8; 15]; 400] = unregistered_lines();

const fn unregistered_lines() -> [[u8; 15]; 400] {
    let mut lines = [*b"HTTP/1.1 000 \r\n"; 400];
    let mut index = 0;
    while index < lines.len() {
        let code = 200 + index;
        lines[index][9] = b'0' + (code / 100) as u8;
        lines[index][10] = b'0' + (code / 10 % 10) as u8;
        lines[index][11] = b'0' + (code % 10) as u8;
        index += 1;
    }
    lines
}

impl Status {
    /// The status of a final response with this code, registered or not: 200 to 599 (RFC 9110 15).
    pub fn of_response(code: u16) -> Option<Status> {
        (200..=599).contains(&code).then_some(Status(code))
    }

    /// The code, 100 to 599.
    #[inline]
    pub fn code(self) -> u16 {
        self.0
    }

    /// Whether a response with this status is sent without content: the bodiless ones, and 205, which a server MUST NOT
    /// send any with (RFC 9110 15.3.6).
    #[inline]
    pub fn forbids_content(self) -> bool {
        self.is_bodiless() || self.0 == 205
    }

    /// Whether a response with this status never has a body: 1xx, 204 and 304 (RFC 9110 6.4.1).
    #[inline]
    pub fn is_bodiless(self) -> bool {
        self.0 < 200 || self.0 == 204 || self.0 == 304
    }
}

impl std::fmt::Debug for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_version_code_reason_and_line_end() {
        assert_eq!(Status::OK.line(), b"HTTP/1.1 200 OK\r\n");
        for &status in Status::ALL {
            let expected = format!("HTTP/1.1 {} {}\r\n", status.code(), status.reason());
            assert_eq!(status.line(), expected.as_bytes());
            assert_eq!(Status::from_code(status.code()), Some(status));
            assert!(!status.reason().is_empty());
        }
    }

    #[test]
    fn only_registered_codes_exist() {
        for code in [0, 99, 199, 306, 418, 599, 600, u16::MAX] {
            assert_eq!(Status::from_code(code), None);
        }
        assert!(Status::ALL.is_sorted());
    }

    #[test]
    fn a_handler_may_answer_any_code_of_a_final_response() {
        assert_eq!(Status::of_response(200), Some(Status::OK));
        assert_eq!(Status::of_response(299).unwrap().line(), b"HTTP/1.1 299 \r\n");
        assert_eq!(Status::of_response(599).unwrap().line(), b"HTTP/1.1 599 \r\n");
        for code in [0, 100, 199, 600, u16::MAX] {
            assert_eq!(Status::of_response(code), None);
        }
        for code in 200..=599 {
            let line = Status::of_response(code).unwrap().line();
            assert!(line.starts_with(format!("HTTP/1.1 {code} ").as_bytes()) && line.ends_with(b"\r\n"));
        }
    }

    #[test]
    fn statuses_without_a_body() {
        assert!(Status::RESET_CONTENT.forbids_content());
        assert!(Status::NO_CONTENT.forbids_content());
        assert!(!Status::OK.forbids_content());
        assert!(Status::CONTINUE.is_bodiless());
        assert!(Status::NO_CONTENT.is_bodiless());
        assert!(Status::NOT_MODIFIED.is_bodiless());
        assert!(!Status::OK.is_bodiless());
        assert!(!Status::RESET_CONTENT.is_bodiless());
    }
}
