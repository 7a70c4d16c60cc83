//! Paths of request targets: `files::decode`. The input is the path, percent-encoded as received.
//!
//! What is accepted is a relative path without a way out, and the same that a plain split into segments finds.

use webserver::files::{Dotfiles, PathBuffer, PathError, decode};

/// Longest path that the kernel opens, PATH_MAX less its NUL.
const PATH_BYTES_MAX: usize = 4095;

/// Checks one input; whether it names something with dotfiles served.
pub fn check(input: &[u8]) -> bool {
    let mut buffer = PathBuffer::new();
    // A buffer that was used before leaves nothing behind.
    let _ = decode(b"/previous/%2e%2e/path%20/", Dotfiles::Served, &mut buffer);
    let served = decode(input, Dotfiles::Served, &mut buffer).map(<[u8]>::to_vec);
    let hidden = decode(input, Dotfiles::Hidden, &mut buffer).map(<[u8]>::to_vec);
    match &served {
        Ok(path) => {
            check_path(path);
            let expected = if is_hidden(path) { Err(PathError::Hidden) } else { Ok(path.clone()) };
            assert_eq!(hidden, expected);
            for escape in [escape_needed, escape_all] {
                check_again(path, escape, &mut buffer);
            }
        }
        Err(error) => {
            assert_eq!(hidden, Err(*error));
            assert!(matches!(error.status(), 400 | 404));
        }
    }
    // Where the plain way finds a path, length is the only reason to refuse it; where it finds none, all agree.
    match (plain(input), &served) {
        (Some(path), Ok(decoded)) => assert_eq!(path, *decoded),
        (Some(_), Err(error)) => assert_eq!(*error, PathError::TooLong),
        (None, decoded) => assert!(decoded.is_err(), "{decoded:?}"),
    }
    served.is_ok()
}

fn check_path(path: &[u8]) {
    assert!(path.len() <= PATH_BYTES_MAX && !path.contains(&0));
    if path.is_empty() {
        return;
    }
    let segments = path.strip_suffix(b"/").unwrap_or(path);
    for segment in segments.split(|&byte| byte == b'/') {
        assert!(!matches!(segment, b"" | b"." | b".."), "{}", path.escape_ascii());
    }
}

/// A decoded path that is encoded again decodes to itself: escapes are decoded once.
fn check_again(path: &[u8], escape: fn(u8) -> bool, buffer: &mut PathBuffer) {
    let mut raw = vec![b'/'];
    for &byte in path {
        if byte != b'/' && escape(byte) {
            raw.extend_from_slice(format!("%{byte:02x}").as_bytes());
        } else {
            raw.push(byte);
        }
    }
    assert_eq!(decode(&raw, Dotfiles::Served, buffer), Ok(path), "{}", raw.escape_ascii());
}

fn escape_needed(byte: u8) -> bool {
    byte == b'%'
}

fn escape_all(_: u8) -> bool {
    true
}

/// RFC 3986 5.2.4 over decoded segments; what lies between slashes stays a segment whatever it decodes to.
fn plain(raw: &[u8]) -> Option<Vec<u8>> {
    let mut names: Vec<Vec<u8>> = Vec::new();
    let mut folder = true;
    for segment in raw.strip_prefix(b"/")?.split(|&byte| byte == b'/') {
        let name = unescape(segment)?;
        folder = matches!(&name[..], b"" | b"." | b"..");
        match &name[..] {
            b"" | b"." => {}
            b".." => drop(names.pop()?),
            _ => names.push(name),
        }
    }
    if folder && !names.is_empty() {
        names.push(Vec::new());
    }
    Some(names.join(&b'/'))
}

/// A segment decoded; `None` for a broken escape, and for NUL and `/`, which no name has.
fn unescape(segment: &[u8]) -> Option<Vec<u8>> {
    let mut parts = segment.split(|&byte| byte == b'%');
    let mut name = parts.next().unwrap_or_default().to_vec();
    for part in parts {
        let (digits, text) = part.split_at_checked(2)?;
        let digits = std::str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'))?;
        name.push(u8::from_str_radix(digits, 16).ok()?);
        name.extend_from_slice(text);
    }
    (!name.contains(&0) && !name.contains(&b'/')).then_some(name)
}

/// Names that begin with a dot are hidden, but for the folder of RFC 8615 in the first place.
fn is_hidden(path: &[u8]) -> bool {
    let below = match path.strip_prefix(b".well-known") {
        Some(rest) if rest.is_empty() || rest[0] == b'/' => rest,
        _ => path,
    };
    below.first() == Some(&b'.') || below.windows(2).any(|pair| pair == b"/.")
}
