//! Request targets (RFC 9112 3.2) and the host they or the `Host` field name (RFC 9110 7.2).
//!
//! Only the shape is checked. The path stays percent-encoded: it is decoded once, where files are opened.

use std::net::Ipv6Addr;

use super::Refusal;
use crate::http::{Method, Span};

/// Where the parts of a request target lie in the received bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) path: Span,
    pub(super) query: Option<Span>,
    /// Host and port of an absolute or authority form.
    pub(super) authority: Option<Span>,
}

/// The port of an authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Port {
    /// No colon.
    Absent,
    /// A colon and nothing behind it, which the grammar allows (RFC 3986 3.2.3).
    Empty,
    /// A number of 16 bits.
    Number(u16),
}

/// Splits the target `text`, which begins at offset `base`, by the form that its method may use.
pub(super) fn split(text: &[u8], base: u32, method: Method) -> Result<Target, Refusal> {
    let at = |start: usize, end: usize| Span::new(base + start as u32, base + end as u32);
    if method == Method::Connect {
        return authority_form(text, at);
    }
    let query = scan(text)?;
    let query_span = query.map(|mark| at(mark + 1, text.len()));
    let path_end = query.unwrap_or(text.len());
    match text.first() {
        Some(b'/') => Ok(Target { path: at(0, path_end), query: query_span, authority: None }),
        Some(b'*') if method == Method::Options && text.len() == 1 => {
            Ok(Target { path: at(0, 1), query: None, authority: None })
        }
        _ => {
            let scheme = scheme_length(text).ok_or(Refusal::TargetMalformed)?;
            let authority_end = text[scheme..path_end]
                .iter()
                .position(|&byte| byte == b'/')
                .map_or(path_end, |length| scheme + length);
            // RFC 9110 4.2.1: an http URI with an empty host MUST be rejected. User information is refused
            // with it, as no host has an `@` (RFC 9110 4.2.4).
            authority(&text[scheme..authority_end]).ok_or(Refusal::HostMalformed)?;
            // An empty path is `/` (RFC 9110 4.2.3): the last slash of `http://` lends its byte.
            let path =
                if authority_end == path_end { at(scheme - 1, scheme) } else { at(authority_end, path_end) };
            Ok(Target { path, query: query_span, authority: Some(at(scheme, authority_end)) })
        }
    }
}

/// Checks host and optional port (RFC 9110 7.2): a name, an IPv4 address or an IPv6 address in brackets. The
/// host may not be empty: an http URI always has one.
pub(super) fn authority(text: &[u8]) -> Option<Port> {
    let end = if text.first() == Some(&b'[') {
        let close = text.iter().position(|&byte| byte == b']')?;
        let address = std::str::from_utf8(&text[1..close]).ok()?;
        address.parse::<Ipv6Addr>().ok()?;
        close + 1
    } else {
        let end = text.iter().position(|&byte| !HOST[usize::from(byte)]).unwrap_or(text.len());
        if end == 0 || !escapes_are_whole(&text[..end]) {
            return None;
        }
        end
    };
    match &text[end..] {
        [] => Some(Port::Absent),
        [b':'] => Some(Port::Empty),
        [b':', digits @ ..] if digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit) => {
            let number = digits.iter().fold(0u32, |number, &byte| number * 10 + u32::from(byte - b'0'));
            u16::try_from(number).ok().map(Port::Number)
        }
        _ => None,
    }
}

/// RFC 9110 9.3.6: a server MUST reject a `CONNECT` that has an empty or invalid port.
fn authority_form(text: &[u8], at: impl Fn(usize, usize) -> Span) -> Result<Target, Refusal> {
    match authority(text) {
        Some(Port::Number(_)) => {
            Ok(Target { path: at(0, 0), query: None, authority: Some(at(0, text.len())) })
        }
        _ => Err(Refusal::TargetMalformed),
    }
}

/// Finds the first `?` and refuses every byte that a target may not have: controls, spaces, what is not
/// ASCII, and `#`, since a fragment is never sent (RFC 9112 3.2).
#[inline]
fn scan(text: &[u8]) -> Result<Option<usize>, Refusal> {
    let mut query = None;
    for (index, &byte) in text.iter().enumerate() {
        if byte == b'?' {
            query = query.or(Some(index));
        } else if !(0x21..=0x7e).contains(&byte) || byte == b'#' {
            return Err(Refusal::TargetMalformed);
        }
    }
    Ok(query)
}

/// Length of `http://` or `https://` at the start, in any case (RFC 3986 3.1).
fn scheme_length(text: &[u8]) -> Option<usize> {
    let starts = |scheme: &[u8]| {
        text.get(..scheme.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(scheme))
            .then_some(scheme.len())
    };
    starts(b"http://").or_else(|| starts(b"https://"))
}

/// Whether each `%` is followed by two hexadecimal digits.
fn escapes_are_whole(text: &[u8]) -> bool {
    let mut rest = text;
    while let Some(mark) = rest.iter().position(|&byte| byte == b'%') {
        rest = &rest[mark + 1..];
        if rest.len() < 2 || !rest[..2].iter().all(u8::is_ascii_hexdigit) {
            return false;
        }
    }
    true
}

/// Bytes of a registered name (RFC 3986 3.2.2): unreserved, sub-delimiters, and `%` of an escape.
static HOST: [bool; 256] = host_table();

const fn host_table() -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = matches!(byte as u8, b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'-' | b'.' | b'_' | b'~'
            | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' | b'%');
        byte += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Path, query and authority as text.
    fn texts(text: &'static str, method: Method) -> Result<[Option<&'static str>; 3], Refusal> {
        // A base other than 0 shows that all offsets count from the start of the input.
        let target = split(text.as_bytes(), 4, method)?;
        let of = |span: Span| &text[span.start as usize - 4..span.end as usize - 4];
        Ok([Some(of(target.path)), target.query.map(of), target.authority.map(of)])
    }

    #[test]
    fn origin_form() {
        assert_eq!(texts("/", Method::Get), Ok([Some("/"), None, None]));
        assert_eq!(texts("/a/%20b", Method::Get), Ok([Some("/a/%20b"), None, None]));
        assert_eq!(texts("/a?b=c?d", Method::Post), Ok([Some("/a"), Some("b=c?d"), None]));
        assert_eq!(texts("/?", Method::Get), Ok([Some("/"), Some(""), None]));
        assert_eq!(texts("//x/y", Method::Get), Ok([Some("//x/y"), None, None]));
        assert_eq!(texts("/x", Method::Options), Ok([Some("/x"), None, None]));
    }

    #[test]
    fn absolute_form() {
        let get = |text| texts(text, Method::Get);
        assert_eq!(get("http://h/a?b"), Ok([Some("/a"), Some("b"), Some("h")]));
        assert_eq!(get("HTTPS://h:443/"), Ok([Some("/"), None, Some("h:443")]));
        assert_eq!(get("http://[::1]:80/x"), Ok([Some("/x"), None, Some("[::1]:80")]));
        assert_eq!(get("http://h/http://i"), Ok([Some("/http://i"), None, Some("h")]));
    }

    #[test]
    fn an_absolute_target_without_a_path_has_the_root_path() {
        assert_eq!(texts("http://h", Method::Get), Ok([Some("/"), None, Some("h")]));
        assert_eq!(texts("https://h:1?q/r", Method::Get), Ok([Some("/"), Some("q/r"), Some("h:1")]));
    }

    #[test]
    fn an_absolute_target_needs_a_valid_host_without_user() {
        for text in [
            "http://",
            "http:///a",
            "http://?q",
            "http://u@h/",
            "http://u:p@h/",
            "http://h:x/",
            "http://h:1:2/",
        ] {
            assert_eq!(texts(text, Method::Get), Err(Refusal::HostMalformed), "{text}");
        }
    }

    #[test]
    fn asterisk_form_is_for_options_alone() {
        assert_eq!(texts("*", Method::Options), Ok([Some("*"), None, None]));
        for (text, method) in
            [("*", Method::Get), ("*", Method::Other), ("*?a", Method::Options), ("**", Method::Options)]
        {
            assert_eq!(texts(text, method), Err(Refusal::TargetMalformed), "{text}");
        }
    }

    #[test]
    fn authority_form_is_for_connect_alone() {
        assert_eq!(texts("h:443", Method::Connect), Ok([Some(""), None, Some("h:443")]));
        for text in ["h", "h:", "h:0x1", "h:65536", ":443", "/", "http://h:443", "u@h:1", "*"] {
            assert_eq!(texts(text, Method::Connect), Err(Refusal::TargetMalformed), "{text}");
        }
        assert_eq!(texts("h:443", Method::Get), Err(Refusal::TargetMalformed));
    }

    #[test]
    fn other_forms_and_bytes_are_refused() {
        for text in [
            "a", "ftp://h/", "http:/h/", "http:h", "/a#b", "/?a#", "/\u{e4}", "/\u{7f}", "/\t", "/ a", "?a",
            "\\",
        ] {
            assert_eq!(texts(text, Method::Get), Err(Refusal::TargetMalformed), "{text}");
        }
    }

    #[test]
    fn hosts_that_are_valid() {
        assert_eq!(authority(b"localhost"), Some(Port::Absent));
        assert_eq!(authority(b"www.example.com:8080"), Some(Port::Number(8080)));
        assert_eq!(authority(b"127.0.0.1:"), Some(Port::Empty));
        assert_eq!(authority(b"[2001:db8::1]:443"), Some(Port::Number(443)));
        assert_eq!(authority(b"[::ffff:127.0.0.1]"), Some(Port::Absent));
        assert_eq!(authority(b"a_b~c!$&'()*+,;=%2f"), Some(Port::Absent));
        assert_eq!(authority(b"h:65535"), Some(Port::Number(65535)));
        assert_eq!(authority(b"h:00080"), Some(Port::Number(80)));
    }

    #[test]
    fn hosts_that_are_not() {
        let wrong = [
            &b""[..],
            b":80",
            b"h:65536",
            b"h:000080",
            b"h:+1",
            b"h:-1",
            b"h: 1",
            b"h:1a",
            b"h:1:2",
            b"a b",
            b"a/b",
            b"u@h",
            b"a\\b",
            b"a\"b",
            b"<h>",
            b"h#",
            b"h?",
            b"[::1",
            b"::1",
            b"[]",
            b"[::1]x",
            b"[::1]80",
            b"[fe80::1%25eth0]",
            b"[v1.a]",
            b"[1.2.3.4]",
            b"h%",
            b"h%2",
            b"h%zz",
            b"h\0",
            b"h\xc3\xa4",
            b"[\xff]",
            b"h,h:1,h",
        ];
        for text in wrong {
            assert_eq!(authority(text), None, "{}", String::from_utf8_lossy(text));
        }
    }
}
