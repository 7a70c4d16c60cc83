//! Request methods and protocol versions as small `Copy` values.

/// A request method (RFC 9110 9.3, RFC 5789). Methods are case-sensitive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Method {
    /// `GET`
    #[default]
    Get,
    /// `HEAD`
    Head,
    /// `OPTIONS`
    Options,
    /// `POST`
    Post,
    /// `PUT`
    Put,
    /// `DELETE`
    Delete,
    /// `PATCH`
    Patch,
    /// `TRACE`
    Trace,
    /// `CONNECT`
    Connect,
    /// Any other token; its text is in the request.
    Other,
}

/// The version a request was sent with. Ordered, so that `version >= Version::Http11` reads as it should.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    #[default]
    Http11,
}

impl Version {
    /// As a request line has it.
    #[inline]
    pub fn text(self) -> &'static str {
        match self {
            Version::Http10 => "HTTP/1.0",
            Version::Http11 => "HTTP/1.1",
        }
    }
}

impl Method {
    /// The method with this name; [`Method::Other`] for a name that has no variant.
    #[inline]
    pub fn from_text(text: &[u8]) -> Method {
        match text {
            b"GET" => Method::Get,
            b"HEAD" => Method::Head,
            b"OPTIONS" => Method::Options,
            b"POST" => Method::Post,
            b"PUT" => Method::Put,
            b"DELETE" => Method::Delete,
            b"PATCH" => Method::Patch,
            b"TRACE" => Method::Trace,
            b"CONNECT" => Method::Connect,
            _ => Method::Other,
        }
    }

    /// `GET` or `HEAD`: the methods that a file answers.
    #[inline]
    pub fn is_get_or_head(self) -> bool {
        matches!(self, Method::Get | Method::Head)
    }
}

impl Version {
    /// The version as the access log writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Version::Http10 => "HTTP/1.0",
            Version::Http11 => "HTTP/1.1",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_case_sensitive() {
        assert_eq!(Method::from_text(b"GET"), Method::Get);
        assert_eq!(Method::from_text(b"get"), Method::Other);
        assert_eq!(Method::from_text(b"GETS"), Method::Other);
        assert_eq!(Method::from_text(b""), Method::Other);
    }

    #[test]
    fn versions_are_ordered() {
        assert!(Version::Http10 < Version::Http11);
        assert_eq!(Version::Http11.as_str(), "HTTP/1.1");
    }
}
