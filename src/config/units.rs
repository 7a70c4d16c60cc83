//! Sizes and times as people write them (`64MB`, `30s`), both ways.
//!
//! Own and strict: no fractions, signs, spaces or saturation. A number that does not fit is refused, never
//! rounded.

use std::time::Duration;

/// Powers of 1024, largest first.
const SIZE_UNITS: [(&str, u64); 3] = [("GB", 1 << 30), ("MB", 1 << 20), ("KB", 1 << 10)];

/// Milliseconds. `ms` stands before `m` and `s`, because the first suffix that matches is taken.
const TIME_UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];

/// Read, but never written: a day is told in hours.
const DAY: (&str, u64) = ("d", 86_400_000);

/// Bytes: digits, then `KB`, `MB`, `GB` (powers of 1024, any case) or nothing. `None` for anything else and
/// for what does not fit 64 bits.
pub(super) fn parse_size(text: &str) -> Option<u64> {
    let unit = SIZE_UNITS.iter().find_map(|&(suffix, bytes)| {
        let cut = text.len().checked_sub(suffix.len())?;
        let (digits, tail) = text.split_at_checked(cut)?;
        tail.eq_ignore_ascii_case(suffix).then_some((digits, bytes))
    });
    let (digits, bytes) = unit.unwrap_or((text, 1));
    parse_digits(digits)?.checked_mul(bytes)
}

/// The shortest exact spelling of a number of bytes.
pub(super) fn show_size(bytes: u64) -> String {
    SIZE_UNITS
        .iter()
        .find(|&&(_, unit)| bytes != 0 && bytes.is_multiple_of(unit))
        .map_or_else(|| bytes.to_string(), |(suffix, unit)| format!("{}{suffix}", bytes / unit))
}

/// A time: digits, then `ms`, `s`, `m`, `h` or `d`. A bare `0` needs no unit. `None` for anything else and for
/// what does not fit 64 bits of milliseconds.
pub(super) fn parse_time(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut units = TIME_UNITS.iter().chain([&DAY]);
    let (digits, millis) = units.find_map(|&(suffix, millis)| Some((text.strip_suffix(suffix)?, millis)))?;
    parse_digits(digits)?.checked_mul(millis).map(Duration::from_millis)
}

/// The shortest exact spelling of a time, in whole milliseconds.
pub(super) fn show_time(time: Duration) -> String {
    let millis = time.as_millis();
    TIME_UNITS
        .iter()
        .rev()
        .find(|&&(_, unit)| millis != 0 && millis.is_multiple_of(u128::from(unit)))
        .map_or_else(
            || String::from("0s"),
            |&(suffix, unit)| format!("{}{suffix}", millis / u128::from(unit)),
        )
}

/// Digits only: `str::parse` alone would take a leading `+`.
fn parse_digits(digits: &str) -> Option<u64> {
    if digits.bytes().all(|byte| byte.is_ascii_digit()) { digits.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024_in_any_case() {
        for (text, bytes) in
            [("0", 0), ("4096", 4096), ("4KB", 4096), ("64mb", 64 << 20), ("1Gb", 1 << 30), ("007kB", 7168)]
        {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
    }

    #[test]
    fn refuses_sizes_that_are_not_whole_numbers_of_a_known_unit() {
        for text in
            ["", "KB", "-1", "+1", "1.5MB", "1 KB", "1K", "1KiB", "1TB", "0x10", "1e3", "é", "éKB", "1_000"]
        {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }

    #[test]
    fn a_size_may_fill_64_bits_and_no_more() {
        assert_eq!(parse_size("18446744073709551615"), Some(u64::MAX));
        assert_eq!(parse_size("18446744073709551616"), None);
        assert_eq!(parse_size("17179869183GB"), Some(17_179_869_183 << 30));
        assert_eq!(parse_size("17179869184GB"), None);
    }

    #[test]
    fn times_need_a_unit() {
        for (text, millis) in [
            ("0", 0),
            ("0s", 0),
            ("500ms", 500),
            ("10s", 10_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("2d", 172_800_000),
        ] {
            assert_eq!(parse_time(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in
            ["", "s", "10", "-1s", "1.5s", "1 s", "1S", "1w", "d", "+1s", "5124095576031h", "213503982335d"]
        {
            assert_eq!(parse_time(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_shown_reads_back_the_same() {
        for bytes in [0, 1, 1023, 1024, 1025, 64 << 20, (1 << 30) + 1024, u64::MAX] {
            assert_eq!(parse_size(&show_size(bytes)), Some(bytes));
        }
        for millis in [0, 1, 999, 1_000, 1_001, 60_000, 61_000, 3_600_000, 86_400_000] {
            let time = Duration::from_millis(millis);
            assert_eq!(parse_time(&show_time(time)), Some(time));
        }
        assert_eq!(show_size(64 << 20), "64MB");
        assert_eq!(show_time(Duration::from_secs(75)), "75s");
    }
}
