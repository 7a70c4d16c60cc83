//! The one spelling that each path has (RFC 3986 6.2.2): for redirects from the others.
//!
//! An escape that is needed, or that some client might write and another not, stays as it is: a redirect that a client
//! undoes would go on for ever.

use percent_encoding::percent_encode;

use super::redirect;
use crate::http::syntax::hex_value;

/// The path of a request target in its canonical spelling; `None` when it is written so already. `decoded` is the same
/// path as `files::decode` returns it: a path that is equal to it needs no second look.
///
/// Escapes of unreserved characters are decoded and the digits of the others are capital letters, repeated slashes are
/// one, dot segments are resolved. The result begins with exactly one slash and has no backslash, so that it is never
/// taken for the name of a host.
pub(super) fn spelling(raw: &[u8], decoded: &[u8]) -> Option<Vec<u8>> {
    let relative = raw.strip_prefix(b"/")?;
    if relative == decoded {
        return None;
    }
    let mut path: Vec<u8> = Vec::with_capacity(raw.len());
    let mut is_folder = true;
    for segment in relative.split(|&byte| byte == b'/') {
        let start = path.len();
        path.push(b'/');
        push_segment(&mut path, segment);
        is_folder = matches!(&path[start + 1..], b"" | b"." | b"..");
        if &path[start + 1..] == b".." {
            path.truncate(start);
            let parent = path.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
            path.truncate(parent);
        } else if is_folder {
            path.truncate(start);
        }
    }
    if is_folder {
        path.push(b'/');
    }
    (path != raw).then_some(path)
}

/// One segment with its escapes in order.
fn push_segment(path: &mut Vec<u8>, segment: &[u8]) {
    let mut rest = segment;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match (byte, after) {
            (b'%', [high, low, behind @ ..]) => {
                rest = behind;
                match (hex_value(*high), hex_value(*low)) {
                    (Some(high), Some(low)) if is_unreserved(high << 4 | low) => path.push(high << 4 | low),
                    _ => path.extend([b'%', high.to_ascii_uppercase(), low.to_ascii_uppercase()]),
                }
            }
            _ => path.extend(percent_encode(&[byte], redirect::PATH).flat_map(str::bytes)),
        }
    }
}

/// RFC 3986 2.3: a URI with such a character and one with its escape are the same.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::{Dotfiles, PathBuffer, decode};

    fn spelled(raw: &str) -> Option<String> {
        let mut buffer = PathBuffer::new();
        let decoded = decode(raw.as_bytes(), Dotfiles::Served, &mut buffer).unwrap();
        spelling(raw.as_bytes(), decoded).map(|path| String::from_utf8(path).unwrap())
    }

    #[test]
    fn each_path_has_one_spelling() {
        let table = [
            ("//", "/"),
            ("/.", "/"),
            ("/a/..", "/"),
            ("/a/../", "/"),
            ("/./a", "/a"),
            ("/a/./b/../c", "/a/c"),
            ("/a/b/..", "/a/"),
            ("/a/.", "/a/"),
            ("/a//b///c//", "/a/b/c/"),
            ("/%61", "/a"),
            ("/%7Euser", "/~user"),
            ("/a%2db%2E%5f", "/a-b._"),
            ("/a/%2e%2E/", "/"),
            ("/a/%2e%2e/b", "/b"),
            ("/a%c3%bc", "/a%C3%BC"),
            ("/a%20b/%63", "/a%20b/c"),
            ("//evil.example/x", "/evil.example/x"),
            ("///evil.example", "/evil.example"),
            ("/\\evil.example//x", "/%5Cevil.example/x"),
            ("/.//evil", "/evil"),
            ("/x/..//evil", "/evil"),
            ("/%2e/%2e//evil", "/evil"),
        ];
        for (raw, expected) in table {
            assert_eq!(spelled(raw).as_deref(), Some(expected), "{raw}");
            assert_eq!(spelled(expected), None, "{expected} is canonical");
        }
    }

    #[test]
    fn what_clients_spell_differently_stays() {
        for raw in [
            "/",
            "/a",
            "/a/",
            "/a%20b",
            "/a'b",
            "/a%27b",
            "/a(b)%28c",
            "/a%3Fb%23",
            "/%5B%5D",
            "/a.b-c_~",
            "/..a",
            "/a%25b",
            "/|",
        ] {
            assert_eq!(spelled(raw), None, "{raw}");
        }
    }
}
