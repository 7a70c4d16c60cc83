//! The `Range` field for a representation of known size (RFC 9110 14).
//!
//! A server may always answer with the whole representation (RFC 9110 14.2). So does this one to another unit, to a
//! malformed set, and to a set whose parts would cost more than the whole or that nobody sends for good reason.

use super::syntax::elements;

/// Most ranges of one field: what is known of clients stays far below. One more, and the whole is sent.
pub const RANGES_MAX: usize = 16;

/// Ranges of a set that overlap an earlier one, at most: with more than two the client is broken or means harm
/// (RFC 9110 14.2), and gets the whole.
const OVERLAPS_MAX: usize = 2;

/// The bytes `first` to `last`, both included; `first <= last`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByteRange {
    /// Offset of the first byte.
    pub first: u64,
    /// Offset of the last byte.
    pub last: u64,
}

/// Several ranges, of which no two overlap: 2 to [`RANGES_MAX`], in the order asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RangeSet {
    ranges: [ByteRange; RANGES_MAX],
    count: usize,
}

/// What of a representation a `Range` field asks for. Every range ends before the representation does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selected {
    /// Everything: answer 200.
    Whole,
    /// Answer 206 with these bytes.
    One(ByteRange),
    /// Answer 206 with a part for each.
    Several(Box<RangeSet>),
    /// Nothing that is there: answer 416 with `Content-Range: bytes */size`.
    Unsatisfiable,
}

/// Reads the value of a `Range` field for a representation of `size` bytes. Allocates for several ranges only.
///
/// Numbers of any length are understood; one beyond 64 bits is past every end. A suffix of an empty
/// representation is the whole of it, since no `Content-Range` could describe it (RFC 9110 14.1.2 calls such a
/// range satisfiable); any other range of an empty representation is not satisfiable.
///
/// `part_overhead_bytes` is what a part costs beside its content: ranges that overlap, or between which there is
/// less than that, become one (RFC 9110 15.3.7.2). Ranges that cannot be satisfied are left out.
pub fn select(value: &[u8], size: u64, part_overhead_bytes: u64) -> Selected {
    let Some(specs) = range_set(value) else { return Selected::Whole };
    let mut set = RangeSet::default();
    let (mut asked, mut asked_bytes, mut overlaps) = (0, 0_u64, 0);
    // Empty elements are allowed in a list that is received (RFC 9110 5.6.1.2).
    for spec in elements(specs).filter(|spec| !spec.is_empty()) {
        let Some(spec) = Spec::parse(spec) else { return Selected::Whole };
        asked += 1;
        if asked > RANGES_MAX {
            return Selected::Whole;
        }
        let range = match spec {
            Spec::Suffix(0) => continue,
            Spec::Suffix(_) if size == 0 => return Selected::Whole,
            Spec::Suffix(length) => ByteRange { first: size.saturating_sub(length), last: size - 1 },
            Spec::From { first, .. } if first >= size => continue,
            Spec::From { first, last } => ByteRange { first, last: last.min(size - 1) },
        };
        asked_bytes = asked_bytes.saturating_add(range.length());
        overlaps += usize::from(set.as_slice().iter().any(|earlier| earlier.overlaps(range)));
        set.push(range);
    }
    match (asked, set.count) {
        (0, _) => return Selected::Whole,
        (_, 0) => return Selected::Unsatisfiable,
        (_, 1) => return Selected::One(set.ranges[0]),
        _ if asked_bytes > size || overlaps > OVERLAPS_MAX => return Selected::Whole,
        _ => set.coalesce(part_overhead_bytes),
    }
    if set.count == 1 {
        return Selected::One(set.ranges[0]);
    }
    let cost = |bytes: u64, range: &ByteRange| {
        bytes.saturating_add(range.length()).saturating_add(part_overhead_bytes)
    };
    if set.as_slice().iter().fold(0, cost) >= size {
        Selected::Whole
    } else {
        Selected::Several(Box::new(set))
    }
}

impl ByteRange {
    /// Number of bytes.
    pub fn length(self) -> u64 {
        self.last - self.first + 1
    }

    fn overlaps(self, other: ByteRange) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// Bytes between the two; none when they touch or overlap.
    fn gap_bytes(self, other: ByteRange) -> u64 {
        let (low, high) = if self.first <= other.first { (self, other) } else { (other, self) };
        high.first.saturating_sub(low.last.saturating_add(1))
    }
}

impl RangeSet {
    /// The ranges in their order.
    pub fn as_slice(&self) -> &[ByteRange] {
        &self.ranges[..self.count]
    }

    /// There is room: `select` counts.
    fn push(&mut self, range: ByteRange) {
        self.ranges[self.count] = range;
        self.count += 1;
    }

    /// Makes one of any two ranges between which there are fewer than `gap_bytes`, in the place of the earlier one: the
    /// others keep their order (RFC 9110 15.3.7.2).
    fn coalesce(&mut self, gap_bytes: u64) {
        while let Some((earlier, later)) = self.find_near(gap_bytes) {
            let (one, other) = (self.ranges[earlier], self.ranges[later]);
            self.ranges[earlier] =
                ByteRange { first: one.first.min(other.first), last: one.last.max(other.last) };
            self.ranges.copy_within(later + 1..self.count, later);
            self.count -= 1;
            // Two sets of the same ranges are equal.
            self.ranges[self.count] = ByteRange::default();
        }
    }

    fn find_near(&self, gap_bytes: u64) -> Option<(usize, usize)> {
        let near = |one: ByteRange, other| one.overlaps(other) || one.gap_bytes(other) < gap_bytes;
        let mut pairs = (1..self.count).flat_map(|later| (0..later).map(move |earlier| (earlier, later)));
        pairs.find(|&(earlier, later)| near(self.ranges[earlier], self.ranges[later]))
    }
}

/// One range specification (RFC 9110 14.1.1). An open end is `u64::MAX`.
enum Spec {
    From { first: u64, last: u64 },
    Suffix(u64),
}

/// What follows `bytes=`. The unit's name has no case (RFC 9110 14.1).
fn range_set(value: &[u8]) -> Option<&[u8]> {
    let (unit, set) = value.split_at_checked(6)?;
    unit.eq_ignore_ascii_case(b"bytes=").then_some(set)
}

impl Spec {
    /// `None` for what makes the whole set invalid.
    fn parse(spec: &[u8]) -> Option<Spec> {
        let dash = spec.iter().position(|&byte| byte == b'-')?;
        let (first, last) = (&spec[..dash], &spec[dash + 1..]);
        if first.is_empty() {
            return Some(Spec::Suffix(saturating_decimal(last)?));
        }
        let open = last.is_empty();
        // RFC 9110 14.1.1: a last position before the first makes the specification invalid, however long both are.
        if !open && significant(last) < significant(first) {
            return None;
        }
        let last = if open { u64::MAX } else { saturating_decimal(last)? };
        Some(Spec::From { first: saturating_decimal(first)?, last })
    }
}

/// Digits that matter, after their number: numbers of any length compare as these do.
fn significant(digits: &[u8]) -> (usize, &[u8]) {
    let zeros = digits.iter().take_while(|&&digit| digit == b'0').count();
    (digits.len() - zeros, &digits[zeros..])
}

/// A number of digits only, `u64::MAX` where it does not fit.
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

    const OVERHEAD_BYTES: u64 = 80;

    fn select(value: &[u8], size: u64) -> Selected {
        super::select(value, size, OVERHEAD_BYTES)
    }

    fn several(ranges: &[(u64, u64)]) -> Selected {
        let mut set = RangeSet::default();
        ranges.iter().for_each(|&(first, last)| set.push(ByteRange { first, last }));
        Several(Box::new(set))
    }

    fn one(first: u64, last: u64) -> Selected {
        One(ByteRange { first, last })
    }

    /// `count` ranges of one byte, each far from the others.
    fn spread(count: u64) -> String {
        let specs: Vec<String> = (0..count).map(|n| format!("{0}-{0}", n * 1000)).collect();
        format!("bytes={}", specs.join(","))
    }

    #[test]
    fn selects_a_part() {
        assert_eq!(select(b"bytes=0-0", 10), one(0, 0));
        assert_eq!(select(b"bytes=2-5", 10), one(2, 5));
        assert_eq!(select(b"BYTES=2-5", 10), one(2, 5));
        assert_eq!(select(b"bytes= 2-5\t", 10), one(2, 5));
        assert_eq!(select(b"bytes=002-5", 10), one(2, 5));
    }

    #[test]
    fn an_open_or_late_end_is_the_last_byte() {
        assert_eq!(select(b"bytes=0-", 10), one(0, 9));
        assert_eq!(select(b"bytes=9-", 10), one(9, 9));
        assert_eq!(select(b"bytes=3-9", 10), one(3, 9));
        assert_eq!(select(b"bytes=3-10", 10), one(3, 9));
        assert_eq!(select(b"bytes=3-99999999999999999999999", 10), one(3, 9));
    }

    #[test]
    fn a_suffix_counts_from_the_end() {
        assert_eq!(select(b"bytes=-1", 10), one(9, 9));
        assert_eq!(select(b"bytes=-10", 10), one(0, 9));
        assert_eq!(select(b"bytes=-11", 10), one(0, 9));
        assert_eq!(select(b"bytes=-99999999999999999999999", 10), one(0, 9));
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
        assert_eq!(select(b"bytes=-1", u64::MAX), one(last, last));
        assert_eq!(select(b"bytes=0-18446744073709551615", u64::MAX), one(0, last));
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
            b"bytes=99999999999999999999999-88888888888888888888888",
            b"bytes=,",
            b"bytes=0-1,x",
            b"bytes=0-1,5-2",
            b"bytes=0-1 3-4",
            b"bytes=0-1;3-4",
            b"bytes=0-1,bytes=3-4",
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

    #[test]
    fn several_ranges_keep_their_order() {
        assert_eq!(select(b"bytes=0-9,500-509", 1000), several(&[(0, 9), (500, 509)]));
        assert_eq!(select(b"bytes=-10 ,\t0-9, 500-509", 1000), several(&[(990, 999), (0, 9), (500, 509)]));
        assert_eq!(select(b"bytes=,0-9,,500-509,", 1000), several(&[(0, 9), (500, 509)]));
    }

    #[test]
    fn what_cannot_be_satisfied_is_left_out() {
        assert_eq!(select(b"bytes=1000-,0-9,-0,500-509", 1000), several(&[(0, 9), (500, 509)]));
        assert_eq!(select(b"bytes=1000-,0-9", 1000), one(0, 9));
        assert_eq!(select(b"bytes=1000-,2000-3000,-0", 1000), Unsatisfiable);
        assert_eq!(select(b"bytes=0-,-5", 0), Whole);
        assert_eq!(select(b"bytes=0-,-0", 0), Unsatisfiable);
    }

    #[test]
    fn ranges_that_overlap_or_are_near_become_one() {
        assert_eq!(select(b"bytes=0-9,5-14", 1000), one(0, 14));
        assert_eq!(select(b"bytes=5-14,0-9", 1000), one(0, 14));
        assert_eq!(select(b"bytes=0-99,20-30", 1000), one(0, 99));
        assert_eq!(select(b"bytes=0-9,10-19", 1000), one(0, 19));
        // A gap as long as a part's overhead stays, one byte less does not.
        assert_eq!(select(b"bytes=0-9,90-99", 1000), several(&[(0, 9), (90, 99)]));
        assert_eq!(select(b"bytes=0-9,89-99", 1000), one(0, 99));
        assert_eq!(select(b"bytes=90-99,0-9", 1000), several(&[(90, 99), (0, 9)]));
        assert_eq!(select(b"bytes=89-99,0-9", 1000), one(0, 99));
    }

    #[test]
    fn a_range_that_joins_two_others_makes_one_of_three() {
        assert_eq!(
            select(b"bytes=0-9,5000-5009,200-209,100-109,20-190", 9000),
            several(&[(0, 209), (5000, 5009)])
        );
        assert_eq!(select(b"bytes=0-9,100-109,50-60", 9000), one(0, 109));
    }

    #[test]
    fn more_ranges_than_the_limit_are_the_whole() {
        let max = RANGES_MAX as u64;
        let ranges: Vec<(u64, u64)> = (0..max).map(|n| (n * 1000, n * 1000)).collect();
        assert_eq!(select(spread(max).as_bytes(), 1 << 20), several(&ranges));
        assert_eq!(select(spread(max + 1).as_bytes(), 1 << 20), Whole);
        // Those that cannot be satisfied count, empty elements do not.
        assert_eq!(select(format!("{},9999999-", spread(max)).as_bytes(), 1 << 20), Whole);
        assert_eq!(select(format!("{},,,", spread(max)).as_bytes(), 1 << 20), several(&ranges));
    }

    #[test]
    fn more_than_two_overlapping_ranges_are_the_whole() {
        assert_eq!(select(b"bytes=0-9,5-6,500-500,2-3", 1000), several(&[(0, 9), (500, 500)]));
        assert_eq!(select(b"bytes=0-9,5-6,500-500,2-3,500-500", 1000), Whole);
        assert_eq!(select(b"bytes=0-0,0-0,0-0,0-0", 1000), Whole);
    }

    #[test]
    fn parts_that_cost_more_than_the_whole_are_the_whole() {
        // Asked for: one byte more than there is.
        assert_eq!(select(b"bytes=0-,0-0", 1000), Whole);
        assert_eq!(select(b"bytes=0-,-1000", 1000), Whole);
        // With what two parts cost, 1000 bytes and 999.
        assert_eq!(select(b"bytes=0-399,560-999", 1000), Whole);
        assert_eq!(select(b"bytes=0-398,560-999", 1000), several(&[(0, 398), (560, 999)]));
        assert_eq!(select(b"bytes=0-18446744073709551613,-1", u64::MAX), one(0, u64::MAX - 1));
    }
}
