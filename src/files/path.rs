//! The path of a request target, decoded once into a name below a root folder.
//!
//! This is text only: it touches no file system and is not what keeps a file inside its root (`openat2` does that). What
//! it returns is never absolute, holds no NUL, no empty segment, no `.` and no `..`.

use crate::{http::syntax::hex_value, sys::open::PATH_BYTES_MAX};

/// Room for one decoded path. A shard has one and uses it again for each request; about 4 KB.
#[derive(Debug)]
pub struct PathBuffer {
    /// A slash, then the path.
    bytes: Box<[u8]>,
    /// Bytes of the path.
    length: usize,
}

/// What to do with names that begin with a dot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dotfiles {
    /// They do not exist, but for `/.well-known/` (RFC 8615).
    Hidden,
    /// They are names like others.
    Served,
}

/// Why a path names no file. The scope is one request; the connection goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathError {
    /// It does not begin with `/`.
    NotAbsolute,
    /// A `%` without two hexadecimal digits after it (RFC 3986 section 2.1).
    BadEscape,
    /// An encoded `/`: two readers of the path could disagree about its segments.
    EncodedSlash,
    /// A NUL, encoded or not.
    Nul,
    /// `..` leads above the root.
    AboveRoot,
    /// A segment begins with a dot, and those are hidden.
    Hidden,
    /// Longer than any path that the kernel opens: more than 4095 bytes decoded.
    TooLong,
}

impl PathBuffer {
    /// An empty buffer, allocated once.
    pub fn new() -> Self {
        let mut bytes = vec![0; 1 + PATH_BYTES_MAX].into_boxed_slice();
        bytes[0] = b'/';
        PathBuffer { bytes, length: 0 }
    }

    /// The path as far as it was written, without the slash before it.
    fn path(&self) -> &[u8] {
        &self.bytes[1..=self.length]
    }

    fn push(&mut self, byte: u8) -> Result<(), PathError> {
        let place = self.bytes.get_mut(1 + self.length).ok_or(PathError::TooLong)?;
        *place = byte;
        self.length += 1;
        Ok(())
    }

    /// Ends the segment that began at `start`, resolving it when it is empty, `.` or `..`. Returns whether a name was
    /// kept: only then does a slash belong behind it.
    fn end_segment(&mut self, start: usize) -> Result<bool, PathError> {
        match &self.path()[start..] {
            b"" => Ok(false),
            b"." => {
                self.length = start;
                Ok(false)
            }
            b".." => {
                // What precedes is empty or ends in a slash: the segment to remove lies before that slash.
                let before = start.checked_sub(1).ok_or(PathError::AboveRoot)?;
                self.length =
                    self.path()[..before].iter().rposition(|&byte| byte == b'/').map_or(0, |at| at + 1);
                Ok(false)
            }
            _ => Ok(true),
        }
    }
}

impl Default for PathBuffer {
    fn default() -> Self {
        PathBuffer::new()
    }
}

impl PathError {
    /// The status to answer with: 404 for what cannot exist, 400 for what is malformed.
    pub fn status(self) -> u16 {
        match self {
            PathError::Hidden | PathError::TooLong => 404,
            PathError::NotAbsolute
            | PathError::BadEscape
            | PathError::EncodedSlash
            | PathError::Nul
            | PathError::AboveRoot => 400,
        }
    }
}

/// Decodes the path of a request target (without query) into a path relative to a root: no leading slash, a trailing
/// one kept, empty for the root itself, at most 4095 bytes.
///
/// Escapes are decoded exactly once, then repeated slashes are merged and dot segments removed (RFC 3986 section
/// 5.2.4), so `%2e%2e` is `..` and `%252e` is a name. Bytes are bytes: UTF-8 is not asked for and `\` is a letter.
/// A path that needs none of this is returned as a part of `raw`: one pass, no copy; else it lies in `buffer`.
///
/// # Errors
/// See [`PathError`] and [`PathError::status`].
pub fn decode<'a>(
    raw: &'a [u8],
    dotfiles: Dotfiles,
    buffer: &'a mut PathBuffer,
) -> Result<&'a [u8], PathError> {
    decode_absolute(raw, dotfiles, buffer).map(|path| &path[1..])
}

/// Like [`decode`], with the leading slash: `/` for the root itself.
pub fn decode_absolute<'a>(
    raw: &'a [u8],
    dotfiles: Dotfiles,
    buffer: &'a mut PathBuffer,
) -> Result<&'a [u8], PathError> {
    let Some((&b'/', relative)) = raw.split_first() else { return Err(PathError::NotAbsolute) };
    if is_plain(raw) {
        return if relative.len() > PATH_BYTES_MAX { Err(PathError::TooLong) } else { Ok(raw) };
    }
    resolve(relative, buffer)?;
    if dotfiles == Dotfiles::Hidden && has_hidden_segment(buffer.path()) {
        return Err(PathError::Hidden);
    }
    Ok(&buffer.bytes[..=buffer.length])
}

/// Whether the path means itself: no escape, no empty segment, no segment that begins with a dot, no NUL.
fn is_plain(raw: &[u8]) -> bool {
    let mut after_slash = false;
    for &byte in raw {
        match byte {
            b'%' | 0 => return false,
            b'/' | b'.' if after_slash => return false,
            _ => after_slash = byte == b'/',
        }
    }
    true
}

/// Decodes and resolves segment by segment into `buffer`, which then holds the result.
fn resolve(relative: &[u8], buffer: &mut PathBuffer) -> Result<(), PathError> {
    buffer.length = 0;
    let mut start = 0;
    let mut rest = relative;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'/' => {
                if buffer.end_segment(start)? {
                    buffer.push(b'/')?;
                }
                start = buffer.length;
            }
            b'%' => {
                let (decoded, after) = unescape(rest)?;
                rest = after;
                buffer.push(decoded)?;
            }
            0 => return Err(PathError::Nul),
            _ => buffer.push(byte)?,
        }
    }
    buffer.end_segment(start)?;
    Ok(())
}

/// The byte that the two digits after a `%` stand for, and what follows them.
fn unescape(digits: &[u8]) -> Result<(u8, &[u8]), PathError> {
    let [high, low, rest @ ..] = digits else { return Err(PathError::BadEscape) };
    match (hex_value(*high), hex_value(*low)) {
        (Some(0), Some(0)) => Err(PathError::Nul),
        (Some(2), Some(15)) => Err(PathError::EncodedSlash),
        (Some(high), Some(low)) => Ok((high << 4 | low, rest)),
        _ => Err(PathError::BadEscape),
    }
}

/// Whether a segment of a resolved path begins with a dot, `.well-known` in the first place aside.
pub fn has_hidden_segment(path: &[u8]) -> bool {
    path.split(|&byte| byte == b'/')
        .enumerate()
        .any(|(index, segment)| segment.starts_with(b".") && !(index == 0 && segment == b".well-known"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(raw: &[u8], dotfiles: Dotfiles) -> Result<Vec<u8>, PathError> {
        decode(raw, dotfiles, &mut PathBuffer::new()).map(<[u8]>::to_vec)
    }

    #[test]
    fn decodes_each_path_to_the_name_below_the_root() {
        let table: &[(&[u8], &[u8])] = &[
            (b"/", b""),
            (b"/a", b"a"),
            (b"/a/", b"a/"),
            (b"/a/b.html", b"a/b.html"),
            (b"/a%20b", b"a b"),
            (b"/%61", b"a"),
            (b"/a..b/..", b""),
            (b"/a/..b", b"a/..b"),
            (b"/a/../b", b"b"),
            (b"/a/b/../c/", b"a/c/"),
            (b"/a/b/..", b"a/"),
            (b"/a/b/.", b"a/b/"),
            (b"/a/./b", b"a/b"),
            (b"/./", b""),
            (b"/.", b""),
            (b"/a/..", b""),
            (b"/a/%2e%2e/b", b"b"),
            (b"/a/.%2e/b", b"b"),
            (b"/a/%2E./b", b"b"),
            (b"/a/%2e/b", b"a/b"),
            (b"/a%2e%2e/b", b"a../b"),
            (b"/%252e%252e/x", b"%2e%2e/x"),
            (b"/%252f", b"%2f"),
            (b"/%2500", b"%00"),
            (b"//etc/passwd", b"etc/passwd"),
            (b"///a////b//", b"a/b/"),
            (b"/a//../b", b"b"),
            (b"/a\\..\\b", b"a\\..\\b"),
            (b"/%5c..%5cb", b"\\..\\b"),
            (b"/%3f%23", b"?#"),
            (b"/\xff\xfe", b"\xff\xfe"),
            (b"/%ff%FE", b"\xff\xfe"),
            // Overlong UTF-8 for "/" and "." stays what it is: bytes of a name.
            (b"/%c0%af", b"\xc0\xaf"),
            (b"/%c0%ae%c0%ae/x", b"\xc0\xae\xc0\xae/x"),
            (b"/+", b"+"),
        ];
        for (raw, expected) in table {
            let text = String::from_utf8_lossy(raw);
            assert_eq!(decoded(raw, Dotfiles::Served).as_deref(), Ok(*expected), "{text}");
            if !expected.split(|&byte| byte == b'/').any(|segment| segment.starts_with(b".")) {
                assert_eq!(decoded(raw, Dotfiles::Hidden).as_deref(), Ok(*expected), "{text}");
            }
        }
    }

    #[test]
    fn refuses_each_malformed_path_with_its_status() {
        let table: &[(&[u8], PathError, u16)] = &[
            (b"", PathError::NotAbsolute, 400),
            (b"*", PathError::NotAbsolute, 400),
            (b"a/b", PathError::NotAbsolute, 400),
            (b"%2fa", PathError::NotAbsolute, 400),
            (b"/..", PathError::AboveRoot, 400),
            (b"/../", PathError::AboveRoot, 400),
            (b"/../etc/passwd", PathError::AboveRoot, 400),
            (b"/%2e%2e/etc/passwd", PathError::AboveRoot, 400),
            (b"/.%2e/x", PathError::AboveRoot, 400),
            (b"/a/../../b", PathError::AboveRoot, 400),
            (b"/a/..//../b", PathError::AboveRoot, 400),
            (b"//..", PathError::AboveRoot, 400),
            (b"/./..", PathError::AboveRoot, 400),
            (b"/%2e%2e%2f", PathError::EncodedSlash, 400),
            (b"/%2fetc/passwd", PathError::EncodedSlash, 400),
            (b"/a%2Fb", PathError::EncodedSlash, 400),
            (b"/a%00", PathError::Nul, 400),
            (b"/a\0b", PathError::Nul, 400),
            (b"/%", PathError::BadEscape, 400),
            (b"/%4", PathError::BadEscape, 400),
            (b"/%zz", PathError::BadEscape, 400),
            (b"/%4g", PathError::BadEscape, 400),
            (b"/%+1", PathError::BadEscape, 400),
            (b"/%u0041", PathError::BadEscape, 400),
            (b"/%%34%31", PathError::BadEscape, 400),
        ];
        for (raw, error, status) in table {
            let text = String::from_utf8_lossy(raw);
            assert_eq!(decoded(raw, Dotfiles::Served), Err(*error), "{text}");
            assert_eq!(error.status(), *status);
        }
    }

    #[test]
    fn hides_dotfiles_unless_the_route_serves_them() {
        let hidden: &[&[u8]] = &[
            b"/.git/config",
            b"/.htpasswd",
            b"/a/.env",
            b"/a/%2eenv",
            b"/...",
            b"/..a",
            b"/.well-known/.secret",
            b"/a/.well-known/x",
            b"/.well-known-not/x",
        ];
        for raw in hidden {
            let text = String::from_utf8_lossy(raw);
            assert_eq!(decoded(raw, Dotfiles::Hidden), Err(PathError::Hidden), "{text}");
            assert!(decoded(raw, Dotfiles::Served).is_ok(), "{text}");
        }
        assert_eq!(PathError::Hidden.status(), 404);
    }

    #[test]
    fn well_known_is_always_served() {
        for raw in [&b"/.well-known/acme-challenge/x"[..], b"/%2ewell-known/acme-challenge/x"] {
            assert_eq!(decoded(raw, Dotfiles::Hidden).unwrap(), b".well-known/acme-challenge/x");
        }
        assert_eq!(decoded(b"/.well-known", Dotfiles::Hidden).unwrap(), b".well-known");
    }

    #[test]
    fn takes_the_longest_path_that_the_kernel_takes_and_no_longer() {
        for prefix in ["/", "/%61"] {
            let fill = PATH_BYTES_MAX - usize::from(prefix.len() > 1);
            let raw = format!("{prefix}{}", "a".repeat(fill));
            assert_eq!(decoded(raw.as_bytes(), Dotfiles::Hidden).unwrap().len(), PATH_BYTES_MAX);
            let raw = format!("{raw}a");
            assert_eq!(decoded(raw.as_bytes(), Dotfiles::Hidden), Err(PathError::TooLong));
        }
        assert_eq!(PathError::TooLong.status(), 404);
    }

    #[test]
    fn a_plain_path_is_not_copied() {
        let raw = b"/a/b.c/d";
        let mut buffer = PathBuffer::new();
        let path = decode(raw, Dotfiles::Hidden, &mut buffer).unwrap();
        assert_eq!(path.as_ptr(), raw[1..].as_ptr());
    }

    #[test]
    fn a_used_buffer_leaves_nothing_in_the_next_path() {
        let mut buffer = PathBuffer::new();
        assert_eq!(decode(b"/long%20name/x", Dotfiles::Hidden, &mut buffer).unwrap(), b"long name/x");
        assert_eq!(decode(b"/%62", Dotfiles::Hidden, &mut buffer).unwrap(), b"b");
    }

    /// Every path of up to six pieces of trouble gives a clean relative path or an error, and decoding never differs
    /// from the plain way of splitting, decoding and folding.
    #[test]
    fn no_combination_of_pieces_escapes() {
        let pieces: [&[u8]; 9] = [b"/", b".", b"..", b"%2e", b"%2E%2e", b"a", b"%25", b"\\", b"%2"];
        let mut buffer = PathBuffer::new();
        let mut raw = Vec::new();
        for number in 0..9usize.pow(6) {
            raw.clear();
            raw.push(b'/');
            let mut rest = number;
            while rest > 0 {
                raw.extend_from_slice(pieces[rest % 9]);
                rest /= 9;
            }
            let expected = reference(&raw);
            let actual = decode(&raw, Dotfiles::Served, &mut buffer);
            assert_eq!(actual.ok(), expected.as_deref(), "{}", String::from_utf8_lossy(&raw));
        }
    }

    fn reference(raw: &[u8]) -> Option<Vec<u8>> {
        let mut segments: Vec<Vec<u8>> = Vec::new();
        let mut ends_in_folder = true;
        for segment in raw[1..].split(|&byte| byte == b'/') {
            let text = String::from_utf8(segment.to_vec()).unwrap();
            let mut name = Vec::new();
            let mut parts = text.split('%');
            name.extend_from_slice(parts.next().unwrap().as_bytes());
            for part in parts {
                name.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
                name.extend_from_slice(&part.as_bytes()[2..]);
            }
            ends_in_folder = matches!(&name[..], b"" | b"." | b"..");
            match &name[..] {
                b"" | b"." => {}
                b".." => drop(segments.pop()?),
                _ => segments.push(name),
            }
        }
        let mut path = segments.join(&b'/');
        if ends_in_folder && !path.is_empty() {
            path.push(b'/');
        }
        Some(path)
    }
}
