//! The request fields that the server itself reads, found once while a head is decoded.

/// A field with a meaning to the server. Any other field is reached by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Known {
    /// `Host`
    Host,
    /// `Connection`
    Connection,
    /// `Content-Length`
    ContentLength,
    /// `Transfer-Encoding`
    TransferEncoding,
    /// `Expect`
    Expect,
    /// `If-Match`
    IfMatch,
    /// `If-None-Match`
    IfNoneMatch,
    /// `If-Modified-Since`
    IfModifiedSince,
    /// `If-Unmodified-Since`
    IfUnmodifiedSince,
    /// `Range`
    Range,
    /// `If-Range`
    IfRange,
    /// `Accept-Encoding`
    AcceptEncoding,
    /// `Referer`
    Referer,
    /// `User-Agent`
    UserAgent,
    /// `Accept`
    Accept,
    /// `Authorization`
    Authorization,
    /// `Cookie`
    Cookie,
}

impl Known {
    /// Number of variants.
    pub const COUNT: usize = Known::Cookie as usize + 1;

    /// The variant of a field name, in any case. The length decides which one to three names are compared.
    ///
    /// `name` is a token: a CR in it would pass for a hyphen.
    #[inline]
    pub fn classify(name: &[u8]) -> Option<Known> {
        match name.len() {
            4 => pick(name, [(b"host", Known::Host)]),
            5 => pick(name, [(b"range", Known::Range)]),
            6 => pick(
                name,
                [(b"accept", Known::Accept), (b"cookie", Known::Cookie), (b"expect", Known::Expect)],
            ),
            7 => pick(name, [(b"referer", Known::Referer)]),
            8 => pick(name, [(b"if-match", Known::IfMatch), (b"if-range", Known::IfRange)]),
            10 => pick(name, [(b"user-agent", Known::UserAgent), (b"connection", Known::Connection)]),
            13 => {
                pick(name, [(b"if-none-match", Known::IfNoneMatch), (b"authorization", Known::Authorization)])
            }
            14 => pick(name, [(b"content-length", Known::ContentLength)]),
            15 => pick(name, [(b"accept-encoding", Known::AcceptEncoding)]),
            17 => pick(
                name,
                [
                    (b"if-modified-since", Known::IfModifiedSince),
                    (b"transfer-encoding", Known::TransferEncoding),
                ],
            ),
            19 => pick(name, [(b"if-unmodified-since", Known::IfUnmodifiedSince)]),
            _ => None,
        }
    }
}

/// The first of some lower-case names that `name` is. All have the same known length, and one bit makes a
/// letter lower case and leaves a hyphen, so that a comparison compiles to a few wide instructions.
#[inline(always)]
fn pick<const LENGTH: usize, const COUNT: usize>(
    name: &[u8],
    candidates: [(&[u8; LENGTH], Known); COUNT],
) -> Option<Known> {
    let name: &[u8; LENGTH] = name.try_into().ok()?;
    let lower = name.map(|byte| byte | 0x20);
    candidates.into_iter().find(|(text, _)| lower == **text).map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_name_is_found_in_any_case() {
        let names = [
            "Host",
            "Connection",
            "Content-Length",
            "Transfer-Encoding",
            "Expect",
            "If-Match",
            "If-None-Match",
            "If-Modified-Since",
            "If-Unmodified-Since",
            "Range",
            "If-Range",
            "Accept-Encoding",
            "Referer",
            "User-Agent",
            "Accept",
            "Authorization",
            "Cookie",
        ];
        assert_eq!(names.len(), Known::COUNT);
        for (index, name) in names.iter().enumerate() {
            for text in [name.to_string(), name.to_lowercase(), name.to_uppercase()] {
                let known = Known::classify(text.as_bytes()).map(|known| known as usize);
                assert_eq!(known, Some(index), "{text}");
            }
        }
    }

    #[test]
    fn other_names_are_not_known() {
        for name in
            ["", "Hosts", "Most", "Content_Length", "Transfer-Encodin\u{1}", "X-Forwarded-For", "Ranges"]
        {
            assert_eq!(Known::classify(name.as_bytes()), None, "{name}");
        }
    }
}
