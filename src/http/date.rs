//! HTTP dates (RFC 9110 5.6.7) in seconds since 1970, and the `Date` line that a shard renders once a second.
//!
//! The caller brings the time; nothing here reads a clock.

use std::{
    io::Write,
    time::{Duration, UNIX_EPOCH},
};

/// Length of a date as we write it: `Sun, 06 Nov 1994 08:49:37 GMT`.
pub const DATE_BYTES: usize = 29;

/// The last second that four digits of a year can tell; later times are written as this one.
const SECONDS_MAX: u64 = 253_402_300_799;

const NAME: &[u8; 6] = b"Date: ";
const LINE_BYTES: usize = NAME.len() + DATE_BYTES + 2;

/// The `Date` field line (RFC 9110 6.6.1), rendered again only when the second changes.
#[derive(Clone, Debug)]
pub struct DateCache {
    unix_seconds: u64,
    line: [u8; LINE_BYTES],
}

impl DateCache {
    /// A cache that holds the line of 1970.
    pub fn new() -> DateCache {
        DateCache { unix_seconds: 0, line: render(0) }
    }

    /// `Date: ...\r\n` for this second, 37 bytes. Costs a comparison while the second is the same.
    #[inline]
    pub fn line(&mut self, unix_seconds: u64) -> &[u8] {
        if self.unix_seconds != unix_seconds {
            self.line = render(unix_seconds);
            self.unix_seconds = unix_seconds;
        }
        &self.line
    }
}

impl Default for DateCache {
    fn default() -> Self {
        DateCache::new()
    }
}

/// Writes a date in the preferred form, `IMF-fixdate`. Years past 9999 become the last second of 9999.
pub fn format(unix_seconds: u64) -> [u8; DATE_BYTES] {
    let time = UNIX_EPOCH + Duration::from_secs(unix_seconds.min(SECONDS_MAX));
    let mut text = [b' '; DATE_BYTES];
    // The text of an `HttpDate` is 29 bytes, always, so the write cannot fall short.
    let written = write!(&mut text[..], "{}", httpdate::HttpDate::from(time));
    debug_assert!(written.is_ok());
    text
}

/// Reads a date in any of the three forms that a recipient MUST accept (RFC 9110 5.6.7): `IMF-fixdate`, the
/// RFC 850 form (two digits of a year: 70 to 99 are of the last century) and that of `asctime`. `None` for
/// anything else, for a day that does not exist and for a day of the week that does not fit the date.
pub fn parse(text: &[u8]) -> Option<u64> {
    let date: httpdate::HttpDate = std::str::from_utf8(text).ok()?.parse().ok()?;
    let time = std::time::SystemTime::from(date);
    time.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs())
}

fn render(unix_seconds: u64) -> [u8; LINE_BYTES] {
    let mut line = [0; LINE_BYTES];
    line[..NAME.len()].copy_from_slice(NAME);
    line[NAME.len()..NAME.len() + DATE_BYTES].copy_from_slice(&format(unix_seconds));
    line[LINE_BYTES - 2..].copy_from_slice(b"\r\n");
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: u64 = 784_111_777;

    #[test]
    fn writes_the_preferred_form() {
        assert_eq!(&format(EXAMPLE), b"Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(&format(0), b"Thu, 01 Jan 1970 00:00:00 GMT");
    }

    #[test]
    fn times_past_the_year_9999_are_clamped() {
        let last = b"Fri, 31 Dec 9999 23:59:59 GMT";
        assert_eq!(&format(SECONDS_MAX), last);
        assert_eq!(&format(SECONDS_MAX + 1), last);
        assert_eq!(&format(u64::MAX), last);
    }

    #[test]
    fn reads_all_three_forms() {
        assert_eq!(parse(b"Sun, 06 Nov 1994 08:49:37 GMT"), Some(EXAMPLE));
        assert_eq!(parse(b"Sunday, 06-Nov-94 08:49:37 GMT"), Some(EXAMPLE));
        assert_eq!(parse(b"Sun Nov  6 08:49:37 1994"), Some(EXAMPLE));
    }

    #[test]
    fn what_is_written_is_read_back() {
        for seconds in [0, 1, 951_782_399, 951_782_400, EXAMPLE, 4_107_542_400, SECONDS_MAX] {
            assert_eq!(parse(&format(seconds)), Some(seconds));
        }
    }

    #[test]
    fn refuses_what_is_not_a_date() {
        let wrong = [
            &b""[..],
            b"yesterday",
            b"784111777",
            b"Mon, 06 Nov 1994 08:49:37 GMT",
            b"Sun, 06 Nov 1994 08:49:37 CET",
            b"Sun, 06 Nov 1994 24:00:00 GMT",
            b"Wed, 30 Feb 1994 08:49:37 GMT",
            b"Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:49:37 GMT",
            b"Sun, 06 N\xf6v 1994 08:49:37 GMT",
            b"Wed, 31 Dec 1969 23:59:59 GMT",
        ];
        for text in wrong {
            assert_eq!(parse(text), None, "{:?}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn no_bytes_make_the_parser_panic() {
        let valid = [
            &b"Sun, 06 Nov 1994 08:49:37 GMT"[..],
            b"Sunday, 06-Nov-94 08:49:37 GMT",
            b"Wednesday, 09-Nov-94 08:49:37 GMT",
            b"Sun Nov  6 08:49:37 1994",
        ];
        for text in valid {
            for end in 0..text.len() {
                assert_eq!(parse(&text[..end]), None);
                for byte in 0..=255 {
                    let mut changed = text.to_vec();
                    changed[end] = byte;
                    parse(&changed);
                }
            }
        }
    }

    #[test]
    fn the_line_follows_the_clock_in_both_directions() {
        let mut cache = DateCache::new();
        assert_eq!(cache.line(0), b"Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n");
        assert_eq!(cache.line(EXAMPLE), b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n");
        assert_eq!(cache.line(EXAMPLE), b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n");
        assert_eq!(cache.line(EXAMPLE - 1), b"Date: Sun, 06 Nov 1994 08:49:36 GMT\r\n");
    }
}
