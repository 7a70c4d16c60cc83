//! A file that is open: its descriptor, what is known about it, and the header fields that say so, written once.
//!
//! It never changes after it was made (the cache may take its content away while nobody else holds it), so responses
//! share it. The descriptor closes when the last holder lets go. It reads nothing: `open` makes it.

use std::{
    io::Write as _,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use bytes::Bytes;

use crate::{config::Coding, http::date, memory::Charge, sys::open::FileStat};

const ETAG_NAME: &[u8] = b"ETag: ";
const CONTENT_TYPE_NAME: &str = "Content-Type: ";
const NANOS_PER_SECOND: i128 = 1_000_000_000;

/// Bytes, and what they count for.
struct HeldBytes {
    bytes: Bytes,
    _held: Charge,
}

impl AsRef<[u8]> for HeldBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// What of content negotiation (RFC 9110 12) is true of a file, and said in its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Negotiated {
    /// Nothing: there is no other representation.
    No,
    /// It is sent as it is, where another request may get a coding of it.
    Identity,
    /// It is this coding of another file, whose media type it has.
    Coded(Coding),
}

/// An open regular file, ready to be sent. Held as `Rc<OpenFile>` by the cache and by each response that uses it.
#[derive(Debug)]
pub struct OpenFile {
    /// `ETag`, `Last-Modified`, `Vary` | `Content-Type`, `Content-Encoding`, `Accept-Ranges` | `Content-Length`, each
    /// line with its CRLF.
    head: Box<[u8]>,
    /// Where the first bar of `head` is.
    validators_end: u16,
    /// Where the second bar of `head` is.
    length_start: u16,
    /// Length of the entity tag, which follows `ETAG_NAME`.
    etag_bytes: u16,
    is_coded: bool,
    fd: OwnedFd,
    modified_unix_seconds: u64,
    content: Option<Bytes>,
    stat: FileStat,
    /// What of the budget it is, once it is known to somebody.
    held: Option<Charge>,
}

impl OpenFile {
    /// Describes the open file `fd`. `content`, when given, is the whole file as read between two equal `stat`s.
    /// `media_type` is a checked field value of at most 1024 bytes.
    pub(super) fn new(
        fd: OwnedFd,
        stat: FileStat,
        media_type: &str,
        negotiated: Negotiated,
        content: Option<Bytes>,
        now_unix_seconds: u64,
    ) -> Self {
        debug_assert!(media_type.len() <= super::open::MEDIA_TYPE_BYTES_MAX);
        // RFC 9110 section 8.8.2.1: an origin server MUST NOT send a Last-Modified later than the message's origination.
        let modified_unix_seconds = unix_seconds(stat.mtime_ns).min(now_unix_seconds);
        let mut head = Vec::with_capacity(192 + media_type.len());
        head.extend_from_slice(ETAG_NAME);
        // The memory profile's form: inode, size and modification time in nanoseconds, in hexadecimal.
        put(&mut head, format_args!("\"{:x}-{:x}-{:x}\"", stat.ino, stat.size, stat.mtime_ns));
        let etag_end = head.len();
        head.extend_from_slice(b"\r\nLast-Modified: ");
        head.extend_from_slice(&date::format(modified_unix_seconds));
        head.extend_from_slice(b"\r\n");
        if negotiated != Negotiated::No {
            head.extend_from_slice(b"Vary: Accept-Encoding\r\n");
        }
        let validators_end = head.len();
        put(&mut head, format_args!("{CONTENT_TYPE_NAME}{media_type}\r\n"));
        if let Negotiated::Coded(coding) = negotiated {
            put(&mut head, format_args!("Content-Encoding: {}\r\n", coding.name()));
        }
        head.extend_from_slice(b"Accept-Ranges: bytes\r\n");
        let length_start = head.len();
        put(&mut head, format_args!("Content-Length: {}\r\n", stat.size));
        OpenFile {
            validators_end: position(validators_end),
            length_start: position(length_start),
            is_coded: matches!(negotiated, Negotiated::Coded(_)),
            etag_bytes: position(etag_end - ETAG_NAME.len()),
            head: head.into_boxed_slice(),
            fd,
            modified_unix_seconds,
            content,
            stat,
            held: None,
        }
    }

    /// The fields of a 200: validators, type, `Accept-Ranges` and `Content-Length`, each line with its CRLF.
    pub fn head_full(&self) -> &[u8] {
        &self.head
    }

    /// The fields of a 206, which has its own `Content-Length`.
    pub fn head_without_length(&self) -> &[u8] {
        &self.head[..usize::from(self.length_start)]
    }

    /// The fields of a 304 (RFC 9110 section 15.4.5): `ETag`, `Last-Modified` and, if it is negotiated, `Vary`.
    pub fn validators(&self) -> &[u8] {
        &self.head[..usize::from(self.validators_end)]
    }

    /// The value of `Content-Type`.
    pub fn media_type(&self) -> &[u8] {
        let lines = &self.head[usize::from(self.validators_end)..];
        let end = lines.iter().position(|&byte| byte == b'\r').unwrap_or(lines.len());
        lines.get(CONTENT_TYPE_NAME.len()..end).unwrap_or_default()
    }

    /// Whether it has a `Content-Encoding`.
    pub fn is_coded(&self) -> bool {
        self.is_coded
    }

    /// The strong entity tag with its quotes: `"inode-size-mtime"`.
    pub fn etag(&self) -> &[u8] {
        &self.head[ETAG_NAME.len()..][..usize::from(self.etag_bytes)]
    }

    /// What `Last-Modified` says, in seconds since 1970; never later than the moment the file was opened.
    pub fn modified_unix_seconds(&self) -> u64 {
        self.modified_unix_seconds
    }

    /// Length of the file in bytes when it was opened.
    pub fn size(&self) -> u64 {
        self.stat.size
    }

    /// What `fstat` said when it was opened.
    pub fn stat(&self) -> &FileStat {
        &self.stat
    }

    /// The descriptor, open for reading for as long as this file is held.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The whole file, if it is small and hot. Cloning it allocates nothing.
    pub fn content(&self) -> Option<&Bytes> {
        self.content.as_ref()
    }

    /// Bytes that it takes, without its content.
    pub(super) fn held_bytes(&self) -> usize {
        size_of::<OpenFile>() + self.head.len()
    }

    /// It counts for this from now on.
    pub(super) fn hold(&mut self, held: Charge) {
        self.held = Some(held);
    }

    /// The content counts for `held` from now on, until the last who has it lets go.
    pub(super) fn hold_content(&mut self, held: Charge) {
        if let Some(bytes) = self.content.take() {
            self.content = Some(Bytes::from_owner(HeldBytes { bytes, _held: held }));
        }
    }

    /// Forgets the content; the file is then sent from its descriptor. Returns the bytes let go.
    pub(super) fn drop_content(&mut self) -> usize {
        self.content.take().map_or(0, |content| content.len())
    }
}

/// Whole seconds since 1970; 0 for what is earlier.
pub(super) fn unix_seconds(time_ns: i128) -> u64 {
    u64::try_from(time_ns.div_euclid(NANOS_PER_SECOND)).unwrap_or(0)
}

fn put(head: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    head.write_fmt(text).expect("a Vec takes all that is written");
}

fn position(at: usize) -> u16 {
    u16::try_from(at)
        .expect("the fields are shorter than 64 KB: the media type is, and the rest has a fixed width")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::open::FileKind;
    use std::fs::File;

    fn file(stat: FileStat, now_unix_seconds: u64) -> OpenFile {
        negotiated(stat, Negotiated::No, now_unix_seconds)
    }

    fn negotiated(stat: FileStat, negotiated: Negotiated, now_unix_seconds: u64) -> OpenFile {
        let fd = File::open("/dev/null").unwrap().into();
        OpenFile::new(fd, stat, "text/plain", negotiated, None, now_unix_seconds)
    }

    const STAT: FileStat = FileStat {
        dev: 1,
        ino: 0x12ab,
        size: 300,
        mtime_ns: 784_111_777 * NANOS_PER_SECOND + 5,
        kind: FileKind::Regular,
        mode: 0o644,
    };

    #[test]
    fn renders_each_block_of_fields() {
        let file = file(STAT, 1_000_000_000);
        let validators =
            "ETag: \"12ab-12c-ae1b981bc490a05\"\r\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
        let middle = "Content-Type: text/plain\r\nAccept-Ranges: bytes\r\n";
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        assert_eq!(text(file.validators()), validators);
        assert_eq!(text(file.head_without_length()), format!("{validators}{middle}"));
        assert_eq!(text(file.head_full()), format!("{validators}{middle}Content-Length: 300\r\n"));
        assert_eq!(text(file.media_type()), "text/plain");
        assert_eq!(text(file.etag()), "\"12ab-12c-ae1b981bc490a05\"");
        assert_eq!(file.modified_unix_seconds(), 784_111_777);
    }

    #[test]
    fn says_what_was_negotiated() {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let plain = file(STAT, 1_000_000_000);
        let validators = text(plain.validators()) + "Vary: Accept-Encoding\r\n";
        for (what, coding) in
            [(Negotiated::Identity, ""), (Negotiated::Coded(Coding::Zstd), "Content-Encoding: zstd\r\n")]
        {
            let file = negotiated(STAT, what, 1_000_000_000);
            let middle = format!("Content-Type: text/plain\r\n{coding}Accept-Ranges: bytes\r\n");
            assert_eq!(text(file.validators()), validators);
            assert_eq!(text(file.head_without_length()), format!("{validators}{middle}"));
            assert_eq!(text(file.head_full()), format!("{validators}{middle}Content-Length: 300\r\n"));
            assert_eq!((file.media_type(), file.is_coded()), (&b"text/plain"[..], !coding.is_empty()));
        }
        assert!(!plain.is_coded());
    }

    #[test]
    fn never_says_that_a_file_was_modified_in_the_future() {
        assert_eq!(file(STAT, 784_111_777).modified_unix_seconds(), 784_111_777);
        assert_eq!(file(STAT, 784_111_776).modified_unix_seconds(), 784_111_776);
    }

    #[test]
    fn survives_times_and_sizes_at_their_limits() {
        let early = file(FileStat { mtime_ns: -1, ..STAT }, 9);
        assert_eq!(early.modified_unix_seconds(), 0);
        assert_eq!(early.etag().iter().filter(|&&byte| byte == b'"').count(), 2);
        let last = FileStat {
            ino: u64::MAX,
            size: u64::MAX,
            mtime_ns: i128::from(i64::MAX) * NANOS_PER_SECOND + 999_999_999,
            ..STAT
        };
        let late = file(last, 1);
        assert!(late.etag().starts_with(b"\"ffffffffffffffff-ffffffffffffffff-"));
        assert!(late.head_full().ends_with(b"Content-Length: 18446744073709551615\r\n"));
    }
}
