//! The text around the parts of a `multipart/byteranges` body (RFC 9110 14.6).
//!
//! It is rendered whole before the first byte is sent: a few kilobytes at most, and the body's length is then exact by
//! construction. The bytes of the parts themselves are not here; whoever sends them asks for one part after the other.

use std::io::Write as _;

use super::range::{ByteRange, RangeSet};

/// Length of a boundary: 64 bits in hexadecimal.
const BOUNDARY_BYTES: usize = 16;

/// A body in parts, from the first that was not taken yet.
#[derive(Debug)]
pub struct Multipart {
    /// The text before each part and behind the last, one after the other.
    text: Vec<u8>,
    /// Each part, and the end of the text before it.
    parts: Vec<(usize, ByteRange)>,
    /// Parts taken.
    taken: usize,
    /// Length of the whole body.
    length: u64,
}

/// What a part costs at most beside its content, in bytes, if the representation has `size` bytes and its media type
/// `media_type_bytes`.
pub fn part_overhead_bytes(media_type_bytes: usize, size: u64) -> u64 {
    const FIXED: &str = "\r\n--\r\nContent-Type: \r\nContent-Range: bytes -/\r\n\r\n";
    let digits = u64::from(size.checked_ilog10().unwrap_or(0)) + 1;
    (FIXED.len() + BOUNDARY_BYTES + media_type_bytes) as u64 + 3 * digits
}

impl Multipart {
    /// A part for each of `ranges` of a representation of `size` bytes. `boundary` must be a number that who made the
    /// content could not foresee: 64 random bits do not occur in it but by a chance of one in 2^64 at each place where
    /// a delimiter could begin.
    pub fn new(ranges: &RangeSet, size: u64, media_type: &[u8], boundary: u64) -> Self {
        let part_bytes = usize::try_from(part_overhead_bytes(media_type.len(), size)).unwrap_or(0);
        let ranges = ranges.as_slice();
        let mut text = Vec::with_capacity((ranges.len() + 1) * part_bytes);
        let mut parts = Vec::with_capacity(ranges.len());
        for &range in ranges {
            if !text.is_empty() {
                text.extend_from_slice(b"\r\n");
            }
            put(&mut text, format_args!("--{boundary:016x}\r\nContent-Type: "));
            text.extend_from_slice(media_type);
            let ByteRange { first, last } = range;
            // RFC 9110 15.3.7.2: each part MUST have a Content-Range.
            put(&mut text, format_args!("\r\nContent-Range: bytes {first}-{last}/{size}\r\n\r\n"));
            parts.push((text.len(), range));
        }
        put(&mut text, format_args!("\r\n--{boundary:016x}--\r\n"));
        let content: u64 = ranges.iter().map(|range| range.length()).sum();
        Multipart { length: text.len() as u64 + content, text, parts, taken: 0 }
    }

    /// The value of the response's `Content-Type`.
    pub fn content_type(&self) -> Vec<u8> {
        let boundary = self.text.get(2..2 + BOUNDARY_BYTES).unwrap_or_default();
        [b"multipart/byteranges; boundary=", boundary].concat()
    }

    /// Length of the whole body in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Bytes of memory that it takes, its own included.
    pub fn held_bytes(&self) -> usize {
        size_of::<Multipart>()
            + self.text.capacity()
            + self.parts.capacity() * size_of::<(usize, ByteRange)>()
    }

    /// What is sent next: some text, and behind it the bytes of a part. Without a part it was the end of the body, and
    /// there is no next.
    pub fn advance(&mut self) -> (&[u8], Option<ByteRange>) {
        let start = self.taken.checked_sub(1).map_or(0, |before| self.parts[before].0);
        match self.parts.get(self.taken) {
            Some(&(end, range)) => {
                self.taken += 1;
                (&self.text[start..end], Some(range))
            }
            None => (&self.text[start..], None),
        }
    }
}

fn put(text: &mut Vec<u8>, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("a Vec takes all that is written");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::range::{Selected, select};

    fn multipart(value: &str, size: u64) -> Multipart {
        match select(value.as_bytes(), size, part_overhead_bytes(10, size)) {
            Selected::Several(set) => Multipart::new(&set, size, b"text/plain", 0xab),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn text_and_parts_take_turns() {
        let mut body = multipart("bytes=0-9,5000-5019", 9000);
        assert_eq!(body.content_type(), b"multipart/byteranges; boundary=00000000000000ab");
        let heads = [
            "--00000000000000ab\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-9/9000\r\n\r\n",
            "\r\n--00000000000000ab\r\nContent-Type: text/plain\r\nContent-Range: bytes 5000-5019/9000\r\n\r\n",
        ];
        let end = "\r\n--00000000000000ab--\r\n";
        let length = body.length();
        let mut sent = 0;
        for (head, (first, last)) in heads.into_iter().zip([(0, 9), (5000, 5019)]) {
            let (text, range) = body.advance();
            assert_eq!((text, range), (head.as_bytes(), Some(ByteRange { first, last })));
            sent += text.len() as u64 + last - first + 1;
        }
        let (text, range) = body.advance();
        assert_eq!((text, range), (end.as_bytes(), None));
        assert_eq!(sent + text.len() as u64, length);
    }

    #[test]
    fn the_overhead_is_that_of_the_longest_part() {
        let size = 1_000_000;
        let mut body = multipart("bytes=0-9,500000-500000,-10", size);
        let texts: Vec<u64> = (0..4).map(|_| body.advance().0.len() as u64).collect();
        assert_eq!(texts[2], part_overhead_bytes(10, size) - 2);
        assert!(texts.iter().all(|length| *length < part_overhead_bytes(10, size)));
        assert_eq!(part_overhead_bytes(0, 0), part_overhead_bytes(0, 9));
        assert_eq!(part_overhead_bytes(0, 9) + 3, part_overhead_bytes(0, 10));
    }

    #[test]
    fn sizes_at_their_limit_do_not_overflow() {
        let body = multipart("bytes=0-0,-1", u64::MAX);
        assert!(body.text.windows(20).any(|text| text == u64::MAX.to_string().as_bytes()));
        assert_eq!(body.length(), 2 + body.text.len() as u64);
    }
}
