//! The `Range` field for a representation of known size (RFC 9110 14).
//!
//! One range is served; a request for several, another unit or a malformed value gets the whole
//! representation, as a server may always answer (RFC 9110 14.2).

/// What of a representation a `Range` field asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selected {
    /// Everything: answer 200.
    Whole,
    /// The bytes `first` to `last`, both included; `first <= last < size`. Answer 206.
    Part {
        /// Offset of the first byte.
        first: u64,
        /// Offset of the last byte.
        last: u64,
    },
    /// Begins at or past the end: answer 416 with `Content-Range: bytes */size`.
    Unsatisfiable,
}

/// Reads the value of a `Range` field for a representation of `size` bytes.
///
/// Numbers of any length are understood; one beyond 64 bits is past every end. A suffix of an empty
/// representation is the whole of it, since no `Content-Range` could describe it (RFC 9110 14.1.2 calls such a
/// range satisfiable); any other range of an empty representation is not satisfiable.
pub fn select(value: &[u8], size: u64) -> Selected {
    match parse(value) {
        None => Selected::Whole,
        Some(Spec::Suffix(0)) => Selected::Unsatisfiable,
        Some(Spec::Suffix(_)) if size == 0 => Selected::Whole,
        Some(Spec::Suffix(length)) => Selected::Part { first: size.saturating_sub(length), last: size - 1 },
        Some(Spec::From { first, .. }) if first >= size => Selected::Unsatisfiable,
        Some(Spec::From { first, last }) => Selected::Part { first, last: last.min(size - 1) },
    }
}

/// One range specification (RFC 9110 14.1.1). An open end is `u64::MAX`.
enum Spec {
    From { first: u64, last: u64 },
    Suffix(u64),
}

/// `None` for everything that is to be ignored. The unit's name has no case (RFC 9110 14.1).
fn parse(value: &[u8]) -> Option<Spec> {
    let (unit, rest) = value.split_at_checked(6)?;
    if !unit.eq_ignore_ascii_case(b"bytes=") {
        return None;
    }
    let spec = rest.trim_ascii();
    let dash = spec.iter().position(|&byte| byte == b'-')?;
    let (first, last) = (&spec[..dash], &spec[dash + 1..]);
    if first.is_empty() {
        return Some(Spec::Suffix(saturating_decimal(last)?));
    }
    let first = saturating_decimal(first)?;
    let last = if last.is_empty() { u64::MAX } else { saturating_decimal(last)? };
    // RFC 9110 14.1.1: a last position before the first makes the specification invalid.
    (first <= last).then_some(Spec::From { first, last })
}

/// A number of digits only, `u64::MAX` where it does not fit. A comma is not a digit, so a list of ranges
/// ends here too.
fn saturating_decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let add = |number: u64, &byte: &u8| number.saturating_mul(10).saturating_add(u64::from(byte - b'0'));
    Some(text.iter().fold(0, add))
}

#[cfg(test)]
mod tests {
    use super::{Selected::*, *};

    #[test]
    fn selects_a_part() {
        assert_eq!(select(b"bytes=0-0", 10), Part { first: 0, last: 0 });
        assert_eq!(select(b"bytes=2-5", 10), Part { first: 2, last: 5 });
        assert_eq!(select(b"BYTES=2-5", 10), Part { first: 2, last: 5 });
        assert_eq!(select(b"bytes= 2-5\t", 10), Part { first: 2, last: 5 });
        assert_eq!(select(b"bytes=002-5", 10), Part { first: 2, last: 5 });
    }

    #[test]
    fn an_open_or_late_end_is_the_last_byte() {
        assert_eq!(select(b"bytes=0-", 10), Part { first: 0, last: 9 });
        assert_eq!(select(b"bytes=9-", 10), Part { first: 9, last: 9 });
        assert_eq!(select(b"bytes=3-9", 10), Part { first: 3, last: 9 });
        assert_eq!(select(b"bytes=3-10", 10), Part { first: 3, last: 9 });
        assert_eq!(select(b"bytes=3-99999999999999999999999", 10), Part { first: 3, last: 9 });
    }

    #[test]
    fn a_suffix_counts_from_the_end() {
        assert_eq!(select(b"bytes=-1", 10), Part { first: 9, last: 9 });
        assert_eq!(select(b"bytes=-10", 10), Part { first: 0, last: 9 });
        assert_eq!(select(b"bytes=-11", 10), Part { first: 0, last: 9 });
        assert_eq!(select(b"bytes=-99999999999999999999999", 10), Part { first: 0, last: 9 });
        assert_eq!(select(b"bytes=-0", 10), Unsatisfiable);
    }

    #[test]
    fn a_start_past_the_end_is_unsatisfiable() {
        assert_eq!(select(b"bytes=10-", 10), Unsatisfiable);
        assert_eq!(select(b"bytes=10-12", 10), Unsatisfiable);
        assert_eq!(select(b"bytes=99999999999999999999999-", 10), Unsatisfiable);
        assert_eq!(select(b"bytes=18446744073709551615-", u64::MAX), Unsatisfiable);
    }

    #[test]
    fn an_empty_representation_has_no_parts() {
        assert_eq!(select(b"bytes=0-", 0), Unsatisfiable);
        assert_eq!(select(b"bytes=0-0", 0), Unsatisfiable);
        assert_eq!(select(b"bytes=-5", 0), Whole);
        assert_eq!(select(b"bytes=-0", 0), Unsatisfiable);
    }

    #[test]
    fn the_largest_size_does_not_overflow() {
        let last = u64::MAX - 1;
        assert_eq!(select(b"bytes=-1", u64::MAX), Part { first: last, last });
        assert_eq!(select(b"bytes=0-18446744073709551615", u64::MAX), Part { first: 0, last });
    }

    #[test]
    fn anything_else_is_ignored() {
        let ignored = [
            &b""[..],
            b"bytes",
            b"bytes=",
            b"bytes=-",
            b"bytes=5",
            b"bytes=5-2",
            b"bytes=0-1,3-4",
            b"bytes=0-1,",
            b"bytes=,0-1",
            b"bytes=+1-2",
            b"bytes=1-+2",
            b"bytes=--1",
            b"bytes=1--2",
            b"bytes=0x1-2",
            b"bytes=1 - 2",
            b"bytes =1-2",
            b"lines=1-2",
            b"byte=1-2",
            b"\xff\xff\xff\xff\xff\xff\xff",
        ];
        for value in ignored {
            assert_eq!(select(value, 10), Whole, "{:?}", String::from_utf8_lossy(value));
        }
    }
}
